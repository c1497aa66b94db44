#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/mutant.h"
#include "coordinator/recover.h"
#include "coordinator/server.h"

#define NOT_NAMED_US 10000000 /* longer than a leader that has lost its majority goes on */

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

bool peers_host_well(struct server *s, const struct consensus_member *silent)
{
	for (unsigned i = 0; i < SERVER_PEERS_MAX; i++) {
		const struct peer *p = &s->peers[i];

		if (p->member == silent->id && p->leaving)
			return true;
		if (p->member != 0 && p->member != silent->id && strcmp(p->node, silent->node) == 0 &&
		    !peers_lost(s, p->member))
			return true;
	}
	return false;
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
	msg->incarnation = s->identity.incarnation;
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

/* --- whose word about this member's log counts (vouch.h) ---------------------------- */

void peers_vouched(struct server *s)
{
	struct consensus_member members[SERVER_PEERS_MAX];
	unsigned n;

	if (!s->vouch.mute || s->consensus == NULL || s->superseded != 0)
		return;
	n = consensus_members(s->consensus, members, SERVER_PEERS_MAX);
	if (!vouch_enough(&s->vouch, members, n) && !DR_MUTANT(old_log_votes))
		return;
	s->vouch.mute = false;
	consensus_mute(s->consensus, false);
	log_info("the other members know of nothing that this log has lost: it votes");
}

static void raft_in(struct server *s, const Drover__PeerMsg *msg)
{
	struct logdb_seen shown;

	consensus_receive(s->consensus, msg->from, msg->raft);
	/* One that is mute is being told what it has lost: that it has it again proves nothing against it. */
	if (!s->stopping && !msg->muted && consensus_shown(s->consensus, msg->from, msg->raft, &shown))
		vouch_hint(&s->vouch, &shown);
}

static void vouch_in(struct server *s, const Drover__PeerStatus *st, uint64_t from)
{
	struct logdb_seen theirs = {.member = from, .index = st->mark_index, .term = st->mark_term};
	struct logdb_seen mine;
	const struct logdb_seen *about = NULL;
	char why[200];

	for (size_t i = 0; i < st->n_seen; i++) {
		if (st->seen[i]->member != s->identity.member)
			continue;
		mine = (struct logdb_seen){.index = st->seen[i]->index, .term = st->seen[i]->term};
		about = &mine;
	}
	if (!vouch_heard(&s->vouch, from, about)) {
		snprintf(why, sizeof(why),
			 "%s has seen this member at index %llu, term %llu; its log ends at %llu, term %llu: "
			 "an "
			 "old copy",
			 st->node, (unsigned long long)mine.index, (unsigned long long)mine.term,
			 (unsigned long long)s->vouch.own.index, (unsigned long long)s->vouch.own.term);
		server_distrust(s, why);
		return;
	}
	peers_vouched(s);
	if (vouch_note(&s->vouch, &theirs))
		consensus_seen(s->consensus, &theirs);
	if (st->muted && env_now_us(s->env) >= s->next_vouch_us) {
		s->next_vouch_us = env_now_us(s->env) + SERVER_TICK_US;
		peers_status(s); /* it waits for this */
	}
}

/* The leader names all members: one that it leaves out was removed while it was away. */
static void named_in(struct server *s, const Drover__PeerStatus *st)
{
	if (!st->leader || st->n_members == 0 || consensus_leads(s->consensus) ||
	    st->term < consensus_term(s->consensus) || (s->identity.replaces != 0 && !join_is_in(s)))
		return;
	for (size_t i = 0; i < st->n_members; i++) {
		if (st->members[i] == s->identity.member) {
			s->not_named_us = 0;
			return;
		}
	}
	if (st->index < consensus_applied(s->consensus))
		return;
	if (s->not_named_us == 0)
		s->not_named_us = env_now_us(s->env);
	if (env_now_us(s->env) >= s->not_named_us + NOT_NAMED_US)
		server_removed(s);
}

static void status_in(struct server *s, const Drover__PeerStatus *st, uint64_t from, uint32_t nodeid)
{
	struct peer *p = peers_find(s, from);
	const struct own_digest *own = own_digest(s, st->index);
	bool diverged;

	p->heard_us = env_now_us(s->env);
	p->nodeid = nodeid;
	p->index = st->index;
	p->leaving = st->leaving;
	p->last_index = st->last_index;
	p->last_term = st->last_term;
	p->digest_index = st->index;
	snprintf(p->node, sizeof(p->node), "%s", st->node);
	snprintf(p->error, sizeof(p->error), "%s", st->error);
	p->version_max = st->version_max != 0 ? st->version_max : APPLY_VERSION_FIRST;
	if (st->digest.len == sizeof(p->digest))
		memcpy(p->digest, st->digest.data, sizeof(p->digest));
	vouch_in(s, st, from);
	if (s->stopping)
		return;
	named_in(s, st);
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
		raft_in(s, msg);
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
	case DROVER__PEER_MSG__BODY_JOIN:
		join_again_in(s, msg->from, nodeid, msg->join);
		return;
	case DROVER__PEER_MSG__BODY__NOT_SET:
	case _DROVER__PEER_MSG__BODY__CASE_IS_INT_SIZE:
		return;
	}
}

