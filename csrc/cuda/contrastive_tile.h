// What the contrastive kernels share: operands in shared memory, and a tile of 128 x 128 products.
//
// An operand's row is cut into chunks of 128 bytes: 64 float16, or the leading parts of 32 numbers and then their
// remainders (Note [Two halves of a float]). In shared memory a chunk of many rows lies row by row, the 16 bytes `unit` of
// row r in place unit ^ (r % 8): eight rows of one unit, which load_matrices() takes at once, then lie in different banks,
// as do a row's eight units, which copies write.
//
// Note [Two halves of a float]
//     float32 inputs go to the matrix units as x = h + l, both float16, and a product is l h' + h l' + h h'. h has 11 bits,
//     l the next 11 and a sign: x is off by 2^-24 of itself at most, as is the product by the l l' that is left out: no
//     more than a float32 rounds. Three products of float16 take half the time of three of TF32, whose parts have as many
//     bits, and their operands half the memory. Operands are multiplied by 2^12 (kOperandBits), so that a remainder of a
//     number of 2^-12, in rows of length 1, is still normal. The units cut sums off instead of rounding them, always
//     towards zero. A sum over many keys would drift: after n steps by n 2^-24 of itself. So the products of a chunk start
//     from zero and are added to the sum by the ordinary adders, which round to nearest. float16 and bfloat16 inputs take
//     float16 operands, which for rows of unit length are closer than bfloat16, by three bits; there sums stay in the
//     units.
#pragma once

#include <cstdint>
#include <cstring>

#include "../core/contrastive.h"
#include "contrastive_plan.h"
#include "matrix.h"

namespace fastssl::cuda {
namespace {

// Of 128 x 128 products a warp has 64 rows and a half or, where parts need registers of their own, a quarter of the columns.
template <bool kSplit>
constexpr int kWarpsAcross = kSplit ? 4 : 2;
template <bool kSplit>
constexpr int kTileThreads = 2 * kWarpsAcross<kSplit> * 32;
template <bool kSplit>
constexpr int kTileBlocks = kSplit ? 1 : 2;  // on a multiprocessor: eight warps take all of its registers
constexpr int kWarpRows = 64;
template <bool kSplit>
constexpr int kWarpColumns = kTileRows / kWarpsAcross<kSplit>;
constexpr int kTileBytes = kTileRows * kChunkBytes;
constexpr int kOperandBits = 12;

// Numbers of an operand's row that a chunk holds.
template <bool kSplit>
constexpr int kDepth = kSplit ? kChunkHalves / 2 : kChunkHalves;

// The ids of a tile lie in one or the other of two ranges: those up to the first that is less than the one before it, and
// the rest; where there are none, `least` is above `most`. With one range, the tile that holds both the end of the first
// views and the beginning of the second, whose ids begin anew, would seem to meet all others.
struct alignas(16) IdRanges {
  int64_t least[2], most[2];
};

// One matrix as the kernels see it.
struct Side {
  const char* operand;
  const float* factor;  // and behind it the bound on the rows' lengths
  const int64_t* ids;  // null: no ids
  const IdRanges* id_ranges;  // of each tile
  int32_t count, tiles;
};
struct Scale {
  const float* at;  // null: it is `value`
  float value;

