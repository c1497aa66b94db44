/* The move machines' world (agent/move_env.h) on real parts: QEMU, relay, disks, store. */
#ifndef DROVER_AGENT_MOVE_REAL_H
#define DROVER_AGENT_MOVE_REAL_H

#include "agent/agent.h"
#include "agent/move.h"

struct relay;
struct amove;

/* An order for a move: makes the machine or tells it. Floors are checked by the caller. */
void amove_order(struct agent *a, const Drover__MoveOrder *order);

/* Ends the mark-and-sweep of an AgentOrders: machines that it did not name hear so, and finished ones are
 * forgotten. */
void amove_orders_begin(struct agent *a);
void amove_orders_end(struct agent *a);

/* A row of the store, after a restart; VMs are restored before. Then amove_start_all(), once. */
int amove_restore(struct agent *a, const struct store_move *row);
void amove_start_all(struct agent *a);

/* The lease was renewed. */
void amove_lease(struct agent *a);

/* Is the VM in the hands of a move on this host? (Its own orders wait.) */
bool amove_holds_vm(const struct agent *a, const char *vm);
/* Of those that hold it, is each a committed destination: is the VM this host's? */
bool amove_took_vm(const struct agent *a, const char *vm);

/* The relay of a destination that waits for channels; NULL: none. */
struct relay *amove_dst_relay(struct agent *a, uint64_t move, uint32_t attempt);

/* Divides the budgets among the outgoing relays anew. */
void amove_budget(struct agent *a);
/* The host's links have changed: channels over one without carrier are given up at once (DESIGN §8). */
void amove_carriers(struct agent *a);

/* How many facts there are; the n-th one. Its pointers stay valid until the next event. take_events: they
 * are said now and not again. */
size_t amove_count(const struct agent *a);
void amove_fact(struct agent *a, size_t n, bool take_events, Drover__MoveFact *fact);
/* Frees what amove_fact() took. */
void amove_events_free(Drover__MoveFact *fact);

/* Anything that is not GONE? (Progress is sent then.) */
bool amove_active(const struct agent *a);
/* A source of this host copies or switches over: its word will need a young lease. */
bool amove_may_switch(const struct agent *a);

void amove_free_all(struct agent *a);

#endif
