#include "proto/conn.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/net.h"
#include "proto/conn_private.h"
#include "proto/frame.h"

#define READ_SPACE    16384 /* least room for one read: a whole TLS record, so that none stays in OpenSSL */
#define READ_TURN_MAX (256u << 10) /* bytes read from one connection before the others get their turn */
#define DEAD_MS	      10000	   /* a TCP peer that is silent this long is dead */

struct out_frame {
	struct out_frame *next;
	size_t size, sent;
	uint8_t *data;
};

struct conn {
	qb_loop_t *loop;
	int fd;
	SSL *ssl; /* NULL: unix */
	enum conn_state state;
	const struct conn_ops *ops;
	void *data;
	struct listener *listener; /* until the handshake is over */
	struct dr_error fault;	   /* reported by the fault job */
	unsigned busy;	   /* depth of callbacks that use the connection: it is freed when the last returns */
	bool open_pending; /* the open job is waiting */
	bool fault_pending;
	bool timed;
	qb_loop_timer_handle timer;
	short events; /* registered with the loop; 0 = not registered */
	struct out_frame *out_first, **out_last;
	size_t out_bytes;
	uint8_t *in;
	size_t in_size, in_used;
	uid_t uid;
	gid_t gid;
	pid_t pid;
	char peer[NET_TEXT];
};

static int32_t on_event(int32_t fd, int32_t revents, void *data);
static void on_fault_job(void *data);
static void on_open_job(void *data);
static void flush(struct conn *conn);

static void set_events(struct conn *conn, short events)
{
	if (events == conn->events)
		return;
	if (conn->events == 0)
		qb_loop_poll_add(conn->loop, QB_LOOP_MED, conn->fd, events, conn, on_event);
	else if (events == 0)
		qb_loop_poll_del(conn->loop, conn->fd);
	else
		qb_loop_poll_mod(conn->loop, QB_LOOP_MED, conn->fd, events, conn, on_event);
	conn->events = events;
}

static void stop_timer(struct conn *conn)
{
	if (conn->timed)
		qb_loop_timer_del(conn->loop, conn->timer);
	conn->timed = false;
}

static void conn_free(struct conn *conn)
{
	set_events(conn, 0);
	stop_timer(conn);
	if (conn->open_pending)
		qb_loop_job_del(conn->loop, QB_LOOP_HIGH, conn, on_open_job);
	if (conn->fault_pending)
		qb_loop_job_del(conn->loop, QB_LOOP_HIGH, conn, on_fault_job);
	SSL_free(conn->ssl);
	if (conn->fd >= 0)
		close(conn->fd);
	while (conn->out_first != NULL) {
		struct out_frame *frame = conn->out_first;

		conn->out_first = frame->next;
		free(frame->data);
		free(frame);
	}
	free(conn->in);
	free(conn);
}

/* No more events; memory goes when nobody on the stack uses it. */
static void die(struct conn *conn)
{
	conn->state = CONN_DEAD;
	set_events(conn, 0);
	stop_timer(conn);
	if (conn->busy == 0)
		conn_free(conn);
}

static void enter(struct conn *conn)
{
	conn->busy++;
}

static void leave(struct conn *conn)
{
	if (--conn->busy == 0 && conn->state == CONN_DEAD)
		conn_free(conn);
}

/* The one way in which a connection ends by itself. */
static void fail(struct conn *conn, const struct dr_error *why)
{
	enum conn_state was = conn->state;

	if (was == CONN_DEAD)
		return;
	conn->state = CONN_DEAD;
	enter(conn);
	if (conn->listener != NULL)
		listener_settled(conn->listener, conn, why, &conn->data);
	else if ((was == CONN_CONNECTING || was == CONN_HANDSHAKE || was == CONN_OPEN) &&
		 conn->ops->on_close != NULL)
		conn->ops->on_close(conn, why, conn->data);
	set_events(conn, 0);
	stop_timer(conn);
	leave(conn);
}

static void on_fault_job(void *data)
{
	struct conn *conn = data;

	conn->fault_pending = false;
	fail(conn, &conn->fault);
}

/* For failures inside calls of the owner, who does not expect on_close there. */
static void fail_later(struct conn *conn, const struct dr_error *why)
{
	if (conn->fault_pending || conn->state == CONN_DEAD)
		return;
	conn->fault = *why;
	conn->fault_pending = true;
	set_events(conn, 0);
	qb_loop_job_add(conn->loop, QB_LOOP_HIGH, conn, on_fault_job);
}

