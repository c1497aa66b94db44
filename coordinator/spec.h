/* VM specs: what is possible, and changing single fields. Pure. */
#ifndef DROVER_COORDINATOR_SPEC_H
#define DROVER_COORDINATOR_SPEC_H

#include <stdbool.h>
#include <stddef.h>

#include "common/error.h"
#include "proto/drover.pb-c.h"

#define SPEC_MEMORY_MIN	  (1ull << 20)
#define SPEC_MEMORY_MAX	  (64ull << 40)
#define SPEC_CPUS_MAX	  4096
#define SPEC_PRIORITY_MAX 3000
#define SPEC_DISKS_MAX	  64
#define SPEC_NICS_MAX	  32

/* 0, or -DR_EUSAGE with words about the first thing that is wrong. */
int spec_check(const Drover__VmSpec *spec, struct dr_error *err);

/* Takes the fields named in mask from `from` into spec (both heap messages). *hardware: one of them is part
 * of the machine, so that the VM must be off. -DR_EUSAGE: no such field. */
int spec_merge(Drover__VmSpec *spec, const Drover__VmSpec *from, char *const *mask, size_t n_mask,
	       bool *hardware, struct dr_error *err);

#endif
