/*
 * A whole cluster in one process: real coordinators (struct server with libraft, raft_io, log.db, apply,
 * drain, leases, sessions) and agents with the real move machines, over simulated doors.
 *
 * Method. What the coordinator knows of the world comes through few doors; each is replaced when the
 * simulator is linked:
 *
 *   proto/conn.c, listener.c   cluster_conn.c       connections: latency, cuts, death
 *   coordinator/corosync.c     cluster_corosync.c   membership, quorum and messages, in no order
 *   coordinator/logwriter.c    cluster_logwriter.c  the same queue without its thread
 *   SQLite's file system       cluster_disk.c       what is not synced may be lost, torn, reordered
 *   struct env, libqb's loop   cluster_coord.c      clock of the host, timers, the seed's random numbers
 *
 * Everything is an event of struct sim's queue. A kill of a process abandons its memory where it stands; a
 * power loss does so at any write or sync of its disk, too. A run is a fork of a cluster that has been set up
 * once, so it may leak. The invariants (cluster_check.c) look at the fake QEMUs' truth and at what each
 * member applies.
 */
#ifndef DROVER_TESTS_CLUSTER_H
#define DROVER_TESTS_CLUSTER_H

#include <qb/qbloop.h>

#include "coordinator/apply.h"
#include "sim.h"

#define SITES	    6
#define CLIENT_SITE 5 /* where the operator sits; hosts and coordinators 0.. are at their number */
#define CLIENTS	    5 /* the last one is the operator who mends */
#define DISK_FILES  24

struct server;
struct corosync;
struct conn;
struct listener;

/* Who owns a connection or a timer: what the coordinator takes for its loop. */
struct party {
	struct sim *sim;
	struct sim_proc *proc;
	unsigned site;
};

/* ---------------------------------------------------------------- disks (cluster_disk.c) */

struct disk_write {
	bool truncated;
	size_t at, size; /* the range, as far as there was something before */
	size_t old_size, new_size;
	size_t new_at, new_end;
	uint8_t *old;
};

struct disk_file {
	char name[32];
	bool exists;
	uint8_t *data;
	size_t size, room;
	struct disk_write *pending; /* since the last sync */
	unsigned n_pending, room_pending;
};

struct disk {
	struct coord *owner;
	struct disk_file files[DISK_FILES];
	unsigned crash_in;  /* power loss at this operation from now; 0 = not */
	unsigned fail_sync; /* this sync from now fails; 0 = none */
	bool full;
	bool failed;	  /* an error was returned */
	uint64_t slow_us; /* more, for each transaction */
	uint64_t ops;
};

void disk_register(struct disk *disk, struct coord *owner);
/* Power is lost: of what was not synced, anything may be there. */
void disk_power_loss(struct disk *disk);
void disk_wipe(struct disk *disk);
void disk_copy(struct disk *to, const struct disk *from);
/* Brings log.db's WAL home, as a clean end does; nobody uses the disk. */
void disk_checkpoint(struct disk *disk);
void disk_flip_bit(struct disk *disk, uint64_t where);
void disk_setup(void);

/* ---------------------------------------------------------------- coordinators (cluster_coord.c) */

struct coord_timer {
	uint64_t id;
	env_timer_fn fn;
	void *data;
};

/* Corosync on a coordinator's host; it lives on when the coordinator does not. */
struct ring {
	unsigned view; /* coordinators' sites that it sees, bit by bit */
	bool quorate;
};

struct coord {
	struct party party; /* first: qb_loop_t* points here */
	struct sim *sim;
	unsigned id;
	char name[16];
	struct sim_proc proc;
	struct env env;
	struct coord_timer *timers;
	size_t n_timers, room_timers;
	uint64_t next_timer;
	struct server *server; /* NULL: does not run */
	struct raft *raft;     /* of its consensus; valid while that is */
	struct listener *listeners[2];
	struct corosync *corosync;
	struct ring ring;
	struct disk disk;
	bool ended; /* its loop was stopped */
	bool keep_down;
	bool refused;		 /* its disk is damaged, says the coordinator */
	unsigned version;	 /* newest cluster version that its program knows ... */
	unsigned wanted_version; /* ... and that of the one that is started next */
	unsigned rejoin;	 /* enum rejoin of cluster_operator.c; 0: is, or is about to be, a member */
	uint64_t old_member;
	struct request *rejoin_ask;
	char refusal[256];
	int64_t utc_offset;
	uint64_t restart_us;
	/* For the checks. */
	uint64_t term, vote, member;
	uint64_t stored_term, stored_vote; /* of a transaction that is not on the disk yet; 0: none */
	uint64_t applied;
	unsigned starts;
	bool damaged; /* its log was; no member with a vote since */
	uint64_t damaged_at;
	uint64_t incarnation;	 /* of its log, ... */
	unsigned incarnation_of; /* ... as of this start */
	bool old_copy;		 /* its log is one from a backup */
	uint64_t stranger_since; /* up, and no member */
	uint64_t stored;	 /* newest entry that its disk has acknowledged to others */
	uint64_t must_have;	 /* of the start before */
	bool lacks;		 /* its log ends before that */
	uint64_t lead_term, lead_from, lead_commit;
	uint64_t voted_term, voted_for; /* as libraft has it */
	uint64_t fencing_term; /* in which it proposed to fence these hosts, and nothing was decided */
	bool fencing[SIM_HOSTS];
};

