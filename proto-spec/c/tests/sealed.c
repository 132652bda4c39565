/* The duties of a sealed client (PROTOCOL.md#sealed-client, PROTOCOL.md#sealed-counter). */
#include "bench.h"
#include "world.h"

#include "../duragram_monocypher.h"

static bench bench_[1];
#define B bench_
static const uint8_t key[32] = {0x42};
static server world;
/* So far below 2^63 a counter goes on one by one (PROTOCOL.md#epoch-used). */
#define RISE_STOPS_BELOW (1ull << 55)

static void start_sealed(uint32_t epoch, uint32_t boot_count) {
    dg_config config = bench_config(B, epoch);
    config.crypto = &dg_monocypher;
    config.key = key;
    config.boot_count = boot_count;
    start_with(B, &config, 400);
    memset(&world, 0, sizeof world);
    world.client = ID;
    world.key = key;
}

/* The server's answer, sealed. */
static dg_result answers(unsigned type, unsigned small, uint32_t epoch, uint64_t number, uint32_t word) {
    uint8_t d[300];
    return comes(B, d, reply(&world, d, type, small, epoch, number, word));
}

static uint64_t counter(unsigned i) {
    return i < B->sent_count ? load64(B->sent[i].bytes + 28) : 0;
}

static void every_transmission_has_a_counter_of_its_own(void) {
    start_sealed(3, 5);
    give(B, 3, 10);
    CHECK(B->sent_count == 3 && (flags(B, 0) & 8) && B->sent[0].len == 62);
    CHECK(counter(0) == 5ull << 32 && counter(1) == (5ull << 32 | 1) && counter(2) == (5ull << 32 | 2));
    pass(B, B->wait);
    CHECK(B->sent_count == 1 && seq(B, 0) == 1 && counter(0) == (5ull << 32 | 3));
    CHECK(answers(ACK, 0, 3, 3, 0) == DG_OK && dg_pending(&B->c) == 0);
    give(B, 1, 10);
    CHECK(B->sent_count == 0); /* No credit. */
    pass(B, B->wait);
    CHECK(type(B, 0) == PING && B->sent[0].len == 52 && counter(0) == (5ull << 32 | 4));
    /* In a new epoch the keys are others, and it begins anew. */
    CHECK(answers(ACK, 9, 3, 3, 0) == DG_OK && B->sent_count == 1 && counter(0) == (5ull << 32 | 5));
    CHECK(answers(REJECT, 4, 3, 4, 0) == DG_OK);
    CHECK(B->sent_count == 1 && epoch_of(B, 0) == 4 && counter(0) == 5ull << 32);
}

static void without_a_boot_count_counters_start_at_random_below_2_to_63(void) {
    uint64_t first[8];
    for (unsigned i = 0; i < 8; i++) {
        dg_config config = bench_config(B, 3);
        config.crypto = &dg_monocypher;
        config.key = key;
        config.random_seed = i + 1;
        start_with(B, &config, 400);
        give(B, 1, 0);
        first[i] = counter(0);
        CHECK(first[i] >> 63 == 0 && (uint32_t)first[i] != 0);
        for (unsigned j = 0; j < i; j++) {
            CHECK(first[i] != first[j]);
        }
    }
}

static void plain_answers_are_ignored(void) {
    start_sealed(3, 1);
    give(B, 2, 10);
    CHECK(ack(B, 3, 2, 9, 0, 0) == DG_IGNORED);
    CHECK(reject(B, 3, 1, 9, 0) == DG_IGNORED && reject(B, 3, 1, 1, 0) == DG_IGNORED);
    CHECK(dg_pending(&B->c) == 2);
    CHECK(answers(REJECT, 8, 3, 1, 0) == DG_OK && B->count[DG_FAILED] == 1);
}

