/*
 * The move machines where things go wrong: orders of others, refusals, answers that don't come, networks that
 * don't work, tokens. What an operator reads is part of it.
 */
#include "tests/unit/move-world.h"

/* ---------------------------------------------------------------- orders */

static void test_order_check(void **state)
{
	static char long_name[300];
	struct dr_error err = DR_ERROR_INIT;
	Drover__MoveOrder good = order;

	(void)state;
	assert_int_equal(move_order_check(&order, &err), 0);
#define BAD(field, value, words)                                                                             \
	do {                                                                                                 \
		order = good;                                                                                \
		order.field = value;                                                                         \
		dr_error_clear(&err);                                                                        \
		assert_int_equal(move_order_check(&order, &err), -DR_EPROTO);                                \
		assert_non_null(strstr(err.text, words));                                                    \
	} while (0)
	BAD(move, 0, "without a move or attempt number");
	BAD(attempt, 0, "without a move or attempt number");
	BAD(key.len, 33, "key of 33 bytes");
	BAD(vm, NULL, "bad VM name");
	BAD(vm, (char *)(uintptr_t) "", "bad VM name");
	memset(long_name, 'x', sizeof(long_name) - 1);
	BAD(vm, long_name, "bad VM name");
	BAD(n_paths, 1000, "too many paths or disks");
	BAD(n_proofs, 100000, "too many paths or disks");
	BAD(role, (Drover__MoveRole)2, "unknown role");
	BAD(spec, NULL, "no VM spec");
	order = good;
	order.role = DROVER__MOVE_ROLE__MOVE_DST;
	dr_error_clear(&err);
	assert_int_equal(move_order_check(&order, &err), 0);
}

/* R5: of another move, VM, generation or side; a second decision, and none behind one. */
static void test_orders_of_others(void **state)
{
	Drover__MoveOrder good;

	(void)state;
	copying();
	good = order;
	order.decision = DROVER__MOVE_DECISION__DECISION_ABORT;
	order.move = 8;
	give_order();
	order.move = 7;
	order.role = DROVER__MOVE_ROLE__MOVE_DST;
	give_order();
	order.role = DROVER__MOVE_ROLE__MOVE_SRC;
	order.generation = 4;
	give_order();
	order.generation = 3;
	order.vm = (char *)(uintptr_t) "vm2";
	give_order();
	order.vm = good.vm;
	assert_int_equal(move_phase(m), P(SRC_COPYING));
	give_order();
	assert_int_equal(move_phase(m), P(SRC_ABORTING));
	order.decision = DROVER__MOVE_DECISION__DECISION_COMMIT;
	give_order();
	assert_int_equal(move_order(m)->decision, DROVER__MOVE_DECISION__DECISION_ABORT);
	order.decision = DROVER__MOVE_DECISION__DECISION_NONE;
	give_order();
	assert_int_equal(move_order(m)->decision, DROVER__MOVE_DECISION__DECISION_ABORT);
}

/* ---------------------------------------------------------------- the source's beginning */

static void test_not_running(void **state)
{
	(void)state;
	source();
	send(MOVE_EV_QEMU_UP);
	answer_status(MOVE_RUN_PAUSED);
	assert_int_equal(move_phase(m), P(SRC_ABORTING));
	failed("the VM does not run", 6, true);
}

static void test_no_answer(void **state)
{
	(void)state;
	source();
	pass(29000);
	not_failed();
	pass(2000);
	failed("did not answer within 30 s", 1, false);
	assert_int_equal(move_phase(m), P(SRC_ABORTING));
}

