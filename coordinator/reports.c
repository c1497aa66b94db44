#include "coordinator/reports.h"

#include <stdlib.h>
#include <string.h>

#include "coordinator/msg.h"
#include "coordinator/rows.h"

struct reporter {
	struct db *db;
	const struct node_row *node;
	const Drover__AgentReport *report;
	command_emit_fn emit;
	void *data;
};

static ProtobufCBinaryData start_bytes(const struct reporter *r)
{
	return (ProtobufCBinaryData){.len = ROWS_ID, .data = (uint8_t *)(uintptr_t)r->node->start_id};
}

static char *node_name(const struct reporter *r)
{
	return (char *)(uintptr_t)r->node->name;
}

/* ---------------------------------------------------------------- facts */

/* Free memory changes all the time: only a change by more than 1/16 of all is worth a log entry. */
static bool facts_differ(const Drover__HostFacts *now, const Drover__HostFacts *row)
{
	Drover__HostFacts same = *now;
	uint64_t change;

	if (row == NULL)
		return true;
	change = now->memory_free > row->memory_free ? now->memory_free - row->memory_free
						     : row->memory_free - now->memory_free;
	if (change > now->memory_total / 16)
		return true;
	same.memory_free = row->memory_free;
	return !msg_same(&same, row);
}

static void report_facts(const struct reporter *r)
{
	Drover__HostFacts *row;
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdNodeFacts body = DROVER__CMD_NODE_FACTS__INIT;

	if (r->report->facts == NULL)
		return;
	row = rows_facts(r->db, r->node->name);
	if (facts_differ(r->report->facts, row)) {
		body.node = node_name(r);
		body.facts = r->report->facts;
		cmd.body_case = DROVER__COMMAND__BODY_NODE_FACTS;
		cmd.node_facts = &body;
		r->emit(r->data, &cmd);
	}
	drover__host_facts__free_unpacked(row, NULL);
}

/* ---------------------------------------------------------------- VMs */

static void emit_vm(const struct reporter *r, Drover__VmFact *fact)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdVmFact body = DROVER__CMD_VM_FACT__INIT;

	body.node = node_name(r);
	body.start_id = start_bytes(r);
	body.fact = fact;
	cmd.body_case = DROVER__COMMAND__BODY_VM_FACT;
	cmd.vm_fact = &body;
	r->emit(r->data, &cmd);
}

static bool vm_differs(const struct reporter *r, const Drover__VmFact *fact, const struct vm_row *vm)
{
	bool off = fact->state == DROVER__VM_STATE__VM_STOPPED || fact->state == DROVER__VM_STATE__VM_FAILED;
	bool reached =
		off || (fact->state == DROVER__VM_STATE__VM_RUNNING && vm->want == DROVER__VM_WANT__WANT_RUN);

	if (fact->state != vm->state || (reached && vm->want != DROVER__VM_WANT__WANT_NOTHING) ||
	    strncmp(fact->error, vm->error, sizeof(vm->error) - 1 < 500 ? sizeof(vm->error) - 1 : 500) != 0)
		return true;
	return fact->launch != NULL &&
	       db_exists(r->db, "SELECT 1 FROM vm WHERE name = ? AND length(launch) = 0", "s", vm->name);
}

static void report_vm(const struct reporter *r, Drover__VmFact *fact)
{
	struct vm_row vm;

	/* What this host does not own (any more) is not its to speak about (SAFETY R12). */
	if (!rows_vm(r->db, fact->name, &vm) || strcmp(vm.owner, r->node->name) != 0 ||
	    vm.generation != fact->generation)
		return;
	/* A fact that was gathered before the last order (e.g. "stopped", and now a start) has that order's
	 * generation only if it knows it; states that the order changes within one generation do not exist.
	 */
	if (vm_differs(r, fact, &vm))
		emit_vm(r, fact);
}

static bool is_listed(const Drover__AgentReport *report, const char *vm)
{
	for (size_t i = 0; i < report->n_vms; i++) {
		if (strcmp(report->vms[i]->name, vm) == 0)
			return true;
	}
	for (size_t i = 0; i < report->n_moves; i++) {
		if (strcmp(report->moves[i]->vm, vm) == 0)
			return true;
	}
	return false;
}

