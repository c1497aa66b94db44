/* What the noun files share: the requests of lists and of --wait. */
#ifndef DROVER_CLI_VERBS_H
#define DROVER_CLI_VERBS_H

#include "cli/cli.h"

/* The verb oneof of a request, its message made in cli's arena. */
#define VERB_NEW(cli_, req_, field_, case_, type_)                                                           \
	({                                                                                                   \
		__typeof__((req_)->field_) verb_new_ = arena_alloc(&(cli_)->arena, sizeof(*verb_new_));      \
		type_##__init(verb_new_);                                                                    \
		(req_)->verb_case = DROVER__REQUEST__VERB_##case_;                                           \
		(req_)->field_ = verb_new_;                                                                  \
		verb_new_;                                                                                   \
	})

/* protobuf-c's strings are not const; nothing writes to them. */
static inline char *verb_text(const char *text)
{
	return (char *)(uintptr_t)text;
}

Drover__ListRequest *verb_list(struct cli *cli, Drover__Request *req, Drover__ListRequest__What what);

/* --since: a time, or a duration before the present one. */
uint64_t verb_since(struct cli *cli, const struct cli_parsed *p);

#endif
