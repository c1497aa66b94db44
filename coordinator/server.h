/*
 * The coordinator daemon: ties consensus, state, clients, agents and the other
 * members together on one libqb loop. Internal to the coordinator: main.c starts it,
 * the files named below implement its parts.
 *
 *   server.c   life, the state machine's callbacks, answers after apply
 *   clients.c  requests of the command line, forwarding to the leader
 *   agents.c   agents' sessions: reports in, orders and lease grants out
 *   peers.c    messages between coordinators
 *   leader.c   what only the leader does: decisions, lease rounds, members, health
 *   fencing.c  the leader's fencing of hosts: announcement, fence agent, decision
 *   survivor.c one of two coordinators goes on alone
 *   join.c     init and join: how a fresh coordinator becomes a member
 */
#ifndef DROVER_COORDINATOR_SERVER_H
#define DROVER_COORDINATOR_SERVER_H

#include <qb/qbloop.h>
#include <stdbool.h>

#include "common/conf.h"
#include "common/env.h"
#include "coordinator/consensus.h"
#include "coordinator/corosync.h"
#include "coordinator/apply.h"
#include "coordinator/drain.h"
#include "coordinator/figures.h"
#include "coordinator/lease.h"
#include "coordinator/requests.h"
#include "coordinator/vouch.h"
#include "db/db.h"
#include "proto/conn.h"

#define SERVER_PEERS_MAX       16
#define SERVER_REQUEST_ID      16
#define SERVER_TOKEN_BYTES     24
#define SERVER_DIGESTS	       512	/* own recent digests, to compare with the others' */
#define SERVER_AGENT_SILENT_US 10000000 /* an agent asks for its lease every second */
#define SERVER_TICK_US	       100000	/* leader's and sessions' periodic work */
#define SERVER_PEER_LOST_US    3000000	/* no status for so long: the member counts as lost */
#define SERVER_RESEND_US       500000	/* a report that had no effect is proposed again */
#define SERVER_TIMEOUT_MS      30000	/* of a request that names none */
#define SERVER_FORWARD_US      300000	/* a forwarded request is repeated after so long */

/* A client's mutating request that waits for its command to be applied here, or for the leader's refusal. */
struct pending {
	struct pending *next;
	struct server *server;
	struct conn *conn; /* NULL: the client is gone, or the request came from another coordinator */
	uint64_t from;	   /* member that forwarded it; 0: own client */
	Drover__Request *request;
	char who[128];
	char token[2 * SERVER_TOKEN_BYTES +
		   1]; /* cluster token: goes out with the answer, never into the log */
	uint64_t deadline_us;
	uint64_t again_us; /* when it is handed to the leader again */
	bool proposed;	   /* by this member, as leader of proposed_term */
	bool handed_on; /* proposed or forwarded at least once: it may be committed whatever happens here */
	uint64_t proposed_term;
};

struct client {
	struct client *next;
	struct server *server;
	struct conn *conn;
	struct agent *agent; /* the connection is an agent's session */
	bool greeted;
	bool may_write;
	char who[128];
};

struct sent_command {
	uint64_t hash;
	uint64_t until_us;
};

struct agent {
	struct agent *next;
	struct server *server;
	struct conn *conn;
	char *node;
	uint8_t boot_id[16];
	uint8_t start_id[16];
	Drover__AgentReport *report; /* the newest */
	bool dirty;		     /* orders must be sent */
	uint8_t saw_boot[16];	     /* the row's boot id when Welcome was sent */
	bool saw;		     /* there was one */
	bool answered;		     /* it spoke after Welcome: it lived then (apply_node_session) */
	bool claimed;		     /* the rows named this session once; if they no longer do, it is over */
	uint64_t heard_us;
	uint64_t next_check_us;
	struct sent_command sent[64]; /* proposals that are under way */
};

struct peer {
	uint64_t member;
	char node[64];
	uint32_t nodeid;
	uint64_t heard_us;
	uint64_t index;
	uint64_t last_index, last_term; /* of its log */
	uint64_t digest_index;
	uint8_t digest[32];
	bool diverged;
	bool leaving;	      /* its last word was a good-bye: its host is well */
	unsigned version_max; /* newest cluster version that it knows; 0: not heard yet */
	char error[160];
};

struct own_digest {
	uint64_t index;
	uint8_t digest[32];
};

/* The other one of two coordinators is silent (survivor.h). */
struct survivor {
	uint64_t silent_since_us; /* 0: it is not */
	uint64_t due_us;
	uint64_t member;
	char node[64];
	bool fencing;
	bool explained;
};

