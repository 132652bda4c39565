/*
 * The golden datagrams (../../vectors): the client makes exactly these bytes of what it sends, understands what a server
 * sends, and ignores, without any change, what it must. Includes the source, to set a client up in the middle of a session.
 */
#include "../duragram.c"

#include "../duragram_monocypher.h"
#include "check.h"

struct vector {
    const char *name;
    const uint8_t *bytes;
    size_t len;
    int type; /* 0: it decodes to nothing. */
    uint64_t client;
    uint32_t epoch;
    uint64_t number;
    uint16_t small;
    uint32_t word;
    unsigned flags;
    uint16_t channel;
    int other; /* What this client never makes: fragments, flags without meaning. */
    uint16_t options, room;
    const uint8_t *payload;
    size_t payload_len;
    const uint8_t *key; /* NULL: plain. */
    uint32_t keys_epoch;
    uint64_t counter;
};

struct aead {
    const uint8_t *key, *nonce, *clear, *text, *sealed, *tag;
    size_t key_len, nonce_len, clear_len, text_len, sealed_len, tag_len;
};

struct session_keys {
    const uint8_t *key;
    uint64_t client;
    uint32_t epoch;
    const uint8_t *to_server, *to_client;
};

#include "vectors.inc"

enum { CELLS = 66000, MESSAGES_MAX = 1100 };

#if DG_ANSWERS
static dg_ask asks[2];
static struct {
    unsigned count, answer;
    uint32_t len;
    bool has_body;
    uint8_t body[DG_ANSWER_MAX];
} heard;

static void on_heard(void *user, const dg_ask *ask, dg_answer answer, const uint8_t *body, uint32_t len) {
    (void)user;
    CHECK(ask == &asks[0]);
    heard.count++;
    heard.answer = answer;
    heard.len = len;
    heard.has_body = body != NULL;
    if (body) {
        memcpy(heard.body, body, len);
    }
}
#endif

static dg_cell cells[CELLS];
static uint8_t sent[2048];
static size_t sent_len;
static struct {
    bool acked[MESSAGES_MAX];
    unsigned durability, failed, code, waited, epochs;
    uint32_t epoch, wait_ms;
} told;
static unsigned encoded, decoded, ignored, not_made;

static void capture(void *user, const uint8_t *datagram, size_t len) {
    (void)user;
    sent_len = len;
    memcpy(sent, datagram, len < sizeof sent ? len : 0);
}

static void on_event(void *user, dg_event event, uint32_t message, uint32_t detail) {
    (void)user;
    switch (event) {
    case DG_ACKED:
        told.acked[message] = true;
        told.durability = detail;
        break;
    case DG_FAILED:
        told.failed++;
        told.code = detail;
        break;
    case DG_EPOCH:
        told.epochs++;
        told.epoch = detail;
        break;
    case DG_WAIT:
        told.waited++;
        told.wait_ms = detail;
        break;
    case DG_ABANDONED:
    case DG_EPOCH_USED:
        break;
    }
}

/* A client in the middle of a session, 0 for none, with messages in flight from `base` on. */
static dg_client client_of(const struct vector *v, uint64_t id, uint32_t epoch, uint64_t base, unsigned in_flight) {
    dg_client c;
    dg_config config = {.client_id = id, .epoch = epoch, .random_seed = 7, .payload_max = 1441, .send = capture,
                        .event = on_event};
#if DG_ANSWERS
    memset(asks, 0, sizeof asks);
    memset(&heard, 0, sizeof heard);
    config.asks = asks;
    config.asks_max = 2;
    config.answer = on_heard;
#endif
    if (v->key) {
        config.crypto = &dg_monocypher;
        config.key = v->key;
        config.boot_count = 1;
    }
    CHECK(dg_init(&c, &config, cells, CELLS) == DG_OK);
    c.base = base;
    c.doubt = PROVEN;
    c.window = UINT16_MAX;
    c.counter = v->counter;
    for (unsigned i = 0; i < in_flight; i++) {
        CHECK(dg_send(&c, 0, "", 0, 0) == DG_OK);
        dg_message *m = after(&c, c.head, i);
        m->state = IN_FLIGHT;
        m->sent_ms = m->order = 0;
    }
    memset(&told, 0, sizeof told);
    return c;
}

static bool sent_is(const struct vector *v) {
    return sent_len == v->len && memcmp(sent, v->bytes, v->len) == 0;
}

