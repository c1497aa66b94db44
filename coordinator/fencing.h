/*
 * The leader makes sure that a host is dead (DESIGN §10, SAFETY R9, R11, R13):
 *
 *   request --> NodeFencing(on) --applied--> fence agent --off for certain--> NodeFenced --applied--> answer
 *                    | refused                   | failed                          | refused
 *                    +---------------------------+------> NodeFencing(off) <-------+
 *
 * The announcement is committed before the agent starts: whoever holds the host's session stops its leases
 * and orders from the applied row. A leader that ends leaves the row; the next one fences anew if the client
 * asks again, or takes the announcement back after a while. It never goes on with what another one began.
 */
#ifndef DROVER_COORDINATOR_FENCING_H
#define DROVER_COORDINATOR_FENCING_H

#include "coordinator/server.h"

/* A request that may belong to a fencing under way. 0: it does not; 1: *answer is filled; 2: ask again. */
int fencing_request(struct server *s, const Drover__Request *request, Drover__Response *answer);
/* announcement: of requests_fence.c. Returns as leader_request. */
int fencing_begin(struct server *s, const Drover__Request *request, const char *who,
		  const Drover__Command *announcement, Drover__Response *answer);
void fencing_applied(struct server *s, uint64_t index, const Drover__Command *cmd,
		     const struct apply_result *result);
/* Once a second. */
void fencing_tick(struct server *s);
/* Leads no more: the agents are killed. */
void fencing_end(struct server *s);

#endif
