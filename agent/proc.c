#include "agent/proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"

#define CMDLINE_MAX (128 << 10)
#define STAT_START  20 /* fields of /proc/PID/stat between the state and the start time */

int proc_start_time(pid_t pid, uint64_t *ticks)
{
	char path[40];
	char buf[1024];
	DR_AUTO_FD int fd = -1;
	ssize_t n;
	char *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ESRCH ? -DR_ENOENT : -DR_EIO;
	n = read(fd, buf, sizeof(buf) - 1);
	if (n < 0)
		return errno == ESRCH ? -DR_ENOENT : -DR_EIO;
	buf[n] = '\0';
	/* The name in parentheses may hold anything: count from its last ")". */
	p = strrchr(buf, ')');
	for (int i = 0; p != NULL && i < STAT_START; i++)
		p = strchr(p + 1, ' ');
	if (p == NULL)
		return -DR_EIO;
	*ticks = strtoull(p + 1, NULL, 10);
	return 0;
}

/*
 * No pidfd could be had. Gone only where that is certain; a pid that is now the id of somebody's thread has
 * no pidfd, but another start time.
 */
static int why_not_opened(pid_t pid, uint64_t start_time, int error)
{
	uint64_t ticks;
	int rc;

	if (error == ESRCH)
		return -DR_ENOENT;
	rc = proc_start_time(pid, &ticks);
	if (rc != 0)
		return rc;
	return start_time != 0 && ticks != start_time ? -DR_ENOENT : -DR_EIO;
}

int proc_open(struct proc *p, pid_t pid, uint64_t start_time)
{
	struct proc q = {.pid = pid};
	int rc;

	*p = PROC_NONE;
	if (pid <= 0)
		return -DR_ENOENT;
	q.pidfd = pidfd_open(pid, 0);
	if (q.pidfd < 0)
		return why_not_opened(pid, start_time, errno);
	/* The pidfd pins the process; what /proc says now is about it or about nobody. */
	rc = proc_start_time(pid, &q.start_time);
	if (rc == -DR_ENOENT && proc_alive(&q))
		rc = -DR_EIO; /* hidden from us, not gone */
	if (rc == 0 && start_time != 0 && q.start_time != start_time)
		rc = -DR_ENOENT;
	if (rc != 0) {
		close(q.pidfd);
		return rc;
	}
	fcntl(q.pidfd, F_SETFD, FD_CLOEXEC);
	*p = q;
	return 0;
}

void proc_close(struct proc *p)
{
	if (p->pidfd >= 0)
		close(p->pidfd);
	*p = PROC_NONE;
}

bool proc_is_open(const struct proc *p)
{
	return p->pidfd >= 0;
}

bool proc_alive(const struct proc *p)
{
	struct pollfd pfd = {.fd = p->pidfd, .events = POLLIN};

	/* Only what poll says for certain is an end. */
	return p->pidfd >= 0 && (poll(&pfd, 1, 0) != 1 || (pfd.revents & POLLIN) == 0);
}

/* Bytes of the command line; 0: none, as of a process that is ending. -DR_EIO: it cannot be read. */
static ssize_t read_cmdline(pid_t pid, char *buf)
{
	char path[40];
	DR_AUTO_FD int fd = -1;
	ssize_t len = 0;
	ssize_t n = 0;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ESRCH ? 0 : -DR_EIO;
	while (len < CMDLINE_MAX && (n = read(fd, buf + len, (size_t)(CMDLINE_MAX - len))) > 0)
		len += n;
	return n < 0 && errno != ESRCH ? -DR_EIO : len;
}

bool proc_cmdline_has(pid_t pid, const char *mark)
{
	DR_AUTO_FREE char *buf = malloc(CMDLINE_MAX);
	ssize_t len = buf != NULL ? read_cmdline(pid, buf) : 0;

	return len > 0 && memmem(buf, (size_t)len, mark, strlen(mark)) != NULL;
}

