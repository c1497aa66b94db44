/*
 * The simulator: a whole cluster in one process, stepped one event at a time.
 *
 * Method. One virtual clock, one seed. Everything that takes time is an event in
 * one queue; ties are broken by the order of posting, so a seed replays exactly.
 * Each host has a clock of its own (offset and rate). Each process (agent,
 * relay, QEMU, coordinator) can be killed (its events vanish), stopped (they wait)
 * and restarted. The agents run the real move machines (agent/move*.c) over a
 * simulated move_env; the fake QEMUs behave as measured with QEMU 7.2 and alone
 * know the truth about who runs what. After every event the invariants of DESIGN §1
 * are checked (sim_check.c); the first broken one ends the run and names itself.
 */
#ifndef DROVER_TESTS_SIM_H
#define DROVER_TESTS_SIM_H

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/move.h"
#include "common/env.h"
#include "proto/drover.pb-c.h"
#include "sim_lease.h"

#define SIM_HOSTS     4 /* at most */
#define SIM_COORDS    5 /* at most */
#define SIM_VMS	      6 /* at most */
#define SIM_QEMUS     64
#define SIM_RELAYS    64
#define SIM_NONCES    64
#define SIM_MACHINES  16 /* per agent */
#define SIM_TIMERS    256
#define SIM_FLOORS    256
#define SIM_MS	      UINT64_C(1000)
#define SIM_S	      UINT64_C(1000000)
#define SIM_NEVER     UINT64_MAX
#define SIM_TEXT      1024
#define SIM_LINK_RATE (UINT64_C(400) << 20) /* bytes/s */

struct sim;
struct sim_host;
struct sim_agent;
struct sim_relay;
struct sim_coord;
struct cluster;

/* ---------------------------------------------------------------- processes and events */

/* Something that runs and can die. */
struct sim_proc {
	bool alive;
	uint32_t life;		/* grows with each start: events of an earlier life vanish */
	uint64_t stopped_until; /* SIGSTOP: events wait until then */
};

struct sim_event {
	uint64_t at;
	uint64_t order;
	struct sim_proc *proc; /* NULL: the world itself */
	uint32_t life;
	void (*fn)(struct sim *sim, struct sim_event *ev);
	void *obj;
	void *msg; /* malloc'ed, freed behind the event by free_msg */
	void (*free_msg)(void *msg);
	uint64_t a, b, c;
	char text[96];
};

/* A clock of CLOCK_BOOTTIME's kind: it never jumps, but may run up to 1 % off (SAFETY R8). */
struct sim_clock {
	uint64_t at;	/* the simulator's time ... */
	uint64_t local; /* ... at which the clock showed this */
	int64_t ppm;
};

uint64_t sim_clock_now(const struct sim *sim, const struct sim_clock *clock);
void sim_clock_rate(struct sim *sim, struct sim_clock *clock, int64_t ppm);

void sim_proc_start(struct sim_proc *p);
void sim_proc_kill(struct sim_proc *p);

/* Posts an event for `delay` µs from now; the caller fills the rest. Never fails (aborts without memory). */
struct sim_event *sim_post(struct sim *sim, uint64_t delay, struct sim_proc *proc,
			   void (*fn)(struct sim *, struct sim_event *), void *obj);
/* Runs the next event and checks the invariants. False: nothing is left, or one is broken. */
bool sim_step(struct sim *sim);

uint64_t sim_random(struct sim *sim, uint64_t below);
/* lo..hi, both included. */
uint64_t sim_between(struct sim *sim, uint64_t lo, uint64_t hi);

