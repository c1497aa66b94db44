/* The real environment's timers: in order, exactly once, not after they were stopped, and free of cost while
 * they wait. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "common/env_real.h"
#include "tests/unit/valgrind.h"

static qb_loop_t *loop;
static struct env *env;
static char fired[64];
static uint64_t due_us;

static int setup(void **state)
{
	(void)state;
	loop = qb_loop_create();
	env = env_real_new(loop);
	memset(fired, 0, sizeof(fired));
	return env != NULL ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	env_real_free(env);
	qb_loop_destroy(loop);
	return 0;
}

static void note(void *data)
{
	strncat(fired, data, 1);
}

static void end(void *data)
{
	(void)data;
	assert_true(env_now_us(env) >= due_us);
	qb_loop_stop(loop);
}

static char a[] = "a", b[] = "b", c[] = "c", d[] = "d";

static void run_for(uint64_t us)
{
	due_us = env_now_us(env) + us;
	env_timer_start(env, us, end, NULL);
	qb_loop_run(loop);
}

static void test_order(void **state)
{
	uint64_t stopped, first;

	(void)state;
	env_timer_start(env, 20000, note, c);
	first = env_timer_start(env, 0, note, d);
	env_timer_start(env, 5000, note, a);
	env_timer_start(env, 5000, note, b);
	stopped = env_timer_start(env, 1000, note, d);
	env_timer_start(env, UINT64_MAX, note, d);
	env_timer_stop(env, &first);
	assert_int_equal(first, 0);
	env_timer_stop(env, &stopped);
	run_for(50000);
	assert_string_equal(fired, "abc");
	run_for(1000);
	assert_string_equal(fired, "abc");
}

static uint64_t other;

static void stop_other(void *data)
{
	note(data);
	env_timer_stop(env, &other);
	env_timer_start(env, 0, note, b);
}

/* Both are due: the first one stops the second, which then must not come, and starts one that must. */
static void test_stop_when_due(void **state)
{
	struct timespec later = {.tv_nsec = 5000000};

	(void)state;
	env_timer_start(env, 0, stop_other, a);
	other = env_timer_start(env, 0, note, d);
	nanosleep(&later, NULL);
	run_for(5000);
	assert_string_equal(fired, "ab");
}

static void again(void *data)
{
	unsigned *left = data;

	if (--*left > 0)
		env_timer_start(env, 5900, again, left);
	else
		qb_loop_stop(loop);
}

/* 100 timers in 0.6 s. Spinning through the last fraction of a millisecond of each costs a tenth of that. */
static void test_waits_without_work(void **state)
{
	struct timespec used;
	unsigned left = 100;
	uint64_t us;

	(void)state;
	if (UNDER_VALGRIND)
		skip(); /* whose own work is counted */
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	us = (uint64_t)used.tv_sec * 1000000 + (uint64_t)used.tv_nsec / 1000;
	again(&left);
	qb_loop_run(loop);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	us = (uint64_t)used.tv_sec * 1000000 + (uint64_t)used.tv_nsec / 1000 - us;
	assert_in_range(us, 0, 25000);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {CASE(test_order), CASE(test_stop_when_due),
					   CASE(test_waits_without_work)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