/* A complete report that does not know a VM that should run here: it is not here. */
static void report_missing(const struct reporter *r)
{
	struct db_rows rows;

	if (!r->report->complete)
		return;
	db_query(r->db, &rows,
		 "SELECT " VM_COLUMNS " FROM vm WHERE owner = ? AND changed <= ? AND move = 0"
		 " AND state IN (0, 3, 4) ORDER BY name", /* UNKNOWN, RUNNING, PAUSED */
		 "su", r->node->name, r->report->orders_index);
	while (db_next(&rows)) {
		Drover__VmFact fact = DROVER__VM_FACT__INIT;
		struct vm_row vm;

		rows_vm_get(&rows, &vm);
		if (is_listed(r->report, vm.name))
			continue;
		fact.name = vm.name;
		fact.generation = vm.generation;
		fact.state = DROVER__VM_STATE__VM_FAILED;
		fact.error = (char *)(uintptr_t) "its QEMU was not found on the host";
		emit_vm(r, &fact);
	}
}

/* ---------------------------------------------------------------- moves */

static bool proofs_differ(const struct reporter *r, const Drover__MoveFact *fact)
{
	Drover__MoveFact only = DROVER__MOVE_FACT__INIT;
	Drover__MoveFact *row;
	bool differ;

	if (fact->n_proofs == 0)
		return false;
	row = rows_proofs(r->db, fact->move, fact->attempt);
	only.n_proofs = fact->n_proofs;
	only.proofs = fact->proofs;
	differ = row == NULL || !msg_same(&only, row);
	drover__move_fact__free_unpacked(row, NULL);
	return differ;
}

static bool has_new_event(const struct reporter *r, const Drover__MoveFact *fact)
{
	for (size_t i = 0; i < fact->n_events; i++) {
		if (!db_exists(r->db, "SELECT 1 FROM event WHERE move = ? AND text = ?", "us", fact->move,
			       fact->events[i]))
			return true;
	}
	return false;
}

static bool move_differs(const struct reporter *r, const Drover__MoveFact *fact, const struct attempt_row *t)
{
	bool src = fact->role == DROVER__MOVE_ROLE__MOVE_SRC;
	const char *error = src ? t->src_error : t->dst_error;

	if (fact->phase > (src ? t->src_phase : t->dst_phase) || (fact->error[0] != '\0' && error[0] == '\0'))
		return true;
	if (src && (fact->token_request > t->token_request ||
		    /* A return counts for the newest grant only. */
		    (fact->token_returned && !t->token_returned && t->token_held &&
		     fact->token_request <= t->token_granted)))
		return true;
	if (!src && fact->relay_port != 0 && fact->relay_port != t->relay_port)
		return true;
	return has_new_event(r, fact) || (src && proofs_differ(r, fact));
}

static void report_move(const struct reporter *r, Drover__MoveFact *fact)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdMoveFact body = DROVER__CMD_MOVE_FACT__INIT;
	struct attempt_row t;
	bool src = fact->role == DROVER__MOVE_ROLE__MOVE_SRC;

	if (!rows_attempt(r->db, fact->move, fact->attempt, &t) ||
	    strcmp(src ? t.src : t.dst, r->node->name) != 0 || (src ? t.src_gone : t.dst_gone) ||
	    !move_differs(r, fact, &t))
		return;
	body.node = node_name(r);
	body.start_id = start_bytes(r);
	body.fact = fact;
	cmd.body_case = DROVER__COMMAND__BODY_MOVE_FACT;
	cmd.move_fact = &body;
	r->emit(r->data, &cmd);
}

/*
 * An attempt in the orders that a complete report does not know, although it has seen them: this host never
 * heard of it before it was decided, or has lost its records. Nothing of it is here.
 */
