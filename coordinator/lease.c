#include "coordinator/lease.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mutant.h"
#include "coordinator/msg.h"
#include "coordinator/rows.h"

#define ROUND_LOST_US 5000000
#define NODES_MAX     4096

struct lease_node {
	char name[ROWS_NAME];
	uint8_t start_id[ROWS_ID];
	uint64_t seq; /* of the newest request */
	bool asked;   /* that request waits for a round */
	uint64_t asked_us;
	bool in_round; /* that round's entry */
	uint64_t round_seq;
	uint64_t until_us; /* the leader's count; the agent's own ends earlier */
	bool blocked;
};

struct lease_book {
	struct env *env;
	uint64_t term;
	uint64_t duration_us;
	struct lease_node *nodes;
	size_t n_nodes;
	bool round_open;
	uint64_t round_us;
};

/* What a lease is good for by the leader's clock: 1 % more, because clocks differ in rate (SAFETY R8). */
static uint64_t end_of(const struct lease_book *book, uint64_t from_us)
{
	return from_us + book->duration_us + book->duration_us / 100;
}

static struct lease_node *find(struct lease_book *book, const char *name, bool make)
{
	struct lease_node *node;

	for (size_t i = 0; i < book->n_nodes; i++) {
		if (strcmp(book->nodes[i].name, name) == 0)
			return &book->nodes[i];
	}
	if (!make || book->n_nodes == NODES_MAX)
		return NULL;
	node = &book->nodes[book->n_nodes++];
	memset(node, 0, sizeof(*node));
	snprintf(node->name, sizeof(node->name), "%s", name);
	/* Seen for the first time: as if renewed now, which is never too early. */
	node->until_us = DR_MUTANT(new_leader_forgets) ? 0 : end_of(book, env_now_us(book->env));
	return node;
}

struct lease_book *lease_book_new(struct env *env, uint64_t term, uint64_t duration_ms)
{
	struct lease_book *book = msg_alloc(sizeof(*book));

	book->env = env;
	book->term = term;
	book->duration_us = duration_ms * 1000;
	book->nodes = msg_alloc(NODES_MAX * sizeof(*book->nodes));
	return book;
}

void lease_book_free(struct lease_book *book)
{
	if (book == NULL)
		return;
	free(book->nodes);
	free(book);
}

void lease_request(struct lease_book *book, const char *node, const uint8_t start_id[16], uint64_t seq)
{
	struct lease_node *n = find(book, node, true);

	if (n == NULL)
		return;
	/* An older request of the same start changes nothing; another start begins anew. */
	if (memcmp(n->start_id, start_id, ROWS_ID) == 0 && seq <= n->seq)
		return;
	memcpy(n->start_id, start_id, ROWS_ID);
	n->seq = seq;
	n->asked = true;
	n->asked_us = env_now_us(book->env);
}

void lease_round(struct lease_book *book, command_emit_fn emit, void *data)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdLeaseRound round = DROVER__CMD_LEASE_ROUND__INIT;
	Drover__LeaseEntry *entries;
	Drover__LeaseEntry **list;
	uint64_t now = env_now_us(book->env);

	if (book->round_open && now - book->round_us < ROUND_LOST_US)
		return;
	book->round_open = false;
	entries = msg_alloc((book->n_nodes + 1) * sizeof(*entries));
	list = msg_alloc((book->n_nodes + 1) * sizeof(*list));
	for (size_t i = 0; i < book->n_nodes; i++) {
		struct lease_node *n = &book->nodes[i];
		Drover__LeaseEntry *e = &entries[round.n_entries];

		n->in_round = n->asked && !n->blocked;
		if (!n->in_round)
			continue;
		n->asked = false;
		n->round_seq = n->seq;
		drover__lease_entry__init(e);
		e->node = n->name;
		e->start_id.data = n->start_id;
		e->start_id.len = ROWS_ID;
		e->seq = n->seq;
		list[round.n_entries++] = e;
	}
	if (round.n_entries > 0) {
		round.entries = list;
		round.duration_ms = book->duration_us / 1000;
		cmd.body_case = DROVER__COMMAND__BODY_LEASE_ROUND;
		cmd.lease_round = &round;
		book->round_open = true;
		book->round_us = now;
		emit(data, &cmd);
	}
	free(list);
	free(entries);
}

