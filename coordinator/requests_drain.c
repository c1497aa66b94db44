/* Client requests about drains, and the plan that tells what one would do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/plan.h"
#include "coordinator/requests_private.h"

#define PLAN_VMS_MAX 1024

struct forecast {
	Drover__PlanRow *plan;
	struct plan_pending *pending;
	unsigned n_pending;
};

static void plan_one(struct ask *a, struct forecast *f, const struct vm_row *vm)
{
	struct plan_choice choice = {0};
	struct plan_input in = {
		.db = a->db,
		.vm = vm,
		.want_to = "",
		.network = "",
		.mode = "",
		.offline = rows_vm_off(vm),
		.any_slot = true,
		.pending = f->pending,
		.n_pending = f->n_pending,
	};
	char why[ROWS_ERROR];
	Drover__MoveRow *row;

	if (!rows_vm_off(vm) && plan_unmovable(a->db, vm, why, sizeof(why))) {
		msg_push(&f->plan->unmovable, &f->plan->n_unmovable, msg_printf("%s: %s", vm->name, why));
		return;
	}
	if (plan_choose(&in, &choice) < 0) {
		msg_push(&f->plan->unmovable, &f->plan->n_unmovable,
			 msg_printf("%s: no target: %s", vm->name, choice.why));
		plan_choice_fini(&choice);
		return;
	}
	row = MSG_NEW(drover__move_row, Drover__MoveRow);
	msg_set(&row->vm, vm->name);
	msg_set(&row->from, vm->owner);
	msg_set(&row->to, choice.to);
	msg_set(&row->kind, rows_vm_off(vm) ? "offline" : "live");
	msg_set(&row->state, "planned");
	msg_set(&row->mode, choice.mode);
	if (choice.paths != NULL) {
		msg_push_text(&row->networks, &row->n_networks, choice.paths->paths[0]->network);
		row->bytes_total = vm->memory;
	}
	row->predicted_ms = choice.predicted_ms;
	f->plan->predicted_ms += choice.predicted_ms;
	msg_push(&f->plan->moves, &f->plan->n_moves, row);
	snprintf(f->pending[f->n_pending].to, ROWS_NAME, "%s", choice.to);
	f->pending[f->n_pending].memory = rows_vm_off(vm) ? 0 : vm->memory;
	f->n_pending++;
	plan_choice_fini(&choice);
}

/* What a drain would do with each VM that is not on its way already; heap. */
static Drover__PlanRow *plan_drain(struct ask *a, const char *node)
{
	struct forecast f = {.plan = MSG_NEW(drover__plan_row, Drover__PlanRow)};
	struct db_rows rows;

	f.pending = msg_alloc(PLAN_VMS_MAX * sizeof(*f.pending));
	msg_set(&f.plan->node, node);
	db_query(a->db, &rows,
		 "SELECT " VM_COLUMNS
		 " FROM vm WHERE owner = ? AND move = 0 ORDER BY priority DESC, memory, name",
		 "s", node);
	while (f.n_pending < PLAN_VMS_MAX && db_next(&rows)) {
		struct vm_row vm;

		rows_vm_get(&rows, &vm);
		plan_one(a, &f, &vm);
	}
	db_done(&rows);
	free(f.pending);
	return f.plan;
}

static void refuse_unmovable(struct ask *a, const char *node, const Drover__PlanRow *plan)
{
	ask_refuse(a, DR_EREFUSED, "%zu of %zu VMs of %s can't be moved; --best-effort moves the others: %s",
		   plan->n_unmovable, plan->n_unmovable + plan->n_moves, node, plan->unmovable[0]);
	for (size_t i = 0; i < plan->n_unmovable; i++)
		msg_push_text(&a->answer->objects, &a->answer->n_objects, plan->unmovable[i]);
}

void ask_drain_start(struct ask *a, const char *name, bool best_effort, bool shutdown_unmovable)
{
	struct node_row node;
	struct drain_row drain;
	Drover__PlanRow *plan;

	if (!ask_node(a, name, &node))
		return;
	if (rows_drain_of(a->db, name, false, &drain)) {
		ask_unchanged(a, "%s is being drained already (drain %llu)", name,
			      (unsigned long long)drain.id);
		msg_set(&a->answer->object_kind, "drain");
		read_drain_row(a->db, a->view, &drain, a->answer);
		read_moves_of_drain(a->db, a->view, drain.id, a->answer);
		return;
	}
	if (node.paused && !db_exists(a->db, "SELECT 1 FROM vm WHERE owner = ?", "s", name)) {
		ask_unchanged(a, "%s is drained already", name);
		if (rows_drain_of(a->db, name, true, &drain)) {
			msg_set(&a->answer->object_kind, "drain");
			read_drain_row(a->db, a->view, &drain, a->answer);
		}
		return;
	}
	plan = plan_drain(a, name);
	if (plan->n_unmovable > 0 && !best_effort && !shutdown_unmovable) {
		refuse_unmovable(a, name, plan);
		drover__plan_row__free_unpacked(plan, NULL);
		return;
	}
	a->cmd->body_case = DROVER__COMMAND__BODY_DRAIN_START;
	a->cmd->drain_start = MSG_NEW(drover__cmd_drain_start, Drover__CmdDrainStart);
	msg_set(&a->cmd->drain_start->node, name);
	a->cmd->drain_start->best_effort = best_effort;
	a->cmd->drain_start->shutdown_unmovable = shutdown_unmovable;
	for (size_t i = 0; i < plan->n_unmovable; i++)
		msg_push_text(&a->cmd->drain_start->unmovable, &a->cmd->drain_start->n_unmovable,
			      plan->unmovable[i]);
	ask_would(a, "%s would be paused and %zu VMs moved away, %zu left", name, plan->n_moves,
		  plan->n_unmovable);
	if (a->request->dry_run) {
		a->answer = response_error(a->request, 0, "%s", a->would);
		a->answer->changed = true;
		a->answer->plan = plan;
		return;
	}
	drover__plan_row__free_unpacked(plan, NULL);
}

