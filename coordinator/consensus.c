#include "coordinator/consensus.h"

#include <raft.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/mutant.h"
#include "coordinator/logwriter.h"
#include "coordinator/raft_io.h"

#define SNAPSHOT_THRESHOLD 4096
#define SNAPSHOT_TRAILING  1024
#define NODE_MAX	   64
#define CAMPAIGN_STEP_MS   200 /* between the members that campaign after the leader vanished */

struct consensus {
	struct consensus_config config;
	char *node;
	struct raft raft;
	struct raft_io io;
	struct raft_fsm fsm;
	struct logwriter *writer;
	struct raft_change change; /* one member change at a time */
	bool changing;
	uint64_t changed_timer;
	struct raft_transfer transfer;
	bool transferring;
	bool started;
	bool closed;
	bool held;
	uint64_t heard_us;	/* when the leader sent what is applied here by now */
	uint64_t next_heard_us; /* when it named next_heard_index as committed; 0: nothing is waited for */
	uint64_t next_heard_index;
	char leader_node[NODE_MAX];
	uint64_t own_term_applied; /* the newest term of which this member applied an entry as its leader */
	void (*stopped)(void *data);
	void *stopped_data;
};

struct proposal {
	struct raft_apply apply;
	struct raft_barrier barrier;
	void (*done)(void *data, int status);
	void *data;
	struct consensus *c;
	raft_term term;
};

static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result)
{
	struct consensus *c = fsm->data;
	uint64_t index = c->raft.last_applied + 1;
	int ret = c->config.ops->apply(c->config.data, index, buf->base, buf->len);

	*result = NULL;
	if (ret == 0)
		return 0;
	c->config.ops->fatal(c->config.data, (enum dr_err) - ret, "a committed command could not be applied");
	return RAFT_INVALID;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs)
{
	struct consensus *c = fsm->data;
	DR_AUTO_FREE uint8_t *bytes = NULL;
	size_t size = 0;

	if (c->config.ops->snapshot(c->config.data, &bytes, &size) != 0)
		return RAFT_NOMEM;
	*bufs = raft_malloc(sizeof(**bufs));
	if (*bufs == NULL)
		return RAFT_NOMEM;
	(*bufs)[0].base = raft_malloc(size);
	if ((*bufs)[0].base == NULL) {
		raft_free(*bufs);
		return RAFT_NOMEM;
	}
	memcpy((*bufs)[0].base, bytes, size);
	(*bufs)[0].len = size;
	*n_bufs = 1;
	log_info("snapshot of %zu bytes at index %llu", size, c->raft.last_applied);
	return 0;
}

static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf)
{
	struct consensus *c = fsm->data;
	int ret = c->config.ops->restore(c->config.data, buf->base, buf->len);

	if (ret != 0)
		return RAFT_CORRUPT;
	raft_free(buf->base);
	return 0;
}

static void writer_fatal(void *data, const struct dr_error *why)
{
	struct consensus *c = data;

	c->config.ops->fatal(c->config.data, why->code, why->text);
}

static int raft_error(struct consensus *c, int rv, struct dr_error *err, const char *what)
{
	enum dr_err code = DR_EFAILED;

	if (rv == RAFT_NOTLEADER || rv == RAFT_LEADERSHIPLOST)
		code = DR_ENOQUORUM;
	else if (rv == RAFT_CANTCHANGE || rv == RAFT_BUSY)
		code = DR_EAGAIN;
	else if (rv == RAFT_NOMEM)
		code = DR_ENOMEM;
	else if (rv == RAFT_CORRUPT)
		code = DR_ECORRUPT;
	else if (rv == RAFT_IOERR)
		code = DR_EIO;
	return dr_error_set(err, code, "%s: %s (%s)", what, raft_strerror(rv), raft_errmsg(&c->raft));
}

static struct consensus *free_parts(struct consensus *c)
{
	env_timer_stop(c->config.env, &c->changed_timer);
	if (c->writer != NULL)
		logwriter_free(c->writer);
	else
		logdb_close(c->config.log);
	rio_free(&c->io);
	free(c->node);
	free(c);
	return NULL;
}

/* libraft's encodings (of a configuration, say) end with padding that it never writes: bytes of other things
 * would go into the log and to the peers. Hence a heap of zeros. */
