/* struct move_env and struct env of a simulated agent. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim_agent.h"

static char vm_names[SIM_VMS][4] = {"vm1", "vm2", "vm3", "vm4", "vm5", "vm6"};

char *sim_vm_name(int vm)
{
	return vm_names[vm];
}

void sim_proof_init(Drover__DiskProof *proof, uint8_t nonce[32])
{
	drover__disk_proof__init(proof);
	proof->path = (char *)(uintptr_t) "/srv/disk.raw";
	proof->nonce_file = (char *)(uintptr_t) "/srv/.drover-nonce";
	proof->nonce.data = nonce;
	proof->nonce.len = 32;
}

void sim_host_addresses(struct sim_host *host, Drover__HostFacts *facts)
{
	Drover__HostAddress *a = calloc(1, sizeof(*a));
	char text[32];

	facts->addresses = calloc(1, sizeof(facts->addresses[0]));
	if (a == NULL || facts->addresses == NULL)
		abort();
	drover__host_address__init(a);
	snprintf(text, sizeof(text), "10.1.0.%u", host->id + 1);
	a->interface = strdup("mig1");
	a->address = strdup(text);
	a->prefix = 24;
	a->speed = SIM_LINK_RATE;
	a->mtu = 9000;
	a->up = true;
	facts->addresses[0] = a;
	facts->n_addresses = 1;
}

void sim_host_addresses_free(Drover__HostFacts *facts)
{
	free(facts->addresses[0]->interface);
	free(facts->addresses[0]->address);
	free(facts->addresses[0]);
	free(facts->addresses);
}

/* ---------------------------------------------------------------- clock and timers */

static uint64_t host_now(struct env *env)
{
	struct sim_agent *agent = env->impl;

	return sim_clock_now(agent->host->sim, &agent->host->clock);
}

static uint64_t host_utc(struct env *env)
{
	return UINT64_C(1600000000000000) + host_now(env);
}

static void host_random(struct env *env, void *buf, size_t len)
{
	struct sim_agent *agent = env->impl;
	uint8_t *bytes = buf;

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)sim_random(agent->host->sim, 256);
}

static void ev_timer(struct sim *sim, struct sim_event *ev)
{
	struct sim_agent *agent = ev->obj;

	for (unsigned i = 0; i < SIM_TIMERS; i++) {
		struct sim_timer *t = &agent->timers[i];

		if (t->id != ev->a)
			continue;
		t->id = 0;
		sim->running = agent;
		t->fn(t->data);
		return;
	}
}

static uint64_t host_timer_start(struct env *env, uint64_t delay_us, env_timer_fn fn, void *data)
{
	struct sim_agent *agent = env->impl;
	unsigned i = 0;
	struct sim_event *ev;

	while (i < SIM_TIMERS && agent->timers[i].id != 0)
		i++;
	if (i == SIM_TIMERS)
		abort();
	agent->timers[i] = (struct sim_timer){.id = ++agent->next_timer, .fn = fn, .data = data};
	ev = sim_post(agent->host->sim, delay_us + 1, &agent->proc, ev_timer, agent);
	ev->a = agent->next_timer;
	return agent->next_timer;
}

static void host_timer_stop(struct env *env, uint64_t id)
{
	struct sim_agent *agent = env->impl;

	for (unsigned i = 0; i < SIM_TIMERS; i++)
		if (id != 0 && agent->timers[i].id == id)
			agent->timers[i].id = 0;
}

void sim_env_clock(struct sim_agent *agent)
{
	agent->env = (struct env){.impl = agent,
				  .now_us = host_now,
				  .utc_us = host_utc,
				  .random = host_random,
				  .timer_start = host_timer_start,
				  .timer_stop = host_timer_stop};
}

/* ---------------------------------------------------------------- QEMU */

static bool is_src(const struct sim_machine *mc)
{
	return move_order(mc->m)->role == DROVER__MOVE_ROLE__MOVE_SRC;
}

