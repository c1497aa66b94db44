/*
 * proto/conn.h over the simulated network. Bytes arrive in order and after a latency, or not while the way is
 * cut; a connection that is cut for ten seconds is dead at both ends; a process that ends closes its
 * connections, a host that loses power does not. "NAME:PORT" and "unix:NAME" reach the coordinator NAME.
 */
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "proto/conn.h"

#define DEAD_US	     (10 * SIM_S)
#define HANDSHAKE_US (CONN_HANDSHAKE_MS * SIM_MS)
#define RETRY_US     (100 * SIM_MS)

enum conn_state { CONN_CONNECTING, CONN_OPEN, CONN_FAILING, CONN_CLOSED };

struct frame {
	struct frame *next;
	uint64_t at;
	size_t size;
	uint8_t bytes[];
};

struct conn {
	struct sim *sim;
	struct party *party;
	uint32_t life; /* of its process */
	struct conn *peer;
	const struct conn_ops *ops;
	void *data;
	enum conn_state state;
	bool server;
	bool is_unix;
	struct frame *in, **in_tail;
	uint64_t last_at;
	uint64_t pump_at; /* a pump is under way for then; 0 = none */
	uint64_t late;	  /* fault: what comes waits so long */
	bool ended;	  /* the peer has closed: after the last frame */
	uint64_t ended_at;
	enum dr_err why;
	char name[32];
};

struct listener {
	struct party *party;
	const struct conn_ops *ops;
	listener_accept_fn on_accept;
	void *data;
};

struct tls_psk {
	int nothing;
};

static struct cluster *cluster_of(const struct conn *c)
{
	return c->sim->cluster;
}

void conns_init(struct cluster *cl)
{
	cl->n_conns = 0;
}

static void keep(struct cluster *cl, struct conn *c)
{
	if (cl->n_conns == cl->room_conns) {
		cl->room_conns = cl->room_conns == 0 ? 64 : cl->room_conns * 2;
		cl->conns = realloc(cl->conns, cl->room_conns * sizeof(struct conn *));
		if (cl->conns == NULL)
			abort();
	}
	cl->conns[cl->n_conns++] = c;
}

static void drop(struct conn *c)
{
	struct cluster *cl = cluster_of(c);

	for (size_t i = 0; i < cl->n_conns; i++)
		if (cl->conns[i] == c) {
			cl->conns[i] = cl->conns[--cl->n_conns];
			break;
		}
	while (c->in != NULL) {
		struct frame *next = c->in->next;

		free(c->in);
		c->in = next;
	}
	c->in_tail = &c->in;
}

static bool lives(const struct conn *c)
{
	return c->party->proc->alive && c->party->proc->life == c->life;
}

/* ---------------------------------------------------------------- ends */

static void ev_on_close(struct sim *sim, struct sim_event *ev)
{
	struct conn *c = ev->obj;
	struct dr_error why = DR_ERROR_INIT;

	(void)sim;
	if (c->state != CONN_FAILING)
		return;
	c->state = CONN_CLOSED;
	dr_error_set(&why, c->why, "%s: connection lost", c->name);
	if (c->ops->on_close != NULL)
		c->ops->on_close(c, &why, c->data);
}

static void fail(struct conn *c, enum dr_err code)
{
	bool told = c->state == CONN_OPEN || (c->state == CONN_CONNECTING && !c->server);

	if (c->state == CONN_FAILING || c->state == CONN_CLOSED)
		return;
	drop(c);
	c->state = told ? CONN_FAILING : CONN_CLOSED;
	c->why = code;
	if (told && lives(c))
		sim_post(c->sim, 10, c->party->proc, ev_on_close, c);
}

static void pump_later(struct conn *c, uint64_t at);

/* The other end sees the end of the stream. */
static void end_peer(struct conn *c)
{
	struct conn *p = c->peer;

	if (p == NULL || p->state == CONN_CLOSED || p->state == CONN_FAILING)
		return;
	p->ended = true;
	p->ended_at = c->sim->now + net_latency(cluster_of(c), c->party->site, p->party->site);
	if (p->ended_at < p->last_at)
		p->ended_at = p->last_at;
	pump_later(p, p->ended_at);
}

void conn_close(struct conn *conn)
{
	if (conn->state == CONN_CLOSED)
		return;
	if (conn->state != CONN_FAILING)
		end_peer(conn);
	conn->state = CONN_CLOSED;
	drop(conn);
}

