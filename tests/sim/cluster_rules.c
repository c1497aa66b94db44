/*
 * More of what must be true, for what only some seeds do (cluster_story.c): fencing (R11), new incarnations
 * and audits (R18), versions (R20); and who votes (R15), how long leases are (R30).
 */
#include <stdio.h>
#include <string.h>

#include <raft.h>

#include "cluster.h"
#include "coordinator/recover.h"
#include "coordinator/rows.h"
#include "coordinator/server.h"

#define AFTER_AUDIT (20 * SIM_S) /* for what is left of moves that the state does not know */

/* Corosync forms a membership, then somebody is elected (server.c). */
#define DETECTION_MS 2200
#define ELECTION_MS  3000

/* ---------------------------------------------------------------- incarnations (R18) */

/* While it starts it applies what it knows to be committed, and nobody can be asked yet. */
static uint64_t incarnation_of(struct coord *c)
{
	struct dr_error err = DR_ERROR_INIT;
	struct logdb_identity id;
	char dir[32];

	if (c->server != NULL)
		return c->server->identity.incarnation;
	snprintf(dir, sizeof(dir), "/sim/%s", c->name);
	if (c->incarnation_of != c->starts && recover_identity_read(dir, &id, &err) == 1) {
		c->incarnation = id.incarnation;
		c->incarnation_of = c->starts;
	}
	return c->incarnation;
}

bool rules_incarnation(struct coord *c, uint64_t index)
{
	struct shadow *sh = &c->sim->cluster->shadow;
	uint64_t incarnation = incarnation_of(c);

	if (incarnation < sh->incarnation)
		return false;
	if (incarnation > sh->incarnation && sh->incarnation != 0) {
		sim_trace(c->sim, "%s goes on as a new incarnation", c->name);
		memset(sh->at, 0, sizeof(sh->at));
		sh->index = 0;
		sh->base = index - 1;
		sh->renewing = true;
		sh->n_voters = 0;
		for (unsigned v = 0; v < SIM_VMS; v++)
			c->sim->cluster->vm_killed[v] = true; /* an audit may stop it */
	}
	sh->incarnation = incarnation;
	return index > sh->base;
}

static void begin_audit(struct shadow *sh, const Drover__Command *cmd)
{
	memset(sh->vms, 0, sizeof(sh->vms));
	sh->n_attempts = 0;
	sh->last_move = 0;
	sh->term = cmd->term;
	sh->renewing = false;
	sh->audit = true;
}

bool rules_leftovers(const struct cluster *cl)
{
	const struct shadow *sh = &cl->shadow;

	return sh->audit || (sh->audit_over != 0 && cl->sim->now < sh->audit_over + AFTER_AUDIT);
}

/* What lets a VM run or sends it elsewhere. */
static bool touches_vms(const Drover__Command *cmd)
{
	return cmd->body_case == DROVER__COMMAND__BODY_VM_START ||
	       cmd->body_case == DROVER__COMMAND__BODY_VM_STOP ||
	       cmd->body_case == DROVER__COMMAND__BODY_MOVE_CREATE ||
	       cmd->body_case == DROVER__COMMAND__BODY_MOVE_ASSIGN ||
	       cmd->body_case == DROVER__COMMAND__BODY_MOVE_SWITCH ||
	       cmd->body_case == DROVER__COMMAND__BODY_MOVE_COMMIT ||
	       cmd->body_case == DROVER__COMMAND__BODY_MOVE_ABORT;
}

/* ---------------------------------------------------------------- for the trace */

static void tell(struct sim *sim, struct db *db, const char *what, const char *sql)
{
	struct db_rows rows;

	db_query(db, &rows, sql, "");
	while (db_next(&rows))
		sim_trace(sim, "rows: %s %s", what, db_text(&rows, 0));
	db_done(&rows);
}

