#include "agent/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/launch.h"
#include "agent/nonce.h"
#include "common/cleanup.h"
#include "common/log.h"

#define ANSWER_MAX (1u << 20)

/* What the child writes, followed by a packed MoveFact that holds the proofs. */
struct answer {
	int32_t rc;
	char text[DR_ERROR_TEXT];
};

struct storage_job {
	struct storage_job *next;
	qb_loop_t *loop;
	struct env *env;
	enum storage_what what;
	storage_fn fn; /* NULL: forgotten, or told */
	void *data;
	pid_t pid;
	int pidfd;
	int pipe;
	uint64_t most_us;
	uint64_t timer;
	uint8_t *bytes; /* of the answer so far */
	size_t n_bytes;
	atomic_uint *disk; /* shared with the child: which one it is at */
	char **paths;	   /* of the disks */
	size_t n_paths;
	uint64_t move;
	uint32_t attempt;
};

static struct storage_job *jobs; /* also those whose children hang beyond their deadline */
static atomic_uint *child_disk;	 /* in a child only */

void storage_note_disk(size_t disk)
{
	if (child_disk != NULL)
		atomic_store(child_disk, (unsigned)disk);
}

/* ------------------------------------------------ the child */

static void write_all(int fd, const void *data, size_t size)
{
	const char *p = data;

	while (size > 0) {
		ssize_t n = write(fd, p, size);

		if (n < 0 && errno != EINTR)
			_exit(1);
		if (n > 0) {
			p += n;
			size -= (size_t)n;
		}
	}
}

