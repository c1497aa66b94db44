#include "agent/move_src.h"

#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "agent/move_base.h"
#include "agent/move_src_end.h"
#include "agent/move_src_paths.h"
#include "agent/move_src_token.h"
#include "common/mutant.h"

#define CHECK_MS       30000
#define PATH_RETRY_MS  500
#define MAX_PASSES     60
#define WAIT_LEAST_MS  300
#define WAIT_MOST_MS   1000
#define QEMU_TCG_FIXED 9

#define P(x)   DROVER__MOVE_PHASE__##x
#define BIT(x) FSM_BIT(P(x))

const struct fsm_state move_src_table[] = {
	[P(PHASE_NONE)] = {.name = "PHASE_NONE", .next = BIT(SRC_ASSIGNED)},
	[P(SRC_ASSIGNED)] = {.name = "SRC_ASSIGNED", .next = BIT(SRC_READY) | BIT(SRC_ABORTING)},
	[P(SRC_READY)] = {.name = "SRC_READY", .next = BIT(SRC_CONNECTING) | BIT(SRC_ABORTING)},
	[P(SRC_CONNECTING)] = {.name = "SRC_CONNECTING", .next = BIT(SRC_COPYING) | BIT(SRC_ABORTING)},
	[P(SRC_COPYING)] = {.name = "SRC_COPYING", .next = BIT(SRC_SWITCHING) | BIT(SRC_ABORTING)},
	[P(SRC_SWITCHING)] = {.name = "SRC_SWITCHING", .next = BIT(SRC_COMPLETING) | BIT(SRC_ABORTING)},
	[P(SRC_COMPLETING)] = {.name = "SRC_COMPLETING", .next = BIT(SRC_RELEASED) | BIT(SRC_ABORTING)},
	[P(SRC_RELEASED)] = {.name = "SRC_RELEASED", .next = BIT(SRC_FINISHING) | BIT(SRC_ABORTING)},
	[P(SRC_FINISHING)] = {.name = "SRC_FINISHING", .next = BIT(PHASE_GONE)},
	[P(SRC_ABORTING)] = {.name = "SRC_ABORTING", .next = BIT(PHASE_GONE)},
	[P(PHASE_GONE)] = {.name = "PHASE_GONE", .final = true},
};

static const char *words(const char *text, const char *otherwise)
{
	return text != NULL && text[0] != '\0' ? text : otherwise;
}

/* Before its word the source may give up by itself, without any coordinator (R2). True: it did. */
static bool gave_up(struct move *m)
{
	if (move_aborted(m))
		src_abort(m, "the abort is committed");
	else if (move_failed(m))
		src_abort(m, m->rec.error);
	else
		return false;
	return true;
}

static void enter(struct move *m, Drover__MovePhase phase, const char *why)
{
	if (move_enter(m, phase, why) < 0)
		move_fail(m, DR_EFAILED, false, "the agent's store does not work");
}

/* ---------------------------------------------------------------- the phases */

/* SAFETY R26's other half, and DESIGN §7: live pre-copy of a TCG guest corrupts memory before QEMU 9.0. */
static bool refused(struct move *m)
{
	const Drover__LaunchRecord *launch = m->order->launch;

	if (launch != NULL && launch->accel != NULL && strcmp(launch->accel, "tcg") == 0 &&
	    launch->qemu_major < QEMU_TCG_FIXED && !m->order->spec->allow_tcg_live)
		move_fail(m, DR_EREFUSED, true,
			  "a TCG guest of QEMU %u.%u cannot be moved live without memory corruption; "
			  "allow it with --allow-tcg-live or move it while it is off",
			  launch->qemu_major, launch->qemu_minor);
	return move_failed(m);
}

static void src_assigned(struct move *m)
{
	if (!move_aborted(m))
		refused(m);
	if (gave_up(m))
		return;
	if (m->qemu == MOVE_QEMU_UNKNOWN) {
		m->qemu = MOVE_QEMU_STARTING;
		m->env->qemu_attach(m->env);
		move_timer_start(m, MOVE_TIMER_PHASE, CHECK_MS);
	}
	if (m->qemu != MOVE_QEMU_UP)
		return;
	if (m->run == MOVE_RUN_UNKNOWN) {
		move_poll(m, MOVE_QMP_QUERY_STATUS, MOVE_POLL_MS);
		return;
	}
	if (m->run != MOVE_RUN_RUNNING) {
		move_fail(m, DR_EREFUSED, true, "the VM does not run: only a running VM moves live");
		gave_up(m);
		return;
	}
	if (m->nonces == MOVE_ANSWER_NOT_ASKED) {
		m->nonces = MOVE_ANSWER_WAITING;
		m->env->nonces_write(m->env);
		move_crash_point(m, "nonces");
	}
	if (m->nonces != MOVE_ANSWER_OK)
		return;
	move_timer_stop(m, MOVE_TIMER_PHASE);
	enter(m, P(SRC_READY), "its nonces lie beside the disks");
}

