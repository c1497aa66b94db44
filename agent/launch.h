/*
 * From a VM's spec to QEMU's command line (DESIGN §5).
 *
 * The launch record is made once, at the first start, and stored with the VM:
 * versioned machine type, CPU model, accelerator, and the device model part of the
 * command line with explicit ids and PCI addresses. Every later start and every
 * incoming QEMU, on whatever host, is built from it. What differs between hosts
 * (sockets, taps, sandbox, -incoming) is put in front of it by launch_argv().
 */
#ifndef DROVER_AGENT_LAUNCH_H
#define DROVER_AGENT_LAUNCH_H

#include <stdbool.h>
#include <stddef.h>

#include "agent/qprobe.h"
#include "common/conf.h"
#include "common/error.h"
#include "proto/drover.pb-c.h"

#define LAUNCH_QMP_FD 3 /* the listening monitor socket; taps follow */

/* A growing list of words, NULL-terminated. */
struct words {
	char **word;
	size_t n;
	size_t size;
	bool failed; /* out of memory: checked once at the end */
};

void words_add(struct words *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void words_fini(struct words *w);

/* Where the host-side parts of one QEMU are. */
struct launch_host {
	const char *qemu;    /* program */
	const char *run_dir; /* of this VM: console.sock, console.log, qga.sock */
	bool incoming;	     /* -incoming defer */
	size_t n_taps;	     /* descriptors LAUNCH_QMP_FD + 1 ... in the order of spec->nics */
};

/*
 * Makes the record of a VM that has none. -DR_EREFUSED names what the host lacks; -DR_EUSAGE what is not
 * supported yet. Free with drover__launch_record__free_unpacked.
 */
int launch_resolve(const Drover__VmSpec *spec, const struct qcaps *caps, enum conf_accel accel,
		   Drover__LaunchRecord **record, struct dr_error *err);

/* Can this host run that record? -DR_EREFUSED with the reason. */
int launch_check(const Drover__LaunchRecord *record, const struct qcaps *caps, struct dr_error *err);

/* Are all files that the spec names there? -DR_EREFUSED naming the first that is not. */
int launch_check_files(const Drover__VmSpec *spec, struct dr_error *err);

/* The whole command line. 0 or -DR_ENOMEM. */
int launch_argv(const Drover__VmSpec *spec, const Drover__LaunchRecord *record,
		const struct launch_host *host, struct words *argv);

/* "6f1c...": 8-4-4-4-12, lower case. */
void launch_uuid_text(const uint8_t uuid[16], char text[37]);

#endif
