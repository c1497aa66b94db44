/*
 * A fake QEMU 7.2 (recipes/qemu.md §8). What it keeps of the real one: it stops the VM by itself
 * when a copy has converged; it resumes by itself when the migration fails before `completed`; a write
 * that blocks in the device phase kills QMP until the socket ends; with a return path it waits for the
 * destination's answer; query-status may still say finish-migrate after `completed`; `cont` is allowed
 * in postmigrate and, with a loaded incoming VM, at once; an incoming one exits when the stream breaks.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define TICK	  (10 * SIM_MS)
#define DEVICE_US 3000

struct qmp_request {
	uint64_t move;
	uint32_t attempt;
	Drover__MoveRole role;
	enum move_qmp cmd;
	uint64_t seq;
	struct move_qmp_args args;
	uint32_t agent_life;
	struct sim_agent *agent;
};

struct sim_qemu *sim_qemu_new(struct sim *sim, struct sim_host *host, int vm, bool incoming)
{
	struct sim_qemu *q = calloc(1, sizeof(*q));

	if (q == NULL || sim->n_qemus == SIM_QEMUS)
		abort();
	sim->qemus[sim->n_qemus++] = q;
	q->sim = sim;
	q->host = host;
	q->vm = vm;
	q->pid = sim->next_pid++;
	q->incoming = incoming;
	q->run = incoming ? MOVE_RUN_INMIGRATE : MOVE_RUN_RUNNING;
	q->mig = MOVE_MIG_NONE;
	q->downtime_ms = 300;
	q->dirty_rate = sim->opt.dirty_rate;
	sim_proc_start(&q->proc);
	return q;
}

bool sim_qemu_runs(const struct sim_qemu *q)
{
	return q->proc.alive && q->run == MOVE_RUN_RUNNING;
}

struct sim_qemu *sim_qemu_by_pid(struct sim *sim, uint64_t pid)
{
	for (unsigned i = 0; i < sim->n_qemus; i++)
		if (pid != 0 && sim->qemus[i]->pid == pid)
			return sim->qemus[i];
	return NULL;
}

static void emit(struct sim_qemu *q, enum move_ev type, enum move_mig mig)
{
	struct move_event ev = {.type = type, .mig = mig};

	sim_agent_qemu_event(q, &ev);
}

static void set_mig(struct sim_qemu *q, enum move_mig mig)
{
	if (q->mig == mig)
		return;
	q->mig = mig;
	sim_trace(q->sim, "qemu %llu vm%d on %s: migration %d, run %d", (unsigned long long)q->pid, q->vm + 1,
		  q->host->name, mig, q->run);
	emit(q, MOVE_EV_MIGRATION, mig);
}

static void vm_stop(struct sim_qemu *q, enum move_run run)
{
	bool ran = q->run == MOVE_RUN_RUNNING;

	q->run = run;
	q->sim->truth_changed = true;
	if (ran) {
		q->stopped_at = q->sim->now;
		emit(q, MOVE_EV_STOP, q->mig);
	}
}

static void vm_start(struct sim_qemu *q)
{
	if (q->run == MOVE_RUN_RUNNING)
		return;
	q->run = MOVE_RUN_RUNNING;
	q->sim->truth_changed = true;
	sim_trace(q->sim, "qemu %llu vm%d RUNS on %s", (unsigned long long)q->pid, q->vm + 1, q->host->name);
	emit(q, MOVE_EV_RESUME, q->mig);
}

static void drop_socket(struct sim_qemu *q)
{
	struct sim_relay *r = q->relay;

	q->relay = NULL;
	q->mig_epoch++;
	if (r != NULL)
		r->qemu = NULL;
}

static void exited(struct sim_qemu *q)
{
	if (!q->proc.alive)
		return;
	sim_trace(q->sim, "qemu %llu vm%d on %s ended", (unsigned long long)q->pid, q->vm + 1, q->host->name);
	sim_proc_kill(&q->proc);
	q->sim->truth_changed = true;
	struct sim_relay *r = q->relay;
	drop_socket(q);
	if (r != NULL && r->peer != NULL && r->peer->qemu != NULL && sim_relay_carries(r))
		sim_qemu_socket_closed(r->peer->qemu);
	sim_agent_qemu_exited(q->host, q);
}

void sim_qemu_kill(struct sim_qemu *q, bool fault)
{
	q->killed = fault;
	exited(q);
}

static void ev_failed(struct sim *sim, struct sim_event *ev)
{
	struct sim_qemu *q = ev->obj;

	(void)sim;
	if (ev->a != q->mig_epoch || q->mig == MOVE_MIG_COMPLETED)
		return;
	q->hung = false;
	set_mig(q, MOVE_MIG_FAILED);
	if (q->was_running)
		vm_start(q);
}

static void ev_incoming_exit(struct sim *sim, struct sim_event *ev)
{
	(void)sim;
	exited(ev->obj);
}

void sim_qemu_socket_closed(struct sim_qemu *q)
{
	if (!q->proc.alive || q->relay == NULL)
		return;
	drop_socket(q);
	if (q->incoming) {
		if (q->mig != MOVE_MIG_COMPLETED)
			sim_post(q->sim, sim_between(q->sim, 100, 2000), &q->proc, ev_incoming_exit, q);
		return;
	}
	if (q->mig == MOVE_MIG_COMPLETED || q->mig == MOVE_MIG_NONE || q->mig == MOVE_MIG_CANCELLED)
		return;
	struct sim_event *ev = sim_post(q->sim, sim_between(q->sim, 200, 4000), &q->proc, ev_failed, q);

	ev->a = q->mig_epoch;
}

/* ---------------------------------------------------------------- the source's copy */