void conns_process_gone(struct sim *sim, struct sim_proc *proc, bool with_fin)
{
	struct cluster *cl = sim->cluster;

	for (size_t i = 0; i < cl->n_conns;) {
		struct conn *c = cl->conns[i];

		if (c->party->proc != proc) {
			i++;
			continue;
		}
		if (with_fin)
			end_peer(c);
		c->state = CONN_CLOSED;
		drop(c); /* another one takes its place in the list */
	}
	if (!with_fin)
		conns_cut(cl);
}

/* ---------------------------------------------------------------- frames */

static bool way_is_open(const struct conn *c)
{
	return net_reaches(c->sim->cluster, c->peer->party->site, c->party->site);
}

/* Orders that a fault wants to see again later. */
static void keep_orders(struct conn *c, const Drover__Msg *msg, const struct frame *f)
{
	struct kept_orders *k = c->server || msg->body_case != DROVER__MSG__BODY_AGENT_ORDERS
					? NULL
					: &cluster_of(c)->kept[c->party->site % SIM_HOSTS];

	if (k == NULL || !k->wanted)
		return;
	k->wanted = false;
	free(k->bytes);
	k->bytes = malloc(f->size + 1);
	if (k->bytes == NULL)
		abort();
	memcpy(k->bytes, f->bytes, f->size);
	k->size = f->size;
}

static void deliver(struct conn *c, struct frame *f)
{
	Drover__Msg *msg = drover__msg__unpack(NULL, f->size, f->bytes);

	if (msg == NULL)
		abort();
	keep_orders(c, msg, f);
	c->ops->on_message(c, msg, c->data);
	drover__msg__free_unpacked(msg, NULL);
	free(f);
}

static void ev_pump(struct sim *sim, struct sim_event *ev)
{
	struct conn *c = ev->obj;

	if (c->pump_at != ev->a)
		return; /* a later one is under way */
	c->pump_at = 0;
	while (c->state == CONN_OPEN && c->in != NULL && c->in->at + c->late <= sim->now) {
		struct frame *f = c->in;

		if (!way_is_open(c)) {
			pump_later(c, sim->now + RETRY_US);
			return;
		}
		c->in = f->next;
		if (c->in == NULL)
			c->in_tail = &c->in;
		deliver(c, f);
	}
	if (c->state != CONN_OPEN)
		return;
	if (c->in != NULL)
		pump_later(c, c->in->at + c->late);
	else if (c->ended && c->ended_at > sim->now)
		pump_later(c, c->ended_at);
	else if (c->ended && way_is_open(c))
		fail(c, DR_ECLOSED);
	else if (c->ended)
		pump_later(c, sim->now + RETRY_US);
}

static void pump_later(struct conn *c, uint64_t at)
{
	struct sim_event *ev;

	if (at <= c->sim->now)
		at = c->sim->now + 1;
	if (c->state == CONN_CONNECTING || (c->pump_at != 0 && c->pump_at <= at))
		return;
	c->pump_at = at;
	ev = sim_post(c->sim, at - c->sim->now, c->party->proc, ev_pump, c);
	ev->a = at;
}

int conn_send(struct conn *conn, const Drover__Msg *msg)
{
	struct conn *to = conn->peer;
	struct sim *sim = conn->sim;
	size_t size = drover__msg__get_packed_size(msg);
	struct frame *f;

	if (conn->state == CONN_CLOSED || conn->state == CONN_FAILING)
		return -DR_ECLOSED;
	if (to == NULL || to->state == CONN_CLOSED || to->state == CONN_FAILING || conn->ended)
		return 0; /* into the kernel's buffer, and nowhere */
	if (conn->server && (msg->body_case == DROVER__MSG__BODY_AGENT_ORDERS ||
			     msg->body_case == DROVER__MSG__BODY_LEASE_GRANT))
		rules_told(coord_of(sim, conn->party->proc), to->party->site, msg);
	f = malloc(sizeof(*f) + size + 1);
	if (f == NULL)
		abort();
	f->next = NULL;
	f->size = size;
	drover__msg__pack(msg, f->bytes);
	f->at = sim->now + net_latency(sim->cluster, conn->party->site, to->party->site);
	if (f->at <= to->last_at)
		f->at = to->last_at + 1;
	to->last_at = f->at;
	*to->in_tail = f;
	to->in_tail = &f->next;
	pump_later(to, f->at + to->late);
	return 0;
}

/* ---------------------------------------------------------------- connecting */

static struct conn *endpoint(struct sim *sim, struct party *party, bool server)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (c == NULL)
		abort();
	c->sim = sim;
	c->party = party;
	c->life = party->proc->life;
	c->server = server;
	c->in_tail = &c->in;
	return c;
}

static struct coord *coord_named(struct cluster *cl, const char *address)
{
	for (unsigned i = 0; i < cl->n_coords; i++) {
		size_t n = strlen(cl->coords[i].name);

		if (strncmp(address, cl->coords[i].name, n) == 0 && (address[n] == ':' || address[n] == '\0'))
			return &cl->coords[i];
	}
	return NULL;
}

