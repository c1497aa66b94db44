#include "cli/cli.h"
#include "cli/verbs.h"
#include "common/units.h"

const struct cli_noun *const cli_nouns[] = {
	&cluster_noun, &node_noun,   &vm_noun,	  &network_noun, &limit_noun, &drain_noun,
	&move_noun,    &update_noun, &event_noun, &history_noun, &top_noun,
};
const size_t cli_n_nouns = DR_ARRAY_SIZE(cli_nouns);

Drover__ListRequest *verb_list(struct cli *cli, Drover__Request *req, Drover__ListRequest__What what)
{
	Drover__ListRequest *list = VERB_NEW(cli, req, list, LIST, drover__list_request);

	list->what = what;
	return list;
}

uint64_t verb_since(struct cli *cli, const struct cli_parsed *p)
{
	const struct cli_value *since = cli_value(p, "since");
	uint64_t ms;
	uint64_t now = cli->transport->ops->utc_us(cli->transport);

	if (since == NULL)
		return 0;
	if (units_duration_parse(since->text, &ms, NULL) < 0)
		return since->number;
	return ms > now / 1000 ? 1 : now - ms * 1000;
}
