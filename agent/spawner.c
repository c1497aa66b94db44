#include "agent/spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"

#define PREFIX_MAX 12
#define UNIT_MAX   160

static size_t prefix_plain(const struct spawn *s, const char **words, char *unit, size_t unit_size)
{
	(void)s;
	(void)words;
	(void)unit;
	(void)unit_size;
	return 0;
}

/* systemd-run --scope moves itself into the scope and execs: the pid stays. */
static size_t prefix_systemd(const struct spawn *s, const char **words, char *unit, size_t unit_size)
{
	snprintf(unit, unit_size, "--unit=%s.scope", s->unit);
	words[0] = "systemd-run";
	words[1] = "--scope";
	words[2] = "--quiet";
	words[3] = "--collect";
	words[4] = "--slice=drover.slice";
	words[5] = unit;
	words[6] = "--";
	return 7;
}

static const struct spawner spawners[] = {
	{.name = "systemd", .prefix = prefix_systemd},
	{.name = "plain", .prefix = prefix_plain},
};

const struct spawner *spawner_find(const char *name)
{
	for (size_t i = 0; i < DR_ARRAY_SIZE(spawners); i++)
		if (strcmp(spawners[i].name, name) == 0)
			return &spawners[i];
	return NULL;
}

const struct spawner *spawner_detect(void)
{
	struct stat st;
	bool systemd = lstat("/run/systemd/system", &st) == 0 && S_ISDIR(st.st_mode) &&
		       (access("/usr/bin/systemd-run", X_OK) == 0 || access("/bin/systemd-run", X_OK) == 0);

	return spawner_find(systemd ? "systemd" : "plain");
}

/* ------------------------------------------------ in the child: no malloc, no return */

static void die(const char *what)
{
	char text[160];
	int n = snprintf(text, sizeof(text), "drover: %s: %s\n", what, strerror(errno));

	if (n > 0 && write(STDERR_FILENO, text, (size_t)n) < 0)
		_exit(126);
	_exit(127);
}

/* Moves the descriptors to 3, 4, ...: first out of the way, then into place. */
static void place_fds(const int *fds, size_t n)
{
	int high[SPAWN_FDS_MAX];

	for (size_t i = 0; i < n; i++) {
		high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, SPAWN_FD_FIRST + SPAWN_FDS_MAX + 8);
		if (high[i] < 0)
			die("descriptor");
	}
	for (size_t i = 0; i < n; i++)
		if (dup2(high[i], SPAWN_FD_FIRST + (int)i) < 0)
			die("descriptor");
	/* Nothing else may leak, whatever a library forgot to mark. */
	if (close_range(SPAWN_FD_FIRST + (unsigned int)n, ~0u, CLOSE_RANGE_CLOEXEC) != 0)
		die("close_range");
}

static void reset_signals(void)
{
	sigset_t none;

	for (int i = 1; i < 32; i++)
		if (i != SIGKILL && i != SIGSTOP)
			signal(i, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void run_child(const struct spawn *s, const char *const *argv, int gate)
{
	char go;
	ssize_t n;
	int log;
	int null;

	setsid();
	reset_signals();
	do
		n = read(gate, &go, 1);
	while (n < 0 && errno == EINTR);
	if (n != 1)
		_exit(0); /* abandoned: nobody would know of us */
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	log = s->log_path != NULL
		      ? open(s->log_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0640)
		      : null;
	if (log < 0)
		log = null;
	dup2(null, STDIN_FILENO);
	dup2(log, STDOUT_FILENO);
	dup2(log, STDERR_FILENO);
	place_fds(s->fds, s->n_fds);
	if (s->uid != 0 && (setgroups(0, NULL) != 0 || setresgid(s->gid, s->gid, s->gid) != 0 ||
			    setresuid(s->uid, s->uid, s->uid) != 0))
		die("changing the user");
	execvp(argv[0], (char *const *)argv);
	die(argv[0]);
}

/* ------------------------------------------------ in the agent */

static const char **full_argv(const struct spawner *sp, const struct spawn *s, char *unit, size_t unit_size)
{
	size_t n = 0;
	size_t k;
	const char **argv;

	while (s->argv[n] != NULL)
		n++;
	argv = calloc(n + PREFIX_MAX + 1, sizeof(*argv));
	if (argv == NULL)
		return NULL;
	k = sp->prefix(s, argv, unit, unit_size);
	for (size_t i = 0; i < n; i++)
		argv[k + i] = s->argv[i];
	return argv;
}

int spawner_start(const struct spawner *sp, const struct spawn *s, struct proc *proc, int *gate,
		  struct dr_error *err)
{
	char unit[UNIT_MAX];
	DR_AUTO_FREE const char **argv = full_argv(sp, s, unit, sizeof(unit));
	int pipefd[2];
	pid_t pid;

	if (argv == NULL || s->n_fds > SPAWN_FDS_MAX)
		return dr_error_set(err, DR_ENOMEM, "%s: out of memory", s->unit);
	if (pipe2(pipefd, O_CLOEXEC) != 0)
		return dr_error_errno(err, DR_EIO, errno, "%s: pipe", s->unit);
	pid = fork();
	if (pid == 0) {
		close(pipefd[1]);
		run_child(s, argv, pipefd[0]);
	}
	close(pipefd[0]);
	if (pid < 0) {
		close(pipefd[1]);
		return dr_error_errno(err, DR_EIO, errno, "%s: fork", s->unit);
	}
	*gate = pipefd[1];
	if (proc_open(proc, pid, 0) != 0) {
		spawner_abandon(gate);
		return dr_error_set(err, DR_EIO, "%s: process %d cannot be watched", s->unit, (int)pid);
	}
	return 0;
}

void spawner_open(int *gate)
{
	char go = 'g';

	/* A child that died meanwhile is noticed by its pidfd. */
	if (*gate >= 0 && write(*gate, &go, 1) < 0)
		errno = 0;
	spawner_abandon(gate);
}

void spawner_abandon(int *gate)
{
	if (*gate >= 0)
		close(*gate);
	*gate = -1;
}
