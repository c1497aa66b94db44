/* Which networks the source's machine tries, and when (agent/move_src_paths.h). */
#include "tests/unit/move-world.h"

static Drover__NetworkPath nets[3];
static Drover__NetworkPath *three[3];

static bool asked(unsigned number)
{
	return (w.tried & 1u << number) != 0;
}

static void up(unsigned number)
{
	move_event(m, &(struct move_event){.type = MOVE_EV_CHANNEL_UP, .path = number});
}

static void down(unsigned number, const char *words)
{
	move_event(m, &(struct move_event){.type = MOVE_EV_CHANNEL_DOWN, .path = number, .text = words});
}

static void refused(unsigned number)
{
	move_event(m,
		   &(struct move_event){.type = MOVE_EV_CHANNEL_FAILED, .path = number, .text = "no route"});
}

/* Which were asked for since the last look: bits. */
static unsigned tried(void)
{
	unsigned bits = w.tried;

	w.tried = 0;
	return bits;
}

/* mig1 and mig2 of one rank, mig3 of the next; in SRC_CONNECTING, and the relay is up. */
static void connecting(const char *mode)
{
	static const char *const names[] = {"mig1", "mig2", "mig3"};

	for (size_t i = 0; i < 3; i++) {
		drover__network_path__init(&nets[i]);
		nets[i].network = (char *)(uintptr_t)names[i];
		nets[i].rank = i < 2 ? 1 : 2;
		three[i] = &nets[i];
	}
	order.paths = three;
	order.n_paths = 3;
	order.mode = (char *)(uintptr_t)mode;
	source();
	send(MOVE_EV_QEMU_UP);
	answer_status(MOVE_RUN_RUNNING);
	send(MOVE_EV_NONCES_WRITTEN);
	order.dst_port = 7421;
	give_order();
	send(MOVE_EV_RELAY_UP);
}

static void begins(void)
{
	answer(MOVE_QMP_CAPABILITIES, true);
	answer(MOVE_QMP_PARAMETERS, true);
	assert_int_equal(move_phase(m), P(SRC_COPYING));
	answer(MOVE_QMP_MIGRATE, true);
	migration(MOVE_MIG_ACTIVE);
}

static void expect_networks(size_t n, const char *first)
{
	Drover__MoveFact fact;

	move_fact(m, &fact);
	assert_int_equal(fact.stats->n_networks, n);
	if (n > 0)
		assert_string_equal(fact.stats->networks[0], first);
}

/* All of the best rank at once; the copy begins with the first; the next rank is left alone. */
static void test_together(void **state)
{
	(void)state;
	connecting("auto");
	assert_int_equal(tried(), 3);
	up(1);
	begins();
	expect_networks(1, "mig2");
	pass(3000);
	assert_int_equal(tried(), 0);
	refused(0);
	pass(1100);
	assert_int_equal(tried(), 1); /* again and again */
	up(0);
	expect_networks(2, "mig1");
	assert_string_equal(w.said, "");
	/* One is lost: said, and tried at once. */
	down(0, "reset");
	assert_non_null(strstr(w.said, "lost network mig1, the others carry on: reset"));
	assert_int_equal(tried(), 1);
	expect_networks(1, "mig2");
	not_failed();
	/* After the word the peer's end is no loss. */
	up(0);
	w.said[0] = '\0';
	w.lease_from = w.now;
	send(MOVE_EV_STOP);
	migration(MOVE_MIG_PRE_SWITCHOVER);
	order.token_granted = 1;
	give_order();
	answer(MOVE_QMP_MIGRATE_CONTINUE, true);
	migration(MOVE_MIG_COMPLETED);
	answer_status(MOVE_RUN_POSTMIGRATE);
	assert_int_equal(move_phase(m), P(SRC_RELEASED));
	down(0, "closed");
	send(MOVE_EV_RELAY_NEED_CHANNEL);
	assert_string_equal(w.said, "");
	expect_networks(2, "mig1"); /* its figures stay */
}

/* The next rank when every better network has failed or says nothing; back when one heals. */
static void test_ranks(void **state)
{
	(void)state;
	connecting("multichannel");
	tried();
	up(0);
	up(1);
	begins();
	down(0, "silent");
	down(1, "silent");
	send(MOVE_EV_RELAY_NEED_CHANNEL);
	assert_int_equal(tried() & 4, 0); /* first the better ones, for a moment */
	pass(400);
	assert_true(asked(2));
	up(2);
	assert_non_null(
		strstr(w.said, "uses network mig3 (rank 2): mig1 (rank 1) does not work: mig2: silent"));
	expect_networks(1, "mig3");
	/* They are tried again within 3 s however often they fail. */
	for (int i = 0; i < 10; i++) {
		refused(0);
		refused(1);
		tried();
		pass(1100);
		assert_int_equal(tried(), 3);
	}
	up(1);
	assert_string_equal(w.said, "uses network mig2 (rank 1) again");
	down(2, "of a better rank");
	assert_string_equal(w.said, "uses network mig2 (rank 1) again");
	tried();
	pass(5000);
	assert_false(asked(2)); /* not while a better one works */
	not_failed();
}

/* Refused at once: the next rank does not wait. */
static void test_refused(void **state)
{
	(void)state;
	connecting("");
	assert_int_equal(tried(), 3);
	refused(0);
	assert_int_equal(tried(), 0);
	refused(1);
	assert_int_equal(tried(), 4);
	pass(600);
	assert_int_equal(tried(), 3);
}

/* Mode tcp: one network at a time, of the same rank, too. */
static void test_tcp(void **state)
{
	(void)state;
	connecting("tcp");
	assert_int_equal(tried(), 1);
	refused(0);
	assert_int_equal(tried(), 2);
	up(1);
	begins();
	assert_string_equal(w.said, "");
	tried();
	pass(10000);
	assert_int_equal(tried(), 0); /* no way back within the rank */
	down(1, "reset");
	send(MOVE_EV_RELAY_NEED_CHANNEL);
	assert_int_equal(tried(), 1);
	refused(0);
	assert_int_equal(tried(), 2);
	refused(1);
	assert_int_equal(tried(), 4);
	up(2);
	pass(1000);
	assert_true(asked(0)); /* a better rank is worth it */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_together, setup, teardown),
		cmocka_unit_test_setup_teardown(test_ranks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tcp, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
