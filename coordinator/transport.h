/*
 * How coordinators reach each other: whole PeerMsg bytes, addressed by member id,
 * unreliable and unordered as far as the callers are concerned. Corosync's CPG
 * (cpg.h), nothing (standalone) or a simulated network fill it.
 */
#ifndef DROVER_COORDINATOR_TRANSPORT_H
#define DROVER_COORDINATOR_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct transport {
	void *impl;
	/* Sends or queues a packed PeerMsg; it names its receiver itself. Lost when the network says so. */
	void (*send)(struct transport *t, const uint8_t *bytes, size_t size);
	/* False: this side of the network has no majority; what is sent reaches a minority at best. */
	bool (*quorate)(struct transport *t);
};

#endif
