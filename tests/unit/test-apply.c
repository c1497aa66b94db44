/* Every rule of SAFETY that apply keeps, kept and refused. */
#include "coordinator/orders.h"
#include "tests/unit/core.h"

/* A move of vm1 to node2 with both agents at the given phases. */
static uint64_t moving(struct core *c, Drover__MovePhase src, Drover__MovePhase dst)
{
	uint64_t id;

	assert_int_equal(core_move_create(c, "vm1", ""), 0);
	id = c->last.object_id;
	assert_int_equal(core_assign(c, id, "node2"), 0);
	assert_int_equal(core_src(c, "node1", 1, id, 1, src), 0);
	assert_int_equal(core_dst(c, "node2", 2, id, 1, dst), 0);
	return id;
}

static void test_whole_move(void **state)
{
	struct core *c = *state;
	uint64_t id = moving(c, DROVER__MOVE_PHASE__SRC_COPYING, DROVER__MOVE_PHASE__DST_LOADING);
	uint64_t generation = core_vm(c, "vm1").generation;

	assert_string_equal(core_move(c, id).state, "copying");
	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__SRC_RELEASED), 0);
	assert_int_equal(core_dst(c, "node2", 2, id, 1, DROVER__MOVE_PHASE__DST_COMPLETED), 0);
	assert_int_equal(core_commit(c, id, 1), 0);
	assert_string_equal(core_move(c, id).state, "committed");
	assert_string_equal(core_vm(c, "vm1").owner, "node2");
	assert_true(core_vm(c, "vm1").generation == generation + 1);
	/* Decided once: neither again nor the other way. */
	assert_int_equal(core_commit(c, id, 1), 6);
	assert_int_equal(core_abort(c, id, 1, DROVER__CMD_MOVE_ABORT__OUTCOME__RETRY), 6);
	assert_int_equal(core_dst(c, "node2", 2, id, 1, DROVER__MOVE_PHASE__DST_RUNNING), 0);
	assert_true(core_vm(c, "vm1").move == 0);
	assert_int_equal(core_dst(c, "node2", 2, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	assert_string_equal(core_move(c, id).state, "committed");
	/* R21: freed by both hosts' reports; the records never show more at once than was allowed. */
	assert_int_equal(rows_slots(c->db, "node1"), 1);
	assert_int_equal(rows_slots(c->db, "node2"), 1);
	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	assert_string_equal(core_move(c, id).state, "done");
	assert_int_equal(rows_slots(c->db, "node1"), 0);
	assert_int_equal(rows_slots(c->db, "node2"), 0);
}

/* R1 */
static void test_two_words(void **state)
{
	struct core *c = *state;
	uint64_t id = moving(c, DROVER__MOVE_PHASE__SRC_COMPLETING, DROVER__MOVE_PHASE__DST_COMPLETED);

	assert_int_equal(core_commit(c, id, 1), 6); /* destination alone: the accident of two copies */
	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__SRC_ABORTING), 0);
	assert_int_equal(core_commit(c, id, 1), 6); /* a phase behind the word is not the word */
	assert_string_equal(core_vm(c, "vm1").owner, "node1");
}

