/*
 * Requests of the command line. Reads are answered here from applied rows. A mutating
 * request is kept as pending, handed to the leader (this member, or over CPG, again and
 * again until its deadline), and answered when its command is applied *here*: the
 * request id in the command finds it. The leader's dedupe by id makes repetition safe.
 */
#include <grp.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/mutant.h"
#include "coordinator/lookup.h"
#include "coordinator/server.h"

#define READ_GROUP "drover-read"

static void respond(struct conn *conn, Drover__Response *r, const ProtobufCBinaryData *id)
{
	Drover__Msg msg = DROVER__MSG__INIT;

	if (conn == NULL)
		return;
	r->id = *id;
	msg.body_case = DROVER__MSG__BODY_RESPONSE;
	msg.response = r;
	if (conn_send(conn, &msg) < 0)
		log_warning("%s: the answer could not be sent", conn_peer_name(conn));
	memset(&r->id, 0, sizeof(r->id));
}

/* --- members ----------------------------------------------------------------------- */

static const char *member_state(struct server *s, const struct consensus_member *m)
{
	if (m->id == consensus_leader(s->consensus, NULL))
		return "leader";
	if (m->id != consensus_self(s->consensus) && peers_lost(s, m->id))
		return "lost";
	switch (m->role) {
	case MEMBER_VOTER:
		return "voter";
	case MEMBER_LEARNER:
		return "learner";
	case MEMBER_JOINING:
		return "joining";
	}
	return "";
}

static void coordinator_row(struct server *s, const struct consensus_member *m, Drover__CoordinatorRow *row)
{
	const struct own_digest *own = &s->digests[consensus_applied(s->consensus) % SERVER_DIGESTS];
	const uint8_t *digest = own->digest;
	size_t size = sizeof(own->digest);

	drover__coordinator_row__init(row);
	row->name = strdup(m->node);
	row->member = m->id;
	row->state = strdup(member_state(s, m));
	row->index = consensus_applied(s->consensus);
	if (m->id != consensus_self(s->consensus)) {
		const struct peer *p = peers_find(s, m->id);

		row->index = p->index;
		digest = p->digest;
		row->error = strdup(p->diverged ? "its state differs from this coordinator's" : p->error);
	}
	row->digest.data = malloc(size);
	if (row->digest.data != NULL) {
		memcpy(row->digest.data, digest, size);
		row->digest.len = size;
	}
}

/* What the rows can't know: members and leadership. */
static void add_members(struct server *s, Drover__ClusterStatus *status)
{
	struct consensus_member members[SERVER_PEERS_MAX];
	unsigned n = consensus_members(s->consensus, members, SERVER_PEERS_MAX);
	const char *leader = NULL;

	consensus_leader(s->consensus, &leader);
	free(status->leader != protobuf_c_empty_string ? status->leader : NULL);
	free(status->mode != protobuf_c_empty_string ? status->mode : NULL);
	status->leader = strdup(leader != NULL ? leader : "");
	status->mode = strdup(s->corosync != NULL ? "corosync" : "standalone");
	status->quorate = s->transport->quorate(s->transport) && leader != NULL;
	status->term = consensus_term(s->consensus);
	status->index = consensus_applied(s->consensus);
	status->coordinators = calloc(n + 1, sizeof(*status->coordinators));
	for (unsigned i = 0; status->coordinators != NULL && i < n; i++) {
		Drover__CoordinatorRow *row = malloc(sizeof(*row));

		if (row == NULL)
			return;
		coordinator_row(s, &members[i], row);
		status->coordinators[status->n_coordinators++] = row;
	}
}

/* --- pending ----------------------------------------------------------------------- */

static Drover__Request *copy_request(const Drover__Request *request)
{
	size_t size = drover__request__get_packed_size(request);
	DR_AUTO_FREE uint8_t *bytes = malloc(size + 1);

	if (bytes == NULL)
		return NULL;
	drover__request__pack(request, bytes);
	return drover__request__unpack(NULL, size, bytes);
}

static void pending_remove(struct server *s, struct pending *p)
{
	struct pending **at = &s->pending;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	drover__request__free_unpacked(p->request, NULL);
	free(p);
}