static void answers_of_another_session_or_key_are_ignored(void) {
    uint8_t d[300];
    size_t len;
    start_sealed(3, 1);
    give(B, 2, 10);
    CHECK(answers(ACK, 9, 4, 2, 0) == DG_IGNORED);
    len = reply(&world, d, ACK, 9, 4, 2, 0);
    store(d + 4, 3, 4); /* Recorded elsewhere, the epoch changed. */
    CHECK(comes(B, d, len) == DG_IGNORED);
    static const uint8_t other[32] = {0x43};
    world.key = other;
    CHECK(answers(ACK, 9, 3, 2, 0) == DG_IGNORED);
    world.key = key;
    len = reply(&world, d, ACK, 9, 3, 2, 0);
    for (unsigned bit = 0; bit < 8 * len; bit++) {
        d[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(comes(B, d, len) == DG_IGNORED);
        d[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t cut = 0; cut < len; cut++) {
        CHECK(comes(B, d, cut) == DG_IGNORED);
    }
    CHECK(dg_pending(&B->c) == 2 && comes(B, d, len) == DG_OK && dg_pending(&B->c) == 0);
}

static void hello_is_repeated_byte_for_byte_and_leads_upwards_only(void) {
    uint8_t first[52];
    start_sealed(0, 1);
    give(B, 1, 10);
    CHECK(type(B, 0) == HELLO && B->sent[0].len == 52 && counter(0) == seq(B, 0) && flags(B, 0) == 8);
    uint64_t nonce = seq(B, 0);
    memcpy(first, B->sent[0].bytes, 52);
    pass(B, B->wait);
    CHECK(B->sent_count == 1 && memcmp(first, B->sent[0].bytes, 52) == 0);
    CHECK(welcome(B, 70, nonce, 9) == DG_IGNORED && answers(WELCOME, 9, 70, nonce + 1, 0) == DG_IGNORED);
    CHECK(answers(WELCOME, 9, 70, nonce, 0) == DG_OK && type(B, 0) == DATA && epoch_of(B, 0) == 70);
    CHECK(counter(0) == 1ull << 32);
    CHECK(answers(REJECT, 4, 70, 1, 0) == DG_OK && type(B, 0) == HELLO && seq(B, 0) != nonce);
    nonce = seq(B, 0);
    CHECK(answers(WELCOME, 9, 70, nonce, 0) == DG_IGNORED && answers(WELCOME, 9, 69, nonce, 0) == DG_IGNORED);
    CHECK(answers(REJECT, 6, 0, nonce, 100) == DG_OK && B->count[DG_WAIT] == 1);
    CHECK(answers(WELCOME, 9, 71, nonce, 0) == DG_OK && B->last_detail[DG_EPOCH] == 71);
}

static void a_counter_that_is_used_up_ends_the_epoch_when_all_in_flight_is_acked(void) {
    start_sealed(3, 1);
    B->c.counter |= 0xfffffffe;
    give(B, 3, 16);
    CHECK(B->sent_count == 2 && counter(1) == (1ull << 32 | 0xffffffff));
    CHECK(answers(ACK, 9, 3, 1, 0) == DG_OK && B->sent_count == 0);
    CHECK(answers(ACK, 9, 3, 2, 0) == DG_OK);
    CHECK(B->sent_count == 1 && epoch_of(B, 0) == 4 && seq(B, 0) == 1 && counter(0) == 1ull << 32);
}

static void with_a_counter_that_is_used_up_nothing_more_is_sent(void) {
    start_sealed(3, 1);
    B->c.counter |= 0xfffffffe;
    give(B, 2, 16);
    CHECK(B->sent_count == 2 && answers(REJECT, 5, 3, 1, 0) == DG_OK); /* No credit any more. */
    /* It would ask by PING, and then nobody needs the answer. */
    dg_path_changed(&B->c);
    CHECK(B->c.ping_due && dg_abandon(&B->c) == DG_OK && dg_abandon(&B->c) == DG_OK);
    poll(B);
    CHECK(B->sent_count == 0);
    give(B, 1, 16);
    CHECK(epoch_of(B, 0) == 4 || B->sent_count == 0);
}

static void one_sealed_ack_of_what_was_never_sent_shows_that_the_epoch_was_used(void) {
    dg_config config = bench_config(B, 3);
    start_sealed(3, 1);
    config.crypto = &dg_monocypher;
    config.key = key;
    CHECK(dg_init(&B->c, &config, B->cells, 400) == DG_OK);
    give(B, 4, 10);
    CHECK(B->sent_count == 1 && ack(B, 3, 9, 100, 0, 0) == DG_IGNORED); /* Plain ones are no sign. */
    CHECK(answers(ACK, 100, 3, 9, 0) == DG_NEVER_SENT && B->count[DG_EPOCH_USED] == 1);
    CHECK(B->sent_count == 1 && type(B, 0) == HELLO && dg_pending(&B->c) == 4);
    uint64_t nonce = seq(B, 0);
    CHECK(answers(WELCOME, 100, 2, nonce, 0) == DG_IGNORED); /* Not downwards. */
    CHECK(answers(WELCOME, 100, 70, nonce, 0) == DG_OK && B->last_detail[DG_EPOCH] == 70 && B->sent_count == 4);
}

static void in_a_doubted_epoch_each_silence_lifts_the_counter_above_what_a_run_before_may_have_used(void) {
    dg_config config = bench_config(B, 3);
    start_sealed(3, 0);
    config.crypto = &dg_monocypher;
    config.key = key;
    CHECK(dg_init(&B->c, &config, B->cells, 400) == DG_OK);
    give(B, 4, 10);
    unsigned rises = 0;
    for (uint64_t left; (left = (1ull << 63) - counter(0)) > RISE_STOPS_BELOW + 1; rises++) {
        pass(B, B->wait);
        CHECK(B->sent_count == 1 && type(B, 0) == DATA && seq(B, 0) == 1);
        CHECK((1ull << 63) - counter(0) <= left / 2 + 1 && (1ull << 63) - counter(0) + 2 >= left / 2);
    }
    CHECK(rises > 0 && rises <= 8); /* Above all but one of 256 others. */
    CHECK(answers(ACK, 100, 3, 1, 0) == DG_OK);
    uint64_t last = B->c.counter;
    for (unsigned i = 0; i < 5; i++) {
        pass(B, B->wait);
    }
    CHECK(B->c.counter > last && B->c.counter < last + 20); /* No doubt any more: one after the other. */
    /* A boot count's numbers are not left. */
    config.boot_count = 5;
    start_sealed(3, 5);
    CHECK(dg_init(&B->c, &config, B->cells, 400) == DG_OK);
    give(B, 4, 10);
    for (unsigned i = 0; i < 40; i++) {
        CHECK(counter(0) == (5ull << 32 | i));
        pass(B, B->wait);
    }
}

static void a_counter_stops_to_rise_while_chance_still_keeps_it_apart_from_others_and_never_goes_back(void) {
    static const uint64_t first[] = {0, (1ull << 60) + 17, (1ull << 63) - RISE_STOPS_BELOW, (1ull << 63) - 1000, (1ull << 63) + 9};
    for (unsigned i = 0; i < sizeof first / sizeof *first; i++) {
        dg_config config = bench_config(B, 3);
        start_sealed(3, 0);
        config.crypto = &dg_monocypher;
        config.key = key;
        CHECK(dg_init(&B->c, &config, B->cells, 400) == DG_OK);
        B->c.counter = first[i];
        give(B, 1, 10);
        CHECK(B->sent_count == 1 && counter(0) == first[i]);
        for (unsigned silence = 0; silence < 100; silence++) {
            uint64_t last = counter(0);
            pass(B, B->wait);
            CHECK(B->sent_count == 1 && counter(0) > last);
            /* Where the next would be counted from. */
            if (last + 1 >= (1ull << 63) - RISE_STOPS_BELOW) {
                CHECK(counter(0) == last + 1);
            }
        }
        CHECK(first[i] >= (1ull << 63) - RISE_STOPS_BELOW || (1ull << 63) - counter(0) > RISE_STOPS_BELOW / 4);
    }
}

static void a_key_and_a_random_seed_are_needed(void) {
    dg_config config = bench_config(B, 3);
    config.crypto = &dg_monocypher;
    CHECK(dg_init(&B->c, &config, B->cells, 400) == DG_BAD_ARGUMENT);
    config.key = key;
    config.random_seed = 0;
    CHECK(dg_init(&B->c, &config, B->cells, 400) == DG_BAD_ARGUMENT);
    config.random_seed = 1;
    CHECK(dg_init(&B->c, &config, B->cells, 400) == DG_OK);
}

int main(void) {
    every_transmission_has_a_counter_of_its_own();
    without_a_boot_count_counters_start_at_random_below_2_to_63();
    plain_answers_are_ignored();
    answers_of_another_session_or_key_are_ignored();
    hello_is_repeated_byte_for_byte_and_leads_upwards_only();
    a_counter_that_is_used_up_ends_the_epoch_when_all_in_flight_is_acked();
    with_a_counter_that_is_used_up_nothing_more_is_sent();
    one_sealed_ack_of_what_was_never_sent_shows_that_the_epoch_was_used();
    in_a_doubted_epoch_each_silence_lifts_the_counter_above_what_a_run_before_may_have_used();
    a_counter_stops_to_rise_while_chance_still_keeps_it_apart_from_others_and_never_goes_back();
    a_key_and_a_random_seed_are_needed();
    return verdict("sealed");
}
