/*
 * coordinator/logwriter.h without a thread: the same queue and group commit; a transaction happens whole,
 * in one event, a while after it was asked for, and its completions come in another one.
 */
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "coordinator/logwriter.h"

enum op_kind { OP_APPEND, OP_TRUNCATE, OP_SNAPSHOT_PUT, OP_SNAPSHOT_GET, OP_SEEN, OP_VOTE };

struct op {
	enum op_kind kind;
	struct op *next;
	int status;
	struct logdb_entry *entries;
	unsigned n;
	uint64_t index, term, vote;
	struct logdb_snapshot snapshot;
	unsigned trailing;
	struct logdb_seen seen;
	logwriter_done_fn done;
	logwriter_snapshot_fn snapshot_done;
	void *data;
};

struct logwriter {
	struct coord *coord;
	struct logdb *log;
	logwriter_fatal_fn on_fatal;
	void *data;
	struct op *waiting, **waiting_tail;
	struct op *finished, **finished_tail;
	struct dr_error error; /* the first one, final */
	bool fatal_told;
	bool busy;
	bool settling;
	bool freed;
};

static struct op *op_new(enum op_kind kind, void *data)
{
	struct op *op = calloc(1, sizeof(*op));

	if (op == NULL)
		abort();
	op->kind = kind;
	op->data = data;
	return op;
}

static int op_run(struct logwriter *w, struct op *op, struct dr_error *err)
{
	int ret = 0;

	switch (op->kind) {
	case OP_APPEND:
		for (unsigned i = 0; ret == 0 && i < op->n; i++)
			ret = logdb_append(w->log, &op->entries[i], err);
		return ret;
	case OP_TRUNCATE:
		return logdb_truncate(w->log, op->index, err);
	case OP_SNAPSHOT_PUT:
		w->coord->sim->cluster->result->snapshots++;
		return logdb_snapshot_put(w->log, &op->snapshot, op->trailing, err);
	case OP_SNAPSHOT_GET:
		ret = logdb_snapshot_get(w->log, &op->snapshot, err);
		op->n = ret > 0 ? 1 : 0;
		return ret < 0 ? ret : 0;
	case OP_SEEN:
		return logdb_seen_put(w->log, &op->seen, err);
	case OP_VOTE:
		return logdb_vote_set(w->log, op->term, op->vote, err);
	}
	return -DR_EBUG;
}

static void run_batch(struct logwriter *w)
{
	struct op *batch = w->waiting;
	struct dr_error err = DR_ERROR_INIT;
	int ret = w->error.code != DR_OK ? -(int)w->error.code : 0;

	w->waiting = NULL;
	w->waiting_tail = &w->waiting;
	if (batch == NULL)
		return;
	if (ret == 0) {
		ret = logdb_begin(w->log, &err);
		for (struct op *op = batch; ret == 0 && op != NULL; op = op->next)
			ret = op_run(w, op, &err);
		if (ret == 0)
			ret = logdb_commit(w->log, &err);
		if (ret == 0)
			coord_voted(w->coord);
		if (ret < 0) {
			logdb_rollback(w->log);
			w->error = err;
		}
	}
	for (struct op *op = batch; op != NULL; op = op->next)
		op->status = ret;
	*w->finished_tail = batch;
	while (*w->finished_tail != NULL)
		w->finished_tail = &(*w->finished_tail)->next;
}

static void complete(struct logwriter *w)
{
	struct op *op = w->finished;
	struct op *next;

	w->finished = NULL;
	w->finished_tail = &w->finished;
	for (; op != NULL; op = next) {
		next = op->next;
		if (op->kind == OP_SNAPSHOT_GET)
			op->snapshot_done(op->data, op->status,
					  op->status == 0 && op->n == 1 ? &op->snapshot : NULL);
		else if (op->done != NULL)
			op->done(op->data, op->status);
		free(op->entries);
		free(op);
	}
	if (w->error.code != DR_OK && !w->fatal_told) {
		w->fatal_told = true;
		w->on_fatal(w->data, &w->error);
	}
}

static void ev_complete(struct sim *sim, struct sim_event *ev)
{
	struct logwriter *w = ev->obj;

	(void)sim;
	if (!w->freed)
		complete(w);
}

static void kick(struct logwriter *w);

