#include "db/db.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "db/db_private.h"

/* SQL functions whose result differs between members (DESIGN §3, determinism). */
static const char *const denied[] = {
	"random",	  "randomblob",	       "date",
	"time",		  "datetime",	       "julianday",
	"unixepoch",	  "strftime",	       "current_date",
	"current_time",	  "current_timestamp", "changes",
	"total_changes",  "last_insert_rowid", "sqlite_version",
	"load_extension",
};

static int authorize(void *data, int action, const char *arg1, const char *arg2, const char *schema,
		     const char *trigger)
{
	(void)data;
	(void)arg1;
	(void)schema;
	if (trigger != NULL || action == SQLITE_CREATE_TRIGGER || action == SQLITE_ATTACH)
		return SQLITE_DENY;
	if (action != SQLITE_FUNCTION || arg2 == NULL)
		return SQLITE_OK;
	for (size_t i = 0; i < sizeof(denied) / sizeof(denied[0]); i++) {
		if (sqlite3_stricmp(arg2, denied[i]) == 0)
			return SQLITE_DENY;
	}
	return SQLITE_OK;
}

int db_connect(const char *path, sqlite3 **out, struct dr_error *err)
{
	sqlite3 *sqlite = NULL;
	char *message = NULL;
	int rc;

	*out = NULL;
	rc = sqlite3_open_v2(path, &sqlite, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
			     NULL);
	if (rc == SQLITE_OK)
		/* Nobody else opens it: without EXCLUSIVE each statement locks and unlocks the file. */
		rc = sqlite3_exec(sqlite,
				  "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA "
				  "synchronous = OFF;"
				  "PRAGMA foreign_keys = ON;"
				  "PRAGMA trusted_schema = OFF; PRAGMA recursive_triggers = OFF;"
				  "PRAGMA temp_store = MEMORY; PRAGMA cache_size = -2048;",
				  NULL, NULL, &message);
	if (rc != SQLITE_OK) {
		dr_error_set(err, DR_EIO, "%s: %s", path,
			     message != NULL  ? message
			     : sqlite != NULL ? sqlite3_errmsg(sqlite)
					      : "no memory");
		sqlite3_free(message);
		sqlite3_close(sqlite);
		return -DR_EIO;
	}
	*out = sqlite;
	return 0;
}

void db_install(struct db *db)
{
	sqlite3_set_authorizer(db->sqlite, authorize, NULL);
	digest_install(db);
}

static void unlink_old(const char *path)
{
	static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
	char name[4096];

	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		snprintf(name, sizeof(name), "%s%s", path, suffixes[i]);
		unlink(name);
	}
}

int db_open(const char *path, struct db **out, struct dr_error *err)
{
	struct db *db = calloc(1, sizeof(*db));
	char *message = NULL;

	*out = NULL;
	if (db == NULL)
		return dr_error_set(err, DR_ENOMEM, "no memory");
	db->path = strdup(path);
	db->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	db->md = EVP_MD_CTX_new();
	if (db->path == NULL || db->sha256 == NULL || db->md == NULL) {
		dr_error_set(err, DR_ENOMEM, "no memory");
		goto failed;
	}
	if (strcmp(path, ":memory:") != 0)
		unlink_old(path);
	if (db_connect(path, &db->sqlite, err) < 0)
		goto failed;
	if (sqlite3_exec(db->sqlite, db_schema_sql, NULL, NULL, &message) != SQLITE_OK) {
		dr_error_set(err, DR_EBUG, "%s: schema: %s", path, message);
		sqlite3_free(message);
		goto failed;
	}
	db_install(db);
	*out = db;
	return 0;
failed:
	db_close(db);
	return err != NULL ? -(int)err->code : -DR_EIO;
}

void db_forget_statements(struct db *db)
{
	for (size_t i = 0; i < DB_STATEMENTS; i++) {
		sqlite3_finalize(db->statements[i].stmt);
		db->statements[i] = (struct db_statement){0};
	}
}

