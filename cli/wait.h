/* --wait: follows what a request has begun until it ends, over any loss of coordinators. */
#ifndef DROVER_CLI_WAIT_H
#define DROVER_CLI_WAIT_H

#include "cli/cli.h"

/*
 * resp: the answer to the request. Returns the exit status: 0 only if all went well. Prints progress (unless
 * JSON) and the result. deadline_ms as in call_request.
 */
int wait_run(struct cli *cli, const struct cli_parsed *p, const Drover__Response *resp, uint64_t deadline_ms);

#endif