static struct sim_move_row *row_of(struct sim_machine *mc)
{
	return &mc->agent->rows[mc->row];
}

static uint64_t pid_of(struct sim_machine *mc)
{
	int vm = sim_vm_index(move_order(mc->m)->vm);

	return is_src(mc) ? mc->agent->vms[vm].pid : row_of(mc)->pid;
}

static struct sim *sim_of(struct sim_machine *mc)
{
	return mc->agent->host->sim;
}

static void later(struct sim_machine *mc, enum move_ev type, uint64_t lo, uint64_t hi)
{
	struct move_event ev = {.type = type};

	sim_machine_later(mc, sim_between(sim_of(mc), lo, hi), &ev);
}

/* A QEMU that hangs does not greet; the agent's connection waits, or is made again (vm_connect). */
static void ev_greets(struct sim *sim, struct sim_event *ev)
{
	struct sim_qemu *q = ev->obj;
	struct move_event up = {.type = MOVE_EV_QEMU_UP};
	struct sim_event *again;

	if (!q->proc.alive)
		return;
	if (!q->hung) {
		sim_agent_event(&q->host->agent, ev->a, (uint32_t)ev->b, (Drover__MoveRole)ev->c, &up);
		return;
	}
	again = sim_post(sim, 20 * SIM_MS, &q->host->agent.proc, ev_greets, q);
	again->a = ev->a;
	again->b = ev->b;
	again->c = ev->c;
}

static void qemu_attach(struct move_env *me)
{
	struct sim_machine *mc = me->impl;
	struct sim_qemu *q = sim_qemu_by_pid(sim_of(mc), pid_of(mc));
	struct sim_event *greeting;

	if (q == NULL || !q->proc.alive) {
		later(mc, MOVE_EV_QEMU_EXITED, 100, 1000);
		return;
	}
	mc->qemu = q;
	if (!q->hung) {
		later(mc, MOVE_EV_QEMU_UP, 300, 2000);
		return;
	}
	greeting = sim_post(sim_of(mc), 20 * SIM_MS, &mc->agent->proc, ev_greets, q);
	greeting->a = move_order(mc->m)->move;
	greeting->b = move_order(mc->m)->attempt;
	greeting->c = (uint64_t)move_order(mc->m)->role;
}

static void qemu_spawn(struct move_env *me)
{
	struct sim_machine *mc = me->impl;
	int vm = sim_vm_index(move_order(mc->m)->vm);
	struct sim_qemu *q = sim_qemu_new(sim_of(mc), mc->agent->host, vm, true);

	q->move = move_order(mc->m)->move;
	q->attempt = move_order(mc->m)->attempt;
	mc->qemu = q;
	row_of(mc)->pid = q->pid;
	later(mc, MOVE_EV_QEMU_UP, 20 * SIM_MS, 60 * SIM_MS);
}

static enum move_identity qemu_identity(struct move_env *me)
{
	struct sim_machine *mc = me->impl;
	struct sim_qemu *q = sim_qemu_by_pid(sim_of(mc), pid_of(mc));

	if (q != NULL && q->proc.alive)
		return MOVE_QEMU_OURS;
	return mc->agent->host->pid_reused != NULL ? MOVE_QEMU_OTHER : MOVE_QEMU_GONE;
}

static void qemu_kill(struct move_env *me)
{
	struct sim_machine *mc = me->impl;
	struct sim_qemu *q = sim_qemu_by_pid(sim_of(mc), pid_of(mc));

	if (q != NULL && q->proc.alive)
		sim_qemu_kill(q, false);
	else if (mc->agent->host->pid_reused != NULL)
		sim_qemu_kill(mc->agent->host->pid_reused, false); /* whoever has the pid now */
	mc->qemu = NULL;
	later(mc, MOVE_EV_QEMU_EXITED, 200, 2000);
}

