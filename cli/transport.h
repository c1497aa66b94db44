/*
 * How the command reaches a coordinator, and what time it is. transport_conn.c is the real one (proto/conn on
 * a libqb loop); tests bring their own.
 */
#ifndef DROVER_CLI_TRANSPORT_H
#define DROVER_CLI_TRANSPORT_H

#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "proto/drover.pb-c.h"

struct transport;

struct transport_ops {
	/*
	 * Connects to "unix:PATH" or "HOST:PORT" and exchanges Hello and Welcome. -DR_ENODAEMON: nobody
	 * there; -DR_EAUTH: key or permission refused. deadline_ms is on now_ms' clock.
	 */
	int (*open)(struct transport *t, const char *address, uint64_t deadline_ms, struct dr_error *err);
	/*
	 * Sends the request and waits for the response with its id (*response is malloc'ed by protobuf).
	 * -DR_ECLOSED: the connection ended, the request may have arrived; -DR_ETIMEOUT.
	 */
	int (*exchange)(struct transport *t, const Drover__Request *request, uint64_t deadline_ms,
			Drover__Response **response, struct dr_error *err);
	void (*close)(struct transport *t);
	uint64_t (*now_ms)(struct transport *t); /* monotonic */
	uint64_t (*utc_us)(struct transport *t); /* shown to people */
	void (*pause_ms)(struct transport *t, uint64_t ms);
	void (*random)(struct transport *t, void *buf, size_t len);
};

struct transport {
	const struct transport_ops *ops;
};

struct cli;
/* The real transport; cli is borrowed (it names the key file when a TCP address is used). NULL without
 * memory. */
struct transport *transport_conn_new(const struct cli *cli);
void transport_conn_free(struct transport *t);

#endif
