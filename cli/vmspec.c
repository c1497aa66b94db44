#include "cli/vmspec.h"

#include <ctype.h>
#include <string.h>

#include "common/names.h"
#include "common/units.h"

#define MEMORY_LEAST	 (1ull << 20)
#define PRIORITY_DEFAULT 2000

static const struct cli_word accel_words[] = {{.word = "auto"}, {.word = "kvm"}, {.word = "tcg"}, {0}};
static const struct cli_word isolation_words[] = {{.word = "run"}, {.word = "stop"}, {0}};

const struct cli_option vmspec_options[] = {
	{.name = "memory", .kind = OPT_SIZE, .value = "SIZE", .help = "such as 2GiB"},
	{.name = "cpus",
	 .kind = OPT_NUMBER,
	 .value = "N",
	 .least = 1,
	 .most = 4096,
	 .help = "virtual CPUs (1)"},
	{.name = "sockets",
	 .kind = OPT_NUMBER,
	 .value = "N",
	 .least = 1,
	 .most = 4096,
	 .help = "CPU sockets"},
	{.name = "cores",
	 .kind = OPT_NUMBER,
	 .value = "N",
	 .least = 1,
	 .most = 4096,
	 .help = "cores per socket"},
	{.name = "threads",
	 .kind = OPT_NUMBER,
	 .value = "N",
	 .least = 1,
	 .most = 64,
	 .help = "threads per core"},
	{.name = "machine",
	 .kind = OPT_TEXT,
	 .value = "TYPE",
	 .help = "machine type (the newest of its first host)"},
	{.name = "cpu", .kind = OPT_TEXT, .value = "baseline|host|MODEL", .help = "CPU model (baseline)"},
	{.name = "accel",
	 .kind = OPT_CHOICE,
	 .value = "auto|kvm|tcg",
	 .words = accel_words,
	 .help = "accelerator (auto)"},
	{.name = "allow-tcg-live",
	 .kind = OPT_FLAG,
	 .help = "move live under TCG although QEMU < 9.0 may corrupt memory"},
	{.name = "uuid", .kind = OPT_TEXT, .value = "U", .help = "UUID (random)"},
	{.name = "firmware",
	 .kind = OPT_TEXT,
	 .value = "bios|uefi|FILE",
	 .help = "firmware (bios; uefi is not supported yet)"},
	{.name = "memory-backing",
	 .kind = OPT_TEXT,
	 .value = "anon|shm|hugepages[,prealloc]",
	 .help = "memory (anon)"},
	{.name = "disk",
	 .kind = OPT_TEXT,
	 .repeats = true,
	 .value = "PATH[,KEY=VALUE…]",
	 .help = "a disk; keys: format, bus, cache, discard, serial, readonly"},
	{.name = "cdrom", .kind = OPT_TEXT, .value = "PATH", .repeats = true, .help = "a CD-ROM image"},
	{.name = "cloud-init",
	 .kind = OPT_TEXT,
	 .value = "FILE",
	 .later = true,
	 .help = "cloud-init user data"},
	{.name = "nic",
	 .kind = OPT_TEXT,
	 .repeats = true,
	 .value = "bridge=BR[,KEY=VALUE…]",
	 .help = "a network card; keys: bridge, model, mac, vlan, mtu"},
	{.name = "vnc", .kind = OPT_FLAG, .later = true, .help = "a VNC display on a unix socket"},
	{.name = "agent", .kind = OPT_FLAG, .help = "a channel for the guest agent"},
	{.name = "kernel", .kind = OPT_TEXT, .value = "FILE", .help = "boot this kernel"},
	{.name = "initrd", .kind = OPT_TEXT, .value = "FILE", .help = "with this initial ramdisk"},
	{.name = "append", .kind = OPT_TEXT, .value = "ARGS", .help = "with this command line"},
	{.name = "qemu-arg",
	 .kind = OPT_TEXT,
	 .value = "ARG",
	 .repeats = true,
	 .help = "a further argument for QEMU"},
	{.name = "priority",
	 .kind = OPT_PRIORITY,
	 .value = "0..3000|low|medium|high|none",
	 .help = "who goes first (medium)"},
	{.name = "ha",
	 .kind = OPT_ONOFF,
	 .value = "on|off",
	 .help = "start elsewhere when its host has died (off)"},
	{.name = "autostart", .kind = OPT_FLAG, .help = "start with its host"},
	{.name = "on-isolation",
	 .kind = OPT_CHOICE,
	 .value = "run|stop",
	 .words = isolation_words,
	 .help = "when its host loses the cluster (run)"},
	{.name = "possible-owner",
	 .kind = OPT_OBJECT,
	 .object = OBJ_NODE,
	 .value = "N",
	 .repeats = true,
	 .help = "run only on these nodes; none: on every node"},
	{.name = "preferred-owner",
	 .kind = OPT_OBJECT,
	 .object = OBJ_NODE,
	 .value = "N",
	 .repeats = true,
	 .help = "rather on these nodes; none: no preference"},
	{.name = "anti-affinity",
	 .kind = OPT_TEXT,
	 .value = "CLASS",
	 .repeats = true,
	 .help = "not on a node with another VM of the class; none: no class"},
	{.name = "blackout",
	 .kind = OPT_DURATION,
	 .value = "D",
	 .help = "longest pause that a move may cause (300ms)"},
	{.name = "ladder",
	 .kind = OPT_TEXT,
	 .value = "STEP,…",
	 .later = true,
	 .help = "what to try when it does not converge"},
	{.name = "no-move", .kind = OPT_FLAG, .help = "never move it"},
	{.name = "hostdev",
	 .kind = OPT_TEXT,
	 .value = "ADDR",
	 .repeats = true,
	 .help = "a PCI device of the host: makes the VM unmovable (starting it is not supported yet)"},
	{0},
};

