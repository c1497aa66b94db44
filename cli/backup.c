#include "cli/backup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/call.h"
#include "cli/json.h"
#include "cli/verbs.h"

#define PIECE (4u << 20)

/* One piece there or back; resp is the caller's. A refusal becomes the error. */
static int piece(struct cli *cli, Drover__Request *req, Drover__Response **resp, struct dr_error *err)
{
	uint64_t timeout_ms = cli->timeout_ms != 0 ? cli->timeout_ms : CLI_TIMEOUT_MS;
	int rc = call_request(cli, req, false, call_deadline(cli, timeout_ms), resp, err);

	if (rc == 0 && (*resp)->exit != 0) {
		rc = dr_error_set(err, (enum dr_err)(*resp)->exit, "%s", (*resp)->message);
		drover__response__free_unpacked(*resp, NULL);
		*resp = NULL;
	}
	return rc;
}

static int fetch(struct cli *cli, int fd, const char *path, uint64_t *size, bool *stale, struct dr_error *err)
{
	uint64_t offset = 0, total = 1;
	int rc = 0;

	while (rc == 0 && offset < total) {
		Drover__Request req = DROVER__REQUEST__INIT;
		Drover__ClusterBackup backup = DROVER__CLUSTER_BACKUP__INIT;
		Drover__Response *resp = NULL;

		backup.offset = offset;
		req.verb_case = DROVER__REQUEST__VERB_CLUSTER_BACKUP;
		req.cluster_backup = &backup;
		rc = piece(cli, &req, &resp, err);
		if (rc < 0)
			return rc;
		total = resp->backup_size;
		*stale = resp->stale;
		if (resp->backup.len == 0 || resp->backup.len > total - offset)
			rc = dr_error_set(err, DR_EFAILED,
					  "the coordinator's answer is no piece of a backup");
		else if (write(fd, resp->backup.data, resp->backup.len) != (ssize_t)resp->backup.len)
			rc = dr_error_errno(err, DR_EFAILED, errno, "cannot write %s", path);
		offset += resp->backup.len;
		drover__response__free_unpacked(resp, NULL);
	}
	*size = total;
	return rc;
}

/* Beside the file and renamed: what was there before stays until the new one is whole. */
int backup_run(struct cli *cli, const struct cli_parsed *p, struct dr_error *err)
{
	const char *path = cli_arg(p, 0);
	const char *beside = arena_printf(&cli->arena, "%s.new", path);
	uint64_t size = 0;
	bool stale = false;
	DR_AUTO_FD int fd = -1;
	int rc = call_addresses(cli, err);

	if (rc < 0)
		return rc;
	unlink(beside);
	fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return dr_error_errno(err, DR_EFAILED, errno, "cannot write %s", beside);
	rc = fetch(cli, fd, beside, &size, &stale, err);
	if (rc == 0 && fsync(fd) < 0)
		rc = dr_error_errno(err, DR_EFAILED, errno, "cannot write %s", beside);
	if (rc == 0 && rename(beside, path) < 0)
		rc = dr_error_errno(err, DR_EFAILED, errno, "cannot write %s", path);
	if (rc < 0) {
		unlink(beside);
		return rc;
	}
	if (cli->json)
		cli_print_json(cli, json_pack("{s:s,s:I,s:b}", "file", path, "bytes", (json_int_t)size,
					      "stale", stale));
	else
		fprintf(cli->out, "wrote %s, %llu bytes%s\n", path, (unsigned long long)size,
			stale ? "; this coordinator is not in touch with the leader: the state may be old"
			      : "");
	return 0;
}

static int send_file(struct cli *cli, int fd, uint64_t size, bool standalone, const char *path,
		     struct dr_error *err)
{
	uint8_t *buf = arena_alloc(&cli->arena, PIECE);
	uint64_t offset = 0;
	int rc = 0;

	while (rc == 0 && offset < size) {
		Drover__Request req = DROVER__REQUEST__INIT;
		Drover__ClusterInit init = DROVER__CLUSTER_INIT__INIT;
		Drover__Response *resp = NULL;
		ssize_t n = read(fd, buf, PIECE);

		if (n <= 0)
			return dr_error_errno(err, DR_EFAILED, n < 0 ? errno : EIO, "cannot read %s", path);
		init.standalone = standalone;
		init.restore.data = buf;
		init.restore.len = (size_t)n;
		init.restore_offset = offset;
		init.restore_size = size;
		req.verb_case = DROVER__REQUEST__VERB_CLUSTER_INIT;
		req.cluster_init = &init;
		rc = piece(cli, &req, &resp, err);
		if (rc == 0)
			drover__response__free_unpacked(resp, NULL);
		offset += (uint64_t)n;
	}
	return rc;
}

int restore_run(struct cli *cli, const struct cli_parsed *p, struct dr_error *err)
{
	const char *path = cli_arg(p, 0);
	bool dry = cli_flag(p, "dry-run");
	DR_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	int rc;

	if (fd < 0 || fstat(fd, &st) < 0)
		return dr_error_errno(err, DR_EFAILED, errno, "cannot read %s", path);
	if (!S_ISREG(st.st_mode) || st.st_size == 0)
		return dr_error_set(err, DR_EUSAGE, "%s is no file of drover cluster backup", path);
	rc = call_addresses(cli, err);
	if (rc == 0 && !dry)
		rc = send_file(cli, fd, (uint64_t)st.st_size, cli_flag(p, "standalone"), path, err);
	if (rc < 0)
		return rc;
	if (cli->json)
		cli_print_json(cli, json_pack("{s:b}", "changed", !dry));
	else
		fprintf(cli->out,
			dry ? "would restore %s\n"
			    : "restored %s: nothing is started or moved until every host has reported "
			      "(drover event list)\n",
			path);
	return 0;
}
