/* Lists and single objects, from rows and volatile figures. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "coordinator/fence_spec.h"
#include "coordinator/limits.h"
#include "coordinator/requests_private.h"

#define LIST_MOST 1000u

static uint64_t most_of(const Drover__ListRequest *list)
{
	return list->most != 0 && list->most < LIST_MOST * 10 ? list->most : LIST_MOST;
}

static void not_found(Drover__Response *r, const char *what, const char *name)
{
	char text[256];

	snprintf(text, sizeof(text), "no %s '%.64s'", what, name);
	r->exit = DR_ENOENT;
	msg_set(&r->message, text);
}

static void not_found_id(Drover__Response *r, const char *what, uint64_t id)
{
	char text[256];

	snprintf(text, sizeof(text), "no %s %llu", what, (unsigned long long)id);
	r->exit = DR_ENOENT;
	msg_set(&r->message, text);
}

/* ---------------------------------------------------------------- nodes */

static void read_fence(struct db *db, const char *node, Drover__NodeRow *row)
{
	DR_AUTO_FREE char *spec = rows_fence_spec(db, node);
	DR_AUTO_FREE char *text = spec != NULL ? fence_spec_show(spec) : NULL;

	if (text != NULL)
		msg_set(&row->fence, text);
}

void read_node_row(struct db *db, const struct volatile_view *view, const struct node_row *node, bool full,
		   Drover__Response *r)
{
	Drover__NodeRow *row = MSG_NEW(drover__node_row, Drover__NodeRow);
	Drover__HostFacts *facts = rows_facts(db, node->name);

	msg_set(&row->name, node->name);
	msg_set(&row->state, rows_node_state(db, node));
	msg_set(&row->agent, node->session ? "connected" : "lost");
	row->vms = (uint32_t)db_get_u64(db, "SELECT count(*) FROM vm WHERE owner = ?", "s", node->name);
	row->memory_total = node->memory_total;
	row->memory_free = facts != NULL ? facts->memory_free : 0;
	row->moves_out = (uint32_t)db_get_u64(
		db, "SELECT count(*) FROM move_attempt WHERE src_gone = 0 AND src = ?", "s", node->name);
	row->moves_in = (uint32_t)db_get_u64(
		db, "SELECT count(*) FROM move_attempt WHERE dst_gone = 0 AND dst = ?", "s", node->name);
	row->incarnation = node->incarnation;
	row->fencing = node->fencing != 0;
	if (node->has_boot)
		msg_set_bytes(&row->boot_id, node->boot_id, ROWS_ID);
	if (view != NULL && view->lease_ms != NULL)
		row->lease_ms = view->lease_ms(view->data, node->name);
	if (full) {
		row->facts = facts;
		facts = NULL;
		read_fence(db, node->name, row);
	}
	drover__host_facts__free_unpacked(facts, NULL);
	msg_push(&r->nodes, &r->n_nodes, row);
}

static void read_nodes(struct db *db, const struct volatile_view *view, const Drover__ListRequest *list,
		       Drover__Response *r)
{
	struct db_rows rows;
	struct node_row node;

	db_query(db, &rows, "SELECT " NODE_COLUMNS " FROM node WHERE ? = '' OR name = ? ORDER BY name", "ss",
		 list->name, list->name);
	while (db_next(&rows)) {
		rows_node_get(&rows, &node);
		read_node_row(db, view, &node, list->name[0] != '\0', r);
	}
	if (list->name[0] != '\0' && r->n_nodes == 0)
		not_found(r, "node", list->name);
}

/* ---------------------------------------------------------------- VMs */

void read_vm_row(struct db *db, const struct vm_row *vm, bool full, Drover__Response *r)
{
	Drover__VmRow *row = MSG_NEW(drover__vm_row, Drover__VmRow);
	Drover__VmSpec *spec = rows_spec(db, vm->name);

	msg_set(&row->name, vm->name);
	msg_set(&row->state, rows_vm_state(db, vm));
	msg_set(&row->node, vm->owner);
	row->generation = vm->generation;
	row->memory = vm->memory;
	row->priority = vm->priority;
	row->move = vm->move;
	msg_set(&row->error, vm->error);
	msg_set_bytes(&row->uuid, vm->uuid, ROWS_ID);
	if (spec != NULL) {
		row->cpus = spec->cpus;
		row->ha = spec->ha == DROVER__HA_MODE__HA_ON;
	}
	if (full) {
		row->spec = spec;
		spec = NULL;
		row->launch = rows_launch(db, vm->name);
	}
	drover__vm_spec__free_unpacked(spec, NULL);
	msg_push(&r->vms, &r->n_vms, row);
}

