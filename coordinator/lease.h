/*
 * The leader's book of leases (DESIGN §5, SAFETY R8, R9). Make a new one when leadership begins; it counts
 * every agent as renewed at that moment, plus 1 %.
 *
 *     request in -> lease_request -> lease_round (once a second: the command to propose)
 *     that command committed in this term -> lease_committed -> grants to send
 *
 * The thread that grants must be the one whose tick calls lease_round: if the main loop stands still, so do
 * the leases (R8).
 */
#ifndef DROVER_COORDINATOR_LEASE_H
#define DROVER_COORDINATOR_LEASE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/env.h"
#include "coordinator/view.h"
#include "db/db.h"

#define LEASE_DURATION_MS 30000

struct lease_book;

struct lease_book *lease_book_new(struct env *env, uint64_t term, uint64_t duration_ms);
void lease_book_free(struct lease_book *book);

/* A request that came in now, for the agent start of a session. Only the newest of a node is kept. */
void lease_request(struct lease_book *book, const char *node, const uint8_t start_id[16], uint64_t seq);

/* The round to propose now, with what was asked for since the last one: emitted at most one at a time;
 * nothing when nobody asks. A round whose fate is unknown for 5 s is forgotten. */
void lease_round(struct lease_book *book, command_emit_fn emit, void *data);

/* A LeaseRound was applied. term: the command's. For each request in it that this book proposed and that may
 * be granted (session in the rows is that start, node not fenced or being fenced), grant is called. */
typedef void (*lease_grant_fn)(void *data, const char *node, const uint8_t start_id[16],
			       const Drover__LeaseGrant *grant);
void lease_committed(struct lease_book *book, struct db *db, uint64_t term,
		     const Drover__CmdLeaseRound *round, lease_grant_fn grant, void *data);

/* From proposing NodeFenced until it is decided, a node gets no lease (SAFETY R11). */
void lease_block(struct lease_book *book, const char *node, bool blocked);
bool lease_blocked(struct lease_book *book, const char *node);

/* Milliseconds left by the leader's count; 0 = expired. */
uint64_t lease_left_ms(struct lease_book *book, const char *node);

/* Emits NodeHealth for nodes whose row differs from what the book says: up; isolated (session but no lease);
 * down (no session and no lease). An expired lease proves nothing about VMs (R9). Call once a second. */
void lease_health(struct lease_book *book, struct db *db, command_emit_fn emit, void *data);

#endif
