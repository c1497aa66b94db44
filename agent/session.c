#include "agent/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/facts.h"
#include "agent/move_real.h"
#include "agent/reconcile.h"
#include "agent/stray.h"
#include "agent/vm.h"
#include "common/log.h"
#include "common/tls.h"
#include "proto/conn.h"

enum session_state { SESSION_WAITING, SESSION_CONNECTING, SESSION_OPEN };

struct session {
	struct agent *agent;
	struct tls_psk *psk;
	struct conn *conn;
	enum session_state state;
	size_t next; /* of conf.connect */
	uint64_t backoff_us;
	uint64_t timer;	       /* WAITING: reconnect; CONNECTING: Welcome; OPEN: lease requests */
	uint64_t report_timer; /* 0 µs: end of this loop turn */
	uint64_t progress_timer;
	uint64_t heard_us; /* last lease grant, or the Welcome */
	uint64_t seq;
	char peer[NAMES_ADDRESS];
	bool quiet; /* the reason for not connecting was said; once is enough */
};

static void connect_next(void *data);

static void wait_and_retry(struct session *s)
{
	s->state = SESSION_WAITING;
	s->timer = env_timer_start(s->agent->env, s->backoff_us, connect_next, s);
	s->backoff_us =
		s->backoff_us * 2 > SESSION_BACKOFF_MAX_US ? SESSION_BACKOFF_MAX_US : s->backoff_us * 2;
}

/* Ends the connection, if any, and tries the next coordinator after a while. */
static void lose(struct session *s, const char *why)
{
	if (s->state == SESSION_OPEN || !s->quiet)
		log_notice("coordinator %s: %s", s->peer, why);
	s->quiet = true;
	if (s->conn != NULL)
		conn_close(s->conn);
	s->conn = NULL;
	env_timer_stop(s->agent->env, &s->timer);
	env_timer_stop(s->agent->env, &s->report_timer);
	env_timer_stop(s->agent->env, &s->progress_timer);
	lease_forget_requests(&s->agent->lease);
	wait_and_retry(s);
}

/* ------------------------------------------------ reports */

static void fill_vms(struct agent *a, Drover__AgentReport *r, Drover__VmFact *facts, Drover__VmFact **list)
{
	for (const struct vm *vm = a->vms; vm != NULL; vm = vm->next) {
		drover__vm_fact__init(&facts[r->n_vms]);
		if (vm_fact(vm, &facts[r->n_vms])) {
			list[r->n_vms] = &facts[r->n_vms];
			r->n_vms++;
		}
	}
	r->vms = list;
}

static size_t count_vms(const struct agent *a)
{
	size_t n = 0;

	for (const struct vm *vm = a->vms; vm != NULL; vm = vm->next)
		n++;
	return n;
}

static void send_report(void *data)
{
	struct session *s = data;
	struct agent *a = s->agent;
	Drover__Msg msg = DROVER__MSG__INIT;
	Drover__AgentReport r = DROVER__AGENT_REPORT__INIT;
	size_t n_vms = count_vms(a);
	size_t n_moves = amove_count(a);
	Drover__VmFact *vms = calloc(n_vms + 1, sizeof(*vms));
	Drover__VmFact **vm_list = calloc(n_vms + 1, sizeof(*vm_list));
	Drover__MoveFact *moves = calloc(n_moves + 1, sizeof(*moves));
	Drover__MoveFact **move_list = calloc(n_moves + 1, sizeof(*move_list));

	s->report_timer = 0;
	if (vms == NULL || vm_list == NULL || moves == NULL || move_list == NULL)
		abort();
	r.seq = ++s->seq;
	r.facts = (Drover__HostFacts *)(uintptr_t)facts_get(a->facts);
	fill_vms(a, &r, vms, vm_list);
	for (size_t i = 0; i < n_moves; i++) {
		drover__move_fact__init(&moves[i]);
		amove_fact(a, i, true, &moves[i]);
		move_list[i] = &moves[i];
	}
	r.moves = move_list;
	r.n_moves = n_moves;
	r.leaving = a->leaving;
	r.floor_term = a->floors.term;
	r.floor_incarnation = a->floors.incarnation;
	r.complete = vm_adoption_done(a) && !stray_any(a);
	r.orders_index = a->floor_index;
	msg.body_case = DROVER__MSG__BODY_AGENT_REPORT;
	msg.agent_report = &r;
	conn_send(s->conn, &msg);
	for (size_t i = 0; i < n_moves; i++)
		amove_events_free(&moves[i]);
	free(vms);
	free(vm_list);
	free(moves);
	free(move_list);
}

