/* Moves: creation, assignment with all limits in one command, cancel. */
#include <stdlib.h>
#include <string.h>

#include "coordinator/apply_private.h"
#include "common/mutant.h"
#include "coordinator/msg.h"

/* The states of a move (DESIGN §7), each with those that may follow. */
static const struct {
	const char *from;
	const char *to[6];
} transitions[] = {
	{"queued", {"assigned", "done", "cancelled", "failed"}}, /* done: an offline move takes one command */
	{"assigned", {"preparing", "copying", "switching", "committed", "cancelling"}},
	{"preparing", {"copying", "switching", "committed", "cancelling"}},
	{"copying", {"switching", "committed", "cancelling"}},
	{"switching", {"copying", "committed", "cancelling"}}, /* copying: the token was taken back */
	{"cancelling", {"queued", "cancelled", "failed"}},
	{"committed", {"done"}},
};

static bool may_follow(const char *from, const char *to)
{
	for (size_t i = 0; i < sizeof(transitions) / sizeof(transitions[0]); i++) {
		if (strcmp(transitions[i].from, from) != 0)
			continue;
		for (size_t k = 0; k < 6 && transitions[i].to[k] != NULL; k++) {
			if (strcmp(transitions[i].to[k], to) == 0)
				return true;
		}
	}
	return false;
}

void move_change(struct apply *a, uint64_t id, const char *to)
{
	struct move_row move;

	if (!rows_move(a->db, id, &move) || strcmp(move.state, to) == 0)
		return;
	if (!may_follow(move.state, to))
		db_fail(a->db, DR_EBUG, "move %llu can't go from %s to %s", (unsigned long long)id,
			move.state, to);
	db_exec(a->db, "UPDATE move SET state = ? WHERE id = ?", "su", to, id);
}

void move_end(struct apply *a, const struct move_row *move, const char *state, uint32_t exit,
	      const char *error)
{
	move_change(a, move->id, state);
	db_exec(a->db, "UPDATE move SET exit = ?, error = ?, ended_utc_us = ? WHERE id = ?", "usuu",
		(uint64_t)exit, error, a->utc_us, move->id);
	db_exec(a->db, "UPDATE vm SET move = 0 WHERE name = ? AND move = ?", "su", move->vm, move->id);
	apply_event(a, "move",
		    (struct about){.vm = move->vm, .move = move->id, .drain = move->drain, .node = move->src},
		    "move of %s from %s%s%s: %s%s%s", move->vm, move->src, move->dst[0] != '\0' ? " to " : "",
		    move->dst, state, error[0] != '\0' ? ": " : "", error);
}

uint64_t move_insert(struct apply *a, const struct vm_row *vm, const Drover__CmdMoveCreate *c,
		     const char *failed_why)
{
	uint64_t id = apply_new_id(a, "move");
	const char *kind = c->kind[0] != '\0' ? c->kind : rows_vm_off(vm) ? "offline" : "live";

	db_exec(a->db,
		"INSERT INTO move (id, vm, drain, kind, mode, network, want_to, priority, memory, src, dst, "
		"state,"
		" attempt, failures, cancelled, predicted_ms, predicted_blackout_ms, created_utc_us, "
		"started_utc_us,"
		" ended_utc_us, exit, error)"
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '', 'queued', 0, 0, 0, 0, 0, ?, 0, 0, 0, '')",
		"usussssuusu", id, vm->name, c->drain, kind, c->mode, c->network, c->to,
		(uint64_t)vm->priority, vm->memory, vm->owner, a->utc_us);
	if (failed_why != NULL) {
		struct move_row move;

		if (rows_move(a->db, id, &move))
			move_end(a, &move, "failed", DR_EREFUSED, failed_why);
		return id;
	}
	db_exec(a->db, "UPDATE vm SET move = ? WHERE name = ?", "us", id, vm->name);
	return id;
}

