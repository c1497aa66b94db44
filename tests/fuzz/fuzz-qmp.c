/*
 * What a QEMU may say on its monitor: a guest that broke out of it may say anything. The first byte: how many
 * bytes arrive at a time. The real client runs over a socket; the loop is ours, so that nothing waits.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/qmp.h"
#include "tests/fuzz/fuzz.h"

static char path[64];
static int listener = -1;
static qb_loop_poll_dispatch_fn on_io;
static void *on_io_data;
static unsigned answered, asked;
static bool closed;

/* Instead of libqb's. */
int32_t qb_loop_poll_add(qb_loop_t *loop, enum qb_loop_priority p, int32_t fd, int32_t events, void *data,
			 qb_loop_poll_dispatch_fn fn)
{
	(void)loop;
	(void)p;
	(void)fd;
	(void)events;
	on_io = fn;
	on_io_data = data;
	return 0;
}

int32_t qb_loop_poll_mod(qb_loop_t *loop, enum qb_loop_priority p, int32_t fd, int32_t events, void *data,
			 qb_loop_poll_dispatch_fn fn)
{
	return qb_loop_poll_add(loop, p, fd, events, data, fn);
}

int32_t qb_loop_poll_del(qb_loop_t *loop, int32_t fd)
{
	(void)loop;
	(void)fd;
	on_io = NULL;
	return 0;
}

static env_timer_fn due;
static void *due_data;
static uint64_t due_id;

static uint64_t now_us(struct env *env)
{
	(void)env;
	return 1000000;
}

/* Only what is to happen at once happens. */
static uint64_t timer_start(struct env *env, uint64_t delay_us, env_timer_fn fn, void *data)
{
	static uint64_t id;

	(void)env;
	id++;
	if (delay_us == 0) {
		due = fn;
		due_data = data;
		due_id = id;
	}
	return id;
}

static void timer_stop(struct env *env, uint64_t id)
{
	(void)env;
	if (id == due_id)
		due = NULL;
}

static struct env env = {
	.now_us = now_us, .utc_us = now_us, .timer_start = timer_start, .timer_stop = timer_stop};

static void on_reply(const struct qmp_reply *reply, void *data)
{
	(void)data;
	FUZZ_CHECK(reply->class != NULL && reply->text != NULL);
	answered++;
}

static void on_ready(struct qmp *q, void *data)
{
	(void)data;
	for (int i = 0; i < 3; i++)
		asked += qmp_exec(q, "query-status", NULL, QMP_DEADLINE_US, on_reply, NULL) == 0 ? 1 : 0;
}

static void on_event(struct qmp *q, const char *event, const json_t *value, uint64_t at_us, void *data)
{
	(void)q;
	(void)value;
	(void)at_us;
	(void)data;
	FUZZ_CHECK(event != NULL);
}

static void on_close(struct qmp *q, const struct dr_error *why, void *data)
{
	(void)q;
	(void)data;
	FUZZ_CHECK(!closed && why->text[0] != '\0');
	closed = true;
}

static const struct qmp_ops ops = {.on_ready = on_ready, .on_event = on_event, .on_close = on_close};

static void remove_socket(void)
{
	unlink(path);
}

static void listen_once(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *dir = getenv("TMPDIR");

	if (listener >= 0)
		return;
	/* In the script's folder, which goes with it also after a crash. */
	FUZZ_CHECK(snprintf(path, sizeof(path), "%s/drover-fuzz-qmp-%d", dir != NULL ? dir : "/tmp",
			    (int)getpid()) < (int)sizeof(path));
	memcpy(address.sun_path, path, sizeof(path));
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	FUZZ_CHECK(listener >= 0);
	FUZZ_CHECK(bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0);
	FUZZ_CHECK(listen(listener, 4) == 0);
	atexit(remove_socket);
}

static void turn(void)
{
	env_timer_fn fn = due;

	if (on_io != NULL)
		on_io(0, POLLIN | POLLOUT, on_io_data);
	if (fn != NULL) {
		due = NULL;
		fn(due_data);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct dr_error err = DR_ERROR_INIT;
	size_t piece = size > 0 ? (size_t)data[0] * 16 + 1 : 1;
	struct qmp *q;
	int peer;

	listen_once();
	answered = asked = 0;
	closed = false;
	due = NULL;
	q = qmp_connect(NULL, &env, path, &ops, NULL, &err);
	FUZZ_CHECK(q != NULL);
	peer = accept(listener, NULL, NULL);
	FUZZ_CHECK(peer >= 0);
	for (size_t at = 1; at < size && !closed; at += piece) {
		size_t n = piece < size - at ? piece : size - at;

		if (send(peer, data + at, n, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			break;
		turn();
	}
	close(peer);
	for (int i = 0; i < 4; i++)
		turn();
	FUZZ_CHECK(closed && answered == asked);
	qmp_free(q);
	return 0;
}
