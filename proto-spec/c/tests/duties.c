/* The client's duties (PROTOCOL.md#client-duties), one test each or more; a test's name is a sentence about behaviour. */
#include "bench.h"

static bench bench_[1];
#define B bench_

static void a_message_is_held_until_its_ack(void) {
    start(B, 3);
    CHECK(dg_send(&B->c, 9, "hello", 5, 0) == DG_OK);
    poll(B);
    CHECK(B->sent_count == 1 && type(B, 0) == DATA && seq(B, 0) == 1 && epoch_of(B, 0) == 3 && flags(B, 0) == 0x30);
    CHECK(B->sent[0].len == 37 && memcmp(B->sent[0].bytes + 24, "\x09\0\0\0hello", 9) == 0);
    CHECK(dg_pending(&B->c) == 1 && B->count[DG_ACKED] == 0);
    CHECK(ack(B, 3, 1, 100, 0, 0) == DG_OK);
    CHECK(dg_pending(&B->c) == 0 && B->count[DG_ACKED] == 1 && B->last_message[DG_ACKED] == 0);
    CHECK(B->sent_count == 0 && B->wait == UINT32_MAX);
    CHECK(ack(B, 3, 1, 100, 0, 0) == DG_OK); /* Once more does no harm. */
    CHECK(B->count[DG_ACKED] == 1);
}

static void retransmissions_double_are_spread_and_never_end(void) {
    uint32_t least = 1000, total = 0;
    start(B, 3);
    give(B, 1, 20);
    for (unsigned i = 1; i < 40; i++) {
        CHECK(B->wait >= least && B->wait <= least + least / 4);
        total += B->wait & 3;
        pass(B, B->wait);
        CHECK(B->sent_count == 1 && seq(B, 0) == 1 && (flags(B, 0) & 7) == (i < 7 ? i : 7));
        least = least < 30000 ? 2 * least : 60000;
    }
    CHECK(total > 0);
    CHECK(ack(B, 3, 1, 100, 0, 0) == DG_OK && dg_pending(&B->c) == 0);
}

static void the_timeout_follows_the_round_trip_without_the_servers_delay_and_waits_for_it(void) {
    start(B, 3);
    for (unsigned i = 1; i <= 60; i++) {
        give(B, 1, 20);
        B->now += 500;
        ack(B, 3, i, 100, 0, 300000);
    }
    CHECK(B->c.rtt8 / 8 >= 199 && B->c.rtt8 / 8 <= 201);
    give(B, 1, 20);
    CHECK(B->wait >= 500 && B->wait < (500 + 10) * 5 / 4);
    /* Karn's rule: nothing is learnt from what was sent twice. */
    pass(B, B->wait);
    CHECK(B->sent_count == 1);
    uint32_t before = B->c.rtt8;
    B->now += 5;
    CHECK(ack(B, 3, 61, 100, 0, 0) == DG_OK && B->c.rtt8 == before);
    /* A delay longer than the whole is cut; no timeout is below the minimum. */
    for (unsigned i = 62; i < 200; i++) {
        give(B, 1, 20);
        B->now += 2;
        ack(B, 3, i, 100, 0, UINT32_MAX);
    }
    give(B, 1, 20);
    CHECK(B->wait >= DG_RTO_MIN_MS && B->wait <= (DG_RTO_MIN_MS + 3) * 5 / 4);
}

static void a_round_trip_longer_than_the_longest_interval_counts_as_that(void) {
    start(B, 3);
    give(B, 1, 20);
    B->now += 100000; /* Asleep, and not polled. */
    ack(B, 3, 1, 100, 0, 0);
    CHECK(B->c.rtt8 / 8 == DG_RTO_MAX_MS);
    give(B, 1, 20);
    CHECK(B->wait >= DG_RTO_MAX_MS && B->wait <= DG_RTO_MAX_MS * 5 / 4);
}

static void what_three_later_ones_overtook_is_sent_again_at_once(void) {
    start(B, 3);
    give(B, 6, 16);
    CHECK(B->sent_count == 6 && span(B, 5) == 5);
    ack(B, 3, 0, 100, 0x6, 0); /* 2 and 3 arrived: 1 may be late. */
    CHECK(B->sent_count == 0 && B->count[DG_ACKED] == 2);
    ack(B, 3, 0, 100, 0xe, 0); /* And 4. */
    CHECK(B->sent_count == 1 && seq(B, 0) == 1 && (flags(B, 0) & 7) == 1 && span(B, 0) == 0);
    ack(B, 3, 6, 100, 0, 0);
    CHECK(dg_pending(&B->c) == 0);
}

