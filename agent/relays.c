#include "agent/relays.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/net.h"

#define RELAY_PACKET_MAX  (64u << 10)
#define RELAY_EVENTS_TURN 32 /* events per loop turn */

struct outgoing {
	struct outgoing *next;
	uint8_t *bytes;
	size_t size;
	int fd;
};

struct attempt { /* a channel being made */
	struct attempt *next;
	struct relay *r;
	unsigned int path;
	uint32_t id;
	int fd; /* -1: handed to the relay, authentication goes on */
	uint64_t timer;
};

struct relay {
	struct agent *agent;
	const struct relay_ops *ops;
	void *data;
	struct proc proc;
	int ctl;
	bool up;
	bool attaching;
	uint32_t seen; /* while attaching: 1 << kind of the events that came */
	char seen_text[256];
	char name[64]; /* "relay-17-2-src": file name and mark on the command line (R25) */
	char path[288];
	struct outgoing *out, **out_tail;
	unsigned int n_out;
	struct attempt *attempts;
	uint32_t last_channel;
	Drover__Msg *stats;	      /* the newest STATS; NULL: none yet */
	uint32_t up_ids[RELAY_PATHS]; /* by path: the channel that is up; 0 = none */
	uint64_t budget;
	bool budget_known;
	uint64_t start_timer;
	uint64_t quit_timer;
};

void preamble_write(uint8_t bytes[RELAY_PREAMBLE], const struct preamble *p)
{
	memset(bytes, 0, RELAY_PREAMBLE);
	memcpy(bytes, RELAY_PREAMBLE_MAGIC, 8);
	for (int i = 0; i < 8; i++)
		bytes[8 + i] = (uint8_t)(p->move >> (56 - 8 * i));
	for (int i = 0; i < 4; i++) {
		bytes[16 + i] = (uint8_t)(p->attempt >> (24 - 8 * i));
		bytes[20 + i] = (uint8_t)(p->channel >> (24 - 8 * i));
	}
}

int preamble_read(const uint8_t bytes[RELAY_PREAMBLE], struct preamble *p)
{
	static const uint8_t zero[8];

	if (memcmp(bytes, RELAY_PREAMBLE_MAGIC, 8) != 0 || memcmp(bytes + 24, zero, 8) != 0)
		return -DR_EPROTO;
	*p = (struct preamble){0};
	for (int i = 0; i < 8; i++)
		p->move = p->move << 8 | bytes[8 + i];
	for (int i = 0; i < 4; i++) {
		p->attempt = p->attempt << 8 | bytes[16 + i];
		p->channel = p->channel << 8 | bytes[20 + i];
	}
	return 0;
}

/* As it is now: the machine gets new orders while the relay lives. */
static const Drover__MoveOrder *order_of(const struct relay *r)
{
	return r->ops->order(r->data);
}

/* ------------------------------------------------ making and freeing */

struct relay *relay_new(struct agent *a, const Drover__MoveOrder *order, const struct relay_ops *ops,
			void *data)
{
	struct relay *r = calloc(1, sizeof(*r));

	if (r == NULL)
		abort();
	r->agent = a;
	r->ops = ops;
	r->data = data;
	r->proc = PROC_NONE;
	r->ctl = -1;
	r->out_tail = &r->out;
	/* Ids of different agent starts should differ; the path rides in the low byte. */
	env_random(a->env, &r->last_channel, sizeof(r->last_channel));
	snprintf(r->name, sizeof(r->name), "relay-%llu-%u-%s", (unsigned long long)order->move,
		 order->attempt, order->role == DROVER__MOVE_ROLE__MOVE_SRC ? "src" : "dst");
	snprintf(r->path, sizeof(r->path), "%s/%s.ctl", a->conf.run_dir, r->name);
	return r;
}

static void free_out(struct outgoing *o)
{
	if (o->fd >= 0)
		close(o->fd);
	free(o->bytes);
	free(o);
}

