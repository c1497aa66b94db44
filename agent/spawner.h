/*
 * Starting processes that outlive the agent (DESIGN §5): QEMUs and relays. A table of two ways:
 *
 *   systemd   own scope (systemd-run --scope): the agent's unit may stop without them
 *   plain     own session and process group; whoever reaps orphans inherits it
 *
 * A child waits behind a gate until its pid is recorded: an agent that dies in
 * between leaves no process that nobody knows of.
 */
#ifndef DROVER_AGENT_SPAWNER_H
#define DROVER_AGENT_SPAWNER_H

#include <stddef.h>
#include <sys/types.h>

#include "agent/proc.h"
#include "common/error.h"

#define SPAWN_FD_FIRST 3 /* passed descriptors become 3, 4, ... in the child */
#define SPAWN_FDS_MAX  32

struct spawn {
	const char *unit;  /* "drover-vm-NAME": scope name and word for messages */
	char *const *argv; /* argv[0] is searched in PATH unless it has a slash */
	const int *fds;	   /* borrowed */
	size_t n_fds;
	const char *log_path; /* stdout and stderr, truncated */
	uid_t uid;	      /* 0: stay as the agent is */
	gid_t gid;
};

struct spawner {
	const char *name;
	/* Puts the words in front of argv that make it a scope of its own. Returns how many. */
	size_t (*prefix)(const struct spawn *s, const char **words, char *unit, size_t unit_size);
};

/* What this host has: systemd where it runs as pid 1 and systemd-run is there, else plain. */
const struct spawner *spawner_detect(void);

/* "systemd" or "plain"; NULL for other words. */
const struct spawner *spawner_find(const char *name);

/*
 * Forks the child, which waits. *gate must be given to spawner_open or spawner_abandon. The caller
 * records proc durably in between.
 */
int spawner_start(const struct spawner *sp, const struct spawn *s, struct proc *proc, int *gate,
		  struct dr_error *err);

/* Lets the child exec. */
void spawner_open(int *gate);

/* The child ends without having done anything. */
void spawner_abandon(int *gate);

#endif
