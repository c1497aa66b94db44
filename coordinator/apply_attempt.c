/*
 * Attempts: the agents' words, the token, and the one decision (SAFETY R1, R3, R5, R21).
 *
 *     undecided --commit (both words)--> COMMIT --both sides gone--> move done
 *         `------abort-----------------> ABORT  --source gone------> move queued | failed | cancelled
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mutant.h"
#include "coordinator/apply_private.h"
#include "coordinator/msg.h"

#define FACT_EVENTS_MAX 16

static void touch_both(struct apply *a, const struct attempt_row *t)
{
	apply_touch(a, t->src);
	apply_touch(a, t->dst);
}

/* Whether the row's move is at this attempt. */
static bool is_current(const struct move_row *move, const struct attempt_row *t)
{
	return move->attempt == t->attempt;
}

void attempt_commit(struct apply *a, const struct attempt_row *t)
{
	db_exec(a->db, "UPDATE move_attempt SET decision = 1, token_held = 0 WHERE move = ? AND attempt = ?",
		"uu", t->move, (uint64_t)t->attempt);
	/* SAFETY I2: the one change of owner. 3: VM_RUNNING. */
	db_exec(a->db,
		"UPDATE vm SET owner = ?, generation = generation + 1, state = 3, want = 0, error = '', "
		"changed = ?"
		" WHERE name = ?",
		"sus", t->dst, a->index, t->vm);
	if (DR_MUTANT(slot_freed_twice))
		db_exec(a->db, "UPDATE move_attempt SET src_gone = 1 WHERE move = ? AND attempt = ?", "uu",
			t->move, (uint64_t)t->attempt);
	move_change(a, t->move, "committed");
	touch_both(a, t);
	apply_event(a, "move", (struct about){.node = t->dst, .vm = t->vm, .move = t->move},
		    "%s now belongs to %s", t->vm, t->dst);
}

void attempt_abort(struct apply *a, const struct attempt_row *t, Drover__CmdMoveAbort__Outcome outcome,
		   uint32_t exit, const char *reason)
{
	db_exec(a->db,
		"UPDATE move_attempt SET decision = 2, outcome = ?, reason = ?, token_held = 0"
		" WHERE move = ? AND attempt = ?",
		"isuu", (int)outcome, reason, t->move, (uint64_t)t->attempt);
	move_change(a, t->move, "cancelling");
	db_exec(a->db,
		"UPDATE move SET failures = failures + ?, exit = ?, error = ? WHERE id "
		"= ?",
		"iusu",
		outcome == DROVER__CMD_MOVE_ABORT__OUTCOME__RETRY ||
			outcome == DROVER__CMD_MOVE_ABORT__OUTCOME__FAIL,
		(uint64_t)exit, reason, t->move);
	/* Reports that do not know of the abort yet prove nothing about its remains. */
	db_exec(a->db, "UPDATE node SET changed = ? WHERE name IN (?, ?)", "uss", a->index, t->src, t->dst);
	if (DR_MUTANT(slot_by_row))
		db_exec(a->db,
			"UPDATE move_attempt SET src_gone = 1, dst_gone = 1 WHERE move = ? AND attempt = ?",
			"uu", t->move, (uint64_t)t->attempt);
	touch_both(a, t);
	apply_event(a, "move", (struct about){.node = t->src, .vm = t->vm, .move = t->move},
		    "attempt %u of %s to %s is given up: %s", t->attempt, t->vm, t->dst, reason);
	attempt_settle(a, t->move, t->attempt);
}

static void settle_commit(struct apply *a, const struct move_row *move, const struct attempt_row *t)
{
	/* The VM may be moved again once it runs at its new home; this row waits for the clean-up. */
	if (t->dst_gone || t->dst_phase >= DROVER__MOVE_PHASE__DST_RUNNING)
		db_exec(a->db, "UPDATE vm SET move = 0 WHERE name = ? AND move = ?", "su", t->vm, move->id);
	if (t->src_gone && t->dst_gone && strcmp(move->state, "committed") == 0)
		move_end(a, move, "done", 0, "");
}

