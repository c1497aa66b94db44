#include "coordinator/fencing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "coordinator/fence.h"
#include "coordinator/fence_spec.h"
#include "coordinator/rows.h"

#define REQUESTS_MAX 8
#define KEEP_US	     10000000 /* a failure, for the requests that wait for it */
#define LEFT_GRACE_US                                                                                        \
	5000000 /* for a client to ask a new leader again, before the announcement is taken back */

enum fencing_state {
	FENCING_ANNOUNCED, /* proposed */
	FENCING_RUNNING,   /* applied: the agent runs */
	FENCING_DECIDING,  /* NodeFenced is proposed */
	FENCING_FAILED,
};

struct fencing {
	struct fencing *next;
	struct server *server;
	char node[ROWS_NAME];
	enum fencing_state state;
	uint64_t began; /* index of the announcement */
	char agent[FENCE_AGENT_MAX];
	uint8_t boot_id[ROWS_ID];
	bool has_boot;
	struct {
		uint8_t id[SERVER_REQUEST_ID];
		char who[128];
	} requests[REQUESTS_MAX];
	unsigned n_requests;
	char error[DR_ERROR_TEXT];
	uint64_t until_us;
};

static struct fencing *find(struct server *s, const char *node)
{
	for (struct fencing *f = s->fencing; f != NULL; f = f->next) {
		if (strcmp(f->node, node) == 0)
			return f;
	}
	return NULL;
}

static void forget(struct fencing *f)
{
	struct fencing **at = &f->server->fencing;

	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	free(f);
}

static void add_request(struct fencing *f, const Drover__Request *request, const char *who)
{
	if (f->n_requests == REQUESTS_MAX || request->id.len != SERVER_REQUEST_ID)
		return;
	memcpy(f->requests[f->n_requests].id, request->id.data, SERVER_REQUEST_ID);
	snprintf(f->requests[f->n_requests].who, sizeof(f->requests[0].who), "%s", who);
	f->n_requests++;
}

static bool has_request(const struct fencing *f, const Drover__Request *request)
{
	for (unsigned i = 0; i < f->n_requests; i++) {
		if (request->id.len == SERVER_REQUEST_ID &&
		    memcmp(f->requests[i].id, request->id.data, SERVER_REQUEST_ID) == 0)
			return true;
	}
	return false;
}

/* For history: whoever asked first, and what. */
static void sign(struct fencing *f, Drover__Command *cmd, char what[128])
{
	snprintf(what, 128, "node fence %s", f->node);
	cmd->who = f->n_requests > 0 ? f->requests[0].who : (char *)(uintptr_t) "";
	cmd->what = what;
}

static void take_back(struct server *s, const char *node, uint64_t began, const char *reason,
		      struct fencing *f)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdNodeFencing fencing = DROVER__CMD_NODE_FENCING__INIT;
	char what[128];

	fencing.node = (char *)(uintptr_t)node;
	fencing.began = began;
	fencing.reason = (char *)(uintptr_t)reason;
	cmd.body_case = DROVER__COMMAND__BODY_NODE_FENCING;
	cmd.node_fencing = &fencing;
	if (f != NULL)
		sign(f, &cmd, what);
	leader_propose(s, &cmd, NULL, NULL);
}

static void fail(struct fencing *f, const char *why)
{
	log_error("node %s is not fenced: %s", f->node, why);
	snprintf(f->error, sizeof(f->error), "%s", why);
	f->state = FENCING_FAILED;
	f->until_us = env_now_us(f->server->env) + KEEP_US;
	if (f->began != 0)
		take_back(f->server, f->node, f->began, f->error, f);
}

/* --- requests ---------------------------------------------------------------------- */

int fencing_request(struct server *s, const Drover__Request *request, Drover__Response *answer)
{
	struct fencing *f;

	if (request->verb_case != DROVER__REQUEST__VERB_NODE_VERB || request->dry_run ||
	    request->node_verb->verb != DROVER__NODE_VERB__VERB__FENCE || request->node_verb->confirmed ||
	    (f = find(s, request->node_verb->node)) == NULL || !has_request(f, request))
		return 0;
	if (f->state != FENCING_FAILED)
		return 2;
	answer->exit = DR_EFAILED;
	answer->message = strdup(f->error);
	return 1;
}

/* A host does not fence itself: it would be dead before it knew. Another one must lead first. */
static int own_host(struct server *s, Drover__Response *answer)
{
	struct consensus_member members[SERVER_PEERS_MAX];
	unsigned n = consensus_members(s->consensus, members, SERVER_PEERS_MAX);

	for (unsigned i = 0; i < n; i++) {
		if (members[i].role != MEMBER_VOTER || members[i].id == consensus_self(s->consensus) ||
		    peers_lost(s, members[i].id))
			continue;
		log_notice("hands the lead over: this host is to be fenced");
		consensus_transfer(s->consensus);
		return -DR_EAGAIN;
	}
	answer->exit = DR_EREFUSED;
	answer->message = strdup("this host leads the cluster, and nobody else can fence it");
	return 1;
}

