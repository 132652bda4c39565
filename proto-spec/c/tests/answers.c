/*
 * Messages that ask (PROTOCOL.md#answers): the rules C1 to C8 of a client, one test each or more, then what a strange server or
 * program may do. A test's name is a sentence about behaviour. Sealed if it is compiled so.
 */
#include "bench.h"

static bench bench_[1];
#define B bench_

/* A client in the epoch 3 that takes answers as they come, and as many asks as a server lets it have. */
static void start_asking(uint16_t wait_ms) {
    dg_config config = bench_config(B, 3);
    config.asks_max = DG_ASKS_MAX;
    start_with(B, &config, 400);
    dg_take(&B->c, wait_ms);
}

static void ask(unsigned messages) {
    while (messages--) {
        CHECK(dg_send(&B->c, 0, "?", 1, DG_ASK) == DG_OK);
    }
    poll(B);
}

/* How many of the datagrams that the last poll sent are of this type. */
static unsigned sent_of(unsigned kind) {
    unsigned of = 0;
    for (unsigned i = 0; i < B->sent_count; i++) {
        of += type(B, i) == kind;
    }
    return of;
}

/* One message that asks, of seq 1, acked after 20 ms; its TAKE, if one is sent, is the last that was sent. */
static void ask_one(uint16_t wait_ms) {
    start_asking(wait_ms);
    ask(1);
    B->now += 20;
    CHECK(ack(B, 3, 1, 100, 0, 0) == DG_OK && dg_pending(&B->c) == 0 && dg_waiting(&B->c) == 1);
}

#if DG_ANSWER_ROOM == 0
static size_t unhex(const char *hex, uint8_t *out) {
    size_t len = 0;
    for (; *hex; hex++) {
        if (*hex != ' ') {
            unsigned high, low;
            CHECK(sscanf(hex, "%1x", &high) == 1 && sscanf(hex + 1, "%1x", &low) == 1);
            out[len++] = (uint8_t)(high << 4 | low);
            hex++;
        }
    }
    return len;
}

static bool sent_hex(unsigned i, const char *hex) {
    uint8_t expected[256];
    size_t len = unhex(hex, expected);
    return i < B->sent_count && B->sent[i].len == len && memcmp(B->sent[i].bytes, expected, len) == 0;
}

static dg_result hex_comes(const char *hex) {
    uint8_t d[256];
    return comes(B, d, unhex(hex, d));
}

static void the_example_of_the_text_goes_byte_for_byte(void) {
    start_asking(20000);
    B->c.base = 5;
    CHECK(dg_send(&B->c, 0, "open valve 7", 12, DG_ASK) == DG_OK);
    poll(B);
    CHECK(B->sent_count == 1
          && sent_hex(0, "11300000 03000000 a100000000000000 0500000000000000 0000 0200 6f70656e2076616c76652037 7334c469"));
    CHECK(hex_comes("12000004 03000000 a100000000000000 0500000000000000 aa000000 c01af895") == DG_OK);
    CHECK(B->sent_count == 1 && sent_hex(0, "18000000 03000000 a100000000000000 0500000000000000 204e0000 7cb46198"));
    CHECK(hex_comes("17000000 03000000 a100000000000000 0500000000000000 0b000000 3227f09c") == DG_OK && B->answers == 0);
    CHECK(B->sent_count == 1
          && sent_hex(0, "18000000 03000000 a100000000000000 0500000000000000 204e0000 0000000000000000000000 3860dfaf"));
    CHECK(hex_comes("17000000 03000000 a100000000000000 0500000000000000 0b000000 76616c76653a206f70656e d0109998") == DG_OK);
    CHECK(B->answers == 1 && B->answer == DG_ANSWER_DONE && B->body_len == 11 && memcmp(B->body, "valve: open", 11) == 0);
    CHECK(B->answered.epoch == 3 && B->answered.seq == 5 && B->answered.message == 0);
    /* That nothing waits any more it says by a seq that does not ask soon. */
    CHECK(B->sent_count == 1 && type(B, 0) == TAKE && seq(B, 0) - span(B, 0) == 6 && word_of(B, 0) == 0);
    CHECK(hex_comes("17000300 03000000 a100000000000000 0600000000000000 00000000 3b9f38ce") == DG_IGNORED);
    CHECK(B->answers == 1 && dg_waiting(&B->c) == 0 && B->wait == UINT32_MAX);
}

#endif

/* ---- C1 ---- */