static void test_nonces(void **state)
{
	Drover__DiskProof proof = DROVER__DISK_PROOF__INIT;
	Drover__DiskProof *proofs[1] = {&proof};
	Drover__MoveFact fact;

	(void)state;
	source();
	send(MOVE_EV_QEMU_UP);
	answer_status(MOVE_RUN_RUNNING);
	move_event(m, &(struct move_event){.type = MOVE_EV_NONCES_WRITTEN,
					   .exit = 6,
					   .text = "/a: read-only file system"});
	failed("/a: read-only file system", 6, false);
	again(state);
	source();
	send(MOVE_EV_QEMU_UP);
	answer_status(MOVE_RUN_RUNNING);
	move_event(m, &(struct move_event){.type = MOVE_EV_NONCES_WRITTEN});
	failed("could not be written", 1, false);
	again(state);
	source();
	send(MOVE_EV_QEMU_UP);
	answer_status(MOVE_RUN_RUNNING);
	proof.path = (char *)(uintptr_t) "/a";
	move_event(m, &(struct move_event){
			      .type = MOVE_EV_NONCES_WRITTEN, .ok = true, .n_proofs = 1, .proofs = proofs});
	assert_int_equal(move_phase(m), P(SRC_READY));
	proof.path = (char *)(uintptr_t) "/b"; /* the machine has a copy */
	send(MOVE_EV_NONCES_WRITTEN);
	move_fact(m, &fact);
	assert_int_equal(fact.n_proofs, 1);
	assert_string_equal(fact.proofs[0]->path, "/a");
}

/* TCG is refused on what QEMU corrupts; not with the operator's word, nor on a QEMU that can. */
static void test_tcg(void **state)
{
	launch.accel = (char *)(uintptr_t) "tcg";
	launch.qemu_major = 9;
	source();
	not_failed();
	again(state);
	launch.accel = (char *)(uintptr_t) "tcg";
	launch.qemu_major = 7;
	spec.allow_tcg_live = true;
	source();
	not_failed();
	again(state);
	order.launch = NULL; /* a VM of before there were such records */
	source();
	not_failed();
}

/* ---------------------------------------------------------------- networks */

static Drover__NetworkPath path2;
static Drover__NetworkPath *two[2];

static void connecting(void)
{
	two[0] = &path;
	two[1] = &path2;
	drover__network_path__init(&path2);
	path2.network = (char *)(uintptr_t) "mig2";
	path2.rank = 2;
	path.rank = 1;
	order.paths = two;
	order.n_paths = 2;
	source();
	send(MOVE_EV_QEMU_UP);
	answer_status(MOVE_RUN_RUNNING);
	send(MOVE_EV_NONCES_WRITTEN);
	order.dst_port = 7421;
	give_order();
	assert_int_equal(move_phase(m), P(SRC_CONNECTING));
	assert_int_equal(w.connects, 0);
	send(MOVE_EV_RELAY_UP);
	assert_int_equal(w.connects, 1);
	assert_int_equal(w.path, 0);
}

static void path_failed(unsigned number, const char *words)
{
	move_event(m, &(struct move_event){.type = MOVE_EV_CHANNEL_FAILED, .path = number, .text = words});
}

/* The next network, and a word about it; all of them again after a moment. */
static void test_second_network(void **state)
{
	Drover__MoveFact fact;

	(void)state;
	connecting();
	path_failed(0, "connection refused");
	assert_int_equal(w.connects, 2);
	assert_int_equal(w.path, 1);
	path_failed(1, NULL);
	assert_int_equal(w.connects, 2);
	pass(600);
	assert_int_equal(w.connects, 3);
	assert_int_equal(w.path, 0);
	path_failed(0, "connection refused");
	move_event(m, &(struct move_event){.type = MOVE_EV_CHANNEL_UP, .path = 1});
	assert_string_equal(
		w.said, "uses network mig2 (rank 2): mig1 (rank 1) does not work: mig1: connection refused");
	move_fact(m, &fact);
	assert_int_equal(fact.stats->n_networks, 1);
	assert_string_equal(fact.stats->networks[0], "mig2");
	/* A number that is none of its paths. */
	path_failed(7, "what?");
	move_event(m, &(struct move_event){.type = MOVE_EV_CHANNEL_UP, .path = 7});
	assert_int_equal(move_phase(m), P(SRC_CONNECTING));
}

