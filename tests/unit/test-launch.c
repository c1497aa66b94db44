/* From spec to command line: what is resolved, what is refused, that it never changes by itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "agent/launch.h"

static char *machines[] = {(char *)(uintptr_t) "pc-i440fx-7.2", (char *)(uintptr_t) "pc-i440fx-7.1",
			   (char *)(uintptr_t) "pc-q35-7.2", NULL};
static struct qcaps caps = {.path = "/usr/bin/qemu",
			    .version = "7.2.22",
			    .major = 7,
			    .minor = 2,
			    .machines = machines,
			    .n_machines = 3,
			    .pc = "pc-i440fx-7.2",
			    .q35 = "pc-q35-7.2",
			    .kvm = true,
			    .kvm_host = true,
			    .kvm_why = "tried"};
static uint8_t uuid[16] = {0x6f, 0x1c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff};
static struct dr_error err;

static void fill(Drover__VmSpec *spec)
{
	drover__vm_spec__init(spec);
	spec->name = (char *)(uintptr_t) "vm1";
	spec->uuid.data = uuid;
	spec->uuid.len = 16;
	spec->memory = 128u << 20;
	spec->cpus = 2;
	dr_error_clear(&err);
}

/* All words in one line, for strstr. */
static void text_of(char *const *word, size_t n, char *text, size_t size)
{
	text[0] = '\0';
	for (size_t i = 0; i < n; i++)
		snprintf(text + strlen(text), size - strlen(text), "%s ", word[i]);
}

static Drover__LaunchRecord *resolve(const Drover__VmSpec *spec, enum conf_accel accel, char *text,
				     size_t size)
{
	Drover__LaunchRecord *r = NULL;

	if (launch_resolve(spec, &caps, accel, &r, &err) != 0) {
		print_error("%s\n", err.text);
		fail();
		return NULL;
	}
	text_of(r->argv, r->n_argv, text, size);
	return r;
}

static void test_defaults(void **state)
{
	Drover__VmSpec spec;
	char text[8192];
	Drover__LaunchRecord *r;

	(void)state;
	fill(&spec);
	r = resolve(&spec, CONF_ACCEL_AUTO, text, sizeof(text));
	assert_string_equal(r->machine, "pc-i440fx-7.2"); /* never the alias */
	assert_string_equal(r->accel, "kvm");
	assert_string_equal(r->cpu, "qemu64,-sse3"); /* this host lacks it */
	assert_non_null(strstr(text, "-machine pc-i440fx-7.2,memory-backend=ram0 "));
	assert_non_null(strstr(text, "-uuid 6f1c0000-0000-0000-0000-0000000000ff "));
	assert_non_null(strstr(text, "size=134217728B "));
	assert_non_null(strstr(text, "-smp cpus=2,sockets=2,cores=1,threads=1 "));
	drover__launch_record__free_unpacked(r, NULL);
	r = resolve(&spec, CONF_ACCEL_TCG, text, sizeof(text));
	assert_string_equal(r->accel, "tcg");
	drover__launch_record__free_unpacked(r, NULL);
	caps.kvm_sse3 = true;
	r = resolve(&spec, CONF_ACCEL_AUTO, text, sizeof(text));
	assert_string_equal(r->cpu, "qemu64");
	drover__launch_record__free_unpacked(r, NULL);
	caps.kvm_sse3 = false;
}

static void test_devices(void **state)
{
	Drover__VmSpec spec;
	Drover__VmDisk a = DROVER__VM_DISK__INIT, b = DROVER__VM_DISK__INIT, c = DROVER__VM_DISK__INIT;
	Drover__VmDisk *disks[] = {&a, &b, &c};
	Drover__VmNic nic = DROVER__VM_NIC__INIT;
	Drover__VmNic *nics[] = {&nic};
	char *args[] = {(char *)(uintptr_t) "-global", (char *)(uintptr_t) "x=y"};
	char text[8192];
	Drover__LaunchRecord *r;

	(void)state;
	fill(&spec);
	a.path = (char *)(uintptr_t) "/d/with,comma \"quote\".qcow2";
	a.format = (char *)(uintptr_t) "qcow2";
	a.serial = (char *)(uintptr_t) "S1";
	b.path = (char *)(uintptr_t) "/d/b.raw";
	b.bus = (char *)(uintptr_t) "scsi";
	b.cache = (char *)(uintptr_t) "writethrough";
	c.path = (char *)(uintptr_t) "/d/c.iso";
	c.cdrom = true;
	nic.bridge = (char *)(uintptr_t) "br0";
	nic.mac = (char *)(uintptr_t) "52:54:00:00:00:01";
	spec.disks = disks;
	spec.n_disks = 3;
	spec.nics = nics;
	spec.n_nics = 1;
	spec.qemu_args = args;
	spec.n_qemu_args = 2;
	spec.machine = (char *)(uintptr_t) "q35";
	r = resolve(&spec, CONF_ACCEL_AUTO, text, sizeof(text));
	assert_non_null(strstr(text, "\"filename\":\"/d/with,comma \\\"quote\\\".qcow2\""));
	assert_non_null(strstr(text, "\"locking\":\"on\""));
	assert_non_null(strstr(
		text, "virtio-blk-pci,id=blk0,drive=disk0,bus=pcie.0,addr=0x3,write-cache=on,serial=S1 "));
	assert_non_null(strstr(text, "virtio-scsi-pci,id=scsi0,bus=pcie.0,addr=0x4 "));
	assert_non_null(strstr(text, "scsi-hd,id=blk1,drive=disk1,"));
	assert_non_null(strstr(text, "ide-cd,id=blk2,drive=disk2,bus=sata0.0 "));
	assert_non_null(strstr(
		text, "virtio-net-pci,id=nic0,netdev=net0,mac=52:54:00:00:00:01,bus=pcie.0,addr=0x6,"));
	assert_non_null(strstr(text, "-global x=y "));
	drover__launch_record__free_unpacked(r, NULL);
}

