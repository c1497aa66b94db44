/*
 * The move machines, one step at a time: what each asks for and what it must not do. Whole moves under every
 * fault are the simulator's (tests/sim).
 */
#include "tests/unit/move-world.h"

static void test_word_needs_postmigrate(void **state)
{
	(void)state;
	completing();
	migration(MOVE_MIG_COMPLETED);
	assert_int_equal(move_phase(m), P(SRC_COMPLETING));
	answer_status(MOVE_RUN_FINISH_MIGRATE);
	assert_int_equal(move_phase(m), P(SRC_COMPLETING));
	pass(10);
	answer_status(MOVE_RUN_POSTMIGRATE);
	assert_int_equal(move_phase(m), P(SRC_RELEASED));
	assert_int_equal(w.recorded, P(SRC_RELEASED));
}

static void test_word_needs_fresh_lease(void **state)
{
	(void)state;
	completing();
	w.lease_from = w.now - 2000000;
	migration(MOVE_MIG_COMPLETED);
	answer_status(MOVE_RUN_POSTMIGRATE);
	assert_int_equal(move_phase(m), P(SRC_COMPLETING));
	w.lease_from = w.now - 100000;
	send(MOVE_EV_LEASE);
	assert_int_equal(move_phase(m), P(SRC_RELEASED));
}

static void test_word_needs_the_store(void **state)
{
	(void)state;
	completing();
	w.record_result = -DR_EIO;
	migration(MOVE_MIG_COMPLETED);
	answer_status(MOVE_RUN_POSTMIGRATE);
	assert_int_equal(move_phase(m), P(SRC_COMPLETING));
	/* Nothing is done either before the abort is on disk. */
	assert_int_equal(w.asked[MOVE_QMP_CONT], 0);
	pass(400);
	assert_int_equal(w.asked[MOVE_QMP_CONT], 0);
	w.record_result = 0;
	pass(400);
	assert_int_equal(w.recorded, P(SRC_ABORTING));
	answer_migrate(MOVE_MIG_COMPLETED);
	answer_status(MOVE_RUN_POSTMIGRATE);
	assert_int_equal(w.asked[MOVE_QMP_CONT], 1);
}

static void test_released_waits_for_a_decision(void **state)
{
	(void)state;
	test_word_needs_postmigrate(state);
	send(MOVE_EV_ORDER_LOST);
	send(MOVE_EV_RELAY_GONE);
	send(MOVE_EV_QEMU_UP);
	pass(60000);
	assert_int_equal(move_phase(m), P(SRC_RELEASED));
	assert_int_equal(w.asked[MOVE_QMP_CONT] + w.asked[MOVE_QMP_QUIT] + w.brakes, 0);
	order.decision = DROVER__MOVE_DECISION__DECISION_COMMIT;
	order.attempt = 2; /* R5: of another attempt */
	give_order();
	assert_int_equal(move_phase(m), P(SRC_RELEASED));
	order.attempt = 1;
	give_order();
	assert_int_equal(move_phase(m), P(SRC_FINISHING));
	assert_int_equal(w.asked[MOVE_QMP_QUIT], 1);
}

static void test_abort_after_word_needs_lease(void **state)
{
	(void)state;
	test_word_needs_postmigrate(state);
	w.lease_from = 0;
	order.decision = DROVER__MOVE_DECISION__DECISION_ABORT;
	give_order();
	assert_int_equal(move_phase(m), P(SRC_ABORTING));
	answer_migrate(MOVE_MIG_COMPLETED);
	answer_status(MOVE_RUN_POSTMIGRATE);
	assert_int_equal(w.asked[MOVE_QMP_CONT], 0); /* R7 */
	w.lease_from = w.now;
	send(MOVE_EV_LEASE);
	assert_int_equal(w.asked[MOVE_QMP_CONT], 1);
	answer(MOVE_QMP_CONT, true);
	pass(100);
	answer_migrate(MOVE_MIG_COMPLETED);
	answer_status(MOVE_RUN_RUNNING);
	assert_int_equal(w.asked[MOVE_QMP_ANNOUNCE], 1); /* R24 */
}

/* R29: a QEMU that hangs in its device phase is freed by the brake, max(3 × blackout, 1 s) after STOP. */
static void test_brake(void **state)
{
	(void)state;
	completing();
	pass(950);
	assert_int_equal(w.brakes, 0);
	pass(100);
	assert_true(w.brakes > 0);
	assert_int_equal(move_phase(m), P(SRC_ABORTING));
}

static void test_no_token_cancels(void **state)
{
	(void)state;
	copying();
	send(MOVE_EV_STOP);
	migration(MOVE_MIG_PRE_SWITCHOVER);
	pass(290);
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE_CANCEL], 0);
	pass(20);
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE_CANCEL], 1);
	assert_int_equal(move_phase(m), P(SRC_ABORTING));
}

