/*
 * Snapshots: 8 bytes magic, 8 bytes size of the database (big endian), 32 bytes digest, zstd frame with a
 * checksum.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "common/cleanup.h"
#include "common/mutant.h"
#include "db/db_private.h"

#define SNAPSHOT_MAGIC "DRSNAP\0\1"
#define SNAPSHOT_HEAD  (8 + 8 + DB_DIGEST_SIZE)
#define SNAPSHOT_LEVEL 1

int db_serialize(struct db *db, uint8_t **bytes, size_t *size, struct dr_error *err)
{
	sqlite3_int64 raw_size = 0;
	unsigned char *raw;
	ZSTD_CCtx *zstd = NULL;
	uint8_t *out = NULL;
	size_t packed;
	int ret = -DR_ENOMEM;

	if (db_failed(db, err) < 0)
		return -(int)db->failed.code;
	raw = sqlite3_serialize(db->sqlite, "main", &raw_size, 0);
	if (raw == NULL)
		return dr_error_set(err, DR_ENOMEM, "snapshot: can't serialise the state database");
	out = malloc(SNAPSHOT_HEAD + ZSTD_compressBound((size_t)raw_size));
	zstd = ZSTD_createCCtx();
	if (out == NULL || zstd == NULL) {
		dr_error_set(err, DR_ENOMEM, "snapshot: no memory");
		goto done;
	}
	ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, SNAPSHOT_LEVEL);
	ZSTD_CCtx_setParameter(zstd, ZSTD_c_checksumFlag, DR_MUTANT(snapshot_unverified) ? 0 : 1);
	packed = ZSTD_compress2(zstd, out + SNAPSHOT_HEAD, ZSTD_compressBound((size_t)raw_size), raw,
				(size_t)raw_size);
	if (ZSTD_isError(packed)) {
		ret = dr_error_set(err, DR_EBUG, "snapshot: %s", ZSTD_getErrorName(packed));
		goto done;
	}
	memcpy(out, SNAPSHOT_MAGIC, 8);
	for (int i = 0; i < 8; i++)
		out[8 + i] = (uint8_t)((uint64_t)raw_size >> (56 - 8 * i));
	db_digest(db, out + 16);
	*size = SNAPSHOT_HEAD + packed;
	*bytes = DR_TAKE_PTR(out);
	ret = 0;
done:
	ZSTD_freeCCtx(zstd);
	free(out);
	sqlite3_free(raw);
	return ret;
}

/* The database in a snapshot, from sqlite3_malloc. */
static unsigned char *unpack(const uint8_t *bytes, size_t size, size_t *raw_size, struct dr_error *err)
{
	uint64_t want = 0;
	unsigned char *raw;
	size_t got;

	if (size < SNAPSHOT_HEAD || memcmp(bytes, SNAPSHOT_MAGIC, 8) != 0) {
		dr_error_set(err, DR_ECORRUPT, "snapshot: not a snapshot of this version of Drover");
		return NULL;
	}
	for (int i = 0; i < 8; i++)
		want = want << 8 | bytes[8 + i];
	if (want < 512 || want > DB_SNAPSHOT_MAX) {
		dr_error_set(err, DR_ECORRUPT, "snapshot: impossible size %llu", (unsigned long long)want);
		return NULL;
	}
	raw = sqlite3_malloc64(want);
	if (raw == NULL) {
		dr_error_set(err, DR_ENOMEM, "snapshot: no memory for %llu bytes", (unsigned long long)want);
		return NULL;
	}
	got = ZSTD_decompress(raw, want, bytes + SNAPSHOT_HEAD, size - SNAPSHOT_HEAD);
	if (ZSTD_isError(got) || got != want) {
		dr_error_set(err, DR_ECORRUPT, "snapshot: %s",
			     ZSTD_isError(got) ? ZSTD_getErrorName(got) : "too short");
		sqlite3_free(raw);
		return NULL;
	}
	*raw_size = want;
	return raw;
}

