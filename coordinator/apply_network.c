/* Networks and limits. */
#include <stdio.h>
#include <string.h>

#include "common/names.h"
#include "coordinator/apply_private.h"
#include "coordinator/limits.h"
#include "coordinator/subnet.h"

#define NETWORKS_MAX 256

/* ---------------------------------------------------------------- discovery (DESIGN §6) */

static void add_addresses(struct apply *a, const char *node, const Drover__HostFacts *facts)
{
	char subnet[SUBNET_TEXT];

	db_exec(a->db, "DELETE FROM node_address WHERE node = ?", "s", node);
	for (size_t i = 0; i < facts->n_addresses; i++) {
		const Drover__HostAddress *h = facts->addresses[i];

		if (!subnet_of(h->address, h->prefix, subnet))
			continue;
		if (!db_exists(a->db, "SELECT 1 FROM network WHERE subnet = ?", "s", subnet)) {
			char name[SUBNET_TEXT];

			db_exec(a->db,
				"INSERT INTO network (name, subnet, rank, rank_set, excluded, renamed)"
				" VALUES (?, ?, 100, 0, 0, 0)",
				"ss", subnet_name(subnet, name), subnet);
		}
		db_exec(a->db,
			"INSERT INTO node_address (node, subnet, address, interface, speed, mtu, up, rdma,"
			" default_gateway, corosync) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
			" ON CONFLICT (node, subnet, address) DO NOTHING",
			"ssssuuiiii", node, subnet, h->address, h->interface, h->speed, (uint64_t)h->mtu,
			h->up, h->rdma, h->default_gateway, h->corosync);
	}
}

/* A network that nobody has an address in, and that no operator has spoken about, is forgotten. */
static void drop_unused(struct apply *a)
{
	db_exec(a->db,
		"DELETE FROM network WHERE rank_set = 0 AND excluded = 0 AND renamed = 0"
		" AND NOT EXISTS (SELECT 1 FROM node_address n WHERE n.subnet = network.subnet)"
		" AND NOT EXISTS (SELECT 1 FROM setting s WHERE s.scope = 'network' AND s.name = "
		"network.name)",
		"");
}

/* The interface's name if it is the same on all nodes, else the subnet. */
static void wanted_name(struct apply *a, const char *subnet, char *name, size_t size)
{
	struct db_rows rows;
	char text[SUBNET_TEXT];
	unsigned n = 0;

	db_query(a->db, &rows,
		 "SELECT DISTINCT interface FROM node_address WHERE subnet = ? ORDER BY interface LIMIT 2",
		 "s", subnet);
	while (db_next(&rows)) {
		if (n++ == 0)
			db_copy_text(&rows, 0, name, size);
	}
	if (n != 1 || !names_valid(name) ||
	    db_exists(a->db, "SELECT 1 FROM network WHERE name = ? AND subnet <> ?", "ss", name, subnet))
		snprintf(name, size, "%s", subnet_name(subnet, text));
}

static void name_and_rank(struct apply *a, const char *subnet)
{
	char name[ROWS_NAME];
	bool corosync =
		db_exists(a->db, "SELECT 1 FROM node_address WHERE subnet = ? AND corosync = 1", "s", subnet);
	bool gateway = db_exists(a->db, "SELECT 1 FROM node_address WHERE subnet = ? AND default_gateway = 1",
				 "s", subnet);

	db_exec(a->db, "UPDATE network SET rank = ? WHERE subnet = ? AND rank_set = 0 AND rank <> ?", "isi",
		corosync  ? 900
		: gateway ? 200
			  : 100,
		subnet,
		corosync  ? 900
		: gateway ? 200
			  : 100);
	/* A name that an operator may have used stays. */
	wanted_name(a, subnet, name, sizeof(name));
	db_exec(a->db,
		"UPDATE network SET name = ? WHERE subnet = ? AND name <> ? AND renamed = 0 AND rank_set = 0"
		" AND excluded = 0"
		" AND NOT EXISTS (SELECT 1 FROM setting s WHERE s.scope = 'network' AND s.name = "
		"network.name)",
		"sss", name, subnet, name);
}

void network_discover(struct apply *a, const char *node, const Drover__HostFacts *facts)
{
	static const char *const sql = "SELECT subnet FROM network WHERE subnet > ? ORDER BY subnet LIMIT 1";
	char subnet[SUBNET_TEXT] = "";

	add_addresses(a, node, facts);
	drop_unused(a);
	for (unsigned i = 0; i < NETWORKS_MAX; i++) {
		struct db_rows rows;
		bool more;

		db_query(a->db, &rows, sql, "s", subnet);
		more = db_next(&rows);
		if (more)
			db_copy_text(&rows, 0, subnet, sizeof(subnet));
		db_done(&rows);
		if (!more)
			break;
		name_and_rank(a, subnet);
	}
}

