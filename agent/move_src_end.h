/* How a source ends: stopped VMs and the brake, the abort, the clean-up. Internal to agent/move_src*.c. */
#ifndef DROVER_AGENT_MOVE_SRC_END_H
#define DROVER_AGENT_MOVE_SRC_END_H

#include "agent/move_base.h"

/* The VM is stopped since at_us (0: now, or never heard of before): R29's clock runs. */
void src_stopped(struct move *m, uint64_t at_us);
/* QEMU says RESUME. */
void src_resumed(struct move *m);
/* R29's timer: before the word the brake; while aborting the brake again. */
void src_r29(struct move *m);
/* The destination's VM runs: the blackout is known. */
void src_peer_resumed(struct move *m, uint64_t at_us);

/* Enters ABORTING. After the word only for a committed abort (R4). */
void src_abort(struct move *m, const char *why);
void src_cont_failed(struct move *m, const char *text);

/* The steps of the two last phases. */
void src_aborting(struct move *m);
void src_finishing(struct move *m);

#endif
