/* An agent's session, as agent/session.c keeps it, over the simulated connections. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"

#include "agent/session.h"
#include "common/mutant.h"
#include "proto/conn.h"
#include "sim_agent.h"

enum session_state { WAITING, CONNECTING, OPEN };

struct session_sim {
	struct party party; /* first */
	struct sim_agent *agent;
	struct conn *conn;
	enum session_state state;
	unsigned next;
	uint64_t backoff_us;
	uint64_t heard_us;
	uint32_t epoch; /* timers of an earlier one are void */
	bool leaving;
};

static struct session_sim *session_of(struct sim_agent *agent)
{
	return agent->session_data;
}

static void later(struct session_sim *s, uint64_t delay, void (*fn)(struct sim *, struct sim_event *))
{
	struct sim_event *ev = sim_post(s->party.sim, delay, &s->agent->proc, fn, s);

	ev->a = ++s->epoch;
}

static void ev_connect(struct sim *sim, struct sim_event *ev);

static void lose(struct session_sim *s, const char *why)
{
	struct sim_agent *agent = s->agent;

	sim_trace(agent->host->sim, "%s: coordinator lost: %s", agent->host->name, why);
	if (s->conn != NULL)
		conn_close(s->conn);
	s->conn = NULL;
	s->state = WAITING;
	sim_agent_session_lost(agent);
	agent_lease_forget_requests(&agent->lease);
	later(s, s->backoff_us, ev_connect);
	s->backoff_us =
		s->backoff_us * 2 > SESSION_BACKOFF_MAX_US ? SESSION_BACKOFF_MAX_US : s->backoff_us * 2;
}

/* ---------------------------------------------------------------- leases */

static void ev_lease(struct sim *sim, struct sim_event *ev)
{
	struct session_sim *s = ev->obj;
	struct sim_agent *agent = s->agent;
	uint64_t now = env_now_us(&agent->env);
	Drover__Msg msg = DROVER__MSG__INIT;
	Drover__LeaseRequest req = DROVER__LEASE_REQUEST__INIT;

	(void)sim;
	if (ev->a != s->epoch || s->state != OPEN)
		return;
	if (now - s->heard_us > SESSION_SILENCE_US) {
		lose(s, "grants no lease");
		return;
	}
	req.seq = agent_lease_request(&agent->lease, now);
	msg.body_case = DROVER__MSG__BODY_LEASE_REQUEST;
	msg.lease_request = &req;
	conn_send(s->conn, &msg);
	later(s, agent_lease_valid(&agent->lease, now) ? LEASE_REQUEST_US : LEASE_HURRY_US, ev_lease);
}

/* ---------------------------------------------------------------- messages */

static void got_welcome(struct session_sim *s, const Drover__Welcome *w)
{
	struct sim_agent *agent = s->agent;

	if (w->exit != 0) {
		lose(s, w->message);
		return;
	}
	if (s->state == OPEN)
		return;
	if (!sim_agent_incarnation(agent, w->incarnation)) {
		lose(s, "belongs to an incarnation of the cluster that this host has left behind");
		return;
	}
	s->state = OPEN;
	s->backoff_us = SESSION_BACKOFF_MIN_US;
	s->heard_us = env_now_us(&agent->env);
	sim_agent_session_up(agent, (int)s->next);
	later(s, 1, ev_lease);
}

static void got_orders(struct session_sim *s, const Drover__AgentOrders *o)
{
	struct sim_agent *agent = s->agent;

	if (o->start_id.len != sizeof(agent->start_id) ||
	    memcmp(o->start_id.data, agent->start_id, sizeof(agent->start_id)) != 0)
		return; /* for another start */
	cluster_check_orders(agent, o);
	sim_agent_orders(agent, o);
}