static void ev_tick(struct sim *sim, struct sim_event *ev);

static void tick(struct sim_qemu *q, uint64_t delay)
{
	struct sim_event *ev = sim_post(q->sim, delay, &q->proc, ev_tick, q);

	ev->a = q->mig_epoch;
}

static uint64_t link_rate(const struct sim_qemu *q)
{
	uint64_t rate = SIM_LINK_RATE;

	return q->max_bandwidth != 0 && q->max_bandwidth < rate ? q->max_bandwidth : rate;
}

static void converged(struct sim_qemu *q)
{
	q->was_running = q->run == MOVE_RUN_RUNNING;
	vm_stop(q, MOVE_RUN_FINISH_MIGRATE);
	set_mig(q, MOVE_MIG_PRE_SWITCHOVER);
}

static void ev_tick(struct sim *sim, struct sim_event *ev)
{
	struct sim_qemu *q = ev->obj;
	uint64_t sent = link_rate(q) * TICK / SIM_S;
	uint64_t threshold;

	if (ev->a != q->mig_epoch || (q->mig != MOVE_MIG_ACTIVE && q->mig != MOVE_MIG_SETUP))
		return;
	tick(q, TICK);
	if (q->relay == NULL || !sim_relay_carries(q->relay))
		return; /* blocked, but QMP works and the VM runs */
	if (q->mig == MOVE_MIG_SETUP) {
		set_mig(q, MOVE_MIG_ACTIVE);
		if (q->relay->peer->qemu != NULL)
			sim_qemu_stream_begun(q->relay->peer->qemu);
	}
	q->transferred += sent;
	q->remaining = q->remaining > sent ? q->remaining - sent : 0;
	threshold = link_rate(q) / 1000 * q->downtime_ms;
	if (q->remaining > threshold)
		return;
	/* The sync at the end of a pass: what was dirtied meanwhile comes back. */
	q->passes++;
	q->remaining += q->dirty_rate / 1000 * sim_between(sim, 1, 20);
	if (q->remaining <= threshold)
		converged(q);
}

