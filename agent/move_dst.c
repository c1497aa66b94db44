#include "agent/move_dst.h"

#include <syslog.h>

#include "agent/move_base.h"
#include "common/mutant.h"

#define PREPARE_MS     60000
#define ATTACH_MS      10000 /* after a restart: QEMU and relay must be found again */
#define POLL_MS	       20
#define POLL_IDLE_MS   200
#define CONT_RETRY_MS  200
#define RELAY_GRACE_MS 5000 /* a stream whose relay is gone ends by itself, or never */

#define P(x)   DROVER__MOVE_PHASE__##x
#define BIT(x) FSM_BIT(P(x))

const struct fsm_state move_dst_table[] = {
	[P(PHASE_NONE)] = {.name = "PHASE_NONE", .next = BIT(DST_ASSIGNED)},
	[P(DST_ASSIGNED)] = {.name = "DST_ASSIGNED", .next = BIT(DST_PREPARING) | BIT(DST_ABORTING)},
	[P(DST_PREPARING)] = {.name = "DST_PREPARING", .next = BIT(DST_PREPARED) | BIT(DST_ABORTING)},
	[P(DST_PREPARED)] = {.name = "DST_PREPARED", .next = BIT(DST_LOADING) | BIT(DST_ABORTING)},
	[P(DST_LOADING)] = {.name = "DST_LOADING", .next = BIT(DST_COMPLETED) | BIT(DST_ABORTING)},
	[P(DST_COMPLETED)] = {.name = "DST_COMPLETED", .next = BIT(DST_CONTINUING) | BIT(DST_ABORTING)},
	[P(DST_CONTINUING)] = {.name = "DST_CONTINUING", .next = BIT(DST_RUNNING) | BIT(PHASE_GONE)},
	[P(DST_RUNNING)] = {.name = "DST_RUNNING", .next = BIT(PHASE_GONE)},
	[P(DST_ABORTING)] = {.name = "DST_ABORTING", .next = BIT(PHASE_GONE)},
	[P(PHASE_GONE)] = {.name = "PHASE_GONE", .final = true},
};

/* Enters ABORTING; when that cannot be recorded, a timer tries again and nothing is touched until then. */
static void abort_now(struct move *m, const char *why)
{
	for (unsigned i = 0; i < MOVE_TIMER_N; i++)
		move_timer_stop(m, (enum move_timer)i);
	if (move_enter(m, P(DST_ABORTING), why) < 0)
		move_timer_start(m, MOVE_TIMER_PHASE, CONT_RETRY_MS);
}

/* Before the word this side may give up by itself: it never ran. True: it did. */
static bool gave_up(struct move *m)
{
	if (move_aborted(m)) {
		abort_now(m, "the abort is committed");
		return true;
	}
	if (move_failed(m)) {
		abort_now(m, m->rec.error);
		return true;
	}
	return false;
}

static void dst_assigned(struct move *m)
{
	if (gave_up(m))
		return;
	if (m->checked == MOVE_ANSWER_NOT_ASKED) {
		m->checked = MOVE_ANSWER_WAITING;
		m->env->check(m->env);
	}
	if (m->checked != MOVE_ANSWER_OK || !m->order->src_ready)
		return;
	if (DR_MUTANT(nonce_unchecked))
		m->nonces = MOVE_ANSWER_OK;
	if (m->nonces == MOVE_ANSWER_NOT_ASKED) {
		m->nonces = MOVE_ANSWER_WAITING;
		m->env->nonces_check(m->env);
	}
	if (m->nonces != MOVE_ANSWER_OK)
		return;
	if (move_enter(m, P(DST_PREPARING), "checks passed, storage is the same") < 0)
		move_fail(m, DR_EFAILED, false, "the agent's store does not work");
	else
		move_timer_start(m, MOVE_TIMER_PHASE, PREPARE_MS);
}

