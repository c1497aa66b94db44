/* The kinds of faults: how each begins and ends. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster_fault.h"
#include "coordinator/server.h"
#include "sim_agent.h"

struct disk fault_old_disks[SIM_COORDS];

/* ---------------------------------------------------------------- coordinators */

static struct coord *target(struct cluster *cl, const struct fault *f)
{
	return &cl->coords[f->coord];
}

static struct coord *leader_or_any(struct cluster *cl, struct fault *f)
{
	struct coord *leader = cluster_leader(cl);

	if (leader != NULL)
		f->coord = leader->id;
	return target(cl, f);
}

static void lose_power(struct cluster *cl, struct coord *c)
{
	/* In the middle of what its disk does next; or now. */
	if (c->proc.alive && sim_random(cl->sim, 3) != 0)
		c->disk.crash_in = 1 + (unsigned)sim_random(cl->sim, 60);
	else
		coord_power_loss(c);
}

static void coord_kill_begin(struct cluster *cl, struct fault *f)
{
	coord_kill(target(cl, f));
}

static void coord_power_begin(struct cluster *cl, struct fault *f)
{
	lose_power(cl, target(cl, f));
}

static void leader_kill_begin(struct cluster *cl, struct fault *f)
{
	coord_kill(leader_or_any(cl, f));
}

static void leader_power_begin(struct cluster *cl, struct fault *f)
{
	lose_power(cl, leader_or_any(cl, f));
}

static void pause_coord(struct cluster *cl, struct coord *c, uint64_t lasts)
{
	if (c->proc.alive && c->proc.stopped_until < cl->sim->now + lasts)
		c->proc.stopped_until = cl->sim->now + lasts;
}

static void coord_pause_begin(struct cluster *cl, struct fault *f)
{
	pause_coord(cl, target(cl, f), f->lasts);
}

static void leader_pause_begin(struct cluster *cl, struct fault *f)
{
	pause_coord(cl, leader_or_any(cl, f), f->lasts);
}

static void coord_stop_begin(struct cluster *cl, struct fault *f)
{
	coord_stop(target(cl, f));
}

/* ---------------------------------------------------------------- hosts */

static void stop_procs(struct cluster *cl, unsigned host, uint64_t until)
{
	struct sim *sim = cl->sim;

	if (sim->hosts[host].agent.proc.alive)
		sim->hosts[host].agent.proc.stopped_until = until;
	for (unsigned i = 0; i < sim->n_qemus; i++)
		if (sim->qemus[i]->host->id == host && sim->qemus[i]->proc.alive)
			sim->qemus[i]->proc.stopped_until = until;
	for (unsigned i = 0; i < sim->n_relays; i++)
		if (sim->relays[i]->host->id == host && sim->relays[i]->proc.alive)
			sim->relays[i]->proc.stopped_until = until;
}

static void host_pause_begin(struct cluster *cl, struct fault *f)
{
	uint64_t until = cl->sim->now + f->lasts;

	cl->site_paused[f->host] = until;
	stop_procs(cl, f->host, until);
	if (f->host < cl->n_coords)
		pause_coord(cl, &cl->coords[f->host], f->lasts);
	net_changed(cl);
}

static void host_pause_end(struct cluster *cl, struct fault *f)
{
	(void)f;
	net_changed(cl);
}

void host_power_off(struct cluster *cl, unsigned host)
{
	struct sim *sim = cl->sim;
	struct sim_agent *a = &sim->hosts[host].agent;

	if (cl->site_down[host])
		return;
	sim_trace(sim, "%s loses power", sim->hosts[host].name);
	cl->site_down[host] = true;
	a->no_restart = true;
	sim_agent_kill(a);
	for (unsigned i = 0; i < sim->n_qemus; i++) {
		struct sim_qemu *q = sim->qemus[i];

		if (!q->proc.alive || q->host->id != host)
			continue;
		if (!q->incoming || q->mig == MOVE_MIG_COMPLETED)
			cl->vm_killed[q->vm] = true;
		sim_qemu_kill(q, true);
	}
	for (unsigned i = 0; i < sim->n_relays; i++)
		if (sim->relays[i]->proc.alive && sim->relays[i]->host->id == host)
			sim_relay_end(sim->relays[i]);
	conns_process_gone(sim, &a->proc, false);
	if (host < cl->n_coords) {
		cl->coords[host].keep_down = true;
		coord_power_loss(&cl->coords[host]);
	}
	net_changed(cl);
}