static void migrate(struct sim_qemu *q, struct sim_relay *r)
{
	q->mig_epoch++;
	q->relay = r;
	r->qemu = q;
	q->remaining = q->sim->opt.memory;
	q->transferred = 0;
	q->passes = 1;
	q->mig_start = q->sim->now;
	set_mig(q, MOVE_MIG_SETUP);
	tick(q, 1000);
}

/* The last of the stream has been written; from here the source waits for the destination's answer. */
static void ev_final(struct sim *sim, struct sim_event *ev)
{
	struct sim_qemu *q = ev->obj;

	(void)sim;
	if (ev->a != q->mig_epoch || q->mig != MOVE_MIG_DEVICE || q->relay == NULL)
		return;
	if (!sim_relay_carries(q->relay)) {
		q->hung = true; /* a blocking write under the big lock */
		sim_trace(q->sim, "qemu %llu hangs in its device phase", (unsigned long long)q->pid);
		return;
	}
	q->hung = false;
	sim_relay_send_final(q->relay);
}

static void device(struct sim_qemu *q)
{
	struct sim_event *ev;

	set_mig(q, MOVE_MIG_DEVICE);
	ev = sim_post(q->sim, sim_between(q->sim, 500, DEVICE_US), &q->proc, ev_final, q);
	ev->a = q->mig_epoch;
}

void sim_qemu_path_changed(struct sim_qemu *q)
{
	struct sim_event *ev;

	if (!q->proc.alive || !q->hung || q->relay == NULL || !sim_relay_carries(q->relay))
		return;
	ev = sim_post(q->sim, 200, &q->proc, ev_final, q);
	ev->a = q->mig_epoch;
}

static void ev_postmigrate(struct sim *sim, struct sim_event *ev)
{
	struct sim_qemu *q = ev->obj;

	(void)sim;
	if (ev->a == q->mig_epoch && q->run == MOVE_RUN_FINISH_MIGRATE)
		q->run = MOVE_RUN_POSTMIGRATE;
}

void sim_qemu_acked(struct sim_qemu *q)
{
	struct sim_event *ev;

	if (!q->proc.alive || q->mig != MOVE_MIG_DEVICE)
		return;
	drop_socket(q);
	set_mig(q, MOVE_MIG_COMPLETED);
	ev = sim_post(q->sim, sim_between(q->sim, 0, 3000), &q->proc, ev_postmigrate, q);
	ev->a = q->mig_epoch;
}

static void ev_cancelled(struct sim *sim, struct sim_event *ev)
{
	struct sim_qemu *q = ev->obj;

	(void)sim;
	if (q->mig != MOVE_MIG_CANCELLING)
		return;
	if (q->was_running || q->run == MOVE_RUN_FINISH_MIGRATE)
		vm_start(q);
	set_mig(q, MOVE_MIG_CANCELLED);
}

static void cancel(struct sim_qemu *q)
{
	struct sim_relay *r = q->relay;

	if (q->mig != MOVE_MIG_SETUP && q->mig != MOVE_MIG_ACTIVE && q->mig != MOVE_MIG_PRE_SWITCHOVER &&
	    q->mig != MOVE_MIG_DEVICE)
		return;
	if (q->mig == MOVE_MIG_SETUP || q->mig == MOVE_MIG_ACTIVE)
		q->was_running = q->run == MOVE_RUN_RUNNING;
	/* QEMU 7.2 looks whether it is cancelled, and then waits before the switch-over. */
	q->unheard =
		q->mig == MOVE_MIG_ACTIVE && !q->incoming && q->was_running && sim_between(q->sim, 0, 7) == 0;
	set_mig(q, MOVE_MIG_CANCELLING);
	drop_socket(q);
	if (r != NULL && r->peer != NULL && r->peer->qemu != NULL && sim_relay_carries(r))
		sim_qemu_socket_closed(r->peer->qemu);
	if (q->unheard)
		vm_stop(q, MOVE_RUN_FINISH_MIGRATE);
	else
		sim_post(q->sim, sim_between(q->sim, 300, 1500), &q->proc, ev_cancelled, q);
}

