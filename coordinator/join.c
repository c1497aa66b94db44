/*
 * How a fresh coordinator becomes a member.
 *
 *   drover cluster init         this one is the first: bootstrap, then CmdInit
 *   drover cluster join A -t T  fresh ---JoinRequest(member, token)---> member A -> leader
 *                               fresh <--cluster uuid, when Raft has added it as "joining"
 *                               fresh writes its identity and takes part; the leader makes it a
 *                               learner when it is heard, a voter when it has caught up (leader.c)
 *
 * A member id is random and never used twice: a wiped coordinator comes back as another one (SAFETY R15).
 */
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "coordinator/lookup.h"
#include "coordinator/rows.h"
#include "coordinator/server.h"

#define JOIN_DEADLINE_US 30000000
#define JOIN_AGAIN_US	 1000000

struct join {
	struct server *server;
	struct conn *client; /* who asked; NULL when gone */
	uint8_t request_id[SERVER_REQUEST_ID];
	/* Of what the member is asked. Not the client's: repeated after a new start here it is for another
	 * member id, and must not be answered with what was decided about the first. */
	uint8_t ask_id[SERVER_REQUEST_ID];
	struct conn *member;
	uint64_t id;
	char token[128];
	uint64_t deadline;
	bool init; /* waits for the first leader instead */
	Drover__Request *request;
};

static void answer(struct server *s, struct conn *conn, const uint8_t *id, unsigned code, const char *message)
{
	Drover__Msg msg = DROVER__MSG__INIT;
	Drover__Response r = DROVER__RESPONSE__INIT;

	(void)s;
	if (conn == NULL)
		return;
	r.id.data = (uint8_t *)(uintptr_t)id;
	r.id.len = SERVER_REQUEST_ID;
	r.exit = code;
	r.message = (char *)(uintptr_t)message;
	r.changed = code == 0;
	msg.body_case = DROVER__MSG__BODY_RESPONSE;
	msg.response = &r;
	conn_send(conn, &msg);
}

void join_free(struct server *s)
{
	struct join *j = s->join;

	if (j == NULL)
		return;
	s->join = NULL;
	env_timer_stop(s->env, &j->deadline);
	if (j->member != NULL)
		conn_close(j->member);
	if (j->request != NULL)
		drover__request__free_unpacked(j->request, NULL);
	free(j);
}

static void join_end(struct join *j, unsigned code, const char *message)
{
	struct server *s = j->server;

	if (code != 0)
		log_error("join: %s", message);
	answer(s, j->client, j->request_id, code, message);
	join_free(s);
}

static void join_late(void *data)
{
	struct join *j = data;

	j->deadline = 0;
	join_end(j, DR_ETIMEOUT,
		 "the member did not answer in 30 s; is it quorate? (drover cluster status there)");
}

void join_conn_closed(struct server *s, struct conn *conn)
{
	if (s->join != NULL && s->join->client == conn)
		s->join->client = NULL;
}

static bool already_member(struct server *s, const uint8_t *id, struct conn *conn)
{
	if (s->identity.member == 0 && s->join == NULL)
		return false;
	answer(s, conn, id, DR_EREFUSED,
	       s->join != NULL ? "this coordinator is joining a cluster already"
			       : "this coordinator is a member of a cluster already (drover cluster status)");
	return true;
}

/* --- init -------------------------------------------------------------------------- */

void join_init(struct server *s, const Drover__Request *request, struct conn *conn)
{
	const Drover__ClusterInit *init = request->cluster_init;
	struct dr_error err = DR_ERROR_INIT;
	struct logdb_identity id = {.standalone = init->standalone, .incarnation = 1};

	if (already_member(s, request->id.data, conn))
		return;
	if (request->dry_run) {
		answer(s, conn, request->id.data, 0, "");
		return;
	}
	if (init->restore_size > 0) {
		int ret = backup_restore_piece(s, init, &err);

		answer(s, conn, request->id.data, ret == 0 ? 0 : (unsigned)dr_err_exit(ret), err.text);
		return;
	}
	if (!init->standalone && !corosync_present()) {
		answer(s, conn, request->id.data, DR_EFAILED,
		       "corosync does not answer on this host: start it, or use --standalone for a cluster "
		       "of one");
		return;
	}
	id.member = server_random_id(s);
	env_random(s->env, id.cluster_uuid, sizeof(id.cluster_uuid));
	s->identity = id;
	if (server_identity_set(s, &err) < 0 || server_start_consensus(s, true, &err) < 0) {
		answer(s, conn, request->id.data, (unsigned)dr_err_exit((int)err.code), err.text);
		server_fatal(s, err.code, err.text);
		return;
	}
	clients_submit(s, request, "init", conn, 0);
}

