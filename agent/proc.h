/*
 * A process that outlives the agent: found again by pid and start time, held by
 * pidfd, killed only after R25's checks (a pid may have been reused).
 */
#ifndef DROVER_AGENT_PROC_H
#define DROVER_AGENT_PROC_H

#include <qb/qbloop.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/error.h"

struct proc {
	pid_t pid;
	uint64_t start_time; /* clock ticks since boot, of /proc/PID/stat */
	int pidfd;	     /* -1: none */
};

#define PROC_NONE ((struct proc){.pid = 0, .start_time = 0, .pidfd = -1})

/* How a process ended. */
struct proc_exit {
	bool known; /* false: not our child (an earlier agent started it), status is lost */
	int status; /* of wait(2) */
};

/* Start time of a live process; -DR_ENOENT when there is none, -DR_EIO when that cannot be told. */
int proc_start_time(pid_t pid, uint64_t *ticks);

/*
 * Opens the process again. -DR_ENOENT: it is certainly gone, or is another one (start time differs; 0 matches
 * any). -DR_EIO: whether it lives cannot be told now (no descriptor, no memory, /proc unreadable); that is no
 * proof of anything (SAFETY R9).
 */
int proc_open(struct proc *p, pid_t pid, uint64_t start_time);

/* Closes the pidfd. The process goes on. */
void proc_close(struct proc *p);

bool proc_is_open(const struct proc *p);

/* Has it not ended yet? True also when that cannot be told. */
bool proc_alive(const struct proc *p);

/* Does an argument of the process contain mark? */
bool proc_cmdline_has(pid_t pid, const char *mark);

/*
 * Calls fn with each process that has an argument which begins with prefix, and that argument. Ends early
 * when fn returns anything but 0. 0, fn's result, or -DR_EIO: the processes cannot be read.
 */
int proc_find(const char *prefix, int (*fn)(pid_t pid, const char *arg, void *data), void *data);

/*
 * Is it still the process that was recorded: start time, and mark on its command line? 0 also for one that is
 * just ending and has no command line any more. -DR_ENOENT: it ended; -DR_EREFUSED: another one; -DR_EIO:
 * cannot be told now.
 */
int proc_check(const struct proc *p, const char *mark);

/*
 * Sends a signal by pidfd after checking start time and that the command line contains mark (the VM's UUID or
 * the relay's name; SAFETY R25). -DR_ENOENT: gone already; -DR_EREFUSED: it is not the process that it should
 * be; -DR_EIO: not killed, may be tried again.
 */
int proc_kill(const struct proc *p, int signum, const char *mark, struct dr_error *err);

/* Reaps it if it is an ended child of ours. Never blocks. */
struct proc_exit proc_reap(const struct proc *p);

/* "killed by signal 9 (Killed)", "exit status 1", "ended (status unknown)". */
void proc_exit_text(const struct proc_exit *e, char *buf, size_t size);

#endif