static struct pending *pending_find(struct server *s, const uint8_t *id, size_t len)
{
	if (len != SERVER_REQUEST_ID)
		return NULL;
	for (struct pending *p = s->pending; p != NULL; p = p->next) {
		if (memcmp(p->request->id.data, id, len) == 0)
			return p;
	}
	return NULL;
}

/* Sends the answer to whoever asked and forgets the request. */
static void pending_answer(struct server *s, struct pending *p, Drover__Response *r)
{
	Drover__PeerMsg msg = DROVER__PEER_MSG__INIT;
	Drover__PeerForwardReply reply = DROVER__PEER_FORWARD_REPLY__INIT;

	r->index = consensus_applied(s->consensus);
	r->utc_us = env_utc_us(s->env);
	if (p->from == 0) {
		respond(p->conn, r, &p->request->id);
	} else {
		r->id = p->request->id;
		reply.response = r;
		msg.to = p->from;
		msg.body_case = DROVER__PEER_MSG__BODY_FORWARD_REPLY;
		msg.forward_reply = &reply;
		peers_send(s, &msg);
		memset(&r->id, 0, sizeof(r->id));
	}
	pending_remove(s, p);
}

static void pending_refuse(struct server *s, struct pending *p, enum dr_err code, const char *text)
{
	Drover__Response r = DROVER__RESPONSE__INIT;

	r.exit = (uint32_t)code;
	r.message = (char *)(uintptr_t)text;
	pending_answer(s, p, &r);
}

static void forward(struct server *s, struct pending *p)
{
	Drover__PeerMsg msg = DROVER__PEER_MSG__INIT;
	Drover__PeerForward fwd = DROVER__PEER_FORWARD__INIT;

	msg.to = consensus_leader(s->consensus, NULL);
	if (msg.to == 0 || msg.to == consensus_self(s->consensus))
		return;
	p->handed_on = true;
	fwd.request = p->request;
	fwd.who = p->who;
	msg.body_case = DROVER__PEER_MSG__BODY_FORWARD;
	msg.forward = &fwd;
	peers_send(s, &msg);
}

static bool is_read(const Drover__Request *request)
{
	return request_class(request) == REQUEST_READ;
}

struct read_barrier {
	struct server *server;
	uint8_t id[SERVER_REQUEST_ID];
};

/* Everything that was committed before the read began is applied here. */
static void barrier_passed(void *data, int status)
{
	struct read_barrier *b = data;
	struct pending *p = pending_find(b->server, b->id, sizeof(b->id));
	Drover__Response *r = NULL;

	if (p != NULL && status == 0)
		r = requests_read(b->server->db, b->server->env, &b->server->view, p->request);
	if (r != NULL && !server_state_failed(b->server)) {
		if (r->cluster != NULL)
			add_members(b->server, r->cluster);
		pending_answer(b->server, p, r);
	} else if (p != NULL) {
		p->proposed = false;
	}
	drover__response__free_unpacked(r, NULL);
	free(b);
}

static int read_through_barrier(struct server *s, struct pending *p)
{
	struct read_barrier *b = malloc(sizeof(*b));
	int ret;

	if (b == NULL)
		return -DR_ENOMEM;
	b->server = s;
	memcpy(b->id, p->request->id.data, sizeof(b->id));
	ret = consensus_barrier(s->consensus, barrier_passed, b);
	if (ret < 0)
		free(b);
	return ret;
}

static int make_token(struct server *s, struct pending *p)
{
	uint8_t random[SERVER_TOKEN_BYTES];
	ProtobufCBinaryData *hash = &p->request->token_hash;

	env_random(s->env, random, sizeof(random));
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(p->token + 2 * i, 3, "%02x", random[i]);
	free(hash->data);
	hash->len = SHA256_DIGEST_LENGTH;
	hash->data = malloc(hash->len);
	if (hash->data == NULL)
		return -DR_ENOMEM;
	SHA256((const uint8_t *)p->token, strlen(p->token), hash->data);
	return 0;
}

