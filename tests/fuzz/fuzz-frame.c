/* Frames of drover.Msg, as anyone on the network may send them. What is understood means the same once more.
 */
#include <string.h>

#include "proto/frame.h"
#include "tests/fuzz/fuzz.h"

static void again(const Drover__Msg *msg)
{
	struct dr_error err = DR_ERROR_INIT;
	size_t size, size2, body;
	uint8_t *first = frame_pack(msg, &size);
	uint8_t *second;
	Drover__Msg *copy;

	if (first == NULL)
		return; /* above the limit: packing may take more bytes than another program's did */
	FUZZ_CHECK(frame_header(first, size, &body, &err) == 0);
	FUZZ_CHECK(body == size - FRAME_HEADER);
	copy = frame_unpack(first + FRAME_HEADER, body, &err);
	if (copy != NULL) { /* protobuf-c takes the unknown field 0 only where it is written in two bytes */
		second = frame_pack(copy, &size2);
		FUZZ_CHECK(second != NULL && size2 == size && memcmp(first, second, size) == 0);
		drover__msg__free_unpacked(copy, NULL);
		free(second);
	}
	free(first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dr_error err = DR_ERROR_INIT;

	while (size > 0) {
		Drover__Msg *msg;
		size_t body = 0;
		int ret = frame_header(data, size, &body, &err);

		FUZZ_CHECK(ret == 0 || ret == -DR_EAGAIN || (ret == -DR_EPROTO && err.text[0] != '\0'));
		if (ret != 0 || body > size - FRAME_HEADER)
			return 0;
		FUZZ_CHECK(body <= FRAME_LENGTH_MAX);
		msg = frame_unpack(data + FRAME_HEADER, body, &err);
		if (msg != NULL) {
			again(msg);
			drover__msg__free_unpacked(msg, NULL);
		}
		data += FRAME_HEADER + body;
		size -= FRAME_HEADER + body;
	}
	return 0;
}
