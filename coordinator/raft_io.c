#include "coordinator/raft_io.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/mutant.h"
#include "coordinator/raft_rpc.h"

_Static_assert(LOGDB_CHANGE == RAFT_CHANGE, "member lists are known to log.db");

/* Completions of send() run from the loop, never from inside the call. */
struct deferred {
	struct deferred *next;
	struct raft_io_send *req;
	raft_io_send_cb cb; /* NULL: libraft does not want to know (a leadership transfer's request) */
};

#define RECEIVERS_MAX 32

/*
 * The message that was sent last, kept until libraft has done what it was called for, at the latest until the
 * end of this turn of the loop. A leader hands us the same entries once for each follower, and the ring is a
 * multicast. A follower whose disk has taken several appends at once answers each; the last answer says it
 * all.
 */
struct held {
	uint8_t *bytes; /* NULL: none */
	size_t size;
	uint64_t to[RECEIVERS_MAX];
	unsigned n;
	/* It says how far the log is that leader's, and no more. Term 0: it is something else. */
	uint64_t accepts_term, accepts_index;
};

struct rio {
	struct raft_io *io;
	struct rio_config config;
	raft_id id;
	char *address;
	unsigned tick_ms;
	raft_io_tick_cb tick;
	raft_io_recv_cb recv;
	uint64_t next_index; /* of the next entry to append */
	uint64_t stored;     /* up to here the log is on the disk */
	uint64_t term;	     /* stored: libraft votes before it updates its own copy */
	uint64_t tick_timer;
	uint64_t deferred_timer;
	struct deferred *deferred;
	struct deferred **deferred_tail;
	struct held held;
	unsigned in_flight; /* requests that the log writer has */
	raft_io_close_cb close_cb;
	bool closing;
	bool mute;
	bool failed;	/* term or vote could not be stored: nothing comes in or goes out any more */
	bool answering; /* libraft works on what came: up to `matching` this log is the sender's */
	bool late;	/* it works on entries that were stored for the leader of an earlier term */
	uint64_t matching;
};

static int rio_start_io(struct raft_io *io, raft_id id, const char *address)
{
	struct rio *r = io->impl;

	r->id = id;
	r->address = strdup(address);
	return r->address != NULL ? 0 : RAFT_NOMEM;
}

static void send_held(struct rio *r)
{
	struct held *h = &r->held;
	DR_AUTO_FREE uint8_t *to = NULL;
	uint8_t *whole;
	size_t size;

	if (h->bytes == NULL)
		return;
	to = raft_rpc_pack_to(h->to, h->n, r->mute, &size);
	whole = to != NULL ? realloc(h->bytes, h->size + size) : NULL;
	if (whole != NULL) { /* else lost, as on any network */
		memcpy(whole + h->size, to, size);
		h->bytes = whole;
		r->config.transport->send(r->config.transport, whole, h->size + size);
	}
	free(h->bytes);
	*h = (struct held){.bytes = NULL};
}

static void maybe_closed(struct rio *r)
{
	if (r->closing && r->in_flight == 0 && r->deferred == NULL && r->close_cb != NULL) {
		raft_io_close_cb cb = r->close_cb;

		r->close_cb = NULL;
		cb(r->io);
	}
}

static void close_later(void *data)
{
	struct rio *r = data;

	r->deferred_timer = 0;
	while (r->deferred != NULL) {
		struct deferred *d = r->deferred;

		r->deferred = d->next;
		if (d->cb != NULL)
			d->cb(d->req, RAFT_CANCELED);
		free(d);
	}
	maybe_closed(r);
}

static void rio_close(struct raft_io *io, raft_io_close_cb cb)
{
	struct rio *r = io->impl;

	r->closing = true;
	r->close_cb = cb;
	send_held(r);
	env_timer_stop(r->config.env, &r->tick_timer);
	env_timer_stop(r->config.env, &r->deferred_timer);
	r->deferred_timer = env_timer_start(r->config.env, 0, close_later, r);
}

/* --- loading ----------------------------------------------------------------------- */