static void c1_no_more_asks_are_unfinished_than_the_program_has_room_for_and_at_most_64(void) {
    static dg_cell cells[400];
    dg_client c;
    dg_config config = bench_config(B, 3);
    config.asks_max = DG_ASKS_MAX + 1;
    CHECK(DG_ASKS_MAX == 64 && dg_init(&c, &config, cells, 400) == DG_BAD_ARGUMENT);
    start_asking(20000);
    for (unsigned i = 0; i < 64; i++) {
        ask(1);
        ack(B, 3, i + 1, 100, 0, 0);
    }
    CHECK(dg_waiting(&B->c) == 64 && dg_send(&B->c, 0, "?", 1, DG_ASK) == DG_FULL);
    CHECK(dg_send(&B->c, 0, "?", 1, DG_ASK | DG_MAKE_ROOM) == DG_FULL);
    CHECK(dg_send(&B->c, 0, "!", 1, 0) == DG_OK); /* What does not ask needs no such room. */
    CHECK(answer_comes(B, 3, 40, DG_ANSWER_DONE, 0, NULL, 0) == DG_OK && dg_waiting(&B->c) == 63);
    CHECK(dg_send(&B->c, 0, "?", 1, DG_ASK) == DG_OK && dg_send(&B->c, 0, "?", 1, DG_ASK) == DG_FULL);
}

static void c1_reject_2_fails_the_message_and_its_ask_waits_no_more(void) {
    start_asking(20000);
    ask(2);
    CHECK(reject(B, 3, 1, 2, 0) == DG_OK);
    CHECK(B->count[DG_FAILED] == 1 && B->last_detail[DG_FAILED] == 2 && dg_waiting(&B->c) == 1 && B->answers == 0);
    CHECK(ack(B, 3, 2, 100, 0, 0) == DG_OK && type(B, 0) == TAKE && seq(B, 0) == 2 && span(B, 0) == 0);
    /* One that is given up is not taken either. */
    ask(1);
    CHECK(dg_waiting(&B->c) == 2 && dg_abandon(&B->c) == DG_OK && dg_waiting(&B->c) == 1);
}

static void c1_after_reject_6_all_waits_and_then_the_server_hears_first_what_it_may_forget(void) {
    start_asking(20000);
    ask(4);
    CHECK(ack(B, 3, 2, 100, 2, 0) == DG_OK); /* 1, 2 and 4. */
    CHECK(answer_comes(B, 3, 2, DG_ANSWER_DONE, 0, NULL, 0) == DG_OK && answer_comes(B, 3, 4, DG_ANSWER_DONE, 0, NULL, 0) == DG_OK);
    CHECK(reject(B, 3, 3, 6, 3000) == DG_OK && B->count[DG_WAIT] == 1 && B->sent_count == 0);
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_DONE, 0, NULL, 0) == DG_OK);
    CHECK(B->sent_count == 0); /* 3 waits to be acked, and says later what is had. */
    pass(B, B->wait);
    CHECK(B->sent_count == 2 && type(B, 0) == TAKE && type(B, 1) == DATA && seq(B, 1) == 3 && B->sent[1].bytes[26] == 2);
    /* Nothing that is acked waits: what was had below the lowest unfinished is what the server may have no room for. */
    CHECK(seq(B, 0) - span(B, 0) == 3 && seq(B, 0) > 30000 && word_of(B, 0) == 0);
    CHECK(ack(B, 3, 3, 100, 0, 0) == DG_OK && sent_of(TAKE) == 1 && seq(B, 0) == 3);
    /* Where nothing was heard there is nothing to say. */
    start_asking(20000);
    ask(1);
    CHECK(reject(B, 3, 1, 6, 3000) == DG_OK);
    pass(B, B->wait);
    CHECK(B->sent_count == 1 && type(B, 0) == DATA);
}

static void c1_take_is_stopped_by_neither_reject_nor_credit(void) {
    start_asking(20000);
    ask(1);
    give(B, 2, 0);
    CHECK(reject(B, 3, 2, 7, 60000) == DG_OK && B->count[DG_WAIT] == 1);
    CHECK(ack(B, 3, 1, 0, 0, 0) == DG_OK); /* No credit at all. */
    CHECK(B->sent_count == 1 && type(B, 0) == TAKE && seq(B, 0) == 1);
    /* A refused TAKE has no seq, and does not fail what waits. */
    CHECK(reject(B, 3, 0, 9, 0) == DG_IGNORED && dg_pending(&B->c) == 2 && dg_waiting(&B->c) == 1);
    pass(B, 30000);
    CHECK(sent_of(TAKE) == 1 && sent_of(DATA) == 0);
}

/* ---- C2 ---- */

static void c2_take_names_what_is_acked_and_spans_down_to_the_lowest_unfinished_acked_or_not(void) {
    start_asking(20000);
    give(B, 2, 16);
    ask(1); /* Seq 3. */
    give(B, 1, 16);
    ask(1); /* 5. */
    give(B, 1, 16);
    ask(1); /* 7. */
    CHECK(sent_of(TAKE) == 0);
    CHECK(ack(B, 3, 2, 100, 1u << 4, 0) == DG_OK); /* 7 alone: 3 and 5 are on the way. */
    CHECK(sent_of(TAKE) == 1 && type(B, 0) == TAKE && seq(B, 0) == 7 && span(B, 0) == 4);
    CHECK(ack(B, 3, 4, 100, 1u << 2, 0) == DG_OK);
    CHECK(sent_of(TAKE) == 1 && seq(B, 0) == 3 && span(B, 0) == 0);
    CHECK(answer_comes(B, 3, 3, DG_ANSWER_DONE, 0, NULL, 0) == DG_OK);
    CHECK(ack(B, 3, 7, 100, 0, 0) == DG_OK && sent_of(TAKE) == 1 && seq(B, 0) == 5 && span(B, 0) == 0);
    /* Repeated, it reaches down to what is unfinished now. */
    CHECK(answer_comes(B, 3, 5, DG_ANSWER_DONE, 0, NULL, 0) == DG_OK && B->sent_count == 0);
    pass(B, B->wait);
    CHECK(sent_of(TAKE) == 1 && seq(B, 0) == 7 && span(B, 0) == 0);
}

