/* The monitor of a running VM; start and stop. */
#include "agent/vm.h"

#include <stdio.h>
#include <string.h>

#include "agent/vm_internal.h"
#include "common/crashpoint.h"
#include "common/log.h"

/* ------------------------------------------------ the monitor */

static void set_running(struct vm *vm, const char *why)
{
	vm->run = MOVE_RUN_RUNNING;
	vm->prelaunch = false;
	vm->error[0] = '\0';
	if (vm_phase_of(vm) == VM_P_STARTING || vm_phase_of(vm) == VM_P_PAUSED) {
		env_timer_stop(vm->agent->env, &vm->timer);
		/* Losing this row costs nothing: an adopted VM is asked for its state. */
		if (vm_record(vm, DROVER__VM_STATE__VM_RUNNING) != 0)
			log_warning("vm %s: RUNNING could not be recorded", vm->name);
		vm_change(vm, VM_P_RUNNING, why);
	}
}

static void set_stopped_cpus(struct vm *vm, const char *why)
{
	vm->run = MOVE_RUN_PAUSED;
	if (vm_phase_of(vm) == VM_P_RUNNING && vm->watch == NULL)
		vm_change(vm, VM_P_PAUSED, why);
}

static void on_cont(const struct qmp_reply *reply, void *data)
{
	struct vm *vm = data;

	vm->cont_sent = false;
	if (reply->code != 0)
		snprintf(vm->error, sizeof(vm->error), "%s", reply->text);
	/* RESUME changes the phase. */
}

/* The agent decides when a VM begins: only as its owner, with a valid lease (R7). */
static void first_cont(struct vm *vm)
{
	struct agent *a = vm->agent;

	if (!vm->prelaunch || !vm->up || vm->cont_sent || vm_phase_of(vm) != VM_P_STARTING)
		return;
	if (!lease_valid(&a->lease, env_now_us(a->env))) {
		log_info("vm %s: waits for a lease before it starts", vm->name);
		return;
	}
	crash_point("vm-start.before_cont");
	if (qmp_exec(vm->qmp, "cont", NULL, QMP_DEADLINE_US, on_cont, vm) == 0)
		vm->cont_sent = true;
}

void vm_kick_all(struct agent *a)
{
	for (struct vm *vm = a->vms; vm != NULL; vm = vm->next)
		first_cont(vm);
}

static void adopted_as(struct vm *vm, const char *status)
{
	vm->run = vm_run_state(status);
	vm->prelaunch = strcmp(status, "prelaunch") == 0;
	if (vm_phase_of(vm) == VM_P_ADOPTING) {
		env_timer_stop(vm->agent->env, &vm->timer);
		if (vm->prelaunch) {
			vm_change(vm, VM_P_STARTING, "adopted before its first cont");
		} else if (vm->run == MOVE_RUN_RUNNING || vm->watch != NULL) {
			vm_change(vm, VM_P_RUNNING, "adopted");
		} else {
			snprintf(vm->error, sizeof(vm->error), "QEMU says %s", status);
			vm_change(vm, VM_P_PAUSED, "adopted");
		}
	}
	if (vm_phase_of(vm) == VM_P_RUNNING && vm->watch == NULL && vm->run != MOVE_RUN_RUNNING)
		vm_change(vm, VM_P_PAUSED, status);
	vm->adopt_silent = false;
	agent_dirty(vm->agent);
}

void vm_on_status(const struct qmp_reply *reply, void *data)
{
	struct vm *vm = data;
	const char *status = json_string_value(json_object_get(reply->value, "status"));

	if (reply->code != 0 || status == NULL) {
		log_warning("vm %s: query-status: %s", vm->name, reply->text);
		return;
	}
	vm->up = true;
	adopted_as(vm, status);
	if (vm->watch != NULL)
		vm->watch->on_up(vm->watch_data);
	first_cont(vm);
}

static void on_uuid(const struct qmp_reply *reply, void *data)
{
	struct vm *vm = data;
	const char *uuid = json_string_value(json_object_get(reply->value, "UUID"));

	if (reply->code != 0)
		return; /* on_close or the next reconnect goes on */
	if (uuid == NULL || strcasecmp(uuid, vm->uuid_text) != 0) {
		log_error("vm %s: the monitor answers with UUID %s, not %s: left alone", vm->name,
			  uuid != NULL ? uuid : "none", vm->uuid_text);
		vm_close_qmp(vm);
		return;
	}
	qmp_exec(vm->qmp, "query-status", NULL, QMP_DEADLINE_US, vm_on_status, vm);
}

static void on_ready(struct qmp *q, void *data)
{
	struct vm *vm = data;

	qmp_exec(q, "query-uuid", NULL, QMP_DEADLINE_US, on_uuid, vm);
}

