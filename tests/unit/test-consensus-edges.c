/*
 * What consensus.h answers where nothing can be done, what it makes of a state that fails, and of messages
 * that libraft must not see: the member is alone, the test plays the others.
 */
#include "tests/unit/lone-member.h"

#include <raft.h>

static struct lone *l;

static int setup(void **state)
{
	(void)state;
	l = lone_new();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (l->consensus != NULL)
		lone_stop(l);
	lone_free(l);
	return 0;
}

static void lead(void)
{
	assert_non_null(lone_make(l));
	assert_int_equal(consensus_bootstrap(l->consensus, &l->err), 0);
	assert_int_equal(consensus_start(l->consensus, &l->err), 0);
	assert_int_equal(consensus_barrier(l->consensus, NULL, NULL), 0);
	lone_until(l, lone_leads);
}

static bool all_acked(struct lone *lone)
{
	return lone->acked == lone->applied && lone->acked >= 3;
}

static void test_not_started(void **state)
{
	Drover__RaftRpc rpc = DROVER__RAFT_RPC__INIT;
	const char *node = "?";

	(void)state;
	assert_non_null(lone_make(l));
	assert_int_equal(consensus_role(l->consensus), CONSENSUS_OFFLINE);
	assert_false(consensus_leads(l->consensus));
	assert_int_equal(lone_propose(l), -DR_ENOQUORUM);
	assert_int_equal(consensus_barrier(l->consensus, NULL, NULL), -DR_ENOQUORUM);
	assert_int_equal(consensus_leader(l->consensus, &node), 0);
	assert_null(node);
	rpc.type = RAFT_IO_TIMEOUT_NOW;
	consensus_receive(l->consensus, 102, &rpc);
	consensus_transfer(l->consensus);
	assert_int_equal(consensus_term(l->consensus), 0);
	assert_int_equal(l->changes, 0);
}

static void test_leader(void **state)
{
	struct consensus_member members[4];
	const char *node = NULL;

	(void)state;
	lead();
	assert_int_equal(consensus_leader(l->consensus, &node), 101);
	assert_string_equal(node, "node1");
	assert_int_equal(consensus_leader(l->consensus, NULL), 101);
	assert_int_equal(consensus_self(l->consensus), 101);
	assert_true(consensus_own_term(l->consensus));
	assert_true(consensus_members_settled(l->consensus));
	assert_int_equal(consensus_members(l->consensus, members, 0), 0);
	assert_int_equal(consensus_members(l->consensus, members, 4), 1);
	assert_int_equal(members[0].role, MEMBER_VOTER);
	for (int i = 0; i < 3; i++)
		assert_int_equal(lone_propose(l), 0);
	lone_until(l, all_acked);
	/* It keeps its place while it may not be used: held, or cut off. */
	consensus_hold(l->consensus, true);
	assert_false(consensus_leads(l->consensus));
	consensus_hold(l->consensus, false);
	assert_true(consensus_leads(l->consensus));
	l->quorate = false;
	assert_false(consensus_leads(l->consensus));
	assert_int_equal(lone_propose(l), -DR_ENOQUORUM);
	l->quorate = true;
	/* Nobody to hand over to, nobody lost. */
	consensus_transfer(l->consensus);
	consensus_member_lost(l->consensus, 102);
	assert_true(consensus_leads(l->consensus));
	/* The log has its first member already. */
	lone_stop(l);
	assert_non_null(lone_make(l));
	assert_int_not_equal(consensus_bootstrap(l->consensus, &l->err), 0);
	assert_non_null(strstr(l->err.text, "first member"));
	assert_int_equal(consensus_start(l->consensus, &l->err), 0);
}

static bool settled(struct lone *lone)
{
	return consensus_members_settled(lone->consensus) && lone->changes >= 1;
}

