/*
 * The coordinators: the real rows (db/, coordinator/apply*.c, orders, reports, drain, lease) over a log
 * that is simulated: the leader's proposals commit after a while, a killed leader's last ones may or may
 * not survive, another one is elected. All members share one state.
 */
#include "sim_coord.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/apply.h"
#include "coordinator/drain.h"
#include "coordinator/lease.h"
#include "coordinator/orders.h"
#include "coordinator/reports.h"
#include "coordinator/rows.h"

#define SESSION_DIES  (3 * SIM_S)
#define PENDING	      64
#define AGAIN	      (400 * SIM_MS)
#define MATRIX_COORDS 3

struct session {
	int coord; /* -1 = none */
	uint64_t number;
	uint8_t start_id[16];
	Drover__AgentReport *report; /* the newest */
	uint64_t at_coord;	     /* when the last message arrives: in order, like TCP */
	uint64_t at_agent;
};

struct sim_coord {
	struct sim *sim;
	struct db *db;
	uint64_t index;
	uint64_t term;
	int leader; /* -1 = none */
	struct sim_proc members[MATRIX_COORDS];
	struct session sessions[SIM_HOSTS];
	uint64_t next_session;
	struct drain_scheduler *scheduler;
	struct lease_book *book;
	struct env env;
	struct {
		uint64_t hash;
		uint64_t at;
	} proposed[PENDING]; /* what reports led to, not again at once */
	unsigned next_proposed;
	Drover__Command *survivors[PENDING]; /* of a killed leader: committed by the next one */
	unsigned n_survivors;
};

static void propose(void *data, const Drover__Command *cmd);

static void free_cmd(void *msg)
{
	drover__command__free_unpacked(msg, NULL);
}

static void free_report(void *msg)
{
	drover__agent_report__free_unpacked(msg, NULL);
}

static void free_orders(void *msg)
{
	drover__agent_orders__free_unpacked(msg, NULL);
}

static void *clone(const ProtobufCMessage *m)
{
	size_t size = protobuf_c_message_get_packed_size(m);
	uint8_t *buf = malloc(size + 1);
	void *copy;

	if (buf == NULL)
		abort();
	protobuf_c_message_pack(m, buf);
	copy = protobuf_c_message_unpack(m->descriptor, NULL, size, buf);
	free(buf);
	return copy;
}

/* ---------------------------------------------------------------- orders */

static void ev_orders(struct sim *sim, struct sim_event *ev)
{
	struct sim_host *h = ev->obj;
	struct session *s = &sim->coord->sessions[h->id];

	if (s->number != ev->a || h->agent.coord != s->coord || sim->coord_cut[h->id][s->coord])
		return;
	sim->running = &h->agent;
	sim_agent_orders(&h->agent, ev->msg);
}

static uint64_t in_order(struct sim *sim, uint64_t *last)
{
	uint64_t at = sim->now + sim_between(sim, 150, 900);

	if (at <= *last)
		at = *last + 1;
	*last = at;
	return at - sim->now;
}

static void send_orders(struct sim_coord *c, unsigned host)
{
	struct session *s = &c->sessions[host];
	struct sim_host *h = &c->sim->hosts[host];
	Drover__AgentOrders *orders;
	struct sim_event *ev;

	if (s->coord < 0)
		return;
	orders = orders_build(c->db, h->name, c->term, c->index, s->start_id);
	if (orders == NULL)
		return;
	ev = sim_post(c->sim, in_order(c->sim, &s->at_agent), &h->agent.proc, ev_orders, h);
	ev->a = s->number;
	ev->msg = orders;
	ev->free_msg = free_orders;
}

/* ---------------------------------------------------------------- the log */

