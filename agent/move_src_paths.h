/*
 * The source's channels: which networks are tried, and when (DESIGN §6).
 *
 * All networks of the best working rank carry the copy together. The next rank is tried when every network of
 * the better ones has failed, or has not answered for a moment; whatever is used, networks of better ranks
 * are tried again until one works, and the relay then leaves the worse ones. Mode tcp is the same with every
 * network a rank of its own, except that it does not go back within a rank.
 */
#ifndef DROVER_AGENT_MOVE_SRC_PATHS_H
#define DROVER_AGENT_MOVE_SRC_PATHS_H

#include "agent/move_base.h"

#define MOVE_PATH_RETRY_MS	500  /* after the first failure, doubled each time up to... */
#define MOVE_PATH_RETRY_MOST_MS 1000 /* a healed network is used again within 3 s */
#define MOVE_PATH_PATIENCE_MS	1500 /* for the first answer of a better rank, before the copy begins */
#define MOVE_PATH_HASTE_MS	300  /* the same while a copy waits */

/* Tries what is to be tried now. */
void src_paths(struct move *m);
void src_path_up(struct move *m, unsigned path);
/* The channel was up. */
void src_path_down(struct move *m, const struct move_event *ev);
void src_path_failed(struct move *m, const struct move_event *ev);
/* None is left. */
void src_paths_lost(struct move *m);
/* After a restart: these are up (bits). */
void src_paths_found(struct move *m, unsigned paths);

#endif