static int decode_conf(const void *data, size_t size, struct raft_configuration *conf)
{
	Drover__RaftRpc *rpc = drover__raft_rpc__unpack(NULL, size, data);
	int rv = 0;

	raft_configuration_init(conf);
	if (rpc == NULL)
		return RAFT_CORRUPT;
	for (size_t i = 0; rv == 0 && i < rpc->n_conf; i++)
		rv = raft_configuration_add(conf, rpc->conf[i]->id, rpc->conf[i]->address,
					    (int)rpc->conf[i]->role);
	drover__raft_rpc__free_unpacked(rpc, NULL);
	return rv;
}

/* Takes stored's parts. */
static int snapshot_for_raft(struct logdb_snapshot *stored, struct raft_snapshot **out)
{
	struct raft_snapshot *s = raft_calloc(1, sizeof(*s));
	int rv = RAFT_NOMEM;

	if (s == NULL)
		goto out;
	s->index = stored->index;
	s->term = stored->term;
	s->configuration_index = stored->conf_index;
	rv = decode_conf(stored->conf, stored->conf_size, &s->configuration);
	if (rv != 0)
		goto err_conf;
	rv = RAFT_NOMEM;
	s->bufs = raft_malloc(sizeof(*s->bufs));
	if (s->bufs == NULL)
		goto err_conf;
	s->n_bufs = 1;
	s->bufs[0].base = raft_malloc(stored->size + 1);
	if (s->bufs[0].base == NULL)
		goto err_bufs;
	memcpy(s->bufs[0].base, stored->data, stored->size);
	s->bufs[0].len = stored->size;
	*out = s;
	rv = 0;
	goto out;

err_bufs:
	raft_free(s->bufs);
err_conf:
	raft_configuration_close(&s->configuration);
	raft_free(s);
out:
	free((void *)(uintptr_t)stored->conf);
	free((void *)(uintptr_t)stored->data);
	return rv;
}

struct loading {
	struct raft_entry *entries;
	size_t n, size;
};

static int load_entry(const struct logdb_entry *e, void *data)
{
	struct loading *l = data;
	struct raft_entry *out;

	if (l->n == l->size) {
		size_t size = l->size == 0 ? 256 : l->size * 2;
		struct raft_entry *bigger = raft_realloc(l->entries, size * sizeof(*bigger));

		if (bigger == NULL)
			return -DR_ENOMEM;
		l->entries = bigger;
		l->size = size;
	}
	out = &l->entries[l->n];
	out->batch = raft_malloc(e->size + 1);
	if (out->batch == NULL)
		return -DR_ENOMEM;
	if (e->size > 0)
		memcpy(out->batch, e->data, e->size);
	out->term = e->term;
	out->type = e->type;
	out->buf.base = out->batch;
	out->buf.len = e->size;
	l->n++;
	return 0;
}

static int rio_load(struct raft_io *io, raft_term *term, raft_id *voted_for, struct raft_snapshot **snapshot,
		    raft_index *start_index, struct raft_entry *entries[], size_t *n_entries)
{
	struct rio *r = io->impl;
	struct dr_error err = DR_ERROR_INIT;
	struct logdb_snapshot stored;
	struct loading l = {.entries = NULL};
	uint64_t stored_term = 0, stored_vote = 0;
	int ret;

	*snapshot = NULL;
	ret = logdb_vote_get(r->config.log, &stored_term, &stored_vote, &err);
	if (ret < 0)
		goto failed;
	*term = stored_term;
	*voted_for = stored_vote;
	r->term = stored_term;
	ret = logdb_snapshot_get(r->config.log, &stored, &err);
	if (ret < 0)
		goto failed;
	if (ret == 1) {
		int rv = snapshot_for_raft(&stored, snapshot);

		if (rv != 0)
			return rv;
	}
	ret = logdb_entries(r->config.log, load_entry, &l, &err);
	if (ret < 0)
		goto failed;
	*start_index = logdb_first(r->config.log);
	*entries = l.entries;
	*n_entries = l.n;
	r->stored = logdb_last(r->config.log);
	r->next_index = r->stored + 1;
	return 0;

failed:
	snprintf(io->errmsg, sizeof(io->errmsg), "%.*s", (int)sizeof(io->errmsg) - 1, err.text);
	log_error("%s", err.text);
	return ret == -DR_ECORRUPT ? RAFT_CORRUPT : RAFT_IOERR;
}

