/*
 * The thread that owns log.db. It takes all operations that wait and puts them into
 * one transaction (group commit); what came in during the fsync makes up the next one.
 * Completions run on the loop. The main loop never waits for a disk, with one
 * exception that Raft demands: term and vote are stored before the call returns.
 *
 * The first error is final: every later operation fails with it, on_fatal runs once on
 * the loop, and the member must stop (SAFETY R15: nothing after a failed fsync is true).
 */
#ifndef DROVER_COORDINATOR_LOGWRITER_H
#define DROVER_COORDINATOR_LOGWRITER_H

#include <qb/qbloop.h>

#include "coordinator/logdb.h"

struct logwriter;

typedef void (*logwriter_done_fn)(void *data, int status);
typedef void (*logwriter_fatal_fn)(void *data, const struct dr_error *why);
/* snapshot: malloc'ed parts, the callee's; NULL when there is none or status < 0. */
typedef void (*logwriter_snapshot_fn)(void *data, int status, struct logdb_snapshot *snapshot);

/* Takes log over: it is closed by logwriter_free. */
struct logwriter *logwriter_new(qb_loop_t *loop, struct logdb *log, logwriter_fatal_fn on_fatal, void *data,
				struct dr_error *err);
/* Finishes what is queued, runs the completions, joins the thread. */
void logwriter_free(struct logwriter *w);

/* The entries' data must stay until done ran. */
int logwriter_append(struct logwriter *w, const struct logdb_entry *entries, unsigned n,
		     logwriter_done_fn done, void *data);
int logwriter_truncate(struct logwriter *w, uint64_t index);
/* conf and data must stay until done ran. */
int logwriter_snapshot_put(struct logwriter *w, const struct logdb_snapshot *snapshot, unsigned trailing,
			   logwriter_done_fn done, void *data);
int logwriter_snapshot_get(struct logwriter *w, logwriter_snapshot_fn done, void *data);
/* Kept with the next operation that writes; nothing is lost that matters if there is none. */
int logwriter_seen(struct logwriter *w, const struct logdb_seen *seen);
/* Waits until the disk has it. */
int logwriter_vote(struct logwriter *w, uint64_t term, uint64_t vote);

#endif
