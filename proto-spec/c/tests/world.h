/*
 * A world in which a client is tried: random numbers from one seed, and a server that keeps the rules of PROTOCOL.md
 * (#server-rules), written anew from that text. Plain, and sealed if a key is given.
 */
#ifndef WORLD_H
#define WORLD_H

#include "check.h"

#if DG_SEALED
#include "monocypher.h"
#endif

enum { SESSIONS_MAX = 64, WINDOW_MAX = 256, MESSAGES_MAX = 2000, PACKETS_MAX = 4096, REFUSED_CHANNEL = 99 };

typedef struct {
    uint32_t epoch; /* 0: free. */
    uint64_t floor;
    bool above[WINDOW_MAX]; /* of seq floor + 1 + i */
} session;

typedef struct {
    uint64_t client;
    unsigned window;
    uint32_t unix_s, highest_epoch;
    session sessions[SESSIONS_MAX];
    struct {
        uint64_t nonce;
        uint32_t epoch;
    } welcomed;
    unsigned journaled[MESSAGES_MAX]; /* How often each message; its number stands in its first bytes. */
    unsigned lost;                    /* Seqs that a client said were acked, and that were not. */
    unsigned stale;                   /* DATA refused with REJECT 4. */
    bool full, shrunk, corrupt;
    bool old; /* It does not know the flag COMPLETE. */
    const uint8_t *key; /* NULL: plain. */
    uint64_t counter;
} server;

static uint64_t random_state;

/* SplitMix64. */
static inline uint32_t draw(uint32_t below) {
    uint64_t x = random_state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return below ? (uint32_t)((x ^ x >> 31) >> 32) % below : 0;
}

static inline bool chance(unsigned percent) {
    return draw(100) < percent;
}

/* What a message's bytes must be, by its number. */
static inline size_t payload_of(uint32_t message, uint8_t *out, size_t max) {
    size_t len = 4 + message * 2654435761u % (uint32_t)(max - 3);
    store(out, message, 4);
    for (size_t i = 4; i < len; i++) {
        out[i] = (uint8_t)(message * 31 + i);
    }
    return len;
}

#if DG_SEALED
static inline void keys_of(const server *s, uint32_t epoch, uint8_t keys[64]) {
    uint8_t text[28] = "duragram keys v1";
    store(text + 16, s->client, 8);
    store(text + 24, epoch, 4);
    crypto_blake2b_keyed(keys, 64, s->key, 32, text, sizeof text);
}
#endif

/* Finishes a reply in `d` that has its head and bitmap; returns its length. */
static inline size_t seal_reply(server *s, uint8_t *d, size_t bitmap_len) {
#if DG_SEALED
    if (s->key) {
        uint8_t keys[64], nonce[12];
        crypto_aead_ctx ctx;
        bool of_session = load32(d + 4) != 0 && (d[0] & 15) != 5;
        keys_of(s, of_session ? load32(d + 4) : 0, keys);
        memmove(d + 36, d + 28, bitmap_len);
        d[1] |= 8;
        store(d + 28, ++s->counter, 8);
        store(nonce, 2, 4);
        store(nonce + 4, s->counter, 8);
        crypto_aead_init_ietf(&ctx, keys + 32, nonce);
        crypto_aead_write(&ctx, NULL, d + 36 + bitmap_len, d, 36 + bitmap_len, NULL, 0);
        return 52 + bitmap_len;
    }
#endif
    (void)s;
    store(d + 28 + bitmap_len, dg_crc32(d, 28 + bitmap_len), 4);
    return 32 + bitmap_len;
}

static inline size_t reply(server *s, uint8_t *d, unsigned type, unsigned small, uint32_t epoch, uint64_t number,
                           uint32_t word) {
    plain(d, type, 0, small, epoch, s->client, number, word, NULL, 0);
    return seal_reply(s, d, 0);
}

static inline size_t ack_of(server *s, const session *of, size_t payload_len, bool duplicate, uint8_t *d) {
    size_t room = payload_len / 8 * 8, len = 0;
    bool complete = true;
    plain(d, 2, 0, s->shrunk ? 0 : s->window, of->epoch, s->client, of->floor, draw(3000), NULL, 0);
    memset(d + 28, 0, WINDOW_MAX / 8);
    for (size_t i = 0; i < WINDOW_MAX; i++) {
        if (of->above[i] && i < 8 * room) {
            d[28 + i / 8] |= (uint8_t)(1 << i % 8);
            len = i / 64 * 8 + 8;
        }
        complete &= !of->above[i] || i < 8 * room;
    }
    d[1] = (uint8_t)((complete && !s->old ? 64 : 0) | (duplicate ? 16 : 0));
    return seal_reply(s, d, len);
}

static inline void move_floor(session *of, uint64_t to) {
    while (of->floor < to || of->above[0]) {
        memmove(of->above, of->above + 1, WINDOW_MAX - 1);
        of->above[WINDOW_MAX - 1] = false;
        of->floor++;
    }
}