static void test_no_network(void **state)
{
	(void)state;
	connecting();
	path_failed(0, "a");
	path_failed(1, "timed out");
	pass(16000);
	failed("no network reaches the destination: mig2: timed out", 1, false);
	again(state);
	order.n_paths = 0;
	source();
	send(MOVE_EV_QEMU_UP);
	answer_status(MOVE_RUN_RUNNING);
	send(MOVE_EV_NONCES_WRITTEN);
	order.dst_port = 7421;
	give_order();
	send(MOVE_EV_RELAY_UP);
	send(MOVE_EV_CHANNEL_UP);
	assert_int_equal(w.connects, 0);
	pass(16000);
	failed("no network reaches the destination: relay or QEMU did not answer", 1, false);
}

/* In mid-copy: 30 s, then it is given up; a channel that comes back in time begins anew. */
static void test_channels_lost(void **state)
{
	(void)state;
	copying();
	send(MOVE_EV_RELAY_NEED_CHANNEL);
	assert_non_null(strstr(w.said, "every channel of the move is lost"));
	pass(20000);
	send(MOVE_EV_RELAY_NEED_CHANNEL); /* it counts from the first */
	not_failed();
	send(MOVE_EV_CHANNEL_UP);
	pass(20000);
	not_failed();
	send(MOVE_EV_RELAY_NEED_CHANNEL);
	path_failed(0, "no route");
	for (int i = 0; i < 31; i++) {
		pass(1000);
		path_failed(0, "no route");
		figures(500000000, 1);
	}
	failed("no network carried the move for 30 s: mig1: no route", 1, false);
	assert_int_equal(move_phase(m), P(SRC_ABORTING));
}

static void test_source_relay_ends(void **state)
{
	(void)state;
	copying();
	tell(MOVE_EV_RELAY_GONE, "signal 9");
	failed("the source's relay ended: signal 9", 1, false);
	again(state);
	copying();
	tell(MOVE_EV_RELAY_FAILED, NULL);
	failed("the source's relay ended", 1, false);
	again(state);
	source();
	tell(MOVE_EV_RELAY_FAILED, "one of before"); /* it has none yet */
	not_failed();
}

static void test_figures_for_people(void **state)
{
	Drover__MoveFact fact;

	(void)state;
	copying();
	move_event(m,
		   &(struct move_event){.type = MOVE_EV_RELAY_STATS, .bytes_wire = 12345, .wire_rate = 678});
	figures(400000000, 2);
	move_fact(m, &fact);
	assert_int_equal(fact.stats->bytes_wire, 12345);
	assert_int_equal(fact.stats->rate, 678);
	assert_int_equal(fact.stats->passes, 2);
	assert_int_equal(fact.stats->bytes_remaining, 400000000);
	again(state);
	destination();
	move_event(m, &(struct move_event){.type = MOVE_EV_RELAY_STATS, .bytes_wire = 99});
	move_fact(m, &fact);
	assert_int_equal(fact.stats->bytes_wire, 99);
}

/* ---------------------------------------------------------------- QEMU says no */

static void test_source_refused(void **state)
{
	(void)state;
	connecting();
	refuse(MOVE_QMP_CAPABILITIES, "unknown capability");
	failed("the source's QEMU refused: unknown capability", 1, false);
	again(state);
	copying();
	refuse(MOVE_QMP_QUERY_MIGRATE, "busy"); /* asked again */
	not_failed();
	pass(200);
	assert_true(w.asked[MOVE_QMP_QUERY_MIGRATE] >= 2);
	move_event(m, &(struct move_event){.type = MOVE_EV_QMP,
					   .qmp = MOVE_QMP_QUERY_MIGRATE,
					   .seq = w.seq[MOVE_QMP_QUERY_MIGRATE],
					   .ok = true,
					   .mig = MOVE_MIG_FAILED,
					   .text = "Unable to write to socket"});
	failed("QEMU: Unable to write to socket", 1, false);
	again(state);
	source();
	send(MOVE_EV_QEMU_UP);
	refuse(MOVE_QMP_QUERY_STATUS, NULL);
	not_failed();
}

