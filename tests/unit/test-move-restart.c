/* The move machines with a store that fails, the destination's troubles, and every restart. */
#include "tests/unit/move-world.h"

/* ---------------------------------------------------------------- a store that fails */

/* Nothing is acted on that could not be recorded; when the store works again, it goes on. */
static void test_store_source(void **state)
{
	order.role = DROVER__MOVE_ROLE__MOVE_SRC;
	m = move_new(&me, &order);
	w.record_result = -DR_EIO;
	send(MOVE_EV_START);
	assert_int_equal(move_phase(m), P(PHASE_NONE));
	assert_int_equal(w.attaches, 0);
	pass(600);
	assert_int_equal(move_phase(m), P(PHASE_NONE));
	w.record_result = 0;
	pass(600);
	assert_int_equal(move_phase(m), P(SRC_ASSIGNED));
	send(MOVE_EV_QEMU_UP);
	answer_status(MOVE_RUN_RUNNING);
	send(MOVE_EV_NONCES_WRITTEN);
	w.record_result = -DR_EIO;
	order.dst_port = 7421;
	give_order();
	assert_int_equal(move_phase(m), P(SRC_READY));
	assert_int_equal(w.connects, 0);
	failed("the agent's store does not work", 1, false);
	again(state);
	/* Committed, and it can't be recorded: QEMU is not quit. */
	completing();
	migration(MOVE_MIG_COMPLETED);
	answer_status(MOVE_RUN_POSTMIGRATE);
	w.record_result = -DR_EIO;
	order.decision = DROVER__MOVE_DECISION__DECISION_COMMIT;
	give_order();
	assert_int_equal(move_phase(m), P(SRC_RELEASED));
	assert_int_equal(w.asked[MOVE_QMP_QUIT], 0);
	w.record_result = 0;
	pass(600);
	assert_int_equal(move_phase(m), P(SRC_FINISHING));
	send(MOVE_EV_QEMU_EXITED);
	send(MOVE_EV_NONCES_REMOVED);
	w.record_result = -DR_EIO;
	send(MOVE_EV_RELAY_GONE);
	assert_int_equal(move_phase(m), P(SRC_FINISHING));
	w.record_result = 0;
	pass(300);
	assert_int_equal(move_phase(m), P(PHASE_GONE));
}

static void test_store_destination(void **state)
{
	order.role = DROVER__MOVE_ROLE__MOVE_DST;
	m = move_new(&me, &order);
	w.record_result = -DR_EIO;
	send(MOVE_EV_START);
	assert_int_equal(move_phase(m), P(PHASE_NONE));
	w.record_result = 0;
	pass(300);
	assert_int_equal(move_phase(m), P(DST_ASSIGNED));
	send(MOVE_EV_CHECKED);
	order.src_ready = true;
	give_order();
	w.record_result = -DR_EIO;
	send(MOVE_EV_NONCES_CHECKED);
	assert_int_equal(w.spawns, 0);
	failed("the agent's store does not work", 1, false);
	send(MOVE_EV_LEASE);
	assert_int_equal(move_phase(m), P(DST_ASSIGNED));
	w.record_result = 0;
	send(MOVE_EV_LEASE);
	assert_int_equal(move_phase(m), P(PHASE_GONE)); /* nothing was started */
	again(state);
	/* Committed, and it can't be recorded: no cont. */
	completed();
	w.record_result = -DR_EIO;
	order.decision = DROVER__MOVE_DECISION__DECISION_COMMIT;
	give_order();
	assert_int_equal(move_phase(m), P(DST_COMPLETED));
	assert_false(move_vm_taken(m));
	assert_int_equal(w.asked[MOVE_QMP_CONT], 0);
	w.record_result = 0;
	pass(300);
	assert_int_equal(move_phase(m), P(DST_CONTINUING));
	assert_true(move_vm_taken(m));
	/* It runs, and that can't be recorded: once more. */
	w.record_result = -DR_EIO;
	send(MOVE_EV_RESUME);
	assert_int_equal(move_phase(m), P(DST_CONTINUING));
	w.record_result = 0;
	pass(300);
	assert_int_equal(move_phase(m), P(DST_RUNNING));
	w.record_result = -DR_EIO;
	send(MOVE_EV_RELAY_GONE);
	assert_int_equal(move_phase(m), P(DST_RUNNING));
	w.record_result = 0;
	pass(300);
	assert_int_equal(move_phase(m), P(PHASE_GONE));
	again(state);
	/* The last of an abort. */
	destination();
	send(MOVE_EV_ORDER_LOST);
	assert_int_equal(move_phase(m), P(PHASE_GONE));
	again(state);
	completed();
	order.decision = DROVER__MOVE_DECISION__DECISION_ABORT;
	give_order();
	send(MOVE_EV_QEMU_EXITED);
	w.record_result = -DR_EIO;
	send(MOVE_EV_RELAY_GONE);
	assert_int_equal(move_phase(m), P(DST_ABORTING));
	w.record_result = 0;
	pass(300);
	assert_int_equal(move_phase(m), P(PHASE_GONE));
}

