/* An old copy of a log is whole in itself: what the others have seen of its member must give it away. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "coordinator/recover.h"
#include "coordinator/vouch.h"

struct dir {
	char path[64];
};

static int dir_make(void **state)
{
	struct dir *d = calloc(1, sizeof(*d));

	strcpy(d->path, "/tmp/drover-vouch-XXXXXX");
	assert_non_null(mkdtemp(d->path));
	*state = d;
	return 0;
}

static int dir_remove(void **state)
{
	static const char *const names[] = {
		"log.db",	"log.db-wal",	"log.db-shm",	  "log.mark",		"member",
		"log.db.aside", "log.distrust", "log.mark.aside", "log.distrust.aside", "log.db-wal.aside"};
	struct dir *d = *state;
	char path[128];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", d->path, names[i]);
		unlink(path);
	}
	assert_int_equal(rmdir(d->path), 0);
	free(d);
	return 0;
}

static struct logdb *log_of(struct dir *d, uint64_t entries)
{
	struct dr_error err = DR_ERROR_INIT;
	struct logdb *log = logdb_open(d->path, &err);

	assert_non_null(log);
	while (logdb_last(log) < entries) {
		struct logdb_entry e = {
			.index = logdb_last(log) + 1, .term = 2, .type = 1, .data = "x", .size = 1};

		assert_int_equal(logdb_begin(log, &err), 0);
		assert_int_equal(logdb_append(log, &e, &err), 0);
		assert_int_equal(logdb_commit(log, &err), 0);
	}
	assert_int_equal(logdb_vote_set(log, 3, 0, &err), 0);
	return log;
}

static const struct consensus_member three[] = {{.id = 1, .node = "a", .role = MEMBER_VOTER},
						{.id = 2, .node = "b", .role = MEMBER_VOTER},
						{.id = 3, .node = "c", .role = MEMBER_VOTER}};

static void test_majority_speaks(void **state)
{
	struct dr_error err = DR_ERROR_INIT;
	struct logdb *log = log_of(*state, 10);
	const struct logdb_seen known = {.member = 1, .index = 10, .term = 3};
	const struct consensus_member learner[] = {
		three[1], three[2], {.id = 1, .node = "a", .role = MEMBER_LEARNER}};
	struct vouch v;

	assert_int_equal(vouch_init(&v, log, 1, &err), 0);
	assert_false(vouch_enough(&v, three, 3));
	assert_true(vouch_enough(&v, three, 1)); /* alone */
	/* It may have lost its vote with its log: silent until its list says what it is, and then as above.
	 */
	assert_false(vouch_enough(&v, learner, 3));
	assert_false(vouch_enough(&v, NULL, 0));
	assert_true(vouch_heard(&v, 9, &known)); /* no voter */
	assert_false(vouch_enough(&v, three, 3));
	assert_true(vouch_heard(&v, 2, &known));
	assert_true(vouch_enough(&v, three, 3));
	assert_false(vouch_enough(&v, three, 2) && v.n_heard == 1);
	logdb_close(log);
}

static void test_old_copy(void **state)
{
	struct dr_error err = DR_ERROR_INIT;
	struct logdb *log = log_of(*state, 10);
	const struct logdb_seen further = {.member = 1, .index = 11, .term = 3};
	const struct logdb_seen later = {.member = 1, .index = 9, .term = 4};
	struct vouch v;

	assert_int_equal(vouch_init(&v, log, 1, &err), 0);
	assert_false(vouch_heard(&v, 2, &further));
	assert_false(vouch_heard(&v, 2, &later));
	assert_true(vouch_heard(&v, 2, NULL));
	v.mute = false; /* once it votes, its own progress is no proof against it */
	assert_true(vouch_heard(&v, 2, &further));
	logdb_close(log);
}

