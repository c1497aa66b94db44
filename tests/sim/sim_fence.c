/*
 * coordinator/fence.h over a simulated power switch. The device is one for all hosts and takes one order
 * after the other: a host that is off by then has asked for nothing. What was asked for happens, whether or
 * not the coordinator that asked lives on.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "coordinator/fence.h"

#define FAILS	    5 /* one in so many */
#define BOOT_AFTER  (4 * SIM_S)
#define BOOT_LATEST (20 * SIM_S)

struct fence_runner {
	struct coord *coord;
	uint64_t epoch[SIM_HOSTS]; /* of the run that is under way */
	bool busy[SIM_HOSTS];
	fence_done_fn done[SIM_HOSTS];
	void *data[SIM_HOSTS];
	uint64_t next;
};

static void ev_boot(struct sim *sim, struct sim_event *ev)
{
	host_power_on(sim->cluster, (unsigned)ev->a);
}

static void ev_done(struct sim *sim, struct sim_event *ev)
{
	struct fence_runner *r = ev->obj;
	unsigned host = (unsigned)ev->a;
	struct dr_error err = DR_ERROR_INIT;

	if (!r->busy[host] || r->epoch[host] != ev->b)
		return;
	r->busy[host] = false;
	if (ev->c != 0)
		dr_error_set(&err, DR_EFAILED, "the device does not answer");
	r->done[host](r->data[host], sim->hosts[host].name, ev->c != 0 ? -DR_EFAILED : 0, &err);
}

/* At the device. */
static void ev_off(struct sim *sim, struct sim_event *ev)
{
	struct fence_runner *r = ev->obj;
	unsigned host = (unsigned)ev->a;
	bool fails = sim_random(sim, FAILS) == 0;
	struct sim_event *answer;

	if (!fails && !sim->cluster->site_down[host]) {
		sim_trace(sim, "fence device: %s is switched off", sim->hosts[host].name);
		host_power_off(sim->cluster, host);
		answer = sim_post(sim, sim_between(sim, BOOT_AFTER, BOOT_LATEST), NULL, ev_boot, NULL);
		answer->a = host;
	}
	if (!r->coord->proc.alive || r->coord->proc.life != ev->c)
		return;
	answer = sim_post(sim, sim_between(sim, 50 * SIM_MS, SIM_S), &r->coord->proc, ev_done, r);
	answer->a = host;
	answer->b = ev->b;
	answer->c = fails;
}

struct fence_runner *fence_runner_new(qb_loop_t *loop, struct env *env, const char *dir, unsigned deadline_ms)
{
	struct fence_runner *r = calloc(1, sizeof(*r));

	(void)env;
	(void)dir;
	(void)deadline_ms;
	if (r == NULL)
		abort();
	r->coord = (struct coord *)loop;
	return r;
}

/* The device may still look at it: as all that a killed process leaves, it stays. */
void fence_runner_free(struct fence_runner *r)
{
	for (unsigned i = 0; i < SIM_HOSTS; i++)
		r->busy[i] = false;
}

int fence_off(struct fence_runner *r, const char *node, const char *spec, fence_done_fn done, void *data,
	      struct dr_error *err)
{
	struct sim *sim = r->coord->sim;
	struct sim_host *h = sim_host_named(sim, node);
	struct sim_event *ev;

	(void)spec;
	if (h == NULL)
		return dr_error_set(err, DR_ENOENT, "%s: no such host", node);
	if (r->busy[h->id])
		return dr_error_set(err, DR_EAGAIN, "%s: is being switched off already", node);
	r->busy[h->id] = true;
	r->epoch[h->id] = ++r->next;
	r->done[h->id] = done;
	r->data[h->id] = data;
	ev = sim_post(sim, sim_between(sim, 100 * SIM_MS, 2 * SIM_S), NULL, ev_off, r);
	ev->a = h->id;
	ev->b = r->next;
	ev->c = r->coord->proc.life;
	return 0;
}

void fence_cancel(struct fence_runner *r, const char *node)
{
	struct sim_host *h = sim_host_named(r->coord->sim, node);

	if (h != NULL)
		r->busy[h->id] = false;
}
