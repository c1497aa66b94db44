#include "relay/budget.h"

#define QUANTUM_MAX (64u << 10) /* worth a system call */
#define QUANTUM_US  2000	/* or what the rate gives in this time, if that is less */
#define QUANTUM_MIN 2048

static int64_t quantum(const struct budget *budget)
{
	uint64_t q = budget->rate * QUANTUM_US / 1000000;

	return (int64_t)(q > QUANTUM_MAX ? QUANTUM_MAX : q < QUANTUM_MIN ? QUANTUM_MIN : q);
}

static void fill(struct budget *budget, uint64_t now_us)
{
	int64_t most = (int64_t)(budget->rate * BUDGET_BURST_MS / 1000);
	uint64_t passed = now_us - budget->filled_us;

	if (most < quantum(budget))
		most = quantum(budget);
	if (passed > 1000000)
		passed = 1000000;
	budget->tokens += (int64_t)(budget->rate * passed / 1000000);
	if (budget->tokens > most)
		budget->tokens = most;
	budget->filled_us = now_us;
}

void budget_set(struct budget *budget, uint64_t rate, uint64_t now_us)
{
	if (budget->rate == 0)
		budget->tokens = 0;
	else
		fill(budget, now_us);
	budget->rate = rate;
	budget->filled_us = now_us;
}

void budget_urgent(struct budget *budget, bool urgent, uint64_t now_us)
{
	if (budget->urgent == urgent)
		return;
	budget->urgent = urgent;
	budget->tokens = 0;
	budget->filled_us = now_us;
}

size_t budget_allowed(struct budget *budget, uint64_t now_us, uint64_t *wake_us)
{
	if (budget->rate == 0 || budget->urgent)
		return SIZE_MAX;
	/* Small steps would lose fractions of a byte each time. */
	if (now_us - budget->filled_us >= 200)
		fill(budget, now_us);
	if (budget->tokens >= quantum(budget))
		return (size_t)budget->tokens;
	*wake_us = now_us + (uint64_t)(quantum(budget) - budget->tokens) * 1000000 / budget->rate + 200;
	return 0;
}

void budget_spend(struct budget *budget, size_t bytes)
{
	if (budget->rate != 0 && !budget->urgent)
		budget->tokens -= (int64_t)bytes;
}
