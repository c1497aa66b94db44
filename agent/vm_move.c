/* A VM after a restart of the agent, and as the object of a move. */
#include "agent/vm.h"

#include <stdio.h>
#include <string.h>

#include "agent/stray.h"
#include "agent/vm_internal.h"
#include "common/log.h"

/* ------------------------------------------------ after a restart */

int vm_restore(struct agent *a, const struct store_vm *row)
{
	enum vm_phase at = VM_P_ADOPTING;
	struct vm *vm;
	int rc;

	if (row->state == DROVER__VM_STATE__VM_STOPPED)
		at = VM_P_STOPPED;
	else if (row->state == DROVER__VM_STATE__VM_FAILED)
		at = VM_P_FAILED;
	vm = vm_make(a, row->name, row->generation, row->spec, row->launch, at);
	memcpy(vm->uuid, row->uuid, sizeof(vm->uuid));
	launch_uuid_text(vm->uuid, vm->uuid_text);
	snprintf(vm->error, sizeof(vm->error), "%s", row->error);
	vm->ordered = false;
	if (at != VM_P_ADOPTING)
		return 0;
	rc = proc_open(&vm->proc, row->pid, row->start_time);
	if (rc == 0) {
		vm->adopted = true;
		vm_watch_process(vm);
	}
	return rc == -DR_ENOENT ? 0 : rc;
}

static void on_adopt_timeout(void *data)
{
	struct vm *vm = data;

	vm->timer = 0;
	if (vm_phase_of(vm) != VM_P_ADOPTING)
		return;
	vm->adopt_silent = true;
	snprintf(vm->error, sizeof(vm->error), "its QEMU (pid %d) does not answer", (int)vm->proc.pid);
	log_warning("vm %s: %s", vm->name, vm->error);
	agent_dirty(vm->agent);
}

void vm_adopt(struct vm *vm)
{
	if (vm_phase_of(vm) != VM_P_ADOPTING)
		return;
	if (proc_is_open(&vm->proc)) {
		vm->timer = env_timer_start(vm->agent->env, VM_ADOPT_US, on_adopt_timeout, vm);
		vm_connect(vm);
	} else if (stray_has(vm->agent, vm->name)) {
		/* The record is older than the process: it says nothing about the VM. */
		snprintf(vm->error, sizeof(vm->error), "a QEMU of it runs that the agent did not start");
	} else if (vm->watch != NULL && vm->watch->released != NULL && vm->watch->released(vm->watch_data)) {
		vm_change(vm, VM_P_LOST, "ended after the source's word");
	} else {
		snprintf(vm->error, sizeof(vm->error), "QEMU ended while the agent was not running");
		vm_end(vm, VM_P_FAILED, "its process is gone");
	}
}

bool vm_adoption_done(const struct agent *a)
{
	for (const struct vm *vm = a->vms; vm != NULL; vm = vm->next)
		if (vm_phase_of(vm) == VM_P_ADOPTING && !vm->adopt_silent)
			return false;
	return true;
}

/* ------------------------------------------------ moves */

struct vm *vm_incoming_start(struct agent *a, const Drover__MoveOrder *order,
			     int (*record_fn)(const struct proc *proc, void *data), void *data,
			     struct dr_error *err)
{
	struct vm *old = vm_find(a, order->vm);
	struct vm *vm;

	if (stray_has(a, order->vm) || (old != NULL && (!fsm_final(&old->fsm) || old->watch != NULL))) {
		dr_error_set(err, DR_EFAILED, "an earlier QEMU of VM %s is still on this host", order->vm);
		return NULL;
	}
	if (order->spec == NULL || order->launch == NULL) {
		dr_error_set(err, DR_EFAILED, "the order has no launch record");
		return NULL;
	}
	if (old != NULL)
		vm_free(old);
	vm = vm_make(a, order->vm, order->generation, order->spec, order->launch, VM_P_NEW);
	if (vm_spawn(vm, true, record_fn, data, err) != 0) {
		vm_free(vm);
		return NULL;
	}
	vm_change(vm, VM_P_INCOMING, "move");
	vm_watch_process(vm);
	vm_connect(vm);
	return vm;
}

static int restore_for_move(struct agent *a, const Drover__MoveOrder *order, pid_t pid, uint64_t start_time,
			    enum vm_phase at, struct vm **vm)
{
	struct proc proc;
	int rc;

	*vm = NULL;
	if (vm_find(a, order->vm) != NULL)
		return 0;
	rc = proc_open(&proc, pid, start_time);
	if (rc != 0)
		return rc == -DR_ENOENT ? 0 : rc;
	*vm = vm_make(a, order->vm, order->generation, order->spec, order->launch, at);
	(*vm)->proc = proc;
	(*vm)->adopted = true;
	vm_watch_process(*vm);
	return 0;
}

int vm_incoming_restore(struct agent *a, const Drover__MoveOrder *order, pid_t pid, uint64_t start_time,
			struct vm **vm)
{
	return restore_for_move(a, order, pid, start_time, VM_P_INCOMING, vm);
}

int vm_leaving_restore(struct agent *a, const Drover__MoveOrder *order, pid_t pid, uint64_t start_time,
		       struct vm **vm)
{
	return restore_for_move(a, order, pid, start_time, VM_P_LEAVING, vm);
}

int vm_take_record(struct vm *vm, uint64_t generation)
{
	struct store_vm row;

	vm_fill_row(vm, &row, DROVER__VM_STATE__VM_RUNNING);
	row.generation = generation;
	return store_vm_put(vm->agent->store, &row);
}

void vm_taken(struct vm *vm, uint64_t generation)
{
	vm->generation = generation;
	if (vm_phase_of(vm) == VM_P_INCOMING)
		vm_change(vm, VM_P_RUNNING, "move committed");
}

int vm_leave_record(struct vm *vm)
{
	int rc = store_word_raise(vm->agent->store, vm->name, vm->generation);

	return rc != 0 ? rc : store_vm_delete(vm->agent->store, vm->name);
}

void vm_left(struct vm *vm)
{
	env_timer_stop(vm->agent->env, &vm->timer);
	if (vm_phase_of(vm) == VM_P_LOST)
		vm_change(vm, VM_P_GONE, "move committed");
	else if (fsm_allowed(&vm->fsm, VM_P_LEAVING))
		vm_change(vm, VM_P_LEAVING, "move committed");
}

void vm_lost_is_failed(struct vm *vm)
{
	if (vm_phase_of(vm) != VM_P_LOST)
		return;
	snprintf(vm->error, sizeof(vm->error), "QEMU ended during a move that was aborted");
	vm_end(vm, VM_P_FAILED, "move aborted");
}

void vm_unwatch(struct vm *vm)
{
	vm->watch = NULL;
	vm->watch_data = NULL;
	/* Events that only the move cared about are over: ask once how it stands. */
	if (vm->up && !fsm_final(&vm->fsm) && vm->run != MOVE_RUN_RUNNING)
		qmp_exec(vm->qmp, "query-status", NULL, QMP_DEADLINE_US, vm_on_status, vm);
}
