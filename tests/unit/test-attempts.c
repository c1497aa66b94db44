/* Moves and drains: what is refused, what is said about it, and crowds that no single query holds. */
#include "tests/unit/core.h"

static int setup(void **state)
{
	core_setup(state);
	assert_int_equal(core_vm_add(*state, "off", 102, "node1", 64 * MIB, 0), 0);
	return 0;
}

static void set_limit(struct core *c, const char *key, uint32_t value)
{
	char *mask[1] = {(char *)(uintptr_t)key};

	CORE_BODY(cmd, body, LIMIT_SET, limit_set, Drover__LimitSet, drover__limit_set);
	body.max_moves = value;
	body.mask = mask;
	body.n_mask = 1;
	core_done(c, &cmd);
}

/* ---------------------------------------------------------------- moves */

static void test_create(void **state)
{
	struct core *c = *state;

	CORE_BODY(cmd, body, MOVE_CREATE, move_create, Drover__CmdMoveCreate, drover__cmd_move_create);
	body.vm = (char *)"vm9";
	core_refused(c, &cmd, 4, "no VM");
	body.vm = (char *)"vm1";
	body.to = (char *)"node9";
	core_refused(c, &cmd, 4, "no node");
	body.to = (char *)"node1";
	core_unchanged(c, &cmd);
	assert_string_equal(c->last.message, "vm1 is on node1 already");
	body.to = (char *)"";
	body.drain = 5;
	core_refused(c, &cmd, 6, "drain 5 does not run on node1");
	assert_int_equal(core_drain(c, "node3"), 0); /* empty: it has ended at once */
	body.drain = c->last.object_id;
	core_refused(c, &cmd, 6, "does not run on node1");
	body.drain = 0;
	body.kind = (char *)"offline";
	core_done(c, &cmd);
	assert_string_equal(core_move(c, core_vm(c, "vm1").move).kind, "offline");
	core_refused(c, &cmd, 6, "is being moved already");
}

/* A VM that comes to a node while it is being drained is moved for that drain. */
static void test_create_for_drain(void **state)
{
	struct core *c = *state;
	uint64_t drain;

	assert_int_equal(core_drain(c, "node1"), 0);
	drain = c->last.object_id;
	assert_int_equal(core_vm_add(c, "late", 104, "node1", MIB, 0), 0);
	CORE_BODY(cmd, body, MOVE_CREATE, move_create, Drover__CmdMoveCreate, drover__cmd_move_create);
	body.vm = (char *)"late";
	body.drain = drain;
	core_done(c, &cmd);
	assert_true(core_move(c, core_vm(c, "late").move).drain == drain);
	CORE_BODY(cmd2, to, DRAIN_STATE, drain_state, Drover__CmdDrainState, drover__cmd_drain_state);
	to.drain = drain;
	to.to = (char *)"paused";
	core_done(c, &cmd2);
	assert_int_equal(core_vm_add(c, "later", 105, "node1", MIB, 0), 0);
	body.vm = (char *)"later";
	core_done(c, &cmd);
	assert_int_equal(core_vm_add(c, "other", 106, "node2", MIB, 0), 0);
	body.vm = (char *)"other";
	core_refused(c, &cmd, 6, "does not run on node2");
}

