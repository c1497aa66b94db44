/*
 * Client requests: turned into commands by the leader, answered from rows by anyone (INTERFACE §2).
 */
#ifndef DROVER_COORDINATOR_REQUESTS_H
#define DROVER_COORDINATOR_REQUESTS_H

#include "common/env.h"
#include "coordinator/apply.h"
#include "coordinator/view.h"
#include "db/db.h"
#include "proto/drover.pb-c.h"

enum request_class {
	REQUEST_READ,	/* requests_read, on any coordinator */
	REQUEST_WRITE,	/* request_to_command, on the leader */
	REQUEST_CLUSTER /* init, join, token, join_request: the caller's own */
};
enum request_class request_class(const Drover__Request *request);

/*
 * Leader only. Checks a request, chooses and stamps what the command needs (UUIDs, MACs, nodes). Exactly one
 * of *cmd and *answer is set, malloc'ed: a command to propose (version, term and incarnation not yet stamped;
 * free with drover__command__free_unpacked), or the answer already: a refusal, or what a dry run would do
 * (free with drover__response__free_unpacked). who: "uid 0 on node1".
 */
void request_to_command(struct db *db, struct env *env, const struct volatile_view *view,
			const Drover__Request *request, const char *who, Drover__Command **cmd,
			Drover__Response **answer);

/* The answer to a request from its applied result, with the created object's row. */
Drover__Response *response_from_result(struct db *db, const struct volatile_view *view,
				       const Drover__Request *request, uint64_t index,
				       const struct apply_result *result);

/* Answers a REQUEST_READ. index, stale and utc_us are filled (utc from env). */
Drover__Response *requests_read(struct db *db, struct env *env, const struct volatile_view *view,
				const Drover__Request *request);

/* A refusal. */
Drover__Response *response_error(const Drover__Request *request, uint32_t exit, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
