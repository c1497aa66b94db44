/* Clients: the command line as it is when its connection breaks: the same request again, elsewhere. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "coordinator/server.h"

#define AGAIN_US (3 * SIM_S)

static void ev_work(struct sim *sim, struct sim_event *ev);

static void later(struct sim_client *c, uint64_t delay)
{
	sim_post(c->party.sim, delay, &c->proc, ev_work, c);
}

static void hang_up(struct sim_client *c)
{
	if (c->conn != NULL)
		conn_close(c->conn);
	c->conn = NULL;
	c->greeted = false;
	c->at = -1;
}

static void send_request(struct sim_client *c)
{
	Drover__Msg msg = DROVER__MSG__INIT;
	Drover__Request *r;

	if (c->open == NULL || !c->greeted)
		return;
	r = drover__request__unpack(NULL, c->open->size, c->open->bytes);
	msg.body_case = DROVER__MSG__BODY_REQUEST;
	msg.request = r;
	conn_send(c->conn, &msg);
	c->sent_at = c->party.sim->now;
	drover__request__free_unpacked(r, NULL);
}

/* Whether asking again, elsewhere, may help. */
static bool is_transient(uint32_t exit)
{
	return exit == DR_ENOQUORUM || exit == DR_ETIMEOUT;
}

static void answered(struct sim_client *c, const Drover__Response *r)
{
	struct request *q = c->open;
	struct sim *sim = c->party.sim;

	if (q == NULL || r->id.len != sizeof(q->id) || memcmp(r->id.data, q->id, sizeof(q->id)) != 0)
		return;
	if (is_transient(r->exit) && sim->now < q->until) {
		hang_up(c);
		later(c, 300 * SIM_MS);
		return;
	}
	sim_trace(sim, "client %u: %s: exit %u%s %s", c->id, q->what, r->exit, r->changed ? " changed" : "",
		  r->message);
	q->answered = true;
	q->exit = r->exit;
	q->changed = r->changed;
	q->index = r->index;
	snprintf(q->token, sizeof(q->token), "%s", r->token);
	q->incarnation = sim->cluster->shadow.incarnation;
	if (r->backup.len > 0) {
		q->backup = malloc(r->backup.len);
		if (q->backup == NULL)
			abort();
		memcpy(q->backup, r->backup.data, r->backup.len);
		q->backup_size = r->backup.len;
	}
	c->open = NULL;
}

static void on_message(struct conn *conn, const Drover__Msg *msg, void *data)
{
	struct sim_client *c = data;

	(void)conn;
	if (msg->body_case == DROVER__MSG__BODY_WELCOME) {
		c->greeted = true;
		send_request(c);
	} else if (msg->body_case == DROVER__MSG__BODY_RESPONSE) {
		answered(c, msg->response);
	}
}

static void on_close(struct conn *conn, const struct dr_error *why, void *data)
{
	struct sim_client *c = data;

	(void)conn;
	(void)why;
	c->conn = NULL;
	hang_up(c);
	if (c->open != NULL)
		later(c, 200 * SIM_MS);
}

static const struct conn_ops ops = {.on_message = on_message, .on_close = on_close};

static void call(struct sim_client *c)
{
	struct sim *sim = c->party.sim;
	Drover__Msg msg = DROVER__MSG__INIT;
	Drover__Hello hello = DROVER__HELLO__INIT;
	char address[32];

	c->at = c->pinned >= 0 ? c->pinned : (int)sim_random(sim, sim->cluster->n_coords);
	snprintf(address, sizeof(address), "unix:%s", sim->cluster->coords[c->at].name);
	c->greeted = false;
	c->conn = conn_connect((qb_loop_t *)c, address, NULL, &ops, c, NULL);
	hello.protocol = 1;
	hello.role = DROVER__HELLO__ROLE__CLIENT;
	msg.body_case = DROVER__MSG__BODY_HELLO;
	msg.hello = &hello;
	conn_send(c->conn, &msg);
}

static void ev_work(struct sim *sim, struct sim_event *ev)
{
	struct sim_client *c = ev->obj;

	if (c->open == NULL)
		return;
	if (sim->now >= c->open->until) {
		sim_trace(sim, "client %u: %s: gave up", c->id, c->open->what);
		c->open = NULL;
		hang_up(c);
		return;
	}
	if (c->conn == NULL || (c->pinned >= 0 && c->at != c->pinned)) {
		hang_up(c);
		call(c);
	} else if (sim->now - c->sent_at > AGAIN_US && sim_random(sim, 2) == 0) {
		hang_up(c); /* impatient */
		call(c);
	}
	later(c, AGAIN_US);
}

void client_init(struct cluster *cl, unsigned id)
{
	struct sim_client *c = id < CLIENTS ? &cl->clients[id] : &cl->teller;

	memset(c, 0, sizeof(*c));
	c->party = (struct party){.sim = cl->sim, .proc = &c->proc, .site = CLIENT_SITE};
	c->id = id;
	c->at = -1;
	c->pinned = -1;
	sim_proc_start(&c->proc);
}

