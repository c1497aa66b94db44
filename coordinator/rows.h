/* The tables' rows as structs: reading only. Used by apply, orders, reports, requests and the leader's
 * decisions. */
#ifndef DROVER_COORDINATOR_ROWS_H
#define DROVER_COORDINATOR_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "db/db.h"
#include "proto/drover.pb-c.h"

#define ROWS_NAME  64
#define ROWS_ID	   16
#define ROWS_ERROR 512

#define NODE_COLUMNS                                                                                         \
	"name, incarnation, boot_id, start_id, coordinator, fenced_boot, leaving, paused, quarantined, "     \
	"health, health_why, memory_total, changed, "                                                        \
	"(SELECT COALESCE(MAX(CAST(value AS INTEGER)), 0) FROM setting WHERE scope = 'node' "                \
	"AND setting.name = node.name AND key = 'fencing')"

struct node_row {
	char name[ROWS_NAME];
	uint64_t incarnation;
	uint8_t boot_id[ROWS_ID];
	uint8_t start_id[ROWS_ID];
	bool has_boot;
	bool session; /* an agent start has a session: start_id is valid */
	char coordinator[ROWS_NAME];
	uint8_t fenced_boot[ROWS_ID];
	bool has_fenced;
	bool leaving; /* that start has said good-bye */
	bool paused;
	bool quarantined;
	char health[16]; /* up | isolated | down */
	char health_why[ROWS_ERROR];
	uint64_t memory_total;
	uint64_t changed;
	uint64_t fencing; /* log index at which its fencing was announced; 0: none is under way */
};

#define VM_COLUMNS "name, uuid, owner, generation, state, want, priority, memory, move, error, changed"

struct vm_row {
	char name[ROWS_NAME];
	uint8_t uuid[ROWS_ID];
	char owner[ROWS_NAME];
	uint64_t generation;
	Drover__VmState state;
	Drover__VmWant want;
	uint32_t priority;
	uint64_t memory;
	uint64_t move;
	char error[ROWS_ERROR];
	uint64_t changed;
};

#define MOVE_COLUMNS                                                                                         \
	"id, vm, drain, kind, mode, network, want_to, priority, memory, src, dst, state, attempt, "          \
	"failures, "                                                                                         \
	"cancelled, predicted_ms, predicted_blackout_ms, created_utc_us, started_utc_us, ended_utc_us, "     \
	"exit, "                                                                                             \
	"error"

struct move_row {
	uint64_t id;
	char vm[ROWS_NAME];
	uint64_t drain;
	char kind[ROWS_NAME];
	char mode[ROWS_NAME];
	char network[ROWS_NAME];
	char want_to[ROWS_NAME];
	uint32_t priority;
	uint64_t memory;
	char src[ROWS_NAME];
	char dst[ROWS_NAME];
	char state[16];
	uint32_t attempt;
	uint32_t failures;
	bool cancelled;
	uint64_t predicted_ms;
	uint64_t predicted_blackout_ms;
	uint64_t created_utc_us;
	uint64_t started_utc_us;
	uint64_t ended_utc_us;
	uint32_t exit;
	char error[ROWS_ERROR];
};

#define ATTEMPT_COLUMNS                                                                                      \
	"move, attempt, vm, generation, src, dst, memory, mode, network, src_phase, dst_phase, src_gone, "   \
	"dst_gone, decision, outcome, relay_port, token_request, token_granted, token_returned, "            \
	"token_held, "                                                                                       \
	"src_error, dst_error, error_exit, error_fatal, reason"

struct attempt_row {
	uint64_t move;
	uint32_t attempt;
	char vm[ROWS_NAME];
	uint64_t generation;
	char src[ROWS_NAME];
	char dst[ROWS_NAME];
	uint64_t memory;
	char mode[ROWS_NAME];
	char network[ROWS_NAME];
	Drover__MovePhase src_phase;
	Drover__MovePhase dst_phase;
	bool src_gone;
	bool dst_gone;
	Drover__MoveDecision decision;
	Drover__CmdMoveAbort__Outcome outcome;
	uint32_t relay_port;
	uint32_t token_request;
	uint32_t token_granted;
	bool token_returned;
	bool token_held;
	char src_error[ROWS_ERROR];
	char dst_error[ROWS_ERROR];
	uint32_t error_exit;
	bool error_fatal;
	char reason[ROWS_ERROR];
};

#define DRAIN_COLUMNS                                                                                        \
	"id, node, state, best_effort, shutdown_unmovable, plan, was_paused, started_utc_us, ended_utc_us, " \
	"error"

