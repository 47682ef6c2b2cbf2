// The backward pass for up to 128 dimensions: logits again, weights from them, and their product with the keys, all in registers.
//
// Part of contrastive_launch.h.
//
// Note [Weights]
//     The gradient of query i is scale * sum_j H_ij k_j, with H_ij = exp(S_ij) (g_i / exp(rows_i) + h_j / exp(columns_j)):
//     g and h are the gradients of the sums. Where keys are queries, h is g: H stands for both ways in which a row of the
//     matrix takes part. H is computed from the logits anew, in one exponential where the shift is constant, in two where
//     it is not, and it is rounded to float16 for the second product. Divided by the largest gradient (by a power of two
//     above it), H lies in [-2, 2], since an allowed pair's exponential is part of both sums. It is multiplied by 2^14:
//     what is above 2^-28 of the largest gradient then keeps all 11 bits of float16, and 2^15 is finite. What is left out
//     has no weight, and neither has what lies beyond the last row or column, whose exponential might be too large for
//     float16. (FusedKernel need not look beyond the last query: its part of the second product is a row of its own, which
//     nobody reads, whatever its weights.)
#pragma once

#include "contrastive_tile.h"

namespace fastssl::cuda {
namespace {

constexpr int kWeightBits = 14;

// Weights of pairs, times 2^kWeightBits.
struct PairWeights {
  Logits logits;
  const float *row_weight, *row_shift, *column_weight, *column_shift;

  // Where the shift is constant.
  FASTSSL_DEVICE float plain(float product, float row, float column) const {
    return grid::power_of_two(core::fused(product, logits.binary, float(kWeightBits) - logits.shift)) * (row + column);
  }
  // Where each sum has its own.
  FASTSSL_DEVICE float shifted(float product, float row, float of_row, float column, float of_column) const {
    return grid::power_of_two(core::fused(product, logits.binary, float(kWeightBits) - of_row)) * row +
           grid::power_of_two(core::fused(product, logits.binary, float(kWeightBits) - of_column)) * column;
  }
  FASTSSL_DEVICE float general(const Problem& p, const Tile& tile, float product, int32_t i, int32_t j) const {
    if (tile.masked() && !allowed(p, tile, i, j)) return 0;
    if (logits.constant) return plain(product, row_weight[i], column_weight[j]);
    return shifted(product, row_weight[i], row_shift[i], column_weight[j], column_shift[j]);
  }
};

// What a kernel of the fused pass has to do: a block has a tile of queries, and one of `splits` parts of the steps.
struct FusedWork {
  Problem problem;
  PairWeights weights;  // logits: filled in by the kernel
  int32_t splits;
  int32_t first, steps;  // of as many keys each as the kernel takes at once
  bool add;  // to what is there
  float* partial;

  FASTSSL_DEVICE int32_t tile() const { return int32_t(grid::block()) / splits; }
  FASTSSL_DEVICE int32_t split() const { return int32_t(grid::block()) % splits; }
  FASTSSL_DEVICE int32_t begin() const { return first + int32_t(int64_t(steps) * split() / splits); }
  FASTSSL_DEVICE int32_t end() const { return first + int32_t(int64_t(steps) * (split() + 1) / splits); }
};

// Layout   a block has 128 queries, a warp 32 of them: their operands (kDim / 2 registers a thread) and the sums of their
//          gradients (kDim registers) stay in registers, and a fragment of keys, once loaded, serves 32 queries.
// Launch   query tiles * splits blocks of 4 warps, two on a multiprocessor: at 128 dimensions they take all of its registers.
// Order    64 keys at a time, for 16 of which a warp has weights at once: the weights of the next 16 are computed while the
//          product with the last 16 is under way.
template <int kDim>
struct FusedKernel : FusedWork {
  static constexpr int kThreads = 128, kBlocks = kDim > 64 ? 2 : 3 - grid::kFewer;
  static constexpr int kChunks = kDim / kChunkHalves, kRowBytes = kChunks * kChunkBytes;
  static constexpr int kKeyChunk = kFusedKeys * kChunkBytes, kStage = kChunks * kKeyChunk;
  // Behind the keys: weights of the queries and of two times 64 keys, four numbers, ranges of ids of the queries and of the keys.
  static constexpr int kRangesAt = 2 * kStage + (kTileRows + 2 * kFusedKeys + 4) * int(sizeof(float));
  static constexpr int kWeightBytes = kRangesAt - 2 * kStage + 3 * int(sizeof(IdRanges));
  static_assert(2 * kStage == kChunks * kTileBytes, "the queries pass through the memory of the keys");

