/* log.db's meta rows: who this member is, its term and its vote. Each has a checksum: a changed bit in them
 * is another member, another incarnation, or a second vote in one term (SAFETY R15, R18). */
#include <endian.h>
#include <openssl/sha.h>
#include <stddef.h>
#include <string.h>

#include "coordinator/logdb_private.h"

struct who {
	uint64_t member, standalone, incarnation, replaces; /* big endian */
	uint8_t cluster_uuid[LOGDB_UUID];
	uint8_t hash[LOGDB_CHAIN];
};

static void who_hash(const struct who *w, uint8_t hash[LOGDB_CHAIN])
{
	SHA256((const uint8_t *)w, offsetof(struct who, hash), hash);
}

/* A log of before it had one row and a checksum. */
static int old_identity(struct logdb *log, struct who *w, struct dr_error *err)
{
	w->incarnation = htobe64(1);
	if (logdb_meta_get(log, "member", &w->member, sizeof(w->member), err) < 0 ||
	    logdb_meta_get(log, "standalone", &w->standalone, sizeof(w->standalone), err) < 0 ||
	    logdb_meta_get(log, "cluster", w->cluster_uuid, sizeof(w->cluster_uuid), err) < 0 ||
	    logdb_meta_get(log, "incarnation", &w->incarnation, sizeof(w->incarnation), err) < 0 ||
	    logdb_meta_get(log, "replaces", &w->replaces, sizeof(w->replaces), err) < 0)
		return -(int)err->code;
	return 0;
}

int logdb_identity_get(struct logdb *log, struct logdb_identity *id, struct dr_error *err)
{
	struct who w = {.member = 0};
	uint8_t hash[LOGDB_CHAIN];
	int ret = logdb_meta_get(log, "who", &w, sizeof(w), err);

	memset(id, 0, sizeof(*id));
	if (ret == 1) {
		who_hash(&w, hash);
		if (memcmp(hash, w.hash, sizeof(hash)) != 0)
			return dr_error_set(err, DR_ECORRUPT,
					    "log.db: who this member is fails its checksum");
	} else if (ret == 0) {
		ret = old_identity(log, &w, err);
	}
	if (ret < 0)
		return ret;
	id->member = be64toh(w.member);
	id->incarnation = be64toh(w.incarnation);
	id->replaces = be64toh(w.replaces);
	id->standalone = w.standalone != 0;
	memcpy(id->cluster_uuid, w.cluster_uuid, LOGDB_UUID);
	return 0;
}

int logdb_identity_put(struct logdb *log, const struct logdb_identity *id, struct dr_error *err)
{
	struct who w = {.member = htobe64(id->member),
			.standalone = htobe64((uint64_t)id->standalone),
			.incarnation = htobe64(id->incarnation),
			.replaces = htobe64(id->replaces)};

	memcpy(w.cluster_uuid, id->cluster_uuid, LOGDB_UUID);
	who_hash(&w, w.hash);
	return logdb_meta_set(log, "who", &w, sizeof(w), err);
}

int logdb_identity_set(struct logdb *log, const struct logdb_identity *id, struct dr_error *err)
{
	int ret = logdb_begin(log, err);

	if (ret < 0)
		return ret;
	ret = logdb_identity_put(log, id, err);
	if (ret < 0) {
		logdb_rollback(log);
		return ret;
	}
	return logdb_commit(log, err);
}

struct ballot {
	uint64_t term, vote; /* big endian */
	uint8_t hash[LOGDB_CHAIN];
};

static void ballot_hash(const struct ballot *b, uint8_t hash[LOGDB_CHAIN])
{
	SHA256((const uint8_t *)b, offsetof(struct ballot, hash), hash);
}

int logdb_vote_get(struct logdb *log, uint64_t *term, uint64_t *vote, struct dr_error *err)
{
	struct ballot b = {.term = 0};
	uint8_t hash[LOGDB_CHAIN];
	int ret = logdb_meta_get(log, "ballot", &b, sizeof(b), err);

	if (ret == 1) {
		ballot_hash(&b, hash);
		if (memcmp(hash, b.hash, sizeof(hash)) != 0)
			return dr_error_set(err, DR_ECORRUPT, "log.db: term and vote fail their checksum");
	} else if (ret == 0) { /* a log of before they had one */
		ret = logdb_meta_get(log, "vote", &b, offsetof(struct ballot, hash), err);
	}
	if (ret < 0)
		return ret;
	if (ret == 0 && logdb_last(log) != 0)
		return dr_error_set(err, DR_ECORRUPT, "log.db: term and vote are missing");
	*term = be64toh(b.term);
	*vote = be64toh(b.vote);
	return 0;
}

int logdb_vote_set(struct logdb *log, uint64_t term, uint64_t vote, struct dr_error *err)
{
	struct ballot b = {.term = htobe64(term), .vote = htobe64(vote)};

	ballot_hash(&b, b.hash);
	logdb_note_ballot(log, term, vote);
	/* Outside a transaction each statement is one of its own, durable when it returns. */
	return logdb_meta_set(log, "ballot", &b, sizeof(b), err);
}