void coord_init(struct sim *sim, unsigned id);
/* The doors lead to this cluster from now on. */
void coords_use(struct cluster *cl);
void coord_start(struct coord *c);
/* kill -9. */
void coord_kill(struct coord *c);
/* Its host loses power. Does not return when its own code runs. */
void coord_power_loss(struct coord *c);
/* A clean end, as by SIGTERM; restarted later. */
void coord_stop(struct coord *c);
void coord_restart_later(struct coord *c, uint64_t delay);
/* The coordinator whose code runs now, or NULL. */
struct coord *coord_running(struct sim *sim);
void coord_voted(struct coord *c);
/* A message leaves it: what its disk has is known to others from now on. */
void coord_speaks(struct coord *c);
struct coord *coord_of(struct sim *sim, const struct sim_proc *proc);
bool coord_up(const struct coord *c);
bool coord_leads(const struct coord *c);
struct coord *cluster_leader(struct cluster *cl);

/* ---------------------------------------------------------------- hosts (cluster_fault_kinds.c) */

/* Everything on it ends; not booted again by itself. */
void host_power_off(struct cluster *cl, unsigned host);
void host_power_on(struct cluster *cl, unsigned host);

/* ---------------------------------------------------------------- network (cluster_net.c) */

/* cut: what is sent from a does not reach b. */
void net_cut(struct cluster *cl, unsigned a, unsigned b, bool cut);
/* Cuts, pauses or power have changed: corosync and connections will notice. */
void net_changed(struct cluster *cl);
bool net_reaches(const struct cluster *cl, unsigned from, unsigned to);
uint64_t net_latency(struct cluster *cl, unsigned from, unsigned to);

/* cluster_corosync.c */
void ring_changed(struct cluster *cl);
void ring_init(struct coord *c);
/* A coordinator process has left its group. */
void ring_process_gone(struct coord *c);

/* cluster_conn.c */
void conns_init(struct cluster *cl);
void conns_process_gone(struct sim *sim, struct sim_proc *proc, bool with_fin);
void conns_cut(struct cluster *cl);
/* Faults: what comes to that process waits so long; is delivered twice; all its connections end. */
void conns_delay(struct cluster *cl, const struct sim_proc *proc, uint64_t delay);
void conns_break(struct cluster *cl, const struct sim_proc *proc);
/* Delivers once more the orders that cluster.kept holds. */
void conns_again(struct cluster *cl, const struct sim_proc *proc);

/* ---------------------------------------------------------------- agents and clients */

extern const struct sim_agent_ops cluster_agent_ops;
void cluster_agent_init(struct sim_host *h);
void cluster_agent_started(struct sim_agent *agent);
void cluster_agent_died(struct sim_agent *agent);
/* cluster_vm.c: VM orders, as agent/reconcile.c and agent/vm_run.c obey them. */
void cluster_vm_orders(struct sim_agent *agent, const Drover__AgentOrders *orders);
void cluster_vm_kick(struct sim_agent *agent);
void cluster_vm_restart(struct sim_agent *agent);
/* The guest has shut down, or its QEMU was told to quit. */
void cluster_vm_look(struct sim_agent *agent);

struct request {
	struct request *next;
	uint8_t id[16];
	uint8_t *bytes;
	size_t size;
	char what[64];
	uint64_t until; /* asked again until then */
	bool answered;
	uint32_t exit;
	bool changed;
	uint64_t index;
	char token[64];
	uint64_t incarnation; /* of the cluster, when it was answered */
	uint8_t *backup;      /* that came with the answer; malloc'ed */
	size_t backup_size;
};

struct sim_client {
	struct party party; /* first */
	struct sim_proc proc;
	unsigned id;
	struct conn *conn;
	bool greeted;
	int at;			 /* coordinator that it is connected to; -1 = none */
	int pinned;		 /* speaks to that one only; -1 = to any */
	struct request *open;	 /* waits for its answer */
	struct request *history; /* newest first */
	uint64_t sent_at;
};

void client_init(struct cluster *cl, unsigned id);
/* Asks, and repeats it with the same id, until it is answered or `patience` is over. NULL while busy. */
struct request *client_ask(struct sim_client *c, Drover__Request *request, const char *what,
			   uint64_t patience);
