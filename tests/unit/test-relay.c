/*
 * Two relays back to back, each in a process of its own, with this test as QEMU on both sides, as both
 * agents, and where needed as a false peer. What QEMU writes is a known function of its place in the stream,
 * so a lost, doubled or changed byte shows at once.
 */
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
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/net.h"
#include "relay/relay.h"
#include "relay/sandbox.h"

#define DEADLINE_US 20000000
#define MOVE	    17
#define ATTEMPT	    2

typedef Drover__RelayEvent__Kind event_kind;
#define EVENT(name) DROVER__RELAY_EVENT__KIND__##name
#define EVENTS	    9

struct side {
	pid_t pid;
	int ctl;  /* the agent's connection */
	int qemu; /* QEMU's end */
	char path[64];
	unsigned seen[EVENTS]; /* events by kind */
	char text[256];	       /* of the last CHANNEL_DOWN or FAILED */
	uint64_t wire, guest;
	bool gone;
};

static struct side src, dst;
static char dir[] = "/tmp/drover-test-relay-XXXXXX";
static const uint8_t key[TLS_KEY_SIZE] = "0123456789abcdef0123456789abcde";
static const uint8_t other_key[TLS_KEY_SIZE] = "fedcba9876543210fedcba987654321";

/* ---- a relay in a process ---- */

static void run_relay(int listen, bool sandbox)
{
	static struct relay relay;
	struct dr_error err = DR_ERROR_INIT;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGPIPE, SIG_IGN);
	if (getenv("DROVER_TEST_LOG") == NULL)
		dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
	dup2(listen, 3);
	if ((sandbox && sandbox_limits(3, &err) != 0) || relay_init(&relay, 3, &err) != 0 ||
	    (sandbox &&
	     (sandbox_warm_up(&err) != 0 || sandbox_drop(&err) != 0 || sandbox_seccomp(&err) != 0)))
		_exit(99);
	while (!relay.quit)
		relay_turn(&relay);
	relay_fini(&relay);
	exit(0);
}

static void send_command(struct side *side, Drover__RelayCommand *command, int fd)
{
	struct dr_error err = DR_ERROR_INIT;
	Drover__Msg msg = DROVER__MSG__INIT;
	uint8_t packet[1024];

	msg.body_case = DROVER__MSG__BODY_RELAY_COMMAND;
	msg.relay_command = command;
	assert_int_equal(net_send_fds(side->ctl, packet, drover__msg__pack(&msg, packet), &fd, fd >= 0, &err),
			 0);
	if (fd >= 0)
		close(fd);
}

static void simple(struct side *side, Drover__RelayCommand__BodyCase what, uint32_t value)
{
	Drover__RelaySimple body = DROVER__RELAY_SIMPLE__INIT;
	Drover__RelayCommand command = DROVER__RELAY_COMMAND__INIT;

	body.value = value;
	command.body_case = what;
	command.quit = &body;
	send_command(side, &command, -1);
}

static void budget(struct side *side, uint64_t rate)
{
	Drover__RelayBudget body = DROVER__RELAY_BUDGET__INIT;
	Drover__RelayCommand command = DROVER__RELAY_COMMAND__INIT;

	body.bytes_per_s = rate;
	command.body_case = DROVER__RELAY_COMMAND__BODY_BUDGET;
	command.budget = &body;
	send_command(side, &command, -1);
}

static void connect_control(struct side *side)
{
	struct dr_error err = DR_ERROR_INIT;

	side->ctl = net_connect_unix(side->path, SOCK_SEQPACKET, &err);
	if (side->ctl < 0)
		fail_msg("%s", err.text);
}

static size_t window = 1 << 20;
static uint32_t chunk_size = 64 << 10;
static uint32_t reconnect_ms = 10000;

