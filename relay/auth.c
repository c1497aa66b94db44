#include "relay/auth.h"

#include <endian.h>
#include <openssl/crypto.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <string.h>

struct hello {
	char magic[8];
	uint8_t role;
	uint8_t zero[3];
	uint32_t attempt;
	uint64_t move;
	uint8_t nonce[32];
	uint8_t reserved[8];
};
_Static_assert(sizeof(struct hello) == AUTH_HELLO, "the hello has no padding");

static const char magic[8] = {'D', 'R', 'H', 'E', 'L', 'L', 'O', '1'};

int auth_init(struct auth *auth, const uint8_t key[TLS_KEY_SIZE], bool destination, uint64_t move,
	      uint32_t attempt)
{
	struct hello hello = {.role = destination, .attempt = htobe32(attempt), .move = htobe64(move)};

	memset(auth, 0, sizeof(*auth));
	memcpy(hello.magic, magic, sizeof(magic));
	if (RAND_bytes(hello.nonce, sizeof(hello.nonce)) != 1)
		return -DR_EIO;
	memcpy(auth->key, key, TLS_KEY_SIZE);
	auth->destination = destination;
	memcpy(auth->mine, &hello, sizeof(hello));
	return 0;
}

void auth_fini(struct auth *auth)
{
	OPENSSL_cleanse(auth, sizeof(*auth));
}

int auth_hello(struct auth *auth, const uint8_t in[AUTH_HELLO], struct dr_error *err)
{
	struct hello mine, peer;

	memcpy(&mine, auth->mine, sizeof(mine));
	memcpy(&peer, in, sizeof(peer));
	if (memcmp(peer.magic, magic, sizeof(magic)) != 0)
		return dr_error_set(err, DR_EPROTO, "the peer is no relay, or one that encrypts");
	if (peer.role != !auth->destination || peer.move != mine.move || peer.attempt != mine.attempt)
		return dr_error_set(err, DR_EAUTH, "the peer is of move %llu attempt %u",
				    (unsigned long long)be64toh(peer.move), be32toh(peer.attempt));
	memcpy(auth->peer, in, AUTH_HELLO);
	return 0;
}

static void make_proof(const struct auth *auth, bool destination, uint8_t proof[AUTH_PROOF])
{
	uint8_t text[1 + 2 * AUTH_HELLO];
	unsigned len = AUTH_PROOF;

	text[0] = destination;
	memcpy(text + 1, auth->destination ? auth->peer : auth->mine, AUTH_HELLO);
	memcpy(text + 1 + AUTH_HELLO, auth->destination ? auth->mine : auth->peer, AUTH_HELLO);
	HMAC(EVP_sha256(), auth->key, TLS_KEY_SIZE, text, sizeof(text), proof, &len);
}

void auth_prove(const struct auth *auth, uint8_t proof[AUTH_PROOF])
{
	make_proof(auth, auth->destination, proof);
}

int auth_check(const struct auth *auth, const uint8_t proof[AUTH_PROOF], struct dr_error *err)
{
	uint8_t wanted[AUTH_PROOF];

	make_proof(auth, !auth->destination, wanted);
	if (CRYPTO_memcmp(proof, wanted, AUTH_PROOF) != 0)
		return dr_error_set(err, DR_EAUTH,
				    "authentication refused: the keys of the two sides differ");
	return 0;
}
