/*
 * Feeds a client what the input says: messages, datagrams good and bad, time; and looks after each step whether what the
 * client knows is consistent. For libFuzzer (-DLIBFUZZER -fsanitize=fuzzer), and without it a program of its own:
 * `fuzz RUNS [SEED]` makes inputs at random, `fuzz FILE...` runs files.
 */
#include "../duragram.c"

#if DG_SEALED
#include "../duragram_monocypher.h"
#include "monocypher.h"
#endif
#include <stdio.h>
#include <stdlib.h>

#define HOLDS(what) ((what) ? (void)0 : broken(#what, __LINE__))

enum { PAYLOAD_MAX = 60, SENT_MAX = 70000 };

static const uint8_t *input;
static size_t left;
static dg_client c;
static uint32_t given, ended, sent;
static bool was_sent[1 << 16]; /* In this epoch, by message. */
static const uint8_t key[32] = {7};
#if DG_ANSWERS
static dg_ask asks[5];
static bool asks_for[1 << 16], told[1 << 16]; /* By message. */
#endif

static void broken(const char *what, int line) {
    fprintf(stderr, "fuzz.c:%d: does not hold: %s\n", line, what);
    abort();
}

static uint8_t byte(void) {
    return left ? (left--, *input++) : 0;
}

static uint32_t word(void) {
    uint32_t value = byte();
    value |= (uint32_t)byte() << 8;
    value |= (uint32_t)byte() << 16;
    return value | (uint32_t)byte() << 24;
}

static void on_send(void *user, const uint8_t *d, size_t len) {
    size_t head = HEAD_LEN, trailer = CRC_LEN;
    (void)user;
#if DG_SEALED
    if (c.config.crypto) {
        head += COUNTER_LEN;
        trailer = TAG_LEN;
    }
#endif
#if DG_ANSWERS
    HOLDS(++sent < SENT_MAX && len >= head + trailer && len <= DG_ANSWER_MAX + head + trailer);
    if ((d[0] & 15) == TYPE_TAKE) {
        uint64_t seq = get32(d + 16) | (uint64_t)get32(d + 20) << 32;
        HOLDS(get32(d + 4) != 0 && get16(d + 2) < seq && (d[1] & 7) == 0);
        for (const dg_ask *a = asks; a != asks + 5; a++) {
            HOLDS(a->state < NAMED || a->epoch != get32(d + 4) || a->seq >= seq - get16(d + 2));
        }
        for (size_t i = head; i < len - trailer; i++) {
            HOLDS(d[i] == 0);
        }
    }
#else
    HOLDS(++sent < SENT_MAX && len >= head + trailer && len <= PAYLOAD_MAX + head + trailer);
#endif
    HOLDS((get32(d + 8) | (uint64_t)get32(d + 12) << 32) == c.config.client_id && d[0] >> 4 == 1);
    if ((d[0] & 15) == TYPE_DATA) {
        uint64_t seq = get32(d + 16) | (uint64_t)get32(d + 20) << 32;
        HOLDS(get32(d + 4) == c.epoch && c.epoch != 0 && seq >= c.base && get16(d + 2) == seq - c.base);
        HOLDS(seq < c.base + c.credit);
        if (trailer == CRC_LEN) {
            size_t payload_len = len - head - trailer;
            uint32_t message = payload_len >= 4 ? get32(d + head) : UINT32_MAX;
            HOLDS(get32(d + len - CRC_LEN) == dg_crc32(d, len - CRC_LEN));
            for (size_t i = 4; i < payload_len; i++) {
                HOLDS(d[head + i] == (uint8_t)(message + i));
            }
        }
        cursor i;
        for (i.m = NULL; next(&c, &i) && (c.base + i.ahead != seq || i.m->state == GONE);) {
        }
        HOLDS(i.left);
        was_sent[number_of(&c, &i) & 0xffff] = true;
    }
}

#if DG_ANSWERS
static void on_answer_told(void *user, const dg_ask *a, dg_answer answer, const uint8_t *body, uint32_t len) {
    (void)user;
    HOLDS(a >= asks && a < asks + 5 && a->message < given && asks_for[a->message & 0xffff] && !told[a->message & 0xffff]);
    HOLDS(answer == DG_ANSWER_DONE || answer == DG_ANSWER_FAILED || (answer == DG_ANSWER_GONE && len == 0));
    HOLDS(!body || (len > 0 && len <= DG_REPLY_MAX));
    for (uint32_t i = 0; body && i < len; i++) {
        (void)*(const volatile uint8_t *)(body + i);
    }
    told[a->message & 0xffff] = true;
}
#endif

