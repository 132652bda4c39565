/*
 * Bursts of losses (PROTOCOL.md#duty-loss): a window that has opened as wide as it can, then a share of so many datagrams in a
 * row, or of their ACKs, is lost: 64 of them, half a window or a whole one. Counts the round trips until all of them are acked,
 * beside one timeout. `bursts [-v] WINDOW...`
 */
#include "check.h"

enum { DELAY_MS = 20, ROUND_TRIP_MS = 2 * DELAY_MS, ROUND_TRIPS_MAX = 12, WINDOW_MAX = 4096, LEN_MIN = 64, PACKETS_MAX = 1 << 16 };

typedef struct {
    uint32_t at, seq; /* Of an ACK: the floor. */
    unsigned payload_len, bits_len;
    bool complete;
    uint8_t bits[128];
} packet;

/* A way: what is sent arrives in its order, after the delay. */
typedef struct {
    packet packets[PACKETS_MAX];
    unsigned head, tail;
} way;

static way up, down;
static dg_client client;
static dg_cell cells[DG_CELLS(2 * WINDOW_MAX, 100)];
static uint32_t now, epoch, server_floor, acked, timeout_ms, timeouts, sent_again;
static bool journaled[1 << 16];
/* As all of it was once the window was as wide as it can be: each burst begins there. */
static struct {
    dg_client client;
    dg_cell cells[DG_CELLS(2 * WINDOW_MAX, 100)];
    uint32_t now, server_floor, acked;
    bool journaled[1 << 16];
} warm;
static struct {
    bool of_answers;
    unsigned left, percent;
} burst;
/* Of datagrams, and of their ACKs. */
static uint32_t delay_up_ms = DELAY_MS, delay_down_ms = DELAY_MS;
static uint64_t random_state;
static double most;

static bool chance(unsigned percent) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % 100 < percent;
}

static packet *put_on(way *w, bool is_answers) {
    if (burst.left && burst.of_answers == is_answers) {
        burst.left--;
        if (chance(burst.percent)) {
            return NULL;
        }
    }
    packet *p = &w->packets[w->tail++ % PACKETS_MAX];
    memset(p, 0, sizeof *p);
    p->at = now + (is_answers ? delay_down_ms : delay_up_ms);
    return p;
}

static packet *arrived_on(way *w) {
    return w->head != w->tail && w->packets[w->head % PACKETS_MAX].at == now ? &w->packets[w->head++ % PACKETS_MAX] : NULL;
}

static void client_sends(void *user, const uint8_t *d, size_t len) {
    (void)user;
    CHECK((d[0] & 15) == 1);
    sent_again += (d[1] & 7) != 0;
    packet *p = put_on(&up, false);
    if (p) {
        p->seq = load32(d + 16);
        p->payload_len = (unsigned)len - 32;
    }
}

static void client_tells(void *user, dg_event event, uint32_t message, uint32_t detail) {
    (void)user;
    (void)message;
    (void)detail;
    acked += event == DG_ACKED;
}

static void answer(unsigned window, unsigned payload_len) {
    unsigned room = payload_len / 8 * 8, highest = 0;
    packet *p = put_on(&down, true);
    if (!p) {
        return;
    }
    p->seq = server_floor;
    for (unsigned i = 1; i <= window; i++) {
        highest = journaled[server_floor + i] ? i : highest;
    }
    p->bits_len = (highest + 63) / 64 * 8;
    p->complete = p->bits_len <= room && p->bits_len <= 128;
    p->bits_len = p->bits_len < room ? p->bits_len : room;
    p->bits_len = p->bits_len < 128 ? p->bits_len : 128;
    bool any = false;
    for (unsigned i = 0; i < 8 * p->bits_len; i++) {
        p->bits[i / 8] |= (uint8_t)(journaled[server_floor + 1 + i] << i % 8);
        any |= journaled[server_floor + 1 + i];
    }
    if (!any) {
        p->bits_len = 0;
    }
}

