#include "relay/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "relay/pump.h"

#define LATE_US 200000	/* so late means that the host had no processor for us */
#define TRIM_US 1000000 /* the ring is given back to the kernel when it was empty for so long */

void relay_log(const struct relay *relay, const char *fmt, ...)
{
	char line[DR_ERROR_TEXT + 80];
	va_list ap;
	int n;

	n = snprintf(line, sizeof(line), "drover-relay: move %llu/%u %s: ", (unsigned long long)relay->move,
		     relay->attempt, relay->destination ? "dst" : "src");
	va_start(ap, fmt);
	n += vsnprintf(line + n, sizeof(line) - 1 - (size_t)n, fmt, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 2)
		n = (int)sizeof(line) - 2;
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, (size_t)n) <
	    0) { /* dprintf would make more system calls than are allowed */
	}
}

uint64_t relay_network_wire(const struct relay *relay, const struct network *network)
{
	uint64_t wire = network->wire_closed;

	for (size_t i = 0; i < RELAY_CHANNELS; i++)
		if (relay->channels[i].state != CHANNEL_FREE && relay->channels[i].network == network)
			wire += relay->channels[i].wire;
	return wire;
}

uint64_t relay_wire(const struct relay *relay)
{
	uint64_t wire = 0;

	for (size_t i = 0; i < RELAY_NETWORKS; i++)
		wire += relay_network_wire(relay, &relay->networks[i]);
	return wire;
}

/* ---- states ---- */

static void change_state(struct relay *relay, enum relay_state to, const char *why)
{
	static const char *const names[] = {"new", "running", "done", "failed"};

	relay_log(relay, "%s -> %s: %s", names[relay->state], names[to], why);
	relay->state = to;
	relay->reconnect_at = 0;
	if (relay->control.fd < 0)
		relay->lonely_at = loop_now_us() + RELAY_LONELY_US;
}

static void count_channels(struct relay *relay)
{
	relay->channels_known = relay->channels_up = 0;
	for (size_t i = 0; i < RELAY_CHANNELS; i++) {
		relay->channels_known += relay->channels[i].state >= CHANNEL_SYNC;
		relay->channels_up += relay->channels[i].state == CHANNEL_UP;
	}
	relay->tx.wide = relay->channels_known > 1;
}

/* What it had taken waits again. */
static void drop_channel(struct relay *relay, struct channel *channel)
{
	channel->network->wire_closed += channel->wire;
	if (channel->sending)
		tx_sent(&relay->tx, &channel->out);
	tx_lose(&relay->tx, channel->number);
	rx_buffer_free(&relay->rx, channel->keep, channel->in.length);
	channel->keep = NULL;
	channel_close(channel, relay->epoll);
	count_channels(relay);
}

void relay_fail(struct relay *relay, const struct dr_error *why)
{
	struct dr_error ignored = DR_ERROR_INIT;

	if (relay->state != RELAY_RUNNING)
		return;
	/* QEMU first: whatever it waits for, it must not wait longer (SAFETY R29). */
	shutdown(relay->qemu.fd, SHUT_RDWR);
	loop_close(relay->epoll, &relay->qemu);
	relay->why = *why;
	change_state(relay, RELAY_FAILED, why->text);
	pump_owe(relay, OWE_ABORT);
	for (size_t i = 0; i < RELAY_CHANNELS; i++) {
		if (relay->channels[i].state >= CHANNEL_SYNC)
			pump_send(relay, &relay->channels[i], &ignored);
		if (relay->channels[i].state != CHANNEL_FREE)
			drop_channel(relay, &relay->channels[i]);
	}
	tx_stop(&relay->tx);
	tx_trim(&relay->tx);
	rx_fini(&relay->rx);
	control_event(relay, DROVER__RELAY_EVENT__KIND__FAILED, 0, relay->why.text);
}

