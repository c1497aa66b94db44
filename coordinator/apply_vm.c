/* VMs: definition, start and stop, and what their owners say about them. */
#include <stdlib.h>
#include <string.h>

#include "common/names.h"
#include "coordinator/apply_private.h"
#include "coordinator/msg.h"
#include "coordinator/spec.h"

static void store_spec(struct apply *a, const Drover__VmSpec *spec)
{
	size_t size;
	uint8_t *bytes = msg_pack(spec, &size);

	db_exec(a->db, "UPDATE vm SET spec = ?, priority = ?, memory = ? WHERE name = ?", "buus", bytes, size,
		(uint64_t)spec->priority, spec->memory, spec->name);
	free(bytes);
}

void apply_vm_add(struct apply *a, const Drover__CmdVmAdd *c)
{
	const Drover__VmSpec *spec = c->spec;
	struct dr_error err = DR_ERROR_INIT;
	struct node_row node;

	if (spec == NULL || spec_check(spec, &err) < 0 || spec->uuid.len != ROWS_ID) {
		apply_refuse(a, DR_EUSAGE, "%s",
			     err.code != DR_OK ? err.text : "a VM needs a UUID of 16 bytes");
		return;
	}
	if (db_exists(a->db, "SELECT 1 FROM vm WHERE name = ?", "s", spec->name)) {
		apply_refuse(a, DR_EREFUSED, "a VM '%s' exists already", spec->name);
		return;
	}
	if (db_exists(a->db, "SELECT 1 FROM vm WHERE uuid = ?", "b", spec->uuid.data, spec->uuid.len)) {
		apply_refuse(a, DR_EREFUSED, "another VM has that UUID");
		return;
	}
	if (!apply_need_node(a, c->node, &node))
		return;
	db_exec(a->db,
		"INSERT INTO vm (name, uuid, owner, generation, state, want, priority, memory, move, error, "
		"spec, launch,"
		" changed) VALUES (?, ?, ?, ?, 1, 0, 0, 0, 0, '', x'', x'', ?)",
		/* Hosts remember the generations of a name: one that comes again must begin above all of them
		   (R6). */
		"sbsuu", spec->name, spec->uuid.data, spec->uuid.len, c->node, a->index, a->index);
	store_spec(a, spec);
	apply_object(a, "vm", 0, spec->name);
	apply_event(a, "vm", (struct about){.vm = spec->name, .node = c->node}, "%s was added on %s",
		    spec->name, c->node);
	apply_touch(a, c->node);
	a->out->changed = true;
}

void apply_vm_set(struct apply *a, const Drover__VmSet *c)
{
	struct dr_error err = DR_ERROR_INIT;
	Drover__VmSpec *spec;
	Drover__VmSpec *old;
	struct vm_row vm;
	bool hardware = false;

	if (!apply_need_vm(a, c->vm, &vm))
		return;
	spec = rows_spec(a->db, c->vm);
	if (spec == NULL || c->spec == NULL) {
		drover__vm_spec__free_unpacked(spec, NULL);
		apply_refuse(a, DR_EUSAGE, "nothing to set");
		return;
	}
	old = msg_clone(spec);
	if (spec_merge(spec, c->spec, c->mask, c->n_mask, &hardware, &err) < 0 ||
	    spec_check(spec, &err) < 0) {
		apply_refuse(a, DR_EUSAGE, "%s", err.text);
	} else if (!msg_same(old, spec)) {
		if (hardware && (!rows_vm_off(&vm) || vm.move != 0)) {
			apply_refuse(a, DR_EREFUSED, "%s runs: stop it first (drover vm stop %s)", c->vm,
				     c->vm);
		} else {
			store_spec(a, spec);
			if (hardware) /* the next start resolves it anew */
				db_exec(a->db, "UPDATE vm SET launch = x'' WHERE name = ?", "s", c->vm);
			apply_touch(a, vm.owner);
			a->out->changed = true;
		}
	}
	drover__vm_spec__free_unpacked(spec, NULL);
	drover__vm_spec__free_unpacked(old, NULL);
}

void apply_vm_remove(struct apply *a, const Drover__CmdVmRemove *c)
{
	struct vm_row vm;

	if (!apply_need_vm(a, c->vm, &vm))
		return;
	if (!rows_vm_off(&vm)) {
		apply_refuse(a, DR_EREFUSED, "%s is not stopped: stop it first (drover vm stop %s)", c->vm,
			     c->vm);
		return;
	}
	if (vm.move != 0 ||
	    db_exists(a->db, "SELECT 1 FROM move_attempt WHERE vm = ? AND (src_gone = 0 OR dst_gone = 0)",
		      "s", c->vm)) {
		apply_refuse(a, DR_EREFUSED, "%s takes part in a move", c->vm);
		return;
	}
	db_exec(a->db, "DELETE FROM vm WHERE name = ?", "s", c->vm);
	apply_event(a, "vm", (struct about){.vm = c->vm, .node = vm.owner}, "%s was removed", c->vm);
	apply_touch(a, vm.owner);
	a->out->changed = true;
}

