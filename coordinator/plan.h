/* Where a VM can go and how to get there (DESIGN §9). Pure over rows. */
#ifndef DROVER_COORDINATOR_PLAN_H
#define DROVER_COORDINATOR_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/rows.h"
#include "db/db.h"
#include "proto/drover.pb-c.h"

#define PLAN_PATHS_MAX 16
#define PLAN_WHY       1024

/* An assignment that is proposed but not applied: its room counts as taken. */
struct plan_pending {
	char from[ROWS_NAME];
	char to[ROWS_NAME];
	uint64_t memory;
};

struct plan_input {
	struct db *db;
	const struct vm_row *vm;
	uint64_t move;	     /* 0: none yet (a plan or a dry run) */
	const char *want_to; /* "" = any */
	const char *network; /* "" = ranked */
	const char *mode;    /* "" = limit's */
	bool offline;	     /* only ownership moves: no slots, no paths, no agents */
	bool any_slot;	     /* a plan: slots will be free when its turn comes */
	const struct plan_pending *pending;
	unsigned n_pending;
};

struct plan_choice {
	char to[ROWS_NAME];
	char mode[ROWS_NAME];
	Drover__MoveOrder *paths; /* only paths are set; NULL for an offline move */
	uint64_t predicted_ms;
	bool waits; /* with -DR_EAGAIN: the reason is of a passing kind (host away) and not a full slot */
	char why[PLAN_WHY]; /* when there is no choice: each node and why it is none */
};

/*
 * Chooses target and paths. 0; -DR_EAGAIN: a target exists, but it or the source has no free slot now;
 * -DR_EREFUSED: no node can take it as things are (out->why; out->waits when a host that is away might). Free
 * *out with plan_choice_fini in each case.
 */
int plan_choose(const struct plan_input *in, struct plan_choice *out);
void plan_choice_fini(struct plan_choice *choice);

/* Why a running VM can't be moved live at all (no_move, devices, TCG on an old QEMU); false: it can. */
bool plan_unmovable(struct db *db, const struct vm_row *vm, char *why, size_t size);

/* The networks that two nodes share, best first; heap (a MoveOrder with nothing but paths). network: "" or
 * the only one wanted. *speed: bytes/s of the best one as far as known, else 0. */
Drover__MoveOrder *plan_paths(struct db *db, const char *from, const char *to, const char *network,
			      uint64_t *speed);

/* The node that a VM without one should be put on: most free memory among its possible owners. start: it must
 * be able to run it now. false: none, *why says. */
bool plan_place(struct db *db, const Drover__VmSpec *spec, bool start, char node[ROWS_NAME], char *why,
		size_t size);

#endif
