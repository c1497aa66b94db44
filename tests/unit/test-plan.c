/* Where a VM may go: each reason against a node, what waits, which of several is best, and over which
 * networks. */
#include "coordinator/plan.h"
#include "tests/unit/core.h"

static void sql(struct core *c, const char *text)
{
	db_begin(c->db);
	db_exec(c->db, text, "");
	assert_int_equal(db_commit(c->db), 0);
}

/* What the operator says about a VM. */
static void vm_set(struct core *c, const char *vm, Drover__VmSpec *spec, const char *key)
{
	char *mask[1] = {(char *)(uintptr_t)key};

	CORE_BODY(cmd, body, VM_SET, vm_set, Drover__VmSet, drover__vm_set);
	body.vm = (char *)(uintptr_t)vm;
	body.spec = spec;
	body.mask = mask;
	body.n_mask = 1;
	core_done(c, &cmd);
}

static void launched(struct core *c, const char *machine, const char *accel, uint32_t qemu_major)
{
	Drover__LaunchRecord launch = DROVER__LAUNCH_RECORD__INIT;
	Drover__VmFact fact = DROVER__VM_FACT__INIT;

	CORE_BODY(cmd, body, VM_FACT, vm_fact, Drover__CmdVmFact, drover__cmd_vm_fact);
	sql(c, "UPDATE vm SET launch = x''");
	body.node = (char *)"node1";
	body.start_id = core_bytes(1);
	body.fact = &fact;
	fact.name = (char *)"vm1";
	fact.generation = core_vm(c, "vm1").generation;
	fact.state = DROVER__VM_STATE__VM_RUNNING;
	fact.launch = &launch;
	launch.machine = (char *)(uintptr_t)machine;
	launch.accel = (char *)(uintptr_t)accel;
	launch.qemu_major = qemu_major;
	core_done(c, &cmd);
}

static void set_limit(struct core *c, Drover__LimitSet *set, const char *key)
{
	char *mask[1] = {(char *)(uintptr_t)key};

	CORE_BODY(cmd, body, LIMIT_SET, limit_set, Drover__LimitSet, drover__limit_set);
	body = *set;
	body.mask = mask;
	body.n_mask = 1;
	core_done(c, &cmd);
}

struct asked {
	int ret;
	struct plan_choice choice;
};

static struct asked ask(struct core *c, const char *want_to, const char *network, bool offline)
{
	struct vm_row vm = core_vm(c, "vm1");
	struct plan_input in = {.db = c->db,
				.vm = &vm,
				.move = vm.move,
				.want_to = want_to,
				.network = network,
				.mode = "",
				.offline = offline};
	struct asked a;

	a.ret = plan_choose(&in, &a.choice);
	return a;
}

static void goes_to(struct core *c, const char *node)
{
	struct asked a = ask(c, "", "", false);

	if (a.ret != 0)
		fail_msg("no target: %s", a.choice.why);
	assert_string_equal(a.choice.to, node);
	assert_true(a.choice.paths->n_paths > 0);
	plan_choice_fini(&a.choice);
}

/* To node2, and it is refused for that reason; whether it is worth a wait. */
static void not_to_node2(struct core *c, const char *why, bool waits)
{
	struct asked a = ask(c, "node2", "", false);

	assert_int_equal(a.ret, -DR_EREFUSED);
	if (strstr(a.choice.why, why) == NULL)
		fail_msg("'%s' says nothing of '%s'", a.choice.why, why);
	assert_int_equal(a.choice.waits, waits);
	plan_choice_fini(&a.choice);
	goes_to(c, "node3");
}

/* ---------------------------------------------------------------- reasons */