/* As the daemon does: what a report led to is proposed again only after a while. */
static void propose_once(void *data, const Drover__Command *cmd)
{
	struct sim_coord *c = data;
	size_t size = drover__command__get_packed_size(cmd);
	uint8_t *buf = malloc(size + 1);
	uint64_t hash = UINT64_C(14695981039346656037);

	if (buf == NULL)
		abort();
	drover__command__pack(cmd, buf);
	for (size_t i = 0; i < size; i++)
		hash = (hash ^ buf[i]) * UINT64_C(1099511628211);
	free(buf);
	for (unsigned i = 0; i < PENDING; i++)
		if (c->proposed[i].hash == hash && c->sim->now - c->proposed[i].at < AGAIN)
			return;
	c->proposed[c->next_proposed].hash = hash;
	c->proposed[c->next_proposed].at = c->sim->now;
	c->next_proposed = (c->next_proposed + 1) % PENDING;
	propose(c, cmd);
}

static void look_at_report(struct sim_coord *c, unsigned host)
{
	struct session *s = &c->sessions[host];

	if (s->coord >= 0 && s->report != NULL)
		reports_commands(c->db, c->sim->hosts[host].name, s->start_id, s->report, propose_once, c);
}

static void decide(struct sim_coord *c)
{
	struct volatile_view view = {0};

	if (c->leader >= 0)
		drain_decide(c->scheduler, c->db, &view, propose, c);
}

static void ev_grant(struct sim *sim, struct sim_event *ev)
{
	struct sim_host *h = ev->obj;
	struct session *s = &sim->coord->sessions[h->id];

	if (s->number == ev->c && h->agent.coord == s->coord && !sim->coord_cut[h->id][s->coord])
		sim_agent_grant(&h->agent, ev->a, ev->b, sim->coord->term);
}

static void grant(void *data, const char *node, const uint8_t start_id[16], const Drover__LeaseGrant *g)
{
	struct sim_coord *c = data;
	struct sim_host *h = sim_host_named(c->sim, node);
	struct session *s = &c->sessions[h->id];
	struct sim_event *ev;

	if (s->coord < 0 || memcmp(s->start_id, start_id, sizeof(s->start_id)) != 0)
		return;
	ev = sim_post(c->sim, in_order(c->sim, &s->at_agent), &h->agent.proc, ev_grant, h);
	ev->a = g->seq;
	ev->b = g->duration_ms;
	ev->c = s->number;
}

static void apply(struct sim_coord *c, const Drover__Command *cmd)
{
	struct apply_result result;
	struct dr_error err = DR_ERROR_INIT;

	c->index++;
	if (apply_command(c->db, c->index, cmd, &result, &err) < 0) {
		sim_broken(c->sim, "apply %s: %s", apply_command_name(cmd), err.text);
		return;
	}
	if (c->sim->opt.trace && cmd->body_case != DROVER__COMMAND__BODY_LEASE_ROUND)
		sim_trace(c->sim, "log %llu: %s%s%s", (unsigned long long)c->index, apply_command_name(cmd),
			  result.exit != 0 ? " REFUSED: " : "", result.exit != 0 ? result.message : "");
	if (c->scheduler != NULL)
		drain_applied(c->scheduler, cmd, &result);
	if (cmd->body_case == DROVER__COMMAND__BODY_LEASE_ROUND && c->book != NULL)
		lease_committed(c->book, c->db, cmd->term, cmd->lease_round, grant, c);
	for (unsigned i = 0; i < c->sim->n_hosts; i++)
		for (unsigned k = 0; k < result.n_touched; k++)
			if (result.touched_all || strcmp(result.touched[k], c->sim->hosts[i].name) == 0)
				send_orders(c, i);
}

static bool quorate(const struct sim_coord *c)
{
	unsigned n = 0;

	for (unsigned i = 0; i < MATRIX_COORDS; i++)
		n += c->members[i].alive ? 1 : 0;
	return n * 2 > MATRIX_COORDS;
}

static void ev_commit(struct sim *sim, struct sim_event *ev)
{
	struct sim_coord *c = sim->coord;
	Drover__Command *cmd = ev->msg;

	if (cmd->term != c->term || c->leader < 0 || !quorate(c)) {
		/* A dead leader's proposal: half of them had reached a majority. */
		if (c->n_survivors < PENDING && sim_random(sim, 2) == 0) {
			c->survivors[c->n_survivors++] = cmd;
			ev->msg = NULL;
		}
		return;
	}
	apply(c, cmd);
	decide(c);
}

