/*
 * Disks in memory, each with the few files of one coordinator's data directory (/sim/NAME/FILE), as SQLite's
 * file system and as the calls of sim_files.h.
 *
 * A write is there at once for whoever reads, and durable when the file is synced. At a power loss what was
 * not synced is, by the seed, all there, all gone, cut off somewhere, or there and gone sector by sector.
 */
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cluster.h"

#define SIM_FILES_BODY
#include "sim_files.h"

#define SECTOR	     512
#define FD_BASE	     (1 << 20)
#define FD_COUNT     4096
#define FD_DIRECTORY (FD_BASE - 1) /* names are durable at once */

static struct disk *disks[SIM_COORDS];
static struct disk_file *fds[FD_COUNT];
static struct disk *fd_disks[FD_COUNT];
static off_t fd_at[FD_COUNT];
static int next_fd;

void disk_register(struct disk *disk, struct coord *owner)
{
	disk->owner = owner;
	disks[owner->id] = disk;
}

static void *grow(void *p, size_t size)
{
	p = realloc(p, size);
	if (p == NULL)
		abort();
	return p;
}

static struct disk *disk_of(const char *path, const char **name)
{
	for (unsigned i = 0; i < SIM_COORDS; i++) {
		size_t n;

		if (disks[i] == NULL)
			continue;
		n = strlen(disks[i]->owner->name);
		if (strncmp(path, "/sim/", 5) == 0 && strncmp(path + 5, disks[i]->owner->name, n) == 0 &&
		    path[5 + n] == '/') {
			*name = path + 6 + n;
			return disks[i];
		}
	}
	return NULL;
}

static struct disk_file *file_of(struct disk *disk, const char *name, bool make)
{
	for (unsigned i = 0; i < DISK_FILES; i++)
		if (strcmp(disk->files[i].name, name) == 0)
			return &disk->files[i];
	for (unsigned i = 0; make && i < DISK_FILES; i++)
		if (disk->files[i].name[0] == '\0') {
			strncpy(disk->files[i].name, name, sizeof(disk->files[i].name) - 1);
			return &disk->files[i];
		}
	if (make)
		abort();
	return NULL;
}

/* ---------------------------------------------------------------- writing, and what is left of it */

static void resize(struct disk_file *f, size_t size)
{
	if (size > f->room) {
		f->room = size * 2 < 16384 ? 16384 : size * 2;
		f->data = grow(f->data, f->room);
	}
	if (size > f->size)
		memset(f->data + f->size, 0, size - f->size);
	f->size = size;
}

static struct disk_write *note(struct disk_file *f, size_t at, size_t end)
{
	struct disk_write *w;

	if (f->n_pending == f->room_pending) {
		f->room_pending = f->room_pending == 0 ? 16 : f->room_pending * 2;
		f->pending = grow(f->pending, f->room_pending * sizeof(*f->pending));
	}
	w = &f->pending[f->n_pending++];
	*w = (struct disk_write){.at = at, .old_size = f->size, .new_at = at, .new_end = end};
	if (at < f->size) {
		w->size = (end < f->size ? end : f->size) - at;
		w->old = grow(NULL, w->size + 1);
		memcpy(w->old, f->data + at, w->size);
	}
	return w;
}

static void put(struct disk_file *f, const void *bytes, size_t size, size_t at)
{
	if (size == 0)
		return;
	note(f, at, at + size);
	if (at + size > f->size)
		resize(f, at + size);
	memcpy(f->data + at, bytes, size);
}

static void cut_off(struct disk_file *f, size_t size)
{
	struct disk_write *w;

	if (size >= f->size)
		return;
	w = note(f, size, f->size);
	w->truncated = true;
	w->new_size = size;
	f->size = size;
}

static void settled(struct disk_file *f)
{
	for (unsigned i = 0; i < f->n_pending; i++)
		free(f->pending[i].old);
	f->n_pending = 0;
}

