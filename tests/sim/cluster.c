/* The cluster: how it is set up, and one run. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <raft.h>
#include <sqlite3.h>

#include "cluster.h"
#include "coordinator/server.h"
#include "sim_agent.h"

#define MEMORY	      (UINT64_C(64) << 20)
#define SETUP_MOST    (120 * SIM_S)
#define SETTLE_MOST   (400 * SIM_S)
#define OPERATOR_STEP (500 * SIM_MS)
#define REST	      (2 * SIM_S)

/* ---------------------------------------------------------------- setting up */

static struct cluster_result setup_result;

static void ev_operator(struct sim *sim, struct sim_event *ev)
{
	operator_work(sim->cluster);
	sim_post(sim, OPERATOR_STEP, NULL, ev_operator, ev->obj);
}

static void run_until(struct cluster *cl, bool (*done)(struct cluster *), const char *what)
{
	uint64_t start = cl->sim->now;

	while (!done(cl)) {
		if (!sim_step(cl->sim) || cl->sim->now - start > SETUP_MOST) {
			fprintf(stderr, "the simulator's cluster can't be set up: %s: %s\n", what,
				cl->sim->broken);
			exit(2);
		}
	}
}

static bool is_idle(struct cluster *cl)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		if (cl->clients[i].open != NULL)
			return false;
	return true;
}

static bool is_up(struct cluster *cl)
{
	return coord_up(&cl->coords[0]);
}

static bool all_members(struct cluster *cl)
{
	for (unsigned i = 0; i < cl->n_coords; i++)
		if (cl->coords[i].rejoin != 0)
			return false;
	return cluster_leader(cl) != NULL;
}

static bool all_nodes(struct cluster *cl)
{
	struct coord *leader = cluster_leader(cl);

	return leader != NULL && db_get_u64(leader->server->db,
					    "SELECT count(*) FROM node WHERE health = 'up' AND memory_total "
					    "> 0 AND coordinator <> ''",
					    "") == cl->sim->n_hosts;
}

static bool all_run(struct cluster *cl)
{
	struct coord *leader = cluster_leader(cl);

	return is_idle(cl) && leader != NULL &&
	       db_get_u64(leader->server->db, "SELECT count(*) FROM vm WHERE state = 3 AND want = 0", "") ==
		       cl->sim->n_vms;
}

static void ask(struct cluster *cl, Drover__Request *r, const char *what)
{
	struct request *q = client_ask(&cl->clients[0], r, what, SETUP_MOST);

	run_until(cl, is_idle, what);
	if (q == NULL || !q->answered || q->exit != 0) {
		fprintf(stderr, "the simulator's cluster can't be set up: %s\n", what);
		exit(2);
	}
}

static void init_first(struct cluster *cl)
{
	Drover__Request r = DROVER__REQUEST__INIT;
	Drover__ClusterInit init = DROVER__CLUSTER_INIT__INIT;

	coord_start(&cl->coords[0]);
	run_until(cl, is_up, "start");
	cl->clients[0].pinned = 0;
	init.name = (char *)(uintptr_t) "sim";
	init.standalone = cl->n_coords == 1;
	r.verb_case = DROVER__REQUEST__VERB_CLUSTER_INIT;
	r.cluster_init = &init;
	ask(cl, &r, "cluster init");
}

static void add_vm(struct cluster *cl, unsigned vm)
{
	Drover__Request r = DROVER__REQUEST__INIT;
	Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
	Drover__VmVerb start = DROVER__VM_VERB__INIT;

	spec.name = sim_vm_name((int)vm);
	spec.memory = MEMORY;
	spec.cpus = 1;
	r.verb_case = DROVER__REQUEST__VERB_VM_ADD;
	r.vm_add = &spec;
	ask(cl, &r, "vm add");
	drover__request__init(&r);
	start.verb = DROVER__VM_VERB__VERB__START;
	start.vm = spec.name;
	r.verb_case = DROVER__REQUEST__VERB_VM_VERB;
	r.vm_verb = &start;
	ask(cl, &r, "vm start");
}

