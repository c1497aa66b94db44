/*
 * The move machines, one step at a time: what each asks for and what it must not do. Whole moves under every
 * fault are the simulator's (tests/sim).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "agent/move.h"

#define P(x) DROVER__MOVE_PHASE__##x

/* A world that notes what is asked for and lets the test answer. */
static struct world {
	uint64_t now;
	uint64_t lease_from;
	uint64_t seq[MOVE_QMP_N];
	unsigned asked[MOVE_QMP_N];
	unsigned brakes, kills, records, spawns, quits;
	int record_result;
	Drover__MovePhase recorded;
	enum move_identity identity;
	struct {
		uint64_t id, at;
		env_timer_fn fn;
		void *data;
	} timers[32];
	uint64_t next_timer;
} w;

static struct env env;
static struct move_env me;
static struct move *m;

static uint64_t now_us(struct env *e)
{
	(void)e;
	return w.now;
}

static uint64_t timer_start(struct env *e, uint64_t delay, env_timer_fn fn, void *data)
{
	(void)e;
	for (unsigned i = 0; i < 32; i++)
		if (w.timers[i].id == 0) {
			w.timers[i].id = ++w.next_timer;
			w.timers[i].at = w.now + delay;
			w.timers[i].fn = fn;
			w.timers[i].data = data;
			return w.next_timer;
		}
	abort();
}

static void timer_stop(struct env *e, uint64_t id)
{
	(void)e;
	for (unsigned i = 0; i < 32; i++)
		if (w.timers[i].id == id)
			w.timers[i].id = 0;
}

/* Lets time pass, timer by timer. */
static void pass(uint64_t ms)
{
	uint64_t until = w.now + ms * 1000;

	for (;;) {
		int next = -1;

		for (int i = 0; i < 32; i++)
			if (w.timers[i].id != 0 && w.timers[i].at <= until &&
			    (next < 0 || w.timers[i].at < w.timers[next].at))
				next = i;
		if (next < 0)
			break;
		if (w.timers[next].at > w.now)
			w.now = w.timers[next].at;
		w.timers[next].id = 0;
		w.timers[next].fn(w.timers[next].data);
	}
	w.now = until;
}

static void nothing(struct move_env *e)
{
	(void)e;
}

static void brake(struct move_env *e)
{
	(void)e;
	w.brakes++;
}

static void spawn(struct move_env *e)
{
	(void)e;
	w.spawns++;
}

static void kill_qemu(struct move_env *e)
{
	(void)e;
	w.kills++;
}

static enum move_identity identity(struct move_env *e)
{
	(void)e;
	return w.identity;
}

static uint64_t qmp(struct move_env *e, enum move_qmp cmd, const struct move_qmp_args *args)
{
	static uint64_t seq;

	(void)e;
	(void)args;
	w.asked[cmd]++;
	w.seq[cmd] = ++seq;
	return seq;
}

static void relay_connect(struct move_env *e, unsigned path)
{
	(void)e;
	(void)path;
}

static void relay_quit(struct move_env *e, bool kill)
{
	(void)e;
	(void)kill;
	w.quits++;
}

static int record(struct move_env *e, const struct move_record *rec)
{
	(void)e;
	if (w.record_result == 0)
		w.recorded = rec->phase;
	w.records++;
	return w.record_result;
}

static uint64_t lease_age(struct move_env *e)
{
	(void)e;
	return w.lease_from == 0 ? UINT64_MAX : w.now - w.lease_from;
}

static bool lease_valid(struct move_env *e)
{
	return lease_age(e) < UINT64_C(30000000);
}

static void text(struct move_env *e, const char *words)
{
	(void)e;
	(void)words;
}

static void log_line(struct move_env *e, int priority, const char *words)
{
	(void)priority;
	text(e, words);
}

static Drover__MoveOrder order;
static Drover__NetworkPath path;
static Drover__NetworkPath *paths[1] = {&path};
static Drover__VmSpec spec;
static Drover__LaunchRecord launch;
static uint8_t key[32];

static int setup(void **state)
{
	(void)state;
	memset(&w, 0, sizeof(w));
	w.now = 1000000000;
	w.lease_from = w.now;
	env = (struct env){.now_us = now_us, .timer_start = timer_start, .timer_stop = timer_stop};
	me = (struct move_env){.env = &env,
			       .qemu_attach = nothing,
			       .qemu_spawn = spawn,
			       .qemu_identity = identity,
			       .qemu_kill = kill_qemu,
			       .qmp = qmp,
			       .brake = brake,
			       .relay_start = nothing,
			       .relay_attach = nothing,
			       .relay_connect = relay_connect,
			       .relay_urgent = nothing,
			       .relay_resumed = nothing,
			       .relay_quit = relay_quit,
			       .nonces_write = nothing,
			       .nonces_check = nothing,
			       .nonces_remove = nothing,
			       .check = nothing,
			       .record = record,
			       .lease_age_us = lease_age,
			       .lease_valid = lease_valid,
			       .dirty = nothing,
			       .event = text,
			       .log = log_line,
			       .crash_point = text};
	drover__network_path__init(&path);
	path.network = (char *)(uintptr_t) "mig1";
	drover__vm_spec__init(&spec);
	drover__launch_record__init(&launch);
	launch.accel = (char *)(uintptr_t) "kvm";
	drover__move_order__init(&order);
	order.move = 7;
	order.attempt = 1;
	order.vm = (char *)(uintptr_t) "vm1";
	order.generation = 3;
	order.key.data = key;
	order.key.len = sizeof(key);
	order.paths = paths;
	order.n_paths = 1;
	order.spec = &spec;
	order.launch = &launch;
	order.blackout_ms = 300;
	order.src_memory = UINT64_C(1) << 30;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	move_free(m);
	m = NULL;
	return 0;
}

