/*
 * What only the leader does. Its decisions are made anew by each leader from applied rows
 * (SAFETY R13): scheduler and lease book live for one term.
 */
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/mutant.h"
#include "coordinator/fencing.h"
#include "coordinator/lookup.h"
#include "coordinator/msg.h"
#include "coordinator/rows.h"
#include "coordinator/server.h"

#define SECOND_US	 1000000
#define TRIM_EVERY	 5000
#define KEEP_REQUESTS	 20000 /* a client repeats a request for minutes, not hours */
#define KEEP_EVENTS	 200000
#define KEEP_MOVES	 400000
#define FIRST_REQUESTS	 3
#define SESSION_GRACE_US 3000000 /* for agents of a lost coordinator to find another one */

/* --- proposing --------------------------------------------------------------------- */

int leader_propose(struct server *s, const Drover__Command *cmd, void (*done)(void *data, int status),
		   void *data)
{
	Drover__Command stamped = *cmd;
	DR_AUTO_FREE uint8_t *bytes = NULL;
	size_t size;
	int ret;

	if (server_state_failed(s))
		return -DR_EIO;
	/* What this version does not know would stop every member that applies it (SAFETY R20). */
	if (!msg_known(cmd)) {
		log_warning("%s from a newer coordinator is not proposed", apply_command_name(cmd));
		return -DR_EPROTO;
	}
	stamped.version = apply_needs(cmd);
	if (stamped.version > rows_cluster_version(s->db) &&
	    cmd->body_case != DROVER__COMMAND__BODY_CLUSTER_VERSION) {
		log_warning("%s is not proposed: it needs cluster version %u", apply_command_name(cmd),
			    stamped.version);
		return -DR_EPROTO;
	}
	stamped.utc_us = env_utc_us(s->env);
	stamped.term = consensus_term(s->consensus);
	/* Those that make an incarnation belong to none. */
	if (cmd->body_case != DROVER__COMMAND__BODY_INIT &&
	    cmd->body_case != DROVER__COMMAND__BODY_INCARNATION_BEGIN)
		stamped.incarnation = s->identity.incarnation;
	size = drover__command__get_packed_size(&stamped);
	bytes = malloc(size);
	if (bytes == NULL)
		return -DR_ENOMEM;
	drover__command__pack(&stamped, bytes);
	ret = consensus_propose(s->consensus, bytes, size, done, data);
	/* From proposing the fencing until it is decided, the node gets no lease (SAFETY R11). */
	if (ret == 0 && cmd->body_case == DROVER__COMMAND__BODY_NODE_FENCED && s->lease != NULL)
		lease_block(s->lease, cmd->node_fenced->node, true);
	return ret;
}

static void decide(void *data, const Drover__Command *cmd)
{
	struct server *s = data;
	int ret = leader_propose(s, cmd, NULL, NULL);

	if (ret < 0)
		log_debug("%s not proposed: %s", apply_command_name(cmd), dr_err_name(ret));
}

void leader_propose_fact(struct server *s, const Drover__Command *cmd)
{
	decide(s, cmd);
}

void leader_decide(struct server *s)
{
	if (s->scheduler != NULL && consensus_leads(s->consensus) && !rows_audit(s->db))
		drain_decide(s->scheduler, s->db, &s->view, decide, s);
}

/* --- becoming and ceasing to be the leader ----------------------------------------- */

static void own_term_committed(void *data, int status)
{
	struct server *s = data;

	s->barrier_pending = false;
	if (status == 0)
		leader_changed(s);
}

static void leader_end(struct server *s)
{
	if (s->leading_term == 0)
		return;
	log_notice("term %llu: leads no more", (unsigned long long)s->leading_term);
	s->leading_term = 0;
	fencing_end(s);
	if (DR_MUTANT(book_outlives_term))
		return;
	lease_book_free(s->lease);
	drain_scheduler_free(s->scheduler);
	s->lease = NULL;
	s->scheduler = NULL;
}

