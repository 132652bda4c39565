/* What a calling program, its network stack or a strange server may do to a client. A test's name says what is right. */
#include "bench.h"

static bench bench_[1];
#define B bench_

static void wrong_arguments_of_dg_init_are_refused_and_change_nothing(void) {
    static dg_cell cells[300];
    dg_config config = bench_config(B, 3), wrong;
    dg_client c, same;
    memset(&c, 0xa5, sizeof c);
    memcpy(&same, &c, sizeof c);
    CHECK(dg_init(NULL, &config, cells, 300) == DG_BAD_ARGUMENT);
    CHECK(dg_init(&c, NULL, cells, 300) == DG_BAD_ARGUMENT);
    CHECK(dg_init(&c, &config, NULL, 300) == DG_BAD_ARGUMENT);
    CHECK(dg_init(&c, &config, (dg_cell *)(void *)((uint8_t *)cells + 1), 299) == DG_BAD_ARGUMENT);
    CHECK(dg_init(&c, &config, (dg_cell *)(void *)((uint8_t *)cells + 2), 299) == DG_BAD_ARGUMENT);
    wrong = config;
    wrong.send = NULL;
    CHECK(dg_init(&c, &wrong, cells, 300) == DG_BAD_ARGUMENT);
    CHECK(dg_init(&c, &config, cells, 0) == DG_TOO_LARGE);
    wrong = config;
    wrong.payload_max = UINT16_MAX; /* With its overhead no datagram; in 16 bits the sum would wrap. */
    CHECK(dg_init(&c, &wrong, cells, SIZE_MAX) == DG_TOO_LARGE);
    wrong.payload_max = DG_PAYLOAD_MAX + 1;
    CHECK(dg_init(&c, &wrong, cells, SIZE_MAX) == DG_TOO_LARGE);
    CHECK(memcmp(&same, &c, sizeof c) == 0);
}

static void callbacks_that_may_be_missing_are_not_called(void) {
    dg_config config = bench_config(B, 0);
    config.event = NULL;
    start_with(B, &config, 400);
    give(B, 1, 0);
    CHECK(welcome(B, 9, seq(B, 0), 100) == DG_OK && reject(B, 9, 1, 6, 100) == DG_OK);
    pass(B, B->wait);
    CHECK(ack(B, 9, 1, 100, 0, 0) == DG_OK && dg_pending(&B->c) == 0);
}

static void wrong_arguments_of_dg_send_are_refused_and_nothing_is_taken(void) {
    uint8_t payload[201] = {0};
    start(B, 3);
    CHECK(dg_send(NULL, 0, payload, 1, 0) == DG_BAD_ARGUMENT);
    CHECK(dg_send(&B->c, 0, NULL, 1, 0) == DG_BAD_ARGUMENT && dg_send(&B->c, 0, NULL, 2, DG_BATCH) == DG_BAD_ARGUMENT);
    CHECK(dg_send(&B->c, 65536, payload, 1, 0) == DG_BAD_ARGUMENT);
    CHECK(dg_send(&B->c, UINT32_MAX, payload, 1, 0) == DG_BAD_ARGUMENT);
    for (unsigned flag = 2; flag; flag <<= 1) {
        CHECK(dg_send(&B->c, 0, payload, 2, flag) == (flag == DG_BATCH ? DG_OK : DG_BAD_ARGUMENT));
    }
    CHECK(dg_send(&B->c, 0, payload, 201, 0) == DG_TOO_LARGE && dg_send(&B->c, 0, payload, SIZE_MAX, 0) == DG_TOO_LARGE);
    CHECK(dg_pending(&B->c) == 1); /* The batch of an empty record. */
    /* No bytes, and the highest channel, are right. */
    CHECK(dg_send(&B->c, 65535, NULL, 0, 0) == DG_OK);
    poll(B);
    CHECK(B->sent_count == 2 && B->sent[1].len == 32 && memcmp(B->sent[1].bytes + 24, "\xff\xff\0\0", 4) == 0);
}

static void wrong_arguments_of_dg_batch_change_nothing(void) {
    uint8_t batch[20] = {0}, same[20] = {0};
    size_t len = 0;
    CHECK(dg_batch(NULL, 20, &len, "a", 1) == DG_BAD_ARGUMENT && dg_batch(batch, 20, NULL, "a", 1) == DG_BAD_ARGUMENT);
    CHECK(dg_batch(batch, 20, &len, NULL, 1) == DG_BAD_ARGUMENT);
    len = 21;
    CHECK(dg_batch(batch, 20, &len, "a", 1) == DG_FULL && len == 21);
    len = 19;
    CHECK(dg_batch(batch, 20, &len, "", 0) == DG_FULL && len == 19);
    len = SIZE_MAX;
    CHECK(dg_batch(batch, SIZE_MAX, &len, "a", 1) == DG_FULL && len == SIZE_MAX);
    CHECK(memcmp(batch, same, sizeof batch) == 0);
}

