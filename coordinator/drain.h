/*
 * The leader's scheduler: what the queue of moves needs next (DESIGN §7, §9). Pure over the tables, env and
 * volatile figures; its own memory (back-off, time boxes, what it has proposed but not seen applied) is lost
 * with the leadership, on purpose (SAFETY R13, R27): make a new one for each term.
 */
#ifndef DROVER_COORDINATOR_DRAIN_H
#define DROVER_COORDINATOR_DRAIN_H

#include "common/env.h"
#include "coordinator/apply.h"
#include "coordinator/view.h"
#include "db/db.h"

struct drain_scheduler;

struct drain_scheduler *drain_scheduler_new(struct env *env);
void drain_scheduler_free(struct drain_scheduler *s);

/*
 * Emits every command that is due. Call after each applied command, and at least every 500 ms (back-off and
 * time boxes). Cheap when nothing is open. Never emits the same again before it was applied or 2 s have
 * passed.
 */
void drain_decide(struct drain_scheduler *s, struct db *db, const struct volatile_view *view,
		  command_emit_fn emit, void *data);

/* Tells the scheduler of each applied command, before drain_decide. */
void drain_applied(struct drain_scheduler *s, const Drover__Command *cmd, const struct apply_result *result);

#endif
