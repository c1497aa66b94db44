/*
 * The deterministic state machine (DESIGN §3): every member runs it over the same commands in log order.
 * It sees nothing but its arguments: no clock, no randomness, no placement decisions of its own.
 */
#ifndef DROVER_COORDINATOR_APPLY_H
#define DROVER_COORDINATOR_APPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "db/db.h"
#include "proto/drover.pb-c.h"

/*
 * The newest cluster version that this program knows; it knows the one before, too. The rows say at which
 * version the cluster is: apply follows that, not the program (SAFETY R20). 1  the first 2
 * CmdNodeSession.saw_boot is compared; CmdClusterVersion
 */
#ifdef DROVER_COMPAT_TEST /* configure --enable-compat-test: the program before this one */
#define APPLY_VERSION 1
#elif defined(DROVER_MUTANTS) /* the simulator: each of its processes is a program of its own */
#define APPLY_VERSION sim_apply_version()
unsigned sim_apply_version(void);
#else
#define APPLY_VERSION 2
#endif
#define APPLY_VERSION_FIRST 1
#define APPLY_V_SAW_BOOT    2

#define APPLY_TOUCHED_MAX 64 /* more nodes than this: touched_all */
#define APPLY_MESSAGE	  1024

struct apply_result {
	uint32_t exit; /* INTERFACE §2; not 0: refused, and nothing but request and history was written */
	bool changed;
	bool repeated;		     /* the request id was applied before: this is its recorded result */
	char message[APPLY_MESSAGE]; /* one line; several objects are separated by "; " */
	char object_kind[16];	     /* of a created object: "vm", "move", "drain", ... */
	uint64_t object_id;
	char object_name[64];
	bool touched_all; /* every agent's orders may have changed */
	unsigned n_touched;
	char touched[APPLY_TOUCHED_MAX][64]; /* nodes whose orders may have changed */
	unsigned events;		     /* rows written into event at this index */
};

/*
 * Applies one command in a transaction of its own. Returns 0 (*out says what came of it), or a negative code
 * after which this member must stop: -DR_EBUG for a command that this program does not know (SAFETY R20; the
 * state is untouched), -DR_ECORRUPT or -DR_EIO when SQLite or an invariant of the tables failed (R19).
 */
int apply_command(struct db *db, uint64_t index, const Drover__Command *cmd, struct apply_result *out,
		  struct dr_error *err);

/* The cluster version that a command needs: goes into Command.version. It may not be proposed to a cluster
 * below it. */
unsigned apply_needs(const Drover__Command *cmd);

/* Index of the last command in the state; 0 in an empty one. */
uint64_t apply_index(struct db *db);

/* Name of a command's body for logs: "move_commit". */
const char *apply_command_name(const Drover__Command *cmd);

#endif
