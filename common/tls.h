/*
 * TLS 1.3 with an external pre-shared key and (EC)DHE: no certificates, no
 * tickets, no 0-RTT (DESIGN §8). One key and one identity per context.
 */
#ifndef DROVER_COMMON_TLS_H
#define DROVER_COMMON_TLS_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define TLS_KEY_SIZE	 32
#define TLS_IDENTITY_MAX 64

struct tls_psk;

/*
 * A context for one key. identity: printable, at most TLS_IDENTITY_MAX. The key is copied and wiped by
 * tls_psk_free. Also makes the process ignore SIGPIPE, since OpenSSL writes to sockets without MSG_NOSIGNAL.
 */
struct tls_psk *tls_psk_new(const uint8_t key[TLS_KEY_SIZE], const char *identity, struct dr_error *err);
void tls_psk_free(struct tls_psk *psk);

/* A connection object over a connected, non-blocking socket, before the handshake. The caller owns it
 * (SSL_free). */
SSL *tls_psk_ssl(struct tls_psk *psk, int fd, bool server, struct dr_error *err);

/*
 * Goes on with the handshake: 0 when it is done and the key was proved by both sides, else as tls_error. Call
 * ERR_clear_error() before any other SSL call whose failure goes to tls_error.
 */
int tls_handshake(SSL *ssl, struct dr_error *err);

/*
 * Converts the failure of an SSL call: -DR_EAGAIN (want read or write: SSL_want_write tells which),
 * -DR_ECLOSED, -DR_EAUTH (key or identity refused), -DR_EPROTO (the peer does not speak our TLS) or -DR_EIO.
 */
int tls_error(SSL *ssl, int ret, struct dr_error *err);

/* Reads a 32-byte key file; refuses files that others than the owner may read. */
int tls_key_read(const char *path, uint8_t key[TLS_KEY_SIZE], struct dr_error *err);

#endif