static void close_ctl(struct relay *r)
{
	if (r->ctl >= 0) {
		qb_loop_poll_del(r->agent->loop, r->ctl);
		close(r->ctl);
		r->ctl = -1;
	}
	while (r->out != NULL) {
		struct outgoing *o = r->out;

		r->out = o->next;
		free_out(o);
	}
	r->out_tail = &r->out;
	r->n_out = 0;
}

static void end_attempt(struct attempt *t)
{
	struct attempt **at = &t->r->attempts;

	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	env_timer_stop(t->r->agent->env, &t->timer);
	if (t->fd >= 0) {
		qb_loop_poll_del(t->r->agent->loop, t->fd);
		close(t->fd);
	}
	free(t);
}

static void close_all(struct relay *r)
{
	while (r->attempts != NULL)
		end_attempt(r->attempts);
	close_ctl(r);
	if (proc_is_open(&r->proc))
		qb_loop_poll_del(r->agent->loop, r->proc.pidfd);
	proc_close(&r->proc);
	env_timer_stop(r->agent->env, &r->start_timer);
	env_timer_stop(r->agent->env, &r->quit_timer);
	r->up = false;
}

void relay_free(struct relay *r)
{
	if (r == NULL)
		return;
	close_all(r);
	if (r->stats != NULL)
		drover__msg__free_unpacked(r->stats, NULL);
	free(r);
}

void relay_remove_files(const struct agent *a, uint64_t move, uint32_t attempt, Drover__MoveRole role)
{
	static const char *const ends[] = {"ctl", "log"};
	char path[320];

	for (size_t i = 0; i < DR_ARRAY_SIZE(ends); i++) {
		snprintf(path, sizeof(path), "%s/relay-%llu-%u-%s.%s", a->conf.run_dir,
			 (unsigned long long)move, attempt,
			 role == DROVER__MOVE_ROLE__MOVE_SRC ? "src" : "dst", ends[i]);
		unlink(path);
	}
}

bool relay_running(const struct relay *r)
{
	return r != NULL && proc_is_open(&r->proc);
}

bool relay_path_up(const struct relay *r, size_t path)
{
	return path < RELAY_PATHS && r->up_ids[path] != 0;
}

static unsigned int paths_up(const struct relay *r)
{
	unsigned int bits = 0;

	for (size_t i = 0; i < RELAY_PATHS; i++)
		bits |= relay_path_up(r, i) ? 1u << i : 0;
	return bits;
}

static int32_t on_pidfd(int32_t fd, int32_t revents, void *data)
{
	struct relay *r = data;
	struct proc_exit e = proc_reap(&r->proc);
	char why[120];

	(void)fd;
	(void)revents;
	proc_exit_text(&e, why, sizeof(why));
	close_all(r);
	unlink(r->path);
	r->ops->on_gone(why, r->data);
	return 0;
}

static void watch(struct relay *r)
{
	if (qb_loop_poll_add(r->agent->loop, QB_LOOP_HIGH, r->proc.pidfd, POLLIN, r, on_pidfd) != 0)
		abort();
}

static void kill_now(struct relay *r)
{
	struct dr_error err = DR_ERROR_INIT;

	if (proc_kill(&r->proc, SIGKILL, r->name, &err) != 0 && err.code != DR_OK)
		log_error("%s: %s", r->name, err.text);
}

/* ------------------------------------------------ commands */

static int32_t on_ctl(int32_t fd, int32_t revents, void *data);

