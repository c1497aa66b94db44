/*
 * Three members in one process, over a transport that is a function call: what is
 * committed is applied on all in one order, across a lost leader, a snapshot and a late joiner.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/env_real.h"
#include "common/log.h"
#include "coordinator/consensus.h"

#define MEMBERS	    3
#define DEADLINE_US 30000000

struct member {
	struct cluster *cluster;
	uint64_t id;
	char node[16];
	char dir[96];
	struct transport transport;
	struct consensus *consensus;
	uint64_t applied; /* commands */
	uint64_t hash;	  /* over all of them, in order */
	bool stopped;
	bool fatal;
};

struct packet {
	struct packet *next;
	struct cluster *cluster;
	size_t size;
	uint8_t bytes[];
};

struct cluster {
	char dir[64];
	qb_loop_t *loop;
	struct env *env;
	struct member members[MEMBERS + 1];
	unsigned n;
	uint64_t deadline;
	bool (*until)(struct cluster *c);
	bool reached;
	uint64_t change_id;
	const char *change_node;
	struct packet *packets, **packets_tail;
	uint64_t packets_timer;
	unsigned delivered;
};

static int apply(void *data, uint64_t index, const uint8_t *bytes, size_t size)
{
	struct member *m = data;

	(void)index;
	for (size_t i = 0; i < size; i++)
		m->hash = (m->hash ^ bytes[i]) * 1099511628211ull;
	m->applied++;
	return 0;
}

static int snapshot(void *data, uint8_t **bytes, size_t *size)
{
	struct member *m = data;
	uint64_t *state = malloc(16);

	state[0] = m->applied;
	state[1] = m->hash;
	*bytes = (uint8_t *)state;
	*size = 16;
	return 0;
}

static int restore(void *data, const uint8_t *bytes, size_t size)
{
	struct member *m = data;

	assert_int_equal(size, 16);
	memcpy(&m->applied, bytes, 8);
	memcpy(&m->hash, bytes + 8, 8);
	return 0;
}

static void changed(void *data)
{
	(void)data;
}

static void fatal(void *data, enum dr_err code, const char *why)
{
	struct member *m = data;

	fprintf(stderr, "%s: fatal: %s: %s\n", m->node, dr_err_name((int)code), why);
	m->fatal = true;
}

static const struct consensus_ops ops = {
	.apply = apply, .snapshot = snapshot, .restore = restore, .changed = changed, .fatal = fatal};

static void deliver(struct cluster *c, const struct packet *p)
{
	Drover__PeerMsg *msg = drover__peer_msg__unpack(NULL, p->size, p->bytes);

	assert_non_null(msg);
	for (unsigned i = 0; i < c->n; i++) {
		struct member *m = &c->members[i];

		bool for_it = m->id == msg->to;

		for (size_t k = 0; k < msg->n_also_to; k++)
			for_it = for_it || m->id == msg->also_to[k];
		if (for_it && m->consensus != NULL && !m->stopped)
			consensus_receive(m->consensus, msg->from, msg->raft);
	}
	drover__peer_msg__free_unpacked(msg, NULL);
}

static void deliver_all(void *data)
{
	struct cluster *c = data;
	struct packet *p = c->packets, *next;

	c->packets = NULL;
	c->packets_tail = &c->packets;
	c->packets_timer = 0;
	for (; p != NULL; p = next) {
		next = p->next;
		deliver(c, p);
		/* Every other one twice. Of entries that a member has already nothing may be left in memory:
		 * that is for the runs with valgrind and AddressSanitizer to see. */
		if (c->delivered++ % 2 == 0)
			deliver(c, p);
		free(p);
	}
}

static void transport_send(struct transport *t, const uint8_t *bytes, size_t size)
{
	struct member *m = t->impl;
	struct cluster *c = m->cluster;
	struct packet *p = malloc(sizeof(*p) + size);

	p->next = NULL;
	p->size = size;
	memcpy(p->bytes, bytes, size);
	*c->packets_tail = p;
	c->packets_tail = &p->next;
	if (c->packets_timer == 0)
		c->packets_timer = env_timer_start(c->env, 200, deliver_all, c);
}

static bool transport_quorate(struct transport *t)
{
	(void)t;
	return true;
}

