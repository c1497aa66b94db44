/*
 * Fails the Nth call of a kind: SQLite's file operations, its allocations, and malloc and calloc of the code
 * under test (linked with --wrap). For sweeps: N = 1, 2, ... until nothing fails any more.
 */
#ifndef DROVER_TESTS_UNIT_FAULT_VFS_H
#define DROVER_TESTS_UNIT_FAULT_VFS_H

#include <stdbool.h>

enum fault_kind {
	FAULT_FULL,  /* a write: the disk is full */
	FAULT_WRITE, /* a write: input/output error */
	FAULT_READ,
	FAULT_SYNC,
	FAULT_TRUNCATE,
	FAULT_OPEN,
	FAULT_DELETE,
	FAULT_SQLITE_MEMORY,
	FAULT_MEMORY,
	FAULT_KINDS
};

/* Once per program, before anything uses SQLite. */
void fault_init(void);
/* From now on the nth call of that kind fails, and every later one, too, as a broken disk would; alone: only
 * that one. */
void fault_arm(enum fault_kind kind, unsigned nth, bool alone);
/* No more faults; whether one happened. */
bool fault_disarm(void);
/* Nothing fails and nothing is counted while it is paused: for the test's own calls. */
void fault_pause(bool pause);
const char *fault_name(enum fault_kind kind);

#endif