static void flush(struct relay *r)
{
	while (r->out != NULL) {
		struct outgoing *o = r->out;
		struct dr_error err = DR_ERROR_INIT;
		int rc = net_send_fds(r->ctl, o->bytes, o->size, &o->fd, o->fd >= 0 ? 1 : 0, &err);

		if (rc == -DR_EAGAIN) {
			qb_loop_poll_mod(r->agent->loop, QB_LOOP_HIGH, r->ctl, POLLIN | POLLOUT, r, on_ctl);
			return;
		}
		if (rc != 0) {
			log_debug("%s: %s", r->name, err.text);
			close_ctl(r); /* its end is seen by the pidfd */
			return;
		}
		r->out = o->next;
		if (r->out == NULL)
			r->out_tail = &r->out;
		r->n_out--;
		free_out(o);
	}
	qb_loop_poll_mod(r->agent->loop, QB_LOOP_HIGH, r->ctl, POLLIN, r, on_ctl);
}

static void send_command(struct relay *r, Drover__RelayCommand *cmd, int take_fd)
{
	Drover__Msg msg = DROVER__MSG__INIT;
	struct outgoing *o = r->ctl >= 0 && r->n_out < RELAY_QUEUE ? calloc(1, sizeof(*o)) : NULL;

	msg.body_case = DROVER__MSG__BODY_RELAY_COMMAND;
	msg.relay_command = cmd;
	if (o != NULL) {
		o->size = drover__msg__get_packed_size(&msg);
		o->bytes = malloc(o->size + 1);
		o->fd = take_fd;
	}
	if (o == NULL || o->bytes == NULL) {
		free(o);
		if (take_fd >= 0)
			close(take_fd);
		return;
	}
	drover__msg__pack(&msg, o->bytes);
	*r->out_tail = o;
	r->out_tail = &o->next;
	r->n_out++;
	flush(r);
}

static void send_setup(struct relay *r, int take_qemu)
{
	Drover__RelaySetup setup = DROVER__RELAY_SETUP__INIT;
	Drover__RelayCommand cmd = DROVER__RELAY_COMMAND__INIT;

	setup.role = order_of(r)->role;
	setup.move = order_of(r)->move;
	setup.attempt = order_of(r)->attempt;
	setup.key = order_of(r)->key;
	setup.chunk_size = RELAY_CHUNK;
	setup.window = RELAY_WINDOW;
	setup.reconnect_timeout_ms = RELAY_RECONNECT_MS;
	setup.stats_interval_ms = RELAY_STATS_MS;
	cmd.body_case = DROVER__RELAY_COMMAND__BODY_SETUP;
	cmd.setup = &setup;
	send_command(r, &cmd, take_qemu);
}

void relay_say(struct relay *r, enum relay_word word)
{
	Drover__RelaySimple simple = DROVER__RELAY_SIMPLE__INIT;
	Drover__RelayCommand cmd = DROVER__RELAY_COMMAND__INIT;

	switch (word) {
	case RELAY_BRAKE:
		cmd.body_case = DROVER__RELAY_COMMAND__BODY_BRAKE;
		break;
	case RELAY_RESUMED:
		cmd.body_case = DROVER__RELAY_COMMAND__BODY_RESUMED;
		break;
	case RELAY_QUIT:
		cmd.body_case = DROVER__RELAY_COMMAND__BODY_QUIT;
		break;
	case RELAY_QUERY:
		cmd.body_case = DROVER__RELAY_COMMAND__BODY_QUERY;
		break;
	case RELAY_URGENT:
		cmd.body_case = DROVER__RELAY_COMMAND__BODY_URGENT;
		break;
	}
	simple.value = 1;
	cmd.brake = &simple; /* the members of the union are all RelaySimple */
	send_command(r, &cmd, -1);
}

size_t relay_figures(const struct relay *r, Drover__RelayNetwork ***figures)
{
	*figures = r->stats != NULL ? r->stats->relay_event->networks : NULL;
	return r->stats != NULL ? r->stats->relay_event->n_networks : 0;
}

void relay_drop_path(struct relay *r, size_t path)
{
	Drover__RelaySimple simple = DROVER__RELAY_SIMPLE__INIT;
	Drover__RelayCommand cmd = DROVER__RELAY_COMMAND__INIT;

	if (!relay_path_up(r, path))
		return;
	simple.value = r->up_ids[path];
	cmd.body_case = DROVER__RELAY_COMMAND__BODY_DROP;
	cmd.drop = &simple;
	send_command(r, &cmd, -1);
}

