/* Requests to whichever coordinator answers, repeated with one id over lost connections (SAFETY R13). */
#ifndef DROVER_CLI_CALL_H
#define DROVER_CLI_CALL_H

#include "cli/cli.h"

#define CALL_NO_DEADLINE UINT64_MAX

/* Fills cli's address list from --connect and the configuration. */
int call_addresses(struct cli *cli, struct dr_error *err);

/*
 * Sends req (its id and timeout are filled here) and returns the response. On a lost connection it goes on
 * with the next address and the same id until deadline_ms on the transport's clock. Returns 0 whatever the
 * response's exit is; -DR_ENODAEMON, -DR_EAUTH, -DR_ETIMEOUT (mutating: the work may go on).
 */
int call_request(struct cli *cli, Drover__Request *req, bool mutating, uint64_t deadline_ms,
		 Drover__Response **resp, struct dr_error *err);

/* now + timeout_ms on the transport's clock; CALL_NO_DEADLINE for 0. */
uint64_t call_deadline(struct cli *cli, uint64_t timeout_ms);

#endif
