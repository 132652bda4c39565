#include "lan9118.h"

#define REGISTER(offset) (*(volatile uint32_t *)(0x40200000 + (offset)))
#define RX_DATA_FIFO REGISTER(0x00)
#define TX_DATA_FIFO REGISTER(0x20)
#define RX_STATUS_FIFO REGISTER(0x40)
#define TX_STATUS_FIFO REGISTER(0x48)
#define BYTE_TEST REGISTER(0x64)
#define TX_CFG REGISTER(0x70)
#define HW_CFG REGISTER(0x74)
#define RX_FIFO_INF REGISTER(0x7C)
#define TX_FIFO_INF REGISTER(0x80)
#define MAC_CSR_CMD REGISTER(0xA4)
#define MAC_CSR_DATA REGISTER(0xA8)

/* Registers behind MAC_CSR_CMD, and of the PHY behind those. */
enum { MAC_CR = 1, ADDRH = 2, ADDRL = 3, MII_ACC = 6, MII_DATA = 7 };
enum { MAC_RX_ON = 1 << 2, MAC_TX_ON = 1 << 3, MII_BUSY = 1, MII_WRITE = 2, PHY_ADDRESS = 1 << 11 };
enum { PHY_AUTONEGOTIATE = 1 << 12, PHY_RESTART = 1 << 9 };
enum { HW_RESET = 1, TX_ON = 1 << 1, TX_FIRST_SEGMENT = 1 << 13, TX_LAST_SEGMENT = 1 << 12, RX_ERROR = 1 << 15 };

static const uint32_t CSR_BUSY = 1u << 31, BYTE_TEST_VALUE = 0x87654321;

static void mac_write(uint32_t number, uint32_t value) {
    MAC_CSR_DATA = value;
    MAC_CSR_CMD = CSR_BUSY | number;
    while (MAC_CSR_CMD & CSR_BUSY) {
    }
}

int lan9118_start(const uint8_t mac[6]) {
    if (BYTE_TEST != BYTE_TEST_VALUE) {
        return -1;
    }
    HW_CFG |= HW_RESET;
    while (HW_CFG & HW_RESET) {
    }
    /* The PHY's register 0. */
    mac_write(MII_DATA, PHY_AUTONEGOTIATE | PHY_RESTART);
    mac_write(MII_ACC, PHY_ADDRESS | MII_WRITE | MII_BUSY);
    mac_write(ADDRL, mac[0] | (uint32_t)mac[1] << 8 | (uint32_t)mac[2] << 16 | (uint32_t)mac[3] << 24);
    mac_write(ADDRH, mac[4] | (uint32_t)mac[5] << 8);
    mac_write(MAC_CR, MAC_RX_ON | MAC_TX_ON);
    TX_CFG = TX_ON;
    return 0;
}

void lan9118_send(const uint8_t *frame, size_t len) {
    uint32_t free_bytes = TX_FIFO_INF & 0xFFFF, statuses = TX_FIFO_INF >> 16 & 0xFF;
    size_t i;
    /* What became of earlier frames: nobody asks, but a full status FIFO would stop the chip. */
    while (statuses--) {
        (void)TX_STATUS_FIFO;
    }
    if (free_bytes < len + 12) {
        return;
    }
    TX_DATA_FIFO = TX_FIRST_SEGMENT | TX_LAST_SEGMENT | (uint32_t)len;
    TX_DATA_FIFO = (uint32_t)len;
    for (i = 0; i < len; i += 4) {
        uint32_t word = 0;
        unsigned byte;
        for (byte = 0; byte < 4 && i + byte < len; byte++) {
            word |= (uint32_t)frame[i + byte] << 8 * byte;
        }
        TX_DATA_FIFO = word;
    }
}

size_t lan9118_receive(uint8_t frame[FRAME_MAX]) {
    uint32_t status, len, i;
    if ((RX_FIFO_INF >> 16 & 0xFF) == 0) {
        return 0;
    }
    status = RX_STATUS_FIFO;
    len = status >> 16 & 0x3FFF; /* With the 4 bytes of the checksum. */
    for (i = 0; i < len; i += 4) {
        uint32_t word = RX_DATA_FIFO;
        unsigned byte;
        for (byte = 0; byte < 4 && i + byte < FRAME_MAX; byte++) {
            frame[i + byte] = (uint8_t)(word >> 8 * byte);
        }
    }
    return status & RX_ERROR || len < 18 || len - 4 > FRAME_MAX ? 0 : len - 4;
}
