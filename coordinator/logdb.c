#include "coordinator/logdb.h"

#include <errno.h>
#include <endian.h>
#include <fcntl.h>
#include <openssl/sha.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/mutant.h"
#include "coordinator/logdb_private.h"
#include "coordinator/logdb_wal.h"

_Static_assert(LOGDB_CHAIN == SHA256_DIGEST_LENGTH, "the chain is SHA-256");

enum statement {
	ST_BEGIN,
	ST_COMMIT,
	ST_META_GET,
	ST_META_SET,
	ST_APPEND,
	ST_TRUNCATE,
	ST_DROP_FRONT,
	ST_CHAIN_AT,
	ST_ENTRIES,
	ST_SNAPSHOT_PUT,
	ST_SNAPSHOT_GET,
	ST_SEEN_PUT,
	ST_SEEN_GET,
	ST_COUNT
};

static const char *const statements[ST_COUNT] = {
	[ST_BEGIN] = "BEGIN IMMEDIATE",
	[ST_COMMIT] = "COMMIT",
	[ST_META_GET] = "SELECT value FROM meta WHERE key = ?1",
	[ST_META_SET] = "INSERT INTO meta(key, value) VALUES(?1, ?2) "
			"ON CONFLICT(key) DO UPDATE SET value = excluded.value",
	[ST_APPEND] = "INSERT INTO entry(idx, term, type, data, chain) VALUES(?1, ?2, ?3, ?4, ?5)",
	[ST_TRUNCATE] = "DELETE FROM entry WHERE idx >= ?1",
	[ST_DROP_FRONT] = "DELETE FROM entry WHERE idx <= ?1",
	[ST_CHAIN_AT] = "SELECT chain FROM entry WHERE idx = ?1",
	[ST_ENTRIES] = "SELECT idx, term, type, data, chain FROM entry ORDER BY idx",
	[ST_SNAPSHOT_PUT] =
		"INSERT INTO snapshot(one, idx, term, conf_index, conf, data, hash) "
		"VALUES(1, ?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT(one) DO UPDATE SET idx = excluded.idx, "
		"term = excluded.term, conf_index = excluded.conf_index, conf = excluded.conf, "
		"data = excluded.data, hash = excluded.hash",
	[ST_SNAPSHOT_GET] = "SELECT idx, term, conf_index, conf, data, hash FROM snapshot",
	[ST_SEEN_PUT] = "INSERT INTO seen(member, idx, term) VALUES(?1, ?2, ?3) "
			"ON CONFLICT(member) DO UPDATE SET idx = excluded.idx, term = excluded.term",
	[ST_SEEN_GET] = "SELECT member, idx, term FROM seen ORDER BY member",
};

static const char schema[] =
	"CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;"
	"CREATE TABLE IF NOT EXISTS entry(idx INTEGER PRIMARY KEY, term INTEGER NOT NULL,"
	" type INTEGER NOT NULL, data BLOB NOT NULL, chain BLOB NOT NULL) STRICT;"
	"CREATE TABLE IF NOT EXISTS snapshot(one INTEGER PRIMARY KEY, idx INTEGER NOT NULL,"
	" term INTEGER NOT NULL, conf_index INTEGER NOT NULL, conf BLOB NOT NULL,"
	" data BLOB NOT NULL, hash BLOB NOT NULL) STRICT;"
	"CREATE TABLE IF NOT EXISTS seen(member INTEGER PRIMARY KEY, idx INTEGER NOT NULL,"
	" term INTEGER NOT NULL) STRICT;";

struct mark {
	uint64_t index;
	uint8_t chain[LOGDB_CHAIN];
};

struct mark_file { /* big endian */
	struct mark end;
	uint64_t term, vote; /* not in those of older programs */
};

struct logdb {
	sqlite3 *sql;
	sqlite3_stmt *stmt[ST_COUNT];
	char *dir;
	int mark_fd;
	uint64_t first; /* first index in the table; last + 1 when it is empty */
	uint64_t last;
	uint8_t chain[LOGDB_CHAIN]; /* of the entry `last` */
	uint64_t term, vote;	    /* go into the mark */
	uint64_t mark_index;	    /* what the mark names */
	bool mark_unsynced;
	bool mark_urgent; /* synced with this commit */
};

