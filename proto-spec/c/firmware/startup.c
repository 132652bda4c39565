/* What happens before main: the vector table, memory as C expects it, and the two functions of libc that compilers call. */
#include "board.h"

extern uint32_t stack_top[], data_start[], data_end[], data_values[], bss_start[], bss_end[];

int main(void);

void reset_handler(void);
void reset_handler(void) {
    /* The linker script says where these are: not the separate objects that they are declared as. */
    uint32_t *from = data_values, *to;
    /* cppcheck-suppress comparePointers */
    for (to = data_start; to < data_end; to++) {
        *to = *from++;
    }
    /* cppcheck-suppress comparePointers */
    for (to = bss_start; to < bss_end; to++) {
        *to = 0;
    }
    board_start();
    board_exit(main());
}

/* A fault or an interrupt that nobody expects. */
static void unexpected(void) {
    board_print("unexpected exception\n");
    board_exit(1);
}

typedef void (*vector)(void);

__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    vector exceptions[15];
} vectors = {stack_top,
             {reset_handler, unexpected, unexpected, unexpected, unexpected, unexpected, 0, 0, 0, 0, unexpected, unexpected,
              0, unexpected, board_tick}};

void *memcpy(void *to, const void *from, size_t len) {
    uint8_t *t = to;
    const uint8_t *f = from;
    while (len--) {
        *t++ = *f++;
    }
    return to;
}

void *memset(void *to, int byte, size_t len) {
    uint8_t *t = to;
    while (len--) {
        *t++ = (uint8_t)byte;
    }
    return to;
}