static void on_deadline(void *data)
{
	struct conn *conn = data;
	struct dr_error why = DR_ERROR_INIT;

	conn->timed = false;
	dr_error_set(&why, DR_ETIMEOUT, "%s: no answer within %d ms", conn->peer, CONN_HANDSHAKE_MS);
	fail(conn, &why);
}

static void start_timer(struct conn *conn)
{
	stop_timer(conn);
	conn->timed = qb_loop_timer_add(conn->loop, QB_LOOP_MED, (uint64_t)CONN_HANDSHAKE_MS * 1000000, conn,
					on_deadline, &conn->timer) == 0;
}

static void opened(struct conn *conn)
{
	conn->state = CONN_OPEN;
	stop_timer(conn);
	set_events(conn, POLLIN);
	enter(conn);
	if (conn->listener != NULL) {
		struct listener *listener = conn->listener;

		conn->listener = NULL;
		listener_settled(listener, conn, NULL, &conn->data);
	} else if (conn->ops->on_open != NULL) {
		conn->ops->on_open(conn, conn->data);
	}
	if (conn->state == CONN_OPEN || conn->state == CONN_FLUSHING)
		flush(conn);
	leave(conn);
}

static void on_open_job(void *data)
{
	struct conn *conn = data;

	conn->open_pending = false;
	if (conn->state == CONN_HANDSHAKE)
		opened(conn);
}

static void handshake(struct conn *conn)
{
	struct dr_error why = DR_ERROR_INIT;
	int r = tls_handshake(conn->ssl, &why);

	if (r == 0) {
		opened(conn);
	} else if (r == -DR_EAGAIN) {
		set_events(conn, SSL_want_write(conn->ssl) ? POLLOUT : POLLIN);
	} else {
		dr_error_prefix(&why, "%s", conn->peer);
		fail(conn, &why);
	}
}

static void connected(struct conn *conn)
{
	struct dr_error why = DR_ERROR_INIT;
	int r = net_connect_result(conn->fd, &why);

	if (r == -DR_EAGAIN)
		return;
	if (r != 0) {
		why.code = DR_ENODAEMON;
		dr_error_prefix(&why, "%s", conn->peer);
		fail(conn, &why);
		return;
	}
	conn->state = CONN_HANDSHAKE;
	handshake(conn);
}

/* ---- reading ---- */

/* Bytes read (> 0), or a negative code; the end of the connection is -DR_ECLOSED. */
static ssize_t receive(struct conn *conn, void *buf, size_t size, struct dr_error *why)
{
	ssize_t n;

	if (conn->ssl != NULL) {
		size_t got;
		int r;

		ERR_clear_error();
		r = SSL_read_ex(conn->ssl, buf, size, &got);
		return r == 1 ? (ssize_t)got : tls_error(conn->ssl, r, why);
	}
	n = recv(conn->fd, buf, size, 0);
	if (n > 0)
		return n;
	if (n == 0 || errno == ECONNRESET)
		return dr_error_set(why, DR_ECLOSED, "the peer closed the connection");
	if (errno == EAGAIN || errno == EINTR)
		return -DR_EAGAIN;
	return dr_error_errno(why, DR_EIO, errno, "cannot receive");
}

/* Room for READ_SPACE more bytes. Grows with what has come, not with what a header announces. */
static int make_room(struct conn *conn, struct dr_error *why)
{
	size_t size = conn->in_size == 0 ? READ_SPACE * 2 : conn->in_size;
	uint8_t *in;

	if (conn->in_size - conn->in_used >= READ_SPACE)
		return 0;
	while (size - conn->in_used < READ_SPACE)
		size *= 2;
	in = realloc(conn->in, size);
	if (in == NULL)
		return dr_error_set(why, DR_ENOMEM, "no memory for a frame");
	conn->in = in;
	conn->in_size = size;
	return 0;
}