/* DESIGN §7.4: a grant is aged from when it was asked for. */
static void test_old_grant(void **state)
{
	Drover__MoveFact fact;

	(void)state;
	copying();
	send(MOVE_EV_STOP);
	order.blackout_ms = 5000;
	give_order();
	migration(MOVE_MIG_PRE_SWITCHOVER);
	move_fact(m, &fact);
	order.token_granted = fact.token_request;
	w.now += 1000000; /* no timer: the answer was slow */
	give_order();
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE_CONTINUE], 0);
}

/*
 * A host that has booted anew in the switch-over: the rows have closed its side (attempt_host_died), so that
 * no orders name the attempt and no decision comes. It must not hold the VM's name for ever (tests/model:
 * NEVER_TOLD).
 */
static void test_closed_by_a_boot(void **state)
{
	static const struct {
		Drover__MoveRole role;
		Drover__MovePhase phase;
		Drover__MovePhase aborting;
	} cases[] = {{DROVER__MOVE_ROLE__MOVE_SRC, P(SRC_RELEASED), P(SRC_ABORTING)},
		     {DROVER__MOVE_ROLE__MOVE_DST, P(DST_COMPLETED), P(DST_ABORTING)}};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		/* With QEMU alive it waits for a decision, named or not. */
		restored(cases[i].role, cases[i].phase);
		send(MOVE_EV_ORDER_LOST);
		send(MOVE_EV_QEMU_UP);
		send(MOVE_EV_ORDER_LOST);
		pass(60000);
		assert_int_equal(move_phase(m), cases[i].phase);
		move_free(m);
		/* Named in the newest orders: a decision will come. */
		restored(cases[i].role, cases[i].phase);
		send(MOVE_EV_ORDER_LOST);
		give_order();
		send(MOVE_EV_QEMU_EXITED);
		pass(60000);
		assert_int_equal(move_phase(m), cases[i].phase);
		send(MOVE_EV_ORDER_LOST);
		assert_int_equal(move_phase(m), cases[i].aborting);
		assert_int_equal(w.asked[MOVE_QMP_CONT], 0);
		if (i == 0)
			move_free(m);
	}
}

/* R2: until a source gave its word, it needs no coordinator to go on with its VM; after it, R7 counts. */
static void test_restart_without_lease(void **state)
{
	struct move_record rec = {.phase = P(SRC_COMPLETING)};

	(void)state;
	drover__move_stats__init(&rec.stats);
	order.role = DROVER__MOVE_ROLE__MOVE_SRC;
	for (int word = 0; word < 2; word++) {
		memset(&w, 0, sizeof(w));
		rec.phase = word == 0 ? P(SRC_COMPLETING) : P(SRC_ABORTING);
		rec.released = word == 1;
		m = move_restore(&me, &order, &rec);
		send(MOVE_EV_START);
		send(MOVE_EV_QEMU_UP);
		for (int i = 0; i < 20; i++) {
			answer_migrate(word == 0 ? MOVE_MIG_FAILED : MOVE_MIG_COMPLETED);
			answer_status(MOVE_RUN_POSTMIGRATE);
			pass(50);
		}
		assert_int_equal(move_phase(m), P(SRC_ABORTING));
		assert_int_equal(w.asked[MOVE_QMP_CONT], word == 0 ? 1 : 0);
		if (word == 0)
			move_free(m);
	}
}

static void test_restart_undecided(void **state)
{
	(void)state;
	restored(DROVER__MOVE_ROLE__MOVE_SRC, P(SRC_RELEASED));
	send(MOVE_EV_QEMU_UP);
	pass(60000);
	assert_int_equal(move_phase(m), P(SRC_RELEASED));
	assert_int_equal(w.asked[MOVE_QMP_CONT] + w.asked[MOVE_QMP_QUIT], 0);
	move_free(m);
	restored(DROVER__MOVE_ROLE__MOVE_DST, P(DST_COMPLETED));
	send(MOVE_EV_QEMU_UP);
	send(MOVE_EV_RELAY_UP);
	pass(60000);
	assert_int_equal(move_phase(m), P(DST_COMPLETED));
	assert_int_equal(w.asked[MOVE_QMP_CONT] + w.kills, 0);
}

static void test_tcg_refused(void **state)
{
	Drover__MoveFact fact;

	(void)state;
	launch.accel = (char *)(uintptr_t) "tcg";
	launch.qemu_major = 7;
	source();
	move_fact(m, &fact);
	assert_int_equal(fact.error_exit, 6);
	assert_true(fact.error_fatal);
	assert_int_equal(move_phase(m), P(SRC_ABORTING));
}

