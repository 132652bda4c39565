/* ARP, IPv4 and UDP for one address on one network: as much as a device needs that talks to one server. */
#ifndef NET_H
#define NET_H

#include <stddef.h>
#include <stdint.h>

#define IP(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))

typedef struct {
    uint8_t mac[6];
    uint32_t address, mask, router; /* See IP. */
} net_config;

/* Called with what comes to `port`. */
typedef void (*net_receiver)(uint32_t from, uint16_t from_port, const uint8_t *data, size_t len);

/* Starts the interface. Returns 0, or -1 if there is none. */
int net_start(const net_config *config, uint16_t port, net_receiver receiver);
/* Sends from `port`. It may be lost, and is while the next hop's hardware address is not known: then it is asked for. */
void net_send(uint32_t to, uint16_t to_port, const uint8_t *data, size_t len);
/* Handles all that has come in. */
void net_poll(void);

#endif
