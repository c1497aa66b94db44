/*
 * Every allocation of ours and every call of the disk under consensus fails once, while a member is made,
 * leads, commits, makes a snapshot, changes its members, ends and comes back. Wherever it fails: what was
 * acknowledged is there when the next process starts without faults, or the log is refused.
 *
 * libraft has the C library's heap meanwhile: 0.15 dies of some of its own allocations that fail. And no
 * member is added while memory is short: it frees the new member list twice when the change can't be
 * appended.
 */
#include <raft.h>

#include "tests/unit/fault-vfs.h"
#include "tests/unit/lone-member.h"
#include "tests/unit/valgrind.h"

#define COMMANDS  25
#define CALLS_MAX 20000
#define WAIT_US	  400000 /* for what a lost message or a failed snapshot holds up */

#ifdef __SANITIZE_ADDRESS__
const char *__lsan_default_suppressions(void);

/* libraft does not hear of an append that failed (raft_io.c), and keeps its request: the process is to end.
 */
const char *__lsan_default_suppressions(void)
{
	return "leak:libraft";
}
#endif

static struct lone *l;
/* A timer that can't be had ends the process by itself (common/env_real.c): not what is looked at here. */
static struct env *real_env;
static struct env sound_env;

static uint64_t sound_now(struct env *env)
{
	(void)env;
	return env_now_us(real_env);
}

static void sound_random(struct env *env, void *buf, size_t size)
{
	(void)env;
	env_random(real_env, buf, size);
}

static uint64_t sound_timer_start(struct env *env, uint64_t delay_us, env_timer_fn fn, void *data)
{
	uint64_t id;

	(void)env;
	fault_pause(true);
	id = env_timer_start(real_env, delay_us, fn, data);
	fault_pause(false);
	return id;
}

static void sound_timer_stop(struct env *env, uint64_t id)
{
	(void)env;
	env_timer_stop(real_env, &id);
}

static bool over(struct lone *lone)
{
	return lone->fatal != DR_OK || lone->acked + lone->failed >= COMMANDS;
}

static bool settled(struct lone *lone)
{
	return lone->fatal != DR_OK || consensus_members_settled(lone->consensus);
}

static bool start(bool first)
{
	if (lone_make(l) == NULL)
		return false;
	raft_heap_set_default();
	if (first && consensus_bootstrap(l->consensus, &l->err) != 0)
		return false;
	if (consensus_start(l->consensus, &l->err) != 0)
		return false;
	return consensus_barrier(l->consensus, NULL, NULL) == 0 && lone_runs(l, lone_leads, WAIT_US) &&
	       l->fatal == DR_OK;
}

/* A whole life, as far as it gets. */
static void life(enum fault_kind kind)
{
	struct dr_error err = DR_ERROR_INIT;

	l->acked = 0;
	l->failed = 0;
	if (start(true)) {
		for (int i = 0; i < COMMANDS; i++)
			l->failed += lone_propose(l) != 0 ? 1 : 0;
		lone_runs(l, over, WAIT_US);
		if (kind != FAULT_MEMORY && l->fatal == DR_OK &&
		    consensus_add(l->consensus, 102, "node2", &err) == 0)
			lone_runs(l, settled, WAIT_US);
	}
	if (l->consensus != NULL)
		lone_stop(l);
}

/* The next process, on a sound machine. */
static void expect_all(enum fault_kind kind, unsigned n, uint64_t acked)
{
	if (lone_make(l) == NULL) {
		if (kind == FAULT_MEMORY || l->err.code != DR_ECORRUPT)
			fail_msg("%s %u: %s", fault_name(kind), n, l->err.text);
		return;
	}
	if (consensus_start(l->consensus, &l->err) != 0)
		fail_msg("%s %u: %s", fault_name(kind), n, l->err.text);
	if (acked > 0) {
		assert_int_equal(consensus_barrier(l->consensus, NULL, NULL), 0);
		lone_until(l, lone_leads);
		if (l->applied < acked)
			fail_msg("%s %u: %llu commands were acknowledged, %llu are there", fault_name(kind),
				 n, (unsigned long long)acked, (unsigned long long)l->applied);
	}
	lone_stop(l);
}

static void sweep(enum fault_kind kind)
{
	bool happened = true;
	unsigned n;

	for (n = 1; n < CALLS_MAX && happened; n++) {
		uint64_t acked;

		lone_wipe(l);
		fault_arm(kind, n, true);
		life(kind);
		acked = l->acked;
		if (acked > 0) /* a fault that comes as late as the next process */
			start(false);
		if (l->consensus != NULL)
			lone_stop(l);
		happened = fault_disarm();
		expect_all(kind, n, acked);
	}
	assert_true(n > 2 && n < CALLS_MAX);
	print_message("%s: %u calls\n", fault_name(kind), n - 1);
}

static void test_memory(void **state)
{
	(void)state;
	if (UNDER_VALGRIND)
		skip(); /* what libraft keeps of a failed append is a leak there; a sanitizer looks at the
			   rest */
	sweep(FAULT_MEMORY);
}

static void test_disk(void **state)
{
	static const enum fault_kind kinds[] = {FAULT_FULL, FAULT_WRITE, FAULT_READ,
						FAULT_SYNC, FAULT_OPEN,	 FAULT_TRUNCATE};

	(void)state;
	if (UNDER_VALGRIND)
		skip(); /* as above */
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		sweep(kinds[i]);
}

static int setup(void **state)
{
	(void)state;
	l = lone_new();
	real_env = l->env;
	sound_env = *real_env;
	sound_env.now_us = sound_now;
	sound_env.random = sound_random;
	sound_env.timer_start = sound_timer_start;
	sound_env.timer_stop = sound_timer_stop;
	l->env = &sound_env;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	l->env = real_env;
	lone_free(l);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_disk, setup, teardown),
	};

	fault_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
