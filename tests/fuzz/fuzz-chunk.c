/* What a peer's relay may send: frames, their order, what is left out and what comes twice. */
#include <stdbool.h>
#include <string.h>

#include "relay/chunk.h"
#include "relay/stream.h"
#include "tests/fuzz/fuzz.h"

/* What came ahead and is the expected one now. */
static void deliver_ahead(struct rx *rx)
{
	const struct rx_chunk *chunk;

	while ((chunk = rx_ready(rx)) != NULL) {
		uint64_t done = rx->delivered - rx->start;

		if (chunk->offset != rx->start || done > chunk->length) {
			rx_drop(rx, false);
			return;
		}
		rx_deliver(rx, chunk->length - done);
		rx_drop(rx, true);
		FUZZ_CHECK(rx->delivered == rx->start);
	}
}

static void ahead(struct rx *rx, const struct chunk *chunk)
{
	struct dr_error err = DR_ERROR_INIT;
	uint8_t *bytes = rx_buffer(rx, chunk->length);

	FUZZ_CHECK(rx->held <= RX_HELD_MAX);
	if (bytes != NULL && rx_keep(rx, chunk, bytes, 1, &err) != 0)
		FUZZ_CHECK(err.text[0] != '\0');
}

/* As a channel does with the bodies: the expected chunk is delivered, in two pieces. Its channel may be lost
 * between them. */
static void receive(struct rx *rx, const struct chunk *chunk, bool lost)
{
	struct dr_error err = DR_ERROR_INIT;
	enum rx_place place;
	uint32_t stale, left;

	if (rx_accept(rx, chunk, &place, &err) != 0) {
		FUZZ_CHECK(err.text[0] != '\0');
		return;
	}
	if (place == RX_AHEAD) {
		ahead(rx, chunk);
		return;
	}
	stale = rx_stale(rx, chunk);
	FUZZ_CHECK(stale <= chunk->length);
	if (chunk->sequence != rx->expected)
		return;
	left = chunk->length - stale;
	rx_deliver(rx, left / 2);
	if (lost)
		return;
	rx_deliver(rx, left - left / 2);
	FUZZ_CHECK(rx->delivered == rx->start + chunk->length);
	rx_next(rx, chunk);
	FUZZ_CHECK(rx->delivered == rx->start);
	deliver_ahead(rx);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dr_error err = DR_ERROR_INIT;
	static struct rx rx;

	memset(&rx, 0, sizeof(rx));
	for (; size >= CHUNK_HEADER; data += CHUNK_HEADER, size -= CHUNK_HEADER) {
		struct chunk chunk, copy;
		uint8_t out[CHUNK_HEADER];

		if (chunk_decode(data, &chunk, &err) != 0) {
			FUZZ_CHECK(err.text[0] != '\0');
			break;
		}
		FUZZ_CHECK(chunk.length <= CHUNK_SIZE_MAX);
		FUZZ_CHECK(chunk.offset + chunk.length >= chunk.offset);
		chunk_encode(&chunk, out);
		FUZZ_CHECK(chunk_decode(out, &copy, &err) == 0);
		FUZZ_CHECK(copy.type == chunk.type && copy.length == chunk.length &&
			   copy.sequence == chunk.sequence && copy.offset == chunk.offset);
		if (chunk.type == CHUNK_DATA || chunk.type == CHUNK_EOF)
			receive(&rx, &chunk, (chunk.offset & 1) != 0);
	}
	rx_fini(&rx);
	FUZZ_CHECK(rx.held == 0);
	return 0;
}
