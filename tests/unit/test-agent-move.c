/*
 * A live move between two real agents on one host: real QEMUs, relays, TLS, disks.
 * The test plays the coordinator, as DESIGN §7 says what it does.
 */
#include <setjmp.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "agent-fake.h"

#define LONG_MS 30000
/* In the names of the relays: another run of this test on the machine has others. */
#define MOVE ((uint64_t)getpid())

static struct fake fake;
static uint8_t uuid[16] = {0x6f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static char guest_append[] = "mem=24 fill=text ws=4 rate=500 hb=10ms";
static char disk_path[160];

/* What the replicated rows would hold. */
struct rows {
	uint32_t attempt;
	uint64_t generation;
	Drover__MoveDecision decision;
	uint32_t dst_port;
	uint32_t token;
	bool src_ready;
	bool hold_commit; /* the test decides when */
	bool active;	  /* a move is ordered */
	bool owner_dst;
	bool bad_proof;
	bool encrypt;
	Drover__LaunchRecord *launch;
	Drover__DiskProof **proofs;
	size_t n_proofs;
	uint8_t key[32];
	bool dirty;
	char seen_error[600];
};

static struct rows rows;

static void fill_spec(Drover__VmSpec *spec)
{
	static char *args[] = {(char *)(uintptr_t) "-device",
			       (char *)(uintptr_t) "isa-debugcon,iobase=0xe9,chardev=beat",
			       (char *)(uintptr_t) "-chardev", (char *)(uintptr_t) "null,id=beat"};
	static Drover__VmDisk disk = DROVER__VM_DISK__INIT;
	static Drover__VmDisk *disks[] = {&disk};

	drover__vm_spec__init(spec);
	disk.path = disk_path;
	disk.cache = (char *)(uintptr_t) "writeback";
	spec->name = (char *)(uintptr_t) "vm1";
	spec->uuid.data = uuid;
	spec->uuid.len = 16;
	spec->memory = 64u << 20;
	spec->cpus = 1;
	spec->firmware = (char *)(uintptr_t) "/usr/share/qemu/qboot.rom";
	spec->kernel = (char *)(uintptr_t)DROVER_TEST_GUEST;
	spec->append = guest_append;
	spec->qemu_args = args;
	spec->n_qemu_args = 4;
	spec->disks = disks;
	spec->n_disks = 1;
	spec->allow_tcg_live = true;
}

static struct fake_agent *src(void)
{
	return &fake.agents[0];
}

static struct fake_agent *dst(void)
{
	return &fake.agents[1];
}

static void send_to(struct fake_agent *a)
{
	bool is_src = a == src();
	Drover__AgentOrders o = DROVER__AGENT_ORDERS__INIT;
	Drover__VmOrder v = DROVER__VM_ORDER__INIT;
	Drover__VmOrder *vms[] = {&v};
	Drover__MoveOrder m = DROVER__MOVE_ORDER__INIT;
	Drover__MoveOrder *moves[] = {&m};
	Drover__NetworkPath path = DROVER__NETWORK_PATH__INIT;
	Drover__NetworkPath bad = DROVER__NETWORK_PATH__INIT;
	Drover__NetworkPath *paths[] = {&bad, &path};
	Drover__VmSpec spec;

	fill_spec(&spec);
	v.name = spec.name;
	v.generation = rows.generation;
	v.want = DROVER__VM_WANT__WANT_RUN;
	v.spec = &spec;
	v.launch = rows.launch;
	bad.network = (char *)(uintptr_t) "mig1";
	bad.rank = 1;
	bad.src_address = (char *)(uintptr_t) "127.0.0.1";
	bad.dst_address = (char *)(uintptr_t) "127.9.9.9"; /* nobody listens in our name there */
	bad.encrypt = rows.encrypt;
	path = bad;
	path.network = (char *)(uintptr_t) "mig2";
	path.rank = 2;
	path.dst_address = (char *)(uintptr_t) "127.0.0.1";
	bad.src_address = (char *)(uintptr_t) "192.0.2.1"; /* not ours: cannot be bound */
	m.move = MOVE;
	m.attempt = rows.attempt;
	m.vm = spec.name;
	m.generation = rows.generation - (rows.owner_dst ? 1 : 0);
	m.role = is_src ? DROVER__MOVE_ROLE__MOVE_SRC : DROVER__MOVE_ROLE__MOVE_DST;
	m.decision = rows.decision;
	m.kind = (char *)(uintptr_t) "live";
	m.mode = (char *)(uintptr_t) "tcp";
	m.key.data = rows.key;
	m.key.len = 32;
	m.src_node = src()->name;
	m.dst_node = dst()->name;
	m.paths = paths;
	m.n_paths = 2;
	m.dst_port = rows.dst_port;
	m.src_ready = rows.src_ready;
	m.proofs = rows.proofs;
	m.n_proofs = rows.n_proofs;
	m.spec = &spec;
	m.launch = rows.launch;
	m.token_granted = rows.token;
	m.blackout_ms = 300;
	m.src_memory = spec.memory;
	m.token_timebox_ms = 10000;
	o.vms = vms;
	o.n_vms = is_src != rows.owner_dst ? 1 : 0;
	o.moves = moves;
	o.n_moves = rows.active ? 1 : 0;
	fake_orders(a, &o);
}

static void send_all(void)
{
	send_to(src());
	send_to(dst());
}

static void copy_proofs(const Drover__MoveFact *f)
{
	rows.n_proofs = f->n_proofs;
	rows.proofs = calloc(f->n_proofs + 1, sizeof(*rows.proofs));
	for (size_t i = 0; i < f->n_proofs; i++) {
		Drover__DiskProof *p = calloc(1, sizeof(*p));

		drover__disk_proof__init(p);
		p->path = strdup(f->proofs[i]->path);
		p->nonce_file = strdup(f->proofs[i]->nonce_file);
		p->nonce.len = f->proofs[i]->nonce.len;
		p->nonce.data = malloc(p->nonce.len);
		memcpy(p->nonce.data, f->proofs[i]->nonce.data, p->nonce.len);
		if (rows.bad_proof)
			p->nonce.data[0] ^= 1;
		rows.proofs[i] = p;
	}
}

static void abort_if_error(const Drover__MoveFact *f, const char *who)
{
	if (f == NULL || f->error == NULL || f->error[0] == '\0' ||
	    rows.decision != DROVER__MOVE_DECISION__DECISION_NONE)
		return;
	snprintf(rows.seen_error, sizeof(rows.seen_error), "%s (exit %u): %s", who, f->error_exit, f->error);
	rows.decision = DROVER__MOVE_DECISION__DECISION_ABORT;
	rows.dirty = true;
}

static void lead_src(const Drover__MoveFact *s)
{
	if (s->phase >= DROVER__MOVE_PHASE__SRC_READY && !rows.src_ready &&
	    s->phase < DROVER__MOVE_PHASE__SRC_ABORTING) {
		copy_proofs(s);
		rows.src_ready = true;
		rows.dirty = true;
	}
	if (s->token_request > rows.token) {
		rows.token = s->token_request;
		rows.dirty = true;
	}
}

/* The leader's part. True when both sides are gone. */
static bool lead(void *data)
{
	const Drover__MoveFact *s = fake_move(src(), MOVE, rows.attempt);
	const Drover__MoveFact *d = fake_move(dst(), MOVE, rows.attempt);

	(void)data;
	if (s != NULL)
		lead_src(s);
	if (d != NULL && d->relay_port != 0 && rows.dst_port == 0) {
		rows.dst_port = d->relay_port;
		rows.dirty = true;
	}
	abort_if_error(s, "src");
	abort_if_error(d, "dst");
	if (s != NULL && d != NULL && s->phase == DROVER__MOVE_PHASE__SRC_RELEASED &&
	    d->phase == DROVER__MOVE_PHASE__DST_COMPLETED &&
	    rows.decision == DROVER__MOVE_DECISION__DECISION_NONE && !rows.hold_commit) {
		rows.decision = DROVER__MOVE_DECISION__DECISION_COMMIT;
		rows.owner_dst = true;
		rows.generation++;
		rows.dirty = true;
	}
	if (rows.dirty) {
		rows.dirty = false;
		send_all();
	}
	return s != NULL && d != NULL && s->phase == DROVER__MOVE_PHASE__PHASE_GONE &&
	       d->phase == DROVER__MOVE_PHASE__PHASE_GONE;
}

static bool running_at(const struct fake_agent *a)
{
	const Drover__VmFact *f = fake_vm(a, "vm1");

	return f != NULL && f->state == DROVER__VM_STATE__VM_RUNNING && f->generation == rows.generation;
}

static bool src_runs(void *data)
{
	(void)data;
	return running_at(src());
}

static bool reported(void *data)
{
	const struct fake_agent *a = data;

	return a->report != NULL && a->report->complete;
}

static void show(const struct fake_agent *a)
{
	const Drover__MoveFact *f = fake_move(a, MOVE, rows.attempt);

	print_error("%s: phase %d error \"%s\" events %s\n", a->name, f != NULL ? (int)f->phase : -1,
		    f != NULL ? f->error : "", a->events);
}

static void must(bool ok)
{
	if (ok)
		return;
	show(src());
	show(dst());
	print_error("error seen: %s\n", rows.seen_error);
	fail();
}

static int setup(void **state)
{
	int fd;

	(void)state;
	memset(&rows, 0, sizeof(rows));
	if (fake_setup(&fake) != 0)
		return -1;
	snprintf(disk_path, sizeof(disk_path), "%s/disk.raw", fake.dir);
	fd = open(disk_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, 1 << 20) != 0)
		return -1;
	close(fd);
	rows.generation = 1;
	rows.attempt = 1;
	rows.encrypt = true;
	memset(rows.key, 0x5a, sizeof(rows.key));
	fake_agent_start(src(), NULL);
	fake_agent_start(dst(), NULL);
	if (!fake_until(&fake, reported, src(), LONG_MS) || !fake_until(&fake, reported, dst(), LONG_MS))
		return -1;
	send_all();
	return fake_until(&fake, src_runs, NULL, LONG_MS) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	fake_teardown(&fake);
	for (size_t i = 0; i < rows.n_proofs; i++)
		drover__disk_proof__free_unpacked(rows.proofs[i], NULL);
	free(rows.proofs);
	if (rows.launch != NULL)
		drover__launch_record__free_unpacked(rows.launch, NULL);
	return 0;
}