void apply_move_create(struct apply *a, const Drover__CmdMoveCreate *c)
{
	struct vm_row vm;
	struct node_row node;
	struct drain_row drain;

	if (!apply_need_vm(a, c->vm, &vm) || (c->to[0] != '\0' && !apply_need_node(a, c->to, &node)))
		return;
	if (strcmp(c->to, vm.owner) == 0) {
		apply_message(a, "%s is on %s already", c->vm, c->to);
		return;
	}
	if (vm.move != 0) {
		apply_refuse(a, DR_EREFUSED, "%s is being moved already (move %llu)", c->vm,
			     (unsigned long long)vm.move);
		return;
	}
	if (c->drain != 0 && (!rows_drain(a->db, c->drain, &drain) || strcmp(drain.node, vm.owner) != 0 ||
			      (strcmp(drain.state, "running") != 0 && strcmp(drain.state, "paused") != 0))) {
		apply_refuse(a, DR_EREFUSED, "drain %llu does not run on %s", (unsigned long long)c->drain,
			     vm.owner);
		return;
	}
	apply_object(a, "move", move_insert(a, &vm, c, NULL), c->vm);
	a->out->changed = true;
}

/* ---------------------------------------------------------------- assignment */

static bool assign_target(struct apply *a, const Drover__CmdMoveAssign *c, const struct move_row *move,
			  struct node_row *to)
{
	struct drain_row drain;

	if (!apply_need_node(a, c->to, to))
		return false;
	if (strcmp(c->to, c->from) == 0) {
		apply_refuse(a, DR_EREFUSED, "source and destination are the same");
		return false;
	}
	if (move->want_to[0] != '\0' && strcmp(move->want_to, c->to) != 0) {
		apply_refuse(a, DR_EREFUSED, "move %llu is to %s", (unsigned long long)c->move,
			     move->want_to);
		return false;
	}
	/* A node that is being emptied is never a target: two crossing drains would play ping-pong. */
	if (!rows_node_works(to) || to->paused || rows_drain_of(a->db, c->to, false, &drain)) {
		apply_refuse(a, DR_EREFUSED, "%s is %s", c->to, rows_node_state(a->db, to));
		return false;
	}
	return true;
}

/* SAFETY I4: every limit in the one command, incoming counted like outgoing. */
static bool assign_room(struct apply *a, const Drover__CmdMoveAssign *c, const struct vm_row *vm,
			const struct node_row *to)
{
	uint64_t cluster = rows_limit(a->db, "cluster", "", "cluster_moves");
	uint64_t promised = rows_memory_promised(a->db, c->to);

	if (rows_slots(a->db, c->from) >= rows_limit(a->db, "node", c->from, "max_moves") ||
	    rows_slots(a->db, c->to) >= rows_limit(a->db, "node", c->to, "max_moves")) {
		apply_refuse(a, DR_EREFUSED, "no free move slot on %s or %s", c->from, c->to);
		return false;
	}
	if (cluster != 0 && rows_slots_cluster(a->db) >= cluster) {
		apply_refuse(a, DR_EREFUSED, "the cluster's limit of %llu moves is reached",
			     (unsigned long long)cluster);
		return false;
	}
	if (vm->memory > to->memory_total || promised > to->memory_total - vm->memory) {
		apply_refuse(a, DR_EREFUSED, "%s has no room for %s", c->to, c->vm);
		return false;
	}
	return true;
}

/* A VM that is off: the owner changes in this one command. A failed one stays failed, with its reason. */
static void assign_offline(struct apply *a, const Drover__CmdMoveAssign *c, struct move_row *move)
{
	db_exec(a->db,
		"UPDATE vm SET owner = ?, generation = generation + 1, want = 0, changed = ? "
		"WHERE name = ?",
		"sus", c->to, a->index, c->vm);
	db_exec(a->db,
		"UPDATE move SET kind = 'offline', src = ?, dst = ?, attempt = ?, started_utc_us = ? WHERE "
		"id = ?",
		"ssuuu", c->from, c->to, (uint64_t)c->attempt, a->utc_us, c->move);
	if (rows_move(a->db, c->move, move))
		move_end(a, move, "done", 0, "");
	apply_touch(a, c->from);
	apply_touch(a, c->to);
	a->out->changed = true;
}

