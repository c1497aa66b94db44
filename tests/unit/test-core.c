/*
 * The core as a whole: the scheduler's commands, apply, orders, and made-up agents that do what their orders
 * say and report it. Time is a number. Checks after every step: limits, one owner, no attempt undone.
 */
#include "coordinator/drain.h"
#include "coordinator/orders.h"
#include "coordinator/reports.h"
#include "tests/unit/core.h"

/* ---------------------------------------------------------------- the world */

struct fake_move {
	uint64_t move;
	uint32_t attempt;
	Drover__MoveRole role;
	Drover__MovePhase phase;
	uint32_t token;
	char vm[64];
	uint64_t generation;
	char error[64];
	uint32_t error_exit;
};

struct agent {
	char name[16];
	uint8_t start;
	bool dead;
	struct fake_move moves[32];
	unsigned n_moves;
	const char *refuse; /* the destination refuses with this */
};

struct world {
	struct core core;
	struct env env;
	uint64_t now;
	struct drain_scheduler *scheduler;
	struct agent agents[3];
	unsigned most_slots[3];
	unsigned limit;
	unsigned refused_grants;
	Drover__Command *queue[256];
	unsigned n_queue;
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
	size_t size = drover__command__get_packed_size(cmd);
	uint8_t *bytes = malloc(size);

	drover__command__pack(cmd, bytes);
	assert_true(w->n_queue < 256);
	w->queue[w->n_queue++] = drover__command__unpack(NULL, size, bytes);
	free(bytes);
}

static void check_limits(struct world *w)
{
	for (int i = 0; i < 3; i++) {
		unsigned slots = rows_slots(w->core.db, w->agents[i].name);

		if (slots > w->most_slots[i])
			w->most_slots[i] = slots;
		assert_true(slots <= w->limit);
	}
}

static void apply_queue(struct world *w)
{
	for (unsigned i = 0; i < w->n_queue; i++) {
		if (core_apply(&w->core, w->queue[i]) != 0 &&
		    w->queue[i]->body_case == DROVER__COMMAND__BODY_MOVE_SWITCH)
			w->refused_grants++;
		drain_applied(w->scheduler, w->queue[i], &w->core.last);
		drover__command__free_unpacked(w->queue[i], NULL);
		check_limits(w);
	}
	w->n_queue = 0;
}

static struct fake_move *find_move(struct agent *a, const Drover__MoveOrder *o)
{
	for (unsigned i = 0; i < a->n_moves; i++) {
		if (a->moves[i].move == o->move && a->moves[i].attempt == o->attempt)
			return &a->moves[i];
	}
	assert_true(a->n_moves < 32);
	struct fake_move *m = &a->moves[a->n_moves++];

	memset(m, 0, sizeof(*m));
	m->move = o->move;
	m->attempt = o->attempt;
	m->role = o->role;
	m->generation = o->generation;
	snprintf(m->vm, sizeof(m->vm), "%s", o->vm);
	return m;
}

static void step_source(struct fake_move *m, const Drover__MoveOrder *o)
{
	if (o->decision == DROVER__MOVE_DECISION__DECISION_COMMIT) {
		assert_true(m->phase >= DROVER__MOVE_PHASE__SRC_RELEASED);
		m->phase = DROVER__MOVE_PHASE__PHASE_GONE;
	} else if (o->decision == DROVER__MOVE_DECISION__DECISION_ABORT) {
		m->phase = DROVER__MOVE_PHASE__PHASE_GONE;
	} else if (m->phase < DROVER__MOVE_PHASE__SRC_READY) {
		m->phase = DROVER__MOVE_PHASE__SRC_READY;
	} else if (m->phase == DROVER__MOVE_PHASE__SRC_READY && o->dst_port != 0) {
		m->phase = DROVER__MOVE_PHASE__SRC_COPYING;
	} else if (m->phase == DROVER__MOVE_PHASE__SRC_COPYING && m->token == 0) {
		m->token = 1;
	} else if (m->phase == DROVER__MOVE_PHASE__SRC_COPYING && o->token_granted == m->token) {
		m->phase = DROVER__MOVE_PHASE__SRC_SWITCHING;
	} else if (m->phase == DROVER__MOVE_PHASE__SRC_SWITCHING) {
		m->phase = DROVER__MOVE_PHASE__SRC_RELEASED;
	}
}

