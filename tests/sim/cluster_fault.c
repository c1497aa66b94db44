/*
 * Faults. Each waits for a moment: a time, or the next time that a move machine records a certain phase (so
 * that every phase meets every fault); then it happens, and most of them heal after a while.
 *
 * To add one: a value of enum fault_kind, its row in `kinds`, a function that begins it, and one that ends
 * it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <raft.h>

#include "cluster_fault.h"
#include "coordinator/server.h"
#include "sim_agent.h"

#define FAULTS_MAX 16
#define OLD_ENOUGH (5 * SIM_S)

static struct fault faults[FAULTS_MAX];
static unsigned n_faults;
static uint64_t begun_at;

static struct coord *target(struct cluster *cl, const struct fault *f)
{
	return &cl->coords[f->coord];
}

/* ---------------------------------------------------------------- when they happen */

static void note_phases(struct cluster *cl, enum fault_kind kind)
{
	bool any = false;

	for (unsigned i = 0; i < cl->sim->n_hosts; i++)
		for (unsigned k = 0; k < SIM_MACHINES; k++) {
			struct sim_machine *mc = &cl->sim->hosts[i].agent.machines[k];

			if (!mc->used || mc->m == NULL)
				continue;
			any = true;
			cl->result->phase_faults[kind][move_phase(mc->m)]++;
		}
	if (!any)
		cl->result->phase_faults[kind][0]++;
}

/* Every coordinator hears every other. */
static bool is_calm(const struct cluster *cl)
{
	for (unsigned i = 0; i < cl->n_coords; i++) {
		const struct coord *c = &cl->coords[i];

		if (!coord_up(c) || c->proc.stopped_until > cl->sim->now ||
		    c->ring.view != (1u << cl->n_coords) - 1)
			return false;
		for (unsigned k = 0; k < cl->n_coords; k++)
			if (!net_reaches(cl, i, k))
				return false;
	}
	return cl->bad_net == 0 && cl->sim->now > cl->rough_until;
}

/* An old copy has been put in, and it is not yet settled what becomes of its member. */
static bool old_copy_under_way(const struct cluster *cl)
{
	for (unsigned i = 0; i < cl->n_coords; i++) {
		const struct coord *c = &cl->coords[i];

		if (c->old_copy && (!coord_up(c) || c->server->vouch.mute))
			return true;
	}
	return false;
}

/* A majority of good logs must stay: what cannot be survived proves nothing. */
static bool may_damage(struct cluster *cl, struct fault *f)
{
	struct coord *leader = cluster_leader(cl);
	unsigned damaged = 1;

	if (leader == NULL || !coord_up(target(cl, f)))
		return false;
	/*
	 * A log from a backup is known by what the others have seen of it (coordinator/vouch.h): at least
	 * by once a second, and only by those whom it hears before it votes.
	 */
	if (f->kind == F_DISK_OLD && (cl->sim->now < begun_at + OLD_ENOUGH || !is_calm(cl)))
		return false;
	for (unsigned i = 0; i < cl->n_coords; i++) {
		struct coord *c = &cl->coords[i];

		if (c->damaged)
			damaged++;
		/* One that has missed the replacement of another waits for the word of members that are no
		 * more (coordinator/vouch.h): with a second log lost meanwhile, nobody is elected. */
		else if (!coord_up(c) || c->raft == NULL || c->server->vouch.mute ||
			 c->raft->configuration_index != leader->raft->configuration_index)
			return false;
	}
	return !target(cl, f)->damaged && damaged * 2 < cl->n_coords;
}

static void ev_heal(struct sim *sim, struct sim_event *ev)
{
	struct fault *f = ev->obj;

	if (f->healed)
		return;
	f->healed = true;
	if (fault_kinds[f->kind].end == NULL)
		return;
	sim_trace(sim, "HEALS %s", fault_name(f->kind));
	fault_kinds[f->kind].end(sim->cluster, f);
}

/* It touches coordinators or what is between them. */
static bool is_rough(enum fault_kind kind)
{
	return kind <= F_HOST_POWER || (kind >= F_CUT_COORDS && kind <= F_CUT_AGENT_ONE) ||
	       kind == F_CUT_HOST || kind == F_BAD_NET || (kind >= F_DISK_SLOW && kind <= F_DISK_FLIP) ||
	       kind == F_REPLACE || kind == F_STATE_DB;
}

static void ev_fault(struct sim *sim, struct sim_event *ev)
{
	struct fault *f = ev->obj;
	struct cluster *cl = sim->cluster;

	if (f->done || cl->settle)
		return;
	f->done = true;
	if (is_rough(f->kind) && old_copy_under_way(cl))
		f->kind = F_RELAY_KILL;
	if (f->kind == F_DISK_OLD)
		f->lasts = sim_between(sim, 50 * SIM_MS, 800 * SIM_MS);
	if (fault_kinds[f->kind].disk) {
		if (may_damage(cl, f)) {
			target(cl, f)->damaged = true;
			target(cl, f)->damaged_at = sim->now;
		} else {
			f->kind = f->kind == F_DISK_OLD ? F_AGENT_KILL : F_COORD_KILL;
		}
	}
	if (is_rough(f->kind))
		cl->rough_until = sim->now + f->lasts + 3 * SIM_S;
	sim_trace(sim, "FAULT %s host %u coordinator %u for %llu ms", fault_name(f->kind), f->host + 1,
		  f->coord + 1, (unsigned long long)(f->lasts / 1000));
	note_phases(cl, f->kind);
	cl->result->faults++;
	sim_post(sim, f->lasts, NULL, ev_heal, f);
	fault_kinds[f->kind].begin(cl, f);
}

