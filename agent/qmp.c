#include "agent/qmp.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"

#define QMP_READ_SIZE  16384
#define QMP_READS_TURN 16 /* reads per loop turn: no connection may hold the loop */

struct qmp_cmd {
	struct qmp_cmd *next;
	struct qmp *q;
	uint64_t id;
	uint64_t timer;
	qmp_reply_fn fn;
	void *data;
	char name[40];
};

struct qmp_out {
	struct qmp_out *next;
	char *bytes;
	size_t len;
	size_t done;
	int fd; /* goes with the first byte; -1: none */
};

struct qmp {
	qb_loop_t *loop;
	struct env *env;
	int fd;
	const struct qmp_ops *ops;
	void *data;
	struct qmp_lines in;
	struct qmp_out *out, **out_tail;
	struct qmp_cmd *cmds;
	uint64_t last_id;
	uint64_t hello_timer;
	uint64_t close_timer;
	unsigned int n_cmds;
	bool ready;
	bool greeted;
	bool closed; /* the connection ended, on_close was or will be called */
	bool freed;  /* qmp_free was called inside a callback */
	unsigned int depth;
	struct dr_error why;
};

static void on_poll_close(void *data);

static void free_out(struct qmp_out *o)
{
	if (o->fd >= 0)
		close(o->fd);
	free(o->bytes);
	free(o);
}

static void destroy(struct qmp *q)
{
	free(q);
}

static void enter(struct qmp *q)
{
	q->depth++;
}

static void leave(struct qmp *q)
{
	if (--q->depth == 0 && q->freed)
		destroy(q);
}

static void stop_io(struct qmp *q)
{
	if (q->fd < 0)
		return;
	qb_loop_poll_del(q->loop, q->fd);
	close(q->fd);
	q->fd = -1;
	env_timer_stop(q->env, &q->hello_timer);
	while (q->out != NULL) {
		struct qmp_out *o = q->out;

		q->out = o->next;
		free_out(o);
	}
	q->out_tail = &q->out;
	qmp_lines_fini(&q->in);
	q->ready = false;
}

/* The connection is over. The owner hears it from the loop, never from inside its own call. */
static void shut(struct qmp *q, enum dr_err code, const char *text)
{
	if (q->closed)
		return;
	dr_error_set(&q->why, code, "QMP: %s", text);
	q->closed = true;
	stop_io(q);
	q->close_timer = env_timer_start(q->env, 0, on_poll_close, q);
}

static struct qmp_cmd *unlink_cmd(struct qmp *q, uint64_t id)
{
	for (struct qmp_cmd **at = &q->cmds; *at != NULL; at = &(*at)->next) {
		struct qmp_cmd *c = *at;

		if (c->id != id)
			continue;
		*at = c->next;
		q->n_cmds--;
		env_timer_stop(q->env, &c->timer);
		return c;
	}
	return NULL;
}

static void answer(struct qmp *q, struct qmp_cmd *c, const struct qmp_reply *reply)
{
	if (c->fn != NULL && !q->freed)
		c->fn(reply, c->data);
	free(c);
}

static void on_poll_close(void *data)
{
	struct qmp *q = data;

	q->close_timer = 0;
	enter(q);
	while (q->cmds != NULL && !q->freed) {
		struct qmp_reply reply = {.code = -DR_ECLOSED, .class = "", .text = q->why.text};
		struct qmp_cmd *c = unlink_cmd(q, q->cmds->id);

		answer(q, c, &reply);
	}
	if (!q->freed && q->ops->on_close != NULL)
		q->ops->on_close(q, &q->why, q->data);
	leave(q);
}

static void on_cmd_timeout(void *data)
{
	struct qmp_cmd *c = data;
	struct qmp *q = c->q;
	char text[96];
	struct qmp_reply reply = {.code = -DR_ETIMEOUT, .class = "", .text = text};

	c->timer = 0;
	unlink_cmd(q, c->id);
	snprintf(text, sizeof(text), "QEMU did not answer %s in time", c->name);
	enter(q);
	answer(q, c, &reply);
	leave(q);
}

static void on_hello_timeout(void *data)
{
	struct qmp *q = data;

	q->hello_timer = 0;
	shut(q, DR_ETIMEOUT, "no greeting in time (does another client hold the monitor?)");
}

/* ------------------------------------------------ sending */

static int32_t on_io(int32_t fd, int32_t revents, void *data);

static void want_write(struct qmp *q, bool on)
{
	qb_loop_poll_mod(q->loop, QB_LOOP_HIGH, q->fd, on ? POLLIN | POLLOUT : POLLIN, q, on_io);
}