static uint64_t to_boottime(struct env *env, uint64_t utc_us)
{
	uint64_t now = env_now_us(env);
	uint64_t utc = env_utc_us(env);
	uint64_t ago = utc > utc_us ? utc - utc_us : 0;

	return ago < now && ago < 10000000 ? now - ago : now;
}

static void on_qmp_event(struct qmp *q, const char *event, const json_t *event_data, uint64_t at_us,
			 void *data)
{
	struct vm *vm = data;

	(void)q;
	if (strcmp(event, "RESUME") == 0) {
		set_running(vm, "RESUME");
	} else if (strcmp(event, "STOP") == 0) {
		set_stopped_cpus(vm, "STOP");
	} else if (strcmp(event, "SHUTDOWN") == 0) {
		vm->guest_ended = json_is_true(json_object_get(event_data, "guest"));
	} else if (strcmp(event, "BLOCK_IO_ERROR") == 0) {
		const char *reason = json_string_value(json_object_get(event_data, "reason"));

		snprintf(vm->error, sizeof(vm->error), "disk error: %s", reason != NULL ? reason : "unknown");
		agent_dirty(vm->agent);
	}
	if (vm->watch != NULL)
		vm->watch->on_event(event, event_data, to_boottime(vm->agent->env, at_us), vm->watch_data);
}

static void on_reconnect(void *data)
{
	struct vm *vm = data;

	vm->reconnect = 0;
	vm_connect(vm);
}

static void on_qmp_close(struct qmp *q, const struct dr_error *why, void *data)
{
	struct vm *vm = data;

	(void)q;
	log_debug("vm %s: %s", vm->name, why->text);
	vm_close_qmp(vm);
	vm->cont_sent = false;
	if (vm->reconnect == 0)
		vm->reconnect = env_timer_start(vm->agent->env, VM_RECONNECT_US, on_reconnect, vm);
}

static const struct qmp_ops qmp_ops = {
	.on_ready = on_ready, .on_event = on_qmp_event, .on_close = on_qmp_close};

void vm_connect(struct vm *vm)
{
	struct dr_error err = DR_ERROR_INIT;
	char path[300];

	if (vm->qmp != NULL || !proc_is_open(&vm->proc))
		return;
	snprintf(path, sizeof(path), "%s/qmp.sock", vm->dir);
	vm->qmp = qmp_connect(vm->agent->loop, vm->agent->env, path, &qmp_ops, vm, &err);
	if (vm->qmp == NULL && vm->reconnect == 0) {
		log_debug("vm %s: %s", vm->name, err.text);
		vm->reconnect = env_timer_start(vm->agent->env, VM_RECONNECT_US, on_reconnect, vm);
	}
}

/* ------------------------------------------------ start */

static void on_start_timeout(void *data)
{
	struct vm *vm = data;
	struct dr_error err = DR_ERROR_INIT;

	vm->timer = 0;
	if (vm_phase_of(vm) != VM_P_STARTING || (vm->up && vm->prelaunch))
		return; /* it only waits for a lease */
	log_error("vm %s: QEMU did not start the VM in time: killed", vm->name);
	if (vm_kill(vm, &err) != 0 && err.code != DR_OK)
		log_error("vm %s: %s", vm->name, err.text);
}

static int record_start(const struct proc *proc, void *data)
{
	struct vm *vm = data;
	int rc;

	(void)proc;
	crash_point("vm-start.before_record");
	rc = vm_record(vm, DROVER__VM_STATE__VM_STARTING);
	crash_point("vm-start.recorded");
	return rc;
}

static void start_failed(struct vm *vm, const struct dr_error *err)
{
	snprintf(vm->error, sizeof(vm->error), "%s", err->text);
	log_error("vm %s: %s", vm->name, err->text);
	vm_end(vm, VM_P_FAILED, "could not be started");
}

static void start(struct agent *a, const Drover__VmOrder *order)
{
	struct vm *vm = vm_make(a, order->name, order->generation, order->spec, order->launch, VM_P_NEW);
	struct dr_error err = DR_ERROR_INIT;
	int rc = 0;

	if (vm->spec == NULL)
		rc = dr_error_set(&err, DR_EBUG, "the order has no spec");
	else if (vm->launch == NULL || vm->launch->machine[0] == '\0')
		rc = launch_resolve(vm->spec, &a->caps, a->conf.accel, &vm->launch, &err);
	else
		rc = launch_check(vm->launch, &a->caps, &err);
	if (rc == 0)
		rc = vm_spawn(vm, false, record_start, vm, &err);
	if (rc != 0) {
		start_failed(vm, &err);
		return;
	}
	vm_change(vm, VM_P_STARTING, "ordered");
	vm->prelaunch = true;
	vm_watch_process(vm);
	vm->timer = env_timer_start(a->env, VM_START_US, on_start_timeout, vm);
	vm_connect(vm);
}

