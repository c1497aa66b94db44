/*
 * What the leader and the readers know beside the tables: volatile figures that are not replicated (DESIGN
 * §4). Filled by the sessions and the leader loop; read by requests, drain and plan. Any pointer may be NULL.
 */
#ifndef DROVER_COORDINATOR_VIEW_H
#define DROVER_COORDINATOR_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/drover.pb-c.h"

/* Where a command of the leader's own goes; borrowed during the call. The receiver stamps version, utc_us,
 * term and incarnation and proposes it, once (SAFETY R13). */
typedef void (*command_emit_fn)(void *data, const Drover__Command *cmd);

struct volatile_view {
	void *data;
	/* The newest fact of one side of an attempt from Progress or reports; NULL: none. Borrowed. */
	const Drover__MoveFact *(*move_fact)(void *data, uint64_t move, uint32_t attempt,
					     Drover__MoveRole role);
	/* Milliseconds of lease left as the leader counts; 0: none or unknown here. */
	uint64_t (*lease_ms)(void *data, const char *node);
	/* Dirty rate of a VM in bytes/s; 0: unknown. */
	uint64_t (*dirty_rate)(void *data, const char *vm);
	/* Cluster figures that are not in the tables: quorate, leader, term, coordinators... Fills what it
	 * knows. */
	void (*cluster)(void *data, Drover__ClusterStatus *status);
	bool stale; /* the leader has not been heard within the last heartbeat */
};

#endif
