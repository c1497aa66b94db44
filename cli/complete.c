/*
 * What bash completes comes from the tables that the parser reads, and names from the cluster. The script
 * packaging/bash-completion/drover calls `drover __complete WORDS…` and offers what is printed.
 */
#include <inttypes.h>
#include <string.h>

#include "cli/call.h"
#include "cli/cli.h"
#include "common/names.h"

#define COMPLETE_TIMEOUT_MS 2000

struct completion {
	struct cli *cli;
	const char *start;  /* what is typed of the last word */
	const char *prefix; /* printed before each candidate: "--to=" */
};

static void offer(const struct completion *c, const char *word)
{
	if (strncmp(word, c->start, strlen(c->start)) == 0)
		fprintf(c->cli->out, "%s%s\n", c->prefix, word);
}

static void offer_id(const struct completion *c, uint64_t id)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, id);
	offer(c, text);
}

static void offer_rows(const struct completion *c, enum cli_object object, const Drover__Response *resp)
{
	for (size_t i = 0; i < resp->n_nodes; i++)
		offer(c, resp->nodes[i]->name);
	for (size_t i = 0; i < resp->n_vms; i++)
		offer(c, resp->vms[i]->name);
	for (size_t i = 0; i < resp->n_networks; i++) {
		char text[NAMES_MAX + 2];

		snprintf(text, sizeof(text), "%.63s%s", resp->networks[i]->name,
			 object == OBJ_RANK ? "=" : "");
		offer(c, text);
	}
	for (size_t i = 0; i < resp->n_drains; i++)
		offer_id(c, resp->drains[i]->id);
	for (size_t i = 0; i < resp->n_moves && resp->n_drains == 0; i++)
		offer_id(c, resp->moves[i]->id);
}

static void offer_list(const struct completion *c, enum cli_object object, Drover__ListRequest__What what)
{
	Drover__Request req = DROVER__REQUEST__INIT;
	Drover__ListRequest list = DROVER__LIST_REQUEST__INIT;
	Drover__Response *resp = NULL;
	struct dr_error err = DR_ERROR_INIT;

	req.verb_case = DROVER__REQUEST__VERB_LIST;
	req.list = &list;
	list.what = what;
	if (call_request(c->cli, &req, false, call_deadline(c->cli, COMPLETE_TIMEOUT_MS), &resp, &err) < 0)
		return; /* no cluster, no names */
	offer_rows(c, object, resp);
	drover__response__free_unpacked(resp, NULL);
}

static void offer_object(const struct completion *c, enum cli_object object)
{
	switch (object) {
	case OBJ_NODE:
		offer_list(c, object, DROVER__LIST_REQUEST__WHAT__NODES);
		return;
	case OBJ_VM:
		offer_list(c, object, DROVER__LIST_REQUEST__WHAT__VMS);
		return;
	case OBJ_NETWORK:
	case OBJ_RANK:
		offer_list(c, object, DROVER__LIST_REQUEST__WHAT__NETWORKS);
		return;
	case OBJ_DRAIN:
		offer_list(c, object, DROVER__LIST_REQUEST__WHAT__DRAINS);
		return;
	case OBJ_DRAIN_OR_NODE:
		offer_list(c, object, DROVER__LIST_REQUEST__WHAT__NODES);
		offer_list(c, object, DROVER__LIST_REQUEST__WHAT__DRAINS);
		return;
	case OBJ_MOVE:
		offer_list(c, object, DROVER__LIST_REQUEST__WHAT__MOVES);
		return;
	case OBJ_TEXT:
	case OBJ_PLAN:
	case OBJ_FILE:
	case OBJ_ADDRESS:
		return;
	}
}

static void offer_value(const struct completion *c, const struct cli_option *o)
{
	switch (o->kind) {
	case OPT_CHOICE:
		for (const struct cli_word *w = o->words; w->word != NULL; w++) {
			if (!w->later)
				offer(c, w->word);
		}
		return;
	case OPT_ONOFF:
		offer(c, "on");
		offer(c, "off");
		return;
	case OPT_PRIORITY:
		offer(c, "low");
		offer(c, "medium");
		offer(c, "high");
		offer(c, "none");
		return;
	case OPT_OBJECT:
		offer_object(c, o->object);
		return;
	case OPT_RATE_OR_NONE:
	case OPT_NUMBER_OR_NONE:
		offer(c, "none");
		return;
	case OPT_FLAG:
	case OPT_TEXT:
	case OPT_SIZE:
	case OPT_RATE:
	case OPT_DURATION:
	case OPT_NUMBER:
	case OPT_SINCE:
		return;
	}
}

