/*
 * One side of one attempt to move a VM: what the agent's host code sees of the
 * machines in move_src.c and move_dst.c. Phases and the sequence: DESIGN §7;
 * rules: SAFETY R1–R6, R21, R24–R26, R29.
 *
 *	m = move_new(env, order);            first order for (move, attempt, role)
 *	m = move_restore(env, order, rec);   after a restart of the agent, from the store
 *	move_event(m, &(struct move_event){.type = MOVE_EV_START});
 *	... every event that concerns this attempt ...
 *	move_phase(m) == PHASE_GONE and no AgentOrders names it any more: move_free(m), forget the record.
 *
 * Nothing of it may be forgotten before that; the machine itself never frees.
 */
#ifndef DROVER_AGENT_MOVE_H
#define DROVER_AGENT_MOVE_H

#include "agent/move_env.h"

/* SAFETY R1, R2: the source's word, and going past pre-switchover, need a lease younger than this. */
#define MOVE_LEASE_FRESH_US (UINT64_C(2000) * 1000)
/* DESIGN §7.4: a grant counts from when the request was sent and is good for this long. */
#define MOVE_TOKEN_FRESH_US (UINT64_C(1000) * 1000)
#define MOVE_TOKEN_RENEW_US (UINT64_C(500) * 1000)
/* INTERFACE §2: --blackout, when the order leaves it 0. */
#define MOVE_BLACKOUT_DEFAULT_MS 300

struct move;

/* The machine keeps its own copy of the order. `env` is borrowed, for its whole life. NULL without memory. */
struct move *move_new(struct move_env *env, const Drover__MoveOrder *order);
struct move *move_restore(struct move_env *env, const Drover__MoveOrder *order,
			  const struct move_record *rec);
void move_free(struct move *m);

/* The one way in. */
void move_event(struct move *m, const struct move_event *ev);

Drover__MovePhase move_phase(const struct move *m);
const Drover__MoveOrder *move_order(const struct move *m);
/* The destination committed and continued: its QEMU belongs to the host's VM table now, whatever becomes of
 * the move. */
bool move_vm_taken(const struct move *m);

/* Fills everything but events and relay_port. Its pointers are the machine's, valid until the next event. */
void move_fact(struct move *m, Drover__MoveFact *fact);

/* "SRC_COPYING"; "?" for values without a name. */
const char *move_phase_name(Drover__MovePhase phase);

/* A sane order for a role: ids set, key of 32 bytes, names and lengths within limits. 0 or -DR_EPROTO. */
int move_order_check(const Drover__MoveOrder *order, struct dr_error *err);

#endif