static void test_assign(void **state)
{
	struct core *c = *state;
	static uint8_t key[32];
	Drover__NetworkPath path = DROVER__NETWORK_PATH__INIT;
	Drover__NetworkPath *paths[1] = {&path};
	uint64_t id;

	assert_int_equal(core_move_create(c, "vm1", ""), 0);
	id = c->last.object_id;
	path.network = (char *)"mig1";
	CORE_BODY(cmd, body, MOVE_ASSIGN, move_assign, Drover__CmdMoveAssign, drover__cmd_move_assign);
	body.move = 5;
	core_refused(c, &cmd, 4, "no move 5");
	body.move = id;
	body.vm = (char *)"vm9";
	body.generation = core_vm(c, "vm1").generation;
	body.from = (char *)"node1";
	body.to = (char *)"node2";
	body.attempt = 1;
	body.paths = paths;
	body.n_paths = 1;
	core_refused(c, &cmd, 4, "no VM");
	body.vm = (char *)"off";
	core_refused(c, &cmd, 6, "changed meanwhile");
	body.vm = (char *)"vm1";
	body.attempt = 2;
	core_refused(c, &cmd, 6, "changed meanwhile");
	body.attempt = 1;
	body.generation++;
	core_refused(c, &cmd, 6, "changed meanwhile");
	body.generation--;
	body.from = (char *)"node3";
	core_refused(c, &cmd, 6, "changed meanwhile");
	body.from = (char *)"node1";
	body.to = (char *)"node9";
	core_refused(c, &cmd, 4, "no node");
	body.to = (char *)"node1";
	core_refused(c, &cmd, 6, "are the same");
	body.to = (char *)"node2";
	core_refused(c, &cmd, 2, "key of 32 bytes");
	body.key.data = key;
	body.key.len = sizeof(key);
	body.n_paths = 0;
	core_refused(c, &cmd, 6, "is not stopped");
	body.n_paths = 1;
	/* R10: an agent that stops takes no orders; nor does one that is away. */
	CORE_BODY(cmd2, leaving, NODE_LEAVING, node_leaving, Drover__CmdNodeLeaving,
		  drover__cmd_node_leaving);
	leaving.node = (char *)"node1";
	leaving.start_id = core_bytes(1);
	core_done(c, &cmd2);
	core_refused(c, &cmd, 6, "the agent of node1 is not connected");
	CORE_BODY(cmd3, lost, NODE_SESSION, node_session, Drover__CmdNodeSession, drover__cmd_node_session);
	lost.node = (char *)"node1";
	lost.start_id = core_bytes(1);
	core_done(c, &cmd3);
	core_refused(c, &cmd, 6, "the agent of node1 is not connected");
	core_node(c, "node1", 1);
	assert_int_equal(core_vm_fact(c, "node1", 1, "vm1", body.generation, DROVER__VM_STATE__VM_STARTING),
			 0);
	core_refused(c, &cmd, 6, "does not run");
	assert_int_equal(core_vm_fact(c, "node1", 1, "vm1", body.generation, DROVER__VM_STATE__VM_PAUSED), 0);
	core_done(c, &cmd);
	core_refused(c, &cmd, 6, "changed meanwhile"); /* decided once */
}

static void test_fail(void **state)
{
	struct core *c = *state;
	uint64_t id = core_assigned(c);

	CORE_BODY(cmd, body, MOVE_FAIL, move_fail, Drover__CmdMoveFail, drover__cmd_move_fail);
	body.move = 5;
	core_refused(c, &cmd, 4, "no move 5");
	body.move = id;
	body.attempt = 1;
	body.reason = (char *)"no target";
	core_refused(c, &cmd, 6, "changed meanwhile"); /* not in the middle of an attempt */
	assert_int_equal(core_abort(c, id, 1, DROVER__CMD_MOVE_ABORT__OUTCOME__RETRY), 0);
	body.attempt = 0;
	core_refused(c, &cmd, 6, "changed meanwhile");
	body.attempt = 1;
	core_done(c, &cmd); /* aborted, and the source does not answer */
	assert_string_equal(core_move(c, id).state, "failed");
	assert_int_equal(core_move(c, id).exit, 1);
	assert_int_equal(rows_slots(c->db, "node1"), 1); /* R21 */
	core_refused(c, &cmd, 6, "changed meanwhile");

	assert_int_equal(core_move_create(c, "off", ""), 0);
	body.move = c->last.object_id;
	body.attempt = 0;
	body.exit = 6;
	core_done(c, &cmd);
	assert_int_equal(core_move(c, body.move).exit, 6);
	assert_string_equal(core_move(c, body.move).error, "no target");
	assert_int_equal(core_vm(c, "off").move, 0);
}

