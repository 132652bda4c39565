#include "duragram_monocypher.h"

/* Build systems that compile every file of a directory meet this one in plain mode too, where there is no Monocypher. */
#if DG_SEALED
#include "monocypher.h"

/* Monocypher's crypto_aead_lock has a longer nonce than RFC 8439; the first message of an "ietf" context is RFC 8439's. */
static void lock(uint8_t *text, size_t len, uint8_t tag[16], const uint8_t key[32], const uint8_t nonce[12],
                 const uint8_t *clear, size_t clear_len) {
    crypto_aead_ctx ctx;
    crypto_aead_init_ietf(&ctx, key, nonce);
    crypto_aead_write(&ctx, text, tag, clear, clear_len, text, len);
    crypto_wipe(&ctx, sizeof ctx);
}

static int verify(const uint8_t tag[16], const uint8_t key[32], const uint8_t nonce[12], const uint8_t *clear,
                  size_t clear_len) {
    crypto_aead_ctx ctx;
    int mismatch;
    crypto_aead_init_ietf(&ctx, key, nonce);
    mismatch = crypto_aead_read(&ctx, NULL, tag, clear, clear_len, NULL, 0);
    crypto_wipe(&ctx, sizeof ctx);
    return mismatch;
}

#if DG_ANSWERS
static int unlock(uint8_t *text, size_t len, const uint8_t tag[16], const uint8_t key[32], const uint8_t nonce[12],
                  const uint8_t *clear, size_t clear_len) {
    crypto_aead_ctx ctx;
    int mismatch;
    crypto_aead_init_ietf(&ctx, key, nonce);
    mismatch = crypto_aead_read(&ctx, text, tag, clear, clear_len, text, len);
    crypto_wipe(&ctx, sizeof ctx);
    return mismatch;
}
#endif

static void hash(uint8_t out[64], const uint8_t key[32], const uint8_t *text, size_t len) {
    crypto_blake2b_keyed(out, 64, key, 32, text, len);
}

#if DG_ANSWERS
const dg_crypto dg_monocypher = {lock, verify, hash, crypto_wipe, unlock};
#else
const dg_crypto dg_monocypher = {lock, verify, hash, crypto_wipe};
#endif
#endif
