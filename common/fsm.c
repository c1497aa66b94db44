#include "common/fsm.h"

#include <stdio.h>
#include <stdlib.h>

#define FSM_MAX 64

const char *fsm_name(const struct fsm_state *table, unsigned n_states, unsigned state)
{
	if (state >= n_states || table[state].name == NULL)
		return "?";
	return table[state].name;
}

void fsm_init(struct fsm *fsm, const struct fsm_state *table, unsigned n_states, unsigned state, void *owner)
{
	*fsm = (struct fsm){.table = table, .n_states = n_states, .state = state, .owner = owner};
}

bool fsm_allowed(const struct fsm *fsm, unsigned to)
{
	return to < fsm->n_states && fsm->table[to].name != NULL &&
	       (fsm->table[fsm->state].next & FSM_BIT(to)) != 0;
}

void fsm_change(struct fsm *fsm, unsigned to, const char *why)
{
	const char *from_name = fsm_name(fsm->table, fsm->n_states, fsm->state);
	const char *to_name = fsm_name(fsm->table, fsm->n_states, to);

	if (!fsm_allowed(fsm, to)) {
		fprintf(stderr, "state machine: %s -> %s is not allowed (%s)\n", from_name, to_name, why);
		abort();
	}
	fsm->state = to;
	if (fsm->changed != NULL)
		fsm->changed(fsm->owner, from_name, to_name, why);
	if (fsm->invariant != NULL && !fsm->invariant(fsm->owner, to)) {
		fprintf(stderr, "state machine: invariant broken in %s, come from %s (%s)\n", to_name,
			from_name, why);
		abort();
	}
}

bool fsm_final(const struct fsm *fsm)
{
	return fsm->table[fsm->state].final;
}

/* Which states reach a final one: grows from the final states backwards until nothing changes. */
static uint64_t reach_final(const struct fsm_state *table, unsigned n_states)
{
	uint64_t reach = 0;
	uint64_t before;

	do {
		before = reach;
		for (unsigned i = 0; i < n_states; i++)
			if (table[i].name != NULL && (table[i].final || (table[i].next & reach) != 0))
				reach |= FSM_BIT(i);
	} while (reach != before);
	return reach;
}

const char *fsm_check_table(const struct fsm_state *table, unsigned n_states)
{
	uint64_t named = 0;

	if (n_states > FSM_MAX)
		return "more than 64 states";
	for (unsigned i = 0; i < n_states; i++)
		if (table[i].name != NULL)
			named |= FSM_BIT(i);
	for (unsigned i = 0; i < n_states; i++) {
		if (table[i].name == NULL)
			continue;
		if ((table[i].next & ~named) != 0)
			return "a successor does not exist";
		if (table[i].final && table[i].next != 0)
			return "a final state has a successor";
		if (!table[i].final && table[i].next == 0)
			return "a state that is not final has no successor";
	}
	if (reach_final(table, n_states) != named)
		return "a state cannot reach a final one";
	return NULL;
}