static void begin_move(void)
{
	const Drover__LaunchRecord *l = fake_vm(src(), "vm1")->launch;
	size_t size = drover__launch_record__get_packed_size(l);
	uint8_t *bytes = malloc(size);

	drover__launch_record__pack(l, bytes);
	rows.launch = drover__launch_record__unpack(NULL, size, bytes);
	free(bytes);
	rows.active = true;
	rows.dirty = true;
}

static pid_t find_relay(const char *which)
{
	char name[64];

	snprintf(name, sizeof(name), "relay-%llu-%s", (unsigned long long)MOVE, which);
	return fake_process("drover-relay", name);
}

static bool nothing_left(void *data)
{
	char cmd[300];

	(void)data;
	snprintf(cmd, sizeof(cmd), "ls -A %s | grep -q drover-nonce", fake.dir);
	return system(cmd) != 0 && find_relay("") == 0;
}

static bool no_moves(void *data)
{
	(void)data;
	return src()->report != NULL && dst()->report != NULL && src()->report->n_moves == 0 &&
	       dst()->report->n_moves == 0;
}

/* Both sides gone, rows cleaned, nothing left but the one VM where it belongs. */
static void finish_move(struct fake_agent *owner, struct fake_agent *other)
{
	must(fake_until(&fake, lead, NULL, LONG_MS));
	rows.active = false;
	send_all();
	must(fake_until(&fake, no_moves, NULL, LONG_MS));
	assert_true(running_at(owner));
	assert_null(fake_vm(other, "vm1"));
	assert_int_not_equal(fake_process("qemu-system", owner->dir), 0);
	assert_int_equal(fake_process("qemu-system", other->dir), 0);
	assert_true(nothing_left(NULL));
}