/* Undoes it, and remembers what it had written. */
static uint8_t *take_back(struct disk_file *f, const struct disk_write *w)
{
	size_t size = w->new_end - w->new_at;
	uint8_t *written = NULL;

	if (!w->truncated) {
		written = grow(NULL, size + 1);
		memcpy(written, f->data + w->new_at, size);
	}
	resize(f, w->old_size);
	if (w->size > 0)
		memcpy(f->data + w->at, w->old, w->size);
	return written;
}

enum tear { TEAR_ALL, TEAR_NONE, TEAR_PREFIX, TEAR_SECTORS, TEAR_N };

static void put_again(struct sim *sim, struct disk_file *f, const struct disk_write *w,
		      const uint8_t *written, bool by_sector)
{
	for (size_t at = w->new_at; at < w->new_end;) {
		size_t end = (at / SECTOR + 1) * SECTOR;

		if (end > w->new_end)
			end = w->new_end;
		if (!by_sector || sim_random(sim, 2) == 0) {
			if (end > f->size)
				resize(f, end);
			memcpy(f->data + at, written + (at - w->new_at), end - at);
		}
		at = end;
	}
}

static void tear_file(struct sim *sim, struct disk_file *f)
{
	enum tear how = (enum tear)sim_random(sim, TEAR_N);
	unsigned kept = (unsigned)sim_random(sim, f->n_pending + 1);
	uint8_t **written;

	if (f->n_pending == 0)
		return;
	sim_trace(sim, "disk: %s loses power with %u writes that are not synced (%d)", f->name, f->n_pending,
		  (int)how);
	written = grow(NULL, f->n_pending * sizeof(*written));
	for (unsigned i = f->n_pending; i-- > 0;)
		written[i] = take_back(f, &f->pending[i]);
	for (unsigned i = 0; i < f->n_pending; i++) {
		const struct disk_write *w = &f->pending[i];
		bool partly = how == TEAR_SECTORS || (how == TEAR_PREFIX && i == kept);

		if (how == TEAR_NONE || (how == TEAR_PREFIX && i > kept))
			continue;
		if (w->truncated && (!partly || sim_random(sim, 2) == 0))
			resize(f, w->new_size);
		else if (!w->truncated)
			put_again(sim, f, w, written[i], partly);
	}
	for (unsigned i = 0; i < f->n_pending; i++)
		free(written[i]);
	free(written);
	settled(f);
}

void disk_power_loss(struct disk *disk)
{
	for (unsigned i = 0; i < DISK_FILES; i++)
		tear_file(disk->owner->sim, &disk->files[i]);
	disk->crash_in = 0;
	disk->fail_sync = 0;
}

void disk_wipe(struct disk *disk)
{
	for (unsigned i = 0; i < DISK_FILES; i++) {
		settled(&disk->files[i]);
		disk->files[i].exists = false;
		disk->files[i].size = 0;
	}
}

void disk_copy(struct disk *to, const struct disk *from)
{
	for (unsigned i = 0; i < DISK_FILES; i++) {
		struct disk_file *f = &to->files[i];

		settled(f);
		memcpy(f->name, from->files[i].name, sizeof(f->name));
		f->exists = from->files[i].exists;
		f->size = 0;
		resize(f, from->files[i].size);
		if (f->size > 0)
			memcpy(f->data, from->files[i].data, f->size);
	}
}

void disk_checkpoint(struct disk *disk)
{
	char path[64];
	sqlite3 *sql = NULL;

	sqlite3_snprintf(sizeof(path), path, "/sim/%s/log.db", disk->owner->name);
	if (sqlite3_open(path, &sql) == SQLITE_OK)
		sqlite3_exec(sql, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA wal_checkpoint(TRUNCATE)", NULL,
			     NULL, NULL);
	sqlite3_close(sql);
}