static void test_cancel(void **state)
{
	struct core *c = *state;
	uint64_t id = core_assigned(c);

	CORE_BODY(cmd, body, MOVE_CANCEL, move_cancel, Drover__CmdMoveCancel, drover__cmd_move_cancel);
	body.move = 5;
	core_refused(c, &cmd, 4, "no move 5");
	body.move = id;
	/* Aborted to try again, then cancelled: it ends when the source is clean. */
	assert_int_equal(core_abort(c, id, 1, DROVER__CMD_MOVE_ABORT__OUTCOME__RETRY), 0);
	core_done(c, &cmd);
	core_unchanged(c, &cmd);
	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	assert_string_equal(core_move(c, id).state, "cancelled");
	core_unchanged(c, &cmd);
	/* Queued. */
	assert_int_equal(core_move_create(c, "vm1", ""), 0);
	body.move = id = c->last.object_id;
	core_done(c, &cmd);
	assert_string_equal(core_move(c, id).state, "cancelled");
	/* Both words are there: the commit is on its way; then it is too late. */
	assert_int_equal(core_move_create(c, "vm1", ""), 0);
	body.move = id = c->last.object_id;
	assert_int_equal(core_assign(c, id, "node3"), 0);
	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__SRC_RELEASED), 0);
	assert_int_equal(core_dst(c, "node3", 3, id, 1, DROVER__MOVE_PHASE__DST_COMPLETED), 0);
	core_refused(c, &cmd, 6, "about to be committed");
	assert_int_equal(core_commit(c, id, 1), 0);
	core_refused(c, &cmd, 6, "is committed");
	assert_int_equal(core_dst(c, "node3", 3, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	core_refused(c, &cmd, 6, "is done");
}

/* The abort says what becomes of the move. */
static void test_outcomes(void **state)
{
	static const struct {
		Drover__CmdMoveAbort__Outcome outcome;
		const char *state;
		unsigned failures;
		uint32_t exit;
	} rows[] = {
		{DROVER__CMD_MOVE_ABORT__OUTCOME__RETRY, "queued", 1, 0},
		{DROVER__CMD_MOVE_ABORT__OUTCOME__REQUEUE, "queued", 0, 0},
		{DROVER__CMD_MOVE_ABORT__OUTCOME__CANCEL, "cancelled", 0, 0},
		{DROVER__CMD_MOVE_ABORT__OUTCOME__FAIL, "failed", 1, 1},
	};
	struct core *c = *state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		uint64_t id = core_assigned(c);

		assert_int_equal(core_abort(c, id, 1, rows[i].outcome), 0);
		assert_int_equal(core_dst(c, "node2", 2, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
		assert_string_equal(core_move(c, id).state, "cancelling");
		assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
		assert_string_equal(core_move(c, id).state, rows[i].state);
		assert_int_equal(core_move(c, id).failures, rows[i].failures);
		assert_int_equal(core_move(c, id).exit, rows[i].exit);
		assert_true((core_vm(c, "vm1").move == id) == (strcmp(rows[i].state, "queued") == 0));
		if (core_vm(c, "vm1").move != 0) {
			CORE_BODY(cmd, body, MOVE_CANCEL, move_cancel, Drover__CmdMoveCancel,
				  drover__cmd_move_cancel);
			body.move = id;
			core_done(c, &cmd);
		}
	}
}

/* ---------------------------------------------------------------- the agents' words and the decisions */

static void test_facts(void **state)
{
	struct core *c = *state;
	uint64_t id = core_assigned(c);
	Drover__MoveFact fact = DROVER__MOVE_FACT__INIT;
	Drover__MoveStats stats = DROVER__MOVE_STATS__INIT;
	Drover__DiskProof proof = DROVER__DISK_PROOF__INIT;
	Drover__DiskProof *proofs[1] = {&proof};
	char *events[2] = {(char *)"it is slow", (char *)"it is very slow"};

	CORE_BODY(cmd, body, MOVE_FACT, move_fact, Drover__CmdMoveFact, drover__cmd_move_fact);
	body.node = (char *)"node1";
	body.start_id = core_bytes(1);
	core_unchanged(c, &cmd); /* an empty one */
	body.fact = &fact;
	fact.move = id;
	fact.attempt = 2;
	fact.vm = (char *)"vm1";
	fact.generation = core_vm(c, "vm1").generation;
	fact.role = DROVER__MOVE_ROLE__MOVE_SRC;
	fact.phase = DROVER__MOVE_PHASE__SRC_READY;
	core_refused(c, &cmd, 4, "no attempt 2");
	fact.attempt = 1;
	body.node = (char *)"node9";
	core_refused(c, &cmd, 4, "no node");
	body.node = (char *)"node1";
	fact.vm = (char *)"off";
	core_refused(c, &cmd, 6, "not a side of that attempt");
	fact.vm = (char *)"vm1";
	fact.generation++;
	core_refused(c, &cmd, 6, "not a side of that attempt");
	fact.generation--;
	fact.relay_port = 65536;
	core_refused(c, &cmd, 2, "out of range");
	fact.relay_port = 0;
	fact.error_exit = 256;
	core_refused(c, &cmd, 2, "out of range");
	fact.error_exit = 0;
	fact.phase = (Drover__MovePhase)30; /* of neither side */
	core_refused(c, &cmd, 2, "not one of that side");
	fact.phase = (Drover__MovePhase)41;
	core_refused(c, &cmd, 2, "not one of that side");

	fact.phase = DROVER__MOVE_PHASE__SRC_READY;
	fact.events = events;
	fact.n_events = 1;
	proof.path = (char *)"/a";
	fact.proofs = proofs;
	fact.n_proofs = 1;
	stats.passes = 3;
	fact.stats = &stats;
	core_done(c, &cmd);
	assert_int_equal(core_count(c, "SELECT count(*) FROM event WHERE text LIKE 'it is%slow'"), 1);
	fact.n_events = 2; /* the same report again, with more */
	core_done(c, &cmd);
	assert_int_equal(core_count(c, "SELECT count(*) FROM event WHERE text LIKE 'it is%slow'"), 2);
	assert_int_equal(core_count(c, "SELECT count(*) FROM move_attempt WHERE length(proofs) > 0"), 1);
	assert_int_equal(core_count(c, "SELECT count(*) FROM move_attempt WHERE length(stats) > 0"), 1);
	assert_string_equal(core_move(c, id).state, "preparing");
	/* The first error stays, whoever says another one. */
	fact.error = (char *)"first";
	fact.error_exit = 6;
	core_done(c, &cmd);
	fact.error = (char *)"second";
	fact.error_exit = 1;
	core_done(c, &cmd);
	assert_int_equal(core_move_fact_full(c, "node2", 2, id, 1, DROVER__MOVE_ROLE__MOVE_DST,
					     DROVER__MOVE_PHASE__DST_PREPARING, "third", 0),
			 0);
	assert_int_equal(
		core_count(c,
			   "SELECT count(*) FROM move_attempt WHERE src_error = 'first' AND error_exit = 6"),
		1);
}

/* More events than a report may bring: the rest is dropped. */
static void test_many_events(void **state)
{
	struct core *c = *state;
	uint64_t id = core_assigned(c);
	Drover__MoveFact fact = DROVER__MOVE_FACT__INIT;
	char text[20][8];
	char *events[20];

	for (int i = 0; i < 20; i++) {
		snprintf(text[i], sizeof(text[i]), "e %d", i);
		events[i] = text[i];
	}
	CORE_BODY(cmd, body, MOVE_FACT, move_fact, Drover__CmdMoveFact, drover__cmd_move_fact);
	body.node = (char *)"node1";
	body.start_id = core_bytes(1);
	body.fact = &fact;
	fact.move = id;
	fact.attempt = 1;
	fact.vm = (char *)"vm1";
	fact.generation = core_vm(c, "vm1").generation;
	fact.phase = DROVER__MOVE_PHASE__SRC_ASSIGNED;
	fact.events = events;
	fact.n_events = 20;
	core_done(c, &cmd);
	assert_int_equal(core_count(c, "SELECT count(*) FROM event WHERE text GLOB 'e [0-9]*'"), 16);
}

static void test_switch(void **state)
{
	struct core *c = *state;
	uint64_t id = core_assigned(c);

	CORE_BODY(cmd, body, MOVE_SWITCH, move_switch, Drover__CmdMoveSwitch, drover__cmd_move_switch);
	body.move = 5;
	body.attempt = 1;
	core_refused(c, &cmd, 4, "no attempt 1 of move 5");
	body.move = id;
	core_unchanged(c, &cmd); /* nothing to take back */
	body.token = 1;
	core_refused(c, &cmd, 6, "is assigned");
	/* Taken back before it was used: the state is what it was. */
	assert_int_equal(core_move_fact_full(c, "node1", 1, id, 1, DROVER__MOVE_ROLE__MOVE_SRC,
					     DROVER__MOVE_PHASE__SRC_COPYING, "", 1),
			 0);
	core_done(c, &cmd);
	body.token = 0;
	core_done(c, &cmd);
	assert_string_equal(core_move(c, id).state, "copying");
	core_unchanged(c, &cmd);
	assert_int_equal(core_move_fact_full(c, "node1", 1, id, 1, DROVER__MOVE_ROLE__MOVE_SRC,
					     DROVER__MOVE_PHASE__SRC_RELEASED, "", 2),
			 0);
	body.token = 2;
	core_refused(c, &cmd, 6, "is copying"); /* the source's word is given */
	assert_int_equal(core_abort(c, id, 1, DROVER__CMD_MOVE_ABORT__OUTCOME__RETRY), 0);
	core_refused(c, &cmd, 6, "is decided already");
}

/* R5: every part of a decision must match the rows. */
static void test_decisions_match(void **state)
{
	struct core *c = *state;
	uint64_t id = core_assigned(c);
	uint64_t generation = core_vm(c, "vm1").generation;

	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__SRC_RELEASED), 0);
	assert_int_equal(core_dst(c, "node2", 2, id, 1, DROVER__MOVE_PHASE__DST_COMPLETED), 0);
	CORE_BODY(cmd, body, MOVE_COMMIT, move_commit, Drover__CmdMoveCommit, drover__cmd_move_commit);
	body.move = id;
	body.attempt = 2;
	body.vm = (char *)"vm1";
	body.generation = generation;
	body.from = (char *)"node1";
	body.to = (char *)"node2";
	core_refused(c, &cmd, 4, "no attempt 2");
	body.attempt = 1;
	body.vm = (char *)"vm9";
	core_refused(c, &cmd, 4, "no VM");
	body.vm = (char *)"off";
	core_refused(c, &cmd, 6, "does not match");
	body.vm = (char *)"vm1";
	body.generation--;
	core_refused(c, &cmd, 6, "does not match");
	body.generation++;
	body.from = (char *)"node3";
	core_refused(c, &cmd, 6, "does not match");
	body.from = (char *)"node1";
	body.to = (char *)"node3";
	core_refused(c, &cmd, 6, "does not match");
	body.to = (char *)"node2";
	CORE_BODY(cmd2, undo, MOVE_ABORT, move_abort, Drover__CmdMoveAbort, drover__cmd_move_abort);
	undo.move = id;
	undo.attempt = 1;
	undo.generation = generation + 1;
	core_refused(c, &cmd2, 6, "does not match");
	undo.move = 5;
	core_refused(c, &cmd2, 4, "no attempt");
	core_done(c, &cmd);
	undo.move = id;
	undo.generation = generation;
	core_refused(c, &cmd2, 6, "is decided already");
}

