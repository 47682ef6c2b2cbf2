// Sums of exponentials over the rows of the matrix of logits, and over its columns.
//
// Part of contrastive_launch.h.
#pragma once

#include "contrastive_tile.h"

namespace fastssl::cuda {
namespace {

// What a kernel of the forward pass has to do, and what a block's part of it is.
struct ForwardWork {
  Problem problem;
  int32_t height, strips, segments;
  bool columns;
  bool shifted_only;  // leave at once where the shift is constant
  float *row_sums, *row_shifts, *column_sums, *positives;

  // A block's strip of row tiles, and its column tiles for each of them: items [begin, end).
  struct Columns {
    int32_t strip, begin, end;
    // On the ring of strips: its length, beyond which tile it begins anew, and the tiles of a strip. Off it nothing is as large
    // as the latter two.
    int32_t ring, tiles, height;
  };
  // An item of such a list. On the ring, strips lie one after the other, and so do the tiles of items.
  struct Item {
    int32_t number;  // at the end of the list there is none
    int32_t tile;

    FASTSSL_DEVICE static Item first(const Columns& list) {
      const int32_t tile = list.begin + (list.ring > 0 ? list.strip * list.height : 0);
      Item item{list.begin, list.ring > 0 && tile >= list.ring ? tile - list.ring : tile};
      item.skip(list);
      return item;
    }
    FASTSSL_DEVICE bool there(const Columns& list) const { return number < list.end; }
    FASTSSL_DEVICE void advance(const Columns& list) {
      ++number;
      ++tile;
      skip(list);
    }
    // From the block's own strip to the item's, whose rows its columns are; off the ring 0.
    FASTSSL_DEVICE int32_t distance(const Columns& list) const { return number / list.height; }

   private:
    // The last strip need not have all of its tiles.
    FASTSSL_DEVICE void skip(const Columns& list) {
      const bool over = tile >= list.tiles;
      number += over ? list.ring - tile : 0;
      tile = over ? 0 : tile;
    }
  };

  FASTSSL_DEVICE Columns columns_of(const Logits& logits) const {
    const int32_t strip = int32_t(grid::block()) / segments, segment = int32_t(grid::block()) % segments;
    const bool ring = problem.symmetric && logits.constant;
    int64_t items = problem.key.tiles;
    if (ring) {
      const bool whole = strips % 2 == 1 || strip < strips / 2;
      items = int64_t(strips / 2 + (whole ? 1 : 0)) * height;
    }
    const auto begin = int32_t(items * segment / segments), end = int32_t(items * (segment + 1) / segments);
    if (!ring) return {strip, begin, end, 0, INT32_MAX, INT32_MAX};
    return {strip, begin, end, strips * height, problem.key.tiles, height};
  }
  FASTSSL_DEVICE bool has_row_tile(const Columns& list, int32_t tile) const {
    return tile < (list.strip + 1) * height && tile < problem.query.tiles;
  }

  // Where the sums over a tile's columns go; null: nowhere.
  FASTSSL_DEVICE float* columns_into(const Logits& logits, const Columns& list, const Item& item) const {
    const int32_t distance = item.distance(list);
    if (!(problem.symmetric ? distance > 0 : columns && logits.constant)) return nullptr;
    const int32_t slot = problem.symmetric ? distance - 1 : list.strip;
    return column_sums + (int64_t(slot) * problem.key.tiles + item.tile) * kTileRows;
  }

  FASTSSL_DEVICE void store_row(int32_t tile, int32_t row, float sum, float shift) const {
    const int64_t to = (grid::block_again() % segments * problem.query.tiles + tile) * kTileRows + row;
    row_sums[to] = sum;
    row_shifts[to] = shift;
  }

  static FASTSSL_DEVICE void add_sums(const Logits& logits, float& sum, float& shift, float other, float other_shift) {
    if (logits.constant) {
      sum += other;
    } else {
      join(sum, shift, other, other_shift);
    }
  }

  // The sum of two sums, each of its own shift.
  static FASTSSL_DEVICE void join(float& sum, float& shift, float other, float other_shift) {
    const float largest = core::larger(shift, other_shift), base = largest == -infinity() ? 0 : largest;
    sum = sum * grid::power_of_two(shift - base) + other * grid::power_of_two(other_shift - base);
    shift = largest;
  }