struct build {
	struct cli *cli;
	const struct cli_parsed *p;
	Drover__VmSpec *spec;
	char **mask;
	size_t n_mask;
	struct dr_error *err;
};

static char *copy(struct build *b, const char *text)
{
	return arena_strdup(&b->cli->arena, text);
}

/* Notes that the field was given, if the option was; says whether. */
static bool given(struct build *b, const char *option, const char *field)
{
	if (cli_value(b->p, option) == NULL)
		return false;
	b->mask = arena_grow(&b->cli->arena, b->mask, b->n_mask, copy(b, field));
	b->n_mask++;
	return true;
}

static int refuse(struct build *b, const char *option, const char *value, const char *form)
{
	return dr_error_set(b->err, DR_EUSAGE, "--%s: \"%.80s\" is not possible: %s", option, value, form);
}

static bool one_of(const char *value, const char *const *words)
{
	for (; *words != NULL; words++) {
		if (strcmp(*words, value) == 0)
			return true;
	}
	return false;
}

/* A path that means the same on every host. QEMU's option syntax would cut it at a comma. */
static int path_take(struct build *b, const char *option, const char *value, char **out)
{
	if (value[0] != '/' || strlen(value) > 1023 || strpbrk(value, ",\n") != NULL)
		return refuse(b, option, value, "give an absolute path without commas");
	*out = copy(b, value);
	return 0;
}

/* Splits "KEY=VALUE" (in the arena's copy); -DR_EUSAGE without "=". */
static int key_split(struct build *b, const char *option, char *word, char **value, const char *keys)
{
	*value = strchr(word, '=');
	if (*value == NULL || (*value)[1] == '\0')
		return dr_error_set(b->err, DR_EUSAGE,
				    "--%s: \"%.80s\" has no value: give KEY=VALUE with one of the keys %s",
				    option, word, keys);
	*(*value)++ = '\0';
	return 0;
}

#define DISK_KEYS "format, bus, cache, discard, serial, readonly"

