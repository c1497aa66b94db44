/*
 * coordinator/corosync.h over the simulated network (recipes/corosync.md): a view is formed a token timeout
 * after hosts stop answering; members and quorum are told in no order to each other or to messages; while a
 * view no longer fits the network, messages are late or lost.
 */
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "coordinator/corosync.h"
#include "coordinator/server.h"

#define TOKEN (1 * SIM_S)

struct corosync {
	struct transport transport;
	struct coord *coord;
	const struct corosync_ops *ops;
	void *data;
	bool connected;
	bool quorate;
	unsigned group; /* coordinator processes that this one was told of */
	bool freed;
};

static unsigned bit(unsigned i)
{
	return 1u << i;
}

/* ---------------------------------------------------------------- what a process is told */

static void ev_quorum(struct sim *sim, struct sim_event *ev)
{
	struct corosync *c = ev->obj;
	bool quorate = ev->a != 0;

	(void)sim;
	if (c->freed || c->quorate == quorate)
		return;
	c->quorate = quorate;
	c->ops->quorum(c->data, quorate);
}

static void ev_member(struct sim *sim, struct sim_event *ev)
{
	struct corosync *c = ev->obj;
	bool joined = ev->b != 0;

	(void)sim;
	if (c->freed || ((c->group & bit((unsigned)ev->a)) != 0) == joined)
		return;
	c->group ^= bit((unsigned)ev->a);
	c->ops->member(c->data, (uint32_t)ev->a + 1, joined);
}

static bool in_group(const struct coord *c)
{
	return coord_up(c) && c->corosync != NULL && c->corosync->connected;
}

static void tell(struct coord *c)
{
	struct sim *sim = c->sim;
	struct corosync *cs = c->corosync;
	struct sim_event *ev;

	if (cs == NULL || !cs->connected || !c->proc.alive)
		return;
	ev = sim_post(sim, sim_between(sim, 0, 30 * SIM_MS), &c->proc, ev_quorum, cs);
	ev->a = c->ring.quorate;
	for (unsigned i = 0; i < sim->cluster->n_coords; i++) {
		struct coord *other = &sim->cluster->coords[i];
		bool there = (c->ring.view & bit(i)) != 0 && in_group(other);

		if (i == c->id || there == ((cs->group & bit(i)) != 0))
			continue;
		ev = sim_post(sim, sim_between(sim, 0, 30 * SIM_MS), &c->proc, ev_member, cs);
		ev->a = i;
		ev->b = there;
	}
}

void ring_process_gone(struct coord *c)
{
	struct cluster *cl = c->sim->cluster;

	c->corosync = NULL;
	for (unsigned i = 0; i < cl->n_coords; i++)
		if (i != c->id)
			tell(&cl->coords[i]);
}

/* ---------------------------------------------------------------- views */

static bool host_answers(const struct cluster *cl, unsigned site)
{
	return !cl->site_down[site] && cl->site_paused[site] <= cl->sim->now;
}

static unsigned component(const struct cluster *cl, unsigned from)
{
	unsigned seen = bit(from);
	bool grown = true;

	while (grown) {
		grown = false;
		for (unsigned i = 0; i < cl->n_coords; i++)
			for (unsigned k = 0; k < cl->n_coords; k++)
				if ((seen & bit(i)) && !(seen & bit(k)) && host_answers(cl, k) &&
				    net_reaches(cl, i, k) && net_reaches(cl, k, i)) {
					seen |= bit(k);
					grown = true;
				}
	}
	return seen;
}

static void ev_view(struct sim *sim, struct sim_event *ev)
{
	struct coord *c = ev->obj;
	struct cluster *cl = sim->cluster;

	if (!host_answers(cl, c->id))
		return;
	c->ring.view = component(cl, c->id);
	c->ring.quorate = (unsigned)__builtin_popcount(c->ring.view) * 2 > cl->n_coords ||
			  (cl->n_coords == 2 && cl->story == STORY_FENCE); /* two_node */
	tell(c);
}

void ring_changed(struct cluster *cl)
{
	for (unsigned i = 0; i < cl->n_coords; i++) {
		struct coord *c = &cl->coords[i];
		unsigned now = component(cl, i);
		uint64_t pause = cl->site_paused[i] > cl->sim->now ? cl->site_paused[i] - cl->sim->now : 0;
		bool lost = (c->ring.view & ~now) != 0;

		sim_post(cl->sim,
			 pause + (lost ? sim_between(cl->sim, TOKEN, TOKEN * 22 / 10)
				       : sim_between(cl->sim, 100 * SIM_MS, 700 * SIM_MS)),
			 NULL, ev_view, c);
	}
}

void ring_init(struct coord *c)
{
	c->ring.view = bit(c->sim->cluster->n_coords) - 1;
	c->ring.quorate = true;
}

/* ---------------------------------------------------------------- messages */

static void ev_deliver(struct sim *sim, struct sim_event *ev);

static void post_message(struct sim *sim, uint64_t delay, struct coord *from, struct coord *to,
			 uint8_t *bytes, size_t size)
{
	struct sim_event *ev = sim_post(sim, delay, &to->proc, ev_deliver, to);

	ev->a = from->id;
	ev->b = size;
	ev->msg = bytes;
}

