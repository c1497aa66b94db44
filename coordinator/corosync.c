#include "coordinator/corosync.h"

#include <corosync/cmap.h>
#include <corosync/cpg.h>
#include <corosync/quorum.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "common/log.h"

#define FRAGMENT_MAX	 (128u * 1024)
#define MESSAGE_MAX	 (1200u << 20)
#define OUT_QUEUE_MAX	 (256u << 20) /* above it new messages are dropped: Raft repeats what matters */
#define RETRY_CONNECT_US 500000
#define RETRY_SEND_US	 2000
#define SENDS_PER_TURN	 16
#define MEMBERS_MAX	 32

/* In front of each CPG message; big endian. */
struct fragment_header {
	uint32_t magic;
	uint32_t first; /* 1 for the first fragment of a message */
	uint64_t total;
};
#define FRAGMENT_MAGIC 0x44525631u /* "DRV1" */

struct out {
	struct out *next;
	size_t size;
	size_t sent;
	uint8_t bytes[];
};

struct assembly {
	uint32_t nodeid;
	uint8_t *bytes;
	size_t have, total;
};

struct corosync {
	struct transport transport;
	qb_loop_t *loop;
	struct env *env;
	const struct corosync_ops *ops;
	void *data;
	struct cpg_name group;
	cpg_handle_t cpg;
	quorum_handle_t quorum;
	int cpg_fd, quorum_fd;
	bool connected;
	bool quorate;
	uint32_t nodeid;
	uint64_t connect_timer, send_timer;
	struct out *out_head, **out_tail;
	size_t out_bytes;
	struct assembly in[MEMBERS_MAX];
	uint32_t members[MEMBERS_MAX];
	unsigned n_members;
};

static void try_connect(void *data);

static void set_quorate(struct corosync *c, bool quorate)
{
	if (c->quorate == quorate)
		return;
	c->quorate = quorate;
	log_notice("corosync: this side is %s", quorate ? "quorate" : "not quorate");
	c->ops->quorum(c->data, quorate);
}

/* --- receiving --------------------------------------------------------------------- */

static void assembly_drop(struct assembly *a)
{
	free(a->bytes);
	memset(a, 0, sizeof(*a));
}

static struct assembly *assembly_of(struct corosync *c, uint32_t nodeid, bool make)
{
	struct assembly *empty = NULL;

	for (unsigned i = 0; i < MEMBERS_MAX; i++) {
		if (c->in[i].nodeid == nodeid)
			return &c->in[i];
		if (c->in[i].nodeid == 0 && empty == NULL)
			empty = &c->in[i];
	}
	if (!make || empty == NULL)
		return NULL;
	empty->nodeid = nodeid;
	return empty;
}

static void fragment_in(struct corosync *c, uint32_t nodeid, const struct fragment_header *h,
			const uint8_t *body, size_t size)
{
	uint64_t total = be64toh(h->total);
	bool first = be32toh(h->first) == 1;
	struct assembly *a;

	if (total > MESSAGE_MAX || size > total)
		return;
	if (first && size == total) {
		c->ops->receive(c->data, nodeid, body, size);
		return;
	}
	a = assembly_of(c, nodeid, first);
	if (a == NULL)
		return; /* joined in the middle of a message: the next one will be whole */
	if (first) {
		free(a->bytes);
		a->bytes = malloc(total);
		a->have = 0;
		a->total = total;
	}
	if (a->bytes == NULL || a->total != total || size > a->total - a->have) {
		assembly_drop(a);
		return;
	}
	memcpy(a->bytes + a->have, body, size);
	a->have += size;
	if (a->have == a->total) {
		struct assembly whole = *a;

		memset(a, 0, sizeof(*a));
		c->ops->receive(c->data, nodeid, whole.bytes, whole.total);
		free(whole.bytes);
	}
}