static _Noreturn void child_run(const struct storage_job *job, const Drover__MoveOrder *order, int out)
{
	Drover__MoveFact fact = DROVER__MOVE_FACT__INIT;
	struct dr_error err = DR_ERROR_INIT;
	struct answer answer = {0};
	uint8_t *packed;
	size_t size;

	/* Nothing of the agent's may stay open for as long as this hangs: locks, listeners, gates of other
	 * children. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "drover-storage");
	signal(SIGTERM, SIG_DFL);
	if (dup2(out, STDERR_FILENO + 1) < 0 || close_range(STDERR_FILENO + 2, ~0u, 0) != 0)
		_exit(1);
	out = STDERR_FILENO + 1;
	child_disk = job->disk;
	switch (job->what) {
	case STORAGE_WRITE:
		answer.rc = nonces_write(order, job->env, &fact.proofs, &fact.n_proofs, &err);
		break;
	case STORAGE_CHECK:
		answer.rc = nonces_check(order, &err);
		break;
	case STORAGE_REMOVE:
		answer.rc = nonces_remove(order);
		break;
	case STORAGE_FILES:
		answer.rc = launch_check_files(order->spec, &err);
		break;
	case STORAGE_WHATS:
		answer.rc = -DR_EBUG;
		break;
	}
	memcpy(answer.text, err.text, sizeof(answer.text));
	size = drover__move_fact__get_packed_size(&fact);
	packed = malloc(size + 1);
	if (packed == NULL)
		_exit(1);
	drover__move_fact__pack(&fact, packed);
	write_all(out, &answer, sizeof(answer));
	write_all(out, packed, size);
	_exit(0);
}

/* ------------------------------------------------ the agent */

static void job_free(struct storage_job *job)
{
	struct storage_job **at = &jobs;

	while (*at != NULL && *at != job)
		at = &(*at)->next;
	if (*at != NULL)
		*at = job->next;
	env_timer_stop(job->env, &job->timer);
	if (job->pidfd >= 0) {
		qb_loop_poll_del(job->loop, job->pidfd);
		close(job->pidfd);
	}
	if (job->pipe >= 0) {
		qb_loop_poll_del(job->loop, job->pipe);
		close(job->pipe);
	}
	if (job->disk != NULL)
		munmap(job->disk, sizeof(*job->disk));
	for (size_t i = 0; i < job->n_paths; i++)
		free(job->paths[i]);
	free(job->paths);
	free(job->bytes);
	free(job);
}

static void tell(struct storage_job *job, const struct storage_result *result)
{
	storage_fn fn = job->fn;

	job->fn = NULL;
	if (fn != NULL)
		fn(job->what, result, job->data);
}

static const char *disk_name(const struct storage_job *job)
{
	unsigned disk = atomic_load(job->disk);

	return disk < job->n_paths ? job->paths[disk] : "a file of the VM";
}

static void tell_failure(struct storage_job *job, const char *how)
{
	struct dr_error err = DR_ERROR_INIT;
	struct storage_result result = {.rc = -DR_EIO};

	dr_error_set(&err, DR_EIO, "%s: %s", disk_name(job), how);
	result.text = err.text;
	tell(job, &result);
}

/* What has come; false at its end. */
static bool drain_pipe(struct storage_job *job)
{
	for (;;) {
		uint8_t chunk[4096];
		ssize_t n = read(job->pipe, chunk, sizeof(chunk));
		uint8_t *bytes;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return true;
		if (n <= 0 || job->n_bytes + (size_t)n > ANSWER_MAX)
			return false;
		bytes = realloc(job->bytes, job->n_bytes + (size_t)n);
		if (bytes == NULL)
			return false;
		memcpy(bytes + job->n_bytes, chunk, (size_t)n);
		job->bytes = bytes;
		job->n_bytes += (size_t)n;
	}
}

static int32_t on_pipe(int32_t fd, int32_t revents, void *data)
{
	struct storage_job *job = data;

	(void)fd;
	(void)revents;
	if (drain_pipe(job))
		return 0;
	qb_loop_poll_del(job->loop, job->pipe);
	close(job->pipe);
	job->pipe = -1;
	return 0;
}

static void tell_answer(struct storage_job *job)
{
	struct answer answer;
	struct storage_result result = {0};
	Drover__MoveFact *fact = NULL;

	if (job->n_bytes >= sizeof(answer)) {
		memcpy(&answer, job->bytes, sizeof(answer));
		answer.text[sizeof(answer.text) - 1] = '\0';
		fact = drover__move_fact__unpack(NULL, job->n_bytes - sizeof(answer),
						 job->bytes + sizeof(answer));
	}
	if (fact == NULL) {
		tell_failure(job, "the process that looks after the storage ended early");
		return;
	}
	result.rc = answer.rc;
	result.text = answer.text;
	result.proofs = fact->proofs;
	result.n_proofs = fact->n_proofs;
	tell(job, &result);
	drover__move_fact__free_unpacked(fact, NULL);
}

static int32_t on_end(int32_t fd, int32_t revents, void *data)
{
	struct storage_job *job = data;

	(void)fd;
	(void)revents;
	if (waitpid(job->pid, NULL, WNOHANG) == 0)
		return 0;
	if (job->pipe >= 0)
		drain_pipe(job);
	if (job->fn != NULL)
		tell_answer(job);
	job_free(job);
	return 0;
}

static void on_deadline(void *data)
{
	struct storage_job *job = data;

	job->timer = 0;
	log_error("move %llu/%u: %s has not answered for %llu ms", (unsigned long long)job->move,
		  job->attempt, disk_name(job), (unsigned long long)job->most_us / 1000);
	pidfd_send_signal(job->pidfd, SIGKILL, NULL, 0);
	tell_failure(job, "the storage does not answer");
	/* The job stays until its child is gone; no answer counts any more. */
}

static struct storage_job *job_new(const Drover__MoveOrder *order)
{
	struct storage_job *job = calloc(1, sizeof(*job));
	size_t n = order->spec != NULL ? order->spec->n_disks : 0;

	if (job == NULL)
		return NULL;
	job->pidfd = job->pipe = -1;
	job->disk = mmap(NULL, sizeof(*job->disk), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (job->disk == MAP_FAILED)
		job->disk = NULL;
	else
		atomic_store(job->disk, UINT_MAX);
	job->paths = calloc(n + 1, sizeof(*job->paths));
	for (; job->paths != NULL && job->n_paths < n; job->n_paths++) {
		job->paths[job->n_paths] = strdup(order->spec->disks[job->n_paths]->path);
		if (job->paths[job->n_paths] == NULL)
			break;
	}
	job->move = order->move;
	job->attempt = order->attempt;
	return job;
}

static int job_run(struct storage_job *job, const Drover__MoveOrder *order)
{
	int pipefd[2];

	if (job->disk == NULL || pipe2(pipefd, O_CLOEXEC) != 0)
		return -1;
	job->pid = fork();
	if (job->pid == 0)
		child_run(job, order, pipefd[1]);
	close(pipefd[1]);
	fcntl(pipefd[0], F_SETFL, O_NONBLOCK);
	if (job->pid < 0) {
		close(pipefd[0]);
		return -1;
	}
	job->pidfd = pidfd_open(job->pid, 0);
	if (job->pidfd < 0) {
		/* Ours and not reaped, so the pid is its; it may hang before it dies, and is nobody's then.
		 */
		kill(job->pid, SIGKILL);
		close(pipefd[0]);
		return -1;
	}
	fcntl(job->pidfd, F_SETFD, FD_CLOEXEC);
	job->pipe = pipefd[0];
	qb_loop_poll_add(job->loop, QB_LOOP_MED, job->pipe, POLLIN, job, on_pipe);
	qb_loop_poll_add(job->loop, QB_LOOP_MED, job->pidfd, POLLIN, job, on_end);
	job->timer = env_timer_start(job->env, job->most_us, on_deadline, job);
	return 0;
}

struct storage_job *storage_start(qb_loop_t *loop, struct env *env, enum storage_what what,
				  const Drover__MoveOrder *order, uint64_t most_us, storage_fn fn, void *data,
				  struct dr_error *err)
{
	struct storage_job *job = job_new(order);

	if (job == NULL) {
		dr_error_set(err, DR_ENOMEM, "out of memory");
		return NULL;
	}
	job->loop = loop;
	job->env = env;
	job->what = what;
	job->fn = fn;
	job->data = data;
	job->most_us = most_us;
	if (job_run(job, order) != 0) {
		dr_error_errno(err, DR_EIO, errno, "no process for work on the storage");
		job_free(job);
		return NULL;
	}
	job->next = jobs;
	jobs = job;
	return job;
}

void storage_forget(struct storage_job *job)
{
	if (job != NULL)
		job->fn = NULL;
}

void storage_fini(void)
{
	while (jobs != NULL)
		job_free(jobs);
}
