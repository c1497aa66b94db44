/* The agent's table of moves: orders, restart, forgetting, facts, budget. */
#include "agent/amove.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/budget.h"
#include "agent/facts.h"
#include "common/log.h"

#define NETWORKS_MAX 64
#define FLOWS_MAX    64

static struct amove *find(struct agent *a, uint64_t move, uint32_t attempt, Drover__MoveRole role)
{
	for (struct amove *am = a->moves; am != NULL; am = am->next)
		if (am->id == move && am->attempt == attempt && am->role == role)
			return am;
	return NULL;
}

static bool gone(const struct amove *am)
{
	return move_phase(am->m) == DROVER__MOVE_PHASE__PHASE_GONE;
}

/* rec: NULL for a new one. */
static struct amove *make(struct agent *a, const Drover__MoveOrder *order, const struct move_record *rec)
{
	struct amove *am = calloc(1, sizeof(*am));

	if (am == NULL)
		abort();
	am->agent = a;
	am->role = order->role;
	am->id = order->move;
	am->attempt = order->attempt;
	snprintf(am->vm_name, sizeof(am->vm_name), "%s", order->vm);
	move_real_init(am);
	am->m = rec != NULL ? move_restore(&am->me, order, rec) : move_new(&am->me, order);
	if (am->m == NULL)
		abort();
	am->named = true;
	am->next = a->moves;
	a->moves = am;
	return am;
}

static void start(struct amove *am)
{
	struct move_event ev = {.type = MOVE_EV_START};

	if (am->started)
		return;
	am->started = true;
	move_event(am->m, &ev);
}

static void destroy(struct amove *am)
{
	struct amove **at = &am->agent->moves;

	while (*at != am)
		at = &(*at)->next;
	*at = am->next;
	move_real_fini(am);
	move_free(am->m);
	free(am);
}

void amove_free_all(struct agent *a)
{
	while (a->moves != NULL)
		destroy(a->moves);
}

/* ------------------------------------------------ orders */

/*
 * The attempt was begun before and no row is left of it: finished and forgotten, or never got to its
 * first record. Either way nothing of it is here, and it must not begin again.
 */
static void say_gone(struct agent *a, const Drover__MoveOrder *order)
{
	struct move_record rec = {.phase = DROVER__MOVE_PHASE__PHASE_GONE};
	struct amove *am;

	drover__move_stats__init(&rec.stats);
	am = make(a, order, &rec);
	am->started = true;
	log_info("move %llu/%u vm %s: this host's part is over already", (unsigned long long)order->move,
		 order->attempt, order->vm);
	agent_dirty(a);
}

static void begin(struct agent *a, const Drover__MoveOrder *order)
{
	uint32_t floor = 0;
	struct amove *am;

	if (store_move_floor(a->store, order->move, &floor) != 0)
		return;
	if (order->attempt < floor) {
		log_warning("move %llu/%u: refused, attempt %u was seen before",
			    (unsigned long long)order->move, order->attempt, floor);
		return;
	}
	if (order->attempt == floor) {
		say_gone(a, order);
		return;
	}
	if (store_move_floor_raise(a->store, order->move, order->attempt) != 0)
		return;
	am = make(a, order, NULL);
	if (am->role == DROVER__MOVE_ROLE__MOVE_SRC) {
		struct vm *vm = vm_find(a, order->vm);

		if (vm != NULL && vm->generation == order->generation && vm->watch == NULL)
			amove_hold(am, vm);
	}
	start(am);
}

void amove_order(struct agent *a, const Drover__MoveOrder *order)
{
	struct dr_error err = DR_ERROR_INIT;
	struct amove *am = find(a, order->move, order->attempt, order->role);
	struct move_event ev = {.type = MOVE_EV_ORDER, .order = order};

	if (move_order_check(order, &err) != 0) {
		log_error("move %llu/%u: bad order: %s", (unsigned long long)order->move, order->attempt,
			  err.text);
		return;
	}
	if (am == NULL) {
		begin(a, order);
		return;
	}
	am->named = true;
	if (!gone(am))
		move_event(am->m, &ev);
}

