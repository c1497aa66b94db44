/* What of an agent's report becomes a command: only what the rows do not say yet. And what orders say. */
#include "coordinator/msg.h"
#include "coordinator/orders.h"
#include "coordinator/reports.h"
#include "tests/unit/core.h"

struct world {
	struct core core;
	Drover__AgentReport report;
	Drover__VmFact vm;
	Drover__VmFact *vms[1];
	Drover__MoveFact move;
	Drover__MoveFact *moves[1];
	Drover__Command *queue[16];
	unsigned n;
};

static void take(void *data, const Drover__Command *cmd)
{
	struct world *w = data;

	assert_true(w->n < 16);
	w->queue[w->n++] = msg_clone(cmd);
}

/* The report as that agent's; how many commands it makes. They are applied, and the report says nothing
 * again. */
static unsigned says(struct world *w, const char *node, uint8_t start)
{
	unsigned n;

	reports_commands(w->core.db, node, core_bytes(start).data, &w->report, take, w);
	n = w->n;
	for (unsigned i = 0; i < w->n; i++) {
		if (core_apply(&w->core, w->queue[i]) != 0)
			fail_msg("%s: %s", apply_command_name(w->queue[i]), w->core.last.message);
		drover__command__free_unpacked(w->queue[i], NULL);
	}
	w->n = 0;
	reports_commands(w->core.db, node, core_bytes(start).data, &w->report, take, w);
	assert_int_equal(w->n, 0);
	return n;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	core_init(&w->core);
	core_node(&w->core, "node1", 1);
	core_node(&w->core, "node2", 2);
	core_vm_run(&w->core, "vm1", 101, "node1", 1, 128 * MIB, 0);
	drover__agent_report__init(&w->report);
	drover__vm_fact__init(&w->vm);
	drover__move_fact__init(&w->move);
	w->vms[0] = &w->vm;
	w->moves[0] = &w->move;
	w->report.vms = w->vms;
	w->report.moves = w->moves;
	w->vm.name = (char *)"vm1";
	w->vm.generation = core_vm(&w->core, "vm1").generation;
	w->vm.state = DROVER__VM_STATE__VM_RUNNING;
	w->move.vm = (char *)"vm1";
	w->move.generation = w->vm.generation;
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	core_fini(&w->core);
	free(w);
	return 0;
}

/* vm1 to node2, assigned; the world's move fact is the source's. */
static uint64_t assigned(struct world *w)
{
	assert_int_equal(core_move_create(&w->core, "vm1", ""), 0);
	w->move.move = w->core.last.object_id;
	w->move.attempt = 1;
	assert_int_equal(core_assign(&w->core, w->move.move, "node2"), 0);
	return w->move.move;
}

static uint64_t count(struct world *w, const char *sql)
{
	return db_get_u64(w->core.db, sql, "");
}

static void test_vms(void **state)
{
	struct world *w = *state;
	Drover__LaunchRecord launch = DROVER__LAUNCH_RECORD__INIT;

	w->report.n_vms = 1;
	assert_int_equal(says(w, "node1", 1), 0); /* known */
	assert_int_equal(says(w, "node1", 9), 0); /* another start of its agent */
	assert_int_equal(says(w, "node9", 1), 0);
	w->vm.error = (char *)"a disk is full";
	assert_int_equal(says(w, "node1", 1), 1);
	w->vm.error = (char *)"";
	assert_int_equal(says(w, "node1", 1), 1);
	launch.machine = (char *)"pc-1";
	w->vm.launch = &launch;
	assert_int_equal(says(w, "node1", 1), 1);
	launch.machine = (char *)"pc-2"; /* kept as it was first */
	assert_int_equal(says(w, "node1", 1), 0);
	/* R12: only the owner, of its generation. */
	w->vm.state = DROVER__VM_STATE__VM_STOPPED;
	assert_int_equal(says(w, "node2", 2), 0);
	w->vm.generation--;
	assert_int_equal(says(w, "node1", 1), 0);
	w->vm.generation++;
	w->vm.name = (char *)"vm9";
	assert_int_equal(says(w, "node1", 1), 0);
	w->vm.name = (char *)"vm1";
	assert_int_equal(says(w, "node1", 1), 1);
	/* A start that is wanted, and is reached. */
	assert_int_equal(core_vm_start(&w->core, "vm1", "node1"), 0);
	assert_int_equal(says(w, "node1", 1), 0); /* the old generation's word */
	w->vm.generation++;
	w->vm.state = DROVER__VM_STATE__VM_RUNNING;
	assert_int_equal(says(w, "node1", 1), 1);
	assert_int_equal(core_vm(&w->core, "vm1").want, DROVER__VM_WANT__WANT_NOTHING);
	/* A stop that is wanted is not reached by running. */
	CORE_BODY(cmd, body, VM_STOP, vm_stop, Drover__CmdVmStop, drover__cmd_vm_stop);
	body.vm = (char *)"vm1";
	core_done(&w->core, &cmd);
	assert_int_equal(says(w, "node1", 1), 0);
	w->vm.state = DROVER__VM_STATE__VM_STOPPED;
	assert_int_equal(says(w, "node1", 1), 1);
}

