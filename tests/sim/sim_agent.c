/*
 * An agent: its store, its session, its lease, and the real move machines over the simulated world
 * (sim_env.c). Its store loses nothing that was recorded and everything that was not.
 */
#include "sim_agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "common/mutant.h"
#include "sim_coord.h"

#define LEASE_EVERY   (1 * SIM_S)
#define CONNECT_EVERY (500 * SIM_MS)

static void start_event(struct sim_machine *mc)
{
	struct move_event ev = {.type = MOVE_EV_START};

	move_event(mc->m, &ev);
}

static struct sim_machine *machine_new(struct sim_agent *agent, unsigned row)
{
	struct sim_machine *mc = &agent->machines[row];

	memset(mc, 0, sizeof(*mc));
	mc->used = true;
	mc->agent = agent;
	mc->row = row;
	sim_env_init(mc);
	return mc;
}

static void forget(struct sim_machine *mc)
{
	struct sim_move_row *row = &mc->agent->rows[mc->row];

	drover__move_order__free_unpacked(row->order, NULL);
	memset(row, 0, sizeof(*row));
	move_free(mc->m);
	memset(mc, 0, sizeof(*mc));
}

struct sim_machine *sim_agent_machine(struct sim_agent *agent, uint64_t move, Drover__MoveRole role)
{
	struct sim_machine *newest = NULL;

	for (unsigned i = 0; i < SIM_MACHINES; i++) {
		struct sim_machine *mc = &agent->machines[i];
		const Drover__MoveOrder *o = mc->used ? move_order(mc->m) : NULL;

		if (o != NULL && o->move == move && o->role == role &&
		    (newest == NULL || move_order(newest->m)->attempt < o->attempt))
			newest = mc;
	}
	return newest;
}

/* ---------------------------------------------------------------- events for the machines */

static struct sim_machine *exact(struct sim_agent *agent, uint64_t move, uint32_t attempt,
				 Drover__MoveRole role)
{
	for (unsigned i = 0; i < SIM_MACHINES; i++) {
		struct sim_machine *mc = &agent->machines[i];
		const Drover__MoveOrder *o = mc->used ? move_order(mc->m) : NULL;

		if (o != NULL && o->move == move && o->role == role && o->attempt == attempt)
			return mc;
	}
	return NULL;
}

struct machine_event {
	uint64_t move;
	uint32_t attempt;
	Drover__MoveRole role;
	struct move_event ev;
	char text[SIM_TEXT];
	bool has_text;
};

static void ev_machine(struct sim *sim, struct sim_event *sev)
{
	struct machine_event *me = sev->msg;
	struct sim_agent *agent = sev->obj;
	struct sim_machine *mc = exact(agent, me->move, me->attempt, me->role);

	if (mc == NULL)
		return;
	if (me->ev.type == MOVE_EV_QEMU_EXITED && mc->qemu != NULL && mc->qemu->proc.alive)
		return;
	me->ev.text = me->has_text ? me->text : NULL;
	sim->running = agent;
	move_event(mc->m, &me->ev);
}

static void post_machine_event(struct sim_agent *agent, uint64_t delay, uint64_t move, uint32_t attempt,
			       Drover__MoveRole role, const struct move_event *ev)
{
	struct machine_event *me;
	struct sim_event *sev;

	if (!agent->proc.alive)
		return;
	me = calloc(1, sizeof(*me));
	if (me == NULL)
		abort();
	me->move = move;
	me->attempt = attempt;
	me->role = role;
	me->ev = *ev;
	if (ev->text != NULL) {
		me->has_text = true;
		snprintf(me->text, sizeof(me->text), "%s", ev->text);
	}
	sev = sim_post(agent->host->sim, delay, &agent->proc, ev_machine, agent);
	sev->msg = me;
}

void sim_agent_event(struct sim_agent *agent, uint64_t move, uint32_t attempt, Drover__MoveRole role,
		     const struct move_event *ev)
{
	post_machine_event(agent, 20, move, attempt, role, ev);
}

void sim_machine_later(struct sim_machine *mc, uint64_t delay, const struct move_event *ev)
{
	const Drover__MoveOrder *o = move_order(mc->m);

	post_machine_event(mc->agent, delay, o->move, o->attempt, o->role, ev);
}

/* The monitor's events: to whichever machine has to do with this QEMU. */
void sim_agent_qemu_event(struct sim_qemu *q, const struct move_event *ev)
{
	struct sim_agent *agent = &q->host->agent;

	for (unsigned i = 0; i < SIM_MACHINES; i++)
		if (agent->machines[i].used && agent->machines[i].qemu == q)
			sim_machine_later(&agent->machines[i], 40, ev);
}

