// The backward pass for more dimensions, and for float32: weights of a panel of pairs go to memory, and are multiplied from
// there.
//
// Part of contrastive_launch.h. A panel has up to 32 x 32 tiles of pairs (PanelKernel), and stays in the L2 cache of a
// large GPU; its weights are used twice, for the gradients of its queries and, read across, for those of its keys
// (ProductKernel). Where keys are queries, panels below the diagonal are never made, and of those on it, no tile below it.
#pragma once

#include "contrastive_fused.h"

namespace fastssl::cuda {
namespace {

// Tiles of queries [query, query + queries) times tiles of keys, and where their weights lie: row by row, as an operand.
struct Panel {
  int32_t query, queries, key, keys;
  char* weights;
  int64_t row_bytes;
  bool diagonal;  // the same tiles of a symmetric problem: only pairs of tiles on and above the diagonal
};

struct alignas(8) FourHalves {
  uint32_t pair[2];
};
// Of two fragments' rows, this lane has two numbers each. Two lanes that are neighbours exchange halves, so that each has four
// numbers of one of them: the odd one of the second.
FASTSSL_DEVICE void store_four(uint16_t* to, const uint32_t (&part)[2], bool odd) {
  const auto other = uint32_t(grid::shuffle_xor(int32_t(odd ? part[0] : part[1]), 1));
  *reinterpret_cast<FourHalves*>(to) = odd ? FourHalves{{other, part[1]}} : FourHalves{{part[0], other}};
}

// Layout   as ForwardKernel's: a block has one tile of 128 x 128 pairs.
// Launch   a block a tile of the panel.
template <bool kSplit>
struct PanelKernel {
  static constexpr int kThreads = kTileThreads<kSplit>, kBlocks = kTileBlocks<kSplit>;
  static constexpr int kShared = 4 * kTileBytes;

  Problem problem;
  PairWeights weights;
  Panel panel;

  FASTSSL_DEVICE void operator()() const {
    const auto block = int32_t(grid::block());
    const int32_t row_tile = panel.query + block / panel.keys, column_tile = panel.key + block % panel.keys;
    if (panel.diagonal && column_tile < row_tile) return;
    const uint32_t rows_at = grid::shared_base(), columns_at = rows_at + 2 * kTileBytes;
    const char* const rows = problem.query.operand + int64_t(row_tile) * kTileRows * problem.row_bytes;
    const char* const columns = problem.key.operand + int64_t(column_tile) * kTileRows * problem.row_bytes;
    const auto load = [&](int32_t chunk) {
      const uint32_t stage = uint32_t(chunk % 2) * kTileBytes;
      load_chunk<kTileRows, kThreads>(rows_at + stage, rows + chunk * kChunkBytes, problem.row_bytes);
      load_chunk<kTileRows, kThreads>(columns_at + stage, columns + chunk * kChunkBytes, problem.row_bytes);
      grid::commit_copies();
    };
    Sums<kSplit> sums;
    clear(sums);
    load(0);
    for (int32_t chunk = 0; chunk < problem.chunks; ++chunk) {
      grid::wait_copies<0>();
      grid::barrier();
      if (chunk + 1 < problem.chunks) load(chunk + 1);
      const uint32_t stage = uint32_t(chunk % 2) * kTileBytes;
      multiply_rows<kSplit>(sums, rows_at + stage, columns_at + stage);
    }
    PairWeights own = weights;
    own.logits = logits_of(problem);
    const Tile tile = tile_at(problem, row_tile * kTileRows, column_tile * kTileRows);
    if (own.logits.constant && !tile.masked()) {
      for_each_sum<kSplit>(sums, [&](int32_t row, int32_t column, float& sum) {
        sum = own.plain(sum, own.row_weight[tile.row + row], own.column_weight[tile.column + column]);
      });
    } else {
      for_each_sum<kSplit>(sums, [&](int32_t row, int32_t column, float& sum) {
        sum = own.general(problem, tile, sum, tile.row + row, tile.column + column);
      });
    }
    store(sums, row_tile - panel.query, column_tile - panel.key);
  }

  // Where a row has the weight of a column; behind as many as a chunk holds of them, their remainders.
  static FASTSSL_DEVICE int32_t at(int32_t column) {
    return column / kDepth<kSplit> * kChunkHalves + column % kDepth<kSplit>;
  }

