#include "agent/launch.h"

#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/storage.h"
#include "common/cleanup.h"

#define MIB	       (UINT64_C(1) << 20)
#define PCI_SLOT_FIRST 3u  /* 0–2 belong to the chipset of both families */
#define PCI_SLOT_LAST  28u /* q35 has its own devices behind */
#define SCSI_UNITS     255u
#define SATA_PORTS     6u

void words_add(struct words *w, const char *fmt, ...)
{
	va_list ap;
	char *text;

	if (w->failed)
		return;
	if (w->n + 2 > w->size) {
		size_t size = w->size != 0 ? w->size * 2 : 64;
		char **word = realloc(w->word, size * sizeof(*word));

		if (word == NULL) {
			w->failed = true;
			return;
		}
		w->word = word;
		w->size = size;
	}
	va_start(ap, fmt);
	if (vasprintf(&text, fmt, ap) < 0)
		text = NULL;
	va_end(ap);
	if (text == NULL) {
		w->failed = true;
		return;
	}
	w->word[w->n++] = text;
	w->word[w->n] = NULL;
}

void words_fini(struct words *w)
{
	for (size_t i = 0; i < w->n; i++)
		free(w->word[i]);
	free(w->word);
	*w = (struct words){0};
}

void launch_uuid_text(const uint8_t uuid[16], char text[37])
{
	char *p = text;

	for (int i = 0; i < 16; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*p++ = '-';
		p += sprintf(p, "%02x", uuid[i]);
	}
}

static bool given(const char *text)
{
	return text != NULL && text[0] != '\0';
}

static bool is(const char *text, const char *word)
{
	return text != NULL && strcmp(text, word) == 0;
}

/* ------------------------------------------------ what is asked for */

static int refuse_unsupported(const Drover__VmSpec *spec, struct dr_error *err)
{
	if (spec->vnc)
		return dr_error_set(err, DR_EUSAGE, "--vnc: not supported yet");
	if (is(spec->firmware, "uefi"))
		return dr_error_set(err, DR_EUSAGE, "--firmware uefi: not supported yet");
	if (spec->n_hostdevs > 0)
		return dr_error_set(err, DR_EUSAGE, "--hostdev: not supported yet");
	if (spec->memory == 0 || spec->memory % MIB != 0)
		return dr_error_set(err, DR_EUSAGE, "--memory %llu: must be a whole number of MiB",
				    (unsigned long long)spec->memory);
	if (spec->uuid.len != 16)
		return dr_error_set(err, DR_EFAILED, "the VM has no UUID");
	for (size_t i = 0; i < spec->n_nics; i++) {
		if (spec->nics[i]->vlan != 0)
			return dr_error_set(err, DR_EUSAGE, "--nic vlan=: not supported yet");
		if (given(spec->nics[i]->model) && !is(spec->nics[i]->model, "virtio") &&
		    !is(spec->nics[i]->model, "e1000e"))
			return dr_error_set(err, DR_EUSAGE, "--nic model=%s: must be virtio or e1000e",
					    spec->nics[i]->model);
		if (!given(spec->nics[i]->mac))
			return dr_error_set(err, DR_EFAILED, "nic %zu has no MAC address", i);
	}
	return 0;
}

static int resolve_machine(const char *asked, const struct qcaps *caps, const char **machine,
			   struct dr_error *err)
{
	if (!given(asked) || is(asked, "pc"))
		*machine = caps->pc;
	else if (is(asked, "q35"))
		*machine = caps->q35;
	else
		*machine = asked;
	if (!qcaps_has_machine(caps, *machine))
		return dr_error_set(
			err, DR_EREFUSED,
			"QEMU %s has no machine type %s (supported are the pc-i440fx and pc-q35 types)",
			caps->version, *machine);
	return 0;
}

static int resolve_accel(const char *asked, const struct qcaps *caps, enum conf_accel accel,
			 const char **result, struct dr_error *err)
{
	if (is(asked, "tcg") || (!is(asked, "kvm") && accel == CONF_ACCEL_TCG)) {
		*result = "tcg";
		return 0;
	}
	if (!caps->kvm && (is(asked, "kvm") || accel == CONF_ACCEL_KVM))
		return dr_error_set(err, DR_EREFUSED, "KVM does not work on this host: %s", caps->kvm_why);
	*result = caps->kvm ? "kvm" : "tcg";
	return 0;
}

