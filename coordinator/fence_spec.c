#include "coordinator/fence_spec.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "coordinator/msg.h"

#define PREFIX	   "fence_"
#define KEY_MAX	   64
#define SECRET_MIN 3 /* shorter values would mask half of any text */

/* A bare name: never a path, never anything that a shell could see. */
static bool agent_valid(const char *name)
{
	size_t len = strlen(name);

	if (strncmp(name, PREFIX, strlen(PREFIX)) != 0 || len == strlen(PREFIX) || len >= FENCE_AGENT_MAX)
		return false;
	return name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0';
}

static bool key_valid(const char *key)
{
	size_t len = strlen(key);

	for (size_t i = 0; i < len; i++) {
		if (!isalnum((unsigned char)key[i]) && key[i] != '_' && key[i] != '-')
			return false;
	}
	return len > 0 && len < KEY_MAX;
}

static bool value_valid(const char *value)
{
	for (const char *p = value; *p != '\0'; p++) {
		if (iscntrl((unsigned char)*p))
			return false;
	}
	return true;
}

static int add_option(char text[FENCE_SPEC_MAX], const Drover__FenceOption *o, struct dr_error *err)
{
	size_t used = strlen(text);
	int n;

	if (!key_valid(o->key))
		return dr_error_set(err, DR_EUSAGE, "'%.64s' can't be an option of a fence agent", o->key);
	if (strcmp(o->key, "action") == 0 || strcmp(o->key, "option") == 0)
		return dr_error_set(err, DR_EUSAGE, "Drover itself says which action a fence agent does");
	if (!value_valid(o->value))
		return dr_error_set(err, DR_EUSAGE, "the value of fence option %s holds a control character",
				    o->key);
	n = snprintf(text + used, FENCE_SPEC_MAX - used, "%s=%s\n", o->key, o->value);
	if (n < 0 || (size_t)n >= FENCE_SPEC_MAX - used)
		return dr_error_set(err, DR_EUSAGE, "the options of the fence agent are longer than %d bytes",
				    FENCE_SPEC_MAX);
	return 0;
}

int fence_spec_build(const Drover__NodeSet *set, char text[FENCE_SPEC_MAX], struct dr_error *err)
{
	text[0] = '\0';
	if (strcmp(set->fence_agent, FENCE_NONE) == 0) {
		if (set->n_fence_options > 0)
			return dr_error_set(err, DR_EUSAGE, "--fence none takes no options");
		return 0;
	}
	if (!agent_valid(set->fence_agent))
		return dr_error_set(
			err, DR_EUSAGE,
			"'%.64s' can't be a fence agent: give the bare name of one (fence_ipmilan), "
			"or none",
			set->fence_agent);
	snprintf(text, FENCE_SPEC_MAX, "%s\n", set->fence_agent);
	for (size_t i = 0; i < set->n_fence_options; i++) {
		int ret = add_option(text, set->fence_options[i], err);

		if (ret < 0)
			return ret;
	}
	return 0;
}

const char *fence_spec_agent(const char *spec, char name[FENCE_AGENT_MAX])
{
	snprintf(name, FENCE_AGENT_MAX, "%.*s", (int)strcspn(spec, "\n"), spec);
	return name;
}

const char *fence_spec_options(const char *spec)
{
	const char *end = strchr(spec, '\n');

	return end != NULL ? end + 1 : spec + strlen(spec);
}

static bool is_secret(const char *key, size_t len)
{
	static const char *const words[] = {"pass", "secret", "token", "key", "community", "auth"};
	char lower[KEY_MAX] = "";

	for (size_t i = 0; i < len && i < KEY_MAX - 1; i++)
		lower[i] = (char)tolower((unsigned char)key[i]);
	for (size_t i = 0; i < DR_ARRAY_SIZE(words); i++) {
		if (strstr(lower, words[i]) != NULL)
			return true;
	}
	return false;
}

char *fence_spec_show(const char *spec)
{
	char name[FENCE_AGENT_MAX];
	size_t size = strlen(spec) + 1;
	char *text;
	size_t used;

	/* Stars may be longer than what they hide. */
	for (const char *p = spec; *p != '\0'; p++)
		size += *p == '\n' ? 4 : 0;
	text = msg_alloc(size);
	used = (size_t)snprintf(text, size, "%s", fence_spec_agent(spec, name));
	for (const char *line = fence_spec_options(spec); *line != '\0';) {
		size_t len = strcspn(line, "\n");
		size_t key = strcspn(line, "=");

		used += (size_t)snprintf(text + used, size - used, ",%.*s%s",
					 (int)(is_secret(line, key) ? key + 1 : len), line,
					 is_secret(line, key) ? "***" : "");
		line += len + (line[len] == '\n');
	}
	return text;
}

void fence_spec_mask(const char *spec, char *text)
{
	for (const char *line = fence_spec_options(spec); *line != '\0';) {
		size_t len = strcspn(line, "\n");
		size_t key = strcspn(line, "=");
		char value[FENCE_SPEC_MAX];
		char *at = text;

		snprintf(value, sizeof(value), "%.*s", (int)(len - key - 1), line + key + 1);
		while (is_secret(line, key) && strlen(value) >= SECRET_MIN &&
		       (at = strstr(at, value)) != NULL)
			memset(at, '*', strlen(value));
		line += len + (line[len] == '\n');
	}
}