static void settle_abort(struct apply *a, const struct move_row *move, const struct attempt_row *t)
{
	if (!t->src_gone)
		return; /* its VM is still in the move's hands there */
	if (move->cancelled || t->outcome == DROVER__CMD_MOVE_ABORT__OUTCOME__CANCEL) {
		move_end(a, move, "cancelled", 0, move->error);
		return;
	}
	switch (t->outcome) {
	case DROVER__CMD_MOVE_ABORT__OUTCOME__RETRY:
	case DROVER__CMD_MOVE_ABORT__OUTCOME__REQUEUE:
		move_change(a, move->id, "queued");
		db_exec(a->db, "UPDATE move SET dst = '' WHERE id = ?", "u", move->id);
		return;
	case DROVER__CMD_MOVE_ABORT__OUTCOME__FAIL:
		move_end(a, move, "failed", move->exit != 0 ? move->exit : DR_EFAILED, move->error);
		return;
	case DROVER__CMD_MOVE_ABORT__OUTCOME__CANCEL:
	case _DROVER__CMD_MOVE_ABORT__OUTCOME_IS_INT_SIZE:
		return;
	}
}

void attempt_settle(struct apply *a, uint64_t move_id, uint32_t attempt)
{
	struct move_row move;
	struct attempt_row t;

	if (!rows_move(a->db, move_id, &move) || !rows_attempt(a->db, move_id, attempt, &t) ||
	    !is_current(&move, &t))
		return;
	switch (t.decision) {
	case DROVER__MOVE_DECISION__DECISION_NONE:
	case _DROVER__MOVE_DECISION_IS_INT_SIZE:
		return;
	case DROVER__MOVE_DECISION__DECISION_COMMIT:
		settle_commit(a, &move, &t);
		return;
	case DROVER__MOVE_DECISION__DECISION_ABORT:
		if (strcmp(move.state, "cancelling") == 0)
			settle_abort(a, &move, &t);
		return;
	}
}

/* ---------------------------------------------------------------- hosts that are dead for certain */

static void decide_for_dead(struct apply *a, const struct attempt_row *t, const char *node, const char *why)
{
	char reason[ROWS_ERROR];
	bool src_died = strcmp(t->src, node) == 0;

	if (t->decision == DROVER__MOVE_DECISION__DECISION_NONE) {
		snprintf(reason, sizeof(reason), "%s: %s", node, why);
		/* With the destination dead, the source still holds the whole VM: abort even with both words.
		 */
		if (src_died && rows_both_words(t))
			attempt_commit(a, t);
		else
			attempt_abort(a, t, DROVER__CMD_MOVE_ABORT__OUTCOME__RETRY, DR_EFAILED, reason);
	}
	if (src_died)
		db_exec(a->db,
			"UPDATE move_attempt SET src_gone = 1, src_phase = 40 WHERE move = ? AND attempt = ?",
			"uu", t->move, (uint64_t)t->attempt);
	else
		db_exec(a->db,
			"UPDATE move_attempt SET dst_gone = 1, dst_phase = 40 WHERE move = ? AND attempt = ?",
			"uu", t->move, (uint64_t)t->attempt);
	touch_both(a, t);
	attempt_settle(a, t->move, t->attempt);
}

void attempt_host_died(struct apply *a, const char *node, const char *why)
{
	struct attempt_row list[32];
	unsigned n;
	struct db_rows rows;

	db_exec(a->db,
		"UPDATE node SET incarnation = incarnation + 1, start_id = x'', coordinator = '', changed = ?"
		" WHERE name = ?",
		"us", a->index, node);
	do {
		n = 0;
		db_query(a->db, &rows,
			 "SELECT " ATTEMPT_COLUMNS " FROM move_attempt WHERE (src = ? AND src_gone = 0)"
			 " OR (dst = ? AND dst_gone = 0) ORDER BY move, attempt LIMIT 32",
			 "ss", node, node);
		while (n < 32 && db_next(&rows))
			rows_attempt_get(&rows, &list[n++]);
		db_done(&rows);
		for (unsigned i = 0; i < n; i++)
			decide_for_dead(a, &list[i], node, why);
	} while (n == 32 && db_failed(a->db, NULL) == 0);
	/* 1, 5, 6: STOPPED, SAVED, FAILED stay what they are. */
	if (db_exec(a->db,
		    "UPDATE vm SET state = 1, want = 0, error = ?, changed = ? WHERE owner = ?"
		    " AND state NOT IN (1, 5, 6)",
		    "sus", why, a->index, node) > 0)
		apply_event(a, "vm", (struct about){.node = node}, "the VMs of %s are stopped: %s", node,
			    why);
	apply_touch(a, node);
	a->out->changed = true;
}

