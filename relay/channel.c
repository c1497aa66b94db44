#include "relay/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <linux/tcp.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/net.h"

#define TLS_READ_AHEAD (128u << 10)
#define UNSENT_MAX     (1 << 20) /* bytes in the kernel that are not on their way: they'd add to the blackout */

static void queue_bytes(struct channel *channel, const void *data, size_t size)
{
	memcpy(channel->ctl + channel->ctl_len, data, size);
	channel->ctl_len += size;
}

static int open_tls(struct channel *channel, const struct channel_setup *setup, struct dr_error *err)
{
	channel->ssl = tls_psk_ssl(setup->tls, channel->watch.fd, setup->destination, err);
	if (channel->ssl == NULL)
		return -DR_ENOMEM;
	/* A record costs two reads otherwise; and buffers that are always needed are not worth freeing. */
	SSL_set_read_ahead(channel->ssl, 1);
	SSL_set_default_read_buffer_len(channel->ssl, TLS_READ_AHEAD);
	SSL_clear_mode(channel->ssl, SSL_MODE_RELEASE_BUFFERS);
	channel->state = CHANNEL_TLS;
	return 0;
}

static int open_plain(struct channel *channel, const struct channel_setup *setup, struct dr_error *err)
{
	if (auth_init(&channel->auth, setup->key, setup->destination, setup->move, setup->attempt) != 0)
		return dr_error_set(err, DR_EIO, "no random numbers");
	if (!setup->destination)
		queue_bytes(channel, channel->auth.mine, AUTH_HELLO);
	channel->state = CHANNEL_HELLO;
	return 0;
}

