#include "relay/stream.h"

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
	return tx->acked == tx->end ? tx->head : at(tx, tx->acked)->offset;
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

	if (tx->end == tx->next || tx->end < tx->taken_max + 1)
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
	if (tx->acked == tx->end)
		return limit < tx->size ? limit : tx->size;
	first = at(tx, tx->acked)->at;
	room = free_behind(tx, first);
	*where = tx->put;
	*open = open_chunk(tx, limit);
	if (*open != NULL && (room >= least || room >= limit - (*open)->length))
		return room < limit - (*open)->length ? room : limit - (*open)->length;
	*open = NULL;
	if (tx->end - tx->acked >= TX_CHUNKS - 1)
		return 0;
	if (tx->put >= first && (room < least || (tx->put >= HOT && first > limit))) {
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

bool tx_take(struct tx *tx, struct chunk *out)
{
	const struct tx_chunk *chunk;

	if (tx->next == tx->end)
		return false;
	chunk = at(tx, tx->next);
	*out = (struct chunk){
		.type = chunk->eof ? CHUNK_EOF : CHUNK_DATA,
		.length = chunk->length,
		.sequence = tx->next,
		.offset = chunk->offset,
	};
	tx->next++;
	if (tx->next > tx->taken_max)
		tx->taken_max = tx->next;
	return true;
}

void *tx_bytes(const struct tx *tx, const struct chunk *chunk, size_t from)
{
	return tx->ring + at(tx, chunk->sequence)->at + from;
}

void tx_rewind(struct tx *tx)
{
	tx->next = tx->acked;
}

int tx_ack(struct tx *tx, uint64_t sequence, uint64_t offset, uint64_t sent, struct dr_error *err)
{
	uint64_t low, high;

	if (tx->stopped)
		return 0;
	if (sequence < tx->acked || sequence > sent)
		return dr_error_set(err, DR_EPROTO, "acknowledges chunk %llu, not within %llu..%llu",
				    (unsigned long long)sequence, (unsigned long long)tx->acked,
				    (unsigned long long)sent);
	low = sequence == tx->end ? tx->head : at(tx, sequence)->offset;
	high = sequence == tx->end ? tx->head : low + at(tx, sequence)->length;
	if (offset < low || offset > high || offset < tx->acked_bytes)
		return dr_error_set(err, DR_EPROTO, "acknowledges byte %llu, not within %llu..%llu",
				    (unsigned long long)offset, (unsigned long long)low,
				    (unsigned long long)high);
	tx->acked = sequence;
	tx->acked_bytes = offset;
	if (tx->next < tx->acked)
		tx->next = tx->acked;
	return 0;
}

void tx_stop(struct tx *tx)
{
	tx->stopped = true;
	tx->acked = tx->next = tx->end;
}

uint64_t tx_kept(const struct tx *tx)
{
	return tx->head - tail(tx);
}

uint64_t tx_waiting(const struct tx *tx)
{
	return tx->next == tx->end ? 0 : tx->head - at(tx, tx->next)->offset;
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
	if (tx->ring != NULL && tx->acked == tx->end)
		madvise(tx->ring, tx->size, MADV_DONTNEED);
}

int rx_accept(const struct rx *rx, const struct chunk *chunk, uint32_t *skip, struct dr_error *err)
{
	if (chunk->sequence < rx->expected && chunk->offset + chunk->length <= rx->start) {
		*skip = chunk->length; /* delivered before the channel was lost */
		return 0;
	}
	if (chunk->sequence != rx->expected || chunk->offset != rx->start || rx->eof ||
	    rx->delivered - rx->start > chunk->length)
		return dr_error_set(err, DR_EPROTO,
				    "chunk %llu at byte %llu does not follow %llu at byte %llu",
				    (unsigned long long)chunk->sequence, (unsigned long long)chunk->offset,
				    (unsigned long long)rx->expected, (unsigned long long)rx->start);
	*skip = (uint32_t)(rx->delivered - rx->start);
	return 0;
}

void rx_deliver(struct rx *rx, size_t n)
{
	rx->delivered += n;
}

void rx_next(struct rx *rx, const struct chunk *chunk)
{
	rx->expected++;
	rx->start += chunk->length;
	rx->eof = chunk->type == CHUNK_EOF;
}
