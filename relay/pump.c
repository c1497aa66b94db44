#include "relay/pump.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"

#define READS_PER_TURN	  4
#define RECEIVES_PER_TURN 4
#define SENDS_PER_TURN	  64
#define ACK_BYTES_MAX	  (1u << 20) /* delivered at most before an ACK... */
#define ACK_DELAY_US	  2000	     /* ...or waited */
#define LOOK_AGAIN_US	  5000
#define SLOW_CHUNKS	  20 /* chunks per second at least, so that small frames never wait long */

bool pump_unfinished(struct channel *channel)
{
	return channel->more || (channel->readable && channel_room(channel) > 0);
}

/* ---- QEMU -> tx ---- */

/* Big chunks cost least; under a small budget they would keep small frames waiting. */
static uint32_t chunk_limit(const struct relay *relay)
{
	uint64_t slow = relay->budget.rate / SLOW_CHUNKS;

	if (relay->budget.rate == 0 || slow >= relay->chunk_size)
		return relay->chunk_size;
	return slow < CHUNK_SIZE_MIN ? CHUNK_SIZE_MIN : (uint32_t)slow;
}

bool pump_wants_qemu(struct relay *relay)
{
	void *to;

	if (relay->state != RELAY_RUNNING || relay->qemu_ended || relay->tx.stopped)
		return false;
	/*
	 * What waits in here when QEMU stops the VM adds to the blackout, so a channel that is full stops the
	 * reading. Without a channel the window may fill: nothing is as urgent then.
	 */
	if (relay->channels_known > 0 && tx_waiting(&relay->tx) >= chunk_limit(relay))
		return false;
	return tx_room(&relay->tx, chunk_limit(relay), &to) > 0;
}

static void qemu_ended(struct relay *relay, const char *why)
{
	if (relay->qemu_ended)
		return;
	relay->qemu_ended = true;
	tx_put_eof(&relay->tx);
	relay_log(relay, "QEMU ended its side after %llu bytes: %s", (unsigned long long)relay->tx.head, why);
	control_event(relay, DROVER__RELAY_EVENT__KIND__QEMU_CLOSED, 0, why);
}

static void read_qemu(struct relay *relay)
{
	uint32_t limit = chunk_limit(relay);

	for (int i = 0; i < READS_PER_TURN && pump_wants_qemu(relay); i++) {
		void *to = NULL;
		size_t room = tx_room(&relay->tx, limit, &to);
		ssize_t got = read(relay->qemu.fd, to, room);

		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (got <= 0) {
			qemu_ended(relay, got == 0 ? "closed" : strerror(errno));
			return;
		}
		if (tx_unacked(&relay->tx) == 0)
			relay->progress_us = loop_now_us();
		tx_put(&relay->tx, (size_t)got, limit);
		if ((size_t)got < room)
			return; /* the next read would most likely wait */
	}
}

void pump_on_qemu(void *data, uint32_t events)
{
	struct relay *relay = data;

	if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0)
		relay->qemu_full = false;
	if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0)
		read_qemu(relay);
}

/* ---- channel -> QEMU ---- */

static void qemu_deaf(struct relay *relay)
{
	relay_log(relay, "QEMU reads no more: %s", strerror(errno));
	relay->qemu_deaf = true;
	pump_owe(relay, OWE_STOP);
	control_event(relay, DROVER__RELAY_EVENT__KIND__QEMU_CLOSED, 0, "it reads no more");
}

void pump_owe(struct relay *relay, enum channel_owes what)
{
	for (size_t i = 0; i < RELAY_CHANNELS; i++)
		if (relay->channels[i].state >= CHANNEL_SYNC)
			relay->channels[i].owed |= what;
}

/* Gives QEMU the next bytes of the stream. How many it took; -1: none now. */
static ssize_t to_qemu(struct relay *relay, const uint8_t *bytes, size_t size)
{
	ssize_t n = (ssize_t)size;

	if (!relay->qemu_deaf && relay->state == RELAY_RUNNING) {
		n = relay->qemu_full ? -1 : send(relay->qemu.fd, bytes, size, MSG_NOSIGNAL);
		if (n < 0 && (relay->qemu_full || errno == EAGAIN || errno == EINTR)) {
			relay->qemu_full = true;
			return -1;
		}
		if (n < 0) {
			qemu_deaf(relay);
			return 0;
		}
	}
	rx_deliver(&relay->rx, (size_t)n);
	return n;
}