/* Stamps and proposes; without a leader it is lost, and proposed again by whoever still wants it (R13). */
static void propose(void *data, const Drover__Command *cmd)
{
	struct sim_coord *c = data;
	Drover__Command *copy;
	struct sim_event *ev;

	if (c->leader < 0)
		return;
	copy = clone(&cmd->base);
	copy->version = APPLY_VERSION;
	copy->utc_us = UINT64_C(1600000000000000) + c->sim->now;
	copy->term = c->term;
	copy->incarnation = rows_cluster_incarnation(c->db);
	ev = sim_post(c->sim, sim_between(c->sim, 2 * SIM_MS, 8 * SIM_MS), NULL, ev_commit, c);
	ev->msg = copy;
	ev->free_msg = free_cmd;
}

/* The rows must name this session before its agent's words count: until they do, again. */
static void propose_session(struct sim_coord *c, unsigned host)
{
	struct session *s = &c->sessions[host];
	Drover__CmdNodeSession now = DROVER__CMD_NODE_SESSION__INIT;
	Drover__Command cmd = DROVER__COMMAND__INIT;
	struct node_row row;
	uint8_t boot[16] = {0};
	char name[16];

	if (s->coord < 0)
		return;
	snprintf(name, sizeof(name), "coord%d", s->coord);
	if (rows_node(c->db, c->sim->hosts[host].name, &row) && row.session &&
	    memcmp(row.start_id, s->start_id, sizeof(s->start_id)) == 0 && strcmp(row.coordinator, name) == 0)
		return;
	boot[0] = (uint8_t)(host + 1);
	now.node = c->sim->hosts[host].name;
	now.boot_id.data = boot;
	now.boot_id.len = sizeof(boot);
	now.start_id.data = s->start_id;
	now.start_id.len = sizeof(s->start_id);
	now.coordinator = name;
	cmd.body_case = DROVER__COMMAND__BODY_NODE_SESSION;
	cmd.node_session = &now;
	propose(c, &cmd);
}

/* A row that names an agent start which has no session any more: its coordinator died, or could not say so.
 */
static void sweep_session(struct sim_coord *c, unsigned host)
{
	struct session *s = &c->sessions[host];
	Drover__CmdNodeSession lost = DROVER__CMD_NODE_SESSION__INIT;
	Drover__Command cmd = DROVER__COMMAND__INIT;
	struct node_row row;

	if (!rows_node(c->db, c->sim->hosts[host].name, &row) || !row.session ||
	    (s->coord >= 0 && memcmp(row.start_id, s->start_id, sizeof(s->start_id)) == 0))
		return;
	lost.node = row.name;
	lost.start_id.data = row.start_id;
	lost.start_id.len = sizeof(row.start_id);
	lost.was = row.coordinator;
	cmd.body_case = DROVER__COMMAND__BODY_NODE_SESSION;
	cmd.node_session = &lost;
	propose(c, &cmd);
}

static void ev_tick(struct sim *sim, struct sim_event *ev)
{
	struct sim_coord *c = ev->obj;

	decide(c);
	for (unsigned i = 0; i < sim->n_hosts; i++) {
		sweep_session(c, i);
		propose_session(c, i);
		look_at_report(c, i);
	}
	sim_post(sim, 500 * SIM_MS, NULL, ev_tick, c);
}

static void ev_round(struct sim *sim, struct sim_event *ev)
{
	struct sim_coord *c = ev->obj;

	if (c->leader >= 0 && c->book != NULL)
		lease_round(c->book, propose, c);
	sim_post(sim, 200 * SIM_MS, NULL, ev_round, c);
}

/* ---------------------------------------------------------------- leaders */

static void lead(struct sim_coord *c, int leader)
{
	c->leader = leader;
	c->term++;
	drain_scheduler_free(c->scheduler);
	lease_book_free(c->book);
	c->scheduler = drain_scheduler_new(&c->env);
	c->book = lease_book_new(&c->env, c->term, LEASE_DURATION_MS);
	sim_trace(c->sim, "coordinator %d leads, term %llu", leader, (unsigned long long)c->term);
	for (unsigned i = 0; i < c->n_survivors; i++) {
		apply(c, c->survivors[i]);
		free_cmd(c->survivors[i]);
	}
	c->n_survivors = 0;
	decide(c);
}

