#include "coordinator/drain.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mutant.h"
#include "coordinator/drain_private.h"
#include "coordinator/msg.h"
#include "coordinator/plan.h"

#define SECOND		   UINT64_C(1000000)
#define AGAIN_US	   (2 * SECOND) /* proposed and not seen applied: once more */
#define REFUSED_US	   (1 * SECOND) /* after a refusal by apply */
#define NO_TARGET_US	   (5 * SECOND)
#define AWAY_US		   (60 * SECOND)
#define SHUTDOWN_US	   (300 * SECOND)
#define COMMITTED_CLEAN_US (300 * SECOND)
#define BACKOFF_MAX_S	   8u
#define TRIM_EVERY_US	   (60 * SECOND)
#define KEEP_REQUESTS	   4096u
#define KEEP_EVENTS	   8192u
#define KEEP_MOVES	   2048u

struct drain_scheduler *drain_scheduler_new(struct env *env)
{
	struct drain_scheduler *s = msg_alloc(sizeof(*s));

	s->env = env;
	return s;
}

void drain_scheduler_free(struct drain_scheduler *s)
{
	if (s == NULL)
		return;
	free(s->memos);
	free(s);
}

struct memo *drain_memo(struct drain_scheduler *s, uint64_t move)
{
	struct memo *m;

	for (size_t i = 0; i < s->n_memos; i++) {
		if (s->memos[i].move == move)
			return &s->memos[i];
	}
	if (s->n_memos == s->room) {
		size_t room = s->room == 0 ? 16 : s->room * 2;
		struct memo *grown = msg_alloc(room * sizeof(*grown));

		if (s->n_memos > 0)
			memcpy(grown, s->memos, s->n_memos * sizeof(*grown));
		free(s->memos);
		s->memos = grown;
		s->room = room;
	}
	m = &s->memos[s->n_memos++];
	memset(m, 0, sizeof(*m));
	m->move = move;
	return m;
}

/* ---------------------------------------------------------------- emitting, once */

bool drain_emit(struct pass *p, struct memo *m, const Drover__Command *cmd, uint32_t extra)
{
	if (m->proposed && m->proposed_case == cmd->body_case && m->proposed_extra == extra &&
	    p->now - m->proposed_us < AGAIN_US)
		return false;
	if (m->hold_until_us > p->now && m->held_case == cmd->body_case && m->held_extra == extra)
		return false;
	m->proposed = true;
	m->proposed_case = cmd->body_case;
	m->proposed_extra = extra;
	m->proposed_us = p->now;
	m->token_network[0] = '\0';
	p->emit(p->data, cmd);
	return true;
}

static uint64_t move_of(const Drover__Command *cmd)
{
	/* Only what the scheduler itself proposes about moves. */
	if (cmd->body_case == DROVER__COMMAND__BODY_MOVE_ASSIGN)
		return cmd->move_assign->move;
	if (cmd->body_case == DROVER__COMMAND__BODY_MOVE_SWITCH)
		return cmd->move_switch->move;
	if (cmd->body_case == DROVER__COMMAND__BODY_MOVE_COMMIT)
		return cmd->move_commit->move;
	if (cmd->body_case == DROVER__COMMAND__BODY_MOVE_ABORT)
		return cmd->move_abort->move;
	if (cmd->body_case == DROVER__COMMAND__BODY_MOVE_FAIL)
		return cmd->move_fail->move;
	if (cmd->body_case == DROVER__COMMAND__BODY_DRAIN_STATE)
		return DRAIN_MEMO | cmd->drain_state->drain;
	if (cmd->body_case == DROVER__COMMAND__BODY_MOVE_CREATE && cmd->move_create->drain != 0)
		return DRAIN_MEMO | cmd->move_create->drain;
	return 0;
}

void drain_applied(struct drain_scheduler *s, const Drover__Command *cmd, const struct apply_result *result)
{
	uint64_t move = move_of(cmd);

	for (size_t i = 0; move != 0 && i < s->n_memos; i++) {
		struct memo *m = &s->memos[i];

		if (m->move != move || !m->proposed || m->proposed_case != cmd->body_case)
			continue;
		m->proposed = false;
		m->pending = false;
		m->token_network[0] = '\0';
		/* What apply refused would be refused again at once. */
		if (result->exit != 0) {
			m->hold_until_us = env_now_us(s->env) + REFUSED_US;
			m->held_case = m->proposed_case;
			m->held_extra = m->proposed_extra;
		}
	}
}