void relay_channel_lost(struct relay *relay, struct channel *channel, const struct dr_error *why)
{
	bool was_known = channel->state >= CHANNEL_SYNC;
	uint32_t id = channel->id;

	relay_log(relay, "channel %u (%s) is gone: %s", id, channel->network->name, why->text);
	channel->network->lost += was_known;
	drop_channel(relay, channel);
	control_event(relay, DROVER__RELAY_EVENT__KIND__CHANNEL_DOWN, id, why->text);
	if (relay->state != RELAY_RUNNING || relay->channels_known > 0)
		return;
	if (was_known)
		relay->reconnect_at = loop_now_us() + relay->reconnect_us;
	control_event(relay, DROVER__RELAY_EVENT__KIND__NEED_CHANNEL, 0, NULL);
}

static void replace(struct relay *relay, struct channel *old, const struct channel *by, const char *why)
{
	uint32_t id = old->id;

	relay_log(relay, "channel %u (%s) replaces %u (%s): %s", by->id, by->network->name, id,
		  old->network->name, why);
	drop_channel(relay, old);
	control_event(relay, DROVER__RELAY_EVENT__KIND__CHANNEL_DOWN, id, why);
}

/* The channel has proved the key. */
static void channel_authenticated(struct relay *relay, struct channel *channel)
{
	count_channels(relay);
	relay->reconnect_at = 0;
	channel->owed = OWE_ACK;
	if (relay->qemu_deaf)
		channel->owed |= OWE_STOP;
	if (relay->resumed)
		channel->owed |= OWE_RESUMED;
	pump_pace(relay, channel);
	relay_log(relay, "channel %u (%s) is up, %s", channel->id, channel->network->name,
		  channel->ssl != NULL ? "encrypted" : "not encrypted");
	control_event(relay, DROVER__RELAY_EVENT__KIND__CHANNEL_UP, channel->id, channel->network->name);
	for (size_t i = 0; i < RELAY_CHANNELS; i++) {
		struct channel *old = &relay->channels[i];

		if (old != channel && old->state >= CHANNEL_SYNC && old->network == channel->network)
			replace(relay, old, channel, "a newer one over the same network");
	}
}

bool relay_has_better(const struct relay *relay, const struct channel *channel)
{
	for (size_t i = 0; i < RELAY_CHANNELS && !relay->destination; i++)
		if (relay->channels[i].state == CHANNEL_UP && relay->channels[i].rank < channel->rank)
			return true;
	return false;
}

/* Whether a rank is used is the source's to say: the destination sees its channels close. */
void relay_channel_works(struct relay *relay, struct channel *channel)
{
	for (size_t i = 0; i < RELAY_CHANNELS && !relay->destination; i++) {
		struct channel *old = &relay->channels[i];

		if (old->state >= CHANNEL_SYNC && old->rank > channel->rank)
			replace(relay, old, channel, "of a better rank");
	}
	count_channels(relay);
}

/* Has some channel told the peer everything? */
static bool all_told(const struct relay *relay)
{
	for (size_t i = 0; i < RELAY_CHANNELS; i++)
		if (relay->channels[i].state >= CHANNEL_SYNC && relay->channels[i].ctl_len == 0 &&
		    (relay->channels[i].owed & (OWE_ACK | OWE_STOP)) == 0)
			return true;
	return false;
}

static void check_done(struct relay *relay)
{
	struct dr_error why = DR_ERROR_INIT;

	if (relay->state != RELAY_RUNNING || !tx_done(&relay->tx) || !(relay->rx.eof || relay->qemu_deaf) ||
	    !all_told(relay))
		return;
	if (relay->tx.stopped || relay->qemu_deaf) {
		dr_error_set(&why, DR_EFAILED, "QEMU at the %s stopped reading before the end",
			     relay->qemu_deaf == relay->destination ? "destination" : "source");
		relay_fail(relay, &why);
		return;
	}
	loop_close(relay->epoll, &relay->qemu);
	change_state(relay, RELAY_DONE, "everything is delivered and acknowledged");
	control_event(relay, DROVER__RELAY_EVENT__KIND__STREAM_DONE, 0, NULL);
}

/* ---- commands ---- */

