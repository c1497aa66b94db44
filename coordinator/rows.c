#include "coordinator/rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mutant.h"
#include "coordinator/limits.h"
#include "coordinator/msg.h"

static bool get_id(struct db_rows *rows, int col, uint8_t id[ROWS_ID])
{
	size_t size;
	const void *bytes = db_blob(rows, col, &size);

	memset(id, 0, ROWS_ID);
	if (size != ROWS_ID)
		return false;
	memcpy(id, bytes, ROWS_ID);
	return true;
}

void rows_node_get(struct db_rows *rows, struct node_row *out)
{
	uint8_t leaving[ROWS_ID];

	db_copy_text(rows, 0, out->name, sizeof(out->name));
	out->incarnation = db_u64(rows, 1);
	out->has_boot = get_id(rows, 2, out->boot_id);
	out->session = get_id(rows, 3, out->start_id);
	db_copy_text(rows, 4, out->coordinator, sizeof(out->coordinator));
	out->has_fenced = get_id(rows, 5, out->fenced_boot);
	out->leaving = get_id(rows, 6, leaving);
	out->paused = db_bool(rows, 7);
	out->quarantined = db_bool(rows, 8);
	db_copy_text(rows, 9, out->health, sizeof(out->health));
	db_copy_text(rows, 10, out->health_why, sizeof(out->health_why));
	out->memory_total = db_u64(rows, 11);
	out->changed = db_u64(rows, 12);
	out->fencing = db_u64(rows, 13);
}

void rows_vm_get(struct db_rows *rows, struct vm_row *out)
{
	db_copy_text(rows, 0, out->name, sizeof(out->name));
	get_id(rows, 1, out->uuid);
	db_copy_text(rows, 2, out->owner, sizeof(out->owner));
	out->generation = db_u64(rows, 3);
	out->state = (Drover__VmState)db_int(rows, 4);
	out->want = (Drover__VmWant)db_int(rows, 5);
	out->priority = (uint32_t)db_int(rows, 6);
	out->memory = db_u64(rows, 7);
	out->move = db_u64(rows, 8);
	db_copy_text(rows, 9, out->error, sizeof(out->error));
	out->changed = db_u64(rows, 10);
}

void rows_move_get(struct db_rows *rows, struct move_row *out)
{
	out->id = db_u64(rows, 0);
	db_copy_text(rows, 1, out->vm, sizeof(out->vm));
	out->drain = db_u64(rows, 2);
	db_copy_text(rows, 3, out->kind, sizeof(out->kind));
	db_copy_text(rows, 4, out->mode, sizeof(out->mode));
	db_copy_text(rows, 5, out->network, sizeof(out->network));
	db_copy_text(rows, 6, out->want_to, sizeof(out->want_to));
	out->priority = (uint32_t)db_int(rows, 7);
	out->memory = db_u64(rows, 8);
	db_copy_text(rows, 9, out->src, sizeof(out->src));
	db_copy_text(rows, 10, out->dst, sizeof(out->dst));
	db_copy_text(rows, 11, out->state, sizeof(out->state));
	out->attempt = (uint32_t)db_int(rows, 12);
	out->failures = (uint32_t)db_int(rows, 13);
	out->cancelled = db_bool(rows, 14);
	out->predicted_ms = db_u64(rows, 15);
	out->predicted_blackout_ms = db_u64(rows, 16);
	out->created_utc_us = db_u64(rows, 17);
	out->started_utc_us = db_u64(rows, 18);
	out->ended_utc_us = db_u64(rows, 19);
	out->exit = (uint32_t)db_int(rows, 20);
	db_copy_text(rows, 21, out->error, sizeof(out->error));
}