static void host_power_begin(struct cluster *cl, struct fault *f)
{
	if (cl->site_down[f->host])
		return;
	host_power_off(cl, f->host);
	if (sim_random(cl->sim, 2) == 0)
		client_fence(&cl->clients[CLIENTS - 2], f->host);
}

void host_power_on(struct cluster *cl, unsigned host)
{
	struct sim *sim = cl->sim;
	struct sim_agent *a = &sim->hosts[host].agent;

	if (!cl->site_down[host])
		return;
	sim_trace(sim, "%s boots", sim->hosts[host].name);
	cl->site_down[host] = false;
	for (unsigned k = 0; k < 16; k++)
		cl->boot_id[host][k] = (uint8_t)sim_random(sim, 256);
	a->no_restart = false;
	cl->booted_at[host] = sim->now;
	if (!a->proc.alive)
		sim_agent_start(a);
	if (host < cl->n_coords) {
		cl->coords[host].keep_down = false;
		coord_start(&cl->coords[host]);
	}
	net_changed(cl);
}

static void host_power_end(struct cluster *cl, struct fault *f)
{
	host_power_on(cl, f->host);
}

/* ---------------------------------------------------------------- agents, relays, QEMUs */

static void agent_kill_begin(struct cluster *cl, struct fault *f)
{
	struct sim_agent *a = &cl->sim->hosts[f->host].agent;

	a->restart_delay = sim_between(cl->sim, 100 * SIM_MS, 5 * SIM_S);
	sim_agent_kill(a);
}

static void agent_pause_begin(struct cluster *cl, struct fault *f)
{
	struct sim_agent *a = &cl->sim->hosts[f->host].agent;

	if (a->proc.alive)
		a->proc.stopped_until = cl->sim->now + f->lasts;
}

int fault_point_host = -1;

void fault_on_point(struct sim *sim, struct sim_agent *agent, const char *name)
{
	(void)name;
	if (fault_point_host != (int)agent->host->id || sim->running != agent)
		return;
	fault_point_host = -1;
	agent->restart_delay = sim_between(sim, 100 * SIM_MS, 5 * SIM_S);
	sim_agent_kill(agent); /* does not return */
}

static void agent_point_begin(struct cluster *cl, struct fault *f)
{
	(void)cl;
	fault_point_host = (int)f->host;
}

static void agent_point_end(struct cluster *cl, struct fault *f)
{
	(void)cl;
	(void)f;
	fault_point_host = -1;
}

static void relay_kill_begin(struct cluster *cl, struct fault *f)
{
	struct sim *sim = cl->sim;
	struct sim_relay *found = NULL;

	for (unsigned i = 0; i < sim->n_relays; i++)
		if (sim->relays[i]->proc.alive && (found == NULL || sim->relays[i]->host->id == f->host))
			found = sim->relays[i];
	if (found != NULL)
		sim_relay_end(found);
}

static void qemu_kill_begin(struct cluster *cl, struct fault *f)
{
	struct sim *sim = cl->sim;
	struct sim_qemu *found = NULL;

	for (unsigned i = 0; i < sim->n_qemus; i++) {
		struct sim_qemu *q = sim->qemus[i];

		if (q->proc.alive && (found == NULL || (q->host->id == f->host && q->mig != MOVE_MIG_NONE)))
			found = q;
	}
	if (found == NULL)
		return;
	if (!found->incoming || found->mig == MOVE_MIG_COMPLETED)
		cl->vm_killed[found->vm] = true;
	sim_trace(sim, "QEMU %llu of vm%d on %s is killed", (unsigned long long)found->pid, found->vm + 1,
		  found->host->name);
	sim_qemu_kill(found, true);
}

