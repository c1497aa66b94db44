/* The executor of fence agents, with agents that are small scripts. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/env_real.h"
#include "coordinator/fence.h"
#include "coordinator/fence_spec.h"
#include "tests/unit/valgrind.h"

#define DEADLINE_MS 1500
#define GIVE_UP_US  20000000

struct world {
	qb_loop_t *loop;
	struct env *env;
	struct fence_runner *runner;
	char dir[64];
	unsigned done;
	int status;
	char why[DR_ERROR_TEXT];
	uint64_t give_up;
	bool gave_up;
};

static void give_up(void *data)
{
	struct world *w = data;

	w->give_up = 0;
	w->gave_up = true;
	qb_loop_stop(w->loop);
}

static void on_done(void *data, const char *node, int status, const struct dr_error *err)
{
	struct world *w = data;

	assert_string_equal(node, "node2");
	w->done++;
	w->status = status;
	snprintf(w->why, sizeof(w->why), "%s", err->text);
	qb_loop_stop(w->loop);
}

static void agent_write(const struct world *w, const char *name, const char *script)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", w->dir, name);
	f = fopen(path, "we");
	assert_non_null(f);
	fprintf(f, "#!/bin/sh\ndir=%s\nwhile read -r line; do eval \"${line%%%%=*}='${line#*=}'\"; done\n%s",
		w->dir, script);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(path, 0700), 0);
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	snprintf(w->dir, sizeof(w->dir), "/tmp/drover-test-fence-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	w->loop = qb_loop_create();
	w->env = env_real_new(w->loop);
	w->runner = fence_runner_new(w->loop, w->env, w->dir, DEADLINE_MS);
	assert_non_null(w->runner);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	char command[128];

	fence_runner_free(w->runner);
	env_real_free(w->env);
	qb_loop_destroy(w->loop);
	snprintf(command, sizeof(command), "rm -rf %s", w->dir);
	assert_int_equal(system(command), 0);
	free(w);
	return 0;
}

static void begin(struct world *w, const char *spec)
{
	struct dr_error err = DR_ERROR_INIT;

	if (UNDER_VALGRIND)
		skip(); /* it has no pidfds */
	if (fence_off(w->runner, "node2", spec, on_done, w, &err) < 0)
		fail_msg("%s", err.text);
}

static void wait_done(struct world *w)
{
	w->give_up = env_timer_start(w->env, GIVE_UP_US, give_up, w);
	qb_loop_run(w->loop);
	env_timer_stop(w->env, &w->give_up);
	assert_false(w->gave_up);
}

static void run(struct world *w, const char *spec)
{
	begin(w, spec);
	wait_done(w);
}

static bool exists(const struct world *w, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", w->dir, name);
	return access(path, F_OK) == 0;
}

/* off, then status until it says off; the options arrive, the environment and the descriptors are clean. */
static void test_off(void **state)
{
	struct world *w = *state;

	agent_write(
		w, "fence_good",
		"[ \"$plug\" = 'p 2' ] && [ \"$nodename\" = node2 ] || exit 9\n"
		"[ -z \"$HOME\" ] && [ \"$PWD\" = / ] || exit 8\n"
		"for fd in $(ls /proc/self/fd); do [ \"$fd\" -le 3 ] || exit 7; done\n"
		"case $action in\n"
		"off) : >$dir/off ;;\n"
		"status) [ -e $dir/off ] || exit 0; [ -e $dir/asked ] && exit 2; : >$dir/asked; exit 0 ;;\n"
		"*) exit 1 ;; esac\n");
	run(w, "fence_good\nplug=p 2\npassword=x\n");
	if (w->status != 0)
		fail_msg("%s", w->why);
	assert_int_equal(w->done, 1);
	assert_true(exists(w, "asked"));
}

/* Success is what status says, not what off says. */
static void test_still_on(void **state)
{
	struct world *w = *state;

	agent_write(w, "fence_lies", "exit 0\n");
	run(w, "fence_lies\n");
	assert_int_equal(w->status, -DR_EFAILED);
	assert_non_null(strstr(w->why, "action status"));
	assert_non_null(strstr(w->why, "not done within"));
}

static void test_fails(void **state)
{
	struct world *w = *state;

	agent_write(w, "fence_bad", "echo first; echo \"no way with $password and $ip\" >&2; exit 3\n");
	run(w, "fence_bad\nip=10.0.0.1\npassword=hunter2\n");
	assert_int_equal(w->status, -DR_EFAILED);
	assert_non_null(strstr(w->why, "exit status 3: no way with ******* and 10.0.0.1"));
	assert_null(strstr(w->why, "hunter2"));
	assert_null(strstr(w->why, "first"));
	agent_write(w, "fence_odd", "[ $action = off ] || exit 1\n");
	run(w, "fence_odd\n");
	assert_int_equal(w->status, -DR_EFAILED);
	assert_non_null(strstr(w->why, "action status for node2: exit status 1"));
}

static bool alive(const struct world *w, const char *name)
{
	char path[128];
	char text[32] = "";
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", w->dir, name);
	f = fopen(path, "re");
	assert_non_null(f);
	assert_non_null(fgets(text, sizeof(text), f));
	fclose(f);
	return kill((pid_t)atoi(text), 0) == 0;
}

