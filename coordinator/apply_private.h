/* Shared by the apply_*.c files only. Each apply_* function below handles one command body: it refuses with
 * apply_refuse before it writes anything that must stay. */
#ifndef DROVER_COORDINATOR_APPLY_PRIVATE_H
#define DROVER_COORDINATOR_APPLY_PRIVATE_H

#include "coordinator/apply.h"
#include "coordinator/rows.h"

struct apply {
	struct db *db;
	uint64_t index;
	uint64_t utc_us;
	const Drover__Command *cmd;
	struct apply_result *out;
};

/* What an event is about; unset fields are '' and 0. */
struct about {
	const char *node;
	const char *vm;
	uint64_t move;
	uint64_t drain;
};

/* Makes the result a refusal. */
void apply_refuse(struct apply *a, uint32_t exit, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void apply_message(struct apply *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The orders of that node's agent may have changed. */
void apply_touch(struct apply *a, const char *node);
void apply_event(struct apply *a, const char *kind, struct about about, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
void apply_object(struct apply *a, const char *kind, uint64_t id, const char *name);
/* A new id for a kind of object: the log index, or the next free number behind the last one given (a command
 * may make several objects). Never reused (SAFETY R6). */
uint64_t apply_new_id(struct apply *a, const char *kind);

/* Row by name, or a refusal with exit 4. */
bool apply_need_node(struct apply *a, const char *name, struct node_row *out);
bool apply_need_vm(struct apply *a, const char *name, struct vm_row *out);

/* apply_node.c */
void apply_node_facts(struct apply *a, const Drover__CmdNodeFacts *c);
void apply_node_session(struct apply *a, const Drover__CmdNodeSession *c);
void apply_node_admin(struct apply *a, const Drover__CmdNodeAdmin *c);
void apply_node_health(struct apply *a, const Drover__CmdNodeHealth *c);
void apply_node_leaving(struct apply *a, const Drover__CmdNodeLeaving *c);
void apply_node_remove(struct apply *a, const Drover__NodeVerb *c);

/* apply_fence.c */
void apply_node_set(struct apply *a, const Drover__NodeSet *c);
void apply_node_fencing(struct apply *a, const Drover__CmdNodeFencing *c);
void apply_node_fenced(struct apply *a, const Drover__CmdNodeFenced *c);

/* apply_vm.c */
void apply_vm_add(struct apply *a, const Drover__CmdVmAdd *c);
void apply_vm_set(struct apply *a, const Drover__VmSet *c);
void apply_vm_remove(struct apply *a, const Drover__CmdVmRemove *c);
void apply_vm_start(struct apply *a, const Drover__CmdVmStart *c);
void apply_vm_stop(struct apply *a, const Drover__CmdVmStop *c);
void apply_vm_fact(struct apply *a, const Drover__CmdVmFact *c);

/* apply_move.c */
void apply_move_create(struct apply *a, const Drover__CmdMoveCreate *c);
void apply_move_assign(struct apply *a, const Drover__CmdMoveAssign *c);
void apply_move_fail(struct apply *a, const Drover__CmdMoveFail *c);
void apply_move_cancel(struct apply *a, const Drover__CmdMoveCancel *c);
/* A queued move of a VM away from its owner; state may be "failed" at once (reason). Returns its id. */
uint64_t move_insert(struct apply *a, const struct vm_row *vm, const Drover__CmdMoveCreate *c,
		     const char *failed_why);
/* The one function that changes a move's state; a change that its table forbids stops the member. */
void move_change(struct apply *a, uint64_t id, const char *to);
/* Ends a move's row in a final state. */
void move_end(struct apply *a, const struct move_row *move, const char *state, uint32_t exit,
	      const char *error);

/* apply_attempt.c: what is decided about an attempt, and the agents' words */
void apply_move_fact(struct apply *a, const Drover__CmdMoveFact *c);
void apply_move_switch(struct apply *a, const Drover__CmdMoveSwitch *c);
void apply_move_commit(struct apply *a, const Drover__CmdMoveCommit *c);
void apply_move_abort(struct apply *a, const Drover__CmdMoveAbort *c);
void attempt_commit(struct apply *a, const struct attempt_row *t);
void attempt_abort(struct apply *a, const struct attempt_row *t, Drover__CmdMoveAbort__Outcome outcome,
		   uint32_t exit, const char *reason);
/* Brings the move's row to where its decided attempt's gone sides allow it. */
void attempt_settle(struct apply *a, uint64_t move, uint32_t attempt);
/* A host is dead for certain (fenced or booted anew): decides its open attempts and stops its VMs. */
void attempt_host_died(struct apply *a, const char *node, const char *why);

/* apply_drain.c */
void apply_drain_start(struct apply *a, const Drover__CmdDrainStart *c);
void apply_drain_state(struct apply *a, const Drover__CmdDrainState *c);
/* Cancels a drain: what is not switching stops, the node gets its earlier state back. */
void drain_cancel(struct apply *a, const struct drain_row *drain);

/* apply_network.c */
void apply_network_order(struct apply *a, const Drover__NetworkOrder *c);
void apply_network_verb(struct apply *a, const Drover__NetworkVerb *c);
void apply_limit_set(struct apply *a, const Drover__LimitSet *c);
/* Writes a host's addresses and keeps the list of networks (DESIGN §6). */
void network_discover(struct apply *a, const char *node, const Drover__HostFacts *facts);

/* apply_audit.c */
void apply_incarnation(struct apply *a, const Drover__CmdIncarnation *c);
void apply_node_audit(struct apply *a, const Drover__CmdNodeAudit *c);
void apply_audit_end(struct apply *a);
/* Refuses what touches VMs while hosts are waited for. */
bool apply_audit_refuses(struct apply *a);
/* A fenced host needs not be waited for; what it had is decided at the end. */
void audit_fenced(struct apply *a, const char *node);

/* apply_misc.c */
void apply_init(struct apply *a, const Drover__CmdInit *c);
void apply_setting(struct apply *a, const Drover__CmdSetting *c);
void apply_trim(struct apply *a, const Drover__CmdTrim *c);
void apply_member(struct apply *a, const Drover__CmdMember *c);
void apply_cluster_version(struct apply *a, const Drover__CmdClusterVersion *c);
void apply_token(struct apply *a, const Drover__CmdToken *c);

#endif
