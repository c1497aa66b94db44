/* drover history …: who asked for what. */
#include "cli/json.h"
#include "cli/show.h"
#include "cli/verbs.h"

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
	verb_list(cli, req, DROVER__LIST_REQUEST__WHAT__HISTORY)->since_utc_us = verb_since(cli, p);
	return 0;
}

static const struct cli_verb verbs[] = {
	{.name = "list",
	 .summary = "Every command: when, who, what, result.",
	 .options = list_options,
	 .build = list_build,
	 .json = json_history_list,
	 .show = show_history_list},
};

const struct cli_noun history_noun = {"history", "who asked for what", verbs, DR_ARRAY_SIZE(verbs)};
