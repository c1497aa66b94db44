/* Requests about fencing: node set --fence, node fence. */
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "coordinator/fence_spec.h"
#include "coordinator/requests_private.h"

void ask_node_set(struct ask *a, const Drover__NodeSet *set)
{
	struct dr_error err = DR_ERROR_INIT;
	DR_AUTO_FREE char *old = NULL;
	char spec[FENCE_SPEC_MAX];
	struct node_row node;

	if (!ask_node(a, set->node, &node))
		return;
	if (fence_spec_build(set, spec, &err) < 0) {
		ask_refuse(a, DR_EUSAGE, "%s", err.text);
		return;
	}
	old = rows_fence_spec(a->db, set->node);
	if (strcmp(spec, old != NULL ? old : "") == 0) {
		ask_unchanged(a, "%s has that fence agent already", set->node);
		return;
	}
	a->cmd->body_case = DROVER__COMMAND__BODY_NODE_SET;
	a->cmd->node_set = msg_clone(set);
	ask_would(a, "%s would be fenced with %s", set->node, set->fence_agent);
}

static void fenced_command(struct ask *a, const struct node_row *node, const char *proof)
{
	a->cmd->body_case = DROVER__COMMAND__BODY_NODE_FENCED;
	a->cmd->node_fenced = MSG_NEW(drover__cmd_node_fenced, Drover__CmdNodeFenced);
	msg_set(&a->cmd->node_fenced->node, node->name);
	msg_set(&a->cmd->node_fenced->proof, proof);
	if (node->has_boot)
		msg_set_bytes(&a->cmd->node_fenced->boot_id, node->boot_id, ROWS_ID);
}

/* The command is the announcement; the caller runs the agent once that is applied (fencing.h). */
static void ask_fence_agent(struct ask *a, const Drover__NodeVerb *verb, const struct node_row *node)
{
	DR_AUTO_FREE char *spec = rows_fence_spec(a->db, node->name);
	char agent[FENCE_AGENT_MAX];

	if (spec == NULL) {
		ask_refuse(
			a, DR_EREFUSED,
			"%s has no fence agent, and a silent host may still run its VMs: make sure that it "
			"is "
			"off and repeat with --confirmed, or give it one (drover node set %s --fence AGENT)",
			node->name, node->name);
		return;
	}
	if (node->session && strcmp(node->health, "up") == 0 && !verb->force) {
		ask_refuse(
			a, DR_EREFUSED,
			"%s is alive: its agent is connected. Drain it instead; --force cuts its power, with "
			"every VM on it",
			node->name);
		return;
	}
	fence_spec_agent(spec, agent);
	a->cmd->body_case = DROVER__COMMAND__BODY_NODE_FENCING;
	a->cmd->node_fencing = MSG_NEW(drover__cmd_node_fencing, Drover__CmdNodeFencing);
	msg_set(&a->cmd->node_fencing->node, node->name);
	a->cmd->node_fencing->on = true;
	msg_set(&a->cmd->node_fencing->agent, agent);
	if (node->has_boot)
		msg_set_bytes(&a->cmd->node_fencing->boot_id, node->boot_id, ROWS_ID);
	ask_would(a, "%s would switch %s off; its VMs would count as stopped", agent, node->name);
}

void ask_fence(struct ask *a, const Drover__NodeVerb *verb, const struct node_row *node)
{
	/* A repetition of what is decided never reaches the host again: apply finds the request's result. */
	if (rows_request(a->db, &a->request->id)) {
		fenced_command(a, node, "");
		return;
	}
	if (node->fencing == 0 && rows_node_barred(node)) {
		ask_unchanged(a, "%s is fenced already: it may come back once it has booted anew",
			      node->name);
		return;
	}
	if (!verb->confirmed) {
		ask_fence_agent(a, verb, node);
		return;
	}
	if (node->session && strcmp(node->health, "up") == 0) {
		ask_refuse(a, DR_EREFUSED, "%s is alive: its agent is connected. Drain it instead",
			   node->name);
		return;
	}
	/* SAFETY R9: what was seen proves nothing about a boot that came after it, however late this arrives.
	 */
	if (verb->boot_id.len != 0 && node->has_boot &&
	    !msg_same_bytes(&verb->boot_id, node->boot_id, ROWS_ID)) {
		ask_refuse(a, DR_EREFUSED, "%s has booted since: make sure that it is off, and repeat",
			   node->name);
		return;
	}
	fenced_command(a, node, "operator");
	ask_would(a, "%s would count as dead; its VMs as stopped", node->name);
}
