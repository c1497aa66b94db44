/*
 * Framing of drover.Msg on a byte stream:
 *
 *     0      2        4         8
 *     +------+--------+---------+------------------+
 *     | 'D''R'| version| length  | Msg (protobuf)   |
 *     +------+--------+---------+------------------+
 *
 * Version and length are big endian; length counts the protobuf bytes only.
 * A frame with another magic, an unknown version or a length above the limit
 * ends the connection: nothing is allocated for it.
 */
#ifndef DROVER_PROTO_FRAME_H
#define DROVER_PROTO_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "proto/drover.pb-c.h"

#define FRAME_HEADER	 8
#define FRAME_VERSION	 1
#define FRAME_LENGTH_MAX (8u << 20) /* a full report of some thousand VMs fits */

/* The frame of a message, malloc'ed (*size bytes). NULL without memory or when it would exceed the limit. */
uint8_t *frame_pack(const Drover__Msg *msg, size_t *size);

/*
 * Looks at the header at data. Returns 0 and the length of the body behind it; -DR_EAGAIN when fewer than
 * FRAME_HEADER bytes are there; -DR_EPROTO with the reason in *err.
 */
int frame_header(const uint8_t *data, size_t size, size_t *body, struct dr_error *err);

/* The message in a frame's body; NULL (and *err) when the bytes are no message. Free with
 * drover__msg__free_unpacked. */
Drover__Msg *frame_unpack(const uint8_t *body, size_t size, struct dr_error *err);

#endif