/* One step of the operator's who brings damaged or removed coordinators back as new members. */
void operator_work(struct cluster *cl);
/* Some command that somebody could think of. */
void client_random(struct sim_client *c);
struct request *client_fence(struct sim_client *c, unsigned host);
/* Its disk is empty: it becomes a member again; remove: its old one is taken out first. */
void operator_rejoin(struct coord *c, bool remove);
struct request *client_drain(struct sim_client *c, unsigned host, bool drain);

/* ---------------------------------------------------------------- the cluster (cluster.c) */

enum fault_kind {
	F_COORD_KILL,
	F_COORD_POWER, /* with a torn disk */
	F_LEADER_KILL,
	F_LEADER_POWER,
	F_COORD_PAUSE, /* SIGSTOP of the process */
	F_LEADER_PAUSE,
	F_COORD_STOP, /* clean, as for an upgrade */
	F_HOST_PAUSE, /* coordinator and agent */
	F_HOST_POWER, /* and QEMUs and relays */
	F_AGENT_KILL,
	F_AGENT_PAUSE,
	F_AGENT_POINT, /* dies at its next crash point */
	F_RELAY_KILL,
	F_QEMU_KILL,
	F_CUT_COORDS, /* one from the others */
	F_CUT_ONE_WAY,
	F_CUT_AGENT,	 /* agent from all coordinators */
	F_CUT_AGENT_ONE, /* from one */
	F_CUT_RELAYS,
	F_CUT_RETURN,
	F_CUT_HOST,    /* everything */
	F_BAD_NET,     /* messages late, lost, twice, out of order */
	F_AGENT_LATE,  /* messages of a session late */
	F_AGENT_BREAK, /* sessions end, what was on its way is lost */
	F_DISK_SLOW,
	F_DISK_SYNC, /* fsync error */
	F_DISK_FULL,
	F_DISK_OLD,  /* restored: an older log.db */
	F_DISK_WIPE, /* and joins as a new member */
	F_DISK_FLIP,
	F_CLOCK_RATE,
	F_UTC_JUMP,
	F_REPLACE,     /* removed and joined anew */
	F_GUEST_OFF,   /* the guest shuts itself down */
	F_STATE_DB,    /* SQLite fails in the state database */
	F_AGENT_AGAIN, /* old orders come once more */
	F_AGENT_LEAVE, /* the agent ends cleanly */
	F_N
};

#define PHASES (DROVER__MOVE_PHASE__PHASE_GONE + 1)

/* What happens in a seed's run beside its faults (cluster_story.c). */
enum story {
	STORY_NONE,
	STORY_UPGRADE, /* the members' programs are replaced by newer ones, one after the other */
	STORY_FENCE,   /* hosts have fence agents; of two members each may go on alone */
	STORY_FORCE,   /* a majority dies for good, and the one that is left knows less than it did */
	STORY_RESTORE, /* all coordinators lose their disks; there is a backup */
};

struct cluster_result {
	bool ok;
	uint32_t steps;
	uint32_t faults, drains, moves, commits, commands, elections, snapshots;
	uint64_t virtual_us;
	char why[512];
	uint32_t phase_faults[F_N][PHASES];
};

/* What a seed is made of; the defaults come from the seed, a mutant may ask for more of something. */
struct cluster_profile {
	unsigned n_coords;  /* 0: by the seed */
	const char *faults; /* names, comma; NULL: any */
	uint64_t least_us;  /* that a fault lasts */
	bool vms;	    /* clients only start and stop VMs */
	enum story story;
	const char *mutant;
};

struct shadow_attempt {
	uint64_t move;
	uint32_t attempt;
	int vm, src, dst;
	uint64_t since; /* when the simulator first saw it */
	bool src_gone, dst_gone;
	int decision;
};

struct shadow_vm {
	bool known;
	int owner;
	uint64_t generation;
	Drover__VmState state;
};

#define INDEX_MAX  16384
#define TERM_MAX   512
#define SHADOWS	   512
#define VOTERS_MAX 64

/* What is true by the first member that applied each index. */
struct shadow {
	uint64_t index; /* applied by anybody */
	struct {
		uint8_t digest[16];
		uint64_t signature;
	} at[INDEX_MAX];
	uint64_t leader_of[TERM_MAX]; /* member */
	struct shadow_vm vms[SIM_VMS];
	struct shadow_attempt attempts[SHADOWS];
	unsigned n_attempts;
	uint64_t term;
	uint64_t last_move;
	/* cluster_rules.c */
	uint64_t incarnation; /* the cluster's; indexes, ids and rows of an older one say nothing any more */
	uint64_t base;	      /* at[] begins behind this index */
	bool renewing;	      /* nothing of that incarnation was applied yet */
	bool audit;
	uint64_t audit_over;	     /* when that ended */
	unsigned version;	     /* the cluster's; 0: not seen raised */
	uint64_t voters[VOTERS_MAX]; /* members that a leader has made voters */
	unsigned n_voters;
};