struct cluster *cluster_new(unsigned n_coords, unsigned n_hosts, unsigned n_vms, unsigned version)
{
	struct sim_options opt = {.seed = n_coords, .memory = MEMORY, .dirty_rate = UINT64_C(1) << 20};
	struct sim *sim = sim_alloc(&opt, n_hosts, n_vms);
	struct cluster *cl = calloc(1, sizeof(*cl));

	if (cl == NULL)
		abort();
	disk_setup();
	sim->cluster = cl;
	sim->check = cluster_check;
	cl->sim = sim;
	cl->n_coords = n_coords;
	cl->result = &setup_result;
	cl->snapshot_threshold = 4096;
	cl->snapshot_trailing = 1024;
	for (unsigned i = 0; i < SITES; i++)
		cl->site_clock[i] =
			(struct sim_clock){.at = sim->now, .local = sim->now + sim_random(sim, 1000 * SIM_S)};
	for (unsigned i = 0; i < n_coords; i++)
		coord_init(sim, i);
	for (unsigned i = 0; i < n_coords; i++)
		cl->coords[i].version = cl->coords[i].wanted_version = version;
	coords_use(cl);
	for (unsigned i = 0; i < CLIENTS; i++)
		client_init(cl, i);
	client_init(cl, CLIENTS);
	for (unsigned i = 0; i < n_hosts; i++) {
		sim->hosts[i].agent.ops = &cluster_agent_ops;
		for (unsigned k = 0; k < 16; k++)
			cl->boot_id[i][k] = (uint8_t)sim_random(sim, 256);
		cluster_agent_init(&sim->hosts[i]);
	}
	sim_post(sim, OPERATOR_STEP, NULL, ev_operator, NULL);
	init_first(cl);
	for (unsigned i = 1; i < n_coords; i++) {
		cl->coords[i].rejoin = 2; /* REJOIN_OUT: joins */
		run_until(cl, all_members, "join");
	}
	for (unsigned i = 0; i < n_hosts; i++)
		sim_agent_start(&sim->hosts[i].agent);
	run_until(cl, all_nodes, "agents");
	cl->clients[0].pinned = -1;
	for (unsigned i = 0; i < n_vms; i++)
		add_vm(cl, i);
	run_until(cl, all_run, "VMs");
	return cl;
}

/* ---------------------------------------------------------------- a run */

unsigned cluster_size(uint64_t seed, const struct cluster_profile *profile)
{
	if (profile != NULL && profile->n_coords != 0)
		return profile->n_coords;
	switch (seed % 16) {
	case 3:
		return 1;
	case 7:
		return 2;
	case 11:
		return 5;
	default:
		return 3;
	}
}

static void ev_client(struct sim *sim, struct sim_event *ev)
{
	struct sim_client *c = ev->obj;

	if (sim->cluster->settle)
		return;
	client_random(c);
	sim_post(sim, sim_between(sim, 300 * SIM_MS, 6 * SIM_S), &c->proc, ev_client, c);
}

static void ev_drain(struct sim *sim, struct sim_event *ev)
{
	struct cluster *cl = sim->cluster;

	if (client_drain(&cl->clients[ev->b], (unsigned)ev->a, true) == NULL) {
		struct sim_event *again = sim_post(sim, SIM_S, NULL, ev_drain, NULL);

		again->a = ev->a;
		again->b = ev->b;
	}
}

