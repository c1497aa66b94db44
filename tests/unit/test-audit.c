/* State from a backup or a minority may lack what was decided last: hosts speak first (SAFETY R18). */
#include "coordinator/orders.h"
#include "tests/unit/core.h"

static uint32_t begin(struct core *c, uint64_t incarnation)
{
	CORE_BODY(cmd, body, INCARNATION_BEGIN, incarnation_begin, Drover__CmdIncarnation,
		  drover__cmd_incarnation);
	body.incarnation = incarnation;
	body.why = (char *)"a test";
	body.member = 9;
	body.node = (char *)"node1";
	return core_apply(c, &cmd);
}

static uint32_t audit_end(struct core *c)
{
	CORE_BODY(cmd, body, AUDIT_END, audit_end, Drover__Empty, drover__empty);
	return core_apply(c, &cmd);
}

/* The agents have sessions anew. */
static void sessions(struct core *c)
{
	static char *const names[] = {"node1", "node2", "node3"};

	for (uint8_t i = 0; i < 3; i++) {
		CORE_BODY(cmd, body, NODE_SESSION, node_session, Drover__CmdNodeSession,
			  drover__cmd_node_session);
		body.node = names[i];
		body.boot_id = core_bytes((uint8_t)(i + 1));
		body.start_id = core_bytes((uint8_t)(i + 1));
		body.coordinator = (char *)"node1";
		assert_int_equal(core_apply(c, &cmd), 0);
	}
}

static bool second_attempt;
static const char *moved_vm = "vm1";

static uint32_t speak(struct core *c, const char *node, uint8_t id, const char *vm, uint64_t generation,
		      Drover__VmState vm_state, uint64_t move, Drover__MoveRole role, Drover__MovePhase phase)
{
	Drover__VmFact fact = DROVER__VM_FACT__INIT;
	Drover__VmFact *facts[] = {&fact};
	Drover__MoveFact part = DROVER__MOVE_FACT__INIT;
	Drover__MoveFact *parts[] = {&part};

	CORE_BODY(cmd, body, NODE_AUDIT, node_audit, Drover__CmdNodeAudit, drover__cmd_node_audit);
	body.node = (char *)(uintptr_t)node;
	body.start_id = core_bytes(id);
	body.vms = facts;
	body.n_vms = vm != NULL ? 1 : 0;
	fact.name = (char *)(uintptr_t)vm;
	fact.generation = generation;
	fact.state = vm_state;
	body.moves = parts;
	body.n_moves = move != 0 ? 1 : 0;
	part.move = move;
	part.attempt = second_attempt ? 2 : 1;
	part.generation = core_vm(c, "vm1").generation;
	part.vm = (char *)(uintptr_t)moved_vm;
	part.role = role;
	part.phase = phase;
	return core_apply(c, &cmd);
}

#define SILENT 0, DROVER__MOVE_ROLE__MOVE_SRC, DROVER__MOVE_PHASE__PHASE_NONE

static uint64_t moving(struct core *c)
{
	uint64_t id;

	assert_int_equal(core_move_create(c, "vm1", ""), 0);
	id = c->last.object_id;
	assert_int_equal(core_assign(c, id, "node2"), 0);
	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__SRC_COPYING), 0);
	assert_int_equal(core_dst(c, "node2", 2, id, 1, DROVER__MOVE_PHASE__DST_LOADING), 0);
	return id;
}

static void test_highest_generation_wins(void **state)
{
	struct core *c = *state;
	uint64_t g = core_vm(c, "vm1").generation;
	uint8_t start[16];

	memset(start, 1, sizeof(start));
	assert_int_equal(begin(c, 1), 6); /* not newer */
	assert_int_equal(begin(c, 2), 0);
	sessions(c);
	assert_null(orders_build(c->db, "node1", 1, c->index, start));
	assert_int_equal(core_move_create(c, "vm1", ""), 6);
	assert_non_null(strstr(c->last.message, "node1, node2, node3"));
	assert_int_equal(speak(c, "node2", 2, "vm1", g + 1, DROVER__VM_STATE__VM_RUNNING, SILENT), 0);
	assert_int_equal(speak(c, "node1", 1, "vm1", g, DROVER__VM_STATE__VM_RUNNING, SILENT), 0);
	assert_int_equal(speak(c, "node3", 9, NULL, 0, 0, SILENT), 6); /* another start of its agent */
	assert_int_equal(audit_end(c), 6);
	assert_int_equal(speak(c, "node3", 3, "other", 5, DROVER__VM_STATE__VM_RUNNING, SILENT), 0);
	assert_int_equal(audit_end(c), 0);
	assert_string_equal(core_vm(c, "vm1").owner, "node2");
	assert_true(core_vm(c, "vm1").generation > g);
	assert_int_equal(core_vm(c, "vm1").state, DROVER__VM_STATE__VM_RUNNING);
	assert_int_equal(core_move_create(c, "vm1", ""), 0);
}