struct server {
	qb_loop_t *loop;
	struct env *env;
	struct dr_conf conf;
	uint8_t key[TLS_KEY_SIZE];
	struct tls_psk *tls;
	struct listener *unix_listener;
	struct listener *tcp_listener;

	struct logdb *log; /* until consensus takes it */
	struct logdb_identity identity;
	struct vouch vouch;
	uint64_t next_vouch_us;
	uint64_t told_mark; /* the others know that this member was so far */
	uint64_t next_join_us;
	uint64_t next_begin_us;
	uint64_t not_named_us; /* since when the leader does not name this member; 0: it does */
	uint64_t superseded;   /* the incarnation in which the cluster went on without this member; 0: none */
	char error[160];       /* why it stops, for the others */
	struct corosync *corosync; /* NULL: standalone */
	struct transport alone, ring;
	struct transport *transport;
	struct consensus *consensus; /* NULL: not a member yet */
	struct db *db;
	struct figures *figures;
	struct volatile_view view; /* over figures and lease */

	struct client *clients;
	struct agent *agents;
	struct pending *pending;
	struct peer peers[SERVER_PEERS_MAX];
	struct own_digest digests[SERVER_DIGESTS];
	struct join *join;     /* a join that is under way */
	struct backup *backup; /* that is being read or written piece by piece */
	struct fence_runner *fences;
	struct fencing *fencing; /* hosts that this leader is fencing (fencing.h) */
	struct survivor survivor;
	uint64_t led_last; /* the member that led while both were there */

	/* Leader */
	struct lease_book *lease;	   /* NULL: not leading */
	struct drain_scheduler *scheduler; /* NULL: not leading */
	uint64_t leading_term;		   /* 0: not leading */
	bool barrier_pending;
	uint64_t next_second_us; /* when the once-a-second work is due */
	uint64_t leading_since_us;
	uint64_t trimmed_index;
	uint64_t version_waits; /* member that a newer cluster version waits for, to say it once */

	uint64_t tick_timer;
	uint64_t work_timer; /* zero delay: work after a batch of applies */
	bool stopping;
	bool leaving; /* ends cleanly */
	bool restart; /* what went wrong may be over soon: start anew */
	int exit_code;
};

/* server.c */
struct server *server_new(const struct dr_conf *conf, qb_loop_t *loop, struct env *env, struct dr_error *err);
void server_free(struct server *s);
/* Clean end: hands leadership over, tells the agents to go elsewhere, ends the loop. */
void server_stop(struct server *s);
/* The member can't go on: says why, also to the other members, and ends the loop with exit status 1.
 * s->restart says whether a new start may help: disk full, read-only, out of memory, ... */
void server_fatal(struct server *s, enum dr_err code, const char *why);
/* Whether the state could not be read: then this member stops. Nothing is decided, proposed or answered by
 * what a failed query has not found (SAFETY R19). */
bool server_state_failed(struct server *s);
/* The cluster went on without this member: from now on it neither votes nor leads nor talks to agents. */
void server_superseded(struct server *s, uint64_t incarnation);
/* Ends the loop, soon; main.c begins anew from what is on the disk. */
void server_begin_anew(struct server *s);
/* The cluster has removed this member: it forgets its log (put aside) and waits for init or join again. */
void server_removed(struct server *s);
/* Its log can't be trusted: the next start, at once, puts it aside and comes back as a new member (R15). */
void server_distrust(struct server *s, const char *why);
/* Stores s->identity in the log and beside it. */
int server_identity_set(struct server *s, struct dr_error *err);
/* Opens the state and takes part in consensus as s->identity; bootstrap: as the first member. */
int server_start_consensus(struct server *s, bool bootstrap, struct dr_error *err);
/* Runs decisions, reports and orders soon, once, from the loop. */
void server_schedule_work(struct server *s);
/* Knows the newest state: leads, or has heard the leader lately. */
bool server_in_touch(const struct server *s);
uint64_t server_random_id(struct server *s);

/* clients.c */
void *clients_accept(struct listener *listener, struct conn *conn, void *data);
void clients_on_message(struct conn *conn, const Drover__Msg *msg, void *data);
void clients_on_close(struct conn *conn, const struct dr_error *why, void *data);
/* Hands a mutating request to whoever leads; takes a copy. conn or from says whom to answer. */
void clients_submit(struct server *s, const Drover__Request *request, const char *who, struct conn *conn,
		    uint64_t from);
/* The command of a request was applied. */
void clients_applied(struct server *s, uint64_t index, const Drover__Command *cmd,
		     const struct apply_result *result);