/* ---------------------------------------------------------------- queued moves */

static unsigned pending_list(struct pass *p, struct plan_pending *list, unsigned most)
{
	unsigned n = 0;

	for (size_t i = 0; i < p->s->n_memos && n < most; i++) {
		struct memo *m = &p->s->memos[i];

		if (m->pending && p->now - m->proposed_us >= AGAIN_US)
			m->pending = false;
		if (!m->pending)
			continue;
		memcpy(list[n].from, m->from, ROWS_NAME);
		memcpy(list[n].to, m->to, ROWS_NAME);
		list[n++].memory = m->memory;
	}
	return n;
}

void drain_fail_move(struct pass *p, struct memo *m, const struct move_row *move, uint32_t exit,
		     const char *fmt, ...)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdMoveFail body = DROVER__CMD_MOVE_FAIL__INIT;
	char reason[ROWS_ERROR];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(reason, sizeof(reason), fmt, ap);
	va_end(ap);
	body.move = move->id;
	body.attempt = move->attempt;
	body.exit = exit;
	body.reason = reason;
	cmd.body_case = DROVER__COMMAND__BODY_MOVE_FAIL;
	cmd.move_fail = &body;
	drain_emit(p, m, &cmd, 0);
}

static void assign(struct pass *p, struct memo *m, const struct move_row *move, const struct vm_row *vm,
		   const struct plan_choice *choice)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdMoveAssign body = DROVER__CMD_MOVE_ASSIGN__INIT;
	uint8_t key[32];

	body.move = move->id;
	body.vm = (char *)(uintptr_t)vm->name;
	body.generation = vm->generation;
	body.from = (char *)(uintptr_t)vm->owner;
	body.attempt = move->attempt + 1;
	body.to = (char *)(uintptr_t)choice->to;
	body.mode = (char *)(uintptr_t)choice->mode;
	body.predicted_ms = choice->predicted_ms;
	if (choice->paths != NULL) {
		body.paths = choice->paths->paths;
		body.n_paths = choice->paths->n_paths;
		env_random(p->s->env, key, sizeof(key));
		body.key.data = key;
		body.key.len = sizeof(key);
	}
	cmd.body_case = DROVER__COMMAND__BODY_MOVE_ASSIGN;
	cmd.move_assign = &body;
	if (!drain_emit(p, m, &cmd, body.attempt))
		return;
	m->pending = choice->paths != NULL;
	memcpy(m->from, vm->owner, ROWS_NAME);
	memcpy(m->to, choice->to, ROWS_NAME);
	m->memory = vm->memory;
}

static bool drain_is_paused(struct pass *p, uint64_t drain)
{
	return drain != 0 &&
	       db_exists(p->db, "SELECT 1 FROM drain WHERE id = ? AND state = 'paused'", "u", drain);
}

static void choose(struct pass *p, struct memo *m, const struct move_row *move, const struct vm_row *vm)
{
	struct plan_pending pending[PENDING_MAX];
	struct plan_choice choice;
	struct plan_input in = {
		.db = p->db,
		.vm = vm,
		.move = move->id,
		.want_to = move->want_to,
		.network = move->network,
		.mode = move->mode,
		.offline = rows_vm_off(vm),
		.pending = pending,
		.n_pending = pending_list(p, pending, PENDING_MAX),
	};
	int ret = plan_choose(&in, &choice);

	if (ret == 0) {
		m->no_target_us = 0;
		assign(p, m, move, vm, &choice);
	} else if (ret == -DR_EREFUSED) {
		if (m->no_target_us == 0)
			m->no_target_us = p->now;
		/* After a refusal by a host nothing is to be waited for. */
		if (p->now - m->no_target_us >= (choice.waits	      ? AWAY_US
						 : move->failures > 0 ? 0
								      : NO_TARGET_US))
			drain_fail_move(p, m, move, DR_EREFUSED, "no target: %s", choice.why);
	} else {
		m->no_target_us = 0;
	}
	plan_choice_fini(&choice);
}