/* Each phase of the destination that can't be recorded ends the attempt and touches nothing before. */
static void test_store_on_the_way(void **state)
{
	for (int stage = 0; stage < 3; stage++) {
		destination();
		send(MOVE_EV_CHECKED);
		order.src_ready = true;
		give_order();
		send(MOVE_EV_NONCES_CHECKED);
		send(MOVE_EV_QEMU_UP);
		send(MOVE_EV_RELAY_UP);
		answer(MOVE_QMP_CAPABILITIES, true);
		answer(MOVE_QMP_PARAMETERS, true);
		if (stage == 0)
			w.record_result = -DR_EIO;
		answer(MOVE_QMP_MIGRATE, true);
		if (stage == 1)
			w.record_result = -DR_EIO;
		if (stage > 0)
			migration(MOVE_MIG_ACTIVE);
		if (stage == 2) {
			migration(MOVE_MIG_COMPLETED);
			w.record_result = -DR_EIO;
			answer_status(MOVE_RUN_PAUSED);
		}
		failed("the agent's store does not work", 1, false);
		assert_int_equal(w.kills, 0);
		w.record_result = 0;
		send(MOVE_EV_LEASE);
		assert_int_equal(move_phase(m), P(DST_ABORTING));
		assert_int_equal(w.kills, 1);
		again(state);
	}
}

/* ---------------------------------------------------------------- the destination */

static void preparing(void)
{
	destination();
	send(MOVE_EV_CHECKED);
	order.src_ready = true;
	give_order();
	send(MOVE_EV_NONCES_CHECKED);
	assert_int_equal(move_phase(m), P(DST_PREPARING));
}

static void test_destination_refuses(void **state)
{
	destination();
	move_event(m, &(struct move_event){.type = MOVE_EV_CHECKED, .exit = 6, .text = "no bridge br0"});
	failed("no bridge br0", 6, false);
	again(state);
	destination();
	send(MOVE_EV_CHECKED);
	order.src_ready = true;
	give_order();
	/* R26: no other attempt can help where the storage is another one. */
	move_event(m,
		   &(struct move_event){.type = MOVE_EV_NONCES_CHECKED, .exit = 6, .text = "other storage"});
	failed("other storage", 6, true);
	assert_int_equal(w.spawns, 0);
	again(state);
	destination();
	move_event(m, &(struct move_event){.type = MOVE_EV_CHECKED, .exit = 1});
	failed("refused by the destination", 1, false);
	again(state);
	preparing();
	send(MOVE_EV_QEMU_UP);
	send(MOVE_EV_RELAY_UP);
	refuse(MOVE_QMP_CAPABILITIES, NULL);
	failed("the destination's QEMU refused to prepare: refused", 1, false);
	assert_int_equal(move_phase(m), P(DST_ABORTING));
}

static void test_not_prepared_in_time(void **state)
{
	(void)state;
	preparing();
	pass(59000);
	not_failed();
	pass(2000);
	failed("was not ready within 60 s", 1, false);
	assert_int_equal(move_phase(m), P(DST_ABORTING));
}

static void loading(void)
{
	preparing();
	send(MOVE_EV_QEMU_UP);
	send(MOVE_EV_RELAY_UP);
	answer(MOVE_QMP_CAPABILITIES, true);
	answer(MOVE_QMP_PARAMETERS, true);
	answer(MOVE_QMP_MIGRATE, true);
	migration(MOVE_MIG_SETUP);
	assert_int_equal(move_phase(m), P(DST_PREPARED));
	migration(MOVE_MIG_ACTIVE);
	assert_int_equal(move_phase(m), P(DST_LOADING));
}