static ssize_t send_some(struct qmp *q, struct qmp_out *o)
{
	struct iovec iov = {.iov_base = o->bytes + o->done, .iov_len = o->len - o->done};
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control;
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (o->fd >= 0) {
		struct cmsghdr *c;

		memset(&control, 0, sizeof(control));
		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &o->fd, sizeof(int));
	}
	return sendmsg(q->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void flush(struct qmp *q)
{
	while (q->out != NULL) {
		struct qmp_out *o = q->out;
		ssize_t n = send_some(q, o);

		if (n < 0) {
			if (errno == EAGAIN || errno == EINTR)
				want_write(q, true);
			else
				shut(q, DR_ECLOSED, strerror(errno));
			return;
		}
		if (o->fd >= 0) {
			close(o->fd);
			o->fd = -1;
		}
		o->done += (size_t)n;
		if (o->done < o->len)
			continue;
		q->out = o->next;
		if (q->out == NULL)
			q->out_tail = &q->out;
		free_out(o);
	}
	want_write(q, false);
}

static int queue(struct qmp *q, char *take_bytes, int take_fd)
{
	struct qmp_out *o = calloc(1, sizeof(*o));

	if (o == NULL || take_bytes == NULL) {
		free(o);
		free(take_bytes);
		if (take_fd >= 0)
			close(take_fd);
		return -DR_ENOMEM;
	}
	o->bytes = take_bytes;
	o->len = strlen(take_bytes);
	o->fd = take_fd;
	*q->out_tail = o;
	q->out_tail = &o->next;
	flush(q);
	return 0;
}

static char *command_text(const char *verb, const char *command, json_t *take_args, uint64_t id)
{
	json_t *o = json_pack("{s:s, s:I}", verb, command, "id", (json_int_t)id);
	char *text;
	char *line = NULL;

	if (o != NULL && take_args != NULL)
		json_object_set_new(o, "arguments", take_args);
	else
		json_decref(take_args);
	text = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	if (text != NULL && asprintf(&line, "%s\r\n", text) < 0)
		line = NULL;
	free(text);
	return line;
}

static int submit(struct qmp *q, const char *verb, const char *command, json_t *take_args, int take_fd,
		  uint64_t deadline_us, qmp_reply_fn fn, void *data)
{
	struct qmp_cmd *c;
	char *line;
	int rc;

	if (q->fd < 0 || q->closed || (!q->ready && strcmp(command, "qmp_capabilities") != 0))
		rc = -DR_ECLOSED;
	else
		rc = q->n_cmds >= QMP_PENDING_MAX ? -DR_EAGAIN : 0;
	c = rc == 0 ? calloc(1, sizeof(*c)) : NULL;
	if (c == NULL) {
		json_decref(take_args);
		if (take_fd >= 0)
			close(take_fd);
		return rc != 0 ? rc : -DR_ENOMEM;
	}
	c->q = q;
	c->id = ++q->last_id;
	c->fn = fn;
	c->data = data;
	snprintf(c->name, sizeof(c->name), "%s", command);
	line = command_text(verb, command, take_args, c->id);
	log_debug("QMP %d -> %s %s", q->fd, verb, command);
	c->timer = env_timer_start(q->env, deadline_us, on_cmd_timeout, c);
	c->next = q->cmds;
	q->cmds = c;
	q->n_cmds++;
	rc = queue(q, line, take_fd);
	if (rc != 0)
		free(unlink_cmd(q, c->id));
	return rc;
}

int qmp_exec(struct qmp *q, const char *command, json_t *take_args, uint64_t deadline_us, qmp_reply_fn fn,
	     void *data)
{
	return submit(q, "execute", command, take_args, -1, deadline_us, fn, data);
}

int qmp_exec_oob(struct qmp *q, const char *command, json_t *take_args, uint64_t deadline_us, qmp_reply_fn fn,
		 void *data)
{
	return submit(q, "exec-oob", command, take_args, -1, deadline_us, fn, data);
}

int qmp_getfd(struct qmp *q, const char *fdname, int fd, qmp_reply_fn fn, void *data)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);

	if (copy < 0)
		return -DR_EIO;
	return submit(q, "execute", "getfd", json_pack("{s:s}", "fdname", fdname), copy, QMP_DEADLINE_US, fn,
		      data);
}

/* ------------------------------------------------ receiving */

static void on_capabilities(const struct qmp_reply *reply, void *data)
{
	struct qmp *q = data;

	if (reply->code != 0) {
		shut(q, DR_EFAILED, reply->text);
		return;
	}
	env_timer_stop(q->env, &q->hello_timer);
	q->ready = true;
	if (q->ops->on_ready != NULL)
		q->ops->on_ready(q, q->data);
}

static void got_greeting(struct qmp *q)
{
	json_t *args = json_pack("{s:[s]}", "enable", "oob");

	q->greeted = true;
	if (submit(q, "execute", "qmp_capabilities", args, -1, QMP_HELLO_US, on_capabilities, q) != 0)
		shut(q, DR_ENOMEM, "out of memory");
}

static void got_event(struct qmp *q, const json_t *msg, const char *event)
{
	const json_t *ts = json_object_get(msg, "timestamp");
	json_int_t s = json_integer_value(json_object_get(ts, "seconds"));
	json_int_t us = json_integer_value(json_object_get(ts, "microseconds"));
	uint64_t at = s < 0 || us < 0 ? 0 : (uint64_t)s * 1000000 + (uint64_t)us;

	log_debug("QMP %d <- event %s", q->fd, event);
	if (q->ops->on_event != NULL)
		q->ops->on_event(q, event, json_object_get(msg, "data"), at, q->data);
}