static bool start_allowed(struct apply *a, const Drover__CmdVmStart *c, const struct vm_row *vm)
{
	struct node_row node;
	uint64_t promised;

	if (strcmp(vm->owner, c->owner) != 0 || vm->generation != c->generation) {
		apply_refuse(a, DR_EFAILED, "%s has changed meanwhile: try again", c->vm);
		return false;
	}
	/* SAFETY R12: only a host's own durable word, or its death, frees the right to run. */
	if (!rows_vm_off(vm)) {
		apply_refuse(a, DR_EREFUSED, "%s is %s on %s", c->vm, rows_vm_state(a->db, vm), vm->owner);
		return false;
	}
	/* A destination whose abort is committed can never run it; only that host itself must be clean first.
	 */
	if (vm->move != 0 ||
	    db_exists(a->db,
		      "SELECT 1 FROM move_attempt WHERE vm = ? AND (src_gone = 0 OR dst_gone = 0 AND "
		      "(decision <> 2 OR dst = ?))",
		      "ss", c->vm, c->node)) {
		apply_refuse(a, DR_EREFUSED, "%s takes part in a move", c->vm);
		return false;
	}
	if (!apply_need_node(a, c->node, &node))
		return false;
	if (!rows_node_works(&node) || node.paused) {
		apply_refuse(a, DR_EREFUSED, "%s is %s%s: %s can't be started there", c->node,
			     rows_node_state(a->db, &node),
			     node.fencing != 0 ? " (being fenced)"
			     : node.session    ? ""
					       : " (agent lost)",
			     c->vm);
		return false;
	}
	promised = rows_memory_promised(a->db, c->node);
	if (vm->memory > node.memory_total || promised > node.memory_total - vm->memory) {
		apply_refuse(a, DR_EREFUSED,
			     "%s has no room for %s: %llu of %llu bytes are taken, %llu more needed", c->node,
			     c->vm, (unsigned long long)promised, (unsigned long long)node.memory_total,
			     (unsigned long long)vm->memory);
		return false;
	}
	return true;
}

/* A guest that does not react to its power button: the request can be taken back. If it shut down meanwhile,
 * it is off, and no new generation starts (SAFETY R12). */
static void stop_no_more(struct apply *a, const struct vm_row *vm)
{
	db_exec(a->db, "UPDATE vm SET want = 0, error = '', changed = ? WHERE name = ?", "us", a->index,
		vm->name);
	apply_touch(a, vm->owner);
	apply_event(a, "vm", (struct about){.vm = vm->name, .node = vm->owner},
		    "%s is not asked to stop any more", vm->name);
	apply_object(a, "vm", 0, vm->name);
	a->out->changed = true;
}

void apply_vm_start(struct apply *a, const Drover__CmdVmStart *c)
{
	struct vm_row vm;

	if (!apply_need_vm(a, c->vm, &vm))
		return;
	if (vm.want == DROVER__VM_WANT__WANT_STOP && strcmp(c->node, vm.owner) == 0 &&
	    (vm.state == DROVER__VM_STATE__VM_RUNNING || vm.state == DROVER__VM_STATE__VM_PAUSED)) {
		stop_no_more(a, &vm);
		return;
	}
	if (vm.want == DROVER__VM_WANT__WANT_STOP || vm.want == DROVER__VM_WANT__WANT_KILL) {
		apply_refuse(a, DR_EREFUSED, "%s is being stopped on %s: start it when it is off", c->vm,
			     vm.owner);
		return;
	}
	if (vm.state == DROVER__VM_STATE__VM_RUNNING || vm.state == DROVER__VM_STATE__VM_STARTING)
		return; /* already true */
	if (!start_allowed(a, c, &vm))
		return;
	/* 2: VM_STARTING, 1: WANT_RUN. */
	db_exec(a->db,
		"UPDATE vm SET owner = ?, generation = generation + 1, state = 2, want = 1, error = '', "
		"changed = ?"
		" WHERE name = ?",
		"sus", c->node, a->index, c->vm);
	apply_touch(a, vm.owner);
	apply_touch(a, c->node);
	apply_event(a, "vm", (struct about){.vm = c->vm, .node = c->node}, "%s starts on %s", c->vm, c->node);
	apply_object(a, "vm", 0, c->vm);
	a->out->changed = true;
}