  // Operands of the queries for kHeld times 16 dimensions stay in registers; the others, which do not fit, are read from shared
  // memory each time, 16 bytes a thread. Without that, and where a warp_barrier() more or less stands, the compiler spills.
  static constexpr int others(bool newer) { return kDim > 64 ? (newer ? 4 : 1) : 0; }
  static constexpr int kOthers = others(grid::kFewer > 0), kHeld = kDim / 16 - kOthers;
  // newer: of compute capability 10 and above.
  static constexpr int shared(bool newer) { return 2 * kStage + kWeightBytes + 2 * others(newer) * kThreads * 16; }
  using Queries = uint32_t[2][kHeld][4];
  using Gradient = float[2][kDim / 8][4];

  FASTSSL_DEVICE void operator()() const {
    PairWeights own = weights;
    own.logits = logits_of(problem);
    const uint32_t base = grid::shared_base();
    Queries queries;
    load_queries(queries);
    Gradient gradient;
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < kDim; ++i) gradient[i / (kDim / 2)][i / 4 % (kDim / 8)][i % 4] = 0;

    int32_t item = begin();
    // What is not needed while the matrix units work waits in shared memory: every register is taken.
    auto* const bounds = reinterpret_cast<int32_t*>(shared_weights() + kTileRows + 2 * kFusedKeys);
    if (grid::thread() == 0) {
      bounds[0] = end();
      bounds[1] = tile() * kTileRows;
      bounds[2] = own.logits.constant;
      if (problem.query.ids != nullptr) *shared_ranges() = problem.query.id_ranges[tile()];
    }
    grid::barrier();
    if (item < bounds[0]) load(item, uint32_t(item) % 2);
    while (item < bounds[0]) {
      grid::wait_copies<0>();
      grid::barrier();
      const uint32_t stage = uint32_t(item) % 2;
      ++item;
      if (item < bounds[0]) load(item, stage ^ 1);
      const IdRanges* const ranges = shared_ranges();
      Tile keys = tile_at(problem, bounds[1], (item - 1) * kFusedKeys, kFusedKeys, ranges, ranges + 1 + stage);
      keys.edge = keys.column + kFusedKeys > problem.key.count;
      own.logits.constant = bounds[2];
      if (own.logits.constant && !keys.masked()) {
        add_keys<true>(own, keys, queries, gradient, base + stage * kStage, stage);
      } else {
        add_keys<false>(own, keys, queries, gradient, base + stage * kStage, stage);
      }
    }
    store(gradient);
  }

  struct alignas(16) Fragment {
    uint32_t word[4];
  };
  // This thread's part of the fragment of the i-th 16 queries and the k-th 16 dimensions.
  FASTSSL_DEVICE Fragment* other_query(int i, int k) const {
    return reinterpret_cast<Fragment*>(grid::shared() + 2 * kStage + kWeightBytes) +
           (i * kOthers + k - kHeld) * kThreads + grid::thread();
  }

  // The operands of the warp's queries, and the weights of the block's.
  FASTSSL_DEVICE void load_queries(Queries& queries) const {
    const Lane lane = this_lane();
    const uint32_t base = grid::shared_base();
    const char* const rows = problem.query.operand + int64_t(tile()) * kTileRows * kRowBytes;
    FASTSSL_UNROLL_ALL
    for (int c = 0; c < kChunks; ++c)
      load_chunk<kTileRows, kThreads>(base + c * kTileBytes, rows + c * kChunkBytes, kRowBytes);
    grid::commit_copies();
    shared_weights()[grid::thread()] = weights.row_weight[tile() * kTileRows + grid::thread()];
    grid::wait_copies<0>();
    grid::barrier();
    const uint32_t own_rows = left(base + uint32_t(lane.warp * 32) * kChunkBytes, lane.lane);
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < 2; ++i) {
      FASTSSL_UNROLL_ALL
      for (int k = 0; k < kDim / 16; ++k) {
        Fragment fragment;
        grid::load_matrices(fragment.word, at(own_rows + k / 4 * kTileBytes, 16 * i, k % 4 * 2));
        if (k >= kHeld) *other_query(i, k) = fragment;
        if (k >= kHeld) continue;
        FASTSSL_UNROLL_ALL
        for (int e = 0; e < 4; ++e) queries[i][k][e] = fragment.word[e];
      }
    }
    grid::barrier();  // the keys come to the same place
  }

