#include "common/env_real.h"

#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

struct real_timer {
	struct real_env *owner;
	struct real_timer *next;
	uint64_t id;
	qb_loop_timer_handle handle;
	env_timer_fn fn;
	void *data;
};

struct real_env {
	struct env env;
	qb_loop_t *loop;
	struct real_timer *timers;
	uint64_t last_id;
};

static uint64_t clock_us(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static uint64_t real_now(struct env *env)
{
	(void)env;
	return clock_us(CLOCK_BOOTTIME);
}

static uint64_t real_utc(struct env *env)
{
	(void)env;
	return clock_us(CLOCK_REALTIME);
}

static void real_random(struct env *env, void *buf, size_t len)
{
	char *p = buf;

	(void)env;
	while (len > 0) {
		ssize_t n = getrandom(p, len, 0);

		if (n <= 0)
			abort(); /* no kernel that we run on refuses; guessable keys would be worse */
		p += n;
		len -= (size_t)n;
	}
}

static void unlink_timer(struct real_timer *t)
{
	struct real_timer **at = &t->owner->timers;

	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
}

static void timer_fired(void *data)
{
	struct real_timer *t = data;
	env_timer_fn fn = t->fn;
	void *arg = t->data;

	unlink_timer(t);
	free(t);
	fn(arg);
}

static uint64_t real_timer_start(struct env *env, uint64_t delay_us, env_timer_fn fn, void *data)
{
	struct real_env *r = env->impl;
	struct real_timer *t = calloc(1, sizeof(*t));

	if (t == NULL)
		abort(); /* a lost timer is a lost deadline; restarting is the safe answer */
	t->owner = r;
	t->id = ++r->last_id;
	t->fn = fn;
	t->data = data;
	if (qb_loop_timer_add(r->loop, QB_LOOP_MED, delay_us * 1000, t, timer_fired, &t->handle) != 0)
		abort();
	t->next = r->timers;
	r->timers = t;
	return t->id;
}

static void real_timer_stop(struct env *env, uint64_t id)
{
	struct real_env *r = env->impl;
	struct real_timer *t;

	for (t = r->timers; t != NULL; t = t->next) {
		if (t->id != id)
			continue;
		qb_loop_timer_del(r->loop, t->handle);
		unlink_timer(t);
		free(t);
		return;
	}
}

struct env *env_real_new(qb_loop_t *loop)
{
	struct real_env *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return NULL;
	r->loop = loop;
	r->env = (struct env){
		.impl = r,
		.now_us = real_now,
		.utc_us = real_utc,
		.random = real_random,
		.timer_start = real_timer_start,
		.timer_stop = real_timer_stop,
	};
	return &r->env;
}

void env_real_free(struct env *env)
{
	struct real_env *r;

	if (env == NULL)
		return;
	r = env->impl;
	while (r->timers != NULL)
		real_timer_stop(env, r->timers->id);
	free(r);
}
