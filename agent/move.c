#include "agent/move.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "agent/move_base.h"
#include "agent/move_dst.h"
#include "agent/move_src.h"
#include "common/mutant.h"

#define CLEANUP_MS     1000 /* between tries of the clean-up */
#define KEY_SIZE       32
#define NAME_MAX_BYTES 63
#define PROOFS_MAX     256

const char *move_phase_name(Drover__MovePhase phase)
{
	const char *name = fsm_name(move_src_table, MOVE_TABLE_SIZE, (unsigned)phase);

	return name[0] != '?' ? name : fsm_name(move_dst_table, MOVE_TABLE_SIZE, (unsigned)phase);
}

uint64_t move_now(const struct move *m)
{
	return env_now_us(m->env->env);
}

void move_log(struct move *m, int priority, const char *fmt, ...)
{
	char text[DR_ERROR_TEXT];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	m->env->log(m->env, priority, text);
}

void move_say(struct move *m, const char *fmt, ...)
{
	char text[DR_ERROR_TEXT];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	m->env->log(m->env, LOG_NOTICE, text);
	m->env->event(m->env, text);
}

static const char *role_name(const struct move *m)
{
	return m->order->role == DROVER__MOVE_ROLE__MOVE_SRC ? "src" : "dst";
}

/* "SRC_SWITCHING" without its role. */
static const char *phase_word(const struct move *m)
{
	const char *name = fsm_name(m->fsm.table, m->fsm.n_states, m->fsm.state);
	const char *bar = strchr(name, '_');

	return bar != NULL ? bar + 1 : name;
}

void move_crash_point(struct move *m, const char *act)
{
	char name[64];

	if (act != NULL)
		snprintf(name, sizeof(name), "%s-%s.%s", role_name(m), phase_word(m), act);
	else
		snprintf(name, sizeof(name), "%s-%s", role_name(m), phase_word(m));
	m->env->crash_point(m->env, name);
}

static void phase_changed(void *owner, const char *from, const char *to, const char *why)
{
	struct move *m = owner;

	move_log(m, LOG_INFO, "%s -> %s: %s", from, to, why);
}

int move_enter(struct move *m, Drover__MovePhase phase, const char *why)
{
	Drover__MovePhase before = m->rec.phase;
	int r;

	if (fsm_allowed(&m->fsm, (unsigned)phase)) {
		m->rec.phase = phase;
		r = m->env->record(m->env, &m->rec);
		if (r < 0) {
			m->rec.phase = before;
			move_log(m, LOG_ERR, "%s could not be recorded (%s)", move_phase_name(phase),
				 dr_err_name(r));
			return r;
		}
	}
	fsm_change(&m->fsm, (unsigned)phase, why);
	m->entered_here = true;
	m->env->dirty(m->env);
	move_crash_point(m, NULL);
	return 0;
}

void move_fail(struct move *m, uint32_t exit_code, bool fatal, const char *fmt, ...)
{
	va_list ap;

	if (m->rec.error[0] != '\0')
		return;
	va_start(ap, fmt);
	vsnprintf(m->rec.error, sizeof(m->rec.error), fmt, ap);
	va_end(ap);
	if (m->rec.error[0] == '\0')
		snprintf(m->rec.error, sizeof(m->rec.error), "failed");
	/* What leaves the process is one of the command line's statuses. */
	m->rec.error_exit = exit_code != 0 ? (uint32_t)dr_err_exit((int)exit_code) : DR_EFAILED;
	m->rec.error_fatal = fatal;
	move_log(m, LOG_WARNING, "failed: %s", m->rec.error);
	m->env->dirty(m->env);
}

bool move_failed(const struct move *m)
{
	return m->rec.error[0] != '\0';
}

void move_ask(struct move *m, enum move_qmp cmd, const struct move_qmp_args *args)
{
	if (m->seq[cmd] == 0)
		m->seq[cmd] = m->env->qmp(m->env, cmd, args);
}

