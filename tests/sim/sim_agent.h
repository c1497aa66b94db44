/* Between sim_agent.c and sim_env.c. */
#ifndef DROVER_TESTS_SIM_AGENT_H
#define DROVER_TESTS_SIM_AGENT_H

#include "sim.h"

/* Fills the machine's struct move_env. */
void sim_env_init(struct sim_machine *mc);
/* Fills the agent's struct env: the host's clock. */
void sim_env_clock(struct sim_agent *agent);

/* An event for this machine, `delay` from now, if its agent still lives then. */
void sim_machine_later(struct sim_machine *mc, uint64_t delay, const struct move_event *ev);
/* R12: whether the end of a VM's QEMU is this host's to tell. */
bool sim_agent_may_say_failed(struct sim_agent *agent, int vm);
void sim_agent_dirty(struct sim_agent *agent);

char *sim_vm_name(int vm);
void sim_proof_init(Drover__DiskProof *proof, uint8_t nonce[32]);
void sim_host_addresses(struct sim_host *host, Drover__HostFacts *facts);
void sim_host_addresses_free(Drover__HostFacts *facts);

#endif