static void ev_elect(struct sim *sim, struct sim_event *ev)
{
	struct sim_coord *c = ev->obj;

	(void)sim;
	if (c->leader >= 0 || !quorate(c))
		return;
	for (int i = 0; i < MATRIX_COORDS; i++)
		if (c->members[i].alive) {
			lead(c, i);
			return;
		}
}

static void ev_member_back(struct sim *sim, struct sim_event *ev)
{
	struct sim_coord *c = ev->obj;

	sim_proc_start(&c->members[ev->a]);
	if (c->leader < 0)
		sim_post(sim, SIM_S, NULL, ev_elect, c);
}

static void session_end(struct sim_coord *c, unsigned host, bool tell_agent);

void sim_coord_kill_leader(struct sim_coord *c)
{
	int dead = c->leader;
	struct sim_event *ev;

	if (dead < 0)
		return;
	sim_trace(c->sim, "leader %d killed", dead);
	sim_proc_kill(&c->members[dead]);
	c->leader = -1;
	for (unsigned i = 0; i < c->sim->n_hosts; i++)
		if (c->sessions[i].coord == dead)
			session_end(c, i, true);
	sim_post(c->sim, sim_between(c->sim, SIM_S, 2 * SIM_S), NULL, ev_elect, c);
	ev = sim_post(c->sim, 6 * SIM_S, NULL, ev_member_back, c);
	ev->a = (uint64_t)dead;
}

/* ---------------------------------------------------------------- sessions */

static void session_end(struct sim_coord *c, unsigned host, bool tell_agent)
{
	struct session *s = &c->sessions[host];
	Drover__CmdNodeSession lost = DROVER__CMD_NODE_SESSION__INIT;
	Drover__Command cmd = DROVER__COMMAND__INIT;
	char name[16];

	if (s->coord < 0)
		return;
	snprintf(name, sizeof(name), "coord%d", s->coord);
	lost.node = c->sim->hosts[host].name;
	lost.start_id.data = s->start_id;
	lost.start_id.len = sizeof(s->start_id);
	lost.was = name;
	cmd.body_case = DROVER__COMMAND__BODY_NODE_SESSION;
	cmd.node_session = &lost;
	if (c->members[s->coord].alive)
		propose(c, &cmd);
	s->coord = -1;
	s->number = 0;
	if (s->report != NULL)
		free_report(s->report);
	s->report = NULL;
	if (tell_agent)
		sim_agent_session_lost(&c->sim->hosts[host].agent);
}

/* A session that carried nothing for a while is dead at both ends. */
static void ev_dead_session(struct sim *sim, struct sim_event *ev)
{
	struct sim_coord *c = ev->obj;
	struct session *s = &c->sessions[ev->a];
	struct sim_agent *agent = &sim->hosts[ev->a].agent;
	bool stands = agent->proc.stopped_until > sim->now;

	if (s->number != ev->b || (!stands && !sim->coord_cut[ev->a][s->coord]))
		return;
	session_end(c, (unsigned)ev->a, true);
}

static void watch(struct sim_coord *c, unsigned host)
{
	struct session *s = &c->sessions[host];
	struct sim_event *ev;

	if (s->coord < 0)
		return;
	ev = sim_post(c->sim, SESSION_DIES, NULL, ev_dead_session, c);
	ev->a = host;
	ev->b = s->number;
}

void sim_coord_cuts_changed(struct sim_coord *c)
{
	for (unsigned i = 0; i < c->sim->n_hosts; i++)
		watch(c, i);
}

