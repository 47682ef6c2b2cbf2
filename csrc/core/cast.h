// Floats to the types of a batch.
#pragma once

#include <stdint.h>
#include <string.h>

#include "macros.h"

namespace fastssl::core {

// Round to nearest, ties to even, as torch casts. No NaN comes here.
FASTSSL_HD uint16_t to_bfloat16(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof(bits));
  return uint16_t((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}
// IEEE 754 binary16, round to nearest, ties to even, by integers: not every compiler has the type.
FASTSSL_HD uint16_t to_float16(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof(bits));
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  // Normal: rounded at bit 13, the exponent's bias changed from 127 to 15; what is too large becomes infinity.
  const uint32_t normal = ((magnitude + 0xFFFu + (magnitude >> 13 & 1u)) >> 13) - (112u << 10);
  // Subnormal: adding 2^-1 lets the float's own addition round at the right bit.
  float shifted;
  memcpy(&shifted, &magnitude, sizeof(shifted));
  shifted += 0.5f;
  uint32_t small;
  memcpy(&small, &shifted, sizeof(small));
  small -= 0x3F000000u;
  const uint32_t finite = magnitude < 0x38800000u ? small : normal;
  return uint16_t(sign | (magnitude >= 0x477FF000u ? 0x7C00u : finite));
}
FASTSSL_HD float to_float32(float v) { return v; }
// Rounds 255 v to nearest; v is in [0, 1] because uint8 is never normalized.
FASTSSL_HD uint8_t to_uint8(float v) { return uint8_t(int32_t(fused(clamp01(v), 255.0f, 0.5f))); }

}  // namespace fastssl::core
