/* What comes from another member and must not reach libraft: it believes every length that it is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "coordinator/raft_rpc.h"

static int unpack_one(uint32_t type, const void *data, size_t size)
{
	Drover__RaftRpc rpc = DROVER__RAFT_RPC__INIT;
	Drover__RaftEntry entry = DROVER__RAFT_ENTRY__INIT;
	Drover__RaftEntry *list[] = {&entry};
	struct dr_error err = DR_ERROR_INIT;
	struct raft_message msg;
	int ret;

	rpc.type = RAFT_IO_APPEND_ENTRIES;
	rpc.entries = list;
	rpc.n_entries = 1;
	entry.term = 1;
	entry.type = type;
	entry.data.data = (uint8_t *)(uintptr_t)data;
	entry.data.len = size;
	ret = raft_rpc_unpack(&rpc, 7, &msg, &err);
	if (ret == 0) {
		assert_int_equal(msg.append_entries.n_entries, 1);
		assert_int_equal(msg.append_entries.entries[0].buf.len, size);
		raft_free(msg.append_entries.entries[0].batch);
		raft_free(msg.append_entries.entries);
	} else {
		assert_int_not_equal(err.code, DR_OK);
	}
	return ret;
}

static void test_member_list(void **state)
{
	struct raft_configuration conf;
	struct raft_buffer buf;

	(void)state;
	raft_configuration_init(&conf);
	assert_int_equal(raft_configuration_add(&conf, 101, "node1", RAFT_VOTER), 0);
	assert_int_equal(raft_configuration_add(&conf, 102, "node2@66", RAFT_SPARE), 0);
	assert_int_equal(raft_configuration_encode(&conf, &buf), 0);
	assert_int_equal(unpack_one(RAFT_CHANGE, buf.base, buf.len), 0);
	/* libraft pads the list to 8 bytes; whatever is shorter than the servers it names is refused. */
	for (size_t size = 0; size + 8 <= buf.len; size++) {
		void *part = malloc(size > 0 ? size : 1); /* exact: a sanitizer sees a read beyond it */

		memcpy(part, buf.base, size);
		assert_int_equal(unpack_one(RAFT_CHANGE, part, size), -DR_EPROTO);
		free(part);
	}
	((uint8_t *)buf.base)[0] = 2;
	assert_int_equal(unpack_one(RAFT_CHANGE, buf.base, buf.len), -DR_EPROTO);
	((uint8_t *)buf.base)[0] = 1;
	((uint8_t *)buf.base)[8] = 0xff; /* 2^56 servers and some */
	assert_int_equal(unpack_one(RAFT_CHANGE, buf.base, buf.len), -DR_EPROTO);
	/* No servers; and one with a role that does not exist. */
	memset((uint8_t *)buf.base + 1, 0, 8);
	assert_int_equal(unpack_one(RAFT_CHANGE, buf.base, buf.len), -DR_EPROTO);
	((uint8_t *)buf.base)[1] = 2;
	assert_int_equal(unpack_one(RAFT_CHANGE, buf.base, buf.len), 0);
	((uint8_t *)buf.base)[9 + 8 + sizeof("node1")] = RAFT_SPARE + 1;
	assert_int_equal(unpack_one(RAFT_CHANGE, buf.base, buf.len), -DR_EPROTO);
	raft_free(buf.base);
	raft_configuration_close(&conf);
}

/* More than a message may hold, and what is no message at all. */
static void test_limits(void **state)
{
	static Drover__RaftEntry *list[RAFT_RPC_ENTRIES_MAX + 1];
	static const uint8_t uuid[16];
	Drover__RaftRpc rpc = DROVER__RAFT_RPC__INIT;
	Drover__RaftEntry entry = DROVER__RAFT_ENTRY__INIT;
	struct raft_message msg = {.type = 99, .server_address = "node2"};
	struct dr_error err = DR_ERROR_INIT;
	size_t size = 0;

	(void)state;
	entry.type = RAFT_BARRIER;
	for (size_t i = 0; i < RAFT_RPC_ENTRIES_MAX + 1; i++)
		list[i] = &entry;
	rpc.type = RAFT_IO_APPEND_ENTRIES;
	rpc.entries = list;
	rpc.n_entries = RAFT_RPC_ENTRIES_MAX + 1;
	assert_null(raft_rpc_pack(&msg, 101, "node1", uuid, 1, &size));
	assert_int_equal(raft_rpc_unpack(&rpc, 7, &msg, &err), -DR_EPROTO);
	assert_non_null(strstr(err.text, "AppendEntries with"));
}

static void test_entries(void **state)
{
	(void)state;
	assert_int_equal(unpack_one(RAFT_COMMAND, "x", 1), 0);
	assert_int_equal(unpack_one(RAFT_COMMAND, NULL, 0), -DR_EPROTO);
	assert_int_equal(unpack_one(RAFT_BARRIER, NULL, 0), 0);
	assert_int_equal(unpack_one(99, "x", 1), -DR_EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_member_list),
		cmocka_unit_test(test_entries),
		cmocka_unit_test(test_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