static void src_ready(struct move *m)
{
	if (gave_up(m) || m->order->dst_port == 0)
		return;
	enter(m, P(SRC_CONNECTING), "the destination is prepared");
	if (move_phase(m) != P(SRC_CONNECTING))
		return;
	move_timer_start(m, MOVE_TIMER_PHASE, MOVE_CONNECT_MS);
}

/* Finds QEMU again after a restart; true when it can be asked. */
static bool qemu_ready(struct move *m)
{
	if (m->qemu == MOVE_QEMU_UNKNOWN) {
		m->qemu = MOVE_QEMU_STARTING;
		m->env->qemu_attach(m->env);
		move_timer_start(m, MOVE_TIMER_PHASE, MOVE_CONNECT_MS);
	}
	return m->qemu == MOVE_QEMU_UP;
}

static void src_connecting(struct move *m)
{
	if (gave_up(m))
		return;
	if (m->relay == MOVE_RELAY_NONE) {
		m->relay = MOVE_RELAY_STARTING;
		m->env->relay_start(m->env);
		move_crash_point(m, "relay");
	}
	src_paths(m);
	if (!qemu_ready(m))
		return;
	move_once(m, MOVE_QMP_CAPABILITIES, NULL);
	if (m->answers[MOVE_QMP_CAPABILITIES] != MOVE_ANSWER_OK || m->channel != MOVE_CHANNEL_UP)
		return;
	src_set_limit(m, MOVE_LIMIT_COPY);
	if (m->answers[MOVE_QMP_PARAMETERS] != MOVE_ANSWER_OK || m->seq[MOVE_QMP_PARAMETERS] != 0)
		return;
	move_timer_stop(m, MOVE_TIMER_PHASE);
	if (src_asks_upfront(m))
		src_token_ask(m);
	enter(m, P(SRC_COPYING), "connected");
}

/* The VM is stopped at pre-switchover: the last point where migrate_cancel alone aborts. */
static void pre_switchover(struct move *m)
{
	uint64_t wait_ms = move_blackout_ms(m);
	bool token = src_token_fresh(m);

	if (token && m->env->lease_age_us(m->env) < MOVE_LEASE_FRESH_US) {
		move_timer_stop(m, MOVE_TIMER_STOPPED);
		if (move_phase(m) == P(SRC_COPYING))
			enter(m, P(SRC_SWITCHING), "stopped by QEMU, token in hand");
		if (move_phase(m) == P(SRC_SWITCHING))
			enter(m, P(SRC_COMPLETING), "pre-switchover, token and lease are fresh");
		gave_up(m);
		return;
	}
	if (move_timer_runs(m, MOVE_TIMER_STOPPED))
		return;
	wait_ms = wait_ms < WAIT_LEAST_MS ? WAIT_LEAST_MS : wait_ms > WAIT_MOST_MS ? WAIT_MOST_MS : wait_ms;
	move_log(m, LOG_NOTICE, "stopped at pre-switchover without a fresh %s: waiting at most %llu ms",
		 token ? "lease" : "token", (unsigned long long)wait_ms);
	if (!token)
		src_token_ask(m);
	move_timer_start(m, MOVE_TIMER_STOPPED, wait_ms);
}

static void copying_limits(struct move *m)
{
	bool held = src_token_fresh(m);

	if (move_phase(m) == P(SRC_SWITCHING)) {
		if (m->token == MOVE_TOKEN_NONE && src_near_end(m))
			src_token_ask(m);
		if (m->token == MOVE_TOKEN_HELD)
			src_set_limit(m, MOVE_LIMIT_SWITCH);
		else
			src_set_limit(m, m->token != MOVE_TOKEN_NONE && src_near_end(m) ? MOVE_LIMIT_HOLD
											: MOVE_LIMIT_COPY);
		return;
	}
	if (m->token == MOVE_TOKEN_NONE && src_near_end(m))
		src_token_ask(m);
	if (held && src_near_end(m))
		enter(m, P(SRC_SWITCHING), "token granted: QEMU may stop the VM");
	else if ((m->token == MOVE_TOKEN_HELD || m->token == MOVE_TOKEN_ASKED) && src_far_from_end(m))
		src_token_release(m);
	else if (m->token != MOVE_TOKEN_NONE && src_near_end(m))
		src_set_limit(m,
			      MOVE_LIMIT_HOLD); /* also while it rests after a round that did not converge */
	else
		src_set_limit(m, MOVE_LIMIT_COPY);
}