void rules_tell(struct cluster *cl)
{
	struct coord *leader = cluster_leader(cl);

	if (leader == NULL || !cl->sim->opt.trace)
		return;
	tell(cl->sim, leader->server->db, "move",
	     "SELECT id || ' ' || vm || ' ' || state || ': ' || src || ' to ' || dst || ' ' || error FROM "
	     "move"
	     " WHERE state NOT IN ('done', 'failed', 'cancelled')");
	tell(cl->sim, leader->server->db, "attempt",
	     "SELECT move || '/' || attempt || ' ' || vm || ' generation ' || generation || ' decision ' ||"
	     " decision || ': ' || src || ' ' || src_phase || ' ' || src_gone || ' to ' || dst || ' ' ||"
	     " dst_phase || ' ' || dst_gone FROM move_attempt WHERE src_gone = 0 OR dst_gone = 0");
	tell(cl->sim, leader->server->db, "vm",
	     "SELECT name || ' on ' || owner || ' generation ' || generation || ' state ' || state || ' want "
	     "' ||"
	     " want || ' move ' || move || ' ' || error FROM vm ORDER BY name");
	tell(cl->sim, leader->server->db, "node",
	     "SELECT name || ' at ' || coordinator || ' ' || health || ' incarnation ' || incarnation FROM "
	     "node");
}

/* ---------------------------------------------------------------- versions (R20) */

static void note_fencing(struct coord *c, const Drover__Command *cmd, bool under_way)
{
	for (unsigned h = 0; cmd->body_case == DROVER__COMMAND__BODY_NODE_FENCED && h < c->sim->n_hosts; h++)
		if (strcmp(c->sim->hosts[h].name, cmd->node_fenced->node) == 0)
			c->fencing[h] = under_way;
}

void rules_proposed(struct coord *c, const uint8_t *bytes, size_t size)
{
	Drover__Command *cmd = drover__command__unpack(NULL, size, bytes);

	if (cmd == NULL)
		abort();
	if (c->fencing_term != c->raft->current_term)
		memset(c->fencing, 0, sizeof(c->fencing));
	c->fencing_term = c->raft->current_term;
	note_fencing(c, cmd, true);
	drover__command__free_unpacked(cmd, NULL);
}

static bool proposed_to_fence(const struct coord *c, unsigned host)
{
	return c->fencing[host] && c->raft->state == RAFT_LEADER && c->fencing_term == c->raft->current_term;
}

void rules_applied(struct coord *c, uint64_t index, const Drover__Command *cmd)
{
	note_fencing(c, cmd, false);
	if (cmd->version > c->version)
		sim_broken(c->sim, "R20: %s knows version %u, and applies index %llu (%s), which needs %u",
			   c->name, c->version, (unsigned long long)index, apply_command_name(cmd),
			   cmd->version);
}

static void check_raise(struct cluster *cl, const Drover__Command *cmd)
{
	unsigned to = cmd->cluster_version->to;

	cl->shadow.version = to;
	for (unsigned i = 0; i < cl->n_coords; i++)
		if (coord_up(&cl->coords[i]) && cl->coords[i].server->consensus != NULL &&
		    cl->coords[i].version < to)
			sim_broken(cl->sim, "R20: the cluster goes on to version %u, and %s knows %u", to,
				   cl->coords[i].name, cl->coords[i].version);
}

bool rules_first(struct cluster *cl, const Drover__Command *cmd, const struct apply_result *result)
{
	struct shadow *sh = &cl->shadow;

	if (sh->renewing && (cmd->body_case != DROVER__COMMAND__BODY_INCARNATION_BEGIN || result->exit != 0))
		return false;
	if (result->exit != 0)
		return true;
	if (sh->renewing)
		begin_audit(sh, cmd);
	if (sh->audit && touches_vms(cmd))
		sim_broken(cl->sim, "R18: %s takes effect before every host has spoken",
			   apply_command_name(cmd));
	if (cmd->body_case == DROVER__COMMAND__BODY_AUDIT_END && sh->audit) {
		sh->audit = false;
		sh->audit_over = cl->sim->now;
	}
	if (cmd->body_case == DROVER__COMMAND__BODY_CLUSTER_VERSION)
		check_raise(cl, cmd);
	return true;
}

