#include "agent/budget.h"

#include <stdbool.h>
#include <stdlib.h>

#define OPEN UINT64_MAX

/* What of a budget is left for each of its flows that has no share yet; OPEN without a limit or such flows.
 */
static uint64_t level(uint64_t budget, size_t network, bool node, const struct budget_flow *flows, size_t n)
{
	uint64_t used = 0;
	uint64_t waiting = 0;

	if (budget == 0)
		return OPEN;
	for (size_t i = 0; i < n; i++) {
		if (!node && flows[i].network != network)
			continue;
		if (flows[i].share == 0)
			waiting++;
		else if (flows[i].share != OPEN)
			used += flows[i].share;
	}
	if (waiting == 0)
		return OPEN;
	return used >= budget ? 1 : (budget - used) / waiting != 0 ? (budget - used) / waiting : 1;
}

void budget_divide(uint64_t node, const uint64_t *networks, size_t n_networks, struct budget_flow *flows,
		   size_t n_flows)
{
	for (size_t i = 0; i < n_flows; i++)
		flows[i].share = 0;
	/* Each round settles the flows of the tightest budget: at most one round per budget. */
	for (size_t round = 0; round <= n_networks; round++) {
		uint64_t least = level(node, 0, true, flows, n_flows);
		size_t tightest = BUDGET_NO_NETWORK;

		for (size_t k = 0; k < n_networks; k++) {
			uint64_t here = level(networks[k], k, false, flows, n_flows);

			if (here < least) {
				least = here;
				tightest = k;
			}
		}
		for (size_t i = 0; i < n_flows; i++)
			if (flows[i].share == 0 &&
			    (tightest == BUDGET_NO_NETWORK || flows[i].network == tightest))
				flows[i].share = least;
	}
	for (size_t i = 0; i < n_flows; i++)
		if (flows[i].share == OPEN)
			flows[i].share = 0;
}