/* Hands the request to whoever leads now. p may be gone afterwards. */
static void pending_try(struct server *s, struct pending *p)
{
	Drover__Response r = DROVER__RESPONSE__INIT;
	Drover__Response *answer;
	int ret;

	p->again_us = env_now_us(s->env) + SERVER_FORWARD_US;
	/* The first member has only just begun to talk to corosync. */
	if (!s->transport->quorate(s->transport) &&
	    p->request->verb_case == DROVER__REQUEST__VERB_CLUSTER_INIT)
		return;
	/* Once it was proposed or handed on, it may still be committed: only its deadline ends the wait. */
	if (!s->transport->quorate(s->transport) && p->handed_on)
		return;
	if (!s->transport->quorate(s->transport)) {
		pending_refuse(s, p, DR_ENOQUORUM,
			       "no quorum on this side of the cluster: nothing was changed");
		return;
	}
	if (!consensus_leads(s->consensus)) {
		if (p->from != 0)
			pending_remove(s, p); /* its own coordinator asks the new leader */
		else
			forward(s, p);
		return;
	}
	if (p->proposed && p->proposed_term == consensus_term(s->consensus))
		return;
	answer = malloc(sizeof(*answer));
	if (answer == NULL)
		return;
	*answer = r;
	ret = is_read(p->request) ? read_through_barrier(s, p)
				  : leader_request(s, p->request, p->who, answer);
	if (server_state_failed(s))
		ret = -DR_EIO; /* the client asks another coordinator */
	if (ret == 1) {
		pending_answer(s, p, answer);
	} else if (ret == 0) {
		p->proposed = true;
		p->handed_on = true;
		p->proposed_term = consensus_term(s->consensus);
		if (DR_MUTANT(answer_before_commit)) {
			answer->changed = true;
			pending_answer(s, p, answer);
		}
	} else if (ret == 2) {
		p->handed_on = true;
	}
	drover__response__free_unpacked(answer, NULL);
}

void clients_submit(struct server *s, const Drover__Request *request, const char *who, struct conn *conn,
		    uint64_t from)
{
	struct pending *p = pending_find(s, request->id.data, request->id.len);
	uint64_t timeout_ms = request->timeout_ms != 0 ? request->timeout_ms : SERVER_TIMEOUT_MS;

	if (p != NULL) { /* repeated by its client or its coordinator */
		if (conn != NULL)
			p->conn = conn;
		return;
	}
	p = calloc(1, sizeof(*p));
	if (p == NULL || (p->request = copy_request(request)) == NULL) {
		free(p);
		return;
	}
	p->server = s;
	p->conn = conn;
	p->from = from;
	snprintf(p->who, sizeof(p->who), "%s", who);
	if (from == 0 && request->verb_case == DROVER__REQUEST__VERB_CLUSTER_TOKEN && make_token(s, p) < 0) {
		drover__request__free_unpacked(p->request, NULL);
		free(p);
		return;
	}
	p->deadline_us = env_now_us(s->env) + timeout_ms * 1000;
	p->next = s->pending;
	s->pending = p;
	pending_try(s, p);
}

void clients_applied(struct server *s, uint64_t index, const Drover__Command *cmd,
		     const struct apply_result *result)
{
	struct pending *p = pending_find(s, cmd->request_id.data, cmd->request_id.len);
	Drover__Response *r;

	if (p == NULL)
		return;
	if (p->from != 0) { /* its own coordinator answers, when it has applied the command */
		pending_remove(s, p);
		return;
	}
	r = response_from_result(s->db, &s->view, p->request, index, result);
	if (r == NULL) {
		pending_refuse(s, p, DR_EFAILED, "done, but the answer could not be made: out of memory");
		return;
	}
	if (p->token[0] != '\0' && r->exit == 0)
		r->token = strdup(p->token);
	pending_answer(s, p, r);
	drover__response__free_unpacked(r, NULL);
}

void clients_answered(struct server *s, const Drover__Response *response)
{
	struct pending *p = pending_find(s, response->id.data, response->id.len);
	size_t size = drover__response__get_packed_size(response);
	DR_AUTO_FREE uint8_t *bytes = NULL;
	Drover__Response *r;

	if (p == NULL || p->from != 0 || (bytes = malloc(size + 1)) == NULL)
		return;
	drover__response__pack(response, bytes);
	r = drover__response__unpack(NULL, size, bytes);
	if (r == NULL)
		return;
	free(r->id.data);
	memset(&r->id, 0, sizeof(r->id));
	pending_answer(s, p, r);
	drover__response__free_unpacked(r, NULL);
}

