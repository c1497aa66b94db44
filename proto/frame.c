#include "proto/frame.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

struct wire_header {
	char magic[2];
	uint16_t version;
	uint32_t length;
};
_Static_assert(sizeof(struct wire_header) == FRAME_HEADER, "the header has no padding");

uint8_t *frame_pack(const Drover__Msg *msg, size_t *size)
{
	size_t body = drover__msg__get_packed_size(msg);
	struct wire_header header = {.magic = {'D', 'R'}, .version = htobe16(FRAME_VERSION)};
	uint8_t *frame;

	if (body > FRAME_LENGTH_MAX)
		return NULL;
	frame = malloc(FRAME_HEADER + body);
	if (frame == NULL)
		return NULL;
	header.length = htobe32((uint32_t)body);
	memcpy(frame, &header, FRAME_HEADER);
	drover__msg__pack(msg, frame + FRAME_HEADER);
	*size = FRAME_HEADER + body;
	return frame;
}

int frame_header(const uint8_t *data, size_t size, size_t *body, struct dr_error *err)
{
	struct wire_header header;
	uint32_t length;

	if (size < FRAME_HEADER)
		return -DR_EAGAIN;
	memcpy(&header, data, FRAME_HEADER);
	if (header.magic[0] != 'D' || header.magic[1] != 'R')
		return dr_error_set(err, DR_EPROTO,
				    "the peer does not speak Drover's protocol (no 'DR' frame)");
	if (be16toh(header.version) != FRAME_VERSION)
		return dr_error_set(err, DR_EPROTO, "frame version %u, this program speaks %u",
				    be16toh(header.version), FRAME_VERSION);
	length = be32toh(header.length);
	if (length > FRAME_LENGTH_MAX)
		return dr_error_set(err, DR_EPROTO, "frame of %u bytes, at most %u are allowed", length,
				    FRAME_LENGTH_MAX);
	*body = length;
	return 0;
}

Drover__Msg *frame_unpack(const uint8_t *body, size_t size, struct dr_error *err)
{
	Drover__Msg *msg = drover__msg__unpack(NULL, size, body);

	if (msg == NULL)
		dr_error_set(err, DR_EPROTO, "frame of %zu bytes holds no message", size);
	return msg;
}
