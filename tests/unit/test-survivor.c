/* One of two members goes on alone (SAFETY R17): what it writes down, and what its next start makes of it. */
#include <fcntl.h>
#include <raft.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "coordinator/recover.h"

struct fixture {
	char dir[64];
	struct logdb *log;
	struct logdb_identity id;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct dr_error err = DR_ERROR_INIT;
	struct logdb_entry e = {.index = 1, .term = 3, .type = RAFT_COMMAND, .data = "x", .size = 1};

	strcpy(f->dir, "/tmp/drover-survivor-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->log = logdb_open(f->dir, &err);
	assert_non_null(f->log);
	f->id = (struct logdb_identity){.member = 7, .incarnation = 1};
	assert_int_equal(logdb_identity_set(f->log, &f->id, &err), 0);
	assert_int_equal(logdb_vote_set(f->log, 4, 7, &err), 0);
	assert_int_equal(logdb_begin(f->log, &err), 0);
	assert_int_equal(logdb_append(f->log, &e, &err), 0);
	assert_int_equal(logdb_commit(f->log, &err), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char command[128];

	logdb_close(f->log);
	snprintf(command, sizeof(command), "rm -rf %s", f->dir);
	assert_int_equal(system(command), 0);
	free(f);
	return 0;
}

static const struct recover_alone dead = {.member = 9, .node = "node2", .term = 4, .utc_us = 5};

static int keep_last(const struct logdb_entry *e, void *data)
{
	struct logdb_entry *last = data;

	*last = *e;
	last->data = NULL;
	if (e->type == RAFT_CHANGE) {
		struct raft_configuration conf;
		struct raft_buffer wanted;

		raft_configuration_init(&conf);
		assert_int_equal(raft_configuration_add(&conf, 7, "node1", RAFT_VOTER), 0);
		assert_int_equal(raft_configuration_add(&conf, 9, "node2", RAFT_SPARE), 0);
		assert_int_equal(raft_configuration_encode(&conf, &wanted), 0);
		assert_int_equal(e->size, wanted.len);
		assert_memory_equal(e->data, wanted.base, wanted.len);
		raft_free(wanted.base);
		raft_configuration_close(&conf);
	}
	return 0;
}

static int run(struct fixture *f, struct recover_alone *a)
{
	struct dr_error err = DR_ERROR_INIT;

	return recover_alone_run(f->dir, f->log, &f->id, "node1", a, &err);
}

static void test_alone(void **state)
{
	struct fixture *f = *state;
	struct dr_error err = DR_ERROR_INIT;
	struct recover_alone a = {0};
	struct logdb_entry last = {0};
	uint64_t term, vote;

	assert_int_equal(run(f, &a), 0);
	assert_int_equal(logdb_last(f->log), 1);
	assert_int_equal(recover_alone_write(f->dir, &dead, &err), 0);
	assert_int_equal(run(f, &a), 1);
	assert_int_equal(a.member, 9);
	assert_string_equal(a.node, "node2");
	assert_int_equal(logdb_last(f->log), 2);
	assert_int_equal(logdb_entries(f->log, keep_last, &last, &err), 0);
	assert_int_equal(last.type, RAFT_CHANGE);
	/* Nobody can have led in that term: it takes this member's vote. */
	assert_int_equal(logdb_vote_get(f->log, &term, &vote, &err), 0);
	assert_true(last.term > 4 && term >= last.term);
	assert_int_equal(run(f, &a), 0);
	assert_int_equal(logdb_last(f->log), 2);
}

/* The start that carried it out ended before the note was gone. */
static void test_twice(void **state)
{
	struct fixture *f = *state;
	struct dr_error err = DR_ERROR_INIT;
	struct recover_alone a = {0};

	assert_int_equal(recover_alone_write(f->dir, &dead, &err), 0);
	assert_int_equal(run(f, &a), 1);
	assert_int_equal(recover_alone_write(f->dir, &dead, &err), 0);
	assert_int_equal(run(f, &a), 1);
	assert_int_equal(logdb_last(f->log), 2);
}

static void test_damaged(void **state)
{
	struct fixture *f = *state;
	struct recover_alone a = {0};
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/alone", f->dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "member 9\n", 9), 9);
	close(fd);
	assert_int_equal(run(f, &a), -DR_ECORRUPT);
	assert_int_equal(logdb_last(f->log), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_alone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_twice, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged, setup, teardown),
	};

	return cmocka_run_group_tests_name("survivor", tests, NULL, NULL);
}