  // Of the queries, and behind them of two times 64 keys.
  FASTSSL_DEVICE float* shared_weights() const { return reinterpret_cast<float*>(grid::shared() + 2 * kStage); }
  FASTSSL_DEVICE IdRanges* shared_ranges() const { return reinterpret_cast<IdRanges*>(grid::shared() + kRangesAt); }

  FASTSSL_DEVICE void load(int32_t item, uint32_t stage) const {
    const uint32_t base = grid::shared_base();
    const char* const from = problem.key.operand + int64_t(item) * kFusedKeys * kRowBytes;
    FASTSSL_UNROLL_ALL
    for (int c = 0; c < kChunks; ++c)
      load_chunk<kFusedKeys, kThreads>(base + stage * kStage + c * kKeyChunk, from + c * kChunkBytes, kRowBytes);
    if (grid::thread() < kFusedKeys / 4)
      grid::copy_async(base + 2 * kStage + (kTileRows + stage * kFusedKeys) * 4 + uint32_t(grid::thread()) * 16,
                       weights.column_weight + int64_t(item) * kFusedKeys + grid::thread() * 4);
    if (grid::thread() == kFusedKeys / 4 && problem.key.ids != nullptr) {
      const IdRanges* const ranges = problem.key.id_ranges + item / (kTileRows / kFusedKeys);
      const uint32_t to = base + kRangesAt + (1 + stage) * sizeof(IdRanges);
      grid::copy_async(to, ranges->least);
      grid::copy_async(to + sizeof(ranges->least), ranges->most);
    }
    grid::commit_copies();
  }

  using Products = float[2][2][4];

