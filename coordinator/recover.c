#include "coordinator/recover.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"

#define PATH_TEXT 512
#define ROOM	  (1 << 20) /* bytes */

static int write_durably(const char *path, const char *text, struct dr_error *err)
{
	DR_AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	size_t size = strlen(text);

	if (fd < 0 || write(fd, text, size) != (ssize_t)size || fsync(fd) != 0)
		return dr_error_errno(err, errno == ENOSPC || errno == EROFS ? DR_ENOSPC : DR_EIO, errno,
				      "%s", path);
	return 0;
}

static int sync_dir(const char *dir, struct dr_error *err)
{
	DR_AUTO_FD int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0 || fsync(fd) != 0)
		return dr_error_errno(err, DR_EIO, errno, "%s", dir);
	return 0;
}

int recover_identity_write(const char *dir, const struct logdb_identity *id, struct dr_error *err)
{
	char path[PATH_TEXT], fresh[PATH_TEXT], text[256];
	char uuid[2 * LOGDB_UUID + 1];
	int ret;

	for (size_t i = 0; i < LOGDB_UUID; i++)
		snprintf(uuid + 2 * i, 3, "%02x", id->cluster_uuid[i]);
	snprintf(path, sizeof(path), "%s/member", dir);
	snprintf(fresh, sizeof(fresh), "%s/member.new", dir);
	snprintf(text, sizeof(text),
		 "member %" PRIu64 "\nincarnation %" PRIu64 "\nstandalone %d\ncluster %s\n", id->member,
		 id->incarnation, id->standalone ? 1 : 0, uuid);
	ret = write_durably(fresh, text, err);
	if (ret < 0)
		return ret;
	if (rename(fresh, path) != 0)
		return dr_error_errno(err, DR_EIO, errno, "%s", path);
	return sync_dir(dir, err);
}

int recover_identity_read(const char *dir, struct logdb_identity *id, struct dr_error *err)
{
	char path[PATH_TEXT], text[256] = "", uuid[2 * LOGDB_UUID + 1];
	int standalone;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/member", dir);
	{
		DR_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (fd < 0 && errno == ENOENT)
			return 0;
		n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	}
	if (n < 0)
		return dr_error_errno(err, DR_EIO, errno, "%s", path);
	memset(id, 0, sizeof(*id));
	if (sscanf(text, "member %" SCNu64 " incarnation %" SCNu64 " standalone %d cluster %32[0-9a-f]",
		   &id->member, &id->incarnation, &standalone, uuid) != 4 ||
	    strlen(uuid) != 2 * LOGDB_UUID || id->member == 0)
		return dr_error_set(err, DR_ECORRUPT, "%s: does not say which member this is", path);
	id->standalone = standalone != 0;
	for (size_t i = 0; i < LOGDB_UUID; i++)
		sscanf(uuid + 2 * i, "%2hhx", &id->cluster_uuid[i]);
	return 1;
}

void recover_distrust(const char *dir, const char *why)
{
	struct dr_error err = DR_ERROR_INIT;
	char path[PATH_TEXT];

	snprintf(path, sizeof(path), "%s/" LOGDB_DISTRUST, dir);
	if (write_durably(path, why, &err) < 0)
		log_error("%s", err.text);
}

int recover_set_aside(const char *dir, struct dr_error *err)
{
	/* In this order: a crash in between must leave what is refused again, and never an old WAL beside a
	 * new database, which SQLite would take for its own. */
	static const char *const files[] = {"log.db-wal", "log.db-shm", "log.db", LOGDB_DISTRUST, "log.mark"};
	char from[PATH_TEXT], to[PATH_TEXT + 8];

	for (size_t i = 0; i < DR_ARRAY_SIZE(files); i++) {
		snprintf(from, sizeof(from), "%s/%s", dir, files[i]);
		snprintf(to, sizeof(to), "%s.aside", from);
		if (unlink(to) != 0 && errno != ENOENT)
			return dr_error_errno(err, DR_EIO, errno, "%s", to);
		if (rename(from, to) != 0 && errno != ENOENT)
			return dr_error_errno(err, DR_EIO, errno, "%s", from);
	}
	return sync_dir(dir, err);
}

int recover_forget(const char *dir, struct dr_error *err)
{
	char path[PATH_TEXT];

	snprintf(path, sizeof(path), "%s/member", dir);
	if (unlink(path) != 0 && errno != ENOENT)
		return dr_error_errno(err, DR_EIO, errno, "%s", path);
	return recover_set_aside(dir, err);
}

int recover_room(const char *dir, struct dr_error *err)
{
	char path[PATH_TEXT];
	int failed;

	snprintf(path, sizeof(path), "%s/room.test", dir);
	{
		DR_AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

		if (fd < 0)
			return dr_error_errno(err, errno == ENOSPC || errno == EROFS ? DR_ENOSPC : DR_EIO,
					      errno, "%s", path);
		failed = posix_fallocate(fd, 0, ROOM);
	}
	unlink(path);
	if (failed != 0)
		return dr_error_errno(err, DR_ENOSPC, failed, "%s: the disk of the data directory is full",
				      dir);
	return 0;
}
