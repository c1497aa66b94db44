/* One run of the matrix: see matrix.h. */
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "matrix.h"
#include "sim.h"
#include "sim_coord.h"

#define WARM_UP	 (6 * SIM_S)
#define HEAL	 (8 * SIM_S)
#define STOP_FOR (40 * SIM_S)
#define CUT_FOR_GOOD                                                                                         \
	(150 * SIM_S) /* the leader gives an agent up after 60 s, and its clean-up after 60 more */
#define RUN_MOST (240 * SIM_S)
#define REST	 (1500 * SIM_MS) /* nothing happens for so long: at rest */
#define SRC	 0
#define DST	 1
#define VM	 0
#define OTHER_VM 1 /* moved once before, elsewhere */

static const uint64_t delays[] = {0, 300, 2 * SIM_MS, 12 * SIM_MS, 70 * SIM_MS, 400 * SIM_MS};

struct run {
	const struct matrix_case *c;
	struct sim *sim;
	bool armed; /* the pair was reached */
	bool done;  /* the fault happened */
	bool healed;
	uint64_t fault_at;
	uint64_t rest_since;
	unsigned cancel_in; /* the source's phase in which the operator cancels; 0 = not */
};

const char *matrix_fault_name(enum matrix_fault fault)
{
	static const char *const names[FAULT_N] = {[FAULT_NONE] = "none",
						   [FAULT_SRC_AGENT] = "src-agent",
						   [FAULT_DST_AGENT] = "dst-agent",
						   [FAULT_SRC_RELAY] = "src-relay",
						   [FAULT_DST_RELAY] = "dst-relay",
						   [FAULT_SRC_QEMU] = "src-qemu",
						   [FAULT_DST_QEMU] = "dst-qemu",
						   [FAULT_LEADER] = "leader",
						   [FAULT_RETURN] = "return",
						   [FAULT_RETURN_NEVER] = "return!",
						   [FAULT_DATA] = "data",
						   [FAULT_DATA_NEVER] = "data!",
						   [FAULT_ALL] = "all",
						   [FAULT_ALL_NEVER] = "all!",
						   [FAULT_DST_ALL] = "dst-all",
						   [FAULT_STOP_SRC] = "stop-src",
						   [FAULT_STOP_DST] = "stop-dst",
						   [FAULT_LATE_ORDER] = "late-order",
						   [FAULT_PID_REUSE] = "pid-reuse"};

	return names[fault];
}

const char *matrix_scene_name(enum matrix_scenario scene)
{
	static const char *const names[SCENE_N] = {[SCENE_PLAIN] = "plain",
						   [SCENE_LARGE] = "large",
						   [SCENE_CANCEL] = "cancel",
						   [SCENE_OTHER_STORAGE] = "other-storage",
						   [SCENE_NO_ROOM] = "no-room"};

	return names[scene];
}

static unsigned phase_of(struct sim *sim, unsigned host, Drover__MoveRole role)
{
	struct sim_agent *a = &sim->hosts[host].agent;
	unsigned phase = DROVER__MOVE_PHASE__PHASE_NONE;

	for (unsigned i = 0; i < SIM_MACHINES; i++)
		if (a->machines[i].used && a->machines[i].m != NULL &&
		    move_order(a->machines[i].m)->role == role &&
		    sim_vm_index(move_order(a->machines[i].m)->vm) == VM)
			phase = (unsigned)move_phase(a->machines[i].m);
	return phase;
}

static struct sim_qemu *live_qemu(struct sim *sim, unsigned host)
{
	struct sim_qemu *found = NULL;

	for (unsigned i = 0; i < sim->n_qemus; i++)
		if (sim->qemus[i]->vm == VM && sim->qemus[i]->proc.alive && sim->qemus[i]->host->id == host)
			found = sim->qemus[i];
	return found;
}