/* Hands over every whole frame. Stops when a callback closes the connection. */
static int deliver(struct conn *conn, struct dr_error *why)
{
	size_t at = 0, body = 0;
	int r = 0;

	while (conn->state == CONN_OPEN && !conn->fault_pending) {
		Drover__Msg *msg;

		r = frame_header(conn->in + at, conn->in_used - at, &body, why);
		if (r != 0 || conn->in_used - at - FRAME_HEADER < body)
			break;
		msg = frame_unpack(conn->in + at + FRAME_HEADER, body, why);
		if (msg == NULL) {
			r = -DR_EPROTO;
			break;
		}
		at += FRAME_HEADER + body;
		if (conn->ops->on_message != NULL)
			conn->ops->on_message(conn, msg, conn->data);
		drover__msg__free_unpacked(msg, NULL);
	}
	memmove(conn->in, conn->in + at, conn->in_used - at);
	conn->in_used -= at;
	if (conn->in_used == 0) { /* idle connections hold no buffer */
		free(conn->in);
		conn->in = NULL;
		conn->in_size = 0;
	}
	return r == -DR_EAGAIN ? 0 : r;
}

static void on_readable(struct conn *conn)
{
	struct dr_error why = DR_ERROR_INIT;
	size_t turn = 0;
	int r = 0;

	while (turn < READ_TURN_MAX && conn->state == CONN_OPEN && !conn->fault_pending) {
		ssize_t n;

		r = make_room(conn, &why);
		if (r != 0)
			break;
		n = receive(conn, conn->in + conn->in_used, conn->in_size - conn->in_used, &why);
		if (n < 0) {
			r = (int)n;
			break;
		}
		conn->in_used += (size_t)n;
		turn += (size_t)n;
		r = deliver(conn, &why);
		if (r != 0)
			break;
	}
	if (r == -DR_EAGAIN || conn->state != CONN_OPEN)
		r = 0;
	if (conn->in_used == 0 && conn->in != NULL) {
		free(conn->in);
		conn->in = NULL;
		conn->in_size = 0;
	}
	if (r != 0) {
		dr_error_prefix(&why, "%s", conn->peer);
		fail(conn, &why);
	}
}

/* After our last byte: what comes is thrown away until the peer ends its side. */
static void on_linger(struct conn *conn)
{
	static char sink[READ_SPACE];

	for (size_t turn = 0; turn < READ_TURN_MAX;) {
		ssize_t n = recv(conn->fd, sink, sizeof(sink), 0);

		if (n > 0) {
			turn += (size_t)n;
			continue;
		}
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		die(conn);
		return;
	}
}

/* ---- writing ---- */

static ssize_t transmit(struct conn *conn, const void *buf, size_t size, struct dr_error *why)
{
	ssize_t n;

	if (conn->ssl != NULL) {
		size_t sent;
		int r;

		ERR_clear_error();
		r = SSL_write_ex(conn->ssl, buf, size, &sent);
		return r == 1 ? (ssize_t)sent : tls_error(conn->ssl, r, why);
	}
	n = send(conn->fd, buf, size, MSG_NOSIGNAL);
	if (n >= 0)
		return n;
	if (errno == EAGAIN || errno == EINTR)
		return -DR_EAGAIN;
	if (errno == EPIPE || errno == ECONNRESET)
		return dr_error_set(why, DR_ECLOSED, "the peer closed the connection");
	return dr_error_errno(why, DR_EIO, errno, "cannot send");
}

/* The queue is empty and the owner has gone: half-close, then wait for the peer's end if it may still read.
 */
static void linger(struct conn *conn)
{
	int unread = 0;

	if (conn->ssl != NULL) {
		ERR_clear_error();
		SSL_shutdown(conn->ssl);
		ERR_clear_error();
	}
	shutdown(conn->fd, SHUT_WR);
	if (ioctl(conn->fd, FIONREAD, &unread) == 0 && unread == 0 && conn->state == CONN_OPEN) {
		die(conn);
		return;
	}
	conn->state = CONN_LINGERING;
	start_timer(conn);
	set_events(conn, POLLIN);
}

static void drop_first(struct conn *conn)
{
	struct out_frame *frame = conn->out_first;

	conn->out_bytes -= frame->size - frame->sent;
	conn->out_first = frame->next;
	if (conn->out_first == NULL)
		conn->out_last = &conn->out_first;
	free(frame->data);
	free(frame);
}

static void write_failed(struct conn *conn, int code, struct dr_error *why)
{
	if (conn->state == CONN_FLUSHING) {
		die(conn);
	} else if (code == -DR_ECLOSED) {
		/* Its last words may be waiting and say why it left: read them, then the end is seen there.
		 */
		while (conn->out_first != NULL)
			drop_first(conn);
		set_events(conn, POLLIN);
	} else {
		dr_error_prefix(why, "%s", conn->peer);
		fail_later(conn, why);
	}
}