static void tick(unsigned window, bool answer_each) {
    packet *p;
    unsigned latest = 0;
    bool any = false;
    now++;
    while ((p = arrived_on(&up))) {
        journaled[p->seq] = true;
        while (journaled[server_floor + 1]) {
            server_floor++;
        }
        latest = p->payload_len;
        any = true;
        if (answer_each) {
            answer(window, latest);
        }
    }
    if (any && !answer_each) {
        answer(window, latest);
    }
    while ((p = arrived_on(&down))) {
        uint8_t d[200];
        size_t len = plain(d, 2, p->complete ? 64 : 0, 65535, epoch, 7, p->seq, 0, p->bits, p->bits_len);
        CHECK(dg_input(&client, d, len, now) == DG_OK);
        dg_poll(&client, now);
    }
    uint32_t tries = client.tries, interval = client.timer_ms;
    dg_poll(&client, now);
    if (client.tries > tries) {
        timeouts++;
        timeout_ms = interval > timeout_ms ? interval : timeout_ms;
    }
}

static void give(unsigned messages, unsigned payload_len) {
    uint8_t payload[100] = {0};
    for (unsigned i = 0; i < messages; i++) {
        CHECK(dg_send(&client, 0, payload, payload_len, 0) == DG_OK);
    }
}

/* Messages until the congestion window is no limit; then all are acked, and nothing is on its way. */
static void warms_up(unsigned window, unsigned payload_len, bool answer_each) {
    dg_config config = {.client_id = 7, .random_seed = payload_len, .epoch = ++epoch, .payload_max = 100, .send = client_sends,
                        .event = client_tells};
    memset(journaled, 0, sizeof journaled);
    up.head = up.tail = down.head = down.tail = 0;
    server_floor = acked = 0;
    CHECK(dg_init(&client, &config, cells, DG_CELLS(2 * window, 100)) == DG_OK);
    client.doubt = 0; /* Its epoch is new. */
    while (client.window < window) {
        unsigned free_messages = window - dg_pending(&client);
        give(free_messages, payload_len);
        for (unsigned i = 0; i <= ROUND_TRIP_MS; i++) {
            tick(window, answer_each);
        }
    }
    while (dg_pending(&client)) {
        tick(window, answer_each);
    }
    for (unsigned i = 0; i < 3 * ROUND_TRIP_MS; i++) {
        tick(window, answer_each);
    }
    warm.client = client;
    memcpy(warm.cells, cells, sizeof cells);
    memcpy(warm.journaled, journaled, sizeof journaled);
    warm.now = now;
    warm.server_floor = server_floor;
    warm.acked = acked;
}

static void recovers(unsigned window, unsigned payload_len, unsigned len, unsigned percent, bool of_answers, bool answer_each,
                     unsigned more, bool told) {
    client = warm.client;
    memcpy(cells, warm.cells, sizeof cells);
    memcpy(journaled, warm.journaled, sizeof journaled);
    now = warm.now;
    server_floor = warm.server_floor;
    acked = warm.acked;
    up.head = up.tail = down.head = down.tail = 0;
    random_state = len * 1000 + percent + payload_len + window;
    uint32_t begin = now, wanted = acked + len;
    timeout_ms = timeouts = sent_again = 0;
    burst.of_answers = of_answers;
    /* Of one ACK for each flight there is one. */
    burst.left = of_answers && !answer_each ? 1 : len;
    burst.percent = percent;
    give(len + more, payload_len);
    dg_poll(&client, now);
    while (acked < wanted && now - begin < 30000) {
        tick(window, answer_each);
    }
    burst.left = 0;
    while (dg_pending(&client) && now - begin < 60000) {
        tick(window, answer_each);
    }
    uint32_t waited = now - begin - timeout_ms;
    most = waited / (double)ROUND_TRIP_MS > most ? waited / (double)ROUND_TRIP_MS : most;
    bool right = waited <= ROUND_TRIPS_MAX * ROUND_TRIP_MS && !dg_pending(&client);
    if (told || !right) {
        printf("%3u %% of %4u %s in %4u, %3u bytes, %s, %4u more: %4.1f round trips, %u timeouts, %u sent again\n", percent, len,
               of_answers ? "ACKs" : "datagrams", window, payload_len, answer_each ? "one ACK each" : "one ACK a flight", more,
               waited / (double)ROUND_TRIP_MS, timeouts, sent_again);
    }
    check(right, "made good within 12 round trips and a timeout", "", __FILE__, __LINE__);
}

