/* The options of `vm add` and `vm set`: words to drover.VmSpec (INTERFACE §2, "VM spec"). */
#ifndef DROVER_CLI_VMSPEC_H
#define DROVER_CLI_VMSPEC_H

#include "cli/cli.h"

extern const struct cli_option vmspec_options[];

/*
 * Fills *spec (arrays in cli's arena) from the options that were given; for a new VM also the defaults, and
 * what must not be missing is asked for. mask (may be NULL) gets the names of the fields that were given.
 * -DR_EUSAGE.
 */
int vmspec_build(struct cli *cli, const struct cli_parsed *p, bool new_vm, Drover__VmSpec *spec, char ***mask,
		 size_t *n_mask, struct dr_error *err);

#endif