/* Since the backup it was moved to and fro while it was off: those hosts obey no generation below. */
static void test_nobody_has_it(void **state)
{
	struct core *c = *state;
	uint64_t before = core_vm(c, "vm1").generation;

	assert_int_equal(begin(c, 2), 0);
	sessions(c);
	assert_int_equal(speak(c, "node1", 1, NULL, 0, 0, SILENT), 0);
	assert_int_equal(speak(c, "node2", 2, NULL, 0, 0, SILENT), 0);
	assert_int_equal(speak(c, "node3", 3, NULL, 0, 0, SILENT), 0);
	assert_int_equal(audit_end(c), 0);
	assert_int_equal(core_vm(c, "vm1").state, DROVER__VM_STATE__VM_STOPPED);
	assert_true(core_vm(c, "vm1").generation > before + 1000);
}

/* The commit was decided and is lost here; the destination runs it. */
static void test_lost_commit(void **state)
{
	struct core *c = *state;
	uint64_t id = moving(c);
	uint64_t g = core_vm(c, "vm1").generation;

	assert_int_equal(begin(c, 2), 0);
	sessions(c);
	assert_int_equal(speak(c, "node1", 1, NULL, 0, 0, id, DROVER__MOVE_ROLE__MOVE_SRC,
			       DROVER__MOVE_PHASE__SRC_RELEASED),
			 0);
	assert_int_equal(speak(c, "node2", 2, "vm1", g + 1, DROVER__VM_STATE__VM_RUNNING, SILENT), 0);
	assert_int_equal(speak(c, "node3", 3, NULL, 0, 0, SILENT), 0);
	assert_int_equal(audit_end(c), 0);
	assert_string_equal(core_vm(c, "vm1").owner, "node2");
	assert_true(core_vm(c, "vm1").generation > g);
	assert_int_equal(core_attempt(c, id, 1).decision, DROVER__MOVE_DECISION__DECISION_COMMIT);
}

/* Both wait for a decision: the source goes on. */
static void test_undecided(void **state)
{
	struct core *c = *state;
	uint64_t id = moving(c);

	assert_int_equal(begin(c, 2), 0);
	sessions(c);
	assert_int_equal(speak(c, "node1", 1, NULL, 0, 0, id, DROVER__MOVE_ROLE__MOVE_SRC,
			       DROVER__MOVE_PHASE__SRC_RELEASED),
			 0);
	assert_int_equal(speak(c, "node2", 2, NULL, 0, 0, id, DROVER__MOVE_ROLE__MOVE_DST,
			       DROVER__MOVE_PHASE__DST_COMPLETED),
			 0);
	assert_int_equal(speak(c, "node3", 3, NULL, 0, 0, SILENT), 0);
	assert_int_equal(audit_end(c), 0);
	assert_int_equal(core_attempt(c, id, 1).decision, DROVER__MOVE_DECISION__DECISION_ABORT);
	assert_string_equal(core_vm(c, "vm1").owner, "node1");
	assert_int_not_equal(core_vm(c, "vm1").state, DROVER__VM_STATE__VM_STOPPED);
}