static void ev_deliver(struct sim *sim, struct sim_event *ev)
{
	struct coord *to = ev->obj;
	struct coord *from = &sim->cluster->coords[ev->a];

	if (to->corosync == NULL || !to->corosync->connected || (to->ring.view & bit(from->id)) == 0)
		return;
	if (!net_reaches(sim->cluster, from->id, to->id)) {
		/* Until a new view is formed it may still come. */
		if (sim_random(sim, 4) != 0) {
			post_message(sim, 100 * SIM_MS, from, to, ev->msg, ev->b);
			ev->msg = NULL;
		}
		return;
	}
	to->corosync->ops->receive(to->corosync->data, from->id + 1, ev->msg, ev->b);
}

static uint64_t varint(const uint8_t *bytes, size_t size, size_t *at)
{
	uint64_t value = 0;

	for (unsigned shift = 0; *at < size && shift < 64; shift += 7) {
		uint8_t byte = bytes[(*at)++];

		value |= (uint64_t)(byte & 0x7f) << shift;
		if ((byte & 0x80) == 0)
			break;
	}
	return value;
}

/* Whom a PeerMsg names (fields 1 and 5, see proto/drover.proto), without unpacking the rest. */
static bool names(const uint8_t *bytes, size_t size, uint64_t member, bool *anybody)
{
	bool named = false;

	*anybody = true;
	for (size_t at = 0; at < size;) {
		uint64_t key = varint(bytes, size, &at);
		uint64_t value = varint(bytes, size, &at); /* a number, or a length */
		size_t end = at + value;

		if (key == (1 << 3 | 0)) {
			*anybody = *anybody && value == 0;
			named = named || value == member;
		}
		while (key == (5 << 3 | 2) && at < end)
			named = varint(bytes, size, &at) == member || named;
		if ((key & 7) == 2)
			at = end;
	}
	return named;
}

static void send_to(struct coord *from, struct coord *to, const uint8_t *bytes, size_t size)
{
	struct cluster *cl = from->sim->cluster;
	struct sim *sim = cl->sim;
	uint64_t at = sim->now + net_latency(cl, from->id, to->id);
	uint64_t *last = &cl->ring_order[from->id][to->id];
	bool bad = cl->bad_net > 0;
	uint8_t *copy;

	if ((from->ring.view & bit(to->id)) == 0 || (bad && sim_random(sim, 100) < cl->bad_net / 2))
		return;
	if (!bad && at <= *last)
		at = *last + 1;
	*last = at;
	for (int twice = bad && sim_random(sim, 100) < cl->bad_net ? 2 : 1; twice > 0; twice--) {
		copy = malloc(size + 1);
		if (copy == NULL)
			abort();
		memcpy(copy, bytes, size);
		post_message(sim, at - sim->now, from, to, copy, size);
		at += sim_between(sim, 0, 300 * SIM_MS);
	}
}

static void transport_send(struct transport *t, const uint8_t *bytes, size_t size)
{
	struct corosync *c = t->impl;
	struct cluster *cl = c->coord->sim->cluster;

	if (!c->connected)
		return;
	coord_speaks(c->coord);
	for (unsigned i = 0; i < cl->n_coords; i++) {
		struct coord *other = &cl->coords[i];

		bool anybody;

		/* Multicast really; who is not meant would drop it at once. */
		if (i != c->coord->id && in_group(other) &&
		    (names(bytes, size, other->server->identity.member, &anybody) || anybody))
			send_to(c->coord, other, bytes, size);
	}
}

static bool transport_quorate(struct transport *t)
{
	struct corosync *c = t->impl;

	return c->connected && c->quorate;
}

/* ---------------------------------------------------------------- life */

static void ev_connected(struct sim *sim, struct sim_event *ev)
{
	struct corosync *c = ev->obj;

	if (c->freed || c->coord->corosync != c)
		return;
	c->connected = true;
	if (c->quorate != c->coord->ring.quorate) {
		c->quorate = c->coord->ring.quorate;
		c->ops->quorum(c->data, c->quorate);
	}
	for (unsigned i = 0; i < sim->cluster->n_coords; i++)
		tell(&sim->cluster->coords[i]);
}

struct corosync *corosync_new(qb_loop_t *loop, struct env *env, const char *group,
			      const struct corosync_ops *ops, void *data, struct dr_error *err)
{
	struct corosync *c = calloc(1, sizeof(*c));

	(void)env;
	(void)group;
	(void)err;
	if (c == NULL)
		abort();
	c->coord = (struct coord *)loop;
	c->transport = (struct transport){.impl = c, .send = transport_send, .quorate = transport_quorate};
	c->ops = ops;
	c->data = data;
	c->coord->corosync = c;
	sim_post(c->coord->sim, sim_between(c->coord->sim, 1 * SIM_MS, 60 * SIM_MS), &c->coord->proc,
		 ev_connected, c);
	return c;
}

void corosync_free(struct corosync *c)
{
	if (c == NULL)
		return;
	c->freed = true;
	c->connected = false;
	if (c->coord->corosync == c)
		ring_process_gone(c->coord);
}

struct transport *corosync_transport(struct corosync *c)
{
	return &c->transport;
}

bool corosync_connected(const struct corosync *c)
{
	return c->connected;
}

bool corosync_quorate(const struct corosync *c)
{
	return c->quorate;
}

uint32_t corosync_nodeid(const struct corosync *c)
{
	return c->coord->id + 1;
}

unsigned corosync_token_ms(void)
{
	return (unsigned)(TOKEN / SIM_MS);
}

bool corosync_present(void)
{
	return true;
}