/* The argument that begins with prefix; NULL: none. buf ends with a zero byte. */
static const char *find_arg(const char *buf, ssize_t len, const char *prefix)
{
	for (const char *p = buf; p < buf + len; p += strlen(p) + 1)
		if (strncmp(p, prefix, strlen(prefix)) == 0)
			return p;
	return NULL;
}

int proc_find(const char *prefix, int (*fn)(pid_t pid, const char *arg, void *data), void *data)
{
	DR_AUTO_FREE char *buf = malloc(CMDLINE_MAX + 1);
	DIR *d = opendir("/proc");
	struct dirent *e = NULL;
	int rc = d != NULL && buf != NULL ? 0 : -DR_EIO;

	while (rc == 0 && (errno = 0, e = readdir(d)) != NULL) {
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
		ssize_t len = pid > 0 ? read_cmdline(pid, buf) : 0;
		const char *arg;

		if (len < 0 && errno != EACCES && errno != EPERM) /* another user's is none of ours */
			rc = -DR_EIO;
		if (len <= 0)
			continue;
		buf[len] = '\0';
		arg = find_arg(buf, len, prefix);
		if (arg != NULL)
			rc = fn(pid, arg, data);
	}
	if (rc == 0 && errno != 0)
		rc = -DR_EIO;
	if (d != NULL)
		closedir(d);
	return rc;
}

int proc_check(const struct proc *p, const char *mark)
{
	DR_AUTO_FREE char *buf = malloc(CMDLINE_MAX);
	uint64_t ticks;
	ssize_t len;
	int rc;

	if (!proc_alive(p))
		return -DR_ENOENT;
	rc = proc_start_time(p->pid, &ticks);
	len = rc == 0 && buf != NULL ? read_cmdline(p->pid, buf) : -DR_EIO;
	if (!proc_alive(p))
		return -DR_ENOENT;
	if (len < 0)
		return -DR_EIO;
	/* A process on its way out has no command line any more; pidfd and start time say that it is ours. */
	if (ticks == p->start_time && (len == 0 || memmem(buf, (size_t)len, mark, strlen(mark)) != NULL))
		return 0;
	return -DR_EREFUSED;
}

int proc_kill(const struct proc *p, int signum, const char *mark, struct dr_error *err)
{
	int rc = proc_check(p, mark);

	if (rc == -DR_ENOENT)
		return rc;
	if (rc == -DR_EREFUSED)
		return dr_error_set(err, DR_EREFUSED, "process %d is not the one that was started for %s",
				    (int)p->pid, mark);
	if (rc != 0)
		return dr_error_set(err, DR_EIO, "process %d of %s cannot be checked", (int)p->pid, mark);
	if (pidfd_send_signal(p->pidfd, signum, NULL, 0) == 0)
		return 0;
	if (errno == ESRCH)
		return -DR_ENOENT;
	return dr_error_errno(err, DR_EIO, errno, "signal %d to process %d", signum, (int)p->pid);
}

struct proc_exit proc_reap(const struct proc *p)
{
	siginfo_t info = {.si_pid = 0};
	struct proc_exit e = {.known = false};

	if (p->pidfd < 0 || waitid(P_PIDFD, (id_t)p->pidfd, &info, WEXITED | WNOHANG) != 0 ||
	    info.si_pid == 0)
		return e;
	e.known = true;
	/* waitid tells code and status apart; wait(2)'s form holds both. */
	e.status = info.si_code == CLD_EXITED ? info.si_status << 8 : info.si_status & 0x7f;
	return e;
}

void proc_exit_text(const struct proc_exit *e, char *buf, size_t size)
{
	if (!e->known)
		snprintf(buf, size, "ended (status unknown)");
	else if (WIFSIGNALED(e->status))
		snprintf(buf, size, "killed by signal %d (%s)", WTERMSIG(e->status),
			 strsignal(WTERMSIG(e->status)));
	else
		snprintf(buf, size, "exit status %d", WEXITSTATUS(e->status));
}
