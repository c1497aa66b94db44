/*
 * Runs fence agents (the standard interface of fence-agents: an executable that reads key=value lines on
 * stdin) without ever holding up the loop. One run takes a host's power away and makes sure of it:
 *
 *   action=off --exit 0--> action=status --exit 2 (off)--> done(0)
 *       |                        |  exit 0 (on): asked again, each second
 *       v any other exit, deadline                v any other exit, deadline
 *   done(negative)                            done(negative)
 *
 * An agent gets a clean environment, no descriptor but 0 to 2, and a session of its own, which is killed when
 * it ends or its deadline passes. What it prints is read up to a limit; its last line, secrets masked, is the
 * reason of a failure.
 */
#ifndef DROVER_COORDINATOR_FENCE_H
#define DROVER_COORDINATOR_FENCE_H

#include <qb/qbloop.h>

#include "common/env.h"
#include "common/error.h"

#define FENCE_DEADLINE_MS 60000 /* of each: off, and the status that confirms it */

struct fence_runner;

/* The host's power is off for certain (0), or is not known to be: err says why. The run is over. */
typedef void (*fence_done_fn)(void *data, const char *node, int status, const struct dr_error *err);

/* dir: where the agents are; "": /usr/sbin, then /usr/local/sbin. NULL: no memory. */
struct fence_runner *fence_runner_new(qb_loop_t *loop, struct env *env, const char *dir,
				      unsigned deadline_ms);
/* Kills what runs; done is not called. */
void fence_runner_free(struct fence_runner *r);

/* Begins; done is called from the loop. spec: fence_spec.h. -DR_EAGAIN: one is under way for that host.
 * -DR_ENOENT: no such agent on this host. */
int fence_off(struct fence_runner *r, const char *node, const char *spec, fence_done_fn done, void *data,
	      struct dr_error *err);
/* Kills the host's run, if there is one; done is not called. What it did by then is not known. */
void fence_cancel(struct fence_runner *r, const char *node);

#endif