struct request *client_ask(struct sim_client *c, Drover__Request *request, const char *what,
			   uint64_t patience)
{
	struct sim *sim = c->party.sim;
	struct request *q;

	if (c->open != NULL)
		return NULL;
	q = calloc(1, sizeof(*q));
	if (q == NULL)
		abort();
	for (unsigned i = 0; i < sizeof(q->id); i++)
		q->id[i] = (uint8_t)sim_random(sim, 256);
	request->id.data = q->id;
	request->id.len = sizeof(q->id);
	request->timeout_ms = 5000;
	q->size = drover__request__get_packed_size(request);
	q->bytes = malloc(q->size + 1);
	if (q->bytes == NULL)
		abort();
	drover__request__pack(request, q->bytes);
	snprintf(q->what, sizeof(q->what), "%s", what);
	q->until = sim->now + patience;
	q->next = c->history;
	c->history = q;
	c->open = q;
	sim_trace(sim, "client %u: asks: %s", c->id, what);
	sim->cluster->result->commands++;
	if (c->conn != NULL && c->greeted && sim_random(sim, 3) != 0)
		send_request(c);
	later(c, 1);
	return q;
}

/* ---------------------------------------------------------------- commands */

static char *host_name(struct cluster *cl, unsigned host)
{
	return cl->sim->hosts[host % cl->sim->n_hosts].name;
}

struct request *client_drain(struct sim_client *c, unsigned host, bool drain)
{
	struct cluster *cl = c->party.sim->cluster;
	Drover__Request r = DROVER__REQUEST__INIT;
	Drover__NodeVerb v = DROVER__NODE_VERB__INIT;
	char what[64];

	v.verb = drain ? DROVER__NODE_VERB__VERB__PAUSE : DROVER__NODE_VERB__VERB__RESUME;
	v.node = host_name(cl, host);
	v.drain = drain;
	v.best_effort = true;
	v.failback = (char *)(uintptr_t)(sim_random(cl->sim, 2) == 0 ? "immediate" : "none");
	r.verb_case = DROVER__REQUEST__VERB_NODE_VERB;
	r.node_verb = &v;
	snprintf(what, sizeof(what), "%s %s", drain ? "drain" : "resume", v.node);
	if (drain)
		cl->result->drains++;
	return client_ask(c, &r, what, 30 * SIM_S);
}

/* Somebody has looked: the host has no power. */
struct request *client_fence(struct sim_client *c, unsigned host)
{
	struct cluster *cl = c->party.sim->cluster;
	Drover__Request r = DROVER__REQUEST__INIT;
	Drover__NodeVerb v = DROVER__NODE_VERB__INIT;
	char what[64];

	v.verb = DROVER__NODE_VERB__VERB__FENCE;
	v.node = host_name(cl, host);
	v.confirmed = true;
	v.boot_id.data = cl->boot_id[host];
	v.boot_id.len = sizeof(cl->boot_id[host]);
	r.verb_case = DROVER__REQUEST__VERB_NODE_VERB;
	r.node_verb = &v;
	snprintf(what, sizeof(what), "fence %s", v.node);
	return client_ask(c, &r, what, 10 * SIM_S);
}

static void ask_vm(struct sim_client *c, Drover__VmVerb__Verb verb)
{
	struct sim *sim = c->party.sim;
	Drover__Request r = DROVER__REQUEST__INIT;
	Drover__VmVerb v = DROVER__VM_VERB__INIT;
	char what[64];
	char vm[8];

	snprintf(vm, sizeof(vm), "vm%u", 1 + (unsigned)sim_random(sim, sim->n_vms));
	v.verb = verb;
	v.vm = vm;
	v.force = sim_random(sim, 3) == 0;
	r.verb_case = DROVER__REQUEST__VERB_VM_VERB;
	r.vm_verb = &v;
	snprintf(what, sizeof(what), "vm %s %s", verb == DROVER__VM_VERB__VERB__START ? "start" : "stop", vm);
	client_ask(c, &r, what, 20 * SIM_S);
}

static void ask_move(struct sim_client *c)
{
	struct sim *sim = c->party.sim;
	Drover__Request r = DROVER__REQUEST__INIT;
	Drover__MoveRequest m = DROVER__MOVE_REQUEST__INIT;
	char what[64];
	char vm[8];

	snprintf(vm, sizeof(vm), "vm%u", 1 + (unsigned)sim_random(sim, sim->n_vms));
	m.vm = vm;
	if (sim_random(sim, 2) == 0)
		m.to = host_name(sim->cluster, (unsigned)sim_random(sim, sim->n_hosts));
	r.verb_case = DROVER__REQUEST__VERB_VM_MOVE;
	r.vm_move = &m;
	snprintf(what, sizeof(what), "vm move %s %s", vm, m.to);
	client_ask(c, &r, what, 20 * SIM_S);
}

