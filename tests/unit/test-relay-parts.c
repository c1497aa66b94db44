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

#include "common/cleanup.h"
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

/* Takes the next chunk and has it sent wholly. */
static bool take(struct tx *tx, uint8_t taker, struct chunk *out)
{
	bool again;

	if (!tx_take(tx, taker, out, &again))
		return false;
	tx_sent(tx, out);
	return true;
}

static void test_tx(void **state)
{
	static struct tx tx;
	struct chunk chunk;

	(void)state;
	assert_int_equal(tx_init(&tx, TX_WINDOW_MIN), 0);
	assert_false(take(&tx, 0, &chunk));
	put(&tx, 1000);
	put(&tx, 15384); /* joins: no channel has the chunk yet */
	assert_int_equal(tx.end, 1);
	put(&tx, 100);
	assert_true(take(&tx, 0, &chunk));
	assert_int_equal(chunk.length, 16384);
	assert_true(take(&tx, 0, &chunk));
	assert_int_equal(chunk.length, 100);
	put(&tx, 50); /* a chunk that was taken does not grow */
	assert_int_equal(tx.end, 3);
	assert_int_equal(tx_unacked(&tx), 16534);
	/* impossible acknowledgements */
	assert_int_equal(tx_ack(&tx, 3, 16534, NULL), -DR_EPROTO);
	assert_int_equal(tx_ack(&tx, 2, 16485, NULL), -DR_EPROTO);
	assert_int_equal(tx_ack(&tx, 1, 16383, NULL), -DR_EPROTO);
	assert_int_equal(tx_ack(&tx, 1, 16485, NULL), -DR_EPROTO);
	assert_int_equal(tx_ack(&tx, 1, 16400, NULL), 0);
	assert_int_equal(tx_ack(&tx, 0, 0, NULL), 0); /* an old one, from a slower channel */
	assert_int_equal(tx_ack(&tx, 1, 16390, NULL), 0);
	assert_int_equal(tx.acked, 1);
	assert_int_equal(tx.acked_bytes, 16400);
	assert_int_equal(tx_kept(&tx), 150);
	/* a lost channel: the same chunks with the same lengths again */
	tx_lose(&tx, 0);
	assert_int_equal(tx_waiting(&tx), 150);
	assert_true(take(&tx, 0, &chunk));
	assert_int_equal(chunk.sequence, 1);
	assert_int_equal(chunk.length, 100);
	while (take(&tx, 0, &chunk))
		;
	tx_lose(&tx, 0);
	put(&tx, 30); /* nor does one that was taken once */
	assert_int_equal(tx.end, 4);
	while (take(&tx, 0, &chunk))
		;
	tx_put_eof(&tx);
	assert_true(take(&tx, 0, &chunk));
	assert_int_equal(chunk.type, CHUNK_EOF);
	assert_false(tx_done(&tx));
	assert_int_equal(tx_ack(&tx, tx.end, tx.head, NULL), 0);
	assert_true(tx_done(&tx));
	tx_fini(&tx);
}

/* Of several channels only the lost one's chunks wait again, oldest first, and before all new ones. */
static void test_tx_channels(void **state)
{
	static struct tx tx;
	struct chunk chunk, busy;
	bool again;

	(void)state;
	assert_int_equal(tx_init(&tx, 256 << 10), 0);
	for (int i = 0; i < 8; i++)
		put(&tx, 16384);
	for (uint8_t i = 0; i < 6; i++)
		assert_true(take(&tx, i % 3, &chunk)); /* 0 1 2 0 1 2, two wait */
	assert_int_equal(tx_ack(&tx, 1, 16384, NULL), 0);
	tx_lose(&tx, 1);
	assert_int_equal(tx_waiting_chunks(&tx), 4);
	assert_int_equal(tx_waiting(&tx), 4 * 16384);
	assert_true(tx_take(&tx, 2, &busy, &again));
	assert_true(again);
	assert_int_equal(busy.sequence, 1);
	/* Acknowledged while it is sent again, since it had come over the lost channel: its bytes stay. */
	assert_int_equal(tx_ack(&tx, 5, 5 * 16384, NULL), 0);
	assert_int_equal(tx_waiting_chunks(&tx), 2);
	assert_int_equal(tx.kept, 1);
	for (void *to; tx_room(&tx, 16384, &to) == 16384;)
		put(&tx, 16384);
	assert_int_equal(*(char *)tx_bytes(&tx, &busy, 16383), 'x');
	assert_true(tx_kept(&tx) <= tx.size);
	tx_sent(&tx, &busy);
	assert_int_equal(tx.kept, 5);
	assert_true(take(&tx, 0, &chunk));
	assert_int_equal(chunk.sequence, 6);
	/* Taken again and lost again. */
	tx_lose(&tx, 2);
	tx_lose(&tx, 0);
	for (uint64_t s = 5; s <= 6; s++) {
		assert_true(take(&tx, 1, &chunk));
		assert_int_equal(chunk.sequence, s);
	}
	tx_stop(&tx);
	assert_int_equal(tx_waiting_chunks(&tx), 0);
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
		if (random() % 2 == 0 && take(&tx, 0, &taken[last % TX_CHUNKS]))
			last++;
		if (first < last && random() % (slow ? 20 : 2) == 0) {
			const struct chunk *c = &taken[first++ % TX_CHUNKS];
			const uint8_t *bytes = tx_bytes(&tx, c, 0);

			for (uint32_t i = 0; i < c->length; i += 61)
				assert_int_equal(bytes[i], content(c->offset + i));
			assert_int_equal(tx_ack(&tx, c->sequence + 1, c->offset + c->length, NULL), 0);
		}
	}
	assert_true(full > 100);
	assert_true(tx.head > 100u << 20);
	tx_fini(&tx);
}

