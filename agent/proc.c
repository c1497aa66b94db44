#include "agent/proc.h"

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

#define CMDLINE_MAX (128u << 10)
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
		return -DR_ENOENT;
	n = read(fd, buf, sizeof(buf) - 1);
	if (n <= 0)
		return -DR_ENOENT;
	buf[n] = '\0';
	/* The name in parentheses may hold anything: count from its last ")". */
	p = strrchr(buf, ')');
	for (int i = 0; p != NULL && i < STAT_START; i++)
		p = strchr(p + 1, ' ');
	if (p == NULL)
		return -DR_ENOENT;
	*ticks = strtoull(p + 1, NULL, 10);
	return 0;
}

int proc_open(struct proc *p, pid_t pid, uint64_t start_time)
{
	uint64_t ticks;
	int fd;

	*p = PROC_NONE;
	if (pid <= 0)
		return -DR_ENOENT;
	fd = pidfd_open(pid, 0);
	if (fd < 0)
		return -DR_ENOENT;
	/* The pidfd pins the process; what /proc says now is about it or about nobody. */
	if (proc_start_time(pid, &ticks) != 0 || (start_time != 0 && ticks != start_time)) {
		close(fd);
		return -DR_ENOENT;
	}
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	*p = (struct proc){.pid = pid, .start_time = ticks, .pidfd = fd};
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

	return p->pidfd >= 0 && poll(&pfd, 1, 0) == 0;
}

/* Bytes of the command line; 0: none, as of a process that is ending. */
static size_t read_cmdline(pid_t pid, char *buf)
{
	char path[40];
	DR_AUTO_FD int fd = -1;
	size_t len = 0;
	ssize_t n = 0;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	while (len < CMDLINE_MAX && (n = read(fd, buf + len, CMDLINE_MAX - len)) > 0)
		len += (size_t)n;
	return len;
}

bool proc_cmdline_has(pid_t pid, const char *mark)
{
	DR_AUTO_FREE char *buf = malloc(CMDLINE_MAX);
	size_t len = buf != NULL ? read_cmdline(pid, buf) : 0;

	return len > 0 && memmem(buf, len, mark, strlen(mark)) != NULL;
}

bool proc_is(const struct proc *p, const char *mark)
{
	DR_AUTO_FREE char *buf = malloc(CMDLINE_MAX);
	uint64_t ticks;
	size_t len;

	if (buf == NULL || p->pidfd < 0 || proc_start_time(p->pid, &ticks) != 0 || ticks != p->start_time)
		return false;
	len = read_cmdline(p->pid, buf);
	/* A process on its way out has none any more; pidfd and start time say that it is ours. */
	return len == 0 || memmem(buf, len, mark, strlen(mark)) != NULL;
}

int proc_kill(const struct proc *p, int signum, const char *mark, struct dr_error *err)
{
	if (!proc_alive(p))
		return -DR_ENOENT;
	if (!proc_is(p, mark)) {
		if (!proc_alive(p))
			return -DR_ENOENT;
		return dr_error_set(err, DR_EREFUSED, "process %d is not the one that was started for %s",
				    (int)p->pid, mark);
	}
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