static void member_start(struct cluster *c, unsigned i, uint64_t id, bool bootstrap)
{
	struct member *m = &c->members[i];
	struct dr_error err = DR_ERROR_INIT;
	struct consensus_config config = {
		.loop = c->loop,
		.env = c->env,
		.transport = &m->transport,
		.node = m->node,
		.election_timeout_ms = 400,
		.heartbeat_ms = 40,
		.snapshot_threshold = 60,
		.snapshot_trailing = 10,
		.ops = &ops,
		.data = m,
	};

	if (m->dir[0] == '\0') {
		char dir[sizeof(c->dir)];

		memcpy(dir, c->dir, sizeof(dir));
		snprintf(m->dir, sizeof(m->dir), "%s/m%llu", dir, (unsigned long long)id);
		assert_int_equal(mkdir(m->dir, 0700), 0);
	}
	m->cluster = c;
	m->id = id;
	m->applied = 0;
	m->hash = 0;
	m->stopped = false;
	snprintf(m->node, sizeof(m->node), "node%u", i + 1);
	m->transport = (struct transport){.impl = m, .send = transport_send, .quorate = transport_quorate};
	config.identity.member = id;
	config.log = logdb_open(m->dir, &err);
	assert_non_null(config.log);
	m->consensus = consensus_new(&config, &err);
	assert_non_null(m->consensus);
	if (bootstrap)
		assert_int_equal(consensus_bootstrap(m->consensus, &err), 0);
	assert_int_equal(consensus_start(m->consensus, &err), 0);
	if (i >= c->n)
		c->n = i + 1;
}

static void check(void *data)
{
	struct cluster *c = data;

	for (unsigned i = 0; i < c->n; i++)
		assert_false(c->members[i].fatal);
	c->reached = c->until(c);
	if (c->reached || env_now_us(c->env) > c->deadline)
		qb_loop_stop(c->loop);
	else
		env_timer_start(c->env, 5000, check, c);
}

static void run_until(struct cluster *c, bool (*until)(struct cluster *))
{
	c->until = until;
	c->deadline = env_now_us(c->env) + DEADLINE_US;
	env_timer_start(c->env, 0, check, c);
	qb_loop_run(c->loop);
	assert_true(c->reached);
}

static struct member *leader(struct cluster *c)
{
	for (unsigned i = 0; i < c->n; i++) {
		struct member *m = &c->members[i];

		if (m->consensus != NULL && !m->stopped && consensus_role(m->consensus) == CONSENSUS_LEADER)
			return m;
	}
	return NULL;
}

static bool has_leader(struct cluster *c)
{
	return leader(c) != NULL;
}

static unsigned voters(struct cluster *c)
{
	struct consensus_member list[8];
	unsigned n = consensus_members(leader(c)->consensus, list, 8), count = 0;

	for (unsigned i = 0; i < n; i++)
		count += list[i].role == MEMBER_VOTER;
	return count;
}

/* What the daemon's leader does once a second. */
static bool promoted(struct cluster *c)
{
	struct consensus_member list[8];
	struct member *m = leader(c);
	struct dr_error err = DR_ERROR_INIT;

	if (m == NULL)
		return false;
	for (unsigned i = 0, n = consensus_members(m->consensus, list, 8); i < n; i++) {
		if (list[i].role == MEMBER_VOTER)
			continue;
		consensus_promote(m->consensus, list[i].id,
				  list[i].role == MEMBER_JOINING ? MEMBER_LEARNER : MEMBER_VOTER, &err);
		return false;
	}
	return voters(c) == c->n;
}

static uint64_t proposed;

static void propose_some(struct cluster *c, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		char text[40];
		int size = snprintf(text, sizeof(text), "command %llu", (unsigned long long)proposed);

		assert_int_equal(
			consensus_propose(leader(c)->consensus, (uint8_t *)text, (size_t)size, NULL, NULL),
			0);
		proposed++;
	}
}

static bool all_applied(struct cluster *c)
{
	for (unsigned i = 0; i < c->n; i++) {
		struct member *m = &c->members[i];

		if (m->consensus != NULL && !m->stopped && m->applied != proposed)
			return false;
	}
	return true;
}