static int disk_key(struct build *b, Drover__VmDisk *d, char *word)
{
	static const char *const formats[] = {"raw", "qcow2", NULL};
	static const char *const buses[] = {"virtio", "scsi", "sata", NULL};
	static const char *const caches[] = {"none",	   "writeback", "writethrough",
					     "directsync", "unsafe",	NULL};
	static const char *const discards[] = {"unmap", "ignore", NULL};
	static const char *const onoff[] = {"on", "off", NULL};
	static const struct {
		const char *key;
		const char *const *words;
		const char *form;
	} keys[] = {
		{"format", formats, "format is raw or qcow2"},
		{"bus", buses, "bus is virtio, scsi or sata"},
		{"cache", caches, "cache is none, writeback, writethrough, directsync or unsafe"},
		{"discard", discards, "discard is unmap or ignore"},
		{"serial", NULL, "serial has 1 to 36 letters, digits, . _ or -"},
		{"readonly", onoff, "readonly is on or off"},
	};
	char **const fields[] = {&d->format, &d->bus, &d->cache, &d->discard, &d->serial, NULL};
	char *value;

	if (key_split(b, "disk", word, &value, DISK_KEYS) < 0)
		return -DR_EUSAGE;
	for (size_t i = 0; i < DR_ARRAY_SIZE(keys); i++) {
		if (strcmp(keys[i].key, word) != 0)
			continue;
		if (keys[i].words != NULL ? !one_of(value, keys[i].words)
					  : !names_valid(value) || strlen(value) > 36)
			return refuse(b, "disk", value, keys[i].form);
		if (fields[i] != NULL)
			*fields[i] = value;
		else
			d->readonly = strcmp(value, "on") == 0;
		return 0;
	}
	return dr_error_set(b->err, DR_EUSAGE, "--disk: unknown key \"%.60s\": the keys are " DISK_KEYS,
			    word);
}

static int disk_take(struct build *b, const char *text)
{
	Drover__VmDisk *d = arena_alloc(&b->cli->arena, sizeof(*d));
	char *rest = copy(b, text);
	char *path = strsep(&rest, ",");
	char *word;
	size_t len = strlen(path);

	drover__vm_disk__init(d);
	if (path_take(b, "disk", path, &d->path) < 0)
		return -DR_EUSAGE;
	d->format = copy(b, len > 6 && strcmp(path + len - 6, ".qcow2") == 0 ? "qcow2" : "raw");
	d->bus = copy(b, "virtio");
	d->cache = copy(b, "none");
	while ((word = strsep(&rest, ",")) != NULL) {
		if (disk_key(b, d, word) < 0)
			return -DR_EUSAGE;
	}
	b->spec->disks = arena_grow(&b->cli->arena, b->spec->disks, b->spec->n_disks, d);
	b->spec->n_disks++;
	return 0;
}

static int cdrom_take(struct build *b, const char *text)
{
	Drover__VmDisk *d = arena_alloc(&b->cli->arena, sizeof(*d));

	drover__vm_disk__init(d);
	if (path_take(b, "cdrom", text, &d->path) < 0)
		return -DR_EUSAGE;
	d->format = copy(b, "raw");
	d->cache = copy(b, "none");
	d->cdrom = true;
	d->readonly = true;
	b->spec->disks = arena_grow(&b->cli->arena, b->spec->disks, b->spec->n_disks, d);
	b->spec->n_disks++;
	return 0;
}

/* "52:54:00:12:34:56", no group address; made small. */
static int mac_take(struct build *b, char *value, char **out)
{
	bool right = strlen(value) == 17;

	for (size_t i = 0; right && i < 17; i++)
		right = i % 3 == 2 ? value[i] == ':' : isxdigit((unsigned char)value[i]) != 0;
	/* The lowest bit of the first byte stands for a group. */
	if (!right || strchr("13579bBdDfF", value[1]) != NULL || strcmp(value, "00:00:00:00:00:00") == 0)
		return refuse(b, "nic", value, "a MAC address of one card looks like 52:54:00:12:34:56");
	for (char *c = value; *c != '\0'; c++)
		*c = (char)tolower((unsigned char)*c);
	*out = value;
	return 0;
}

#define NIC_KEYS "bridge, model, mac, vlan, mtu"

static int nic_number(struct build *b, const char *value, uint64_t least, uint64_t most, uint32_t *out)
{
	uint64_t number;

	if (units_number_parse(value, least, most, &number, b->err) < 0) {
		dr_error_prefix(b->err, "--nic");
		return -DR_EUSAGE;
	}
	*out = (uint32_t)number;
	return 0;
}

static int nic_key(struct build *b, Drover__VmNic *n, char *word)
{
	static const char *const models[] = {"virtio", "e1000e", NULL};
	char *value;

	if (key_split(b, "nic", word, &value, NIC_KEYS) < 0)
		return -DR_EUSAGE;
	if (strcmp(word, "bridge") == 0) {
		if (!names_valid(value) || strlen(value) > 15)
			return refuse(b, "nic", value,
				      "a bridge's name has 1 to 15 letters, digits, . _ or -");
		n->bridge = value;
		return 0;
	}
	if (strcmp(word, "model") == 0) {
		if (!one_of(value, models))
			return refuse(b, "nic", value, "model is virtio or e1000e");
		n->model = value;
		return 0;
	}
	if (strcmp(word, "mac") == 0)
		return mac_take(b, value, &n->mac);
	if (strcmp(word, "vlan") == 0)
		return nic_number(b, value, 1, 4094, &n->vlan) < 0
			       ? -DR_EUSAGE
			       : dr_error_set(b->err, DR_EUSAGE, "--nic: vlan=%s: not supported yet", value);
	if (strcmp(word, "mtu") == 0)
		return nic_number(b, value, 68, 65535, &n->mtu);
	return dr_error_set(b->err, DR_EUSAGE, "--nic: unknown key \"%.60s\": the keys are " NIC_KEYS, word);
}