static void step_destination(struct agent *a, struct fake_move *m, const Drover__MoveOrder *o)
{
	if (a->refuse != NULL && m->phase < DROVER__MOVE_PHASE__DST_PREPARED &&
	    o->decision == DROVER__MOVE_DECISION__DECISION_NONE) {
		m->phase = DROVER__MOVE_PHASE__DST_ASSIGNED;
		snprintf(m->error, sizeof(m->error), "%s", a->refuse);
		m->error_exit = 6;
	} else if (o->decision == DROVER__MOVE_DECISION__DECISION_COMMIT) {
		assert_true(m->phase >= DROVER__MOVE_PHASE__DST_COMPLETED);
		m->phase = DROVER__MOVE_PHASE__PHASE_GONE;
	} else if (o->decision == DROVER__MOVE_DECISION__DECISION_ABORT) {
		m->phase = DROVER__MOVE_PHASE__PHASE_GONE;
	} else if (m->phase < DROVER__MOVE_PHASE__DST_PREPARED && o->src_ready) {
		m->phase = DROVER__MOVE_PHASE__DST_PREPARED;
	} else if (m->phase == DROVER__MOVE_PHASE__DST_PREPARED && o->src_ready) {
		m->phase = DROVER__MOVE_PHASE__DST_LOADING;
	} else if (m->phase == DROVER__MOVE_PHASE__DST_LOADING) {
		m->phase = DROVER__MOVE_PHASE__DST_COMPLETED;
	}
}

/* Takes the orders, goes one phase on in each move, reports. */
static void agent_turn(struct world *w, struct agent *a)
{
	Drover__AgentOrders *orders =
		orders_build(w->core.db, a->name, 1, w->core.index, core_bytes(a->start).data);
	Drover__AgentReport report = DROVER__AGENT_REPORT__INIT;
	Drover__MoveFact facts[32];
	Drover__MoveFact *list[32];
	Drover__VmFact vms[64];
	Drover__VmFact *vm_list[64];

	assert_non_null(orders);
	for (size_t i = 0; i < orders->n_moves; i++) {
		struct fake_move *m = find_move(a, orders->moves[i]);

		assert_true(orders->moves[i]->n_paths > 0 && orders->moves[i]->key.len == 32);
		if (m->role == DROVER__MOVE_ROLE__MOVE_SRC)
			step_source(m, orders->moves[i]);
		else
			step_destination(a, m, orders->moves[i]);
		drover__move_fact__init(&facts[i]);
		facts[i].move = m->move;
		facts[i].attempt = m->attempt;
		facts[i].vm = m->vm;
		facts[i].generation = m->generation;
		facts[i].role = m->role;
		facts[i].phase = m->phase;
		facts[i].token_request = m->token;
		facts[i].error = m->error;
		facts[i].error_exit = m->error_exit;
		if (m->role == DROVER__MOVE_ROLE__MOVE_DST && m->phase >= DROVER__MOVE_PHASE__DST_PREPARED)
			facts[i].relay_port = 7421;
		list[i] = &facts[i];
	}
	for (size_t i = 0; i < orders->n_vms; i++) {
		struct vm_row vm = core_vm(&w->core, orders->vms[i]->name);

		drover__vm_fact__init(&vms[i]);
		vms[i].name = orders->vms[i]->name;
		vms[i].generation = orders->vms[i]->generation;
		vms[i].state = rows_vm_off(&vm) || orders->vms[i]->want == DROVER__VM_WANT__WANT_STOP
				       ? DROVER__VM_STATE__VM_STOPPED
				       : DROVER__VM_STATE__VM_RUNNING;
		vm_list[i] = &vms[i];
	}
	report.n_moves = orders->n_moves;
	report.moves = list;
	report.n_vms = orders->n_vms;
	report.vms = vm_list;
	report.complete = true;
	report.orders_index = orders->index;
	reports_commands(w->core.db, a->name, core_bytes(a->start).data, &report, propose, w);
	apply_queue(w);
	/* The same report again has nothing to say. */
	if (db_exists(w->core.db, "SELECT 1 FROM node WHERE name = ? AND length(start_id) > 0", "s", a->name))
		reports_commands(w->core.db, a->name, core_bytes(a->start).data, &report, propose, w);
	assert_int_equal(w->n_queue, 0);
	drover__agent_orders__free_unpacked(orders, NULL);
}

