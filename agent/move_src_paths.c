#include "agent/move_src_paths.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "agent/move_src.h"

#define LOSSES_SAID 10 /* events about networks that come and go, per attempt */

static size_t count(const struct move *m)
{
	return m->order->n_paths < MOVE_PATHS ? m->order->n_paths : MOVE_PATHS;
}

static bool single(const struct move *m)
{
	return m->order->mode != NULL && strcmp(m->order->mode, "tcp") == 0;
}

static const Drover__NetworkPath *path_of(const struct move *m, size_t path)
{
	return m->order->paths[path];
}

/* The best rank with a channel; UINT_MAX: none is up. */
static unsigned rank_in_use(const struct move *m)
{
	unsigned best = UINT_MAX;

	for (size_t i = 0; i < count(m); i++)
		if (m->paths[i].state == MOVE_CHANNEL_UP && path_of(m, i)->rank < best)
			best = path_of(m, i)->rank;
	return best;
}

static unsigned best_rank(const struct move *m)
{
	unsigned best = UINT_MAX;

	for (size_t i = 0; i < count(m); i++)
		if (path_of(m, i)->rank < best)
			best = path_of(m, i)->rank;
	return best;
}

/* Nothing as good is up already. */
static bool needed(const struct move *m, size_t path)
{
	unsigned in_use = rank_in_use(m), rank = path_of(m, path)->rank;

	return single(m) ? rank < in_use : rank <= in_use;
}

/* Is a counted before b? */
static bool before(const struct move *m, size_t a, size_t b)
{
	return path_of(m, a)->rank < path_of(m, b)->rank ||
	       (single(m) && path_of(m, a)->rank == path_of(m, b)->rank && a < b);
}

/*
 * Nothing better is worth waiting for: 0, or when that will be. Better ones that were never tried are tried
 * first in any case.
 */
static uint64_t turn_of(const struct move *m, size_t path)
{
	uint64_t patience = m->channel_lost_us != 0 ? MOVE_PATH_HASTE_MS : MOVE_PATH_PATIENCE_MS;
	uint64_t at = 0;

	for (size_t i = 0; i < count(m); i++) {
		uint64_t end = m->paths[i].tried_us + patience * 1000;

		if (before(m, i, path) && m->paths[i].state == MOVE_CHANNEL_TRYING && move_now(m) < end &&
		    end > at)
			at = end;
	}
	return at;
}

void src_paths(struct move *m)
{
	uint64_t now = move_now(m), wake = 0;

	if (m->relay != MOVE_RELAY_UP)
		return;
	for (size_t i = 0; i < count(m); i++) {
		struct move_path *path = &m->paths[i];
		uint64_t at;

		if (path->state != MOVE_CHANNEL_NONE || !needed(m, i))
			continue;
		at = turn_of(m, i);
		if (at < path->retry_us)
			at = path->retry_us;
		if (at > now) {
			wake = wake == 0 || at < wake ? at : wake;
			continue;
		}
		path->state = MOVE_CHANNEL_TRYING;
		path->tried_us = now;
		m->env->relay_connect(m->env, (unsigned)i);
	}
	if (wake != 0 && (!move_timer_runs(m, MOVE_TIMER_RELAY) || wake != m->paths_at)) {
		m->paths_at = wake;
		move_timer_start(m, MOVE_TIMER_RELAY, (wake - now) / 1000 + 1);
	}
}

static const char *words(const char *text, const char *otherwise)
{
	return text != NULL && text[0] != '\0' ? text : otherwise;
}

