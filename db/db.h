/*
 * The replicated state: SQLite tables that only apply changes (DESIGN §3, §4).
 *
 * Errors are sticky. The first one that SQLite reports, a value of another type than asked for, or a
 * transaction that ended by itself makes the database failed: every later call does nothing, and db_commit
 * returns the error. The caller then stops the member (SAFETY R19). So code between db_begin and db_commit
 * need not look at every return value; a refusal is the only error that it may make itself.
 *
 * The digest is kept by a hook under every row change, whatever statement makes it: the sum of the rows'
 * hashes over typed columns. Not thread-safe: one thread.
 */
#ifndef DROVER_DB_DB_H
#define DROVER_DB_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define DB_DIGEST_SIZE	32
#define DB_SCHEMA	1	     /* number of the last schema step */
#define DB_SNAPSHOT_MAX (1ull << 30) /* bytes that a snapshot may grow to when it is unpacked */

struct db;

/* An empty state at path; ":memory:" for tests. An old file there is replaced: the state is rebuilt from
 * snapshot and log at each start. */
int db_open(const char *path, struct db **out, struct dr_error *err);
void db_close(struct db *db);

/* One command = one transaction. */
int db_begin(struct db *db);
int db_commit(struct db *db);
/* Everything since db_begin is undone, the digest included. */
void db_rollback(struct db *db);
/* What a command did until it was refused is undone: between db_begin and db_commit, not nested. */
void db_savepoint(struct db *db);
void db_savepoint_undo(struct db *db);
void db_savepoint_keep(struct db *db);

/* 0, or the sticky error, with words in *err (may be NULL). */
int db_failed(const struct db *db, struct dr_error *err);
/* Makes the database failed: apply found an invariant of the tables broken. */
void db_fail(struct db *db, enum dr_err code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/*
 * Statements. types has one letter for each '?' of sql, in order, and tells what follows in the arguments:
 *   s  const char * (NULL binds '')          u  uint64_t (stored bit for bit)
 *   i  int                                   b  const void *, size_t
 * sql must be a string that lives as long as the program: statements are cached by its address.
 */

/* Runs a statement that returns no rows; the number of rows that it changed, or a negative code. */
int db_exec(struct db *db, const char *sql, const char *types, ...);

/* A query's rows. The values live until the next db_next or db_done. */
struct db_rows {
	struct db *db;
	void *stmt;
	struct db_statement *slot; /* of the cache; NULL: a second use of a statement that is running */
};
void db_query(struct db *db, struct db_rows *rows, const char *sql, const char *types, ...);
/* true: there is a row. After false (end or error) the rows are closed. */
bool db_next(struct db_rows *rows);
/* Closes before the end; harmless after it. */
void db_done(struct db_rows *rows);
uint64_t db_u64(struct db_rows *rows, int col);
int db_int(struct db_rows *rows, int col);
bool db_bool(struct db_rows *rows, int col);
const char *db_text(struct db_rows *rows, int col);
const void *db_blob(struct db_rows *rows, int col, size_t *size);

/* First column of the first row; 0 when there is none. */
uint64_t db_get_u64(struct db *db, const char *sql, const char *types, ...);
/* Whether there is a row. */
bool db_exists(struct db *db, const char *sql, const char *types, ...);

/* Copies of at most size-1 bytes of a text column. Returns buf. */
char *db_copy_text(struct db_rows *rows, int col, char *buf, size_t size);

/* For tests: the n-th statement from now fails as if the disk had; 0 = never. The number that was left of the
 * last call. */
unsigned db_fail_nth(struct db *db, unsigned n);

/* The digest as of the last commit (or of the transaction under way). */
void db_digest(const struct db *db, uint8_t digest[DB_DIGEST_SIZE]);
/* Computed anew from all rows. */
int db_digest_full(struct db *db, uint8_t digest[DB_DIGEST_SIZE]);

/* The whole state, compressed, with its digest; malloc'ed. Not inside a transaction. */
int db_serialize(struct db *db, uint8_t **bytes, size_t *size, struct dr_error *err);
/*
 * Replaces the state by a snapshot: unpacked into a fresh file beside the old one, its digest and schema
 * verified, then renamed into place. Statements and rows in use before are void. On failure the old state
 * stays
 * (-DR_ECORRUPT: the snapshot is not what its maker wrote).
 */
int db_restore(struct db *db, const uint8_t *bytes, size_t size, struct dr_error *err);

#endif