void sim_agent_qemu_exited(struct sim_host *host, struct sim_qemu *q)
{
	struct move_event ev = {.type = MOVE_EV_QEMU_EXITED, .text = q->killed ? "killed" : NULL};

	sim_agent_qemu_event(q, &ev);
	if (host->agent.proc.alive)
		sim_agent_dirty(&host->agent);
}

/* ---------------------------------------------------------------- reports */

/* R12: "failed" is the host's durable word that this generation will not run here again; while a move of it
 * is undecided, or has its QEMU at the other host, it says nothing. */
bool sim_agent_may_say_failed(struct sim_agent *agent, int vm)
{
	for (unsigned i = 0; i < SIM_MACHINES; i++) {
		struct sim_machine *mc = &agent->machines[i];

		if (mc->used && sim_vm_index(move_order(mc->m)->vm) == vm &&
		    move_phase(mc->m) == DROVER__MOVE_PHASE__SRC_RELEASED)
			return false;
	}
	return true;
}

static void look_at_vms(struct sim_agent *agent)
{
	for (int v = 0; v < (int)agent->host->sim->n_vms; v++) {
		struct sim_vm_row *row = &agent->vms[v];
		struct sim_qemu *q = sim_qemu_by_pid(agent->host->sim, row->pid);

		if (row->here && row->state == DROVER__VM_STATE__VM_RUNNING &&
		    (q == NULL || !q->proc.alive) && sim_agent_may_say_failed(agent, v))
			row->state = DROVER__VM_STATE__VM_FAILED;
	}
}

static void add_vms(struct sim_agent *agent, Drover__AgentReport *report)
{
	report->vms = calloc(SIM_VMS, sizeof(report->vms[0]));
	for (int v = 0; v < (int)agent->host->sim->n_vms; v++) {
		Drover__VmFact *fact;

		if (!agent->vms[v].here)
			continue;
		fact = calloc(1, sizeof(*fact));
		drover__vm_fact__init(fact);
		fact->name = sim_vm_name(v);
		fact->uuid.data = (uint8_t *)(uintptr_t) "0123456789abcde1";
		fact->uuid.len = 0;
		fact->generation = agent->vms[v].generation;
		fact->state = agent->vms[v].state;
		report->vms[report->n_vms++] = fact;
	}
}

static void add_moves(struct sim_agent *agent, Drover__AgentReport *report)
{
	report->moves = calloc(SIM_MACHINES, sizeof(report->moves[0]));
	for (unsigned i = 0; i < SIM_MACHINES; i++) {
		Drover__MoveFact *fact;

		if (!agent->machines[i].used ||
		    move_phase(agent->machines[i].m) == DROVER__MOVE_PHASE__PHASE_NONE)
			continue;
		fact = calloc(1, sizeof(*fact));
		move_fact(agent->machines[i].m, fact);
		fact->relay_port = 7421;
		report->moves[report->n_moves++] = fact;
	}
}

static void ev_report(struct sim *sim, struct sim_event *ev)
{
	struct sim_agent *agent = ev->obj;
	Drover__AgentReport report = DROVER__AGENT_REPORT__INIT;
	Drover__HostFacts facts = DROVER__HOST_FACTS__INIT;

	agent->dirty = false;
	if (agent->coord < 0)
		return;
	if (sim->cluster != NULL)
		cluster_vm_look(agent);
	else
		look_at_vms(agent);
	facts.memory_total = UINT64_C(64) << 30;
	facts.memory_free = UINT64_C(32) << 30;
	facts.cpus = 8;
	facts.relay_port = 7421;
	sim_host_addresses(agent->host, &facts);
	report.facts = &facts;
	report.complete = true;
	report.leaving = agent->leaving;
	report.seq = ++agent->report_seq;
	report.orders_index = agent->orders_index;
	report.floor_term = agent->floor_term;
	report.floor_incarnation = agent->floor_incarnation;
	add_vms(agent, &report);
	add_moves(agent, &report);
	agent->ops->report(agent, &report);
	for (size_t i = 0; i < report.n_vms; i++)
		free(report.vms[i]);
	for (size_t i = 0; i < report.n_moves; i++)
		free(report.moves[i]);
	free(report.vms);
	free(report.moves);
	sim_host_addresses_free(&facts);
}

void sim_agent_dirty(struct sim_agent *agent)
{
	if (agent->dirty || !agent->proc.alive)
		return;
	agent->dirty = true;
	sim_post(agent->host->sim, 20, &agent->proc, ev_report, agent);
}

/* ---------------------------------------------------------------- session, orders, lease */

static void ev_connect(struct sim *sim, struct sim_event *ev)
{
	struct sim_agent *agent = ev->obj;

	if (agent->coord < 0)
		agent->ops->connect(agent);
	sim_post(sim, CONNECT_EVERY, &agent->proc, ev_connect, agent);
}