static void start(struct side *side, Drover__MoveRole role, const uint8_t *with_key, bool sandbox)
{
	Drover__RelaySetup setup = DROVER__RELAY_SETUP__INIT;
	Drover__RelayCommand command = DROVER__RELAY_COMMAND__INIT;
	int listen, pair[2];

	memset(side, 0, sizeof(*side));
	snprintf(side->path, sizeof(side->path), "%s/%d", dir, role);
	unlink(side->path);
	listen = net_listen_unix(side->path, SOCK_SEQPACKET, 0600, (gid_t)-1, NULL);
	assert_true(listen >= 0);
	fflush(NULL);
	side->pid = fork();
	if (side->pid == 0)
		run_relay(listen, sandbox);
	close(listen);
	connect_control(side);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	side->qemu = pair[0];
	fcntl(side->qemu, F_SETFL, O_NONBLOCK);
	setup.role = role;
	setup.move = MOVE;
	setup.attempt = ATTEMPT;
	setup.key.data = (uint8_t *)(uintptr_t)with_key;
	setup.key.len = TLS_KEY_SIZE;
	setup.window = window;
	setup.chunk_size = chunk_size;
	setup.reconnect_timeout_ms = reconnect_ms;
	setup.stats_interval_ms = 50;
	command.body_case = DROVER__RELAY_COMMAND__BODY_SETUP;
	command.setup = &setup;
	send_command(side, &command, pair[1]);
}

static void start_both(void)
{
	start(&src, DROVER__MOVE_ROLE__MOVE_SRC, key, false);
	start(&dst, DROVER__MOVE_ROLE__MOVE_DST, key, false);
}

/* Notes an event that has come. false: none has. */
static bool read_event(struct side *side)
{
	uint8_t packet[4096];
	int fds[NET_FDS_MAX];
	size_t n_fds;
	ssize_t n = net_recv_fds(side->ctl, packet, sizeof(packet), fds, &n_fds, NULL);
	Drover__Msg *msg;

	if (n == 0)
		side->gone = true;
	if (n <= 0)
		return false;
	msg = drover__msg__unpack(NULL, (size_t)n, packet);
	assert_non_null(msg);
	assert_int_equal(msg->body_case, DROVER__MSG__BODY_RELAY_EVENT);
	side->seen[msg->relay_event->kind]++;
	side->wire = msg->relay_event->bytes_wire;
	side->guest = msg->relay_event->bytes_guest;
	if (msg->relay_event->kind == EVENT(CHANNEL_DOWN) || msg->relay_event->kind == EVENT(FAILED))
		snprintf(side->text, sizeof(side->text), "%s", msg->relay_event->text);
	drover__msg__free_unpacked(msg, NULL);
	return true;
}

static void read_events(struct side *side)
{
	while (side->ctl >= 0 && !side->gone && read_event(side))
		;
}

static void want_event(struct side *side, event_kind kind, unsigned times)
{
	uint64_t until = loop_now_us() + DEADLINE_US;

	for (;;) {
		struct pollfd p = {.fd = side->ctl, .events = POLLIN};

		read_events(side);
		if (side->seen[kind] >= times)
			return;
		if (side->gone || loop_now_us() > until)
			fail_msg("event %d did not come %u times (%s)", (int)kind, times, side->text);
		poll(&p, 1, 100);
	}
}

static void stop(struct side *side)
{
	int status;

	if (side->pid <= 0)
		return;
	simple(side, DROVER__RELAY_COMMAND__BODY_QUIT, 0);
	assert_int_equal(waitpid(side->pid, &status, 0), side->pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(side->ctl);
	if (side->qemu >= 0)
		close(side->qemu);
	side->pid = 0;
}

static int setup(void **state)
{
	(void)state;
	window = 1 << 20;
	chunk_size = 64 << 10;
	reconnect_ms = 10000;
	src.pid = dst.pid = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	stop(&src);
	stop(&dst);
	return 0;
}

/* ---- channels ---- */

static void tcp_pair(int pair[2])
{
	struct net_addr addr;
	int listen;

	assert_int_equal(net_parse("127.0.0.1:0", &addr, NULL), 0);
	listen = net_listen_tcp(&addr, NULL);
	assert_true(listen >= 0);
	getsockname(listen, (struct sockaddr *)&addr.ss, &addr.len);
	pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(pair[0], (struct sockaddr *)&addr.ss, addr.len), 0);
	fcntl(listen, F_SETFL, 0);
	pair[1] = accept4(listen, NULL, NULL, SOCK_CLOEXEC);
	assert_true(pair[1] >= 0);
	close(listen);
}

static void give_channel(struct side *side, int fd, uint32_t id, bool encrypt)
{
	Drover__RelayChannel body = DROVER__RELAY_CHANNEL__INIT;
	Drover__RelayCommand command = DROVER__RELAY_COMMAND__INIT;

	body.id = id;
	body.network = (char *)(uintptr_t) "mig1";
	body.encrypt = encrypt;
	command.body_case = DROVER__RELAY_COMMAND__BODY_CHANNEL;
	command.channel = &body;
	send_command(side, &command, fd);
}