void disk_flip_bit(struct disk *disk, uint64_t where)
{
	size_t all = 0;

	for (unsigned i = 0; i < DISK_FILES; i++)
		all += disk->files[i].size;
	where %= all * 8 + 1;
	for (unsigned i = 0; i < DISK_FILES; i++) {
		struct disk_file *f = &disk->files[i];

		if (where < f->size * 8) {
			f->data[where / 8] ^= (uint8_t)(1u << (where % 8));
			sim_trace(disk->owner->sim, "disk: a bit of %s flips at %zu of %zu", f->name,
				  (size_t)where / 8, f->size);
			return;
		}
		where -= f->size * 8;
	}
}

/* One operation more: here the power may go. */
static void operation(struct disk *disk)
{
	disk->ops++;
	if (disk->crash_in > 0 && --disk->crash_in == 0)
		coord_power_loss(disk->owner); /* does not return */
}

static bool sync_fails(struct disk *disk)
{
	operation(disk);
	if (disk->fail_sync > 0 && --disk->fail_sync == 0) {
		disk->failed = true;
		return true;
	}
	return false;
}

/* ---------------------------------------------------------------- SQLite's file system */

struct vfs_file {
	sqlite3_file base;
	struct disk *disk; /* NULL: a temporary file */
	struct disk_file *file;
};

static int vf_close(sqlite3_file *sf)
{
	struct vfs_file *v = (struct vfs_file *)sf;

	if (v->disk == NULL) {
		settled(v->file);
		free(v->file->data);
		free(v->file);
	}
	return SQLITE_OK;
}

static int vf_read(sqlite3_file *sf, void *buf, int size, sqlite3_int64 at)
{
	struct disk_file *f = ((struct vfs_file *)sf)->file;
	size_t n = (size_t)at < f->size ? f->size - (size_t)at : 0;

	if (n > (size_t)size)
		n = (size_t)size;
	if (n > 0)
		memcpy(buf, f->data + at, n);
	if (n == (size_t)size)
		return SQLITE_OK;
	memset((uint8_t *)buf + n, 0, (size_t)size - n);
	return SQLITE_IOERR_SHORT_READ;
}

static int vf_write(sqlite3_file *sf, const void *buf, int size, sqlite3_int64 at)
{
	struct vfs_file *v = (struct vfs_file *)sf;

	if (v->disk != NULL) {
		operation(v->disk);
		if (v->disk->full && (size_t)at + (size_t)size > v->file->size) {
			v->disk->failed = true;
			return SQLITE_FULL;
		}
	}
	put(v->file, buf, (size_t)size, (size_t)at);
	return SQLITE_OK;
}

static int vf_truncate(sqlite3_file *sf, sqlite3_int64 size)
{
	cut_off(((struct vfs_file *)sf)->file, (size_t)size);
	return SQLITE_OK;
}

static int vf_sync(sqlite3_file *sf, int flags)
{
	struct vfs_file *v = (struct vfs_file *)sf;

	(void)flags;
	if (v->disk != NULL && sync_fails(v->disk))
		return SQLITE_IOERR_FSYNC;
	settled(v->file);
	return SQLITE_OK;
}

static int vf_size(sqlite3_file *sf, sqlite3_int64 *size)
{
	*size = (sqlite3_int64)((struct vfs_file *)sf)->file->size;
	return SQLITE_OK;
}

static int vf_lock(sqlite3_file *sf, int level)
{
	(void)sf;
	(void)level;
	return SQLITE_OK;
}

static int vf_reserved(sqlite3_file *sf, int *out)
{
	(void)sf;
	*out = 0;
	return SQLITE_OK;
}

static int vf_control(sqlite3_file *sf, int op, void *arg)
{
	(void)sf;
	(void)op;
	(void)arg;
	return SQLITE_NOTFOUND;
}

static int vf_sector(sqlite3_file *sf)
{
	(void)sf;
	return 4096;
}

