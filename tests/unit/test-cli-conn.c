/* cli: the real transport against a small coordinator in a child process, over a unix socket and over
 * TLS-PSK. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <qb/qbloop.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/cleanup.h"
#include "common/tls.h"
#include "proto/conn.h"

static char dir[] = "/tmp/drover-test-cli-XXXXXX";
static pid_t server_pid;
static unsigned port;

/* ---- the child ---- */

static struct {
	qb_loop_t *loop;
	unsigned requests;
	uint8_t first_id[16];
} server;

static void reply(struct conn *conn, Drover__Response *response)
{
	Drover__Msg msg = DROVER__MSG__INIT;

	msg.body_case = DROVER__MSG__BODY_RESPONSE;
	msg.response = response;
	conn_send(conn, &msg);
}

/* The first change is taken and the connection lost before the answer; its repetition must carry the same id.
 */
static void on_request(struct conn *conn, const Drover__Request *request)
{
	Drover__Response response = DROVER__RESPONSE__INIT;
	bool change = request->verb_case == DROVER__REQUEST__VERB_NODE_VERB;

	response.id = request->id;
	if (change && server.requests++ == 0) {
		memcpy(server.first_id, request->id.data, sizeof(server.first_id));
		conn_close(conn);
		return;
	}
	response.changed = change && memcmp(server.first_id, request->id.data, sizeof(server.first_id)) == 0;
	response.message = (char *)(uintptr_t)(response.changed ? "the same id" : "");
	if (request->verb_case == DROVER__REQUEST__VERB_CLUSTER_TOKEN)
		return; /* never answered */
	reply(conn, &response);
}

static void on_message(struct conn *conn, const Drover__Msg *msg, void *data)
{
	Drover__Msg answer = DROVER__MSG__INIT;
	Drover__Welcome welcome = DROVER__WELCOME__INIT;

	(void)data;
	if (msg->body_case == DROVER__MSG__BODY_REQUEST) {
		on_request(conn, msg->request);
		return;
	}
	welcome.protocol = 1;
	answer.body_case = DROVER__MSG__BODY_WELCOME;
	answer.welcome = &welcome;
	conn_send(conn, &answer);
}

static void on_close(struct conn *conn, const struct dr_error *why, void *data)
{
	(void)conn;
	(void)why;
	(void)data;
}

static void *on_accept(struct listener *listener, struct conn *conn, void *data)
{
	(void)listener;
	(void)conn;
	return data;
}

static void child_run(int ready)
{
	static const struct conn_ops ops = {.on_message = on_message, .on_close = on_close};
	struct dr_error err = DR_ERROR_INIT;
	struct sockaddr_in in;
	socklen_t len = sizeof(in);
	uint8_t key[TLS_KEY_SIZE];
	char path[64];
	struct listener *tcp;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	server.loop = qb_loop_create();
	snprintf(path, sizeof(path), "%s/s", dir);
	memset(key, 7, sizeof(key));
	if (listener_unix(server.loop, path, 0600, (gid_t)-1, &ops, on_accept, NULL, &err) == NULL)
		_exit(1);
	tcp = listener_tcp(server.loop, "127.0.0.1:0", tls_psk_new(key, CONF_TLS_IDENTITY, &err), &ops,
			   on_accept, NULL, &err);
	if (tcp == NULL || getsockname(listener_fd(tcp), (struct sockaddr *)&in, &len) < 0)
		_exit(1);
	port = ntohs(in.sin_port);
	if (write(ready, &port, sizeof(port)) != sizeof(port))
		_exit(1);
	qb_loop_run(server.loop);
	_exit(0);
}

/* ---- the test ---- */

static void key_write(const char *name, uint8_t byte)
{
	char path[64];
	uint8_t key[TLS_KEY_SIZE];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	umask(077);
	f = fopen(path, "w");
	memset(key, byte, sizeof(key));
	assert_int_equal(fwrite(key, 1, sizeof(key), f), sizeof(key));
	fclose(f);
}

static int setup(void **state)
{
	int ready[2];

	(void)state;
	assert_non_null(mkdtemp(dir));
	key_write("right", 7);
	key_write("wrong", 8);
	assert_int_equal(pipe(ready), 0);
	server_pid = fork();
	assert_true(server_pid >= 0);
	if (server_pid == 0)
		child_run(ready[1]);
	close(ready[1]);
	assert_int_equal(read(ready[0], &port, sizeof(port)), sizeof(port));
	close(ready[0]);
	return 0;
}

static int teardown(void **state)
{
	static const char *const names[] = {"s", "right", "wrong"};
	char path[64];

	(void)state;
	kill(server_pid, SIGKILL);
	waitpid(server_pid, NULL, 0);
	for (size_t i = 0; i < DR_ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
	return rmdir(dir);
}

/* Runs the command with real transport; what it prints (both streams) goes to text. */
static int run(char **text, const char *const *words, int n)
{
	size_t size;
	struct cli cli = {.out = open_memstream(text, &size)};
	int exit;

	cli.err = cli.out;
	cli.transport = transport_conn_new(&cli);
	exit = cli_run(&cli, n, words);
	fclose(cli.out);
	transport_conn_free(cli.transport);
	arena_free(&cli.arena);
	return exit;
}

#define RUN(text_, ...)                                                                                      \
	run(text_, (const char *const[]){__VA_ARGS__},                                                       \
	    sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

static void test_unix(void **state)
{
	char path[64], *text;

	(void)state;
	snprintf(path, sizeof(path), "unix:%s/s", dir);
	assert_int_equal(RUN(&text, "--connect", path, "node", "list"), 0);
	free(text);
	assert_int_equal(RUN(&text, "--connect", path, "node", "pause", "n1"), 0);
	assert_string_equal(text, "the same id\n");
	free(text);
	assert_int_equal(RUN(&text, "--connect", path, "cluster", "token", "--timeout", "200ms"), 5);
	free(text);
	strcat(path, "x");
	assert_int_equal(RUN(&text, "--connect", path, "node", "list"), 7);
	assert_non_null(strstr(text, path));
	free(text);
}

static void test_tls(void **state)
{
	char right[64], wrong[64], address[64], *text;

	(void)state;
	snprintf(right, sizeof(right), "%s/right", dir);
	snprintf(wrong, sizeof(wrong), "%s/wrong", dir);
	snprintf(address, sizeof(address), "localhost:%u", port);
	assert_int_equal(RUN(&text, "--connect", address, "--key-file", right, "node", "list"), 0);
	free(text);
	assert_int_equal(RUN(&text, "--connect", address, "--key-file", wrong, "node", "list"), 8);
	assert_non_null(strstr(text, "same cluster key"));
	free(text);
	assert_int_equal(RUN(&text, "--connect", address, "--key-file", "/none", "node", "list"), 8);
	assert_non_null(strstr(text, "--key-file"));
	free(text);
	assert_int_equal(RUN(&text, "--connect", "127.0.0.1:1", "--key-file", right, "node", "list"), 7);
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_unix), cmocka_unit_test(test_tls)};

	return cmocka_run_group_tests(tests, setup, teardown);
}
