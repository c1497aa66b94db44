/* The state database: transactions, determinism, digest, snapshots; thousands of random commands. */
#include <unistd.h>

#include "tests/unit/core.h"
#include "tests/unit/valgrind.h"

static void test_digest_is_of_content(void **state)
{
	struct db *a;
	struct db *b;
	uint8_t da[DB_DIGEST_SIZE];
	uint8_t db_b[DB_DIGEST_SIZE];

	(void)state;
	assert_int_equal(db_open(":memory:", &a, NULL), 0);
	assert_int_equal(db_open(":memory:", &b, NULL), 0);
	/* Another way to the same rows. */
	db_begin(a);
	db_exec(a, "INSERT INTO meta (key, value) VALUES ('x', '1')", "");
	db_exec(a, "INSERT INTO meta (key, value) VALUES ('y', '2')", "");
	db_exec(a, "UPDATE meta SET value = '3' WHERE key = 'x'", "");
	assert_int_equal(db_commit(a), 0);
	db_begin(b);
	db_exec(b, "INSERT INTO meta (key, value) VALUES ('y', '2')", "");
	db_exec(b, "INSERT INTO meta (key, value) VALUES ('z', '9')", "");
	db_exec(b, "DELETE FROM meta WHERE key = 'z'", "");
	db_exec(b, "INSERT INTO meta (key, value) VALUES ('x', '3')", "");
	assert_int_equal(db_commit(b), 0);
	db_digest(a, da);
	db_digest(b, db_b);
	assert_memory_equal(da, db_b, DB_DIGEST_SIZE);
	db_begin(b);
	db_exec(b, "UPDATE meta SET value = '4' WHERE key = 'x'", "");
	db_digest(b, db_b);
	assert_memory_not_equal(da, db_b, DB_DIGEST_SIZE);
	db_rollback(b);
	db_digest(b, db_b);
	assert_memory_equal(da, db_b, DB_DIGEST_SIZE);
	db_close(a);
	db_close(b);
}

static void test_denied(void **state)
{
	static const char *const statements[] = {
		"INSERT INTO meta (key, value) VALUES ('x', random())",
		"INSERT INTO meta (key, value) VALUES ('x', datetime('now'))",
		"INSERT INTO meta (key, value) VALUES ('x', changes())",
		"CREATE TRIGGER t AFTER INSERT ON meta BEGIN SELECT 1; END",
	};

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct db *db;

		assert_int_equal(db_open(":memory:", &db, NULL), 0);
		db_begin(db);
		assert_true(db_exec(db, statements[i], "") < 0);
		assert_true(db_failed(db, NULL) < 0);
		/* Sticky: nothing works any more. */
		assert_true(db_exec(db, "INSERT INTO meta (key, value) VALUES ('a', 'b')", "") < 0);
		assert_true(db_commit(db) < 0);
		db_close(db);
	}
}

/* SAFETY R19 */
static void test_constraint_is_fatal(void **state)
{
	struct db *db;
	struct dr_error err = DR_ERROR_INIT;

	(void)state;
	assert_int_equal(db_open(":memory:", &db, NULL), 0);
	db_begin(db);
	db_exec(db, "INSERT INTO meta (key, value) VALUES ('a', 'b')", "");
	assert_true(db_exec(db, "INSERT INTO meta (key, value) VALUES ('a', 'b')", "") < 0);
	assert_int_equal(db_commit(db), -DR_ECORRUPT);
	assert_int_equal(db_failed(db, &err), -DR_ECORRUPT);
	db_close(db);

	assert_int_equal(db_open(":memory:", &db, NULL), 0);
	db_begin(db);
	db_exec(db, "ROLLBACK", ""); /* as SQLite does by itself, e.g. on a full disk */
	assert_true(db_exec(db, "INSERT INTO meta (key, value) VALUES ('a', 'b')", "") < 0);
	assert_true(db_commit(db) < 0);
	db_close(db);
}

