/* A state in memory and short ways to put commands into it, for the tests of the coordinator's core. */
#ifndef DROVER_TESTS_UNIT_CORE_H
#define DROVER_TESTS_UNIT_CORE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/apply.h"
#include "coordinator/rows.h"
#include "db/db.h"

#define MIB (1ull << 20)

struct core {
	struct db *db;
	uint64_t index;
	struct apply_result last;
};

static uint8_t core_id[256][16];

/* 16 bytes that stand for a small number. */
static inline ProtobufCBinaryData core_bytes(uint8_t n)
{
	memset(core_id[n], n, 16);
	return (ProtobufCBinaryData){.len = 16, .data = core_id[n]};
}

/* Told of every command that was applied (tests/compat keeps them). */
static void (*core_hook)(uint64_t index, const Drover__Command *cmd);

/* Applies; the result's exit. The digest must stay right with every command. */
static inline uint32_t core_apply(struct core *c, Drover__Command *cmd)
{
	struct dr_error err = DR_ERROR_INIT;
	uint8_t kept[DB_DIGEST_SIZE];
	uint8_t full[DB_DIGEST_SIZE];

	cmd->version = APPLY_VERSION;
	if (cmd->utc_us == 0)
		cmd->utc_us = 1000000 + c->index;
	if (apply_command(c->db, ++c->index, cmd, &c->last, &err) < 0)
		fail_msg("apply %s: %s", apply_command_name(cmd), err.text);
	db_digest(c->db, kept);
	assert_int_equal(db_digest_full(c->db, full), 0);
	assert_memory_equal(kept, full, DB_DIGEST_SIZE);
	if (core_hook != NULL)
		core_hook(c->index, cmd);
	return c->last.exit;
}

#define CORE_BODY(cmd_var, body_var, CASE, field, type, prefix)                                              \
	Drover__Command cmd_var = DROVER__COMMAND__INIT;                                                     \
	type body_var;                                                                                       \
	prefix##__init(&body_var);                                                                           \
	cmd_var.body_case = DROVER__COMMAND__BODY_##CASE;                                                    \
	cmd_var.field = &body_var

static inline void core_init(struct core *c)
{
	struct dr_error err = DR_ERROR_INIT;

	memset(c, 0, sizeof(*c));
	if (db_open(":memory:", &c->db, &err) < 0)
		fail_msg("%s", err.text);
	CORE_BODY(cmd, body, INIT, init, Drover__CmdInit, drover__cmd_init);
	body.name = (char *)"test";
	body.uuid = core_bytes(200);
	body.mode = (char *)"corosync";
	body.member = 1;
	body.node = (char *)"node1";
	assert_int_equal(core_apply(c, &cmd), 0);
}

static inline void core_fini(struct core *c)
{
	db_close(c->db);
}

/* A node with an agent (boot id and start id n), 1 GiB of memory and an address in two networks. */
static inline void core_node(struct core *c, const char *name, uint8_t n)
{
	Drover__HostFacts facts = DROVER__HOST_FACTS__INIT;
	Drover__HostAddress address[2] = {DROVER__HOST_ADDRESS__INIT, DROVER__HOST_ADDRESS__INIT};
	Drover__HostAddress *list[2] = {&address[0], &address[1]};
	char *machines[1] = {(char *)"pc-i440fx-7.2"};
	char text[2][32];

	CORE_BODY(cmd, body, NODE_SESSION, node_session, Drover__CmdNodeSession, drover__cmd_node_session);
	body.node = (char *)(uintptr_t)name;
	body.boot_id = core_bytes(n);
	body.start_id = core_bytes(n);
	body.coordinator = (char *)"node1";
	assert_int_equal(core_apply(c, &cmd), 0);

	facts.memory_total = 1ull << 30;
	facts.memory_free = 1ull << 30;
	facts.kvm = true;
	facts.qemu_version = (char *)"7.2.0";
	facts.n_machine_types = 1;
	facts.machine_types = machines;
	for (int i = 0; i < 2; i++) {
		snprintf(text[i], sizeof(text[i]), "10.77.%d.%u", i + 1, n);
		address[i].interface = (char *)(i == 0 ? "mig1" : "mig2");
		address[i].address = text[i];
		address[i].prefix = 24;
		address[i].speed = 125000000;
		address[i].mtu = 1500;
		address[i].up = true;
	}
	facts.n_addresses = 2;
	facts.addresses = list;
	CORE_BODY(cmd2, body2, NODE_FACTS, node_facts, Drover__CmdNodeFacts, drover__cmd_node_facts);
	body2.node = (char *)(uintptr_t)name;
	body2.facts = &facts;
	assert_int_equal(core_apply(c, &cmd2), 0);
}

