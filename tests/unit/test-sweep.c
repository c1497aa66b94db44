/*
 * Every call that can fail, fails once: the Nth write, read, sync, allocation, ... of log, apply and
 * snapshot, for N = 1, 2, ... until a run is whole (after SQLite's own tests). Wherever it fails log nothing
 * that was acknowledged is gone when the log is opened again, or the log is refused apply     a command is
 * done whole, with the result that it has without faults, or the member stops snapshot  the state is the new
 * one or the old one
 */
#include <unistd.h>

#include "coordinator/logdb.h"
#include "coordinator/recover.h"
#include "tests/unit/core.h"
#include "tests/unit/fault-vfs.h"
#include "tests/unit/valgrind.h"

#define CALLS_MAX 100000 /* a sweep that finds no end is broken */
#define ENTRIES	  24

static char dir[64];

/* Allocations are many and much alike: with DROVER_FULL set each fails in turn, else one in seven. Valgrind,
 * which looks for other things, sees a few of each kind. */
static unsigned next_call(enum fault_kind kind, unsigned n)
{
	if (UNDER_VALGRIND)
		return n + (kind >= FAULT_SQLITE_MEMORY ? 499 : 23);
	return n + (kind == FAULT_SQLITE_MEMORY && n > 100 && getenv("DROVER_FULL") == NULL ? 7 : 1);
}

static void clean(void)
{
	static const char *const names[] = {"log.db",	    "log.db-wal",      "log.db-shm",   "log.mark",
					    "log.distrust", "state.db",	       "state.db-wal", "state.db-shm",
					    "state.db.new", "state.db-journal"};
	char path[128];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
}

static int setup(void **state)
{
	(void)state;
	/* Thousands of runs: where syncing costs nothing, if there is such a place. */
	strcpy(dir,
	       access("/dev/shm", W_OK) == 0 ? "/dev/shm/drover-sweep-XXXXXX" : "/tmp/drover-sweep-XXXXXX");
	assert_non_null(mkdtemp(dir));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	clean();
	return rmdir(dir);
}

/* ---------------------------------------------------------------- the log */

/* What was answered so far. */
struct acked {
	uint64_t first, last;
	uint64_t snapshot;
	uint64_t term;
	enum dr_err failed;
};

static size_t entry_text(uint64_t index, uint64_t term, char text[600])
{
	/* Some are larger than a page. */
	memset(text, 'x', 600);
	snprintf(text, 600, "entry %llu of term %llu", (unsigned long long)index, (unsigned long long)term);
	return index % 5 == 0 ? 600 : 100;
}

static int add(struct logdb *log, uint64_t from, uint64_t to, uint64_t term, struct dr_error *err)
{
	int ret = logdb_begin(log, err);

	for (uint64_t i = from; ret == 0 && i <= to; i++) {
		char text[600];
		struct logdb_entry e = {.index = i, .term = term, .type = 1, .data = text};

		e.size = entry_text(i, term, text);
		ret = logdb_append(log, &e, err);
	}
	if (ret == 0)
		ret = logdb_commit(log, err);
	if (ret < 0)
		logdb_rollback(log);
	return ret;
}

static int write_log(struct acked *a, struct dr_error *err)
{
	struct logdb *log = logdb_open(dir, err);
	const struct logdb_snapshot snapshot = {.index = 12,
						.term = 1,
						.conf_index = 1,
						.conf = "conf",
						.conf_size = 4,
						.data = "state",
						.size = 5};
	int ret;

	if (log == NULL)
		return -(int)err->code;
	ret = logdb_vote_set(log, 1, 7, err);
	if (ret == 0)
		a->term = 1;
	for (uint64_t i = 1; ret == 0 && i <= 15; i += 3) {
		ret = add(log, i, i + 2, 1, err);
		if (ret == 0)
			a->last = i + 2;
	}
	if (ret == 0) { /* 14 and 15 give way to a new leader's */
		uint64_t before = a->last;

		a->last = 13;
		ret = logdb_begin(log, err);
		if (ret == 0)
			ret = logdb_truncate(log, 14, err);
		if (ret == 0)
			ret = logdb_commit(log, err);
		(void)before;
	}
	if (ret == 0 && (ret = logdb_vote_set(log, 2, 0, err)) == 0)
		a->term = 2;
	if (ret == 0 && (ret = add(log, 14, ENTRIES, 2, err)) == 0)
		a->last = ENTRIES;
	if (ret == 0) {
		ret = logdb_begin(log, err);
		if (ret == 0)
			ret = logdb_snapshot_put(log, &snapshot, 4, err);
		if (ret == 0)
			ret = logdb_commit(log, err);
		if (ret == 0) {
			a->snapshot = 12;
			a->first = 9;
		}
	}
	logdb_close(log);
	return ret;
}

