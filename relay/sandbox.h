/*
 * What the relay gives up before it sees a byte from outside: privileges, capabilities, resources and, by
 * seccomp, every system call that moving bytes between open sockets does not need. Peer bytes, TLS and
 * (later) zstd run in here.
 */
#ifndef DROVER_RELAY_SANDBOX_H
#define DROVER_RELAY_SANDBOX_H

#include "common/error.h"

#define SANDBOX_USER   "drover-relay"
#define SANDBOX_NOBODY 65534
#define SANDBOX_FILES  64
#define SANDBOX_MEMORY (512u << 20)

/* Closes every descriptor above `last` and limits files, processes, cores and address space. */
int sandbox_limits(int last, struct dr_error *err);

/* As root: becomes SANDBOX_USER, or nobody where there is no such user. Drops all capabilities and
 * no-new-privileges. */
int sandbox_drop(struct dr_error *err);

/* Loads what OpenSSL would load later: files and algorithms. */
int sandbox_warm_up(struct dr_error *err);

/* From here on a forbidden system call ends the process. */
int sandbox_seccomp(struct dr_error *err);

#endif
