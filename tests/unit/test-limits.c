/* Networks and limits: what an operator says, what is found, and what is refused. */
#include "tests/unit/core.h"

static int setup(void **state)
{
	struct core *c = calloc(1, sizeof(*c));

	core_init(c);
	core_node(c, "node1", 1);
	core_node(c, "node2", 2);
	core_node(c, "node3", 3);
	*state = c;
	return 0;
}

static void test_network_verbs(void **state)
{
	struct core *c = *state;
	char *names[2] = {(char *)"mig1", (char *)"nope"};

	CORE_BODY(cmd, body, NETWORK_VERB, network_verb, Drover__NetworkVerb, drover__network_verb);
	body.verb = DROVER__NETWORK_VERB__VERB__EXCLUDE;
	body.networks = names;
	body.n_networks = 2;
	core_refused(c, &cmd, 4, "no network 'nope'");
	body.n_networks = 1;
	core_done(c, &cmd);
	core_unchanged(c, &cmd);
	assert_int_equal(core_count(c, "SELECT excluded FROM network WHERE name = 'mig1'"), 1);
	body.verb = DROVER__NETWORK_VERB__VERB__INCLUDE;
	core_done(c, &cmd);
	assert_int_equal(core_count(c, "SELECT excluded FROM network WHERE name = 'mig1'"), 0);
	body.verb = DROVER__NETWORK_VERB__VERB__PROBE;
	core_refused(c, &cmd, 2, "not supported");

	body.verb = DROVER__NETWORK_VERB__VERB__RENAME;
	body.new_name = (char *)"no name";
	core_refused(c, &cmd, 2, "can't be a network's name");
	body.new_name = (char *)"fast";
	names[1] = (char *)"mig2";
	body.n_networks = 2;
	core_refused(c, &cmd, 2, "can't be a network's name");
	body.n_networks = 1;
	body.new_name = (char *)"mig2";
	core_refused(c, &cmd, 6, "exists already");
	body.new_name = (char *)"mig1";
	core_unchanged(c, &cmd);
	CORE_BODY(cmd2, limit, LIMIT_SET, limit_set, Drover__LimitSet, drover__limit_set);
	char *mask[1] = {(char *)"bandwidth"};

	limit.network = (char *)"mig1";
	limit.bandwidth = 1000;
	limit.mask = mask;
	limit.n_mask = 1;
	core_done(c, &cmd2);
	body.new_name = (char *)"fast";
	core_done(c, &cmd);
	assert_true(c->last.touched_all);
	assert_true(rows_limit(c->db, "network", "fast", "bandwidth") == 1000); /* goes with it */
	core_node(c, "node3", 3); /* and discovery leaves the operator's name */
	assert_int_equal(core_count(c, "SELECT count(*) FROM network WHERE name = 'fast'"), 1);
	core_refused(c, &cmd, 4, "no network 'mig1'");
}

static void test_network_names(void **state)
{
	struct core *c = *state;
	Drover__HostFacts facts = DROVER__HOST_FACTS__INIT;
	Drover__HostAddress one[3] = {DROVER__HOST_ADDRESS__INIT, DROVER__HOST_ADDRESS__INIT,
				      DROVER__HOST_ADDRESS__INIT};
	Drover__HostAddress *list[3] = {&one[0], &one[1], &one[2]};

	CORE_BODY(cmd, body, NODE_FACTS, node_facts, Drover__CmdNodeFacts, drover__cmd_node_facts);
	body.node = (char *)"node1";
	body.facts = &facts;
	facts.addresses = list;
	facts.n_addresses = 3;
	one[0].interface = (char *)"eth0";
	one[0].address = (char *)"not an address";
	one[0].prefix = 24;
	one[1].interface = (char *)"mig1"; /* another node's name for another subnet */
	one[1].address = (char *)"10.78.0.1";
	one[1].prefix = 24;
	one[1].default_gateway = true;
	one[2].interface = (char *)"ring0";
	one[2].address = (char *)"10.79.0.1";
	one[2].prefix = 24;
	one[2].corosync = true;
	core_done(c, &cmd);
	assert_int_equal(core_count(c, "SELECT count(*) FROM network"), 4);
	assert_int_equal(core_count(c, "SELECT count(*) FROM network WHERE name = 'mig1'"), 1);
	assert_int_equal(core_count(c, "SELECT rank FROM network WHERE subnet = '10.78.0.0/24'"), 200);
	assert_int_equal(core_count(c, "SELECT rank FROM network WHERE name = 'ring0'"), 900);
	/* Another interface on another node: the subnet is its name. */
	one[2].interface = (char *)"ring1";
	one[2].address = (char *)"10.79.0.2";
	list[0] = &one[2];
	facts.n_addresses = 1;
	body.node = (char *)"node2";
	core_done(c, &cmd);
	assert_int_equal(core_count(c, "SELECT count(*) FROM network WHERE name = 'ring0'"), 0);
	/* Nobody is in it any more. */
	body.node = (char *)"node1";
	facts.n_addresses = 0;
	core_done(c, &cmd);
	assert_int_equal(core_count(c, "SELECT count(*) FROM network WHERE subnet = '10.78.0.0/24'"), 0);
}

