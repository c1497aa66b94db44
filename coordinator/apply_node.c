/* Hosts: registration, sessions, health. */
#include <stdlib.h>
#include <string.h>

#include "common/names.h"
#include "common/mutant.h"
#include "coordinator/apply_private.h"
#include "coordinator/msg.h"

static bool ensure_node(struct apply *a, const char *name)
{
	if (!names_valid(name)) {
		apply_refuse(a, DR_EUSAGE, "'%.64s' can't be a node's name", name);
		return false;
	}
	if (db_exists(a->db, "SELECT 1 FROM node WHERE name = ?", "s", name))
		return true;
	db_exec(a->db,
		"INSERT INTO node (name, incarnation, boot_id, start_id, coordinator, fenced_boot, leaving, "
		"paused,"
		" quarantined, health, health_why, memory_total, facts, changed)"
		" VALUES (?, ?, x'', x'', '', x'', x'', 0, 0, 'up', '', 0, x'', ?)",
		/* Agents remember incarnations: a node that comes again must not fall behind its own past. */
		"suu", name, a->index, a->index);
	apply_event(a, "node", (struct about){.node = name}, "%s registered", name);
	return true;
}

void apply_node_facts(struct apply *a, const Drover__CmdNodeFacts *c)
{
	size_t size;
	uint8_t *bytes;

	if (c->facts == NULL) {
		apply_refuse(a, DR_EUSAGE, "no facts");
		return;
	}
	if (!ensure_node(a, c->node))
		return;
	bytes = msg_pack(c->facts, &size);
	db_exec(a->db, "UPDATE node SET facts = ?, memory_total = ? WHERE name = ?", "bus", bytes, size,
		c->facts->memory_total, c->node);
	free(bytes);
	network_discover(a, c->node, c->facts);
	a->out->changed = true;
}

static void session_lost(struct apply *a, const Drover__CmdNodeSession *c, const struct node_row *node)
{
	if (!node->session || !msg_same_bytes(&c->start_id, node->start_id, ROWS_ID) ||
	    (c->was[0] != '\0' && strcmp(c->was, node->coordinator) != 0))
		return; /* another session has taken its place */
	/* In an audit its word ends with its session: it may have listened to another incarnation since. */
	db_exec(a->db,
		"UPDATE node SET start_id = x'', coordinator = '', changed = ?, audited = iif(audited = 1, "
		"0, "
		"audited) WHERE name = ?",
		"us", a->index, c->node);
	apply_event(a, "agent", (struct about){.node = c->node}, "agent of %s lost its session%s", c->node,
		    node->leaving ? " (it said that it stops; its VMs run on)" : "");
	a->out->changed = true;
}

