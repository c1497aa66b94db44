/*
 * test-compat [DIR]...: what each version wrote (v1, v2, ...) is read by this one as it was meant. The log of
 * a version gives the same digest as it gave then: members of two versions must agree while they run side by
 * side (SAFETY R20). Without arguments: every set beside the source.
 */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/store.h"
#include "compat.h"
#include "coordinator/logdb.h"
#include "coordinator/msg.h"
#include "tests/unit/core.h"

#define LINE_MAX_BYTES (1 << 20)
#define NAME_BYTES     128

static const char *dir;
static char temp[64];

/* What fails says in which set. */
static void path_of(char *path, size_t size, const char *name)
{
	snprintf(path, size, "%s/%s", dir, name);
}

static FILE *open_golden(const char *name)
{
	char path[512];
	FILE *f;

	path_of(path, sizeof(path), name);
	f = fopen(path, "re");
	if (f == NULL)
		fail_msg("%s is missing", path);
	return f;
}

/* A copy that may be written to: SQLite makes files beside a database, and the set is read-only in distcheck.
 */
static void copy(const char *name, const char *to)
{
	char path[512];
	char buf[65536];
	size_t n;
	FILE *in = open_golden(name);
	FILE *out;

	snprintf(path, sizeof(path), "%s/%s", temp, to);
	out = fopen(path, "w");
	if (out == NULL)
		fail_msg("%s cannot be made", path);
	while ((n = fread(buf, 1, sizeof(buf), in)) > 0)
		assert_int_equal(fwrite(buf, 1, n, out), n);
	fclose(in);
	assert_int_equal(fclose(out), 0);
}

/* ---------------------------------------------------------------- messages */

static const ProtobufCMessageDescriptor *root(const char *name)
{
	for (unsigned i = 0; compat_roots[i] != NULL; i++)
		if (strcmp(compat_roots[i]->name, name) == 0)
			return compat_roots[i];
	fail_msg("%s: there is no message %s any more", dir, name);
	return NULL;
}

static size_t from_hex(const char *text, uint8_t *bytes)
{
	size_t n = strlen(text) / 2;

	for (size_t i = 0; i < n; i++) {
		char pair[3] = {text[2 * i], text[2 * i + 1], '\0'};

		bytes[i] = (uint8_t)strtoul(pair, NULL, 16);
	}
	return n;
}

/* The lines of one record: its header, then what it means up to the next header. */
static void check_record(const char *name, const char *kind, const char *text, const char *meant)
{
	const ProtobufCMessageDescriptor *d = root(name);
	uint8_t *bytes = malloc(strlen(text) + 1);
	ProtobufCMessage *m;
	char *told = NULL;
	size_t told_size = 0;
	FILE *out = open_memstream(&told, &told_size);

	assert_non_null(bytes);
	assert_non_null(out);
	m = protobuf_c_message_unpack(d, NULL, from_hex(text, bytes), bytes);
	if (m == NULL)
		fail_msg("%s: %s %s cannot be unpacked any more", dir, name, kind);
	if (!msg_known(m))
		fail_msg("%s: a field of %s %s is not known any more", dir, name, kind);
	compat_dump(out, m, "");
	fclose(out);
	if (strcmp(told, meant) != 0)
		fail_msg("%s: %s %s is read otherwise:\n%s\nand was meant as\n%s", dir, name, kind, told,
			 meant);
	protobuf_c_message_free_unpacked(m, NULL);
	free(told);
	free(bytes);
}

/* "NAME KIND HEX\n" */
static void split(char *line, char name[NAME_BYTES], char kind[NAME_BYTES], char *text)
{
	char *rest = NULL;
	const char *words[3];

	words[0] = strtok_r(line, " \n", &rest);
	words[1] = strtok_r(NULL, " \n", &rest);
	words[2] = strtok_r(NULL, " \n", &rest);
	if (words[0] == NULL || words[1] == NULL || words[2] == NULL)
		fail_msg("%s/messages.txt is damaged", dir);
	snprintf(name, NAME_BYTES, "%s", words[0]);
	snprintf(kind, NAME_BYTES, "%s", words[1]);
	snprintf(text, LINE_MAX_BYTES, "%s", words[2]);
}

static void test_messages(void **state)
{
	FILE *in = open_golden("messages.txt");
	char *line = malloc(LINE_MAX_BYTES);
	char *text = malloc(LINE_MAX_BYTES);
	char *meant = NULL;
	size_t meant_size = 0;
	FILE *words = NULL;
	char name[NAME_BYTES] = "";
	char kind[NAME_BYTES] = "";
	unsigned n = 0;

	(void)state;
	assert_non_null(line);
	assert_non_null(text);
	for (bool more = true; more;) {
		more = fgets(line, LINE_MAX_BYTES, in) != NULL;
		if (more && line[0] == ' ') {
			assert_non_null(words);
			fputs(line, words);
			continue;
		}
		if (words != NULL) {
			fclose(words);
			check_record(name, kind, text, meant);
			free(meant);
			words = NULL;
			n++;
		}
		if (!more)
			break;
		split(line, name, kind, text);
		words = open_memstream(&meant, &meant_size);
		assert_non_null(words);
	}
	assert_true(n > 60);
	fclose(in);
	free(line);
	free(text);
}

/* ---------------------------------------------------------------- log and snapshot */

static void read_state(uint64_t *index, char digest[2 * DB_DIGEST_SIZE + 1])
{
	FILE *in = open_golden("state.txt");

	assert_int_equal(fscanf(in, "index %" SCNu64 "\ndigest %64s", index, digest), 2);
	fclose(in);
}