static void got_answer(struct qmp *q, const json_t *msg)
{
	const json_t *e = json_object_get(msg, "error");
	json_int_t id = json_integer_value(json_object_get(msg, "id"));
	struct qmp_cmd *c = id > 0 ? unlink_cmd(q, (uint64_t)id) : NULL;
	struct qmp_reply reply = {.class = "", .text = ""};
	char text[512];

	if (c == NULL)
		return; /* came after its deadline */
	if (e != NULL) {
		const char *class = json_string_value(json_object_get(e, "class"));
		const char *desc = json_string_value(json_object_get(e, "desc"));

		snprintf(text, sizeof(text), "%s: %s", c->name, desc != NULL ? desc : "unknown error");
		reply.code = -DR_EFAILED;
		reply.class = class != NULL ? class : "";
		reply.text = text;
	} else {
		reply.value = json_object_get(msg, "return");
	}
	answer(q, c, &reply);
}

static int on_line(const char *line, size_t len, void *data)
{
	struct qmp *q = data;
	const char *event;
	json_error_t jerr;
	json_t *msg = qmp_depth_ok(line, len) ? json_loadb(line, len, JSON_ALLOW_NUL, &jerr) : NULL;

	if (!json_is_object(msg)) {
		json_decref(msg);
		shut(q, DR_EPROTO, "QEMU sent a line that is no JSON object");
		return -DR_EPROTO;
	}
	event = json_string_value(json_object_get(msg, "event"));
	if (json_object_get(msg, "QMP") != NULL && !q->greeted)
		got_greeting(q);
	else if (event != NULL)
		got_event(q, msg, event);
	else
		got_answer(q, msg);
	json_decref(msg);
	return q->closed || q->freed ? -DR_ECLOSED : 0;
}

static void receive(struct qmp *q)
{
	char buf[QMP_READ_SIZE];

	for (int i = 0; i < QMP_READS_TURN; i++) {
		ssize_t n = recv(q->fd, buf, sizeof(buf), MSG_DONTWAIT);
		int rc;

		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			shut(q, DR_ECLOSED, n == 0 ? "QEMU closed its monitor" : strerror(errno));
			return;
		}
		rc = qmp_lines_push(&q->in, buf, (size_t)n, on_line, q);
		if (q->closed || q->freed)
			return;
		if (rc != 0) {
			shut(q, DR_EPROTO, "a line is longer than its limit");
			return;
		}
	}
}

static int32_t on_io(int32_t fd, int32_t revents, void *data)
{
	struct qmp *q = data;

	(void)fd;
	enter(q);
	if (revents & (POLLIN | POLLHUP | POLLERR))
		receive(q);
	if (!q->closed && !q->freed && (revents & POLLOUT))
		flush(q);
	leave(q);
	return 0;
}

/* ------------------------------------------------ making and ending */

static int connect_unix(const char *path, struct dr_error *err)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd;

	if (strlen(path) >= sizeof(addr.sun_path))
		return dr_error_set(err, DR_EFAILED, "QMP socket path %s is too long", path);
	memcpy(addr.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return dr_error_errno(err, DR_EIO, errno, "QMP socket");
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0) {
		dr_error_errno(err, DR_EIO, errno, "QMP socket %s", path);
		close(fd);
		return -DR_EIO;
	}
	return fd;
}

struct qmp *qmp_connect(qb_loop_t *loop, struct env *env, const char *path, const struct qmp_ops *ops,
			void *data, struct dr_error *err)
{
	struct qmp *q = calloc(1, sizeof(*q));

	if (q == NULL) {
		dr_error_set(err, DR_ENOMEM, "out of memory");
		return NULL;
	}
	q->loop = loop;
	q->env = env;
	q->ops = ops;
	q->data = data;
	q->out_tail = &q->out;
	q->fd = connect_unix(path, err);
	if (q->fd < 0 || qb_loop_poll_add(loop, QB_LOOP_HIGH, q->fd, POLLIN, q, on_io) != 0) {
		dr_error_set(err, DR_EIO, "QMP socket %s: cannot be watched", path);
		if (q->fd >= 0)
			close(q->fd);
		free(q);
		return NULL;
	}
	q->hello_timer = env_timer_start(env, QMP_HELLO_US, on_hello_timeout, q);
	return q;
}

bool qmp_ready(const struct qmp *q)
{
	return q != NULL && q->ready;
}

void qmp_free(struct qmp *q)
{
	if (q == NULL || q->freed)
		return;
	q->freed = true;
	q->closed = true;
	stop_io(q);
	env_timer_stop(q->env, &q->close_timer);
	while (q->cmds != NULL)
		free(unlink_cmd(q, q->cmds->id));
	if (q->depth == 0)
		destroy(q);
}
