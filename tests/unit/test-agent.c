/*
 * The agent as a process: a real drover-agent with real QEMUs (the probe guest)
 * against a coordinator that this test plays over TLS.
 */
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "agent-fake.h"

#define LONG_MS 30000 /* deadline of one step; a loaded machine is slow */

static struct fake fake;
static uint8_t uuid[16] = {0x6f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static char guest_append[] = "mem=24 fill=text ws=4 rate=500 hb=10ms khz=0";

static void fill_spec(Drover__VmSpec *spec)
{
	static char *args[] = {(char *)(uintptr_t) "-device",
			       (char *)(uintptr_t) "isa-debugcon,iobase=0xe9,chardev=beat",
			       (char *)(uintptr_t) "-chardev", (char *)(uintptr_t) "null,id=beat"};

	drover__vm_spec__init(spec);
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
	spec->allow_tcg_live = true;
}

static void order_vm(struct fake_agent *a, Drover__VmWant want, uint64_t generation)
{
	Drover__AgentOrders o = DROVER__AGENT_ORDERS__INIT;
	Drover__VmOrder v = DROVER__VM_ORDER__INIT;
	Drover__VmOrder *list[] = {&v};
	Drover__VmSpec spec;

	fill_spec(&spec);
	v.name = spec.name;
	v.generation = generation;
	v.want = want;
	v.spec = &spec;
	o.vms = list;
	o.n_vms = 1;
	fake_orders(a, &o);
}

/* ------------------------------------------------ conditions */

struct expect {
	struct fake_agent *a;
	Drover__VmState state;
	uint64_t generation;
};

static bool reported(void *data)
{
	const struct fake_agent *a = data;

	return a->report != NULL && a->report->complete;
}

static bool vm_is(void *data)
{
	const struct expect *e = data;
	const Drover__VmFact *f = fake_vm(e->a, "vm1");

	return f != NULL && f->state == e->state && f->generation == e->generation;
}

static void await_vm(struct fake_agent *a, Drover__VmState state, uint64_t generation)
{
	struct expect e = {a, state, generation};
	const Drover__VmFact *f;

	if (fake_until(&fake, vm_is, &e, LONG_MS))
		return;
	f = fake_vm(a, "vm1");
	print_error("vm1 on %s: state %d generation %llu error \"%s\"\n", a->name,
		    f != NULL ? (int)f->state : -1, f != NULL ? (unsigned long long)f->generation : 0,
		    f != NULL ? f->error : "");
	fail();
}

static bool orders_seen(void *data)
{
	const struct fake_agent *a = data;

	return a->report != NULL && a->report->orders_index == a->fake->index;
}

static int setup(void **state)
{
	(void)state;
	return fake_setup(&fake);
}

static int teardown(void **state)
{
	(void)state;
	fake_teardown(&fake);
	return 0;
}

static void up(struct fake_agent *a, const char *env)
{
	fake_agent_start(a, env);
	assert_true(fake_until(&fake, reported, a, LONG_MS));
}

static pid_t qemu_of(const struct fake_agent *a)
{
	return fake_process("qemu-system", a->dir);
}

/* ------------------------------------------------ tests */

static void test_life(void **state)
{
	struct fake_agent *a = &fake.agents[0];
	pid_t qemu;
	int status;

	(void)state;
	up(a, NULL);
	assert_int_equal(a->report->n_vms, 0);
	assert_true(a->report->facts->n_machine_types > 0);
	order_vm(a, DROVER__VM_WANT__WANT_RUN, 3);
	await_vm(a, DROVER__VM_STATE__VM_RUNNING, 3);
	assert_non_null(fake_vm(a, "vm1")->launch);
	assert_non_null(strstr(fake_vm(a, "vm1")->launch->machine, "pc-i440fx-"));
	qemu = qemu_of(a);
	assert_int_not_equal(qemu, 0);

	/* The agent dies; QEMU does not; the next agent finds it again. */
	fake_agent_end(a, SIGKILL);
	assert_int_equal(qemu_of(a), qemu);
	up(a, NULL);
	await_vm(a, DROVER__VM_STATE__VM_RUNNING, 3);
	assert_true(fake_vm(a, "vm1")->adopted);
	assert_int_equal(qemu_of(a), qemu);

	/* A second agent on the same data directory is refused and harms nothing. */
	status = system("true");
	{
		pid_t first = a->pid;

		fake_agent_start(a, NULL);
		assert_int_equal(waitpid(a->pid, &status, 0), a->pid);
		a->pid = first;
	}
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 6);

	/* Older generations are not obeyed; killing works; what was said stays said. */
	order_vm(a, DROVER__VM_WANT__WANT_KILL, 2);
	assert_true(fake_until(&fake, orders_seen, a, LONG_MS));
	assert_int_equal(qemu_of(a), qemu);
	order_vm(a, DROVER__VM_WANT__WANT_KILL, 3);
	await_vm(a, DROVER__VM_STATE__VM_STOPPED, 3);
	assert_int_equal(qemu_of(a), 0);
	order_vm(a, DROVER__VM_WANT__WANT_RUN, 3);
	assert_true(fake_until(&fake, orders_seen, a, LONG_MS));
	assert_int_equal(fake_vm(a, "vm1")->state, DROVER__VM_STATE__VM_STOPPED);
	assert_int_equal(qemu_of(a), 0);

	/* A QEMU that is killed from outside is a failure, told with its reason. */
	order_vm(a, DROVER__VM_WANT__WANT_RUN, 4);
	await_vm(a, DROVER__VM_STATE__VM_RUNNING, 4);
	kill(qemu_of(a), SIGKILL);
	await_vm(a, DROVER__VM_STATE__VM_FAILED, 4);
	assert_non_null(strstr(fake_vm(a, "vm1")->error, "signal 9"));
}