/* Joins the two relays; returns a descriptor with which the channel can be cut. */
static int join_relays(uint32_t id, bool encrypt)
{
	int pair[2], handle;

	tcp_pair(pair);
	handle = dup(pair[0]);
	give_channel(&src, pair[0], id, encrypt);
	give_channel(&dst, pair[1], id, encrypt);
	return handle;
}

/* A reset: what is in the kernel's buffers is lost. */
static void cut(int handle)
{
	struct sockaddr nowhere = {.sa_family = AF_UNSPEC};

	connect(handle, &nowhere, sizeof(nowhere));
	close(handle);
}

/* ---- streams ---- */

struct flow {
	struct side *from, *to;
	uint64_t seed;
	uint64_t total, sent, got;
	bool random_sizes;
};

static uint8_t content(uint64_t seed, uint64_t at)
{
	uint64_t x = (at / 8 + seed) * 0x9e3779b97f4a7c15ull;

	return (uint8_t)((x ^ (x >> 29)) >> (at % 8 * 8));
}

static size_t size_of_step(const struct flow *flow)
{
	return flow->random_sizes ? (size_t)(random() % 4 != 0 ? random() % 3000 + 1 : random() % 150000 + 1)
				  : 150000;
}

static void feed(struct flow *flow)
{
	static uint8_t buf[150000];
	size_t size = size_of_step(flow);
	ssize_t n;

	if (size > flow->total - flow->sent)
		size = (size_t)(flow->total - flow->sent);
	if (size == 0)
		return;
	for (size_t i = 0; i < size; i++)
		buf[i] = content(flow->seed, flow->sent + i);
	n = send(flow->from->qemu, buf, size, MSG_NOSIGNAL);
	if (n > 0)
		flow->sent += (size_t)n;
	else
		assert_int_equal(errno, EAGAIN);
}

static void drain(struct flow *flow)
{
	static uint8_t buf[150000];
	ssize_t n = recv(flow->to->qemu, buf, size_of_step(flow), 0);

	if (n < 0) {
		assert_int_equal(errno, EAGAIN);
		return;
	}
	if (n == 0 && flow->got < flow->total)
		fail_msg("the stream ended after %llu bytes", (unsigned long long)flow->got);
	for (ssize_t i = 0; i < n; i++)
		if (buf[i] != content(flow->seed, flow->got + (uint64_t)i))
			fail_msg("byte %llu of the stream is wrong",
				 (unsigned long long)flow->got + (unsigned)i);
	flow->got += (uint64_t)n;
	assert_true(flow->got <= flow->total);
}

static void wait_ready(struct flow *flows, size_t n)
{
	struct pollfd p[4];
	nfds_t count = 0;

	for (size_t i = 0; i < n; i++) {
		if (flows[i].sent < flows[i].total)
			p[count++] = (struct pollfd){.fd = flows[i].from->qemu, .events = POLLOUT};
		if (flows[i].got < flows[i].total)
			p[count++] = (struct pollfd){.fd = flows[i].to->qemu, .events = POLLIN};
	}
	poll(p, count, 20);
}

/* Lets the flows run until each has got `until` bytes (at most its total). */
static void run_flows(struct flow *flows, size_t n, uint64_t until)
{
	uint64_t deadline = loop_now_us() + DEADLINE_US;

	for (;;) {
		bool done = true;

		for (size_t i = 0; i < n; i++) {
			feed(&flows[i]);
			drain(&flows[i]);
			if (flows[i].got < until && flows[i].got < flows[i].total)
				done = false;
		}
		read_events(&src);
		read_events(&dst);
		if (done)
			return;
		if (loop_now_us() > deadline)
			fail_msg("stalled at %llu of %llu bytes", (unsigned long long)flows[0].got,
				 (unsigned long long)flows[0].total);
		wait_ready(flows, n);
	}
}

