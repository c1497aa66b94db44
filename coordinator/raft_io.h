/*
 * libraft's door to the world, struct raft_io, over our log writer, our transport
 * and struct env (DESIGN §3): libraft sees no clock, disk or socket but these.
 */
#ifndef DROVER_COORDINATOR_RAFT_IO_H
#define DROVER_COORDINATOR_RAFT_IO_H

#include <raft.h>

#include "common/env.h"
#include "coordinator/logwriter.h"
#include "coordinator/transport.h"
#include "proto/drover.pb-c.h"

struct rio; /* the implementation behind one struct raft_io */

struct rio_config {
	struct env *env;
	struct logdb *log;	     /* borrowed; used before start only */
	struct logwriter *writer;    /* borrowed; must outlive the raft_io */
	struct transport *transport; /* borrowed */
	uint8_t cluster_uuid[16];
	uint64_t incarnation;
};

/* Fills io. -DR_ENOMEM. Free with rio_free after raft_close's callback. */
int rio_init(struct raft_io *io, const struct rio_config *config);
void rio_free(struct raft_io *io);

/* While it is mute this member asks for no vote and gives none. */
void rio_mute(struct raft_io *io, bool mute);

/* Sends what libraft has asked for just now, without waiting for the end of this turn of the loop. */
void rio_flush(struct raft_io *io);

/* The term that is on the disk; libraft's own may be further while the disk fails. */
uint64_t rio_term(const struct raft_io *io);

/* Whether libraft waits for something that it has asked to be stored or sent: its log's entries are in use.
 */
bool rio_busy(const struct raft_io *io);

/* A Raft message from another member arrived. */
void rio_receive(struct raft_io *io, uint64_t from, const Drover__RaftRpc *rpc);

/* The address (node name) that this member puts into its messages is the one given to raft_init. */

#endif
