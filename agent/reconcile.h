/* From orders (what should be true) to VMs and moves; refuses what is older than what was obeyed (SAFETY R7).
 */
#ifndef DROVER_AGENT_RECONCILE_H
#define DROVER_AGENT_RECONCILE_H

#include "agent/agent.h"

/* False: this host belongs to another cluster. The first cluster that it meets is remembered. */
bool reconcile_cluster(struct agent *a, const ProtobufCBinaryData *uuid);

/* A whole set of orders from the session. */
void reconcile_orders(struct agent *a, const Drover__AgentOrders *orders);

#endif
