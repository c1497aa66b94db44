/* drover update …: rolling updates of the whole cluster. */
#include "cli/cli.h"

#define ID_ARG                                                                                               \
	{                                                                                                    \
		{                                                                                            \
			.name = "ID", .object = OBJ_PLAN                                                     \
		}                                                                                            \
	}

static const struct cli_verb verbs[] = {
	{.name = "plan", .summary = "Forecast a rolling update.", .flags = VERB_LATER},
	{.name = "start",
	 .summary = "Drain, update and reboot one node after the other.",
	 .flags = VERB_LATER | VERB_MUTATES},
	{.name = "list", .summary = "Every update run.", .flags = VERB_LATER},
	{.name = "show", .summary = "One update run.", .args = ID_ARG, .flags = VERB_LATER},
	{.name = "pause",
	 .summary = "Begin no further node.",
	 .args = ID_ARG,
	 .flags = VERB_LATER | VERB_MUTATES},
	{.name = "continue",
	 .summary = "Go on with a paused run.",
	 .args = ID_ARG,
	 .flags = VERB_LATER | VERB_MUTATES},
	{.name = "cancel",
	 .summary = "End a run after the present node.",
	 .args = ID_ARG,
	 .flags = VERB_LATER | VERB_MUTATES},
};

const struct cli_noun update_noun = {"update", "rolling updates (not supported yet)", verbs,
				     DR_ARRAY_SIZE(verbs)};
