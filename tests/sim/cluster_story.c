/*
 * Stories: what operators do in some seeds beside what fails. By the seed, so that all others stay as they
 * are:
 *
 *   upgrade   members of the version before are stopped and started with the present program, one at a time;
 * an old one may come back later and must stop by itself (SAFETY R20) fence     hosts have fence agents, and
 * clients use them (R11); with two members corosync says "quorate" to both halves, and who goes on alone has
 * switched the other's host off first (R17) force     one member is down while the others go on; then their
 * hosts die, and it is told to go on alone (R18); they come back later restore   all coordinators lose their
 * disks; one is restored from a backup, the others join (R18)
 */
#include <stdio.h>
#include <string.h>

#include "cluster.h"
#include "coordinator/rows.h"
#include "coordinator/server.h"

#define EVERY	 (500 * SIM_MS)
#define PATIENCE (20 * SIM_S)

enum step {
	STEP_NONE,
	/* upgrade */
	STEP_UPGRADE,
	STEP_RAISED, /* waits until the cluster's version is */
	STEP_OLD_ONE,
	STEP_OLD_GOES,
	/* fence */
	STEP_AGENTS,
	/* force */
	STEP_DOWN,
	STEP_DIE,
	STEP_FORCE,
	STEP_FORCED, /* waits until it leads */
	STEP_BURY,
	STEP_BOOT,
	/* restore */
	STEP_BACKUP,
	STEP_LOSE,
	STEP_INIT,
	STEP_JOIN,
	STEP_OVER,
};

static struct {
	enum step step;
	uint64_t due;
	unsigned which; /* coordinator */
	unsigned n;
	struct request *asked;
	struct request *backup;
} story;

static const char agents_only[] =
	"agent-kill,agent-pause,agent-point,relay-kill,qemu-kill,cut-relays,cut-return,"
	"late,break,clock-rate,utc-jump,guest-off,again";

enum story cluster_story(uint64_t seed, const struct cluster_profile *profile)
{
	if (profile != NULL)
		return profile->story;
	if (seed % 32 == 7 || seed % 16 == 5)
		return STORY_FENCE;
	if (seed % 16 == 13)
		return STORY_UPGRADE;
	if (seed % 16 == 15)
		return seed % 32 == 15 ? STORY_FORCE : STORY_RESTORE;
	return STORY_NONE;
}

const char *story_faults(const struct cluster *cl)
{
	return cl->story == STORY_FORCE || cl->story == STORY_RESTORE ? agents_only : NULL;
}

const char *story_waits(const struct cluster *cl)
{
	for (unsigned i = 0; i < cl->n_coords; i++)
		if (coord_up(&cl->coords[i]) &&
		    cl->coords[i].server->identity.incarnation < cl->shadow.incarnation)
			return "a coordinator is of an old incarnation";
	if (story.step == STEP_NONE || story.step == STEP_OVER)
		return NULL;
	return cl->story == STORY_UPGRADE ? "an upgrade is under way" : "the story is not over";
}

bool story_excuses(const struct coord *c)
{
	return c->version < c->sim->cluster->shadow.version;
}

static void next(struct cluster *cl, enum step step, uint64_t least, uint64_t most)
{
	story.step = step;
	story.due = cl->sim->now + sim_between(cl->sim, least, most);
	story.asked = NULL;
}

static bool all_up(const struct cluster *cl)
{
	for (unsigned i = 0; i < cl->n_coords; i++)
		if (!coord_up(&cl->coords[i]) || cl->coords[i].server->consensus == NULL ||
		    cl->coords[i].rejoin != 0)
			return false;
	return true;
}

/* True when it was answered; asks, and asks again when nobody did. */
static bool ask(struct cluster *cl, unsigned at, Drover__Request *r, const char *what)
{
	if (story.asked != NULL && story.asked->answered)
		return true;
	if (cl->teller.open != NULL)
		return false;
	cl->teller.pinned = (int)at;
	story.asked = client_ask(&cl->teller, r, what, PATIENCE);
	return false;
}

static bool done_well(void)
{
	bool well = story.asked->exit == 0;

	if (!well)
		story.asked = NULL;
	return well;
}

/* ---------------------------------------------------------------- upgrade */

static void restart_as(struct cluster *cl, struct coord *c, unsigned version)
{
	sim_trace(cl->sim, "operator: %s gets the program of version %u", c->name, version);
	c->wanted_version = version;
	if (sim_random(cl->sim, 4) == 0)
		coord_kill(c);
	else
		coord_stop(c);
}