/* Uses up the next bytes of the body. false: that is not possible now. */
static bool take_body(struct relay *relay, struct channel *channel, size_t have)
{
	const uint8_t *bytes = channel->rx + channel->rx_start;
	size_t size = channel->in.length - channel->in_pos;
	uint32_t stale;
	ssize_t n;

	if (size > have)
		size = have;
	stale = rx_stale(&relay->rx, &channel->in);
	if (channel->keep != NULL) {
		memcpy(channel->keep + channel->in_pos, bytes, size);
		n = (ssize_t)size;
	} else if (stale > channel->in_pos) {
		n = (ssize_t)(size < stale - channel->in_pos ? size : stale - channel->in_pos);
	} else {
		n = to_qemu(relay, bytes, size);
		if (n < 0)
			return false;
	}
	channel->rx_start += (size_t)n;
	channel->in_pos += (uint32_t)n;
	return true;
}

static void owe_ack(struct relay *relay, bool now)
{
	uint64_t most = relay->tx.size / 8 < ACK_BYTES_MAX ? relay->tx.size / 8 : ACK_BYTES_MAX;

	if (now || relay->rx.delivered - relay->acked_delivered >= most) {
		pump_owe(relay, OWE_ACK);
		relay->acked_delivered = relay->rx.delivered;
		relay->ack_at = 0;
	} else if (relay->ack_at == 0) {
		relay->ack_at = loop_now_us() + ACK_DELAY_US;
	}
}

static void chunk_delivered(struct relay *relay)
{
	if (relay->rx.eof && !relay->qemu_deaf && relay->qemu.fd >= 0)
		shutdown(relay->qemu.fd, SHUT_WR);
	owe_ack(relay, relay->rx.eof);
}

/* The chunk that came ahead overlaps what came before it: who sent it is no good. */
static void overlaps(struct relay *relay, uint32_t from)
{
	struct dr_error why = DR_ERROR_INIT;

	dr_error_set(&why, DR_EPROTO, "a chunk overlaps the one before it");
	rx_drop(&relay->rx, false);
	for (size_t i = 0; i < RELAY_CHANNELS; i++)
		if (relay->channels[i].state >= CHANNEL_SYNC && relay->channels[i].id == from)
			relay_channel_lost(relay, &relay->channels[i], &why);
}

void pump_deliver_ahead(struct relay *relay)
{
	const struct rx_chunk *chunk;

	while ((chunk = rx_ready(&relay->rx)) != NULL) {
		uint64_t done = relay->rx.delivered - relay->rx.start;

		if (chunk->offset != relay->rx.start || done > chunk->length) {
			overlaps(relay, chunk->from);
			return;
		}
		if (done < chunk->length) {
			if (to_qemu(relay, chunk->bytes + done, chunk->length - done) < 0)
				return;
			continue;
		}
		rx_drop(&relay->rx, true);
		chunk_delivered(relay);
	}
}

static int chunk_complete(struct relay *relay, struct channel *channel, struct dr_error *why)
{
	uint8_t *keep = channel->keep;

	channel->receiving = false;
	channel->keep = NULL;
	if (keep != NULL) {
		if (rx_keep(&relay->rx, &channel->in, keep, channel->id, why) != 0)
			return -DR_EPROTO;
	} else if (channel->in.sequence == relay->rx.expected) {
		if (relay->rx.delivered - relay->rx.start != channel->in.length)
			return dr_error_set(why, DR_EPROTO, "chunk %llu came with two lengths",
					    (unsigned long long)channel->in.sequence);
		rx_next(&relay->rx, &channel->in);
		chunk_delivered(relay);
	}
	pump_deliver_ahead(relay);
	return channel->state >= CHANNEL_SYNC ? 0 : -DR_EAGAIN;
}

static int got_ack(struct relay *relay, struct channel *channel, const struct chunk *frame,
		   struct dr_error *why)
{
	uint64_t before = relay->tx.acked_bytes;
	int r = tx_ack(&relay->tx, frame->sequence, frame->offset, why);

	if (r != 0)
		return r;
	if (relay->tx.acked_bytes != before || tx_unacked(&relay->tx) == 0)
		relay->progress_us = loop_now_us();
	if (channel->state == CHANNEL_SYNC) {
		if (relay_has_better(relay, channel))
			return dr_error_set(why, DR_EREFUSED, "a network of a better rank works");
		channel->state = CHANNEL_UP;
		relay_channel_works(relay, channel);
	}
	return 0;
}

