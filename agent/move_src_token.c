#include "agent/move_src_token.h"

#include <string.h>

#include "agent/move_src.h"

#define DOWNTIME_MS 1 /* 0 would skip the last dirty sync (measured) */

/* Also while one is held: a grant is good for MOVE_TOKEN_FRESH_US only. */
void src_token_ask(struct move *m)
{
	if (m->token != MOVE_TOKEN_ASKED && m->token != MOVE_TOKEN_HELD) {
		m->token = MOVE_TOKEN_ASKED;
		m->token_since_us = move_now(m);
	}
	m->token_request++;
	m->token_times[m->token_request % MOVE_TOKEN_TIMES] = move_now(m);
	move_timer_start(m, MOVE_TIMER_TOKEN, MOVE_TOKEN_RENEW_US / 1000);
	m->env->dirty(m->env);
}

/* DESIGN §7.4: aged from when the request was sent, so that no delay makes an old grant look new. */
bool src_token_fresh(const struct move *m)
{
	uint32_t granted = m->order->token_granted;

	if (m->token != MOVE_TOKEN_HELD || granted == 0 || m->token_request - granted >= MOVE_TOKEN_TIMES)
		return false;
	return move_now(m) - m->token_times[granted % MOVE_TOKEN_TIMES] < MOVE_TOKEN_FRESH_US;
}

void src_token_look(struct move *m)
{
	uint32_t granted = m->order->token_granted;

	if (granted > m->token_request) { /* of before a restart: never fresh */
		m->token_request = granted;
		memset(m->token_times, 0, sizeof(m->token_times));
		if (m->token == MOVE_TOKEN_ASKED || m->token == MOVE_TOKEN_HELD)
			src_token_ask(m);
		return;
	}
	if (m->token != MOVE_TOKEN_ASKED || granted == 0)
		return;
	m->token = MOVE_TOKEN_HELD;
	if (src_token_fresh(m))
		m->token_since_us = move_now(m);
	else
		m->token = MOVE_TOKEN_ASKED;
}

static void token_return(struct move *m)
{
	m->token = MOVE_TOKEN_RETURNED;
	m->token_rounds++;
	if (m->token_rounds >= MOVE_TOKEN_ROUNDS)
		move_fail(m, DR_EFAILED, false,
			  "does not converge: %llu MB are left, the VM dirties %llu MB/s, the blackout limit "
			  "is %llu ms",
			  (unsigned long long)(m->figures.remaining / 1000000),
			  (unsigned long long)(m->figures.dirty_rate / 1000000),
			  (unsigned long long)move_blackout_ms(m));
	move_timer_start(m, MOVE_TIMER_TOKEN, MOVE_TOKEN_REST_MS);
	m->env->dirty(m->env);
}

/* Asked for up front, and the copy turns out to take a while: others may switch over meanwhile. */
void src_token_release(struct move *m)
{
	m->token = MOVE_TOKEN_RETURNED;
	move_timer_start(m, MOVE_TIMER_TOKEN, MOVE_TOKEN_RELEASE_MS);
	m->env->dirty(m->env);
}

void src_token_timer(struct move *m)
{
	uint64_t timebox_ms = m->order->token_timebox_ms != 0 ? m->order->token_timebox_ms : MOVE_TIMEBOX_MS;

	switch (m->token) {
	case MOVE_TOKEN_HELD:
		if (m->stopped_us == 0 && move_phase(m) == DROVER__MOVE_PHASE__SRC_SWITCHING &&
		    move_now(m) - m->token_since_us > timebox_ms * 1000)
			token_return(m);
		else
			src_token_ask(m);
		break;
	case MOVE_TOKEN_ASKED:
		src_token_ask(m);
		break;
	case MOVE_TOKEN_RETURNED:
		m->token = MOVE_TOKEN_NONE;
		break;
	case MOVE_TOKEN_NONE:
		break;
	}
}

void src_set_limit(struct move *m, enum move_limit limit)
{
	struct move_qmp_args args = {.max_bandwidth = 0, .downtime_limit_ms = DOWNTIME_MS};

	if (m->limit == limit || m->seq[MOVE_QMP_PARAMETERS] != 0)
		return; /* the answer brings us back */
	if (limit == MOVE_LIMIT_HOLD)
		args.max_bandwidth = MOVE_HOLD_BANDWIDTH;
	if (limit == MOVE_LIMIT_SWITCH)
		args.downtime_limit_ms = move_blackout_ms(m);
	m->limit = limit;
	move_ask(m, MOVE_QMP_PARAMETERS, &args);
}

bool src_near_end(const struct move *m)
{
	uint64_t window_ms = move_blackout_ms(m) + MOVE_NEAR_MS;
	/* An attempt that was given up may have been for want of the token: ask while the rate is unknown. */
	uint64_t bytes = m->order->attempt > 1 && m->guest_rate == 0 ? MOVE_SMALL : MOVE_NEAR_BYTES;

	if (m->figures.total == 0)
		return false;
	/* What a slow link carries in a second: who asks earlier keeps others from switching over meanwhile.
	 */
	if (m->guest_rate != 0 && bytes > m->guest_rate)
		bytes = m->guest_rate > MOVE_NEAR_LEAST ? m->guest_rate : MOVE_NEAR_LEAST;
	return m->figures.remaining <= bytes ||
	       m->figures.remaining / 1000 <= m->guest_rate / 1000 * window_ms / 1000;
}

/* More than a second and the blackout limit are left at the rate by which what remains shrinks. */
bool src_far_from_end(const struct move *m)
{
	uint64_t window_ms = move_blackout_ms(m) + MOVE_NEAR_MS + MOVE_TOKEN_RELEASE_MS;

	return m->figures.total != 0 && m->guest_rate != 0 && !src_near_end(m) &&
	       m->figures.remaining / 1000 > m->guest_rate / 1000 * window_ms / 1000;
}

/* Whether this copy may be over before a poll would notice: ask before it starts (see move_src.h). */
bool src_asks_upfront(const struct move *m)
{
	return m->order->src_memory <= MOVE_SMALL;
}

bool src_upfront_over(const struct move *m)
{
	uint64_t wait_ms = m->order->attempt > 1 ? MOVE_UPFRONT_RETRY_MS : MOVE_UPFRONT_MS;

	return m->token != MOVE_TOKEN_ASKED || move_now(m) - m->token_since_us >= wait_ms * 1000;
}