void db_close(struct db *db)
{
	if (db == NULL)
		return;
	db_forget_statements(db);
	sqlite3_close_v2(db->sqlite);
	EVP_MD_CTX_free(db->md);
	EVP_MD_free(db->sha256);
	free(db->path);
	free(db);
}

/* ---------------------------------------------------------------- errors */

int db_failed(const struct db *db, struct dr_error *err)
{
	if (db->failed.code == DR_OK)
		return 0;
	return dr_error_set(err, db->failed.code, "%s", db->failed.text);
}

void db_fail(struct db *db, enum dr_err code, const char *fmt, ...)
{
	char text[DR_ERROR_TEXT];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	dr_error_set(&db->failed, code, "%s", text);
}

unsigned db_fail_nth(struct db *db, unsigned n)
{
	unsigned left = db->fail_in;

	db->fail_in = n;
	return left;
}

static void fail_sqlite(struct db *db, int rc, const char *sql)
{
	enum dr_err code = DR_EIO;

	if (rc == SQLITE_CORRUPT || rc == SQLITE_NOTADB || rc == SQLITE_CONSTRAINT)
		code = DR_ECORRUPT;
	else if (rc == SQLITE_ERROR || rc == SQLITE_AUTH || rc == SQLITE_MISUSE)
		code = DR_EBUG;
	db_fail(db, code, "state database: %s (%s)", sqlite3_errmsg(db->sqlite), sql);
}

/* SAFETY R19: SQLite may end a transaction by itself (disk full...); what follows would commit piece by
 * piece. */
static void check_transaction(struct db *db, const char *sql)
{
	if (db->in_transaction && sqlite3_get_autocommit(db->sqlite) != 0)
		db_fail(db, DR_ECORRUPT, "state database: the transaction ended by itself (%s)", sql);
}

/* ---------------------------------------------------------------- statements */

static sqlite3_stmt *prepare(struct db *db, const char *sql)
{
	sqlite3_stmt *stmt = NULL;
	int rc = sqlite3_prepare_v3(db->sqlite, sql, -1, SQLITE_PREPARE_PERSISTENT, &stmt, NULL);

	if (rc != SQLITE_OK || stmt == NULL) {
		fail_sqlite(db, rc, sql);
		return NULL;
	}
	return stmt;
}

/* The cache's entry for sql; NULL when it is in use or no slot is left. */
static struct db_statement *lookup(struct db *db, const char *sql)
{
	size_t at = ((uintptr_t)sql >> 3) & (DB_STATEMENTS - 1);

	for (size_t i = 0; i < DB_STATEMENTS; i++) {
		struct db_statement *s = &db->statements[(at + i) & (DB_STATEMENTS - 1)];

		if (s->sql == sql)
			return s->busy ? NULL : s;
		if (s->sql == NULL) {
			s->stmt = prepare(db, sql);
			if (s->stmt == NULL)
				return NULL;
			s->sql = sql;
			return s;
		}
	}
	return NULL;
}

/* *slot: to be given back with it; NULL: not from the cache. */
static sqlite3_stmt *take_statement(struct db *db, const char *sql, struct db_statement **slot)
{
	struct db_statement *s;

	*slot = NULL;
	if (db->fail_in > 0 && --db->fail_in == 0)
		db_fail(db, DR_EIO, "state database: failed for a test (%s)", sql);
	if (db->failed.code != DR_OK)
		return NULL;
	s = lookup(db, sql);
	if (s != NULL) {
		s->busy = true;
		*slot = s;
		return s->stmt;
	}
	return db->failed.code == DR_OK ? prepare(db, sql) : NULL;
}

static void give_statement(sqlite3_stmt *stmt, struct db_statement *slot)
{
	if (stmt == NULL)
		return;
	if (slot == NULL) {
		sqlite3_finalize(stmt);
		return;
	}
	sqlite3_reset(stmt);
	sqlite3_clear_bindings(stmt);
	slot->busy = false;
}

