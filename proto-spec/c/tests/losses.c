/* What counts as lost, and what a loss does to the window (PROTOCOL.md#duty-loss, PROTOCOL.md#duty-congestion). */
#include "bench.h"

enum { DUPLICATE = 16, COMPLETE = 64 };

static bench bench_[1];
#define B bench_

static dg_result ack_with(unsigned ack_flags, uint64_t floor, uint64_t bitmap) {
    uint8_t d[64], bits[8];
    store(bits, bitmap, 8);
    return comes(B, d, plain(d, ACK, ack_flags, 1000, 3, ID, floor, 0, bits, bitmap ? 8 : 0));
}

/* So many of 16 bytes in flight, in a window that is wide enough; then 40 ms pass. */
static void in_flight(unsigned messages) {
    start(B, 3);
    B->c.window = 200;
    for (unsigned given = 0; given < messages; given += 40) {
        give(B, messages - given < 40 ? messages - given : 40, 16);
    }
    B->now += 40;
}

/* Seq 1 is lost, sent again, and has arrived; of the other 79 an ACK says what `flags` say. Nothing is an RTO old. */
static void the_first_is_made_good(unsigned ack_flags) {
    in_flight(80);
    ack_with(0, 0, 0x1e); /* 2 to 5. */
    CHECK(B->sent_count == 1 && seq(B, 0) == 1 && B->c.window == 100);
    B->now += 40;
    ack_with(ack_flags, 5, 0);
}

static void a_complete_ack_tells_of_all_that_was_overtaken(void) {
    the_first_is_made_good(COMPLETE);
    CHECK(B->sent_count == 73); /* 6 to 78; three before the last are not overtaken. */
    CHECK(seq(B, 0) == 6 && seq(B, 1) == 7 && (flags(B, 1) & 7) == 1);
}

static void any_ack_tells_of_the_seq_above_its_floor_and_no_other_without_a_bitmap(void) {
    the_first_is_made_good(0);
    CHECK(B->sent_count == 1 && seq(B, 0) == 6);
}

static void what_was_overtaken_and_is_as_old_as_a_timeout_is_lost_though_no_ack_tells_of_it(void) {
    in_flight(40);
    ack_with(0, 0, 0x1e);
    B->now += 90; /* With 40 ms before, more than the 120 of 40 + 4 * 20. */
    ack_with(0, 5, 0);
    CHECK(B->sent_count == 35 && seq(B, 0) == 6 && seq(B, 34) == 40);
}

static void a_retransmission_of_what_the_server_had_shows_nothing_of_those_beside_it(void) {
    in_flight(60);
    ack_with(0, 0, 0x1e);
    B->now += 90;
    ack_with(0, 5, 0);
    CHECK(B->sent_count == 55 && seq(B, 0) == 6); /* 6 to 60, by their age; of 6 alone the server said that it is missing. */
    B->now += 40;
    /* 50 was there before it was sent again: of 31 to 49 it says nothing. */
    ack_with(COMPLETE, 30, 1u << 19);
    CHECK(B->sent_count == 0);
}

static void an_answer_that_comes_too_soon_is_that_to_an_earlier_transmission(void) {
    in_flight(10);
    ack_with(COMPLETE, 0, 0x1e);
    CHECK(B->sent_count == 1 && seq(B, 0) == 1);
    B->now += 3; /* No answer ever took less than 40. */
    ack_with(COMPLETE, 5, 0);
    CHECK(B->sent_count == 0);
}

static void losses_before_an_expiry_leave_a_window_of_ten_and_half_a_threshold(void) {
    in_flight(60);
    pass(B, B->wait);
    CHECK(B->sent_count == 1 && seq(B, 0) == 1 && B->c.window == 200); /* Nothing is known yet. */
    B->now += 40;
    ack_with(COMPLETE, 1, 0);
    CHECK(B->c.window == 10 && B->c.threshold == 100 && B->sent_count == 10 && seq(B, 0) == 2);
    B->now += 40;
    ack_with(COMPLETE, 11, 0);
    CHECK(B->sent_count == 20 && B->c.window == 20); /* By slow start. */
}

static void the_last_of_a_flight_is_lost_once_something_later_has_arrived_and_a_timeout_has_passed(void) {
    in_flight(10);
    ack_with(COMPLETE, 0, 0xfe); /* 2 to 8. */
    CHECK(B->sent_count == 1 && seq(B, 0) == 1);
    B->now += 90;
    ack_with(COMPLETE, 8, 0); /* 1 arrived, which was sent after 9 and 10; not three after 9, but a timeout later. */
    CHECK(B->sent_count == 2 && seq(B, 0) == 9 && seq(B, 1) == 10 && B->c.window == 100);
    in_flight(10);
    ack_with(COMPLETE, 0, 0x7e);
    B->now += 45;
    ack_with(COMPLETE, 7, 0);
    CHECK(B->sent_count == 1 && seq(B, 0) == 8); /* Three were sent after it; 9 and 10 may only be late. */
}

