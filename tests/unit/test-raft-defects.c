/*
 * What libraft 0.15 is known to do wrong, reached on purpose (HACKING.md, "Known defects of libraft"): a
 * follower gets what leads there from the test, which plays its leaders. #250 and #323 (a member change that
 * is taken back) are in test-consensus-edges.c.
 */
#include "tests/unit/lone-member.h"

#include <raft.h>

#include "coordinator/logdb.h"

static struct lone *l;

/* ---------------------------------------------------------------- a heap that notices */

#define FREED_MAX 4096

static void *freed[FREED_MAX];
static unsigned n_freed, n_twice;

/* Nothing is freed really, so that an address stands for one allocation. */
static void note_free(void *data, void *ptr)
{
	(void)data;
	for (unsigned i = 0; ptr != NULL && i < n_freed; i++)
		if (freed[i] == ptr) {
			n_twice++;
			return;
		}
	if (ptr != NULL && n_freed < FREED_MAX)
		freed[n_freed++] = ptr;
}

static void *get(void *data, size_t size)
{
	(void)data;
	return calloc(1, size);
}

static void *get_many(void *data, size_t n, size_t size)
{
	(void)data;
	return calloc(n, size);
}

static void *get_more(void *data, void *ptr, size_t size)
{
	(void)data;
	return realloc(ptr, size);
}

static void *get_aligned(void *data, size_t alignment, size_t size)
{
	(void)data;
	return aligned_alloc(alignment, size);
}

static void free_aligned(void *data, size_t alignment, void *ptr)
{
	(void)alignment;
	note_free(data, ptr);
}

static struct raft_heap noticing = {.malloc = get,
				    .free = note_free,
				    .calloc = get_many,
				    .realloc = get_more,
				    .aligned_alloc = get_aligned,
				    .aligned_free = free_aligned};

/* ---------------------------------------------------------------- a follower of the test */

static int setup(void **state)
{
	(void)state;
	l = lone_new();
	n_freed = n_twice = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (l->consensus != NULL)
		lone_stop(l);
	for (unsigned i = 0; i < n_freed; i++)
		free(freed[i]);
	consensus_use_heap();
	lone_free(l);
	return 0;
}

static void join(void)
{
	assert_non_null(lone_make(l));
	assert_int_equal(consensus_start(l->consensus, &l->err), 0);
}

static void receive(uint64_t from, Drover__RaftRpc *rpc)
{
	rpc->address = (char *)(uintptr_t) "node2@66";
	consensus_receive(l->consensus, from, rpc);
}

/* The state as of an index, three voters, this one among them. */
static void install(uint64_t from, uint64_t term, uint64_t index)
{
	static const char *const names[3] = {"node1", "node2@66", "node3@67"};
	Drover__RaftRpc rpc = DROVER__RAFT_RPC__INIT;
	Drover__RaftServer servers[3];
	Drover__RaftServer *conf[3];

	for (unsigned i = 0; i < 3; i++) {
		drover__raft_server__init(&servers[i]);
		servers[i].id = 101 + i;
		servers[i].address = (char *)(uintptr_t)names[i];
		servers[i].role = RAFT_VOTER;
		conf[i] = &servers[i];
	}
	rpc.type = RAFT_IO_INSTALL_SNAPSHOT;
	rpc.term = term;
	rpc.last_index = index;
	rpc.last_term = term;
	rpc.conf = conf;
	rpc.n_conf = 3;
	rpc.conf_index = 1;
	rpc.data.data = (uint8_t *)&index;
	rpc.data.len = sizeof(index);
	receive(from, &rpc);
}

static void append(uint64_t from, uint64_t term, uint64_t prev, uint64_t prev_term, uint64_t commit,
		   uint64_t entry_term, const char *text)
{
	Drover__RaftRpc rpc = DROVER__RAFT_RPC__INIT;
	Drover__RaftEntry entry = DROVER__RAFT_ENTRY__INIT;
	Drover__RaftEntry *list[1] = {&entry};

	rpc.type = RAFT_IO_APPEND_ENTRIES;
	rpc.term = term;
	rpc.prev_log_index = prev;
	rpc.prev_log_term = prev_term;
	rpc.leader_commit = commit;
	rpc.entries = list;
	rpc.n_entries = text != NULL ? 1 : 0;
	entry.term = entry_term;
	entry.type = RAFT_COMMAND;
	entry.data.data = (uint8_t *)(uintptr_t)text;
	entry.data.len = text != NULL ? strlen(text) : 0;
	receive(from, &rpc);
}