static inline uint32_t core_vm_add(struct core *c, const char *name, uint8_t n, const char *node,
				   uint64_t memory, uint32_t priority)
{
	Drover__VmSpec spec = DROVER__VM_SPEC__INIT;

	spec.name = (char *)(uintptr_t)name;
	spec.uuid = core_bytes(n);
	spec.memory = memory;
	spec.cpus = 1;
	spec.priority = priority;
	CORE_BODY(cmd, body, VM_ADD, vm_add, Drover__CmdVmAdd, drover__cmd_vm_add);
	body.spec = &spec;
	body.node = (char *)(uintptr_t)node;
	return core_apply(c, &cmd);
}

static inline struct vm_row core_vm(struct core *c, const char *name)
{
	struct vm_row vm;

	if (!rows_vm(c->db, name, &vm))
		fail_msg("no VM %s", name);
	return vm;
}

static inline uint32_t core_vm_start(struct core *c, const char *name, const char *node)
{
	struct vm_row vm = core_vm(c, name);

	CORE_BODY(cmd, body, VM_START, vm_start, Drover__CmdVmStart, drover__cmd_vm_start);
	body.vm = (char *)(uintptr_t)name;
	body.node = (char *)(uintptr_t)node;
	body.owner = vm.owner;
	body.generation = vm.generation;
	return core_apply(c, &cmd);
}

/* The word of a node's agent about a VM. */
static inline uint32_t core_vm_fact(struct core *c, const char *node, uint8_t start, const char *vm,
				    uint64_t generation, Drover__VmState state)
{
	Drover__VmFact fact = DROVER__VM_FACT__INIT;

	fact.name = (char *)(uintptr_t)vm;
	fact.generation = generation;
	fact.state = state;
	CORE_BODY(cmd, body, VM_FACT, vm_fact, Drover__CmdVmFact, drover__cmd_vm_fact);
	body.node = (char *)(uintptr_t)node;
	body.start_id = core_bytes(start);
	body.fact = &fact;
	return core_apply(c, &cmd);
}

/* Adds a VM and lets it run on a node whose agent has start id `start`. */
static inline void core_vm_run(struct core *c, const char *name, uint8_t n, const char *node, uint8_t start,
			       uint64_t memory, uint32_t priority)
{
	assert_int_equal(core_vm_add(c, name, n, node, memory, priority), 0);
	assert_int_equal(core_vm_start(c, name, node), 0);
	assert_int_equal(
		core_vm_fact(c, node, start, name, core_vm(c, name).generation, DROVER__VM_STATE__VM_RUNNING),
		0);
}

static inline uint32_t core_move_create(struct core *c, const char *vm, const char *to)
{
	CORE_BODY(cmd, body, MOVE_CREATE, move_create, Drover__CmdMoveCreate, drover__cmd_move_create);
	body.vm = (char *)(uintptr_t)vm;
	body.to = (char *)(uintptr_t)to;
	return core_apply(c, &cmd);
}

static inline struct move_row core_move(struct core *c, uint64_t id)
{
	struct move_row move;

	if (!rows_move(c->db, id, &move))
		fail_msg("no move %llu", (unsigned long long)id);
	return move;
}

static inline struct attempt_row core_attempt(struct core *c, uint64_t id, uint32_t attempt)
{
	struct attempt_row t;

	if (!rows_attempt(c->db, id, attempt, &t))
		fail_msg("no attempt %u of move %llu", attempt, (unsigned long long)id);
	return t;
}

/* The next attempt of a queued move. */
static inline uint32_t core_assign(struct core *c, uint64_t id, const char *to)
{
	static uint8_t key[32];
	struct move_row move = core_move(c, id);
	struct vm_row vm = core_vm(c, move.vm);
	Drover__NetworkPath path = DROVER__NETWORK_PATH__INIT;
	Drover__NetworkPath *paths[1] = {&path};

	path.network = (char *)"mig1";
	CORE_BODY(cmd, body, MOVE_ASSIGN, move_assign, Drover__CmdMoveAssign, drover__cmd_move_assign);
	body.move = id;
	body.vm = vm.name;
	body.generation = vm.generation;
	body.from = vm.owner;
	body.to = (char *)(uintptr_t)to;
	body.attempt = move.attempt + 1;
	if (!rows_vm_off(&vm)) {
		body.paths = paths;
		body.n_paths = 1;
		body.key.data = key;
		body.key.len = sizeof(key);
	}
	return core_apply(c, &cmd);
}

/* vm1 to node2, assigned. */
static inline uint64_t core_assigned(struct core *c)
{
	uint64_t id;

	assert_int_equal(core_move_create(c, "vm1", ""), 0);
	id = c->last.object_id;
	assert_int_equal(core_assign(c, id, "node2"), 0);
	return id;
}

