/*
 * The relay's share of the bandwidth budget (DESIGN §8): TCP payload bytes per second.
 *
 * A token bucket of our own rather than the kernel's pacing: what counts is the payload that Drover sends,
 * including TLS and our headers but not retransmissions, summed over channels; a new share holds from the
 * next send on; and the same bytes are reported as bytes_wire. The kernel's pacing (SO_MAX_PACING_RATE,
 * somewhat higher) only takes the edge off the bursts.
 */
#ifndef DROVER_RELAY_BUDGET_H
#define DROVER_RELAY_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BUDGET_BURST_MS 30 /* saved up at most: no second exceeds its share by more than 3 % */

struct budget {
	uint64_t rate; /* bytes/s; 0 = none */
	bool urgent;   /* the VM is stopped: no limit */
	int64_t tokens;
	uint64_t filled_us;
};

void budget_set(struct budget *budget, uint64_t rate, uint64_t now_us);
void budget_urgent(struct budget *budget, bool urgent, uint64_t now_us);

/* How many bytes may be sent now; SIZE_MAX without limit. 0: *wake_us says when to ask again. */
size_t budget_allowed(struct budget *budget, uint64_t now_us, uint64_t *wake_us);
/* These were sent (more than allowed is a debt). */
void budget_spend(struct budget *budget, size_t bytes);

#endif
