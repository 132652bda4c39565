/* What counts as lost, and what a loss does to the window (PROTOCOL.md#duty-loss, PROTOCOL.md#duty-congestion). */
#include "bench.h"

enum { COMPLETE = 64 };

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
    CHECK(B->sent_count == 33 && seq(B, 0) == 6 && seq(B, 32) == 38);
}

static void a_retransmission_of_what_the_server_had_shows_nothing_of_those_beside_it(void) {
    in_flight(60);
    ack_with(0, 0, 0x1e);
    B->now += 90;
    ack_with(0, 5, 0);
    CHECK(B->sent_count == 53 && seq(B, 0) == 6); /* 6 to 58, by their age; of 6 alone the server said that it is missing. */
    B->now += 40;
    /* 50 was there before it was sent again: of 31 to 49 it says nothing. 6 overtook 59. */
    ack_with(0, 30, 1u << 19);
    CHECK(B->sent_count == 1 && seq(B, 0) == 59);
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
    CHECK(B->c.window == 10 && B->c.threshold == 100 && B->sent_count == 8 && seq(B, 0) == 2);
    B->now += 40;
    ack_with(COMPLETE, 9, 0);
    CHECK(B->sent_count == 18 && B->c.window == 18); /* By slow start. */
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

int main(void) {
    a_complete_ack_tells_of_all_that_was_overtaken();
    any_ack_tells_of_the_seq_above_its_floor_and_no_other_without_a_bitmap();
    what_was_overtaken_and_is_as_old_as_a_timeout_is_lost_though_no_ack_tells_of_it();
    a_retransmission_of_what_the_server_had_shows_nothing_of_those_beside_it();
    an_answer_that_comes_too_soon_is_that_to_an_earlier_transmission();
    losses_before_an_expiry_leave_a_window_of_ten_and_half_a_threshold();
    an_expiry_without_losses_leaves_the_window_as_it_was();
    a_floor_that_is_out_of_reach_is_not_believed_however_far_it_lies();
    return verdict("losses");
}
