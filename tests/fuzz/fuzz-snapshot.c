/* A snapshot of the state, as a disk or another member may give it. What is taken has the digest that it
 * says. */
#include <string.h>

#include "db/db.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dr_error err = DR_ERROR_INIT;
	uint8_t kept[DB_DIGEST_SIZE], full[DB_DIGEST_SIZE];
	struct db *db;

	FUZZ_CHECK(db_open(":memory:", &db, &err) == 0);
	if (db_restore(db, data, size, &err) == 0) {
		db_digest(db, kept);
		FUZZ_CHECK(db_digest_full(db, full) == 0);
		FUZZ_CHECK(memcmp(kept, full, sizeof(kept)) == 0);
	} else {
		FUZZ_CHECK(err.text[0] != '\0');
	}
	db_close(db);
	return 0;
}