static void test_states(void **state)
{
	struct core *c = *state;

	goes_to(c, "node2"); /* the first by name among equals */
	sql(c, "UPDATE node SET quarantined = 1 WHERE name = 'node2'");
	not_to_node2(c, "it is in quarantine", false);
	sql(c, "UPDATE node SET quarantined = 0, paused = 1 WHERE name = 'node2'");
	not_to_node2(c, "it is drained", false);
	sql(c, "UPDATE node SET paused = 0, health = 'isolated' WHERE name = 'node2'");
	not_to_node2(c, "it is isolated", true);
	sql(c, "UPDATE node SET health = 'up'");
	{
		CORE_BODY(cmd, body, NODE_FENCING, node_fencing, Drover__CmdNodeFencing,
			  drover__cmd_node_fencing);
		body.node = (char *)"node2";
		body.on = true;
		core_done(c, &cmd);
		not_to_node2(c, "it is being fenced", true);
		body.on = false;
		core_done(c, &cmd);
	}
	{
		CORE_BODY(cmd, body, NODE_LEAVING, node_leaving, Drover__CmdNodeLeaving,
			  drover__cmd_node_leaving);
		body.node = (char *)"node2";
		body.start_id = core_bytes(2);
		core_done(c, &cmd);
		not_to_node2(c, "its agent is not connected", true);
	}
	{
		CORE_BODY(cmd, body, NODE_SESSION, node_session, Drover__CmdNodeSession,
			  drover__cmd_node_session);
		body.node = (char *)"node2";
		body.start_id = core_bytes(2);
		core_done(c, &cmd);
		not_to_node2(c, "its agent is not connected", true);
	}
}

static void test_policy(void **state)
{
	struct core *c = *state;
	Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
	char *owners[2] = {(char *)"node1", (char *)"node3"};

	spec.possible_owners = owners;
	spec.n_possible_owners = 2;
	vm_set(c, "vm1", &spec, "possible_owners");
	not_to_node2(c, "it is not a possible owner", false);
}

static void test_machine(void **state)
{
	struct core *c = *state;

	launched(c, "pc-i440fx-7.2", "kvm", 7);
	goes_to(c, "node2");
	launched(c, "pc-i440fx-9.9", "kvm", 7);
	{
		struct asked a = ask(c, "node2", "", false);

		assert_int_equal(a.ret, -DR_EREFUSED);
		assert_non_null(strstr(a.choice.why, "its QEMU 7.2.0 has no machine type pc-i440fx-9.9"));
		plan_choice_fini(&a.choice);
		/* A move of what is off asks for no machine. */
		a = ask(c, "node2", "", true);
		assert_int_equal(a.ret, 0);
		assert_null(a.choice.paths);
		plan_choice_fini(&a.choice);
	}
	launched(c, "", "kvm", 7); /* an old record says none */
	goes_to(c, "node2");
	launched(c, "pc-i440fx-7.2", "kvm", 7);
	{
		Drover__HostFacts facts = DROVER__HOST_FACTS__INIT;
		Drover__HostAddress address = DROVER__HOST_ADDRESS__INIT;
		Drover__HostAddress *list[1] = {&address};

		CORE_BODY(cmd, body, NODE_FACTS, node_facts, Drover__CmdNodeFacts, drover__cmd_node_facts);
		body.node = (char *)"node2";
		body.facts = &facts;
		facts.memory_total = 1ull << 30;
		facts.addresses = list;
		facts.n_addresses = 1;
		address.interface = (char *)"mig1";
		address.address = (char *)"10.77.1.2";
		address.prefix = 24;
		address.up = true;
		core_done(c, &cmd);
		not_to_node2(c, "it has no KVM", false);
		facts.kvm = true; /* and says nothing of machine types */
		core_done(c, &cmd);
		goes_to(c, "node2");
	}
	sql(c, "UPDATE node SET facts = x'' WHERE name = 'node2'");
	not_to_node2(c, "nothing is known about it yet", true);
}

