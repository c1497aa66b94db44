/*
 * What is believed of and from processes: only what is certain counts as their end (SAFETY R9), and a relay
 * has no privileges.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/proc.h"
#include "agent/relays.h"
#include "tests/unit/valgrind.h"

static pid_t child;
static uint64_t start_time;

/* valgrind 3.19 has no pidfds. */
#define NEEDS_PIDFD()                                                                                        \
	do {                                                                                                 \
		if (UNDER_VALGRIND)                                                                          \
			skip();                                                                              \
	} while (0)

static int setup(void **state)
{
	(void)state;
	child = fork();
	if (child == 0) {
		pause();
		_exit(0);
	}
	return child > 0 && proc_start_time(child, &start_time) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	return 0;
}

static void end_child(void)
{
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, NULL, 0), child);
}

/* Leaves room for that many more descriptors. */
static struct rlimit few_descriptors(int more)
{
	int next = dup(0);
	struct rlimit old;
	struct rlimit few;

	assert_true(next >= 0);
	close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	few = old;
	few.rlim_cur = (rlim_t)(next + more);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	return old;
}

static void test_gone(void **state)
{
	struct proc p;
	pid_t pid = child;

	(void)state;
	NEEDS_PIDFD();
	assert_int_equal(proc_open(&p, child, start_time), 0);
	assert_true(proc_alive(&p));
	assert_int_equal(proc_check(&p, "no such mark"), -DR_EREFUSED);
	proc_close(&p);
	assert_int_equal(proc_open(&p, child, start_time + 1), -DR_ENOENT);
	assert_int_equal(proc_open(&p, child, start_time), 0);
	end_child();
	child = 0;
	assert_false(proc_alive(&p));
	assert_int_equal(proc_check(&p, ""), -DR_ENOENT);
	proc_close(&p);
	assert_int_equal(proc_open(&p, pid, start_time), -DR_ENOENT);
}

static void test_not_told(void **state)
{
	struct proc p;

	(void)state;
	NEEDS_PIDFD();
	for (int more = 0; more < 2; more++) {
		struct rlimit old = few_descriptors(more);
		int rc = proc_open(&p, child, start_time);

		setrlimit(RLIMIT_NOFILE, &old);
		assert_int_equal(rc, -DR_EIO); /* the pidfd (0) or /proc/PID/stat (1) found no descriptor */
		assert_false(proc_is_open(&p));
	}
}

static void test_failed_kill(void **state)
{
	struct dr_error err = DR_ERROR_INIT;
	struct proc p;
	struct rlimit old;
	int rc;

	(void)state;
	NEEDS_PIDFD();
	assert_int_equal(proc_open(&p, child, start_time), 0);
	old = few_descriptors(0);
	rc = proc_kill(&p, SIGKILL, "", &err);
	setrlimit(RLIMIT_NOFILE, &old);
	assert_int_equal(rc, -DR_EIO);
	assert_true(proc_alive(&p));
	assert_int_equal(proc_kill(&p, SIGKILL, "", &err), 0);
	proc_close(&p);
}

static void test_relay_kinds(void **state)
{
	(void)state;
	assert_true(relay_kind_known(DROVER__RELAY_EVENT__KIND__STATS));
	assert_true(relay_kind_known(DROVER__RELAY_EVENT__KIND__NEED_CHANNEL));
	assert_false(relay_kind_known((Drover__RelayEvent__Kind)9));
	assert_false(relay_kind_known((Drover__RelayEvent__Kind)32));
	assert_false(relay_kind_known((Drover__RelayEvent__Kind)-1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_told, setup, teardown),
		cmocka_unit_test_setup_teardown(test_failed_kill, setup, teardown),
		cmocka_unit_test(test_relay_kinds),
	};

	return cmocka_run_group_tests_name("proc", tests, NULL, NULL);
}