static void a_record_length_that_reaches_beyond_the_batch_is_broken(void) {
    static const struct {
        uint8_t bytes[6];
        size_t len;
    } broken[] = {{{0xfe, 0xff, 1, 2}, 4}, {{0xff, 0xff}, 2}, {{0xfd, 0xff, 1}, 3}, {{0, 0, 0xfc, 0xff, 1, 1}, 6}, {{0}, 1},
                  {{1, 0}, 2},             {{0, 0, 0}, 3},    {{2, 0, 1}, 3}};
    start(B, 3);
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        CHECK(dg_send(&B->c, 0, broken[i].bytes, broken[i].len, DG_BATCH) == DG_BROKEN_BATCH);
    }
    CHECK(dg_pending(&B->c) == 0);
}

static void a_client_that_was_not_made_takes_nothing_and_sends_nothing(void) {
    uint8_t d[32] = {0};
    memset(&B->c, 0, sizeof B->c);
    CHECK(dg_send(&B->c, 0, "", 0, 0) == DG_FULL && dg_send(&B->c, 0, "", 0, DG_MAKE_ROOM) == DG_FULL);
    CHECK(dg_poll(&B->c, 5) == UINT32_MAX && dg_pending(&B->c) == 0 && dg_abandon(&B->c) == DG_IGNORED);
    CHECK(dg_input(&B->c, d, plain(d, ACK, 0, 9, 0, 0, 0, 0, NULL, 0), 5) == DG_IGNORED);
}

static void without_a_client_every_call_does_nothing(void) {
    uint8_t d[40];
    size_t len = plain(d, ACK, 0, 9, 3, ID, 1, 0, NULL, 0);
    CHECK(dg_send(NULL, 0, "a", 1, 0) == DG_BAD_ARGUMENT && dg_input(NULL, d, len, 5) == DG_IGNORED);
    CHECK(dg_poll(NULL, 5) == UINT32_MAX && dg_pending(NULL) == 0 && dg_abandon(NULL) == DG_IGNORED);
    dg_path_changed(NULL);
    dg_too_large(NULL);
}

static void no_datagram_is_none_whatever_its_length(void) {
    start(B, 3);
    give(B, 1, 0);
    CHECK(dg_input(&B->c, NULL, 40, B->now) == DG_IGNORED && dg_input(&B->c, NULL, 0, B->now) == DG_IGNORED);
    CHECK(dg_input(&B->c, B->sent[0].bytes, SIZE_MAX, B->now) == DG_IGNORED);
}

/* A network that takes no datagram longer than this. */
static size_t longest;
static unsigned refused;

static void send_unless_too_large(void *user, const uint8_t *datagram, size_t len) {
    bench *b = user;
    if (len > longest) {
        refused++;
        dg_too_large(&b->c);
    } else {
        bench_send(user, datagram, len);
    }
}

static void start_on_a_narrow_network(void) {
    dg_config config = bench_config(B, 3);
    config.send = send_unless_too_large;
    start_with(B, &config, 400);
    longest = 100;
    refused = 0;
}

static void what_the_network_never_takes_fails_and_the_others_go_on(void) {
    start_on_a_narrow_network();
    CHECK(dg_send(&B->c, 0, "a", 1, 0) == DG_OK);
    give(B, 1, 69);
    CHECK(B->sent_count == 1 && refused == 1 && B->count[DG_FAILED] == 1 && B->last_message[DG_FAILED] == 1);
    CHECK(B->last_detail[DG_FAILED] == 3 && dg_pending(&B->c) == 1);
    give(B, 1, 68);
    /* It was never sent, so that its seq is the next one's, and nothing is skipped. */
    CHECK(B->sent_count == 1 && seq(B, 0) == 2 && !(flags(B, 0) & SKIP));
    ack(B, 3, 2, 100, 0, 0);
    CHECK(dg_pending(&B->c) == 0 && B->last_message[DG_ACKED] == 2 && B->wait == UINT32_MAX && refused == 1);
    /* As the first, and as the only ones. */
    give(B, 3, 200);
    CHECK(dg_pending(&B->c) == 0 && B->count[DG_FAILED] == 4 && B->c.used == 0 && B->wait == UINT32_MAX && refused == 4);
    give(B, 1, 1);
    CHECK(seq(B, 0) == 3 && span(B, 0) == 0);
}

static void what_becomes_too_large_later_fails_and_is_skipped(void) {
    start_on_a_narrow_network();
    give(B, 1, 60);
    CHECK(B->sent_count == 1);
    longest = 80; /* The path is narrower now. */
    pass(B, B->wait);
    CHECK(B->sent_count == 0 && B->count[DG_FAILED] == 1 && dg_pending(&B->c) == 0);
    give(B, 1, 10);
    CHECK(B->sent_count == 1 && seq(B, 0) == 2 && (flags(B, 0) & SKIP));
    ack(B, 3, 2, 100, 0, 0);
    CHECK(dg_pending(&B->c) == 0 && B->c.in_flight == 0);
}

