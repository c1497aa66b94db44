/*
 * What an agent must find again after a crash: data_dir/agent.db (SQLite, WAL,
 * synchronous=FULL). Every function that writes has made it durable when it
 * returns 0, or is part of the transaction that the caller opened.
 *
 *   vms     QEMUs that this host has or had: how to find them, what they were started from
 *   words   "generations up to g of this VM will not start here" (SAFETY R12); never goes down
 *   moves   one side of one attempt, its phase recorded before it is acted on (R4)
 *   floors  the highest (incarnation, term), VM generation and move attempt that was obeyed (R7)
 */
#ifndef DROVER_AGENT_STORE_H
#define DROVER_AGENT_STORE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "agent/move_env.h"
#include "common/error.h"
#include "common/names.h"
#include "proto/drover.pb-c.h"

#define STORE_VERSION 2

struct store;

struct store_vm {
	char name[NAMES_MAX + 1];
	uint8_t uuid[16];
	uint64_t generation;
	Drover__VmSpec *spec;	      /* may be NULL */
	Drover__LaunchRecord *launch; /* may be NULL */
	pid_t pid;		      /* 0: not started yet */
	uint64_t start_time;
	Drover__VmState state;
	char error[DR_ERROR_TEXT];
};

struct store_move {
	Drover__MoveOrder *order; /* has move, attempt, role */
	struct move_record record;
	struct {
		pid_t pid;
		uint64_t start_time;
	} qemu, relay;
};

struct store_floors {
	uint64_t cluster_incarnation; /* before all others: the others begin anew with a higher one (R18) */
	uint64_t term;
	uint64_t incarnation; /* of the node */
	uint8_t cluster_uuid[16];
	bool have_cluster;
};

/* Opens or makes the file. -DR_EIO, -DR_ECORRUPT, -DR_EREFUSED (made by a newer version). */
int store_open(const char *path, struct store **store, struct dr_error *err);
void store_close(struct store *s);

/* Several changes as one. Not nested. */
int store_begin(struct store *s);
int store_commit(struct store *s);
void store_rollback(struct store *s);

/* ---- VMs. State STOPPED or FAILED raises the word to the row's generation in the same statement group. */
int store_vm_put(struct store *s, const struct store_vm *vm);
int store_vm_delete(struct store *s, const char *name);
/* Each row; pointers are valid during the call. */
typedef void (*store_vm_fn)(const struct store_vm *vm, void *data);
int store_vms(struct store *s, store_vm_fn fn, void *data);

/* Generations up to this will not start here; 0: none. */
int store_word(struct store *s, const char *vm, uint64_t *generation);
int store_word_raise(struct store *s, const char *vm, uint64_t generation);

/* ---- floors */
int store_floors(struct store *s, struct store_floors *floors);
int store_floors_put(struct store *s, const struct store_floors *floors);
int store_vm_floor(struct store *s, const char *vm, uint64_t *generation);
int store_vm_floor_raise(struct store *s, const char *vm, uint64_t generation);
int store_move_floor(struct store *s, uint64_t move, uint32_t *attempt);
int store_move_floor_raise(struct store *s, uint64_t move, uint32_t attempt);

/* ---- moves */
int store_move_put(struct store *s, const struct store_move *m);
int store_move_procs(struct store *s, const struct store_move *m); /* qemu and relay only */
int store_move_delete(struct store *s, uint64_t move, uint32_t attempt, Drover__MoveRole role);
/* Each row; pointers are valid during the call. */
typedef void (*store_move_fn)(const struct store_move *m, void *data);
int store_moves(struct store *s, store_move_fn fn, void *data);

#endif