/* Both ends write no more; both relays must finish and QEMU sees the end behind the last byte. */
static void finish(void)
{
	struct pollfd p = {.fd = dst.qemu, .events = POLLIN};
	char byte;

	shutdown(src.qemu, SHUT_WR);
	assert_int_equal(poll(&p, 1, 5000), 1); /* one direction ends while the other is open */
	assert_int_equal(recv(dst.qemu, &byte, 1, 0), 0);
	shutdown(dst.qemu, SHUT_WR);
	want_event(&src, EVENT(STREAM_DONE), 1);
	want_event(&dst, EVENT(STREAM_DONE), 1);
	assert_int_equal(recv(src.qemu, &byte, 1, 0), 0);
	assert_int_equal(src.seen[EVENT(FAILED)] + dst.seen[EVENT(FAILED)], 0);
}

static void flows_init(struct flow flows[2], uint64_t forth, uint64_t back, bool random_sizes)
{
	flows[0] = (struct flow){
		.from = &src, .to = &dst, .seed = 1, .total = forth, .random_sizes = random_sizes};
	flows[1] = (struct flow){
		.from = &dst, .to = &src, .seed = 99, .total = back, .random_sizes = random_sizes};
}

/* ---- tests of the parts ---- */

static void test_chunk_fields(void **state)
{
	const struct chunk good = {.type = CHUNK_DATA, .length = 4096, .sequence = 5, .offset = 77};
	uint8_t wire[CHUNK_HEADER];
	struct chunk out;

	(void)state;
	chunk_encode(&good, wire);
	assert_int_equal(chunk_decode(wire, &out, NULL), 0);
	assert_int_equal(out.length, 4096);
	assert_int_equal(out.sequence, 5);
	assert_int_equal(out.offset, 77);
	/* magic, version, type, codec, flags, length, raw and the top bytes of sequence and offset */
	for (size_t i = 0; i < 24; i++) {
		if (i > 16 && i < 24)
			continue;
		chunk_encode(&good, wire);
		wire[i] ^= 0x80;
		assert_int_equal(chunk_decode(wire, &out, NULL), -DR_EPROTO);
	}
	chunk_encode(&good, wire);
	wire[24] ^= 0x80;
	assert_int_equal(chunk_decode(wire, &out, NULL), -DR_EPROTO);
	chunk_encode(&(struct chunk){.type = CHUNK_DATA, .length = CHUNK_SIZE_MAX + 1}, wire);
	assert_int_equal(chunk_decode(wire, &out, NULL), -DR_EPROTO);
	chunk_encode(&(struct chunk){.type = CHUNK_DATA}, wire);
	assert_int_equal(chunk_decode(wire, &out, NULL), -DR_EPROTO);
	chunk_encode(&(struct chunk){.type = CHUNK_ACK, .length = 1}, wire);
	assert_int_equal(chunk_decode(wire, &out, NULL), -DR_EPROTO);
}

static void put(struct tx *tx, size_t size)
{
	struct iovec iov[2];
	int n;

	assert_true(tx_room(tx, 16384, iov, &n) >= size);
	tx_put(tx, size, 16384);
}

static void test_tx(void **state)
{
	static struct tx tx;
	struct iovec iov[2];
	struct chunk chunk;
	int n;

	(void)state;
	assert_int_equal(tx_init(&tx, TX_WINDOW_MIN), 0);
	assert_false(tx_take(&tx, &chunk));
	put(&tx, 1000);
	put(&tx, 15384); /* joins: no channel has the chunk yet */
	assert_int_equal(tx.end, 1);
	put(&tx, 100);
	assert_true(tx_take(&tx, &chunk));
	assert_int_equal(chunk.length, 16384);
	assert_true(tx_take(&tx, &chunk));
	assert_int_equal(chunk.length, 100);
	put(&tx, 50); /* a chunk that was taken does not grow */
	assert_int_equal(tx.end, 3);
	assert_int_equal(tx_unacked(&tx), 16534);
	/* impossible acknowledgements */
	assert_int_equal(tx_ack(&tx, 3, 16534, 2, NULL), -DR_EPROTO);
	assert_int_equal(tx_ack(&tx, 1, 16383, 2, NULL), -DR_EPROTO);
	assert_int_equal(tx_ack(&tx, 1, 16485, 2, NULL), -DR_EPROTO);
	assert_int_equal(tx_ack(&tx, 1, 16400, 2, NULL), 0);
	assert_int_equal(tx_ack(&tx, 0, 0, 2, NULL), -DR_EPROTO);
	assert_int_equal(tx_ack(&tx, 1, 16390, 2, NULL), -DR_EPROTO);
	assert_int_equal(tx_kept(&tx), 150);
	/* a lost channel: the same chunks with the same lengths again */
	tx_rewind(&tx);
	assert_true(tx_take(&tx, &chunk));
	assert_int_equal(chunk.sequence, 1);
	assert_int_equal(chunk.length, 100);
	/* full, and around the end of the ring */
	while (tx_room(&tx, 16384, iov, &n) > 0)
		tx_put(&tx, 1 + tx_room(&tx, 16384, iov, &n) / 2, 16384);
	assert_int_equal(tx_kept(&tx), TX_WINDOW_MIN);
	while (tx_take(&tx, &chunk))
		if (chunk.offset / TX_WINDOW_MIN != (chunk.offset + chunk.length - 1) / TX_WINDOW_MIN)
			assert_int_equal(tx_pieces(&tx, &chunk, 0, SIZE_MAX, iov), 2);
	tx_put_eof(&tx);
	assert_true(tx_take(&tx, &chunk));
	assert_int_equal(chunk.type, CHUNK_EOF);
	assert_false(tx_done(&tx));
	assert_int_equal(tx_ack(&tx, tx.end, tx.head, tx.next, NULL), 0);
	assert_true(tx_done(&tx));
	tx_fini(&tx);
}