/* What this client makes: of options ASK alone, if it is compiled so, and not with a batch. */
static bool is_made(const struct vector *v) {
#if DG_ANSWERS
    if (v->options == 2 && !(v->flags & DG_BATCH)) {
        return !v->other;
    }
    return !v->other && v->options == 0;
#else
    return !v->other && v->options == 0 && v->type != TYPE_TAKE;
#endif
}

static unsigned send_flags(const struct vector *v) {
#if DG_ANSWERS
    return (v->flags & DG_BATCH) | v->options;
#else
    return v->flags & DG_BATCH;
#endif
}

#if DG_ANSWERS
static void encodes_take(const struct vector *v) {
    dg_client c = client_of(v, v->client, v->epoch, 1, 0);
    asks[0] = (dg_ask){.seq = v->number, .epoch = v->epoch, .room = v->room, .state = PAUSING};
    if (v->small) {
        asks[1] = (dg_ask){.seq = v->number - v->small, .epoch = v->epoch, .state = NAMED};
    }
    c.wait_ms = v->word;
    sent_len = 0;
    dg_poll(&c, 0);
    CHECK_OF(v->name, sent_is(v));
    /* In a later epoch, for what waits in this one. */
    dg_client later = client_of(v, v->client, v->epoch + 1, 1, 0);
    asks[0] = (dg_ask){.seq = v->number, .epoch = v->epoch, .room = v->room, .state = PAUSING};
    if (v->small) {
        asks[1] = (dg_ask){.seq = v->number - v->small, .epoch = v->epoch, .state = NAMED};
    }
    later.wait_ms = v->word;
    sent_len = 0;
    dg_poll(&later, 0);
    CHECK_OF(v->name, sent_is(v));
    encoded++;
}

/* In its epoch, and in a later one. */
static void understands_answer(const struct vector *v, uint32_t epoch) {
    dg_client c = client_of(v, v->client, epoch, 1, 0);
    bool done = v->small <= DG_ANSWER_FAILED, whole = v->payload_len == v->word;
    asks[0] = (dg_ask){.seq = v->number, .epoch = v->epoch, .state = TAKING};
    c.wait_ms = 1;
    CHECK_OF(v->name, dg_input(&c, v->bytes, v->len, 50000) == DG_OK);
    if (v->small == DG_ANSWER_GONE || (done && (whole || v->word > DG_ANSWER_MAX))) {
        CHECK_OF(v->name, heard.count == 1 && heard.answer == v->small && heard.len == v->word);
        CHECK_OF(v->name, heard.has_body == (v->payload_len != 0));
        CHECK_OF(v->name, !heard.has_body || memcmp(heard.body, v->payload, v->payload_len) == 0);
        CHECK_OF(v->name, dg_input(&c, v->bytes, v->len, 50000) == DG_IGNORED && heard.count == 1);
    } else if (done) {
        CHECK_OF(v->name, heard.count == 0 && asks[0].room == v->word && asks[0].ms == 0);
    } else {
        uint32_t least = v->word < c.rto ? c.rto : v->word < DG_RTO_MAX_MS ? v->word : DG_RTO_MAX_MS;
        CHECK_OF(v->name, heard.count == 0 && asks[0].state == PAUSING && asks[0].ms >= least && asks[0].ms <= least + least / 4);
    }
    CHECK_OF(v->name, told.failed == 0 && c.silent == false);
}
#endif

static void encodes(const struct vector *v) {
    uint64_t base = v->number - v->small;
    unsigned attempt = v->flags & 7;
    dg_client c;
    sent_len = 0;
    if (v->type == TYPE_DATA && v->small < 60000) {
        c = client_of(v, v->client, v->epoch, base, v->small);
        dg_message *m = after(&c, c.head, c.used);
        CHECK_OF(v->name, dg_send(&c, v->channel, v->payload, v->payload_len, send_flags(v)) == DG_OK);
        if (attempt) {
            m->state = LOST;
            m->attempt = (uint8_t)(attempt - 1);
        }
        c.above_floor = v->flags >> 7;
        dg_poll(&c, 0);
    } else if (v->type == TYPE_DATA) {
        /* More in flight than the ring has cells: only the bytes are checked. */
        c = client_of(v, v->client, v->epoch, base, 0);
        CHECK_OF(v->name, dg_send(&c, v->channel, v->payload, v->payload_len, send_flags(v)) == DG_OK);
        dispatch(&c, TYPE_DATA | (FLAG_WHOLE | v->flags) << 8 | (uint32_t)v->small << 16, v->number, c.head);
    } else if (v->type == TYPE_HELLO) {
        c = client_of(v, v->client, 0, 1, 0);
        c.asking = true;
        c.hello_due = true;
        c.nonce = v->number;
        dg_poll(&c, 0);
    } else {
        c = client_of(v, v->client, v->epoch, 1, 0);
        c.ping_due = true;
        dg_poll(&c, 0);
    }
    CHECK_OF(v->name, sent_is(v));
    encoded++;
}

