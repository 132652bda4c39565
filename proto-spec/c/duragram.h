/*
 * Duragram client for microcontrollers: sends messages over UDP, and knows of each whether the server has it on disk.
 *
 * C99, one header and one source file. No malloc, no globals, no I/O, no clock: the caller gives a struct, a buffer, a
 * function that sends a datagram, and the time. It needs nothing of libc but memcpy and memset. PROTOCOL.md, one directory
 * above, is what it speaks; README.md beside this file shows how to use it.
 */
#ifndef DURAGRAM_H
#define DURAGRAM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Options: define them for the compiler (-DDG_SEALED=1), the same for all files that include this one. */

/* 1: sealed mode is there too (PROTOCOL.md#sealed). */
#ifndef DG_SEALED
#define DG_SEALED 0
#endif
/* 1: messages may ask for an answer (PROTOCOL.md#answers): DG_ASK, dg_take. */
#ifndef DG_ANSWERS
#define DG_ANSWERS 0
#endif
/* The longest answer that is handed over with its body, in bytes. Of a longer one the application hears without it. */
#ifndef DG_ANSWER_MAX
#define DG_ANSWER_MAX 128u
#endif
/* How long a body is taken at the first try, in bytes, of which each TAKE is longer; what is longer costs a round trip more. */
#ifndef DG_ANSWER_ROOM
#define DG_ANSWER_ROOM 0u
#endif
/* The checksum. 0: smallest; 1: with a table of 64 bytes, four times as fast; 2: you provide dg_crc32 (hardware). */
#ifndef DG_CRC
#define DG_CRC 1
#endif
/* The retransmission timeout before the first measurement, its least value, and the longest interval between tries. */
#ifndef DG_RTO_INITIAL_MS
#define DG_RTO_INITIAL_MS 1000u
#endif
#ifndef DG_RTO_MIN_MS
#define DG_RTO_MIN_MS 10u
#endif
#ifndef DG_RTO_MAX_MS
#define DG_RTO_MAX_MS 60000u
#endif
/* Datagrams in flight before anything is known of the path. Set it to what your network interface can queue. */
#ifndef DG_WINDOW_INITIAL
#define DG_WINDOW_INITIAL 10u
#endif
/*
 * On a path whose round trip is far below DG_RTO_MIN_MS, up to so many datagrams stay in flight whatever is lost, until the third
 * timeout in a row (PROTOCOL.md#duty-congestion): so losses are found by what arrives, not by timeouts. 1: as on a long path.
 */
#ifndef DG_SHORT_PATH
#define DG_SHORT_PATH 16u
#endif

/* An option out of its range is an error here, not a client that never sends. */
#if DG_SEALED != 0 && DG_SEALED != 1
#error "DG_SEALED: 0 (plain mode only) or 1 (sealed mode too)"
#endif
#if DG_ANSWERS != 0 && DG_ANSWERS != 1
#error "DG_ANSWERS: 0 (messages only) or 1 (messages may ask for an answer)"
#endif
#if DG_ANSWER_MAX < 0 || DG_ANSWER_MAX > 65000
#error "DG_ANSWER_MAX: 0 to 65,000 bytes; a server gives 1,024 unless it was told otherwise"
#endif
#if DG_ANSWER_ROOM < 0 || DG_ANSWER_ROOM > DG_ANSWER_MAX
#error "DG_ANSWER_ROOM: 0 to DG_ANSWER_MAX bytes"
#endif
#if DG_CRC < 0 || DG_CRC > 2
#error "DG_CRC: 0 (smallest), 1 (with a table) or 2 (you provide dg_crc32)"
#endif
#if DG_RTO_MAX_MS < 1 || DG_RTO_MAX_MS > 65535
#error "DG_RTO_MAX_MS: 1 to 65,535 ms (jitter is reckoned in 32 bits; PROTOCOL.md#duty-retransmission has 60,000)"
#endif
#if DG_RTO_MIN_MS < 1 || DG_RTO_MIN_MS > DG_RTO_MAX_MS
#error "DG_RTO_MIN_MS: 1 ms to DG_RTO_MAX_MS"
#endif
#if DG_RTO_INITIAL_MS < 1 || DG_RTO_INITIAL_MS > DG_RTO_MAX_MS
#error "DG_RTO_INITIAL_MS: 1 ms to DG_RTO_MAX_MS"
#endif
#if DG_WINDOW_INITIAL < 1 || DG_WINDOW_INITIAL > 65535
#error "DG_WINDOW_INITIAL: 1 to 65,535 datagrams; with 0 nothing would ever be sent"
#endif
#if DG_SHORT_PATH < 1 || DG_SHORT_PATH > 16
#error "DG_SHORT_PATH: 1 to 16 datagrams"
#endif
/* The preprocessor takes a word for 0 (-DDG_SEALED=yes). The compiler does not know it, and says so here. */
enum {
    DG_OPTIONS_ARE_NUMBERS = (DG_SEALED == 0) + (DG_ANSWERS == 0) + (DG_ANSWER_MAX == 0)
                             + (DG_ANSWER_ROOM == 0) + (DG_CRC == 0) + (DG_RTO_INITIAL_MS == 0) + (DG_RTO_MIN_MS == 0)
                             + (DG_RTO_MAX_MS == 0) + (DG_WINDOW_INITIAL == 0) + (DG_SHORT_PATH == 0)
};

