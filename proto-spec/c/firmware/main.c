/*
 * A sensor: takes a reading every few milliseconds and sends each to a Duragram server. A reading is forgotten only when the
 * server has it on disk. The server may restart, the network may lose what it likes.
 *
 * Arguments from the debugger: the server's UDP port, and a random number (real devices have a generator in hardware).
 */
#include "../duragram.h"
#include "board.h"
#include "net.h"

enum { READINGS = 1000, READING_EVERY_MS = 4, READING_MAX = 40, GIVE_UP_MS = 60000, LOCAL_PORT = 40000 };

static const net_config network = {
    .mac = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56},
    .address = IP(10, 0, 2, 15), /* QEMU's user-mode network; 10.0.2.2 is its host. */
    .mask = IP(255, 255, 255, 0),
    .router = IP(10, 0, 2, 2),
};
static const uint32_t SERVER = IP(10, 0, 2, 2);

static uint16_t server_port;
static dg_client client;
static dg_cell buffer[DG_CELLS(50, READING_MAX)];
static unsigned acked, failed;

static void send_datagram(void *user, const uint8_t *datagram, size_t len) {
    (void)user;
    net_send(SERVER, server_port, datagram, len);
}

static void receive_datagram(uint32_t from, uint16_t from_port, const uint8_t *data, size_t len) {
    if (from == SERVER && from_port == server_port) {
        dg_input(&client, data, len, board_now_ms());
    }
}

static void on_event(void *user, dg_event event, uint32_t message, uint32_t detail) {
    (void)user;
    (void)message;
    acked += event == DG_ACKED;
    failed += event == DG_FAILED;
    if (event == DG_EPOCH) {
        board_print("epoch ");
        board_print_number(detail);
        board_print("\n");
    }
}

static size_t put_number(uint8_t *out, uint32_t number) {
    uint32_t divisor;
    size_t len = 0;
    for (divisor = 1000; divisor; divisor /= 10) {
        out[len++] = (uint8_t)('0' + number / divisor % 10);
    }
    return len;
}

/* Writes the number of a reading and its value, and returns their length. */
static size_t take_reading(uint8_t *out, uint32_t number) {
    size_t len = put_number(out, number);
    out[len++] = ' ';
    /* This board has no thermometer. */
    return len + put_number(out + len, 200 + (number * 7919 >> 4) % 50);
}

int main(void) {
    uint8_t reading[READING_MAX];
    uint32_t taken = 0, last = 0;
    dg_config config = {
        .client_id = 0xF1,
        .random_seed = board_argument(2),
        .epoch = 0, /* It keeps nothing over a restart, so it asks the server for an epoch. */
        .payload_max = READING_MAX,
        .send = send_datagram,
        .event = on_event,
    };
    server_port = (uint16_t)board_argument(1);
    if (net_start(&network, LOCAL_PORT, receive_datagram) != 0
        || dg_init(&client, &config, buffer, sizeof buffer / sizeof *buffer) != DG_OK) {
        board_print("no network\n");
        return 1;
    }
    while (taken < READINGS || dg_pending(&client)) {
        uint32_t now = board_now_ms();
        net_poll();
        if (taken < READINGS && now - last >= READING_EVERY_MS) {
            /* With a full buffer the reading is put off; DG_MAKE_ROOM instead of 0 would give up the oldest. */
            if (dg_send(&client, 0, reading, take_reading(reading, taken), 0) == DG_OK) {
                taken++;
            }
            last = now;
        }
        dg_poll(&client, now);
        if (now > GIVE_UP_MS) {
            break;
        }
        board_sleep();
    }
    board_print_number(acked);
    board_print(" readings are on the server's disk\n");
    return acked == READINGS && failed == 0 ? 0 : 1;
}