static int entry_is_right(const struct logdb_entry *e, void *data)
{
	char text[600];
	size_t size = entry_text(e->index, e->term, text);

	(void)data;
	assert_int_equal(e->size, size);
	assert_memory_equal(e->data, text, size);
	return 0;
}

static void expect_log(const struct acked *a, const char *what)
{
	struct dr_error err = DR_ERROR_INIT;
	struct logdb *log = logdb_open(dir, &err);
	struct logdb_snapshot s;
	uint64_t term, vote;
	int ret;

	if (log == NULL) {
		/* Only where bytes may be lost without a word: the member comes back as a new one. */
		if (err.code != DR_ECORRUPT ||
		    (a->failed != DR_ESYNC && a->failed != DR_EIO && a->failed != DR_ECORRUPT))
			fail_msg("%s: the log can't be opened again: %s", what, err.text);
		return;
	}
	if (logdb_last(log) < a->last)
		fail_msg("%s: entry %llu was acknowledged, the log ends at %llu", what,
			 (unsigned long long)a->last, (unsigned long long)logdb_last(log));
	assert_int_equal(logdb_entries(log, entry_is_right, NULL, &err), 0);
	assert_int_equal(logdb_vote_get(log, &term, &vote, &err), 0);
	if (term < a->term)
		fail_msg("%s: term %llu was promised, %llu is stored", what, (unsigned long long)a->term,
			 (unsigned long long)term);
	ret = logdb_snapshot_get(log, &s, &err);
	assert_true(ret >= 0);
	if (ret == 1) {
		assert_int_equal(s.index, 12);
		assert_memory_equal(s.data, "state", 5);
		free((void *)(uintptr_t)s.conf);
		free((void *)(uintptr_t)s.data);
	} else if (a->snapshot != 0) {
		fail_msg("%s: the snapshot was acknowledged and is gone", what);
	}
	logdb_close(log);
}

static void sweep_log(enum fault_kind kind, bool alone)
{
	unsigned n;

	for (n = 1; n < CALLS_MAX; n = next_call(kind, n)) {
		struct dr_error err = DR_ERROR_INIT;
		struct acked a = {.failed = DR_OK};
		char what[DR_ERROR_TEXT + 128];
		bool happened;
		int ret;

		clean();
		fault_arm(kind, n, alone);
		ret = write_log(&a, &err);
		happened = fault_disarm();
		a.failed = err.code;
		snprintf(what, sizeof(what), "log, %s %u%s (%s)", fault_name(kind), n, alone ? " alone" : "",
			 err.text);
		if (ret == 0 && !happened)
			break;
		expect_log(&a, what);
	}
	print_message("log, %s%s: to call %u\n", fault_name(kind), alone ? " alone" : "", n);
	assert_true(n < CALLS_MAX);
}

static void test_log(void **state)
{
	(void)state;
	for (int kind = 0; kind < FAULT_KINDS; kind++) {
		sweep_log((enum fault_kind)kind, false);
		sweep_log((enum fault_kind)kind, true);
	}
}

/* ---------------------------------------------------------------- apply */

#define COMMANDS 64

struct run {
	struct core core;
	unsigned n;
	uint32_t exit[COMMANDS];
	uint8_t digest[COMMANDS][DB_DIGEST_SIZE];
};

static Drover__Command *commands[COMMANDS];
static unsigned n_commands;