static void dst_preparing(struct move *m)
{
	if (gave_up(m))
		return;
	if (m->qemu == MOVE_QEMU_UNKNOWN) {
		m->qemu = MOVE_QEMU_STARTING;
		m->env->qemu_spawn(m->env);
		move_crash_point(m, "spawn");
	}
	if (m->relay == MOVE_RELAY_NONE) {
		m->relay = MOVE_RELAY_STARTING;
		m->env->relay_start(m->env);
	}
	if (m->qemu != MOVE_QEMU_UP || m->relay != MOVE_RELAY_UP)
		return;
	move_once(m, MOVE_QMP_CAPABILITIES, NULL);
	if (m->answers[MOVE_QMP_CAPABILITIES] != MOVE_ANSWER_OK)
		return;
	move_once(m, MOVE_QMP_PARAMETERS, &(struct move_qmp_args){.max_bandwidth = 0});
	if (m->answers[MOVE_QMP_PARAMETERS] != MOVE_ANSWER_OK)
		return;
	move_once(m, MOVE_QMP_MIGRATE, NULL);
	if (m->answers[MOVE_QMP_MIGRATE] != MOVE_ANSWER_OK)
		return;
	if (move_enter(m, P(DST_PREPARED), "QEMU waits for the stream") < 0)
		move_fail(m, DR_EFAILED, false, "the agent's store does not work");
	else
		move_timer_stop(m, MOVE_TIMER_PHASE);
}

/* After a restart: nothing is known until both have been found again. */
static bool found_again(struct move *m)
{
	if (m->qemu == MOVE_QEMU_UNKNOWN) {
		m->qemu = MOVE_QEMU_STARTING;
		m->env->qemu_attach(m->env);
		move_timer_start(m, MOVE_TIMER_PHASE, ATTACH_MS);
	}
	if (m->relay == MOVE_RELAY_NONE) {
		m->relay = MOVE_RELAY_STARTING;
		m->env->relay_attach(m->env);
	}
	return m->qemu == MOVE_QEMU_UP;
}

static void dst_prepared(struct move *m)
{
	if (gave_up(m))
		return;
	if (!found_again(m))
		return;
	move_poll(m, MOVE_QMP_QUERY_MIGRATE, POLL_IDLE_MS);
	if (m->mig == MOVE_MIG_UNKNOWN || m->mig == MOVE_MIG_NONE || m->mig == MOVE_MIG_SETUP)
		return;
	if (move_enter(m, P(DST_LOADING), "the stream has begun") < 0)
		move_fail(m, DR_EFAILED, false, "the agent's store does not work");
}

/* The word: all loaded, and the VM stands still. */
static void dst_loading(struct move *m)
{
	if (gave_up(m))
		return;
	if (!found_again(m))
		return;
	if (m->relay != MOVE_RELAY_STARTING)
		move_timer_stop(m, MOVE_TIMER_PHASE);
	if (m->mig == MOVE_MIG_FAILED || m->mig == MOVE_MIG_CANCELLED) {
		move_fail(m, DR_EFAILED, false, "the destination's QEMU could not load the VM");
		gave_up(m);
		return;
	}
	if (m->mig != MOVE_MIG_COMPLETED) {
		move_poll(m, MOVE_QMP_QUERY_MIGRATE, POLL_IDLE_MS);
		return;
	}
	if (m->run != MOVE_RUN_PAUSED) {
		move_poll(m, MOVE_QMP_QUERY_STATUS, POLL_MS);
		return;
	}
	move_timer_stop(m, MOVE_TIMER_POLL);
	move_timer_stop(m, MOVE_TIMER_RELAY);
	if (move_enter(m, P(DST_COMPLETED), "completed and paused: the destination's word") < 0)
		move_fail(m, DR_EFAILED, false, "the agent's store does not work");
}

/* R4: only a decision counts here. A QEMU that ended is reported; the decision stays the majority's. */
static void dst_completed(struct move *m)
{
	if (m->restored && m->qemu == MOVE_QEMU_UNKNOWN)
		found_again(m);
	if (m->qemu == MOVE_QEMU_DEAD)
		move_fail(m, DR_EFAILED, false, "the destination's QEMU ended after it had loaded the VM");
	if (move_aborted(m)) {
		abort_now(m, "the abort is committed");
		return;
	}
	if (m->not_named && m->qemu == MOVE_QEMU_DEAD && !move_committed(m)) {
		/* Its host has booted since: the rows have closed this side, and no decision comes any more.
		 */
		abort_now(m, "the coordinator has closed this part, and its QEMU is gone");
		return;
	}
	if (!move_committed(m) && !DR_MUTANT(cont_on_completed))
		return;
	m->rec.committed = true;
	if (move_enter(m, P(DST_CONTINUING), "the move is committed") < 0) {
		m->rec.committed = false;
		move_timer_start(m, MOVE_TIMER_PHASE, CONT_RETRY_MS);
	}
}