/* States that it must not be in, phase by phase. */
static void test_source_surprises(void **state)
{
	static const enum move_mig gave_up[] = {MOVE_MIG_FAILED, MOVE_MIG_CANCELLED, MOVE_MIG_CANCELLING};
	static const enum move_mig too_far[] = {MOVE_MIG_DEVICE, MOVE_MIG_COMPLETED, MOVE_MIG_OTHER};
	static const enum move_mig broken[] = {MOVE_MIG_NONE,	MOVE_MIG_SETUP,	     MOVE_MIG_ACTIVE,
					       MOVE_MIG_FAILED, MOVE_MIG_CANCELLING, MOVE_MIG_CANCELLED,
					       MOVE_MIG_OTHER};

	for (unsigned i = 0; i < 3; i++) {
		copying();
		migration(gave_up[i]);
		failed("QEMU gave the copy up", 1, false);
		again(state);
		copying();
		migration(too_far[i]);
		failed("QEMU is further than it was told", 1, false);
		assert_int_equal(w.asked[MOVE_QMP_MIGRATE_CONTINUE], 0);
		again(state);
	}
	for (unsigned i = 0; i < 7; i++) {
		completing();
		migration(broken[i]);
		failed("QEMU could not complete the switch-over", 1, false);
		assert_int_equal(move_phase(m), P(SRC_ABORTING));
		again(state);
	}
}

/* It resumed by itself: measured, when the destination's answer is lost (R1). */
static void test_resumed_by_itself(void **state)
{
	(void)state;
	completing();
	send(MOVE_EV_RESUME);
	failed("QEMU resumed the VM by itself", 1, false);
	assert_int_equal(move_phase(m), P(SRC_ABORTING));
	again(state);
	source();
	send(MOVE_EV_RESUME); /* nobody has stopped it */
	not_failed();
	again(state);
	completing();
	migration(MOVE_MIG_COMPLETED);
	answer_status(MOVE_RUN_POSTMIGRATE);
	assert_int_equal(move_phase(m), P(SRC_RELEASED));
	send(MOVE_EV_RESUME); /* the word is given: only a decision counts */
	not_failed();
	assert_int_equal(move_phase(m), P(SRC_RELEASED));
}

static void test_source_qemu_ends(void **state)
{
	(void)state;
	copying();
	tell(MOVE_EV_QEMU_EXITED, "signal 11");
	failed("the VM's QEMU ended: signal 11", 1, true);
	send(MOVE_EV_QEMU_UP); /* was on its way */
	assert_int_equal(w.asked[MOVE_QMP_CONT], 0);
	again(state);
	copying();
	tell(MOVE_EV_QEMU_EXITED, NULL);
	failed("the VM's QEMU ended", 1, true);
}

static void test_no_order(void **state)
{
	(void)state;
	copying();
	send(MOVE_EV_ORDER_LOST);
	failed("no longer orders this move", 1, false);
	again(state);
	destination();
	send(MOVE_EV_ORDER_LOST);
	failed("no longer orders this move", 1, false);
	assert_int_equal(move_phase(m), P(PHASE_GONE)); /* nothing was started */
}

/* ---------------------------------------------------------------- the way back */

