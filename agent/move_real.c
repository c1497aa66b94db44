#include "agent/amove.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/facts.h"
#include "agent/tap.h"
#include "common/cleanup.h"
#include "common/crashpoint.h"
#include "common/log.h"

#define MEMORY_RESERVE (UINT64_C(64) << 20)

static struct amove *amove_of(struct move_env *me)
{
	return me->impl;
}

/* ------------------------------------------------ answers from the loop */

static void on_posted(void *data)
{
	struct posted *p = data;
	struct amove *am = p->am;
	struct posted **at = &am->posted;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	p->timer = 0;
	move_event(am->m, &p->ev);
	free(p);
}

void amove_post(struct amove *am, const struct move_event *ev)
{
	struct posted *p = calloc(1, sizeof(*p));

	if (p == NULL)
		abort();
	p->am = am;
	p->ev = *ev;
	if (ev->text != NULL) {
		snprintf(p->text, sizeof(p->text), "%s", ev->text);
		p->ev.text = p->text;
	}
	p->next = am->posted;
	am->posted = p;
	p->timer = env_timer_start(am->agent->env, 0, on_posted, p);
}

static void post_simple(struct amove *am, enum move_ev type, const char *text)
{
	struct move_event ev = {.type = type, .text = text};

	amove_post(am, &ev);
}

/* ------------------------------------------------ QEMU */

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void on_qemu_up(void *data)
{
	struct amove *am = data;
	struct move_event ev = {.type = MOVE_EV_QEMU_UP};

	move_event(am->m, &ev);
}

static void on_qemu_exit(const char *why, void *data)
{
	struct amove *am = data;
	struct move_event ev = {.type = MOVE_EV_QEMU_EXITED, .text = why};

	close_fd(&am->qemu_fd);
	close_fd(&am->brake_fd);
	move_event(am->m, &ev);
}

static void on_qemu_event(const char *event, const json_t *event_data, uint64_t at_us, void *data)
{
	struct amove *am = data;
	struct move_event ev = {.at_us = at_us};

	if (strcmp(event, "STOP") == 0) {
		ev.type = MOVE_EV_STOP;
	} else if (strcmp(event, "RESUME") == 0) {
		ev.type = MOVE_EV_RESUME;
	} else if (strcmp(event, "MIGRATION") == 0) {
		ev.type = MOVE_EV_MIGRATION;
		ev.mig = amove_mig_status(json_string_value(json_object_get(event_data, "status")));
		/* The relay sees the end of the stream only when our dup is closed, too. */
		if (ev.mig == MOVE_MIG_COMPLETED || ev.mig == MOVE_MIG_FAILED || ev.mig == MOVE_MIG_CANCELLED)
			close_fd(&am->brake_fd);
	} else {
		return;
	}
	move_event(am->m, &ev);
}

/* After the source's word the VM lives on at the destination or is decided about: its QEMU may end. */
static bool is_released(void *data)
{
	const struct amove *am = data;

	return am->role == DROVER__MOVE_ROLE__MOVE_SRC &&
	       (move_phase(am->m) == DROVER__MOVE_PHASE__SRC_RELEASED ||
		move_phase(am->m) == DROVER__MOVE_PHASE__SRC_FINISHING);
}

static const struct vm_watch vm_watch = {
	.on_up = on_qemu_up, .on_event = on_qemu_event, .on_exit = on_qemu_exit, .released = is_released};

void amove_hold(struct amove *am, struct vm *vm)
{
	am->vm = vm;
	vm->watch = &vm_watch;
	vm->watch_data = am;
	am->procs.qemu.pid = vm->proc.pid;
	am->procs.qemu.start_time = vm->proc.start_time;
}

static void qemu_attach(struct move_env *me)
{
	struct amove *am = amove_of(me);

	if (am->vm == NULL) {
		struct vm *vm = vm_find(am->agent, am->vm_name);

		if (vm != NULL && vm->generation == move_order(am->m)->generation && vm_has_process(vm) &&
		    vm->watch == NULL)
			amove_hold(am, vm);
	}
	if (am->vm == NULL || !vm_has_process(am->vm))
		post_simple(am, MOVE_EV_QEMU_EXITED, "its QEMU is not on this host");
	else if (am->vm->up)
		post_simple(am, MOVE_EV_QEMU_UP, NULL);
	else
		vm_connect(am->vm);
}

