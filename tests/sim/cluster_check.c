/*
 * What must be true: DESIGN §1 and SAFETY.md. After every event: who runs what (the fake QEMUs' truth), terms
 * and leaders. At each index, by the first member that applies it: ownership, limits, ids; by each other: the
 * same state. At the end: everything is over, and nothing that was acknowledged is missing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <raft.h>

#include "cluster.h"
#include "coordinator/rows.h"
#include "coordinator/server.h"
#include "sim_agent.h"

/* ---------------------------------------------------------------- the first member that applies an index */

static const struct shadow_attempt *shadow_of(struct cluster *cl, uint64_t move, uint32_t attempt);

static int host_of(struct cluster *cl, const char *name)
{
	struct sim_host *h = sim_host_named(cl->sim, name);

	return h != NULL ? (int)h->id : -1;
}

/* The source's QEMU of a committed move: it waits for its quit, and nothing else may happen to it. */
static bool is_shell(struct cluster *cl, const struct sim_qemu *q)
{
	for (unsigned i = 0; q->run == MOVE_RUN_POSTMIGRATE && i < cl->shadow.n_attempts; i++) {
		const struct shadow_attempt *t = &cl->shadow.attempts[i];

		if (t->vm == q->vm && t->src == (int)q->host->id && !t->src_gone &&
		    t->decision == DROVER__MOVE_DECISION__DECISION_COMMIT)
			return true;
	}
	return false;
}

static bool any_qemu(struct cluster *cl, int vm, int host, bool running)
{
	struct sim *sim = cl->sim;

	for (unsigned i = 0; i < sim->n_qemus; i++) {
		const struct sim_qemu *q = sim->qemus[i];

		if (q->vm == vm && q->proc.alive && (host < 0 || (int)q->host->id == host) &&
		    (!q->incoming || q->run == MOVE_RUN_RUNNING) && (!running || sim_qemu_runs(q)) &&
		    !is_shell(cl, q))
			return true;
	}
	return false;
}

/* I2, R9, R12: who may change the owner, and when. */
static bool is_off(Drover__VmState state)
{
	return state == DROVER__VM_STATE__VM_STOPPED || state == DROVER__VM_STATE__VM_FAILED ||
	       state == DROVER__VM_STATE__VM_SAVED;
}

static void owner_changed(struct cluster *cl, const Drover__Command *cmd, int v, const struct shadow_vm *was,
			  const struct shadow_vm *now)
{
	bool off = is_off(was->state);

	if (now->generation <= was->generation)
		sim_broken(cl->sim, "I2: vm%d changes its owner and keeps generation %llu", v + 1,
			   (unsigned long long)was->generation);
	if (cmd->body_case == DROVER__COMMAND__BODY_MOVE_COMMIT ||
	    cmd->body_case == DROVER__COMMAND__BODY_NODE_FENCED ||
	    cmd->body_case == DROVER__COMMAND__BODY_NODE_SESSION ||
	    cmd->body_case == DROVER__COMMAND__BODY_NODE_AUDIT)
		return;
	/* What an audit learns from an attempt: where the VM was last, and nothing of it is left elsewhere.
	 */
	if (!off && cmd->body_case != DROVER__COMMAND__BODY_AUDIT_END)
		sim_broken(cl->sim,
			   "I2: %s changes the owner of vm%d, which is not off (node%d to node%d, state %d)",
			   apply_command_name(cmd), v + 1, was->owner + 1, now->owner + 1, (int)was->state);
	for (int h = 0; h < (int)cl->sim->n_hosts; h++)
		if ((off || h != now->owner) && any_qemu(cl, v, h, false))
			sim_broken(cl->sim, "R12: %s gives vm%d to another host while a QEMU of it lives",
				   apply_command_name(cmd), v + 1);
}

static void note_vms(struct cluster *cl, struct db *db, const Drover__Command *cmd)
{
	struct db_rows rows;

	db_query(db, &rows, "SELECT name, owner, generation, state FROM vm ORDER BY name", "");
	while (db_next(&rows)) {
		int v = sim_vm_index(db_text(&rows, 0));
		struct shadow_vm now = {.known = true,
					.owner = host_of(cl, db_text(&rows, 1)),
					.generation = db_u64(&rows, 2),
					.state = (Drover__VmState)db_int(&rows, 3)};
		struct shadow_vm *was;

		if (v < 0)
			continue;
		was = &cl->shadow.vms[v];
		if (was->known && now.owner != was->owner)
			owner_changed(cl, cmd, v, was, &now);
		if (was->known && now.generation < was->generation)
			sim_broken(cl->sim, "I2: the generation of vm%d falls", v + 1);
		if (was->known && now.generation > was->generation &&
		    cmd->body_case == DROVER__COMMAND__BODY_VM_START && any_qemu(cl, v, -1, true))
			sim_broken(cl->sim, "R12: vm%d is started anew while it runs", v + 1);
		/* R9, R12: off for certain means that nothing of it can run. */
		if (is_off(now.state) && !cl->shadow.audit && any_qemu(cl, v, -1, true))
			sim_broken(cl->sim, "R9: vm%d is off by the rows (%s) and runs", v + 1,
				   apply_command_name(cmd));
		*was = now;
	}
}

