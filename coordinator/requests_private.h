/* Shared by the requests*.c files. */
#ifndef DROVER_COORDINATOR_REQUESTS_PRIVATE_H
#define DROVER_COORDINATOR_REQUESTS_PRIVATE_H

#include "coordinator/msg.h"
#include "coordinator/requests.h"
#include "coordinator/rows.h"

/* A client's write on its way to a command. Each handler sets cmd's body or answer. */
struct ask {
	struct db *db;
	struct env *env;
	const struct volatile_view *view;
	const Drover__Request *request;
	Drover__Command *cmd;
	Drover__Response *answer;
	char would[512]; /* dry run: what would be done */
};

void ask_refuse(struct ask *a, uint32_t exit, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Done already: exit 0, changed false. */
void ask_unchanged(struct ask *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void ask_would(struct ask *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Row by name, or exit 4 with the nearest name. */
bool ask_node(struct ask *a, const char *name, struct node_row *out);
bool ask_vm(struct ask *a, const char *name, struct vm_row *out);
bool ask_network(struct ask *a, const char *name);

/* requests_vm.c */
void ask_vm_add(struct ask *a, const Drover__VmSpec *spec);
void ask_vm_set(struct ask *a, const Drover__VmSet *set);
void ask_vm_verb(struct ask *a, const Drover__VmVerb *verb);
void ask_vm_move(struct ask *a, const Drover__MoveRequest *move);

/* requests_fence.c */
void ask_node_set(struct ask *a, const Drover__NodeSet *set);
void ask_fence(struct ask *a, const Drover__NodeVerb *verb, const struct node_row *node);

/* requests_drain.c */
void ask_drain_start(struct ask *a, const char *node, bool best_effort, bool shutdown_unmovable);
void ask_drain_verb(struct ask *a, const Drover__DrainVerb *verb);

/* requests_read.c: rows as people see them; appended to the response */
void read_node_row(struct db *db, const struct volatile_view *view, const struct node_row *node, bool full,
		   Drover__Response *r);
void read_vm_row(struct db *db, const struct vm_row *vm, bool full, Drover__Response *r);
void read_move_row(struct db *db, const struct volatile_view *view, const struct move_row *move,
		   Drover__Response *r);
void read_drain_row(struct db *db, const struct volatile_view *view, const struct drain_row *drain,
		    Drover__Response *r);
void read_moves_of_drain(struct db *db, const struct volatile_view *view, uint64_t drain,
			 Drover__Response *r);

/* requests_check.c */
void read_check(struct db *db, const struct volatile_view *view, Drover__Response *r);

#endif
