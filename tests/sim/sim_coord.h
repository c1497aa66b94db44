/* The coordinators as the simulated hosts see them: sessions, reports, orders, leases, decisions. */
#ifndef DROVER_TESTS_SIM_COORD_H
#define DROVER_TESTS_SIM_COORD_H

#include "sim.h"

struct sim_coord;

/* The first two VMs run on host 0, the third on host 1. */
struct sim_coord *sim_coord_new(struct sim *sim);
void sim_coord_free(struct sim_coord *c);

/* How agents reach it. */
extern const struct sim_agent_ops sim_coord_agent_ops;

/* The operator's commands. */
void sim_coord_move(struct sim_coord *c, int vm, unsigned to);
void sim_coord_cancel(struct sim_coord *c, int vm);

/* Faults. A killed leader comes back as a follower after a while. */
void sim_coord_kill_leader(struct sim_coord *c);
void sim_coord_cuts_changed(struct sim_coord *c);

/* What the applied rows say. */
int sim_coord_owner(struct sim_coord *c, int vm);
uint64_t sim_coord_generation(struct sim_coord *c, int vm);
Drover__VmState sim_coord_vm_state(struct sim_coord *c, int vm);
/* "queued", ..., of the newest move of a VM; "" = none. *move, *attempt may be NULL. */
const char *sim_coord_move_state(struct sim_coord *c, int vm, uint64_t *move, uint32_t *attempt);
/* Whether a side of an attempt holds its slot. */
bool sim_coord_slot(struct sim_coord *c, uint64_t move, uint32_t attempt, Drover__MoveRole role);
uint64_t sim_coord_index(struct sim_coord *c);
const char *sim_coord_move_error(struct sim_coord *c, int vm);
bool sim_coord_committed(struct sim_coord *c, uint64_t move, uint32_t attempt);

#endif