void relay_set_budget(struct relay *r, uint64_t bytes_per_s)
{
	Drover__RelayBudget budget = DROVER__RELAY_BUDGET__INIT;
	Drover__RelayCommand cmd = DROVER__RELAY_COMMAND__INIT;

	if (r->budget_known && r->budget == bytes_per_s)
		return;
	r->budget = bytes_per_s;
	r->budget_known = r->ctl >= 0;
	budget.bytes_per_s = bytes_per_s;
	cmd.body_case = DROVER__RELAY_COMMAND__BODY_BUDGET;
	cmd.budget = &budget;
	send_command(r, &cmd, -1);
}

static void send_channel(struct relay *r, uint32_t id, const Drover__NetworkPath *path, uint32_t rank,
			 int take_fd)
{
	Drover__RelayChannel channel = DROVER__RELAY_CHANNEL__INIT;
	Drover__RelayCommand cmd = DROVER__RELAY_COMMAND__INIT;

	channel.id = id;
	channel.network = path->network;
	channel.encrypt = path->encrypt;
	channel.rank = rank;
	cmd.body_case = DROVER__RELAY_COMMAND__BODY_CHANNEL;
	cmd.channel = &channel;
	send_command(r, &cmd, take_fd);
}

/* ------------------------------------------------ events */

static struct attempt *find_attempt(struct relay *r, uint32_t id)
{
	for (struct attempt *t = r->attempts; t != NULL; t = t->next)
		if (t->id == id)
			return t;
	return NULL;
}

/*
 * A relay tells its whole state when an agent connects again; the answer to our query marks the end of that.
 * Only then the machine hears of it: that it is up, with how many channels, and what else had happened.
 */
static void attach_event(struct relay *r, const Drover__RelayEvent *ev)
{
	static const Drover__RelayEvent__Kind again[] = {
		DROVER__RELAY_EVENT__KIND__PEER_RESUMED, DROVER__RELAY_EVENT__KIND__STREAM_DONE,
		DROVER__RELAY_EVENT__KIND__FAILED, DROVER__RELAY_EVENT__KIND__NEED_CHANNEL};

	if (ev->kind == DROVER__RELAY_EVENT__KIND__CHANNEL_UP && (ev->channel & 0xff) < RELAY_PATHS)
		r->up_ids[ev->channel & 0xff] = ev->channel;
	if (ev->kind == DROVER__RELAY_EVENT__KIND__FAILED)
		snprintf(r->seen_text, sizeof(r->seen_text), "%s", ev->text);
	r->seen |= 1u << ev->kind;
	if (ev->kind != DROVER__RELAY_EVENT__KIND__STATS)
		return;
	env_timer_stop(r->agent->env, &r->start_timer);
	r->attaching = false;
	r->up = true;
	r->ops->on_up(paths_up(r), r->data);
	for (size_t i = 0; i < DR_ARRAY_SIZE(again); i++) {
		Drover__RelayEvent copy = *ev;

		copy.kind = again[i];
		copy.text = r->seen_text;
		if ((r->seen & 1u << again[i]) != 0)
			r->ops->on_event(&copy, 0, r->data);
	}
}

bool relay_kind_known(Drover__RelayEvent__Kind kind)
{
	return kind >= DROVER__RELAY_EVENT__KIND__STATS && kind <= DROVER__RELAY_EVENT__KIND__NEED_CHANNEL;
}