static void test_move(void **state)
{
	const Drover__MoveFact *f;

	(void)state;
	begin_move();
	must(fake_until(&fake, lead, NULL, LONG_MS));
	f = fake_move(src(), MOVE, 1);
	print_message("passes %u, %llu bytes on the wire, blackout %llu us, %llu ms\n", f->stats->passes,
		      (unsigned long long)f->stats->bytes_wire, (unsigned long long)f->stats->blackout_us,
		      (unsigned long long)f->stats->duration_ms);
	assert_true(f->stats->bytes_wire > 0);
	assert_true(f->stats->blackout_us > 0 && f->stats->blackout_us < 1000000);
	assert_non_null(strstr(src()->events, "mig1")); /* the better rank did not work: said */
	finish_move(dst(), src());
}

static void test_other_storage(void **state)
{
	(void)state;
	rows.bad_proof = true;
	begin_move();
	finish_move(src(), dst());
	assert_non_null(strstr(rows.seen_error, "exit 6"));
	assert_non_null(strstr(rows.seen_error, "not the same storage"));
}

static bool both_words(void *data)
{
	const Drover__MoveFact *s = fake_move(src(), MOVE, rows.attempt);
	const Drover__MoveFact *d = fake_move(dst(), MOVE, rows.attempt);

	lead(data);
	return s != NULL && d != NULL && s->phase == DROVER__MOVE_PHASE__SRC_RELEASED &&
	       d->phase == DROVER__MOVE_PHASE__DST_COMPLETED;
}