/* The source gave its word and the destination is dead: its copy may have run and written to the disk. */
static void test_copy_may_have_run(void **state)
{
	struct core *c = *state;
	uint64_t id = moving(c);
	uint64_t g = core_vm(c, "vm1").generation;
	CORE_BODY(fence, fenced, NODE_FENCED, node_fenced, Drover__CmdNodeFenced, drover__cmd_node_fenced);

	assert_int_equal(begin(c, 2), 0);
	sessions(c);
	assert_int_equal(speak(c, "node1", 1, NULL, 0, 0, id, DROVER__MOVE_ROLE__MOVE_SRC,
			       DROVER__MOVE_PHASE__SRC_RELEASED),
			 0);
	assert_int_equal(speak(c, "node3", 3, NULL, 0, 0, SILENT), 0);
	fenced.node = (char *)"node2";
	fenced.proof = (char *)"operator";
	assert_int_equal(core_apply(c, &fence), 0);
	assert_int_equal(core_attempt(c, id, 1).decision, DROVER__MOVE_DECISION__DECISION_NONE);
	assert_int_equal(audit_end(c), 0);
	assert_int_equal(core_attempt(c, id, 1).decision, DROVER__MOVE_DECISION__DECISION_COMMIT);
	assert_int_equal(core_vm(c, "vm1").state, DROVER__VM_STATE__VM_STOPPED);
	assert_true(core_vm(c, "vm1").generation > g);
}

/* The commit is on the destination's disk; it waits for a lease. */
static void test_commit_on_the_way(void **state)
{
	struct core *c = *state;
	uint64_t id = moving(c);
	uint64_t g = core_vm(c, "vm1").generation;

	assert_int_equal(begin(c, 2), 0);
	sessions(c);
	assert_int_equal(speak(c, "node1", 1, NULL, 0, 0, id, DROVER__MOVE_ROLE__MOVE_SRC,
			       DROVER__MOVE_PHASE__SRC_RELEASED),
			 0);
	assert_int_equal(speak(c, "node2", 2, NULL, 0, 0, id, DROVER__MOVE_ROLE__MOVE_DST,
			       DROVER__MOVE_PHASE__DST_CONTINUING),
			 0);
	assert_int_equal(speak(c, "node3", 3, NULL, 0, 0, SILENT), 0);
	assert_int_equal(audit_end(c), 0);
	assert_string_equal(core_vm(c, "vm1").owner, "node2");
	assert_true(core_vm(c, "vm1").generation > g);
	assert_int_equal(core_attempt(c, id, 1).decision, DROVER__MOVE_DECISION__DECISION_COMMIT);
}

/* The attempt was aborted, and the VM has gone elsewhere since; the destination heard of neither. */
static void test_gone_elsewhere(void **state)
{
	struct core *c = *state;
	uint64_t id = moving(c);
	uint64_t g = core_vm(c, "vm1").generation;

	assert_int_equal(begin(c, 2), 0);
	sessions(c);
	assert_int_equal(speak(c, "node1", 1, NULL, 0, 0, SILENT), 0);
	assert_int_equal(speak(c, "node2", 2, NULL, 0, 0, id, DROVER__MOVE_ROLE__MOVE_DST,
			       DROVER__MOVE_PHASE__DST_COMPLETED),
			 0);
	assert_int_equal(speak(c, "node3", 3, "vm1", g + 1, DROVER__VM_STATE__VM_RUNNING, SILENT), 0);
	assert_int_equal(audit_end(c), 0);
	assert_string_equal(core_vm(c, "vm1").owner, "node3");
	assert_int_equal(core_attempt(c, id, 1).decision, DROVER__MOVE_DECISION__DECISION_ABORT);
	assert_true(core_attempt(c, id, 1).src_gone);
}