static void *zeroed(void *data, size_t size)
{
	(void)data;
	return calloc(1, size);
}

static void heap_free(void *data, void *ptr)
{
	(void)data;
	free(ptr);
}

static void *heap_calloc(void *data, size_t n, size_t size)
{
	(void)data;
	return calloc(n, size);
}

static void *heap_realloc(void *data, void *ptr, size_t size)
{
	(void)data;
	return realloc(ptr, size);
}

static void *heap_aligned(void *data, size_t alignment, size_t size)
{
	void *ptr = aligned_alloc(alignment, size);

	(void)data;
	if (ptr != NULL)
		memset(ptr, 0, size);
	return ptr;
}

static void heap_aligned_free(void *data, size_t alignment, void *ptr)
{
	(void)data;
	(void)alignment;
	free(ptr);
}

static struct raft_heap heap = {
	.malloc = zeroed,
	.free = heap_free,
	.calloc = heap_calloc,
	.realloc = heap_realloc,
	.aligned_alloc = heap_aligned,
	.aligned_free = heap_aligned_free,
};

void consensus_use_heap(void)
{
	raft_heap_set(&heap);
}

struct consensus *consensus_new(const struct consensus_config *config, struct dr_error *err)
{
	struct rio_config rio = {.env = config->env, .log = config->log, .transport = config->transport};
	struct consensus *c = calloc(1, sizeof(*c));
	int rv;

	consensus_use_heap();
	if (c == NULL || (c->node = strdup(config->node)) == NULL) {
		dr_error_set(err, DR_ENOMEM, "consensus: out of memory");
		free(c);
		logdb_close(config->log);
		return NULL;
	}
	c->config = *config;
	c->config.node = c->node;
	c->writer = logwriter_new(config->loop, config->log, writer_fatal, c, err);
	if (c->writer == NULL)
		return free_parts(c);
	rio.writer = c->writer;
	memcpy(rio.cluster_uuid, config->identity.cluster_uuid, sizeof(rio.cluster_uuid));
	rio.incarnation = config->identity.incarnation;
	if (rio_init(&c->io, &rio) < 0) {
		dr_error_set(err, DR_ENOMEM, "consensus: out of memory");
		return free_parts(c);
	}
	c->fsm = (struct raft_fsm){.version = 1,
				   .data = c,
				   .apply = fsm_apply,
				   .snapshot = fsm_snapshot,
				   .restore = fsm_restore};
	rv = raft_init(&c->raft, &c->io, &c->fsm, config->identity.member, c->node);
	if (rv != 0) {
		raft_error(c, rv, err, "consensus");
		return free_parts(c);
	}
	c->raft.data = c;
	raft_set_pre_vote(&c->raft, true);
	raft_set_election_timeout(&c->raft, config->election_timeout_ms);
	raft_set_heartbeat_timeout(&c->raft, config->heartbeat_ms);
	raft_set_snapshot_threshold(&c->raft, config->snapshot_threshold ? config->snapshot_threshold
									 : SNAPSHOT_THRESHOLD);
	raft_set_snapshot_trailing(&c->raft,
				   config->snapshot_trailing ? config->snapshot_trailing : SNAPSHOT_TRAILING);
	return c;
}

int consensus_bootstrap(struct consensus *c, struct dr_error *err)
{
	struct raft_configuration conf;
	int rv;

	raft_configuration_init(&conf);
	rv = raft_configuration_add(&conf, c->config.identity.member, c->node, RAFT_VOTER);
	if (rv == 0)
		rv = raft_bootstrap(&c->raft, &conf);
	raft_configuration_close(&conf);
	return rv == 0 ? 0 : raft_error(c, rv, err, "first member");
}

int consensus_start(struct consensus *c, struct dr_error *err)
{
	int rv = raft_start(&c->raft);

	if (rv != 0)
		return raft_error(c, rv, err, "start");
	c->started = true;
	return 0;
}

static void free_later(void *data)
{
	struct consensus *c = data;
	void (*stopped)(void *) = c->stopped;
	void *stopped_data = c->stopped_data;

	free_parts(c);
	stopped(stopped_data);
}

