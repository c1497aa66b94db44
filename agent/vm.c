/* A VM's states, its record and its end. */
#include "agent/vm.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/vm_internal.h"
#include "common/cleanup.h"
#include "common/log.h"

const struct fsm_state vm_table[VM_P_N] = {
	[VM_P_NEW] = {"new", FSM_BIT(VM_P_STARTING) | FSM_BIT(VM_P_INCOMING) | FSM_BIT(VM_P_FAILED), false},
	[VM_P_STARTING] = {"starting",
			   FSM_BIT(VM_P_RUNNING) | FSM_BIT(VM_P_STOPPING) | FSM_BIT(VM_P_KILLING) |
				   FSM_BIT(VM_P_STOPPED) | FSM_BIT(VM_P_FAILED),
			   false},
	[VM_P_ADOPTING] = {"adopting",
			   FSM_BIT(VM_P_STARTING) | FSM_BIT(VM_P_RUNNING) | FSM_BIT(VM_P_PAUSED) |
				   FSM_BIT(VM_P_KILLING) | FSM_BIT(VM_P_LEAVING) | FSM_BIT(VM_P_LOST) |
				   FSM_BIT(VM_P_STOPPED) | FSM_BIT(VM_P_FAILED),
			   false},
	[VM_P_RUNNING] = {"running",
			  FSM_BIT(VM_P_PAUSED) | FSM_BIT(VM_P_STOPPING) | FSM_BIT(VM_P_KILLING) |
				  FSM_BIT(VM_P_LEAVING) | FSM_BIT(VM_P_LOST) | FSM_BIT(VM_P_STOPPED) |
				  FSM_BIT(VM_P_FAILED),
			  false},
	[VM_P_PAUSED] = {"paused",
			 FSM_BIT(VM_P_RUNNING) | FSM_BIT(VM_P_STOPPING) | FSM_BIT(VM_P_KILLING) |
				 FSM_BIT(VM_P_LEAVING) | FSM_BIT(VM_P_LOST) | FSM_BIT(VM_P_STOPPED) |
				 FSM_BIT(VM_P_FAILED),
			 false},
	/* A stop that was ordered before a move does not hold the move up: it may commit or lose its QEMU. */
	[VM_P_STOPPING] = {"stopping",
			   FSM_BIT(VM_P_RUNNING) | FSM_BIT(VM_P_PAUSED) | FSM_BIT(VM_P_KILLING) |
				   FSM_BIT(VM_P_LEAVING) | FSM_BIT(VM_P_LOST) | FSM_BIT(VM_P_STOPPED),
			   false},
	[VM_P_KILLING] = {"killing", FSM_BIT(VM_P_LEAVING) | FSM_BIT(VM_P_LOST) | FSM_BIT(VM_P_STOPPED),
			  false},
	[VM_P_INCOMING] = {"incoming", FSM_BIT(VM_P_RUNNING) | FSM_BIT(VM_P_PAUSED) | FSM_BIT(VM_P_GONE),
			   false},
	[VM_P_LEAVING] = {"leaving", FSM_BIT(VM_P_GONE), false},
	[VM_P_LOST] = {"lost", FSM_BIT(VM_P_FAILED) | FSM_BIT(VM_P_GONE), false},
	[VM_P_STOPPED] = {"stopped", 0, true},
	[VM_P_FAILED] = {"failed", 0, true},
	[VM_P_GONE] = {"gone", 0, true},
};

static void on_phase(void *owner, const char *from, const char *to, const char *why)
{
	const struct vm *vm = owner;

	log_info("vm %s generation %llu: %s -> %s (%s)", vm->name, (unsigned long long)vm->generation, from,
		 to, why);
	agent_dirty(vm->agent);
}

void vm_change(struct vm *vm, enum vm_phase to, const char *why)
{
	fsm_change(&vm->fsm, to, why);
}

enum vm_phase vm_phase_of(const struct vm *vm)
{
	return (enum vm_phase)vm->fsm.state;
}

struct vm *vm_find(struct agent *a, const char *name)
{
	for (struct vm *vm = a->vms; vm != NULL; vm = vm->next)
		if (strcmp(vm->name, name) == 0)
			return vm;
	return NULL;
}

bool vm_has_process(const struct vm *vm)
{
	return proc_is_open(&vm->proc);
}

enum move_run vm_run_state(const char *status)
{
	static const struct {
		const char *word;
		enum move_run run;
	} words[] = {
		{"running", MOVE_RUN_RUNNING},
		{"paused", MOVE_RUN_PAUSED},
		{"prelaunch", MOVE_RUN_PAUSED},
		{"inmigrate", MOVE_RUN_INMIGRATE},
		{"finish-migrate", MOVE_RUN_FINISH_MIGRATE},
		{"postmigrate", MOVE_RUN_POSTMIGRATE},
	};

	for (size_t i = 0; status != NULL && i < DR_ARRAY_SIZE(words); i++)
		if (strcmp(words[i].word, status) == 0)
			return words[i].run;
	return MOVE_RUN_OTHER;
}

