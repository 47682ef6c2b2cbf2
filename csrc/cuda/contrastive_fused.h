// The backward pass for up to 128 dimensions: logits again, weights from them, and their product with the keys, all in registers.
//
// Part of contrastive_kernels.h.
//
// Note [Weights]
//     The gradient of query i is scale * sum_j H_ij k_j, with H_ij = exp(S_ij) (g_i / exp(rows_i) + h_j / exp(columns_j)): g and h are the gradients of
//     the sums. Where keys are queries, h is g: H stands for both ways in which a row of the matrix takes part. H is computed from
//     the logits anew, in one exponential where the shift is constant, in two where it is not, and it is rounded to float16 for the second product.
//     Divided by the largest gradient (by a power of two above it), H lies in [-2, 2], since an allowed pair's exponential is part of both
//     sums. It is multiplied by 2^14: what is above 2^-28 of the largest gradient then keeps all 11 bits of float16, and 2^15 is finite.
//     What is left out has no weight, and neither has what lies beyond the last row or column, whose exponential
//     might be too large for float16.
#pragma once

#include "contrastive_tile.h"

namespace fastssl::cuda {
namespace {

constexpr int kWeightBits = 14;
constexpr int kSteps = 512;  // column tiles after which sums go to memory: the matrix units cut off what they add

// Weights of pairs, times 2^kWeightBits.
struct PairWeights {
  Logits logits;
  const float *row_weight, *row_shift, *column_weight, *column_shift;

  // Where the shift is constant.
  FASTSSL_DEVICE float plain(float product, float row, float column) const {
    return grid::power_of_two(core::fused(product, logits.binary, float(kWeightBits) - logits.shift)) * (row + column);
  }
  FASTSSL_DEVICE float general(const Problem& p, bool masked, float product, int32_t i, int32_t j) const {
    if (masked && !allowed(p, i, j)) return 0;
    if (logits.constant) return plain(product, row_weight[i], column_weight[j]);
    const float exponent = product * logits.binary;
    const float row = grid::power_of_two(exponent - row_shift[i]) * row_weight[i];
    const float column = grid::power_of_two(exponent - column_shift[j]) * column_weight[j];
    return (row + column) * (1 << kWeightBits);
  }
};

// Layout   a block has 128 queries, a warp 32 of them: their operands (kDim / 2 registers a thread) and the sums of their gradients (kDim
//          registers) stay in registers, and a fragment of keys, once loaded, serves 32 queries.
// Launch   query tiles * splits blocks of 4 warps, two on a multiprocessor: at 128 dimensions they take all of its registers.
// Order    64 keys at a time, for 16 of which a warp has weights at once: the weights of the next 16 are computed while the
//          product with the last 16 is under way.
template <int kDim>
struct FusedKernel {
  static constexpr int kThreads = kTileThreads, kBlocks = kDim > 64 ? 2 : 3;
  static constexpr int kChunks = kDim / kChunkHalves;
  static constexpr int kKeyChunk = kFusedKeys * kChunkBytes, kStage = kChunks * kKeyChunk;
  static constexpr int kShared = 2 * kStage + 2 * kFusedKeys * int(sizeof(float));
  static_assert(2 * kStage == kChunks * kTileBytes, "the queries pass through the memory of the keys");

  Problem problem;
  PairWeights weights;  // logits: filled in by the kernel
  int32_t splits;
  float* partial;

  using Gradient = float[2][kDim / 8][4];

  FASTSSL_DEVICE void operator()() const {
    const int32_t tile = int32_t(grid::block() / splits), split = int32_t(grid::block() % splits);
    const int64_t items = int64_t(problem.key.tiles) * (kTileRows / kFusedKeys);
    const auto first = int32_t(items * split / splits), last = int32_t(items * (split + 1) / splits);
    PairWeights own = weights;
    own.logits = logits_of(problem);
    const Lane at = this_lane();
    const uint32_t base = grid::shared_base();

    uint32_t queries[2][kDim / 16][4];
    const char* const rows = problem.query.operand + int64_t(tile) * kTileRows * problem.row_bytes;
    FASTSSL_UNROLL_ALL
    for (int c = 0; c < kChunks; ++c)
      load_chunk<kTileRows, kThreads>(base + c * kTileBytes, rows + c * kChunkBytes, problem.row_bytes);
    grid::commit_copies();
    grid::wait_copies<0>();
    grid::barrier();
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < 2; ++i) {
      FASTSSL_UNROLL_ALL
      for (int k = 0; k < kDim / 16; ++k)
        load_left(queries[i][k], base + k / 4 * kTileBytes, at.warp * 32 + 16 * i, k % 4 * 2, at.lane);
    }
    grid::barrier();

    int32_t begin = first;
    do {
      const int32_t end = core::smaller(begin + kSteps, last);
      Gradient gradient;
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < kDim; ++i) gradient[i / (kDim / 2)][i / 4 % (kDim / 8)][i % 4] = 0;
      if (begin < end) load(begin, 0);
      for (int32_t item = begin; item < end; ++item) {
        const int32_t stage = (item - begin) % 2;
        grid::wait_copies<0>();
        grid::barrier();
        if (item + 1 < end) load(item + 1, stage ^ 1);
        const Tile keys = tile_at(problem, tile * kTileRows, item * kFusedKeys, kFusedKeys);
        if (own.logits.constant && !keys.masked()) {
          add_keys<true>(own, keys, queries, gradient, base + uint32_t(stage) * kStage, stage);
        } else {
          add_keys<false>(own, keys, queries, gradient, base + uint32_t(stage) * kStage, stage);
        }
      }
      store(gradient, tile, split, begin != first);
      grid::barrier();
      begin = end;
    } while (begin < last);
  }