  // Of twice kHalf sums keeps those that this lane's bit of kMask says, with the other lane's added.
  template <int kHalf, int kMask, int kAll>
  static FASTSSL_DEVICE void halve(float (&sum)[kAll], int32_t lane) {
    const bool upper = lane & kMask;
    FASTSSL_UNROLL_ALL
    for (int j = 0; j < kHalf; ++j) {
      const float given = upper ? sum[j] : sum[j + kHalf], kept = upper ? sum[j + kHalf] : sum[j];
      sum[j] = kept + grid::shuffle_xor(given, kMask);
    }
  }
};

// Layout   see contrastive_plan.h; a block has a strip of row tiles and one of `segments` parts of the column tiles.
// Launch   strips * segments blocks of 4 warps. A tile's products stay in registers, 128 a thread.
// Order    where keys are queries and the shift is constant, strip I takes strips I, I + 1, ... I + strips / 2, on a ring:
//          all strips have as many, and each pair of different strips is met once, by one of the two. (At the distance of
//          half an even ring both would meet; the first half does.) Sums over its columns are then the sums over rows that
//          the other is spared. Otherwise every block takes all columns.
// Sums     of a thread over its 16 columns of a tile, of a block over its part, then of all parts (SumsKernel): the order
//          is fixed.
template <bool kSplit>
struct ForwardKernel : ForwardWork {
  static constexpr int kThreads = kTileThreads<kSplit>, kBlocks = kTileBlocks<kSplit>;
  static constexpr int kColumns = kWarpColumns<kSplit> / 8;  // fragments of them

  bool resident;

  // Of a thread's 8 rows: sums of 2^(exponent - shift).
  struct RowSums {
    float sum[4][2], shift[4][2];
  };

  FASTSSL_DEVICE void operator()() const {
    const Logits logits = logits_of(problem);
    if (logits.constant && shifted_only) return;
    const Columns list = columns_of(logits);
    for (int32_t tile = list.strip * height; has_row_tile(list, tile); ++tile) row_tile(logits, list, tile);
  }

  FASTSSL_DEVICE void row_tile(const Logits& logits, const Columns& list, int32_t tile) const {
    Item item = Item::first(list);
    const uint32_t rows_at = grid::shared_base();
    const uint32_t columns_at = rows_at + uint32_t(resident ? problem.chunks : 2) * kTileBytes;
    const char* const rows = problem.query.operand + int64_t(tile) * kTileRows * problem.row_bytes;
    const auto load = [&](const Item& of, int32_t chunk, int32_t stage) {
      const char* const from = problem.key.operand + int64_t(of.tile) * kTileRows * problem.row_bytes;
      load_chunk<kTileRows, kThreads>(columns_at + uint32_t(stage) * kTileBytes, from + chunk * kChunkBytes,
                                      problem.row_bytes);
      if (!resident)
        load_chunk<kTileRows, kThreads>(rows_at + uint32_t(stage) * kTileBytes, rows + chunk * kChunkBytes,
                                        problem.row_bytes);
      grid::commit_copies();
    };
    RowSums sums;
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < 8; ++i) {
      sums.sum[i / 2][i % 2] = 0;
      sums.shift[i / 2][i % 2] = -infinity();
    }
    grid::barrier();  // a slow warp may still read what the row tile before left
    if (resident && item.there(list)) {
      for (int32_t chunk = 0; chunk < problem.chunks; ++chunk)
        load_chunk<kTileRows, kThreads>(rows_at + uint32_t(chunk) * kTileBytes, rows + chunk * kChunkBytes,
                                        problem.row_bytes);
    }
    if (item.there(list)) load(item, 0, 0);
    int32_t stage = 0;
    while (item.there(list)) {
      Tile at = tile_at(problem, tile * kTileRows, item.tile * kTileRows);
      if (positives != nullptr) look_for_positives(problem, at, item.distance(list) > 0);
      Sums<kSplit> products;
      clear(products);
      for (int32_t chunk = 0; chunk < problem.chunks; ++chunk) {
        grid::wait_copies<0>();
        grid::barrier();
        if (chunk + 1 < problem.chunks) {
          load(item, chunk + 1, stage ^ 1);
        } else {
          Item next = item;
          next.advance(list);
          if (next.there(list)) load(next, 0, stage ^ 1);
        }
        multiply_rows<kSplit>(products, rows_at + uint32_t(resident ? chunk : stage) * kTileBytes,
                              columns_at + uint32_t(stage) * kTileBytes);
        stage ^= 1;
      }
      add_tile(logits, at, products, sums, columns_into(logits, list, item), tile > list.strip * height);
      item.advance(list);
    }
    store_rows(logits, sums, tile);
  }

