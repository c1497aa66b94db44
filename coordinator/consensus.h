/*
 * The replicated log, as the rest of the coordinator sees it: propose, be told of
 * what is committed, know the leader and the members. libraft stands behind it and
 * nothing else in the tree includes its header (but raft_io, raft_rpc).
 *
 * Rules that hold here: apply runs in log order on every member, once per start for each
 * index; nothing of an older term counts as committed before an entry of the current
 * term is (SAFETY R14, Raft's own rule); a leader without corosync's quorum is no leader.
 */
#ifndef DROVER_COORDINATOR_CONSENSUS_H
#define DROVER_COORDINATOR_CONSENSUS_H

#include <qb/qbloop.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/env.h"
#include "common/error.h"
#include "coordinator/logdb.h"
#include "coordinator/transport.h"
#include "proto/drover.pb-c.h"

struct consensus;

enum consensus_role { CONSENSUS_OFFLINE, CONSENSUS_FOLLOWER, CONSENSUS_CANDIDATE, CONSENSUS_LEADER };
enum consensus_member_role { MEMBER_JOINING, MEMBER_LEARNER, MEMBER_VOTER };

struct consensus_member {
	uint64_t id;
	char node[64];
	enum consensus_member_role role;
};

struct consensus_ops {
	/* A committed command. Non-zero: the state can't follow; on_fatal is next. */
	int (*apply)(void *data, uint64_t index, const uint8_t *bytes, size_t size);
	/* The state as of the last applied command; *bytes is malloc'ed and taken. */
	int (*snapshot)(void *data, uint8_t **bytes, size_t *size);
	/* Replaces the state. bytes borrowed. The next apply is for an index behind it. */
	int (*restore)(void *data, const uint8_t *bytes, size_t size);
	/* Role, leader or member list may have changed. */
	void (*changed)(void *data);
	/* The member must stop now: its disk or its state failed. */
	void (*fatal)(void *data, enum dr_err code, const char *why);
};

struct consensus_config {
	qb_loop_t *loop;
	struct env *env;
	struct transport *transport; /* borrowed */
	struct logdb *log;	     /* taken */
	struct logdb_identity identity;
	const char *node;
	unsigned election_timeout_ms;
	unsigned heartbeat_ms;
	unsigned snapshot_threshold; /* entries; 0: default */
	unsigned snapshot_trailing;  /* entries kept behind a snapshot; 0: default */
	const struct consensus_ops *ops;
	void *data;
};

/* libraft leaves padding unwritten that goes to disks and peers: from now on its memory is zeroed. For
 * whoever uses libraft's calls without a consensus. */
void consensus_use_heap(void);

/* Takes config->log also on failure. */
struct consensus *consensus_new(const struct consensus_config *config, struct dr_error *err);
/* The first member of a new cluster: before consensus_start. */
int consensus_bootstrap(struct consensus *c, struct dr_error *err);
/* Loads snapshot and log and takes part. */
int consensus_start(struct consensus *c, struct dr_error *err);
/* Stops and frees; done runs on the loop when everything is on disk. */
void consensus_stop(struct consensus *c, void (*done)(void *data), void *data);

/* Proposes a command; it is copied. -DR_ENOQUORUM when this member does not lead. done (may be NULL) says
 * whether it was applied (0), or that its fate is unknown (-DR_EAGAIN: leadership was lost). */
int consensus_propose(struct consensus *c, const uint8_t *bytes, size_t size,
		      void (*done)(void *data, int status), void *data);
/* done runs with 0 when everything committed before the call is applied here. Leader only. */
int consensus_barrier(struct consensus *c, void (*done)(void *data, int status), void *data);

enum consensus_role consensus_role(const struct consensus *c);
/* Whether an entry that this member proposed in its present term is applied. */
bool consensus_own_term(const struct consensus *c);
/* Leads, is quorate and has applied an entry of its own term: may decide and answer. */
bool consensus_leads(const struct consensus *c);
/* While it is held back this member does not count as leading, though it may propose: its state is not yet
 * that of the incarnation which its log belongs to (SAFETY R18). */
void consensus_hold(struct consensus *c, bool hold);
/* 0 when nobody is known to lead. *node is borrowed until the loop runs again. */
uint64_t consensus_leader(struct consensus *c, const char **node);
uint64_t consensus_term(const struct consensus *c);
uint64_t consensus_applied(const struct consensus *c);
uint64_t consensus_self(const struct consensus *c);
/* Microseconds (env): the state here holds everything that was committed then, as far as the leader said.
 * Now, when this member leads itself; 0: never yet. */
uint64_t consensus_heard_us(struct consensus *c);

unsigned consensus_members(const struct consensus *c, struct consensus_member *members, unsigned max);
/* Whether that list is committed. */
bool consensus_members_settled(const struct consensus *c);
/* Leader only; one at a time (SAFETY R16): -DR_EAGAIN while another change is under way. */
int consensus_add(struct consensus *c, uint64_t id, const char *node, struct dr_error *err);
int consensus_promote(struct consensus *c, uint64_t id, enum consensus_member_role role,
		      struct dr_error *err);
int consensus_remove(struct consensus *c, uint64_t id, struct dr_error *err);
/* While it is mute this member asks for no vote and gives none (vouch.h). */
void consensus_mute(struct consensus *c, bool mute);
/* How far this member is for certain: committed and stored here; and its term. */
void consensus_mark(const struct consensus *c, uint64_t *index, uint64_t *term);
/* What another member has stored for certain, as its message shows that was received here just now. False:
 * nothing. */
bool consensus_shown(const struct consensus *c, uint64_t from, const Drover__RaftRpc *rpc,
		     struct logdb_seen *shown);
/* The term of an entry of this member's log or of its snapshot; 0: not there. */
uint64_t consensus_term_of(const struct consensus *c, uint64_t index);
/* The newest entry of this member's log, committed or not. */
void consensus_last(struct consensus *c, uint64_t *index, uint64_t *term);
/* Keeps what was seen of another member beside the log, with the next write. */
void consensus_seen(struct consensus *c, const struct logdb_seen *seen);
/* Hands leadership to the member that is best prepared; best effort. */
void consensus_transfer(struct consensus *c);

/* A Raft message for this member. */
void consensus_receive(struct consensus *c, uint64_t from, const Drover__RaftRpc *rpc);
/* Corosync says that this member has left: if it led, campaign now, in an order without collisions. */
void consensus_member_lost(struct consensus *c, uint64_t id);

#endif
