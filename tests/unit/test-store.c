/* The agent's store: what it says it kept is there after closing and opening again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/store.h"

static char path[64];
static struct store *store;

static void open_again(void)
{
	struct dr_error err = DR_ERROR_INIT;

	store_close(store);
	store = NULL;
	assert_int_equal(store_open(path, &store, &err), 0);
}

static int setup(void **state)
{
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "/tmp/drover-test-store.XXXXXX");
	fd = mkstemp(path);
	if (fd < 0)
		return -1;
	close(fd);
	store = NULL;
	open_again();
	return 0;
}

static int teardown(void **state)
{
	static const char *const ends[] = {"", "-wal", "-shm"};
	char name[80];

	(void)state;
	store_close(store);
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "%s%s", path, ends[i]);
		unlink(name);
	}
	return 0;
}

static int n_rows;
static struct store_vm seen;

static void on_vm(const struct store_vm *vm, void *data)
{
	(void)data;
	n_rows++;
	seen = *vm;
	if (vm->spec != NULL)
		assert_string_equal(vm->spec->name, "vm1");
}

static void put_vm(uint64_t generation, Drover__VmState vm_state)
{
	Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
	struct store_vm vm = {.name = "vm1",
			      .uuid = {1, 2, 3},
			      .generation = generation,
			      .spec = &spec,
			      .pid = 4711,
			      .start_time = 99,
			      .state = vm_state,
			      .error = "words"};

	spec.name = (char *)(uintptr_t) "vm1";
	assert_int_equal(store_vm_put(store, &vm), 0);
}

static void test_vms(void **state)
{
	uint64_t g;

	(void)state;
	put_vm(3, DROVER__VM_STATE__VM_RUNNING);
	open_again();
	n_rows = 0;
	assert_int_equal(store_vms(store, on_vm, NULL), 0);
	assert_int_equal(n_rows, 1);
	assert_int_equal(seen.generation, 3);
	assert_int_equal(seen.pid, 4711);
	assert_int_equal(seen.start_time, 99);
	assert_int_equal(seen.uuid[2], 3);
	assert_string_equal(seen.error, "words");
	assert_null(seen.launch);
	store_word(store, "vm1", &g);
	assert_int_equal(g, 0);
	store_vm_floor(store, "vm1", &g);
	assert_int_equal(g, 3);

	/* The word comes with the end, survives the row, and never goes down. */
	put_vm(4, DROVER__VM_STATE__VM_FAILED);
	assert_int_equal(store_vm_delete(store, "vm1"), 0);
	assert_int_equal(store_word_raise(store, "vm1", 2), 0);
	open_again();
	n_rows = 0;
	store_vms(store, on_vm, NULL);
	assert_int_equal(n_rows, 0);
	store_word(store, "vm1", &g);
	assert_int_equal(g, 4);
	store_word(store, "vm2", &g);
	assert_int_equal(g, 0);
}

static void test_floors(void **state)
{
	struct store_floors f = {.term = 5, .incarnation = 2, .cluster_uuid = {9}, .have_cluster = true};
	uint32_t attempt;

	(void)state;
	assert_int_equal(store_floors_put(store, &f), 0);
	store_move_floor_raise(store, 17, 3);
	store_move_floor_raise(store, 17, 2);
	open_again();
	assert_int_equal(store_floors(store, &f), 0);
	assert_int_equal(f.term, 5);
	assert_int_equal(f.incarnation, 2);
	assert_true(f.have_cluster);
	assert_int_equal(f.cluster_uuid[0], 9);
	store_move_floor(store, 17, &attempt);
	assert_int_equal(attempt, 3);
	store_move_floor(store, 18, &attempt);
	assert_int_equal(attempt, 0);
}

static void on_move(const struct store_move *m, void *data)
{
	(void)data;
	n_rows++;
	assert_int_equal(m->order->move, 17);
	assert_string_equal(m->order->vm, "vm1");
	assert_int_equal(m->record.phase, DROVER__MOVE_PHASE__SRC_RELEASED);
	assert_string_equal(m->record.error, "first");
	assert_int_equal(m->record.error_exit, 6);
	assert_true(m->record.stopped);
	assert_true(m->record.released);
	assert_false(m->record.committed);
	assert_int_equal(m->record.stats.bytes_wire, 12345);
	assert_int_equal(m->record.n_proofs, 1);
	assert_string_equal(m->record.proofs[0]->path, "/disk");
	assert_int_equal(m->qemu.pid, 11);
	assert_int_equal(m->relay.pid, 22);
	assert_int_equal(m->relay.start_time, 33);
}

