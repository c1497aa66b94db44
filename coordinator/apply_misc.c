/* Cluster: init, members, tokens, settings, trimming. */
#include <stdio.h>
#include <string.h>

#include "common/names.h"
#include "coordinator/apply_private.h"

static void put_meta(struct apply *a, const char *key, const char *value)
{
	db_exec(a->db,
		"INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = "
		"excluded.value",
		"ss", key, value);
}

static void put_member(struct apply *a, uint64_t id, const char *node, uint32_t corosync_id, bool removed)
{
	db_exec(a->db,
		"INSERT INTO member (id, node, corosync_id, removed) VALUES (?, ?, ?, ?) ON CONFLICT (id)"
		" DO UPDATE SET node = excluded.node, corosync_id = excluded.corosync_id, removed = "
		"excluded.removed",
		"usui", id, node, (uint64_t)corosync_id, removed ? 1 : 0);
}

void apply_init(struct apply *a, const Drover__CmdInit *c)
{
	char hex[2 * ROWS_ID + 1];

	if (rows_cluster_incarnation(a->db) != 0) {
		apply_refuse(a, DR_EREFUSED, "the cluster is initialised already");
		return;
	}
	if (!names_valid(c->name) || c->uuid.len != ROWS_ID) {
		apply_refuse(a, DR_EUSAGE, "a cluster needs a name (1-63 of a-z A-Z 0-9 . _ -) and a UUID");
		return;
	}
	for (size_t i = 0; i < ROWS_ID; i++)
		snprintf(hex + 2 * i, 3, "%02x", c->uuid.data[i]);
	put_meta(a, "name", c->name);
	put_meta(a, "uuid", hex);
	put_meta(a, "mode", c->mode);
	db_exec(a->db, "INSERT INTO counter (name, value) VALUES ('incarnation', 1)", "");
	put_member(a, c->member, c->node, c->corosync_id, false);
	apply_event(a, "cluster", (struct about){.node = c->node}, "cluster %s was initialised", c->name);
	a->out->changed = true;
	a->out->touched_all = true;
}

void apply_setting(struct apply *a, const Drover__CmdSetting *c)
{
	db_exec(a->db,
		"INSERT INTO setting (scope, name, key, value) VALUES ('cluster', '', ?, ?)"
		" ON CONFLICT (scope, name, key) DO UPDATE SET value = excluded.value",
		"ss", c->key, c->value);
	a->out->changed = true;
	a->out->touched_all = true;
}

void apply_trim(struct apply *a, const Drover__CmdTrim *c)
{
	db_exec(a->db, "DELETE FROM request WHERE idx < ?", "u", c->requests_before_index);
	db_exec(a->db, "DELETE FROM event WHERE idx < ?", "u", c->events_before_index);
	db_exec(a->db, "DELETE FROM history WHERE idx < ?", "u", c->events_before_index);
	if (c->moves_before_index == 0)
		return;
	/* Only what is over on both hosts. */
	db_exec(a->db,
		"DELETE FROM move_attempt WHERE move < ? AND src_gone = 1 AND dst_gone = 1 AND move IN "
		"(SELECT id FROM move"
		" WHERE state IN ('done', 'failed', 'cancelled'))",
		"u", c->moves_before_index);
	db_exec(a->db,
		"DELETE FROM move WHERE id < ? AND state IN ('done', 'failed', 'cancelled')"
		" AND NOT EXISTS (SELECT 1 FROM move_attempt t WHERE t.move = move.id)",
		"u", c->moves_before_index);
	db_exec(a->db,
		"DELETE FROM drain WHERE id < ? AND state NOT IN ('running', 'paused')"
		" AND NOT EXISTS (SELECT 1 FROM move WHERE move.drain = drain.id)",
		"u", c->moves_before_index);
}

void apply_member(struct apply *a, const Drover__CmdMember *c)
{
	bool known = db_exists(a->db, "SELECT 1 FROM member WHERE id = ? AND removed = ?", "uu", c->member,
			       (uint64_t)c->removed);

	put_member(a, c->member, c->node, c->corosync_id, c->removed);
	if (!known)
		apply_event(a, "cluster", (struct about){.node = c->node}, "coordinator %s %s", c->node,
			    c->removed ? "was removed" : "joined");
	a->out->changed = true;
}

void apply_token(struct apply *a, const Drover__CmdToken *c)
{
	if (!c->used) {
		db_exec(a->db, "INSERT INTO token (hash, used) VALUES (?, 0) ON CONFLICT (hash) DO NOTHING",
			"b", c->hash.data, c->hash.len);
		a->out->changed = true;
		return;
	}
	/* A member that asks again, since the answer to it was lost, has the same id. */
	if (db_exec(a->db, "UPDATE token SET used = ? WHERE hash = ? AND used IN (0, ?)", "ubu", c->member,
		    c->hash.data, c->hash.len, c->member) != 1) {
		apply_refuse(
			a, DR_EAUTH,
			"the token is unknown or was used already: make one with 'drover cluster token'");
		return;
	}
	a->out->changed = true;
}