static void begin(struct cluster *cl, uint64_t seed)
{
	struct sim *sim = cl->sim;
	unsigned first;

	sim->rng = seed * UINT64_C(0x2545f4914f6cdd1d) + 77;
	sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, (int)(seed & 0x3fffffff) + 1, NULL);
	cl->running = true;
	cl->snapshot_threshold = sim_random(sim, 3) == 0 ? 4096 : (unsigned)sim_between(sim, 8, 120);
	cl->snapshot_trailing = (unsigned)sim_between(sim, 2, 60);
	for (unsigned i = 0; i < cl->n_coords; i++)
		if (cl->coords[i].raft != NULL) {
			raft_set_snapshot_threshold(cl->coords[i].raft, 0);
			raft_set_snapshot_trailing(cl->coords[i].raft, 0);
		}
	for (unsigned i = 0; i < SITES; i++)
		sim_clock_rate(sim, &cl->site_clock[i], (int64_t)sim_between(sim, 0, 8000) - 4000);
	for (unsigned i = 0; i < sim->n_hosts; i++)
		sim_clock_rate(sim, &sim->hosts[i].clock, cl->site_clock[i].ppm);
	sim->opt.dirty_rate = sim_random(sim, 4) == 0 ? UINT64_C(60) << 20 : UINT64_C(1) << 20;
	sim->opt.memory = sim_random(sim, 3) == 0 ? UINT64_C(512) << 20 : MEMORY;
	for (unsigned i = 0; i < sim->n_qemus; i++)
		sim->qemus[i]->dirty_rate = sim->opt.dirty_rate;
	first = (unsigned)sim_random(sim, sim->n_hosts);
	for (unsigned i = 0; i < 2; i++) {
		struct sim_event *ev = sim_post(
			sim, i == 0 ? sim_between(sim, 0, SIM_S) : sim_between(sim, 5 * SIM_S, 15 * SIM_S),
			NULL, ev_drain, NULL);

		ev->a = first + i;
		ev->b = i;
	}
	for (unsigned i = 0; i < CLIENTS - 1; i++)
		sim_post(sim, sim_between(sim, 500 * SIM_MS, 5 * SIM_S), &cl->clients[i].proc, ev_client,
			 &cl->clients[i]);
}

/* Drains that somebody paused go on; that is all that the operator does at the end. */
static void continue_drains(struct cluster *cl)
{
	struct coord *leader = cluster_leader(cl);
	struct sim_client *c = &cl->clients[CLIENTS - 2];
	Drover__Request r = DROVER__REQUEST__INIT;
	Drover__DrainVerb d = DROVER__DRAIN_VERB__INIT;
	struct db_rows rows;
	char node[64] = "";

	if (leader == NULL || c->open != NULL)
		return;
	db_query(leader->server->db, &rows, "SELECT node FROM drain WHERE state = 'paused' ORDER BY id", "");
	if (db_next(&rows))
		db_copy_text(&rows, 0, node, sizeof(node));
	db_done(&rows);
	if (node[0] == '\0')
		return;
	d.verb = DROVER__DRAIN_VERB__VERB__CONTINUE;
	d.node = node;
	r.verb_case = DROVER__REQUEST__VERB_DRAIN_VERB;
	r.drain_verb = &d;
	client_ask(c, &r, "drain continue", 20 * SIM_S);
}

static void settle(struct cluster *cl)
{
	struct sim *sim = cl->sim;
	uint64_t start = sim->now;
	uint64_t look = 0;
	uint64_t rest_since = SIM_NEVER;

	cl->settle = true;
	faults_heal(cl);
	sim_trace(sim, "SETTLES");
	while (sim_step(sim)) {
		if (sim->now < look)
			continue;
		look = sim->now + 250 * SIM_MS;
		continue_drains(cl);
		if (!cluster_at_rest(cl))
			rest_since = SIM_NEVER;
		else if (rest_since == SIM_NEVER)
			rest_since = sim->now;
		else if (sim->now - rest_since > REST)
			return;
		if (sim->now - start > SETTLE_MOST) {
			cluster_why_restless(cl);
			return;
		}
	}
}

void cluster_run(struct cluster *cl, uint64_t seed, const struct cluster_profile *profile,
		 struct cluster_result *out)
{
	struct sim *sim = cl->sim;
	uint64_t start = sim->now;
	uint64_t steps = sim->steps;
	uint64_t until;

	memset(out, 0, sizeof(*out));
	coords_use(cl);
	cl->result = out;
	cl->profile = profile;
	begin(cl, seed);
	cl->story = cluster_story(seed, profile);
	until = faults_begin(cl);
	story_begin(cl);
	while (sim->now < until && sim_step(sim))
		continue;
	if (sim->broken[0] == '\0')
		settle(cl);
	if (sim->broken[0] == '\0')
		cluster_check_end(cl);
	out->steps = (uint32_t)(sim->steps - steps);
	out->virtual_us = sim->now - start;
	out->ok = sim->broken[0] == '\0';
	snprintf(out->why, sizeof(out->why), "%.500s", sim->broken);
}
