#include "coordinator/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/mutant.h"
#include "coordinator/fence.h"
#include "coordinator/fencing.h"
#include "coordinator/lookup.h"
#include "coordinator/recover.h"
#include "coordinator/survivor.h"

#define GROUP_NAME	    "drover.coordinator"
#define HEARTBEAT_MS	    150
#define ELECTION_MIN_MS	    1500
#define IN_TOUCH_HEARTBEATS 8 /* of silence from the leader; above it reads are stale and orders wait */
#define SOCKET_MODE	    0660
#define ANEW_US		    100000
#define STOP_US		    2000000 /* for the log writer and the hand-over, at a clean end */

/* --- the state machine's callbacks ------------------------------------------------- */

static void remember_digest(struct server *s, uint64_t index)
{
	struct own_digest *d = &s->digests[index % SERVER_DIGESTS];

	d->index = index;
	db_digest(s->db, d->digest);
}

/* The book keeps count; the grants go out at the coordinators that hold the sessions (agents_granted). */
static void granted(void *data, const char *node, const uint8_t start_id[16], const Drover__LeaseGrant *grant)
{
	(void)data;
	(void)node;
	(void)start_id;
	(void)grant;
}

static void after_apply(struct server *s, uint64_t index, const Drover__Command *cmd,
			const struct apply_result *result)
{
	remember_digest(s, index);
	if (s->scheduler != NULL)
		drain_applied(s->scheduler, cmd, result);
	if (cmd->body_case == DROVER__COMMAND__BODY_LEASE_ROUND) {
		if (s->lease != NULL)
			lease_committed(s->lease, s->db, cmd->term, cmd->lease_round, granted, s);
		agents_granted(s, cmd->term, cmd->lease_round);
	}
	if (cmd->body_case == DROVER__COMMAND__BODY_NODE_FENCED && s->lease != NULL)
		lease_block(s->lease, cmd->node_fenced->node, false);
	fencing_applied(s, index, cmd, result);
	agents_applied(s, result);
	if (cmd->request_id.len != 0)
		clients_applied(s, index, cmd, result);
	server_schedule_work(s);
}

static int on_apply(void *data, uint64_t index, const uint8_t *bytes, size_t size)
{
	struct server *s = data;
	struct dr_error err = DR_ERROR_INIT;
	struct apply_result result;
	Drover__Command *cmd = drover__command__unpack(NULL, size, bytes);
	int ret;

	if (cmd == NULL) {
		log_error("index %llu: the log holds no command there", (unsigned long long)index);
		return -DR_EPROTO;
	}
	if (DR_MUTANT(apply_reads_clock))
		cmd->utc_us = env_utc_us(s->env);
	ret = apply_command(s->db, index, cmd, &result, &err);
	if (DR_MUTANT(apply_error_ignored) && ret < 0)
		ret = 0;
	if (ret < 0) {
		struct dr_error why = DR_ERROR_INIT;

		dr_error_set(&why, err.code, "index %llu: %s: %s", (unsigned long long)index,
			     apply_command_name(cmd), err.text);
		server_fatal(s, why.code, why.text);
	} else {
		after_apply(s, index, cmd, &result);
	}
	drover__command__free_unpacked(cmd, NULL);
	return ret;
}

static int on_snapshot(void *data, uint8_t **bytes, size_t *size)
{
	struct server *s = data;
	struct dr_error err = DR_ERROR_INIT;
	int ret = db_serialize(s->db, bytes, size, &err);

	if (ret < 0)
		log_error("snapshot: %s", err.text);
	return ret;
}

static int on_restore(void *data, const uint8_t *bytes, size_t size)
{
	struct server *s = data;
	struct dr_error err = DR_ERROR_INIT;
	int ret = db_restore(s->db, bytes, size, &err);

	if (ret < 0) {
		log_error("snapshot: %s", err.text);
		return ret;
	}
	if (!upgrade_check(s))
		return -DR_EREFUSED;
	log_notice("state restored from a snapshot of %zu bytes", size);
	for (struct agent *a = s->agents; a != NULL; a = a->next)
		a->dirty = true;
	return 0;
}

static void on_changed(void *data)
{
	leader_changed(data);
}

static void on_fatal(void *data, enum dr_err code, const char *why)
{
	server_fatal(data, code, why);
}

static const struct consensus_ops consensus_ops = {
	.apply = on_apply,
	.snapshot = on_snapshot,
	.restore = on_restore,
	.changed = on_changed,
	.fatal = on_fatal,
};

/* --- what readers and the scheduler know beside the rows --------------------------- */