/* A dg_client has other fields with each. Files that disagree about them do not link, rather than overwrite memory. */
#if DG_SEALED && DG_ANSWERS
#define dg_init dg_init_sealed_answers
#elif DG_SEALED
#define dg_init dg_init_sealed
#elif DG_ANSWERS
#define dg_init dg_init_answers
#endif

/* What a datagram is longer than its payload, in bytes. Keep a datagram to 1,200: then it passes nearly every path. */
#if DG_SEALED
#define DG_OVERHEAD 52
#else
#define DG_OVERHEAD 32
#endif
/* The longest payload that a UDP datagram can carry. */
#define DG_PAYLOAD_MAX (65507u - DG_OVERHEAD)
/* The longest datagram that a server sends: the size of your receive buffer. */
#if DG_ANSWERS && DG_ANSWER_MAX > 128
#define DG_REPLY_MAX (DG_OVERHEAD + DG_ANSWER_MAX)
#else
#define DG_REPLY_MAX (DG_OVERHEAD + 128)
#endif

/* What a function says of its success. Anything but DG_OK means that nothing has changed. */
typedef enum {
    DG_OK = 0,
    /* No room now; there will be after acks. */
    DG_FULL,
    /* Longer than payload_max: it never fits. Of dg_init: the buffer does not hold one message of that length. */
    DG_TOO_LARGE,
    /* DG_BATCH was given, and the payload is not a run of records. */
    DG_BROKEN_BATCH,
    /* The datagram is damaged, for another client, late or forged. Part of life; nothing to do. */
    DG_IGNORED,
    /* An ACK of what was never sent. If they keep coming, another device uses this client_id and epoch. */
    DG_NEVER_SENT,
    /* A pointer is NULL or misaligned, a number is out of its range: a mistake in the program that calls. */
    DG_BAD_ARGUMENT
} dg_result;

/* What becomes of messages. Messages count from 0 in the order in which dg_send took them. */
typedef enum {
    /* The server has it on disk: forget it. detail: durability, 0 for synced. */
    DG_ACKED,
    /* The server will never take it. detail: the REJECT's code (PROTOCOL.md#reject-codes); 3 after dg_too_large. */
    DG_FAILED,
    /* It was given up to make room, or by dg_abandon; it may have arrived all the same. */
    DG_ABANDONED,
    /* A session begins. detail: its epoch. If the device counts its epochs, it must store this number now. */
    DG_EPOCH,
    /* The server asks for patience (disk full, busy). detail: milliseconds in which nothing is sent. */
    DG_WAIT,
    /*
     * The epoch in dg_config was used before: the server holds other data under its numbers. detail: that epoch. Nothing is
     * counted as acked; the client asks the server for another epoch and sends all of it there.
     */
    DG_EPOCH_USED
} dg_event;

/* Flags of dg_send. */
enum {
    /* The payload is a run of records, each a length (2 bytes, little-endian) and that many bytes: see dg_batch. */
    DG_BATCH = 64,
#if DG_ANSWERS
    /* When the message is processed, its answer is wanted: see dg_take. Not with DG_BATCH. */
    DG_ASK = 2,
#endif
    /* If there is no room, give up the oldest messages (PROTOCOL.md#duty-skip) rather than refuse this one. */
    DG_MAKE_ROOM = 1
};