/* ---------------------------------------------------------------- the agents' words */

static bool fact_allowed(struct apply *a, const Drover__MoveFact *f, const struct attempt_row *t)
{
	bool src = f->role == DROVER__MOVE_ROLE__MOVE_SRC;
	unsigned now = src ? t->src_phase : t->dst_phase;
	unsigned least = src ? DROVER__MOVE_PHASE__PHASE_NONE : DROVER__MOVE_PHASE__DST_ASSIGNED;
	unsigned most = src ? DROVER__MOVE_PHASE__SRC_ABORTING : DROVER__MOVE_PHASE__DST_ABORTING;

	if (f->phase != DROVER__MOVE_PHASE__PHASE_GONE && f->phase != DROVER__MOVE_PHASE__PHASE_NONE &&
	    (f->phase < least || f->phase > most)) {
		apply_refuse(a, DR_EUSAGE, "phase %d is not one of that side", (int)f->phase);
		return false;
	}
	if (f->phase < now) {
		apply_refuse(a, DR_EREFUSED, "an older phase");
		return false;
	}
	/* The source gave its word: only a committed decision lets it go on (SAFETY R3, R4). */
	if (src && now == DROVER__MOVE_PHASE__SRC_RELEASED && f->phase > now &&
	    t->decision == DROVER__MOVE_DECISION__DECISION_NONE) {
		apply_refuse(a, DR_EREFUSED, "the source went on after its word without a decision");
		return false;
	}
	if (!src && t->decision != DROVER__MOVE_DECISION__DECISION_COMMIT &&
	    (f->phase == DROVER__MOVE_PHASE__DST_CONTINUING || f->phase == DROVER__MOVE_PHASE__DST_RUNNING)) {
		apply_refuse(a, DR_EREFUSED, "the destination went on without a commit");
		return false;
	}
	return true;
}

static void fact_events(struct apply *a, const Drover__CmdMoveFact *c)
{
	const Drover__MoveFact *f = c->fact;

	for (size_t i = 0; i < f->n_events && i < FACT_EVENTS_MAX; i++) {
		/* The same report may be proposed twice. */
		if (db_exists(a->db, "SELECT 1 FROM event WHERE move = ? AND text = ?", "us", f->move,
			      f->events[i]))
			continue;
		apply_event(a, "move", (struct about){.node = c->node, .vm = f->vm, .move = f->move}, "%s",
			    f->events[i]);
	}
}

static void fact_source(struct apply *a, const Drover__MoveFact *f, const struct attempt_row *t)
{
	bool gone = f->phase == DROVER__MOVE_PHASE__PHASE_GONE;

	db_exec(a->db,
		"UPDATE move_attempt SET src_phase = ?, src_gone = ?, token_request = max(token_request, ?),"
		" token_returned = ?, src_error = iif(src_error = '', substr(?, 1, 500), src_error),"
		" error_exit = iif(src_error = '' AND dst_error = '', ?, error_exit),"
		" error_fatal = max(error_fatal, ?) WHERE move = ? AND attempt = ?",
		"iiuisuiuu", (int)f->phase, gone || t->src_gone, (uint64_t)f->token_request,
		f->token_returned, f->error, (uint64_t)f->error_exit, f->error_fatal, f->move,
		(uint64_t)f->attempt);
	if (f->n_proofs > 0) {
		Drover__MoveFact only = DROVER__MOVE_FACT__INIT;
		size_t size;
		uint8_t *bytes;

		only.n_proofs = f->n_proofs;
		only.proofs = f->proofs;
		bytes = msg_pack(&only, &size);
		db_exec(a->db, "UPDATE move_attempt SET proofs = ? WHERE move = ? AND attempt = ?", "buu",
			bytes, size, f->move, (uint64_t)f->attempt);
		free(bytes);
	}
	if (f->stats != NULL) {
		size_t size;
		uint8_t *bytes = msg_pack(f->stats, &size);

		db_exec(a->db,
			"UPDATE move_attempt SET stats = ?, network = iif(? = '', network, ?)"
			" WHERE move = ? AND attempt = ?",
			"bssuu", bytes, size, f->stats->n_networks > 0 ? f->stats->networks[0] : "",
			f->stats->n_networks > 0 ? f->stats->networks[0] : "", f->move, (uint64_t)f->attempt);
		free(bytes);
	}
}

