/* What the tests share: a check that says where it failed and goes on, and datagrams as a server makes them. */
#ifndef CHECK_H
#define CHECK_H

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../duragram.h"

static unsigned checks, failures;

#define CHECK(what) check((what), #what, "", __FILE__, __LINE__)
#define CHECK_OF(name, what) check((what), #what, (name), __FILE__, __LINE__)

static void check(bool right, const char *what, const char *name, const char *file, int line) {
    checks++;
    if (!right) {
        failures++;
        fprintf(stderr, "%s:%d: %s%snot so: %s\n", file, line, name, *name ? ": " : "", what);
    }
}

/* Ends a program of tests. */
static inline int verdict(const char *program) {
    printf("%s: %u checks, %u failed\n", program, checks, failures);
    return failures != 0;
}

static inline uint32_t load32(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t load64(const uint8_t *p) {
    return load32(p) | (uint64_t)load32(p + 4) << 32;
}

static inline void store(uint8_t *p, uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++) {
        p[i] = (uint8_t)(value >> 8 * i);
    }
}

/* Writes a plain datagram and returns its length. */
static inline size_t plain(uint8_t *d, unsigned type, unsigned flags, unsigned small, uint32_t epoch, uint64_t client,
                           uint64_t number, uint32_t word, const void *rest, size_t rest_len) {
    d[0] = (uint8_t)(16 | type);
    d[1] = (uint8_t)flags;
    store(d + 2, small, 2);
    store(d + 4, epoch, 4);
    store(d + 8, client, 8);
    store(d + 16, number, 8);
    store(d + 24, word, 4);
    if (rest_len) {
        memcpy(d + 28, rest, rest_len);
    }
    store(d + 28 + rest_len, dg_crc32(d, 28 + rest_len), 4);
    return 32 + rest_len;
}

#endif
