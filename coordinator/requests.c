#include "coordinator/requests.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/names.h"
#include "coordinator/limits.h"
#include "coordinator/requests_private.h"
#include "coordinator/requests_words.h"

#define RANK_MAX    65535
#define REQUEST_MAX 65536u

enum request_class request_class(const Drover__Request *request)
{
	switch (request->verb_case) {
	case DROVER__REQUEST__VERB_CLUSTER_STATUS:
	case DROVER__REQUEST__VERB_LIST:
	case DROVER__REQUEST__VERB_CLUSTER_CHECK:
		return REQUEST_READ;
	case DROVER__REQUEST__VERB_CLUSTER_INIT:
	case DROVER__REQUEST__VERB_CLUSTER_TOKEN:
	case DROVER__REQUEST__VERB_CLUSTER_JOIN:
	case DROVER__REQUEST__VERB_JOIN_REQUEST:
	case DROVER__REQUEST__VERB_CLUSTER_BACKUP:
	case DROVER__REQUEST__VERB_FORCE_QUORUM:
		return REQUEST_CLUSTER;
	case DROVER__REQUEST__VERB_NODE_VERB:
	case DROVER__REQUEST__VERB_NODE_SET:
	case DROVER__REQUEST__VERB_VM_ADD:
	case DROVER__REQUEST__VERB_VM_SET:
	case DROVER__REQUEST__VERB_VM_VERB:
	case DROVER__REQUEST__VERB_VM_MOVE:
	case DROVER__REQUEST__VERB_NETWORK_VERB:
	case DROVER__REQUEST__VERB_NETWORK_ORDER:
	case DROVER__REQUEST__VERB_LIMIT_SET:
	case DROVER__REQUEST__VERB_DRAIN_VERB:
	case DROVER__REQUEST__VERB_MOVE_VERB:
	case DROVER__REQUEST__VERB__NOT_SET:
	case _DROVER__REQUEST__VERB__CASE_IS_INT_SIZE:
		break;
	}
	return REQUEST_WRITE; /* an unknown verb is refused there */
}

/* ---------------------------------------------------------------- answers */

static Drover__Response *new_response(const Drover__Request *request)
{
	Drover__Response *r = MSG_NEW(drover__response, Drover__Response);

	if (request != NULL && request->id.len > 0)
		msg_set_bytes(&r->id, request->id.data, request->id.len);
	return r;
}

static Drover__Response *response_va(const Drover__Request *request, uint32_t exit, const char *fmt,
				     va_list ap)
{
	Drover__Response *r = new_response(request);
	char text[APPLY_MESSAGE];

	vsnprintf(text, sizeof(text), fmt, ap);
	r->exit = exit;
	msg_set(&r->message, text);
	return r;
}

Drover__Response *response_error(const Drover__Request *request, uint32_t exit, const char *fmt, ...)
{
	Drover__Response *r;
	va_list ap;

	va_start(ap, fmt);
	r = response_va(request, exit, fmt, ap);
	va_end(ap);
	return r;
}

void ask_refuse(struct ask *a, uint32_t exit, const char *fmt, ...)
{
	va_list ap;

	if (a->answer != NULL)
		return;
	va_start(ap, fmt);
	a->answer = response_va(a->request, exit, fmt, ap);
	va_end(ap);
}

void ask_unchanged(struct ask *a, const char *fmt, ...)
{
	va_list ap;

	if (a->answer != NULL)
		return;
	va_start(ap, fmt);
	a->answer = response_va(a->request, 0, fmt, ap);
	va_end(ap);
}

void ask_would(struct ask *a, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(a->would, sizeof(a->would), fmt, ap);
	va_end(ap);
}

/* ---------------------------------------------------------------- names */

static void unknown(struct ask *a, const char *what, const char *name, const char *sql)
{
	enum { MOST = 256 };
	char names[MOST][ROWS_NAME];
	const char *list[MOST];
	const char *near;
	struct db_rows rows;
	size_t n = 0;

	db_query(a->db, &rows, sql, "");
	while (n < MOST && db_next(&rows)) {
		db_copy_text(&rows, 0, names[n], ROWS_NAME);
		list[n] = names[n];
		n++;
	}
	db_done(&rows);
	near = names_nearest(name, list, n);
	if (near != NULL)
		ask_refuse(a, DR_ENOENT, "no %s '%.64s': did you mean '%s'?", what, name, near);
	else
		ask_refuse(a, DR_ENOENT, "no %s '%.64s' (drover %s list shows them all)", what, name,
			   strcmp(what, "VM") == 0 ? "vm" : what);
}