static void test_types(void **state)
{
	struct db *db;
	struct db_rows rows;

	(void)state;
	assert_int_equal(db_open(":memory:", &db, NULL), 0);
	db_begin(db);
	db_exec(db, "INSERT INTO counter (name, value) VALUES ('big', ?)", "u", UINT64_MAX);
	assert_int_equal(db_commit(db), 0);
	assert_true(db_get_u64(db, "SELECT value FROM counter WHERE name = 'big'", "") == UINT64_MAX);
	db_query(db, &rows, "SELECT value FROM counter", "");
	assert_true(db_next(&rows));
	db_text(&rows, 0); /* not a text */
	db_done(&rows);
	assert_int_equal(db_failed(db, NULL), -DR_ECORRUPT);
	db_close(db);
}

/* ---------------------------------------------------------------- random commands */

static uint64_t seed = 88172645463325252u;

static uint32_t rnd(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 32) % n;
}

/* What a decided attempt left on a host is removed. */
static void clean_one(struct core *c)
{
	struct db_rows rows;
	struct attempt_row t;
	bool found;

	db_query(c->db, &rows,
		 "SELECT " ATTEMPT_COLUMNS
		 " FROM move_attempt WHERE decision <> 0 AND (src_gone = 0 OR dst_gone = 0)"
		 " ORDER BY move LIMIT 1",
		 "");
	found = db_next(&rows);
	if (found)
		rows_attempt_get(&rows, &t);
	db_done(&rows);
	if (found && !t.src_gone)
		core_src(c, t.src, (uint8_t)(t.src[4] - '0'), t.move, t.attempt,
			 DROVER__MOVE_PHASE__PHASE_GONE);
	else if (found)
		core_dst(c, t.dst, (uint8_t)(t.dst[4] - '0'), t.move, t.attempt,
			 DROVER__MOVE_PHASE__PHASE_GONE);
}

/* Something about a move that exists. */
static void random_move_command(struct core *c, uint64_t id, uint8_t n)
{
	static const char *const nodes[] = {"node1", "node2", "node3"};
	struct move_row move;
	struct vm_row row;

	if (id == 0 || !rows_move(c->db, id, &move))
		return;
	if (strcmp(move.state, "queued") == 0) {
		if (rows_vm(c->db, move.vm, &row))
			core_assign(c, id, nodes[rnd(3)]);
	} else if (move.attempt > 0 &&
		   db_exists(c->db, "SELECT 1 FROM move_attempt WHERE move = ? AND attempt = ?", "uu", id,
			     (uint64_t)move.attempt)) {
		struct attempt_row t = core_attempt(c, id, move.attempt);
		uint8_t src = (uint8_t)(t.src[4] - '0');
		uint8_t dst = (uint8_t)(t.dst[4] - '0');

		switch (rnd(16)) {
		case 6:
		case 7:
		case 8:
			core_src(c, t.src, src, id, move.attempt,
				 t.decision != DROVER__MOVE_DECISION__DECISION_NONE
					 ? DROVER__MOVE_PHASE__PHASE_GONE
					 : (Drover__MovePhase)(t.src_phase + 1));
			return;
		case 9:
		case 10:
		case 11:
			core_dst(c, t.dst, dst, id, move.attempt,
				 t.decision != DROVER__MOVE_DECISION__DECISION_NONE
					 ? DROVER__MOVE_PHASE__PHASE_GONE
				 : t.dst_phase < DROVER__MOVE_PHASE__DST_COMPLETED
					 ? (Drover__MovePhase)(20 + rnd(5))
					 : t.dst_phase);
			return;
		case 12:
		case 13:
			core_commit(c, id, move.attempt);
			return;
		case 0:
			core_commit(c, id, move.attempt);
			return;
		case 1:
			core_abort(c, id, move.attempt, (Drover__CmdMoveAbort__Outcome)rnd(4));
			return;
		case 2:
			core_src(c, nodes[n - 1], n, id, move.attempt, DROVER__MOVE_PHASE__PHASE_GONE);
			return;
		case 3:
			core_dst(c, nodes[n - 1], n, id, move.attempt,
				 rnd(3) == 0 ? DROVER__MOVE_PHASE__PHASE_GONE
					     : (Drover__MovePhase)(20 + rnd(8)));
			return;
		default:
			core_src(c, nodes[n - 1], n, id, move.attempt, (Drover__MovePhase)(1 + rnd(9)));
			return;
		}
	}
}

