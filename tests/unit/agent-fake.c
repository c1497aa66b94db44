#include "agent-fake.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent/proc.h"
#include "common/conf.h"

static void copy_report(struct fake_agent *a, const Drover__AgentReport *r)
{
	size_t size = drover__agent_report__get_packed_size(r);
	uint8_t *bytes = malloc(size + 1);

	drover__agent_report__pack(r, bytes);
	if (a->report != NULL)
		drover__agent_report__free_unpacked(a->report, NULL);
	a->report = drover__agent_report__unpack(NULL, size, bytes);
	free(bytes);
	for (size_t i = 0; i < r->n_moves; i++)
		for (size_t k = 0; k < r->moves[i]->n_events; k++) {
			size_t len = strlen(a->events);

			snprintf(a->events + len, sizeof(a->events) - len, "%s\n", r->moves[i]->events[k]);
		}
}

static void forget_report(struct fake_agent *a)
{
	if (a->report != NULL)
		drover__agent_report__free_unpacked(a->report, NULL);
	a->report = NULL;
}

static void welcome(struct fake *f, struct conn *conn, const Drover__Hello *h)
{
	Drover__Msg msg = DROVER__MSG__INIT;
	Drover__Welcome w = DROVER__WELCOME__INIT;

	for (int i = 0; i < FAKE_AGENTS; i++) {
		struct fake_agent *a = &f->agents[i];

		if (strcmp(a->name, h->node) != 0)
			continue;
		a->conn = conn;
		memcpy(a->start_id, h->start_id.data, 16);
		memcpy(a->boot_id, h->boot_id.data, 16);
		forget_report(a);
		conn_set_data(conn, a);
	}
	w.protocol = 1;
	w.cluster = (char *)(uintptr_t) "test";
	w.cluster_uuid.data = f->uuid;
	w.cluster_uuid.len = 16;
	w.node = (char *)(uintptr_t) "fake";
	msg.body_case = DROVER__MSG__BODY_WELCOME;
	msg.welcome = &w;
	conn_send(conn, &msg);
}

static void grant(struct fake_agent *a, const Drover__LeaseRequest *req)
{
	Drover__Msg msg = DROVER__MSG__INIT;
	Drover__LeaseGrant g = DROVER__LEASE_GRANT__INIT;

	if (!a->fake->grant)
		return;
	g.seq = req->seq;
	g.duration_ms = 30000;
	g.term = a->fake->term;
	a->last_grant = req->seq;
	msg.body_case = DROVER__MSG__BODY_LEASE_GRANT;
	msg.lease_grant = &g;
	conn_send(a->conn, &msg);
}

static struct fake *the_fake;

static void on_message(struct conn *conn, const Drover__Msg *msg, void *data)
{
	struct fake_agent *a = data;

	if (msg->body_case == DROVER__MSG__BODY_HELLO)
		welcome(the_fake, conn, msg->hello);
	else if (a != NULL && msg->body_case == DROVER__MSG__BODY_AGENT_REPORT)
		copy_report(a, msg->agent_report);
	else if (a != NULL && msg->body_case == DROVER__MSG__BODY_LEASE_REQUEST)
		grant(a, msg->lease_request);
}

static void on_close(struct conn *conn, const struct dr_error *why, void *data)
{
	struct fake_agent *a = data;

	(void)why;
	if (a != NULL && a->conn == conn)
		a->conn = NULL;
}

static const struct conn_ops conn_ops = {.on_message = on_message, .on_close = on_close};

static void *on_accept(struct listener *listener, struct conn *conn, void *data)
{
	(void)listener;
	(void)conn;
	(void)data;
	return NULL; /* known with its Hello */
}

static void write_file(const char *path, const void *bytes, size_t size, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

	if (fd < 0 || write(fd, bytes, size) != (ssize_t)size)
		abort();
	close(fd);
}

