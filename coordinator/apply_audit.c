/*
 * Audit mode (SAFETY R18). State that came from a backup, or from a minority that goes on
 * alone, may lack what was decided last: where a VM went, that a move was committed. So
 * it starts no VM, lets none go on and fails none over until every host has said what it has
 * (the highest generation wins) or is fenced. Only then are open attempts decided:
 *
 *   the VM has a newer generation      what the attempt left is killed, but for the
 *                                      destination that has that generation
 *   the destination has the commit     commit
 *   the source gave its word, and the
 *   destination can't deny it went on  its copy may have run and is dead: the source must
 *                                      never go on with older memory; the VM is stopped
 *   otherwise                          abort
 */
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "coordinator/apply_private.h"
#include "coordinator/msg.h"

#define OPEN_ATTEMPTS_MAX 64
#define IDS_AHEAD	  (1ull << 20) /* more than a lost majority can have given */
#define GENERATIONS_AHEAD (1ull << 20) /* more than one VM can have had since a backup */

/* What goes on: the rest touches VMs or moves, if only by way of a drain that ends. */
static bool goes_on(const Drover__Command *cmd)
{
	static const Drover__Command__BodyCase kinds[] = {
		DROVER__COMMAND__BODY_INIT,
		DROVER__COMMAND__BODY_SETTING,
		DROVER__COMMAND__BODY_NODE_FACTS,
		DROVER__COMMAND__BODY_NODE_SESSION,
		DROVER__COMMAND__BODY_NODE_HEALTH,
		DROVER__COMMAND__BODY_NODE_FENCED,
		DROVER__COMMAND__BODY_NODE_LEAVING,
		DROVER__COMMAND__BODY_NODE_SET,
		DROVER__COMMAND__BODY_NODE_FENCING,
		DROVER__COMMAND__BODY_NETWORK_ORDER,
		DROVER__COMMAND__BODY_NETWORK_VERB,
		DROVER__COMMAND__BODY_LIMIT_SET,
		DROVER__COMMAND__BODY_LEASE_ROUND,
		DROVER__COMMAND__BODY_TRIM,
		DROVER__COMMAND__BODY_MEMBER,
		DROVER__COMMAND__BODY_TOKEN,
		DROVER__COMMAND__BODY_EVENT,
		DROVER__COMMAND__BODY_CLUSTER_VERSION,
		DROVER__COMMAND__BODY_INCARNATION_BEGIN,
		DROVER__COMMAND__BODY_NODE_AUDIT,
		DROVER__COMMAND__BODY_AUDIT_END,
	};

	for (size_t i = 0; i < DR_ARRAY_SIZE(kinds); i++)
		if (cmd->body_case == kinds[i])
			return true;
	return false;
}

bool apply_audit_refuses(struct apply *a)
{
	char hosts[256];

	if (goes_on(a->cmd))
		return false;
	if (!rows_audit(a->db))
		return false;
	rows_unaudited(a->db, hosts, sizeof(hosts));
	apply_refuse(
		a, DR_EREFUSED,
		"the state may be older than what runs: waiting for the word of %s (a host that is gone for "
		"good: drover node fence NODE --confirmed)",
		hosts[0] != '\0' ? hosts : "the last host");
	return true;
}