static void bind_values(struct db *db, sqlite3_stmt *stmt, const char *sql, const char *types, va_list ap)
{
	int n = 0;
	int rc = SQLITE_OK;

	for (const char *t = types; *t != '\0' && rc == SQLITE_OK; t++) {
		n++;
		if (*t == 's') {
			const char *text = va_arg(ap, const char *);

			rc = sqlite3_bind_text(stmt, n, text != NULL ? text : "", -1, SQLITE_TRANSIENT);
		} else if (*t == 'u') {
			rc = sqlite3_bind_int64(stmt, n, (sqlite3_int64)va_arg(ap, uint64_t));
		} else if (*t == 'i') {
			rc = sqlite3_bind_int64(stmt, n, va_arg(ap, int));
		} else if (*t == 'b') {
			const void *bytes = va_arg(ap, const void *);
			size_t size = va_arg(ap, size_t);

			rc = sqlite3_bind_blob64(stmt, n, size > 0 ? bytes : "", size, SQLITE_TRANSIENT);
		} else {
			rc = SQLITE_MISUSE;
		}
	}
	if (rc != SQLITE_OK)
		fail_sqlite(db, rc, sql);
	else if (n != sqlite3_bind_parameter_count(stmt))
		db_fail(db, DR_EBUG, "state database: %d values for (%s)", n, sql);
}

int db_exec(struct db *db, const char *sql, const char *types, ...)
{
	struct db_statement *slot;
	sqlite3_stmt *stmt = take_statement(db, sql, &slot);
	va_list ap;
	int changes = 0;

	if (stmt == NULL)
		return -(int)db->failed.code;
	va_start(ap, types);
	bind_values(db, stmt, sql, types, ap);
	va_end(ap);
	if (db->failed.code == DR_OK) {
		int rc = sqlite3_step(stmt);

		if (rc != SQLITE_DONE)
			fail_sqlite(db, rc == SQLITE_ROW ? SQLITE_MISUSE : rc, sql);
		else
			changes = sqlite3_changes(db->sqlite);
		check_transaction(db, sql);
	}
	give_statement(stmt, slot);
	return db->failed.code != DR_OK ? -(int)db->failed.code : changes;
}

static void query_va(struct db *db, struct db_rows *rows, const char *sql, const char *types, va_list ap)
{
	rows->db = db;
	rows->stmt = take_statement(db, sql, &rows->slot);
	if (rows->stmt != NULL)
		bind_values(db, rows->stmt, sql, types, ap);
}

void db_query(struct db *db, struct db_rows *rows, const char *sql, const char *types, ...)
{
	va_list ap;

	va_start(ap, types);
	query_va(db, rows, sql, types, ap);
	va_end(ap);
}

void db_done(struct db_rows *rows)
{
	give_statement(rows->stmt, rows->slot);
	rows->stmt = NULL;
}

bool db_next(struct db_rows *rows)
{
	int rc;

	if (rows->stmt == NULL)
		return false;
	if (rows->db->failed.code != DR_OK) {
		db_done(rows);
		return false;
	}
	rc = sqlite3_step(rows->stmt);
	if (rc == SQLITE_ROW)
		return true;
	if (rc != SQLITE_DONE)
		fail_sqlite(rows->db, rc, sqlite3_sql(rows->stmt));
	check_transaction(rows->db, sqlite3_sql(rows->stmt));
	db_done(rows);
	return false;
}

static bool check_type(struct db_rows *rows, int col, int type)
{
	if (rows->stmt == NULL) {
		db_fail(rows->db, DR_EBUG, "state database: a value is read from closed rows");
		return false;
	}
	if (sqlite3_column_type(rows->stmt, col) == type)
		return true;
	db_fail(rows->db, DR_ECORRUPT, "state database: column %d has another type (%s)", col,
		sqlite3_sql(rows->stmt));
	return false;
}

