/* drover node …: the hosts. */
#include <string.h>

#include "cli/json.h"
#include "cli/show.h"
#include "cli/verbs.h"

static const struct cli_word failback_words[] = {{.word = "immediate"}, {.word = "none"}, {0}};

#define DRAIN_OPTIONS                                                                                        \
	{.name = "best-effort", .kind = OPT_FLAG, .help = "start although some VMs have no target"},         \
	{                                                                                                    \
		.name = "shutdown-unmovable", .kind = OPT_FLAG, .help = "shut down what cannot be moved"     \
	}

static const struct cli_option pause_options[] = {
	{.name = "drain", .kind = OPT_FLAG, .help = "and move its VMs away"},
	DRAIN_OPTIONS,
	{0},
};
static const struct cli_option drain_options[] = {DRAIN_OPTIONS, {0}};
static const struct cli_option resume_options[] = {
	{.name = "failback",
	 .kind = OPT_CHOICE,
	 .value = "immediate|none",
	 .words = failback_words,
	 .help = "bring home what was moved away (none)"},
	{0},
};
static const struct cli_option fence_options[] = {
	{.name = "confirmed", .kind = OPT_FLAG, .help = "I have seen with my own eyes that the host is off"},
	{0},
};

static int list_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req, struct dr_error *err)
{
	(void)err;
	/* "" for list, a name for show */
	verb_list(cli, req, DROVER__LIST_REQUEST__WHAT__NODES)->name = verb_text(cli_arg(p, 0));
	return 0;
}

static Drover__NodeVerb *node_verb(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
				   Drover__NodeVerb__Verb which)
{
	Drover__NodeVerb *verb = VERB_NEW(cli, req, node_verb, NODE_VERB, drover__node_verb);

	verb->verb = which;
	verb->node = verb_text(cli_arg(p, 0));
	verb->best_effort = cli_flag(p, "best-effort");
	verb->shutdown_unmovable = cli_flag(p, "shutdown-unmovable");
	return verb;
}

static int pause_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
		       struct dr_error *err)
{
	Drover__NodeVerb *verb = node_verb(cli, p, req, DROVER__NODE_VERB__VERB__PAUSE);

	verb->drain = cli_flag(p, "drain");
	if (!verb->drain && (verb->best_effort || verb->shutdown_unmovable))
		return dr_error_set(err, DR_EUSAGE,
				    "--best-effort and --shutdown-unmovable need --drain beside them");
	return 0;
}

static int drain_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
		       struct dr_error *err)
{
	(void)err;
	node_verb(cli, p, req, DROVER__NODE_VERB__VERB__PAUSE)->drain = true;
	return 0;
}

static int resume_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
			struct dr_error *err)
{
	Drover__NodeVerb *verb = node_verb(cli, p, req, DROVER__NODE_VERB__VERB__RESUME);

	(void)err;
	verb->failback = verb_text(cli_value(p, "failback") != NULL ? cli_text(p, "failback") : "none");
	return 0;
}

static int fence_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
		       struct dr_error *err)
{
	(void)err;
	node_verb(cli, p, req, DROVER__NODE_VERB__VERB__FENCE)->confirmed = cli_flag(p, "confirmed");
	return 0;
}

static int clear_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
		       struct dr_error *err)
{
	(void)err;
	node_verb(cli, p, req, DROVER__NODE_VERB__VERB__CLEAR_QUARANTINE);
	return 0;
}

static int remove_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
			struct dr_error *err)
{
	(void)err;
	node_verb(cli, p, req, DROVER__NODE_VERB__VERB__REMOVE);
	return 0;
}

#define NODE_ARG                                                                                             \
	{                                                                                                    \
		{                                                                                            \
			.name = "N", .object = OBJ_NODE                                                      \
		}                                                                                            \
	}

static const struct cli_verb verbs[] = {
	{.name = "list",
	 .summary = "Every node: state, VMs, memory, moves.",
	 .build = list_build,
	 .json = json_node_list,
	 .show = show_node_list},
	{.name = "show",
	 .summary = "One node with its hardware and addresses.",
	 .args = NODE_ARG,
	 .build = list_build,
	 .json = json_node_show,
	 .show = show_node},
	{.name = "pause",
	 .summary = "Start and move nothing to this node any more.",
	 .args = NODE_ARG,
	 .options = pause_options,
	 .flags = VERB_MUTATES | VERB_WAITS,
	 .build = pause_build},
	{.name = "drain",
	 .summary = "Pause the node and move every VM off it (the same as pause --drain).",
	 .args = NODE_ARG,
	 .options = drain_options,
	 .flags = VERB_MUTATES | VERB_WAITS,
	 .build = drain_build,
	 .example = "drover node drain node1 --wait"},
	{.name = "resume",
	 .summary = "Let the node take VMs again.",
	 .args = NODE_ARG,
	 .options = resume_options,
	 .flags = VERB_MUTATES,
	 .build = resume_build},
	{.name = "fence",
	 .summary = "Make sure that the node is off, so that its VMs may start elsewhere.",
	 .args = NODE_ARG,
	 .options = fence_options,
	 .flags = VERB_MUTATES,
	 .build = fence_build},
	{.name = "clear-quarantine",
	 .summary = "Trust a node again that failed too often.",
	 .args = NODE_ARG,
	 .flags = VERB_MUTATES,
	 .build = clear_build},
	{.name = "remove",
	 .summary = "Forget a node that owns no VM.",
	 .args = NODE_ARG,
	 .flags = VERB_MUTATES,
	 .build = remove_build},
};

const struct cli_noun node_noun = {"node", "the hosts that run VMs", verbs, DR_ARRAY_SIZE(verbs)};
