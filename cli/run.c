#include "config.h"

#include <errno.h>
#include <string.h>

#include "cli/call.h"
#include "cli/cli.h"
#include "cli/json.h"
#include "cli/show.h"
#include "cli/verbs.h"
#include "cli/wait.h"

void cli_print_json(struct cli *cli, json_t *take_json)
{
	json_dumpf(take_json, cli->out, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	fputc('\n', cli->out);
	json_decref(take_json);
}

int cli_fail(struct cli *cli, const struct dr_error *err, char *const *objects, size_t n_objects)
{
	int exit = dr_err_exit((int)err->code);

	if (cli->json) {
		cli_print_json(cli, json_error(exit, err->text, objects, n_objects));
		return exit;
	}
	fprintf(cli->err, "drover: %s\n", err->text);
	for (size_t i = 0; i < n_objects; i++)
		fprintf(cli->err, "  %s\n", objects[i]);
	return exit;
}

/* An unreadable file of its own naming is an error; without the usual one the defaults hold. */
static int conf_load(struct cli *cli, struct dr_error *err)
{
	const char *path = cli->config != NULL ? cli->config : CONF_PATH;
	struct dr_error why = DR_ERROR_INIT;
	int rc = conf_read(path, &cli->conf, &why);

	if (rc == 0)
		return 0;
	if (cli->config == NULL && rc != -DR_EUSAGE) {
		conf_defaults(&cli->conf);
		return 0;
	}
	return dr_error_set(err, DR_EUSAGE, "%s", why.text);
}

static int answer_failed(struct cli *cli, const Drover__Response *resp)
{
	struct dr_error err = DR_ERROR_INIT;
	enum dr_err code = resp->exit <= DR_EAUTH ? (enum dr_err)resp->exit : DR_EFAILED;

	dr_error_set(&err, code, "%s", resp->message[0] != '\0' ? resp->message : dr_err_name((int)code));
	return cli_fail(cli, &err, resp->objects, resp->n_objects);
}

/* Nothing to follow: the request only checked, or what it asks for was so already. */
static bool waits(const struct cli_parsed *p, const Drover__Response *resp)
{
	const char *state = resp->n_drains > 0 ? resp->drains[0]->state : "";

	if (!cli_flag(p, "wait") || cli_flag(p, "dry-run"))
		return false;
	if (resp->changed)
		return true;
	/* Asked for before is not reached yet. */
	if (strcmp(p->noun->name, "vm") == 0 &&
	    (strcmp(p->verb->name, "start") == 0 || strcmp(p->verb->name, "stop") == 0))
		return true;
	if (resp->n_drains > 0)
		return strcmp(state, "running") == 0 || strcmp(state, "paused") == 0;
	return resp->n_moves + resp->n_vms > 0;
}

static int answer_print(struct cli *cli, const struct cli_parsed *p, const Drover__Response *resp)
{
	const struct cli_verb *verb = p->verb;

	if (cli->json)
		cli_print_json(cli, (verb->json != NULL ? verb->json : json_changed)(p, resp));
	else
		(verb->show != NULL ? verb->show : show_changed)(cli->out, p, resp);
	return DR_OK;
}

/*
 * A confirmed fencing is about the boot that was seen to be off. This request may be repeated for as long as
 * its deadline allows: if the host has booted by then, nothing is known about that boot (SAFETY R9).
 */
static int name_boot(struct cli *cli, Drover__Request *req, uint64_t deadline_ms, struct dr_error *err)
{
	Drover__NodeVerb *verb = req->verb_case == DROVER__REQUEST__VERB_NODE_VERB ? req->node_verb : NULL;
	Drover__Request look = DROVER__REQUEST__INIT;
	Drover__Response *resp = NULL;
	int ret;

	if (verb == NULL || verb->verb != DROVER__NODE_VERB__VERB__FENCE || !verb->confirmed)
		return 0;
	verb_list(cli, &look, DROVER__LIST_REQUEST__WHAT__NODES)->name = verb->node;
	ret = call_request(cli, &look, false, deadline_ms, &resp, err);
	if (ret < 0)
		return ret;
	if (resp->exit != 0) { /* no boot named would mean: whatever boot there is by then */
		ret = dr_error_set(err, (enum dr_err)resp->exit, "%s", resp->message);
	} else if (resp->n_nodes == 1 && resp->nodes[0]->boot_id.len > 0) {
		verb->boot_id.len = resp->nodes[0]->boot_id.len;
		verb->boot_id.data = arena_alloc(&cli->arena, verb->boot_id.len);
		memcpy(verb->boot_id.data, resp->nodes[0]->boot_id.data, verb->boot_id.len);
	}
	drover__response__free_unpacked(resp, NULL);
	return ret;
}

static int request_run(struct cli *cli, const struct cli_parsed *p)
{
	Drover__Request req = DROVER__REQUEST__INIT;
	Drover__Response *resp = NULL;
	struct dr_error err = DR_ERROR_INIT;
	bool mutates = (p->verb->flags & VERB_MUTATES) != 0;
	uint64_t deadline_ms;
	int exit;

	if (cli->timeout_ms == 0 && !cli_flag(p, "wait"))
		cli->timeout_ms = p->verb->timeout_ms != 0 ? p->verb->timeout_ms : CLI_TIMEOUT_MS;
	deadline_ms = call_deadline(cli, cli->timeout_ms);
	req.dry_run = cli_flag(p, "dry-run");
	if (p->verb->build(cli, p, &req, &err) < 0 || name_boot(cli, &req, deadline_ms, &err) < 0 ||
	    call_request(cli, &req, mutates, deadline_ms, &resp, &err) < 0)
		return cli_fail(cli, &err, NULL, 0);
	if (resp->exit != 0) {
		exit = answer_failed(cli, resp);
	} else if (waits(p, resp)) {
		if (!cli->json)
			answer_print(cli, p, resp);
		exit = wait_run(cli, p, resp, deadline_ms);
	} else {
		exit = answer_print(cli, p, resp);
	}
	drover__response__free_unpacked(resp, NULL);
	return exit;
}

static int verb_run(struct cli *cli, const struct cli_parsed *p)
{
	struct dr_error err = DR_ERROR_INIT;

	if (conf_load(cli, &err) < 0 || call_addresses(cli, &err) < 0)
		return cli_fail(cli, &err, NULL, 0);
	if (p->verb->local == NULL)
		return request_run(cli, p);
	return p->verb->local(cli, p, &err) < 0 ? cli_fail(cli, &err, NULL, 0) : DR_OK;
}

/* --json counts for usage errors too, wherever the parser stopped. */
static bool json_wanted(int argc, const char *const *argv)
{
	for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
		if (strcmp(argv[i], "--json") == 0)
			return true;
	}
	return false;
}