static void one_refusal_does_not_reach_to_the_next_datagram(void) {
    start_on_a_narrow_network();
    dg_too_large(&B->c); /* Out of place. */
    give(B, 1, 10);
    CHECK(B->sent_count == 1 && dg_pending(&B->c) == 1);
    longest = 20; /* Not even HELLO or PING. */
    ack(B, 3, 1, 0, 0, 0);
    give(B, 1, 10);
    pass(B, B->wait);
    CHECK(refused == 1 && B->sent_count == 0);
    longest = 100;
    pass(B, B->wait);
    CHECK(type(B, 0) == PING && ack(B, 3, 1, 9, 0, 0) == DG_OK && B->sent_count == 1);
    CHECK(ack(B, 3, 2, 9, 0, 0) == DG_OK && B->count[DG_FAILED] == 0 && B->count[DG_ACKED] == 2);
}

/* Answers each PING at once, for some seconds, as `answer` says; how many PINGs came. */
static unsigned pings_of(uint32_t ms, void (*answer)(unsigned pings)) {
    unsigned pings = 0;
    uint32_t end = B->now + ms;
    poll(B);
    while (B->now != end) {
        unsigned sent = B->sent_count;
        bool pinged = sent && type(B, 0) == PING;
        CHECK(sent <= 1 && (!sent || pinged || type(B, 0) == DATA));
        B->sent_count = 0;
        pings += pinged;
        if (pinged || B->now % 7 == 0) {
            answer(pings);
        } else {
            B->now++;
            poll(B);
        }
        if (pinged) {
            B->now++;
        }
    }
    return pings;
}

static void says_no_credit(unsigned pings) {
    (void)pings;
    ack(B, 3, 1, 0, 0, 0);
    if (B->now % 7 == 0) {
        B->now++;
    }
}

static void without_credit_no_answer_hastens_the_next_ping(void) {
    start(B, 3);
    give(B, 1, 0);
    B->now += 20;
    ack(B, 3, 1, 0, 0, 0);
    give(B, 3, 0);
    CHECK(B->sent_count == 0);
    /* The timeout is some 60 ms by now, and doubles: 60, 180, 420, 900, 1,860, 3,780, 7,620. */
    CHECK(pings_of(10000, says_no_credit) <= 8);
}

static void a_loss_does_not_enlarge_a_window_of_one(void) {
    start(B, 3);
    give(B, 6, 16);
    CHECK(B->sent_count == 6);
    B->c.window = 1; /* As after silence, or a wait that the server asked for. */
    ack(B, 3, 0, 100, 0x3e, 0);
    CHECK(B->sent_count == 1 && seq(B, 0) == 1 && B->c.window == 1);
}

static void the_clock_may_wrap_anywhere(void) {
    for (uint32_t before_wrap = 0; before_wrap < 4000; before_wrap += 50) {
        dg_config config = bench_config(B, 3);
        start_with(B, &config, 400);
        B->now = 0u - before_wrap;
        give(B, 1, 8);
        uint32_t first = B->now, wait = B->wait;
        CHECK(wait >= 1000 && wait <= 1250);
        pass(B, B->wait - 1);
        CHECK(B->sent_count == 0);
        pass(B, 1);
        CHECK(B->sent_count == 1 && B->now - first == wait);
        CHECK(B->wait >= 2000 && B->wait <= 2500);
        B->now += 30;
        CHECK(ack(B, 3, 1, 9, 0, 0) == DG_OK && dg_pending(&B->c) == 0);
        give(B, 1, 8);
        B->now += 100;
        ack(B, 3, 2, 9, 0, 0);
        CHECK(B->c.shortest && B->c.rtt8 == 800);
    }
}

int main(void) {
    wrong_arguments_of_dg_init_are_refused_and_change_nothing();
    callbacks_that_may_be_missing_are_not_called();
    wrong_arguments_of_dg_send_are_refused_and_nothing_is_taken();
    wrong_arguments_of_dg_batch_change_nothing();
    a_record_length_that_reaches_beyond_the_batch_is_broken();
    a_client_that_was_not_made_takes_nothing_and_sends_nothing();
    without_a_client_every_call_does_nothing();
    no_datagram_is_none_whatever_its_length();
    what_the_network_never_takes_fails_and_the_others_go_on();
    what_becomes_too_large_later_fails_and_is_skipped();
    one_refusal_does_not_reach_to_the_next_datagram();
    without_credit_no_answer_hastens_the_next_ping();
    a_loss_does_not_enlarge_a_window_of_one();
    the_clock_may_wrap_anywhere();
    return verdict("misuse");
}
