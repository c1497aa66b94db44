/* Connections on a real libqb loop: unix and TLS-PSK, and what strangers and broken peers do to them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/net.h"
#include "proto/conn.h"
#include "proto/frame.h"
#include "tests/unit/valgrind.h"

/* Under valgrind a byte costs fifty times as much, and the connection's own deadlines stay. */
#define SLOW	    (UNDER_VALGRIND ? 10u : 1u)
#define DEADLINE_MS (10000 * SLOW)
#define PENDING_MIB (UNDER_VALGRIND ? 4 : 32)
#define PEERS_MAX   128

struct peer {
	struct conn *conn;
	bool open, closed;
	struct dr_error why;
	size_t got;	  /* messages */
	uint64_t last_id; /* utc_us of the last Ping */
	size_t bytes;	  /* of events' text */
	bool echo, close_on_message;
};

static qb_loop_t *loop;
static struct peer client;
static struct peer served[PEERS_MAX];
static size_t n_served;
static struct listener *listener;
static char dir[] = "/tmp/drover-test-conn-XXXXXX";
static char path[48];

/* ---- running the loop until something is true ---- */

static bool (*wanted)(void);
static bool satisfied;
static uint64_t deadline;

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void look(void *data)
{
	qb_loop_timer_handle handle;

	(void)data;
	satisfied = wanted();
	if (satisfied || now_ms() > deadline)
		qb_loop_stop(loop);
	else
		qb_loop_timer_add(loop, QB_LOOP_LOW, 5000000, NULL, look, &handle);
}

static void run_until(bool (*condition)(void))
{
	qb_loop_timer_handle handle;

	wanted = condition;
	deadline = now_ms() + DEADLINE_MS;
	qb_loop_timer_add(loop, QB_LOOP_LOW, 5000000, NULL, look, &handle);
	qb_loop_run(loop);
	assert_true(satisfied);
}

static bool is_open(void)
{
	return client.open && n_served == 1;
}

static bool client_closed(void)
{
	return client.closed;
}

static bool server_closed(void)
{
	return n_served > 0 && served[0].closed;
}

static bool both_closed(void)
{
	return client.closed && server_closed();
}

/* ---- peers ---- */

static int send_number(struct conn *conn, uint64_t number)
{
	Drover__Ping ping = DROVER__PING__INIT;
	Drover__Msg msg = DROVER__MSG__INIT;

	ping.seq = number;
	msg.body_case = DROVER__MSG__BODY_PING;
	msg.ping = &ping;
	return conn_send(conn, &msg);
}

static int send_text(struct conn *conn, size_t size)
{
	Drover__RelayEvent event = DROVER__RELAY_EVENT__INIT;
	Drover__Msg msg = DROVER__MSG__INIT;
	char *text = malloc(size + 1);
	int r;

	memset(text, 'x', size);
	text[size] = '\0';
	event.text = text;
	msg.body_case = DROVER__MSG__BODY_RELAY_EVENT;
	msg.relay_event = &event;
	r = conn_send(conn, &msg);
	free(text);
	return r;
}

static void on_open(struct conn *conn, void *data)
{
	struct peer *peer = data;

	assert_ptr_equal(peer->conn, conn);
	peer->open = true;
}

static void on_message(struct conn *conn, const Drover__Msg *msg, void *data)
{
	struct peer *peer = data;

	peer->got++;
	if (msg->body_case == DROVER__MSG__BODY_PING)
		peer->last_id = msg->ping->seq;
	if (msg->body_case == DROVER__MSG__BODY_RELAY_EVENT)
		peer->bytes += strlen(msg->relay_event->text);
	if (peer->echo)
		conn_send(conn, msg);
	if (peer->close_on_message)
		conn_close(conn);
}

static void on_close(struct conn *conn, const struct dr_error *why, void *data)
{
	struct peer *peer = data;

	assert_ptr_equal(peer->conn, conn);
	assert_false(peer->closed);
	peer->closed = true;
	peer->why = *why;
	peer->conn = NULL;
}

static const struct conn_ops ops = {.on_open = on_open, .on_message = on_message, .on_close = on_close};
static bool echo;

static void *on_accept(struct listener *from, struct conn *conn, void *data)
{
	assert_ptr_equal(from, listener);
	assert_ptr_equal(data, &n_served);
	assert_true(n_served < PEERS_MAX);
	served[n_served].conn = conn;
	served[n_served].open = true;
	served[n_served].echo = echo;
	return &served[n_served++];
}