static void understands_ack(const struct vector *v) {
    uint32_t bits = 8 * (uint32_t)v->payload_len, below = v->number != 0;
    /* One message up to the floor, if any, and one for each bit up to the highest that is set. */
    while (bits && !(v->payload[(bits - 1) / 8] >> (bits - 1) % 8 & 1)) {
        bits--;
    }
    dg_client c = client_of(v, v->client, v->epoch, below ? v->number : 1, below + bits);
    CHECK_OF(v->name, dg_input(&c, v->bytes, v->len, 50000) == DG_OK);
    for (uint32_t i = 0; i < below + bits; i++) {
        bool expected = i < below || (v->payload[(i - below) / 8] >> (i - below) % 8 & 1);
        CHECK_OF(v->name, told.acked[i] == expected);
    }
    CHECK_OF(v->name, c.credit == v->small);
    if (below + bits) {
        uint32_t delay = v->word / 1000 < 50000 ? v->word / 1000 : 50000;
        CHECK_OF(v->name, told.durability == v->flags);
        /* The answer to what the server had before says nothing of the path. */
        bool duplicate = v->bytes[1] & 16;
        CHECK_OF(v->name, duplicate ? c.delay16 == 0
                                    : c.delay16 / 16 <= delay && delay - c.delay16 / 16 <= 1 + delay / 1000);
        /* One seq above what was sent, and nothing of it is believed. */
        c = client_of(v, v->client, v->epoch, below ? v->number : 1, below + bits - 1);
        dg_poll(&c, 0); /* It sends nothing, and counts anew what is in flight. */
        dg_client same = c;
        CHECK_OF(v->name, dg_input(&c, v->bytes, v->len, 50000) == DG_NEVER_SENT);
        CHECK_OF(v->name, memcmp(&c, &same, sizeof c) == 0);
    }
}

static void understands_reject(const struct vector *v) {
    bool of_hello = v->epoch == 0, of_ping = !of_hello && v->number == 0;
    dg_client c = client_of(v, v->client, of_hello ? 0 : v->epoch, v->number ? v->number : 1, 2);
    c.asking = of_hello;
    c.nonce = of_hello ? v->number : 0;
    c.pinged = of_ping;
    CHECK_OF(v->name, dg_input(&c, v->bytes, v->len, 50000) == DG_OK);
    switch (v->small) {
    case 1:
    case 2:
    case 3:
    case 8:
    case 9:
        /* The answer to a HELLO or PING names no message, and is one to all. */
        CHECK_OF(v->name, told.failed == (of_hello || of_ping ? 2 : 1) && told.code == v->small);
        break;
    case STALE_EPOCH:
        CHECK_OF(v->name, told.epochs == 1 && told.epoch == v->epoch + 1 && c.base == 1);
        break;
    case BEYOND_WINDOW:
        CHECK_OF(v->name, c.credit == 0);
        break;
    default: {
        uint32_t asked = v->word < DG_RTO_MAX_MS ? v->word : DG_RTO_MAX_MS;
        CHECK_OF(v->name, told.waited == 1);
        CHECK_OF(v->name, told.wait_ms >= asked && (asked == 0 || told.wait_ms <= asked + asked / 2));
    }
    }
    /* Of what is not in flight it is ignored. */
    c = client_of(v, v->client, of_hello ? 0 : v->epoch, v->number + 1, 2);
    c.asking = of_hello;
    c.nonce = v->number + 1;
    CHECK_OF(v->name, dg_input(&c, v->bytes, v->len, 50000) == DG_IGNORED);
}