static struct sim_relay *live_relay(struct sim *sim, Drover__MoveRole role)
{
	for (unsigned i = 0; i < sim->n_relays; i++)
		if (sim->relays[i]->proc.alive && sim->relays[i]->role == role)
			return sim->relays[i];
	return NULL;
}

/* ---------------------------------------------------------------- faults */

static void cut_data(struct sim *sim, unsigned host, bool cut)
{
	for (unsigned i = 0; i < sim->n_hosts; i++)
		sim->data_cut[host][i] = sim->data_cut[i][host] = cut;
	sim_relays_look(sim);
}

static void cut_all(struct sim *sim, unsigned host, bool cut)
{
	for (unsigned i = 0; i < SIM_COORDS; i++)
		sim->coord_cut[host][i] = cut;
	cut_data(sim, host, cut);
	sim_coord_cuts_changed(sim->coord);
}

static void kill_qemu(struct sim *sim, unsigned host)
{
	struct sim_qemu *q = live_qemu(sim, host);

	if (q == NULL)
		return;
	sim->qemu_killed = true;
	sim_qemu_kill(q, true);
}

static void kill_relay(struct sim *sim, Drover__MoveRole role)
{
	struct sim_relay *r = live_relay(sim, role);

	if (r != NULL)
		sim_relay_end(r);
}

static void pause_agent(struct sim *sim, unsigned host)
{
	struct sim_agent *a = &sim->hosts[host].agent;

	if (!a->proc.alive)
		return;
	a->proc.stopped_until = sim->now + STOP_FOR;
	sim_coord_cuts_changed(sim->coord);
}

/* What another attempt of this move was told, arriving only now: to each side what would hurt it most. */
static void late_order(struct sim *sim, unsigned host, Drover__MoveRole role, Drover__MoveDecision decision)
{
	struct sim_agent *a = &sim->hosts[host].agent;

	for (unsigned i = 0; a->proc.alive && i < SIM_MACHINES; i++) {
		Drover__MoveOrder order;

		if (!a->machines[i].used || move_order(a->machines[i].m)->role != role)
			continue;
		order = *move_order(a->machines[i].m);
		order.attempt--;
		order.decision = decision;
		sim_agent_deliver(a, &order);
	}
}

static void pid_reuse(struct sim *sim)
{
	struct sim_host *h = &sim->hosts[DST];
	struct sim_qemu *q = live_qemu(sim, DST);

	if (q == NULL || !q->incoming || q->run == MOVE_RUN_RUNNING)
		return;
	for (unsigned i = 0; i < sim->n_qemus; i++)
		if (sim->qemus[i]->vm == 2)
			h->pid_reused = sim->qemus[i];
	sim->qemu_killed = true;
	q->killed = true;
	sim_agent_kill(&h->agent); /* first: so nobody learns of the other's end */
	sim_qemu_kill(q, true);
}

static void inject(struct run *r)
{
	struct sim *sim = r->sim;

	r->done = true;
	r->fault_at = sim->now;
	sim_trace(sim, "FAULT %s", matrix_fault_name(r->c->fault));
	switch (r->c->fault) {
	case FAULT_NONE:
	case FAULT_N:
		break;
	case FAULT_SRC_AGENT:
		sim_agent_kill(&sim->hosts[SRC].agent);
		break;
	case FAULT_DST_AGENT:
		sim_agent_kill(&sim->hosts[DST].agent);
		break;
	case FAULT_SRC_RELAY:
		kill_relay(sim, DROVER__MOVE_ROLE__MOVE_SRC);
		break;
	case FAULT_DST_RELAY:
		kill_relay(sim, DROVER__MOVE_ROLE__MOVE_DST);
		break;
	case FAULT_SRC_QEMU:
		kill_qemu(sim, SRC);
		break;
	case FAULT_DST_QEMU:
		kill_qemu(sim, DST);
		break;
	case FAULT_LEADER:
		sim_coord_kill_leader(sim->coord);
		break;
	case FAULT_RETURN:
	case FAULT_RETURN_NEVER:
		sim->return_cut = true;
		break;
	case FAULT_DATA:
	case FAULT_DATA_NEVER:
		cut_data(sim, SRC, true);
		break;
	case FAULT_ALL:
	case FAULT_ALL_NEVER:
		cut_all(sim, SRC, true);
		break;
	case FAULT_DST_ALL:
		cut_all(sim, DST, true);
		break;
	case FAULT_STOP_SRC:
		pause_agent(sim, SRC);
		break;
	case FAULT_STOP_DST:
		pause_agent(sim, DST);
		break;
	case FAULT_LATE_ORDER:
		late_order(sim, SRC, DROVER__MOVE_ROLE__MOVE_SRC, DROVER__MOVE_DECISION__DECISION_ABORT);
		late_order(sim, DST, DROVER__MOVE_ROLE__MOVE_DST, DROVER__MOVE_DECISION__DECISION_COMMIT);
		break;
	case FAULT_PID_REUSE:
		pid_reuse(sim);
		break;
	}
}