void apply_node_session(struct apply *a, const Drover__CmdNodeSession *c)
{
	struct node_row node;
	bool known_start;

	if (c->coordinator[0] == '\0') {
		if (apply_need_node(a, c->node, &node))
			session_lost(a, c, &node);
		return;
	}
	if (c->start_id.len != ROWS_ID || c->boot_id.len != ROWS_ID) {
		apply_refuse(a, DR_EUSAGE, "agent of %.64s: boot id and start id must have 16 bytes",
			     c->node);
		return;
	}
	if (!ensure_node(a, c->node) || !rows_node(a->db, c->node, &node))
		return;
	if (node.has_fenced && msg_same_bytes(&c->boot_id, node.fenced_boot, ROWS_ID)) {
		apply_refuse(a, DR_EREFUSED, "%s was fenced since it booted: reboot it", c->node);
		return;
	}
	known_start = node.session && msg_same_bytes(&c->start_id, node.start_id, ROWS_ID);
	if (known_start && strcmp(node.coordinator, c->coordinator) == 0 &&
	    msg_same_bytes(&c->boot_id, node.boot_id, ROWS_ID))
		return;
	/* Two agents of one name (a cloned host, a connection that is dead but not noticed yet): the second
	 * must wait until the first one's session is lost. Its boot id would prove a death that did not
	 * happen (R9). */
	if (node.session && !known_start) {
		apply_refuse(a, DR_EREFUSED, "another agent of %s has a session at %s", c->node,
			     node.coordinator);
		return;
	}
	/* A session of an earlier boot that is committed late would pass for a newer boot: the proposer names
	 * the boot that the row had when that agent last answered, and it must be the row's still. */
	if ((DR_MUTANT(version_by_program) ? APPLY_VERSION : rows_cluster_version(a->db)) >=
		    APPLY_V_SAW_BOOT &&
	    node.has_boot && !msg_same_bytes(&c->boot_id, node.boot_id, ROWS_ID) &&
	    !msg_same_bytes(&c->saw_boot, node.boot_id, ROWS_ID)) {
		apply_refuse(a, DR_EREFUSED, "%s has booted again since that session began", c->node);
		return;
	}
	/* SAFETY R9: a new boot proves that nothing of the last one runs. */
	if (node.has_boot && !msg_same_bytes(&c->boot_id, node.boot_id, ROWS_ID)) {
		if (rows_audit(a->db)) /* which VMs are its own is not known yet */
			db_exec(a->db,
				"UPDATE node SET incarnation = incarnation + 1, audited = 0 WHERE name = ?",
				"s", c->node);
		else
			attempt_host_died(a, c->node, "its host has booted anew");
	}
	db_exec(a->db,
		"UPDATE node SET boot_id = ?, start_id = ?, coordinator = ?, leaving = x'', fenced_boot = "
		"x'',"
		" health = 'up', health_why = '', changed = ? WHERE name = ?",
		"bbsus", c->boot_id.data, c->boot_id.len, c->start_id.data, c->start_id.len, c->coordinator,
		a->index, c->node);
	if (!known_start)
		apply_event(a, "agent", (struct about){.node = c->node}, "agent of %s is connected to %s",
			    c->node, c->coordinator);
	apply_touch(a, c->node);
	a->out->changed = true;
}

/* Brings home what the node's last drain moved away and what is not there. */
static void failback(struct apply *a, const char *node)
{
	struct drain_row drain;
	struct db_rows rows;
	char vms[1024][ROWS_NAME];
	unsigned n = 0;

	if (!rows_drain_of(a->db, node, true, &drain))
		return;
	db_query(a->db, &rows,
		 "SELECT DISTINCT v.name FROM vm v JOIN move m ON m.vm = v.name WHERE m.drain = ? AND "
		 "m.state = 'done'"
		 " AND m.src = ? AND v.owner <> ? AND v.move = 0 ORDER BY v.name",
		 "uss", drain.id, node, node);
	while (n < 1024 && db_next(&rows))
		db_copy_text(&rows, 0, vms[n++], ROWS_NAME);
	db_done(&rows);
	for (unsigned i = 0; i < n; i++) {
		struct vm_row vm;
		Drover__CmdMoveCreate create = DROVER__CMD_MOVE_CREATE__INIT;

		create.to = (char *)node;
		if (rows_vm(a->db, vms[i], &vm))
			move_insert(a, &vm, &create, NULL);
	}
}

void apply_node_admin(struct apply *a, const Drover__CmdNodeAdmin *c)
{
	struct node_row node;
	struct drain_row drain;

	if (!apply_need_node(a, c->node, &node))
		return;
	if (!c->paused && rows_drain_of(a->db, c->node, false, &drain))
		drain_cancel(a, &drain);
	if (node.paused != c->paused) {
		db_exec(a->db, "UPDATE node SET paused = ? WHERE name = ?", "is", c->paused ? 1 : 0, c->node);
		apply_event(a, "node", (struct about){.node = c->node}, "%s is %s", c->node,
			    c->paused ? "paused" : "resumed");
		a->out->changed = true;
	}
	if (!c->paused && strcmp(c->failback, "immediate") == 0)
		failback(a, c->node);
	apply_touch(a, c->node);
}