static void flush(struct conn *conn)
{
	struct dr_error why = DR_ERROR_INIT;
	ssize_t n = 0;

	while (conn->out_first != NULL) {
		struct out_frame *frame = conn->out_first;

		n = transmit(conn, frame->data + frame->sent, frame->size - frame->sent, &why);
		if (n < 0)
			break;
		frame->sent += (size_t)n;
		conn->out_bytes -= (size_t)n;
		if (frame->sent == frame->size)
			drop_first(conn);
	}
	if (n < 0 && n != -DR_EAGAIN) {
		write_failed(conn, (int)n, &why);
		return;
	}
	if (conn->out_first == NULL && conn->state == CONN_FLUSHING) {
		linger(conn);
		return;
	}
	set_events(conn, conn->out_first != NULL ? POLLIN | POLLOUT : POLLIN);
}

static int32_t on_event(int32_t fd, int32_t revents, void *data)
{
	struct conn *conn = data;

	(void)fd;
	enter(conn);
	switch (conn->state) {
	case CONN_CONNECTING:
		connected(conn);
		break;
	case CONN_HANDSHAKE:
		handshake(conn);
		break;
	case CONN_OPEN:
		if ((revents & (POLLIN | POLLHUP | POLLERR)) != 0)
			on_readable(conn);
		if ((revents & POLLOUT) != 0 && conn->state == CONN_OPEN && !conn->fault_pending)
			flush(conn);
		break;
	case CONN_FLUSHING:
		if ((revents & POLLOUT) != 0)
			flush(conn);
		else if ((revents & (POLLHUP | POLLERR)) != 0)
			die(conn);
		break;
	case CONN_LINGERING:
		on_linger(conn);
		break;
	case CONN_DEAD:
		break;
	}
	leave(conn);
	return 0;
}

/* ---- making ---- */

static struct conn *conn_new(qb_loop_t *loop, int take_fd, const struct conn_ops *ops, struct dr_error *err)
{
	struct conn *conn = calloc(1, sizeof(*conn));

	if (conn == NULL) {
		close(take_fd);
		dr_error_set(err, DR_ENOMEM, "no memory for a connection");
		return NULL;
	}
	conn->loop = loop;
	conn->fd = take_fd;
	conn->ops = ops;
	conn->out_last = &conn->out_first;
	conn->uid = (uid_t)-1;
	conn->gid = (gid_t)-1;
	conn->pid = -1;
	return conn;
}

static void know_unix_peer(struct conn *conn)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (getsockopt(conn->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
		conn->uid = cred.uid;
		conn->gid = cred.gid;
		conn->pid = cred.pid;
	}
	snprintf(conn->peer, sizeof(conn->peer), "uid %d pid %d", (int)conn->uid, (int)conn->pid);
}

/* Gives a TCP connection its TLS and a unix one its first turn; the deadline runs from here. */
static int prepare(struct conn *conn, struct tls_psk *tls, bool server, struct dr_error *err)
{
	start_timer(conn);
	if (tls == NULL) {
		conn->state = CONN_HANDSHAKE;
		conn->open_pending = true;
		qb_loop_job_add(conn->loop, QB_LOOP_HIGH, conn, on_open_job);
		return 0;
	}
	net_tune_tcp(conn->fd, DEAD_MS);
	conn->ssl = tls_psk_ssl(tls, conn->fd, server, err);
	if (conn->ssl == NULL)
		return -DR_ENOMEM;
	conn->state = server ? CONN_HANDSHAKE : CONN_CONNECTING;
	set_events(conn, server ? POLLIN : POLLOUT);
	return 0;
}

struct conn *conn_connect(qb_loop_t *loop, const char *address, struct tls_psk *tls,
			  const struct conn_ops *ops, void *data, struct dr_error *err)
{
	bool is_unix = strncmp(address, "unix:", 5) == 0;
	struct net_addr to;
	struct conn *conn;
	int fd;

	if (is_unix) {
		fd = net_connect_unix(address + 5, SOCK_STREAM, err);
	} else {
		if (tls == NULL) {
			dr_error_set(err, DR_EBUG, "%s: a TCP connection needs a key", address);
			return NULL;
		}
		if (net_parse(address, &to, err) != 0)
			return NULL;
		fd = net_connect_tcp(&to, NULL, err);
	}
	if (fd < 0)
		return NULL;
	conn = conn_new(loop, fd, ops, err);
	if (conn == NULL)
		return NULL;
	conn->data = data;
	if (is_unix)
		know_unix_peer(conn);
	else
		net_format(&to, conn->peer);
	if (prepare(conn, is_unix ? NULL : tls, false, err) != 0) {
		conn_free(conn);
		return NULL;
	}
	return conn;
}

