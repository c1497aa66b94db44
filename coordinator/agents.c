/*
 * Agents' sessions. What an agent reports is compared with the applied rows, and the
 * difference is proposed as commands, again and again until the rows agree; what the rows
 * want of a host goes to its agent as one whole message whenever it may have changed.
 * Orders leave only while this member is in touch with the leader (SAFETY R7).
 */
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/names.h"
#include "coordinator/lookup.h"
#include "coordinator/orders.h"
#include "coordinator/reports.h"
#include "coordinator/rows.h"
#include "coordinator/rows.h"
#include "coordinator/server.h"

static uint64_t hash_bytes(const uint8_t *bytes, size_t size)
{
	uint64_t h = 14695981039346656037ull; /* FNV-1a */

	for (size_t i = 0; i < size; i++)
		h = (h ^ bytes[i]) * 1099511628211ull;
	return h;
}

/* Whether the same command was proposed a moment ago; remembers it otherwise. */
static bool under_way(struct agent *a, const Drover__Command *cmd)
{
	size_t size = drover__command__get_packed_size(cmd);
	DR_AUTO_FREE uint8_t *bytes = malloc(size + 1);
	uint64_t now = env_now_us(a->server->env);
	struct sent_command *oldest = &a->sent[0];
	uint64_t hash;

	if (bytes == NULL)
		return false;
	drover__command__pack(cmd, bytes);
	hash = hash_bytes(bytes, size);
	for (size_t i = 0; i < DR_ARRAY_SIZE(a->sent); i++) {
		if (a->sent[i].hash == hash && a->sent[i].until_us > now)
			return true;
		if (a->sent[i].until_us < oldest->until_us)
			oldest = &a->sent[i];
	}
	oldest->hash = hash;
	oldest->until_us = now + SERVER_RESEND_US;
	return false;
}

static void propose(void *data, const Drover__Command *cmd)
{
	struct agent *a = data;

	if (!under_way(a, cmd))
		peers_propose(a->server, cmd);
}

static void session_command(const struct agent *a, const char *coordinator, Drover__Command *cmd,
			    Drover__CmdNodeSession *session)
{
	drover__command__init(cmd);
	drover__cmd_node_session__init(session);
	session->node = a->node;
	session->boot_id.data = (uint8_t *)(uintptr_t)a->boot_id;
	session->boot_id.len = sizeof(a->boot_id);
	session->start_id.data = (uint8_t *)(uintptr_t)a->start_id;
	session->start_id.len = sizeof(a->start_id);
	session->coordinator = (char *)(uintptr_t)coordinator;
	if (a->saw && coordinator[0] != '\0' && rows_cluster_version(a->server->db) >= APPLY_V_SAW_BOOT) {
		session->saw_boot.data = (uint8_t *)(uintptr_t)a->saw_boot;
		session->saw_boot.len = sizeof(a->saw_boot);
	}
	cmd->body_case = DROVER__COMMAND__BODY_NODE_SESSION;
	cmd->node_session = session;
}

/* Looks at the newest report against the rows. */
static void check_report(struct agent *a)
{
	struct server *s = a->server;

	a->next_check_us = env_now_us(s->env) + SERVER_RESEND_US;
	if (!a->answered)
		return; /* its hello may have lain here since an earlier boot of that host */
	if (lookup_session(s->db, a->node, a->start_id, s->conf.name)) {
		a->claimed = true;
	} else {
		/* The session itself must be in the rows first: everything else is compared with it. */
		Drover__Command cmd;
		Drover__CmdNodeSession session;

		session_command(a, s->conf.name, &cmd, &session);
		propose(a, &cmd);
		return;
	}
	if (a->report != NULL)
		reports_commands(s->db, a->node, a->start_id, a->report, propose, a);
}

/* From proposing its fencing until it is decided, and for good while it runs a fenced boot, a host gets no
 * lease and no order (SAFETY R11). */
static bool barred(struct server *s, const char *node)
{
	struct node_row row;

	return (s->lease != NULL && lease_blocked(s->lease, node)) ||
	       (rows_node(s->db, node, &row) && rows_node_barred(&row));
}

static void send_orders(struct agent *a)
{
	struct server *s = a->server;
	Drover__Msg msg = DROVER__MSG__INIT;
	Drover__AgentOrders *orders;

	if (!server_in_touch(s) || !lookup_session(s->db, a->node, a->start_id, s->conf.name) ||
	    barred(s, a->node))
		return; /* stays dirty */
	orders = orders_build(s->db, a->node, consensus_term(s->consensus), consensus_applied(s->consensus),
			      a->start_id);
	if (orders == NULL)
		return;
	msg.body_case = DROVER__MSG__BODY_AGENT_ORDERS;
	msg.agent_orders = orders;
	if (conn_send(a->conn, &msg) == 0)
		a->dirty = false;
	drover__agent_orders__free_unpacked(orders, NULL);
}