static inline session *session_of(server *s, uint32_t epoch) {
    for (unsigned i = 0; i < SESSIONS_MAX; i++) {
        if (s->sessions[i].epoch == epoch) {
            return &s->sessions[i];
        }
    }
    return NULL;
}

static inline size_t on_data(server *s, const uint8_t *head, const uint8_t *payload, size_t len, uint8_t *d) {
    uint32_t epoch = load32(head + 4), message = load32(payload);
    uint64_t seq = load64(head + 16);
    unsigned span = head[2] | (unsigned)head[3] << 8;
    uint64_t base = seq - span;
    uint8_t expected[256];
    session *of = session_of(s, epoch);
    if (epoch == 0 || seq == 0 || span >= seq || message >= MESSAGES_MAX
        || payload_of(message, expected, 100) != len || memcmp(expected, payload, len) != 0) {
        s->corrupt = true;
        return 0;
    }
    if (head[24] == REFUSED_CHANNEL) {
        return reply(s, d, 3, 8, epoch, seq, 0);
    }
    if (!of) {
        if (s->key && epoch <= s->highest_epoch) {
            s->stale++;
            return reply(s, d, 3, 4, epoch, seq, 0);
        }
        if (span >= s->window) {
            return reply(s, d, 3, 5, epoch, seq, 0);
        }
        if (s->full) {
            return reply(s, d, 3, 7, epoch, seq, 500);
        }
        of = session_of(s, 0);
        if (!of) {
            return reply(s, d, 3, 6, epoch, seq, 0);
        }
        memset(of, 0, sizeof *of);
        of->epoch = epoch;
        of->floor = base - 1;
        s->highest_epoch = s->highest_epoch > epoch ? s->highest_epoch : epoch;
    }
    if (base - 1 > of->floor) {
        if (base - 1 > of->floor + s->window) {
            s->stale++;
            return reply(s, d, 3, 4, epoch, seq, 0);
        }
        for (uint64_t i = of->floor + 1; i < base; i++) {
            s->lost += !(head[1] & 128) && !of->above[i - of->floor - 1];
        }
        move_floor(of, base - 1);
    }
    if (seq > of->floor + s->window) {
        return reply(s, d, 3, 5, epoch, seq, 0);
    }
    bool is_new = seq > of->floor && !of->above[seq - of->floor - 1];
    if (is_new) {
        if (s->full) {
            return reply(s, d, 3, 7, epoch, seq, draw(2) ? 500 : 0);
        }
        s->journaled[message]++;
        of->above[seq - of->floor - 1] = true;
        move_floor(of, of->floor);
    }
    return ack_of(s, of, len, !is_new, d);
}

/* A datagram comes to the server; the length of its answer, 0 for none. */
static inline size_t server_handles(server *s, const uint8_t *bytes, size_t len, uint8_t *d) {
    uint8_t head[28], payload[256] = {0};
    size_t payload_len = len - (s->key ? 52 : 32);
    unsigned type = bytes[0] & 15;
    memcpy(head, bytes, sizeof head);
    if (len < 32 || len > 256 || bytes[0] >> 4 != 1 || load64(bytes + 8) != s->client) {
        s->corrupt = true;
        return 0;
    }
#if DG_SEALED
    if (s->key) {
        uint8_t keys[64], nonce[12];
        size_t clear = type == 1 ? 36 : len - 16;
        crypto_aead_ctx ctx;
        keys_of(s, load32(head + 4), keys);
        store(nonce, 1, 4);
        memcpy(nonce + 4, bytes + 28, 8);
        crypto_aead_init_ietf(&ctx, keys, nonce);
        s->corrupt |= !(head[1] & 8) || (type == 4 && load64(bytes + 28) != load64(bytes + 16));
        if (crypto_aead_read(&ctx, payload, bytes + len - 16, bytes, clear, bytes + clear, len - 16 - clear) != 0) {
            s->corrupt = true;
            return 0;
        }
    } else
#endif
    {
        s->corrupt |= load32(bytes + len - 4) != dg_crc32(bytes, len - 4);
        memcpy(payload, bytes + 28, payload_len);
    }
    switch (type) {
    case 1:
        return on_data(s, head, payload, payload_len, d);
    case 4:
        if (s->full) {
            return reply(s, d, 3, 7, 0, load64(head + 16), 300);
        }
        if (s->welcomed.nonce != load64(head + 16) || s->welcomed.epoch < s->highest_epoch) {
            uint32_t highest = s->welcomed.epoch > s->highest_epoch ? s->welcomed.epoch : s->highest_epoch;
            s->welcomed.nonce = load64(head + 16);
            s->welcomed.epoch = highest + 1 > s->unix_s ? highest + 1 : s->unix_s;
        }
        return reply(s, d, 5, s->window, s->welcomed.epoch, s->welcomed.nonce, 0);
    case 6: {
        session nothing = {.epoch = load32(head + 4)};
        const session *of = session_of(s, load32(head + 4));
        return ack_of(s, of ? of : &nothing, 0, true, d);
    }
    default:
        s->corrupt = true;
        return 0;
    }
}

#endif