static void copying_active(struct move *m)
{
	uint64_t near_ms = m->token == MOVE_TOKEN_NONE ? MOVE_POLL_MS : MOVE_POLL_NEAR_MS;

	/* With little known yet, or little left, look often. */
	if (m->figures.total == 0 || m->figures.remaining / 1000 <= m->guest_rate / 1000 * 3)
		near_ms = MOVE_POLL_NEAR_MS;
	move_poll(m, MOVE_QMP_QUERY_MIGRATE, near_ms);
	if (m->channel_lost_us != 0 && move_now(m) - m->channel_lost_us > MOVE_RECONNECT_MS * UINT64_C(1000))
		move_fail(m, DR_EFAILED, false, "no network carried the move for %d s: %s",
			  MOVE_RECONNECT_MS / 1000, words(m->channel_error, "no connection"));
	if (m->figures.passes > MAX_PASSES && m->limit == MOVE_LIMIT_COPY)
		move_fail(m, DR_EFAILED, false, "does not converge: %u passes, the VM dirties %llu MB/s",
			  m->figures.passes, (unsigned long long)(m->figures.dirty_rate / 1000000));
	copying_limits(m);
}

/* COPYING and SWITCHING: QEMU sends; it may stop the VM at any moment, wanted or not. */
static void src_copying(struct move *m)
{
	if (gave_up(m))
		return;
	if (m->restored && m->relay == MOVE_RELAY_NONE) {
		m->relay = MOVE_RELAY_STARTING;
		m->env->relay_attach(m->env);
	}
	if (!qemu_ready(m))
		return;
	if (!m->restored && move_phase(m) == P(SRC_COPYING) &&
	    m->answers[MOVE_QMP_MIGRATE] == MOVE_ANSWER_NOT_ASKED) {
		if (!src_upfront_over(m))
			return;
		move_once(m, MOVE_QMP_MIGRATE, NULL);
		move_crash_point(m, "migrate");
	}
	src_paths(m);
	if (!m->restored && m->answers[MOVE_QMP_MIGRATE] != MOVE_ANSWER_OK) {
		/* Until `migrate` is answered, QEMU speaks of an earlier migration: the one by which the VM
		 * came here, or an attempt that was given up. */
		m->mig = MOVE_MIG_UNKNOWN;
		gave_up(m);
		return;
	}
	switch (m->mig) {
	case MOVE_MIG_NONE:
		if (m->restored)
			move_fail(m, DR_EFAILED, false, "the source's agent restarted before the copy began");
		break;
	case MOVE_MIG_UNKNOWN:
		move_poll(m, MOVE_QMP_QUERY_MIGRATE, MOVE_POLL_NEAR_MS);
		break;
	case MOVE_MIG_SETUP:
	case MOVE_MIG_ACTIVE:
		if (m->restored && m->relay != MOVE_RELAY_STARTING)
			move_timer_stop(m, MOVE_TIMER_PHASE);
		copying_active(m);
		break;
	case MOVE_MIG_PRE_SWITCHOVER:
		src_stopped(m, 0);
		move_timer_stop(m, MOVE_TIMER_PHASE);
		pre_switchover(m);
		return;
	case MOVE_MIG_CANCELLING:
	case MOVE_MIG_CANCELLED:
	case MOVE_MIG_FAILED:
		move_fail(m, DR_EFAILED, false, "QEMU gave the copy up");
		break;
	case MOVE_MIG_DEVICE:
	case MOVE_MIG_COMPLETED:
	case MOVE_MIG_OTHER:
		move_fail(m, DR_EBUG, false, "QEMU is further than it was told");
		break;
	}
	gave_up(m);
}