static void report_unknown_moves(const struct reporter *r)
{
	struct db_rows rows;

	if (!r->report->complete || r->report->orders_index == 0)
		return;
	db_query(r->db, &rows,
		 "SELECT " ATTEMPT_COLUMNS
		 " FROM move_attempt WHERE decision = 2 AND ((src = ? AND src_gone = 0)"
		 " OR (dst = ? AND dst_gone = 0)) ORDER BY move, attempt",
		 "ss", r->node->name, r->node->name);
	while (db_next(&rows)) {
		Drover__MoveFact fact = DROVER__MOVE_FACT__INIT;
		struct attempt_row t;
		bool listed = false;

		rows_attempt_get(&rows, &t);
		for (size_t i = 0; i < r->report->n_moves; i++)
			listed = listed || (r->report->moves[i]->move == t.move &&
					    r->report->moves[i]->attempt == t.attempt);
		/* A source that gave its word must answer for itself. */
		if (listed ||
		    r->report->orders_index <
			    db_get_u64(r->db, "SELECT changed FROM node WHERE name = ?", "s", r->node->name))
			continue;
		fact.move = t.move;
		fact.attempt = t.attempt;
		fact.vm = t.vm;
		fact.generation = t.generation;
		fact.role = strcmp(t.src, r->node->name) == 0 ? DROVER__MOVE_ROLE__MOVE_SRC
							      : DROVER__MOVE_ROLE__MOVE_DST;
		fact.phase = DROVER__MOVE_PHASE__PHASE_GONE;
		if ((fact.role == DROVER__MOVE_ROLE__MOVE_SRC ? t.src_phase : t.dst_phase) ==
		    DROVER__MOVE_PHASE__PHASE_NONE)
			report_move(r, &fact);
	}
}

static void report_leaving(const struct reporter *r)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdNodeLeaving body = DROVER__CMD_NODE_LEAVING__INIT;

	if (!r->report->leaving || r->node->leaving)
		return;
	body.node = node_name(r);
	body.start_id = start_bytes(r);
	cmd.body_case = DROVER__COMMAND__BODY_NODE_LEAVING;
	cmd.node_leaving = &body;
	r->emit(r->data, &cmd);
}

/* SAFETY R18: the whole report at once, when it is complete. */
static void report_audit(const struct reporter *r)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdNodeAudit body = DROVER__CMD_NODE_AUDIT__INIT;

	if (!r->report->complete ||
	    db_exists(r->db, "SELECT 1 FROM node WHERE name = ? AND audited <> 0", "s", r->node->name))
		return;
	body.node = node_name(r);
	body.start_id = start_bytes(r);
	body.vms = r->report->vms;
	body.n_vms = r->report->n_vms;
	body.moves = r->report->moves;
	body.n_moves = r->report->n_moves;
	cmd.body_case = DROVER__COMMAND__BODY_NODE_AUDIT;
	cmd.node_audit = &body;
	r->emit(r->data, &cmd);
}

void reports_commands(struct db *db, const char *node, const uint8_t start_id[16],
		      const Drover__AgentReport *report, command_emit_fn emit, void *data)
{
	Drover__AgentReport *stripped = NULL;
	struct node_row row;
	struct reporter r = {.db = db, .node = &row, .report = report, .emit = emit, .data = data};

	if (!rows_node(db, node, &row) || !row.session || memcmp(row.start_id, start_id, ROWS_ID) != 0)
		return;
	/* What a newer agent says more than this program knows is left out (SAFETY R20). */
	if (!msg_known(report)) {
		stripped = msg_clone(report);
		msg_strip(stripped);
		r.report = stripped;
	}
	report_facts(&r);
	if (rows_audit(db)) {
		report_audit(&r);
		goto out;
	}
	for (size_t i = 0; i < r.report->n_vms; i++)
		report_vm(&r, r.report->vms[i]);
	report_missing(&r);
	for (size_t i = 0; i < r.report->n_moves; i++)
		report_move(&r, r.report->moves[i]);
	report_unknown_moves(&r);
	report_leaving(&r);
out:
	if (stripped != NULL)
		drover__agent_report__free_unpacked(stripped, NULL);
}
