/*
 * One QEMU of this host.
 *
 *                      +--------- exit, unasked ----------------------------+
 *                      |                                                    v
 *   NEW --spawn--> STARTING --RESUME--> RUNNING <--> PAUSED              FAILED
 *                      |                  |   |        |
 *   (restart) ADOPTING-+----------------->+   +--------+--stop--> STOPPING --exit--> STOPPED
 *                                         |            +--kill--> KILLING ---exit-----^
 *   INCOMING --commit--> RUNNING          +--commit--> LEAVING --exit--> GONE
 *      +--exit--> GONE                    +--exit after the source's word--> LOST --abort--> FAILED
 *
 * STOPPING and KILLING become LEAVING and LOST in the same way, when a move commits meanwhile.
 *
 * STOPPED and FAILED are recorded before they are reported: "this generation will
 * not start here" (SAFETY R12). INCOMING and LEAVING belong to a move machine.
 */
#ifndef DROVER_AGENT_VM_H
#define DROVER_AGENT_VM_H

#include "agent/agent.h"
#include "agent/launch.h"
#include "agent/proc.h"
#include "agent/qmp.h"
#include "common/fsm.h"

#define VM_START_US	60000000u /* from the spawn to RESUME */
#define VM_ADOPT_US	5000000u  /* after a restart, until it is reported without an answer of QEMU */
#define VM_RECONNECT_US 500000u
#define VM_POWERDOWN_US 10000000u /* between presses of the power button */
#define VM_POWERDOWN_N	3	  /* presses until the report says that the guest does not react */
#define VM_QUIT_US	3000000u  /* from QMP quit to SIGKILL */
#define VM_LAST_WORDS	240	  /* bytes of QEMU's stderr in an error */

enum vm_phase {
	VM_P_NEW,
	VM_P_STARTING,
	VM_P_ADOPTING,
	VM_P_RUNNING,
	VM_P_PAUSED,
	VM_P_STOPPING,
	VM_P_KILLING,
	VM_P_INCOMING,
	VM_P_LEAVING,
	VM_P_LOST,
	VM_P_STOPPED,
	VM_P_FAILED,
	VM_P_GONE,
	VM_P_N,
};

/* Its table. */
extern const struct fsm_state vm_table[VM_P_N];

/* What a move machine's host code hears of the QEMU that it moves. */
struct vm_watch {
	void (*on_up)(void *data); /* monitor connected, UUID verified */
	void (*on_event)(const char *event, const json_t *event_data, uint64_t at_us, void *data);
	void (*on_exit)(const char *why, void *data);
	/* Source: its word is given: the end of QEMU is not the VM's failure. */
	bool (*released)(void *data);
};

struct vm {
	struct vm *next;
	struct agent *agent;
	struct fsm fsm;
	char name[NAMES_MAX + 1];
	char uuid_text[37];
	char dir[256]; /* run_dir/vm/NAME */
	uint8_t uuid[16];
	uint64_t generation;
	Drover__VmSpec *spec;
	Drover__LaunchRecord *launch;
	struct proc proc;
	struct qmp *qmp;
	enum move_run run; /* as QEMU said last */
	char error[DR_ERROR_TEXT];
	const struct vm_watch *watch;
	void *watch_data;
	uint64_t timer; /* of the phase: start, adoption, power button, quit */
	uint64_t reconnect;
	unsigned int presses; /* of the power button */
	bool adopted;
	bool adopt_silent; /* VM_ADOPT_US passed without an answer */
	bool up;	   /* monitor connected and UUID verified */
	bool guest_ended;  /* SHUTDOWN by the guest itself */
	bool prelaunch;	   /* QEMU waits for its first `cont` */
	bool cont_sent;
	bool ordered; /* named by the newest orders */
};

struct vm *vm_find(struct agent *a, const char *name);

/* Is a QEMU process there (or being started)? */
bool vm_has_process(const struct vm *vm);

/* WANT_RUN. Starts a generation that is newer than the word, with a valid lease; else waits or reports. */
void vm_order_run(struct agent *a, const Drover__VmOrder *order);
/* WANT_STOP and WANT_KILL; records the word where nothing runs. */
void vm_order_stop(struct agent *a, const Drover__VmOrder *order, bool force);
/* WANT_NOTHING: a stop that the guest has not obeyed is taken back. */
void vm_order_nothing(struct agent *a, const Drover__VmOrder *order);
/* The lease was renewed: VMs that wait for their first `cont` get it. */
void vm_kick_all(struct agent *a);

/*
 * A row of the store, after a restart. vm_adopt() comes when moves are known, too. -DR_EIO: whether its
 * process lives cannot be told; the agent must not go on with that (R9).
 */
int vm_restore(struct agent *a, const struct store_vm *row);
void vm_adopt(struct vm *vm);

/* Has every VM of the store answered, failed, or had its time? */
bool vm_adoption_done(const struct agent *a);

/* ---- for moves. */

/* Starts an incoming QEMU. record is called with the process before it execs; not 0: it never does. */
struct vm *vm_incoming_start(struct agent *a, const Drover__MoveOrder *order,
			     int (*record)(const struct proc *proc, void *data), void *data,
			     struct dr_error *err);
/* The same, after a restart. *vm NULL: gone. -DR_EIO: cannot be told. */
int vm_incoming_restore(struct agent *a, const Drover__MoveOrder *order, pid_t pid, uint64_t start_time,
			struct vm **vm);
/* The source's QEMU after the VM left this host's table, after a restart. Likewise. */
int vm_leaving_restore(struct agent *a, const Drover__MoveOrder *order, pid_t pid, uint64_t start_time,
		       struct vm **vm);
/* Incoming becomes this host's VM. Inside the caller's transaction; vm_taken() follows when it is durable. */
int vm_take_record(struct vm *vm, uint64_t generation);
void vm_taken(struct vm *vm, uint64_t generation);
/* The VM is no longer this host's: word and row. Likewise in two steps. */
int vm_leave_record(struct vm *vm);
void vm_left(struct vm *vm);
/* A source whose QEMU died after its word, and whose move was aborted. */
void vm_lost_is_failed(struct vm *vm);
/* The move is over. */
void vm_unwatch(struct vm *vm);

/* Connects the monitor unless that is done or under way. */
void vm_connect(struct vm *vm);
/* SIGKILL after R25's checks. -DR_ENOENT: gone already. */
int vm_kill(struct vm *vm, struct dr_error *err);

/* Fills fact; pointers are the VM's. False: there is nothing to report about it. */
bool vm_fact(const struct vm *vm, Drover__VmFact *fact);

/* Final, not ordered any more: free it (its row, too). The process of a VM that is not final goes on. */
void vm_forget(struct vm *vm);
void vm_free(struct vm *vm);

/* QMP's words for run states. */
enum move_run vm_run_state(const char *status);

/* ---- agent/vm_spawn.c: directory, sockets, taps, command line, process */
int vm_spawn(struct vm *vm, bool incoming, int (*record)(const struct proc *proc, void *data), void *data,
	     struct dr_error *err);
/* The last lines that QEMU wrote to stderr. */
void vm_last_words(const struct vm *vm, char *buf, size_t size);
/* Removes sockets and directory. */
void vm_remove_files(const struct vm *vm);

#endif