static void on_event(void *user, dg_event event, uint32_t message, uint32_t detail) {
    (void)user;
    (void)detail;
    if (event == DG_EPOCH) {
        memset(was_sent, 0, sizeof was_sent);
    } else if (event != DG_WAIT && event != DG_EPOCH_USED) {
        HOLDS(message < given);
        HOLDS(event != DG_ACKED || was_sent[message & 0xffff]);
        ended++;
    }
}

static void is_consistent(void) {
    unsigned pending = 0, used = 0, count = 0;
    bool unsent = false;
    cursor i;
    i.m = NULL;
    while (next(&c, &i)) {
        HOLDS(i.m->state <= GONE && (count || i.m->state < ACKED));
        HOLDS(!unsent || i.m->state == UNSENT || i.m->state == GONE);
        unsent |= i.m->state == UNSENT;
        pending += i.m->state < ACKED;
        used += cells_of(i.m->len);
        count++;
    }
#if DG_ANSWERS
    /* Each message that asks and is not decided has an ask of its own, and no other has one that is not acked. */
    unsigned owned = 0, named = 0;
    for (i.m = NULL; next(&c, &i);) {
        if (i.m->state < ACKED && (i.m->batch & ASKS)) {
            owned++;
            HOLDS(ask_of(&c, i.m) < asks + 5 && ask_of(&c, i.m)->state == NAMED && ask_of(&c, i.m)->message == number_of(&c, &i));
        }
    }
    for (const dg_ask *a = asks; a != asks + 5; a++) {
        named += a->state == NAMED;
        HOLDS(a->state <= TAKING && a->room <= DG_ANSWER_MAX && (a->state == FREE || !told[a->message & 0xffff]));
    }
    HOLDS(owned == named && c.taken == NULL);
#endif
    HOLDS(pending == c.pending && used == c.used && count == c.count && used <= c.cells_max);
    HOLDS(given - ended == pending && c.window >= 1 && c.head >= &c.cells->message && c.head < &c.scratch->message);
}