void rows_attempt_get(struct db_rows *rows, struct attempt_row *out)
{
	out->move = db_u64(rows, 0);
	out->attempt = (uint32_t)db_int(rows, 1);
	db_copy_text(rows, 2, out->vm, sizeof(out->vm));
	out->generation = db_u64(rows, 3);
	db_copy_text(rows, 4, out->src, sizeof(out->src));
	db_copy_text(rows, 5, out->dst, sizeof(out->dst));
	out->memory = db_u64(rows, 6);
	db_copy_text(rows, 7, out->mode, sizeof(out->mode));
	db_copy_text(rows, 8, out->network, sizeof(out->network));
	out->src_phase = (Drover__MovePhase)db_int(rows, 9);
	out->dst_phase = (Drover__MovePhase)db_int(rows, 10);
	out->src_gone = db_bool(rows, 11);
	out->dst_gone = db_bool(rows, 12);
	out->decision = (Drover__MoveDecision)db_int(rows, 13);
	out->outcome = (Drover__CmdMoveAbort__Outcome)db_int(rows, 14);
	out->relay_port = (uint32_t)db_int(rows, 15);
	out->token_request = (uint32_t)db_u64(rows, 16);
	out->token_granted = (uint32_t)db_u64(rows, 17);
	out->token_returned = db_bool(rows, 18);
	out->token_held = db_bool(rows, 19);
	db_copy_text(rows, 20, out->src_error, sizeof(out->src_error));
	db_copy_text(rows, 21, out->dst_error, sizeof(out->dst_error));
	out->error_exit = (uint32_t)db_u64(rows, 22);
	out->error_fatal = db_bool(rows, 23);
	db_copy_text(rows, 24, out->reason, sizeof(out->reason));
}

void rows_drain_get(struct db_rows *rows, struct drain_row *out)
{
	out->id = db_u64(rows, 0);
	db_copy_text(rows, 1, out->node, sizeof(out->node));
	db_copy_text(rows, 2, out->state, sizeof(out->state));
	out->best_effort = db_bool(rows, 3);
	out->shutdown_unmovable = db_bool(rows, 4);
	out->plan = db_u64(rows, 5);
	out->was_paused = db_bool(rows, 6);
	out->started_utc_us = db_u64(rows, 7);
	out->ended_utc_us = db_u64(rows, 8);
	db_copy_text(rows, 9, out->error, sizeof(out->error));
}

bool rows_node(struct db *db, const char *name, struct node_row *out)
{
	struct db_rows rows;

	db_query(db, &rows, "SELECT " NODE_COLUMNS " FROM node WHERE name = ?", "s", name);
	if (!db_next(&rows))
		return false;
	rows_node_get(&rows, out);
	db_done(&rows);
	return true;
}

bool rows_vm(struct db *db, const char *name, struct vm_row *out)
{
	struct db_rows rows;

	db_query(db, &rows, "SELECT " VM_COLUMNS " FROM vm WHERE name = ?", "s", name);
	if (!db_next(&rows))
		return false;
	rows_vm_get(&rows, out);
	db_done(&rows);
	return true;
}

bool rows_move(struct db *db, uint64_t id, struct move_row *out)
{
	struct db_rows rows;

	db_query(db, &rows, "SELECT " MOVE_COLUMNS " FROM move WHERE id = ?", "u", id);
	if (!db_next(&rows))
		return false;
	rows_move_get(&rows, out);
	db_done(&rows);
	return true;
}

bool rows_attempt(struct db *db, uint64_t move, uint32_t attempt, struct attempt_row *out)
{
	struct db_rows rows;

	db_query(db, &rows, "SELECT " ATTEMPT_COLUMNS " FROM move_attempt WHERE move = ? AND attempt = ?",
		 "uu", move, (uint64_t)attempt);
	if (!db_next(&rows))
		return false;
	rows_attempt_get(&rows, out);
	db_done(&rows);
	return true;
}

bool rows_drain(struct db *db, uint64_t id, struct drain_row *out)
{
	struct db_rows rows;

	db_query(db, &rows, "SELECT " DRAIN_COLUMNS " FROM drain WHERE id = ?", "u", id);
	if (!db_next(&rows))
		return false;
	rows_drain_get(&rows, out);
	db_done(&rows);
	return true;
}