static void test_rx(void **state)
{
	struct rx rx = {0};
	struct chunk first = {.type = CHUNK_DATA, .length = 100};
	struct chunk second = {.type = CHUNK_DATA, .length = 10, .sequence = 1, .offset = 100};
	struct chunk wrong = second;
	uint32_t skip;

	(void)state;
	assert_int_equal(rx_accept(&rx, &second, &skip, NULL), -DR_EPROTO); /* a gap */
	assert_int_equal(rx_accept(&rx, &first, &skip, NULL), 0);
	assert_int_equal(skip, 0);
	rx_deliver(&rx, 60);
	assert_int_equal(rx_accept(&rx, &first, &skip, NULL), 0); /* again, on another channel */
	assert_int_equal(skip, 60);
	rx_deliver(&rx, 40);
	rx_next(&rx, &first);
	assert_int_equal(rx_accept(&rx, &first, &skip, NULL), 0);
	assert_int_equal(skip, 100);
	wrong.offset = 99;
	assert_int_equal(rx_accept(&rx, &wrong, &skip, NULL), -DR_EPROTO);
	assert_int_equal(rx_accept(&rx, &second, &skip, NULL), 0);
	rx_deliver(&rx, 10);
	rx_next(&rx, &second);
	rx_next(&rx, &(struct chunk){.type = CHUNK_EOF, .sequence = 2, .offset = 110});
	wrong = (struct chunk){.type = CHUNK_DATA, .length = 1, .sequence = 3, .offset = 110};
	assert_int_equal(rx_accept(&rx, &wrong, &skip, NULL), -DR_EPROTO); /* behind the end */
}

static void test_budget_steps(void **state)
{
	struct budget b = {0};
	uint64_t now = 1000000, wake = 0, sent = 0;

	(void)state;
	assert_int_equal(budget_allowed(&b, now, &wake), SIZE_MAX);
	budget_set(&b, 10000000, now);
	while (now < 11000000) {
		size_t n = budget_allowed(&b, now, &wake);

		if (n == 0) {
			assert_true(wake > now);
			now = wake + (uint64_t)random() % 3000;
			continue;
		}
		budget_spend(&b, n + 500); /* more than allowed is paid back */
		sent += n + 500;
		now += 10;
	}
	assert_in_range(sent, 99000000, 100300000);
	budget_urgent(&b, true, now);
	assert_int_equal(budget_allowed(&b, now, &wake), SIZE_MAX);
	budget_urgent(&b, false, now);
	assert_int_equal(budget_allowed(&b, now, &wake), 0);
}

/* ---- tests of two relays ---- */

static void transfer(bool encrypt)
{
	struct flow flows[2];

	start_both();
	close(join_relays(1, encrypt));
	want_event(&src, EVENT(CHANNEL_UP), 1);
	want_event(&dst, EVENT(CHANNEL_UP), 1);
	flows_init(flows, 30 << 20, 10 << 20, true);
	run_flows(flows, 2, UINT64_MAX);
	finish();
	simple(&dst, DROVER__RELAY_COMMAND__BODY_RESUMED, 0);
	want_event(&src, EVENT(PEER_RESUMED), 1);
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
	window = TX_WINDOW;
	chunk_size = CHUNK_SIZE;
	start_both();
	close(join_relays(1, false));
	flow = (struct flow){.from = &src, .to = &dst, .seed = 7, .total = 200 << 20};
	run_flows(&flow, 1, UINT64_MAX);
	finish();
}

