/*
 * The destination of a move. See move.h for how it is driven.
 *
 *   NONE
 *    |  order
 *   ASSIGNED ------------- check refused, nonce differs (R26), QEMU lacks room ----------------+
 *    |  checks passed, source ready, its nonces lie beside our disks                           |
 *   PREPARING ------------ QEMU or relay does not start, agent restarted ----------------------+
 *    |  QEMU -S waits on fd:, relay ready                                                      |
 *   PREPARED ------------- QEMU or relay ended, agent restarted without them ------------------+
 *    |  first bytes                                                                            |
 *   LOADING -------------- QEMU or relay ended, load failed -----------------------------------+
 *    |  MIGRATION completed and query-status says paused: the word (R1)                        |
 *   COMPLETED ------------ decision ABORT (nothing else) --------------------------------------+
 *    |  decision COMMIT (nothing else)                                                         |
 *   CONTINUING  cont with a valid lease (R7); the VM is this host's now                        |
 *    |     \____ QEMU ended: the VM is reported FAILED __________                              |
 *    |  query-status says running                                \                             |
 *   RUNNING  announce (R24), tell the source's relay, end ours    |                         ABORTING
 *    |                                                            |        kill QEMU (R25), end the relay
 *    +-----------------------------> GONE <-----------------------+----------------------------+
 */
#ifndef DROVER_AGENT_MOVE_DST_H
#define DROVER_AGENT_MOVE_DST_H

#include "agent/move_env.h"

struct move;

/* Every event comes through here, from move_event(). */
void move_dst(struct move *m, const struct move_event *ev);

#endif