static void peer_resumed(struct relay *relay)
{
	if (relay->peer_resumed || relay->destination)
		return;
	relay->peer_resumed = true;
	control_event(relay, DROVER__RELAY_EVENT__KIND__PEER_RESUMED, 0, NULL);
}

static int begin_chunk(struct relay *relay, struct channel *channel, struct dr_error *why)
{
	enum rx_place place;
	int r = rx_accept(&relay->rx, &channel->in, &place, why);

	if (r != 0)
		return r;
	if (place == RX_AHEAD) {
		channel->keep = rx_buffer(&relay->rx, channel->in.length);
		if (channel->keep == NULL)
			return dr_error_set(
				why, DR_ENOMEM, "no room for chunk %llu: %llu bytes came ahead of their turn",
				(unsigned long long)channel->in.sequence, (unsigned long long)relay->rx.held);
	}
	channel->receiving = true;
	channel->in_pos = 0;
	return 0;
}

static int got_frame(struct relay *relay, struct channel *channel, struct dr_error *why)
{
	struct chunk *frame = &channel->in;

	if (channel->state == CHANNEL_SYNC && frame->type != CHUNK_ACK)
		return dr_error_set(why, DR_EPROTO, "frame of type %d before the first ACK",
				    (int)frame->type);
	switch (frame->type) {
	case CHUNK_DATA:
	case CHUNK_EOF:
		return begin_chunk(relay, channel, why);
	case CHUNK_ACK:
		return got_ack(relay, channel, frame, why);
	case CHUNK_RESUMED:
		peer_resumed(relay);
		return 0;
	case CHUNK_PING:
		return 0;
	case CHUNK_STOP:
		if (!relay->tx.stopped && relay->state == RELAY_RUNNING) {
			relay_log(relay, "QEMU at the peer reads no more");
			shutdown(relay->qemu.fd, SHUT_RD);
			tx_stop(&relay->tx); /* a chunk on its way is finished all the same */
		}
		return 0;
	case CHUNK_ABORT:
		return dr_error_set(why, DR_EFAILED, "the other side has given up");
	}
	return dr_error_set(why, DR_EBUG, "frame type %d", (int)frame->type);
}

/* Uses up what was received. 0: all that is possible now; -DR_EAGAIN: the channel is no more. */
static int understand(struct relay *relay, struct channel *channel, struct dr_error *why)
{
	int r;

	for (;;) {
		size_t have = channel->rx_end - channel->rx_start;

		if (channel->receiving) {
			if (channel->in_pos == channel->in.length) {
				r = chunk_complete(relay, channel, why);
				if (r != 0)
					return r;
				continue;
			}
			if (have == 0 || !take_body(relay, channel, have))
				return 0;
			continue;
		}
		if (have < CHUNK_HEADER)
			return 0;
		if (chunk_decode(channel->rx + channel->rx_start, &channel->in, why) != 0)
			return -DR_EPROTO;
		channel->rx_start += CHUNK_HEADER;
		if (got_frame(relay, channel, why) != 0)
			return -(int)why->code;
	}
}

int pump_receive(struct relay *relay, struct channel *channel, struct dr_error *why)
{
	int r = understand(relay, channel, why);

	for (int i = 0; i < RECEIVES_PER_TURN && r == 0 && channel->readable && channel_room(channel) > 0;
	     i++) {
		ssize_t n = channel_receive(channel, why);

		if (n == -DR_EAGAIN)
			break;
		if (n < 0)
			return (int)n;
		r = understand(relay, channel, why);
		if (relay->rx.delivered != relay->acked_delivered)
			owe_ack(relay, false);
	}
	if (r == -DR_EFAILED) {
		relay_fail(relay, why);
		return -DR_EAGAIN;
	}
	return r;
}

/* ---- tx -> channel ---- */

static void queue_owed(struct relay *relay, struct channel *channel)
{
	const struct {
		enum channel_owes what;
		struct chunk frame;
	} frames[] = {
		{OWE_ABORT, {.type = CHUNK_ABORT}},
		{OWE_ACK, {.type = CHUNK_ACK, .sequence = relay->rx.expected, .offset = relay->rx.delivered}},
		{OWE_STOP, {.type = CHUNK_STOP}},
		{OWE_RESUMED, {.type = CHUNK_RESUMED}},
	};
	uint64_t now;

	for (size_t i = 0; i < DR_ARRAY_SIZE(frames) && channel->owed != 0; i++) {
		if ((channel->owed & frames[i].what) == 0 || !channel_can_queue(channel))
			continue;
		channel_queue(channel, &frames[i].frame);
		channel->owed &= ~(unsigned)frames[i].what;
	}
	now = loop_now_us();
	if (now - channel->last_tx_us >= CHANNEL_PING_US && channel->ctl_len == 0) {
		channel_queue(channel, &(struct chunk){.type = CHUNK_PING});
		channel->last_tx_us = now; /* once, also while the socket is full */
	}
}

