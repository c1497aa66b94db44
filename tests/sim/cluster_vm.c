/*
 * VMs of a host beside its moves: orders to run and to stop, as agent/reconcile.c, vm.c and vm_run.c obey
 * them. What is recorded (struct sim_vm_row) survives the agent; QEMUs survive it, too.
 */
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "common/mutant.h"
#include "sim_agent.h"

static struct sim *sim_of(struct sim_agent *agent)
{
	return agent->host->sim;
}

static bool is_final(const struct sim_vm_row *row)
{
	return row->state == DROVER__VM_STATE__VM_STOPPED || row->state == DROVER__VM_STATE__VM_FAILED;
}

static bool lease_ok(struct sim_agent *agent)
{
	return agent_lease_valid(&agent->lease, env_now_us(&agent->env)) || DR_MUTANT(start_without_lease);
}

/* R12: the word is durable before it is said. */
static void end_row(struct sim_agent *agent, int vm, Drover__VmState state)
{
	struct sim_vm_row *row = &agent->vms[vm];

	row->state = state;
	row->stopping = false;
	row->prelaunch = false;
	if (row->word < row->generation)
		row->word = row->generation;
	sim_agent_dirty(agent);
}

/* ---------------------------------------------------------------- start */

static void ev_look(struct sim *sim, struct sim_event *ev)
{
	(void)sim;
	cluster_vm_look(ev->obj);
}

static void first_cont(struct sim_agent *agent, int vm)
{
	struct sim_vm_row *row = &agent->vms[vm];
	struct sim_qemu *q = sim_qemu_by_pid(sim_of(agent), row->pid);

	if (!row->here || !row->prelaunch || row->starting || q == NULL || !q->proc.alive || !lease_ok(agent))
		return;
	cluster_check_start(agent, vm);
	sim_qemu_qmp(q, agent, 0, 0, DROVER__MOVE_ROLE__MOVE_SRC, MOVE_QMP_CONT, 0, NULL);
	sim_post(sim_of(agent), 5 * SIM_MS, &agent->proc, ev_look, agent);
}

static void ev_up(struct sim *sim, struct sim_event *ev)
{
	struct sim_agent *agent = ev->obj;

	(void)sim;
	agent->vms[ev->a].starting = false;
	first_cont(agent, (int)ev->a);
}

static void start(struct sim_agent *agent, int vm, uint64_t generation)
{
	struct sim *sim = sim_of(agent);
	struct sim_vm_row *row = &agent->vms[vm];
	struct sim_qemu *q;
	struct sim_event *ev;

	sim_trace(sim, "%s: starts vm%d generation %llu", agent->host->name, vm + 1,
		  (unsigned long long)generation);
	row->here = true;
	row->generation = generation;
	row->state = DROVER__VM_STATE__VM_STARTING;
	row->stopping = false;
	row->prelaunch = true;
	row->pid = 0;
	if (sim->on_point != NULL)
		sim->on_point(sim, agent, "vm-start.recorded");
	q = sim_qemu_new(sim, agent->host, vm, false);
	q->run = MOVE_RUN_PAUSED;
	row->pid = q->pid;
	row->starting = true;
	ev = sim_post(sim, sim_between(sim, 20 * SIM_MS, 80 * SIM_MS), &agent->proc, ev_up, agent);
	ev->a = (uint64_t)vm;
	sim_agent_dirty(agent);
}

static void nothing_here(struct sim_agent *agent, int vm, uint64_t generation)
{
	struct sim_vm_row *row = &agent->vms[vm];

	row->here = true;
	row->generation = generation;
	row->pid = 0;
	end_row(agent, vm, DROVER__VM_STATE__VM_STOPPED);
}

static void order_run(struct sim_agent *agent, int vm, const Drover__VmOrder *o)
{
	struct sim_vm_row *row = &agent->vms[vm];

	if (row->here && !is_final(row)) {
		if (o->generation == row->generation)
			first_cont(agent, vm);
		return;
	}
	if (o->generation <= row->word && !DR_MUTANT(word_forgotten)) {
		if (!row->here)
			nothing_here(agent, vm, o->generation);
		return;
	}
	if (lease_ok(agent))
		start(agent, vm, o->generation);
}

/* ---------------------------------------------------------------- stop */

static void ev_off(struct sim *sim, struct sim_event *ev)
{
	(void)sim;
	sim_qemu_kill(ev->obj, false);
}

static void order_stop(struct sim_agent *agent, int vm, const Drover__VmOrder *o, bool force)
{
	struct sim *sim = sim_of(agent);
	struct sim_vm_row *row = &agent->vms[vm];
	struct sim_qemu *q;

	if (!row->here || (is_final(row) && row->generation < o->generation)) {
		nothing_here(agent, vm, o->generation);
		return;
	}
	if (is_final(row) || (row->stopping && !force))
		return;
	row->stopping = true;
	sim->cluster->vm_killed[vm] = true; /* its agent may miss its end, and will call it a failure */
	q = sim_qemu_by_pid(sim, row->pid);
	if (q != NULL && q->proc.alive)
		sim_post(sim,
			 force || row->prelaunch ? sim_between(sim, 2 * SIM_MS, 50 * SIM_MS)
						 : sim_between(sim, 200 * SIM_MS, 4 * SIM_S),
			 &q->proc, ev_off, q);
	else
		cluster_vm_look(agent);
}

