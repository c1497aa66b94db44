/* Any message by its descriptor: filled, and told in words. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "compat.h"
#include "proto/drover.pb-c.h"

#define ELEMENTS 2 /* of a repeated field */

const ProtobufCMessageDescriptor *const compat_roots[] = {
	&drover__msg__descriptor,     &drover__relay_command__descriptor, &drover__relay_event__descriptor,
	&drover__command__descriptor, &drover__peer_msg__descriptor,	  NULL,
};

static void *need(void *p)
{
	if (p == NULL)
		abort();
	return p;
}

static bool in_oneof(const ProtobufCFieldDescriptor *f)
{
	return (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;
}

uint32_t compat_next_case(const ProtobufCMessageDescriptor *d, uint32_t field)
{
	for (unsigned i = 0; i < d->n_fields; i++)
		if (in_oneof(&d->fields[i]) && d->fields[i].id > field)
			return d->fields[i].id;
	return 0;
}

/* ---------------------------------------------------------------- filling */

static void fill_one(const ProtobufCFieldDescriptor *f, void *at, unsigned n)
{
	const ProtobufCEnumDescriptor *e = f->descriptor;
	const ProtobufCMessageDescriptor *inner = f->descriptor;
	ProtobufCBinaryData bytes;

	switch (f->type) {
	case PROTOBUF_C_TYPE_UINT32:
		*(uint32_t *)at = 1000 * f->id + n + 1;
		break;
	case PROTOBUF_C_TYPE_UINT64:
		*(uint64_t *)at = (UINT64_C(1) << 40) + 1000 * f->id + n;
		break;
	case PROTOBUF_C_TYPE_BOOL:
		*(protobuf_c_boolean *)at = 1;
		break;
	case PROTOBUF_C_TYPE_ENUM:
		*(int *)at = e->values[e->n_values - 1].value;
		break;
	case PROTOBUF_C_TYPE_STRING:
		*(char **)at = need(malloc(strlen(f->name) + 12));
		sprintf(*(char **)at, "%s %u", f->name, n);
		break;
	case PROTOBUF_C_TYPE_BYTES:
		bytes.len = 16;
		bytes.data = need(malloc(bytes.len));
		memset(bytes.data, (int)(f->id + n), bytes.len);
		memcpy(at, &bytes, sizeof(bytes));
		break;
	case PROTOBUF_C_TYPE_MESSAGE:
		*(ProtobufCMessage **)at = compat_fill(inner, compat_next_case(inner, 0));
		break;
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_FLOAT:
	case PROTOBUF_C_TYPE_DOUBLE:
		fprintf(stderr, "%s: a type that drover.proto did not use so far\n", f->name);
		abort();
	}
}

static size_t size_of(const ProtobufCFieldDescriptor *f)
{
	if (f->type == PROTOBUF_C_TYPE_UINT64)
		return sizeof(uint64_t);
	if (f->type == PROTOBUF_C_TYPE_BYTES)
		return sizeof(ProtobufCBinaryData);
	if (f->type == PROTOBUF_C_TYPE_STRING || f->type == PROTOBUF_C_TYPE_MESSAGE)
		return sizeof(void *);
	return f->type == PROTOBUF_C_TYPE_BOOL ? sizeof(protobuf_c_boolean) : sizeof(uint32_t);
}

ProtobufCMessage *compat_fill(const ProtobufCMessageDescriptor *d, uint32_t field)
{
	ProtobufCMessage *m = need(calloc(1, d->sizeof_message));

	protobuf_c_message_init(d, m);
	for (unsigned i = 0; i < d->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &d->fields[i];
		uint8_t *at = (uint8_t *)m + f->offset;
		uint8_t *quantifier = (uint8_t *)m + f->quantifier_offset;

		if (in_oneof(f) && f->id != field)
			continue;
		if (in_oneof(f))
			*(uint32_t *)(void *)quantifier = f->id;
		if (f->label != PROTOBUF_C_LABEL_REPEATED) {
			fill_one(f, at, 0);
			continue;
		}
		*(size_t *)(void *)quantifier = ELEMENTS;
		*(void **)(void *)at = need(calloc(ELEMENTS, size_of(f)));
		for (unsigned k = 0; k < ELEMENTS; k++)
			fill_one(f, *(uint8_t **)(void *)at + k * size_of(f), k);
	}
	return m;
}

/* ---------------------------------------------------------------- telling */

static void dump_one(FILE *out, const ProtobufCFieldDescriptor *f, const void *at, const char *name)
{
	const ProtobufCBinaryData *bytes = at;

	switch (f->type) {
	case PROTOBUF_C_TYPE_UINT32:
		fprintf(out, "  %s = %" PRIu32 "\n", name, *(const uint32_t *)at);
		break;
	case PROTOBUF_C_TYPE_UINT64:
		fprintf(out, "  %s = %" PRIu64 "\n", name, *(const uint64_t *)at);
		break;
	case PROTOBUF_C_TYPE_BOOL:
		fprintf(out, "  %s = %s\n", name, *(const protobuf_c_boolean *)at ? "true" : "false");
		break;
	case PROTOBUF_C_TYPE_ENUM: {
		const ProtobufCEnumValue *v =
			protobuf_c_enum_descriptor_get_value(f->descriptor, *(const int *)at);

		fprintf(out, "  %s = %s\n", name, v != NULL ? v->name : "?");
		break;
	}
	case PROTOBUF_C_TYPE_STRING:
		fprintf(out, "  %s = \"%s\"\n", name, *(char *const *)at);
		break;
	case PROTOBUF_C_TYPE_BYTES:
		fprintf(out, "  %s = ", name);
		for (size_t i = 0; i < bytes->len; i++)
			fprintf(out, "%02x", bytes->data[i]);
		fprintf(out, "\n");
		break;
	case PROTOBUF_C_TYPE_MESSAGE:
		if (*(ProtobufCMessage *const *)at != NULL)
			compat_dump(out, *(ProtobufCMessage *const *)at, name);
		break;
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_FLOAT:
	case PROTOBUF_C_TYPE_DOUBLE:
		fprintf(out, "  %s: unknown type\n", name);
		break;
	}
}

/* A scalar of proto3 that is 0 is the same as one that is not there: newer fields stay out of old records. */
static bool is_zero(const ProtobufCFieldDescriptor *f, const void *at)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING:
		return (*(char *const *)at)[0] == '\0';
	case PROTOBUF_C_TYPE_BYTES:
		return ((const ProtobufCBinaryData *)at)->len == 0;
	case PROTOBUF_C_TYPE_UINT64:
		return *(const uint64_t *)at == 0;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_BOOL:
	case PROTOBUF_C_TYPE_ENUM:
		return *(const uint32_t *)at == 0;
	case PROTOBUF_C_TYPE_MESSAGE:
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_FLOAT:
	case PROTOBUF_C_TYPE_DOUBLE:
		break;
	}
	return false;
}

void compat_dump(FILE *out, const ProtobufCMessage *m, const char *prefix)
{
	char name[512];

	for (unsigned i = 0; i < m->n_unknown_fields; i++)
		fprintf(out, "  %s: unknown field %u\n", prefix, m->unknown_fields[i].tag);
	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		const uint8_t *at = (const uint8_t *)m + f->offset;
		const uint8_t *quantifier = (const uint8_t *)m + f->quantifier_offset;

		if (in_oneof(f) && *(const uint32_t *)(const void *)quantifier != f->id)
			continue;
		if (f->label != PROTOBUF_C_LABEL_REPEATED) {
			snprintf(name, sizeof(name), "%s%s%s", prefix, prefix[0] != '\0' ? "." : "", f->name);
			if (in_oneof(f) || !is_zero(f, at))
				dump_one(out, f, at, name);
			continue;
		}
		for (size_t k = 0; k < *(const size_t *)(const void *)quantifier; k++) {
			snprintf(name, sizeof(name), "%s%s%s[%zu]", prefix, prefix[0] != '\0' ? "." : "",
				 f->name, k);
			dump_one(out, f, *(uint8_t *const *)(const void *)at + k * size_of(f), name);
		}
	}
}
