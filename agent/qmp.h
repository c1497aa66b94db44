/*
 * Asynchronous QMP client (QEMU's JSON monitor) on the libqb loop.
 *
 * The greeting is awaited, qmp_capabilities enables "oob", then commands are
 * sent and answered by id. Every command has its own deadline: a QEMU that hangs
 * with its lock held answers nothing but out-of-band commands (recipes, DESIGN §7.4).
 * Nothing reconnects by itself: the owner decides.
 */
#ifndef DROVER_AGENT_QMP_H
#define DROVER_AGENT_QMP_H

#include <jansson.h>
#include <qb/qbloop.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/env.h"
#include "common/error.h"

#define QMP_LINE_MAX	   (1u << 20) /* a longer line ends the connection */
#define QMP_HELLO_US	   5000000    /* greeting and capabilities */
#define QMP_DEADLINE_US	   5000000    /* what a command may take when the caller has no opinion */
#define QMP_PENDING_MAX	   64	      /* commands without an answer; more are refused */
#define QMP_JSON_DEPTH_MAX 64

/* ------------------------------------------------ pure part: bytes to lines */

struct qmp_lines {
	char *buf;
	size_t len;
	size_t size;
};

/* line: without the newline (and carriage return), NUL-terminated, borrowed. Not 0: stop, and hand that back.
 */
typedef int (*qmp_line_fn)(const char *line, size_t len, void *data);

/* Adds bytes and hands on every complete line. -DR_EPROTO when a line passes QMP_LINE_MAX, -DR_ENOMEM. */
int qmp_lines_push(struct qmp_lines *l, const void *bytes, size_t n, qmp_line_fn fn, void *data);
void qmp_lines_fini(struct qmp_lines *l);

/* Is the nesting of brackets in these bytes small enough to parse? (Strings are skipped.) */
bool qmp_depth_ok(const char *line, size_t len);

/* ------------------------------------------------ the client */

struct qmp;

struct qmp_reply {
	int code;	     /* 0, -DR_EFAILED (QMP error), -DR_ETIMEOUT, -DR_ECLOSED */
	const json_t *value; /* of "return"; NULL on error */
	const char *class;   /* QMP's error class or "" */
	const char *text;    /* error text or "" */
};

typedef void (*qmp_reply_fn)(const struct qmp_reply *reply, void *data);

struct qmp_ops {
	/* Capabilities are negotiated: commands may be sent. */
	void (*on_ready)(struct qmp *q, void *data);
	/* An asynchronous event; at_us is QEMU's UTC timestamp in microseconds. */
	void (*on_event)(struct qmp *q, const char *event, const json_t *event_data, uint64_t at_us,
			 void *data);
	/* The connection ended (once; not after qmp_free). Waiting commands were answered -DR_ECLOSED before.
	 */
	void (*on_close)(struct qmp *q, const struct dr_error *why, void *data);
};

/* Connects to the unix socket at path. NULL and *err when that fails at once (also: no process listens). */
struct qmp *qmp_connect(qb_loop_t *loop, struct env *env, const char *path, const struct qmp_ops *ops,
			void *data, struct dr_error *err);

/* Ends the connection; no callback comes any more. Allowed inside callbacks. NULL is fine. */
void qmp_free(struct qmp *q);

bool qmp_ready(const struct qmp *q);

/*
 * Sends a command. args is taken (NULL: none). fn (may be NULL) is called exactly once, never from inside,
 * unless qmp_free comes first. Refusals known at once are returned: -DR_ECLOSED, -DR_EAGAIN (too many
 * waiting).
 */
int qmp_exec(struct qmp *q, const char *command, json_t *take_args, uint64_t deadline_us, qmp_reply_fn fn,
	     void *data);

/* As qmp_exec, out of band: answered even while QEMU's main lock is held. */
int qmp_exec_oob(struct qmp *q, const char *command, json_t *take_args, uint64_t deadline_us, qmp_reply_fn fn,
		 void *data);

/* Hands a descriptor to QEMU under a name (getfd + SCM_RIGHTS). fd is borrowed (duplicated). */
int qmp_getfd(struct qmp *q, const char *fdname, int fd, qmp_reply_fn fn, void *data);

#endif