static void upgrade(struct cluster *cl)
{
	bool calm = all_up(cl) && cluster_leader(cl) != NULL;

	/* One at a time. Who is impatient does not always look. */
	if (!calm && (cl->settle || sim_random(cl->sim, 4) != 0))
		return;
	for (unsigned i = 0; i < cl->n_coords; i++) {
		struct coord *c = &cl->coords[(story.which + i) % cl->n_coords];

		if (c->wanted_version == VERSION_NEW)
			continue;
		restart_as(cl, c, VERSION_NEW);
		next(cl, STEP_UPGRADE, 1500 * SIM_MS, 5 * SIM_S);
		return;
	}
	story.step = STEP_RAISED;
}

static void old_one(struct cluster *cl)
{
	struct coord *c = &cl->coords[story.which];

	if (!all_up(cl))
		return;
	restart_as(cl, c, VERSION_OLD);
	next(cl, STEP_OLD_GOES, 3 * SIM_S, 6 * SIM_S);
}

static void old_goes(struct cluster *cl)
{
	struct coord *c = &cl->coords[story.which];

	sim_trace(cl->sim, "operator: %s gets the program of version %u", c->name, VERSION_NEW);
	c->wanted_version = VERSION_NEW;
	coord_kill(c);
	coord_start(c);
	story.step = STEP_OVER;
}

static void raised(struct cluster *cl)
{
	struct coord *leader = cluster_leader(cl);

	if (leader == NULL || db_failed(leader->server->db, NULL) < 0 ||
	    rows_cluster_version(leader->server->db) < VERSION_NEW)
		return;
	if (sim_random(cl->sim, 2) == 0)
		story.step = STEP_OVER;
	else
		next(cl, STEP_OLD_ONE, SIM_S, 5 * SIM_S);
}

/* ---------------------------------------------------------------- fence agents */

static void ev_fence(struct sim *sim, struct sim_event *ev)
{
	struct cluster *cl = sim->cluster;
	struct sim_client *c = &cl->clients[sim_random(sim, CLIENTS - 1)];
	Drover__Request r = DROVER__REQUEST__INIT;
	Drover__NodeVerb v = DROVER__NODE_VERB__INIT;

	(void)ev;
	if (cl->settle)
		return;
	v.verb = DROVER__NODE_VERB__VERB__FENCE;
	v.node = sim->hosts[sim_random(sim, sim->n_hosts)].name;
	v.force = sim_random(sim, 3) == 0;
	r.verb_case = DROVER__REQUEST__VERB_NODE_VERB;
	r.node_verb = &v;
	client_ask(c, &r, "node fence", PATIENCE);
	sim_post(sim, sim_between(sim, 4 * SIM_S, 15 * SIM_S), NULL, ev_fence, NULL);
}

static void give_agents(struct cluster *cl)
{
	Drover__Request r = DROVER__REQUEST__INIT;
	Drover__NodeSet set = DROVER__NODE_SET__INIT;

	set.node = cl->sim->hosts[story.n].name;
	set.fence_agent = (char *)(uintptr_t) "fence_sim";
	r.verb_case = DROVER__REQUEST__VERB_NODE_SET;
	r.node_set = &set;
	if (!ask(cl, story.which, &r, "node set --fence"))
		return;
	story.asked = NULL;
	if (++story.n < cl->sim->n_hosts)
		return;
	sim_post(cl->sim, sim_between(cl->sim, SIM_S, 8 * SIM_S), NULL, ev_fence, NULL);
	story.step = STEP_OVER;
}

/* ---------------------------------------------------------------- force-quorum */

static void put_down(struct coord *c)
{
	c->keep_down = true;
	coord_kill(c);
}

static void die(struct cluster *cl)
{
	for (unsigned i = 0; i < cl->n_coords; i++)
		if (i != story.which)
			host_power_off(cl, i);
	cl->coords[story.which].keep_down = false;
	coord_start(&cl->coords[story.which]);
	next(cl, STEP_FORCE, SIM_S, 6 * SIM_S);
}

static void force(struct cluster *cl)
{
	Drover__Request r = DROVER__REQUEST__INIT;
	Drover__ForceQuorum f = DROVER__FORCE_QUORUM__INIT;
	char *dead[SIM_COORDS];

	f.dead = dead;
	for (unsigned i = 0; i < cl->n_coords; i++)
		if (i != story.which)
			dead[f.n_dead++] = cl->coords[i].name;
	f.confirmed = true;
	r.verb_case = DROVER__REQUEST__VERB_FORCE_QUORUM;
	r.force_quorum = &f;
	if (ask(cl, story.which, &r, "cluster force-quorum") && done_well())
		next(cl, STEP_FORCED, 0, 0);
}

static void forced(struct cluster *cl)
{
	if (!coord_leads(&cl->coords[story.which]))
		return;
	story.n = 0;
	next(cl, STEP_BURY, 0, 3 * SIM_S);
}