static void test_memory(void **state)
{
	struct core *c = *state;
	Drover__HostFacts facts = DROVER__HOST_FACTS__INIT;

	core_vm_run(c, "big", 110, "node2", 2, 900 * MIB, 0);
	not_to_node2(c, "it has 124 MiB left and 128 MiB are needed", false);
	core_vm_run(c, "big3", 111, "node3", 3, 900 * MIB, 0);
	{
		struct asked a = ask(c, "", "", false);

		assert_int_equal(a.ret, -DR_EREFUSED); /* and both say why */
		assert_non_null(strstr(a.choice.why, "node2: it has 124 MiB left"));
		assert_non_null(strstr(a.choice.why, ", node3: it has 124 MiB left"));
		plan_choice_fini(&a.choice);
	}
	sql(c, "UPDATE vm SET state = 1, memory = 1048576 WHERE name LIKE 'big%'");
	/* Its kernel knows of others that use memory. */
	CORE_BODY(cmd, body, NODE_FACTS, node_facts, Drover__CmdNodeFacts, drover__cmd_node_facts);
	body.node = (char *)"node2";
	body.facts = &facts;
	facts.memory_total = 1ull << 30;
	facts.memory_free = 100 * MIB;
	core_done(c, &cmd);
	not_to_node2(c, "its kernel has 100 MiB free and 128 MiB are needed", false);
}

/* What is on its way takes the kernel's memory as well, applied or not. */
static void test_memory_under_way(void **state)
{
	struct core *c = *state;
	struct vm_row vm = core_vm(c, "vm1");
	struct plan_pending pending[2] = {{.from = "node1", .to = "node2", .memory = 950 * MIB},
					  {.from = "node1", .to = "node3", .memory = MIB}};
	struct plan_input in = {.db = c->db,
				.vm = &vm,
				.want_to = "",
				.network = "",
				.mode = "tcp",
				.pending = pending,
				.n_pending = 1};
	struct plan_choice choice;

	assert_int_equal(plan_choose(&in, &choice), 0);
	assert_string_equal(choice.to, "node3");
	assert_string_equal(choice.mode, "tcp"); /* as it was asked for */
	plan_choice_fini(&choice);
	in.n_pending = 2; /* two go out of node1: its slots are taken */
	assert_int_equal(plan_choose(&in, &choice), -DR_EAGAIN);
	plan_choice_fini(&choice);
	in.any_slot = true; /* a plan for later */
	assert_int_equal(plan_choose(&in, &choice), 0);
	plan_choice_fini(&choice);
	in.any_slot = false;
	in.n_pending = 1;
	{
		Drover__LimitSet set = DROVER__LIMIT_SET__INIT;

		set.cluster_moves = 1;
		set_limit(c, &set, "cluster_moves");
		assert_int_equal(plan_choose(&in, &choice), -DR_EAGAIN);
		plan_choice_fini(&choice);
		set.cluster_moves = 2;
		set_limit(c, &set, "cluster_moves");
		assert_int_equal(plan_choose(&in, &choice), 0);
		plan_choice_fini(&choice);
	}
}