/* A datagram as the server would make it, of fields that are near to what the client expects. */
static void craft(uint32_t now) {
    uint8_t d[DG_REPLY_MAX + 60], kind = byte(), small = byte();
    size_t rest = kind & 0x40 ? (kind >> 3 & 3) * 8u : 0, head = HEAD_LEN, len;
    uint64_t number = c.base - 8 + byte();
    memset(d, 0, sizeof d);
    d[0] = (uint8_t)(0x10 | (kind % 3 == 0 ? TYPE_ACK : kind % 3 == 1 ? TYPE_REJECT : TYPE_WELCOME));
    d[1] = kind & 0x40 ? byte() & 0x17 : 0;
#if DG_ANSWERS
    const dg_ask *wanted = NULL;
    if (kind % 3 == 2 && !c.asking) {
        wanted = &asks[byte() % 5];
        d[0] = 0x10 | TYPE_ANSWER;
        d[1] &= 1;
        small &= 7;
        rest = byte() % (DG_ANSWER_MAX + 10);
        number = wanted->seq;
    }
#endif
    put32(d, get32(d) | (uint32_t)small << 16);
    put32(d + 4, kind & 0x20 ? byte() : c.epoch);
    put32(d + 8, (uint32_t)c.config.client_id);
    put32(d + 12, (uint32_t)(c.config.client_id >> 32));
    if (c.asking && kind % 3 != 0) {
        number = c.nonce;
        put32(d + 4, kind % 3 == 1 ? 0 : word());
    } else if (kind & 0x80) {
        number = kind % 3 == 1 ? 0 : (uint64_t)word() << 32 | word();
    }
    put32(d + 16, (uint32_t)number);
    put32(d + 20, (uint32_t)(number >> 32));
    put32(d + 24, kind % 3 == 2 ? 0 : word());
#if DG_ANSWERS
    if (wanted) {
        put32(d + 4, wanted->epoch);
        put32(d + 24, kind & 0x40 ? (uint32_t)rest : word());
        rest = kind & 0x20 ? 0 : rest;
    }
#endif
#if DG_SEALED
    if (c.config.crypto) {
        uint8_t nonce[12], keys[64];
        crypto_aead_ctx ctx;
        head += COUNTER_LEN;
        d[1] |= FLAG_SEALED;
        for (size_t i = 0; i < rest; i++) {
            d[head + i] = byte();
        }
#if DG_ANSWERS
        if (wanted) {
            derive(&c, wanted->epoch, keys);
            make_nonce(nonce, 2, 0);
            crypto_aead_init_ietf(&ctx, keys + 32, nonce);
            crypto_aead_write(&ctx, d + head, d + head + rest, d, head, d + head, rest);
            dg_input(&c, d, head + rest + TAG_LEN, now);
            return;
        }
#endif
        derive(&c, get32(d + 4) == 0 || kind % 3 == 2 ? 0 : c.epoch, keys);
        make_nonce(nonce, 2, 0);
        crypto_aead_init_ietf(&ctx, keys + 32, nonce);
        crypto_aead_write(&ctx, NULL, d + head + rest, d, head + rest, NULL, 0);
        dg_input(&c, d, head + rest + TAG_LEN, now);
        return;
    }
#endif
    for (size_t i = 0; i < rest; i++) {
        d[head + i] = byte();
    }
    len = head + rest + CRC_LEN;
    put32(d + len - CRC_LEN, dg_crc32(d, len - CRC_LEN));
    dg_input(&c, d, len, now);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static dg_cell cells[300];
    uint32_t now = 0xfffff000u;
    dg_config config;
    input = data;
    left = size;
    memset(&config, 0, sizeof config);
    memset(was_sent, 0, sizeof was_sent);
    given = ended = sent = 0;
    config.client_id = byte();
    config.epoch = byte();
    config.random_seed = word() | 1u;
    config.payload_max = PAYLOAD_MAX;
    config.send = on_send;
    config.event = on_event;
#if DG_SEALED
    if (byte() & 1) {
        config.crypto = &dg_monocypher;
        config.key = key;
    }
#endif
    (void)key;
#if DG_ANSWERS
    memset(asks, 0, sizeof asks);
    memset(asks_for, 0, sizeof asks_for);
    memset(told, 0, sizeof told);
    config.asks = asks;
    config.asks_max = 5;
    config.answer = on_answer_told;
#endif
    HOLDS(dg_init(&c, &config, cells, DG_CELLS(1, PAYLOAD_MAX) + byte()) == DG_OK);
    while (left && given < 60000) {
        uint8_t what = byte();
        switch (what & 7) {
        case 0:
        case 1: {
            uint8_t payload[PAYLOAD_MAX];
            size_t len = byte() % (PAYLOAD_MAX + 1);
            for (size_t i = 0; i < sizeof payload; i++) {
                payload[i] = (uint8_t)(given + i);
            }
            memcpy(payload, (uint8_t[]){(uint8_t)given, (uint8_t)(given >> 8), 0, 0}, 4);
            given += 1;
            unsigned flags = what & 0x40 ? DG_MAKE_ROOM : what & 0x80 ? DG_BATCH : 0;
#if DG_ANSWERS
            flags |= what & 0x10 ? DG_ASK : 0;
            asks_for[(given - 1) & 0xffff] = what >> 4 & 1;
#endif
            given -= dg_send(&c, 7, payload, len, flags) != DG_OK;
            break;
        }
        case 2: {
            /* As it is, in a block of its own so that a read past its end is seen. */
            size_t len = byte() % (DG_REPLY_MAX + 10);
            uint8_t *block;
            len = len < left ? len : left;
            block = malloc(len + 1);
            memcpy(block + 1, input, len);
            input += len;
            left -= len;
            dg_input(&c, block + 1, len, now);
            free(block);
            break;
        }
        case 3:
        case 4:
            craft(now);
            break;
        case 5:
            now += what & 0x80 ? word() : (uint32_t)byte() * (what >> 3);
            break;
        case 6:
            if (what & 0x80) {
                dg_abandon(&c);
            } else if (what & 0x40) {
                dg_path_changed(&c);
            }
            break;
        case 7:
#if DG_ANSWERS
            if (what & 0x40) {
                dg_take(&c, (uint16_t)(what & 0x80 ? word() : 0));
            }
#endif
            break;
        }
        if (what & 8) {
            HOLDS(dg_poll(&c, now) > 0);
        }
        is_consistent();
    }
    return 0;
}

#ifndef LIBFUZZER
static uint64_t state;

static uint32_t draw(void) {
    uint64_t x = state += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((x ^ x >> 31) >> 32);
}

int main(int argc, char **argv) {
    static uint8_t bytes[4096];
    unsigned long runs = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000, run;
    if (runs == 0) {
        for (int i = 1; i < argc; i++) {
            FILE *file = fopen(argv[i], "rb");
            if (!file) {
                perror(argv[i]);
                return 2;
            }
            LLVMFuzzerTestOneInput(bytes, fread(bytes, 1, sizeof bytes, file));
            fclose(file);
        }
        return 0;
    }
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    for (run = 0; run < runs; run++) {
        size_t len = 10 + draw() % 1000;
        for (size_t i = 0; i < len; i++) {
            /* Small numbers and zeros more often than chance gives them. */
            uint32_t drawn = draw();
            bytes[i] = (uint8_t)(drawn >> 8 & (drawn & 1 ? 0xff : drawn & 2 ? 0x0f : 0));
        }
        LLVMFuzzerTestOneInput(bytes, len);
    }
    printf("fuzz: %lu inputs made at random\n", runs);
    return 0;
}
#endif