static uint64_t qmp(struct move_env *me, enum move_qmp cmd, const struct move_qmp_args *args)
{
	struct sim_machine *mc = me->impl;
	const Drover__MoveOrder *o = move_order(mc->m);

	mc->seq++;
	if (mc->qemu != NULL && mc->qemu->proc.alive)
		sim_qemu_qmp(mc->qemu, mc->agent, o->move, o->attempt, o->role, cmd, mc->seq, args);
	return mc->seq;
}

static void ev_brake(struct sim *sim, struct sim_event *ev)
{
	(void)sim;
	sim_qemu_socket_closed(ev->obj);
}

static void brake(struct move_env *me)
{
	struct sim_machine *mc = me->impl;

	sim_trace(sim_of(mc), "%s: brake", mc->agent->host->name);
	if (mc->qemu != NULL)
		sim_post(sim_of(mc), 300, &mc->qemu->proc, ev_brake, mc->qemu);
}

/* ---------------------------------------------------------------- relay */

static struct sim_relay *relay_of(struct sim_machine *mc)
{
	const Drover__MoveOrder *o = move_order(mc->m);

	return sim_relay_find(sim_of(mc), o->move, o->attempt, o->role);
}

static void relay_attach(struct move_env *me)
{
	struct sim_machine *mc = me->impl;
	struct sim_relay *r = relay_of(mc);
	struct move_event ev = {.type = r != NULL ? MOVE_EV_RELAY_UP : MOVE_EV_RELAY_GONE};

	if (r != NULL)
		ev.channels = r->peer != NULL ? 1 : 0;
	sim_machine_later(mc, sim_between(sim_of(mc), 200, 1000), &ev);
}

static void relay_start(struct move_env *me)
{
	struct sim_machine *mc = me->impl;
	const Drover__MoveOrder *o = move_order(mc->m);

	sim_relay_new(mc->agent, o->move, o->attempt, o->role);
	later(mc, MOVE_EV_RELAY_UP, 2000, 6000);
}

static void relay_connect(struct move_env *me, unsigned path)
{
	struct sim_relay *r = relay_of(me->impl);

	if (r != NULL)
		sim_relay_connect(r, path);
}

static void relay_urgent(struct move_env *me)
{
	(void)me;
}

static void relay_resumed(struct move_env *me)
{
	struct sim_relay *r = relay_of(me->impl);

	if (r != NULL)
		sim_relay_send_resumed(r);
}

static void ev_relay_end(struct sim *sim, struct sim_event *ev)
{
	(void)sim;
	sim_relay_end(ev->obj);
}

static void relay_quit(struct move_env *me, bool kill)
{
	struct sim_machine *mc = me->impl;
	struct sim_relay *r = relay_of(mc);

	if (r == NULL)
		later(mc, MOVE_EV_RELAY_GONE, 100, 500);
	else
		sim_post(sim_of(mc), kill ? 100 : sim_between(sim_of(mc), 1000, 3000), &r->proc, ev_relay_end,
			 r);
}

/* ---------------------------------------------------------------- disks */

/* Which storage a host sees: 0 is shared by all. */
static unsigned storage_of(const struct sim_host *host)
{
	return host->sim->opt.other_storage ? host->id + 1 : 0;
}

static struct sim_nonce *nonce_find(struct sim *sim, unsigned storage, uint64_t move, uint32_t attempt)
{
	for (unsigned i = 0; i < SIM_NONCES; i++) {
		struct sim_nonce *n = &sim->nonces[i];

		if (n->used && n->storage == storage && n->move == move && n->attempt == attempt)
			return n;
	}
	return NULL;
}

