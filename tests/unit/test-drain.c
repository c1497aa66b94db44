/* The scheduler by itself: what it waits for and how long, what it proposes again, what it gives up. */
#include "coordinator/drain.h"
#include "coordinator/msg.h"
#include "tests/unit/core.h"

#define SECOND UINT64_C(1000000)

struct world {
	struct core core;
	struct env env;
	uint64_t now;
	struct drain_scheduler *scheduler;
	Drover__Command *queue[256];
	unsigned n_queue;
	struct volatile_view view;
	Drover__MoveFact fact; /* what the view knows of every source */
	bool lose;	       /* what is proposed is lost */
};

static uint64_t world_now(struct env *env)
{
	return ((struct world *)env->impl)->now;
}

static void world_random(struct env *env, void *buf, size_t len)
{
	(void)env;
	memset(buf, 0x55, len);
}

static void propose(void *data, const Drover__Command *cmd)
{
	struct world *w = data;

	assert_true(w->n_queue < 256);
	w->queue[w->n_queue++] = msg_clone(cmd);
}

static const Drover__MoveFact *view_fact(void *data, uint64_t move, uint32_t attempt, Drover__MoveRole role)
{
	struct world *w = data;

	(void)move;
	(void)attempt;
	return role == DROVER__MOVE_ROLE__MOVE_SRC ? &w->fact : NULL;
}

/* One pass; how many commands of that kind it proposed. */
static unsigned pass(struct world *w, Drover__Command__BodyCase kind)
{
	unsigned n = 0;

	drain_decide(w->scheduler, w->core.db, &w->view, propose, w);
	for (unsigned i = 0; i < w->n_queue; i++) {
		n += w->queue[i]->body_case == kind ? 1 : 0;
		if (!w->lose) {
			core_apply(&w->core, w->queue[i]);
			drain_applied(w->scheduler, w->queue[i], &w->core.last);
		}
		drover__command__free_unpacked(w->queue[i], NULL);
	}
	w->n_queue = 0;
	return n;
}

/* Seconds of the world, a pass in each. */
static void seconds(struct world *w, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		w->now += SECOND;
		pass(w, DROVER__COMMAND__BODY__NOT_SET);
	}
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	core_init(&w->core);
	w->env.impl = w;
	w->env.now_us = world_now;
	w->env.random = world_random;
	w->now = SECOND;
	w->view.data = w;
	core_node(&w->core, "node1", 1);
	core_node(&w->core, "node2", 2);
	core_vm_run(&w->core, "vm1", 101, "node1", 1, 64 * MIB, 0);
	core_vm_run(&w->core, "vm2", 102, "node1", 1, 64 * MIB, 0);
	w->scheduler = drain_scheduler_new(&w->env);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	drain_scheduler_free(w->scheduler);
	drain_scheduler_free(NULL);
	core_fini(&w->core);
	free(w);
	return 0;
}

static uint64_t create(struct world *w, const char *vm)
{
	assert_int_equal(core_move_create(&w->core, vm, ""), 0);
	return w->core.last.object_id;
}

static void set_limit(struct world *w, uint32_t max_moves, uint32_t attempts)
{
	char *mask[2] = {(char *)"max_moves", (char *)"drain_attempts"};

	CORE_BODY(cmd, body, LIMIT_SET, limit_set, Drover__LimitSet, drover__limit_set);
	body.max_moves = max_moves;
	body.drain_attempts = attempts;
	body.mask = mask;
	body.n_mask = 2;
	assert_int_equal(core_apply(&w->core, &cmd), 0);
}

static void lose_session(struct world *w, const char *node, uint8_t start)
{
	CORE_BODY(cmd, body, NODE_SESSION, node_session, Drover__CmdNodeSession, drover__cmd_node_session);
	body.node = (char *)(uintptr_t)node;
	body.start_id = core_bytes(start);
	core_done(&w->core, &cmd);
}

static void stop(struct world *w, const char *vm)
{
	CORE_BODY(cmd, body, VM_STOP, vm_stop, Drover__CmdVmStop, drover__cmd_vm_stop);
	body.vm = (char *)(uintptr_t)vm;
	core_done(&w->core, &cmd);
}