static void leader_begin(struct server *s, uint64_t term)
{
	log_notice("term %llu: leads", (unsigned long long)term);
	s->leading_term = term;
	s->leading_since_us = env_now_us(s->env);
	if (DR_MUTANT(book_outlives_term) && s->lease != NULL)
		return;
	s->lease = lease_book_new(s->env, term, DR_MUTANT(short_leases) ? 5000 : LEASE_DURATION_MS);
	s->scheduler = drain_scheduler_new(s->env);
	if (s->lease == NULL || s->scheduler == NULL)
		server_fatal(s, DR_ENOMEM, "no memory to lead");
}

/* A new incarnation begins with an audit. Until its first command is applied nobody decides anything, since
 * the rows are still those of the old one (SAFETY R18). */
static void incarnation_check(struct server *s)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdIncarnation begin = DROVER__CMD_INCARNATION__INIT;
	uint64_t now = rows_cluster_incarnation(s->db);
	bool behind = now < s->identity.incarnation && (now != 0 || s->identity.incarnation > 1);

	consensus_hold(s->consensus, behind || s->superseded != 0);
	if (!behind || s->superseded != 0 || now == 0 || consensus_role(s->consensus) != CONSENSUS_LEADER ||
	    s->barrier_pending || env_now_us(s->env) < s->next_begin_us)
		return;
	s->next_begin_us = env_now_us(s->env) + SECOND_US;
	begin.incarnation = s->identity.incarnation;
	begin.why = (char *)(uintptr_t) "after a restore or force-quorum";
	begin.member = s->identity.member;
	begin.node = s->conf.name;
	cmd.body_case = DROVER__COMMAND__BODY_INCARNATION_BEGIN;
	cmd.incarnation_begin = &begin;
	decide(s, &cmd);
}

void leader_changed(struct server *s)
{
	uint64_t term;

	if (s->consensus == NULL || s->stopping)
		return;
	term = consensus_term(s->consensus);
	incarnation_check(s);
	if (consensus_leads(s->consensus)) {
		if (s->leading_term != 0 && s->leading_term != term)
			leader_end(s);
		if (s->leading_term == 0)
			leader_begin(s, term);
		server_schedule_work(s);
		return;
	}
	leader_end(s);
	/* Elected, but nothing of the own term is committed yet (SAFETY R14). */
	if (consensus_role(s->consensus) == CONSENSUS_LEADER && !s->barrier_pending &&
	    !consensus_own_term(s->consensus))
		s->barrier_pending = consensus_barrier(s->consensus, own_term_committed, s) == 0;
}

/* --- once a second ----------------------------------------------------------------- */

static void propose_member(struct server *s, const struct consensus_member *m, uint32_t corosync_id,
			   bool removed)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdMember member = DROVER__CMD_MEMBER__INIT;

	member.member = m->id;
	member.node = (char *)(uintptr_t)m->node;
	member.corosync_id = corosync_id;
	member.removed = removed;
	cmd.body_case = DROVER__COMMAND__BODY_MEMBER;
	cmd.member = &member;
	decide(s, &cmd);
}

/* A member joins before it talks to corosync: its node id there is learnt later. */
static void note_corosync_id(struct server *s, const struct consensus_member *m)
{
	uint32_t nodeid = 0;

	if (s->corosync == NULL || !lookup_member_at(s->db, m->id, 0))
		return;
	if (m->id == consensus_self(s->consensus))
		nodeid = corosync_nodeid(s->corosync);
	else if (!peers_lost(s, m->id))
		nodeid = peers_find(s, m->id)->nodeid;
	if (nodeid != 0)
		propose_member(s, m, nodeid, false);
}

/* The member of the same host whose place this one takes, or NULL. */
static const struct consensus_member *predecessor(const struct consensus_member *members, unsigned n,
						  const struct consensus_member *of)
{
	for (unsigned i = 0; i < n; i++)
		if (members[i].id != of->id && strcmp(members[i].node, of->node) == 0)
			return &members[i];
	return NULL;
}