static void refused(const Drover__VmSpec *spec, int code, const char *words)
{
	Drover__LaunchRecord *r = NULL;

	dr_error_clear(&err);
	assert_int_equal(launch_resolve(spec, &caps, CONF_ACCEL_AUTO, &r, &err), -code);
	assert_null(r);
	if (strstr(err.text, words) == NULL) {
		print_error("\"%s\" does not say \"%s\"\n", err.text, words);
		fail();
	}
}

static void test_refusals(void **state)
{
	Drover__VmSpec spec;
	Drover__VmDisk d = DROVER__VM_DISK__INIT;
	Drover__VmDisk *disks[] = {&d};

	(void)state;
	fill(&spec);
	spec.vnc = true;
	refused(&spec, DR_EUSAGE, "not supported yet");
	fill(&spec);
	spec.memory = (128u << 20) + 1;
	refused(&spec, DR_EUSAGE, "MiB");
	fill(&spec);
	spec.machine = (char *)(uintptr_t) "pc-i440fx-99.0";
	refused(&spec, DR_EREFUSED, "pc-i440fx-99.0");
	fill(&spec);
	spec.cores = 3;
	refused(&spec, DR_EUSAGE, "not 2 cpus");
	fill(&spec);
	spec.memory_backing = (char *)(uintptr_t) "disk";
	refused(&spec, DR_EUSAGE, "anon, shm or hugepages");
	fill(&spec);
	spec.disks = disks;
	spec.n_disks = 1;
	d.path = (char *)(uintptr_t) "/d";
	d.cache = (char *)(uintptr_t) "unsafe";
	refused(&spec, DR_EUSAGE, "cache=unsafe");
	d.cache = NULL;
	d.format = (char *)(uintptr_t) "vmdk";
	refused(&spec, DR_EUSAGE, "vmdk");
	d.format = NULL;
	d.serial = (char *)(uintptr_t) "a,readonly=on";
	refused(&spec, DR_EUSAGE, "serial");
	fill(&spec);
	spec.accel = (char *)(uintptr_t) "kvm";
	caps.kvm = false;
	refused(&spec, DR_EREFUSED, "KVM does not work");
	caps.kvm = true;
}

static void test_argv(void **state)
{
	Drover__VmSpec spec;
	struct launch_host host = {.qemu = "/usr/bin/qemu", .run_dir = "/run/d", .incoming = true};
	struct words argv = {0};
	char text[8192], record[8192];
	Drover__LaunchRecord *r;

	(void)state;
	fill(&spec);
	r = resolve(&spec, CONF_ACCEL_AUTO, record, sizeof(record));
	assert_int_equal(launch_argv(&spec, r, &host, &argv), 0);
	text_of(argv.word, argv.n, text, sizeof(text));
	assert_non_null(strstr(text, " -S "));
	assert_non_null(strstr(text, " -nodefaults "));
	assert_non_null(strstr(text, "-sandbox on,"));
	assert_non_null(strstr(text, "-incoming defer"));
	assert_non_null(strstr(text, "-accel kvm"));
	assert_non_null(strstr(text, record)); /* the record's part comes as it is */
	words_fini(&argv);
	host.incoming = false;
	assert_int_equal(launch_argv(&spec, r, &host, &argv), 0);
	text_of(argv.word, argv.n, text, sizeof(text));
	assert_null(strstr(text, "-incoming"));
	words_fini(&argv);
	/* Another host must be able to run it. */
	assert_int_equal(launch_check(r, &caps, &err), 0);
	caps.kvm = false;
	assert_int_equal(launch_check(r, &caps, &err), -DR_EREFUSED);
	caps.kvm = true;
	drover__launch_record__free_unpacked(r, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_defaults), cmocka_unit_test(test_devices),
					   cmocka_unit_test(test_refusals), cmocka_unit_test(test_argv)};

	return cmocka_run_group_tests_name("launch", tests, NULL, NULL);
}