/* vm1 copies and holds the only slot; vm2 waits for it. */
static uint64_t queued(struct world *w)
{
	uint64_t first;
	uint64_t second;

	set_limit(w, 1, 3);
	first = create(w, "vm1");
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ASSIGN), 1);
	assert_int_equal(core_src(&w->core, "node1", 1, first, 1, DROVER__MOVE_PHASE__SRC_COPYING), 0);
	second = create(w, "vm2");
	seconds(w, 400); /* however long */
	assert_string_equal(core_move(&w->core, first).state, "copying");
	assert_string_equal(core_move(&w->core, second).state, "queued");
	return second;
}

/* ---------------------------------------------------------------- what waits in the queue */

/* An agent that restarts while a move has waited for its slot for long: 60 s from its loss, not from then. */
static void test_agent_away(void **state)
{
	struct world *w = *state;
	uint64_t id = queued(w);

	lose_session(w, "node1", 1);
	seconds(w, 10);
	assert_string_equal(core_move(&w->core, id).state, "queued");
	core_node(&w->core, "node1", 1);
	seconds(w, 55);
	lose_session(w, "node1", 1);
	seconds(w, 59);
	assert_string_equal(core_move(&w->core, id).state, "queued");
	seconds(w, 2);
	assert_string_equal(core_move(&w->core, id).state, "failed");
	assert_non_null(strstr(core_move(&w->core, id).error, "the agent of node1 has been lost for 60 s"));
}

/* Stopped by an operator while its move waits: it has its 5 minutes. */
static void test_stopped_in_queue(void **state)
{
	struct world *w = *state;
	uint64_t id = queued(w);

	stop(w, "vm2");
	seconds(w, 299);
	assert_string_equal(core_move(&w->core, id).state, "queued");
	seconds(w, 3);
	assert_string_equal(core_move(&w->core, id).state, "failed");
	assert_non_null(strstr(core_move(&w->core, id).error, "did not shut down within 5 minutes"));
}

static void test_unknown_in_queue(void **state)
{
	struct world *w = *state;
	uint64_t id = queued(w);

	assert_int_equal(core_vm_fact(&w->core, "node1", 1, "vm2", core_vm(&w->core, "vm2").generation,
				      DROVER__VM_STATE__VM_STATE_UNKNOWN),
			 0);
	seconds(w, 59);
	assert_string_equal(core_move(&w->core, id).state, "queued");
	seconds(w, 3);
	assert_string_equal(core_move(&w->core, id).state, "failed");
	assert_non_null(strstr(core_move(&w->core, id).error, "it has been unknown for 60 s"));
}

static void test_offline_kind(void **state)
{
	struct world *w = *state;
	uint64_t id;

	CORE_BODY(cmd, body, MOVE_CREATE, move_create, Drover__CmdMoveCreate, drover__cmd_move_create);
	body.vm = (char *)"vm1";
	body.kind = (char *)"offline";
	core_done(&w->core, &cmd);
	id = w->core.last.object_id;
	seconds(w, 1);
	assert_string_equal(core_move(&w->core, id).state, "failed");
	assert_int_equal(core_move(&w->core, id).exit, 6);
	assert_non_null(strstr(core_move(&w->core, id).error, "an offline move is impossible"));
	/* It is being stopped: waited for. */
	stop(w, "vm1");
	core_done(&w->core, &cmd);
	id = w->core.last.object_id;
	seconds(w, 300);
	assert_string_equal(core_move(&w->core, id).state, "queued");
	seconds(w, 2);
	assert_string_equal(core_move(&w->core, id).state, "failed");
	core_done(&w->core, &cmd);
	id = w->core.last.object_id;
	seconds(w, 100);
	assert_int_equal(core_vm_fact(&w->core, "node1", 1, "vm1", core_vm(&w->core, "vm1").generation,
				      DROVER__VM_STATE__VM_STOPPED),
			 0);
	seconds(w, 1);
	assert_string_equal(core_move(&w->core, id).state, "done");
	assert_string_equal(core_vm(&w->core, "vm1").owner, "node2");
}

static void test_unmovable(void **state)
{
	struct world *w = *state;
	Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
	char *mask[1] = {(char *)"no_move"};
	uint64_t id;

	spec.no_move = true;
	CORE_BODY(cmd, body, VM_SET, vm_set, Drover__VmSet, drover__vm_set);
	body.vm = (char *)"vm1";
	body.spec = &spec;
	body.mask = mask;
	body.n_mask = 1;
	core_done(&w->core, &cmd);
	id = create(w, "vm1");
	seconds(w, 1);
	assert_string_equal(core_move(&w->core, id).state, "failed");
	assert_int_equal(core_move(&w->core, id).exit, 6);
	assert_non_null(strstr(core_move(&w->core, id).error, "--no-move"));
}