static void turn(struct world *w)
{
	w->now += 100000;
	drain_decide(w->scheduler, w->core.db, NULL, propose, w);
	apply_queue(w);
	for (int i = 0; i < 3; i++) {
		if (!w->agents[i].dead)
			agent_turn(w, &w->agents[i]);
	}
}

/* Until the drain has ended; fails after `most` seconds of the world. */
static struct drain_row run_drain(struct world *w, uint64_t id, unsigned most)
{
	struct drain_row drain = {0};

	for (unsigned i = 0; i < most * 10; i++) {
		assert_true(rows_drain(w->core.db, id, &drain));
		if (strcmp(drain.state, "running") != 0)
			return drain;
		turn(w);
	}
	fail_msg("drain %llu does not end", (unsigned long long)id);
	return drain;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	core_init(&w->core);
	w->env.impl = w;
	w->env.now_us = world_now;
	w->env.random = world_random;
	w->now = 1000000;
	w->limit = 2;
	for (uint8_t i = 0; i < 3; i++) {
		snprintf(w->agents[i].name, sizeof(w->agents[i].name), "node%d", i + 1);
		w->agents[i].start = (uint8_t)(i + 1);
		core_node(&w->core, w->agents[i].name, (uint8_t)(i + 1));
	}
	for (uint8_t i = 1; i <= 6; i++) {
		char name[8];

		snprintf(name, sizeof(name), "vm%d", i);
		core_vm_run(&w->core, name, (uint8_t)(100 + i), "node1", 1, 64 * MIB, i == 4 ? 3000 : 1000);
	}
	assert_int_equal(core_vm_add(&w->core, "off", 120, "node1", 64 * MIB, 0), 0);
	w->scheduler = drain_scheduler_new(&w->env);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	drain_scheduler_free(w->scheduler);
	core_fini(&w->core);
	free(w);
	return 0;
}

static uint64_t start_drain(struct world *w, const char *node)
{
	assert_int_equal(core_drain(&w->core, node), 0);
	return w->core.last.object_id;
}

static uint64_t owned(struct world *w, const char *node)
{
	return db_get_u64(w->core.db, "SELECT count(*) FROM vm WHERE owner = ?", "s", node);
}

/* ---------------------------------------------------------------- tests */

static void test_drain_moves_all(void **state)
{
	struct world *w = *state;
	uint64_t id = start_drain(w, "node1");
	struct drain_row drain;
	struct node_row node;

	drain = run_drain(w, id, 60);
	assert_string_equal(drain.state, "done");
	assert_int_equal(owned(w, "node1"), 0);
	assert_int_equal(w->most_slots[0], 2);	/* the limit is used and kept */
	assert_int_equal(w->refused_grants, 0); /* two that ask at once: a refusal costs a stopped VM time */
	assert_true(owned(w, "node2") > 0 && owned(w, "node3") > 0); /* spread */
	assert_true(rows_node(w->core.db, "node1", &node));
	assert_string_equal(rows_node_state(w->core.db, &node), "drained");
	/* Priority first. */
	assert_true(db_exists(
		w->core.db,
		"SELECT 1 FROM move WHERE vm = 'vm4' AND started_utc_us = (SELECT min(started_utc_us)"
		" FROM move WHERE kind = 'live')",
		""));
	assert_int_equal(db_get_u64(w->core.db, "SELECT count(*) FROM move WHERE state = 'done'", ""), 7);
}

