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

#if DG_ANSWERS
/* Enough that no ask is ever evicted: what ends an ask is what the client says, or a session that ends. */
enum { ASKS_OF_SERVER = 2 * MESSAGES_MAX, HELD_MAX = 16, DONE = 0, FAILED = 1, OPEN = 2, GONE_AT_SERVER = 3 };

/* A message that asked. Its state is what a TAKE of it gets. */
typedef struct {
    uint32_t epoch, message;
    uint64_t seq;
    uint8_t state;
} asked;

/* A TAKE that waits for its answer. len 0: none. */
typedef struct {
    uint32_t epoch, until;
    uint64_t seq;
    size_t len;
} held_take;

/* What the service gives, by the message's number: often nothing. */
static inline size_t answer_of(uint32_t message, uint8_t *out) {
    size_t len = message % 3 ? message * 40503u % 100 : 0;
    for (size_t i = 0; i < len; i++) {
        out[i] = (uint8_t)(message * 17 + i);
    }
    return len;
}
#endif

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
#if DG_ANSWERS
    asked asks[ASKS_OF_SERVER];
    held_take held[HELD_MAX];
    unsigned ask_count, asks_max, forgotten; /* forgotten: for another reason than that the client has had them. */
#endif
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

#if DG_ANSWERS
static inline asked *ask_named(server *s, uint32_t epoch, uint64_t seq) {
    for (unsigned i = 0; i < s->ask_count; i++) {
        if (s->asks[i].epoch == epoch && s->asks[i].seq == seq) {
            return &s->asks[i];
        }
    }
    return NULL;
}

static inline unsigned open_asks(const server *s) {
    unsigned open = 0;
    for (unsigned i = 0; i < s->ask_count; i++) {
        open += s->asks[i].state != GONE_AT_SERVER;
    }
    return open;
}

/* The ANSWER to a TAKE of `len` bytes. */
static inline size_t answer_to(server *s, uint32_t epoch, uint64_t seq, unsigned status, uint32_t word, const asked *a, size_t len,
                               uint8_t *d) {
    size_t room = len - (s->key ? 52 : 32), body_len = 0;
    plain(d, 7, 0, status, epoch, s->client, seq, word, NULL, 0);
    if (a && status <= FAILED) {
        body_len = answer_of(a->message, d + 28);
        store(d + 24, body_len, 4);
        body_len = body_len <= room ? body_len : 0;
    }
#if DG_SEALED
    if (s->key) {
        uint8_t keys[64], nonce[12];
        crypto_aead_ctx ctx;
        keys_of(s, epoch, keys);
        memmove(d + 36, d + 28, body_len);
        d[1] |= 8;
        store(d + 28, ++s->counter, 8);
        store(nonce, 2, 4);
        store(nonce + 4, s->counter, 8);
        crypto_aead_init_ietf(&ctx, keys + 32, nonce);
        crypto_aead_write(&ctx, d + 36, d + 36 + body_len, d, 36, d + 36, body_len);
        return 52 + body_len;
    }
#endif
    store(d + 28 + body_len, dg_crc32(d, 28 + body_len), 4);
    return 32 + body_len;
}

/* Rule A4 and A6. */
static inline size_t on_take(server *s, const uint8_t *head, size_t len, uint32_t now, uint8_t *d) {
    uint32_t epoch = load32(head + 4), wait = load32(head + 24);
    uint64_t seq = load64(head + 16);
    unsigned span = head[2] | (unsigned)head[3] << 8;
    const session *of = epoch ? session_of(s, epoch) : NULL;
    if (epoch == 0 || seq == 0 || span >= seq || (head[1] & ~8u)) {
        s->corrupt = true;
        return 0;
    }
    for (unsigned i = 0; of && i < s->ask_count; i++) {
        if (s->asks[i].epoch == epoch && s->asks[i].seq < seq - span) {
            s->asks[i].state = GONE_AT_SERVER;
        }
    }
    const asked *a = of ? ask_named(s, epoch, seq) : NULL;
    if (a && a->state == OPEN) {
        held_take *place = NULL;
        for (unsigned i = 0; i < HELD_MAX; i++) {
            if (s->held[i].len && s->held[i].epoch == epoch && s->held[i].seq == seq) {
                place = &s->held[i]; /* Replaced, in silence. */
                place->len = 0;
            } else if (!s->held[i].len && !place) {
                place = &s->held[i];
            }
        }
        if (wait == 0 || !place) {
            return answer_to(s, epoch, seq, OPEN, 1000, NULL, len, d);
        }
        *place = (held_take){.epoch = epoch, .seq = seq, .len = len, .until = now + (wait < 20000 ? wait : 20000)};
        return 0;
    }
    return answer_to(s, epoch, seq, a ? a->state : GONE_AT_SERVER, 0, a, len, d);
}

