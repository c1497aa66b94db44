/* The QMP client: lines from any bytes in any pieces, and a monitor that misbehaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/qmp.h"
#include "common/env_real.h"

/* ------------------------------------------------ lines */

static char lines_seen[4096];

static int on_line(const char *line, size_t len, void *data)
{
	(void)data;
	assert_int_equal(strlen(line), len);
	strcat(lines_seen, line);
	strcat(lines_seen, "|");
	return 0;
}

static void test_lines(void **state)
{
	static const char text[] = "{\"a\":1}\r\n\n\r\n{\"b\":2}\nrest";

	(void)state;
	for (size_t piece = 1; piece <= sizeof(text); piece++) {
		struct qmp_lines l = {0};

		lines_seen[0] = '\0';
		for (size_t i = 0; i < sizeof(text) - 1; i += piece) {
			size_t n = sizeof(text) - 1 - i < piece ? sizeof(text) - 1 - i : piece;

			assert_int_equal(qmp_lines_push(&l, text + i, n, on_line, NULL), 0);
		}
		assert_string_equal(lines_seen, "{\"a\":1}|{\"b\":2}|");
		assert_int_equal(l.len, 4);
		qmp_lines_fini(&l);
	}
}

static void test_line_limit(void **state)
{
	struct qmp_lines l = {0};
	char *big = malloc(QMP_LINE_MAX);

	(void)state;
	memset(big, 'x', QMP_LINE_MAX);
	assert_int_equal(qmp_lines_push(&l, big, QMP_LINE_MAX, on_line, NULL), 0);
	assert_int_equal(qmp_lines_push(&l, "y", 1, on_line, NULL), -DR_EPROTO);
	qmp_lines_fini(&l);
	free(big);
}

static void test_depth(void **state)
{
	char deep[QMP_JSON_DEPTH_MAX + 1];

	(void)state;
	memset(deep, '[', sizeof(deep));
	assert_false(qmp_depth_ok(deep, sizeof(deep)));
	assert_true(qmp_depth_ok(deep, QMP_JSON_DEPTH_MAX));
	assert_true(qmp_depth_ok("{\"a\":\"[[[[[\\\"[[\"}", 18));
}

/* ------------------------------------------------ a monitor played by the test */

struct fixture {
	qb_loop_t *loop;
	struct env *env;
	char path[64];
	int listener;
	int conn;
	struct qmp *q;
	bool ready;
	bool closed;
	char why[DR_ERROR_TEXT];
	char log[1024];
	int fd_got;
};

static struct fixture fx;

static void on_ready(struct qmp *q, void *data)
{
	(void)q;
	(void)data;
	fx.ready = true;
	qb_loop_stop(fx.loop);
}

static void on_event(struct qmp *q, const char *event, const json_t *event_data, uint64_t at_us, void *data)
{
	(void)q;
	(void)data;
	(void)event_data;
	snprintf(fx.log + strlen(fx.log), sizeof(fx.log) - strlen(fx.log), "event %s %llu;", event,
		 (unsigned long long)at_us);
	qb_loop_stop(fx.loop);
}

static void on_close(struct qmp *q, const struct dr_error *why, void *data)
{
	(void)q;
	(void)data;
	fx.closed = true;
	snprintf(fx.why, sizeof(fx.why), "%s", why->text);
	qb_loop_stop(fx.loop);
}

static const struct qmp_ops ops = {.on_ready = on_ready, .on_event = on_event, .on_close = on_close};

static void on_reply(const struct qmp_reply *r, void *data)
{
	snprintf(fx.log + strlen(fx.log), sizeof(fx.log) - strlen(fx.log), "%s %d %s;", (const char *)data,
		 r->code, r->code != 0 ? r->text : "ok");
	qb_loop_stop(fx.loop);
}

static void on_guard(void *data)
{
	(void)data;
	qb_loop_stop(fx.loop);
}

/* Runs the loop until a callback stops it, at most ms. */
static void turn(unsigned int ms)
{
	qb_loop_timer_handle h;

	qb_loop_timer_add(fx.loop, QB_LOOP_LOW, (uint64_t)ms * 1000000, NULL, on_guard, &h);
	qb_loop_run(fx.loop);
	qb_loop_timer_del(fx.loop, h);
}