  // Takes a tile's products into the sums. `into`: where its sums over columns go; null: nowhere.
  FASTSSL_DEVICE void add_tile(const Logits& logits, const Tile& at, Sums<kSplit>& products, RowSums& sums, float* into,
                               bool add) const {
    if (logits.constant && !at.masked() && !at.positives && !at.transposed) {
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < 4; ++i) {
        FASTSSL_UNROLL_ALL
        for (int j = 0; j < kColumns; ++j) {
          FASTSSL_UNROLL_ALL
          for (int e = 0; e < 4; ++e)
            products[i][j][e] = grid::power_of_two(core::fused(products[i][j][e], logits.binary, -logits.shift));
        }
      }
    } else {
      look(logits, at, products);
      if (!logits.constant) return add_shifted(products, sums);
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < 4; ++i) {
        FASTSSL_UNROLL_ALL
        for (int j = 0; j < kColumns; ++j) {
          FASTSSL_UNROLL_ALL
          for (int e = 0; e < 4; ++e) products[i][j][e] = grid::power_of_two(products[i][j][e] - logits.shift);
        }
      }
    }
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < 4; ++i) {
      FASTSSL_UNROLL_ALL
      for (int r = 0; r < 2; ++r) {
        float sum = 0;
        FASTSSL_UNROLL_ALL
        for (int j = 0; j < kColumns; ++j) sum += products[i][j][2 * r] + products[i][j][2 * r + 1];
        sums.sum[i][r] += sum;
      }
    }
    if (into != nullptr) store_columns(products, into, add);
  }

  // Keeps the positives, and makes exponents of 2 of the products; -infinity where a pair is left out.
  FASTSSL_DEVICE void look(const Logits& logits, const Tile& at, Sums<kSplit>& products) const {
    const int32_t queries = problem.query.count, keys = problem.key.count;
    for_each_sum<kSplit>(products, [&](int32_t row, int32_t column, float& product) {
      const int32_t i = at.row + row, j = at.column + column;
      if (at.positives && i < queries && j == core::positive_of(i, problem.positive, keys))
        positives[i] = product * logits.value;
      if (at.transposed && j < keys && i == core::positive_of(j, problem.positive, keys))
        positives[j] = product * logits.value;
      product = !at.masked() || allowed(problem, at, i, j) ? product * logits.binary : -infinity();
    });
  }

  // Sums whose shift grows with the largest exponent that was met.
  FASTSSL_DEVICE void add_shifted(Sums<kSplit>& exponents, RowSums& sums) const {
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < 4; ++i) {
      FASTSSL_UNROLL_ALL
      for (int r = 0; r < 2; ++r) {
        float largest = sums.shift[i][r];
        FASTSSL_UNROLL_ALL
        for (int j = 0; j < kColumns; ++j)
          largest = core::larger(largest, core::larger(exponents[i][j][2 * r], exponents[i][j][2 * r + 1]));
        const float shift = largest == -infinity() ? 0 : largest;
        float sum = 0;
        FASTSSL_UNROLL_ALL
        for (int j = 0; j < kColumns; ++j)
          sum += grid::power_of_two(exponents[i][j][2 * r] - shift) +
                 grid::power_of_two(exponents[i][j][2 * r + 1] - shift);
        sums.sum[i][r] = core::fused(sums.sum[i][r], grid::power_of_two(sums.shift[i][r] - shift), sum);
        sums.shift[i][r] = largest;
      }
    }
  }

  FASTSSL_DEVICE float* shared_sums() const {
    return reinterpret_cast<float*>(grid::shared() + ((resident ? problem.chunks : 2) + 2) * kTileBytes);
  }

  // Sums over the tile's rows, of each of its columns. The eight lanes that share columns halve what they have to add three
  // times.
  FASTSSL_DEVICE void store_columns(const Sums<kSplit>& products, float* into, bool add) const {
    const Lane lane = this_lane();
    constexpr int kAll = 2 * kColumns, kLeft = kAll / 8;
    float sum[kAll];
    FASTSSL_UNROLL_ALL
    for (int j = 0; j < kAll; ++j) {
      sum[j] = 0;
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < 4; ++i) sum[j] += products[i][j / 2][j % 2] + products[i][j / 2][j % 2 + 2];
    }
    halve<kAll / 2, 16>(sum, lane.lane);
    halve<kAll / 4, 8>(sum, lane.lane);
    halve<kAll / 8, 4>(sum, lane.lane);
    float* const shared = shared_sums();
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < kLeft; ++i) {
      const int32_t j = lane.row() * kLeft + i;
      shared[warp_row<kSplit>(lane) / kWarpRows * kTileRows + warp_column<kSplit>(lane) + j / 2 * 8 + lane.column() +
             j % 2] = sum[i];
    }
    grid::barrier();
    const int32_t column = grid::thread();
    if (column >= kTileRows) return;
    const float total = shared[column] + shared[kTileRows + column];
    into[column] = add ? into[column] + total : total;
  }

  FASTSSL_DEVICE void store_rows(const Logits& logits, RowSums& sums, int32_t tile) const {
    const Lane lane = this_lane();
    constexpr int kAcross = kWarpsAcross<kSplit>;
    float* const shared = shared_sums();
    float* const shared_shifts = shared + kAcross * kTileRows;
    grid::barrier();  // the sums over columns have been read
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < 4; ++i) {
      FASTSSL_UNROLL_ALL
      for (int r = 0; r < 2; ++r) {
        float sum = sums.sum[i][r], shift = sums.shift[i][r];
        FASTSSL_UNROLL_ALL
        for (int mask = 1; mask <= 2; mask *= 2) {
          const float other = grid::shuffle_xor(sum, mask), other_shift = grid::shuffle_xor(shift, mask);
          add_sums(logits, sum, shift, other, other_shift);
        }
        const int32_t row = lane.warp % kAcross * kTileRows + warp_row<kSplit>(lane) + 16 * i + 8 * r + lane.row();
        if (lane.lane % 4 == 0) {
          shared[row] = sum;
          shared_shifts[row] = shift;
        }
      }
    }
    grid::barrier();
    const int32_t row = grid::thread();
    if (row >= kTileRows) return;
    float sum = shared[row], shift = shared_shifts[row];
    for (int i = 1; i < kAcross; ++i)
      add_sums(logits, sum, shift, shared[i * kTileRows + row], shared_shifts[i * kTileRows + row]);
    store_row(tile, row, sum, shift);
  }
};