static void ev_opened(struct sim *sim, struct sim_event *ev)
{
	struct conn *c = ev->obj;

	(void)sim;
	if (c->state != CONN_CONNECTING)
		return;
	c->state = CONN_OPEN;
	if (c->ops->on_open != NULL)
		c->ops->on_open(c, c->data);
	if (c->state == CONN_OPEN)
		pump_later(c, c->sim->now + 1);
}

static void ev_accept(struct sim *sim, struct sim_event *ev)
{
	struct conn *s = ev->obj;
	struct coord *to = (struct coord *)s->party;
	struct listener *l = to->listeners[s->is_unix ? 0 : 1];

	if (s->state != CONN_CONNECTING || s->peer->state != CONN_CONNECTING || !lives(s->peer))
		return;
	if (!net_reaches(sim->cluster, s->party->site, s->peer->party->site) || !way_is_open(s)) {
		sim_post(sim, 3 * RETRY_US, s->party->proc, ev_accept, s);
		return;
	}
	if (l == NULL) {
		fail(s->peer, DR_ENODAEMON);
		return;
	}
	s->state = CONN_OPEN;
	keep(sim->cluster, s);
	s->ops = l->ops;
	s->data = l->on_accept(l, s, l->data);
	sim_post(sim, net_latency(sim->cluster, s->party->site, s->peer->party->site), s->peer->party->proc,
		 ev_opened, s->peer);
	if (s->state == CONN_OPEN)
		pump_later(s, sim->now + 1);
}

static void ev_handshake_late(struct sim *sim, struct sim_event *ev)
{
	struct conn *c = ev->obj;

	(void)sim;
	if (c->state == CONN_CONNECTING)
		fail(c, DR_ETIMEOUT);
}

static void ev_refused(struct sim *sim, struct sim_event *ev)
{
	(void)sim;
	fail(ev->obj, DR_ENODAEMON);
}

struct conn *conn_connect(qb_loop_t *loop, const char *address, struct tls_psk *tls,
			  const struct conn_ops *ops, void *data, struct dr_error *err)
{
	struct party *party = (struct party *)loop;
	struct sim *sim = party->sim;
	struct cluster *cl = sim->cluster;
	bool is_unix = strncmp(address, "unix:", 5) == 0;
	struct coord *to = coord_named(cl, is_unix ? address + 5 : address);
	struct conn *c;
	struct conn *s;

	(void)tls;
	if (to == NULL) {
		dr_error_set(err, DR_ENODAEMON, "%s: nobody there", address);
		return NULL;
	}
	c = endpoint(sim, party, false);
	c->ops = ops;
	c->data = data;
	c->is_unix = is_unix;
	strncpy(c->name, to->name, sizeof(c->name) - 1);
	keep(cl, c);
	sim_post(sim, HANDSHAKE_US, party->proc, ev_handshake_late, c);
	if (!coord_up(to)) {
		if (net_reaches(cl, party->site, to->party.site) && !cl->site_down[to->party.site])
			sim_post(sim, sim_between(sim, 200, 1500), party->proc, ev_refused, c);
		return c;
	}
	s = endpoint(sim, &to->party, true);
	s->is_unix = is_unix;
	strncpy(s->name, is_unix ? "uid 0" : "agent", sizeof(s->name) - 1);
	s->peer = c;
	c->peer = s;
	sim_post(sim, net_latency(cl, party->site, to->party.site) + sim_between(sim, 500, 3000), &to->proc,
		 ev_accept, s);
	return c;
}

bool conn_is_unix(const struct conn *conn)
{
	return conn->is_unix;
}

uid_t conn_peer_uid(const struct conn *conn)
{
	return conn->is_unix ? 0 : (uid_t)-1;
}

gid_t conn_peer_gid(const struct conn *conn)
{
	return conn->is_unix ? 0 : (gid_t)-1;
}

pid_t conn_peer_pid(const struct conn *conn)
{
	(void)conn;
	return 1;
}

const char *conn_peer_name(const struct conn *conn)
{
	return conn->name;
}

void conn_set_data(struct conn *conn, void *data)
{
	conn->data = data;
}

/* ---------------------------------------------------------------- listening, keys */

static struct listener *listen_as(qb_loop_t *loop, unsigned slot, const struct conn_ops *ops,
				  listener_accept_fn on_accept, void *data)
{
	struct listener *l = calloc(1, sizeof(*l));

	if (l == NULL)
		abort();
	*l = (struct listener){
		.party = (struct party *)loop, .ops = ops, .on_accept = on_accept, .data = data};
	((struct coord *)loop)->listeners[slot] = l;
	return l;
}