void move_poll(struct move *m, enum move_qmp cmd, uint64_t ms)
{
	if (move_timer_runs(m, MOVE_TIMER_POLL))
		return;
	move_ask(m, cmd, NULL);
	move_timer_start(m, MOVE_TIMER_POLL, ms);
}

void move_once(struct move *m, enum move_qmp cmd, const struct move_qmp_args *args)
{
	if (m->answers[cmd] != MOVE_ANSWER_NOT_ASKED)
		return;
	m->answers[cmd] = MOVE_ANSWER_WAITING;
	m->seq[cmd] = m->env->qmp(m->env, cmd, args);
}

void move_forget_answers(struct move *m)
{
	m->seq[MOVE_QMP_QUERY_MIGRATE] = 0;
	m->seq[MOVE_QMP_QUERY_STATUS] = 0;
	m->run = MOVE_RUN_UNKNOWN;
	m->mig = MOVE_MIG_UNKNOWN;
}

static void timer_fired(void *data)
{
	struct move_timer_slot *slot = data;
	struct move *m = slot->m;
	struct move_event ev = {.type = MOVE_EV_TIMER};

	slot->id = 0;
	ev.timer = (unsigned)(slot - m->timers);
	move_event(m, &ev);
}

void move_timer_start(struct move *m, enum move_timer timer, uint64_t delay_ms)
{
	move_timer_stop(m, timer);
	m->timers[timer].id = env_timer_start(m->env->env, delay_ms * 1000, timer_fired, &m->timers[timer]);
}

void move_timer_stop(struct move *m, enum move_timer timer)
{
	env_timer_stop(m->env->env, &m->timers[timer].id);
}

bool move_timer_runs(const struct move *m, enum move_timer timer)
{
	return m->timers[timer].id != 0;
}

bool move_aborted(const struct move *m)
{
	return m->order->decision == DROVER__MOVE_DECISION__DECISION_ABORT;
}

bool move_committed(const struct move *m)
{
	return m->order->decision == DROVER__MOVE_DECISION__DECISION_COMMIT;
}

uint64_t move_blackout_ms(const struct move *m)
{
	return m->order->blackout_ms != 0 ? m->order->blackout_ms : MOVE_BLACKOUT_DEFAULT_MS;
}

uint64_t move_stopped_bound_ms(const struct move *m)
{
	uint64_t bound = 3 * move_blackout_ms(m);

	return bound > 1000 ? bound : 1000;
}

bool move_relay_end(struct move *m)
{
	switch (m->relay) {
	case MOVE_RELAY_DEAD:
		return true;
	case MOVE_RELAY_QUITTING:
		if (move_timer_runs(m, MOVE_TIMER_RELAY))
			return false;
		m->kill_relay = true;
		break;
	case MOVE_RELAY_NONE:
		if (!m->restored) {
			m->relay = MOVE_RELAY_DEAD;
			return true;
		}
		break; /* one of before the restart may live */
	case MOVE_RELAY_STARTING:
	case MOVE_RELAY_UP:
		break;
	}
	m->relay = MOVE_RELAY_QUITTING;
	m->env->relay_quit(m->env, m->kill_relay);
	move_timer_start(m, MOVE_TIMER_RELAY, CLEANUP_MS);
	return false;
}

bool move_qemu_end(struct move *m)
{
	if (m->qemu == MOVE_QEMU_DEAD)
		return true;
	if (m->qemu == MOVE_QEMU_UNKNOWN && !m->restored) {
		m->qemu = MOVE_QEMU_DEAD; /* never started */
		return true;
	}
	if (move_timer_runs(m, MOVE_TIMER_CLEANUP))
		return false;
	switch (DR_MUTANT(kill_unchecked) ? MOVE_QEMU_OURS : m->env->qemu_identity(m->env)) {
	case MOVE_QEMU_OURS:
		m->env->qemu_kill(m->env);
		move_timer_start(m, MOVE_TIMER_CLEANUP, CLEANUP_MS);
		return false;
	case MOVE_QEMU_GONE:
		break;
	case MOVE_QEMU_OTHER:
		move_log(m, LOG_NOTICE,
			 "the pid of the VM's QEMU belongs to another process now: not killed");
		break;
	}
	m->qemu = MOVE_QEMU_DEAD;
	return true;
}

