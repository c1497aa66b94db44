/* A coordinator's process: clock, timers, random numbers, start, death. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <raft.h>

#include "cluster.h"
#include "coordinator/server.h"

bool sim_log_on;
static struct sim *log_sim;

void sim_log(int priority, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sim_log(int priority, const char *fmt, ...)
{
	struct coord *c = log_sim != NULL ? coord_running(log_sim) : NULL;
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (log_sim != NULL)
		sim_trace(log_sim, "%s <%d> %s", c != NULL ? c->name : "-", priority, text);
}

/* coordinator/apply.h */
unsigned sim_apply_version(void)
{
	struct coord *c = log_sim != NULL ? coord_running(log_sim) : NULL;

	return c != NULL ? c->version : VERSION_NEW;
}

struct coord *coord_of(struct sim *sim, const struct sim_proc *proc)
{
	for (unsigned i = 0; proc != NULL && sim->cluster != NULL && i < sim->cluster->n_coords; i++)
		if (&sim->cluster->coords[i].proc == proc)
			return &sim->cluster->coords[i];
	return NULL;
}

struct coord *coord_running(struct sim *sim)
{
	return coord_of(sim, sim->current);
}

bool coord_up(const struct coord *c)
{
	return c->proc.alive && c->server != NULL;
}

bool coord_leads(const struct coord *c)
{
	return coord_up(c) && c->server->consensus != NULL && c->server->leading_term != 0;
}

struct coord *cluster_leader(struct cluster *cl)
{
	struct coord *leader = NULL;

	for (unsigned i = 0; i < cl->n_coords; i++)
		if (coord_leads(&cl->coords[i]) &&
		    (leader == NULL || leader->server->leading_term < cl->coords[i].server->leading_term))
			leader = &cl->coords[i];
	return leader;
}

/* ---------------------------------------------------------------- struct env */

static uint64_t coord_now(struct env *env)
{
	struct coord *c = env->impl;

	return sim_clock_now(c->sim, &c->sim->cluster->site_clock[c->party.site]);
}

static uint64_t coord_utc(struct env *env)
{
	struct coord *c = env->impl;

	return UINT64_C(1600000000000000) + c->sim->now + (uint64_t)c->utc_offset;
}

static void coord_random(struct env *env, void *buf, size_t len)
{
	struct coord *c = env->impl;
	uint8_t *bytes = buf;

	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)sim_random(c->sim, 256);
}

static void ev_timer(struct sim *sim, struct sim_event *ev)
{
	struct coord *c = ev->obj;

	(void)sim;
	for (size_t i = 0; i < c->n_timers; i++) {
		struct coord_timer t = c->timers[i];

		if (t.id != ev->a)
			continue;
		c->timers[i] = c->timers[--c->n_timers];
		t.fn(t.data);
		return;
	}
}

static uint64_t coord_timer_start(struct env *env, uint64_t delay_us, env_timer_fn fn, void *data)
{
	struct coord *c = env->impl;
	int64_t ppm = c->sim->cluster->site_clock[c->party.site].ppm;
	struct sim_event *ev;

	if (c->n_timers == c->room_timers) {
		c->room_timers = c->room_timers == 0 ? 32 : c->room_timers * 2;
		c->timers = realloc(c->timers, c->room_timers * sizeof(c->timers[0]));
		if (c->timers == NULL)
			abort();
	}
	c->timers[c->n_timers++] = (struct coord_timer){.id = ++c->next_timer, .fn = fn, .data = data};
	delay_us -= (uint64_t)((int64_t)(delay_us / 1000) * ppm / 1000);
	ev = sim_post(c->sim, delay_us + 1, &c->proc, ev_timer, c);
	ev->a = c->next_timer;
	return c->next_timer;
}

static void coord_timer_stop(struct env *env, uint64_t id)
{
	struct coord *c = env->impl;

	for (size_t i = 0; i < c->n_timers; i++)
		if (c->timers[i].id == id) {
			c->timers[i] = c->timers[--c->n_timers];
			return;
		}
}

/* ---------------------------------------------------------------- what is replaced when linking */

static void ev_exit(struct sim *sim, struct sim_event *ev);

void qb_loop_stop(qb_loop_t *loop)
{
	struct coord *c = (struct coord *)loop;

	if (c->ended)
		return;
	c->ended = true;
	sim_post(c->sim, 1, &c->proc, ev_exit, c);
}

void raft_set_snapshot_threshold(struct raft *r, unsigned n)
{
	struct coord *c = coord_running(log_sim);

	(void)n;
	if (c != NULL)
		c->raft = r;
	r->snapshot.threshold = log_sim->cluster->snapshot_threshold;
}

