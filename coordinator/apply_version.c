/* The cluster's version: what a command needs, and the one command that raises it (SAFETY R20). */
#include "coordinator/apply_private.h"
#include "coordinator/msg.h"

unsigned apply_needs(const Drover__Command *cmd)
{
	if (cmd->body_case == DROVER__COMMAND__BODY_CLUSTER_VERSION)
		return cmd->cluster_version->to;
	if (cmd->body_case == DROVER__COMMAND__BODY_NODE_SESSION && cmd->node_session->saw_boot.len > 0)
		return APPLY_V_SAW_BOOT;
	return APPLY_VERSION_FIRST;
}

void apply_cluster_version(struct apply *a, const Drover__CmdClusterVersion *c)
{
	unsigned now = rows_cluster_version(a->db);

	if (c->from != now || c->to != now + 1) {
		apply_refuse(a, DR_EREFUSED, "the cluster is at version %u", now);
		return;
	}
	db_exec(a->db,
		"INSERT INTO counter (name, value) VALUES ('version', ?)"
		" ON CONFLICT (name) DO UPDATE SET value = excluded.value",
		"u", (uint64_t)c->to);
	apply_event(a, "cluster", (struct about){0},
		    "the cluster is at version %u now: every coordinator knows it", c->to);
	a->out->changed = true;
}