/* A live move that was asked for, and the VM has ended: with its reason. */
static void test_ended_in_queue(void **state)
{
	struct world *w = *state;
	Drover__VmFact fact = DROVER__VM_FACT__INIT;
	uint64_t id = queued(w);

	CORE_BODY(cmd, body, VM_FACT, vm_fact, Drover__CmdVmFact, drover__cmd_vm_fact);
	body.node = (char *)"node1";
	body.start_id = core_bytes(1);
	body.fact = &fact;
	fact.name = (char *)"vm2";
	fact.generation = core_vm(&w->core, "vm2").generation;
	fact.state = DROVER__VM_STATE__VM_FAILED;
	fact.error = (char *)"its QEMU ended";
	core_done(&w->core, &cmd);
	seconds(w, 1);
	assert_string_equal(core_move(&w->core, id).state, "failed");
	assert_string_equal(core_move(&w->core, id).error, "its QEMU ended");
}

/* No target is waited for 5 s, a host that is away 60 s. */
static void test_no_target(void **state)
{
	struct world *w = *state;
	uint64_t id;

	CORE_BODY(cmd, body, NODE_ADMIN, node_admin, Drover__CmdNodeAdmin, drover__cmd_node_admin);
	body.node = (char *)"node2";
	body.paused = true;
	core_done(&w->core, &cmd);
	id = create(w, "vm1");
	seconds(w, 5);
	assert_string_equal(core_move(&w->core, id).state, "queued");
	seconds(w, 2);
	assert_string_equal(core_move(&w->core, id).state, "failed");
	assert_non_null(strstr(core_move(&w->core, id).error, "no target: node2: it is drained"));
	body.paused = false;
	core_done(&w->core, &cmd);
	lose_session(w, "node2", 2);
	id = create(w, "vm1");
	seconds(w, 60);
	assert_string_equal(core_move(&w->core, id).state, "queued");
	seconds(w, 2);
	assert_string_equal(core_move(&w->core, id).state, "failed");
	assert_non_null(strstr(core_move(&w->core, id).error, "its agent is not connected"));
	/* It comes back within its time. */
	id = create(w, "vm1");
	seconds(w, 50);
	core_node(&w->core, "node2", 2);
	seconds(w, 1);
	assert_string_equal(core_move(&w->core, id).state, "assigned");
}

/* ---------------------------------------------------------------- attempts */

/* 1, 2, 4, 8, 8 s after failed attempts, until they are used up. */
static void test_backoff(void **state)
{
	static const unsigned waits[] = {1, 2, 4, 8, 8};
	struct world *w = *state;
	uint64_t id;

	set_limit(w, 1, 6);
	id = create(w, "vm1");
	pass(w, DROVER__COMMAND__BODY_MOVE_ASSIGN);
	for (uint32_t i = 1; i <= 6; i++) {
		unsigned n = 0;

		assert_string_equal(core_move(&w->core, id).state, "assigned");
		/* It gives up, without a word why. */
		if (i % 2 == 0)
			assert_int_equal(
				core_src(&w->core, "node1", 1, id, i, DROVER__MOVE_PHASE__SRC_ABORTING), 0);
		else
			assert_int_equal(
				core_dst(&w->core, "node2", 2, id, i, DROVER__MOVE_PHASE__DST_ABORTING), 0);
		assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ABORT), 1);
		assert_non_null(strstr(core_move(&w->core, id).error,
				       i % 2 == 0 ? "node1 has given up" : "node2 has given up"));
		assert_int_equal(core_dst(&w->core, "node2", 2, id, i, DROVER__MOVE_PHASE__PHASE_GONE), 0);
		assert_int_equal(core_src(&w->core, "node1", 1, id, i, DROVER__MOVE_PHASE__PHASE_GONE), 0);
		if (i == 6)
			break;
		assert_string_equal(core_move(&w->core, id).state, "queued");
		assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ASSIGN), 0);
		while (strcmp(core_move(&w->core, id).state, "queued") == 0 && n < 100) {
			seconds(w, 1);
			n++;
		}
		assert_int_equal(n, waits[i - 1]);
	}
	assert_string_equal(core_move(&w->core, id).state, "failed");
	assert_int_equal(core_move(&w->core, id).failures, 6);
}

