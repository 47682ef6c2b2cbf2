// The backward pass for float16 operands of other dimensions than contrastive_wide.h has: a panel's weights and their products by
// wgmma.
//
// Part of contrastive_launch.h; compute capability 9.0 alone. What a panel is, and in which order it is added up, is
// PanelKernel's and ProductKernel's.
//
// Note [Wide panels]
//     A block has 128 rows and 256 columns, of which two warpgroups have 64 rows each, 128 sums a thread: of the L2 cache,
//     three quarters are read of what 128 x 128 need. All threads copy a step's rows and columns, 64
//     numbers of each, to one of four stages, three steps ahead. They do so while the units make a step's products: the stage
//     that is filled is that of the step before, behind whose products the barrier stands. Where there are fewer than 256 columns,
//     products are made of what happens to lie there, and thrown away.
#pragma once

#include "contrastive_panels.h"
#include "contrastive_wide.h"

namespace fastssl::cuda {
namespace {

static_assert(kWideColumns == 2 * kTileRows);
using WideSums = float[kWideColumns / kTileRows][kTileRows / 2];

FASTSSL_DEVICE void clear(WideSums& sums) {
  FASTSSL_UNROLL_ALL
  for (int i = 0; i < kWideColumns / 2; ++i) sums[i / (kTileRows / 2)][i % (kTileRows / 2)] = 0;
}

// Stages of a step each: of 128 rows a chunk, 16 KB, and behind it what makes 256 columns.
struct WideStages {
  static constexpr int kCount = 4;
  static constexpr uint32_t kBytes = 3 * kTileBytes;
  static constexpr int kShared = int(kCount * kBytes + kAtomBytes);

  static FASTSSL_DEVICE uint32_t at(int32_t step) {
    const uint32_t base = (grid::shared_base() + kAtomBytes - 1) / kAtomBytes * kAtomBytes;
    return base + uint32_t(step) % kCount * kBytes;
  }

  // Begins the first copies for the steps [begin, end): copy(step), a part of which each thread does.
  template <typename Copy>
  static FASTSSL_DEVICE void fill(int32_t begin, int32_t end, const Copy& copy) {
    FASTSSL_UNROLL(1)
    for (int32_t step = begin; step < begin + kCount - 1; ++step) copy_any(step, end, copy);
  }
  // The steps [step, to), behind which others follow up to `end`: multiply(step) begins products that take to the sums what was
  // copied. It holds no branch, in which the compiler would wait for each of them.
  template <typename Copy, typename Multiply>
  static FASTSSL_DEVICE void take(int32_t step, int32_t to, int32_t end, WideSums& sums, const Copy& copy,
                                  const Multiply& multiply) {
    FASTSSL_UNROLL(1)
    for (; step < to; ++step) {
      grid::wait_copies<kCount - 2>();
      grid::publish_shared();
      grid::barrier();  // all threads' copies are there, and nobody reads the stage before
      grid::pin(sums);
      grid::fence_products();
      multiply(step);
      grid::commit_products();
      copy_any(step + kCount - 1, end, copy);
      grid::wait_products();
      grid::pin(sums);
    }
  }

 private:
  template <typename Copy>
  static FASTSSL_DEVICE void copy_any(int32_t step, int32_t end, const Copy& copy) {
    if (step < end) copy(step);
    grid::commit_copies();
  }
};

// As PanelKernel, of two tiles of keys at once.
//
// Launch   query tiles * half as many as key tiles blocks of 8 warps.
struct WidePanelKernel {
  static constexpr int kThreads = kWideThreads, kBlocks = 1;
  static constexpr int kShared = WideStages::kShared;
  static constexpr int kTiles = kWideColumns / kTileRows;

  Problem problem;
  PairWeights weights;
  Panel panel;

  // Blocks beside each other.
  FASTSSL_HD int32_t wide(int32_t keys) { return (keys + kTiles - 1) / kTiles; }