/* Whose place was taken, or who is silent, must come again: a dead connection never fights for the row. */
static bool is_over(const struct agent *a, uint64_t now)
{
	return now > a->heard_us + SERVER_AGENT_SILENT_US ||
	       (a->claimed && !lookup_session(a->server->db, a->node, a->start_id, a->server->conf.name));
}

void agents_work(struct server *s)
{
	uint64_t now = env_now_us(s->env);
	struct agent *next;

	for (struct agent *a = s->agents; a != NULL; a = next) {
		next = a->next;
		if (is_over(a, now)) {
			struct conn *conn = a->conn;

			agents_lost(a, a->claimed ? "silent, or its place was taken" : "silent");
			clients_forget(s, conn);
			conn_close(conn);
			continue;
		}
		if (a->dirty || now >= a->next_check_us)
			check_report(a);
		if (a->dirty)
			send_orders(a);
	}
}

void agents_applied(struct server *s, const struct apply_result *result)
{
	for (struct agent *a = s->agents; a != NULL; a = a->next) {
		bool touched = result->touched_all;

		for (unsigned i = 0; !touched && i < result->n_touched; i++)
			touched = strcmp(result->touched[i], a->node) == 0;
		a->dirty = a->dirty || touched;
	}
}

void agents_granted(struct server *s, uint64_t term, const Drover__CmdLeaseRound *round)
{
	for (size_t i = 0; i < round->n_entries; i++) {
		const Drover__LeaseEntry *e = round->entries[i];
		Drover__Msg msg = DROVER__MSG__INIT;
		Drover__LeaseGrant grant = DROVER__LEASE_GRANT__INIT;

		for (struct agent *a = s->agents; a != NULL; a = a->next) {
			if (strcmp(a->node, e->node) != 0 || e->start_id.len != sizeof(a->start_id) ||
			    memcmp(a->start_id, e->start_id.data, sizeof(a->start_id)) != 0 ||
			    !lookup_session(s->db, a->node, a->start_id, s->conf.name) || barred(s, a->node))
				continue;
			grant.seq = e->seq;
			grant.duration_ms = round->duration_ms;
			grant.term = term;
			grant.cluster_incarnation = s->identity.incarnation;
			msg.body_case = DROVER__MSG__BODY_LEASE_GRANT;
			msg.lease_grant = &grant;
			conn_send(a->conn, &msg);
		}
	}
}

static void lease_in(struct agent *a, const Drover__LeaseRequest *request)
{
	struct server *s = a->server;
	Drover__PeerMsg msg = DROVER__PEER_MSG__INIT;
	Drover__PeerLease lease = DROVER__PEER_LEASE__INIT;
	Drover__LeaseEntry entry = DROVER__LEASE_ENTRY__INIT;
	Drover__LeaseEntry *entries[1] = {&entry};

	if (!lookup_session(s->db, a->node, a->start_id, s->conf.name))
		return;
	entry.node = a->node;
	entry.start_id.data = a->start_id;
	entry.start_id.len = sizeof(a->start_id);
	entry.seq = request->seq;
	if (consensus_leads(s->consensus)) {
		leader_lease_request(s, a->node, a->start_id, request->seq);
		return;
	}
	msg.to = consensus_leader(s->consensus, NULL);
	if (msg.to == 0)
		return;
	lease.entries = entries;
	lease.n_entries = 1;
	msg.body_case = DROVER__PEER_MSG__BODY_LEASE;
	msg.lease = &lease;
	peers_send(s, &msg);
}

static void report_in(struct agent *a, const Drover__AgentReport *report)
{
	size_t size = drover__agent_report__get_packed_size(report);
	DR_AUTO_FREE uint8_t *bytes = malloc(size + 1);

	if (bytes == NULL)
		return;
	drover__agent_report__pack(report, bytes);
	if (a->report != NULL)
		drover__agent_report__free_unpacked(a->report, NULL);
	a->report = drover__agent_report__unpack(NULL, size, bytes);
	check_report(a);
}

static void progress_in(struct agent *a, const Drover__Progress *progress)
{
	Drover__PeerMsg msg = DROVER__PEER_MSG__INIT;

	figures_progress(a->server->figures, progress, env_now_us(a->server->env));
	msg.body_case = DROVER__PEER_MSG__BODY_PROGRESS;
	msg.progress = (Drover__Progress *)(uintptr_t)progress;
	peers_send(a->server, &msg);
}

void agents_on_message(struct agent *a, const Drover__Msg *msg)
{
	a->heard_us = env_now_us(a->server->env);
	a->answered = true;
	switch (msg->body_case) {
	case DROVER__MSG__BODY_AGENT_REPORT:
		report_in(a, msg->agent_report);
		return;
	case DROVER__MSG__BODY_LEASE_REQUEST:
		lease_in(a, msg->lease_request);
		return;
	case DROVER__MSG__BODY_PROGRESS:
		progress_in(a, msg->progress);
		return;
	case DROVER__MSG__BODY_PING:
		return;
	case DROVER__MSG__BODY_HELLO:
	case DROVER__MSG__BODY_WELCOME:
	case DROVER__MSG__BODY_REQUEST:
	case DROVER__MSG__BODY_RESPONSE:
	case DROVER__MSG__BODY_AGENT_ORDERS:
	case DROVER__MSG__BODY_LEASE_GRANT:
	case DROVER__MSG__BODY_RELAY_COMMAND:
	case DROVER__MSG__BODY_RELAY_EVENT:
	case DROVER__MSG__BODY__NOT_SET:
	case _DROVER__MSG__BODY__CASE_IS_INT_SIZE:
		log_warning("node %s: unexpected message %d from its agent; dropped", a->node,
			    (int)msg->body_case);
	}
}

