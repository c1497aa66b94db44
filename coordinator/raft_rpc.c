#include "coordinator/raft_rpc.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

static int pack_entries(const struct raft_append_entries *a, Drover__RaftRpc *rpc, Drover__RaftEntry **store)
{
	Drover__RaftEntry *entries;

	if (a->n_entries == 0)
		return 0;
	entries = calloc(a->n_entries, sizeof(*entries));
	rpc->entries = calloc(a->n_entries, sizeof(*rpc->entries));
	*store = entries;
	if (entries == NULL || rpc->entries == NULL)
		return -DR_ENOMEM;
	for (unsigned i = 0; i < a->n_entries; i++) {
		drover__raft_entry__init(&entries[i]);
		entries[i].term = a->entries[i].term;
		entries[i].type = a->entries[i].type;
		entries[i].data.data = a->entries[i].buf.base;
		entries[i].data.len = a->entries[i].buf.len;
		rpc->entries[i] = &entries[i];
	}
	rpc->n_entries = a->n_entries;
	return 0;
}

static int pack_conf(const struct raft_configuration *conf, Drover__RaftRpc *rpc, Drover__RaftServer **store)
{
	Drover__RaftServer *servers = calloc(conf->n + 1, sizeof(*servers));

	rpc->conf = calloc(conf->n + 1, sizeof(*rpc->conf));
	*store = servers;
	if (servers == NULL || rpc->conf == NULL)
		return -DR_ENOMEM;
	for (unsigned i = 0; i < conf->n; i++) {
		drover__raft_server__init(&servers[i]);
		servers[i].id = conf->servers[i].id;
		servers[i].address = conf->servers[i].address;
		servers[i].role = (uint32_t)conf->servers[i].role;
		rpc->conf[i] = &servers[i];
	}
	rpc->n_conf = conf->n;
	return 0;
}

uint8_t *raft_rpc_pack_conf(const struct raft_configuration *conf, size_t *size)
{
	Drover__RaftRpc rpc = DROVER__RAFT_RPC__INIT;
	DR_AUTO_FREE Drover__RaftServer *servers = NULL;
	uint8_t *bytes = NULL;

	if (pack_conf(conf, &rpc, &servers) == 0) {
		*size = drover__raft_rpc__get_packed_size(&rpc);
		bytes = malloc(*size + 1);
		if (bytes != NULL)
			drover__raft_rpc__pack(&rpc, bytes);
	}
	free(rpc.conf);
	return bytes;
}

static int fill_rpc(const struct raft_message *msg, Drover__RaftRpc *rpc, Drover__RaftEntry **entries,
		    Drover__RaftServer **servers)
{
	rpc->type = msg->type;
	switch (msg->type) {
	case RAFT_IO_REQUEST_VOTE:
		rpc->term = msg->request_vote.term;
		rpc->candidate = msg->request_vote.candidate_id;
		rpc->last_log_index = msg->request_vote.last_log_index;
		rpc->last_log_term = msg->request_vote.last_log_term;
		rpc->disrupt_leader = msg->request_vote.disrupt_leader;
		rpc->pre_vote = msg->request_vote.pre_vote;
		return 0;
	case RAFT_IO_REQUEST_VOTE_RESULT:
		rpc->term = msg->request_vote_result.term;
		rpc->vote_granted = msg->request_vote_result.vote_granted;
		rpc->pre_vote_answer = msg->request_vote_result.pre_vote;
		return 0;
	case RAFT_IO_APPEND_ENTRIES:
		rpc->term = msg->append_entries.term;
		rpc->prev_log_index = msg->append_entries.prev_log_index;
		rpc->prev_log_term = msg->append_entries.prev_log_term;
		rpc->leader_commit = msg->append_entries.leader_commit;
		return pack_entries(&msg->append_entries, rpc, entries);
	case RAFT_IO_APPEND_ENTRIES_RESULT:
		rpc->term = msg->append_entries_result.term;
		rpc->rejected = msg->append_entries_result.rejected;
		rpc->last_log_index = msg->append_entries_result.last_log_index;
		return 0;
	case RAFT_IO_INSTALL_SNAPSHOT:
		rpc->term = msg->install_snapshot.term;
		rpc->last_index = msg->install_snapshot.last_index;
		rpc->last_term = msg->install_snapshot.last_term;
		rpc->conf_index = msg->install_snapshot.conf_index;
		rpc->data.data = msg->install_snapshot.data.base;
		rpc->data.len = msg->install_snapshot.data.len;
		return pack_conf(&msg->install_snapshot.conf, rpc, servers);
	case RAFT_IO_TIMEOUT_NOW:
		rpc->term = msg->timeout_now.term;
		rpc->last_log_index = msg->timeout_now.last_log_index;
		rpc->last_log_term = msg->timeout_now.last_log_term;
		return 0;
	default:
		return -DR_EBUG;
	}
}

