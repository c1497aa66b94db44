/*
 * Relays: one process per move and side. They outlive their agents, keep what is not yet delivered while
 * the network is away, and end their QEMU's socket when they die.
 */
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define GIVE_UP	   (30 * SIM_S)
#define LATENCY_LO 150
#define LATENCY_HI 900

struct sim_relay *sim_relay_find(struct sim *sim, uint64_t move, uint32_t attempt, Drover__MoveRole role)
{
	for (unsigned i = 0; i < sim->n_relays; i++) {
		struct sim_relay *r = sim->relays[i];

		if (r->proc.alive && r->move == move && r->attempt == attempt && r->role == role)
			return r;
	}
	return NULL;
}

struct sim_relay *sim_relay_new(struct sim_agent *agent, uint64_t move, uint32_t attempt,
				Drover__MoveRole role)
{
	struct sim *sim = agent->host->sim;
	struct sim_relay *r = calloc(1, sizeof(*r));

	if (r == NULL || sim->n_relays == SIM_RELAYS)
		abort();
	sim->relays[sim->n_relays++] = r;
	r->sim = sim;
	r->host = agent->host;
	r->move = move;
	r->attempt = attempt;
	r->role = role;
	sim_proc_start(&r->proc);
	return r;
}

static void tell(struct sim_relay *r, enum move_ev type, const char *text)
{
	struct move_event ev = {.type = type, .text = text};

	sim_agent_event(&r->host->agent, r->move, r->attempt, r->role, &ev);
}

bool sim_relay_carries(const struct sim_relay *r)
{
	return r->proc.alive && r->peer != NULL && r->peer->proc.alive &&
	       !r->sim->data_cut[r->host->id][r->peer->host->id];
}

static void ev_give_up(struct sim *sim, struct sim_event *ev)
{
	struct sim_relay *r = ev->obj;

	(void)sim;
	if (r->lost_since == 0 || r->lost_since != ev->a)
		return;
	tell(r, MOVE_EV_RELAY_FAILED, "no channel");
	sim_relay_end(r);
}

/* No channel any more: the agent may make another; after a while the relay gives up. */
static void lost(struct sim_relay *r)
{
	struct sim_event *ev;

	if (!r->proc.alive || r->lost_since != 0)
		return;
	r->lost_since = r->sim->now;
	r->peer = NULL;
	if (r->role == DROVER__MOVE_ROLE__MOVE_SRC)
		tell(r, MOVE_EV_RELAY_NEED_CHANNEL, NULL);
	ev = sim_post(r->sim, GIVE_UP, &r->proc, ev_give_up, r);
	ev->a = r->lost_since;
}

static void ev_lost(struct sim *sim, struct sim_event *ev)
{
	struct sim_relay *r = ev->obj;

	(void)sim;
	if (r->peer == NULL || !sim_relay_carries(r))
		lost(r);
}

void sim_relay_end(struct sim_relay *r)
{
	struct sim_relay *peer = r->peer;
	struct sim_qemu *q = r->qemu;

	if (!r->proc.alive)
		return;
	sim_trace(r->sim, "relay %s %llu/%u ended", r->role == DROVER__MOVE_ROLE__MOVE_SRC ? "src" : "dst",
		  (unsigned long long)r->move, r->attempt);
	sim_proc_kill(&r->proc);
	if (q != NULL)
		sim_qemu_socket_closed(q);
	r->qemu = NULL;
	if (peer != NULL && peer->proc.alive)
		sim_post(r->sim, sim_between(r->sim, LATENCY_LO, LATENCY_HI), &peer->proc, ev_lost, peer);
	tell(r, MOVE_EV_RELAY_GONE, NULL);
}

/* ---------------------------------------------------------------- channels and what they carry */

static void ev_connected(struct sim *sim, struct sim_event *ev)
{
	struct sim_relay *r = ev->obj;
	struct sim_relay *peer = sim_relay_find(sim, r->move, r->attempt, DROVER__MOVE_ROLE__MOVE_DST);
	struct move_event out = {.type = MOVE_EV_CHANNEL_FAILED, .path = (unsigned)ev->a, .text = "refused"};

	if (peer != NULL && peer->host->agent.proc.alive && !sim->data_cut[r->host->id][peer->host->id]) {
		out.type = MOVE_EV_CHANNEL_UP;
		r->peer = peer;
		peer->peer = r;
		r->lost_since = 0;
		peer->lost_since = 0;
		if (r->qemu != NULL)
			sim_qemu_path_changed(r->qemu);
	}
	sim_agent_event(&r->host->agent, r->move, r->attempt, r->role, &out);
	sim_relays_look(sim);
}

void sim_relay_connect(struct sim_relay *r, unsigned path)
{
	struct sim_event *ev;

	ev = sim_post(r->sim, sim_between(r->sim, 500, 4000), &r->proc, ev_connected, r);
	ev->a = path;
}

static void look(struct sim_relay *r);

static void ev_final(struct sim *sim, struct sim_event *ev)
{
	struct sim_relay *r = ev->obj; /* the destination's */

	(void)sim;
	if (r->qemu != NULL)
		sim_qemu_loaded(r->qemu);
}

static void ev_ack(struct sim *sim, struct sim_event *ev)
{
	struct sim_relay *r = ev->obj; /* the source's */

	(void)sim;
	if (r->qemu != NULL)
		sim_qemu_acked(r->qemu);
}

static void ev_resumed(struct sim *sim, struct sim_event *ev)
{
	(void)sim;
	tell(ev->obj, MOVE_EV_RELAY_PEER_RESUMED, NULL);
}

static void carry(struct sim_relay *r, bool *waits, void (*fn)(struct sim *, struct sim_event *))
{
	if (!*waits || !sim_relay_carries(r))
		return;
	*waits = false;
	sim_post(r->sim, sim_between(r->sim, LATENCY_LO, LATENCY_HI), &r->peer->proc, fn, r->peer);
}

static void look(struct sim_relay *r)
{
	if (!r->proc.alive)
		return;
	carry(r, &r->final_waits, ev_final);
	if (!r->sim->return_cut) {
		carry(r, &r->ack_waits, ev_ack);
		carry(r, &r->resumed_waits, ev_resumed);
	}
}

void sim_relay_send_final(struct sim_relay *r)
{
	r->final_waits = true;
	look(r);
}

void sim_relay_send_ack(struct sim_relay *r)
{
	r->ack_waits = true;
	look(r);
}

void sim_relay_send_resumed(struct sim_relay *r)
{
	r->resumed_waits = true;
	look(r);
}

void sim_relays_look(struct sim *sim)
{
	for (unsigned i = 0; i < sim->n_relays; i++) {
		struct sim_relay *r = sim->relays[i];

		if (!r->proc.alive)
			continue;
		/* A silent cut is noticed after a while, if it lasts. */
		if (r->peer != NULL && !sim_relay_carries(r))
			sim_post(sim, sim_between(sim, 2 * SIM_S, 4 * SIM_S), &r->proc, ev_lost, r);
		look(r);
		if (r->qemu != NULL)
			sim_qemu_path_changed(r->qemu);
	}
}