static void test_moves(void **state)
{
	Drover__MoveOrder o = DROVER__MOVE_ORDER__INIT;
	Drover__DiskProof p = DROVER__DISK_PROOF__INIT;
	Drover__DiskProof *proofs[] = {&p};
	struct store_move m = {.order = &o, .qemu = {11, 12}};

	(void)state;
	o.move = 17;
	o.attempt = 2;
	o.vm = (char *)(uintptr_t) "vm1";
	p.path = (char *)(uintptr_t) "/disk";
	drover__move_stats__init(&m.record.stats);
	m.record.phase = DROVER__MOVE_PHASE__SRC_RELEASED;
	snprintf(m.record.error, sizeof(m.record.error), "first");
	m.record.error_exit = 6;
	m.record.stopped = true;
	m.record.released = true;
	m.record.stats.bytes_wire = 12345;
	m.record.proofs = proofs;
	m.record.n_proofs = 1;
	assert_int_equal(store_move_put(store, &m), 0);
	m.relay.pid = 22;
	m.relay.start_time = 33;
	assert_int_equal(store_move_procs(store, &m), 0);
	open_again();
	n_rows = 0;
	assert_int_equal(store_moves(store, on_move, NULL), 0);
	assert_int_equal(n_rows, 1);
	assert_int_equal(store_move_delete(store, 17, 2, DROVER__MOVE_ROLE__MOVE_SRC), 0);
	n_rows = 0;
	assert_int_equal(store_moves(store, on_move, NULL), 0);
	assert_int_equal(n_rows, 0);
}

static void test_rollback(void **state)
{
	uint64_t g;

	(void)state;
	assert_int_equal(store_begin(store), 0);
	put_vm(8, DROVER__VM_STATE__VM_STOPPED);
	store_rollback(store);
	store_word(store, "vm1", &g);
	assert_int_equal(g, 0);
	store_vm_floor(store, "vm1", &g);
	assert_int_equal(g, 0);
}

/* A file of version 1 is read on; its moves count as if they had given their word. */
static void test_version_1(void **state)
{
	Drover__MoveOrder o = DROVER__MOVE_ORDER__INIT;
	Drover__DiskProof p = DROVER__DISK_PROOF__INIT;
	Drover__DiskProof *proofs[] = {&p};
	struct store_move m = {.order = &o, .qemu = {11, 12}, .relay = {22, 33}};
	sqlite3 *db;

	(void)state;
	o.move = 17;
	o.vm = (char *)(uintptr_t) "vm1";
	p.path = (char *)(uintptr_t) "/disk";
	drover__move_stats__init(&m.record.stats);
	m.record = (struct move_record){.phase = DROVER__MOVE_PHASE__SRC_RELEASED,
					.error = "first",
					.error_exit = 6,
					.stopped = true,
					.stats = m.record.stats,
					.n_proofs = 1,
					.proofs = proofs};
	m.record.stats.bytes_wire = 12345;
	assert_int_equal(store_move_put(store, &m), 0);
	store_close(store);
	store = NULL;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "ALTER TABLE moves DROP COLUMN released; PRAGMA user_version=1",
				      NULL, NULL, NULL),
			 SQLITE_OK);
	sqlite3_close(db);
	open_again();
	n_rows = 0;
	assert_int_equal(store_moves(store, on_move, NULL), 0);
	assert_int_equal(n_rows, 1);
	open_again();
}

static void test_newer_file(void **state)
{
	struct dr_error err = DR_ERROR_INIT;
	int fd;

	(void)state;
	store_close(store);
	store = NULL;
	/* user_version is a big-endian number at byte 60 of the file */
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "\0\0\0\x63", 4, 60), 4);
	close(fd);
	assert_int_equal(store_open(path, &store, &err), -DR_EREFUSED);
	assert_non_null(strstr(err.text, "newer"));
	assert_null(store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_vms, setup, teardown),
		cmocka_unit_test_setup_teardown(test_floors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_moves, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rollback, setup, teardown),
		cmocka_unit_test_setup_teardown(test_version_1, setup, teardown),
		cmocka_unit_test_setup_teardown(test_newer_file, setup, teardown),
	};

	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