static void assign_live(struct apply *a, const Drover__CmdMoveAssign *c, const struct vm_row *vm)
{
	Drover__MoveOrder paths = DROVER__MOVE_ORDER__INIT;
	size_t size;
	uint8_t *bytes;

	paths.n_paths = c->n_paths;
	paths.paths = c->paths;
	bytes = msg_pack(&paths, &size);
	db_exec(a->db,
		"INSERT INTO move_attempt (move, attempt, vm, generation, src, dst, memory, mode, key, "
		"paths, network,"
		" src_phase, dst_phase, src_gone, dst_gone, decision, outcome, proofs, relay_port, "
		"token_request,"
		" token_granted, token_returned, token_held, src_error, dst_error, error_exit, error_fatal, "
		"stats, reason)"
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0, 0, x'', 0, 0, 0, 0, 0, '', '', 0, "
		"0, x'', '')",
		"uusussusbbs", c->move, (uint64_t)c->attempt, c->vm, c->generation, c->from, c->to,
		vm->memory, c->mode, c->key.data, c->key.len, bytes, size, c->paths[0]->network);
	free(bytes);
	move_change(a, c->move, "assigned");
	db_exec(a->db,
		"UPDATE move SET kind = 'live', mode = ?, src = ?, dst = ?, attempt = ?, "
		"memory = ?,"
		" predicted_ms = ?, predicted_blackout_ms = ?, exit = 0, error = '',"
		" started_utc_us = iif(started_utc_us = 0, ?, started_utc_us) WHERE id = ?",
		"sssuuuuuu", c->mode, c->from, c->to, (uint64_t)c->attempt, vm->memory, c->predicted_ms,
		c->predicted_blackout_ms, a->utc_us, c->move);
	apply_event(a, "move", (struct about){.vm = c->vm, .node = c->from, .move = c->move},
		    "%s moves from %s to %s over %s (attempt %u)", c->vm, c->from, c->to,
		    c->paths[0]->network, c->attempt);
	apply_touch(a, c->from);
	apply_touch(a, c->to);
	a->out->changed = true;
}

static bool assign_matches(struct apply *a, const Drover__CmdMoveAssign *c, const struct move_row *move,
			   const struct vm_row *vm)
{
	if (strcmp(move->state, "queued") != 0 || move->attempt + 1 != c->attempt ||
	    strcmp(move->vm, c->vm) != 0 || vm->generation != c->generation ||
	    strcmp(vm->owner, c->from) != 0 || vm->move != c->move) {
		apply_refuse(a, DR_EREFUSED, "move %llu has changed meanwhile", (unsigned long long)c->move);
		return false;
	}
	/* What an earlier attempt left on one of the two hosts must be gone first. */
	if (!DR_MUTANT(assign_over_remains) &&
	    db_exists(a->db,
		      "SELECT 1 FROM move_attempt WHERE vm = ? AND (src_gone = 0 AND src IN (?, ?)"
		      " OR dst_gone = 0 AND dst IN (?, ?))",
		      "sssss", c->vm, c->from, c->to, c->from, c->to)) {
		apply_refuse(a, DR_EREFUSED, "an earlier attempt to move %s is not cleaned up yet", c->vm);
		return false;
	}
	return true;
}