static void guest_off_begin(struct cluster *cl, struct fault *f)
{
	struct sim *sim = cl->sim;

	for (unsigned i = 0; i < sim->n_qemus; i++) {
		struct sim_qemu *q = sim->qemus[i];

		if (!sim_qemu_runs(q) || (q->host->id != f->host && i + 1 < sim->n_qemus))
			continue;
		cl->vm_killed[q->vm] = true;
		q->guest_off = true;
		sim_trace(sim, "the guest of vm%d shuts itself down", q->vm + 1);
		sim_qemu_kill(q, false);
		return;
	}
}

/* ---------------------------------------------------------------- network */

static void cut_both(struct cluster *cl, unsigned a, unsigned b, bool cut)
{
	if (a == b)
		return;
	net_cut(cl, a, b, cut);
	net_cut(cl, b, a, cut);
}

static void cut_coords(struct cluster *cl, struct fault *f, bool cut)
{
	for (unsigned i = 0; i < cl->n_coords; i++)
		cut_both(cl, f->coord, i, cut);
	net_changed(cl);
}

static void cut_coords_begin(struct cluster *cl, struct fault *f)
{
	if (sim_random(cl->sim, 2) == 0)
		leader_or_any(cl, f);
	cut_coords(cl, f, true);
}

static void cut_coords_end(struct cluster *cl, struct fault *f)
{
	cut_coords(cl, f, false);
}

static void one_way_begin(struct cluster *cl, struct fault *f)
{
	if (f->other != f->coord)
		net_cut(cl, f->other, f->coord, true);
	net_changed(cl);
}

static void one_way_end(struct cluster *cl, struct fault *f)
{
	net_cut(cl, f->other, f->coord, false);
	net_changed(cl);
}

static void cut_agent(struct cluster *cl, struct fault *f, bool cut)
{
	for (unsigned i = 0; i < cl->n_coords; i++)
		cut_both(cl, f->host, i, cut);
	net_changed(cl);
}

static void cut_agent_begin(struct cluster *cl, struct fault *f)
{
	cut_agent(cl, f, true);
}

static void cut_agent_end(struct cluster *cl, struct fault *f)
{
	cut_agent(cl, f, false);
}

static void cut_one_begin(struct cluster *cl, struct fault *f)
{
	cut_both(cl, f->host, f->coord, true);
	net_changed(cl);
}

static void cut_one_end(struct cluster *cl, struct fault *f)
{
	cut_both(cl, f->host, f->coord, false);
	net_changed(cl);
}

static void cut_relays(struct cluster *cl, unsigned host, bool cut)
{
	for (unsigned i = 0; i < cl->sim->n_hosts; i++)
		cl->sim->data_cut[host][i] = cl->sim->data_cut[i][host] = cut && i != host;
	sim_relays_look(cl->sim);
}

static void cut_relays_begin(struct cluster *cl, struct fault *f)
{
	cut_relays(cl, f->host, true);
}

static void cut_relays_end(struct cluster *cl, struct fault *f)
{
	cut_relays(cl, f->host, false);
}

static void cut_return_begin(struct cluster *cl, struct fault *f)
{
	(void)f;
	cl->sim->return_cut = true;
}

static void cut_return_end(struct cluster *cl, struct fault *f)
{
	(void)f;
	cl->sim->return_cut = false;
	sim_relays_look(cl->sim);
}

static void cut_host_begin(struct cluster *cl, struct fault *f)
{
	cut_relays(cl, f->host, true);
	cut_agent(cl, f, true);
}

static void cut_host_end(struct cluster *cl, struct fault *f)
{
	cut_relays(cl, f->host, false);
	cut_agent(cl, f, false);
}

static void bad_net_begin(struct cluster *cl, struct fault *f)
{
	(void)f;
	cl->bad_net = 5 + (unsigned)sim_random(cl->sim, 40);
}

static void bad_net_end(struct cluster *cl, struct fault *f)
{
	(void)f;
	cl->bad_net = 0;
}

static void late_begin(struct cluster *cl, struct fault *f)
{
	conns_delay(cl, &cl->sim->hosts[f->host].agent.proc, sim_between(cl->sim, 100 * SIM_MS, 6 * SIM_S));
}

static void late_end(struct cluster *cl, struct fault *f)
{
	conns_delay(cl, &cl->sim->hosts[f->host].agent.proc, 0);
}

