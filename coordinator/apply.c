#include "coordinator/apply.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/mutant.h"
#include "coordinator/apply_private.h"
#include "coordinator/msg.h"

void apply_refuse(struct apply *a, uint32_t exit, const char *fmt, ...)
{
	va_list ap;

	a->out->exit = exit;
	va_start(ap, fmt);
	vsnprintf(a->out->message, sizeof(a->out->message), fmt, ap);
	va_end(ap);
}

void apply_message(struct apply *a, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(a->out->message, sizeof(a->out->message), fmt, ap);
	va_end(ap);
}

void apply_touch(struct apply *a, const char *node)
{
	struct apply_result *out = a->out;

	for (unsigned i = 0; i < out->n_touched; i++) {
		if (strcmp(out->touched[i], node) == 0)
			return;
	}
	if (node[0] == '\0')
		return;
	if (out->n_touched == APPLY_TOUCHED_MAX)
		out->touched_all = true;
	else
		snprintf(out->touched[out->n_touched++], sizeof(out->touched[0]), "%s", node);
}

void apply_event(struct apply *a, const char *kind, struct about about, const char *fmt, ...)
{
	char text[APPLY_MESSAGE];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	db_exec(a->db,
		"INSERT INTO event (idx, seq, utc_us, kind, node, vm, move, drain, text)"
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
		"uuusssuus", a->index, (uint64_t)a->out->events, a->utc_us, kind, about.node, about.vm,
		about.move, about.drain, text);
	a->out->events++;
}

void apply_object(struct apply *a, const char *kind, uint64_t id, const char *name)
{
	snprintf(a->out->object_kind, sizeof(a->out->object_kind), "%s", kind);
	snprintf(a->out->object_name, sizeof(a->out->object_name), "%s", name);
	a->out->object_id = id;
}

static void set_counter(struct db *db, const char *name, uint64_t value)
{
	db_exec(db,
		"INSERT INTO counter (name, value) VALUES (?, ?)"
		" ON CONFLICT (name) DO UPDATE SET value = excluded.value",
		"su", name, value);
}

uint64_t apply_new_id(struct apply *a, const char *kind)
{
	uint64_t last = db_get_u64(a->db, "SELECT value FROM counter WHERE name = ?", "s", kind);
	uint64_t id = DR_MUTANT(ids_reused) ? 1 + last % 3 : last >= a->index ? last + 1 : a->index;

	set_counter(a->db, kind, id);
	return id;
}

bool apply_need_node(struct apply *a, const char *name, struct node_row *out)
{
	if (rows_node(a->db, name, out))
		return true;
	apply_refuse(a, DR_ENOENT, "no node '%.64s'", name);
	return false;
}

bool apply_need_vm(struct apply *a, const char *name, struct vm_row *out)
{
	if (rows_vm(a->db, name, out))
		return true;
	apply_refuse(a, DR_ENOENT, "no VM '%.64s'", name);
	return false;
}

uint64_t apply_index(struct db *db)
{
	return db_get_u64(db, "SELECT value FROM counter WHERE name = 'index'", "");
}

const char *apply_command_name(const Drover__Command *cmd)
{
	const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(
		&drover__command__descriptor, (unsigned)cmd->body_case);

	return cmd->body_case != DROVER__COMMAND__BODY__NOT_SET && field != NULL ? field->name : "?";
}

