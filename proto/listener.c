#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/net.h"
#include "proto/conn_private.h"

#define ACCEPT_TURN_MAX 32
#define PAUSE_MS	1000 /* without descriptors or memory: listen again after this */

struct listener {
	qb_loop_t *loop;
	int fd;
	char *path; /* unix */
	struct tls_psk *tls;
	const struct conn_ops *ops;
	listener_accept_fn on_accept;
	void *data;
	/* Connections before the end of their handshake, oldest first. */
	struct conn *unauthed[LISTENER_UNAUTHED_MAX];
	size_t n_unauthed;
	time_t warned; /* at most one line a second about strangers */
	bool paused;
	qb_loop_timer_handle pause;
};

static bool may_warn(struct listener *listener)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	if (now.tv_sec == listener->warned)
		return false;
	listener->warned = now.tv_sec;
	return true;
}

static void forget(struct listener *listener, size_t i)
{
	memmove(&listener->unauthed[i], &listener->unauthed[i + 1],
		(listener->n_unauthed - i - 1) * sizeof(listener->unauthed[0]));
	listener->n_unauthed--;
}

void listener_settled(struct listener *listener, struct conn *conn, const struct dr_error *why, void **data)
{
	for (size_t i = 0; i < listener->n_unauthed; i++) {
		if (listener->unauthed[i] == conn) {
			forget(listener, i);
			break;
		}
	}
	if (why == NULL)
		*data = listener->on_accept(listener, conn, listener->data);
	else if (may_warn(listener))
		log_warning("refused a connection: %s", why->text);
}

static void take(struct listener *listener, int take_fd)
{
	struct dr_error err = DR_ERROR_INIT;
	struct conn *conn;

	/* The oldest has had the longest time to prove itself; honest peers need milliseconds. */
	if (listener->n_unauthed == LISTENER_UNAUTHED_MAX) {
		struct conn *oldest = listener->unauthed[0];

		if (may_warn(listener))
			log_warning("%d connections wait for their handshake: ended that of %s",
				    LISTENER_UNAUTHED_MAX, conn_peer_name(oldest));
		forget(listener, 0);
		conn_drop(oldest);
	}
	conn = conn_accepted(listener->loop, take_fd, listener->tls, listener, listener->ops, &err);
	if (conn == NULL)
		log_warning("refused a connection: %s", err.text);
	else
		listener->unauthed[listener->n_unauthed++] = conn;
}

static int32_t on_listener(int32_t fd, int32_t revents, void *data);

static void on_pause_over(void *data)
{
	struct listener *listener = data;

	listener->paused = false;
	qb_loop_poll_add(listener->loop, QB_LOOP_MED, listener->fd, POLLIN, listener, on_listener);
}

static int32_t on_listener(int32_t fd, int32_t revents, void *data)
{
	struct listener *listener = data;

	(void)revents;
	for (int i = 0; i < ACCEPT_TURN_MAX; i++) {
		int peer = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (peer >= 0) {
			take(listener, peer);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			log_warning("cannot accept connections: %s; trying again in %d ms", strerror(errno),
				    PAUSE_MS);
			qb_loop_poll_del(listener->loop, fd);
			listener->paused =
				qb_loop_timer_add(listener->loop, QB_LOOP_MED, (uint64_t)PAUSE_MS * 1000000,
						  listener, on_pause_over, &listener->pause) == 0;
		}
		break;
	}
	return 0;
}

static struct listener *listener_new(qb_loop_t *loop, int take_fd, struct tls_psk *tls,
				     const struct conn_ops *ops, listener_accept_fn on_accept, void *data,
				     struct dr_error *err)
{
	struct listener *listener = calloc(1, sizeof(*listener));

	if (listener == NULL ||
	    qb_loop_poll_add(loop, QB_LOOP_MED, take_fd, POLLIN, listener, on_listener) != 0) {
		dr_error_set(err, DR_ENOMEM, "no memory to listen");
		free(listener);
		close(take_fd);
		return NULL;
	}
	listener->loop = loop;
	listener->fd = take_fd;
	listener->tls = tls;
	listener->ops = ops;
	listener->on_accept = on_accept;
	listener->data = data;
	return listener;
}

struct listener *listener_unix(qb_loop_t *loop, const char *path, mode_t mode, gid_t gid,
			       const struct conn_ops *ops, listener_accept_fn on_accept, void *data,
			       struct dr_error *err)
{
	int fd = net_listen_unix(path, SOCK_STREAM, mode, gid, err);
	struct listener *listener;

	if (fd < 0)
		return NULL;
	listener = listener_new(loop, fd, NULL, ops, on_accept, data, err);
	if (listener == NULL) {
		unlink(path);
		return NULL;
	}
	listener->path = strdup(path);
	return listener;
}

struct listener *listener_tcp(qb_loop_t *loop, const char *address, struct tls_psk *tls,
			      const struct conn_ops *ops, listener_accept_fn on_accept, void *data,
			      struct dr_error *err)
{
	struct net_addr addr;
	int fd;

	if (tls == NULL) {
		dr_error_set(err, DR_EBUG, "%s: a TCP listener needs a key", address);
		return NULL;
	}
	if (net_parse(address, &addr, err) != 0)
		return NULL;
	fd = net_listen_tcp(&addr, err);
	return fd < 0 ? NULL : listener_new(loop, fd, tls, ops, on_accept, data, err);
}

int listener_fd(const struct listener *listener)
{
	return listener->fd;
}

void listener_free(struct listener *listener)
{
	if (listener == NULL)
		return;
	if (listener->paused)
		qb_loop_timer_del(listener->loop, listener->pause);
	else
		qb_loop_poll_del(listener->loop, listener->fd);
	while (listener->n_unauthed > 0)
		conn_drop(listener->unauthed[--listener->n_unauthed]);
	close(listener->fd);
	if (listener->path != NULL)
		unlink(listener->path);
	free(listener->path);
	free(listener);
}