static void test_crossing_drains(void **state)
{
	struct world *w = *state;
	uint64_t first = start_drain(w, "node1");
	uint64_t second;

	turn(w);
	turn(w);
	second = start_drain(w, "node2");
	assert_string_equal(run_drain(w, first, 120).state, "done");
	assert_string_equal(run_drain(w, second, 120).state, "done");
	assert_int_equal(owned(w, "node3"), 7);
}

static void test_refused_everywhere(void **state)
{
	struct world *w = *state;
	struct drain_row drain;
	uint64_t id;

	w->agents[1].refuse = "disk /a is not the same storage on both hosts";
	w->agents[2].refuse = w->agents[1].refuse;
	id = start_drain(w, "node1");
	drain = run_drain(w, id, 300);
	assert_string_equal(drain.state, "failed");
	assert_non_null(strstr(drain.error, "not the same storage"));
	assert_int_equal(owned(w, "node1"), 6); /* the one that is off has moved */
	assert_true(db_exists(w->core.db,
			      "SELECT 1 FROM move WHERE vm = 'vm1' AND state = 'failed' AND exit = 6", ""));
	assert_int_equal(rows_slots_cluster(w->core.db), 0);
	/* Each host was asked once. */
	assert_int_equal(db_get_u64(w->core.db, "SELECT max(attempt) FROM move", ""), 2);
}

static void test_refused_by_one(void **state)
{
	struct world *w = *state;

	w->agents[1].refuse = "no bridge br0";
	assert_string_equal(run_drain(w, start_drain(w, "node1"), 300).state, "done");
	assert_int_equal(
		db_get_u64(w->core.db, "SELECT count(*) FROM vm WHERE owner = 'node3' AND state = 3", ""), 6);
}

/* A destination whose agent is gone: its moves are taken back, its slots stay taken, the drain ends. */
static void test_lost_destination(void **state)
{
	struct world *w = *state;
	uint64_t id = start_drain(w, "node1");

	for (int i = 0; i < 4; i++)
		turn(w);
	w->agents[1].dead = true;
	CORE_BODY(cmd, body, NODE_SESSION, node_session, Drover__CmdNodeSession, drover__cmd_node_session);
	body.node = (char *)"node2";
	body.boot_id = core_bytes(2);
	body.start_id = core_bytes(2);
	core_apply(&w->core, &cmd);
	CORE_BODY(cmd2, body2, NODE_HEALTH, node_health, Drover__CmdNodeHealth, drover__cmd_node_health);
	body2.node = (char *)"node2";
	body2.health = (char *)"down";
	core_apply(&w->core, &cmd2);
	assert_string_equal(run_drain(w, id, 300).state, "done");
	assert_int_equal(owned(w, "node1"), 0);
	assert_true(rows_slots(w->core.db, "node2") > 0); /* R21 */
}

/* The source dies in the middle: its word decides; what the fencing stopped moves offline. */
static void test_lost_source(void **state)
{
	struct world *w = *state;
	uint64_t id = start_drain(w, "node1");

	for (int i = 0; i < 4; i++)
		turn(w);
	w->agents[0].dead = true;
	CORE_BODY(cmd, body, NODE_FENCED, node_fenced, Drover__CmdNodeFenced, drover__cmd_node_fenced);
	body.node = (char *)"node1";
	body.proof = (char *)"operator";
	core_apply(&w->core, &cmd);
	assert_string_equal(run_drain(w, id, 300).state, "done");
	assert_int_equal(owned(w, "node1"), 0);
}

static void test_new_leader_in_the_middle(void **state)
{
	struct world *w = *state;
	uint64_t id = start_drain(w, "node1");

	for (int i = 0; i < 100; i++) {
		turn(w);
		drain_scheduler_free(w->scheduler);
		w->scheduler = drain_scheduler_new(&w->env);
	}
	assert_string_equal(run_drain(w, id, 10).state, "done");
}

