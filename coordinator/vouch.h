/*
 * Is this member's log as new as the others know it to have been? (SAFETY R15)
 *
 * A log that was copied back from a backup is whole in itself: chain and mark fit. Its
 * member has forgotten what it acknowledged and whom it voted for. So every member keeps,
 * durably, how far it has seen each other member (PeerStatus, once a second), and a
 * member that starts is mute: it follows, but asks for no vote and gives none until so many
 * voters have spoken that they and itself are a majority. If one of them has seen it further
 * than its log goes, the log is not trusted: the member comes back as a new one.
 *
 * Once a second is coarse: a damaged log may have lost less. So a member says so at once when it has stored
 * more (at most once a tick), and what it shows by its Raft messages is remembered while this process lives.
 *
 * Those who are needed for an election anyway are waited for, so no start is held up for good.
 */
#ifndef DROVER_COORDINATOR_VOUCH_H
#define DROVER_COORDINATOR_VOUCH_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/consensus.h"
#include "coordinator/logdb.h"

#define VOUCH_MEMBERS 32

struct vouch {
	struct logdb_seen own; /* where this start began */
	bool mute;
	uint64_t heard[VOUCH_MEMBERS];
	unsigned n_heard;
	struct logdb_seen seen[VOUCH_MEMBERS]; /* kept in the log */
	struct logdb_seen
		hint[VOUCH_MEMBERS]; /* of the same member, by its Raft messages: newer, and in memory */
	unsigned n_seen;
};

/* Reads what is needed from the log of member `self`, before anything is appended to it. */
int vouch_init(struct vouch *v, struct logdb *log, uint64_t self, struct dr_error *err);
/* How far another member says that it is; true when that is news: *seen is then to be kept in the log. */
bool vouch_note(struct vouch *v, struct logdb_seen *seen);
/* What a Raft message of another member shows: terms and entries that it has stored, and that are committed.
 */
void vouch_hint(struct vouch *v, const struct logdb_seen *hint);
/* The furthest that member i of seen[] is known to have been. */
struct logdb_seen vouch_known(const struct vouch *v, unsigned i);
/* Another member has spoken; about: what it has seen of this one, NULL: nothing. False: this log is older
 * than that, and must not be used. */
bool vouch_heard(struct vouch *v, uint64_t from, const struct logdb_seen *about);
/* Whether those who have spoken are a majority of the voters together with this member. Not while it has no
 * vote by its own list: a log that has lost its end, or all of it, is brought up to date by the leader step
 * by step, and would vote with half of what it once acknowledged. */
bool vouch_enough(const struct vouch *v, const struct consensus_member *members, unsigned n);

#endif
