#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "coordinator/server.h"

struct peer *peers_find(struct server *s, uint64_t member)
{
	struct peer *oldest = &s->peers[0];

	for (unsigned i = 0; i < SERVER_PEERS_MAX; i++) {
		if (s->peers[i].member == member)
			return &s->peers[i];
		if (s->peers[i].heard_us < oldest->heard_us)
			oldest = &s->peers[i];
	}
	memset(oldest, 0, sizeof(*oldest));
	oldest->member = member;
	return oldest;
}

bool peers_lost(struct server *s, uint64_t member)
{
	for (unsigned i = 0; i < SERVER_PEERS_MAX; i++) {
		if (s->peers[i].member == member)
			return env_now_us(s->env) > s->peers[i].heard_us + SERVER_PEER_LOST_US;
	}
	return true;
}

void peers_send(struct server *s, Drover__PeerMsg *msg)
{
	DR_AUTO_FREE uint8_t *bytes = NULL;
	size_t size;

	if (s->consensus == NULL)
		return;
	msg->from = consensus_self(s->consensus);
	msg->cluster_uuid.data = s->identity.cluster_uuid;
	msg->cluster_uuid.len = sizeof(s->identity.cluster_uuid);
	size = drover__peer_msg__get_packed_size(msg);
	bytes = malloc(size);
	if (bytes == NULL)
		return;
	drover__peer_msg__pack(msg, bytes);
	s->transport->send(s->transport, bytes, size);
}

void peers_propose(struct server *s, const Drover__Command *cmd)
{
	Drover__PeerMsg msg = DROVER__PEER_MSG__INIT;
	Drover__PeerPropose propose = DROVER__PEER_PROPOSE__INIT;

	if (s->consensus == NULL)
		return;
	if (consensus_leads(s->consensus)) {
		leader_propose_fact(s, cmd);
		return;
	}
	msg.to = consensus_leader(s->consensus, NULL);
	if (msg.to == 0)
		return; /* level-triggered: the report is looked at again */
	propose.command = (Drover__Command *)(uintptr_t)cmd;
	msg.body_case = DROVER__PEER_MSG__BODY_PROPOSE;
	msg.propose = &propose;
	peers_send(s, &msg);
}

/* Our own digest at an index that we still remember, or NULL. */
static const struct own_digest *own_digest(const struct server *s, uint64_t index)
{
	const struct own_digest *d = &s->digests[index % SERVER_DIGESTS];

	return index != 0 && d->index == index ? d : NULL;
}

static void status_in(struct server *s, const Drover__PeerStatus *st, uint64_t from, uint32_t nodeid)
{
	struct peer *p = peers_find(s, from);
	const struct own_digest *own = own_digest(s, st->index);
	bool diverged;

	p->heard_us = env_now_us(s->env);
	p->nodeid = nodeid;
	p->index = st->index;
	p->digest_index = st->index;
	snprintf(p->node, sizeof(p->node), "%s", st->node);
	snprintf(p->error, sizeof(p->error), "%s", st->error);
	if (st->digest.len == sizeof(p->digest))
		memcpy(p->digest, st->digest.data, sizeof(p->digest));
	if (own == NULL || st->digest.len != sizeof(p->digest))
		return;
	diverged = memcmp(own->digest, st->digest.data, sizeof(own->digest)) != 0;
	if (diverged && !p->diverged)
		log_error("coordinator %s has another state than this one at index %llu (I6 is broken): "
			  "see drover cluster status",
			  p->node, (unsigned long long)st->index);
	p->diverged = diverged;
}

static void forward_in(struct server *s, const Drover__PeerForward *forward, uint64_t from)
{
	if (forward->request == NULL || forward->request->id.len != SERVER_REQUEST_ID)
		return;
	if (!consensus_leads(s->consensus))
		return; /* the sender asks again, whoever leads then */
	clients_submit(s, forward->request, forward->who, NULL, from);
}

