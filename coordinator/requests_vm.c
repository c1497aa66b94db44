/* Client requests about VMs. */
#include <stdio.h>
#include <string.h>

#include "coordinator/plan.h"
#include "coordinator/requests_private.h"
#include "coordinator/spec.h"

static bool owners_exist(struct ask *a, const Drover__VmSpec *spec)
{
	struct node_row node;

	for (size_t i = 0; i < spec->n_possible_owners; i++) {
		if (!ask_node(a, spec->possible_owners[i], &node))
			return false;
	}
	for (size_t i = 0; i < spec->n_preferred_owners; i++) {
		if (!ask_node(a, spec->preferred_owners[i], &node))
			return false;
	}
	return true;
}

/* A random UUID (version 4) and locally administered MACs of QEMU's prefix, where the client gave none. */
static void stamp(struct ask *a, Drover__VmSpec *spec)
{
	uint8_t id[ROWS_ID];

	if (spec->uuid.len == 0) {
		env_random(a->env, id, sizeof(id));
		id[6] = (uint8_t)((id[6] & 0x0f) | 0x40);
		id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
		msg_set_bytes(&spec->uuid, id, sizeof(id));
	}
	for (size_t i = 0; i < spec->n_nics; i++) {
		uint8_t tail[3];
		char mac[32];

		if (spec->nics[i]->mac[0] != '\0')
			continue;
		env_random(a->env, tail, sizeof(tail));
		snprintf(mac, sizeof(mac), "52:54:00:%02x:%02x:%02x", tail[0], tail[1], tail[2]);
		msg_set(&spec->nics[i]->mac, mac);
	}
}

void ask_vm_add(struct ask *a, const Drover__VmSpec *spec)
{
	struct dr_error err = DR_ERROR_INIT;
	char node[ROWS_NAME];
	char why[PLAN_WHY];
	struct vm_row vm;

	if (spec_check(spec, &err) < 0) {
		ask_refuse(a, DR_EUSAGE, "%s", err.text);
		return;
	}
	if (spec->uuid.len != 0 && spec->uuid.len != ROWS_ID) {
		ask_refuse(a, DR_EUSAGE, "a UUID has 16 bytes");
		return;
	}
	if (rows_vm(a->db, spec->name, &vm)) {
		ask_refuse(a, DR_EREFUSED, "a VM '%s' exists already: change it with drover vm set %s",
			   spec->name, spec->name);
		return;
	}
	if (!owners_exist(a, spec))
		return;
	if (!plan_place(a->db, spec, false, node, why, sizeof(why))) {
		ask_refuse(a, DR_EREFUSED, "no node for %s: %s", spec->name, why);
		return;
	}
	a->cmd->body_case = DROVER__COMMAND__BODY_VM_ADD;
	a->cmd->vm_add = MSG_NEW(drover__cmd_vm_add, Drover__CmdVmAdd);
	a->cmd->vm_add->spec = msg_clone(spec);
	stamp(a, a->cmd->vm_add->spec);
	msg_set(&a->cmd->vm_add->node, node);
	ask_would(a, "%s would be added on %s%s", spec->name, node,
		  spec->n_hostdevs > 0 ? "; with a device of the host it can't be moved while it runs" : "");
}

void ask_vm_set(struct ask *a, const Drover__VmSet *set)
{
	struct dr_error err = DR_ERROR_INIT;
	Drover__VmSpec *spec;
	struct vm_row vm;
	bool hardware;
	bool good;

	if (!ask_vm(a, set->vm, &vm))
		return;
	if (set->spec == NULL || set->n_mask == 0) {
		ask_refuse(a, DR_EUSAGE, "nothing to set");
		return;
	}
	spec = rows_spec(a->db, set->vm);
	if (spec == NULL) {
		ask_refuse(a, DR_EFAILED, "the definition of %s can't be read", set->vm);
		return;
	}
	good = spec_merge(spec, set->spec, set->mask, set->n_mask, &hardware, &err) == 0 &&
	       spec_check(spec, &err) == 0;
	if (!good)
		ask_refuse(a, DR_EUSAGE, "%s", err.text);
	else
		good = owners_exist(a, spec);
	drover__vm_spec__free_unpacked(spec, NULL);
	if (!good)
		return;
	a->cmd->body_case = DROVER__COMMAND__BODY_VM_SET;
	a->cmd->vm_set = msg_clone(set);
	/* A NIC without a MAC gets one now: apply has no randomness. */
	stamp(a, a->cmd->vm_set->spec);
	ask_would(a, "%s would be changed", set->vm);
}

