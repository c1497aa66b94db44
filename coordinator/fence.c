#include "coordinator/fence.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "coordinator/fence_spec.h"

#define OUTPUT_MAX  2048 /* of what an agent prints; the rest is read and dropped */
#define AGAIN_US    1000000
#define STATUS_ON   0
#define STATUS_OFF  2
#define PATH_LENGTH 512

enum action { ACTION_OFF, ACTION_STATUS };

struct run {
	struct run *next;
	struct fence_runner *runner;
	char node[64];
	char path[PATH_LENGTH];
	char *spec;
	enum action action;
	pid_t pid; /* 0: none runs now */
	int pidfd;
	int out;
	char output[OUTPUT_MAX + 1];
	size_t n_output;
	uint64_t deadline; /* timers */
	uint64_t again;
	bool over; /* done was called, or need not be: only its process is waited for */
	fence_done_fn done;
	void *data;
};

struct fence_runner {
	qb_loop_t *loop;
	struct env *env;
	char dir[PATH_LENGTH / 2];
	unsigned deadline_ms;
	struct run *runs;
};

static const char *action_name(enum action action)
{
	switch (action) {
	case ACTION_OFF:
		return "off";
	case ACTION_STATUS:
		return "status";
	}
	return "?";
}

static void run_free(struct run *run)
{
	struct run **at = &run->runner->runs;

	while (*at != run)
		at = &(*at)->next;
	*at = run->next;
	env_timer_stop(run->runner->env, &run->deadline);
	env_timer_stop(run->runner->env, &run->again);
	OPENSSL_cleanse(run->spec, strlen(run->spec));
	free(run->spec);
	free(run);
}

static void output_end(struct run *run)
{
	if (run->out < 0)
		return;
	qb_loop_poll_del(run->runner->loop, run->out);
	close(run->out);
	run->out = -1;
}

/* The agent and all that it started in its session's first process group. Before it is collected: its number
 * can't be another's yet. */
static void kill_group(const struct run *run)
{
	if (run->pid > 0)
		kill(-run->pid, SIGKILL);
}

/* Ends the run with a result; a process that is killed but not gone yet keeps the host's place. */
static void run_end(struct run *run, int status, const struct dr_error *err)
{
	fence_done_fn done = run->over ? NULL : run->done;
	void *data = run->data;
	char node[sizeof(run->node)];

	snprintf(node, sizeof(node), "%s", run->node);
	run->over = true;
	env_timer_stop(run->runner->env, &run->deadline);
	env_timer_stop(run->runner->env, &run->again);
	if (run->pid == 0)
		run_free(run);
	else
		kill_group(run);
	if (done != NULL)
		done(data, node, status, err);
}

/* The last line that it printed, without what must not be seen. */
static const char *last_words(struct run *run)
{
	char *line;

	while (run->n_output > 0 && strchr("\n\r \t", run->output[run->n_output - 1]) != NULL)
		run->n_output--;
	run->output[run->n_output] = '\0';
	fence_spec_mask(run->spec, run->output);
	line = strrchr(run->output, '\n');
	line = line != NULL ? line + 1 : run->output;
	for (char *p = line; *p != '\0'; p++) {
		if ((unsigned char)*p < ' ')
			*p = ' ';
	}
	return line;
}

static void run_fail(struct run *run, const char *what)
{
	struct dr_error err = DR_ERROR_INIT;
	char agent[FENCE_AGENT_MAX];
	const char *words = last_words(run);

	dr_error_set(&err, DR_EFAILED, "%s, action %s for %s: %s%s%.200s", fence_spec_agent(run->spec, agent),
		     action_name(run->action), run->node, what, words[0] != '\0' ? ": " : "", words);
	run_end(run, -DR_EFAILED, &err);
}

/* --- one process ------------------------------------------------------------------- */

static int run_start(struct run *run, enum action action, struct dr_error *err);

static void read_output(struct run *run)
{
	char dropped[512];
	ssize_t n;

	for (int i = 0; i < 16 && run->out >= 0; i++) {
		size_t room = OUTPUT_MAX - run->n_output;

		n = room > 0 ? read(run->out, run->output + run->n_output, room)
			     : read(run->out, dropped, sizeof(dropped));
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0)
			output_end(run);
		else if (room > 0)
			run->n_output += (size_t)n;
	}
}

static int32_t on_output(int32_t fd, int32_t events, void *data)
{
	(void)fd;
	(void)events;
	read_output(data);
	return 0;
}

static void status_again(void *data)
{
	struct run *run = data;
	struct dr_error err = DR_ERROR_INIT;

	run->again = 0;
	if (run_start(run, ACTION_STATUS, &err) < 0)
		run_fail(run, err.text);
}

