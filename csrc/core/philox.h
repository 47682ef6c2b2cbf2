// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//
// A draw is a pure function of (seed, epoch, index of the sample, view, repeat, which draw). Nothing is carried from
// one draw to the next, so threads, workers, ranks, batch size and device cannot change a view.
#pragma once

#include <cstdint>

#include "macros.h"

namespace fastssl::core {

struct Random4 {
  uint32_t v[4];
};

// One block of four random words. Known answers: Random123, kat_vectors, philox4x32 10.
FASTSSL_HD Random4 philox4x32(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(0xD2511F53u) * c0;
    const uint64_t p1 = uint64_t(0xCD9E8D57u) * c2;
    const uint32_t n0 = uint32_t(p1 >> 32) ^ c1 ^ k0;
    const uint32_t n2 = uint32_t(p0 >> 32) ^ c3 ^ k1;
    c1 = uint32_t(p1);
    c3 = uint32_t(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return Random4{{c0, c1, c2, c3}};
}

// Views from here on are streams that belong to no view.
constexpr uint32_t kFirstReservedView = 0xFF00;
// From here on 128 streams for the masks of masked-image methods: 16 (one a view) for each of 8 makers, in the order of
// fastssl/transforms/_draw_masks.py. Masks have no repeats: their draws are numbered 0 to 65535.
constexpr uint32_t kMaskStream = 0xFF00;
constexpr uint32_t kMaskStreams = 128;
constexpr uint32_t kShuffleStream = 0xFFFF;

// What identifies the random numbers of one view of one sample.
struct DrawKey {
  uint64_t seed = 0;
  uint64_t index = 0;   // of the sample in its source
  uint32_t epoch = 0;
  uint32_t view = 0;    // below kFirstReservedView
  uint32_t repeat = 0;  // 0 to 255: which time the sample is drawn within the epoch (a stand-in for a bad one is > 0)
};

// The four words of draw number `draw` (0 to 255) of `key`.
FASTSSL_HD Random4 draw_block(const DrawKey& key, uint32_t draw) {
  return philox4x32(draw | key.repeat << 8 | key.view << 16, key.epoch, uint32_t(key.index), uint32_t(key.index >> 32),
                    uint32_t(key.seed), uint32_t(key.seed >> 32));
}

// Uniform in (0, 1): never 0, so that a probability of 0 never fires (u < p), never 1, so that p = 1 always does.
FASTSSL_HD double uniform(uint32_t word) { return (word + 0.5) * (1.0 / 4294967296.0); }

// Uniform in {0, ..., n - 1} by Lemire's multiply; the bias is at most n / 2^32.
FASTSSL_HD uint32_t uniform_below(uint32_t word, uint32_t n) { return uint32_t(uint64_t(word) * n >> 32); }

}  // namespace fastssl::core
