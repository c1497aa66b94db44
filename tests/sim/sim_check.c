/* The invariants of DESIGN §1, asked of the fake QEMUs' own truth after every event. */
#include <stdio.h>
#include <string.h>

#include "sim.h"
#include "sim_coord.h"

/* I1: a VM's vCPUs run on at most one node. Also keeps how long none ran. */
void sim_check_copies(struct sim *sim)
{
	for (int v = 0; v < (int)sim->n_vms; v++) {
		unsigned running = 0;
		const struct sim_qemu *at = NULL;

		for (unsigned i = 0; i < sim->n_qemus; i++)
			if (sim->qemus[i]->vm == v && sim_qemu_runs(sim->qemus[i])) {
				running++;
				at = sim->qemus[i];
			}
		if (running > 1)
			sim_broken(sim, "I1: vm%d runs twice, the second on %s", v + 1, at->host->name);
		if (running == 0 && sim->dark_since[v] == SIM_NEVER)
			sim->dark_since[v] = sim->now;
		if (running == 0 && sim->now - sim->dark_since[v] > sim->darkest[v])
			sim->darkest[v] = sim->now - sim->dark_since[v];
		if (running > 0)
			sim->dark_since[v] = SIM_NEVER;
	}
}

static bool vm_is_off(const struct sim *sim, int v)
{
	for (unsigned i = 0; i < sim->n_qemus; i++)
		if (sim->qemus[i]->vm == v && sim->qemus[i]->proc.alive && !sim->qemus[i]->incoming)
			return false;
	return sim->dark_since[v] != SIM_NEVER;
}

/* I2: the owner changes by a commit only, and once per move. */
static void check_owner(struct sim *sim)
{
	for (int v = 0; v < (int)sim->n_vms; v++) {
		int owner = sim_coord_owner(sim->coord, v);
		uint64_t move = 0;
		uint32_t attempt = 0;

		if (owner == sim->owner[v])
			continue;
		sim->owner[v] = owner;
		sim->owner_changes[v]++;
		sim_coord_move_state(sim->coord, v, &move, &attempt);
		/* A VM that is off for certain only changes hands: no attempt, no commit. */
		if (vm_is_off(sim, v))
			continue;
		if (!sim_coord_committed(sim->coord, move, attempt))
			sim_broken(sim, "I2: the owner of vm%d changed without a commit", v + 1);
		if (sim->owner_changes[v] > 1)
			sim_broken(sim, "I2: the owner of vm%d changed twice in one move", v + 1);
	}
}

/* I4, R21: no slot is free while something of that side is left. */
static void check_slots(struct sim *sim)
{
	for (unsigned i = 0; i < sim->n_relays; i++) {
		const struct sim_relay *r = sim->relays[i];

		if (r->proc.alive && !sim_coord_slot(sim->coord, r->move, r->attempt, r->role))
			sim_broken(sim, "I4: slot of move %llu/%u freed while its relay lives on %s",
				   (unsigned long long)r->move, r->attempt, r->host->name);
	}
	for (unsigned i = 0; i < sim->n_qemus; i++) {
		const struct sim_qemu *q = sim->qemus[i];

		if (q->proc.alive && q->incoming && q->run != MOVE_RUN_RUNNING &&
		    !sim_coord_slot(sim->coord, q->move, q->attempt, DROVER__MOVE_ROLE__MOVE_DST))
			sim_broken(sim, "I4: slot of move %llu/%u freed while its QEMU lives on %s",
				   (unsigned long long)q->move, q->attempt, q->host->name);
	}
}

/* R25: nobody kills a process that is not a move's. */
static void check_bystanders(struct sim *sim)
{
	for (unsigned i = 0; i < sim->n_hosts; i++)
		if (sim->hosts[i].pid_reused != NULL && !sim->hosts[i].pid_reused->proc.alive)
			sim_broken(sim, "R25: a process with a reused pid was killed on %s",
				   sim->hosts[i].name);
}

void sim_check(struct sim *sim)
{
	uint64_t index = sim_coord_index(sim->coord);

	sim_check_copies(sim);
	check_bystanders(sim);
	if (index != sim->checked_index || sim->n_relays + sim->n_qemus != sim->checked_parts) {
		sim->checked_index = index;
		sim->checked_parts = sim->n_relays + sim->n_qemus;
		check_owner(sim);
		check_slots(sim);
	}
}

static void check_left_behind(struct sim *sim)
{
	unsigned qemus[SIM_VMS] = {0};

	for (unsigned i = 0; i < sim->n_relays; i++)
		if (sim->relays[i]->proc.alive)
			sim_broken(sim, "a relay of move %llu/%u is left on %s",
				   (unsigned long long)sim->relays[i]->move, sim->relays[i]->attempt,
				   sim->relays[i]->host->name);
	for (unsigned i = 0; i < SIM_NONCES; i++)
		if (sim->nonces[i].used)
			sim_broken(sim, "a nonce of move %llu/%u is left",
				   (unsigned long long)sim->nonces[i].move, sim->nonces[i].attempt);
	for (unsigned i = 0; i < sim->n_qemus; i++)
		if (sim->qemus[i]->proc.alive)
			qemus[sim->qemus[i]->vm]++;
	for (int v = 0; v < (int)sim->n_vms; v++)
		if (qemus[v] > 1)
			sim_broken(sim, "a QEMU of vm%d is left", v + 1);
	for (unsigned i = 0; i < sim->n_hosts; i++)
		for (unsigned k = 0; k < SIM_MACHINES; k++)
			if (sim->hosts[i].agent.machines[k].used)
				sim_broken(sim, "%s still keeps a move", sim->hosts[i].name);
}

/* Where the rows say that it is, and nowhere else; or reported failed if its only copy was killed. */
static void check_home(struct sim *sim, int v)
{
	int owner = sim_coord_owner(sim->coord, v);
	const struct sim_vm_row *row = &sim->hosts[owner].agent.vms[v];
	const struct sim_qemu *q = sim_qemu_by_pid(sim, row->pid);
	bool runs = q != NULL && sim_qemu_runs(q) && q->host->id == (unsigned)owner;

	if (runs) {
		if (sim_coord_vm_state(sim->coord, v) != DROVER__VM_STATE__VM_RUNNING)
			sim_broken(sim, "vm%d runs but is reported as %d", v + 1,
				   (int)sim_coord_vm_state(sim->coord, v));
		if (!row->here || row->generation != sim_coord_generation(sim->coord, v))
			sim_broken(sim, "vm%d: agent and rows disagree about its generation", v + 1);
		return;
	}
	if (!sim->qemu_killed)
		sim_broken(sim, "vm%d runs nowhere though no QEMU was killed", v + 1);
	else if (sim_coord_vm_state(sim->coord, v) != DROVER__VM_STATE__VM_FAILED &&
		 sim_coord_vm_state(sim->coord, v) !=
			 DROVER__VM_STATE__VM_STOPPED) /* failed, then moved while off */
		sim_broken(sim, "vm%d has lost its QEMU and is reported as %d", v + 1,
			   (int)sim_coord_vm_state(sim->coord, v));
}

void sim_check_end(struct sim *sim)
{
	for (int v = 0; v < (int)sim->n_vms; v++) {
		const char *state = sim_coord_move_state(sim->coord, v, NULL, NULL);

		if (state[0] != '\0' && strcmp(state, "done") != 0 && strcmp(state, "failed") != 0 &&
		    strcmp(state, "cancelled") != 0)
			sim_broken(sim, "the move of vm%d does not end: %s", v + 1, state);
		check_home(sim, v);
	}
	check_left_behind(sim);
}
