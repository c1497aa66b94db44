/* What logdb.c and logdb_meta.c share. */
#ifndef DROVER_COORDINATOR_LOGDB_PRIVATE_H
#define DROVER_COORDINATOR_LOGDB_PRIVATE_H

#include "coordinator/logdb.h"

/* A row of log.db's meta. 1: found, 0: there is none; of another size: -DR_ECORRUPT. */
int logdb_meta_get(struct logdb *log, const char *key, void *value, size_t size, struct dr_error *err);
/* Part of the transaction that is open, or one of its own. */
int logdb_meta_set(struct logdb *log, const char *key, const void *value, size_t size, struct dr_error *err);
/* What the mark of the next commit says of term and vote. */
void logdb_note_ballot(struct logdb *log, uint64_t term, uint64_t vote);

#endif