static struct rx rx;

static int accept_chunk(const struct chunk *chunk, enum rx_place *place)
{
	return rx_accept(&rx, chunk, place, NULL);
}

static void test_rx(void **state)
{
	struct chunk first = {.type = CHUNK_DATA, .length = 100};
	struct chunk second = {.type = CHUNK_DATA, .length = 10, .sequence = 1, .offset = 100};
	struct chunk wrong = second;
	enum rx_place place;

	(void)state;
	rx = (struct rx){0};
	assert_int_equal(accept_chunk(&first, &place), 0);
	assert_int_equal(place, RX_NOW);
	assert_int_equal(rx_stale(&rx, &first), 0);
	rx_deliver(&rx, 60);
	assert_int_equal(accept_chunk(&first, &place), 0); /* again, on another channel */
	assert_int_equal(rx_stale(&rx, &first), 60);
	rx_deliver(&rx, 40);
	rx_next(&rx, &first);
	assert_int_equal(accept_chunk(&first, &place), 0);
	assert_int_equal(rx_stale(&rx, &first), 100);
	wrong.offset = 99;
	assert_int_equal(accept_chunk(&wrong, &place), -DR_EPROTO);
	wrong = (struct chunk){.type = CHUNK_DATA, .length = 101}; /* an old one, but longer */
	assert_int_equal(accept_chunk(&wrong, &place), -DR_EPROTO);
	assert_int_equal(accept_chunk(&second, &place), 0);
	rx_deliver(&rx, 10);
	rx_next(&rx, &second);
	rx_next(&rx, &(struct chunk){.type = CHUNK_EOF, .sequence = 2, .offset = 110});
	wrong = (struct chunk){.type = CHUNK_DATA, .length = 1, .sequence = 3, .offset = 110};
	assert_int_equal(accept_chunk(&wrong, &place), -DR_EPROTO); /* behind the end */
}

static int keep(uint64_t sequence, uint64_t offset, uint32_t length)
{
	struct chunk chunk = {.type = length > 0 ? CHUNK_DATA : CHUNK_EOF,
			      .length = length,
			      .sequence = sequence,
			      .offset = offset};
	uint8_t *bytes = rx_buffer(&rx, length);

	assert_non_null(bytes);
	return rx_keep(&rx, &chunk, bytes, 1, NULL);
}

/* Chunks that come ahead: kept once, bounded, and refused when they overlap or lie beyond the window. */
static void test_rx_ahead(void **state)
{
	struct chunk chunk = {.type = CHUNK_DATA, .length = 10, .sequence = 3, .offset = 30};
	enum rx_place place;
	uint8_t *bytes, *many[RX_HELD_MAX / CHUNK_SIZE_MAX];

	(void)state;
	rx = (struct rx){0};
	assert_int_equal(accept_chunk(&chunk, &place), 0);
	assert_int_equal(place, RX_AHEAD);
	assert_int_equal(keep(3, 30, 10), 0);
	assert_int_equal(keep(3, 30, 10), 0); /* twice: kept once */
	assert_int_equal(rx.held, 10);
	assert_null(rx_ready(&rx));
	assert_int_equal(keep(3, 30, 9), -DR_EPROTO);
	assert_int_equal(keep(3, 31, 10), -DR_EPROTO);
	assert_int_equal(keep(2, 20, 11), -DR_EPROTO); /* into the next */
	assert_int_equal(keep(4, 39, 10), -DR_EPROTO); /* from within the one before */
	assert_int_equal(keep(2, 30, 0), -DR_EPROTO);  /* the end before data */
	assert_int_equal(keep(2, 1, 5), -DR_EPROTO);   /* no room for what is missing */
	assert_int_equal(keep(TX_CHUNKS, 1 << 20, 10), -DR_EPROTO);
	assert_int_equal(keep(5, (uint64_t)RX_AHEAD_MAX + CHUNK_SIZE_MAX, 1), -DR_EPROTO);
	assert_int_equal(rx.held, 10);
	assert_int_equal(keep(1, 10, 10), 0);
	assert_int_equal(keep(2, 20, 10), 0);
	assert_int_equal(keep(4, 40, 0), 0);
	rx_deliver(&rx, 10);
	rx_next(&rx, &(struct chunk){.type = CHUNK_DATA, .length = 10});
	for (uint64_t i = 1; i < 4; i++) {
		assert_non_null(rx_ready(&rx));
		assert_int_equal(rx_ready(&rx)->offset, 10 * i);
		rx_deliver(&rx, 10);
		rx_drop(&rx, true);
		assert_int_equal(rx.expected, i + 1);
		assert_int_equal(keep(i, 10 * i, 10), 0); /* an old one */
	}
	assert_non_null(rx_ready(&rx));
	rx_drop(&rx, true);
	assert_true(rx.eof);
	assert_int_equal(rx.held, 0);
	/* The bound: overlapping lies that no neighbour gives away. */
	for (size_t i = 0; i < DR_ARRAY_SIZE(many); i++) {
		many[i] = rx_buffer(&rx, CHUNK_SIZE_MAX);
		assert_non_null(many[i]);
	}
	bytes = rx_buffer(&rx, CHUNK_SIZE_MAX);
	assert_null(bytes);
	for (size_t i = 0; i < DR_ARRAY_SIZE(many); i++)
		rx_buffer_free(&rx, many[i], CHUNK_SIZE_MAX);
	assert_int_equal(rx.held, 0);
	rx_fini(&rx);
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
		cmocka_unit_test(test_tx_channels),  cmocka_unit_test(test_rx_ahead),
		cmocka_unit_test(test_ring),	     cmocka_unit_test(test_rx),
		cmocka_unit_test(test_budget_steps), cmocka_unit_test(test_seccomp),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