struct conn *conn_accepted(qb_loop_t *loop, int take_fd, struct tls_psk *tls, struct listener *listener,
			   const struct conn_ops *ops, struct dr_error *err)
{
	struct conn *conn = conn_new(loop, take_fd, ops, err);
	struct net_addr peer = {.len = sizeof(peer.ss)};

	if (conn == NULL)
		return NULL;
	if (tls == NULL)
		know_unix_peer(conn);
	else if (getpeername(take_fd, (struct sockaddr *)&peer.ss, &peer.len) == 0)
		net_format(&peer, conn->peer);
	if (prepare(conn, tls, true, err) != 0) {
		conn_free(conn);
		return NULL;
	}
	conn->listener = listener;
	return conn;
}

/* ---- what the owner calls ---- */

int conn_send(struct conn *conn, const Drover__Msg *msg)
{
	struct dr_error why = DR_ERROR_INIT;
	struct out_frame *frame;

	if (conn->fault_pending || conn->state >= CONN_FLUSHING)
		return -DR_ECLOSED;
	if (drover__msg__get_packed_size(msg) > FRAME_LENGTH_MAX)
		return -DR_EPROTO;
	frame = calloc(1, sizeof(*frame));
	if (frame == NULL)
		return -DR_ENOMEM;
	frame->data = frame_pack(msg, &frame->size);
	if (frame->data == NULL) {
		free(frame);
		return -DR_ENOMEM;
	}
	if (conn->out_bytes + frame->size > CONN_QUEUE_MAX) {
		dr_error_set(&why, DR_ECLOSED, "%s: the peer does not read: %zu bytes are waiting for it",
			     conn->peer, conn->out_bytes);
		fail_later(conn, &why);
		free(frame->data);
		free(frame);
		return -DR_ECLOSED;
	}
	*conn->out_last = frame;
	conn->out_last = &frame->next;
	conn->out_bytes += frame->size;
	if (conn->state == CONN_OPEN && (conn->events & POLLOUT) == 0)
		flush(conn);
	return conn->fault_pending ? -DR_ECLOSED : 0;
}

void conn_drop(struct conn *conn)
{
	if (conn == NULL || conn->state == CONN_DEAD)
		return;
	conn->listener = NULL;
	die(conn);
}

void conn_close(struct conn *conn)
{
	if (conn == NULL || conn->state == CONN_DEAD || conn->state == CONN_FLUSHING ||
	    conn->state == CONN_LINGERING)
		return;
	if (conn->fault_pending) {
		conn_drop(conn);
		return;
	}
	enter(conn);
	switch (conn->state) {
	case CONN_OPEN:
		if (conn->out_first == NULL) {
			linger(conn);
			break;
		}
		conn->state = CONN_FLUSHING;
		start_timer(conn);
		set_events(conn, POLLOUT);
		break;
	case CONN_CONNECTING:
	case CONN_HANDSHAKE:
	case CONN_FLUSHING:
	case CONN_LINGERING:
	case CONN_DEAD:
		conn_drop(conn);
		break;
	}
	leave(conn);
}

void conn_abort(struct conn *conn)
{
	if (conn != NULL && conn->state == CONN_OPEN && conn->ssl != NULL) {
		ERR_clear_error();
		SSL_shutdown(conn->ssl); /* says goodbye, does not wait for the answer */
		ERR_clear_error();
	}
	conn_drop(conn);
}

bool conn_is_unix(const struct conn *conn)
{
	return conn->ssl == NULL;
}

uid_t conn_peer_uid(const struct conn *conn)
{
	return conn->uid;
}

gid_t conn_peer_gid(const struct conn *conn)
{
	return conn->gid;
}

pid_t conn_peer_pid(const struct conn *conn)
{
	return conn->pid;
}

const char *conn_peer_name(const struct conn *conn)
{
	return conn->peer;
}

void conn_set_data(struct conn *conn, void *data)
{
	conn->data = data;
}