int fencing_begin(struct server *s, const Drover__Request *request, const char *who,
		  const Drover__Command *announcement, Drover__Response *answer)
{
	const Drover__CmdNodeFencing *body = announcement->node_fencing;
	Drover__Command cmd = DROVER__COMMAND__INIT;
	struct fencing *f = find(s, body->node);
	int ret;

	if (f != NULL && f->state != FENCING_FAILED) {
		add_request(f, request, who);
		return 2;
	}
	if (strcmp(body->node, s->conf.name) == 0)
		return own_host(s, answer);
	/* Without the request's id: that one is for the decision. */
	cmd.body_case = DROVER__COMMAND__BODY_NODE_FENCING;
	cmd.node_fencing = announcement->node_fencing;
	ret = leader_propose(s, &cmd, NULL, NULL);
	if (ret < 0)
		return ret;
	if (f != NULL)
		forget(f);
	f = calloc(1, sizeof(*f));
	if (f == NULL)
		return -DR_ENOMEM;
	f->server = s;
	snprintf(f->node, sizeof(f->node), "%s", body->node);
	snprintf(f->agent, sizeof(f->agent), "%s", body->agent);
	f->has_boot = body->boot_id.len == ROWS_ID;
	if (f->has_boot)
		memcpy(f->boot_id, body->boot_id.data, ROWS_ID);
	add_request(f, request, who);
	f->next = s->fencing;
	s->fencing = f;
	return 2;
}

/* --- the agent --------------------------------------------------------------------- */

static void agent_done(void *data, const char *node, int status, const struct dr_error *err)
{
	struct server *s = data;
	struct fencing *f = find(s, node);
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdNodeFenced fenced = DROVER__CMD_NODE_FENCED__INIT;
	char proof[FENCE_AGENT_MAX + 16];
	char what[128];
	int ret;

	if (f == NULL)
		return;
	if (status < 0) {
		fail(f, err->text);
		return;
	}
	log_notice("node %s is off, %s says", node, f->agent);
	snprintf(proof, sizeof(proof), "agent %s", f->agent);
	fenced.node = f->node;
	fenced.proof = proof;
	if (f->has_boot) {
		fenced.boot_id.data = f->boot_id;
		fenced.boot_id.len = ROWS_ID;
	}
	cmd.body_case = DROVER__COMMAND__BODY_NODE_FENCED;
	cmd.node_fenced = &fenced;
	sign(f, &cmd, what);
	if (f->n_requests > 0) {
		cmd.request_id.data = f->requests[0].id;
		cmd.request_id.len = SERVER_REQUEST_ID;
	}
	f->state = FENCING_DECIDING;
	ret = leader_propose(s, &cmd, NULL, NULL);
	if (ret < 0)
		fail(f, "the host is off, but this coordinator leads no more: repeat the command");
}

static void agent_start(struct fencing *f)
{
	struct server *s = f->server;
	struct dr_error err = DR_ERROR_INIT;
	DR_AUTO_FREE char *spec = rows_fence_spec(s->db, f->node);

	f->state = FENCING_RUNNING;
	if (spec == NULL)
		fail(f, "its fence agent was taken away meanwhile");
	else if (fence_off(s->fences, f->node, spec, agent_done, s, &err) < 0)
		fail(f, err.text);
	else
		log_notice("node %s: %s switches it off", f->node, f->agent);
}

/* --- what is applied --------------------------------------------------------------- */

void fencing_applied(struct server *s, uint64_t index, const Drover__Command *cmd,
		     const struct apply_result *result)
{
	bool announced = cmd->body_case == DROVER__COMMAND__BODY_NODE_FENCING && cmd->node_fencing->on;
	struct fencing *f = NULL;

	/* Of an earlier leader: not this one's to go on with (SAFETY R13). */
	if (s->leading_term == 0 || cmd->term != s->leading_term)
		return;
	if (announced)
		f = find(s, cmd->node_fencing->node);
	else if (cmd->body_case == DROVER__COMMAND__BODY_NODE_FENCED)
		f = find(s, cmd->node_fenced->node);
	if (f == NULL)
		return;
	if (announced && f->state == FENCING_ANNOUNCED && result->exit == 0) {
		f->began = index;
		agent_start(f);
	} else if (announced && f->state == FENCING_ANNOUNCED) {
		fail(f, result->message);
	} else if (!announced && result->exit != 0) {
		fail(f, result->message);
	} else if (!announced) {
		fence_cancel(s->fences, f->node); /* the operator's word may have come first */
		forget(f);
	}
}

void fencing_tick(struct server *s)
{
	uint64_t now = env_now_us(s->env);
	struct fencing *next;
	struct db_rows rows;
	struct node_row node;

	for (struct fencing *f = s->fencing; f != NULL; f = next) {
		next = f->next;
		if (f->state == FENCING_FAILED && now >= f->until_us)
			forget(f);
	}
	if (now < s->leading_since_us + LEFT_GRACE_US)
		return;
	db_query(s->db, &rows, "SELECT " NODE_COLUMNS " FROM node ORDER BY name", "");
	while (db_next(&rows)) {
		rows_node_get(&rows, &node);
		if (node.fencing != 0 && find(s, node.name) == NULL)
			take_back(s, node.name, node.fencing,
				  "the coordinator that began it leads no more: repeat the command", NULL);
	}
}

void fencing_end(struct server *s)
{
	while (s->fencing != NULL) {
		fence_cancel(s->fences, s->fencing->node);
		forget(s->fencing);
	}
}