static const Drover__MoveFact *view_move_fact(void *data, uint64_t move, uint32_t attempt,
					      Drover__MoveRole role)
{
	const struct server *s = data;

	return figures_move(s->figures, move, attempt, role);
}

static uint64_t view_lease_ms(void *data, const char *node)
{
	const struct server *s = data;

	return s->lease != NULL ? lease_left_ms(s->lease, node) : 0;
}

/* --- work and ticks ---------------------------------------------------------------- */

static void work(void *data)
{
	struct server *s = data;

	s->work_timer = 0;
	if (s->consensus == NULL || s->stopping)
		return;
	s->view.stale = !server_in_touch(s);
	leader_decide(s);
	agents_work(s);
}

void server_schedule_work(struct server *s)
{
	if (s->work_timer == 0 && !s->stopping)
		s->work_timer = env_timer_start(s->env, 0, work, s);
}

static void tick(void *data)
{
	struct server *s = data;

	s->tick_timer = env_timer_start(s->env, SERVER_TICK_US, tick, s);
	if (s->consensus == NULL)
		return;
	s->view.stale = !server_in_touch(s);
	if (s->vouch.mute) {
		peers_vouched(s);
		peers_status(s);
	}
	leader_tick(s);
	peers_mark(s);
	join_again(s);
	survivor_tick(s);
	clients_tick(s);
	agents_work(s);
}

bool server_in_touch(const struct server *s)
{
	uint64_t heard;

	if (s->consensus == NULL || s->superseded != 0 || !s->transport->quorate(s->transport))
		return false;
	if (consensus_role(s->consensus) == CONSENSUS_LEADER)
		return consensus_leads(s->consensus);
	heard = consensus_heard_us(s->consensus);
	return heard != 0 && env_now_us(s->env) < heard + IN_TOUCH_HEARTBEATS * HEARTBEAT_MS * 1000ull;
}

uint64_t server_random_id(struct server *s)
{
	uint64_t id;

	do {
		env_random(s->env, &id, sizeof(id));
		id >>= 1; /* SQLite's integers are signed */
	} while (id == 0);
	return id;
}

/* --- consensus --------------------------------------------------------------------- */

static void alone_send(struct transport *t, const uint8_t *bytes, size_t size)
{
	(void)t;
	(void)bytes;
	(void)size;
}

static bool alone_quorate(struct transport *t)
{
	(void)t;
	return true;
}

static void ring_send(struct transport *t, const uint8_t *bytes, size_t size)
{
	struct server *s = t->impl;
	struct transport *ring = corosync_transport(s->corosync);

	ring->send(ring, bytes, size);
}

/* The only voter is its own majority, whatever corosync's votes say: after force-quorum, or with one member
 * left. Safety never depends on corosync (DESIGN §3). */
static bool only_voter(struct server *s)
{
	struct consensus_member members[SERVER_PEERS_MAX];
	unsigned n = s->consensus != NULL ? consensus_members(s->consensus, members, SERVER_PEERS_MAX) : 0;
	unsigned voters = 0;
	bool self = false;

	for (unsigned i = 0; i < n; i++) {
		voters += members[i].role == MEMBER_VOTER;
		self = self || (members[i].role == MEMBER_VOTER && members[i].id == s->identity.member);
	}
	return self && voters == 1;
}

static bool ring_quorate(struct transport *t)
{
	struct server *s = t->impl;

	return corosync_quorate(s->corosync) || only_voter(s);
}

static const struct corosync_ops corosync_ops = {
	.receive = peers_receive, .member = peers_member, .quorum = peers_quorum};

static int start_transport(struct server *s, struct dr_error *err)
{
	if (s->identity.standalone) {
		s->alone = (struct transport){.impl = s, .send = alone_send, .quorate = alone_quorate};
		s->transport = &s->alone;
		return 0;
	}
	s->corosync = corosync_new(s->loop, s->env, GROUP_NAME, &corosync_ops, s, err);
	if (s->corosync == NULL)
		return -DR_ENOMEM;
	s->ring = (struct transport){.impl = s, .send = ring_send, .quorate = ring_quorate};
	s->transport = &s->ring;
	return 0;
}

/* While corosync forms a new membership (2.2 x token and more) it carries no messages: a shorter election
 * timeout would depose healthy leaders. Followers of a leader that has left do not wait for it (consensus.h).
 */
static unsigned election_timeout_ms(const struct server *s)
{
	unsigned ms;

	if (s->identity.standalone)
		return ELECTION_MIN_MS;
	ms = 3 * corosync_token_ms();
	return ms > ELECTION_MIN_MS ? ms : ELECTION_MIN_MS;
}