static void again_begin(struct cluster *cl, struct fault *f)
{
	cl->kept[f->host].wanted = true;
}

static void again_end(struct cluster *cl, struct fault *f)
{
	conns_again(cl, &cl->sim->hosts[f->host].agent.proc);
}

static void break_begin(struct cluster *cl, struct fault *f)
{
	conns_break(cl, &cl->sim->hosts[f->host].agent.proc);
}

/* ---------------------------------------------------------------- disks, clocks */

static void slow_begin(struct cluster *cl, struct fault *f)
{
	target(cl, f)->disk.slow_us = sim_between(cl->sim, 20 * SIM_MS, 2 * SIM_S);
}

static void slow_end(struct cluster *cl, struct fault *f)
{
	target(cl, f)->disk.slow_us = 0;
}

static void sync_begin(struct cluster *cl, struct fault *f)
{
	target(cl, f)->disk.fail_sync = 1 + (unsigned)sim_random(cl->sim, 8);
}

static void full_begin(struct cluster *cl, struct fault *f)
{
	target(cl, f)->disk.full = true;
}

static void full_end(struct cluster *cl, struct fault *f)
{
	target(cl, f)->disk.full = false;
}

static void down_then(struct cluster *cl, struct coord *c)
{
	(void)cl;
	c->keep_down = true;
	coord_kill(c);
}

static void up_again(struct coord *c)
{
	c->keep_down = false;
	coord_start(c);
}

static void old_begin(struct cluster *cl, struct fault *f)
{
	down_then(cl, target(cl, f));
	disk_copy(&target(cl, f)->disk, &fault_old_disks[f->coord]);
	target(cl, f)->old_copy = true;
	sim_trace(cl->sim, "%s gets an old copy of its disk", target(cl, f)->name);
}

static void flip_begin(struct cluster *cl, struct fault *f)
{
	unsigned bits = 1 + (unsigned)sim_random(cl->sim, 4);

	down_then(cl, target(cl, f));
	if (sim_random(cl->sim, 2) == 0)
		disk_checkpoint(&target(cl, f)->disk); /* its pages have no checksums of SQLite's */
	for (; bits > 0; bits--)
		disk_flip_bit(&target(cl, f)->disk, sim_random(cl->sim, UINT64_MAX));
}

static void disk_end(struct cluster *cl, struct fault *f)
{
	up_again(target(cl, f));
}

/* The disk is new, or the whole machine: the operator makes it a member again. */
static void wipe_begin(struct cluster *cl, struct fault *f)
{
	struct coord *c = target(cl, f);

	down_then(cl, c);
	disk_wipe(&c->disk);
}

static void wipe_end(struct cluster *cl, struct fault *f)
{
	operator_rejoin(target(cl, f), false);
	(void)cl;
}

static void replace_end(struct cluster *cl, struct fault *f)
{
	operator_rejoin(target(cl, f), true);
	(void)cl;
}

/* R19: what SQLite refuses stops the member. */
static void state_db_begin(struct cluster *cl, struct fault *f)
{
	struct coord *c = target(cl, f);

	if (!coord_up(c) || c->server->db == NULL)
		return;
	c->disk.failed = true;
	db_fail_nth(c->server->db, 1 + (unsigned)sim_random(cl->sim, 40));
}

static void agent_leave_begin(struct cluster *cl, struct fault *f)
{
	struct sim_agent *a = &cl->sim->hosts[f->host].agent;

	a->restart_delay = sim_between(cl->sim, 500 * SIM_MS, 8 * SIM_S);
	a->leaving = true;
	sim_agent_dirty(a);
}

static void rate_begin(struct cluster *cl, struct fault *f)
{
	int64_t ppm = (int64_t)sim_random(cl->sim, 10000) - 5000;

	sim_clock_rate(cl->sim, &cl->site_clock[f->host], ppm);
	sim_clock_rate(cl->sim, &cl->sim->hosts[f->host].clock, ppm);
}

static void utc_begin(struct cluster *cl, struct fault *f)
{
	leader_or_any(cl, f)->utc_offset =
		(int64_t)sim_random(cl->sim, 7200 * SIM_S) - (int64_t)(3600 * SIM_S);
}