static void free_proofs(struct move_record *rec)
{
	for (size_t i = 0; i < rec->n_proofs; i++)
		drover__disk_proof__free_unpacked(rec->proofs[i], NULL);
	free(rec->proofs);
	rec->proofs = NULL;
	rec->n_proofs = 0;
}

static Drover__DiskProof *proof_copy(const Drover__DiskProof *proof)
{
	size_t size = drover__disk_proof__get_packed_size(proof);
	uint8_t *buf = malloc(size + 1);
	Drover__DiskProof *copy = NULL;

	if (buf != NULL) {
		drover__disk_proof__pack(proof, buf);
		copy = drover__disk_proof__unpack(NULL, size, buf);
	}
	free(buf);
	return copy;
}

int move_set_proofs(struct move *m, size_t n, Drover__DiskProof **proofs)
{
	free_proofs(&m->rec);
	if (n == 0)
		return 0;
	m->rec.proofs = calloc(n, sizeof(m->rec.proofs[0]));
	if (m->rec.proofs == NULL)
		return -DR_ENOMEM;
	for (size_t i = 0; i < n; i++) {
		m->rec.proofs[i] = proof_copy(proofs[i]);
		if (m->rec.proofs[i] == NULL) {
			free_proofs(&m->rec);
			return -DR_ENOMEM;
		}
		m->rec.n_proofs = i + 1;
	}
	return 0;
}

static Drover__MoveOrder *order_copy(const Drover__MoveOrder *order)
{
	size_t size = drover__move_order__get_packed_size(order);
	uint8_t *buf = malloc(size + 1);
	Drover__MoveOrder *copy = NULL;

	if (buf != NULL) {
		drover__move_order__pack(order, buf);
		copy = drover__move_order__unpack(NULL, size, buf);
	}
	free(buf);
	return copy;
}

struct move *move_new(struct move_env *env, const Drover__MoveOrder *order)
{
	bool src = order->role == DROVER__MOVE_ROLE__MOVE_SRC;
	struct move *m = calloc(1, sizeof(*m));

	if (m == NULL)
		return NULL;
	m->env = env;
	m->order = order_copy(order);
	if (m->order == NULL) {
		free(m);
		return NULL;
	}
	drover__move_stats__init(&m->rec.stats);
	fsm_init(&m->fsm, src ? move_src_table : move_dst_table, MOVE_TABLE_SIZE,
		 DROVER__MOVE_PHASE__PHASE_NONE, m);
	m->fsm.changed = phase_changed;
	for (unsigned i = 0; i < MOVE_TIMER_N; i++)
		m->timers[i].m = m;
	return m;
}

struct move *move_restore(struct move_env *env, const Drover__MoveOrder *order, const struct move_record *rec)
{
	struct move *m = move_new(env, order);

	if (m == NULL)
		return NULL;
	m->rec = *rec;
	m->rec.n_proofs = 0;
	m->rec.proofs = NULL;
	m->rec.stats.n_networks = 0;
	m->rec.stats.networks = NULL;
	if (move_set_proofs(m, rec->n_proofs, rec->proofs) < 0) {
		move_free(m);
		return NULL;
	}
	/* R4: what the last process had been told counts no more; a decision is told again. */
	m->order->decision = DROVER__MOVE_DECISION__DECISION_NONE;
	m->order->token_granted = 0;
	m->restored = true;
	m->fsm.state = (unsigned)rec->phase;
	return m;
}

void move_free(struct move *m)
{
	if (m == NULL)
		return;
	for (unsigned i = 0; i < MOVE_TIMER_N; i++)
		move_timer_stop(m, (enum move_timer)i);
	free_proofs(&m->rec);
	drover__move_order__free_unpacked(m->order, NULL);
	free(m);
}