static void on_deliver(cpg_handle_t handle, const struct cpg_name *group, uint32_t nodeid, uint32_t pid,
		       void *msg, size_t size)
{
	struct fragment_header h;
	void *context = NULL;
	struct corosync *c;

	(void)group;
	(void)pid;
	cpg_context_get(handle, &context);
	c = context;
	if (nodeid == c->nodeid || size < sizeof(h))
		return;
	memcpy(&h, msg, sizeof(h));
	if (be32toh(h.magic) != FRAGMENT_MAGIC) {
		log_warning("corosync: message of %zu bytes from node %u is not Drover's; dropped", size,
			    nodeid);
		return;
	}
	fragment_in(c, nodeid, &h, (const uint8_t *)msg + sizeof(h), size - sizeof(h));
}

static void on_confchg(cpg_handle_t handle, const struct cpg_name *group, const struct cpg_address *members,
		       size_t n_members, const struct cpg_address *left, size_t n_left,
		       const struct cpg_address *joined, size_t n_joined)
{
	void *context = NULL;
	struct corosync *c;

	(void)group;
	cpg_context_get(handle, &context);
	c = context;
	c->n_members = 0;
	for (size_t i = 0; i < n_members && i < MEMBERS_MAX; i++)
		c->members[c->n_members++] = members[i].nodeid;
	for (size_t i = 0; i < n_left; i++) {
		struct assembly *a = assembly_of(c, left[i].nodeid, false);

		if (a != NULL)
			assembly_drop(a);
		log_notice("corosync: coordinator on node %u left (reason %u)", left[i].nodeid,
			   left[i].reason);
		c->ops->member(c->data, left[i].nodeid, false);
	}
	for (size_t i = 0; i < n_joined; i++)
		c->ops->member(c->data, joined[i].nodeid, true);
}

static void on_quorum(quorum_handle_t handle, uint32_t quorate, uint64_t ring_seq, uint32_t n, uint32_t *list)
{
	void *context = NULL;

	(void)ring_seq;
	(void)n;
	(void)list;
	quorum_context_get(handle, (const void **)&context);
	set_quorate(context, quorate != 0);
}

/* --- connecting -------------------------------------------------------------------- */

static void disconnect(struct corosync *c, const char *why)
{
	struct out *next;

	if (c->cpg_fd >= 0)
		qb_loop_poll_del(c->loop, c->cpg_fd);
	if (c->quorum_fd >= 0)
		qb_loop_poll_del(c->loop, c->quorum_fd);
	if (c->cpg != 0)
		cpg_finalize(c->cpg);
	if (c->quorum != 0)
		quorum_finalize(c->quorum);
	c->cpg = 0;
	c->quorum = 0;
	c->cpg_fd = c->quorum_fd = -1;
	if (c->connected)
		log_warning("corosync: connection lost (%s); trying again", why);
	c->connected = false;
	for (struct out *o = c->out_head; o != NULL; o = next) {
		next = o->next;
		free(o);
	}
	c->out_head = NULL;
	c->out_tail = &c->out_head;
	c->out_bytes = 0;
	for (unsigned i = 0; i < MEMBERS_MAX; i++)
		assembly_drop(&c->in[i]);
	set_quorate(c, false);
}

static void reconnect_later(struct corosync *c)
{
	if (c->connect_timer == 0)
		c->connect_timer = env_timer_start(c->env, RETRY_CONNECT_US, try_connect, c);
}

static int32_t on_quorum_fd(int32_t fd, int32_t revents, void *data)
{
	struct corosync *c = data;
	cs_error_t rc;

	(void)fd;
	rc = quorum_dispatch(c->quorum, CS_DISPATCH_ALL);
	if ((rc != CS_OK && rc != CS_ERR_TRY_AGAIN) || (revents & (POLLHUP | POLLERR))) {
		disconnect(c, "quorum service");
		reconnect_later(c);
		return -1;
	}
	return 0;
}