  FASTSSL_DEVICE void operator()() const {
    const auto block = int32_t(grid::block());
    const int32_t blocks_wide = wide(panel.keys);
    const int32_t row_tile = panel.query + block / blocks_wide,
                  first = block % blocks_wide * kTiles;  // first: counted from the panel's
    const int32_t column_tile = panel.key + first, there = core::smaller(kTiles, panel.keys - first);
    if (panel.diagonal && column_tile + there <= row_tile) return;
    const char* const rows = problem.query.operand + int64_t(row_tile) * kTileRows * problem.row_bytes;
    const char* const columns = problem.key.operand + int64_t(column_tile) * kTileRows * problem.row_bytes;
    WideSums sums;
    clear(sums);
    const auto copy = [&](int32_t chunk) {
      const uint32_t to = WideStages::at(chunk);
      load_chunk<kTileRows, kThreads>(to, rows + chunk * kChunkBytes, problem.row_bytes);
      FASTSSL_UNROLL_ALL
      for (int n = 0; n < kTiles; ++n) {
        if (n < there)
          load_chunk<kTileRows, kThreads>(to + uint32_t(1 + n) * kTileBytes,
                                          columns + n * kTileRows * problem.row_bytes + chunk * kChunkBytes,
                                          problem.row_bytes);
      }
    };
    WideStages::fill(0, problem.chunks, copy);
    WideStages::take(0, problem.chunks, problem.chunks, sums, copy, [&](int32_t chunk) {
      const uint32_t from = WideStages::at(chunk);
      const uint64_t a = grid::matrix_along(from + uint32_t(wide_lane().group() * kGroupRows) * kChunkBytes);
      const uint64_t b = grid::matrix_along(from + kTileBytes);
      FASTSSL_UNROLL_ALL
      for (int k = 0; k < kChunkHalves / 16; ++k) {
        FASTSSL_UNROLL_ALL
        for (int n = 0; n < kTiles; ++n)
          grid::multiply_wide(sums[n], a + uint32_t(k) * 32 / 16, b + uint32_t(n * kTileBytes + k * 32) / 16, true);
      }
    });
    PairWeights own = weights;
    own.logits = logits_of(problem);
    FASTSSL_UNROLL_ALL
    for (int n = 0; n < kTiles; ++n) {
      if (n < there) finish(own, row_tile, column_tile + n, sums[n]);
    }
  }

  // Weights of a tile's products, to memory.
  FASTSSL_DEVICE void finish(const PairWeights& own, int32_t row_tile, int32_t column_tile,
                             float (&products)[kTileRows / 2]) const {
    const WideLane lane = wide_lane_again();
    const Tile at = tile_at(problem, row_tile * kTileRows, column_tile * kTileRows);
    const int32_t row = at.row + lane.row();
    const float row_weight[2] = {own.row_weight[row], own.row_weight[row + 8]};
    const auto* const column_weight =
        reinterpret_cast<const TwoWeights*>(own.column_weight + at.column + lane.column());
    weigh_pairs<kTileRows>(problem, own, lane, at, row_weight, column_weight, products);
    const bool odd = lane.lane % 2;
    const int32_t column = (column_tile - panel.key) * kTileRows + lane.column() / 4 * 4;
    FASTSSL_UNROLL_ALL
    for (int r = 0; r < 2; ++r) {
      const int64_t own_row = int64_t(row_tile - panel.query) * kTileRows + lane.row() + 8 * r;
      auto* const to = reinterpret_cast<uint16_t*>(panel.weights + own_row * panel.row_bytes) + column;
      FASTSSL_UNROLL_ALL
      for (int j = 0; j < kTileRows / 8; j += 2) {
        uint32_t part[2];
        FASTSSL_UNROLL_ALL
        for (int n = 0; n < 2; ++n) {
          const int i = 4 * (j + n) + 2 * r;
          part[n] = grid::pack_halves(products[i], products[i + 1]);
        }
        store_four(to + 8 * (j + odd), part, odd);
      }
    }
  }
};

// As ProductKernel, 256 dimensions at once.
//
// Launch   row tiles * dimension tiles * splits blocks of 8 warps.
struct WideProductKernel {
  static constexpr int kThreads = kWideThreads, kBlocks = 1;
  static constexpr int kShared = WideStages::kShared;
  static constexpr int kTerms = kChunkHalves, kSteps = kTileRows / kTerms;  // of a step; steps of a tile
  static constexpr int kParts = kWideColumns / kChunkHalves;  // chunks of an operand's row
  static constexpr uint32_t kBlock = kTerms * kChunkBytes;
  static_assert(WideStages::kBytes == kTileBytes + kParts * kBlock);

  Panel panel;
  Product product;
  int64_t row_bytes;
  int32_t chunks;  // of an operand's row

  // Blocks beside each other.
  FASTSSL_HD int32_t wide(int32_t chunks) { return (chunks + kParts - 1) / kParts; }