static void note_attempts(struct cluster *cl, struct db *db)
{
	static struct shadow_attempt old[SHADOWS];
	struct shadow *sh = &cl->shadow;
	unsigned n_old = sh->n_attempts;
	struct db_rows rows;

	memcpy(old, sh->attempts, n_old * sizeof(old[0]));
	sh->n_attempts = 0;
	db_query(db, &rows,
		 "SELECT move, attempt, vm, src, dst, src_gone, dst_gone, decision FROM move_attempt"
		 " WHERE src_gone = 0 OR dst_gone = 0 ORDER BY move, attempt",
		 "");
	while (db_next(&rows)) {
		if (sh->n_attempts == SHADOWS)
			abort();
		sh->attempts[sh->n_attempts++] =
			(struct shadow_attempt){.move = db_u64(&rows, 0),
						.attempt = (uint32_t)db_u64(&rows, 1),
						.vm = sim_vm_index(db_text(&rows, 2)),
						.src = host_of(cl, db_text(&rows, 3)),
						.dst = host_of(cl, db_text(&rows, 4)),
						.since = cl->sim->now,
						.src_gone = db_bool(&rows, 5),
						.dst_gone = db_bool(&rows, 6),
						.decision = db_int(&rows, 7)};
	}
	for (unsigned i = 0; i < n_old; i++)
		for (unsigned k = 0; k < sh->n_attempts; k++)
			if (sh->attempts[k].move == old[i].move && sh->attempts[k].attempt == old[i].attempt)
				sh->attempts[k].since = old[i].since;
}

/* NULL: both sides of it are gone. */
static const struct shadow_attempt *shadow_of(struct cluster *cl, uint64_t move, uint32_t attempt)
{
	for (unsigned i = 0; i < cl->shadow.n_attempts; i++)
		if (cl->shadow.attempts[i].move == move && cl->shadow.attempts[i].attempt == attempt)
			return &cl->shadow.attempts[i];
	return NULL;
}

static bool has_just_booted(const struct cluster *cl, const struct sim_host *h)
{
	return cl->booted_at[h->id] != 0 && cl->sim->now - cl->booted_at[h->id] < 15 * SIM_S;
}

/* I4, R21: no slot is free while something of that side is left. */
static void check_slots(struct cluster *cl)
{
	struct sim *sim = cl->sim;

	if (rules_leftovers(cl))
		return;
	for (unsigned i = 0; i < sim->n_relays; i++) {
		const struct sim_relay *r = sim->relays[i];
		const struct shadow_attempt *t;

		/* A host that has booted goes on with what it finds, until its first orders (seed 1617). */
		if (!r->proc.alive || has_just_booted(cl, r->host))
			continue;
		t = shadow_of(cl, r->move, r->attempt);
		if (t == NULL || (r->role == DROVER__MOVE_ROLE__MOVE_SRC ? t->src_gone : t->dst_gone))
			sim_broken(sim, "I4: slot of move %llu/%u is free while its relay lives on %s",
				   (unsigned long long)r->move, r->attempt, r->host->name);
	}
	for (unsigned i = 0; i < sim->n_qemus; i++) {
		const struct sim_qemu *q = sim->qemus[i];
		const struct shadow_attempt *t;

		if (!q->proc.alive || !q->incoming || q->run == MOVE_RUN_RUNNING ||
		    has_just_booted(cl, q->host))
			continue;
		t = shadow_of(cl, q->move, q->attempt);
		if (t == NULL || t->dst_gone)
			sim_broken(sim, "I4: slot of move %llu/%u is free while its QEMU lives on %s",
				   (unsigned long long)q->move, q->attempt, q->host->name);
	}
}

