/* Drains: pause the node, queue a move for each of its VMs, end when all of them have ended. */
#include <stdlib.h>
#include <string.h>

#include "coordinator/apply_private.h"
#include "coordinator/msg.h"

#define BATCH 64

/* Why a VM can never be moved, or NULL. */
static const char *unmovable(const Drover__VmSpec *spec)
{
	if (spec == NULL)
		return "its definition can't be read";
	if (spec->no_move)
		return "it is marked as not to be moved (--no-move)";
	if (spec->n_hostdevs > 0)
		return "it uses a device of the host (--hostdev)";
	return NULL;
}

static void queue_vm(struct apply *a, const Drover__CmdDrainStart *c, const struct vm_row *vm, uint64_t drain)
{
	Drover__CmdMoveCreate create = DROVER__CMD_MOVE_CREATE__INIT;
	Drover__VmSpec *spec = rows_spec(a->db, vm->name);
	const char *why = rows_vm_off(vm) ? NULL : unmovable(spec);

	drover__vm_spec__free_unpacked(spec, NULL);
	create.drain = drain;
	if (why != NULL && c->shutdown_unmovable) {
		create.kind = (char *)"offline";
		/* 2: WANT_STOP; what is to be killed stays so. */
		db_exec(a->db, "UPDATE vm SET want = max(want, 2), changed = ? WHERE name = ?", "us",
			a->index, vm->name);
		why = NULL;
	}
	move_insert(a, vm, &create, why);
}

static void queue_all(struct apply *a, const Drover__CmdDrainStart *c, uint64_t drain)
{
	struct vm_row list[BATCH];
	unsigned n;
	char after[ROWS_NAME] = "";
	struct db_rows rows;

	/* Moves away from the node that go on already belong to the drain from now on. */
	db_exec(a->db,
		"UPDATE move SET drain = ? WHERE src = ? AND drain = 0"
		" AND state NOT IN ('done', 'failed', 'cancelled', 'committed')",
		"us", drain, c->node);
	do {
		n = 0;
		db_query(a->db, &rows,
			 "SELECT " VM_COLUMNS
			 " FROM vm WHERE owner = ? AND move = 0 AND name > ? ORDER BY name LIMIT 64",
			 "ss", c->node, after);
		while (n < BATCH && db_next(&rows))
			rows_vm_get(&rows, &list[n++]);
		db_done(&rows);
		for (unsigned i = 0; i < n; i++)
			queue_vm(a, c, &list[i], drain);
		if (n > 0)
			memcpy(after, list[n - 1].name, sizeof(after));
	} while (n == BATCH && db_failed(a->db, NULL) == 0);
}

static void end_drain(struct apply *a, const struct drain_row *drain, const char *state, const char *error)
{
	db_exec(a->db, "UPDATE drain SET state = ?, ended_utc_us = ?, error = ? WHERE id = ?", "susu", state,
		a->utc_us, error, drain->id);
	apply_event(a, "drain", (struct about){.node = drain->node, .drain = drain->id},
		    "drain of %s: %s%s%s", drain->node, state, error[0] != '\0' ? ": " : "", error);
	apply_touch(a, drain->node);
	a->out->changed = true;
}

void apply_drain_start(struct apply *a, const Drover__CmdDrainStart *c)
{
	struct node_row node;
	struct drain_row drain;
	uint64_t id;

	if (!apply_need_node(a, c->node, &node))
		return;
	if (rows_drain_of(a->db, c->node, false, &drain)) {
		apply_message(a, "%s is being drained already (drain %llu)", c->node,
			      (unsigned long long)drain.id);
		apply_object(a, "drain", drain.id, c->node);
		return;
	}
	if (node.paused && !db_exists(a->db, "SELECT 1 FROM vm WHERE owner = ?", "s", c->node)) {
		apply_message(a, "%s is drained already", c->node);
		if (rows_drain_of(a->db, c->node, true, &drain))
			apply_object(a, "drain", drain.id, c->node);
		return;
	}
	id = apply_new_id(a, "drain");
	db_exec(a->db,
		"INSERT INTO drain (id, node, state, best_effort, shutdown_unmovable, plan, was_paused, "
		"started_utc_us,"
		" ended_utc_us, error) VALUES (?, ?, 'running', ?, ?, ?, ?, ?, 0, '')",
		"usiiuiu", id, c->node, c->best_effort, c->shutdown_unmovable, c->plan, node.paused ? 1 : 0,
		a->utc_us);
	db_exec(a->db, "UPDATE node SET paused = 1 WHERE name = ?", "s", c->node);
	apply_event(a, "drain", (struct about){.node = c->node, .drain = id}, "drain of %s started", c->node);
	queue_all(a, c, id);
	if (!db_exists(a->db, "SELECT 1 FROM move WHERE drain = ?", "u", id) && rows_drain(a->db, id, &drain))
		end_drain(a, &drain, "done", "");
	apply_object(a, "drain", id, c->node);
	apply_touch(a, c->node);
	a->out->changed = true;
}