static int resolve_cpu(const char *asked, bool kvm, const struct qcaps *caps, const char **cpu,
		       struct dr_error *err)
{
	if (!given(asked) || is(asked, "baseline")) {
		*cpu = kvm && !caps->kvm_sse3 ? "qemu64,-sse3" : "qemu64";
	} else if (is(asked, "host")) {
		if (!kvm)
			return dr_error_set(err, DR_EREFUSED, "--cpu host needs KVM");
		/* Nested hosts refuse one MSR of the full model (recipes). */
		*cpu = caps->kvm_host ? "host" : "host,-arch-capabilities";
	} else {
		*cpu = asked;
	}
	return 0;
}

/* ------------------------------------------------ devices */

struct builder {
	struct words argv;
	const Drover__VmSpec *spec;
	const char *bus; /* pci.0 or pcie.0 */
	unsigned int slot;
	bool scsi;
	bool sata;
	unsigned int scsi_units;
	unsigned int sata_ports;
	struct dr_error *err;
};

static int next_slot(struct builder *b, unsigned int *slot)
{
	if (b->slot > PCI_SLOT_LAST)
		return dr_error_set(b->err, DR_EREFUSED,
				    "too many devices: the PCI bus has %u slots for them",
				    PCI_SLOT_LAST - PCI_SLOT_FIRST + 1);
	*slot = b->slot++;
	return 0;
}

static int need_scsi(struct builder *b)
{
	unsigned int slot = 0;

	if (b->scsi)
		return 0;
	if (next_slot(b, &slot) != 0)
		return -DR_EREFUSED;
	b->scsi = true;
	words_add(&b->argv, "-device");
	words_add(&b->argv, "virtio-scsi-pci,id=scsi0,bus=%s,addr=0x%x", b->bus, slot);
	return 0;
}

static int need_sata(struct builder *b)
{
	unsigned int slot = 0;

	if (b->sata)
		return 0;
	if (next_slot(b, &slot) != 0)
		return -DR_EREFUSED;
	b->sata = true;
	words_add(&b->argv, "-device");
	words_add(&b->argv, "ich9-ahci,id=sata0,bus=%s,addr=0x%x", b->bus, slot);
	return 0;
}

struct cache_mode {
	const char *name;
	bool direct;
	bool no_flush;
	bool write_cache;
};

/* As QEMU's -drive cache= means them. "unsafe" is left out: it ignores flushes. */
static const struct cache_mode cache_modes[] = {
	{"none", true, false, true},
	{"writeback", false, false, true},
	{"writethrough", false, false, false},
	{"directsync", true, false, false},
};

static const struct cache_mode *find_cache(const char *name)
{
	for (size_t i = 0; i < DR_ARRAY_SIZE(cache_modes); i++)
		if (!given(name) || strcmp(cache_modes[i].name, name) == 0)
			return &cache_modes[i];
	return NULL;
}

static int add_blockdev(struct builder *b, const Drover__VmDisk *d, size_t i, const struct cache_mode *cache)
{
	const char *format = given(d->format) ? d->format : "raw";
	const char *discard = given(d->discard) ? d->discard : "unmap";
	bool readonly = d->readonly || d->cdrom;
	struct stat st;
	bool block = stat(d->path, &st) == 0 && S_ISBLK(st.st_mode);
	DR_AUTO_FREE char *text = NULL;
	char node[32];
	json_t *file;
	json_t *o;

	if (strcmp(format, "raw") != 0 && strcmp(format, "qcow2") != 0)
		return dr_error_set(b->err, DR_EUSAGE, "disk %s: format %s: must be raw or qcow2", d->path,
				    format);
	snprintf(node, sizeof(node), "disk%zu", i);
	file = json_pack("{s:s, s:s, s:s, s:s, s:{s:b, s:b}}", "driver", block ? "host_device" : "file",
			 "filename", d->path, "locking", "on", "discard", discard, "cache", "direct",
			 cache->direct, "no-flush", cache->no_flush);
	o = json_pack("{s:s, s:s, s:b, s:s, s:{s:b, s:b}, s:o}", "driver", format, "node-name", node,
		      "read-only", readonly, "discard", discard, "cache", "direct", cache->direct, "no-flush",
		      cache->no_flush, "file", file);
	text = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	if (text == NULL)
		return dr_error_set(b->err, DR_EUSAGE, "disk %s: not valid UTF-8", d->path);
	words_add(&b->argv, "-blockdev");
	words_add(&b->argv, "%s", text);
	return 0;
}

/* A comma would end the value in an option; QEMU reads two as one. Serials and MACs never need one. */
static bool plain_word(const char *text)
{
	return text == NULL || strpbrk(text, ",=\n") == NULL;
}