static const uint8_t key[TLS_KEY_SIZE] = "0123456789abcdef0123456789abcde";
static const uint8_t other_key[TLS_KEY_SIZE] = "fedcba9876543210fedcba987654321";
static struct tls_psk *server_tls, *client_tls;
static char address[NET_TEXT + 16];

static void listen_unix(void)
{
	struct dr_error err = DR_ERROR_INIT;

	snprintf(address, sizeof(address), "unix:%s", path);
	listener = listener_unix(loop, path, 0660, (gid_t)-1, &ops, on_accept, &n_served, &err);
	assert_non_null(listener);
}

static void listen_tls(const uint8_t *client_key, const char *identity)
{
	struct dr_error err = DR_ERROR_INIT;
	struct net_addr addr = {.len = sizeof(addr.ss)};

	server_tls = tls_psk_new(key, "cluster", &err);
	client_tls = tls_psk_new(client_key, identity, &err);
	assert_non_null(server_tls);
	assert_non_null(client_tls);
	listener = listener_tcp(loop, "127.0.0.1:0", server_tls, &ops, on_accept, &n_served, &err);
	assert_non_null(listener);
	getsockname(listener_fd(listener), (struct sockaddr *)&addr.ss, &addr.len);
	net_format(&addr, address);
}

static void start_client(void)
{
	struct dr_error err = DR_ERROR_INIT;

	client.conn = conn_connect(loop, address, client_tls, &ops, &client, &err);
	if (client.conn == NULL)
		fail_msg("%s", err.text);
}

static int raw_tcp(void)
{
	struct dr_error err = DR_ERROR_INIT;
	struct net_addr to;
	int fd;

	assert_int_equal(net_parse(address, &to, &err), 0);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&to.ss, to.len), 0);
	return fd;
}

static int setup(void **state)
{
	(void)state;
	loop = qb_loop_create();
	memset(&client, 0, sizeof(client));
	memset(served, 0, sizeof(served));
	n_served = 0;
	echo = false;
	server_tls = client_tls = NULL;
	return 0;
}

static bool true_now(void)
{
	return true;
}

static int teardown(void **state)
{
	(void)state;
	conn_close(client.conn);
	for (size_t i = 0; i < n_served; i++)
		if (served[i].conn != NULL)
			conn_close(served[i].conn);
	listener_free(listener);
	listener = NULL;
	run_until(true_now);
	tls_psk_free(server_tls);
	tls_psk_free(client_tls);
	qb_loop_destroy(loop);
	return 0;
}

/* ---- tests ---- */

static bool echoed(void)
{
	return client.got == 500;
}

static void talk(void)
{
	echo = true;
	start_client();
	assert_int_equal(send_number(client.conn, 1), 0); /* before it is open: queued */
	run_until(is_open);
	for (uint64_t i = 2; i <= 500; i++)
		assert_int_equal(send_number(client.conn, i), 0);
	run_until(echoed);
	assert_int_equal(client.last_id, 500);
	assert_int_equal(served[0].got, 500);
}

static void test_unix_talk(void **state)
{
	struct stat st;

	(void)state;
	listen_unix();
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	talk();
	assert_true(conn_is_unix(served[0].conn));
	assert_int_equal(conn_peer_uid(served[0].conn), getuid());
	assert_int_equal(conn_peer_gid(served[0].conn), getgid());
	assert_int_equal(conn_peer_pid(served[0].conn), getpid());
	assert_non_null(strstr(conn_peer_name(served[0].conn), "uid "));
}

static void test_tls_talk(void **state)
{
	(void)state;
	listen_tls(key, "cluster");
	talk();
	assert_false(conn_is_unix(served[0].conn));
	assert_int_equal(conn_peer_uid(served[0].conn), (uid_t)-1);
	assert_non_null(strstr(conn_peer_name(served[0].conn), "127.0.0.1:"));
}

static time_t time_shift_s;

/* OpenSSL asks this for the age of what it calls sessions. */
time_t time(time_t *t)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	now.tv_sec += time_shift_s;
	if (t != NULL)
		*t = now.tv_sec;
	return now.tv_sec;
}

static void test_tls_years_later(void **state)
{
	(void)state;
	listen_tls(key, "cluster");
	time_shift_s = (time_t)20 * 366 * 24 * 3600;
	talk();
	time_shift_s = 0;
}

static bool big_came(void)
{
	return client.bytes == 4 * (FRAME_LENGTH_MAX - 64);
}

static void big_frames(void)
{
	echo = true;
	start_client();
	run_until(is_open);
	for (int i = 0; i < 4; i++)
		assert_int_equal(send_text(client.conn, FRAME_LENGTH_MAX - 64), 0);
	run_until(big_came);
	assert_int_equal(send_text(client.conn, FRAME_LENGTH_MAX + 1), -DR_EPROTO);
	assert_false(client.closed);
}