const struct kind fault_kinds[F_N] = {
	[F_COORD_KILL] = {"coord-kill", 4, coord_kill_begin, NULL, false},
	[F_COORD_POWER] = {"coord-power", 5, coord_power_begin, NULL, false},
	[F_LEADER_KILL] = {"leader-kill", 5, leader_kill_begin, NULL, false},
	[F_LEADER_POWER] = {"leader-power", 5, leader_power_begin, NULL, false},
	[F_COORD_PAUSE] = {"coord-pause", 3, coord_pause_begin, NULL, false},
	[F_LEADER_PAUSE] = {"leader-pause", 4, leader_pause_begin, NULL, false},
	[F_COORD_STOP] = {"coord-stop", 3, coord_stop_begin, NULL, false},
	[F_HOST_PAUSE] = {"host-pause", 3, host_pause_begin, host_pause_end, false},
	[F_HOST_POWER] = {"host-power", 3, host_power_begin, host_power_end, false},
	[F_AGENT_KILL] = {"agent-kill", 5, agent_kill_begin, NULL, false},
	[F_AGENT_PAUSE] = {"agent-pause", 3, agent_pause_begin, NULL, false},
	[F_AGENT_POINT] = {"agent-point", 5, agent_point_begin, agent_point_end, false},
	[F_RELAY_KILL] = {"relay-kill", 4, relay_kill_begin, NULL, false},
	[F_QEMU_KILL] = {"qemu-kill", 3, qemu_kill_begin, NULL, false},
	[F_CUT_COORDS] = {"cut-coords", 5, cut_coords_begin, cut_coords_end, false},
	[F_CUT_ONE_WAY] = {"cut-one-way", 4, one_way_begin, one_way_end, false},
	[F_CUT_AGENT] = {"cut-agent", 4, cut_agent_begin, cut_agent_end, false},
	[F_CUT_AGENT_ONE] = {"cut-session", 3, cut_one_begin, cut_one_end, false},
	[F_CUT_RELAYS] = {"cut-relays", 4, cut_relays_begin, cut_relays_end, false},
	[F_CUT_RETURN] = {"cut-return", 3, cut_return_begin, cut_return_end, false},
	[F_CUT_HOST] = {"cut-host", 4, cut_host_begin, cut_host_end, false},
	[F_BAD_NET] = {"bad-net", 4, bad_net_begin, bad_net_end, false},
	[F_AGENT_LATE] = {"late", 4, late_begin, late_end, false},
	[F_AGENT_BREAK] = {"break", 3, break_begin, NULL, false},
	[F_DISK_SLOW] = {"disk-slow", 3, slow_begin, slow_end, false},
	[F_DISK_SYNC] = {"disk-sync", 3, sync_begin, NULL, true},
	[F_DISK_FULL] = {"disk-full", 3, full_begin, full_end, false},
	[F_DISK_OLD] = {"disk-old", 3, old_begin, disk_end, true},
	[F_DISK_WIPE] = {"disk-wipe", 3, wipe_begin, wipe_end, true},
	[F_DISK_FLIP] = {"disk-flip", 3, flip_begin, disk_end, true},
	[F_CLOCK_RATE] = {"clock-rate", 2, rate_begin, NULL, false},
	[F_UTC_JUMP] = {"utc-jump", 2, utc_begin, NULL, false},
	[F_REPLACE] = {"replace", 3, wipe_begin, replace_end, true},
	[F_GUEST_OFF] = {"guest-off", 2, guest_off_begin, NULL, false},
	[F_STATE_DB] = {"state-db", 2, state_db_begin, NULL, false},
	[F_AGENT_AGAIN] = {"again", 3, again_begin, again_end, false},
	[F_AGENT_LEAVE] = {"agent-leave", 3, agent_leave_begin, NULL, false},
};

const char *fault_name(enum fault_kind kind)
{
	return fault_kinds[kind].name;
}

enum fault_kind fault_named(const char *name)
{
	for (unsigned i = 0; i < F_N; i++)
		if (strcmp(fault_kinds[i].name, name) == 0)
			return (enum fault_kind)i;
	return F_N;
}