static int rio_bootstrap(struct raft_io *io, const struct raft_configuration *conf)
{
	struct rio *r = io->impl;
	struct dr_error err = DR_ERROR_INIT;
	struct logdb_entry entry = {.index = 1, .term = 1, .type = RAFT_CHANGE};
	struct raft_buffer buf;
	int ret;

	if (logdb_last(r->config.log) != 0)
		return RAFT_CANTBOOTSTRAP;
	if (raft_configuration_encode(conf, &buf) != 0)
		return RAFT_NOMEM;
	entry.data = buf.base;
	entry.size = buf.len;
	ret = logdb_vote_set(r->config.log, 1, 0, &err);
	if (ret == 0)
		ret = logdb_begin(r->config.log, &err);
	if (ret == 0)
		ret = logdb_append(r->config.log, &entry, &err);
	if (ret == 0)
		ret = logdb_commit(r->config.log, &err);
	raft_free(buf.base);
	if (ret < 0) {
		logdb_rollback(r->config.log);
		log_error("%s", err.text);
		return RAFT_IOERR;
	}
	return 0;
}

/* libraft's own recovery is not ours: see cluster force-quorum (SAFETY R18). */
static int rio_recover(struct raft_io *io, const struct raft_configuration *conf)
{
	(void)io;
	(void)conf;
	return RAFT_INVALID;
}

/* --- running ----------------------------------------------------------------------- */

static void tick(void *data)
{
	struct rio *r = data;

	r->tick_timer = env_timer_start(r->config.env, r->tick_ms * 1000ull, tick, r);
	if (!r->failed)
		r->tick(r->io);
}

static int rio_run(struct raft_io *io, unsigned msecs, raft_io_tick_cb tick_cb, raft_io_recv_cb recv_cb)
{
	struct rio *r = io->impl;

	r->tick_ms = msecs;
	r->tick = tick_cb;
	r->recv = recv_cb;
	r->tick_timer = env_timer_start(r->config.env, msecs * 1000ull, tick, r);
	return 0;
}

/* Up to where this log is the sender's, if libraft finds no fault with the message. */
static uint64_t matching_after(const struct raft_message *msg)
{
	if (msg->type == RAFT_IO_INSTALL_SNAPSHOT)
		return msg->install_snapshot.last_index;
	return msg->append_entries.prev_log_index + msg->append_entries.n_entries;
}

void rio_receive(struct raft_io *io, uint64_t from, const Drover__RaftRpc *rpc)
{
	struct rio *r = io->impl;
	struct dr_error err = DR_ERROR_INIT;
	struct raft_message msg;
	int ret;

	if (r->recv == NULL || r->closing || r->failed)
		return;
	ret = raft_rpc_unpack(rpc, from, &msg, &err);
	if (ret < 0) {
		log_warning("member %llu: %s; dropped", (unsigned long long)from,
			    err.code != DR_OK ? err.text : dr_err_name(ret));
		return;
	}
	r->answering = msg.type == RAFT_IO_APPEND_ENTRIES || msg.type == RAFT_IO_INSTALL_SNAPSHOT;
	if (r->answering)
		r->matching = matching_after(&msg);
	r->recv(io, &msg);
	send_held(r);
	r->answering = false;
}

static bool says_more(const struct held *h, const struct raft_message *msg)
{
	const struct raft_append_entries_result *result = &msg->append_entries_result;

	return h->accepts_term != 0 && msg->type == RAFT_IO_APPEND_ENTRIES_RESULT && result->rejected == 0 &&
	       result->term == h->accepts_term && result->last_log_index >= h->accepts_index && h->n == 1 &&
	       h->to[0] == msg->server_id;
}

