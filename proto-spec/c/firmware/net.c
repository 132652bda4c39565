#include "net.h"

#include "lan9118.h"

void *memcpy(void *to, const void *from, size_t len);
void *memset(void *to, int byte, size_t len);

enum { ETHERNET_LEN = 14, ARP_LEN = 28, IP_LEN = 20, UDP_LEN = 8, FRAME_MIN = 60 };
enum { TYPE_IP = 0x0800, TYPE_ARP = 0x0806, PROTOCOL_UDP = 17, ARP_REQUEST = 1, ARP_REPLY = 2 };

static net_config own;
static uint16_t own_port;
static net_receiver receive_udp;
static uint8_t frame[FRAME_MAX];
/* The one next hop that was used last, and its hardware address if it is known. */
static uint32_t hop;
static uint8_t hop_mac[6];
static int hop_known;

/* Everything in these protocols is big-endian. */
static uint16_t get16(const uint8_t *p) {
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p) {
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void put16(uint8_t *p, uint32_t value) {
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static void put32(uint8_t *p, uint32_t value) {
    put16(p, value >> 16);
    put16(p + 2, value);
}

/* The Internet checksum (RFC 1071) of an even number of bytes; 0 if they hold their own and are right. */
static uint16_t checksum(const uint8_t *p, size_t len) {
    uint32_t sum = 0;
    for (; len >= 2; p += 2, len -= 2) {
        sum += get16(p);
    }
    sum = (sum >> 16) + (sum & 0xFFFF);
    return (uint16_t)~(sum + (sum >> 16));
}

int net_start(const net_config *config, uint16_t port, net_receiver receiver) {
    own = *config;
    own_port = port;
    receive_udp = receiver;
    hop_known = 0;
    return lan9118_start(own.mac);
}

/* Fills in the Ethernet header and sends; short frames are filled with zeros. */
static void send_frame(const uint8_t *to, uint16_t type, size_t len) {
    memcpy(frame, to, 6);
    memcpy(frame + 6, own.mac, 6);
    put16(frame + 12, type);
    len += ETHERNET_LEN;
    if (len < FRAME_MIN) {
        memset(frame + len, 0, FRAME_MIN - len);
        len = FRAME_MIN;
    }
    lan9118_send(frame, len);
}

/* RFC 826. */
static void send_arp(uint16_t operation, const uint8_t *to, const uint8_t *target_mac, uint32_t target) {
    uint8_t *arp = frame + ETHERNET_LEN;
    put16(arp, 1); /* Ethernet */
    put16(arp + 2, TYPE_IP);
    arp[4] = 6;
    arp[5] = 4;
    put16(arp + 6, operation);
    memcpy(arp + 8, own.mac, 6);
    put32(arp + 14, own.address);
    memcpy(arp + 18, target_mac, 6);
    put32(arp + 24, target);
    send_frame(to, TYPE_ARP, ARP_LEN);
}

static void on_arp(const uint8_t *arp, size_t len) {
    uint8_t sender_mac[6];
    uint32_t sender;
    if (len < ARP_LEN || get16(arp + 2) != TYPE_IP || get32(arp + 24) != own.address) {
        return;
    }
    sender = get32(arp + 14);
    memcpy(sender_mac, arp + 8, 6);
    if (sender == hop) {
        memcpy(hop_mac, sender_mac, 6);
        hop_known = 1;
    }
    if (get16(arp + 6) == ARP_REQUEST) {
        send_arp(ARP_REPLY, sender_mac, sender_mac, sender);
    }
}

void net_send(uint32_t to, uint16_t to_port, const uint8_t *data, size_t len) {
    static const uint8_t everyone[6] = {0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF}, nobody[6];
    static uint16_t id;
    uint8_t *ip = frame + ETHERNET_LEN, *udp = ip + IP_LEN;
    uint32_t next = (to & own.mask) == (own.address & own.mask) ? to : own.router;
    if (len > FRAME_MAX - ETHERNET_LEN - IP_LEN - UDP_LEN) {
        return;
    }
    if (next != hop || !hop_known) {
        hop = next;
        hop_known = 0;
        send_arp(ARP_REQUEST, everyone, nobody, next);
        return;
    }
    ip[0] = 4 << 4 | IP_LEN / 4;
    ip[1] = 0;
    put16(ip + 2, (uint32_t)(IP_LEN + UDP_LEN + len));
    put16(ip + 4, id++);
    put16(ip + 6, 0);
    ip[8] = 64; /* time to live */
    ip[9] = PROTOCOL_UDP;
    put16(ip + 10, 0);
    put32(ip + 12, own.address);
    put32(ip + 16, to);
    put16(ip + 10, checksum(ip, IP_LEN));
    put16(udp, own_port);
    put16(udp + 2, to_port);
    put16(udp + 4, (uint32_t)(UDP_LEN + len));
    put16(udp + 6, 0); /* No checksum, which IPv4 allows: Duragram has a better one. */
    memcpy(udp + UDP_LEN, data, len);
    send_frame(hop_mac, TYPE_IP, IP_LEN + UDP_LEN + len);
}

static void on_ip(const uint8_t *ip, size_t len) {
    size_t head = (size_t)(ip[0] & 15) * 4, total = get16(ip + 2), udp_len;
    const uint8_t *udp = ip + head;
    if (len < IP_LEN || ip[0] >> 4 != 4 || head < IP_LEN || total > len || total < head + UDP_LEN
        || checksum(ip, head) != 0 || get32(ip + 16) != own.address || ip[9] != PROTOCOL_UDP
        || (get16(ip + 6) & 0x3FFF) != 0) { /* No fragments: what a Duragram server sends is short. */
        return;
    }
    udp_len = get16(udp + 4);
    if (get16(udp + 2) == own_port && udp_len >= UDP_LEN && head + udp_len <= total) {
        receive_udp(get32(ip + 12), get16(udp), udp + UDP_LEN, udp_len - UDP_LEN);
    }
}

void net_poll(void) {
    static uint8_t received[FRAME_MAX];
    size_t len;
    while ((len = lan9118_receive(received)) != 0) {
        uint16_t type = get16(received + 12);
        if (type == TYPE_ARP) {
            on_arp(received + ETHERNET_LEN, len - ETHERNET_LEN);
        } else if (type == TYPE_IP) {
            on_ip(received + ETHERNET_LEN, len - ETHERNET_LEN);
        }
    }
}