static void raft_closed(struct raft *raft)
{
	struct consensus *c = raft->data;

	/* Not from inside libraft's own call chain. */
	c->closed = true;
	env_timer_start(c->config.env, 0, free_later, c);
}

void consensus_stop(struct consensus *c, void (*done)(void *data), void *data)
{
	c->stopped = done;
	c->stopped_data = data;
	raft_close(&c->raft, raft_closed);
}

/* --- proposing --------------------------------------------------------------------- */

static int status_of(int rv)
{
	return rv == 0 ? 0 : -DR_EAGAIN;
}

static void finish_proposal(struct proposal *p, int rv)
{
	if (rv == 0 && p->c->own_term_applied < p->term)
		p->c->own_term_applied = p->term;
	if (p->done != NULL)
		p->done(p->data, status_of(rv));
	free(p);
}

static void proposal_applied(struct raft_apply *req, int rv, void *result)
{
	(void)result;
	finish_proposal(req->data, rv);
}

static void barrier_passed(struct raft_barrier *req, int rv)
{
	finish_proposal(req->data, rv);
}

static struct proposal *proposal_new(struct consensus *c, void (*done)(void *, int), void *data)
{
	struct proposal *p = calloc(1, sizeof(*p));

	if (p == NULL)
		return NULL;
	p->done = done;
	p->data = data;
	p->c = c;
	p->term = c->raft.current_term;
	p->apply.data = p;
	p->barrier.data = p;
	return p;
}

int consensus_propose(struct consensus *c, const uint8_t *bytes, size_t size,
		      void (*done)(void *data, int status), void *data)
{
	struct raft_buffer buf = {.len = size};
	struct proposal *p;
	int rv;

	if (!c->started || raft_state(&c->raft) != RAFT_LEADER ||
	    !c->config.transport->quorate(c->config.transport))
		return -DR_ENOQUORUM;
	p = proposal_new(c, done, data);
	buf.base = raft_malloc(size);
	if (p == NULL || buf.base == NULL) {
		free(p);
		raft_free(buf.base);
		return -DR_ENOMEM;
	}
	memcpy(buf.base, bytes, size);
	rv = raft_apply(&c->raft, &p->apply, &buf, 1, proposal_applied);
	if (rv != 0) {
		raft_free(buf.base);
		free(p);
		return raft_error(c, rv, NULL, "propose");
	}
	rio_flush(&c->io);
	return 0;
}

int consensus_barrier(struct consensus *c, void (*done)(void *data, int status), void *data)
{
	struct proposal *p;
	int rv;

	if (!c->started || raft_state(&c->raft) != RAFT_LEADER)
		return -DR_ENOQUORUM;
	p = proposal_new(c, done, data);
	if (p == NULL)
		return -DR_ENOMEM;
	rv = raft_barrier(&c->raft, &p->barrier, barrier_passed);
	if (rv != 0) {
		free(p);
		return raft_error(c, rv, NULL, "barrier");
	}
	return 0;
}

/* --- who leads, who is in ---------------------------------------------------------- */

enum consensus_role consensus_role(const struct consensus *c)
{
	if (!c->started)
		return CONSENSUS_OFFLINE;
	switch (c->raft.state) {
	case RAFT_LEADER:
		return CONSENSUS_LEADER;
	case RAFT_CANDIDATE:
		return CONSENSUS_CANDIDATE;
	case RAFT_FOLLOWER:
		return CONSENSUS_FOLLOWER;
	default:
		return CONSENSUS_OFFLINE;
	}
}

bool consensus_own_term(const struct consensus *c)
{
	return c->own_term_applied == c->raft.current_term;
}

bool consensus_leads(const struct consensus *c)
{
	return consensus_role(c) == CONSENSUS_LEADER && c->config.transport->quorate(c->config.transport) &&
	       (c->own_term_applied == c->raft.current_term || DR_MUTANT(leads_at_once)) && !c->held;
}

void consensus_hold(struct consensus *c, bool hold)
{
	c->held = hold;
}

/* libraft wants an address of its own for each member, also for two of one node while the one replaces the
 * other: NODE@ID. */
static void node_of(const char *address, char node[NODE_MAX])
{
	snprintf(node, NODE_MAX, "%.*s", (int)strcspn(address, "@"), address);
}