void raft_set_snapshot_trailing(struct raft *r, unsigned n)
{
	(void)n;
	r->snapshot.trailing = log_sim->cluster->snapshot_trailing;
}

/* R15, Raft: a term never falls, and has one vote. */
int __real_logdb_vote_set(struct logdb *log, uint64_t term, uint64_t vote, struct dr_error *err);
int __wrap_logdb_vote_set(struct logdb *log, uint64_t term, uint64_t vote, struct dr_error *err);
int __wrap_logdb_vote_set(struct logdb *log, uint64_t term, uint64_t vote, struct dr_error *err)
{
	struct coord *c = log_sim != NULL ? coord_running(log_sim) : NULL;
	int ret;

	/* A log that was restored has forgotten its terms and votes; it must not give others. */
	if (c != NULL && ((term < c->term && !c->old_copy) ||
			  (term == c->term && vote != 0 && c->vote != 0 && vote != c->vote)))
		sim_broken(log_sim,
			   "R15: %s votes for %llu in term %llu, and had voted for %llu in term %llu",
			   c->name, (unsigned long long)vote, (unsigned long long)term,
			   (unsigned long long)c->vote, (unsigned long long)c->term);
	ret = __real_logdb_vote_set(log, term, vote, err);
	if (ret == 0 && c != NULL && (term > c->term || (term == c->term && vote != 0))) {
		c->stored_term = term;
		c->stored_vote = vote;
	}
	return ret;
}

/* The transaction with the vote is on the disk: from now on it may be told. One that lost its power before
 * was never heard of. */
void coord_voted(struct coord *c)
{
	if (c->stored_term == 0)
		return;
	c->term = c->stored_term;
	c->vote = c->stored_vote;
	c->stored_term = 0;
}

/* The state is rebuilt from snapshot and log at each start: its file is nobody's but SQLite's. */
int __real_db_open(const char *path, struct db **out, struct dr_error *err);
int __wrap_db_open(const char *path, struct db **out, struct dr_error *err);
int __wrap_db_open(const char *path, struct db **out, struct dr_error *err)
{
	(void)path;
	return __real_db_open(":memory:", out, err);
}

int __real_consensus_propose(struct consensus *c, const uint8_t *bytes, size_t size,
			     void (*done)(void *data, int status), void *data);
int __wrap_consensus_propose(struct consensus *c, const uint8_t *bytes, size_t size,
			     void (*done)(void *data, int status), void *data);
int __wrap_consensus_propose(struct consensus *c, const uint8_t *bytes, size_t size,
			     void (*done)(void *data, int status), void *data)
{
	struct coord *coord = log_sim != NULL ? coord_running(log_sim) : NULL;
	int ret = __real_consensus_propose(c, bytes, size, done, data);

	if (ret == 0 && coord != NULL)
		rules_proposed(coord, bytes, size);
	return ret;
}

int __real_apply_command(struct db *db, uint64_t index, const Drover__Command *cmd, struct apply_result *out,
			 struct dr_error *err);
int __wrap_apply_command(struct db *db, uint64_t index, const Drover__Command *cmd, struct apply_result *out,
			 struct dr_error *err);
int __wrap_apply_command(struct db *db, uint64_t index, const Drover__Command *cmd, struct apply_result *out,
			 struct dr_error *err)
{
	int ret = __real_apply_command(db, index, cmd, out, err);
	struct coord *c = log_sim != NULL ? coord_running(log_sim) : NULL;
	unsigned fail_in = db_fail_nth(db, 0); /* a fault is the coordinator's, not what looks at it */

	if (ret == 0 && c != NULL)
		cluster_applied(c, db, index, cmd, out);
	db_fail_nth(db, fail_in);
	return ret;
}

/* ---------------------------------------------------------------- life */

void coord_init(struct sim *sim, unsigned id)
{
	struct coord *c = &sim->cluster->coords[id];

	memset(c, 0, sizeof(*c));
	c->sim = sim;
	c->id = id;
	c->party = (struct party){.sim = sim, .proc = &c->proc, .site = id};
	snprintf(c->name, sizeof(c->name), "node%u", id + 1);
	c->env = (struct env){.impl = c,
			      .now_us = coord_now,
			      .utc_us = coord_utc,
			      .random = coord_random,
			      .timer_start = coord_timer_start,
			      .timer_stop = coord_timer_stop};
	c->restart_us = 1 * SIM_S;
	ring_init(c);
}

void coords_use(struct cluster *cl)
{
	log_sim = cl->sim;
	for (unsigned i = 0; i < cl->n_coords; i++)
		disk_register(&cl->coords[i].disk, &cl->coords[i]);
}