static void on_message(struct conn *conn, const Drover__Msg *msg, void *data)
{
	struct session_sim *s = data;
	struct sim_agent *agent = s->agent;

	(void)conn;
	agent->host->sim->running = agent;
	if (msg->body_case == DROVER__MSG__BODY_WELCOME) {
		got_welcome(s, msg->welcome);
	} else if (s->state == OPEN && msg->body_case == DROVER__MSG__BODY_AGENT_ORDERS) {
		got_orders(s, msg->agent_orders);
	} else if (s->state == OPEN && msg->body_case == DROVER__MSG__BODY_LEASE_GRANT) {
		if (msg->lease_grant->cluster_incarnation != agent->cluster_incarnation &&
		    msg->lease_grant->cluster_incarnation != 0)
			return;
		s->heard_us = env_now_us(&agent->env);
		sim_agent_grant(agent, msg->lease_grant->seq, msg->lease_grant->duration_ms,
				msg->lease_grant->term);
	}
}

static void on_close(struct conn *conn, const struct dr_error *why, void *data)
{
	struct session_sim *s = data;

	(void)conn;
	s->conn = NULL;
	lose(s, why->text);
}

static const struct conn_ops ops = {.on_message = on_message, .on_close = on_close};

/* ---------------------------------------------------------------- connecting */

static void ev_welcome_late(struct sim *sim, struct sim_event *ev)
{
	struct session_sim *s = ev->obj;

	(void)sim;
	if (ev->a == s->epoch && s->state == CONNECTING)
		lose(s, "no welcome in time");
}

static void ev_connect(struct sim *sim, struct sim_event *ev)
{
	struct session_sim *s = ev->obj;
	struct sim_agent *agent = s->agent;
	Drover__Msg msg = DROVER__MSG__INIT;
	Drover__Hello hello = DROVER__HELLO__INIT;
	char address[32];

	if (ev->a != s->epoch || s->state != WAITING)
		return;
	s->next = (s->next + 1) % sim->cluster->n_coords;
	snprintf(address, sizeof(address), "%s:7420", sim->cluster->coords[s->next].name);
	s->state = CONNECTING;
	s->conn = conn_connect((qb_loop_t *)s, address, NULL, &ops, s, NULL);
	hello.protocol = 1;
	hello.role = DROVER__HELLO__ROLE__AGENT;
	hello.node = agent->host->name;
	hello.boot_id.data = sim->cluster->boot_id[agent->host->id];
	hello.boot_id.len = 16;
	hello.start_id.data = agent->start_id;
	hello.start_id.len = sizeof(agent->start_id);
	msg.body_case = DROVER__MSG__BODY_HELLO;
	msg.hello = &hello;
	later(s, SESSION_WELCOME_US, ev_welcome_late);
	conn_send(s->conn, &msg);
}

void cluster_agent_init(struct sim_host *h)
{
	struct session_sim *s = malloc(sizeof(*s));

	if (s == NULL)
		abort();
	h->agent.session_data = s;
	*s = (struct session_sim){.party = {.sim = h->sim, .proc = &h->agent.proc, .site = h->id},
				  .agent = &h->agent,
				  .next = h->id};
}

void cluster_agent_started(struct sim_agent *agent)
{
	struct session_sim *s = session_of(agent);

	agent->obeyed[2] = 0;
	s->conn = NULL;
	s->state = WAITING;
	s->backoff_us = SESSION_BACKOFF_MIN_US;
	later(s, 1000, ev_connect);
	cluster_vm_restart(agent);
}

void cluster_agent_died(struct sim_agent *agent)
{
	struct session_sim *s = session_of(agent);

	s->conn = NULL;
	s->state = WAITING;
	conns_process_gone(agent->host->sim, &agent->proc, true);
}

/* ---------------------------------------------------------------- struct sim_agent_ops */

static void report(struct sim_agent *agent, Drover__AgentReport *r)
{
	struct session_sim *s = session_of(agent);
	Drover__Msg msg = DROVER__MSG__INIT;

	if (s->state != OPEN)
		return;
	msg.body_case = DROVER__MSG__BODY_AGENT_REPORT;
	msg.agent_report = r;
	conn_send(s->conn, &msg);
}

static void unused_connect(struct sim_agent *agent)
{
	(void)agent;
}

static void unused_lease(struct sim_agent *agent, uint64_t seq)
{
	(void)agent;
	(void)seq;
}

const struct sim_agent_ops cluster_agent_ops = {
	.connect = unused_connect, .report = report, .lease = unused_lease};