static const uint64_t delays[] = {0, 0, 300, 2 * SIM_MS, 12 * SIM_MS, 70 * SIM_MS, 400 * SIM_MS};

static void on_record(struct sim_machine *mc, const struct move_record *rec)
{
	struct sim *sim = mc->agent->host->sim;

	cluster_check_record(mc, rec);
	for (unsigned i = 0; i < n_faults; i++) {
		struct fault *f = &faults[i];

		if (f->armed || f->done || f->phase != (unsigned)rec->phase)
			continue;
		f->armed = true;
		f->host = mc->agent->host->id;
		if (f->kind == F_AGENT_POINT) { /* dies between the record and what follows */
			f->done = true;
			note_phases(sim->cluster, f->kind);
			sim->cluster->result->faults++;
			fault_point_host = (int)f->host;
			return;
		}
		sim_post(sim, delays[sim_random(sim, sizeof(delays) / sizeof(delays[0]))], NULL, ev_fault, f);
		return;
	}
}

static uint64_t how_long(struct sim *sim)
{
	switch (sim_random(sim, 10)) {
	case 0:
		return sim_between(sim, 10 * SIM_S, 40 * SIM_S);
	case 1:
	case 2:
		return sim_between(sim, 4 * SIM_S, 12 * SIM_S);
	default:
		return sim_between(sim, 50 * SIM_MS, 5 * SIM_S);
	}
}

static enum fault_kind choose_kind(struct cluster *cl)
{
	unsigned sum = 0;
	uint64_t pick;

	const char *wanted = cl->profile != NULL ? cl->profile->faults : NULL;

	if (story_faults(cl) != NULL || (wanted != NULL && sim_random(cl->sim, 4) != 0)) {
		char list[256];
		char *save = NULL;
		enum fault_kind named[32] = {0};
		unsigned n = 0;

		snprintf(list, sizeof(list), "%s", story_faults(cl) != NULL ? story_faults(cl) : wanted);
		for (char *word = strtok_r(list, ",", &save); word != NULL && n < 32;
		     word = strtok_r(NULL, ",", &save))
			named[n++] = fault_named(word);
		return named[sim_random(cl->sim, n)];
	}
	for (unsigned i = 0; i < F_N; i++)
		sum += fault_kinds[i].weight;
	pick = sim_random(cl->sim, sum);
	for (unsigned i = 0; i < F_N; i++) {
		if (pick < fault_kinds[i].weight)
			return (enum fault_kind)i;
		pick -= fault_kinds[i].weight;
	}
	return F_COORD_KILL;
}

static unsigned choose_phase(struct sim *sim)
{
	unsigned k = (unsigned)sim_random(sim, 17);

	return k < 9 ? DROVER__MOVE_PHASE__SRC_ASSIGNED + k : DROVER__MOVE_PHASE__DST_ASSIGNED + (k - 9);
}

uint64_t faults_begin(struct cluster *cl)
{
	struct sim *sim = cl->sim;
	uint64_t window = sim_between(sim, 8 * SIM_S, 20 * SIM_S);

	fault_point_host = -1;
	begun_at = sim->now;
	sim->on_point = fault_on_point;
	sim->on_record = on_record;
	n_faults = (unsigned)sim_between(sim, 6, 11);
	for (unsigned i = 0; i < cl->n_coords; i++)
		disk_copy(&fault_old_disks[i], &cl->coords[i].disk);
	for (unsigned i = 0; i < n_faults; i++) {
		struct fault *f = &faults[i];

		*f = (struct fault){.kind = choose_kind(cl),
				    .host = (unsigned)sim_random(sim, sim->n_hosts),
				    .coord = (unsigned)sim_random(sim, cl->n_coords),
				    .other = (unsigned)sim_random(
					    sim, cl->n_coords > sim->n_hosts ? cl->n_coords : sim->n_hosts),
				    .lasts = how_long(sim)};
		if (cl->profile != NULL)
			f->lasts += cl->profile->least_us;
		if (i > 1 && sim_random(sim, 5) < 3)
			f->phase = choose_phase(sim);
		f->latest = sim_between(sim, SIM_S, window);
		sim_post(sim, f->phase != 0 ? window : f->latest, NULL, ev_fault, f);
	}
	return sim->now + window + 10 * SIM_MS;
}

void faults_heal(struct cluster *cl)
{
	for (unsigned i = 0; i < n_faults; i++) {
		struct fault *f = &faults[i];

		if (!f->done)
			f->done = true;
		else if (!f->healed && fault_kinds[f->kind].end != NULL && f->kind != F_HOST_PAUSE)
			fault_kinds[f->kind].end(cl, f);
		f->healed = f->kind != F_HOST_PAUSE;
	}
	for (unsigned i = 0; i < cl->n_coords; i++) {
		struct coord *c = &cl->coords[i];

		/* Pauses end when they end: what waits for a process must reach it in its order. */
		c->disk.crash_in = 0;
		c->disk.fail_sync = 0;
		if (coord_up(c) && c->server->db != NULL)
			db_fail_nth(c->server->db, 0);
	}
	net_changed(cl);
}