Drover__MovePhase move_phase(const struct move *m)
{
	return (Drover__MovePhase)m->fsm.state;
}

const Drover__MoveOrder *move_order(const struct move *m)
{
	return m->order;
}

bool move_vm_taken(const struct move *m)
{
	return m->order->role == DROVER__MOVE_ROLE__MOVE_DST && m->rec.committed;
}

void move_fact(struct move *m, Drover__MoveFact *fact)
{
	drover__move_fact__init(fact);
	fact->move = m->order->move;
	fact->attempt = m->order->attempt;
	fact->vm = m->order->vm;
	fact->generation = m->order->generation;
	fact->role = m->order->role;
	fact->phase = move_phase(m);
	fact->n_proofs = m->rec.n_proofs;
	fact->proofs = m->rec.proofs;
	fact->token_request =
		m->token == MOVE_TOKEN_ASKED || m->token == MOVE_TOKEN_HELD ? m->token_request : 0;
	fact->token_returned = m->token == MOVE_TOKEN_RETURNED;
	fact->error = m->rec.error;
	fact->error_exit = m->rec.error_exit;
	fact->error_fatal = m->rec.error_fatal;
	m->rec.stats.n_networks = 0;
	for (size_t i = 0; i < m->order->n_paths && i < MOVE_PATHS; i++)
		if (m->paths[i].state == MOVE_CHANNEL_UP)
			m->networks[m->rec.stats.n_networks++] = m->order->paths[i]->network;
	m->rec.stats.networks = m->networks;
	fact->stats = &m->rec.stats;
}

int move_order_check(const Drover__MoveOrder *o, struct dr_error *err)
{
	if (o->move == 0 || o->attempt == 0)
		return dr_error_set(err, DR_EPROTO, "move order without a move or attempt number");
	if (o->key.len != KEY_SIZE)
		return dr_error_set(err, DR_EPROTO, "move %llu: key of %zu bytes instead of %d",
				    (unsigned long long)o->move, o->key.len, KEY_SIZE);
	if (o->vm == NULL || o->vm[0] == '\0' || strlen(o->vm) > NAME_MAX_BYTES)
		return dr_error_set(err, DR_EPROTO, "move %llu: bad VM name", (unsigned long long)o->move);
	if (o->n_paths > MOVE_PATHS || o->n_proofs > PROOFS_MAX)
		return dr_error_set(err, DR_EPROTO, "move %llu: too many paths or disks",
				    (unsigned long long)o->move);
	if (o->role != DROVER__MOVE_ROLE__MOVE_SRC && o->role != DROVER__MOVE_ROLE__MOVE_DST)
		return dr_error_set(err, DR_EPROTO, "move %llu: unknown role", (unsigned long long)o->move);
	if (o->spec == NULL)
		return dr_error_set(err, DR_EPROTO, "move %llu: no VM spec", (unsigned long long)o->move);
	return 0;
}

/* R5: an order counts only for the attempt that it names; a decision once seen stays. */
static void take_order(struct move *m, const Drover__MoveOrder *order)
{
	const Drover__MoveOrder *own = m->order;
	Drover__MoveDecision decision = own->decision;
	Drover__MoveOrder *copy;

	if (!DR_MUTANT(attempt_not_compared) && order->attempt != own->attempt)
		return;
	if (order->move != own->move || order->role != own->role || order->generation != own->generation ||
	    strcmp(order->vm, own->vm) != 0)
		return;
	copy = order_copy(order);
	if (copy == NULL)
		return; /* the next report brings it again */
	copy->attempt = own->attempt;
	if (decision != DROVER__MOVE_DECISION__DECISION_NONE && copy->decision != decision) {
		if (copy->decision != DROVER__MOVE_DECISION__DECISION_NONE)
			move_log(m, LOG_ERR, "decided twice, differently: the first decision stays");
		copy->decision = decision;
	}
	drover__move_order__free_unpacked(m->order, NULL);
	m->order = copy;
}