static int add_disk(struct builder *b, const Drover__VmDisk *d, size_t i)
{
	const struct cache_mode *cache = find_cache(d->cache);
	const char *bus = given(d->bus) ? d->bus : d->cdrom ? "sata" : "virtio";
	char serial[96] = "";
	unsigned int slot = 0;
	int rc;

	if (cache == NULL)
		return dr_error_set(b->err, DR_EUSAGE,
				    "disk %s: cache=%s: must be none, writeback, writethrough or directsync",
				    d->path, d->cache);
	if (!plain_word(d->serial) || (d->serial != NULL && strlen(d->serial) > 64))
		return dr_error_set(b->err, DR_EUSAGE, "disk %s: serial %s", d->path, d->serial);
	rc = add_blockdev(b, d, i, cache);
	if (rc != 0)
		return rc;
	if (given(d->serial))
		snprintf(serial, sizeof(serial), ",serial=%s", d->serial);
	if (strcmp(bus, "virtio") == 0 && !d->cdrom) {
		rc = next_slot(b, &slot);
		if (rc != 0)
			return rc;
		words_add(&b->argv, "-device");
		words_add(&b->argv,
			  "virtio-blk-pci,id=blk%zu,drive=disk%zu,bus=%s,addr=0x%x,write-cache=%s%s", i, i,
			  b->bus, slot, cache->write_cache ? "on" : "off", serial);
	} else if (strcmp(bus, "scsi") == 0) {
		rc = need_scsi(b);
		if (rc != 0 || b->scsi_units >= SCSI_UNITS)
			return dr_error_set(b->err, DR_EREFUSED, "disk %s: too many SCSI disks", d->path);
		words_add(&b->argv, "-device");
		words_add(&b->argv, "%s,id=blk%zu,drive=disk%zu,bus=scsi0.0,scsi-id=%u,lun=0%s",
			  d->cdrom ? "scsi-cd" : "scsi-hd", i, i, b->scsi_units++, serial);
	} else if (strcmp(bus, "sata") == 0) {
		rc = need_sata(b);
		if (rc != 0 || b->sata_ports >= SATA_PORTS)
			return dr_error_set(b->err, DR_EREFUSED, "disk %s: too many SATA disks", d->path);
		words_add(&b->argv, "-device");
		words_add(&b->argv, "%s,id=blk%zu,drive=disk%zu,bus=sata0.%u%s",
			  d->cdrom ? "ide-cd" : "ide-hd", i, i, b->sata_ports++, serial);
	} else {
		return dr_error_set(b->err, DR_EUSAGE, "disk %s: bus=%s: must be virtio, scsi or sata",
				    d->path, bus);
	}
	return 0;
}

static int add_nic(struct builder *b, const Drover__VmNic *nic, size_t i)
{
	bool virtio = !is(nic->model, "e1000e");
	char mtu[32] = "";
	unsigned int slot = 0;

	if (!plain_word(nic->mac))
		return dr_error_set(b->err, DR_EUSAGE, "nic %zu: mac=%s", i, nic->mac);
	if (next_slot(b, &slot) != 0)
		return -DR_EREFUSED;
	if (virtio && nic->mtu != 0)
		snprintf(mtu, sizeof(mtu), ",host_mtu=%u", nic->mtu);
	/* No option ROM: its size would have to be the same on every host for ever. */
	words_add(&b->argv, "-device");
	words_add(&b->argv, "%s,id=nic%zu,netdev=net%zu,mac=%s,bus=%s,addr=0x%x,romfile=%s",
		  virtio ? "virtio-net-pci" : "e1000e", i, i, nic->mac, b->bus, slot, mtu);
	return 0;
}

static int add_memory(struct builder *b)
{
	const char *backing = given(b->spec->memory_backing) ? b->spec->memory_backing : "anon";
	const char *kind;

	if (strcmp(backing, "anon") == 0)
		kind = "memory-backend-ram";
	else if (strcmp(backing, "shm") == 0)
		kind = "memory-backend-memfd,share=on";
	else if (strcmp(backing, "hugepages") == 0)
		kind = "memory-backend-memfd,hugetlb=on";
	else
		return dr_error_set(b->err, DR_EUSAGE, "--memory-backing %s: must be anon, shm or hugepages",
				    backing);
	words_add(&b->argv, "-object");
	words_add(&b->argv, "%s,id=ram0,size=%lluB%s", kind, (unsigned long long)b->spec->memory,
		  b->spec->prealloc ? ",prealloc=on" : "");
	words_add(&b->argv, "-m");
	words_add(&b->argv, "%lluM", (unsigned long long)(b->spec->memory / MIB));
	return 0;
}