/* For the next start: this log can't be trusted, even if it looks whole. Nothing more can be done if the
 * disk does not take that either. */
static void note_unsynced(const struct logdb *log)
{
	static const char why[] = "an fsync of it failed";
	DR_AUTO_FREE char *path = NULL;
	DR_AUTO_FD int fd = -1;

	if (log->dir == NULL || asprintf(&path, "%s/" LOGDB_DISTRUST, log->dir) < 0)
		return;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, why, sizeof(why) - 1) < 0 || fsync(fd) != 0)
		log_error("%s: %s", path, strerror(errno));
}

static enum dr_err code_of(int rc)
{
	switch (rc) {
	case SQLITE_IOERR_FSYNC:
	case SQLITE_IOERR_DIR_FSYNC:
		return DR_ESYNC;
	default:
		break;
	}
	switch (rc & 0xff) {
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		return DR_ECORRUPT;
	case SQLITE_FULL:
	case SQLITE_READONLY:
	case SQLITE_CANTOPEN:
		return DR_ENOSPC;
	case SQLITE_NOMEM:
		return DR_ENOMEM;
	default:
		return DR_EIO;
	}
}

static int sql_error(struct logdb *log, struct dr_error *err, const char *what)
{
	enum dr_err code = code_of(sqlite3_extended_errcode(log->sql));

	if (code == DR_ESYNC)
		note_unsynced(log);
	return dr_error_set(err, code, "log.db: %s: %s", what, sqlite3_errmsg(log->sql));
}

static int run(struct logdb *log, enum statement st, struct dr_error *err, const char *what)
{
	int rc = sqlite3_step(log->stmt[st]);
	int ret = rc == SQLITE_DONE ? 0 : sql_error(log, err, what);

	sqlite3_reset(log->stmt[st]);
	sqlite3_clear_bindings(log->stmt[st]);
	return ret;
}

int logdb_meta_get(struct logdb *log, const char *key, void *value, size_t size, struct dr_error *err)
{
	sqlite3_stmt *st = log->stmt[ST_META_GET];
	int found = 0;
	int rc;

	sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
	rc = sqlite3_step(st);
	if (rc == SQLITE_ROW) {
		if ((size_t)sqlite3_column_bytes(st, 0) == size) {
			memcpy(value, sqlite3_column_blob(st, 0), size);
			found = 1;
		} else {
			found = dr_error_set(err, DR_ECORRUPT,
					     "log.db: meta '%s' has %d bytes instead of %zu", key,
					     sqlite3_column_bytes(st, 0), size);
		}
	} else if (rc != SQLITE_DONE) {
		found = sql_error(log, err, "read meta");
	}
	sqlite3_reset(st);
	return found;
}

int logdb_meta_set(struct logdb *log, const char *key, const void *value, size_t size, struct dr_error *err)
{
	sqlite3_stmt *st = log->stmt[ST_META_SET];

	sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
	sqlite3_bind_blob(st, 2, value, (int)size, SQLITE_STATIC);
	return run(log, ST_META_SET, err, "write meta");
}

static void chain_next(const uint8_t before[LOGDB_CHAIN], const struct logdb_entry *e,
		       uint8_t out[LOGDB_CHAIN])
{
	uint64_t fields[4] = {htobe64(e->index), htobe64(e->term), htobe64(e->type), htobe64(e->size)};
	uint8_t body[LOGDB_CHAIN];
	uint8_t all[LOGDB_CHAIN + sizeof(fields) + LOGDB_CHAIN];

	SHA256(e->data, e->size, body);
	memcpy(all, before, LOGDB_CHAIN);
	memcpy(all + LOGDB_CHAIN, fields, sizeof(fields));
	memcpy(all + LOGDB_CHAIN + sizeof(fields), body, LOGDB_CHAIN);
	SHA256(all, sizeof(all), out);
}