/* The channel is reset again and again in mid-stream, with data in every buffer. */
static void cuts(bool encrypt)
{
	struct flow flows[2];
	int handle;

	start_both();
	flows_init(flows, 24 << 20, 6 << 20, true);
	for (uint32_t id = 1; id <= 6; id++) {
		handle = join_relays(id, encrypt);
		run_flows(flows, 1, (uint64_t)id * 3 << 20);
		cut(handle);
		want_event(&src, EVENT(NEED_CHANNEL), id);
		want_event(&dst, EVENT(NEED_CHANNEL), id);
	}
	close(join_relays(7, encrypt));
	run_flows(flows, 2, UINT64_MAX);
	finish();
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
	start_both();
	flows_init(flows, 24 << 20, 6 << 20, true);
	for (uint32_t id = 1; id <= 4; id++) {
		close(join_relays(id, id % 2 != 0));
		run_flows(flows, 2, (uint64_t)id << 20);
		want_event(&src, EVENT(CHANNEL_UP), id);
		want_event(&dst, EVENT(CHANNEL_UP), id);
	}
	run_flows(flows, 2, UINT64_MAX);
	finish();
}

static void wrong_key(bool encrypt)
{
	struct flow flows[2];
	int pair[2];

	start(&src, DROVER__MOVE_ROLE__MOVE_SRC, other_key, false);
	start(&dst, DROVER__MOVE_ROLE__MOVE_DST, key, false);
	close(join_relays(1, encrypt));
	want_event(&dst, EVENT(CHANNEL_DOWN), 1);
	want_event(&src, EVENT(CHANNEL_DOWN), 1);
	assert_non_null(strstr(encrypt ? dst.text : src.text, "authentication refused"));
	assert_int_equal(dst.seen[EVENT(CHANNEL_UP)], 0);
	assert_int_equal(src.seen[EVENT(CHANNEL_UP)], 0);
	stop(&src);
	/* A stranger's words end nothing but its own connection. */
	tcp_pair(pair);
	assert_int_equal(write(pair[0],
			       "GET / HTTP/1.1\r\nHost: drover.example.net\r\nAccept: everything!\r\n\r\n",
			       66),
			 66);
	give_channel(&dst, pair[1], 2, encrypt);
	want_event(&dst, EVENT(CHANNEL_DOWN), 2);
	close(pair[0]);
	start(&src, DROVER__MOVE_ROLE__MOVE_SRC, key, false);
	close(join_relays(3, encrypt));
	flows_init(flows, 1 << 20, 1 << 20, true);
	run_flows(flows, 2, UINT64_MAX);
	finish();
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

/* ---- a false peer that knows the key ---- */

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

	tcp_pair(pair);
	give_channel(&dst, pair[1], id, false);
	assert_int_equal(auth_init(&auth, key, false, MOVE, ATTEMPT), 0);
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
	start(&dst, DROVER__MOVE_ROLE__MOVE_DST, key, false);
	for (uint32_t i = 0; i < CHUNK_HEADER; i++) {
		fd = false_source(i + 1);
		send_frame(fd, &good, i, "hello");
		want_event(&dst, EVENT(CHANNEL_DOWN), i + 1);
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
	start(&dst, DROVER__MOVE_ROLE__MOVE_DST, key, false);
	for (uint32_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int fd = false_source(i + 1);

		send_frame(fd, &bad[i], CHUNK_HEADER, bad[i].type == CHUNK_DATA ? "hello" : "");
		want_event(&dst, EVENT(CHANNEL_DOWN), i + 1);
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
	start_both();
	close(join_relays(1, false));
	flow = (struct flow){.from = &src, .to = &dst, .seed = 3, .total = 64 << 20};
	/* The reader stalls: the source's relay takes its window, the sockets their buffers, then it stops.
	 */
	until = loop_now_us() + 300000;
	while (loop_now_us() < until) {
		feed(&flow);
		if (flow.sent != last)
			until = loop_now_us() + 300000;
		last = flow.sent;
	}
	assert_in_range(flow.sent, window, window + (1 << 20));
	run_flows(&flow, 1, UINT64_MAX);
	finish();
}

static void test_brake(void **state)
{
	struct pollfd p;
	struct flow flow;
	char byte;

	(void)state;
	start_both();
	close(join_relays(1, true));
	flow = (struct flow){.from = &src, .to = &dst, .seed = 3, .total = 64 << 20};
	run_flows(&flow, 1, 4 << 20);
	simple(&src, DROVER__RELAY_COMMAND__BODY_BRAKE, 0);
	p = (struct pollfd){.fd = src.qemu, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 1000), 1);
	assert_true(recv(src.qemu, &byte, 1, 0) <= 0); /* the end, or a reset */
	assert_int_equal(send(src.qemu, &byte, 1, MSG_NOSIGNAL), -1);
	assert_int_equal(errno, EPIPE);
	want_event(&src, EVENT(FAILED), 1);
	assert_string_equal(src.text, "braked by the agent");
}

/* The destination's QEMU dies: the source's must hear of it, since it can't be told by TCP. */
static void test_deaf_qemu(void **state)
{
	struct flow flow;
	char byte = 0;
	uint64_t until = loop_now_us() + DEADLINE_US;

	(void)state;
	start_both();
	close(join_relays(1, false));
	flow = (struct flow){.from = &src, .to = &dst, .seed = 3, .total = 64 << 20};
	run_flows(&flow, 1, 4 << 20);
	close(dst.qemu);
	dst.qemu = -1;
	while (send(src.qemu, &byte, 1, MSG_NOSIGNAL) == 1 || errno == EAGAIN)
		assert_true(loop_now_us() < until);
	assert_int_equal(errno, EPIPE);
	want_event(&dst, EVENT(FAILED), 1);
	shutdown(src.qemu, SHUT_WR);
	want_event(&src, EVENT(FAILED), 1);
	assert_non_null(strstr(src.text, "destination stopped reading"));
}

static void test_reconnect_timeout(void **state)
{
	struct flow flow;
	char byte;
	int handle;

	(void)state;
	reconnect_ms = 300;
	start_both();
	handle = join_relays(1, false);
	flow = (struct flow){.from = &src, .to = &dst, .seed = 3, .total = 64 << 20};
	run_flows(&flow, 1, 4 << 20);
	cut(handle);
	want_event(&src, EVENT(FAILED), 1);
	want_event(&dst, EVENT(FAILED), 1);
	assert_non_null(strstr(src.text, "no network"));
	assert_true(recv(src.qemu, &byte, 1, 0) <= 0);
}

static void test_budget_rate(void **state)
{
	struct flow flow;
	uint64_t began, before;

	(void)state;
	window = TX_WINDOW;
	chunk_size = CHUNK_SIZE;
	start_both();
	budget(&src, 20000000);
	close(join_relays(1, true));
	flow = (struct flow){.from = &src, .to = &dst, .seed = 3, .total = 1 << 30};
	run_flows(&flow, 1, 4 << 20);
	simple(&src, DROVER__RELAY_COMMAND__BODY_QUERY, 0);
	want_event(&src, EVENT(STATS), src.seen[EVENT(STATS)] + 2);
	began = loop_now_us();
	before = src.wire;
	while (loop_now_us() - began < 2000000)
		run_flows(&flow, 1, flow.got + 1);
	read_events(&src); /* 50 ms apart */
	assert_in_range(src.wire - before, 37500000, 42000000);
	simple(&src, DROVER__RELAY_COMMAND__BODY_URGENT, 1);
	began = loop_now_us();
	run_flows(&flow, 1, flow.got + (60 << 20)); /* 3 s at the budget's rate */
	assert_true(loop_now_us() - began < 2000000);
}

/* An agent that restarts in mid-copy: the copy goes on, and the new one hears how things stand. */
static void test_control_reconnect(void **state)
{
	struct flow flows[2];

	(void)state;
	start_both();
	close(join_relays(1, false));
	flows_init(flows, 24 << 20, 6 << 20, true);
	run_flows(flows, 2, 2 << 20);
	close(src.ctl);
	src.ctl = -1;
	run_flows(flows, 2, 4 << 20);
	connect_control(&src);
	memset(src.seen, 0, sizeof(src.seen));
	want_event(&src, EVENT(READY), 1);
	want_event(&src, EVENT(CHANNEL_UP), 1);
	run_flows(flows, 2, UINT64_MAX);
	simple(&dst, DROVER__RELAY_COMMAND__BODY_RESUMED, 0);
	finish();
	want_event(&src, EVENT(PEER_RESUMED), 1);
	close(src.ctl);
	connect_control(&src);
	memset(src.seen, 0, sizeof(src.seen));
	want_event(&src, EVENT(STREAM_DONE), 1);
	want_event(&src, EVENT(PEER_RESUMED), 1);
}

/* ---- the sandbox ---- */

/* How a child ends that makes one call after the filter is in place: the signal, or 0. */
static int end_of(void (*call)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		struct dr_error err = DR_ERROR_INIT;

		sandbox_limits(STDERR_FILENO, &err);
		if (sandbox_warm_up(&err) != 0 || sandbox_drop(&err) != 0 || sandbox_seccomp(&err) != 0)
			_exit(99);
		call();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status))
		return WTERMSIG(status);
	assert_int_equal(WEXITSTATUS(status), 0);
	return 0;
}