static void say(const char *text)
{
	assert_int_equal(send(fx.conn, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Reads what the client sent (and a descriptor, if one came). */
static void hear(char *buf, size_t size)
{
	struct iovec iov = {.iov_base = buf, .iov_len = size - 1};
	union {
		char bytes[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.bytes,
			     .msg_controllen = sizeof(control.bytes)};
	ssize_t n = recvmsg(fx.conn, &msg, 0);
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	assert_true(n > 0);
	buf[n] = '\0';
	if (c != NULL && c->cmsg_type == SCM_RIGHTS)
		memcpy(&fx.fd_got, CMSG_DATA(c), sizeof(int));
}

static int setup(void **state)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct dr_error err = DR_ERROR_INIT;

	(void)state;
	memset(&fx, 0, sizeof(fx));
	fx.fd_got = -1;
	fx.loop = qb_loop_create();
	fx.env = env_real_new(fx.loop);
	snprintf(fx.path, sizeof(fx.path), "/tmp/drover-test-qmp.%d", getpid());
	unlink(fx.path);
	memcpy(addr.sun_path, fx.path, strlen(fx.path) + 1);
	fx.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(fx.listener, (struct sockaddr *)&addr, sizeof(addr)) != 0 || listen(fx.listener, 1) != 0)
		return -1;
	fx.q = qmp_connect(fx.loop, fx.env, fx.path, &ops, NULL, &err);
	fx.conn = accept(fx.listener, NULL, NULL);
	return fx.q != NULL && fx.conn >= 0 ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	qmp_free(fx.q);
	close(fx.conn);
	close(fx.listener);
	unlink(fx.path);
	env_real_free(fx.env);
	qb_loop_destroy(fx.loop);
	return 0;
}

static void greet(void)
{
	char buf[512];

	say("{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n");
	turn(100);
	hear(buf, sizeof(buf));
	assert_non_null(strstr(buf, "qmp_capabilities"));
	assert_non_null(strstr(buf, "\"enable\":[\"oob\"]"));
	say("{\"return\": {}, \"id\": 1}\r\n");
	turn(1000);
	assert_true(fx.ready);
}

static void test_commands(void **state)
{
	char buf[512];

	(void)state;
	assert_int_equal(qmp_exec(fx.q, "early", NULL, 1000000, on_reply, NULL), -DR_ECLOSED);
	greet();
	assert_int_equal(qmp_exec(fx.q, "one", NULL, 1000000, on_reply, (void *)(uintptr_t) "one"), 0);
	hear(buf, sizeof(buf));
	assert_int_equal(qmp_exec_oob(fx.q, "two", json_pack("{s:i}", "x", 1), 1000000, on_reply,
				      (void *)(uintptr_t) "two"),
			 0);
	hear(buf, sizeof(buf));
	assert_non_null(strstr(buf, "\"exec-oob\":\"two\""));
	assert_non_null(strstr(buf, "\"arguments\":{\"x\":1}"));
	/* Answers in the other order, with an event in between. */
	say("{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}, \"id\": 3}\r\n");
	turn(1000);
	say("{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 2, \"microseconds\": 3}}\r\n");
	turn(1000);
	say("{\"return\": {}, \"id\": 2}\r\n");
	turn(1000);
	assert_string_equal(fx.log, "two -1 two: no;event STOP 2000003;one 0 ok;");
}

static void test_deadline(void **state)
{
	(void)state;
	greet();
	qmp_exec(fx.q, "slow", NULL, 20000, on_reply, (void *)(uintptr_t) "slow");
	turn(1000);
	assert_non_null(strstr(fx.log, "slow -5 QEMU did not answer slow in time;"));
	/* The late answer is nobody's. */
	say("{\"return\": {}, \"id\": 2}\r\n{\"event\": \"X\"}\r\n");
	turn(1000);
	assert_non_null(strstr(fx.log, "event X 0;"));
	assert_false(fx.closed);
}

static void test_getfd(void **state)
{
	char buf[512];
	int p[2];

	(void)state;
	greet();
	assert_int_equal(pipe(p), 0);
	assert_int_equal(qmp_getfd(fx.q, "mig", p[1], on_reply, (void *)(uintptr_t) "getfd"), 0);
	hear(buf, sizeof(buf));
	assert_non_null(strstr(buf, "\"fdname\":\"mig\""));
	assert_true(fx.fd_got >= 0);
	assert_int_equal(write(fx.fd_got, "x", 1), 1);
	assert_int_equal(read(p[0], buf, 1), 1);
	close(fx.fd_got);
	close(p[0]);
	close(p[1]);
}

static void ends_with(const char *bytes, const char *why)
{
	greet();
	qmp_exec(fx.q, "waiting", NULL, 5000000, on_reply, (void *)(uintptr_t) "waiting");
	if (bytes != NULL)
		say(bytes);
	else
		shutdown(fx.conn, SHUT_RDWR);
	for (int i = 0; i < 5 && !fx.closed; i++)
		turn(200);
	assert_true(fx.closed);
	assert_non_null(strstr(fx.why, why));
	assert_non_null(strstr(fx.log, "waiting -24 "));
	assert_int_equal(qmp_exec(fx.q, "after", NULL, 1000000, on_reply, NULL), -DR_ECLOSED);
}

static void test_garbage(void **state)
{
	(void)state;
	ends_with("}{ not json\r\n", "no JSON object");
}

static void test_array(void **state)
{
	(void)state;
	ends_with("[1,2]\r\n", "no JSON object");
}

static void test_eof(void **state)
{
	(void)state;
	ends_with(NULL, "closed its monitor");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_line_limit),
		cmocka_unit_test(test_depth),
		cmocka_unit_test_setup_teardown(test_commands, setup, teardown),
		cmocka_unit_test_setup_teardown(test_deadline, setup, teardown),
		cmocka_unit_test_setup_teardown(test_getfd, setup, teardown),
		cmocka_unit_test_setup_teardown(test_garbage, setup, teardown),
		cmocka_unit_test_setup_teardown(test_array, setup, teardown),
		cmocka_unit_test_setup_teardown(test_eof, setup, teardown),
	};

	return cmocka_run_group_tests_name("qmp", tests, NULL, NULL);
}