static void late(void *data)
{
	struct run *run = data;
	char text[64];

	run->deadline = 0;
	snprintf(text, sizeof(text), "not done within %u s", run->runner->deadline_ms / 1000);
	run_fail(run, text);
}

static void exited(struct run *run, const siginfo_t *info)
{
	struct dr_error err = DR_ERROR_INIT;
	char text[64];

	if (info->si_code != CLD_EXITED) {
		snprintf(text, sizeof(text), "ended by signal %d", info->si_status);
		run_fail(run, text);
	} else if (run->action == ACTION_OFF && info->si_status == 0) {
		env_timer_stop(run->runner->env, &run->deadline);
		run->deadline =
			env_timer_start(run->runner->env, run->runner->deadline_ms * 1000ull, late, run);
		status_again(run);
	} else if (run->action == ACTION_STATUS && info->si_status == STATUS_OFF) {
		run_end(run, 0, &err);
	} else if (run->action == ACTION_STATUS && info->si_status == STATUS_ON) {
		/* Some devices take their time. */
		run->again = env_timer_start(run->runner->env, AGAIN_US, status_again, run);
	} else {
		snprintf(text, sizeof(text), "exit status %d", info->si_status);
		run_fail(run, text);
	}
}

static int32_t on_exit_of(int32_t fd, int32_t events, void *data)
{
	struct run *run = data;
	siginfo_t info = {.si_code = 0};

	(void)fd;
	(void)events;
	if (waitid(P_PIDFD, (id_t)run->pidfd, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0)
		return 0;
	kill_group(run); /* whatever it left behind */
	waitid(P_PIDFD, (id_t)run->pidfd, &info, WEXITED | WNOHANG);
	qb_loop_poll_del(run->runner->loop, run->pidfd);
	close(run->pidfd);
	run->pidfd = -1;
	run->pid = 0;
	read_output(run);
	output_end(run);
	if (run->over)
		run_free(run);
	else
		exited(run, &info);
	return 0;
}

/* What the agent reads, written before it starts: it fits into the pipe. */
static int make_input(const struct run *run, enum action action, int *in)
{
	char text[FENCE_SPEC_MAX + 128];
	int fds[2];
	int n = snprintf(text, sizeof(text), "action=%s\nnodename=%s\n%s", action_name(action), run->node,
			 fence_spec_options(run->spec));
	ssize_t written;

	if (pipe2(fds, O_CLOEXEC) != 0)
		return -errno;
	written = n > 0 && (size_t)n < sizeof(text) ? write(fds[1], text, (size_t)n) : -1;
	OPENSSL_cleanse(text, sizeof(text));
	close(fds[1]);
	if (written != n) {
		close(fds[0]);
		return -EIO;
	}
	*in = fds[0];
	return 0;
}

/* 0 or an errno. */
static int spawn(struct run *run, int in, int out)
{
	static char *const environment[] = {(char *)(uintptr_t) "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
					    (char *)(uintptr_t) "LC_ALL=C", NULL};
	char *argv[] = {run->path, NULL};
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int rc;

	sigemptyset(&none);
	sigfillset(&all);
	rc = posix_spawn_file_actions_init(&files);
	if (rc != 0)
		return rc;
	rc = posix_spawnattr_init(&attr);
	if (rc != 0) {
		posix_spawn_file_actions_destroy(&files);
		return rc;
	}
	if ((rc = posix_spawn_file_actions_adddup2(&files, in, STDIN_FILENO)) == 0 &&
	    (rc = posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO)) == 0 &&
	    (rc = posix_spawn_file_actions_adddup2(&files, out, STDERR_FILENO)) == 0 &&
	    (rc = posix_spawn_file_actions_addclosefrom_np(&files, STDERR_FILENO + 1)) == 0 &&
	    (rc = posix_spawn_file_actions_addchdir_np(&files, "/")) == 0 &&
	    (rc = posix_spawnattr_setsigmask(&attr, &none)) == 0 &&
	    (rc = posix_spawnattr_setsigdefault(&attr, &all)) == 0 &&
	    (rc = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK |
							  POSIX_SPAWN_SETSIGDEF)) == 0)
		rc = posix_spawn(&run->pid, run->path, &files, &attr, argv, environment);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&files);
	if (rc != 0)
		run->pid = 0;
	return rc;
}

static int watch(struct run *run)
{
	qb_loop_t *loop = run->runner->loop;

	run->pidfd = pidfd_open(run->pid, 0);
	if (run->pidfd >= 0 &&
	    qb_loop_poll_add(loop, QB_LOOP_MED, run->pidfd, POLLIN, run, on_exit_of) == 0 &&
	    qb_loop_poll_add(loop, QB_LOOP_MED, run->out, POLLIN, run, on_output) == 0)
		return 0;
	/* It can't be followed, so it may not run. */
	kill_group(run);
	if (run->pidfd >= 0) {
		qb_loop_poll_del(loop, run->pidfd);
		close(run->pidfd);
		run->pidfd = -1;
	}
	waitpid(run->pid, NULL, 0);
	run->pid = 0;
	close(run->out);
	run->out = -1;
	return ENOMEM;
}

