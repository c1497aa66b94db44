/* drover move …: moves of single VMs, also those of drains. */
#include "cli/json.h"
#include "cli/show.h"
#include "cli/verbs.h"

static const struct cli_option list_options[] = {
	{.name = "active", .kind = OPT_FLAG, .help = "only those that have not ended"},
	{0},
};

static int list_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req, struct dr_error *err)
{
	Drover__ListRequest *list = verb_list(cli, req, DROVER__LIST_REQUEST__WHAT__MOVES);

	(void)err;
	list->active = cli_flag(p, "active");
	list->id = p->n_args > 0 ? p->ids[0] : 0;
	return 0;
}

static int cancel_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
			struct dr_error *err)
{
	Drover__MoveVerb *verb = VERB_NEW(cli, req, move_verb, MOVE_VERB, drover__move_verb);

	(void)err;
	verb->verb = DROVER__MOVE_VERB__VERB__CANCEL;
	verb->move = p->ids[0];
	return 0;
}

#define ID_ARG                                                                                               \
	{                                                                                                    \
		{                                                                                            \
			.name = "ID", .object = OBJ_MOVE                                                     \
		}                                                                                            \
	}

static const struct cli_verb verbs[] = {
	{.name = "list",
	 .summary = "Every move with its figures.",
	 .options = list_options,
	 .build = list_build,
	 .json = json_move_list,
	 .show = show_move_list},
	{.name = "show",
	 .summary = "One move.",
	 .args = ID_ARG,
	 .build = list_build,
	 .json = json_move_show,
	 .show = show_move},
	{.name = "cancel",
	 .summary = "Stop a move that is not switching over yet; the VM stays where it is.",
	 .args = ID_ARG,
	 .flags = VERB_MUTATES | VERB_WAITS,
	 .build = cancel_build},
};

const struct cli_noun move_noun = {"move", "moves of VMs", verbs, DR_ARRAY_SIZE(verbs)};