#if DG_ANSWERS
/* What came of a message that asked. As on the wire (PROTOCOL.md#answer). */
typedef enum {
    /* Processed. The body is what the service gave, often nothing. */
    DG_ANSWER_DONE = 0,
    /* The service gave it up; an operator may still process it. */
    DG_ANSWER_FAILED = 1,
    /* No answer will come: had before, expired or lost. It says nothing of what became of the message. */
    DG_ANSWER_GONE = 3
} dg_answer;

/*
 * A message whose answer waits, in the array that dg_config lends. Only dg_ functions change it, but it may be read: from DG_ACKED
 * on until its answer was told, epoch and seq are what the answer is taken by. To go on after a restart, store the array, or keep
 * it in memory that outlasts one, and give it to dg_init as it was; an answer may then be told twice.
 */
typedef struct {
    uint64_t seq;
    uint32_t epoch;
    /* As dg_send counted it, in the run that sent it. */
    uint32_t message;
    /* Since when it waits for what it waits for, and how long. */
    uint32_t from_ms, ms;
    /* How long a body its TAKE has room for. */
    uint16_t room;
    /* 0: free. */
    uint8_t state;
} dg_ask;

/* The most asks that a server lets one client have. */
#define DG_ASKS_MAX 64
#endif

/* A message's entry in the buffer. Not for callers. */
typedef struct {
    uint32_t sent_ms;
    /* The number of its latest transmission. */
    uint32_t order;
    uint16_t len;
    uint16_t channel;
    uint8_t state;
    uint8_t attempt;
    uint8_t batch;
    /* When it was transmitted last: 1, the server had told that it was missing; 2, all other answers were overdue. */
    uint8_t missed;
} dg_message;

/* What buffers are made of. */
typedef union {
    dg_message message;
    uint8_t bytes[16];
} dg_cell;

/*
 * -fpack-struct, or a #pragma pack that was left on, would put fields where a processor cannot read them and other files do
 * not look for them. If the next lines are errors, one of these is on.
 */
#if defined(__GNUC__)
#define DG_ALIGNMENT_OF(type) __alignof__(type)
#elif defined(__cplusplus)
#define DG_ALIGNMENT_OF(type) alignof(type)
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define DG_ALIGNMENT_OF(type) _Alignof(type)
#endif
typedef struct {
    uint8_t before;
    uint32_t number;
} dg_number_in_struct;
typedef struct {
    uint8_t before;
    void *pointer;
} dg_pointer_in_struct;
#ifdef DG_ALIGNMENT_OF
typedef char dg_numbers_are_not_packed[offsetof(dg_number_in_struct, number) == DG_ALIGNMENT_OF(uint32_t) ? 1 : -1];
typedef char dg_pointers_are_not_packed[offsetof(dg_pointer_in_struct, pointer) == DG_ALIGNMENT_OF(void *) ? 1 : -1];
#endif
typedef char dg_a_cell_has_16_bytes[sizeof(dg_cell) == 16 ? 1 : -1];

/* The cells that a buffer must have for so many messages of up to `payload` bytes. Shorter ones take less room. */
#define DG_CELLS(messages, payload) \
    ((messages) * (1 + ((payload) + 15) / 16) + (DG_LONGEST(payload) + DG_OVERHEAD + 15) / 16)
#if DG_ANSWERS
#define DG_LONGEST(payload) ((payload) > DG_ANSWER_MAX ? (payload) : DG_ANSWER_MAX)
#else
#define DG_LONGEST(payload) (payload)
#endif

#if DG_SEALED
/* RFC 8439 and RFC 7693, by any library. duragram_monocypher.h has one for Monocypher. */
typedef struct {
    /* AEAD_CHACHA20_POLY1305: encrypts text where it stands, writes the tag. */
    void (*lock)(uint8_t *text, size_t len, uint8_t tag[16], const uint8_t key[32], const uint8_t nonce[12],
                 const uint8_t *clear, size_t clear_len);
    /* Returns 0 if the tag is that of `clear` and an empty text. Compares in constant time. */
    int (*verify)(const uint8_t tag[16], const uint8_t key[32], const uint8_t nonce[12], const uint8_t *clear,
                  size_t clear_len);
    /* BLAKE2b with 64 bytes of output, keyed with 32 bytes. */
    void (*hash)(uint8_t out[64], const uint8_t key[32], const uint8_t *text, size_t len);
    /* Overwrites secrets, in a way that the compiler does not remove. */
    void (*wipe)(void *secret, size_t len);
#if DG_ANSWERS
    /*
     * Decrypts text where it stands and returns 0, if the tag is that of `clear` and it, which may be empty. In constant time.
     * With DG_ANSWERS it takes the place of `verify`.
     */
    int (*unlock)(uint8_t *text, size_t len, const uint8_t tag[16], const uint8_t key[32], const uint8_t nonce[12],
                  const uint8_t *clear, size_t clear_len);
#endif
} dg_crypto;
#endif

