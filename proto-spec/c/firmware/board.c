#include "board.h"

/* Armv7-M system timer. */
#define SYST_CSR (*(volatile uint32_t *)0xE000E010)
#define SYST_RVR (*(volatile uint32_t *)0xE000E014)
#define SYST_CVR (*(volatile uint32_t *)0xE000E018)
enum { CLOCK_HZ = 25000000, ENABLE = 1, INTERRUPT = 2, PROCESSOR_CLOCK = 4 };

/* Semihosting operations (Arm's "Semihosting for AArch32 and AArch64"). */
enum { SYS_WRITE0 = 0x04, SYS_GET_CMDLINE = 0x15, SYS_EXIT_EXTENDED = 0x20, APPLICATION_EXIT = 0x20026 };

static volatile uint32_t milliseconds;

void board_start(void) {
    SYST_RVR = CLOCK_HZ / 1000 - 1;
    SYST_CVR = 0;
    SYST_CSR = ENABLE | INTERRUPT | PROCESSOR_CLOCK;
}

void board_tick(void) {
    milliseconds++;
}

uint32_t board_now_ms(void) {
    return milliseconds;
}

void board_sleep(void) {
    __asm volatile("wfi");
}

static uint32_t semihosting(uint32_t operation, const void *argument) {
    register uint32_t r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = argument;
    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void board_print(const char *text) {
    semihosting(SYS_WRITE0, text);
}

void board_print_number(uint32_t number) {
    char digits[11];
    unsigned i = sizeof digits - 1;
    digits[i] = '\0';
    do {
        digits[--i] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    board_print(digits + i);
}

uint32_t board_argument(unsigned number) {
    static char line[128];
    const uint32_t block[2] = {(uint32_t)line, sizeof line};
    uint32_t value = 0;
    const char *c = line;
    if (semihosting(SYS_GET_CMDLINE, block) != 0) {
        return 0;
    }
    while (number && *c) {
        number -= *c++ == ' ';
    }
    while (*c >= '0' && *c <= '9') {
        value = 10 * value + (uint32_t)(*c++ - '0');
    }
    return value;
}

void board_exit(int status) {
    const uint32_t block[2] = {APPLICATION_EXIT, (uint32_t)status};
    semihosting(SYS_EXIT_EXTENDED, block);
    for (;;) {
    }
}
