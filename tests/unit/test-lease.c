/* The leader's book of leases: SAFETY R8, R9, R11. */
#include "coordinator/lease.h"
#include "tests/unit/core.h"

struct world {
	struct core core;
	struct env env;
	uint64_t now;
	struct lease_book *book;
	Drover__Command *round;
	unsigned n_health;
	char health[16];
	unsigned grants;
	uint64_t granted_seq;
};

static uint64_t world_now(struct env *env)
{
	return ((struct world *)env->impl)->now;
}

static void take(void *data, const Drover__Command *cmd)
{
	struct world *w = data;
	size_t size = drover__command__get_packed_size(cmd);
	uint8_t bytes[4096];

	if (cmd->body_case == DROVER__COMMAND__BODY_NODE_HEALTH) {
		w->n_health++;
		snprintf(w->health, sizeof(w->health), "%s", cmd->node_health->health);
		return;
	}
	assert_true(size <= sizeof(bytes));
	drover__command__pack(cmd, bytes);
	drover__command__free_unpacked(w->round, NULL);
	w->round = drover__command__unpack(NULL, size, bytes);
}

static void on_grant(void *data, const char *node, const uint8_t start_id[16],
		     const Drover__LeaseGrant *grant)
{
	struct world *w = data;

	assert_string_equal(node, "node1");
	assert_memory_equal(start_id, core_bytes(1).data, 16);
	w->grants++;
	w->granted_seq = grant->seq;
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	core_init(&w->core);
	core_node(&w->core, "node1", 1);
	w->env.impl = w;
	w->env.now_us = world_now;
	w->now = 1000000;
	w->book = lease_book_new(&w->env, 5, 30000);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	lease_book_free(w->book);
	lease_book_free(NULL);
	drover__command__free_unpacked(w->round, NULL);
	core_fini(&w->core);
	free(w);
	return 0;
}

static void test_grant(void **state)
{
	struct world *w = *state;

	lease_round(w->book, take, w);
	assert_null(w->round); /* nobody asked */
	lease_request(w->book, "node1", core_bytes(1).data, 7);
	lease_round(w->book, take, w);
	assert_non_null(w->round);
	/* What comes after the proposal is not served by it (R8). */
	lease_request(w->book, "node1", core_bytes(1).data, 8);
	lease_committed(w->book, w->core.db, 5, w->round->lease_round, on_grant, w);
	assert_int_equal(w->grants, 1);
	assert_int_equal(w->granted_seq, 7);
	lease_committed(w->book, w->core.db, 5, w->round->lease_round, on_grant, w); /* once */
	assert_int_equal(w->grants, 1);
	/* A round of another term says nothing about this one. */
	lease_round(w->book, take, w);
	lease_committed(w->book, w->core.db, 4, w->round->lease_round, on_grant, w);
	assert_int_equal(w->grants, 1);
	lease_committed(w->book, w->core.db, 5, w->round->lease_round, on_grant, w);
	assert_int_equal(w->granted_seq, 8);
}

static void test_blocked(void **state)
{
	struct world *w = *state;

	lease_request(w->book, "node1", core_bytes(1).data, 1);
	lease_round(w->book, take, w);
	lease_block(w->book, "node1", true); /* R11: between proposal and decision */
	lease_committed(w->book, w->core.db, 5, w->round->lease_round, on_grant, w);
	assert_int_equal(w->grants, 0);
}

/* R11: a member that was told by the row. */
static void test_fencing(void **state)
{
	struct world *w = *state;

	lease_request(w->book, "node1", core_bytes(1).data, 1);
	lease_round(w->book, take, w);
	CORE_BODY(cmd, body, NODE_FENCING, node_fencing, Drover__CmdNodeFencing, drover__cmd_node_fencing);
	body.node = (char *)"node1";
	body.on = true;
	assert_int_equal(core_apply(&w->core, &cmd), 0);
	lease_committed(w->book, w->core.db, 5, w->round->lease_round, on_grant, w);
	assert_int_equal(w->grants, 0);
}