/* What a client is. dg_init copies it. */
typedef struct {
    uint64_t client_id;
    /* Differs at every start and from device to device; in sealed mode 64 random bits. For jitter and nonces. */
    uint64_t random_seed;
    /* This run's epoch, never used before by this device (PROTOCOL.md#duty-epoch); 0: ask the server for one. */
    uint32_t epoch;
    /* The longest payload that dg_send takes, in bytes: at most DG_PAYLOAD_MAX, and better no more than 1,200 - DG_OVERHEAD. */
    uint16_t payload_max;
    /*
     * Sends a datagram. It may be lost, so there is no result: what cannot be sent now is sent again later. Only what can
     * never be sent, because it is too long, is told by dg_too_large. The bytes are there during the call only: the next
     * datagram is made in the same place, so a driver that sends by DMA or from a queue needs a copy.
     */
    void (*send)(void *user, const uint8_t *datagram, size_t len);
    /* Told what happens, from within dg_send, dg_input and dg_poll; must not call this client. May be NULL. */
    void (*event)(void *user, dg_event event, uint32_t message, uint32_t detail);
    /* Unix time in seconds, or 0 when not known; may be NULL. New epochs then are at least that. */
    uint32_t (*unix_time)(void *user);
#if DG_ANSWERS
    /* Room for so many asks at a time, at most DG_ASKS_MAX; zeros, or what was there when the device went down. */
    dg_ask *asks;
    uint8_t asks_max;
    /*
     * Told the answer, once, from within dg_input and dg_poll; must not call this client. `body` is there during the call only, and
     * NULL if there is none or `len` is above DG_ANSWER_MAX.
     */
    void (*answer)(void *user, const dg_ask *ask, dg_answer answer, const uint8_t *body, uint32_t len);
#endif
    /* Given to the functions. */
    void *user;
#if DG_SEALED
    /* NULL for plain mode. */
    const dg_crypto *crypto;
    /* 32 bytes, shared with the server alone. Not copied: it must stay where it is. */
    const uint8_t *key;
    /* A count of the device's starts, from 1, stored before it is used; or 0: counters start at random. */
    uint32_t boot_count;
#endif
} dg_config;

/* A client. Only dg_ functions touch what is in it. Small fields first: Thumb code reaches those at less cost. */
typedef struct {
    uint8_t timer;
    uint8_t asking, hello_due, ping_due, pinged;
    uint8_t probe, silent, limited, timed_out, awaited;
    /* least: as few datagrams in flight as the path asks for, after timeouts too. */
    uint8_t least, too_large, doubt;
#if DG_ANSWERS
    /* See dg_ready. */
    uint8_t ready;
#endif
    /* reach: the largest credit and 1; 0: none was told yet. */
    uint16_t credit, reach, window, threshold, grown;
    uint16_t cells_max, used, count, pending;
    /* Counted anew when they are needed, and `awaited` with them: whether anything transmitted is neither decided nor lost. */
    uint16_t transmitted, in_flight;
    uint32_t epoch;
    /* base: the seq of the oldest message, or of the next. */
    uint64_t base, nonce;
    uint32_t timer_from, timer_ms, tries, fruitless;
    /* Numbers of transmissions: the next, the newest that arrived, where the last loss or timeout was seen. */
    uint32_t order, arrived, loss_end, timeout_order;
    /* Up to this seq, in 32 bits and not included, the server has told what it has. */
    uint32_t told_end;
    /* Of the seqs below base, how many lie above the highest floor told, and how many above the last one given up. */
    uint32_t above_floor, above_skipped;
    uint32_t first_message;
    /* The ring's first cell, what follows its last one, in which datagrams are made; the oldest message. */
    dg_cell *cells, *scratch;
    dg_message *head;
#if DG_ANSWERS
    /* The asks that were lent. */
    dg_ask *asks, *asks_end;
    uint32_t rto, wait_ms;
#endif
    /* Smoothed RTT times 8, its variance times 4, the server's delay times 16; the least that an answer took, and 1; 0: none. */
    uint32_t rtt8, variance4, delay16, shortest;
#if !DG_ANSWERS
    uint32_t rto;
#endif
    uint32_t random[4];
    dg_config config;
#if DG_ANSWERS
    /*
     * Whose TAKE is made at the moment, if it is one. And what the server may be told: all is had below the seq of `heard`. Its state
     * says when: 0, it was; 1, when nothing waits; 2, also while what waits is not acked.
     */
    const dg_ask *taken;
    dg_ask heard;
#endif
#if DG_SEALED
    uint64_t counter;
    uint8_t used_up, keys[64];
#endif
} dg_client;