/* I4: incoming counts like outgoing; memory is promised once. */
static void check_limits(struct cluster *cl, struct db *db, const Drover__CmdMoveAssign *a)
{
	const char *const nodes[2] = {a->from, a->to};

	for (unsigned k = 0; k < cl->shadow.n_attempts; k++) {
		const struct shadow_attempt *t = &cl->shadow.attempts[k];
		int from = host_of(cl, a->from);
		int to = host_of(cl, a->to);

		if (t->vm != sim_vm_index(a->vm) || (t->move == a->move && t->attempt == a->attempt))
			continue;
		if ((!t->src_gone && (t->src == from || t->src == to)) ||
		    (!t->dst_gone && (t->dst == from || t->dst == to)))
			sim_broken(cl->sim, "R21: %s is moved again before attempt %llu/%u is cleaned up",
				   a->vm, (unsigned long long)t->move, t->attempt);
	}

	for (unsigned i = 0; a->n_paths > 0 && i < 2; i++) {
		unsigned used = 0;
		int host = host_of(cl, nodes[i]);

		for (unsigned k = 0; k < cl->shadow.n_attempts; k++) {
			const struct shadow_attempt *t = &cl->shadow.attempts[k];

			used += (t->src == host && !t->src_gone) || (t->dst == host && !t->dst_gone) ? 1 : 0;
		}
		if (used > rows_limit(db, "node", nodes[i], "max_moves"))
			sim_broken(cl->sim, "I4: %s takes part in %u moves, its limit is %llu", nodes[i],
				   used, (unsigned long long)rows_limit(db, "node", nodes[i], "max_moves"));
	}
}

/* One holder of the switch-over token per link. */
static void check_token(struct cluster *cl, struct db *db)
{
	if (db_exists(db,
		      "SELECT 1 FROM move_attempt a JOIN move_attempt b ON a.network = b.network AND "
		      "(a.src = b.src AND a.src_gone = 0 AND b.src_gone = 0 OR a.dst = b.dst AND a.dst_gone "
		      "= 0 AND "
		      "b.dst_gone = 0) WHERE a.token_held = 1 AND b.token_held = 1 AND a.decision = 0 AND "
		      "b.decision = 0 AND (a.move <> b.move OR a.attempt <> b.attempt)",
		      ""))
		sim_broken(cl->sim, "I4: two moves hold the switch-over token of one link");
}

static void check_ids(struct cluster *cl, const struct apply_result *result)
{
	if (!result->repeated && strcmp(result->object_kind, "move") == 0 && result->object_id != 0) {
		if (result->object_id <= cl->shadow.last_move)
			sim_broken(cl->sim, "R6: move id %llu is used again",
				   (unsigned long long)result->object_id);
		cl->shadow.last_move = result->object_id;
	}
}

/* R27: who says that something took too long must have waited. */
static void check_patience(struct cluster *cl, const Drover__Command *cmd, const struct apply_result *result)
{
	const Drover__CmdMoveAbort *a = cmd->move_abort;
	const struct shadow_attempt *t;

	if (cmd->body_case != DROVER__COMMAND__BODY_MOVE_ABORT || result->exit != 0)
		return;
	t = shadow_of(cl, a->move, a->attempt); /* as it was before */
	if (t != NULL && cl->sim->now - t->since < 15 * SIM_S &&
	    (strstr(a->reason, " within ") != NULL || strstr(a->reason, "no progress for") != NULL ||
	     strstr(a->reason, "the agent of") != NULL))
		sim_broken(cl->sim, "R27: move %llu/%u began %llu ms ago, and is aborted: %s",
			   (unsigned long long)a->move, a->attempt,
			   (unsigned long long)((cl->sim->now - t->since) / 1000), a->reason);
}

static void check_term(struct cluster *cl, const Drover__Command *cmd, const struct apply_result *result)
{
	if (cmd->term < cl->shadow.term && result->exit == 0 && !result->repeated)
		sim_broken(cl->sim, "R13: %s of term %llu takes effect after a command of term %llu",
			   apply_command_name(cmd), (unsigned long long)cmd->term,
			   (unsigned long long)cl->shadow.term);
	if (cmd->term > cl->shadow.term)
		cl->shadow.term = cmd->term;
}

/* R9: what counts as dead is dead. */
static void check_fencing(struct cluster *cl, const Drover__Command *cmd, const struct apply_result *result)
{
	int host;

	if (cmd->body_case != DROVER__COMMAND__BODY_NODE_FENCED || result->exit != 0 || result->repeated)
		return;
	host = host_of(cl, cmd->node_fenced->node);
	if (host < 0 || cmd->node_fenced->boot_id.len != sizeof(cl->boot_id[host]) ||
	    memcmp(cmd->node_fenced->boot_id.data, cl->boot_id[host], sizeof(cl->boot_id[host])) != 0)
		return; /* an earlier boot: nothing of it can live */
	for (unsigned i = 0; i < cl->sim->n_qemus; i++)
		if (cl->sim->qemus[i]->proc.alive && (int)cl->sim->qemus[i]->host->id == host)
			sim_broken(cl->sim, "R9: %s is fenced while a QEMU of it lives",
				   cmd->node_fenced->node);
}

