/* The agent's lease and bandwidth budget: pure arithmetic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "agent/budget.h"
#include "agent/lease.h"

#define SECOND UINT64_C(1000000)

static void test_counts_from_sending(void **state)
{
	struct lease l;
	uint64_t a, b;

	(void)state;
	lease_init(&l);
	assert_false(lease_valid(&l, 5));
	assert_true(lease_age_us(&l, 5) == UINT64_MAX);
	a = lease_request(&l, 10 * SECOND);
	b = lease_request(&l, 11 * SECOND);
	/* The answer to the first comes 3 s late: it still counts from 10 s. */
	assert_true(lease_grant(&l, a, 30000, 1));
	assert_int_equal(lease_age_us(&l, 13 * SECOND), 3 * SECOND);
	assert_true(lease_valid(&l, 40 * SECOND - 1));
	assert_false(lease_valid(&l, 40 * SECOND));
	assert_true(lease_grant(&l, b, 30000, 1));
	assert_true(lease_valid(&l, 41 * SECOND - 1));
	/* The past is no lease: a clock that stood still. */
	assert_false(lease_valid(&l, 10 * SECOND));
}

static void test_refusals(void **state)
{
	struct lease l;
	uint64_t a, b;

	(void)state;
	lease_init(&l);
	assert_false(lease_grant(&l, 0, 30000, 1));
	assert_false(lease_grant(&l, 7, 30000, 1));
	a = lease_request(&l, 1 * SECOND);
	b = lease_request(&l, 2 * SECOND);
	assert_true(lease_grant(&l, b, 30000, 5));
	assert_false(lease_grant(&l, b, 30000, 5)); /* once */
	assert_false(lease_grant(&l, a, 30000, 5)); /* older than what we have */
	a = lease_request(&l, 3 * SECOND);
	assert_false(lease_grant(&l, a, 30000, 4)); /* a leader that was put aside */
	a = lease_request(&l, 4 * SECOND);
	lease_forget_requests(&l);
	assert_false(lease_grant(&l, a, 30000, 5)); /* of another session */
	assert_true(lease_valid(&l, 5 * SECOND));
	/* So many requests later the slot holds another one. */
	a = lease_request(&l, 5 * SECOND);
	for (int i = 0; i < LEASE_REQUESTS; i++)
		lease_request(&l, 6 * SECOND);
	assert_false(lease_grant(&l, a, 30000, 5));
}

static void test_budget(void **state)
{
	struct budget_flow f[3] = {{.network = 0}, {.network = 0}, {.network = 1}};
	uint64_t nets[2] = {0, 0};

	(void)state;
	budget_divide(0, nets, 2, f, 3);
	assert_int_equal(f[0].share, 0);
	assert_int_equal(f[2].share, 0);
	budget_divide(90, nets, 2, f, 3);
	assert_int_equal(f[0].share, 30);
	assert_int_equal(f[2].share, 30);
	/* A narrow network leaves the rest to the other flow. */
	nets[0] = 20;
	budget_divide(90, nets, 2, f, 3);
	assert_int_equal(f[0].share, 10);
	assert_int_equal(f[1].share, 10);
	assert_int_equal(f[2].share, 70);
	/* Only a network's budget: the others are free. */
	budget_divide(0, nets, 2, f, 3);
	assert_int_equal(f[0].share, 10);
	assert_int_equal(f[2].share, 0);
	/* One flow gets it all; no flow gets nothing. */
	nets[0] = 0;
	budget_divide(50, nets, 2, f, 1);
	assert_int_equal(f[0].share, 50);
	budget_divide(1, nets, 2, f, 3);
	assert_true(f[0].share >= 1 && f[1].share >= 1 && f[2].share >= 1);
	f[0].network = BUDGET_NO_NETWORK;
	nets[0] = 4;
	budget_divide(100, nets, 2, f, 3);
	assert_int_equal(f[1].share, 4);
	assert_int_equal(f[0].share, 48);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_counts_from_sending),
					   cmocka_unit_test(test_refusals), cmocka_unit_test(test_budget)};

	return cmocka_run_group_tests_name("agent-lease", tests, NULL, NULL);
}