struct kept_orders {
	bool wanted; /* the next ones */
	uint8_t *bytes;
	size_t size;
};

struct cluster {
	struct sim *sim;
	unsigned n_coords;
	struct coord coords[SIM_COORDS];
	struct sim_clock site_clock[SITES];
	bool cut[SITES][SITES];
	uint64_t cut_since[SITES][SITES];
	bool site_down[SITES];	     /* no power */
	uint64_t site_paused[SITES]; /* until */
	uint64_t ring_order[SIM_COORDS][SIM_COORDS];
	unsigned bad_net; /* percent */
	struct sim_client clients[CLIENTS];
	struct conn **conns;
	size_t n_conns, room_conns;
	uint8_t boot_id[SIM_HOSTS][16];
	struct shadow shadow;
	struct cluster_result *result;
	const struct cluster_profile *profile;
	unsigned snapshot_threshold, snapshot_trailing;
	bool running;		      /* a seed's run; before: the set-up */
	bool settle;		      /* no more faults, no more commands */
	uint64_t dark_abort[SIM_VMS]; /* R3: aborted, its source reachable, and dark since */
	struct kept_orders kept[SIM_HOSTS];
	uint64_t next_look;
	uint64_t booted_at[SIM_HOSTS];
	uint64_t rough_until;	 /* faults of coordinators are under way */
	bool vm_killed[SIM_VMS]; /* a fault ended a QEMU of it, or its guest did */
	enum story story;
	struct sim_client teller; /* the operator of the story */
};

/* version: of the members' programs. */
struct cluster *cluster_new(unsigned n_coords, unsigned n_hosts, unsigned n_vms, unsigned version);
/* Number of coordinators that a seed runs with. */
unsigned cluster_size(uint64_t seed, const struct cluster_profile *profile);
/* Runs one seed on a fresh fork of that cluster. */
void cluster_run(struct cluster *cl, uint64_t seed, const struct cluster_profile *profile,
		 struct cluster_result *out);

/* cluster_story.c */
#define VERSION_NEW 2 /* as APPLY_VERSION */
#define VERSION_OLD (VERSION_NEW - 1)
enum story cluster_story(uint64_t seed, const struct cluster_profile *profile);
void story_begin(struct cluster *cl);
/* The faults that it bears, or NULL: all. */
const char *story_faults(const struct cluster *cl);
/* NULL, or what is still to come. */
const char *story_waits(const struct cluster *cl);
/* The coordinator may end for this reason though its disk is good. */
bool story_excuses(const struct coord *c);

/* cluster_rules.c: more checks. */
/* False: of an incarnation that was left behind; nothing of it is compared any more. */
bool rules_incarnation(struct coord *c, uint64_t index);
void rules_proposed(struct coord *c, const uint8_t *bytes, size_t size);
void rules_applied(struct coord *c, uint64_t index, const Drover__Command *cmd);
/* By the first member that applies it. False: the rows are no truth yet. */
bool rules_first(struct cluster *cl, const Drover__Command *cmd, const struct apply_result *result);
void rules_member(struct coord *c);
/* A coordinator sends something to an agent. */
void rules_told(struct coord *c, unsigned host, const Drover__Msg *msg);
/* The rows, into the trace. */
void rules_tell(struct cluster *cl);
/* What was left over from before an audit may not be in the rows. */
bool rules_leftovers(const struct cluster *cl);

/* cluster_fault.c */
/* Returns when the last one has begun and ended. */
uint64_t faults_begin(struct cluster *cl);
void faults_heal(struct cluster *cl);
const char *fault_name(enum fault_kind kind);
enum fault_kind fault_named(const char *name);

/* cluster_check.c */
void cluster_check(struct sim *sim);
void cluster_check_end(struct cluster *cl);
/* True when all that should be over is over. */
bool cluster_at_rest(struct cluster *cl);
/* I5: names what does not end. */
void cluster_why_restless(struct cluster *cl);
/* A member has applied a command. */
void cluster_applied(struct coord *c, struct db *db, uint64_t index, const Drover__Command *cmd,
		     const struct apply_result *result);
/* A move machine records a phase; a VM gets its first cont; orders are obeyed. */
void cluster_check_record(struct sim_machine *mc, const struct move_record *rec);
void cluster_check_start(struct sim_agent *agent, int vm);
void cluster_check_obeyed(struct sim_agent *agent, const Drover__AgentOrders *orders);
/* An agent is about to obey. */
void cluster_check_orders(struct sim_agent *agent, const Drover__AgentOrders *orders);

#endif