static void test_word_then_only_decisions(void **state)
{
	struct core *c = *state;
	uint64_t id = moving(c, DROVER__MOVE_PHASE__SRC_RELEASED, DROVER__MOVE_PHASE__DST_LOADING);

	assert_int_equal(core_commit(c, id, 1), 6);
	/* R3, R4: after its word the source waits for the decision. */
	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__SRC_ABORTING), 6);
	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 6);
	assert_int_equal(core_dst(c, "node2", 2, id, 1, DROVER__MOVE_PHASE__DST_CONTINUING), 6);
	assert_int_equal(core_abort(c, id, 1, DROVER__CMD_MOVE_ABORT__OUTCOME__RETRY), 0);
	assert_int_equal(core_dst(c, "node2", 2, id, 1, DROVER__MOVE_PHASE__DST_COMPLETED), 0);
	assert_int_equal(core_commit(c, id, 1), 6); /* aborted: its late words change nothing */
	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__SRC_ABORTING), 0);
	assert_string_equal(core_move(c, id).state, "cancelling");
	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	assert_string_equal(core_move(c, id).state, "queued");
	/* R21: what is left at node2 holds its slot, and the VM can't come there again before it is gone. */
	assert_int_equal(rows_slots(c->db, "node2"), 1);
	assert_int_equal(core_assign(c, id, "node2"), 6);
	assert_int_equal(core_assign(c, id, "node3"), 0);
	/* R5: attempt 1's words and commit mean nothing to attempt 2. */
	assert_int_equal(core_commit(c, id, 1), 6);
	assert_int_equal(core_src(c, "node1", 1, id, 2, DROVER__MOVE_PHASE__SRC_RELEASED), 0);
	assert_int_equal(core_dst(c, "node2", 2, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	assert_string_equal(core_move(c, id).state, "copying");
	assert_int_equal(core_commit(c, id, 2), 6);
	assert_int_equal(core_dst(c, "node3", 3, id, 2, DROVER__MOVE_PHASE__DST_COMPLETED), 0);
	assert_int_equal(core_commit(c, id, 2), 0);
	assert_string_equal(core_vm(c, "vm1").owner, "node3");
}

static void test_phases_forward_only(void **state)
{
	struct core *c = *state;
	uint64_t id = moving(c, DROVER__MOVE_PHASE__SRC_COPYING, DROVER__MOVE_PHASE__DST_PREPARED);

	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__SRC_READY), 6);
	assert_int_equal(core_src(c, "node1", 9, id, 1, DROVER__MOVE_PHASE__SRC_SWITCHING),
			 6); /* other start */
	assert_int_equal(core_src(c, "node2", 2, id, 1, DROVER__MOVE_PHASE__SRC_SWITCHING),
			 6);								      /* other host */
	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__DST_LOADING), 2); /* other side */
}

/* R9, R11: fencing decides open moves; a new boot id does the same. */
static void fence(struct core *c, const char *node)
{
	CORE_BODY(cmd, body, NODE_FENCED, node_fenced, Drover__CmdNodeFenced, drover__cmd_node_fenced);
	body.node = (char *)(uintptr_t)node;
	body.proof = (char *)"operator";
	assert_int_equal(core_apply(c, &cmd), 0);
}

static void test_fence_source_with_words(void **state)
{
	struct core *c = *state;
	uint64_t id = moving(c, DROVER__MOVE_PHASE__SRC_RELEASED, DROVER__MOVE_PHASE__DST_COMPLETED);

	fence(c, "node1");
	assert_string_equal(core_vm(c, "vm1").owner, "node2");
	assert_int_equal(core_vm(c, "vm1").state, DROVER__VM_STATE__VM_RUNNING);
	assert_string_equal(core_move(c, id).state, "committed");
	assert_true(core_attempt(c, id, 1).src_gone);
	assert_int_equal(core_commit(c, id, 1), 6);
}

static void test_fence_source_without_words(void **state)
{
	struct core *c = *state;
	uint64_t id = moving(c, DROVER__MOVE_PHASE__SRC_COMPLETING, DROVER__MOVE_PHASE__DST_COMPLETED);
	struct node_row before;
	struct node_row node;

	assert_true(rows_node(c->db, "node1", &before));
	fence(c, "node1");
	assert_string_equal(core_vm(c, "vm1").owner, "node1");
	assert_int_equal(core_vm(c, "vm1").state, DROVER__VM_STATE__VM_STOPPED);
	assert_int_equal(core_attempt(c, id, 1).decision, DROVER__MOVE_DECISION__DECISION_ABORT);
	assert_true(rows_node(c->db, "node1", &node) && node.incarnation > before.incarnation &&
		    !node.session);
	/* The fenced boot may not come back; another one may. */
	CORE_BODY(cmd, body, NODE_SESSION, node_session, Drover__CmdNodeSession, drover__cmd_node_session);
	body.node = (char *)"node1";
	body.boot_id = core_bytes(1);
	body.start_id = core_bytes(11);
	body.coordinator = (char *)"node1";
	assert_int_equal(core_apply(c, &cmd), 6);
	body.boot_id = core_bytes(12);
	assert_int_equal(core_apply(c, &cmd), 0);
}

static void test_fence_destination(void **state)
{
	struct core *c = *state;
	uint64_t id = moving(c, DROVER__MOVE_PHASE__SRC_RELEASED, DROVER__MOVE_PHASE__DST_COMPLETED);

	fence(c, "node2"); /* the source holds the whole VM: it goes on there */
	assert_string_equal(core_vm(c, "vm1").owner, "node1");
	assert_int_equal(core_vm(c, "vm1").state, DROVER__VM_STATE__VM_RUNNING);
	assert_int_equal(core_attempt(c, id, 1).decision, DROVER__MOVE_DECISION__DECISION_ABORT);
	assert_string_equal(core_move(c, id).state, "cancelling");
}