static void c2_what_lies_beyond_the_span_waits_for_the_lowest(void) {
    ask_one(20000);
    CHECK(type(B, 0) == TAKE);
    for (unsigned i = 0; i < 65536; i++) {
        CHECK(dg_send(&B->c, 0, "", 0, 0) == DG_OK);
        poll(B);
        ack(B, 3, i + 2, 100, 0, 0);
    }
    ask(1);
    CHECK(seq(B, 0) == 65538 && ack(B, 3, 65538, 100, 0, 0) == DG_OK);
    CHECK(B->sent_count == 0); /* It would name 2 as the lowest that is wanted. */
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_DONE, 0, NULL, 0) == DG_OK && B->answers == 1);
    pass(B, 80000);
    CHECK(sent_of(TAKE) >= 1 && seq(B, 0) == 65538 && span(B, 0) == 0);
}

static void c2_the_longest_span_is_65535(void) {
    ask_one(20000);
    for (unsigned i = 0; i < 65534; i++) {
        CHECK(dg_send(&B->c, 0, "", 0, 0) == DG_OK);
        poll(B);
        ack(B, 3, i + 2, 100, 0, 0);
    }
    ask(1);
    CHECK(ack(B, 3, 65536, 100, 0, 0) == DG_OK && B->sent_count == 1);
    CHECK(type(B, 0) == TAKE && seq(B, 0) == 65536 && span(B, 0) == 65535);
}

/* ---- C3 ---- */

static void c3_an_answer_counts_once_and_only_for_a_seq_that_waits(void) {
    ask_one(20000);
    CHECK(answer_comes(B, 4, 1, DG_ANSWER_DONE, 0, NULL, 0) == DG_IGNORED);
    CHECK(answer_comes(B, 3, 2, DG_ANSWER_DONE, 0, NULL, 0) == DG_IGNORED);
    CHECK(answer_comes(B, 3, 1 + (1ull << 32), DG_ANSWER_DONE, 0, NULL, 0) == DG_IGNORED);
    uint8_t d[64];
    size_t len = plain(d, ANSWER, 0, DG_ANSWER_DONE, 3, ID + 1, 1, 0, NULL, 0);
    CHECK(comes(B, d, len) == DG_IGNORED && B->answers == 0);
    len = plain(d, ANSWER, 1, DG_ANSWER_DONE, 3, ID, 1, 0, NULL, 0);
    CHECK(comes(B, d, len) == DG_IGNORED && B->answers == 0); /* It has a flag. */
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_FAILED, 0, NULL, 0) == DG_OK);
    CHECK(B->answers == 1 && B->answer == DG_ANSWER_FAILED && !B->has_body && B->body_len == 0 && dg_waiting(&B->c) == 0);
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_FAILED, 0, NULL, 0) == DG_IGNORED);
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_GONE, 0, NULL, 0) == DG_IGNORED && B->answers == 1);
    /* Nor before the ack: the server cannot have been asked. */
    ask(1);
    CHECK(answer_comes(B, 3, 2, DG_ANSWER_GONE, 0, NULL, 0) == DG_IGNORED && dg_waiting(&B->c) == 1);
}

static void c3_done_failed_and_gone_finish_an_ask_and_all_else_is_pending(void) {
    static const unsigned finishing[] = {DG_ANSWER_DONE, DG_ANSWER_FAILED, DG_ANSWER_GONE}, pending[] = {2, 4, 4711};
    for (unsigned i = 0; i < 3; i++) {
        ask_one(20000);
        CHECK(answer_comes(B, 3, 1, finishing[i], 0, NULL, 0) == DG_OK && B->answers == 1 && B->answer == finishing[i]);
        ask_one(20000);
        CHECK(answer_comes(B, 3, 1, pending[i], 1000, i == 2 ? "new" : NULL, i == 2 ? 3 : 0) == DG_OK);
        CHECK(B->answers == 0 && dg_waiting(&B->c) == 1 && B->sent_count == 0 && B->wait >= 1000);
    }
}

