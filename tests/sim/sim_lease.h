/* The agent's real lease (agent/lease.c). Its names would meet those of the coordinator's lease book. */
#ifndef DROVER_TESTS_SIM_LEASE_H
#define DROVER_TESTS_SIM_LEASE_H

#define lease_init	      agent_lease_init
#define lease_request	      agent_lease_request
#define lease_grant	      agent_lease_grant
#define lease_valid	      agent_lease_valid
#define lease_age_us	      agent_lease_age_us
#define lease_forget_requests agent_lease_forget_requests
#include "agent/lease.h"
#ifndef SIM_LEASE_BODY
#undef lease_init
#undef lease_request
#undef lease_grant
#undef lease_valid
#undef lease_age_us
#undef lease_forget_requests
#endif

#endif