/* ---------------------------------------------------------------- drains */

static void test_unmovable(void **state)
{
	struct core *c = *state;
	Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
	char *devices[1] = {(char *)"0000:01:00.0"};
	char *mask[1] = {(char *)"no_move"};
	uint64_t drain;

	core_vm_run(c, "vm2", 112, "node1", 1, 64 * MIB, 0);
	CORE_BODY(cmd, body, VM_SET, vm_set, Drover__VmSet, drover__vm_set);
	body.vm = (char *)"vm1";
	body.spec = &spec;
	body.mask = mask;
	body.n_mask = 1;
	spec.no_move = true;
	core_done(c, &cmd);
	/* What is off moves nevertheless: nothing of it is on the host. */
	body.vm = (char *)"off";
	core_done(c, &cmd);
	CORE_BODY(cmd3, add, VM_ADD, vm_add, Drover__CmdVmAdd, drover__cmd_vm_add);
	Drover__VmSpec device = DROVER__VM_SPEC__INIT;

	device.name = (char *)"vm3";
	device.uuid = core_bytes(113);
	device.memory = MIB;
	device.cpus = 1;
	device.hostdevs = devices;
	device.n_hostdevs = 1;
	add.spec = &device;
	add.node = (char *)"node1";
	core_done(c, &cmd3);
	assert_int_equal(core_vm_start(c, "vm3", "node1"), 0);

	assert_int_equal(core_drain(c, "node1"), 0);
	drain = c->last.object_id;
	assert_int_equal(core_vm(c, "vm1").move, 0);
	assert_int_equal(core_vm(c, "vm3").move, 0);
	assert_int_not_equal(core_vm(c, "vm2").move, 0);
	assert_int_not_equal(core_vm(c, "off").move, 0);
	assert_int_equal(
		core_count(c, "SELECT count(*) FROM move WHERE vm = 'vm1' AND state = 'failed' AND exit = 6"
			      " AND error LIKE '%--no-move%'"),
		1);
	assert_int_equal(
		core_count(c, "SELECT count(*) FROM move WHERE vm = 'vm3' AND state = 'failed' AND exit = 6"
			      " AND error LIKE '%--hostdev%'"),
		1);
	CORE_BODY(cmd2, to, DRAIN_STATE, drain_state, Drover__CmdDrainState, drover__cmd_drain_state);
	to.drain = drain;
	to.to = (char *)"cancelled";
	core_done(c, &cmd2);

	/* Or they are shut down, and one that is killed stays so. */
	CORE_BODY(cmd4, stop, VM_STOP, vm_stop, Drover__CmdVmStop, drover__cmd_vm_stop);
	stop.vm = (char *)"vm3";
	stop.force = true;
	core_done(c, &cmd4);
	CORE_BODY(cmd5, start, DRAIN_START, drain_start, Drover__CmdDrainStart, drover__cmd_drain_start);
	start.node = (char *)"node1";
	start.shutdown_unmovable = true;
	core_done(c, &cmd5);
	assert_int_equal(core_vm(c, "vm1").want, DROVER__VM_WANT__WANT_STOP);
	assert_string_equal(core_move(c, core_vm(c, "vm1").move).kind, "offline");
	assert_int_equal(core_vm(c, "vm3").want, DROVER__VM_WANT__WANT_KILL);
	assert_int_equal(core_vm(c, "vm2").want, DROVER__VM_WANT__WANT_NOTHING);
}