int cli_run(struct cli *cli, int argc, const char *const *argv)
{
	struct dr_error err = DR_ERROR_INIT;
	struct cli_parsed p;
	int exit;

	conf_defaults(&cli->conf);
	cli->json = json_wanted(argc, argv);
	if (argc > 0 && strcmp(argv[0], "__complete") == 0)
		return cli_complete(cli, argc - 1, argv + 1);
	if (cli_parse(cli, argc, argv, &p, &err) < 0) {
		exit = cli_fail(cli, &err, NULL, 0);
	} else if (p.help) {
		cli_help(cli->out, &p);
		exit = DR_OK;
	} else if (p.version) {
		fputs("drover " PACKAGE_VERSION "\n", cli->out);
		exit = DR_OK;
	} else {
		exit = verb_run(cli, &p);
	}
	if (fflush(cli->out) != 0 && errno != EPIPE && exit == DR_OK) {
		fprintf(cli->err, "drover: cannot write the answer: %s\n", strerror(errno));
		exit = DR_EFAILED;
	}
	return exit;
}

int cli_main(int argc, char **argv)
{
	struct cli cli = {.out = stdout, .err = stderr, .out_tty = isatty(STDOUT_FILENO) == 1};
	int exit;

	cli.transport = transport_conn_new(&cli);
	if (cli.transport == NULL) {
		fputs("drover: out of memory\n", stderr);
		return DR_EFAILED;
	}
	exit = cli_run(&cli, argc - 1, (const char *const *)argv + 1);
	transport_conn_free(cli.transport);
	arena_free(&cli.arena);
	return exit;
}