/* Aborted while it copies: cancelled, looked at until it runs, cleaned up. */
static void test_abort_of_a_copy(void **state)
{
	(void)state;
	copying();
	order.decision = DROVER__MOVE_DECISION__DECISION_ABORT;
	give_order();
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE_CANCEL], 1);
	refuse(MOVE_QMP_MIGRATE_CANCEL, "not now"); /* the timer tries again */
	answer_migrate(MOVE_MIG_ACTIVE);
	answer_status(MOVE_RUN_RUNNING);
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE_CANCEL], 1);
	pass(600);
	assert_true(w.brakes > 0);
	answer_migrate(MOVE_MIG_ACTIVE);
	answer_status(MOVE_RUN_RUNNING);
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE_CANCEL], 2);
	answer(MOVE_QMP_MIGRATE_CANCEL, true);
	pass(60);
	answer_migrate(MOVE_MIG_CANCELLING);
	answer_status(MOVE_RUN_RUNNING);
	pass(60);
	answer_migrate(MOVE_MIG_CANCELLED);
	answer_status(MOVE_RUN_RUNNING);
	assert_int_equal(w.removals, 1);
	assert_int_equal(w.quits, 1);
	assert_int_equal(w.asked[MOVE_QMP_ANNOUNCE] + w.asked[MOVE_QMP_CONT], 0); /* it never stood still */
	send(MOVE_EV_RELAY_GONE);
	send(MOVE_EV_NONCES_REMOVED);
	assert_int_equal(move_phase(m), P(PHASE_GONE));
	assert_int_equal(w.recorded, P(PHASE_GONE));
}

/* QEMU was cancelled as it paused before the switch-over, and waits: it is woken, as often as it takes. */
static void test_abort_as_it_pauses(void **state)
{
	(void)state;
	copying();
	order.decision = DROVER__MOVE_DECISION__DECISION_ABORT;
	give_order();
	answer(MOVE_QMP_MIGRATE_CANCEL, true);
	answer_migrate(MOVE_MIG_CANCELLING);
	answer_status(MOVE_RUN_FINISH_MIGRATE);
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE_UNPAUSE], 0); /* most often it ends by itself */
	pass(600);
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE_UNPAUSE], 1);
	refuse(MOVE_QMP_MIGRATE_UNPAUSE, "not in the expected state");
	pass(500);
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE_UNPAUSE], 2);
	answer(MOVE_QMP_MIGRATE_UNPAUSE, true);
	answer_migrate(MOVE_MIG_CANCELLED);
	answer_status(MOVE_RUN_RUNNING);
	assert_int_equal(w.removals, 1);
	send(MOVE_EV_RELAY_GONE);
	send(MOVE_EV_NONCES_REMOVED);
	assert_int_equal(move_phase(m), P(PHASE_GONE));
}

/* QEMU does not resume at once: asked again. What is the guest's own trouble is left alone. */
static void test_cont_refused(void **state)
{
	completing();
	migration(MOVE_MIG_FAILED);
	assert_int_equal(move_phase(m), P(SRC_ABORTING));
	answer_migrate(MOVE_MIG_FAILED);
	answer_status(MOVE_RUN_FINISH_MIGRATE);
	assert_int_equal(w.asked[MOVE_QMP_CONT], 0);
	pass(60);
	answer_migrate(MOVE_MIG_FAILED);
	answer_status(MOVE_RUN_PAUSED);
	assert_int_equal(w.asked[MOVE_QMP_CONT], 1);
	refuse(MOVE_QMP_CONT, "locked");
	assert_string_equal(w.said, "QEMU did not resume the VM: locked");
	assert_int_equal(w.asked[MOVE_QMP_CONT], 1);
	pass(100);
	assert_int_equal(w.asked[MOVE_QMP_CONT], 1);
	pass(110);
	answer_migrate(MOVE_MIG_FAILED);
	answer_status(MOVE_RUN_PAUSED);
	assert_int_equal(w.asked[MOVE_QMP_CONT], 2);
	again(state);
	completing();
	migration(MOVE_MIG_FAILED);
	answer_migrate(MOVE_MIG_FAILED);
	answer_status(MOVE_RUN_OTHER);
	assert_int_equal(w.asked[MOVE_QMP_CONT], 0);
	assert_int_equal(w.removals, 1);
}

/* Nobody can remove the nonces: after ten tries a word about it, and the slot is free. */
static void test_nonces_stay(void **state)
{
	(void)state;
	source();
	tell(MOVE_EV_QEMU_EXITED, NULL);
	assert_int_equal(move_phase(m), P(SRC_ABORTING));
	for (int i = 0; i < 20; i++) {
		move_event(m, &(struct move_event){.type = MOVE_EV_NONCES_REMOVED});
		pass(2100);
	}
	assert_int_equal(w.removals, 10);
	assert_non_null(strstr(w.said, "files .drover-nonce-7-1-* may be left"));
	assert_int_equal(move_phase(m), P(PHASE_GONE));
}

