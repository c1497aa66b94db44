/*
 * What older versions wrote and newer ones must read (DESIGN §3, §12): messages, a log, a snapshot, an
 * agent's store. `make-golden DIR` writes one set with the present code, `test-compat` reads every set there
 * is.
 */
#ifndef DROVER_TESTS_COMPAT_COMPAT_H
#define DROVER_TESTS_COMPAT_COMPAT_H

#include <protobuf-c/protobuf-c.h>
#include <stdio.h>

/* Messages that travel or are stored as a whole; each case of their oneof is one record. */
extern const ProtobufCMessageDescriptor *const compat_roots[];

/* Every field of every message within is set, from its number and name: one case of a oneof. For a root: the
 * field that is to be set of its oneof (0: it has none). Free with protobuf_c_message_free_unpacked. */
ProtobufCMessage *compat_fill(const ProtobufCMessageDescriptor *d, uint32_t field);

/* One line for each field: what is read must be what was meant. */
void compat_dump(FILE *out, const ProtobufCMessage *m, const char *prefix);

/* Fields of a root's oneof in turn: 0 after the last one. */
uint32_t compat_next_case(const ProtobufCMessageDescriptor *d, uint32_t field);

/* agent.db: made and told in words. */
struct store;
void compat_store_fill(struct store *s);
void compat_store_dump(FILE *out, struct store *s);

#endif
