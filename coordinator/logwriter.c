#include "coordinator/logwriter.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"

enum op_kind { OP_APPEND, OP_TRUNCATE, OP_SNAPSHOT_PUT, OP_SNAPSHOT_GET, OP_SEEN, OP_VOTE };

struct op {
	enum op_kind kind;
	struct op *next;
	int status;
	bool waited_for; /* the main loop waits; no completion */
	bool finished;
	/* What it works on */
	struct logdb_entry *entries;
	unsigned n;
	uint64_t index, term, vote;
	struct logdb_snapshot snapshot;
	unsigned trailing;
	struct logdb_seen seen;
	/* Whom to tell */
	logwriter_done_fn done;
	logwriter_snapshot_fn snapshot_done;
	void *data;
};

struct queue {
	struct op *head;
	struct op **tail;
};

struct logwriter {
	qb_loop_t *loop;
	struct logdb *log;
	logwriter_fatal_fn on_fatal;
	void *data;
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t work;	/* something is queued, or stop */
	pthread_cond_t settled; /* an operation that is waited for is finished */
	struct queue waiting;
	struct queue finished;
	struct dr_error error; /* the first one, final */
	bool fatal_told;
	bool stop;
	int event_fd;
};

static void queue_init(struct queue *q)
{
	q->head = NULL;
	q->tail = &q->head;
}

static void queue_put(struct queue *q, struct op *op)
{
	op->next = NULL;
	*q->tail = op;
	q->tail = &op->next;
}

static struct op *queue_take_all(struct queue *q)
{
	struct op *all = q->head;

	queue_init(q);
	return all;
}

static void op_free(struct op *op)
{
	free(op->entries);
	free(op);
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
	return dr_error_set(err, DR_EBUG, "log writer: unknown operation");
}

/* One transaction for all of them. */
static int run_batch(struct logwriter *w, struct op *batch, struct dr_error *err)
{
	int ret = logdb_begin(w->log, err);

	for (struct op *op = batch; ret == 0 && op != NULL; op = op->next)
		ret = op_run(w, op, err);
	if (ret == 0)
		ret = logdb_commit(w->log, err);
	if (ret < 0)
		logdb_rollback(w->log);
	return ret;
}

static void finish(struct logwriter *w, struct op *batch, int status)
{
	struct op *next;

	for (struct op *op = batch; op != NULL; op = next) {
		next = op->next;
		op->status = status;
		op->finished = true;
		if (!op->waited_for)
			queue_put(&w->finished, op);
	}
	pthread_cond_broadcast(&w->settled);
	if (eventfd_write(w->event_fd, 1) != 0)
		abort(); /* cannot happen on a valid eventfd; without it the loop would never learn */
}

/* The batch, if there is one, and what commits leave to be settled soon. settle_at: when, or zero. */
static int work_off(struct logwriter *w, struct op *batch, struct timespec *settle_at, struct dr_error *err)
{
	struct timespec now;
	int ret = batch != NULL ? run_batch(w, batch, err) : 0;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (ret < 0 || !logdb_unsettled(w->log)) {
		*settle_at = (struct timespec){0};
	} else if (settle_at->tv_sec == 0) {
		*settle_at = now;
		settle_at->tv_nsec += LOGDB_SETTLE_MS * 1000000L;
		settle_at->tv_sec += settle_at->tv_nsec / 1000000000;
		settle_at->tv_nsec %= 1000000000;
	} else if (now.tv_sec > settle_at->tv_sec ||
		   (now.tv_sec == settle_at->tv_sec && now.tv_nsec >= settle_at->tv_nsec)) {
		*settle_at = (struct timespec){0};
		ret = logdb_settle(w->log, err);
	}
	return ret;
}

/* Something is queued, something is to be settled, or the end. */
static void wait_for_work(struct logwriter *w, const struct timespec *settle_at)
{
	int rc = 0;

	while (w->waiting.head == NULL && !w->stop && rc != ETIMEDOUT)
		rc = settle_at->tv_sec == 0 ? pthread_cond_wait(&w->work, &w->mutex)
					    : pthread_cond_timedwait(&w->work, &w->mutex, settle_at);
}

static void *thread_main(void *data)
{
	struct logwriter *w = data;
	struct timespec settle_at = {0};
	struct op *batch;

	pthread_mutex_lock(&w->mutex);
	do {
		struct dr_error err = DR_ERROR_INIT;
		int status;

		wait_for_work(w, &settle_at);
		batch = queue_take_all(&w->waiting);
		status = w->error.code != DR_OK ? -(int)w->error.code : 0;
		if (status == 0) {
			pthread_mutex_unlock(&w->mutex);
			status = work_off(w, batch, &settle_at, &err);
			pthread_mutex_lock(&w->mutex);
			if (status < 0)
				w->error = err;
		}
		if (batch != NULL || status < 0)
			finish(w, batch, status);
	} while (batch != NULL || !w->stop);
	pthread_mutex_unlock(&w->mutex);
	return NULL;
}

static void complete(struct op *op)
{
	if (op->kind == OP_SNAPSHOT_GET)
		op->snapshot_done(op->data, op->status, op->status == 0 && op->n == 1 ? &op->snapshot : NULL);
	else if (op->done != NULL)
		op->done(op->data, op->status);
	op_free(op);
}