static void call_nothing(void)
{
}

static void call_open(void)
{
	open("/etc/passwd", O_RDONLY | O_CLOEXEC);
}

static void call_socket(void)
{
	socket(AF_INET, SOCK_STREAM, 0);
}

static void call_exec(void)
{
	char *argv[] = {(char *)(uintptr_t) "true", NULL};

	execv("/bin/true", argv);
}

static void call_ptrace(void)
{
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static void call_fork(void)
{
	fork();
}

static void call_kill(void)
{
	kill(getppid(), 0);
}

static void call_connect(void)
{
	connect(0, NULL, 0);
}

static void call_unlink(void)
{
	unlink("/nonexistent");
}

static void call_random(void)
{
	struct auth auth;

	if (auth_init(&auth, key, true, 1, 1) != 0)
		abort();
}

static void test_seccomp(void **state)
{
	static void (*const forbidden[])(void) = {call_open, call_socket, call_exec,	call_ptrace,
						  call_fork, call_kill,	  call_connect, call_unlink};

	(void)state;
#ifdef __SANITIZE_ADDRESS__
	skip();
#endif
	assert_int_equal(end_of(call_nothing), 0);
	assert_int_equal(end_of(call_random), 0);
	for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++)
		assert_int_equal(end_of(forbidden[i]), SIGSYS);
}