/* The chain value before the first entry of the table: zero, or kept when the front was dropped. */
static int chain_base(struct logdb *log, uint64_t *index, uint8_t chain[LOGDB_CHAIN], struct dr_error *err)
{
	struct mark base = {.index = 0};
	int ret = logdb_meta_get(log, "base", &base, sizeof(base), err);

	if (ret < 0)
		return ret;
	*index = ret == 0 ? 0 : be64toh(base.index);
	memcpy(chain, base.chain, LOGDB_CHAIN);
	return 0;
}

static int base_set(struct logdb *log, uint64_t index, const uint8_t chain[LOGDB_CHAIN], struct dr_error *err)
{
	struct mark base = {.index = htobe64(index)};

	memcpy(base.chain, chain, LOGDB_CHAIN);
	return logdb_meta_set(log, "base", &base, sizeof(base), err);
}

bool logdb_unsettled(const struct logdb *log)
{
	return log->mark_unsynced;
}

int logdb_settle(struct logdb *log, struct dr_error *err)
{
	if (fdatasync(log->mark_fd) != 0) {
		note_unsynced(log);
		return dr_error_errno(err, DR_ESYNC, errno, "log.mark: fdatasync");
	}
	log->mark_unsynced = false;
	return 0;
}

static int mark_write(struct logdb *log, struct dr_error *err)
{
	struct mark_file m = {
		.end.index = htobe64(log->last), .term = htobe64(log->term), .vote = htobe64(log->vote)};

	memcpy(m.end.chain, log->chain, LOGDB_CHAIN);
	if (pwrite(log->mark_fd, &m, sizeof(m), 0) != (ssize_t)sizeof(m))
		return dr_error_errno(err, errno == ENOSPC || errno == EROFS ? DR_ENOSPC : DR_EIO, errno,
				      "log.mark: write");
	log->mark_index = log->last;
	log->mark_unsynced = true;
	return 0;
}

static int mark_write_durably(struct logdb *log, struct dr_error *err)
{
	int ret = mark_write(log, err);

	return ret < 0 ? ret : logdb_settle(log, err);
}

struct verify {
	struct logdb *log;
	uint64_t expected;
	struct mark mark;
	bool mark_seen;
	struct dr_error *err;
};

static int verify_row(struct verify *v, const struct logdb_entry *e, const void *chain, size_t chain_size)
{
	uint8_t want[LOGDB_CHAIN];

	if (e->index != v->expected)
		return dr_error_set(v->err, DR_ECORRUPT, "log.db: entry %llu is missing",
				    (unsigned long long)v->expected);
	chain_next(v->log->chain, e, want);
	if (DR_MUTANT(chain_unchecked) && chain_size == LOGDB_CHAIN)
		memcpy(want, chain, LOGDB_CHAIN);
	if (chain_size != LOGDB_CHAIN || memcmp(want, chain, LOGDB_CHAIN) != 0)
		return dr_error_set(v->err, DR_ECORRUPT, "log.db: entry %llu fails its checksum",
				    (unsigned long long)e->index);
	memcpy(v->log->chain, want, LOGDB_CHAIN);
	v->log->last = e->index;
	v->expected++;
	if (e->index == v->mark.index)
		v->mark_seen = memcmp(want, v->mark.chain, LOGDB_CHAIN) == 0;
	return 0;
}

static int walk(struct logdb *log, int (*fn)(const struct logdb_entry *, const void *, size_t, void *),
		void *data, struct dr_error *err)
{
	sqlite3_stmt *st = log->stmt[ST_ENTRIES];
	int ret = 0;
	int rc;

	while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
		struct logdb_entry e = {
			.index = (uint64_t)sqlite3_column_int64(st, 0),
			.term = (uint64_t)sqlite3_column_int64(st, 1),
			.type = (unsigned short)sqlite3_column_int(st, 2),
			.data = sqlite3_column_blob(st, 3),
			.size = (size_t)sqlite3_column_bytes(st, 3),
		};

		ret = fn(&e, sqlite3_column_blob(st, 4), (size_t)sqlite3_column_bytes(st, 4), data);
		if (ret != 0)
			break;
	}
	if (ret == 0 && rc != SQLITE_DONE)
		ret = sql_error(log, err, "read entries");
	sqlite3_reset(st);
	return ret;
}