static void first_apply(struct coord *c, struct db *db, const Drover__Command *cmd,
			const struct apply_result *result)
{
	struct cluster *cl = c->sim->cluster;

	if (cmd->body_case == DROVER__COMMAND__BODY_LEASE_ROUND)
		return;
	if (c->sim->opt.trace)
		sim_trace(c->sim, "log: %s%s%s", apply_command_name(cmd),
			  result->exit != 0 ? " REFUSED: " : " ",
			  result->exit != 0				       ? result->message
			  : cmd->body_case == DROVER__COMMAND__BODY_MOVE_ABORT ? cmd->move_abort->reason
									       : "");
	if (!rules_first(cl, cmd, result))
		return;
	check_term(cl, cmd, result);
	check_ids(cl, result);
	check_fencing(cl, cmd, result);
	check_patience(cl, cmd, result);
	if (cmd->body_case == DROVER__COMMAND__BODY_NODE_FACTS)
		return;
	note_vms(cl, db, cmd);
	note_attempts(cl, db);
	check_slots(cl);
	if (cmd->body_case == DROVER__COMMAND__BODY_MOVE_ASSIGN && result->exit == 0)
		check_limits(cl, db, cmd->move_assign);
	if (cmd->body_case == DROVER__COMMAND__BODY_MOVE_SWITCH)
		check_token(cl, db);
	if (cmd->body_case == DROVER__COMMAND__BODY_MOVE_COMMIT && result->exit == 0)
		cl->result->commits++;
	if (cmd->body_case == DROVER__COMMAND__BODY_MOVE_ASSIGN && result->exit == 0)
		cl->result->moves++;
}

static uint64_t signature(const Drover__Command *cmd)
{
	uint64_t h = cmd->utc_us * UINT64_C(0x9e3779b97f4a7c15) ^ cmd->term << 8 ^ (uint64_t)cmd->body_case;

	for (size_t i = 0; i < cmd->request_id.len; i++)
		h = (h ^ cmd->request_id.data[i]) * UINT64_C(1099511628211);
	return h | 1;
}

/* I6, and the log's own promise: one command at one index, the same state after it. */
void cluster_applied(struct coord *c, struct db *db, uint64_t index, const Drover__Command *cmd,
		     const struct apply_result *result)
{
	struct cluster *cl = c->sim->cluster;
	struct shadow *sh = &cl->shadow;
	uint8_t digest[DB_DIGEST_SIZE];
	uint64_t sig = signature(cmd);

	rules_applied(c, index, cmd);
	if (!rules_incarnation(c, index))
		return;
	index -= sh->base;
	if (index >= INDEX_MAX)
		abort();
	db_digest(db, digest);
	c->applied = index;
	if (sh->at[index].signature == 0) {
		if (index < sh->index)
			sim_broken(c->sim, "%s applies index %llu, which others passed as no command",
				   c->name, (unsigned long long)index);
		sh->index = index;
		sh->at[index].signature = sig;
		memcpy(sh->at[index].digest, digest, sizeof(sh->at[index].digest));
		first_apply(c, db, cmd, result);
		return;
	}
	if (sh->at[index].signature != sig)
		sim_broken(c->sim,
			   "R14: %s has another command at index %llu than was applied elsewhere (%s)",
			   c->name, (unsigned long long)index, apply_command_name(cmd));
	else if (memcmp(sh->at[index].digest, digest, sizeof(sh->at[index].digest)) != 0)
		sim_broken(c->sim, "I6: %s has another state after index %llu (%s)", c->name,
			   (unsigned long long)index, apply_command_name(cmd));
}

/* ---------------------------------------------------------------- agents */