static void test_other_start(void **state)
{
	struct world *w = *state;

	lease_request(w->book, "node1", core_bytes(9).data, 1); /* the rows know start 1 */
	lease_round(w->book, take, w);
	lease_committed(w->book, w->core.db, 5, w->round->lease_round, on_grant, w);
	assert_int_equal(w->grants, 0);
}

static void test_expiry(void **state)
{
	struct world *w = *state;

	lease_health(w->book, w->core.db, take, w);
	assert_int_equal(w->n_health, 0);
	assert_int_equal(lease_left_ms(w->book, "node1"), 30300); /* a new leader: as if renewed, and 1 % */
	w->now += 30200000;
	lease_health(w->book, w->core.db, take, w);
	assert_int_equal(w->n_health, 0);
	w->now += 200000;
	lease_health(w->book, w->core.db, take, w);
	assert_int_equal(w->n_health, 1);
	assert_string_equal(w->health, "isolated");
	CORE_BODY(cmd, body, NODE_SESSION, node_session, Drover__CmdNodeSession, drover__cmd_node_session);
	body.node = (char *)"node1";
	body.boot_id = core_bytes(1);
	body.start_id = core_bytes(1);
	core_apply(&w->core, &cmd);
	lease_health(w->book, w->core.db, take, w);
	assert_string_equal(w->health, "down");
}

/* A round whose commit is not heard of is given up after 5 s; a blocked host is in none. */
static void test_round_lost(void **state)
{
	struct world *w = *state;

	lease_request(w->book, "node1", core_bytes(1).data, 5);
	lease_request(w->book, "node1", core_bytes(1).data, 4); /* an older one changes nothing */
	lease_round(w->book, take, w);
	assert_int_equal(w->round->lease_round->n_entries, 1);
	assert_int_equal(w->round->lease_round->entries[0]->seq, 5);
	drover__command__free_unpacked(w->round, NULL);
	w->round = NULL;
	lease_request(w->book, "node1", core_bytes(1).data, 6);
	w->now += 4900000;
	lease_round(w->book, take, w);
	assert_null(w->round);
	w->now += 200000;
	lease_block(w->book, "node1", true);
	assert_true(lease_blocked(w->book, "node1"));
	lease_round(w->book, take, w);
	assert_null(w->round);
	lease_block(w->book, "node1", false);
	assert_false(lease_blocked(w->book, "node1"));
	assert_false(lease_blocked(w->book, "node9"));
	lease_round(w->book, take, w);
	assert_int_equal(w->round->lease_round->entries[0]->seq, 6);
	/* Another start of the agent begins anew, with a lower number. */
	lease_request(w->book, "node1", core_bytes(2).data, 1);
	lease_committed(w->book, w->core.db, 5, w->round->lease_round, on_grant, w);
	drover__command__free_unpacked(w->round, NULL);
	w->round = NULL;
	lease_round(w->book, take, w);
	assert_int_equal(w->round->lease_round->entries[0]->seq, 1);
}