static void test_limits(void **state)
{
	static const struct {
		const char *node;
		const char *network;
		const char *key;
		uint64_t number;
		const char *word;
		uint32_t exit;
		const char *says;
	} rows[] = {
		{"", "", "max_moves", 0, "", 2, "from 1 to 64"},
		{"", "", "max_moves", 65, "", 2, "from 1 to 64"},
		{"", "", "max_moves", 64, "", 0, "64"},
		{"", "", "max_storage_moves", 3, "", 0, "3"},
		{"", "", "cluster_moves", 10001, "", 2, "from 0 to 10000"},
		{"node1", "", "cluster_moves", 1, "", 2, "can't be set for a node"},
		{"", "mig1", "max_moves", 1, "", 2, "can't be set for a network"},
		{"", "", "colour", 1, "", 2, "can't be set for a cluster"},
		{"node9", "", "max_moves", 1, "", 4, "no node"},
		{"", "net9", "bandwidth", 1, "", 4, "no network"},
		{"", "mig1", "bandwidth", 5, "", 0, "5"},
		{"node1", "", "encrypt", 1, "", 0, "1"},
		{"node1", "", "encrypt", 0, "", 0, "0"},
		{"", "", "quick_below", 3001, "", 2, "from 0 to 3000"},
		{"", "", "quick_below", 100, "", 0, "100"},
		{"", "", "blackout_ms", 0, "", 2, "from 1 to 3600000"},
		{"", "", "blackout_ms", 500, "", 0, "500"},
		{"", "", "drain_attempts", 101, "", 2, "from 1 to 100"},
		{"", "", "drain_attempts", 7, "", 0, "7"},
		{"", "", "mode", 0, "smoke", 2, "mode 'smoke' is unknown"},
		{"", "", "mode", 0, "tcp", 0, "tcp"},
		{"node1", "", "on_shutdown", 0, "smile", 2, "on-shutdown 'smile' is unknown"},
		{"node1", "", "on_shutdown", 0, "drain", 0, "drain"},
	};
	struct core *c = *state;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char *mask[1] = {(char *)(uintptr_t)rows[i].key};

		CORE_BODY(cmd, body, LIMIT_SET, limit_set, Drover__LimitSet, drover__limit_set);
		body.node = (char *)(uintptr_t)rows[i].node;
		body.network = (char *)(uintptr_t)rows[i].network;
		body.mode = body.on_shutdown = (char *)(uintptr_t)rows[i].word;
		body.max_moves = body.max_storage_moves = body.cluster_moves = (uint32_t)rows[i].number;
		body.quick_below = body.drain_attempts = (uint32_t)rows[i].number;
		body.bandwidth = body.blackout_ms = rows[i].number;
		body.encrypt = rows[i].number != 0;
		body.mask = mask;
		body.n_mask = 1;
		if (rows[i].exit != 0) {
			core_refused(c, &cmd, rows[i].exit, rows[i].says);
			continue;
		}
		core_done(c, &cmd);
		core_unchanged(c, &cmd);
		assert_true(db_exists(c->db, "SELECT 1 FROM setting WHERE key = ? AND value = ? AND name = ?",
				      "sss", rows[i].key, rows[i].says,
				      rows[i].node[0] != '\0' ? rows[i].node : rows[i].network));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_network_verbs, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_network_names, setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_limits, setup, core_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
