/* Faults: what there is (cluster_fault_kinds.c) and when it happens (cluster_fault.c). */
#ifndef DROVER_TESTS_CLUSTER_FAULT_H
#define DROVER_TESTS_CLUSTER_FAULT_H

#include "cluster.h"

struct fault {
	enum fault_kind kind;
	unsigned phase;	 /* waits for it; 0 = for its time */
	uint64_t latest; /* happens then in any case */
	bool armed, done, healed;
	unsigned host, coord, other;
	uint64_t lasts;
};

struct kind {
	const char *name;
	unsigned weight;
	void (*begin)(struct cluster *cl, struct fault *f);
	void (*end)(struct cluster *cl, struct fault *f);
	bool disk; /* takes a member's log away */
};

extern const struct kind fault_kinds[F_N];
/* Each coordinator's disk as it was when the run began. */
extern struct disk fault_old_disks[SIM_COORDS];
/* The host whose agent dies at its next crash point; -1 = none. */
extern int fault_point_host;
void fault_on_point(struct sim *sim, struct sim_agent *agent, const char *name);

#endif