static void write_conf(struct fake *f, struct fake_agent *a)
{
	char path[200];
	char text[1200];
	const char *level = getenv("DROVER_TEST_LOG");

	mkdir(a->dir, 0755);
	snprintf(path, sizeof(path), "%s/drover.conf", a->dir);
	snprintf(text, sizeof(text),
		 "[node]\nname=%s\nroles=agent\nconnect=%s\nkey_file=%s/key\ndata_dir=%s/data\nrun_dir=%s/"
		 "run\n"
		 "log_level=%s\n[agent]\nrelay_port=%u\n",
		 a->name, f->address, f->dir, a->dir, a->dir, level != NULL ? level : "info", a->relay_port);
	write_file(path, text, strlen(text), 0644);
}

/* A port that was free just now. */
static uint16_t free_port(void)
{
	struct sockaddr_in sin = {.sin_family = AF_INET};
	socklen_t len = sizeof(sin);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&sin, sizeof(sin)) != 0 ||
	    getsockname(fd, (struct sockaddr *)&sin, &len) != 0)
		abort();
	close(fd);
	return ntohs(sin.sin_port);
}

int fake_setup(struct fake *f)
{
	struct dr_error err = DR_ERROR_INIT;
	struct sockaddr_in sin;
	socklen_t len = sizeof(sin);
	uint8_t key[TLS_KEY_SIZE];
	char path[200];

	memset(f, 0, sizeof(*f));
	the_fake = f;
	f->loop = qb_loop_create();
	f->term = 1;
	f->incarnation = 1;
	f->grant = true;
	snprintf(f->dir, sizeof(f->dir), "/tmp/drover-test-agent.XXXXXX");
	if (mkdtemp(f->dir) == NULL || getrandom(key, sizeof(key), 0) != sizeof(key) ||
	    getrandom(f->uuid, sizeof(f->uuid), 0) != sizeof(f->uuid))
		return -1;
	snprintf(path, sizeof(path), "%s/key", f->dir);
	write_file(path, key, sizeof(key), 0600);
	f->tls = tls_psk_new(key, CONF_TLS_IDENTITY, &err);
	f->listener = listener_tcp(f->loop, "127.0.0.1:0", f->tls, &conn_ops, on_accept, f, &err);
	if (f->listener == NULL ||
	    getsockname(listener_fd(f->listener), (struct sockaddr *)&sin, &len) != 0) {
		fprintf(stderr, "%s\n", err.text);
		return -1;
	}
	snprintf(f->address, sizeof(f->address), "127.0.0.1:%u", ntohs(sin.sin_port));
	for (int i = 0; i < FAKE_AGENTS; i++) {
		struct fake_agent *a = &f->agents[i];

		a->fake = f;
		snprintf(a->name, sizeof(a->name), "n%d", i + 1);
		snprintf(a->dir, sizeof(a->dir), "%s/%s", f->dir, a->name);
		a->relay_port = free_port();
		write_conf(f, a);
	}
	return 0;
}

void fake_agent_start(struct fake_agent *a, const char *env)
{
	char conf[200];
	char log[200];
	pid_t pid;

	snprintf(conf, sizeof(conf), "%s/drover.conf", a->dir);
	snprintf(log, sizeof(log), "%s/agent.log", a->dir);
	pid = fork();
	if (pid == 0) {
		int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);

		dup2(fd, STDERR_FILENO);
		setenv("DROVER_RELAY", DROVER_TEST_RELAY, 1);
		if (env != NULL)
			putenv((char *)(uintptr_t)env);
		execl(DROVER_TEST_AGENT, "drover-agent", "-c", conf, (char *)NULL);
		_exit(127);
	}
	a->pid = pid;
}

int fake_agent_end(struct fake_agent *a, int signum)
{
	int status = 0;
	struct timespec pause = {.tv_nsec = 10000000};

	if (a->pid > 0)
		kill(a->pid, signum);
	for (int i = 0; a->pid > 0 && i < 800 && waitpid(a->pid, &status, WNOHANG) == 0; i++)
		nanosleep(&pause, NULL);
	a->pid = 0;
	if (a->conn != NULL)
		conn_close(a->conn);
	a->conn = NULL;
	forget_report(a);
	return status;
}

