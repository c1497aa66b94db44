/*
 * The agent's lease, pure (DESIGN §5, SAFETY R2, R7, R8).
 *
 * A grant counts from the moment at which its request was SENT, on CLOCK_BOOTTIME:
 * whatever happened to the answer on its way, the leader counts from later.
 */
#ifndef DROVER_AGENT_LEASE_H
#define DROVER_AGENT_LEASE_H

#include <stdbool.h>
#include <stdint.h>

#define LEASE_REQUEST_US 1000000 /* between requests */
#define LEASE_SWITCH_US                                                                                      \
	500000 /* while a VM may have to switch over: R2 wants it young, also when an answer is lost */
#define LEASE_HURRY_US	   200000  /* between requests while there is no lease */
#define LEASE_REQUESTS	   64	   /* remembered requests that have no answer */
#define LEASE_WORD_US	   2000000 /* R2: the source gives its word only with a lease younger than this */
#define LEASE_DURATION_MAX 600000000ull /* longer grants are cut: they could only be a mistake */

struct lease {
	uint64_t last_seq;
	struct {
		uint64_t seq;
		uint64_t sent_us;
	} requests[LEASE_REQUESTS];
	uint64_t base_us;     /* when the request of the newest grant was sent */
	uint64_t duration_us; /* 0: no lease */
	uint64_t term;
};

void lease_init(struct lease *l);

/* A request goes out now: its sequence number. */
uint64_t lease_request(struct lease *l, uint64_t now_us);

/* A grant came. Ignored: an unknown request, one older than the newest grant, an older term. True when it
 * counts. */
bool lease_grant(struct lease *l, uint64_t seq, uint64_t duration_ms, uint64_t term);

bool lease_valid(const struct lease *l, uint64_t now_us);

/* Microseconds since the request of the newest grant was sent; UINT64_MAX without a valid lease. */
uint64_t lease_age_us(const struct lease *l, uint64_t now_us);

/* The agent's session is new: answers to requests of the old one no longer count. The lease itself goes on.
 */
void lease_forget_requests(struct lease *l);

#endif