  FASTSSL_DEVICE float operator()() const { return at != nullptr ? *at : value; }
};
struct Problem {
  Side query, key;
  Scale scale;
  int64_t row_bytes;
  int32_t chunks, positive;
  bool symmetric, bounded;
};

// What turns a sum of products of operands into a logit.
struct Logits {
  float value;  // the logit
  float binary;  // its exponent of 2
  float largest, shift;  // bounds on the logits and on those exponents, where `constant`
  bool constant;
};
FASTSSL_DEVICE Logits logits_of(const Problem& p) {
  const float scale = p.scale(), factor = *p.query.factor * *p.key.factor, binary = scale * core::kLog2E;
  const float lengths = p.query.factor[1] * p.key.factor[1];
  const float largest = (scale < 0 ? -scale : scale) * lengths, shift = (binary < 0 ? -binary : binary) * lengths;
  return {scale * factor, binary * factor, largest, shift, p.bounded && core::constant_shift(largest)};
}

FASTSSL_DEVICE float infinity() { return __builtin_inff(); }

struct Lane {
  int32_t lane, warp;
  // The first of the rows and columns that a fragment of C has in this lane.
  FASTSSL_DEVICE int32_t row() const { return lane / 4; }
  FASTSSL_DEVICE int32_t column() const { return lane % 4 * 2; }
};
FASTSSL_DEVICE Lane this_lane_again() {
  const int32_t thread = grid::thread_again();
  return {thread % 32, thread / 32};
}
FASTSSL_DEVICE Lane this_lane() { return {grid::thread() % 32, grid::thread() / 32}; }

// Where a unit of a row is, of a chunk that begins at `base`.
FASTSSL_DEVICE uint32_t unit_at(uint32_t base, int32_t row, int32_t unit) {
  return base + uint32_t(row) * kChunkBytes + (uint32_t(unit ^ (row & 7)) << 4);
}

// Copies one chunk of `kRows` rows to `to`.
template <int kRows, int kThreads>
FASTSSL_DEVICE void load_chunk(uint32_t to, const char* from, int64_t row_bytes) {
  constexpr int kStep =
      kThreads / 8;  // rows at once: a multiple of 8, so that a unit's place is the same in all of a thread's
  const int32_t thread = grid::thread_again(), unit = thread % 8, first = thread / 8;
  const uint32_t place = unit_at(to, first, unit);
  const char* const own = from + first * row_bytes + unit * 16;
  FASTSSL_UNROLL_ALL
  for (int i = 0; i < kRows / kStep; ++i)
    grid::copy_async(place + i * (kStep * kChunkBytes), own + (i * kStep) * row_bytes);
}

// Fragments of A (16 x 16) and of B (16 x 16, two of 8 columns), whose rows or columns lie along the sum, or across it:
// then a row in memory is a term of the sum. left() and right() say where this lane finds its row of a fragment at the
// beginning of a chunk; at() moves that by rows, of which eight at a time, and units, of which two at a time, in two
// instructions.
FASTSSL_DEVICE uint32_t left(uint32_t chunk, int32_t lane) { return unit_at(chunk, lane % 16, lane / 16); }
FASTSSL_DEVICE uint32_t right(uint32_t chunk, int32_t lane) {
  return unit_at(chunk, lane % 8 + lane / 16 * 8, lane / 8 % 2);
}
FASTSSL_DEVICE uint32_t left_across(uint32_t chunk, int32_t lane) { return right(chunk, lane); }
FASTSSL_DEVICE uint32_t right_across(uint32_t chunk, int32_t lane) { return left(chunk, lane); }
FASTSSL_DEVICE uint32_t at(uint32_t place, int32_t rows, int32_t unit) {
  return (place ^ uint32_t(unit << 4)) + uint32_t(rows * kChunkBytes);
}

// A thread's sums: [of 16 rows][of 8 columns][C's fragment].
template <bool kSplit>
using Sums = float[4][kWarpColumns<kSplit> / 8][4];

template <int kColumns>
FASTSSL_DEVICE void clear(float (&sums)[4][kColumns][4]) {
  FASTSSL_UNROLL_ALL
  for (int i = 0; i < 4; ++i) {
    FASTSSL_UNROLL_ALL
    for (int j = 0; j < kColumns; ++j) {
      FASTSSL_UNROLL_ALL
      for (int e = 0; e < 4; ++e) sums[i][j][e] = 0;
    }
  }
}

// a b for 64 rows and 16 columns.
template <int kColumns>
FASTSSL_DEVICE void multiply(float (&sums)[4][kColumns][4], const uint32_t (&a)[4][4], const uint32_t (&b)[4], int j) {
  FASTSSL_UNROLL_ALL
  for (int i = 0; i < 4; ++i) {
    FASTSSL_UNROLL_ALL
    for (int n = 0; n < 2; ++n) grid::multiply_add(sums[i][2 * j + n], a[i], b[2 * n], b[2 * n + 1]);
  }
}

// Adds a chunk's products. load_left(a, i, unit) and load_right(b, j, unit) load the fragments of the i-th 16 rows and the
// j-th 16 columns; `unit` counts 8 numbers along the sum from the chunk's beginning, remainders behind the leading parts.
template <bool kSplit, typename Left, typename Right>
FASTSSL_DEVICE void multiply_chunk(Sums<kSplit>& sums, const Left& load_left, const Right& load_right) {
  constexpr int kColumns = kWarpColumns<kSplit> / 8, kRemainders = 4;  // units from a leading part to its remainder
  Sums<true> part;
  if constexpr (kSplit) clear(part);
  FASTSSL_UNROLL_ALL
  for (int k = 0; k < kDepth<kSplit> / 16; ++k) {
    grid::warp_barrier();
    uint32_t a[4][4], b[kColumns / 2][4];
    FASTSSL_UNROLL_ALL
    for (int j = 0; j < kColumns / 2; ++j) load_right(b[j], j, 2 * k);
    if constexpr (kSplit) {
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < 4; ++i) load_left(a[i], i, 2 * k + kRemainders);
      FASTSSL_UNROLL_ALL
      for (int j = 0; j < kColumns / 2; ++j) multiply(part, a, b[j], j);
    }
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < 4; ++i) load_left(a[i], i, 2 * k);
    FASTSSL_UNROLL_ALL
    for (int j = 0; j < kColumns / 2; ++j) {
      if constexpr (kSplit) {
        uint32_t rest[4];
        load_right(rest, j, 2 * k + kRemainders);
        multiply(part, a, rest, j);
        multiply(part, a, b[j], j);
      } else {
        multiply(sums, a, b[j], j);
      }
    }
  }
  if constexpr (kSplit) {
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < 4; ++i) {
      FASTSSL_UNROLL_ALL
      for (int j = 0; j < kColumns; ++j) {
        FASTSSL_UNROLL_ALL
        for (int e = 0; e < 4; ++e) sums[i][j][e] += part[i][j][e];
      }
    }
  }
}

