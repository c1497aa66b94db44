/* Raft's messages as drover.RaftRpc and back (DESIGN §3). */
#ifndef DROVER_COORDINATOR_RAFT_RPC_H
#define DROVER_COORDINATOR_RAFT_RPC_H

#include <raft.h>

#include "common/error.h"
#include "proto/drover.pb-c.h"

#define RAFT_RPC_ENTRIES_MAX  65536
#define RAFT_RPC_SERVERS_MAX  64
#define RAFT_RPC_SNAPSHOT_MAX (1u << 30)

/*
 * A packed PeerMsg that carries msg and names no receiver yet, malloc'ed (*size bytes); NULL without memory.
 * What is for several members is packed the same for each.
 */
uint8_t *raft_rpc_pack(const struct raft_message *msg, uint64_t from, const char *from_address,
		       const uint8_t cluster_uuid[16], uint64_t incarnation, size_t *size);

/*
 * The receivers, to be sent right behind a packed PeerMsg: protobuf merges what is concatenated. n is at
 * least
 * 1. Malloc'ed, *size bytes; NULL without memory.
 */
uint8_t *raft_rpc_pack_to(const uint64_t *members, unsigned n, bool muted, size_t *size);

/* A member list as it is kept beside a snapshot: malloc'ed, *size bytes; NULL without memory. */
uint8_t *raft_rpc_pack_conf(const struct raft_configuration *conf, size_t *size);

/*
 * Fills msg from a received RPC. What msg holds afterwards is raft_malloc'ed and goes to libraft with the
 * receive callback. msg->server_address is borrowed from rpc. -DR_EPROTO for anything that libraft must not
 * see.
 */
int raft_rpc_unpack(const Drover__RaftRpc *rpc, uint64_t from, struct raft_message *msg,
		    struct dr_error *err);

#endif