static void c3_what_is_broken_is_no_answer(void) {
    ask_one(20000);
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_DONE, 11, "valve", 5) == DG_IGNORED);
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_FAILED, 0, "valve", 5) == DG_IGNORED);
    CHECK(answer_comes(B, 3, 1, 2, 5, "valve", 5) == DG_IGNORED);
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_GONE, 5, "valve", 5) == DG_IGNORED);
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_GONE, 5, NULL, 0) == DG_IGNORED);
    CHECK(B->answers == 0 && dg_waiting(&B->c) == 1);
    uint8_t d[64];
    size_t len = plain(d, ANSWER, 0, DG_ANSWER_DONE, 3, ID, 1, 5, "valve", 5);
    for (size_t cut = 0; cut < len; cut++) {
        CHECK(comes(B, d, cut) == DG_IGNORED);
    }
    for (unsigned bit = 0; bit < 8 * len; bit++) {
        d[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(comes(B, d, len) == DG_IGNORED);
        d[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    CHECK(comes(B, d, len) == DG_OK && B->answers == 1 && B->body_len == 5);
}

static void c3_an_answer_acks_nothing_and_is_no_measurement(void) {
    ask_one(20000);
    give(B, 2, 10);
    uint32_t rtt8 = B->c.rtt8, variance4 = B->c.variance4, shortest = B->c.shortest;
    uint16_t window = B->c.window, credit = B->c.credit;
    B->now += 5;
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_DONE, 0, NULL, 0) == DG_OK && dg_pending(&B->c) == 2 && B->count[DG_ACKED] == 1);
    CHECK(B->c.rtt8 == rtt8 && B->c.variance4 == variance4 && B->c.shortest == shortest);
    CHECK(B->c.window == window && B->c.credit == credit && B->c.in_flight == 2);
}

static void c3_a_body_that_did_not_fit_is_taken_with_room_for_it_and_one_too_long_is_told_without(void) {
    uint8_t body[DG_ANSWER_MAX];
    memset(body, 'b', sizeof body);
    ask_one(20000);
    CHECK(B->sent[0].len == 32 + DG_ANSWER_ROOM);
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_DONE, DG_ANSWER_MAX, NULL, 0) == DG_OK && B->answers == 0);
    CHECK(B->sent_count == 1 && type(B, 0) == TAKE && B->sent[0].len == 32 + DG_ANSWER_MAX);
    for (unsigned i = 0; i < DG_ANSWER_MAX; i++) {
        CHECK(B->sent[0].bytes[28 + i] == 0);
    }
    /* The answer to the TAKE before is of no use any more. */
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_DONE, DG_ANSWER_MAX, NULL, 0) == DG_IGNORED && B->sent_count == 0);
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_DONE, DG_ANSWER_MAX, body, DG_ANSWER_MAX) == DG_OK && B->answers == 1);
    CHECK(B->has_body && B->body_len == DG_ANSWER_MAX && memcmp(B->body, body, sizeof body) == 0);
    /* One more byte is not wanted. */
    ask(1);
    ack(B, 3, 2, 100, 0, 0);
    CHECK(answer_comes(B, 3, 2, DG_ANSWER_FAILED, DG_ANSWER_MAX + 1, NULL, 0) == DG_OK && B->answers == 2);
    CHECK(B->answer == DG_ANSWER_FAILED && !B->has_body && B->body_len == DG_ANSWER_MAX + 1);
}

#if DG_ANSWER_MAX < 128
static void c3_no_body_is_longer_than_the_program_is_ready_for(void) {
    uint8_t body[128] = {0};
    ask_one(20000);
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_DONE, DG_ANSWER_MAX + 1, body, DG_ANSWER_MAX + 1) == DG_IGNORED && B->answers == 0);
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_DONE, DG_ANSWER_MAX, body, DG_ANSWER_MAX) == DG_OK && B->answers == 1);
}
#endif

static void c3_the_longest_room_fits_whatever_the_messages_length(void) {
    dg_config config = bench_config(B, 3);
    config.payload_max = 0;
    start_with(B, &config, DG_CELLS(1, 0));
    dg_take(&B->c, 20000);
    CHECK(dg_send(&B->c, 0, NULL, 0, DG_ASK) == DG_OK);
    poll(B);
    ack(B, 3, 1, 100, 0, 0);
    CHECK(type(B, 0) == TAKE && B->sent[0].len == 32 + DG_ANSWER_ROOM);
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_DONE, DG_ANSWER_MAX, NULL, 0) == DG_OK && B->sent[0].len == 32 + DG_ANSWER_MAX);
}

/* ---- C4 ---- */

static void c4_without_a_reply_a_take_is_repeated_after_its_wait_and_a_round_trip_doubling_to_60_s(void) {
    ask_one(500);
    uint32_t interval = B->c.rto;
    for (unsigned i = 0; i < 14; i++) {
        CHECK(type(B, 0) == TAKE && B->sent_count == 1 && word_of(B, 0) == 500 && B->wait == 500 + interval);
        pass(B, B->wait);
        interval = 2 * interval < 60000 ? 2 * interval : 60000;
    }
    CHECK(interval == 60000 && answer_comes(B, 3, 1, DG_ANSWER_DONE, 0, NULL, 0) == DG_OK);
    /* The next begins anew. */
    ask(1);
    ack(B, 3, 2, 100, 0, 0);
    CHECK(type(B, 0) == TAKE && B->wait == 500 + B->c.rto);
}

