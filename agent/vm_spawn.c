/* Starting a VM's QEMU: directory, monitor socket, taps, user, command line, process. */
#include "agent/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/tap.h"
#include "common/cleanup.h"
#include "common/log.h"

#define TAPS_MAX (SPAWN_FDS_MAX - 1)

static int make_dir(const struct vm *vm, struct dr_error *err)
{
	char parent[300];

	snprintf(parent, sizeof(parent), "%s/vm", vm->agent->conf.run_dir);
	if (mkdir(parent, 0755) != 0 && errno != EEXIST)
		return dr_error_errno(err, DR_EIO, errno, "%s", parent);
	if (mkdir(vm->dir, 0750) != 0 && errno != EEXIST)
		return dr_error_errno(err, DR_EIO, errno, "%s", vm->dir);
	return 0;
}

/* QEMU gets the socket already listening: the agent connects at once, without polling for a path. */
static int listen_qmp(const struct vm *vm, struct dr_error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	DR_AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int n = snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/qmp.sock", vm->dir);

	if (fd < 0 || n < 0 || (size_t)n >= sizeof(addr.sun_path))
		return dr_error_set(err, DR_EIO,
				    "%s/qmp.sock: the path is too long for a socket (set a shorter run_dir=)",
				    vm->dir);
	unlink(addr.sun_path);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0 || chmod(addr.sun_path, 0600) != 0 ||
	    listen(fd, 4) != 0)
		return dr_error_errno(err, DR_EIO, errno, "%s", addr.sun_path);
	return DR_TAKE_FD(fd);
}

/* Could that user open the file for reading and writing? (Approximation by mode bits; root is never asked.)
 */
static bool user_may(const char *path, uid_t uid, gid_t gid, bool write)
{
	struct stat st;
	mode_t want = write ? 6 : 4;

	if (stat(path, &st) != 0)
		return false;
	if (st.st_uid == uid)
		return ((st.st_mode >> 6) & want) == want;
	if (st.st_gid == gid)
		return ((st.st_mode >> 3) & want) == want;
	return (st.st_mode & want) == want;
}

/* The user that this VM's QEMU runs as: drover-vm where it can work, else the agent's own (said in the log).
 */
static bool use_vm_user(const struct vm *vm)
{
	const struct agent *a = vm->agent;

	if (a->vm_uid == 0)
		return false;
	if (strcmp(vm->launch->accel, "kvm") == 0 && !user_may("/dev/kvm", a->vm_uid, a->vm_gid, true)) {
		log_notice("vm %s: user drover-vm may not open /dev/kvm: QEMU runs as the agent's user",
			   vm->name);
		return false;
	}
	for (size_t i = 0; i < vm->spec->n_disks; i++) {
		const Drover__VmDisk *d = vm->spec->disks[i];

		if (user_may(d->path, a->vm_uid, a->vm_gid, !d->readonly && !d->cdrom))
			continue;
		log_notice("vm %s: user drover-vm may not open %s: QEMU runs as the agent's user", vm->name,
			   d->path);
		return false;
	}
	return true;
}

static int open_taps(const struct vm *vm, int *fds, size_t *n, struct dr_error *err)
{
	for (size_t i = 0; i < vm->spec->n_nics; i++) {
		const Drover__VmNic *nic = vm->spec->nics[i];
		int fd = *n < TAPS_MAX
				 ? tap_open(nic->bridge, nic->mtu, err)
				 : dr_error_set(err, DR_EREFUSED, "more than %d network cards", TAPS_MAX);

		if (fd < 0)
			return fd;
		fds[(*n)++] = fd;
	}
	return 0;
}

static int run(struct vm *vm, struct words *argv, const int *fds, size_t n_fds,
	       int (*record)(const struct proc *proc, void *data), void *data, struct dr_error *err)
{
	struct agent *a = vm->agent;
	bool user = use_vm_user(vm);
	char unit[100];
	char log_path[300];
	struct spawn s = {.unit = unit, .argv = argv->word, .fds = fds, .n_fds = n_fds, .log_path = log_path};
	int gate = -1;
	int rc;

	snprintf(unit, sizeof(unit), "drover-vm-%s", vm->name);
	snprintf(log_path, sizeof(log_path), "%s/qemu.log", vm->dir);
	if (user) {
		s.uid = a->vm_uid;
		s.gid = a->vm_gid;
		unlink(log_path);
		if (chown(vm->dir, a->vm_uid, a->vm_gid) != 0)
			return dr_error_errno(err, DR_EIO, errno, "%s: changing the owner", vm->dir);
	}
	rc = spawner_start(a->spawner, &s, &vm->proc, &gate, err);
	if (rc != 0)
		return rc;
	rc = record(&vm->proc, data);
	if (rc != 0) {
		spawner_abandon(&gate);
		proc_close(&vm->proc);
		return dr_error_set(err, DR_EIO, "the start could not be recorded");
	}
	spawner_open(&gate);
	log_info("vm %s: QEMU started, pid %d (%s)", vm->name, (int)vm->proc.pid, a->spawner->name);
	return 0;
}

int vm_spawn(struct vm *vm, bool incoming, int (*record)(const struct proc *proc, void *data), void *data,
	     struct dr_error *err)
{
	struct words argv = {0};
	int fds[SPAWN_FDS_MAX];
	size_t n = 0;
	int rc = make_dir(vm, err);

	if (rc == 0)
		rc = launch_check_files(vm->spec, err);
	if (rc != 0)
		return rc;
	rc = listen_qmp(vm, err);
	if (rc < 0)
		return rc;
	fds[n++] = rc;
	rc = open_taps(vm, fds, &n, err);
	if (rc == 0) {
		struct launch_host host = {.qemu = vm->agent->caps.path,
					   .run_dir = vm->dir,
					   .incoming = incoming,
					   .n_taps = n - 1};

		if (launch_argv(vm->spec, vm->launch, &host, &argv) != 0)
			rc = dr_error_set(err, DR_ENOMEM, "out of memory");
		else
			rc = run(vm, &argv, fds, n, record, data, err);
	}
	words_fini(&argv);
	for (size_t i = 0; i < n; i++)
		close(fds[i]);
	return rc;
}

void vm_last_words(const struct vm *vm, char *buf, size_t size)
{
	char path[300];
	DR_AUTO_FD int fd = -1;
	off_t end;
	ssize_t n;

	buf[0] = '\0';
	snprintf(path, sizeof(path), "%s/qemu.log", vm->dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	end = lseek(fd, 0, SEEK_END);
	n = pread(fd, buf, size - 1, end > (off_t)size - 1 ? end - (off_t)(size - 1) : 0);
	buf[n > 0 ? n : 0] = '\0';
	for (ssize_t i = 0; i < n; i++) {
		if (buf[i] == '\n')
			buf[i] = i + 1 < n ? ';' : '\0';
		else if (buf[i] < ' ' || buf[i] > '~')
			buf[i] = '?';
	}
}

void vm_remove_files(const struct vm *vm)
{
	static const char *const names[] = {"qmp.sock", "console.sock", "console.log", "qga.sock",
					    "qemu.log"};
	char path[300];

	for (size_t i = 0; i < DR_ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", vm->dir, names[i]);
		unlink(path);
	}
	rmdir(vm->dir);
}