/* What earlier attempts found out: a refusal is for good, a failure puts the node behind the others. */
static void test_history(void **state)
{
	struct core *c = *state;
	uint64_t id;

	assert_int_equal(core_move_create(c, "vm1", ""), 0);
	id = c->last.object_id;
	assert_int_equal(core_assign(c, id, "node2"), 0);
	assert_int_equal(core_move_fact_full(c, "node2", 2, id, 1, DROVER__MOVE_ROLE__MOVE_DST,
					     DROVER__MOVE_PHASE__DST_ASSIGNED, "it broke", 0),
			 0);
	assert_int_equal(core_abort(c, id, 1, DROVER__CMD_MOVE_ABORT__OUTCOME__RETRY), 0);
	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	not_to_node2(c, "an earlier attempt is not cleaned up there yet", true);
	assert_int_equal(core_dst(c, "node2", 2, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	goes_to(c, "node3");
	{
		struct asked a = ask(c, "node2", "", false);

		assert_int_equal(a.ret, 0); /* it may */
		plan_choice_fini(&a.choice);
	}
	sql(c, "UPDATE move_attempt SET error_exit = 6");
	not_to_node2(c, "it refused: it broke", false);
}

static void test_no_path(void **state)
{
	struct core *c = *state;
	struct asked a;

	sql(c, "UPDATE node_address SET up = 0 WHERE node = 'node2'");
	not_to_node2(c, "no network that is up and not excluded joins the two", true);
	sql(c, "UPDATE node_address SET up = 1");
	sql(c, "UPDATE network SET excluded = 1");
	a = ask(c, "node2", "", false);
	assert_int_equal(a.ret, -DR_EREFUSED);
	plan_choice_fini(&a.choice);
	a = ask(c, "node2", "mig1", false); /* asked for by name */
	assert_int_equal(a.ret, 0);
	assert_int_equal(a.choice.paths->n_paths, 1);
	plan_choice_fini(&a.choice);
	a = ask(c, "node2", "mig9", false);
	assert_int_equal(a.ret, -DR_EREFUSED);
	assert_non_null(strstr(a.choice.why, "it is not reachable on network mig9"));
	plan_choice_fini(&a.choice);
	a = ask(c, "node9", "", false);
	assert_int_equal(a.ret, -DR_EREFUSED);
	assert_non_null(strstr(a.choice.why, "there is no other node"));
	plan_choice_fini(&a.choice);
}

/* ---------------------------------------------------------------- which is best */

static void test_best(void **state)
{
	struct core *c = *state;
	Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
	char *classes[2] = {(char *)"db", (char *)"web"};
	char *preferred[2] = {(char *)"node3", (char *)"node2"};

	core_vm_run(c, "vm2", 102, "node2", 2, 64 * MIB, 0);
	goes_to(c, "node3"); /* more memory left */
	core_vm_run(c, "vm3", 103, "node3", 3, 200 * MIB, 0);
	goes_to(c, "node2");
	spec.preferred_owners = preferred;
	spec.n_preferred_owners = 2;
	vm_set(c, "vm1", &spec, "preferred_owners");
	goes_to(c, "node3"); /* preferred first, in their order */
	spec.anti_affinity = classes;
	spec.n_anti_affinity = 2;
	vm_set(c, "vm1", &spec, "anti_affinity");
	goes_to(c, "node3"); /* nobody shares a class */
	spec.anti_affinity = classes + 1;
	spec.n_anti_affinity = 1;
	vm_set(c, "vm3", &spec, "anti_affinity");
	goes_to(c, "node2"); /* apart from one of its class, before all else */
	vm_set(c, "vm2", &spec, "anti_affinity");
	goes_to(c, "node3");
	/* One that is on its way counts, too. */
	assert_int_equal(core_vm_add(c, "vm4", 104, "node1", MIB, 0), 0);
	vm_set(c, "vm4", &spec, "anti_affinity");
	assert_int_equal(core_vm_start(c, "vm4", "node1"), 0);
	assert_int_equal(core_vm_fact(c, "node1", 1, "vm4", core_vm(c, "vm4").generation,
				      DROVER__VM_STATE__VM_RUNNING),
			 0);
	assert_int_equal(core_move_create(c, "vm4", "node3"), 0);
	assert_int_equal(core_assign(c, c->last.object_id, "node3"), 0);
	goes_to(c, "node2");
}

/* What is off needs no memory, no network, no slot, nor that an attempt's remains are gone. */
static void test_offline(void **state)
{
	struct core *c = *state;
	Drover__LimitSet set = DROVER__LIMIT_SET__INIT;
	struct asked a;
	uint64_t id;

	assert_int_equal(core_move_create(c, "vm1", ""), 0);
	id = c->last.object_id;
	assert_int_equal(core_assign(c, id, "node2"), 0);
	assert_int_equal(core_abort(c, id, 1, DROVER__CMD_MOVE_ABORT__OUTCOME__RETRY), 0);
	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	sql(c, "UPDATE network SET excluded = 1");
	set.max_moves = 1;
	set_limit(c, &set, "max_moves");
	core_vm_run(c, "big", 110, "node2", 2, 890 * MIB, 0);
	a = ask(c, "node2", "", false);
	assert_int_equal(a.ret, -DR_EREFUSED);
	plan_choice_fini(&a.choice);
	a = ask(c, "node2", "", true);
	assert_int_equal(a.ret, 0);
	assert_null(a.choice.paths);
	assert_string_equal(a.choice.mode, "auto");
	plan_choice_fini(&a.choice);
	set.mode = (char *)"tcp";
	set_limit(c, &set, "mode");
	a = ask(c, "node2", "", true);
	assert_string_equal(a.choice.mode, "tcp");
	plan_choice_fini(&a.choice);
	a = ask(c, "", "", true);
	assert_string_equal(a.choice.to, "node3"); /* where more memory is left */
	plan_choice_fini(&a.choice);
}

static void test_prediction(void **state)
{
	struct core *c = *state;
	Drover__LimitSet set = DROVER__LIMIT_SET__INIT;
	struct asked a = ask(c, "", "", false);

	/* 128 MiB at 125 MB/s */
	assert_in_range(a.choice.predicted_ms, 1000, 1100);
	plan_choice_fini(&a.choice);
	set.node = (char *)"node1";
	set.bandwidth = 12500000;
	set_limit(c, &set, "bandwidth");
	a = ask(c, "", "", false);
	assert_in_range(a.choice.predicted_ms, 10000, 11000);
	plan_choice_fini(&a.choice);
	set.bandwidth = 1250000000; /* more than the link has */
	set_limit(c, &set, "bandwidth");
	a = ask(c, "", "", false);
	assert_in_range(a.choice.predicted_ms, 1000, 1100);
	plan_choice_fini(&a.choice);
	sql(c, "UPDATE node_address SET speed = 0");
	a = ask(c, "", "", false);
	assert_in_range(a.choice.predicted_ms, 100, 110);
	plan_choice_fini(&a.choice);
	set.bandwidth = 0;
	set_limit(c, &set, "bandwidth");
	a = ask(c, "", "", false);
	assert_int_equal(a.choice.predicted_ms, 0); /* nothing is known */
	plan_choice_fini(&a.choice);
}

/* Encrypted as the network says, else as the node that it leaves. */
static void test_encryption(void **state)
{
	struct core *c = *state;
	Drover__LimitSet set = DROVER__LIMIT_SET__INIT;
	Drover__MoveOrder *paths = plan_paths(c->db, "node1", "node2", "", NULL);

	assert_int_equal(paths->n_paths, 2);
	assert_true(paths->paths[0]->encrypt && paths->paths[1]->encrypt);
	drover__move_order__free_unpacked(paths, NULL);
	set.node = (char *)"node1";
	set_limit(c, &set, "encrypt");
	set.node = (char *)"";
	set.network = (char *)"mig2";
	set.encrypt = true;
	set_limit(c, &set, "encrypt");
	paths = plan_paths(c->db, "node1", "node2", "", NULL);
	assert_string_equal(paths->paths[0]->network, "mig1");
	assert_false(paths->paths[0]->encrypt);
	assert_true(paths->paths[1]->encrypt);
	drover__move_order__free_unpacked(paths, NULL);
}

/* ---------------------------------------------------------------- unmovable, and first places */

static void test_unmovable(void **state)
{
	struct core *c = *state;
	Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
	struct vm_row vm = core_vm(c, "vm1");
	char why[256] = "";

	assert_false(plan_unmovable(c->db, &vm, why, sizeof(why)));
	launched(c, "pc", "tcg", 7);
	assert_true(plan_unmovable(c->db, &vm, why, sizeof(why)));
	assert_non_null(strstr(why, "emulated (TCG)"));
	launched(c, "pc", "tcg", 9);
	assert_false(plan_unmovable(c->db, &vm, why, sizeof(why)));
	launched(c, "pc", "tcg", 0); /* an old record: the host says 7.2.0 */
	assert_true(plan_unmovable(c->db, &vm, why, sizeof(why)));
	sql(c, "UPDATE node SET facts = x'' WHERE name = 'node1'");
	assert_true(plan_unmovable(c->db, &vm, why, sizeof(why)));
	spec.allow_tcg_live = true;
	vm_set(c, "vm1", &spec, "allow_tcg_live");
	assert_false(plan_unmovable(c->db, &vm, why, sizeof(why)));
	launched(c, "pc", "kvm", 7);
	assert_false(plan_unmovable(c->db, &vm, why, sizeof(why)));
	spec.no_move = true;
	vm_set(c, "vm1", &spec, "no_move");
	assert_true(plan_unmovable(c->db, &vm, why, sizeof(why)));
	assert_non_null(strstr(why, "--no-move"));
	spec.no_move = false;
	vm_set(c, "vm1", &spec, "no_move");
	/* A device of the host. */
	{
		Drover__VmSpec other = DROVER__VM_SPEC__INIT;
		char *devices[1] = {(char *)"0000:01:00.0"};

		CORE_BODY(cmd, body, VM_ADD, vm_add, Drover__CmdVmAdd, drover__cmd_vm_add);
		other.name = (char *)"vm5";
		other.uuid = core_bytes(105);
		other.memory = MIB;
		other.cpus = 1;
		other.hostdevs = devices;
		other.n_hostdevs = 1;
		body.spec = &other;
		body.node = (char *)"node1";
		core_done(c, &cmd);
		vm = core_vm(c, "vm5");
		assert_true(plan_unmovable(c->db, &vm, why, sizeof(why)));
		assert_non_null(strstr(why, "--hostdev"));
	}
	sql(c, "UPDATE vm SET spec = x'ff' WHERE name = 'vm5'");
	assert_true(plan_unmovable(c->db, &vm, why, sizeof(why)));
	assert_non_null(strstr(why, "can't be read"));
}

static void test_place(void **state)
{
	struct core *c = *state;
	Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
	char *owners[2] = {(char *)"node1", (char *)"node2"};
	char *preferred[2] = {(char *)"node2", (char *)"node1"};
	char node[ROWS_NAME];
	char why[256];

	spec.memory = 64 * MIB;
	assert_true(plan_place(c->db, &spec, true, node, why, sizeof(why)));
	assert_string_equal(node, "node2"); /* as much as node3 has, more than node1 */
	spec.possible_owners = owners;
	spec.n_possible_owners = 1;
	assert_true(plan_place(c->db, &spec, true, node, why, sizeof(why)));
	assert_string_equal(node, "node1");
	spec.n_possible_owners = 2;
	spec.preferred_owners = preferred + 1;
	spec.n_preferred_owners = 1;
	assert_true(plan_place(c->db, &spec, true, node, why, sizeof(why)));
	assert_string_equal(node, "node1");
	spec.preferred_owners = preferred;
	spec.n_preferred_owners = 2;
	assert_true(plan_place(c->db, &spec, true, node, why, sizeof(why)));
	assert_string_equal(node, "node2");
	spec.memory = 1000 * MIB;
	assert_true(plan_place(c->db, &spec, true, node, why, sizeof(why)));
	assert_string_equal(node, "node2"); /* node1 has no room */
	spec.memory = 2000 * MIB;
	assert_false(plan_place(c->db, &spec, true, node, why, sizeof(why)));
	assert_non_null(strstr(why, "node1: it has not enough free memory"));
	assert_non_null(strstr(why, "node3: it is not a possible owner"));
	assert_true(plan_place(c->db, &spec, false, node, why, sizeof(why))); /* not to run at once */
	spec.memory = MIB;
	sql(c, "UPDATE node SET start_id = x'' WHERE name = 'node1'");
	sql(c, "UPDATE node SET paused = 1 WHERE name = 'node2'");
	assert_false(plan_place(c->db, &spec, true, node, why, sizeof(why)));
	assert_non_null(strstr(why, "node1: its agent is lost"));
	assert_non_null(strstr(why, "node2: drained"));
	sql(c, "UPDATE vm SET memory = 2147483648"); /* more than there is, from before */
	assert_true(plan_place(c->db, &spec, false, node, why, sizeof(why)));
	assert_string_equal(node, "node2");
	sql(c, "DELETE FROM vm");
	sql(c, "DELETE FROM node_address");
	sql(c, "DELETE FROM node");
	assert_false(plan_place(c->db, &spec, false, node, why, sizeof(why)));
	assert_string_equal(why, "there is no node");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_states, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_policy, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_machine, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_memory, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_memory_under_way, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_history, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_no_path, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_best, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_offline, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_prediction, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_encryption, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_unmovable, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_place, core_setup, core_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