bool rows_drain_of(struct db *db, const char *node, bool any, struct drain_row *out)
{
	struct db_rows rows;

	db_query(db, &rows,
		 "SELECT " DRAIN_COLUMNS
		 " FROM drain WHERE node = ? AND (? OR state IN ('running', 'paused'))"
		 " ORDER BY id DESC LIMIT 1",
		 "si", node, any ? 1 : 0);
	if (!db_next(&rows))
		return false;
	rows_drain_get(&rows, out);
	db_done(&rows);
	return true;
}

/* ---------------------------------------------------------------- stored messages */

/* The first column of the first row, unpacked; consumes the rows. */
static void *unpack(struct db *db, struct db_rows *rows, const ProtobufCMessageDescriptor *descriptor)
{
	const void *bytes;
	size_t size;
	void *message = NULL;

	if (db_next(rows)) {
		bytes = db_blob(rows, 0, &size);
		if (size > 0) {
			message = protobuf_c_message_unpack(descriptor, NULL, size, bytes);
			if (message == NULL)
				db_fail(db, DR_ECORRUPT, "state database: a stored %s is damaged",
					descriptor->short_name);
		}
	}
	db_done(rows);
	return message;
}

Drover__HostFacts *rows_facts(struct db *db, const char *node)
{
	struct db_rows rows;

	db_query(db, &rows, "SELECT facts FROM node WHERE name = ?", "s", node);
	return unpack(db, &rows, &drover__host_facts__descriptor);
}

Drover__VmSpec *rows_spec(struct db *db, const char *vm)
{
	struct db_rows rows;

	db_query(db, &rows, "SELECT spec FROM vm WHERE name = ?", "s", vm);
	return unpack(db, &rows, &drover__vm_spec__descriptor);
}

Drover__LaunchRecord *rows_launch(struct db *db, const char *vm)
{
	struct db_rows rows;

	db_query(db, &rows, "SELECT launch FROM vm WHERE name = ?", "s", vm);
	return unpack(db, &rows, &drover__launch_record__descriptor);
}

Drover__MoveStats *rows_stats(struct db *db, uint64_t move, uint32_t attempt)
{
	struct db_rows rows;

	db_query(db, &rows, "SELECT stats FROM move_attempt WHERE move = ? AND attempt = ?", "uu", move,
		 (uint64_t)attempt);
	return unpack(db, &rows, &drover__move_stats__descriptor);
}

Drover__MoveOrder *rows_paths(struct db *db, uint64_t move, uint32_t attempt)
{
	struct db_rows rows;

	db_query(db, &rows, "SELECT paths FROM move_attempt WHERE move = ? AND attempt = ?", "uu", move,
		 (uint64_t)attempt);
	return unpack(db, &rows, &drover__move_order__descriptor);
}

Drover__MoveFact *rows_proofs(struct db *db, uint64_t move, uint32_t attempt)
{
	struct db_rows rows;

	db_query(db, &rows, "SELECT proofs FROM move_attempt WHERE move = ? AND attempt = ?", "uu", move,
		 (uint64_t)attempt);
	return unpack(db, &rows, &drover__move_fact__descriptor);
}

/* ---------------------------------------------------------------- cluster */

char *rows_meta(struct db *db, const char *key, char *buf, size_t size)
{
	struct db_rows rows;

	buf[0] = '\0';
	db_query(db, &rows, "SELECT value FROM meta WHERE key = ?", "s", key);
	if (db_next(&rows))
		db_copy_text(&rows, 0, buf, size);
	db_done(&rows);
	return buf;
}

bool rows_cluster_uuid(struct db *db, uint8_t uuid[ROWS_ID])
{
	char hex[2 * ROWS_ID + 1];

	rows_meta(db, "uuid", hex, sizeof(hex));
	if (strlen(hex) != 2 * ROWS_ID)
		return false;
	for (int i = 0; i < ROWS_ID; i++) {
		char pair[3] = {hex[2 * i], hex[2 * i + 1], '\0'};

		uuid[i] = (uint8_t)strtoul(pair, NULL, 16);
	}
	return true;
}

uint64_t rows_cluster_incarnation(struct db *db)
{
	return db_get_u64(db, "SELECT value FROM counter WHERE name = 'incarnation'", "");
}

