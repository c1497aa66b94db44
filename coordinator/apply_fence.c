/*
 * Fencing (SAFETY R9, R11): a host's fence agent, the announcement, the decision.
 *
 *   node_set      how a host can be fenced
 *   node_fencing  on: announced; from here on no lease, no order, no new work for that host
 *                 off: it failed, or the leader that began it is gone
 *   node_fenced   the host is dead: its open moves are decided, its VMs are stopped
 *
 * The announcement is a row of its own in setting: (node, NAME, "fencing") = its log index.
 */
#include <stdio.h>
#include <string.h>

#include "coordinator/apply_private.h"
#include "coordinator/fence_spec.h"
#include "coordinator/msg.h"

void apply_node_set(struct apply *a, const Drover__NodeSet *c)
{
	struct dr_error err = DR_ERROR_INIT;
	char spec[FENCE_SPEC_MAX];
	struct node_row node;

	if (!apply_need_node(a, c->node, &node))
		return;
	if (fence_spec_build(c, spec, &err) < 0) {
		apply_refuse(a, DR_EUSAGE, "%s", err.text);
		return;
	}
	db_exec(a->db, "DELETE FROM setting WHERE scope = 'node' AND name = ? AND key = 'fence'", "s",
		c->node);
	if (spec[0] != '\0')
		db_exec(a->db, "INSERT INTO setting (scope, name, key, value) VALUES ('node', ?, 'fence', ?)",
			"ss", c->node, spec);
	apply_event(a, "node", (struct about){.node = c->node}, "fence agent of %s: %s", c->node,
		    c->fence_agent);
	a->out->changed = true;
}

static void fencing_clear(struct apply *a, const char *node)
{
	db_exec(a->db, "DELETE FROM setting WHERE scope = 'node' AND name = ? AND key = 'fencing'", "s",
		node);
	apply_touch(a, node);
}

static void fencing_begin(struct apply *a, const Drover__CmdNodeFencing *c, const struct node_row *node)
{
	char index[32];

	if (c->boot_id.len > 0 && node->has_boot && !msg_same_bytes(&c->boot_id, node->boot_id, ROWS_ID)) {
		apply_refuse(a, DR_EREFUSED, "%s has booted meanwhile", c->node);
		return;
	}
	snprintf(index, sizeof(index), "%llu", (unsigned long long)a->index);
	fencing_clear(a, c->node);
	db_exec(a->db, "INSERT INTO setting (scope, name, key, value) VALUES ('node', ?, 'fencing', ?)", "ss",
		c->node, index);
	apply_event(a, "fence", (struct about){.node = c->node},
		    "%s is being fenced with %s: it gets no lease and no order", c->node, c->agent);
	a->out->changed = true;
}

void apply_node_fencing(struct apply *a, const Drover__CmdNodeFencing *c)
{
	struct node_row node;

	if (!apply_need_node(a, c->node, &node))
		return;
	if (c->on) {
		fencing_begin(a, c, &node);
		return;
	}
	/* Another leader has begun anew: its word, not this one's. */
	if (node.fencing == 0 || (c->began != 0 && c->began != node.fencing))
		return;
	fencing_clear(a, c->node);
	apply_event(a, "fence", (struct about){.node = c->node}, "%s is not fenced: %s", c->node, c->reason);
	apply_message(a, "%s is not fenced: %s", c->node, c->reason);
	a->out->changed = true;
}

void apply_node_fenced(struct apply *a, const Drover__CmdNodeFenced *c)
{
	struct node_row node;

	if (!apply_need_node(a, c->node, &node))
		return;
	if (c->boot_id.len > 0 && node.has_boot && !msg_same_bytes(&c->boot_id, node.boot_id, ROWS_ID)) {
		apply_refuse(a, DR_EREFUSED, "%s has booted since: nothing was fenced", c->node);
		return;
	}
	if (node.fencing != 0)
		fencing_clear(a, c->node);
	if (rows_audit(a->db)) {
		audit_fenced(a, c->node);
		a->out->changed = true;
	}
	if (node.has_fenced && node.has_boot && memcmp(node.fenced_boot, node.boot_id, ROWS_ID) == 0)
		return; /* this boot is fenced already */
	if (!rows_audit(a->db))
		attempt_host_died(a, c->node, "it was fenced");
	db_exec(a->db,
		"UPDATE node SET fenced_boot = boot_id, health = 'down', health_why = ?, leaving = x'' WHERE "
		"name = ?",
		"ss", c->proof, c->node);
	apply_event(a, "fence", (struct about){.node = c->node}, "%s is fenced (%s)", c->node, c->proof);
	a->out->changed = true;
}
