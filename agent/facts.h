/*
 * What is true about this host: memory, processors, QEMU, and its addresses by
 * netlink (DESIGN §6). Changes of links and addresses are heard at once.
 */
#ifndef DROVER_AGENT_FACTS_H
#define DROVER_AGENT_FACTS_H

#include "agent/agent.h"

#define FACTS_SETTLE_US	 100000u   /* after a netlink message: changes come in bursts */
#define FACTS_REFRESH_US 10000000u /* memory figures */

struct facts;

/* Reads everything once and watches netlink; changes call agent_dirty(). */
struct facts *facts_new(struct agent *a, struct dr_error *err);
void facts_free(struct facts *f);

/* The present facts; valid until the loop runs again. */
const Drover__HostFacts *facts_get(const struct facts *f);

/* MemAvailable of /proc/meminfo in bytes. */
uint64_t facts_memory_available(void);

/* Is this an interface that moves may use? (Not loopback, containers, libvirt's and VMs' own.) */
bool facts_interface_wanted(const char *name);

#endif