static void welcome(struct server *s, struct conn *conn, unsigned code, const char *text)
{
	Drover__Msg msg = DROVER__MSG__INIT;
	Drover__Welcome w = DROVER__WELCOME__INIT;
	char cluster[LOOKUP_NAME];

	w.protocol = 1;
	w.node = s->conf.name;
	w.exit = code;
	w.message = (char *)(uintptr_t)text;
	if (s->consensus != NULL) {
		lookup_cluster(s->db, cluster);
		w.cluster = cluster;
		w.cluster_uuid.data = s->identity.cluster_uuid;
		w.cluster_uuid.len = LOGDB_UUID;
		w.incarnation = s->identity.incarnation;
	}
	msg.body_case = DROVER__MSG__BODY_WELCOME;
	msg.welcome = &w;
	conn_send(conn, &msg);
}

/* The agent of this host in an older session: its connection is dead, it has only not been noticed. */
static void replace_older(struct server *s, const char *node)
{
	for (struct client *c = s->clients; c != NULL; c = c->next) {
		if (c->agent != NULL && strcmp(c->agent->node, node) == 0) {
			struct conn *conn = c->conn;

			agents_lost(c->agent, "its agent has connected anew");
			clients_forget(s, conn);
			conn_close(conn);
			return;
		}
	}
}

void agents_hello(struct server *s, struct client *client, const Drover__Hello *hello)
{
	struct dr_error err = DR_ERROR_INIT;
	char cluster[LOOKUP_NAME];
	struct agent *a;

	if (s->consensus == NULL || !lookup_cluster(s->db, cluster) || !server_in_touch(s)) {
		welcome(s, client->conn, DR_ENOQUORUM,
			"this coordinator is not in touch with a quorum; try another");
		return;
	}
	if (names_check(hello->node, "node", &err) < 0 || hello->boot_id.len != sizeof(a->boot_id) ||
	    hello->start_id.len != sizeof(a->start_id)) {
		welcome(s, client->conn, DR_EUSAGE,
			"the agent's hello lacks a node name, boot id or start id");
		return;
	}
	replace_older(s, hello->node);
	a = calloc(1, sizeof(*a));
	if (a == NULL || (a->node = strdup(hello->node)) == NULL) {
		free(a);
		return;
	}
	a->server = s;
	a->conn = client->conn;
	memcpy(a->boot_id, hello->boot_id.data, sizeof(a->boot_id));
	memcpy(a->start_id, hello->start_id.data, sizeof(a->start_id));
	a->dirty = true;
	a->heard_us = env_now_us(s->env);
	a->next = s->agents;
	s->agents = a;
	client->agent = a;
	a->saw = lookup_boot(s->db, a->node, a->saw_boot);
	welcome(s, a->conn, 0, "");
	log_notice("node %s: agent connected from %s", a->node, conn_peer_name(a->conn));
}

bool agents_connected(struct server *s, const char *node, const uint8_t start_id[16])
{
	for (const struct agent *a = s->agents; a != NULL; a = a->next) {
		if (strcmp(a->node, node) == 0 && memcmp(a->start_id, start_id, sizeof(a->start_id)) == 0)
			return true;
	}
	return false;
}

void agents_lost(struct agent *a, const char *why)
{
	Drover__Command cmd;
	Drover__CmdNodeSession session;

	log_notice("node %s: agent's session ended: %s", a->node, why);
	if (!a->server->stopping) {
		session_command(a, "", &cmd, &session);
		session.was = a->server->conf.name;
		peers_propose(a->server, &cmd);
	}
	agents_free(a);
}

void agents_free(struct agent *a)
{
	struct agent **at = &a->server->agents;

	while (*at != a)
		at = &(*at)->next;
	*at = a->next;
	for (struct client *c = a->server->clients; c != NULL; c = c->next) {
		if (c->agent == a)
			c->agent = NULL;
	}
	if (a->report != NULL)
		drover__agent_report__free_unpacked(a->report, NULL);
	free(a->node);
	free(a);
}

void agents_dismiss(struct server *s)
{
	struct client *next;

	for (struct client *c = s->clients; c != NULL; c = next) {
		struct conn *conn = c->conn;

		next = c->next;
		if (c->agent == NULL)
			continue;
		agents_free(c->agent);
		c->agent = NULL;
		clients_forget(s, conn);
		conn_close(conn);
	}
}