static void test_loading_fails(void **state)
{
	loading();
	migration(MOVE_MIG_FAILED);
	failed("could not load the VM", 1, false);
	assert_int_equal(move_phase(m), P(DST_ABORTING));
	again(state);
	loading();
	migration(MOVE_MIG_CANCELLED);
	failed("could not load the VM", 1, false);
	again(state);
	/* Its relay ends: QEMU may have all of it already. */
	loading();
	tell(MOVE_EV_RELAY_GONE, NULL);
	pass(3000);
	send(MOVE_EV_RELAY_FAILED); /* the time is not begun anew */
	not_failed();
	pass(2500);
	failed("relay ended before the VM was loaded", 1, false);
	again(state);
	loading();
	tell(MOVE_EV_RELAY_GONE, NULL);
	migration(MOVE_MIG_COMPLETED);
	answer_status(MOVE_RUN_PAUSED);
	assert_int_equal(move_phase(m), P(DST_COMPLETED));
	pass(10000);
	not_failed();
	send(MOVE_EV_RELAY_FAILED); /* after the word it changes nothing */
	not_failed();
	again(state);
	preparing();
	tell(MOVE_EV_RELAY_GONE, NULL);
	failed("the destination's relay ended", 1, false);
	again(state);
	destination();
	tell(MOVE_EV_RELAY_GONE, NULL); /* one of before */
	tell(MOVE_EV_QEMU_EXITED, NULL);
	not_failed();
}

static void test_destination_qemu_ends(void **state)
{
	loading();
	tell(MOVE_EV_QEMU_EXITED, "signal 6");
	failed("the destination's QEMU ended: signal 6", 1, false);
	again(state);
	preparing();
	tell(MOVE_EV_QEMU_EXITED, NULL);
	failed("the destination's QEMU ended", 1, false);
	again(state);
	completed();
	tell(MOVE_EV_QEMU_EXITED, NULL);
	failed("ended after it had loaded the VM", 1, false);
	assert_int_equal(move_phase(m), P(DST_COMPLETED)); /* the decision stays the majority's */
	order.decision = DROVER__MOVE_DECISION__DECISION_COMMIT;
	give_order();
	assert_int_equal(move_phase(m), P(DST_CONTINUING));
	assert_true(move_vm_taken(m));
	assert_int_equal(w.quits, 1);
	w.record_result = -DR_EIO;
	send(MOVE_EV_RELAY_GONE);
	assert_int_equal(move_phase(m), P(DST_CONTINUING));
	w.record_result = 0;
	pass(300);
	assert_int_equal(move_phase(m), P(PHASE_GONE));
	assert_string_equal(w.said, "the destination's QEMU ended before the VM ran");
}

/* QEMU refuses to continue: once more after a moment, and a word about it. */
static void test_destination_cont_refused(void **state)
{
	(void)state;
	committed();
	refuse(MOVE_QMP_CONT, "image is locked");
	assert_string_equal(w.said, "QEMU did not continue the VM: image is locked");
	pass(100);
	assert_int_equal(w.asked[MOVE_QMP_CONT], 1);
	pass(150);
	assert_int_equal(w.asked[MOVE_QMP_CONT], 2);
	answer(MOVE_QMP_CONT, true);
	pass(30);
	answer_status(MOVE_RUN_PAUSED); /* not yet */
	assert_int_equal(move_phase(m), P(DST_CONTINUING));
	pass(30);
	answer_status(MOVE_RUN_RUNNING);
	assert_int_equal(move_phase(m), P(DST_RUNNING));
}

/* ---------------------------------------------------------------- restarts */