static void ev_connected(struct sim *sim, struct sim_event *ev)
{
	struct sim_agent *agent = ev->obj;
	struct sim_coord *c = sim->coord;
	unsigned host = agent->host->id;
	struct session *s = &c->sessions[host];
	int coord = -1;
	unsigned first = (unsigned)sim_random(sim, MATRIX_COORDS);

	for (unsigned i = 0; i < MATRIX_COORDS && coord < 0; i++) {
		unsigned k = (first + i) % MATRIX_COORDS;

		if (c->members[k].alive && !sim->coord_cut[host][k])
			coord = (int)k;
	}
	if (coord < 0 || agent->coord >= 0)
		return;
	session_end(c, host, false);
	*s = (struct session){.coord = coord, .number = ++c->next_session};
	memcpy(s->start_id, agent->start_id, sizeof(s->start_id));
	propose_session(c, host);
	sim_agent_session_up(agent, coord);
	send_orders(c, host);
}

static void agent_connect(struct sim_agent *agent)
{
	struct sim_coord *c = agent->host->sim->coord;

	sim_post(c->sim, sim_between(c->sim, 1000, 4000), &agent->proc, ev_connected, agent);
}

static void ev_report(struct sim *sim, struct sim_event *ev)
{
	struct sim_coord *c = sim->coord;
	struct session *s = &c->sessions[ev->b];

	if (s->number != ev->a || sim->coord_cut[ev->b][s->coord])
		return;
	if (s->report != NULL)
		free_report(s->report);
	s->report = ev->msg;
	ev->msg = NULL;
	look_at_report(c, (unsigned)ev->b);
}

static void agent_report(struct sim_agent *agent, Drover__AgentReport *report)
{
	struct sim_coord *c = agent->host->sim->coord;
	struct session *s = &c->sessions[agent->host->id];
	struct sim_event *ev;

	if (s->coord != agent->coord)
		return;
	ev = sim_post(c->sim, in_order(c->sim, &s->at_coord), NULL, ev_report, c);
	ev->a = s->number;
	ev->b = agent->host->id;
	ev->msg = clone(&report->base);
	ev->free_msg = free_report;
}

static void ev_lease(struct sim *sim, struct sim_event *ev)
{
	struct sim_coord *c = sim->coord;
	struct session *s = &c->sessions[ev->b];

	if (s->number == ev->a && !sim->coord_cut[ev->b][s->coord] && c->leader >= 0)
		lease_request(c->book, sim->hosts[ev->b].name, s->start_id, ev->c);
}

static void agent_lease(struct sim_agent *agent, uint64_t seq)
{
	struct sim_coord *c = agent->host->sim->coord;
	struct session *s = &c->sessions[agent->host->id];
	struct sim_event *ev;

	if (s->coord != agent->coord)
		return;
	ev = sim_post(c->sim, in_order(c->sim, &s->at_coord), NULL, ev_lease, c);
	ev->a = s->number;
	ev->b = agent->host->id;
	ev->c = seq;
}

const struct sim_agent_ops sim_coord_agent_ops = {
	.connect = agent_connect, .report = agent_report, .lease = agent_lease};

/* ---------------------------------------------------------------- start, operator, questions */

static uint64_t coord_now(struct env *env)
{
	struct sim_coord *c = env->impl;

	return c->sim->now;
}

static void coord_random(struct env *env, void *buf, size_t len)
{
	struct sim_coord *c = env->impl;
	uint8_t *bytes = buf;

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)sim_random(c->sim, 256);
}

static void boot_command(struct sim_coord *c, Drover__Command *cmd)
{
	cmd->version = APPLY_VERSION;
	cmd->utc_us = UINT64_C(1600000000000000);
	cmd->term = c->term;
	apply(c, cmd);
}

/* While the cluster is set up, every node has an agent; coordinator "": no longer. */
static void boot_session(struct sim_coord *c, unsigned host, const char *coordinator)
{
	Drover__CmdNodeSession now = DROVER__CMD_NODE_SESSION__INIT;
	Drover__Command cmd = DROVER__COMMAND__INIT;
	uint8_t id[16] = {0};

	id[0] = (uint8_t)(host + 1);
	now.node = c->sim->hosts[host].name;
	now.boot_id.data = now.start_id.data = id;
	now.boot_id.len = now.start_id.len = sizeof(id);
	now.coordinator = (char *)(uintptr_t)coordinator;
	cmd.body_case = DROVER__COMMAND__BODY_NODE_SESSION;
	cmd.node_session = &now;
	boot_command(c, &cmd);
}

