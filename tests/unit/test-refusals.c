/* What apply refuses, with which words and exit, and that a refusal leaves nothing behind. */
#include "tests/unit/core.h"

static int setup(void **state)
{
	core_setup(state);
	assert_int_equal(core_vm_add(*state, "off", 102, "node1", 64 * MIB, 0), 0);
	return 0;
}

static void leave(struct core *c, const char *node, uint8_t start)
{
	CORE_BODY(cmd, body, NODE_SESSION, node_session, Drover__CmdNodeSession, drover__cmd_node_session);
	body.node = (char *)(uintptr_t)node;
	body.start_id = core_bytes(start);
	core_done(c, &cmd);
}

/* ---------------------------------------------------------------- cluster */

static void test_init(void **state)
{
	struct core *c = *state;
	struct core raw = {0};
	struct dr_error err = DR_ERROR_INIT;

	CORE_BODY(cmd, body, INIT, init, Drover__CmdInit, drover__cmd_init);
	body.name = (char *)"again";
	body.uuid = core_bytes(201);
	core_refused(c, &cmd, 6, "initialised already");

	assert_int_equal(db_open(":memory:", &raw.db, &err), 0);
	CORE_BODY(other, trim, TRIM, trim, Drover__CmdTrim, drover__cmd_trim);
	assert_int_equal(core_apply(&raw, &other), 6);
	core_refused(&raw, &other, 6, "not initialised");
	body.name = (char *)"no/name";
	core_refused(&raw, &cmd, 2, "needs a name");
	body.name = (char *)"good";
	body.uuid.len = 3;
	core_refused(&raw, &cmd, 2, "and a UUID");
	body.uuid.len = 16;
	core_done(&raw, &cmd);
	core_fini(&raw);
}

static void test_words(void **state)
{
	struct core *c = *state;

	CORE_BODY(cmd, body, SETTING, setting, Drover__CmdSetting, drover__cmd_setting);
	body.key = (char *)"mode";
	body.value = (char *)"tcp";
	core_done(c, &cmd);
	assert_true(c->last.touched_all);
	body.value = (char *)"auto";
	core_done(c, &cmd);
	assert_true(db_exists(c->db, "SELECT 1 FROM setting WHERE key = 'mode' AND value = 'auto'", ""));

	CORE_BODY(cmd2, event, EVENT, event, Drover__CmdEvent, drover__cmd_event);
	event.kind = (char *)"test";
	event.node = (char *)"node2";
	event.text = (char *)"100 % of it";
	assert_int_equal(core_apply(c, &cmd2), 0);
	assert_int_equal(c->last.events, 1);
	assert_true(
		db_exists(c->db, "SELECT 1 FROM event WHERE node = 'node2' AND text = '100 % of it'", ""));
}

static void test_tokens(void **state)
{
	struct core *c = *state;

	CORE_BODY(cmd, body, TOKEN, token, Drover__CmdToken, drover__cmd_token);
	body.hash = core_bytes(50);
	core_done(c, &cmd);
	body.used = true;
	body.member = 5;
	core_done(c, &cmd);
	core_done(c, &cmd); /* asked again, as the answer was lost */
	body.member = 6;
	core_refused(c, &cmd, 8, "used already");
	body.hash = core_bytes(51);
	core_refused(c, &cmd, 8, "unknown");
}

