/* agent.db: one row of each kind, in each of the states that matter after a restart. */
#include "agent/store.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "compat.h"

static void ok(int rc)
{
	if (rc != 0)
		abort();
}

static void fill_vms(struct store *s)
{
	static const Drover__VmState states[] = {DROVER__VM_STATE__VM_STARTING, DROVER__VM_STATE__VM_RUNNING,
						 DROVER__VM_STATE__VM_STOPPED, DROVER__VM_STATE__VM_FAILED};
	ProtobufCMessage *spec = compat_fill(&drover__vm_spec__descriptor, 0);
	ProtobufCMessage *launch = compat_fill(&drover__launch_record__descriptor, 0);

	for (unsigned i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		struct store_vm vm = {.generation = 10 + i,
				      .spec = (Drover__VmSpec *)(void *)spec,
				      .launch = (Drover__LaunchRecord *)(void *)launch,
				      .pid = (pid_t)(1000 + i),
				      .start_time = 77000 + i,
				      .state = states[i]};

		snprintf(vm.name, sizeof(vm.name), "vm%u", i);
		snprintf(vm.error, sizeof(vm.error), "error %u", i);
		memset(vm.uuid, (int)(0x40 + i), sizeof(vm.uuid));
		ok(store_vm_put(s, &vm));
		ok(store_vm_floor_raise(s, vm.name, vm.generation));
	}
	ok(store_word_raise(s, "gone", 99));
	protobuf_c_message_free_unpacked(spec, NULL);
	protobuf_c_message_free_unpacked(launch, NULL);
}

static void fill_move(struct store *s, uint64_t id, Drover__MoveRole role, Drover__MovePhase phase)
{
	ProtobufCMessage *m = compat_fill(&drover__move_order__descriptor, 0);
	ProtobufCMessage *proof = compat_fill(&drover__disk_proof__descriptor, 0);
	Drover__DiskProof *proofs[1] = {(Drover__DiskProof *)(void *)proof};
	struct store_move row = {.order = (Drover__MoveOrder *)(void *)m};

	row.order->move = id;
	row.order->attempt = 3;
	row.order->role = role;
	row.record.phase = phase;
	row.record.released = phase == DROVER__MOVE_PHASE__SRC_RELEASED;
	row.record.stopped = row.record.released;
	row.record.committed = phase == DROVER__MOVE_PHASE__DST_CONTINUING;
	snprintf(row.record.error, sizeof(row.record.error), "error of %" PRIu64, id);
	row.record.error_exit = 6;
	row.record.error_fatal = true;
	drover__move_stats__init(&row.record.stats);
	row.record.stats.passes = 4;
	row.record.stats.blackout_us = 12345;
	row.record.n_proofs = 1;
	row.record.proofs = proofs;
	row.qemu.pid = 2000;
	row.qemu.start_time = 88000;
	row.relay.pid = 2001;
	row.relay.start_time = 88001;
	ok(store_move_put(s, &row));
	ok(store_move_floor_raise(s, id, 3));
	protobuf_c_message_free_unpacked(m, NULL);
	protobuf_c_message_free_unpacked(proof, NULL);
}

void compat_store_fill(struct store *s)
{
	struct store_floors floors = {.term = 7, .incarnation = 5, .have_cluster = true};

	memset(floors.cluster_uuid, 0x55, sizeof(floors.cluster_uuid));
	ok(store_floors_put(s, &floors));
	fill_vms(s);
	fill_move(s, 500, DROVER__MOVE_ROLE__MOVE_SRC, DROVER__MOVE_PHASE__SRC_RELEASED);
	fill_move(s, 501, DROVER__MOVE_ROLE__MOVE_DST, DROVER__MOVE_PHASE__DST_CONTINUING);
	fill_move(s, 502, DROVER__MOVE_ROLE__MOVE_SRC, DROVER__MOVE_PHASE__PHASE_GONE);
}

struct dump {
	FILE *out;
	struct store *store;
};

static void dump_vm(const struct store_vm *vm, void *data)
{
	struct dump *d = data;
	uint64_t word = 0;
	uint64_t floor = 0;

	ok(store_word(d->store, vm->name, &word));
	ok(store_vm_floor(d->store, vm->name, &floor));
	fprintf(d->out,
		"vm %s uuid %02x.. generation %" PRIu64 " pid %d start %" PRIu64
		" state %d error '%s' word %" PRIu64 " floor %" PRIu64 "\n",
		vm->name, vm->uuid[0], vm->generation, (int)vm->pid, vm->start_time, (int)vm->state,
		vm->error, word, floor);
	if (vm->spec != NULL)
		compat_dump(d->out, &vm->spec->base, "spec");
	if (vm->launch != NULL)
		compat_dump(d->out, &vm->launch->base, "launch");
}

static void dump_move(const struct store_move *m, void *data)
{
	struct dump *d = data;
	uint32_t floor = 0;

	ok(store_move_floor(d->store, m->order->move, &floor));
	fprintf(d->out,
		"move %" PRIu64 "/%u role %d phase %d released %d stopped %d committed %d error '%s' %u %d"
		" passes %u blackout %" PRIu64 " qemu %d %" PRIu64 " relay %d %" PRIu64 " floor %u\n",
		m->order->move, m->order->attempt, (int)m->order->role, (int)m->record.phase,
		m->record.released, m->record.stopped, m->record.committed, m->record.error,
		m->record.error_exit, m->record.error_fatal, m->record.stats.passes,
		m->record.stats.blackout_us, (int)m->qemu.pid, m->qemu.start_time, (int)m->relay.pid,
		m->relay.start_time, floor);
	compat_dump(d->out, &m->order->base, "order");
	for (size_t i = 0; i < m->record.n_proofs; i++)
		compat_dump(d->out, &m->record.proofs[i]->base, "proof");
}

void compat_store_dump(FILE *out, struct store *s)
{
	struct dump d = {.out = out, .store = s};
	struct store_floors floors;
	uint64_t word = 0;

	ok(store_floors(s, &floors));
	ok(store_word(s, "gone", &word));
	fprintf(out,
		"floors term %" PRIu64 " incarnation %" PRIu64 " cluster %d %02x.. word of gone %" PRIu64
		"\n",
		floors.term, floors.incarnation, floors.have_cluster, floors.cluster_uuid[0], word);
	ok(store_vms(s, dump_vm, &d));
	ok(store_moves(s, dump_move, &d));
}
