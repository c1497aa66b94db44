/* drover limit …: how many moves at once, how fast, and how. */
#include <string.h>

#include "cli/json.h"
#include "cli/show.h"
#include "cli/verbs.h"

static const struct cli_word mode_words[] = {
	{.word = "auto"},
	{.word = "tcp"},
	{.word = "compress", .later = true},
	{.word = "multichannel"},
	{.word = "rdma", .later = true},
	{.word = "direct", .later = true},
	{0},
};
static const struct cli_word shutdown_words[] = {
	{.word = "drain", .later = true}, {.word = "stop", .later = true}, {.word = "leave"}, {0}};

static const struct cli_option set_options[] = {
	{.name = "node",
	 .kind = OPT_OBJECT,
	 .object = OBJ_NODE,
	 .value = "N",
	 .help = "of this node only (the default of all)"},
	{.name = "network",
	 .kind = OPT_OBJECT,
	 .object = OBJ_NETWORK,
	 .value = "NET",
	 .help = "of this network"},
	{.name = "max-moves",
	 .kind = OPT_NUMBER,
	 .value = "N",
	 .least = 1,
	 .most = 64,
	 .help = "moves of a node at once, in + out (2)"},
	{.name = "max-storage-moves",
	 .kind = OPT_NUMBER,
	 .value = "N",
	 .least = 1,
	 .most = 64,
	 .help = "storage moves of a node at once (2)"},
	{.name = "cluster-moves",
	 .kind = OPT_NUMBER_OR_NONE,
	 .value = "N",
	 .least = 1,
	 .most = 4096,
	 .help = "moves of the whole cluster at once (none)"},
	{.name = "bandwidth",
	 .kind = OPT_RATE_OR_NONE,
	 .value = "RATE|none",
	 .help = "all moves of a node or network together, such as 50MB or 6Gbit (none)"},
	{.name = "mode",
	 .kind = OPT_CHOICE,
	 .value = "auto|tcp|…",
	 .words = mode_words,
	 .help = "how bytes are carried (auto)"},
	{.name = "encrypt", .kind = OPT_ONOFF, .value = "on|off", .help = "TLS between relays (on)"},
	{.name = "quick-below",
	 .kind = OPT_PRIORITY,
	 .value = "P",
	 .later = true,
	 .help = "save and restore VMs below this priority"},
	{.name = "on-shutdown",
	 .kind = OPT_CHOICE,
	 .value = "drain|stop|leave",
	 .words = shutdown_words,
	 .help = "what a host's shutdown does with its VMs"},
	{.name = "blackout",
	 .kind = OPT_DURATION,
	 .value = "D",
	 .help = "longest pause that a move may cause (300ms)"},
	{.name = "drain-attempts",
	 .kind = OPT_NUMBER,
	 .value = "N",
	 .least = 1,
	 .most = 100,
	 .help = "attempts for a VM in a drain (3)"},
	{0},
};

static int show_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req, struct dr_error *err)
{
	(void)p;
	(void)err;
	verb_list(cli, req, DROVER__LIST_REQUEST__WHAT__LIMITS);
	return 0;
}

enum { FOR_ALL = 1, FOR_NODE = 2, FOR_NETWORK = 4 };

static const struct {
	const char *option;
	const char *field;
	unsigned where;
} fields[] = {
	{"max-moves", "max_moves", FOR_ALL | FOR_NODE},
	{"max-storage-moves", "max_storage_moves", FOR_ALL | FOR_NODE},
	{"cluster-moves", "cluster_moves", FOR_ALL},
	{"bandwidth", "bandwidth", FOR_ALL | FOR_NODE | FOR_NETWORK},
	{"mode", "mode", FOR_ALL | FOR_NODE | FOR_NETWORK},
	{"encrypt", "encrypt", FOR_ALL | FOR_NODE | FOR_NETWORK},
	{"on-shutdown", "on_shutdown", FOR_ALL | FOR_NODE},
	{"blackout", "blackout_ms", FOR_ALL},
	{"drain-attempts", "drain_attempts", FOR_ALL},
};

static int mask_build(struct cli *cli, const struct cli_parsed *p, Drover__LimitSet *set, unsigned where,
		      struct dr_error *err)
{
	for (size_t i = 0; i < DR_ARRAY_SIZE(fields); i++) {
		if (cli_value(p, fields[i].option) == NULL)
			continue;
		if ((fields[i].where & where) == 0)
			return dr_error_set(err, DR_EUSAGE,
					    "--%s is no limit of one %s: give it without --%s",
					    fields[i].option, where == FOR_NODE ? "node" : "network",
					    where == FOR_NODE ? "node" : "network");
		set->mask = arena_grow(&cli->arena, set->mask, set->n_mask, verb_text(fields[i].field));
		set->n_mask++;
	}
	if (set->n_mask == 0)
		return dr_error_set(err, DR_EUSAGE,
				    "say which limit to set: \"drover limit set --help\" lists them");
	return 0;
}

static int set_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req, struct dr_error *err)
{
	Drover__LimitSet *set = VERB_NEW(cli, req, limit_set, LIMIT_SET, drover__limit_set);
	const struct cli_value *node = cli_value(p, "node");
	const struct cli_value *network = cli_value(p, "network");

	if (node != NULL && network != NULL)
		return dr_error_set(
			err, DR_EUSAGE,
			"give --node or --network, not both: bandwidth limits of each hold together");
	set->node = verb_text(cli_text(p, "node"));
	set->network = verb_text(cli_text(p, "network"));
	set->max_moves = (uint32_t)cli_number(p, "max-moves");
	set->max_storage_moves = (uint32_t)cli_number(p, "max-storage-moves");
	set->cluster_moves = (uint32_t)cli_number(p, "cluster-moves");
	set->bandwidth = cli_number(p, "bandwidth");
	set->mode = verb_text(cli_text(p, "mode"));
	set->encrypt = cli_flag(p, "encrypt");
	set->on_shutdown = verb_text(cli_text(p, "on-shutdown"));
	set->blackout_ms = cli_number(p, "blackout");
	set->drain_attempts = (uint32_t)cli_number(p, "drain-attempts");
	if (cli_value(p, "blackout") != NULL && (set->blackout_ms < 1 || set->blackout_ms > 60000))
		return dr_error_set(err, DR_EUSAGE, "--blackout: \"%s\" is not possible: give 1ms to 60s",
				    cli_text(p, "blackout"));
	return mask_build(cli, p, set,
			  node != NULL	    ? FOR_NODE
			  : network != NULL ? FOR_NETWORK
					    : FOR_ALL,
			  err);
}

static const struct cli_verb verbs[] = {
	{.name = "show",
	 .summary = "Every limit, with what holds on each node.",
	 .build = show_build,
	 .json = json_limit_show,
	 .show = show_limits},
	{.name = "set",
	 .summary = "Set limits; without --node the default of every node.",
	 .options = set_options,
	 .flags = VERB_MUTATES,
	 .build = set_build,
	 .example = "drover limit set --max-moves 4 --bandwidth 6Gbit"},
};

const struct cli_noun limit_noun = {"limit", "how many moves at once, and how fast", verbs,
				    DR_ARRAY_SIZE(verbs)};
