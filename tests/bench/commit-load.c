/*
 * What tests/bench/commit measures with: clients that keep asking over their own connections, and the two
 * things that a commit is made of, a durable SQLite transaction and a message over CPG. Runs inside a node of
 * the lab. Prints one JSON object.
 *
 *   commit-load load ADDRESS CLIENTS SECONDS [COUNT]  commands, until the time or the count is reached
 *   commit-load sqlite DIR BYTES SECONDS              transactions of that size, three writers at once
 *   commit-load cpg BYTES SECONDS                     own message until it is delivered
 *   commit-load copy BYTES                            that much, in messages as the coordinators send them
 */
#include <corosync/cpg.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/env_real.h"
#include "proto/conn.h"

#define SAMPLES_MAX  (4u << 20)
#define FRAGMENT     (128u * 1024)
#define WRITERS	     3
#define WINDOW	     64 /* fragments under way */
#define REQUEST_MS   60000
#define CLIENTS_MAX  1024
#define RECONNECT_US 100000
#define DELIVER_MS   60000
#define USEC	     1000000ull

static void fail(const char *what, const char *why)
{
	fprintf(stderr, "commit-load: %s: %s\n", what, why);
	exit(1);
}

static uint64_t now_us(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (uint64_t)ts.tv_sec * USEC + (uint64_t)ts.tv_nsec / 1000;
}

struct samples {
	uint32_t *us;
	size_t n;
};