/* Why the VM of a queued move can't be moved now. */
enum unready { UNREADY_NOT, UNREADY_AGENT, UNREADY_STOPS, UNREADY_STATE };

/* Whether that has lasted for `most`; counted from when it began, not from when the move was queued. */
static bool waited(struct pass *p, struct memo *m, enum unready what, uint64_t most)
{
	if (m->unready != what)
		m->unready_us = p->now;
	m->unready = what;
	return p->now - m->unready_us >= most;
}

/* Whether the VM can be moved in its state; waits or fails the move otherwise. */
static bool vm_ready(struct pass *p, struct memo *m, const struct move_row *move, const struct vm_row *vm)
{
	struct node_row src;
	char why[ROWS_ERROR];

	/* A drain takes along what has stopped meanwhile; who asked for a live move wants to hear of it. */
	if (rows_vm_off(vm) && move->drain == 0 && strcmp(move->kind, "live") == 0) {
		drain_fail_move(p, m, move, DR_EFAILED, "%s",
				vm->error[0] != '\0' ? vm->error : "the VM has stopped");
		return false;
	}
	if (rows_vm_off(vm))
		return true;
	if (strcmp(move->kind, "offline") == 0) {
		if (vm->want != DROVER__VM_WANT__WANT_STOP && vm->want != DROVER__VM_WANT__WANT_KILL)
			drain_fail_move(p, m, move, DR_EREFUSED,
					"it is not stopped: an offline move is impossible");
		else if (waited(p, m, UNREADY_STOPS, SHUTDOWN_US))
			drain_fail_move(p, m, move, DR_EFAILED, "it did not shut down within 5 minutes");
		return false;
	}
	if (plan_unmovable(p->db, vm, why, sizeof(why))) {
		drain_fail_move(p, m, move, DR_EREFUSED, "%s", why);
		return false;
	}
	if (!rows_node(p->db, vm->owner, &src) || !src.session || src.leaving) {
		if (waited(p, m, UNREADY_AGENT, AWAY_US))
			drain_fail_move(p, m, move, DR_EFAILED, "the agent of %s has been lost for %llu s",
					vm->owner, (unsigned long long)(AWAY_US / SECOND));
		return false;
	}
	if (vm->want == DROVER__VM_WANT__WANT_STOP || vm->want == DROVER__VM_WANT__WANT_KILL) {
		if (waited(p, m, UNREADY_STOPS, SHUTDOWN_US))
			drain_fail_move(p, m, move, DR_EFAILED, "it did not shut down within 5 minutes");
		return false;
	}
	if (vm->state != DROVER__VM_STATE__VM_RUNNING && vm->state != DROVER__VM_STATE__VM_PAUSED) {
		if (waited(p, m, UNREADY_STATE, AWAY_US))
			drain_fail_move(p, m, move, DR_EFAILED, "it has been %s for %llu s",
					rows_vm_state(p->db, vm), (unsigned long long)(AWAY_US / SECOND));
		return false;
	}
	m->unready = UNREADY_NOT;
	return true;
}

static void decide_queued(struct pass *p, const struct move_row *move)
{
	struct memo *m = drain_memo(p->s, move->id);
	struct vm_row vm;
	unsigned wait_s;

	if (drain_is_paused(p, move->drain))
		return;
	if (!rows_vm(p->db, move->vm, &vm)) {
		drain_fail_move(p, m, move, DR_ENOENT, "the VM does not exist any more");
		return;
	}
	/* 1, 2, 4 s after failed attempts, by this leader's clock (SAFETY R27). */
	wait_s = move->failures == 0 ? 0 : move->failures > 3 ? BACKOFF_MAX_S : 1u << (move->failures - 1);
	if (p->now - m->since_us < wait_s * SECOND)
		return;
	if (vm_ready(p, m, move, &vm))
		choose(p, m, move, &vm);
}

/* ---------------------------------------------------------------- drains */