static void read_vms(struct db *db, const Drover__ListRequest *list, Drover__Response *r)
{
	struct db_rows rows;
	struct vm_row vm;

	db_query(db, &rows, "SELECT " VM_COLUMNS " FROM vm WHERE ? = '' OR name = ? ORDER BY name", "ss",
		 list->name, list->name);
	while (db_next(&rows)) {
		rows_vm_get(&rows, &vm);
		read_vm_row(db, &vm, list->name[0] != '\0', r);
	}
	if (list->name[0] != '\0' && r->n_vms == 0)
		not_found(r, "VM", list->name);
}

/* ---------------------------------------------------------------- networks */

static void network_nodes(struct db *db, Drover__NetworkRow *network)
{
	struct db_rows rows;

	db_query(db, &rows,
		 "SELECT node, address, speed, mtu, up, rdma FROM node_address WHERE subnet = ? ORDER BY "
		 "node, address",
		 "s", network->subnet);
	while (db_next(&rows)) {
		Drover__NetworkNodeRow *row = MSG_NEW(drover__network_node_row, Drover__NetworkNodeRow);

		msg_set(&row->node, db_text(&rows, 0));
		msg_set(&row->address, db_text(&rows, 1));
		row->speed = db_u64(&rows, 2);
		row->mtu = (uint32_t)db_u64(&rows, 3);
		row->up = db_bool(&rows, 4);
		network->rdma = network->rdma || db_bool(&rows, 5);
		msg_push(&network->nodes, &network->n_nodes, row);
	}
}

static void read_networks(struct db *db, const Drover__ListRequest *list, Drover__Response *r)
{
	struct db_rows rows;

	db_query(db, &rows,
		 "SELECT name, subnet, rank, excluded FROM network WHERE ? = '' OR name = ? ORDER BY rank, "
		 "name",
		 "ss", list->name, list->name);
	while (db_next(&rows)) {
		Drover__NetworkRow *row = MSG_NEW(drover__network_row, Drover__NetworkRow);

		msg_set(&row->name, db_text(&rows, 0));
		msg_set(&row->subnet, db_text(&rows, 1));
		row->rank = (uint32_t)db_u64(&rows, 2);
		row->excluded = db_bool(&rows, 3);
		network_nodes(db, row);
		msg_push(&r->networks, &r->n_networks, row);
	}
	if (list->name[0] != '\0' && r->n_networks == 0)
		not_found(r, "network", list->name);
}

/* ---------------------------------------------------------------- limits */

static Drover__Limits *limits_of(struct db *db, const char *scope, const char *name)
{
	Drover__Limits *l = MSG_NEW(drover__limits, Drover__Limits);
	char text[64];

	msg_set(&l->node, name);
	l->max_moves = (uint32_t)rows_limit(db, scope, name, "max_moves");
	l->max_storage_moves = (uint32_t)rows_limit(db, scope, name, "max_storage_moves");
	l->cluster_moves = (uint32_t)rows_limit(db, scope, name, "cluster_moves");
	l->bandwidth = rows_limit(db, scope, name, "bandwidth");
	msg_set(&l->mode, rows_limit_text(db, scope, name, "mode", text, sizeof(text)));
	l->encrypt = rows_limit(db, scope, name, "encrypt") != 0;
	l->quick_below = (uint32_t)rows_limit(db, scope, name, "quick_below");
	msg_set(&l->on_shutdown, rows_limit_text(db, scope, name, "on_shutdown", text, sizeof(text)));
	l->blackout_ms = rows_limit(db, scope, name, "blackout_ms");
	l->drain_attempts = (uint32_t)rows_limit(db, scope, name, "drain_attempts");
	for (size_t i = 0; i < LIMITS_KEYS; i++) {
		if (rows_limit_own(db, scope, name, limits_keys[i].name))
			msg_push_text(&l->own, &l->n_own, limits_keys[i].name);
	}
	return l;
}

