/*
 * make-golden DIR: writes the messages and databases of the present version into DIR, which must be empty
 * (without DIR: says which version that is):
 *
 *   messages.txt    every message that travels, packed (hex), and what it means
 *   log/log.db      a log of commands of every kind
 *   state.snapshot  the state after them
 *   state.txt       its index, cluster version and digest
 *   agent.db        an agent's store
 *   agent.txt       what it means
 */
#include <inttypes.h>
#include <sys/stat.h>

#include "agent/store.h"
#include "compat.h"
#include "coordinator/logdb.h"
#include "tests/unit/core.h"

#define RAFT_ENTRY_COMMAND 1

static const char *dir;
static struct logdb *log_db;
static struct core core;

static void die(const char *what, const struct dr_error *err)
{
	fprintf(stderr, "make-golden: %s: %s\n", what, err != NULL ? err->text : "failed");
	exit(1);
}

static FILE *create(const char *name)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "wx");
	if (f == NULL)
		die(path, NULL);
	return f;
}

static void hex(FILE *out, const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		fprintf(out, "%02x", bytes[i]);
}

/* ---------------------------------------------------------------- messages */

static void write_message(FILE *out, const ProtobufCMessageDescriptor *d, uint32_t field)
{
	const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field(d, field);
	ProtobufCMessage *m = compat_fill(d, field);
	size_t size = protobuf_c_message_get_packed_size(m);
	uint8_t *bytes = malloc(size + 1);

	if (bytes == NULL)
		abort();
	protobuf_c_message_pack(m, bytes);
	fprintf(out, "%s %s ", d->name, f != NULL ? f->name : "-");
	hex(out, bytes, size);
	fprintf(out, "\n");
	compat_dump(out, m, "");
	free(bytes);
	protobuf_c_message_free_unpacked(m, NULL);
}

static void write_messages(void)
{
	FILE *out = create("messages.txt");

	for (unsigned i = 0; compat_roots[i] != NULL; i++) {
		uint32_t field = compat_next_case(compat_roots[i], 0);

		do {
			write_message(out, compat_roots[i], field);
			field = field != 0 ? compat_next_case(compat_roots[i], field) : 0;
		} while (field != 0);
	}
	if (fclose(out) != 0)
		die("messages.txt", NULL);
}

/* ---------------------------------------------------------------- log and state */

static void keep(uint64_t index, const Drover__Command *cmd)
{
	struct dr_error err = DR_ERROR_INIT;
	size_t size = drover__command__get_packed_size(cmd);
	uint8_t *bytes = malloc(size + 1);
	struct logdb_entry entry = {.index = index,
				    .term = 1 + index / 50,
				    .type = RAFT_ENTRY_COMMAND,
				    .data = bytes,
				    .size = size};

	if (bytes == NULL)
		abort();
	drover__command__pack(cmd, bytes);
	if (logdb_begin(log_db, &err) < 0 || logdb_append(log_db, &entry, &err) < 0 ||
	    logdb_commit(log_db, &err) < 0)
		die("log.db", &err);
	free(bytes);
}

/* One that this program knows, whatever becomes of it. */
static void apply_any(Drover__Command *cmd)
{
	struct dr_error err = DR_ERROR_INIT;

	cmd->version = apply_needs(cmd);
	if (cmd->version > APPLY_VERSION)
		return;
	if (apply_command(core.db, core.index + 1, cmd, &core.last, &err) < 0)
		die(apply_command_name(cmd), &err);
	keep(++core.index, cmd);
}

