#include "tests/unit/relay-pair.h"

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
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/net.h"
#include "relay/relay.h"
#include "relay/sandbox.h"

struct side src, dst;
const uint8_t rp_key[TLS_KEY_SIZE] = "0123456789abcdef0123456789abcde";
const uint8_t rp_other_key[TLS_KEY_SIZE] = "fedcba9876543210fedcba987654321";
static char dir[] = "/tmp/drover-test-relay-XXXXXX";

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

void rp_simple(struct side *side, Drover__RelayCommand__BodyCase what, uint32_t value)
{
	Drover__RelaySimple body = DROVER__RELAY_SIMPLE__INIT;
	Drover__RelayCommand command = DROVER__RELAY_COMMAND__INIT;

	body.value = value;
	command.body_case = what;
	command.quit = &body;
	send_command(side, &command, -1);
}

void rp_budget(struct side *side, uint64_t rate)
{
	Drover__RelayBudget body = DROVER__RELAY_BUDGET__INIT;
	Drover__RelayCommand command = DROVER__RELAY_COMMAND__INIT;

	body.bytes_per_s = rate;
	command.body_case = DROVER__RELAY_COMMAND__BODY_BUDGET;
	command.budget = &body;
	send_command(side, &command, -1);
}

void rp_connect_control(struct side *side)
{
	struct dr_error err = DR_ERROR_INIT;

	side->ctl = net_connect_unix(side->path, SOCK_SEQPACKET, &err);
	if (side->ctl < 0)
		fail_msg("%s", err.text);
}

size_t rp_window = 1 << 20;
uint32_t rp_chunk_size = 64 << 10;
uint32_t rp_reconnect_ms = 10000;
const char *rp_network = "mig1";
uint32_t rp_rank = 1;

void rp_start(struct side *side, Drover__MoveRole role, const uint8_t *with_key, bool sandbox)
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
	rp_connect_control(side);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	side->qemu = pair[0];
	fcntl(side->qemu, F_SETFL, O_NONBLOCK);
	setup.role = role;
	setup.move = RP_MOVE;
	setup.attempt = RP_ATTEMPT;
	setup.key.data = (uint8_t *)(uintptr_t)with_key;
	setup.key.len = TLS_KEY_SIZE;
	setup.window = rp_window;
	setup.chunk_size = rp_chunk_size;
	setup.reconnect_timeout_ms = rp_reconnect_ms;
	setup.stats_interval_ms = 50;
	command.body_case = DROVER__RELAY_COMMAND__BODY_SETUP;
	command.setup = &setup;
	send_command(side, &command, pair[1]);
}

void rp_start_both(void)
{
	rp_start(&src, DROVER__MOVE_ROLE__MOVE_SRC, rp_key, false);
	rp_start(&dst, DROVER__MOVE_ROLE__MOVE_DST, rp_key, false);
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
	for (size_t i = 0; i < msg->relay_event->n_networks && i < RP_NETWORKS; i++) {
		const Drover__RelayNetwork *network = msg->relay_event->networks[i];

		snprintf(side->networks[i].name, sizeof(side->networks[i].name), "%s", network->network);
		side->networks[i].wire = network->bytes_wire;
		side->networks[i].again = network->bytes_again;
	}
	if (msg->relay_event->kind == EVENT(CHANNEL_DOWN) || msg->relay_event->kind == EVENT(FAILED))
		snprintf(side->text, sizeof(side->text), "%s", msg->relay_event->text);
	drover__msg__free_unpacked(msg, NULL);
	return true;
}

void rp_read_events(struct side *side)
{
	while (side->ctl >= 0 && !side->gone && read_event(side))
		;
}

void rp_want_event(struct side *side, event_kind kind, unsigned times)
{
	uint64_t until = loop_now_us() + DEADLINE_US;

	for (;;) {
		struct pollfd p = {.fd = side->ctl, .events = POLLIN};

		rp_read_events(side);
		if (side->seen[kind] >= times)
			return;
		if (side->gone || loop_now_us() > until)
			fail_msg("event %d did not come %u times (%s)", (int)kind, times, side->text);
		poll(&p, 1, 100);
	}
}