bool ask_node(struct ask *a, const char *name, struct node_row *out)
{
	if (rows_node(a->db, name, out))
		return true;
	unknown(a, "node", name, "SELECT name FROM node ORDER BY name");
	return false;
}

bool ask_vm(struct ask *a, const char *name, struct vm_row *out)
{
	if (rows_vm(a->db, name, out))
		return true;
	unknown(a, "VM", name, "SELECT name FROM vm ORDER BY name");
	return false;
}

bool ask_network(struct ask *a, const char *name)
{
	if (db_exists(a->db, "SELECT 1 FROM network WHERE name = ?", "s", name))
		return true;
	unknown(a, "network", name, "SELECT name FROM network ORDER BY name");
	return false;
}

/* ---------------------------------------------------------------- nodes */

static void ask_admin(struct ask *a, const char *node, bool paused, const char *failback)
{
	a->cmd->body_case = DROVER__COMMAND__BODY_NODE_ADMIN;
	a->cmd->node_admin = MSG_NEW(drover__cmd_node_admin, Drover__CmdNodeAdmin);
	msg_set(&a->cmd->node_admin->node, node);
	a->cmd->node_admin->paused = paused;
	msg_set(&a->cmd->node_admin->failback, failback);
	ask_would(a, "%s would be %s", node, paused ? "paused" : "resumed");
}

static void ask_remove(struct ask *a, const Drover__NodeVerb *verb)
{
	a->cmd->body_case = DROVER__COMMAND__BODY_NODE_REMOVE;
	a->cmd->node_remove = msg_clone(verb);
	ask_would(a, "%s would be removed", verb->node);
}

static void ask_node_verb(struct ask *a, const Drover__NodeVerb *verb)
{
	struct node_row node;

	if (verb->verb == DROVER__NODE_VERB__VERB__REMOVE && !rows_node(a->db, verb->node, &node) &&
	    rows_has_coordinator(a->db, verb->node)) {
		ask_remove(a, verb);
		return;
	}
	if (!ask_node(a, verb->node, &node))
		return;
	switch (verb->verb) {
	case DROVER__NODE_VERB__VERB__PAUSE:
		if (verb->drain)
			ask_drain_start(a, verb->node, verb->best_effort, verb->shutdown_unmovable);
		else if (node.paused)
			ask_unchanged(a, "%s is paused already", verb->node);
		else
			ask_admin(a, verb->node, true, "");
		return;
	case DROVER__NODE_VERB__VERB__RESUME:
		if (verb->failback[0] != '\0' && strcmp(verb->failback, "none") != 0 &&
		    strcmp(verb->failback, "immediate") != 0)
			ask_refuse(a, DR_EUSAGE, "failback '%.32s' is unknown: immediate or none",
				   verb->failback);
		else
			ask_admin(a, verb->node, false, verb->failback);
		return;
	case DROVER__NODE_VERB__VERB__FENCE:
		ask_fence(a, verb, &node);
		return;
	case DROVER__NODE_VERB__VERB__CLEAR_QUARANTINE:
		ask_unchanged(a, "%s is not in quarantine", verb->node);
		return;
	case DROVER__NODE_VERB__VERB__REMOVE:
		ask_remove(a, verb);
		return;
	case _DROVER__NODE_VERB__VERB_IS_INT_SIZE:
		break;
	}
	ask_refuse(a, DR_EUSAGE, "unknown node verb");
}

/* ---------------------------------------------------------------- networks and limits */

static void ask_network_order(struct ask *a, const Drover__NetworkOrder *order)
{
	if (order->n_ranks == 0) {
		ask_refuse(a, DR_EUSAGE, "no rank given: drover network order NET=RANK...");
		return;
	}
	for (size_t i = 0; i < order->n_ranks; i++) {
		if (!ask_network(a, order->ranks[i]->network))
			return;
		if (order->ranks[i]->rank < 1 || order->ranks[i]->rank > RANK_MAX) {
			ask_refuse(a, DR_EUSAGE, "the rank of %.64s must be from 1 to %d",
				   order->ranks[i]->network, RANK_MAX);
			return;
		}
	}
	a->cmd->body_case = DROVER__COMMAND__BODY_NETWORK_ORDER;
	a->cmd->network_order = msg_clone(order);
	ask_would(a, "%zu networks would get their rank", order->n_ranks);
}