static void send_progress(void *data)
{
	struct session *s = data;
	struct agent *a = s->agent;
	size_t n = amove_count(a);
	Drover__Msg msg = DROVER__MSG__INIT;
	Drover__Progress p = DROVER__PROGRESS__INIT;
	Drover__MoveFact *moves = calloc(n + 1, sizeof(*moves));
	Drover__MoveFact **list = calloc(n + 1, sizeof(*list));

	s->progress_timer = 0;
	for (size_t i = 0; moves != NULL && list != NULL && i < n; i++) {
		drover__move_fact__init(&moves[i]);
		amove_fact(a, i, false, &moves[i]);
		list[i] = &moves[i];
	}
	p.node = a->conf.name;
	p.moves = list;
	p.n_moves = list != NULL && moves != NULL ? n : 0;
	msg.body_case = DROVER__MSG__BODY_PROGRESS;
	msg.progress = &p;
	conn_send(s->conn, &msg);
	free(moves);
	free(list);
	if (amove_active(a))
		s->progress_timer = env_timer_start(a->env, SESSION_PROGRESS_US, send_progress, s);
}

void session_dirty(struct session *s)
{
	if (s == NULL || s->state != SESSION_OPEN)
		return;
	if (s->report_timer == 0)
		s->report_timer = env_timer_start(s->agent->env, 0, send_report, s);
	if (s->progress_timer == 0 && amove_active(s->agent))
		s->progress_timer = env_timer_start(s->agent->env, SESSION_PROGRESS_US, send_progress, s);
}

/* ------------------------------------------------ leases */

static uint64_t lease_interval_us(const struct agent *a, uint64_t now)
{
	/* Without a lease nothing may start or switch over: ask more often. */
	if (!lease_valid(&a->lease, now))
		return LEASE_HURRY_US;
	return amove_may_switch(a) ? LEASE_SWITCH_US : LEASE_REQUEST_US;
}

static void on_lease_timer(void *data)
{
	struct session *s = data;
	struct agent *a = s->agent;
	uint64_t now = env_now_us(a->env);
	Drover__Msg msg = DROVER__MSG__INIT;
	Drover__LeaseRequest req = DROVER__LEASE_REQUEST__INIT;

	s->timer = 0;
	if (now - s->heard_us > SESSION_SILENCE_US) {
		lose(s, "grants no lease; trying the next coordinator");
		return;
	}
	req.seq = lease_request(&a->lease, now);
	msg.body_case = DROVER__MSG__BODY_LEASE_REQUEST;
	msg.lease_request = &req;
	conn_send(s->conn, &msg);
	s->timer = env_timer_start(a->env, lease_interval_us(a, now), on_lease_timer, s);
}

static void got_grant(struct session *s, const Drover__LeaseGrant *g)
{
	struct agent *a = s->agent;
	bool had = lease_valid(&a->lease, env_now_us(a->env));

	if (g->cluster_incarnation != a->floors.cluster_incarnation && g->cluster_incarnation != 0)
		return;
	if (!lease_grant(&a->lease, g->seq, g->duration_ms, g->term))
		return;
	s->heard_us = env_now_us(a->env);
	if (!had) {
		log_info("lease: valid for %llu ms (term %llu)", (unsigned long long)g->duration_ms,
			 (unsigned long long)g->term);
		agent_kick(a);
		return;
	}
	vm_kick_all(a);
	amove_lease(a);
}

/* ------------------------------------------------ messages */

static void got_welcome(struct session *s, const Drover__Welcome *w)
{
	struct agent *a = s->agent;

	if (w->exit != 0) {
		lose(s, w->message);
		return;
	}
	if (!reconcile_cluster(a, &w->cluster_uuid)) {
		lose(s, "belongs to another cluster than this host");
		return;
	}
	if (!reconcile_incarnation(a, w->incarnation)) {
		lose(s, "belongs to an incarnation of the cluster that this host has left behind");
		return;
	}
	if (s->state == SESSION_OPEN)
		return;
	reconcile_forget_orders(a);
	env_timer_stop(a->env, &s->timer);
	s->state = SESSION_OPEN;
	s->quiet = false;
	s->backoff_us = SESSION_BACKOFF_MIN_US;
	s->heard_us = env_now_us(a->env);
	log_info("session with coordinator %s (%s)", w->node, s->peer);
	session_dirty(s);
	on_lease_timer(s);
}