/* Somebody has looked; or the host boots, and speaks for itself. */
static void bury(struct cluster *cl)
{
	unsigned host = story.n++;

	if (host >= cl->n_coords) {
		next(cl, STEP_BOOT, 2 * SIM_S, 15 * SIM_S);
		return;
	}
	if (host != story.which && sim_random(cl->sim, 2) == 0)
		client_fence(&cl->teller, host);
	next(cl, STEP_BURY, 0, 3 * SIM_S);
}

static void boot(struct cluster *cl)
{
	for (unsigned i = 0; i < cl->n_coords; i++)
		if (i != story.which)
			host_power_on(cl, i);
	story.step = STEP_OVER;
}

/* ---------------------------------------------------------------- backup and restore */

static void take_backup(struct cluster *cl)
{
	Drover__Request r = DROVER__REQUEST__INIT;
	Drover__ClusterBackup b = DROVER__CLUSTER_BACKUP__INIT;

	r.verb_case = DROVER__REQUEST__VERB_CLUSTER_BACKUP;
	r.cluster_backup = &b;
	if (!ask(cl, story.which, &r, "cluster backup") || !done_well())
		return;
	story.backup = story.asked;
	next(cl, STEP_LOSE, 3 * SIM_S, 9 * SIM_S);
}

static void lose_all(struct cluster *cl)
{
	sim_trace(cl->sim, "all coordinators lose their disks");
	for (unsigned i = 0; i < cl->n_coords; i++) {
		put_down(&cl->coords[i]);
		disk_wipe(&cl->coords[i].disk);
	}
	next(cl, STEP_INIT, 500 * SIM_MS, 5 * SIM_S);
}

static void init_again(struct cluster *cl)
{
	struct coord *c = &cl->coords[story.which];
	Drover__Request r = DROVER__REQUEST__INIT;
	Drover__ClusterInit init = DROVER__CLUSTER_INIT__INIT;

	if (c->keep_down) {
		c->keep_down = false;
		c->member = c->term = c->vote = c->stored = c->voted_term = c->voted_for = 0;
		coord_start(c);
	}
	if (!coord_up(c))
		return;
	init.restore_size = story.backup->backup_size;
	init.restore.data = story.backup->backup;
	init.restore.len = story.backup->backup_size;
	r.verb_case = DROVER__REQUEST__VERB_CLUSTER_INIT;
	r.cluster_init = &init;
	if (ask(cl, story.which, &r, "cluster restore") && done_well())
		next(cl, STEP_JOIN, 0, 4 * SIM_S);
}

static void join(struct cluster *cl)
{
	for (unsigned i = 0; i < cl->n_coords; i++)
		if (i != story.which)
			operator_rejoin(&cl->coords[i], false);
	story.step = STEP_OVER;
}

/* ---------------------------------------------------------------- */

static void act(struct cluster *cl)
{
	switch (story.step) {
	case STEP_NONE:
	case STEP_OVER:
		return;
	case STEP_UPGRADE:
		upgrade(cl);
		return;
	case STEP_RAISED:
		raised(cl);
		return;
	case STEP_OLD_ONE:
		old_one(cl);
		return;
	case STEP_OLD_GOES:
		old_goes(cl);
		return;
	case STEP_AGENTS:
		give_agents(cl);
		return;
	case STEP_DOWN:
		put_down(&cl->coords[story.which]);
		next(cl, STEP_DIE, 4 * SIM_S, 9 * SIM_S);
		return;
	case STEP_DIE:
		die(cl);
		return;
	case STEP_FORCE:
		force(cl);
		return;
	case STEP_FORCED:
		forced(cl);
		return;
	case STEP_BURY:
		bury(cl);
		return;
	case STEP_BOOT:
		boot(cl);
		return;
	case STEP_BACKUP:
		take_backup(cl);
		return;
	case STEP_LOSE:
		lose_all(cl);
		return;
	case STEP_INIT:
		init_again(cl);
		return;
	case STEP_JOIN:
		join(cl);
		return;
	}
}

static void ev_story(struct sim *sim, struct sim_event *ev)
{
	(void)ev;
	if (sim->now >= story.due)
		act(sim->cluster);
	if (story.step != STEP_OVER)
		sim_post(sim, EVERY, NULL, ev_story, NULL);
}

void story_begin(struct cluster *cl)
{
	static const enum step first[] = {[STORY_NONE] = STEP_NONE,
					  [STORY_UPGRADE] = STEP_UPGRADE,
					  [STORY_FENCE] = STEP_AGENTS,
					  [STORY_FORCE] = STEP_DOWN,
					  [STORY_RESTORE] = STEP_BACKUP};

	memset(&story, 0, sizeof(story));
	if (cl->story == STORY_NONE)
		return;
	story.which = (unsigned)sim_random(cl->sim, cl->n_coords);
	next(cl, first[cl->story], 0, cl->story == STORY_FENCE ? SIM_S : 4 * SIM_S);
	sim_post(cl->sim, 1, NULL, ev_story, NULL);
}