static int open_state(struct server *s, struct dr_error *err)
{
	static const char *const suffixes[] = {"", "-wal", "-shm"};
	char path[sizeof(s->conf.data_dir) + 32];
	int ret;

	/* The log is the truth: the state is rebuilt from snapshot and log at each start. */
	for (size_t i = 0; i < DR_ARRAY_SIZE(suffixes); i++) {
		snprintf(path, sizeof(path), "%s/state.db%s", s->conf.data_dir, suffixes[i]);
		if (unlink(path) != 0 && errno != ENOENT)
			return dr_error_errno(err, DR_EIO, errno, "%s", path);
	}
	snprintf(path, sizeof(path), "%s/state.db", s->conf.data_dir);
	ret = db_open(path, &s->db, err);
	if (ret == 0)
		remember_digest(s, 0);
	return ret;
}

int server_start_consensus(struct server *s, bool bootstrap, struct dr_error *err)
{
	struct consensus_config config = {
		.loop = s->loop,
		.env = s->env,
		.log = s->log,
		.identity = s->identity,
		.node = s->conf.name,
		.heartbeat_ms = HEARTBEAT_MS,
		.ops = &consensus_ops,
		.data = s,
	};
	uint64_t superseded;
	int ret = open_state(s, err);

	if (ret == 0)
		ret = start_transport(s, err);
	if (ret < 0)
		return ret;
	config.transport = s->transport;
	config.election_timeout_ms = election_timeout_ms(s);
	ret = vouch_init(&s->vouch, s->log, s->identity.member, err);
	if (ret < 0)
		return ret;
	s->log = NULL;
	s->consensus = consensus_new(&config, err);
	if (s->consensus == NULL)
		return -(int)err->code;
	consensus_mute(s->consensus, true);
	consensus_hold(s->consensus, true);
	if (bootstrap && (ret = consensus_bootstrap(s->consensus, err)) < 0)
		return ret;
	ret = consensus_start(s->consensus, err);
	if (ret == 0)
		log_notice("member %llu of the cluster, %s", (unsigned long long)s->identity.member,
			   s->identity.standalone ? "standalone" : "on corosync");
	superseded = recover_superseded_read(s->conf.data_dir);
	if (superseded > s->identity.incarnation)
		server_superseded(s, superseded);
	peers_vouched(s);
	leader_changed(s);
	return ret;
}

/* --- the log at start -------------------------------------------------------------- */

/* A fresh log beside the word of who this was: it comes back as another member. Also where an earlier start
 * ended between putting the old log aside and becoming the new one. */
static int come_back(struct server *s, struct dr_error *err)
{
	struct logdb_identity old;
	int ret = recover_identity_read(s->conf.data_dir, &old, err);

	/* Of an incarnation that the cluster has left behind: whoever moved its log away wants to join anew.
	 */
	if (ret <= 0 || old.standalone || recover_superseded_read(s->conf.data_dir) > old.incarnation)
		return ret < 0 ? ret : 0;
	s->identity = old;
	s->identity.replaces = old.member;
	s->identity.member = server_random_id(s);
	return server_identity_set(s, err);
}

/* SAFETY R15: a damaged log never votes. Its member forgets it and asks to be let in under a new id. */
static int start_over(struct server *s, struct dr_error *err)
{
	struct dr_error why = *err;
	struct logdb_identity old;
	int ret;

	*err = (struct dr_error)DR_ERROR_INIT;
	ret = recover_identity_read(s->conf.data_dir, &old, err);
	if (ret < 0)
		return ret;
	if (ret == 0 || old.standalone)
		return dr_error_set(err, DR_ECORRUPT,
				    "%s. No other member has a copy: move %s/log.* away and restore a backup "
				    "(drover cluster restore FILE)",
				    why.text, s->conf.data_dir);
	log_error("%s. This log is put aside (%s/log.db.aside); the coordinator comes back as a new member",
		  why.text, s->conf.data_dir);
	/* Should this end half-way: what is left of the log may look whole without its WAL. */
	ret = recover_distrust(s->conf.data_dir, why.text, err);
	if (ret == 0)
		ret = recover_set_aside(s->conf.data_dir, err);
	if (ret < 0)
		return ret;
	s->log = logdb_open(s->conf.data_dir, err);
	return s->log != NULL ? come_back(s, err) : -(int)err->code;
}

int server_identity_set(struct server *s, struct dr_error *err)
{
	int ret = logdb_identity_set(s->log, &s->identity, err);

	return ret < 0 ? ret : recover_identity_write(s->conf.data_dir, &s->identity, err);
}