static int record_qemu(const struct proc *proc, void *data)
{
	struct amove *am = data;
	struct store_move row = am->procs;

	row.order = (Drover__MoveOrder *)(uintptr_t)move_order(am->m);
	row.qemu.pid = proc->pid;
	row.qemu.start_time = proc->start_time;
	am->procs.qemu = row.qemu;
	crash_point("dst-spawn.before_record");
	if (store_move_procs(am->agent->store, &row) != 0)
		return -DR_EIO;
	crash_point("dst-spawn.recorded");
	return 0;
}

static void qemu_spawn(struct move_env *me)
{
	struct amove *am = amove_of(me);
	struct dr_error err = DR_ERROR_INIT;
	struct vm *vm = vm_incoming_start(am->agent, move_order(am->m), record_qemu, am, &err);

	if (vm == NULL)
		post_simple(am, MOVE_EV_QEMU_EXITED, err.text);
	else
		amove_hold(am, vm);
}

static enum move_identity qemu_identity(struct move_env *me)
{
	struct amove *am = amove_of(me);

	if (am->vm == NULL)
		return MOVE_QEMU_GONE;
	switch (proc_check(&am->vm->proc, am->vm->uuid_text)) {
	case -DR_ENOENT:
		return MOVE_QEMU_GONE;
	case -DR_EREFUSED:
		/* The pidfd pins the process; one that answered with the VM's UUID is this VM's. */
		return am->vm->up ? MOVE_QEMU_OURS : MOVE_QEMU_OTHER;
	default:
		return MOVE_QEMU_OURS; /* the kill asks again, and refuses while it cannot be told */
	}
}

static void qemu_kill(struct move_env *me)
{
	struct amove *am = amove_of(me);
	struct dr_error err = DR_ERROR_INIT;
	int rc = am->vm != NULL ? vm_kill(am->vm, &err) : -DR_ENOENT;

	if (rc == -DR_ENOENT && (am->vm == NULL || !vm_has_process(am->vm)))
		post_simple(am, MOVE_EV_QEMU_EXITED, "gone already");
	else if (rc != 0 && rc != -DR_ENOENT)
		/* It lives: the machine asks again. */
		log_error("move %llu/%u vm %s: %s", (unsigned long long)am->id, am->attempt, am->vm_name,
			  err.text);
	/* Else the pidfd tells its end. */
}

static void brake(struct move_env *me)
{
	struct amove *am = amove_of(me);

	if (am->brake_fd >= 0)
		shutdown(am->brake_fd, SHUT_RDWR);
	close_fd(&am->brake_fd);
	if (am->vm != NULL && qmp_ready(am->vm->qmp))
		qmp_exec_oob(am->vm->qmp, "yank", json_pack("{s:[{s:s}]}", "instances", "type", "migration"),
			     AMOVE_QMP_US, NULL, NULL);
	if (am->relay != NULL && relay_running(am->relay))
		relay_say(am->relay, RELAY_BRAKE);
}

/* ------------------------------------------------ relay */

static void on_relay_up(unsigned int channels, void *data)
{
	struct amove *am = data;
	struct move_event ev = {.type = MOVE_EV_RELAY_UP, .channels = channels};

	amove_budget(am->agent);
	move_event(am->m, &ev);
}

static void on_relay_event(const Drover__RelayEvent *re, unsigned int path, void *data)
{
	struct amove *am = data;
	struct move_event ev = {
		.path = path, .text = re->text, .bytes_wire = re->bytes_wire, .wire_rate = re->rate};

	/* Every event carries the figures; the last one before the end is the sum. */
	if (re->kind != DROVER__RELAY_EVENT__KIND__STATS && re->bytes_wire != 0) {
		struct move_event figures = ev;

		figures.type = MOVE_EV_RELAY_STATS;
		move_event(am->m, &figures);
	}
	switch (re->kind) {
	case DROVER__RELAY_EVENT__KIND__STATS:
		ev.type = MOVE_EV_RELAY_STATS;
		break;
	case DROVER__RELAY_EVENT__KIND__CHANNEL_UP:
		amove_budget(am->agent);
		ev.type = MOVE_EV_CHANNEL_UP;
		break;
	case DROVER__RELAY_EVENT__KIND__STREAM_DONE:
		ev.type = MOVE_EV_RELAY_DONE;
		break;
	case DROVER__RELAY_EVENT__KIND__FAILED:
		ev.type = MOVE_EV_RELAY_FAILED;
		break;
	case DROVER__RELAY_EVENT__KIND__PEER_RESUMED:
		ev.type = MOVE_EV_RELAY_PEER_RESUMED;
		ev.at_us = env_now_us(am->agent->env);
		break;
	case DROVER__RELAY_EVENT__KIND__NEED_CHANNEL:
		ev.type = MOVE_EV_RELAY_NEED_CHANNEL;
		break;
	case DROVER__RELAY_EVENT__KIND__CHANNEL_DOWN:
		amove_budget(am->agent);
		ev.type = MOVE_EV_CHANNEL_DOWN;
		break;
	case DROVER__RELAY_EVENT__KIND__READY:
	case DROVER__RELAY_EVENT__KIND__QEMU_CLOSED:
	case _DROVER__RELAY_EVENT__KIND_IS_INT_SIZE:
		return;
	}
	move_event(am->m, &ev);
}