static void lease_in(struct server *s, const Drover__PeerLease *lease)
{
	for (size_t i = 0; i < lease->n_entries; i++) {
		const Drover__LeaseEntry *e = lease->entries[i];

		if (e->start_id.len == 16)
			leader_lease_request(s, e->node, e->start_id.data, e->seq);
	}
}

static void dispatch(struct server *s, uint32_t nodeid, const Drover__PeerMsg *msg)
{
	switch (msg->body_case) {
	case DROVER__PEER_MSG__BODY_RAFT:
		consensus_receive(s->consensus, msg->from, msg->raft);
		return;
	case DROVER__PEER_MSG__BODY_FORWARD:
		forward_in(s, msg->forward, msg->from);
		return;
	case DROVER__PEER_MSG__BODY_FORWARD_REPLY:
		if (msg->forward_reply->response != NULL)
			clients_answered(s, msg->forward_reply->response);
		return;
	case DROVER__PEER_MSG__BODY_PROPOSE:
		if (msg->propose->command != NULL && consensus_leads(s->consensus))
			leader_propose_fact(s, msg->propose->command);
		return;
	case DROVER__PEER_MSG__BODY_LEASE:
		lease_in(s, msg->lease);
		return;
	case DROVER__PEER_MSG__BODY_PROGRESS:
		figures_progress(s->figures, msg->progress, env_now_us(s->env));
		return;
	case DROVER__PEER_MSG__BODY_STATUS:
		status_in(s, msg->status, msg->from, nodeid);
		return;
	case DROVER__PEER_MSG__BODY__NOT_SET:
	case _DROVER__PEER_MSG__BODY__CASE_IS_INT_SIZE:
		return;
	}
}

void peers_receive(void *data, uint32_t nodeid, const uint8_t *bytes, size_t size)
{
	struct server *s = data;
	Drover__PeerMsg *msg;

	if (s->consensus == NULL || s->stopping)
		return;
	msg = drover__peer_msg__unpack(NULL, size, bytes);
	if (msg == NULL) {
		log_warning("node %u: %zu bytes that are no message; dropped", nodeid, size);
		return;
	}
	if ((msg->to == 0 || msg->to == consensus_self(s->consensus)) &&
	    msg->cluster_uuid.len == LOGDB_UUID &&
	    memcmp(msg->cluster_uuid.data, s->identity.cluster_uuid, LOGDB_UUID) == 0)
		dispatch(s, nodeid, msg);
	drover__peer_msg__free_unpacked(msg, NULL);
}

void peers_member(void *data, uint32_t nodeid, bool joined)
{
	struct server *s = data;

	if (joined || s->consensus == NULL)
		return;
	for (unsigned i = 0; i < SERVER_PEERS_MAX; i++) {
		if (s->peers[i].member != 0 && s->peers[i].nodeid == nodeid) {
			s->peers[i].heard_us = 0;
			consensus_member_lost(s->consensus, s->peers[i].member);
		}
	}
}

void peers_quorum(void *data, bool quorate)
{
	(void)quorate;
	leader_changed(data);
}

void peers_status(struct server *s)
{
	Drover__PeerMsg msg = DROVER__PEER_MSG__INIT;
	Drover__PeerStatus st = DROVER__PEER_STATUS__INIT;
	const struct own_digest *own = own_digest(s, consensus_applied(s->consensus));

	st.node = s->conf.name;
	st.member = consensus_self(s->consensus);
	st.index = consensus_applied(s->consensus);
	if (own != NULL) {
		st.digest.data = (uint8_t *)(uintptr_t)own->digest;
		st.digest.len = sizeof(own->digest);
	}
	st.term = consensus_term(s->consensus);
	st.leader = consensus_leads(s->consensus);
	st.quorate = s->transport->quorate(s->transport);
	msg.body_case = DROVER__PEER_MSG__BODY_STATUS;
	msg.status = &st;
	peers_send(s, &msg);
}