static int add_smp(struct builder *b)
{
	const Drover__VmSpec *s = b->spec;
	unsigned int cpus = s->cpus != 0 ? s->cpus : 1;
	unsigned int cores = s->cores != 0 ? s->cores : 1;
	unsigned int threads = s->threads != 0 ? s->threads : 1;
	unsigned int sockets = s->sockets != 0 ? s->sockets : cpus / (cores * threads);

	if ((uint64_t)sockets * cores * threads != cpus)
		return dr_error_set(b->err, DR_EUSAGE, "%u sockets x %u cores x %u threads is not %u cpus",
				    sockets, cores, threads, cpus);
	words_add(&b->argv, "-smp");
	words_add(&b->argv, "cpus=%u,sockets=%u,cores=%u,threads=%u", cpus, sockets, cores, threads);
	return 0;
}

static void add_boot(struct builder *b)
{
	const Drover__VmSpec *s = b->spec;

	if (given(s->firmware) && !is(s->firmware, "bios")) {
		words_add(&b->argv, "-bios");
		words_add(&b->argv, "%s", s->firmware);
	}
	if (given(s->kernel)) {
		words_add(&b->argv, "-kernel");
		words_add(&b->argv, "%s", s->kernel);
	}
	if (given(s->initrd)) {
		words_add(&b->argv, "-initrd");
		words_add(&b->argv, "%s", s->initrd);
	}
	if (given(s->append)) {
		words_add(&b->argv, "-append");
		words_add(&b->argv, "%s", s->append);
	}
}

static int add_devices(struct builder *b)
{
	const Drover__VmSpec *s = b->spec;
	unsigned int slot = 0;

	words_add(&b->argv, "-device");
	words_add(&b->argv, "isa-serial,id=serial0,chardev=console,index=0");
	for (size_t i = 0; i < s->n_disks; i++)
		if (add_disk(b, s->disks[i], i) != 0)
			return -DR_EFAILED;
	for (size_t i = 0; i < s->n_nics; i++)
		if (add_nic(b, s->nics[i], i) != 0)
			return -DR_EFAILED;
	if (s->guest_agent) {
		if (next_slot(b, &slot) != 0)
			return -DR_EREFUSED;
		words_add(&b->argv, "-device");
		words_add(&b->argv, "virtio-serial-pci,id=vser0,bus=%s,addr=0x%x", b->bus, slot);
		words_add(&b->argv, "-device");
		words_add(&b->argv,
			  "virtserialport,id=qga0,chardev=qga,bus=vser0.0,nr=1,name=org.qemu.guest_agent.0");
	}
	return 0;
}

static int build(struct builder *b, const char *machine, const char *cpu)
{
	char uuid[37];
	int rc;

	launch_uuid_text(b->spec->uuid.data, uuid);
	words_add(&b->argv, "-machine");
	words_add(&b->argv, "%s,memory-backend=ram0", machine);
	words_add(&b->argv, "-cpu");
	words_add(&b->argv, "%s", cpu);
	words_add(&b->argv, "-uuid");
	words_add(&b->argv, "%s", uuid);
	rc = add_memory(b);
	if (rc == 0)
		rc = add_smp(b);
	if (rc == 0)
		rc = add_devices(b);
	if (rc != 0)
		return -(int)(b->err != NULL && b->err->code != DR_OK ? b->err->code : DR_EFAILED);
	add_boot(b);
	for (size_t i = 0; i < b->spec->n_qemu_args; i++)
		words_add(&b->argv, "%s", b->spec->qemu_args[i]);
	return b->argv.failed ? dr_error_set(b->err, DR_ENOMEM, "out of memory") : 0;
}

