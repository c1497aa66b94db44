/* log.db: what was acknowledged is there after a restart, or the log is refused (SAFETY R15). */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "coordinator/logdb.h"

struct fixture {
	char dir[64];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/drover-logdb-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", f->dir);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

static void append(struct logdb *log, uint64_t from, uint64_t to)
{
	struct dr_error err = DR_ERROR_INIT;

	assert_int_equal(logdb_begin(log, &err), 0);
	for (uint64_t i = from; i <= to; i++) {
		char text[32];
		struct logdb_entry e = {.index = i, .term = 1 + i / 10, .type = 1, .data = text};

		e.size = (size_t)snprintf(text, sizeof(text), "entry %llu", (unsigned long long)i);
		assert_int_equal(logdb_append(log, &e, &err), 0);
	}
	assert_int_equal(logdb_commit(log, &err), 0);
}

static int check_entry(const struct logdb_entry *e, void *data)
{
	uint64_t *expected = data;
	char text[32];

	snprintf(text, sizeof(text), "entry %llu", (unsigned long long)*expected);
	assert_int_equal(e->index, *expected);
	assert_int_equal(e->size, strlen(text));
	assert_memory_equal(e->data, text, e->size);
	(*expected)++;
	return 0;
}

static void expect_range(struct logdb *log, uint64_t from, uint64_t to)
{
	struct dr_error err = DR_ERROR_INIT;
	uint64_t next = from;

	assert_int_equal(logdb_entries(log, check_entry, &next, &err), 0);
	assert_int_equal(next, to + 1);
	assert_int_equal(logdb_last(log), to);
	assert_int_equal(logdb_first(log), from);
}

static void test_append_truncate_reopen(void **state)
{
	struct fixture *f = *state;
	struct dr_error err = DR_ERROR_INIT;
	struct logdb *log = logdb_open(f->dir, &err);
	uint64_t term, vote;

	assert_non_null(log);
	append(log, 1, 40);
	assert_int_equal(logdb_truncate(log, 31, &err), 0);
	expect_range(log, 1, 30);
	append(log, 31, 35);
	assert_int_equal(logdb_vote_set(log, 7, 99, &err), 0);
	logdb_close(log);
	log = logdb_open(f->dir, &err);
	assert_non_null(log);
	expect_range(log, 1, 35);
	assert_int_equal(logdb_vote_get(log, &term, &vote, &err), 0);
	assert_int_equal(term, 7);
	assert_int_equal(vote, 99);
	logdb_close(log);
}

static void test_snapshot(void **state)
{
	struct fixture *f = *state;
	struct dr_error err = DR_ERROR_INIT;
	struct logdb *log = logdb_open(f->dir, &err);
	struct logdb_snapshot s = {.index = 30,
				   .term = 4,
				   .conf_index = 1,
				   .conf = "conf",
				   .conf_size = 4,
				   .data = "state",
				   .size = 5};
	struct logdb_snapshot got;

	append(log, 1, 40);
	assert_int_equal(logdb_snapshot_get(log, &got, &err), 0);
	assert_int_equal(logdb_snapshot_put(log, &s, 10, &err), 0);
	expect_range(log, 21, 40);
	logdb_close(log);
	log = logdb_open(f->dir, &err);
	assert_non_null(log);
	expect_range(log, 21, 40);
	assert_int_equal(logdb_snapshot_get(log, &got, &err), 1);
	assert_int_equal(got.index, 30);
	assert_memory_equal(got.data, "state", 5);
	free((void *)(uintptr_t)got.conf);
	free((void *)(uintptr_t)got.data);
	/* From the leader: replaces everything, entries go on behind it. */
	s.index = 100;
	assert_int_equal(logdb_snapshot_put(log, &s, 0, &err), 0);
	append(log, 101, 103);
	logdb_close(log);
	log = logdb_open(f->dir, &err);
	assert_non_null(log);
	expect_range(log, 101, 103);
	logdb_close(log);
}

static void flip(const char *dir, const char *name, long offset)
{
	char path[128];
	uint8_t byte;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, offset), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
	close(fd);
}

/* A database killed before its checkpoint, so that its commits live in the WAL only. */
static void write_and_die(const char *dir)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct dr_error err = DR_ERROR_INIT;
		struct logdb *log = logdb_open(dir, &err);

		for (uint64_t i = 1; i <= 20; i++)
			append(log, i, i);
		kill(getpid(), SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, SIGKILL);
}

static void test_wal_bit_flip_is_refused(void **state)
{
	struct fixture *f = *state;
	struct dr_error err = DR_ERROR_INIT;
	char path[128];
	struct stat st;

	write_and_die(f->dir);
	snprintf(path, sizeof(path), "%s/log.db-wal", f->dir);
	assert_int_equal(stat(path, &st), 0);
	flip(f->dir, "log.db-wal", st.st_size / 2);
	assert_null(logdb_open(f->dir, &err));
	assert_int_equal(err.code, DR_ECORRUPT);
}