static void send(enum move_ev type)
{
	move_event(m, &(struct move_event){.type = type, .ok = true});
}

static void answer(enum move_qmp cmd, bool ok)
{
	move_event(m, &(struct move_event){.type = MOVE_EV_QMP, .qmp = cmd, .seq = w.seq[cmd], .ok = ok});
}

static void answer_status(enum move_run run)
{
	move_event(m, &(struct move_event){.type = MOVE_EV_QMP,
					   .qmp = MOVE_QMP_QUERY_STATUS,
					   .seq = w.seq[MOVE_QMP_QUERY_STATUS],
					   .ok = true,
					   .run = run});
}

static void answer_migrate(enum move_mig mig)
{
	move_event(m, &(struct move_event){.type = MOVE_EV_QMP,
					   .qmp = MOVE_QMP_QUERY_MIGRATE,
					   .seq = w.seq[MOVE_QMP_QUERY_MIGRATE],
					   .ok = true,
					   .mig = mig});
}

static void migration(enum move_mig mig)
{
	move_event(m, &(struct move_event){.type = MOVE_EV_MIGRATION, .mig = mig});
}

static void give_order(void)
{
	move_event(m, &(struct move_event){.type = MOVE_EV_ORDER, .order = &order});
}

static void source(void)
{
	order.role = DROVER__MOVE_ROLE__MOVE_SRC;
	m = move_new(&me, &order);
	assert_non_null(m);
	send(MOVE_EV_START);
}

/* To SRC_COPYING, migrate sent, QEMU active. */
static void copying(void)
{
	source();
	assert_int_equal(w.recorded, P(SRC_ASSIGNED));
	send(MOVE_EV_QEMU_UP);
	answer_status(MOVE_RUN_RUNNING);
	send(MOVE_EV_NONCES_WRITTEN);
	assert_int_equal(move_phase(m), P(SRC_READY));
	order.dst_port = 7421;
	give_order();
	assert_int_equal(move_phase(m), P(SRC_CONNECTING));
	send(MOVE_EV_RELAY_UP);
	send(MOVE_EV_CHANNEL_UP);
	answer(MOVE_QMP_CAPABILITIES, true);
	answer(MOVE_QMP_PARAMETERS, true);
	assert_int_equal(move_phase(m), P(SRC_COPYING));
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE], 1);
	answer(MOVE_QMP_MIGRATE, true);
	migration(MOVE_MIG_ACTIVE);
}

/* The VM stands at pre-switchover, and the token is granted. */
static void completing(void)
{
	Drover__MoveFact fact;

	copying();
	send(MOVE_EV_STOP);
	migration(MOVE_MIG_PRE_SWITCHOVER);
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE_CONTINUE], 0); /* not without a token */
	move_fact(m, &fact);
	assert_true(fact.token_request > 0);
	order.token_granted = fact.token_request;
	give_order();
	assert_int_equal(move_phase(m), P(SRC_COMPLETING));
	assert_int_equal(w.asked[MOVE_QMP_MIGRATE_CONTINUE], 1);
	answer(MOVE_QMP_MIGRATE_CONTINUE, true);
	migration(MOVE_MIG_DEVICE);
}

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

static void restored(Drover__MoveRole role, Drover__MovePhase phase)
{
	struct move_record rec = {.phase = phase};

	drover__move_stats__init(&rec.stats);
	order.role = role;
	order.decision = DROVER__MOVE_DECISION__DECISION_COMMIT; /* what the store knew does not count (R4) */
	m = move_restore(&me, &order, &rec);
	order.decision = DROVER__MOVE_DECISION__DECISION_NONE;
	send(MOVE_EV_START);
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

static void destination(void)
{
	order.role = DROVER__MOVE_ROLE__MOVE_DST;
	m = move_new(&me, &order);
	send(MOVE_EV_START);
	assert_int_equal(move_phase(m), P(DST_ASSIGNED));
}

static void completed(void)
{
	destination();
	send(MOVE_EV_CHECKED);
	assert_int_equal(w.spawns, 0); /* not before the storage is proved */
	order.src_ready = true;
	give_order();
	send(MOVE_EV_NONCES_CHECKED);
	assert_int_equal(move_phase(m), P(DST_PREPARING));
	assert_int_equal(w.spawns, 1);
	send(MOVE_EV_QEMU_UP);
	send(MOVE_EV_RELAY_UP);
	answer(MOVE_QMP_CAPABILITIES, true);
	answer(MOVE_QMP_PARAMETERS, true);
	answer(MOVE_QMP_MIGRATE, true);
	assert_int_equal(move_phase(m), P(DST_PREPARED));
	migration(MOVE_MIG_ACTIVE);
	assert_int_equal(move_phase(m), P(DST_LOADING));
	migration(MOVE_MIG_COMPLETED);
	answer_status(MOVE_RUN_INMIGRATE);
	assert_int_equal(move_phase(m), P(DST_LOADING));
	pass(30);
	answer_status(MOVE_RUN_PAUSED);
	assert_int_equal(move_phase(m), P(DST_COMPLETED));
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

static void committed(void)
{
	completed();
	order.decision = DROVER__MOVE_DECISION__DECISION_COMMIT;
	give_order();
	assert_int_equal(move_phase(m), P(DST_CONTINUING));
	assert_int_equal(w.asked[MOVE_QMP_CONT], 1);
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
