/*
 * Two relays with several channels between them, each through this test, which is their links: it passes
 * bytes on at a rate, holds them back (a silent drop), or cuts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/net.h"
#include "relay/relay.h"
#include "tests/unit/relay-pair.h"
#include "tests/unit/valgrind.h"

#define LINKS 3
#define PIPE  (128u << 10)
#define LONG  60000000 /* us that a schedule may take */

struct link {
	int fd[2]; /* of the source's and the destination's relay; -1: there is none */
	uint8_t buf[2][PIPE];
	size_t have[2], at[2];
	uint64_t rate; /* bytes/s from the source on; 0: no limit */
	bool silent;
	uint64_t tokens, filled_us, passed;
};

static struct link links[LINKS];
static const char *const names[LINKS] = {"mig1", "mig2", "mig3"};
static uint32_t next_id;

static int setup(void **state)
{
	next_id = 0;
	for (size_t i = 0; i < LINKS; i++)
		links[i] = (struct link){.fd = {-1, -1}};
	return rp_setup(state);
}

static void link_cut(struct link *link)
{
	for (int i = 0; i < 2; i++) {
		if (link->fd[i] >= 0)
			rp_cut(link->fd[i]);
		link->fd[i] = -1;
		link->have[i] = link->at[i] = 0;
	}
}

static int teardown(void **state)
{
	for (size_t i = 0; i < LINKS; i++)
		link_cut(&links[i]);
	return rp_teardown(state);
}

