/* What an attempt under way needs: token, commit, abort (DESIGN §7). */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/drain_private.h"

#include "common/mutant.h"

#define SECOND	       UINT64_C(1000000)
#define LOST_DST_US    (20 * SECOND)
#define LOST_SRC_US    (60 * SECOND)
#define PREPARE_BOX_US (90 * SECOND)
#define STALL_BOX_US   (60 * SECOND)
#define SWITCH_BOX_US  (60 * SECOND)
#define GRANT_US       (2 * SECOND)   /* proposed and not seen applied: it may have been lost */
#define CLEAN_BOX_US   (60 * SECOND)  /* for a host that is down */
#define CLEAN_MAX_US   (300 * SECOND) /* for one that answers */

static void commit(struct pass *p, struct memo *m, const struct attempt_row *t)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdMoveCommit body = DROVER__CMD_MOVE_COMMIT__INIT;

	body.move = t->move;
	body.vm = (char *)(uintptr_t)t->vm;
	body.generation = t->generation;
	body.from = (char *)(uintptr_t)t->src;
	body.to = (char *)(uintptr_t)t->dst;
	body.attempt = t->attempt;
	cmd.body_case = DROVER__COMMAND__BODY_MOVE_COMMIT;
	cmd.move_commit = &body;
	drain_emit(p, m, &cmd, t->attempt);
}

static void abort_with(struct pass *p, struct memo *m, const struct attempt_row *t,
		       Drover__CmdMoveAbort__Outcome outcome, uint32_t exit, const char *fmt, ...)
	__attribute__((format(printf, 6, 7)));

static void abort_with(struct pass *p, struct memo *m, const struct attempt_row *t,
		       Drover__CmdMoveAbort__Outcome outcome, uint32_t exit, const char *fmt, ...)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdMoveAbort body = DROVER__CMD_MOVE_ABORT__INIT;
	char reason[ROWS_ERROR];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(reason, sizeof(reason), fmt, ap);
	va_end(ap);
	body.move = t->move;
	body.attempt = t->attempt;
	body.generation = t->generation;
	body.outcome = outcome;
	body.exit = exit;
	body.reason = reason;
	cmd.body_case = DROVER__COMMAND__BODY_MOVE_ABORT;
	cmd.move_abort = &body;
	drain_emit(p, m, &cmd, t->attempt);
}

/* Another try, until the attempts are used up. A VM that is off by now goes on offline, whatever happened. */
static Drover__CmdMoveAbort__Outcome retry_or_fail(struct pass *p, const struct move_row *move, bool fatal)
{
	struct vm_row vm;

	if (rows_vm(p->db, move->vm, &vm) && rows_vm_off(&vm))
		return DROVER__CMD_MOVE_ABORT__OUTCOME__RETRY;
	if (fatal || move->failures + 1 >= rows_limit(p->db, "cluster", "", "drain_attempts"))
		return DROVER__CMD_MOVE_ABORT__OUTCOME__FAIL;
	return DROVER__CMD_MOVE_ABORT__OUTCOME__RETRY;
}

static bool abort_on_error(struct pass *p, struct memo *m, const struct move_row *move,
			   const struct attempt_row *t)
{
	Drover__CmdMoveAbort__Outcome outcome = retry_or_fail(p, move, t->error_fatal);

	if (t->src_error[0] != '\0')
		abort_with(p, m, t, outcome, t->error_exit, "%s: %.400s", t->src, t->src_error);
	else if (t->dst_error[0] != '\0')
		abort_with(p, m, t, outcome, t->error_exit, "%s: %.400s", t->dst, t->dst_error);
	else if (t->src_gone || t->src_phase == DROVER__MOVE_PHASE__SRC_ABORTING)
		abort_with(p, m, t, outcome, DR_EFAILED, "%s has given up", t->src);
	else if (t->dst_gone || t->dst_phase == DROVER__MOVE_PHASE__DST_ABORTING)
		abort_with(p, m, t, outcome, DR_EFAILED, "%s has given up", t->dst);
	else
		return false;
	return true;
}