static void random_command(struct core *c)
{
	static const char *const nodes[] = {"node1", "node2", "node3"};
	char vm[8];
	uint8_t n = (uint8_t)(rnd(3) + 1);
	uint64_t id =
		db_get_u64(c->db,
			   "SELECT id FROM move ORDER BY state IN ('done', 'failed', 'cancelled'), id DESC"
			   " LIMIT 1 OFFSET ?",
			   "i", (int)rnd(3));
	struct vm_row row;

	snprintf(vm, sizeof(vm), "vm%u", rnd(6));
	if (rnd(5) == 0)
		clean_one(c);
	switch (rnd(11)) {
	case 0:
		core_vm_add(c, vm, (uint8_t)(100 + vm[2]), nodes[rnd(3)], (64 + rnd(400)) * MIB, rnd(3000));
		return;
	case 1:
		if (rows_vm(c->db, vm, &row))
			core_vm_start(c, vm, nodes[rnd(3)]);
		return;
	case 2:
	case 3:
		if (rows_vm(c->db, vm, &row))
			core_vm_fact(c, nodes[n - 1], n, vm, row.generation,
				     rnd(3) != 0 ? DROVER__VM_STATE__VM_RUNNING : (Drover__VmState)rnd(7));
		return;
	case 4:
		core_move_create(c, vm, rnd(2) != 0 ? nodes[rnd(3)] : "");
		return;
	case 5:
		if (rnd(6) == 0)
			core_drain(c, nodes[rnd(3)]);
		return;
	case 6: {
		CORE_BODY(cmd, body, DRAIN_STATE, drain_state, Drover__CmdDrainState,
			  drover__cmd_drain_state);
		body.drain =
			db_get_u64(c->db, "SELECT max(id) FROM drain WHERE id > 0 HAVING max(id) > 0", "");
		body.to = (char *)(rnd(2) != 0 ? "cancelled" : "done");
		core_apply(c, &cmd);
		return;
	}
	case 7: {
		CORE_BODY(cmd, body, NODE_ADMIN, node_admin, Drover__CmdNodeAdmin, drover__cmd_node_admin);
		body.node = (char *)(uintptr_t)nodes[rnd(3)];
		body.paused = rnd(4) == 0;
		core_apply(c, &cmd);
		return;
	}
	default:
		break;
	}
	random_move_command(c, id, n);
}

/* core_apply compares the kept digest with the full one after every command; a second state fed with a
 * snapshot in the middle ends the same. */
static void test_random_commands(void **state)
{
	struct core c;
	struct core copy = {0};
	struct dr_error err = DR_ERROR_INIT;
	uint8_t *bytes = NULL;
	size_t size = 0;
	uint8_t da[DB_DIGEST_SIZE];
	uint8_t dc[DB_DIGEST_SIZE];
	uint64_t middle;
	const int commands = UNDER_VALGRIND ? 1000 : 4000; /* there, three minutes */

	(void)state;
	core_init(&c);
	for (uint8_t i = 1; i <= 3; i++) {
		char name[8];

		snprintf(name, sizeof(name), "node%d", i);
		core_node(&c, name, i);
	}
	for (int i = 0; i < commands; i++)
		random_command(&c);
	assert_int_equal(db_serialize(c.db, &bytes, &size, &err), 0);
	assert_int_equal(db_open(":memory:", &copy.db, &err), 0);
	if (db_restore(copy.db, bytes, size, &err) < 0)
		fail_msg("%s", err.text);
	copy.index = c.index;
	middle = seed;
	for (int i = 0; i < commands / 4; i++)
		random_command(&c);
	seed = middle;
	for (int i = 0; i < commands / 4; i++)
		random_command(&copy);
	db_digest(c.db, da);
	db_digest(copy.db, dc);
	assert_memory_equal(da, dc, DB_DIGEST_SIZE);
	assert_true(db_get_u64(c.db, "SELECT count(*) FROM move", "") > (uint64_t)commands / 40);
	if (commands >= 4000)
		assert_true(db_exists(c.db, "SELECT 1 FROM move WHERE state = 'done' AND kind = 'live'", ""));
	free(bytes);
	core_fini(&c);
	core_fini(&copy);
}