/* Takes bytes. */
static void hold(struct rio *r, const struct raft_message *msg, uint8_t *bytes, size_t size)
{
	struct held *h = &r->held;
	bool accepts = msg->type == RAFT_IO_APPEND_ENTRIES_RESULT && msg->append_entries_result.rejected == 0;

	if (h->bytes != NULL && h->size == size && h->n < RECEIVERS_MAX &&
	    memcmp(h->bytes, bytes, size) == 0) {
		free(bytes);
	} else {
		if (!says_more(h, msg))
			send_held(r);
		free(h->bytes);
		*h = (struct held){.bytes = bytes, .size = size};
		h->accepts_term = accepts ? msg->append_entries_result.term : 0;
		h->accepts_index = accepts ? msg->append_entries_result.last_log_index : 0;
	}
	h->to[h->n++] = msg->server_id;
}

static void run_deferred(void *data)
{
	struct rio *r = data;
	struct deferred *d = r->deferred;
	struct deferred *next;

	r->deferred_timer = 0;
	send_held(r);
	r->deferred = NULL;
	r->deferred_tail = &r->deferred;
	for (; d != NULL; d = next) {
		next = d->next;
		if (d->cb != NULL)
			d->cb(d->req, 0);
		free(d);
	}
}

static bool is_about_votes(const struct raft_message *msg)
{
	return msg->type == RAFT_IO_REQUEST_VOTE || msg->type == RAFT_IO_REQUEST_VOTE_RESULT;
}

/*
 * libraft 0.15 answers with the end of its log, where Raft wants the last entry that it has compared with the
 * leader's. What lies beyond may be another leader's, and this one would count it as its own entries: it
 * would commit, and a client be answered, what a single member has. So:
 *   - an answer names nothing beyond the request that it answers;
 *   - nothing that is not on the disk yet: a snapshot whose last entry is still being stored libraft calls
 *     stored, and a leader would commit what a crash can take back;
 *   - none is given when entries of an earlier term's leader are stored: the present one would take the
 *     answer for one to itself. It asks again with its next heartbeat.
 * False: not to be sent.
 */
static bool mend_answer(const struct rio *r, struct raft_message *msg)
{
	struct raft_append_entries_result *result = &msg->append_entries_result;

	if (msg->type != RAFT_IO_APPEND_ENTRIES_RESULT || result->rejected != 0)
		return true;
	if (r->answering && result->last_log_index > r->matching)
		result->last_log_index = r->matching;
	if (result->last_log_index > r->stored)
		result->last_log_index = r->stored;
	return !r->late;
}

static int rio_send(struct raft_io *io, struct raft_io_send *req, const struct raft_message *message,
		    raft_io_send_cb cb)
{
	struct rio *r = io->impl;
	struct raft_message mended = *message;
	const struct raft_message *msg = &mended;
	struct deferred *d = calloc(1, sizeof(*d));
	uint8_t *bytes;
	size_t size;

	if (d == NULL)
		return RAFT_NOMEM;
	if (!r->failed && mend_answer(r, &mended) && (!r->mute || !is_about_votes(msg))) {
		bytes = raft_rpc_pack(msg, r->id, r->address, r->config.cluster_uuid, r->config.incarnation,
				      &size);
		if (bytes == NULL) {
			free(d);
			return RAFT_NOMEM;
		}
		hold(r, msg, bytes, size);
	}
	req->cb = cb;
	d->req = req;
	d->cb = cb;
	*r->deferred_tail = d;
	r->deferred_tail = &d->next;
	if (r->deferred_timer == 0)
		r->deferred_timer = env_timer_start(r->config.env, 0, run_deferred, r);
	return 0;
}

/*
 * Like a failed append: the writer's on_fatal ends this process, and until then nothing comes in or goes out.
 * libraft does not hear of it: 0.15 crashes when it can't store its own vote at a hand-over (it calls itself
 * a follower again, and takes what the candidate has kept for the address of its leader).
 */
static int stored(struct rio *r, int ret)
{
	if (ret < 0)
		r->failed = true;
	return 0;
}

static int rio_set_term(struct raft_io *io, raft_term term)
{
	struct rio *r = io->impl;
	int ret = logwriter_vote(r->config.writer, term, 0);

	if (ret == 0)
		r->term = term;
	return stored(r, ret);
}

