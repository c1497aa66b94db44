/* Who reaches whom. */
#include "cluster.h"

bool net_reaches(const struct cluster *cl, unsigned from, unsigned to)
{
	return from == to || (!cl->cut[from][to] && !cl->site_down[from] && !cl->site_down[to]);
}

void net_cut(struct cluster *cl, unsigned a, unsigned b, bool cut)
{
	if (cl->cut[a][b] == cut)
		return;
	cl->cut[a][b] = cut;
	cl->cut_since[a][b] = cut ? cl->sim->now : 0;
}

void net_changed(struct cluster *cl)
{
	ring_changed(cl);
	conns_cut(cl);
}

uint64_t net_latency(struct cluster *cl, unsigned from, unsigned to)
{
	struct sim *sim = cl->sim;
	uint64_t us = from == to ? sim_between(sim, 20, 120) : sim_between(sim, 120, 900);

	if (cl->bad_net > 0 && sim_random(sim, 100) < cl->bad_net)
		us += sim_between(sim, 0, 400 * SIM_MS);
	return us;
}
