/*
 * drover cluster backup: the state as one file, in pieces that fit a frame.
 * drover cluster restore: a fresh coordinator becomes the only member of a new incarnation of
 * the cluster that the file is of (SAFETY R18). Its log begins far behind the backup's, so that no id and
 * no term of what the backup does not know is ever given again (R6, R7); leader.c then begins the audit.
 */
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "coordinator/lookup.h"
#include "coordinator/recover.h"
#include "coordinator/server.h"

#define FORMAT	   1
#define PIECE	   (4u << 20)
#define BACKUP_MAX (1u << 30)
#define INDEX_AHEAD                                                                                          \
	(1ull << 40) /* more commands than a cluster ever commits between a backup and a restore */
#define INDEX_MAX (1ull << 61)

struct backup {
	uint8_t *bytes;
	size_t size, have;
};

void backup_free(struct server *s)
{
	if (s->backup != NULL)
		free(s->backup->bytes);
	free(s->backup);
	s->backup = NULL;
}

static int make(struct server *s, struct dr_error *err)
{
	Drover__Backup file = DROVER__BACKUP__INIT;
	DR_AUTO_FREE uint8_t *state = NULL;
	uint8_t hash[SHA256_DIGEST_LENGTH];
	char name[LOOKUP_NAME];
	size_t size = 0;
	int ret = db_serialize(s->db, &state, &size, err);

	if (ret < 0)
		return ret;
	lookup_cluster(s->db, name);
	SHA256(state, size, hash);
	file.format = FORMAT;
	file.cluster = name;
	file.cluster_uuid.data = s->identity.cluster_uuid;
	file.cluster_uuid.len = LOGDB_UUID;
	file.incarnation = s->identity.incarnation;
	file.index = consensus_applied(s->consensus);
	file.term = consensus_term(s->consensus);
	file.utc_us = env_utc_us(s->env);
	file.state.data = state;
	file.state.len = size;
	file.sha256.data = hash;
	file.sha256.len = sizeof(hash);
	backup_free(s);
	s->backup = calloc(1, sizeof(*s->backup));
	if (s->backup == NULL)
		return dr_error_set(err, DR_ENOMEM, "no memory for a backup");
	s->backup->size = drover__backup__get_packed_size(&file);
	s->backup->bytes = malloc(s->backup->size);
	if (s->backup->bytes == NULL) {
		backup_free(s);
		return dr_error_set(err, DR_ENOMEM, "no memory for a backup of %zu bytes", size);
	}
	drover__backup__pack(&file, s->backup->bytes);
	return 0;
}

int backup_piece(struct server *s, uint64_t offset, Drover__Response *answer, struct dr_error *err)
{
	int ret = offset == 0 ? make(s, err) : 0;
	size_t n;

	if (ret < 0)
		return ret;
	if (s->backup == NULL || offset >= s->backup->size)
		return dr_error_set(err, DR_EFAILED,
				    "the backup was interrupted by another one: begin again");
	n = s->backup->size - offset < PIECE ? s->backup->size - offset : PIECE;
	answer->backup.data = malloc(n);
	if (answer->backup.data == NULL)
		return dr_error_set(err, DR_ENOMEM, "no memory");
	memcpy(answer->backup.data, s->backup->bytes + offset, n);
	answer->backup.len = n;
	answer->backup_size = s->backup->size;
	if (offset + n == s->backup->size)
		backup_free(s);
	return 0;
}

/* --- restoring --------------------------------------------------------------------- */

static int check(const Drover__Backup *file, struct dr_error *err)
{
	uint8_t hash[SHA256_DIGEST_LENGTH];

	if (file == NULL || file->format == 0 || file->cluster_uuid.len != LOGDB_UUID)
		return dr_error_set(err, DR_EUSAGE, "this is no file of drover cluster backup");
	if (file->format > FORMAT)
		return dr_error_set(err, DR_EUSAGE, "the backup is of a newer version of Drover (format %u)",
				    file->format);
	if (file->index > INDEX_MAX || file->term > INDEX_MAX)
		return dr_error_set(err, DR_EUSAGE, "the backup names an impossible index or term");
	SHA256(file->state.data, file->state.len, hash);
	if (file->sha256.len != sizeof(hash) || memcmp(hash, file->sha256.data, sizeof(hash)) != 0)
		return dr_error_set(err, DR_EUSAGE, "the backup is damaged: its checksum does not fit");
	return 0;
}

static int install(struct server *s, const Drover__Backup *file, bool standalone, struct dr_error *err)
{
	struct logdb_identity id = {.member = server_random_id(s),
				    .standalone = standalone,
				    .incarnation = recover_next_incarnation(
					    file->incarnation, env_utc_us(s->env), server_random_id(s))};
	struct logdb_snapshot snapshot = {.index = file->index + INDEX_AHEAD,
					  .term = file->term + RECOVER_TERMS_AHEAD,
					  .data = file->state.data,
					  .size = file->state.len};
	int ret;

	memcpy(id.cluster_uuid, file->cluster_uuid.data, LOGDB_UUID);
	s->identity = id;
	ret = recover_install(s->log, &id, s->conf.name, &snapshot, err);
	if (ret == 0)
		ret = recover_identity_write(s->conf.data_dir, &id, err);
	if (ret == 0)
		ret = server_start_consensus(s, false, err);
	return ret;
}

static int whole(struct server *s, bool standalone, struct dr_error *err)
{
	Drover__Backup *file = drover__backup__unpack(NULL, s->backup->size, s->backup->bytes);
	int ret = check(file, err);

	if (ret == 0) {
		ret = install(s, file, standalone, err);
		if (ret < 0) {
			struct dr_error again = DR_ERROR_INIT;

			/* Half a restore is none: the next try finds a fresh coordinator. */
			if (recover_forget_write(s->conf.data_dir, &again) < 0)
				log_error("%s", again.text);
			server_fatal(s, err->code, err->text);
			s->restart = true;
		}
	}
	if (file != NULL)
		drover__backup__free_unpacked(file, NULL);
	backup_free(s);
	return ret;
}

int backup_restore_piece(struct server *s, const Drover__ClusterInit *init, struct dr_error *err)
{
	const ProtobufCBinaryData *piece = &init->restore;

	if (init->restore_size == 0 || init->restore_size > BACKUP_MAX)
		return dr_error_set(err, DR_EUSAGE, "a backup of %llu bytes can't be",
				    (unsigned long long)init->restore_size);
	if (init->restore_offset == 0) {
		backup_free(s);
		s->backup = calloc(1, sizeof(*s->backup));
		if (s->backup == NULL || (s->backup->bytes = malloc(init->restore_size)) == NULL) {
			backup_free(s);
			return dr_error_set(err, DR_ENOMEM, "no memory for the backup");
		}
		s->backup->size = init->restore_size;
	}
	if (s->backup == NULL || s->backup->size != init->restore_size ||
	    s->backup->have != init->restore_offset || piece->len == 0 ||
	    piece->len > s->backup->size - s->backup->have)
		return dr_error_set(err, DR_EFAILED,
				    "the restore was interrupted by another one: begin again");
	memcpy(s->backup->bytes + s->backup->have, piece->data, piece->len);
	s->backup->have += piece->len;
	return s->backup->have == s->backup->size ? whole(s, init->standalone, err) : 0;
}