static const struct cli_option *option_find(const struct cli_verb *verb, const char *name, size_t len)
{
	const struct cli_option *o;

	for (size_t i = 0; (o = cli_option_at(verb, i)) != NULL; i++) {
		if (strlen(o->name) == len && strncmp(o->name, name, len) == 0)
			return o;
	}
	return NULL;
}

static void offer_options(const struct completion *c, const struct cli_verb *verb)
{
	const struct cli_option *o;
	char text[64];

	for (size_t i = 0; (o = cli_option_at(verb, i)) != NULL; i++) {
		snprintf(text, sizeof(text), "--%s", o->name);
		if (!o->later)
			offer(c, text);
	}
}

static void offer_word(const struct completion *c, const struct cli_noun *noun, const struct cli_verb *verb,
		       size_t n)
{
	const struct cli_arg *a;

	if (noun == NULL) {
		for (size_t i = 0; i < cli_n_nouns; i++)
			offer(c, cli_nouns[i]->name);
		return;
	}
	if (verb == NULL) {
		for (size_t i = 0; i < noun->n_verbs; i++) {
			if ((noun->verbs[i].flags & VERB_LATER) == 0)
				offer(c, noun->verbs[i].name);
		}
		return;
	}
	a = verb->args;
	while (n > 0 && a < verb->args + CLI_ARGS_MAX && a->name != NULL && !a->repeats) {
		a++;
		n--;
	}
	if (a < verb->args + CLI_ARGS_MAX && a->name != NULL)
		offer_object(c, a->object);
}

/* What the finished words say about the connection counts for the names too. */
static void global_take(struct cli *cli, const struct cli_option *o, const char *value)
{
	if (strcmp(o->name, "connect") == 0)
		cli->connect = value;
	else if (strcmp(o->name, "key-file") == 0)
		cli->key_file = value;
	else if (strcmp(o->name, "config") == 0)
		cli->config = value;
}

int cli_complete(struct cli *cli, int argc, const char *const *argv)
{
	struct completion c = {.cli = cli, .start = argc > 0 ? argv[argc - 1] : "", .prefix = ""};
	const struct cli_noun *noun = NULL;
	const struct cli_verb *verb = NULL;
	const struct cli_option *o = NULL;
	struct dr_error err = DR_ERROR_INIT;
	size_t n_args = 0;

	for (int i = 0; i < argc - 1; i++) {
		const char *word = argv[i];

		if (strncmp(word, "--", 2) == 0) {
			size_t len = strcspn(word + 2, "=");

			o = option_find(verb, word + 2, len);
			if (o != NULL && word[2 + len] == '=')
				global_take(cli, o, word + 3 + len);
			else if (o != NULL && o->kind != OPT_FLAG && i + 1 < argc - 1)
				global_take(cli, o, argv[++i]);
			else if (o != NULL && o->kind != OPT_FLAG)
				break; /* its value is being typed */
		} else if (noun == NULL) {
			noun = cli_noun_find(word);
			if (noun == NULL)
				return DR_OK;
			verb = cli_verb_find(noun, "");
		} else if (verb == NULL) {
			verb = cli_verb_find(noun, word);
			if (verb == NULL)
				return DR_OK;
		} else {
			n_args++;
		}
		o = NULL;
	}
	if (conf_read(cli->config != NULL ? cli->config : CONF_PATH, &cli->conf, &err) < 0)
		conf_defaults(&cli->conf);
	if (call_addresses(cli, &err) < 0)
		return DR_OK;
	if (o != NULL) {
		offer_value(&c, o);
	} else if (strncmp(c.start, "--", 2) == 0 && strchr(c.start, '=') != NULL) {
		size_t len = strcspn(c.start + 2, "=");

		o = option_find(verb, c.start + 2, len);
		c.prefix = arena_strndup(&cli->arena, c.start, len + 3);
		c.start += len + 3;
		if (o != NULL)
			offer_value(&c, o);
	} else if (c.start[0] == '-') {
		offer_options(&c, verb);
	} else {
		offer_word(&c, noun, verb, n_args);
	}
	return DR_OK;
}