static void read_limits(struct db *db, Drover__Response *r)
{
	Drover__LimitTable *table = MSG_NEW(drover__limit_table, Drover__LimitTable);
	struct db_rows rows;
	char name[ROWS_NAME];

	table->defaults = limits_of(db, "cluster", "");
	db_query(db, &rows, "SELECT name FROM node ORDER BY name", "");
	while (db_next(&rows)) {
		db_copy_text(&rows, 0, name, sizeof(name));
		msg_push(&table->nodes, &table->n_nodes, limits_of(db, "node", name));
	}
	db_query(db, &rows, "SELECT name FROM network ORDER BY name", "");
	while (db_next(&rows)) {
		db_copy_text(&rows, 0, name, sizeof(name));
		msg_push(&table->networks, &table->n_networks, limits_of(db, "network", name));
	}
	r->limits = table;
}

/* ---------------------------------------------------------------- moves and drains */

static const char *phase_name(Drover__MovePhase phase)
{
	const ProtobufCEnumValue *value =
		protobuf_c_enum_descriptor_get_value(&drover__move_phase__descriptor, (int)phase);

	return value != NULL ? value->name : "?";
}

static void add_stats(Drover__MoveRow *row, const Drover__MoveStats *stats, bool under_way)
{
	if (stats == NULL)
		return;
	row->passes = stats->passes;
	row->bytes_guest = stats->bytes_guest;
	row->bytes_wire = stats->bytes_wire;
	row->bytes_total = stats->bytes_total;
	row->bytes_remaining = stats->bytes_remaining;
	row->rate = under_way ? stats->rate : 0;
	row->dirty_rate = stats->dirty_rate;
	row->duration_ms = stats->duration_ms;
	row->blackout_ms = stats->blackout_ms;
	row->blackout_us = stats->blackout_us;
	for (size_t i = 0; i < row->n_networks; i++)
		free(row->networks[i]);
	row->n_networks = 0;
	for (size_t i = 0; i < stats->n_networks; i++)
		msg_push_text(&row->networks, &row->n_networks, stats->networks[i]);
}

static Drover__RelayNetwork *channel_copy(const Drover__RelayNetwork *from)
{
	Drover__RelayNetwork *to = MSG_NEW(drover__relay_network, Drover__RelayNetwork);

	msg_set(&to->network, from->network);
	to->bytes_wire = from->bytes_wire;
	to->bytes_again = from->bytes_again;
	to->rate = from->rate;
	to->stall_ms = from->stall_ms;
	to->lost = from->lost;
	to->up = from->up;
	return to;
}

static void add_attempt(struct db *db, const struct volatile_view *view, const struct move_row *move,
			Drover__MoveRow *row)
{
	const Drover__MoveFact *fact = NULL;
	bool under_way = !rows_move_ended(move->state) && strcmp(move->state, "queued") != 0;
	Drover__MoveStats *stats;
	struct attempt_row t;

	if (!rows_attempt(db, move->id, move->attempt, &t))
		return;
	msg_set(&row->src_phase, phase_name(t.src_phase));
	msg_set(&row->dst_phase, phase_name(t.dst_phase));
	msg_push_text(&row->networks, &row->n_networks, t.network);
	stats = rows_stats(db, move->id, move->attempt);
	/* What the source said last, once it is gone, is final. */
	if (view != NULL && view->move_fact != NULL && !t.src_gone)
		fact = view->move_fact(view->data, move->id, move->attempt, DROVER__MOVE_ROLE__MOVE_SRC);
	if (fact != NULL && fact->stats != NULL &&
	    (stats == NULL || fact->stats->duration_ms >= stats->duration_ms))
		add_stats(row, fact->stats, under_way);
	else
		add_stats(row, stats, under_way);
	for (size_t i = 0; fact != NULL && i < fact->n_channels; i++)
		msg_push(&row->channels, &row->n_channels, channel_copy(fact->channels[i]));
	drover__move_stats__free_unpacked(stats, NULL);
}

