/*
 * The world of a move machine for its unit tests: it notes what is asked for and lets the test answer.
 */
#ifndef DROVER_TESTS_UNIT_MOVE_WORLD_H
#define DROVER_TESTS_UNIT_MOVE_WORLD_H

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

static struct world {
	uint64_t now;
	uint64_t lease_from;
	uint64_t seq[MOVE_QMP_N];
	unsigned asked[MOVE_QMP_N];
	unsigned brakes, kills, records, spawns, quits, attaches, connects, removals;
	unsigned path;	/* of the newest connect */
	unsigned tried; /* bits: paths that were connected since the test looked */
	char said[512]; /* the newest words for an operator */
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

static inline uint64_t now_us(struct env *e)
{
	(void)e;
	return w.now;
}

static inline uint64_t timer_start(struct env *e, uint64_t delay, env_timer_fn fn, void *data)
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

static inline void timer_stop(struct env *e, uint64_t id)
{
	(void)e;
	for (unsigned i = 0; i < 32; i++)
		if (w.timers[i].id == id)
			w.timers[i].id = 0;
}

/* Lets time pass, timer by timer. */
static inline void pass(uint64_t ms)
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

static inline void nothing(struct move_env *e)
{
	(void)e;
}

static inline void brake(struct move_env *e)
{
	(void)e;
	w.brakes++;
}

static inline void spawn(struct move_env *e)
{
	(void)e;
	w.spawns++;
}

static inline void kill_qemu(struct move_env *e)
{
	(void)e;
	w.kills++;
}

static inline enum move_identity identity(struct move_env *e)
{
	(void)e;
	return w.identity;
}

static inline uint64_t qmp(struct move_env *e, enum move_qmp cmd, const struct move_qmp_args *args)
{
	static uint64_t seq;

	(void)e;
	(void)args;
	w.asked[cmd]++;
	w.seq[cmd] = ++seq;
	return seq;
}

static inline void relay_connect(struct move_env *e, unsigned number)
{
	(void)e;
	w.connects++;
	w.path = number;
	w.tried |= 1u << number;
}

static inline void attach(struct move_env *e)
{
	(void)e;
	w.attaches++;
}

static inline void removal(struct move_env *e)
{
	(void)e;
	w.removals++;
}

static inline void say(struct move_env *e, const char *words)
{
	(void)e;
	snprintf(w.said, sizeof(w.said), "%s", words);
}

static inline void relay_quit(struct move_env *e, bool kill)
{
	(void)e;
	(void)kill;
	w.quits++;
}

static inline int record(struct move_env *e, const struct move_record *rec)
{
	(void)e;
	if (w.record_result == 0)
		w.recorded = rec->phase;
	w.records++;
	return w.record_result;
}

static inline uint64_t lease_age(struct move_env *e)
{
	(void)e;
	return w.lease_from == 0 ? UINT64_MAX : w.now - w.lease_from;
}

static inline bool lease_valid(struct move_env *e)
{
	return lease_age(e) < UINT64_C(30000000);
}

static inline void text(struct move_env *e, const char *words)
{
	(void)e;
	(void)words;
}

static inline void log_line(struct move_env *e, int priority, const char *words)
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

static inline int setup(void **state)
{
	(void)state;
	memset(&w, 0, sizeof(w));
	w.now = 1000000000;
	w.lease_from = w.now;
	env = (struct env){.now_us = now_us, .timer_start = timer_start, .timer_stop = timer_stop};
	me = (struct move_env){.env = &env,
			       .qemu_attach = attach,
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
			       .nonces_remove = removal,
			       .check = nothing,
			       .record = record,
			       .lease_age_us = lease_age,
			       .lease_valid = lease_valid,
			       .dirty = nothing,
			       .event = say,
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

static inline int teardown(void **state)
{
	(void)state;
	move_free(m);
	m = NULL;
	return 0;
}

static inline void send(enum move_ev type)
{
	move_event(m, &(struct move_event){.type = type, .ok = true});
}

static inline void answer(enum move_qmp cmd, bool ok)
{
	move_event(m, &(struct move_event){.type = MOVE_EV_QMP, .qmp = cmd, .seq = w.seq[cmd], .ok = ok});
}

static inline void answer_status(enum move_run run)
{
	move_event(m, &(struct move_event){.type = MOVE_EV_QMP,
					   .qmp = MOVE_QMP_QUERY_STATUS,
					   .seq = w.seq[MOVE_QMP_QUERY_STATUS],
					   .ok = true,
					   .run = run});
}

static inline void answer_migrate(enum move_mig mig)
{
	move_event(m, &(struct move_event){.type = MOVE_EV_QMP,
					   .qmp = MOVE_QMP_QUERY_MIGRATE,
					   .seq = w.seq[MOVE_QMP_QUERY_MIGRATE],
					   .ok = true,
					   .mig = mig});
}

static inline void migration(enum move_mig mig)
{
	move_event(m, &(struct move_event){.type = MOVE_EV_MIGRATION, .mig = mig});
}

static inline void give_order(void)
{
	move_event(m, &(struct move_event){.type = MOVE_EV_ORDER, .order = &order});
}

static inline void source(void)
{
	order.role = DROVER__MOVE_ROLE__MOVE_SRC;
	m = move_new(&me, &order);
	assert_non_null(m);
	send(MOVE_EV_START);
}

/* To SRC_COPYING, migrate sent, QEMU active. */
static inline void copying(void)
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
static inline void completing(void)
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

static inline void restored(Drover__MoveRole role, Drover__MovePhase phase)
{
	struct move_record rec = {.phase = phase};

	drover__move_stats__init(&rec.stats);
	order.role = role;
	order.decision = DROVER__MOVE_DECISION__DECISION_COMMIT; /* what the store knew does not count (R4) */
	m = move_restore(&me, &order, &rec);
	order.decision = DROVER__MOVE_DECISION__DECISION_NONE;
	send(MOVE_EV_START);
}

static inline void destination(void)
{
	order.role = DROVER__MOVE_ROLE__MOVE_DST;
	m = move_new(&me, &order);
	send(MOVE_EV_START);
	assert_int_equal(move_phase(m), P(DST_ASSIGNED));
}

static inline void completed(void)
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

static inline void committed(void)
{
	completed();
	order.decision = DROVER__MOVE_DECISION__DECISION_COMMIT;
	give_order();
	assert_int_equal(move_phase(m), P(DST_CONTINUING));
	assert_int_equal(w.asked[MOVE_QMP_CONT], 1);
}

/* The machine has given up for that reason, with that exit. */
static inline void failed(const char *words, uint32_t exit, bool fatal)
{
	Drover__MoveFact fact;

	move_fact(m, &fact);
	if (strstr(fact.error, words) == NULL)
		fail_msg("'%s' says nothing of '%s'", fact.error, words);
	assert_int_equal(fact.error_exit, exit);
	assert_int_equal(fact.error_fatal, fatal);
}

static inline void not_failed(void)
{
	Drover__MoveFact fact;

	move_fact(m, &fact);
	assert_string_equal(fact.error, "");
}

static inline void refuse(enum move_qmp cmd, const char *words)
{
	move_event(m,
		   &(struct move_event){.type = MOVE_EV_QMP, .qmp = cmd, .seq = w.seq[cmd], .text = words});
}

static inline void tell(enum move_ev type, const char *words)
{
	move_event(m, &(struct move_event){.type = type, .text = words});
}

static inline void figures(uint64_t remaining, uint32_t passes)
{
	move_event(m, &(struct move_event){.type = MOVE_EV_QMP,
					   .qmp = MOVE_QMP_QUERY_MIGRATE,
					   .seq = w.seq[MOVE_QMP_QUERY_MIGRATE],
					   .ok = true,
					   .mig = MOVE_MIG_ACTIVE,
					   .figures = {.total = UINT64_C(1) << 30,
						       .remaining = remaining,
						       .passes = passes,
						       .dirty_rate = 50000000}});
}

static inline void again(void **state)
{
	teardown(state);
	setup(state);
}

#endif
