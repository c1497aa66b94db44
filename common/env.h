/*
 * The only door through which the pure core (coordinator apply, drain, plan and
 * lease; agent move machines) sees time, randomness and timers. The daemons fill
 * it from the real machine (common/env_real.h), the simulator from its seed.
 */
#ifndef DROVER_COMMON_ENV_H
#define DROVER_COMMON_ENV_H

#include <stddef.h>
#include <stdint.h>

struct env;
typedef void (*env_timer_fn)(void *data);

struct env {
	void *impl;
	/* CLOCK_BOOTTIME in microseconds: counts while the host is suspended. */
	uint64_t (*now_us)(struct env *env);
	/* Microseconds since 1970, UTC: shown to people, never compared (R27). */
	uint64_t (*utc_us)(struct env *env);
	void (*random)(struct env *env, void *buf, size_t len);
	/* One-shot timer. Returns an id > 0, never reused. The callback runs from the loop. */
	uint64_t (*timer_start)(struct env *env, uint64_t delay_us, env_timer_fn fn, void *data);
	/* Ends a timer that has not fired; unknown and fired ids are ignored. */
	void (*timer_stop)(struct env *env, uint64_t id);
};

static inline uint64_t env_now_us(struct env *env)
{
	return env->now_us(env);
}

static inline uint64_t env_utc_us(struct env *env)
{
	return env->utc_us(env);
}

static inline void env_random(struct env *env, void *buf, size_t len)
{
	env->random(env, buf, len);
}

static inline uint64_t env_timer_start(struct env *env, uint64_t delay_us, env_timer_fn fn, void *data)
{
	return env->timer_start(env, delay_us, fn, data);
}

static inline void env_timer_stop(struct env *env, uint64_t *id)
{
	if (*id != 0)
		env->timer_stop(env, *id);
	*id = 0;
}

#endif