/* joining -> learner -> voter, one change at a time, when it is heard (SAFETY R16). A member that takes a
 * lost one's place gets it when it has become a learner: the lost one counts among the voters until then, and
 * no host ever has two votes. */
static void promote_members(struct server *s)
{
	struct consensus_member members[SERVER_PEERS_MAX];
	unsigned n = consensus_members(s->consensus, members, SERVER_PEERS_MAX);

	for (unsigned i = 0; i < n; i++) {
		struct dr_error err = DR_ERROR_INIT;
		enum consensus_member_role next =
			members[i].role == MEMBER_JOINING ? MEMBER_LEARNER : MEMBER_VOTER;
		const struct consensus_member *old = predecessor(members, n, &members[i]);

		if (members[i].id != consensus_self(s->consensus) &&
		    lookup_member_removed(s->db, members[i].id) && peers_lost(s, members[i].id)) {
			if (consensus_remove(s->consensus, members[i].id, &err) == 0)
				log_notice("member %s is removed", members[i].node);
			return;
		}
		note_corosync_id(s, &members[i]);
		if (members[i].role == MEMBER_VOTER || peers_lost(s, members[i].id))
			continue;
		if (next == MEMBER_VOTER && old != NULL) {
			if (!peers_lost(s, old->id))
				continue;
			if (consensus_remove(s->consensus, old->id, &err) == 0) {
				log_notice("member %s: %llu takes the place of %llu", old->node,
					   (unsigned long long)members[i].id, (unsigned long long)old->id);
				propose_member(s, old, 0, true);
			}
			return;
		}
		if (consensus_promote(s->consensus, members[i].id, next, &err) == 0)
			log_notice("member %s: %s", members[i].node,
				   next == MEMBER_VOTER ? "voter" : "learner");
		else
			log_debug("member %s: %s", members[i].node, err.text);
		return;
	}
}

static bool coordinator_heard(struct server *s, const char *name)
{
	if (strcmp(name, s->conf.name) == 0)
		return true;
	for (unsigned i = 0; i < SERVER_PEERS_MAX; i++) {
		if (s->peers[i].member != 0 && strcmp(s->peers[i].node, name) == 0 &&
		    !peers_lost(s, s->peers[i].member))
			return true;
	}
	return false;
}

/* Sessions at one coordinator that is gone, or at this one without a connection, are lost. */
static void end_sessions_at(struct server *s, const char *coordinator)
{
	char node[LOOKUP_NAME] = "";
	uint8_t boot_id[16], start_id[16];

	while (lookup_next_session(s->db, coordinator, node, node, boot_id, start_id)) {
		Drover__Command cmd = DROVER__COMMAND__INIT;
		Drover__CmdNodeSession session = DROVER__CMD_NODE_SESSION__INIT;

		if (strcmp(coordinator, s->conf.name) == 0 && agents_connected(s, node, start_id))
			continue;
		session.node = node;
		session.boot_id.data = boot_id;
		session.boot_id.len = sizeof(boot_id);
		session.start_id.data = start_id;
		session.start_id.len = sizeof(start_id);
		session.coordinator = (char *)(uintptr_t) "";
		session.was = (char *)(uintptr_t)coordinator;
		cmd.body_case = DROVER__COMMAND__BODY_NODE_SESSION;
		cmd.node_session = &session;
		peers_propose(s, &cmd);
	}
}

/*
 * A coordinator that was killed and is back in an instant is never missed by the leader: it must say itself
 * that its sessions are gone. Else an agent that was started anew meanwhile finds its place taken for ever.
 */
static void end_own_sessions(struct server *s)
{
	if (server_in_touch(s))
		end_sessions_at(s, s->conf.name);
}

