/*
 * What the host's QEMU can do, found by asking it once at the start of the agent
 * (DESIGN §7: features by asking, never by version). Whether KVM works is tried with
 * a tiny machine, not assumed from /dev/kvm.
 */
#ifndef DROVER_AGENT_QPROBE_H
#define DROVER_AGENT_QPROBE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/conf.h"
#include "common/error.h"

#define QPROBE_DEADLINE_MS 15000 /* each start of QEMU */
#define QPROBE_MACHINES	   256

struct qcaps {
	char path[256];	  /* the program, absolute */
	char version[32]; /* "7.2.22" */
	unsigned int major;
	unsigned int minor;
	char **machines; /* versioned types of the pc family; NULL-terminated */
	size_t n_machines;
	char pc[64];   /* what the alias "pc" means */
	char q35[64];  /* what the alias "q35" means */
	bool kvm;      /* a machine ran under it */
	bool kvm_sse3; /* the CPU model qemu64 runs without "host doesn't support" (else ",-sse3" is needed)
			*/
	bool kvm_host; /* "-cpu host" runs (nested hosts abort) */
	char kvm_why[160]; /* why not, for the log */
};

/*
 * Asks the program (PATH is searched). Blocks, bounded by the deadlines: call it before the loop runs.
 * cache_path: answers of an earlier start, used when program and boot are the same; "" = none.
 */
int qprobe(const char *program, enum conf_accel accel, const char *cache_path, struct qcaps *caps,
	   struct dr_error *err);
void qcaps_fini(struct qcaps *caps);

/* Does this host have the versioned machine type? */
bool qcaps_has_machine(const struct qcaps *caps, const char *machine);

#endif
