/* The pure half of the QMP client: bounded lines from bytes. Fuzzed. */
#include "agent/qmp.h"

#include <stdlib.h>
#include <string.h>

#define LINES_FIRST 4096

static int reserve(struct qmp_lines *l, size_t need)
{
	size_t size = l->size != 0 ? l->size : LINES_FIRST;
	char *buf;

	if (need <= l->size)
		return 0;
	while (size < need)
		size *= 2;
	buf = realloc(l->buf, size);
	if (buf == NULL)
		return -DR_ENOMEM;
	l->buf = buf;
	l->size = size;
	return 0;
}

/* One complete line is in the buffer: hand it on and start anew. */
static int end_line(struct qmp_lines *l, qmp_line_fn fn, void *data)
{
	size_t len = l->len;

	if (len > 0 && l->buf[len - 1] == '\r')
		len--;
	l->len = 0;
	if (len == 0)
		return 0;
	l->buf[len] = '\0';
	return fn(l->buf, len, data);
}

int qmp_lines_push(struct qmp_lines *l, const void *bytes, size_t n, qmp_line_fn fn, void *data)
{
	const char *p = bytes;

	while (n > 0) {
		const char *nl = memchr(p, '\n', n);
		size_t part = nl != NULL ? (size_t)(nl - p) : n;
		int rc;

		if (l->len + part > QMP_LINE_MAX)
			return -DR_EPROTO;
		rc = reserve(l, l->len + part + 1);
		if (rc != 0)
			return rc;
		memcpy(l->buf + l->len, p, part);
		l->len += part;
		if (nl == NULL)
			return 0;
		rc = end_line(l, fn, data);
		if (rc != 0)
			return rc;
		p += part + 1;
		n -= part + 1;
	}
	/* A large answer is rare: do not keep its memory. */
	if (l->len == 0 && l->size > (64u << 10)) {
		free(l->buf);
		*l = (struct qmp_lines){0};
	}
	return 0;
}

void qmp_lines_fini(struct qmp_lines *l)
{
	free(l->buf);
	*l = (struct qmp_lines){0};
}

bool qmp_depth_ok(const char *line, size_t len)
{
	unsigned int depth = 0;
	bool string = false;

	for (size_t i = 0; i < len; i++) {
		char c = line[i];

		if (string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				string = false;
		} else if (c == '"') {
			string = true;
		} else if (c == '{' || c == '[') {
			if (++depth > QMP_JSON_DEPTH_MAX)
				return false;
		} else if ((c == '}' || c == ']') && depth > 0) {
			depth--;
		}
	}
	return true;
}