static void got_event(struct relay *r, const Drover__RelayEvent *ev)
{
	unsigned int path = ev->channel & 0xff;
	struct attempt *t = find_attempt(r, ev->channel);

	/* The relay has no privileges; what it says is checked like bytes from outside. */
	if (!relay_kind_known(ev->kind)) {
		log_warning("%s: event of unknown kind %d: dropped", r->name, (int)ev->kind);
		return;
	}
	if (r->attaching) {
		attach_event(r, ev);
		return;
	}
	if (ev->kind == DROVER__RELAY_EVENT__KIND__READY) {
		env_timer_stop(r->agent->env, &r->start_timer);
		if (!r->up) {
			r->up = true;
			r->ops->on_up(0, r->data);
		}
		return;
	}
	if (ev->kind == DROVER__RELAY_EVENT__KIND__CHANNEL_DOWN && t != NULL) {
		end_attempt(t);
		r->ops->on_channel_failed(
			path, ev->text != NULL && ev->text[0] != '\0' ? ev->text : "refused", r->data);
		return;
	}
	if (ev->kind == DROVER__RELAY_EVENT__KIND__CHANNEL_UP) {
		if (t != NULL)
			end_attempt(t);
		if (path < RELAY_PATHS)
			r->up_ids[path] = ev->channel;
	}
	if (ev->kind == DROVER__RELAY_EVENT__KIND__CHANNEL_DOWN) {
		if (path >= RELAY_PATHS || r->up_ids[path] != ev->channel)
			return; /* a newer one took its place */
		r->up_ids[path] = 0;
	}
	r->ops->on_event(ev, path, r->data);
}

/* False: the socket is empty or closed. */
static bool receive(struct relay *r)
{
	static uint8_t buf[RELAY_PACKET_MAX];
	int fds[NET_FDS_MAX];
	size_t n_fds = 0;
	struct dr_error err = DR_ERROR_INIT;
	ssize_t n = net_recv_fds(r->ctl, buf, sizeof(buf), fds, &n_fds, &err);
	Drover__Msg *msg;

	for (size_t i = 0; n > 0 && i < n_fds; i++)
		close(fds[i]); /* relays send none */
	if (n == -DR_EAGAIN)
		return false;
	msg = n > 0 ? drover__msg__unpack(NULL, (size_t)n, buf) : NULL;
	if (msg == NULL || msg->body_case != DROVER__MSG__BODY_RELAY_EVENT) {
		log_debug("%s: control socket: %s", r->name, n == 0 ? "closed" : "not a relay event");
		if (msg != NULL)
			drover__msg__free_unpacked(msg, NULL);
		close_ctl(r);
		return false;
	}
	got_event(r, msg->relay_event);
	if (msg->relay_event->kind == DROVER__RELAY_EVENT__KIND__STATS) {
		Drover__Msg *old = r->stats;

		r->stats = msg;
		msg = old;
	}
	if (msg != NULL)
		drover__msg__free_unpacked(msg, NULL);
	return r->ctl >= 0;
}

static int32_t on_ctl(int32_t fd, int32_t revents, void *data)
{
	struct relay *r = data;

	(void)fd;
	if (revents & POLLOUT)
		flush(r);
	/* The callbacks never free the relay: move_real.c does that after on_gone only. */
	for (int i = 0; i < RELAY_EVENTS_TURN && r->ctl >= 0 && (revents & (POLLIN | POLLHUP | POLLERR)); i++)
		if (!receive(r))
			break;
	return 0;
}

static int connect_ctl(struct relay *r, struct dr_error *err)
{
	int fd = net_connect_unix(r->path, SOCK_SEQPACKET, err);

	if (fd < 0)
		return fd;
	r->ctl = fd;
	if (qb_loop_poll_add(r->agent->loop, QB_LOOP_HIGH, fd, POLLIN, r, on_ctl) != 0)
		abort();
	return 0;
}

/* ------------------------------------------------ start, attach, end */

static void on_start_timeout(void *data)
{
	struct relay *r = data;

	r->start_timer = 0;
	log_error("%s: does not answer, killed", r->name);
	kill_now(r);
}

