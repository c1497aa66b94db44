#include "common/names.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "common/units.h"

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

bool names_valid(const char *name)
{
	size_t len = strlen(name);

	return len >= 1 && len <= NAMES_MAX && strchr(LETTERS, name[0]) != NULL &&
	       strspn(name, LETTERS "._-") == len;
}

int names_check(const char *name, const char *what, struct dr_error *err)
{
	if (names_valid(name))
		return 0;
	return dr_error_set(
		err, DR_EUSAGE,
		"\"%.80s\" is no %s name: 1 to %d of a-z A-Z 0-9 . _ -, starting with a letter or digit",
		name, what, NAMES_MAX);
}

static bool host_valid(const char *host)
{
	struct in6_addr v6;
	size_t len = strlen(host);

	if (strchr(host, ':') != NULL)
		return inet_pton(AF_INET6, host, &v6) == 1;
	return len >= 1 && len <= NAMES_HOST && strchr(LETTERS, host[0]) != NULL &&
	       strspn(host, LETTERS ".-") == len;
}

static int address_refuse(const char *text, struct dr_error *err)
{
	return dr_error_set(err, DR_EUSAGE,
			    "\"%.80s\" is no address: give HOST or HOST:PORT, such as 10.0.0.1, node2:7420 "
			    "or [fe80::1]:7420",
			    text);
}

int names_address(const char *text, uint16_t default_port, char out[NAMES_ADDRESS], struct dr_error *err)
{
	char host[NAMES_HOST + 1];
	const char *port = NULL;
	uint64_t number = default_port;
	size_t len;

	if (text[0] == '[') {
		const char *end = strchr(text, ']');

		if (end == NULL || (end[1] != '\0' && end[1] != ':'))
			return address_refuse(text, err);
		len = (size_t)(end - text - 1);
		port = end[1] == ':' ? end + 2 : NULL;
		text++;
	} else {
		const char *colon = strchr(text, ':');

		len = strlen(text);
		/* More than one colon without brackets: an IPv6 address. */
		if (colon != NULL && strchr(colon + 1, ':') == NULL) {
			len = (size_t)(colon - text);
			port = colon + 1;
		}
	}
	if (len == 0 || len >= sizeof(host))
		return address_refuse(text, err);
	memcpy(host, text, len);
	host[len] = '\0';
	if (!host_valid(host) || (port != NULL && units_number_parse(port, 1, 65535, &number, NULL) < 0))
		return address_refuse(text, err);
	snprintf(out, NAMES_ADDRESS, strchr(host, ':') != NULL ? "[%s]:%u" : "%s:%u", host, (unsigned)number);
	return 0;
}

/* Levenshtein distance, words cut at NAMES_MAX. */
static size_t distance(const char *a, const char *b)
{
	size_t row[NAMES_MAX + 1];
	size_t len_a = strnlen(a, NAMES_MAX), len_b = strnlen(b, NAMES_MAX);

	for (size_t j = 0; j <= len_b; j++)
		row[j] = j;
	for (size_t i = 1; i <= len_a; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= len_b; j++) {
			size_t best = diagonal + (a[i - 1] != b[j - 1]);

			if (row[j] + 1 < best)
				best = row[j] + 1;
			if (row[j - 1] + 1 < best)
				best = row[j - 1] + 1;
			diagonal = row[j];
			row[j] = best;
		}
	}
	return row[len_b];
}

const char *names_nearest(const char *word, const char *const *words, size_t n)
{
	const char *nearest = NULL;
	size_t least = strlen(word) / 2 + 1;

	for (size_t i = 0; i < n; i++) {
		size_t d = distance(word, words[i]);

		/* "dr" for "drain": a beginning is near whatever its length. */
		if (strlen(word) >= 2 && strncmp(word, words[i], strlen(word)) == 0)
			d = 1;
		if (d < least || (d == least && nearest == NULL && d <= 2 && d < strlen(words[i]))) {
			least = d;
			nearest = words[i];
		}
	}
	return nearest;
}