static void drain_state(struct pass *p, const struct drain_row *drain, const char *to, const char *error)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdDrainState body = DROVER__CMD_DRAIN_STATE__INIT;

	body.drain = drain->id;
	body.from = (char *)(uintptr_t)drain->state;
	body.to = (char *)(uintptr_t)to;
	body.error = (char *)(uintptr_t)error;
	cmd.body_case = DROVER__COMMAND__BODY_DRAIN_STATE;
	cmd.drain_state = &body;
	drain_emit(p, drain_memo(p->s, DRAIN_MEMO | drain->id), &cmd, 0);
}

/* VMs that came to the node after the drain began (a move that could not be stopped any more, a start). */
static bool queue_latecomer(struct pass *p, const struct drain_row *drain)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdMoveCreate body = DROVER__CMD_MOVE_CREATE__INIT;
	struct db_rows rows;
	char vm[ROWS_NAME];
	bool found;

	db_query(p->db, &rows,
		 "SELECT name FROM vm WHERE owner = ? AND move = 0 AND NOT EXISTS (SELECT 1 FROM move m "
		 "WHERE m.drain = ?"
		 " AND m.vm = vm.name AND m.state IN ('failed', 'cancelled')) ORDER BY name LIMIT 1",
		 "su", drain->node, drain->id);
	found = db_next(&rows);
	if (found)
		db_copy_text(&rows, 0, vm, sizeof(vm));
	db_done(&rows);
	if (!found)
		return false;
	body.vm = vm;
	body.drain = drain->id;
	cmd.body_case = DROVER__COMMAND__BODY_MOVE_CREATE;
	cmd.move_create = &body;
	drain_emit(p, drain_memo(p->s, DRAIN_MEMO | drain->id), &cmd, 0);
	return true;
}

/* "vm3: no target: ...; vm5: cancelled" */
static unsigned list_failures(struct pass *p, uint64_t drain, char *text, size_t size)
{
	struct db_rows rows;
	unsigned n = 0;

	text[0] = '\0';
	/* Only VMs that are still there: a VM whose move failed and that went another way later is no
	 * failure. */
	db_query(p->db, &rows,
		 "SELECT vm, error FROM move WHERE drain = ? AND state IN ('failed', 'cancelled')"
		 " AND EXISTS (SELECT 1 FROM vm WHERE vm.name = move.vm AND vm.owner = move.src) ORDER BY "
		 "vm, id",
		 "u", drain);
	while (db_next(&rows)) {
		size_t used = strlen(text);

		if (used < size - 1)
			snprintf(text + used, size - used, "%s%s: %s", n > 0 ? "; " : "", db_text(&rows, 0),
				 db_text(&rows, 1));
		n++;
	}
	return n;
}

/* Committed moves wait for their clean-up, but not for a host that does not answer, nor for ever (I5). */
static bool cleaning_up(struct pass *p, const struct drain_row *drain)
{
	struct db_rows rows;
	bool waits = false;

	db_query(p->db, &rows,
		 "SELECT m.id FROM move m JOIN move_attempt t ON t.move = m.id AND t.attempt = m.attempt"
		 " WHERE m.drain = ? AND m.state = 'committed'"
		 " AND (t.dst_gone = 0 AND t.dst IN (SELECT name FROM node WHERE health <> 'down')"
		 "  OR t.src_gone = 0 AND t.src IN (SELECT name FROM node WHERE health <> 'down')) ORDER BY "
		 "m.id",
		 "u", drain->id);
	while (!waits && db_next(&rows)) {
		const struct memo *m = drain_memo(p->s, db_u64(&rows, 0));

		waits = p->now - m->since_us < COMMITTED_CLEAN_US;
	}
	db_done(&rows);
	return waits;
}

static void decide_drain(struct pass *p, const struct drain_row *drain)
{
	char error[ROWS_ERROR];

	/* A paused drain waits for its 'continue', even when nothing is left to do. */
	if (strcmp(drain->state, "running") != 0 || queue_latecomer(p, drain))
		return;
	if (db_exists(p->db,
		      "SELECT 1 FROM move WHERE drain = ? AND state NOT IN ('done', 'failed', 'cancelled', "
		      "'committed')",
		      "u", drain->id))
		return;
	if (cleaning_up(p, drain))
		return;
	if (list_failures(p, drain->id, error, sizeof(error)) > 0)
		drain_state(p, drain, "failed", error);
	else
		drain_state(p, drain, "done", "");
}