/* A channel over the link; what the kernel would keep in its buffers is kept small. */
static void link_up(size_t number, bool encrypt)
{
	struct link *link = &links[number];
	int size = 64 << 10;

	link_cut(link);
	rp_network = names[number];
	next_id++;
	for (int i = 0; i < 2; i++) {
		int pair[2];

		rp_tcp_pair(pair);
		setsockopt(pair[0], SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
		setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
		fcntl(pair[0], F_SETFL, O_NONBLOCK);
		link->fd[i] = pair[0];
		rp_give_channel(i == 0 ? &src : &dst, pair[1], next_id, encrypt);
	}
	link->silent = false;
	link->tokens = 0;
	link->filled_us = loop_now_us();
}

/* One direction, as far as it goes without waiting. false: the connection is over. */
static bool pass_on(struct link *link, int from)
{
	size_t most = PIPE;
	ssize_t n;

	if (link->have[from] == 0) {
		n = recv(link->fd[from], link->buf[from], PIPE, MSG_DONTWAIT);
		if (n < 0)
			return errno == EAGAIN;
		if (n == 0)
			return false;
		link->have[from] = (size_t)n;
		link->at[from] = 0;
	}
	most = link->have[from] - link->at[from];
	if (from == 0 && link->rate != 0) {
		if (most > link->tokens)
			most = link->tokens;
		if (most == 0)
			return true;
	}
	n = send(link->fd[1 - from], link->buf[from] + link->at[from], most, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0)
		return errno == EAGAIN;
	if (from == 0) {
		link->passed += (uint64_t)n;
		link->tokens -= link->rate != 0 ? (uint64_t)n : 0;
	}
	link->at[from] += (size_t)n;
	if (link->at[from] == link->have[from])
		link->have[from] = 0;
	return true;
}

static void links_turn(void)
{
	for (size_t i = 0; i < LINKS; i++) {
		struct link *link = &links[i];
		uint64_t now = loop_now_us();

		if (link->fd[0] < 0 || link->silent)
			continue;
		link->tokens += link->rate * (now - link->filled_us) / 1000000;
		if (link->tokens > link->rate / 50)
			link->tokens = link->rate / 50;
		if (link->rate * (now - link->filled_us) >= 1000000)
			link->filled_us = now;
		for (int k = 0; k < 4; k++)
			if (!pass_on(link, 0) || !pass_on(link, 1)) {
				link_cut(link);
				break;
			}
	}
}

/* A little of everything. */
static void turn(struct flow *flows, size_t n)
{
	links_turn();
	rp_step_flows(flows, n);
}

static void run_until(struct flow *flows, size_t n, uint64_t got)
{
	uint64_t until = loop_now_us() + DEADLINE_US;

	while (flows[0].got < got || (got == flows[0].total && n > 1 && flows[1].got < flows[1].total)) {
		turn(flows, n);
		if (loop_now_us() > until)
			fail_msg("stalled at %llu of %llu bytes", (unsigned long long)flows[0].got,
				 (unsigned long long)got);
	}
}

static void wait_event(struct flow *flows, size_t n, struct side *side, event_kind kind, unsigned times)
{
	uint64_t until = loop_now_us() + DEADLINE_US;

	while (side->seen[kind] < times) {
		turn(flows, n);
		if (loop_now_us() > until)
			fail_msg("event %d did not come %u times (%s)", (int)kind, times, side->text);
	}
}

/* Both ends write no more; everything arrives, and both relays are done. */
static void finish(struct flow *flows, size_t n)
{
	uint8_t byte;

	run_until(flows, n, flows[0].total);
	shutdown(src.qemu, SHUT_WR);
	shutdown(dst.qemu, SHUT_WR);
	wait_event(flows, 0, &src, EVENT(STREAM_DONE), 1);
	wait_event(flows, 0, &dst, EVENT(STREAM_DONE), 1);
	assert_int_equal(recv(dst.qemu, &byte, 1, 0), 0);
	assert_int_equal(recv(src.qemu, &byte, 1, 0), 0);
	assert_int_equal(src.seen[EVENT(FAILED)] + dst.seen[EVENT(FAILED)], 0);
}

static void start(unsigned count, bool encrypt)
{
	rp_window = 4 << 20;
	rp_start_both();
	for (unsigned i = 0; i < count; i++)
		link_up(i, encrypt);
	wait_event(NULL, 0, &src, EVENT(CHANNEL_UP), count);
	wait_event(NULL, 0, &dst, EVENT(CHANNEL_UP), count);
}

/* ---- */

/* All of them carry data at the same time, both ways, and the figures say so. */
static void test_together(void **state)
{
	/* Under valgrind one of them is faster than the relay. */
	uint64_t sum = 0, least = UNDER_VALGRIND ? 0 : 256 << 10;
	struct flow flows[2];

	(void)state;
	for (size_t i = 0; i < LINKS; i++)
		links[i].rate = 5000000;
	start(LINKS, true);
	rp_flows_init(flows, 24 << 20, 4 << 20, true);
	finish(flows, 2);
	rp_want_event(&src, EVENT(STATS), src.seen[EVENT(STATS)] + 1);
	for (size_t i = 0; i < LINKS; i++) {
		assert_true(links[i].passed > least);
		assert_string_equal(src.networks[i].name, names[i]);
		assert_true(src.networks[i].wire > least);
		assert_int_equal(src.networks[i].again, 0);
		sum += src.networks[i].wire;
	}
	assert_int_equal(src.wire, sum);
}

/* Unequal links: each carries what it can, so that the sum of both counts. */
static void test_unequal(void **state)
{
	struct flow flow;
	uint64_t began, took, ideal, most = 120;
	double load = 0;

	(void)state;
	if (UNDER_VALGRIND)
		skip();
	links[0].rate = 16000000;
	links[1].rate = 4000000;
	start(2, false);
	flow = (struct flow){.from = &src, .to = &dst, .seed = 5, .total = 30 << 20};
	began = loop_now_us();
	finish(&flow, 1);
	took = loop_now_us() - began;
	ideal = flow.total * 1000000 / 20000000;
	if (getenv("DROVER_TEST_LOG") != NULL)
		print_message("unequal: %llu ms, ideal %llu ms\n", (unsigned long long)took / 1000,
			      (unsigned long long)ideal / 1000);
	assert_true(links[1].passed > flow.total / 10);
	assert_true(links[0].passed > flow.total / 2);
	/* A busy machine may be too slow for it, as this test is for its own links. */
	if (getloadavg(&load, 1) != 1 || load > 0.5 * (double)sysconf(_SC_NPROCESSORS_ONLN))
		most = 1000;
	assert_true(took < ideal * most / 100);
}

/* One of two is reset in mid-stream: nobody notices but the figures. */
static void lose_one(bool encrypt, bool silent)
{
	struct flow flows[2];
	uint64_t began;

	links[0].rate = links[1].rate = 10000000;
	start(2, encrypt);
	rp_flows_init(flows, 20 << 20, 2 << 20, true);
	run_until(flows, 2, 5 << 20);
	began = loop_now_us();
	if (silent)
		links[0].silent = true;
	else
		link_cut(&links[0]);
	wait_event(flows, 2, &src, EVENT(CHANNEL_DOWN), 1);
	wait_event(flows, 2, &dst, EVENT(CHANNEL_DOWN), 1);
	if (silent && !UNDER_VALGRIND)
		assert_in_range(loop_now_us() - began, 500000, 3000000);
	finish(flows, 2);
	assert_int_equal(src.seen[EVENT(NEED_CHANNEL)] + dst.seen[EVENT(NEED_CHANNEL)], 0);
	rp_want_event(&src, EVENT(STATS), src.seen[EVENT(STATS)] + 1);
	assert_true(src.networks[1].again > 0);
}

static void test_lose_one_plain(void **state)
{
	(void)state;
	lose_one(false, false);
}

static void test_lose_one_tls(void **state)
{
	(void)state;
	lose_one(true, false);
}

static void test_silent_drop(void **state)
{
	(void)state;
	lose_one(false, true);
}

/* The source closes channels of a worse rank when a better one works, and uses them when it is lost. */
static void test_ranks(void **state)
{
	struct flow flows[2];
	uint64_t before;

	(void)state;
	links[0].rate = links[1].rate = 10000000;
	rp_window = 4 << 20;
	rp_start_both();
	rp_flows_init(flows, 24 << 20, 2 << 20, true);
	rp_rank = 2;
	link_up(1, false);
	run_until(flows, 2, 4 << 20);
	rp_rank = 1;
	link_up(0, false);
	wait_event(flows, 2, &src, EVENT(CHANNEL_DOWN), 1);
	wait_event(flows, 2, &dst, EVENT(CHANNEL_DOWN), 1);
	before = links[1].passed;
	run_until(flows, 2, 12 << 20);
	assert_int_equal(links[1].passed, before);
	/* One that comes up now is of no use. */
	rp_rank = 2;
	link_up(1, false);
	wait_event(flows, 2, &src, EVENT(CHANNEL_DOWN), 2);
	wait_event(flows, 2, &dst, EVENT(CHANNEL_DOWN), 2);
	run_until(flows, 2, 16 << 20);
	assert_true(links[1].passed < before + (64 << 10));
	link_cut(&links[0]);
	wait_event(flows, 2, &src, EVENT(NEED_CHANNEL), 1);
	rp_rank = 2;
	link_up(1, false);
	finish(flows, 2);
}

/* The reader stalls while several channels bring chunks: nothing grows beyond the window. */
static void test_window(void **state)
{
	struct flow flow;
	uint64_t last = 0, until;

	(void)state;
	start(LINKS, false);
	flow = (struct flow){.from = &src, .to = &dst, .seed = 3, .total = 64 << 20};
	until = loop_now_us() + 500000;
	while (loop_now_us() < until) {
		links_turn();
		rp_feed(&flow);
		rp_read_events(&src);
		rp_read_events(&dst);
		if (flow.sent != last)
			until = loop_now_us() + 500000;
		last = flow.sent;
	}
	assert_in_range(flow.sent, rp_window, rp_window + (1 << 20));
	finish(&flow, 1);
}

static void random_schedule(unsigned seed)
{
	struct flow flows[2];
	uint64_t step, until = loop_now_us() + LONG;

	srandom(seed);
	rp_window = (size_t)(1 + random() % 4) << 20;
	rp_start_both();
	rp_flows_init(flows, (uint64_t)(2 + random() % 4) << 20, 1 << 20, true);
	for (size_t i = 0; i < LINKS; i++)
		links[i].rate = random() % 2 != 0 ? 0 : 3000000 + (uint64_t)random() % 20000000;
	link_up(0, random() % 2 != 0);
	step = flows[0].total / 12;
	for (uint64_t at = step; at < flows[0].total; at += step) {
		size_t number = (size_t)random() % LINKS;

		/* Not all of them for ever: somebody carries on. */
		while (flows[0].got < at) {
			turn(flows, 2);
			if (links[0].fd[0] < 0 && links[1].fd[0] < 0 && links[2].fd[0] < 0)
				link_up(number, random() % 2 != 0);
			if (loop_now_us() > until)
				fail_msg("seed %u: stalled at %llu", seed, (unsigned long long)flows[0].got);
		}
		if (random() % 2 != 0)
			link_up(number, random() % 2 != 0);
		else
			link_cut(&links[number]);
	}
	link_up(0, false);
	finish(flows, 2);
	if (src.text[0] != '\0' && strstr(src.text, "corrupt") != NULL)
		fail_msg("seed %u: %s", seed, src.text);
}

/* 200 random schedules of cuts and new channels, both kinds mixed. */
static void test_random_schedules(void **state)
{
	const char *one = getenv("DROVER_TEST_SEED");
	unsigned count = UNDER_VALGRIND ? 5 : 200;

	if (one != NULL) {
		random_schedule((unsigned)atoi(one));
		return;
	}
	for (unsigned seed = 1; seed <= count; seed++) {
		random_schedule(seed);
		teardown(state);
		setup(state);
	}
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_together),	 CASE(test_unequal),	      CASE(test_lose_one_plain),
		CASE(test_lose_one_tls), CASE(test_silent_drop),      CASE(test_ranks),
		CASE(test_window),	 CASE(test_random_schedules),
	};
	int failed;

	if (rp_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("DROVER_TEST_FILTER"));
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	rp_exit();
	return failed;
}