static void end_lost_sessions(struct server *s)
{
	struct consensus_member members[SERVER_PEERS_MAX];
	unsigned n = consensus_members(s->consensus, members, SERVER_PEERS_MAX);

	if (env_now_us(s->env) < s->leading_since_us + SESSION_GRACE_US)
		return;
	for (unsigned i = 0; i < n; i++) {
		if (members[i].id == consensus_self(s->consensus) || !coordinator_heard(s, members[i].node))
			end_sessions_at(s, members[i].node);
	}
}

static uint64_t older_than(struct server *s, uint64_t keep)
{
	uint64_t applied = consensus_applied(s->consensus);
	uint64_t origin = lookup_origin(s->db);

	return applied > origin + keep ? applied - keep : 0;
}

/* The audit ends when the last host has spoken (SAFETY R18). */
static void audit_tick(struct server *s)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__Empty empty = DROVER__EMPTY__INIT;
	char hosts[256];

	if (!rows_audit(s->db))
		return;
	rows_unaudited(s->db, hosts, sizeof(hosts));
	if (hosts[0] != '\0')
		return;
	cmd.body_case = DROVER__COMMAND__BODY_AUDIT_END;
	cmd.audit_end = &empty;
	decide(s, &cmd);
}

/* Keeps the tables that grow with time bounded; counted in log entries, at least one of which comes a second.
 */
static void trim(struct server *s)
{
	uint64_t applied = consensus_applied(s->consensus);
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdTrim trim = DROVER__CMD_TRIM__INIT;

	if (applied < s->trimmed_index + TRIM_EVERY)
		return;
	s->trimmed_index = applied;
	trim.requests_before_index = older_than(s, KEEP_REQUESTS);
	trim.events_before_index = older_than(s, KEEP_EVENTS);
	trim.moves_before_index = older_than(s, KEEP_MOVES);
	if (trim.requests_before_index == 0)
		return;
	cmd.body_case = DROVER__COMMAND__BODY_TRIM;
	cmd.trim = &trim;
	decide(s, &cmd);
}

void leader_lease_request(struct server *s, const char *node, const uint8_t start_id[16], uint64_t seq)
{
	if (s->lease == NULL || !consensus_leads(s->consensus))
		return;
	lease_request(s->lease, node, start_id, seq);
	/* A new session should not wait for the next round: nothing starts on that host without a lease. */
	if (seq <= FIRST_REQUESTS)
		lease_round(s->lease, decide, s);
}

void leader_tick(struct server *s)
{
	bool second = env_now_us(s->env) >= s->next_second_us;

	leader_changed(s);
	if (second) {
		s->next_second_us = env_now_us(s->env) + SECOND_US;
		peers_status(s);
		if (s->leading_term == 0)
			end_own_sessions(s);
	}
	if (s->leading_term == 0)
		return;
	if (second) {
		lease_round(s->lease, decide, s);
		lease_health(s->lease, s->db, decide, s);
		promote_members(s);
		end_lost_sessions(s);
		audit_tick(s);
		fencing_tick(s);
		trim(s);
		upgrade_tick(s);
	}
	leader_decide(s);
}

/* --- clients' requests ------------------------------------------------------------- */

static int propose_request(struct server *s, const Drover__Request *request, const char *who,
			   const char *what, Drover__Command *cmd)
{
	Drover__Command stamped = *cmd;

	stamped.request_id = request->id;
	stamped.who = (char *)(uintptr_t)who;
	if (stamped.what == NULL || stamped.what[0] == '\0')
		stamped.what = (char *)(uintptr_t)what;
	return leader_propose(s, &stamped, NULL, NULL);
}

static int request_init(struct server *s, const Drover__Request *request, const char *who)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdInit init = DROVER__CMD_INIT__INIT;
	const char *name = request->cluster_init->name[0] != '\0' ? request->cluster_init->name : "drover";

	init.name = (char *)(uintptr_t)name;
	init.uuid.data = s->identity.cluster_uuid;
	init.uuid.len = LOGDB_UUID;
	init.mode = (char *)(uintptr_t)(s->identity.standalone ? "standalone" : "corosync");
	init.member = s->identity.member;
	init.node = s->conf.name;
	init.corosync_id = s->corosync != NULL ? corosync_nodeid(s->corosync) : 0;
	cmd.body_case = DROVER__COMMAND__BODY_INIT;
	cmd.init = &init;
	return propose_request(s, request, who, "cluster init", &cmd);
}

