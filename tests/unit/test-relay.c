/* Two relays with this test around them, and where needed as a false peer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/net.h"
#include "relay/relay.h"
#include "tests/unit/relay-pair.h"
#include "tests/unit/valgrind.h"

/* ---- tests of two relays ---- */

static void transfer(bool encrypt)
{
	struct flow flows[2];

	rp_start_both();
	close(rp_join_relays(1, encrypt));
	rp_want_event(&src, EVENT(CHANNEL_UP), 1);
	rp_want_event(&dst, EVENT(CHANNEL_UP), 1);
	rp_flows_init(flows, 30 << 20, 10 << 20, true);
	rp_run_flows(flows, 2, UINT64_MAX);
	rp_finish();
	rp_simple(&dst, DROVER__RELAY_COMMAND__BODY_RESUMED, 0);
	rp_want_event(&src, EVENT(PEER_RESUMED), 1);
	assert_int_equal(src.guest, 30 << 20);
	assert_in_range(src.wire, 30 << 20, (30 << 20) / 100 * 104);
}

static void test_plain(void **state)
{
	(void)state;
	transfer(false);
}

static void test_tls(void **state)
{
	(void)state;
	transfer(true);
}

static void test_big_window(void **state)
{
	struct flow flow;

	(void)state;
	rp_window = TX_WINDOW;
	rp_chunk_size = CHUNK_SIZE;
	rp_start_both();
	close(rp_join_relays(1, false));
	flow = (struct flow){.from = &src, .to = &dst, .seed = 7, .total = 200 << 20};
	rp_run_flows(&flow, 1, UINT64_MAX);
	rp_finish();
}

/* The channel is reset again and again in mid-stream, with data in every buffer. */
static void cuts(bool encrypt)
{
	struct flow flows[2];
	int handle;

	rp_start_both();
	rp_flows_init(flows, 24 << 20, 6 << 20, true);
	for (uint32_t id = 1; id <= 6; id++) {
		handle = rp_join_relays(id, encrypt);
		rp_run_flows(flows, 1, (uint64_t)id * 3 << 20);
		rp_cut(handle);
		rp_want_event(&src, EVENT(NEED_CHANNEL), id);
		rp_want_event(&dst, EVENT(NEED_CHANNEL), id);
	}
	close(rp_join_relays(7, encrypt));
	rp_run_flows(flows, 2, UINT64_MAX);
	rp_finish();
	assert_int_equal(src.seen[EVENT(CHANNEL_UP)], 7);
}

static void test_cuts_plain(void **state)
{
	(void)state;
	cuts(false);
}

static void test_cuts_tls(void **state)
{
	(void)state;
	cuts(true);
}

/* A second channel while the first works takes over: the peer may have lost it without our noticing. */
static void test_replace(void **state)
{
	struct flow flows[2];

	(void)state;
	rp_start_both();
	rp_flows_init(flows, 24 << 20, 6 << 20, true);
	for (uint32_t id = 1; id <= 4; id++) {
		close(rp_join_relays(id, id % 2 != 0));
		rp_run_flows(flows, 2, (uint64_t)id << 20);
		rp_want_event(&src, EVENT(CHANNEL_UP), id);
		rp_want_event(&dst, EVENT(CHANNEL_UP), id);
	}
	rp_run_flows(flows, 2, UINT64_MAX);
	rp_finish();
}

static void wrong_key(bool encrypt)
{
	struct flow flows[2];
	int pair[2];

	rp_start(&src, DROVER__MOVE_ROLE__MOVE_SRC, rp_other_key, false);
	rp_start(&dst, DROVER__MOVE_ROLE__MOVE_DST, rp_key, false);
	close(rp_join_relays(1, encrypt));
	rp_want_event(&dst, EVENT(CHANNEL_DOWN), 1);
	rp_want_event(&src, EVENT(CHANNEL_DOWN), 1);
	assert_non_null(strstr(encrypt ? dst.text : src.text, "authentication refused"));
	assert_int_equal(dst.seen[EVENT(CHANNEL_UP)], 0);
	assert_int_equal(src.seen[EVENT(CHANNEL_UP)], 0);
	rp_stop(&src);
	/* A stranger's words end nothing but its own connection. */
	rp_tcp_pair(pair);
	assert_int_equal(write(pair[0],
			       "GET / HTTP/1.1\r\nHost: drover.example.net\r\nAccept: everything!\r\n\r\n",
			       66),
			 66);
	rp_give_channel(&dst, pair[1], 2, encrypt);
	rp_want_event(&dst, EVENT(CHANNEL_DOWN), 2);
	close(pair[0]);
	rp_start(&src, DROVER__MOVE_ROLE__MOVE_SRC, rp_key, false);
	close(rp_join_relays(3, encrypt));
	rp_flows_init(flows, 1 << 20, 1 << 20, true);
	rp_run_flows(flows, 2, UINT64_MAX);
	rp_finish();
}