static void on_message(struct conn *conn, const Drover__Msg *msg, void *data)
{
	struct session *s = data;

	(void)conn;
	if (msg->body_case == DROVER__MSG__BODY_WELCOME)
		got_welcome(s, msg->welcome);
	else if (s->state != SESSION_OPEN)
		log_warning("coordinator %s: a message came before its welcome", s->peer);
	else if (msg->body_case == DROVER__MSG__BODY_AGENT_ORDERS)
		reconcile_orders(s->agent, msg->agent_orders);
	else if (msg->body_case == DROVER__MSG__BODY_LEASE_GRANT)
		got_grant(s, msg->lease_grant);
}

static void on_close(struct conn *conn, const struct dr_error *why, void *data)
{
	struct session *s = data;

	(void)conn;
	s->conn = NULL;		     /* it frees itself after this callback */
	if (why->code == DR_EAUTH) { /* the key file may have been replaced by init or join: read it again */
		tls_psk_free(s->psk);
		s->psk = NULL;
	}
	lose(s, why->text);
}

static const struct conn_ops conn_ops = {.on_message = on_message, .on_close = on_close};

static void send_hello(struct session *s)
{
	struct agent *a = s->agent;
	Drover__Msg msg = DROVER__MSG__INIT;
	Drover__Hello hello = DROVER__HELLO__INIT;

	hello.protocol = 1;
	hello.role = DROVER__HELLO__ROLE__AGENT;
	hello.node = a->conf.name;
	hello.boot_id.data = a->boot_id;
	hello.boot_id.len = sizeof(a->boot_id);
	hello.start_id.data = a->start_id;
	hello.start_id.len = sizeof(a->start_id);
	hello.program = (char *)(uintptr_t) "drover-agent 0.1.0";
	msg.body_case = DROVER__MSG__BODY_HELLO;
	msg.hello = &hello;
	conn_send(s->conn, &msg);
}

static void on_welcome_timeout(void *data)
{
	struct session *s = data;

	s->timer = 0;
	lose(s, "no welcome in time");
}

/* ------------------------------------------------ connecting */

/* The key may come later than the agent: `drover cluster init` or `join` writes it. */
static bool have_key(struct session *s)
{
	uint8_t key[TLS_KEY_SIZE];
	struct dr_error err = DR_ERROR_INIT;

	if (s->psk != NULL)
		return true;
	if (tls_key_read(s->agent->conf.key_file, key, &err) == 0)
		s->psk = tls_psk_new(key, CONF_TLS_IDENTITY, &err);
	explicit_bzero(key, sizeof(key));
	if (s->psk == NULL && !s->quiet)
		log_warning("%s", err.text);
	s->quiet = s->quiet || s->psk == NULL;
	return s->psk != NULL;
}

static void connect_next(void *data)
{
	struct session *s = data;
	const struct dr_conf *conf = &s->agent->conf;
	struct dr_error err = DR_ERROR_INIT;

	s->timer = 0;
	if (!have_key(s)) {
		wait_and_retry(s);
		return;
	}
	if (conf->n_connect > 0)
		snprintf(s->peer, sizeof(s->peer), "%s", conf->connect[s->next++ % conf->n_connect]);
	else
		snprintf(s->peer, sizeof(s->peer), "127.0.0.1:%d", CONF_PORT);
	s->state = SESSION_CONNECTING;
	s->conn = conn_connect(s->agent->loop, s->peer, s->psk, &conn_ops, s, &err);
	if (s->conn == NULL) {
		lose(s, err.text);
		return;
	}
	s->timer = env_timer_start(s->agent->env,
				   s->backoff_us < SESSION_BACKOFF_MAX_US ? SESSION_WELCOME_US
									  : SESSION_WELCOME_MAX_US,
				   on_welcome_timeout, s);
	send_hello(s);
}

struct session *session_new(struct agent *a)
{
	struct session *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	s->agent = a;
	s->backoff_us = SESSION_BACKOFF_MIN_US;
	s->timer = env_timer_start(a->env, 0, connect_next, s);
	return s;
}

void session_free(struct session *s)
{
	if (s == NULL)
		return;
	if (s->conn != NULL)
		conn_close(s->conn);
	env_timer_stop(s->agent->env, &s->timer);
	env_timer_stop(s->agent->env, &s->report_timer);
	env_timer_stop(s->agent->env, &s->progress_timer);
	tls_psk_free(s->psk);
	free(s);
}

bool session_is_open(const struct session *s)
{
	return s != NULL && s->state == SESSION_OPEN;
}