unsigned rows_cluster_version(struct db *db)
{
	uint64_t version = db_get_u64(db, "SELECT value FROM counter WHERE name = 'version'", "");

	return version != 0 ? (unsigned)version : 1;
}

bool rows_limit_own(struct db *db, const char *scope, const char *name, const char *key)
{
	return db_exists(db, "SELECT 1 FROM setting WHERE scope = ? AND name = ? AND key = ?", "sss", scope,
			 name, key);
}

char *rows_limit_text(struct db *db, const char *scope, const char *name, const char *key, char *buf,
		      size_t size)
{
	struct db_rows rows;
	const struct limit_key *known = limits_key(key);

	snprintf(buf, size, "%s", known != NULL ? known->def : "");
	db_query(db, &rows,
		 "SELECT value FROM setting WHERE key = ? AND (scope = ? AND name = ? OR scope = 'cluster')"
		 " ORDER BY scope = 'cluster' LIMIT 1",
		 "sss", key, scope, name);
	if (db_next(&rows))
		db_copy_text(&rows, 0, buf, size);
	db_done(&rows);
	return buf;
}

uint64_t rows_limit(struct db *db, const char *scope, const char *name, const char *key)
{
	char text[64];

	return strtoull(rows_limit_text(db, scope, name, key, text, sizeof(text)), NULL, 10);
}

/* ---------------------------------------------------------------- what rows mean together */

unsigned rows_slots(struct db *db, const char *node)
{
	if (DR_MUTANT(incoming_free))
		return (unsigned)db_get_u64(
			db, "SELECT count(*) FROM move_attempt WHERE src_gone = 0 AND src = ?", "s", node);
	/* By its own report or its fencing (SAFETY R21); and a committed move counts on both hosts until both
	 * have cleaned up, so that the records never show more at once than was allowed, unless the other
	 * host is away. */
	return (unsigned)db_get_u64(
		db,
		"SELECT (SELECT count(*) FROM move_attempt WHERE (src_gone = 0 AND src = ?) OR (dst_gone = 0 "
		"AND "
		"src = ? AND decision = 1 AND dst IN (SELECT name FROM node WHERE start_id <> x'')))"
		" + (SELECT count(*) FROM move_attempt WHERE (dst_gone = 0 AND dst = ?) OR (src_gone = 0 AND "
		"dst = ? AND decision = 1 AND src IN (SELECT name FROM node WHERE start_id <> x'')))",
		"ssss", node, node, node, node);
}

unsigned rows_slots_cluster(struct db *db)
{
	return (unsigned)db_get_u64(
		db, "SELECT count(*) FROM move_attempt WHERE src_gone = 0 OR dst_gone = 0", "");
}

uint64_t rows_memory_promised(struct db *db, const char *node)
{
	/* 1 and 6: VM_STOPPED, VM_FAILED. 1: DECISION_COMMIT, after which the VM is the owner's. */
	return db_get_u64(
		db,
		"SELECT coalesce((SELECT sum(memory) FROM vm WHERE owner = ? AND state NOT IN (1, 5, 6)), 0)"
		" + coalesce((SELECT sum(memory) FROM move_attempt"
		" WHERE dst_gone = 0 AND dst = ? AND decision <> 1), 0)",
		"ss", node, node);
}

bool rows_node_works(const struct node_row *node)
{
	return node->session && !node->leaving && !node->quarantined && strcmp(node->health, "up") == 0 &&
	       node->fencing == 0;
}

bool rows_node_barred(const struct node_row *node)
{
	return (node->fencing != 0 && !DR_MUTANT(lease_while_fencing)) ||
	       (node->has_fenced && node->has_boot && memcmp(node->fenced_boot, node->boot_id, ROWS_ID) == 0);
}

char *rows_fence_spec(struct db *db, const char *node)
{
	struct db_rows rows;
	char *spec = NULL;

	db_query(db, &rows, "SELECT value FROM setting WHERE scope = 'node' AND name = ? AND key = 'fence'",
		 "s", node);
	if (db_next(&rows))
		spec = msg_dup(db_text(&rows, 0));
	db_done(&rows);
	return spec;
}