/* Restarted in each phase: what it does at once, and what it becomes when nothing is found again. */
static void test_restarts(void **state)
{
	static const struct {
		Drover__MoveRole role;
		Drover__MovePhase phase;
		Drover__MovePhase at_once;
		Drover__MovePhase later; /* after 60 s without an answer from anybody */
		const char *error;
	} rows[] = {
		{DROVER__MOVE_ROLE__MOVE_SRC, P(SRC_ASSIGNED), P(SRC_ASSIGNED), P(SRC_ABORTING),
		 "did not answer within 30 s"},
		{DROVER__MOVE_ROLE__MOVE_SRC, P(SRC_READY), P(SRC_READY), P(SRC_READY), ""},
		{DROVER__MOVE_ROLE__MOVE_SRC, P(SRC_CONNECTING), P(SRC_ABORTING), P(SRC_ABORTING),
		 "the source's agent restarted before the copy began"},
		{DROVER__MOVE_ROLE__MOVE_SRC, P(SRC_COPYING), P(SRC_COPYING), P(SRC_ABORTING),
		 "did not find the VM's QEMU or relay again"},
		{DROVER__MOVE_ROLE__MOVE_SRC, P(SRC_SWITCHING), P(SRC_SWITCHING), P(SRC_ABORTING),
		 "did not find the VM's QEMU or relay again"},
		{DROVER__MOVE_ROLE__MOVE_SRC, P(SRC_COMPLETING), P(SRC_COMPLETING), P(SRC_ABORTING),
		 "the VM was stopped for"},
		{DROVER__MOVE_ROLE__MOVE_SRC, P(SRC_RELEASED), P(SRC_RELEASED), P(SRC_RELEASED), ""},
		{DROVER__MOVE_ROLE__MOVE_SRC, P(SRC_FINISHING), P(SRC_FINISHING), P(SRC_FINISHING), ""},
		{DROVER__MOVE_ROLE__MOVE_SRC, P(SRC_ABORTING), P(SRC_ABORTING), P(SRC_ABORTING), ""},
		{DROVER__MOVE_ROLE__MOVE_SRC, P(PHASE_GONE), P(PHASE_GONE), P(PHASE_GONE), ""},
		{DROVER__MOVE_ROLE__MOVE_SRC, P(DST_LOADING), P(DST_LOADING), P(DST_LOADING), ""},
		{DROVER__MOVE_ROLE__MOVE_DST, P(DST_ASSIGNED), P(DST_ASSIGNED), P(DST_ASSIGNED), ""},
		{DROVER__MOVE_ROLE__MOVE_DST, P(DST_PREPARING), P(DST_ABORTING), P(DST_ABORTING),
		 "restarted while it prepared the move"},
		{DROVER__MOVE_ROLE__MOVE_DST, P(DST_PREPARED), P(DST_PREPARED), P(DST_ABORTING),
		 "did not find QEMU and relay of the move again"},
		{DROVER__MOVE_ROLE__MOVE_DST, P(DST_LOADING), P(DST_LOADING), P(DST_ABORTING),
		 "did not find QEMU and relay of the move again"},
		{DROVER__MOVE_ROLE__MOVE_DST, P(DST_COMPLETED), P(DST_COMPLETED), P(DST_COMPLETED), ""},
		{DROVER__MOVE_ROLE__MOVE_DST, P(DST_CONTINUING), P(DST_CONTINUING), P(DST_CONTINUING), ""},
		{DROVER__MOVE_ROLE__MOVE_DST, P(DST_RUNNING), P(DST_RUNNING), P(DST_RUNNING), ""},
		{DROVER__MOVE_ROLE__MOVE_DST, P(DST_ABORTING), P(DST_ABORTING), P(DST_ABORTING), ""},
		{DROVER__MOVE_ROLE__MOVE_DST, P(PHASE_GONE), P(PHASE_GONE), P(PHASE_GONE), ""},
		{DROVER__MOVE_ROLE__MOVE_DST, P(SRC_COPYING), P(SRC_COPYING), P(SRC_COPYING), ""},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		Drover__MoveFact fact;

		restored(rows[i].role, rows[i].phase);
		if (move_phase(m) != rows[i].at_once)
			fail_msg("%s: %s", move_phase_name(rows[i].phase), move_phase_name(move_phase(m)));
		assert_int_equal(w.asked[MOVE_QMP_CONT] + w.asked[MOVE_QMP_QUIT], 0);
		pass(60000);
		if (move_phase(m) != rows[i].later)
			fail_msg("%s, later: %s", move_phase_name(rows[i].phase),
				 move_phase_name(move_phase(m)));
		assert_int_equal(w.asked[MOVE_QMP_CONT] + w.asked[MOVE_QMP_QUIT], 0);
		assert_int_equal(move_order(m)->decision, DROVER__MOVE_DECISION__DECISION_NONE); /* R4 */
		move_fact(m, &fact);
		assert_non_null(strstr(fact.error, rows[i].error));
		assert_true(rows[i].error[0] != '\0' || fact.error[0] == '\0');
		again(state);
	}
}

