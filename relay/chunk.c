#include "relay/chunk.h"

#include <endian.h>
#include <string.h>

#define MAGIC	   0x44524348u /* "DRCH" */
#define VERSION	   1
#define OFFSET_MAX (1ull << 56) /* no stream is that long */

struct wire {
	uint32_t magic;
	uint8_t version, type, codec, flags;
	uint32_t length, raw;
	uint64_t sequence, offset;
};
_Static_assert(sizeof(struct wire) == CHUNK_HEADER, "the header has no padding");

void chunk_encode(const struct chunk *chunk, uint8_t out[CHUNK_HEADER])
{
	struct wire wire = {
		.magic = htobe32(MAGIC),
		.version = VERSION,
		.type = (uint8_t)chunk->type,
		.codec = CHUNK_PLAIN,
		.length = htobe32(chunk->length),
		.raw = htobe32(chunk->length),
		.sequence = htobe64(chunk->sequence),
		.offset = htobe64(chunk->offset),
	};

	memcpy(out, &wire, sizeof(wire));
}

int chunk_decode(const uint8_t in[CHUNK_HEADER], struct chunk *chunk, struct dr_error *err)
{
	struct wire wire;

	memcpy(&wire, in, sizeof(wire));
	if (be32toh(wire.magic) != MAGIC)
		return dr_error_set(err, DR_EPROTO, "corrupt frame: magic %08x", be32toh(wire.magic));
	if (wire.version != VERSION)
		return dr_error_set(err, DR_EPROTO, "frame version %u, this relay speaks %u", wire.version,
				    VERSION);
	if (wire.type < CHUNK_DATA || wire.type > CHUNK_ABORT)
		return dr_error_set(err, DR_EPROTO, "corrupt frame: type %u", wire.type);
	if (wire.codec != CHUNK_PLAIN)
		return dr_error_set(err, DR_EPROTO, "corrupt frame: codec %u", wire.codec);
	if (wire.flags != 0)
		return dr_error_set(err, DR_EPROTO, "corrupt frame: flags %u", wire.flags);
	chunk->type = wire.type;
	chunk->length = be32toh(wire.length);
	chunk->sequence = be64toh(wire.sequence);
	chunk->offset = be64toh(wire.offset);
	if (chunk->type == CHUNK_DATA ? chunk->length == 0 || chunk->length > CHUNK_SIZE_MAX
				      : chunk->length != 0)
		return dr_error_set(err, DR_EPROTO, "corrupt frame: type %u with %u bytes", wire.type,
				    chunk->length);
	if (be32toh(wire.raw) != chunk->length)
		return dr_error_set(err, DR_EPROTO, "corrupt frame: %u bytes stand for %u", chunk->length,
				    be32toh(wire.raw));
	if (chunk->offset > OFFSET_MAX || chunk->sequence > OFFSET_MAX)
		return dr_error_set(err, DR_EPROTO, "corrupt frame: sequence or offset beyond every stream");
	return 0;
}
