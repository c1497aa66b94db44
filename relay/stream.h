/*
 * The two directions of QEMU's stream, apart from any socket.
 *
 * tx: what QEMU wrote, cut into numbered chunks and kept in a ring until the peer has delivered it, so that a
 * lost channel costs nothing (DESIGN §8). The ring bounds the memory: when it is full, QEMU is not read.
 *
 *     kept       acked               next                 end
 *       | delivered |  taken, by some   |  waiting           |
 *       v           v  channel or lost  v                    v
 *     --+------+----+-+------+------+---+------+------+------+--
 *       | seq  | +1   | +2   | ...                           |
 *     --+------+------+------+------+---+------+------+------+--
 *
 * Each channel takes chunks from the front; those of a channel that is lost wait again, before all others.
 * A chunk may be acknowledged while a channel still sends it (it came over another one before): it stays in
 * the ring until that is over (kept).
 *
 * Chunks lie in the ring in one piece each, one behind the other. With one channel the ring goes back to its
 * beginning as soon as there is room, not only at its end: what is used again and again stays in the
 * processor's cache (10 % less CPU, measured). With several, a slow one may hold a chunk for long while the
 * others go on: then that would cost most of the window.
 *
 * rx: what is delivered to QEMU so far, and chunks that came ahead of their turn: at most RX_AHEAD_MAX bytes
 * in front of what is delivered, which is as much as an honest peer has in its ring, plus what each channel
 * is about to bring. Chunks that come again are skipped to the byte.
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
#define TX_LOST	      0xff /* no channel: it was lost */

#define RX_AHEAD_MAX TX_WINDOW_MAX
#define RX_HELD_MAX  (RX_AHEAD_MAX + (4u << 20)) /* with chunks that come twice after a loss */

struct tx_chunk {
	uint64_t offset;
	size_t at; /* in the ring */
	uint32_t length;
	bool eof;
	uint8_t taker; /* the newest channel that has it, or TX_LOST */
	uint8_t busy;  /* channels that are sending it now */
};

struct tx {
	uint8_t *ring;
	size_t size;
	struct tx_chunk chunks[TX_CHUNKS]; /* of sequence s at s % TX_CHUNKS */
	uint64_t kept;			   /* sequence of the oldest chunk in the ring */
	uint64_t acked;			   /* of the oldest that the peer has not delivered */
	uint64_t next;			   /* of the first that no channel has taken yet */
	uint64_t end;			   /* one past the last */
	unsigned lost;			   /* chunks before next that no channel has any more... */
	uint64_t lost_bytes;
	uint64_t again; /* ...none of them before this one */
	size_t put;	/* where the next byte goes in the ring */
	uint64_t head;	/* bytes of the stream put in */
	uint64_t acked_bytes;
	bool eof;     /* the last chunk is the end */
	bool stopped; /* the peer wants no more; nothing is kept */
	bool wide;    /* several channels: all of the window is needed, not what fits the cache */
};

struct rx_chunk { /* one that came ahead of its turn */
	uint8_t *bytes;
	uint64_t offset;
	uint32_t length;
	uint32_t from; /* id of its channel */
	bool here, eof;
};

struct rx {
	uint64_t expected;  /* sequence of the chunk that is being delivered */
	uint64_t start;	    /* its offset */
	uint64_t delivered; /* bytes */
	bool eof;
	uint64_t held; /* bytes of buffers */
	struct rx_chunk ahead[TX_CHUNKS];
};

enum rx_place {
	RX_NOW,	  /* the expected chunk, or an old one: rx_stale says what of it is delivered already */
	RX_AHEAD, /* comes into a buffer of rx_buffer */
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

/*
 * The next waiting chunk, which this taker (a channel's number, below TX_LOST) now sends; false: none.
 * *again: it was sent before. tx_sent has to follow.
 */
bool tx_take(struct tx *tx, uint8_t taker, struct chunk *out, bool *again);
/* The bytes of the chunk that tx_take would give; 0 also for the end. */
uint32_t tx_peek(const struct tx *tx);
/* Bytes from `from` on of a chunk that was taken and not yet given back by tx_sent. */
void *tx_bytes(const struct tx *tx, const struct chunk *chunk, size_t from);
/* The taker is done with this chunk: all of it is in the socket, or the channel is lost. */
void tx_sent(struct tx *tx, const struct chunk *chunk);
/* The taker's channel is lost: what it took and the peer has not delivered waits again. */
void tx_lose(struct tx *tx, uint8_t taker);

/*
 * The peer delivered all chunks before sequence and `offset` bytes. Acknowledgements that are older than what
 * is known (from a slower channel) mean nothing. -DR_EPROTO when it can't be true.
 */
int tx_ack(struct tx *tx, uint64_t sequence, uint64_t offset, struct dr_error *err);
/* The peer reads no more: forget everything. */
void tx_stop(struct tx *tx);

/* Bytes in the ring. */
uint64_t tx_kept(const struct tx *tx);
/* Bytes that no channel has. */
uint64_t tx_waiting(const struct tx *tx);
/* Chunks that no channel has, the end included. */
uint64_t tx_waiting_chunks(const struct tx *tx);
/* Bytes not acknowledged. */
uint64_t tx_unacked(const struct tx *tx);
/* The end was delivered, or the peer wants no more. */
bool tx_done(const struct tx *tx);
/* Returns the ring's memory to the kernel while nothing is in it. */
void tx_trim(struct tx *tx);

/* A DATA or EOF frame came. -DR_EPROTO when it does not fit to what came so far. */
int rx_accept(const struct rx *rx, const struct chunk *chunk, enum rx_place *place, struct dr_error *err);
/* How many of the first bytes of a chunk that was RX_NOW are delivered. */
uint32_t rx_stale(const struct rx *rx, const struct chunk *chunk);
/* n more bytes were delivered. */
void rx_deliver(struct rx *rx, size_t n);
/* The expected chunk is whole. */
void rx_next(struct rx *rx, const struct chunk *chunk);

/* For the bytes of an RX_AHEAD chunk (not NULL for length 0); NULL without memory, or above RX_HELD_MAX. */
uint8_t *rx_buffer(struct rx *rx, uint32_t length);
void rx_buffer_free(struct rx *rx, uint8_t *take_bytes, uint32_t length);
/* It is whole. -DR_EPROTO: it does not fit to its neighbours; the bytes are taken in any case. */
int rx_keep(struct rx *rx, const struct chunk *chunk, uint8_t *take_bytes, uint32_t from,
	    struct dr_error *err);
/* The expected chunk if it came ahead, else NULL. */
const struct rx_chunk *rx_ready(const struct rx *rx);
/* It is delivered (all = true), or does not fit and is thrown away. */
void rx_drop(struct rx *rx, bool all);
void rx_fini(struct rx *rx);

#endif