static bool heals(enum matrix_fault fault)
{
	return fault == FAULT_RETURN || fault == FAULT_DATA || fault == FAULT_ALL || fault == FAULT_DST_ALL;
}

static void ev_heal(struct sim *sim, struct sim_event *ev)
{
	struct run *r = ev->obj;

	r->healed = true;
	sim_trace(sim, "HEALED");
	sim->return_cut = false;
	cut_all(sim, SRC, false);
	cut_all(sim, DST, false);
}

static void ev_fault(struct sim *sim, struct sim_event *ev)
{
	struct run *r = ev->obj;

	if (heals(r->c->fault))
		sim_post(sim, HEAL, NULL, ev_heal, r);
	inject(r);
}

/* ---------------------------------------------------------------- watching */

static bool in_pair(const struct run *r)
{
	return phase_of(r->sim, SRC, DROVER__MOVE_ROLE__MOVE_SRC) == r->c->src &&
	       phase_of(r->sim, DST, DROVER__MOVE_ROLE__MOVE_DST) == r->c->dst;
}

static void on_point(struct sim *sim, struct sim_agent *agent, const char *name)
{
	struct run *r = sim->user;

	(void)name;
	if (r->armed || r->c->delay >= 0 || !in_pair(r))
		return;
	r->armed = true;
	if ((r->c->fault == FAULT_SRC_AGENT && agent->host->id == SRC) ||
	    (r->c->fault == FAULT_DST_AGENT && agent->host->id == DST)) {
		inject(r); /* dies in the middle of what it does */
	}
	sim_post(sim, 0, NULL, ev_fault, r);
}

static void ev_cancel(struct sim *sim, struct sim_event *ev);

static void (*watch_pairs)(unsigned src, unsigned dst);

static void on_step(struct sim *sim)
{
	struct run *r = sim->user;

	if (watch_pairs != NULL)
		watch_pairs(phase_of(sim, SRC, DROVER__MOVE_ROLE__MOVE_SRC),
			    phase_of(sim, DST, DROVER__MOVE_ROLE__MOVE_DST));
	if (r->c->scene == SCENE_CANCEL && r->cancel_in != 0 &&
	    phase_of(sim, SRC, DROVER__MOVE_ROLE__MOVE_SRC) >= r->cancel_in) {
		r->cancel_in = 0;
		sim_post(sim, sim_random(sim, 8 * SIM_MS), NULL, ev_cancel, NULL);
	}
	if (r->armed || r->c->delay < 0 || !in_pair(r))
		return;
	r->armed = true;
	sim_post(sim, delays[r->c->delay], NULL, ev_fault, r);
}

static void ev_move(struct sim *sim, struct sim_event *ev)
{
	struct run *r = sim->user;

	(void)ev;
	sim_coord_move(sim->coord, VM, DST);
	r->cancel_in = 1 + (unsigned)sim_random(sim, DROVER__MOVE_PHASE__SRC_COMPLETING);
}