/* DESIGN §6: use of anything but the best rank is an event; so is the way back. */
static void say_rank(struct move *m)
{
	unsigned rank = rank_in_use(m), best = best_rank(m);
	const char *network = "?", *wanted = "?";

	if (rank == UINT_MAX || rank == m->rank_said || (m->rank_said == 0 && rank == best))
		return;
	for (size_t i = count(m); i > 0; i--) {
		if (m->paths[i - 1].state == MOVE_CHANNEL_UP && path_of(m, i - 1)->rank == rank)
			network = path_of(m, i - 1)->network;
		if (path_of(m, i - 1)->rank == best)
			wanted = path_of(m, i - 1)->network;
	}
	m->rank_said = rank;
	if (rank == best)
		move_say(m, "uses network %s (rank %u) again", network, rank);
	else
		move_say(m, "uses network %s (rank %u): %s (rank %u) does not work: %s", network, rank,
			 wanted, best, words(m->channel_error, "no answer"));
}

static void look(struct move *m)
{
	m->channel = rank_in_use(m) != UINT_MAX ? MOVE_CHANNEL_UP : MOVE_CHANNEL_NONE;
	m->env->dirty(m->env);
}

void src_path_up(struct move *m, unsigned path)
{
	m->channel = MOVE_CHANNEL_UP;
	m->channel_lost_us = 0;
	if (path >= count(m))
		return;
	m->paths[path] = (struct move_path){.state = MOVE_CHANNEL_UP};
	look(m);
	say_rank(m);
	move_log(m, LOG_INFO, "channel over network %s", path_of(m, path)->network);
}

static void note_error(struct move *m, const struct move_event *ev)
{
	const char *network = ev->path < count(m) ? path_of(m, ev->path)->network : "?";

	snprintf(m->channel_error, sizeof(m->channel_error), "%s: %s", network,
		 words(ev->text, "no connection"));
}

void src_path_down(struct move *m, const struct move_event *ev)
{
	/* After the word the peer closes them one by one: what carried the move stays in its figures. */
	if (move_phase(m) >= DROVER__MOVE_PHASE__SRC_RELEASED || ev->path >= count(m) ||
	    m->paths[ev->path].state != MOVE_CHANNEL_UP)
		return;
	m->paths[ev->path] = (struct move_path){.state = MOVE_CHANNEL_NONE};
	look(m);
	if (!needed(m, ev->path))
		return; /* a better one works */
	note_error(m, ev);
	if (m->channel == MOVE_CHANNEL_UP && m->losses_said++ < LOSSES_SAID)
		move_say(m, "lost network %s, the others carry on: %s", path_of(m, ev->path)->network,
			 words(ev->text, "closed"));
}

void src_path_failed(struct move *m, const struct move_event *ev)
{
	struct move_path *path;

	note_error(m, ev);
	if (ev->path >= count(m))
		return;
	path = &m->paths[ev->path];
	if (path->state != MOVE_CHANNEL_TRYING)
		return;
	path->state = MOVE_CHANNEL_NONE;
	path->wait_ms = path->wait_ms == 0 ? MOVE_PATH_RETRY_MS : path->wait_ms * 2;
	if (path->wait_ms > MOVE_PATH_RETRY_MOST_MS)
		path->wait_ms = MOVE_PATH_RETRY_MOST_MS;
	path->retry_us = move_now(m) + path->wait_ms * 1000;
}

void src_paths_lost(struct move *m)
{
	if (move_phase(m) >= DROVER__MOVE_PHASE__SRC_RELEASED)
		return;
	for (size_t i = 0; i < MOVE_PATHS; i++)
		if (m->paths[i].state == MOVE_CHANNEL_UP)
			m->paths[i] = (struct move_path){.state = MOVE_CHANNEL_NONE};
	look(m);
	if (m->channel_lost_us == 0)
		m->channel_lost_us = move_now(m);
	move_say(m, "every channel of the move is lost; trying again for %d s", MOVE_RECONNECT_MS / 1000);
}

void src_paths_found(struct move *m, unsigned paths)
{
	for (size_t i = 0; i < count(m); i++)
		if ((paths & 1u << i) != 0)
			m->paths[i] = (struct move_path){.state = MOVE_CHANNEL_UP};
	look(m);
	say_rank(m);
}
