#include "agent/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/facts.h"
#include "agent/move_real.h"
#include "agent/relays.h"
#include "agent/session.h"
#include "agent/storage.h"
#include "agent/stray.h"
#include "agent/vm.h"
#include "common/cleanup.h"
#include "common/env_real.h"
#include "common/log.h"

static int make_dirs(const char *path, mode_t mode, struct dr_error *err)
{
	char part[256];

	snprintf(part, sizeof(part), "%s", path);
	for (char *p = part + 1; *p != '\0'; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		if (mkdir(part, 0755) != 0 && errno != EEXIST)
			return dr_error_errno(err, DR_EIO, errno, "%s", part);
		*p = '/';
	}
	if (mkdir(part, mode) != 0 && errno != EEXIST)
		return dr_error_errno(err, DR_EIO, errno, "%s", part);
	return 0;
}

/* One agent per data directory; the kernel frees the lock with the process. */
static int lock_data(struct agent *a, struct dr_error *err)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/agent.lock", a->conf.data_dir);
	a->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (a->lock_fd < 0)
		return dr_error_errno(err, DR_EIO, errno, "%s", path);
	if (flock(a->lock_fd, LOCK_EX | LOCK_NB) != 0)
		return dr_error_set(
			err, DR_EREFUSED,
			"%s is in use by another drover-agent: stop that one first, or set another data_dir=",
			a->conf.data_dir);
	return 0;
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int read_boot_id(uint8_t id[16], struct dr_error *err)
{
	DR_AUTO_FILE FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
	char text[64] = "";
	size_t n = 0;

	if (f == NULL || fgets(text, sizeof(text), f) == NULL)
		return dr_error_set(err, DR_EIO, "/proc/sys/kernel/random/boot_id cannot be read");
	for (const char *p = text; *p != '\0' && n < 32; p++) {
		if (hex(*p) < 0)
			continue;
		id[n / 2] = (uint8_t)(id[n / 2] << 4 | hex(*p));
		n++;
	}
	return n == 32 ? 0 : dr_error_set(err, DR_EIO, "boot id: %s", text);
}

static void find_vm_user(struct agent *a)
{
	const struct passwd *pw = getuid() == 0 ? getpwnam("drover-vm") : NULL;

	if (pw == NULL) {
		log_notice("no user drover-vm: QEMU runs as the agent's own user");
		return;
	}
	a->vm_uid = pw->pw_uid;
	a->vm_gid = pw->pw_gid;
}

struct restoring {
	struct agent *agent;
	int rc;
	pid_t pid; /* of the first process that could not be opened */
};

static void on_vm_row(const struct store_vm *row, void *data)
{
	struct restoring *r = data;

	if (r->rc != 0)
		return;
	r->rc = vm_restore(r->agent, row);
	r->pid = row->pid;
}

static void on_move_row(const struct store_move *row, void *data)
{
	struct restoring *r = data;

	if (r->rc != 0)
		return;
	r->rc = amove_restore(r->agent, row);
	r->pid = row->qemu.pid;
}

/* What an earlier agent left: VMs first, so that moves find theirs; then both go on. */
static int restore(struct agent *a, struct dr_error *err)
{
	struct restoring r = {.agent = a};

	if (store_vms(a->store, on_vm_row, &r) != 0 || store_moves(a->store, on_move_row, &r) != 0)
		return dr_error_set(err, DR_EIO, "%s/agent.db cannot be read", a->conf.data_dir);
	/* Nothing was said or recorded yet; a start that fails proves nothing about a VM (R9). */
	if (r.rc != 0)
		return dr_error_set(
			err, DR_EIO,
			"whether process %d (a VM's QEMU) lives cannot be told: no descriptors or "
			"memory left, or /proc cannot be read",
			(int)r.pid);
	if (stray_scan(a, err) != 0)
		return -(int)err->code;
	for (struct vm *vm = a->vms; vm != NULL; vm = vm->next)
		vm_adopt(vm);
	amove_start_all(a);
	return 0;
}

static int open_store(struct agent *a, struct dr_error *err)
{
	char path[300];
	int rc;

	snprintf(path, sizeof(path), "%s/agent.db", a->conf.data_dir);
	rc = store_open(path, &a->store, err);
	if (rc == 0 && store_floors(a->store, &a->floors) != 0)
		rc = dr_error_set(err, DR_EIO, "%s: floors cannot be read", path);
	return rc;
}

static int ask_qemu(struct agent *a, struct dr_error *err)
{
	char cache[300];
	int rc;

	snprintf(cache, sizeof(cache), "%s/qemu.json", a->conf.data_dir);
	rc = qprobe(a->conf.qemu, a->conf.accel, cache, &a->caps, err);
	if (rc == 0)
		log_info("%s: version %s, %zu machine types, %s%s", a->caps.path, a->caps.version,
			 a->caps.n_machines, a->caps.kvm ? "KVM works" : "no KVM: ", a->caps.kvm_why);
	return rc;
}

int agent_init(struct agent *a, const struct dr_conf *conf, qb_loop_t *loop, struct dr_error *err)
{
	int rc;

	*a = (struct agent){.conf = *conf, .loop = loop, .lock_fd = -1};
	lease_init(&a->lease);
	a->env = env_real_new(loop);
	if (a->env == NULL)
		return dr_error_set(err, DR_ENOMEM, "out of memory");
	env_random(a->env, a->start_id, sizeof(a->start_id));
	a->spawner = spawner_detect();
	rc = make_dirs(conf->data_dir, 0750, err);
	if (rc == 0)
		rc = make_dirs(conf->run_dir, 0755, err);
	if (rc == 0)
		rc = lock_data(a, err);
	if (rc == 0)
		rc = read_boot_id(a->boot_id, err);
	if (rc == 0)
		rc = open_store(a, err);
	if (rc == 0)
		rc = ask_qemu(a, err);
	if (rc != 0)
		return rc;
	find_vm_user(a);
	a->facts = facts_new(a, err);
	a->acceptor = a->facts != NULL ? acceptor_new(a, err) : NULL;
	if (a->acceptor == NULL)
		return -(int)err->code;
	rc = restore(a, err);
	if (rc != 0)
		return rc;
	a->session = session_new(a);
	return a->session != NULL ? 0 : dr_error_set(err, DR_ENOMEM, "out of memory");
}

static void on_leave_timeout(void *data)
{
	struct agent *a = data;

	log_warning("no coordinator took note that this agent leaves: ending without");
	qb_loop_stop(a->loop);
}

void agent_leave(struct agent *a)
{
	if (a->leaving)
		return;
	a->leaving = true;
	if (!session_is_open(a->session)) {
		qb_loop_stop(a->loop);
		return;
	}
	agent_dirty(a);
	env_timer_start(a->env, DAEMON_LEAVE_US, on_leave_timeout, a);
}

void agent_fini(struct agent *a)
{
	session_free(a->session);
	a->session = NULL;
	amove_free_all(a);
	while (a->vms != NULL)
		vm_free(a->vms);
	stray_free_all(a);
	acceptor_free(a->acceptor);
	facts_free(a->facts);
	qcaps_fini(&a->caps);
	if (a->orders != NULL)
		drover__agent_orders__free_unpacked(a->orders, NULL);
	store_close(a->store);
	storage_fini();
	env_real_free(a->env);
	if (a->lock_fd >= 0)
		close(a->lock_fd);
}
