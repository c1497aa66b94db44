/* Responses as text for people: aligned tables with units. */
#ifndef DROVER_CLI_SHOW_H
#define DROVER_CLI_SHOW_H

#include <stdio.h>

#include "cli/cli.h"

/* Mutations: what was made or changed, in a line. The same for every mutating verb. */
void show_changed(FILE *out, const struct cli_parsed *p, const Drover__Response *resp);

void show_cluster_status(FILE *out, const struct cli_parsed *p, const Drover__Response *resp);
void show_token(FILE *out, const struct cli_parsed *p, const Drover__Response *resp);
void show_findings(FILE *out, const struct cli_parsed *p, const Drover__Response *resp);
void show_node_list(FILE *out, const struct cli_parsed *p, const Drover__Response *resp);
void show_node(FILE *out, const struct cli_parsed *p, const Drover__Response *resp);
void show_vm_list(FILE *out, const struct cli_parsed *p, const Drover__Response *resp);
void show_vm(FILE *out, const struct cli_parsed *p, const Drover__Response *resp);
void show_network_list(FILE *out, const struct cli_parsed *p, const Drover__Response *resp);
void show_limits(FILE *out, const struct cli_parsed *p, const Drover__Response *resp);
void show_drain_list(FILE *out, const struct cli_parsed *p, const Drover__Response *resp);
void show_drain(FILE *out, const struct cli_parsed *p, const Drover__Response *resp);
void show_move_list(FILE *out, const struct cli_parsed *p, const Drover__Response *resp);
void show_move(FILE *out, const struct cli_parsed *p, const Drover__Response *resp);
void show_plan(FILE *out, const struct cli_parsed *p, const Drover__Response *resp);
void show_event_list(FILE *out, const struct cli_parsed *p, const Drover__Response *resp);
void show_history_list(FILE *out, const struct cli_parsed *p, const Drover__Response *resp);

/* One event, a line. */
void show_event(FILE *out, const Drover__EventRow *e);

/* The table of moves: VM, way, network, passes, bytes, time, blackout. */
void show_moves(FILE *out, Drover__MoveRow *const *moves, size_t n);

/* How much of a move's memory has gone over, 0..1. */
double show_move_part(const Drover__MoveRow *m);

#endif