static void fencing(struct core *c, const char *node, bool on, uint64_t began, uint32_t exit)
{
	CORE_BODY(cmd, body, NODE_FENCING, node_fencing, Drover__CmdNodeFencing, drover__cmd_node_fencing);
	body.node = (char *)(uintptr_t)node;
	body.on = on;
	body.agent = (char *)"fence_x";
	body.began = began;
	body.reason = (char *)"it failed";
	assert_int_equal(core_apply(c, &cmd), exit);
}

static bool has_orders(struct core *c, const char *node, uint8_t start)
{
	Drover__AgentOrders *orders = orders_build(c->db, node, 1, c->index, core_bytes(start).data);
	bool has = orders != NULL;

	if (has)
		drover__agent_orders__free_unpacked(orders, NULL);
	return has;
}

/* R11: from the announcement to the decision the host gets no order and no new work. */
static void test_fencing(void **state)
{
	struct core *c = *state;
	struct node_row node;
	uint64_t began;

	core_vm_add(c, "vm9", 109, "node1", 64 * MIB, 0);
	fencing(c, "node9", true, 0, 4);
	assert_true(has_orders(c, "node1", 1));
	fencing(c, "node1", true, 0, 0);
	began = c->index;
	assert_true(rows_node(c->db, "node1", &node));
	assert_int_equal(node.fencing, began);
	assert_true(rows_node_barred(&node));
	assert_false(rows_node_works(&node));
	assert_false(has_orders(c, "node1", 1));
	assert_true(has_orders(c, "node2", 2));
	assert_int_equal(core_vm_start(c, "vm9", "node1"), 6);

	/* Another announcement's end is not this one's. */
	fencing(c, "node1", false, began - 1, 0);
	assert_false(c->last.changed);
	assert_false(has_orders(c, "node1", 1));
	fencing(c, "node1", false, began, 0);
	assert_true(c->last.changed);
	assert_int_equal(c->last.n_touched, 1);
	assert_true(has_orders(c, "node1", 1));
	assert_int_equal(core_vm_start(c, "vm9", "node1"), 0);

	fencing(c, "node1", true, 0, 0);
	fence(c, "node1");
	assert_true(rows_node(c->db, "node1", &node));
	assert_int_equal(node.fencing, 0);
	assert_true(rows_node_barred(&node)); /* this boot of it */
	assert_int_equal(core_vm(c, "vm9").state, DROVER__VM_STATE__VM_STOPPED);
}

static uint32_t node_set(struct core *c, const char *agent, const char *key)
{
	Drover__FenceOption o = DROVER__FENCE_OPTION__INIT;
	Drover__FenceOption *list[1] = {&o};

	CORE_BODY(cmd, body, NODE_SET, node_set, Drover__NodeSet, drover__node_set);
	body.node = (char *)"node1";
	body.fence_agent = (char *)(uintptr_t)agent;
	o.key = (char *)(uintptr_t)key;
	o.value = (char *)"hunter2";
	body.fence_options = list;
	body.n_fence_options = key != NULL ? 1 : 0;
	return core_apply(c, &cmd);
}

static void test_node_set(void **state)
{
	struct core *c = *state;
	char *spec;

	assert_int_equal(node_set(c, "fence_x", "password"), 0);
	spec = rows_fence_spec(c->db, "node1");
	assert_string_equal(spec, "fence_x\npassword=hunter2\n");
	free(spec);
	/* What may be a password stands in no event. */
	assert_int_equal(db_get_u64(c->db, "SELECT count(*) FROM event WHERE text LIKE '%hunter2%'", ""), 0);
	assert_int_equal(node_set(c, "fence_x/y", NULL), 2);
	assert_int_equal(node_set(c, "fence_x", "action"), 2);
	assert_int_equal(node_set(c, "none", NULL), 0);
	assert_null(rows_fence_spec(c->db, "node1"));
}

static void session_lost(struct core *c, const char *node, uint8_t start)
{
	CORE_BODY(cmd, body, NODE_SESSION, node_session, Drover__CmdNodeSession, drover__cmd_node_session);
	body.node = (char *)(uintptr_t)node;
	body.start_id = core_bytes(start);
	assert_int_equal(core_apply(c, &cmd), 0);
}