static void test_wrong_key_plain(void **state)
{
	(void)state;
	wrong_key(false);
}

static void test_wrong_key_tls(void **state)
{
	(void)state;
	wrong_key(true);
}

/* ---- a false peer that knows the rp_key ---- */

static void raw_read(int fd, void *buf, size_t size)
{
	for (size_t got = 0; got < size;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		assert_int_equal(poll(&p, 1, 5000), 1);
		n = read(fd, (uint8_t *)buf + got, size - got);
		assert_true(n > 0);
		got += (size_t)n;
	}
}

/* The source's side of the authentication and the first ACK. */
static int false_source(uint32_t id)
{
	uint8_t hello[AUTH_HELLO], proof[AUTH_PROOF], header[CHUNK_HEADER];
	struct auth auth;
	int pair[2];

	rp_tcp_pair(pair);
	rp_give_channel(&dst, pair[1], id, false);
	assert_int_equal(auth_init(&auth, rp_key, false, RP_MOVE, RP_ATTEMPT), 0);
	assert_int_equal(write(pair[0], auth.mine, AUTH_HELLO), AUTH_HELLO);
	raw_read(pair[0], hello, sizeof(hello));
	raw_read(pair[0], proof, sizeof(proof));
	assert_int_equal(auth_hello(&auth, hello, NULL), 0);
	assert_int_equal(auth_check(&auth, proof, NULL), 0);
	auth_prove(&auth, proof);
	assert_int_equal(write(pair[0], proof, sizeof(proof)), AUTH_PROOF);
	chunk_encode(&(struct chunk){.type = CHUNK_ACK}, header);
	assert_int_equal(write(pair[0], header, sizeof(header)), CHUNK_HEADER);
	raw_read(pair[0], header, sizeof(header));
	return pair[0];
}

static void send_frame(int fd, const struct chunk *frame, size_t flip, const char *body)
{
	uint8_t wire[CHUNK_HEADER + 16];

	chunk_encode(frame, wire);
	if (flip < CHUNK_HEADER)
		wire[flip] ^= 0x40;
	memcpy(wire + CHUNK_HEADER, body, strlen(body));
	assert_int_equal(write(fd, wire, CHUNK_HEADER + strlen(body)), CHUNK_HEADER + strlen(body));
}

/* Every byte of the header changed in turn: the channel goes with a reason, QEMU gets nothing, the relay
 * lives. */
static void test_corrupt_header(void **state)
{
	const struct chunk good = {.type = CHUNK_DATA, .length = 5};
	char buf[16];
	int fd;

	(void)state;
	rp_start(&dst, DROVER__MOVE_ROLE__MOVE_DST, rp_key, false);
	for (uint32_t i = 0; i < CHUNK_HEADER; i++) {
		fd = false_source(i + 1);
		send_frame(fd, &good, i, "hello");
		rp_want_event(&dst, EVENT(CHANNEL_DOWN), i + 1);
		assert_true(strlen(dst.text) > 10);
		close(fd);
	}
	assert_int_equal(recv(dst.qemu, buf, sizeof(buf), 0), -1);
	fd = false_source(100);
	send_frame(fd, &good, CHUNK_HEADER, "hello");
	send_frame(fd, &(struct chunk){.type = CHUNK_EOF, .sequence = 1, .offset = 5}, CHUNK_HEADER, "");
	fcntl(dst.qemu, F_SETFL, 0);
	assert_int_equal(recv(dst.qemu, buf, sizeof(buf), 0), 5);
	assert_memory_equal(buf, "hello", 5);
	close(fd);
}