static void add_facts(struct sim_coord *c, unsigned host)
{
	Drover__CmdNodeFacts now = DROVER__CMD_NODE_FACTS__INIT;
	Drover__HostFacts facts = DROVER__HOST_FACTS__INIT;
	Drover__Command cmd = DROVER__COMMAND__INIT;

	facts.memory_total = UINT64_C(64) << 30;
	now.node = c->sim->hosts[host].name;
	now.facts = &facts;
	cmd.body_case = DROVER__COMMAND__BODY_NODE_FACTS;
	cmd.node_facts = &now;
	boot_command(c, &cmd);
}

static void add_vm(struct sim_coord *c, int vm, unsigned host)
{
	Drover__VmSpec spec = DROVER__VM_SPEC__INIT;
	Drover__CmdVmAdd add = DROVER__CMD_VM_ADD__INIT;
	Drover__CmdVmStart start = DROVER__CMD_VM_START__INIT;
	Drover__Command cmd = DROVER__COMMAND__INIT;
	uint8_t uuid[16] = {0};
	char name[16];

	snprintf(name, sizeof(name), "vm%d", vm + 1);
	uuid[0] = (uint8_t)(vm + 1);
	spec.name = name;
	spec.uuid.data = uuid;
	spec.uuid.len = sizeof(uuid);
	spec.memory = c->sim->opt.memory;
	spec.cpus = 1;
	add.spec = &spec;
	add.node = c->sim->hosts[host].name;
	cmd.body_case = DROVER__COMMAND__BODY_VM_ADD;
	cmd.vm_add = &add;
	boot_command(c, &cmd);
	start.vm = name;
	start.node = add.node;
	start.owner = add.node;
	start.generation = sim_coord_generation(c, vm);
	cmd.body_case = DROVER__COMMAND__BODY_VM_START;
	cmd.vm_start = &start;
	boot_command(c, &cmd);
	c->sim->owner[vm] = (int)host;
}

struct sim_coord *sim_coord_new(struct sim *sim)
{
	struct sim_coord *c = calloc(1, sizeof(*c));
	Drover__CmdInit init = DROVER__CMD_INIT__INIT;
	Drover__Command cmd = DROVER__COMMAND__INIT;
	struct dr_error err = DR_ERROR_INIT;
	uint8_t id[16] = {1};

	if (c == NULL || db_open(":memory:", &c->db, &err) < 0)
		abort();
	sim->coord = c;
	c->sim = sim;
	c->term = 1;
	c->env = (struct env){.impl = c, .now_us = coord_now, .utc_us = coord_now, .random = coord_random};
	for (unsigned i = 0; i < MATRIX_COORDS; i++)
		sim_proc_start(&c->members[i]);
	for (unsigned i = 0; i < c->sim->n_hosts; i++)
		c->sessions[i].coord = -1;
	init.name = (char *)(uintptr_t) "sim";
	init.uuid.data = id;
	init.uuid.len = sizeof(id);
	init.mode = (char *)(uintptr_t) "standalone";
	init.member = 1;
	init.node = sim->hosts[0].name;
	cmd.body_case = DROVER__COMMAND__BODY_INIT;
	cmd.init = &init;
	boot_command(c, &cmd);
	for (unsigned i = 0; i < c->sim->n_hosts; i++)
		boot_session(c, i, "coord0");
	for (unsigned i = 0; i < c->sim->n_hosts; i++)
		add_facts(c, i);
	for (int v = 0; v < (int)sim->n_vms; v++)
		add_vm(c, v, v < 2 ? 0 : 1);
	for (unsigned i = 0; i < c->sim->n_hosts; i++)
		boot_session(c, i, "");
	lead(c, 0);
	sim_post(sim, 10 * SIM_MS, NULL, ev_tick, c);
	sim_post(sim, 5 * SIM_MS, NULL, ev_round, c);
	return c;
}

