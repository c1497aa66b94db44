/*
 * cli: what is printed for known answers, compared with the files in cli-golden/ byte by byte. After a wanted
 * change: DROVER_UPDATE_GOLDEN=1 ./test-cli-output, and read the difference.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "tests/unit/cli-fake.h"

#ifndef DROVER_GOLDEN_DIR
#define DROVER_GOLDEN_DIR "cli-golden"
#endif

#define UTC 1795173893250000

static char *word(const char *text)
{
	return (char *)(uintptr_t)text;
}

static uint8_t uuid_bytes[16] = {0x6b, 0xa7, 0xb8, 0x10, 0x9d, 0xad, 0x11, 0xd1,
				 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8};

static void fill_status(Drover__Response *response)
{
	static Drover__ClusterStatus status;
	static Drover__CoordinatorRow rows[2], *coordinators[2] = {&rows[0], &rows[1]};
	static uint8_t digest[8] = {0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4};

	drover__cluster_status__init(&status);
	status.cluster = word("prod");
	status.cluster_uuid = (ProtobufCBinaryData){sizeof(uuid_bytes), uuid_bytes};
	status.mode = word("corosync");
	status.quorate = true;
	status.leader = word("node1");
	status.term = 4;
	status.index = 1234;
	for (int i = 0; i < 2; i++) {
		drover__coordinator_row__init(&rows[i]);
		rows[i].name = word(i == 0 ? "node1" : "node2");
		rows[i].state = word(i == 0 ? "leader" : "lost");
		rows[i].index = i == 0 ? 1234 : 1200;
		if (i == 0)
			rows[i].digest = (ProtobufCBinaryData){sizeof(digest), digest};
		else
			rows[i].error = word("no answer for 12 s");
	}
	status.coordinators = coordinators;
	status.n_coordinators = 2;
	status.nodes_up = 2;
	status.nodes_paused = 1;
	status.vms_running = 5;
	status.vms_moving = 1;
	status.drains_active = 1;
	response->cluster = &status;
}

static void fill_nodes(Drover__Response *response, bool facts)
{
	static Drover__NodeRow rows[2], *nodes[2] = {&rows[0], &rows[1]};
	static Drover__HostFacts host;
	static Drover__HostAddress address, *addresses[1] = {&address};

	for (int i = 0; i < 2; i++) {
		drover__node_row__init(&rows[i]);
		rows[i].name = word(i == 0 ? "node1" : "a-node-with-a-long-name");
		rows[i].state = word(i == 0 ? "draining" : "down");
		rows[i].agent = word(i == 0 ? "connected" : "lost");
		rows[i].vms = i == 0 ? 6 : 0;
		rows[i].memory_total = 64ull << 30;
		rows[i].memory_free = i == 0 ? 11ull << 30 : 0;
		rows[i].moves_out = i == 0 ? 2 : 0;
		rows[i].lease_ms = i == 0 ? 29400 : 0;
	}
	if (facts) {
		drover__host_facts__init(&host);
		drover__host_address__init(&address);
		host.cpus = 16;
		host.cpu_model = word("Some CPU");
		host.qemu_version = word("7.2.22");
		host.kvm = true;
		address.interface = word("eth1");
		address.address = word("10.77.1.1");
		address.prefix = 24;
		address.speed = 125000000;
		address.mtu = 9000;
		address.up = true;
		host.addresses = addresses;
		host.n_addresses = 1;
		rows[0].facts = &host;
	}
	response->nodes = nodes;
	response->n_nodes = facts ? 1 : 2;
}

static void fill_vms(Drover__Response *response, bool all)
{
	static Drover__VmRow rows[2], *vms[2] = {&rows[0], &rows[1]};
	static Drover__VmSpec spec;
	static Drover__VmDisk disk, *disks[1] = {&disk};
	static Drover__VmNic nic, *nics[1] = {&nic};
	static Drover__LaunchRecord launch;
	static char *argv[] = {(char *)(uintptr_t) "-machine", (char *)(uintptr_t) "pc-i440fx-7.2",
			       (char *)(uintptr_t) "-append", (char *)(uintptr_t) "it's a=1"};

	for (int i = 0; i < 2; i++) {
		drover__vm_row__init(&rows[i]);
		rows[i].name = word(i == 0 ? "web1" : "db");
		rows[i].state = word(i == 0 ? "moving" : "stopped");
		rows[i].node = word(i == 0 ? "node1" : "");
		rows[i].generation = 3;
		rows[i].memory = 2ull << 30;
		rows[i].cpus = 2;
		rows[i].priority = i == 0 ? 3000 : 1500;
		rows[i].ha = i == 0;
		rows[i].move = i == 0 ? 21 : 0;
	}
	if (all) {
		drover__vm_spec__init(&spec);
		drover__vm_disk__init(&disk);
		drover__vm_nic__init(&nic);
		drover__launch_record__init(&launch);
		spec.memory = 2ull << 30;
		spec.cpus = 2;
		disk.path = word("/srv/web1.qcow2");
		disk.format = word("qcow2");
		disk.bus = word("virtio");
		disk.cache = word("none");
		nic.bridge = word("br0");
		nic.model = word("virtio");
		nic.mac = word("52:54:00:12:34:56");
		spec.disks = disks;
		spec.n_disks = 1;
		spec.nics = nics;
		spec.n_nics = 1;
		launch.machine = word("pc-i440fx-7.2");
		launch.accel = word("kvm");
		launch.argv = argv;
		launch.n_argv = 4;
		rows[0].spec = &spec;
		rows[0].launch = &launch;
		rows[0].uuid = (ProtobufCBinaryData){sizeof(uuid_bytes), uuid_bytes};
	}
	response->vms = vms;
	response->n_vms = all ? 1 : 2;
}

static void fill_networks(Drover__Response *response)
{
	static Drover__NetworkRow row, *networks[1] = {&row};
	static Drover__NetworkNodeRow rows[2], *nodes[2] = {&rows[0], &rows[1]};

	drover__network_row__init(&row);
	row.name = word("mig1");
	row.subnet = word("10.77.1.0/24");
	row.rank = 1;
	for (int i = 0; i < 2; i++) {
		drover__network_node_row__init(&rows[i]);
		rows[i].node = word(i == 0 ? "node1" : "node2");
		rows[i].address = word(i == 0 ? "10.77.1.1" : "10.77.1.2");
		rows[i].speed = i == 0 ? 1250000000 : 0;
		rows[i].mtu = 9000;
		rows[i].up = i == 0;
	}
	row.nodes = nodes;
	row.n_nodes = 2;
	response->networks = networks;
	response->n_networks = 1;
}

static void fill_limits(Drover__Response *response)
{
	static Drover__LimitTable table;
	static Drover__Limits defaults, node, network, *nodes[1] = {&node}, *networks[1] = {&network};
	static char *own[] = {(char *)(uintptr_t) "bandwidth"};
	Drover__Limits *all[] = {&defaults, &node, &network};

	drover__limit_table__init(&table);
	for (int i = 0; i < 3; i++) {
		drover__limits__init(all[i]);
		all[i]->node = word(i == 0 ? "" : i == 1 ? "node1" : "mig1");
		all[i]->max_moves = 2;
		all[i]->max_storage_moves = 2;
		all[i]->mode = word("auto");
		all[i]->encrypt = true;
		all[i]->on_shutdown = word("leave");
		all[i]->blackout_ms = 300;
		all[i]->drain_attempts = 3;
		all[i]->bandwidth = i == 0 ? 0 : 50000000;
		all[i]->own = own;
		all[i]->n_own = i == 0 ? 0 : 1;
	}
	table.defaults = &defaults;
	table.nodes = nodes;
	table.n_nodes = 1;
	table.networks = networks;
	table.n_networks = 1;
	response->limits = &table;
}

static void fill_drain(Drover__Response *response, bool moves)
{
	static Drover__DrainRow drain, *drains[1] = {&drain};
	static Drover__MoveRow rows[3], *all[3] = {&rows[0], &rows[1], &rows[2]};
	static char *networks[] = {(char *)(uintptr_t) "mig1", (char *)(uintptr_t) "mig2"};
	static const char *const states[] = {"done", "copying", "failed"};

	drover__drain_row__init(&drain);
	drain.id = 17;
	drain.node = word("node1");
	drain.state = word("running");
	drain.started_utc_us = UTC;
	drain.moves_total = 3;
	drain.moves_done = 1;
	drain.moves_failed = 1;
	response->drains = drains;
	response->n_drains = 1;
	for (int i = 0; i < 3; i++) {
		drover__move_row__init(&rows[i]);
		rows[i].id = 20 + (uint64_t)i;
		rows[i].vm = word(i == 0 ? "vm1" : i == 1 ? "vm2" : "vm3");
		rows[i].drain = 17;
		rows[i].kind = word("live");
		rows[i].from = word("node1");
		rows[i].to = word(i == 2 ? "" : "node2");
		rows[i].state = word(states[i]);
		rows[i].attempt = i == 2 ? 3 : 1;
		rows[i].mode = word("tcp");
		rows[i].networks = networks;
		rows[i].n_networks = i == 2 ? 0 : (size_t)(i + 1);
		rows[i].passes = 3;
		rows[i].bytes_guest = 130000000;
		rows[i].bytes_wire = i == 2 ? 0 : 131072000;
		rows[i].duration_ms = 2810;
		rows[i].blackout_us = i == 0 ? 21400 : 0;
		rows[i].blackout_ms = i == 0 ? 21 : 0;
		rows[i].started_utc_us = UTC;
		rows[i].ended_utc_us = i == 1 ? 0 : UTC + 2810000;
		rows[i].error = word(i == 2 ? "no node has\n64 GiB free" : "");
		rows[i].bytes_total = 134217728;
		rows[i].bytes_remaining = 33554432;
	}
	response->moves = all;
	response->n_moves = moves ? 3 : 0;
}

static void fill_log(Drover__Response *response)
{
	static Drover__EventRow event, *events[1] = {&event};
	static Drover__HistoryRow line, *history[1] = {&line};
	static Drover__Finding finding, *findings[1] = {&finding};

	drover__event_row__init(&event);
	event.time_utc_us = UTC;
	event.index = 99;
	event.kind = word("move-network");
	event.vm = word("vm1");
	event.move = 21;
	event.text = word("move 21 of vm1 uses mig2 (rank 2): mig1 cannot connect");
	drover__history_row__init(&line);
	line.time_utc_us = UTC;
	line.index = 98;
	line.who = word("uid 0 on node1");
	line.what = word("node drain node1");
	drover__finding__init(&finding);
	finding.severity = word("warning");
	finding.object = word("network mig1");
	finding.measured = word("MTU 1500");
	finding.why = word("larger packets cost less CPU");
	finding.mend = word("ip link set eth1 mtu 9000");
	response->events = events;
	response->n_events = 1;
	response->history = history;
	response->n_history = 1;
	response->findings = findings;
	response->n_findings = 1;
}

static void answer(struct fake *fake, const Drover__Request *request, Drover__Response *response)
{
	(void)fake;
	response->index = 1234;
	response->token = word("TOKEN");
	if (request->verb_case != DROVER__REQUEST__VERB_LIST) {
		response->changed = true;
		if (request->verb_case == DROVER__REQUEST__VERB_CLUSTER_STATUS)
			fill_status(response);
		else if (request->verb_case == DROVER__REQUEST__VERB_CLUSTER_CHECK)
			fill_log(response);
		else if (request->verb_case == DROVER__REQUEST__VERB_NODE_VERB && request->node_verb->drain)
			fill_drain(response, false);
		return;
	}
	switch (request->list->what) {
	case DROVER__LIST_REQUEST__WHAT__NODES:
		fill_nodes(response, request->list->name[0] != '\0');
		break;
	case DROVER__LIST_REQUEST__WHAT__VMS:
		fill_vms(response, request->list->name[0] != '\0');
		break;
	case DROVER__LIST_REQUEST__WHAT__NETWORKS:
		fill_networks(response);
		response->stale = true;
		break;
	case DROVER__LIST_REQUEST__WHAT__LIMITS:
		fill_limits(response);
		break;
	case DROVER__LIST_REQUEST__WHAT__DRAINS:
	case DROVER__LIST_REQUEST__WHAT__MOVES:
		fill_drain(response, true);
		break;
	case DROVER__LIST_REQUEST__WHAT__EVENTS:
	case DROVER__LIST_REQUEST__WHAT__HISTORY:
	case _DROVER__LIST_REQUEST__WHAT_IS_INT_SIZE:
		fill_log(response);
		break;
	}
}

static const char *const lines[] = {
	"cluster status",   "cluster token",	 "cluster check", "node list",	   "node show node1",
	"node drain node1", "node resume node1", "vm list",	  "vm show web1",  "vm show web1 --command",
	"network list",	    "limit show",	 "drain list",	  "drain show 17", "move list",
	"event list",	    "history list",
};

static char *file_read(const char *path)
{
	FILE *f = fopen(path, "r");
	char *text = calloc(1, 65536);

	if (f != NULL) {
		size_t n = fread(text, 1, 65535, f);

		text[n] = '\0';
		fclose(f);
	}
	return text;
}

static void check(const char *line, bool json)
{
	char path[256], words[128];
	struct fake f;
	char *wanted;

	snprintf(words, sizeof(words), "%s%s", line, json ? " --json" : "");
	snprintf(path, sizeof(path), "%s/%s.%s", DROVER_GOLDEN_DIR, line, json ? "json" : "txt");
	for (char *c = path + strlen(DROVER_GOLDEN_DIR); *c != '\0'; c++)
		*c = *c == ' ' ? '_' : *c;
	fake_init(&f, answer);
	assert_int_equal(fake_run(&f, words), 0);
	assert_int_equal(f.err_size, 0);
	if (getenv("DROVER_UPDATE_GOLDEN") != NULL) {
		FILE *out = fopen(path, "w");

		assert_non_null(out);
		fputs(f.out_text, out);
		fclose(out);
	}
	wanted = file_read(path);
	if (strcmp(wanted, f.out_text) != 0)
		fail_msg("drover %s prints\n%sand %s has\n%s", words, f.out_text, path, wanted);
	free(wanted);
	fake_fini(&f);
}

static void test_text(void **state)
{
	(void)state;
	for (size_t i = 0; i < DR_ARRAY_SIZE(lines); i++)
		check(lines[i], false);
}

static void test_json(void **state)
{
	(void)state;
	for (size_t i = 0; i < DR_ARRAY_SIZE(lines); i++)
		check(lines[i], true);
}

/* The keys of INTERFACE §2, from the contract's own words. */
static void test_contract_keys(void **state)
{
	static const struct {
		const char *line;
		const char *array; /* NULL: the top object itself */
		const char *keys;
	} contract[] = {
		{"cluster status", NULL,
		 "cluster mode quorate leader term index coordinators nodes vms drains stale"},
		{"node list", "nodes",
		 "name state agent vms memory_total memory_free moves_out moves_in lease_ms"},
		{"vm list", "vms", "name state node generation memory cpus priority ha move"},
		{"network list", "networks", "name subnet rank excluded rdma nodes"},
		{"limit show", "nodes", "node effective"},
		{"move list", "moves",
		 "id vm drain kind from to state attempt mode networks passes bytes_guest bytes_wire "
		 "duration_ms blackout_ms "
		 "predicted_ms predicted_blackout_ms started ended error"},
		{"drain show 17", "moves", "id vm drain"},
		{"drain list", "drains",
		 "id node state plan started ended moves_total moves_done moves_failed eta_ms predicted_ms"},
		{"event list", "events", "time index kind node vm move drain text"},
	};

	(void)state;
	for (size_t i = 0; i < DR_ARRAY_SIZE(contract); i++) {
		char words[64], keys[256];
		char *rest = keys;
		const char *key;
		struct fake f;
		json_t *top, *object;

		fake_init(&f, answer);
		snprintf(words, sizeof(words), "--json %s", contract[i].line);
		assert_int_equal(fake_run(&f, words), 0);
		top = json_loads(f.out_text, 0, NULL);
		object = contract[i].array != NULL
				 ? json_array_get(json_object_get(top, contract[i].array), 0)
				 : top;
		snprintf(keys, sizeof(keys), "%s", contract[i].keys);
		while ((key = strsep(&rest, " ")) != NULL) {
			if (json_object_get(object, key) == NULL)
				fail_msg("drover %s has no key \"%s\"", words, key);
		}
		json_decref(top);
		fake_fini(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_contract_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