/* The leader's answer to a forwarded request. */
void clients_answered(struct server *s, const Drover__Response *response);
/* Deadlines and repetitions. */
void clients_tick(struct server *s);
void clients_forget(struct server *s, struct conn *conn);
void clients_free(struct server *s);

/* agents.c */
/* Turns an accepted connection into an agent's session. */
void agents_hello(struct server *s, struct client *client, const Drover__Hello *hello);
void agents_on_message(struct agent *a, const Drover__Msg *msg);
/* Whether that start of the node's agent has its session here. */
bool agents_connected(struct server *s, const char *node, const uint8_t start_id[16]);
/* The connection ended: says so to the cluster and frees. */
void agents_lost(struct agent *a, const char *why);
void agents_free(struct agent *a);
/* Ends all sessions: the agents go elsewhere. */
void agents_dismiss(struct server *s);
void agents_applied(struct server *s, const struct apply_result *result);
void agents_granted(struct server *s, uint64_t term, const Drover__CmdLeaseRound *round);
/* Orders that are due, reports that had no effect. */
void agents_work(struct server *s);

/* peers.c */
void peers_receive(void *data, uint32_t nodeid, const uint8_t *bytes, size_t size);
void peers_member(void *data, uint32_t nodeid, bool joined);
void peers_quorum(void *data, bool quorate);
void peers_status(struct server *s);
/* Says so to the others when more is stored here than they know of. */
void peers_mark(struct server *s);
void peers_send(struct server *s, Drover__PeerMsg *msg);
/* So many have spoken for this member's log that it may vote, or not yet. */
void peers_vouched(struct server *s);
/* Proposes here, or sends the command to the leader to propose. Lost when there is none. */
void peers_propose(struct server *s, const Drover__Command *cmd);
struct peer *peers_find(struct server *s, uint64_t member);
bool peers_lost(struct server *s, uint64_t member);
/* A silent member whose host is well all the same: it ended cleanly, or another one of its node is heard. */
bool peers_host_well(struct server *s, const struct consensus_member *silent);

/* leader.c */
void leader_changed(struct server *s);
void leader_tick(struct server *s);
void leader_decide(struct server *s);
/* An agent asks for a lease; ignored where this member does not lead. */
void leader_lease_request(struct server *s, const char *node, const uint8_t start_id[16], uint64_t seq);
/* Stamps and proposes; cmd is not kept. done as in consensus_propose. */
int leader_propose(struct server *s, const Drover__Command *cmd, void (*done)(void *data, int status),
		   void *data);
/* A command that a session holder derived from an agent's report. */
void leader_propose_fact(struct server *s, const Drover__Command *cmd);
/*
 * A client's mutating request. 0: its command is proposed, the answer comes with its apply; 1: *answer (the
 * caller's) is the whole answer; 2: work has begun, ask again soon; -DR_EAGAIN: ask again soon;
 * -DR_ENOQUORUM: this member does not lead any more.
 */
int leader_request(struct server *s, const Drover__Request *request, const char *who,
		   Drover__Response *answer);

/* backup.c */
/* Fills answer->backup with the piece at this offset; at 0 the backup is made anew. */
int backup_piece(struct server *s, uint64_t offset, Drover__Response *answer, struct dr_error *err);
/* A fresh coordinator takes the next piece; with the last one it becomes the restored cluster's only member.
 */
int backup_restore_piece(struct server *s, const Drover__ClusterInit *init, struct dr_error *err);
void backup_free(struct server *s);

/* force.c */
/* 0: may be done (dry_run), or is written down: the daemon has to begin anew. */
int force_quorum(struct server *s, const Drover__ForceQuorum *force, bool dry_run, struct dr_error *err);

/* join.c */
void join_init(struct server *s, const Drover__Request *request, struct conn *conn);
void join_begin(struct server *s, const Drover__Request *request, struct conn *conn);
void join_conn_closed(struct server *s, struct conn *conn);
void join_free(struct server *s);
/* Whether this member is in the member list that it knows. */
bool join_is_in(struct server *s);
/* A member whose log was lost asks to be let in again. */
void join_again(struct server *s);
void join_again_in(struct server *s, uint64_t from, uint32_t nodeid, const Drover__PeerJoin *join);
/* Leader: another coordinator asks to become a member. Fills the empty *answer, or -DR_EAGAIN: ask again
 * later. */
int join_requested(struct server *s, const Drover__JoinRequest *join, Drover__Response *answer);

/* upgrade.c */
/* Leader, once a second: raises the cluster version when every member knows the next one (SAFETY R20). */
void upgrade_tick(struct server *s);
/* The state came from a snapshot: false (and the member stops) when it is of a newer version than this
 * program. */
bool upgrade_check(struct server *s);

#endif