struct listener *listener_unix(qb_loop_t *loop, const char *path, mode_t mode, gid_t gid,
			       const struct conn_ops *ops, listener_accept_fn on_accept, void *data,
			       struct dr_error *err)
{
	(void)path;
	(void)mode;
	(void)gid;
	(void)err;
	return listen_as(loop, 0, ops, on_accept, data);
}

struct listener *listener_tcp(qb_loop_t *loop, const char *address, struct tls_psk *tls,
			      const struct conn_ops *ops, listener_accept_fn on_accept, void *data,
			      struct dr_error *err)
{
	(void)address;
	(void)tls;
	(void)err;
	return listen_as(loop, 1, ops, on_accept, data);
}

int listener_fd(const struct listener *listener)
{
	(void)listener;
	return -1;
}

void listener_free(struct listener *listener)
{
	struct coord *c;

	if (listener == NULL)
		return;
	c = (struct coord *)listener->party;
	for (unsigned i = 0; i < 2; i++)
		if (c->listeners[i] == listener)
			c->listeners[i] = NULL;
}

int tls_key_read(const char *path, uint8_t key[TLS_KEY_SIZE], struct dr_error *err)
{
	(void)path;
	(void)err;
	memset(key, 1, TLS_KEY_SIZE);
	return 0;
}

struct tls_psk *tls_psk_new(const uint8_t key[TLS_KEY_SIZE], const char *identity, struct dr_error *err)
{
	static struct tls_psk one;

	(void)key;
	(void)identity;
	(void)err;
	return &one;
}

void tls_psk_free(struct tls_psk *tls)
{
	(void)tls;
}

/* ---------------------------------------------------------------- faults */

static bool is_cut(const struct conn *c)
{
	struct cluster *cl = c->sim->cluster;
	unsigned a = c->party->site;
	unsigned b = c->peer->party->site;

	return !net_reaches(cl, a, b) || !net_reaches(cl, b, a) || !lives(c->peer);
}

/* Cut, or its other end gone without a word, for ten seconds. */
static void ev_dead(struct sim *sim, struct sim_event *ev)
{
	struct conn *c = ev->obj;

	(void)sim;
	if (c->state == CONN_OPEN && c->peer != NULL && is_cut(c))
		fail(c, DR_EIO);
}

void conns_cut(struct cluster *cl)
{
	for (size_t i = 0; i < cl->n_conns; i++) {
		struct conn *c = cl->conns[i];

		if (c->state == CONN_OPEN && c->peer != NULL && is_cut(c))
			sim_post(cl->sim, DEAD_US, NULL, ev_dead, c);
	}
}

void conns_delay(struct cluster *cl, const struct sim_proc *proc, uint64_t delay)
{
	for (size_t i = 0; i < cl->n_conns; i++) {
		struct conn *c = cl->conns[i];

		if (c->party->proc != proc && (c->peer == NULL || c->peer->party->proc != proc))
			continue;
		c->late = delay;
		if (c->in != NULL) {
			c->pump_at = 0;
			pump_later(c, c->in->at + delay);
		}
	}
}

static void ev_again(struct sim *sim, struct sim_event *ev)
{
	struct conn *c = ev->obj;
	struct kept_orders *k = &sim->cluster->kept[c->party->site % SIM_HOSTS];
	Drover__Msg *msg = c->state == CONN_OPEN && k->bytes != NULL
				   ? drover__msg__unpack(NULL, k->size, k->bytes)
				   : NULL;

	if (msg == NULL)
		return;
	c->ops->on_message(c, msg, c->data);
	drover__msg__free_unpacked(msg, NULL);
}

void conns_again(struct cluster *cl, const struct sim_proc *proc)
{
	for (size_t i = 0; i < cl->n_conns; i++) {
		struct conn *c = cl->conns[i];

		if (c->state == CONN_OPEN && !c->server && c->party->proc == proc)
			sim_post(cl->sim, 10, c->party->proc, ev_again, c);
	}
}

static void ev_broken(struct sim *sim, struct sim_event *ev)
{
	(void)sim;
	fail(ev->obj, DR_ECLOSED);
}

void conns_break(struct cluster *cl, const struct sim_proc *proc)
{
	for (size_t i = 0; i < cl->n_conns; i++) {
		struct conn *c = cl->conns[i];

		if (c->state == CONN_OPEN &&
		    (c->party->proc == proc || (c->peer != NULL && c->peer->party->proc == proc)))
			sim_post(cl->sim, sim_between(cl->sim, 0, 3 * SIM_S), NULL, ev_broken, c);
	}
}