uint8_t *raft_rpc_pack(const struct raft_message *msg, uint64_t from, const char *from_address,
		       const uint8_t cluster_uuid[16], uint64_t incarnation, size_t *size)
{
	Drover__PeerMsg peer = DROVER__PEER_MSG__INIT;
	Drover__RaftRpc rpc = DROVER__RAFT_RPC__INIT;
	DR_AUTO_FREE Drover__RaftEntry *entries = NULL;
	DR_AUTO_FREE Drover__RaftServer *servers = NULL;
	DR_AUTO_FREE char *address = strdup(from_address);
	uint8_t *bytes = NULL;

	if (address != NULL && fill_rpc(msg, &rpc, &entries, &servers) == 0) {
		rpc.address = address;
		peer.from = from;
		peer.cluster_uuid.data = (uint8_t *)(uintptr_t)cluster_uuid;
		peer.cluster_uuid.len = 16;
		peer.incarnation = incarnation;
		peer.body_case = DROVER__PEER_MSG__BODY_RAFT;
		peer.raft = &rpc;
		*size = drover__peer_msg__get_packed_size(&peer);
		bytes = malloc(*size);
		if (bytes != NULL)
			drover__peer_msg__pack(&peer, bytes);
	}
	free(rpc.entries);
	free(rpc.conf);
	return bytes;
}

uint8_t *raft_rpc_pack_to(const uint64_t *members, unsigned n, bool muted, size_t *size)
{
	Drover__PeerMsg peer = DROVER__PEER_MSG__INIT;
	uint8_t *bytes;

	peer.to = members[0];
	peer.also_to = (uint64_t *)(uintptr_t)(members + 1);
	peer.n_also_to = n - 1;
	peer.muted = muted;
	*size = drover__peer_msg__get_packed_size(&peer);
	bytes = malloc(*size + 1);
	if (bytes != NULL)
		drover__peer_msg__pack(&peer, bytes);
	return bytes;
}

/* libraft decodes a member list without looking at its length: what is no whole list must not reach it.
 * Its format (raft_configuration_encode): version 1, number of servers, and for each id, address, role. */
static bool member_list_whole(const uint8_t *bytes, size_t size)
{
	size_t at = 1 + sizeof(uint64_t);
	uint64_t n;

	if (size < at || bytes[0] != 1)
		return false;
	memcpy(&n, bytes + 1, sizeof(n));
	n = le64toh(n);
	if (n == 0 || n > RAFT_RPC_SERVERS_MAX)
		return false;
	for (uint64_t i = 0; i < n; i++) {
		const uint8_t *end;

		if (size - at < sizeof(uint64_t))
			return false;
		at += sizeof(uint64_t);
		end = memchr(bytes + at, '\0', size - at);
		if (end == NULL)
			return false;
		at = (size_t)(end - bytes) + 1;
		if (at == size || bytes[at] > RAFT_SPARE)
			return false;
		at++;
	}
	return true;
}

static int check_entry(const Drover__RaftEntry *e, struct dr_error *err)
{
	switch (e->type) {
	case RAFT_COMMAND:
		if (e->data.len == 0)
			return dr_error_set(err, DR_EPROTO, "AppendEntries with an empty command");
		return 0;
	case RAFT_BARRIER:
		return 0;
	case RAFT_CHANGE:
		if (!member_list_whole(e->data.data, e->data.len))
			return dr_error_set(err, DR_EPROTO,
					    "AppendEntries with a broken member list of %zu bytes",
					    e->data.len);
		return 0;
	default:
		return dr_error_set(err, DR_EPROTO, "AppendEntries with an entry of unknown type %u",
				    e->type);
	}
}

#define ENTRY_ALIGN 8 /* libraft reads a member list in 64-bit words */

static size_t room_of(const Drover__RaftEntry *entry)
{
	return (entry->data.len + ENTRY_ALIGN - 1) / ENTRY_ALIGN * ENTRY_ALIGN;
}

