/* An agent's report against the applied rows: which commands would make the rows true (level-triggered). */
#ifndef DROVER_COORDINATOR_REPORTS_H
#define DROVER_COORDINATOR_REPORTS_H

#include "coordinator/view.h"
#include "db/db.h"

/*
 * Emits a command for each difference, borrowed during the call; nothing when the rows say the same already.
 * start_id: 16 bytes, of the session that the report came by. All are compare-and-set: proposing one again
 * does no harm. With more than one move fact for an attempt's phases between two reports, only the latest is
 * emitted.
 */
void reports_commands(struct db *db, const char *node, const uint8_t start_id[16],
		      const Drover__AgentReport *report, command_emit_fn emit, void *data);

#endif
