/* One member of a cluster whose others are the test: it gets what the test sends, and the test sees its
 * answers. */
#ifndef DROVER_TESTS_UNIT_LONE_MEMBER_H
#define DROVER_TESTS_UNIT_LONE_MEMBER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/env_real.h"
#include "coordinator/consensus.h"

#define LONE_DEADLINE_US 10000000
#define LONE_SENT	 64

struct lone {
	char dir[64];
	qb_loop_t *loop;
	struct env *env;
	struct transport transport;
	bool quorate;
	struct consensus *consensus;
	struct dr_error err;
	Drover__PeerMsg *sent[LONE_SENT]; /* the newest, round */
	unsigned n_sent;
	uint64_t applied; /* commands since the start, or the snapshot's */
	uint64_t acked;
	unsigned failed; /* proposals that were not acknowledged */
	unsigned changes;
	enum dr_err fatal;
	bool no_apply, no_snapshot, no_restore;
	bool stopped;
	unsigned snapshots, restores;
	/* run_until */
	bool (*until)(struct lone *l);
	uint64_t deadline;
	bool reached;
};

static inline int lone_apply(void *data, uint64_t index, const uint8_t *bytes, size_t size)
{
	struct lone *l = data;

	(void)index;
	(void)bytes;
	(void)size;
	if (l->no_apply)
		return -DR_EIO;
	l->applied++;
	return 0;
}

static inline int lone_snapshot(void *data, uint8_t **bytes, size_t *size)
{
	struct lone *l = data;

	*size = 8;
	*bytes = l->no_snapshot ? NULL : malloc(8);
	if (*bytes == NULL)
		return -DR_ENOMEM;
	memcpy(*bytes, &l->applied, 8);
	l->snapshots++;
	return 0;
}

static inline int lone_restore(void *data, const uint8_t *bytes, size_t size)
{
	struct lone *l = data;

	if (l->no_restore)
		return -DR_ECORRUPT;
	assert_int_equal(size, 8);
	memcpy(&l->applied, bytes, 8);
	l->restores++;
	return 0;
}

static inline void lone_changed(void *data)
{
	((struct lone *)data)->changes++;
}

static inline void lone_fatal(void *data, enum dr_err code, const char *why)
{
	struct lone *l = data;

	(void)why;
	if (l->fatal == DR_OK)
		l->fatal = code;
}

static const struct consensus_ops lone_ops = {.apply = lone_apply,
					      .snapshot = lone_snapshot,
					      .restore = lone_restore,
					      .changed = lone_changed,
					      .fatal = lone_fatal};

static inline void lone_send(struct transport *t, const uint8_t *bytes, size_t size)
{
	struct lone *l = t->impl;
	unsigned at = l->n_sent++ % LONE_SENT;

	drover__peer_msg__free_unpacked(l->sent[at], NULL);
	l->sent[at] = drover__peer_msg__unpack(NULL, size, bytes);
}

static inline bool lone_quorate(struct transport *t)
{
	return ((struct lone *)t->impl)->quorate;
}

static inline struct lone *lone_new(void)
{
	struct lone *l = calloc(1, sizeof(*l));

	strcpy(l->dir,
	       access("/dev/shm", W_OK) == 0 ? "/dev/shm/drover-lone-XXXXXX" : "/tmp/drover-lone-XXXXXX");
	assert_non_null(mkdtemp(l->dir));
	l->loop = qb_loop_create();
	l->env = env_real_new(l->loop);
	l->quorate = true;
	return l;
}

static inline void lone_wipe(struct lone *l)
{
	static const char *const names[] = {"log.db", "log.db-wal", "log.db-shm", "log.mark", "log.distrust"};
	char path[128];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", l->dir, names[i]);
		unlink(path);
	}
}

static inline void lone_free(struct lone *l)
{
	for (unsigned i = 0; i < LONE_SENT; i++)
		drover__peer_msg__free_unpacked(l->sent[i], NULL);
	lone_wipe(l);
	rmdir(l->dir);
	env_real_free(l->env);
	qb_loop_destroy(l->loop);
	free(l);
}

/* A new process of it. NULL: l->err says why not. */
static inline struct consensus *lone_make(struct lone *l)
{
	struct consensus_config config = {.loop = l->loop,
					  .env = l->env,
					  .transport = &l->transport,
					  .node = "node1",
					  .election_timeout_ms = 300,
					  .heartbeat_ms = 30,
					  .snapshot_threshold = 20,
					  .snapshot_trailing = 4,
					  .ops = &lone_ops,
					  .data = l};

	dr_error_clear(&l->err);
	l->transport = (struct transport){.impl = l, .send = lone_send, .quorate = lone_quorate};
	l->applied = 0;
	l->fatal = DR_OK;
	l->stopped = false;
	config.identity.member = 101;
	config.log = logdb_open(l->dir, &l->err);
	l->consensus = config.log != NULL ? consensus_new(&config, &l->err) : NULL;
	return l->consensus;
}

static inline void lone_check(void *data)
{
	struct lone *l = data;

	l->reached = l->until(l);
	if (l->reached || env_now_us(l->env) > l->deadline)
		qb_loop_stop(l->loop);
	else
		env_timer_start(l->env, 1000, lone_check, l);
}

/* Whether it came true in time. */
static inline bool lone_runs(struct lone *l, bool (*until)(struct lone *l), uint64_t most_us)
{
	l->until = until;
	l->deadline = env_now_us(l->env) + most_us;
	env_timer_start(l->env, 0, lone_check, l);
	qb_loop_run(l->loop);
	return l->reached;
}

static inline void lone_until(struct lone *l, bool (*until)(struct lone *l))
{
	assert_true(lone_runs(l, until, LONE_DEADLINE_US));
}

static inline bool lone_leads(struct lone *l)
{
	return l->fatal != DR_OK || consensus_leads(l->consensus);
}

static inline bool lone_has_stopped(struct lone *l)
{
	return l->stopped;
}

static inline void lone_on_stop(void *data)
{
	((struct lone *)data)->stopped = true;
}

static inline void lone_stop(struct lone *l)
{
	consensus_stop(l->consensus, lone_on_stop, l);
	lone_until(l, lone_has_stopped);
	l->consensus = NULL;
}

static inline void lone_proposed(void *data, int status)
{
	struct lone *l = data;

	if (status == 0)
		l->acked++;
	else
		l->failed++;
}

static inline int lone_propose(struct lone *l)
{
	return consensus_propose(l->consensus, (const uint8_t *)"command", 7, lone_proposed, l);
}

#endif
