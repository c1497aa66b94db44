/* cli: words become exactly the request, wrong words are refused by name before anything is sent. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "tests/unit/cli-fake.h"

static void answer_ok(struct fake *fake, const Drover__Request *request, Drover__Response *response)
{
	(void)fake;
	(void)request;
	response->changed = true;
}

/* Runs a line that must send one request, and hands that out (owned by the fake). */
static const Drover__Request *sent(struct fake *fake, const char *line)
{
	int exit;

	fake_init(fake, answer_ok);
	exit = fake_run(fake, line);
	if (exit != 0 || fake->n_exchanges != 1)
		fail_msg("%s: exit %d, %zu requests: %s%s", line, exit, fake->n_exchanges, fake->out_text,
			 fake->err_text);
	return fake_request(fake, 0);
}

static void test_vm_add(void **state)
{
	struct fake f;
	const Drover__Request *r = sent(
		&f, "vm add web1 --memory 2GiB --cpus 4 --sockets 1 --cores 4 --threads 1 --machine "
		    "pc-i440fx-7.2 "
		    "--cpu host --accel tcg --allow-tcg-live --uuid 6ba7b810-9dad-11d1-80b4-00c04fd430c8 "
		    "--firmware /fw.bin --memory-backing shm,prealloc --disk /a.qcow2 "
		    "--disk /b,format=raw,bus=scsi,cache=writeback,discard=unmap,serial=s1,readonly=on "
		    "--cdrom /c.iso "
		    "--nic bridge=br0,model=e1000e,mac=52:54:00:12:34:5F,mtu=9000 --nic bridge=br1 "
		    "--agent "
		    "--kernel /k --initrd /i --append console=ttyS0 --qemu-arg -foo --priority high --ha on "
		    "--autostart "
		    "--on-isolation stop --possible-owner n1 --possible-owner n2 --preferred-owner n2 "
		    "--anti-affinity db --blackout 50ms --no-move --hostdev 0000:03:00.0");
	const Drover__VmSpec *s = r->vm_add;

	(void)state;
	assert_int_equal(r->verb_case, DROVER__REQUEST__VERB_VM_ADD);
	assert_string_equal(s->name, "web1");
	assert_int_equal(s->memory, 2ull << 30);
	assert_int_equal(s->cpus, 4);
	assert_int_equal(s->cores, 4);
	assert_string_equal(s->machine, "pc-i440fx-7.2");
	assert_string_equal(s->cpu, "host");
	assert_string_equal(s->accel, "tcg");
	assert_true(s->allow_tcg_live && s->prealloc && s->guest_agent && s->autostart && s->no_move);
	assert_int_equal(s->uuid.len, 16);
	assert_memory_equal(s->uuid.data, "\x6b\xa7\xb8\x10\x9d\xad\x11\xd1\x80\xb4\x00\xc0\x4f\xd4\x30\xc8",
			    16);
	assert_string_equal(s->firmware, "/fw.bin");
	assert_string_equal(s->memory_backing, "shm");
	assert_int_equal(s->n_disks, 3);
	assert_string_equal(s->disks[0]->format, "qcow2");
	assert_string_equal(s->disks[0]->bus, "virtio");
	assert_string_equal(s->disks[0]->cache, "none");
	assert_string_equal(s->disks[1]->path, "/b");
	assert_string_equal(s->disks[1]->bus, "scsi");
	assert_string_equal(s->disks[1]->discard, "unmap");
	assert_string_equal(s->disks[1]->serial, "s1");
	assert_true(s->disks[1]->readonly && s->disks[2]->cdrom);
	assert_int_equal(s->n_nics, 2);
	assert_string_equal(s->nics[0]->mac, "52:54:00:12:34:5f");
	assert_int_equal(s->nics[0]->mtu, 9000);
	assert_string_equal(s->nics[1]->model, "virtio");
	assert_string_equal(s->kernel, "/k");
	assert_string_equal(s->append, "console=ttyS0");
	assert_string_equal(s->qemu_args[0], "-foo");
	assert_int_equal(s->priority, 3000);
	assert_int_equal(s->ha, DROVER__HA_MODE__HA_ON);
	assert_int_equal(s->on_isolation, DROVER__ON_ISOLATION__ISOLATION_STOP);
	assert_int_equal(s->n_possible_owners, 2);
	assert_string_equal(s->anti_affinity[0], "db");
	assert_int_equal(s->blackout_ms, 50);
	assert_string_equal(s->hostdevs[0], "0000:03:00.0");
	assert_non_null(strstr(f.err_text, "unmovable"));
	fake_fini(&f);

	s = sent(&f, "vm add web1 --memory=128MiB")->vm_add;
	assert_int_equal(s->cpus, 1);
	assert_int_equal(s->priority, 2000);
	assert_string_equal(s->accel, "auto");
	assert_string_equal(s->memory_backing, "anon");
	fake_fini(&f);
}