/* Entries that are not this book's: another number, a host that it never heard of, half an id. */
static void test_foreign_entries(void **state)
{
	struct world *w = *state;
	Drover__CmdLeaseRound round = DROVER__CMD_LEASE_ROUND__INIT;
	Drover__LeaseEntry e = DROVER__LEASE_ENTRY__INIT;
	Drover__LeaseEntry *list[1] = {&e};

	lease_request(w->book, "node1", core_bytes(1).data, 5);
	lease_round(w->book, take, w);
	round.entries = list;
	round.n_entries = 1;
	e.node = (char *)"node9";
	e.start_id = core_bytes(1);
	e.seq = 5;
	lease_committed(w->book, w->core.db, 5, &round, on_grant, w);
	e.node = (char *)"node1";
	e.seq = 6;
	lease_committed(w->book, w->core.db, 5, &round, on_grant, w);
	e.seq = 5;
	e.start_id.len = 8;
	lease_committed(w->book, w->core.db, 5, &round, on_grant, w);
	assert_int_equal(w->grants, 0);
	e.start_id.len = 16;
	lease_committed(w->book, w->core.db, 5, &round, on_grant, w);
	assert_int_equal(w->grants, 1);
	/* One that has left the cluster, or lost its session, between request and commit. */
	lease_request(w->book, "gone", core_bytes(3).data, 1);
	lease_request(w->book, "node1", core_bytes(1).data, 7);
	drover__command__free_unpacked(w->round, NULL);
	w->round = NULL;
	lease_round(w->book, take, w);
	assert_int_equal(w->round->lease_round->n_entries, 2);
	CORE_BODY(cmd, body, NODE_SESSION, node_session, Drover__CmdNodeSession, drover__cmd_node_session);
	body.node = (char *)"node1";
	body.start_id = core_bytes(1);
	core_apply(&w->core, &cmd);
	lease_committed(w->book, w->core.db, 5, w->round->lease_round, on_grant, w);
	assert_int_equal(w->grants, 1);
}

/* A book has an end; whoever is in it stays. */
static void test_many_hosts(void **state)
{
	struct world *w = *state;
	char name[16];

	lease_request(w->book, "node1", core_bytes(1).data, 1);
	for (int i = 0; i < 4200; i++) {
		snprintf(name, sizeof(name), "h%d", i);
		lease_request(w->book, name, core_bytes(1).data, 1);
		lease_block(w->book, name, true);
	}
	assert_true(lease_left_ms(w->book, "node1") > 0);
	assert_true(lease_left_ms(w->book, "h4000") > 0);
	assert_int_equal(lease_left_ms(w->book, "h4199"), 0);
	assert_false(lease_blocked(w->book, "h4199"));
}

static void set_health(struct world *w, const char *health)
{
	CORE_BODY(cmd, body, NODE_HEALTH, node_health, Drover__CmdNodeHealth, drover__cmd_node_health);
	body.node = (char *)"node1";
	body.health = (char *)(uintptr_t)health;
	assert_int_equal(core_apply(&w->core, &cmd), 0);
}

/* Back with a lease: up. A new leader's count starts full: without a session that raises nobody. */
static void test_health_again(void **state)
{
	struct world *w = *state;

	set_health(w, "isolated");
	lease_health(w->book, w->core.db, take, w);
	assert_int_equal(w->n_health, 1);
	assert_string_equal(w->health, "up");
	set_health(w, "down");
	CORE_BODY(cmd, body, NODE_SESSION, node_session, Drover__CmdNodeSession, drover__cmd_node_session);
	body.node = (char *)"node1";
	body.start_id = core_bytes(1);
	core_apply(&w->core, &cmd);
	lease_health(w->book, w->core.db, take, w);
	assert_int_equal(w->n_health, 1);
}

/* A fenced host is down, whatever is left of its lease. */
static void test_health_fenced(void **state)
{
	struct world *w = *state;

	CORE_BODY(cmd, body, NODE_FENCED, node_fenced, Drover__CmdNodeFenced, drover__cmd_node_fenced);
	body.node = (char *)"node1";
	body.proof = (char *)"operator";
	assert_int_equal(core_apply(&w->core, &cmd), 0);
	set_health(w, "isolated");
	assert_true(lease_left_ms(w->book, "node1") == 0); /* never heard of */
	lease_request(w->book, "node1", core_bytes(1).data, 1);
	assert_true(lease_left_ms(w->book, "node1") > 0);
	lease_health(w->book, w->core.db, take, w);
	assert_int_equal(w->n_health, 1);
	assert_string_equal(w->health, "down");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_grant, setup, teardown),
		cmocka_unit_test_setup_teardown(test_blocked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fencing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_start, setup, teardown),
		cmocka_unit_test_setup_teardown(test_expiry, setup, teardown),
		cmocka_unit_test_setup_teardown(test_round_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(test_foreign_entries, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_hosts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_health_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_health_fenced, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