int relay_setup(struct relay *relay, const Drover__RelaySetup *setup, int take_qemu, struct dr_error *err)
{
	uint64_t window = setup->window != 0 ? setup->window : TX_WINDOW;
	uint32_t chunk = setup->chunk_size != 0 ? setup->chunk_size : CHUNK_SIZE;
	int r = 0;

	if (relay->state != RELAY_NEW)
		r = dr_error_set(err, DR_EREFUSED, "the relay is set up already");
	else if (take_qemu < 0)
		r = dr_error_set(err, DR_EUSAGE, "no socket of QEMU came with the setup");
	else if (setup->key.len != TLS_KEY_SIZE)
		r = dr_error_set(err, DR_EUSAGE, "a key of %zu bytes, %d are needed", setup->key.len,
				 TLS_KEY_SIZE);
	else if (window < TX_WINDOW_MIN || window > TX_WINDOW_MAX || window % 4096 != 0)
		r = dr_error_set(err, DR_EUSAGE, "a window of %llu bytes, possible are %u to %u in pages",
				 (unsigned long long)window, TX_WINDOW_MIN, TX_WINDOW_MAX);
	else if (chunk < CHUNK_SIZE_MIN || chunk > CHUNK_SIZE_MAX)
		r = dr_error_set(err, DR_EUSAGE, "chunks of %u bytes, possible are %u to %u", chunk,
				 CHUNK_SIZE_MIN, CHUNK_SIZE_MAX);
	else if (tx_init(&relay->tx, window) != 0)
		r = dr_error_set(err, DR_ENOMEM, "no memory for a window of %llu bytes",
				 (unsigned long long)window);
	if (r != 0) {
		if (take_qemu >= 0)
			close(take_qemu);
		return r;
	}
	relay->destination = setup->role == DROVER__MOVE_ROLE__MOVE_DST;
	relay->move = setup->move;
	relay->attempt = setup->attempt;
	memcpy(relay->key, setup->key.data, TLS_KEY_SIZE);
	relay->chunk_size = chunk;
	relay->reconnect_us = 1000ull * (setup->reconnect_timeout_ms != 0 ? setup->reconnect_timeout_ms
									  : RELAY_RECONNECT_MS);
	relay->stats_us =
		1000ull * (setup->stats_interval_ms != 0 ? setup->stats_interval_ms : RELAY_STATS_MS);
	fcntl(take_qemu, F_SETFL, O_RDWR | O_NONBLOCK);
	relay->qemu.fd = take_qemu;
	relay->progress_us = relay->wire_last_us = loop_now_us();
	relay->stats_at = relay->progress_us + relay->stats_us;
	change_state(relay, RELAY_RUNNING, "set up");
	control_event(relay, DROVER__RELAY_EVENT__KIND__READY, 0, NULL);
	return 0;
}

/* The figures of a network; beyond RELAY_NETWORKS they share the last place. */
static struct network *find_network(struct relay *relay, const char *name)
{
	size_t i = 0;

	while (i < RELAY_NETWORKS - 1 && relay->networks[i].name[0] != '\0' &&
	       strncmp(relay->networks[i].name, name, CHANNEL_NAME_SIZE - 1) != 0)
		i++;
	if (relay->networks[i].name[0] == '\0')
		snprintf(relay->networks[i].name, CHANNEL_NAME_SIZE, "%s", name[0] != '\0' ? name : "?");
	return &relay->networks[i];
}