// Where a warp's products begin in the tile.
template <bool kSplit>
FASTSSL_DEVICE int32_t warp_row(const Lane& lane) {
  return lane.warp / kWarpsAcross<kSplit> * kWarpRows;
}
template <bool kSplit>
FASTSSL_DEVICE int32_t warp_column(const Lane& lane) {
  return lane.warp % kWarpsAcross<kSplit> * kWarpColumns<kSplit>;
}

// The products of a chunk of 128 rows with one of 128 columns, both in shared memory along the sum.
template <bool kSplit>
FASTSSL_DEVICE void multiply_rows(Sums<kSplit>& sums, uint32_t rows, uint32_t columns) {
  const Lane own = this_lane_again();
  const uint32_t row = left(rows + uint32_t(warp_row<kSplit>(own)) * kChunkBytes, own.lane);
  const uint32_t column = right(columns + uint32_t(warp_column<kSplit>(own)) * kChunkBytes, own.lane);
  multiply_chunk<kSplit>(
      sums, [&](uint32_t (&a)[4], int i, int unit) { grid::load_matrices(a, at(row, 16 * i, unit)); },
      [&](uint32_t (&b)[4], int j, int unit) { grid::load_matrices(b, at(column, 16 * j, unit)); });
}

// Calls f(row, column, sum) for each sum of this thread; rows and columns are counted from the tile's first.
template <bool kSplit, typename F>
FASTSSL_DEVICE void for_each_sum(Sums<kSplit>& sums, const F& f) {
  const Lane own = this_lane_again();
  FASTSSL_UNROLL_ALL
  for (int i = 0; i < 4; ++i) {
    FASTSSL_UNROLL_ALL
    for (int j = 0; j < kWarpColumns<kSplit> / 8; ++j) {
      FASTSSL_UNROLL_ALL
      for (int e = 0; e < 4; ++e)
        f(warp_row<kSplit>(own) + 16 * i + e / 2 * 8 + own.row(),
          warp_column<kSplit>(own) + 8 * j + own.column() + e % 2, sums[i][j][e]);
    }
  }
}

// --- what a tile has to look at ------------------------------------------------------------------------------------------

// Of `rows` queries from `row` on and `columns` keys from `column` on.
struct Tile {
  int32_t row, column;
  bool edge, ids;  // some are not there; some may share an id
  bool positives, transposed;  // some may be positives; the same with queries and keys exchanged

  FASTSSL_DEVICE bool masked() const { return edge || ids; }
  FASTSSL_DEVICE bool plain() const { return !masked() && !positives && !transposed; }
};

// Whether [a, a + length) and [b, b + length) meet on a ring of `ring`.
FASTSSL_DEVICE bool meet(int32_t a, int32_t b, int32_t length, int32_t ring) {
  const int32_t ahead = b >= a ? b - a : b - a + ring, behind = ahead ? ring - ahead : 0;
  return ahead < length || behind < length;
}

FASTSSL_DEVICE bool may_share(const IdRanges& a, const IdRanges& b) {
  // Without a branch, so that the loads do not wait for each other.
  bool any = false;
  FASTSSL_UNROLL_ALL
  for (int i = 0; i < 4; ++i) any |= (a.least[i / 2] <= b.most[i % 2]) & (b.least[i % 2] <= a.most[i / 2]);
  return any;
}

// kTileRows queries from `row` on, and `columns` keys, as many at most, from `column` on; and the ranges of their ids,
// where there are any.
FASTSSL_DEVICE Tile tile_at(const Problem& p, int32_t row, int32_t column, int32_t columns, const IdRanges* of_rows,
                            const IdRanges* of_columns) {
  Tile tile{row, column, false, false, false, false};
  tile.edge = row + kTileRows > p.query.count || column + columns > p.key.count;
  tile.ids = p.query.ids != nullptr && may_share(*of_rows, *of_columns);
  return tile;
}
FASTSSL_DEVICE Tile tile_at(const Problem& p, int32_t row, int32_t column) {
  return tile_at(p, row, column, kTileRows, p.query.id_ranges + row / kTileRows, p.key.id_ranges + column / kTileRows);
}
// `both`: the tile stands for the one on the other side of the diagonal, too.
FASTSSL_DEVICE void look_for_positives(const Problem& p, Tile& tile, bool both) {
  if (p.positive < 0) return;
  const int32_t keys = p.key.count;
  tile.positives = meet(core::positive_of(tile.row, p.positive, keys), tile.column, kTileRows, keys);
  tile.transposed = both && meet(core::positive_of(tile.column, p.positive, keys), tile.row, kTileRows, keys);
}

// Query i and key j, of the tile.
FASTSSL_DEVICE bool allowed(const Problem& p, const Tile& tile, int32_t i, int32_t j) {
  return i < p.query.count && j < p.key.count && (!tile.ids || p.query.ids[i] != p.key.ids[j]);
}

}  // namespace
}  // namespace fastssl::cuda
