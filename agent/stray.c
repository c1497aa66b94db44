#include "agent/stray.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm.h"
#include "common/log.h"

struct stray {
	struct stray *next;
	struct agent *agent;
	struct proc proc;
	char vm[NAMES_MAX + 1];
};

struct scan {
	struct agent *agent;
	const char *mark;
};

static void remove_stray(struct stray *s)
{
	struct stray **at = &s->agent->strays;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	qb_loop_poll_del(s->agent->loop, s->proc.pidfd);
	proc_close(&s->proc);
	free(s);
}

static int32_t on_end(int32_t fd, int32_t revents, void *data)
{
	struct stray *s = data;
	struct agent *a = s->agent;
	struct vm *vm = vm_find(a, s->vm);

	(void)fd;
	(void)revents;
	log_notice("vm %s: process %d, which was not known here, has ended", s->vm, (int)s->proc.pid);
	remove_stray(s);
	if (vm != NULL)
		vm_adopt(vm);
	agent_dirty(a);
	agent_kick(a);
	return 0;
}

static bool known(const struct agent *a, pid_t pid)
{
	for (const struct vm *vm = a->vms; vm != NULL; vm = vm->next)
		if (vm_has_process(vm) && vm->proc.pid == pid)
			return true;
	return false;
}

/* arg begins with the mark; the VM's name follows, then a slash. */
static int on_found(pid_t pid, const char *arg, void *data)
{
	const struct scan *scan = data;
	struct agent *a = scan->agent;
	const char *name = arg + strlen(scan->mark);
	struct stray *s;
	struct proc p;
	int rc;

	if (known(a, pid))
		return 0;
	rc = proc_open(&p, pid, 0);
	if (rc == 0)
		rc = proc_check(&p, scan->mark); /* the pid may be another process's by now */
	if (rc != 0) {
		proc_close(&p);
		return rc == -DR_EIO ? rc : 0;
	}
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		abort();
	s->agent = a;
	s->proc = p;
	snprintf(s->vm, sizeof(s->vm), "%.*s", (int)strcspn(name, "/"), name);
	s->next = a->strays;
	a->strays = s;
	if (qb_loop_poll_add(a->loop, QB_LOOP_HIGH, p.pidfd, POLLIN, s, on_end) != 0)
		abort();
	log_error(
		"vm %s: process %d is a QEMU of this VM that %s/agent.db does not know (was the file deleted "
		"or restored?): until it ends, this host's report is not complete and the VM is left alone",
		s->vm, (int)pid, a->conf.data_dir);
	return 0;
}

int stray_scan(struct agent *a, struct dr_error *err)
{
	char mark[300];
	struct scan scan = {.agent = a, .mark = mark};
	int rc;

	/* agent/launch.c: every QEMU has its console's socket there. */
	snprintf(mark, sizeof(mark), "socket,id=console,path=%s/vm/", a->conf.run_dir);
	rc = proc_find(mark, on_found, &scan);
	return rc == 0 ? 0 : dr_error_set(err, DR_EIO, "the processes of this host cannot be read");
}

void stray_free_all(struct agent *a)
{
	while (a->strays != NULL)
		remove_stray(a->strays);
}

bool stray_any(const struct agent *a)
{
	return a->strays != NULL;
}

bool stray_has(const struct agent *a, const char *vm)
{
	for (const struct stray *s = a->strays; s != NULL; s = s->next)
		if (strcmp(s->vm, vm) == 0)
			return true;
	return false;
}