void relay_add_channel(struct relay *relay, const Drover__RelayChannel *what, int take_fd)
{
	struct dr_error err = DR_ERROR_INIT;
	struct channel *channel = NULL;
	char identity[TLS_IDENTITY_MAX + 1];
	struct channel_setup setup = {
		.id = what->id,
		.rank = what->rank,
		.network = find_network(relay, what->network),
		.destination = relay->destination,
		.key = relay->key,
		.move = relay->move,
		.attempt = relay->attempt,
	};

	for (size_t i = 0; i < RELAY_CHANNELS && channel == NULL; i++)
		if (relay->channels[i].state == CHANNEL_FREE)
			channel = &relay->channels[i];
	if (take_fd < 0 || relay->state == RELAY_NEW || relay->state == RELAY_FAILED || channel == NULL) {
		dr_error_set(&err, DR_EREFUSED, "the relay can use no channel now");
		goto refused;
	}
	if (what->encrypt && relay->tls == NULL) {
		snprintf(identity, sizeof(identity), "move-%llu-%u", (unsigned long long)relay->move,
			 relay->attempt);
		relay->tls = tls_psk_new(relay->key, identity, &err);
		if (relay->tls == NULL)
			goto refused;
	}
	setup.tls = what->encrypt ? relay->tls : NULL;
	if (channel_open(channel, DR_TAKE_FD(take_fd), &setup, &err) != 0)
		goto refused;
	pump_channel(relay, channel);
	return;
refused:
	if (take_fd >= 0)
		close(take_fd);
	relay_log(relay, "channel %u refused: %s", what->id, err.text);
	control_event(relay, DROVER__RELAY_EVENT__KIND__CHANNEL_DOWN, what->id, err.text);
}

void relay_drop(struct relay *relay, uint32_t id)
{
	struct dr_error why = DR_ERROR_INIT;

	dr_error_set(&why, DR_EIO, "its network has lost its carrier");
	for (size_t i = 0; i < RELAY_CHANNELS; i++)
		if (relay->channels[i].state != CHANNEL_FREE && relay->channels[i].id == id)
			relay_channel_lost(relay, &relay->channels[i], &why);
}

static void pace(struct relay *relay)
{
	for (size_t i = 0; i < RELAY_CHANNELS; i++)
		if (relay->channels[i].state >= CHANNEL_SYNC)
			pump_pace(relay, &relay->channels[i]);
}

void relay_set_budget(struct relay *relay, uint64_t rate)
{
	budget_set(&relay->budget, rate, loop_now_us());
	relay->send_at = 0;
	pace(relay);
}

void relay_set_urgent(struct relay *relay, bool urgent)
{
	budget_urgent(&relay->budget, urgent, loop_now_us());
	relay->send_at = 0;
	pace(relay);
}

void relay_resumed(struct relay *relay)
{
	relay->resumed = true;
	pump_owe(relay, OWE_RESUMED);
}

void relay_brake(struct relay *relay)
{
	struct dr_error why = DR_ERROR_INIT;

	dr_error_set(&why, DR_EFAILED, "braked by the agent");
	relay_fail(relay, &why);
}

/* ---- the turn ---- */

void pump_channel(struct relay *relay, struct channel *channel)
{
	struct dr_error why = DR_ERROR_INIT;
	int r = 0;

	if (channel->state == CHANNEL_TLS || channel->state == CHANNEL_HELLO ||
	    channel->state == CHANNEL_PROOF) {
		r = channel_auth(channel, &why);
		if (r == 0)
			channel_authenticated(relay, channel);
	}
	if (r == 0 && channel->state >= CHANNEL_SYNC) {
		r = pump_receive(relay, channel, &why);
		if (r == 0 && channel->state >= CHANNEL_SYNC)
			r = pump_send(relay, channel, &why);
	}
	if (r != 0 && r != -DR_EAGAIN && channel->state != CHANNEL_FREE)
		relay_channel_lost(relay, channel, &why);
}

static void set_interests(struct relay *relay)
{
	for (size_t i = 0; i < RELAY_CHANNELS; i++) {
		struct channel *channel = &relay->channels[i];
		bool in = true, out;

		if (channel->state == CHANNEL_FREE)
			continue;
		if (channel->state < CHANNEL_SYNC) {
			out = channel->wants_write;
		} else {
			in = channel_room(channel) > 0;
			out = channel->blocked;
			if (!in) /* while QEMU keeps us from reading, silence means nothing */
				channel->last_rx_us = relay->turn_us;
		}
		loop_watch(relay->epoll, &channel->watch, (in ? EPOLLIN : 0u) | (out ? EPOLLOUT : 0u));
	}
	loop_watch(relay->epoll, &relay->qemu,
		   (pump_wants_qemu(relay) ? EPOLLIN : 0u) | (relay->qemu_full ? EPOLLOUT : 0u));
}

