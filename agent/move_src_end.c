#include "agent/move_src_end.h"

#include <syslog.h>

#include "agent/move_src.h"
#include "common/mutant.h"

#define RETRY_MS     200
#define BRAKE_MS     500 /* between two tries while an abort waits for QEMU */
#define QUERY_MS     50
#define REMOVE_TRIES 10
#define REMOVE_MS    2000

#define P(x) DROVER__MOVE_PHASE__##x

void src_stopped(struct move *m, uint64_t at_us)
{
	uint64_t bound_us = move_stopped_bound_ms(m) * 1000;
	uint64_t since;

	if (m->stopped_us != 0 || move_phase(m) < P(SRC_COPYING) || move_phase(m) > P(SRC_COMPLETING))
		return;
	m->stopped_us = at_us != 0 ? at_us : move_now(m);
	m->rec.stopped = true;
	m->env->relay_urgent(m->env);
	since = move_now(m) - m->stopped_us;
	move_timer_start(m, MOVE_TIMER_R29, since < bound_us ? (bound_us - since) / 1000 : 0);
}

void src_resumed(struct move *m)
{
	m->stopped_us = 0;
	m->run = MOVE_RUN_UNKNOWN;
	m->seq[MOVE_QMP_QUERY_STATUS] = 0;
	if (move_phase(m) == P(SRC_RELEASED)) {
		move_log(m, LOG_ERR, "QEMU resumed the VM after the source's word");
		return;
	}
	if (move_phase(m) < P(SRC_COPYING) || move_phase(m) > P(SRC_COMPLETING))
		return;
	move_timer_stop(m, MOVE_TIMER_R29);
	move_fail(m, DR_EFAILED, false, "QEMU resumed the VM by itself: the switch-over failed");
}

void src_r29(struct move *m)
{
	if (move_phase(m) == P(SRC_ABORTING)) {
		if (!DR_MUTANT(no_brake))
			m->env->brake(m->env);
		/* What it did not answer it may answer now. */
		m->seq[MOVE_QMP_MIGRATE_CANCEL] = 0;
		m->answers[MOVE_QMP_MIGRATE_CANCEL] = MOVE_ANSWER_NOT_ASKED;
		/*
		 * QEMU 7.2 looks whether it is cancelled, and then pauses before the switch-over: a cancel in
		 * between leaves it waiting for ever, its VM stopped and nothing else accepted. This wakes
		 * it; it is remembered for no later migration.
		 */
		m->seq[MOVE_QMP_MIGRATE_UNPAUSE] = 0;
		move_ask(m, MOVE_QMP_MIGRATE_UNPAUSE, NULL);
		move_timer_start(m, MOVE_TIMER_R29, BRAKE_MS);
		return;
	}
	if (move_phase(m) == P(SRC_FINISHING) && m->peer == MOVE_PEER_WAITED_FOR)
		m->peer = MOVE_PEER_SILENT;
	if (move_phase(m) < P(SRC_COPYING) || move_phase(m) > P(SRC_COMPLETING))
		return;
	move_fail(m, DR_EFAILED, false,
		  "the VM was stopped for %llu ms without completion (blackout limit %llu ms)",
		  (unsigned long long)((move_now(m) - m->stopped_us) / 1000),
		  (unsigned long long)move_blackout_ms(m));
	if (!DR_MUTANT(no_brake))
		m->env->brake(m->env);
}

void src_peer_resumed(struct move *m, uint64_t at_us)
{
	if (at_us == 0)
		at_us = move_now(m);
	if (m->peer == MOVE_PEER_RESUMED)
		return;
	m->peer = MOVE_PEER_RESUMED;
	if (m->stopped_us == 0 || at_us < m->stopped_us)
		return;
	m->rec.stats.blackout_us = at_us - m->stopped_us;
	m->rec.stats.blackout_ms = (m->rec.stats.blackout_us + 999) / 1000;
	m->env->dirty(m->env);
}