static void ask_start(struct ask *a, const Drover__VmVerb *verb, const struct vm_row *vm)
{
	struct node_row node;
	Drover__VmSpec *spec;
	char to[ROWS_NAME];
	char why[PLAN_WHY] = "";
	bool placed = true;
	bool stops = vm->want == DROVER__VM_WANT__WANT_STOP || vm->want == DROVER__VM_WANT__WANT_KILL;

	if (!stops &&
	    (vm->state == DROVER__VM_STATE__VM_RUNNING || vm->state == DROVER__VM_STATE__VM_STARTING)) {
		ask_unchanged(a, "%s is %s on %s already", vm->name, rows_vm_state(a->db, vm), vm->owner);
		return;
	}
	if (verb->node[0] != '\0' && !ask_node(a, verb->node, &node))
		return;
	spec = rows_spec(a->db, vm->name);
	if (spec == NULL) {
		ask_refuse(a, DR_EFAILED, "the definition of %s can't be read", vm->name);
		return;
	}
	if (verb->node[0] != '\0') {
		snprintf(to, sizeof(to), "%s", verb->node);
	} else if (stops) {
		snprintf(to, sizeof(to), "%s", vm->owner); /* the stop is taken back */
	} else if (rows_node(a->db, vm->owner, &node) && rows_node_works(&node) && !node.paused &&
		   rows_memory_promised(a->db, vm->owner) + vm->memory <= node.memory_total) {
		snprintf(to, sizeof(to), "%s", vm->owner);
	} else {
		placed = plan_place(a->db, spec, true, to, why, sizeof(why));
	}
	drover__vm_spec__free_unpacked(spec, NULL);
	if (!placed) {
		ask_refuse(a, DR_EREFUSED, "%s can't be started: %s", vm->name, why);
		return;
	}
	a->cmd->body_case = DROVER__COMMAND__BODY_VM_START;
	a->cmd->vm_start = MSG_NEW(drover__cmd_vm_start, Drover__CmdVmStart);
	msg_set(&a->cmd->vm_start->vm, vm->name);
	msg_set(&a->cmd->vm_start->node, to);
	msg_set(&a->cmd->vm_start->owner, vm->owner);
	a->cmd->vm_start->generation = vm->generation;
	ask_would(a, "%s would be started on %s", vm->name, to);
}

void ask_vm_verb(struct ask *a, const Drover__VmVerb *verb)
{
	struct vm_row vm;

	if (!ask_vm(a, verb->vm, &vm))
		return;
	switch (verb->verb) {
	case DROVER__VM_VERB__VERB__START:
		ask_start(a, verb, &vm);
		return;
	case DROVER__VM_VERB__VERB__STOP:
		if (rows_vm_off(&vm)) {
			ask_unchanged(a, "%s is stopped already", verb->vm);
			return;
		}
		a->cmd->body_case = DROVER__COMMAND__BODY_VM_STOP;
		a->cmd->vm_stop = MSG_NEW(drover__cmd_vm_stop, Drover__CmdVmStop);
		msg_set(&a->cmd->vm_stop->vm, verb->vm);
		a->cmd->vm_stop->force = verb->force;
		ask_would(a, "%s would be stopped on %s", verb->vm, vm.owner);
		return;
	case DROVER__VM_VERB__VERB__REMOVE:
		a->cmd->body_case = DROVER__COMMAND__BODY_VM_REMOVE;
		a->cmd->vm_remove = MSG_NEW(drover__cmd_vm_remove, Drover__CmdVmRemove);
		msg_set(&a->cmd->vm_remove->vm, verb->vm);
		ask_would(a, "%s would be removed; its disks stay", verb->vm);
		return;
	case _DROVER__VM_VERB__VERB_IS_INT_SIZE:
		break;
	}
	ask_refuse(a, DR_EUSAGE, "unknown VM verb");
}

/* ---------------------------------------------------------------- move */