void sim_coord_free(struct sim_coord *c)
{
	for (unsigned i = 0; i < c->sim->n_hosts; i++)
		if (c->sessions[i].report != NULL)
			free_report(c->sessions[i].report);
	for (unsigned i = 0; i < c->n_survivors; i++)
		free_cmd(c->survivors[i]);
	drain_scheduler_free(c->scheduler);
	lease_book_free(c->book);
	db_close(c->db);
	free(c);
}

void sim_coord_move(struct sim_coord *c, int vm, unsigned to)
{
	Drover__CmdMoveCreate create = DROVER__CMD_MOVE_CREATE__INIT;
	Drover__Command cmd = DROVER__COMMAND__INIT;
	char name[16];

	snprintf(name, sizeof(name), "vm%d", vm + 1);
	create.vm = name;
	create.to = c->sim->hosts[to].name;
	cmd.body_case = DROVER__COMMAND__BODY_MOVE_CREATE;
	cmd.move_create = &create;
	propose(c, &cmd);
}

static bool newest_move(struct sim_coord *c, int vm, struct move_row *out)
{
	struct db_rows rows;
	char name[16];
	bool found;

	snprintf(name, sizeof(name), "vm%d", vm + 1);
	db_query(c->db, &rows, "SELECT " MOVE_COLUMNS " FROM move WHERE vm = ? ORDER BY id DESC LIMIT 1", "s",
		 name);
	found = db_next(&rows);
	if (found)
		rows_move_get(&rows, out);
	db_done(&rows);
	return found;
}

void sim_coord_cancel(struct sim_coord *c, int vm)
{
	Drover__CmdMoveCancel cancel = DROVER__CMD_MOVE_CANCEL__INIT;
	Drover__Command cmd = DROVER__COMMAND__INIT;
	struct move_row move;

	if (!newest_move(c, vm, &move))
		return;
	cancel.move = move.id;
	cmd.body_case = DROVER__COMMAND__BODY_MOVE_CANCEL;
	cmd.move_cancel = &cancel;
	propose(c, &cmd);
}

static void vm_row_of(struct sim_coord *c, int vm, struct vm_row *out)
{
	char name[16];

	snprintf(name, sizeof(name), "vm%d", vm + 1);
	if (!rows_vm(c->db, name, out))
		abort();
}

int sim_coord_owner(struct sim_coord *c, int vm)
{
	struct vm_row row;

	vm_row_of(c, vm, &row);
	return (int)sim_host_named(c->sim, row.owner)->id;
}

uint64_t sim_coord_generation(struct sim_coord *c, int vm)
{
	struct vm_row row;

	vm_row_of(c, vm, &row);
	return row.generation;
}

Drover__VmState sim_coord_vm_state(struct sim_coord *c, int vm)
{
	struct vm_row row;

	vm_row_of(c, vm, &row);
	return row.state;
}

uint64_t sim_coord_index(struct sim_coord *c)
{
	return c->index;
}

const char *sim_coord_move_state(struct sim_coord *c, int vm, uint64_t *move, uint32_t *attempt)
{
	static struct move_row row;

	if (!newest_move(c, vm, &row))
		return "";
	if (move != NULL)
		*move = row.id;
	if (attempt != NULL)
		*attempt = row.attempt;
	return row.state;
}

const char *sim_coord_move_error(struct sim_coord *c, int vm)
{
	static struct move_row row;

	return newest_move(c, vm, &row) ? row.error : "";
}

bool sim_coord_slot(struct sim_coord *c, uint64_t move, uint32_t attempt, Drover__MoveRole role)
{
	struct attempt_row t;

	if (!rows_attempt(c->db, move, attempt, &t))
		return false;
	return role == DROVER__MOVE_ROLE__MOVE_SRC ? !t.src_gone : !t.dst_gone;
}

bool sim_coord_committed(struct sim_coord *c, uint64_t move, uint32_t attempt)
{
	struct attempt_row t;

	return rows_attempt(c->db, move, attempt, &t) && t.decision == DROVER__MOVE_DECISION__DECISION_COMMIT;
}
