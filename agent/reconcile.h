/* From orders (what should be true) to VMs and moves; refuses what is older than what was obeyed (SAFETY R7).
 */
#ifndef DROVER_AGENT_RECONCILE_H
#define DROVER_AGENT_RECONCILE_H

#include "agent/agent.h"

/* False: this host belongs to another cluster. The first cluster that it meets is remembered. */
bool reconcile_cluster(struct agent *a, const ProtobufCBinaryData *uuid);

/* A whole set of orders from the session. */
void reconcile_orders(struct agent *a, const Drover__AgentOrders *orders);

/* The cluster incarnation of a coordinator: false when this host has obeyed a higher one; a higher one is
 * stored before anything else is done with it (SAFETY R18). */
bool reconcile_incarnation(struct agent *a, uint64_t incarnation);
/* A new session: what an earlier one ordered counts no more until it is ordered again. */
void reconcile_forget_orders(struct agent *a);

#endif