uint64_t consensus_leader(struct consensus *c, const char **node)
{
	const char *address = NULL;
	raft_id id = 0;

	if (c->started)
		raft_leader((struct raft *)(uintptr_t)&c->raft, &id, &address);
	if (node != NULL && address != NULL)
		node_of(address, c->leader_node);
	if (node != NULL)
		*node = address != NULL ? c->leader_node : NULL;
	return id;
}

uint64_t consensus_term(const struct consensus *c)
{
	return c->raft.current_term;
}

uint64_t consensus_applied(const struct consensus *c)
{
	return c->raft.last_applied;
}

uint64_t consensus_self(const struct consensus *c)
{
	return c->config.identity.member;
}

/* A member that still catches up hears the leader, but does not know what the leader knows. */
static void note_caught_up(struct consensus *c)
{
	if (c->next_heard_us == 0 || c->raft.last_applied < c->next_heard_index)
		return;
	c->heard_us = c->next_heard_us;
	c->next_heard_us = 0;
}

static void note_heard(struct consensus *c, uint64_t leader_commit)
{
	note_caught_up(c);
	if (c->next_heard_us != 0)
		return;
	c->next_heard_us = env_now_us(c->config.env);
	c->next_heard_index = leader_commit;
	note_caught_up(c);
}

uint64_t consensus_heard_us(struct consensus *c)
{
	note_caught_up(c);
	return consensus_role(c) == CONSENSUS_LEADER ? env_now_us(c->config.env) : c->heard_us;
}

static enum consensus_member_role member_role(int role)
{
	if (role == RAFT_VOTER)
		return MEMBER_VOTER;
	return role == RAFT_STANDBY ? MEMBER_LEARNER : MEMBER_JOINING;
}

unsigned consensus_members(const struct consensus *c, struct consensus_member *members, unsigned max)
{
	const struct raft_configuration *conf = &c->raft.configuration;

	for (unsigned i = 0; i < conf->n && i < max; i++) {
		if (DR_MUTANT(learner_votes) && conf->servers[i].id == c->raft.id)
			conf->servers[i].role = RAFT_VOTER;
		members[i].id = conf->servers[i].id;
		node_of(conf->servers[i].address, members[i].node);
		members[i].role = member_role(conf->servers[i].role);
	}
	return conf->n < max ? conf->n : max;
}

static void changed_later(void *data)
{
	struct consensus *c = data;

	c->changed_timer = 0;
	c->config.ops->changed(c->config.data);
}

bool consensus_members_settled(const struct consensus *c)
{
	const struct raft *r = &c->raft;

	/* Of a list that it finds in its log at start libraft does not say that it is not committed. */
	return r->configuration_uncommitted_index == 0 && r->configuration_index <= r->commit_index;
}

static void change_done(struct raft_change *req, int rv)
{
	struct consensus *c = req->data;

	c->changing = false;
	if (rv != 0)
		log_warning("member change: %s", raft_strerror(rv));
	/* Not from here: libraft calls this also while it steps down, still a leader by its state and no
	 * longer by its memory. */
	if (c->changed_timer == 0)
		c->changed_timer = env_timer_start(c->config.env, 0, changed_later, c);
}

static int change_begin(struct consensus *c, struct dr_error *err)
{
	if (c->changing)
		return dr_error_set(err, DR_EAGAIN, "another member change is under way");
	c->change.data = c;
	c->changing = true;
	return 0;
}

static int change_end(struct consensus *c, int rv, struct dr_error *err, const char *what)
{
	if (rv == 0)
		return 0;
	c->changing = false;
	return raft_error(c, rv, err, what);
}

int consensus_add(struct consensus *c, uint64_t id, const char *node, struct dr_error *err)
{
	char address[NODE_MAX + 24];
	int ret = change_begin(c, err);

	if (ret < 0)
		return ret;
	snprintf(address, sizeof(address), "%s@%llu", node, (unsigned long long)id);
	return change_end(c, raft_add(&c->raft, &c->change, id, address, change_done), err, "add member");
}