/* The relay does not end: asked, then killed. */
static void test_relay_stays(void **state)
{
	(void)state;
	copying();
	tell(MOVE_EV_QEMU_EXITED, NULL);
	send(MOVE_EV_NONCES_REMOVED);
	assert_int_equal(w.quits, 1);
	pass(20000);
	assert_true(w.quits >= 2);
	assert_int_equal(move_phase(m), P(SRC_ABORTING));
	send(MOVE_EV_RELAY_UP); /* was on its way */
	send(MOVE_EV_RELAY_GONE);
	assert_int_equal(move_phase(m), P(PHASE_GONE));
}

/* ---------------------------------------------------------------- the token */

/* A guest that dirties faster than the link carries: four rounds with the token, then it is given up. */
static void test_does_not_converge(void **state)
{
	Drover__MoveFact fact;
	unsigned rounds = 0;
	bool held = false;

	(void)state;
	copying();
	for (int i = 0; i < 4000 && move_phase(m) < P(SRC_ABORTING); i++) {
		figures(8 << 20, (uint32_t)(2 + i / 1000)); /* near its end, always */
		pass(20);
		move_fact(m, &fact);
		if (fact.token_returned && held)
			rounds++;
		held = !fact.token_returned;
		if (fact.token_request != 0 && fact.token_request != order.token_granted) {
			order.token_granted = fact.token_request;
			give_order();
		}
	}
	assert_int_equal(rounds, 3);
	failed("does not converge: 8 MB are left, the VM dirties 50 MB/s, the blackout limit is 300 ms", 1,
	       false);
}

static void test_too_many_passes(void **state)
{
	(void)state;
	copying();
	figures(800000000, 60);
	not_failed();
	pass(200);
	figures(800000000, 61);
	failed("does not converge: 61 passes, the VM dirties 50 MB/s", 1, false);
}

/* A small VM asks before it starts; the copy turns out to be long: others may switch over meanwhile. */
static void test_released_meanwhile(void **state)
{
	Drover__MoveFact fact;

	(void)state;
	order.src_memory = UINT64_C(256) << 20;
	source();
	send(MOVE_EV_QEMU_UP);
	answer_status(MOVE_RUN_RUNNING);
	send(MOVE_EV_NONCES_WRITTEN);
	order.dst_port = 7421;
	give_order();
	send(MOVE_EV_RELAY_UP);
	send(MOVE_EV_CHANNEL_UP);
	answer(MOVE_QMP_CAPABILITIES, true);
	answer(MOVE_QMP_PARAMETERS, true);
	assert_int_equal(move_phase(m), P(SRC_COPYING));
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE], 0); /* it waits for the token, but not for long */
	move_fact(m, &fact);
	assert_int_equal(fact.token_request, 1);
	pass(1100);
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE], 1);
	answer(MOVE_QMP_MIGRATE, true);
	migration(MOVE_MIG_ACTIVE);
	figures(200000000, 1);
	pass(100);
	figures(199000000, 1); /* 10 MB/s: 20 s to go */
	pass(100);
	move_fact(m, &fact);
	assert_true(fact.token_returned);
	assert_int_equal(fact.token_request, 0);
	pass(1100);
	move_fact(m, &fact);
	assert_false(fact.token_returned);
}

/* Grants of before a restart are never fresh; it asks on behind them. */
static void test_token_of_before(void **state)
{
	Drover__MoveFact fact;

	(void)state;
	copying();
	order.token_granted = 9; /* not asked for by this process */
	give_order();
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE_CONTINUE], 0);
	send(MOVE_EV_STOP);
	migration(MOVE_MIG_PRE_SWITCHOVER);
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE_CONTINUE], 0);
	move_fact(m, &fact);
	assert_int_equal(fact.token_request, 10);
	order.token_granted = 12; /* and once more, while one is asked for */
	give_order();
	move_fact(m, &fact);
	assert_int_equal(fact.token_request, 13);
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE_CONTINUE], 0);
	order.token_granted = 13;
	give_order();
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE_CONTINUE], 1);
}