/* All entries in one batch: of a message whose entries it has already libraft frees the first one's batch. */
static int unpack_entries(const Drover__RaftRpc *rpc, struct raft_append_entries *a, struct dr_error *err)
{
	size_t size = ENTRY_ALIGN; /* never none */
	size_t at = 0;
	uint8_t *batch;

	a->term = rpc->term;
	a->prev_log_index = rpc->prev_log_index;
	a->prev_log_term = rpc->prev_log_term;
	a->leader_commit = rpc->leader_commit;
	a->entries = NULL;
	a->n_entries = 0;
	if (rpc->n_entries == 0)
		return 0;
	if (rpc->n_entries > RAFT_RPC_ENTRIES_MAX)
		return dr_error_set(err, DR_EPROTO, "AppendEntries with %zu entries", rpc->n_entries);
	for (size_t i = 0; i < rpc->n_entries; i++) {
		int ret = check_entry(rpc->entries[i], err);

		if (ret < 0)
			return ret;
	}
	for (size_t i = 0; i < rpc->n_entries; i++)
		size += room_of(rpc->entries[i]);
	a->entries = raft_calloc(rpc->n_entries, sizeof(*a->entries));
	batch = raft_malloc(size);
	if (a->entries == NULL || batch == NULL) {
		raft_free(a->entries);
		raft_free(batch);
		a->entries = NULL;
		return -DR_ENOMEM;
	}
	for (size_t i = 0; i < rpc->n_entries; i++) {
		const Drover__RaftEntry *in = rpc->entries[i];
		struct raft_entry *out = &a->entries[i];

		out->batch = batch;
		out->term = in->term;
		out->type = (unsigned short)in->type;
		out->buf.base = batch + at;
		out->buf.len = in->data.len;
		if (in->data.len > 0)
			memcpy(batch + at, in->data.data, in->data.len);
		at += room_of(in);
	}
	a->n_entries = (unsigned)rpc->n_entries;
	return 0;
}

static int unpack_snapshot(const Drover__RaftRpc *rpc, struct raft_install_snapshot *s, struct dr_error *err)
{
	if (rpc->data.len > RAFT_RPC_SNAPSHOT_MAX || rpc->data.len == 0 || rpc->n_conf == 0)
		return dr_error_set(err, DR_EPROTO, "InstallSnapshot of %zu bytes for %zu members",
				    rpc->data.len, rpc->n_conf);
	s->term = rpc->term;
	s->last_index = rpc->last_index;
	s->last_term = rpc->last_term;
	s->conf_index = rpc->conf_index;
	raft_configuration_init(&s->conf);
	for (size_t i = 0; i < rpc->n_conf; i++) {
		const Drover__RaftServer *in = rpc->conf[i];

		if (raft_configuration_add(&s->conf, in->id, in->address, (int)in->role) != 0) {
			raft_configuration_close(&s->conf);
			return dr_error_set(err, DR_EPROTO, "InstallSnapshot with an impossible member list");
		}
	}
	s->data.base = raft_malloc(rpc->data.len);
	if (s->data.base == NULL) {
		raft_configuration_close(&s->conf);
		return -DR_ENOMEM;
	}
	memcpy(s->data.base, rpc->data.data, rpc->data.len);
	s->data.len = rpc->data.len;
	return 0;
}

int raft_rpc_unpack(const Drover__RaftRpc *rpc, uint64_t from, struct raft_message *msg, struct dr_error *err)
{
	memset(msg, 0, sizeof(*msg));
	msg->type = (unsigned short)rpc->type;
	msg->server_id = from;
	msg->server_address = rpc->address;
	switch (rpc->type) {
	case RAFT_IO_REQUEST_VOTE:
		msg->request_vote.term = rpc->term;
		msg->request_vote.candidate_id = rpc->candidate;
		msg->request_vote.last_log_index = rpc->last_log_index;
		msg->request_vote.last_log_term = rpc->last_log_term;
		msg->request_vote.disrupt_leader = rpc->disrupt_leader;
		msg->request_vote.pre_vote = rpc->pre_vote;
		return 0;
	case RAFT_IO_REQUEST_VOTE_RESULT:
		msg->request_vote_result.term = rpc->term;
		msg->request_vote_result.vote_granted = rpc->vote_granted;
		if (rpc->pre_vote_answer > raft_tribool_false)
			return dr_error_set(err, DR_EPROTO, "vote answer with pre-vote value %u",
					    rpc->pre_vote_answer);
		msg->request_vote_result.pre_vote = (raft_tribool)rpc->pre_vote_answer;
		return 0;
	case RAFT_IO_APPEND_ENTRIES:
		return unpack_entries(rpc, &msg->append_entries, err);
	case RAFT_IO_APPEND_ENTRIES_RESULT:
		msg->append_entries_result.term = rpc->term;
		msg->append_entries_result.rejected = rpc->rejected;
		msg->append_entries_result.last_log_index = rpc->last_log_index;
		return 0;
	case RAFT_IO_INSTALL_SNAPSHOT:
		return unpack_snapshot(rpc, &msg->install_snapshot, err);
	case RAFT_IO_TIMEOUT_NOW:
		msg->timeout_now.term = rpc->term;
		msg->timeout_now.last_log_index = rpc->last_log_index;
		msg->timeout_now.last_log_term = rpc->last_log_term;
		return 0;
	default:
		return dr_error_set(err, DR_EPROTO, "Raft message of unknown type %u", rpc->type);
	}
}