/* A copy that makes no progress for 60 s is given up; one that does goes on for ever. */
static void test_stall(void **state)
{
	struct world *w = *state;
	Drover__MoveStats stats = DROVER__MOVE_STATS__INIT;
	uint64_t id;

	drover__move_fact__init(&w->fact);
	w->view.move_fact = view_fact;
	id = create(w, "vm1");
	pass(w, DROVER__COMMAND__BODY_MOVE_ASSIGN);
	assert_int_equal(core_src(&w->core, "node1", 1, id, 1, DROVER__MOVE_PHASE__SRC_COPYING), 0);
	seconds(w, 200); /* without figures: no proof of a stall */
	assert_string_equal(core_move(&w->core, id).state, "copying");
	w->fact.stats = &stats;
	for (int i = 0; i < 20; i++) {
		stats.bytes_wire += 1;
		seconds(w, 20);
	}
	assert_string_equal(core_move(&w->core, id).state, "copying");
	seconds(w, 39);
	assert_string_equal(core_move(&w->core, id).state, "copying");
	seconds(w, 2);
	assert_int_equal(core_attempt(&w->core, id, 1).decision, DROVER__MOVE_DECISION__DECISION_ABORT);
	assert_non_null(strstr(core_move(&w->core, id).error, "has made no progress for 60 s"));
}

/* Nothing is heard of what was proposed: once more after 2 s. What apply refused: after 1 s. */
static void test_again(void **state)
{
	struct world *w = *state;
	uint64_t id;

	id = create(w, "vm1");
	w->lose = true;
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ASSIGN), 1);
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ASSIGN), 0);
	w->now += 1900000;
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ASSIGN), 0);
	w->now += 200000;
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ASSIGN), 1);
	/* Its answer is a refusal. */
	{
		struct apply_result refusal = {.exit = 6};

		CORE_BODY(cmd, body, MOVE_ASSIGN, move_assign, Drover__CmdMoveAssign,
			  drover__cmd_move_assign);
		body.move = id;
		drain_applied(w->scheduler, &cmd, &refusal);
	}
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ASSIGN), 0);
	w->now += 1100000;
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ASSIGN), 1);
	/* What belongs to no move of it says nothing. */
	{
		struct apply_result refusal = {.exit = 6};

		CORE_BODY(cmd, body, MOVE_CREATE, move_create, Drover__CmdMoveCreate,
			  drover__cmd_move_create);
		drain_applied(w->scheduler, &cmd, &refusal);
	}
	w->lose = false;
	w->now += 2100000;
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ASSIGN), 1);
	assert_string_equal(core_move(&w->core, id).state, "assigned");
}

/* An assignment that is under way takes its room, until 2 s without an answer; then the room is free. */
static void test_room_under_way(void **state)
{
	struct world *w = *state;

	set_limit(w, 1, 3);
	create(w, "vm1");
	w->lose = true;
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ASSIGN), 1);
	create(w, "vm2");
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ASSIGN), 0);
	w->now += 2100000;
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ASSIGN), 1); /* one of the two, not both */
}

static void test_paused_drain(void **state)
{
	struct world *w = *state;
	uint64_t drain;

	assert_int_equal(core_drain(&w->core, "node1"), 0);
	drain = w->core.last.object_id;
	CORE_BODY(cmd, body, DRAIN_STATE, drain_state, Drover__CmdDrainState, drover__cmd_drain_state);
	body.drain = drain;
	body.to = (char *)"paused";
	core_done(&w->core, &cmd);
	seconds(w, 20);
	assert_int_equal(db_get_u64(w->core.db, "SELECT count(*) FROM move WHERE state = 'queued'", ""), 2);
	body.to = (char *)"running";
	core_done(&w->core, &cmd);
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ASSIGN), 2);
}

/* More moves than the scheduler has first room for. */
static void test_many(void **state)
{
	struct world *w = *state;
	char name[8];

	set_limit(w, 64, 3);
	for (uint8_t i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "m%d", i);
		core_vm_run(&w->core, name, (uint8_t)(110 + i), "node1", 1, MIB, 0);
		create(w, name);
	}
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ASSIGN), 40);
	assert_int_equal(rows_slots(w->core.db, "node2"), 40);
}