static bool leaving(void *data)
{
	const struct fake_agent *a = data;

	return a->report != NULL && a->report->leaving;
}

static bool any_report(void *data)
{
	const struct fake_agent *a = data;

	return a->report != NULL;
}

/* R9, R12: an agent whose store was wiped does not speak for VMs that it cannot know. */
static void test_wiped_store(void **state)
{
	struct fake_agent *a = &fake.agents[0];
	char cmd[300];
	pid_t qemu;

	(void)state;
	up(a, NULL);
	order_vm(a, DROVER__VM_WANT__WANT_RUN, 1);
	await_vm(a, DROVER__VM_STATE__VM_RUNNING, 1);
	qemu = qemu_of(a);
	fake_agent_end(a, SIGKILL);
	snprintf(cmd, sizeof(cmd), "find %s -name 'agent.db*' -delete", a->dir);
	assert_int_equal(system(cmd), 0);

	fake_agent_start(a, NULL);
	assert_true(fake_until(&fake, any_report, a, LONG_MS));
	assert_false(a->report->complete);
	assert_int_equal(a->report->n_vms, 0);
	/* Not started twice, and no word about it. */
	order_vm(a, DROVER__VM_WANT__WANT_RUN, 2);
	assert_true(fake_until(&fake, orders_seen, a, LONG_MS));
	order_vm(a, DROVER__VM_WANT__WANT_STOP, 2);
	assert_true(fake_until(&fake, orders_seen, a, LONG_MS));
	assert_false(a->report->complete);
	assert_int_equal(a->report->n_vms, 0);
	assert_int_equal(qemu_of(a), qemu);
	kill(qemu, SIGKILL);
	assert_true(fake_until(&fake, reported, a, LONG_MS));
	await_vm(a, DROVER__VM_STATE__VM_STOPPED, 2);
}

/* A store from before the QEMU was started (here: with another pid) says nothing about it either. */
static void test_restored_store(void **state)
{
	struct fake_agent *a = &fake.agents[0];
	const Drover__VmFact *f;
	char path[300];
	sqlite3 *db;
	pid_t qemu;

	(void)state;
	up(a, NULL);
	order_vm(a, DROVER__VM_WANT__WANT_RUN, 1);
	await_vm(a, DROVER__VM_STATE__VM_RUNNING, 1);
	qemu = qemu_of(a);
	fake_agent_end(a, SIGKILL);
	snprintf(path, sizeof(path), "%s/data/agent.db", a->dir);
	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "UPDATE vms SET pid = 1", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);

	fake_agent_start(a, NULL);
	assert_true(fake_until(&fake, any_report, a, LONG_MS));
	order_vm(a, DROVER__VM_WANT__WANT_KILL, 1);
	assert_true(fake_until(&fake, orders_seen, a, LONG_MS));
	f = fake_vm(a, "vm1");
	assert_true(f != NULL && f->state == DROVER__VM_STATE__VM_STATE_UNKNOWN);
	assert_false(a->report->complete);
	kill(qemu, SIGKILL);
	await_vm(a, DROVER__VM_STATE__VM_FAILED, 1);
	assert_true(fake_until(&fake, reported, a, LONG_MS));
}