void apply_incarnation(struct apply *a, const Drover__CmdIncarnation *c)
{
	static const char *const kinds[] = {"move", "drain"};

	if (c->incarnation <= rows_cluster_incarnation(a->db)) {
		apply_refuse(a, DR_EREFUSED, "incarnation %llu is not newer",
			     (unsigned long long)c->incarnation);
		return;
	}
	db_exec(a->db, "UPDATE counter SET value = ? WHERE name = 'incarnation'", "u", c->incarnation);
	/* Ages in log entries are counted from here: the log may have begun far behind the last one. */
	db_exec(a->db,
		"INSERT INTO counter (name, value) VALUES ('origin', ?) ON CONFLICT (name) DO UPDATE SET "
		"value = "
		"excluded.value",
		"u", a->index);
	/* A log that goes on from a minority gives the lost indexes once more, but no id twice (R6). */
	for (size_t i = 0; i < DR_ARRAY_SIZE(kinds); i++)
		db_exec(a->db,
			"INSERT INTO counter (name, value) VALUES (?1, ?2 + ?3) "
			"ON CONFLICT (name) DO UPDATE SET value = max(value, ?2) + ?3",
			"suu", kinds[i], a->index, (uint64_t)IDS_AHEAD);
	db_exec(a->db,
		"INSERT INTO meta (key, value) VALUES ('audit', ?) ON CONFLICT (key) DO UPDATE SET value = "
		"excluded.value",
		"s", c->why);
	db_exec(a->db, "UPDATE member SET removed = 1 WHERE id <> ? AND removed = 0", "u", c->member);
	db_exec(a->db,
		"INSERT INTO member (id, node, corosync_id, removed) VALUES (?, ?, 0, 0) ON CONFLICT (id) DO "
		"NOTHING",
		"us", c->member, c->node);
	/* Every host speaks anew; what was known of running VMs and open attempts counts for nothing. */
	/* Agents may have obeyed higher incarnations of their nodes than this state knows. */
	db_exec(a->db,
		"UPDATE node SET audited = 0, start_id = x'', coordinator = '', changed = ?, incarnation = "
		"max(incarnation, ?)",
		"uu", a->index, a->index);
	db_exec(a->db, "UPDATE vm SET state = 0, changed = ? WHERE state NOT IN (1, 5, 6)", "u", a->index);
	db_exec(a->db,
		"UPDATE move_attempt SET src_phase = 0, dst_phase = 0, token_held = 0 WHERE decision = 0",
		"");
	apply_event(a, "cluster", (struct about){.node = c->node},
		    "incarnation %llu of the cluster (%s): no VM is started or moved until every host has "
		    "reported",
		    (unsigned long long)(c->incarnation >> 48 != 0 ? c->incarnation >> 48 : c->incarnation),
		    c->why);
	a->out->changed = true;
	a->out->touched_all = true;
}

/* ---------------------------------------------------------------- a host's word */

static void audit_vm(struct apply *a, const char *node, const Drover__VmFact *f)
{
	struct vm_row vm;

	if (!rows_vm(a->db, f->name, &vm)) {
		apply_event(a, "vm", (struct about){.node = node},
			    "%s has a VM '%.64s' that this state does not know: add it again if it is wanted",
			    node, f->name);
		return;
	}
	if (f->generation < vm.generation || (f->generation == vm.generation && strcmp(vm.owner, node) != 0))
		return; /* a remnant; the present owner speaks for it */
	if (strcmp(vm.owner, node) != 0)
		apply_event(a, "vm", (struct about){.node = node, .vm = vm.name},
			    "%s is on %s, not on %s as the state had it", vm.name, node, vm.owner);
	db_exec(a->db,
		"UPDATE vm SET owner = ?, generation = ?, state = ?, error = substr(?, 1, 500), changed = ? "
		"WHERE "
		"name = ?",
		"suisus", node, f->generation, (int)f->state, f->error, a->index, vm.name);
}

/*
 * An attempt that was begun behind what this state knows. Once it gave its word a side waits for a decision,
 * which nobody else can make: so the attempt is taken in, and decided with the others.
 */