/* ---------------------------------------------------------------- how long an attempt may take */

/* vm1 to node2, that far. */
static uint64_t at(struct world *w, Drover__MovePhase src, Drover__MovePhase dst)
{
	uint64_t id = create(w, "vm1");

	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ASSIGN), 1);
	if (src != 0)
		assert_int_equal(core_src(&w->core, "node1", 1, id, 1, src), 0);
	if (dst != 0)
		assert_int_equal(core_dst(&w->core, "node2", 2, id, 1, dst), 0);
	return id;
}

/* Undecided for that many seconds, aborted with the next ones; why. */
static void aborted_after(struct world *w, uint64_t id, unsigned n, const char *why)
{
	seconds(w, n - 1);
	assert_int_equal(core_attempt(&w->core, id, 1).decision, DROVER__MOVE_DECISION__DECISION_NONE);
	seconds(w, 3);
	assert_int_equal(core_attempt(&w->core, id, 1).decision, DROVER__MOVE_DECISION__DECISION_ABORT);
	if (strstr(core_move(&w->core, id).error, why) == NULL)
		fail_msg("'%s' says nothing of '%s'", core_move(&w->core, id).error, why);
}

static void test_lost_hosts(void **state)
{
	struct world *w = *state;
	uint64_t id = at(w, DROVER__MOVE_PHASE__SRC_COPYING, DROVER__MOVE_PHASE__DST_LOADING);

	lose_session(w, "node2", 2);
	seconds(w, 15);
	core_node(&w->core, "node2", 2); /* back in time: it counts anew */
	seconds(w, 15);
	lose_session(w, "node2", 2);
	aborted_after(w, id, 20, "the agent of node2 is lost");
}

static void test_lost_source(void **state)
{
	struct world *w = *state;
	uint64_t id = at(w, DROVER__MOVE_PHASE__SRC_COPYING, DROVER__MOVE_PHASE__DST_LOADING);

	lose_session(w, "node1", 1);
	aborted_after(w, id, 60, "the agent of node1 is lost");
	/* It does not come to clean up: the move ends; its slots stay taken (R21). */
	seconds(w, 55);
	assert_string_equal(core_move(&w->core, id).state, "cancelling");
	seconds(w, 8);
	assert_string_equal(core_move(&w->core, id).state, "failed");
	assert_non_null(strstr(core_move(&w->core, id).error, "(and node1 has not cleaned up)"));
	assert_int_equal(rows_slots(w->core.db, "node1"), 1);
}

static void test_preparation(void **state)
{
	struct world *w = *state;
	uint64_t id = at(w, 0, 0);

	aborted_after(w, id, 90, "could not be prepared within 90 s");
	/* The source is connected, and does not clean up: it has 5 minutes. */
	seconds(w, 290);
	assert_string_equal(core_move(&w->core, id).state, "cancelling");
	seconds(w, 12);
	assert_string_equal(core_move(&w->core, id).state, "failed");
}

static void test_switching(void **state)
{
	struct world *w = *state;
	uint64_t id = at(w, DROVER__MOVE_PHASE__SRC_COPYING, DROVER__MOVE_PHASE__DST_LOADING);

	assert_int_equal(core_move_fact_full(&w->core, "node1", 1, id, 1, DROVER__MOVE_ROLE__MOVE_SRC,
					     DROVER__MOVE_PHASE__SRC_COPYING, "", 1),
			 0);
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_SWITCH), 1);
	assert_int_equal(core_src(&w->core, "node1", 1, id, 1, DROVER__MOVE_PHASE__SRC_SWITCHING), 0);
	assert_string_equal(core_move(&w->core, id).state, "switching");
	aborted_after(w, id, 60, "the switch-over did not end within 60 s");
}

/* R29: the source's word is there, the destination's does not come: 3 times the blackout limit, at least 1 s.
 */
