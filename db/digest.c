/* The digest: sum of the hashes of all rows over typed columns (DESIGN §3), kept by a hook under every
 * change. */
#include <string.h>

#include "db/db_private.h"

typedef int (*value_fn)(void *from, int col, sqlite3_value **value);

static void put_u64(uint8_t *out, uint64_t value)
{
	for (int i = 0; i < 8; i++)
		out[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get_u64(const uint8_t *in)
{
	uint64_t value = 0;

	for (int i = 7; i >= 0; i--)
		value = value << 8 | in[i];
	return value;
}

/* A value as type, length and bytes: no two rows of one table have the same encoding. */
static bool hash_value(EVP_MD_CTX *md, sqlite3_value *value)
{
	int type = sqlite3_value_type(value);
	uint8_t head[9] = {(uint8_t)type};
	const void *bytes;

	if (type == SQLITE_INTEGER) {
		put_u64(head + 1, (uint64_t)sqlite3_value_int64(value));
		return EVP_DigestUpdate(md, head, sizeof(head)) == 1;
	}
	bytes = sqlite3_value_blob(value);
	put_u64(head + 1, (uint64_t)sqlite3_value_bytes(value));
	return EVP_DigestUpdate(md, head, sizeof(head)) == 1 &&
	       (bytes == NULL || EVP_DigestUpdate(md, bytes, (size_t)sqlite3_value_bytes(value)) == 1);
}

static bool hash_row(struct db *db, const char *table, int columns, value_fn get, void *from,
		     struct db_sum *hash)
{
	uint8_t out[EVP_MAX_MD_SIZE];
	unsigned size = 0;

	if (EVP_DigestInit_ex2(db->md, db->sha256, NULL) != 1 ||
	    EVP_DigestUpdate(db->md, table, strlen(table) + 1) != 1)
		return false;
	for (int i = 0; i < columns; i++) {
		sqlite3_value *value = NULL;

		if (get(from, i, &value) != SQLITE_OK || value == NULL || !hash_value(db->md, value))
			return false;
	}
	if (EVP_DigestFinal_ex(db->md, out, &size) != 1 || size != DB_DIGEST_SIZE)
		return false;
	for (int i = 0; i < DB_LANES; i++)
		hash->lane[i] = get_u64(out + 8 * i);
	return true;
}

static int value_old(void *from, int col, sqlite3_value **value)
{
	return sqlite3_preupdate_old(from, col, value);
}

static int value_new(void *from, int col, sqlite3_value **value)
{
	return sqlite3_preupdate_new(from, col, value);
}

static int value_column(void *from, int col, sqlite3_value **value)
{
	*value = sqlite3_column_value(from, col);
	return SQLITE_OK;
}

static void on_change(void *data, sqlite3 *sqlite, int op, const char *schema, const char *table,
		      sqlite3_int64 key1, sqlite3_int64 key2)
{
	struct db *db = data;
	int columns = sqlite3_preupdate_count(sqlite);
	struct db_sum hash;

	(void)schema;
	(void)key1;
	(void)key2;
	if (op != SQLITE_INSERT) {
		if (!hash_row(db, table, columns, value_old, sqlite, &hash))
			goto failed;
		for (int i = 0; i < DB_LANES; i++)
			db->sum.lane[i] -= hash.lane[i];
	}
	if (op != SQLITE_DELETE) {
		if (!hash_row(db, table, columns, value_new, sqlite, &hash))
			goto failed;
		for (int i = 0; i < DB_LANES; i++)
			db->sum.lane[i] += hash.lane[i];
	}
	return;
failed:
	db_fail(db, DR_EIO, "can't compute the digest of a row of %s", table);
}

void digest_install(struct db *db)
{
	sqlite3_preupdate_hook(db->sqlite, on_change, db);
}

void digest_bytes(const struct db_sum *sum, uint8_t digest[DB_DIGEST_SIZE])
{
	for (int i = 0; i < DB_LANES; i++)
		put_u64(digest + 8 * i, sum->lane[i]);
}

static int digest_table(struct db *db, sqlite3 *sqlite, const char *table, struct db_sum *sum)
{
	char sql[128];
	sqlite3_stmt *stmt = NULL;
	struct db_sum hash;
	int ret = 0;
	int rc;

	sqlite3_snprintf(sizeof(sql), sql, "SELECT * FROM \"%w\"", table);
	rc = sqlite3_prepare_v2(sqlite, sql, -1, &stmt, NULL);
	while (rc == SQLITE_OK || rc == SQLITE_ROW) {
		rc = sqlite3_step(stmt);
		if (rc != SQLITE_ROW)
			break;
		if (!hash_row(db, table, sqlite3_column_count(stmt), value_column, stmt, &hash)) {
			ret = -DR_EIO;
			break;
		}
		for (int i = 0; i < DB_LANES; i++)
			sum->lane[i] += hash.lane[i];
	}
	if (ret == 0 && rc != SQLITE_DONE)
		ret = -DR_EIO;
	sqlite3_finalize(stmt);
	return ret;
}

int digest_full(struct db *db, sqlite3 *sqlite, struct db_sum *sum)
{
	sqlite3_stmt *stmt = NULL;
	int ret = 0;
	int rc;

	memset(sum, 0, sizeof(*sum));
	rc = sqlite3_prepare_v2(sqlite, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name",
				-1, &stmt, NULL);
	if (rc != SQLITE_OK)
		return -DR_EIO;
	while ((rc = sqlite3_step(stmt)) == SQLITE_ROW && ret == 0) {
		const char *table = (const char *)sqlite3_column_text(stmt, 0);

		if (table == NULL || strncmp(table, "sqlite_", 7) == 0)
			continue;
		ret = digest_table(db, sqlite, table, sum);
	}
	if (ret == 0 && rc != SQLITE_DONE)
		ret = -DR_EIO;
	sqlite3_finalize(stmt);
	return ret;
}

void db_digest(const struct db *db, uint8_t digest[DB_DIGEST_SIZE])
{
	digest_bytes(&db->sum, digest);
}

int db_digest_full(struct db *db, uint8_t digest[DB_DIGEST_SIZE])
{
	struct db_sum sum;
	int ret = digest_full(db, db->sqlite, &sum);

	if (ret == 0)
		digest_bytes(&sum, digest);
	return ret;
}