/* R2: the word needs a fresh lease. R24: who arrived has told the network. */
void cluster_check_record(struct sim_machine *mc, const struct move_record *rec)
{
	struct sim_agent *a = mc->agent;
	const Drover__MoveOrder *o = move_order(mc->m);
	uint64_t age = agent_lease_age_us(&a->lease, env_now_us(&a->env));

	if (rec->phase == DROVER__MOVE_PHASE__SRC_RELEASED && age >= MOVE_LEASE_FRESH_US)
		sim_broken(a->host->sim, "R2: %s gives its word for move %llu/%u with a lease of %lld ms",
			   a->host->name, (unsigned long long)o->move, o->attempt,
			   (long long)(age == UINT64_MAX ? -1 : (int64_t)(age / 1000)));
	if (rec->phase == DROVER__MOVE_PHASE__PHASE_GONE && o->role == DROVER__MOVE_ROLE__MOVE_DST &&
	    rec->committed && mc->qemu != NULL && sim_qemu_runs(mc->qemu) && !mc->qemu->announced)
		sim_broken(a->host->sim, "R24: vm%d has arrived on %s, and nobody has told the network",
			   mc->qemu->vm + 1, a->host->name);
}

/* R7: nothing begins without a lease. */
void cluster_check_start(struct sim_agent *agent, int vm)
{
	if (!agent_lease_valid(&agent->lease, env_now_us(&agent->env)))
		sim_broken(agent->host->sim, "R7: %s starts vm%d without a lease", agent->host->name, vm + 1);
}

/* R7: never back. */
void cluster_check_obeyed(struct sim_agent *agent, const Drover__AgentOrders *o)
{
	uint64_t *was = agent->obeyed;

	if (o->incarnation < was[0] || (o->incarnation == was[0] && o->term < was[1]))
		sim_broken(agent->host->sim, "R7: %s obeys orders of term %llu after those of term %llu",
			   agent->host->name, (unsigned long long)o->term, (unsigned long long)was[1]);
	if (o->incarnation == was[0] && o->term == was[1] && o->index < was[2])
		sim_broken(agent->host->sim, "R7: %s obeys orders of index %llu after those of index %llu",
			   agent->host->name, (unsigned long long)o->index, (unsigned long long)was[2]);
	was[0] = o->incarnation;
	was[1] = o->term;
	was[2] = o->index;
}

/* Whether that source could go on, and does not. */
static bool stands_still(struct cluster *cl, const struct shadow_attempt *t)
{
	struct sim *sim = cl->sim;
	struct sim_agent *a = t->src >= 0 ? &sim->hosts[t->src].agent : NULL;
	struct sim_qemu *q = a != NULL && t->vm >= 0 ? sim_qemu_by_pid(sim, a->vms[t->vm].pid) : NULL;

	return t->decision == DROVER__MOVE_DECISION__DECISION_ABORT && !t->src_gone && q != NULL &&
	       q->proc.alive && !q->hung && q->run != MOVE_RUN_RUNNING && a->coord >= 0 && a->proc.alive &&
	       a->proc.stopped_until <= sim->now && q->proc.stopped_until <= sim->now &&
	       agent_lease_valid(&a->lease, env_now_us(&a->env)) && !a->vms[t->vm].stopping;
}

/* R3: a committed abort alone lets the source go on, whatever the destination does. */
static void check_aborts(struct cluster *cl)
{
	struct sim *sim = cl->sim;
	bool still[SIM_VMS] = {false};

	for (unsigned i = 0; i < cl->shadow.n_attempts; i++)
		if (stands_still(cl, &cl->shadow.attempts[i]))
			still[cl->shadow.attempts[i].vm] = true;
	for (unsigned v = 0; v < sim->n_vms; v++) {
		if (!still[v])
			cl->dark_abort[v] = 0;
		else if (cl->dark_abort[v] == 0)
			cl->dark_abort[v] = sim->now;
		else if (sim->now - cl->dark_abort[v] > 10 * SIM_S)
			sim_broken(sim, "R3: the move of vm%u is aborted, and its source stands still",
				   v + 1);
	}
}

/* R7: an agent hears of what is committed, and of nothing else. */
void cluster_check_orders(struct sim_agent *agent, const Drover__AgentOrders *orders)
{
	struct cluster *cl = agent->host->sim->cluster;

	if (orders->cluster_incarnation != 0 && orders->cluster_incarnation != cl->shadow.incarnation)
		return;
	for (size_t i = 0; i < orders->n_moves; i++) {
		const Drover__MoveOrder *o = orders->moves[i];
		const struct shadow_attempt *t = shadow_of(cl, o->move, o->attempt);

		if (t != NULL && o->decision != DROVER__MOVE_DECISION__DECISION_NONE &&
		    (int)o->decision != t->decision)
			sim_broken(cl->sim,
				   "R7: %s is told of a decision about move %llu/%u that nobody made",
				   agent->host->name, (unsigned long long)o->move, o->attempt);
	}
	for (size_t i = 0; i < orders->n_vms; i++) {
		int v = sim_vm_index(orders->vms[i]->name);

		if (v >= 0 && cl->shadow.vms[v].known &&
		    orders->vms[i]->generation > cl->shadow.vms[v].generation)
			sim_broken(cl->sim, "R7: %s is told of a generation of vm%d that nobody made",
				   agent->host->name, v + 1);
	}
}

