/* The names of Arduino's Ethernet library that examples/Sensor uses, to compile it where that library is not at hand. */
#ifndef ETHERNET_H
#define ETHERNET_H

#include <Arduino.h>
#include <IPAddress.h>
#include <Udp.h>

class EthernetClass {
public:
    int begin(uint8_t *mac);
    int maintain();
};

extern EthernetClass Ethernet;

class EthernetUDP : public UDP {
public:
    uint8_t begin(uint16_t port) override;
    void stop() override;
    int beginPacket(IPAddress ip, uint16_t port) override;
    int beginPacket(const char *host, uint16_t port) override;
    int endPacket() override;
    size_t write(uint8_t byte) override;
    size_t write(const uint8_t *buffer, size_t size) override;
    using Print::write;
    int parsePacket() override;
    int available() override;
    int read() override;
    int read(unsigned char *buffer, size_t len) override;
    int read(char *buffer, size_t len) override;
    int peek() override;
    void flush() override;
    IPAddress remoteIP() override;
    uint16_t remotePort() override;
};

#endif
