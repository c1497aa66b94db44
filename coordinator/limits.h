/* The limits that operators set (INTERFACE §2, `limit set`): their names, defaults and where they may be set.
 */
#ifndef DROVER_COORDINATOR_LIMITS_H
#define DROVER_COORDINATOR_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/drover.pb-c.h"

struct limit_key {
	const char *name; /* as in LimitSet.mask */
	const char *def;  /* default, in text */
	uint64_t least;
	uint64_t most;
	bool node;    /* may be set for one node */
	bool network; /* may be set for one network */
};

#define LIMITS_KEYS 10
extern const struct limit_key limits_keys[LIMITS_KEYS];

/* NULL: no such limit. */
const struct limit_key *limits_key(const char *name);

/* The value of a field of a LimitSet as text for the setting table; returns buf. */
char *limits_value(const Drover__LimitSet *set, const struct limit_key *key, char *buf, size_t size);

/* Whether the value makes sense; else words about the right form in *why. */
bool limits_check(const Drover__LimitSet *set, const struct limit_key *key, char *why, size_t size);

#endif