static void test_silence(void **state)
{
	static const struct {
		uint64_t vm_ms;
		unsigned tenths;
	} rows[] = {{0, 10}, {200, 10}, {1000, 30}};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct world *w = *state;
		Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
		char *mask[1] = {(char *)"blackout_ms"};
		uint64_t id = at(w, DROVER__MOVE_PHASE__SRC_RELEASED, DROVER__MOVE_PHASE__DST_LOADING);

		CORE_BODY(cmd, body, VM_SET, vm_set, Drover__VmSet, drover__vm_set);
		body.vm = (char *)"vm1";
		body.spec = &spec;
		body.mask = mask;
		body.n_mask = 1;
		spec.blackout_ms = rows[i].vm_ms;
		assert_int_equal(core_apply(&w->core, &cmd), 0);
		for (unsigned k = 0; k < rows[i].tenths; k++) {
			assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ABORT), 0);
			w->now += SECOND / 10;
		}
		assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ABORT), 1);
		assert_non_null(strstr(core_move(&w->core, id).error, "node2 has not confirmed"));
		assert_int_equal(teardown(state), 0);
		assert_int_equal(setup(state), 0);
	}
}

/* The first error names its host; one that is fatal ends the move, unless the VM is off by now: then it goes
 * on offline. */
static void test_errors(void **state)
{
	struct world *w = *state;
	uint64_t id = at(w, DROVER__MOVE_PHASE__SRC_COPYING, DROVER__MOVE_PHASE__DST_LOADING);

	assert_int_equal(core_move_fact_full(&w->core, "node1", 1, id, 1, DROVER__MOVE_ROLE__MOVE_SRC,
					     DROVER__MOVE_PHASE__SRC_COPYING, "its QEMU ended", 0),
			 0);
	assert_int_equal(core_move_fact_full(&w->core, "node2", 2, id, 1, DROVER__MOVE_ROLE__MOVE_DST,
					     DROVER__MOVE_PHASE__DST_LOADING, "no stream", 0),
			 0);
	db_begin(w->core.db);
	db_exec(w->core.db, "UPDATE move_attempt SET error_fatal = 1", "");
	assert_int_equal(db_commit(w->core.db), 0);
	assert_int_equal(core_vm_fact(&w->core, "node1", 1, "vm1", core_vm(&w->core, "vm1").generation,
				      DROVER__VM_STATE__VM_FAILED),
			 0);
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ABORT), 1);
	assert_string_equal(core_move(&w->core, id).error, "node1: its QEMU ended");
	assert_int_equal(core_attempt(&w->core, id, 1).outcome, DROVER__CMD_MOVE_ABORT__OUTCOME__RETRY);
	assert_int_equal(teardown(state), 0);
	assert_int_equal(setup(state), 0);
	w = *state;
	id = at(w, DROVER__MOVE_PHASE__SRC_COPYING, DROVER__MOVE_PHASE__DST_LOADING);
	assert_int_equal(core_move_fact_full(&w->core, "node2", 2, id, 1, DROVER__MOVE_ROLE__MOVE_DST,
					     DROVER__MOVE_PHASE__DST_LOADING, "no stream", 0),
			 0);
	db_begin(w->core.db);
	db_exec(w->core.db, "UPDATE move_attempt SET error_fatal = 1", "");
	assert_int_equal(db_commit(w->core.db), 0);
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ABORT), 1);
	assert_string_equal(core_move(&w->core, id).error, "node2: no stream");
	assert_int_equal(core_attempt(&w->core, id, 1).outcome, DROVER__CMD_MOVE_ABORT__OUTCOME__FAIL);
}

/* ---------------------------------------------------------------- drains */

static uint64_t drain_of(struct world *w)
{
	assert_int_equal(core_drain(&w->core, "node1"), 0);
	return w->core.last.object_id;
}

/* A VM that comes to the node while it is drained is taken along. */
static void test_latecomer(void **state)
{
	struct world *w = *state;
	uint64_t drain = drain_of(w);
	struct drain_row row;

	assert_int_equal(core_vm_add(&w->core, "late", 120, "node1", MIB, 0), 0);
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_CREATE), 1);
	assert_true(core_move(&w->core, core_vm(&w->core, "late").move).drain == drain);
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ASSIGN), 1);
	assert_string_equal(core_vm(&w->core, "late").owner, "node2");
	assert_true(rows_drain(w->core.db, drain, &row));
	assert_string_equal(row.state, "running");
}

/* Committed moves are waited for until both sides are clean, 5 minutes at most, and not for a host that is
 * down. */