/* Well-formed frames at the wrong place. */
static void test_impossible_frames(void **state)
{
	static const struct chunk bad[] = {
		{.type = CHUNK_DATA, .length = 5, .sequence = 1, .offset = 5},
		{.type = CHUNK_DATA, .length = 5, .sequence = 0, .offset = 1},
		{.type = CHUNK_EOF, .sequence = 0, .offset = 5},
		{.type = CHUNK_ACK, .sequence = 1, .offset = 0},
		{.type = CHUNK_ACK, .sequence = 0, .offset = 9},
	};

	(void)state;
	rp_start(&dst, DROVER__MOVE_ROLE__MOVE_DST, rp_key, false);
	for (uint32_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int fd = false_source(i + 1);

		send_frame(fd, &bad[i], CHUNK_HEADER, bad[i].type == CHUNK_DATA ? "hello" : "");
		rp_want_event(&dst, EVENT(CHANNEL_DOWN), i + 1);
		close(fd);
	}
	assert_int_equal(dst.seen[EVENT(FAILED)], 0);
}

/* ---- limits, ends, faults ---- */

static void test_window(void **state)
{
	struct flow flow;
	uint64_t last = 0, until;

	(void)state;
	rp_start_both();
	close(rp_join_relays(1, false));
	flow = (struct flow){.from = &src, .to = &dst, .seed = 3, .total = 64 << 20};
	/* The reader stalls: the source's relay takes its rp_window, the sockets their buffers, then it
	 * stops.
	 */
	until = loop_now_us() + 300000;
	while (loop_now_us() < until) {
		rp_feed(&flow);
		if (flow.sent != last)
			until = loop_now_us() + 300000;
		last = flow.sent;
	}
	assert_in_range(flow.sent, rp_window, rp_window + (1 << 20));
	rp_run_flows(&flow, 1, UINT64_MAX);
	rp_finish();
}

static void test_brake(void **state)
{
	struct pollfd p;
	struct flow flow;
	char byte = 0;

	(void)state;
	rp_start_both();
	close(rp_join_relays(1, true));
	flow = (struct flow){.from = &src, .to = &dst, .seed = 3, .total = 64 << 20};
	rp_run_flows(&flow, 1, 4 << 20);
	rp_simple(&src, DROVER__RELAY_COMMAND__BODY_BRAKE, 0);
	p = (struct pollfd){.fd = src.qemu, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 1000), 1);
	assert_true(recv(src.qemu, &byte, 1, 0) <= 0); /* the end, or a reset */
	assert_int_equal(send(src.qemu, &byte, 1, MSG_NOSIGNAL), -1);
	assert_int_equal(errno, EPIPE);
	rp_want_event(&src, EVENT(FAILED), 1);
	assert_string_equal(src.text, "braked by the agent");
}

/* The destination's QEMU dies: the source's must hear of it, since it can't be told by TCP. */
static void test_deaf_qemu(void **state)
{
	struct flow flow;
	char byte = 0;
	uint64_t until = loop_now_us() + DEADLINE_US;

	(void)state;
	rp_start_both();
	close(rp_join_relays(1, false));
	flow = (struct flow){.from = &src, .to = &dst, .seed = 3, .total = 64 << 20};
	rp_run_flows(&flow, 1, 4 << 20);
	close(dst.qemu);
	dst.qemu = -1;
	while (send(src.qemu, &byte, 1, MSG_NOSIGNAL) == 1 || errno == EAGAIN)
		assert_true(loop_now_us() < until);
	assert_int_equal(errno, EPIPE);
	rp_want_event(&dst, EVENT(FAILED), 1);
	shutdown(src.qemu, SHUT_WR);
	rp_want_event(&src, EVENT(FAILED), 1);
	assert_non_null(strstr(src.text, "destination stopped reading"));
}

static void test_reconnect_timeout(void **state)
{
	struct flow flow;
	char byte = 0;
	int handle;

	(void)state;
	rp_reconnect_ms = 300;
	rp_start_both();
	handle = rp_join_relays(1, false);
	flow = (struct flow){.from = &src, .to = &dst, .seed = 3, .total = 64 << 20};
	rp_run_flows(&flow, 1, 4 << 20);
	rp_cut(handle);
	rp_want_event(&src, EVENT(FAILED), 1);
	rp_want_event(&dst, EVENT(FAILED), 1);
	assert_non_null(strstr(src.text, "no network"));
	assert_true(recv(src.qemu, &byte, 1, 0) <= 0);
}