static void ev_settle(struct sim *sim, struct sim_event *ev)
{
	struct logwriter *w = ev->obj;
	struct dr_error err = DR_ERROR_INIT;

	(void)sim;
	w->settling = false;
	if (w->freed || w->error.code != DR_OK || !logdb_unsettled(w->log) || logdb_settle(w->log, &err) == 0)
		return;
	w->error = err;
	complete(w);
}

static void ev_disk(struct sim *sim, struct sim_event *ev)
{
	struct logwriter *w = ev->obj;

	if (w->freed)
		return;
	w->busy = false;
	run_batch(w);
	if (!w->settling && logdb_unsettled(w->log)) {
		w->settling = true;
		sim_post(sim, LOGDB_SETTLE_MS * SIM_MS, &w->coord->proc, ev_settle, w);
	}
	sim_post(sim, sim_between(sim, 20, 200), &w->coord->proc, ev_complete, w);
	if (w->waiting != NULL)
		kick(w);
}

static uint64_t disk_time(struct logwriter *w)
{
	struct sim *sim = w->coord->sim;

	return sim_between(sim, 300, 2500) + w->coord->disk.slow_us;
}

static void kick(struct logwriter *w)
{
	if (w->busy)
		return;
	w->busy = true;
	sim_post(w->coord->sim, disk_time(w), &w->coord->proc, ev_disk, w);
}

static int submit(struct logwriter *w, struct op *op)
{
	*w->waiting_tail = op;
	w->waiting_tail = &op->next;
	kick(w);
	return 0;
}

struct logwriter *logwriter_new(qb_loop_t *loop, struct logdb *log, logwriter_fatal_fn on_fatal, void *data,
				struct dr_error *err)
{
	struct logwriter *w = calloc(1, sizeof(*w));

	(void)err;
	if (w == NULL)
		abort();
	w->coord = (struct coord *)loop;
	w->log = log;
	w->on_fatal = on_fatal;
	w->data = data;
	w->waiting_tail = &w->waiting;
	w->finished_tail = &w->finished;
	return w;
}

void logwriter_free(struct logwriter *w)
{
	if (w == NULL)
		return;
	run_batch(w);
	w->fatal_told = true;
	complete(w);
	logdb_close(w->log);
	w->freed = true;
}

int logwriter_append(struct logwriter *w, const struct logdb_entry *entries, unsigned n,
		     logwriter_done_fn done, void *data)
{
	struct op *op = op_new(OP_APPEND, data);

	op->entries = calloc(n, sizeof(*entries));
	if (op->entries == NULL)
		abort();
	memcpy(op->entries, entries, n * sizeof(*entries));
	op->n = n;
	op->done = done;
	return submit(w, op);
}

int logwriter_truncate(struct logwriter *w, uint64_t index)
{
	struct op *op = op_new(OP_TRUNCATE, NULL);

	op->index = index;
	return submit(w, op);
}

int logwriter_snapshot_put(struct logwriter *w, const struct logdb_snapshot *snapshot, unsigned trailing,
			   logwriter_done_fn done, void *data)
{
	struct op *op = op_new(OP_SNAPSHOT_PUT, data);

	op->snapshot = *snapshot;
	op->trailing = trailing;
	op->done = done;
	return submit(w, op);
}

int logwriter_snapshot_get(struct logwriter *w, logwriter_snapshot_fn done, void *data)
{
	struct op *op = op_new(OP_SNAPSHOT_GET, data);

	op->snapshot_done = done;
	return submit(w, op);
}

/* Nothing is woken for it. */
int logwriter_seen(struct logwriter *w, const struct logdb_seen *seen)
{
	struct op *op = op_new(OP_SEEN, NULL);

	op->seen = *seen;
	*w->waiting_tail = op;
	w->waiting_tail = &op->next;
	return 0;
}

/* The loop stands still meanwhile: everything else of this process waits as long. */
int logwriter_vote(struct logwriter *w, uint64_t term, uint64_t vote)
{
	struct op *op = op_new(OP_VOTE, NULL);
	uint64_t until = w->coord->sim->now + disk_time(w);

	op->term = term;
	op->vote = vote;
	*w->waiting_tail = op;
	w->waiting_tail = &op->next;
	run_batch(w);
	sim_post(w->coord->sim, 1, &w->coord->proc, ev_complete, w);
	if (w->coord->disk.slow_us > 0 && w->coord->proc.stopped_until < until)
		w->coord->proc.stopped_until = until;
	return w->error.code != DR_OK ? -(int)w->error.code : 0;
}