static int vf_character(sqlite3_file *sf)
{
	(void)sf;
	return SQLITE_IOCAP_POWERSAFE_OVERWRITE;
}

static const sqlite3_io_methods methods = {
	.iVersion = 1,
	.xClose = vf_close,
	.xRead = vf_read,
	.xWrite = vf_write,
	.xTruncate = vf_truncate,
	.xSync = vf_sync,
	.xFileSize = vf_size,
	.xLock = vf_lock,
	.xUnlock = vf_lock,
	.xCheckReservedLock = vf_reserved,
	.xFileControl = vf_control,
	.xSectorSize = vf_sector,
	.xDeviceCharacteristics = vf_character,
};

static int vfs_open(sqlite3_vfs *vfs, sqlite3_filename path, sqlite3_file *sf, int flags, int *out)
{
	struct vfs_file *v = (struct vfs_file *)sf;
	const char *name;

	(void)vfs;
	memset(v, 0, sizeof(*v));
	if (path == NULL) {
		v->file = calloc(1, sizeof(*v->file));
		if (v->file == NULL)
			return SQLITE_NOMEM;
	} else {
		v->disk = disk_of(path, &name);
		if (v->disk == NULL)
			return SQLITE_CANTOPEN;
		v->file = file_of(v->disk, name, true);
		if (!v->file->exists && !(flags & SQLITE_OPEN_CREATE))
			return SQLITE_CANTOPEN;
		v->file->exists = true;
	}
	v->base.pMethods = &methods;
	if (out != NULL)
		*out = flags;
	return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *path, int sync_dir)
{
	(void)vfs;
	(void)sync_dir;
	return sim_unlink(path) == 0 || errno == ENOENT ? SQLITE_OK : SQLITE_IOERR_DELETE;
}

static int vfs_access(sqlite3_vfs *vfs, const char *path, int flags, int *out)
{
	const char *name;
	struct disk *disk = disk_of(path, &name);
	struct disk_file *f = disk != NULL ? file_of(disk, name, false) : NULL;

	(void)vfs;
	*out = f != NULL && f->exists && (flags != SQLITE_ACCESS_EXISTS || f->size > 0);
	return SQLITE_OK;
}

static int vfs_path(sqlite3_vfs *vfs, const char *path, int n, char *out)
{
	(void)vfs;
	sqlite3_snprintf(n, out, "%s", path);
	return SQLITE_OK;
}

static int vfs_random(sqlite3_vfs *vfs, int n, char *out)
{
	(void)vfs;
	for (int i = 0; i < n; i++)
		out[i] = (char)(i * 37 + 11);
	return n;
}

static int vfs_sleep(sqlite3_vfs *vfs, int us)
{
	(void)vfs;
	return us;
}

static int vfs_time(sqlite3_vfs *vfs, sqlite3_int64 *now)
{
	(void)vfs;
	*now = 210866760000000;
	return SQLITE_OK;
}

static int vfs_error(sqlite3_vfs *vfs, int n, char *text)
{
	(void)vfs;
	(void)n;
	(void)text;
	return 0;
}

void disk_setup(void)
{
	static sqlite3_vfs vfs = {
		.iVersion = 2,
		.szOsFile = sizeof(struct vfs_file),
		.mxPathname = 256,
		.zName = "sim",
		.xOpen = vfs_open,
		.xDelete = vfs_delete,
		.xAccess = vfs_access,
		.xFullPathname = vfs_path,
		.xRandomness = vfs_random,
		.xSleep = vfs_sleep,
		.xCurrentTimeInt64 = vfs_time,
		.xGetLastError = vfs_error,
	};

	/* One thread: its locks would only cost time. */
	sqlite3_config(SQLITE_CONFIG_SINGLETHREAD);
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
	sqlite3_vfs_register(&vfs, 1);
}

/* ---------------------------------------------------------------- the calls of sim_files.h */

