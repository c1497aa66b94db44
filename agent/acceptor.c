/* The agent's TCP port for relay channels: reads the preamble, hands the socket to the relay that it names.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/move_real.h"
#include "agent/relays.h"
#include "common/log.h"
#include "common/net.h"

#define PENDING_MAX  64
#define PENDING_US   5000000u
#define ACCEPTS_TURN 16

struct pending {
	struct pending *next;
	struct acceptor *acc;
	int fd;
	uint64_t timer;
	size_t have;
	uint8_t bytes[RELAY_PREAMBLE];
};

struct acceptor {
	struct agent *agent;
	int fd;
	struct pending *pending;
	unsigned int n;
};

/* Forgets it; the socket stays open when it was handed on. */
static void drop(struct pending *p, bool close_fd)
{
	struct pending **at = &p->acc->pending;

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	p->acc->n--;
	env_timer_stop(p->acc->agent->env, &p->timer);
	qb_loop_poll_del(p->acc->agent->loop, p->fd);
	if (close_fd)
		close(p->fd);
	free(p);
}

static void on_timeout(void *data)
{
	struct pending *p = data;

	p->timer = 0;
	drop(p, true);
}

static void local_address(int fd, char *text, size_t size)
{
	struct net_addr addr = {.len = sizeof(addr.ss)};
	char buf[NET_TEXT];
	char *colon;

	text[0] = '\0';
	if (getsockname(fd, (struct sockaddr *)&addr.ss, &addr.len) != 0)
		return;
	net_format(&addr, buf);
	colon = strrchr(buf, ':');
	if (colon != NULL)
		*colon = '\0';
	if (buf[0] == '[') { /* IPv6 in brackets */
		buf[strcspn(buf, "]")] = '\0';
		snprintf(text, size, "%s", buf + 1);
		if (strncmp(text, "::ffff:", 7) == 0)
			memmove(text, text + 7, strlen(text + 7) + 1);
		return;
	}
	snprintf(text, size, "%s", buf);
}

static void complete(struct pending *p)
{
	struct agent *a = p->acc->agent;
	struct preamble pre;
	struct relay *r = NULL;
	char local[NET_TEXT];
	int fd = p->fd;

	local_address(fd, local, sizeof(local));
	if (preamble_read(p->bytes, &pre) == 0)
		r = amove_dst_relay(a, pre.move, pre.attempt);
	drop(p, r == NULL);
	if (r == NULL)
		log_info("a channel came to %s for a move that does not wait for one", local);
	else
		relay_accept(r, &pre, local, fd);
}

static int32_t on_pending(int32_t fd, int32_t revents, void *data)
{
	struct pending *p = data;
	/* Not a byte more than the preamble: what follows is for the relay. */
	ssize_t n = recv(fd, p->bytes + p->have, sizeof(p->bytes) - p->have, MSG_DONTWAIT);

	(void)revents;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		drop(p, true);
		return 0;
	}
	p->have += (size_t)n;
	if (p->have == sizeof(p->bytes))
		complete(p);
	return 0;
}

static int32_t on_accept(int32_t fd, int32_t revents, void *data)
{
	struct acceptor *acc = data;

	(void)revents;
	for (int i = 0; i < ACCEPTS_TURN; i++) {
		int conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		struct pending *p;

		if (conn < 0)
			return 0;
		p = acc->n < PENDING_MAX ? calloc(1, sizeof(*p)) : NULL;
		if (p == NULL) {
			close(conn);
			continue;
		}
		p->acc = acc;
		p->fd = conn;
		p->next = acc->pending;
		acc->pending = p;
		acc->n++;
		p->timer = env_timer_start(acc->agent->env, PENDING_US, on_timeout, p);
		if (qb_loop_poll_add(acc->agent->loop, QB_LOOP_MED, conn, POLLIN, p, on_pending) != 0)
			abort();
	}
	return 0;
}

struct acceptor *acceptor_new(struct agent *a, struct dr_error *err)
{
	struct acceptor *acc = calloc(1, sizeof(*acc));
	struct net_addr addr;
	char text[32];

	if (acc == NULL) {
		dr_error_set(err, DR_ENOMEM, "out of memory");
		return NULL;
	}
	acc->agent = a;
	snprintf(text, sizeof(text), "*:%u", a->conf.relay_port);
	acc->fd = net_parse(text, &addr, err) == 0 ? net_listen_tcp(&addr, err) : -1;
	if (acc->fd < 0 || qb_loop_poll_add(a->loop, QB_LOOP_MED, acc->fd, POLLIN, acc, on_accept) != 0) {
		if (acc->fd >= 0)
			close(acc->fd);
		free(acc);
		return NULL;
	}
	return acc;
}

void acceptor_free(struct acceptor *acc)
{
	if (acc == NULL)
		return;
	while (acc->pending != NULL)
		drop(acc->pending, true);
	qb_loop_poll_del(acc->agent->loop, acc->fd);
	close(acc->fd);
	free(acc);
}
