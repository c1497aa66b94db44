/*
 * Work on storage that hangs: the loop goes on, the deadline holds, the message names the disk, and nothing
 * of the agent stays open in the child. The functions of agent/nonce.h are this test's own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/nonce.h"
#include "agent/storage.h"
#include "common/env_real.h"
#include "tests/unit/valgrind.h"

#define LONG_US	 10000000
#define SHORT_US 300000

static qb_loop_t *loop;
static struct env *env;
static int watched; /* a descriptor of the agent's */

/* ---- what runs in the child ---- */

int nonces_write(const Drover__MoveOrder *order, struct env *e, Drover__DiskProof ***proofs, size_t *n,
		 struct dr_error *err)
{
	static Drover__DiskProof proof = DROVER__DISK_PROOF__INIT;
	static Drover__DiskProof *list[1] = {&proof};

	storage_note_disk(1);
	if (order->move == 7)
		for (;;)
			pause();
	if (order->move == 8)
		_exit(0);
	if (order->move == 9)
		return dr_error_set(err, DR_EIO, "%s: no space", order->spec->disks[1]->path);
	(void)e;
	proof.path = order->spec->disks[0]->path;
	proof.nonce_file = (char *)(uintptr_t) "nonce";
	*proofs = list;
	*n = 1;
	return 0;
}

int nonces_check(const Drover__MoveOrder *order, struct dr_error *err)
{
	(void)order;
	if (fcntl(watched, F_GETFD) >= 0)
		return dr_error_set(err, DR_EREFUSED, "a descriptor of the agent's is open in the child");
	return 0;
}

int nonces_remove(const Drover__MoveOrder *order)
{
	(void)order;
	return -DR_EIO;
}

/* ---- what runs in the agent ---- */

static struct {
	unsigned n;
	enum storage_what what;
	int rc;
	char text[256];
	size_t n_proofs;
	char path[32];
} told;
static unsigned ticks;

static void on_told(enum storage_what what, const struct storage_result *result, void *data)
{
	assert_ptr_equal(data, &told);
	told.n++;
	told.what = what;
	told.rc = result->rc;
	snprintf(told.text, sizeof(told.text), "%s", result->text);
	told.n_proofs = result->n_proofs;
	if (result->n_proofs > 0)
		snprintf(told.path, sizeof(told.path), "%s", result->proofs[0]->path);
}

static uint64_t end_us;

static void tick(void *data)
{
	unsigned *wanted = data;

	ticks++;
	if (told.n >= *wanted || env_now_us(env) > end_us)
		qb_loop_stop(loop);
	else
		env_timer_start(env, 10000, tick, data);
}

static void run_until_told(unsigned times)
{
	static unsigned wanted;

	wanted = times;
	end_us = env_now_us(env) + LONG_US;
	tick(&wanted);
	qb_loop_run(loop);
	assert_int_equal(told.n, times);
}

static bool children_are_gone(void)
{
	return waitpid(-1, NULL, WNOHANG) < 0;
}

static void run_for(uint64_t us)
{
	static unsigned never = ~0u;

	end_us = env_now_us(env) + us;
	tick(&never);
	qb_loop_run(loop);
}

static struct storage_job *begin(enum storage_what what, uint64_t move, uint64_t most_us)
{
	static Drover__VmDisk disks[2];
	static Drover__VmDisk *list[2] = {&disks[0], &disks[1]};
	static Drover__VmSpec spec;
	Drover__MoveOrder order = DROVER__MOVE_ORDER__INIT;
	struct dr_error err = DR_ERROR_INIT;
	struct storage_job *job;

	drover__vm_disk__init(&disks[0]);
	drover__vm_disk__init(&disks[1]);
	disks[0].path = (char *)(uintptr_t) "/nfs/a.raw";
	disks[1].path = (char *)(uintptr_t) "/nfs/b.raw";
	drover__vm_spec__init(&spec);
	spec.disks = list;
	spec.n_disks = 2;
	order.spec = &spec;
	order.move = move;
	job = storage_start(loop, env, what, &order, most_us, on_told, &told, &err);
	if (job == NULL)
		fail_msg("%s", err.text);
	return job;
}

static int setup(void **state)
{
	(void)state;
	if (UNDER_VALGRIND)
		return 0;
	loop = qb_loop_create();
	env = env_real_new(loop);
	watched = fcntl(0, F_DUPFD, 100);
	memset(&told, 0, sizeof(told));
	ticks = 0;
	return env != NULL && watched >= 0 ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	if (UNDER_VALGRIND)
		return 0;
	storage_fini();
	close(watched);
	env_real_free(env);
	qb_loop_destroy(loop);
	return 0;
}

#define NEEDS_PIDFD()                                                                                        \
	do {                                                                                                 \
		if (UNDER_VALGRIND)                                                                          \
			skip();                                                                              \
	} while (0)

static void test_answers(void **state)
{
	(void)state;
	NEEDS_PIDFD();
	begin(STORAGE_WRITE, 1, LONG_US);
	assert_int_equal(told.n, 0); /* never from inside */
	run_until_told(1);
	assert_int_equal(told.what, STORAGE_WRITE);
	assert_int_equal(told.rc, 0);
	assert_int_equal(told.n_proofs, 1);
	assert_string_equal(told.path, "/nfs/a.raw");
	begin(STORAGE_WRITE, 9, LONG_US);
	run_until_told(2);
	assert_int_equal(told.rc, -DR_EIO);
	assert_string_equal(told.text, "/nfs/b.raw: no space");
	begin(STORAGE_CHECK, 1, LONG_US);
	run_until_told(3);
	assert_string_equal(told.text, "");
	assert_int_equal(told.rc, 0);
	begin(STORAGE_REMOVE, 1, LONG_US);
	run_until_told(4);
	assert_int_equal(told.rc, -DR_EIO);
	assert_true(children_are_gone());
}

static void test_files(void **state)
{
	(void)state;
	NEEDS_PIDFD();
	begin(STORAGE_FILES, 1, LONG_US);
	run_until_told(1);
	assert_int_equal(told.rc, -DR_EREFUSED);
	assert_non_null(strstr(told.text, "/nfs/a.raw"));
}

static void test_hangs(void **state)
{
	uint64_t began;

	(void)state;
	NEEDS_PIDFD();
	began = env_now_us(env);
	begin(STORAGE_WRITE, 7, SHORT_US);
	run_until_told(1);
	assert_true(env_now_us(env) - began >= SHORT_US);
	assert_int_equal(told.rc, -DR_EIO);
	assert_non_null(strstr(told.text, "/nfs/b.raw"));
	assert_non_null(strstr(told.text, "does not answer"));
	assert_true(ticks > 3);
	run_for(200000);
	assert_int_equal(told.n, 1);
	assert_true(children_are_gone());
}

static void test_dies(void **state)
{
	(void)state;
	NEEDS_PIDFD();
	begin(STORAGE_WRITE, 8, LONG_US);
	run_until_told(1);
	assert_int_equal(told.rc, -DR_EIO);
	assert_non_null(strstr(told.text, "/nfs/b.raw: the process"));
}

static void test_forgotten(void **state)
{
	(void)state;
	NEEDS_PIDFD();
	storage_forget(begin(STORAGE_WRITE, 1, LONG_US));
	storage_forget(begin(STORAGE_WRITE, 7, SHORT_US));
	run_for(SHORT_US * 2);
	assert_int_equal(told.n, 0);
	assert_true(children_are_gone());
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {CASE(test_answers), CASE(test_files), CASE(test_hangs),
					   CASE(test_dies), CASE(test_forgotten)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
