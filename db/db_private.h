/* Shared by the files of db/ only. */
#ifndef DROVER_DB_DB_PRIVATE_H
#define DROVER_DB_DB_PRIVATE_H

#ifndef SQLITE_ENABLE_PREUPDATE_HOOK
#define SQLITE_ENABLE_PREUPDATE_HOOK 1
#endif
#include <openssl/evp.h>
#include <sqlite3.h>

#include "db/db.h"

#define DB_STATEMENTS 512 /* slots of the cache; a power of two */
#define DB_LANES      4

/* A sum of row hashes, modulo 2^64 in each lane: adding and taking away rows commutes. */
struct db_sum {
	uint64_t lane[DB_LANES];
};

struct db_statement {
	const char *sql;
	sqlite3_stmt *stmt;
	bool busy;
};

struct db {
	sqlite3 *sqlite;
	char *path;
	struct db_statement statements[DB_STATEMENTS];
	struct db_sum sum;
	struct db_sum sum_begin;
	struct db_sum sum_savepoint;
	bool in_transaction;
	struct dr_error failed;
	unsigned fail_in; /* db_fail_nth */
	EVP_MD *sha256;
	EVP_MD_CTX *md;
};

/* The text of schema.sql (made by the build). */
extern const char db_schema_sql[];

/* Opens a connection with our settings, without a schema. */
int db_connect(const char *path, sqlite3 **out, struct dr_error *err);
/* Frees every statement of the cache. */
void db_forget_statements(struct db *db);
/* Puts the hooks on db->sqlite. */
void db_install(struct db *db);

void digest_install(struct db *db);
int digest_full(struct db *db, sqlite3 *sqlite, struct db_sum *sum);
void digest_bytes(const struct db_sum *sum, uint8_t digest[DB_DIGEST_SIZE]);

#endif
