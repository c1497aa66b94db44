/* drover cluster backup and restore: a file, piece by piece. */
#ifndef DROVER_CLI_BACKUP_H
#define DROVER_CLI_BACKUP_H

#include "cli/cli.h"

int backup_run(struct cli *cli, const struct cli_parsed *p, struct dr_error *err);
int restore_run(struct cli *cli, const struct cli_parsed *p, struct dr_error *err);

#endif
