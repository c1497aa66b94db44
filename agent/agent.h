/* The agent's parts and how they find each other. One per process (tests may have several). */
#ifndef DROVER_AGENT_AGENT_H
#define DROVER_AGENT_AGENT_H

#include <qb/qbloop.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/lease.h"
#include "agent/qprobe.h"
#include "agent/spawner.h"
#include "agent/store.h"
#include "common/conf.h"
#include "common/env.h"
#include "proto/drover.pb-c.h"

struct vm;
struct amove;
struct stray;
struct facts;
struct session;
struct acceptor;

struct agent {
	qb_loop_t *loop;
	struct env *env;
	struct dr_conf conf;
	struct store *store;
	const struct spawner *spawner;
	struct qcaps caps;
	struct lease lease;
	struct vm *vms;
	struct amove *moves;
	struct stray *strays; /* QEMUs that the store does not know */
	struct facts *facts;
	struct session *session;
	struct acceptor *acceptor;
	struct store_floors floors;
	uint64_t floor_index; /* highest AgentOrders.index obeyed by this start */
	uint8_t boot_id[16];
	uint8_t start_id[16];
	uid_t vm_uid; /* user drover-vm; 0: there is none */
	gid_t vm_gid;
	uint64_t bandwidth;	     /* node budget of the orders, bytes/s; 0 = none */
	Drover__AgentOrders *orders; /* the newest that was obeyed: paths and budgets are read from it */
	bool leaving;		     /* SIGTERM came (SAFETY R10) */
	bool leaving_committed;
	int lock_fd; /* flock on data_dir/agent.lock */
};

/* What is true has changed: a report goes out at the end of this loop turn. */
void agent_dirty(struct agent *a);

/* The lease was renewed or orders came: whatever waited for it looks again. */
void agent_kick(struct agent *a);

#endif