static uint64_t wanted;

static bool has_applied(struct lone *lone)
{
	return lone->fatal != DR_OK || lone->applied >= wanted;
}

static void until_at(bool (*fn)(struct lone *), uint64_t index, int line)
{
	wanted = index;
	if (!lone_runs(l, fn, LONE_DEADLINE_US) || l->fatal != DR_OK)
		fail_msg("line %d: applied %llu of %llu, fatal %d", line, (unsigned long long)l->applied,
			 (unsigned long long)index, (int)l->fatal);
}
#define until(fn, index) until_at(fn, index, __LINE__)

/* Its leader names its last entry as committed, and says so until it is applied: before it is stored that has
 * no effect. */
static struct {
	uint64_t from, term, index, index_term;
} heartbeat;

static bool has_committed(struct lone *lone)
{
	append(heartbeat.from, heartbeat.term, heartbeat.index, heartbeat.index_term, heartbeat.index, 0,
	       NULL);
	return has_applied(lone);
}

#define commit(from_, term_, index_, index_term_)                                                            \
	do {                                                                                                 \
		heartbeat.from = from_;                                                                      \
		heartbeat.term = term_;                                                                      \
		heartbeat.index = index_;                                                                    \
		heartbeat.index_term = index_term_;                                                          \
		until(has_committed, index_);                                                                \
	} while (0)

static void expect_last(uint64_t want_index, uint64_t want_term)
{
	uint64_t index, term;

	consensus_last(l->consensus, &index, &term);
	assert_int_equal(index, want_index);
	assert_int_equal(term, want_term);
}

/* ---------------------------------------------------------------- #470, #483 */

/*
 * Index 11 of term 2 is being stored when the leader of term 3 has another one for it; then the first one
 * leads again, in term 4, and sends its own once more. That all happens while a disk is slow; here, before
 * the loop has had a turn.
 */
static void test_cut_off_while_stored(void **state)
{
	(void)state;
	join();
	install(102, 2, 10);
	until(has_applied, 10);
	raft_heap_set(&noticing);
	append(102, 2, 10, 2, 10, 2, "first");
	append(103, 3, 10, 2, 10, 3, "second");
	append(102, 4, 10, 2, 10, 2, "first");
	commit(102, 4, 11, 2);
	expect_last(11, 2);
	lone_stop(l);
	assert_int_equal(n_twice, 0);
	/* What the disk has is what was agreed on. */
	join();
	expect_last(11, 2);
}

/* It is said again, and then it counts. */
static void test_cut_off_later(void **state)
{
	(void)state;
	join();
	install(102, 2, 10);
	until(has_applied, 10);
	append(102, 2, 10, 2, 10, 2, "first");
	append(103, 3, 10, 2, 10, 3, "second");
	expect_last(11, 2);
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t index, term;

		consensus_last(l->consensus, &index, &term);
		if (term == 3)
			break;
		usleep(1000);
		until(has_applied, 10); /* a turn of the loop */
		append(103, 3, 10, 2, 10, 3, "second");
	}
	commit(103, 3, 11, 3);
	expect_last(11, 3);
	lone_stop(l);
	join();
	expect_last(11, 3);
}

/* ---------------------------------------------------------------- #199 */