void read_move_row(struct db *db, const struct volatile_view *view, const struct move_row *move,
		   Drover__Response *r)
{
	Drover__MoveRow *row = MSG_NEW(drover__move_row, Drover__MoveRow);

	row->id = move->id;
	msg_set(&row->vm, move->vm);
	row->drain = move->drain;
	msg_set(&row->kind, move->kind);
	msg_set(&row->from, move->src);
	msg_set(&row->to, move->dst[0] != '\0' ? move->dst : move->want_to);
	msg_set(&row->state, move->state);
	row->attempt = move->attempt;
	msg_set(&row->mode, move->mode[0] != '\0' ? move->mode : "auto");
	row->predicted_ms = move->predicted_ms;
	row->predicted_blackout_ms = move->predicted_blackout_ms;
	row->started_utc_us = move->started_utc_us;
	row->ended_utc_us = move->ended_utc_us;
	msg_set(&row->error, move->error);
	if (strcmp(move->state, "failed") == 0)
		row->exit = move->exit;
	add_attempt(db, view, move, row);
	msg_push(&r->moves, &r->n_moves, row);
}

void read_moves_of_drain(struct db *db, const struct volatile_view *view, uint64_t drain, Drover__Response *r)
{
	struct db_rows rows;
	struct move_row move;

	db_query(db, &rows, "SELECT " MOVE_COLUMNS " FROM move WHERE drain = ? ORDER BY id", "u", drain);
	while (db_next(&rows)) {
		rows_move_get(&rows, &move);
		read_move_row(db, view, &move, r);
	}
}

static uint64_t drain_eta(struct db *db, const struct volatile_view *view, uint64_t drain)
{
	struct db_rows rows;
	uint64_t eta = 0;

	db_query(db, &rows,
		 "SELECT id, attempt, predicted_ms FROM move WHERE drain = ? AND state NOT IN ('done', "
		 "'failed',"
		 " 'cancelled', 'committed') ORDER BY id",
		 "u", drain);
	while (db_next(&rows)) {
		const Drover__MoveFact *fact = NULL;

		if (view != NULL && view->move_fact != NULL)
			fact = view->move_fact(view->data, db_u64(&rows, 0), (uint32_t)db_u64(&rows, 1),
					       DROVER__MOVE_ROLE__MOVE_SRC);
		if (fact != NULL && fact->stats != NULL && fact->stats->rate > 0)
			eta += fact->stats->bytes_remaining * 1000 / fact->stats->rate;
		else
			eta += db_u64(&rows, 2);
	}
	return eta;
}

void read_drain_row(struct db *db, const struct volatile_view *view, const struct drain_row *drain,
		    Drover__Response *r)
{
	Drover__DrainRow *row = MSG_NEW(drover__drain_row, Drover__DrainRow);

	row->id = drain->id;
	msg_set(&row->node, drain->node);
	msg_set(&row->state, drain->state);
	row->plan = drain->plan;
	row->started_utc_us = drain->started_utc_us;
	row->ended_utc_us = drain->ended_utc_us;
	row->moves_total =
		(uint32_t)db_get_u64(db, "SELECT count(*) FROM move WHERE drain = ?", "u", drain->id);
	row->moves_done = (uint32_t)db_get_u64(
		db, "SELECT count(*) FROM move WHERE drain = ? AND state IN ('done', 'committed')", "u",
		drain->id);
	row->moves_failed = (uint32_t)db_get_u64(
		db, "SELECT count(*) FROM move WHERE drain = ? AND state IN ('failed', 'cancelled')", "u",
		drain->id);
	row->predicted_ms = db_get_u64(db, "SELECT coalesce(sum(predicted_ms), 0) FROM move WHERE drain = ?",
				       "u", drain->id);
	if (drain->ended_utc_us == 0)
		row->eta_ms = drain_eta(db, view, drain->id);
	msg_set(&row->error, drain->error);
	msg_push(&r->drains, &r->n_drains, row);
}