int launch_resolve(const Drover__VmSpec *spec, const struct qcaps *caps, enum conf_accel accel,
		   Drover__LaunchRecord **record, struct dr_error *err)
{
	struct dr_error own = DR_ERROR_INIT;
	struct builder b = {.spec = spec, .slot = PCI_SLOT_FIRST, .err = err != NULL ? err : &own};
	const char *machine = NULL, *cpu = NULL, *acc = NULL;
	Drover__LaunchRecord *r;
	int rc = refuse_unsupported(spec, b.err);

	if (rc == 0)
		rc = resolve_machine(spec->machine, caps, &machine, b.err);
	if (rc == 0)
		rc = resolve_accel(spec->accel, caps, accel, &acc, b.err);
	if (rc == 0)
		rc = resolve_cpu(spec->cpu, strcmp(acc, "kvm") == 0, caps, &cpu, b.err);
	if (rc != 0)
		return rc;
	b.bus = strncmp(machine, "pc-q35-", 7) == 0 ? "pcie.0" : "pci.0";
	rc = build(&b, machine, cpu);
	r = rc == 0 ? calloc(1, sizeof(*r)) : NULL;
	if (r == NULL) {
		words_fini(&b.argv);
		return rc != 0 ? rc : dr_error_set(b.err, DR_ENOMEM, "out of memory");
	}
	drover__launch_record__init(r);
	r->machine = strdup(machine);
	r->cpu = strdup(cpu);
	r->accel = strdup(acc);
	r->argv = b.argv.word;
	r->n_argv = b.argv.n;
	r->qemu_major = caps->major;
	r->qemu_minor = caps->minor;
	*record = r;
	return 0;
}

int launch_check(const Drover__LaunchRecord *record, const struct qcaps *caps, struct dr_error *err)
{
	if (!qcaps_has_machine(caps, record->machine))
		return dr_error_set(err, DR_EREFUSED, "QEMU %s of this host has no machine type %s",
				    caps->version, record->machine);
	if (is(record->accel, "kvm") && !caps->kvm)
		return dr_error_set(err, DR_EREFUSED,
				    "the VM runs under KVM, which does not work on this host: %s",
				    caps->kvm_why);
	if (!caps->kvm_sse3 && is(record->cpu, "qemu64") && is(record->accel, "kvm"))
		return dr_error_set(err, DR_EREFUSED, "this host lacks sse3, which the VM's CPU model has");
	return 0;
}

static int check_file(const char *path, const char *what, struct dr_error *err)
{
	struct stat st;

	if (!given(path) || stat(path, &st) == 0)
		return 0;
	return dr_error_set(err, DR_EREFUSED, "%s %s: %s on this host", what, path, strerror(errno));
}

int launch_check_files(const Drover__VmSpec *spec, struct dr_error *err)
{
	for (size_t i = 0; i < spec->n_disks; i++) {
		storage_note_disk(i);
		if (check_file(spec->disks[i]->path, "disk", err) != 0)
			return -DR_EREFUSED;
	}
	storage_note_disk(spec->n_disks);
	if (check_file(spec->kernel, "kernel", err) != 0 || check_file(spec->initrd, "initrd", err) != 0)
		return -DR_EREFUSED;
	if (given(spec->firmware) && strchr(spec->firmware, '/') != NULL)
		return check_file(spec->firmware, "firmware", err);
	return 0;
}

int launch_argv(const Drover__VmSpec *spec, const Drover__LaunchRecord *record,
		const struct launch_host *host, struct words *argv)
{
	static const char *const fixed[] = {
		"-nodefaults",
		"-no-user-config",
		"-display",
		"none",
		"-S",
		"-msg",
		"timestamp=on",
		"-sandbox",
		"on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		NULL};

	words_add(argv, "%s", host->qemu);
	words_add(argv, "-name");
	words_add(argv, "guest=%s,debug-threads=on", spec->name);
	for (size_t i = 0; fixed[i] != NULL; i++)
		words_add(argv, "%s", fixed[i]);
	words_add(argv, "-accel");
	words_add(argv, "%s", record->accel);
	words_add(argv, "-chardev");
	words_add(argv, "socket,id=qmp,fd=%d,server=on,wait=off", LAUNCH_QMP_FD);
	words_add(argv, "-mon");
	words_add(argv, "chardev=qmp,mode=control");
	words_add(argv, "-chardev");
	words_add(argv,
		  "socket,id=console,path=%s/console.sock,server=on,wait=off,logfile=%s/"
		  "console.log,logappend=on",
		  host->run_dir, host->run_dir);
	if (spec->guest_agent) {
		words_add(argv, "-chardev");
		words_add(argv, "socket,id=qga,path=%s/qga.sock,server=on,wait=off", host->run_dir);
	}
	for (size_t i = 0; i < host->n_taps; i++) {
		words_add(argv, "-netdev");
		words_add(argv, "tap,id=net%zu,fd=%d", i, LAUNCH_QMP_FD + 1 + (int)i);
	}
	if (host->incoming) {
		words_add(argv, "-incoming");
		words_add(argv, "defer");
	}
	for (size_t i = 0; i < record->n_argv; i++)
		words_add(argv, "%s", record->argv[i]);
	return argv->failed ? -DR_ENOMEM : 0;
}