static bool adopt(struct apply *a, const Drover__MoveFact *f)
{
	static const uint8_t no_key[32]; /* the agents keep theirs */
	struct move_row move;
	struct vm_row vm;

	if (f->phase == DROVER__MOVE_PHASE__PHASE_NONE || f->phase == DROVER__MOVE_PHASE__PHASE_GONE ||
	    !rows_vm(a->db, f->vm, &vm))
		return false;
	if (rows_move(a->db, f->move, &move) && strcmp(move.vm, f->vm) != 0)
		return false; /* no attempt of that move is about this VM */
	db_exec(a->db,
		"INSERT INTO move (id, vm, drain, kind, mode, network, want_to, priority, memory, src, dst, "
		"state,"
		" attempt, failures, cancelled, predicted_ms, predicted_blackout_ms, created_utc_us,"
		" started_utc_us, ended_utc_us, exit, error)"
		" VALUES (?, ?, 0, 'live', '', '', '', 0, ?, '', '', 'switching', ?, 0, 1, 0, 0, ?, ?, 0, 0, "
		"'')"
		" ON CONFLICT (id) DO UPDATE SET attempt = max(attempt, excluded.attempt),"
		" state = iif(attempt < excluded.attempt, 'switching', state)",
		"usuuuu", f->move, f->vm, vm.memory, (uint64_t)f->attempt, a->utc_us, a->utc_us);
	db_exec(a->db,
		"INSERT INTO move_attempt (move, attempt, vm, generation, src, dst, memory, mode, key, paths,"
		" network, src_phase, dst_phase, src_gone, dst_gone, decision, outcome, proofs, relay_port,"
		" token_request, token_granted, token_returned, token_held, src_error, dst_error, error_exit,"
		" error_fatal, stats, reason) VALUES (?, ?, ?, ?, '', '', ?, '', ?, x'', '', 0, 0, 0, 0, 0, "
		"0, x'',"
		" 0, 0, 0, 0, 0, '', '', 0, 0, x'', '')",
		"uusuub", f->move, (uint64_t)f->attempt, f->vm, f->generation, vm.memory, no_key,
		sizeof(no_key));
	db_exec(a->db, "UPDATE vm SET move = ? WHERE name = ? AND move = 0", "us", f->move, f->vm);
	return true;
}

static void audit_move(struct apply *a, const char *node, const Drover__MoveFact *f)
{
	struct attempt_row t;
	bool src = f->role == DROVER__MOVE_ROLE__MOVE_SRC;

	if (!rows_attempt(a->db, f->move, f->attempt, &t)) {
		apply_event(a, "move", (struct about){.node = node},
			    "%s takes part in a move of %.64s that this state does not know (%llu)", node,
			    f->vm, (unsigned long long)f->move);
		if (!adopt(a, f) || !rows_attempt(a->db, f->move, f->attempt, &t))
			return;
	}
	if (strcmp(f->vm, t.vm) != 0)
		return;
	if ((src ? t.src : t.dst)[0] == '\0')
		db_exec(a->db,
			src ? "UPDATE move_attempt SET src = ? WHERE move = ? AND attempt = ?"
			    : "UPDATE move_attempt SET dst = ? WHERE move = ? AND attempt = ?",
			"suu", node, f->move, (uint64_t)f->attempt);
	else if (strcmp(src ? t.src : t.dst, node) != 0)
		return;
	if (t.decision != DROVER__MOVE_DECISION__DECISION_NONE) {
		if (f->phase != DROVER__MOVE_PHASE__PHASE_GONE)
			db_exec(a->db,
				src ? "UPDATE move_attempt SET src_gone = 0 WHERE move = ? AND attempt = ?"
				    : "UPDATE move_attempt SET dst_gone = 0 WHERE move = ? AND attempt = ?",
				"uu", f->move, (uint64_t)f->attempt);
		return;
	}
	db_exec(a->db,
		src ? "UPDATE move_attempt SET src_phase = ? WHERE move = ? AND attempt = ?"
		    : "UPDATE move_attempt SET dst_phase = ? WHERE move = ? AND attempt = ?",
		"iuu", (int)f->phase, f->move, (uint64_t)f->attempt);
}

/* Of what was decided already and is not in a host's word, nothing is left there: its agent would not answer
 * for it if a later attempt was begun meanwhile. */
static void forget_finished(struct apply *a, const char *node)
{
	db_exec(a->db, "UPDATE move_attempt SET src_gone = 1 WHERE src = ? AND decision <> 0", "s", node);
	db_exec(a->db, "UPDATE move_attempt SET dst_gone = 1 WHERE dst = ? AND decision <> 0", "s", node);
}