static void test_unix_big_frames(void **state)
{
	(void)state;
	listen_unix();
	big_frames();
}

static void test_tls_big_frames(void **state)
{
	(void)state;
	listen_tls(key, "cluster");
	big_frames();
}

static void refused(const uint8_t *client_key, const char *identity)
{
	listen_tls(client_key, identity);
	start_client();
	run_until(client_closed);
	assert_false(client.open);
	assert_int_equal(client.why.code, DR_EAUTH);
	assert_int_equal(n_served, 0);
}

static void test_wrong_key(void **state)
{
	(void)state;
	refused(other_key, "cluster");
}

static void test_wrong_identity(void **state)
{
	(void)state;
	refused(key, "another");
}

static bool got_three(void)
{
	return n_served == 1 && served[0].got == 3;
}

static int raw_unix(void)
{
	struct dr_error err = DR_ERROR_INIT;
	int fd = net_connect_unix(path, SOCK_STREAM, &err);

	assert_true(fd >= 0);
	return fd;
}

static bool got_two(void)
{
	return n_served == 1 && served[0].got == 2;
}

/* Frames that arrive byte by byte, and two and a half in one piece. */
static void test_partial_reads(void **state)
{
	Drover__Ping ping = DROVER__PING__INIT;
	Drover__Msg msg = DROVER__MSG__INIT;
	uint8_t *frame, all[512];
	size_t size = 0;
	int fd;

	(void)state;
	listen_unix();
	fd = raw_unix();
	ping.seq = 7;
	msg.body_case = DROVER__MSG__BODY_PING;
	msg.ping = &ping;
	frame = frame_pack(&msg, &size);
	for (int i = 0; i < 3; i++)
		memcpy(all + (size_t)i * size, frame, size);
	free(frame);
	assert_int_equal(send(fd, all, size * 5 / 2, 0), size * 5 / 2);
	run_until(got_two);
	for (size_t i = size * 5 / 2; i < size * 3; i++) {
		assert_int_equal(served[0].got, 2);
		assert_int_equal(send(fd, all + i, 1, 0), 1);
		run_until(true_now);
	}
	run_until(got_three);
	close(fd);
	run_until(server_closed);
	assert_int_equal(served[0].why.code, DR_ECLOSED);
}

static void bad_bytes(const void *bytes, size_t size)
{
	int fd;

	listen_unix();
	fd = raw_unix();
	assert_int_equal(send(fd, bytes, size, 0), size);
	run_until(server_closed);
	assert_int_equal(served[0].why.code, DR_EPROTO);
	close(fd);
}

static void test_length_over_limit(void **state)
{
	const uint8_t header[] = {'D', 'R', 0, FRAME_VERSION, 0x00, 0x80, 0x00, 0x01};

	(void)state;
	bad_bytes(header, sizeof(header));
}

static void test_stranger_unix(void **state)
{
	(void)state;
	bad_bytes("GET / HTTP/1.1\r\n", 16);
}

static void test_no_message(void **state)
{
	const uint8_t frame[] = {'D', 'R', 0, FRAME_VERSION, 0, 0, 0, 3, 0xff, 0xff, 0xff};

	(void)state;
	bad_bytes(frame, sizeof(frame));
}

static int stranger = -1;

static bool stranger_ended(void)
{
	char buf[64];
	ssize_t n;

	do
		n = recv(stranger, buf, sizeof(buf), MSG_DONTWAIT);
	while (n > 0);
	return n == 0 || (errno != EAGAIN && errno != EINTR);
}

