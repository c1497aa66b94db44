#include "agent/lease.h"

#include <string.h>

#include "common/mutant.h"

void lease_init(struct lease *l)
{
	memset(l, 0, sizeof(*l));
}

uint64_t lease_request(struct lease *l, uint64_t now_us)
{
	uint64_t seq = ++l->last_seq;

	l->requests[seq % LEASE_REQUESTS].seq = seq;
	l->requests[seq % LEASE_REQUESTS].sent_us = now_us;
	return seq;
}

bool lease_grant(struct lease *l, uint64_t seq, uint64_t duration_ms, uint64_t term)
{
	uint64_t sent_us = l->requests[seq % LEASE_REQUESTS].sent_us;

	if (seq == 0 || l->requests[seq % LEASE_REQUESTS].seq != seq)
		return false;
	l->requests[seq % LEASE_REQUESTS].seq = 0;
	if (term < l->term || (l->duration_us != 0 && sent_us < l->base_us))
		return false;
	l->base_us = sent_us;
	l->duration_us = duration_ms > LEASE_DURATION_MAX / 1000 ? LEASE_DURATION_MAX : duration_ms * 1000;
	if (DR_MUTANT(lease_too_long))
		l->duration_us *= 2;
	l->term = term;
	return true;
}

bool lease_valid(const struct lease *l, uint64_t now_us)
{
	return l->duration_us != 0 && now_us >= l->base_us && now_us - l->base_us < l->duration_us;
}

uint64_t lease_age_us(const struct lease *l, uint64_t now_us)
{
	return lease_valid(l, now_us) ? now_us - l->base_us : UINT64_MAX;
}

void lease_forget_requests(struct lease *l)
{
	memset(l->requests, 0, sizeof(l->requests));
}