/* What is over on both hosts goes; the rest stays, however old. */
static void test_trim(void **state)
{
	struct core *c = *state;
	uint64_t open = core_assigned(c);
	uint64_t offline;
	uint64_t before;

	assert_int_equal(core_move_create(c, "off", "node3"), 0);
	offline = c->last.object_id;
	assert_int_equal(core_assign(c, offline, "node3"), 0);
	assert_int_equal(core_drain(c, "node3"), 0);
	before = core_count(c, "SELECT count(*) FROM event");
	CORE_BODY(cmd, body, TRIM, trim, Drover__CmdTrim, drover__cmd_trim);
	assert_int_equal(core_apply(c, &cmd), 0);
	assert_int_equal(core_count(c, "SELECT count(*) FROM event"), before);
	body.moves_before_index = c->index + 1;
	assert_int_equal(core_apply(c, &cmd), 0);
	assert_int_equal(core_count(c, "SELECT count(*) FROM drain"), 1); /* it goes on */
	assert_true(db_exists(c->db, "SELECT 1 FROM move WHERE id = ?", "u", open));
	assert_false(db_exists(c->db, "SELECT 1 FROM move WHERE id = ?", "u", offline));
	/* Ended, but the destination has not said that its part is gone (R21). */
	assert_int_equal(core_abort(c, open, 1, DROVER__CMD_MOVE_ABORT__OUTCOME__CANCEL), 0);
	assert_int_equal(core_src(c, "node1", 1, open, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	assert_string_equal(core_move(c, open).state, "cancelled");
	body.moves_before_index = c->index + 1;
	assert_int_equal(core_apply(c, &cmd), 0);
	assert_int_equal(rows_slots(c->db, "node2"), 1);
	assert_int_equal(core_dst(c, "node2", 2, open, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	assert_int_equal(core_apply(c, &cmd), 0);
	assert_int_equal(core_count(c, "SELECT count(*) FROM move WHERE drain = 0"), 0);
	assert_int_equal(core_count(c, "SELECT count(*) FROM move_attempt"), 0);
}

/* An index can't be applied twice, nor what has fields that this program does not know (R20). */
static void test_log_entries(void **state)
{
	struct core *c = *state;
	struct dr_error err = DR_ERROR_INIT;
	uint8_t before[DB_DIGEST_SIZE];
	uint8_t after[DB_DIGEST_SIZE];
	ProtobufCMessageUnknownField unknown = {.tag = 999};

	CORE_BODY(cmd, body, VM_REMOVE, vm_remove, Drover__CmdVmRemove, drover__cmd_vm_remove);
	body.vm = (char *)"off";
	cmd.version = APPLY_VERSION;
	db_digest(c->db, before);
	cmd.base.n_unknown_fields = 1;
	cmd.base.unknown_fields = &unknown;
	assert_int_equal(apply_command(c->db, c->index + 1, &cmd, &c->last, &err), -DR_EBUG);
	assert_non_null(strstr(err.text, "newer version"));
	cmd.base.n_unknown_fields = 0;
	dr_error_clear(&err);
	assert_int_equal(apply_command(c->db, c->index, &cmd, &c->last, &err), -DR_EBUG);
	assert_non_null(strstr(err.text, "applied twice"));
	db_digest(c->db, after);
	assert_memory_equal(before, after, DB_DIGEST_SIZE);
	assert_string_equal(apply_command_name(&cmd), "vm_remove");
	cmd.body_case = DROVER__COMMAND__BODY__NOT_SET;
	assert_string_equal(apply_command_name(&cmd), "?");
	cmd.body_case = (Drover__Command__BodyCase)4711;
	assert_string_equal(apply_command_name(&cmd), "?");
}

/* ---------------------------------------------------------------- nodes */

static void test_sessions(void **state)
{
	struct core *c = *state;

	CORE_BODY(cmd, body, NODE_SESSION, node_session, Drover__CmdNodeSession, drover__cmd_node_session);
	body.node = (char *)"node9";
	core_refused(c, &cmd, 4, "no node 'node9'");
	body.coordinator = (char *)"node1";
	body.boot_id = core_bytes(9);
	core_refused(c, &cmd, 2, "16 bytes");
	body.boot_id.len = 4;
	body.start_id = core_bytes(9);
	core_refused(c, &cmd, 2, "16 bytes");
	body.boot_id.len = 16;
	body.node = (char *)"no node";
	core_refused(c, &cmd, 2, "can't be a node's name");

	CORE_BODY(cmd2, facts, NODE_FACTS, node_facts, Drover__CmdNodeFacts, drover__cmd_node_facts);
	Drover__HostFacts host = DROVER__HOST_FACTS__INIT;

	facts.node = (char *)"node1";
	core_refused(c, &cmd2, 2, "no facts");
	facts.facts = &host;
	facts.node = (char *)"";
	core_refused(c, &cmd2, 2, "can't be a node's name");

	/* The end of a session that is not the present one changes nothing. */
	CORE_BODY(cmd3, lost, NODE_SESSION, node_session, Drover__CmdNodeSession, drover__cmd_node_session);
	lost.node = (char *)"node1";
	lost.start_id = core_bytes(2);
	core_unchanged(c, &cmd3);
	lost.start_id = core_bytes(1);
	lost.was = (char *)"node3";
	core_unchanged(c, &cmd3);
	lost.was = (char *)"node1";
	core_done(c, &cmd3);
	core_unchanged(c, &cmd3);
}

static void test_leaving(void **state)
{
	struct core *c = *state;

	CORE_BODY(cmd, body, NODE_LEAVING, node_leaving, Drover__CmdNodeLeaving, drover__cmd_node_leaving);
	body.node = (char *)"node9";
	body.start_id = core_bytes(2);
	core_refused(c, &cmd, 4, "no node");
	body.node = (char *)"node1";
	core_refused(c, &cmd, 6, "not the present agent");
	body.start_id = core_bytes(1);
	core_done(c, &cmd);
	core_unchanged(c, &cmd);
	assert_int_equal(core_vm(c, "vm1").state, DROVER__VM_STATE__VM_RUNNING); /* R10 */
	leave(c, "node1", 1);
	core_refused(c, &cmd, 6, "not the present agent");
	assert_int_equal(core_vm(c, "vm1").state, DROVER__VM_STATE__VM_RUNNING);
}

static void test_health(void **state)
{
	struct core *c = *state;
	struct node_row node;

	CORE_BODY(cmd, body, NODE_HEALTH, node_health, Drover__CmdNodeHealth, drover__cmd_node_health);
	body.node = (char *)"node1";
	body.health = (char *)"fine";
	core_refused(c, &cmd, 2, "unknown health 'fine'");
	body.health = (char *)"isolated";
	body.node = (char *)"node9";
	core_refused(c, &cmd, 4, "no node");
	body.node = (char *)"node1";
	body.why = (char *)"cut off";
	core_done(c, &cmd);
	core_unchanged(c, &cmd);
	assert_true(rows_node(c->db, "node1", &node));
	assert_string_equal(node.health, "isolated");
	body.health = (char *)"up";
	core_done(c, &cmd);
}

static void member(struct core *c, uint64_t id, const char *node)
{
	CORE_BODY(cmd, body, MEMBER, member, Drover__CmdMember, drover__cmd_member);
	body.member = id;
	body.node = (char *)(uintptr_t)node;
	core_done(c, &cmd);
}

static void test_node_remove(void **state)
{
	struct core *c = *state;
	uint64_t id = core_assigned(c);

	member(c, 3, "node3");
	member(c, 4, "witness");
	CORE_BODY(cmd, body, NODE_REMOVE, node_remove, Drover__NodeVerb, drover__node_verb);
	body.node = (char *)"node9";
	core_refused(c, &cmd, 4, "no node 'node9'");
	body.node = (char *)"node1";
	core_refused(c, &cmd, 6, "owns VMs: drain it first");
	body.node = (char *)"node2";
	core_refused(c, &cmd, 6, "is connected: stop it first");
	leave(c, "node2", 2);
	core_refused(c, &cmd, 6, "still takes part in a move");
	assert_int_equal(core_abort(c, id, 1, DROVER__CMD_MOVE_ABORT__OUTCOME__CANCEL), 0);
	core_refused(c, &cmd, 6, "still takes part in a move"); /* R21: its part may be there yet */

	body.node = (char *)"witness"; /* a coordinator without an agent */
	core_done(c, &cmd);
	core_refused(c, &cmd, 4, "no node");
	assert_int_equal(core_count(c, "SELECT count(*) FROM member WHERE removed = 1"), 1);

	leave(c, "node3", 3);
	assert_int_equal(core_vm_add(c, "last", 103, "node3", 1 * MIB, 0), 0);
	assert_int_equal(core_drain(c, "node3"), 0);
	assert_int_equal(core_assign(c, core_vm(c, "last").move, "node1"), 0);
	body.node = (char *)"node3";
	core_done(c, &cmd);
	assert_int_equal(core_count(c, "SELECT count(*) FROM node WHERE name = 'node3'"), 0);
	assert_int_equal(core_count(c, "SELECT count(*) FROM node_address WHERE node = 'node3'"), 0);
	assert_int_equal(core_count(c, "SELECT count(*) FROM member WHERE node = 'node3' AND removed = 1"),
			 1);
	assert_int_equal(core_count(c, "SELECT count(*) FROM drain WHERE state = 'cancelled'"), 1);
	core_refused(c, &cmd, 4, "no node");
	/* The node may come again, above all that its agent remembers. */
	core_node(c, "node3", 33);
	assert_true(db_exists(c->db, "SELECT 1 FROM node WHERE name = 'node3' AND incarnation >= ?", "u",
			      c->index - 1));
}

static void test_fencing(void **state)
{
	struct core *c = *state;
	struct node_row node;

	CORE_BODY(cmd, body, NODE_FENCING, node_fencing, Drover__CmdNodeFencing, drover__cmd_node_fencing);
	body.node = (char *)"node1";
	body.on = true;
	body.boot_id = core_bytes(77);
	core_refused(c, &cmd, 6, "booted meanwhile");
	body.boot_id = core_bytes(1);
	core_done(c, &cmd);
	body.on = false; /* whoever began it */
	core_done(c, &cmd);
	assert_non_null(strstr(c->last.message, "is not fenced"));
	core_unchanged(c, &cmd);

	CORE_BODY(cmd2, fenced, NODE_FENCED, node_fenced, Drover__CmdNodeFenced, drover__cmd_node_fenced);
	fenced.node = (char *)"node9";
	core_refused(c, &cmd2, 4, "no node");
	fenced.node = (char *)"node1";
	fenced.proof = (char *)"operator";
	fenced.boot_id = core_bytes(77);
	core_refused(c, &cmd2, 6, "nothing was fenced");
	assert_int_equal(core_vm(c, "vm1").state, DROVER__VM_STATE__VM_RUNNING);
	fenced.boot_id = core_bytes(1);
	core_done(c, &cmd2);
	assert_int_equal(core_vm(c, "vm1").state, DROVER__VM_STATE__VM_STOPPED);
	core_unchanged(c, &cmd2); /* once a boot */
	assert_true(rows_node(c->db, "node1", &node));
	assert_string_equal(node.health, "down");

	CORE_BODY(cmd3, set, NODE_SET, node_set, Drover__NodeSet, drover__node_set);
	set.node = (char *)"node9";
	set.fence_agent = (char *)"fence_x";
	core_refused(c, &cmd3, 4, "no node");
}

static void admin(struct core *c, const char *node, bool paused, const char *failback)
{
	CORE_BODY(cmd, body, NODE_ADMIN, node_admin, Drover__CmdNodeAdmin, drover__cmd_node_admin);
	body.node = (char *)(uintptr_t)node;
	body.paused = paused;
	body.failback = (char *)(uintptr_t)failback;
	assert_int_equal(core_apply(c, &cmd), 0);
}

/* Resuming a node ends its drain, and on demand brings home what that drain took away. */
static void test_failback(void **state)
{
	struct core *c = *state;

	admin(c, "node1", false, "immediate"); /* no drain to go back on */
	assert_false(c->last.changed);
	assert_int_equal(core_drain(c, "node1"), 0);
	assert_int_equal(core_assign(c, core_vm(c, "off").move, "node2"), 0);
	assert_string_equal(core_vm(c, "off").owner, "node2");
	admin(c, "node1", false, "immediate");
	assert_int_equal(core_vm(c, "vm1").move, 0);
	assert_int_equal(core_count(c, "SELECT count(*) FROM drain WHERE state = 'cancelled'"), 1);
	assert_string_equal(core_move(c, core_vm(c, "off").move).want_to, "node1");
	admin(c, "node1", true, "");
	assert_true(c->last.changed);
	admin(c, "node1", true, "");
	assert_false(c->last.changed);
}

/* ---------------------------------------------------------------- VMs */

static void test_vm_add(void **state)
{
	struct core *c = *state;
	Drover__VmSpec spec = DROVER__VM_SPEC__INIT;

	CORE_BODY(cmd, body, VM_ADD, vm_add, Drover__CmdVmAdd, drover__cmd_vm_add);
	body.node = (char *)"node1";
	core_refused(c, &cmd, 2, "UUID of 16 bytes");
	body.spec = &spec;
	spec.memory = MIB;
	spec.cpus = 1;
	spec.name = (char *)"no name";
	spec.uuid = core_bytes(105);
	core_refused(c, &cmd, 2, "no name");
	spec.name = (char *)"vm2";
	spec.uuid.len = 5;
	core_refused(c, &cmd, 2, "UUID of 16 bytes");
	spec.uuid = core_bytes(101);
	core_refused(c, &cmd, 6, "has that UUID");
	spec.uuid = core_bytes(105);
	body.node = (char *)"node9";
	core_refused(c, &cmd, 4, "no node");
	body.node = (char *)"node1";
	spec.name = (char *)"vm1";
	core_refused(c, &cmd, 6, "exists already");
	spec.name = (char *)"vm2";
	core_done(c, &cmd);
}

static void test_vm_set(void **state)
{
	struct core *c = *state;
	Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
	Drover__LaunchRecord launch = DROVER__LAUNCH_RECORD__INIT;
	Drover__VmFact fact = DROVER__VM_FACT__INIT;
	char *mask[1] = {(char *)"priority"};
	uint64_t generation = core_vm(c, "vm1").generation;

	CORE_BODY(cmd, body, VM_SET, vm_set, Drover__VmSet, drover__vm_set);
	body.mask = mask;
	body.n_mask = 1;
	body.vm = (char *)"vm9";
	core_refused(c, &cmd, 4, "no VM");
	body.vm = (char *)"vm1";
	core_refused(c, &cmd, 2, "nothing to set");
	body.spec = &spec;
	spec.priority = 2000;
	core_done(c, &cmd);
	assert_int_equal(core_vm(c, "vm1").priority, 2000);
	core_unchanged(c, &cmd);
	mask[0] = (char *)"colour";
	core_refused(c, &cmd, 2, "colour");
	mask[0] = (char *)"cpus";
	spec.cpus = 0;
	core_refused(c, &cmd, 2, "");
	spec.cpus = 2;
	core_refused(c, &cmd, 6, "runs: stop it first");

	/* What it was launched with is resolved anew after the hardware has changed. */
	CORE_BODY(cmd2, word, VM_FACT, vm_fact, Drover__CmdVmFact, drover__cmd_vm_fact);
	word.node = (char *)"node1";
	word.start_id = core_bytes(1);
	word.fact = &fact;
	fact.name = (char *)"vm1";
	fact.generation = generation;
	fact.state = DROVER__VM_STATE__VM_RUNNING;
	fact.launch = &launch;
	launch.machine = (char *)"pc-1";
	core_done(c, &cmd2);
	launch.machine = (char *)"pc-2";
	core_unchanged(c, &cmd2); /* kept as it was first */
	fact.state = DROVER__VM_STATE__VM_STOPPED;
	core_done(c, &cmd2);
	assert_int_equal(core_count(c, "SELECT length(launch) > 0 FROM vm WHERE name = 'vm1'"), 1);
	core_done(c, &cmd);
	assert_int_equal(core_count(c, "SELECT length(launch) FROM vm WHERE name = 'vm1'"), 0);
	/* An offline move that waits: its definition is not to change under it. */
	assert_int_equal(core_move_create(c, "vm1", ""), 0);
	spec.cpus = 3;
	core_refused(c, &cmd, 6, "runs: stop it first");
}

static void test_vm_remove(void **state)
{
	struct core *c = *state;
	uint64_t id = core_assigned(c);
	uint64_t generation = core_vm(c, "vm1").generation;

	CORE_BODY(cmd, body, VM_REMOVE, vm_remove, Drover__CmdVmRemove, drover__cmd_vm_remove);
	body.vm = (char *)"vm9";
	core_refused(c, &cmd, 4, "no VM");
	body.vm = (char *)"vm1";
	core_refused(c, &cmd, 6, "is not stopped");
	assert_int_equal(core_vm_fact(c, "node1", 1, "vm1", generation, DROVER__VM_STATE__VM_STOPPED), 0);
	core_refused(c, &cmd, 6, "takes part in a move");
	assert_int_equal(core_abort(c, id, 1, DROVER__CMD_MOVE_ABORT__OUTCOME__FAIL), 0);
	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	assert_int_equal(core_vm(c, "vm1").move, 0);
	core_refused(c, &cmd, 6, "takes part in a move"); /* the destination may have some of it yet */
	assert_int_equal(core_dst(c, "node2", 2, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	core_done(c, &cmd);
	core_refused(c, &cmd, 4, "no VM");
	/* A name that comes again begins above its old generations (R6). */
	assert_int_equal(core_vm_add(c, "vm1", 101, "node1", MIB, 0), 0);
	assert_true(core_vm(c, "vm1").generation > generation);
}

static void test_vm_start(void **state)
{
	struct core *c = *state;
	struct vm_row vm = core_vm(c, "off");

	CORE_BODY(cmd, body, VM_START, vm_start, Drover__CmdVmStart, drover__cmd_vm_start);
	body.vm = (char *)"vm9";
	core_refused(c, &cmd, 4, "no VM");
	body.vm = (char *)"off";
	body.node = (char *)"node1";
	body.owner = (char *)"node2";
	body.generation = vm.generation;
	core_refused(c, &cmd, 1, "changed meanwhile");
	body.owner = (char *)"node1";
	body.generation = vm.generation + 1;
	core_refused(c, &cmd, 1, "changed meanwhile");
	body.generation = vm.generation;
	body.node = (char *)"node9";
	core_refused(c, &cmd, 4, "no node");
	admin(c, "node1", true, "");
	body.node = (char *)"node1";
	core_refused(c, &cmd, 6, "can't be started there");
	admin(c, "node1", false, "");
	leave(c, "node1", 1);
	core_refused(c, &cmd, 6, "(agent lost)");
	core_node(c, "node1", 1);
	assert_int_equal(core_move_create(c, "off", ""), 0);
	core_refused(c, &cmd, 6, "takes part in a move");
	assert_int_equal(core_assign(c, core_vm(c, "off").move, "node2"), 0);
	core_refused(c, &cmd, 1, "changed meanwhile");
	body.generation = core_vm(c, "off").generation;
	body.owner = (char *)"node2";
	core_done(c, &cmd);
	core_unchanged(c, &cmd); /* it starts */
}

/* A VM that was aborted away may start where its source is; not where the destination's part may still be. */
static void test_start_beside_remains(void **state)
{
	struct core *c = *state;
	uint64_t id = core_assigned(c);

	assert_int_equal(core_abort(c, id, 1, DROVER__CMD_MOVE_ABORT__OUTCOME__FAIL), 0);
	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	assert_int_equal(
		core_vm_fact(c, "node1", 1, "vm1", core_vm(c, "vm1").generation, DROVER__VM_STATE__VM_FAILED),
		0);
	assert_int_equal(core_vm_start(c, "vm1", "node2"), 6);
	assert_non_null(strstr(c->last.message, "takes part in a move"));
	assert_int_equal(core_vm_start(c, "vm1", "node3"), 0);
}

static void test_vm_stop(void **state)
{
	struct core *c = *state;
	uint64_t id;

	CORE_BODY(cmd, body, VM_STOP, vm_stop, Drover__CmdVmStop, drover__cmd_vm_stop);
	body.vm = (char *)"vm9";
	core_refused(c, &cmd, 4, "no VM");
	body.vm = (char *)"off";
	core_unchanged(c, &cmd);
	id = core_assigned(c);
	body.vm = (char *)"vm1";
	core_refused(c, &cmd, 6, "is being moved");
	assert_int_equal(core_abort(c, id, 1, DROVER__CMD_MOVE_ABORT__OUTCOME__REQUEUE), 0);
	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	assert_string_equal(core_move(c, id).state, "queued");
	core_done(c, &cmd);
	core_unchanged(c, &cmd);
	assert_int_equal(core_assign(c, id, "node3"), 6); /* not while it is being stopped */
	assert_non_null(strstr(c->last.message, "is being stopped"));
	body.force = true;
	core_done(c, &cmd);
	assert_int_equal(core_assign(c, id, "node3"), 6);
	assert_non_null(strstr(c->last.message, "is being stopped"));
}

static void test_vm_facts(void **state)
{
	struct core *c = *state;
	Drover__VmFact fact = DROVER__VM_FACT__INIT;

	CORE_BODY(cmd, body, VM_FACT, vm_fact, Drover__CmdVmFact, drover__cmd_vm_fact);
	body.node = (char *)"node1";
	body.start_id = core_bytes(1);
	core_unchanged(c, &cmd); /* an empty one */
	body.fact = &fact;
	fact.name = (char *)"vm9";
	core_refused(c, &cmd, 4, "no VM");
	body.node = (char *)"node9";
	core_refused(c, &cmd, 4, "no node");
	body.node = (char *)"node1";
	fact.name = (char *)"vm1";
	fact.generation = core_vm(c, "vm1").generation;
	fact.state = (Drover__VmState)7;
	core_refused(c, &cmd, 2, "unknown state 7");
	fact.state = (Drover__VmState)-1;
	core_refused(c, &cmd, 2, "unknown state");
	/* It runs, with trouble: once an event. */
	fact.state = DROVER__VM_STATE__VM_RUNNING;
	fact.error = (char *)"a disk is full";
	core_done(c, &cmd);
	assert_int_equal(c->last.events, 1);
	assert_string_equal(core_vm(c, "vm1").error, "a disk is full");
	core_unchanged(c, &cmd);
	fact.error = (char *)"";
	core_done(c, &cmd);
	assert_int_equal(c->last.events, 0);
	fact.state = DROVER__VM_STATE__VM_SAVED;
	core_done(c, &cmd);
	fact.state = DROVER__VM_STATE__VM_FAILED;
	fact.error = (char *)"it died";
	core_done(c, &cmd);
	fact.state = DROVER__VM_STATE__VM_STATE_UNKNOWN;
	core_done(c, &cmd);
	assert_int_equal(
		core_count(c, "SELECT count(*) FROM event WHERE text LIKE '%had been reported stopped%'"), 1);
	fact.state = DROVER__VM_STATE__VM_STARTING;
	core_done(c, &cmd);
	fact.state = DROVER__VM_STATE__VM_PAUSED;
	core_done(c, &cmd);
	/* Nobody's word while the agent has no session. */
	leave(c, "node1", 1);
	core_refused(c, &cmd, 6, "not the word of the present agent");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_init, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_words, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_tokens, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_trim, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_log_entries, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_sessions, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_leaving, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_health, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_node_remove, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_fencing, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_failback, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_vm_add, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_vm_set, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_vm_remove, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_vm_start, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_start_beside_remains, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_vm_stop, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_vm_facts, setup, core_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