static void what_was_overtaken_is_not_in_flight_though_nothing_tells_of_it(void) {
    in_flight(80);
    B->c.window = 152;
    ack_with(0, 0, 0x1e); /* 2 to 5 arrived, 1 is lost. */
    CHECK(B->sent_count == 1 && seq(B, 0) == 1 && B->c.window == 76);
    give(B, 20, 16);
    CHECK(B->sent_count == 0); /* 75 are in flight, and 1 again. */
    B->now += 40;
    ack_with(0, 5, 0); /* 6 is told of and lost; 7 to 78 were overtaken by 1, and nobody knows. */
    CHECK(B->sent_count == 21 && seq(B, 0) == 6 && seq(B, 1) == 81 && seq(B, 20) == 100);
    CHECK(B->wait < UINT32_MAX && B->c.window == 76);
}

static void an_answer_a_little_sooner_than_all_before_counts(void) {
    in_flight(10);
    ack_with(COMPLETE, 0, 0x1e);
    B->now += 31; /* More than three quarters of 40. */
    ack_with(COMPLETE, 5, 0);
    CHECK(B->sent_count == 3 && seq(B, 0) == 6 && seq(B, 2) == 8);
}

/* The second expiry in a row, after a round trip of so many ms. Returns how many go out. */
static unsigned sent_at_the_second_expiry(uint32_t round_trip_ms) {
    start(B, 3);
    B->c.window = 200;
    give(B, 1, 16);
    B->now += round_trip_ms;
    ack_with(COMPLETE, 1, 0);
    give(B, 40, 16);
    pass(B, B->wait);
    CHECK(B->sent_count == 1 && seq(B, 0) == 2 && B->c.window >= 200 && !B->c.silent);
    pass(B, B->wait);
    CHECK(seq(B, 0) == 2 && B->c.window == B->sent_count && B->c.threshold == 100 && !B->c.silent);
    unsigned sent = B->sent_count;
    pass(B, B->wait);
    CHECK(B->sent_count == 1 && seq(B, 0) == 2 && B->c.silent); /* The third: silence. */
    return sent;
}

static void a_short_path_is_kept_busy_until_the_third_timeout(void) {
    static const struct {
        uint32_t round_trip_ms;
        unsigned sent;
    } paths[] = {{0, 16}, {1, 10}, {2, 5}, {3, 3}, {4, 2}, {5, 2}, {6, 1}, {10, 1}, {40, 1}, {2000, 1}};
    for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++) {
        CHECK(sent_at_the_second_expiry(paths[i].round_trip_ms) == paths[i].sent);
    }
    /* The server's delay is not the path's. */
    uint8_t d[32];
    start(B, 3);
    give(B, 1, 16);
    B->now += 41;
    comes(B, d, plain(d, ACK, COMPLETE, 1000, 3, ID, 1, 40000, NULL, 0));
    CHECK(B->c.least == 5 || B->c.least == 10); /* A thousandth of the delay is near enough. */
    /* Of another path nothing is known. */
    start(B, 3);
    give(B, 1, 16);
    ack_with(COMPLETE, 1, 0);
    CHECK(B->c.least == 16);
    dg_path_changed(&B->c);
    CHECK(B->c.least == 1);
}

static void a_loss_leaves_as_many_as_the_path_asks_for(void) {
    static const uint32_t round_trips_ms[] = {0, 1, 2, 40};
    static const unsigned windows[] = {16, 10, 6, 6};
    for (unsigned i = 0; i < 4; i++) {
        start(B, 3);
        give(B, 1, 16);
        B->now += round_trips_ms[i];
        ack_with(COMPLETE, 1, 0);
        B->c.window = 12;
        give(B, 10, 16);
        B->now += round_trips_ms[i];
        ack_with(COMPLETE, 1, 0x1e);
        CHECK(B->c.threshold == windows[i] && B->c.window == (windows[i] < 12 ? windows[i] : 12));
    }
}

static void a_small_window_is_not_cut_below_two(void) {
    start(B, 3);
    give(B, 1, 16);
    B->now += 40;
    ack_with(COMPLETE, 1, 0);
    for (unsigned window = 2; window < 4; window++) {
        in_flight(10);
        B->c.window = window;
        ack_with(COMPLETE, 0, 0x1e);
        CHECK(B->c.threshold == 2 && B->c.window == 2);
    }
}

static void what_was_sent_before_silence_opens_no_window(void) {
    start(B, 3);
    B->c.window = 200;
    give(B, 1, 16);
    ack_with(COMPLETE, 1, 0);
    give(B, 40, 16);
    for (unsigned i = 0; i < 3; i++) {
        pass(B, B->wait);
    }
    CHECK(B->sent_count == 1 && B->c.window == 16 && B->c.silent);
    ack_with(COMPLETE, 17, 0); /* The second timeout's sixteen, of which the first was sent again. */
    CHECK(B->c.window == 17);
}

