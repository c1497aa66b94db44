#include "coordinator/msg.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *check(void *p)
{
	if (p == NULL) {
		fputs("drover-coordinator: no memory\n", stderr);
		abort();
	}
	return p;
}

void *msg_alloc(size_t size)
{
	return check(calloc(1, size > 0 ? size : 1));
}

char *msg_dup(const char *text)
{
	return check(strdup(text != NULL ? text : ""));
}

char *msg_printf(const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	return check(n < 0 ? NULL : text);
}

void msg_set(char **field, const char *text)
{
	char *copy = msg_dup(text);

	if (*field != protobuf_c_empty_string)
		free(*field);
	*field = copy;
}

void msg_set_bytes(ProtobufCBinaryData *field, const void *bytes, size_t size)
{
	uint8_t *copy = NULL;

	if (size > 0) {
		copy = msg_alloc(size);
		memcpy(copy, bytes, size);
	}
	free(field->data);
	field->data = copy;
	field->len = size;
}

bool msg_same_bytes(const ProtobufCBinaryData *a, const void *bytes, size_t size)
{
	return a->len == size && (size == 0 || memcmp(a->data, bytes, size) == 0);
}

void msg_push(void *array, size_t *n, void *item)
{
	void ***list = array;

	/* Capacities are powers of two: grow when n is one. */
	if ((*n & (*n - 1)) == 0)
		*list = check(realloc(*list, (*n == 0 ? 1 : *n * 2) * sizeof(void *)));
	(*list)[(*n)++] = item;
}

void msg_push_text(char ***array, size_t *n, const char *text)
{
	msg_push(array, n, msg_dup(text));
}

uint8_t *msg_pack(const void *message, size_t *size)
{
	const ProtobufCMessage *m = message;
	uint8_t *bytes;

	*size = protobuf_c_message_get_packed_size(m);
	bytes = msg_alloc(*size);
	protobuf_c_message_pack(m, bytes);
	return bytes;
}

void *msg_clone(const void *message)
{
	const ProtobufCMessage *m = message;
	size_t size;
	uint8_t *bytes = msg_pack(message, &size);
	void *copy = check(protobuf_c_message_unpack(m->descriptor, NULL, size, bytes));

	free(bytes);
	return copy;
}

bool msg_same(const void *a, const void *b)
{
	size_t size_a;
	size_t size_b;
	uint8_t *bytes_a = msg_pack(a, &size_a);
	uint8_t *bytes_b = msg_pack(b, &size_b);
	bool same = size_a == size_b && memcmp(bytes_a, bytes_b, size_a) == 0;

	free(bytes_a);
	free(bytes_b);
	return same;
}

/* Calls fn for each message within m that is set, until it returns false. */
static bool each_inner(const ProtobufCMessage *m, bool (*fn)(const void *inner))
{
	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		const uint8_t *at = (const uint8_t *)m + f->offset;
		const void *quantifier = (const uint8_t *)m + f->quantifier_offset;

		if (f->type != PROTOBUF_C_TYPE_MESSAGE)
			continue;
		if (f->label == PROTOBUF_C_LABEL_REPEATED) {
			size_t n = *(const size_t *)quantifier;
			void *const *items = *(void *const *const *)(const void *)at;

			for (size_t k = 0; k < n; k++) {
				if (!fn(items[k]))
					return false;
			}
			continue;
		}
		/* In a oneof the quantifier says which one is set. */
		if ((f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0 && *(const uint32_t *)quantifier != f->id)
			continue;
		if (*(void *const *)(const void *)at != NULL && !fn(*(void *const *)(const void *)at))
			return false;
	}
	return true;
}

bool msg_known(const void *message)
{
	const ProtobufCMessage *m = message;

	return m->n_unknown_fields == 0 && each_inner(m, msg_known);
}

static bool strip_one(const void *message)
{
	ProtobufCMessage *m = (ProtobufCMessage *)(uintptr_t)message;

	for (unsigned i = 0; i < m->n_unknown_fields; i++)
		free(m->unknown_fields[i].data);
	free(m->unknown_fields);
	m->unknown_fields = NULL;
	m->n_unknown_fields = 0;
	return each_inner(m, strip_one);
}

void msg_strip(void *message)
{
	strip_one(message);
}