/* SAFETY R1, R2: the word is given here and nowhere else. */
static void give_word(struct move *m)
{
	if (m->run != MOVE_RUN_POSTMIGRATE && !DR_MUTANT(word_unread)) {
		move_poll(m, MOVE_QMP_QUERY_STATUS, MOVE_POLL_STOPPED_MS);
		return;
	}
	if (m->env->lease_age_us(m->env) >= MOVE_LEASE_FRESH_US && !DR_MUTANT(word_without_lease))
		return; /* MOVE_EV_LEASE brings us back, or R29's timer */
	move_crash_point(m, "postmigrate");
	move_timer_stop(m, MOVE_TIMER_R29);
	move_timer_stop(m, MOVE_TIMER_TOKEN);
	move_timer_stop(m, MOVE_TIMER_POLL);
	m->rec.released = true;
	enter(m, P(SRC_RELEASED), "postmigrate read back: the source's word");
	if (move_phase(m) != P(SRC_RELEASED)) {
		m->rec.released = false;
		gave_up(m);
	}
}

static void src_completing(struct move *m)
{
	if (gave_up(m))
		return;
	if (m->restored && m->relay == MOVE_RELAY_NONE) {
		m->relay = MOVE_RELAY_STARTING;
		m->env->relay_attach(m->env);
	}
	if (m->restored && m->stopped_us == 0)
		src_stopped(m, 0);
	if (!qemu_ready(m))
		return;
	if (m->entered_here && m->answers[MOVE_QMP_MIGRATE_CONTINUE] == MOVE_ANSWER_NOT_ASKED) {
		move_once(m, MOVE_QMP_MIGRATE_CONTINUE, NULL);
		move_crash_point(m, "continue");
	}
	src_paths(m);
	switch (m->mig) {
	case MOVE_MIG_COMPLETED:
		give_word(m);
		return;
	case MOVE_MIG_DEVICE:
		if (DR_MUTANT(word_unread)) {
			give_word(m);
			return;
		}
		move_poll(m, MOVE_QMP_QUERY_MIGRATE, MOVE_POLL_STOPPED_MS);
		return;
	case MOVE_MIG_PRE_SWITCHOVER:
		if (!m->entered_here)
			move_fail(m, DR_EFAILED, false,
				  "the source's agent restarted while the VM was stopped");
		else
			move_poll(m, MOVE_QMP_QUERY_MIGRATE, MOVE_POLL_STOPPED_MS);
		break;
	case MOVE_MIG_UNKNOWN:
		move_poll(m, MOVE_QMP_QUERY_MIGRATE, MOVE_POLL_STOPPED_MS);
		return;
	case MOVE_MIG_NONE:
	case MOVE_MIG_SETUP:
	case MOVE_MIG_ACTIVE:
	case MOVE_MIG_FAILED:
	case MOVE_MIG_CANCELLING:
	case MOVE_MIG_CANCELLED:
	case MOVE_MIG_OTHER:
		move_fail(m, DR_EFAILED, false, "QEMU could not complete the switch-over");
		break;
	}
	gave_up(m);
}

/* R4: only a decision counts. */
static void src_released(struct move *m)
{
	if (m->restored && m->qemu == MOVE_QEMU_UNKNOWN)
		qemu_ready(m);
	if (move_committed(m)) {
		m->rec.committed = true;
		if (move_enter(m, P(SRC_FINISHING), "the move is committed") < 0) {
			m->rec.committed = false;
			move_timer_start(m, MOVE_TIMER_CLEANUP, PATH_RETRY_MS);
		}
	} else if (move_aborted(m)) {
		src_abort(m, "the abort is committed");
	} else if (m->not_named && m->qemu == MOVE_QEMU_DEAD) {
		/* Its host has booted since: the rows have closed this side, and no decision comes any more.
		 */
		src_abort(m, "the coordinator has closed this part, and the VM's QEMU is gone");
	}
}

/* ---------------------------------------------------------------- restarts and events */

/* Restarted in phase P → do X (DESIGN §7): total, no default. */
static void src_restarted(struct move *m)
{
	switch (move_phase(m)) {
	case P(SRC_ASSIGNED):
	case P(SRC_READY):
		break; /* nonces are written again, or wait as before */
	case P(SRC_CONNECTING):
		move_fail(m, DR_EFAILED, false, "the source's agent restarted before the copy began");
		break;
	case P(SRC_COPYING):
	case P(SRC_SWITCHING):
		break; /* QEMU and relay are found again and asked: the copy goes on */
	case P(SRC_COMPLETING):
		break; /* not yet the word: completes or resumes within R29's bound from now */
	case P(SRC_RELEASED):
		if (DR_MUTANT(cont_undecided))
			src_abort(m, "mutant");
		break; /* R4: report, touch nothing */
	case P(SRC_FINISHING):
	case P(SRC_ABORTING):
		break; /* decided, or before the word: go on */
	case P(PHASE_GONE):
		break;
	case P(PHASE_NONE):
	case P(DST_ASSIGNED):
	case P(DST_PREPARING):
	case P(DST_PREPARED):
	case P(DST_LOADING):
	case P(DST_COMPLETED):
	case P(DST_CONTINUING):
	case P(DST_RUNNING):
	case P(DST_ABORTING):
	case _DROVER__MOVE_PHASE_IS_INT_SIZE:
		move_log(m, LOG_ERR, "restored in a phase that is not a source's");
		break;
	}
	m->env->dirty(m->env);
}