static void test_new_boot(void **state)
{
	struct core *c = *state;

	CORE_BODY(cmd, body, NODE_SESSION, node_session, Drover__CmdNodeSession, drover__cmd_node_session);
	body.node = (char *)"node1";
	body.boot_id = core_bytes(1);
	body.start_id = core_bytes(21);
	body.coordinator = (char *)"node2";
	/* A second agent of that name: a cloned host would prove the death of a living one (R9). */
	assert_int_equal(core_apply(c, &cmd), 6);
	body.boot_id = core_bytes(22);
	assert_int_equal(core_apply(c, &cmd), 6);
	assert_int_equal(core_vm(c, "vm1").state, DROVER__VM_STATE__VM_RUNNING);
	session_lost(c, "node1", 1);
	body.boot_id = core_bytes(1);
	assert_int_equal(core_apply(c, &cmd), 0); /* the agent was restarted: its VMs run on */
	assert_int_equal(core_vm(c, "vm1").state, DROVER__VM_STATE__VM_RUNNING);
	/* The word of the session before does not count any more (R12). */
	assert_int_equal(core_vm_fact(c, "node1", 1, "vm1", core_vm(c, "vm1").generation,
				      DROVER__VM_STATE__VM_STOPPED),
			 6);
	session_lost(c, "node1", 21);
	body.boot_id = core_bytes(22);
	assert_int_equal(core_apply(c, &cmd), 0);
	assert_int_equal(core_vm(c, "vm1").state, DROVER__VM_STATE__VM_STOPPED);
}

static uint32_t vm_stop(struct core *c, const char *vm, bool force)
{
	CORE_BODY(cmd, body, VM_STOP, vm_stop, Drover__CmdVmStop, drover__cmd_vm_stop);
	body.vm = (char *)(uintptr_t)vm;
	body.force = force;
	return core_apply(c, &cmd);
}

/* A start takes back a stop that the guest has not obeyed; the VM goes on as the same generation. */
static void test_stop_taken_back(void **state)
{
	struct core *c = *state;
	uint64_t generation = core_vm(c, "vm1").generation;

	assert_int_equal(vm_stop(c, "vm1", false), 0);
	assert_int_equal(core_vm(c, "vm1").want, DROVER__VM_WANT__WANT_STOP);
	assert_int_equal(core_vm_start(c, "vm1", "node2"), 6);
	assert_int_equal(core_vm_start(c, "vm1", "node1"), 0);
	assert_true(c->last.changed);
	assert_int_equal(core_vm(c, "vm1").want, DROVER__VM_WANT__WANT_NOTHING);
	assert_true(core_vm(c, "vm1").generation == generation);
	assert_int_equal(vm_stop(c, "vm1", true), 0);
	assert_int_equal(core_vm_start(c, "vm1", "node1"), 6); /* a kill can't be taken back */
	assert_int_equal(core_vm_fact(c, "node1", 1, "vm1", generation, DROVER__VM_STATE__VM_STOPPED), 0);
	assert_int_equal(core_vm_start(c, "vm1", "node1"), 0);
	assert_true(core_vm(c, "vm1").generation == generation + 1);
}

/* R12 */
static void test_right_to_run(void **state)
{
	struct core *c = *state;
	uint64_t generation = core_vm(c, "vm1").generation;

	assert_int_equal(core_vm_start(c, "vm1", "node2"), 0); /* runs already: nothing changes */
	assert_false(c->last.changed);
	assert_string_equal(core_vm(c, "vm1").owner, "node1");
	assert_int_equal(core_vm_fact(c, "node2", 2, "vm1", generation, DROVER__VM_STATE__VM_STOPPED), 6);
	assert_int_equal(core_vm_fact(c, "node1", 1, "vm1", generation - 1, DROVER__VM_STATE__VM_STOPPED), 6);
	assert_int_equal(core_vm_fact(c, "node1", 1, "vm1", generation, DROVER__VM_STATE__VM_STATE_UNKNOWN),
			 0);
	assert_int_equal(core_vm_start(c, "vm1", "node2"), 6); /* unknown is not stopped */
	assert_int_equal(core_vm_fact(c, "node1", 1, "vm1", generation, DROVER__VM_STATE__VM_STOPPED), 0);
	assert_int_equal(core_vm_start(c, "vm1", "node2"), 0);
	assert_true(core_vm(c, "vm1").generation == generation + 1);
	assert_string_equal(core_vm(c, "vm1").owner, "node2");
	/* A late word about the old generation. */
	assert_int_equal(core_vm_fact(c, "node1", 1, "vm1", generation, DROVER__VM_STATE__VM_RUNNING), 6);
}