  // 32 queries times 16 keys.
  FASTSSL_DEVICE void products_of(Products& products, const Queries& queries, uint32_t keys) const {
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < 16; ++i) products[i / 8][i / 4 % 2][i % 4] = 0;
    FASTSSL_UNROLL_ALL
    for (int k = 0; k < kDim / 16; ++k) {
      uint32_t b[4];
      grid::load_matrices(b, at(keys + k / 4 * kKeyChunk, 0, k % 4 * 2));
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < 2; ++i) {
        Fragment a;
        if (k < kHeld) {
          FASTSSL_UNROLL_ALL
          for (int e = 0; e < 4; ++e) a.word[e] = queries[i][k < kHeld ? k : 0][e];
        } else {
          a = *other_query(i, k);
        }
        grid::multiply_add(products[i][0], a.word, b[0], b[1]);
        grid::multiply_add(products[i][1], a.word, b[2], b[3]);
      }
    }
  }

  template <bool kPlain>
  FASTSSL_DEVICE void add_keys(const PairWeights& own, const Tile& tile, const Queries& queries, Gradient& gradient,
                               uint32_t keys, uint32_t stage) const {
    const Lane lane = this_lane_again();
    const uint32_t along = right(keys, lane.lane), across = right_across(keys, lane.lane);
    const float* const row_weight = shared_weights() + lane.warp * 32 + lane.row();
    const float* const column_weight = shared_weights() + kTileRows + stage * kFusedKeys + lane.column();
    Products products;
    if constexpr (!kPlain) {
      FASTSSL_UNROLL(1)
      for (int s = 0; s < kFusedKeys / 16; ++s) {
        uint32_t pairs[2][4];
        const uint32_t mask = tile.masked() ? mask_of(tile, 16 * s) : ~0u;
        products_of(products, queries, at(along, 16 * s, 0));
        pair_up<kPlain>(own, tile, mask, products, row_weight, column_weight, 16 * s, pairs);
        add_product(gradient, pairs, at(across, 16 * s, 0));
      }
      return;
    }
    // While the matrix units add 16 keys' part, the weights of the next 16 are computed.
    uint32_t pairs[2][2][4];
    products_of(products, queries, along);
    pair_up<kPlain>(own, tile, ~0u, products, row_weight, column_weight, 0, pairs[0]);
    FASTSSL_UNROLL_ALL
    for (int s = 0; s < kFusedKeys / 16; ++s) {
      const bool more = s + 1 < kFusedKeys / 16;
      grid::warp_barrier();
      if (more) products_of(products, queries, at(along, 16 * (s + 1), 0));
      add_product(gradient, pairs[s % 2], at(across, 16 * s, 0));
      if (more) pair_up<kPlain>(own, tile, ~0u, products, row_weight, column_weight, 16 * (s + 1), pairs[(s + 1) % 2]);
    }
  }

  // Adds the product of the weights with 16 keys.
  FASTSSL_DEVICE void add_product(Gradient& gradient, const uint32_t (&pairs)[2][4], uint32_t keys) const {
    FASTSSL_UNROLL_ALL
    for (int d = 0; d < kDim / 16; ++d) {
      uint32_t b[4];
      grid::load_transposed(b, at(keys + d / 4 * kKeyChunk, 0, d % 4 * 2));
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < 2; ++i) {
        grid::multiply_add(gradient[i][2 * d], pairs[i], b[0], b[1]);
        grid::multiply_add(gradient[i][2 * d + 1], pairs[i], b[2], b[3]);
      }
    }
  }

  // Which of this thread's 16 products of 32 queries and 16 keys are of pairs that are allowed, in the order of the loops below.
  FASTSSL_DEVICE uint32_t mask_of(const Tile& tile, int32_t from) const {
    const Lane lane = this_lane_again();
    uint32_t mask = 0;
    FASTSSL_UNROLL(1)
    for (int32_t e = 0; e < 16; ++e) {
      const int32_t query = tile.row + lane.warp * 32 + lane.row() + e / 2 % 4 * 8;
      const int32_t key = tile.column + from + e / 8 * 8 + lane.column() + e % 2;
      mask |= uint32_t(allowed(problem, tile, query, key)) << e;
    }
    return mask;
  }

  // Weights of 32 queries and 16 keys: the fragment of C of the first product, made one of A of the second.
  template <bool kPlain>
  FASTSSL_DEVICE void pair_up(const PairWeights& own, const Tile& tile, uint32_t mask, const Products& products,
                              const float* row_weight, const float* column_weight, int32_t from,
                              uint32_t (&pairs)[2][4]) const {
    const Lane lane = this_lane_again();
    FASTSSL_UNROLL_ALL
    for (int n = 0; n < 2; ++n) {
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < 2; ++i) {
        FASTSSL_UNROLL_ALL
        for (int r = 0; r < 2; ++r) {
          float w[2];
          FASTSSL_UNROLL_ALL
          for (int e = 0; e < 2; ++e) {
            const float row = row_weight[16 * i + 8 * r], column = column_weight[from + 8 * n + e];
            w[e] = products[i][n][2 * r + e];
            if (kPlain || own.logits.constant) {
              w[e] = own.plain(w[e], row, column);
            } else {
              const int32_t query = tile.row + lane.warp * 32 + lane.row() + 16 * i + 8 * r;
              const int32_t key = tile.column + from + 8 * n + lane.column() + e;
              w[e] = own.shifted(w[e], row, own.row_shift[query], column, own.column_shift[key]);
            }
            if (!kPlain && !(mask >> (8 * n + 4 * i + 2 * r + e) & 1u)) w[e] = 0;
          }
          pairs[i][2 * n + r] = grid::pack_halves(w[0], w[1]);
        }
      }
    }
  }

  FASTSSL_DEVICE void store(const Gradient& gradient) const {
    const Lane lane = this_lane();
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < 2; ++i) {
      FASTSSL_UNROLL_ALL
      for (int r = 0; r < 2; ++r) {
        const int64_t row = (int64_t(split()) * problem.query.tiles + tile()) * kTileRows + lane.warp * 32 + 16 * i +
                            8 * r + lane.row();
        float* const to = partial + row * kDim + lane.column();
        FASTSSL_UNROLL_ALL
        for (int d = 0; d < kDim / 8; ++d) {
          FASTSSL_UNROLL_ALL
          for (int e = 0; e < 2; ++e) to[8 * d + e] = (add ? to[8 * d + e] : 0) + gradient[i][d][2 * r + e];
        }
      }
    }
  }
};

}  // namespace
}  // namespace fastssl::cuda
