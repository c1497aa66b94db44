/*
 * The two directions of QEMU's stream, apart from any socket.
 *
 * tx: what QEMU wrote, cut into numbered chunks and kept in a ring until the peer has delivered it, so that a
 * lost channel costs nothing (DESIGN §8). The ring bounds the memory: when it is full, QEMU is not read.
 *
 *     acked                     next                 end
 *       |  taken by a channel    |  waiting           |
 *       v                        v                    v
 *     --+------+------+------+---+------+------+------+--
 *       | seq  | +1   | +2   | ...                    |   tx_rewind: next goes back to acked
 *     --+------+------+------+---+------+------+------+--
 *
 * Chunks lie in the ring in one piece each, one behind the other. The ring goes back to its beginning as soon
 * as there is room, not only at its end: what is used again and again stays in the processor's cache (10 %
 * less CPU, measured).
 *
 * rx: what is delivered to QEMU so far. Chunks that come again (after a rewind) are skipped to the byte.
 */
#ifndef DROVER_RELAY_STREAM_H
#define DROVER_RELAY_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "relay/chunk.h"

#define TX_CHUNKS                                                                                            \
	1024 /* unacknowledged chunks at most; waiting ones grow, so small writes do not use them up */
#define TX_WINDOW     (16u << 20)
#define TX_WINDOW_MIN (64u << 10)
#define TX_WINDOW_MAX (64u << 20)

struct tx_chunk {
	uint64_t offset;
	size_t at; /* in the ring */
	uint32_t length;
	bool eof;
};

struct tx {
	uint8_t *ring;
	size_t size;
	struct tx_chunk chunks[TX_CHUNKS]; /* of sequence s at s % TX_CHUNKS */
	uint64_t acked;			   /* sequence of the oldest kept chunk */
	uint64_t next;			   /* of the first that no channel has taken */
	uint64_t taken_max;		   /* highest `next` ever: more than that the peer can't have */
	uint64_t end;			   /* one past the last */
	size_t put;			   /* where the next byte goes in the ring */
	uint64_t head;			   /* bytes of the stream put in */
	uint64_t acked_bytes;
	bool eof;     /* the last chunk is the end */
	bool stopped; /* the peer wants no more; nothing is kept */
};

struct rx {
	uint64_t expected;  /* sequence of the chunk that is being delivered */
	uint64_t start;	    /* its offset */
	uint64_t delivered; /* bytes */
	bool eof;
};

/* Allocates the ring (window bytes, within TX_WINDOW_MIN..MAX). 0 or -DR_ENOMEM. */
int tx_init(struct tx *tx, size_t window);
void tx_fini(struct tx *tx);

/* Where to read to: at most limit bytes as one chunk. Returns the room; 0: wait for acknowledgements. */
size_t tx_room(const struct tx *tx, uint32_t limit, void **to);
/* size bytes were read to there: joins them to the last waiting chunk or begins one. */
void tx_put(struct tx *tx, size_t size, uint32_t limit);
/* QEMU's end. */
void tx_put_eof(struct tx *tx);

/* The next waiting chunk, which is now taken; false: none. */
bool tx_take(struct tx *tx, struct chunk *out);
/* Bytes from `from` on of a chunk that was taken and is kept. */
void *tx_bytes(const struct tx *tx, const struct chunk *chunk, size_t from);
/* Everything kept has to be sent again. */
void tx_rewind(struct tx *tx);

/*
 * The peer delivered all chunks before sequence and `offset` bytes. sent: sequence of the first chunk that is
 * not wholly sent. -DR_EPROTO when that can't be true.
 */
int tx_ack(struct tx *tx, uint64_t sequence, uint64_t offset, uint64_t sent, struct dr_error *err);
/* The peer reads no more: forget everything. */
void tx_stop(struct tx *tx);

/* Bytes in the ring: of chunks that are not wholly acknowledged. */
uint64_t tx_kept(const struct tx *tx);
/* Bytes that no channel has taken. */
uint64_t tx_waiting(const struct tx *tx);
/* Bytes not acknowledged. */
uint64_t tx_unacked(const struct tx *tx);
/* The end was delivered, or the peer wants no more. */
bool tx_done(const struct tx *tx);
/* Returns the ring's memory to the kernel while nothing is in it. */
void tx_trim(struct tx *tx);

/*
 * A DATA or EOF frame came: *skip is how many of its bytes were delivered before. -DR_EPROTO when it does not
 * fit to what came so far.
 */
int rx_accept(const struct rx *rx, const struct chunk *chunk, uint32_t *skip, struct dr_error *err);
/* n more bytes were delivered. */
void rx_deliver(struct rx *rx, size_t n);
/* The expected chunk is whole. */
void rx_next(struct rx *rx, const struct chunk *chunk);

#endif