static int32_t on_cpg_fd(int32_t fd, int32_t revents, void *data)
{
	struct corosync *c = data;
	cs_error_t rc;

	(void)fd;
	/* A loss of quorum that is already known must be seen before messages of the new ring. */
	if (c->quorum != 0)
		quorum_dispatch(c->quorum, CS_DISPATCH_ALL);
	rc = cpg_dispatch(c->cpg, CS_DISPATCH_ALL);
	if ((rc != CS_OK && rc != CS_ERR_TRY_AGAIN) || (revents & (POLLHUP | POLLERR))) {
		disconnect(c, "cpg service");
		reconnect_later(c);
		return -1;
	}
	return 0;
}

static cs_error_t connect_quorum(struct corosync *c)
{
	static const quorum_callbacks_t callbacks = {.quorum_notify_fn = on_quorum};
	quorum_callbacks_t mine = callbacks;
	uint32_t type;
	int quorate = 0;
	cs_error_t rc = quorum_initialize(&c->quorum, &mine, &type);

	if (rc != CS_OK) {
		c->quorum = 0;
		return rc;
	}
	if ((rc = quorum_context_set(c->quorum, c)) != CS_OK ||
	    (rc = quorum_getquorate(c->quorum, &quorate)) != CS_OK ||
	    (rc = quorum_trackstart(c->quorum, CS_TRACK_CHANGES)) != CS_OK ||
	    (rc = quorum_fd_get(c->quorum, &c->quorum_fd)) != CS_OK)
		return rc;
	set_quorate(c, quorate != 0);
	return CS_OK;
}

static cs_error_t connect_cpg(struct corosync *c)
{
	cpg_model_v1_data_t model = {
		.cpg_deliver_fn = on_deliver,
		.cpg_confchg_fn = on_confchg,
	};
	unsigned int nodeid = 0;
	cs_error_t rc = cpg_model_initialize(&c->cpg, CPG_MODEL_V1, (cpg_model_data_t *)&model, c);

	if (rc != CS_OK) {
		c->cpg = 0;
		return rc;
	}
	if ((rc = cpg_local_get(c->cpg, &nodeid)) != CS_OK || (rc = cpg_join(c->cpg, &c->group)) != CS_OK ||
	    (rc = cpg_fd_get(c->cpg, &c->cpg_fd)) != CS_OK)
		return rc;
	c->nodeid = nodeid;
	return CS_OK;
}

static void try_connect(void *data)
{
	struct corosync *c = data;
	cs_error_t rc;

	c->connect_timer = 0;
	if (c->cpg != 0 || c->quorum != 0)
		disconnect(c, "restart");
	rc = connect_quorum(c);
	if (rc == CS_OK)
		rc = connect_cpg(c);
	if (rc != CS_OK) {
		log_debug("corosync: not yet (%s)", cs_strerror(rc));
		c->quorum_fd = c->cpg_fd = -1; /* not in the loop yet */
		disconnect(c, cs_strerror(rc));
		reconnect_later(c);
		return;
	}
	c->connected = true;
	qb_loop_poll_add(c->loop, QB_LOOP_HIGH, c->quorum_fd, POLLIN, c, on_quorum_fd);
	qb_loop_poll_add(c->loop, QB_LOOP_HIGH, c->cpg_fd, POLLIN, c, on_cpg_fd);
	log_notice("corosync: connected as node %u, %s", c->nodeid, c->quorate ? "quorate" : "not quorate");
}

/* --- sending ----------------------------------------------------------------------- */

static void flush(void *data);

static cs_error_t send_fragment(struct corosync *c, struct out *o)
{
	size_t size = o->size - o->sent < FRAGMENT_MAX ? o->size - o->sent : FRAGMENT_MAX;
	struct fragment_header h = {
		.magic = htobe32(FRAGMENT_MAGIC),
		.first = htobe32(o->sent == 0 ? 1 : 0),
		.total = htobe64(o->size),
	};
	struct iovec iov[2] = {{&h, sizeof(h)}, {o->bytes + o->sent, size}};
	cs_error_t rc = cpg_mcast_joined(c->cpg, CPG_TYPE_AGREED, iov, 2);

	if (rc == CS_OK)
		o->sent += size;
	return rc;
}