static void test_changes(void **state)
{
	struct consensus_member members[4];
	struct dr_error err = DR_ERROR_INIT;

	(void)state;
	lead();
	assert_int_equal(consensus_promote(l->consensus, 109, MEMBER_VOTER, &err), -DR_EFAILED);
	assert_non_null(strstr(err.text, "promote member"));
	dr_error_clear(&err);
	assert_int_equal(consensus_remove(l->consensus, 109, &err), -DR_EFAILED);
	assert_non_null(strstr(err.text, "remove member"));
	dr_error_clear(&err);
	assert_int_equal(consensus_add(l->consensus, 101, "node1", &err), -DR_EFAILED); /* it is in already */
	dr_error_clear(&err);
	l->changes = 0;
	assert_int_equal(consensus_add(l->consensus, 102, "node2", &err), 0);
	assert_int_equal(consensus_add(l->consensus, 103, "node3", &err), -DR_EAGAIN); /* one at a time */
	assert_non_null(strstr(err.text, "under way"));
	assert_int_equal(consensus_promote(l->consensus, 102, MEMBER_VOTER, &err), -DR_EAGAIN);
	assert_int_equal(consensus_remove(l->consensus, 102, &err), -DR_EAGAIN);
	lone_until(l, settled);
	assert_int_equal(consensus_members(l->consensus, members, 4), 2);
	assert_string_equal(members[1].node, "node2"); /* without what makes its address its own */
	assert_int_equal(members[1].role, MEMBER_JOINING);
	l->changes = 0;
	assert_int_equal(consensus_promote(l->consensus, 102, MEMBER_LEARNER, &err), 0);
	lone_until(l, settled);
	assert_int_equal(consensus_members(l->consensus, members, 4), 2);
	assert_int_equal(members[1].role, MEMBER_LEARNER);
	l->changes = 0;
	assert_int_equal(consensus_promote(l->consensus, 102, MEMBER_JOINING, &err), 0); /* and back */
	lone_until(l, settled);
	assert_int_equal(consensus_members(l->consensus, members, 4), 2);
	assert_int_equal(members[1].role, MEMBER_JOINING);
	l->changes = 0;
	assert_int_equal(consensus_remove(l->consensus, 102, &err), 0);
	lone_until(l, settled);
	assert_int_equal(consensus_members(l->consensus, members, 4), 1);
}

/* ---------------------------------------------------------------- a state that fails */

static bool is_fatal(struct lone *lone)
{
	return lone->fatal != DR_OK;
}

static void test_apply_fails(void **state)
{
	(void)state;
	lead();
	l->no_apply = true;
	assert_int_equal(lone_propose(l), 0);
	lone_until(l, is_fatal);
	assert_int_equal(l->fatal, DR_EIO);
	assert_int_equal(l->acked, 0); /* R19: nobody hears "ok" */
}

static bool thirty_applied(struct lone *lone)
{
	return lone->acked >= 30;
}

/* A snapshot that can't be made now is made later; the log goes on meanwhile. */
static void test_snapshot_fails(void **state)
{
	(void)state;
	lead();
	l->no_snapshot = true;
	for (int i = 0; i < 30; i++)
		assert_int_equal(lone_propose(l), 0);
	lone_until(l, thirty_applied);
	assert_int_equal(l->snapshots, 0);
	assert_int_equal(l->fatal, DR_OK);
	l->no_snapshot = false;
	l->acked = 0;
	for (int i = 0; i < 30; i++)
		assert_int_equal(lone_propose(l), 0);
	lone_until(l, thirty_applied);
	assert_true(l->snapshots > 0);
	/* And what is restored from it is the whole; one that can't be read stops the start. */
	lone_stop(l);
	assert_non_null(lone_make(l));
	l->no_restore = true;
	assert_int_equal(consensus_start(l->consensus, &l->err), -DR_ECORRUPT);
	lone_stop(l);
	l->no_restore = false;
	assert_non_null(lone_make(l));
	assert_int_equal(consensus_start(l->consensus, &l->err), 0);
	assert_int_equal(consensus_barrier(l->consensus, NULL, NULL), 0);
	lone_until(l, lone_leads);
	assert_int_equal(l->restores, 1);
	assert_int_equal(l->applied, 60);
}

/* ---------------------------------------------------------------- as a follower of the test */

static void receive(uint64_t from, Drover__RaftRpc *rpc)
{
	rpc->address = (char *)(uintptr_t) "node2@66";
	consensus_receive(l->consensus, from, rpc);
}

static void join(void)
{
	assert_non_null(lone_make(l));
	assert_int_equal(consensus_start(l->consensus, &l->err), 0);
}

/* The newest answer of that kind; NULL: none. */
static const Drover__RaftRpc *answer(uint32_t type)
{
	for (unsigned i = 0; i < LONE_SENT && i < l->n_sent; i++) {
		const Drover__PeerMsg *msg = l->sent[(l->n_sent - 1 - i) % LONE_SENT];

		if (msg != NULL && msg->raft != NULL && msg->raft->type == type)
			return msg->raft;
	}
	return NULL;
}