static void test_drain_states(void **state)
{
	struct core *c = *state;
	uint64_t drain;

	CORE_BODY(cmd, body, DRAIN_STATE, drain_state, Drover__CmdDrainState, drover__cmd_drain_state);
	body.drain = 5;
	body.to = (char *)"paused";
	core_refused(c, &cmd, 4, "no drain 5");
	assert_int_equal(core_drain(c, "node1"), 0);
	body.drain = drain = c->last.object_id;
	body.from = (char *)"paused";
	body.to = (char *)"failed";
	assert_int_equal(core_apply(c, &cmd), 6);
	assert_non_null(strstr(c->last.message, "is running"));
	body.from = (char *)"";
	body.to = (char *)"asleep";
	assert_int_equal(core_apply(c, &cmd), 2);
	assert_non_null(strstr(c->last.message, "unknown drain state 'asleep'"));
	body.to = (char *)"failed";
	assert_int_equal(core_apply(c, &cmd), 6);
	assert_non_null(strstr(c->last.message, "moves that have not ended"));
	body.to = (char *)"paused";
	core_done(c, &cmd);
	core_unchanged(c, &cmd);
	body.from = (char *)"paused";
	body.to = (char *)"running";
	core_done(c, &cmd);
	assert_int_equal(core_assign(c, core_vm(c, "off").move, "node2"), 0);
	CORE_BODY(cmd2, fail, MOVE_FAIL, move_fail, Drover__CmdMoveFail, drover__cmd_move_fail);
	fail.move = core_vm(c, "vm1").move;
	fail.reason = (char *)"no target";
	core_done(c, &cmd2);
	body.from = (char *)"running";
	body.to = (char *)"failed";
	body.error = (char *)"vm1: no target";
	core_done(c, &cmd);
	body.from = (char *)"";
	body.to = (char *)"cancelled";
	assert_int_equal(core_apply(c, &cmd), 6);
	assert_non_null(strstr(c->last.message, "is failed"));
	/* An emptied node is drained already; the last drain is named. */
	assert_int_equal(core_drain(c, "node3"), 0);
	drain = c->last.object_id;
	assert_int_equal(core_drain(c, "node3"), 0);
	assert_non_null(strstr(c->last.message, "is drained already"));
	assert_true(c->last.object_id == drain);
}

