/*
 * Sends a reading every ten seconds to a Duragram server, and blinks while one is not on its disk yet. For any board with a
 * network: here Ethernet (W5100, W5500); with WiFi only `network` and what starts it are others.
 */
#include <SPI.h>
#include <Ethernet.h>
#include <duragram.h>

static byte mac[] = {0x02, 0x00, 0x00, 0x12, 0x34, 0x56};   /* Another for each device. */
static const IPAddress server(192, 168, 1, 10);
static const uint16_t SERVER_PORT = 7117;
static const uint8_t READING_MAX = 24;

static EthernetUDP network;
static dg_client client;
static dg_cell buffer[DG_CELLS(8, READING_MAX)];            /* Eight readings: offline for more, the oldest are given up. */

/* What is not sent now is sent again later. */
static void sendDatagram(void *, const uint8_t *datagram, size_t len) {
    if (network.beginPacket(server, SERVER_PORT)) {
        network.write(datagram, len);
        network.endPacket();
    }
}

static void onEvent(void *, dg_event event, uint32_t message, uint32_t detail) {
    if (event == DG_FAILED) {
        Serial.print(F("refused: reading "));
        Serial.print(message);
        Serial.print(F(", code "));
        Serial.println(detail);
    }
}

/* Differs at every start and between devices: noise of an open pin, stirred, and the time that the network took. */
static uint64_t randomSeed64() {
    uint64_t seed = micros();
    for (uint8_t i = 0; i < 64; i++) {
        seed = seed * 6364136223846793005ULL + (uint16_t)analogRead(A0) + micros();
    }
    return seed;
}

void setup() {
    Serial.begin(115200);
    pinMode(LED_BUILTIN, OUTPUT);
    while (Ethernet.begin(mac) == 0) {
        Serial.println(F("no network yet"));
        delay(1000);
    }
    network.begin(40000);

    dg_config config = dg_config();
    for (uint8_t i = 0; i < sizeof mac; i++) {
        config.client_id = config.client_id << 8 | mac[i];
    }
    config.random_seed = randomSeed64();
    config.epoch = 0;                                       /* It keeps nothing over a reset: the server gives one. */
    config.payload_max = READING_MAX;
    config.send = sendDatagram;
    config.event = onEvent;
    if (dg_init(&client, &config, buffer, sizeof buffer / sizeof *buffer) != DG_OK) {
        Serial.println(F("the client does not take its configuration"));
        while (true) {
        }
    }
}

static void takeReading() {
    char reading[READING_MAX];
    int len = snprintf(reading, sizeof reading, "A1=%d", analogRead(A1));
    dg_send(&client, 0, reading, (size_t)len, DG_MAKE_ROOM);
}

void loop() {
    static uint32_t last;
    uint8_t datagram[DG_REPLY_MAX];
    Ethernet.maintain();
    if (millis() - last >= 10000) {
        last = millis();
        takeReading();
    }
    while (network.parsePacket() > 0) {
        int len = network.read(datagram, sizeof datagram);
        if (len > 0 && network.remoteIP() == server) {
            dg_input(&client, datagram, (size_t)len, millis());
        }
    }
    dg_poll(&client, millis());
    digitalWrite(LED_BUILTIN, dg_pending(&client) && (millis() & 256) ? HIGH : LOW);
}