static void test_budget_rate(void **state)
{
	const uint64_t rate = 10000000;
	struct flow flow;
	uint64_t began, before, fair, least = 94;
	double load = 0;

	(void)state;
	if (UNDER_VALGRIND)
		skip(); /* which is slower than the rate */
	rp_window = TX_WINDOW;
	rp_chunk_size = CHUNK_SIZE;
	rp_start_both();
	rp_budget(&src, rate);
	close(rp_join_relays(1, true));
	flow = (struct flow){.from = &src, .to = &dst, .seed = 3, .total = 1 << 30};
	rp_run_flows(&flow, 1, 2 << 20);
	rp_want_event(&src, EVENT(STATS), src.seen[EVENT(STATS)] + 1);
	began = loop_now_us();
	before = src.wire;
	while (loop_now_us() - began < 2000000)
		rp_run_flows(&flow, 1, flow.got + 1);
	rp_want_event(&src, EVENT(STATS), src.seen[EVENT(STATS)] + 1);
	/* Never too fast. A busy machine may be too slow for it, as this test is for its own data. */
	fair = rate * (loop_now_us() - began) / 1000000;
	if (getloadavg(&load, 1) != 1 || load > 0.5 * (double)sysconf(_SC_NPROCESSORS_ONLN))
		least = 50;
	assert_in_range(src.wire - before, fair / 100 * least, fair / 100 * 105 + rate / 20);
	rp_simple(&src, DROVER__RELAY_COMMAND__BODY_URGENT, 1);
	began = loop_now_us();
	rp_run_flows(&flow, 1, flow.got + (60 << 20)); /* 6 s at the budget's rate */
	assert_true(loop_now_us() - began < 4000000);
}

/* An agent that restarts in mid-copy: the copy goes on, and the new one hears how things stand. */
static void test_control_reconnect(void **state)
{
	struct flow flows[2];

	(void)state;
	rp_start_both();
	close(rp_join_relays(1, false));
	rp_flows_init(flows, 24 << 20, 6 << 20, true);
	rp_run_flows(flows, 2, 2 << 20);
	close(src.ctl);
	src.ctl = -1;
	rp_run_flows(flows, 2, 4 << 20);
	rp_connect_control(&src);
	memset(src.seen, 0, sizeof(src.seen));
	rp_want_event(&src, EVENT(READY), 1);
	rp_want_event(&src, EVENT(CHANNEL_UP), 1);
	rp_run_flows(flows, 2, UINT64_MAX);
	rp_simple(&dst, DROVER__RELAY_COMMAND__BODY_RESUMED, 0);
	rp_finish();
	rp_want_event(&src, EVENT(PEER_RESUMED), 1);
	close(src.ctl);
	rp_connect_control(&src);
	memset(src.seen, 0, sizeof(src.seen));
	rp_want_event(&src, EVENT(STREAM_DONE), 1);
	rp_want_event(&src, EVENT(PEER_RESUMED), 1);
}
/* The whole work inside the sandbox. */
static void test_sandboxed(void **state)
{
	struct flow flows[2];
	int handle;

	(void)state;
	if (UNDER_VALGRIND)
		skip(); /* its own calls would be forbidden in there */
#if defined(__SANITIZE_ADDRESS__) || defined(DROVER_COVERAGE)
	skip();
#endif
	rp_start(&src, DROVER__MOVE_ROLE__MOVE_SRC, rp_key, true);
	rp_start(&dst, DROVER__MOVE_ROLE__MOVE_DST, rp_key, true);
	handle = rp_join_relays(1, true);
	rp_flows_init(flows, 8 << 20, 1 << 20, true);
	rp_run_flows(flows, 2, 1 << 20);
	rp_cut(handle);
	close(rp_join_relays(2, false));
	rp_run_flows(flows, 2, UINT64_MAX);
	rp_finish();
}
int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, rp_setup, rp_teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_plain),	    CASE(test_tls),
		CASE(test_big_window),	    CASE(test_cuts_plain),
		CASE(test_cuts_tls),	    CASE(test_replace),
		CASE(test_wrong_key_plain), CASE(test_wrong_key_tls),
		CASE(test_corrupt_header),  CASE(test_impossible_frames),
		CASE(test_window),	    CASE(test_brake),
		CASE(test_deaf_qemu),	    CASE(test_reconnect_timeout),
		CASE(test_budget_rate),	    CASE(test_control_reconnect),
		CASE(test_sandboxed),
	};
	int failed;

	if (rp_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("DROVER_TEST_FILTER"));
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	rp_exit();
	return failed;
}
