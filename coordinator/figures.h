/*
 * Volatile figures of moves under way: the newest Progress of each side of each attempt,
 * from own agents and from the other coordinators. Not replicated, bounded, lost at a restart.
 */
#ifndef DROVER_COORDINATOR_FIGURES_H
#define DROVER_COORDINATOR_FIGURES_H

#include <stdint.h>

#include "proto/drover.pb-c.h"

#define FIGURES_MAX 1024

struct figures;

struct figures *figures_new(void);
void figures_free(struct figures *f);
/* Copies what is newer. now_us: any monotonic clock. */
void figures_progress(struct figures *f, const Drover__Progress *progress, uint64_t now_us);
/* Borrowed until the next figures_progress; NULL: nothing heard. */
const Drover__MoveFact *figures_move(const struct figures *f, uint64_t move, uint32_t attempt,
				     Drover__MoveRole role);

#endif
