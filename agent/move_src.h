/*
 * The source of a move. See move.h for how it is driven.
 *
 *   NONE
 *    |  order
 *   ASSIGNED --------- VM does not run, live move of it would corrupt it, nonces cannot be written ---+
 *    |  nonces lie beside the disks                                                                   |
 *   READY ------------ (any error, decision ABORT, order lost: here and in all phases before RELEASED)+
 *    |  the destination's port is known                                                               |
 *   CONNECTING ------- no path works, relay ended, agent restarted -----------------------------------+
 *    |  a channel is up, QEMU has its capabilities                                                    |
 *   COPYING ---------- QEMU says failed, no channel for 30 s, does not converge ----------------------+
 *    |  token granted: QEMU may stop the VM                                                           |
 *   SWITCHING -------- no fresh token or lease while the VM is stopped: migrate_cancel ---------------+
 *    |  pre-switchover, token < 1 s old, lease < 2 s old                                              |
 *   COMPLETING ------- max(3 × blackout, 1 s) since STOP (R29), QEMU says failed: brake --------------+
 *    |  completed, query-status read back as postmigrate, lease < 2 s: the word (R1, R2)              |
 *   RELEASED --------- decision ABORT (nothing else) -------------------------------------------------+
 *    |  decision COMMIT (nothing else)                                                                |
 *   FINISHING  quit QEMU (R25 before a kill), wait for the destination's RESUME                    ABORTING
 *    |         remove the nonces, end the relay                  migrate_cancel, or brake, or cont with a
 *    |                                                           valid lease (without one if no word was
 *    |                                                           given, R2), until query-status says
 *    |                                                           running; announce (R24); remove, end
 *    +-----------------------------> GONE <-----------------------------------------------------------+
 *
 * The switch-over token. QEMU 7.2 has no way to keep a converged copy running: measured, a guest of 128 MiB
 * zero pages stands at pre-switchover 46 ms after `migrate` (23 ms at downtime-limit 0, which also skips the
 * last dirty sync: never use 0), an idle guest at the end of its first pass, whatever the downtime-limit.
 * What does hold it is max-bandwidth: at 64 KiB/s a guest that dirties one page a pass was not stopped within
 * 15 s (44 passes). `migrate-continue` is what needs the token, and a stop without it costs the VM the wait
 * for it. So:
 *  - small VMs (MOVE_SMALL) ask before `migrate` and wait for it at most MOVE_UPFRONT_MS; in attempts after
 * the first, whose predecessor may have ended for want of it, MOVE_UPFRONT_RETRY_MS;
 *  - all ask as soon as what remains would be through within the blackout limit + MOVE_NEAR_MS at the rate by
 * which it shrinks, or is below MOVE_NEAR_BYTES and a second's worth (MOVE_SMALL after the first attempt,
 * while the rate is unknown), and are held at MOVE_HOLD_BANDWIDTH until it is granted, also when they had to
 * give it back;
 *  - who holds it and is still far from the end (a slow link) gives it back until then;
 *  - who is stopped without a fresh grant all the same asks then, waits for it at most the VM's blackout
 * limit (300 ms to 1 s), and else cancels: the VM resumes, the next attempt asks first.
 */
#ifndef DROVER_AGENT_MOVE_SRC_H
#define DROVER_AGENT_MOVE_SRC_H

#include "agent/move_env.h"

#define MOVE_SMALL	      (UINT64_C(512) << 20)
#define MOVE_UPFRONT_MS	      1000
#define MOVE_UPFRONT_RETRY_MS 10000
#define MOVE_NEAR_MS	      300
#define MOVE_NEAR_BYTES	      (UINT64_C(16) << 20)
#define MOVE_NEAR_LEAST	      (UINT64_C(1) << 20)
#define MOVE_HOLD_BANDWIDTH   (UINT64_C(64) << 10)
#define MOVE_POLL_MS	      100
#define MOVE_POLL_NEAR_MS     20
#define MOVE_POLL_STOPPED_MS  5
#define MOVE_CONNECT_MS	      15000
#define MOVE_RECONNECT_MS     30000
#define MOVE_TIMEBOX_MS	      5000
#define MOVE_TOKEN_ROUNDS     4
#define MOVE_TOKEN_REST_MS    5000
#define MOVE_TOKEN_RELEASE_MS 1000
#define MOVE_QUIT_MS	      3000
#define MOVE_PEER_RESUMED_MS  5000

struct move;

/* Every event comes through here, from move_event(). */
void move_src(struct move *m, const struct move_event *ev);

#endif
