/*
 * The client on a processor whose int and size_t have 16 bits: an ATmega2560, which simavr simulates. Lengths that wrap there,
 * then 150 messages through losses to a small server (floor and bitmap, PROTOCOL.md#ack), each acked once; and how much stack
 * that took. With DG_SEALED there is a cipher that does nothing. Tells by the serial line; simavr ends when the processor
 * sleeps with interrupts off.
 */
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>
#include <stdbool.h>
#include <string.h>

#include "../duragram.h"

enum { MESSAGES = 150, PAYLOAD = 40, DATA = 1, ACK = 2, SEALED = 8 };
#if DG_SEALED
enum { HEAD = 36, TRAILER = 16 };
#else
enum { HEAD = 28, TRAILER = 4 };
#endif

static dg_client client;
static dg_cell cells[DG_CELLS(12, PAYLOAD)];
static uint8_t datagram[DG_LONGEST(PAYLOAD) + DG_OVERHEAD], reply[DG_REPLY_MAX];
static size_t datagram_len;
static uint16_t checks, failures, acked_count;
static uint8_t acked[MESSAGES];
/* Of the server: all seqs up to it are there, and of the next 64 those whose bit is set. */
static uint32_t server_floor;
static uint64_t above;
static uint32_t dice = 1;
static uint16_t stack_deepest;

static void print(const char *text) {
    for (; *text; text++) {
        while (!(UCSR0A & (1 << UDRE0))) {
        }
        UDR0 = (uint8_t)*text;
    }
}