static void test_vm_other(void **state)
{
	struct fake f;
	const Drover__Request *r =
		sent(&f, "vm set v --priority low --no-move=off --possible-owner none --dry-run");

	(void)state;
	assert_true(r->dry_run);
	assert_int_equal(r->vm_set->n_mask, 3);
	assert_string_equal(r->vm_set->mask[0], "priority");
	assert_string_equal(r->vm_set->mask[1], "no_move");
	assert_string_equal(r->vm_set->mask[2], "possible_owners");
	assert_int_equal(r->vm_set->spec->priority, 1000);
	assert_int_equal(r->vm_set->spec->n_possible_owners, 0);
	fake_fini(&f);

	r = sent(&f, "vm move v --to n2 --kind offline --network mig1 --mode tcp --timeout 5s");
	assert_string_equal(r->vm_move->to, "n2");
	assert_string_equal(r->vm_move->kind, "offline");
	assert_string_equal(r->vm_move->network, "mig1");
	assert_int_equal(r->timeout_ms, 5000);
	assert_int_equal(r->id.len, 16);
	fake_fini(&f);

	r = sent(&f, "vm start v --node n1");
	assert_int_equal(r->vm_verb->verb, DROVER__VM_VERB__VERB__START);
	assert_string_equal(r->vm_verb->node, "n1");
	fake_fini(&f);

	r = sent(&f, "vm stop v --force");
	assert_int_equal(r->vm_verb->verb, DROVER__VM_VERB__VERB__STOP);
	assert_true(r->vm_verb->force);
	fake_fini(&f);
}

static void test_node_drain(void **state)
{
	struct fake f;
	const Drover__Request *r = sent(&f, "node drain n1 --best-effort --shutdown-unmovable");

	(void)state;
	assert_int_equal(r->node_verb->verb, DROVER__NODE_VERB__VERB__PAUSE);
	assert_true(r->node_verb->drain && r->node_verb->best_effort && r->node_verb->shutdown_unmovable);
	fake_fini(&f);

	r = sent(&f, "node pause n1");
	assert_false(r->node_verb->drain);
	fake_fini(&f);

	r = sent(&f, "node set n1 --fence fence_x,ip=10.0.0.1,password=a,,b=c,lanplus=");
	assert_string_equal(r->node_set->node, "n1");
	assert_string_equal(r->node_set->fence_agent, "fence_x");
	assert_int_equal(r->node_set->n_fence_options, 3);
	assert_string_equal(r->node_set->fence_options[1]->key, "password");
	assert_string_equal(r->node_set->fence_options[1]->value, "a,b=c");
	assert_string_equal(r->node_set->fence_options[2]->value, "");
	fake_fini(&f);

	r = sent(&f, "node fence n1 --force");
	assert_true(r->node_verb->force && !r->node_verb->confirmed);
	fake_fini(&f);

	r = sent(&f, "drain show n1");
	assert_int_equal(r->list->what, DROVER__LIST_REQUEST__WHAT__DRAINS);
	assert_string_equal(r->list->name, "n1");
	fake_fini(&f);

	r = sent(&f, "drain show 17");
	assert_int_equal(r->list->id, 17);
	fake_fini(&f);

	r = sent(&f, "drain plan n1 --within 30m");
	assert_int_equal(r->drain_verb->verb, DROVER__DRAIN_VERB__VERB__PLAN);
	assert_string_equal(r->drain_verb->node, "n1");
	assert_int_equal(r->drain_verb->within_ms, 1800000);
	fake_fini(&f);

	r = sent(&f, "drain reverse 17");
	assert_int_equal(r->drain_verb->verb, DROVER__DRAIN_VERB__VERB__REVERSE);
	assert_int_equal(r->drain_verb->drain, 17);
	fake_fini(&f);

	r = sent(&f, "move cancel 9");
	assert_int_equal(r->move_verb->move, 9);
	fake_fini(&f);

	r = sent(&f, "event list --since 10m");
	assert_int_equal(r->list->since_utc_us, 1795173893000000 + 1000000 - 600000000ull);
	fake_fini(&f);
}