static bool word_in(const char *word, const char *const *list)
{
	for (; *list != NULL; list++) {
		if (strcmp(word, *list) == 0)
			return true;
	}
	return false;
}

static bool move_words(struct ask *a, const Drover__MoveRequest *move)
{
	static const char *const kinds[] = {"", "live", "offline", NULL};
	static const char *const later_kinds[] = {"quick", "storage", "shared-nothing", "post-copy", NULL};
	static const char *const modes[] = {"", "auto", "tcp", "multichannel", NULL};
	static const char *const later_modes[] = {"compress", "rdma", "direct", NULL};

	if (word_in(move->kind, later_kinds))
		ask_refuse(a, DR_EUSAGE, "kind %s: not supported yet", move->kind);
	else if (!word_in(move->kind, kinds))
		ask_refuse(a, DR_EUSAGE,
			   "kind '%.32s' is unknown: live, quick, offline, storage or shared-nothing",
			   move->kind);
	else if (word_in(move->mode, later_modes))
		ask_refuse(a, DR_EUSAGE, "mode %s: not supported yet", move->mode);
	else if (!word_in(move->mode, modes))
		ask_refuse(a, DR_EUSAGE,
			   "mode '%.32s' is unknown: auto, tcp, compress, multichannel, rdma or direct",
			   move->mode);
	return a->answer == NULL;
}

static bool move_possible(struct ask *a, const Drover__MoveRequest *move, const struct vm_row *vm)
{
	struct plan_choice choice;
	struct plan_input in = {
		.db = a->db,
		.vm = vm,
		.want_to = move->to,
		.network = move->network,
		.mode = move->mode,
		.offline = rows_vm_off(vm),
		.any_slot = true,
	};
	char why[ROWS_ERROR];

	if (vm->move != 0) {
		ask_refuse(a, DR_EREFUSED, "%s is being moved already (move %llu)", vm->name,
			   (unsigned long long)vm->move);
		return false;
	}
	if (strcmp(move->kind, "offline") == 0 && !rows_vm_off(vm)) {
		ask_refuse(a, DR_EREFUSED, "%s runs: an offline move needs it stopped", vm->name);
		return false;
	}
	if (strcmp(move->kind, "live") == 0 && rows_vm_off(vm)) {
		ask_refuse(a, DR_EREFUSED, "%s is stopped: move it with --kind offline", vm->name);
		return false;
	}
	if (!rows_vm_off(vm) && plan_unmovable(a->db, vm, why, sizeof(why))) {
		ask_refuse(a, DR_EREFUSED, "%s can't be moved: %s", vm->name, why);
		return false;
	}
	if (plan_choose(&in, &choice) < 0)
		ask_refuse(a, DR_EREFUSED, "no target for %s: %s", vm->name, choice.why);
	else
		ask_would(a, "%s would move from %s to %s%s%s", vm->name, vm->owner, choice.to,
			  choice.paths != NULL ? " over " : "",
			  choice.paths != NULL ? choice.paths->paths[0]->network : "");
	plan_choice_fini(&choice);
	return a->answer == NULL;
}

void ask_vm_move(struct ask *a, const Drover__MoveRequest *move)
{
	struct node_row node;
	struct vm_row vm;

	if (!move_words(a, move) || !ask_vm(a, move->vm, &vm) ||
	    (move->to[0] != '\0' && !ask_node(a, move->to, &node)) ||
	    (move->network[0] != '\0' && !ask_network(a, move->network)))
		return;
	if (strcmp(move->to, vm.owner) == 0) {
		ask_unchanged(a, "%s is on %s already", vm.name, vm.owner);
		return;
	}
	if (!move_possible(a, move, &vm))
		return;
	a->cmd->body_case = DROVER__COMMAND__BODY_MOVE_CREATE;
	a->cmd->move_create = MSG_NEW(drover__cmd_move_create, Drover__CmdMoveCreate);
	msg_set(&a->cmd->move_create->vm, move->vm);
	msg_set(&a->cmd->move_create->to, move->to);
	msg_set(&a->cmd->move_create->kind, move->kind);
	msg_set(&a->cmd->move_create->network, move->network);
	msg_set(&a->cmd->move_create->mode, move->mode);
}
