/*
 * Sends each line of stdin as a message, and ends with 0 when the server has all of them on its disk:
 *
 *     posix [--ask] [--window N] [HOST:]PORT [EPOCH [CLIENT_ID]] <lines
 *
 * Built with DG_ANSWERS, and with --ask, each line asks: what came of it is written to stdout as a line of JSON, and the program
 * ends with 0 when all are DONE.
 *
 * Up to N messages, 1 to 65,535, may be unacked at once, 1,024 if no N is given; and no more than the buffer of 1 MiB has room
 * for, 885 of the longest or 8,191 of 100 bytes. HOST is a name or an address, an IPv6 address in brackets; without it the server
 * is on this machine. Without EPOCH, or with 0, it asks the server for one. CLIENT_ID is hexadecimal. Built with DG_SEALED, and
 * with a key of 64 hexadecimal digits in DG_KEY, it is sealed.
 *
 * A line is any bytes up to a newline or the end, NUL among them; what has no newline at the end is a line too, and an empty
 * line is an empty message. A line that is longer than PAYLOAD_MAX bytes is not sent, nor a part of it: it is told, the others
 * go on, and the program ends with 1, as with every line that is not on the server's disk. 2: called wrongly.
 *
 * One poll() waits for stdin, the socket and the client's next deadline, so that it sends, is acked and sends again while the
 * next line is not there yet.
 */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../duragram.h"
#if DG_SEALED
#include "../duragram_monocypher.h"
#endif

/* A name may have several addresses, and a server need not listen to all: each gets so long, then longer, until one answers. */
enum { PAYLOAD_MAX = 1200 - DG_OVERHEAD, WINDOW = 1024, CELLS = 65535, ADDRESS_MS = 1000, ADDRESS_MS_MAX = 60000, REFUSED_MS = 100 };

typedef struct {
    dg_client client;
    /* Where the server is: the addresses of its name, the one that is tried now and since when, whether any has answered. */
    struct addrinfo *addresses, *address;
    int udp;
    uint32_t since_ms, patience_ms, window;
    bool heard, refused, warned;
    unsigned long lines, failed;
#if DG_ANSWERS
    dg_ask asks[DG_ASKS_MAX];
    unsigned long line_of[DG_ASKS_MAX];
#endif
    unsigned flags; /* Of dg_send. */
    uint32_t messages;
} program;

/* What comes from stdin: bytes that were read, and the line that they make up. */
typedef struct {
    char bytes[16384];
    size_t start, end;
    char line[PAYLOAD_MAX];
    size_t len; /* Of the line; more than it holds if it is too long. */
    bool ended, complete;
} input;

static uint32_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint32_t)t.tv_sec * 1000 + (uint32_t)(t.tv_nsec / 1000000);
}

static void send_datagram(void *user, const uint8_t *datagram, size_t len) {
    program *p = user;
    if (send(p->udp, datagram, len, 0) < 0) {
        if (errno == EMSGSIZE) {
            dg_too_large(&p->client);
        }
        /* Whatever else the socket does not take is as good as lost on the way, and sent again later. */
        p->refused |= errno == ECONNREFUSED;
    }
}

static void on_event(void *user, dg_event event, uint32_t message, uint32_t detail) {
    program *p = user;
    switch (event) {
    case DG_FAILED:
        fprintf(stderr, "posix: message %" PRIu32 ": refused with code %" PRIu32 "\n", message, detail);
        p->failed++;
        break;
    case DG_EPOCH:
        fprintf(stderr, "posix: epoch %" PRIu32 "\n", detail);
        break;
    case DG_WAIT:
        fprintf(stderr, "posix: the server asks to wait for %" PRIu32 " ms\n", detail);
        break;
    case DG_EPOCH_USED:
        fprintf(stderr, "posix: epoch %" PRIu32 " was used before by this client: all goes into one of the server's\n", detail);
        break;
    case DG_ACKED:
    case DG_ABANDONED: /* Nothing is given up here. */
        break;
    }
}

