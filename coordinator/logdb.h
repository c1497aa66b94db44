/*
 * log.db: the durable half of a coordinator's Raft: term, vote, entries and the
 * newest snapshot, in one SQLite file (WAL, synchronous=FULL). Synchronous calls
 * only; logwriter.h puts them on a thread of their own.
 *
 * Two guards against silent damage (SAFETY R15):
 *   - every entry carries a chain value, SHA-256 over the one before it and its own
 *     fields, verified when the log is loaded;
 *   - log.mark, a small file beside the database, holds index and chain of the newest
 *     entry, term and vote. SQLite drops a damaged WAL tail without a word; the mark then names an
 *     entry that is no longer there. The mark is written after each commit, and
 *     synced by logdb_settle, soon after: after a power loss it may be older than the log, never newer.
 *     With the commit itself behind a member list: a log that ends before one that it had is of another
 *     cluster, perhaps of one member, who is a majority. What SQLite drops of the transactions that the mark
 *     of a power loss does not name yet, all but the newest one, logdb_wal.h sees.
 * A log that fails either is refused with -DR_ECORRUPT: the member must not vote.
 * So is one whose fsync failed once (the file log.distrust says so): what the page cache shows of it may
 * never have reached the disk.
 *
 * Errors: -DR_ENOSPC: no room or read-only, nothing was changed. -DR_ESYNC: see above. -DR_EIO: anything
 * else that the disk refused. A log that is copied back from a backup together with its mark passes: what
 * the other members have seen of it decides (vouch.h).
 */
#ifndef DROVER_COORDINATOR_LOGDB_H
#define DROVER_COORDINATOR_LOGDB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define LOGDB_CHAIN	32
#define LOGDB_UUID	16
#define LOGDB_DISTRUST	"log.distrust"
#define LOGDB_SETTLE_MS 100
#define LOGDB_CHANGE	3 /* type of an entry that is a member list: RAFT_CHANGE */

struct logdb;

/* Who this member is; written once by init or join. */
struct logdb_identity {
	uint64_t member; /* 0: not yet a member of a cluster */
	bool standalone;
	uint8_t cluster_uuid[LOGDB_UUID];
	uint64_t incarnation; /* of the cluster: members of different ones do not talk (SAFETY R18) */
	uint64_t replaces;    /* the member that this host was before its log was lost; 0: none */
};

/* How far another member was once seen to be: what a log restored from a backup is compared with. */
struct logdb_seen {
	uint64_t member;
	uint64_t index; /* committed, and stored there */
	uint64_t term;
};

struct logdb_entry {
	uint64_t index;
	uint64_t term;
	unsigned short type; /* RAFT_COMMAND, RAFT_BARRIER, RAFT_CHANGE */
	const void *data;
	size_t size;
};

struct logdb_snapshot {
	uint64_t index;
	uint64_t term;
	uint64_t conf_index;
	const void *conf; /* raft_configuration_encode() */
	size_t conf_size;
	const void *data;
	size_t size;
};

/* Opens or creates DIR/log.db and verifies it. The caller holds the data directory's lock. */
struct logdb *logdb_open(const char *dir, struct dr_error *err);
void logdb_close(struct logdb *log);

int logdb_identity_get(struct logdb *log, struct logdb_identity *id, struct dr_error *err);
int logdb_identity_set(struct logdb *log, const struct logdb_identity *id, struct dr_error *err);

/* As logdb_identity_set, inside the transaction that is open. */
int logdb_identity_put(struct logdb *log, const struct logdb_identity *id, struct dr_error *err);

int logdb_vote_get(struct logdb *log, uint64_t *term, uint64_t *vote, struct dr_error *err);
int logdb_vote_set(struct logdb *log, uint64_t term, uint64_t vote, struct dr_error *err);

/* Keeps what was seen of another member; part of the transaction that is open. */
int logdb_seen_put(struct logdb *log, const struct logdb_seen *seen, struct dr_error *err);
/* Fills seen[] with at most max; the number of them, or negative. */
int logdb_seen_get(struct logdb *log, struct logdb_seen *seen, unsigned max, struct dr_error *err);

/* One transaction around any number of the calls below; durable when commit returns 0. */
int logdb_begin(struct logdb *log, struct dr_error *err);
int logdb_commit(struct logdb *log, struct dr_error *err);
void logdb_rollback(struct logdb *log);
/* Whether log.mark is newer than what the disk has of it, and writes it there: to be called within
 * LOGDB_SETTLE_MS of a commit. */
bool logdb_unsettled(const struct logdb *log);
int logdb_settle(struct logdb *log, struct dr_error *err);

/* entry->index must be the last one + 1. */
int logdb_append(struct logdb *log, const struct logdb_entry *entry, struct dr_error *err);
/* Removes all entries from index on. */
int logdb_truncate(struct logdb *log, uint64_t index, struct dr_error *err);
/* Stores the snapshot and removes the entries that it replaces, but for the newest `trailing` of them.
 * trailing 0: the snapshot came from the leader and replaces the whole log. */
int logdb_snapshot_put(struct logdb *log, const struct logdb_snapshot *snapshot, unsigned trailing,
		       struct dr_error *err);

/* Calls fn for each entry in order; a non-zero answer ends the walk and is returned. data is borrowed for the
 * call. */
int logdb_entries(struct logdb *log, int (*fn)(const struct logdb_entry *entry, void *data), void *data,
		  struct dr_error *err);
/* 0 when there is none; 1 and a snapshot whose conf and data are malloc'ed and the caller's. */
int logdb_snapshot_get(struct logdb *log, struct logdb_snapshot *snapshot, struct dr_error *err);

/* Index of the newest and number of entries. */
uint64_t logdb_last(const struct logdb *log);
uint64_t logdb_first(const struct logdb *log);

#endif