/* Bytes of ours that the peer's kernel has; 0 where there is no such figure. */
static uint64_t tcp_acked(const struct channel *channel)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	if (getsockopt(channel->watch.fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
		return 0;
	return info.tcpi_bytes_acked;
}

void channel_measure(struct channel *channel, uint64_t now_us)
{
	uint64_t acked, sample, queue = channel->queue;

	if (now_us - channel->measured_us < CHANNEL_MEASURE_US)
		return;
	channel->measured_us = now_us;
	acked = tcp_acked(channel);
	acked = acked > channel->tcp_base ? acked - channel->tcp_base : 0;
	channel->queue = channel->wire > acked ? channel->wire - acked : 0;
	/* A few bytes may wait for the peer's delayed ACK, and say nothing of the link. */
	if (queue < CHANNEL_BUSY || channel->queue < CHANNEL_BUSY) {
		channel->moved_us = channel->window_us = now_us;
		channel->window_acked = channel->acked = acked;
		/* It may be better than it was: what nobody asks for would never be seen. */
		if (now_us - channel->hoped_us >= CHANNEL_RATE_US) {
			if (channel->rate < CHANNEL_RATE_MAX)
				channel->rate += channel->rate / 8;
			channel->hoped_us = now_us;
		}
		return;
	}
	channel->hoped_us = now_us;
	if (acked != channel->acked)
		channel->moved_us = now_us;
	else if (now_us - channel->moved_us > channel->network->stall_us)
		channel->network->stall_us = now_us - channel->moved_us;
	channel->acked = acked;
	if (now_us - channel->window_us < CHANNEL_RATE_US)
		return;
	sample = (acked - channel->window_acked) * 1000000 / (now_us - channel->window_us);
	channel->rate = channel->rate == 0 ? sample : (3 * channel->rate + sample) / 4;
	channel->window_us = now_us;
	channel->window_acked = acked;
}

uint64_t channel_eta(const struct channel *channel, uint64_t size, uint64_t now_us)
{
	uint64_t stuck =
		channel->queue >= CHANNEL_BUSY && now_us > channel->moved_us ? now_us - channel->moved_us : 0;

	if (channel->sending)
		size += channel->out.length + CHUNK_HEADER - channel->out_pos;
	return channel->rate == 0 ? 0 : stuck + (channel->queue + size) * 1000000 / channel->rate;
}

int channel_open(struct channel *channel, int take_fd, const struct channel_setup *setup,
		 struct dr_error *err)
{
	struct watch watch = channel->watch;
	struct relay *relay = channel->relay;
	uint8_t number = channel->number;
	int unsent = UNSENT_MAX;
	int r;

	memset(channel, 0, sizeof(*channel));
	channel->watch = watch;
	channel->relay = relay;
	channel->number = number;
	channel->watch.fd = take_fd;
	channel->watch.events = 0;
	channel->id = setup->id;
	channel->rank = setup->rank;
	channel->network = setup->network;
	channel->opened_us = channel->last_rx_us = channel->last_tx_us = channel->moved_us = loop_now_us();
	channel->readable = true;
	fcntl(take_fd, F_SETFL, O_RDWR | O_NONBLOCK);
	net_tune_tcp(take_fd, CHANNEL_TCP_MS);
	setsockopt(take_fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
	channel->tcp_base = tcp_acked(channel);
	channel->rx = malloc(CHANNEL_RX);
	if (channel->rx == NULL)
		r = dr_error_set(err, DR_ENOMEM, "no memory for a channel");
	else
		r = setup->tls != NULL ? open_tls(channel, setup, err) : open_plain(channel, setup, err);
	if (r != 0)
		channel_close(channel, -1);
	return r;
}

void channel_close(struct channel *channel, int epoll)
{
	SSL_free(channel->ssl);
	channel->ssl = NULL;
	auth_fini(&channel->auth);
	loop_close(epoll, &channel->watch);
	free(channel->rx);
	channel->rx = NULL;
	channel->state = CHANNEL_FREE;
	channel->sending = channel->receiving = channel->blocked = channel->readable = channel->more = false;
}

/* ---- authentication ---- */

/* The next size bytes from the peer, or NULL with *r: no byte behind them is used up. */
static const uint8_t *need(struct channel *channel, size_t size, int *r, struct dr_error *err)
{
	const uint8_t *data;

	while (channel->rx_end - channel->rx_start < size) {
		ssize_t n = channel_receive(channel, err);

		if (n < 0) {
			*r = (int)n;
			return NULL;
		}
	}
	data = channel->rx + channel->rx_start;
	channel->rx_start += size;
	return data;
}

static int plain_hello(struct channel *channel, struct dr_error *err)
{
	uint8_t proof[AUTH_PROOF];
	int r = 0;
	const uint8_t *hello = need(channel, AUTH_HELLO, &r, err);

	if (hello == NULL)
		return r;
	r = auth_hello(&channel->auth, hello, err);
	if (r != 0)
		return r;
	if (channel->auth.destination) {
		queue_bytes(channel, channel->auth.mine, AUTH_HELLO);
		auth_prove(&channel->auth, proof);
		queue_bytes(channel, proof, AUTH_PROOF);
	}
	channel->state = CHANNEL_PROOF;
	return 0;
}

static int plain_proof(struct channel *channel, struct dr_error *err)
{
	uint8_t mine[AUTH_PROOF];
	int r = 0;
	const uint8_t *proof = need(channel, AUTH_PROOF, &r, err);

	if (proof == NULL)
		return r;
	r = auth_check(&channel->auth, proof, err);
	if (r != 0)
		return r;
	if (!channel->auth.destination) {
		auth_prove(&channel->auth, mine);
		queue_bytes(channel, mine, AUTH_PROOF);
	}
	channel->state = CHANNEL_SYNC;
	return 0;
}

int channel_auth(struct channel *channel, struct dr_error *err)
{
	int r = 0, flushed;

	if (channel->state == CHANNEL_TLS) {
		r = tls_handshake(channel->ssl, err);
		channel->wants_write = r == -DR_EAGAIN && SSL_want_write(channel->ssl);
		if (r == 0)
			channel->state = CHANNEL_SYNC;
		return r;
	}
	if (channel->state == CHANNEL_HELLO)
		r = plain_hello(channel, err);
	if (channel->state == CHANNEL_PROOF)
		r = plain_proof(channel, err);
	if (r != 0 && r != -DR_EAGAIN)
		return r;
	flushed = channel_flush(channel, err);
	channel->wants_write = flushed == -DR_EAGAIN;
	return flushed != 0 ? flushed : r;
}

/* ---- receiving ---- */

size_t channel_room(struct channel *channel)
{
	size_t used = channel->rx_end - channel->rx_start;

	if (used == 0) {
		channel->rx_start = channel->rx_end = 0;
	} else if (CHANNEL_RX - channel->rx_end < CHANNEL_RX / 2 && channel->rx_start >= CHANNEL_RX / 2) {
		memmove(channel->rx, channel->rx + channel->rx_start, used);
		channel->rx_start = 0;
		channel->rx_end = used;
	}
	return CHANNEL_RX - channel->rx_end;
}

static ssize_t receive_tls(struct channel *channel, size_t room, struct dr_error *err)
{
	size_t total = 0;

	while (total < room) {
		size_t got = 0;
		int r;

		ERR_clear_error();
		r = SSL_read_ex(channel->ssl, channel->rx + channel->rx_end + total, room - total, &got);
		if (r != 1) {
			r = tls_error(channel->ssl, r, total > 0 ? NULL : err);
			return total > 0 ? (ssize_t)total : r;
		}
		total += got;
	}
	return (ssize_t)total;
}

static ssize_t receive_plain(struct channel *channel, size_t room, struct dr_error *err)
{
	ssize_t n = recv(channel->watch.fd, channel->rx + channel->rx_end, room, 0);

	if (n > 0)
		return n;
	if (n == 0)
		return dr_error_set(err, DR_ECLOSED, "the peer closed the channel");
	if (errno == EAGAIN || errno == EINTR)
		return -DR_EAGAIN;
	return dr_error_errno(err, DR_EIO, errno, "channel lost");
}

ssize_t channel_receive(struct channel *channel, struct dr_error *err)
{
	size_t room = channel_room(channel);
	ssize_t n;

	if (room == 0)
		return -DR_EAGAIN;
	n = channel->ssl != NULL ? receive_tls(channel, room, err) : receive_plain(channel, room, err);
	channel->readable = n == (ssize_t)room;
	if (n > 0) {
		channel->rx_end += (size_t)n;
		channel->last_rx_us = loop_now_us();
	}
	return n;
}

/* ---- sending ---- */

static ssize_t send_tls(struct channel *channel, const struct iovec *iov, struct dr_error *err)
{
	size_t size = channel->tls_retry != 0 ? channel->tls_retry : iov->iov_len, sent = 0;
	int r;

	ERR_clear_error();
	r = SSL_write_ex(channel->ssl, iov->iov_base, size, &sent);
	channel->wire = BIO_number_written(SSL_get_wbio(channel->ssl));
	if (r == 1) {
		channel->tls_retry = 0;
		return (ssize_t)sent;
	}
	r = tls_error(channel->ssl, r, err);
	if (r == -DR_EAGAIN)
		channel->tls_retry = size;
	return r;
}

static ssize_t send_plain(struct channel *channel, const struct iovec *iov, int n, struct dr_error *err)
{
	struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)n};
	ssize_t sent = sendmsg(channel->watch.fd, &msg, MSG_NOSIGNAL);

	if (sent >= 0) {
		channel->wire += (uint64_t)sent;
		return sent;
	}
	if (errno == EAGAIN || errno == EINTR)
		return -DR_EAGAIN;
	return dr_error_errno(err, DR_EIO, errno, "channel lost");
}

ssize_t channel_send(struct channel *channel, const struct iovec *iov, int n, struct dr_error *err)
{
	ssize_t sent = channel->ssl != NULL ? send_tls(channel, iov, err) : send_plain(channel, iov, n, err);

	channel->blocked = sent == -DR_EAGAIN;
	if (sent > 0)
		channel->last_tx_us = loop_now_us();
	return sent;
}

bool channel_can_queue(const struct channel *channel)
{
	return channel->ctl_len + CHUNK_HEADER <= CHANNEL_CTL;
}

void channel_queue(struct channel *channel, const struct chunk *frame)
{
	chunk_encode(frame, channel->ctl + channel->ctl_len);
	channel->ctl_len += CHUNK_HEADER;
}

int channel_flush(struct channel *channel, struct dr_error *err)
{
	while (channel->ctl_pos < channel->ctl_len) {
		struct iovec iov = {
			.iov_base = channel->ctl + channel->ctl_pos,
			.iov_len = channel->ctl_len - channel->ctl_pos,
		};
		ssize_t n = channel_send(channel, &iov, 1, err);

		if (n < 0)
			return (int)n;
		channel->ctl_pos += (size_t)n;
	}
	channel->ctl_pos = channel->ctl_len = 0;
	return 0;
}