static inline uint32_t core_move_fact_full(struct core *c, const char *node, uint8_t start, uint64_t id,
					   uint32_t attempt, Drover__MoveRole role, Drover__MovePhase phase,
					   const char *error, uint32_t token)
{
	struct attempt_row t = core_attempt(c, id, attempt);
	Drover__MoveFact fact = DROVER__MOVE_FACT__INIT;

	fact.move = id;
	fact.attempt = attempt;
	fact.vm = t.vm;
	fact.generation = t.generation;
	fact.role = role;
	fact.phase = phase;
	fact.error = (char *)(uintptr_t)error;
	fact.error_exit = error[0] != '\0' ? 1 : 0;
	fact.token_request = token;
	CORE_BODY(cmd, body, MOVE_FACT, move_fact, Drover__CmdMoveFact, drover__cmd_move_fact);
	body.node = (char *)(uintptr_t)node;
	body.start_id = core_bytes(start);
	body.fact = &fact;
	return core_apply(c, &cmd);
}

static inline uint32_t core_src(struct core *c, const char *node, uint8_t start, uint64_t id,
				uint32_t attempt, Drover__MovePhase phase)
{
	return core_move_fact_full(c, node, start, id, attempt, DROVER__MOVE_ROLE__MOVE_SRC, phase, "", 0);
}

static inline uint32_t core_dst(struct core *c, const char *node, uint8_t start, uint64_t id,
				uint32_t attempt, Drover__MovePhase phase)
{
	return core_move_fact_full(c, node, start, id, attempt, DROVER__MOVE_ROLE__MOVE_DST, phase, "", 0);
}

static inline uint32_t core_commit(struct core *c, uint64_t id, uint32_t attempt)
{
	struct attempt_row t = core_attempt(c, id, attempt);

	CORE_BODY(cmd, body, MOVE_COMMIT, move_commit, Drover__CmdMoveCommit, drover__cmd_move_commit);
	body.move = id;
	body.vm = t.vm;
	body.generation = t.generation;
	body.from = t.src;
	body.to = t.dst;
	body.attempt = attempt;
	return core_apply(c, &cmd);
}

static inline uint32_t core_abort(struct core *c, uint64_t id, uint32_t attempt,
				  Drover__CmdMoveAbort__Outcome outcome)
{
	struct attempt_row t = core_attempt(c, id, attempt);

	CORE_BODY(cmd, body, MOVE_ABORT, move_abort, Drover__CmdMoveAbort, drover__cmd_move_abort);
	body.move = id;
	body.attempt = attempt;
	body.generation = t.generation;
	body.outcome = outcome;
	body.reason = (char *)"test";
	return core_apply(c, &cmd);
}

static inline uint32_t core_drain(struct core *c, const char *node)
{
	CORE_BODY(cmd, body, DRAIN_START, drain_start, Drover__CmdDrainStart, drover__cmd_drain_start);
	body.node = (char *)(uintptr_t)node;
	return core_apply(c, &cmd);
}

/* Refused with that exit and those words; of the state only the index has changed. */
static inline void core_refused(struct core *c, Drover__Command *cmd, uint32_t exit, const char *words)
{
	uint8_t before[DB_DIGEST_SIZE];
	uint8_t after[DB_DIGEST_SIZE];

	db_digest(c->db, before);
	assert_int_equal(core_apply(c, cmd), exit);
	if (strstr(c->last.message, words) == NULL)
		fail_msg("'%s' says nothing of '%s'", c->last.message, words);
	assert_false(c->last.changed || c->last.touched_all);
	assert_int_equal(c->last.n_touched, 0);
	db_begin(c->db);
	db_exec(c->db, "UPDATE counter SET value = ? WHERE name = 'index'", "u", c->index - 1);
	db_commit(c->db);
	db_digest(c->db, after);
	assert_memory_equal(before, after, DB_DIGEST_SIZE);
	db_begin(c->db);
	db_exec(c->db, "UPDATE counter SET value = ? WHERE name = 'index'", "u", c->index);
	db_commit(c->db);
}

static inline void core_done(struct core *c, Drover__Command *cmd)
{
	if (core_apply(c, cmd) != 0)
		fail_msg("refused: %s", c->last.message);
	assert_true(c->last.changed);
}

static inline void core_unchanged(struct core *c, Drover__Command *cmd)
{
	if (core_apply(c, cmd) != 0)
		fail_msg("refused: %s", c->last.message);
	assert_false(c->last.changed);
}

static inline uint64_t core_count(struct core *c, const char *sql)
{
	return db_get_u64(c->db, sql, "");
}

/* cmocka's: a state with node1 to node3 and vm1, which runs on node1. */
static inline int core_setup(void **state)
{
	struct core *c = calloc(1, sizeof(*c));

	core_init(c);
	core_node(c, "node1", 1);
	core_node(c, "node2", 2);
	core_node(c, "node3", 3);
	core_vm_run(c, "vm1", 101, "node1", 1, 128 * MIB, 0);
	*state = c;
	return 0;
}

static inline int core_teardown(void **state)
{
	struct core *c = *state;

	core_fini(c);
	free(c);
	return 0;
}

#endif