static void start(struct move *m)
{
	if (m->restored)
		src_restarted(m);
	else if (move_enter(m, P(SRC_ASSIGNED), "ordered") < 0)
		move_timer_start(m, MOVE_TIMER_PHASE, PATH_RETRY_MS);
}

static bool before_word(const struct move *m)
{
	return move_phase(m) < P(SRC_RELEASED);
}

static bool with_relay(const struct move *m)
{
	return move_phase(m) >= P(SRC_CONNECTING) && before_word(m);
}

static void take_figures(struct move *m, const struct move_event *ev)
{
	const struct move_figures *f = &ev->figures;
	uint64_t now = move_now(m);
	uint64_t elapsed = now - m->figures_us;
	bool held = m->limit == MOVE_LIMIT_HOLD;

	/* What is held says nothing about the link. */
	if (m->figures_us != 0 && elapsed > 0 && f->passes == m->figures.passes &&
	    f->remaining <= m->figures.remaining && !held && !m->figures_held)
		m->guest_rate = (m->figures.remaining - f->remaining) * 1000 / (elapsed / 1000 + 1);
	m->figures = *f;
	m->figures_held = held;
	m->figures_us = now;
	m->rec.stats.passes = f->passes;
	m->rec.stats.bytes_guest = f->transferred;
	m->rec.stats.bytes_remaining = f->remaining;
	m->rec.stats.bytes_total = f->total;
	m->rec.stats.dirty_rate = f->dirty_rate;
	/* For an instant a migration that is completed has no total time yet. */
	if (f->total_time_ms > m->rec.stats.duration_ms)
		m->rec.stats.duration_ms = f->total_time_ms;
}

static void take_qmp(struct move *m, const struct move_event *ev)
{
	const char *text = words(ev->text, "refused");

	if (ev->ok) {
		if (ev->qmp == MOVE_QMP_QUERY_MIGRATE && ev->figures.total != 0)
			take_figures(m, ev);
		if (ev->qmp == MOVE_QMP_QUERY_MIGRATE && ev->text != NULL && ev->mig == MOVE_MIG_FAILED &&
		    before_word(m))
			move_fail(m, DR_EFAILED, false, "QEMU: %s", ev->text);
		return;
	}
	if (ev->qmp == MOVE_QMP_CONT)
		src_cont_failed(m, text);
	else if (before_word(m) && ev->qmp != MOVE_QMP_QUERY_STATUS && ev->qmp != MOVE_QMP_QUERY_MIGRATE)
		move_fail(m, DR_EFAILED, false, "the source's QEMU refused: %s", text);
}

static void phase_deadline(struct move *m)
{
	if (move_phase(m) == P(PHASE_NONE))
		start(m);
	else if (move_phase(m) == P(SRC_ASSIGNED))
		move_fail(m, DR_EFAILED, false, "QEMU and storage did not answer within %d s",
			  CHECK_MS / 1000);
	else if (move_phase(m) == P(SRC_CONNECTING))
		move_fail(m, DR_EFAILED, false, "no network reaches the destination: %s",
			  words(m->channel_error, "relay or QEMU did not answer"));
	else if (before_word(m))
		move_fail(m, DR_EFAILED, false,
			  "the agent restarted and did not find the VM's QEMU or relay again");
}

static void fired(struct move *m, unsigned timer)
{
	if (timer == MOVE_TIMER_PHASE)
		phase_deadline(m);
	else if (timer == MOVE_TIMER_TOKEN && before_word(m))
		src_token_timer(m);
	else if (timer == MOVE_TIMER_STOPPED && with_relay(m) && move_phase(m) < P(SRC_COMPLETING))
		move_fail(m, DR_EFAILED, false, "no %s while the VM was stopped",
			  src_token_fresh(m) ? "fresh lease" : "switch-over token");
	else if (timer == MOVE_TIMER_R29)
		src_r29(m);
}

