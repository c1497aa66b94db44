/* Shared by agent/vm*.c only. */
#ifndef DROVER_AGENT_VM_INTERNAL_H
#define DROVER_AGENT_VM_INTERNAL_H

#include "agent/vm.h"

/* A new object in the agent's list; spec and launch are copied (NULL: none). Aborts without memory. */
struct vm *vm_make(struct agent *a, const char *name, uint64_t generation, const Drover__VmSpec *spec,
		   const Drover__LaunchRecord *launch, enum vm_phase start);
void vm_change(struct vm *vm, enum vm_phase to, const char *why);
enum vm_phase vm_phase_of(const struct vm *vm);

/* STOPPED or FAILED: durable first, then said (R12). */
void vm_end(struct vm *vm, enum vm_phase to, const char *why);
/* Nothing of that generation runs here, nor will: a STOPPED object, recorded. */
void vm_nothing_here(struct agent *a, const Drover__VmOrder *order, const char *why);

/* The row as it should be on disk. state: what a report says. */
void vm_fill_row(const struct vm *vm, struct store_vm *row, Drover__VmState state);
int vm_record(struct vm *vm, Drover__VmState state);

void vm_close_qmp(struct vm *vm);
void vm_close_proc(struct vm *vm);
void vm_watch_process(struct vm *vm);

/* Answer of query-status. */
void vm_on_status(const struct qmp_reply *reply, void *data);

#endif