/* By number, not by what this program's enums know: all members decide the same (SAFETY R20). */
static bool is_known_part(const Drover__MoveFact *f)
{
	int phase = (int)f->phase;

	if (phase == DROVER__MOVE_PHASE__PHASE_NONE || phase == DROVER__MOVE_PHASE__PHASE_GONE)
		return f->role == DROVER__MOVE_ROLE__MOVE_SRC || f->role == DROVER__MOVE_ROLE__MOVE_DST;
	if (f->role == DROVER__MOVE_ROLE__MOVE_SRC)
		return phase >= DROVER__MOVE_PHASE__SRC_ASSIGNED && phase <= DROVER__MOVE_PHASE__SRC_ABORTING;
	return f->role == DROVER__MOVE_ROLE__MOVE_DST && phase >= DROVER__MOVE_PHASE__DST_ASSIGNED &&
	       phase <= DROVER__MOVE_PHASE__DST_ABORTING;
}

/* A state or phase that means nothing here would stay in the rows. */
static bool has_unknown_words(const Drover__CmdNodeAudit *c)
{
	for (size_t i = 0; i < c->n_vms; i++)
		if ((int)c->vms[i]->state < DROVER__VM_STATE__VM_STATE_UNKNOWN ||
		    (int)c->vms[i]->state > DROVER__VM_STATE__VM_FAILED)
			return true;
	for (size_t i = 0; i < c->n_moves; i++)
		if (!is_known_part(c->moves[i]))
			return true;
	return false;
}

void apply_node_audit(struct apply *a, const Drover__CmdNodeAudit *c)
{
	struct node_row node;

	if (!apply_need_node(a, c->node, &node))
		return;
	if (!rows_audit(a->db) || !node.session || !msg_same_bytes(&c->start_id, node.start_id, ROWS_ID)) {
		apply_refuse(a, DR_EREFUSED, "not the word of the present agent of %s, or none is waited for",
			     c->node);
		return;
	}
	if (has_unknown_words(c)) {
		apply_refuse(a, DR_EREFUSED,
			     "the word of %s has states of VMs or moves that are not known here", c->node);
		return;
	}
	for (size_t i = 0; i < c->n_vms; i++)
		audit_vm(a, c->node, c->vms[i]);
	forget_finished(a, c->node);
	for (size_t i = 0; i < c->n_moves; i++)
		audit_move(a, c->node, c->moves[i]);
	db_exec(a->db, "UPDATE node SET audited = 1 WHERE name = ?", "s", c->node);
	apply_event(a, "node", (struct about){.node = c->node}, "%s has reported all that it has", c->node);
	a->out->changed = true;
}

void audit_fenced(struct apply *a, const char *node)
{
	db_exec(a->db, "UPDATE node SET audited = 2 WHERE name = ?", "s", node);
}

/* ---------------------------------------------------------------- the end */

/* The destination says that it never went on. */
static bool denies(const struct attempt_row *t)
{
	return (t->dst_phase >= DROVER__MOVE_PHASE__DST_ASSIGNED &&
		t->dst_phase <= DROVER__MOVE_PHASE__DST_COMPLETED) ||
	       t->dst_phase == DROVER__MOVE_PHASE__DST_ABORTING;
}

/* It has the commit on its disk, or runs. */
static bool went_on(const struct attempt_row *t)
{
	return t->dst_phase == DROVER__MOVE_PHASE__DST_CONTINUING ||
	       t->dst_phase == DROVER__MOVE_PHASE__DST_RUNNING;
}

static void close_committed(struct apply *a, const struct attempt_row *t)
{
	db_exec(a->db, "UPDATE move_attempt SET decision = 1 WHERE move = ? AND attempt = ?", "uu", t->move,
		(uint64_t)t->attempt);
	move_change(a, t->move, "committed");
	apply_touch(a, t->src);
	apply_touch(a, t->dst);
}