static void read_drains(struct db *db, const struct volatile_view *view, const Drover__ListRequest *list,
			Drover__Response *r)
{
	struct drain_row drain;
	struct node_row node;
	struct db_rows rows;

	if (list->id != 0 || list->name[0] != '\0') {
		if (list->id != 0 ? !rows_drain(db, list->id, &drain)
				  : !rows_drain_of(db, list->name, true, &drain)) {
			if (list->id != 0)
				not_found_id(r, "drain", list->id);
			else
				not_found(r, rows_node(db, list->name, &node) ? "drain of node" : "node",
					  list->name);
			return;
		}
		read_drain_row(db, view, &drain, r);
		read_moves_of_drain(db, view, drain.id, r);
		return;
	}
	db_query(db, &rows, "SELECT " DRAIN_COLUMNS " FROM drain ORDER BY id DESC LIMIT ?", "u",
		 most_of(list));
	while (db_next(&rows)) {
		rows_drain_get(&rows, &drain);
		read_drain_row(db, view, &drain, r);
	}
}

static void read_moves(struct db *db, const struct volatile_view *view, const Drover__ListRequest *list,
		       Drover__Response *r)
{
	struct move_row move;
	struct db_rows rows;

	if (list->id != 0) {
		if (rows_move(db, list->id, &move))
			read_move_row(db, view, &move, r);
		else
			not_found_id(r, "move", list->id);
		return;
	}
	db_query(db, &rows,
		 "SELECT " MOVE_COLUMNS " FROM (SELECT " MOVE_COLUMNS " FROM move"
		 " WHERE (? = 0 OR state NOT IN ('done', 'failed', 'cancelled')) AND (? = '' OR vm = ?)"
		 " ORDER BY id DESC LIMIT ?) ORDER BY id",
		 "issu", list->active ? 1 : 0, list->name, list->name, most_of(list));
	while (db_next(&rows)) {
		rows_move_get(&rows, &move);
		read_move_row(db, view, &move, r);
	}
}

/* ---------------------------------------------------------------- events and history */

static void read_events(struct db *db, const Drover__ListRequest *list, Drover__Response *r)
{
	static const char *const newest =
		"SELECT utc_us, idx, kind, node, vm, move, drain, text FROM (SELECT * FROM event WHERE idx > "
		"?"
		" AND utc_us >= ? ORDER BY idx DESC, seq DESC LIMIT ?) ORDER BY idx, seq";
	static const char *const after = "SELECT utc_us, idx, kind, node, vm, move, drain, text FROM event "
					 "WHERE idx > ? AND utc_us >= ?"
					 " ORDER BY idx, seq LIMIT ?";
	struct db_rows rows;

	/* Who follows goes on from an index, oldest first; who looks wants the newest. */
	db_query(db, &rows, list->since_index != 0 ? after : newest, "uuu", list->since_index,
		 list->since_utc_us, most_of(list));
	while (db_next(&rows)) {
		Drover__EventRow *row = MSG_NEW(drover__event_row, Drover__EventRow);

		row->time_utc_us = db_u64(&rows, 0);
		row->index = db_u64(&rows, 1);
		msg_set(&row->kind, db_text(&rows, 2));
		msg_set(&row->node, db_text(&rows, 3));
		msg_set(&row->vm, db_text(&rows, 4));
		row->move = db_u64(&rows, 5);
		row->drain = db_u64(&rows, 6);
		msg_set(&row->text, db_text(&rows, 7));
		msg_push(&r->events, &r->n_events, row);
	}
}

static void read_history(struct db *db, const Drover__ListRequest *list, Drover__Response *r)
{
	struct db_rows rows;

	db_query(db, &rows,
		 "SELECT utc_us, idx, who, what, exit, message FROM (SELECT * FROM history WHERE idx > ? AND "
		 "utc_us >= ?"
		 " ORDER BY idx DESC LIMIT ?) ORDER BY idx",
		 "uuu", list->since_index, list->since_utc_us, most_of(list));
	while (db_next(&rows)) {
		Drover__HistoryRow *row = MSG_NEW(drover__history_row, Drover__HistoryRow);

		row->time_utc_us = db_u64(&rows, 0);
		row->index = db_u64(&rows, 1);
		msg_set(&row->who, db_text(&rows, 2));
		msg_set(&row->what, db_text(&rows, 3));
		row->exit = (uint32_t)db_u64(&rows, 4);
		msg_set(&row->message, db_text(&rows, 5));
		msg_push(&r->history, &r->n_history, row);
	}
}

/* ---------------------------------------------------------------- cluster */