struct wal {
	uint8_t *bytes;
	size_t size;
	size_t frame_size;
	size_t last_transaction; /* where its first frame begins */
};

static void wal_path(const char *dir, char path[128])
{
	snprintf(path, 128, "%s/log.db-wal", dir);
}

static struct wal wal_read(const char *dir)
{
	struct wal w = {.frame_size = 24 + 4096};
	char path[128];
	struct stat st;
	int fd;

	wal_path(dir, path);
	fd = open(path, O_RDONLY);
	assert_int_equal(fstat(fd, &st), 0);
	w.size = (size_t)st.st_size;
	w.bytes = malloc(w.size);
	assert_int_equal(read(fd, w.bytes, w.size), st.st_size);
	close(fd);
	assert_int_equal((w.size - 32) % w.frame_size, 0);
	/* The newest frame ends a transaction; behind the one before that does, the newest begins. */
	for (w.last_transaction = w.size - w.frame_size; w.last_transaction > 32;
	     w.last_transaction -= w.frame_size) {
		const uint8_t *before = w.bytes + w.last_transaction - w.frame_size;

		if (memcmp(before + 4, "\0\0\0\0", 4) != 0)
			break;
	}
	return w;
}

/* As after a power loss that took what was not synced of the mark. */
static void wal_write(const char *dir, const struct wal *w, size_t size)
{
	char path[128];
	int fd;

	wal_path(dir, path);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_int_equal(write(fd, w->bytes, size), (ssize_t)size);
	close(fd);
	snprintf(path, sizeof(path), "%s/log.mark", dir);
	assert_int_equal(truncate(path, 0), 0);
}

/* SQLite would go back to before any of them, without a word. */
static void test_wal_is_cut_off_nowhere_but_at_its_end(void **state)
{
	struct fixture *f = *state;
	struct dr_error err = DR_ERROR_INIT;
	struct wal w;

	write_and_die(f->dir);
	w = wal_read(f->dir);
	assert_true(w.last_transaction > w.size / 2 && w.last_transaction < w.size);
	for (size_t at = 32; at < w.last_transaction; at += 389) {
		w.bytes[at] ^= 0x04;
		wal_write(f->dir, &w, w.size);
		err = (struct dr_error)DR_ERROR_INIT;
		assert_null(logdb_open(f->dir, &err));
		assert_int_equal(err.code, DR_ECORRUPT);
		w.bytes[at] ^= 0x04;
	}
	w.bytes[17] ^= 0x01; /* the header's salt */
	wal_write(f->dir, &w, w.size);
	assert_null(logdb_open(f->dir, &err));
	assert_int_equal(err.code, DR_ECORRUPT);
	free(w.bytes);
}

/* What a crash leaves of a transaction that was never acknowledged. */
static void test_torn_end_of_the_wal(void **state)
{
	struct fixture *f = *state;
	struct dr_error err = DR_ERROR_INIT;
	struct logdb *log;
	struct wal w;

	write_and_die(f->dir);
	w = wal_read(f->dir);
	memset(w.bytes + w.last_transaction, 0x55, 512);
	wal_write(f->dir, &w, w.size);
	log = logdb_open(f->dir, &err);
	assert_non_null(log);
	expect_range(log, 1, 19);
	append(log, 20, 20);
	logdb_close(log);
	free(w.bytes);
}

/* Frames that a torn transaction left behind are not taken for what came after a newer one. */
static void test_second_torn_end_of_the_wal(void **state)
{
	struct fixture *f = *state;
	struct dr_error err = DR_ERROR_INIT;
	struct logdb *log;
	struct wal w;
	struct stat st;
	char path[128];

	write_and_die(f->dir);
	w = wal_read(f->dir);
	memset(w.bytes + w.last_transaction, 0x55, 512);
	wal_write(f->dir, &w, w.size);
	free(w.bytes);
	log = logdb_open(f->dir, &err);
	assert_non_null(log);
	wal_path(f->dir, path);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 0);
	logdb_close(log);
}

static void test_changed_entry_is_refused(void **state)
{
	struct fixture *f = *state;
	struct dr_error err = DR_ERROR_INIT;
	struct logdb *log = logdb_open(f->dir, &err);
	char command[256];

	append(log, 1, 20);
	logdb_close(log);
	snprintf(command, sizeof(command),
		 "sqlite3 %s/log.db \"UPDATE entry SET data = x'00' WHERE idx = 9\"", f->dir);
	assert_int_equal(system(command), 0);
	assert_null(logdb_open(f->dir, &err));
	assert_int_equal(err.code, DR_ECORRUPT);
	assert_non_null(strstr(err.text, "entry 9"));
}