static void grant_one(struct lease_book *book, struct db *db, const Drover__LeaseEntry *e,
		      uint64_t duration_ms, lease_grant_fn grant, void *data)
{
	struct lease_node *n = find(book, e->node, false);
	Drover__LeaseGrant message = DROVER__LEASE_GRANT__INIT;
	struct node_row row;

	if (n == NULL || !n->in_round || n->round_seq != e->seq || e->start_id.len != ROWS_ID)
		return;
	n->in_round = false;
	if (n->blocked || !rows_node(db, e->node, &row) || !row.session ||
	    memcmp(row.start_id, e->start_id.data, ROWS_ID) != 0)
		return;
	if (rows_node_barred(&row))
		return;
	/* The agent counts from when it sent the request; the leader from now, which is later. */
	n->until_us = end_of(book, env_now_us(book->env));
	message.seq = e->seq;
	message.duration_ms = duration_ms;
	message.term = book->term;
	grant(data, e->node, e->start_id.data, &message);
}

void lease_committed(struct lease_book *book, struct db *db, uint64_t term,
		     const Drover__CmdLeaseRound *round, lease_grant_fn grant, void *data)
{
	if (term != book->term)
		return; /* of an earlier leader: says nothing about this one (SAFETY R8) */
	for (size_t i = 0; i < round->n_entries; i++)
		grant_one(book, db, round->entries[i], round->duration_ms, grant, data);
	book->round_open = false;
}

void lease_block(struct lease_book *book, const char *node, bool blocked)
{
	struct lease_node *n = find(book, node, true);

	if (n != NULL)
		n->blocked = blocked;
}

bool lease_blocked(struct lease_book *book, const char *node)
{
	const struct lease_node *n = find(book, node, false);

	return n != NULL && n->blocked;
}

uint64_t lease_left_ms(struct lease_book *book, const char *node)
{
	struct lease_node *n = find(book, node, false);
	uint64_t now = env_now_us(book->env);

	return n != NULL && n->until_us > now ? (n->until_us - now) / 1000 : 0;
}

void lease_health(struct lease_book *book, struct db *db, command_emit_fn emit, void *data)
{
	struct db_rows rows;

	db_query(db, &rows, "SELECT " NODE_COLUMNS " FROM node ORDER BY name", "");
	while (db_next(&rows)) {
		Drover__Command cmd = DROVER__COMMAND__INIT;
		Drover__CmdNodeHealth body = DROVER__CMD_NODE_HEALTH__INIT;
		struct node_row row;
		const char *health;
		bool fenced;

		rows_node_get(&rows, &row);
		find(book, row.name, true); /* counts as renewed when this book first hears of it */
		fenced = row.has_fenced && row.has_boot && memcmp(row.fenced_boot, row.boot_id, ROWS_ID) == 0;
		health = fenced				     ? "down"
			 : lease_left_ms(book, row.name) > 0 ? "up"
			 : row.session			     ? "isolated"
							     : "down";
		/* An agent that stopped cleanly is no accident, but nothing can be done on its host. */
		if (strcmp(health, row.health) == 0)
			continue;
		/* A new leader's count starts full: it does not raise a node that nobody has heard since. */
		if (strcmp(health, "up") == 0 && !row.session)
			continue;
		body.node = row.name;
		body.health = (char *)(uintptr_t)health;
		body.why = (char *)(uintptr_t)(strcmp(health, "up") == 0 ? ""
					       : row.session		 ? "its lease ended"
							     : "its agent is lost and its lease ended");
		cmd.body_case = DROVER__COMMAND__BODY_NODE_HEALTH;
		cmd.node_health = &body;
		emit(data, &cmd);
	}
}