static int nic_take(struct build *b, const char *text)
{
	Drover__VmNic *n = arena_alloc(&b->cli->arena, sizeof(*n));
	char *rest = copy(b, text);
	char *word;

	drover__vm_nic__init(n);
	n->model = copy(b, "virtio");
	while ((word = strsep(&rest, ",")) != NULL) {
		if (nic_key(b, n, word) < 0)
			return -DR_EUSAGE;
	}
	if (n->bridge[0] == '\0')
		return refuse(b, "nic", text, "a card needs bridge=BR");
	b->spec->nics = arena_grow(&b->cli->arena, b->spec->nics, b->spec->n_nics, n);
	b->spec->n_nics++;
	return 0;
}

/* Calls take for each value of an option that may repeat. */
static int each(struct build *b, const char *option, int (*take)(struct build *b, const char *text))
{
	for (size_t i = 0; i < b->p->n_values; i++) {
		if (strcmp(b->p->values[i].option->name, option) == 0 && take(b, b->p->values[i].text) < 0)
			return -DR_EUSAGE;
	}
	return 0;
}

static int uuid_take(struct build *b, const char *text)
{
	uint8_t *bytes = arena_alloc(&b->cli->arena, 16);
	size_t nibbles = 0;

	for (size_t i = 0; text[i] != '\0'; i++) {
		int digit = isdigit((unsigned char)text[i]) ? text[i] - '0'
							    : tolower((unsigned char)text[i]) - 'a' + 10;

		if (i == 8 || i == 13 || i == 18 || i == 23) {
			if (text[i] != '-')
				break;
			continue;
		}
		if (!isxdigit((unsigned char)text[i]) || nibbles == 32)
			break;
		bytes[nibbles / 2] = (uint8_t)(bytes[nibbles / 2] << 4 | digit);
		nibbles++;
	}
	if (nibbles != 32 || strlen(text) != 36)
		return refuse(b, "uuid", text, "a UUID looks like 6ba7b810-9dad-11d1-80b4-00c04fd430c8");
	b->spec->uuid.data = bytes;
	b->spec->uuid.len = 16;
	return 0;
}

static int backing_take(struct build *b, const char *text)
{
	static const char *const words[] = {"anon", "shm", "hugepages", NULL};
	char *rest = copy(b, text);
	char *first = strsep(&rest, ",");

	if (!one_of(first, words) || (rest != NULL && strcmp(rest, "prealloc") != 0))
		return refuse(b, "memory-backing", text,
			      "give anon, shm or hugepages, with \",prealloc\" if wanted");
	b->spec->memory_backing = first;
	b->spec->prealloc = rest != NULL;
	return 0;
}

static int hostdev_take(struct build *b, const char *text)
{
	static const char form[] = "xxxx:xx:xx.x";
	bool right = strlen(text) == sizeof(form) - 1;

	for (size_t i = 0; right && i < sizeof(form) - 1; i++)
		right = form[i] == 'x' ? isxdigit((unsigned char)text[i]) != 0 : text[i] == form[i];
	if (!right)
		return refuse(b, "hostdev", text, "a PCI address looks like 0000:03:00.0");
	return 0;
}

static int memory_build(struct build *b)
{
	Drover__VmSpec *s = b->spec;

	if (given(b, "memory", "memory")) {
		s->memory = cli_number(b->p, "memory");
		if (s->memory < MEMORY_LEAST || s->memory % MEMORY_LEAST != 0)
			return refuse(b, "memory", cli_text(b->p, "memory"),
				      "give a whole number of MiB, at least 1MiB");
	}
	if (given(b, "memory-backing", "memory_backing")) {
		given(b, "memory-backing", "prealloc");
		return backing_take(b, cli_text(b->p, "memory-backing"));
	}
	return 0;
}