void src_abort(struct move *m, const char *why)
{
	bool stopped = m->stopped_us != 0;

	for (unsigned i = 0; i < MOVE_TIMER_N; i++)
		move_timer_stop(m, (enum move_timer)i);
	if (move_enter(m, P(SRC_ABORTING), why) < 0) {
		move_timer_start(m, MOVE_TIMER_PHASE, RETRY_MS);
		return;
	}
	m->token = MOVE_TOKEN_NONE;
	/* A QEMU that hangs in its device phase answers nothing: do not wait for it to say so. */
	if (stopped && m->mig == MOVE_MIG_DEVICE && !DR_MUTANT(no_brake))
		m->env->brake(m->env);
	m->answers[MOVE_QMP_CONT] = MOVE_ANSWER_NOT_ASKED;
	m->answers[MOVE_QMP_MIGRATE_CANCEL] = MOVE_ANSWER_NOT_ASKED;
	if (m->qemu == MOVE_QEMU_UP &&
	    (m->mig == MOVE_MIG_SETUP || m->mig == MOVE_MIG_ACTIVE || m->mig == MOVE_MIG_PRE_SWITCHOVER))
		move_once(m, MOVE_QMP_MIGRATE_CANCEL, NULL);
	move_forget_answers(m);
	move_timer_start(m, MOVE_TIMER_R29, BRAKE_MS);
}

void src_cont_failed(struct move *m, const char *text)
{
	move_say(m, "QEMU did not resume the VM: %s", text);
	move_timer_start(m, MOVE_TIMER_CLEANUP, RETRY_MS);
}

static void resume_by_cont(struct move *m)
{
	if (m->answers[MOVE_QMP_CONT] != MOVE_ANSWER_NOT_ASKED || move_timer_runs(m, MOVE_TIMER_CLEANUP))
		return;
	/* R2: without its word no destination can be told to run the VM: it is this host's, lease or not. */
	if (m->rec.released && !m->env->lease_valid(m->env))
		return; /* R7; MOVE_EV_LEASE brings us back */
	move_once(m, MOVE_QMP_CONT, NULL);
	m->run = MOVE_RUN_UNKNOWN;
	m->seq[MOVE_QMP_QUERY_STATUS] = 0;
	move_crash_point(m, "cont");
}

/* Asks both states until QEMU has answered both after the abort began. */
static bool known(struct move *m)
{
	if (m->mig != MOVE_MIG_UNKNOWN && m->run != MOVE_RUN_UNKNOWN)
		return true;
	if (!move_timer_runs(m, MOVE_TIMER_POLL)) {
		if (m->mig == MOVE_MIG_UNKNOWN)
			move_ask(m, MOVE_QMP_QUERY_MIGRATE, NULL);
		else
			move_ask(m, MOVE_QMP_QUERY_STATUS, NULL);
		move_timer_start(m, MOVE_TIMER_POLL, QUERY_MS);
	}
	return false;
}

/* Looks again soon: both answers are forgotten. */
static void look_again(struct move *m)
{
	if (move_timer_runs(m, MOVE_TIMER_POLL))
		return;
	move_forget_answers(m);
	known(m);
}

/* True when the VM runs again, or there is nothing left that could run. */
static bool vm_back(struct move *m)
{
	if (m->qemu == MOVE_QEMU_DEAD)
		return true;
	if (m->qemu == MOVE_QEMU_UNKNOWN) {
		m->qemu = MOVE_QEMU_STARTING;
		m->env->qemu_attach(m->env);
	}
	if (m->restored && !move_timer_runs(m, MOVE_TIMER_R29))
		move_timer_start(m, MOVE_TIMER_R29, BRAKE_MS);
	if (m->qemu != MOVE_QEMU_UP || !known(m))
		return false;
	switch (m->mig) {
	case MOVE_MIG_SETUP:
	case MOVE_MIG_ACTIVE:
	case MOVE_MIG_PRE_SWITCHOVER:
		if (m->answers[MOVE_QMP_MIGRATE_CANCEL] == MOVE_ANSWER_NOT_ASKED)
			move_once(m, MOVE_QMP_MIGRATE_CANCEL, NULL);
		look_again(m);
		return false;
	case MOVE_MIG_CANCELLING:
	case MOVE_MIG_DEVICE:
		look_again(m);
		return false; /* the brake's timer runs */
	case MOVE_MIG_NONE:
	case MOVE_MIG_COMPLETED:
	case MOVE_MIG_FAILED:
	case MOVE_MIG_CANCELLED:
	case MOVE_MIG_OTHER:
	case MOVE_MIG_UNKNOWN:
		break;
	}
	switch (m->run) {
	case MOVE_RUN_RUNNING:
		return true;
	case MOVE_RUN_POSTMIGRATE:
	case MOVE_RUN_PAUSED:
		resume_by_cont(m);
		if (m->answers[MOVE_QMP_CONT] == MOVE_ANSWER_OK)
			look_again(m);
		return false;
	case MOVE_RUN_FINISH_MIGRATE:
	case MOVE_RUN_INMIGRATE:
	case MOVE_RUN_UNKNOWN:
		look_again(m);
		return false;
	case MOVE_RUN_OTHER:
		break; /* the guest's own trouble (panic, I/O error): not ours to continue */
	}
	return true;
}

