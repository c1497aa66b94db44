/*
 * What two relays say to each other once a channel is authenticated: frames of a fixed header, big endian,
 * and for DATA the bytes behind it.
 *
 *     0        4         5      6      7       8        12       16         24       32
 *     +--------+---------+------+-------+-------+--------+--------+----------+--------+
 *     | "DRCH" | version | type | codec | flags | length | raw    | sequence | offset |
 *     +--------+---------+------+-------+-------+--------+--------+----------+--------+
 *
 * length: bytes behind the header; raw: bytes of QEMU's stream in them (the same while codec is PLAIN).
 * sequence and offset: of DATA and EOF, the number of the chunk and its place in QEMU's stream, counted per
 * direction; of ACK, the next chunk wanted and the bytes delivered so far. Every field is checked: a frame
 * that is wrong in any of them costs the channel, never memory.
 */
#ifndef DROVER_RELAY_CHUNK_H
#define DROVER_RELAY_CHUNK_H

#include <stdint.h>

#include "common/error.h"

#define CHUNK_HEADER   32
#define CHUNK_SIZE_MIN 4096u
#define CHUNK_SIZE     (512u << 10)
#define CHUNK_SIZE_MAX (1u << 20)

enum chunk_type {
	CHUNK_DATA = 1,
	CHUNK_ACK = 2,	   /* first frame on every channel, then whenever much was delivered */
	CHUNK_EOF = 3,	   /* QEMU will write nothing more; numbered like a chunk */
	CHUNK_RESUMED = 4, /* destination: the VM runs here */
	CHUNK_PING = 5,	   /* sent when nothing else was: silence means a dead channel */
	CHUNK_STOP = 6,	   /* QEMU here reads no more: send nothing more of its stream */
	CHUNK_ABORT = 7,   /* this side has given up */
};

enum chunk_codec { CHUNK_PLAIN = 0 };

struct chunk {
	enum chunk_type type;
	uint32_t length;
	uint64_t sequence;
	uint64_t offset;
};

void chunk_encode(const struct chunk *chunk, uint8_t out[CHUNK_HEADER]);

/* 0, or -DR_EPROTO naming the field. Lengths are within CHUNK_SIZE_MAX afterwards, offset + length does not
 * wrap. */
int chunk_decode(const uint8_t in[CHUNK_HEADER], struct chunk *chunk, struct dr_error *err);

#endif
