/* A client on a bench: what it sends and tells is kept, time is what the test says, answers are made by hand. */
#ifndef BENCH_H
#define BENCH_H

#include "check.h"

enum { DATA = 1, ACK, REJECT, HELLO, WELCOME, PING, ANSWER, TAKE };
enum { SKIP = 128, BATCH_FLAG = 64, READY = 32, ID = 0xa1 };

typedef struct {
    dg_client c;
    dg_cell cells[400];
    uint32_t now;
    uint32_t wait; /* What the last poll returned. */
    /* What was sent since the last `take`. */
    struct {
        uint8_t bytes[1300];
        size_t len;
    } sent[256];
    unsigned sent_count;
    /* Events, by kind, and the last of each. */
    unsigned count[DG_EPOCH_USED + 1];
    uint32_t last_message[DG_EPOCH_USED + 1], last_detail[DG_EPOCH_USED + 1];
    uint32_t unix_now;
#if DG_ANSWERS
    dg_ask asks[DG_ASKS_MAX];
    /* Answers that were told: how many, and the last. */
    unsigned answers, answer;
    dg_ask answered;
    uint8_t body[DG_ANSWER_MAX + 1];
    bool has_body;
    uint32_t body_len;
#endif
} bench;

static void bench_send(void *user, const uint8_t *datagram, size_t len) {
    bench *b = user;
    CHECK(len <= sizeof b->sent[0].bytes && b->sent_count < 256);
    memcpy(b->sent[b->sent_count].bytes, datagram, len);
    b->sent[b->sent_count++].len = len;
}

static void bench_event(void *user, dg_event event, uint32_t message, uint32_t detail) {
    bench *b = user;
    b->count[event]++;
    b->last_message[event] = message;
    b->last_detail[event] = detail;
}

static inline uint32_t bench_unix_time(void *user) {
    return ((bench *)user)->unix_now;
}

#if DG_ANSWERS
static void bench_answer(void *user, const dg_ask *ask, dg_answer answer, const uint8_t *body, uint32_t len) {
    bench *b = user;
    b->answers++;
    b->answer = answer;
    b->answered = *ask;
    b->has_body = body != NULL;
    b->body_len = len;
    CHECK(!body || len <= DG_ANSWER_MAX);
    if (body) {
        memcpy(b->body, body, len);
    }
}
#endif

static dg_config bench_config(bench *b, uint32_t epoch) {
    return (dg_config){.client_id = ID, .epoch = epoch, .random_seed = 0x5eed, .payload_max = 200, .send = bench_send,
#if DG_ANSWERS
                       .asks = b->asks, .asks_max = 8, .answer = bench_answer,
#endif
                       .event = bench_event, .user = b};
}

static void start_with(bench *b, const dg_config *config, size_t cells) {
    memset(b, 0, sizeof *b);
    b->now = 0xffffff00u; /* Milliseconds wrap early in each test. */
    CHECK(dg_init(&b->c, config, b->cells, cells) == DG_OK);
    b->c.doubt = 0; /* That an epoch of its own is new has been seen already. */
}

/* With an epoch of its own, or with 0 one that asks. */
static inline void start(bench *b, uint32_t epoch) {
    dg_config config = bench_config(b, epoch);
    start_with(b, &config, 400);
}

static void poll(bench *b) {
    b->sent_count = 0;
    b->wait = dg_poll(&b->c, b->now);
}

/* Time passes; the client is polled when it wants to be. */
static inline void pass(bench *b, uint32_t ms) {
    b->sent_count = 0;
    while (ms >= b->wait) {
        ms -= b->wait;
        b->now += b->wait;
        b->wait = dg_poll(&b->c, b->now);
    }
    b->now += ms;
    b->wait = b->wait == UINT32_MAX ? UINT32_MAX : b->wait - ms;
}

/* Takes messages of so many bytes. */
static inline void give(bench *b, unsigned messages, size_t len) {
    uint8_t payload[200] = {0};
    while (messages--) {
        CHECK(dg_send(&b->c, 0, payload, len, 0) == DG_OK);
    }
    poll(b);
}

static inline unsigned type(const bench *b, unsigned i) {
    return i < b->sent_count ? b->sent[i].bytes[0] & 15 : 0;
}

static inline uint64_t seq(const bench *b, unsigned i) {
    return i < b->sent_count ? load64(b->sent[i].bytes + 16) : 0;
}

static inline unsigned flags(const bench *b, unsigned i) {
    return i < b->sent_count ? b->sent[i].bytes[1] : 0;
}

static inline unsigned span(const bench *b, unsigned i) {
    return i < b->sent_count ? b->sent[i].bytes[2] | (unsigned)b->sent[i].bytes[3] << 8 : 0;
}

static inline uint32_t epoch_of(const bench *b, unsigned i) {
    return i < b->sent_count ? load32(b->sent[i].bytes + 4) : 0;
}

/* A datagram comes; the client is polled after it. */
static inline dg_result comes(bench *b, const uint8_t *d, size_t len) {
    dg_result result = dg_input(&b->c, d, len, b->now);
    poll(b);
    return result;
}

static inline dg_result ack(bench *b, uint32_t epoch, uint64_t floor, unsigned credit, uint64_t bitmap,
                            uint32_t delay_us) {
    uint8_t d[64], bits[8];
    store(bits, bitmap, 8);
    return comes(b, d, plain(d, ACK, 0, credit, epoch, ID, floor, delay_us, bits, bitmap ? 8 : 0));
}

static inline dg_result reject(bench *b, uint32_t epoch, uint64_t number, unsigned code, uint32_t retry_after_ms) {
    uint8_t d[32];
    return comes(b, d, plain(d, REJECT, 0, code, epoch, ID, number, retry_after_ms, NULL, 0));
}

#if DG_ANSWERS
static inline dg_result answer_comes(bench *b, uint32_t epoch, uint64_t number, unsigned status, uint32_t word, const void *body,
                                     size_t len) {
    uint8_t d[DG_REPLY_MAX + 64];
    return comes(b, d, plain(d, ANSWER, 0, status, epoch, ID, number, word, body, len));
}

static inline uint32_t word_of(const bench *b, unsigned i) {
    return i < b->sent_count ? load32(b->sent[i].bytes + 24) : 0;
}
#endif

static inline dg_result welcome(bench *b, uint32_t epoch, uint64_t nonce, unsigned credit) {
    uint8_t d[32];
    return comes(b, d, plain(d, WELCOME, 0, credit, epoch, ID, nonce, 0, NULL, 0));
}

#endif
