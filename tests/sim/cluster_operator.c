/*
 * The operator who mends: brings a coordinator whose disk was lost, damaged or is too old back as a new
 * member, and at the end continues what somebody has paused.
 *
 *   LOST --old member removed--> OUT --disk wiped, started, token--> JOINING --answer--> JOINED --voter--> 0
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "coordinator/server.h"

#define STRANGER	(5 * SIM_S)
#define STRANGER_FORCED (12 * SIM_S) /* time enough for what was left behind to go on, if it did */

enum rejoin { REJOIN_NOT, REJOIN_LOST, REJOIN_OUT, REJOIN_TOKEN, REJOIN_JOINING, REJOIN_JOINED };

/* Role of a member id at the leader: -1 = no member. */
static int role_of(struct coord *leader, uint64_t id)
{
	struct consensus_member members[SERVER_PEERS_MAX];
	unsigned n = consensus_members(leader->server->consensus, members, SERVER_PEERS_MAX);

	for (unsigned i = 0; i < n; i++)
		if (members[i].id == id)
			return (int)members[i].role;
	return -1;
}

static void ev_remove(struct sim *sim, struct sim_event *ev)
{
	struct coord *leader = ev->obj;
	struct dr_error err = DR_ERROR_INIT;

	(void)sim;
	if (coord_leads(leader) && consensus_remove(leader->server->consensus, ev->a, &err) < 0)
		sim_trace(sim, "operator: remove member: %s", err.text);
}

static void ask_token(struct cluster *cl, struct coord *leader, struct coord *c)
{
	Drover__Request r = DROVER__REQUEST__INIT;
	Drover__Empty empty = DROVER__EMPTY__INIT;

	cl->clients[CLIENTS - 1].pinned = (int)leader->id;
	r.verb_case = DROVER__REQUEST__VERB_CLUSTER_TOKEN;
	r.cluster_token = &empty;
	c->rejoin_ask = client_ask(&cl->clients[CLIENTS - 1], &r, "cluster token", 10 * SIM_S);
	if (c->rejoin_ask != NULL)
		c->rejoin = REJOIN_TOKEN;
}

static void ask_join(struct cluster *cl, struct coord *leader, struct coord *c)
{
	Drover__Request r = DROVER__REQUEST__INIT;
	Drover__ClusterJoin join = DROVER__CLUSTER_JOIN__INIT;
	char address[32];

	snprintf(address, sizeof(address), "%s:7420", leader->name);
	join.address = address;
	join.token = c->rejoin_ask->token;
	cl->clients[CLIENTS - 1].pinned = (int)c->id;
	r.verb_case = DROVER__REQUEST__VERB_CLUSTER_JOIN;
	r.cluster_join = &join;
	c->rejoin_ask = client_ask(&cl->clients[CLIENTS - 1], &r, "cluster join", 35 * SIM_S);
	if (c->rejoin_ask != NULL)
		c->rejoin = REJOIN_JOINING;
}

static bool asked_in_vain(struct cluster *cl, const struct coord *c)
{
	return c->rejoin_ask->answered ? c->rejoin_ask->exit != 0
				       : cl->clients[CLIENTS - 1].open != c->rejoin_ask;
}

static void remove_old(struct cluster *cl, struct coord *leader, struct coord *c)
{
	struct sim_event *ev;

	if (c->old_member != 0 && role_of(leader, c->old_member) >= 0) {
		ev = sim_post(cl->sim, 1, &leader->proc, ev_remove, leader);
		ev->a = c->old_member;
		return;
	}
	c->rejoin = REJOIN_OUT;
}

/* From here on it is another member, with nothing that it could remember. */
static void start_fresh(struct coord *c)
{
	if (coord_up(c))
		return;
	c->refused = false;
	c->keep_down = false;
	disk_wipe(&c->disk);
	c->member = c->term = c->vote = c->stored = c->voted_term = c->voted_for = 0;
	coord_start(c);
}

