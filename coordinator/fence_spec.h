/*
 * A host's fence agent as the replicated state holds it: one text, its first line the agent's name, each
 * further one "key=value" as agents of the usual interface read them on stdin. Values may be passwords: what
 * people see goes through fence_spec_show and fence_spec_mask.
 */
#ifndef DROVER_COORDINATOR_FENCE_SPEC_H
#define DROVER_COORDINATOR_FENCE_SPEC_H

#include <stddef.h>

#include "common/error.h"
#include "proto/drover.pb-c.h"

#define FENCE_SPEC_MAX	2048 /* fits a pipe: written without waiting */
#define FENCE_AGENT_MAX 64
#define FENCE_NONE	"none"

/* The text; "" for FENCE_NONE. -DR_EUSAGE: the agent's name, a key or a value can't be. */
int fence_spec_build(const Drover__NodeSet *set, char text[FENCE_SPEC_MAX], struct dr_error *err);
/* The agent's name. */
const char *fence_spec_agent(const char *spec, char name[FENCE_AGENT_MAX]);
/* What the agent reads. */
const char *fence_spec_options(const char *spec);
/* "fence_ipmilan,ip=10.0.0.1,password=***", malloc'ed. */
char *fence_spec_show(const char *spec);
/* Replaces every secret value of the spec that stands in text by stars of the same length. */
void fence_spec_mask(const char *spec, char *text);

#endif