/* True when the files are away, or nobody can remove them. */
static bool nonces_end(struct move *m)
{
	if (m->removed == MOVE_ANSWER_OK)
		return true;
	if (move_timer_runs(m, MOVE_TIMER_PHASE))
		return false;
	if (m->remove_tries >= REMOVE_TRIES) {
		move_say(m,
			 "the storage nonces could not be removed: files .drover-nonce-%llu-%u-* may be left",
			 (unsigned long long)m->order->move, m->order->attempt);
		m->removed = MOVE_ANSWER_OK;
		return true;
	}
	m->remove_tries++;
	m->removed = MOVE_ANSWER_WAITING;
	m->env->nonces_remove(m->env);
	move_timer_start(m, MOVE_TIMER_PHASE, REMOVE_MS);
	return false;
}

static void clean_up(struct move *m, const char *why)
{
	bool relay = move_relay_end(m);
	bool nonces = nonces_end(m);

	if (!relay || !nonces)
		return;
	for (unsigned i = 0; i < MOVE_TIMER_N; i++)
		move_timer_stop(m, (enum move_timer)i);
	if (move_enter(m, P(PHASE_GONE), why) < 0)
		move_timer_start(m, MOVE_TIMER_STOPPED, RETRY_MS);
}

void src_aborting(struct move *m)
{
	if (!vm_back(m))
		return;
	move_timer_stop(m, MOVE_TIMER_R29);
	if (m->rec.stopped && m->qemu == MOVE_QEMU_UP) /* R24: switches may have been told otherwise */
		move_once(m, MOVE_QMP_ANNOUNCE, NULL);
	clean_up(m, m->qemu == MOVE_QEMU_DEAD ? "its QEMU is gone" : "the VM runs on here");
}

/* True when the source's QEMU is gone: asked first, then killed (R25). */
static bool quit(struct move *m)
{
	if (m->qemu == MOVE_QEMU_DEAD)
		return true;
	if (m->qemu == MOVE_QEMU_UNKNOWN) {
		m->qemu = MOVE_QEMU_STARTING;
		m->env->qemu_attach(m->env);
		move_timer_start(m, MOVE_TIMER_CLEANUP, MOVE_QUIT_MS);
	}
	if (m->qemu == MOVE_QEMU_UP && m->quit == MOVE_ANSWER_NOT_ASKED) {
		m->quit = MOVE_ANSWER_WAITING;
		move_ask(m, MOVE_QMP_QUIT, NULL);
		move_timer_start(m, MOVE_TIMER_CLEANUP, MOVE_QUIT_MS);
		move_crash_point(m, "quit");
	}
	return move_qemu_end(m);
}

void src_finishing(struct move *m)
{
	bool gone = quit(m);

	if (m->relay == MOVE_RELAY_NONE && m->restored) {
		m->relay = MOVE_RELAY_STARTING;
		m->env->relay_attach(m->env);
	}
	if (m->peer == MOVE_PEER_WAITED_FOR && m->relay == MOVE_RELAY_DEAD)
		m->peer = MOVE_PEER_SILENT;
	if (m->peer == MOVE_PEER_WAITED_FOR && !move_timer_runs(m, MOVE_TIMER_R29))
		move_timer_start(m, MOVE_TIMER_R29, MOVE_PEER_RESUMED_MS);
	if (gone && m->peer != MOVE_PEER_WAITED_FOR)
		clean_up(m, "the VM runs at the destination");
}
