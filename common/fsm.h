/*
 * State machines as declared tables. A table says for every state its name and
 * which states may follow; every change goes through fsm_change(), which checks
 * the table and the invariant and tells the owner old -> new and why. Pure: no
 * clock, no log library; the owner's `changed` callback writes the log line.
 */
#ifndef DROVER_COMMON_FSM_H
#define DROVER_COMMON_FSM_H

#include <stdbool.h>
#include <stdint.h>

#define FSM_BIT(state) (UINT64_C(1) << (state))

/* One row of a table, indexed by the state's value (0..63). Values without a name do not exist. */
struct fsm_state {
	const char *name;
	uint64_t next; /* FSM_BIT()s of the states that may follow */
	bool final;
};

struct fsm {
	const struct fsm_state *table;
	unsigned n_states;
	unsigned state;
	void *owner;
	/* Called after each change. May be NULL. */
	void (*changed)(void *owner, const char *from, const char *to, const char *why);
	/* Checked after each change; false aborts the program. May be NULL. */
	bool (*invariant)(const void *owner, unsigned state);
};

/* Puts the machine into `state` without asking the table: for a new machine or one that is restored from a
 * record. */
void fsm_init(struct fsm *fsm, const struct fsm_state *table, unsigned n_states, unsigned state, void *owner);

/* Whether the table lets `to` follow the present state. */
bool fsm_allowed(const struct fsm *fsm, unsigned to);

/* The one function that changes a state. A change that the table forbids is a bug of the program: aborts. */
void fsm_change(struct fsm *fsm, unsigned to, const char *why);

bool fsm_final(const struct fsm *fsm);

/* The name of a state of the table; "?" for values that it does not have. */
const char *fsm_name(const struct fsm_state *table, unsigned n_states, unsigned state);

/*
 * Checks a table: every named state has only named successors, final states have none, every other has at
 * least one, and a final state can be reached from each. Returns NULL, or what is wrong.
 */
const char *fsm_check_table(const struct fsm_state *table, unsigned n_states);

#endif