bool rows_request(struct db *db, const ProtobufCBinaryData *id)
{
	return id->len > 0 &&
	       db_exists(db, "SELECT 1 FROM request WHERE id = ?", "b", (const void *)id->data, id->len);
}

bool rows_vm_off(const struct vm_row *vm)
{
	return vm->state == DROVER__VM_STATE__VM_STOPPED || vm->state == DROVER__VM_STATE__VM_FAILED;
}

bool rows_both_words(const struct attempt_row *a)
{
	if (DR_MUTANT(commit_one_word))
		return a->dst_phase == DROVER__MOVE_PHASE__DST_COMPLETED;
	return a->src_phase == DROVER__MOVE_PHASE__SRC_RELEASED &&
	       a->dst_phase == DROVER__MOVE_PHASE__DST_COMPLETED && !a->src_gone && !a->dst_gone &&
	       a->dst_error[0] == '\0';
}

bool rows_move_ended(const char *state)
{
	return strcmp(state, "done") == 0 || strcmp(state, "failed") == 0 || strcmp(state, "cancelled") == 0;
}

const char *rows_node_state(struct db *db, const struct node_row *node)
{
	struct drain_row drain;

	if (node->quarantined)
		return "quarantined";
	if (strcmp(node->health, "up") != 0)
		return strcmp(node->health, "isolated") == 0 ? "isolated" : "down";
	if (rows_drain_of(db, node->name, false, &drain))
		return "draining";
	if (!node->paused)
		return "up";
	return db_exists(db, "SELECT 1 FROM vm WHERE owner = ?", "s", node->name) ? "paused" : "drained";
}

static bool vm_is_moving(struct db *db, const struct vm_row *vm)
{
	struct move_row move;

	return vm->move != 0 && rows_move(db, vm->move, &move) && strcmp(move.state, "queued") != 0;
}

const char *rows_vm_state(struct db *db, const struct vm_row *vm)
{
	struct node_row node;

	if (vm_is_moving(db, vm))
		return "moving";
	switch (vm->state) {
	case DROVER__VM_STATE__VM_STOPPED:
		return "stopped";
	case DROVER__VM_STATE__VM_FAILED:
		return "failed";
	case DROVER__VM_STATE__VM_SAVED:
		return "saved";
	case DROVER__VM_STATE__VM_STARTING:
	case DROVER__VM_STATE__VM_RUNNING:
	case DROVER__VM_STATE__VM_PAUSED:
		/* An expired lease proves nothing (SAFETY R9): nobody knows. */
		if (rows_node(db, vm->owner, &node) && strcmp(node.health, "down") == 0)
			return "unknown";
		if (vm->state == DROVER__VM_STATE__VM_STARTING)
			return "starting";
		return vm->state == DROVER__VM_STATE__VM_RUNNING ? "running" : "paused";
	case DROVER__VM_STATE__VM_STATE_UNKNOWN:
	case _DROVER__VM_STATE_IS_INT_SIZE:
		break;
	}
	return "unknown";
}

bool rows_has_coordinator(struct db *db, const char *node)
{
	return db_exists(db, "SELECT 1 FROM member WHERE node = ? AND removed = 0", "s", node);
}

bool rows_audit(struct db *db)
{
	return !DR_MUTANT(no_audit) && db_exists(db, "SELECT 1 FROM meta WHERE key = 'audit'", "");
}

void rows_unaudited(struct db *db, char *names, size_t size)
{
	struct db_rows rows;
	size_t used = 0;

	names[0] = '\0';
	db_query(db, &rows, "SELECT name FROM node WHERE audited = 0 ORDER BY name", "");
	while (db_next(&rows) && used + ROWS_NAME + 3 < size) {
		char name[ROWS_NAME];

		db_copy_text(&rows, 0, name, sizeof(name));
		used += (size_t)snprintf(names + used, size - used, "%s%s", used > 0 ? ", " : "", name);
	}
	db_done(&rows);
}