void apply_node_health(struct apply *a, const Drover__CmdNodeHealth *c)
{
	struct node_row node;

	if (strcmp(c->health, "up") != 0 && strcmp(c->health, "isolated") != 0 &&
	    strcmp(c->health, "down") != 0) {
		apply_refuse(a, DR_EUSAGE, "unknown health '%.16s'", c->health);
		return;
	}
	if (!apply_need_node(a, c->node, &node) || strcmp(node.health, c->health) == 0)
		return;
	if (DR_MUTANT(expired_lease_is_death) && strcmp(c->health, "up") != 0)
		attempt_host_died(a, c->node, "its lease ended");
	db_exec(a->db, "UPDATE node SET health = ?, health_why = ? WHERE name = ?", "sss", c->health, c->why,
		c->node);
	apply_event(a, "node", (struct about){.node = c->node}, "%s is %s%s%s", c->node, c->health,
		    c->why[0] != '\0' ? ": " : "", c->why);
	apply_touch(a, c->node);
	a->out->changed = true;
}

void apply_node_leaving(struct apply *a, const Drover__CmdNodeLeaving *c)
{
	struct node_row node;

	if (!apply_need_node(a, c->node, &node))
		return;
	if (!node.session || !msg_same_bytes(&c->start_id, node.start_id, ROWS_ID)) {
		apply_refuse(a, DR_EREFUSED, "not the present agent of %s", c->node);
		return;
	}
	if (node.leaving)
		return;
	/* SAFETY R10: its VMs count as running. */
	if (DR_MUTANT(leaving_is_death))
		attempt_host_died(a, c->node, "its agent has left");
	db_exec(a->db, "UPDATE node SET leaving = start_id, changed = ? WHERE name = ?", "us", a->index,
		c->node);
	apply_event(a, "agent", (struct about){.node = c->node}, "agent of %s stops; its VMs run on",
		    c->node);
	apply_touch(a, c->node);
	a->out->changed = true;
}

/* The leader takes the node's coordinator out of Raft when it sees this (leader.c). */
static void remove_coordinator(struct apply *a, const char *node)
{
	if (db_exec(a->db, "UPDATE member SET removed = 1 WHERE node = ? AND removed = 0", "s", node) == 0)
		return;
	apply_event(a, "cluster", (struct about){.node = node}, "coordinator %s was removed", node);
	a->out->changed = true;
}

void apply_node_remove(struct apply *a, const Drover__NodeVerb *c)
{
	struct node_row node;

	/* A witness has a coordinator and no agent. */
	if (!rows_node(a->db, c->node, &node) && rows_has_coordinator(a->db, c->node)) {
		remove_coordinator(a, c->node);
		return;
	}
	if (!apply_need_node(a, c->node, &node))
		return;
	if (db_exists(a->db, "SELECT 1 FROM vm WHERE owner = ?", "s", c->node)) {
		apply_refuse(a, DR_EREFUSED, "%s owns VMs: drain it first (drover node drain %s)", c->node,
			     c->node);
		return;
	}
	if (node.session) {
		apply_refuse(a, DR_EREFUSED, "the agent of %s is connected: stop it first", c->node);
		return;
	}
	if (rows_slots(a->db, c->node) > 0) {
		apply_refuse(a, DR_EREFUSED, "%s still takes part in a move", c->node);
		return;
	}
	db_exec(a->db, "DELETE FROM node_address WHERE node = ?", "s", c->node);
	db_exec(a->db, "DELETE FROM setting WHERE scope = 'node' AND name = ?", "s", c->node);
	db_exec(a->db,
		"UPDATE drain SET state = 'cancelled', ended_utc_us = ? WHERE node = ?"
		" AND state IN ('running', 'paused')",
		"us", a->utc_us, c->node);
	db_exec(a->db, "DELETE FROM node WHERE name = ?", "s", c->node);
	remove_coordinator(a, c->node);
	apply_event(a, "node", (struct about){.node = c->node}, "%s was removed", c->node);
	a->out->changed = true;
}
