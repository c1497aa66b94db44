/* tests/sim/run --seeds: see cluster.h. */
#include <stdio.h>
#include "cluster.h"
#include "seeds.h"
int seeds_one(uint64_t seed, bool trace)
{
	static struct cluster_result r;
	struct cluster *cl = cluster_new(cluster_size(seed, NULL), 3, 4, false);
	cl->sim->opt.trace = trace;
	sim_log_on = trace;
	cluster_run(cl, seed, NULL, &r);
	printf("seed %llu: %s %u steps, %llu ms virtual, %u commits %s\n", (unsigned long long)seed,
	       r.ok ? "ok" : "FAILED", r.steps, (unsigned long long)r.virtual_us / 1000, r.commits, r.why);
	return r.ok ? 0 : 1;
}