static void sample(struct samples *s, uint64_t us)
{
	if (s->us == NULL && (s->us = malloc(SAMPLES_MAX * sizeof(*s->us))) == NULL)
		fail("samples", "out of memory");
	if (s->n < SAMPLES_MAX)
		s->us[s->n++] = (uint32_t)us;
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a;
	uint32_t y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void print_samples(struct samples *s, const char *more)
{
	qsort(s->us, s->n, sizeof(*s->us), by_value);
	printf("{\"n\": %zu, \"p50_us\": %u, \"p99_us\": %u%s}\n", s->n, s->n > 0 ? s->us[s->n / 2] : 0,
	       s->n > 0 ? s->us[s->n * 99 / 100] : 0, more);
	free(s->us);
}

/* --- commands ---------------------------------------------------------------------- */

struct load {
	qb_loop_t *loop;
	struct env *env;
	const char *address;
	struct samples samples;
	uint64_t count; /* wanted; 0: no limit */
	uint64_t failed;
	uint64_t last_ack_us; /* UTC */
	uint64_t gap_us, gap_from_us;
};

struct asker {
	struct load *load;
	struct conn *conn;
	uint64_t sent_us;
	uint32_t value;
};

static void ask(struct asker *a)
{
	Drover__Msg msg = DROVER__MSG__INIT;
	Drover__Request request = DROVER__REQUEST__INIT;
	Drover__LimitSet set = DROVER__LIMIT_SET__INIT;
	char *mask[1] = {(char *)(uintptr_t) "max_moves"};
	uint8_t id[16];

	env_random(a->load->env, id, sizeof(id));
	a->value = a->value % 50 + 1;
	set.max_moves = a->value;
	set.mask = mask;
	set.n_mask = 1;
	request.id.data = id;
	request.id.len = sizeof(id);
	request.timeout_ms = REQUEST_MS;
	request.verb_case = DROVER__REQUEST__VERB_LIMIT_SET;
	request.limit_set = &set;
	msg.body_case = DROVER__MSG__BODY_REQUEST;
	msg.request = &request;
	a->sent_us = now_us(CLOCK_MONOTONIC);
	conn_send(a->conn, &msg);
}

static void answered(struct asker *a, const Drover__Response *r)
{
	struct load *l = a->load;
	uint64_t utc_us = now_us(CLOCK_REALTIME);

	if (r->exit != 0) {
		l->failed++;
		return;
	}
	sample(&l->samples, now_us(CLOCK_MONOTONIC) - a->sent_us);
	if (l->last_ack_us != 0 && utc_us - l->last_ack_us > l->gap_us) {
		l->gap_us = utc_us - l->last_ack_us;
		l->gap_from_us = l->last_ack_us;
	}
	l->last_ack_us = utc_us;
	if (l->count != 0 && l->samples.n >= l->count)
		qb_loop_stop(l->loop);
}

static void on_message(struct conn *conn, const Drover__Msg *msg, void *data)
{
	struct asker *a = data;

	(void)conn;
	if (msg->body_case == DROVER__MSG__BODY_RESPONSE)
		answered(a, msg->response);
	if (msg->body_case == DROVER__MSG__BODY_RESPONSE || msg->body_case == DROVER__MSG__BODY_WELCOME)
		ask(a);
}

static void on_close(struct conn *conn, const struct dr_error *why, void *data)
{
	(void)conn;
	(void)data;
	fail("connection", why->text);
}

static void on_open(struct conn *conn, void *data)
{
	Drover__Msg msg = DROVER__MSG__INIT;
	Drover__Hello hello = DROVER__HELLO__INIT;

	(void)data;
	hello.protocol = 1;
	hello.role = DROVER__HELLO__ROLE__CLIENT;
	msg.body_case = DROVER__MSG__BODY_HELLO;
	msg.hello = &hello;
	conn_send(conn, &msg);
}

static const struct conn_ops ops = {.on_open = on_open, .on_message = on_message, .on_close = on_close};

static void time_over(void *data)
{
	struct load *l = data;

	qb_loop_stop(l->loop);
}

static void run_load(const char *address, unsigned clients, double seconds, uint64_t count)
{
	struct load l = {.loop = qb_loop_create(), .address = address, .count = count};
	struct asker *askers = calloc(clients, sizeof(*askers));
	struct dr_error err = DR_ERROR_INIT;
	uint64_t began;
	char more[256];

	l.env = env_real_new(l.loop);
	if (askers == NULL || l.env == NULL)
		fail("load", "out of memory");
	for (unsigned i = 0; i < clients; i++) {
		askers[i].load = &l;
		askers[i].conn = conn_connect(l.loop, address, NULL, &ops, &askers[i], &err);
		if (askers[i].conn == NULL)
			fail(address, err.text);
	}
	began = now_us(CLOCK_MONOTONIC);
	env_timer_start(l.env, (uint64_t)(seconds * USEC), time_over, &l);
	qb_loop_run(l.loop);
	snprintf(more, sizeof(more),
		 ", \"failed\": %" PRIu64 ", \"seconds\": %.3f, \"gap_ms\": %.1f, \"gap_from\": %.6f",
		 l.failed, (double)(now_us(CLOCK_MONOTONIC) - began) / USEC, (double)l.gap_us / 1000,
		 (double)l.gap_from_us / USEC);
	print_samples(&l.samples, more);
	fflush(stdout);
	_exit(0); /* the connections have requests under way */
}

/* --- a durable transaction --------------------------------------------------------- */

struct writer {
	char path[512];
	size_t bytes;
	uint64_t until_us;
	struct samples samples;
};

static void sql(sqlite3 *db, const char *text)
{
	if (sqlite3_exec(db, text, NULL, NULL, NULL) != SQLITE_OK)
		fail(text, sqlite3_errmsg(db));
}

static void *write_log(void *data)
{
	struct writer *w = data;
	DR_AUTO_FREE char *blob = calloc(1, w->bytes);
	sqlite3_stmt *st;
	sqlite3 *db;

	if (sqlite3_open(w->path, &db) != SQLITE_OK)
		fail(w->path, "can't be opened");
	sql(db, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
		"CREATE TABLE log (idx INTEGER PRIMARY KEY, data BLOB)");
	if (sqlite3_prepare_v2(db, "INSERT INTO log (data) VALUES (?)", -1, &st, NULL) != SQLITE_OK)
		fail("prepare", sqlite3_errmsg(db));
	while (now_us(CLOCK_MONOTONIC) < w->until_us) {
		uint64_t from = now_us(CLOCK_MONOTONIC);

		sql(db, "BEGIN IMMEDIATE");
		sqlite3_bind_blob64(st, 1, blob, w->bytes, SQLITE_STATIC);
		if (sqlite3_step(st) != SQLITE_DONE)
			fail("insert", sqlite3_errmsg(db));
		sqlite3_reset(st);
		sql(db, "COMMIT");
		sample(&w->samples, now_us(CLOCK_MONOTONIC) - from);
	}
	sqlite3_finalize(st);
	sqlite3_close(db);
	unlink(w->path);
	return NULL;
}

static void run_sqlite(const char *dir, size_t bytes, double seconds)
{
	struct writer writers[WRITERS] = {0};
	pthread_t threads[WRITERS];
	struct samples all = {0};

	for (int i = 0; i < WRITERS; i++) {
		writers[i].bytes = bytes;
		writers[i].until_us = now_us(CLOCK_MONOTONIC) + (uint64_t)(seconds * USEC);
		snprintf(writers[i].path, sizeof(writers[i].path), "%s/commit-load-%d-%d.db", dir,
			 (int)getpid(), i);
		if (pthread_create(&threads[i], NULL, write_log, &writers[i]) != 0)
			fail("thread", "can't be started");
	}
	for (int i = 0; i < WRITERS; i++) {
		pthread_join(threads[i], NULL);
		for (size_t k = 0; k < writers[i].samples.n; k++)
			sample(&all, writers[i].samples.us[k]);
		free(writers[i].samples.us);
	}
	print_samples(&all, "");
}

/* --- a message over CPG ------------------------------------------------------------ */

static uint64_t delivered;

static void deliver(cpg_handle_t handle, const struct cpg_name *group, uint32_t nodeid, uint32_t pid,
		    void *msg, size_t size)
{
	(void)handle;
	(void)group;
	(void)nodeid;
	(void)pid;
	(void)msg;
	delivered += size;
}

static void confchg(cpg_handle_t handle, const struct cpg_name *group, const struct cpg_address *members,
		    size_t n_members, const struct cpg_address *left, size_t n_left,
		    const struct cpg_address *joined, size_t n_joined)
{
	(void)handle;
	(void)group;
	(void)members;
	(void)n_members;
	(void)left;
	(void)n_left;
	(void)joined;
	(void)n_joined;
}

static cpg_handle_t cpg_begin(int *fd)
{
	cpg_callbacks_t callbacks = {.cpg_deliver_fn = deliver, .cpg_confchg_fn = confchg};
	struct cpg_name group;
	cpg_handle_t cpg;

	group.length = (uint32_t)snprintf(group.value, sizeof(group.value), "drover.bench.%d", (int)getpid());
	if (cpg_initialize(&cpg, &callbacks) != CS_OK || cpg_join(cpg, &group) != CS_OK ||
	    cpg_fd_get(cpg, fd) != CS_OK)
		fail("corosync", "does not answer");
	return cpg;
}

/* Whether it was taken. */
static bool cpg_send(cpg_handle_t cpg, void *bytes, size_t size)
{
	struct iovec iov = {.iov_base = bytes, .iov_len = size};
	cs_error_t rc = cpg_mcast_joined(cpg, CPG_TYPE_AGREED, &iov, 1);

	if (rc != CS_OK && rc != CS_ERR_TRY_AGAIN)
		fail("cpg", cs_strerror(rc));
	return rc == CS_OK;
}

static void cpg_wait(cpg_handle_t cpg, int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (poll(&p, 1, ms) > 0 && cpg_dispatch(cpg, CS_DISPATCH_ALL) != CS_OK)
		fail("cpg", "dispatch");
}

static void run_cpg(size_t bytes, double seconds)
{
	uint64_t until = now_us(CLOCK_MONOTONIC) + (uint64_t)(seconds * USEC);
	DR_AUTO_FREE void *text = calloc(1, bytes);
	struct samples s = {0};
	int fd;
	cpg_handle_t cpg = cpg_begin(&fd);

	while (now_us(CLOCK_MONOTONIC) < until) {
		uint64_t from = now_us(CLOCK_MONOTONIC);

		delivered = 0;
		while (!cpg_send(cpg, text, bytes))
			cpg_wait(cpg, fd, 1);
		while (delivered < bytes)
			cpg_wait(cpg, fd, DELIVER_MS);
		sample(&s, now_us(CLOCK_MONOTONIC) - from);
	}
	cpg_finalize(cpg);
	print_samples(&s, "");
}

static void run_copy(uint64_t bytes)
{
	DR_AUTO_FREE void *text = calloc(1, FRAGMENT);
	uint64_t from, sent = 0;
	int fd;
	cpg_handle_t cpg = cpg_begin(&fd);

	from = now_us(CLOCK_MONOTONIC);
	while (delivered < bytes) {
		size_t size = bytes - sent < FRAGMENT ? (size_t)(bytes - sent) : FRAGMENT;
		bool more = size > 0 && sent - delivered < (uint64_t)WINDOW * FRAGMENT;

		if (more && cpg_send(cpg, text, size))
			sent += size;
		else
			cpg_wait(cpg, fd, more ? 1 : DELIVER_MS);
	}
	cpg_finalize(cpg);
	printf("{\"bytes\": %" PRIu64 ", \"seconds\": %.6f}\n", bytes,
	       (double)(now_us(CLOCK_MONOTONIC) - from) / USEC);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	signal(SIGPIPE, SIG_IGN);
	if (strcmp(what, "load") == 0 && argc >= 5)
		run_load(argv[2], (unsigned)strtoul(argv[3], NULL, 10) % (CLIENTS_MAX + 1),
			 strtod(argv[4], NULL), argc > 5 ? strtoull(argv[5], NULL, 10) : 0);
	else if (strcmp(what, "sqlite") == 0 && argc == 5)
		run_sqlite(argv[2], strtoul(argv[3], NULL, 10), strtod(argv[4], NULL));
	else if (strcmp(what, "cpg") == 0 && argc == 4)
		run_cpg(strtoul(argv[2], NULL, 10), strtod(argv[3], NULL));
	else if (strcmp(what, "copy") == 0 && argc == 3)
		run_copy(strtoull(argv[2], NULL, 10));
	else
		fail("usage",
		     "load ADDRESS CLIENTS SECONDS [COUNT] | sqlite DIR BYTES SECONDS | cpg BYTES SECONDS | "
		     "copy BYTES");
	return 0;
}