static int cpu_build(struct build *b)
{
	Drover__VmSpec *s = b->spec;
	uint64_t product;

	if (given(b, "cpus", "cpus"))
		s->cpus = (uint32_t)cli_number(b->p, "cpus");
	if (given(b, "sockets", "sockets"))
		s->sockets = (uint32_t)cli_number(b->p, "sockets");
	if (given(b, "cores", "cores"))
		s->cores = (uint32_t)cli_number(b->p, "cores");
	if (given(b, "threads", "threads"))
		s->threads = (uint32_t)cli_number(b->p, "threads");
	product = (uint64_t)(s->sockets != 0 ? s->sockets : 1) * (s->cores != 0 ? s->cores : 1) *
		  (s->threads != 0 ? s->threads : 1);
	if ((s->sockets | s->cores | s->threads) == 0)
		return 0;
	if (s->cpus == 0 && s->sockets != 0 && s->cores != 0 && s->threads != 0)
		return 0;
	if (s->cpus == 0)
		return dr_error_set(b->err, DR_EUSAGE,
				    "--sockets, --cores and --threads need --cpus beside them");
	if (s->cpus % product != 0 ||
	    (s->sockets != 0 && s->cores != 0 && s->threads != 0 && product != s->cpus))
		return dr_error_set(
			b->err, DR_EUSAGE,
			"--cpus %u does not fit: sockets × cores × threads must be the number of CPUs",
			s->cpus);
	return 0;
}

static int machine_build(struct build *b)
{
	Drover__VmSpec *s = b->spec;

	if (given(b, "machine", "machine")) {
		if (!names_valid(cli_text(b->p, "machine")))
			return refuse(b, "machine", cli_text(b->p, "machine"),
				      "give a machine type such as pc-i440fx-7.2");
		s->machine = copy(b, cli_text(b->p, "machine"));
	}
	if (given(b, "cpu", "cpu"))
		s->cpu = copy(b, cli_text(b->p, "cpu"));
	if (given(b, "accel", "accel"))
		s->accel = copy(b, cli_text(b->p, "accel"));
	if (given(b, "allow-tcg-live", "allow_tcg_live"))
		s->allow_tcg_live = cli_flag(b->p, "allow-tcg-live");
	if (given(b, "uuid", "uuid") && uuid_take(b, cli_text(b->p, "uuid")) < 0)
		return -DR_EUSAGE;
	if (given(b, "firmware", "firmware")) {
		static const char *const words[] = {"bios", "uefi", NULL};
		const char *firmware = cli_text(b->p, "firmware");

		if (strcmp(firmware, "uefi") == 0)
			return dr_error_set(b->err, DR_EUSAGE, "--firmware uefi: not supported yet");
		if (!one_of(firmware, words) && path_take(b, "firmware", firmware, &s->firmware) < 0)
			return -DR_EUSAGE;
		s->firmware = copy(b, firmware);
	}
	return 0;
}

static int device_build(struct build *b)
{
	Drover__VmSpec *s = b->spec;

	if (given(b, "disk", "disks") && each(b, "disk", disk_take) < 0)
		return -DR_EUSAGE;
	if (cli_value(b->p, "cdrom") != NULL) {
		if (cli_value(b->p, "disk") == NULL)
			given(b, "cdrom", "disks");
		if (each(b, "cdrom", cdrom_take) < 0)
			return -DR_EUSAGE;
	}
	if (given(b, "nic", "nics") && each(b, "nic", nic_take) < 0)
		return -DR_EUSAGE;
	if (given(b, "agent", "guest_agent"))
		s->guest_agent = cli_flag(b->p, "agent");
	if (given(b, "kernel", "kernel") && path_take(b, "kernel", cli_text(b->p, "kernel"), &s->kernel) < 0)
		return -DR_EUSAGE;
	if (given(b, "initrd", "initrd") && path_take(b, "initrd", cli_text(b->p, "initrd"), &s->initrd) < 0)
		return -DR_EUSAGE;
	if (given(b, "append", "append"))
		s->append = copy(b, cli_text(b->p, "append"));
	if (given(b, "qemu-arg", "qemu_args"))
		s->qemu_args = cli_texts(b->cli, b->p, "qemu-arg", &s->n_qemu_args);
	if (given(b, "hostdev", "hostdevs")) {
		if (each(b, "hostdev", hostdev_take) < 0)
			return -DR_EUSAGE;
		s->hostdevs = cli_texts(b->cli, b->p, "hostdev", &s->n_hostdevs);
	}
	return 0;
}

