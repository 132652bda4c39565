/*
 * Sends each line of stdin as a message: posix PORT [EPOCH [CLIENT_ID]] to a server on this machine. Ends with 0 when the
 * server has all of them on its disk. Without an epoch it asks the server for one. With DG_SEALED and a key of 64
 * hexadecimal digits in DG_KEY it is sealed.
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <poll.h>
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

enum { PAYLOAD_MAX = 1000, MESSAGES = 64 };

static unsigned failed;

static uint32_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint32_t)t.tv_sec * 1000 + (uint32_t)(t.tv_nsec / 1000000);
}

static void send_datagram(void *user, const uint8_t *datagram, size_t len) {
    /* What the socket does not take is as good as lost on the way, and sent again later. */
    if (send(*(int *)user, datagram, len, 0) < 0) {
        return;
    }
}

static void on_event(void *user, dg_event event, uint32_t message, uint32_t detail) {
    (void)user;
    if (event == DG_FAILED) {
        fprintf(stderr, "message %u: refused with code %u\n", (unsigned)message, (unsigned)detail);
        failed++;
    } else if (event == DG_EPOCH) {
        fprintf(stderr, "epoch %u\n", (unsigned)detail);
    } else if (event == DG_WAIT) {
        fprintf(stderr, "the server asks to wait for %u ms\n", (unsigned)detail);
    }
}

int main(int argc, char **argv) {
    static dg_cell buffer[DG_CELLS(MESSAGES, PAYLOAD_MAX)];
    static char line[PAYLOAD_MAX + 2];
    struct sockaddr_in server = {.sin_family = AF_INET};
    uint64_t seed = 0;
    dg_client client;
    int udp = socket(AF_INET, SOCK_DGRAM, 0), more = 1;
    FILE *random = fopen("/dev/urandom", "rb");
    dg_config config = {.payload_max = PAYLOAD_MAX, .send = send_datagram, .event = on_event, .user = &udp};

    if (argc < 2 || !random || fread(&seed, sizeof seed, 1, random) != 1) {
        fprintf(stderr, "usage: posix PORT [EPOCH [CLIENT_ID]] <lines\n");
        return 2;
    }
    fclose(random);
    server.sin_port = htons((uint16_t)strtoul(argv[1], NULL, 10));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(udp, (struct sockaddr *)&server, sizeof server) != 0) {
        perror("connect");
        return 1;
    }
    config.random_seed = seed;
    config.epoch = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 0;
    config.client_id = argc > 3 ? strtoull(argv[3], NULL, 16) : 0xc;
#if DG_SEALED
    static uint8_t key[32];
    const char *hex = getenv("DG_KEY");
    for (unsigned i = 0; hex && i < sizeof key; i++) {
        unsigned byte;
        if (sscanf(hex + 2 * i, "%2x", &byte) != 1) {
            return 2;
        }
        key[i] = (uint8_t)byte;
    }
    config.key = key;
    config.crypto = hex ? &dg_monocypher : NULL;
#endif
    if (dg_init(&client, &config, buffer, sizeof buffer / sizeof *buffer) != DG_OK) {
        return 1;
    }

    line[0] = '\0';
    while (more || dg_pending(&client)) {
        struct pollfd readable = {.fd = udp, .events = POLLIN};
        uint32_t wait;
        /* As many lines as there is room for; the one that did not fit stays in `line`. */
        while (more) {
            size_t len;
            if (!line[0] && !fgets(line, sizeof line, stdin)) {
                more = 0;
                break;
            }
            len = strcspn(line, "\n");
            if (dg_send(&client, 0, line, len, 0) == DG_FULL) {
                break;
            }
            line[0] = '\0';
        }
        wait = dg_poll(&client, now_ms());
        if (wait > 60000) {
            wait = 60000;
        }
        if (dg_pending(&client) && poll(&readable, 1, (int)wait) > 0) {
            uint8_t datagram[DG_REPLY_MAX];
            ssize_t len = recv(udp, datagram, sizeof datagram, 0);
            if (len > 0) {
                dg_input(&client, datagram, (size_t)len, now_ms());
            }
        }
    }
    return failed ? 1 : 0;
}
