/* drover event …: what happened, as an operator wants to read it. */
#include <inttypes.h>

#include "cli/call.h"
#include "cli/json.h"
#include "cli/show.h"
#include "cli/verbs.h"

#define FOLLOW_INTERVAL_MS 300

static const struct cli_option list_options[] = {
	{.name = "since",
	 .kind = OPT_SINCE,
	 .value = "T",
	 .help = "a time (2026-11-20T11:24:53Z) or how long ago (10m)"},
	{0},
};

static int list_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req, struct dr_error *err)
{
	(void)err;
	verb_list(cli, req, DROVER__LIST_REQUEST__WHAT__EVENTS)->since_utc_us = verb_since(cli, p);
	return 0;
}

static void event_print(struct cli *cli, const Drover__EventRow *e)
{
	json_t *object;

	if (!cli->json) {
		show_event(cli->out, e);
		return;
	}
	object = json_event(e);
	json_dumpf(object, cli->out, JSON_COMPACT);
	fputc('\n', cli->out);
	json_decref(object);
}

static int events_get(struct cli *cli, const struct cli_parsed *p, uint64_t since_index, bool latest,
		      uint64_t deadline_ms, Drover__Response **resp, struct dr_error *err)
{
	Drover__Request req = DROVER__REQUEST__INIT;
	Drover__ListRequest list = DROVER__LIST_REQUEST__INIT;
	int rc;

	list.what = DROVER__LIST_REQUEST__WHAT__EVENTS;
	list.since_index = since_index;
	list.since_utc_us = since_index == 0 ? verb_since(cli, p) : 0;
	/* Only where the log stands now. */
	if (latest && list.since_utc_us == 0)
		list.most = 1;
	req.verb_case = DROVER__REQUEST__VERB_LIST;
	req.list = &list;
	rc = call_request(cli, &req, false, deadline_ms, resp, err);
	if (rc == 0 && (*resp)->exit != 0) {
		rc = dr_error_set(err, (enum dr_err)(*resp)->exit, "%s", (*resp)->message);
		drover__response__free_unpacked(*resp, NULL);
	}
	return rc;
}

/* Prints what is new, for ever, or until --timeout (exit 5) or until nobody reads any more. */
static int follow_run(struct cli *cli, const struct cli_parsed *p, struct dr_error *err)
{
	uint64_t deadline_ms = call_deadline(cli, cli->timeout_ms);
	uint64_t seen = 0;
	bool first = true;

	for (;;) {
		Drover__Response *resp = NULL;
		int rc = events_get(cli, p, seen, first, deadline_ms, &resp, err);

		if (rc < 0)
			return rc;
		for (size_t i = 0; i < resp->n_events; i++) {
			uint64_t index = resp->events[i]->index;

			if (index <= seen && !first)
				continue;
			if (!first || verb_since(cli, p) != 0)
				event_print(cli, resp->events[i]);
		}
		for (size_t i = 0; i < resp->n_events; i++)
			seen = resp->events[i]->index > seen ? resp->events[i]->index : seen;
		if (first && resp->n_events <= 1 && resp->index > seen)
			seen = resp->index;
		first = false;
		drover__response__free_unpacked(resp, NULL);
		if (fflush(cli->out) != 0 || ferror(cli->out))
			return 0;
		if (cli->transport->ops->now_ms(cli->transport) >= deadline_ms)
			return dr_error_set(err, DR_ETIMEOUT, "--timeout passed");
		cli->transport->ops->pause_ms(cli->transport, FOLLOW_INTERVAL_MS);
	}
}

static const struct cli_verb verbs[] = {
	{.name = "list",
	 .summary = "What happened.",
	 .options = list_options,
	 .build = list_build,
	 .json = json_event_list,
	 .show = show_event_list},
	{.name = "follow",
	 .summary = "What happens, line by line (--json: one object a line).",
	 .options = list_options,
	 .local = follow_run},
};

const struct cli_noun event_noun = {"event", "what happened", verbs, DR_ARRAY_SIZE(verbs)};