static void expect_same(struct cluster *c)
{
	uint64_t hash = 0;

	for (unsigned i = 0; i < c->n; i++) {
		struct member *m = &c->members[i];

		if (m->consensus == NULL || m->stopped)
			continue;
		if (hash == 0)
			hash = m->hash;
		assert_int_equal(m->hash, hash);
	}
}

static void stopped(void *data)
{
	struct member *m = data;

	m->consensus = NULL;
}

static bool gone(struct cluster *c)
{
	for (unsigned i = 0; i < c->n; i++) {
		if (c->members[i].stopped && c->members[i].consensus != NULL)
			return false;
	}
	return true;
}

static void member_stop(struct cluster *c, struct member *m)
{
	m->stopped = true;
	consensus_stop(m->consensus, stopped, m);
	run_until(c, gone);
}

/* One change at a time: the last one may be in the log and not yet committed. */
static bool adding(struct cluster *c)
{
	struct dr_error err = DR_ERROR_INIT;

	return leader(c) != NULL &&
	       consensus_add(leader(c)->consensus, c->change_id, c->change_node, &err) == 0;
}

static void add(struct cluster *c, uint64_t id, const char *node)
{
	c->change_id = id;
	c->change_node = node;
	run_until(c, adding);
}

static bool removing(struct cluster *c)
{
	struct dr_error err = DR_ERROR_INIT;

	return leader(c) != NULL && consensus_remove(leader(c)->consensus, c->change_id, &err) == 0;
}

static bool removed(struct cluster *c)
{
	struct consensus_member list[8];

	return leader(c) != NULL && consensus_members(leader(c)->consensus, list, 8) == MEMBERS - 1;
}

/* A member that lost its disk comes back under a new id and gets the state by snapshot (SAFETY R15). */
static void replace_wiped(struct cluster *c)
{
	struct member *wiped = &c->members[leader(c) == &c->members[0] ? 1 : 0];
	char command[128];

	member_stop(c, wiped);
	snprintf(command, sizeof(command), "rm -f %s/log.*", wiped->dir);
	assert_int_equal(system(command), 0);
	c->change_id = wiped->id;
	run_until(c, removing);
	run_until(c, removed);
	propose_some(c, 50);
	run_until(c, all_applied);
	add(c, 201, wiped->node);
	member_start(c, (unsigned)(wiped - c->members), 201, false);
	run_until(c, promoted);
	propose_some(c, 50);
	run_until(c, all_applied);
	expect_same(c);
}

static void test_three_members(void **state)
{
	struct cluster *c = calloc(1, sizeof(*c));
	struct member *old;
	char command[128];

	(void)state;
	strcpy(c->dir, "/tmp/drover-consensus-XXXXXX");
	assert_non_null(mkdtemp(c->dir));
	c->loop = qb_loop_create();
	c->env = env_real_new(c->loop);
	c->packets_tail = &c->packets;

	member_start(c, 0, 101, true);
	run_until(c, has_leader);
	propose_some(c, 30);
	run_until(c, all_applied);
	for (unsigned i = 1; i < MEMBERS; i++) {
		snprintf(c->members[i].node, sizeof(c->members[i].node), "node%u", i + 1);
		add(c, 101 + i, c->members[i].node);
		member_start(c, i, 101 + i, false);
		run_until(c, promoted);
	}
	propose_some(c, 100); /* past the snapshot threshold */
	run_until(c, all_applied);
	expect_same(c);

	/* The leader goes; the others go on. */
	old = leader(c);
	member_stop(c, old);
	run_until(c, has_leader);
	propose_some(c, 100);
	run_until(c, all_applied);
	/* It comes back from its own disk and catches up. */
	member_start(c, (unsigned)(old - c->members), old->id, false);
	run_until(c, all_applied);
	expect_same(c);
	replace_wiped(c);

	for (unsigned i = 0; i < c->n; i++)
		member_stop(c, &c->members[i]);
	env_real_free(c->env);
	qb_loop_destroy(c->loop);
	snprintf(command, sizeof(command), "rm -rf %s", c->dir);
	assert_int_equal(system(command), 0);
	free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_three_members)};
	int failed;

	log_init("test-consensus", "info");
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	log_fini();
	return failed;
}
