/* What a peer's relay may send: frames, their order, what is left out and what comes twice. */
#include <string.h>

#include "relay/chunk.h"
#include "relay/stream.h"
#include "tests/fuzz/fuzz.h"

/* As a channel does with the bodies: the expected chunk is delivered, in two pieces. */
static void receive(struct rx *rx, const struct chunk *chunk)
{
	struct dr_error err = DR_ERROR_INIT;
	uint64_t before = rx->delivered;
	uint32_t skip = 0;

	if (rx_accept(rx, chunk, &skip, &err) != 0) {
		FUZZ_CHECK(err.text[0] != '\0');
		return;
	}
	FUZZ_CHECK(skip <= chunk->length);
	if (chunk->sequence != rx->expected)
		return;
	rx_deliver(rx, (chunk->length - skip) / 2);
	rx_deliver(rx, chunk->length - skip - (chunk->length - skip) / 2);
	rx_next(rx, chunk);
	FUZZ_CHECK(rx->delivered == before + chunk->length - skip);
	FUZZ_CHECK(rx->delivered == rx->start);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dr_error err = DR_ERROR_INIT;
	struct rx rx = {0};

	for (; size >= CHUNK_HEADER; data += CHUNK_HEADER, size -= CHUNK_HEADER) {
		struct chunk chunk, copy;
		uint8_t out[CHUNK_HEADER];

		if (chunk_decode(data, &chunk, &err) != 0) {
			FUZZ_CHECK(err.text[0] != '\0');
			return 0;
		}
		FUZZ_CHECK(chunk.length <= CHUNK_SIZE_MAX);
		FUZZ_CHECK(chunk.offset + chunk.length >= chunk.offset);
		chunk_encode(&chunk, out);
		FUZZ_CHECK(chunk_decode(out, &copy, &err) == 0);
		FUZZ_CHECK(copy.type == chunk.type && copy.length == chunk.length &&
			   copy.sequence == chunk.sequence && copy.offset == chunk.offset);
		if (chunk.type == CHUNK_DATA || chunk.type == CHUNK_EOF)
			receive(&rx, &chunk);
	}
	return 0;
}
