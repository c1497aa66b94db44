/*
 * The move matrix: every (source phase × destination phase) × fault, each run to the end.
 *
 * Method. A cell is a pair of phases and a fault. A run moves one VM and waits until the two machines
 * stand in that pair for the first time; then, after a delay of its own (at the crash point itself, i.e.
 * between the phase's record and what follows; or behind the event; or some ms later), the fault
 * happens. Cuts and pauses heal after a while, or never. The simulator checks its invariants after every
 * event and, when all has come to rest, that the move is done or cleanly failed, that exactly one copy runs
 * (or its QEMU was the one killed and is reported so) and that nothing is left.
 */
#ifndef DROVER_TESTS_MATRIX_H
#define DROVER_TESTS_MATRIX_H

#include <stdbool.h>
#include <stdint.h>

enum matrix_fault {
	FAULT_NONE,
	FAULT_SRC_AGENT,
	FAULT_DST_AGENT,
	FAULT_SRC_RELAY,
	FAULT_DST_RELAY,
	FAULT_SRC_QEMU,
	FAULT_DST_QEMU,
	FAULT_LEADER,
	FAULT_RETURN,	    /* what flows back from the destination's relay is lost */
	FAULT_RETURN_NEVER, /* for good */
	FAULT_DATA,	    /* the migration networks */
	FAULT_DATA_NEVER,
	FAULT_ALL, /* the source host is cut off from everything */
	FAULT_ALL_NEVER,
	FAULT_DST_ALL,	/* the destination host is */
	FAULT_STOP_SRC, /* SIGSTOP of the source's agent, 40 s */
	FAULT_STOP_DST,
	FAULT_LATE_ORDER, /* a decision about another attempt arrives late (R5) */
	FAULT_PID_REUSE,  /* destination's agent and QEMU die, another process gets the pid (R25) */
	FAULT_N,
};

enum matrix_scenario {
	SCENE_PLAIN,
	SCENE_LARGE,	     /* a copy that takes seconds, of a VM that dirties its memory */
	SCENE_CANCEL,	     /* the operator cancels at some moment */
	SCENE_OTHER_STORAGE, /* the disks are not the same */
	SCENE_NO_ROOM,
	SCENE_N,
};

struct matrix_case {
	enum matrix_scenario scene;
	unsigned src; /* MovePhase; PHASE_NONE: no machine (yet) */
	unsigned dst;
	enum matrix_fault fault;
	int delay; /* index into the delays; -1 = at the crash point */
	uint64_t seed;
};

struct matrix_result {
	bool reached; /* the pair was seen and the fault happened */
	bool ok;
	char why[1024];
	char move_state[16];
	uint64_t darkest_us;
	uint64_t steps;
};

const char *matrix_fault_name(enum matrix_fault fault);
const char *matrix_scene_name(enum matrix_scenario scene);
void matrix_run_case(const struct matrix_case *c, bool trace, struct matrix_result *out);

/* The same in a child process; out must be shared memory. prepare: makes the parent's cluster, for many
 * children. */
void matrix_prepare(enum matrix_scenario scene);
void matrix_fork_case(const struct matrix_case *c, struct matrix_result *out);

/* Every pair of phases that any run passes through. */
void matrix_watch_pairs(void (*fn)(unsigned src, unsigned dst));

/* All cells; prints the table. seeds: per cell and delay. Returns the number of failed cells. */
int matrix_run(unsigned seeds, unsigned jobs, bool be_quick);
/* All cells until one fails: prints which, returns 0 if the mutant was caught. */
int matrix_run_mutant(const char *name, unsigned jobs);
const char *const *matrix_mutants(void);
/* Switches one on in this process; "": none. */
void matrix_set_mutant(const char *name);

#endif