void amove_orders_begin(struct agent *a)
{
	for (struct amove *am = a->moves; am != NULL; am = am->next)
		am->named = false;
}

void amove_orders_end(struct agent *a)
{
	struct move_event ev = {.type = MOVE_EV_ORDER_LOST};
	struct amove *next;

	for (struct amove *am = a->moves; am != NULL; am = next) {
		next = am->next;
		if (am->named)
			continue;
		if (!gone(am))
			move_event(am->m, &ev);
		else if (store_move_delete(a->store, am->id, am->attempt, am->role) == 0) {
			relay_remove_files(a, am->id, am->attempt, am->role);
			destroy(am);
		}
	}
}

void amove_lease(struct agent *a)
{
	struct move_event ev = {.type = MOVE_EV_LEASE};

	for (struct amove *am = a->moves; am != NULL; am = am->next)
		if (!gone(am) && am->started)
			move_event(am->m, &ev);
}

bool amove_holds_vm(const struct agent *a, const char *vm)
{
	for (const struct amove *am = a->moves; am != NULL; am = am->next)
		if (strcmp(am->vm_name, vm) == 0 && (!gone(am) || am->vm != NULL))
			return true;
	return false;
}

bool amove_took_vm(const struct agent *a, const char *vm)
{
	for (const struct amove *am = a->moves; am != NULL; am = am->next)
		if (strcmp(am->vm_name, vm) == 0 && (!gone(am) || am->vm != NULL) && !move_vm_taken(am->m))
			return false;
	return true;
}

/* ------------------------------------------------ after a restart */

int amove_restore(struct agent *a, const struct store_move *row)
{
	const Drover__MoveOrder *o = row->order;
	struct amove *am = make(a, o, &row->record);
	struct vm *vm = vm_find(a, o->vm);
	bool src = am->role == DROVER__MOVE_ROLE__MOVE_SRC;
	uint64_t want = src ? o->generation : o->generation + 1;
	int rc = 0;

	am->procs.qemu = row->qemu;
	am->procs.relay = row->relay;
	if (gone(am)) {
		am->started = true;
		return 0;
	}
	if (vm != NULL && (vm->generation != want || vm->watch != NULL))
		return 0;
	if (vm == NULL && src)
		rc = vm_leaving_restore(a, o, row->qemu.pid, row->qemu.start_time, &vm);
	else if (vm == NULL)
		rc = vm_incoming_restore(a, o, row->qemu.pid, row->qemu.start_time, &vm);
	if (vm == NULL)
		return rc;
	amove_hold(am, vm);
	am->procs.qemu = row->qemu;
	return 0;
}

void amove_start_all(struct agent *a)
{
	for (struct amove *am = a->moves; am != NULL; am = am->next)
		start(am);
}

/* ------------------------------------------------ relays */

struct relay *amove_dst_relay(struct agent *a, uint64_t move, uint32_t attempt)
{
	struct amove *am = find(a, move, attempt, DROVER__MOVE_ROLE__MOVE_DST);

	return am != NULL && !gone(am) && am->relay != NULL && relay_running(am->relay) ? am->relay : NULL;
}

/* Whether an address of this host is known and its interface has no carrier. */
static bool dead(const struct agent *a, const char *address)
{
	const Drover__HostFacts *facts = facts_get(a->facts);

	for (size_t i = 0; i < facts->n_addresses; i++)
		if (strcmp(facts->addresses[i]->address, address) == 0)
			return !facts->addresses[i]->up;
	return false;
}

void amove_carriers(struct agent *a)
{
	for (struct amove *am = a->moves; am != NULL; am = am->next) {
		const Drover__MoveOrder *o = move_order(am->m);

		for (size_t i = 0; i < o->n_paths && am->relay != NULL && relay_running(am->relay); i++)
			if (dead(a, am->role == DROVER__MOVE_ROLE__MOVE_SRC ? o->paths[i]->src_address
									    : o->paths[i]->dst_address))
				relay_drop_path(am->relay, i);
	}
}