static uint64_t moved(const char *vm, const char *to, bool commit)
{
	const char *from = core_vm(&core, vm).owner;
	char src[ROWS_NAME];
	uint8_t src_start = (uint8_t)(from[4] - '0');
	uint8_t dst_start = (uint8_t)(to[4] - '0');
	uint64_t id;

	snprintf(src, sizeof(src), "%s", from);
	assert_int_equal(core_move_create(&core, vm, to), 0);
	id = core.last.object_id;
	assert_int_equal(core_assign(&core, id, to), 0);
	core_dst(&core, to, dst_start, id, 1, DROVER__MOVE_PHASE__DST_PREPARED);
	core_src(&core, src, src_start, id, 1, DROVER__MOVE_PHASE__SRC_COPYING);
	if (commit) {
		assert_int_equal(core_dst(&core, to, dst_start, id, 1, DROVER__MOVE_PHASE__DST_COMPLETED), 0);
		assert_int_equal(core_src(&core, src, src_start, id, 1, DROVER__MOVE_PHASE__SRC_RELEASED), 0);
		assert_int_equal(core_commit(&core, id, 1), 0);
	} else {
		assert_int_equal(core_abort(&core, id, 1, DROVER__CMD_MOVE_ABORT__OUTCOME__FAIL), 0);
	}
	assert_int_equal(core_src(&core, src, src_start, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	assert_int_equal(core_dst(&core, to, dst_start, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	return id;
}

/* A cluster's life in short, and then one command of every kind with everything set, most of them refused. */
static void live(void)
{
#if APPLY_VERSION > 1
	for (uint32_t v = APPLY_VERSION_FIRST; v < APPLY_VERSION; v++) {
		CORE_BODY(cmd, body, CLUSTER_VERSION, cluster_version, Drover__CmdClusterVersion,
			  drover__cmd_cluster_version);
		body.from = v;
		body.to = v + 1;
		assert_int_equal(core_apply(&core, &cmd), 0);
	}
#endif
	for (uint8_t n = 1; n <= 3; n++) {
		char name[8];

		snprintf(name, sizeof(name), "node%d", n);
		core_node(&core, name, n);
	}
	core_vm_run(&core, "vm1", 50, "node1", 1, 100 << 20, 1000);
	core_vm_run(&core, "vm2", 51, "node2", 2, 200 << 20, 2000);
	core_vm_run(&core, "vm3", 52, "node3", 3, 50 << 20, 0);
	moved("vm1", "node2", true);
	moved("vm2", "node3", false);
	assert_int_equal(core_vm_fact(&core, "node3", 3, "vm3", core_vm(&core, "vm3").generation,
				      DROVER__VM_STATE__VM_STOPPED),
			 0);
	core_drain(&core, "node2");
	for (uint32_t field = compat_next_case(&drover__command__descriptor, 0); field != 0;
	     field = compat_next_case(&drover__command__descriptor, field)) {
		ProtobufCMessage *m = compat_fill(&drover__command__descriptor, field);
		Drover__Command *cmd = (Drover__Command *)(void *)m;

		cmd->term = 0;
		cmd->incarnation = 0;
		cmd->request_id.data[0] = (uint8_t)field; /* no two alike */
		apply_any(cmd);
		protobuf_c_message_free_unpacked(m, NULL);
	}
}

static void write_state(void)
{
	struct dr_error err = DR_ERROR_INIT;
	uint8_t digest[DB_DIGEST_SIZE];
	struct logdb_identity id = {.member = 77, .incarnation = 1};
	char path[512];
	uint8_t *bytes;
	size_t size;
	FILE *out;

	snprintf(path, sizeof(path), "%s/log", dir);
	if (mkdir(path, 0755) != 0)
		die(path, NULL);
	log_db = logdb_open(path, &err);
	if (log_db == NULL || logdb_identity_set(log_db, &id, &err) < 0 ||
	    logdb_vote_set(log_db, 4, 77, &err) < 0)
		die("log.db", &err);
	core_hook = keep;
	core_init(&core);
	live();
	logdb_close(log_db);
	if (db_serialize(core.db, &bytes, &size, &err) < 0)
		die("snapshot", &err);
	out = create("state.snapshot");
	if (fwrite(bytes, 1, size, out) != size || fclose(out) != 0)
		die("state.snapshot", NULL);
	free(bytes);
	db_digest(core.db, digest);
	out = create("state.txt");
	fprintf(out, "index %" PRIu64 "\ndigest ", apply_index(core.db));
	hex(out, digest, sizeof(digest));
	fprintf(out, "\n");
	fclose(out);
	core_fini(&core);
}

static void write_store(void)
{
	struct dr_error err = DR_ERROR_INIT;
	struct store *store;
	char path[512];
	FILE *out = create("agent.txt");

	snprintf(path, sizeof(path), "%s/agent.db", dir);
	if (store_open(path, &store, &err) != 0)
		die(path, &err);
	compat_store_fill(store);
	compat_store_dump(out, store);
	store_close(store);
	if (fclose(out) != 0)
		die("agent.txt", NULL);
}

int main(int argc, char **argv)
{
	if (argc == 1) {
		printf("%d\n", APPLY_VERSION);
		return 0;
	}
	if (argc != 2) {
		fprintf(stderr, "usage: make-golden [DIR]\n");
		return 2;
	}
	dir = argv[1];
	write_messages();
	write_state();
	write_store();
	return 0;
}