static void side_gone(struct apply *a, const struct attempt_row *t, const char *sql)
{
	db_exec(a->db, sql, "uu", t->move, (uint64_t)t->attempt);
}

/* A newer generation exists, here or elsewhere: what this attempt left must never run, but for the
 * destination that has it. */
static void decide_elsewhere(struct apply *a, const struct attempt_row *t, const struct vm_row *vm)
{
	bool there = strcmp(vm->owner, t->dst) == 0 && vm->generation == t->generation + 1 && !denies(t);

	if (there || t->src_phase == DROVER__MOVE_PHASE__SRC_RELEASED) {
		close_committed(a, t); /* the source quits */
		if (!there)	       /* and the destination must not hear of a commit */
			side_gone(a, t,
				  "UPDATE move_attempt SET dst_gone = 1 WHERE move = ? AND attempt = ?");
		return;
	}
	attempt_abort(a, t, DROVER__CMD_MOVE_ABORT__OUTCOME__FAIL, DR_EFAILED,
		      "the VM has gone on without it");
	/* Nor must the source hear of an abort: it would go on. */
	side_gone(a, t, "UPDATE move_attempt SET src_gone = 1 WHERE move = ? AND attempt = ?");
}

/* The source gave its word, and the destination can't say that it did not go on. */
static void decide_lost(struct apply *a, const struct attempt_row *t)
{
	close_committed(a, t);
	db_exec(a->db,
		"UPDATE vm SET generation = generation + 1, state = 1, want = 0, error = ?, changed = ? "
		"WHERE name = ?",
		"sus", "its copy on the destination of a move may have run and is gone: start it anew",
		a->index, t->vm);
	apply_event(a, "vm", (struct about){.node = t->src, .vm = t->vm, .move = t->move},
		    "%s is stopped: its copy on %s may have run and is gone", t->vm, t->dst);
}

/* A later attempt was begun: it had been given up by then. */
static bool is_past(struct apply *a, const struct attempt_row *t)
{
	struct move_row move;

	if (!rows_move(a->db, t->move, &move) || move.attempt == t->attempt)
		return false;
	db_exec(a->db, "UPDATE move_attempt SET decision = 2, outcome = ? WHERE move = ? AND attempt = ?",
		"iuu", (int)DROVER__CMD_MOVE_ABORT__OUTCOME__RETRY, t->move, (uint64_t)t->attempt);
	return true;
}

static void decide(struct apply *a, const struct attempt_row *t)
{
	struct vm_row vm;

	if (!rows_vm(a->db, t->vm, &vm))
		return;
	/* Begun behind what this state knows of the VM, and no host has spoken for it: the attempt says more.
	 */
	if (vm.generation < t->generation) {
		db_exec(a->db, "UPDATE vm SET generation = ?, owner = ?, changed = ? WHERE name = ?", "usus",
			t->generation, t->src[0] != '\0' ? t->src : vm.owner, a->index, t->vm);
		if (!rows_vm(a->db, t->vm, &vm))
			return;
	}
	if (is_past(a, t))
		apply_touch(a, t->dst);
	else if (vm.generation > t->generation)
		decide_elsewhere(a, t, &vm);
	else if (went_on(t))
		attempt_commit(a, t);
	else if (t->src_phase == DROVER__MOVE_PHASE__SRC_RELEASED && !denies(t))
		decide_lost(a, t);
	else
		attempt_abort(a, t, DROVER__CMD_MOVE_ABORT__OUTCOME__REQUEUE, DR_EFAILED,
			      "the state is from a backup or a minority");
	/* A side that does not know of the attempt has nothing left of it. */
	db_exec(a->db,
		"UPDATE move_attempt SET src_gone = max(src_gone, src_phase IN (0, 40)), dst_gone = "
		"max(dst_gone, "
		"dst_phase IN (0, 40)) WHERE move = ? AND attempt = ?",
		"uu", t->move, (uint64_t)t->attempt);
	attempt_settle(a, t->move, t->attempt);
}

