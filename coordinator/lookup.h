/* Small questions to the rows that the daemon's own parts ask (sessions, join, status). */
#ifndef DROVER_COORDINATOR_LOOKUP_H
#define DROVER_COORDINATOR_LOOKUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "db/db.h"

#define LOOKUP_NAME 64

/* The cluster's name into name; false and "" before init. */
bool lookup_cluster(struct db *db, char name[LOOKUP_NAME]);
/* Whether the rows say that this start of the node's agent has its session at that coordinator. */
bool lookup_session(struct db *db, const char *node, const uint8_t start_id[16], const char *coordinator);
/* The boot id in the node's row; false: there is none. */
bool lookup_boot(struct db *db, const char *node, uint8_t boot_id[16]);
/* Whether that member is at the corosync node with this id, as far as is known; 0: nothing is known of it. */
bool lookup_member_at(struct db *db, uint64_t member, uint32_t nodeid);
/* The log index at which this incarnation began; 0: the first one. */
uint64_t lookup_origin(struct db *db);
/* Whether an operator removed that member, or another took its place. */
bool lookup_member_removed(struct db *db, uint64_t member);
/* Whether a join token with this SHA-256 was issued and is still good for this member: not used by another.
 */
bool lookup_token(struct db *db, const uint8_t hash[32], uint64_t member);
/* The next node after `after` ("" = first) whose agent's session is at `coordinator`; false at the end. */
bool lookup_next_session(struct db *db, const char *coordinator, const char *after, char node[LOOKUP_NAME],
			 uint8_t boot_id[16], uint8_t start_id[16]);

#endif