static int verify_entry(const struct logdb_entry *e, const void *chain, size_t size, void *data)
{
	return verify_row(data, e, chain, size);
}

void logdb_note_ballot(struct logdb *log, uint64_t term, uint64_t vote)
{
	log->term = term;
	log->vote = vote;
}

/* A term or a vote that was given is not forgotten: a second one in that term would make a second leader. */
static int verify_ballot(struct logdb *log, uint64_t marked_term, uint64_t marked_vote, struct dr_error *err)
{
	struct dr_error damaged = DR_ERROR_INIT;

	if (logdb_vote_get(log, &log->term, &log->vote, &damaged) < 0) {
		log->term = log->vote = 0; /* whoever reads it next is told */
		return 0;
	}
	if (marked_term < log->term ||
	    (marked_term == log->term && (marked_vote == 0 || marked_vote == log->vote)))
		return 0;
	return dr_error_set(err, DR_ECORRUPT,
			    "log.db: a vote in term %llu was given and is gone (log: term %llu)",
			    (unsigned long long)marked_term, (unsigned long long)log->term);
}

/* Walks the whole log, checks the chain and that the newest entry once acknowledged is still there. */
static int verify(struct logdb *log, struct dr_error *err)
{
	struct verify v = {.log = log, .err = err};
	struct mark_file m = {.term = 0};
	uint64_t base;
	ssize_t n;
	int ret;

	ret = chain_base(log, &base, log->chain, err);
	if (ret < 0)
		return ret;
	n = pread(log->mark_fd, &m, sizeof(m), 0);
	if (n < 0)
		return dr_error_errno(err, DR_EIO, errno, "log.mark: read");
	v.mark = m.end;
	v.mark.index = n >= (ssize_t)sizeof(m.end) ? be64toh(m.end.index) : 0;
	v.expected = base + 1;
	v.mark_seen = v.mark.index <= base;
	log->last = base;
	log->first = base + 1;
	ret = walk(log, verify_entry, &v, err);
	if (ret < 0)
		return ret;
	if (!v.mark_seen && !DR_MUTANT(mark_unchecked))
		return dr_error_set(
			err, DR_ECORRUPT,
			"log.db: entry %llu was acknowledged and is gone or changed (log ends at %llu)",
			(unsigned long long)v.mark.index, (unsigned long long)log->last);
	return verify_ballot(log, n == (ssize_t)sizeof(m) ? be64toh(m.term) : 0, be64toh(m.vote), err);
}

/* The one row of a query of our own. */
static int one_row(struct logdb *log, const char *sql, const char *wanted, struct dr_error *err)
{
	sqlite3_stmt *st = NULL;
	int ret = 0;

	if (sqlite3_prepare_v2(log->sql, sql, -1, &st, NULL) != SQLITE_OK)
		return sql_error(log, err, "check pages");
	if (sqlite3_step(st) != SQLITE_ROW)
		ret = sql_error(log, err, "check pages");
	else if (strcmp((const char *)sqlite3_column_text(st, 0), wanted) != 0)
		ret = dr_error_set(err, DR_ECORRUPT, "log.db: its pages are damaged (%s)",
				   (const char *)sqlite3_column_text(st, 0));
	sqlite3_finalize(st);
	return ret;
}

/* A flipped bit can make SQLite lose sight of entries without a word: of a page's cells, or of the table by
 * its name. What the chain then can't miss, since nothing is left of it, the file's pages and names show. */
static int check_pages(struct logdb *log, struct dr_error *err)
{
	int ret = one_row(log, "PRAGMA quick_check(1)", "ok", err);

	if (ret < 0)
		return ret;
	return one_row(
		log,
		"SELECT count(*) FROM sqlite_schema WHERE name NOT IN ('meta', 'entry', 'snapshot', 'seen')"
		" OR type <> 'table'",
		"0", err);
}