static void count_nodes(struct db *db, Drover__ClusterStatus *c)
{
	struct db_rows rows;
	struct node_row node;

	db_query(db, &rows, "SELECT " NODE_COLUMNS " FROM node ORDER BY name", "");
	while (db_next(&rows)) {
		const char *state;

		rows_node_get(&rows, &node);
		state = rows_node_state(db, &node);
		if (strcmp(state, "up") == 0)
			c->nodes_up++;
		else if (strcmp(state, "down") == 0 || strcmp(state, "isolated") == 0)
			c->nodes_down++;
		else
			c->nodes_paused++;
	}
}

static void count_vms(struct db *db, Drover__ClusterStatus *c)
{
	struct db_rows rows;
	struct vm_row vm;

	db_query(db, &rows, "SELECT " VM_COLUMNS " FROM vm ORDER BY name", "");
	while (db_next(&rows)) {
		const char *state;

		rows_vm_get(&rows, &vm);
		state = rows_vm_state(db, &vm);
		if (strcmp(state, "moving") == 0)
			c->vms_moving++;
		else if (strcmp(state, "running") == 0 || strcmp(state, "paused") == 0 ||
			 strcmp(state, "starting") == 0)
			c->vms_running++;
		else if (rows_vm_off(&vm))
			c->vms_stopped++;
	}
}

static void read_cluster(struct db *db, const struct volatile_view *view, Drover__Response *r)
{
	Drover__ClusterStatus *c = MSG_NEW(drover__cluster_status, Drover__ClusterStatus);
	uint8_t uuid[ROWS_ID];
	char text[128];

	msg_set(&c->cluster, rows_meta(db, "name", text, sizeof(text)));
	msg_set(&c->mode, rows_meta(db, "mode", text, sizeof(text)));
	if (rows_cluster_uuid(db, uuid))
		msg_set_bytes(&c->cluster_uuid, uuid, sizeof(uuid));
	c->index = apply_index(db);
	count_nodes(db, c);
	count_vms(db, c);
	c->drains_active = (uint32_t)db_get_u64(
		db, "SELECT count(*) FROM drain WHERE state IN ('running', 'paused')", "");
	if (view != NULL && view->cluster != NULL)
		view->cluster(view->data, c);
	r->cluster = c;
}

static void read_list(struct db *db, const struct volatile_view *view, const Drover__ListRequest *list,
		      Drover__Response *r)
{
	switch (list->what) {
	case DROVER__LIST_REQUEST__WHAT__NODES:
		read_nodes(db, view, list, r);
		return;
	case DROVER__LIST_REQUEST__WHAT__VMS:
		read_vms(db, list, r);
		return;
	case DROVER__LIST_REQUEST__WHAT__NETWORKS:
		read_networks(db, list, r);
		return;
	case DROVER__LIST_REQUEST__WHAT__LIMITS:
		read_limits(db, r);
		return;
	case DROVER__LIST_REQUEST__WHAT__DRAINS:
		read_drains(db, view, list, r);
		return;
	case DROVER__LIST_REQUEST__WHAT__MOVES:
		read_moves(db, view, list, r);
		return;
	case DROVER__LIST_REQUEST__WHAT__EVENTS:
		read_events(db, list, r);
		return;
	case DROVER__LIST_REQUEST__WHAT__HISTORY:
		read_history(db, list, r);
		return;
	case _DROVER__LIST_REQUEST__WHAT_IS_INT_SIZE:
		break;
	}
	r->exit = DR_EUSAGE;
	msg_set(&r->message, "unknown list");
}

Drover__Response *requests_read(struct db *db, struct env *env, const struct volatile_view *view,
				const Drover__Request *request)
{
	Drover__Response *r = response_error(request, 0, "%s", "");

	if (request->verb_case == DROVER__REQUEST__VERB_LIST)
		read_list(db, view, request->list, r);
	else if (request->verb_case == DROVER__REQUEST__VERB_CLUSTER_STATUS)
		read_cluster(db, view, r);
	else if (request->verb_case == DROVER__REQUEST__VERB_CLUSTER_CHECK)
		read_check(db, view, r);
	else {
		r->exit = DR_EUSAGE;
		msg_set(&r->message, "not a question");
	}
	r->index = apply_index(db);
	r->stale = view != NULL && view->stale;
	r->utc_us = env_utc_us(env);
	return r;
}