static void set_limit(struct core *c, const char *node, const char *key, uint32_t value)
{
	char *mask[1] = {(char *)(uintptr_t)key};

	CORE_BODY(cmd, body, LIMIT_SET, limit_set, Drover__LimitSet, drover__limit_set);
	body.node = (char *)(uintptr_t)node;
	body.max_moves = value;
	body.cluster_moves = value;
	body.mask = mask;
	body.n_mask = 1;
	assert_int_equal(core_apply(c, &cmd), 0);
}

/* I4 */
static void test_limits(void **state)
{
	struct core *c = *state;
	uint64_t id[4];
	char name[8];

	for (uint8_t i = 2; i < 5; i++) {
		snprintf(name, sizeof(name), "vm%d", i);
		core_vm_run(c, name, (uint8_t)(100 + i), i == 4 ? "node2" : "node1", i == 4 ? 2 : 1, 64 * MIB,
			    0);
	}
	for (int i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "vm%c", '1' + i);
		assert_int_equal(core_move_create(c, name, ""), 0);
		id[i] = c->last.object_id;
	}
	assert_int_equal(core_assign(c, id[0], "node3"), 0);
	assert_int_equal(core_assign(c, id[1], "node2"), 0);
	assert_int_equal(core_assign(c, id[2], "node2"), 6); /* two go out of node1 already */
	assert_int_equal(core_assign(c, id[3], "node1"), 6); /* and incoming counts like outgoing */
	assert_int_equal(core_assign(c, id[3], "node3"), 0);
	assert_int_equal(rows_slots(c->db, "node3"), 2);
	set_limit(c, "node1", "max_moves", 4);
	assert_int_equal(core_assign(c, id[2], "node3"), 6);
	set_limit(c, "", "max_moves", 4);
	set_limit(c, "", "cluster_moves", 3);
	assert_int_equal(core_assign(c, id[2], "node3"), 6);
	set_limit(c, "", "cluster_moves", 4);
	assert_int_equal(core_assign(c, id[2], "node3"), 0);
}

static void test_memory(void **state)
{
	struct core *c = *state;
	uint64_t id;

	core_vm_run(c, "big", 110, "node2", 2, 950 * MIB, 0);
	assert_int_equal(core_move_create(c, "vm1", ""), 0);
	id = c->last.object_id;
	assert_int_equal(core_assign(c, id, "node2"), 6);
	assert_int_equal(core_assign(c, id, "node3"), 0);
	assert_int_equal(core_vm_add(c, "huge", 111, "node1", 2048 * MIB, 0), 0);
	assert_int_equal(core_vm_start(c, "huge", "node1"), 6);
}

static void test_token(void **state)
{
	struct core *c = *state;
	uint64_t a;
	uint64_t b;

	core_vm_run(c, "vm2", 102, "node1", 1, 64 * MIB, 0);
	a = moving(c, DROVER__MOVE_PHASE__SRC_COPYING, DROVER__MOVE_PHASE__DST_LOADING);
	assert_int_equal(core_move_create(c, "vm2", ""), 0);
	b = c->last.object_id;
	assert_int_equal(core_assign(c, b, "node3"), 0);
	assert_int_equal(core_src(c, "node1", 1, b, 1, DROVER__MOVE_PHASE__SRC_COPYING), 0);
	CORE_BODY(cmd, body, MOVE_SWITCH, move_switch, Drover__CmdMoveSwitch, drover__cmd_move_switch);
	body.move = a;
	body.attempt = 1;
	body.token = 1;
	assert_int_equal(core_apply(c, &cmd), 6); /* not asked for */
	for (int i = 0; i < 2; i++)
		assert_int_equal(core_move_fact_full(c, "node1", 1, i == 0 ? a : b, 1,
						     DROVER__MOVE_ROLE__MOVE_SRC,
						     DROVER__MOVE_PHASE__SRC_COPYING, "", 1),
				 0);
	assert_int_equal(core_apply(c, &cmd), 0);
	assert_string_equal(core_move(c, a).state, "copying"); /* held, and not used yet */
	assert_int_equal(core_src(c, "node1", 1, a, 1, DROVER__MOVE_PHASE__SRC_SWITCHING), 0);
	assert_string_equal(core_move(c, a).state, "switching");
	body.move = b;
	assert_int_equal(core_apply(c, &cmd), 6); /* one holder per link */
	body.move = a;
	body.token = 0;
	assert_int_equal(core_apply(c, &cmd), 0);
	assert_string_equal(core_move(c, a).state, "copying");
	body.move = b;
	body.token = 1;
	assert_int_equal(core_apply(c, &cmd), 0);
	body.move = a;
	assert_int_equal(core_apply(c, &cmd), 6); /* granted once */
}