/* Its words are ours and right: if SQLite does not understand them, a table is not what it was. */
static int schema_error(struct logdb *log, struct dr_error *err, const char *what)
{
	int ret = sql_error(log, err, what);

	if (sqlite3_errcode(log->sql) == SQLITE_ERROR)
		ret = -(int)(err->code = DR_ECORRUPT);
	return ret;
}

static int open_sqlite(struct logdb *log, const char *path, struct dr_error *err)
{
	if (sqlite3_open_v2(path, &log->sql, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
			    NULL) != SQLITE_OK)
		return dr_error_set(
			err, log->sql != NULL ? code_of(sqlite3_extended_errcode(log->sql)) : DR_ENOMEM,
			"%s: %s", path, log->sql != NULL ? sqlite3_errmsg(log->sql) : "out of memory");
	if (sqlite3_exec(log->sql,
			 "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
			 "PRAGMA cache_size=-2048; PRAGMA wal_autocheckpoint=1000;",
			 NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_exec(log->sql, schema, NULL, NULL, NULL) != SQLITE_OK)
		return schema_error(log, err, "open");
	if (DR_MUTANT(ack_before_fsync))
		sqlite3_exec(log->sql, "PRAGMA synchronous=OFF", NULL, NULL, NULL);
	for (int i = 0; i < ST_COUNT; i++) {
		if (sqlite3_prepare_v3(log->sql, statements[i], -1, SQLITE_PREPARE_PERSISTENT, &log->stmt[i],
				       NULL) != SQLITE_OK)
			return schema_error(log, err, "prepare");
	}
	return 0;
}

/* The WAL starts anew, so that nothing is left in it that an earlier crash has torn (logdb_wal.h), and the
 * mark names the log's end: after a power loss it may be behind. */
static int settle_at_open(struct logdb *log, struct dr_error *err)
{
	if (sqlite3_exec(log->sql, "PRAGMA wal_checkpoint(TRUNCATE)", NULL, NULL, NULL) != SQLITE_OK)
		return sql_error(log, err, "checkpoint");
	return mark_write_durably(log, err);
}

/* SAFETY R15: whoever found that the log can't be trusted left a note. */
static int check_trusted(const struct logdb *log, struct dr_error *err)
{
	DR_AUTO_FREE char *path = NULL;
	DR_AUTO_FD int fd = -1;
	char why[256] = "";

	if (asprintf(&path, "%s/" LOGDB_DISTRUST, log->dir) < 0)
		return dr_error_set(err, DR_ENOMEM, "log.db: out of memory");
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd >= 0 && read(fd, why, sizeof(why) - 1) < 0)
		why[0] = '\0';
	return dr_error_set(err, DR_ECORRUPT, "log.db is not to be trusted: %s (%s)", why, path);
}

struct logdb *logdb_open(const char *dir, struct dr_error *err)
{
	DR_AUTO_FREE char *path = NULL;
	DR_AUTO_FREE char *wal = NULL;
	DR_AUTO_FREE char *mark = NULL;
	struct logdb *log = calloc(1, sizeof(*log));

