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
	raft_free(buf.base);
	raft_configuration_close(&conf);
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