/* R8: who counts a lease as over must be right. */
static void check_leases(struct coord *c)
{
	struct cluster *cl = c->sim->cluster;
	struct lease_book *book = c->server->lease;

	/* One that has been deposed and does not know it yet decides nothing any more. */
	for (unsigned i = 0; i < cl->n_coords; i++)
		if (cl->coords[i].raft != NULL && cl->coords[i].raft->current_term > c->raft->current_term)
			return;
	for (unsigned i = 0; i < cl->sim->n_hosts; i++) {
		struct sim_agent *a = &cl->sim->hosts[i].agent;

		if (a->proc.alive && agent_lease_valid(&a->lease, env_now_us(&a->env)) &&
		    lease_left_ms(book, a->host->name) == 0 &&
		    c->server->next_second_us >
			    c->server->leading_since_us + SIM_S) /* the book has seen the rows */
			sim_broken(cl->sim, "R8: %s counts the lease of %s as over, and it is not", c->name,
				   a->host->name);
	}
}

/* ---------------------------------------------------------------- after every event */

/* R15: what its disk has acknowledged once is there, or it has no vote. */
static void check_log(struct coord *c)
{
	if (c->must_have > 0) {
		c->lacks = c->raft->last_stored < c->must_have;
		if (c->lacks && !c->server->vouch.mute)
			sim_broken(c->sim,
				   "R15: the log of %s ends at %llu, it had acknowledged %llu, and it votes",
				   c->name, (unsigned long long)c->raft->last_stored,
				   (unsigned long long)c->must_have);
		if (!c->lacks)
			c->must_have = 0;
	}
	/* A leader counts its own disk at once; what others have can be known from the first message on. */
	if (c->raft->state == RAFT_LEADER || c->raft->last_stored < c->stored)
		coord_speaks(c);
}

void coord_speaks(struct coord *c)
{
	if (c->raft != NULL && !c->lacks)
		c->stored = c->raft->last_stored;
}

/* R14: nobody decides before an entry of the own term is committed. */
static void check_own_term(struct coord *c)
{
	if (c->raft->state != RAFT_LEADER)
		return;
	if (c->lead_term != c->raft->current_term) {
		c->lead_term = c->raft->current_term;
		c->lead_from = c->raft->last_stored;
		c->lead_commit = c->raft->commit_index;
	}
	/* Figure 8: what is committed by counting is of the leader's own term. */
	if (c->raft->commit_index > c->lead_commit) {
		if (consensus_term_of(c->server->consensus, c->raft->commit_index) < c->raft->current_term)
			sim_broken(c->sim,
				   "R14: %s, leader of term %llu, commits entry %llu of an earlier one",
				   c->name, (unsigned long long)c->lead_term,
				   (unsigned long long)c->raft->commit_index);
		c->lead_commit = c->raft->commit_index;
	}
	if (c->server->leading_term == c->raft->current_term && c->raft->commit_index <= c->lead_from)
		sim_broken(c->sim, "R14: %s decides in term %llu before anything of it is committed", c->name,
			   (unsigned long long)c->lead_term);
}

/* R15: one vote a term, whatever happens to the process. */
static void check_vote(struct coord *c)
{
	if (c->raft->current_term == c->voted_term && c->voted_for != 0 &&
	    c->raft->voted_for != c->voted_for && !c->old_copy)
		sim_broken(c->sim, "R15: %s has forgotten in term %llu that it voted for %llu", c->name,
			   (unsigned long long)c->voted_term, (unsigned long long)c->voted_for);
	c->voted_term = c->raft->current_term;
	c->voted_for = c->raft->voted_for;
}

static void check_member(struct coord *c)
{
	struct shadow *sh = &c->sim->cluster->shadow;
	uint64_t term;

	if (c->server->consensus == NULL || c->raft == NULL)
		return;
	c->member = c->server->identity.member;
	term = c->raft->current_term;
	if (term < TERM_MAX && c->raft->state == RAFT_LEADER) {
		if (sh->leader_of[term] == 0)
			c->sim->cluster->result->elections++;
		else if (sh->leader_of[term] != c->member)
			sim_broken(c->sim, "two leaders of term %llu", (unsigned long long)term);
		sh->leader_of[term] = c->member;
	}
	if (c->server->lease != NULL && db_failed(c->server->db, NULL) == 0)
		check_leases(c);
	check_log(c);
	check_vote(c);
	rules_member(c);
	check_own_term(c);
}