static void check_channel_deadlines(struct relay *relay, struct channel *channel, uint64_t now)
{
	struct dr_error why = DR_ERROR_INIT;

	if (channel->state < CHANNEL_SYNC && now - channel->opened_us >= CHANNEL_AUTH_US)
		dr_error_set(&why, DR_EAUTH, "no authentication within %d ms", CHANNEL_AUTH_US / 1000);
	else if (channel->state >= CHANNEL_SYNC && now > channel->last_rx_us &&
		 now - channel->last_rx_us >= CHANNEL_DEAD_MS * 1000ull)
		dr_error_set(&why, DR_EIO, "the peer was silent for %d ms", CHANNEL_DEAD_MS);
	if (why.code != DR_OK)
		relay_channel_lost(relay, channel, &why);
}

static void report(struct relay *relay, uint64_t now)
{
	uint64_t wire = relay_wire(relay), passed = now - relay->wire_last_us;

	relay->rate = passed > 0 ? (wire - relay->wire_last) * 1000000 / passed : 0;
	relay->wire_last = wire;
	relay->wire_last_us = now;
	relay->stats_at = now + relay->stats_us;
	for (size_t i = 0; i < RELAY_NETWORKS; i++)
		relay->networks[i].rate = 0;
	for (size_t i = 0; i < RELAY_CHANNELS; i++) {
		struct channel *channel = &relay->channels[i];

		if (channel->state == CHANNEL_FREE)
			continue;
		if (passed > 0)
			channel->network->rate += (channel->wire - channel->wire_reported) * 1000000 / passed;
		channel->wire_reported = channel->wire;
		channel_measure(channel, now);
	}
	control_event(relay, DROVER__RELAY_EVENT__KIND__STATS, 0, NULL);
}

static void check_deadlines(struct relay *relay, uint64_t now)
{
	struct dr_error why = DR_ERROR_INIT;

	if (tx_unacked(&relay->tx) > 0 && !relay->tx.stopped && now - relay->progress_us > relay->stall_us)
		relay->stall_us = now - relay->progress_us;
	if (relay->ack_at != 0 && now >= relay->ack_at) {
		pump_owe(relay, OWE_ACK);
		relay->acked_delivered = relay->rx.delivered;
		relay->ack_at = 0;
	}
	if (relay->send_at != 0 && now >= relay->send_at)
		relay->send_at = 0;
	if (relay->trim_at != 0 && now >= relay->trim_at) {
		tx_trim(&relay->tx);
		relay->trim_at = 0;
	}
	if (relay->stats_at != 0 && now >= relay->stats_at)
		report(relay, now);
	if (relay->reconnect_at != 0 && now >= relay->reconnect_at) {
		dr_error_set(&why, DR_ETIMEOUT, "no network to the peer for %llu ms",
			     (unsigned long long)(relay->reconnect_us / 1000));
		relay_fail(relay, &why);
	}
	if (relay->lonely_at != 0 && now >= relay->lonely_at && relay->state != RELAY_RUNNING) {
		relay_log(relay, "no agent has come: ending");
		relay->quit = true;
	}
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
	return b != 0 && b < a ? b : a;
}

/* What came up after the channel's turn: a loss, words for the peer. */
static bool has_work(const struct relay *relay, const struct channel *channel)
{
	if (channel->blocked || channel->sending)
		return false;
	return channel->owed != 0 ||
	       (channel->state == CHANNEL_UP && relay->send_at == 0 && tx_waiting_chunks(&relay->tx) > 0);
}

