// A 64-bit checksum of memory, for damage and not against malice: a few bytes a cycle, 2^-64 chance that a change goes unseen.
//
// Products of 64 bits, folded, in four lanes, after wyhash (Wang Yi, 2019, public domain). Defined for little-endian
// memory; files say which they are. The value is part of the form of a file: to change it is to change the file's version.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace fastssl::core {

inline uint64_t fold(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a) * b;
  return uint64_t(product) ^ uint64_t(product >> 64);
}

inline uint64_t load64(const uint8_t* p) {
  uint64_t word;
  std::memcpy(&word, p, sizeof(word));
  return word;
}

inline uint64_t checksum(const void* data, size_t size, uint64_t seed = 0) {
  constexpr uint64_t kSecret[4] = {0xa0761d6478bd642full, 0xe7037ed1a0b428dbull, 0x8ebc6af09c88c6e3ull,
                                   0x589965cc75374cc3ull};
  const auto* p = static_cast<const uint8_t*>(data);
  uint64_t lane[4] = {seed ^ kSecret[0], seed ^ kSecret[1], seed ^ kSecret[2], seed ^ kSecret[3]};
  size_t left = size;
  for (; left >= 64; left -= 64, p += 64) {
    for (int i = 0; i < 4; ++i) lane[i] = fold(load64(p + 16 * i) ^ kSecret[i], load64(p + 16 * i + 8) ^ lane[i]);
  }
  uint8_t rest[64] = {};
  if (left) std::memcpy(rest, p, left);
  for (int i = 0; i < 4; ++i) lane[i] = fold(load64(rest + 16 * i) ^ kSecret[i], load64(rest + 16 * i + 8) ^ lane[i]);
  const uint64_t both =
      fold(lane[0] ^ kSecret[1], lane[1] ^ kSecret[2]) ^ fold(lane[2] ^ kSecret[3], lane[3] ^ kSecret[0]);
  return fold(both ^ kSecret[0], uint64_t(size) ^ kSecret[1]);
}

}  // namespace fastssl::core