/* --- join, the fresh side ---------------------------------------------------------- */

static void member_on_open(struct conn *conn, void *data)
{
	struct join *j = data;
	Drover__Msg msg = DROVER__MSG__INIT;
	Drover__Hello hello = DROVER__HELLO__INIT;
	Drover__Request request = DROVER__REQUEST__INIT;
	Drover__JoinRequest join = DROVER__JOIN_REQUEST__INIT;

	hello.protocol = 1;
	hello.role = DROVER__HELLO__ROLE__CLIENT;
	hello.node = j->server->conf.name;
	msg.body_case = DROVER__MSG__BODY_HELLO;
	msg.hello = &hello;
	conn_send(conn, &msg);

	join.node = j->server->conf.name;
	join.member = j->id;
	join.token = j->token;
	join.corosync_id = j->server->corosync != NULL ? corosync_nodeid(j->server->corosync) : 0;
	join.version = APPLY_VERSION;
	request.id.data = j->ask_id;
	request.id.len = SERVER_REQUEST_ID;
	request.timeout_ms = SERVER_TIMEOUT_MS;
	request.verb_case = DROVER__REQUEST__VERB_JOIN_REQUEST;
	request.join_request = &join;
	msg.body_case = DROVER__MSG__BODY_REQUEST;
	msg.request = &request;
	conn_send(conn, &msg);
}

static void join_accepted(struct join *j, const Drover__Response *r)
{
	struct server *s = j->server;
	struct dr_error err = DR_ERROR_INIT;
	struct logdb_identity id = {.member = j->id};

	if (r->cluster == NULL || r->cluster->cluster_uuid.len != LOGDB_UUID) {
		join_end(j, DR_EFAILED, "the member's answer names no cluster");
		return;
	}
	memcpy(id.cluster_uuid, r->cluster->cluster_uuid.data, LOGDB_UUID);
	id.incarnation = r->cluster->incarnation;
	s->identity = id;
	if (server_identity_set(s, &err) < 0 || server_start_consensus(s, false, &err) < 0) {
		join_end(j, (unsigned)dr_err_exit((int)err.code), err.text);
		server_fatal(s, err.code, err.text);
		return;
	}
	log_notice("joined cluster %s as member %llu", r->cluster->cluster, (unsigned long long)j->id);
	join_end(j, 0, "");
}

static void member_on_message(struct conn *conn, const Drover__Msg *msg, void *data)
{
	struct join *j = data;

	(void)conn;
	if (msg->body_case == DROVER__MSG__BODY_WELCOME && msg->welcome->exit != 0)
		join_end(j, msg->welcome->exit, msg->welcome->message);
	else if (msg->body_case == DROVER__MSG__BODY_RESPONSE && msg->response->exit != 0)
		join_end(j, msg->response->exit, msg->response->message);
	else if (msg->body_case == DROVER__MSG__BODY_RESPONSE)
		join_accepted(j, msg->response);
}

static void member_on_close(struct conn *conn, const struct dr_error *why, void *data)
{
	struct join *j = data;
	char text[DR_ERROR_TEXT + 64];

	(void)conn;
	j->member = NULL;
	snprintf(text, sizeof(text), "the connection to the member ended: %s", why->text);
	join_end(j, why->code == DR_EAUTH ? DR_EAUTH : DR_EFAILED, text);
}

static const struct conn_ops member_ops = {
	.on_open = member_on_open, .on_message = member_on_message, .on_close = member_on_close};