static void test_kept(void **state)
{
	struct dr_error err = DR_ERROR_INIT;
	struct logdb *log = log_of(*state, 3);
	struct logdb_seen seen = {.member = 2, .index = 7, .term = 3};
	struct logdb_seen hint = {.member = 2, .term = 2};
	struct vouch v;

	assert_int_equal(vouch_init(&v, log, 1, &err), 0);
	assert_true(vouch_note(&v, &seen));
	assert_false(vouch_note(&v, &seen));
	assert_int_equal(logdb_seen_put(log, &seen, &err), 0);
	seen.index = 5; /* never backwards */
	assert_false(vouch_note(&v, &seen));
	seen.term = 4;
	assert_true(vouch_note(&v, &seen));
	assert_int_equal(seen.index, 7);
	assert_int_equal(logdb_seen_put(log, &seen, &err), 0);
	logdb_close(log);
	log = log_of(*state, 3);
	assert_int_equal(vouch_init(&v, log, 1, &err), 0);
	assert_int_equal(v.n_seen, 1);
	assert_int_equal(v.seen[0].index, 7);
	assert_int_equal(v.seen[0].term, 4);
	hint.index = 9; /* shown by a Raft message: told to others, not kept */
	vouch_hint(&v, &hint);
	assert_false(vouch_note(&v, &seen));
	assert_int_equal(vouch_known(&v, 0).index, 9);
	assert_int_equal(vouch_known(&v, 0).term, 4);
	hint.member = 1; /* itself */
	vouch_hint(&v, &hint);
	assert_int_equal(v.n_seen, 1);
	logdb_close(log);
}

static void test_distrusted(void **state)
{
	struct dir *d = *state;
	struct dr_error err = DR_ERROR_INIT;
	struct logdb_identity id = {.member = 77, .incarnation = 2, .cluster_uuid = {1, 2, 0xff}}, back;
	struct logdb *log = log_of(d, 3);

	logdb_close(log);
	assert_int_equal(recover_identity_read(d->path, &back, &err), 0);
	assert_int_equal(recover_identity_write(d->path, &id, &err), 0);
	assert_int_equal(recover_distrust(d->path, "node2 says so", &err), 0);
	assert_null(logdb_open(d->path, &err));
	assert_int_equal(err.code, DR_ECORRUPT);
	assert_non_null(strstr(err.text, "node2 says so"));
	err = (struct dr_error)DR_ERROR_INIT;
	assert_int_equal(recover_identity_read(d->path, &back, &err), 1);
	assert_int_equal(back.member, 77);
	assert_int_equal(back.incarnation, 2);
	assert_memory_equal(back.cluster_uuid, id.cluster_uuid, LOGDB_UUID);
	assert_int_equal(recover_set_aside(d->path, &err), 0);
	log = logdb_open(d->path, &err);
	assert_non_null(log);
	assert_int_equal(logdb_last(log), 0);
	logdb_close(log);
}

/* A changed digit in it would be another incarnation. */
static void test_changed_member_file(void **state)
{
	struct dir *d = *state;
	struct dr_error err = DR_ERROR_INIT;
	struct logdb_identity id = {.member = 77, .incarnation = 1, .cluster_uuid = {1, 2}}, back;
	char path[128], text[256] = "";
	FILE *f;

	assert_int_equal(recover_identity_write(d->path, &id, &err), 0);
	snprintf(path, sizeof(path), "%s/member", d->path);
	f = fopen(path, "r+");
	assert_non_null(f);
	assert_true(fread(text, 1, sizeof(text) - 1, f) > 0);
	strstr(text, "incarnation 1")[12] ^= 8;
	rewind(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(recover_identity_read(d->path, &back, &err), -DR_ECORRUPT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_majority_speaks, dir_make, dir_remove),
		cmocka_unit_test_setup_teardown(test_old_copy, dir_make, dir_remove),
		cmocka_unit_test_setup_teardown(test_kept, dir_make, dir_remove),
		cmocka_unit_test_setup_teardown(test_distrusted, dir_make, dir_remove),
		cmocka_unit_test_setup_teardown(test_changed_member_file, dir_make, dir_remove),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