static void test_offline(void **state)
{
	struct core *c = *state;
	uint64_t id;

	assert_int_equal(core_vm_add(c, "off", 120, "node1", 64 * MIB, 0), 0);
	assert_int_equal(core_move_create(c, "off", "node2"), 0);
	id = c->last.object_id;
	assert_int_equal(core_assign(c, id, "node3"), 6); /* another one was asked for */
	assert_int_equal(core_assign(c, id, "node2"), 0);
	assert_string_equal(core_move(c, id).state, "done");
	assert_string_equal(core_vm(c, "off").owner, "node2");
	assert_true(core_vm(c, "off").move == 0);
	assert_true(core_vm(c, "off").state == DROVER__VM_STATE__VM_STOPPED);
	/* Its failure is still to be seen. */
	core_vm_run(c, "bad", 121, "node1", 1, 64 * MIB, 0);
	assert_int_equal(
		core_vm_fact(c, "node1", 1, "bad", core_vm(c, "bad").generation, DROVER__VM_STATE__VM_FAILED),
		0);
	assert_int_equal(core_move_create(c, "bad", "node2"), 0);
	assert_int_equal(core_assign(c, c->last.object_id, "node2"), 0);
	assert_string_equal(core_vm(c, "bad").owner, "node2");
	assert_true(core_vm(c, "bad").state == DROVER__VM_STATE__VM_FAILED);
}

static void test_drain(void **state)
{
	struct core *c = *state;
	struct drain_row drain;
	struct node_row node;
	uint64_t id;

	assert_int_equal(core_vm_add(c, "off", 120, "node1", 64 * MIB, 0), 0);
	assert_int_equal(core_drain(c, "node1"), 0);
	id = c->last.object_id;
	assert_true(c->last.changed);
	assert_true(rows_node(c->db, "node1", &node) && node.paused);
	assert_string_equal(rows_node_state(c->db, &node), "draining");
	assert_true(db_get_u64(c->db, "SELECT count(*) FROM move WHERE drain = ?", "u", id) == 2);
	assert_int_equal(core_drain(c, "node1"), 0); /* goes on already */
	assert_false(c->last.changed);
	assert_true(c->last.object_id == id);
	CORE_BODY(cmd, body, DRAIN_STATE, drain_state, Drover__CmdDrainState, drover__cmd_drain_state);
	body.drain = id;
	body.from = (char *)"running";
	body.to = (char *)"done";
	assert_int_equal(core_apply(c, &cmd), 6); /* its moves have not ended */
	/* A node that is emptied is no target. */
	core_vm_run(c, "vm9", 109, "node2", 2, 64 * MIB, 0);
	assert_int_equal(core_move_create(c, "vm9", ""), 0);
	assert_int_equal(core_assign(c, c->last.object_id, "node1"), 6);
	body.to = (char *)"cancelled";
	assert_int_equal(core_apply(c, &cmd), 0);
	assert_true(rows_node(c->db, "node1", &node) && !node.paused);
	assert_true(rows_drain(c->db, id, &drain));
	assert_string_equal(drain.state, "cancelled");
	assert_true(core_vm(c, "vm1").move == 0);
}

static void test_drained_already(void **state)
{
	struct core *c = *state;

	assert_int_equal(core_drain(c, "node3"), 0);
	assert_true(c->last.changed);
	assert_int_equal(core_drain(c, "node3"), 0);
	assert_false(c->last.changed);
	assert_int_equal(core_drain(c, "node9"), 4);
}

static void test_cancel(void **state)
{
	struct core *c = *state;
	uint64_t id = moving(c, DROVER__MOVE_PHASE__SRC_COPYING, DROVER__MOVE_PHASE__DST_LOADING);

	CORE_BODY(cmd, body, MOVE_CANCEL, move_cancel, Drover__CmdMoveCancel, drover__cmd_move_cancel);
	body.move = id;
	assert_int_equal(core_apply(c, &cmd), 0);
	assert_string_equal(core_move(c, id).state, "cancelling");
	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	assert_string_equal(core_move(c, id).state, "cancelled");
	assert_int_equal(core_apply(c, &cmd), 0);
	assert_false(c->last.changed);
}

