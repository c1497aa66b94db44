/*
 * How two relays prove the attempt's key to each other when the network is not encrypted: a challenge both
 * ways with HMAC-SHA256. It keeps strangers and wrong attempts away from QEMU; it does not protect what
 * follows from somebody who can change packets (that is what encryption is for).
 *
 *     source                                  destination
 *       hello(src, nonce) ------------------->
 *               <------------ hello(dst, nonce), proof(dst)
 *       proof(src) -------------------------->
 *
 * A proof is the HMAC over the prover's role and both hellos, so it can't be sent back to its maker.
 */
#ifndef DROVER_RELAY_AUTH_H
#define DROVER_RELAY_AUTH_H

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/tls.h"

#define AUTH_HELLO 64
#define AUTH_PROOF 32

struct auth {
	uint8_t key[TLS_KEY_SIZE];
	bool destination;
	uint8_t mine[AUTH_HELLO], peer[AUTH_HELLO];
};

/* Makes this side's hello. -DR_EIO without random numbers. */
int auth_init(struct auth *auth, const uint8_t key[TLS_KEY_SIZE], bool destination, uint64_t move,
	      uint32_t attempt);
void auth_fini(struct auth *auth);
/* The peer's hello: -DR_EPROTO for a stranger, -DR_EAUTH for another move, attempt or role. */
int auth_hello(struct auth *auth, const uint8_t hello[AUTH_HELLO], struct dr_error *err);
/* This side's proof; needs the peer's hello. */
void auth_prove(const struct auth *auth, uint8_t proof[AUTH_PROOF]);
/* 0 or -DR_EAUTH. */
int auth_check(const struct auth *auth, const uint8_t proof[AUTH_PROOF], struct dr_error *err);

#endif
