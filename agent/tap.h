/* Network interfaces of VMs: a tap on a bridge, opened by the agent and passed to QEMU, which has no rights.
 */
#ifndef DROVER_AGENT_TAP_H
#define DROVER_AGENT_TAP_H

#include <stdint.h>

#include "common/error.h"

/* -DR_EREFUSED when there is no such bridge on this host. */
int tap_check_bridge(const char *bridge, struct dr_error *err);

/* A tap that is up and on the bridge; it vanishes when its last descriptor is closed. mtu 0: the bridge's. */
int tap_open(const char *bridge, uint32_t mtu, struct dr_error *err);

#endif
