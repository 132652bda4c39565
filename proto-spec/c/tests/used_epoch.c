/*
 * An epoch that the device was given, and that was used before: the server holds other data under its numbers, and would take
 * what is sent now for duplicates of it. The client notices, counts nothing as acked, and goes on in an epoch of the server's.
 */
#include "bench.h"

enum { DUPLICATE = 16 };

static bench bench_[1];
#define B bench_

/* As a device starts: nobody has seen yet whether its epoch is new. */
static void start_in_doubt(uint32_t epoch) {
    dg_config config = bench_config(B, epoch);
    memset(B, 0, sizeof *B);
    CHECK(dg_init(&B->c, &config, B->cells, 400) == DG_OK);
}

static dg_result ack_with(unsigned ack_flags, uint32_t epoch, uint64_t floor, uint64_t bitmap) {
    uint8_t d[64], bits[8];
    store(bits, bitmap, 8);
    return comes(B, d, plain(d, ACK, ack_flags, 100, epoch, ID, floor, 0, bits, bitmap ? 8 : 0));
}

/* Nothing was counted as acked; all of it goes out again in the epoch that the server gives. */
static void goes_on_by_hello(unsigned messages) {
    CHECK(B->count[DG_EPOCH_USED] == 1 && B->last_detail[DG_EPOCH_USED] == 3);
    CHECK(B->count[DG_ACKED] == 0 && B->count[DG_FAILED] == 0 && dg_pending(&B->c) == messages);
    CHECK(B->sent_count == 1 && type(B, 0) == HELLO);
    uint64_t nonce = seq(B, 0);
    /* What else the server says of the old epoch counts no more. */
    CHECK(ack_with(0, 3, 1, 0) == DG_IGNORED && ack_with(DUPLICATE, 3, 9, 0) == DG_IGNORED);
    CHECK(reject(B, 3, 1, 8, 0) == DG_IGNORED);
    CHECK(B->count[DG_ACKED] == 0 && B->count[DG_FAILED] == 0 && B->count[DG_EPOCH_USED] == 1);
    CHECK(welcome(B, 3, nonce, 100) == DG_IGNORED);
    CHECK(welcome(B, 50, nonce, 100) == DG_OK && B->last_detail[DG_EPOCH] == 50);
    CHECK(B->sent_count == messages && epoch_of(B, 0) == 50 && seq(B, 0) == 1 && (flags(B, 0) & 7) == 0);
    CHECK(ack_with(DUPLICATE, 50, messages, 0) == DG_OK && B->count[DG_ACKED] == messages); /* No doubt any more. */
    CHECK(B->count[DG_EPOCH_USED] == 1 && dg_pending(&B->c) == 0);
}

/* In which the true answer could still come. */
static void a_second_passes(void) {
    CHECK(B->count[DG_EPOCH_USED] == 0 && B->wait == 1000);
    pass(B, 999);
    CHECK(B->count[DG_EPOCH_USED] == 0 && B->sent_count == 0);
    pass(B, 1);
}

static void the_first_message_in_a_given_epoch_goes_alone(void) {
    start_in_doubt(3);
    give(B, 20, 16);
    CHECK(B->sent_count == 1 && seq(B, 0) == 1);
    pass(B, B->wait);
    CHECK(B->sent_count == 1 && seq(B, 0) == 1);
    pass(B, B->wait);
    CHECK(B->sent_count == 1 && seq(B, 0) == 1);
    CHECK(ack(B, 3, 1, 100, 0, 0) == DG_OK);
    CHECK(B->count[DG_ACKED] == 1 && B->sent_count >= 1 && seq(B, 0) == 2);
    start_in_doubt(3);
    give(B, 20, 16);
    CHECK(ack(B, 3, 1, 100, 0, 0) == DG_OK);
    CHECK(B->sent_count == 10 || B->sent_count == 11); /* As any other client then. */
    CHECK(B->count[DG_EPOCH_USED] == 0);
}