	if (log == NULL || (log->dir = strdup(dir)) == NULL || asprintf(&path, "%s/log.db", dir) < 0 ||
	    asprintf(&wal, "%s/log.db-wal", dir) < 0 || asprintf(&mark, "%s/log.mark", dir) < 0) {
		dr_error_set(err, DR_ENOMEM, "log.db: out of memory");
		if (log != NULL)
			free(log->dir);
		free(log);
		return NULL;
	}
	log->mark_fd = open(mark, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (log->mark_fd < 0) {
		dr_error_errno(err, errno == ENOSPC || errno == EROFS ? DR_ENOSPC : DR_EIO, errno, "%s",
			       mark);
		free(log->dir);
		free(log);
		return NULL;
	}
	if (check_trusted(log, err) < 0 || logdb_wal_check(wal, err) < 0 || open_sqlite(log, path, err) < 0 ||
	    check_pages(log, err) < 0 || verify(log, err) < 0 || settle_at_open(log, err) < 0) {
		logdb_close(log);
		return NULL;
	}
	return log;
}

void logdb_close(struct logdb *log)
{
	struct dr_error err = DR_ERROR_INIT;

	if (log == NULL)
		return;
	if (logdb_unsettled(log) && logdb_settle(log, &err) < 0)
		log_error("%s", err.text);
	for (int i = 0; i < ST_COUNT; i++)
		sqlite3_finalize(log->stmt[i]);
	sqlite3_close(log->sql);
	close(log->mark_fd);
	free(log->dir);
	free(log);
}

/* A changed bit in what was seen of a member would take that member's vote: with the term goes a checksum of
 * the row. */
#define SEEN_CHECK 0xfffffu

static uint64_t seen_stored(const struct logdb_seen *seen)
{
	const uint64_t fields[3] = {htobe64(seen->member), htobe64(seen->index), htobe64(seen->term)};
	uint8_t hash[LOGDB_CHAIN];
	uint32_t check;

	SHA256((const uint8_t *)fields, sizeof(fields), hash);
	memcpy(&check, hash, sizeof(check));
	return seen->term * (SEEN_CHECK + 1) + (be32toh(check) & SEEN_CHECK);
}

int logdb_seen_put(struct logdb *log, const struct logdb_seen *seen, struct dr_error *err)
{
	sqlite3_stmt *st = log->stmt[ST_SEEN_PUT];

	sqlite3_bind_int64(st, 1, (sqlite3_int64)seen->member);
	sqlite3_bind_int64(st, 2, (sqlite3_int64)seen->index);
	sqlite3_bind_int64(st, 3, (sqlite3_int64)seen_stored(seen));
	return run(log, ST_SEEN_PUT, err, "write what was seen of a member");
}

int logdb_seen_get(struct logdb *log, struct logdb_seen *seen, unsigned max, struct dr_error *err)
{
	sqlite3_stmt *st = log->stmt[ST_SEEN_GET];
	unsigned n = 0;
	int rc = SQLITE_DONE;

	while (n < max && (rc = sqlite3_step(st)) == SQLITE_ROW) {
		uint64_t stored = (uint64_t)sqlite3_column_int64(st, 2);

		seen[n] = (struct logdb_seen){.member = (uint64_t)sqlite3_column_int64(st, 0),
					      .index = (uint64_t)sqlite3_column_int64(st, 1),
					      .term = stored / (SEEN_CHECK + 1)};
		if (seen_stored(&seen[n]) == stored)
			n++;
	}
	if (n < max && rc != SQLITE_DONE) {
		sql_error(log, err, "read what was seen of members");
		sqlite3_reset(st);
		return -(int)err->code;
	}
	sqlite3_reset(st);
	return (int)n;
}

int logdb_begin(struct logdb *log, struct dr_error *err)
{
	return run(log, ST_BEGIN, err, "begin");
}

int logdb_commit(struct logdb *log, struct dr_error *err)
{
	bool urgent = log->mark_urgent;
	int ret = run(log, ST_COMMIT, err, "commit");

	if (ret < 0)
		return ret;
	log->mark_urgent = false;
	return urgent ? mark_write_durably(log, err) : mark_write(log, err);
}

void logdb_rollback(struct logdb *log)
{
	if (!sqlite3_get_autocommit(log->sql))
		sqlite3_exec(log->sql, "ROLLBACK", NULL, NULL, NULL);
}

int logdb_append(struct logdb *log, const struct logdb_entry *e, struct dr_error *err)
{
	sqlite3_stmt *st = log->stmt[ST_APPEND];
	uint8_t chain[LOGDB_CHAIN];
	int ret;

	if (e->index != log->last + 1)
		return dr_error_set(err, DR_EBUG, "log.db: append of entry %llu behind %llu",
				    (unsigned long long)e->index, (unsigned long long)log->last);
	chain_next(log->chain, e, chain);
	sqlite3_bind_int64(st, 1, (sqlite3_int64)e->index);
	sqlite3_bind_int64(st, 2, (sqlite3_int64)e->term);
	sqlite3_bind_int(st, 3, e->type);
	if (e->size > 0)
		sqlite3_bind_blob64(st, 4, e->data, e->size, SQLITE_STATIC);
	else
		sqlite3_bind_zeroblob(st, 4, 0);
	sqlite3_bind_blob(st, 5, chain, sizeof(chain), SQLITE_STATIC);
	ret = run(log, ST_APPEND, err, "append");
	if (ret < 0)
		return ret;
	log->last = e->index;
	memcpy(log->chain, chain, sizeof(chain));
	if (e->type == LOGDB_CHANGE)
		log->mark_urgent = true;
	return 0;
}

/* The chain value at an index that the table or its base holds. */
static int chain_at(struct logdb *log, uint64_t index, uint8_t chain[LOGDB_CHAIN], struct dr_error *err)
{
	sqlite3_stmt *st = log->stmt[ST_CHAIN_AT];
	uint64_t base;
	int ret = chain_base(log, &base, chain, err);

	if (ret < 0 || base == index)
		return ret;
	sqlite3_bind_int64(st, 1, (sqlite3_int64)index);
	if (sqlite3_step(st) == SQLITE_ROW && sqlite3_column_bytes(st, 0) == LOGDB_CHAIN)
		memcpy(chain, sqlite3_column_blob(st, 0), LOGDB_CHAIN);
	else
		ret = sql_error(log, err, "no such entry");
	sqlite3_reset(st);
	return ret;
}

int logdb_truncate(struct logdb *log, uint64_t index, struct dr_error *err)
{
	int ret;

	if (index > log->last)
		return 0;
	if (index < log->first)
		return dr_error_set(err, DR_EBUG, "log.db: truncation at %llu before the first entry %llu",
				    (unsigned long long)index, (unsigned long long)log->first);
	ret = chain_at(log, index - 1, log->chain, err);
	if (ret < 0)
		return ret;
	log->last = index - 1;
	/* The mark must never name an entry that the database gives up: lowered, durably, first. (Nor one
	 * that is not committed yet: what is cut off may have come with the same transaction.) */
	ret = log->mark_index >= index ? mark_write_durably(log, err) : 0;
	if (ret < 0)
		return ret;
	sqlite3_bind_int64(log->stmt[ST_TRUNCATE], 1, (sqlite3_int64)index);
	return run(log, ST_TRUNCATE, err, "truncate");
}

static int drop_front(struct logdb *log, uint64_t through, struct dr_error *err)
{
	uint8_t chain[LOGDB_CHAIN];
	int ret;

	if (through < log->first)
		return 0;
	ret = chain_at(log, through, chain, err);
	if (ret < 0)
		return ret;
	ret = base_set(log, through, chain, err);
	if (ret < 0)
		return ret;
	sqlite3_bind_int64(log->stmt[ST_DROP_FRONT], 1, (sqlite3_int64)through);
	ret = run(log, ST_DROP_FRONT, err, "drop entries");
	if (ret == 0)
		log->first = through + 1;
	return ret;
}

/* The leader's snapshot replaces whatever was here; the chain starts anew behind it. */
static int replace_all(struct logdb *log, uint64_t index, struct dr_error *err)
{
	uint8_t zero[LOGDB_CHAIN] = {0};
	int ret;

	log->last = 0;
	memset(log->chain, 0, sizeof(log->chain));
	ret = mark_write_durably(log, err);
	if (ret < 0)
		return ret;
	sqlite3_bind_int64(log->stmt[ST_TRUNCATE], 1, 0);
	ret = run(log, ST_TRUNCATE, err, "replace log");
	if (ret < 0)
		return ret;
	log->last = index;
	log->first = index + 1;
	log->mark_urgent = true;
	return base_set(log, index, zero, err);
}

static void snapshot_hash(const struct logdb_snapshot *s, uint8_t hash[LOGDB_CHAIN])
{
	const struct logdb_entry as_entry = {
		.index = s->index, .term = s->term, .data = s->data, .size = s->size};
	uint8_t conf[LOGDB_CHAIN];

	SHA256(s->conf, s->conf_size, conf);
	chain_next(conf, &as_entry, hash);
}

int logdb_snapshot_put(struct logdb *log, const struct logdb_snapshot *s, unsigned trailing,
		       struct dr_error *err)
{
	sqlite3_stmt *st = log->stmt[ST_SNAPSHOT_PUT];
	uint8_t hash[LOGDB_CHAIN];
	int ret;

