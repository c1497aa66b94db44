/* The moving of bytes between QEMU, the stream and a channel. Inside the relay only (relay.c calls, pump.c
 * does). */
#ifndef DROVER_RELAY_PUMP_H
#define DROVER_RELAY_PUMP_H

#include "relay/relay.h"

/* Receives, understands and delivers what there is, for one turn. 0, or why the channel is lost. */
int pump_receive(struct relay *relay, struct channel *channel, struct dr_error *why);
/* Sends what is owed and what budget and socket take. 0, or why the channel is lost. */
int pump_send(struct relay *relay, struct channel *channel, struct dr_error *why);
/* Gives QEMU the chunks that came ahead of their turn, as far as it is theirs. */
void pump_deliver_ahead(struct relay *relay);
/* This is owed to the peer on every channel. */
void pump_owe(struct relay *relay, enum channel_owes what);
/* A whole turn of one channel. */
void pump_channel(struct relay *relay, struct channel *channel);

/* Did the last turn end with work left? */
bool pump_unfinished(struct channel *channel);

/* QEMU's socket is ready. */
void pump_on_qemu(void *data, uint32_t events);
/* Should QEMU be read? */
bool pump_wants_qemu(struct relay *relay);

/* Tells the kernel's pacing about the budget. */
void pump_pace(struct relay *relay, const struct channel *channel);

/* Ends the move's part here: QEMU's socket is shut down, the peer told if that is possible at once. */
void relay_fail(struct relay *relay, const struct dr_error *why);
void relay_channel_lost(struct relay *relay, struct channel *channel, const struct dr_error *why);
/* The peer has spoken on it: it carries data from now on. */
/* Source: one of a better rank carries chunks. */
bool relay_has_better(const struct relay *relay, const struct channel *channel);
void relay_channel_works(struct relay *relay, struct channel *channel);

#endif
