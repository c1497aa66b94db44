/* Cluster versions (SAFETY R20), and what version 2 brought: a late session of an earlier boot (R9). */
#include "core.h"

#define MIB (1ull << 20)

static int setup(void **state)
{
	static struct core c;

	core_init(&c);
	core_node(&c, "node1", 1);
	core_node(&c, "node2", 2);
	*state = &c;
	return 0;
}

static int teardown(void **state)
{
	core_fini(*state);
	return 0;
}

static uint32_t raise_version(struct core *c, uint32_t from, uint32_t to)
{
	CORE_BODY(cmd, body, CLUSTER_VERSION, cluster_version, Drover__CmdClusterVersion,
		  drover__cmd_cluster_version);
	body.from = from;
	body.to = to;
	return core_apply(c, &cmd);
}

static uint32_t session(struct core *c, const char *node, uint8_t boot, uint8_t start, uint8_t saw)
{
	CORE_BODY(cmd, body, NODE_SESSION, node_session, Drover__CmdNodeSession, drover__cmd_node_session);
	body.node = (char *)(uintptr_t)node;
	body.boot_id = core_bytes(boot);
	body.start_id = core_bytes(start);
	body.coordinator = (char *)"node2";
	if (saw != 0)
		body.saw_boot = core_bytes(saw);
	return core_apply(c, &cmd);
}

static void session_lost(struct core *c, const char *node, uint8_t boot, uint8_t start)
{
	CORE_BODY(cmd, body, NODE_SESSION, node_session, Drover__CmdNodeSession, drover__cmd_node_session);
	body.node = (char *)(uintptr_t)node;
	body.boot_id = core_bytes(boot);
	body.start_id = core_bytes(start);
	assert_int_equal(core_apply(c, &cmd), 0);
}

static void stops(struct core *c, Drover__Command *cmd)
{
	struct dr_error err = DR_ERROR_INIT;

	assert_int_equal(apply_command(c->db, c->index + 1, cmd, &c->last, &err), -DR_EBUG);
	assert_non_null(strstr(err.text, "upgrade this coordinator"));
	assert_true(apply_index(c->db) == c->index);
}

/* A program stops before it applies what a newer version brought, whatever the command says that it needs. */
static void test_older_program_stops(void **state)
{
	struct core *c = *state;

	CORE_BODY(cmd, body, CLUSTER_VERSION, cluster_version, Drover__CmdClusterVersion,
		  drover__cmd_cluster_version);
	body.from = APPLY_VERSION;
	body.to = APPLY_VERSION + 1;
	assert_int_equal(apply_needs(&cmd), APPLY_VERSION + 1);
	cmd.version = APPLY_VERSION;
	stops(c, &cmd);
	cmd.version = APPLY_VERSION + 1;
	stops(c, &cmd);
#ifdef DROVER_COMPAT_TEST
	CORE_BODY(cmd2, body2, NODE_SESSION, node_session, Drover__CmdNodeSession, drover__cmd_node_session);
	body2.saw_boot = core_bytes(1);
	cmd2.version = 1;
	stops(c, &cmd2);
#endif
}

#ifndef DROVER_COMPAT_TEST
static void test_raise(void **state)
{
	struct core *c = *state;

	assert_int_equal(rows_cluster_version(c->db), 1);
	assert_int_equal(raise_version(c, 2, 2), 6);
	assert_int_equal(raise_version(c, 1, 1), 6);
	assert_int_equal(raise_version(c, 0, 1), 6);
	assert_int_equal(rows_cluster_version(c->db), 1);
	assert_int_equal(raise_version(c, 1, 2), 0);
	assert_true(c->last.changed && c->last.events == 1);
	assert_int_equal(rows_cluster_version(c->db), 2);
	/* A second leader proposed it, too. */
	assert_int_equal(raise_version(c, 1, 2), 6);
	assert_int_equal(rows_cluster_version(c->db), 2);
}

/*
 * node1 boots anew (boot 11) and runs vm1 again; its agent's session is lost for a moment. Then a session of
 * the earlier boot is committed: it lay at a coordinator that stood still. The VM must not count as stopped.
 */
static void late_session(struct core *c)
{
	core_vm_run(c, "vm1", 50, "node1", 1, 64 * MIB, 0);
	session_lost(c, "node1", 1, 1);
	assert_int_equal(session(c, "node1", 11, 12, 1), 0);
	assert_int_equal(core_vm(c, "vm1").state, DROVER__VM_STATE__VM_STOPPED); /* R9 */
	assert_int_equal(core_vm_start(c, "vm1", "node1"), 0);
	assert_int_equal(core_vm_fact(c, "node1", 12, "vm1", core_vm(c, "vm1").generation,
				      DROVER__VM_STATE__VM_RUNNING),
			 0);
	session_lost(c, "node1", 11, 12);
}

static void test_late_session(void **state)
{
	struct core *c = *state;

	assert_int_equal(raise_version(c, 1, 2), 0);
	late_session(c);
	assert_int_equal(session(c, "node1", 1, 13, 1), 6);
	assert_int_equal(session(c, "node1", 1, 13, 0), 6);
	assert_int_equal(core_vm(c, "vm1").state, DROVER__VM_STATE__VM_RUNNING);
	assert_int_equal(core_vm_start(c, "vm1", "node2"), 0);
	assert_false(c->last.changed);
	assert_string_equal(core_vm(c, "vm1").owner, "node1");
	/* The same boot, and a boot that comes after the one in the row. */
	assert_int_equal(session(c, "node1", 11, 14, 1), 0);
	session_lost(c, "node1", 11, 14);
	assert_int_equal(core_vm(c, "vm1").state, DROVER__VM_STATE__VM_RUNNING);
	assert_int_equal(session(c, "node1", 15, 16, 11), 0);
	assert_int_equal(core_vm(c, "vm1").state, DROVER__VM_STATE__VM_STOPPED);
}

/* At version 1 the flaw is there, and stays as it was: both kinds of members must agree. */
static void test_late_session_before(void **state)
{
	struct core *c = *state;

	late_session(c);
	assert_int_equal(session(c, "node1", 1, 13, 1), 0);
	assert_int_equal(core_vm(c, "vm1").state, DROVER__VM_STATE__VM_STOPPED);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_older_program_stops, setup, teardown),
#ifndef DROVER_COMPAT_TEST
		cmocka_unit_test_setup_teardown(test_raise, setup, teardown),
		cmocka_unit_test_setup_teardown(test_late_session, setup, teardown),
		cmocka_unit_test_setup_teardown(test_late_session_before, setup, teardown),
#endif
	};

#ifdef DROVER_COMPAT_TEST
	(void)raise_version;
	(void)session;
	(void)session_lost;
#endif
	return cmocka_run_group_tests(tests, NULL, NULL);
}
