#include "agent/nonce.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "agent/storage.h"
#include "common/cleanup.h"

#define PATH_SIZE 1024

/* A disk that nobody writes may be another copy. */
static bool needs_proof(const Drover__VmDisk *d)
{
	return !d->readonly && !d->cdrom;
}

/* Directory of a disk's file, following symbolic links: the nonce lies where the bytes are. */
static int nonce_path(const Drover__MoveOrder *o, size_t i, char *path, size_t size)
{
	DR_AUTO_FREE char *real = realpath(o->spec->disks[i]->path, NULL);
	char *slash = real != NULL ? strrchr(real, '/') : NULL;
	int n;

	if (slash == NULL)
		return -DR_ENOENT;
	*slash = '\0';
	n = snprintf(path, size, "%s/.drover-nonce-%llu-%u-%zu", real, (unsigned long long)o->move,
		     o->attempt, i);
	return n > 0 && (size_t)n < size ? 0 : -DR_EFAILED;
}

static int read_line(const char *path, char *text, size_t size)
{
	DR_AUTO_FILE FILE *f = fopen(path, "re");

	if (f == NULL || fgets(text, (int)size, f) == NULL)
		return -DR_ENOENT;
	text[strcspn(text, "\n")] = '\0';
	return text[0] != '\0' ? 0 : -DR_ENOENT;
}

/* The kernel's world-wide id of a block device. */
static int wwid_of(const char *disk, char *wwid, size_t size)
{
	static const char *const names[] = {"wwid", "device/wwid", "dm/uuid", "device/serial"};
	char path[128];
	struct stat st;

	if (stat(disk, &st) != 0)
		return -DR_ENOENT;
	for (size_t i = 0; i < DR_ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s", major(st.st_rdev), minor(st.st_rdev),
			 names[i]);
		if (read_line(path, wwid, size) == 0)
			return 0;
	}
	return -DR_ENOENT;
}

static bool is_block(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISBLK(st.st_mode);
}

static int write_nonce(const char *path, const uint8_t nonce[NONCE_SIZE], struct dr_error *err)
{
	DR_AUTO_FD int fd = -1;

	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, nonce, NONCE_SIZE) != NONCE_SIZE || fsync(fd) != 0)
		return dr_error_errno(err, DR_EIO, errno, "%s", path);
	return 0;
}

static int prove(const Drover__MoveOrder *o, size_t i, struct env *env, Drover__DiskProof *p,
		 struct dr_error *err)
{
	const char *disk = o->spec->disks[i]->path;
	char text[PATH_SIZE];

	p->path = strdup(disk);
	if (is_block(disk)) {
		if (wwid_of(disk, text, sizeof(text)) != 0)
			return dr_error_set(
				err, DR_EREFUSED,
				"disk %s has no world-wide id: that it is the same storage on both hosts "
				"cannot be proved",
				disk);
		p->wwid = strdup(text);
		return 0;
	}
	if (nonce_path(o, i, text, sizeof(text)) != 0)
		return dr_error_set(err, DR_EREFUSED, "disk %s does not exist on this host", disk);
	p->nonce.data = malloc(NONCE_SIZE);
	if (p->nonce.data == NULL)
		return dr_error_set(err, DR_ENOMEM, "out of memory");
	p->nonce.len = NONCE_SIZE;
	env_random(env, p->nonce.data, NONCE_SIZE);
	p->nonce_file = strdup(strrchr(text, '/') + 1);
	return write_nonce(text, p->nonce.data, err);
}

void nonce_proofs_free(Drover__DiskProof **proofs, size_t n)
{
	for (size_t i = 0; proofs != NULL && i < n; i++)
		drover__disk_proof__free_unpacked(proofs[i], NULL);
	free(proofs);
}

int nonces_write(const Drover__MoveOrder *o, struct env *env, Drover__DiskProof ***proofs, size_t *n,
		 struct dr_error *err)
{
	size_t n_disks = o->spec != NULL ? o->spec->n_disks : 0;
	Drover__DiskProof **list = calloc(n_disks + 1, sizeof(*list));
	size_t k = 0;

	*n = 0;
	*proofs = NULL;
	for (size_t i = 0; list != NULL && i < n_disks; i++) {
		Drover__DiskProof *p;
		int rc;

		if (!needs_proof(o->spec->disks[i]))
			continue;
		storage_note_disk(i);
		p = calloc(1, sizeof(*p));
		if (p == NULL)
			break;
		drover__disk_proof__init(p);
		list[k++] = p;
		rc = prove(o, i, env, p, err);
		if (rc != 0) {
			nonce_proofs_free(list, k);
			nonces_remove(o);
			return rc;
		}
	}
	if (list == NULL)
		return dr_error_set(err, DR_ENOMEM, "out of memory");
	*proofs = list;
	*n = k;
	return 0;
}

static int check_one(const Drover__MoveOrder *o, size_t i, const Drover__DiskProof *p, struct dr_error *err)
{
	const char *disk = o->spec->disks[i]->path;
	char text[PATH_SIZE];
	uint8_t found[NONCE_SIZE + 1];
	DR_AUTO_FD int fd = -1;

	if (access(disk, F_OK) != 0)
		return dr_error_set(err, DR_EREFUSED, "disk %s does not exist on %s", disk, o->dst_node);
	if (p->wwid != NULL && p->wwid[0] != '\0') {
		if (is_block(disk) && wwid_of(disk, text, sizeof(text)) == 0 && strcmp(text, p->wwid) == 0)
			return 0;
	} else if (nonce_path(o, i, text, sizeof(text)) == 0) {
		fd = open(text, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0 && p->nonce.len == NONCE_SIZE && read(fd, found, sizeof(found)) == NONCE_SIZE &&
		    memcmp(found, p->nonce.data, NONCE_SIZE) == 0)
			return 0;
	}
	return dr_error_set(err, DR_EREFUSED, "disk %s is not the same storage on both hosts (%s and %s)",
			    disk, o->src_node, o->dst_node);
}

int nonces_check(const Drover__MoveOrder *o, struct dr_error *err)
{
	for (size_t i = 0; o->spec != NULL && i < o->spec->n_disks; i++) {
		const Drover__DiskProof *proof = NULL;
		int rc;

		if (!needs_proof(o->spec->disks[i]))
			continue;
		storage_note_disk(i);
		for (size_t k = 0; k < o->n_proofs; k++)
			if (strcmp(o->proofs[k]->path, o->spec->disks[i]->path) == 0)
				proof = o->proofs[k];
		if (proof == NULL)
			return dr_error_set(err, DR_EREFUSED, "the source gave no proof for disk %s",
					    o->spec->disks[i]->path);
		rc = check_one(o, i, proof, err);
		if (rc != 0)
			return rc;
	}
	return 0;
}

int nonces_remove(const Drover__MoveOrder *o)
{
	char path[PATH_SIZE];
	int rc = 0;

	for (size_t i = 0; o->spec != NULL && i < o->spec->n_disks; i++) {
		storage_note_disk(i);
		if (!needs_proof(o->spec->disks[i]) || nonce_path(o, i, path, sizeof(path)) != 0)
			continue;
		if (unlink(path) != 0 && errno != ENOENT)
			rc = -DR_EIO;
	}
	return rc;
}