static bool has_appended(struct lone *lone)
{
	const Drover__RaftRpc *rpc = answer(RAFT_IO_APPEND_ENTRIES_RESULT);

	(void)lone;
	return rpc != NULL && rpc->rejected == 0 && rpc->last_log_index >= 10;
}

/* From leader 102 of term 2: the state as of index 10, three voters, this one among them. */
static void install_snapshot(void)
{
	Drover__RaftRpc rpc = DROVER__RAFT_RPC__INIT;
	Drover__RaftServer servers[3] = {DROVER__RAFT_SERVER__INIT, DROVER__RAFT_SERVER__INIT,
					 DROVER__RAFT_SERVER__INIT};
	Drover__RaftServer *conf[3] = {&servers[0], &servers[1], &servers[2]};
	static const char *const names[3] = {"node1", "node2@66", "node3@67"};
	uint64_t ten = 10;

	for (unsigned i = 0; i < 3; i++) {
		servers[i].id = 101 + i;
		servers[i].address = (char *)(uintptr_t)names[i];
		servers[i].role = RAFT_VOTER;
	}
	rpc.type = RAFT_IO_INSTALL_SNAPSHOT;
	rpc.term = 2;
	rpc.last_index = 10;
	rpc.last_term = 2;
	rpc.conf = conf;
	rpc.n_conf = 3;
	rpc.conf_index = 1;
	rpc.data.data = (uint8_t *)&ten;
	rpc.data.len = 8;
	receive(102, &rpc);
	lone_until(l, has_appended);
	assert_int_equal(l->restores, 1);
	assert_int_equal(l->applied, 10);
}

static void append(uint64_t from, uint64_t term, uint64_t prev, uint64_t prev_term, uint64_t commit,
		   uint64_t entry_term, uint32_t type, const void *data, size_t size)
{
	Drover__RaftRpc rpc = DROVER__RAFT_RPC__INIT;
	Drover__RaftEntry entry = DROVER__RAFT_ENTRY__INIT;
	Drover__RaftEntry *list[1] = {&entry};

	rpc.type = RAFT_IO_APPEND_ENTRIES;
	rpc.term = term;
	rpc.prev_log_index = prev;
	rpc.prev_log_term = prev_term;
	rpc.leader_commit = commit;
	rpc.entries = list;
	rpc.n_entries = size > 0 ? 1 : 0;
	entry.term = entry_term;
	entry.type = type;
	entry.data.data = (uint8_t *)(uintptr_t)data;
	entry.data.len = size;
	receive(from, &rpc);
}

static bool follows(struct lone *lone)
{
	return consensus_leader(lone->consensus, NULL) == 102;
}

static bool stored_eleven(struct lone *lone)
{
	uint64_t index, term;

	consensus_last(lone->consensus, &index, &term);
	return index == 11 && answer(RAFT_IO_APPEND_ENTRIES_RESULT)->last_log_index == 11;
}

static bool applied_eleven(struct lone *lone)
{
	return lone->applied == 11;
}

static void test_follower(void **state)
{
	struct dr_error err = DR_ERROR_INIT;
	const char *node = NULL;
	uint64_t heard, index, term;

	(void)state;
	join();
	install_snapshot();
	assert_int_equal(consensus_term(l->consensus), 2);
	append(102, 2, 10, 2, 10, 0, 0, NULL, 0);
	assert_true(follows(l));
	assert_int_equal(consensus_leader(l->consensus, &node), 102);
	assert_string_equal(node, "node2");
	heard = consensus_heard_us(l->consensus);
	assert_true(heard > 0);
	/* Only a leader may propose, ask or change. */
	assert_int_equal(lone_propose(l), -DR_ENOQUORUM);
	assert_int_equal(consensus_barrier(l->consensus, NULL, NULL), -DR_ENOQUORUM);
	assert_int_equal(consensus_add(l->consensus, 104, "node4", &err), -DR_ENOQUORUM);
	consensus_transfer(l->consensus);
	/* What the leader has committed and this one has not: it has not caught up. */
	append(102, 2, 11, 2, 12, 2, RAFT_COMMAND, "x", 1); /* a gap */
	usleep(2000);
	assert_int_equal(consensus_heard_us(l->consensus), heard);
	append(102, 2, 10, 2, 10, 2, RAFT_COMMAND, "x", 1);
	lone_until(l, stored_eleven);
	append(102, 2, 11, 2, 12, 0, 0, NULL, 0);
	lone_until(l, applied_eleven);
	assert_int_equal(consensus_heard_us(l->consensus), heard); /* it named 12 */
	append(102, 1, 11, 2, 11, 0, 0, NULL, 0);		   /* of an older term: nothing is heard */
	consensus_last(l->consensus, &index, &term);
	assert_int_equal(index, 11);
	assert_int_equal(term, 2);
	consensus_mark(l->consensus, &index, &term);
	assert_int_equal(index, 11);
	assert_int_equal(term, 2);
}