static void c4_after_pending_it_waits_as_long_as_the_server_says_at_least_a_round_trip_at_most_60_s(void) {
    static const uint32_t asked[] = {0, 1000, 5000, 90000, UINT32_MAX};
    bool differ = false;
    uint32_t first = 0;
    for (unsigned i = 0; i < 5; i++) {
        ask_one(20000);
        B->c.rto = 60;
        for (unsigned j = 0; j < 20; j++) {
            uint32_t least = asked[i] < 60 ? 60 : asked[i] < 60000 ? asked[i] : 60000;
            CHECK(type(B, 0) == TAKE && answer_comes(B, 3, 1, 2, asked[i], NULL, 0) == DG_OK && B->sent_count == 0);
            CHECK(B->wait >= least && B->wait <= least + least / 4);
            differ |= j && B->wait != first;
            first = B->wait;
            /* Once more it changes nothing. */
            CHECK(answer_comes(B, 3, 1, 2, 60000, NULL, 0) == DG_OK && B->wait == first);
            pass(B, B->wait - 1);
            CHECK(B->sent_count == 0);
            pass(B, 1);
            CHECK(B->sent_count == 1);
        }
        CHECK(B->answers == 0);
    }
    CHECK(differ);
}

static void c4_at_most_16_takes_are_open_and_those_that_wait_longest_come_first(void) {
    unsigned taken[65] = {0};
    start_asking(20000);
    for (unsigned i = 0; i < 64; i++) {
        CHECK(dg_send(&B->c, 0, "?", 1, DG_ASK) == DG_OK);
    }
    B->c.window = 100;
    poll(B);
    CHECK(sent_of(DATA) == 64);
    B->now += 20;
    ack(B, 3, 64, 100, 0, 0);
    CHECK(sent_of(TAKE) == 16);
    /* One after the other becomes free, and within four rounds each has had its turn. */
    for (unsigned round = 0; round < 64; round++) {
        uint64_t open[16];
        unsigned count = 0;
        for (unsigned i = 0; i < B->sent_count; i++) {
            if (type(B, i) == TAKE) {
                CHECK(seq(B, i) >= 1 && seq(B, i) <= 64);
                taken[seq(B, i) % 65]++;
                open[count++ % 16] = seq(B, i);
            }
        }
        CHECK(count && count <= 16);
        B->now += 100;
        for (unsigned i = 0; i < count; i++) {
            uint8_t d[32];
            CHECK(dg_input(&B->c, d, plain(d, ANSWER, 0, 2, 3, ID, open[i], 0, NULL, 0), B->now) == DG_OK);
        }
        poll(B);
    }
    for (unsigned i = 1; i <= 64; i++) {
        CHECK(taken[i] >= 12 && taken[i] <= 20);
    }
}

static void c4_no_more_takes_go_out_in_a_round_trip_than_the_congestion_window_has(void) {
    start_asking(20000);
    ask(8);
    B->now += 20;
    B->c.window = 3;
    ack(B, 3, 8, 100, 0, 0);
    B->c.window = 3;
    CHECK(sent_of(TAKE) == 3 || sent_of(TAKE) == 8);
    start_asking(20000);
    ask(8);
    B->now += 20;
    uint8_t d[32];
    CHECK(dg_input(&B->c, d, plain(d, ACK, 0, 100, 3, ID, 8, 0, NULL, 0), B->now) == DG_OK);
    B->c.window = 3;
    poll(B);
    CHECK(sent_of(TAKE) == 3 && B->wait == B->c.rto);
    pass(B, B->c.rto - 1);
    CHECK(B->sent_count == 0);
    pass(B, 1);
    CHECK(sent_of(TAKE) == 3);
    pass(B, B->c.rto);
    CHECK(sent_of(TAKE) == 2 && B->wait > B->c.rto);
}

/* ---- C5 ---- */

static void c5_a_sleeper_takes_when_it_wakes_waits_0_and_sleeps_on_pending(void) {
    start_asking(0);
    B->asks[7].state = 0;
    ask(2);
    CHECK(ack(B, 3, 2, 100, 0, 0) == DG_OK && B->sent_count == 0 && B->wait == UINT32_MAX); /* It may sleep. */
    B->now += 3600000;
    poll(B);
    CHECK(B->sent_count == 0);
    dg_take(&B->c, 0);
    poll(B);
    CHECK(B->sent_count == 2 && sent_of(TAKE) == 2 && word_of(B, 0) == 0 && B->wait == B->c.rto);
    CHECK(answer_comes(B, 3, 1, 2, 1000, NULL, 0) == DG_OK && B->sent_count == 0 && B->wait == B->c.rto);
    CHECK(answer_comes(B, 3, 2, DG_ANSWER_DONE, 2, "ok", 2) == DG_OK && B->answers == 1);
    CHECK(B->sent_count == 0 && B->wait == UINT32_MAX);
    /* Lost on the way, it is repeated while the device is awake; and at once when it wakes again. */
    B->now += 3600000;
    dg_take(&B->c, 0);
    poll(B);
    CHECK(sent_of(TAKE) == 1 && seq(B, 0) == 1 && span(B, 0) == 0);
    pass(B, B->c.rto);
    CHECK(sent_of(TAKE) == 1 && B->wait == 2 * B->c.rto);
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_GONE, 0, NULL, 0) == DG_OK && B->answers == 2 && B->answer == DG_ANSWER_GONE);
}

