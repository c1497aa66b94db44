/*
 * One bandwidth budget for all outgoing moves of a host (DESIGN §8), pure: bytes of
 * TCP payload per second, for the node and for each network, divided max-min fair.
 */
#ifndef DROVER_AGENT_BUDGET_H
#define DROVER_AGENT_BUDGET_H

#include <stddef.h>
#include <stdint.h>

#define BUDGET_NO_NETWORK SIZE_MAX

struct budget_flow {
	size_t network; /* index into networks[]; BUDGET_NO_NETWORK: only the node's budget counts */
	uint64_t share; /* result; 0 = no limit */
};

/*
 * node, networks[]: 0 = none. A share is never 0 where there is a limit: a flow always gets at least 1
 * byte/s. Flows that a narrow network holds back leave the rest of the node's budget to the others.
 */
void budget_divide(uint64_t node, const uint64_t *networks, size_t n_networks, struct budget_flow *flows,
		   size_t n_flows);

#endif