/* The state is from before the move: both sides gave their word, and wait for somebody who knows of it. */
static void test_unknown_move(void **state)
{
	struct core *c = *state;
	uint64_t id = c->index + 5000;

	assert_int_equal(begin(c, 2), 0);
	sessions(c);
	assert_int_equal(speak(c, "node2", 2, NULL, 0, 0, id, DROVER__MOVE_ROLE__MOVE_DST,
			       DROVER__MOVE_PHASE__DST_COMPLETED),
			 0);
	assert_int_equal(speak(c, "node1", 1, "vm1", core_vm(c, "vm1").generation,
			       DROVER__VM_STATE__VM_PAUSED, id, DROVER__MOVE_ROLE__MOVE_SRC,
			       DROVER__MOVE_PHASE__SRC_RELEASED),
			 0);
	assert_int_equal(speak(c, "node3", 3, NULL, 0, 0, SILENT), 0);
	assert_int_equal(audit_end(c), 0);
	assert_int_equal(core_attempt(c, id, 1).decision, DROVER__MOVE_DECISION__DECISION_ABORT);
	assert_string_equal(core_attempt(c, id, 1).src, "node1");
	assert_string_equal(core_attempt(c, id, 1).dst, "node2");
	assert_false(core_attempt(c, id, 1).src_gone);
	assert_false(core_attempt(c, id, 1).dst_gone);
	assert_string_equal(core_vm(c, "vm1").owner, "node1");
	assert_true(core_vm(c, "vm1").move == id);
	assert_int_equal(core_src(c, "node1", 1, id, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	assert_string_equal(core_move(c, id).state, "cancelled");
	/* An id that the lost majority gave is not given again (R6). */
	assert_int_equal(core_move_create(c, "vm1", ""), 0);
	assert_true(c->last.object_id > c->index + 5000);
}

/* A second attempt was begun behind this state: the first one's sides have nothing left. */
static void test_unknown_attempt(void **state)
{
	struct core *c = *state;
	uint64_t id = moving(c);

	assert_int_equal(begin(c, 2), 0);
	sessions(c);
	second_attempt = true;
	assert_int_equal(speak(c, "node1", 1, "vm1", core_vm(c, "vm1").generation,
			       DROVER__VM_STATE__VM_PAUSED, id, DROVER__MOVE_ROLE__MOVE_SRC,
			       DROVER__MOVE_PHASE__SRC_RELEASED),
			 0);
	assert_int_equal(speak(c, "node3", 3, NULL, 0, 0, id, DROVER__MOVE_ROLE__MOVE_DST,
			       DROVER__MOVE_PHASE__DST_CONTINUING),
			 0);
	second_attempt = false;
	assert_int_equal(speak(c, "node2", 2, NULL, 0, 0, SILENT), 0);
	assert_int_equal(audit_end(c), 0);
	assert_int_equal(core_attempt(c, id, 1).decision, DROVER__MOVE_DECISION__DECISION_ABORT);
	assert_true(core_attempt(c, id, 1).src_gone);
	assert_true(core_attempt(c, id, 1).dst_gone);
	assert_int_equal(core_attempt(c, id, 2).decision, DROVER__MOVE_DECISION__DECISION_COMMIT);
	assert_string_equal(core_vm(c, "vm1").owner, "node3");
	assert_string_equal(core_move(c, id).state, "committed");
}

/* Whoever says that an attempt of vm1's move was about another VM does not change the move. */
static void test_another_vm_in_a_known_move(void **state)
{
	struct core *c = *state;
	uint64_t id = moving(c);

	core_vm_run(c, "vm2", 102, "node2", 2, 128 * MIB, 0);
	assert_int_equal(begin(c, 2), 0);
	sessions(c);
	second_attempt = true;
	moved_vm = "vm2";
	assert_int_equal(speak(c, "node2", 2, "vm2", core_vm(c, "vm2").generation,
			       DROVER__VM_STATE__VM_PAUSED, id, DROVER__MOVE_ROLE__MOVE_SRC,
			       DROVER__MOVE_PHASE__SRC_RELEASED),
			 0);
	second_attempt = false;
	moved_vm = "vm1";
	assert_int_equal(core_move(c, id).attempt, 1);
	assert_false(db_exists(c->db, "SELECT 1 FROM move_attempt WHERE vm = 'vm2'", ""));
	assert_true(core_vm(c, "vm2").move == 0);
}

static void test_unknown_words(void **state)
{
	struct core *c = *state;
	uint64_t id = moving(c);
	uint64_t g = core_vm(c, "vm1").generation;

	assert_int_equal(begin(c, 2), 0);
	sessions(c);
	assert_int_equal(speak(c, "node1", 1, "vm1", g, (Drover__VmState)99, SILENT), 6);
	assert_int_equal(
		speak(c, "node1", 1, NULL, 0, 0, id, DROVER__MOVE_ROLE__MOVE_SRC, (Drover__MovePhase)99), 6);
	assert_int_equal(speak(c, "node1", 1, NULL, 0, 0, id, DROVER__MOVE_ROLE__MOVE_SRC,
			       DROVER__MOVE_PHASE__DST_RUNNING),
			 6);
	assert_int_equal(
		speak(c, "node1", 1, NULL, 0, 0, id, (Drover__MoveRole)7, DROVER__MOVE_PHASE__DST_RUNNING),
		6);
	assert_int_equal(core_attempt(c, id, 1).src_phase, DROVER__MOVE_PHASE__PHASE_NONE);
	assert_int_equal(audit_end(c), 6); /* node1 has not spoken */
}

/* An abort that was heard everywhere, but not noted here: later attempts have raised the agents' floors, so
 * they would not answer for it. */
static void test_decided_and_over(void **state)
{
	struct core *c = *state;
	uint64_t id = moving(c);

	assert_int_equal(core_abort(c, id, 1, DROVER__CMD_MOVE_ABORT__OUTCOME__FAIL), 0);
	assert_string_equal(core_move(c, id).state, "cancelling");
	assert_int_equal(begin(c, 2), 0);
	sessions(c);
	assert_int_equal(speak(c, "node1", 1, "vm1", core_vm(c, "vm1").generation,
			       DROVER__VM_STATE__VM_RUNNING, SILENT),
			 0);
	assert_int_equal(speak(c, "node2", 2, NULL, 0, 0, id, DROVER__MOVE_ROLE__MOVE_DST,
			       DROVER__MOVE_PHASE__DST_ABORTING),
			 0);
	assert_int_equal(speak(c, "node3", 3, NULL, 0, 0, SILENT), 0);
	assert_int_equal(audit_end(c), 0);
	assert_true(core_attempt(c, id, 1).src_gone);
	assert_false(core_attempt(c, id, 1).dst_gone);
	assert_string_equal(core_move(c, id).state, "failed");
}

/* Nothing decides an attempt by a side door; a word counts as long as its session. */
static void test_side_doors(void **state)
{
	struct core *c = *state;
	uint64_t id = moving(c);
	CORE_BODY(cancel, move_cancel, MOVE_CANCEL, move_cancel, Drover__CmdMoveCancel,
		  drover__cmd_move_cancel);
	CORE_BODY(resume, admin, NODE_ADMIN, node_admin, Drover__CmdNodeAdmin, drover__cmd_node_admin);
	CORE_BODY(lost, session, NODE_SESSION, node_session, Drover__CmdNodeSession,
		  drover__cmd_node_session);
	CORE_BODY(fence, fenced, NODE_FENCED, node_fenced, Drover__CmdNodeFenced, drover__cmd_node_fenced);

	fenced.node = (char *)"node3";
	fenced.proof = (char *)"operator";
	assert_int_equal(core_apply(c, &fence), 0); /* before the audit */
	assert_int_equal(begin(c, 2), 0);
	move_cancel.move = id;
	assert_int_equal(core_apply(c, &cancel), 6);
	admin.node = (char *)"node1";
	assert_int_equal(core_apply(c, &resume), 6);
	{
		static char *const names[] = {"node1", "node2"};

		for (uint8_t i = 0; i < 2; i++) {
			CORE_BODY(cmd, body, NODE_SESSION, node_session, Drover__CmdNodeSession,
				  drover__cmd_node_session);
			body.node = names[i];
			body.boot_id = core_bytes((uint8_t)(i + 1));
			body.start_id = core_bytes((uint8_t)(i + 1));
			body.coordinator = (char *)"node1";
			assert_int_equal(core_apply(c, &cmd), 0);
			assert_int_equal(speak(c, names[i], (uint8_t)(i + 1), NULL, 0, 0, SILENT), 0);
		}
	}
	assert_int_equal(audit_end(c), 6);
	assert_int_equal(core_apply(c, &fence), 0); /* again: now it is not waited for */
	session.node = (char *)"node1";
	session.start_id = core_bytes(1);
	assert_int_equal(core_apply(c, &lost), 0);
	assert_int_equal(audit_end(c), 6);
	assert_non_null(strstr(c->last.message, "node1"));
}

/* What is not waited for, or is of no use: remnants, other sides, attempts that are decided or unknown. */
static void test_words_of_no_use(void **state)
{
	struct core *c = *state;
	uint64_t g = core_vm(c, "vm1").generation;
	uint64_t decided;
	uint64_t id;

	assert_int_equal(speak(c, "node1", 1, NULL, 0, 0, SILENT), 6); /* no audit goes on */
	assert_int_equal(audit_end(c), 0);
	assert_false(c->last.changed);
	decided = moving(c);
	assert_int_equal(core_abort(c, decided, 1, DROVER__CMD_MOVE_ABORT__OUTCOME__CANCEL), 0);
	assert_int_equal(core_src(c, "node1", 1, decided, 1, DROVER__MOVE_PHASE__PHASE_GONE), 0);
	assert_int_equal(core_move_create(c, "vm1", ""), 0);
	id = c->last.object_id;
	assert_int_equal(core_assign(c, id, "node3"), 0);
	assert_int_equal(begin(c, UINT64_C(5) << 48 | 77), 0); /* people read its count alone */
	assert_true(
		db_exists(c->db, "SELECT 1 FROM event WHERE text LIKE 'incarnation 5 of the cluster%'", ""));
	sessions(c);
	assert_int_equal(speak(c, "node9", 1, NULL, 0, 0, SILENT), 4);
	assert_int_equal(speak(c, "node2", 1, NULL, 0, 0, SILENT), 6);
	/* vm1 as node2 once had it, and of the same generation: node1 speaks for it. */
	assert_int_equal(speak(c, "node2", 2, "vm1", g, DROVER__VM_STATE__VM_RUNNING, decided,
			       DROVER__MOVE_ROLE__MOVE_DST, DROVER__MOVE_PHASE__DST_RUNNING),
			 0);
	assert_string_equal(core_vm(c, "vm1").owner, "node1");
	assert_int_not_equal(core_attempt(c, decided, 1).dst_phase, DROVER__MOVE_PHASE__DST_RUNNING);
	/* Not its side. */
	assert_int_equal(speak(c, "node2", 2, "vm1", g - 1, DROVER__VM_STATE__VM_RUNNING, id,
			       DROVER__MOVE_ROLE__MOVE_DST, DROVER__MOVE_PHASE__DST_RUNNING),
			 0);
	assert_int_equal(core_attempt(c, id, 1).dst_phase, DROVER__MOVE_PHASE__PHASE_NONE);
	assert_int_equal(speak(c, "node3", 3, NULL, 0, 0, 4711, DROVER__MOVE_ROLE__MOVE_DST,
			       DROVER__MOVE_PHASE__DST_LOADING),
			 0);
	assert_true(db_exists(
		c->db, "SELECT 1 FROM event WHERE text LIKE '%that this state does not know (4711)'", ""));
	assert_int_equal(audit_end(c), 6);
	assert_int_equal(speak(c, "node1", 1, "vm1", g, DROVER__VM_STATE__VM_RUNNING, SILENT), 0);
	assert_int_equal(core_move_create(c, "vm1", ""), 6); /* it has not ended */
	assert_non_null(strstr(c->last.message, "waiting for the word of the last host"));
	assert_int_equal(audit_end(c), 0);
	assert_int_equal(core_attempt(c, id, 1).decision, DROVER__MOVE_DECISION__DECISION_ABORT);
}

/* The source gave its word, and the VM is at a third host by now: the source must quit, and the destination,
 * which never went on, hear of no commit. */
static void test_elsewhere_after_the_word(void **state)
{
	struct core *c = *state;
	uint64_t id = moving(c);
	uint64_t g = core_vm(c, "vm1").generation;

	assert_int_equal(begin(c, 2), 0);
	sessions(c);
	assert_int_equal(speak(c, "node1", 1, NULL, 0, 0, id, DROVER__MOVE_ROLE__MOVE_SRC,
			       DROVER__MOVE_PHASE__SRC_RELEASED),
			 0);
	assert_int_equal(speak(c, "node2", 2, NULL, 0, 0, id, DROVER__MOVE_ROLE__MOVE_DST,
			       DROVER__MOVE_PHASE__DST_COMPLETED),
			 0);
	assert_int_equal(speak(c, "node3", 3, "vm1", g + 2, DROVER__VM_STATE__VM_RUNNING, SILENT), 0);
	assert_int_equal(audit_end(c), 0);
	assert_string_equal(core_vm(c, "vm1").owner, "node3");
	assert_int_equal(core_attempt(c, id, 1).decision, DROVER__MOVE_DECISION__DECISION_COMMIT);
	assert_true(core_attempt(c, id, 1).dst_gone && !core_attempt(c, id, 1).src_gone);
}

/* The new generation is where the attempt led to, but the destination says that it never went on: another
 * way led there. */
static void test_there_by_another_way(void **state)
{
	static const Drover__MovePhase phases[] = {DROVER__MOVE_PHASE__DST_ABORTING,
						   DROVER__MOVE_PHASE__DST_PREPARED,
						   DROVER__MOVE_PHASE__DST_RUNNING};

	for (int i = 0; i < 3; i++) {
		struct core *c = *state;
		uint64_t id = moving(c);
		uint64_t g = core_vm(c, "vm1").generation;

		assert_int_equal(begin(c, 2), 0);
		sessions(c);
		assert_int_equal(speak(c, "node1", 1, NULL, 0, 0, SILENT), 0);
		assert_int_equal(speak(c, "node2", 2, "vm1", g + 1, DROVER__VM_STATE__VM_RUNNING, id,
				       DROVER__MOVE_ROLE__MOVE_DST, phases[i]),
				 0);
		assert_int_equal(speak(c, "node3", 3, NULL, 0, 0, SILENT), 0);
		assert_int_equal(audit_end(c), 0);
		assert_string_equal(core_vm(c, "vm1").owner, "node2");
		assert_int_equal(core_attempt(c, id, 1).decision,
				 i == 2 ? DROVER__MOVE_DECISION__DECISION_COMMIT
					: DROVER__MOVE_DECISION__DECISION_ABORT);
		core_teardown(state);
		core_setup(state);
	}
}

/* More attempts and more fenced hosts than one query brings. */
static void test_crowd(void **state)
{
	struct core *c = *state;
	char *mask[1] = {(char *)"max_moves"};
	char name[16];

	CORE_BODY(limit, set, LIMIT_SET, limit_set, Drover__LimitSet, drover__limit_set);
	set.max_moves = 64;
	set.mask = mask;
	set.n_mask = 1;
	core_done(c, &limit);
	for (uint8_t i = 0; i < 72; i++) {
		static const char *const names[] = {"node1", "node2", "node3"};
		uint8_t from = i % 3;

		snprintf(name, sizeof(name), "v%u", i);
		core_vm_run(c, name, (uint8_t)(110 + i), names[from], (uint8_t)(from + 1), MIB, 0);
		assert_int_equal(core_move_create(c, name, ""), 0);
		assert_int_equal(core_assign(c, c->last.object_id, names[(i + 1) % 3]), 0);
		snprintf(name, sizeof(name), "host%u", i);
		core_node(c, name, (uint8_t)(120 + i));
	}
	assert_int_equal(begin(c, 2), 0);
	sessions(c);
	for (uint8_t i = 0; i < 72; i++) {
		CORE_BODY(cmd, body, NODE_FENCED, node_fenced, Drover__CmdNodeFenced,
			  drover__cmd_node_fenced);
		snprintf(name, sizeof(name), "host%u", i);
		body.node = name;
		body.proof = (char *)"operator";
		core_done(c, &cmd);
	}
	for (uint8_t i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "node%d", i + 1);
		assert_int_equal(speak(c, name, (uint8_t)(i + 1), NULL, 0, 0, SILENT), 0);
	}
	assert_int_equal(audit_end(c), 0);
	assert_int_equal(db_get_u64(c->db, "SELECT count(*) FROM move_attempt WHERE decision = 2", ""), 72);
	assert_int_equal(db_get_u64(c->db, "SELECT count(*) FROM node WHERE audited <> 1", ""), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_highest_generation_wins, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_nobody_has_it, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_lost_commit, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_undecided, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_copy_may_have_run, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_commit_on_the_way, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_gone_elsewhere, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_unknown_move, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_unknown_attempt, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_another_vm_in_a_known_move, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_unknown_words, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_decided_and_over, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_side_doors, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_words_of_no_use, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_elsewhere_after_the_word, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_there_by_another_way, core_setup, core_teardown),
		cmocka_unit_test_setup_teardown(test_crowd, core_setup, core_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