/* The token itself stays with the coordinator that the client asked; only its hash is replicated. */
static int request_token(struct server *s, const Drover__Request *request, const char *who,
			 Drover__Response *answer)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdToken token = DROVER__CMD_TOKEN__INIT;

	if (request->dry_run || request->token_hash.len != SHA256_DIGEST_LENGTH) {
		answer->exit = request->dry_run ? 0 : DR_EUSAGE;
		return 1;
	}
	token.hash = request->token_hash;
	cmd.body_case = DROVER__COMMAND__BODY_TOKEN;
	cmd.token = &token;
	return propose_request(s, request, who, "cluster token", &cmd);
}

static int request_cluster(struct server *s, const Drover__Request *request, const char *who,
			   Drover__Response *answer)
{
	int ret;

	if (request->verb_case == DROVER__REQUEST__VERB_CLUSTER_INIT)
		return request_init(s, request, who);
	if (request->verb_case == DROVER__REQUEST__VERB_CLUSTER_TOKEN)
		return request_token(s, request, who, answer);
	if (request->verb_case == DROVER__REQUEST__VERB_JOIN_REQUEST) {
		ret = join_requested(s, request->join_request, answer);
		return ret < 0 ? ret : 1;
	}
	answer->exit = DR_EUSAGE;
	answer->message = strdup("not supported yet");
	return 1;
}

/* A node is removed with its coordinator: not while that one answers. */
static int check_remove(struct server *s, const char *node, struct dr_error *err)
{
	struct consensus_member members[SERVER_PEERS_MAX];
	unsigned n = consensus_members(s->consensus, members, SERVER_PEERS_MAX);

	for (unsigned i = 0; i < n; i++) {
		if (strcmp(members[i].node, node) == 0 &&
		    (members[i].id == consensus_self(s->consensus) || !peers_lost(s, members[i].id)))
			return dr_error_set(
				err, DR_EREFUSED,
				"the coordinator of %s runs: end it first (systemctl disable --now "
				"drover-coordinator there)",
				node);
	}
	return 0;
}

int leader_request(struct server *s, const Drover__Request *request, const char *who,
		   Drover__Response *answer)
{
	Drover__Command *cmd = NULL;
	Drover__Response *refusal = NULL;
	struct dr_error err = DR_ERROR_INIT;
	int ret;

	if (request_class(request) == REQUEST_CLUSTER)
		return request_cluster(s, request, who, answer);
	ret = fencing_request(s, request, answer);
	if (ret > 0)
		return ret;
	request_to_command(s->db, s->env, &s->view, request, who, &cmd, &refusal);
	if (refusal != NULL) {
		/* Both are the caller's to free: what the refusal holds moves over. */
		Drover__Response empty = DROVER__RESPONSE__INIT;

		*answer = *refusal;
		*refusal = empty;
		drover__response__free_unpacked(refusal, NULL);
		return 1;
	}
	if (cmd == NULL)
		return -DR_ENOMEM;
	if (cmd->body_case == DROVER__COMMAND__BODY_NODE_REMOVE &&
	    (ret = check_remove(s, cmd->node_remove->node, &err)) < 0) {
		drover__command__free_unpacked(cmd, NULL);
		answer->exit = (uint32_t)dr_err_exit(ret);
		answer->message = strdup(err.text);
		return 1;
	}
	if (cmd->body_case == DROVER__COMMAND__BODY_NODE_FENCING)
		ret = fencing_begin(s, request, who, cmd, answer);
	else
		ret = propose_request(s, request, who, apply_command_name(cmd), cmd);
	drover__command__free_unpacked(cmd, NULL);
	return ret;
}