/* ------------------------------------------------ waiting */

struct wait {
	struct fake *f;
	bool (*done)(void *data);
	void *data;
	uint64_t until_ms;
	bool ok;
};

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void look(void *data)
{
	struct wait *w = data;
	qb_loop_timer_handle h;

	w->ok = w->done(w->data);
	if (w->ok || now_ms() >= w->until_ms)
		qb_loop_stop(w->f->loop);
	else
		qb_loop_timer_add(w->f->loop, QB_LOOP_LOW, 2000000, w, look, &h);
}

bool fake_until(struct fake *f, bool (*done)(void *data), void *data, unsigned int ms)
{
	struct wait w = {.f = f, .done = done, .data = data, .until_ms = now_ms() + ms};
	qb_loop_timer_handle h;

	qb_loop_timer_add(f->loop, QB_LOOP_LOW, 0, &w, look, &h);
	qb_loop_run(f->loop);
	return w.ok;
}

void fake_orders(struct fake_agent *a, Drover__AgentOrders *o)
{
	Drover__Msg msg = DROVER__MSG__INIT;

	o->term = a->fake->term;
	o->index = ++a->fake->index;
	o->incarnation = a->fake->incarnation;
	o->cluster_uuid.data = a->fake->uuid;
	o->cluster_uuid.len = 16;
	o->start_id.data = a->start_id;
	o->start_id.len = 16;
	msg.body_case = DROVER__MSG__BODY_AGENT_ORDERS;
	msg.agent_orders = o;
	if (a->conn != NULL)
		conn_send(a->conn, &msg);
}

const Drover__VmFact *fake_vm(const struct fake_agent *a, const char *name)
{
	for (size_t i = 0; a->report != NULL && i < a->report->n_vms; i++)
		if (strcmp(a->report->vms[i]->name, name) == 0)
			return a->report->vms[i];
	return NULL;
}

const Drover__MoveFact *fake_move(const struct fake_agent *a, uint64_t move, uint32_t attempt)
{
	for (size_t i = 0; a->report != NULL && i < a->report->n_moves; i++)
		if (a->report->moves[i]->move == move && a->report->moves[i]->attempt == attempt)
			return a->report->moves[i];
	return NULL;
}

pid_t fake_process(const char *mark, const char *mark2)
{
	DIR *d = opendir("/proc");
	struct dirent *e;
	pid_t found = 0;

	while (d != NULL && found == 0 && (e = readdir(d)) != NULL) {
		pid_t pid = (pid_t)atoi(e->d_name);

		if (pid > 0 && proc_cmdline_has(pid, mark) && proc_cmdline_has(pid, mark2))
			found = pid;
	}
	if (d != NULL)
		closedir(d);
	return found;
}

static bool never(void *data)
{
	(void)data;
	return false;
}

void fake_teardown(struct fake *f)
{
	char cmd[160];
	pid_t pid;

	for (int i = 0; i < FAKE_AGENTS; i++) {
		fake_agent_end(&f->agents[i], SIGKILL);
	}
	/* Connections end from the loop. */
	fake_until(f, never, NULL, 50);
	/* QEMUs of this test, by its own directory on their command lines. */
	while ((pid = fake_process("qemu-system", f->dir)) != 0) {
		struct timespec pause = {.tv_nsec = 10000000};

		kill(pid, SIGKILL);
		nanosleep(&pause, NULL);
	}
	listener_free(f->listener);
	tls_psk_free(f->tls);
	qb_loop_destroy(f->loop);
	if (getenv("DROVER_TEST_KEEP") != NULL)
		return;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", f->dir);
	if (system(cmd) != 0)
		fprintf(stderr, "%s is left behind\n", f->dir);
}
