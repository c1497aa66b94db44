#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim_coord.h"

void sim_proc_start(struct sim_proc *p)
{
	p->alive = true;
	p->life++;
	p->stopped_until = 0;
}

void sim_proc_kill(struct sim_proc *p)
{
	p->alive = false;
	p->life++;
	p->stopped_until = 0;
}

/* splitmix64: good enough, and the same everywhere. */
static uint64_t next_random(struct sim *sim)
{
	uint64_t z = (sim->rng += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t sim_random(struct sim *sim, uint64_t below)
{
	return below == 0 ? 0 : next_random(sim) % below;
}

uint64_t sim_between(struct sim *sim, uint64_t lo, uint64_t hi)
{
	return lo + sim_random(sim, hi - lo + 1);
}

void sim_trace(struct sim *sim, const char *fmt, ...)
{
	va_list ap;

	if (!sim->opt.trace)
		return;
	printf("%12.6f ", (double)sim->now / 1e6);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}

void sim_broken(struct sim *sim, const char *fmt, ...)
{
	va_list ap;

	if (sim->broken[0] != '\0')
		return;
	va_start(ap, fmt);
	vsnprintf(sim->broken, sizeof(sim->broken), fmt, ap);
	va_end(ap);
	sim_trace(sim, "BROKEN: %s", sim->broken);
}

uint64_t sim_clock_now(const struct sim *sim, const struct sim_clock *clock)
{
	int64_t passed = (int64_t)(sim->now - clock->at);

	return clock->local + (uint64_t)(passed + passed / 1000 * clock->ppm / 1000);
}

void sim_clock_rate(struct sim *sim, struct sim_clock *clock, int64_t ppm)
{
	clock->local = sim_clock_now(sim, clock);
	clock->at = sim->now;
	clock->ppm = ppm;
}

/* ---------------------------------------------------------------- the queue: a binary heap by (at, order) */

static bool earlier(const struct sim_event *a, const struct sim_event *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void swap(struct sim *sim, size_t a, size_t b)
{
	struct sim_event *e = sim->queue[a];

	sim->queue[a] = sim->queue[b];
	sim->queue[b] = e;
}

static void push(struct sim *sim, struct sim_event *ev)
{
	size_t i = sim->n_queue;

	if (i == sim->queue_size) {
		sim->queue_size = sim->queue_size == 0 ? 256 : sim->queue_size * 2;
		sim->queue = realloc(sim->queue, sim->queue_size * sizeof(sim->queue[0]));
		if (sim->queue == NULL)
			abort();
	}
	sim->queue[i] = ev;
	sim->n_queue++;
	for (; i > 0 && earlier(sim->queue[i], sim->queue[(i - 1) / 2]); i = (i - 1) / 2)
		swap(sim, i, (i - 1) / 2);
}

static struct sim_event *pop(struct sim *sim)
{
	struct sim_event *ev = sim->queue[0];
	size_t i = 0;

	sim->n_queue--;
	sim->queue[0] = sim->queue[sim->n_queue];
	for (;;) {
		size_t least = i;

		for (size_t k = 2 * i + 1; k <= 2 * i + 2; k++)
			if (k < sim->n_queue && earlier(sim->queue[k], sim->queue[least]))
				least = k;
		if (least == i)
			return ev;
		swap(sim, i, least);
		i = least;
	}
}

static void event_free(struct sim_event *ev)
{
	if (ev->msg != NULL && ev->free_msg != NULL)
		ev->free_msg(ev->msg);
	else
		free(ev->msg);
	free(ev);
}

struct sim_event *sim_post(struct sim *sim, uint64_t delay, struct sim_proc *proc,
			   void (*fn)(struct sim *, struct sim_event *), void *obj)
{
	struct sim_event *ev = calloc(1, sizeof(*ev));

	if (ev == NULL)
		abort();
	ev->at = sim->now + delay;
	ev->order = sim->next_order++;
	ev->proc = proc;
	ev->life = proc != NULL ? proc->life : 0;
	ev->fn = fn;
	ev->obj = obj;
	push(sim, ev);
	return ev;
}

/* An agent whose code runs may die in the middle of it: its crash points jump back to here. */
static void run(struct sim *sim, struct sim_event *ev)
{
	jmp_buf escape;

	sim->escape = &escape;
	sim->current = sim->last = ev->proc;
	if (setjmp(escape) == 0)
		ev->fn(sim, ev);
	sim->escape = NULL;
	sim->running = NULL;
	sim->current = NULL;
}

bool sim_step(struct sim *sim)
{
	struct sim_event *ev;

	if (sim->broken[0] != '\0' || sim->n_queue == 0)
		return false;
	ev = pop(sim);
	sim->now = ev->at;
	if (ev->proc != NULL && ev->life != ev->proc->life) {
		event_free(ev);
		return true;
	}
	if (ev->proc != NULL && ev->proc->stopped_until > sim->now) {
		ev->at = ev->proc->stopped_until;
		push(sim, ev); /* keeps its place among the others that wait */
		return true;
	}
	run(sim, ev);
	event_free(ev);
	sim->steps++;
	sim->check(sim);
	if (sim->on_step != NULL)
		sim->on_step(sim);
	return sim->broken[0] == '\0';
}

/* ---------------------------------------------------------------- the cluster */

struct sim_host *sim_host_named(struct sim *sim, const char *name)
{
	for (unsigned i = 0; i < sim->n_hosts; i++)
		if (strcmp(sim->hosts[i].name, name) == 0)
			return &sim->hosts[i];
	return NULL;
}

int sim_vm_index(const char *name)
{
	int n = name[0] == 'v' && name[1] == 'm' ? name[2] - '1' : -1;

	return n >= 0 && n < SIM_VMS ? n : -1;
}

struct sim *sim_alloc(const struct sim_options *opt, unsigned n_hosts, unsigned n_vms)
{
	struct sim *sim = calloc(1, sizeof(*sim));

	if (sim == NULL)
		abort();
	sim->opt = *opt;
	sim->n_hosts = n_hosts;
	sim->n_vms = n_vms;
	sim->rng = opt->seed;
	sim->now = 10 * SIM_S;
	sim->next_pid = 1000;
	for (unsigned i = 0; i < n_hosts; i++) {
		struct sim_host *h = &sim->hosts[i];

		h->sim = sim;
		h->id = i;
		snprintf(h->name, sizeof(h->name), "node%u", i + 1);
		h->clock.at = sim->now;
		h->clock.local = sim->now + sim_random(sim, 1000 * SIM_S);
		h->clock.ppm = (int64_t)sim_random(sim, 1000) - 500;
		h->agent.host = h;
		h->agent.coord = -1;
		h->agent.restart_delay = 1 * SIM_S;
	}
	for (unsigned v = 0; v < n_vms; v++)
		sim->dark_since[v] = SIM_NEVER;
	return sim;
}

struct sim *sim_new(const struct sim_options *opt)
{
	struct sim *sim = sim_alloc(opt, 3, 3);

	sim->check = sim_check;
	sim_coord_new(sim);
	for (unsigned v = 0; v < sim->n_vms; v++) {
		struct sim_host *h = &sim->hosts[sim->owner[v]];
		struct sim_qemu *q = sim_qemu_new(sim, h, (int)v, false);

		h->agent.vms[v] = (struct sim_vm_row){.here = true,
						      .generation = sim_coord_generation(sim->coord, (int)v),
						      .pid = q->pid,
						      .state = DROVER__VM_STATE__VM_RUNNING};
	}
	for (unsigned i = 0; i < sim->n_hosts; i++)
		sim->hosts[i].agent.ops = &sim_coord_agent_ops;
	for (unsigned i = 0; i < sim->n_hosts; i++)
		sim_agent_start(&sim->hosts[i].agent);
	return sim;
}

void sim_free(struct sim *sim)
{
	for (unsigned i = 0; i < sim->n_hosts; i++)
		for (unsigned k = 0; k < SIM_MACHINES; k++) {
			struct sim_agent *a = &sim->hosts[i].agent;

			if (a->machines[k].used)
				move_free(a->machines[k].m);
			if (a->rows[k].order != NULL)
				drover__move_order__free_unpacked(a->rows[k].order, NULL);
		}
	while (sim->n_queue > 0)
		event_free(pop(sim));
	free(sim->queue);
	for (unsigned i = 0; i < sim->n_qemus; i++)
		free(sim->qemus[i]);
	for (unsigned i = 0; i < sim->n_relays; i++)
		free(sim->relays[i]);
	sim_coord_free(sim->coord);
	free(sim);
}

#ifdef DROVER_COVERAGE
void __gcov_dump(void);
#endif

void sim_leave(int status)
{
#ifdef DROVER_COVERAGE
	__gcov_dump();
#endif
	_exit(status);
}
