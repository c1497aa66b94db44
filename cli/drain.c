/* drover drain …: emptying a node, and what becomes of it. */
#include "cli/json.h"
#include "cli/show.h"
#include "cli/verbs.h"

static const struct cli_option plan_options[] = {
	{.name = "within", .kind = OPT_DURATION, .value = "D", .help = "say whether it fits"},
	{0},
};
static const struct cli_option start_options[] = {
	{.name = "plan",
	 .kind = OPT_OBJECT,
	 .object = OBJ_PLAN,
	 .value = "ID",
	 .later = true,
	 .help = "run exactly this plan"},
	{.name = "best-effort", .kind = OPT_FLAG, .help = "start although some VMs have no target"},
	{.name = "shutdown-unmovable", .kind = OPT_FLAG, .help = "shut down what cannot be moved"},
	{0},
};

static Drover__DrainVerb *drain_verb(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
				     Drover__DrainVerb__Verb which)
{
	Drover__DrainVerb *verb = VERB_NEW(cli, req, drain_verb, DRAIN_VERB, drover__drain_verb);

	verb->verb = which;
	if (p->ids[0] != 0)
		verb->drain = p->ids[0];
	else
		verb->node = verb_text(cli_arg(p, 0));
	return verb;
}

static int start_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
		       struct dr_error *err)
{
	Drover__DrainVerb *verb = drain_verb(cli, p, req, DROVER__DRAIN_VERB__VERB__START);

	(void)err;
	verb->best_effort = cli_flag(p, "best-effort");
	verb->shutdown_unmovable = cli_flag(p, "shutdown-unmovable");
	return 0;
}

static int list_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req, struct dr_error *err)
{
	Drover__ListRequest *list = verb_list(cli, req, DROVER__LIST_REQUEST__WHAT__DRAINS);

	(void)err;
	if (p->n_args == 0)
		return 0;
	if (p->ids[0] != 0)
		list->id = p->ids[0];
	else
		list->name = verb_text(cli_arg(p, 0));
	return 0;
}

static int pause_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
		       struct dr_error *err)
{
	(void)err;
	drain_verb(cli, p, req, DROVER__DRAIN_VERB__VERB__PAUSE);
	return 0;
}

static int continue_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
			  struct dr_error *err)
{
	(void)err;
	drain_verb(cli, p, req, DROVER__DRAIN_VERB__VERB__CONTINUE);
	return 0;
}

static int cancel_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
			struct dr_error *err)
{
	(void)err;
	drain_verb(cli, p, req, DROVER__DRAIN_VERB__VERB__CANCEL);
	return 0;
}

static int plan_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req, struct dr_error *err)
{
	(void)err;
	drain_verb(cli, p, req, DROVER__DRAIN_VERB__VERB__PLAN)->within_ms = cli_number(p, "within");
	return 0;
}

static int reverse_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
			 struct dr_error *err)
{
	(void)err;
	drain_verb(cli, p, req, DROVER__DRAIN_VERB__VERB__REVERSE);
	return 0;
}

#define ID_ARG                                                                                               \
	{                                                                                                    \
		{                                                                                            \
			.name = "ID", .object = OBJ_DRAIN                                                    \
		}                                                                                            \
	}
#define NODE_ARG                                                                                             \
	{                                                                                                    \
		{                                                                                            \
			.name = "N", .object = OBJ_NODE                                                      \
		}                                                                                            \
	}

static const struct cli_verb verbs[] = {
	{.name = "plan",
	 .summary = "Forecast a drain: which VMs would go where, and which cannot.",
	 .args = NODE_ARG,
	 .options = plan_options,
	 .build = plan_build,
	 .show = show_plan},
	{.name = "start",
	 .summary = "Pause a node and move every VM off it.",
	 .args = NODE_ARG,
	 .options = start_options,
	 .flags = VERB_MUTATES | VERB_WAITS,
	 .build = start_build,
	 .example = "drover drain start node1 --wait"},
	{.name = "list",
	 .summary = "Every drain.",
	 .build = list_build,
	 .json = json_drain_list,
	 .show = show_drain_list},
	{.name = "show",
	 .summary = "One drain (or the latest of a node) with its moves.",
	 .args = {{.name = "ID|NODE", .object = OBJ_DRAIN_OR_NODE}},
	 .build = list_build,
	 .json = json_drain_show,
	 .show = show_drain},
	{.name = "pause",
	 .summary = "Start no further moves of a drain.",
	 .args = ID_ARG,
	 .flags = VERB_MUTATES,
	 .build = pause_build},
	{.name = "continue",
	 .summary = "Go on with a paused drain.",
	 .args = ID_ARG,
	 .flags = VERB_MUTATES | VERB_WAITS,
	 .build = continue_build},
	{.name = "cancel",
	 .summary = "Stop what is not switching over yet; the node's earlier state comes back.",
	 .args = ID_ARG,
	 .flags = VERB_MUTATES | VERB_WAITS,
	 .build = cancel_build},
	{.name = "reverse",
	 .summary = "Bring back what a drain has moved away.",
	 .args = ID_ARG,
	 .flags = VERB_MUTATES,
	 .build = reverse_build},
};

const struct cli_noun drain_noun = {"drain", "emptying nodes", verbs, DR_ARRAY_SIZE(verbs)};