#if DG_ANSWERS
/* One line of JSON for each answer. The body is in base64: it may be of any bytes. */
static void on_answer(void *user, const dg_ask *ask, dg_answer answer, const uint8_t *body, uint32_t len) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    program *p = user;
    const char *status = answer == DG_ANSWER_DONE ? "DONE" : answer == DG_ANSWER_FAILED ? "FAILED" : "GONE";
    printf("{\"line\": %lu, \"status\": \"%s\"", p->line_of[ask - p->asks], status);
    if (body) {
        printf(", \"body_base64\": \"");
        for (uint32_t i = 0; i < len; i += 3) {
            uint32_t left = len - i, bits = (uint32_t)body[i] << 16;
            bits |= left > 1 ? (uint32_t)body[i + 1] << 8 : 0;
            bits |= left > 2 ? body[i + 2] : 0;
            putchar(digits[bits >> 18]);
            putchar(digits[bits >> 12 & 63]);
            putchar(left > 1 ? digits[bits >> 6 & 63] : '=');
            putchar(left > 2 ? digits[bits & 63] : '=');
        }
        putchar('"');
    } else if (len) {
        fprintf(stderr, "posix: the answer has %" PRIu32 " bytes, and this program takes %d\n", len, (int)DG_ANSWER_MAX);
    }
    puts("}");
    fflush(stdout);
    p->failed += answer != DG_ANSWER_DONE;
}
#endif

/* Opens a socket to the first address from `from` on, and round, that the system can reach. */
static bool connect_to(program *p, struct addrinfo *from) {
    struct addrinfo *a = from;
    do {
        int udp = socket(a->ai_family, a->ai_socktype, a->ai_protocol);
        if (udp >= 0 && connect(udp, a->ai_addr, a->ai_addrlen) == 0) {
            if (p->udp >= 0) {
                close(p->udp);
            }
            p->udp = udp;
            p->address = a;
            p->refused = false;
            p->since_ms = now_ms();
            return true;
        }
        if (udp >= 0) {
            int reason = errno;
            close(udp);
            errno = reason;
        }
        a = a->ai_next ? a->ai_next : p->addresses;
    } while (a != from);
    return false;
}

/* As long as nothing was heard: how long to stay with this address; UINT32_MAX if there is no other. */
static uint32_t stay_ms(const program *p) {
    uint32_t stay = p->refused ? REFUSED_MS : p->patience_ms, passed = now_ms() - p->since_ms;
    if (p->heard || !p->addresses->ai_next) {
        return UINT32_MAX;
    }
    return passed < stay ? stay - passed : 0;
}

static void try_next_address(program *p) {
    struct addrinfo *following = p->address->ai_next;
    if (!following) {
        following = p->addresses;
        p->patience_ms = 2 * p->patience_ms < ADDRESS_MS_MAX ? 2 * p->patience_ms : ADDRESS_MS_MAX;
    }
    if (connect_to(p, following)) {
        dg_path_changed(&p->client);
    } else {
        p->since_ms = now_ms();
    }
}

static void receive(program *p) {
    uint8_t datagram[DG_REPLY_MAX + 1]; /* One more: what is longer than any answer must not be cut to fit. */
    for (unsigned i = 0; i < 64; i++) {
        ssize_t len = recv(p->udp, datagram, sizeof datagram, MSG_DONTWAIT);
        dg_result result;
        if (len < 0) {
            p->refused |= errno == ECONNREFUSED;
            return;
        }
        result = dg_input(&p->client, datagram, (size_t)len, now_ms());
        p->heard |= result != DG_IGNORED;
        if (result == DG_NEVER_SENT && !p->warned) {
            fprintf(stderr, "posix: an ack of what was never sent: is this client_id or epoch used twice?\n");
            p->warned = true;
        }
    }
}

/* Goes on with the line, as far as bytes were read; `complete` then says whether it is whole. */
static void gather(input *in) {
    size_t left = in->end - in->start, part = left;
    const char *from = in->bytes + in->start, *newline = left ? memchr(from, '\n', left) : NULL;
    if (newline) {
        part = (size_t)(newline - from);
    }
    if (in->len < PAYLOAD_MAX) {
        size_t room = PAYLOAD_MAX - in->len;
        memcpy(in->line + in->len, from, part < room ? part : room);
    }
    in->len += part;
    in->start += part + (newline != NULL);
    in->complete = newline || (in->ended && in->start == in->end && in->len);
}