static void test_network_limit(void **state)
{
	struct fake f;
	const Drover__Request *r = sent(&f, "network order mig1=1 mig2=1 mgmt=9");

	(void)state;
	assert_int_equal(r->network_order->n_ranks, 3);
	assert_string_equal(r->network_order->ranks[2]->network, "mgmt");
	assert_int_equal(r->network_order->ranks[2]->rank, 9);
	fake_fini(&f);

	r = sent(&f, "network rename a b");
	assert_string_equal(r->network_verb->networks[0], "a");
	assert_string_equal(r->network_verb->new_name, "b");
	fake_fini(&f);

	r = sent(&f, "limit set --max-moves 4 --bandwidth 6Gbit --cluster-moves none --encrypt off");
	assert_int_equal(r->limit_set->max_moves, 4);
	assert_int_equal(r->limit_set->bandwidth, 750000000);
	assert_int_equal(r->limit_set->cluster_moves, 0);
	assert_int_equal(r->limit_set->n_mask, 4);
	assert_string_equal(r->limit_set->mask[0], "max_moves");
	assert_string_equal(r->limit_set->mask[3], "encrypt");
	fake_fini(&f);

	r = sent(&f, "limit set --network mig1 --bandwidth none");
	assert_string_equal(r->limit_set->network, "mig1");
	assert_int_equal(r->limit_set->bandwidth, 0);
	assert_string_equal(r->limit_set->mask[0], "bandwidth");
	fake_fini(&f);
}

/* Every line: exit 2, the words in the message, nothing sent. */
static const struct {
	const char *line;
	const char *words;
} refused[] = {
	{"", "NOUN VERB"},
	{"nod list", "\"node\""},
	{"node", "drover node VERB"},
	{"node drian x", "\"drain\""},
	{"node drain", "drover node drain N"},
	{"node drain a b", "one word too many: b"},
	{"node drain a --wiat", "\"--wait\""},
	{"node drain -n", "-n"},
	{"node drain ..", "node name"},
	{"node drain a --wait --wait", "twice"},
	{"node pause a --best-effort", "--drain"},
	{"node set a", "--fence"},
	{"node set a --fence fence_x,hunter2", "option 1"},
	{"node fence a --force --confirmed", "one of them"},
	{"node list --dry-run", "--dry-run"},
	{"node resume a --failback soon", "immediate|none"},
	{"--timeout 10 node list", "10s"},
	{"--timeout 0s node list", "--timeout"},
	{"--connect unix: node list", "unix:PATH"},
	{"--connect a:b:c! node list", "--connect"},
	{"--timeout", "needs a value"},
	{"vm add v", "--memory"},
	{"vm add v --memory 1", "1MiB"},
	{"vm add v --memory 99999999999GiB", "too large"},
	{"vm add v --memory 1GiB --cpus 0", "1 to 4096"},
	{"vm add v --memory 1GiB --cpus 3 --sockets 2", "does not fit"},
	{"vm add v --memory 1GiB --disk x.img", "absolute path"},
	{"vm add v --memory 1GiB --disk /x,format=vmdk", "raw or qcow2"},
	{"vm add v --memory 1GiB --disk /x,size=3", "\"size\""},
	{"vm add v --memory 1GiB --disk /x,format", "KEY=VALUE"},
	{"vm add v --memory 1GiB --nic model=virtio", "bridge=BR"},
	{"vm add v --memory 1GiB --nic bridge=br0,mac=53:54:00:00:00:01", "MAC"},
	{"vm add v --memory 1GiB --nic bridge=br0,vlan=4095", "4094"},
	{"vm add v --memory 1GiB --nic bridge=a-bridge-name-too-long", "bridge"},
	{"vm add v --memory 1GiB --priority urgent", "low, medium, high"},
	{"vm add v --memory 1GiB --priority 3001", "3001"},
	{"vm add v --memory 1GiB --uuid 1234", "UUID"},
	{"vm add v --memory 1GiB --hostdev 3:0.0", "PCI"},
	{"vm add v --memory 1GiB --memory-backing ram", "hugepages"},
	{"vm add v --memory 1GiB --append x", "--kernel"},
	{"vm add v --memory 1GiB --ha maybe", "on or off"},
	{"vm add v --memory 1GiB --accel xen", "auto|kvm|tcg"},
	{"vm add v --memory 1GiB --possible-owner a/b", "node name"},
	{"vm add v --memory 1GiB --blackout 2m", "60s"},
	{"vm add v --memory 1GiB --cloud-init /x", "not supported yet"},
	{"vm add v --memory 1GiB --vnc", "not supported yet"},
	{"vm add v --memory 1GiB --firmware uefi", "not supported yet"},
	{"vm add v --memory 1GiB --firmware efi", "absolute path"},
	{"vm add v --memory 1GiB --nic bridge=br0,vlan=7", "not supported yet"},
	{"vm add v --memory 1025kB", "whole number of MiB"},
	{"vm add v --memory 1GiB --ladder quick", "not supported yet"},
	{"vm set v", "what to change"},
	{"vm move v --kind quick", "not supported yet"},
	{"vm move v --kind fast", "live|quick"},
	{"vm console v", "not supported yet"},
	{"vm import-libvirt f", "not supported yet"},
	{"cluster backup", "FILE"},
	{"cluster restore", "FILE"},
	{"cluster force-quorum", "--dead"},
	{"cluster force-quorum --dead a,,!b", "!b"},
	{"cluster join 10.0.0.1", "--token"},
	{"cluster join bad!host --token t", "address"},
	{"update start", "not supported yet"},
	{"top", "not supported yet"},
	{"network order mig1", "NET=RANK"},
	{"network order mig1=x", "mig1"},
	{"network order a=1 a=2", "twice"},
	{"limit set", "which limit"},
	{"limit set --bandwidth fast", "6Gbit"},
	{"limit set --bandwidth 0", "none"},
	{"limit set --node a --network b --bandwidth none", "not both"},
	{"limit set --node a --cluster-moves 3", "--cluster-moves"},
	{"limit set --network a --max-moves 3", "--max-moves"},
	{"limit set --max-moves 0", "1 to 64"},
	{"drain cancel abc", "no id"},
	{"drain show 0", "no id"},
	{"event list --since yesterday", "10m"},
};

