/*
 * drover cluster force-quorum --dead N,...: the operator's last resort when the majority is gone for
 * good (SAFETY R18). The member that is asked goes on alone in a new incarnation:
 *   - every member that does not answer must be named, and none that answers;
 *   - nobody may lead, and of the survivors the one with the newest log goes on;
 *   - the names are typed once more to confirm that these hosts are off (cli), until then nothing happens.
 * The order is written down, the daemon begins anew, and its start rewrites the log's member list
 * (recover.h). The other survivors and those who come back belong to the old incarnation: nobody talks to
 * them; they join again. What was decided last may be lost: hence the audit (apply_audit.c).
 */
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "coordinator/recover.h"
#include "coordinator/rows.h"
#include "coordinator/server.h"

#define LEADER_SILENT_US 5000000

static bool named(const Drover__ForceQuorum *force, const char *node)
{
	for (size_t i = 0; i < force->n_dead; i++)
		if (strcmp(force->dead[i], node) == 0)
			return true;
	return false;
}

static int check_names(struct server *s, const Drover__ForceQuorum *force,
		       const struct consensus_member *members, unsigned n, struct dr_error *err)
{
	for (size_t i = 0; i < force->n_dead; i++) {
		bool known = false;

		for (unsigned k = 0; k < n; k++)
			known = known || strcmp(members[k].node, force->dead[i]) == 0;
		if (!known)
			return dr_error_set(err, DR_ENOENT, "%.64s is no coordinator of this cluster",
					    force->dead[i]);
	}
	for (unsigned i = 0; i < n; i++) {
		bool lost = members[i].id != s->identity.member && peers_lost(s, members[i].id);

		if (lost && !named(force, members[i].node))
			return dr_error_set(
				err, DR_EREFUSED,
				"%s does not answer either: name it, too, if its host is off for good",
				members[i].node);
		if (!lost && named(force, members[i].node))
			return dr_error_set(err, DR_EREFUSED, "%s answers: it is not dead", members[i].node);
	}
	return 0;
}

static int check_newest(struct server *s, const struct consensus_member *members, unsigned n,
			struct dr_error *err)
{
	uint64_t index, term;

	consensus_last(s->consensus, &index, &term);
	for (unsigned i = 0; i < n; i++) {
		const struct peer *p;

		if (members[i].id == s->identity.member || peers_lost(s, members[i].id))
			continue;
		p = peers_find(s, members[i].id);
		if (p->last_term > term || (p->last_term == term && p->last_index > index))
			return dr_error_set(err, DR_EREFUSED,
					    "the log of %s is newer than this one's: give the command there",
					    members[i].node);
	}
	return 0;
}

/* Is it in the list? Or its host, which answers as another member, since it has lost the log of this one. */
static bool is_listed(struct server *s, const struct consensus_member *members, unsigned n, uint64_t id,
		      const char *node)
{
	for (unsigned i = 0; i < n; i++)
		if (members[i].id == id ||
		    (strcmp(members[i].node, node) == 0 && !peers_lost(s, members[i].id)))
			return true;
	return false;
}

/* While a change of the list is not committed, who was in the list before it may decide with the others: he
 * is named, too. */
static unsigned all_members(struct server *s, struct consensus_member *members, unsigned most)
{
	unsigned listed = consensus_members(s->consensus, members, most), n = listed;
	struct db_rows rows;

	if (consensus_members_settled(s->consensus))
		return n;
	db_query(s->db, &rows, "SELECT id, node FROM member WHERE removed = 0 ORDER BY id", "");
	while (db_next(&rows)) {
		if (n == most || is_listed(s, members, listed, db_u64(&rows, 0), db_text(&rows, 1)))
			continue;
		members[n].id = db_u64(&rows, 0);
		members[n].role = MEMBER_VOTER;
		db_copy_text(&rows, 1, members[n++].node, sizeof(members[0].node));
	}
	return n;
}

int force_quorum(struct server *s, const Drover__ForceQuorum *force, bool dry_run, struct dr_error *err)
{
	struct consensus_member members[SERVER_PEERS_MAX];
	const char *leader = NULL;
	unsigned n;
	int ret;

	if (s->consensus == NULL || s->identity.standalone)
		return dr_error_set(err, DR_EREFUSED, "this coordinator is not one of several members");
	if (s->superseded != 0)
		return dr_error_set(err, DR_EREFUSED,
				    "the cluster goes on elsewhere already, as incarnation %llu: join it",
				    (unsigned long long)recover_incarnation_count(s->superseded));
	n = all_members(s, members, SERVER_PEERS_MAX);
	if (consensus_leader(s->consensus, &leader) != 0 &&
	    env_now_us(s->env) < consensus_heard_us(s->consensus) + LEADER_SILENT_US)
		return dr_error_set(err, DR_EREFUSED, "%s leads the cluster: there is nothing to force",
				    leader != NULL ? leader : "a member");
	ret = check_names(s, force, members, n, err);
	if (ret == 0)
		ret = check_newest(s, members, n, err);
	if (ret < 0 || dry_run)
		return ret;
	if (!force->confirmed)
		return dr_error_set(
			err, DR_EREFUSED,
			"make sure that these hosts are off and stay off, then repeat with --confirmed");
	ret = recover_force_write(
		s->conf.data_dir,
		recover_next_incarnation(s->identity.incarnation, env_utc_us(s->env), server_random_id(s)),
		err);
	if (ret < 0)
		return ret;
	log_notice("force-quorum: goes on alone as incarnation %llu",
		   (unsigned long long)recover_incarnation_count(s->identity.incarnation) + 1);
	return 0;
}
