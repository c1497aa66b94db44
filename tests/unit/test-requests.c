/* Client requests: refusals with their exit codes, commands, answers (INTERFACE §2). */
#include "coordinator/requests.h"
#include "tests/unit/core.h"

struct world {
	struct core core;
	struct env env;
};

static uint64_t world_now(struct env *env)
{
	(void)env;
	return 1000000;
}

static void world_random(struct env *env, void *buf, size_t len)
{
	(void)env;
	memset(buf, 0x5a, len);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	core_init(&w->core);
	w->env.impl = w;
	w->env.now_us = world_now;
	w->env.utc_us = world_now;
	w->env.random = world_random;
	for (uint8_t i = 1; i <= 3; i++) {
		char name[8];

		snprintf(name, sizeof(name), "node%d", i);
		core_node(&w->core, name, i);
	}
	core_vm_run(&w->core, "vm1", 101, "node1", 1, 128 * MIB, 0);
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

/* The whole way of a request; the answer. */
static Drover__Response *ask(struct world *w, Drover__Request *request)
{
	Drover__Command *cmd;
	Drover__Response *answer;

	request_to_command(w->core.db, &w->env, NULL, request, "uid 0 on node1", &cmd, &answer);
	assert_true((cmd == NULL) != (answer == NULL));
	if (answer != NULL)
		return answer;
	core_apply(&w->core, cmd);
	drover__command__free_unpacked(cmd, NULL);
	return response_from_result(w->core.db, NULL, request, w->core.index, &w->core.last);
}

static void expect(struct world *w, Drover__Request *request, uint32_t exit, bool changed, const char *word)
{
	Drover__Response *answer = ask(w, request);

	if (answer->exit != exit || (answer->changed != 0) != changed ||
	    strstr(answer->message, word) == NULL)
		fail_msg("exit %u changed %d '%s', wanted exit %u changed %d '%s'", answer->exit,
			 answer->changed, answer->message, exit, changed, word);
	drover__response__free_unpacked(answer, NULL);
}

#define REQUEST(var, body_var, CASE, field, type, prefix)                                                    \
	Drover__Request var = DROVER__REQUEST__INIT;                                                         \
	type body_var;                                                                                       \
	prefix##__init(&body_var);                                                                           \
	var.verb_case = DROVER__REQUEST__VERB_##CASE;                                                        \
	var.field = &body_var

static void test_vm_add(void **state)
{
	struct world *w = *state;
	Drover__VmDisk disk = DROVER__VM_DISK__INIT;
	Drover__VmDisk *disks[1] = {&disk};
	Drover__VmNic nic = DROVER__VM_NIC__INIT;
	Drover__VmNic *nics[1] = {&nic};
	char *owners[1] = {(char *)"node7"};
	Drover__Response *answer;

	REQUEST(r, spec, VM_ADD, vm_add, Drover__VmSpec, drover__vm_spec);
	spec.name = (char *)"-bad";
	expect(w, &r, 2, false, "-bad");
	spec.name = (char *)"new";
	expect(w, &r, 2, false, "memory");
	spec.memory = 1ull << 60;
	spec.cpus = 1;
	expect(w, &r, 2, false, "memory");
	spec.memory = 64 * MIB;
	spec.cpus = 0;
	expect(w, &r, 2, false, "cpus");
	spec.cpus = 1;
	spec.disks = disks;
	spec.n_disks = 1;
	disk.path = (char *)"a.qcow2";
	expect(w, &r, 2, false, "absolute");
	disk.path = (char *)"/a.qcow2";
	spec.possible_owners = owners;
	spec.n_possible_owners = 1;
	expect(w, &r, 4, false, "node7");
	owners[0] = (char *)"node2";
	spec.nics = nics;
	spec.n_nics = 1;
	expect(w, &r, 2, false, "bridge");
	nic.bridge = (char *)"br0";
	r.dry_run = true;
	expect(w, &r, 0, true, "would");
	r.dry_run = false;
	answer = ask(w, &r);
	assert_int_equal(answer->exit, 0);
	assert_true(answer->created && answer->n_vms == 1);
	assert_string_equal(answer->vms[0]->node, "node2");
	assert_string_equal(answer->vms[0]->spec->nics[0]->mac, "52:54:00:5a:5a:5a");
	assert_int_equal(answer->vms[0]->uuid.len, 16);
	drover__response__free_unpacked(answer, NULL);
	expect(w, &r, 6, false, "exists");
}

static void test_vm_verbs(void **state)
{
	struct world *w = *state;

	REQUEST(r, verb, VM_VERB, vm_verb, Drover__VmVerb, drover__vm_verb);
	verb.vm = (char *)"vm2";
	expect(w, &r, 4, false, "did you mean 'vm1'");
	verb.vm = (char *)"vm1";
	expect(w, &r, 0, false, "already");
	verb.verb = DROVER__VM_VERB__VERB__REMOVE;
	expect(w, &r, 6, false, "stop it first");
	verb.verb = DROVER__VM_VERB__VERB__STOP;
	expect(w, &r, 0, true, "");
}

static void test_vm_set(void **state)
{
	struct world *w = *state;
	Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
	char *mask[1] = {(char *)"priority"};
	char *classes[2] = {(char *)"db", (char *)"web"};
	Drover__VmSpec *stored;

	REQUEST(r, set, VM_SET, vm_set, Drover__VmSet, drover__vm_set);
	set.vm = (char *)"vm1";
	set.spec = &spec;
	expect(w, &r, 2, false, "nothing");
	set.mask = mask;
	set.n_mask = 1;
	spec.priority = 4000;
	expect(w, &r, 2, false, "priority");
	spec.priority = 2000;
	expect(w, &r, 0, true, "");
	expect(w, &r, 0, false, "");
	assert_int_equal(core_vm(&w->core, "vm1").priority, 2000);
	mask[0] = (char *)"memory";
	spec.memory = 256 * MIB;
	expect(w, &r, 6, false, "stop it first");
	mask[0] = (char *)"anti_affinity";
	spec.anti_affinity = classes;
	spec.n_anti_affinity = 2;
	expect(w, &r, 0, true, "");
	stored = rows_spec(w->core.db, "vm1");
	assert_int_equal(stored->n_anti_affinity, 2);
	assert_string_equal(stored->anti_affinity[1], "web");
	assert_true(stored->memory == 128 * MIB);
	drover__vm_spec__free_unpacked(stored, NULL);
	mask[0] = (char *)"colour";
	expect(w, &r, 2, false, "colour");
}

static void test_vm_move(void **state)
{
	struct world *w = *state;
	Drover__Response *answer;

	REQUEST(r, move, VM_MOVE, vm_move, Drover__MoveRequest, drover__move_request);
	move.vm = (char *)"vm1";
	move.to = (char *)"node9";
	expect(w, &r, 4, false, "node9");
	move.to = (char *)"node1";
	expect(w, &r, 0, false, "already");
	move.to = (char *)"node2";
	move.kind = (char *)"quick";
	expect(w, &r, 2, false, "not supported yet");
	move.kind = (char *)"fast";
	expect(w, &r, 2, false, "unknown");
	move.kind = (char *)"offline";
	expect(w, &r, 6, false, "stopped");
	move.kind = (char *)"";
	move.network = (char *)"mig9";
	expect(w, &r, 4, false, "mig9");
	move.network = (char *)"mig2";
	CORE_BODY(cmd, health, NODE_HEALTH, node_health, Drover__CmdNodeHealth, drover__cmd_node_health);
	health.node = (char *)"node2";
	health.health = (char *)"down";
	core_apply(&w->core, &cmd);
	expect(w, &r, 6, false, "node2: it is down");
	move.to = (char *)"";
	answer = ask(w, &r);
	assert_int_equal(answer->exit, 0);
	assert_true(answer->created && answer->n_moves == 1);
	assert_string_equal(answer->object_kind, "move");
	assert_string_equal(answer->moves[0]->state, "queued");
	drover__response__free_unpacked(answer, NULL);
	expect(w, &r, 6, false, "already");
}

static void test_tcg(void **state)
{
	struct world *w = *state;
	Drover__LaunchRecord launch = DROVER__LAUNCH_RECORD__INIT;
	Drover__VmFact fact = DROVER__VM_FACT__INIT;

	assert_int_equal(core_vm_add(&w->core, "tcg", 102, "node1", 64 * MIB, 0), 0);
	assert_int_equal(core_vm_start(&w->core, "tcg", "node1"), 0);
	launch.accel = (char *)"tcg";
	launch.machine = (char *)"pc-i440fx-7.2";
	launch.qemu_major = 7;
	fact.name = (char *)"tcg";
	fact.generation = core_vm(&w->core, "tcg").generation;
	fact.state = DROVER__VM_STATE__VM_RUNNING;
	fact.launch = &launch;
	CORE_BODY(cmd, body, VM_FACT, vm_fact, Drover__CmdVmFact, drover__cmd_vm_fact);
	body.node = (char *)"node1";
	body.start_id = core_bytes(1);
	body.fact = &fact;
	assert_int_equal(core_apply(&w->core, &cmd), 0);
	REQUEST(r, move, VM_MOVE, vm_move, Drover__MoveRequest, drover__move_request);
	move.vm = (char *)"tcg";
	expect(w, &r, 6, false, "9.0");
	/* A drain with something unmovable: the list, nothing changed; --best-effort starts. */
	REQUEST(r2, verb, NODE_VERB, node_verb, Drover__NodeVerb, drover__node_verb);
	verb.node = (char *)"node1";
	verb.drain = true;
	expect(w, &r2, 6, false, "tcg");
	assert_false(db_exists(w->core.db, "SELECT 1 FROM node WHERE paused = 1", ""));
	verb.best_effort = true;
	expect(w, &r2, 0, true, "");
}

static void test_drain(void **state)
{
	struct world *w = *state;
	Drover__Response *answer;
	uint64_t id;

	REQUEST(r, verb, NODE_VERB, node_verb, Drover__NodeVerb, drover__node_verb);
	verb.node = (char *)"node1";
	verb.drain = true;
	r.dry_run = true;
	answer = ask(w, &r);
	assert_int_equal(answer->exit, 0);
	assert_non_null(answer->plan);
	assert_int_equal(answer->plan->n_moves, 1);
	drover__response__free_unpacked(answer, NULL);
	r.dry_run = false;
	answer = ask(w, &r);
	assert_int_equal(answer->exit, 0);
	assert_true(answer->changed && answer->n_drains == 1 && answer->n_moves == 1);
	id = answer->drains[0]->id;
	drover__response__free_unpacked(answer, NULL);
	expect(w, &r, 0, false, "already");
	verb.node = (char *)"node3";
	expect(w, &r, 0, true, "");
	expect(w, &r, 0, false, "drained already");
	REQUEST(r2, drain, DRAIN_VERB, drain_verb, Drover__DrainVerb, drover__drain_verb);
	drain.verb = DROVER__DRAIN_VERB__VERB__CANCEL;
	drain.drain = 99999;
	expect(w, &r2, 4, false, "99999");
	drain.drain = id;
	expect(w, &r2, 0, true, "");
	expect(w, &r2, 0, false, "already");
}

static void test_limits(void **state)
{
	struct world *w = *state;
	char *mask[1] = {(char *)"max_moves"};

	REQUEST(r, set, LIMIT_SET, limit_set, Drover__LimitSet, drover__limit_set);
	expect(w, &r, 2, false, "no limit");
	set.mask = mask;
	set.n_mask = 1;
	expect(w, &r, 2, false, "max_moves");
	set.max_moves = 4;
	set.node = (char *)"node9";
	expect(w, &r, 4, false, "node9");
	set.node = (char *)"node1";
	expect(w, &r, 0, true, "");
	expect(w, &r, 0, false, "");
	mask[0] = (char *)"mode";
	set.mode = (char *)"rdma";
	expect(w, &r, 2, false, "not supported yet");
}

/* A field that only a newer program knows: refused, not proposed (SAFETY R20). */
static void test_newer_client(void **state)
{
	struct world *w = *state;
	Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
	uint8_t bytes[512];
	size_t size;
	Drover__VmSpec *newer;

	spec.name = (char *)"new";
	spec.memory = 64 * MIB;
	spec.cpus = 1;
	size = drover__vm_spec__pack(&spec, bytes);
	memcpy(bytes + size, "\xf8\x07\x01", 3); /* field 127 = 1 */
	newer = drover__vm_spec__unpack(NULL, size + 3, bytes);
	assert_non_null(newer);
	REQUEST(r, body, VM_ADD, vm_add, Drover__VmSpec, drover__vm_spec);
	(void)body;
	r.vm_add = newer;
	expect(w, &r, 2, false, "older than");
	drover__vm_spec__free_unpacked(newer, NULL);
	r.vm_add = &spec;
	expect(w, &r, 0, true, "");
}

static void test_reads(void **state)
{
	struct world *w = *state;
	Drover__Response *answer;

	REQUEST(r, list, LIST, list, Drover__ListRequest, drover__list_request);
	for (int what = 0; what <= DROVER__LIST_REQUEST__WHAT__HISTORY; what++) {
		list.what = (Drover__ListRequest__What)what;
		answer = requests_read(w->core.db, &w->env, NULL, &r);
		assert_int_equal(answer->exit, 0);
		assert_true(answer->index == w->core.index);
		drover__response__free_unpacked(answer, NULL);
	}
	list.name = (char *)"nope";
	for (int what = 0; what <= DROVER__LIST_REQUEST__WHAT__NETWORKS; what++) {
		list.what = (Drover__ListRequest__What)what;
		answer = requests_read(w->core.db, &w->env, NULL, &r);
		assert_int_equal(answer->exit, 4);
		drover__response__free_unpacked(answer, NULL);
	}
	r.verb_case = DROVER__REQUEST__VERB_CLUSTER_CHECK;
	answer = requests_read(w->core.db, &w->env, NULL, &r);
	assert_true(answer->n_findings > 0);
	drover__response__free_unpacked(answer, NULL);
	r.verb_case = DROVER__REQUEST__VERB_CLUSTER_STATUS;
	answer = requests_read(w->core.db, &w->env, NULL, &r);
	assert_string_equal(answer->cluster->cluster, "test");
	assert_int_equal(answer->cluster->nodes_up, 3);
	assert_int_equal(answer->cluster->vms_running, 1);
	drover__response__free_unpacked(answer, NULL);
}

static void fence_set(struct world *w, const char *agent, uint32_t exit, bool changed, const char *word)
{
	Drover__FenceOption o = DROVER__FENCE_OPTION__INIT;
	Drover__FenceOption *list[1] = {&o};

	REQUEST(r, set, NODE_SET, node_set, Drover__NodeSet, drover__node_set);
	set.node = (char *)"node2";
	set.fence_agent = (char *)(uintptr_t)agent;
	o.key = (char *)"password";
	o.value = (char *)"hunter2";
	set.fence_options = list;
	set.n_fence_options = strcmp(agent, "none") != 0 ? 1 : 0;
	expect(w, &r, exit, changed, word);
}

static void test_fence(void **state)
{
	struct world *w = *state;
	Drover__Response *answer;

	REQUEST(r, verb, NODE_VERB, node_verb, Drover__NodeVerb, drover__node_verb);
	verb.verb = DROVER__NODE_VERB__VERB__FENCE;
	verb.node = (char *)"node2";
	expect(w, &r, 6, false, "node2 has no fence agent");
	verb.confirmed = true;
	expect(w, &r, 6, false, "alive");
	verb.confirmed = false;
	fence_set(w, "/bin/sh", 2, false, "bare name");
	fence_set(w, "fence_x", 0, true, "");
	fence_set(w, "fence_x", 0, false, "already");
	expect(w, &r, 6, false, "alive");
	verb.force = true;
	r.dry_run = true;
	expect(w, &r, 0, true, "fence_x would switch node2 off");
	r.dry_run = false;
	/* The announcement. */
	expect(w, &r, 0, true, "");
	assert_true(db_exists(w->core.db, "SELECT 1 FROM setting WHERE key = 'fencing' AND name = ?", "s",
			      "node2"));

	/* The operator's word decides, and a repetition of it finds its result. */
	verb.force = false;
	verb.confirmed = true;
	CORE_BODY(cmd, session, NODE_SESSION, node_session, Drover__CmdNodeSession, drover__cmd_node_session);
	session.node = (char *)"node2";
	session.start_id = core_bytes(2);
	assert_int_equal(core_apply(&w->core, &cmd), 0);
	r.id = core_bytes(77);
	expect(w, &r, 0, true, "");
	expect(w, &r, 0, true, "");
	assert_true(w->core.last.repeated);
	verb.confirmed = false;
	expect(w, &r, 0, true, ""); /* whatever its words are now */
	assert_true(w->core.last.repeated);
	r.id = core_bytes(78);
	expect(w, &r, 0, false, "fenced already");

	/* Shown without its secret; nothing else that people read has it. */
	REQUEST(show, list, LIST, list, Drover__ListRequest, drover__list_request);
	list.what = DROVER__LIST_REQUEST__WHAT__NODES;
	list.name = (char *)"node2";
	answer = requests_read(w->core.db, &w->env, NULL, &show);
	assert_string_equal(answer->nodes[0]->fence, "fence_x,password=***");
	drover__response__free_unpacked(answer, NULL);
	assert_int_equal(
		db_get_u64(w->core.db,
			   "SELECT count(*) FROM history WHERE what LIKE '%hunter2%' OR message LIKE "
			   "'%hunter2%'",
			   ""),
		0);
	assert_true(db_exists(w->core.db, "SELECT 1 FROM history WHERE what = ?", "s",
			      "node set node2 --fence fence_x"));
	fence_set(w, "none", 0, true, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_fence, setup, teardown),
		cmocka_unit_test_setup_teardown(test_vm_add, setup, teardown),
		cmocka_unit_test_setup_teardown(test_vm_verbs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_vm_set, setup, teardown),
		cmocka_unit_test_setup_teardown(test_vm_move, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tcg, setup, teardown),
		cmocka_unit_test_setup_teardown(test_drain, setup, teardown),
		cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_newer_client, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reads, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