/*
 * Whether the VM began to run here. It need not run any more: a guest may panic, shut down or lose its disk
 * right after `cont`; that is the VM's state then, no longer the move's business.
 */
static bool has_run(const struct move *m)
{
	return m->resumed || m->run == MOVE_RUN_RUNNING ||
	       (m->run == MOVE_RUN_OTHER && (m->restored || m->answers[MOVE_QMP_CONT] == MOVE_ANSWER_OK));
}

static void dst_continuing(struct move *m)
{
	found_again(m);
	if (m->qemu == MOVE_QEMU_DEAD) {
		if (!move_relay_end(m))
			return;
		move_say(m, "the destination's QEMU ended before the VM ran");
		if (move_enter(m, P(PHASE_GONE), "its QEMU ended") < 0)
			move_timer_start(m, MOVE_TIMER_PHASE, CONT_RETRY_MS);
		return;
	}
	if (m->qemu != MOVE_QEMU_UP)
		return;
	if (m->restored && m->run == MOVE_RUN_UNKNOWN && !m->resumed) {
		move_poll(m, MOVE_QMP_QUERY_STATUS, POLL_MS);
		return;
	}
	if (has_run(m)) {
		m->env->relay_resumed(m->env);
		move_once(m, DR_MUTANT(no_announce) ? MOVE_QMP_QUERY_STATUS : MOVE_QMP_ANNOUNCE, NULL);
		move_timer_stop(m, MOVE_TIMER_POLL);
		move_timer_stop(m, MOVE_TIMER_PHASE);
		if (move_enter(m, P(DST_RUNNING), "the VM runs here") < 0)
			move_timer_start(m, MOVE_TIMER_PHASE, CONT_RETRY_MS);
		return;
	}
	if (m->answers[MOVE_QMP_CONT] == MOVE_ANSWER_OK) {
		move_poll(m, MOVE_QMP_QUERY_STATUS, POLL_MS);
		return;
	}
	if (!m->env->lease_valid(m->env))
		return; /* R7; MOVE_EV_LEASE brings us back */
	if (m->answers[MOVE_QMP_CONT] == MOVE_ANSWER_NOT_ASKED && !move_timer_runs(m, MOVE_TIMER_CLEANUP)) {
		move_once(m, MOVE_QMP_CONT, NULL);
		move_crash_point(m, "cont");
	}
}

static void dst_running(struct move *m)
{
	if (m->restored && m->relay == MOVE_RELAY_NONE) {
		/* The source may still wait for the word that the VM runs. */
		m->relay = MOVE_RELAY_STARTING;
		m->env->relay_attach(m->env);
		return;
	}
	if (m->relay == MOVE_RELAY_STARTING)
		return;
	if (m->restored && m->relay == MOVE_RELAY_UP)
		m->env->relay_resumed(m->env);
	if (!move_relay_end(m))
		return;
	if (move_enter(m, P(PHASE_GONE), "the VM is this host's") < 0)
		move_timer_start(m, MOVE_TIMER_PHASE, CONT_RETRY_MS);
}

static void dst_aborting(struct move *m)
{
	bool qemu_gone = move_qemu_end(m);
	bool relay_gone = move_relay_end(m);

	if (!qemu_gone || !relay_gone)
		return;
	if (move_enter(m, P(PHASE_GONE), "nothing of it is left") < 0)
		move_timer_start(m, MOVE_TIMER_PHASE, CONT_RETRY_MS);
}

