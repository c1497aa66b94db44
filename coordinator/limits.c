#include "coordinator/limits.h"

#include <stdio.h>
#include <string.h>

const struct limit_key limits_keys[LIMITS_KEYS] = {
	{"max_moves", "2", 1, 64, true, false},
	{"max_storage_moves", "2", 1, 64, true, false},
	{"cluster_moves", "0", 0, 10000, false, false},
	{"bandwidth", "0", 0, INT64_MAX, true, true},
	{"mode", "auto", 0, 0, true, true},
	{"encrypt", "1", 0, 1, true, true},
	{"quick_below", "0", 0, 3000, true, false},
	{"on_shutdown", "leave", 0, 0, true, false},
	{"blackout_ms", "300", 1, 3600000, false, false},
	{"drain_attempts", "3", 1, 100, false, false},
};

static const char *const modes[] = {"auto", "tcp", "compress", "multichannel", "rdma", "direct", NULL};
static const char *const shutdowns[] = {"drain", "stop", "leave", NULL};

const struct limit_key *limits_key(const char *name)
{
	for (size_t i = 0; i < LIMITS_KEYS; i++) {
		if (strcmp(limits_keys[i].name, name) == 0)
			return &limits_keys[i];
	}
	return NULL;
}

static uint64_t number(const Drover__LimitSet *set, const char *name)
{
	if (strcmp(name, "max_moves") == 0)
		return set->max_moves;
	if (strcmp(name, "max_storage_moves") == 0)
		return set->max_storage_moves;
	if (strcmp(name, "cluster_moves") == 0)
		return set->cluster_moves;
	if (strcmp(name, "bandwidth") == 0)
		return set->bandwidth;
	if (strcmp(name, "encrypt") == 0)
		return set->encrypt ? 1 : 0;
	if (strcmp(name, "quick_below") == 0)
		return set->quick_below;
	if (strcmp(name, "blackout_ms") == 0)
		return set->blackout_ms;
	return set->drain_attempts;
}

char *limits_value(const Drover__LimitSet *set, const struct limit_key *key, char *buf, size_t size)
{
	if (strcmp(key->name, "mode") == 0)
		snprintf(buf, size, "%s", set->mode);
	else if (strcmp(key->name, "on_shutdown") == 0)
		snprintf(buf, size, "%s", set->on_shutdown);
	else
		snprintf(buf, size, "%llu", (unsigned long long)number(set, key->name));
	return buf;
}

static bool one_of(const char *value, const char *const *words)
{
	for (; *words != NULL; words++) {
		if (strcmp(*words, value) == 0)
			return true;
	}
	return false;
}

bool limits_check(const Drover__LimitSet *set, const struct limit_key *key, char *why, size_t size)
{
	if (strcmp(key->name, "mode") == 0) {
		if (one_of(set->mode, modes))
			return true;
		snprintf(why, size,
			 "mode '%.64s' is unknown: auto, tcp, compress, multichannel, rdma or direct",
			 set->mode);
		return false;
	}
	if (strcmp(key->name, "on_shutdown") == 0) {
		if (one_of(set->on_shutdown, shutdowns))
			return true;
		snprintf(why, size, "on-shutdown '%.64s' is unknown: drain, stop or leave", set->on_shutdown);
		return false;
	}
	if (number(set, key->name) >= key->least && number(set, key->name) <= key->most)
		return true;
	snprintf(why, size, "%s must be from %llu to %llu", key->name, (unsigned long long)key->least,
		 (unsigned long long)key->most);
	return false;
}