void cluster_check(struct sim *sim)
{
	struct coord *c;

	if (sim->truth_changed) {
		sim->truth_changed = false;
		sim_check_copies(sim);
	}
	if (sim->now >= sim->cluster->next_look) {
		sim->cluster->next_look = sim->now + 200 * SIM_MS;
		check_aborts(sim->cluster);
	}
	c = sim->last != NULL ? coord_of(sim, sim->last) : NULL;
	if (c != NULL && coord_up(c))
		check_member(c);
}

/* ---------------------------------------------------------------- the end */

static struct db *newest_db(struct cluster *cl)
{
	struct coord *leader = cluster_leader(cl);

	return leader != NULL ? leader->server->db : NULL;
}

/* What an incarnation has acknowledged the next one may lack: that is its price (SAFETY R18). */
static bool is_acknowledged(const struct cluster *cl, const struct request *q)
{
	return q->answered && q->exit == 0 && q->changed && q->index != 0 &&
	       q->incarnation == cl->shadow.incarnation && strncmp(q->what, "cluster join", 12) != 0;
}

/* The newest index that a client was told of. */
static uint64_t acknowledged(const struct cluster *cl)
{
	uint64_t newest = 0;

	for (unsigned i = 0; i < CLIENTS; i++)
		for (const struct request *q = cl->clients[i].history; q != NULL; q = q->next)
			if (is_acknowledged(cl, q) && q->index > newest)
				newest = q->index;
	return newest;
}

/* NULL, or what keeps the cluster from being at rest. */
static const char *why_restless(struct cluster *cl)
{
	static char why[256];
	struct sim *sim = cl->sim;
	struct db *db = newest_db(cl);

	if (story_waits(cl) != NULL)
		return story_waits(cl);
	if (db == NULL)
		return "nobody leads";
	for (unsigned i = 0; i < cl->n_coords; i++) {
		struct coord *c = &cl->coords[i];

		snprintf(why, sizeof(why), "%s is no member (%s)", c->name, c->refusal);
		if (!coord_up(c) || c->server->consensus == NULL || c->rejoin != 0)
			return why;
		snprintf(why, sizeof(why), "%s is paused", c->name);
		if (c->proc.stopped_until > sim->now)
			return why;
		snprintf(why, sizeof(why), "%s lags behind", c->name);
		if (c->raft->last_applied + 3 < cluster_leader(cl)->raft->last_applied ||
		    c->raft->last_applied < acknowledged(cl))
			return why;
	}
	for (unsigned i = 0; i < CLIENTS; i++)
		if (cl->clients[i].open != NULL)
			return "a client waits";
	if (db_exists(db, "SELECT 1 FROM drain WHERE state IN ('running', 'paused')", ""))
		return "I5: a drain does not end";
	if (db_exists(db, "SELECT 1 FROM move WHERE state NOT IN ('done', 'failed', 'cancelled')", ""))
		return "I5: a move does not end";
	for (unsigned i = 0; i < sim->n_hosts; i++) {
		snprintf(why, sizeof(why), "%s has no agent", sim->hosts[i].name);
		if (!sim->hosts[i].agent.proc.alive || sim->hosts[i].agent.coord < 0)
			return why;
		snprintf(why, sizeof(why), "the agent of %s is paused", sim->hosts[i].name);
		if (sim->hosts[i].agent.proc.stopped_until > sim->now)
			return why;
		snprintf(why, sizeof(why), "%s keeps a move", sim->hosts[i].name);
		for (unsigned k = 0; k < SIM_MACHINES; k++)
			/* What is gone is kept until the next orders, whenever they come. */
			if (sim->hosts[i].agent.machines[k].used &&
			    move_phase(sim->hosts[i].agent.machines[k].m) != DROVER__MOVE_PHASE__PHASE_GONE)
				return why;
	}
	for (unsigned i = 0; i < sim->n_hosts; i++) {
		const struct sim_agent *a = &sim->hosts[i].agent;

		if (!db_exists(db, "SELECT 1 FROM node WHERE name = ? AND start_id = ?", "sb",
			       sim->hosts[i].name, a->start_id, sizeof(a->start_id)))
			return "a session is not in the rows";
	}
	if (db_exists(db, "SELECT 1 FROM node WHERE coordinator = '' OR health <> 'up'", ""))
		return "a node is not up";
	if (db_exists(db, "SELECT 1 FROM vm WHERE want <> 0 OR state IN (0, 2)", ""))
		return "a VM neither runs nor is off";
	return NULL;
}