static void ev_start(struct sim *sim, struct sim_event *ev)
{
	struct coord *c = ev->obj;
	struct dr_error err = DR_ERROR_INIT;
	struct dr_conf conf;

	if (c->server != NULL)
		return;
	c->starts++;
	c->version = c->wanted_version;
	conf_defaults(&conf);
	snprintf(conf.name, sizeof(conf.name), "%s", c->name);
	snprintf(conf.data_dir, sizeof(conf.data_dir), "/sim/%s", c->name);
	snprintf(conf.run_dir, sizeof(conf.run_dir), "/sim/run/%s", c->name);
	sim_trace(sim, "%s: coordinator starts", c->name);
	c->server = server_new(&conf, (qb_loop_t *)c, &c->env, &err);
	if (c->server != NULL && c->server->identity.member != c->member)
		c->stored = 0;
	c->must_have = c->stored;
	c->lacks = false;
	if (c->server != NULL && c->server->identity.member != c->member) {
		c->member = c->server->identity.member; /* as another one */
		c->term = c->vote = c->voted_term = c->voted_for = 0;
		c->old_copy = false;
	}
	if (c->server != NULL)
		return;
	sim_trace(sim, "%s: coordinator does not start: %s", c->name, err.text);
	c->refused = err.code == DR_ECORRUPT && !story_excuses(c);
	snprintf(c->refusal, sizeof(c->refusal), "%s", err.text);
	conns_process_gone(sim, &c->proc, true);
	sim_proc_kill(&c->proc);
	ring_process_gone(c);
	if (!c->refused)
		coord_restart_later(c, 2 * SIM_S);
}

void coord_start(struct coord *c)
{
	if (c->proc.alive || c->sim->cluster->site_down[c->party.site])
		return;
	sim_proc_start(&c->proc);
	c->n_timers = 0;
	c->server = NULL;
	c->ended = false;
	c->refused = false;
	c->disk.failed = false;
	c->disk.fail_sync = 0;
	c->proc.stopped_until = c->sim->cluster->site_paused[c->party.site];
	sim_post(c->sim, sim_between(c->sim, 1000, 20 * SIM_MS), &c->proc, ev_start, c);
}

static void ev_restart(struct sim *sim, struct sim_event *ev)
{
	struct coord *c = ev->obj;

	(void)sim;
	if (c->proc.life == ev->a && !c->keep_down)
		coord_start(c);
}

void coord_restart_later(struct coord *c, uint64_t delay)
{
	struct sim_event *ev = sim_post(c->sim, delay, NULL, ev_restart, c);

	ev->a = c->proc.life;
}

/* The process is no more; its memory stays where it is. */
static void gone(struct coord *c, bool with_fin)
{
	c->server = NULL;
	c->raft = NULL;
	c->n_timers = 0;
	c->stored_term = 0;
	c->listeners[0] = c->listeners[1] = NULL;
	sim_proc_kill(&c->proc);
	conns_process_gone(c->sim, &c->proc, with_fin);
	ring_process_gone(c);
}

static void ev_exit(struct sim *sim, struct sim_event *ev)
{
	struct coord *c = ev->obj;
	int code = c->server->exit_code;

	sim_trace(sim, "%s: coordinator ends with status %d", c->name, code);
	/* A member change that a leader takes back is dealt with by a new start, without what is cut off. */
	if (strstr(c->server->error, "is taken back") != NULL)
		c->stored = 0;
	else if (code != 0 && !c->disk.failed && !c->damaged && !c->old_copy && !story_excuses(c))
		sim_broken(sim, "%s: the coordinator gave up though its disk is good", c->name);
	gone(c, true);
	coord_restart_later(c, c->restart_us + sim_random(sim, SIM_S));
	(void)ev;
}

static void escape_if_running(struct coord *c)
{
	struct sim *sim = c->sim;

	if (sim->current == &c->proc && sim->escape != NULL)
		longjmp(*sim->escape, 1);
}

void coord_kill(struct coord *c)
{
	if (!c->proc.alive)
		return;
	sim_trace(c->sim, "%s: coordinator killed", c->name);
	gone(c, true);
	coord_restart_later(c, c->restart_us + sim_random(c->sim, SIM_S));
	escape_if_running(c);
}

void coord_power_loss(struct coord *c)
{
	if (c->proc.alive) {
		sim_trace(c->sim, "%s: coordinator loses power", c->name);
		gone(c, false);
		coord_restart_later(c, c->restart_us + sim_random(c->sim, 3 * SIM_S));
	}
	disk_power_loss(&c->disk);
	escape_if_running(c);
}

static void ev_stop(struct sim *sim, struct sim_event *ev)
{
	struct coord *c = ev->obj;

	(void)sim;
	if (c->server != NULL)
		server_stop(c->server);
}

void coord_stop(struct coord *c)
{
	if (coord_up(c))
		sim_post(c->sim, 0, &c->proc, ev_stop, c);
}