/* A snapshot far ahead of the log that is there: at the next start neither is without the other. */
static void test_snapshot_ahead(void **state)
{
	(void)state;
	join();
	install(102, 2, 10);
	until(has_applied, 10);
	append(102, 2, 10, 2, 10, 2, "eleven");
	append(102, 2, 11, 2, 11, 2, "twelve");
	commit(102, 2, 12, 2);
	install(103, 3, 5000);
	until(has_applied, 5000);
	lone_stop(l);
	for (unsigned i = 0; i < 2; i++) {
		join();
		assert_int_equal(l->fatal, DR_OK);
		assert_int_equal(l->applied, 5000);
		expect_last(5000 + i, 3);
		append(103, 3, 5000 + i, 3, 5000, 3, "next");
		commit(103, 3, 5001 + i, 3);
		lone_stop(l);
	}
	/* In the log itself: it begins right behind its snapshot, whatever was there before. */
	{
		struct logdb *log = logdb_open(l->dir, &l->err);

		assert_non_null(log);
		assert_int_equal(logdb_first(log), 5001);
		assert_int_equal(logdb_last(log), 5002);
		logdb_close(log);
	}
}

/* ---------------------------------------------------------------- what an answer names */

/* The furthest entry that was acknowledged to the leader of a term. */
static uint64_t acknowledged(uint64_t term)
{
	uint64_t most = 0;

	for (unsigned i = 0; i < l->n_sent && i < LONE_SENT; i++) {
		const Drover__RaftRpc *rpc = l->sent[i] != NULL ? l->sent[i]->raft : NULL;

		if (rpc != NULL && rpc->type == RAFT_IO_APPEND_ENTRIES_RESULT && rpc->term == term &&
		    rpc->rejected == 0 && rpc->last_log_index > most)
			most = rpc->last_log_index;
	}
	return most;
}

static bool has_acknowledged(struct lone *lone)
{
	return lone->fatal != DR_OK || acknowledged(heartbeat.term) >= wanted;
}

static bool never(struct lone *lone)
{
	(void)lone;
	return false;
}

/*
 * Entries 11 and 12 are of a leader that was deposed. The next one compares index 10 and nothing else; it
 * must not take what lies behind for its own 11, which it would commit, and which one member alone would
 * have.
 */
static void test_answer_ends_with_what_was_compared(void **state)
{
	(void)state;
	join();
	install(102, 2, 10);
	until(has_applied, 10);
	append(102, 2, 10, 2, 10, 2, "eleven");
	append(102, 2, 11, 2, 10, 2, "twelve");
	heartbeat.term = 2;
	until(has_acknowledged, 12);
	append(103, 3, 10, 2, 10, 0, NULL);
	heartbeat.term = 3;
	until(has_acknowledged, 10);
	assert_int_equal(acknowledged(3), 10);
	expect_last(12, 2); /* nobody has contradicted it */
}

/* A snapshot that ends with an entry which the disk does not have yet: libraft finds it in its log, and calls
 * it stored. */
static void test_answer_names_what_is_stored(void **state)
{
	(void)state;
	join();
	install(102, 2, 10);
	until(has_applied, 10);
	append(102, 2, 10, 2, 10, 2, "eleven");
	install(102, 2, 11);
	assert_true(acknowledged(2) <= 10);
	heartbeat.term = 2;
	until(has_acknowledged, 11);
	assert_int_equal(acknowledged(2), 11);
}

/* Entry 11 is still being stored when the next leader speaks. */
static void test_answer_is_for_whom_it_was_stored(void **state)
{
	(void)state;
	join();
	install(102, 2, 10);
	until(has_applied, 10);
	append(102, 2, 10, 2, 10, 2, "eleven");
	append(103, 3, 10, 2, 10, 0, NULL);
	lone_runs(l, never, 100000); /* it is stored meanwhile */
	assert_int_equal(acknowledged(3), 10);
	assert_int_equal(acknowledged(2), 10); /* the snapshot */
	append(103, 3, 10, 2, 10, 0, NULL);
	lone_runs(l, never, 20000);
	assert_int_equal(acknowledged(3), 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_cut_off_while_stored, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cut_off_later, setup, teardown),
		cmocka_unit_test_setup_teardown(test_snapshot_ahead, setup, teardown),
		cmocka_unit_test_setup_teardown(test_answer_ends_with_what_was_compared, setup, teardown),
		cmocka_unit_test_setup_teardown(test_answer_names_what_is_stored, setup, teardown),
		cmocka_unit_test_setup_teardown(test_answer_is_for_whom_it_was_stored, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