static void c5_the_last_ack_says_whether_an_answer_is_ready(void) {
    uint8_t d[32];
    start_asking(0);
    CHECK(!dg_ready(&B->c));
    ask(2);
    CHECK(comes(B, d, plain(d, ACK, READY, 100, 3, ID, 1, 0, NULL, 0)) == DG_OK && dg_ready(&B->c));
    CHECK(comes(B, d, plain(d, ACK, READY, 100, 4, ID, 1, 0, NULL, 0)) == DG_IGNORED);
    CHECK(ack(B, 3, 2, 100, 0, 0) == DG_OK && !dg_ready(&B->c));
    CHECK(comes(B, d, plain(d, ACK, READY, 100, 4, ID, 2, 0, NULL, 0)) == DG_IGNORED && !dg_ready(&B->c));
    CHECK(comes(B, d, plain(d, ACK, READY, 100, 3, ID, 9, 0, NULL, 0)) == DG_NEVER_SENT && !dg_ready(&B->c));
}

/* ---- C6 ---- */

static void c6_after_a_change_of_epoch_what_waits_is_taken_in_the_old_one_and_what_is_sent_again_in_the_new_one_alone(void) {
    start_asking(20000);
    ask(3);
    CHECK(ack(B, 3, 1, 100, 0, 0) == DG_OK && sent_of(TAKE) == 1);
    CHECK(reject(B, 3, 2, 4, 0) == DG_OK);
    CHECK(sent_of(DATA) == 2 && epoch_of(B, 0) == 4 && seq(B, 0) == 1 && seq(B, 1) == 2);
    CHECK(B->sent[0].bytes[26] == 2 && B->sent[1].bytes[26] == 2);
    pass(B, 30000);
    CHECK(sent_of(TAKE) == 1);
    for (unsigned i = 0; i < B->sent_count; i++) {
        CHECK(type(B, i) != TAKE || (epoch_of(B, i) == 3 && seq(B, i) == 1 && span(B, i) == 0));
    }
    CHECK(ack(B, 4, 2, 100, 0, 0) == DG_OK && sent_of(TAKE) == 2 && epoch_of(B, 0) == 4 && span(B, 0) + span(B, 1) == 1);
    /* The same seq in two epochs: each has its own answer. */
    CHECK(answer_comes(B, 4, 1, DG_ANSWER_DONE, 1, "n", 1) == DG_OK && B->answered.epoch == 4 && B->answered.message == 1);
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_FAILED, 0, NULL, 0) == DG_OK && B->answered.epoch == 3 && B->answered.message == 0);
    CHECK(answer_comes(B, 3, 2, DG_ANSWER_DONE, 0, NULL, 0) == DG_IGNORED);
    CHECK(answer_comes(B, 4, 2, DG_ANSWER_DONE, 0, NULL, 0) == DG_OK && B->answers == 3 && dg_waiting(&B->c) == 0);
}

static void c6_what_waits_is_taken_while_an_epoch_is_asked_for(void) {
    dg_config config = bench_config(B, 0);
    start_with(B, &config, 400);
    B->asks[2] = (dg_ask){.epoch = 9, .seq = 7, .state = 2, .message = 12};
    CHECK(dg_init(&B->c, &config, B->cells, 400) == DG_OK);
    dg_take(&B->c, 20000);
    give(B, 1, 0);
    CHECK(B->sent_count == 2 && sent_of(HELLO) == 1 && sent_of(TAKE) == 1);
    CHECK(type(B, 0) == TAKE && epoch_of(B, 0) == 9 && seq(B, 0) == 7 && epoch_of(B, 1) == 0);
    CHECK(answer_comes(B, 9, 7, DG_ANSWER_DONE, 0, NULL, 0) == DG_OK && B->answered.message == 12);
}

/* ---- C7 ---- */

static void c7_when_nothing_waits_one_take_says_that_all_below_the_seq_after_the_last_ask_is_had(void) {
    start_asking(20000);
    give(B, 1, 0);
    ask(2); /* 2 and 3. */
    CHECK(ack(B, 3, 3, 100, 0, 0) == DG_OK && sent_of(TAKE) == 2);
    CHECK(answer_comes(B, 3, 3, DG_ANSWER_DONE, 0, NULL, 0) == DG_OK && B->sent_count == 0);
    give(B, 1, 0); /* Not of what did not ask. */
    CHECK(answer_comes(B, 3, 2, DG_ANSWER_DONE, 0, NULL, 0) == DG_OK);
    CHECK(B->sent_count == 1 && type(B, 0) == TAKE && seq(B, 0) - span(B, 0) == 4 && seq(B, 0) > 30000 && word_of(B, 0) == 0);
    CHECK(B->sent[0].len == 32);
    CHECK(ack(B, 3, 4, 100, 0, 0) == DG_OK && B->sent_count == 0 && B->wait == UINT32_MAX); /* Once. */
    pass(B, 100000);
    CHECK(B->sent_count == 0);
    /* And again after the next. */
    ask(1);
    CHECK(ack(B, 3, 5, 100, 0, 0) == DG_OK);
    CHECK(answer_comes(B, 3, 5, DG_ANSWER_DONE, 0, NULL, 0) == DG_OK && sent_of(TAKE) == 1 && seq(B, 0) - span(B, 0) == 6);
}