/* ---------------------------------------------------------------- the operator's word */

static bool need_network(struct apply *a, const char *name)
{
	if (db_exists(a->db, "SELECT 1 FROM network WHERE name = ?", "s", name))
		return true;
	apply_refuse(a, DR_ENOENT, "no network '%.64s'", name);
	return false;
}

void apply_network_order(struct apply *a, const Drover__NetworkOrder *c)
{
	for (size_t i = 0; i < c->n_ranks; i++) {
		if (!need_network(a, c->ranks[i]->network))
			return;
		if (db_exec(a->db,
			    "UPDATE network SET rank = ?, rank_set = 1 WHERE name = ? AND NOT (rank = ? AND "
			    "rank_set = 1)",
			    "usu", (uint64_t)c->ranks[i]->rank, c->ranks[i]->network,
			    (uint64_t)c->ranks[i]->rank) > 0)
			a->out->changed = true;
	}
}

static void rename_network(struct apply *a, const Drover__NetworkVerb *c)
{
	if (c->n_networks != 1 || !names_valid(c->new_name)) {
		apply_refuse(a, DR_EUSAGE, "'%.64s' can't be a network's name: 1-63 of a-z A-Z 0-9 . _ -",
			     c->new_name);
		return;
	}
	if (strcmp(c->networks[0], c->new_name) == 0)
		return;
	if (db_exists(a->db, "SELECT 1 FROM network WHERE name = ?", "s", c->new_name)) {
		apply_refuse(a, DR_EREFUSED, "a network '%s' exists already", c->new_name);
		return;
	}
	db_exec(a->db, "UPDATE network SET name = ?, renamed = 1 WHERE name = ?", "ss", c->new_name,
		c->networks[0]);
	db_exec(a->db, "UPDATE setting SET name = ? WHERE scope = 'network' AND name = ?", "ss", c->new_name,
		c->networks[0]);
	a->out->changed = true;
	a->out->touched_all = true;
}

void apply_network_verb(struct apply *a, const Drover__NetworkVerb *c)
{
	bool excluded = c->verb == DROVER__NETWORK_VERB__VERB__EXCLUDE;

	for (size_t i = 0; i < c->n_networks; i++) {
		if (!need_network(a, c->networks[i]))
			return;
	}
	switch (c->verb) {
	case DROVER__NETWORK_VERB__VERB__RENAME:
		rename_network(a, c);
		return;
	case DROVER__NETWORK_VERB__VERB__EXCLUDE:
	case DROVER__NETWORK_VERB__VERB__INCLUDE:
		for (size_t i = 0; i < c->n_networks; i++) {
			if (db_exec(a->db, "UPDATE network SET excluded = ? WHERE name = ? AND excluded <> ?",
				    "isi", excluded, c->networks[i], excluded) > 0) {
				a->out->changed = true;
				apply_event(a, "network", (struct about){0}, "network %s is %s",
					    c->networks[i], excluded ? "excluded" : "included");
			}
		}
		return;
	case DROVER__NETWORK_VERB__VERB__PROBE:
	case _DROVER__NETWORK_VERB__VERB_IS_INT_SIZE:
		break;
	}
	apply_refuse(a, DR_EUSAGE, "not supported yet");
}

void apply_limit_set(struct apply *a, const Drover__LimitSet *c)
{
	const char *scope = c->node[0] != '\0' ? "node" : c->network[0] != '\0' ? "network" : "cluster";
	const char *name = c->node[0] != '\0' ? c->node : c->network;
	struct node_row node;
	char value[64];
	char why[256];

	if ((c->node[0] != '\0' && !apply_need_node(a, c->node, &node)) ||
	    (c->network[0] != '\0' && !need_network(a, c->network)))
		return;
	for (size_t i = 0; i < c->n_mask; i++) {
		const struct limit_key *key = limits_key(c->mask[i]);

		if (key == NULL || (c->node[0] != '\0' && !key->node) ||
		    (c->network[0] != '\0' && !key->network)) {
			apply_refuse(a, DR_EUSAGE, "%.32s can't be set for a %s", c->mask[i], scope);
			return;
		}
		if (!limits_check(c, key, why, sizeof(why))) {
			apply_refuse(a, DR_EUSAGE, "%s", why);
			return;
		}
		limits_value(c, key, value, sizeof(value));
		if (db_exec(a->db,
			    "INSERT INTO setting (scope, name, key, value) VALUES (?, ?, ?, ?)"
			    " ON CONFLICT (scope, name, key) DO UPDATE SET value = excluded.value"
			    " WHERE value <> excluded.value",
			    "ssss", scope, name, c->mask[i], value) > 0)
			a->out->changed = true;
	}
	a->out->touched_all = a->out->changed;
}