static void print_number(uint16_t number) {
    char digits[6], *first = digits + 5;
    *first = '\0';
    do {
        *--first = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    print(first);
}

static void check(bool right, uint16_t line) {
    checks++;
    if (!right) {
        failures++;
        print("avr.c: not so: line ");
        print_number(line);
        print("\n");
    }
}

#define CHECK(what) check((what), __LINE__)

static bool chance(uint8_t of_256) {
    dice = dice * 1664525u + 1013904223u;
    return (uint8_t)(dice >> 24) < of_256;
}

static uint32_t load32(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void store32(uint8_t *p, uint32_t value) {
    for (uint8_t i = 0; i < 4; i++, value >>= 8) {
        p[i] = (uint8_t)value;
    }
}

#if DG_SEALED
static void lock(uint8_t *text, size_t len, uint8_t tag[16], const uint8_t key[32], const uint8_t nonce[12],
                 const uint8_t *clear, size_t clear_len) {
    (void)text, (void)len, (void)tag, (void)key, (void)nonce, (void)clear, (void)clear_len;
}
static int verify(const uint8_t tag[16], const uint8_t key[32], const uint8_t nonce[12], const uint8_t *clear,
                  size_t clear_len) {
    (void)tag, (void)key, (void)nonce, (void)clear, (void)clear_len;
    return 0;
}
static void hash(uint8_t out[64], const uint8_t key[32], const uint8_t *text, size_t len) {
    (void)out, (void)key, (void)text, (void)len;
}
static void wipe(void *secret, size_t len) {
    (void)secret, (void)len;
}
#if DG_ANSWERS
static int unlock(uint8_t *text, size_t len, const uint8_t tag[16], const uint8_t key[32], const uint8_t nonce[12],
                  const uint8_t *clear, size_t clear_len) {
    (void)text, (void)len, (void)tag, (void)key, (void)nonce, (void)clear, (void)clear_len;
    return 0;
}
static const dg_crypto no_cipher = {lock, verify, hash, wipe, unlock};
#else
static const dg_crypto no_cipher = {lock, verify, hash, wipe};
#endif
static const uint8_t key_[32];
#endif

static void keep(void *user, const uint8_t *bytes, size_t len) {
    (void)user;
    CHECK(len <= sizeof datagram);
    memcpy(datagram, bytes, len);
    datagram_len = len;
}

static void on_event(void *user, dg_event event, uint32_t message, uint32_t detail) {
    (void)user;
    (void)detail;
    CHECK(event == DG_ACKED && message < MESSAGES && !acked[message]);
    acked[message] = 1;
    acked_count++;
}

#if DG_ANSWERS
/* One message asks in four; its answer is its seq, if there is room for it. */
static dg_ask asks[4];
static uint16_t answered_count;
static uint8_t answered[MESSAGES];

static void on_answer(void *user, const dg_ask *ask, dg_answer answer, const uint8_t *body, uint32_t len) {
    (void)user;
    CHECK(ask->message < MESSAGES && !answered[ask->message] && answer == DG_ANSWER_DONE);
    CHECK(len == 4 && body && load32(body) == (uint32_t)ask->seq && ask->message + 1 == ask->seq);
    answered[ask->message] = 1;
    answered_count++;
}

/* The answer to a TAKE. */
static size_t serve_take(void) {
    uint8_t body_len = datagram_len >= HEAD + 4 + TRAILER ? 4 : 0;
    uint32_t seq = load32(datagram + 16);
    memset(reply, 0, sizeof reply);
    memcpy(reply, datagram, 24);
    reply[0] = 0x17;
    reply[2] = seq > MESSAGES ? DG_ANSWER_GONE : DG_ANSWER_DONE;
    reply[3] = 0;
    store32(reply + 24, seq > MESSAGES ? 0 : 4);
    store32(reply + HEAD, seq);
    body_len = seq > MESSAGES ? 0 : body_len;
    store32(reply + HEAD + body_len, dg_crc32(reply, HEAD + body_len));
    return HEAD + body_len + TRAILER;
}
#endif

/* What the server makes of the datagram: the length of its reply. */
static size_t serve(void) {
    uint32_t seq = load32(datagram + 16);
    uint8_t bitmap_len = 0;
#if DG_SEALED
    CHECK(datagram[1] & SEALED);
#else
    CHECK(load32(datagram + datagram_len - 4) == dg_crc32(datagram, datagram_len - 4));
#endif
#if DG_ANSWERS
    if ((datagram[0] & 15) == 8) {
        return serve_take();
    }
#endif
    CHECK((datagram[0] & 15) == DATA);
    for (size_t i = HEAD; i + TRAILER < datagram_len; i++) {
        CHECK(datagram[i] == (uint8_t)(seq * 7 + i - HEAD));
    }
    if (seq > server_floor && seq <= server_floor + 64) {
        above |= (uint64_t)1 << (seq - server_floor - 1);
    }
    while (above & 1) {
        above >>= 1;
        server_floor++;
    }
    memset(reply, 0, sizeof reply);
    memcpy(reply, datagram, 24);
    reply[0] = 0x10 | ACK;
    reply[1] = 64 | (DG_SEALED ? SEALED : 0); /* COMPLETE */
    reply[2] = 64;
    reply[3] = 0;
    store32(reply + 16, server_floor);
    if (above) {
        bitmap_len = 8;
        store32(reply + HEAD, (uint32_t)above);
        store32(reply + HEAD + 4, (uint32_t)(above >> 32));
    }
    store32(reply + HEAD + bitmap_len, dg_crc32(reply, HEAD + bitmap_len));
    return HEAD + bitmap_len + TRAILER;
}

/* Fills what lies below the stack, up to 600 bytes, and later looks how much of it was overwritten. */
static uint8_t *paint_from;
static void __attribute__((noinline)) paint(void) {
    volatile uint8_t *p = (uint8_t *)SP - 600;
    paint_from = (uint8_t *)p;
    while (p < (uint8_t *)SP - 8) {
        *p++ = 0xa5;
    }
}
static void __attribute__((noinline)) look_at_paint(void) {
    const volatile uint8_t *p = paint_from;
    uint16_t depth;
    while (*p == 0xa5) {
        p++;
    }
    depth = (uint16_t)((uint8_t *)SP - (const uint8_t *)p);
    stack_deepest = depth > stack_deepest ? depth : stack_deepest;
}

static dg_config config_of(void) {
    dg_config config = {.client_id = 7, .random_seed = 5, .epoch = 3, .payload_max = PAYLOAD, .send = keep, .event = on_event};
#if DG_ANSWERS
    config.asks = asks;
    config.asks_max = 4;
    config.answer = on_answer;
#endif
#if DG_SEALED
    config.crypto = &no_cipher;
    config.key = key_;
#endif
    return config;
}

static void lengths_that_wrap_are_refused(void) {
    static const uint8_t endless[4] = {0xfe, 0xff, 1, 2}, far[6] = {0, 0, 0xfc, 0xff, 1, 1};
    dg_config config = config_of();
    uint8_t batch[20];
    size_t len = 0;
    CHECK(sizeof(size_t) == 2 && sizeof(int) == 2);
    CHECK(dg_init(&client, &config, cells, sizeof cells / sizeof *cells) == DG_OK);
    CHECK(dg_send(&client, 0, endless, sizeof endless, DG_BATCH) == DG_BROKEN_BATCH);
    CHECK(dg_send(&client, 0, far, sizeof far, DG_BATCH) == DG_BROKEN_BATCH);
    CHECK(dg_send(&client, 0, endless, 65535, 0) == DG_TOO_LARGE && dg_send(&client, 65536, endless, 1, 0) == DG_BAD_ARGUMENT);
    CHECK(dg_batch(batch, sizeof batch, &len, batch, 65535) == DG_FULL);
    CHECK(dg_batch(batch, sizeof batch, &len, batch, 65534) == DG_FULL);
    CHECK(dg_batch(batch, 65535, &len, batch, 65534) == DG_FULL && len == 0);
    CHECK(dg_batch(batch, sizeof batch, &len, "ab", 2) == DG_OK && len == 4 && batch[0] == 2 && batch[3] == 'b');
    CHECK(dg_send(&client, 0, batch, len, DG_BATCH) == DG_OK && dg_pending(&client) == 1);
    config.payload_max = 65535;
    CHECK(dg_init(&client, &config, cells, 65535) == DG_TOO_LARGE);
    config.payload_max = 65507 - DG_OVERHEAD;
    CHECK(dg_init(&client, &config, cells, 4000) == DG_TOO_LARGE);
}

static void every_message_is_acked_once_through_losses(void) {
    dg_config config = config_of();
    uint32_t now = 0xfffff000, end = now + 600000; /* The clock wraps early. */
    uint16_t given = 0;
    CHECK(dg_init(&client, &config, cells, sizeof cells / sizeof *cells) == DG_OK);
#if DG_ANSWERS
    dg_take(&client, 5);
    while ((given < MESSAGES || dg_pending(&client) || dg_waiting(&client)) && (int32_t)(end - now) > 0 && failures < 5) {
#else
    while ((given < MESSAGES || dg_pending(&client)) && (int32_t)(end - now) > 0 && failures < 5) {
#endif
        uint8_t payload[PAYLOAD];
        uint8_t len = (uint8_t)(given % (PAYLOAD + 1));
        for (uint8_t i = 0; i < len; i++) {
            payload[i] = (uint8_t)((given + 1u) * 7 + i);
        }
        paint();
#if DG_ANSWERS
        if (given < MESSAGES && dg_send(&client, 0, payload, len, given % 4 ? 0 : DG_ASK) == DG_OK) {
#else
        if (given < MESSAGES && dg_send(&client, 0, payload, len, 0) == DG_OK) {
#endif
            given++;
        }
        datagram_len = 0;
        dg_poll(&client, now);
        look_at_paint();
        /* Of a flight the last one arrives, the others are lost; that one nearly always. */
        if (datagram_len && !chance(50)) {
            size_t reply_len = serve();
            now += 3;
            if (!chance(50)) {
                paint();
                dg_result result = dg_input(&client, reply, reply_len, now);
                look_at_paint();
                CHECK(result == DG_OK || (reply[0] & 15) == 7);
            }
        }
        now++;
    }
#if DG_ANSWERS
    CHECK(answered_count == (MESSAGES + 3) / 4);
#endif
    CHECK(acked_count == MESSAGES && server_floor == MESSAGES && dg_pending(&client) == 0);
}

int main(void) {
    UCSR0B = 1 << TXEN0;
    lengths_that_wrap_are_refused();
    every_message_is_acked_once_through_losses();
    print("avr: ");
    print_number(checks);
    print(" checks, ");
    print_number(failures);
    print(" failed, stack ");
    print_number(stack_deepest);
    print("\n");
    cli();
    sleep_enable();
    sleep_cpu();
    return 0;
}