bool cluster_at_rest(struct cluster *cl)
{
	return why_restless(cl) == NULL;
}

void cluster_why_restless(struct cluster *cl)
{
	const char *why = why_restless(cl);

	rules_tell(cl);
	sim_broken(cl->sim, "I5: no rest: %s", why != NULL ? why : "something comes and goes");
}

/* Each VM runs where the rows say, and nowhere else; or is off, and that has its reason. */
static void check_home(struct cluster *cl, int v, const struct vm_row *row)
{
	struct sim *sim = cl->sim;
	int owner = host_of(cl, row->owner);
	bool runs = any_qemu(cl, v, owner, true);

	if (rows_vm_off(row)) {
		if (any_qemu(cl, v, -1, false))
			sim_broken(sim, "vm%d is off by the rows and has a QEMU", v + 1);
		if (row->state == DROVER__VM_STATE__VM_FAILED && !cl->vm_killed[v])
			sim_broken(sim, "I7: vm%d has failed (%s), and nothing has killed it", v + 1,
				   row->error);
		return;
	}
	if (!runs)
		sim_broken(sim, "I7: vm%d does not run on %s, which owns it (state %d)", v + 1, row->owner,
			   (int)row->state);
	if (row->state != DROVER__VM_STATE__VM_RUNNING)
		sim_broken(sim, "vm%d runs and is reported as %d", v + 1, (int)row->state);
}

static void check_left_behind(struct sim *sim)
{
	unsigned qemus[SIM_VMS] = {0};

	for (unsigned i = 0; i < sim->n_relays; i++)
		if (sim->relays[i]->proc.alive)
			sim_broken(sim, "R21: a relay of move %llu/%u is left on %s",
				   (unsigned long long)sim->relays[i]->move, sim->relays[i]->attempt,
				   sim->relays[i]->host->name);
	for (unsigned i = 0; i < sim->n_qemus; i++)
		if (sim->qemus[i]->proc.alive && ++qemus[sim->qemus[i]->vm] > 1)
			sim_broken(sim, "R21: a QEMU of vm%d is left", sim->qemus[i]->vm + 1);
	for (unsigned i = 0; i < SIM_NONCES; i++)
		if (sim->nonces[i].used)
			sim_broken(sim, "a nonce of move %llu/%u is left",
				   (unsigned long long)sim->nonces[i].move, sim->nonces[i].attempt);
}

/* I3: what was acknowledged is there, at every member. */
static void check_acknowledged(struct cluster *cl, struct coord *c)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		for (const struct request *q = cl->clients[i].history; q != NULL; q = q->next)
			if (is_acknowledged(cl, q) &&
			    !db_exists(c->server->db, "SELECT 1 FROM request WHERE id = ?", "b", q->id,
				       sizeof(q->id)))
				sim_broken(cl->sim,
					   "I3: '%s' was acknowledged (index %llu) and is unknown to %s",
					   q->what, (unsigned long long)q->index, c->name);
}

static void check_state(struct cluster *cl, struct coord *c)
{
	uint8_t kept[DB_DIGEST_SIZE];
	uint8_t full[DB_DIGEST_SIZE];

	check_acknowledged(cl, c);
	db_digest(c->server->db, kept);
	if (db_digest_full(c->server->db, full) < 0 || memcmp(kept, full, sizeof(full)) != 0)
		sim_broken(cl->sim, "I6: the digest of %s is not that of its rows", c->name);
}

void cluster_check_end(struct cluster *cl)
{
	struct db *db = newest_db(cl);
	unsigned leaders = 0;
	struct db_rows rows;

	for (unsigned i = 0; i < cl->n_coords; i++) {
		leaders += coord_leads(&cl->coords[i]) ? 1 : 0;
		check_state(cl, &cl->coords[i]);
	}
	if (leaders != 1)
		sim_broken(cl->sim, "%u coordinators lead", leaders);
	db_query(db, &rows, "SELECT " VM_COLUMNS " FROM vm ORDER BY name", "");
	while (db_next(&rows)) {
		struct vm_row row;

		rows_vm_get(&rows, &row);
		if (sim_vm_index(row.name) >= 0)
			check_home(cl, sim_vm_index(row.name), &row);
	}
	check_left_behind(cl->sim);
}