/* Returns false for a body that this program does not know. */
static bool dispatch(struct apply *a)
{
	const Drover__Command *c = a->cmd;

	switch (c->body_case) {
	case DROVER__COMMAND__BODY_INIT:
		return apply_init(a, c->init), true;
	case DROVER__COMMAND__BODY_SETTING:
		return apply_setting(a, c->setting), true;
	case DROVER__COMMAND__BODY_NODE_FACTS:
		return apply_node_facts(a, c->node_facts), true;
	case DROVER__COMMAND__BODY_NODE_SESSION:
		return apply_node_session(a, c->node_session), true;
	case DROVER__COMMAND__BODY_NODE_ADMIN:
		return apply_node_admin(a, c->node_admin), true;
	case DROVER__COMMAND__BODY_NODE_HEALTH:
		return apply_node_health(a, c->node_health), true;
	case DROVER__COMMAND__BODY_NODE_FENCED:
		return apply_node_fenced(a, c->node_fenced), true;
	case DROVER__COMMAND__BODY_NODE_SET:
		return apply_node_set(a, c->node_set), true;
	case DROVER__COMMAND__BODY_NODE_FENCING:
		return apply_node_fencing(a, c->node_fencing), true;
	case DROVER__COMMAND__BODY_NODE_LEAVING:
		return apply_node_leaving(a, c->node_leaving), true;
	case DROVER__COMMAND__BODY_NODE_REMOVE:
		return apply_node_remove(a, c->node_remove), true;
	case DROVER__COMMAND__BODY_VM_ADD:
		return apply_vm_add(a, c->vm_add), true;
	case DROVER__COMMAND__BODY_VM_SET:
		return apply_vm_set(a, c->vm_set), true;
	case DROVER__COMMAND__BODY_VM_REMOVE:
		return apply_vm_remove(a, c->vm_remove), true;
	case DROVER__COMMAND__BODY_VM_START:
		return apply_vm_start(a, c->vm_start), true;
	case DROVER__COMMAND__BODY_VM_STOP:
		return apply_vm_stop(a, c->vm_stop), true;
	case DROVER__COMMAND__BODY_VM_FACT:
		return apply_vm_fact(a, c->vm_fact), true;
	case DROVER__COMMAND__BODY_MOVE_CREATE:
		return apply_move_create(a, c->move_create), true;
	case DROVER__COMMAND__BODY_MOVE_ASSIGN:
		return apply_move_assign(a, c->move_assign), true;
	case DROVER__COMMAND__BODY_MOVE_FACT:
		return apply_move_fact(a, c->move_fact), true;
	case DROVER__COMMAND__BODY_MOVE_SWITCH:
		return apply_move_switch(a, c->move_switch), true;
	case DROVER__COMMAND__BODY_MOVE_COMMIT:
		return apply_move_commit(a, c->move_commit), true;
	case DROVER__COMMAND__BODY_MOVE_ABORT:
		return apply_move_abort(a, c->move_abort), true;
	case DROVER__COMMAND__BODY_MOVE_CANCEL:
		return apply_move_cancel(a, c->move_cancel), true;
	case DROVER__COMMAND__BODY_MOVE_FAIL:
		return apply_move_fail(a, c->move_fail), true;
	case DROVER__COMMAND__BODY_NETWORK_ORDER:
		return apply_network_order(a, c->network_order), true;
	case DROVER__COMMAND__BODY_NETWORK_VERB:
		return apply_network_verb(a, c->network_verb), true;
	case DROVER__COMMAND__BODY_LIMIT_SET:
		return apply_limit_set(a, c->limit_set), true;
	case DROVER__COMMAND__BODY_DRAIN_START:
		return apply_drain_start(a, c->drain_start), true;
	case DROVER__COMMAND__BODY_DRAIN_STATE:
		return apply_drain_state(a, c->drain_state), true;
	case DROVER__COMMAND__BODY_LEASE_ROUND:
		return true; /* its being committed is all that it says (SAFETY R8) */
	case DROVER__COMMAND__BODY_TRIM:
		return apply_trim(a, c->trim), true;
	case DROVER__COMMAND__BODY_MEMBER:
		return apply_member(a, c->member), true;
	case DROVER__COMMAND__BODY_TOKEN:
		return apply_token(a, c->token), true;
	case DROVER__COMMAND__BODY_CLUSTER_VERSION:
		return apply_cluster_version(a, c->cluster_version), true;
	case DROVER__COMMAND__BODY_EVENT:
		apply_event(a, c->event->kind,
			    (struct about){c->event->node, c->event->vm, c->event->move, c->event->drain},
			    "%s", c->event->text);
		return true;
	case DROVER__COMMAND__BODY_INCARNATION_BEGIN:
		return apply_incarnation(a, c->incarnation_begin), true;
	case DROVER__COMMAND__BODY_NODE_AUDIT:
		return apply_node_audit(a, c->node_audit), true;
	case DROVER__COMMAND__BODY_AUDIT_END:
		return apply_audit_end(a), true;
	case DROVER__COMMAND__BODY__NOT_SET:
	case _DROVER__COMMAND__BODY__CASE_IS_INT_SIZE:
		break;
	}
	return false;
}