/* A complete report that knows nothing of a VM, and has seen the orders since: it is not there. */
static void test_missing(void **state)
{
	struct world *w = *state;

	w->report.orders_index = w->core.index;
	assert_int_equal(says(w, "node1", 1), 0); /* not complete */
	w->report.complete = true;
	w->report.n_vms = 1;
	assert_int_equal(says(w, "node1", 1), 0); /* listed */
	w->report.n_vms = 0;
	w->report.n_moves = 1;
	assert_int_equal(says(w, "node1", 1), 0); /* in a move that it knows */
	w->move.vm = (char *)"vm9";
	w->report.orders_index = 1; /* it has not seen its last orders */
	assert_int_equal(says(w, "node1", 1), 0);
	w->report.orders_index = w->core.index;
	assert_int_equal(says(w, "node2", 2), 0);
	assert_int_equal(says(w, "node1", 1), 1);
	assert_int_equal(core_vm(&w->core, "vm1").state, DROVER__VM_STATE__VM_FAILED);
	assert_string_equal(core_vm(&w->core, "vm1").error, "its QEMU was not found on the host");
}

static void test_moves(void **state)
{
	struct world *w = *state;
	Drover__DiskProof proof = DROVER__DISK_PROOF__INIT;
	Drover__DiskProof *proofs[1] = {&proof};
	char *events[1] = {(char *)"it is slow"};
	uint64_t id = assigned(w);

	w->report.n_moves = 1;
	assert_int_equal(says(w, "node1", 1), 0); /* no phase yet */
	w->move.phase = DROVER__MOVE_PHASE__SRC_READY;
	assert_int_equal(says(w, "node2", 2), 0); /* not its side */
	w->move.attempt = 2;
	assert_int_equal(says(w, "node1", 1), 0); /* no such attempt */
	w->move.attempt = 1;
	assert_int_equal(says(w, "node1", 1), 1);
	w->move.events = events;
	w->move.n_events = 1;
	assert_int_equal(says(w, "node1", 1), 1);
	proof.path = (char *)"/a";
	w->move.proofs = proofs;
	w->move.n_proofs = 1;
	assert_int_equal(says(w, "node1", 1), 1);
	proof.path = (char *)"/b";
	assert_int_equal(says(w, "node1", 1), 1);
	w->move.phase = DROVER__MOVE_PHASE__SRC_COPYING;
	w->move.token_request = 1;
	assert_int_equal(says(w, "node1", 1), 1);
	/* A return counts for a token that is held, and for the newest grant only. */
	w->move.token_returned = true;
	reports_commands(w->core.db, "node1", core_bytes(1).data, &w->report, take, w);
	assert_int_equal(w->n, 0);
	CORE_BODY(cmd, body, MOVE_SWITCH, move_switch, Drover__CmdMoveSwitch, drover__cmd_move_switch);
	body.move = id;
	body.attempt = 1;
	body.token = 1;
	core_done(&w->core, &cmd);
	assert_int_equal(says(w, "node1", 1), 1);
	assert_int_equal(count(w, "SELECT token_returned FROM move_attempt"), 1);
	/* Its first error. */
	w->move.error = (char *)"first";
	assert_int_equal(says(w, "node1", 1), 1);
	w->move.error = (char *)"second";
	assert_int_equal(says(w, "node1", 1), 0);
	/* Gone: nothing more is heard of it. */
	assert_int_equal(core_abort(&w->core, id, 1, DROVER__CMD_MOVE_ABORT__OUTCOME__CANCEL), 0);
	w->move.phase = DROVER__MOVE_PHASE__PHASE_GONE;
	assert_int_equal(says(w, "node1", 1), 1);
	events[0] = (char *)"something new";
	assert_int_equal(says(w, "node1", 1), 0);
}