/* It lets end what was cancelled as it was about to pause. */
static const char *unpause(struct sim_qemu *q)
{
	if (q->mig != MOVE_MIG_CANCELLING)
		return "not in the expected state";
	if (q->unheard)
		sim_post(q->sim, sim_between(q->sim, 300, 1500), &q->proc, ev_cancelled, q);
	q->unheard = false;
	return NULL;
}

/* ---------------------------------------------------------------- the destination */

void sim_qemu_stream_begun(struct sim_qemu *q)
{
	if (q->proc.alive && q->incoming && q->mig == MOVE_MIG_SETUP)
		set_mig(q, MOVE_MIG_ACTIVE);
}

static void ev_loaded(struct sim *sim, struct sim_event *ev)
{
	struct sim_qemu *q = ev->obj;

	(void)sim;
	if (ev->a != q->mig_epoch || q->relay == NULL)
		return;
	q->run = MOVE_RUN_PAUSED;
	set_mig(q, MOVE_MIG_COMPLETED);
	sim_relay_send_ack(q->relay);
	if (q->autostart)
		vm_start(q);
}

void sim_qemu_loaded(struct sim_qemu *q)
{
	struct sim_event *ev;

	if (!q->proc.alive || q->mig == MOVE_MIG_COMPLETED)
		return;
	if (q->mig == MOVE_MIG_SETUP)
		set_mig(q, MOVE_MIG_ACTIVE);
	ev = sim_post(q->sim, sim_between(q->sim, 500, 4000), &q->proc, ev_loaded, q);
	ev->a = q->mig_epoch;
}

/* ---------------------------------------------------------------- QMP */

static const char *cont(struct sim_qemu *q)
{
	switch (q->run) {
	case MOVE_RUN_RUNNING:
		return NULL;
	case MOVE_RUN_INMIGRATE:
		q->autostart = true;
		return NULL;
	case MOVE_RUN_FINISH_MIGRATE:
		return "Migration is not finalized yet";
	case MOVE_RUN_PAUSED:
	case MOVE_RUN_POSTMIGRATE:
	case MOVE_RUN_OTHER:
	case MOVE_RUN_UNKNOWN:
		break;
	}
	vm_start(q);
	return NULL;
}

static void figures(const struct sim_qemu *q, struct move_event *ev)
{
	if (q->incoming || q->mig == MOVE_MIG_NONE)
		return;
	ev->figures = (struct move_figures){.total = q->sim->opt.memory,
					    .remaining = q->remaining,
					    .transferred = q->transferred,
					    .dirty_rate = q->dirty_rate,
					    .rate = link_rate(q),
					    .passes = q->passes,
					    .total_time_ms = (q->sim->now - q->mig_start) / 1000};
}

