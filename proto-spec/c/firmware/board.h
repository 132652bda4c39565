/* The board: a clock of milliseconds, sleep, and the debugger's semihosting (here QEMU's) for text and arguments. */
#ifndef BOARD_H
#define BOARD_H

#include <stddef.h>
#include <stdint.h>

void board_start(void);
void board_tick(void); /* SysTick's interrupt. */

uint32_t board_now_ms(void);
/* Sleeps until the next interrupt, a millisecond at most. */
void board_sleep(void);

void board_print(const char *text);
void board_print_number(uint32_t number);
/* The number-th of the decimal arguments that the debugger gives; 0 if it is missing. */
uint32_t board_argument(unsigned number);
/* Tells the debugger that the program has ended. */
void board_exit(int status) __attribute__((noreturn));

#endif