static void on_channel_failed(unsigned int path, const char *why, void *data)
{
	struct amove *am = data;
	struct move_event ev = {.type = MOVE_EV_CHANNEL_FAILED, .path = path, .text = why};

	move_event(am->m, &ev);
}

static void on_relay_gone(const char *why, void *data)
{
	struct amove *am = data;
	struct move_event ev = {.type = MOVE_EV_RELAY_GONE, .text = why};

	amove_budget(am->agent);
	move_event(am->m, &ev);
}

const Drover__MoveOrder *amove_order_of(void *data)
{
	const struct amove *am = data;

	return move_order(am->m);
}

static const struct relay_ops relay_ops = {.order = amove_order_of,
					   .on_up = on_relay_up,
					   .on_event = on_relay_event,
					   .on_channel_failed = on_channel_failed,
					   .on_gone = on_relay_gone};

struct relay *amove_relay(struct amove *am)
{
	if (am->relay == NULL)
		am->relay = relay_new(am->agent, move_order(am->m), &relay_ops, am);
	return am->relay;
}

static int record_relay(const struct proc *proc, void *data)
{
	struct amove *am = data;
	struct store_move row = am->procs;

	row.order = (Drover__MoveOrder *)(uintptr_t)move_order(am->m);
	row.relay.pid = proc->pid;
	row.relay.start_time = proc->start_time;
	am->procs.relay = row.relay;
	return store_move_procs(am->agent->store, &row);
}

static void do_relay_start(struct move_env *me)
{
	struct amove *am = amove_of(me);
	struct dr_error err = DR_ERROR_INIT;

	close_fd(&am->qemu_fd);
	if (relay_start(amove_relay(am), record_relay, am, &am->qemu_fd, &err) != 0)
		post_simple(am, MOVE_EV_RELAY_GONE, err.text);
}

static void do_relay_attach(struct move_env *me)
{
	struct amove *am = amove_of(me);

	int rc = relay_attach(amove_relay(am), am->procs.relay.pid, am->procs.relay.start_time);

	if (rc == -DR_ENOENT) {
		post_simple(am, MOVE_EV_RELAY_GONE, "it ended while the agent was not running");
	} else if (rc != 0) {
		log_error("move %llu/%u: whether its relay (pid %d) lives cannot be told; the agent ends, a "
			  "restart asks again",
			  (unsigned long long)am->id, am->attempt, (int)am->procs.relay.pid);
		abort();
	}
}

static void do_relay_connect(struct move_env *me, unsigned path)
{
	relay_connect(amove_relay(amove_of(me)), path);
}

static void do_relay_urgent(struct move_env *me)
{
	struct amove *am = amove_of(me);

	if (am->relay != NULL)
		relay_say(am->relay, RELAY_URGENT);
	amove_budget(am->agent);
}

static void do_relay_resumed(struct move_env *me)
{
	struct amove *am = amove_of(me);

	if (am->relay != NULL)
		relay_say(am->relay, RELAY_RESUMED);
}

static void do_relay_quit(struct move_env *me, bool kill)
{
	struct amove *am = amove_of(me);

	/* Our end would keep the relay from seeing that QEMU is done. */
	close_fd(&am->brake_fd);
	close_fd(&am->qemu_fd);
	/* One of before a restart of the agent is found by what was recorded. */
	if (!relay_running(am->relay) && am->procs.relay.pid != 0 &&
	    relay_attach(amove_relay(am), am->procs.relay.pid, am->procs.relay.start_time) == -DR_EIO)
		return; /* cannot be told: the machine asks again */
	if (am->relay == NULL || relay_end(am->relay, kill) != 0)
		post_simple(am, MOVE_EV_RELAY_GONE, "not running");
}