/* Milliseconds that 12,000 messages take on a path of one, on which a share of so many datagrams is lost, all of them counted. */
static uint32_t stretch(unsigned length, unsigned percent, unsigned seed) {
    enum { MESSAGES = 12000, HELD_MAX = 1024, AFTER = 3000 };
    dg_config config = {.client_id = 7, .random_seed = seed, .epoch = ++epoch, .payload_max = 100, .send = client_sends,
                        .event = client_tells};
    const uint8_t payload[100] = {0};
    uint32_t begin = now;
    memset(journaled, 0, sizeof journaled);
    up.head = up.tail = down.head = down.tail = 0;
    server_floor = acked = 0;
    random_state = seed;
    delay_up_ms = 1;
    delay_down_ms = 0;
    burst.of_answers = false;
    burst.percent = percent;
    CHECK(dg_init(&client, &config, cells, DG_CELLS(HELD_MAX, 100)) == DG_OK);
    client.doubt = 0;
    for (unsigned given = 0; (given < MESSAGES || dg_pending(&client)) && now - begin < 60000; tick(WINDOW_MAX, false)) {
        while (given < MESSAGES && dg_pending(&client) < HELD_MAX && dg_send(&client, 0, payload, sizeof payload, 0) == DG_OK) {
            given++;
        }
        if (length && up.tail >= AFTER) {
            burst.left = length;
            length = 0;
        }
    }
    delay_up_ms = delay_down_ms = DELAY_MS;
    return now - begin;
}

/* It never falls silent: the median of three is within the limit. */
static void is_passed(unsigned length, unsigned percent, uint32_t ms_max) {
    unsigned in_time = 0;
    for (unsigned seed = 1; seed <= 3; seed++) {
        uint32_t ms = stretch(length, percent, seed);
        printf("%u %% of %u in a row on a short path: %u ms\n", percent, length, ms);
        in_time += ms <= ms_max;
    }
    check(in_time >= 2, "a lossy stretch longer than the window is passed without falling silent", "", __FILE__, __LINE__);
}

int main(int argc, char **argv) {
    static const unsigned lens[] = {0, 8, 20, 100}, percents[] = {5, 30, 60, 100};
    bool told = argc > 1 && strcmp(argv[1], "-v") == 0;
    for (int w = 1 + told; w < argc; w++) {
        unsigned window = (unsigned)strtoul(argv[w], NULL, 10);
        if (window < 4 || window > WINDOW_MAX) {
            fprintf(stderr, "usage: bursts [-v] WINDOW...\n");
            return 2;
        }
        for (unsigned l = 0; l < 8; l++) {
            unsigned payload_len = lens[l / 2];
            bool answer_each = l % 2;
            warms_up(window, payload_len, answer_each);
            for (unsigned p = 0; p < 4; p++) {
                for (unsigned of_answers = 0; of_answers < 2; of_answers++) {
                    unsigned least = window < LEN_MIN ? window : LEN_MIN;
                    recovers(window, payload_len, window, percents[p], of_answers, answer_each, 0, told);
                    recovers(window, payload_len, window / 2, percents[p], of_answers, answer_each, window / 2, told);
                    recovers(window, payload_len, least, percents[p], of_answers, answer_each, 0, told);
                    recovers(window, payload_len, least, percents[p], of_answers, answer_each, window, told);
                }
            }
        }
    }
    is_passed(6000, 30, 1500);
    is_passed(3500, 60, 1500);
    printf("at most %.1f round trips beside a timeout\n", most);
    return verdict("bursts");
}
