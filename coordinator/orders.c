#include "coordinator/orders.h"

#include <string.h>

#include "common/mutant.h"
#include "coordinator/msg.h"
#include "coordinator/rows.h"

static Drover__VmWant order_want(const struct vm_row *vm)
{
	/* A VM that is off stays off until a start gives it a new generation (SAFETY R12). */
	if (rows_vm_off(vm))
		return DROVER__VM_WANT__WANT_NOTHING;
	return vm->want;
}

static void add_vms(struct db *db, Drover__AgentOrders *orders, const char *node)
{
	struct db_rows rows;

	db_query(db, &rows, "SELECT " VM_COLUMNS " FROM vm WHERE owner = ? ORDER BY name", "s", node);
	while (db_next(&rows)) {
		Drover__VmOrder *order = MSG_NEW(drover__vm_order, Drover__VmOrder);
		struct vm_row vm;

		rows_vm_get(&rows, &vm);
		msg_set(&order->name, vm.name);
		order->generation = vm.generation;
		order->want = order_want(&vm);
		order->spec = rows_spec(db, vm.name);
		order->launch = rows_launch(db, vm.name);
		msg_push(&orders->vms, &orders->n_vms, order);
	}
}

/* What only the side that prepares needs; not sent once it is decided. */
static void add_material(struct db *db, Drover__MoveOrder *order, const struct attempt_row *t)
{
	Drover__MoveOrder *paths = rows_paths(db, t->move, t->attempt);
	Drover__MoveFact *proofs = rows_proofs(db, t->move, t->attempt);

	if (paths != NULL) {
		order->n_paths = paths->n_paths;
		order->paths = paths->paths;
		paths->n_paths = 0;
		paths->paths = NULL;
		drover__move_order__free_unpacked(paths, NULL);
	}
	if (proofs != NULL) {
		order->n_proofs = proofs->n_proofs;
		order->proofs = proofs->proofs;
		proofs->n_proofs = 0;
		proofs->proofs = NULL;
		drover__move_fact__free_unpacked(proofs, NULL);
	}
	order->spec = rows_spec(db, t->vm);
	order->launch = rows_launch(db, t->vm);
}

static void add_key(struct db *db, Drover__MoveOrder *order, const struct attempt_row *t)
{
	struct db_rows rows;

	db_query(db, &rows, "SELECT key FROM move_attempt WHERE move = ? AND attempt = ?", "uu", t->move,
		 (uint64_t)t->attempt);
	if (db_next(&rows)) {
		size_t size;
		const void *bytes = db_blob(&rows, 0, &size);

		msg_set_bytes(&order->key, bytes, size);
	}
	db_done(&rows);
}

static Drover__MoveOrder *move_order(struct db *db, const struct attempt_row *t, const char *node)
{
	Drover__MoveOrder *order = MSG_NEW(drover__move_order, Drover__MoveOrder);
	bool src = strcmp(t->src, node) == 0;

	order->move = t->move;
	order->attempt = t->attempt;
	msg_set(&order->vm, t->vm);
	order->generation = t->generation;
	order->role = src ? DROVER__MOVE_ROLE__MOVE_SRC : DROVER__MOVE_ROLE__MOVE_DST;
	order->decision = t->decision;
	if (DR_MUTANT(abort_waits_for_dst) && t->decision == DROVER__MOVE_DECISION__DECISION_ABORT &&
	    !t->dst_gone && src)
		order->decision = DROVER__MOVE_DECISION__DECISION_NONE;
	msg_set(&order->kind, "live");
	msg_set(&order->mode, t->mode);
	msg_set(&order->src_node, t->src);
	msg_set(&order->dst_node, t->dst);
	order->src_memory = t->memory;
	order->src_ready = t->src_phase >= DROVER__MOVE_PHASE__SRC_READY;
	if (t->dst_phase >= DROVER__MOVE_PHASE__DST_PREPARED)
		order->dst_port = t->relay_port;
	order->token_granted = t->token_granted;
	add_key(db, order, t);
	add_material(db, order, t);
	order->blackout_ms = order->spec != NULL ? order->spec->blackout_ms : 0;
	if (order->blackout_ms == 0)
		order->blackout_ms = rows_limit(db, "cluster", "", "blackout_ms");
	return order;
}

static void add_moves(struct db *db, Drover__AgentOrders *orders, const char *node)
{
	struct db_rows rows;

	/* An attempt is in the orders of a side until that side has said that its part is gone (SAFETY R21).
	 */
	db_query(db, &rows,
		 "SELECT " ATTEMPT_COLUMNS " FROM move_attempt WHERE (src = ? AND src_gone = 0)"
		 " OR (dst = ? AND dst_gone = 0) ORDER BY move, attempt",
		 "ss", node, node);
	while (db_next(&rows)) {
		struct attempt_row t;

		rows_attempt_get(&rows, &t);
		msg_push(&orders->moves, &orders->n_moves, move_order(db, &t, node));
	}
}

static void add_budgets(struct db *db, Drover__AgentOrders *orders, const char *node)
{
	struct db_rows rows;

	orders->bandwidth = rows_limit(db, "node", node, "bandwidth");
	db_query(db, &rows,
		 "SELECT name, value FROM setting WHERE scope = 'network' AND key = 'bandwidth'"
		 " ORDER BY name",
		 "");
	while (db_next(&rows)) {
		Drover__NetworkBudget *budget = MSG_NEW(drover__network_budget, Drover__NetworkBudget);
		char name[ROWS_NAME];

		db_copy_text(&rows, 0, name, sizeof(name));
		msg_set(&budget->network, name);
		budget->bandwidth = rows_limit(db, "network", name, "bandwidth");
		msg_push(&orders->budgets, &orders->n_budgets, budget);
	}
}

Drover__AgentOrders *orders_build(struct db *db, const char *node, uint64_t term, uint64_t index,
				  const uint8_t start_id[16])
{
	Drover__AgentOrders *orders;
	struct node_row row;
	uint8_t uuid[ROWS_ID];

	if (!rows_node(db, node, &row) || !row.session || memcmp(row.start_id, start_id, ROWS_ID) != 0)
		return NULL;
	if (rows_node_barred(&row) || rows_audit(db))
		return NULL; /* SAFETY R11; R18: the state may be older than what runs */
	orders = MSG_NEW(drover__agent_orders, Drover__AgentOrders);
	orders->term = term;
	orders->index = index;
	orders->incarnation = row.incarnation;
	orders->cluster_incarnation = rows_cluster_incarnation(db);
	if (rows_cluster_uuid(db, uuid))
		msg_set_bytes(&orders->cluster_uuid, uuid, sizeof(uuid));
	msg_set_bytes(&orders->start_id, start_id, ROWS_ID);
	orders->leaving_committed = row.leaving;
	add_vms(db, orders, node);
	add_moves(db, orders, node);
	add_budgets(db, orders, node);
	if (db_failed(db, NULL) < 0) {
		drover__agent_orders__free_unpacked(orders, NULL);
		return NULL;
	}
	return orders;
}
