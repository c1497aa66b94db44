/* The parts of the relay that need no sockets, and the sandbox. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "relay/auth.h"
#include "relay/budget.h"
#include "relay/chunk.h"
#include "relay/sandbox.h"
#include "relay/stream.h"
#include "tests/unit/valgrind.h"

static const uint8_t key[TLS_KEY_SIZE] = "0123456789abcdef0123456789abcde";

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
	void *to;

	assert_true(tx_room(tx, 16384, &to) >= size);
	memset(to, 'x', size);
	tx_put(tx, size, 16384);
}

static void test_tx(void **state)
{
	static struct tx tx;
	struct chunk chunk;

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
	while (tx_take(&tx, &chunk))
		;
	tx_rewind(&tx);
	put(&tx, 30); /* nor does one that was taken once */
	assert_int_equal(tx.end, 4);
	while (tx_take(&tx, &chunk))
		;
	tx_put_eof(&tx);
	assert_true(tx_take(&tx, &chunk));
	assert_int_equal(chunk.type, CHUNK_EOF);
	assert_false(tx_done(&tx));
	assert_int_equal(tx_ack(&tx, tx.end, tx.head, tx.next, NULL), 0);
	assert_true(tx_done(&tx));
	tx_fini(&tx);
}

static uint8_t content(uint64_t at)
{
	return (uint8_t)(at * 0x9e3779b97f4a7c15ull >> 56);
}

/* QEMU writes, channels take and the peer acknowledges at random: what is kept is never overwritten, nor is
 * the window exceeded. */
static void test_ring(void **state)
{
	static struct tx tx;
	struct chunk taken[TX_CHUNKS];
	uint64_t full = 0, first = 0, last = 0;

	(void)state;
	assert_int_equal(tx_init(&tx, 3 << 20), 0);
	for (int step = 0; step < 300000; step++) {
		void *to = NULL;
		size_t room = tx_room(&tx, 65536, &to);
		/* Sometimes the peer is slow: the ring fills. */
		bool slow = step / 10000 % 2 == 0;

		assert_true(tx_kept(&tx) <= tx.size);
		full += room == 0;
		if (room > 0 && random() % 2 == 0) {
			size_t n = 1 + (size_t)random() % room;

			assert_true((uint8_t *)to >= tx.ring && (uint8_t *)to + n <= tx.ring + tx.size);
			for (size_t i = 0; i < n; i++)
				((uint8_t *)to)[i] = content(tx.head + i);
			tx_put(&tx, n, 65536);
		}
		if (random() % 2 == 0 && tx_take(&tx, &taken[last % TX_CHUNKS]))
			last++;
		if (first < last && random() % (slow ? 20 : 2) == 0) {
			const struct chunk *c = &taken[first++ % TX_CHUNKS];
			const uint8_t *bytes = tx_bytes(&tx, c, 0);

			for (uint32_t i = 0; i < c->length; i += 61)
				assert_int_equal(bytes[i], content(c->offset + i));
			assert_int_equal(tx_ack(&tx, c->sequence + 1, c->offset + c->length, tx.next, NULL),
					 0);
		}
	}
	assert_true(full > 100);
	assert_true(tx.head > 100u << 20);
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
	if (UNDER_VALGRIND)
		skip(); /* its own calls would be the forbidden ones */
	assert_int_equal(end_of(call_nothing), 0);
	assert_int_equal(end_of(call_random), 0);
	for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++)
		assert_int_equal(end_of(forbidden[i]), SIGSYS);
}
int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chunk_fields), cmocka_unit_test(test_tx),
		cmocka_unit_test(test_ring),	     cmocka_unit_test(test_rx),
		cmocka_unit_test(test_budget_steps), cmocka_unit_test(test_seccomp),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
