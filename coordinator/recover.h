/*
 * When a log can't be trusted any more (SAFETY R15): it is put aside, never deleted, and
 * the member comes back under a new id. Who it was is kept beside the log as text
 * (DATA/member), since a damaged log may not be able to say.
 */
#ifndef DROVER_COORDINATOR_RECOVER_H
#define DROVER_COORDINATOR_RECOVER_H

#include "coordinator/logdb.h"

/* Writes DATA/member anew, durably. */
int recover_identity_write(const char *dir, const struct logdb_identity *id, struct dr_error *err);
/* 1: *id is filled; 0: there is none. -DR_ECORRUPT: the file says something else. */
int recover_identity_read(const char *dir, struct logdb_identity *id, struct dr_error *err);

/* A term so far ahead that no agent has heard of one that was lost (SAFETY R7). */
#define RECOVER_TERMS_AHEAD (1ull << 20)

/* On a log that nothing else uses, in one transaction: `id` becomes who this is, and the only member. */
int recover_only_member(struct logdb *log, const struct logdb_identity *id, const char *node,
			struct dr_error *err);
/* The same on a fresh log, which begins with this snapshot (its conf is filled here). */
int recover_install(struct logdb *log, const struct logdb_identity *id, const char *node,
		    struct logdb_snapshot *snapshot, struct dr_error *err);
/* force-quorum: written down for the next start, which carries it out. */
int recover_force_write(const char *dir, uint64_t incarnation, struct dr_error *err);
int recover_force_run(const char *dir, struct logdb *log, struct logdb_identity *id, const char *node,
		      struct dr_error *err);

/* A new incarnation: its count is one higher than old's. Behind the count stand the second and some random
 * bits, so that two of one count differ, and the later one is the higher: a restore after a force-quorum that
 * the backup does not know of. */
uint64_t recover_next_incarnation(uint64_t old, uint64_t utc_us, uint64_t random);
/* For people: 1, 2, ... */
uint64_t recover_incarnation_count(uint64_t incarnation);
/* The cluster went on in that incarnation without this member; kept until its log is put aside. 0: no. */
int recover_superseded_write(const char *dir, uint64_t incarnation, struct dr_error *err);
uint64_t recover_superseded_read(const char *dir);

/* For the next start: the log in this directory is not to be used, and why. */
int recover_distrust(const char *dir, const char *why, struct dr_error *err);
/* -DR_ENOSPC unless there is room for the log to go on for a while: a member without it would stop again at
 * once. */
int recover_room(const char *dir, struct dr_error *err);
/* Written down for the next start, when nothing has the log open: it puts the log aside and forgets who this
 * was; the coordinator is in no cluster then. */
int recover_forget_write(const char *dir, struct dr_error *err);
int recover_forget_run(const char *dir, struct dr_error *err);
/* Renames the log's files to NAME.aside (those that an earlier call left are replaced). */
int recover_set_aside(const char *dir, struct dr_error *err);

/* The other one of two members, whose host is dead for certain (survivor.h). */
struct recover_alone {
	uint64_t member;
	char node[64];
	uint64_t term; /* of this member's log when that was known */
	uint64_t utc_us;
};

/* Written down, durably, before the survivor counts itself as a majority (SAFETY R17). */
int recover_alone_write(const char *dir, const struct recover_alone *a, struct dr_error *err);
/* At the next start: makes this member the only voter and the other one a spare, which the leader makes a
 * voter again when it is heard. 0: nothing is written; 1: done, *a is filled. */
int recover_alone_run(const char *dir, struct logdb *log, const struct logdb_identity *id, const char *node,
		      struct recover_alone *a, struct dr_error *err);

#endif