static void ev_written(struct sim *sim, struct sim_event *ev)
{
	struct sim_machine *mc = ev->obj;
	struct sim_nonce *n;
	Drover__DiskProof proof;
	Drover__DiskProof *proofs[1] = {&proof};
	struct move_event out = {.type = MOVE_EV_NONCES_WRITTEN, .ok = true, .n_proofs = 1, .proofs = proofs};

	if (!mc->used || move_order(mc->m)->move != ev->a || move_order(mc->m)->attempt != ev->b)
		return;
	n = nonce_find(sim, storage_of(mc->agent->host), ev->a, (uint32_t)ev->b);
	for (unsigned i = 0; n == NULL && i < SIM_NONCES; i++)
		if (!sim->nonces[i].used)
			n = &sim->nonces[i];
	if (n == NULL)
		abort();
	*n = (struct sim_nonce){.used = true,
				.storage = storage_of(mc->agent->host),
				.move = ev->a,
				.attempt = (uint32_t)ev->b};
	host_random(&mc->agent->env, n->nonce, sizeof(n->nonce));
	memcpy(row_of(mc)->nonce, n->nonce, sizeof(n->nonce));
	sim_proof_init(&proof, n->nonce);
	sim->running = mc->agent;
	move_event(mc->m, &out);
}

/* Disks do one thing after the other. */
static uint64_t disk_delay(struct sim_machine *mc)
{
	struct sim *sim = sim_of(mc);
	uint64_t at = sim->now + sim_between(sim, 500, 5000);

	if (at <= mc->agent->disk_at)
		at = mc->agent->disk_at + 1;
	mc->agent->disk_at = at;
	return at - sim->now;
}

static void nonces_write(struct move_env *me)
{
	struct sim_machine *mc = me->impl;
	struct sim_event *ev;

	ev = sim_post(sim_of(mc), disk_delay(mc), &mc->agent->proc, ev_written, mc);
	ev->a = move_order(mc->m)->move;
	ev->b = move_order(mc->m)->attempt;
}

static void nonces_check(struct move_env *me)
{
	struct sim_machine *mc = me->impl;
	const Drover__MoveOrder *o = move_order(mc->m);
	struct sim_nonce *n = nonce_find(sim_of(mc), storage_of(mc->agent->host), o->move, o->attempt);
	struct move_event ev = {.type = MOVE_EV_NONCES_CHECKED};

	ev.ok = n != NULL && o->n_proofs == 1 && o->proofs[0]->nonce.len == sizeof(n->nonce) &&
		memcmp(n->nonce, o->proofs[0]->nonce.data, sizeof(n->nonce)) == 0;
	if (!ev.ok) {
		ev.exit = DR_EREFUSED;
		ev.text = "disk /srv/disk.raw is not the same storage on both hosts";
	}
	sim_machine_later(mc, sim_between(sim_of(mc), 500, 3000), &ev);
}

static void ev_removed(struct sim *sim, struct sim_event *ev)
{
	struct sim_machine *mc = ev->obj;
	struct sim_nonce *n = nonce_find(sim, storage_of(mc->agent->host), ev->a, (uint32_t)ev->b);
	struct move_event out = {.type = MOVE_EV_NONCES_REMOVED, .ok = true};

	if (n != NULL)
		n->used = false;
	if (!mc->used || move_order(mc->m)->move != ev->a || move_order(mc->m)->attempt != ev->b)
		return;
	sim->running = mc->agent;
	move_event(mc->m, &out);
}

static void nonces_remove(struct move_env *me)
{
	struct sim_machine *mc = me->impl;
	struct sim_event *ev;

	ev = sim_post(sim_of(mc), disk_delay(mc), &mc->agent->proc, ev_removed, mc);
	ev->a = move_order(mc->m)->move;
	ev->b = move_order(mc->m)->attempt;
}

static void check(struct move_env *me)
{
	struct sim_machine *mc = me->impl;
	struct move_event ev = {.type = MOVE_EV_CHECKED, .ok = !sim_of(mc)->opt.no_room};

	if (!ev.ok) {
		ev.exit = DR_EREFUSED;
		ev.text = "not enough free memory";
	}
	sim_machine_later(mc, sim_between(sim_of(mc), 500, 3000), &ev);
}

/* ---------------------------------------------------------------- agent */

