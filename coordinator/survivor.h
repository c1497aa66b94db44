/*
 * Two coordinators, and one has vanished (DESIGN §3, SAFETY R17). Neither is a majority; the one that is left
 * goes on alone only when a fence agent has reported the other one's host off:
 *
 *   other silent --SURVIVOR_SILENT_US, and a while more for the one that did not lead--> fence agent of its
 * host ^   |                                                              |
 *      +---+ heard again: nothing happens             failed: again later | off for certain
 *                                                                         v
 *      starts anew <-- DATA/alone is written, durably: who is dead <------+
 *          | the log gets a member list: this one votes, the other is a spare (recover.h); the note goes
 *          v
 *      the only voter leads; the other's host comes back, is made a learner and then a voter by the leader
 *
 * Why no acknowledged command is lost and nobody leads twice:
 *   - With two voters, what is acknowledged is in both logs; the survivor's has it. "Two" is what the
 *     committed list says: a third one whose removal is under way could still make a majority with the
 *     other, and so could a learner whom the other makes a voter unseen.
 *   - In a split both may try. The fence device takes one after the other, and a host that is off asks for
 *     nothing: the first one wins. Should both die, the one that wrote the note goes on at its next start;
 *     without a note neither does.
 *   - The one that comes back holds an old log in which two vote. It can lead only with the other's vote,
 * which a newer log denies it; and it can't go on alone by fencing the other in its turn, because it must
 * have heard the other first since its own start (vouch.h: it is mute), and then knows of the new list. A
 * host that was fenced has always started anew.
 *   - corosync's votes play no part: with two_node both halves of a split are quorate, and the only voter of
 *     the list is a majority whatever corosync counts.
 */
#ifndef DROVER_COORDINATOR_SURVIVOR_H
#define DROVER_COORDINATOR_SURVIVOR_H

#include "coordinator/server.h"

#define SURVIVOR_SILENT_US 5000000 /* beyond SERVER_PEER_LOST_US */
#define SURVIVOR_SECOND_US                                                                                   \
	10000000		   /* later: the one that did not lead, so that they do not kill each other */
#define SURVIVOR_AGAIN_US 30000000 /* after a fencing that failed */

/* At start, between opening the log and taking part: carries out what the last run wrote down. */
int survivor_start(struct server *s, struct dr_error *err);
/* Often; does what is due. */
void survivor_tick(struct server *s);

#endif