static void ev_other_move(struct sim *sim, struct sim_event *ev)
{
	(void)ev;
	sim_coord_move(sim->coord, OTHER_VM, 2);
}

static void ev_cancel(struct sim *sim, struct sim_event *ev)
{
	(void)ev;
	sim_coord_cancel(sim->coord, VM);
}

/* How long the VM may stand still (R29): bounded by the machines alone, or by who has to come back first. */
static uint64_t blackout_bound(const struct run *r)
{
	switch (r->c->fault) {
	case FAULT_NONE:
	case FAULT_LATE_ORDER:
		return 700 * SIM_MS;
	case FAULT_SRC_RELAY:
	case FAULT_DST_RELAY:
	case FAULT_DST_QEMU:
	case FAULT_RETURN:
	case FAULT_RETURN_NEVER:
	case FAULT_DATA:
	case FAULT_DATA_NEVER:
		return 1500 * SIM_MS;
	case FAULT_SRC_AGENT: /* restarts after 1 s */
	case FAULT_DST_AGENT:
	case FAULT_PID_REUSE:
	case FAULT_LEADER: /* elected within 2 s */
		return 5 * SIM_S;
	case FAULT_ALL: /* after the word it waits for a majority */
	case FAULT_DST_ALL:
		return HEAL + 8 * SIM_S;
	case FAULT_STOP_SRC:
	case FAULT_STOP_DST:
		return STOP_FOR + 8 * SIM_S;
	case FAULT_SRC_QEMU:
	case FAULT_ALL_NEVER:
	case FAULT_N:
		break;
	}
	return SIM_NEVER;
}

static bool move_ended(struct sim *sim)
{
	const char *state = sim_coord_move_state(sim->coord, VM, NULL, NULL);

	return strcmp(state, "done") == 0 || strcmp(state, "failed") == 0 || strcmp(state, "cancelled") == 0;
}

static bool at_rest(struct run *r)
{
	struct sim *sim = r->sim;
	bool ended = move_ended(sim);

	for (unsigned i = 0; i < sim->n_hosts && ended; i++)
		for (unsigned k = 0; k < SIM_MACHINES; k++)
			ended = ended && !sim->hosts[i].agent.machines[k].used &&
				sim->hosts[i].agent.proc.alive &&
				sim->hosts[i].agent.proc.stopped_until <= sim->now;
	if (!ended || (r->done && !r->healed && heals(r->c->fault)) || (r->armed && !r->done))
		r->rest_since = SIM_NEVER;
	else if (r->rest_since == SIM_NEVER)
		r->rest_since = sim->now;
	if (r->c->fault == FAULT_ALL_NEVER && r->done && sim->now - r->fault_at > CUT_FOR_GOOD)
		return true; /* the cut host can never say that it has cleaned up */
	return r->rest_since != SIM_NEVER && sim->now - r->rest_since > REST;
}

