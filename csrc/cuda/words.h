// Bytes at any address, read as whole words of memory: the arithmetic, on the host as on the device.
#pragma once

#include <stdint.h>
#include <string.h>

#include "../core/macros.h"

namespace fastssl::cuda {

// Which words hold the four bytes from an address on: one, or two where `shift` is not 0; and by how many bits they lie
// beside it.
struct Words {
  const uint32_t* first;
  uint32_t shift;
};
FASTSSL_HD Words words_at(const void* from) {
  const auto address = reinterpret_cast<uintptr_t>(from);
  return {reinterpret_cast<const uint32_t*>(address & ~uintptr_t(3)), uint32_t(address & 3) * 8};
}

// The word that begins `shift` bits above the lowest of `low`; `shift` is below 32.
FASTSSL_HD uint32_t joined(uint32_t low, uint32_t high, uint32_t shift) {
#if defined(__CUDA_ARCH__)
  return __funnelshift_r(low, high, shift);
#else
  return uint32_t(((uint64_t(high) << 32) | low) >> shift);
#endif
}

// The i-th byte. 2^23 plus a byte is a float whose last bits are that byte: cheaper than a conversion, and as exact.
FASTSSL_HD float float_of_byte(uint32_t word, int i) {
  constexpr uint32_t kBase = 0x4B000000u;
#if defined(__CUDA_ARCH__)
  const float based = __uint_as_float(__byte_perm(word, kBase, 0x7650u + uint32_t(i)));
#else
  const uint32_t bits = kBase | (word >> 8 * i & 0xFFu);
  float based;
  memcpy(&based, &bits, sizeof(based));
#endif
  return based - 8388608.0f;
}

}  // namespace fastssl::cuda