/* Everything in it that has a checksum is looked at here. */
static int read_log(struct server *s, struct dr_error *err)
{
	struct logdb_snapshot snapshot;
	struct logdb_identity kept;
	uint64_t term, vote;
	int ret, named = 0;

	s->log = logdb_open(s->conf.data_dir, err);
	if (s->log == NULL)
		return -(int)err->code;
	ret = logdb_identity_get(s->log, &s->identity, err);
	if (ret == 0 && s->identity.member != 0)
		named = recover_identity_read(s->conf.data_dir, &kept, err);
	if (named == -DR_ECORRUPT) { /* the log has a checksum of its own */
		*err = (struct dr_error)DR_ERROR_INIT;
		ret = recover_identity_write(s->conf.data_dir, &s->identity, err);
	} else if (named < 0) {
		ret = named;
	}
	if (ret == 0 && named == 1 &&
	    (kept.member != s->identity.member || kept.standalone != s->identity.standalone ||
	     memcmp(kept.cluster_uuid, s->identity.cluster_uuid, LOGDB_UUID) != 0))
		ret = dr_error_set(err, DR_ECORRUPT, "log.db: it names another member than %s/member",
				   s->conf.data_dir);
	if (ret == 0)
		ret = logdb_vote_get(s->log, &term, &vote, err);
	if (ret == 0)
		ret = logdb_snapshot_get(s->log, &snapshot, err);
	if (ret == 1) {
		free((void *)(uintptr_t)snapshot.conf);
		free((void *)(uintptr_t)snapshot.data);
	}
	if (ret >= 0 && logdb_first(s->log) > (ret == 1 ? snapshot.index : 0) + 1)
		ret = dr_error_set(err, DR_ECORRUPT, "log.db: entries are missing behind its snapshot");
	return ret < 0 ? ret : 0;
}

static int open_log(struct server *s, struct dr_error *err)
{
	int ret;

	if (recover_room(s->conf.data_dir, err) < 0 || recover_forget_run(s->conf.data_dir, err) < 0)
		return -(int)err->code;
	ret = read_log(s, err);
	if (ret == -DR_ECORRUPT) {
		logdb_close(s->log);
		s->log = NULL;
		return start_over(s, err);
	}
	if (ret == 0 && s->identity.member == 0)
		return come_back(s, err);
	if (ret == 0)
		ret = recover_force_run(s->conf.data_dir, s->log, &s->identity, s->conf.name, err);
	return ret < 0 ? ret : survivor_start(s, err);
}

/* --- life -------------------------------------------------------------------------- */

static const struct conn_ops client_ops = {.on_message = clients_on_message, .on_close = clients_on_close};

static int open_listeners(struct server *s, struct dr_error *err)
{
	char path[sizeof(s->conf.run_dir) + 32];
	struct dr_error key_error = DR_ERROR_INIT;

	if (tls_key_read(s->conf.key_file, s->key, &key_error) == 0) {
		s->tls = tls_psk_new(s->key, CONF_TLS_IDENTITY, err);
		if (s->tls == NULL)
			return -(int)err->code;
		s->tcp_listener =
			listener_tcp(s->loop, s->conf.listen, s->tls, &client_ops, clients_accept, s, err);
		if (s->tcp_listener == NULL)
			return -(int)err->code;
	} else {
		log_warning("no remote access, agents and joins can't connect: %s (drover cluster keygen "
			    "makes one)",
			    key_error.text);
	}
	snprintf(path, sizeof(path), "%s/coordinator.sock", s->conf.run_dir);
	s->unix_listener =
		listener_unix(s->loop, path, SOCKET_MODE, (gid_t)-1, &client_ops, clients_accept, s, err);
	return s->unix_listener != NULL ? 0 : -(int)err->code;
}

struct server *server_new(const struct dr_conf *conf, qb_loop_t *loop, struct env *env, struct dr_error *err)
{
	struct server *s = calloc(1, sizeof(*s));

	if (s == NULL) {
		dr_error_set(err, DR_ENOMEM, "out of memory");
		return NULL;
	}
	s->conf = *conf;
	s->loop = loop;
	s->env = env;
	s->view = (struct volatile_view){.data = s, .move_fact = view_move_fact, .lease_ms = view_lease_ms};
	s->figures = figures_new();
	s->fences = fence_runner_new(loop, env, conf->fence_dir, FENCE_DEADLINE_MS);
	if (s->figures == NULL || s->fences == NULL || open_log(s, err) < 0 ||
	    (s->identity.member != 0 && server_start_consensus(s, false, err) < 0) ||
	    open_listeners(s, err) < 0) {
		server_free(s);
		return NULL;
	}
	if (s->identity.member == 0)
		log_notice("in no cluster yet: waits for drover cluster init or join");
	s->tick_timer = env_timer_start(env, SERVER_TICK_US, tick, s);
	return s;
}

