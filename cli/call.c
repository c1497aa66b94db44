#include "cli/call.h"

#include <inttypes.h>
#include <string.h>

#include "common/units.h"

#define RETRY_PAUSE_MS	  200
#define LOST_NOTE_ATTEMPT 15
#define ANSWER_GRACE_MS	  500 /* the coordinator's own "timeout" answer may still be on its way */

static int address_add(struct cli *cli, const char *address)
{
	size_t size = sizeof(cli->addresses[0]);

	if (cli->n_addresses == CLI_ADDRESSES_MAX || strlen(address) >= size)
		return -DR_EUSAGE;
	for (size_t i = 0; i < cli->n_addresses; i++) {
		if (strcmp(cli->addresses[i], address) == 0)
			return 0;
	}
	memcpy(cli->addresses[cli->n_addresses++], address, strlen(address) + 1);
	return 0;
}

int call_addresses(struct cli *cli, struct dr_error *err)
{
	char text[NAMES_ADDRESS];
	char socket[CONF_VALUE_MAX + 32];

	cli->n_addresses = 0;
	cli->address = 0;
	if (cli->connect == NULL) {
		snprintf(socket, sizeof(socket), "unix:%s/coordinator.sock", cli->conf.run_dir);
		address_add(cli, socket);
	} else if (strncmp(cli->connect, "unix:", 5) == 0) {
		if (cli->connect[5] == '\0' || address_add(cli, cli->connect) < 0)
			return dr_error_set(err, DR_EUSAGE,
					    "--connect: \"%.60s\" is no socket: give unix:PATH",
					    cli->connect);
	} else {
		int rc = names_address(cli->connect, CONF_PORT, text, err);

		if (rc < 0) {
			dr_error_prefix(err, "--connect");
			return rc;
		}
		address_add(cli, text);
	}
	for (size_t i = 0; i < cli->conf.n_connect; i++)
		address_add(cli, cli->conf.connect[i]);
	return 0;
}

uint64_t call_deadline(struct cli *cli, uint64_t timeout_ms)
{
	struct transport *t = cli->transport;
	uint64_t now;

	if (timeout_ms == 0)
		return CALL_NO_DEADLINE;
	now = t->ops->now_ms(t);
	return timeout_ms > CALL_NO_DEADLINE - now ? CALL_NO_DEADLINE : now + timeout_ms;
}

/*
 * Tries every address once, the one that worked last first. --connect names one coordinator: the others are
 * for going on with what that one began.
 */
static int open_any(struct cli *cli, uint64_t deadline_ms, struct dr_error *err)
{
	struct transport *t = cli->transport;
	size_t n = cli->connect != NULL && !cli->ever_connected ? 1 : cli->n_addresses;
	struct dr_error first = DR_ERROR_INIT;

	for (size_t i = 0; i < n; i++) {
		size_t at = (cli->address + i) % cli->n_addresses;
		struct dr_error why = DR_ERROR_INIT;
		int rc = t->ops->open(t, cli->addresses[at], deadline_ms, &why);

		if (rc == 0) {
			cli->address = at;
			cli->connected = true;
			cli->ever_connected = true;
			return 0;
		}
		/* A refusal says more than silence. */
		if (first.code == DR_OK || (first.code == DR_ENODAEMON && why.code == DR_EAUTH))
			first = why;
	}
	return dr_error_set(err, first.code, "%s", first.text);
}

static int timed_out(struct cli *cli, bool maybe_sent, struct dr_error *err)
{
	char text[UNITS_TEXT];

	units_duration_format(text, cli->timeout_ms);
	if (maybe_sent)
		return dr_error_set(
			err, DR_ETIMEOUT,
			"no answer within %s; the work may go on: look with \"drover history list\"", text);
	return dr_error_set(err, DR_ETIMEOUT, "no answer within %s: try another coordinator with --connect",
			    text);
}

/* Once, after some seconds without anybody: --wait goes on, but its user should know. */
static void lost_note(struct cli *cli, unsigned attempt, const struct dr_error *why)
{
	if (attempt == LOST_NOTE_ATTEMPT && !cli->json)
		fprintf(cli->err, "drover: %s (still trying)\n", why->text);
}

int call_request(struct cli *cli, Drover__Request *req, bool mutating, uint64_t deadline_ms,
		 Drover__Response **resp, struct dr_error *err)
{
	struct transport *t = cli->transport;
	uint8_t id[16];
	bool sent = false;

	t->ops->random(t, id, sizeof(id));
	req->id.data = id;
	req->id.len = sizeof(id);
	for (unsigned attempt = 0;; attempt++) {
		struct dr_error why = DR_ERROR_INIT;
		uint64_t now = t->ops->now_ms(t);
		uint64_t patience = deadline_ms;
		int rc = 0;

		if (now >= deadline_ms)
			return timed_out(cli, sent && mutating, err);
		if (attempt > 1)
			t->ops->pause_ms(t, RETRY_PAUSE_MS);
		if (deadline_ms - now > 2 * CLI_TIMEOUT_MS)
			patience = now + 2 * CLI_TIMEOUT_MS;
		if (!cli->connected)
			rc = open_any(cli, patience, &why);
		if (rc < 0) {
			if (cli->ever_connected && why.code != DR_EAUTH) {
				lost_note(cli, attempt, &why);
				continue;
			}
			return dr_error_set(err, why.code, "%s", why.text);
		}
		req->timeout_ms = patience - now;
		rc = t->ops->exchange(t, req,
				      patience == CALL_NO_DEADLINE ? patience : patience + ANSWER_GRACE_MS,
				      resp, &why);
		sent = true;
		/* What the coordinator was given was less than there is: its own limit is not the end. */
		if (rc == 0 && (*resp)->exit == DR_ETIMEOUT && patience < deadline_ms) {
			drover__response__free_unpacked(*resp, NULL);
			continue;
		}
		if (rc == 0)
			return 0;
		t->ops->close(t);
		cli->connected = false;
		cli->address = (cli->address + 1) % cli->n_addresses;
		if (rc != -DR_ECLOSED && rc != -DR_ETIMEOUT)
			return dr_error_set(err, why.code, "%s", why.text);
	}
}