static void c7_in_a_new_epoch_it_speaks_of_that_one(void) {
    start_asking(20000);
    give(B, 4, 0);
    ask(1);
    CHECK(ack(B, 3, 5, 100, 0, 0) == DG_OK && answer_comes(B, 3, 5, DG_ANSWER_DONE, 0, NULL, 0) == DG_OK);
    CHECK(sent_of(TAKE) == 1 && epoch_of(B, 0) == 3 && seq(B, 0) - span(B, 0) == 6);
    ask(1);
    CHECK(reject(B, 3, 6, 4, 0) == DG_OK && epoch_of(B, 0) == 4 && seq(B, 0) == 1);
    CHECK(ack(B, 4, 1, 100, 0, 0) == DG_OK && answer_comes(B, 4, 1, DG_ANSWER_DONE, 0, NULL, 0) == DG_OK);
    CHECK(sent_of(TAKE) == 1 && epoch_of(B, 0) == 4 && seq(B, 0) - span(B, 0) == 2);
}

static void c7_its_gone_is_not_taken_for_the_answer_to_the_next_ask(void) {
    ask_one(20000);
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_DONE, 0, NULL, 0) == DG_OK && sent_of(TAKE) == 1);
    uint64_t named = seq(B, 0);
    ask(1);
    CHECK(ack(B, 3, 2, 100, 0, 0) == DG_OK && sent_of(TAKE) == 1 && seq(B, 0) == 2);
    CHECK(answer_comes(B, 3, named, DG_ANSWER_GONE, 0, NULL, 0) == DG_IGNORED && B->answers == 1 && dg_waiting(&B->c) == 1);
}

/* ---- C8 ---- */

static void c8_what_waited_goes_on_after_a_restart(void) {
    dg_ask kept[8];
    dg_config config = bench_config(B, 0);
    start_with(B, &config, 400);
    dg_take(&B->c, 20000);
    ask(1);
    welcome(B, 70, seq(B, 0), 100);
    ask(2);
    CHECK(ack(B, 70, 1, 100, 2, 0) == DG_OK && dg_waiting(&B->c) == 3); /* 1 and 3 are acked. */
    memcpy(kept, B->asks, sizeof kept);
    start_with(B, &config, 400);
    memcpy(B->asks, kept, sizeof kept);
    CHECK(dg_init(&B->c, &config, B->cells, 400) == DG_OK);
    CHECK(dg_waiting(&B->c) == 2); /* The message of the third is lost with the buffer. */
    poll(B);
    CHECK(B->sent_count == 0 && B->wait == UINT32_MAX); /* Nothing is taken before the program says so. */
    dg_take(&B->c, 20000);
    poll(B);
    CHECK(sent_of(TAKE) == 2 && epoch_of(B, 0) == 70 && epoch_of(B, 1) == 70 && span(B, 0) + span(B, 1) == 2);
    CHECK(answer_comes(B, 70, 3, DG_ANSWER_DONE, 0, NULL, 0) == DG_OK && B->answered.message == 2);
    CHECK(answer_comes(B, 70, 2, DG_ANSWER_DONE, 0, NULL, 0) == DG_IGNORED);
    CHECK(answer_comes(B, 70, 1, DG_ANSWER_DONE, 0, NULL, 0) == DG_OK && B->answers == 2 && dg_waiting(&B->c) == 0);
    CHECK(sent_of(TAKE) == 1 && epoch_of(B, 0) == 70 && seq(B, 0) - span(B, 0) == 4);
}

/* ---- What programs and networks do ---- */

static void a_batch_cannot_ask(void) {
    start_asking(20000);
    CHECK(dg_send(&B->c, 0, "\1\0a", 3, DG_BATCH | DG_ASK) == DG_BAD_ARGUMENT);
    CHECK(dg_send(&B->c, 0, "\1\0a", 3, DG_BATCH | DG_ASK | DG_MAKE_ROOM) == DG_BAD_ARGUMENT && dg_waiting(&B->c) == 0);
    CHECK(dg_send(&B->c, 0, "\1\0a", 3, DG_BATCH) == DG_OK && dg_send(&B->c, 0, "a", 1, 4) == DG_BAD_ARGUMENT);
    poll(B);
    CHECK(flags(B, 0) == 0x70 && word_of(B, 0) == 0);
}