uint64_t db_u64(struct db_rows *rows, int col)
{
	return check_type(rows, col, SQLITE_INTEGER) ? (uint64_t)sqlite3_column_int64(rows->stmt, col) : 0;
}

int db_int(struct db_rows *rows, int col)
{
	int64_t value = (int64_t)db_u64(rows, col);

	if (value < INT32_MIN || value > INT32_MAX) {
		db_fail(rows->db, DR_ECORRUPT, "state database: column %d is out of range (%s)", col,
			sqlite3_sql(rows->stmt));
		return 0;
	}
	return (int)value;
}

bool db_bool(struct db_rows *rows, int col)
{
	return db_u64(rows, col) != 0;
}

const char *db_text(struct db_rows *rows, int col)
{
	const char *text;

	if (!check_type(rows, col, SQLITE_TEXT))
		return "";
	text = (const char *)sqlite3_column_text(rows->stmt, col);
	if (text == NULL) {
		db_fail(rows->db, DR_ENOMEM, "no memory");
		return "";
	}
	return text;
}

const void *db_blob(struct db_rows *rows, int col, size_t *size)
{
	const void *bytes;

	*size = 0;
	if (!check_type(rows, col, SQLITE_BLOB))
		return "";
	bytes = sqlite3_column_blob(rows->stmt, col);
	*size = (size_t)sqlite3_column_bytes(rows->stmt, col);
	return bytes != NULL ? bytes : "";
}

char *db_copy_text(struct db_rows *rows, int col, char *buf, size_t size)
{
	snprintf(buf, size, "%s", db_text(rows, col));
	return buf;
}

uint64_t db_get_u64(struct db *db, const char *sql, const char *types, ...)
{
	struct db_rows rows;
	uint64_t value = 0;
	va_list ap;

	va_start(ap, types);
	query_va(db, &rows, sql, types, ap);
	va_end(ap);
	if (db_next(&rows))
		value = db_u64(&rows, 0);
	db_done(&rows);
	return value;
}

bool db_exists(struct db *db, const char *sql, const char *types, ...)
{
	struct db_rows rows;
	bool found;
	va_list ap;

	va_start(ap, types);
	query_va(db, &rows, sql, types, ap);
	va_end(ap);
	found = db_next(&rows);
	db_done(&rows);
	return found;
}

/* ---------------------------------------------------------------- transactions */

int db_begin(struct db *db)
{
	db->sum_begin = db->sum;
	if (db->in_transaction)
		db_fail(db, DR_EBUG, "state database: a transaction within a transaction");
	if (db_exec(db, "BEGIN IMMEDIATE", "") < 0)
		return -(int)db->failed.code;
	db->in_transaction = true;
	return 0;
}

int db_commit(struct db *db)
{
	if (!db->in_transaction)
		db_fail(db, DR_EBUG, "state database: commit without a transaction");
	if (db->failed.code == DR_OK) {
		db->in_transaction = false; /* for the check in db_exec: COMMIT is the right way to end it */
		db_exec(db, "COMMIT", "");
	}
	if (db->failed.code != DR_OK) {
		db_rollback(db);
		return -(int)db->failed.code;
	}
	return 0;
}

void db_rollback(struct db *db)
{
	/* Not through db_exec: it must also work on a failed database. Nothing else can be done on error. */
	if (sqlite3_get_autocommit(db->sqlite) == 0)
		sqlite3_exec(db->sqlite, "ROLLBACK", NULL, NULL, NULL);
	db->in_transaction = false;
	db->sum = db->sum_begin;
}

void db_savepoint(struct db *db)
{
	db->sum_savepoint = db->sum;
	db_exec(db, "SAVEPOINT body", "");
}

void db_savepoint_undo(struct db *db)
{
	db_exec(db, "ROLLBACK TO body", "");
	db_exec(db, "RELEASE body", "");
	db->sum = db->sum_savepoint;
}

void db_savepoint_keep(struct db *db)
{
	db_exec(db, "RELEASE body", "");
}
