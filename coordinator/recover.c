#include "coordinator/recover.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/sha.h>
#include <raft.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "coordinator/consensus.h"
#include "coordinator/raft_rpc.h"

#define PATH_TEXT 512
#define FORGET	  "log.forget" /* the last of the files that are put aside */
#define ROOM	  (1 << 20)    /* bytes */

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

/* A changed digit in that file would be another incarnation, which all others give way to (SAFETY R18). */
#define CHECK "check "

static uint64_t check_of(const char *text, size_t size)
{
	uint8_t hash[SHA256_DIGEST_LENGTH];
	uint64_t check = 0;

	SHA256((const uint8_t *)text, size, hash);
	for (size_t i = 0; i < sizeof(check); i++)
		check = check << 8 | hash[i];
	return check;
}

static bool check_fits(const char *text)
{
	const char *at = strstr(text, "\n" CHECK);
	uint64_t check;

	return at != NULL && sscanf(at + 1, CHECK "%16" SCNx64, &check) == 1 &&
	       check == check_of(text, (size_t)(at + 1 - text));
}

int recover_identity_write(const char *dir, const struct logdb_identity *id, struct dr_error *err)
{
	char path[PATH_TEXT], fresh[PATH_TEXT], text[256];
	char uuid[2 * LOGDB_UUID + 1];
	size_t size;
	int ret;

	for (size_t i = 0; i < LOGDB_UUID; i++)
		snprintf(uuid + 2 * i, 3, "%02x", id->cluster_uuid[i]);
	snprintf(path, sizeof(path), "%s/member", dir);
	snprintf(fresh, sizeof(fresh), "%s/member.new", dir);
	snprintf(text, sizeof(text),
		 "member %" PRIu64 "\nincarnation %" PRIu64 "\nstandalone %d\ncluster %s\n", id->member,
		 id->incarnation, id->standalone ? 1 : 0, uuid);
	size = strlen(text);
	snprintf(text + size, sizeof(text) - size, CHECK "%016" PRIx64 "\n", check_of(text, size));
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
	if (!check_fits(text) ||
	    sscanf(text, "member %" SCNu64 " incarnation %" SCNu64 " standalone %d cluster %32[0-9a-f]",
		   &id->member, &id->incarnation, &standalone, uuid) != 4 ||
	    strlen(uuid) != 2 * LOGDB_UUID || id->member == 0)
		return dr_error_set(err, DR_ECORRUPT, "%s: does not say which member this is", path);
	id->standalone = standalone != 0;
	for (size_t i = 0; i < LOGDB_UUID; i++)
		sscanf(uuid + 2 * i, "%2hhx", &id->cluster_uuid[i]);
	return 1;
}

int recover_distrust(const char *dir, const char *why, struct dr_error *err)
{
	char path[PATH_TEXT];

	snprintf(path, sizeof(path), "%s/" LOGDB_DISTRUST, dir);
	return write_durably(path, why, err);
}

int recover_set_aside(const char *dir, struct dr_error *err)
{
	/* In this order: a crash in between must leave what is refused again, and never an old WAL beside a
	 * new database, which SQLite would take for its own. */
	static const char *const files[] = {"log.db-wal", "log.db-shm", "log.db", LOGDB_DISTRUST,
					    "superseded", "log.mark",	FORGET};
	char from[PATH_TEXT], to[PATH_TEXT + 8];

	for (size_t i = 0; i < DR_ARRAY_SIZE(files); i++) {
		snprintf(from, sizeof(from), "%s/%s", dir, files[i]);
		snprintf(to, sizeof(to), "%s.aside", from);
		/* What is not there any more was put aside by an earlier call that was interrupted. */
		if (rename(from, to) != 0 && errno != ENOENT)
			return dr_error_errno(err, DR_EIO, errno, "%s", from);
	}
	return sync_dir(dir, err);
}

int recover_forget_write(const char *dir, struct dr_error *err)
{
	char path[PATH_TEXT];

	snprintf(path, sizeof(path), "%s/" FORGET, dir);
	return write_durably(path, "this member was removed\n", err);
}