static int spawn_relay(struct relay *r, int (*record)(const struct proc *proc, void *data), void *data,
		       struct dr_error *err)
{
	const char *program = getenv("DROVER_RELAY");
	char unit[80];
	char log_path[300];
	char *argv[] = {(char *)(uintptr_t)(program != NULL ? program : DROVER_LIBEXECDIR "/drover-relay"),
			r->name, NULL};
	struct spawn s = {.unit = unit, .argv = argv, .n_fds = 1, .log_path = log_path};
	DR_AUTO_FD int listener = net_listen_unix(r->path, SOCK_SEQPACKET, 0600, (gid_t)-1, err);
	int gate = -1;
	int rc;

	if (listener < 0)
		return listener;
	snprintf(unit, sizeof(unit), "drover-%s", r->name);
	snprintf(log_path, sizeof(log_path), "%s/%s.log", r->agent->conf.run_dir, r->name);
	s.fds = &listener;
	rc = spawner_start(r->agent->spawner, &s, &r->proc, &gate, err);
	if (rc != 0)
		return rc;
	rc = record(&r->proc, data);
	if (rc != 0) {
		spawner_abandon(&gate);
		proc_close(&r->proc);
		return dr_error_set(err, DR_EIO, "the relay's start could not be recorded");
	}
	spawner_open(&gate);
	return 0;
}

int relay_start(struct relay *r, int (*record)(const struct proc *proc, void *data), void *data, int *qemu_fd,
		struct dr_error *err)
{
	int pair[2];
	int rc = spawn_relay(r, record, data, err);

