/* What should be true on a host, from applied rows (SAFETY R7). */
#ifndef DROVER_COORDINATOR_ORDERS_H
#define DROVER_COORDINATOR_ORDERS_H

#include "db/db.h"
#include "proto/drover.pb-c.h"

/*
 * The orders for the agent start `start_id` on a node; index: of the last applied command. NULL when that
 * start has no session in the rows (yet) or the node is unknown: then nothing may be told. Free with
 * drover__agent_orders__free_unpacked.
 */
Drover__AgentOrders *orders_build(struct db *db, const char *node, uint64_t term, uint64_t index,
				  const uint8_t start_id[16]);

#endif