static int write_file(const char *path, const unsigned char *raw, size_t size, struct dr_error *err)
{
	DR_AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	size_t at = 0;

	if (fd < 0)
		return dr_error_errno(err, DR_EIO, errno, "%s", path);
	while (at < size) {
		ssize_t n = write(fd, raw + at, size - at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return dr_error_errno(err, DR_EIO, errno, "%s", path);
		at += (size_t)n;
	}
	return 0;
}

/* The text of all tables and indexes; malloc'ed. */
static char *schema_text(sqlite3 *sqlite)
{
	sqlite3_stmt *stmt = NULL;
	char *text = NULL;

	if (sqlite3_prepare_v2(sqlite,
			       "SELECT group_concat(sql, ';') FROM (SELECT sql FROM sqlite_schema"
			       " WHERE sql IS NOT NULL ORDER BY type, name)",
			       -1, &stmt, NULL) == SQLITE_OK &&
	    sqlite3_step(stmt) == SQLITE_ROW && sqlite3_column_text(stmt, 0) != NULL)
		text = strdup((const char *)sqlite3_column_text(stmt, 0));
	sqlite3_finalize(stmt);
	return text;
}

static bool quick_check(sqlite3 *sqlite)
{
	sqlite3_stmt *stmt = NULL;
	bool good = false;

	if (sqlite3_prepare_v2(sqlite, "PRAGMA quick_check(1)", -1, &stmt, NULL) == SQLITE_OK &&
	    sqlite3_step(stmt) == SQLITE_ROW && sqlite3_column_text(stmt, 0) != NULL)
		good = strcmp((const char *)sqlite3_column_text(stmt, 0), "ok") == 0;
	sqlite3_finalize(stmt);
	return good;
}

static int verify(struct db *db, sqlite3 *sqlite, const uint8_t *digest, struct db_sum *sum,
		  struct dr_error *err)
{
	DR_AUTO_FREE char *mine = schema_text(db->sqlite);
	DR_AUTO_FREE char *theirs = schema_text(sqlite);
	uint8_t computed[DB_DIGEST_SIZE];

	if (mine == NULL || theirs == NULL || strcmp(mine, theirs) != 0)
		return dr_error_set(err, DR_ECORRUPT, "snapshot: it has another schema than this program");
	if (!quick_check(sqlite))
		return dr_error_set(err, DR_ECORRUPT, "snapshot: the database in it is damaged");
	if (digest_full(db, sqlite, sum) < 0)
		return dr_error_set(err, DR_ECORRUPT, "snapshot: the database in it can't be read");
	digest_bytes(sum, computed);
	if (memcmp(computed, digest, DB_DIGEST_SIZE) != 0 && !DR_MUTANT(snapshot_unverified))
		return dr_error_set(err, DR_ECORRUPT, "snapshot: its digest does not match its content");
	return 0;
}

static int open_memory(unsigned char *take_raw, size_t size, sqlite3 **out, struct dr_error *err)
{
	/* Out of WAL mode, which a database in memory does not have: file format versions 1 (bytes 18, 19).
	 */
	take_raw[18] = 1;
	take_raw[19] = 1;
	if (db_connect(":memory:", out, err) < 0) {
		sqlite3_free(take_raw);
		return -DR_EIO;
	}
	if (sqlite3_deserialize(*out, "main", take_raw, (sqlite3_int64)size, (sqlite3_int64)size,
				SQLITE_DESERIALIZE_FREEONCLOSE | SQLITE_DESERIALIZE_RESIZEABLE) !=
	    SQLITE_OK) {
		dr_error_set(err, DR_ECORRUPT, "snapshot: %s", sqlite3_errmsg(*out));
		sqlite3_close(*out);
		return -DR_ECORRUPT;
	}
	return 0;
}

/* The new connection takes the old one's place. */
static void adopt(struct db *db, sqlite3 *sqlite, const struct db_sum *sum)
{
	db_forget_statements(db);
	sqlite3_close_v2(db->sqlite);
	db->sqlite = sqlite;
	db->sum = *sum;
	db_install(db);
}

static void remove_side_files(const char *path)
{
	static const char *const suffixes[] = {"-wal", "-shm"};

	for (size_t i = 0; i < DR_ARRAY_SIZE(suffixes); i++) {
		DR_AUTO_FREE char *name = NULL;

		if (asprintf(&name, "%s%s", path, suffixes[i]) >= 0)
			unlink(name);
	}
}

static int restore_file(struct db *db, unsigned char *take_raw, size_t size, const uint8_t *digest,
			struct dr_error *err)
{
	char fresh[4096];
	sqlite3 *sqlite = NULL;
	struct db_sum sum;
	int ret;

	snprintf(fresh, sizeof(fresh), "%s.new", db->path);
	remove_side_files(fresh);
	ret = write_file(fresh, take_raw, size, err);
	sqlite3_free(take_raw);
	if (ret == 0)
		ret = db_connect(fresh, &sqlite, err);
	if (ret == 0)
		ret = verify(db, sqlite, digest, &sum, err);
	sqlite3_close_v2(sqlite);
	remove_side_files(fresh);
	if (ret < 0) {
		unlink(fresh);
		return ret;
	}
	/* From here on a failure leaves no usable state: the caller stops, and the next start rebuilds it. */
	db_forget_statements(db);
	sqlite3_close_v2(db->sqlite);
	db->sqlite = NULL;
	remove_side_files(db->path);
	if (rename(fresh, db->path) != 0)
		ret = dr_error_errno(err, DR_EIO, errno, "%s: rename", fresh);
	if (ret == 0)
		ret = db_connect(db->path, &sqlite, err);
	if (ret < 0) {
		db_fail(db, DR_EIO, "state database: can't be replaced by the snapshot");
		return ret;
	}
	adopt(db, sqlite, &sum);
	return 0;
}

int db_restore(struct db *db, const uint8_t *bytes, size_t size, struct dr_error *err)
{
	sqlite3 *sqlite = NULL;
	struct db_sum sum;
	size_t raw_size = 0;
	unsigned char *raw;
	int ret;

	if (db->in_transaction)
		return dr_error_set(err, DR_EBUG, "snapshot: restore within a transaction");
	raw = unpack(bytes, size, &raw_size, err);
	if (raw == NULL)
		return err != NULL ? -(int)err->code : -DR_ECORRUPT;
	if (strcmp(db->path, ":memory:") != 0)
		return restore_file(db, raw, raw_size, bytes + 16, err);
	ret = open_memory(raw, raw_size, &sqlite, err);
	if (ret == 0) {
		ret = verify(db, sqlite, bytes + 16, &sum, err);
		if (ret < 0)
			sqlite3_close(sqlite);
	}
	if (ret == 0)
		adopt(db, sqlite, &sum);
	return ret;
}
