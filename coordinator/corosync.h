/*
 * Corosync as the coordinators use it: CPG carries messages (fragmented, reassembled),
 * libquorum says whether this side has a majority, CPG's members say who is alive.
 * Measured behaviour that this file is built on (recipes): CS_OK never means delivered,
 * TRY_AGAIN is answered by a timer, one thread owns each handle, quorum and CPG events
 * arrive in any order. Safety never depends on any of it (DESIGN §3).
 *
 * When corosync is not there or dies, everything is re-initialised by a timer; until
 * then the transport is not quorate and what is sent is lost.
 */
#ifndef DROVER_COORDINATOR_COROSYNC_H
#define DROVER_COORDINATOR_COROSYNC_H

#include <qb/qbloop.h>

#include "common/env.h"
#include "common/error.h"
#include "coordinator/transport.h"

struct corosync;

struct corosync_ops {
	/* A whole message; bytes borrowed. Own messages are not delivered. */
	void (*receive)(void *data, uint32_t nodeid, const uint8_t *bytes, size_t size);
	/* A coordinator process has joined or left the group. */
	void (*member)(void *data, uint32_t nodeid, bool joined);
	void (*quorum)(void *data, bool quorate);
};

struct corosync *corosync_new(qb_loop_t *loop, struct env *env, const char *group,
			      const struct corosync_ops *ops, void *data, struct dr_error *err);
void corosync_free(struct corosync *c);

struct transport *corosync_transport(struct corosync *c);
/* Connected to corosync and in its group. */
bool corosync_connected(const struct corosync *c);
bool corosync_quorate(const struct corosync *c);
/* 0 until connected. */
uint32_t corosync_nodeid(const struct corosync *c);
/* Effective token timeout in ms (cmap); 1000 when it cannot be read. Asks corosync once, blocking at most
 * some milliseconds: call it before the loop runs. */
unsigned corosync_token_ms(void);
/* Whether a corosync answers on this host. */
bool corosync_present(void);

#endif