  FASTSSL_DEVICE void store(const Sums<kSplit>& sums, int32_t row_tile, int32_t column_tile) const {
    const Lane lane = this_lane_again();
    const bool odd = lane.lane % 2;
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < 4; ++i) {
      FASTSSL_UNROLL_ALL
      for (int r = 0; r < 2; ++r) {
        const int64_t row = int64_t(row_tile) * kTileRows + warp_row<kSplit>(lane) + 16 * i + 8 * r + lane.row();
        auto* const to = reinterpret_cast<uint16_t*>(panel.weights + row * panel.row_bytes);
        FASTSSL_UNROLL_ALL
        for (int j = 0; j < kWarpColumns<kSplit> / 8; j += 2) {
          const int32_t column =
              column_tile * kTileRows + warp_column<kSplit>(lane) + 8 * (j + odd) + lane.column() / 4 * 4;
          uint32_t part[2];
          FASTSSL_UNROLL_ALL
          for (int n = 0; n < 2; ++n) part[n] = grid::pack_halves(sums[i][j + n][2 * r], sums[i][j + n][2 * r + 1]);
          store_four(to + at(column), part, odd);
          if constexpr (kSplit) {
            FASTSSL_UNROLL_ALL
            for (int n = 0; n < 2; ++n)
              part[n] = grid::pack_halves(sums[i][j + n][2 * r] - grid::half_value(part[n] & 0xFFFFu),
                                          sums[i][j + n][2 * r + 1] - grid::half_value(part[n] >> 16));
            store_four(to + at(column) + kDepth<true>, part, odd);
          }
        }
      }
    }
  }
};

// Sums of weights times operands, for the queries or for the keys of a panel.
struct Product {
  const char* operand;  // of the other side
  float* partial;  // (splits, tiles * kTileRows, dimensions)
  int32_t tiles;  // of this side
  int32_t splits;
  bool of_keys;  // the weights are read across
  bool add;  // to what is there
};

// Layout   a block has 128 rows and 128 dimensions, and sums over one of `splits` parts of the panel's other side, a chunk
//          at a time.
// Launch   row tiles * dimension tiles * splits blocks of 4 warps.
template <bool kSplit>
struct ProductKernel {
  static constexpr int kThreads = kTileThreads<kSplit>, kBlocks = kTileBlocks<kSplit>;
  static constexpr int kTerms = kDepth<kSplit>;  // rows of the other side at once
  static constexpr int kAcross = kTileRows / kTerms;  // chunks that hold 128 numbers
  static constexpr int kAcrossChunk = kTerms * kChunkBytes;  // bytes of one of them
  static constexpr int kShared = 4 * kTileBytes;

  Panel panel;
  Product product;
  int64_t row_bytes;
  int32_t chunks, wide;  // of an operand's row: chunks, and tiles of 128 dimensions

  // Of rows that lie across the sum: the chunk that holds their number `from`, a multiple of kTerms; and, counted from
  // there, the fragment of number `number` on with terms of `unit`, which for remainders are another unit of the same row.
  static FASTSSL_DEVICE uint32_t across_at(uint32_t place, int32_t from) {
    return place + uint32_t(from / kTerms) * kAcrossChunk;
  }
  static FASTSSL_DEVICE uint32_t place_of(uint32_t place, int number, int unit) {
    const int remainder = unit / (kTerms / 8) * (kTerms / 8);
    return at(across_at(place, number), unit % (kTerms / 8) * 8, number % kTerms / 8 + remainder);
  }

  // The products of what was loaded for `item`; kAcrossLeft: the weights lie across the sum.
  template <bool kAcrossLeft>
  static FASTSSL_DEVICE void multiply_item(Sums<kSplit>& sums, int32_t item) {
    const Lane lane = this_lane_again();
    const int32_t row = warp_row<kSplit>(lane), column = warp_column<kSplit>(lane);
    const uint32_t left_stage = grid::shared_base() + uint32_t(item % 2) * kTileBytes;
    const uint32_t terms = across_at(right_across(left_stage + 2 * kTileBytes, lane.lane), column);
    const auto load_right = [&](uint32_t (&b)[4], int j, int unit) {
      grid::load_transposed(b, place_of(terms, 16 * j, unit));
    };
    if constexpr (kAcrossLeft) {
      const uint32_t rows = across_at(left_across(left_stage, lane.lane), row);
      const auto load_left = [&](uint32_t (&a)[4], int i, int unit) {
        grid::load_transposed(a, place_of(rows, 16 * i, unit));
      };
      multiply_chunk<kSplit>(sums, load_left, load_right);
    } else {
      const uint32_t rows = left(left_stage + uint32_t(row) * kChunkBytes, lane.lane);
      const auto load_left = [&](uint32_t (&a)[4], int i, int unit) { grid::load_matrices(a, at(rows, 16 * i, unit)); };
      multiply_chunk<kSplit>(sums, load_left, load_right);
    }
  }