/* ------------------------------------------------ disks and checks */

static void post_check(struct amove *am, enum move_ev type, int rc, const struct dr_error *err)
{
	struct move_event ev = {.type = type, .ok = rc == 0, .text = err->text};

	if (rc != 0)
		ev.exit = (uint32_t)dr_err_exit(rc);
	amove_post(am, &ev);
}

static void on_storage(enum storage_what what, const struct storage_result *result, void *data)
{
	static const enum move_ev types[STORAGE_WHATS] = {
		[STORAGE_WRITE] = MOVE_EV_NONCES_WRITTEN,
		[STORAGE_CHECK] = MOVE_EV_NONCES_CHECKED,
		[STORAGE_REMOVE] = MOVE_EV_NONCES_REMOVED,
		[STORAGE_FILES] = MOVE_EV_CHECKED,
	};
	struct amove *am = data;
	struct move_event ev = {.type = types[what], .ok = result->rc == 0, .text = result->text};

	am->job = NULL;
	if (result->rc != 0)
		ev.exit = (uint32_t)dr_err_exit(result->rc);
	ev.proofs = result->proofs;
	ev.n_proofs = result->n_proofs;
	move_event(am->m, &ev);
}

/* One job at a time: what is written is not removed before it is there. The machine asks for a removal again.
 */
static void start_job(struct amove *am, enum storage_what what, enum move_ev failed)
{
	struct dr_error err = DR_ERROR_INIT;

	if (am->job != NULL && what == STORAGE_REMOVE)
		return;
	storage_forget(am->job);
	am->job = storage_start(am->agent->loop, am->agent->env, what, move_order(am->m), STORAGE_US,
				on_storage, am, &err);
	if (am->job == NULL)
		post_check(am, failed, -DR_EIO, &err);
}

static void do_nonces_write(struct move_env *me)
{
	start_job(amove_of(me), STORAGE_WRITE, MOVE_EV_NONCES_WRITTEN);
}

static void do_nonces_check(struct move_env *me)
{
	start_job(amove_of(me), STORAGE_CHECK, MOVE_EV_NONCES_CHECKED);
}

static void do_nonces_remove(struct move_env *me)
{
	start_job(amove_of(me), STORAGE_REMOVE, MOVE_EV_NONCES_REMOVED);
}

static int check_host(struct amove *am, struct dr_error *err)
{
	const Drover__MoveOrder *o = move_order(am->m);
	uint64_t free_memory = facts_memory_available();
	int rc;

	if (o->spec == NULL || o->launch == NULL)
		return dr_error_set(err, DR_EFAILED, "the order has no spec or launch record");
	rc = launch_check(o->launch, &am->agent->caps, err);
	for (size_t i = 0; rc == 0 && i < o->spec->n_nics; i++)
		rc = tap_check_bridge(o->spec->nics[i]->bridge, err);
	if (rc == 0 && o->spec->memory + MEMORY_RESERVE > free_memory)
		rc = dr_error_set(err, DR_EREFUSED, "VM %s needs %llu MiB of memory, %s has %llu MiB free",
				  o->vm, (unsigned long long)(o->spec->memory >> 20), am->agent->conf.name,
				  (unsigned long long)(free_memory >> 20));
	return rc;
}

static void do_check(struct move_env *me)
{
	struct amove *am = amove_of(me);
	struct dr_error err = DR_ERROR_INIT;
	int rc = check_host(am, &err);

	if (rc != 0)
		post_check(am, MOVE_EV_CHECKED, rc, &err);
	else
		start_job(am, STORAGE_FILES, MOVE_EV_CHECKED);
}

/* ------------------------------------------------ the agent */

static void on_release(void *data)
{
	struct amove *am = data;

	am->release_timer = 0;
	amove_release_vm(am);
}

