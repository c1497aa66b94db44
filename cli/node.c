/* drover node …: the hosts. */
#include <string.h>

#include "cli/json.h"
#include "cli/show.h"
#include "cli/verbs.h"

static const struct cli_word failback_words[] = {{.word = "immediate"}, {.word = "none"}, {0}};

#define FENCE_TIMEOUT_MS 150000 /* an agent has a minute to switch off and one to make sure of it */

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
	{.name = "force",
	 .kind = OPT_FLAG,
	 .help = "cut the power although its agent is connected: every VM on it dies"},
	{0},
};
static const struct cli_option set_options[] = {
	{.name = "fence",
	 .kind = OPT_TEXT,
	 .value = "AGENT[,KEY=VALUE…]|none",
	 .help = "its fence agent and what that needs; a comma in a value is written twice"},
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
	Drover__NodeVerb *verb = node_verb(cli, p, req, DROVER__NODE_VERB__VERB__FENCE);

	verb->confirmed = cli_flag(p, "confirmed");
	verb->force = cli_flag(p, "force");
	if (verb->confirmed && verb->force)
		return dr_error_set(
			err, DR_EUSAGE,
			"--force cuts the power of a host that works, --confirmed says that it has "
			"none: give one of them");
	return 0;
}

/* The next part of "a,b,,c": up to a single comma; two stand for one of the value. */
static char *next_part(struct cli *cli, const char **text)
{
	char *part = arena_alloc(&cli->arena, strlen(*text) + 1);
	const char *p = *text;
	size_t n = 0;

	for (; *p != '\0' && (p[0] != ',' || p[1] == ','); p += *p == ',' ? 2 : 1)
		part[n++] = *p;
	part[n] = '\0';
	*text = *p == ',' ? p + 1 : p;
	return part;
}

static int set_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req, struct dr_error *err)
{
	Drover__NodeSet *set = VERB_NEW(cli, req, node_set, NODE_SET, drover__node_set);
	const char *text = cli_text(p, "fence");

	set->node = verb_text(cli_arg(p, 0));
	if (text[0] == '\0')
		return dr_error_set(err, DR_EUSAGE,
				    "say what to set: --fence AGENT[,KEY=VALUE…] or --fence none");
	set->fence_agent = next_part(cli, &text);
	while (text[0] != '\0') {
		Drover__FenceOption *o = arena_alloc(&cli->arena, sizeof(*o));
		char *value;

		drover__fence_option__init(o);
		o->key = next_part(cli, &text);
		value = strchr(o->key, '=');
		/* The word itself may be a password: it is not shown. */
		if (value == NULL || value == o->key)
			return dr_error_set(err, DR_EUSAGE, "--fence: option %zu has not the form KEY=VALUE",
					    set->n_fence_options + 1);
		*value = '\0';
		o->value = value + 1;
		set->fence_options =
			arena_grow(&cli->arena, (void *)set->fence_options, set->n_fence_options, o);
		set->n_fence_options++;
	}
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
	{.name = "set",
	 .summary = "Say how the node is fenced.",
	 .args = NODE_ARG,
	 .options = set_options,
	 .flags = VERB_MUTATES,
	 .build = set_build,
	 .example =
		 "drover node set node1 --fence fence_ipmilan,ip=10.0.0.11,username=drover,password=secret"},
	{.name = "fence",
	 .summary = "Make sure that the node is off, so that its VMs may start elsewhere.",
	 .args = NODE_ARG,
	 .options = fence_options,
	 .flags = VERB_MUTATES,
	 .timeout_ms = FENCE_TIMEOUT_MS,
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