static void fact_destination(struct apply *a, const Drover__MoveFact *f, const struct attempt_row *t)
{
	bool gone = f->phase == DROVER__MOVE_PHASE__PHASE_GONE;

	db_exec(a->db,
		"UPDATE move_attempt SET dst_phase = ?, dst_gone = ?, relay_port = iif(? = 0, relay_port, ?),"
		" dst_error = iif(dst_error = '', substr(?, 1, 500), dst_error),"
		" error_exit = iif(src_error = '' AND dst_error = '', ?, error_exit),"
		" error_fatal = max(error_fatal, ?) WHERE move = ? AND attempt = ?",
		"iiuusuiuu", (int)f->phase, gone || t->dst_gone, (uint64_t)f->relay_port,
		(uint64_t)f->relay_port, f->error, (uint64_t)f->error_exit, f->error_fatal, f->move,
		(uint64_t)f->attempt);
}

/* assigned -> preparing -> copying -> switching, as the phases tell. Small VMs hold the token before they
 * copy. */
static void advance(struct apply *a, uint64_t move_id, uint32_t attempt)
{
	struct move_row move;
	struct attempt_row t;
	bool copying;
	bool preparing;
	bool switching;

	if (!rows_move(a->db, move_id, &move) || !rows_attempt(a->db, move_id, attempt, &t) ||
	    !is_current(&move, &t) || t.decision != DROVER__MOVE_DECISION__DECISION_NONE)
		return;
	copying = t.src_phase >= DROVER__MOVE_PHASE__SRC_COPYING &&
		  t.src_phase <= DROVER__MOVE_PHASE__SRC_RELEASED;
	preparing = t.src_phase >= DROVER__MOVE_PHASE__SRC_READY ||
		    t.dst_phase >= DROVER__MOVE_PHASE__DST_PREPARING;
	switching = copying && t.token_held && t.src_phase >= DROVER__MOVE_PHASE__SRC_SWITCHING;
	if (switching)
		move_change(a, move_id, "switching");
	else if (copying && (strcmp(move.state, "assigned") == 0 || strcmp(move.state, "preparing") == 0))
		move_change(a, move_id, "copying");
	else if (preparing && strcmp(move.state, "assigned") == 0)
		move_change(a, move_id, "preparing");
}

void apply_move_fact(struct apply *a, const Drover__CmdMoveFact *c)
{
	const Drover__MoveFact *f = c->fact;
	struct node_row node;
	struct attempt_row t;
	bool src;

	if (f == NULL || !apply_need_node(a, c->node, &node))
		return;
	if (!node.session || !msg_same_bytes(&c->start_id, node.start_id, ROWS_ID)) {
		apply_refuse(a, DR_EREFUSED, "not the word of the present agent of %s", c->node);
		return;
	}
	if (!rows_attempt(a->db, f->move, f->attempt, &t)) {
		apply_refuse(a, DR_ENOENT, "no attempt %u of move %llu", f->attempt,
			     (unsigned long long)f->move);
		return;
	}
	src = f->role == DROVER__MOVE_ROLE__MOVE_SRC;
	if (strcmp(c->node, src ? t.src : t.dst) != 0 || strcmp(f->vm, t.vm) != 0 ||
	    f->generation != t.generation) {
		apply_refuse(a, DR_EREFUSED, "not a side of that attempt"); /* R5 */
		return;
	}
	if (f->relay_port > UINT16_MAX || f->error_exit > UINT8_MAX) {
		apply_refuse(a, DR_EUSAGE, "relay port %u or exit status %u is out of range", f->relay_port,
			     f->error_exit);
		return;
	}
	if (!fact_allowed(a, f, &t))
		return;
	fact_events(a, c);
	if (src)
		fact_source(a, f, &t);
	else
		fact_destination(a, f, &t);
	advance(a, f->move, f->attempt);
	attempt_settle(a, f->move, f->attempt);
	touch_both(a, &t);
	a->out->changed = true;
}

/* ---------------------------------------------------------------- token and decisions */

