/* Responses as JSON: the keys of INTERFACE §2. Each function returns a new object that the caller owns. */
#ifndef DROVER_CLI_JSON_H
#define DROVER_CLI_JSON_H

#include <jansson.h>

#include "cli/cli.h"

/* Mutations: {changed} or {KIND:{…}} with the object that was made. The same for every mutating verb. */
json_t *json_changed(const struct cli_parsed *p, const Drover__Response *resp);

json_t *json_cluster_status(const struct cli_parsed *p, const Drover__Response *resp);
json_t *json_token(const struct cli_parsed *p, const Drover__Response *resp);
json_t *json_findings(const struct cli_parsed *p, const Drover__Response *resp);
json_t *json_node_list(const struct cli_parsed *p, const Drover__Response *resp);
json_t *json_node_show(const struct cli_parsed *p, const Drover__Response *resp);
json_t *json_vm_list(const struct cli_parsed *p, const Drover__Response *resp);
json_t *json_vm_show(const struct cli_parsed *p, const Drover__Response *resp);
json_t *json_network_list(const struct cli_parsed *p, const Drover__Response *resp);
json_t *json_network_show(const struct cli_parsed *p, const Drover__Response *resp);
json_t *json_limit_show(const struct cli_parsed *p, const Drover__Response *resp);
json_t *json_drain_list(const struct cli_parsed *p, const Drover__Response *resp);
json_t *json_drain_show(const struct cli_parsed *p, const Drover__Response *resp);
json_t *json_move_list(const struct cli_parsed *p, const Drover__Response *resp);
json_t *json_move_show(const struct cli_parsed *p, const Drover__Response *resp);
json_t *json_event_list(const struct cli_parsed *p, const Drover__Response *resp);
json_t *json_history_list(const struct cli_parsed *p, const Drover__Response *resp);

/* One event, as `event follow` prints it. */
json_t *json_event(const Drover__EventRow *e);

/* {error:{exit,code,message,objects}} */
json_t *json_error(int exit, const char *message, char *const *objects, size_t n_objects);

#endif
