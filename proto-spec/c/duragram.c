/*
 * Duragram client for microcontrollers; duragram.h says what each function does. From above to below: bytes and checksum,
 * randomness and time, the ring of messages, congestion, epochs, the timer, sending, taking answers, receiving, the calls.
 *
 * Messages stand in a ring of cells in the order of their seqs: one cell for dg_message, then those of the payload. `head`
 * is the oldest one that is neither acked nor given up; its seq, if it has one yet, is `base`. There is one timer, and what
 * it is for follows from the state, so that no two timers can contradict each other. Asks (DG_ANSWERS) outlive their messages, in
 * an array that the caller lends; each has a time of its own, and nothing but dg_poll looks at it.
 */
#include "duragram.h"

#include <stdbool.h>

/* memcpy and memset are all that is needed of libc. For bare metal (-ffreestanding) there need not be a string.h, or a right one. */
#if defined(__STDC_HOSTED__) && !__STDC_HOSTED__
#ifdef __cplusplus
extern "C" {
#endif
void *memcpy(void *to, const void *from, size_t len);
void *memset(void *to, int byte, size_t len);
#ifdef __cplusplus
}
#endif
#else
#include <string.h>
#endif

/* The longest ring: two of its indexes can be added, and its bytes counted, also where int or size_t has 16 bits. */
#define UINT_HALF (~0u / 2)
#define CELLS_MAX (SIZE_MAX / 16 < 65535 ? SIZE_MAX / 16 : UINT_HALF < 65535 ? UINT_HALF : 65535)

enum { TYPE_DATA = 1, TYPE_ACK, TYPE_REJECT, TYPE_HELLO, TYPE_WELCOME, TYPE_PING, TYPE_ANSWER, TYPE_TAKE };
enum { FLAG_DURABILITY = 3, FLAG_SEALED = 8, FLAG_WHOLE = 16 | 32, FLAG_SKIP = 128, ATTEMPT_MAX = 7 };
/* Of an ACK. */
enum { FLAG_DUPLICATE = 16, FLAG_COMPLETE = 64 };
enum { VERSION = 1, HEAD_LEN = 28, CRC_LEN = 4, COUNTER_LEN = 8, TAG_LEN = 16, BITMAP_LEN_MAX = 128 };
/* The codes for which a message fails, as bits: VERSION, UNSUPPORTED, TOO_LARGE, CHANNEL, SEALED_ONLY. */
enum { TOO_LARGE = 3, STALE_EPOCH = 4, BEYOND_WINDOW = 5, FINAL_CODES = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 8 | 1 << 9 };
/* A datagram is lost when one that was sent this many transmissions later has arrived (PROTOCOL.md#duty-loss). */
enum { REORDERING_MAX = 3 };

/* Of a message. The first three are undecided; GONE is decided and has no seq in this epoch. */
enum { UNSENT, IN_FLIGHT, LOST, ACKED, REFUSED, GONE };

#if DG_ANSWERS
/*
 * Of an ask: without a message or answer; its message is not acked. Once it is: left in peace until dg_take; to be taken after some
 * time, which may be none; a TAKE is open.
 */
enum { FREE, NAMED, RESTING, PAUSING, TAKING };
/* Of an ANSWER; TAKEs that may be open; of an ACK. */
enum { PENDING = 2, TAKES_MAX = 16, FLAG_READY = 32, FAR_BEYOND = 32767 };
#endif

/* In a message's `batch`: 64 for a batch, or this and the number of its ask. What dg_send may be given. */
#if DG_ANSWERS
enum { ASKS = 128, SEND_FLAGS = DG_BATCH | DG_MAKE_ROOM | DG_ASK };
#define BATCH_OF(m) ((uint32_t)(m)->batch & DG_BATCH)
#else
enum { SEND_FLAGS = DG_BATCH | DG_MAKE_ROOM };
#define BATCH_OF(m) ((uint32_t)(m)->batch)
#endif

/* Of an epoch that the device chose: something was acked in it; nothing yet; nothing, and a PING was sent; used before. */
enum { PROVEN, DOUBTED, DOUBTED_AND_PINGED, USED };

/* How long the true ACK may take after one of what was never sent (PROTOCOL.md#epoch-used). */
enum { TRUE_ACK_MS = 1000 };

/* A distance between seqs that none in the buffer has. */
#define FAR_AWAY (INT32_C(1) << 30)

/* What the timer is for. */
enum { NOTHING, AN_ACK, CREDIT, AN_EPOCH, A_TRUE_ACK, RESUMING };

/* The first 28 bytes of a datagram as seven words. The second and fourth of these take two each, the lower half first. */
enum { HEAD_EPOCH = 1, HEAD_CLIENT = 2, HEAD_NUMBER = 4, HEAD_WORD = 6, HEAD_WORDS = HEAD_LEN / 4 };

/* ---- Bytes ---- */