/* A killed process is gone when it is collected, soon: polled. */
static void gone_soon(const struct world *w, const char *name)
{
	for (int i = 0; i < 500 && alive(w, name); i++)
		usleep(10000);
	assert_false(alive(w, name));
}

/* An agent that hangs is killed, with what it started. */
static void test_hangs(void **state)
{
	struct world *w = *state;
	struct dr_error err = DR_ERROR_INIT;

	agent_write(w, "fence_hang", "sleep 1000 & echo $! >$dir/child; wait\n");
	begin(w, "fence_hang\n");
	/* One at a time for a host; another host has its own. */
	assert_int_equal(fence_off(w->runner, "node2", "fence_hang\n", on_done, w, &err), -DR_EAGAIN);
	wait_done(w);
	assert_int_equal(w->status, -DR_EFAILED);
	assert_non_null(strstr(w->why, "action off for node2: not done within 1 s"));
	gone_soon(w, "child");
}

/* A flood of output does not hold the agent up. */
static void test_flood(void **state)
{
	struct world *w = *state;

	agent_write(w, "fence_flood",
		    "if [ $action = off ]; then head -c 300000 /dev/zero | tr '\\0' x; exit 0; fi; exit 2\n");
	run(w, "fence_flood\n");
	if (w->status != 0)
		fail_msg("%s", w->why);
}

static void test_cancel(void **state)
{
	struct world *w = *state;

	agent_write(w, "fence_hang", "echo $$ >$dir/self; sleep 1000\n");
	begin(w, "fence_hang\n");
	for (int i = 0; i < 500 && !exists(w, "self"); i++)
		usleep(10000);
	fence_cancel(w->runner, "node2");
	w->give_up = env_timer_start(w->env, 200000, give_up, w);
	qb_loop_run(w->loop);
	assert_int_equal(w->done, 0);
	gone_soon(w, "self");
}

static void test_missing(void **state)
{
	struct world *w = *state;
	struct dr_error err = DR_ERROR_INIT;

	assert_int_equal(fence_off(w->runner, "node2", "fence_none_such\n", on_done, w, &err), -DR_ENOENT);
	assert_non_null(strstr(err.text, "fence_none_such"));
}

/* --- the spec ---------------------------------------------------------------------- */

static int build(const char *agent, const char *key, const char *value, char text[FENCE_SPEC_MAX])
{
	Drover__NodeSet set = DROVER__NODE_SET__INIT;
	Drover__FenceOption o = DROVER__FENCE_OPTION__INIT;
	Drover__FenceOption *list[1] = {&o};
	struct dr_error err = DR_ERROR_INIT;

	set.fence_agent = (char *)(uintptr_t)agent;
	o.key = (char *)(uintptr_t)key;
	o.value = (char *)(uintptr_t)value;
	set.fence_options = list;
	set.n_fence_options = key != NULL ? 1 : 0;
	return fence_spec_build(&set, text, &err);
}

static void test_spec(void **state)
{
	char text[FENCE_SPEC_MAX];
	char long_value[FENCE_SPEC_MAX];
	char *shown;

	(void)state;
	assert_int_equal(build("fence_a1", "ip", "x,y=z", text), 0);
	assert_string_equal(text, "fence_a1\nip=x,y=z\n");
	assert_int_equal(build("none", NULL, "", text), 0);
	assert_string_equal(text, "");
	assert_int_equal(build("none", "ip", "", text), -DR_EUSAGE);
	assert_int_equal(build("fence_", NULL, "", text), -DR_EUSAGE);
	assert_int_equal(build("fence_../x", NULL, "", text), -DR_EUSAGE);
	assert_int_equal(build("/usr/sbin/fence_a", NULL, "", text), -DR_EUSAGE);
	assert_int_equal(build("fence_a;b", NULL, "", text), -DR_EUSAGE);
	assert_int_equal(build("sh", NULL, "", text), -DR_EUSAGE);
	assert_int_equal(build("fence_a", "action", "on", text), -DR_EUSAGE);
	assert_int_equal(build("fence_a", "", "on", text), -DR_EUSAGE);
	assert_int_equal(build("fence_a", "a b", "on", text), -DR_EUSAGE);
	assert_int_equal(build("fence_a", "a", "1\naction=on", text), -DR_EUSAGE);
	memset(long_value, 'x', sizeof(long_value) - 1);
	long_value[sizeof(long_value) - 1] = '\0';
	assert_int_equal(build("fence_a", "a", long_value, text), -DR_EUSAGE);

	shown = fence_spec_show(
		"fence_x\nip=1.2.3.4\npassword=a\nsecret_key=\nSNMP_Community=abc\nlanplus=1\n");
	assert_string_equal(shown,
			    "fence_x,ip=1.2.3.4,password=***,secret_key=***,SNMP_Community=***,lanplus=1");
	free(shown);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_off, setup, teardown),
		cmocka_unit_test_setup_teardown(test_still_on, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hangs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_flood, setup, teardown),
		cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
		cmocka_unit_test_setup_teardown(test_missing, setup, teardown),
		cmocka_unit_test(test_spec),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name("fence", tests, NULL, NULL);
}
