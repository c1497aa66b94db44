/* struct env on the real machine: CLOCK_BOOTTIME, getrandom, and timers that cost nothing while they wait. */
#ifndef DROVER_COMMON_ENV_REAL_H
#define DROVER_COMMON_ENV_REAL_H

#include <qb/qbloop.h>

#include "common/env.h"

/* The loop is borrowed and must outlive the env. Returns NULL without memory or descriptors. */
struct env *env_real_new(qb_loop_t *loop);
void env_real_free(struct env *env);

#endif