void rp_stop(struct side *side)
{
	int status;

	if (side->pid <= 0)
		return;
	rp_simple(side, DROVER__RELAY_COMMAND__BODY_QUIT, 0);
	assert_int_equal(waitpid(side->pid, &status, 0), side->pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	close(side->ctl);
	if (side->qemu >= 0)
		close(side->qemu);
	side->pid = 0;
}

int rp_setup(void **state)
{
	(void)state;
	rp_window = 1 << 20;
	rp_chunk_size = 64 << 10;
	rp_reconnect_ms = 10000;
	rp_network = "mig1";
	rp_rank = 1;
	src.pid = dst.pid = 0;
	return 0;
}

int rp_teardown(void **state)
{
	(void)state;
	rp_stop(&src);
	rp_stop(&dst);
	return 0;
}

/* ---- channels ---- */

void rp_tcp_pair(int pair[2])
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

void rp_give_channel(struct side *side, int fd, uint32_t id, bool encrypt)
{
	Drover__RelayChannel body = DROVER__RELAY_CHANNEL__INIT;
	Drover__RelayCommand command = DROVER__RELAY_COMMAND__INIT;

	body.id = id;
	body.network = (char *)(uintptr_t)rp_network;
	body.rank = rp_rank;
	body.encrypt = encrypt;
	command.body_case = DROVER__RELAY_COMMAND__BODY_CHANNEL;
	command.channel = &body;
	send_command(side, &command, fd);
}

/* Joins the two relays; returns a descriptor with which the channel can be cut. */
int rp_join_relays(uint32_t id, bool encrypt)
{
	int pair[2], handle;

	rp_tcp_pair(pair);
	handle = dup(pair[0]);
	rp_give_channel(&src, pair[0], id, encrypt);
	rp_give_channel(&dst, pair[1], id, encrypt);
	return handle;
}

/* A reset: what is in the kernel's buffers is lost. */
void rp_cut(int handle)
{
	struct sockaddr nowhere = {.sa_family = AF_UNSPEC};

	connect(handle, &nowhere, sizeof(nowhere));
	close(handle);
}

/* ---- streams ---- */

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

void rp_feed(struct flow *flow)
{
	static uint8_t buf[150000];
	size_t size = size_of_step(flow);
	ssize_t n;

	if (size > flow->total - flow->sent)
		size = (size_t)(flow->total - flow->sent);
	if (size == 0 || flow->from->qemu < 0)
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

void rp_step_flows(struct flow *flows, size_t n)
{
	for (size_t i = 0; i < 8 * n; i++) {
		rp_feed(&flows[i % n]);
		drain(&flows[i % n]);
	}
	rp_read_events(&src);
	rp_read_events(&dst);
	poll(NULL, 0, 1);
}

/* Lets the flows run until each has got `until` bytes (at most its total). */
void rp_run_flows(struct flow *flows, size_t n, uint64_t until)
{
	uint64_t deadline = loop_now_us() + DEADLINE_US;

	for (;;) {
		bool done = true;

		for (size_t i = 0; i < n; i++) {
			uint64_t before = flows[i].got;

			rp_feed(&flows[i]);
			drain(&flows[i]);
			if (flows[i].got != before)
				deadline = loop_now_us() + DEADLINE_US;
			if (flows[i].got < until && flows[i].got < flows[i].total)
				done = false;
		}
		rp_read_events(&src);
		rp_read_events(&dst);
		if (done)
			return;
		if (loop_now_us() > deadline)
			fail_msg("stalled at %llu of %llu bytes", (unsigned long long)flows[0].got,
				 (unsigned long long)flows[0].total);
		wait_ready(flows, n);
	}
}

/* Both ends write no more; both relays must finish and QEMU sees the end behind the last byte. */
void rp_finish(void)
{
	struct pollfd p = {.fd = dst.qemu, .events = POLLIN};
	char byte;

	shutdown(src.qemu, SHUT_WR);
	assert_int_equal(poll(&p, 1, 5000), 1); /* one direction ends while the other is open */
	assert_int_equal(recv(dst.qemu, &byte, 1, 0), 0);
	shutdown(dst.qemu, SHUT_WR);
	rp_want_event(&src, EVENT(STREAM_DONE), 1);
	rp_want_event(&dst, EVENT(STREAM_DONE), 1);
	assert_int_equal(recv(src.qemu, &byte, 1, 0), 0);
	assert_int_equal(src.seen[EVENT(FAILED)] + dst.seen[EVENT(FAILED)], 0);
}

void rp_flows_init(struct flow flows[2], uint64_t forth, uint64_t back, bool random_sizes)
{
	flows[0] = (struct flow){
		.from = &src, .to = &dst, .seed = 1, .total = forth, .random_sizes = random_sizes};
	flows[1] = (struct flow){
		.from = &dst, .to = &src, .seed = 99, .total = back, .random_sizes = random_sizes};
}

int rp_init(void)
{
	signal(SIGPIPE, SIG_IGN);
	return mkdtemp(dir) != NULL ? 0 : -1;
}

void rp_exit(void)
{
	char path[64];

	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%d", dir, i);
		unlink(path);
	}
	rmdir(dir);
}
