/* SMSC LAN9118 Ethernet controller, as on the MPS2: frames in and out through its FIFOs, by polling. */
#ifndef LAN9118_H
#define LAN9118_H

#include <stddef.h>
#include <stdint.h>

enum { FRAME_MAX = 1514 };

/* Starts it with this address. Returns 0, or -1 if no such chip is there. */
int lan9118_start(const uint8_t mac[6]);
/* Sends a frame without its checksum. One for which there is no room is dropped: Ethernet promises nothing. */
void lan9118_send(const uint8_t *frame, size_t len);
/* Takes a received frame, without its checksum; returns its length, 0 if there is none. */
size_t lan9118_receive(uint8_t frame[FRAME_MAX]);

#endif
