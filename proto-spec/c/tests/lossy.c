/*
 * A bad path on this machine: lossy SERVER_PORT LOSS DUPLICATES LATE SEED. Prints the port that clients send to; carries
 * datagrams to SERVER_PORT and answers back to whoever sent last, until it is killed. In percent: of the datagrams of each
 * way that are lost, come twice, and are held back for up to 30 ms, so that later ones overtake them. The very first DATA of an
 * epoch never comes twice: to a client that would look like an epoch that was used before.
 */
#define _XOPEN_SOURCE 700
#include <arpa/inet.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HELD_MAX = 4096 };

typedef struct {
    uint32_t at;
    bool to_server;
    size_t len;
    uint8_t bytes[1500];
} held;

static held waiting[HELD_MAX];
static unsigned waiting_count;

static uint32_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint32_t)t.tv_sec * 1000 + (uint32_t)(t.tv_nsec / 1000000);
}

static bool chance(int percent) {
    return random() % 100 < percent;
}

/* Seq 1, transmitted for the first time. */
static bool is_first_data(const held *h) {
    static const uint8_t one[8] = {1};
    return h->to_server && h->len >= 32 && h->bytes[0] == 0x11 && (h->bytes[1] & 7) == 0 && memcmp(h->bytes + 16, one, 8) == 0;
}

static int udp_socket(uint16_t connected_to) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(connected_to);
    int failed = connected_to ? connect(udp, (struct sockaddr *)&address, sizeof address)
                              : bind(udp, (struct sockaddr *)&address, sizeof address);
    if (udp < 0 || failed) {
        perror("lossy");
        exit(1);
    }
    return udp;
}

int main(int argc, char **argv) {
    struct sockaddr_in address, client = {0};
    socklen_t address_len = sizeof address;
    if (argc != 6) {
        fprintf(stderr, "usage: lossy SERVER_PORT LOSS DUPLICATES LATE SEED\n");
        return 2;
    }
    int loss = atoi(argv[2]), duplicates = atoi(argv[3]), late = atoi(argv[4]);
    srandom((unsigned)atoi(argv[5]));
    struct pollfd ways[2] = {{.fd = udp_socket(0), .events = POLLIN},
                             {.fd = udp_socket((uint16_t)atoi(argv[1])), .events = POLLIN}};
    getsockname(ways[0].fd, (struct sockaddr *)&address, &address_len);
    printf("%u\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        poll(ways, 2, waiting_count ? 1 : 1000);
        for (unsigned way = 0; way < 2; way++) {
            held datagram = {.at = now_ms(), .to_server = way == 0};
            socklen_t client_len = sizeof client;
            if (!(ways[way].revents & (POLLIN | POLLERR))) {
                continue;
            }
            ssize_t len = way == 0 ? recvfrom(ways[0].fd, datagram.bytes, sizeof datagram.bytes, 0,
                                              (struct sockaddr *)&client, &client_len)
                                   : recv(ways[1].fd, datagram.bytes, sizeof datagram.bytes, 0);
            if (len < 0 || chance(loss)) {
                continue;
            }
            datagram.len = (size_t)len;
            int copies = 1 + (!is_first_data(&datagram) && chance(duplicates));
            for (; copies && waiting_count < HELD_MAX; copies--) {
                waiting[waiting_count] = datagram;
                waiting[waiting_count++].at += chance(late) ? (uint32_t)random() % 30 : 0;
            }
        }
        for (unsigned i = 0; i < waiting_count;) {
            held *h = &waiting[i];
            if ((int32_t)(h->at - now_ms()) > 0) {
                i++;
                continue;
            }
            if (h->to_server) {
                (void)!send(ways[1].fd, h->bytes, h->len, 0);
            } else {
                (void)!sendto(ways[0].fd, h->bytes, h->len, 0, (struct sockaddr *)&client, sizeof client);
            }
            /* In their order: those that are due at once do not overtake each other. */
            memmove(h, h + 1, (--waiting_count - i) * sizeof *h);
        }
    }
}