static void ask_network_verb(struct ask *a, const Drover__NetworkVerb *verb)
{
	struct dr_error err = DR_ERROR_INIT;

	if (verb->verb == DROVER__NETWORK_VERB__VERB__PROBE) {
		ask_refuse(a, DR_EUSAGE, "network probe: not supported yet");
		return;
	}
	if (verb->n_networks == 0) {
		ask_refuse(a, DR_EUSAGE, "no network given");
		return;
	}
	for (size_t i = 0; i < verb->n_networks; i++) {
		if (!ask_network(a, verb->networks[i]))
			return;
	}
	if (verb->verb == DROVER__NETWORK_VERB__VERB__RENAME &&
	    names_check(verb->new_name, "network", &err) < 0) {
		ask_refuse(a, DR_EUSAGE, "%s", err.text);
		return;
	}
	a->cmd->body_case = DROVER__COMMAND__BODY_NETWORK_VERB;
	a->cmd->network_verb = msg_clone(verb);
	ask_would(a, "%zu networks would change", verb->n_networks);
}

static const char *not_built(const Drover__LimitSet *set, const char *key)
{
	if (strcmp(key, "mode") == 0 && strcmp(set->mode, "auto") != 0 && strcmp(set->mode, "tcp") != 0 &&
	    strcmp(set->mode, "multichannel") != 0)
		return "that mode";
	if (strcmp(key, "quick_below") == 0 && set->quick_below > 0)
		return "quick moves";
	if (strcmp(key, "on_shutdown") == 0 && strcmp(set->on_shutdown, "leave") != 0)
		return "acting at a host's shutdown";
	return NULL;
}

static void ask_limit_set(struct ask *a, const Drover__LimitSet *set)
{
	struct node_row node;
	char why[256];

	if (set->node[0] != '\0' && set->network[0] != '\0') {
		ask_refuse(a, DR_EUSAGE, "either --node or --network");
		return;
	}
	if ((set->node[0] != '\0' && !ask_node(a, set->node, &node)) ||
	    (set->network[0] != '\0' && !ask_network(a, set->network)))
		return;
	if (set->n_mask == 0) {
		ask_refuse(a, DR_EUSAGE, "no limit given: e.g. drover limit set --max-moves 2");
		return;
	}
	for (size_t i = 0; i < set->n_mask; i++) {
		const struct limit_key *key = limits_key(set->mask[i]);

		if (key == NULL || (set->node[0] != '\0' && !key->node) ||
		    (set->network[0] != '\0' && !key->network)) {
			ask_refuse(a, DR_EUSAGE, "%.32s can't be set for %s", set->mask[i],
				   set->node[0] != '\0'	     ? "a single node"
				   : set->network[0] != '\0' ? "a single network"
							     : "the cluster");
			return;
		}
		if (!limits_check(set, key, why, sizeof(why))) {
			ask_refuse(a, DR_EUSAGE, "%s", why);
			return;
		}
		if (not_built(set, key->name) != NULL) {
			ask_refuse(a, DR_EUSAGE, "%s: not supported yet", not_built(set, key->name));
			return;
		}
	}
	a->cmd->body_case = DROVER__COMMAND__BODY_LIMIT_SET;
	a->cmd->limit_set = msg_clone(set);
	ask_would(a, "%zu limits would be set", set->n_mask);
}

static void ask_move_verb(struct ask *a, const Drover__MoveVerb *verb)
{
	struct move_row move;

	if (!rows_move(a->db, verb->move, &move)) {
		ask_refuse(a, DR_ENOENT, "no move %llu (drover move list shows them all)",
			   (unsigned long long)verb->move);
		return;
	}
	a->cmd->body_case = DROVER__COMMAND__BODY_MOVE_CANCEL;
	a->cmd->move_cancel = MSG_NEW(drover__cmd_move_cancel, Drover__CmdMoveCancel);
	a->cmd->move_cancel->move = verb->move;
	ask_would(a, "move %llu of %s would be cancelled", (unsigned long long)verb->move, move.vm);
}

/* ---------------------------------------------------------------- all of them */