static void understands_welcome(const struct vector *v) {
    dg_client c = client_of(v, v->client, 0, 1, 0);
    c.asking = true;
    c.nonce = v->number;
    CHECK_OF(v->name, dg_input(&c, v->bytes, v->len, 50000) == DG_OK);
    CHECK_OF(v->name, c.epoch == v->epoch && told.epoch == v->epoch && c.credit == v->small && !c.asking);
    /* Again, it was not asked for. */
    CHECK_OF(v->name, dg_input(&c, v->bytes, v->len, 50000) == DG_IGNORED);
}

/* By a client for which everything but the fault is right. */
static void ignores(const struct vector *v) {
    uint8_t head[28] = {0};
    memcpy(head, v->bytes, v->len < sizeof head ? v->len : sizeof head);
    uint64_t number = load64(head + 16);
    uint32_t epoch = v->key ? v->keys_epoch : load32(head + 4);
    bool welcome = (head[0] & 15) == TYPE_WELCOME;
    dg_client c = client_of(v, load64(head + 8), welcome ? 0 : epoch, number ? number : 1, 3);
    c.asking = welcome;
    c.nonce = number;
    c.pinged = true;
#if DG_ANSWERS
    asks[0] = (dg_ask){.seq = number ? number : 1, .epoch = epoch ? epoch : 1, .state = TAKING, .room = DG_ANSWER_MAX};
    dg_ask same_ask = asks[0];
#endif
    dg_client same = c;
    CHECK_OF(v->name, dg_input(&c, v->bytes, v->len, 50000) == DG_IGNORED);
    CHECK_OF(v->name, memcmp(&c, &same, sizeof c) == 0);
#if DG_ANSWERS
    CHECK_OF(v->name, heard.count == 0 && memcmp(&asks[0], &same_ask, sizeof same_ask) == 0);
#endif
    ignored++;
}

static void runs(const struct vector *v) {
    switch (v->type) {
    case TYPE_DATA:
    case TYPE_HELLO:
    case TYPE_PING:
    case TYPE_TAKE:
        if (!is_made(v)) {
            not_made++;
#if DG_ANSWERS
        } else if (v->type == TYPE_TAKE) {
            encodes_take(v);
#endif
        } else {
            encodes(v);
        }
        ignores(v); /* What clients send is not for clients. */
        return;
    case TYPE_ACK:
        understands_ack(v);
        break;
    case TYPE_REJECT:
        understands_reject(v);
        break;
    case TYPE_WELCOME:
        understands_welcome(v);
        break;
#if DG_ANSWERS
    case TYPE_ANSWER:
        understands_answer(v, v->epoch);
        understands_answer(v, v->epoch + 1);
        break;
#endif
    default:
        ignores(v);
        return;
    }
    decoded++;
}

static void primitives_are_the_published_ones(void) {
    for (size_t i = 0; i < sizeof aead_vectors / sizeof *aead_vectors; i++) {
        const struct aead *v = &aead_vectors[i];
        uint8_t text[512], tag[16];
        memcpy(text, v->text, v->text_len);
        dg_monocypher.lock(text, v->text_len, tag, v->key, v->nonce, v->clear, v->clear_len);
        CHECK(v->sealed_len == v->text_len && memcmp(text, v->sealed, v->text_len) == 0);
        CHECK(v->tag_len == 16 && memcmp(tag, v->tag, 16) == 0);
    }
    for (size_t i = 0; i < sizeof session_keys_vectors / sizeof *session_keys_vectors; i++) {
        const struct session_keys *v = &session_keys_vectors[i];
        uint8_t keys[64];
        dg_client c = {.config = {.client_id = v->client, .crypto = &dg_monocypher, .key = v->key}};
        derive(&c, v->epoch, keys);
        CHECK(memcmp(keys, v->to_server, 32) == 0 && memcmp(keys + 32, v->to_client, 32) == 0);
    }
}

int main(void) {
    for (size_t i = 0; i < sizeof plain_vectors / sizeof *plain_vectors; i++) {
        runs(&plain_vectors[i]);
    }
    for (size_t i = 0; i < sizeof sealed_vectors / sizeof *sealed_vectors; i++) {
        runs(&sealed_vectors[i]);
    }
    primitives_are_the_published_ones();
    printf("%u golden datagrams made byte for byte, %u understood, %u ignored (%u are what this client never sends)\n",
           encoded, decoded, ignored, not_made);
    return verdict("vectors");
}