static void ask_plan(struct ask *a, const Drover__DrainVerb *verb)
{
	struct node_row node;
	Drover__PlanRow *plan;

	if (!ask_node(a, verb->node, &node))
		return;
	plan = plan_drain(a, verb->node);
	if (verb->within_ms != 0 && plan->predicted_ms > verb->within_ms)
		ask_refuse(a, DR_EREFUSED, "the drain of %s needs about %llu s: it does not fit into %llu s",
			   verb->node, (unsigned long long)(plan->predicted_ms / 1000),
			   (unsigned long long)(verb->within_ms / 1000));
	else
		ask_unchanged(a, "%zu VMs would be moved, %zu can't be", plan->n_moves, plan->n_unmovable);
	msg_set(&a->answer->object_kind, "plan");
	a->answer->plan = plan;
}

static bool find_drain(struct ask *a, const Drover__DrainVerb *verb, struct drain_row *drain)
{
	struct node_row node;

	if (verb->drain != 0) {
		if (rows_drain(a->db, verb->drain, drain))
			return true;
		ask_refuse(a, DR_ENOENT, "no drain %llu (drover drain list shows them all)",
			   (unsigned long long)verb->drain);
		return false;
	}
	if (!ask_node(a, verb->node, &node))
		return false;
	if (rows_drain_of(a->db, verb->node, true, drain))
		return true;
	ask_refuse(a, DR_ENOENT, "%s has never been drained", verb->node);
	return false;
}

static void ask_state(struct ask *a, const Drover__DrainVerb *verb, const char *to)
{
	struct drain_row drain;

	if (!find_drain(a, verb, &drain))
		return;
	if (strcmp(drain.state, to) == 0) {
		ask_unchanged(a, "drain %llu is %s already", (unsigned long long)drain.id, to);
		return;
	}
	a->cmd->body_case = DROVER__COMMAND__BODY_DRAIN_STATE;
	a->cmd->drain_state = MSG_NEW(drover__cmd_drain_state, Drover__CmdDrainState);
	a->cmd->drain_state->drain = drain.id;
	msg_set(&a->cmd->drain_state->from, drain.state);
	msg_set(&a->cmd->drain_state->to, to);
	ask_would(a, "drain %llu of %s would be %s", (unsigned long long)drain.id, drain.node, to);
}

static void ask_reverse(struct ask *a, const Drover__DrainVerb *verb)
{
	struct drain_row drain;

	if (!find_drain(a, verb, &drain))
		return;
	a->cmd->body_case = DROVER__COMMAND__BODY_NODE_ADMIN;
	a->cmd->node_admin = MSG_NEW(drover__cmd_node_admin, Drover__CmdNodeAdmin);
	msg_set(&a->cmd->node_admin->node, drain.node);
	msg_set(&a->cmd->node_admin->failback, "immediate");
	ask_would(a, "%s would be resumed and its VMs brought home", drain.node);
}

void ask_drain_verb(struct ask *a, const Drover__DrainVerb *verb)
{
	switch (verb->verb) {
	case DROVER__DRAIN_VERB__VERB__START:
		if (verb->plan != 0)
			ask_refuse(a, DR_EUSAGE, "drain start --plan: not supported yet");
		else
			ask_drain_start(a, verb->node, verb->best_effort, verb->shutdown_unmovable);
		return;
	case DROVER__DRAIN_VERB__VERB__PAUSE:
		ask_state(a, verb, "paused");
		return;
	case DROVER__DRAIN_VERB__VERB__CONTINUE:
		ask_state(a, verb, "running");
		return;
	case DROVER__DRAIN_VERB__VERB__CANCEL:
		ask_state(a, verb, "cancelled");
		return;
	case DROVER__DRAIN_VERB__VERB__REVERSE:
		ask_reverse(a, verb);
		return;
	case DROVER__DRAIN_VERB__VERB__PLAN:
		ask_plan(a, verb);
		return;
	case _DROVER__DRAIN_VERB__VERB_IS_INT_SIZE:
		break;
	}
	ask_refuse(a, DR_EUSAGE, "unknown drain verb");
}