void vm_order_run(struct agent *a, const Drover__VmOrder *order)
{
	struct vm *vm = vm_find(a, order->name);
	uint64_t word = 0;

	if (vm != NULL && !fsm_final(&vm->fsm)) {
		if (order->generation > vm->generation)
			log_error(
				"vm %s: ordered to run as generation %llu, but generation %llu is still here",
				vm->name, (unsigned long long)order->generation,
				(unsigned long long)vm->generation);
		else
			first_cont(vm);
		return;
	}
	if (store_word(a->store, order->name, &word) != 0)
		return;
	if (order->generation <= word) {
		/* Already said of this generation: it is not started here, whatever the order's age (R12). */
		if (vm == NULL)
			vm_nothing_here(a, order, "given up here before, is not started again");
		return;
	}
	if (!lease_valid(&a->lease, env_now_us(a->env)))
		return; /* vm_order_run comes again with the lease (agent_kick) */
	if (vm != NULL)
		vm_free(vm);
	start(a, order);
}

/* ------------------------------------------------ stop */

static void on_kill_timer(void *data)
{
	struct vm *vm = data;
	struct dr_error err = DR_ERROR_INIT;
	int rc = vm_kill(vm, &err);

	vm->timer = 0;
	if (rc != 0 && err.code != DR_OK) {
		log_error("vm %s: %s", vm->name, err.text);
		snprintf(vm->error, sizeof(vm->error), "%s", err.text);
		agent_dirty(vm->agent);
	}
	if (rc == -DR_EIO) /* not killed for want of descriptors or memory */
		vm->timer = env_timer_start(vm->agent->env, VM_QUIT_US, on_kill_timer, vm);
}

static void kill_vm(struct vm *vm, const char *why)
{
	env_timer_stop(vm->agent->env, &vm->timer);
	vm_change(vm, VM_P_KILLING, why);
	/* quit flushes the disks; SIGKILL is for a QEMU that does not listen. */
	if (qmp_ready(vm->qmp) && qmp_exec(vm->qmp, "quit", NULL, VM_QUIT_US, NULL, NULL) == 0)
		vm->timer = env_timer_start(vm->agent->env, VM_QUIT_US, on_kill_timer, vm);
	else
		on_kill_timer(vm);
}

static void press(void *data)
{
	struct vm *vm = data;

	vm->timer = 0;
	if (vm_phase_of(vm) != VM_P_STOPPING)
		return;
	if (vm->presses == VM_POWERDOWN_N) {
		snprintf(vm->error, sizeof(vm->error),
			 "the guest does not react to its power button (drover vm stop --force ends it)");
		log_warning("vm %s: %s", vm->name, vm->error);
		agent_dirty(vm->agent);
	}
	if (qmp_ready(vm->qmp))
		qmp_exec(vm->qmp, "system_powerdown", NULL, QMP_DEADLINE_US, NULL, NULL);
	vm->presses++;
	vm->timer = env_timer_start(vm->agent->env, VM_POWERDOWN_US, press, vm);
}

static void stop_vm(struct vm *vm)
{
	if (vm->prelaunch) {
		kill_vm(vm, "stop ordered before it began");
		return;
	}
	env_timer_stop(vm->agent->env, &vm->timer);
	vm->presses = 0;
	vm_change(vm, VM_P_STOPPING, "ordered");
	press(vm);
}

void vm_order_stop(struct agent *a, const Drover__VmOrder *order, bool force)
{
	struct vm *vm = vm_find(a, order->name);

	if (vm == NULL || (fsm_final(&vm->fsm) && vm->generation < order->generation)) {
		if (vm != NULL)
			vm_free(vm);
		vm_nothing_here(a, order, "stop ordered, nothing runs here");
		return;
	}
	switch (vm_phase_of(vm)) {
	case VM_P_STARTING:
	case VM_P_RUNNING:
	case VM_P_PAUSED:
		if (force)
			kill_vm(vm, "ordered");
		else
			stop_vm(vm);
		break;
	case VM_P_ADOPTING:
	case VM_P_STOPPING:
		if (force)
			kill_vm(vm, "ordered");
		break;
	case VM_P_NEW:
	case VM_P_KILLING:
	case VM_P_INCOMING:
	case VM_P_LEAVING:
	case VM_P_LOST:
	case VM_P_STOPPED:
	case VM_P_FAILED:
	case VM_P_GONE:
	case VM_P_N:
		break;
	}
}

void vm_order_nothing(struct agent *a, const Drover__VmOrder *order)
{
	struct vm *vm = vm_find(a, order->name);

	if (vm == NULL || vm->generation != order->generation || vm_phase_of(vm) != VM_P_STOPPING)
		return;
	env_timer_stop(a->env, &vm->timer);
	vm->error[0] = '\0';
	vm_change(vm, vm->run == MOVE_RUN_RUNNING ? VM_P_RUNNING : VM_P_PAUSED, "the stop was taken back");
}