int consensus_promote(struct consensus *c, uint64_t id, enum consensus_member_role role, struct dr_error *err)
{
	int raft_role = role == MEMBER_VOTER	 ? RAFT_VOTER
			: role == MEMBER_LEARNER ? RAFT_STANDBY
						 : RAFT_SPARE;
	int ret = change_begin(c, err);

	if (ret < 0)
		return ret;
	return change_end(c, raft_assign(&c->raft, &c->change, id, raft_role, change_done), err,
			  "promote member");
}

int consensus_remove(struct consensus *c, uint64_t id, struct dr_error *err)
{
	int ret = change_begin(c, err);

	if (ret < 0)
		return ret;
	return change_end(c, raft_remove(&c->raft, &c->change, id, change_done), err, "remove member");
}

void consensus_mute(struct consensus *c, bool mute)
{
	rio_mute(&c->io, mute);
}

void consensus_mark(const struct consensus *c, uint64_t *index, uint64_t *term)
{
	/* A leader may apply what the others have stored before its own disk has it. */
	*index = c->raft.last_applied < c->raft.last_stored ? c->raft.last_applied : c->raft.last_stored;
	*term = rio_term(&c->io);
}

/* A term is stored before it is told, but for that of a pre-vote, which is only thought of. Entries that are
 * acknowledged but not committed may be taken back. */
bool consensus_shown(const struct consensus *c, uint64_t from, const Drover__RaftRpc *rpc,
		     struct logdb_seen *shown)
{
	*shown = (struct logdb_seen){.member = from, .term = rpc->term};
	if (rpc->type == RAFT_IO_REQUEST_VOTE)
		return !rpc->pre_vote;
	if (rpc->type == RAFT_IO_APPEND_ENTRIES)
		return true;
	/* An answer to an earlier leader may be about entries that were taken back since. */
	if (rpc->type != RAFT_IO_APPEND_ENTRIES_RESULT || rpc->rejected != 0 ||
	    rpc->term != c->raft.current_term || !consensus_leads(c))
		return false;
	shown->index =
		rpc->last_log_index < c->raft.commit_index ? rpc->last_log_index : c->raft.commit_index;
	return true;
}

/* libraft has no call for it; its log is part of its public struct. */
static raft_term last_entry_term(const struct raft_log *log)
{
	if (log->front == log->back)
		return log->snapshot.last_term;
	return log->entries[(log->back + log->size - 1) % log->size].term;
}

void consensus_last(struct consensus *c, uint64_t *index, uint64_t *term)
{
	*index = raft_last_index(&c->raft);
	*term = last_entry_term(&c->raft.log);
}

void consensus_seen(struct consensus *c, const struct logdb_seen *seen)
{
	if (logwriter_seen(c->writer, seen) < 0)
		log_warning("out of memory: how far member %llu is was not kept",
			    (unsigned long long)seen->member);
}

static void transfer_done(struct raft_transfer *req)
{
	struct consensus *c = req->data;

	c->transferring = false;
}

void consensus_transfer(struct consensus *c)
{
	if (c->transferring || consensus_role(c) != CONSENSUS_LEADER)
		return;
	c->transfer.data = c;
	c->transferring = raft_transfer(&c->raft, &c->transfer, 0, transfer_done) == 0;
}

/* --- what comes in ----------------------------------------------------------------- */

/* 0: the log holds no such entry, nor is it the snapshot's. */
static raft_term entry_term(const struct raft_log *log, raft_index index)
{
	raft_index first = log->offset + 1;
	size_t n = (log->back + log->size - log->front) % (log->size != 0 ? log->size : 1);

	if (index == log->snapshot.last_index)
		return log->snapshot.last_term;
	if (log->size == 0 || index < first || index >= first + n)
		return 0;
	return log->entries[(log->front + (index - first)) % log->size].term;
}

uint64_t consensus_term_of(const struct consensus *c, uint64_t index)
{
	return entry_term(&c->raft.log, index);
}

/* The index from which on the log is cut off, because what comes is of another leader; else 0. */
static raft_index conflict(const struct raft *r, const Drover__RaftRpc *rpc)
{
	if (rpc->type != RAFT_IO_APPEND_ENTRIES || rpc->term < r->current_term)
		return 0;
	for (size_t i = 0; i < rpc->n_entries; i++) {
		raft_index index = rpc->prev_log_index + 1 + i;
		raft_term term = entry_term(&r->log, index);

		if (term == 0)
			return 0;
		if (term != rpc->entries[i]->term)
			return index;
	}
	return 0;
}