static void ask_drain_verb(struct sim_client *c)
{
	static const Drover__DrainVerb__Verb verbs[] = {
		DROVER__DRAIN_VERB__VERB__PAUSE, DROVER__DRAIN_VERB__VERB__CONTINUE,
		DROVER__DRAIN_VERB__VERB__CANCEL, DROVER__DRAIN_VERB__VERB__REVERSE};
	struct sim *sim = c->party.sim;
	Drover__Request r = DROVER__REQUEST__INIT;
	Drover__DrainVerb d = DROVER__DRAIN_VERB__INIT;
	unsigned k = (unsigned)sim_random(sim, 4);
	char what[64];

	d.verb = verbs[k];
	d.node = host_name(sim->cluster, (unsigned)sim_random(sim, sim->n_hosts));
	r.verb_case = DROVER__REQUEST__VERB_DRAIN_VERB;
	r.drain_verb = &d;
	snprintf(what, sizeof(what), "drain verb %u %s", k, d.node);
	client_ask(c, &r, what, 20 * SIM_S);
}

static void ask_cancel(struct sim_client *c)
{
	struct shadow *sh = &c->party.sim->cluster->shadow;
	Drover__Request r = DROVER__REQUEST__INIT;
	Drover__MoveVerb m = DROVER__MOVE_VERB__INIT;
	char what[64];

	for (unsigned i = 0; i < sh->n_attempts; i++)
		if (sh->attempts[i].decision == 0)
			m.move = sh->attempts[i].move;
	if (m.move == 0)
		return;
	m.verb = DROVER__MOVE_VERB__VERB__CANCEL;
	r.verb_case = DROVER__REQUEST__VERB_MOVE_VERB;
	r.move_verb = &m;
	snprintf(what, sizeof(what), "move cancel %llu", (unsigned long long)m.move);
	client_ask(c, &r, what, 20 * SIM_S);
}

static void ask_limit(struct sim_client *c)
{
	struct sim *sim = c->party.sim;
	Drover__Request r = DROVER__REQUEST__INIT;
	Drover__LimitSet l = DROVER__LIMIT_SET__INIT;
	char *mask[2] = {(char *)(uintptr_t) "max_moves", (char *)(uintptr_t) "blackout_ms"};

	l.max_moves = 1 + (uint32_t)sim_random(sim, 3);
	l.blackout_ms = 100 + sim_random(sim, 400);
	l.mask = mask;
	l.n_mask = 1 + sim_random(sim, 2);
	if (sim_random(sim, 2) == 0) {
		l.node = host_name(sim->cluster, (unsigned)sim_random(sim, sim->n_hosts));
		l.n_mask = 1;
	}
	r.verb_case = DROVER__REQUEST__VERB_LIMIT_SET;
	r.limit_set = &l;
	client_ask(c, &r, "limit set", 20 * SIM_S);
}

static void ask_network(struct sim_client *c)
{
	struct sim *sim = c->party.sim;
	Drover__Request r = DROVER__REQUEST__INIT;
	Drover__NetworkOrder o = DROVER__NETWORK_ORDER__INIT;
	Drover__NetworkRank rank = DROVER__NETWORK_RANK__INIT;
	Drover__NetworkRank *ranks[1] = {&rank};

	rank.network = (char *)(uintptr_t) "mig1";
	rank.rank = 1 + (uint32_t)sim_random(sim, 9);
	o.ranks = ranks;
	o.n_ranks = 1;
	r.verb_case = DROVER__REQUEST__VERB_NETWORK_ORDER;
	r.network_order = &o;
	client_ask(c, &r, "network order", 20 * SIM_S);
}

void client_random(struct sim_client *c)
{
	struct sim *sim = c->party.sim;
	unsigned what = (unsigned)sim_random(sim, 100);
	unsigned host = (unsigned)sim_random(sim, sim->n_hosts);

	if (c->open != NULL)
		return;
	if (sim->cluster->profile != NULL && sim->cluster->profile->vms) {
		ask_vm(c, what < 50 ? DROVER__VM_VERB__VERB__STOP : DROVER__VM_VERB__VERB__START);
		return;
	}
	if (what < 20)
		client_drain(c, host, true);
	else if (what < 45)
		client_drain(c, host, false);
	else if (what < 60)
		ask_move(c);
	else if (what < 66)
		ask_vm(c, DROVER__VM_VERB__VERB__STOP);
	else if (what < 80)
		ask_vm(c, DROVER__VM_VERB__VERB__START);
	else if (what < 86)
		ask_drain_verb(c);
	else if (what < 90)
		ask_cancel(c);
	else if (what < 95)
		ask_limit(c);
	else
		ask_network(c);
}