void clients_tick(struct server *s)
{
	uint64_t now = env_now_us(s->env);
	struct pending *next;

	for (struct pending *p = s->pending; p != NULL; p = next) {
		next = p->next;
		if (now >= p->deadline_us && p->handed_on)
			pending_refuse(s, p, DR_ETIMEOUT,
				       "not answered in time: it may still be done; look, or repeat it with "
				       "the same id");
		else if (now >= p->deadline_us)
			pending_refuse(s, p, DR_ENOQUORUM, "no leader in time: nothing was changed");
		else if (now >= p->again_us)
			pending_try(s, p);
	}
}

/* --- reading ----------------------------------------------------------------------- */

static void answer_read(struct server *s, const Drover__Request *request, struct conn *conn)
{
	Drover__Response *r = requests_read(s->db, s->env, &s->view, request);
	Drover__Response none = DROVER__RESPONSE__INIT;

	if (r == NULL || server_state_failed(s)) {
		none.exit = DR_EFAILED;
		none.message = (char *)(uintptr_t)(r == NULL ? "out of memory" : "the state can't be read");
		respond(conn, &none, &request->id);
		drover__response__free_unpacked(r, NULL);
		return;
	}
	if (r->cluster != NULL)
		add_members(s, r->cluster);
	r->stale = !server_in_touch(s);
	r->index = consensus_applied(s->consensus);
	r->utc_us = env_utc_us(s->env);
	respond(conn, r, &request->id);
	drover__response__free_unpacked(r, NULL);
}

/* A coordinator that is in no cluster yet. */
static void answer_fresh(const Drover__Request *request, struct conn *conn)
{
	Drover__Response r = DROVER__RESPONSE__INIT;

	r.exit = DR_EREFUSED;
	r.message = (char *)(uintptr_t) "this coordinator is in no cluster yet: drover cluster init --name "
					"NAME, or "
					"drover cluster join ADDR --token T";
	respond(conn, &r, &request->id);
}

static void refuse(struct conn *conn, const Drover__Request *request, enum dr_err code, const char *text)
{
	Drover__Response r = DROVER__RESPONSE__INIT;

	r.exit = (uint32_t)code;
	r.message = (char *)(uintptr_t)text;
	respond(conn, &r, &request->id);
}

/* Not for readers: the state holds the keys of open attempts. */
static void answer_backup(struct server *s, const Drover__Request *request, struct conn *conn)
{
	Drover__Response r = DROVER__RESPONSE__INIT;
	struct dr_error err = DR_ERROR_INIT;
	int ret = backup_piece(s, request->cluster_backup->offset, &r, &err);

	r.stale = !server_in_touch(s);
	r.index = consensus_applied(s->consensus);
	if (ret < 0) {
		r.exit = (uint32_t)dr_err_exit(ret);
		r.message = err.text;
	}
	respond(conn, &r, &request->id);
	free(r.backup.data);
}

static void answer_force(struct server *s, const Drover__Request *request, struct conn *conn)
{
	Drover__Response r = DROVER__RESPONSE__INIT;
	struct dr_error err = DR_ERROR_INIT;
	int ret = force_quorum(s, request->force_quorum, request->dry_run, &err);

	r.changed = ret == 0 && !request->dry_run;
	if (ret < 0) {
		r.exit = (uint32_t)dr_err_exit(ret);
		r.message = err.text;
	}
	respond(conn, &r, &request->id);
	if (r.changed)
		server_begin_anew(s);
}

static void on_request(struct client *c, const Drover__Request *request)
{
	struct server *s = c->server;

	if (request->id.len != SERVER_REQUEST_ID) {
		refuse(c->conn, request, DR_EUSAGE, "the request has no 16-byte id");
	} else if (!is_read(request) && !c->may_write) {
		refuse(c->conn, request, DR_EAUTH,
		       "you may read only: mutating needs root or the group drover");
	} else if (request->verb_case == DROVER__REQUEST__VERB_CLUSTER_INIT) {
		join_init(s, request, c->conn);
	} else if (request->verb_case == DROVER__REQUEST__VERB_CLUSTER_JOIN) {
		join_begin(s, request, c->conn);
	} else if (s->consensus == NULL) {
		answer_fresh(request, c->conn);
	} else if (request->verb_case == DROVER__REQUEST__VERB_CLUSTER_BACKUP) {
		answer_backup(s, request, c->conn);
	} else if (request->verb_case == DROVER__REQUEST__VERB_FORCE_QUORUM) {
		answer_force(s, request, c->conn);
	} else if (is_read(request) && !request->consistent) {
		answer_read(s, request, c->conn);
	} else {
		clients_submit(s, request, c->who, c->conn, 0);
	}
}

