/*
 * One TCP connection between the two relays of a move: authentication, then bytes both ways, plain or TLS.
 * What the bytes mean is decided by relay.c.
 *
 *     TLS ----handshake----+
 *                          +--> SYNC --peer's first ACK--> UP
 *     HELLO ---> PROOF ----+
 */
#ifndef DROVER_RELAY_CHANNEL_H
#define DROVER_RELAY_CHANNEL_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/error.h"
#include "common/tls.h"
#include "relay/auth.h"
#include "relay/chunk.h"
#include "relay/loop.h"

#define CHANNEL_RX	  (256u << 10) /* fits a core's cache */
#define CHANNEL_CTL	  512
#define CHANNEL_AUTH_US	  5000000
#define CHANNEL_DEAD_MS	  900  /* silence after which the channel is given up (DESIGN §8) */
#define CHANNEL_TCP_MS	  4000 /* TCP's own limit: a QEMU that does not read closes the window, too */
#define CHANNEL_PING_US	  200000
#define CHANNEL_NAME_SIZE 64

#define CHANNEL_MEASURE_US 2000	 /* at most so often */
#define CHANNEL_RATE_US	   25000 /* busy for so long: a rate */
#define CHANNEL_RATE_MAX   (UINT64_C(1) << 40)
#define CHANNEL_BUSY	   (32u << 10) /* bytes on their way */

enum channel_state { CHANNEL_FREE, CHANNEL_TLS, CHANNEL_HELLO, CHANNEL_PROOF, CHANNEL_SYNC, CHANNEL_UP };

/* Owed to the peer on this channel, in the order of sending. */
enum channel_owes { OWE_ABORT = 1, OWE_ACK = 2, OWE_STOP = 4, OWE_RESUMED = 8 };

/* Figures of one network: of all channels that there were over it. */
struct network {
	char name[CHANNEL_NAME_SIZE];
	uint64_t wire_closed; /* of channels that are gone */
	uint64_t again;	      /* bytes of chunks that were sent again after a loss */
	uint64_t stall_us;    /* longest time that bytes were on their way without any arriving */
	uint64_t rate;	      /* bytes/s on the wire in the last interval */
	uint32_t lost;	      /* channels that came up and were lost */
};

struct relay;

struct channel {
	struct watch watch;
	struct relay *relay; /* for the watch's function */
	enum channel_state state;
	uint8_t number; /* its place in relay->channels: the taker of its chunks */
	unsigned owed;	/* small frames: bits of enum channel_owes */
	uint32_t id;
	uint32_t rank;
	struct network *network;
	SSL *ssl; /* NULL: plain */
	struct auth auth;
	uint64_t opened_us, last_rx_us, last_tx_us;
	uint64_t wire; /* bytes sent into the socket */

	uint8_t *rx;
	size_t rx_start, rx_end;

	uint8_t ctl[CHANNEL_CTL]; /* small frames waiting to be sent */
	size_t ctl_pos, ctl_len;
	size_t tls_retry; /* OpenSSL wants exactly this piece again */
	bool readable;	  /* there may be more to receive */
	bool more;	  /* there is more to send: its turn was over */
	bool blocked;	  /* the socket is full */
	bool wants_write; /* of the handshake */

	bool sending; /* `out` is on its way: out_pos of its header and body are sent */
	struct chunk out;
	uint8_t out_header[CHUNK_HEADER];
	size_t out_pos;

	bool receiving; /* the body of `in` comes: in_pos bytes of it are used up */
	struct chunk in;
	uint32_t in_pos;
	uint8_t *keep; /* it comes ahead of its turn: its bytes, of rx_buffer; else NULL */

	/* What TCP says, for the choice among several (channel_measure). */
	uint64_t tcp_base;		  /* tcpi_bytes_acked when the channel was opened */
	uint64_t measured_us;		  /* when it was asked last */
	uint64_t acked, queue;		  /* bytes of ours that have arrived; that have not */
	uint64_t moved_us;		  /* when `acked` last grew, or nothing was on its way */
	uint64_t window_us, window_acked; /* begin of the present measurement */
	uint64_t hoped_us;		  /* when it was last busy, or its rate was raised */
	uint64_t rate;			  /* bytes/s while there was always something to send; 0: unknown */
	uint64_t wire_reported;		  /* `wire` at the last report */
};

struct channel_setup {
	uint32_t id;
	uint32_t rank;
	struct network *network;
	bool destination;
	struct tls_psk *tls; /* NULL: plain */
	const uint8_t *key;
	uint64_t move;
	uint32_t attempt;
};

/* Begins a channel on a connected socket, which is closed when this fails. The watch's function is the
 * caller's. */
int channel_open(struct channel *channel, int take_fd, const struct channel_setup *setup,
		 struct dr_error *err);
/* Closes the socket and forgets everything; the struct can be used again. */
void channel_close(struct channel *channel, int epoll);

/* Goes on with the authentication. 0: the state is SYNC now; -DR_EAGAIN; other codes: the channel is no good.
 */
int channel_auth(struct channel *channel, struct dr_error *err);

/* Room behind what was received. */
size_t channel_room(struct channel *channel);
/* Receives into that room. Bytes (> 0), -DR_EAGAIN, -DR_ECLOSED or another code. */
ssize_t channel_receive(struct channel *channel, struct dr_error *err);

/* Sends the first bytes of the pieces. Bytes taken (> 0), -DR_EAGAIN (`blocked` is set), or another code. */
ssize_t channel_send(struct channel *channel, const struct iovec *iov, int n, struct dr_error *err);

/* Puts a frame without body among the small ones. */
void channel_queue(struct channel *channel, const struct chunk *frame);
/* Room for at least one more of them? */
bool channel_can_queue(const struct channel *channel);
/* Sends the small frames. 0 when all are gone. */
int channel_flush(struct channel *channel, struct dr_error *err);

/* Asks TCP how far it is, unless it did a moment ago. */
void channel_measure(struct channel *channel, uint64_t now_us);
/* When `size` more bytes would have arrived if they were sent now, in us from now; 0 while nothing is known.
 * What does not move takes longer and longer. */
uint64_t channel_eta(const struct channel *channel, uint64_t size, uint64_t now_us);

#endif
