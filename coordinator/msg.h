/*
 * Building messages on the heap, so that drover__*__free_unpacked frees them whole. A coordinator without
 * memory stops: these functions never return NULL (SAFETY R19: nothing is half applied).
 */
#ifndef DROVER_COORDINATOR_MSG_H
#define DROVER_COORDINATOR_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/drover.pb-c.h"

void *msg_alloc(size_t size);
char *msg_dup(const char *text);
char *msg_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Sets a string field of a message made on the heap, freeing what it had. */
void msg_set(char **field, const char *text);
void msg_set_bytes(ProtobufCBinaryData *field, const void *bytes, size_t size);
bool msg_same_bytes(const ProtobufCBinaryData *a, const void *bytes, size_t size);
/* Appends to a repeated field of pointers. */
void msg_push(void *array, size_t *n, void *item);
void msg_push_text(char ***array, size_t *n, const char *text);
/* A deep copy. */
void *msg_clone(const void *message);
/* Packed bytes, malloc'ed. */
uint8_t *msg_pack(const void *message, size_t *size);
/* Whether both have the same packed bytes. */
bool msg_same(const void *a, const void *b);

/*
 * Whether this program knows every field in a message and in those within it. A command with an unknown field
 * stops every member that applies it (SAFETY R20): what comes from newer clients and agents is refused or
 * stripped before it is proposed.
 */
bool msg_known(const void *message);
/* Drops the unknown fields of a heap message. */
void msg_strip(void *message);

/* A new message on the heap: MSG_NEW(drover__vm_row, Drover__VmRow). */
#define MSG_NEW(prefix, type)                                                                                \
	({                                                                                                   \
		type *msg_new = msg_alloc(sizeof(type));                                                     \
		prefix##__init(msg_new);                                                                     \
		msg_new;                                                                                     \
	})

#endif