static void check_state(struct db *db, const char *what)
{
	char wanted[2 * DB_DIGEST_SIZE + 1];
	char got[2 * DB_DIGEST_SIZE + 1];
	uint8_t digest[DB_DIGEST_SIZE];
	uint64_t index = 0;

	read_state(&index, wanted);
	db_digest(db, digest);
	for (unsigned i = 0; i < DB_DIGEST_SIZE; i++)
		snprintf(got + 2 * (size_t)i, 3, "%02x", digest[i]);
	assert_int_equal(apply_index(db), index);
	if (strcmp(got, wanted) != 0)
		fail_msg("%s: the %s gives digest %s, and gave %s: old and new members would disagree", dir,
			 what, got, wanted);
}

static int apply_entry(const struct logdb_entry *e, void *data)
{
	struct core *c = data;
	struct dr_error err = DR_ERROR_INIT;
	Drover__Command *cmd = drover__command__unpack(NULL, e->size, e->data);

	if (cmd == NULL)
		fail_msg("%s: entry %" PRIu64 " cannot be unpacked any more", dir, e->index);
	if (apply_command(c->db, e->index, cmd, &c->last, &err) < 0)
		fail_msg("%s: entry %" PRIu64 " (%s): %s", dir, e->index, apply_command_name(cmd), err.text);
	drover__command__free_unpacked(cmd, NULL);
	return 0;
}

static void test_log(void **state)
{
	struct dr_error err = DR_ERROR_INIT;
	struct logdb_identity id;
	struct core c = {0};
	struct logdb *log;

	(void)state;
	copy("log/log.db", "log.db");
	copy("log/log.mark", "log.mark");
	log = logdb_open(temp, &err);
	if (log == NULL)
		fail_msg("%s: %s", dir, err.text);
	assert_int_equal(logdb_identity_get(log, &id, &err), 0);
	assert_int_equal(id.member, 77);
	assert_int_equal(db_open(":memory:", &c.db, &err), 0);
	assert_int_equal(logdb_entries(log, apply_entry, &c, &err), 0);
	check_state(c.db, "log");
	db_close(c.db);
	logdb_close(log);
}

static void test_snapshot(void **state)
{
	struct dr_error err = DR_ERROR_INIT;
	FILE *in = open_golden("state.snapshot");
	uint8_t *bytes = malloc(LINE_MAX_BYTES);
	char path[512];
	struct db *db;
	size_t n;

	(void)state;
	assert_non_null(bytes);
	n = fread(bytes, 1, LINE_MAX_BYTES, in);
	fclose(in);
	snprintf(path, sizeof(path), "%s/state.db", temp);
	assert_int_equal(db_open(path, &db, &err), 0);
	if (db_restore(db, bytes, n, &err) < 0)
		fail_msg("%s: %s", dir, err.text);
	check_state(db, "snapshot");
	db_close(db);
	free(bytes);
}

/* ---------------------------------------------------------------- the agent's store */

static void test_store(void **state)
{
	struct dr_error err = DR_ERROR_INIT;
	FILE *in = open_golden("agent.txt");
	char *meant = calloc(1, LINE_MAX_BYTES);
	char *told = NULL;
	size_t told_size = 0;
	FILE *out = open_memstream(&told, &told_size);
	struct store *store;
	char path[512];

	(void)state;
	assert_non_null(meant);
	assert_non_null(out);
	assert_true(fread(meant, 1, LINE_MAX_BYTES - 1, in) > 0);
	fclose(in);
	copy("agent.db", "agent.db");
	snprintf(path, sizeof(path), "%s/agent.db", temp);
	if (store_open(path, &store, &err) != 0)
		fail_msg("%s: %s", dir, err.text);
	compat_store_dump(out, store);
	store_close(store);
	fclose(out);
	if (strcmp(told, meant) != 0)
		fail_msg("%s: agent.db is read otherwise:\n%s", dir, told);
	free(told);
	free(meant);
}

/* ---------------------------------------------------------------- */

static int make_temp(void **state)
{
	(void)state;
	strcpy(temp, "/tmp/drover-compat-XXXXXX");
	return mkdtemp(temp) != NULL ? 0 : -1;
}

static int remove_temp(void **state)
{
	DIR *d = opendir(temp);
	struct dirent *e;

	(void)state;
	while (d != NULL && (e = readdir(d)) != NULL)
		unlinkat(dirfd(d), e->d_name, 0);
	if (d != NULL)
		closedir(d);
	return rmdir(temp);
}

static int check_set(const char *path)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_messages),
		cmocka_unit_test_setup_teardown(test_log, make_temp, remove_temp),
		cmocka_unit_test_setup_teardown(test_snapshot, make_temp, remove_temp),
		cmocka_unit_test_setup_teardown(test_store, make_temp, remove_temp),
	};

	printf("what %s wrote:\n", path);
	dir = path;
	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
	const char *src = getenv("srcdir");
	int failed = 0;
	int sets = 0;

	for (int i = 1; i < argc; i++, sets++)
		failed += check_set(argv[i]);
	for (unsigned v = 1; argc == 1 && v <= APPLY_VERSION; v++, sets++) {
		char path[512];

		snprintf(path, sizeof(path), "%s/v%u", src != NULL ? src : ".", v);
		failed += check_set(path);
	}
	return failed == 0 && sets > 0 ? 0 : 1;
}