static uint32_t get32(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint16_t get16(const uint8_t *p) {
    return (uint16_t)(p[0] | (unsigned)p[1] << 8);
}

static void put32(uint8_t *p, uint32_t value) {
    unsigned i;
    for (i = 0; i < 4; i++, value >>= 8) {
        p[i] = (uint8_t)value;
    }
}

#if DG_SEALED
static uint64_t get64(const uint8_t *p) {
    return get32(p) | (uint64_t)get32(p + 4) << 32;
}

static void put64(uint8_t *p, uint64_t value) {
    put32(p, (uint32_t)value);
    put32(p + 4, (uint32_t)(value >> 32));
}
#endif

#if DG_CRC == 0
uint32_t dg_crc32(const uint8_t *bytes, size_t len) {
    uint32_t crc = 0xFFFFFFFFu;
    unsigned i;
    while (len--) {
        crc ^= *bytes++;
        for (i = 0; i < 8; i++) {
            crc = crc >> 1 ^ (0xEDB88320u & (0u - (crc & 1)));
        }
    }
    return ~crc;
}
#elif DG_CRC == 1
uint32_t dg_crc32(const uint8_t *bytes, size_t len) {
    /* Entry i is the checksum's change by the four bits i. */
    static const uint32_t table[16] = {
        0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
        0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
    };
    uint32_t crc = 0xFFFFFFFFu;
    while (len--) {
        crc ^= *bytes++;
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}
#endif

/* ---- Randomness and time ---- */

static uint32_t rotated(uint32_t x, unsigned by) {
    return x << by | x >> (32 - by);
}

/* Bob Jenkins's small generator: needs no multiplication. Not for secrets. */
static uint32_t random32(dg_client *c) {
    uint32_t *r = c->random;
    uint32_t e = r[0] - rotated(r[1], 27);
    r[0] = r[1] ^ rotated(r[2], 17);
    r[1] = r[2] + r[3];
    r[2] = r[3] + e;
    r[3] = e + r[0];
    return r[3];
}

/*
 * `ms`, at most the longest interval, and up to 1/2^shift of it more at random: devices that lost their server together must not
 * come back together.
 */
static uint32_t jittered(dg_client *c, uint32_t ms, unsigned shift) {
    if (ms > DG_RTO_MAX_MS) {
        ms = DG_RTO_MAX_MS;
    }
    return ms + ((ms >> shift) * (random32(c) >> 16) >> 16);
}

/* How long to wait for an answer now: twice as long with each try. */
static uint32_t timeout(dg_client *c) {
    uint32_t ms = c->rto, tries = c->tries;
    while (tries-- && ms < DG_RTO_MAX_MS) {
        ms <<= 1;
    }
    return jittered(c, ms, 2);
}

/* An answer came `elapsed` ms after the only transmission; the server held it for `delay_us` (RFC 6298). */
static void measure(dg_client *c, uint32_t elapsed, uint32_t delay_us) {
    uint32_t delay, rtt;
    /* A thousandth of it, nearly (1/1024 + 1/65,536 + 1/131,072), without the division that Cortex-M0 does not have. */
    delay_us >>= 3;
    delay = (delay_us + (delay_us >> 6) + (delay_us >> 7)) >> 7;
    if (elapsed > DG_RTO_MAX_MS) {
        elapsed = DG_RTO_MAX_MS;
    }
    if (delay > elapsed) {
        delay = elapsed;
    }
    rtt = elapsed - delay;
    delay <<= 4;
    c->delay16 -= c->delay16 >> 4;
    if (c->delay16 < delay) {
        c->delay16 = delay;
    }
    if (!c->shortest) {
        c->rtt8 = rtt << 3;
        c->variance4 = rtt << 1;
    } else {
        uint32_t smoothed = c->rtt8 >> 3;
        c->variance4 += (rtt > smoothed ? rtt - smoothed : smoothed - rtt) - (c->variance4 >> 2);
        c->rtt8 += rtt - smoothed;
    }
    if (c->shortest - 1 >= elapsed) {
        c->shortest = elapsed + 1;
    }
    c->rto = (c->rtt8 >> 3) + c->variance4 + !c->variance4;
    if (c->rto < DG_RTO_MIN_MS) {
        c->rto = DG_RTO_MIN_MS;
    }
    c->rto += c->delay16 >> 4;
    /* DG_RTO_MIN_MS by the shortest round trip, without a division (PROTOCOL.md#duty-congestion). */
    while (c->least < DG_SHORT_PATH && (c->least + 1) * rtt <= DG_RTO_MIN_MS) {
        c->least++;
    }
}

/* Of two numbers of transmissions, which wrap. */
static bool before(uint32_t a, uint32_t b) {
    return (int32_t)(a - b) < 0;
}

/* ---- The ring of messages ---- */

/* The cells of a message with so many bytes of payload. */
static unsigned cells_of(size_t len) {
    return (unsigned)((len + 2 * sizeof(dg_cell) - 1) / sizeof(dg_cell));
}

/* So many cells on from one in the ring. */
static dg_message *after(const dg_client *c, dg_message *m, unsigned cells) {
    dg_cell *cell = (dg_cell *)(void *)m;
    unsigned to_end = (unsigned)(c->scratch - cell);
    return &(cells < to_end ? cell + cells : c->cells + (cells - to_end))->message;
}

/* Copies a message's payload out of the ring, or if `in` is given into it. It may go over the ring's end. */
static void copy_payload(const dg_client *c, dg_message *m, uint8_t *out, const uint8_t *in) {
    uint8_t *at_ring = (uint8_t *)(m + 1);
    unsigned left;
    for (left = m->len; left; left--) {
        if (at_ring == c->scratch->bytes) {
            at_ring = c->cells->bytes;
        }
        if (in) {
            *at_ring++ = *in++;
        } else {
            *out++ = *at_ring++;
        }
    }
}

static void tell(dg_client *c, dg_event event, uint32_t message, uint32_t detail) {
    if (c->config.event) {
        c->config.event(c->config.user, event, message, detail);
    }
}

/* Frees the decided messages at the head. */
static void pop(dg_client *c) {
    while (c->count) {
        dg_message *m = c->head;
        unsigned cells = cells_of(m->len);
        if (m->state < ACKED) {
            return;
        }
        if (m->state != GONE) {
            c->base++;
            c->above_floor++;
            c->above_skipped++; /* Once in 2^32 it wraps, and some SKIPs then say nothing wrong: nothing is missing. */
            if (m->state == REFUSED) {
                c->above_skipped = 0;
            }
        }
        c->used = (uint16_t)(c->used - cells);
        c->head = after(c, m, cells);
        c->count--;
        c->first_message++;
    }
}

#if DG_ANSWERS
static dg_ask *ask_of(const dg_client *c, const dg_message *m) {
    return c->asks + (m->batch & ~ASKS);
}

/* An ask waits for a while, at least for a round trip. */
static void put_off(dg_client *c, dg_ask *a, uint8_t state, uint32_t ms, uint32_t now) {
    a->state = state;
    a->from_ms = now;
    a->ms = jittered(c, ms > c->rto ? ms : c->rto, 2);
}
#endif

static void decide(dg_client *c, dg_message *m, uint8_t state) {
    m->state = state;
    c->pending--;
#if DG_ANSWERS
    if (m->batch & ASKS) {
        ask_of(c, m)->state = state == ACKED ? RESTING : FREE;
    }
#endif
}

/* A loop over all messages, the oldest first. With m = NULL it stands before the oldest; then the rest need not be set. */
typedef struct {
    dg_message *m;
    /* Its seq less base: seqs before it. */
    uint32_t ahead;
    unsigned left;
} cursor;

static bool next(dg_client *c, cursor *i) {
    /* cppcheck-suppress ctuuninitvar */
    if (!i->m) {
        i->ahead = 0;
        i->m = c->head;
        i->left = c->count;
    } else {
        i->ahead += i->m->state != GONE;
        i->m = after(c, i->m, cells_of(i->m->len));
        i->left--;
    }
    return i->left != 0;
}

/* As dg_send counted it. */
static uint32_t number_of(const dg_client *c, const cursor *i) {
    return c->first_message + c->count - i->left;
}

/* A message is acked, or fails. Its place in the ring stays until `pop`. */
static void end(dg_client *c, const cursor *i, uint8_t state, uint32_t detail) {
    decide(c, i->m, state);
    tell(c, state == ACKED ? DG_ACKED : DG_FAILED, number_of(c, i), detail);
}

/* In this epoch, and undecided. */
static bool is_transmitted(const dg_message *m) {
    return m->state == IN_FLIGHT || m->state == LOST;
}

/* Goes on to what is to be transmitted next: a lost one, or after them one that was not transmitted. */
static bool candidate(dg_client *c, cursor *i) {
    while (next(c, i)) {
        if (i->m->state == LOST || i->m->state == UNSENT) {
            return true;
        }
    }
    return false;
}

/* Left the path, whether it arrived or not: three that were transmitted later have arrived, or would have. */
static bool is_overtaken(const dg_client *c, const dg_message *m) {
    return !before(c->arrived, m->order + REORDERING_MAX);
}

/* Whether the newest ACK told of a seq: then it is missing if it is not acked. */
static bool is_told(const dg_client *c, uint32_t ahead) {
    return before((uint32_t)c->base + ahead, c->told_end);
}

/* Counts what was transmitted, is waited for, is in flight; and stands on the first candidate. False: there is none. */
static bool survey(dg_client *c, cursor *i) {
    c->awaited = false;
    c->in_flight = 0;
    i->m = NULL;
    while (next(c, i) && i->m->state != UNSENT) {
        if (i->m->state == IN_FLIGHT) {
            c->awaited = true;
            c->in_flight = (uint16_t)(c->in_flight + !is_overtaken(c, i->m));
        }
    }
    c->transmitted = (uint16_t)i->ahead;
    i->m = NULL;
    return candidate(c, i);
}

/* What is in flight counts as lost: all of it, or the oldest message alone. */
static void lose_flight(dg_client *c, bool all) {
    cursor i;
    i.m = NULL;
    while (next(c, &i)) {
        if (i.m->state == IN_FLIGHT) {
            i.m->state = LOST;
        }
        if (!all) {
            break;
        }
    }
}

/* Gives up the oldest message. One that was never transmitted takes no seq with it. */
static bool drop_oldest(dg_client *c, dg_event event, uint32_t detail) {
    dg_message *m;
    if (!dg_pending(c)) {
        return false;
    }
    m = c->head;
    decide(c, m, m->state == UNSENT ? GONE : REFUSED);
    tell(c, event, c->first_message, detail);
    pop(c);
    return true;
}

/* ---- Congestion: NewReno, in datagrams (PROTOCOL.md#duty-congestion) ---- */

static void slow_down(dg_client *c) {
    c->loss_end = c->order;
    c->threshold = c->window >> 1;
    if (c->threshold < c->least) {
        c->threshold = c->least;
    }
    if (c->threshold < 2) {
        c->threshold = 2;
    }
    if (c->window > c->threshold) {
        c->window = c->threshold;
    }
    c->grown = 0;
}

/* Whether a message was transmitted before the last loss was seen, for which the window was made smaller already. */
static bool in_old_episode(const dg_client *c, const dg_message *m) {
    /* Not by `before`: without a loss the numbers go on, and wrap, while loss_end stays. Fewer than 65,536 are in flight. */
    return c->loss_end - m->order - 1 < 65536;
}

static void lose(dg_client *c, dg_message *m) {
    if (!in_old_episode(c, m)) {
        slow_down(c);
    }
    m->state = LOST;
}

static void grow(dg_client *c) {
    if (c->window >= c->threshold) {
        if (++c->grown < c->window) {
            return;
        }
        c->grown = 0;
    }
    if (c->window < UINT16_MAX) {
        c->window++;
    }
}

/* ---- Epochs (PROTOCOL.md#duty-epoch) ---- */

/* What is waited for is waited for anew, from the next poll on. */
static void restart_timer(dg_client *c) {
    if (c->timer != RESUMING) { /* The server asked for that. */
        c->timer = NOTHING;
    }
}

static void ask_for_epoch(dg_client *c, bool at_once) {
    if (!at_once) {
        c->tries = c->fruitless;
    }
    c->nonce = random32(c);
    c->nonce = c->nonce << 32 | random32(c);
    c->asking = true;
    c->hello_due = at_once;
    restart_timer(c);
}

#if DG_SEALED
/* The keys of an epoch: 32 bytes that seal what goes to the server, then 32 for what comes (PROTOCOL.md#sealed-keys). */
static void derive(const dg_client *c, uint32_t epoch, uint8_t keys[64]) {
    uint8_t text[28];
    memcpy(text, "duragram keys v1", 16);
    put64(text + 16, c->config.client_id);
    put32(text + 24, epoch);
    c->config.crypto->hash(keys, c->config.key, text, sizeof text);
}

static void make_nonce(uint8_t nonce[12], uint32_t direction, uint64_t counter) {
    put32(nonce, direction);
    put64(nonce + 4, counter);
}
#endif

#if DG_ANSWERS
/* The asks in a state are to be taken now. */
static void hasten(dg_client *c, uint8_t state) {
    dg_ask *a;
    for (a = c->asks; a != c->asks_end; a++) {
        if (a->state == state) {
            a->state = PAUSING;
            a->ms = 0;
        }
    }
}
#endif

/* A session begins: what is unacked gets new seqs, from 1 on and without holes, and counts as not transmitted. */
static void enter_epoch(dg_client *c, uint32_t epoch) {
    cursor i;
    c->epoch = epoch;
    i.m = NULL;
    while (next(c, &i)) {
        i.m->state = i.m->state < ACKED ? UNSENT : GONE;
        i.m->attempt = 0;
    }
    c->base = 1;
    c->above_floor = 0;
    c->above_skipped = 0;
    c->asking = false;
    c->timed_out = false;
    c->probe = false;
    restart_timer(c);
    c->ping_due = false;
    c->pinged = false;
    if (c->doubt) {
        c->doubt = DOUBTED;
    }
#if DG_SEALED
#if DG_ANSWERS
    /* The counter goes on, for what is taken in the old epoch. Once it is used up, nothing is. */
    if (c->config.crypto && c->counter && !c->used_up) {
        derive(c, epoch, c->keys);
    } else
#endif
    {
        c->used_up = false;
        if (c->config.crypto) {
            uint32_t high = c->config.boot_count ? c->config.boot_count : random32(c) >> 1;
            c->counter = (uint64_t)high << 32 | (c->config.boot_count ? 0 : random32(c));
            derive(c, epoch, c->keys);
        }
    }
#endif
    tell(c, DG_EPOCH, 0, epoch);
}

/* The server holds other data in the epoch that the device chose (PROTOCOL.md#epoch-used): in one of its own nothing is lost. */
static void leave_used_epoch(dg_client *c) {
    c->doubt = USED;
    tell(c, DG_EPOCH_USED, 0, c->epoch);
    ask_for_epoch(c, true);
}

/* Ends the session: a device that counts its own epochs takes the next; where that was refused too, the server knows. */
static void leave_epoch(dg_client *c) {
    if (c->config.epoch && c->fruitless <= 1 && c->epoch < UINT32_MAX) {
        uint32_t seconds = c->config.unix_time ? c->config.unix_time(c->config.user) : 0;
        enter_epoch(c, seconds > c->epoch ? seconds : c->epoch + 1);
    } else {
        ask_for_epoch(c, c->fruitless <= 2);
    }
}

/* ---- The timer ---- */

/* Whether a seq lies beyond the credit, which counts from the floor that each DATA moves up to its base. */
static bool beyond_credit(const dg_client *c, uint32_t ahead) {
    return ahead >= c->credit;
}

/* Whether there is something to send, and no credit for it. */
static bool lacks_credit(dg_client *c) {
    cursor i;
    return survey(c, &i) && beyond_credit(c, i.ahead);
}

/* Whether nothing but credit is waited for. */
static bool blocked(dg_client *c) {
    return lacks_credit(c) && !c->awaited;
}

static void start_timer(dg_client *c, uint32_t now, uint8_t what, uint32_t ms) {
    c->timer = what;
    c->timer_from = now;
    c->timer_ms = ms;
}

/* Sets the timer to what is waited for now. One that waits for the same as before goes on. */
static void set_timer(dg_client *c, uint32_t now) {
    uint8_t what = NOTHING;
    if (c->timer >= A_TRUE_ACK) {
        return;
    }
    if (c->asking) {
        what = AN_EPOCH;
    } else if (blocked(c)) {
        what = CREDIT;
    } else if (c->awaited || c->silent) {
        what = AN_ACK;
    }
    if (what != c->timer) {
        if (c->timer == CREDIT) {
            c->tries = 0;
        }
        start_timer(c, now, what, timeout(c));
    }
}

/* The lowest counts as lost, or all that is in flight, and one datagram goes out in spite of the window. */
static void probe_lowest(dg_client *c, bool all) {
    lose_flight(c, all);
    c->timed_out = true;
    c->timeout_order = c->order;
    c->probe = true;
}

/* No ACK came (PROTOCOL.md#duty-expiry). */
static void ack_timeout(dg_client *c) {
    if (!c->pending) {
        /* All was given up. The silence has lasted long enough for the next message to be tried at once. */
        c->silent = false;
        c->tries = 0;
        return;
    }
#if DG_SEALED
    /*
     * The answers in a sealed session go to whoever used the highest counter in it (PROTOCOL.md#sealed-address). If this epoch was
     * used before, that may be the run before. Half of the way up to 2^63, where counters that start at random end, and in a few
     * tries they come here. What is left of chance keeps two runs apart that have both risen.
     */
    if (c->doubt && !c->config.boot_count) {
        uint64_t random_end = (uint64_t)1 << 63;
        if (c->counter < random_end && random_end - c->counter > (uint64_t)1 << 55) {
            c->counter += (random_end - c->counter) >> 1;
        }
    }
#endif
    if (c->tries == 2) {
        slow_down(c);
        c->window = c->least;
    } else if (c->tries > 2) {
        c->silent = true;
        c->loss_end = c->order;
    }
    probe_lowest(c, c->tries > 1);
    /* The server may have shrunk its window below what is to be sent again. */
    c->ping_due = lacks_credit(c);
}

static void on_timer(dg_client *c) {
    uint8_t what = c->timer;
    c->timer = NOTHING;
    if (what == RESUMING) {
        /* Begins again with one datagram, which nothing that got no answer keeps back, and back up fast. */
        lose_flight(c, true);
        if (c->threshold < c->window) {
            c->threshold = c->window;
        }
        c->window = 1;
        c->grown = 0;
        c->hello_due = c->asking;
#if DG_ANSWERS
        /* What was had and not forgotten may be what the server has no room for. */
        c->heard.state = RESTING;
#endif
        return;
    }
    if (what == A_TRUE_ACK) {
        leave_used_epoch(c);
        return;
    }
    c->tries++;
    if (what == AN_ACK) {
        ack_timeout(c);
    } else if (what == CREDIT) {
        c->ping_due = true;
    } else {
        /* Once all was given up, nobody needs the answer any more; the next message asks again. */
        c->asking = c->pending != 0;
        c->hello_due = c->asking;
    }
}

/* ---- Sending ---- */

/* Sends a datagram; `first_word` is type, flags and span. What is not DATA has no message. */
static void dispatch(dg_client *c, uint32_t first_word, uint64_t number, dg_message *m) {
    uint8_t *d = c->scratch->bytes, *p = d + HEAD_LEN;
    uint32_t head[HEAD_WORDS];
    unsigned w;
#if DG_ANSWERS
    const dg_ask *a = c->taken;
#endif
    head[0] = VERSION << 4 | first_word;
    /* Nothing but HELLO, and TAKE in epochs that had one, is sent while an epoch is asked for. */
    head[HEAD_EPOCH] = c->asking ? 0 : c->epoch;
    head[HEAD_CLIENT] = (uint32_t)c->config.client_id;
    head[HEAD_CLIENT + 1] = (uint32_t)(c->config.client_id >> 32);
    head[HEAD_NUMBER] = (uint32_t)number;
    head[HEAD_NUMBER + 1] = (uint32_t)(number >> 32);
    head[HEAD_WORD] = m ? m->channel : 0;
#if DG_ANSWERS
    if (m) {
        head[HEAD_WORD] |= (uint32_t)(m->batch & ASKS) << 10; /* 2 in the upper half. */
    }
    if (a) {
        head[HEAD_EPOCH] = a->epoch;
        if (a->state == TAKING) {
            head[HEAD_WORD] = c->wait_ms;
        }
    }
#endif
    for (w = 0; w < HEAD_WORDS; w++) {
        put32(d + 4 * w, head[w]);
    }
#if DG_SEALED
    if (c->config.crypto) {
        p += COUNTER_LEN;
    }
#endif
    if (m) {
        copy_payload(c, m, p, NULL);
        p += m->len;
    }
#if DG_ANSWERS
    if (a) {
        memset(p, 0, a->room);
        p += a->room;
    }
#endif
#if DG_SEALED
    if (c->config.crypto) {
        uint8_t nonce[12], hello_keys[64];
        const uint8_t *key = c->keys;
        uint64_t counter = number;
        size_t clear = (size_t)(p - d);
#if DG_ANSWERS
        if (a && a->epoch != c->epoch) {
            derive(c, a->epoch, hello_keys);
            key = hello_keys;
        }
        if (c->asking && !a) {
#else
        if (c->asking) {
#endif
            /* Its counter is its nonce: it has no other field, so the same counter makes the same bytes. */
            derive(c, 0, hello_keys);
            key = hello_keys;
        } else {
            counter = c->counter++;
            c->used_up = (uint32_t)c->counter == 0;
        }
        if (m) {
            clear = HEAD_LEN + COUNTER_LEN;
        }
        d[1] |= FLAG_SEALED;
        put64(d + HEAD_LEN, counter);
        make_nonce(nonce, 1, counter);
        c->config.crypto->lock(d + clear, (size_t)(p - d) - clear, p, key, nonce, d, clear);
        c->config.crypto->wipe(hello_keys, sizeof hello_keys);
        (c->config.send)(c->config.user, d, (size_t)(p - d) + TAG_LEN);
        return;
    }
#endif
    put32(p, dg_crc32(d, (size_t)(p - d)));
    (c->config.send)(c->config.user, d, (size_t)(p - d) + CRC_LEN);
}

/* Whether the session's counter has come to its end (PROTOCOL.md#sealed-counter). */
static bool is_used_up(const dg_client *c) {
#if DG_SEALED
    return c->used_up;
#else
    (void)c;
    return false;
#endif
}

/* Sends what may be sent now. True: what that is has changed by itself, look again. */
static bool transmit(dg_client *c, uint32_t now) {
    cursor i;
    bool any = survey(c, &i);
    if (c->timer == RESUMING) {
        return false;
    }
    if (c->asking) {
        if (!c->hello_due) {
            return false;
        }
        c->hello_due = false;
        dispatch(c, TYPE_HELLO, c->nonce, NULL);
        return false;
    }
    /* What is in flight in a session that can send no more is waited for: in the next it would be journaled again. */
    if (is_used_up(c) && (c->awaited || !c->pending)) {
        return false;
    }
    /*
     * So many seqs in a row were given up that the server would not move its floor over them (PROTOCOL.md#rule-4). In doubt, one
     * is too many: an ACK of the next could no longer show whether the epoch was used before. Then that is asked of the new one.
     */
    if (is_used_up(c) || (c->pending && c->above_floor > (c->doubt ? 0 : c->reach - 1u))) {
        leave_epoch(c);
        return true;
    }
    if (c->ping_due) {
        c->ping_due = false;
        c->pinged = true;
        if (c->doubt == DOUBTED) {
            c->doubt = DOUBTED_AND_PINGED;
        }
        dispatch(c, TYPE_PING, 0, NULL);
        return true;
    }
    c->limited = false;
    for (; any; any = candidate(c, &i)) {
        uint32_t first_word;
        uint8_t was;
        if (beyond_credit(c, i.ahead)) {
            break;
        }
        if (!c->probe && (c->silent || c->in_flight >= (c->doubt ? 1 : c->window))) {
            c->limited = true;
            break;
        }
        i.m->missed = c->probe ? 2 : is_told(c, i.ahead);
        c->probe = false;
        was = i.m->state;
        if (was == LOST && i.m->attempt < ATTEMPT_MAX) {
            i.m->attempt++;
        }
        i.m->state = IN_FLIGHT;
        i.m->order = c->order++;
        i.m->sent_ms = now;
        c->in_flight++;
#if DG_ANSWERS
        if (i.m->batch & ASKS) {
            dg_ask *a = ask_of(c, i.m);
            a->epoch = c->epoch;
            a->seq = c->base + i.ahead;
        }
#endif
        first_word = FLAG_WHOLE | BATCH_OF(i.m) | i.m->attempt;
        if (c->above_skipped < c->above_floor) {
            first_word |= FLAG_SKIP;
        }
        c->too_large = false;
        dispatch(c, TYPE_DATA | first_word << 8 | i.ahead << 16, c->base + i.ahead, i.m);
        if (c->too_large) {
            /* What the network never took has no seq: the next message gets it. */
            end(c, &i, was == UNSENT ? GONE : REFUSED, TOO_LARGE);
            pop(c);
            return true;
        }
        if (is_used_up(c)) {
            return true;
        }
    }
    return false;
}

#if DG_ANSWERS
/* ---- Taking answers (PROTOCOL.md#answers) ---- */

/* The application hears an answer, and the ask is free again. */
static void hear(dg_client *c, dg_ask *a, uint32_t answer, const uint8_t *body, uint32_t len) {
    dg_ask *h = &c->heard;
    if (h->epoch != a->epoch || !before((uint32_t)a->seq, (uint32_t)h->seq)) {
        h->epoch = a->epoch;
        h->seq = a->seq + 1;
    }
    h->state = NAMED;
    c->config.answer(c->config.user, a, (dg_answer)answer, body, len);
    a->state = FREE;
}

/*
 * How far an ask's seq lies above the lowest of its epoch whose answer was not heard. In 32 bits, as other distances here: an ask
 * that waits while 2^31 messages follow is given up.
 */
static uint32_t span_of(const dg_client *c, const dg_ask *ask) {
    int32_t span = 0;
    const dg_ask *a;
    for (a = c->asks; a != c->asks_end; a++) {
        if (a->state >= NAMED && a->epoch == ask->epoch) {
            int32_t above = (int32_t)((uint32_t)ask->seq - (uint32_t)a->seq);
            if (span < above) {
                span = above;
            }
        }
    }
    return (uint32_t)span;
}

/* Sends the TAKEs that may be sent now. In how many milliseconds to look again. */
static uint32_t take_answers(dg_client *c, uint32_t now) {
    for (;;) {
        uint32_t wait = UINT32_MAX, longest = 0, recent = 0, open = 0, span, beyond = 0;
        unsigned busy = FREE;
        dg_ask *due = NULL, *a;
        for (a = c->asks; a != c->asks_end; a++) {
            uint32_t passed = now - a->from_ms, ms = a->ms;
            unsigned state;
#if DG_SEALED
            if (c->used_up && a->state >= RESTING) {
                /* The session can send no more, and the counter of the next would repeat. */
                hear(c, a, DG_ANSWER_GONE, NULL, 0);
            }
#endif
            state = a->state;
            if (busy < state) {
                busy = state;
            }
            if (state < RESTING || (state == RESTING && !c->wait_ms)) {
                continue;
            }
            if (state == TAKING) {
                ms += c->wait_ms;
            }
            if (state != RESTING && passed < ms) {
                if (state == TAKING) {
                    open++;
                    recent += passed < c->rto;
                }
                if (wait > ms - passed) {
                    wait = ms - passed;
                }
            } else if (passed >= longest) { /* Those that have waited longest come first. */
                longest = passed;
                due = a;
            }
        }
        if (due) {
            if (open >= TAKES_MAX) {
                return wait;
            }
            if (recent >= c->window) {
                return c->rto;
            }
            if (due->state != TAKING) {
                due->ms = c->rto;
            } else {
                due->ms += due->ms;
                if (due->ms > DG_RTO_MAX_MS) {
                    due->ms = DG_RTO_MAX_MS;
                }
            }
            due->state = TAKING;
            due->from_ms = now;
        } else if (busy < c->heard.state && c->heard.epoch && !is_used_up(c)) {
            /* All is had below that seq. It names one that does not ask soon: a late GONE would be taken for its answer. */
            due = &c->heard;
            due->state = FREE;
            beyond = FAR_BEYOND;
        } else {
            return wait;
        }
        span = span_of(c, due) + beyond;
        if (span > UINT16_MAX) {
            /* It would give up the answer of the lowest, which must be had first. */
            due->ms = DG_RTO_MAX_MS;
            continue;
        }
        c->taken = due;
        dispatch(c, TYPE_TAKE | span << 16, due->seq + beyond, NULL);
        c->taken = NULL;
    }
}
#endif

/* ---- Receiving ---- */

static unsigned type_of(const uint32_t *head) {
    return head[0] & 15;
}

static unsigned version_of(const uint32_t *head) {
    return head[0] >> 4 & 15;
}

static unsigned flags_of(const uint32_t *head) {
    return head[0] >> 8 & 255;
}

static uint16_t small_of(const uint32_t *head) {
    return (uint16_t)(head[0] >> 16);
}

static uint64_t long_of(const uint32_t *head) {
    return head[HEAD_NUMBER] | (uint64_t)head[HEAD_NUMBER + 1] << 32;
}

/* What is lost goes out again (PROTOCOL.md#duty-loss): something later has arrived, and it was told to be missing or is old. */
static void find_lost(dg_client *c, uint32_t now) {
    bool before_expiry = false;
    cursor i;
    i.m = NULL;
    while (next(c, &i)) {
        if (i.m->state == IN_FLIGHT && before(i.m->order, c->arrived)
            && (now - i.m->sent_ms >= c->rto || (is_overtaken(c, i.m) && is_told(c, i.ahead)))) {
            before_expiry |= before(i.m->order, c->timeout_order);
            lose(c, i.m);
        }
    }
    if (c->timed_out && !before(c->arrived, c->timeout_order)) {
        c->timed_out = false;
        if (before_expiry) {
            c->loss_end = c->order;
            c->window = c->window < DG_WINDOW_INITIAL ? c->window : DG_WINDOW_INITIAL;
        }
    }
}

static void set_credit(dg_client *c, uint16_t credit) {
    c->credit = credit;
    if (c->reach <= credit) {
        c->reach = (uint16_t)(credit + 1);
    }
}

static bool is_set(const uint8_t *bitmap, uint32_t i) {
    return bitmap[i >> 3] >> (i & 7) & 1;
}

static bool is_sealed(const dg_client *c) {
#if DG_SEALED
    return c->config.crypto != NULL;
#else
    (void)c;
    return false;
#endif
}

/* How far a seq lies above base, or below it if negative. At most FAR_AWAY. */
static int32_t distance(const dg_client *c, uint64_t seq) {
    bool above = seq >= c->base;
    uint64_t by = above ? seq - c->base : c->base - seq;
    int32_t bounded = by < FAR_AWAY ? (int32_t)by : FAR_AWAY;
    return above ? bounded : -bounded;
}

static dg_result on_ack(dg_client *c, const uint32_t *head, int32_t floor, const uint8_t *bitmap, uint32_t bits, uint32_t now) {
    /* How far the floor lies below base - 1; negative above it. */
    int32_t behind = -1 - floor;
    uint32_t last_bit = bits, newest_again = c->arrived;
    const dg_message *newest = NULL;
    bool any_once = false, any_probe = false, strange;
    cursor i;
    if (c->epoch == 0 || head[HEAD_EPOCH] != c->epoch || c->doubt == USED) {
        return DG_IGNORED;
    }
    while (last_bit && !is_set(bitmap, last_bit - 1)) {
        last_bit--;
    }
    survey(c, &i);
    /* Forged, or another run in the same epoch: to believe it would be to forget data that no one has. */
    strange = (int32_t)c->transmitted + behind < (int32_t)last_bit;
    i.m = NULL;
    if (c->doubt && next(c, &i)) {
        /* The server had that seq before this run sent it, once. */
        bool duplicate = behind < 0 && (flags_of(head) & FLAG_DUPLICATE) && i.m->attempt == 0 && c->doubt == DOUBTED;
        /* What was never sent may be forged where nothing is sealed, unless no true ACK comes. */
        if (strange ? is_sealed(c) : duplicate) {
            leave_used_epoch(c);
            strange = true;
        } else if (strange && i.m->attempt >= 2 && c->timer == AN_ACK) {
            start_timer(c, now, A_TRUE_ACK, TRUE_ACK_MS);
        }
    }
    if (strange) {
        return DG_NEVER_SENT;
    }
#if DG_ANSWERS
    c->ready = flags_of(head) & FLAG_READY;
#endif
    /* One of a lower floor is out of date, unless it answers a PING: then the server has forgotten the session. */
    if (behind <= (int32_t)c->above_floor || (!c->awaited && c->pinged)) {
        set_credit(c, small_of(head));
    }
    if (behind <= (int32_t)c->above_floor) {
        c->above_floor = (uint32_t)behind;
        /* What lies beyond the bitmap is missing too, if the ACK says that it is complete. */
        c->told_end = (uint32_t)c->base - (uint32_t)behind + (flags_of(head) & FLAG_COMPLETE ? FAR_AWAY : bits ? bits : 1);
    }
    i.m = NULL;
    while (next(c, &i)) {
        /* Which bit of the bitmap it is; negative up to the floor. */
        int32_t place = behind + (int32_t)i.ahead;
        if ((place < 0 || (place < (int32_t)bits && is_set(bitmap, (uint32_t)place))) && is_transmitted(i.m)) {
            if (c->limited && !in_old_episode(c, i.m)) {
                grow(c);
            }
            if (!newest || before(newest->order, i.m->order)) {
                newest = i.m;
            }
            /*
             * Of what the server had already, an earlier transmission may be meant; and also of the others, if the ACK comes
             * sooner than any answer did.
             */
            if (i.m->attempt == 0) {
                any_once = true;
                if (before(c->arrived, i.m->order)) {
                    c->arrived = i.m->order;
                }
            } else if (i.m->missed > (now - i.m->sent_ms + 1 < c->shortest - (c->shortest >> 2))
                       && before(newest_again, i.m->order)) {
                newest_again = i.m->order;
                any_probe = i.m->missed == 2;
            }
            end(c, &i, ACKED, flags_of(head) & FLAG_DURABILITY);
        }
    }
    c->pinged = false;
    pop(c); /* What was found stays as it is until dg_send. */
    if (newest) {
        /* A server that stood still reads what has come: it may have got an earlier transmission, and the rest may follow. */
        bool reading = any_once && (flags_of(head) & FLAG_COMPLETE) && bits == 0;
        restart_timer(c);
        c->doubt = PROVEN;
        c->fruitless = 0;
        c->tries = 0;
        /* Karn's rule: which transmission of several is answered cannot be known. And a duplicate's answer did not come in time. */
        if (newest->attempt == 0 && !(flags_of(head) & FLAG_DUPLICATE)) {
            measure(c, now - newest->sent_ms, head[HEAD_WORD]);
        }
        if (!reading && before(c->arrived, newest_again)) {
            c->arrived = newest_again;
        }
        find_lost(c, now);
        if (reading && any_probe) {
            probe_lowest(c, false);
        }
    }
    return DG_OK;
}

/* The server asks for patience. Others may follow, in answer to what was in flight with the first. */
static void hold_back(dg_client *c, uint32_t retry_after_ms, uint32_t now) {
    if (c->timer == RESUMING) {
        return;
    }
    if (retry_after_ms == 0) {
        c->tries++;
        retry_after_ms = timeout(c);
    } else {
        /* Bounded: a REJECT can be forged. */
        retry_after_ms = jittered(c, retry_after_ms, 1);
    }
    start_timer(c, now, RESUMING, retry_after_ms);
    tell(c, DG_WAIT, 0, retry_after_ms);
}

/* PROTOCOL.md#duty-reject. */
static dg_result on_reject(dg_client *c, const uint32_t *head, uint64_t number, int32_t place, uint32_t now) {
    uint32_t reason = small_of(head), epoch = head[HEAD_EPOCH];
    bool final = reason < 16 && (FINAL_CODES >> reason & 1);
    cursor i;
    if (c->asking ? epoch != 0 || number != c->nonce : epoch == 0 || epoch != c->epoch) {
        return DG_IGNORED;
    }
    i.m = NULL;
    if (!c->asking && (number != 0 || !c->pinged)) {
        do {
            if (!next(c, &i)) {
                return DG_IGNORED;
            }
        } while ((int32_t)i.ahead != place || !is_transmitted(i.m));
        i.m->state = LOST;
    }
    if (final) {
        if (i.m) {
            end(c, &i, REFUSED, reason);
            pop(c);
        } else {
            /* It answers a HELLO or PING, and names no message: each would get the same. */
            while (drop_oldest(c, DG_FAILED, reason)) {
            }
        }
        c->asking = false;
    } else if (c->asking || (reason != STALE_EPOCH && reason != BEYOND_WINDOW)) {
        hold_back(c, head[HEAD_WORD], now);
    } else if (reason == STALE_EPOCH) {
        c->fruitless++;
        c->doubt = PROVEN;
        leave_epoch(c);
    } else if (i.m && !beyond_credit(c, i.ahead)) {
        c->credit = (uint16_t)i.ahead;
    }
    return DG_OK;
}

static dg_result on_welcome(dg_client *c, const uint32_t *head, uint64_t number) {
    uint32_t epoch = head[HEAD_EPOCH];
    /* The epoch that has just been refused would number other messages with the same seqs. */
    if (!c->asking || number != c->nonce || epoch == 0 || epoch == c->epoch || head[HEAD_WORD] != 0) {
        return DG_IGNORED;
    }
#if DG_SEALED
    if (c->config.crypto && epoch < c->epoch) {
        return DG_IGNORED;
    }
#endif
    enter_epoch(c, epoch);
    c->doubt = PROVEN;
    set_credit(c, small_of(head));
    c->tries = 0;
    return DG_OK;
}

#if DG_ANSWERS
/* The ask whose answer this is; NULL if none waits for it. */
static dg_ask *ask_answered(const dg_client *c, const uint32_t *head) {
    dg_ask *a;
    for (a = c->asks; a != c->asks_end; a++) {
        if (a->state >= RESTING && a->epoch == head[HEAD_EPOCH] && a->seq == long_of(head)) {
            return a;
        }
    }
    return NULL;
}

static dg_result on_answer(dg_client *c, const uint32_t *head, const uint8_t *body, uint32_t rest, uint32_t now) {
    uint32_t answer = small_of(head), len = head[HEAD_WORD];
    dg_ask *a = ask_answered(c, head);
    if (!a || (flags_of(head) & ~(unsigned)FLAG_SEALED) || rest > DG_ANSWER_MAX) {
        return DG_IGNORED;
    }
    if ((rest && answer <= DG_ANSWER_GONE && (rest != len || answer >= PENDING)) || (answer == DG_ANSWER_GONE && len)) {
        return DG_IGNORED; /* Broken. */
    }
    if (answer >= PENDING && answer != DG_ANSWER_GONE) {
        if (a->state == TAKING) {
            put_off(c, a, c->wait_ms ? PAUSING : RESTING, len, now);
        }
    } else if (rest != len && len <= DG_ANSWER_MAX) {
        if (a->room >= len) {
            return DG_IGNORED; /* Of an earlier TAKE, which had less room. */
        }
        a->room = (uint16_t)len;
        a->state = PAUSING;
        a->ms = 0;
    } else {
        hear(c, a, answer, rest ? body : NULL, len);
    }
    return DG_OK;
}
#endif

#if DG_SEALED
/* PROTOCOL.md#sealed-client. */
static bool is_sealed_for(const dg_client *c, const uint32_t *head, const uint8_t *d, size_t len) {
    uint8_t nonce[12], hello_keys[64];
    const uint8_t *key = c->keys + 32;
#if DG_ANSWERS
    size_t text_len = 0;
#endif
    bool right;
    if (head[HEAD_EPOCH] == 0 || type_of(head) == TYPE_WELCOME) {
        if (!c->asking || long_of(head) != c->nonce) {
            return false;
        }
        derive(c, 0, hello_keys);
        key = hello_keys + 32;
#if DG_ANSWERS
    } else if (type_of(head) == TYPE_ANSWER) {
        text_len = len - HEAD_LEN - COUNTER_LEN - TAG_LEN;
        if (!ask_answered(c, head) || text_len > DG_ANSWER_MAX) {
            return false;
        }
        memcpy(c->scratch, d + HEAD_LEN + COUNTER_LEN, text_len);
        if (head[HEAD_EPOCH] != c->epoch) {
            derive(c, head[HEAD_EPOCH], hello_keys);
            key = hello_keys + 32;
        }
#endif
    } else if (head[HEAD_EPOCH] != c->epoch) {
        return false;
    }
    make_nonce(nonce, 2, get64(d + HEAD_LEN));
#if DG_ANSWERS
    right = c->config.crypto->unlock(c->scratch->bytes, text_len, d + len - TAG_LEN, key, nonce, d, len - TAG_LEN - text_len) == 0;
#else
    right = c->config.crypto->verify(d + len - TAG_LEN, key, nonce, d, len - TAG_LEN) == 0;
#endif
    c->config.crypto->wipe(hello_keys, sizeof hello_keys);
    return right;
}
#endif

/* The length of what stands before the bitmap; 0 if it is no valid datagram for this client. */
static unsigned head_len(const dg_client *c, uint32_t *head, const uint8_t *d, size_t len) {
    bool this_version;
    unsigned i;
    if (!c || !d || len < HEAD_LEN + CRC_LEN || len > DG_REPLY_MAX) {
        return 0;
    }
    for (i = 0; i < HEAD_WORDS; i++) {
        head[i] = get32(d + 4 * i);
    }
    if ((head[HEAD_CLIENT] | (uint64_t)head[HEAD_CLIENT + 1] << 32) != c->config.client_id) {
        return 0;
    }
    this_version = version_of(head) == VERSION;
#if DG_SEALED
    if (c->config.crypto) {
        bool sealed = this_version && (flags_of(head) & FLAG_SEALED) && len >= HEAD_LEN + COUNTER_LEN + TAG_LEN;
        return sealed && is_sealed_for(c, head, d, len) ? HEAD_LEN + COUNTER_LEN : 0;
    }
#endif
    /* Of other versions only the REJECT that says so is known (PROTOCOL.md#versions). */
    if (this_version ? flags_of(head) & FLAG_SEALED : type_of(head) != TYPE_REJECT || small_of(head) != 1) {
        return 0;
    }
    return get32(d + len - CRC_LEN) == dg_crc32(d, len - CRC_LEN) ? HEAD_LEN : 0;
}

/* ---- The calls ---- */

dg_result dg_init(dg_client *c, const dg_config *config, dg_cell *buffer, size_t cells) {
    unsigned scratch_cells, i;
#if DG_ANSWERS
    dg_ask *a;
#endif
    if (!c || !config || !config->send || !buffer
        || ((uintptr_t)c | (uintptr_t)buffer) % offsetof(dg_number_in_struct, number) != 0) {
        return DG_BAD_ARGUMENT;
    }
#if DG_SEALED
    if (config->crypto && (!config->key || !config->random_seed)) {
        return DG_BAD_ARGUMENT;
    }
#endif
#if DG_ANSWERS
    if (config->asks_max > DG_ASKS_MAX || (config->asks_max && (!config->asks || !config->answer))
        || (uintptr_t)config->asks % offsetof(dg_number_in_struct, number) != 0) {
        return DG_BAD_ARGUMENT;
    }
#endif
    if (config->payload_max > DG_PAYLOAD_MAX) {
        return DG_TOO_LARGE;
    }
    scratch_cells = cells_of((size_t)DG_LONGEST(config->payload_max) + DG_OVERHEAD) - 1;
    if (cells < (size_t)scratch_cells + cells_of(config->payload_max)) {
        return DG_TOO_LARGE;
    }
    memset(c, 0, sizeof *c);
    cells -= scratch_cells;
    c->cells_max = (uint16_t)(cells < CELLS_MAX ? cells : CELLS_MAX);
    c->cells = buffer;
    c->head = &buffer->message;
    c->scratch = buffer + c->cells_max;
    c->config = *config;
    c->credit = UINT16_MAX; /* None is known yet. */
    dg_path_changed(c);
    c->random[0] = 0xF1EA5EEDu;
    c->random[1] = (uint32_t)config->random_seed;
    c->random[2] = (uint32_t)(config->random_seed >> 32);
    c->random[3] = (uint32_t)config->client_id;
    for (i = 0; i < 20; i++) {
        random32(c);
    }
#if DG_ANSWERS
    /* What was not acked has no message any more. */
    c->asks = config->asks;
    for (i = 0, a = c->asks; i < config->asks_max; i++, a++) {
        a->room = DG_ANSWER_ROOM;
        a->state = a->state >= RESTING ? RESTING : FREE;
    }
    c->asks_end = a;
#endif
    c->config.event = NULL; /* Its own epoch is no news, and 0 is none. */
    enter_epoch(c, config->epoch);
    c->config.event = config->event;
    c->doubt = DOUBTED;
    return DG_OK;
}

/* Whether bytes are a run of records, at least one. */
static bool is_batch(const uint8_t *bytes, size_t len) {
    do {
        size_t record;
        if (len < 2) {
            return false;
        }
        record = get16(bytes);
        len -= 2;
        /* Not by a sum: with a size_t of 16 bits it would wrap. */
        if (record > len) {
            return false;
        }
        bytes += 2 + record;
        len -= record;
    } while (len);
    return true;
}

dg_result dg_send(dg_client *c, uint32_t channel, const void *payload, size_t len, unsigned flags) {
    const uint8_t *bytes = (const uint8_t *)payload;
    dg_message *m;
#if DG_ANSWERS
    dg_ask *a;
#endif
    if (!c || channel > UINT16_MAX || (flags & ~(unsigned)SEND_FLAGS) || (len && !bytes)) {
        return DG_BAD_ARGUMENT;
    }
#if DG_ANSWERS
    if ((flags & (DG_BATCH | DG_ASK)) == (DG_BATCH | DG_ASK)) {
        return DG_BAD_ARGUMENT;
    }
    a = c->asks;
    if (flags & DG_ASK) {
        for (; a == c->asks_end || a->state != FREE; a++) {
            if (a == c->asks_end) {
                return DG_FULL;
            }
        }
    }
#endif
    if (len > c->config.payload_max) {
        return DG_TOO_LARGE;
    }
    if ((flags & DG_BATCH) && !is_batch(bytes, len)) {
        return DG_BROKEN_BATCH;
    }
    while (c->used + cells_of(len) > c->cells_max) {
        if (!(flags & DG_MAKE_ROOM) || !drop_oldest(c, DG_ABANDONED, 0)) {
            return DG_FULL;
        }
    }
    m = after(c, c->head, c->used);
    m->state = UNSENT;
    m->attempt = 0;
    m->len = (uint16_t)len;
    m->channel = (uint16_t)channel;
#if DG_ANSWERS
    if (flags & DG_ASK) {
        a->message = c->first_message + c->count;
        a->room = DG_ANSWER_ROOM;
        a->state = NAMED;
        a->epoch = 0; /* In none yet. */
        m->batch = (uint8_t)(ASKS | (a - c->asks));
    } else
#endif
    {
        m->batch = (uint8_t)(flags & DG_BATCH);
    }
    copy_payload(c, m, NULL, bytes);
    c->used = (uint16_t)(c->used + cells_of(len));
    c->count++;
    c->pending++;
    if (!c->asking && (!c->epoch || c->doubt == USED)) {
        ask_for_epoch(c, true);
    }
    return DG_OK;
}

dg_result dg_input(dg_client *c, const void *datagram, size_t len, uint32_t now_ms) {
    const uint8_t *d = (const uint8_t *)datagram;
    uint32_t head[HEAD_WORDS];
    unsigned before_rest = head_len(c, head, d, len);
    uint32_t rest = (uint32_t)len - before_rest - (before_rest == HEAD_LEN ? CRC_LEN : TAG_LEN);
    unsigned type;
    uint64_t number;
    int32_t place;
    dg_result result = DG_IGNORED;
    if (before_rest == 0) {
        return DG_IGNORED;
    }
    type = type_of(head);
    number = long_of(head);
    place = distance(c, number);
    if (type == TYPE_ACK && rest <= BITMAP_LEN_MAX && rest % 8 == 0 && (flags_of(head) & FLAG_DURABILITY) != 3) {
        result = on_ack(c, head, place, d + before_rest, 8 * rest, now_ms);
    } else if (type == TYPE_REJECT && (rest == 0 || version_of(head) != VERSION)) {
        result = on_reject(c, head, number, place, now_ms);
    } else if (rest == 0 && type == TYPE_WELCOME) {
        result = on_welcome(c, head, number);
    }
#if DG_ANSWERS
    else if (type == TYPE_ANSWER) {
        result = on_answer(c, head, before_rest == HEAD_LEN ? d + HEAD_LEN : c->scratch->bytes, rest, now_ms);
    }
#endif
    if (result == DG_OK) {
        c->silent = false;
    }
    return result;
}

uint32_t dg_poll(dg_client *c, uint32_t now_ms) {
    uint32_t passed, wait;
#if DG_ANSWERS
    uint32_t take_wait;
#endif
    if (!c) {
        return UINT32_MAX;
    }
    passed = now_ms - c->timer_from;
    if (c->timer != NOTHING && passed >= c->timer_ms) {
        on_timer(c);
    }
#if DG_ANSWERS
    take_wait = take_answers(c, now_ms);
#endif
    while (transmit(c, now_ms)) {
    }
    set_timer(c, now_ms);
    wait = c->timer == NOTHING ? UINT32_MAX : c->timer_ms - (now_ms - c->timer_from);
#if DG_ANSWERS
    wait = wait < take_wait ? wait : take_wait;
#endif
    return wait;
}

void dg_too_large(dg_client *c) {
    if (c) {
        c->too_large = true;
    }
}

unsigned dg_pending(const dg_client *c) {
    return c ? c->pending : 0;
}

dg_result dg_abandon(dg_client *c) {
    return drop_oldest(c, DG_ABANDONED, 0) ? DG_OK : DG_IGNORED;
}

void dg_path_changed(dg_client *c) {
    if (!c) {
        return;
    }
    c->shortest = 0;
    c->rto = DG_RTO_INITIAL_MS;
    c->least = 1;
    c->delay16 = 0;
    c->window = DG_WINDOW_INITIAL;
    c->threshold = UINT16_MAX;
    c->grown = 0;
    c->tries = 0;
    c->silent = false;
    c->timer = NOTHING;
    lose_flight(c, true);
#if DG_ANSWERS
    hasten(c, TAKING); /* What is held goes to where the session was. */
#endif
    c->hello_due = c->asking;
    c->ping_due = !c->asking && blocked(c);
}

#if DG_ANSWERS
void dg_take(dg_client *c, uint16_t wait_ms) {
    if (c) {
        c->wait_ms = wait_ms;
        hasten(c, RESTING);
    }
}

#endif

dg_result dg_batch(uint8_t *batch, size_t size, size_t *len, const void *record, size_t record_len) {
    size_t used;
    if (!batch || !len || (record_len && !record)) {
        return DG_BAD_ARGUMENT;
    }
    used = *len;
    /* In 32 bits: a size_t of 16 would wrap. */
    if (record_len > UINT16_MAX || used > size || (uint32_t)record_len + 2 > size - used) {
        return DG_FULL;
    }
    batch += used;
    *batch++ = (uint8_t)record_len;
    *batch++ = (uint8_t)(record_len >> 8);
    *len = used + 2 + record_len;
    if (record_len) {
        memcpy(batch, record, record_len);
    }
    return DG_OK;
}