/* Kept as bytes of their own: the same commands for every run. */
static void keep(const Drover__Command *cmd)
{
	uint8_t bytes[8192];
	size_t size = drover__command__get_packed_size(cmd);

	assert_true(size < sizeof(bytes) && n_commands < COMMANDS);
	drover__command__pack(cmd, bytes);
	commands[n_commands] = drover__command__unpack(NULL, size, bytes);
	commands[n_commands]->version = 1;
	commands[n_commands]->utc_us = 1000000 + n_commands;
	n_commands++;
}

static void keep_commands(void)
{
	static char *const nodes[] = {"node1", "node2", "node3"};

	{
		CORE_BODY(cmd, body, INIT, init, Drover__CmdInit, drover__cmd_init);
		body.name = (char *)"test";
		body.uuid = core_bytes(200);
		body.mode = (char *)"corosync";
		body.member = 1;
		body.node = (char *)"node1";
		keep(&cmd);
	}
	for (uint8_t i = 0; i < 3; i++) {
		CORE_BODY(cmd, body, NODE_SESSION, node_session, Drover__CmdNodeSession,
			  drover__cmd_node_session);
		body.node = nodes[i];
		body.boot_id = core_bytes((uint8_t)(i + 1));
		body.start_id = core_bytes((uint8_t)(i + 1));
		body.coordinator = (char *)"node1";
		keep(&cmd);
	}
	for (uint64_t i = 0; i < 4; i++) {
		CORE_BODY(cmd, body, LIMIT_SET, limit_set, Drover__LimitSet, drover__limit_set);
		static char *mask[] = {"bandwidth"};

		cmd.request_id = core_bytes((uint8_t)(100 + i / 2)); /* two of them are repeated */
		cmd.who = (char *)"someone";
		cmd.what = (char *)"limit set";
		body.node = nodes[i % 3];
		body.bandwidth = 1000000 * i;
		body.mask = mask;
		body.n_mask = 1;
		keep(&cmd);
	}
	for (uint64_t i = 0; i < 3; i++) {
		CORE_BODY(cmd, body, NODE_ADMIN, node_admin, Drover__CmdNodeAdmin, drover__cmd_node_admin);
		body.node = i < 2 ? nodes[i] : (char *)"nobody"; /* refused */
		body.paused = true;
		keep(&cmd);
	}
	{
		CORE_BODY(cmd, body, NODE_FENCED, node_fenced, Drover__CmdNodeFenced,
			  drover__cmd_node_fenced);
		body.node = (char *)"node3";
		body.proof = (char *)"operator";
		keep(&cmd);
	}
}

static int apply_all(struct run *r, struct dr_error *err)
{
	char path[96];
	int ret;

	snprintf(path, sizeof(path), "%s/state.db", dir);
	memset(r, 0, sizeof(*r));
	ret = db_open(path, &r->core.db, err);
	while (ret == 0 && r->n < n_commands) {
		struct apply_result result;

		ret = apply_command(r->core.db, r->n + 1, commands[r->n], &result, err);
		if (ret < 0)
			break;
		r->exit[r->n] = result.exit;
		db_digest(r->core.db, r->digest[r->n]);
		r->n++;
	}
	return ret;
}

static void expect_same_run(const struct run *whole, struct run *r, const char *what)
{
	uint8_t full[DB_DIGEST_SIZE];

	for (unsigned i = 0; i < r->n; i++) {
		if (r->exit[i] != whole->exit[i])
			fail_msg("%s: command %u ended with %u instead of %u: a fault became a refusal", what,
				 i, r->exit[i], whole->exit[i]);
		if (memcmp(r->digest[i], whole->digest[i], DB_DIGEST_SIZE) != 0)
			fail_msg("%s: command %u left another state", what, i);
	}
	/* A member that goes on has the state that it says. */
	if (r->n == n_commands && db_digest_full(r->core.db, full) == 0 &&
	    memcmp(full, whole->digest[n_commands - 1], DB_DIGEST_SIZE) != 0)
		fail_msg("%s: the tables are not what the digest says", what);
}