#if DG_ANSWERS
/* Which line the message is that was taken last. */
static void note_line(program *p, uint32_t message) {
    for (unsigned i = 0; i < DG_ASKS_MAX; i++) {
        if (p->asks[i].state && p->asks[i].epoch == 0 && p->asks[i].message == message) {
            p->line_of[i] = p->lines + 1;
        }
    }
}
#endif

/* Whether something is to be acked, or answered. */
static bool is_busy(const program *p) {
#if DG_ANSWERS
    return dg_pending(&p->client) || dg_waiting(&p->client);
#else
    return dg_pending(&p->client);
#endif
}

/* Takes as many lines as there is room for. Returns whether more must be read. */
static bool take_lines(program *p, input *in) {
    for (;;) {
        if (!in->complete) {
            gather(in);
        }
        if (!in->complete) {
            return !in->ended;
        }
        if (in->len > PAYLOAD_MAX) {
            fprintf(stderr, "posix: line %lu has %zu bytes, and a message at most %d: not sent\n", p->lines + 1, in->len,
                    (int)PAYLOAD_MAX);
            p->failed++;
        } else if (dg_pending(&p->client) >= p->window || dg_send(&p->client, 0, in->line, in->len, p->flags) == DG_FULL) {
            return false;
#if DG_ANSWERS
        } else {
            note_line(p, p->messages++);
#endif
        }
        p->lines++;
        in->len = 0;
        in->complete = false;
    }
}

/* Reads what is there. Returns whether stdin could be read. */
static bool read_more(input *in) {
    ssize_t len = read(STDIN_FILENO, in->bytes, sizeof in->bytes);
    if (len < 0) {
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    }
    in->start = 0;
    in->end = (size_t)len;
    in->ended = len == 0;
    return true;
}

static bool number(const char *text, int base, uint64_t max, uint64_t *out) {
    const char *digits = base == 16 ? "0123456789abcdefABCDEF" : "0123456789";
    size_t len = strlen(text);
    errno = 0;
    *out = strtoull(text, NULL, base);
    return len != 0 && strspn(text, digits) == len && errno == 0 && *out <= max;
}

/* [HOST:]PORT. Returns NULL and says why if there is no such place. */
static struct addrinfo *resolve(const char *place) {
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM};
    struct addrinfo *found = NULL;
    const char *colon = strrchr(place, ':'), *port = colon ? colon + 1 : place;
    char host[256] = "127.0.0.1";
    uint64_t checked;
    int failed;
    if (!number(port, 10, 65535, &checked) || checked == 0) {
        fprintf(stderr, "posix: %s: no UDP port from 1 to 65535 at its end\n", place);
        return NULL;
    }
    if (colon) {
        size_t len = (size_t)(colon - place);
        bool brackets = len > 2 && place[0] == '[' && place[len - 1] == ']';
        if (len == 0 || len >= sizeof host || (!brackets && memchr(place, ':', len))) {
            fprintf(stderr, "posix: %s: a host is a name, an IPv4 address, or an IPv6 address in brackets\n", place);
            return NULL;
        }
        memcpy(host, place + brackets, len - 2 * brackets);
        host[len - 2 * brackets] = '\0';
    }
    failed = getaddrinfo(host, port, &hints, &found);
    if (failed) {
        fprintf(stderr, "posix: %s: %s\n", host, failed == EAI_SYSTEM ? strerror(errno) : gai_strerror(failed));
        return NULL;
    }
    return found;
}

static bool take_key(dg_config *config) {
    const char *hex = getenv("DG_KEY");
#if DG_SEALED
    static uint8_t key[32];
    if (!hex) {
        return true;
    }
    for (size_t i = 0; i < sizeof key; i++) {
        char digits[3] = {0};
        uint64_t value;
        if (strlen(hex) != 2 * sizeof key || !number(memcpy(digits, hex + 2 * i, 2), 16, 255, &value)) {
            fprintf(stderr, "posix: DG_KEY: not 64 hexadecimal digits\n");
            return false;
        }
        key[i] = (uint8_t)value;
    }
    config->key = key;
    config->crypto = &dg_monocypher;
#else
    (void)config;
    if (hex) {
        fprintf(stderr, "posix: DG_KEY is set, but this program was built without DG_SEALED and would send in plain\n");
        return false;
    }
#endif
    return true;
}

