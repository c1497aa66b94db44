/*
 * A rolling upgrade (SAFETY R20): binaries know cluster versions n-1 and n. While one member is of the older
 * kind the cluster stays at n-1; when every member says that it knows n, the leader raises it, by a command.
 */
#include <string.h>

#include "common/log.h"
#include "common/mutant.h"
#include "coordinator/apply.h"
#include "coordinator/rows.h"
#include "coordinator/server.h"

/* The version that a member offers; 0 when it is not heard. */
static unsigned offered(struct server *s, uint64_t member)
{
	if (member == consensus_self(s->consensus))
		return APPLY_VERSION;
	if (peers_lost(s, member))
		return 0;
	return peers_find(s, member)->version_max;
}

static void propose(struct server *s, unsigned from)
{
	Drover__Command cmd = DROVER__COMMAND__INIT;
	Drover__CmdClusterVersion body = DROVER__CMD_CLUSTER_VERSION__INIT;

	body.from = from;
	body.to = from + 1;
	cmd.body_case = DROVER__COMMAND__BODY_CLUSTER_VERSION;
	cmd.cluster_version = &body;
	if (leader_propose(s, &cmd, NULL, NULL) == 0)
		log_notice("every coordinator knows cluster version %u: the cluster goes on to it", from + 1);
}

void upgrade_tick(struct server *s)
{
	struct consensus_member members[SERVER_PEERS_MAX];
	unsigned now = rows_cluster_version(s->db);
	unsigned n;

	if (now >= APPLY_VERSION || rows_cluster_incarnation(s->db) == 0)
		return;
	n = consensus_members(s->consensus, members, SERVER_PEERS_MAX);
	for (unsigned i = 0; i < n; i++) {
		unsigned version = offered(s, members[i].id);

		if (version > now || DR_MUTANT(raised_early))
			continue;
		if (s->version_waits != members[i].id)
			log_notice("cluster version %u waits for coordinator %s, which %s", now + 1,
				   members[i].node, version == 0 ? "is not heard" : "is of an older version");
		s->version_waits = members[i].id;
		return;
	}
	s->version_waits = 0;
	propose(s, now);
}

bool upgrade_check(struct server *s)
{
	char why[200];
	unsigned now = rows_cluster_version(s->db);

	if (now <= APPLY_VERSION)
		return true;
	snprintf(why, sizeof(why),
		 "the cluster is at version %u, this program knows %u at most: upgrade this coordinator", now,
		 (unsigned)APPLY_VERSION);
	server_fatal(s, DR_EREFUSED, why);
	return false;
}