/* The service processes a message, or the wait of a held TAKE is over: the datagram that this sends, 0 for none. */
static inline size_t server_answers(server *s, uint32_t now, bool service_works, uint8_t *d) {
    if (service_works && s->ask_count) {
        asked *a = &s->asks[draw(s->ask_count)];
        if (a->state == OPEN) {
            a->state = a->message % 5 ? DONE : FAILED;
        }
    }
    for (unsigned i = 0; i < HELD_MAX; i++) {
        held_take *held = &s->held[i];
        if (held->len) {
            const asked *a = ask_named(s, held->epoch, held->seq);
            size_t len = held->len;
            if (!a || a->state != OPEN) {
                held->len = 0;
                return a && a->state <= FAILED ? answer_to(s, held->epoch, held->seq, a->state, 0, a, len, d) : 0;
            }
            if ((int32_t)(now - held->until) >= 0) {
                held->len = 0;
                return answer_to(s, held->epoch, held->seq, OPEN, 0, NULL, len, d);
            }
        }
    }
    return 0;
}

/* Its sessions end, and with them their asks. */
static inline void server_forgets(server *s) {
    memset(s->sessions, 0, sizeof s->sessions);
    for (unsigned i = 0; i < s->ask_count; i++) {
        s->forgotten += s->asks[i].state != GONE_AT_SERVER;
        s->asks[i].state = GONE_AT_SERVER;
    }
}
#endif

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
#if DG_ANSWERS
    unsigned options = head[26] | (unsigned)head[27] << 8;
    s->corrupt |= options & ~2u;
    if (is_new && options && open_asks(s) >= s->asks_max) {
        return reply(s, d, 3, 6, epoch, seq, draw(2) ? 700 : 0);
    }
#else
    s->corrupt |= head[26] || head[27];
#endif
    if (is_new) {
        if (s->full) {
            return reply(s, d, 3, 7, epoch, seq, draw(2) ? 500 : 0);
        }
        s->journaled[message]++;
#if DG_ANSWERS
        if (options) {
            s->corrupt |= s->ask_count == ASKS_OF_SERVER;
            asked *again = ask_named(s, epoch, seq); /* In a session that was opened again it asks anew. */
            asked *a = again ? again : &s->asks[s->ask_count++ % ASKS_OF_SERVER];
            *a = (asked){.epoch = epoch, .seq = seq, .message = message, .state = OPEN};
        }
#endif
        of->above[seq - of->floor - 1] = true;
        move_floor(of, of->floor);
    }
    return ack_of(s, of, len, !is_new, d);
}

/* A datagram comes to the server; the length of its answer, 0 for none. */
static inline size_t server_handles(server *s, const uint8_t *bytes, size_t len, uint32_t now, uint8_t *d) {
    uint8_t head[28], payload[256] = {0};
    size_t payload_len = len - (s->key ? 52 : 32);
    unsigned type = bytes[0] & 15;
    (void)now;
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
#if DG_ANSWERS
    case 8:
        for (size_t i = s->key ? 36 : 28; i < len - (s->key ? 16 : 4); i++) {
            s->corrupt |= bytes[i] != 0;
        }
        return on_take(s, head, len, now, d);
#endif
    default:
        s->corrupt = true;
        return 0;
    }
}

#endif