static int rio_set_vote(struct raft_io *io, raft_id server_id)
{
	struct rio *r = io->impl;

	if (DR_MUTANT(vote_not_kept))
		return 0;
	return stored(r, logwriter_vote(r->config.writer, r->term, server_id));
}

struct append {
	struct rio *r;
	struct raft_io_append *req;
	uint64_t term; /* in which it was asked for */
	uint64_t last; /* entry */
};

static void append_done(void *data, int status)
{
	struct append *a = data;
	struct rio *r = a->r;

	r->in_flight--;
	/* After a failed append nothing is true any more (SAFETY R15): the writer's on_fatal ends this
	 * process. libraft does not hear of it: 0.15 crashes when it takes back one of several appends. */
	if (status == 0) {
		r->stored = a->last;
		r->late = a->term != r->term;
		a->req->cb(a->req, 0);
		if (r->in_flight == 0)
			send_held(r);
		r->late = false;
	}
	free(a);
	maybe_closed(r);
}

static int rio_append(struct raft_io *io, struct raft_io_append *req, const struct raft_entry entries[],
		      unsigned n, raft_io_append_cb cb)
{
	struct rio *r = io->impl;
	DR_AUTO_FREE struct logdb_entry *out = calloc(n, sizeof(*out));
	struct append *a = calloc(1, sizeof(*a));

	if (out == NULL || a == NULL) {
		free(a);
		return RAFT_NOMEM;
	}
	for (unsigned i = 0; i < n; i++) {
		out[i].index = r->next_index + i;
		out[i].term = entries[i].term;
		out[i].type = entries[i].type;
		out[i].data = entries[i].buf.base;
		out[i].size = entries[i].buf.len;
	}
	a->r = r;
	a->req = req;
	a->term = r->term;
	a->last = r->next_index + n - 1;
	req->cb = cb;
	if (logwriter_append(r->config.writer, out, n, append_done, a) < 0) {
		free(a);
		return RAFT_NOMEM;
	}
	r->next_index += n;
	r->in_flight++;
	return 0;
}

static int rio_truncate(struct raft_io *io, raft_index index)
{
	struct rio *r = io->impl;

	if (logwriter_truncate(r->config.writer, index) < 0)
		return RAFT_NOMEM;
	r->next_index = index;
	if (r->stored >= index)
		r->stored = index - 1;
	return 0;
}

struct put {
	struct rio *r;
	struct raft_io_snapshot_put *req;
	bool replaces_log; /* it came from the leader */
	struct logdb_snapshot snapshot;
	void *conf;
	uint8_t *joined;
};

static void put_done(void *data, int status)
{
	struct put *p = data;
	struct rio *r = p->r;

	/* libraft frees a batch of entries once for each send that still holds a part of it, when the
	 * snapshot has taken the batch out of its log: what was sent must be over before. */
	if (!r->closing && r->deferred != NULL) {
		env_timer_stop(r->config.env, &r->deferred_timer);
		run_deferred(r);
	}
	r->in_flight--;
	if (status == 0 && p->replaces_log)
		r->stored = p->snapshot.index;
	p->req->cb(p->req, status == 0 ? 0 : RAFT_IOERR);
	free(p->conf);
	free(p->joined);
	free(p);
	maybe_closed(r);
}