void sim_agent_session_up(struct sim_agent *agent, int coord)
{
	sim_trace(agent->host->sim, "%s: session with coordinator %d", agent->host->name, coord);
	agent->coord = coord;
	if (agent->host->sim->cluster == NULL)
		agent->orders_index = 0;
	sim_agent_dirty(agent);
}

void sim_agent_session_lost(struct sim_agent *agent)
{
	if (agent->coord >= 0)
		sim_trace(agent->host->sim, "%s: session lost", agent->host->name);
	agent->coord = -1;
	agent->session++;
}

static void ev_lease(struct sim *sim, struct sim_event *ev)
{
	struct sim_agent *agent = ev->obj;

	if (agent->coord >= 0) {
		agent->ops->lease(agent, agent_lease_request(&agent->lease, env_now_us(&agent->env)));
	}
	sim_post(sim, LEASE_EVERY, &agent->proc, ev_lease, agent);
}

void sim_agent_grant(struct sim_agent *agent, uint64_t seq, uint64_t duration_ms, uint64_t term)
{
	struct move_event ev = {.type = MOVE_EV_LEASE};

	if (!agent_lease_grant(&agent->lease, seq, duration_ms, term))
		return;
	agent->host->sim->running = agent;
	for (unsigned i = 0; i < SIM_MACHINES; i++)
		if (agent->machines[i].used)
			move_event(agent->machines[i].m, &ev);
	if (agent->host->sim->cluster != NULL)
		cluster_vm_kick(agent);
}

static uint32_t *floor_of(struct sim_agent *agent, uint64_t move)
{
	unsigned i = agent->n_floors;

	while (i-- > 0 && i + SIM_FLOORS >= agent->n_floors)
		if (agent->floors[i % SIM_FLOORS].move == move)
			return &agent->floors[i % SIM_FLOORS].attempt;
	i = agent->n_floors++ % SIM_FLOORS;
	agent->floors[i].move = move;
	agent->floors[i].attempt = 0;
	return &agent->floors[i].attempt;
}

/* As in agent/amove.c: it was begun before and no row is left of it, so nothing of it is here. */
static void say_gone(struct sim_agent *agent, unsigned row, const Drover__MoveOrder *order)
{
	struct move_record rec = {.phase = DROVER__MOVE_PHASE__PHASE_GONE};
	struct sim_machine *mc = machine_new(agent, row);

	drover__move_stats__init(&rec.stats);
	agent->rows[row].used = true;
	mc->m = move_restore(&mc->env, order, &rec);
	if (mc->m == NULL)
		abort();
	sim_trace(agent->host->sim, "%s: its part of move %llu/%u is over already", agent->host->name,
		  (unsigned long long)order->move, order->attempt);
	sim_agent_dirty(agent);
}

static void order_new(struct sim_agent *agent, const Drover__MoveOrder *order)
{
	int vm = sim_vm_index(order->vm);
	uint32_t *floor = floor_of(agent, order->move);
	unsigned row = 0;
	struct sim_machine *mc;
	struct dr_error err = DR_ERROR_INIT;

	if (vm < 0 || order->attempt < *floor || move_order_check(order, &err) < 0) {
		if (err.code != DR_OK)
			sim_broken(agent->host->sim, "bad order: %s", err.text);
		return;
	}
	while (row < SIM_MACHINES && agent->rows[row].used)
		row++;
	if (row == SIM_MACHINES)
		abort();
	if (order->attempt == *floor) {
		say_gone(agent, row, order);
		return;
	}
	*floor = order->attempt;
	mc = machine_new(agent, row);
	agent->rows[row].used = true;
	mc->m = move_new(&mc->env, order);
	if (mc->m == NULL)
		abort();
	start_event(mc);
}

void sim_agent_deliver(struct sim_agent *agent, const Drover__MoveOrder *order)
{
	struct move_event ev = {.type = MOVE_EV_ORDER, .order = order};

	agent->host->sim->running = agent;
	if (exact(agent, order->move, order->attempt, order->role) == NULL)
		order_new(agent, order);
	/* R5: it is the machine that compares the attempt. */
	for (unsigned i = 0; i < SIM_MACHINES; i++) {
		const Drover__MoveOrder *own =
			agent->machines[i].used ? move_order(agent->machines[i].m) : NULL;

		if (own != NULL && own->move == order->move && own->role == order->role)
			move_event(agent->machines[i].m, &ev);
	}
}

static bool named(const Drover__AgentOrders *orders, const Drover__MoveOrder *own)
{
	for (size_t i = 0; i < orders->n_moves; i++)
		if (orders->moves[i]->move == own->move && orders->moves[i]->attempt == own->attempt &&
		    orders->moves[i]->role == own->role)
			return true;
	return false;
}