/*
 * Makes a client with nothing to send. The buffer, `cells` long, belongs to it from now on; DG_CELLS says how long.
 * DG_TOO_LARGE if it does not hold one message, or payload_max is above DG_PAYLOAD_MAX. DG_BAD_ARGUMENT if a pointer is NULL or
 * misaligned, there is no `send`, in sealed mode no key or no random_seed, or there are asks without `answer` or more than
 * DG_ASKS_MAX; then *c is as it was.
 */
dg_result dg_init(dg_client *c, const dg_config *config, dg_cell *buffer, size_t cells);

/*
 * Takes a message: copies the payload, of 0 bytes or more. It ends in one of the events DG_ACKED, DG_FAILED and DG_ABANDONED.
 * DG_BAD_ARGUMENT: a channel above 65,535, an unknown flag, a batch that asks, or no payload though it has a length. A message that
 * asks finds no room (DG_FULL) either when as many asks wait as dg_config has room for.
 */
dg_result dg_send(dg_client *c, uint32_t channel, const void *payload, size_t len, unsigned flags);

/* Takes a datagram that came from the server: DG_OK, DG_IGNORED or DG_NEVER_SENT. `now_ms` may start anywhere, and wrap. */
dg_result dg_input(dg_client *c, const void *datagram, size_t len, uint32_t now_ms);

/*
 * Sends what is to be sent. Call it after dg_send and dg_input, and within the milliseconds that it returns; later does no
 * harm but delay. UINT32_MAX: nothing is waited for.
 */
uint32_t dg_poll(dg_client *c, uint32_t now_ms);

/*
 * For `send` alone to call, the one exception to the rule that callbacks do not call the client: the network stack says
 * that this datagram is longer than it ever takes (EMSGSIZE, ERR_VAL ...). Its message fails, with DG_FAILED and 3, instead of
 * being sent again for ever.
 */
void dg_too_large(dg_client *c);

/* Messages that are neither acked nor given up. 0: the server has all of them. */
unsigned dg_pending(const dg_client *c);

#if DG_ANSWERS
/*
 * Takes the answers of all asks that are acked or will be. With a wait, for which the server may hold each TAKE until there is an
 * answer (up to 20,000 ms), they are taken again until they come: call it once. With 0, for devices that sleep, each is taken once,
 * and is left in peace when the answer is not there yet: call it when the device wakes, or only when dg_ready says so; when
 * dg_poll returns UINT32_MAX it may sleep. Asks that dg_init found wait for this, too.
 */
void dg_take(dg_client *c, uint16_t wait_ms);

/* Whether the server said in its last ack that an answer is there to be taken. A hint: 0 does not mean that there is none. */
static inline int dg_ready(const dg_client *c) {
    return c && c->ready;
}

/* Asks that were neither answered nor failed with their message. 0: nothing waits. */
static inline unsigned dg_waiting(const dg_client *c) {
    unsigned i, waiting = 0;
    for (i = 0; c && i < c->config.asks_max; i++) {
        waiting += c->config.asks[i].state != 0;
    }
    return waiting;
}
#endif

/* Gives up the oldest message. DG_IGNORED when there is none. */
dg_result dg_abandon(dg_client *c);

/*
 * The network is another one, or was gone: tries at once instead of waiting for the next timeout, and forgets what was
 * measured. Call dg_poll then.
 */
void dg_path_changed(dg_client *c);

/*
 * Appends a record to a batch of *len bytes (0 at first) in a buffer of `size` bytes, and adds to *len. DG_FULL, and no
 * change, if it does not fit.
 */
dg_result dg_batch(uint8_t *batch, size_t size, size_t *len, const void *record, size_t record_len);

/* CRC-32 of IEEE 802.3. With DG_CRC 2 you provide it. */
uint32_t dg_crc32(const uint8_t *bytes, size_t len);

#ifdef __cplusplus
}
#endif

#endif