int sim_open(const char *path, int flags, ...)
{
	const char *name;
	struct disk *disk = disk_of(path, &name);
	struct disk_file *f;

	if (flags & O_DIRECTORY)
		return FD_DIRECTORY;
	f = disk != NULL ? file_of(disk, name, (flags & O_CREAT) != 0) : NULL;
	if (f == NULL || (!f->exists && !(flags & O_CREAT))) {
		errno = ENOENT;
		return -1;
	}
	if (!f->exists && disk->full) {
		errno = ENOSPC;
		return -1;
	}
	f->exists = true;
	if (flags & O_TRUNC)
		cut_off(f, 0);
	fd_at[next_fd % FD_COUNT] = 0;
	fds[next_fd % FD_COUNT] = f;
	fd_disks[next_fd % FD_COUNT] = disk;
	return FD_BASE + next_fd++ % FD_COUNT;
}

int sim_close(int fd)
{
	if (fd >= FD_BASE)
		fds[fd - FD_BASE] = NULL;
	return 0;
}

ssize_t sim_pread(int fd, void *buf, size_t size, off_t at)
{
	struct disk_file *f = fds[fd - FD_BASE];
	size_t n = (size_t)at < f->size ? f->size - (size_t)at : 0;

	if (n > size)
		n = size;
	if (n > 0)
		memcpy(buf, f->data + at, n);
	return (ssize_t)n;
}

ssize_t sim_pwrite(int fd, const void *buf, size_t size, off_t at)
{
	struct disk_file *f = fds[fd - FD_BASE];
	struct disk *disk = fd_disks[fd - FD_BASE];

	operation(disk);
	if (disk->full && (size_t)at + size > f->size) {
		disk->failed = true;
		errno = ENOSPC;
		return -1;
	}
	put(f, buf, size, (size_t)at);
	return (ssize_t)size;
}

ssize_t sim_read(int fd, void *buf, size_t size)
{
	ssize_t n = sim_pread(fd, buf, size, fd_at[fd - FD_BASE]);

	fd_at[fd - FD_BASE] += n > 0 ? n : 0;
	return n;
}

ssize_t sim_write(int fd, const void *buf, size_t size)
{
	ssize_t n = sim_pwrite(fd, buf, size, fd_at[fd - FD_BASE]);

	fd_at[fd - FD_BASE] += n > 0 ? n : 0;
	return n;
}

int sim_fallocate(int fd, off_t at, off_t size)
{
	(void)at;
	(void)size;
	return fd_disks[fd - FD_BASE]->full ? ENOSPC : 0;
}

int sim_rename(const char *from, const char *to)
{
	const char *name, *new_name;
	struct disk *disk = disk_of(from, &name);
	struct disk_file *f = disk != NULL ? file_of(disk, name, false) : NULL;
	struct disk_file *old;

	if (f == NULL || !f->exists || disk_of(to, &new_name) != disk) {
		errno = ENOENT;
		return -1;
	}
	old = file_of(disk, new_name, false);
	if (old != NULL) {
		settled(old);
		free(old->data);
		memset(old, 0, sizeof(*old));
	}
	memset(f->name, 0, sizeof(f->name));
	strncpy(f->name, new_name, sizeof(f->name) - 1);
	return 0;
}

int sim_fdatasync(int fd)
{
	if (fd == FD_DIRECTORY)
		return 0;
	if (sync_fails(fd_disks[fd - FD_BASE])) {
		errno = EIO;
		return -1;
	}
	settled(fds[fd - FD_BASE]);
	return 0;
}

int sim_unlink(const char *path)
{
	const char *name;
	struct disk *disk = disk_of(path, &name);
	struct disk_file *f = disk != NULL ? file_of(disk, name, false) : NULL;

	if (f == NULL || !f->exists) {
		errno = ENOENT;
		return -1;
	}
	settled(f);
	f->exists = false;
	f->size = 0;
	return 0;
}