  FASTSSL_DEVICE void operator()() const {
    const auto block = int32_t(grid::block());
    const int32_t split = block % product.splits, dimension = block / product.splits % wide;
    const int32_t tile = block / product.splits / wide;  // counted from the panel's first
    const int32_t other_tiles = product.of_keys ? panel.queries : panel.keys;
    const int32_t items = other_tiles * kAcross;
    const auto begin = int32_t(int64_t(items) * split / product.splits);
    const auto end = int32_t(int64_t(items) * (split + 1) / product.splits);
    const int32_t first_other = product.of_keys ? panel.query : panel.key;

    const uint32_t left_at = grid::shared_base(), right_at = left_at + 2 * kTileBytes;
    // Whether the weights of this tile with the rows of `item` lie across.
    const auto is_across = [&](int32_t item) { return product.of_keys || (panel.diagonal && item / kAcross < tile); };
    const auto load = [&](int32_t item) {
      const int32_t stage = item % 2;
      const uint32_t left = left_at + uint32_t(stage) * kTileBytes, right = right_at + uint32_t(stage) * kTileBytes;
      if (is_across(item)) {
        const char* const from =
            panel.weights + int64_t(item) * kTerms * panel.row_bytes + tile * kAcross * kChunkBytes;
        for (int c = 0; c < kAcross; ++c)
          load_chunk<kTerms, kThreads>(left + uint32_t(c) * kAcrossChunk, from + c * kChunkBytes, panel.row_bytes);
      } else {
        const char* const from = panel.weights + int64_t(tile) * kTileRows * panel.row_bytes + item * kChunkBytes;
        load_chunk<kTileRows, kThreads>(left, from, panel.row_bytes);
      }
      const char* const rows =
          product.operand + (int64_t(first_other) * kTileRows + int64_t(item) * kTerms) * row_bytes;
      for (int c = 0; c < kAcross; ++c) {
        const int32_t chunk = dimension * kAcross + c;
        if (chunk < chunks)
          load_chunk<kTerms, kThreads>(right + uint32_t(c) * kAcrossChunk, rows + chunk * kChunkBytes, row_bytes);
      }
      grid::commit_copies();
    };

    Sums<kSplit> sums;
    clear(sums);
    if (begin < end) load(begin);
    const auto next = [&](int32_t item) {
      grid::wait_copies<0>();
      grid::barrier();
      if (item + 1 < end) load(item + 1);
    };
    int32_t item = begin;
    for (; item < end && is_across(item); ++item) {
      next(item);
      multiply_item<true>(sums, item);
    }
    for (; item < end; ++item) {
      next(item);
      multiply_item<false>(sums, item);
    }

    store(sums);
  }

  FASTSSL_DEVICE void store(const Sums<kSplit>& sums) const {
    const Lane lane = this_lane_again();
    const auto block = int32_t(grid::block());
    const int32_t split = block % product.splits, dimension = block / product.splits % wide * kTileRows;
    const int32_t tile = (product.of_keys ? panel.key : panel.query) + block / product.splits / wide;
    const int32_t dimensions = chunks * kTerms;
    float* const first = product.partial + (int64_t(split) * product.tiles + tile) * kTileRows * dimensions + dimension;
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < 8; ++i) {
      grid::warp_barrier();
      float* const row = first + int64_t(warp_row<kSplit>(lane) + 8 * i + lane.row()) * dimensions;
      FASTSSL_UNROLL_ALL
      for (int j = 0; j < kWarpColumns<kSplit> / 8; ++j) {
        const int32_t column = warp_column<kSplit>(lane) + 8 * j + lane.column();
        if (dimension + column >= dimensions) continue;
        Pair* const to = reinterpret_cast<Pair*>(row + column);
        Pair pair = product.add ? *to : Pair{{0, 0}};
        for (int e = 0; e < 2; ++e) pair.value[e] += sums[i / 2][j][i % 2 * 2 + e];
        *to = pair;
      }
    }
  }

  struct alignas(8) Pair {
    float value[2];
  };
};

}  // namespace
}  // namespace fastssl::cuda
