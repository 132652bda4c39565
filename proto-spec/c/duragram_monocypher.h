/* Sealed mode by Monocypher 4 (https://monocypher.org): give &dg_monocypher as dg_config.crypto. */
#ifndef DURAGRAM_MONOCYPHER_H
#define DURAGRAM_MONOCYPHER_H

#include "duragram.h"

extern const dg_crypto dg_monocypher;

#endif