void drain_cancel(struct apply *a, const struct drain_row *drain)
{
	struct move_row list[BATCH];
	unsigned n = 0;
	uint64_t after = 0;
	struct db_rows rows;

	end_drain(a, drain, "cancelled", "");
	if (!drain->was_paused)
		db_exec(a->db, "UPDATE node SET paused = 0 WHERE name = ?", "s", drain->node);
	do {
		n = 0;
		db_query(a->db, &rows,
			 "SELECT " MOVE_COLUMNS " FROM move WHERE drain = ? AND id > ?"
			 " AND state IN ('queued', 'assigned', 'preparing', 'copying', 'cancelling') ORDER "
			 "BY id LIMIT 64",
			 "uu", drain->id, after);
		while (n < BATCH && db_next(&rows))
			rows_move_get(&rows, &list[n++]);
		db_done(&rows);
		for (unsigned i = 0; i < n; i++) {
			struct attempt_row t;

			after = list[i].id;
			db_exec(a->db, "UPDATE move SET cancelled = 1 WHERE id = ?", "u", list[i].id);
			list[i].cancelled = true;
			if (strcmp(list[i].state, "queued") == 0)
				move_end(a, &list[i], "cancelled", 0, "the drain was cancelled");
			else if (strcmp(list[i].state, "cancelling") != 0 &&
				 rows_attempt(a->db, list[i].id, list[i].attempt, &t))
				attempt_abort(a, &t, DROVER__CMD_MOVE_ABORT__OUTCOME__CANCEL, 0,
					      "the drain was cancelled");
		}
	} while (n == BATCH && db_failed(a->db, NULL) == 0);
}

static bool ended_state(const char *state)
{
	return strcmp(state, "running") != 0 && strcmp(state, "paused") != 0;
}

void apply_drain_state(struct apply *a, const Drover__CmdDrainState *c)
{
	struct drain_row drain;

	if (!rows_drain(a->db, c->drain, &drain)) {
		apply_refuse(a, DR_ENOENT, "no drain %llu", (unsigned long long)c->drain);
		return;
	}
	apply_object(a, "drain", drain.id, drain.node);
	if (strcmp(drain.state, c->to) == 0)
		return;
	if (ended_state(drain.state) || (c->from[0] != '\0' && strcmp(drain.state, c->from) != 0)) {
		apply_refuse(a, DR_EREFUSED, "drain %llu is %s", (unsigned long long)c->drain, drain.state);
		return;
	}
	if (strcmp(c->to, "cancelled") == 0) {
		drain_cancel(a, &drain);
	} else if (strcmp(c->to, "done") == 0 || strcmp(c->to, "failed") == 0) {
		if (db_exists(a->db,
			      "SELECT 1 FROM move WHERE drain = ?"
			      " AND state NOT IN ('done', 'failed', 'cancelled', 'committed')",
			      "u", c->drain))
			apply_refuse(a, DR_EREFUSED, "drain %llu has moves that have not ended",
				     (unsigned long long)c->drain);
		else
			end_drain(a, &drain, c->to, c->error);
	} else if (strcmp(c->to, "paused") == 0 || strcmp(c->to, "running") == 0) {
		db_exec(a->db, "UPDATE drain SET state = ? WHERE id = ?", "su", c->to, c->drain);
		apply_event(a, "drain", (struct about){.node = drain.node, .drain = drain.id},
			    "drain of %s: %s", drain.node, c->to);
		a->out->changed = true;
	} else {
		apply_refuse(a, DR_EUSAGE, "unknown drain state '%.16s'", c->to);
	}
}
