/* `drover cluster check`: what the rows alone tell. Each finding says what was measured, why it matters, what
 * mends it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/requests_private.h"

#define MTU_JUMBO	  9000u
#define COORDINATORS_GOOD 3u

static void finding(Drover__Response *r, const char *severity, const char *object, char *take_measured,
		    const char *why, char *take_mend)
{
	Drover__Finding *f = MSG_NEW(drover__finding, Drover__Finding);

	msg_set(&f->severity, severity);
	msg_set(&f->object, object);
	msg_set(&f->measured, take_measured);
	msg_set(&f->why, why);
	msg_set(&f->mend, take_mend);
	free(take_measured);
	free(take_mend);
	msg_push(&r->findings, &r->n_findings, f);
}

static void check_coordinators(struct db *db, Drover__Response *r)
{
	uint64_t n = db_get_u64(db, "SELECT count(*) FROM member WHERE removed = 0", "");

	if (n < COORDINATORS_GOOD)
		finding(r, "warning", "cluster", msg_printf("%llu coordinators", (unsigned long long)n),
			"fewer than three survive no loss: without a majority nothing can be changed",
			msg_dup("drover cluster join, on another machine (a small witness without VMs will "
				"do)"));
}

static void check_networks(struct db *db, Drover__Response *r)
{
	struct db_rows rows;

	db_query(db, &rows,
		 "SELECT n.name, min(a.mtu), max(a.corosync), min(a.speed), max(a.speed), max(a.up), "
		 "min(a.up), n.rank"
		 " FROM network n JOIN node_address a ON a.subnet = n.subnet WHERE n.excluded = 0 GROUP BY "
		 "n.name"
		 " ORDER BY n.name",
		 "");
	while (db_next(&rows)) {
		char name[ROWS_NAME];

		db_copy_text(&rows, 0, name, sizeof(name));
		if (db_u64(&rows, 1) < MTU_JUMBO)
			finding(r, "info", name, msg_printf("MTU %llu", (unsigned long long)db_u64(&rows, 1)),
				"frames of 9000 bytes cost less CPU per byte moved",
				msg_printf("raise the MTU of %s on all hosts and its switch", name));
		if (db_bool(&rows, 2))
			finding(r, "warning", name,
				msg_printf("carries a corosync link, rank %llu",
					   (unsigned long long)db_u64(&rows, 7)),
				"a copy that fills it delays the cluster's own messages",
				msg_printf("drover limit set --network %s --bandwidth RATE (half of the "
					   "link's), or "
					   "drover network exclude %s",
					   name, name));
		if (db_u64(&rows, 3) != db_u64(&rows, 4))
			finding(r, "warning", name, msg_dup("links of different speed"),
				"a move is as slow as the slower of its two hosts",
				msg_dup("look for a cable or port that negotiated a lower speed"));
		if (!db_bool(&rows, 6))
			finding(r, "error", name, msg_dup("down on at least one host"),
				"moves use a network of a lower rank",
				msg_printf("drover network show %s", name));
	}
}

static void check_nodes(struct db *db, Drover__Response *r)
{
	struct db_rows rows;
	struct node_row node;

	db_query(db, &rows, "SELECT " NODE_COLUMNS " FROM node ORDER BY name", "");
	while (db_next(&rows)) {
		Drover__HostFacts *facts;

		rows_node_get(&rows, &node);
		if (strcmp(node.health, "up") != 0)
			finding(r, "error", node.name, msg_printf("%s: %s", node.health, node.health_why),
				"its VMs can't be managed", msg_printf("drover node show %s", node.name));
		facts = rows_facts(db, node.name);
		if (facts != NULL && facts->watchdog_timeout_ms == 0)
			finding(r, "warning", node.name, msg_dup("no armed watchdog and no fence agent"),
				"nothing proves that a lost host is dead: no automatic failover",
				msg_dup("load a watchdog driver (softdog at least)"));
		if (facts != NULL && !facts->kvm)
			finding(r, "warning", node.name, msg_dup("no KVM"),
				"guests are emulated: slow, and before QEMU 9.0 they can't be moved live",
				msg_dup("enable virtualisation in the firmware, load kvm_intel or kvm_amd"));
		drover__host_facts__free_unpacked(facts, NULL);
	}
}

static void check_qemu(struct db *db, Drover__Response *r)
{
	struct db_rows rows;
	char first[64] = "";
	char first_node[ROWS_NAME] = "";

	db_query(db, &rows, "SELECT name FROM node ORDER BY name", "");
	while (db_next(&rows)) {
		char node[ROWS_NAME];
		Drover__HostFacts *facts;

		db_copy_text(&rows, 0, node, sizeof(node));
		facts = rows_facts(db, node);
		if (facts != NULL && facts->qemu_version[0] != '\0') {
			if (first[0] == '\0') {
				snprintf(first, sizeof(first), "%s", facts->qemu_version);
				snprintf(first_node, sizeof(first_node), "%s", node);
			} else if (strcmp(first, facts->qemu_version) != 0) {
				finding(r, "warning", node,
					msg_printf("QEMU %s; %s has %s", facts->qemu_version, first_node,
						   first),
					"VMs with a newer machine type can't move to the older one",
					msg_dup("install the same version on all hosts"));
			}
		}
		drover__host_facts__free_unpacked(facts, NULL);
	}
}

void read_check(struct db *db, const struct volatile_view *view, Drover__Response *r)
{
	(void)view;
	check_coordinators(db, r);
	check_nodes(db, r);
	check_qemu(db, r);
	check_networks(db, r);
}