/* A list of names; the single word "none" is the empty list. */
static int list_build(struct build *b, const char *option, const char *field, char ***list, size_t *n)
{
	if (!given(b, option, field))
		return 0;
	*list = cli_texts(b->cli, b->p, option, n);
	for (size_t i = 0; i < *n; i++) {
		if (strcmp((*list)[i], "none") == 0 && *n == 1)
			*n = 0;
		else if (!names_valid((*list)[i]) || strcmp((*list)[i], "none") == 0)
			return refuse(b, option, (*list)[i], "give a name of letters, digits, . _ or -");
	}
	return 0;
}

static int policy_build(struct build *b)
{
	Drover__VmSpec *s = b->spec;

	if (given(b, "priority", "priority"))
		s->priority = (uint32_t)cli_number(b->p, "priority");
	if (given(b, "ha", "ha"))
		s->ha = cli_flag(b->p, "ha") ? DROVER__HA_MODE__HA_ON : DROVER__HA_MODE__HA_OFF;
	if (given(b, "autostart", "autostart"))
		s->autostart = cli_flag(b->p, "autostart");
	if (given(b, "on-isolation", "on_isolation"))
		s->on_isolation = strcmp(cli_text(b->p, "on-isolation"), "stop") == 0
					  ? DROVER__ON_ISOLATION__ISOLATION_STOP
					  : DROVER__ON_ISOLATION__ISOLATION_RUN;
	if (given(b, "blackout", "blackout_ms")) {
		s->blackout_ms = cli_number(b->p, "blackout");
		if (s->blackout_ms < 1 || s->blackout_ms > 60000)
			return refuse(b, "blackout", cli_text(b->p, "blackout"), "give 1ms to 60s");
	}
	if (given(b, "no-move", "no_move"))
		s->no_move = cli_flag(b->p, "no-move");
	if (list_build(b, "possible-owner", "possible_owners", &s->possible_owners, &s->n_possible_owners) <
		    0 ||
	    list_build(b, "preferred-owner", "preferred_owners", &s->preferred_owners,
		       &s->n_preferred_owners) < 0)
		return -DR_EUSAGE;
	return list_build(b, "anti-affinity", "anti_affinity", &s->anti_affinity, &s->n_anti_affinity);
}

static int new_build(struct build *b)
{
	Drover__VmSpec *s = b->spec;

	if (s->memory == 0)
		return dr_error_set(b->err, DR_EUSAGE, "a VM needs --memory SIZE, such as --memory 2GiB");
	if (s->kernel[0] == '\0' && (s->append[0] != '\0' || s->initrd[0] != '\0'))
		return dr_error_set(b->err, DR_EUSAGE, "--append and --initrd need --kernel FILE");
	if (s->cpus == 0)
		s->cpus = s->sockets != 0 ? s->sockets * s->cores * s->threads : 1;
	if (s->accel[0] == '\0')
		s->accel = copy(b, "auto");
	if (s->firmware[0] == '\0')
		s->firmware = copy(b, "bios");
	if (s->memory_backing[0] == '\0')
		s->memory_backing = copy(b, "anon");
	if (cli_value(b->p, "priority") == NULL)
		s->priority = PRIORITY_DEFAULT;
	return 0;
}

int vmspec_build(struct cli *cli, const struct cli_parsed *p, bool new_vm, Drover__VmSpec *spec, char ***mask,
		 size_t *n_mask, struct dr_error *err)
{
	struct build b = {.cli = cli, .p = p, .spec = spec, .err = err};
	int rc;

	drover__vm_spec__init(spec);
	spec->name = arena_strdup(&cli->arena, cli_arg(p, 0));
	rc = memory_build(&b);
	if (rc == 0)
		rc = cpu_build(&b);
	if (rc == 0)
		rc = machine_build(&b);
	if (rc == 0)
		rc = device_build(&b);
	if (rc == 0)
		rc = policy_build(&b);
	if (rc == 0 && new_vm)
		rc = new_build(&b);
	if (rc < 0)
		return rc;
	if (mask != NULL) {
		*mask = b.mask;
		*n_mask = b.n_mask;
	}
	return 0;
}