/* ---------------------------------------------------------------- orders */

static bool held_by_move(struct sim_agent *agent, int vm, bool *taken)
{
	bool held = false;

	*taken = true;
	for (unsigned i = 0; i < SIM_MACHINES; i++) {
		struct sim_machine *mc = &agent->machines[i];

		if (!mc->used || sim_vm_index(move_order(mc->m)->vm) != vm ||
		    move_phase(mc->m) == DROVER__MOVE_PHASE__PHASE_GONE)
			continue;
		held = true;
		*taken = *taken && move_vm_taken(mc->m);
	}
	return held;
}

static void obey(struct sim_agent *agent, const Drover__VmOrder *o)
{
	int vm = sim_vm_index(o->name);
	struct sim_vm_row *row;
	bool taken;

	if (vm < 0)
		return;
	row = &agent->vms[vm];
	if (held_by_move(agent, vm, &taken) && (o->want != DROVER__VM_WANT__WANT_KILL || !taken))
		return;
	if (o->generation < row->floor)
		return;
	row->floor = o->generation;
	switch (o->want) {
	case DROVER__VM_WANT__WANT_RUN:
		order_run(agent, vm, o);
		return;
	case DROVER__VM_WANT__WANT_STOP:
	case DROVER__VM_WANT__WANT_KILL:
		order_stop(agent, vm, o, o->want == DROVER__VM_WANT__WANT_KILL);
		return;
	case DROVER__VM_WANT__WANT_NOTHING:
	case _DROVER__VM_WANT_IS_INT_SIZE:
		return;
	}
}

static void sweep(struct sim_agent *agent, const Drover__AgentOrders *orders)
{
	for (unsigned v = 0; v < sim_of(agent)->n_vms; v++) {
		bool ordered = false;

		for (size_t i = 0; i < orders->n_vms; i++)
			ordered = ordered || sim_vm_index(orders->vms[i]->name) == (int)v;
		if (!ordered && agent->vms[v].here && is_final(&agent->vms[v]))
			agent->vms[v].here = false;
	}
}

void cluster_vm_orders(struct sim_agent *agent, const Drover__AgentOrders *orders)
{
	size_t size = drover__agent_orders__get_packed_size(orders);
	uint8_t *bytes = malloc(size + 1);

	if (bytes == NULL)
		abort();
	drover__agent_orders__pack(orders, bytes);
	if (agent->newest != NULL)
		drover__agent_orders__free_unpacked(agent->newest, NULL);
	agent->newest = drover__agent_orders__unpack(NULL, size, bytes);
	free(bytes);
	for (size_t i = 0; i < orders->n_vms; i++)
		obey(agent, orders->vms[i]);
	sweep(agent, orders);
	if (agent->leaving && orders->leaving_committed)
		sim_agent_kill(agent); /* does not return */
}

/* A lease came: what waited for one. */
void cluster_vm_kick(struct sim_agent *agent)
{
	Drover__AgentOrders *o = agent->newest;

	for (size_t i = 0; o != NULL && i < o->n_vms; i++)
		obey(agent, o->vms[i]);
}

void cluster_vm_look(struct sim_agent *agent)
{
	struct sim *sim = sim_of(agent);

	for (int v = 0; v < (int)sim->n_vms; v++) {
		struct sim_vm_row *row = &agent->vms[v];
		struct sim_qemu *q = sim_qemu_by_pid(sim, row->pid);
		bool alive = q != NULL && q->proc.alive;

		if (!row->here || is_final(row))
			continue;
		if (alive && q->run == MOVE_RUN_RUNNING && row->state == DROVER__VM_STATE__VM_STARTING) {
			row->state = DROVER__VM_STATE__VM_RUNNING;
			row->prelaunch = false;
			sim_agent_dirty(agent);
		}
		if (alive || !sim_agent_may_say_failed(agent, v))
			continue;
		end_row(agent, v,
			row->stopping || (q != NULL && q->guest_off) ? DROVER__VM_STATE__VM_STOPPED
								     : DROVER__VM_STATE__VM_FAILED);
	}
}

/* Adoption: QEMUs that outlived the agent are found, those that did not have failed. */
void cluster_vm_restart(struct sim_agent *agent)
{
	if (agent->newest != NULL)
		drover__agent_orders__free_unpacked(agent->newest, NULL);
	agent->newest = NULL;
	for (unsigned v = 0; v < sim_of(agent)->n_vms; v++) {
		agent->vms[v].starting = false;
		agent->vms[v].stopping = false;
	}
	agent->orders_index = 0;
	sim_post(sim_of(agent), 20 * SIM_MS, &agent->proc, ev_look, agent);
}