static void decide_all(struct apply *a)
{
	struct attempt_row list[OPEN_ATTEMPTS_MAX];
	struct db_rows rows;
	unsigned n;

	do {
		n = 0;
		db_query(a->db, &rows,
			 "SELECT " ATTEMPT_COLUMNS
			 " FROM move_attempt WHERE decision = 0 AND (src_gone = 0 OR "
			 "dst_gone = 0) ORDER BY move, attempt LIMIT 64",
			 "");
		while (n < OPEN_ATTEMPTS_MAX && db_next(&rows))
			rows_attempt_get(&rows, &list[n++]);
		db_done(&rows);
		for (unsigned i = 0; i < n; i++)
			decide(a, &list[i]);
	} while (n == OPEN_ATTEMPTS_MAX && db_failed(a->db, NULL) == 0);
}

/* Those that were decided before the audit, and whose hosts have said that nothing is left. */
static void settle_finished(struct apply *a)
{
	struct {
		uint64_t move;
		uint32_t attempt;
	} list[OPEN_ATTEMPTS_MAX];
	struct db_rows rows;
	uint64_t last = 0;
	unsigned n;

	do {
		n = 0;
		db_query(a->db, &rows,
			 "SELECT id, attempt FROM move WHERE state IN ('cancelling', 'committed') AND id > ? "
			 "ORDER BY"
			 " id LIMIT 64",
			 "u", last);
		while (n < OPEN_ATTEMPTS_MAX && db_next(&rows)) {
			list[n].move = db_u64(&rows, 0);
			list[n++].attempt = (uint32_t)db_u64(&rows, 1);
		}
		db_done(&rows);
		for (unsigned i = 0; i < n; i++) {
			attempt_settle(a, list[i].move, list[i].attempt);
			last = list[i].move;
		}
	} while (n == OPEN_ATTEMPTS_MAX && db_failed(a->db, NULL) == 0);
}

static void bury_fenced(struct apply *a)
{
	char names[OPEN_ATTEMPTS_MAX][ROWS_NAME];
	struct db_rows rows;
	unsigned n;

	do {
		n = 0;
		db_query(a->db, &rows, "SELECT name FROM node WHERE audited = 2 ORDER BY name LIMIT 64", "");
		while (n < OPEN_ATTEMPTS_MAX && db_next(&rows))
			db_copy_text(&rows, 0, names[n++], ROWS_NAME);
		db_done(&rows);
		for (unsigned i = 0; i < n; i++) {
			attempt_host_died(a, names[i], "it was fenced");
			db_exec(a->db, "UPDATE node SET audited = 1 WHERE name = ?", "s", names[i]);
		}
	} while (n == OPEN_ATTEMPTS_MAX && db_failed(a->db, NULL) == 0);
}

void apply_audit_end(struct apply *a)
{
	char hosts[256];

	if (!rows_audit(a->db))
		return;
	rows_unaudited(a->db, hosts, sizeof(hosts));
	if (hosts[0] != '\0') {
		apply_refuse(a, DR_EREFUSED, "%s did not report yet", hosts);
		return;
	}
	db_exec(a->db, "DELETE FROM meta WHERE key = 'audit'", "");
	decide_all(a);
	bury_fenced(a);
	settle_finished(a);
	/* Nobody has it. Of a VM in a move its source speaks when it has heard what was decided. */
	db_exec(a->db, "UPDATE vm SET state = 1, want = 0, changed = ? WHERE state = 0 AND move = 0", "u",
		a->index);
	/* What is off stays off until it is started again. Hosts obey no generation below one that they have
	 * seen, and this state may not know that one. */
	db_exec(a->db,
		"UPDATE vm SET generation = generation + ?, want = 0, changed = ? "
		"WHERE state IN (1, 5, 6) AND move = 0",
		"uu", (uint64_t)GENERATIONS_AHEAD, a->index);
	apply_event(a, "cluster", (struct about){.node = ""}, "every host has reported: the cluster goes on");
	a->out->changed = true;
	a->out->touched_all = true;
}