static void test_dedupe(void **state)
{
	struct core *c = *state;
	uint64_t id;

	CORE_BODY(cmd, body, MOVE_CREATE, move_create, Drover__CmdMoveCreate, drover__cmd_move_create);
	cmd.request_id = core_bytes(77);
	cmd.who = (char *)"uid 0";
	cmd.what = (char *)"vm move vm1";
	body.vm = (char *)"vm1";
	assert_int_equal(core_apply(c, &cmd), 0);
	id = c->last.object_id;
	assert_int_equal(core_apply(c, &cmd), 0);
	assert_true(c->last.repeated);
	assert_true(c->last.object_id == id);
	assert_true(db_get_u64(c->db, "SELECT count(*) FROM move", "") == 1);
	assert_true(db_get_u64(c->db, "SELECT count(*) FROM history", "") == 1);
	/* A refusal is a result, too. */
	cmd.request_id = core_bytes(78);
	assert_int_equal(core_apply(c, &cmd), 6);
	assert_int_equal(core_apply(c, &cmd), 6);
	assert_true(c->last.repeated);
}

static void test_old_leader(void **state)
{
	struct core *c = *state;

	CORE_BODY(cmd, body, MOVE_CREATE, move_create, Drover__CmdMoveCreate, drover__cmd_move_create);
	body.vm = (char *)"vm1";
	cmd.term = 7;
	cmd.incarnation = 2;
	assert_int_equal(core_apply(c, &cmd), 6); /* R18 */
	cmd.incarnation = 1;
	assert_int_equal(core_apply(c, &cmd), 0);
	cmd.term = 6;
	assert_int_equal(core_apply(c, &cmd), 1); /* R13 */
}

/* R20 */
static void test_unknown_command(void **state)
{
	struct core *c = *state;
	struct dr_error err = DR_ERROR_INIT;
	Drover__Command cmd = DROVER__COMMAND__INIT;
	uint8_t before[DB_DIGEST_SIZE];
	uint8_t after[DB_DIGEST_SIZE];

	db_digest(c->db, before);
	cmd.version = APPLY_VERSION;
	assert_int_equal(apply_command(c->db, c->index + 1, &cmd, &c->last, &err), -DR_EBUG);
	cmd.version = APPLY_VERSION + 1;
	assert_int_equal(apply_command(c->db, c->index + 1, &cmd, &c->last, NULL), -DR_EBUG);
	db_digest(c->db, after);
	assert_memory_equal(before, after, DB_DIGEST_SIZE);
}

static void test_networks(void **state)
{
	struct core *c = *state;

	assert_true(db_get_u64(c->db, "SELECT count(*) FROM network", "") == 2);
	assert_true(db_exists(c->db,
			      "SELECT 1 FROM network WHERE name = 'mig1' AND subnet = '10.77.1.0/24'"
			      " AND rank = 100",
			      ""));
	Drover__NetworkRank rank = DROVER__NETWORK_RANK__INIT;
	Drover__NetworkRank *ranks[1] = {&rank};

	CORE_BODY(cmd, body, NETWORK_ORDER, network_order, Drover__NetworkOrder, drover__network_order);
	rank.network = (char *)"mig2";
	rank.rank = 1;
	body.n_ranks = 1;
	body.ranks = ranks;
	assert_int_equal(core_apply(c, &cmd), 0);
	assert_true(c->last.changed);
	core_node(c, "node3", 3); /* the operator's order wins over discovery */
	assert_true(db_exists(c->db, "SELECT 1 FROM network WHERE name = 'mig2' AND rank = 1", ""));
	rank.network = (char *)"nope";
	assert_int_equal(core_apply(c, &cmd), 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_whole_move, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_two_words, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_word_then_only_decisions, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_phases_forward_only, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_fencing, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_node_set, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_fence_source_with_words, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_fence_source_without_words, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_fence_destination, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_new_boot, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_right_to_run, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_stop_taken_back, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_limits, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_memory, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_token, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_offline, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_drain, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_drained_already, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_cancel, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_dedupe, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_old_leader, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_unknown_command, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_networks, core_setup, core_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
