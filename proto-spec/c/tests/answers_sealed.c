/* What is different for asks in sealed mode (PROTOCOL.md#answers, PROTOCOL.md#sealed). A test's name is a sentence about behaviour. */
#include "bench.h"
#include "world.h"

#include "../duragram_monocypher.h"

static bench bench_[1];
#define B bench_
static const uint8_t key[32] = {0x42};
static server world;

static void start_sealed(uint32_t epoch, uint32_t boot_count) {
    dg_config config = bench_config(B, epoch);
    config.crypto = &dg_monocypher;
    config.key = key;
    config.boot_count = boot_count;
    start_with(B, &config, 400);
    dg_take(&B->c, 20000);
    memset(&world, 0, sizeof world);
    world.client = ID;
    world.key = key;
    world.window = 100;
    world.asks_max = 64;
}

static dg_result replies(unsigned type, unsigned small, uint32_t epoch, uint64_t number, uint32_t word) {
    uint8_t d[300];
    return comes(B, d, reply(&world, d, type, small, epoch, number, word));
}

/* An ANSWER with the body that belongs to a message. */
static size_t sealed_answer(uint32_t epoch, uint64_t number, uint32_t message, uint8_t *d) {
    asked a = {.message = message};
    return answer_to(&world, epoch, number, DG_ANSWER_DONE, 0, &a, 300, d);
}

static uint64_t counter(unsigned i) {
    return i < B->sent_count ? load64(B->sent[i].bytes + 28) : 0;
}

/* What the server makes of a datagram that the client sent; whether its seal is right. */
static bool is_right(unsigned i) {
    uint8_t d[300];
    world.corrupt = false;
    server_handles(&world, B->sent[i].bytes, B->sent[i].len, B->now, d);
    return !world.corrupt;
}

/* As the server of world.h knows messages. */
static void ask(void) {
    uint8_t payload[100];
    size_t len = payload_of(0, payload, 100);
    CHECK(dg_send(&B->c, 0, payload, len, DG_ASK) == DG_OK);
    poll(B);
}

static void ask_one(void) {
    ask();
    CHECK(replies(ACK, 100, 3, 1, 0) == DG_OK && dg_waiting(&B->c) == 1);
}

static void a_take_has_its_zeros_in_clear_and_a_counter_of_its_own(void) {
    start_sealed(3, 5);
    ask_one();
    CHECK(B->sent_count == 1 && type(B, 0) == TAKE && flags(B, 0) == 8 && B->sent[0].len == 52 && counter(0) == (5ull << 32 | 1));
    CHECK(is_right(0));
    CHECK(replies(ANSWER, DG_ANSWER_DONE, 3, 1, 20) == DG_OK);
    CHECK(B->sent_count == 1 && B->sent[0].len == 72 && counter(0) == (5ull << 32 | 2) && is_right(0));
}

static void a_body_is_decrypted_and_the_datagram_that_came_stays_as_it_was(void) {
    uint8_t d[300], same[300], body[100];
    size_t len, body_len = answer_of(4, body);
    start_sealed(3, 5);
    ask_one();
    len = sealed_answer(3, 1, 4, d);
    memcpy(same, d, len);
    CHECK(body_len > 0 && comes(B, d, len) == DG_OK && memcmp(d, same, len) == 0);
    CHECK(B->answers == 1 && B->body_len == body_len && memcmp(B->body, body, body_len) == 0);
    CHECK(comes(B, d, len) == DG_IGNORED && B->answers == 1);
}

