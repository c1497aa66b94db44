/*
 * A connection that carries frames: a unix socket, or TCP with TLS-PSK, on the
 * libqb loop. Nothing blocks; what cannot be sent at once is queued up to a limit.
 * Used by coordinator, agent (as client) and drover (the command).
 */
#ifndef DROVER_PROTO_CONN_H
#define DROVER_PROTO_CONN_H

#include <qb/qbloop.h>
#include <stdbool.h>
#include <sys/types.h>

#include "common/error.h"
#include "common/tls.h"
#include "proto/drover.pb-c.h"

#define CONN_QUEUE_MAX	      (64u << 20) /* bytes waiting to be sent; above it the connection ends */
#define CONN_HANDSHAKE_MS     5000	  /* connect + TLS; above it the connection ends */
#define LISTENER_UNAUTHED_MAX 64	  /* connections that have not finished their handshake */

struct conn;
struct listener;

struct conn_ops {
	/* conn_connect only: the handshake is done, messages will come. (conn_send before it queues.) May be
	 * NULL. */
	void (*on_open)(struct conn *conn, void *data);
	/* msg is borrowed for the call. conn_close() is allowed inside. */
	void (*on_message)(struct conn *conn, const Drover__Msg *msg, void *data);
	/*
	 * Called once, not after conn_close(), never from inside conn_connect or conn_send; the conn is freed
	 * by the caller of this callback afterwards. why->code: DR_EAUTH (keys differ), DR_ENODAEMON (nobody
	 * listens), DR_ETIMEOUT, DR_ECLOSED, DR_EPROTO or DR_EIO.
	 */
	void (*on_close)(struct conn *conn, const struct dr_error *why, void *data);
};

/*
 * Connects to "unix:PATH" or "HOST:PORT" (numeric HOST; the latter needs tls). Failures that are known at
 * once are returned as NULL and *err; later ones arrive by on_close. data is handed to every callback.
 */
struct conn *conn_connect(qb_loop_t *loop, const char *address, struct tls_psk *tls,
			  const struct conn_ops *ops, void *data, struct dr_error *err);

/* Queues a message. -DR_ECLOSED when the connection is ending, -DR_ENOMEM, -DR_EPROTO (message too large). */
int conn_send(struct conn *conn, const Drover__Msg *msg);

/* Ends the connection after what is queued went out (bounded by CONN_HANDSHAKE_MS); no callback comes any
 * more. */
void conn_close(struct conn *conn);

/* Ends the connection at once: what is queued is lost, and no callback comes any more. The loop is free of it
 * unless one of its callbacks is running. */
void conn_abort(struct conn *conn);

bool conn_is_unix(const struct conn *conn);
/* Of a unix peer (SO_PEERCRED); -1 for TCP. */
uid_t conn_peer_uid(const struct conn *conn);
gid_t conn_peer_gid(const struct conn *conn);
pid_t conn_peer_pid(const struct conn *conn);
/* "10.77.2.1:40212" or "uid 0 pid 4711"; valid as long as the conn. */
const char *conn_peer_name(const struct conn *conn);
void conn_set_data(struct conn *conn, void *data);

/*
 * The listening side. on_accept gets an open connection (handshake done) and returns the data for its
 * callbacks; it may send, and may conn_close() it. Peers that fail before that are logged and forgotten.
 */
typedef void *(*listener_accept_fn)(struct listener *listener, struct conn *conn, void *data);

/* path: an abandoned socket there is replaced, a live one is an error. mode: permissions; gid: -1 = leave. */
struct listener *listener_unix(qb_loop_t *loop, const char *path, mode_t mode, gid_t gid,
			       const struct conn_ops *ops, listener_accept_fn on_accept, void *data,
			       struct dr_error *err);
/* address: "0.0.0.0:7420". */
struct listener *listener_tcp(qb_loop_t *loop, const char *address, struct tls_psk *tls,
			      const struct conn_ops *ops, listener_accept_fn on_accept, void *data,
			      struct dr_error *err);
/* The listening socket, e.g. to learn the port of "127.0.0.1:0". */
int listener_fd(const struct listener *listener);
/* Stops listening, ends connections that are still in their handshake, and removes a unix path; accepted
 * connections stay. */
void listener_free(struct listener *listener);

#endif