static void test_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < DR_ARRAY_SIZE(refused); i++) {
		struct fake f;
		int exit;

		fake_init(&f, answer_ok);
		exit = fake_run(&f, refused[i].line);
		if (exit != 2 || f.n_exchanges != 0 || f.out_size != 0 ||
		    strstr(f.err_text, refused[i].words) == NULL)
			fail_msg("\"%s\": exit %d, %zu sent, \"%s\" has not \"%s\"", refused[i].line, exit,
				 f.n_exchanges, f.err_text, refused[i].words);
		fake_fini(&f);
	}
}

static void test_refused_json(void **state)
{
	struct fake f;

	(void)state;
	fake_init(&f, answer_ok);
	assert_int_equal(fake_run(&f, "nod list --json"), 2);
	assert_non_null(strstr(f.out_text, "\"exit\": 2"));
	assert_non_null(strstr(f.out_text, "\"code\": \"usage\""));
	assert_int_equal(f.err_size, 0);
	fake_fini(&f);
}

static void test_help(void **state)
{
	struct fake f;

	(void)state;
	for (size_t n = 0; n < cli_n_nouns; n++) {
		for (size_t v = 0; v < cli_nouns[n]->n_verbs; v++) {
			char line[80];

			snprintf(line, sizeof(line), "%s %s --help", cli_nouns[n]->name,
				 cli_nouns[n]->verbs[v].name);
			fake_init(&f, answer_ok);
			assert_int_equal(fake_run(&f, line), 0);
			assert_non_null(strstr(f.out_text, cli_nouns[n]->verbs[v].summary));
			fake_fini(&f);
		}
	}
	fake_init(&f, answer_ok);
	assert_int_equal(fake_run(&f, "vm -h"), 0);
	assert_non_null(strstr(f.out_text, "drover vm move V"));
	fake_fini(&f);
}

static void test_keygen(void **state)
{
	char dir[] = "/tmp/drover-test-cli-XXXXXX";
	char line[128], path[64];
	struct stat st;
	struct fake f;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/key", dir);
	snprintf(line, sizeof(line), "cluster keygen --key-file %s", path);
	fake_init(&f, answer_ok);
	assert_int_equal(fake_run(&f, line), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 32);
	assert_int_equal(st.st_mode & 07777, 0600);
	fake_fini(&f);
	fake_init(&f, answer_ok);
	assert_int_equal(fake_run(&f, line), 6);
	assert_non_null(strstr(f.err_text, "--force"));
	fake_fini(&f);
	strcat(line, " --force");
	fake_init(&f, answer_ok);
	assert_int_equal(fake_run(&f, line), 0);
	fake_fini(&f);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vm_add),	   cmocka_unit_test(test_vm_other),
		cmocka_unit_test(test_node_drain), cmocka_unit_test(test_network_limit),
		cmocka_unit_test(test_refused),	   cmocka_unit_test(test_refused_json),
		cmocka_unit_test(test_help),	   cmocka_unit_test(test_keygen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