/* SAFETY R18: the cluster went on without this member, or this one without the other. They do not talk. */
static void other_incarnation(struct server *s, const Drover__PeerMsg *msg)
{
	struct dr_error err = DR_ERROR_INIT;

	if (msg->incarnation < s->identity.incarnation || s->superseded != 0)
		return;
	if (recover_superseded_write(s->conf.data_dir, msg->incarnation, &err) < 0)
		log_error("%s", err.text);
	server_superseded(s, msg->incarnation);
}

static bool is_for(const Drover__PeerMsg *msg, uint64_t member)
{
	for (size_t i = 0; i < msg->n_also_to; i++) {
		if (msg->also_to[i] == member)
			return true;
	}
	return msg->to == 0 || msg->to == member;
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
	if (is_for(msg, consensus_self(s->consensus)) && msg->cluster_uuid.len == LOGDB_UUID &&
	    memcmp(msg->cluster_uuid.data, s->identity.cluster_uuid, LOGDB_UUID) == 0) {
		if (msg->incarnation == s->identity.incarnation || DR_MUTANT(old_incarnation_goes_on))
			dispatch(s, nodeid, msg);
		else
			other_incarnation(s, msg);
	}
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
			if (DR_MUTANT(left_is_removed))
				consensus_remove(s->consensus, s->peers[i].member, NULL);
		}
	}
}

void peers_quorum(void *data, bool quorate)
{
	(void)quorate;
	leader_changed(data);
}

static unsigned list_members(struct server *s, uint64_t ids[SERVER_PEERS_MAX])
{
	struct consensus_member members[SERVER_PEERS_MAX];
	unsigned n = consensus_members(s->consensus, members, SERVER_PEERS_MAX);

	for (unsigned i = 0; i < n; i++)
		ids[i] = members[i].id;
	return n;
}

void peers_status(struct server *s)
{
	Drover__PeerMsg msg = DROVER__PEER_MSG__INIT;
	Drover__PeerStatus st = DROVER__PEER_STATUS__INIT;
	DR_AUTO_FREE Drover__PeerSeen *seen = calloc(VOUCH_MEMBERS, sizeof(*seen));
	Drover__PeerSeen *seen_list[VOUCH_MEMBERS];
	uint64_t members[SERVER_PEERS_MAX];
	const struct own_digest *own;

	if (s->consensus == NULL || seen == NULL)
		return;
	own = own_digest(s, consensus_applied(s->consensus));
	for (unsigned i = 0; i < s->vouch.n_seen; i++) {
		drover__peer_seen__init(&seen[i]);
		const struct logdb_seen known = vouch_known(&s->vouch, i);

		seen[i].member = known.member;
		seen[i].index = known.index;
		seen[i].term = known.term;
		seen_list[i] = &seen[i];
	}
	st.seen = seen_list;
	st.n_seen = s->vouch.n_seen;
	st.muted = s->vouch.mute;
	if (!s->vouch.mute) {
		consensus_mark(s->consensus, &st.mark_index, &st.mark_term);
		s->told_mark = st.mark_index;
	}
	/* A change that is not committed may be taken back: the leader names nobody until it is. */
	if (consensus_leads(s->consensus) && consensus_members_settled(s->consensus)) {
		st.n_members = list_members(s, members);
		st.members = members;
	}
	consensus_last(s->consensus, &st.last_index, &st.last_term);
	st.leaving = s->leaving;
	st.error = s->error;
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
	st.version_min = APPLY_VERSION_FIRST;
	st.version_max = APPLY_VERSION;
	msg.body_case = DROVER__PEER_MSG__BODY_STATUS;
	msg.status = &st;
	peers_send(s, &msg);
}

void peers_mark(struct server *s)
{
	uint64_t index, term;

	if (s->consensus == NULL || s->vouch.mute)
		return;
	consensus_mark(s->consensus, &index, &term);
	if (index > s->told_mark)
		peers_status(s);
}