	snapshot_hash(s, hash);
	sqlite3_bind_int64(st, 1, (sqlite3_int64)s->index);
	sqlite3_bind_int64(st, 2, (sqlite3_int64)s->term);
	sqlite3_bind_int64(st, 3, (sqlite3_int64)s->conf_index);
	sqlite3_bind_blob64(st, 4, s->conf, s->conf_size, SQLITE_STATIC);
	sqlite3_bind_blob64(st, 5, s->data, s->size, SQLITE_STATIC);
	sqlite3_bind_blob(st, 6, hash, sizeof(hash), SQLITE_STATIC);
	ret = run(log, ST_SNAPSHOT_PUT, err, "store snapshot");
	if (ret < 0)
		return ret;
	if (trailing == 0 || s->index > log->last)
		return replace_all(log, s->index, err);
	return s->index > trailing ? drop_front(log, s->index - trailing, err) : 0;
}

struct forward {
	int (*fn)(const struct logdb_entry *entry, void *data);
	void *data;
};

static int forward_entry(const struct logdb_entry *e, const void *chain, size_t size, void *data)
{
	struct forward *f = data;

	(void)chain;
	(void)size;
	return f->fn(e, f->data);
}

int logdb_entries(struct logdb *log, int (*fn)(const struct logdb_entry *entry, void *data), void *data,
		  struct dr_error *err)
{
	struct forward f = {.fn = fn, .data = data};