// The logarithm of each row's sum, or column's, from its parts: a thread a row. `row_sums` are used for rows and, where the
// shift is not constant, for columns, whose parts then come from the exchanged problem.
struct SumsKernel {
  static constexpr int kThreads = 128, kBlocks = 8;

  Problem problem;
  bool of_columns;
  const float *row_sums, *row_shifts, *column_sums;
  int32_t segments, slots, height, strips;
  float* out;

  FASTSSL_DEVICE void operator()() const {
    const Logits logits = logits_of(problem);
    const Side& side = of_columns ? problem.key : problem.query;
    const int64_t row = grid::block() * kThreads + grid::thread(), padded = int64_t(side.tiles) * kTileRows;
    if (row >= side.count) return;
    if (!logits.constant) {
      float sum = 0, shift = -infinity();
      for (int32_t i = 0; i < segments; ++i)
        ForwardWork::join(sum, shift, row_sums[i * padded + row], row_shifts[i * padded + row]);
      // No sum is zero but of nothing; a NaN leaves no trace in the shift.
      out[row] = shift == -infinity() && sum == 0 ? shift : core::fused(shift, core::kLn2, logf(sum));
      return;
    }
    // Four sums at a time: their loads do not wait for each other.
    float sum[4] = {};
    const auto add = [&](const float* parts, int32_t count) {
      for (int32_t i = 0; i < count; i += 4) {
        FASTSSL_UNROLL_ALL
        for (int j = 0; j < 4; ++j) sum[j] += i + j < count ? parts[(i + j) * padded + row] : 0;
      }
    };
    if (!of_columns) add(row_sums, segments);
    if (problem.symmetric) {
      const auto strip = int32_t(row / kTileRows) / height;
      add(column_sums, strips % 2 == 1 ? strips / 2 : strips / 2 - (strip >= strips / 2 ? 0 : 1));
    } else if (of_columns) {
      add(column_sums, slots);
    }
    out[row] = logits.largest + logf((sum[0] + sum[1]) + (sum[2] + sum[3]));
  }
};

}  // namespace
}  // namespace fastssl::cuda