/*
 * Is this the channel that will deliver the next chunk first (DESIGN §8)? If another one that is busy will,
 * the chunk waits for that; it is looked at again soon, since nothing here tells when that changes.
 */
static bool delivers_first(struct relay *relay, struct channel *channel)
{
	uint64_t now, mine;
	uint32_t size;

	if (relay->channels_up < 2)
		return true;
	size = tx_peek(&relay->tx);
	now = loop_now_us();
	channel_measure(channel, now);
	mine = channel_eta(channel, size, now);
	for (size_t i = 0; i < RELAY_CHANNELS && mine > 0; i++) {
		struct channel *other = &relay->channels[i];
		uint64_t theirs;

		if (other == channel || other->state != CHANNEL_UP)
			continue;
		channel_measure(other, now);
		theirs = channel_eta(other, size, now);
		if (theirs != 0 && theirs < mine) {
			if (relay->send_at == 0 || relay->send_at > now + LOOK_AGAIN_US)
				relay->send_at = now + LOOK_AGAIN_US;
			return false;
		}
	}
	return true;
}

static bool next_chunk(struct relay *relay, struct channel *channel)
{
	bool again;

	if (channel->state != CHANNEL_UP || tx_waiting_chunks(&relay->tx) == 0 ||
	    !delivers_first(relay, channel) || !tx_take(&relay->tx, channel->number, &channel->out, &again))
		return false;
	if (again)
		channel->network->again += channel->out.length;
	chunk_encode(&channel->out, channel->out_header);
	channel->out_pos = 0;
	channel->sending = true;
	return true;
}

/* Sends a piece of the chunk that is on its way. Bytes, or -DR_EAGAIN when budget or socket say wait. */
static ssize_t send_piece(struct relay *relay, struct channel *channel, struct dr_error *why)
{
	size_t allowed = budget_allowed(&relay->budget, loop_now_us(), &relay->send_at), body = 0;
	struct iovec iov[2];
	int n = 0;

	if (allowed == 0 && channel->tls_retry == 0)
		return -DR_EAGAIN;
	if (channel->out_pos < CHUNK_HEADER) {
		iov[n].iov_base = channel->out_header + channel->out_pos;
		iov[n++].iov_len = CHUNK_HEADER - channel->out_pos;
	} else {
		body = channel->out_pos - CHUNK_HEADER;
	}
	if (body < channel->out.length) {
		size_t left = channel->out.length - body;

		/* OpenSSL insists on the same piece again: the budget can't shorten it. */
		iov[n].iov_base = tx_bytes(&relay->tx, &channel->out, body);
		iov[n++].iov_len = left > allowed && channel->tls_retry == 0 ? allowed : left;
	}
	return channel_send(channel, iov, n, why);
}

int pump_send(struct relay *relay, struct channel *channel, struct dr_error *why)
{
	channel->more = false;
	for (int i = 0; !channel->blocked; i++) {
		uint64_t wire = channel->wire;
		ssize_t n;

		if (i == SENDS_PER_TURN) {
			channel->more = true;
			break;
		}
		if (!channel->sending) {
			queue_owed(relay, channel);
			n = channel_flush(channel, why);
			budget_spend(&relay->budget, channel->wire - wire);
			wire = channel->wire;
			if (n != 0)
				return n == -DR_EAGAIN ? 0 : (int)n;
			if (!next_chunk(relay, channel))
				return 0;
		}
		n = send_piece(relay, channel, why);
		budget_spend(&relay->budget, channel->wire - wire);
		if (n < 0)
			return n == -DR_EAGAIN ? 0 : (int)n;
		channel->out_pos += (size_t)n;
		if (channel->out_pos == CHUNK_HEADER + channel->out.length) {
			channel->sending = false;
			tx_sent(&relay->tx, &channel->out);
		}
	}
	return 0;
}

void pump_pace(struct relay *relay, const struct channel *channel)
{
	uint64_t rate = relay->budget.rate == 0 || relay->budget.urgent
				? UINT64_MAX
				: relay->budget.rate + relay->budget.rate / 5;

	/* Best effort (no such option on some sockets); the budget holds without it. */
	setsockopt(channel->watch.fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof(rate));
}