/* Whether the cause may go away by itself, or a new start deals with it. */
static bool may_pass(enum dr_err code)
{
	return code == DR_EAGAIN || code == DR_ENOSPC || code == DR_EIO || code == DR_ESYNC ||
	       code == DR_ENOMEM || code == DR_ECORRUPT;
}

void server_fatal(struct server *s, enum dr_err code, const char *why)
{
	if (s->stopping)
		return;
	log_error("this member stops: %s", why);
	snprintf(s->error, sizeof(s->error), "stopped: %s", why);
	peers_status(s);
	s->exit_code = 1;
	s->restart = may_pass(code);
	s->stopping = true;
	qb_loop_stop(s->loop);
}

bool server_state_failed(struct server *s)
{
	struct dr_error err = DR_ERROR_INIT;

	if (db_failed(s->db, &err) == 0)
		return false;
	server_fatal(s, err.code, err.text);
	return true;
}

static void begin_anew(void *data)
{
	struct server *s = data;

	s->restart = true;
	s->stopping = true;
	qb_loop_stop(s->loop);
}

void server_superseded(struct server *s, uint64_t incarnation)
{
	s->superseded = incarnation;
	snprintf(s->error, sizeof(s->error),
		 "the cluster went on without this member (incarnation %llu, this is %llu): remove its log "
		 "and "
		 "join again",
		 (unsigned long long)recover_incarnation_count(incarnation),
		 (unsigned long long)recover_incarnation_count(s->identity.incarnation));
	log_error("%s", s->error);
	if (s->consensus == NULL)
		return;
	consensus_mute(s->consensus, true);
	leader_changed(s);
	agents_dismiss(s);
}

void server_begin_anew(struct server *s)
{
	/* The answer to whoever asked for it goes out first. */
	env_timer_start(s->env, ANEW_US, begin_anew, s);
}

void server_removed(struct server *s)
{
	struct dr_error err = DR_ERROR_INIT;

	if (recover_forget_write(s->conf.data_dir, &err) < 0)
		log_error("%s", err.text);
	else
		log_notice(
			"its log is put aside (%s/log.db.aside); drover cluster join makes it a member again",
			s->conf.data_dir);
	server_fatal(s, DR_EREFUSED, "this coordinator was removed from the cluster");
	s->restart = true;
}

void server_distrust(struct server *s, const char *why)
{
	struct dr_error err = DR_ERROR_INIT;

	if (recover_distrust(s->conf.data_dir, why, &err) < 0)
		log_error("%s", err.text);
	server_fatal(s, DR_ECORRUPT, why);
}

static void end_loop(void *data)
{
	struct server *s = data;

	qb_loop_stop(s->loop);
}

static void consensus_stopped(void *data)
{
	struct server *s = data;

	s->consensus = NULL;
	qb_loop_stop(s->loop);
}

static void stop_consensus(void *data)
{
	struct server *s = data;

	consensus_stop(s->consensus, consensus_stopped, s);
}

void server_stop(struct server *s)
{
	bool led;

	if (s->stopping)
		return;
	log_notice("ends");
	if (s->consensus == NULL) {
		s->stopping = true;
		qb_loop_stop(s->loop);
		return;
	}
	s->leaving = true;
	peers_status(s);
	led = consensus_role(s->consensus) == CONSENSUS_LEADER && !s->identity.standalone;
	if (led)
		consensus_transfer(s->consensus);
	s->stopping = true;
	env_timer_start(s->env, led ? 300000 : 0, stop_consensus, s);
	env_timer_start(s->env, STOP_US, end_loop, s);
}

void server_free(struct server *s)
{
	if (s == NULL)
		return;
	s->stopping = true;
	env_timer_stop(s->env, &s->tick_timer);
	env_timer_stop(s->env, &s->work_timer);
	listener_free(s->unix_listener);
	listener_free(s->tcp_listener);
	join_free(s);
	fencing_end(s);
	fence_runner_free(s->fences);
	clients_free(s);
	lease_book_free(s->lease);
	drain_scheduler_free(s->scheduler);
	corosync_free(s->corosync);
	logdb_close(s->log);
	db_close(s->db);
	backup_free(s);
	figures_free(s->figures);
	tls_psk_free(s->tls);
	OPENSSL_cleanse(s->key, sizeof(s->key));
	free(s);
}