static Drover__Command *drain_command(void)
{
	static Drover__Command cmd;
	static Drover__CmdDrainStart body;

	drover__command__init(&cmd);
	drover__cmd_drain_start__init(&body);
	body.node = (char *)"node1";
	cmd.body_case = DROVER__COMMAND__BODY_DRAIN_START;
	cmd.drain_start = &body;
	cmd.version = APPLY_VERSION;
	cmd.who = (char *)"uid 0";
	cmd.request_id = core_bytes(50);
	return &cmd;
}

/* The n-th statement of a command fails, for every n: the member is told to stop, the state is as before. */
static void test_fail_every_statement(void **state)
{
	struct core c;
	uint8_t before[DB_DIGEST_SIZE];
	uint8_t after[DB_DIGEST_SIZE];
	bool passed = false;
	unsigned n;

	(void)state;
	for (n = 1; !passed; n++) {
		core_init(&c);
		core_node(&c, "node1", 1);
		core_vm_run(&c, "vm1", 101, "node1", 1, 64 * MIB, 0);
		db_digest(c.db, before);
		db_fail_nth(c.db, n);
		passed = apply_command(c.db, c.index + 1, drain_command(), &c.last, NULL) == 0;
		if (!passed) {
			assert_int_equal(db_failed(c.db, NULL), -DR_EIO);
			db_digest(c.db, after);
			assert_memory_equal(before, after, DB_DIGEST_SIZE);
			assert_int_equal(db_digest_full(c.db, after), 0);
			assert_memory_equal(before, after, DB_DIGEST_SIZE);
		}
		core_fini(&c);
		assert_true(n < 200);
	}
	assert_true(n > 15);
}

static void test_snapshot_file(void **state)
{
	char dir[] = "/tmp/drover-test-db-XXXXXX";
	char path[64];
	char name[80];
	struct core c;
	struct db *db;
	struct dr_error err = DR_ERROR_INIT;
	uint8_t *bytes = NULL;
	size_t size = 0;
	uint8_t da[DB_DIGEST_SIZE];
	uint8_t dc[DB_DIGEST_SIZE];

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/state.db", dir);
	core_init(&c);
	core_node(&c, "node1", 1);
	assert_int_equal(db_serialize(c.db, &bytes, &size, &err), 0);
	assert_int_equal(db_open(path, &db, &err), 0);
	db_begin(db);
	db_exec(db, "INSERT INTO meta (key, value) VALUES ('old', 'state')", "");
	assert_int_equal(db_commit(db), 0);
	db_digest(db, da);
	/* A damaged snapshot changes nothing. */
	for (size_t at = 0; at < size; at += 97) {
		bytes[at] ^= 0x10;
		assert_true(db_restore(db, bytes, size, NULL) < 0);
		bytes[at] ^= 0x10;
	}
	assert_true(db_restore(db, bytes, size / 2, NULL) < 0);
	db_digest(db, dc);
	assert_memory_equal(da, dc, DB_DIGEST_SIZE);
	assert_true(db_exists(db, "SELECT 1 FROM meta WHERE key = 'old'", ""));
	if (db_restore(db, bytes, size, &err) < 0)
		fail_msg("%s", err.text);
	assert_false(db_exists(db, "SELECT 1 FROM meta WHERE key = 'old'", ""));
	db_digest(db, dc);
	db_digest(c.db, da);
	assert_memory_equal(da, dc, DB_DIGEST_SIZE);
	/* From a file in WAL mode, too. */
	free(bytes);
	assert_int_equal(db_serialize(db, &bytes, &size, &err), 0);
	db_close(db);
	if (db_restore(c.db, bytes, size, &err) < 0)
		fail_msg("%s", err.text);
	db_digest(c.db, dc);
	assert_memory_equal(da, dc, DB_DIGEST_SIZE);
	free(bytes);
	core_fini(&c);
	unlink(path);
	for (int i = 0; i < 2; i++) {
		snprintf(name, sizeof(name), "%s%s", path, i == 0 ? "-wal" : "-shm");
		unlink(name);
	}
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_digest_is_of_content), cmocka_unit_test(test_denied),
		cmocka_unit_test(test_constraint_is_fatal),  cmocka_unit_test(test_types),
		cmocka_unit_test(test_random_commands),	     cmocka_unit_test(test_fail_every_statement),
		cmocka_unit_test(test_snapshot_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
