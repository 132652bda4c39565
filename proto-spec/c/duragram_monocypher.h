/* Sealed mode by Monocypher 4 (https://monocypher.org): give &dg_monocypher as dg_config.crypto. Needs DG_SEALED=1. */
#ifndef DURAGRAM_MONOCYPHER_H
#define DURAGRAM_MONOCYPHER_H

#include "duragram.h"

#if DG_SEALED
#ifdef __cplusplus
extern "C" {
#endif

extern const dg_crypto dg_monocypher;

#ifdef __cplusplus
}
#endif
#endif

#endif
