/* drover vm …: the virtual machines. */
#include <string.h>

#include "cli/json.h"
#include "cli/show.h"
#include "cli/verbs.h"
#include "cli/vmspec.h"

static const struct cli_word kind_words[] = {
	{.word = "live"},
	{.word = "quick", .later = true},
	{.word = "offline"},
	{.word = "storage", .later = true},
	{.word = "shared-nothing", .later = true},
	{0},
};
static const struct cli_word mode_words[] = {
	{.word = "auto"},
	{.word = "tcp"},
	{.word = "compress", .later = true},
	{.word = "multichannel"},
	{.word = "rdma", .later = true},
	{.word = "direct", .later = true},
	{0},
};

static const struct cli_option show_options[] = {
	{.name = "command",
	 .kind = OPT_FLAG,
	 .help = "the QEMU command line that the VM is always started with"},
	{0},
};
static const struct cli_option start_options[] = {
	{.name = "node",
	 .kind = OPT_OBJECT,
	 .object = OBJ_NODE,
	 .value = "N",
	 .help = "on this node (its owner, else the best)"},
	{0},
};
static const struct cli_option stop_options[] = {
	{.name = "force", .kind = OPT_FLAG, .help = "pull the plug instead of asking the guest"},
	{0},
};
static const struct cli_option move_options[] = {
	{.name = "to",
	 .kind = OPT_OBJECT,
	 .object = OBJ_NODE,
	 .value = "N",
	 .help = "to this node (the best)"},
	{.name = "kind",
	 .kind = OPT_CHOICE,
	 .value = "live|quick|offline|storage|shared-nothing",
	 .words = kind_words,
	 .help = "how (live when it runs, offline when not)"},
	{.name = "network",
	 .kind = OPT_OBJECT,
	 .object = OBJ_NETWORK,
	 .value = "NET",
	 .help = "over this network only"},
	{.name = "mode", .kind = OPT_CHOICE, .value = "M", .words = mode_words, .help = "auto|tcp (auto)"},
	{0},
};

static int list_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req, struct dr_error *err)
{
	(void)err;
	verb_list(cli, req, DROVER__LIST_REQUEST__WHAT__VMS)->name = verb_text(cli_arg(p, 0));
	return 0;
}

static void hostdev_note(struct cli *cli, const Drover__VmSpec *spec, const char *vm)
{
	if (spec->n_hostdevs > 0)
		fprintf(cli->err,
			"drover: note: --hostdev makes %s unmovable: a drain of its node will report it\n",
			vm);
}

static int add_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req, struct dr_error *err)
{
	Drover__VmSpec *spec = VERB_NEW(cli, req, vm_add, VM_ADD, drover__vm_spec);
	int rc = vmspec_build(cli, p, true, spec, NULL, NULL, err);

	if (rc == 0)
		hostdev_note(cli, spec, cli_arg(p, 0));
	return rc;
}

static int set_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req, struct dr_error *err)
{
	Drover__VmSet *set = VERB_NEW(cli, req, vm_set, VM_SET, drover__vm_set);
	int rc;

	set->vm = verb_text(cli_arg(p, 0));
	set->spec = arena_alloc(&cli->arena, sizeof(*set->spec));
	rc = vmspec_build(cli, p, false, set->spec, &set->mask, &set->n_mask, err);
	if (rc < 0)
		return rc;
	if (set->n_mask == 0)
		return dr_error_set(err, DR_EUSAGE,
				    "say what to change: \"drover vm set --help\" lists the options");
	hostdev_note(cli, set->spec, cli_arg(p, 0));
	return 0;
}

static Drover__VmVerb *vm_verb(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
			       Drover__VmVerb__Verb which)
{
	Drover__VmVerb *verb = VERB_NEW(cli, req, vm_verb, VM_VERB, drover__vm_verb);

	verb->verb = which;
	verb->vm = verb_text(cli_arg(p, 0));
	verb->node = verb_text(cli_text(p, "node"));
	verb->force = cli_flag(p, "force");
	return verb;
}

