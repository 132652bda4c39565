/*
 * Random worlds: a client against the server of world.h over a bad path, the server restarting, out of space, forgetting
 * idle sessions. `worlds [SEEDS [FIRST]]`. Whatever happens, each message ends once; what is acked was journaled, and once
 * only, unless the protocol says otherwise; the server is never told of acks that it did not give.
 */
#include "world.h"

#if DG_SEALED
#include "../duragram_monocypher.h"
#endif

typedef struct {
    uint32_t at;
    bool to_server;
    uint16_t len;
    uint8_t bytes[256];
} packet;

static packet packets[PACKETS_MAX];
static unsigned packet_count;
static struct {
    unsigned loss, duplicates, late;
} weather;
static uint32_t now, epochs_told;
static server world;
static dg_client client;
static dg_cell cells[2000];
static unsigned char ended[MESSAGES_MAX]; /* 0, or 1 + the event. */
static bool wrong, used_before;
static unsigned wrong_line;
static unsigned long long total_sent, total_acked, total_failed, total_abandoned, total_epochs, total_twice, total_used;

static void expect(bool right, unsigned line) {
    if (!right && !wrong) {
        wrong = true;
        wrong_line = line;
    }
}

#define EXPECT(what) expect((what), __LINE__)

#if DG_ANSWERS
static dg_ask asks[DG_ASKS_MAX];
static bool asked_for[MESSAGES_MAX];
static unsigned answered[MESSAGES_MAX];
static unsigned long long total_asked, total_answered, total_gone, total_restarts;
static bool may_be_gone;

static void client_hears(void *user, const dg_ask *ask, dg_answer answer, const uint8_t *body, uint32_t len) {
    uint8_t expected[100];
    uint32_t m = ask->message;
    size_t expected_len = answer_of(m, expected);
    (void)user;
    EXPECT(m < MESSAGES_MAX && asked_for[m % MESSAGES_MAX] && world.journaled[m % MESSAGES_MAX] > 0);
    EXPECT(answered[m % MESSAGES_MAX] == 0);
    answered[m % MESSAGES_MAX]++;
    if (answer == DG_ANSWER_GONE) {
        EXPECT(may_be_gone && len == 0 && !body);
        total_gone++;
        return;
    }
    EXPECT(answer == (m % 5 ? DG_ANSWER_DONE : DG_ANSWER_FAILED));
    EXPECT(len == expected_len && (body != NULL) == (len != 0) && (!body || memcmp(body, expected, len) == 0));
    total_answered++;
}
#endif

static void put_on_path(const uint8_t *bytes, size_t len, bool to_server) {
    unsigned copies = chance(weather.loss) ? 0 : 1 + chance(weather.duplicates);
    while (copies--) {
        if (packet_count == PACKETS_MAX) {
            return;
        }
        packet *p = &packets[packet_count++];
        p->at = now + 5 + draw(10) + (chance(weather.late) ? draw(200) : 0);
        p->to_server = to_server;
        p->len = (uint16_t)len;
        memcpy(p->bytes, bytes, len);
    }
}

static void client_sends(void *user, const uint8_t *bytes, size_t len) {
    (void)user;
    total_sent++;
    EXPECT(len <= sizeof packets->bytes);
    put_on_path(bytes, len, true);
}

static void client_tells(void *user, dg_event event, uint32_t message, uint32_t detail) {
    (void)user;
    (void)detail;
    switch (event) {
    case DG_ACKED:
    case DG_FAILED:
    case DG_ABANDONED:
        EXPECT(message < MESSAGES_MAX && !ended[message]);
        ended[message % MESSAGES_MAX] = (unsigned char)(1 + event);
        EXPECT(event != DG_ACKED || world.journaled[message] > 0);
        EXPECT(event != DG_FAILED || world.journaled[message] == 0);
        return;
    case DG_EPOCH:
        epochs_told++;
        return;
    case DG_WAIT:
        return;
    case DG_EPOCH_USED:
        /* A network that doubles the very first datagram, and loses the first of its two acks, looks like it. */
        EXPECT(used_before || weather.duplicates);
        return;
    }
}

