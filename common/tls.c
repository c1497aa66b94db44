#include "common/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>

#include "common/cleanup.h"

/* AES-128: 25 % less work per byte than AES-256 and as far out of reach. */
#define CIPHERSUITE "TLS_AES_128_GCM_SHA256"
static const unsigned char ciphersuite_id[] = {0x13, 0x01};
/* The key is no session that grows old: OpenSSL would refuse it 5 minutes after it was set up. */
#define KEY_LIFE_S INT32_MAX

struct tls_psk {
	SSL_CTX *ctx;
	SSL_SESSION *session; /* holds the key */
	char identity[TLS_IDENTITY_MAX + 1];
};

static int use_session(SSL *ssl, const EVP_MD *md, const unsigned char **id, size_t *idlen,
		       SSL_SESSION **session)
{
	struct tls_psk *psk = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));

	(void)md; /* there is one ciphersuite, so one digest */
	if (psk == NULL || SSL_SESSION_up_ref(psk->session) != 1)
		return 0;
	*id = (const unsigned char *)psk->identity;
	*idlen = strlen(psk->identity);
	*session = psk->session;
	return 1;
}

static int find_session(SSL *ssl, const unsigned char *identity, size_t len, SSL_SESSION **session)
{
	struct tls_psk *psk = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));

	*session = NULL;
	if (psk == NULL)
		return 0;
	/* Unknown: the handshake goes on without a key and dies, there being no certificate. */
	if (len != strlen(psk->identity) || CRYPTO_memcmp(identity, psk->identity, len) != 0)
		return 1;
	if (SSL_SESSION_up_ref(psk->session) != 1)
		return 0;
	*session = psk->session;
	return 1;
}

static SSL_SESSION *make_session(SSL_CTX *ctx, const uint8_t key[TLS_KEY_SIZE])
{
	SSL_SESSION *session = SSL_SESSION_new();
	SSL *ssl = SSL_new(ctx);
	const SSL_CIPHER *cipher = ssl != NULL ? SSL_CIPHER_find(ssl, ciphersuite_id) : NULL;

	if (session == NULL || cipher == NULL ||
	    SSL_SESSION_set1_master_key(session, key, TLS_KEY_SIZE) != 1 ||
	    SSL_SESSION_set_cipher(session, cipher) != 1 ||
	    SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) != 1 ||
	    SSL_SESSION_set_timeout(session, KEY_LIFE_S) != 1) {
		SSL_SESSION_free(session);
		session = NULL;
	}
	SSL_free(ssl);
	return session;
}

struct tls_psk *tls_psk_new(const uint8_t key[TLS_KEY_SIZE], const char *identity, struct dr_error *err)
{
	struct tls_psk *psk;

