#include "coordinator/survivor.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/mutant.h"
#include "coordinator/fence.h"
#include "coordinator/fence_spec.h"
#include "coordinator/recover.h"
#include "coordinator/rows.h"

int survivor_start(struct server *s, struct dr_error *err)
{
	struct recover_alone a;
	int ret;

	if (s->identity.member == 0)
		return 0;
	ret = recover_alone_run(s->conf.data_dir, s->log, &s->identity, s->conf.name, &a, err);
	if (ret == 1)
		log_warning("goes on alone: the host of the other coordinator, %s, was switched off", a.node);
	return ret < 0 ? ret : 0;
}

/* The other voter, when there are two and this member is one of them. */
static bool other_voter(struct server *s, struct consensus_member *other)
{
	struct consensus_member members[SERVER_PEERS_MAX];
	unsigned n = consensus_members(s->consensus, members, SERVER_PEERS_MAX);
	unsigned voters = 0;
	bool self = false;

	for (unsigned i = 0; i < n; i++) {
		if (members[i].role != MEMBER_VOTER)
			continue;
		voters++;
		if (members[i].id == s->identity.member)
			self = true;
		else
			*other = members[i];
	}
	return self && voters == 2;
}

/*
 * Whether there may be a third one who can make a majority with the other. While a change of the list is not
 * committed those of the list before it may still decide. And the other one may have made a learner a voter
 * since, and committed with it what this one has never seen; a list with a learner is in both voters' logs.
 */
static bool third_voter(struct server *s)
{
	struct consensus_member members[SERVER_PEERS_MAX];
	unsigned n = consensus_members(s->consensus, members, SERVER_PEERS_MAX);

	for (unsigned i = 0; i < n; i++)
		if (members[i].role == MEMBER_LEARNER)
			return true;
	return !consensus_members_settled(s->consensus);
}

static void heard(struct server *s)
{
	struct survivor *v = &s->survivor;

	if (v->fencing) {
		log_notice("coordinator %s is heard again: its host is left alone", v->node);
		fence_cancel(s->fences, v->node);
	}
	memset(v, 0, sizeof(*v));
}

static void fenced(void *data, const char *node, int status, const struct dr_error *err)
{
	struct server *s = data;
	struct survivor *v = &s->survivor;
	struct dr_error why = DR_ERROR_INIT;
	struct recover_alone a = {.member = v->member};

	v->fencing = false;
	if (s->consensus == NULL || s->stopping)
		return;
	v->due_us = env_now_us(s->env) + SURVIVOR_AGAIN_US;
	if (status < 0) {
		log_error("coordinator %s is silent, and its host could not be switched off: %s", node,
			  err->text);
		return;
	}
	log_warning("the host of coordinator %s is off: this one goes on alone", node);
	a.term = consensus_term(s->consensus);
	a.utc_us = env_utc_us(s->env);
	snprintf(a.node, sizeof(a.node), "%s", node);
	if (recover_alone_write(s->conf.data_dir, &a, &why) < 0) {
		log_error("%s", why.text);
		return;
	}
	server_begin_anew(s);
}

/* What an operator can do, once for each silence. */
static void explain(struct survivor *v, const char *why)
{
	if (v->explained)
		return;
	v->explained = true;
	log_error("coordinator %s is silent, and one of two is no majority: nothing can be changed, VMs run "
		  "on. "
		  "%s. Bring it back; or, if its host is off for good, give the order: drover cluster "
		  "force-quorum --dead %s. A third coordinator would make this unnecessary",
		  v->node, why, v->node);
}

static void try_fence(struct server *s, const struct consensus_member *other)
{
	struct survivor *v = &s->survivor;
	struct dr_error err = DR_ERROR_INIT;
	DR_AUTO_FREE char *spec = rows_fence_spec(s->db, v->node);
	char agent[FENCE_AGENT_MAX];

	/* See survivor.h: who has not heard the other since its start may be the one that was fenced. */
	if (s->vouch.mute) {
		explain(v, "This one has not heard it since its own start, so it may have gone on without");
		return;
	}
	if (third_voter(s)) {
		explain(v, "The list of coordinators is being changed, or may have been: a third one may "
			   "count, too");
		return;
	}
	if (peers_host_well(s, other)) {
		explain(v, "It ended cleanly or lost its log, so its host, which is well, is left alone");
		return;
	}
	if (spec == NULL) {
		explain(v, "Its host has no fence agent (drover node set NODE --fence AGENT)");
		return;
	}
	if (DR_MUTANT(alone_unfenced)) {
		fenced(s, v->node, 0, &err);
		return;
	}
	v->due_us = env_now_us(s->env) + SURVIVOR_AGAIN_US;
	if (fence_off(s->fences, v->node, spec, fenced, s, &err) < 0) {
		log_error("coordinator %s is silent: %s", v->node, err.text);
		return;
	}
	v->fencing = true;
	log_warning("coordinator %s is silent: %s switches its host off", v->node,
		    fence_spec_agent(spec, agent));
}

void survivor_tick(struct server *s)
{
	struct survivor *v = &s->survivor;
	struct consensus_member other;
	uint64_t now = env_now_us(s->env);

	if (s->consensus == NULL || s->stopping || s->identity.standalone || !other_voter(s, &other) ||
	    !peers_lost(s, other.id)) {
		if (v->silent_since_us != 0)
			heard(s);
		s->led_last = consensus_leader(s->consensus, NULL) != 0 ? consensus_leader(s->consensus, NULL)
									: s->led_last;
		return;
	}
	if (v->silent_since_us == 0) {
		v->silent_since_us = now;
		v->member = other.id;
		snprintf(v->node, sizeof(v->node), "%s", other.node);
		v->due_us = now + SURVIVOR_SILENT_US;
		if (s->led_last != s->identity.member)
			v->due_us += SURVIVOR_SECOND_US;
	}
	if (!v->fencing && now >= v->due_us && consensus_role(s->consensus) != CONSENSUS_LEADER)
		try_fence(s, &other);
}