static void test_destination(void **state)
{
	struct world *w = *state;
	Drover__DiskProof proof = DROVER__DISK_PROOF__INIT;
	Drover__DiskProof *proofs[1] = {&proof};

	assigned(w);
	w->report.n_moves = 1;
	w->move.role = DROVER__MOVE_ROLE__MOVE_DST;
	w->move.phase = DROVER__MOVE_PHASE__DST_PREPARED;
	assert_int_equal(says(w, "node2", 2), 1);
	w->move.relay_port = 7000; /* it listens at last */
	assert_int_equal(says(w, "node2", 2), 1);
	w->move.relay_port = 7001; /* on another port, since it was restarted */
	assert_int_equal(says(w, "node2", 2), 1);
	assert_int_equal(core_attempt(&w->core, w->move.move, 1).relay_port, 7001);
	w->move.relay_port = 0;
	assert_int_equal(says(w, "node2", 2), 0);
	w->move.proofs = proofs; /* the source's alone count */
	w->move.n_proofs = 1;
	w->move.token_request = 5;
	assert_int_equal(says(w, "node2", 2), 0);
	w->move.error = (char *)"no room";
	assert_int_equal(says(w, "node2", 2), 1);
}

/* An aborted attempt that a complete report does not know: nothing of it is there. */
static void test_unknown_attempt(void **state)
{
	struct world *w = *state;
	uint64_t id = assigned(w);

	w->report.n_vms = 1;
	w->report.complete = true;
	w->report.orders_index = w->core.index;
	assert_int_equal(says(w, "node1", 1), 0); /* undecided: its orders will make it known */
	assert_int_equal(core_abort(&w->core, id, 1, DROVER__CMD_MOVE_ABORT__OUTCOME__CANCEL), 0);
	assert_int_equal(says(w, "node1", 1), 0); /* gathered before the abort */
	w->report.orders_index = w->core.index;
	w->report.n_moves = 1;
	assert_int_equal(says(w, "node1", 1), 0); /* listed */
	w->report.n_moves = 0;
	w->report.complete = false;
	assert_int_equal(says(w, "node1", 1), 0);
	w->report.complete = true;
	assert_int_equal(says(w, "node1", 1), 1);
	assert_true(core_attempt(&w->core, id, 1).src_gone && !core_attempt(&w->core, id, 1).dst_gone);
	assert_int_equal(says(w, "node2", 2), 1);
	assert_true(core_attempt(&w->core, id, 1).dst_gone);
	assert_string_equal(core_move(&w->core, id).state, "cancelled");
}

/* It has spoken about the attempt: it must answer for itself, whatever it has lost since. */
static void test_known_attempt(void **state)
{
	struct world *w = *state;
	uint64_t id = assigned(w);

	assert_int_equal(core_src(&w->core, "node1", 1, id, 1, DROVER__MOVE_PHASE__SRC_RELEASED), 0);
	assert_int_equal(core_abort(&w->core, id, 1, DROVER__CMD_MOVE_ABORT__OUTCOME__CANCEL), 0);
	w->report.n_vms = 1;
	w->report.complete = true;
	w->report.orders_index = w->core.index;
	assert_int_equal(says(w, "node1", 1), 0);
	assert_false(core_attempt(&w->core, id, 1).src_gone);
}

static void test_facts(void **state)
{
	struct world *w = *state;
	Drover__HostFacts *facts = rows_facts(w->core.db, "node1");

	w->report.facts = facts;
	assert_int_equal(says(w, "node1", 1), 0);
	facts->memory_free -= facts->memory_total / 16; /* it changes all the time */
	assert_int_equal(says(w, "node1", 1), 0);
	facts->memory_free -= 1;
	assert_int_equal(says(w, "node1", 1), 1);
	facts->memory_free += facts->memory_total / 8;
	assert_int_equal(says(w, "node1", 1), 1);
	facts->cpus = 64;
	assert_int_equal(says(w, "node1", 1), 1);
	w->report.facts = NULL;
	assert_int_equal(says(w, "node1", 1), 0);
	drover__host_facts__free_unpacked(facts, NULL);
}

static void test_leaving(void **state)
{
	struct world *w = *state;
	struct node_row node;

	w->report.leaving = true;
	assert_int_equal(says(w, "node1", 1), 1);
	assert_true(rows_node(w->core.db, "node1", &node) && node.leaving);
}