static void flush(void *data)
{
	struct corosync *c = data;
	cs_error_t rc = CS_OK;

	c->send_timer = 0;
	for (int i = 0; c->out_head != NULL && i < SENDS_PER_TURN && rc == CS_OK; i++) {
		struct out *o = c->out_head;

		rc = send_fragment(c, o);
		if (rc != CS_OK || o->sent < o->size)
			continue;
		c->out_head = o->next;
		if (c->out_head == NULL)
			c->out_tail = &c->out_head;
		c->out_bytes -= o->size;
		free(o);
	}
	if (rc != CS_OK && rc != CS_ERR_TRY_AGAIN) {
		/* May run inside a dispatch: the handle is given up by the timer. */
		log_warning("corosync: send: %s", cs_strerror(rc));
		c->connected = false;
		reconnect_later(c);
		return;
	}
	if (c->out_head != NULL && c->send_timer == 0)
		c->send_timer = env_timer_start(c->env, rc == CS_OK ? 0 : RETRY_SEND_US, flush, c);
}

static void transport_send(struct transport *t, const uint8_t *bytes, size_t size)
{
	struct corosync *c = t->impl;
	struct out *o;

	if (!c->connected || c->out_bytes + size > OUT_QUEUE_MAX || (o = malloc(sizeof(*o) + size)) == NULL)
		return; /* lost, as on any network */
	o->next = NULL;
	o->size = size;
	o->sent = 0;
	memcpy(o->bytes, bytes, size);
	*c->out_tail = o;
	c->out_tail = &o->next;
	c->out_bytes += size;
	if (c->send_timer == 0)
		flush(c);
}

static bool transport_quorate(struct transport *t)
{
	struct corosync *c = t->impl;

	return c->connected && c->quorate;
}

/* --- life -------------------------------------------------------------------------- */

struct corosync *corosync_new(qb_loop_t *loop, struct env *env, const char *group,
			      const struct corosync_ops *ops, void *data, struct dr_error *err)
{
	struct corosync *c = calloc(1, sizeof(*c));

	if (c == NULL || strlen(group) >= sizeof(c->group.value)) {
		dr_error_set(err, DR_ENOMEM, "corosync: out of memory");
		free(c);
		return NULL;
	}
	c->transport = (struct transport){.impl = c, .send = transport_send, .quorate = transport_quorate};
	c->loop = loop;
	c->env = env;
	c->ops = ops;
	c->data = data;
	c->cpg_fd = c->quorum_fd = -1;
	c->out_tail = &c->out_head;
	c->group.length = (uint32_t)strlen(group);
	memcpy(c->group.value, group, c->group.length);
	c->connect_timer = env_timer_start(env, 0, try_connect, c);
	return c;
}

void corosync_free(struct corosync *c)
{
	if (c == NULL)
		return;
	env_timer_stop(c->env, &c->connect_timer);
	env_timer_stop(c->env, &c->send_timer);
	c->connected = false;
	c->quorate = false;
	disconnect(c, "end");
	free(c);
}

struct transport *corosync_transport(struct corosync *c)
{
	return &c->transport;
}

bool corosync_connected(const struct corosync *c)
{
	return c->connected;
}

bool corosync_quorate(const struct corosync *c)
{
	return c->quorate;
}

uint32_t corosync_nodeid(const struct corosync *c)
{
	return c->nodeid;
}

unsigned corosync_token_ms(void)
{
	cmap_handle_t handle;
	uint32_t token = 1000;

	if (cmap_initialize(&handle) != CS_OK)
		return token;
	if (cmap_get_uint32(handle, "runtime.config.totem.token", &token) != CS_OK)
		token = 1000;
	cmap_finalize(handle);
	return token;
}

bool corosync_present(void)
{
	cmap_handle_t handle;

	if (cmap_initialize(&handle) != CS_OK)
		return false;
	cmap_finalize(handle);
	return true;
}