static void wrong_arguments_are_refused_and_without_asks_all_is_as_ever(void) {
    static dg_cell cells[400];
    dg_client c, same;
    dg_config config = bench_config(B, 3), wrong = config;
    memset(&c, 0xa5, sizeof c);
    memcpy(&same, &c, sizeof c);
    wrong.asks = NULL;
    CHECK(dg_init(&c, &wrong, cells, 400) == DG_BAD_ARGUMENT);
    wrong = config;
    wrong.answer = NULL;
    CHECK(dg_init(&c, &wrong, cells, 400) == DG_BAD_ARGUMENT);
    wrong.asks = (dg_ask *)(void *)((uint8_t *)config.asks + 1);
    CHECK(dg_init(&c, &wrong, cells, 400) == DG_BAD_ARGUMENT);
    wrong = config;
    wrong.asks_max = DG_ASKS_MAX + 1;
    CHECK(dg_init(&c, &wrong, cells, 400) == DG_BAD_ARGUMENT && memcmp(&c, &same, sizeof c) == 0);
    config.asks = NULL;
    config.asks_max = 0;
    config.answer = NULL;
    start_with(B, &config, 400);
    dg_take(&B->c, 20000);
    CHECK(dg_send(&B->c, 0, "?", 1, DG_ASK) == DG_FULL && dg_waiting(&B->c) == 0);
    give(B, 1, 10);
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_DONE, 0, NULL, 0) == DG_IGNORED && ack(B, 3, 1, 100, 0, 0) == DG_OK);
    CHECK(B->wait == UINT32_MAX);
    dg_take(NULL, 5);
    CHECK(dg_waiting(NULL) == 0 && !dg_ready(NULL));
}

static void on_another_path_open_takes_go_out_at_once(void) {
    ask_one(20000);
    pass(B, 3000);
    CHECK(B->sent_count == 0);
    dg_path_changed(&B->c);
    poll(B);
    CHECK(sent_of(TAKE) == 1 && seq(B, 0) == 1);
    /* What rests, rests. */
    ask_one(0);
    dg_path_changed(&B->c);
    poll(B);
    CHECK(B->sent_count == 0);
}

static void an_ask_that_is_given_up_for_others_frees_its_place(void) {
    start_asking(20000);
    CHECK(dg_send(&B->c, 0, "?", 1, DG_ASK | DG_MAKE_ROOM) == DG_OK);
    while (B->count[DG_ABANDONED] == 0) {
        CHECK(dg_send(&B->c, 0, B->sent[0].bytes, 100, DG_MAKE_ROOM) == DG_OK);
    }
    CHECK(dg_waiting(&B->c) == 0);
}

int main(void) {
#if DG_ANSWER_ROOM == 0
    the_example_of_the_text_goes_byte_for_byte();
#endif
    c1_no_more_asks_are_unfinished_than_the_program_has_room_for_and_at_most_64();
    c1_reject_2_fails_the_message_and_its_ask_waits_no_more();
    c1_after_reject_6_all_waits_and_then_the_server_hears_first_what_it_may_forget();
    c1_take_is_stopped_by_neither_reject_nor_credit();
    c2_take_names_what_is_acked_and_spans_down_to_the_lowest_unfinished_acked_or_not();
    c2_what_lies_beyond_the_span_waits_for_the_lowest();
    c2_the_longest_span_is_65535();
    c3_an_answer_counts_once_and_only_for_a_seq_that_waits();
    c3_done_failed_and_gone_finish_an_ask_and_all_else_is_pending();
    c3_what_is_broken_is_no_answer();
    c3_an_answer_acks_nothing_and_is_no_measurement();
    c3_a_body_that_did_not_fit_is_taken_with_room_for_it_and_one_too_long_is_told_without();
#if DG_ANSWER_MAX < 128
    c3_no_body_is_longer_than_the_program_is_ready_for();
#endif
    c3_the_longest_room_fits_whatever_the_messages_length();
    c4_without_a_reply_a_take_is_repeated_after_its_wait_and_a_round_trip_doubling_to_60_s();
    c4_after_pending_it_waits_as_long_as_the_server_says_at_least_a_round_trip_at_most_60_s();
    c4_at_most_16_takes_are_open_and_those_that_wait_longest_come_first();
    c4_no_more_takes_go_out_in_a_round_trip_than_the_congestion_window_has();
    c5_a_sleeper_takes_when_it_wakes_waits_0_and_sleeps_on_pending();
    c5_the_last_ack_says_whether_an_answer_is_ready();
    c6_after_a_change_of_epoch_what_waits_is_taken_in_the_old_one_and_what_is_sent_again_in_the_new_one_alone();
    c6_what_waits_is_taken_while_an_epoch_is_asked_for();
    c7_when_nothing_waits_one_take_says_that_all_below_the_seq_after_the_last_ask_is_had();
    c7_in_a_new_epoch_it_speaks_of_that_one();
    c7_its_gone_is_not_taken_for_the_answer_to_the_next_ask();
    c8_what_waited_goes_on_after_a_restart();
    a_batch_cannot_ask();
    wrong_arguments_are_refused_and_without_asks_all_is_as_ever();
    on_another_path_open_takes_go_out_at_once();
    an_ask_that_is_given_up_for_others_frees_its_place();
    return verdict("answers");
}