static void test_stranger_tls(void **state)
{
	(void)state;
	listen_tls(key, "cluster");
	stranger = raw_tcp();
	assert_int_equal(send(stranger, "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
	run_until(stranger_ended);
	assert_int_equal(n_served, 0);
	close(stranger);
}

/* Says nothing: ended by the deadline. */
static void test_handshake_deadline(void **state)
{
	uint64_t start = now_ms(), took;

	(void)state;
	listen_tls(key, "cluster");
	stranger = raw_tcp();
	run_until(stranger_ended);
	took = now_ms() - start;
	assert_in_range(took, CONN_HANDSHAKE_MS - 100, CONN_HANDSHAKE_MS + 3000);
	close(stranger);
}

/* More silent connections than allowed: the oldest is ended, and an honest client still gets in. */
static void test_unauthenticated_limit(void **state)
{
	int fds[LISTENER_UNAUTHED_MAX + 1];
	uint64_t began = now_ms();

	(void)state;
	listen_tls(key, "cluster");
	for (int i = 0; i <= LISTENER_UNAUTHED_MAX; i++)
		fds[i] = raw_tcp();
	stranger = fds[0];
	run_until(stranger_ended);
	assert_true(now_ms() - began < CONN_HANDSHAKE_MS); /* not by its deadline */
	stranger = fds[LISTENER_UNAUTHED_MAX];
	assert_false(stranger_ended());
	start_client();
	run_until(is_open);
	for (int i = 0; i <= LISTENER_UNAUTHED_MAX; i++)
		close(fds[i]);
}

/* A peer that never reads: the queue ends at its limit, the connection with it, and on_close comes from the
 * loop. */
static void test_queue_limit(void **state)
{
	int fd, r = 0, sent = 0;

	(void)state;
	listen_unix();
	fd = raw_unix();
	while (n_served == 0)
		run_until(true_now);
	for (; sent < 200 && r == 0; sent++)
		r = send_text(served[0].conn, 1 << 20);
	assert_int_equal(r, -DR_ECLOSED);
	assert_in_range(sent, 60, 70);
	assert_false(served[0].closed);
	run_until(server_closed);
	assert_non_null(strstr(served[0].why.text, "does not read"));
	close(fd);
}

static bool all_came(void)
{
	return client.bytes == (size_t)PENDING_MIB << 20;
}

/* conn_close with data queued: the peer gets all of it, then the end. */
static void close_pending(void)
{
	start_client();
	run_until(is_open);
	for (int i = 0; i < PENDING_MIB; i++)
		assert_int_equal(send_text(served[0].conn, 1 << 20), 0);
	assert_int_equal(send_number(client.conn, 1), 0); /* unread at the server */
	conn_close(served[0].conn);
	served[0].conn = NULL;
	run_until(all_came);
	run_until(client_closed);
	assert_int_equal(client.why.code, DR_ECLOSED);
	assert_false(served[0].closed);
}

static void test_unix_close_pending(void **state)
{
	(void)state;
	listen_unix();
	close_pending();
}

static void test_tls_close_pending(void **state)
{
	(void)state;
	listen_tls(key, "cluster");
	close_pending();
}

static void test_close_inside_callback(void **state)
{
	(void)state;
	listen_tls(key, "cluster");
	start_client();
	run_until(is_open);
	served[0].close_on_message = true;
	served[0].echo = true;
	send_number(client.conn, 1);
	send_number(client.conn, 2);
	run_until(client_closed);
	served[0].conn = NULL;
	assert_int_equal(served[0].got, 1);
	assert_int_equal(client.got, 1); /* the echo was queued before the close */
	assert_false(served[0].closed);
}

static void test_nobody_listens(void **state)
{
	struct dr_error err = DR_ERROR_INIT;

	(void)state;
	assert_null(conn_connect(loop, "unix:/nonexistent/drover.sock", NULL, &ops, &client, &err));
	assert_int_equal(err.code, DR_ENODAEMON);
	listen_tls(key, "cluster");
	listener_free(listener);
	listener = NULL;
	start_client();
	run_until(client_closed);
	assert_int_equal(client.why.code, DR_ENODAEMON);
}

static void test_unix_path_in_use(void **state)
{
	struct dr_error err = DR_ERROR_INIT;
	int abandoned;

	(void)state;
	listen_unix();
	assert_null(listener_unix(loop, path, 0600, (gid_t)-1, &ops, on_accept, NULL, &err));
	assert_int_equal(err.code, DR_EREFUSED);
	listener_free(listener);
	assert_int_equal(access(path, F_OK), -1);
	abandoned = net_listen_unix(path, SOCK_STREAM, 0600, (gid_t)-1, NULL);
	close(abandoned);
	assert_int_equal(access(path, F_OK), 0);
	listen_unix();
}

static bool server_gone(void)
{
	return client.closed;
}

/* The refusal that the other side sent before it closed is read although our own sending fails. */
static void test_last_words(void **state)
{
	(void)state;
	listen_unix();
	start_client();
	run_until(is_open);
	send_number(served[0].conn, 77);
	conn_close(served[0].conn);
	served[0].conn = NULL;
	for (int i = 0; i < 50; i++)
		send_number(client.conn, 1);
	run_until(server_gone);
	assert_int_equal(client.last_id, 77);
}

static void test_both_end(void **state)
{
	(void)state;
	listen_tls(key, "cluster");
	start_client();
	run_until(is_open);
	conn_close(client.conn);
	client.conn = NULL;
	client.closed = true;
	run_until(both_closed);
	assert_int_equal(served[0].why.code, DR_ECLOSED);
}

static void test_addresses(void **state)
{
	static const char *const bad[] = {"",	       ":",	  "1.2.3.4",	"1.2.3.4:", "1.2.3.4:70000",
					  "::1:80",    "host:80", "1.2.3.4:8x", "[::1]",    "[]:80",
					  "1.2.3.4:-1"};
	struct net_addr addr;
	char text[NET_TEXT];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct dr_error err = DR_ERROR_INIT;

		assert_int_equal(net_parse(bad[i], &addr, &err), -DR_EUSAGE);
	}
	assert_int_equal(net_parse("10.77.1.2:7420", &addr, NULL), 0);
	assert_string_equal(net_format(&addr, text), "10.77.1.2:7420");
	assert_int_equal(net_parse("[fd00::1]:1", &addr, NULL), 0);
	assert_string_equal(net_format(&addr, text), "[fd00::1]:1");
	assert_int_equal(net_parse("*:7420", &addr, NULL), 0);
	assert_string_equal(net_format(&addr, text), "0.0.0.0:7420");
}

static void test_pass_fds(void **state)
{
	struct dr_error err = DR_ERROR_INIT;
	int pair[2], fds[NET_FDS_MAX], pipes[2];
	size_t n;
	char buf[8];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(net_recv_fds(pair[1], buf, sizeof(buf), fds, &n, &err), -DR_EAGAIN);
	assert_int_equal(net_send_fds(pair[0], "abc", 3, pipes, 2, &err), 0);
	assert_int_equal(net_recv_fds(pair[1], buf, sizeof(buf), fds, &n, &err), 3);
	assert_int_equal(n, 2);
	assert_int_equal(write(fds[1], "z", 1), 1);
	assert_int_equal(read(pipes[0], buf, 1), 1);
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(net_send_fds(pair[0], "much too long", 13, pipes, 1, &err), 0);
	assert_int_equal(net_recv_fds(pair[1], buf, sizeof(buf), fds, &n, &err), -DR_EPROTO);
	assert_int_equal(n, 0);
	close(pair[0]);
	assert_int_equal(net_recv_fds(pair[1], buf, sizeof(buf), fds, &n, &err), 0);
	close(pair[1]);
	close(pipes[0]);
	close(pipes[1]);
}

static void test_key_file(void **state)
{
	struct dr_error err = DR_ERROR_INIT;
	uint8_t out[TLS_KEY_SIZE];
	char file[80];
	FILE *f;

	(void)state;
	snprintf(file, sizeof(file), "%s/key", dir);
	assert_int_equal(tls_key_read(file, out, &err), -DR_ENOENT);
	f = fopen(file, "w");
	fwrite(key, 1, TLS_KEY_SIZE, f);
	fflush(f);
	chmod(file, 0640);
	assert_int_equal(tls_key_read(file, out, NULL), -DR_EREFUSED);
	chmod(file, 0600);
	assert_int_equal(tls_key_read(file, out, NULL), 0);
	assert_memory_equal(out, key, TLS_KEY_SIZE);
	fputc('x', f);
	fclose(f);
	assert_int_equal(tls_key_read(file, out, NULL), -DR_EREFUSED);
	unlink(file);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_unix_talk),
		CASE(test_tls_talk),
		CASE(test_tls_years_later),
		CASE(test_unix_big_frames),
		CASE(test_tls_big_frames),
		CASE(test_wrong_key),
		CASE(test_wrong_identity),
		CASE(test_partial_reads),
		CASE(test_length_over_limit),
		CASE(test_stranger_unix),
		CASE(test_no_message),
		CASE(test_stranger_tls),
		CASE(test_handshake_deadline),
		CASE(test_unauthenticated_limit),
		CASE(test_queue_limit),
		CASE(test_unix_close_pending),
		CASE(test_tls_close_pending),
		CASE(test_close_inside_callback),
		CASE(test_nobody_listens),
		CASE(test_unix_path_in_use),
		CASE(test_last_words),
		CASE(test_both_end),
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_pass_fds),
		cmocka_unit_test(test_key_file),
	};
	int failed;

	if (mkdtemp(dir) == NULL)
		return 1;
	snprintf(path, sizeof(path), "%s/s", dir);
	log_init("test-conn", getenv("DROVER_TEST_LOG") != NULL ? "debug" : "error");
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	log_fini();
	unlink(path);
	rmdir(dir);
	return failed;
}