static bool asked_for_votes(struct lone *lone)
{
	(void)lone;
	return answer(RAFT_IO_REQUEST_VOTE) != NULL;
}

/* The leader has left corosync's membership: the first of those left campaigns at once. */
static void test_leader_lost(void **state)
{
	uint64_t began;

	(void)state;
	join();
	install_snapshot();
	append(102, 2, 10, 2, 10, 0, 0, NULL, 0);
	consensus_member_lost(l->consensus, 103); /* not the leader */
	began = env_now_us(l->env);
	consensus_member_lost(l->consensus, 102);
	lone_until(l, asked_for_votes);
	assert_true(env_now_us(l->env) - began < 5000000);
	assert_true(answer(RAFT_IO_REQUEST_VOTE)->pre_vote);
	/* R15: a mute one asks for none. */
	consensus_mute(l->consensus, true);
	for (unsigned i = 0; i < LONE_SENT; i++) {
		drover__peer_msg__free_unpacked(l->sent[i], NULL);
		l->sent[i] = NULL;
	}
	l->n_sent = 0;
	assert_false(lone_runs(l, asked_for_votes, 1500000));
	consensus_mute(l->consensus, false);
	lone_until(l, asked_for_votes);
}

/* R15: nor does it give one. */
static void test_mute_vote(void **state)
{
	Drover__RaftRpc rpc = DROVER__RAFT_RPC__INIT;

	(void)state;
	join();
	install_snapshot();
	consensus_mute(l->consensus, true);
	rpc.type = RAFT_IO_REQUEST_VOTE;
	rpc.term = 3;
	rpc.candidate = 103;
	rpc.last_log_index = 50;
	rpc.last_log_term = 2;
	rpc.disrupt_leader = true;
	receive(103, &rpc);
	assert_int_equal(consensus_term(l->consensus), 3);
	assert_null(answer(RAFT_IO_REQUEST_VOTE_RESULT));
}

/* A member change that the next leader does not have, and the entry of the list before it is in the snapshot.
 */
static void test_change_taken_back(void **state)
{
	struct raft_configuration conf;
	struct raft_buffer list;
	uint64_t index, term;

	(void)state;
	join();
	install_snapshot();
	raft_configuration_init(&conf);
	assert_int_equal(raft_configuration_add(&conf, 101, "node1", RAFT_VOTER), 0);
	assert_int_equal(raft_configuration_add(&conf, 102, "node2@66", RAFT_VOTER), 0);
	assert_int_equal(raft_configuration_encode(&conf, &list), 0);
	append(102, 2, 10, 2, 10, 2, RAFT_CHANGE, list.base, list.len);
	lone_until(l, stored_eleven);
	assert_false(consensus_members_settled(l->consensus));
	/* The same again, or of an old leader: nothing is taken back. */
	append(102, 2, 10, 2, 10, 2, RAFT_CHANGE, list.base, list.len);
	append(103, 1, 10, 2, 10, 1, RAFT_COMMAND, "x", 1);
	assert_int_equal(l->fatal, DR_OK);
	append(103, 3, 10, 2, 10, 3, RAFT_COMMAND, "x", 1);
	assert_int_equal(l->fatal, DR_EAGAIN);
	lone_stop(l);
	raft_free(list.base);
	raft_configuration_close(&conf);
	/* The new process has neither the change nor its entry, and takes the new leader's. */
	join();
	consensus_last(l->consensus, &index, &term);
	assert_int_equal(index, 10);
	assert_true(consensus_members_settled(l->consensus));
	append(103, 3, 10, 2, 10, 3, RAFT_COMMAND, "x", 1);
	lone_until(l, stored_eleven);
	assert_int_equal(l->fatal, DR_OK);
}

static bool is_settled(struct lone *lone)
{
	return consensus_members_settled(lone->consensus);
}