/* Without a fresh lease the VM does not wait at pre-switchover for ever (R2, R29). */
static void test_no_lease_at_the_end(void **state)
{
	Drover__MoveFact fact;

	(void)state;
	copying();
	w.lease_from = 0;
	send(MOVE_EV_STOP);
	migration(MOVE_MIG_PRE_SWITCHOVER);
	move_fact(m, &fact);
	order.token_granted = fact.token_request;
	give_order();
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE_CONTINUE], 0);
	pass(400);
	failed("no fresh lease while the VM was stopped", 1, false);
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE_CANCEL], 1);
}

/* ---------------------------------------------------------------- the blackout that is reported */

static void test_blackout(void **state)
{
	Drover__MoveFact fact;
	uint64_t stopped;

	(void)state;
	completing();
	stopped = w.now;
	migration(MOVE_MIG_COMPLETED);
	answer_status(MOVE_RUN_POSTMIGRATE);
	assert_int_equal(move_phase(m), P(SRC_RELEASED));
	order.decision = DROVER__MOVE_DECISION__DECISION_COMMIT;
	give_order();
	move_event(m, &(struct move_event){.type = MOVE_EV_RELAY_PEER_RESUMED, .at_us = stopped + 41500});
	move_event(m, &(struct move_event){.type = MOVE_EV_RELAY_PEER_RESUMED, .at_us = stopped + 90000});
	move_fact(m, &fact);
	assert_int_equal(fact.stats->blackout_us, 41500);
	assert_int_equal(fact.stats->blackout_ms, 42);
	again(state);
	copying();
	move_event(m, &(struct move_event){.type = MOVE_EV_RELAY_PEER_RESUMED}); /* it has never stopped */
	move_fact(m, &fact);
	assert_int_equal(fact.stats->blackout_us, 0);
}

/* The peer says nothing: the source waits 5 s for it, and quits its QEMU meanwhile. */
static void test_silent_peer(void **state)
{
	(void)state;
	completing();
	migration(MOVE_MIG_COMPLETED);
	answer_status(MOVE_RUN_POSTMIGRATE);
	order.decision = DROVER__MOVE_DECISION__DECISION_COMMIT;
	give_order();
	assert_int_equal(w.asked[MOVE_QMP_QUIT], 1);
	send(MOVE_EV_QEMU_EXITED);
	send(MOVE_EV_NONCES_REMOVED);
	pass(4900);
	assert_int_equal(w.quits, 0);
	pass(200);
	assert_int_equal(w.quits, 1);
	send(MOVE_EV_RELAY_GONE);
	assert_int_equal(move_phase(m), P(PHASE_GONE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_order_check, setup, teardown),
		cmocka_unit_test_setup_teardown(test_orders_of_others, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_running, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_answer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nonces, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tcg, setup, teardown),
		cmocka_unit_test_setup_teardown(test_second_network, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_network, setup, teardown),
		cmocka_unit_test_setup_teardown(test_channels_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(test_source_relay_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_figures_for_people, setup, teardown),
		cmocka_unit_test_setup_teardown(test_source_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_source_surprises, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resumed_by_itself, setup, teardown),
		cmocka_unit_test_setup_teardown(test_source_qemu_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_abort_of_a_copy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_abort_as_it_pauses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cont_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nonces_stay, setup, teardown),
		cmocka_unit_test_setup_teardown(test_relay_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(test_does_not_converge, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_many_passes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_released_meanwhile, setup, teardown),
		cmocka_unit_test_setup_teardown(test_token_of_before, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_lease_at_the_end, setup, teardown),
		cmocka_unit_test_setup_teardown(test_blackout, setup, teardown),
		cmocka_unit_test_setup_teardown(test_silent_peer, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