static void edit(const char *dir, const char *sql)
{
	char path[128];
	sqlite3 *db = NULL;

	snprintf(path, sizeof(path), "%s/log.db", dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_changes(db), 1);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* Another vote in the same term is what a changed bit there would give. */
static void test_changed_vote_is_refused(void **state)
{
	struct fixture *f = *state;
	struct dr_error err = DR_ERROR_INIT;
	struct logdb *log = logdb_open(f->dir, &err);
	uint64_t term, vote;

	append(log, 1, 3);
	assert_int_equal(logdb_vote_set(log, 5, 77, &err), 0);
	logdb_close(log);
	log = logdb_open(f->dir, &err);
	assert_int_equal(logdb_vote_get(log, &term, &vote, &err), 0);
	assert_int_equal(term, 5);
	assert_int_equal(vote, 77);
	logdb_close(log);
	edit(f->dir, "UPDATE meta SET value = CAST(x'0000000000000004' || substr(value, 9) AS BLOB) WHERE "
		     "key = 'ballot'");
	log = logdb_open(f->dir, &err);
	assert_int_equal(logdb_vote_get(log, &term, &vote, &err), -DR_ECORRUPT);
	logdb_close(log);
	edit(f->dir, "UPDATE meta SET key = 'ballox' WHERE key = 'ballot'");
	log = logdb_open(f->dir, &err);
	assert_int_equal(logdb_vote_get(log, &term, &vote, &err), -DR_ECORRUPT);
	logdb_close(log);
}

/* The newest transaction of the WAL is the vote, and it is lost: only the mark knows. */
static void test_forgotten_vote_is_refused(void **state)
{
	struct fixture *f = *state;
	struct dr_error err = DR_ERROR_INIT;
	struct logdb *log = logdb_open(f->dir, &err);
	uint64_t term, vote;

	assert_int_equal(logdb_begin(log, &err), 0);
	assert_int_equal(logdb_vote_set(log, 5, 77, &err), 0);
	assert_int_equal(logdb_commit(log, &err), 0);
	logdb_close(log);
	log = logdb_open(f->dir, &err);
	assert_int_equal(logdb_vote_get(log, &term, &vote, &err), 0);
	assert_int_equal(vote, 77);
	logdb_close(log);
	edit(f->dir, "DELETE FROM meta WHERE key = 'ballot'");
	assert_null(logdb_open(f->dir, &err));
	assert_int_equal(err.code, DR_ECORRUPT);
}

/* Another incarnation is what all other members give way to. */
static void test_changed_identity_is_refused(void **state)
{
	struct fixture *f = *state;
	struct dr_error err = DR_ERROR_INIT;
	struct logdb_identity id = {.member = 7, .incarnation = 3, .cluster_uuid = {9}, .replaces = 6}, back;
	struct logdb *log = logdb_open(f->dir, &err);

	assert_int_equal(logdb_identity_set(log, &id, &err), 0);
	assert_int_equal(logdb_identity_get(log, &back, &err), 0);
	assert_memory_equal(&back, &id, sizeof(id));
	logdb_close(log);
	edit(f->dir,
	     "UPDATE meta SET value = CAST(substr(value, 1, 23) || x'0b' || substr(value, 25) AS BLOB) "
	     "WHERE key = 'who'");
	log = logdb_open(f->dir, &err);
	assert_int_equal(logdb_identity_get(log, &back, &err), -DR_ECORRUPT);
	logdb_close(log);
}

static void test_changed_column_is_refused(void **state)
{
	struct fixture *f = *state;
	struct dr_error err = DR_ERROR_INIT;

	logdb_close(logdb_open(f->dir, &err));
	edit(f->dir,
	     "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = replace(sql, 'member', 'mumber') "
	     "WHERE name = 'seen'");
	assert_null(logdb_open(f->dir, &err));
	assert_int_equal(err.code, DR_ECORRUPT);
}

/* It would take another member's vote: what does not fit is not known. */
static void test_changed_word_about_a_member_is_left_out(void **state)
{
	struct fixture *f = *state;
	struct dr_error err = DR_ERROR_INIT;
	const struct logdb_seen known = {.member = 5, .index = 40, .term = 3};
	struct logdb_seen seen[4];
	struct logdb *log = logdb_open(f->dir, &err);

	assert_int_equal(logdb_seen_put(log, &known, &err), 0);
	assert_int_equal(logdb_seen_get(log, seen, 4, &err), 1);
	assert_memory_equal(&seen[0], &known, sizeof(known));
	logdb_close(log);
	edit(f->dir, "UPDATE seen SET idx = 104");
	log = logdb_open(f->dir, &err);
	assert_int_equal(logdb_seen_get(log, seen, 4, &err), 0);
	logdb_close(log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_append_truncate_reopen, setup, teardown),
		cmocka_unit_test_setup_teardown(test_snapshot, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wal_bit_flip_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wal_is_cut_off_nowhere_but_at_its_end, setup, teardown),
		cmocka_unit_test_setup_teardown(test_torn_end_of_the_wal, setup, teardown),
		cmocka_unit_test_setup_teardown(test_second_torn_end_of_the_wal, setup, teardown),
		cmocka_unit_test_setup_teardown(test_changed_entry_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_changed_vote_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forgotten_vote_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_changed_identity_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_changed_column_is_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_changed_word_about_a_member_is_left_out, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
