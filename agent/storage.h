/*
 * Work on the VMs' storage, which may hang for hours (a lost NFS server): each piece runs in a child process,
 * with a deadline. Neither the agent's loop nor the agent's end waits for it; a thread would hold the agent's
 * files for as long as the storage holds the thread.
 */
#ifndef DROVER_AGENT_STORAGE_H
#define DROVER_AGENT_STORAGE_H

#include <qb/qbloop.h>

#include "common/env.h"
#include "common/error.h"
#include "proto/drover.pb-c.h"

#define STORAGE_US 10000000u /* enough for one job; then its child is killed, as far as the kernel can */

enum storage_what {
	STORAGE_WRITE,	/* nonces_write */
	STORAGE_CHECK,	/* nonces_check */
	STORAGE_REMOVE, /* nonces_remove */
	STORAGE_FILES,	/* launch_check_files */
	STORAGE_WHATS,
};

struct storage_result {
	int rc;			    /* of the function; -DR_EIO when it did not come to its end */
	const char *text;	    /* names the disk */
	Drover__DiskProof **proofs; /* STORAGE_WRITE: borrowed */
	size_t n_proofs;
};

struct storage_job;
/* From the loop, once, not after storage_forget(); the job is freed by itself. */
typedef void (*storage_fn)(enum storage_what what, const struct storage_result *result, void *data);

/* The order is copied by the fork. NULL and *err: no child could be made. */
struct storage_job *storage_start(qb_loop_t *loop, struct env *env, enum storage_what what,
				  const Drover__MoveOrder *order, uint64_t most_us, storage_fn fn, void *data,
				  struct dr_error *err);
/* Nobody wants to hear of it any more; its child ends by itself or at its deadline. */
void storage_forget(struct storage_job *job);
/* The agent ends: children that hang are left to the kernel. */
void storage_fini(void);

/* In the child: which disk is worked on; nowhere else has it any effect. */
void storage_note_disk(size_t disk);

#endif