static void sweep_apply(const struct run *whole, enum fault_kind kind, bool alone)
{
	static struct run r;
	unsigned n;

	for (n = 1; n < CALLS_MAX; n = next_call(kind, n)) {
		struct dr_error err = DR_ERROR_INIT;
		char what[DR_ERROR_TEXT + 128];
		bool happened;
		int ret;

		clean();
		fault_arm(kind, n, alone);
		ret = apply_all(&r, &err);
		happened = fault_disarm();
		snprintf(what, sizeof(what), "apply, %s %u%s (%s)", fault_name(kind), n,
			 alone ? " alone" : "", err.text);
		if (ret < 0 && !happened)
			fail_msg("%s: failed without a fault", what);
		expect_same_run(whole, &r, what);
		db_close(r.core.db);
		if (!happened)
			break;
	}
	print_message("apply, %s%s: to call %u\n", fault_name(kind), alone ? " alone" : "", n);
	assert_true(n < CALLS_MAX);
}

static void test_apply(void **state)
{
	static struct run whole;
	struct dr_error err = DR_ERROR_INIT;

	(void)state;
	keep_commands();
	clean();
	assert_int_equal(apply_all(&whole, &err), 0);
	db_close(whole.core.db);
	for (int kind = 0; kind < FAULT_MEMORY; kind++) {
		sweep_apply(&whole, (enum fault_kind)kind, false);
		sweep_apply(&whole, (enum fault_kind)kind, true);
	}
}

/* ---------------------------------------------------------------- snapshots */

static void sweep_snapshot(const struct run *whole, const uint8_t *bytes, size_t size, enum fault_kind kind)
{
	unsigned n;

	for (n = 1; n < CALLS_MAX; n = next_call(kind, n)) {
		struct dr_error err = DR_ERROR_INIT;
		uint8_t before[DB_DIGEST_SIZE], after[DB_DIGEST_SIZE], full[DB_DIGEST_SIZE];
		struct apply_result result;
		struct db *db = NULL;
		char path[96];
		bool happened;
		int ret;

		clean();
		snprintf(path, sizeof(path), "%s/state.db", dir);
		assert_int_equal(db_open(path, &db, &err), 0);
		assert_int_equal(apply_command(db, 1, commands[0], &result, &err), 0);
		db_digest(db, before);
		fault_arm(kind, n, false);
		ret = db_restore(db, bytes, size, &err);
		happened = fault_disarm();
		db_digest(db, after);
		if (ret == 0 && memcmp(after, whole->digest[n_commands - 1], DB_DIGEST_SIZE) != 0)
			fail_msg("snapshot, %s %u: restored, but not the state of the snapshot",
				 fault_name(kind), n);
		if (ret < 0 && db_failed(db, NULL) == 0 && memcmp(after, before, DB_DIGEST_SIZE) != 0)
			fail_msg("snapshot, %s %u: refused, but the old state is gone", fault_name(kind), n);
		if (db_failed(db, NULL) == 0) {
			assert_int_equal(db_digest_full(db, full), 0);
			assert_memory_equal(full, after, DB_DIGEST_SIZE);
		}
		db_close(db);
		if (!happened)
			break;
	}
	print_message("snapshot, %s: to call %u\n", fault_name(kind), n);
	assert_true(n < CALLS_MAX);
}

static void test_snapshot(void **state)
{
	static struct run whole;
	struct dr_error err = DR_ERROR_INIT;
	uint8_t *bytes = NULL;
	size_t size = 0;

	(void)state;
	clean();
	assert_int_equal(apply_all(&whole, &err), 0);
	assert_int_equal(db_serialize(whole.core.db, &bytes, &size, &err), 0);
	for (int kind = 0; kind < FAULT_KINDS; kind++)
		sweep_snapshot(&whole, bytes, size, (enum fault_kind)kind);
	free(bytes);
	db_close(whole.core.db);
	for (unsigned i = 0; i < n_commands; i++)
		drover__command__free_unpacked(commands[i], NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_log, setup, teardown),
		cmocka_unit_test_setup_teardown(test_apply, setup, teardown),
		cmocka_unit_test_setup_teardown(test_snapshot, setup, teardown),
	};

	fault_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