/* R18: in an audit the whole report is one word, said once, when it is complete. */
static void test_audit(void **state)
{
	struct world *w = *state;

	CORE_BODY(cmd, body, INCARNATION_BEGIN, incarnation_begin, Drover__CmdIncarnation,
		  drover__cmd_incarnation);
	body.incarnation = 2;
	body.why = (char *)"a test";
	body.member = 9;
	body.node = (char *)"node1";
	core_done(&w->core, &cmd);
	w->report.n_vms = 1;
	w->report.leaving = true;
	assert_int_equal(says(w, "node1", 1), 0); /* it has no session in this incarnation yet */
	core_node(&w->core, "node1", 1);
	assert_int_equal(says(w, "node1", 1), 0);
	w->report.complete = true;
	assert_int_equal(says(w, "node1", 1), 1);
	assert_int_equal(count(w, "SELECT audited FROM node WHERE name = 'node1'"), 1);
	assert_int_equal(core_vm(&w->core, "vm1").state, DROVER__VM_STATE__VM_RUNNING);
}

/* R20: what a newer agent says more is left out; the rest counts. */
static void test_newer_agent(void **state)
{
	struct world *w = *state;
	uint8_t bytes[] = {1, 2};
	ProtobufCMessageUnknownField more = {
		.tag = 999, .wire_type = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, .len = 2, .data = bytes};

	bytes[0] = 1; /* the length of what follows */
	w->vm.base.unknown_fields = &more;
	w->vm.base.n_unknown_fields = 1;
	w->vm.error = (char *)"trouble";
	w->report.n_vms = 1;
	assert_int_equal(says(w, "node1", 1), 1);
	assert_string_equal(core_vm(&w->core, "vm1").error, "trouble");
}

static void test_orders(void **state)
{
	struct world *w = *state;
	Drover__AgentOrders *orders;
	Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
	char *mask[1] = {(char *)"bandwidth"};

	CORE_BODY(cmd, limit, LIMIT_SET, limit_set, Drover__LimitSet, drover__limit_set);
	limit.network = (char *)"mig1";
	limit.bandwidth = 1000;
	limit.mask = mask;
	limit.n_mask = 1;
	core_done(&w->core, &cmd);
	limit.network = (char *)"";
	limit.bandwidth = 5000;
	core_done(&w->core, &cmd);
	assigned(w);
	orders = orders_build(w->core.db, "node1", 7, w->core.index, core_bytes(1).data);
	assert_int_equal(orders->term, 7);
	assert_int_equal(orders->bandwidth, 5000);
	assert_int_equal(orders->n_budgets, 1);
	assert_string_equal(orders->budgets[0]->network, "mig1");
	assert_int_equal(orders->budgets[0]->bandwidth, 1000);
	assert_int_equal(orders->n_moves, 1);
	assert_int_equal(orders->moves[0]->blackout_ms, 300); /* the cluster's */
	assert_int_equal(orders->moves[0]->dst_port, 0);
	assert_false(orders->moves[0]->src_ready);
	drover__agent_orders__free_unpacked(orders, NULL);

	mask[0] = (char *)"blackout_ms";
	CORE_BODY(cmd2, set, VM_SET, vm_set, Drover__VmSet, drover__vm_set);
	set.vm = (char *)"vm1";
	set.spec = &spec;
	set.mask = mask;
	set.n_mask = 1;
	spec.blackout_ms = 50;
	core_done(&w->core, &cmd2);
	orders = orders_build(w->core.db, "node2", 7, w->core.index, core_bytes(2).data);
	assert_int_equal(orders->n_vms, 0);
	assert_int_equal(orders->n_moves, 1);
	assert_int_equal(orders->moves[0]->blackout_ms, 50);
	assert_int_equal(orders->moves[0]->role, DROVER__MOVE_ROLE__MOVE_DST);
	drover__agent_orders__free_unpacked(orders, NULL);
	assert_null(orders_build(w->core.db, "node2", 7, w->core.index, core_bytes(1).data));
	assert_null(orders_build(w->core.db, "node9", 7, w->core.index, core_bytes(1).data));
	/* Nobody gets orders from a state that has failed. */
	db_begin(w->core.db);
	db_fail(w->core.db, DR_EBUG, "a test");
	assert_null(orders_build(w->core.db, "node2", 7, w->core.index, core_bytes(2).data));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_vms, setup, teardown),
		cmocka_unit_test_setup_teardown(test_missing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_moves, setup, teardown),
		cmocka_unit_test_setup_teardown(test_destination, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unknown_attempt, setup, teardown),
		cmocka_unit_test_setup_teardown(test_known_attempt, setup, teardown),
		cmocka_unit_test_setup_teardown(test_facts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_leaving, setup, teardown),
		cmocka_unit_test_setup_teardown(test_audit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_newer_agent, setup, teardown),
		cmocka_unit_test_setup_teardown(test_orders, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