static int remove_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
			struct dr_error *err)
{
	(void)err;
	vm_verb(cli, p, req, DROVER__VM_VERB__VERB__REMOVE);
	return 0;
}

static int start_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req,
		       struct dr_error *err)
{
	(void)err;
	vm_verb(cli, p, req, DROVER__VM_VERB__VERB__START);
	return 0;
}

static int stop_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req, struct dr_error *err)
{
	(void)err;
	vm_verb(cli, p, req, DROVER__VM_VERB__VERB__STOP);
	return 0;
}

static int move_build(struct cli *cli, const struct cli_parsed *p, Drover__Request *req, struct dr_error *err)
{
	Drover__MoveRequest *move = VERB_NEW(cli, req, vm_move, VM_MOVE, drover__move_request);

	(void)err;
	move->vm = verb_text(cli_arg(p, 0));
	move->to = verb_text(cli_text(p, "to"));
	move->kind = verb_text(cli_text(p, "kind"));
	move->network = verb_text(cli_text(p, "network"));
	move->mode = verb_text(cli_text(p, "mode"));
	return 0;
}

#define VM_ARG                                                                                               \
	{                                                                                                    \
		{                                                                                            \
			.name = "V", .object = OBJ_VM                                                        \
		}                                                                                            \
	}

static const struct cli_verb verbs[] = {
	{.name = "list",
	 .summary = "Every VM: state, node, memory, priority.",
	 .build = list_build,
	 .json = json_vm_list,
	 .show = show_vm_list},
	{.name = "show",
	 .summary = "One VM with its devices and policies.",
	 .args = VM_ARG,
	 .options = show_options,
	 .build = list_build,
	 .json = json_vm_show,
	 .show = show_vm},
	{.name = "add",
	 .summary = "Make a VM known to the cluster (it is not started).",
	 .args = VM_ARG,
	 .options = vmspec_options,
	 .flags = VERB_MUTATES,
	 .build = add_build,
	 .example = "drover vm add web1 --memory 2GiB --cpus 2 --disk /srv/vm/web1.qcow2 --nic bridge=br0"},
	{.name = "set",
	 .summary = "Change a VM; its hardware only while it is off.",
	 .args = VM_ARG,
	 .options = vmspec_options,
	 .flags = VERB_MUTATES,
	 .build = set_build,
	 .example = "drover vm set web1 --priority high"},
	{.name = "remove",
	 .summary = "Forget a VM that is stopped. Its disks stay.",
	 .args = VM_ARG,
	 .flags = VERB_MUTATES,
	 .build = remove_build},
	{.name = "start",
	 .summary = "Start a VM.",
	 .args = VM_ARG,
	 .options = start_options,
	 .flags = VERB_MUTATES | VERB_WAITS,
	 .build = start_build},
	{.name = "stop",
	 .summary = "Shut a VM down.",
	 .args = VM_ARG,
	 .options = stop_options,
	 .flags = VERB_MUTATES | VERB_WAITS,
	 .build = stop_build},
	{.name = "move",
	 .summary = "Move a VM to another node.",
	 .args = VM_ARG,
	 .options = move_options,
	 .flags = VERB_MUTATES | VERB_WAITS,
	 .build = move_build,
	 .example = "drover vm move web1 --to node2 --wait"},
	{.name = "console", .summary = "Connect to a VM's console.", .args = VM_ARG, .flags = VERB_LATER},
	{.name = "import-libvirt",
	 .summary = "Take over a VM from libvirt's XML.",
	 .args = {{.name = "FILE", .object = OBJ_FILE}},
	 .flags = VERB_LATER | VERB_MUTATES},
};

const struct cli_noun vm_noun = {"vm", "the virtual machines", verbs, DR_ARRAY_SIZE(verbs)};