  FASTSSL_DEVICE void load(int32_t item, int32_t stage) const {
    const uint32_t base = grid::shared_base();
    const char* const from = problem.key.operand + int64_t(item) * kFusedKeys * problem.row_bytes;
    FASTSSL_UNROLL_ALL
    for (int c = 0; c < kChunks; ++c)
      load_chunk<kFusedKeys, kThreads>(base + uint32_t(stage) * kStage + c * kKeyChunk, from + c * kChunkBytes, problem.row_bytes);
    if (grid::thread() < kFusedKeys / 4)
      grid::copy_async(base + 2 * kStage + uint32_t(stage) * (kFusedKeys * 4) + uint32_t(grid::thread()) * 16,
                       weights.column_weight + int64_t(item) * kFusedKeys + grid::thread() * 4);
    grid::commit_copies();
  }

  using Products = float[2][2][4];

  // 32 queries times 16 keys.
  FASTSSL_DEVICE void products_of(Products& products, const uint32_t (&queries)[2][kDim / 16][4], uint32_t keys, int32_t from,
                                  int32_t lane) const {
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < 16; ++i) products[i / 8][i / 4 % 2][i % 4] = 0;
    FASTSSL_UNROLL_ALL
    for (int k = 0; k < kDim / 16; ++k) {
      uint32_t b[4];
      load_right(b, keys + k / 4 * kKeyChunk, from, k % 4 * 2, lane);
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < 2; ++i) {
        grid::multiply_add(products[i][0], queries[i][k], b[0], b[1]);
        grid::multiply_add(products[i][1], queries[i][k], b[2], b[3]);
      }
    }
  }

  template <bool kPlain>
  FASTSSL_DEVICE void add_keys(const PairWeights& own, const Tile& tile, const uint32_t (&queries)[2][kDim / 16][4],
                               Gradient& gradient, uint32_t keys, int32_t stage) const {
    const Lane at = this_lane();
    const auto* const column_weight =
        reinterpret_cast<const float*>(grid::shared() + 2 * kStage) + stage * kFusedKeys;
    const int32_t row = tile.row + at.warp * 32 + at.row();
    float row_weight[4];
    FASTSSL_UNROLL_ALL
    for (int r = 0; r < 4; ++r) row_weight[r] = kPlain ? own.row_weight[row + 8 * r] : 0;
    Products products[2];
    products_of(products[0], queries, keys, 0, at.lane);
    FASTSSL_UNROLL_ALL
    for (int s = 0; s < kFusedKeys / 16; ++s) {
      if (s + 1 < kFusedKeys / 16) products_of(products[(s + 1) % 2], queries, keys, 16 * (s + 1), at.lane);
      Products& p = products[s % 2];
      // C's fragment of the first product is A's of the second.
      uint32_t pair[2][4];
      FASTSSL_UNROLL_ALL
      for (int n = 0; n < 2; ++n) {
        const int32_t column = 16 * s + 8 * n + at.column();
        const float first = column_weight[column], second = column_weight[column + 1];
        FASTSSL_UNROLL_ALL
        for (int i = 0; i < 2; ++i) {
          FASTSSL_UNROLL_ALL
          for (int r = 0; r < 2; ++r) {
            float w[2];
            if constexpr (kPlain) {
              w[0] = own.plain(p[i][n][2 * r], row_weight[2 * i + r], first);
              w[1] = own.plain(p[i][n][2 * r + 1], row_weight[2 * i + r], second);
            } else {
              const int32_t query = row + 16 * i + 8 * r, key = tile.column + column;
              w[0] = own.general(problem, tile.masked(), p[i][n][2 * r], query, key);
              w[1] = own.general(problem, tile.masked(), p[i][n][2 * r + 1], query, key + 1);
            }
            pair[i][2 * n + r] = grid::pack_halves(w[0], w[1]);
          }
        }
      }
      FASTSSL_UNROLL_ALL
      for (int d = 0; d < kDim / 16; ++d) {
        uint32_t b[4];
        load_right_across(b, keys + d / 4 * kKeyChunk, 16 * s, d % 4 * 2, at.lane);
        FASTSSL_UNROLL_ALL
        for (int i = 0; i < 2; ++i) {
          grid::multiply_add(gradient[i][2 * d], pair[i], b[0], b[1]);
          grid::multiply_add(gradient[i][2 * d + 1], pair[i], b[2], b[3]);
        }
      }
    }
  }

  FASTSSL_DEVICE void store(const Gradient& gradient, int32_t tile, int32_t split, bool add) const {
    const Lane at = this_lane();
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < 2; ++i) {
      FASTSSL_UNROLL_ALL
      for (int r = 0; r < 2; ++r) {
        const int64_t row = int64_t(split) * problem.query.tiles * kTileRows + tile * kTileRows + at.warp * 32 + 16 * i + 8 * r +
                            at.row();
        float* const to = partial + row * kDim + at.column();
        FASTSSL_UNROLL_ALL
        for (int d = 0; d < kDim / 8; ++d) {
          for (int e = 0; e < 2; ++e) to[8 * d + e] = (add ? to[8 * d + e] : 0) + gradient[i][d][2 * r + e];
        }
      }
    }
  }
};

}  // namespace
}  // namespace fastssl::cuda