/* Both words given, then both agents die: nothing moves until the decision (R4). */
static void both_die(void)
{
	rows.hold_commit = true;
	begin_move();
	must(fake_until(&fake, both_words, NULL, LONG_MS));
	fake_agent_end(src(), SIGKILL);
	fake_agent_end(dst(), SIGKILL);
	fake_agent_start(src(), NULL);
	fake_agent_start(dst(), NULL);
	must(fake_until(&fake, reported, src(), LONG_MS) && fake_until(&fake, reported, dst(), LONG_MS));
	assert_int_equal(fake_move(src(), MOVE, 1)->phase, DROVER__MOVE_PHASE__SRC_RELEASED);
	assert_int_equal(fake_move(dst(), MOVE, 1)->phase, DROVER__MOVE_PHASE__DST_COMPLETED);
	rows.dirty = true;
}

static void test_restart_commit(void **state)
{
	(void)state;
	both_die();
	rows.hold_commit = false;
	finish_move(dst(), src());
}

static void test_restart_abort(void **state)
{
	(void)state;
	both_die();
	rows.decision = DROVER__MOVE_DECISION__DECISION_ABORT;
	finish_move(src(), dst());
}

static bool src_copying(void *data)
{
	const Drover__MoveFact *s = fake_move(src(), MOVE, rows.attempt);

	lead(data);
	return s != NULL && s->phase == DROVER__MOVE_PHASE__SRC_COPYING;
}

/* Any part dies in mid-copy: the move fails or goes on, the VM runs on exactly once. */
static void test_relay_dies(void **state)
{
	pid_t relay;

	(void)state;
	begin_move();
	must(fake_until(&fake, src_copying, NULL, LONG_MS));
	relay = find_relay("1-src");
	assert_int_not_equal(relay, 0);
	kill(relay, SIGKILL);
	must(fake_until(&fake, lead, NULL, LONG_MS));
	if (rows.owner_dst)
		finish_move(dst(), src());
	else
		finish_move(src(), dst());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_move, setup, teardown),
		cmocka_unit_test_setup_teardown(test_other_storage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restart_commit, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restart_abort, setup, teardown),
		cmocka_unit_test_setup_teardown(test_relay_dies, setup, teardown),
	};

	if (access("/usr/bin/qemu-system-x86_64", X_OK) != 0 || access(DROVER_TEST_GUEST, R_OK) != 0 ||
	    access(DROVER_TEST_RELAY, X_OK) != 0) {
		printf("SKIP: no qemu-system-x86_64, probe guest or drover-relay\n");
		return 77;
	}
	signal(SIGPIPE, SIG_IGN);
	if (getenv("DROVER_TEST_ONLY") != NULL)
		cmocka_set_test_filter(getenv("DROVER_TEST_ONLY"));
	return cmocka_run_group_tests_name("agent-move", tests, NULL, NULL);
}
