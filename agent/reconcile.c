#include "agent/reconcile.h"

#include <stdlib.h>
#include <string.h>

#include "agent/move_real.h"
#include "agent/session.h"
#include "agent/stray.h"
#include "agent/vm.h"
#include "common/cleanup.h"
#include "common/log.h"

void agent_dirty(struct agent *a)
{
	session_dirty(a->session);
}

bool reconcile_cluster(struct agent *a, const ProtobufCBinaryData *uuid)
{
	if (uuid->len != sizeof(a->floors.cluster_uuid))
		return true; /* not initialised yet: nothing is ordered either */
	if (a->floors.have_cluster)
		return memcmp(a->floors.cluster_uuid, uuid->data, uuid->len) == 0;
	memcpy(a->floors.cluster_uuid, uuid->data, uuid->len);
	a->floors.have_cluster = true;
	if (store_floors_put(a->store, &a->floors) != 0) {
		a->floors.have_cluster = false;
		return false;
	}
	return true;
}

bool reconcile_incarnation(struct agent *a, uint64_t incarnation)
{
	struct store_floors f = a->floors;

	if (incarnation <= f.cluster_incarnation)
		return incarnation == f.cluster_incarnation ||
		       (incarnation == 0 && f.cluster_incarnation <= 1);
	/* Terms and node incarnations are counted anew: a restored state may be behind them. */
	f.cluster_incarnation = incarnation;
	if (a->floors.cluster_incarnation != 0) {
		f.term = 0;
		f.incarnation = 0;
	}
	if (store_floors_put(a->store, &f) != 0)
		return false;
	if (a->floors.cluster_incarnation != 0)
		a->lease.term = 0;
	a->floors = f;
	return true;
}

void reconcile_forget_orders(struct agent *a)
{
	for (size_t i = 0; a->orders != NULL && i < a->orders->n_vms; i++)
		drover__vm_order__free_unpacked(a->orders->vms[i], NULL);
	if (a->orders != NULL)
		a->orders->n_vms = 0; /* budgets stay */
	a->floor_index = 0;
}

/* ------------------------------------------------ what is refused */

/* NULL, or why these orders are not obeyed. */
static const char *why_refused(const struct agent *a, const Drover__AgentOrders *o)
{
	if (o->start_id.len != sizeof(a->start_id) ||
	    memcmp(o->start_id.data, a->start_id, sizeof(a->start_id)) != 0)
		return "for another start of this agent";
	if (!a->floors.have_cluster || o->cluster_uuid.len != sizeof(a->floors.cluster_uuid) ||
	    memcmp(o->cluster_uuid.data, a->floors.cluster_uuid, o->cluster_uuid.len) != 0)
		return "of another cluster";
	if (o->cluster_incarnation != a->floors.cluster_incarnation &&
	    (o->cluster_incarnation != 0 || a->floors.cluster_incarnation > 1))
		return "of another incarnation of the cluster";
	if (o->incarnation < a->floors.incarnation)
		return "of an older incarnation";
	if (o->incarnation > a->floors.incarnation)
		return NULL;
	if (o->term < a->floors.term)
		return "of an older term";
	if (o->index < a->floor_index)
		return "older than those that were obeyed";
	return NULL;
}

static int raise_floors(struct agent *a, const Drover__AgentOrders *o)
{
	struct store_floors f = a->floors;
	int rc;

	if (f.incarnation == o->incarnation && f.term >= o->term)
		return 0;
	f.incarnation = o->incarnation;
	f.term = o->term;
	rc = store_floors_put(a->store, &f);
	if (rc == 0)
		a->floors = f;
	return rc;
}

static bool vm_order_ok(struct agent *a, const Drover__VmOrder *o)
{
	uint64_t floor = 0;

	if (!names_valid(o->name) || store_vm_floor(a->store, o->name, &floor) != 0)
		return false;
	if (o->generation < floor) {
		log_warning("vm %s: order for generation %llu refused, generation %llu was seen before",
			    o->name, (unsigned long long)o->generation, (unsigned long long)floor);
		return false;
	}
	return o->generation == floor || store_vm_floor_raise(a->store, o->name, o->generation) == 0;
}

