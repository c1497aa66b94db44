/*
 * The agent's session with a coordinator: TLS-PSK to one of connect=, the next one
 * when that is lost. Level-triggered: after (re)connecting the whole report goes out,
 * and after every change again, at most once per loop turn.
 */
#ifndef DROVER_AGENT_SESSION_H
#define DROVER_AGENT_SESSION_H

#include "agent/agent.h"

#define SESSION_BACKOFF_MIN_US 200000u
#define SESSION_BACKOFF_MAX_US 2000000u
#define SESSION_WELCOME_US     2000000u /* from the connect to Welcome; a stopped host's kernel accepts, too */
#define SESSION_WELCOME_MAX_US 5000000u /* when none was quick enough */
#define SESSION_SILENCE_US     6000000u /* without a lease grant: another coordinator may be better off */
#define SESSION_PROGRESS_US    500000u

struct session;

/* Begins to connect. NULL without memory. */
struct session *session_new(struct agent *a);
void session_free(struct session *s);

/* Something changed: send a report at the end of this loop turn, if there is a session. */
void session_dirty(struct session *s);

/* A coordinator is there that hears reports. */
bool session_is_open(const struct session *s);

#endif
