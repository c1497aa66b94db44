/* One side of one attempt with its real parts. Shared by agent/move_real.c and agent/amove.c only. */
#ifndef DROVER_AGENT_AMOVE_H
#define DROVER_AGENT_AMOVE_H

#include "agent/move_real.h"
#include "agent/relays.h"
#include "agent/storage.h"
#include "agent/vm.h"

#define AMOVE_QMP_US	 10000000u /* the machines have their own, shorter deadlines */
#define AMOVE_EVENTS_MAX 32	   /* words for an operator that wait for a report */

/* An answer that is known at once but must come from the loop. */
struct posted {
	struct posted *next;
	struct amove *am;
	uint64_t timer;
	struct move_event ev;
	char text[DR_ERROR_TEXT];
};

struct asked;

struct amove {
	struct amove *next;
	struct agent *agent;
	struct move_env me;
	struct move *m;
	Drover__MoveRole role;
	uint64_t id;
	uint32_t attempt;
	char vm_name[NAMES_MAX + 1];
	struct vm *vm;		 /* NULL: no QEMU known */
	struct relay *relay;	 /* NULL: none yet */
	int qemu_fd;		 /* QEMU's end of the stream, until it is handed over; -1 */
	int brake_fd;		 /* our dup of it while the migration runs; -1 */
	struct store_move procs; /* pids; its order is not used */
	struct posted *posted;
	struct asked *asked; /* QMP commands without an answer */
	uint64_t last_seq;
	uint64_t release_timer;
	bool named;		 /* by the newest orders */
	bool started;		 /* MOVE_EV_START was sent */
	struct storage_job *job; /* NULL: none is at work */
	char *events[AMOVE_EVENTS_MAX];
	size_t n_events;
};

/* Fills am->me. */
void move_real_init(struct amove *am);
/* Lets go of VM, relay and descriptors. Processes go on. */
void move_real_fini(struct amove *am);

/* Takes hold of the VM: events and its end reach the machine. */
void amove_hold(struct amove *am, struct vm *vm);
/* Hands an event to the machine from the loop, never from inside. text is copied. */
void amove_post(struct amove *am, const struct move_event *ev);

/* move_env's qmp(): agent/move_qmp.c. */
uint64_t amove_qmp(struct move_env *me, enum move_qmp cmd, const struct move_qmp_args *args);
/* The move goes away: answers to its commands are nobody's. */
void amove_forget_asked(struct amove *am);
/* QMP's words for the status of a migration. NULL: none. */
enum move_mig amove_mig_status(const char *status);

/* The move is over: the VM is the host's alone, or is forgotten with it. */
void amove_release_vm(struct amove *am);
/* The VM's and the relay's order. */
const Drover__MoveOrder *amove_order_of(void *am);
struct relay *amove_relay(struct amove *am);

#endif
