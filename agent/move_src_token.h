/* The switch-over token of a source, and the limits that keep QEMU from stopping the VM without it
 * (move_src.h). Internal to agent/move_src*.c. */
#ifndef DROVER_AGENT_MOVE_SRC_TOKEN_H
#define DROVER_AGENT_MOVE_SRC_TOKEN_H

#include "agent/move_base.h"

/* Asks for it, or renews it. */
void src_token_ask(struct move *m);
/* A new order came: was it granted? */
void src_token_look(struct move *m);
bool src_token_fresh(const struct move *m);
/* Gives it back for a while, without that it counts as not converging. */
void src_token_release(struct move *m);
/* Its timer: renewal, time box, rest. */
void src_token_timer(struct move *m);

void src_set_limit(struct move *m, enum move_limit limit);
/* What remains would be through within the blackout limit and a little more. */
bool src_near_end(const struct move *m);
bool src_far_from_end(const struct move *m);
bool src_asks_upfront(const struct move *m);
/* No more waiting for the token before `migrate`. */
bool src_upfront_over(const struct move *m);

#endif