/* ------------------------------------------------ making and freeing */

static Drover__VmSpec *copy_spec(const Drover__VmSpec *spec)
{
	size_t size = drover__vm_spec__get_packed_size(spec);
	DR_AUTO_FREE uint8_t *bytes = malloc(size + 1);

	if (bytes == NULL)
		return NULL;
	drover__vm_spec__pack(spec, bytes);
	return drover__vm_spec__unpack(NULL, size, bytes);
}

static Drover__LaunchRecord *copy_launch(const Drover__LaunchRecord *launch)
{
	size_t size = drover__launch_record__get_packed_size(launch);
	DR_AUTO_FREE uint8_t *bytes = malloc(size + 1);

	if (bytes == NULL)
		return NULL;
	drover__launch_record__pack(launch, bytes);
	return drover__launch_record__unpack(NULL, size, bytes);
}

struct vm *vm_make(struct agent *a, const char *name, uint64_t generation, const Drover__VmSpec *spec,
		   const Drover__LaunchRecord *launch, enum vm_phase start)
{
	struct vm *vm = calloc(1, sizeof(*vm));

	if (vm == NULL)
		abort(); /* a restart finds everything again */
	vm->agent = a;
	vm->generation = generation;
	vm->proc = PROC_NONE;
	snprintf(vm->name, sizeof(vm->name), "%s", name);
	snprintf(vm->dir, sizeof(vm->dir), "%s/vm/%s", a->conf.run_dir, name);
	vm->spec = spec != NULL ? copy_spec(spec) : NULL;
	vm->launch = launch != NULL ? copy_launch(launch) : NULL;
	if (vm->spec != NULL && vm->spec->uuid.len == sizeof(vm->uuid))
		memcpy(vm->uuid, vm->spec->uuid.data, sizeof(vm->uuid));
	launch_uuid_text(vm->uuid, vm->uuid_text);
	fsm_init(&vm->fsm, vm_table, VM_P_N, start, vm);
	vm->fsm.changed = on_phase;
	vm->ordered = true;
	vm->next = a->vms;
	a->vms = vm;
	return vm;
}

void vm_close_qmp(struct vm *vm)
{
	qmp_free(vm->qmp);
	vm->qmp = NULL;
	vm->up = false;
}

void vm_close_proc(struct vm *vm)
{
	if (proc_is_open(&vm->proc))
		qb_loop_poll_del(vm->agent->loop, vm->proc.pidfd);
	proc_close(&vm->proc);
}

void vm_free(struct vm *vm)
{
	struct vm **at = &vm->agent->vms;

	while (*at != vm)
		at = &(*at)->next;
	*at = vm->next;
	vm_close_qmp(vm);
	vm_close_proc(vm);
	env_timer_stop(vm->agent->env, &vm->timer);
	env_timer_stop(vm->agent->env, &vm->reconnect);
	if (vm->spec != NULL)
		drover__vm_spec__free_unpacked(vm->spec, NULL);
	if (vm->launch != NULL)
		drover__launch_record__free_unpacked(vm->launch, NULL);
	free(vm);
}

/* The row as it should be on disk. state: what a report says. */
void vm_fill_row(const struct vm *vm, struct store_vm *row, Drover__VmState state)
{
	*row = (struct store_vm){.generation = vm->generation,
				 .spec = vm->spec,
				 .launch = vm->launch,
				 .pid = vm->proc.pid,
				 .start_time = vm->proc.start_time,
				 .state = state};
	snprintf(row->name, sizeof(row->name), "%s", vm->name);
	snprintf(row->error, sizeof(row->error), "%s", vm->error);
	memcpy(row->uuid, vm->uuid, sizeof(row->uuid));
}

int vm_record(struct vm *vm, Drover__VmState state)
{
	struct store_vm row;

	vm_fill_row(vm, &row, state);
	return store_vm_put(vm->agent->store, &row);
}

/* STOPPED or FAILED: durable first, then said (R12). A store that fails leaves the word unsaid. */
void vm_end(struct vm *vm, enum vm_phase to, const char *why)
{
	struct store_vm row;

	env_timer_stop(vm->agent->env, &vm->timer);
	vm_fill_row(vm, &row,
		    to == VM_P_STOPPED ? DROVER__VM_STATE__VM_STOPPED : DROVER__VM_STATE__VM_FAILED);
	row.pid = 0;
	row.start_time = 0;
	if (store_vm_put(vm->agent->store, &row) != 0) {
		log_error("vm %s: its end cannot be recorded; the agent ends rather than give a word that it "
			  "may forget",
			  vm->name);
		abort();
	}
	vm_change(vm, to, why);
}

/* ------------------------------------------------ the process ends */

