/*
 * What SQLite does not say about a write-ahead log: that it drops more of it than a crash can have left half
 * written (SAFETY R15).
 *
 * SQLite reads a WAL up to the first frame whose checksum fails and takes the rest for the torn end of a
 * transaction. With synchronous=FULL only the newest transaction can be torn, since each is synced before the
 * next begins: if behind the first frame that fails a whole transaction ends and another one begins, a bit
 * has changed, and transactions that were acknowledged would go. The newest one is log.mark's to guard
 * (logdb.h).
 *
 * Format: https://www.sqlite.org/fileformat2.html#walformat
 */
#ifndef DROVER_COORDINATOR_LOGDB_WAL_H
#define DROVER_COORDINATOR_LOGDB_WAL_H

#include "common/error.h"

/* Reads the WAL at `path`, before SQLite opens its database. 0: there is none, or nothing but its end may be
 * torn; -DR_ECORRUPT, -DR_EIO, -DR_ENOMEM. The WAL must have begun in the process that wrote its newest part:
 * what an earlier crash left behind in it would be taken for newer. So whoever opens the database empties the
 * WAL first (a checkpoint that truncates). */
int logdb_wal_check(const char *path, struct dr_error *err);

#endif