/* Restarted in phase P → do X (DESIGN §7): total, no default. */
static void dst_restarted(struct move *m)
{
	switch (move_phase(m)) {
	case P(DST_ASSIGNED):
		break; /* checks again; nothing was started */
	case P(DST_PREPARING):
		move_fail(m, DR_EFAILED, false,
			  "the destination's agent restarted while it prepared the move");
		break;
	case P(DST_PREPARED):
	case P(DST_LOADING):
		break; /* QEMU and relay are found again, or it fails: the copy goes on */
	case P(DST_COMPLETED):
		break; /* R4: report, touch nothing */
	case P(DST_CONTINUING):
		break; /* recorded only after the commit: cont if it does not run */
	case P(DST_RUNNING):
	case P(DST_ABORTING):
		break; /* clean up */
	case P(PHASE_GONE):
		break;
	case P(PHASE_NONE):
	case P(SRC_ASSIGNED):
	case P(SRC_READY):
	case P(SRC_CONNECTING):
	case P(SRC_COPYING):
	case P(SRC_SWITCHING):
	case P(SRC_COMPLETING):
	case P(SRC_RELEASED):
	case P(SRC_FINISHING):
	case P(SRC_ABORTING):
	case _DROVER__MOVE_PHASE_IS_INT_SIZE:
		move_log(m, LOG_ERR, "restored in a phase that is not a destination's");
		break;
	}
	m->env->dirty(m->env);
}

static void start(struct move *m)
{
	if (m->restored)
		dst_restarted(m);
	else if (move_enter(m, P(DST_ASSIGNED), "ordered") < 0)
		move_timer_start(m, MOVE_TIMER_PHASE, CONT_RETRY_MS);
}

/* Whether losing QEMU or the relay ends the attempt: not after the word. */
static bool before_word(const struct move *m)
{
	return move_phase(m) < P(DST_COMPLETED);
}

static void phase_deadline(struct move *m)
{
	switch (move_phase(m)) {
	case P(DST_PREPARING):
		move_fail(m, DR_EFAILED, false, "the destination was not ready within %d s",
			  PREPARE_MS / 1000);
		break;
	case P(DST_PREPARED):
	case P(DST_LOADING):
		move_fail(m, DR_EFAILED, false,
			  "the agent restarted and did not find QEMU and relay of the move again");
		break;
	case P(PHASE_NONE):
		start(m);
		break;
	case P(DST_ASSIGNED):
	case P(DST_COMPLETED):
	case P(DST_CONTINUING):
	case P(DST_RUNNING):
	case P(DST_ABORTING):
	case P(PHASE_GONE):
	case P(SRC_ASSIGNED):
	case P(SRC_READY):
	case P(SRC_CONNECTING):
	case P(SRC_COPYING):
	case P(SRC_SWITCHING):
	case P(SRC_COMPLETING):
	case P(SRC_RELEASED):
	case P(SRC_FINISHING):
	case P(SRC_ABORTING):
	case _DROVER__MOVE_PHASE_IS_INT_SIZE:
		break;
	}
}

static void fired(struct move *m, unsigned timer)
{
	if (timer == MOVE_TIMER_PHASE)
		phase_deadline(m);
	if (timer == MOVE_TIMER_RELAY && before_word(m))
		move_fail(m, DR_EFAILED, false, "the destination's relay ended before the VM was loaded");
}

static void qmp_failed(struct move *m, const struct move_event *ev)
{
	const char *text = ev->text != NULL ? ev->text : "refused";

	if (ev->qmp == MOVE_QMP_CONT) {
		move_say(m, "QEMU did not continue the VM: %s", text);
		move_timer_start(m, MOVE_TIMER_CLEANUP, CONT_RETRY_MS);
	} else if (move_phase(m) == P(DST_PREPARING)) {
		move_fail(m, DR_EFAILED, false, "the destination's QEMU refused to prepare: %s", text);
	}
}

static void relay_lost(struct move *m)
{
	if (!before_word(m) || move_phase(m) == P(DST_ASSIGNED))
		return;
	if (move_phase(m) == P(DST_LOADING)) {
		/* QEMU may have all of it already; else it sees the end of the stream. */
		if (!move_timer_runs(m, MOVE_TIMER_RELAY))
			move_timer_start(m, MOVE_TIMER_RELAY, RELAY_GRACE_MS);
		return;
	}
	move_fail(m, DR_EFAILED, false, "the destination's relay ended");
}