/* The attempt if it is the move's present one and undecided; else a refusal. */
static bool open_attempt(struct apply *a, uint64_t id, uint32_t attempt, struct move_row *move,
			 struct attempt_row *t)
{
	if (!rows_move(a->db, id, move) || !rows_attempt(a->db, id, attempt, t)) {
		apply_refuse(a, DR_ENOENT, "no attempt %u of move %llu", attempt, (unsigned long long)id);
		return false;
	}
	if (!is_current(move, t) || t->decision != DROVER__MOVE_DECISION__DECISION_NONE) {
		apply_refuse(a, DR_EREFUSED, "attempt %u of move %llu is decided already", attempt,
			     (unsigned long long)id);
		return false;
	}
	return true;
}

/* One holder per link: two moves share one when they use the same network and a host of it on the same side.
 */
static bool link_is_free(struct apply *a, const struct attempt_row *t)
{
	return DR_MUTANT(two_tokens) ||
	       !db_exists(a->db,
			  "SELECT 1 FROM move_attempt WHERE token_held = 1 AND decision = 0 AND network = ?"
			  " AND (src_gone = 0 AND src = ? OR dst_gone = 0 AND dst = ?)"
			  " AND NOT (move = ? AND attempt = ?)",
			  "sssuu", t->network, t->src, t->dst, t->move, (uint64_t)t->attempt);
}

void apply_move_switch(struct apply *a, const Drover__CmdMoveSwitch *c)
{
	struct move_row move;
	struct attempt_row t;

	if (!open_attempt(a, c->move, c->attempt, &move, &t))
		return;
	if (c->token == 0) {
		if (!t.token_held)
			return;
		db_exec(a->db, "UPDATE move_attempt SET token_held = 0 WHERE move = ? AND attempt = ?", "uu",
			c->move, (uint64_t)c->attempt);
		if (strcmp(move.state, "switching") == 0)
			move_change(a, c->move, "copying");
		apply_event(a, "move", (struct about){.node = t.src, .vm = t.vm, .move = t.move},
			    "%s did not converge in its time at the switch-over; it goes on copying", t.vm);
		a->out->changed = true;
		return;
	}
	if (t.src_phase < DROVER__MOVE_PHASE__SRC_CONNECTING ||
	    t.src_phase > DROVER__MOVE_PHASE__SRC_COMPLETING) {
		apply_refuse(a, DR_EREFUSED, "move %llu is %s", (unsigned long long)c->move, move.state);
		return;
	}
	if (c->token > t.token_request || c->token <= t.token_granted) {
		apply_refuse(a, DR_EREFUSED, "token %u was not asked for or is granted already", c->token);
		return;
	}
	if (!link_is_free(a, &t)) {
		apply_refuse(a, DR_EREFUSED, "another move is switching over on network %s", t.network);
		return;
	}
	db_exec(a->db,
		"UPDATE move_attempt SET token_granted = ?, token_held = 1, token_returned = 0"
		" WHERE move = ? AND attempt = ?",
		"uuu", (uint64_t)c->token, c->move, (uint64_t)c->attempt);
	advance(a, c->move, c->attempt);
	apply_touch(a, t.src);
	a->out->changed = true;
}

void apply_move_commit(struct apply *a, const Drover__CmdMoveCommit *c)
{
	struct move_row move;
	struct attempt_row t;
	struct vm_row vm;

	if (!open_attempt(a, c->move, c->attempt, &move, &t) || !apply_need_vm(a, c->vm, &vm))
		return;
	if (strcmp(t.vm, c->vm) != 0 || t.generation != c->generation || strcmp(t.src, c->from) != 0 ||
	    strcmp(t.dst, c->to) != 0 || strcmp(vm.owner, c->from) != 0 || vm.generation != c->generation) {
		apply_refuse(a, DR_EREFUSED, "the commit does not match the rows"); /* R5 */
		return;
	}
	if (!rows_both_words(&t)) {
		apply_refuse(a, DR_EREFUSED, "not both words are there"); /* R1 */
		return;
	}
	attempt_commit(a, &t);
	attempt_settle(a, c->move, c->attempt);
	a->out->changed = true;
}

void apply_move_abort(struct apply *a, const Drover__CmdMoveAbort *c)
{
	struct move_row move;
	struct attempt_row t;

	if (!open_attempt(a, c->move, c->attempt, &move, &t))
		return;
	if (t.generation != c->generation) {
		apply_refuse(a, DR_EREFUSED, "the abort does not match the rows");
		return;
	}
	attempt_abort(a, &t, c->outcome, c->exit, c->reason);
	a->out->changed = true;
}