struct drain_row {
	uint64_t id;
	char node[ROWS_NAME];
	char state[16];
	bool best_effort;
	bool shutdown_unmovable;
	uint64_t plan;
	bool was_paused;
	uint64_t started_utc_us;
	uint64_t ended_utc_us;
	char error[ROWS_ERROR];
};

/* The present row of a query for the columns above. */
void rows_node_get(struct db_rows *rows, struct node_row *out);
void rows_vm_get(struct db_rows *rows, struct vm_row *out);
void rows_move_get(struct db_rows *rows, struct move_row *out);
void rows_attempt_get(struct db_rows *rows, struct attempt_row *out);
void rows_drain_get(struct db_rows *rows, struct drain_row *out);

/* Whether hosts are waited for before anything is done with VMs (apply_audit.c), and their names, with commas
 * between them. */
bool rows_audit(struct db *db);
void rows_unaudited(struct db *db, char *names, size_t size);
/* Whether a coordinator of that node is a member. */
bool rows_has_coordinator(struct db *db, const char *node);
/* One row by key; false: there is none. */
bool rows_node(struct db *db, const char *name, struct node_row *out);
bool rows_vm(struct db *db, const char *name, struct vm_row *out);
bool rows_move(struct db *db, uint64_t id, struct move_row *out);
bool rows_attempt(struct db *db, uint64_t move, uint32_t attempt, struct attempt_row *out);
bool rows_drain(struct db *db, uint64_t id, struct drain_row *out);
/* The node's running or paused drain; else (any) its latest one. */
bool rows_drain_of(struct db *db, const char *node, bool any, struct drain_row *out);

/* Messages stored in rows; unpacked, the caller frees them. NULL: no such row, or the column is empty. */
Drover__HostFacts *rows_facts(struct db *db, const char *node);
Drover__VmSpec *rows_spec(struct db *db, const char *vm);
Drover__LaunchRecord *rows_launch(struct db *db, const char *vm);
Drover__MoveStats *rows_stats(struct db *db, uint64_t move, uint32_t attempt);
/* Paths in order (a MoveOrder with nothing else), and the source's proofs (a MoveFact with nothing else). */
Drover__MoveOrder *rows_paths(struct db *db, uint64_t move, uint32_t attempt);
Drover__MoveFact *rows_proofs(struct db *db, uint64_t move, uint32_t attempt);

/* A value of meta; buf of size, "" when it is not there. */
char *rows_meta(struct db *db, const char *key, char *buf, size_t size);
/* 16 bytes; false before init. */
bool rows_cluster_uuid(struct db *db, uint8_t uuid[ROWS_ID]);
uint64_t rows_cluster_incarnation(struct db *db);
/* SAFETY R20: what apply follows. */
unsigned rows_cluster_version(struct db *db);

/* Limits (INTERFACE §2): a node's or network's own, else the cluster's, else the default. key: the field's
 * name in LimitSet. scope: "cluster", "node" or "network". */
uint64_t rows_limit(struct db *db, const char *scope, const char *name, const char *key);
char *rows_limit_text(struct db *db, const char *scope, const char *name, const char *key, char *buf,
		      size_t size);
/* Whether that object itself has it. */
bool rows_limit_own(struct db *db, const char *scope, const char *name, const char *key);

/* Move slots in use on a node, incoming counted like outgoing (I4, R21); in the whole cluster. */
unsigned rows_slots(struct db *db, const char *node);
unsigned rows_slots_cluster(struct db *db);
/* Memory promised on a node: VMs that it runs or will run, and incoming ones. */
uint64_t rows_memory_promised(struct db *db, const char *node);
/* Whether an agent of that node may get new work: session, healthy, not leaving, not quarantined. */
bool rows_node_works(const struct node_row *node);
/* Whether it may get no lease and no order: this boot of it is fenced, or is being fenced (SAFETY R11). */
bool rows_node_barred(const struct node_row *node);
/* Its fence agent and options as fence_spec.h has them, malloc'ed; NULL: it has none. */
char *rows_fence_spec(struct db *db, const char *node);
/* Whether a request with that id was applied. */
bool rows_request(struct db *db, const ProtobufCBinaryData *id);
/* Whether a VM is off for certain. */
bool rows_vm_off(const struct vm_row *vm);
/* Whether both words of an attempt are there (SAFETY R1). */
bool rows_both_words(const struct attempt_row *a);
/* Whether a move's state is a final one. */
bool rows_move_ended(const char *state);
/* INTERFACE §2: up|paused|draining|drained|isolated|down|quarantined. */
const char *rows_node_state(struct db *db, const struct node_row *node);
/* "running", "moving", ... */
const char *rows_vm_state(struct db *db, const struct vm_row *vm);

#endif
