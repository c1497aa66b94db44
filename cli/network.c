/* drover network …: which networks moves use, and in which order. */
#include <string.h>

#include "cli/json.h"
#include "cli/show.h"
#include "cli/verbs.h"
#include "common/units.h"

#define RANK_MOST 65535

static int list_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req, struct dr_error *err)
{
	(void)err;
	verb_list(cli, req, DROVER__LIST_REQUEST__WHAT__NETWORKS)->name = verb_text(cli_arg(p, 0));
	return 0;
}

static int order_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
		       struct dr_error *err)
{
	Drover__NetworkOrder *order = VERB_NEW(cli, req, network_order, NETWORK_ORDER, drover__network_order);

	for (size_t i = 0; i < p->n_args; i++) {
		Drover__NetworkRank *rank = arena_alloc(&cli->arena, sizeof(*rank));
		const char *equals = strchr(p->args[i], '=');
		uint64_t number;

		drover__network_rank__init(rank);
		if (equals == NULL)
			return dr_error_set(err, DR_EUSAGE,
					    "\"%.80s\" is no order: give NET=RANK, such as mig1=1",
					    p->args[i]);
		rank->network = arena_strndup(&cli->arena, p->args[i], (size_t)(equals - p->args[i]));
		if (names_check(rank->network, "network", err) < 0)
			return -DR_EUSAGE;
		if (units_number_parse(equals + 1, 1, RANK_MOST, &number, err) < 0) {
			dr_error_prefix(err, "rank of %s", rank->network);
			return -DR_EUSAGE;
		}
		rank->rank = (uint32_t)number;
		for (size_t k = 0; k < order->n_ranks; k++) {
			if (strcmp(order->ranks[k]->network, rank->network) == 0)
				return dr_error_set(err, DR_EUSAGE, "network %s was given twice",
						    rank->network);
		}
		order->ranks = arena_grow(&cli->arena, order->ranks, order->n_ranks, rank);
		order->n_ranks++;
	}
	return 0;
}

static Drover__NetworkVerb *network_verb(struct cli *cli, Drover__Request *req,
					 Drover__NetworkVerb__Verb which)
{
	Drover__NetworkVerb *verb = VERB_NEW(cli, req, network_verb, NETWORK_VERB, drover__network_verb);

	verb->verb = which;
	return verb;
}

static void networks_take(struct cli *cli, const struct cli_parsed *p, Drover__NetworkVerb *verb)
{
	for (size_t i = 0; i < p->n_args; i++) {
		verb->networks =
			arena_grow(&cli->arena, verb->networks, verb->n_networks, verb_text(p->args[i]));
		verb->n_networks++;
	}
}

static int exclude_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
			 struct dr_error *err)
{
	(void)err;
	networks_take(cli, p, network_verb(cli, req, DROVER__NETWORK_VERB__VERB__EXCLUDE));
	return 0;
}

static int include_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
			 struct dr_error *err)
{
	(void)err;
	networks_take(cli, p, network_verb(cli, req, DROVER__NETWORK_VERB__VERB__INCLUDE));
	return 0;
}

static int rename_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
			struct dr_error *err)
{
	Drover__NetworkVerb *verb = network_verb(cli, req, DROVER__NETWORK_VERB__VERB__RENAME);

	(void)err;
	verb->networks = arena_grow(&cli->arena, NULL, 0, verb_text(cli_arg(p, 0)));
	verb->n_networks = 1;
	verb->new_name = verb_text(cli_arg(p, 1));
	return 0;
}

static const struct cli_verb verbs[] = {
	{.name = "list",
	 .summary = "Every network: rank, nodes, addresses.",
	 .build = list_build,
	 .json = json_network_list,
	 .show = show_network_list},
	{.name = "show",
	 .summary = "One network.",
	 .args = {{.name = "NET", .object = OBJ_NETWORK}},
	 .build = list_build,
	 .json = json_network_show,
	 .show = show_network_list},
	{.name = "order",
	 .summary = "Rank networks for moves: rank 1 first, the next rank only when no better one works.",
	 .args = {{.name = "NET=RANK", .object = OBJ_RANK, .repeats = true}},
	 .flags = VERB_MUTATES,
	 .build = order_build,
	 .example = "drover network order mig1=1 mig2=1 mgmt=9"},
	{.name = "exclude",
	 .summary = "Never use these networks for moves.",
	 .args = {{.name = "NET", .object = OBJ_NETWORK, .repeats = true}},
	 .flags = VERB_MUTATES,
	 .build = exclude_build},
	{.name = "include",
	 .summary = "Use these networks again.",
	 .args = {{.name = "NET", .object = OBJ_NETWORK, .repeats = true}},
	 .flags = VERB_MUTATES,
	 .build = include_build},
	{.name = "rename",
	 .summary = "Give a network another name.",
	 .args = {{.name = "NET", .object = OBJ_NETWORK}, {.name = "NAME", .object = OBJ_NETWORK}},
	 .flags = VERB_MUTATES,
	 .build = rename_build},
	{.name = "probe",
	 .summary = "Measure reachability, MTU and rate between all nodes.",
	 .args = {{.name = "NET", .object = OBJ_NETWORK, .optional = true}},
	 .flags = VERB_LATER},
};

const struct cli_noun network_noun = {"network", "the networks that moves use, by rank", verbs,
				      DR_ARRAY_SIZE(verbs)};