/* How long a node has had no agent, by this leader's clock. */
static uint64_t lost_for(struct pass *p, const char *name, uint64_t *since_us)
{
	struct node_row node;

	if (rows_node(p->db, name, &node) && node.session) {
		*since_us = 0;
		return 0;
	}
	if (*since_us == 0)
		*since_us = p->now;
	return p->now - *since_us;
}

static bool abort_on_loss(struct pass *p, struct memo *m, const struct move_row *move,
			  const struct attempt_row *t)
{
	uint64_t src = lost_for(p, t->src, &m->src_lost_us);
	uint64_t dst = lost_for(p, t->dst, &m->dst_lost_us);

	if (dst >= LOST_DST_US)
		abort_with(p, m, t, retry_or_fail(p, move, false), DR_EFAILED, "the agent of %s is lost",
			   t->dst);
	else if (src >= LOST_SRC_US)
		abort_with(p, m, t, retry_or_fail(p, move, false), DR_EFAILED, "the agent of %s is lost",
			   t->src);
	else
		return false;
	return true;
}

/* The source's bytes on the way, from whatever is newest. */
static uint64_t progress_of(struct pass *p, const struct attempt_row *t)
{
	const Drover__MoveFact *fact = NULL;

	if (p->view != NULL && p->view->move_fact != NULL)
		fact = p->view->move_fact(p->view->data, t->move, t->attempt, DROVER__MOVE_ROLE__MOVE_SRC);
	if (fact == NULL || fact->stats == NULL)
		return p->now; /* nothing is known: that is no proof of a stall */
	return fact->stats->bytes_guest + fact->stats->bytes_wire + fact->stats->passes;
}

static bool abort_on_time(struct pass *p, struct memo *m, const struct move_row *move,
			  const struct attempt_row *t)
{
	uint64_t progress = progress_of(p, t);
	uint64_t in_state = p->now - m->since_us;

	if (progress != m->progress) {
		m->progress = progress;
		m->progress_us = p->now;
	}
	if (strcmp(move->state, "copying") == 0 && p->now - m->progress_us >= STALL_BOX_US &&
	    in_state >= STALL_BOX_US)
		abort_with(p, m, t, retry_or_fail(p, move, false), DR_EFAILED,
			   "the copy has made no progress for %llu s",
			   (unsigned long long)(STALL_BOX_US / SECOND));
	else if ((strcmp(move->state, "assigned") == 0 || strcmp(move->state, "preparing") == 0) &&
		 in_state >= PREPARE_BOX_US)
		abort_with(p, m, t, retry_or_fail(p, move, false), DR_EFAILED,
			   "it could not be prepared within %llu s",
			   (unsigned long long)(PREPARE_BOX_US / SECOND));
	else if (strcmp(move->state, "switching") == 0 && in_state >= SWITCH_BOX_US)
		abort_with(p, m, t, retry_or_fail(p, move, false), DR_EFAILED,
			   "the switch-over did not end within %llu s",
			   (unsigned long long)(SWITCH_BOX_US / SECOND));
	else
		return false;
	return true;
}

/*
 * The source gave its word and its VM stands still, but the destination's word does not come: it would have
 * come with the source's. SAFETY R29: no wait of a stopped VM is longer than max(3 × blackout, 1 s).
 */
static bool abort_on_silence(struct pass *p, struct memo *m, const struct move_row *move,
			     const struct attempt_row *t)
{
	Drover__VmSpec *spec;
	uint64_t blackout_ms;
	uint64_t bound_us;

	if (t->src_phase != DROVER__MOVE_PHASE__SRC_RELEASED) {
		m->released_us = 0;
		return false;
	}
	if (m->released_us == 0)
		m->released_us = p->now;
	spec = rows_spec(p->db, t->vm);
	blackout_ms = spec != NULL ? spec->blackout_ms : 0;
	drover__vm_spec__free_unpacked(spec, NULL);
	if (blackout_ms == 0)
		blackout_ms = rows_limit(p->db, "cluster", "", "blackout_ms");
	bound_us = 3 * blackout_ms * 1000 > SECOND ? 3 * blackout_ms * 1000 : SECOND;
	if (p->now - m->released_us < bound_us)
		return false;
	abort_with(p, m, t, retry_or_fail(p, move, false), DR_EFAILED,
		   "%s has not confirmed that it has the whole VM", t->dst);
	return true;
}