void apply_vm_stop(struct apply *a, const Drover__CmdVmStop *c)
{
	struct vm_row vm;
	struct move_row move;
	Drover__VmWant want = c->force ? DROVER__VM_WANT__WANT_KILL : DROVER__VM_WANT__WANT_STOP;

	if (!apply_need_vm(a, c->vm, &vm) || rows_vm_off(&vm) || vm.want == want)
		return;
	if (vm.move != 0 && rows_move(a->db, vm.move, &move) && strcmp(move.state, "queued") != 0 &&
	    strcmp(move.state, "committed") != 0) {
		apply_refuse(a, DR_EREFUSED,
			     "%s is being moved: wait, or cancel it first (drover move cancel %llu)", c->vm,
			     (unsigned long long)vm.move);
		return;
	}
	db_exec(a->db, "UPDATE vm SET want = ?, changed = ? WHERE name = ?", "ius", (int)want, a->index,
		c->vm);
	apply_touch(a, vm.owner);
	apply_event(a, "vm", (struct about){.vm = c->vm, .node = vm.owner}, "%s is asked to stop%s", c->vm,
		    c->force ? " at once" : "");
	apply_object(a, "vm", 0, c->vm);
	a->out->changed = true;
}

/* ---------------------------------------------------------------- the owner's word */

static void fact_state(struct apply *a, const struct vm_row *vm, const Drover__VmFact *f)
{
	bool off = f->state == DROVER__VM_STATE__VM_STOPPED || f->state == DROVER__VM_STATE__VM_FAILED;
	/* A start or stop that was asked for and is reached needs no order any more. */
	bool reached =
		off || (f->state == DROVER__VM_STATE__VM_RUNNING && vm->want == DROVER__VM_WANT__WANT_RUN);

	if (f->state == vm->state && !(reached && vm->want != DROVER__VM_WANT__WANT_NOTHING) &&
	    strncmp(f->error, vm->error, sizeof(vm->error) - 1) == 0)
		return;
	db_exec(a->db,
		"UPDATE vm SET state = ?, want = iif(?, 0, want), error = substr(?, 1, 500) WHERE name = ?",
		"iiss", (int)f->state, reached ? 1 : 0, f->error, vm->name);
	if (f->state != vm->state)
		apply_event(a, "vm", (struct about){.vm = vm->name, .node = vm->owner}, "%s %s on %s%s%s%s",
			    vm->name,
			    f->state == DROVER__VM_STATE__VM_STOPPED	? "is stopped"
			    : f->state == DROVER__VM_STATE__VM_FAILED	? "has failed"
			    : f->state == DROVER__VM_STATE__VM_RUNNING	? "runs"
			    : f->state == DROVER__VM_STATE__VM_STARTING ? "starts"
			    : f->state == DROVER__VM_STATE__VM_PAUSED	? "is paused"
			    : f->state == DROVER__VM_STATE__VM_SAVED	? "is saved"
									: "is in an unknown state",
			    vm->owner, f->error[0] != '\0' ? ": " : "", f->error,
			    rows_vm_off(vm) && !off ? " (it had been reported stopped)" : "");
	else if (f->error[0] != '\0' && strncmp(f->error, vm->error, sizeof(vm->error) - 1) != 0)
		apply_event(a, "vm", (struct about){.vm = vm->name, .node = vm->owner}, "%s on %s: %.400s",
			    vm->name, vm->owner, f->error);
	a->out->changed = true;
}

void apply_vm_fact(struct apply *a, const Drover__CmdVmFact *c)
{
	const Drover__VmFact *f = c->fact;
	struct node_row node;
	struct vm_row vm;

	if (f == NULL || !apply_need_node(a, c->node, &node) || !apply_need_vm(a, f->name, &vm))
		return;
	if (!node.session || !msg_same_bytes(&c->start_id, node.start_id, ROWS_ID)) {
		apply_refuse(a, DR_EREFUSED, "not the word of the present agent of %s", c->node);
		return;
	}
	/* SAFETY R12: only the owner, in its present session, for that generation. */
	if (strcmp(vm.owner, c->node) != 0 || vm.generation != f->generation) {
		apply_refuse(a, DR_EREFUSED, "%s generation %llu is not what %s owns", f->name,
			     (unsigned long long)f->generation, c->node);
		return;
	}
	if ((int)f->state < 0 || f->state > DROVER__VM_STATE__VM_FAILED) {
		apply_refuse(a, DR_EUSAGE, "unknown state %d", (int)f->state);
		return;
	}
	fact_state(a, &vm, f);
	if (f->launch != NULL &&
	    db_exec(a->db, "UPDATE vm SET launch = launch WHERE name = ? AND length(launch) = 0", "s",
		    f->name) > 0) {
		size_t size;
		uint8_t *bytes = msg_pack(f->launch, &size);

		db_exec(a->db, "UPDATE vm SET launch = ? WHERE name = ?", "bs", bytes, size, f->name);
		free(bytes);
		a->out->changed = true;
	}
	if (a->out->changed)
		apply_touch(a, c->node);
}