static void take(struct move *m, const struct move_event *ev)
{
	switch (ev->type) {
	case MOVE_EV_START:
		start(m);
		break;
	case MOVE_EV_ORDER:
		m->not_named = false;
		src_token_look(m);
		break;
	case MOVE_EV_ORDER_LOST:
		m->not_named = true;
		if (before_word(m))
			move_fail(m, DR_EFAILED, false, "the coordinator no longer orders this move");
		break;
	case MOVE_EV_QEMU_EXITED:
		if (before_word(m))
			move_fail(m, DR_EFAILED, true, "the VM's QEMU ended%s%s",
				  ev->text != NULL ? ": " : "", words(ev->text, ""));
		break;
	case MOVE_EV_QMP:
		take_qmp(m, ev);
		break;
	case MOVE_EV_STOP:
		src_stopped(m, ev->at_us);
		break;
	case MOVE_EV_RESUME:
		src_resumed(m);
		break;
	case MOVE_EV_CHANNEL_UP:
		src_path_up(m, ev->path);
		break;
	case MOVE_EV_CHANNEL_FAILED:
		src_path_failed(m, ev);
		break;
	case MOVE_EV_CHANNEL_DOWN:
		src_path_down(m, ev);
		break;
	case MOVE_EV_RELAY_NEED_CHANNEL:
		src_paths_lost(m);
		break;
	case MOVE_EV_RELAY_UP:
		src_paths_found(m, ev->channels);
		if (m->restored && ev->channels == 0 && with_relay(m))
			src_paths_lost(m);
		break;
	case MOVE_EV_RELAY_STATS:
		m->rec.stats.bytes_wire = ev->bytes_wire;
		m->rec.stats.rate = ev->wire_rate;
		break;
	case MOVE_EV_RELAY_FAILED:
	case MOVE_EV_RELAY_GONE:
		if (with_relay(m))
			move_fail(m, DR_EFAILED, false, "the source's relay ended%s%s",
				  ev->text != NULL ? ": " : "", words(ev->text, ""));
		break;
	case MOVE_EV_RELAY_PEER_RESUMED:
		src_peer_resumed(m, ev->at_us);
		break;
	case MOVE_EV_NONCES_WRITTEN:
		if (move_phase(m) != P(SRC_ASSIGNED))
			break;
		if (!ev->ok || move_set_proofs(m, ev->n_proofs, ev->proofs) < 0)
			move_fail(m, ev->exit, false, "%s",
				  words(ev->text, "the storage nonces could not be written"));
		else
			m->nonces = MOVE_ANSWER_OK;
		break;
	case MOVE_EV_TIMER:
		fired(m, ev->timer);
		break;
	case MOVE_EV_LEASE:
	case MOVE_EV_QEMU_UP:
	case MOVE_EV_MIGRATION:
	case MOVE_EV_RELAY_DONE:
	case MOVE_EV_NONCES_CHECKED:
	case MOVE_EV_NONCES_REMOVED:
	case MOVE_EV_CHECKED:
		break;
	}
}

static void step(struct move *m)
{
	switch (move_phase(m)) {
	case P(SRC_ASSIGNED):
		src_assigned(m);
		break;
	case P(SRC_READY):
		src_ready(m);
		break;
	case P(SRC_CONNECTING):
		src_connecting(m);
		break;
	case P(SRC_COPYING):
	case P(SRC_SWITCHING):
		src_copying(m);
		break;
	case P(SRC_COMPLETING):
		src_completing(m);
		break;
	case P(SRC_RELEASED):
		src_released(m);
		break;
	case P(SRC_FINISHING):
		src_finishing(m);
		break;
	case P(SRC_ABORTING):
		src_aborting(m);
		break;
	case P(PHASE_NONE):
	case P(PHASE_GONE):
	case P(DST_ASSIGNED):
	case P(DST_PREPARING):
	case P(DST_PREPARED):
	case P(DST_LOADING):
	case P(DST_COMPLETED):
	case P(DST_CONTINUING):
	case P(DST_RUNNING):
	case P(DST_ABORTING):
	case _DROVER__MOVE_PHASE_IS_INT_SIZE:
		break;
	}
}

void move_src(struct move *m, const struct move_event *ev)
{
	Drover__MovePhase before;

	take(m, ev);
	do {
		before = move_phase(m);
		step(m);
	} while (move_phase(m) != before);
}