static void an_epoch_of_the_server_is_not_doubted(void) {
    start_in_doubt(0);
    give(B, 5, 16);
    CHECK(welcome(B, 50, seq(B, 0), 100) == DG_OK && B->sent_count == 5);
    CHECK(ack_with(DUPLICATE, 50, 5, 0) == DG_OK && B->count[DG_ACKED] == 5 && B->count[DG_EPOCH_USED] == 0);
    /* Nor one that follows a stale one. */
    start_in_doubt(3);
    give(B, 5, 16);
    CHECK(reject(B, 3, 1, 4, 0) == DG_OK && B->sent_count == 5 && epoch_of(B, 0) == 4);
    CHECK(ack_with(0, 4, 9, 0) == DG_NEVER_SENT && ack_with(0, 4, 9, 0) == DG_NEVER_SENT);
    CHECK(ack_with(0, 4, 5, 0) == DG_OK && B->count[DG_EPOCH_USED] == 0);
}

static void a_duplicate_though_it_was_sent_once_shows_a_used_epoch(void) {
    start_in_doubt(3);
    give(B, 4, 16);
    CHECK(ack_with(DUPLICATE, 3, 1, 0) == DG_NEVER_SENT);
    goes_on_by_hello(4);
}

static void a_duplicate_of_what_was_sent_twice_is_nothing_strange(void) {
    start_in_doubt(3);
    give(B, 1, 16);
    pass(B, B->wait);
    CHECK(ack_with(DUPLICATE, 3, 1, 0) == DG_OK);
    CHECK(B->count[DG_ACKED] == 1 && B->count[DG_EPOCH_USED] == 0 && dg_pending(&B->c) == 0);
    /* And later it is ordinary. */
    give(B, 1, 16);
    CHECK(ack_with(DUPLICATE, 3, 2, 0) == DG_OK && B->count[DG_ACKED] == 2);
}

/* In plain mode some may be forged: those that answer the second retransmission count, if no true one comes within a second. */
static void acks_of_what_was_never_sent_show_a_used_epoch_a_second_after_two_retransmissions(void) {
    start_in_doubt(3);
    give(B, 1, 16);
    CHECK(ack_with(DUPLICATE, 3, 12, 0) == DG_NEVER_SENT && B->count[DG_EPOCH_USED] == 0 && B->sent_count == 0);
    for (unsigned i = 0; i < 2; i++) {
        pass(B, B->wait);
        CHECK(B->count[DG_EPOCH_USED] == 0 && B->sent_count == 1 && seq(B, 0) == 1);
        CHECK(ack_with(DUPLICATE, 3, 12, 0) == DG_NEVER_SENT);
    }
    a_second_passes();
    goes_on_by_hello(1);
    /* Bits count too. */
    start_in_doubt(3);
    give(B, 1, 16);
    for (unsigned i = 0; i < 3; i++) {
        CHECK(B->count[DG_EPOCH_USED] == 0 && ack_with(0, 3, 0, 0x2) == DG_NEVER_SENT);
        if (i < 2) {
            pass(B, B->wait);
        }
    }
    a_second_passes();
    goes_on_by_hello(1);
}

static void one_ack_of_what_was_never_sent_after_two_retransmissions_is_enough(void) {
    start_in_doubt(3);
    give(B, 1, 16);
    pass(B, B->wait);
    pass(B, B->wait);
    CHECK(B->count[DG_EPOCH_USED] == 0 && ack_with(DUPLICATE, 3, 12, 0) == DG_NEVER_SENT);
    a_second_passes();
    goes_on_by_hello(1);
}

static void more_of_them_do_not_prolong_the_second(void) {
    start_in_doubt(3);
    give(B, 1, 16);
    pass(B, B->wait);
    pass(B, B->wait);
    for (unsigned i = 0; i < 10; i++) {
        CHECK(B->count[DG_EPOCH_USED] == 0 && ack_with(DUPLICATE, 3, 12, 0) == DG_NEVER_SENT && B->wait == 1000 - 100 * i);
        pass(B, 100);
    }
    goes_on_by_hello(1);
}

static void a_true_answer_within_the_second_settles_the_epoch(void) {
    start_in_doubt(3);
    give(B, 3, 16);
    pass(B, B->wait);
    pass(B, B->wait);
    CHECK(ack_with(DUPLICATE, 3, 12, 0) == DG_NEVER_SENT);
    pass(B, 999);
    CHECK(B->sent_count == 0 && ack_with(0, 3, 1, 0) == DG_OK && B->count[DG_ACKED] == 1);
    CHECK(B->sent_count >= 1 && seq(B, 0) == 2);
    CHECK(ack_with(0, 3, 12, 0) == DG_NEVER_SENT && ack_with(0, 3, 3, 0) == DG_OK);
    pass(B, 5000);
    CHECK(B->count[DG_EPOCH_USED] == 0 && B->count[DG_ACKED] == 3 && dg_pending(&B->c) == 0);
}