	if (rc != 0)
		return rc;
	watch(r);
	r->start_timer = env_timer_start(r->agent->env, RELAY_START_US, on_start_timeout, r);
	rc = connect_ctl(r, err);
	if (rc == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		rc = dr_error_errno(err, DR_EIO, errno, "socketpair");
	if (rc != 0) {
		kill_now(r);
		close_all(r);
		return rc;
	}
	net_big_buffers(pair[0]);
	net_big_buffers(pair[1]);
	*qemu_fd = pair[0];
	send_setup(r, pair[1]);
	return 0;
}

int relay_attach(struct relay *r, pid_t pid, uint64_t start_time)
{
	struct dr_error err = DR_ERROR_INIT;
	int rc;

	if (relay_running(r))
		return 0;
	rc = proc_open(&r->proc, pid, start_time);
	if (rc != 0)
		return rc;
	watch(r);
	if (!proc_cmdline_has(pid, r->name) || connect_ctl(r, &err) != 0) {
		log_warning("%s: cannot be reached again: %s", r->name, err.text);
		kill_now(r);
		return 0;
	}
	r->attaching = true;
	r->start_timer = env_timer_start(r->agent->env, RELAY_START_US, on_start_timeout, r);
	relay_say(r, RELAY_QUERY);
	return 0;
}

static void on_quit_timeout(void *data)
{
	struct relay *r = data;

	r->quit_timer = 0;
	kill_now(r);
}

int relay_end(struct relay *r, bool kill)
{
	if (!relay_running(r))
		return -DR_ENOENT;
	if (kill || r->ctl < 0) {
		kill_now(r);
		return 0;
	}
	relay_say(r, RELAY_QUIT);
	if (r->quit_timer == 0)
		r->quit_timer = env_timer_start(r->agent->env, RELAY_QUIT_US, on_quit_timeout, r);
	return 0;
}

/* ------------------------------------------------ channels */

static void attempt_failed(struct attempt *t, const char *why)
{
	struct relay *r = t->r;
	unsigned int path = t->path;

	end_attempt(t);
	r->ops->on_channel_failed(path, why, r->data);
}

static void on_attempt_timeout(void *data)
{
	struct attempt *t = data;

	t->timer = 0;
	attempt_failed(t, t->fd >= 0 ? "no connection in time" : "no authentication in time");
}

/* For the relay. Mode tcp is one stream: there each network is a rank of its own. */
static uint32_t rank_of(const Drover__MoveOrder *o, unsigned int path)
{
	return o->mode != NULL && strcmp(o->mode, "tcp") == 0 ? path : o->paths[path]->rank;
}

static void on_connected(void *data)
{
	struct attempt *t = data;
	struct relay *r = t->r;
	struct preamble p = {.move = order_of(r)->move, .attempt = order_of(r)->attempt, .channel = t->id};
	uint8_t bytes[RELAY_PREAMBLE];
	struct dr_error err = DR_ERROR_INIT;
	int rc = net_connect_result(t->fd, &err);
	int fd;

	if (rc == -DR_EAGAIN)
		return;
	preamble_write(bytes, &p);
	/* A socket that was never written to takes 32 bytes at once. */
	if (rc == 0 && send(t->fd, bytes, sizeof(bytes), MSG_NOSIGNAL) != (ssize_t)sizeof(bytes))
		rc = dr_error_errno(&err, DR_EIO, errno, "send");
	if (rc != 0) {
		attempt_failed(t, err.text);
		return;
	}
	qb_loop_poll_del(r->agent->loop, t->fd);
	fd = t->fd;
	t->fd = -1;
	env_timer_stop(r->agent->env, &t->timer);
	t->timer = env_timer_start(r->agent->env, RELAY_CONNECT_US, on_attempt_timeout, t);
	send_channel(r, t->id, order_of(r)->paths[t->path], rank_of(order_of(r), t->path), fd);
}

static int32_t on_attempt_io(int32_t fd, int32_t revents, void *data)
{
	(void)fd;
	(void)revents;
	on_connected(data);
	return 0;
}

static int begin(struct attempt *t, struct dr_error *err)
{
	const Drover__MoveOrder *o = order_of(t->r);
	const Drover__NetworkPath *path = o->paths[t->path];
	struct net_addr to;
	struct net_addr src;
	int rc = net_parse_host(path->dst_address, (uint16_t)o->dst_port, &to, err);

	if (rc == 0)
		rc = net_parse_host(path->src_address, 0, &src, err);
	if (rc == 0)
		rc = net_connect_tcp(&to, &src, err);
	if (rc < 0)
		return rc;
	t->fd = rc;
	net_tune_tcp(t->fd, RELAY_DEAD_MS);
	if (qb_loop_poll_add(t->r->agent->loop, QB_LOOP_MED, t->fd, POLLOUT, t, on_attempt_io) != 0)
		abort();
	return 0;
}

static void on_begin_failed(void *data)
{
	struct attempt *t = data;

	t->timer = 0;
	attempt_failed(t, "the address cannot be used on this host now");
}

void relay_connect(struct relay *r, unsigned int path)
{
	struct dr_error err = DR_ERROR_INIT;
	struct attempt *t = calloc(1, sizeof(*t));

	if (t == NULL)
		abort();
	t->r = r;
	t->path = path;
	t->fd = -1;
	r->last_channel += 0x100;
	t->id = (r->last_channel & ~0xffu) | (path & 0xff);
	t->next = r->attempts;
	r->attempts = t;
	if (path < order_of(r)->n_paths && path <= 0xff && begin(t, &err) == 0) {
		t->timer = env_timer_start(r->agent->env, RELAY_SYN_US, on_attempt_timeout, t);
		return;
	}
	log_info("%s: path %u: %s", r->name, path, err.text);
	t->timer = env_timer_start(r->agent->env, 0, on_begin_failed, t);
}

void relay_accept(struct relay *r, const struct preamble *p, const char *local_address, int take_fd)
{
	const Drover__MoveOrder *o = order_of(r);

	for (size_t i = 0; i < o->n_paths; i++) {
		if (strcmp(o->paths[i]->dst_address, local_address) != 0)
			continue;
		net_tune_tcp(take_fd, RELAY_DEAD_MS);
		send_channel(r, p->channel, o->paths[i], 0, take_fd);
		return;
	}
	log_warning("%s: a channel came to %s, which is on no network of this move: refused", r->name,
		    local_address);
	close(take_fd);
}