static int record_phase(struct move_env *me, const struct move_record *rec)
{
	struct amove *am = amove_of(me);
	struct store *s = am->agent->store;
	const Drover__MoveOrder *o = move_order(am->m);
	struct store_move row = am->procs;
	bool take = rec->phase == DROVER__MOVE_PHASE__DST_CONTINUING && am->vm != NULL;
	bool leave = rec->phase == DROVER__MOVE_PHASE__SRC_FINISHING && am->vm != NULL;
	int rc = store_begin(s);

	if (am->vm != NULL && vm_has_process(am->vm)) {
		row.qemu.pid = am->vm->proc.pid;
		row.qemu.start_time = am->vm->proc.start_time;
		am->procs.qemu = row.qemu;
	}
	row.order = (Drover__MoveOrder *)(uintptr_t)o;
	row.record = *rec;
	if (rc == 0)
		rc = store_move_put(s, &row);
	if (rc == 0 && take)
		rc = vm_take_record(am->vm, o->generation + 1);
	if (rc == 0 && leave)
		rc = vm_leave_record(am->vm);
	if (rc != 0) {
		store_rollback(s);
		return rc;
	}
	rc = store_commit(s);
	if (rc == 0 && take)
		vm_taken(am->vm, o->generation + 1);
	if (rc == 0 && leave)
		vm_left(am->vm);
	if (rc == 0 && rec->phase == DROVER__MOVE_PHASE__PHASE_GONE && am->release_timer == 0)
		am->release_timer = env_timer_start(am->agent->env, 0, on_release, am);
	return rc;
}

static uint64_t age_of_lease(struct move_env *me)
{
	struct amove *am = amove_of(me);

	return lease_age_us(&am->agent->lease, env_now_us(am->agent->env));
}

static bool has_lease(struct move_env *me)
{
	struct amove *am = amove_of(me);

	return lease_valid(&am->agent->lease, env_now_us(am->agent->env));
}

static void set_dirty(struct move_env *me)
{
	agent_dirty(amove_of(me)->agent);
}

static void add_event(struct move_env *me, const char *text)
{
	struct amove *am = amove_of(me);

	if (am->n_events < AMOVE_EVENTS_MAX)
		am->events[am->n_events++] = strdup(text);
	agent_dirty(am->agent);
}

static void log_line(struct move_env *me, int priority, const char *text)
{
	struct amove *am = amove_of(me);

	qb_log((uint8_t)priority, "move %llu/%u vm %s: %s", (unsigned long long)am->id, am->attempt,
	       am->vm_name, text);
}

static void do_crash_point(struct move_env *me, const char *name)
{
	(void)me;
	crash_point(name);
}

void move_real_init(struct amove *am)
{
	am->qemu_fd = -1;
	am->brake_fd = -1;
	am->me = (struct move_env){.impl = am,
				   .env = am->agent->env,
				   .qemu_attach = qemu_attach,
				   .qemu_spawn = qemu_spawn,
				   .qemu_identity = qemu_identity,
				   .qemu_kill = qemu_kill,
				   .qmp = amove_qmp,
				   .brake = brake,
				   .relay_start = do_relay_start,
				   .relay_attach = do_relay_attach,
				   .relay_connect = do_relay_connect,
				   .relay_urgent = do_relay_urgent,
				   .relay_resumed = do_relay_resumed,
				   .relay_quit = do_relay_quit,
				   .nonces_write = do_nonces_write,
				   .nonces_check = do_nonces_check,
				   .nonces_remove = do_nonces_remove,
				   .check = do_check,
				   .record = record_phase,
				   .lease_age_us = age_of_lease,
				   .lease_valid = has_lease,
				   .dirty = set_dirty,
				   .event = add_event,
				   .log = log_line,
				   .crash_point = do_crash_point};
}

void amove_release_vm(struct amove *am)
{
	struct vm *vm = am->vm;

	if (vm == NULL)
		return;
	am->vm = NULL;
	vm_unwatch(vm);
	if (vm->fsm.state == VM_P_LOST)
		vm_lost_is_failed(vm);
	else if (vm->fsm.state == VM_P_GONE)
		vm_free(vm);
}

void move_real_fini(struct amove *am)
{
	amove_release_vm(am);
	env_timer_stop(am->agent->env, &am->release_timer);
	amove_forget_asked(am);
	while (am->posted != NULL) {
		struct posted *p = am->posted;

		am->posted = p->next;
		env_timer_stop(am->agent->env, &p->timer);
		free(p);
	}
	relay_free(am->relay);
	close_fd(&am->qemu_fd);
	close_fd(&am->brake_fd);
	storage_forget(am->job);
	for (size_t i = 0; i < am->n_events; i++)
		free(am->events[i]);
}
