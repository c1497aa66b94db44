/* The real transport: proto/conn on a libqb loop that runs only while the command waits for something. */
#include "config.h"

#include "cli/transport.h"

#include <errno.h>
#include <netdb.h>
#include <qb/qbloop.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/cleanup.h"
#include "proto/conn.h"

struct transport_conn {
	struct transport base;
	const struct cli *cli; /* borrowed: knows the key file once the words are parsed */
	qb_loop_t *loop;
	struct tls_psk *tls;
	struct conn *conn;
	qb_loop_timer_handle timer;
	bool timed_out;
	bool closed; /* the connection ended by itself; why says how */
	struct dr_error why;
	Drover__Welcome *welcome;
	const Drover__Request *request; /* whose response is awaited */
	Drover__Response *response;
};

static struct transport_conn *self(struct transport *t)
{
	return (struct transport_conn *)t;
}

static uint64_t clock_ms(struct transport *t)
{
	struct timespec ts;

	(void)t;
	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static uint64_t clock_utc_us(struct transport *t)
{
	struct timespec ts;

	(void)t;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

static void clock_pause(struct transport *t, uint64_t ms)
{
	struct timespec ts = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};

	(void)t;
	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

static void random_fill(struct transport *t, void *buf, size_t len)
{
	(void)t;
	if (getrandom(buf, len, 0) != (ssize_t)len) {
		fputs("drover: the kernel gives no random bytes\n", stderr);
		abort();
	}
}

static void on_timer(void *data)
{
	struct transport_conn *c = data;

	c->timer = 0;
	c->timed_out = true;
	qb_loop_stop(c->loop);
}

/* protobuf messages are borrowed in the callback: a copy by way of bytes. */
static void *message_copy(const ProtobufCMessage *msg)
{
	size_t size = protobuf_c_message_get_packed_size(msg);
	DR_AUTO_FREE uint8_t *bytes = malloc(size > 0 ? size : 1);

	if (bytes == NULL)
		return NULL;
	protobuf_c_message_pack(msg, bytes);
	return protobuf_c_message_unpack(msg->descriptor, NULL, size, bytes);
}

static void on_message(struct conn *conn, const Drover__Msg *msg, void *data)
{
	struct transport_conn *c = data;

	(void)conn;
	if (msg->body_case == DROVER__MSG__BODY_WELCOME && c->welcome == NULL) {
		c->welcome = message_copy(&msg->welcome->base);
	} else if (msg->body_case == DROVER__MSG__BODY_RESPONSE && c->request != NULL &&
		   c->response == NULL && msg->response->id.len == c->request->id.len &&
		   memcmp(msg->response->id.data, c->request->id.data, c->request->id.len) == 0) {
		c->response = message_copy(&msg->response->base);
	} else {
		return; /* an answer to a request that was given up */
	}
	qb_loop_stop(c->loop);
}

static void on_close(struct conn *conn, const struct dr_error *why, void *data)
{
	struct transport_conn *c = data;

	(void)conn;
	c->conn = NULL;
	c->closed = true;
	c->why = *why;
	qb_loop_stop(c->loop);
}

static const struct conn_ops ops = {.on_message = on_message, .on_close = on_close};

/* Runs the loop until a callback stops it or the deadline passes. */
static void loop_run(struct transport_conn *c, uint64_t deadline_ms)
{
	uint64_t now = clock_ms(&c->base);

	c->timed_out = false;
	if (deadline_ms != UINT64_MAX) {
		uint64_t left_ms = deadline_ms > now ? deadline_ms - now : 0;

		if (left_ms > INT32_MAX)
			left_ms = INT32_MAX;
		qb_loop_timer_add(c->loop, QB_LOOP_MED, left_ms * 1000000, c, on_timer, &c->timer);
	}
	qb_loop_run(c->loop);
	if (c->timer != 0)
		qb_loop_timer_del(c->loop, c->timer);
	c->timer = 0;
}

static void drop(struct transport *t)
{
	struct transport_conn *c = self(t);

	if (c->conn != NULL)
		conn_abort(c->conn); /* the loop does not run any more: nothing would be flushed */
	c->conn = NULL;
	c->closed = false;
	dr_error_clear(&c->why);
	if (c->welcome != NULL)
		drover__welcome__free_unpacked(c->welcome, NULL);
	c->welcome = NULL;
}

static int key_load(struct transport_conn *c, struct dr_error *err)
{
	const char *path = c->cli->key_file != NULL ? c->cli->key_file : c->cli->conf.key_file;
	uint8_t key[TLS_KEY_SIZE];
	struct dr_error why = DR_ERROR_INIT;

	if (c->tls != NULL)
		return 0;
	if (tls_key_read(path, key, &why) < 0)
		return dr_error_set(err, DR_EAUTH, "%s: give the cluster key with --key-file", why.text);
	c->tls = tls_psk_new(key, CONF_TLS_IDENTITY, err);
	explicit_bzero(key, sizeof(key));
	return c->tls != NULL ? 0 : -(int)err->code;
}

/* "HOST:PORT" with HOST a name to the numeric form that conn_connect takes. */
static int resolve(const char *address, char out[NAMES_ADDRESS], struct dr_error *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	struct addrinfo *found = NULL;
	const char *colon = strrchr(address, ':');
	char host[NAMES_HOST + 1], number[NAMES_HOST];
	size_t len = (size_t)(colon - address);
	int rc;

	if (address[0] == '[') {
		address++;
		len -= 2;
	}
	if (len >= sizeof(host))
		return dr_error_set(err, DR_EUSAGE, "%s: the host name is too long", address);
	memcpy(host, address, len);
	host[len] = '\0';
	rc = getaddrinfo(host, colon + 1, &hints, &found);
	if (rc != 0)
		return dr_error_set(err, DR_ENODAEMON, "%s: no address is known for this host: %s", host,
				    gai_strerror(rc));
	rc = getnameinfo(found->ai_addr, found->ai_addrlen, number, sizeof(number), NULL, 0, NI_NUMERICHOST);
	freeaddrinfo(found);
	if (rc != 0)
		return dr_error_set(err, DR_ENODAEMON, "%s: %s", host, gai_strerror(rc));
	snprintf(out, NAMES_ADDRESS, strchr(number, ':') != NULL ? "[%s]%s" : "%s%s", number, colon);
	return 0;
}

static int unreachable(const char *address, const struct dr_error *why, struct dr_error *err)
{
	bool is_unix = strncmp(address, "unix:", 5) == 0;

	if (is_unix && access(address + 5, F_OK) == 0 && access(address + 5, R_OK | W_OK) < 0 &&
	    errno == EACCES)
		return dr_error_set(err, DR_EAUTH,
				    "%s: you may not use it: be root or a member of group drover",
				    address + 5);
	if (why->code == DR_EAUTH)
		return dr_error_set(err, DR_EAUTH,
				    "%s: %s: every node and command needs the same cluster key", address,
				    why->text);
	return dr_error_set(err, DR_ENODAEMON, "no coordinator answers at %s (%s): %s", address, why->text,
			    is_unix ? "start drover-coordinator here, or name another with --connect"
				    : "see that it runs and listens, or name another with --connect");
}

static int greet(struct transport_conn *c, const char *address, uint64_t deadline_ms, struct dr_error *err)
{
	Drover__Msg msg = DROVER__MSG__INIT;
	Drover__Hello hello = DROVER__HELLO__INIT;
	static char program[] = "drover " PACKAGE_VERSION;
	uint64_t own_ms = clock_ms(&c->base) + CONN_HANDSHAKE_MS;

	hello.protocol = 1;
	hello.role = DROVER__HELLO__ROLE__CLIENT;
	hello.program = program;
	msg.body_case = DROVER__MSG__BODY_HELLO;
	msg.hello = &hello;
	if (conn_send(c->conn, &msg) == 0 && !c->closed)
		loop_run(c, own_ms < deadline_ms ? own_ms : deadline_ms);
	if (c->welcome == NULL) {
		if (!c->closed)
			dr_error_set(&c->why, DR_ETIMEOUT, "it does not greet");
		return unreachable(address, &c->why, err);
	}
	if (c->welcome->exit != 0)
		return dr_error_set(err,
				    c->welcome->exit <= DR_EAUTH ? (enum dr_err)c->welcome->exit : DR_EFAILED,
				    "%s: %s", address, c->welcome->message);
	return 0;
}

static int open_address(struct transport *t, const char *address, uint64_t deadline_ms, struct dr_error *err)
{
	struct transport_conn *c = self(t);
	struct dr_error why = DR_ERROR_INIT;
	char numeric[NAMES_ADDRESS];
	const char *to = address;
	int rc = 0;

	drop(t);
	if (strncmp(address, "unix:", 5) != 0) {
		rc = key_load(c, err);
		if (rc == 0)
			rc = resolve(address, numeric, err);
		to = numeric;
	}
	if (rc < 0)
		return rc;
	c->conn = conn_connect(c->loop, to, c->tls, &ops, c, &why);
	if (c->conn == NULL)
		return unreachable(address, &why, err);
	rc = greet(c, address, deadline_ms, err);
	if (rc < 0)
		drop(t);
	return rc;
}

static int exchange(struct transport *t, const Drover__Request *request, uint64_t deadline_ms,
		    Drover__Response **response, struct dr_error *err)
{
	struct transport_conn *c = self(t);
	Drover__Msg msg = DROVER__MSG__INIT;
	int rc;

	if (c->conn == NULL)
		return dr_error_set(err, DR_ECLOSED, "the connection is closed");
	msg.body_case = DROVER__MSG__BODY_REQUEST;
	msg.request = (Drover__Request *)(uintptr_t)request;
	c->request = request;
	c->response = NULL;
	rc = conn_send(c->conn, &msg);
	if (rc == -DR_EPROTO || rc == -DR_ENOMEM)
		return dr_error_set(err, DR_EFAILED, "the request is too large to be sent");
	while (rc == 0 && c->response == NULL && !c->closed) {
		loop_run(c, deadline_ms);
		if (c->timed_out)
			break;
	}
	c->request = NULL;
	*response = c->response;
	c->response = NULL;
	if (*response != NULL)
		return 0;
	if (rc < 0 || c->closed)
		return dr_error_set(err, DR_ECLOSED, "the coordinator ended the connection");
	return dr_error_set(err, DR_ETIMEOUT, "the coordinator does not answer");
}

static const struct transport_ops transport_conn_ops = {
	.open = open_address,
	.exchange = exchange,
	.close = drop,
	.now_ms = clock_ms,
	.utc_us = clock_utc_us,
	.pause_ms = clock_pause,
	.random = random_fill,
};

struct transport *transport_conn_new(const struct cli *cli)
{
	struct transport_conn *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	c->base.ops = &transport_conn_ops;
	c->cli = cli;
	c->loop = qb_loop_create();
	if (c->loop == NULL) {
		free(c);
		return NULL;
	}
	return &c->base;
}

void transport_conn_free(struct transport *t)
{
	struct transport_conn *c = self(t);

	drop(t);
	tls_psk_free(c->tls);
	qb_loop_destroy(c->loop);
	free(c);
}
