/* The agent's side of the relay: packets with one drover.Msg each over a SOCK_SEQPACKET socket, and
 * descriptors. */
#include <errno.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/net.h"
#include "relay/relay.h"

#define PACKETS_PER_TURN 16

static uint64_t cpu_us(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static size_t network_figures(const struct relay *relay, Drover__RelayNetwork out[RELAY_NETWORKS],
			      Drover__RelayNetwork *rows[RELAY_NETWORKS])
{
	size_t n = 0;

	for (size_t i = 0; i < RELAY_NETWORKS && relay->networks[i].name[0] != '\0'; i++) {
		const struct network *network = &relay->networks[i];
		Drover__RelayNetwork *row = &out[n];

		drover__relay_network__init(row);
		row->network = (char *)(uintptr_t)network->name;
		row->bytes_wire = relay_network_wire(relay, network);
		row->bytes_again = network->again;
		row->rate = network->rate;
		row->stall_ms = network->stall_us / 1000;
		row->lost = network->lost;
		for (size_t k = 0; k < RELAY_CHANNELS; k++)
			if (relay->channels[k].state >= CHANNEL_SYNC && relay->channels[k].network == network)
				row->up = true;
		rows[n++] = row;
	}
	return n;
}

void control_event(struct relay *relay, Drover__RelayEvent__Kind kind, uint32_t channel, const char *text)
{
	Drover__RelayEvent event = DROVER__RELAY_EVENT__INIT;
	Drover__Msg msg = DROVER__MSG__INIT;
	Drover__RelayNetwork networks[RELAY_NETWORKS], *rows[RELAY_NETWORKS];
	uint8_t packet[4096];

	if (relay->control.fd < 0)
		return;
	event.kind = kind;
	event.channel = channel;
	event.text = (char *)(uintptr_t)(text != NULL ? text : "");
	event.bytes_guest = relay->destination ? relay->rx.delivered : relay->tx.head;
	event.bytes_wire = relay_wire(relay);
	event.bytes_acked = relay->tx.acked_bytes;
	event.rate = relay->rate;
	event.cpu_us = cpu_us();
	event.stall_ms = relay->stall_us / 1000;
	event.networks = rows;
	if (kind == DROVER__RELAY_EVENT__KIND__STATS)
		event.n_networks = network_figures(relay, networks, rows);
	msg.body_case = DROVER__MSG__BODY_RELAY_EVENT;
	msg.relay_event = &event;
	if (drover__msg__get_packed_size(&msg) > sizeof(packet))
		return;
	/* An agent that reads nothing is let go; when it connects again it hears the state. */
	if (net_send_fds(relay->control.fd, packet, drover__msg__pack(&msg, packet), NULL, 0, NULL) != 0 &&
	    kind != DROVER__RELAY_EVENT__KIND__STATS)
		control_close(relay);
}

void control_close(struct relay *relay)
{
	if (relay->control.fd < 0)
		return;
	loop_close(relay->epoll, &relay->control);
	relay->lonely_at = loop_now_us() + RELAY_LONELY_US;
}

/* What an agent has to know that was not there when it happened. */
static void tell_state(struct relay *relay)
{
	if (relay->state == RELAY_NEW)
		return;
	control_event(relay, DROVER__RELAY_EVENT__KIND__READY, 0, NULL);
	for (size_t i = 0; i < RELAY_CHANNELS; i++)
		if (relay->channels[i].state >= CHANNEL_SYNC)
			control_event(relay, DROVER__RELAY_EVENT__KIND__CHANNEL_UP, relay->channels[i].id,
				      relay->channels[i].network->name);
	if (relay->qemu_ended)
		control_event(relay, DROVER__RELAY_EVENT__KIND__QEMU_CLOSED, 0, NULL);
	if (relay->peer_resumed)
		control_event(relay, DROVER__RELAY_EVENT__KIND__PEER_RESUMED, 0, NULL);
	if (relay->state == RELAY_DONE)
		control_event(relay, DROVER__RELAY_EVENT__KIND__STREAM_DONE, 0, NULL);
	else if (relay->state == RELAY_FAILED)
		control_event(relay, DROVER__RELAY_EVENT__KIND__FAILED, 0, relay->why.text);
	else if (relay->channels_known == 0)
		control_event(relay, DROVER__RELAY_EVENT__KIND__NEED_CHANNEL, 0, NULL);
}

/* Uses up *fd when the command wants it (sets it to -1). */
static void obey(struct relay *relay, const Drover__RelayCommand *command, int *fd)
{
	struct dr_error err = DR_ERROR_INIT;
	int given = *fd;

	switch (command->body_case) {
	case DROVER__RELAY_COMMAND__BODY_SETUP:
		*fd = -1;
		if (relay->state != RELAY_NEW) { /* an agent that does not know what it did before */
			if (given >= 0)
				close(given);
			tell_state(relay);
		} else if (relay_setup(relay, command->setup, given, &err) != 0) {
			relay_log(relay, "setup refused: %s", err.text);
			control_event(relay, DROVER__RELAY_EVENT__KIND__FAILED, 0, err.text);
		}
		break;
	case DROVER__RELAY_COMMAND__BODY_CHANNEL:
		*fd = -1;
		relay_add_channel(relay, command->channel, given);
		break;
	case DROVER__RELAY_COMMAND__BODY_BUDGET:
		relay_set_budget(relay, command->budget->bytes_per_s);
		break;
	case DROVER__RELAY_COMMAND__BODY_BRAKE:
		relay_brake(relay);
		break;
	case DROVER__RELAY_COMMAND__BODY_RESUMED:
		relay_resumed(relay);
		break;
	case DROVER__RELAY_COMMAND__BODY_QUIT:
		relay->quit = true;
		break;
	case DROVER__RELAY_COMMAND__BODY_QUERY:
		control_event(relay, DROVER__RELAY_EVENT__KIND__STATS, 0, NULL);
		break;
	case DROVER__RELAY_COMMAND__BODY_URGENT:
		relay_set_urgent(relay, command->urgent->value != 0);
		break;
	case DROVER__RELAY_COMMAND__BODY_DROP:
		relay_drop(relay, command->drop->value);
		break;
	case DROVER__RELAY_COMMAND__BODY__NOT_SET:
	case _DROVER__RELAY_COMMAND__BODY__CASE_IS_INT_SIZE:
		relay_log(relay, "ignored an unknown command");
		break;
	}
}

static void on_packet(struct relay *relay, const uint8_t *packet, size_t size, int *fds, size_t n_fds)
{
	Drover__Msg *msg = drover__msg__unpack(NULL, size, packet);

	if (n_fds == 0) {
		fds[0] = -1;
		n_fds = 1;
	}
	if (msg == NULL || msg->body_case != DROVER__MSG__BODY_RELAY_COMMAND)
		relay_log(relay, "ignored a packet that is no command");
	else
		obey(relay, msg->relay_command, &fds[0]);
	for (size_t i = 0; i < n_fds; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	if (msg != NULL)
		drover__msg__free_unpacked(msg, NULL);
}

static void on_control(void *data, uint32_t events)
{
	static uint8_t packet[RELAY_PACKET_MAX];
	struct relay *relay = data;

	(void)events;
	for (int i = 0; i < PACKETS_PER_TURN && relay->control.fd >= 0 && !relay->quit; i++) {
		struct dr_error err = DR_ERROR_INIT;
		int fds[NET_FDS_MAX];
		size_t n_fds;
		ssize_t n = net_recv_fds(relay->control.fd, packet, sizeof(packet), fds, &n_fds, &err);

		if (n == -DR_EAGAIN)
			return;
		if (n <= 0) {
			relay_log(relay, "the agent has gone%s%s", n < 0 ? ": " : "", err.text);
			control_close(relay);
			return;
		}
		on_packet(relay, packet, (size_t)n, fds, n_fds);
	}
}

/* The newest connection is the agent: an older one belongs to one that has been restarted. */
static void on_listen(void *data, uint32_t events)
{
	struct relay *relay = data;
	struct ucred peer = {.uid = (uid_t)-1};
	socklen_t len = sizeof(peer);
	int fd = accept4(relay->listen.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	(void)events;
	if (fd < 0)
		return;
	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len);
	if (peer.uid != 0 && peer.uid != relay->owner) {
		relay_log(relay, "refused a control connection of uid %d", (int)peer.uid);
		close(fd);
		return;
	}
	control_close(relay);
	relay->control.fd = fd;
	relay->lonely_at = 0;
	loop_watch(relay->epoll, &relay->control, EPOLLIN);
	tell_state(relay);
}

void control_init(struct relay *relay, int take_listen)
{
	relay->control = (struct watch){.fd = -1, .fn = on_control, .data = relay};
	relay->listen = (struct watch){.fd = take_listen, .fn = on_listen, .data = relay};
	loop_watch(relay->epoll, &relay->listen, EPOLLIN);
}