bool sim_agent_incarnation(struct sim_agent *agent, uint64_t incarnation)
{
	uint64_t was = agent->cluster_incarnation;

	if (incarnation <= was)
		return incarnation == was || (incarnation == 0 && was <= 1);
	agent->cluster_incarnation = incarnation;
	if (was != 0) {
		agent->floor_term = agent->floor_incarnation = agent->lease.term = 0;
		memset(agent->obeyed, 0, sizeof(agent->obeyed));
	}
	return true;
}

void sim_agent_orders(struct sim_agent *agent, const Drover__AgentOrders *orders)
{
	struct move_event lost = {.type = MOVE_EV_ORDER_LOST};

	if (agent->host->sim->cluster != NULL && orders->cluster_incarnation != agent->cluster_incarnation &&
	    (orders->cluster_incarnation != 0 || agent->cluster_incarnation > 1))
		return; /* R18 */
	if (orders->incarnation < agent->floor_incarnation ||
	    (orders->incarnation == agent->floor_incarnation &&
	     (orders->term < agent->floor_term || orders->index < agent->orders_index)))
		if (!DR_MUTANT(old_orders_obeyed))
			return; /* R7 */
	if (agent->host->sim->cluster != NULL)
		cluster_check_obeyed(agent, orders);
	agent->floor_incarnation = orders->incarnation;
	agent->floor_term = orders->term;
	agent->orders_index = orders->index;
	for (size_t i = 0; i < orders->n_moves; i++)
		sim_agent_deliver(agent, orders->moves[i]);
	if (agent->host->sim->cluster != NULL)
		cluster_vm_orders(agent, orders);
	for (unsigned i = 0; i < SIM_MACHINES; i++) {
		struct sim_machine *mc = &agent->machines[i];

		if (!mc->used || named(orders, move_order(mc->m)))
			continue;
		if (move_phase(mc->m) == DROVER__MOVE_PHASE__PHASE_GONE)
			forget(mc);
		else
			move_event(mc->m, &lost);
	}
	sim_agent_dirty(agent);
}

/* ---------------------------------------------------------------- life and death */

static void restore(struct sim_agent *agent, unsigned i)
{
	struct sim_move_row *row = &agent->rows[i];
	struct sim_machine *mc = machine_new(agent, i);
	struct move_record rec = row->rec;
	Drover__DiskProof proof;
	Drover__DiskProof *proofs[1] = {&proof};

	sim_proof_init(&proof, row->nonce);
	rec.n_proofs = row->n_proofs;
	rec.proofs = proofs;
	mc->m = move_restore(&mc->env, row->order, &rec);
	if (mc->m == NULL)
		abort();
}

void sim_agent_start(struct sim_agent *agent)
{
	struct sim *sim = agent->host->sim;

	sim_proc_start(&agent->proc);
	sim_trace(sim, "%s: agent starts", agent->host->name);
	sim_env_clock(agent);
	for (unsigned i = 0; i < sizeof(agent->start_id); i++)
		agent->start_id[i] = (uint8_t)sim_random(sim, 256);
	agent_lease_init(&agent->lease);
	agent->leaving = false;
	agent->dirty = false;
	if (sim->cluster != NULL) {
		cluster_agent_started(agent);
	} else {
		sim_post(sim, 1000, &agent->proc, ev_connect, agent);
		sim_post(sim, 1500, &agent->proc, ev_lease, agent);
	}
	for (unsigned i = 0; i < SIM_MACHINES; i++)
		if (agent->rows[i].used && agent->rows[i].order != NULL)
			restore(agent, i);
		else
			agent->rows[i].used = false; /* nothing was recorded of it */
	for (unsigned i = 0; i < SIM_MACHINES; i++)
		if (agent->machines[i].used)
			start_event(&agent->machines[i]);
}

static void ev_restart(struct sim *sim, struct sim_event *ev)
{
	struct sim_agent *agent = ev->obj;

	sim->running = agent;
	if (!agent->proc.alive && !agent->no_restart) /* its host may have lost its power meanwhile */
		sim_agent_start(agent);
}

void sim_agent_kill(struct sim_agent *agent)
{
	struct sim *sim = agent->host->sim;

	if (!agent->proc.alive)
		return;
	sim_trace(sim, "%s: agent killed", agent->host->name);
	for (unsigned i = 0; i < SIM_MACHINES; i++) {
		if (agent->machines[i].used)
			move_free(agent->machines[i].m);
		memset(&agent->machines[i], 0, sizeof(agent->machines[i]));
	}
	sim_proc_kill(&agent->proc);
	sim_agent_session_lost(agent);
	if (sim->cluster != NULL)
		cluster_agent_died(agent);
	memset(agent->timers, 0, sizeof(agent->timers));
	if (!agent->no_restart)
		sim_post(sim, agent->restart_delay, NULL, ev_restart, agent);
	if (sim->running == agent && sim->escape != NULL)
		longjmp(*sim->escape, 1);
}
