/* What conn.c and listener.c share; nobody else includes this. */
#ifndef DROVER_PROTO_CONN_PRIVATE_H
#define DROVER_PROTO_CONN_PRIVATE_H

#include "proto/conn.h"

/*
 *   CONNECTING --socket writable--> HANDSHAKE --TLS done--> OPEN --conn_close--> FLUSHING --queue empty-->
 * LINGERING |                              |                    |                      | |
 *        +------------------------------+---- error, end, deadline: on_close once --+-- error, end, deadline
 * -+--> freed
 *
 * unix connections begin in OPEN. LINGERING: our half is shut down, what still comes is thrown away, so that
 * the kernel does not reset the connection before the peer has read our last frames.
 */
enum conn_state { CONN_CONNECTING, CONN_HANDSHAKE, CONN_OPEN, CONN_FLUSHING, CONN_LINGERING, CONN_DEAD };

/*
 * Takes an accepted socket (closed on failure). TLS follows when tls is given; the listener is told by
 * listener_settled when the connection is open or has failed before that.
 */
struct conn *conn_accepted(qb_loop_t *loop, int take_fd, struct tls_psk *tls, struct listener *listener,
			   const struct conn_ops *ops, struct dr_error *err);

/* The end of the handshake: why is NULL when it succeeded. Gives the data of the connection in *data. */
void listener_settled(struct listener *listener, struct conn *conn, const struct dr_error *why, void **data);

/* Ends a connection at once; neither listener nor callbacks hear of it. */
void conn_drop(struct conn *conn);

#endif
