/*
 * Commands of the replicated log, each behind two bytes of length, big endian, on a state that has something
 * of everything (tests/compat). They come from members only, but one that a member can't apply stops all of
 * them: whatever a command says, it is applied or refused, the digest stays right, and a refusal leaves
 * nothing behind but its records.
 */
#include <stdbool.h>
#include <string.h>

#include "coordinator/apply.h"
#include "tests/fuzz/fuzz.h"

#define SNAPSHOT_MAX (1u << 20)
#define COMMANDS_MAX 16

static uint8_t snapshot[SNAPSHOT_MAX];
static size_t snapshot_size;

static struct db *fresh_state(void)
{
	struct dr_error err = DR_ERROR_INIT;
	struct db *db;

	if (snapshot_size == 0) {
		FILE *in = fopen(DROVER_FUZZ_STATE, "rb");

		FUZZ_CHECK(in != NULL);
		snapshot_size = fread(snapshot, 1, sizeof(snapshot), in);
		fclose(in);
	}
	FUZZ_CHECK(db_open(":memory:", &db, &err) == 0);
	FUZZ_CHECK(db_restore(db, snapshot, snapshot_size, &err) == 0);
	return db;
}

/* False: a program that does not know the command stops before it (SAFETY R20). */
static bool apply(struct db *db, const Drover__Command *cmd)
{
	struct dr_error err = DR_ERROR_INIT;
	struct apply_result result;
	uint8_t kept[DB_DIGEST_SIZE], full[DB_DIGEST_SIZE];
	int ret = apply_command(db, apply_index(db) + 1, cmd, &result, &err);

	if (ret == -DR_EBUG && db_failed(db, NULL) == 0)
		return false;
	if (ret != 0)
		fprintf(stderr, "%s: %s\n", apply_command_name(cmd), err.text);
	FUZZ_CHECK(ret == 0);
	FUZZ_CHECK(result.exit == 0 || result.message[0] != '\0');
	db_digest(db, kept);
	FUZZ_CHECK(db_digest_full(db, full) == 0);
	FUZZ_CHECK(memcmp(kept, full, sizeof(kept)) == 0);
	return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct db *db = NULL;
	bool goes_on = true;

	for (unsigned n = 0; goes_on && n < COMMANDS_MAX && size > 2; n++) {
		size_t length = (size_t)data[0] << 8 | data[1];
		Drover__Command *cmd;

		if (length > size - 2)
			length = size - 2;
		cmd = drover__command__unpack(NULL, length, data + 2);
		data += 2 + length;
		size -= 2 + length;
		if (cmd == NULL)
			continue;
		if (db == NULL)
			db = fresh_state();
		goes_on = apply(db, cmd);
		drover__command__free_unpacked(cmd, NULL);
	}
	db_close(db);
	return 0;
}