static void an_ack_without_room_tells_nothing_of_what_lies_above(void) {
    start(B, 3);
    give(B, 6, 7); /* Seven bytes: an ACK of them has no bitmap. */
    ack(B, 3, 1, 100, 0, 0);
    ack(B, 3, 2, 100, 0, 0);
    pass(B, 10);
    CHECK(B->sent_count == 0);
    CHECK(dg_pending(&B->c) == 4);
}

static void a_burst_that_was_lost_is_found_out_at_once_after_the_timeout(void) {
    start(B, 3);
    give(B, 8, 4);
    pass(B, B->wait);
    CHECK(B->sent_count == 1 && seq(B, 0) == 1);
    B->now += 40;
    ack(B, 3, 1, 100, 0, 0); /* 2 is missing too, and there is no room to tell of the rest. */
    CHECK(B->sent_count >= 1 && seq(B, 0) == 2);
    for (unsigned i = 2; i <= 8; i++) {
        B->now += 40;
        ack(B, 3, i, 100, 0, 0);
    }
    CHECK(dg_pending(&B->c) == 0);
}

static void ten_are_in_flight_at_first_and_more_with_every_ack(void) {
    start(B, 3);
    give(B, 40, 0);
    CHECK(B->sent_count == 10);
    ack(B, 3, 10, 1000, 0, 0);
    CHECK(B->sent_count == 20);
}

static void in_silence_one_datagram_is_sent_for_each_timeout(void) {
    start(B, 3);
    give(B, 12, 0);
    CHECK(B->sent_count == 10);
    pass(B, B->wait); /* First expiry: the lowest again, and 10 stay in flight. */
    CHECK(B->sent_count == 1 && seq(B, 0) == 1);
    for (unsigned i = 0; i < 5; i++) {
        pass(B, B->wait);
        CHECK(B->sent_count == 1 && seq(B, 0) == 1);
    }
    CHECK(B->c.window == 1);
    ack(B, 3, 10, 100, 0, 0);
    CHECK(B->sent_count >= 1 && seq(B, 0) == 11);
}

static void no_seq_beyond_the_credit_is_sent_and_without_credit_it_asks(void) {
    start(B, 3);
    give(B, 5, 0);
    ack(B, 3, 5, 2, 0, 0);
    give(B, 4, 0);
    CHECK(B->sent_count == 2 && seq(B, 1) == 7);
    ack(B, 3, 7, 0, 0, 0);
    CHECK(B->sent_count == 0);
    uint32_t first = B->wait;
    pass(B, B->wait);
    CHECK(B->sent_count == 1 && type(B, 0) == PING && epoch_of(B, 0) == 3 && seq(B, 0) == 0);
    CHECK(B->wait > first + first / 4);
    pass(B, B->wait);
    CHECK(B->sent_count == 1 && type(B, 0) == PING);
    /* A server that has forgotten the session answers floor 0. */
    ack(B, 3, 0, 100, 0, 0);
    CHECK(B->sent_count == 2 && seq(B, 0) == 8);
    CHECK(B->wait <= first + first / 4); /* With credit the count of tries begins anew. */
    /* An overtaken ack's credit is out of date. */
    ack(B, 3, 8, 100, 0, 0);
    ack(B, 3, 5, 0, 0, 0);
    give(B, 1, 0);
    CHECK(B->sent_count == 1);
}

static void an_ack_of_what_was_never_sent_is_not_believed(void) {
    start(B, 3);
    give(B, 3, 0);
    CHECK(ack(B, 3, 4, 100, 0, 0) == DG_NEVER_SENT);
    CHECK(ack(B, 3, 0, 100, 1u << 3, 0) == DG_NEVER_SENT);
    CHECK(ack(B, 3, UINT64_MAX, 100, 0x8000000000000000u, 0) == DG_NEVER_SENT);
    CHECK(ack(B, 4, 1, 100, 0, 0) == DG_IGNORED && ack(B, 0, 1, 100, 0, 0) == DG_IGNORED);
    CHECK(dg_pending(&B->c) == 3 && B->count[DG_ACKED] == 0);
}