static void what_begins_anew_within_the_second_is_not_suspected(void) {
    /* The server knows nothing of the epoch. */
    start_in_doubt(3);
    give(B, 1, 16);
    pass(B, B->wait);
    pass(B, B->wait);
    CHECK(ack_with(DUPLICATE, 3, 12, 0) == DG_NEVER_SENT && reject(B, 3, 1, 4, 0) == DG_OK && epoch_of(B, 0) == 4);
    pass(B, 1000);
    CHECK(B->count[DG_EPOCH_USED] == 0 && ack_with(0, 4, 1, 0) == DG_OK && dg_pending(&B->c) == 0);
    /* After the last epoch comes the server's. */
    start_in_doubt(UINT32_MAX);
    give(B, 1, 16);
    pass(B, B->wait);
    pass(B, B->wait);
    CHECK(ack_with(DUPLICATE, UINT32_MAX, 12, 0) == DG_NEVER_SENT && reject(B, UINT32_MAX, 1, 4, 0) == DG_OK && type(B, 0) == HELLO);
    uint64_t nonce = seq(B, 0);
    pass(B, B->wait);
    CHECK(B->count[DG_EPOCH_USED] == 0 && type(B, 0) == HELLO && seq(B, 0) == nonce);
    /* What is given up takes the next. */
    start_in_doubt(3);
    give(B, 2, 16);
    pass(B, B->wait);
    pass(B, B->wait);
    CHECK(ack_with(DUPLICATE, 3, 12, 0) == DG_NEVER_SENT && dg_abandon(&B->c) == DG_OK);
    poll(B);
    CHECK(B->sent_count == 1 && epoch_of(B, 0) == 4);
    pass(B, 1000);
    CHECK(B->count[DG_EPOCH_USED] == 0);
}

static void one_forged_ack_does_not_end_an_epoch(void) {
    start_in_doubt(3);
    give(B, 2, 16);
    CHECK(ack_with(0, 3, 100, 0) == DG_NEVER_SENT);
    CHECK(ack_with(0, 3, 1, 0) == DG_OK && B->count[DG_ACKED] == 1 && B->sent_count == 1);
    for (unsigned i = 0; i < 5; i++) {
        CHECK(ack_with(0, 3, 100, 0) == DG_NEVER_SENT);
    }
    CHECK(ack_with(0, 3, 2, 0) == DG_OK && B->count[DG_ACKED] == 2 && B->count[DG_EPOCH_USED] == 0);
}

static void after_the_first_was_given_up_the_next_epoch_is_doubted_in_its_place(void) {
    start_in_doubt(3);
    give(B, 4, 16);
    CHECK(dg_abandon(&B->c) == DG_OK);
    poll(B);
    /* In epoch 3 a floor of 2 could be that of a run before; here one message is sent alone again. */
    CHECK(B->sent_count == 1 && epoch_of(B, 0) == 4 && seq(B, 0) == 1 && !(flags(B, 0) & SKIP) && B->last_detail[DG_EPOCH] == 4);
    CHECK(ack_with(DUPLICATE, 3, 2, 0) == DG_IGNORED && ack_with(DUPLICATE, 4, 1, 0) == DG_NEVER_SENT);
    CHECK(B->count[DG_EPOCH_USED] == 1 && B->last_detail[DG_EPOCH_USED] == 4 && type(B, 0) == HELLO && dg_pending(&B->c) == 3);
    /* Refused for good is given up too. */
    start_in_doubt(3);
    give(B, 2, 16);
    CHECK(reject(B, 3, 1, 8, 0) == DG_OK && B->count[DG_FAILED] == 1);
    CHECK(B->sent_count == 1 && epoch_of(B, 0) == 4 && seq(B, 0) == 1);
    CHECK(ack_with(0, 4, 1, 0) == DG_OK && dg_pending(&B->c) == 0);
    /* With nothing left to send there is nothing to ask. */
    start_in_doubt(3);
    give(B, 1, 16);
    CHECK(dg_abandon(&B->c) == DG_OK);
    pass(B, 10000);
    CHECK(B->sent_count == 0 && B->count[DG_EPOCH] == 0);
    give(B, 1, 16);
    CHECK(B->sent_count == 1 && epoch_of(B, 0) == 4);
}

