/* Subnets of addresses, as text. Pure. */
#ifndef DROVER_COORDINATOR_SUBNET_H
#define DROVER_COORDINATOR_SUBNET_H

#include <stdbool.h>
#include <stdint.h>

#define SUBNET_TEXT 64

/* "10.77.1.0/24" for 10.77.1.5 and 24. false: not an address, or one that no network of ours has (loopback,
 * link-local, a single host). */
bool subnet_of(const char *address, uint32_t prefix, char out[SUBNET_TEXT]);

/* A network's name made of its subnet: "10.77.1.0-24". Returns out. */
char *subnet_name(const char *subnet, char out[SUBNET_TEXT]);

#endif