/* ------------------------------------------------ what is done */

static void apply_vm(struct agent *a, const Drover__VmOrder *o)
{
	struct vm *vm = vm_find(a, o->name);

	if (vm != NULL)
		vm->ordered = true;
	/* While a move has it, only the move's orders count; but one that became this host's can be killed.
	 */
	if (amove_holds_vm(a, o->name) &&
	    (o->want != DROVER__VM_WANT__WANT_KILL || !amove_took_vm(a, o->name)))
		return;
	if (stray_has(a, o->name) || !vm_order_ok(a, o))
		return;
	switch (o->want) {
	case DROVER__VM_WANT__WANT_RUN:
		vm_order_run(a, o);
		break;
	case DROVER__VM_WANT__WANT_STOP:
		vm_order_stop(a, o, false);
		break;
	case DROVER__VM_WANT__WANT_KILL:
		vm_order_stop(a, o, true);
		break;
	case DROVER__VM_WANT__WANT_NOTHING:
		vm_order_nothing(a, o);
		break;
	case _DROVER__VM_WANT_IS_INT_SIZE:
		break;
	}
}

/* Ended VMs that nobody orders any more are forgotten; their word stays in the store. */
static void sweep_vms(struct agent *a)
{
	struct vm *next;

	for (struct vm *vm = a->vms; vm != NULL; vm = next) {
		next = vm->next;
		if (!vm->ordered && fsm_final(&vm->fsm) && vm->watch == NULL)
			vm_forget(vm);
	}
}

static void apply(struct agent *a)
{
	const Drover__AgentOrders *o = a->orders;

	a->bandwidth = o->bandwidth;
	a->leaving_committed = o->leaving_committed;
	for (struct vm *vm = a->vms; vm != NULL; vm = vm->next)
		vm->ordered = false;
	amove_orders_begin(a);
	for (size_t i = 0; i < o->n_moves; i++)
		amove_order(a, o->moves[i]);
	for (size_t i = 0; i < o->n_vms; i++)
		apply_vm(a, o->vms[i]);
	amove_orders_end(a);
	sweep_vms(a);
	amove_budget(a);
	if (a->leaving && a->leaving_committed)
		qb_loop_stop(a->loop);
}

static void log_orders(const Drover__AgentOrders *o)
{
	log_debug("orders: term %llu index %llu incarnation %llu, %zu VMs, %zu moves",
		  (unsigned long long)o->term, (unsigned long long)o->index,
		  (unsigned long long)o->incarnation, o->n_vms, o->n_moves);
}

void reconcile_orders(struct agent *a, const Drover__AgentOrders *orders)
{
	const char *why = why_refused(a, orders);
	size_t size = drover__agent_orders__get_packed_size(orders);
	DR_AUTO_FREE uint8_t *bytes = malloc(size + 1);
	Drover__AgentOrders *copy;

	if (why != NULL) {
		log_warning("orders (term %llu, index %llu) refused: %s", (unsigned long long)orders->term,
			    (unsigned long long)orders->index, why);
		return;
	}
	if (bytes == NULL || raise_floors(a, orders) != 0)
		return; /* they come again */
	drover__agent_orders__pack(orders, bytes);
	copy = drover__agent_orders__unpack(NULL, size, bytes);
	if (copy == NULL)
		return;
	log_orders(orders);
	if (a->orders != NULL)
		drover__agent_orders__free_unpacked(a->orders, NULL);
	a->orders = copy;
	a->floor_index = orders->index;
	apply(a);
	agent_dirty(a); /* orders_index is in the report */
}

void agent_kick(struct agent *a)
{
	vm_kick_all(a);
	amove_lease(a);
	for (size_t i = 0; a->orders != NULL && i < a->orders->n_vms; i++)
		apply_vm(a, a->orders->vms[i]);
}
