/*
 * Names that platforms define as macros, in the headers that programs include before ours or by themselves: gcc's GNU mode
 * (unix, linux, i386, mips), Windows and old 16-bit compilers (near, far, small, interface), Arduino (min, bit, word, B0),
 * AVR's and other registers, Keil's and SDCC's keywords (data, code, xdata), Qt (emit, signals), lwIP (send), C libraries.
 * Included first (-include), it breaks what uses one of them as an ordinary name.
 */
#ifndef HOSTILE_H
#define HOSTILE_H

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Without parentheses: any use is broken. */
#undef unix
#undef linux
#undef i386
#define unix @
#define linux @
#define i386 @
#define mips @
#define sparc @
#define sun @
#define arm @
#define ARM @
#define AVR @
#define PPC @
#define MSP430 @
#define near @
#define far @
#define FAR @
#define NEAR @
#define huge @
#define small @
#define hyper @
#define interrupt @
#define interface @
#define pascal @
#define cdecl @
#define bit @
#define sbit @
#define data @
#define idata @
#define xdata @
#define pdata @
#define code @
#define reentrant @
#define emit @
#define signals @
#define slots @
#define foreach @
#define byte @
#define word @
#define boolean @
#define IN @
#define OUT @
#define OPTIONAL @
#define CONST @
#define VOID @
#define ERROR @
#define DELETE @
#define OK @
#define FAIL @
#define SUCCESS @
#define DATA @
#define ACK @
#define NAK @
#define PING @
#define RESET @
#define ENABLE @
#define DISABLE @
#define READ @
#define WRITE @
#define HIGH @
#define LOW @
#define INPUT @
#define OUTPUT @
#define DEFAULT @
#define INTERNAL @
#define EXTERNAL @
#define CHANGE @
#define RISING @
#define FALLING @
#define DISPLAY @
#define SERIAL @
#define PI @
#define EULER @
#define B0 @
#define B1 @
#define B00000000 @
#define PORTA @
#define DDRB @
#define SP @
#define SREG @
#define UDR @
#define TIMER @
#define BASE @
#define index @
#define major @
#define minor @
#define stdin @
#define time @
#define s_addr @
#define _B @
#define _L @
#define _N @

#ifndef __cplusplus
#define private @
#define public @
#define protected @
#define class @
#define new @
#define delete @
#define this @
#define template @
#define typename @
#define namespace @
#define operator @
#define virtual @
#define friend @
#define using @
#define try @
#define catch @
#define throw @
#define export @
#define mutable @
#define explicit @
#define and @
#define or @
#define not @
#define xor @
#endif

/* With parentheses: only a call, or a declaration of a function of that name, is broken. */
#define min(a, b) @
#define max(a, b) @
#define abs(x) @
#define round(x) @
#define sq(x) @
#define constrain(x, low, high) @
#define radians(x) @
#define lowByte(x) @
#define bitRead(x, n) @
#define F(text) @
#define _BV(n) @
#define send(socket, bytes, len, flags) @
#define recv(socket, bytes, len, flags) @
#define poll(fds, count, timeout) @
#define bind(a, b, c) @
#define connect(a, b, c) @
#define close(a) @
#define read(a, b, c) @
#define write(a, b, c) @
#define wait(x) @
#define signal(a, b) @
#define delay(ms) @
#define yield() @
#define random() @
#define ntohs(x) @
#define htonl(x) @
#define assert(x) @
#define log(x) @
#define sleep(x) @

#endif