int recover_forget_run(const char *dir, struct dr_error *err)
{
	char path[PATH_TEXT];

	snprintf(path, sizeof(path), "%s/" FORGET, dir);
	{
		DR_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (fd < 0)
			return errno == ENOENT ? 0 : dr_error_errno(err, DR_EIO, errno, "%s", path);
	}
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

/* --- the only member --------------------------------------------------------------- */

static int only_self(struct raft_configuration *conf, const struct logdb_identity *id, const char *node)
{
	raft_configuration_init(conf);
	return raft_configuration_add(conf, id->member, node, RAFT_VOTER);
}

static int self_and_spare(struct raft_configuration *conf, const struct logdb_identity *id, const char *node,
			  const struct recover_alone *spare)
{
	int rv = only_self(conf, id, node);

	if (rv != 0 || spare == NULL)
		return rv;
	return raft_configuration_add(conf, spare->member, spare->node, RAFT_SPARE);
}

static int end(struct logdb *log, int ret, struct dr_error *err)
{
	if (ret == 0)
		return logdb_commit(log, err);
	logdb_rollback(log);
	return ret;
}

static int only_voter(struct logdb *log, const struct logdb_identity *id, const char *node,
		      const struct recover_alone *spare, struct dr_error *err)
{
	struct logdb_entry entry = {.index = logdb_last(log) + 1, .type = RAFT_CHANGE};
	struct raft_configuration conf;
	struct raft_buffer buf = {.base = NULL};
	uint64_t term, vote;
	int ret = logdb_vote_get(log, &term, &vote, err);

	if (ret < 0)
		return ret;
	entry.term = term + RECOVER_TERMS_AHEAD;
	consensus_use_heap();
	if (self_and_spare(&conf, id, node, spare) != 0 || raft_configuration_encode(&conf, &buf) != 0) {
		raft_configuration_close(&conf);
		return dr_error_set(err, DR_ENOMEM, "out of memory");
	}
	entry.data = buf.base;
	entry.size = buf.len;
	ret = logdb_begin(log, err);
	if (ret == 0)
		ret = logdb_append(log, &entry, err);
	if (ret == 0)
		ret = logdb_vote_set(log, entry.term, 0, err);
	if (ret == 0)
		ret = logdb_identity_put(log, id, err);
	ret = end(log, ret, err);
	raft_free(buf.base);
	raft_configuration_close(&conf);
	return ret;
}

int recover_only_member(struct logdb *log, const struct logdb_identity *id, const char *node,
			struct dr_error *err)
{
	return only_voter(log, id, node, NULL, err);
}

int recover_install(struct logdb *log, const struct logdb_identity *id, const char *node,
		    struct logdb_snapshot *snapshot, struct dr_error *err)
{
	struct raft_configuration conf;
	uint8_t *bytes;
	int ret;

	if (only_self(&conf, id, node) != 0 ||
	    (bytes = raft_rpc_pack_conf(&conf, &snapshot->conf_size)) == NULL) {
		raft_configuration_close(&conf);
		return dr_error_set(err, DR_ENOMEM, "out of memory");
	}
	snapshot->conf = bytes;
	snapshot->conf_index = snapshot->index;
	ret = logdb_begin(log, err);
	if (ret == 0)
		ret = logdb_snapshot_put(log, snapshot, 0, err);
	if (ret == 0)
		ret = logdb_vote_set(log, snapshot->term, 0, err);
	if (ret == 0)
		ret = logdb_identity_put(log, id, err);
	ret = end(log, ret, err);
	free(bytes);
	raft_configuration_close(&conf);
	return ret;
}

int recover_force_write(const char *dir, uint64_t incarnation, struct dr_error *err)
{
	char path[PATH_TEXT], fresh[PATH_TEXT], text[64];
	int ret;

	snprintf(path, sizeof(path), "%s/force", dir);
	snprintf(fresh, sizeof(fresh), "%s/force.new", dir);
	snprintf(text, sizeof(text), "incarnation %" PRIu64 "\n", incarnation);
	ret = write_durably(fresh, text, err);
	if (ret < 0)
		return ret;
	if (rename(fresh, path) != 0)
		return dr_error_errno(err, DR_EIO, errno, "%s", path);
	return sync_dir(dir, err);
}

int recover_force_run(const char *dir, struct logdb *log, struct logdb_identity *id, const char *node,
		      struct dr_error *err)
{
	char path[PATH_TEXT], text[64] = "";
	uint64_t incarnation;
	int ret = 0;

	snprintf(path, sizeof(path), "%s/force", dir);
	{
		DR_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (fd < 0 && errno == ENOENT)
			return 0;
		if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
			return dr_error_errno(err, DR_EIO, errno, "%s", path);
	}
	if (sscanf(text, "incarnation %" SCNu64, &incarnation) != 1)
		return dr_error_set(err, DR_ECORRUPT, "%s: names no incarnation", path);
	/* Done already, if the last start ended behind its transaction. */
	if (id->incarnation < incarnation) {
		id->incarnation = incarnation;
		ret = recover_only_member(log, id, node, err);
	}
	if (ret == 0)
		ret = recover_identity_write(dir, id, err);
	if (ret == 0 && unlink(path) != 0)
		ret = dr_error_errno(err, DR_EIO, errno, "%s", path);
	return ret;
}

/* --- one of two -------------------------------------------------------------------- */

int recover_alone_write(const char *dir, const struct recover_alone *a, struct dr_error *err)
{
	char path[PATH_TEXT], fresh[PATH_TEXT], text[256];
	int ret;

	snprintf(path, sizeof(path), "%s/alone", dir);
	snprintf(fresh, sizeof(fresh), "%s/alone.new", dir);
	snprintf(text, sizeof(text), "member %" PRIu64 "\nnode %s\nterm %" PRIu64 "\nutc_us %" PRIu64 "\n",
		 a->member, a->node, a->term, a->utc_us);
	ret = write_durably(fresh, text, err);
	if (ret < 0)
		return ret;
	if (rename(fresh, path) != 0)
		return dr_error_errno(err, DR_EIO, errno, "%s", path);
	return sync_dir(dir, err);
}

int recover_alone_run(const char *dir, struct logdb *log, const struct logdb_identity *id, const char *node,
		      struct recover_alone *a, struct dr_error *err)
{
	char path[PATH_TEXT], text[256] = "";
	uint64_t term, vote;

	snprintf(path, sizeof(path), "%s/alone", dir);
	{
		DR_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (fd < 0 && errno == ENOENT)
			return 0;
		if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
			return dr_error_errno(err, DR_EIO, errno, "%s", path);
	}
	if (sscanf(text, "member %" SCNu64 " node %63s term %" SCNu64 " utc_us %" SCNu64, &a->member, a->node,
		   &a->term, &a->utc_us) != 4)
		return dr_error_set(err, DR_ECORRUPT, "%s: does not say who is dead", path);
	if (logdb_vote_get(log, &term, &vote, err) < 0)
		return -(int)err->code;
	/* Done already, if the last start ended behind its transaction. */
	if (term < a->term + RECOVER_TERMS_AHEAD && only_voter(log, id, node, a, err) < 0)
		return -(int)err->code;
	if (unlink(path) != 0)
		return dr_error_errno(err, DR_EIO, errno, "%s", path);
	return 1;
}

/* --- incarnations ------------------------------------------------------------------ */

#define COUNT_SHIFT 48
#define RANDOM_BITS 8

uint64_t recover_incarnation_count(uint64_t incarnation)
{
	return incarnation >> COUNT_SHIFT != 0 ? incarnation >> COUNT_SHIFT : incarnation;
}

uint64_t recover_next_incarnation(uint64_t old, uint64_t utc_us, uint64_t random)
{
	uint64_t second = utc_us / 1000000 & ((1ull << (COUNT_SHIFT - RANDOM_BITS)) - 1);

	return (recover_incarnation_count(old) + 1) << COUNT_SHIFT | second << RANDOM_BITS |
	       (random & ((1ull << RANDOM_BITS) - 1));
}

int recover_superseded_write(const char *dir, uint64_t incarnation, struct dr_error *err)
{
	char path[PATH_TEXT], text[64];

	snprintf(path, sizeof(path), "%s/superseded", dir);
	snprintf(text, sizeof(text), "incarnation %" PRIu64 "\n", incarnation);
	return write_durably(path, text, err);
}

uint64_t recover_superseded_read(const char *dir)
{
	char path[PATH_TEXT], text[64] = "";
	uint64_t incarnation = 0;

	snprintf(path, sizeof(path), "%s/superseded", dir);
	{
		DR_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);

		if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
			return 0;
	}
	return sscanf(text, "incarnation %" SCNu64, &incarnation) == 1 ? incarnation : 0;
}