/* What an event changes beyond what move.c keeps; the phase's own code then looks at the whole. */
static void take(struct move *m, const struct move_event *ev)
{
	switch (ev->type) {
	case MOVE_EV_START:
		start(m);
		break;
	case MOVE_EV_ORDER_LOST:
		m->not_named = true;
		if (before_word(m))
			move_fail(m, DR_EFAILED, false, "the coordinator no longer orders this move");
		break;
	case MOVE_EV_QEMU_EXITED:
		if (before_word(m) && move_phase(m) != P(DST_ASSIGNED))
			move_fail(m, DR_EFAILED, false, "the destination's QEMU ended%s%s",
				  ev->text != NULL ? ": " : "", ev->text != NULL ? ev->text : "");
		break;
	case MOVE_EV_QMP:
		if (!ev->ok)
			qmp_failed(m, ev);
		break;
	case MOVE_EV_CHECKED:
	case MOVE_EV_NONCES_CHECKED:
		if (!ev->ok)
			move_fail(m, ev->exit, ev->exit == DR_EREFUSED && ev->type == MOVE_EV_NONCES_CHECKED,
				  "%s", ev->text != NULL ? ev->text : "refused by the destination");
		else if (ev->type == MOVE_EV_CHECKED)
			m->checked = MOVE_ANSWER_OK;
		else
			m->nonces = MOVE_ANSWER_OK;
		break;
	case MOVE_EV_RELAY_FAILED:
	case MOVE_EV_RELAY_GONE:
		relay_lost(m);
		break;
	case MOVE_EV_TIMER:
		fired(m, ev->timer);
		break;
	case MOVE_EV_RELAY_STATS:
		m->rec.stats.bytes_wire = ev->bytes_wire;
		break;
	case MOVE_EV_RESUME:
		m->resumed = move_phase(m) == P(DST_CONTINUING);
		break;
	case MOVE_EV_ORDER:
		m->not_named = false;
		break;
	case MOVE_EV_MIGRATION:
	case MOVE_EV_LEASE:
	case MOVE_EV_QEMU_UP:
	case MOVE_EV_STOP:
	case MOVE_EV_RELAY_UP:
	case MOVE_EV_CHANNEL_UP:
	case MOVE_EV_CHANNEL_DOWN:
	case MOVE_EV_CHANNEL_FAILED:
	case MOVE_EV_RELAY_NEED_CHANNEL:
	case MOVE_EV_RELAY_DONE:
	case MOVE_EV_RELAY_PEER_RESUMED:
	case MOVE_EV_NONCES_WRITTEN:
	case MOVE_EV_NONCES_REMOVED:
		break;
	}
}

static void step(struct move *m)
{
	switch (move_phase(m)) {
	case P(DST_ASSIGNED):
		dst_assigned(m);
		break;
	case P(DST_PREPARING):
		dst_preparing(m);
		break;
	case P(DST_PREPARED):
		dst_prepared(m);
		break;
	case P(DST_LOADING):
		dst_loading(m);
		break;
	case P(DST_COMPLETED):
		dst_completed(m);
		break;
	case P(DST_CONTINUING):
		dst_continuing(m);
		break;
	case P(DST_RUNNING):
		dst_running(m);
		break;
	case P(DST_ABORTING):
		dst_aborting(m);
		break;
	case P(PHASE_NONE):
	case P(PHASE_GONE):
	case P(SRC_ASSIGNED):
	case P(SRC_READY):
	case P(SRC_CONNECTING):
	case P(SRC_COPYING):
	case P(SRC_SWITCHING):
	case P(SRC_COMPLETING):
	case P(SRC_RELEASED):
	case P(SRC_FINISHING):
	case P(SRC_ABORTING):
	case _DROVER__MOVE_PHASE_IS_INT_SIZE:
		break;
	}
}

void move_dst(struct move *m, const struct move_event *ev)
{
	Drover__MovePhase before;

	take(m, ev);
	do {
		before = move_phase(m);
		step(m);
	} while (move_phase(m) != before);
}
