/* agent/lease.c under the names of sim_lease.h. */
#define SIM_LEASE_BODY
#include "sim_lease.h"

#include "agent/lease.c"