/*
 * libraft 0.15 crashes when a new leader takes back a member change and the entry of the member list before
 * it has given way to a snapshot (canonical/raft #250, #323): it looks for that list in the log only. And it
 * does not take back at all what it found in its log at start: it would go on with a list that nobody has.
 */
static bool takes_back_blindly(const struct raft *r, raft_index cut)
{
	raft_index change = r->configuration_uncommitted_index;

	if (cut == 0)
		return false;
	if (change == 0)
		return cut <= r->configuration_index; /* what is cut off was not committed */
	return cut <= change && r->configuration_index <= r->log.offset;
}

/* What is cut off on the disk is not there after a new start, and with it the change. */
static void start_without(struct consensus *c, raft_index index)
{
	if (logwriter_truncate(c->writer, index) == 0)
		logwriter_vote(c->writer, c->raft.current_term, c->raft.voted_for); /* waits for both */
	c->config.ops->fatal(c->config.data, DR_EAGAIN,
			     "a member change of an earlier leader is taken back: begins anew without it");
}

/*
 * libraft 0.15 counts who has an entry, and not whose it is: before anything of its own term is on its own
 * disk a leader would commit an entry of an earlier term with the answers of others, which the next leader
 * may still take back (Raft, figure 8; SAFETY R14). Until then it hears no answers; it asks again with its
 * next heartbeat, and one whose disk hangs steps down.
 */
static bool counts_too_early(const struct raft *r, const Drover__RaftRpc *rpc)
{
	return r->state == RAFT_LEADER && rpc->type == RAFT_IO_APPEND_ENTRIES_RESULT && rpc->rejected == 0 &&
	       entry_term(&r->log, r->last_stored) != r->current_term && !DR_MUTANT(older_term_counted);
}

void consensus_receive(struct consensus *c, uint64_t from, const Drover__RaftRpc *rpc)
{
	raft_index cut;
	int before = c->raft.state;
	raft_term term = c->raft.current_term;

	if (!c->started)
		return;
	cut = conflict(&c->raft, rpc);
	if (takes_back_blindly(&c->raft, cut)) {
		start_without(c, cut);
		return;
	}
	/*
	 * libraft 0.15 takes an entry that is cut off while it is being stored or sent, and comes once more
	 * (its leader leads again), for the old one, and frees it while it is in the log (canonical/raft
	 * #470, #483). So nothing is cut off before that is over: the leader says it again.
	 */
	if ((cut != 0 && rio_busy(&c->io)) || counts_too_early(&c->raft, rpc))
		return;
	if (rpc->type == RAFT_IO_APPEND_ENTRIES && rpc->term >= term)
		note_heard(c, rpc->leader_commit);
	rio_receive(&c->io, from, rpc);
	if (c->raft.state != before || c->raft.current_term != term)
		c->config.ops->changed(c->config.data);
}

/* This member's place among the voters without the lost one: the first campaigns at once, the next waits a
 * step. */
static unsigned campaign_place(const struct consensus *c, uint64_t lost)
{
	const struct raft_configuration *conf = &c->raft.configuration;
	unsigned place = 0;

	for (unsigned i = 0; i < conf->n; i++) {
		const struct raft_server *s = &conf->servers[i];

		if (s->role == RAFT_VOTER && s->id != lost && s->id < c->config.identity.member)
			place++;
	}
	return place;
}

void consensus_member_lost(struct consensus *c, uint64_t id)
{
	uint64_t leader = consensus_leader(c, NULL);
	raft_time now = env_now_us(c->config.env) / 1000;
	unsigned timeout, wait;

	if (consensus_role(c) != CONSENSUS_FOLLOWER || leader == 0 || leader != id)
		return;
	/* libraft has no call for "campaign now"; its election timer is part of its public struct. */
	timeout = c->raft.follower_state.randomized_election_timeout;
	wait = campaign_place(c, id) * CAMPAIGN_STEP_MS;
	if (wait < timeout && now > timeout)
		c->raft.election_timer_start = now - timeout + wait;
	log_notice("leader %llu has left corosync's membership: campaign in %u ms", (unsigned long long)id,
		   wait);
}