static void arrive(unsigned i) {
    packet p = packets[i];
    uint8_t answer[300];
    packets[i] = packets[--packet_count];
    if (!p.to_server) {
        dg_result result = dg_input(&client, p.bytes, p.len, now);
        EXPECT(result == DG_OK || result == DG_IGNORED || ((used_before || weather.duplicates) && result == DG_NEVER_SENT));
        return;
    }
    size_t len = server_handles(&world, p.bytes, p.len, now, answer);
    EXPECT(len <= p.len); /* No amplification. */
    if (len) {
        put_on_path(answer, len, false);
    }
}

/* One world; returns whether all was right. */
static bool runs(uint64_t seed) {
    static const uint8_t key[32] = {1, 2, 3};
    random_state = seed;
    memset(&world, 0, sizeof world);
    memset(ended, 0, sizeof ended);
    packet_count = 0;
    wrong = false;
    epochs_told = 0;
    now = draw(UINT32_MAX);
    world.client = draw(1000);
    world.window = 1u << draw(9);
    world.unix_s = 1000;
    world.old = chance(30);
    used_before = false;
    bool may_forget = chance(20), may_give_up = chance(40), own_epoch = chance(50);
    unsigned messages = 50 + draw(150), burst = 1 + draw(30);
    size_t buffer = DG_CELLS(1 + draw(20), 100);
    dg_config config = {.client_id = world.client, .random_seed = seed * 77, .epoch = own_epoch ? 1 + draw(5000) : 0,
                        .payload_max = 100, .send = client_sends, .event = client_tells};
#if DG_ANSWERS
    memset(asks, 0, sizeof asks);
    memset(asked_for, 0, sizeof asked_for);
    memset(answered, 0, sizeof answered);
    config.asks = asks;
    config.asks_max = (uint8_t)(1 + draw(DG_ASKS_MAX));
    config.answer = client_hears;
    world.asks_max = chance(50) ? ASKS_OF_SERVER : 64; /* As many as the text says a client may have. */
    may_be_gone = may_forget;
    bool is_sleeper = chance(30), works = true;
    uint16_t wait_ms = (uint16_t)(1 + draw(5000));
#endif
    weather.loss = draw(45);
    weather.duplicates = draw(20);
    weather.late = draw(40);
#if DG_SEALED
    if (chance(50)) {
        world.key = key;
        config.key = key;
        config.crypto = &dg_monocypher;
        config.boot_count = draw(2);
    }
#else
    (void)key;
#endif
    if (own_epoch && chance(30)) {
        /* Another run used it: two messages or more, of which the server has all or some. */
        session *of = &world.sessions[0];
        used_before = true;
        of->epoch = world.highest_epoch = config.epoch;
        of->floor = chance(70) ? 2 + draw(100) : 0;
        for (unsigned i = 1; of->floor == 0 && i < world.window; i++) {
            of->above[i] = i == 1 || chance(50);
        }
        used_before = of->floor || world.window > 1;
        total_used += used_before;
    }
    EXPECT(dg_init(&client, &config, cells, buffer) == DG_OK);
#if DG_ANSWERS
    dg_take(&client, is_sleeper ? 0 : wait_ms);
#endif
#if DG_SEALED
    if (world.key && chance(20)) {
        client.counter |= 0xffffffc0u; /* It is used up soon. */
#if DG_ANSWERS
        may_be_gone = true;
#endif
    }
#endif

    uint32_t given = 0, started = now, wait = dg_poll(&client, now), trouble_until = now;
    bool is_down = false;
#if DG_ANSWERS
    while (!wrong && (given < messages || dg_pending(&client) || dg_waiting(&client))) {
#else
    while (!wrong && (given < messages || dg_pending(&client))) {
#endif
        /* To what comes next: a packet, the client's deadline, or the application and the world's whims. */
        uint32_t step = given < messages ? 1 + draw(20) : 200;
        step = step < wait ? step : wait;
        unsigned next = packet_count;
        for (unsigned i = 0; i < packet_count; i++) {
            if (packets[i].at - now <= step) {
                step = packets[i].at - now;
                next = i;
            }
        }
        now += step;
        if (next < packet_count) {
            if (packets[next].to_server && is_down) {
                packets[next] = packets[--packet_count];
            } else {
                arrive(next);
            }
        } else if (given < messages) {
            for (unsigned i = draw(burst + 1); i && given < messages; i--) {
                uint8_t payload[100];
                size_t len = payload_of(given, payload, 100);
                uint16_t channel = given % 17 == 3 ? REFUSED_CHANNEL : 7;
                unsigned flags = may_give_up && chance(50) ? DG_MAKE_ROOM : 0;
#if DG_ANSWERS
                bool asking = chance(40);
                flags |= asking ? DG_ASK : 0;
                asked_for[given] = asking; /* Before: it may be given up in the call. */
#endif
                if (dg_send(&client, channel, payload, len, flags) != DG_OK) {
                    break;
                }
                given++;
            }
            if (may_give_up && chance(2)) {
                dg_abandon(&client);
            }
            if (chance(1)) {
                dg_path_changed(&client);
            }
        }
        if ((int32_t)(now - trouble_until) > 0) {
            trouble_until = now + 100 + draw(4000);
            world.full = chance(15);
            world.shrunk = chance(15);
            is_down = chance(15);
#if DG_ANSWERS
            if (is_down) {
                memset(world.held, 0, sizeof world.held);
            }
            works = chance(70);
            if (chance(10) && !dg_pending(&client)) {
                /* The device restarts, in a new epoch. What waits was kept. */
                config.epoch = 0;
                config.random_seed++;
#if DG_SEALED
                config.boot_count += config.boot_count != 0;
#endif
                EXPECT(dg_init(&client, &config, cells, buffer) == DG_OK);
                client.first_message = given;
                dg_take(&client, is_sleeper ? 0 : wait_ms);
                total_restarts++;
            }
            if (is_sleeper) {
                dg_take(&client, 0);
            }
#endif
            /* An idle session: of one that is not, a late datagram would tell a base of long ago. */
            if (may_forget && packet_count == 0) {
#if DG_ANSWERS
                server_forgets(&world);
#else
                memset(world.sessions, 0, sizeof world.sessions);
#endif
            }
        }
#if DG_ANSWERS
        if (!is_down) {
            uint8_t answer[300];
            size_t len = server_answers(&world, now, works, answer);
            if (len) {
                put_on_path(answer, len, false);
            }
        }
#endif
        if (now - started > 4u * 3600 * 1000) {
            EXPECT(false); /* It does not come to an end. */
        }
        wait = dg_poll(&client, now);
#if DG_ANSWERS
        EXPECT(wait > 0); /* And so that the world's time goes on though a sleeper's does not. */
        wait = wait < 1000 ? wait : 1000;
#endif
        EXPECT(wait > 0 && dg_pending(&client) == client.pending && client.in_flight <= client.pending);
    }
    /* Whoever forgets what lay above a floor takes it for lost when the client is past it. */
    EXPECT(!world.corrupt && (world.lost == 0 || may_forget));
    for (uint32_t i = 0; i < given; i++) {
        unsigned end = ended[i];
        EXPECT(end != 0);
        EXPECT(end != 1 + DG_ABANDONED || may_give_up);
        EXPECT((end == 1 + DG_FAILED) == (i % 17 == 3) || end == 1 + DG_ABANDONED);
        EXPECT(world.journaled[i] <= 1 || may_forget || epochs_told > !own_epoch);
#if DG_ANSWERS
        EXPECT(!asked_for[i] || end != 1 + DG_ACKED || answered[i] >= 1);
        EXPECT(end == 1 + DG_ACKED || answered[i] == 0);
        total_asked += asked_for[i];
#endif
        total_acked += end == 1 + DG_ACKED;
        total_failed += end == 1 + DG_FAILED;
        total_abandoned += end == 1 + DG_ABANDONED;
        total_twice += world.journaled[i] > 1;
    }
    total_epochs += epochs_told;
    if (wrong) {
        fprintf(stderr, "worlds: seed %" PRIu64 ": line %u\n", seed, wrong_line);
    }
    return !wrong;
}

int main(int argc, char **argv) {
    uint64_t seeds = argc > 1 ? strtoull(argv[1], NULL, 10) : 1000, first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        check(runs(seed), "a world in which all is right", "", __FILE__, __LINE__);
        if (failures > 10) {
            break;
        }
    }
    printf("%llu datagrams sent, %llu messages acked, %llu refused, %llu given up, %llu epochs, %llu journaled in two, "
           "%llu epochs used before\n",
           total_sent, total_acked, total_failed, total_abandoned, total_epochs, total_twice, total_used);
#if DG_ANSWERS
    printf("%llu asked, %llu answered, %llu gone, %llu restarts of the client\n", total_asked, total_answered, total_gone, total_restarts);
    CHECK(seeds < 100 || (total_answered > 0 && total_gone > 0));
#endif
    return verdict("worlds");
}