static void test_leave(void **state)
{
	struct fake_agent *a = &fake.agents[0];
	Drover__AgentOrders o = DROVER__AGENT_ORDERS__INIT;
	int status = 0;

	(void)state;
	up(a, NULL);
	kill(a->pid, SIGTERM);
	assert_true(fake_until(&fake, leaving, a, LONG_MS));
	o.leaving_committed = true;
	fake_orders(a, &o);
	while (waitpid(a->pid, &status, WNOHANG) == 0)
		fake_until(&fake, leaving, a, 50);
	a->pid = 0;
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Between record and exec, and between exec and cont: no second QEMU, no lost one. */
static void test_crash_points(void **state)
{
	static const char *const points[] = {"DROVER_CRASH_POINT=vm-start.before_record",
					     "DROVER_CRASH_POINT=vm-start.recorded",
					     "DROVER_CRASH_POINT=vm-start.before_cont"};
	struct fake_agent *a = &fake.agents[0];

	(void)state;
	for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
		uint64_t generation = i * 10 + 1;
		int status = 0;

		up(a, points[i]);
		order_vm(a, DROVER__VM_WANT__WANT_RUN, generation);
		while (waitpid(a->pid, &status, WNOHANG) == 0)
			fake_until(&fake, leaving, a, 20);
		assert_true(WIFSIGNALED(status));
		a->pid = 0;
		fake_agent_end(a, 0);
		up(a, NULL);
		order_vm(a, DROVER__VM_WANT__WANT_RUN, generation);
		if (i == 1) { /* recorded, never ran: it may not be started again under this generation */
			await_vm(a, DROVER__VM_STATE__VM_FAILED, generation);
			order_vm(a, DROVER__VM_WANT__WANT_RUN, ++generation);
		}
		await_vm(a, DROVER__VM_STATE__VM_RUNNING, generation);
		order_vm(a, DROVER__VM_WANT__WANT_KILL, generation);
		await_vm(a, DROVER__VM_STATE__VM_STOPPED, generation);
		assert_int_equal(qemu_of(a), 0);
		fake_agent_end(a, SIGKILL);
	}
}

static void test_no_lease(void **state)
{
	struct fake_agent *a = &fake.agents[0];

	(void)state;
	fake.grant = false;
	up(a, NULL);
	order_vm(a, DROVER__VM_WANT__WANT_RUN, 1);
	assert_true(fake_until(&fake, orders_seen, a, LONG_MS));
	assert_null(fake_vm(a, "vm1"));
	assert_int_equal(qemu_of(a), 0);
	fake.grant = true;
	await_vm(a, DROVER__VM_STATE__VM_RUNNING, 1);
}

static void test_refused_orders(void **state)
{
	struct fake_agent *a = &fake.agents[0];

	(void)state;
	fake.term = 7;
	up(a, NULL);
	order_vm(a, DROVER__VM_WANT__WANT_STOP, 5);
	await_vm(a, DROVER__VM_STATE__VM_STOPPED, 5);
	/* A leader that was put aside (term 6) has orders, too; also after a restart of the agent. */
	fake_agent_end(a, SIGKILL);
	up(a, NULL);
	fake.term = 6;
	order_vm(a, DROVER__VM_WANT__WANT_RUN, 6);
	fake.term = 7;
	order_vm(a, DROVER__VM_WANT__WANT_NOTHING, 5);
	assert_true(fake_until(&fake, orders_seen, a, LONG_MS));
	assert_int_equal(qemu_of(a), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_life, setup, teardown),
		cmocka_unit_test_setup_teardown(test_crash_points, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_lease, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused_orders, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wiped_store, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restored_store, setup, teardown),
		cmocka_unit_test_setup_teardown(test_leave, setup, teardown),
	};

	if (access("/usr/bin/qemu-system-x86_64", X_OK) != 0 || access(DROVER_TEST_GUEST, R_OK) != 0) {
		printf("SKIP: no qemu-system-x86_64 or probe guest\n");
		return 77;
	}
	signal(SIGPIPE, SIG_IGN);
	if (getenv("DROVER_TEST_ONLY") != NULL)
		cmocka_set_test_filter(getenv("DROVER_TEST_ONLY"));
	return cmocka_run_group_tests_name("agent", tests, NULL, NULL);
}