static void test_destination_commit(void **state)
{
	(void)state;
	completed();
	pass(60000);
	assert_int_equal(w.asked[MOVE_QMP_CONT], 0);
	w.lease_from = 0;
	order.decision = DROVER__MOVE_DECISION__DECISION_COMMIT;
	give_order();
	assert_int_equal(w.recorded, P(DST_CONTINUING));
	assert_true(move_vm_taken(m));
	assert_int_equal(w.asked[MOVE_QMP_CONT], 0); /* R7 */
	w.lease_from = w.now;
	send(MOVE_EV_LEASE);
	assert_int_equal(w.asked[MOVE_QMP_CONT], 1);
	answer(MOVE_QMP_CONT, true);
	answer_status(MOVE_RUN_RUNNING);
	assert_int_equal(move_phase(m), P(DST_RUNNING));
	send(MOVE_EV_RELAY_GONE);
	assert_int_equal(move_phase(m), P(PHASE_GONE));
	assert_int_equal(w.kills, 0);
}

/* A guest that ran for a moment only has arrived all the same. */
static void test_destination_trouble(void **state)
{
	committed();
	send(MOVE_EV_RESUME);
	assert_int_equal(move_phase(m), P(DST_RUNNING));
	move_free(m);
	setup(state);
	committed();
	answer(MOVE_QMP_CONT, true);
	pass(50);
	answer_status(MOVE_RUN_OTHER);
	assert_int_equal(move_phase(m), P(DST_RUNNING));
	move_free(m);
	setup(state);
	restored(DROVER__MOVE_ROLE__MOVE_DST, P(DST_CONTINUING));
	send(MOVE_EV_QEMU_UP);
	send(MOVE_EV_RELAY_UP);
	answer_status(MOVE_RUN_OTHER);
	assert_int_equal(move_phase(m), P(DST_RUNNING));
	assert_int_equal(w.asked[MOVE_QMP_CONT], 0);
}

/* Not before the commit, whatever QEMU does. */
static void test_destination_early_resume(void **state)
{
	(void)state;
	completed();
	send(MOVE_EV_RESUME);
	w.lease_from = 0;
	order.decision = DROVER__MOVE_DECISION__DECISION_COMMIT;
	give_order();
	assert_int_equal(move_phase(m), P(DST_CONTINUING));
}

static void test_destination_abort(void **state)
{
	(void)state;
	completed();
	order.decision = DROVER__MOVE_DECISION__DECISION_ABORT;
	give_order();
	assert_int_equal(move_phase(m), P(DST_ABORTING));
	assert_int_equal(w.kills, 1);
	send(MOVE_EV_QEMU_EXITED);
	assert_int_equal(move_phase(m), P(DST_ABORTING)); /* R21: its relay lives */
	send(MOVE_EV_RELAY_GONE);
	assert_int_equal(move_phase(m), P(PHASE_GONE));
}

/* R25 */
static void test_other_pid(void **state)
{
	(void)state;
	w.identity = MOVE_QEMU_OTHER;
	restored(DROVER__MOVE_ROLE__MOVE_DST, P(DST_ABORTING));
	assert_int_equal(w.kills, 0);
	send(MOVE_EV_RELAY_GONE);
	assert_int_equal(move_phase(m), P(PHASE_GONE));
}

/* An unprivileged relay cannot make the machine begin again (which would end the agent). */
static void test_unknown_event(void **state)
{
	(void)state;
	copying();
	move_event(m, &(struct move_event){.bytes_wire = 1});
	assert_int_equal(move_phase(m), P(SRC_COPYING));
}

static void test_order_check(void **state)
{
	struct dr_error err = DR_ERROR_INIT;

	(void)state;
	assert_int_equal(move_order_check(&order, &err), 0);
	order.key.len = 31;
	assert_int_equal(move_order_check(&order, &err), -DR_EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_word_needs_postmigrate, setup, teardown),
		cmocka_unit_test_setup_teardown(test_word_needs_fresh_lease, setup, teardown),
		cmocka_unit_test_setup_teardown(test_word_needs_the_store, setup, teardown),
		cmocka_unit_test_setup_teardown(test_released_waits_for_a_decision, setup, teardown),
		cmocka_unit_test_setup_teardown(test_abort_after_word_needs_lease, setup, teardown),
		cmocka_unit_test_setup_teardown(test_brake, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_token_cancels, setup, teardown),
		cmocka_unit_test_setup_teardown(test_old_grant, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restart_without_lease, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restart_undecided, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tcg_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_destination_commit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_destination_trouble, setup, teardown),
		cmocka_unit_test_setup_teardown(test_destination_early_resume, setup, teardown),
		cmocka_unit_test_setup_teardown(test_destination_abort, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_pid, setup, teardown),
		cmocka_unit_test_setup_teardown(test_closed_by_a_boot, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unknown_event, setup, teardown),
		cmocka_unit_test_setup_teardown(test_order_check, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