/* ---------------------------------------------------------------- votes (R15) */

static bool was_voter(const struct shadow *sh, uint64_t member)
{
	for (unsigned i = 0; i < sh->n_voters; i++)
		if (sh->voters[i] == member)
			return true;
	return false;
}

static void note_voters(struct shadow *sh, const struct raft *raft)
{
	const struct raft_configuration *conf = &raft->configuration;

	for (unsigned i = 0; i < conf->n; i++)
		if (conf->servers[i].role == RAFT_VOTER && sh->n_voters < VOTERS_MAX &&
		    !was_voter(sh, conf->servers[i].id))
			sh->voters[sh->n_voters++] = conf->servers[i].id;
}

/* Whether it is the only voter, as it sees it. */
static bool is_alone(const struct coord *c)
{
	unsigned voters = 0;
	bool self = false;

	if (!coord_up(c) || c->raft == NULL)
		return false;
	for (unsigned i = 0; i < c->raft->configuration.n; i++) {
		voters += c->raft->configuration.servers[i].role == RAFT_VOTER ? 1 : 0;
		self = self || (c->raft->configuration.servers[i].role == RAFT_VOTER &&
				c->raft->configuration.servers[i].id == c->member);
	}
	return self && voters == 1;
}

/* R17: of two that don't hear each other one is off. */
static void check_alone(const struct cluster *cl)
{
	if (cl->n_coords == 2 && is_alone(&cl->coords[0]) && is_alone(&cl->coords[1]))
		sim_broken(cl->sim, "R17: both members go on, each alone");
}

/* A learner has no vote: neither for another one nor for itself. */
void rules_member(struct coord *c)
{
	struct shadow *sh = &c->sim->cluster->shadow;

	/* Nothing cuts the others off from it: they have heard of the new one before they could elect. */
	if (coord_leads(c) && c->server->identity.incarnation < sh->incarnation)
		sim_broken(c->sim, "R18: %s leads an incarnation of the cluster that was left behind",
			   c->name);
	if (c->server->identity.incarnation != sh->incarnation)
		return;
	check_alone(c->sim->cluster);
	if (c->raft->state == RAFT_LEADER)
		note_voters(sh, c->raft);
	else if ((c->raft->state == RAFT_CANDIDATE || c->raft->voted_for != 0) && sh->n_voters > 0 &&
		 !was_voter(sh, c->member))
		sim_broken(c->sim, "R15: %s is a learner, and votes in term %llu", c->name,
			   (unsigned long long)c->raft->current_term);
}

/* ---------------------------------------------------------------- leases and orders (R11, R30) */

void rules_told(struct coord *c, unsigned host, const Drover__Msg *msg)
{
	struct node_row row;

	if (c == NULL || c->server == NULL || c->server->db == NULL || host >= c->sim->n_hosts ||
	    db_failed(c->server->db, NULL) < 0 || !rows_node(c->server->db, c->sim->hosts[host].name, &row))
		return;
	if (row.fencing != 0 || proposed_to_fence(c, host) ||
	    (row.has_fenced && row.has_boot && memcmp(row.fenced_boot, row.boot_id, ROWS_ID) == 0))
		sim_broken(c->sim, "R11: %s gives %s to %s, which is being fenced or was", c->name,
			   msg->body_case == DROVER__MSG__BODY_LEASE_GRANT ? "a lease" : "orders", row.name);
	if (msg->body_case == DROVER__MSG__BODY_LEASE_GRANT &&
	    msg->lease_grant->duration_ms <= UINT64_C(3) * (DETECTION_MS + ELECTION_MS))
		sim_broken(c->sim, "R30: a lease of %llu ms ends while a leader is replaced",
			   (unsigned long long)msg->lease_grant->duration_ms);
}