/* ---------------------------------------------------------------- records of the past */

/* The index before which all but the newest `keep` records may go; 0: there are not more by a quarter. */
static uint64_t trim_index(struct pass *p, const char *sql, unsigned keep)
{
	if (db_get_u64(p->db, sql, "u", (uint64_t)(keep + keep / 4)) == 0)
		return 0;
	return db_get_u64(p->db, sql, "u", (uint64_t)keep);
}

/* Keeps the state small: SQLite tables, snapshots and the digest's cost grow with it. */
static void trim(struct pass *p)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdTrim body = DROVER__CMD_TRIM__INIT;

	if (p->now < p->s->trim_us)
		return;
	p->s->trim_us = p->now + TRIM_EVERY_US;
	body.requests_before_index =
		trim_index(p, "SELECT idx FROM request ORDER BY idx DESC LIMIT 1 OFFSET ?", KEEP_REQUESTS);
	body.events_before_index =
		trim_index(p, "SELECT idx FROM event ORDER BY idx DESC LIMIT 1 OFFSET ?", KEEP_EVENTS);
	body.moves_before_index =
		trim_index(p, "SELECT id FROM move ORDER BY id DESC LIMIT 1 OFFSET ?", KEEP_MOVES);
	if (body.requests_before_index == 0 && body.events_before_index == 0 && body.moves_before_index == 0)
		return;
	cmd.body_case = DROVER__COMMAND__BODY_TRIM;
	cmd.trim = &body;
	p->emit(p->data, &cmd);
}

/* ---------------------------------------------------------------- one pass */

static void forget_ended(struct drain_scheduler *s)
{
	size_t kept = 0;

	for (size_t i = 0; i < s->n_memos; i++) {
		if (s->memos[i].seen)
			s->memos[kept++] = s->memos[i];
	}
	if (kept == s->n_memos)
		return;
	s->n_memos = kept;
}

static void note_state(struct pass *p, const struct move_row *move)
{
	struct memo *m = drain_memo(p->s, move->id);

	m->seen = true;
	if (strcmp(m->state, move->state) == 0 && m->attempt == move->attempt)
		return;
	memcpy(m->state, move->state, sizeof(m->state));
	m->attempt = move->attempt;
	m->since_us = p->now;
	m->progress_us = p->now;
	m->proposed = false;
	m->pending = false;
	m->no_target_us = 0;
	m->unready = UNREADY_NOT;
	m->released_us = 0;
}

void drain_decide(struct drain_scheduler *s, struct db *db, const struct volatile_view *view,
		  command_emit_fn emit, void *data)
{
	struct pass p = {
		.s = s, .db = db, .view = view, .emit = emit, .data = data, .now = env_now_us(s->env)};
	struct db_rows rows;
	struct move_row move;
	struct drain_row drain;

	if (DR_MUTANT(utc_durations))
		p.now = env_utc_us(s->env);
	for (size_t i = 0; i < s->n_memos; i++)
		s->memos[i].seen = false;
	db_query(db, &rows,
		 "SELECT " MOVE_COLUMNS
		 " FROM move WHERE state IN ('assigned', 'preparing', 'copying', 'switching',"
		 " 'committed', 'cancelling') ORDER BY id",
		 "");
	while (db_next(&rows)) {
		rows_move_get(&rows, &move);
		note_state(&p, &move);
		drain_decide_attempt(&p, &move);
	}
	/* Priority first; then what is over sooner, so that most VMs are away early. */
	db_query(db, &rows,
		 "SELECT " MOVE_COLUMNS
		 " FROM move WHERE state = 'queued' ORDER BY priority DESC, memory, vm",
		 "");
	while (db_next(&rows)) {
		rows_move_get(&rows, &move);
		note_state(&p, &move);
		decide_queued(&p, &move);
	}
	db_query(db, &rows,
		 "SELECT " DRAIN_COLUMNS " FROM drain WHERE state IN ('running', 'paused') ORDER BY id", "");
	while (db_next(&rows)) {
		rows_drain_get(&rows, &drain);
		drain_memo(s, DRAIN_MEMO | drain.id)->seen = true;
		decide_drain(&p, &drain);
	}
	trim(&p);
	forget_ended(s);
}