/* A list that was not committed when this member ended is not committed at its next start either. */
static void test_change_found_at_start(void **state)
{
	struct consensus_member members[4];
	struct raft_configuration conf;
	struct raft_buffer list;
	uint64_t index, term;

	(void)state;
	raft_configuration_init(&conf);
	assert_int_equal(raft_configuration_add(&conf, 101, "node1", RAFT_VOTER), 0);
	assert_int_equal(raft_configuration_add(&conf, 102, "node2@66", RAFT_VOTER), 0);
	assert_int_equal(raft_configuration_encode(&conf, &list), 0);
	join();
	install_snapshot();
	assert_true(consensus_members_settled(l->consensus));
	append(102, 2, 10, 2, 10, 2, RAFT_CHANGE, list.base, list.len);
	lone_until(l, stored_eleven);
	lone_stop(l);
	join();
	assert_int_equal(consensus_members(l->consensus, members, 4), 2);
	assert_false(consensus_members_settled(l->consensus));
	/* The next leader does not have it. */
	append(103, 3, 10, 2, 10, 3, RAFT_COMMAND, "x", 1);
	assert_int_equal(l->fatal, DR_EAGAIN);
	lone_stop(l);
	join();
	consensus_last(l->consensus, &index, &term);
	assert_int_equal(index, 10);
	assert_int_equal(consensus_members(l->consensus, members, 4), 3);
	assert_true(consensus_members_settled(l->consensus));
	/* Or it does, and says that it is committed. */
	append(103, 3, 10, 2, 10, 3, RAFT_CHANGE, list.base, list.len);
	lone_until(l, stored_eleven);
	lone_stop(l);
	join();
	assert_false(consensus_members_settled(l->consensus));
	append(103, 3, 11, 3, 11, 3, RAFT_COMMAND, "x", 1);
	lone_until(l, is_settled);
	assert_int_equal(consensus_members(l->consensus, members, 4), 2);
	raft_free(list.base);
	raft_configuration_close(&conf);
}

/* What does not belong to the protocol is dropped before libraft sees it. */
static void test_broken_messages(void **state)
{
	Drover__RaftRpc rpc = DROVER__RAFT_RPC__INIT;
	Drover__RaftServer server = DROVER__RAFT_SERVER__INIT;
	Drover__RaftServer *conf[2] = {&server, &server};
	uint8_t byte = 1;

	(void)state;
	join();
	install_snapshot();
	rpc.type = 77;
	rpc.term = 9;
	receive(102, &rpc);
	rpc.type = RAFT_IO_REQUEST_VOTE_RESULT;
	rpc.pre_vote_answer = 3;
	receive(102, &rpc);
	rpc.type = RAFT_IO_INSTALL_SNAPSHOT;
	receive(102, &rpc); /* empty */
	rpc.data.data = &byte;
	rpc.data.len = 1;
	receive(102, &rpc); /* no members */
	server.id = 5;
	server.address = (char *)(uintptr_t) "node5";
	server.role = RAFT_VOTER;
	rpc.conf = conf;
	rpc.n_conf = 2;
	receive(102, &rpc); /* one member twice */
	assert_int_equal(consensus_term(l->consensus), 2);
	assert_int_equal(l->restores, 1);
}

/* libraft's memory is zeroed: what it leaves unwritten goes to disks and peers. */
static void test_heap(void **state)
{
	uint8_t *p;

	(void)state;
	consensus_use_heap();
	for (int i = 0; i < 100; i++) {
		p = raft_aligned_alloc(64, 256);
		assert_int_equal((uintptr_t)p % 64, 0);
		for (int k = 0; k < 256; k++)
			assert_int_equal(p[k], 0);
		memset(p, 0xff, 256);
		raft_aligned_free(64, p);
		p = raft_malloc(256);
		for (int k = 0; k < 256; k++)
			assert_int_equal(p[k], 0);
		memset(p, 0xff, 256);
		raft_free(p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_not_started, setup, teardown),
		cmocka_unit_test_setup_teardown(test_leader, setup, teardown),
		cmocka_unit_test_setup_teardown(test_changes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_apply_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_snapshot_fails, setup, teardown),
		cmocka_unit_test_setup_teardown(test_follower, setup, teardown),
		cmocka_unit_test_setup_teardown(test_leader_lost, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mute_vote, setup, teardown),
		cmocka_unit_test_setup_teardown(test_change_taken_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_change_found_at_start, setup, teardown),
		cmocka_unit_test_setup_teardown(test_broken_messages, setup, teardown),
		cmocka_unit_test(test_heap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