static int run_start(struct run *run, enum action action, struct dr_error *err)
{
	DR_AUTO_FD int in = -1;
	DR_AUTO_FD int out = -1;
	int fds[2];
	int rc;

	run->action = action;
	run->n_output = 0;
	rc = -make_input(run, action, &in);
	if (rc == 0 && pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0)
		rc = errno;
	if (rc != 0)
		return dr_error_errno(err, DR_EFAILED, rc, "pipe");
	run->out = fds[0];
	out = fds[1];
	/* The agent's end is an ordinary, blocking one. */
	fcntl(out, F_SETFL, 0);
	rc = spawn(run, in, out);
	if (rc != 0) {
		close(run->out);
		run->out = -1;
		return dr_error_errno(err, DR_EFAILED, rc, "%s", run->path);
	}
	rc = watch(run);
	return rc == 0 ? 0 : dr_error_errno(err, DR_EFAILED, rc, "%s: can't be watched", run->path);
}

/* --- the runner -------------------------------------------------------------------- */

struct fence_runner *fence_runner_new(qb_loop_t *loop, struct env *env, const char *dir, unsigned deadline_ms)
{
	struct fence_runner *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return NULL;
	r->loop = loop;
	r->env = env;
	r->deadline_ms = deadline_ms;
	snprintf(r->dir, sizeof(r->dir), "%s", dir);
	return r;
}

void fence_runner_free(struct fence_runner *r)
{
	if (r == NULL)
		return;
	while (r->runs != NULL) {
		struct run *run = r->runs;

		kill_group(run);
		output_end(run);
		if (run->pidfd >= 0) {
			qb_loop_poll_del(r->loop, run->pidfd);
			close(run->pidfd);
		}
		run_free(run);
	}
	free(r);
}

static struct run *find(struct fence_runner *r, const char *node)
{
	for (struct run *run = r->runs; run != NULL; run = run->next) {
		if (strcmp(run->node, node) == 0)
			return run;
	}
	return NULL;
}

/* The spec names no folder: the agent is one that the host's administrator put into the usual place. */
static int find_agent(const struct fence_runner *r, struct run *run, struct dr_error *err)
{
	const char *const usual[] = {"/usr/sbin", "/usr/local/sbin"};
	const char *const own[] = {r->dir};
	const char *const *dirs = r->dir[0] != '\0' ? own : usual;
	size_t n = r->dir[0] != '\0' ? DR_ARRAY_SIZE(own) : DR_ARRAY_SIZE(usual);
	char agent[FENCE_AGENT_MAX];

	fence_spec_agent(run->spec, agent);
	for (size_t i = 0; i < n; i++) {
		snprintf(run->path, sizeof(run->path), "%s/%s", dirs[i], agent);
		if (access(run->path, X_OK) == 0)
			return 0;
	}
	return dr_error_set(err, DR_ENOENT,
			    "no %s in %s on this host: install the fence agent (package "
			    "fence-agents)",
			    agent, r->dir[0] != '\0' ? r->dir : "/usr/sbin");
}

int fence_off(struct fence_runner *r, const char *node, const char *spec, fence_done_fn done, void *data,
	      struct dr_error *err)
{
	struct run *run;
	int ret;

	if (find(r, node) != NULL)
		return dr_error_set(err, DR_EAGAIN, "a fence agent runs for %s already", node);
	run = calloc(1, sizeof(*run));
	if (run == NULL || (run->spec = strdup(spec)) == NULL) {
		free(run);
		return dr_error_set(err, DR_ENOMEM, "out of memory");
	}
	run->runner = r;
	run->done = done;
	run->data = data;
	run->pidfd = -1;
	run->out = -1;
	snprintf(run->node, sizeof(run->node), "%s", node);
	run->next = r->runs;
	r->runs = run;
	ret = find_agent(r, run, err);
	if (ret == 0)
		ret = run_start(run, ACTION_OFF, err);
	if (ret < 0) {
		run_free(run);
		return ret;
	}
	run->deadline = env_timer_start(r->env, r->deadline_ms * 1000ull, late, run);
	return 0;
}

void fence_cancel(struct fence_runner *r, const char *node)
{
	struct dr_error err = DR_ERROR_INIT;
	struct run *run = find(r, node);

	if (run == NULL || run->over)
		return;
	run->over = true;
	run_end(run, -DR_EFAILED, &err);
}