static uint64_t next_deadline(struct relay *relay)
{
	uint64_t at = LOOP_NEVER;

	for (size_t i = 0; i < RELAY_CHANNELS; i++) {
		struct channel *channel = &relay->channels[i];

		if (channel->state == CHANNEL_FREE)
			continue;
		if (channel->state >= CHANNEL_SYNC && (pump_unfinished(channel) || has_work(relay, channel)))
			return 0;
		if (channel->state < CHANNEL_SYNC) {
			at = sooner(at, channel->opened_us + CHANNEL_AUTH_US);
			continue;
		}
		if ((channel->watch.events & EPOLLIN) != 0)
			at = sooner(at, channel->last_rx_us + CHANNEL_DEAD_MS * 1000ull);
		if (!channel->blocked && !channel->sending)
			at = sooner(at, channel->last_tx_us + CHANNEL_PING_US);
	}
	at = sooner(at, relay->ack_at);
	at = sooner(at, relay->send_at);
	at = sooner(at, relay->reconnect_at);
	at = sooner(at, relay->trim_at);
	if (relay->state != RELAY_RUNNING)
		at = sooner(at, relay->lonely_at);
	return relay->control.fd >= 0 ? sooner(at, relay->stats_at) : at;
}

/* We could not run for long: whoever seems to have been silent may have spoken in the meantime. */
static void forgive(struct relay *relay, uint64_t now)
{
	for (size_t i = 0; i < RELAY_CHANNELS; i++)
		relay->channels[i].last_rx_us = now;
}

void relay_turn(struct relay *relay)
{
	uint64_t now, deadline;

	set_interests(relay);
	deadline = next_deadline(relay);
	if (deadline < relay->turn_us)
		deadline = relay->turn_us; /* at once */
	loop_turn(relay->epoll, deadline);
	now = loop_now_us();
	if (deadline != LOOP_NEVER && now > deadline + LATE_US)
		forgive(relay, now);
	relay->turn_us = now;
	check_deadlines(relay, now);
	if (!relay->qemu_full)
		pump_deliver_ahead(relay);
	for (size_t i = 0; i < RELAY_CHANNELS; i++)
		if (relay->channels[i].state >= CHANNEL_SYNC)
			pump_channel(relay, &relay->channels[i]);
	/* Only now: what came in the meantime has been read. */
	for (size_t i = 0; i < RELAY_CHANNELS; i++)
		if (relay->channels[i].state != CHANNEL_FREE)
			check_channel_deadlines(relay, &relay->channels[i], now);
	check_done(relay);
	if (relay->tx.ring != NULL && tx_unacked(&relay->tx) > 0)
		relay->trim_at = now + TRIM_US;
}

/* ---- making ---- */

static void on_channel(void *data, uint32_t events)
{
	struct channel *channel = data;

	/* Channels in use have their turn after all events; their state is looked at there. */
	if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0)
		channel->blocked = false;
	if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0)
		channel->readable = true;
	if (channel->state < CHANNEL_SYNC)
		pump_channel(channel->relay, channel);
}

int relay_init(struct relay *relay, int take_listen, struct dr_error *err)
{
	memset(relay, 0, sizeof(*relay));
	relay->qemu = (struct watch){.fd = -1, .fn = pump_on_qemu, .data = relay};
	for (size_t i = 0; i < RELAY_CHANNELS; i++) {
		relay->channels[i].watch =
			(struct watch){.fd = -1, .fn = on_channel, .data = &relay->channels[i]};
		relay->channels[i].relay = relay;
		relay->channels[i].number = (uint8_t)i;
	}
	relay->owner = getuid();
	relay->epoll = loop_open();
	if (relay->epoll < 0) {
		close(take_listen);
		return dr_error_set(err, DR_EIO, "cannot make an epoll descriptor");
	}
	control_init(relay, take_listen);
	relay->lonely_at = loop_now_us() + RELAY_LONELY_US;
	return 0;
}

void relay_fini(struct relay *relay)
{
	for (size_t i = 0; i < RELAY_CHANNELS; i++)
		if (relay->channels[i].state != CHANNEL_FREE)
			drop_channel(relay, &relay->channels[i]);
	loop_close(relay->epoll, &relay->qemu);
	loop_close(relay->epoll, &relay->control);
	loop_close(relay->epoll, &relay->listen);
	tls_psk_free(relay->tls);
	rx_fini(&relay->rx);
	tx_fini(&relay->tx);
	OPENSSL_cleanse(relay->key, sizeof(relay->key));
	close(relay->epoll);
}