static void test_cleaning_up(void **state)
{
	for (int how = 0; how < 3; how++) {
		struct world *w = *state;
		uint64_t drain;
		struct drain_row row;
		uint64_t ids[2];

		drain = drain_of(w);
		pass(w, DROVER__COMMAND__BODY_MOVE_ASSIGN);
		for (int i = 0; i < 2; i++) {
			ids[i] = core_vm(&w->core, i == 0 ? "vm1" : "vm2").move;
			assert_int_equal(
				core_src(&w->core, "node1", 1, ids[i], 1, DROVER__MOVE_PHASE__SRC_RELEASED),
				0);
			assert_int_equal(
				core_dst(&w->core, "node2", 2, ids[i], 1, DROVER__MOVE_PHASE__DST_COMPLETED),
				0);
		}
		assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_COMMIT), 2);
		for (int i = 0; i < 2; i++)
			assert_int_equal(
				core_dst(&w->core, "node2", 2, ids[i], 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
		seconds(w, 100);
		assert_true(rows_drain(w->core.db, drain, &row));
		assert_string_equal(row.state, "running");
		if (how == 0) {
			for (int i = 0; i < 2; i++)
				assert_int_equal(core_src(&w->core, "node1", 1, ids[i], 1,
							  DROVER__MOVE_PHASE__PHASE_GONE),
						 0);
			seconds(w, 1);
		} else if (how == 1) {
			seconds(w, 190);
			assert_true(rows_drain(w->core.db, drain, &row));
			assert_string_equal(row.state, "running");
			seconds(w, 12);
		} else {
			CORE_BODY(cmd, body, NODE_HEALTH, node_health, Drover__CmdNodeHealth,
				  drover__cmd_node_health);
			body.node = (char *)"node1";
			body.health = (char *)"down";
			core_done(&w->core, &cmd);
			seconds(w, 1);
		}
		assert_true(rows_drain(w->core.db, drain, &row));
		assert_string_equal(row.state, "done");
		assert_int_equal(teardown(state), 0);
		assert_int_equal(setup(state), 0);
	}
}

/* What apply refuses is not proposed again at once, whatever it is. */
static void test_refused(void **state)
{
	struct world *w = *state;
	struct apply_result refusal = {.exit = 6};
	uint64_t id = at(w, DROVER__MOVE_PHASE__SRC_RELEASED, DROVER__MOVE_PHASE__DST_COMPLETED);

	w->lose = true;
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_COMMIT), 1);
	{
		CORE_BODY(cmd, body, MOVE_COMMIT, move_commit, Drover__CmdMoveCommit,
			  drover__cmd_move_commit);
		body.move = id + 1; /* of another move: says nothing about this one */
		drain_applied(w->scheduler, &cmd, &refusal);
		body.move = id;
		w->now += 1950000;
		drain_applied(w->scheduler, &cmd, &refusal);
	}
	w->now += 900000;
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_COMMIT), 0);
	w->now += 200000;
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_COMMIT), 1);
	/* Another decision is not held up by it. */
	assert_int_equal(core_move_fact_full(&w->core, "node2", 2, id, 1, DROVER__MOVE_ROLE__MOVE_DST,
					     DROVER__MOVE_PHASE__DST_COMPLETED, "it died", 0),
			 0);
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ABORT), 1);
	{
		CORE_BODY(cmd, body, MOVE_ABORT, move_abort, Drover__CmdMoveAbort, drover__cmd_move_abort);
		body.move = id;
		w->now += 1950000;
		drain_applied(w->scheduler, &cmd, &refusal);
	}
	w->now += 900000;
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ABORT), 0);
	w->now += 200000;
	assert_int_equal(pass(w, DROVER__COMMAND__BODY_MOVE_ABORT), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_agent_away, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stopped_in_queue, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unknown_in_queue, setup, teardown),
		cmocka_unit_test_setup_teardown(test_offline_kind, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unmovable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ended_in_queue, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_target, setup, teardown),
		cmocka_unit_test_setup_teardown(test_backoff, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stall, setup, teardown),
		cmocka_unit_test_setup_teardown(test_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_room_under_way, setup, teardown),
		cmocka_unit_test_setup_teardown(test_paused_drain, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lost_hosts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lost_source, setup, teardown),
		cmocka_unit_test_setup_teardown(test_preparation, setup, teardown),
		cmocka_unit_test_setup_teardown(test_switching, setup, teardown),
		cmocka_unit_test_setup_teardown(test_silence, setup, teardown),
		cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_latecomer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cleaning_up, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