int main(int argc, char **argv) {
    static dg_cell buffer[CELLS + DG_CELLS(0, PAYLOAD_MAX)];
    static program p = {.udp = -1, .patience_ms = ADDRESS_MS, .window = WINDOW};
    static input in;
    uint64_t epoch = 0, client_id = 0xc, seed = 0, window = WINDOW;
    dg_config config = {.payload_max = PAYLOAD_MAX, .send = send_datagram, .event = on_event, .user = &p};
    FILE *random;
    bool more;

    if (argc > 1 && strcmp(argv[1], "--ask") == 0) {
#if DG_ANSWERS
        p.flags = DG_ASK;
        argv++;
        argc--;
#else
        fprintf(stderr, "posix: --ask: this program was built without DG_ANSWERS\n");
        return 2;
#endif
    }
    if (argc > 2 && strcmp(argv[1], "--window") == 0) {
        if (!number(argv[2], 10, UINT16_MAX, &window) || window == 0) {
            fprintf(stderr, "posix: --window %s: 1 to 65535 messages\n", argv[2]);
            return 2;
        }
        argv += 2;
        argc -= 2;
    }
    p.window = (uint32_t)window;
    if (argc < 2 || argc > 4 || (argc > 2 && !number(argv[2], 10, UINT32_MAX, &epoch))
        || (argc > 3 && !number(argv[3], 16, UINT64_MAX, &client_id))) {
        fprintf(stderr, "usage: posix [--ask] [--window N] [HOST:]PORT [EPOCH [CLIENT_ID]] <lines\n"
                        "EPOCH: 0 to 4294967295, 0 to ask the server; CLIENT_ID: up to 16 hexadecimal digits\n");
        return 2;
    }
    if (fcntl(STDIN_FILENO, F_GETFD) < 0) { /* Else the socket would take its number, and be read as lines. */
        fprintf(stderr, "posix: standard input is closed\n");
        return 2;
    }
    p.addresses = resolve(argv[1]);
    if (!p.addresses || !take_key(&config)) {
        return 2;
    }
    random = fopen("/dev/urandom", "rb");
    if (!random || fread(&seed, sizeof seed, 1, random) != 1) {
        perror("posix: /dev/urandom");
        return 1;
    }
    fclose(random);
    if (!connect_to(&p, p.addresses)) {
        fprintf(stderr, "posix: %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
#if DG_ANSWERS
    config.asks = p.asks;
    config.asks_max = DG_ASKS_MAX;
    config.answer = on_answer;
#endif
    config.client_id = client_id;
    config.random_seed = seed;
    config.epoch = (uint32_t)epoch;
    if (dg_init(&p.client, &config, buffer, sizeof buffer / sizeof *buffer) != DG_OK) {
        fprintf(stderr, "posix: the client does not take its configuration\n");
        return 1;
    }

#if DG_ANSWERS
    dg_take(&p.client, 20000);
#endif
    while ((more = take_lines(&p, &in)) || is_busy(&p)) {
        struct pollfd fds[2] = {{.events = POLLIN}, {.fd = more ? STDIN_FILENO : -1, .events = POLLIN}};
        uint32_t wait = dg_poll(&p.client, now_ms()), stay = dg_pending(&p.client) ? stay_ms(&p) : UINT32_MAX;
        wait = wait < stay ? wait : stay;
        fds[0].fd = p.udp;
        /* A message that the network does not take has made room within dg_poll: nothing need come for going on. */
        if (!more && !is_busy(&p)) {
            continue;
        }
        poll(fds, 2, wait < INT32_MAX ? (int)wait : -1);
        if (fds[0].revents) {
            receive(&p);
        }
        if (fds[1].revents && !read_more(&in)) {
            perror("posix: standard input");
            p.failed++;
            in.ended = true;
        }
        if (!dg_pending(&p.client)) {
            p.since_ms = now_ms(); /* Nobody owes an answer. */
        } else if (stay_ms(&p) == 0) {
            try_next_address(&p);
        }
    }
#if DG_ANSWERS
    dg_poll(&p.client, now_ms()); /* The last answer was heard in dg_input: now the server may forget all. */
#endif
    if (p.failed) {
        fprintf(stderr, "posix: not all of %lu lines are on the server's disk, or done: %lu failed\n", p.lines, p.failed);
    }
    close(p.udp);
    freeaddrinfo(p.addresses);
    return p.failed ? 1 : 0;
}