static void run_completions(struct logwriter *w)
{
	struct dr_error error;
	struct op *op, *next;
	bool tell;

	pthread_mutex_lock(&w->mutex);
	op = queue_take_all(&w->finished);
	error = w->error;
	tell = error.code != DR_OK && !w->fatal_told;
	w->fatal_told = w->fatal_told || tell;
	pthread_mutex_unlock(&w->mutex);
	for (; op != NULL; op = next) {
		next = op->next;
		complete(op);
	}
	if (tell)
		w->on_fatal(w->data, &error);
}

static int32_t on_event(int32_t fd, int32_t revents, void *data)
{
	eventfd_t n;

	(void)revents;
	if (eventfd_read(fd, &n) != 0 && errno != EAGAIN)
		log_error("log writer: eventfd: %s", strerror(errno));
	run_completions(data);
	return 0;
}

struct logwriter *logwriter_new(qb_loop_t *loop, struct logdb *log, logwriter_fatal_fn on_fatal, void *data,
				struct dr_error *err)
{
	struct logwriter *w = calloc(1, sizeof(*w));
	pthread_condattr_t monotonic;
	int rc;

	if (w == NULL) {
		dr_error_set(err, DR_ENOMEM, "log writer: out of memory");
		return NULL;
	}
	w->loop = loop;
	w->log = log;
	w->on_fatal = on_fatal;
	w->data = data;
	queue_init(&w->waiting);
	queue_init(&w->finished);
	w->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->event_fd < 0) {
		dr_error_errno(err, DR_EIO, errno, "log writer: eventfd");
		free(w);
		return NULL;
	}
	pthread_mutex_init(&w->mutex, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&w->work, &monotonic);
	pthread_condattr_destroy(&monotonic);
	pthread_cond_init(&w->settled, NULL);
	rc = pthread_create(&w->thread, NULL, thread_main, w);
	if (rc != 0 || qb_loop_poll_add(loop, QB_LOOP_HIGH, w->event_fd, POLLIN, w, on_event) != 0)
		abort(); /* no thread at start: nothing is open yet that could be lost */
	return w;
}

void logwriter_free(struct logwriter *w)
{
	if (w == NULL)
		return;
	pthread_mutex_lock(&w->mutex);
	w->stop = true;
	pthread_cond_signal(&w->work);
	pthread_mutex_unlock(&w->mutex);
	pthread_join(w->thread, NULL);
	w->fatal_told = true;
	run_completions(w);
	qb_loop_poll_del(w->loop, w->event_fd);
	close(w->event_fd);
	logdb_close(w->log);
	pthread_cond_destroy(&w->work);
	pthread_cond_destroy(&w->settled);
	pthread_mutex_destroy(&w->mutex);
	free(w);
}

static void submit(struct logwriter *w, struct op *op)
{
	pthread_mutex_lock(&w->mutex);
	queue_put(&w->waiting, op);
	pthread_cond_signal(&w->work);
	pthread_mutex_unlock(&w->mutex);
}

static struct op *op_new(enum op_kind kind, void *data)
{
	struct op *op = calloc(1, sizeof(*op));

	if (op != NULL) {
		op->kind = kind;
		op->data = data;
	}
	return op;
}

int logwriter_append(struct logwriter *w, const struct logdb_entry *entries, unsigned n,
		     logwriter_done_fn done, void *data)
{
	struct op *op = op_new(OP_APPEND, data);

	if (op == NULL)
		return -DR_ENOMEM;
	op->entries = calloc(n, sizeof(*entries));
	if (op->entries == NULL) {
		op_free(op);
		return -DR_ENOMEM;
	}
	memcpy(op->entries, entries, n * sizeof(*entries));
	op->n = n;
	op->done = done;
	submit(w, op);
	return 0;
}

int logwriter_truncate(struct logwriter *w, uint64_t index)
{
	struct op *op = op_new(OP_TRUNCATE, NULL);

	if (op == NULL)
		return -DR_ENOMEM;
	op->index = index;
	submit(w, op);
	return 0;
}

int logwriter_snapshot_put(struct logwriter *w, const struct logdb_snapshot *snapshot, unsigned trailing,
			   logwriter_done_fn done, void *data)
{
	struct op *op = op_new(OP_SNAPSHOT_PUT, data);

	if (op == NULL)
		return -DR_ENOMEM;
	op->snapshot = *snapshot;
	op->trailing = trailing;
	op->done = done;
	submit(w, op);
	return 0;
}

int logwriter_snapshot_get(struct logwriter *w, logwriter_snapshot_fn done, void *data)
{
	struct op *op = op_new(OP_SNAPSHOT_GET, data);

	if (op == NULL)
		return -DR_ENOMEM;
	op->snapshot_done = done;
	submit(w, op);
	return 0;
}

int logwriter_seen(struct logwriter *w, const struct logdb_seen *seen)
{
	struct op *op = op_new(OP_SEEN, NULL);

	if (op == NULL)
		return -DR_ENOMEM;
	op->seen = *seen;
	/* The thread is not woken: it finds this beside the next thing to do. */
	pthread_mutex_lock(&w->mutex);
	queue_put(&w->waiting, op);
	pthread_mutex_unlock(&w->mutex);
	return 0;
}

int logwriter_vote(struct logwriter *w, uint64_t term, uint64_t vote)
{
	struct op op = {.kind = OP_VOTE, .term = term, .vote = vote, .waited_for = true};

	submit(w, &op);
	pthread_mutex_lock(&w->mutex);
	while (!op.finished)
		pthread_cond_wait(&w->settled, &w->mutex);
	pthread_mutex_unlock(&w->mutex);
	return op.status;
}