/* As after a standstill: it answers the first of what it finds, and the later transmissions lie behind. */
static void the_answer_to_an_expiry_says_nothing_of_the_rest_while_the_server_reads(void) {
    in_flight(40);
    pass(B, B->wait);
    CHECK(B->sent_count == 1 && seq(B, 0) == 1);
    B->now += 2;
    ack_with(COMPLETE, 2, 0); /* 1, sent twice, and 2, sent once. */
    CHECK(B->sent_count == 1 && seq(B, 0) == 3 && B->c.window == 200); /* The lowest asks once more. */
    B->now += 2;
    ack_with(COMPLETE, 40, 0); /* It had read on. */
    CHECK(B->sent_count == 0 && dg_pending(&B->c) == 0 && B->c.window >= 200);
    /* If the rest was lost, the answer to that says so. */
    in_flight(40);
    pass(B, B->wait);
    B->now += 2;
    ack_with(COMPLETE, 2, 0);
    CHECK(B->sent_count == 1 && seq(B, 0) == 3);
    B->now += 40;
    ack_with(COMPLETE, 3, 0);
    CHECK(B->sent_count == 10 && seq(B, 0) == 4 && B->c.window == 10);
    /* So does a bitmap at once. */
    in_flight(40);
    pass(B, B->wait);
    B->now += 2;
    ack_with(COMPLETE, 1, 0x2); /* 1, and 3, sent once. */
    CHECK(B->sent_count == 10 && seq(B, 0) == 2 && B->c.window == 10);
}

static void an_expiry_without_losses_leaves_the_window_as_it_was(void) {
    in_flight(60);
    pass(B, B->wait);
    B->now += 40;
    ack_with(COMPLETE, 60, 0);
    CHECK(B->c.window == 200 && dg_pending(&B->c) == 0);
}

static void a_floor_that_is_out_of_reach_is_not_believed_however_far_it_lies(void) {
    static const uint64_t floors[] = {11, 0x7fffffff, 0x80000000u, 0xffffffff, 0x100000000, 0x100000001, 0x10000000a, 0x1ffffffff,
                                      0x7fffffffffffffff, 0x8000000000000000, UINT64_MAX - 10, UINT64_MAX};
    in_flight(10);
    for (unsigned i = 0; i < sizeof floors / sizeof *floors; i++) {
        CHECK(ack_with(0, floors[i], 0) == DG_NEVER_SENT && ack_with(COMPLETE, floors[i], 0x2) == DG_NEVER_SENT);
    }
    CHECK(dg_pending(&B->c) == 10 && B->count[DG_ACKED] == 0);
    /* And one from long ago is only late. */
    B->c.base = 0x300000000;
    B->c.above_floor = 5;
    CHECK(ack_with(0, 0x2ffffffff, 0) == DG_OK && ack_with(0, 1, 0) == DG_OK && ack_with(0, 0x200000000, 0) == DG_OK);
    CHECK(ack_with(0, 0x2fffffff0, 0x2) == DG_OK && dg_pending(&B->c) == 10);
    CHECK(ack_with(0, 0x300000000, 0) == DG_OK && dg_pending(&B->c) == 9);
}

static void a_lost_flight_of_three_costs_one_timeout(void) {
    start(B, 3);
    give(B, 3, 16);
    pass(B, B->wait);
    CHECK(B->sent_count == 1 && seq(B, 0) == 1);
    B->now += 40;
    ack_with(0, 1, 0);
    CHECK(B->sent_count == 2 && seq(B, 0) == 2 && seq(B, 1) == 3);
}

static void an_answer_to_what_the_server_had_before_is_no_round_trip(void) {
    start(B, 3);
    give(B, 2, 16);
    B->now += 30000; /* The acks that came in time were lost. */
    ack_with(DUPLICATE, 2, 0);
    CHECK(dg_pending(&B->c) == 0 && B->c.rtt8 == 0 && B->c.rto == DG_RTO_INITIAL_MS);
}

int main(void) {
    the_last_of_a_flight_is_lost_once_something_later_has_arrived_and_a_timeout_has_passed();
    what_was_overtaken_is_not_in_flight_though_nothing_tells_of_it();
    an_answer_a_little_sooner_than_all_before_counts();
    a_short_path_is_kept_busy_until_the_third_timeout();
    a_loss_leaves_as_many_as_the_path_asks_for();
    a_small_window_is_not_cut_below_two();
    what_was_sent_before_silence_opens_no_window();
    the_answer_to_an_expiry_says_nothing_of_the_rest_while_the_server_reads();
    a_complete_ack_tells_of_all_that_was_overtaken();
    any_ack_tells_of_the_seq_above_its_floor_and_no_other_without_a_bitmap();
    what_was_overtaken_and_is_as_old_as_a_timeout_is_lost_though_no_ack_tells_of_it();
    a_retransmission_of_what_the_server_had_shows_nothing_of_those_beside_it();
    an_answer_that_comes_too_soon_is_that_to_an_earlier_transmission();
    losses_before_an_expiry_leave_a_window_of_ten_and_half_a_threshold();
    an_expiry_without_losses_leaves_the_window_as_it_was();
    a_floor_that_is_out_of_reach_is_not_believed_however_far_it_lies();
    a_lost_flight_of_three_costs_one_timeout();
    an_answer_to_what_the_server_had_before_is_no_round_trip();
    return verdict("losses");
}