static const char *execute(struct sim_qemu *q, const struct qmp_request *req, struct move_event *ev)
{
	struct sim_relay *r;

	/* What came by a move has become an ordinary one by the time it is moved on. */
	if (q->incoming && req->role == DROVER__MOVE_ROLE__MOVE_SRC && q->run == MOVE_RUN_RUNNING) {
		q->incoming = false;
		q->mig = MOVE_MIG_NONE;
		q->move = 0;
	}
	switch (req->cmd) {
	case MOVE_QMP_CAPABILITIES:
	case MOVE_QMP_ANNOUNCE:
		return NULL;
	case MOVE_QMP_PARAMETERS:
		q->max_bandwidth = req->args.max_bandwidth;
		if (!q->incoming)
			q->downtime_ms = req->args.downtime_limit_ms;
		return NULL;
	case MOVE_QMP_MIGRATE:
		r = sim_relay_find(q->sim, req->move, req->attempt, req->role);
		if (r == NULL)
			return "no such file descriptor";
		if (!q->incoming && q->run == MOVE_RUN_POSTMIGRATE)
			return "paused due to previous migration";
		if (!q->incoming) {
			migrate(q, r);
			return NULL;
		}
		q->relay = r;
		r->qemu = q;
		set_mig(q, MOVE_MIG_SETUP);
		return NULL;
	case MOVE_QMP_MIGRATE_CONTINUE:
		if (q->mig != MOVE_MIG_PRE_SWITCHOVER)
			return "not in the expected state";
		device(q);
		return NULL;
	case MOVE_QMP_MIGRATE_CANCEL:
		cancel(q);
		return NULL;
	case MOVE_QMP_MIGRATE_UNPAUSE:
		return unpause(q);
	case MOVE_QMP_CONT:
		return cont(q);
	case MOVE_QMP_QUIT:
		sim_post(q->sim, sim_between(q->sim, 1000, 8000), &q->proc, ev_incoming_exit, q);
		return NULL;
	case MOVE_QMP_QUERY_STATUS:
		ev->run = q->run;
		return NULL;
	case MOVE_QMP_QUERY_MIGRATE:
		ev->mig = q->mig;
		figures(q, ev);
		return NULL;
	case MOVE_QMP_N:
		break;
	}
	return "no such command";
}

static void ev_answer(struct sim *sim, struct sim_event *ev)
{
	struct qmp_request *req = ev->msg;
	struct move_event answer = {.type = MOVE_EV_QMP,
				    .qmp = req->cmd,
				    .seq = req->seq,
				    .ok = ev->a != 0,
				    .text = ev->a != 0 ? NULL : ev->text,
				    .run = (enum move_run)ev->b,
				    .mig = (enum move_mig)(ev->c >> 32)};
	struct sim_qemu *q = ev->obj;

	(void)sim;
	if (req->cmd == MOVE_QMP_QUERY_MIGRATE)
		figures(q, &answer);
	sim_agent_event(req->agent, req->move, req->attempt, req->role, &answer);
}

static void ev_request(struct sim *sim, struct sim_event *ev)
{
	struct sim_qemu *q = ev->obj;
	struct qmp_request *req = ev->msg;
	struct move_event answer = {0};
	const char *error;
	struct sim_event *out;

	if (q->hung || ev->a != q->served) { /* QMP waits for the big lock; requests keep their order */
		out = sim_post(sim, q->hung ? 2 * SIM_MS : 100, &q->proc, ev_request, q);
		out->a = ev->a;
		out->msg = req;
		ev->msg = NULL;
		return;
	}
	q->served++;
	error = execute(q, req, &answer);
	if (!q->proc.alive || req->agent_life != req->agent->proc.life)
		return;
	out = sim_post(sim, 60, &req->agent->proc, ev_answer, q);
	out->a = error == NULL;
	out->b = (uint64_t)answer.run;
	out->c = (uint64_t)answer.mig << 32;
	if (error != NULL)
		snprintf(out->text, sizeof(out->text), "%s", error);
	out->msg = req;
	ev->msg = NULL;
}

void sim_qemu_qmp(struct sim_qemu *q, struct sim_agent *agent, uint64_t move, uint32_t attempt,
		  Drover__MoveRole role, enum move_qmp cmd, uint64_t seq, const struct move_qmp_args *args)
{
	struct qmp_request *req = calloc(1, sizeof(*req));
	struct sim_event *ev;

	if (req == NULL)
		abort();
	*req = (struct qmp_request){.move = move,
				    .attempt = attempt,
				    .role = role,
				    .cmd = cmd,
				    .seq = seq,
				    .agent = agent,
				    .agent_life = agent->proc.life};
	q->announced = q->announced || cmd == MOVE_QMP_ANNOUNCE;
	if (args != NULL)
		req->args = *args;
	ev = sim_post(q->sim, 100, &q->proc, ev_request, q);
	ev->a = q->asked++;
	ev->msg = req;
}