/* The whole work inside the sandbox. */
static void test_sandboxed(void **state)
{
	struct flow flows[2];
	int handle;

	(void)state;
#ifdef __SANITIZE_ADDRESS__
	skip();
#endif
	start(&src, DROVER__MOVE_ROLE__MOVE_SRC, key, true);
	start(&dst, DROVER__MOVE_ROLE__MOVE_DST, key, true);
	handle = join_relays(1, true);
	flows_init(flows, 8 << 20, 1 << 20, true);
	run_flows(flows, 2, 1 << 20);
	cut(handle);
	close(join_relays(2, false));
	run_flows(flows, 2, UINT64_MAX);
	finish();
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_chunk_fields),
		CASE(test_tx),
		CASE(test_rx),
		CASE(test_budget_steps),
		CASE(test_plain),
		CASE(test_tls),
		CASE(test_big_window),
		CASE(test_cuts_plain),
		CASE(test_cuts_tls),
		CASE(test_replace),
		CASE(test_wrong_key_plain),
		CASE(test_wrong_key_tls),
		CASE(test_corrupt_header),
		CASE(test_impossible_frames),
		CASE(test_window),
		CASE(test_brake),
		CASE(test_deaf_qemu),
		CASE(test_reconnect_timeout),
		CASE(test_budget_rate),
		CASE(test_control_reconnect),
		CASE(test_seccomp),
		CASE(test_sandboxed),
	};
	int failed;

	if (mkdtemp(dir) == NULL)
		return 1;
	signal(SIGPIPE, SIG_IGN);
	cmocka_set_test_filter(getenv("DROVER_TEST_FILTER"));
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	for (int i = 0; i < 2; i++) {
		char path[64];

		snprintf(path, sizeof(path), "%s/%d", dir, i);
		unlink(path);
	}
	rmdir(dir);
	return failed;
}