static void after_a_ping_a_duplicate_is_no_sign(void) {
    start_in_doubt(3);
    give(B, 1, 16);
    ack(B, 3, 0, 0, 0, 0); /* No credit. */
    pass(B, B->wait);
    CHECK(type(B, 0) == PING && B->sent_count == 1);
    CHECK(ack_with(DUPLICATE, 3, 1, 0) == DG_OK && B->count[DG_ACKED] == 1 && B->count[DG_EPOCH_USED] == 0);
    /* In the next epoch there was none. */
    start_in_doubt(3);
    give(B, 2, 16);
    ack(B, 3, 0, 0, 0, 0);
    pass(B, B->wait);
    CHECK(type(B, 0) == PING && dg_abandon(&B->c) == DG_OK);
    ack(B, 3, 0, 100, 0, 0);
    CHECK(epoch_of(B, 0) == 4 && ack_with(DUPLICATE, 4, 1, 0) == DG_NEVER_SENT && B->count[DG_EPOCH_USED] == 1);
}

static void a_used_epoch_is_not_gone_back_to_when_all_was_given_up(void) {
    start_in_doubt(3);
    give(B, 1, 16);
    CHECK(ack_with(DUPLICATE, 3, 1, 0) == DG_NEVER_SENT && type(B, 0) == HELLO && dg_abandon(&B->c) == DG_OK);
    pass(B, 10000);
    CHECK(B->wait == UINT32_MAX);
    give(B, 1, 16);
    CHECK(B->sent_count == 1 && type(B, 0) == HELLO);
    CHECK(welcome(B, 50, seq(B, 0), 100) == DG_OK && epoch_of(B, 0) == 50);
    CHECK(ack_with(0, 50, 1, 0) == DG_OK && dg_pending(&B->c) == 0);
    /* Nor when the server refuses to give another. */
    start_in_doubt(3);
    give(B, 1, 16);
    CHECK(ack_with(DUPLICATE, 3, 1, 0) == DG_NEVER_SENT && reject(B, 0, seq(B, 0), 2, 0) == DG_OK);
    CHECK(B->count[DG_FAILED] == 1 && B->wait == UINT32_MAX);
    give(B, 1, 16);
    CHECK(B->sent_count == 1 && type(B, 0) == HELLO);
}

static void without_an_event_callback_it_goes_on_as_well(void) {
    dg_config config = bench_config(B, 3);
    config.event = NULL;
    memset(B, 0, sizeof *B);
    CHECK(dg_init(&B->c, &config, B->cells, 400) == DG_OK);
    give(B, 4, 16);
    CHECK(ack_with(DUPLICATE, 3, 1, 0) == DG_NEVER_SENT && type(B, 0) == HELLO && dg_pending(&B->c) == 4);
}

int main(void) {
    the_first_message_in_a_given_epoch_goes_alone();
    an_epoch_of_the_server_is_not_doubted();
    a_duplicate_though_it_was_sent_once_shows_a_used_epoch();
    a_duplicate_of_what_was_sent_twice_is_nothing_strange();
    acks_of_what_was_never_sent_show_a_used_epoch_a_second_after_two_retransmissions();
    one_ack_of_what_was_never_sent_after_two_retransmissions_is_enough();
    more_of_them_do_not_prolong_the_second();
    a_true_answer_within_the_second_settles_the_epoch();
    what_begins_anew_within_the_second_is_not_suspected();
    one_forged_ack_does_not_end_an_epoch();
    after_the_first_was_given_up_the_next_epoch_is_doubted_in_its_place();
    after_a_ping_a_duplicate_is_no_sign();
    a_used_epoch_is_not_gone_back_to_when_all_was_given_up();
    without_an_event_callback_it_goes_on_as_well();
    return verdict("used_epoch");
}