static void a_forged_answer_is_ignored_and_nothing_of_it_is_told(void) {
    static const uint8_t other[32] = {0x43};
    uint8_t d[300];
    size_t len;
    start_sealed(3, 5);
    ask_one();
    CHECK(answer_comes(B, 3, 1, DG_ANSWER_DONE, 0, NULL, 0) == DG_IGNORED); /* Plain. */
    world.key = other;
    len = sealed_answer(3, 1, 4, d);
    CHECK(comes(B, d, len) == DG_IGNORED);
    world.key = key;
    len = sealed_answer(3, 1, 4, d);
    for (unsigned bit = 0; bit < 8 * len; bit++) {
        d[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK(comes(B, d, len) == DG_IGNORED);
        d[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t cut = 0; cut < len; cut++) {
        CHECK(comes(B, d, cut) == DG_IGNORED);
    }
    CHECK(B->answers == 0 && comes(B, d, len) == DG_OK && B->answers == 1);
}

#if DG_ANSWER_MAX < 80
static void a_body_longer_than_the_client_has_room_for_overwrites_nothing(void) {
    uint8_t d[300], body[100], same[sizeof B->cells];
    size_t len, scratch = (DG_ANSWER_MAX + DG_OVERHEAD + 15) / 16 * 16;
    uint32_t message = 1;
    dg_config config;
    start_sealed(3, 5);
    config = B->c.config;
    config.payload_max = 0;
    /* The buffer ends in the middle of the cells: what lies behind it must stay. */
    CHECK(dg_init(&B->c, &config, B->cells, DG_CELLS(4, 0)) == DG_OK);
    B->c.doubt = 0;
    dg_take(&B->c, 20000);
    CHECK(dg_send(&B->c, 0, NULL, 0, DG_ASK) == DG_OK);
    poll(B);
    CHECK(replies(ACK, 100, 3, 1, 0) == DG_OK && dg_waiting(&B->c) == 1);
    while (answer_of(message, body) < 80) {
        message++;
    }
    len = sealed_answer(3, 1, message, d);
    memcpy(same, B->cells, sizeof same);
    CHECK(len > scratch && dg_input(&B->c, d, len, B->now) == DG_IGNORED && B->answers == 0);
    CHECK(memcmp(same, B->cells, sizeof same) == 0);
}
#endif

static void c6_what_waits_in_an_old_epoch_is_taken_with_its_keys_and_never_with_a_counter_used_there(void) {
    for (uint32_t boot_count = 0; boot_count < 2; boot_count++) {
        uint8_t d[300];
        uint64_t highest = 0;
        start_sealed(3, boot_count);
        ask_one();
        highest = counter(0);
        ask();
        CHECK(counter(0) > highest && replies(REJECT, 4, 3, 2, 0) == DG_OK);
        CHECK(B->sent_count == 1 && type(B, 0) == DATA && epoch_of(B, 0) == 4 && is_right(0));
        for (unsigned i = 0; i < 8; i++) {
            for (unsigned j = 0; j < B->sent_count; j++) {
                CHECK(counter(j) > highest && is_right(j));
                CHECK(type(B, j) != TAKE || (epoch_of(B, j) == 3 && seq(B, j) == 1));
                highest = counter(j);
            }
            pass(B, B->wait);
        }
        CHECK(comes(B, d, sealed_answer(4, 1, 4, d)) == DG_IGNORED);
        CHECK(comes(B, d, sealed_answer(3, 1, 4, d)) == DG_OK && B->answers == 1 && B->answered.epoch == 3);
    }
}

static void c6_with_a_counter_that_is_used_up_what_waits_is_gone(void) {
    start_sealed(3, 1);
    ask_one();
    B->c.counter |= 0xffffffffu;
    ask();
    CHECK(B->sent_count == 1 && counter(0) == (1ull << 32 | 0xffffffff));
    poll(B);
    CHECK(B->answers == 1 && B->answer == DG_ANSWER_GONE && B->answered.seq == 1 && B->sent_count == 0);
    CHECK(replies(ACK, 100, 3, 2, 0) == DG_OK && B->answers == 2 && B->sent_count == 0 && dg_waiting(&B->c) == 0);
    give(B, 1, 0);
    CHECK(B->sent_count >= 1 && epoch_of(B, B->sent_count - 1) == 4);
}

static void c8_after_a_restart_it_is_taken_with_a_counter_above_all_of_the_run_before(void) {
    dg_ask kept[8];
    dg_config config;
    uint64_t highest;
    uint8_t d[300];
    start_sealed(3, 5);
    ask_one();
    highest = counter(0);
    memcpy(kept, B->asks, sizeof kept);
    start_sealed(0, 6);
    config = B->c.config;
    memcpy(B->asks, kept, sizeof kept);
    CHECK(dg_init(&B->c, &config, B->cells, 400) == DG_OK);
    dg_take(&B->c, 20000);
    poll(B);
    CHECK(B->sent_count == 1 && type(B, 0) == TAKE && epoch_of(B, 0) == 3 && counter(0) > highest && is_right(0));
    CHECK(comes(B, d, sealed_answer(3, 1, 4, d)) == DG_OK && B->answers == 1);
}

int main(void) {
    a_take_has_its_zeros_in_clear_and_a_counter_of_its_own();
    a_body_is_decrypted_and_the_datagram_that_came_stays_as_it_was();
    a_forged_answer_is_ignored_and_nothing_of_it_is_told();
#if DG_ANSWER_MAX < 80
    a_body_longer_than_the_client_has_room_for_overwrites_nothing();
#endif
    c6_what_waits_in_an_old_epoch_is_taken_with_its_keys_and_never_with_a_counter_used_there();
    c6_with_a_counter_that_is_used_up_what_waits_is_gone();
    c8_after_a_restart_it_is_taken_with_a_counter_above_all_of_the_run_before();
    return verdict("answers_sealed");
}