static Drover__MoveOrder *copy_order(const Drover__MoveOrder *order)
{
	size_t size = drover__move_order__get_packed_size(order);
	uint8_t *buf = malloc(size + 1);
	Drover__MoveOrder *copy;

	if (buf == NULL)
		abort();
	drover__move_order__pack(order, buf);
	copy = drover__move_order__unpack(NULL, size, buf);
	free(buf);
	return copy;
}

static int record(struct move_env *me, const struct move_record *rec)
{
	struct sim_machine *mc = me->impl;
	struct sim_move_row *row = row_of(mc);
	const Drover__MoveOrder *o = move_order(mc->m);
	int vm = sim_vm_index(o->vm);

	struct sim_vm_row *v = &mc->agent->vms[vm];
	bool first = row->rec.phase != rec->phase;

	row->rec = *rec;
	row->n_proofs = rec->n_proofs;
	row->rec.proofs = NULL;
	row->rec.stats.n_networks = 0;
	row->rec.stats.networks = NULL;
	if (row->order != NULL)
		drover__move_order__free_unpacked(row->order, NULL);
	row->order = copy_order(o);
	if (rec->phase == DROVER__MOVE_PHASE__DST_CONTINUING && first)
		*v = (struct sim_vm_row){.here = true,
					 .generation = o->generation + 1,
					 .pid = row->pid,
					 .state = DROVER__VM_STATE__VM_RUNNING,
					 .word = v->word,
					 .floor = v->floor};
	if (rec->phase == DROVER__MOVE_PHASE__SRC_FINISHING && v->generation == o->generation && v->here) {
		v->here = false;
		if (v->word < o->generation)
			v->word = o->generation;
	}
	if (sim_of(mc)->on_record != NULL)
		sim_of(mc)->on_record(mc, rec);
	return 0;
}

static uint64_t lease_age_us(struct move_env *me)
{
	struct sim_machine *mc = me->impl;

	return agent_lease_age_us(&mc->agent->lease, env_now_us(&mc->agent->env));
}

static bool lease_valid(struct move_env *me)
{
	struct sim_machine *mc = me->impl;

	return agent_lease_valid(&mc->agent->lease, env_now_us(&mc->agent->env));
}

static void dirty(struct move_env *me)
{
	struct sim_machine *mc = me->impl;

	sim_agent_dirty(mc->agent);
}

static void event(struct move_env *me, const char *text)
{
	(void)me;
	(void)text;
}

static void log_line(struct move_env *me, int priority, const char *text)
{
	struct sim_machine *mc = me->impl;

	(void)priority;
	if (sim_of(mc)->opt.trace && mc->m != NULL)
		sim_trace(sim_of(mc), "%s %s %llu/%u: %s", mc->agent->host->name, is_src(mc) ? "src" : "dst",
			  (unsigned long long)move_order(mc->m)->move, move_order(mc->m)->attempt, text);
}

static void crash_point(struct move_env *me, const char *name)
{
	struct sim_machine *mc = me->impl;
	struct sim *sim = sim_of(mc);

	if (sim->on_point != NULL)
		sim->on_point(sim, mc->agent, name);
}

void sim_env_init(struct sim_machine *mc)
{
	mc->env = (struct move_env){.impl = mc,
				    .env = &mc->agent->env,
				    .qemu_attach = qemu_attach,
				    .qemu_spawn = qemu_spawn,
				    .qemu_identity = qemu_identity,
				    .qemu_kill = qemu_kill,
				    .qmp = qmp,
				    .brake = brake,
				    .relay_start = relay_start,
				    .relay_attach = relay_attach,
				    .relay_connect = relay_connect,
				    .relay_urgent = relay_urgent,
				    .relay_resumed = relay_resumed,
				    .relay_quit = relay_quit,
				    .nonces_write = nonces_write,
				    .nonces_check = nonces_check,
				    .nonces_remove = nonces_remove,
				    .check = check,
				    .record = record,
				    .lease_age_us = lease_age_us,
				    .lease_valid = lease_valid,
				    .dirty = dirty,
				    .event = event,
				    .log = log_line,
				    .crash_point = crash_point};
}