static void exit_owned(struct vm *vm, const char *why)
{
	bool asked = vm_phase_of(vm) == VM_P_STOPPING || vm_phase_of(vm) == VM_P_KILLING || vm->guest_ended;
	char words[VM_LAST_WORDS];

	if (vm->watch != NULL && vm->watch->released != NULL && vm->watch->released(vm->watch_data)) {
		vm_change(vm, VM_P_LOST, why);
		return;
	}
	if (asked) {
		vm->error[0] = '\0';
		vm_end(vm, VM_P_STOPPED, why);
		vm_remove_files(vm);
		return;
	}
	vm_last_words(vm, words, sizeof(words));
	snprintf(vm->error, sizeof(vm->error), "QEMU ended by itself: %.200s%s%s", why,
		 words[0] != '\0' ? "; it wrote: " : "", words);
	vm_end(vm, VM_P_FAILED, why);
}

static void process_ended(struct vm *vm)
{
	struct proc_exit e = proc_reap(&vm->proc);
	struct agent *a = vm->agent;
	const struct vm_watch *watch = vm->watch;
	void *data = vm->watch_data;
	char why[600];
	char words[VM_LAST_WORDS] = "";

	proc_exit_text(&e, why, sizeof(why));
	vm_close_qmp(vm);
	vm_close_proc(vm);
	env_timer_stop(vm->agent->env, &vm->reconnect);
	env_timer_stop(vm->agent->env, &vm->timer);
	switch (vm_phase_of(vm)) {
	case VM_P_INCOMING:
		vm_last_words(vm, words, sizeof(words));
		snprintf(why + strlen(why), sizeof(why) - strlen(why), "%s%s",
			 words[0] != '\0' ? "; it wrote: " : "", words);
		vm_change(vm, VM_P_GONE, why);
		vm_remove_files(vm);
		break;
	case VM_P_LEAVING:
		vm_change(vm, VM_P_GONE, why);
		vm_remove_files(vm);
		break;
	case VM_P_NEW:
	case VM_P_STARTING:
	case VM_P_ADOPTING:
	case VM_P_RUNNING:
	case VM_P_PAUSED:
	case VM_P_STOPPING:
	case VM_P_KILLING:
		exit_owned(vm, why);
		break;
	case VM_P_LOST:
	case VM_P_STOPPED:
	case VM_P_FAILED:
	case VM_P_GONE:
	case VM_P_N:
		break;
	}
	if (watch != NULL)
		watch->on_exit(why, data);
	agent_kick(a);
}

static int32_t on_pidfd(int32_t fd, int32_t revents, void *data)
{
	(void)fd;
	(void)revents;
	process_ended(data);
	return 0;
}

void vm_watch_process(struct vm *vm)
{
	if (qb_loop_poll_add(vm->agent->loop, QB_LOOP_HIGH, vm->proc.pidfd, POLLIN, vm, on_pidfd) != 0)
		abort();
}

/* Nothing runs here: say so durably. */
void vm_nothing_here(struct agent *a, const Drover__VmOrder *order, const char *why)
{
	struct vm *vm = vm_make(a, order->name, order->generation, order->spec, order->launch, VM_P_STARTING);

	vm_end(vm, VM_P_STOPPED, why);
}

int vm_kill(struct vm *vm, struct dr_error *err)
{
	if (!proc_is_open(&vm->proc))
		return -DR_ENOENT;
	return proc_kill(&vm->proc, SIGKILL, vm->uuid_text, err);
}

/* ------------------------------------------------ reports */

bool vm_fact(const struct vm *vm, Drover__VmFact *fact)
{
	switch (vm_phase_of(vm)) {
	case VM_P_NEW:
	case VM_P_STARTING:
		fact->state = DROVER__VM_STATE__VM_STARTING;
		break;
	case VM_P_ADOPTING:
		fact->state = DROVER__VM_STATE__VM_STATE_UNKNOWN;
		break;
	case VM_P_RUNNING:
	case VM_P_STOPPING:
	case VM_P_KILLING:
		fact->state = DROVER__VM_STATE__VM_RUNNING;
		break;
	case VM_P_PAUSED:
		fact->state = DROVER__VM_STATE__VM_PAUSED;
		break;
	case VM_P_STOPPED:
		fact->state = DROVER__VM_STATE__VM_STOPPED;
		break;
	case VM_P_FAILED:
		fact->state = DROVER__VM_STATE__VM_FAILED;
		break;
	case VM_P_INCOMING:
	case VM_P_LEAVING:
	case VM_P_LOST:
	case VM_P_GONE:
	case VM_P_N:
		return false;
	}
	fact->name = (char *)(uintptr_t)vm->name;
	fact->uuid.data = (uint8_t *)(uintptr_t)vm->uuid;
	fact->uuid.len = sizeof(vm->uuid);
	fact->generation = vm->generation;
	fact->error = (char *)(uintptr_t)vm->error;
	fact->launch = fact->state == DROVER__VM_STATE__VM_RUNNING ? vm->launch : NULL;
	fact->adopted = vm->adopted;
	return true;
}

void vm_forget(struct vm *vm)
{
	/* The word stays; the row only helps to find a process, and there is none. */
	if (store_vm_delete(vm->agent->store, vm->name) != 0)
		return;
	vm_remove_files(vm);
	vm_free(vm);
}
