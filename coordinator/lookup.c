#include "coordinator/lookup.h"

#include <string.h>

bool lookup_cluster(struct db *db, char name[LOOKUP_NAME])
{
	struct db_rows rows;
	bool found;

	name[0] = '\0';
	db_query(db, &rows, "SELECT value FROM meta WHERE key = 'name'", "");
	found = db_next(&rows);
	if (found)
		db_copy_text(&rows, 0, name, LOOKUP_NAME);
	db_done(&rows);
	return found;
}

bool lookup_session(struct db *db, const char *node, const uint8_t start_id[16], const char *coordinator)
{
	return db_exists(db, "SELECT 1 FROM node WHERE name = ? AND start_id = ? AND coordinator = ?", "sbs",
			 node, (const void *)start_id, (size_t)16, coordinator);
}

bool lookup_token(struct db *db, const uint8_t hash[32], uint64_t member)
{
	return db_exists(db, "SELECT 1 FROM token WHERE hash = ? AND used IN (0, ?)", "bu",
			 (const void *)hash, (size_t)32, member);
}

bool lookup_next_session(struct db *db, const char *coordinator, const char *after, char node[LOOKUP_NAME],
			 uint8_t boot_id[16], uint8_t start_id[16])
{
	struct db_rows rows;
	const void *boot, *start;
	size_t boot_size = 0, start_size = 0;
	bool found;

	db_query(db, &rows,
		 "SELECT name, boot_id, start_id FROM node WHERE coordinator = ? AND name > ? ORDER BY name "
		 "LIMIT 1",
		 "ss", coordinator, after);
	found = db_next(&rows);
	if (found) {
		db_copy_text(&rows, 0, node, LOOKUP_NAME);
		boot = db_blob(&rows, 1, &boot_size);
		if (boot_size == 16)
			memcpy(boot_id, boot, 16);
		start = db_blob(&rows, 2, &start_size);
		if (start_size == 16)
			memcpy(start_id, start, 16);
		found = boot_size == 16 && start_size == 16;
	}
	db_done(&rows);
	return found;
}

bool lookup_member_at(struct db *db, uint64_t member, uint32_t nodeid)
{
	return db_exists(db, "SELECT 1 FROM member WHERE id = ? AND removed = 0 AND corosync_id IN (0, ?)",
			 "uu", member, (uint64_t)nodeid);
}

bool lookup_member_removed(struct db *db, uint64_t member)
{
	return db_exists(db, "SELECT 1 FROM member WHERE id = ? AND removed = 1", "u", member);
}

bool lookup_boot(struct db *db, const char *node, uint8_t boot_id[16])
{
	struct db_rows rows;
	bool found = false;

	db_query(db, &rows, "SELECT boot_id FROM node WHERE name = ?", "s", node);
	if (db_next(&rows)) {
		size_t size;
		const void *bytes = db_blob(&rows, 0, &size);

		found = size == 16;
		if (found)
			memcpy(boot_id, bytes, 16);
	}
	db_done(&rows);
	return found;
}

uint64_t lookup_origin(struct db *db)
{
	return db_get_u64(db, "SELECT value FROM counter WHERE name = 'origin'", "");
}