void join_begin(struct server *s, const Drover__Request *request, struct conn *conn)
{
	struct dr_error err = DR_ERROR_INIT;
	char address[128];
	struct join *j;

	if (already_member(s, request->id.data, conn))
		return;
	if (request->dry_run) {
		answer(s, conn, request->id.data, 0, "");
		return;
	}
	if (!corosync_present()) {
		answer(s, conn, request->id.data, DR_EFAILED,
		       "corosync does not answer on this host: start it first");
		return;
	}
	j = calloc(1, sizeof(*j));
	if (j == NULL || s->tls == NULL) {
		free(j);
		answer(s, conn, request->id.data, DR_EFAILED,
		       "no cluster key: copy the other members' key file to this host and restart the "
		       "coordinator");
		return;
	}
	s->join = j;
	j->server = s;
	j->client = conn;
	j->id = server_random_id(s);
	memcpy(j->request_id, request->id.data, SERVER_REQUEST_ID);
	env_random(s->env, j->ask_id, sizeof(j->ask_id));
	snprintf(j->token, sizeof(j->token), "%s", request->cluster_join->token);
	snprintf(address, sizeof(address), strrchr(request->cluster_join->address, ':') ? "%s" : "%s:7420",
		 request->cluster_join->address);
	j->deadline = env_timer_start(s->env, JOIN_DEADLINE_US, join_late, j);
	j->member = conn_connect(s->loop, address, s->tls, &member_ops, j, &err);
	if (j->member == NULL)
		join_end(j, (unsigned)dr_err_exit((int)err.code), err.text);
}

/* --- join, the leader's side ------------------------------------------------------- */

static bool token_fits(struct server *s, const Drover__JoinRequest *join, uint8_t hash[SHA256_DIGEST_LENGTH])
{
	SHA256((const uint8_t *)join->token, strlen(join->token), hash);
	return lookup_token(s->db, hash, join->member);
}

/* A token lets one member in. */
static void spend_token(struct server *s, uint8_t hash[SHA256_DIGEST_LENGTH], uint64_t member)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdToken token = DROVER__CMD_TOKEN__INIT;

	token.hash.data = hash;
	token.hash.len = SHA256_DIGEST_LENGTH;
	token.used = true;
	token.member = member;
	cmd.body_case = DROVER__COMMAND__BODY_TOKEN;
	cmd.token = &token;
	leader_propose(s, &cmd, NULL, NULL);
}

static int same_node(struct server *s, const struct consensus_member *old, struct dr_error *err)
{
	/* It keeps its place until the new one has caught up (leader.c). */
	if (peers_lost(s, old->id))
		return 0;
	if (old->role == MEMBER_VOTER)
		return dr_error_set(
			err, DR_EREFUSED,
			"%s is a member already, and its coordinator answers: end it first, if it is to "
			"be replaced",
			old->node);
	consensus_remove(s->consensus, old->id, err);
	return dr_error_set(err, DR_EAGAIN, "an unfinished join of %s is being removed: try again",
			    old->node);
}

static int add_member(struct server *s, uint64_t id, const char *node, struct dr_error *err)
{
	struct consensus_member members[SERVER_PEERS_MAX];
	unsigned n = consensus_members(s->consensus, members, SERVER_PEERS_MAX);

	for (unsigned i = 0; i < n; i++)
		if (members[i].id == id)
			return 0;
	for (unsigned i = 0; i < n; i++) {
		if (strcmp(members[i].node, node) == 0 && same_node(s, &members[i], err) < 0)
			return -(int)err->code;
	}
	if (n == SERVER_PEERS_MAX)
		return dr_error_set(err, DR_EREFUSED, "a cluster has at most %d coordinators",
				    SERVER_PEERS_MAX);
	return consensus_add(s->consensus, id, node, err);
}

static void propose_member(struct server *s, uint64_t id, const char *node, uint32_t corosync_id)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdMember member = DROVER__CMD_MEMBER__INIT;

	member.member = id;
	member.node = (char *)(uintptr_t)node;
	member.corosync_id = corosync_id;
	cmd.body_case = DROVER__COMMAND__BODY_MEMBER;
	cmd.member = &member;
	leader_propose(s, &cmd, NULL, NULL);
}

/* --- a member whose log was lost --------------------------------------------------- */

static bool is_in(struct server *s, uint64_t id)
{
	struct consensus_member members[SERVER_PEERS_MAX];
	unsigned n = consensus_members(s->consensus, members, SERVER_PEERS_MAX);

	for (unsigned i = 0; i < n; i++)
		if (members[i].id == id)
			return true;
	return false;
}