static void step(struct cluster *cl, struct coord *leader, struct coord *c)
{
	switch ((enum rejoin)c->rejoin) {
	case REJOIN_NOT:
		return;
	case REJOIN_LOST:
		remove_old(cl, leader, c);
		return;
	case REJOIN_OUT:
		if (c->version < cl->shadow.version) { /* as it was told: "upgrade it first" */
			c->wanted_version = cl->shadow.version;
			coord_kill(c);
		}
		start_fresh(c);
		if (coord_up(c) && c->server->consensus == NULL && cl->clients[CLIENTS - 1].open == NULL)
			ask_token(cl, leader, c);
		else if (coord_up(c) && c->server->consensus != NULL)
			c->rejoin = REJOIN_JOINED;
		return;
	case REJOIN_TOKEN:
		if (asked_in_vain(cl, c))
			c->rejoin = REJOIN_OUT;
		else if (c->rejoin_ask->answered)
			ask_join(cl, leader, c);
		return;
	case REJOIN_JOINING:
		if (c->rejoin_ask->answered && c->rejoin_ask->exit == 0)
			c->rejoin = REJOIN_JOINED;
		else if (asked_in_vain(cl, c))
			c->rejoin = REJOIN_OUT;
		return;
	case REJOIN_JOINED:
		if (coord_up(c) && c->server->consensus != NULL &&
		    role_of(leader, c->server->identity.member) == MEMBER_VOTER)
			c->rejoin = REJOIN_NOT;
		return;
	}
}

void operator_rejoin(struct coord *c, bool remove)
{
	c->rejoin = remove ? REJOIN_LOST : REJOIN_OUT;
	c->old_member = c->member;
}

/* A member whose log was damaged has a vote again, or never lost it. */
static void note_whole(struct cluster *cl, struct coord *leader)
{
	for (unsigned i = 0; i < cl->n_coords; i++) {
		struct coord *c = &cl->coords[i];

		if (c->damaged && c->rejoin == REJOIN_NOT && cl->sim->now > c->damaged_at + 6 * SIM_S &&
		    coord_up(c) && c->server->consensus != NULL && !c->server->vouch.mute &&
		    role_of(leader, c->server->identity.member) == MEMBER_VOTER)
			c->damaged = false; /* while it is mute, the others may still find that it is not */
	}
}

/* One that is in no cluster any more, or whom the others do not let in: the operator joins it anew. */
static void note_strangers(struct cluster *cl, struct coord *leader)
{
	for (unsigned i = 0; i < cl->n_coords; i++) {
		struct coord *c = &cl->coords[i];
		bool stranger =
			coord_up(c) && c->rejoin == REJOIN_NOT && cl->running &&
			(c->server->consensus == NULL || role_of(leader, c->server->identity.member) < 0);

		if (!stranger)
			c->stranger_since = 0;
		else if (c->stranger_since == 0)
			c->stranger_since = cl->sim->now;
		if (!stranger || cl->sim->now - c->stranger_since <
					 (cl->story == STORY_FORCE ? STRANGER_FORCED : STRANGER))
			continue;
		sim_trace(cl->sim, "operator: %s is no member: it must join", c->name);
		if (c->server->consensus != NULL) {
			c->keep_down = true;
			coord_kill(c);
		}
		operator_rejoin(c, false);
	}
}

void operator_work(struct cluster *cl)
{
	struct coord *leader = cluster_leader(cl);

	for (unsigned i = 0; i < cl->n_coords; i++) {
		struct coord *c = &cl->coords[i];

		if (c->refused && c->rejoin == REJOIN_NOT) {
			sim_trace(cl->sim, "operator: %s must come back as a new member: %s", c->name,
				  c->refusal);
			c->rejoin = REJOIN_LOST;
			c->old_member = c->member;
		}
	}
	if (leader == NULL)
		return;
	note_whole(cl, leader);
	note_strangers(cl, leader);
	/* One at a time. */
	for (unsigned i = 0; i < cl->n_coords; i++)
		if (cl->coords[i].rejoin != REJOIN_NOT) {
			step(cl, leader, &cl->coords[i]);
			return;
		}
}