/* A change makes older answers about the run state worthless, and the next look due now. */
static void take_mig(struct move *m, enum move_mig mig)
{
	if (mig == m->mig)
		return;
	m->mig = mig;
	m->run = MOVE_RUN_UNKNOWN;
	m->seq[MOVE_QMP_QUERY_STATUS] = 0;
	move_timer_stop(m, MOVE_TIMER_POLL);
}

static void take_answer(struct move *m, const struct move_event *ev)
{
	m->seq[ev->qmp] = 0;
	/* What fails is asked for again by whoever needs it; these are not worth it, or have their own timer.
	 */
	if (ev->ok || ev->qmp == MOVE_QMP_ANNOUNCE || ev->qmp == MOVE_QMP_MIGRATE_CANCEL ||
	    ev->qmp == MOVE_QMP_MIGRATE_UNPAUSE)
		m->answers[ev->qmp] = MOVE_ANSWER_OK;
	else
		m->answers[ev->qmp] = MOVE_ANSWER_NOT_ASKED;
	if (!ev->ok)
		return;
	if (ev->qmp == MOVE_QMP_QUERY_STATUS)
		m->run = ev->run;
	else if (ev->qmp == MOVE_QMP_QUERY_MIGRATE)
		take_mig(m, ev->mig);
	else
		move_timer_stop(m, MOVE_TIMER_POLL);
}

/* What the event says about the world, whatever the phase. False: it is old news, nothing to do. */
static bool absorb(struct move *m, const struct move_event *ev)
{
	switch (ev->type) {
	case MOVE_EV_ORDER:
		take_order(m, ev->order);
		return true;
	case MOVE_EV_QEMU_UP:
		if (m->qemu == MOVE_QEMU_DEAD)
			return false; /* was on its way when it ended */
		m->qemu = MOVE_QEMU_UP;
		memset(m->seq, 0, sizeof(m->seq)); /* a new connection answers no old question */
		return true;
	case MOVE_EV_QEMU_EXITED:
		m->qemu = MOVE_QEMU_DEAD;
		return true;
	case MOVE_EV_QMP:
		if (ev->seq == 0 || ev->seq != m->seq[ev->qmp])
			return false;
		take_answer(m, ev);
		return true;
	case MOVE_EV_MIGRATION:
		take_mig(m, ev->mig);
		return true;
	case MOVE_EV_RELAY_UP:
		if (m->relay == MOVE_RELAY_DEAD || m->relay == MOVE_RELAY_QUITTING)
			return false;
		m->relay = MOVE_RELAY_UP;
		return true;
	case MOVE_EV_RELAY_GONE:
		m->relay = MOVE_RELAY_DEAD;
		return true;
	case MOVE_EV_NONCES_REMOVED:
		m->removed = ev->ok ? MOVE_ANSWER_OK : MOVE_ANSWER_NOT_ASKED;
		return true;
	case MOVE_EV_START:
	case MOVE_EV_ORDER_LOST:
	case MOVE_EV_LEASE:
	case MOVE_EV_STOP:
	case MOVE_EV_RESUME:
	case MOVE_EV_CHANNEL_UP:
	case MOVE_EV_CHANNEL_DOWN:
	case MOVE_EV_CHANNEL_FAILED:
	case MOVE_EV_RELAY_NEED_CHANNEL:
	case MOVE_EV_RELAY_STATS:
	case MOVE_EV_RELAY_DONE:
	case MOVE_EV_RELAY_FAILED:
	case MOVE_EV_RELAY_PEER_RESUMED:
	case MOVE_EV_NONCES_WRITTEN:
	case MOVE_EV_NONCES_CHECKED:
	case MOVE_EV_CHECKED:
	case MOVE_EV_TIMER:
		return true;
	}
	return false;
}

void move_event(struct move *m, const struct move_event *ev)
{
	if (!absorb(m, ev))
		return;
	if (m->order->role == DROVER__MOVE_ROLE__MOVE_SRC)
		move_src(m, ev);
	else
		move_dst(m, ev);
}
