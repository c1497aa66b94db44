/* common/fsm: tables, changes, and what is refused. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "agent/move_base.h"
#include "agent/vm.h"
#include "common/fsm.h"

enum { A, B, C, N };

static const struct fsm_state table[] = {
	[A] = {.name = "A", .next = FSM_BIT(B)},
	[B] = {.name = "B", .next = FSM_BIT(A) | FSM_BIT(C)},
	[C] = {.name = "C", .final = true},
};

static char last[64];

static void changed(void *owner, const char *from, const char *to, const char *why)
{
	(void)owner;
	snprintf(last, sizeof(last), "%s>%s:%s", from, to, why);
}

static void test_changes(void **state)
{
	struct fsm fsm;

	(void)state;
	fsm_init(&fsm, table, N, A, NULL);
	fsm.changed = changed;
	assert_true(fsm_allowed(&fsm, B));
	assert_false(fsm_allowed(&fsm, C));
	assert_false(fsm_allowed(&fsm, 63));
	fsm_change(&fsm, B, "because");
	assert_string_equal(last, "A>B:because");
	assert_false(fsm_final(&fsm));
	fsm_change(&fsm, C, "end");
	assert_true(fsm_final(&fsm));
	assert_string_equal(fsm_name(table, N, 9), "?");
}

static bool never(const void *owner, unsigned state)
{
	(void)owner;
	(void)state;
	return false;
}

/* Runs fn in a child; true if it aborted. */
static bool aborts(void (*fn)(void))
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		struct rlimit none = {0, 0};

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGABRT, SIG_DFL);
		if (freopen("/dev/null", "w", stderr) == NULL)
			_exit(1);
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void forbidden(void)
{
	struct fsm fsm;

	fsm_init(&fsm, table, N, A, NULL);
	fsm_change(&fsm, C, "not declared");
}

static void invariant(void)
{
	struct fsm fsm;

	fsm_init(&fsm, table, N, A, NULL);
	fsm.invariant = never;
	fsm_change(&fsm, B, "broken");
}

static void test_aborts(void **state)
{
	(void)state;
	assert_true(aborts(forbidden));
	assert_true(aborts(invariant));
}

static void test_tables(void **state)
{
	static const struct fsm_state dead_end[] = {{.name = "X", .next = FSM_BIT(1)}, {.name = "Y"}};
	static const struct fsm_state endless[] = {{.name = "X", .next = FSM_BIT(0)}};
	static const struct fsm_state nowhere[] = {{.name = "X", .next = FSM_BIT(5), .final = true}};

	(void)state;
	assert_null(fsm_check_table(table, N));
	assert_non_null(fsm_check_table(dead_end, 2));
	assert_non_null(fsm_check_table(endless, 1));
	assert_non_null(fsm_check_table(nowhere, 1));
	assert_null(fsm_check_table(move_src_table, MOVE_TABLE_SIZE));
	assert_null(fsm_check_table(move_dst_table, MOVE_TABLE_SIZE));
	assert_null(fsm_check_table(vm_table, VM_P_N));
}

/* Phases only go forward, in both tables. */
static void test_forward(void **state)
{
	const struct fsm_state *tables[] = {move_src_table, move_dst_table};

	(void)state;
	for (unsigned t = 0; t < 2; t++)
		for (unsigned from = 0; from < MOVE_TABLE_SIZE; from++)
			for (unsigned to = 0; to <= from; to++)
				assert_true((tables[t][from].next & FSM_BIT(to)) == 0);
}

/* Whatever phase a VM with a QEMU is in, a move that began before may commit, or lose the QEMU after its
 * word. */
static void test_leaving(void **state)
{
	static const enum vm_phase at[] = {VM_P_ADOPTING, VM_P_RUNNING, VM_P_PAUSED, VM_P_STOPPING,
					   VM_P_KILLING};

	(void)state;
	for (unsigned i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
		assert_true((vm_table[at[i]].next & FSM_BIT(VM_P_LEAVING)) != 0);
		assert_true((vm_table[at[i]].next & FSM_BIT(VM_P_LOST)) != 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_changes), cmocka_unit_test(test_aborts),	cmocka_unit_test(test_tables),
		cmocka_unit_test(test_forward), cmocka_unit_test(test_leaving),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