  FASTSSL_DEVICE void operator()() const {
    const auto block = int32_t(grid::block());
    const int32_t parts = wide(chunks), split = block % product.splits;
    const int32_t tile = block / product.splits / parts, part = block / product.splits % parts;
    const int32_t steps = (product.of_keys ? panel.queries : panel.keys) * kSteps;
    const auto begin = int32_t(int64_t(steps) * split / product.splits);
    const auto end = int32_t(int64_t(steps) * (split + 1) / product.splits);
    const char* const operand =
        product.operand + int64_t(product.of_keys ? panel.query : panel.key) * kTileRows * row_bytes;
    WideSums sums;
    clear(sums);
    // The weights of the first steps are columns: those below the diagonal, or all.
    const int32_t below = product.of_keys ? end : panel.diagonal ? tile * kSteps : begin;
    const int32_t along = core::larger(begin, core::smaller(below, end));
    const auto copy = [&](int32_t step) { copy_step(operand, tile, part, step, step < along); };
    WideStages::fill(begin, end, copy);
    WideStages::take(begin, along, end, sums, copy, [&](int32_t step) { multiply<true>(sums, step); });
    WideStages::take(along, end, end, sums, copy, [&](int32_t step) { multiply<false>(sums, step); });
    store(sums, tile, part, split);
  }

  // Weights: 64 rows of 64 terms, or 64 terms of 64 rows.
  template <bool kAcross>
  static FASTSSL_DEVICE void multiply(WideSums& sums, int32_t step) {
    const auto group = uint32_t(wide_lane().group());
    const uint32_t left = WideStages::at(step), right = left + kTileBytes;
    const uint64_t a = kAcross ? grid::matrix_across(left + group * kBlock, kBlock)
                               : grid::matrix_along(left + group * kGroupRows * kChunkBytes);
    const uint64_t b = grid::matrix_across(right, kBlock);
    FASTSSL_UNROLL_ALL
    for (int k = 0; k < kTerms / 16; ++k) {
      const uint32_t along = uint32_t(k) * 32 / 16, across = uint32_t(k) * 16 * kChunkBytes / 16;
      FASTSSL_UNROLL_ALL
      for (int n = 0; n < kWideColumns / kTileRows; ++n)
        grid::multiply_terms<kAcross>(sums[n], a + (kAcross ? across : along),
                                      b + across + uint32_t(n) * kTileRows / kChunkHalves * kBlock / 16);
    }
  }

  FASTSSL_DEVICE void copy_step(const char* operand, int32_t tile, int32_t part, int32_t step, bool across) const {
    const uint32_t left = WideStages::at(step), right = left + kTileBytes;
    if (across) {
      const char* const from =
          panel.weights + int64_t(step) * kTerms * panel.row_bytes + int64_t(tile) * kSteps * kChunkBytes;
      FASTSSL_UNROLL_ALL
      for (int c = 0; c < kSteps; ++c)
        load_chunk<kTerms, kThreads>(left + uint32_t(c) * kBlock, from + c * kChunkBytes, panel.row_bytes);
    } else {
      const char* const from =
          panel.weights + int64_t(tile) * kTileRows * panel.row_bytes + int64_t(step) * kChunkBytes;
      load_chunk<kTileRows, kThreads>(left, from, panel.row_bytes);
    }
    const char* const rows = operand + int64_t(step) * kTerms * row_bytes;
    FASTSSL_UNROLL_ALL
    for (int c = 0; c < kParts; ++c) {
      const int32_t chunk = part * kParts + c;
      if (chunk < chunks)
        load_chunk<kTerms, kThreads>(right + uint32_t(c) * kBlock, rows + chunk * kChunkBytes, row_bytes);
    }
  }

  struct alignas(8) Pair {
    float value[2];
  };
  FASTSSL_DEVICE void store(const WideSums& sums, int32_t tile, int32_t part, int32_t split) const {
    const WideLane lane = wide_lane();
    const int32_t dimensions = chunks * kChunkHalves, first = part * kWideColumns;
    const int32_t own = (product.of_keys ? panel.key : panel.query) + tile;
    const int64_t rows = (int64_t(split) * product.tiles + own) * kTileRows;
    FASTSSL_UNROLL_ALL
    for (int r = 0; r < 2; ++r) {
      float* const to = product.partial + (rows + lane.row() + 8 * r) * dimensions;
      FASTSSL_UNROLL_ALL
      for (int j = 0; j < kWideColumns / 8; ++j) {
        const int32_t column = first + 8 * j + lane.column();
        if (column >= dimensions) continue;
        Pair* const pair = reinterpret_cast<Pair*>(to + column);
        const Pair before = product.add ? *pair : Pair{{0, 0}};
        *pair = {{before.value[0] + sums[j / 16][j % 16 * 4 + 2 * r],
                  before.value[1] + sums[j / 16][j % 16 * 4 + 2 * r + 1]}};
      }
    }
  }
};

}  // namespace
}  // namespace fastssl::cuda
