/*
 * Proof that a disk is the same storage on both hosts (SAFETY R26): the source
 * writes 32 random bytes beside the file, the destination must find them beside
 * its own; block devices are compared by their world-wide id.
 */
#ifndef DROVER_AGENT_NONCE_H
#define DROVER_AGENT_NONCE_H

#include "common/env.h"
#include "common/error.h"
#include "proto/drover.pb-c.h"

#define NONCE_SIZE 32

/* Source: writes them. *proofs (n of them) is the caller's: nonce_proofs_free. -DR_EREFUSED, -DR_EIO. */
int nonces_write(const Drover__MoveOrder *order, struct env *env, Drover__DiskProof ***proofs, size_t *n,
		 struct dr_error *err);
void nonce_proofs_free(Drover__DiskProof **proofs, size_t n);

/* Destination: compares order->proofs. -DR_EREFUSED names the disk. */
int nonces_check(const Drover__MoveOrder *order, struct dr_error *err);

/* Source: removes the files; those that are not there are fine. 0 or -DR_EIO: some are left. */
int nonces_remove(const Drover__MoveOrder *order);

#endif
