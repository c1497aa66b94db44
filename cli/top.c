/* drover top: one live screen. */
#include "cli/cli.h"

static const struct cli_verb verbs[] = {
	{.name = "", .summary = "One live screen of the cluster.", .flags = VERB_LATER},
};

const struct cli_noun top_noun = {"top", "one live screen of the cluster (not supported yet)", verbs,
				  DR_ARRAY_SIZE(verbs)};