static void finish(struct run *r, struct matrix_result *out)
{
	struct sim *sim = r->sim;

	if (sim->broken[0] == '\0' && r->c->scene == SCENE_OTHER_STORAGE &&
	    sim_coord_owner(sim->coord, VM) != SRC && !sim->qemu_killed)
		sim_broken(sim, "R26: vm1 was moved to a host that has another disk under that name");
	if (sim->broken[0] == '\0' && r->done && r->c->fault != FAULT_ALL_NEVER)
		sim_check_end(sim);
	if (sim->broken[0] == '\0' && r->done && r->c->fault == FAULT_ALL_NEVER && !move_ended(sim) &&
	    strcmp(sim_coord_move_state(sim->coord, VM, NULL, NULL), "committed") !=
		    0) /* R21: its slot is held */
		sim_broken(sim, "the move of a host that is cut off does not end");
	if (sim->broken[0] == '\0' && r->done && r->c->fault == FAULT_ALL_NEVER &&
	    sim->dark_since[VM] != SIM_NEVER &&
	    phase_of(sim, SRC, DROVER__MOVE_ROLE__MOVE_SRC) < DROVER__MOVE_PHASE__SRC_RELEASED)
		sim_broken(sim, "the source did not resume by itself");
	if (sim->broken[0] == '\0' && r->done && !sim->qemu_killed && sim->darkest[VM] > blackout_bound(r))
		sim_broken(sim, "R29: vm1 stood still for %llu ms",
			   (unsigned long long)(sim->darkest[VM] / 1000));
	out->reached = r->done;
	out->ok = sim->broken[0] == '\0';
	snprintf(out->why, sizeof(out->why), "%s", sim->broken);
	snprintf(out->move_state, sizeof(out->move_state), "%s",
		 sim_coord_move_state(sim->coord, VM, NULL, NULL));
	out->darkest_us = sim->darkest[VM];
	out->steps = sim->steps;
}

/* A cluster at rest that has moved a VM already: every run of a scene begins as a fork of this process. */
static struct sim *warm_up(enum matrix_scenario scene, bool trace)
{
	struct sim_options opt = {.seed = 1,
				  .trace = trace,
				  .other_storage = scene == SCENE_OTHER_STORAGE,
				  .no_room = scene == SCENE_NO_ROOM,
				  .memory = scene == SCENE_LARGE ? UINT64_C(1) << 30 : UINT64_C(64) << 20,
				  .dirty_rate =
					  scene == SCENE_LARGE ? UINT64_C(40) << 20 : UINT64_C(1) << 20};
	struct sim *sim = sim_new(&opt);
	uint64_t start = sim->now;

	sim_post(sim, SIM_S, NULL, ev_other_move, NULL);
	while (sim_step(sim) && sim->now - start < WARM_UP)
		continue;
	sim->owner_changes[OTHER_VM] = 0;
	return sim;
}

static struct sim *warm[SCENE_N];
static bool leak; /* a child that ends anyhow */

void matrix_prepare(enum matrix_scenario scene)
{
	if (warm[scene] == NULL)
		warm[scene] = warm_up(scene, false);
}

void matrix_run_case(const struct matrix_case *c, bool trace, struct matrix_result *out)
{
	struct run r = {.c = c, .rest_since = SIM_NEVER};
	uint64_t start;

	memset(out, 0, sizeof(*out));
	r.sim = warm[c->scene];
	warm[c->scene] = NULL;
	if (r.sim == NULL)
		r.sim = warm_up(c->scene, trace);
	r.sim->opt.trace = trace;
	r.sim->rng = c->seed;
	r.sim->user = &r;
	r.sim->on_point = on_point;
	r.sim->on_step = on_step;
	start = r.sim->now;
	sim_post(r.sim, sim_random(r.sim, SIM_S), NULL, ev_move, NULL);
	while (sim_step(r.sim) && r.sim->now - start < RUN_MOST)
		if (at_rest(&r))
			break;
	finish(&r, out);
	if (!leak)
		sim_free(r.sim);
}

/* In a child of its own, so that the parent's cluster stays as it is. Exits the child. */
static void child(const struct matrix_case *c, struct matrix_result *out)
{
	leak = true;
	matrix_run_case(c, false, out);
	sim_leave(0);
}

void matrix_fork_case(const struct matrix_case *c, struct matrix_result *out)
{
	int status = 0;
	pid_t pid;

	matrix_prepare(c->scene);
	memset(out, 0, sizeof(*out));
	fflush(stdout);
	pid = fork();
	if (pid == 0)
		child(c, out);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
		out->ok = false;
		out->reached = true;
		snprintf(out->why, sizeof(out->why), "the simulator itself ended with status %d", status);
	}
}

void matrix_watch_pairs(void (*fn)(unsigned src, unsigned dst))
{
	watch_pairs = fn;
}