/* DESIGN §9: moves towards a node that is being emptied are taken back and planned anew. */
static bool abort_on_drained_target(struct pass *p, struct memo *m, const struct move_row *move,
				    const struct attempt_row *t)
{
	struct drain_row drain;

	if (strcmp(move->state, "switching") == 0 || !rows_drain_of(p->db, t->dst, false, &drain))
		return false;
	abort_with(p, m, t, DROVER__CMD_MOVE_ABORT__OUTCOME__REQUEUE, DR_EREFUSED, "%s is being drained",
		   t->dst);
	return true;
}

static bool link_is_free(struct pass *p, const struct attempt_row *t)
{
	return DR_MUTANT(two_tokens) ||
	       !db_exists(p->db,
			  "SELECT 1 FROM move_attempt WHERE token_held = 1 AND decision = 0 AND network = ?"
			  " AND (src_gone = 0 AND src = ? OR dst_gone = 0 AND dst = ?)"
			  " AND NOT (move = ? AND attempt = ?)",
			  "sssuu", t->network, t->src, t->dst, t->move, (uint64_t)t->attempt);
}

/* Until it is applied, the rows do not show it: a second one for the link would be refused. */
static bool grant_under_way(const struct pass *p, const struct memo *mine, const char *network)
{
	for (size_t i = 0; i < p->s->n_memos; i++) {
		const struct memo *m = &p->s->memos[i];

		if (m != mine && m->proposed && p->now - m->proposed_us < GRANT_US &&
		    strcmp(m->token_network, network) == 0)
			return true;
	}
	return false;
}

static void give_token(struct pass *p, struct memo *m, const struct attempt_row *t)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdMoveSwitch body = DROVER__CMD_MOVE_SWITCH__INIT;

	if (t->token_request > t->token_granted) {
		if (t->src_phase < DROVER__MOVE_PHASE__SRC_CONNECTING ||
		    t->src_phase > DROVER__MOVE_PHASE__SRC_COMPLETING || !link_is_free(p, t) ||
		    grant_under_way(p, m, t->network))
			return;
		body.token = t->token_request;
	} else if (!t->token_held || !t->token_returned) {
		return;
	}
	body.move = t->move;
	body.attempt = t->attempt;
	cmd.body_case = DROVER__COMMAND__BODY_MOVE_SWITCH;
	cmd.move_switch = &body;
	if (drain_emit(p, m, &cmd, body.token) && body.token != 0)
		memcpy(m->token_network, t->network, sizeof(m->token_network));
}

/* Decided for abort, and its source does not say that it is gone. */
static void decide_cancelling(struct pass *p, struct memo *m, const struct move_row *move,
			      const struct attempt_row *t)
{
	struct node_row src;
	uint64_t in_state = p->now - m->since_us;
	bool down = !rows_node(p->db, t->src, &src) || !src.session;

	if (in_state >= (down ? CLEAN_BOX_US : CLEAN_MAX_US))
		drain_fail_move(p, m, move, move->exit != 0 ? move->exit : DR_EFAILED,
				"%.300s (and %s has not cleaned up)", move->error, t->src);
}

void drain_decide_attempt(struct pass *p, const struct move_row *move)
{
	struct memo *m = drain_memo(p->s, move->id);
	struct attempt_row t;

	if (!rows_attempt(p->db, move->id, move->attempt, &t))
		return;
	switch (t.decision) {
	case DROVER__MOVE_DECISION__DECISION_COMMIT:
	case _DROVER__MOVE_DECISION_IS_INT_SIZE:
		return;
	case DROVER__MOVE_DECISION__DECISION_ABORT:
		if (strcmp(move->state, "cancelling") == 0)
			decide_cancelling(p, m, move, &t);
		return;
	case DROVER__MOVE_DECISION__DECISION_NONE:
		break;
	}
	if (rows_both_words(&t)) {
		commit(p, m, &t);
		return;
	}
	if (abort_on_error(p, m, move, &t) || abort_on_silence(p, m, move, &t) ||
	    abort_on_drained_target(p, m, move, &t) || abort_on_loss(p, m, move, &t) ||
	    abort_on_time(p, m, move, &t))
		return;
	give_token(p, m, &t);
}