/* --- sessions ---------------------------------------------------------------------- */

static void on_hello(struct client *c, const Drover__Hello *hello)
{
	struct server *s = c->server;
	Drover__Msg msg = DROVER__MSG__INIT;
	Drover__Welcome welcome = DROVER__WELCOME__INIT;
	char cluster[LOOKUP_NAME];

	if (hello->role == DROVER__HELLO__ROLE__AGENT && c->may_write) {
		agents_hello(s, c, hello);
		return;
	}
	c->greeted = true;
	if (hello->role == DROVER__HELLO__ROLE__AGENT) {
		welcome.exit = DR_EAUTH;
		welcome.message =
			(char *)(uintptr_t) "you may read only: an agent needs the cluster key, or root";
	}
	welcome.protocol = 1;
	welcome.node = s->conf.name;
	if (s->consensus != NULL) {
		lookup_cluster(s->db, cluster);
		welcome.cluster = cluster;
		welcome.cluster_uuid.data = s->identity.cluster_uuid;
		welcome.cluster_uuid.len = LOGDB_UUID;
	}
	msg.body_case = DROVER__MSG__BODY_WELCOME;
	msg.welcome = &welcome;
	conn_send(c->conn, &msg);
}

void clients_on_message(struct conn *conn, const Drover__Msg *msg, void *data)
{
	struct client *c = data;

	if (c->agent != NULL) {
		agents_on_message(c->agent, msg);
	} else if (msg->body_case == DROVER__MSG__BODY_HELLO) {
		on_hello(c, msg->hello);
	} else if (c->greeted && msg->body_case == DROVER__MSG__BODY_REQUEST) {
		on_request(c, msg->request);
	} else {
		log_warning("%s: unexpected message %d; connection ended", c->who, (int)msg->body_case);
		clients_forget(c->server, conn);
		conn_close(conn);
	}
}

void clients_on_close(struct conn *conn, const struct dr_error *why, void *data)
{
	struct client *c = data;

	if (c->agent != NULL)
		agents_lost(c->agent, why->text);
	else
		log_debug("%s: connection ended: %s", c->who, why->text);
	clients_forget(c->server, conn);
}

static bool in_group(gid_t gid, const char *name)
{
	struct group entry, *found = NULL;
	char buf[4096];

	return getgrnam_r(name, &entry, buf, sizeof(buf), &found) == 0 && found != NULL &&
	       found->gr_gid == gid;
}

void *clients_accept(struct listener *listener, struct conn *conn, void *data)
{
	struct server *s = data;
	struct client *c = calloc(1, sizeof(*c));

	(void)listener;
	if (c == NULL)
		abort(); /* nothing of the state is lost by a restart */
	c->server = s;
	c->conn = conn;
	c->may_write =
		!conn_is_unix(conn) || conn_peer_uid(conn) == 0 || !in_group(conn_peer_gid(conn), READ_GROUP);
	snprintf(c->who, sizeof(c->who), "%s on %s", conn_peer_name(conn), s->conf.name);
	c->next = s->clients;
	s->clients = c;
	return c;
}

void clients_forget(struct server *s, struct conn *conn)
{
	for (struct pending *p = s->pending; p != NULL; p = p->next) {
		if (p->conn == conn)
			p->conn = NULL;
	}
	join_conn_closed(s, conn);
	for (struct client **at = &s->clients; *at != NULL; at = &(*at)->next) {
		struct client *c = *at;

		if (c->conn != conn)
			continue;
		*at = c->next;
		free(c);
		return;
	}
}

void clients_free(struct server *s)
{
	while (s->pending != NULL)
		pending_remove(s, s->pending);
	while (s->clients != NULL) {
		struct conn *conn = s->clients->conn;

		if (s->clients->agent != NULL)
			agents_free(s->clients->agent);
		clients_forget(s, conn);
		conn_close(conn);
	}
}