void apply_move_assign(struct apply *a, const Drover__CmdMoveAssign *c)
{
	struct move_row move;
	struct vm_row vm;
	struct node_row to;
	struct node_row from;

	if (!rows_move(a->db, c->move, &move)) {
		apply_refuse(a, DR_ENOENT, "no move %llu", (unsigned long long)c->move);
		return;
	}
	if (!apply_need_vm(a, c->vm, &vm) || !assign_matches(a, c, &move, &vm) ||
	    !assign_target(a, c, &move, &to))
		return;
	if (c->n_paths == 0) {
		if (!rows_vm_off(&vm))
			apply_refuse(a, DR_EREFUSED, "%s is not stopped", c->vm);
		else
			assign_offline(a, c, &move);
		return;
	}
	if (vm.state != DROVER__VM_STATE__VM_RUNNING && vm.state != DROVER__VM_STATE__VM_PAUSED) {
		apply_refuse(a, DR_EREFUSED, "%s does not run", c->vm);
		return;
	}
	if (vm.want == DROVER__VM_WANT__WANT_STOP || vm.want == DROVER__VM_WANT__WANT_KILL) {
		apply_refuse(a, DR_EREFUSED, "%s is being stopped", c->vm);
		return;
	}
	if (c->key.len != 32) {
		apply_refuse(a, DR_EUSAGE, "an attempt needs a key of 32 bytes");
		return;
	}
	if (!apply_need_node(a, c->from, &from))
		return;
	if (!from.session || from.leaving) {
		apply_refuse(a, DR_EREFUSED, "the agent of %s is not connected", c->from);
		return;
	}
	if (assign_room(a, c, &vm, &to))
		assign_live(a, c, &vm);
}

/* ---------------------------------------------------------------- giving up */

void apply_move_fail(struct apply *a, const Drover__CmdMoveFail *c)
{
	struct move_row move;
	struct attempt_row t;
	bool stuck;

	if (!rows_move(a->db, c->move, &move)) {
		apply_refuse(a, DR_ENOENT, "no move %llu", (unsigned long long)c->move);
		return;
	}
	/* Queued; or aborted, with a host that does not answer: its sides keep their slots (SAFETY R21). */
	stuck = strcmp(move.state, "cancelling") == 0 && rows_attempt(a->db, c->move, move.attempt, &t) &&
		t.decision == DROVER__MOVE_DECISION__DECISION_ABORT;
	if (move.attempt != c->attempt || (strcmp(move.state, "queued") != 0 && !stuck)) {
		apply_refuse(a, DR_EREFUSED, "move %llu has changed meanwhile", (unsigned long long)c->move);
		return;
	}
	move_end(a, &move, move.cancelled ? "cancelled" : "failed", c->exit != 0 ? c->exit : DR_EFAILED,
		 c->reason);
	a->out->changed = true;
}

void apply_move_cancel(struct apply *a, const Drover__CmdMoveCancel *c)
{
	struct move_row move;
	struct attempt_row t;

	if (!rows_move(a->db, c->move, &move)) {
		apply_refuse(a, DR_ENOENT, "no move %llu", (unsigned long long)c->move);
		return;
	}
	if (strcmp(move.state, "cancelled") == 0 || (strcmp(move.state, "cancelling") == 0 && move.cancelled))
		return;
	if (rows_move_ended(move.state) || strcmp(move.state, "committed") == 0) {
		apply_refuse(a, DR_EREFUSED, "move %llu is %s", (unsigned long long)c->move, move.state);
		return;
	}
	if (rows_attempt(a->db, c->move, move.attempt, &t) &&
	    t.decision == DROVER__MOVE_DECISION__DECISION_NONE && rows_both_words(&t)) {
		apply_refuse(a, DR_EREFUSED, "move %llu is about to be committed",
			     (unsigned long long)c->move);
		return;
	}
	db_exec(a->db, "UPDATE move SET cancelled = 1 WHERE id = ?", "u", c->move);
	a->out->changed = true;
	move.cancelled = true;
	if (strcmp(move.state, "queued") == 0)
		move_end(a, &move, "cancelled", 0, "cancelled");
	else if (strcmp(move.state, "cancelling") != 0)
		attempt_abort(a, &t, DROVER__CMD_MOVE_ABORT__OUTCOME__CANCEL, 0, "cancelled");
}