/* A request that was applied before: its result again, and nothing else. */
static bool repeated(struct apply *a)
{
	const ProtobufCBinaryData *id = &a->cmd->request_id;
	struct db_rows rows;

	if (id->len == 0 || DR_MUTANT(request_twice))
		return false;
	db_query(a->db, &rows,
		 "SELECT exit, message, changed, object_kind, object_id, object_name FROM request WHERE id = "
		 "?",
		 "b", id->data, id->len);
	if (!db_next(&rows))
		return false;
	a->out->repeated = true;
	a->out->exit = (uint32_t)db_int(&rows, 0);
	db_copy_text(&rows, 1, a->out->message, sizeof(a->out->message));
	a->out->changed = db_bool(&rows, 2);
	db_copy_text(&rows, 3, a->out->object_kind, sizeof(a->out->object_kind));
	a->out->object_id = db_u64(&rows, 4);
	db_copy_text(&rows, 5, a->out->object_name, sizeof(a->out->object_name));
	db_done(&rows);
	return true;
}

static void record(struct apply *a)
{
	const Drover__Command *c = a->cmd;
	const struct apply_result *out = a->out;

	if (c->request_id.len > 0)
		db_exec(a->db,
			"INSERT INTO request (id, idx, exit, message, changed, object_kind, object_id, "
			"object_name)"
			" VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
			"buusisus", c->request_id.data, c->request_id.len, a->index, (uint64_t)out->exit,
			out->message, out->changed ? 1 : 0, out->object_kind, out->object_id,
			out->object_name);
	if (c->who[0] != '\0')
		db_exec(a->db,
			"INSERT INTO history (idx, utc_us, who, what, exit, message) VALUES (?, ?, ?, ?, ?, "
			"?)",
			"uussus", a->index, a->utc_us, c->who, c->what, (uint64_t)out->exit, out->message);
}

/* Commands of an older leader or of another incarnation of the cluster have lost their meaning. */
static bool outdated(struct apply *a)
{
	uint64_t term = db_get_u64(a->db, "SELECT value FROM counter WHERE name = 'term'", "");
	uint64_t incarnation = rows_cluster_incarnation(a->db);

	if (incarnation == 0 && a->cmd->body_case != DROVER__COMMAND__BODY_INIT) {
		apply_refuse(a, DR_EREFUSED, "the cluster is not initialised: run 'drover cluster init'");
		return true;
	}
	if (a->cmd->term != 0 && a->cmd->term < term) {
		apply_refuse(a, DR_EFAILED, "proposed by a leader that was replaced: try again"); /* R13 */
		return true;
	}
	if (a->cmd->incarnation != 0 && incarnation != 0 && a->cmd->incarnation != incarnation) {
		apply_refuse(a, DR_EREFUSED, "made for another incarnation of the cluster"); /* R18 */
		return true;
	}
	if (a->cmd->term > term)
		set_counter(a->db, "term", a->cmd->term);
	return false;
}

static bool body(struct apply *a)
{
	struct apply_result *out = a->out;
	bool found = true;

	if (repeated(a))
		return true;
	if (!outdated(a)) {
		db_savepoint(a->db);
		found = apply_audit_refuses(a) || dispatch(a);
		if (out->exit != 0) {
			db_savepoint_undo(a->db);
			out->changed = false;
			out->events = 0;
			out->n_touched = 0;
			out->touched_all = false;
			out->object_kind[0] = '\0';
			out->object_id = 0;
		} else {
			db_savepoint_keep(a->db);
		}
	}
	if (found)
		record(a);
	return found;
}

int apply_command(struct db *db, uint64_t index, const Drover__Command *cmd, struct apply_result *out,
		  struct dr_error *err)
{
	struct apply a = {.db = db, .index = index, .utc_us = cmd->utc_us, .cmd = cmd, .out = out};

	memset(out, 0, sizeof(*out));
	if (!DR_MUTANT(newer_applied) && (cmd->version == 0 || cmd->version > APPLY_VERSION ||
					  apply_needs(cmd) > APPLY_VERSION || !msg_known(cmd)))
		return dr_error_set(
			err, DR_EBUG,
			"log entry %llu needs a newer version of Drover (%u): upgrade this coordinator",
			(unsigned long long)index, cmd->version);
	if (db_begin(db) < 0)
		return db_failed(db, err);
	if (index <= apply_index(db))
		db_fail(db, DR_EBUG, "log entry %llu is applied twice", (unsigned long long)index);
	if (!body(&a)) {
		db_rollback(db);
		return dr_error_set(err, DR_EBUG,
				    "log entry %llu is of an unknown kind: upgrade this coordinator",
				    (unsigned long long)index);
	}
	set_counter(db, "index", index);
	if (db_commit(db) < 0)
		return db_failed(db, err);
	return 0;
}
