#include "common/env_real.h"

#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define DUE_MAX ((uint64_t)INT64_MAX / 1000) /* in ns, the kernel's greatest time */

struct real_timer {
	struct real_timer *next;
	uint64_t id;
	uint64_t due_us;
	env_timer_fn fn;
	void *data;
};

/*
 * The timers share one timerfd. libqb's own timers are rounded down to whole milliseconds, after which its
 * loop turns without a pause until they are due: half a percent of a core for every ten timers a second. They
 * also stand still while the host is suspended, and now_us does not.
 */
struct real_env {
	struct env env;
	qb_loop_t *loop;
	int fd;
	struct real_timer *timers; /* the next one first */
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

/* For the first timer, or for none. Takes back a readiness that was not looked at yet. */
static void arm(struct real_env *r)
{
	uint64_t due_us = r->timers != NULL ? r->timers->due_us : 0;
	struct itimerspec at = {.it_value = {.tv_sec = (time_t)(due_us / 1000000),
					     .tv_nsec = (long)(due_us % 1000000) * 1000}};

	if (timerfd_settime(r->fd, TFD_TIMER_ABSTIME, &at, NULL) != 0)
		abort(); /* a lost timer is a lost deadline; restarting is the safe answer */
}

/* One timer a turn, so that a callback which starts the next one does not keep the loop from everything else.
 */
static int32_t on_due(int32_t fd, int32_t revents, void *data)
{
	struct real_env *r = data;
	struct real_timer *t = r->timers;

	(void)fd;
	(void)revents;
	if (t == NULL || t->due_us > real_now(&r->env)) {
		arm(r);
		return 0;
	}
	r->timers = t->next;
	arm(r);
	t->fn(t->data);
	free(t);
	return 0;
}

static uint64_t real_timer_start(struct env *env, uint64_t delay_us, env_timer_fn fn, void *data)
{
	struct real_env *r = env->impl;
	struct real_timer *t = calloc(1, sizeof(*t));
	struct real_timer **at = &r->timers;

	if (t == NULL)
		abort();
	t->id = ++r->last_id;
	if (__builtin_add_overflow(real_now(env), delay_us, &t->due_us) || t->due_us > DUE_MAX)
		t->due_us = DUE_MAX;
	t->fn = fn;
	t->data = data;
	while (*at != NULL && (*at)->due_us <= t->due_us)
		at = &(*at)->next;
	t->next = *at;
	*at = t;
	if (r->timers == t)
		arm(r);
	return t->id;
}

static void real_timer_stop(struct env *env, uint64_t id)
{
	struct real_env *r = env->impl;

	for (struct real_timer **at = &r->timers; *at != NULL; at = &(*at)->next) {
		struct real_timer *t = *at;
		bool first = t == r->timers;

		if (t->id != id)
			continue;
		*at = t->next;
		free(t);
		if (first)
			arm(r);
		return;
	}
}

struct env *env_real_new(qb_loop_t *loop)
{
	struct real_env *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return NULL;
	r->loop = loop;
	r->fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	if (r->fd < 0 || qb_loop_poll_add(loop, QB_LOOP_MED, r->fd, POLLIN, r, on_due) != 0) {
		if (r->fd >= 0)
			close(r->fd);
		free(r);
		return NULL;
	}
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
	qb_loop_poll_del(r->loop, r->fd);
	close(r->fd);
	free(r);
}