static int rio_snapshot_put(struct raft_io *io, unsigned trailing, struct raft_io_snapshot_put *req,
			    const struct raft_snapshot *snapshot, raft_io_snapshot_put_cb cb)
{
	struct rio *r = io->impl;
	struct put *p = calloc(1, sizeof(*p));
	size_t size = 0;

	if (p == NULL)
		return RAFT_NOMEM;
	for (unsigned i = 0; i < snapshot->n_bufs; i++)
		size += snapshot->bufs[i].len;
	p->conf = raft_rpc_pack_conf(&snapshot->configuration, &p->snapshot.conf_size);
	p->joined = malloc(size + 1);
	if (p->conf == NULL || p->joined == NULL)
		goto no_memory;
	size = 0;
	for (unsigned i = 0; i < snapshot->n_bufs; i++) {
		memcpy(p->joined + size, snapshot->bufs[i].base, snapshot->bufs[i].len);
		size += snapshot->bufs[i].len;
	}
	p->r = r;
	p->req = req;
	req->cb = cb;
	p->snapshot.index = snapshot->index;
	p->snapshot.term = snapshot->term;
	p->snapshot.conf_index = snapshot->configuration_index;
	p->snapshot.conf = p->conf;
	p->snapshot.data = p->joined;
	p->snapshot.size = size;
	p->replaces_log = trailing == 0;
	if (logwriter_snapshot_put(r->config.writer, &p->snapshot, trailing, put_done, p) < 0)
		goto no_memory;
	if (p->replaces_log)
		r->next_index = snapshot->index + 1;
	r->in_flight++;
	return 0;

no_memory:
	free(p->conf);
	free(p->joined);
	free(p);
	return RAFT_NOMEM;
}

struct get {
	struct rio *r;
	struct raft_io_snapshot_get *req;
};

static void get_done(void *data, int status, struct logdb_snapshot *stored)
{
	struct get *g = data;
	struct rio *r = g->r;
	struct raft_snapshot *s = NULL;
	int rv = status != 0 || stored == NULL ? RAFT_IOERR : snapshot_for_raft(stored, &s);

	r->in_flight--;
	g->req->cb(g->req, s, rv);
	free(g);
	maybe_closed(r);
}

static int rio_snapshot_get(struct raft_io *io, struct raft_io_snapshot_get *req, raft_io_snapshot_get_cb cb)
{
	struct rio *r = io->impl;
	struct get *g = calloc(1, sizeof(*g));

	if (g == NULL)
		return RAFT_NOMEM;
	g->r = r;
	g->req = req;
	req->cb = cb;
	if (logwriter_snapshot_get(r->config.writer, get_done, g) < 0) {
		free(g);
		return RAFT_NOMEM;
	}
	r->in_flight++;
	return 0;
}

static raft_time rio_time(struct raft_io *io)
{
	struct rio *r = io->impl;

	return env_now_us(r->config.env) / 1000;
}

static int rio_random(struct raft_io *io, int min, int max)
{
	struct rio *r = io->impl;
	uint32_t value;

	env_random(r->config.env, &value, sizeof(value));
	return min + (int)(value % (uint32_t)(max - min + 1));
}

int rio_init(struct raft_io *io, const struct rio_config *config)
{
	struct rio *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return -DR_ENOMEM;
	r->io = io;
	r->config = *config;
	r->deferred_tail = &r->deferred;
	*io = (struct raft_io){
		.version = 1,
		.impl = r,
		.init = rio_start_io,
		.close = rio_close,
		.load = rio_load,
		.start = rio_run,
		.bootstrap = rio_bootstrap,
		.recover = rio_recover,
		.set_term = rio_set_term,
		.set_vote = rio_set_vote,
		.send = rio_send,
		.append = rio_append,
		.truncate = rio_truncate,
		.snapshot_put = rio_snapshot_put,
		.snapshot_get = rio_snapshot_get,
		.time = rio_time,
		.random = rio_random,
	};
	return 0;
}

void rio_flush(struct raft_io *io)
{
	send_held(io->impl);
}

bool rio_busy(const struct raft_io *io)
{
	const struct rio *r = io->impl;

	return r->in_flight > 0 || r->deferred != NULL;
}

void rio_mute(struct raft_io *io, bool mute)
{
	struct rio *r = io->impl;

	r->mute = mute;
}

uint64_t rio_term(const struct raft_io *io)
{
	const struct rio *r = io->impl;

	return r->term;
}

void rio_free(struct raft_io *io)
{
	struct rio *r = io->impl;

	if (r == NULL)
		return;
	env_timer_stop(r->config.env, &r->tick_timer);
	env_timer_stop(r->config.env, &r->deferred_timer);
	free(r->held.bytes);
	free(r->address);
	free(r);
	io->impl = NULL;
}