	return walk(log, forward_entry, &f, err);
}

static void *copy_blob(sqlite3_stmt *st, int column, size_t *size)
{
	void *copy;

	*size = (size_t)sqlite3_column_bytes(st, column);
	copy = malloc(*size + 1);
	if (copy != NULL && *size > 0)
		memcpy(copy, sqlite3_column_blob(st, column), *size);
	return copy;
}

int logdb_snapshot_get(struct logdb *log, struct logdb_snapshot *s, struct dr_error *err)
{
	sqlite3_stmt *st = log->stmt[ST_SNAPSHOT_GET];
	uint8_t hash[LOGDB_CHAIN];
	int rc = sqlite3_step(st);
	int ret = 0;

	memset(s, 0, sizeof(*s));
	if (rc == SQLITE_ROW) {
		s->index = (uint64_t)sqlite3_column_int64(st, 0);
		s->term = (uint64_t)sqlite3_column_int64(st, 1);
		s->conf_index = (uint64_t)sqlite3_column_int64(st, 2);
		s->conf = copy_blob(st, 3, &s->conf_size);
		s->data = copy_blob(st, 4, &s->size);
		ret = 1;
		if (s->conf == NULL || s->data == NULL) {
			ret = dr_error_set(err, DR_ENOMEM, "log.db: no memory for a snapshot of %zu bytes",
					   s->size);
		} else {
			snapshot_hash(s, hash);
			if (!DR_MUTANT(snapshot_unverified) &&
			    (sqlite3_column_bytes(st, 5) != LOGDB_CHAIN ||
			     memcmp(hash, sqlite3_column_blob(st, 5), LOGDB_CHAIN) != 0))
				ret = dr_error_set(err, DR_ECORRUPT,
						   "log.db: the snapshot at %llu fails its checksum",
						   (unsigned long long)s->index);
		}
	} else if (rc != SQLITE_DONE) {
		ret = sql_error(log, err, "read snapshot");
	}
	sqlite3_reset(st);
	if (ret < 0) {
		free((void *)(uintptr_t)s->conf);
		free((void *)(uintptr_t)s->data);
	}
	return ret;
}

uint64_t logdb_last(const struct logdb *log)
{
	return log->last;
}

uint64_t logdb_first(const struct logdb *log)
{
	return log->first;
}