/* In mid-copy, and all is found again: the copy goes on, over a new channel if there is none. */
static void test_restart_in_mid_copy(void **state)
{
	Drover__MoveFact fact;

	order.dst_port = 7421;
	restored(DROVER__MOVE_ROLE__MOVE_SRC, P(SRC_COPYING));
	assert_int_equal(w.attaches, 1);
	send(MOVE_EV_QEMU_UP);
	move_event(m, &(struct move_event){.type = MOVE_EV_RELAY_UP});
	assert_int_equal(w.connects, 1);
	send(MOVE_EV_CHANNEL_UP);
	pass(100);
	figures(300000000, 3);
	pass(60000);
	not_failed();
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE], 0);
	again(state);
	/* One that is up: no other is made. */
	order.dst_port = 7421;
	restored(DROVER__MOVE_ROLE__MOVE_SRC, P(SRC_SWITCHING));
	send(MOVE_EV_QEMU_UP);
	move_event(m, &(struct move_event){.type = MOVE_EV_RELAY_UP, .channels = 1});
	assert_int_equal(w.connects, 0);
	pass(100);
	figures(1 << 20, 3); /* near its end: a token is asked for anew */
	move_fact(m, &fact);
	assert_int_equal(fact.token_request, 1);
	again(state);
	/* It had not begun. */
	restored(DROVER__MOVE_ROLE__MOVE_SRC, P(SRC_COPYING));
	send(MOVE_EV_QEMU_UP);
	answer_migrate(MOVE_MIG_NONE);
	failed("restarted before the copy began", 1, false);
	again(state);
	/* The VM stands at pre-switchover, and nobody knows for how long. */
	restored(DROVER__MOVE_ROLE__MOVE_SRC, P(SRC_COMPLETING));
	send(MOVE_EV_QEMU_UP);
	answer_migrate(MOVE_MIG_PRE_SWITCHOVER);
	failed("restarted while the VM was stopped", 1, false);
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE_CONTINUE], 0);
	again(state);
	/* All but the word: it may still be given. */
	restored(DROVER__MOVE_ROLE__MOVE_SRC, P(SRC_COMPLETING));
	send(MOVE_EV_QEMU_UP);
	answer_migrate(MOVE_MIG_COMPLETED);
	answer_status(MOVE_RUN_POSTMIGRATE);
	assert_int_equal(move_phase(m), P(SRC_RELEASED));
}

/* Its proofs and its error outlive the process. */
static void test_restart_keeps(void **state)
{
	Drover__DiskProof proof = DROVER__DISK_PROOF__INIT;
	Drover__DiskProof *proofs[1] = {&proof};
	struct move_record rec = {.phase = P(SRC_READY), .n_proofs = 1, .proofs = proofs};
	Drover__MoveFact fact;

	(void)state;
	proof.path = (char *)(uintptr_t) "/a";
	drover__move_stats__init(&rec.stats);
	rec.stats.passes = 4;
	order.role = DROVER__MOVE_ROLE__MOVE_SRC;
	m = move_restore(&me, &order, &rec);
	assert_non_null(m);
	send(MOVE_EV_START);
	move_fact(m, &fact);
	assert_int_equal(fact.n_proofs, 1);
	assert_string_equal(fact.proofs[0]->path, "/a");
	assert_int_equal(fact.stats->passes, 4);
	assert_int_equal(fact.stats->n_networks, 0);
}

/* A committed source that comes back: QEMU is quit, asked first and then killed (R25). */
static void test_restart_finishing(void **state)
{
	(void)state;
	restored(DROVER__MOVE_ROLE__MOVE_SRC, P(SRC_FINISHING));
	assert_int_equal(w.asked[MOVE_QMP_QUIT], 0);
	send(MOVE_EV_QEMU_UP);
	assert_int_equal(w.asked[MOVE_QMP_QUIT], 1);
	assert_int_equal(w.kills, 0);
	pass(3100);
	assert_int_equal(w.kills, 1);
	send(MOVE_EV_QEMU_EXITED);
	send(MOVE_EV_RELAY_GONE);
	send(MOVE_EV_NONCES_REMOVED);
	assert_int_equal(move_phase(m), P(PHASE_GONE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_store_source, setup, teardown),
		cmocka_unit_test_setup_teardown(test_store_destination, setup, teardown),
		cmocka_unit_test_setup_teardown(test_store_on_the_way, setup, teardown),
		cmocka_unit_test_setup_teardown(test_destination_refuses, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_prepared_in_time, setup, teardown),
		cmocka_unit_test_setup_teardown(test_loading_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_destination_qemu_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_destination_cont_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restarts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restart_in_mid_copy, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restart_keeps, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restart_finishing, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