static bool uses_network(const struct amove *am, const char *network)
{
	const Drover__MoveOrder *o = move_order(am->m);

	for (size_t i = 0; i < o->n_paths; i++)
		if (relay_path_up(am->relay, i) && strcmp(o->paths[i]->network, network) == 0)
			return true;
	return false;
}

/* A relay has one share for all its networks: of the one with the least budget. */
static size_t network_index(const struct agent *a, const struct amove *am)
{
	size_t index = BUDGET_NO_NETWORK;

	for (size_t i = 0; a->orders != NULL && i < a->orders->n_budgets && i < NETWORKS_MAX; i++) {
		const Drover__NetworkBudget *budget = a->orders->budgets[i];

		if (uses_network(am, budget->network) &&
		    (index == BUDGET_NO_NETWORK ||
		     (budget->bandwidth != 0 && (a->orders->budgets[index]->bandwidth == 0 ||
						 budget->bandwidth < a->orders->budgets[index]->bandwidth))))
			index = i;
	}
	return index;
}

void amove_budget(struct agent *a)
{
	struct budget_flow flows[FLOWS_MAX];
	struct relay *relays[FLOWS_MAX];
	uint64_t networks[NETWORKS_MAX] = {0};
	size_t n_networks = 0;
	size_t n = 0;

	for (size_t i = 0; a->orders != NULL && i < a->orders->n_budgets && i < NETWORKS_MAX; i++)
		networks[n_networks++] = a->orders->budgets[i]->bandwidth;
	for (struct amove *am = a->moves; am != NULL && n < FLOWS_MAX; am = am->next) {
		if (am->role != DROVER__MOVE_ROLE__MOVE_SRC || am->relay == NULL || !relay_running(am->relay))
			continue;
		flows[n].network = network_index(a, am);
		relays[n++] = am->relay;
	}
	budget_divide(a->bandwidth, networks, n_networks, flows, n);
	for (size_t i = 0; i < n; i++)
		relay_set_budget(relays[i], flows[i].share);
}

/* ------------------------------------------------ facts */

size_t amove_count(const struct agent *a)
{
	size_t n = 0;

	for (const struct amove *am = a->moves; am != NULL; am = am->next)
		n++;
	return n;
}

void amove_fact(struct agent *a, size_t n, bool take_events, Drover__MoveFact *fact)
{
	struct amove *am = a->moves;

	for (; n > 0; n--)
		am = am->next;
	move_fact(am->m, fact);
	if (am->role == DROVER__MOVE_ROLE__MOVE_DST && fact->phase >= DROVER__MOVE_PHASE__DST_PREPARED &&
	    fact->phase <= DROVER__MOVE_PHASE__DST_RUNNING)
		fact->relay_port = a->conf.relay_port;
	fact->n_events = 0;
	fact->events = NULL;
	/* Reports become commands, progress does not: figures of channels are in that only. */
	if (!take_events && am->relay != NULL && am->role == DROVER__MOVE_ROLE__MOVE_SRC)
		fact->n_channels = relay_figures(am->relay, &fact->channels);
	if (!take_events || am->n_events == 0)
		return;
	fact->events = calloc(am->n_events, sizeof(*fact->events));
	if (fact->events == NULL)
		return;
	memcpy(fact->events, am->events, am->n_events * sizeof(*fact->events));
	fact->n_events = am->n_events;
	am->n_events = 0;
}

void amove_events_free(Drover__MoveFact *fact)
{
	for (size_t i = 0; i < fact->n_events; i++)
		free(fact->events[i]);
	free(fact->events);
	fact->events = NULL;
	fact->n_events = 0;
}

bool amove_may_switch(const struct agent *a)
{
	for (const struct amove *am = a->moves; am != NULL; am = am->next)
		if (move_phase(am->m) >= DROVER__MOVE_PHASE__SRC_COPYING &&
		    move_phase(am->m) < DROVER__MOVE_PHASE__SRC_RELEASED)
			return true;
	return false;
}

bool amove_active(const struct agent *a)
{
	for (const struct amove *am = a->moves; am != NULL; am = am->next)
		if (!gone(am))
			return true;
	return false;
}
