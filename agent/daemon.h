/* The agent as a whole: opens its parts in order, runs, ends. Linked by main.c and by tests. */
#ifndef DROVER_AGENT_DAEMON_H
#define DROVER_AGENT_DAEMON_H

#include "agent/agent.h"

#define DAEMON_LEAVE_US 5000000u /* SIGTERM: at most this long for leaving_committed (SAFETY R10) */

/*
 * Opens everything and finds again what an earlier agent left. -DR_EREFUSED: another agent has the data
 * directory. On failure agent_fini() is still the caller's to call.
 */
int agent_init(struct agent *a, const struct dr_conf *conf, qb_loop_t *loop, struct dr_error *err);

/* Says that it leaves and stops the loop when that is committed, or after DAEMON_LEAVE_US. */
void agent_leave(struct agent *a);

/* VMs and relays run on. */
void agent_fini(struct agent *a);

#endif