bool join_is_in(struct server *s)
{
	return is_in(s, s->identity.member);
}

void join_again(struct server *s)
{
	Drover__PeerMsg msg = DROVER__PEER_MSG__INIT;
	Drover__PeerJoin join = DROVER__PEER_JOIN__INIT;

	if (s->identity.replaces == 0 || env_now_us(s->env) < s->next_join_us || join_is_in(s))
		return;
	s->next_join_us = env_now_us(s->env) + JOIN_AGAIN_US;
	join.node = s->conf.name;
	join.replaces = s->identity.replaces;
	msg.body_case = DROVER__PEER_MSG__BODY_JOIN;
	msg.join = &join;
	peers_send(s, &msg);
}

/* No token: who it was is in the member list still, corosync vouches for the host, and its old self is
 * silent.
 */
void join_again_in(struct server *s, uint64_t from, uint32_t nodeid, const Drover__PeerJoin *join)
{
	struct consensus_member members[SERVER_PEERS_MAX];
	unsigned n = consensus_members(s->consensus, members, SERVER_PEERS_MAX);
	struct dr_error err = DR_ERROR_INIT;

	if (!consensus_leads(s->consensus) || from == 0 || is_in(s, from))
		return;
	for (unsigned i = 0; i < n; i++) {
		if (members[i].id != join->replaces || strcmp(members[i].node, join->node) != 0)
			continue;
		if (!lookup_member_at(s->db, join->replaces, nodeid)) {
			log_warning("node %u wants the place of member %s, which is another corosync node's",
				    nodeid, members[i].node);
			return;
		}
		if (add_member(s, from, join->node, &err) < 0) {
			log_debug("%s: %s", join->node, err.text);
			return;
		}
		log_notice("member %s comes back without its log, as %llu", join->node,
			   (unsigned long long)from);
		propose_member(s, from, join->node, nodeid);
		return;
	}
	log_warning("%s wants to come back as a member, but is none: drover cluster join there, with a token",
		    join->node);
}

int join_requested(struct server *s, const Drover__JoinRequest *join, Drover__Response *answer_out)
{
	struct dr_error err = DR_ERROR_INIT;
	uint8_t hash[SHA256_DIGEST_LENGTH];
	char name[LOOKUP_NAME];
	int ret = 0;

	if (!token_fits(s, join, hash))
		ret = dr_error_set(
			&err, DR_EAUTH,
			"the token is wrong or was used: make a new one with drover cluster token");
	if (ret == 0 && (join->version != 0 ? join->version : 1) < rows_cluster_version(s->db))
		ret = dr_error_set(
			&err, DR_EREFUSED,
			"the cluster is at version %u, the coordinator of %s is older: upgrade it first",
			rows_cluster_version(s->db), join->node);
	if (ret == 0)
		ret = add_member(s, join->member, join->node, &err);
	/* "Joined" is said when it is committed: the next leader may not know of it otherwise. */
	if (ret == 0 && !consensus_members_settled(s->consensus))
		ret = -DR_EAGAIN;
	if (ret == -DR_EAGAIN)
		return ret;
	if (ret < 0) {
		answer_out->exit = (uint32_t)dr_err_exit(ret);
		answer_out->message = strdup(err.text);
		return 0;
	}
	spend_token(s, hash, join->member);
	propose_member(s, join->member, join->node, join->corosync_id);
	answer_out->cluster = malloc(sizeof(*answer_out->cluster));
	if (answer_out->cluster != NULL) {
		drover__cluster_status__init(answer_out->cluster);
		lookup_cluster(s->db, name);
		answer_out->cluster->cluster = strdup(name);
		answer_out->cluster->cluster_uuid.data = malloc(LOGDB_UUID);
		answer_out->cluster->cluster_uuid.len = LOGDB_UUID;
		answer_out->cluster->incarnation = s->identity.incarnation;
		memcpy(answer_out->cluster->cluster_uuid.data, s->identity.cluster_uuid, LOGDB_UUID);
	}
	log_notice("member %llu (%s) joins", (unsigned long long)join->member, join->node);
	return 0;
}