static void damaged_foreign_and_strange_datagrams_are_ignored(void) {
    static const uint8_t bitmap[136];
    uint8_t d[200];
    size_t len;
    start(B, 3);
    give(B, 1, 0);
    len = plain(d, ACK, 0, 100, 3, ID, 1, 0, NULL, 0);
    for (unsigned bit = 0; bit < 8 * len; bit++) {
        d[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(dg_input(&B->c, d, len, B->now) == DG_IGNORED);
        d[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t cut = 0; cut < len; cut++) {
        CHECK(dg_input(&B->c, d, cut, B->now) == DG_IGNORED);
    }
    CHECK(dg_input(&B->c, NULL, 0, B->now) == DG_IGNORED);
    len = plain(d, ACK, 0, 100, 3, ID + 1, 1, 0, NULL, 0);
    CHECK(dg_input(&B->c, d, len, B->now) == DG_IGNORED);
    len = plain(d, ACK, 0, 100, 3, ID, 1, 0, bitmap, sizeof bitmap);
    CHECK(dg_input(&B->c, d, len, B->now) == DG_IGNORED);
    CHECK(dg_pending(&B->c) == 1);
}

static void a_client_without_an_epoch_asks_for_one_and_sends_nothing_else_until_then(void) {
    uint64_t nonce;
    start(B, 0);
    poll(B);
    CHECK(B->sent_count == 0);
    give(B, 2, 0);
    CHECK(B->sent_count == 1 && type(B, 0) == HELLO && epoch_of(B, 0) == 0 && B->sent[0].len == 32);
    nonce = seq(B, 0);
    CHECK(B->wait >= 1000 && B->wait <= 1250);
    pass(B, B->wait);
    CHECK(B->sent_count == 1 && type(B, 0) == HELLO && seq(B, 0) == nonce && B->wait >= 2000);
    CHECK(welcome(B, 77, nonce + 1, 50) == DG_IGNORED);
    CHECK(welcome(B, 0, nonce, 50) == DG_IGNORED);
    CHECK(welcome(B, 77, nonce, 50) == DG_OK);
    CHECK(B->sent_count == 2 && type(B, 0) == DATA && epoch_of(B, 0) == 77 && seq(B, 0) == 1 && seq(B, 1) == 2);
    CHECK(B->count[DG_EPOCH] == 1 && B->last_detail[DG_EPOCH] == 77);
    CHECK(welcome(B, 78, nonce, 50) == DG_IGNORED);
    CHECK(ack(B, 77, 2, 100, 0, 0) == DG_OK && dg_pending(&B->c) == 0);
    /* Nonces differ from seed to seed and from client to client. */
    for (unsigned i = 0; i < 3; i++) {
        dg_config config = bench_config(B, 0);
        config.random_seed += i == 0;
        config.random_seed += (uint64_t)(i == 1) << 32;
        config.client_id += i == 2;
        start_with(B, &config, 400);
        give(B, 1, 0);
        CHECK(type(B, 0) == HELLO && seq(B, 0) != nonce);
    }
}

static void a_refused_hello_fails_what_waits_or_waits_itself(void) {
    start(B, 0);
    give(B, 2, 0);
    uint64_t nonce = seq(B, 0);
    CHECK(reject(B, 0, nonce + 1, 6, 5000) == DG_IGNORED);
    CHECK(reject(B, 0, nonce, 6, 5000) == DG_OK);
    CHECK(B->count[DG_WAIT] == 1 && B->wait >= 5000 && B->wait <= 7500);
    pass(B, B->wait);
    CHECK(B->sent_count == 1 && type(B, 0) == HELLO && seq(B, 0) == nonce);
    CHECK(reject(B, 0, nonce, 9, 0) == DG_OK);
    CHECK(dg_pending(&B->c) == 0 && B->count[DG_FAILED] == 2 && B->last_detail[DG_FAILED] == 9);
    CHECK(B->wait == UINT32_MAX);
    give(B, 1, 0);
    CHECK(type(B, 0) == HELLO && seq(B, 0) != nonce);
}

static void a_message_refused_for_good_fails_alone_and_is_skipped(void) {
    static const unsigned codes[] = {1, 2, 3, 8, 9};
    for (unsigned i = 0; i < 5; i++) {
        start(B, 3);
        give(B, 3, 0);
        CHECK(reject(B, 3, 2, codes[i], 0) == DG_OK);
        CHECK(B->count[DG_FAILED] == 1 && B->last_message[DG_FAILED] == 1 && B->last_detail[DG_FAILED] == codes[i]);
        CHECK(reject(B, 3, 2, codes[i], 0) == DG_IGNORED); /* It is in flight no more. */
        CHECK(dg_pending(&B->c) == 2);
        give(B, 1, 0);
        CHECK(!(flags(B, 0) & SKIP) && span(B, 0) == 3); /* The base, 1, lies below the one given up. */
        ack(B, 3, 1, 100, 0, 0);
        give(B, 1, 0);
        CHECK((flags(B, 0) & SKIP) && span(B, 0) == 2); /* 5, with 3 as base. */
        ack(B, 3, 5, 100, 0, 0);
        give(B, 1, 0);
        CHECK(!(flags(B, 0) & SKIP) && dg_pending(&B->c) == 1);
    }
}

static void a_server_of_another_version_is_understood_to_refuse(void) {
    uint8_t d[64] = {0};
    size_t len;
    start(B, 3);
    give(B, 1, 0);
    len = plain(d, REJECT, 0, 1, 3, ID, 1, 0, "more of it", 10);
    CHECK(comes(B, d, len) == DG_IGNORED);
    d[0] = 0x23;
    store(d + len - 4, dg_crc32(d, len - 4), 4);
    CHECK(comes(B, d, len) == DG_OK && B->count[DG_FAILED] == 1 && B->last_detail[DG_FAILED] == 1);
}

static void a_stale_epoch_leads_to_the_next_and_then_to_hello(void) {
    start(B, 3);
    B->c.config.unix_time = bench_unix_time;
    give(B, 4, 8);
    ack(B, 3, 0, 100, 0x2, 0); /* 2 arrived. */
    CHECK(reject(B, 3, 1, 4, 0) == DG_OK);
    /* Messages 0, 2 and 3 get the seqs 1 to 3. */
    CHECK(B->sent_count == 3 && epoch_of(B, 0) == 4 && seq(B, 0) == 1 && seq(B, 2) == 3 && (flags(B, 0) & 7) == 0);
    CHECK(B->count[DG_EPOCH] == 1 && B->last_detail[DG_EPOCH] == 4 && span(B, 2) == 2);
    CHECK(reject(B, 3, 3, 4, 0) == DG_IGNORED); /* Of the old epoch. */
    CHECK(ack(B, 3, 4, 4, 0, 0) == DG_IGNORED);
    /* Once something was acked in it, the next one follows again, or the time if that is later. */
    CHECK(ack(B, 4, 0, 100, 0x2, 0) == DG_OK && B->count[DG_ACKED] == 2);
    B->unix_now = 1790000000;
    CHECK(reject(B, 4, 1, 4, 0) == DG_OK);
    CHECK(B->sent_count == 2 && epoch_of(B, 0) == 1790000000);
    CHECK(reject(B, 1790000000, 1, 4, 0) == DG_OK); /* Nothing was acked in it. */
    CHECK(B->sent_count == 1 && type(B, 0) == HELLO);
    uint64_t nonce = seq(B, 0);
    CHECK(welcome(B, 1790000000, nonce, 9) == DG_IGNORED); /* The epoch that was refused. */
    CHECK(welcome(B, 1790000005, nonce, 9) == DG_OK && B->sent_count == 2 && epoch_of(B, 1) == 1790000005);
    CHECK(reject(B, 1790000005, 1, 4, 0) == DG_OK);
    CHECK(B->sent_count == 0 && B->wait >= 8 * DG_RTO_MIN_MS); /* And now it waits. */
    pass(B, B->wait);
    CHECK(type(B, 0) == HELLO && seq(B, 0) != nonce);
    CHECK(welcome(B, 1790000009, seq(B, 0), 9) == DG_OK);
    CHECK(ack(B, 1790000009, 2, 9, 0, 0) == DG_OK && dg_pending(&B->c) == 0 && B->count[DG_ACKED] == 4);
    CHECK(B->last_message[DG_ACKED] == 3);
}

static void the_last_epoch_is_followed_by_hello(void) {
    start(B, UINT32_MAX);
    give(B, 1, 0);
    reject(B, UINT32_MAX, 1, 4, 0);
    CHECK(type(B, 0) == HELLO);
}

static void a_refusal_of_a_ping_that_was_never_sent_is_no_answer(void) {
    start(B, 3);
    give(B, 3, 10);
    CHECK(reject(B, 3, 0, 8, 0) == DG_IGNORED && reject(B, 3, 0, 6, 5000) == DG_IGNORED);
    CHECK(B->count[DG_FAILED] == 0 && B->count[DG_WAIT] == 0 && dg_pending(&B->c) == 3);
}

static void a_refused_ping_is_waited_for(void) {
    start(B, 3);
    give(B, 1, 0);
    ack(B, 3, 1, 0, 0, 0);
    give(B, 1, 0);
    pass(B, B->wait);
    CHECK(type(B, 0) == PING);
    CHECK(reject(B, 3, 0, 6, 5000) == DG_OK && B->wait >= 5000);
    CHECK(reject(B, 3, 9, 6, 5000) == DG_IGNORED);
    pass(B, B->wait);
    CHECK(B->count[DG_WAIT] == 1 && B->wait != UINT32_MAX);
    pass(B, B->wait);
    CHECK(type(B, 0) == PING && ack(B, 3, 1, 5, 0, 0) == DG_OK && seq(B, 0) == 2);
}

static void beyond_the_window_it_waits_for_an_ack(void) {
    start(B, 3);
    give(B, 5, 0);
    CHECK(reject(B, 3, 4, 5, 0) == DG_OK && reject(B, 3, 5, 5, 0) == DG_OK);
    CHECK(B->sent_count == 0 && B->c.window == 10);
    ack(B, 3, 3, 2, 0, 0);
    CHECK(B->sent_count == 2 && seq(B, 0) == 4 && seq(B, 1) == 5);
    ack(B, 3, 5, 9, 0, 0);
    CHECK(dg_pending(&B->c) == 0);
}

static void busy_and_storage_and_unknown_codes_are_waited_for_and_then_one_is_sent(void) {
    static const unsigned codes[] = {6, 7, 10, 15, 16, 99, 65535};
    for (unsigned i = 0; i < 7; i++) {
        start(B, 3);
        give(B, 5, 0);
        CHECK(reject(B, 3, 2, codes[i], 2000) == DG_OK && reject(B, 3, 3, codes[i], 50000) == DG_OK);
        CHECK(B->count[DG_WAIT] == 1 && B->wait >= 2000 && B->wait <= 3000);
        CHECK(B->last_detail[DG_WAIT] == B->wait);
        uint32_t left = B->wait;
        B->now += 500;
        ack(B, 3, 1, 100, 0, 0); /* A late one, which does not shorten or prolong the wait. */
        CHECK(B->sent_count == 0 && B->wait == left - 500);
        pass(B, B->wait);
        CHECK(B->sent_count == 1 && seq(B, 0) == 2); /* Whatever else got no answer. */
        ack(B, 3, 5, 100, 0, 0);
        CHECK(dg_pending(&B->c) == 0);
    }
    start(B, 3);
    give(B, 1, 0);
    reject(B, 3, 1, 6, UINT32_MAX); /* Bounded: it can be forged. */
    CHECK(B->wait >= 60000 && B->wait <= 90000);
    pass(B, B->wait);
    CHECK(B->sent_count == 1 && seq(B, 0) == 1);
    reject(B, 3, 1, 6, 0);
    CHECK(B->wait >= 2000 && B->wait <= 2500);
    pass(B, B->wait);
    reject(B, 3, 1, 6, 0);
    CHECK(B->wait >= 4000 && B->wait <= 5000);
}

static void what_was_never_sent_takes_no_seq_with_it_when_given_up(void) {
    start(B, 3);
    CHECK(dg_abandon(&B->c) == DG_IGNORED);
    CHECK(dg_send(&B->c, 0, "a", 1, 0) == DG_OK && dg_send(&B->c, 0, "b", 1, 0) == DG_OK);
    CHECK(dg_abandon(&B->c) == DG_OK && B->count[DG_ABANDONED] == 1 && B->last_message[DG_ABANDONED] == 0);
    poll(B);
    CHECK(B->sent_count == 1 && seq(B, 0) == 1 && B->sent[0].bytes[28] == 'b' && !(flags(B, 0) & SKIP));
    ack(B, 3, 1, 9, 0, 0);
    CHECK(B->last_message[DG_ACKED] == 1);
    CHECK(dg_abandon(&B->c) == DG_IGNORED);
}

static void what_was_sent_is_skipped_until_a_floor_has_passed_it(void) {
    start(B, 3);
    give(B, 2, 8);
    CHECK(dg_abandon(&B->c) == DG_OK && dg_pending(&B->c) == 1);
    give(B, 1, 8);
    CHECK(seq(B, 0) == 3 && (flags(B, 0) & SKIP) && span(B, 0) == 1);
    CHECK(ack(B, 3, 0, 9, 0x6, 0) == DG_OK && dg_pending(&B->c) == 0); /* 2 and 3, above the hole. */
    give(B, 1, 8);
    CHECK(seq(B, 0) == 4 && (flags(B, 0) & SKIP) && span(B, 0) == 0);
    ack(B, 3, 4, 9, 0, 0);
    give(B, 1, 8);
    CHECK(seq(B, 0) == 5 && !(flags(B, 0) & SKIP));
    /* What was given up may be acked all the same: nothing is told twice. */
    start(B, 3);
    give(B, 1, 8);
    CHECK(dg_abandon(&B->c) == DG_OK);
    CHECK(ack(B, 3, 1, 9, 0, 0) == DG_NEVER_SENT || B->count[DG_ACKED] == 0);
}

static void a_run_of_given_up_seqs_longer_than_the_window_opens_a_new_epoch(void) {
    start(B, 3);
    give(B, 1, 0);
    ack(B, 3, 1, 4, 0, 0);
    for (unsigned i = 0; i < 4; i++) {
        give(B, 1, 0);
        CHECK(epoch_of(B, 0) == 3 && seq(B, 0) == i + 2);
        CHECK(dg_abandon(&B->c) == DG_OK);
    }
    give(B, 1, 0);
    CHECK(epoch_of(B, 0) == 3 && (flags(B, 0) & SKIP)); /* Four: the server's window still reaches. */
    CHECK(dg_abandon(&B->c) == DG_OK);
    give(B, 1, 0);
    CHECK(epoch_of(B, 0) == 4 && seq(B, 0) == 1 && !(flags(B, 0) & SKIP));
}

static void a_full_buffer_refuses_or_gives_up_the_oldest(void) {
    dg_config config = bench_config(B, 3);
    static uint8_t payload[200];
    start_with(B, &config, DG_CELLS(3, 200));
    for (unsigned i = 0; i < 3; i++) {
        CHECK(dg_send(&B->c, 0, payload, 200, 0) == DG_OK);
    }
    CHECK(dg_send(&B->c, 0, payload, 1, 0) == DG_FULL && dg_pending(&B->c) == 3);
    CHECK(dg_send(&B->c, 0, "new", 3, DG_MAKE_ROOM) == DG_OK);
    CHECK(dg_pending(&B->c) == 3 && B->count[DG_ABANDONED] == 1);
    CHECK(dg_send(&B->c, 0, payload, 201, DG_MAKE_ROOM) == DG_TOO_LARGE);
    poll(B);
    CHECK(B->sent_count == 3 && memcmp(B->sent[2].bytes + 28, "new", 3) == 0);
    ack(B, 3, 3, 9, 0, 0);
    CHECK(dg_pending(&B->c) == 0 && B->c.used == 0);
    /* Shorter messages: as many as fit, here two cells each. */
    unsigned taken = 0;
    while (dg_send(&B->c, 0, payload, 12, 0) == DG_OK) {
        taken++;
    }
    CHECK(taken == 3 * 14 / 2);
    /* The least buffer holds one. */
    start_with(B, &config, DG_CELLS(1, 200));
    CHECK(dg_send(&B->c, 0, payload, 200, 0) == DG_OK && dg_send(&B->c, 0, payload, 0, 0) == DG_FULL);
    CHECK(dg_init(&B->c, &config, B->cells, DG_CELLS(1, 200) - 1) == DG_TOO_LARGE);
}

static void payloads_keep_their_bytes_wherever_they_lie_in_the_buffer(void) {
    uint8_t payload[200];
    uint64_t floor = 0;
    dg_config config = bench_config(B, 3);
    start_with(B, &config, DG_CELLS(3, 200));
    for (unsigned round = 0; round < 3000; round++) {
        size_t len = (round * 37u) % 201;
        memset(payload, (int)(round & 255), sizeof payload);
        if (dg_send(&B->c, 0, payload, len, 0) == DG_FULL) {
            ack(B, 3, ++floor, 100, 0, 0);
            continue;
        }
        poll(B);
        CHECK(B->sent_count == 1 && B->sent[0].len == 32 + len && memcmp(B->sent[0].bytes + 28, payload, len) == 0);
    }
}

static void a_batch_is_a_run_of_records(void) {
    uint8_t batch[20];
    size_t len = 0;
    start(B, 3);
    CHECK(dg_send(&B->c, 0, batch, 0, DG_BATCH) == DG_BROKEN_BATCH);
    CHECK(dg_batch(batch, sizeof batch, &len, "first", 5) == DG_OK && len == 7);
    CHECK(dg_batch(batch, sizeof batch, &len, NULL, 0) == DG_OK && len == 9);
    CHECK(dg_batch(batch, sizeof batch, &len, "too long!!", 10) == DG_FULL && len == 9);
    CHECK(dg_batch(batch, sizeof batch, &len, "123456789", 9) == DG_OK && len == 20);
    CHECK(dg_batch(batch, sizeof batch, &len, "", 0) == DG_FULL);
    static uint8_t large[70000];
    size_t large_len = 0;
    CHECK(dg_batch(large, sizeof large, &large_len, large, 65536) == DG_FULL && large_len == 0);
    CHECK(dg_send(&B->c, 0, batch, len, DG_BATCH) == DG_OK);
    for (size_t cut = 1; cut < len; cut++) {
        CHECK((dg_send(&B->c, 0, batch, cut, DG_BATCH) == DG_OK) == (cut == 7 || cut == 9));
    }
    poll(B);
    CHECK(flags(B, 0) == (0x30 | BATCH_FLAG) && memcmp(B->sent[0].bytes + 28, "\x05\0first\0\0\x09\0", 11) == 0);
}

static void another_network_is_tried_at_once(void) {
    start(B, 3);
    give(B, 12, 0);
    for (unsigned i = 0; i < 6; i++) {
        pass(B, B->wait);
    }
    CHECK(B->wait > 30000);
    dg_path_changed(&B->c);
    poll(B);
    CHECK(B->sent_count == 10 && seq(B, 0) == 1);
    start(B, 0);
    give(B, 1, 0);
    dg_path_changed(&B->c);
    poll(B);
    CHECK(B->sent_count == 1 && type(B, 0) == HELLO);
}

static void a_device_that_sleeps_for_weeks_sends_when_it_wakes(void) {
    start(B, 3);
    give(B, 1, 0);
    B->now += 0xA0000000u; /* 31 days: more than half of what the clock counts. */
    poll(B);
    CHECK(B->sent_count == 1 && (flags(B, 0) & 7) == 1);
}

static void when_all_was_given_up_the_next_message_is_tried_at_once(void) {
    start(B, 3);
    give(B, 1, 0);
    for (unsigned i = 0; i < 5; i++) {
        pass(B, B->wait);
    }
    CHECK(dg_abandon(&B->c) == DG_OK);
    poll(B);
    pass(B, B->wait);
    CHECK(B->wait == UINT32_MAX);
    give(B, 1, 0);
    CHECK(B->sent_count == 1 && seq(B, 0) == 2 && B->wait <= 1250);
}

static void the_64_bits_of_a_seq_are_all_used(void) {
    start(B, 3);
    B->c.base = 0xffffffffull;
    B->c.above_floor = 0;
    give(B, 4, 16);
    CHECK(seq(B, 3) == 0x100000002ull);
    ack(B, 3, 0xfffffffe, 50, 0x2, 0);
    CHECK(B->count[DG_ACKED] == 1);
    ack(B, 3, 0x100000001ull, 50, 0, 0);
    CHECK(B->count[DG_ACKED] == 3 && dg_pending(&B->c) == 1);
    reject(B, 3, 0x100000002ull, 3, 0);
    CHECK(B->count[DG_FAILED] == 1);
}

static void round_trips_are_smoothed_as_rfc_6298_says(void) {
    start(B, 3);
    give(B, 1, 0);
    B->now += 80;
    ack(B, 3, 1, 100, 0, 0);
    CHECK(B->c.rtt8 == 8 * 80 && B->c.variance4 == 4 * 40);
    give(B, 1, 0);
    B->now += 160;
    ack(B, 3, 2, 100, 0, 0);
    CHECK(B->c.rtt8 == 8 * 90 && B->c.variance4 == 4 * 50);
}

static void an_ack_of_something_new_starts_the_timer_anew(void) {
    start(B, 3);
    give(B, 2, 0);
    pass(B, 900);
    ack(B, 3, 1, 100, 0, 0);
    CHECK(B->wait >= 2700);
    uint32_t left = B->wait;
    pass(B, 900);
    ack(B, 3, 1, 100, 0, 0); /* Nothing new. */
    CHECK(B->wait == left - 900);
}

static void a_burst_of_losses_halves_the_window_once(void) {
    start(B, 3);
    give(B, 10, 16);
    B->now += 40;
    ack(B, 3, 0, 100, 0x3c0, 0); /* 7 to 10 arrived, 1 to 6 did not. */
    CHECK(B->c.window == 5 && B->sent_count == 5);
    ack(B, 3, 1, 100, 0x1e0, 0);
    CHECK(B->c.window == 5);
}

static void bits_tell_also_of_what_the_newest_had_no_room_for(void) {
    start(B, 3);
    give(B, 1, 16);
    give(B, 4, 0);
    ack(B, 3, 0, 100, 0x1c, 0); /* 3, 4, 5: an answer to 1, which came late. */
    CHECK(B->sent_count == 2 && seq(B, 0) == 1 && seq(B, 1) == 2);
}

static void in_silence_what_becomes_free_is_not_used(void) {
    start(B, 3);
    give(B, 3, 0);
    for (unsigned i = 0; i < 3; i++) {
        pass(B, B->wait);
    }
    CHECK(B->sent_count == 1 && B->c.silent);
    CHECK(dg_abandon(&B->c) == DG_OK);
    poll(B);
    CHECK(B->sent_count == 0);
    pass(B, B->wait);
    CHECK(B->sent_count == 1 && seq(B, 0) == 2);
}

static void in_a_new_epoch_nothing_counts_as_transmitted(void) {
    start(B, 3);
    give(B, 1, 0);
    pass(B, B->wait);
    CHECK((flags(B, 0) & 7) == 1);
    reject(B, 3, 1, 4, 0);
    CHECK(epoch_of(B, 0) == 4 && (flags(B, 0) & 7) == 0);
}

static void malformed_answers_are_ignored(void) {
    uint8_t d[64];
    size_t len;
    start(B, 3);
    give(B, 1, 0);
    len = plain(d, ACK, 8, 100, 3, ID, 1, 0, NULL, 0); /* It says that it is sealed. */
    CHECK(comes(B, d, len) == DG_IGNORED);
    len = plain(d, REJECT, 0, 6, 3, ID, 1, 0, NULL, 0); /* Of another version only code 1 is known. */
    d[0] = 0x23;
    store(d + len - 4, dg_crc32(d, len - 4), 4);
    CHECK(comes(B, d, len) == DG_IGNORED);
    start(B, 0);
    give(B, 1, 0);
    uint64_t nonce = seq(B, 0);
    len = plain(d, WELCOME, 0, 9, 7, ID, nonce, 0, "8 bytes.", 8);
    CHECK(comes(B, d, len) == DG_IGNORED);
    len = plain(d, WELCOME, 0, 9, 7, ID, nonce, 1, NULL, 0);
    CHECK(comes(B, d, len) == DG_IGNORED);
    poll(B);
    CHECK(B->sent_count == 0 && B->c.asking); /* HELLO is not repeated before its time. */
}

static void a_loss_slows_down_however_many_transmissions_lie_between_two(void) {
    start(B, 3);
    for (uint64_t floor = 1; floor < 200; floor++) {
        give(B, 1, 0);
        B->now += 40;
        ack(B, 3, floor, 100, 0, 0);
        /* As if there had been so many more between: numbers of transmissions wrap after 2^32. */
        B->c.order += 0x1000000;
    }
    give(B, 10, 16);
    unsigned window = B->c.window;
    B->now += 40;
    ack(B, 3, 199, 100, 0x3fe, 0);
    CHECK(B->sent_count == 1 && seq(B, 0) == 200 && B->c.window < window);
}

int main(void) {
    a_message_is_held_until_its_ack();
    retransmissions_double_are_spread_and_never_end();
    the_timeout_follows_the_round_trip_without_the_servers_delay_and_waits_for_it();
    a_round_trip_longer_than_the_longest_interval_counts_as_that();
    what_three_later_ones_overtook_is_sent_again_at_once();
    an_ack_without_room_tells_nothing_of_what_lies_above();
    a_burst_that_was_lost_is_found_out_at_once_after_the_timeout();
    ten_are_in_flight_at_first_and_more_with_every_ack();
    in_silence_one_datagram_is_sent_for_each_timeout();
    no_seq_beyond_the_credit_is_sent_and_without_credit_it_asks();
    an_ack_of_what_was_never_sent_is_not_believed();
    damaged_foreign_and_strange_datagrams_are_ignored();
    a_client_without_an_epoch_asks_for_one_and_sends_nothing_else_until_then();
    a_refused_hello_fails_what_waits_or_waits_itself();
    a_message_refused_for_good_fails_alone_and_is_skipped();
    a_server_of_another_version_is_understood_to_refuse();
    a_stale_epoch_leads_to_the_next_and_then_to_hello();
    the_last_epoch_is_followed_by_hello();
    a_refusal_of_a_ping_that_was_never_sent_is_no_answer();
    a_refused_ping_is_waited_for();
    beyond_the_window_it_waits_for_an_ack();
    busy_and_storage_and_unknown_codes_are_waited_for_and_then_one_is_sent();
    what_was_never_sent_takes_no_seq_with_it_when_given_up();
    what_was_sent_is_skipped_until_a_floor_has_passed_it();
    a_run_of_given_up_seqs_longer_than_the_window_opens_a_new_epoch();
    a_full_buffer_refuses_or_gives_up_the_oldest();
    payloads_keep_their_bytes_wherever_they_lie_in_the_buffer();
    a_batch_is_a_run_of_records();
    another_network_is_tried_at_once();
    a_device_that_sleeps_for_weeks_sends_when_it_wakes();
    when_all_was_given_up_the_next_message_is_tried_at_once();
    the_64_bits_of_a_seq_are_all_used();
    a_loss_slows_down_however_many_transmissions_lie_between_two();
    round_trips_are_smoothed_as_rfc_6298_says();
    an_ack_of_something_new_starts_the_timer_anew();
    a_burst_of_losses_halves_the_window_once();
    bits_tell_also_of_what_the_newest_had_no_room_for();
    in_silence_what_becomes_free_is_not_used();
    in_a_new_epoch_nothing_counts_as_transmitted();
    malformed_answers_are_ignored();
    return verdict("duties");
}