static void ask_dispatch(struct ask *a)
{
	const Drover__Request *r = a->request;

	switch (r->verb_case) {
	case DROVER__REQUEST__VERB_NODE_VERB:
		ask_node_verb(a, r->node_verb);
		return;
	case DROVER__REQUEST__VERB_NODE_SET:
		ask_node_set(a, r->node_set);
		return;
	case DROVER__REQUEST__VERB_VM_ADD:
		ask_vm_add(a, r->vm_add);
		return;
	case DROVER__REQUEST__VERB_VM_SET:
		ask_vm_set(a, r->vm_set);
		return;
	case DROVER__REQUEST__VERB_VM_VERB:
		ask_vm_verb(a, r->vm_verb);
		return;
	case DROVER__REQUEST__VERB_VM_MOVE:
		ask_vm_move(a, r->vm_move);
		return;
	case DROVER__REQUEST__VERB_NETWORK_VERB:
		ask_network_verb(a, r->network_verb);
		return;
	case DROVER__REQUEST__VERB_NETWORK_ORDER:
		ask_network_order(a, r->network_order);
		return;
	case DROVER__REQUEST__VERB_LIMIT_SET:
		ask_limit_set(a, r->limit_set);
		return;
	case DROVER__REQUEST__VERB_DRAIN_VERB:
		ask_drain_verb(a, r->drain_verb);
		return;
	case DROVER__REQUEST__VERB_MOVE_VERB:
		ask_move_verb(a, r->move_verb);
		return;
	case DROVER__REQUEST__VERB_CLUSTER_STATUS:
	case DROVER__REQUEST__VERB_LIST:
	case DROVER__REQUEST__VERB_CLUSTER_CHECK:
	case DROVER__REQUEST__VERB_CLUSTER_INIT:
	case DROVER__REQUEST__VERB_CLUSTER_TOKEN:
	case DROVER__REQUEST__VERB_CLUSTER_JOIN:
	case DROVER__REQUEST__VERB_JOIN_REQUEST:
	case DROVER__REQUEST__VERB_CLUSTER_BACKUP:
	case DROVER__REQUEST__VERB_FORCE_QUORUM:
	case DROVER__REQUEST__VERB__NOT_SET:
	case _DROVER__REQUEST__VERB__CASE_IS_INT_SIZE:
		break;
	}
	ask_refuse(a, DR_EUSAGE, "this coordinator does not know that request: is it of an older version?");
}

void request_to_command(struct db *db, struct env *env, const struct volatile_view *view,
			const Drover__Request *request, const char *who, Drover__Command **cmd,
			Drover__Response **answer)
{
	struct ask a = {.db = db, .env = env, .view = view, .request = request};

	*cmd = NULL;
	*answer = NULL;
	a.cmd = MSG_NEW(drover__command, Drover__Command);
	if (request->id.len != 0 && request->id.len != ROWS_ID)
		ask_refuse(&a, DR_EUSAGE, "a request's id has 16 bytes");
	else if (!msg_known(request))
		ask_refuse(&a, DR_EUSAGE,
			   "the coordinator does not know a part of that request: it is older than your "
			   "drover command");
	else if (drover__request__get_packed_size(request) > REQUEST_MAX)
		ask_refuse(&a, DR_EUSAGE, "the request is larger than %u bytes", REQUEST_MAX);
	else if (rows_cluster_incarnation(db) == 0)
		ask_refuse(&a, DR_EREFUSED, "the cluster is not initialised: run 'drover cluster init'");
	else
		ask_dispatch(&a);
	if (a.answer == NULL && request->dry_run) {
		a.answer = response_error(request, 0, "%s", a.would);
		a.answer->changed = true;
	}
	if (a.answer != NULL) {
		drover__command__free_unpacked(a.cmd, NULL);
		*answer = a.answer;
		return;
	}
	a.cmd->utc_us = env_utc_us(env);
	if (request->id.len > 0)
		msg_set_bytes(&a.cmd->request_id, request->id.data, request->id.len);
	msg_set(&a.cmd->who, who);
	if (a.cmd->who[0] == '\0')
		msg_set(&a.cmd->who, "unknown");
	request_words(request, &a.cmd->what);
	*cmd = a.cmd;
}

Drover__Response *response_from_result(struct db *db, const struct volatile_view *view,
				       const Drover__Request *request, uint64_t index,
				       const struct apply_result *result)
{
	Drover__Response *r = new_response(request);
	struct drain_row drain;
	struct move_row move;
	struct vm_row vm;

	r->exit = result->exit;
	msg_set(&r->message, result->message);
	r->changed = result->changed;
	r->index = index;
	if (result->exit != 0 || result->object_kind[0] == '\0')
		return r;
	msg_set(&r->object_kind, result->object_kind);
	r->created = request->verb_case != DROVER__REQUEST__VERB_VM_VERB;
	if (strcmp(result->object_kind, "drain") == 0 && rows_drain(db, result->object_id, &drain)) {
		read_drain_row(db, view, &drain, r);
		read_moves_of_drain(db, view, drain.id, r);
	} else if (strcmp(result->object_kind, "move") == 0 && rows_move(db, result->object_id, &move)) {
		read_move_row(db, view, &move, r);
	} else if (strcmp(result->object_kind, "vm") == 0 && rows_vm(db, result->object_name, &vm)) {
		read_vm_row(db, &vm, true, r);
	}
	return r;
}