static void test_cancel_in_the_middle(void **state)
{
	struct world *w = *state;
	uint64_t id = start_drain(w, "node1");
	struct node_row node;

	for (int i = 0; i < 3; i++)
		turn(w);
	CORE_BODY(cmd, body, DRAIN_STATE, drain_state, Drover__CmdDrainState, drover__cmd_drain_state);
	body.drain = id;
	body.to = (char *)"cancelled";
	assert_int_equal(core_apply(&w->core, &cmd), 0);
	for (int i = 0; i < 20; i++)
		turn(w);
	assert_int_equal(rows_slots_cluster(w->core.db), 0);
	assert_true(rows_node(w->core.db, "node1", &node) && !node.paused);
	assert_int_equal(db_get_u64(w->core.db, "SELECT count(*) FROM vm WHERE move <> 0", ""), 0);
	assert_true(owned(w, "node1") > 0);
}

/* The destination dies between the source's word and its own: the VM stands still no longer than 1 s. */
static void test_silent_destination(void **state)
{
	struct world *w = *state;
	struct attempt_row t = {0};
	uint64_t id;

	for (int i = 2; i <= 6; i++) {
		char name[8];

		snprintf(name, sizeof(name), "vm%c", '0' + i);
		core_vm_fact(&w->core, "node1", 1, name, core_vm(&w->core, name).generation,
			     DROVER__VM_STATE__VM_STOPPED);
	}
	assert_int_equal(core_move_create(&w->core, "vm1", "node2"), 0);
	id = w->core.last.object_id;
	for (int i = 0; i < 100 && t.src_phase < DROVER__MOVE_PHASE__SRC_COPYING; i++) {
		turn(w);
		rows_attempt(w->core.db, id, 1, &t);
	}
	w->agents[1].dead = true; /* its session is not noticed as lost yet */
	for (int i = 0; i < 100 && t.src_phase < DROVER__MOVE_PHASE__SRC_RELEASED; i++) {
		turn(w);
		rows_attempt(w->core.db, id, 1, &t);
	}
	assert_int_equal(t.decision, DROVER__MOVE_DECISION__DECISION_NONE);
	for (int i = 0; i < 12; i++)
		turn(w);
	rows_attempt(w->core.db, id, 1, &t);
	assert_int_equal(t.decision, DROVER__MOVE_DECISION__DECISION_ABORT);
	assert_true(t.src_gone);
	assert_string_equal(core_vm(&w->core, "vm1").owner, "node1");
}

static void test_trim(void **state)
{
	struct world *w = *state;

	db_begin(w->core.db);
	for (uint64_t i = 0; i < 12000; i++)
		db_exec(w->core.db,
			"INSERT INTO event (idx, seq, utc_us, kind, node, vm, move, drain, text)"
			" VALUES (?, ?, 0, 'test', '', '', 0, 0, '')",
			"uu", i / 2, 100 + i % 2);
	assert_int_equal(db_commit(w->core.db), 0);
	w->core.index = 20000;
	w->now += 61000000;
	turn(w);
	assert_in_range(db_get_u64(w->core.db, "SELECT count(*) FROM event", ""), 8000, 8400);
}

static void test_no_target(void **state)
{
	struct world *w = *state;
	struct drain_row drain;

	for (int i = 1; i < 3; i++) {
		CORE_BODY(cmd, body, NODE_ADMIN, node_admin, Drover__CmdNodeAdmin, drover__cmd_node_admin);
		body.node = w->agents[i].name;
		body.paused = true;
		core_apply(&w->core, &cmd);
	}
	drain = run_drain(w, start_drain(w, "node1"), 60);
	assert_string_equal(drain.state, "failed");
	assert_non_null(strstr(drain.error, "no target"));
	assert_int_equal(owned(w, "node1"), 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_drain_moves_all, setup, teardown),
		cmocka_unit_test_setup_teardown(test_crossing_drains, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused_everywhere, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused_by_one, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lost_destination, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lost_source, setup, teardown),
		cmocka_unit_test_setup_teardown(test_new_leader_in_the_middle, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cancel_in_the_middle, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_target, setup, teardown),
		cmocka_unit_test_setup_teardown(test_silent_destination, setup, teardown),
		cmocka_unit_test_setup_teardown(test_trim, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