void sim_trace(struct sim *sim, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* An invariant is broken: the run ends after this event. The first one counts. */
void sim_broken(struct sim *sim, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---------------------------------------------------------------- fake QEMU (sim_qemu.c) */

enum sim_link_end { SIM_END_SRC, SIM_END_DST };

struct sim_qemu {
	struct sim_proc proc;
	struct sim *sim;
	struct sim_host *host;
	int vm;
	uint64_t pid;
	bool incoming; /* started -S -incoming defer */
	uint64_t move; /* incoming: for which attempt */
	uint32_t attempt;
	enum move_run run;
	enum move_mig mig;
	bool was_running; /* source: resumes by itself when the migration fails */
	bool unheard;	  /* cancelled as it was about to pause: it waits for a migrate-continue */
	bool hung;	  /* big lock held in a blocking write: QMP is dead */
	bool announced;
	bool killed;	/* by a fault, not by anybody's decision */
	bool guest_off; /* its guest shut itself down */
	bool autostart; /* cont while inmigrate */
	uint64_t max_bandwidth;
	uint64_t downtime_ms;
	uint64_t remaining;
	uint32_t passes;
	uint64_t dirty_rate;
	uint64_t transferred;
	uint64_t mig_start;
	struct sim_relay *relay; /* its migration socket; NULL = none */
	uint32_t mig_epoch;	 /* events of an earlier migration are void */
	uint64_t asked, served;	 /* QMP requests, in order */
	uint64_t stopped_at;	 /* world time; for the blackout check */
};

struct sim_qemu *sim_qemu_new(struct sim *sim, struct sim_host *host, int vm, bool incoming);
bool sim_qemu_runs(const struct sim_qemu *q);
struct sim_qemu *sim_qemu_by_pid(struct sim *sim, uint64_t pid);
/* QMP from an agent's machine; the answer goes to that machine while the agent lives. */
void sim_qemu_qmp(struct sim_qemu *q, struct sim_agent *agent, uint64_t move, uint32_t attempt,
		  Drover__MoveRole role, enum move_qmp cmd, uint64_t seq, const struct move_qmp_args *args);
void sim_qemu_kill(struct sim_qemu *q, bool fault);
/* Its migration socket ended (relay died, brake, yank). */
void sim_qemu_socket_closed(struct sim_qemu *q);
/* Bytes came over the relays: the last of the stream (destination), the answer (source). */
void sim_qemu_stream_begun(struct sim_qemu *q);
void sim_qemu_loaded(struct sim_qemu *q);
void sim_qemu_acked(struct sim_qemu *q);
/* The path works again, or no longer: a blocked write goes on. */
void sim_qemu_path_changed(struct sim_qemu *q);

/* ---------------------------------------------------------------- relays (sim_relay.c) */

struct sim_relay {
	struct sim_proc proc;
	struct sim *sim;
	struct sim_host *host;
	uint64_t move;
	uint32_t attempt;
	Drover__MoveRole role;
	int vm;
	struct sim_qemu *qemu;	/* whose socket it holds */
	struct sim_relay *peer; /* the channel */
	uint64_t lost_since;	/* no channel since then; 0 = one is up, or none was ever */
	bool final_waits;	/* buffered: the last of the stream */
	bool ack_waits;		/* buffered: the destination's answer */
	bool resumed_waits;
};

struct sim_relay *sim_relay_new(struct sim_agent *agent, uint64_t move, uint32_t attempt,
				Drover__MoveRole role);
struct sim_relay *sim_relay_find(struct sim *sim, uint64_t move, uint32_t attempt, Drover__MoveRole role);
/* Both relays live, a channel is up and the network carries it. */
bool sim_relay_carries(const struct sim_relay *r);
void sim_relay_end(struct sim_relay *r);
/* Source: tries to make the channel; the agent hears of it. */
void sim_relay_connect(struct sim_relay *r, unsigned path);
void sim_relay_send_final(struct sim_relay *r);
void sim_relay_send_ack(struct sim_relay *r);
void sim_relay_send_resumed(struct sim_relay *r);
/* Networks were cut or healed: buffers move on. */
void sim_relays_look(struct sim *sim);

/* ---------------------------------------------------------------- agents (sim_agent.c) */

struct sim_timer {
	uint64_t id;
	env_timer_fn fn;
	void *data;
};

/* What an agent's store holds: survives crashes. */
struct sim_vm_row {
	bool here;
	uint64_t generation;
	uint64_t pid;
	Drover__VmState state;
	uint64_t word;	/* highest generation that was given up here (R12) */
	uint64_t floor; /* highest generation that was ordered (R7) */
	bool stopping;
	bool prelaunch; /* its QEMU waits for the first cont */
	bool starting;	/* not durable: between the spawn and its QEMU's being up */
};

struct sim_move_row {
	bool used;
	Drover__MoveOrder *order;
	struct move_record rec; /* proofs are not kept in the simulator's rows: see nonces */
	size_t n_proofs;
	uint8_t nonce[32];
	uint64_t pid; /* destination's QEMU */
};

struct sim_machine {
	bool used;
	struct sim_agent *agent;
	struct move *m;
	struct move_env env;
	unsigned row; /* in the store */
	struct sim_qemu *qemu;
	uint64_t seq;
};

/* How an agent reaches its coordinator: the matrix's shortcut (sim_coord.c), or real sessions (cluster). */
struct sim_agent_ops {
	void (*connect)(struct sim_agent *agent);
	void (*report)(struct sim_agent *agent, Drover__AgentReport *report);
	void (*lease)(struct sim_agent *agent, uint64_t seq);
};

struct sim_agent {
	struct sim_proc proc;
	const struct sim_agent_ops *ops;
	struct sim_host *host;
	struct sim_machine machines[SIM_MACHINES];
	struct env env;
	uint8_t start_id[16];
	/* The store. */
	struct sim_vm_row vms[SIM_VMS];
	struct sim_move_row rows[SIM_MACHINES];
	uint64_t floor_term;
	uint64_t floor_incarnation;
	uint64_t cluster_incarnation;
	struct {
		uint64_t move;
		uint32_t attempt;
	} floors[SIM_FLOORS]; /* of moves, the newest */
	unsigned n_floors;
	/* Lease. */
	struct lease lease;
	/* Session. */
	int coord; /* -1 = none */
	uint64_t session;
	void *session_data;	     /* cluster_agent.c */
	Drover__AgentOrders *newest; /* of this start; cluster_vm.c */
	uint64_t orders_index;
	bool leaving;	    /* R10: says good-bye, and ends when that is committed */
	uint64_t obeyed[3]; /* for the checks: incarnation, term, index of the newest orders */
	bool dirty;
	uint64_t restart_delay;
	bool no_restart;
	uint64_t report_seq;
	uint64_t disk_at;
	struct sim_timer timers[SIM_TIMERS];
	uint64_t next_timer;
};

void sim_agent_start(struct sim_agent *agent);
/* kill -9; restarted after restart_delay unless no_restart. */
void sim_agent_kill(struct sim_agent *agent);
void sim_agent_orders(struct sim_agent *agent, const Drover__AgentOrders *orders);
/* As reconcile_incarnation of agent/reconcile.c: the cluster is in that incarnation. False: has been left. */
bool sim_agent_incarnation(struct sim_agent *agent, uint64_t incarnation);
void sim_agent_grant(struct sim_agent *agent, uint64_t seq, uint64_t duration_ms, uint64_t term);
void sim_agent_session_up(struct sim_agent *agent, int coord);
void sim_agent_session_lost(struct sim_agent *agent);
/* For tests: hands an order straight to the machines. */
void sim_agent_deliver(struct sim_agent *agent, const Drover__MoveOrder *order);
/* Events for a machine, from QEMU and relays. Dropped when nobody owns them. */
void sim_agent_event(struct sim_agent *agent, uint64_t move, uint32_t attempt, Drover__MoveRole role,
		     const struct move_event *ev);
/* The monitor's events, to whichever machine has to do with this QEMU. */
void sim_agent_qemu_event(struct sim_qemu *q, const struct move_event *ev);
void sim_agent_qemu_exited(struct sim_host *host, struct sim_qemu *q);
struct sim_machine *sim_agent_machine(struct sim_agent *agent, uint64_t move, Drover__MoveRole role);

/* ---------------------------------------------------------------- the cluster */

struct sim_host {
	struct sim *sim;
	unsigned id;
	char name[16];
	struct sim_clock clock;
	struct sim_agent agent;
	struct sim_qemu *pid_reused; /* fault: pid reuse (R25) */
};

struct sim_nonce {
	bool used;
	unsigned storage; /* which host's view; 0 = shared by all */
	uint64_t move;
	uint32_t attempt;
	uint8_t nonce[32];
};

struct sim_options {
	uint64_t seed;
	bool trace;
	bool other_storage; /* the destination's disk is another one */
	bool no_room;	    /* the destination has no memory for it */
	uint64_t dirty_rate;
	uint64_t memory; /* of a VM */
};

struct sim {
	struct sim_options opt;
	unsigned n_hosts;
	unsigned n_vms;
	uint64_t now;
	uint64_t rng;
	uint64_t next_order;
	struct sim_event **queue;
	size_t n_queue, queue_size;
	struct sim_host hosts[SIM_HOSTS];
	struct sim_qemu *qemus[SIM_QEMUS];
	unsigned n_qemus;
	struct sim_relay *relays[SIM_RELAYS];
	unsigned n_relays;
	struct sim_nonce nonces[SIM_NONCES];
	bool data_cut[SIM_HOSTS][SIM_HOSTS];
	bool return_cut; /* fault: what flows back from a destination's relay waits */
	bool coord_cut[SIM_HOSTS][SIM_COORDS];
	struct sim_coord *coord;
	struct cluster *cluster; /* NULL: the matrix */
	uint64_t next_pid;
	/* The run. */
	jmp_buf *escape; /* of the agent that runs now */
	struct sim_agent *running;
	const struct sim_proc *current; /* whose event it is; NULL: the world's */
	const struct sim_proc *last;	/* whose event has just been */
	bool crash;			/* the running agent dies at its next crash point or event's end */
	void (*on_point)(struct sim *sim, struct sim_agent *agent, const char *name);
	void (*check)(struct sim *sim); /* after every event */
	void (*on_step)(struct sim *sim);
	void (*on_record)(struct sim_machine *mc, const struct move_record *rec);
	void *user;
	char broken[SIM_TEXT];
	/* For the checks. */
	bool qemu_killed;   /* a fault killed one */
	bool truth_changed; /* a QEMU began or ceased to run since the last check */
	uint64_t checked_index;
	unsigned checked_parts;
	uint64_t dark_since[SIM_VMS]; /* no copy runs since; SIM_NEVER = one does */
	uint64_t darkest[SIM_VMS];    /* longest time without a copy */
	unsigned owner_changes[SIM_VMS];
	int owner[SIM_VMS];
	uint64_t steps;
};

struct sim *sim_alloc(const struct sim_options *opt, unsigned n_hosts, unsigned n_vms);
/* The matrix's cluster. */
struct sim *sim_new(const struct sim_options *opt);
void sim_free(struct sim *sim);
/* Ends a forked process: what killed processes have left in it is nobody's to free. A coverage build writes
 * its counts. */
void sim_leave(int status) __attribute__((noreturn));
struct sim_host *sim_host_named(struct sim *sim, const char *name);
int sim_vm_index(const char *name);

/* sim_check.c: after every event. */
void sim_check(struct sim *sim);
void sim_check_copies(struct sim *sim);
/* What must be true when everything has come to rest. */
void sim_check_end(struct sim *sim);

#endif