	if (strlen(identity) > TLS_IDENTITY_MAX || identity[0] == '\0') {
		dr_error_set(err, DR_EBUG, "TLS identity of %zu characters", strlen(identity));
		return NULL;
	}
	signal(SIGPIPE, SIG_IGN);
	psk = calloc(1, sizeof(*psk));
	if (psk == NULL)
		goto err_memory;
	memcpy(psk->identity, identity, strlen(identity) + 1);
	psk->ctx = SSL_CTX_new(TLS_method());
	if (psk->ctx == NULL || SSL_CTX_set_min_proto_version(psk->ctx, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_ciphersuites(psk->ctx, CIPHERSUITE) != 1 ||
	    SSL_CTX_set1_groups_list(psk->ctx, "X25519:P-256") != 1 ||
	    SSL_CTX_set_num_tickets(psk->ctx, 0) != 1)
		goto err_memory;
	SSL_CTX_set_options(psk->ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_ENABLE_KTLS);
	SSL_CTX_set_mode(psk->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
					   SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_session_cache_mode(psk->ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_max_early_data(psk->ctx, 0);
	SSL_CTX_set_app_data(psk->ctx, psk);
	SSL_CTX_set_psk_use_session_callback(psk->ctx, use_session);
	SSL_CTX_set_psk_find_session_callback(psk->ctx, find_session);
	psk->session = make_session(psk->ctx, key);
	if (psk->session == NULL)
		goto err_memory;
	return psk;
err_memory:
	dr_error_set(err, DR_ENOMEM, "cannot set up TLS");
	ERR_clear_error();
	tls_psk_free(psk);
	return NULL;
}

void tls_psk_free(struct tls_psk *psk)
{
	if (psk == NULL)
		return;
	/* Connections may outlive the key: their handshakes fail from now on. */
	if (psk->ctx != NULL)
		SSL_CTX_set_app_data(psk->ctx, NULL);
	SSL_SESSION_free(psk->session);
	SSL_CTX_free(psk->ctx);
	free(psk);
}

SSL *tls_psk_ssl(struct tls_psk *psk, int fd, bool server, struct dr_error *err)
{
	SSL *ssl = SSL_new(psk->ctx);

	if (ssl == NULL || SSL_set_fd(ssl, fd) != 1) {
		dr_error_set(err, DR_ENOMEM, "cannot set up TLS");
		ERR_clear_error();
		SSL_free(ssl);
		return NULL;
	}
	if (server) {
		SSL_set_accept_state(ssl);
	} else {
		SSL_set_connect_state(ssl);
		/* A server that offers a certificate instead of the key is refused: none is trusted here. */
		SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL);
	}
	return ssl;
}

int tls_handshake(SSL *ssl, struct dr_error *err)
{
	int r;

	ERR_clear_error();
	r = SSL_do_handshake(ssl);
	if (r != 1)
		return tls_error(ssl, r, err);
	if (!SSL_session_reused(ssl)) /* OpenSSL's word for: the pre-shared key was used */
		return dr_error_set(err, DR_EAUTH, "the peer does not have the key");
	return 0;
}

static enum dr_err reason_code(unsigned long e)
{
	if (ERR_GET_LIB(e) != ERR_LIB_SSL)
		return DR_EIO;
	switch (ERR_GET_REASON(e)) {
	case SSL_R_BINDER_DOES_NOT_VERIFY:
	case SSL_R_BAD_PSK:
	case SSL_R_BAD_PSK_IDENTITY:
	case SSL_R_CERTIFICATE_VERIFY_FAILED:
	case SSL_R_DIGEST_CHECK_FAILED:
	case SSL_R_NO_SHARED_CIPHER:
	case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
	case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
	case SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE:
	case SSL_R_SSLV3_ALERT_ILLEGAL_PARAMETER:
	case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
	case SSL_R_TLSV1_ALERT_DECRYPT_ERROR:
	case SSL_R_TLSV1_ALERT_UNKNOWN_PSK_IDENTITY:
		return DR_EAUTH;
	default:
		return DR_EPROTO;
	}
}

int tls_error(SSL *ssl, int ret, struct dr_error *err)
{
	int saved = errno;
	int kind = SSL_get_error(ssl, ret);
	unsigned long e = ERR_peek_error();
	const char *reason = ERR_reason_error_string(e);
	enum dr_err code;

	if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) {
		ERR_clear_error();
		return -DR_EAGAIN;
	}
	ERR_clear_error();
	if (kind == SSL_ERROR_ZERO_RETURN ||
	    (e != 0 && ERR_GET_REASON(e) == SSL_R_UNEXPECTED_EOF_WHILE_READING))
		return dr_error_set(err, DR_ECLOSED, "the peer closed the connection");
	if (kind == SSL_ERROR_SYSCALL && e == 0) {
		if (saved == 0 || saved == EPIPE || saved == ECONNRESET)
			return dr_error_set(err, DR_ECLOSED, "the peer closed the connection");
		return dr_error_errno(err, DR_EIO, saved, "connection lost");
	}
	code = reason_code(e);
	if (code == DR_EAUTH)
		return dr_error_set(err, DR_EAUTH,
				    "authentication refused: the keys of the two sides differ (%s)",
				    reason != NULL ? reason : "TLS");
	return dr_error_set(err, code, "TLS: %s", reason != NULL ? reason : "unknown error");
}

int tls_key_read(const char *path, uint8_t key[TLS_KEY_SIZE], struct dr_error *err)
{
	DR_AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t buf[TLS_KEY_SIZE + 1];
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return dr_error_errno(err, errno == ENOENT ? DR_ENOENT : DR_EIO, errno,
				      "cannot read the key %s", path);
	if (fstat(fd, &st) != 0)
		return dr_error_errno(err, DR_EIO, errno, "cannot look at the key %s", path);
	if (!S_ISREG(st.st_mode))
		return dr_error_set(err, DR_EREFUSED, "the key %s is not a file", path);
	if ((st.st_mode & 077) != 0)
		return dr_error_set(err, DR_EREFUSED,
				    "the key %s can be read by others (mode %03o); chmod 600 it", path,
				    st.st_mode & 0777);
	n = read(fd, buf, sizeof(buf));
	if (n == TLS_KEY_SIZE)
		memcpy(key, buf, TLS_KEY_SIZE);
	OPENSSL_cleanse(buf, sizeof(buf));
	if (n < 0)
		return dr_error_errno(err, DR_EIO, errno, "cannot read the key %s", path);
	if (n != TLS_KEY_SIZE)
		return dr_error_set(err, DR_EREFUSED, "the key %s does not hold exactly %d bytes", path,
				    TLS_KEY_SIZE);
	return 0;
}
