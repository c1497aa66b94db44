#include "relay/stream.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HOT	   (1u << 20)  /* the ring may begin anew from here on */
#define LEAST_ROOM (64u << 10) /* less is not worth a system call */

static struct tx_chunk *at(const struct tx *tx, uint64_t sequence)
{
	return (struct tx_chunk *)(uintptr_t)&tx->chunks[sequence % TX_CHUNKS];
}

/* First byte that is kept. */
static uint64_t tail(const struct tx *tx)
{
	return tx->kept == tx->end ? tx->head : at(tx, tx->kept)->offset;
}

int tx_init(struct tx *tx, size_t window)
{
	void *ring = mmap(NULL, window, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(tx, 0, sizeof(*tx));
	if (ring == MAP_FAILED)
		return -DR_ENOMEM;
	tx->ring = ring;
	tx->size = window;
	return 0;
}

void tx_fini(struct tx *tx)
{
	if (tx->ring != NULL)
		munmap(tx->ring, tx->size);
	tx->ring = NULL;
}

/* The last chunk, if no channel has it and there is room in it. */
static struct tx_chunk *open_chunk(const struct tx *tx, uint32_t limit)
{
	struct tx_chunk *last;

	if (tx->end == tx->next)
		return NULL; /* a chunk that was sent once keeps its length */
	last = at(tx, tx->end - 1);
	return last->length < limit ? last : NULL;
}

/* Free bytes behind `put`. Kept chunks lie in [first, put), or, when the ring has begun anew, in [first, ...)
 * and [0, put). */
static size_t free_behind(const struct tx *tx, size_t first)
{
	return tx->put >= first ? tx->size - tx->put : first - tx->put - 1;
}

/* Where the next bytes go: *at and their room; *open is the chunk that they join, or NULL. */
static size_t place(const struct tx *tx, uint32_t limit, size_t *where, struct tx_chunk **open)
{
	size_t least = LEAST_ROOM < tx->size / 4 ? LEAST_ROOM : tx->size / 4;
	size_t first, room;

	*open = NULL;
	*where = 0;
	if (tx->kept == tx->end)
		return limit < tx->size ? limit : tx->size;
	first = at(tx, tx->kept)->at;
	room = free_behind(tx, first);
	*where = tx->put;
	*open = open_chunk(tx, limit);
	if (*open != NULL && (room >= least || room >= limit - (*open)->length))
		return room < limit - (*open)->length ? room : limit - (*open)->length;
	*open = NULL;
	if (tx->end - tx->kept >= TX_CHUNKS - 2) /* the end wants a place, too */
		return 0;
	if (tx->put >= first && (room < least || (!tx->wide && tx->put >= HOT && first > limit))) {
		*where = 0;
		room = first > 0 ? first - 1 : 0;
	}
	if (room < least)
		return 0;
	return room < limit ? room : limit;
}

size_t tx_room(const struct tx *tx, uint32_t limit, void **to)
{
	struct tx_chunk *open;
	size_t where, room;

	if (tx->stopped || tx->eof)
		return 0;
	room = place(tx, limit, &where, &open);
	*to = tx->ring + where;
	return room;
}

void tx_put(struct tx *tx, size_t size, uint32_t limit)
{
	struct tx_chunk *open;
	size_t where;

	place(tx, limit, &where, &open);
	if (open == NULL) {
		open = at(tx, tx->end++);
		*open = (struct tx_chunk){.offset = tx->head, .at = where};
	}
	open->length += (uint32_t)size;
	tx->put = where + size;
	tx->head += size;
}

void tx_put_eof(struct tx *tx)
{
	if (tx->eof || tx->stopped)
		return;
	*at(tx, tx->end++) = (struct tx_chunk){.offset = tx->head, .at = tx->put, .eof = true};
	tx->eof = true;
}

/* Of the chunk that is to be sent next; tx->end: none. */
static uint64_t first_waiting(const struct tx *tx)
{
	if (tx->lost == 0)
		return tx->next;
	for (uint64_t s = tx->again > tx->acked ? tx->again : tx->acked; s < tx->next; s++)
		if (at(tx, s)->taker == TX_LOST)
			return s;
	return tx->next;
}

static void found(struct tx *tx, struct tx_chunk *chunk)
{
	tx->lost--;
	tx->lost_bytes -= chunk->length;
}

bool tx_take(struct tx *tx, uint8_t taker, struct chunk *out, bool *again)
{
	uint64_t sequence = first_waiting(tx);
	struct tx_chunk *chunk;

	if (sequence == tx->end)
		return false;
	chunk = at(tx, sequence);
	*again = sequence < tx->next;
	if (*again) {
		found(tx, chunk);
		tx->again = sequence + 1;
	} else {
		tx->next++;
	}
	chunk->taker = taker;
	chunk->busy++;
	*out = (struct chunk){
		.type = chunk->eof ? CHUNK_EOF : CHUNK_DATA,
		.length = chunk->length,
		.sequence = sequence,
		.offset = chunk->offset,
	};
	return true;
}

uint32_t tx_peek(const struct tx *tx)
{
	uint64_t sequence = first_waiting(tx);

	return sequence == tx->end ? 0 : at(tx, sequence)->length;
}

void *tx_bytes(const struct tx *tx, const struct chunk *chunk, size_t from)
{
	return tx->ring + at(tx, chunk->sequence)->at + from;
}

/* What is delivered and not being sent needs its place in the ring no longer. */
static void release(struct tx *tx)
{
	while (tx->kept < tx->acked && at(tx, tx->kept)->busy == 0)
		tx->kept++;
}

void tx_sent(struct tx *tx, const struct chunk *chunk)
{
	at(tx, chunk->sequence)->busy--;
	release(tx);
}

void tx_lose(struct tx *tx, uint8_t taker)
{
	for (uint64_t s = tx->acked; s < tx->next; s++) {
		struct tx_chunk *chunk = at(tx, s);

		if (chunk->taker != taker)
			continue;
		chunk->taker = TX_LOST;
		tx->lost++;
		tx->lost_bytes += chunk->length;
	}
	tx->again = tx->acked;
}

int tx_ack(struct tx *tx, uint64_t sequence, uint64_t offset, struct dr_error *err)
{
	uint64_t low, high;

	if (tx->stopped || sequence < tx->acked)
		return 0;
	if (sequence > tx->next)
		return dr_error_set(err, DR_EPROTO, "acknowledges chunk %llu, not within %llu..%llu",
				    (unsigned long long)sequence, (unsigned long long)tx->acked,
				    (unsigned long long)tx->next);
	low = high = sequence == tx->end ? tx->head : at(tx, sequence)->offset;
	if (sequence < tx->next)
		high += at(tx, sequence)->length;
	if (offset < low || offset > high)
		return dr_error_set(err, DR_EPROTO, "acknowledges byte %llu, not within %llu..%llu",
				    (unsigned long long)offset, (unsigned long long)low,
				    (unsigned long long)high);
	if (offset < tx->acked_bytes)
		return 0;
	for (uint64_t s = tx->acked; s < sequence; s++)
		if (at(tx, s)->taker == TX_LOST)
			found(tx, at(tx, s));
	tx->acked = sequence;
	tx->acked_bytes = offset;
	release(tx);
	return 0;
}

void tx_stop(struct tx *tx)
{
	tx->stopped = true;
	tx->acked = tx->next = tx->end;
	tx->lost = 0;
	tx->lost_bytes = 0;
	release(tx);
}

uint64_t tx_kept(const struct tx *tx)
{
	return tx->head - tail(tx);
}

uint64_t tx_waiting(const struct tx *tx)
{
	return tx->lost_bytes + (tx->next == tx->end ? 0 : tx->head - at(tx, tx->next)->offset);
}

uint64_t tx_waiting_chunks(const struct tx *tx)
{
	return tx->lost + tx->end - tx->next;
}

uint64_t tx_unacked(const struct tx *tx)
{
	return tx->head - tx->acked_bytes;
}

bool tx_done(const struct tx *tx)
{
	return tx->stopped || (tx->eof && tx->acked == tx->end);
}

void tx_trim(struct tx *tx)
{
	if (tx->ring != NULL && tx->kept == tx->end)
		madvise(tx->ring, tx->size, MADV_DONTNEED);
}

/* ---- rx ---- */

static struct rx_chunk *ahead(const struct rx *rx, uint64_t sequence)
{
	return (struct rx_chunk *)(uintptr_t)&rx->ahead[sequence % TX_CHUNKS];
}

static int misplaced(const struct rx *rx, const struct chunk *chunk, struct dr_error *err)
{
	return dr_error_set(
		err, DR_EPROTO, "chunk %llu of %u at byte %llu does not fit behind %llu at byte %llu",
		(unsigned long long)chunk->sequence, chunk->length, (unsigned long long)chunk->offset,
		(unsigned long long)rx->expected, (unsigned long long)rx->start);
}

/* Of a chunk behind the expected one: its neighbours must end and begin where it does. */
static bool fits(const struct rx *rx, const struct chunk *chunk)
{
	const struct rx_chunk *same = ahead(rx, chunk->sequence), *next = ahead(rx, chunk->sequence + 1);
	const struct rx_chunk *before = ahead(rx, chunk->sequence - 1);
	uint64_t distance = chunk->sequence - rx->expected;

	/* Each chunk in between has a byte at least. */
	if (distance >= TX_CHUNKS - 1 || chunk->offset < rx->start || chunk->offset - rx->start < distance ||
	    chunk->offset < rx->delivered ||
	    chunk->offset + chunk->length - rx->start > (uint64_t)RX_AHEAD_MAX + CHUNK_SIZE_MAX)
		return false;
	if (same->here && (same->offset != chunk->offset || same->length != chunk->length))
		return false;
	if (distance > 1 && before->here && (before->eof || before->offset + before->length != chunk->offset))
		return false;
	return !next->here || chunk->sequence + 1 - rx->expected >= TX_CHUNKS - 1 ||
	       (chunk->type != CHUNK_EOF && next->offset == chunk->offset + chunk->length);
}

int rx_accept(const struct rx *rx, const struct chunk *chunk, enum rx_place *place, struct dr_error *err)
{
	*place = RX_NOW;
	if (chunk->sequence < rx->expected) /* delivered before its channel was lost */
		return chunk->offset + chunk->length <= rx->start ? 0 : misplaced(rx, chunk, err);
	if (rx->eof)
		return misplaced(rx, chunk, err);
	if (chunk->sequence == rx->expected)
		return chunk->offset == rx->start && rx->delivered - rx->start <= chunk->length
			       ? 0
			       : misplaced(rx, chunk, err);
	*place = RX_AHEAD;
	return fits(rx, chunk) ? 0 : misplaced(rx, chunk, err);
}

uint32_t rx_stale(const struct rx *rx, const struct chunk *chunk)
{
	if (chunk->sequence < rx->expected || rx->delivered - rx->start >= chunk->length)
		return chunk->length;
	return (uint32_t)(rx->delivered - rx->start);
}

void rx_deliver(struct rx *rx, size_t n)
{
	rx->delivered += n;
}

void rx_next(struct rx *rx, const struct chunk *chunk)
{
	rx_drop(rx, false); /* it may have come twice */
	rx->expected++;
	rx->start += chunk->length;
	rx->eof = chunk->type == CHUNK_EOF;
}

uint8_t *rx_buffer(struct rx *rx, uint32_t length)
{
	uint8_t *bytes = rx->held + length <= RX_HELD_MAX ? malloc(length + 1ul) : NULL;

	if (bytes != NULL)
		rx->held += length;
	return bytes;
}

void rx_buffer_free(struct rx *rx, uint8_t *take_bytes, uint32_t length)
{
	if (take_bytes == NULL)
		return;
	rx->held -= length;
	free(take_bytes);
}

int rx_keep(struct rx *rx, const struct chunk *chunk, uint8_t *take_bytes, uint32_t from,
	    struct dr_error *err)
{
	struct rx_chunk *to = ahead(rx, chunk->sequence);
	enum rx_place place;
	int r = rx_accept(rx, chunk, &place, err);

	if (r != 0 || chunk->sequence < rx->expected || to->here) {
		rx_buffer_free(rx, take_bytes, chunk->length);
		return r;
	}
	*to = (struct rx_chunk){.bytes = take_bytes,
				.offset = chunk->offset,
				.length = chunk->length,
				.from = from,
				.here = true,
				.eof = chunk->type == CHUNK_EOF};
	return 0;
}

const struct rx_chunk *rx_ready(const struct rx *rx)
{
	const struct rx_chunk *chunk = ahead(rx, rx->expected);

	return chunk->here ? chunk : NULL;
}

void rx_drop(struct rx *rx, bool all)
{
	struct rx_chunk *chunk = ahead(rx, rx->expected);
	struct chunk delivered = {.type = chunk->eof ? CHUNK_EOF : CHUNK_DATA, .length = chunk->length};

	if (!chunk->here)
		return;
	rx_buffer_free(rx, chunk->bytes, chunk->length);
	*chunk = (struct rx_chunk){0};
	if (all)
		rx_next(rx, &delivered);
}

void rx_fini(struct rx *rx)
{
	for (size_t i = 0; i < TX_CHUNKS; i++) {
		rx_buffer_free(rx, rx->ahead[i].bytes, rx->ahead[i].length);
		rx->ahead[i] = (struct rx_chunk){0};
	}
}