/* A drain takes over the moves that are under way; its cancel ends them, but not one that switches over. */
static void test_drain_takes_over(void **state)
{
	struct core *c = *state;
	uint64_t switching = core_assigned(c);
	uint64_t aborted;
	uint64_t drain;

	core_vm_run(c, "vm2", 112, "node1", 1, 64 * MIB, 0);
	assert_int_equal(core_move_create(c, "vm2", ""), 0);
	aborted = c->last.object_id;
	assert_int_equal(core_assign(c, aborted, "node3"), 0);
	assert_int_equal(core_abort(c, aborted, 1, DROVER__CMD_MOVE_ABORT__OUTCOME__RETRY), 0);
	assert_int_equal(core_drain(c, "node1"), 0);
	drain = c->last.object_id;
	assert_true(core_move(c, switching).drain == drain && core_move(c, aborted).drain == drain);
	assert_int_equal(core_move_fact_full(c, "node1", 1, switching, 1, DROVER__MOVE_ROLE__MOVE_SRC,
					     DROVER__MOVE_PHASE__SRC_COPYING, "", 1),
			 0);
	CORE_BODY(cmd2, grant, MOVE_SWITCH, move_switch, Drover__CmdMoveSwitch, drover__cmd_move_switch);
	grant.move = switching;
	grant.attempt = 1;
	grant.token = 1;
	core_done(c, &cmd2);
	assert_int_equal(core_src(c, "node1", 1, switching, 1, DROVER__MOVE_PHASE__SRC_SWITCHING), 0);
	assert_string_equal(core_move(c, switching).state, "switching");
	CORE_BODY(cmd, body, DRAIN_STATE, drain_state, Drover__CmdDrainState, drover__cmd_drain_state);
	body.drain = drain;
	body.to = (char *)"cancelled";
	core_done(c, &cmd);
	assert_string_equal(core_move(c, switching).state, "switching");
	assert_int_equal(core_attempt(c, switching, 1).decision, DROVER__MOVE_DECISION__DECISION_NONE);
	assert_string_equal(core_move(c, aborted).state, "cancelling");
	assert_int_equal(core_vm(c, "off").move, 0);
	assert_int_equal(core_src(c, "node1", 1, aborted, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	assert_string_equal(core_move(c, aborted).state, "cancelled");
}

/* ---------------------------------------------------------------- crowds */

static void add_vms(struct core *c, unsigned n, const char *node, uint8_t start, bool run)
{
	for (unsigned i = 0; i < n; i++) {
		Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
		uint8_t uuid[16] = {0};
		char name[32];

		snprintf(name, sizeof(name), "%s-%03u", node, i);
		memcpy(uuid, name, 9);
		uuid[12] = (uint8_t)i;
		spec.name = name;
		spec.uuid = (ProtobufCBinaryData){.len = 16, .data = uuid};
		spec.memory = MIB;
		spec.cpus = 1;
		CORE_BODY(cmd, body, VM_ADD, vm_add, Drover__CmdVmAdd, drover__cmd_vm_add);
		body.spec = &spec;
		body.node = (char *)(uintptr_t)node;
		core_done(c, &cmd);
		if (!run)
			continue;
		assert_int_equal(core_vm_start(c, name, node), 0);
		assert_int_equal(core_vm_fact(c, node, start, name, core_vm(c, name).generation,
					      DROVER__VM_STATE__VM_RUNNING),
				 0);
	}
}

static void move_vms(struct core *c, unsigned first, unsigned n, const char *from, const char *to)
{
	for (unsigned i = first; i < first + n; i++) {
		char name[32];

		snprintf(name, sizeof(name), "%s-%03u", from, i);
		assert_int_equal(core_move_create(c, name, ""), 0);
		assert_int_equal(core_assign(c, c->last.object_id, to), 0);
	}
}

/* More moves and VMs than one query brings: the death of a host decides all of them. */
static void test_crowd_dies(void **state)
{
	struct core *c = *state;

	set_limit(c, "max_moves", 64);
	add_vms(c, 40, "node1", 1, true);
	move_vms(c, 0, 20, "node1", "node2");
	move_vms(c, 20, 20, "node1", "node3");
	assert_int_equal(rows_slots(c->db, "node1"), 40);
	CORE_BODY(cmd, body, NODE_FENCED, node_fenced, Drover__CmdNodeFenced, drover__cmd_node_fenced);
	body.node = (char *)"node1";
	body.proof = (char *)"operator";
	core_done(c, &cmd);
	assert_int_equal(
		core_count(c, "SELECT count(*) FROM move_attempt WHERE decision = 2 AND src_gone = 1"), 40);
	assert_int_equal(rows_slots(c->db, "node1"), 0);
	assert_int_equal(rows_slots(c->db, "node2"), 20);
	assert_int_equal(core_count(c, "SELECT count(*) FROM vm WHERE state <> 1"), 0);
	assert_int_equal(c->last.n_touched, 3);
}

static void test_crowd_is_drained(void **state)
{
	struct core *c = *state;
	uint64_t drain;

	add_vms(c, 130, "node1", 1, false);
	assert_int_equal(core_drain(c, "node1"), 0);
	drain = c->last.object_id;
	assert_int_equal(db_get_u64(c->db, "SELECT count(*) FROM move WHERE drain = ?", "u", drain), 132);
	CORE_BODY(cmd, body, DRAIN_STATE, drain_state, Drover__CmdDrainState, drover__cmd_drain_state);
	body.drain = drain;
	body.to = (char *)"cancelled";
	core_done(c, &cmd);
	assert_int_equal(core_count(c, "SELECT count(*) FROM move WHERE state = 'cancelled'"), 132);
	assert_int_equal(core_count(c, "SELECT count(*) FROM vm WHERE move <> 0"), 0);
}

/* The orders of more nodes may have changed than a result can name: all of them are asked. */
static void test_crowd_of_nodes(void **state)
{
	struct core *c = *state;
	char name[16];

	set_limit(c, "max_moves", 64);
	add_vms(c, 64, "node1", 1, true);
	for (unsigned i = 0; i < 64; i++) {
		snprintf(name, sizeof(name), "host%02u", i);
		core_node(c, name, (uint8_t)(120 + i));
		move_vms(c, i, 1, "node1", name);
	}
	CORE_BODY(cmd, body, NODE_FENCED, node_fenced, Drover__CmdNodeFenced, drover__cmd_node_fenced);
	body.node = (char *)"node1";
	body.proof = (char *)"operator";
	core_done(c, &cmd);
	assert_int_equal(c->last.n_touched, APPLY_TOUCHED_MAX);
	assert_true(c->last.touched_all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_create, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_create_for_drain, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_assign, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_fail, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_cancel, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_outcomes, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_facts, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_many_events, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_switch, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_decisions_match, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_unmovable, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_drain_states, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_drain_takes_over, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_crowd_dies, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_crowd_is_drained, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_crowd_of_nodes, setup, core_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
