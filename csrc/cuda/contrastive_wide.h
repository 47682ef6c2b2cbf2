// The products of the contrastive kernels by wgmma and bulk copies, for float16 operands of 128 and 256 padded dimensions; the
// backward pass of other dimensions beyond 128 is in contrastive_wide_panels.h.
//
// Part of contrastive_launch.h; compute capability 9.0 alone. What is computed, and in which order it is added up, is
// ForwardKernel's and FusedKernel's; how products and copies are waited for is in wide.h, Note [Wide products].
//
// Note [Wide blocks]
//     A block has 128 queries, whose operands stay in shared memory. Two warpgroups take keys, step by step, from a ring of
//     stages. Operands lie in global memory as shared memory is to have them, tile by tile and in each chunk by chunk
//     (OperandKernel), so that a copy is of one piece and no tensor map is needed. Of each stage an mbarrier `full` tells that
//     its bytes have come, and one `empty` that all warps have read it. What is to be known of a step's tile, which takes loads
//     from global memory, is found out while its products are made.
//         In the forward pass each warpgroup has half of a step's keys for itself, which one of its threads copies; nobody
//     waits for the other, and two blocks on a multiprocessor keep its units busy.
//         In the backward pass a warpgroup has 64 of the queries, and both take the same keys. There is one block, and what a
//     warpgroup does with its products in registers, exponentials above all, should hide behind the products of the other. So
//     they begin them in turns: one begins its products, then the other; the units take them in that order, and while the
//     second's are made the first has its own to work on. Nobody has to wait for the end of anything but its own products. One
//     thread of the second warpgroup begins the copies: it comes last, so that when it is through with a step the other
//     warpgroup has read the stage as well, and it fills it again at once. A warp of its own for that would be a third one in one
//     of a multiprocessor's four parts, and leave every thread 168 registers instead of 255: it would spill.
#pragma once

#include "contrastive_forward.h"
#include "contrastive_fused.h"
#include "wide.h"

namespace fastssl::cuda {
namespace {

constexpr int kWideGroups = 2;  // of 64 rows
constexpr int kWideWarps = 4 * kWideGroups;
constexpr int kWideThreads = kWideWarps * 32;
constexpr int kGroupRows = kTileRows / kWideGroups;
constexpr uint32_t kAtomBytes = 1024;  // at multiples of which blocks of a swizzle begin
static_assert(kTileBytes % kAtomBytes == 0);

// What a thread is in its block.
struct WideLane {
  int32_t lane, warp;
  FASTSSL_DEVICE bool copies() const { return warp == kWideWarps - 4 && lane == 0; }
  FASTSSL_DEVICE int32_t group() const { return warp / 4; }
  // The first of the two rows of the tile, eight apart, and of the columns that it has products of.
  FASTSSL_DEVICE int32_t row() const { return warp * 16 + lane / 4; }
  FASTSSL_DEVICE int32_t column() const { return lane % 4 * 2; }
};
FASTSSL_DEVICE WideLane wide_lane() { return {grid::thread() % 32, grid::thread() / 32}; }
FASTSSL_DEVICE WideLane wide_lane_again() {
  const int32_t thread = grid::thread_again();
  return {thread % 32, thread / 32};
}

// Which of a thread's pairs are allowed: of each of its two rows, a bit a column. In a loop that is not unrolled, since it
// takes registers that products need, and few tiles need it.
template <int kColumns, bool kKeysAreRows = false>
FASTSSL_DEVICE void mask_pairs(const Problem& problem, const Tile& at, const WideLane& lane, uint32_t (&mask)[2]) {
  mask[0] = mask[1] = at.masked() ? 0 : ~0u;
  const int32_t first_row = kKeysAreRows ? at.column : at.row, first_column = kKeysAreRows ? at.row : at.column;
  FASTSSL_UNROLL(1)
  for (int32_t i = 0; at.masked() && i < kColumns / 4; ++i) {
    const int32_t column = first_column + lane.column() + i / 2 * 8 + i % 2;
    FASTSSL_UNROLL_ALL
    for (int r = 0; r < 2; ++r) {
      const int32_t row = first_row + lane.row() + 8 * r;
      const bool here = kKeysAreRows ? allowed(problem, at, column, row) : allowed(problem, at, row, column);
      mask[r] |= uint32_t(here) << i;
    }
  }
}

// Of two columns side by side.
struct alignas(8) TwoWeights {
  float v[2];
};

// Makes weights of a thread's products with kColumns keys (Note [Weights]); `column_weight`: of its first two columns and on.
template <int kColumns>
FASTSSL_DEVICE void weigh_pairs(const Problem& problem, const PairWeights& own, const WideLane& lane, const Tile& at,
                                const float (&row_weight)[2], const TwoWeights* column_weight,
                                float (&products)[kColumns / 2]) {
  if (own.logits.constant && !at.masked()) {
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < kColumns / 2; ++i)
      products[i] = own.plain(products[i], row_weight[i / 2 % 2], column_weight[i / 4 * 4].v[i % 2]);
  } else {
    uint32_t mask[2];
    mask_pairs<kColumns>(problem, at, lane, mask);
    const int32_t query = at.row + lane.row();
    const float row_shift[2] = {own.row_shift[query], own.row_shift[query + 8]};
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < kColumns / 2; ++i) {
      if (i % 4 == 0) grid::warp_barrier();
      const int column = i / 4 * 8 + i % 2, r = i / 2 % 2;
      const float v = own.logits.constant
                          ? own.plain(products[i], row_weight[r], column_weight[column / 2].v[i % 2])
                          : own.shifted(products[i], row_weight[r], row_shift[r], column_weight[column / 2].v[i % 2],
                                        own.column_shift[at.column + lane.column() + column]);
      products[i] = mask[r] >> (i / 4 * 2 + i % 2) & 1u ? v : 0;
    }
  }
}

// Where shared memory has what: queries, then kStages times keys, then others; all begin at multiples of kAtomBytes.
template <int kChunks, int kKeys, int kStages>
struct WideMemory {
  static constexpr uint32_t kDepth = kStages;
  static constexpr uint32_t kBlock = uint32_t(kKeys) * kChunkBytes;  // a chunk of a step's keys
  static constexpr uint32_t kQueries = kChunks * kTileBytes, kStage = kChunks * kBlock;
  static constexpr uint32_t kOthersAt = kQueries + kStages * kStage;
  static constexpr int kMbarriers = 2 * kStages + kWideGroups;
  // Of `others` bytes behind the keys, the mbarriers, and what is lost to alignment.
  static constexpr int bytes(int others) { return int(kOthersAt) + others + kMbarriers * 8 + int(kAtomBytes); }

  uint32_t base;  // an address
  uint32_t mbarriers;  // the same of theirs

  FASTSSL_DEVICE static WideMemory of_block(int others) {
    const uint32_t base = (grid::shared_base() + kAtomBytes - 1) / kAtomBytes * kAtomBytes;
    return {base, base + kOthersAt + uint32_t(others)};
  }
  FASTSSL_DEVICE char* at(uint32_t offset) const { return grid::shared() + (base - grid::shared_base()) + offset; }
  FASTSSL_DEVICE uint32_t keys(uint32_t step) const { return base + kQueries + step % kStages * kStage; }
  FASTSSL_DEVICE uint32_t full(uint32_t step) const { return mbarriers + step % kStages * 8; }
  FASTSSL_DEVICE uint32_t empty(uint32_t step) const { return mbarriers + (kStages + step % kStages) * 8; }
  FASTSSL_DEVICE uint32_t turn(int32_t group) const { return mbarriers + (2 * kStages + uint32_t(group)) * 8; }

  // All threads of a block, before anything else. The first turn is the first warpgroup's.
  FASTSSL_DEVICE void begin(const WideLane& lane) const {
    if (grid::thread() == 0) {
      for (uint32_t i = 0; i < kStages; ++i) {
        grid::make_mbarrier(full(i), 1);
        grid::make_mbarrier(empty(i), kWideWarps);
      }
      for (int32_t i = 0; i < kWideGroups; ++i) grid::make_mbarrier(turn(i), 4);
      grid::publish_mbarriers();
    }
    grid::barrier();
    if (lane.group() == 1) pass_turn(lane);
  }

  FASTSSL_DEVICE void wait_until_read(uint32_t step) const { grid::wait_phase(empty(step), step / kStages); }
  FASTSSL_DEVICE void wait_for_keys(uint32_t step) const { grid::wait_phase(full(step), step / kStages); }
  FASTSSL_DEVICE void release(uint32_t step, const WideLane& lane) const {
    if (lane.lane == 0) grid::arrive(empty(step));
  }
  // Before a warpgroup begins its products number `number`, and when it has.
  FASTSSL_DEVICE void take_turn(uint32_t number, const WideLane& lane) const {
    grid::wait_phase(turn(lane.group()), number);
  }
  FASTSSL_DEVICE void pass_turn(const WideLane& lane) const {
    if (lane.lane == 0) grid::arrive(turn(1 - lane.group()));
  }

  // Begins the products of the warpgroup's queries with a step's keys.
  FASTSSL_DEVICE void multiply(float (&products)[kKeys / 2], uint32_t step, const WideLane& lane) const {
    const uint64_t queries = grid::matrix_along(base + uint32_t(lane.group() * kGroupRows) * kChunkBytes);
    const uint64_t keys_of_step = grid::matrix_along(keys(step));
    FASTSSL_UNROLL_ALL
    for (int k = 0; k < kChunks * kChunkHalves / 16; ++k) {
      const int chunk = k / 4, bytes = k % 4 * 32;
      grid::multiply_wide(products, queries + uint32_t(chunk * kTileBytes + bytes) / 16,
                          keys_of_step + (uint32_t(chunk) * kBlock + uint32_t(bytes)) / 16, k > 0);
    }
  }
};

// Shared memory of the forward pass: the block's own queries, then two stages for tiles of keys, each of which comes in two
// halves with mbarriers of their own, then a sum a warp and query.
template <int kChunks>
struct WideForwardMemory {
  static constexpr uint32_t kStages = 2, kHalf = kTileBytes / kWideGroups;  // a chunk of half a tile's keys
  static constexpr uint32_t kTile = kChunks * kTileBytes, kSumsAt = (1 + kStages) * kTile;
  static constexpr uint32_t kMbarriersAt = kSumsAt + kWideWarps * kTileRows * uint32_t(sizeof(float));
  static constexpr int kBytes = int(kMbarriersAt + (2 * kWideGroups * kStages + 1) * 8 + kAtomBytes);

  uint32_t base;  // an address

  FASTSSL_DEVICE static WideForwardMemory of_block() {
    return {(grid::shared_base() + kAtomBytes - 1) / kAtomBytes * kAtomBytes};
  }
  FASTSSL_DEVICE float* sums() const {
    return reinterpret_cast<float*>(grid::shared() + (base - grid::shared_base()) + kSumsAt);
  }
  FASTSSL_DEVICE uint32_t keys(uint32_t step) const { return base + (1 + step % kStages) * kTile; }
  FASTSSL_DEVICE uint32_t mbarrier(uint32_t number) const { return base + kMbarriersAt + number * 8; }
  FASTSSL_DEVICE uint32_t full(uint32_t step, int32_t half) const {
    return mbarrier(step % kStages * kWideGroups + uint32_t(half));
  }
  FASTSSL_DEVICE uint32_t empty(uint32_t step, int32_t half) const {
    return mbarrier((kStages + step % kStages) * kWideGroups + uint32_t(half));
  }
  FASTSSL_DEVICE uint32_t queries() const { return mbarrier(2 * kStages * kWideGroups); }

  // All threads of a block, before anything else; `readers`: warps that read a half.
  FASTSSL_DEVICE void begin(int readers) const {
    if (grid::thread() == 0) {
      for (uint32_t i = 0; i < kStages * kWideGroups; ++i) {
        grid::make_mbarrier(mbarrier(i), 1);
        grid::make_mbarrier(mbarrier(kStages * kWideGroups + i), readers);
      }
      grid::make_mbarrier(queries(), 1);
      grid::publish_mbarriers();
    }
    grid::barrier();
  }

  FASTSSL_DEVICE void wait_for_queries(uint32_t tile) const { grid::wait_phase(queries(), tile); }
  FASTSSL_DEVICE void wait_for_keys(uint32_t step, int32_t half) const {
    grid::wait_phase(full(step, half), step / kStages);
  }
  FASTSSL_DEVICE void wait_until_read(uint32_t step, int32_t half) const {
    grid::wait_phase(empty(step, half), step / kStages);
  }
  FASTSSL_DEVICE void release(uint32_t step, int32_t half, const WideLane& lane) const {
    if (lane.lane == 0) grid::arrive(empty(step, half));
  }
  // Begins the products of a warpgroup's 64 rows of one tile with all rows of another; both are addresses.
  FASTSSL_DEVICE static void multiply(float (&products)[kTileRows / 2], uint32_t rows, uint32_t others,
                                      const WideLane& lane) {
    const uint64_t a = grid::matrix_along(rows + uint32_t(lane.group()) * kHalf), b = grid::matrix_along(others);
    FASTSSL_UNROLL_ALL
    for (int k = 0; k < kChunks * kChunkHalves / 16; ++k) {
      const uint32_t further = (uint32_t(k / 4) * kTileBytes + uint32_t(k % 4) * 32) / 16;
      grid::multiply_wide(products, a + further, b + further, k > 0);
    }
  }
};

// As ForwardKernel, of which it takes a block's tiles of 128 x 128 pairs.
//
// Launch   strips * segments blocks of 8 warps; 64 products a thread. Of 128 dimensions two blocks fit on a multiprocessor.
// Layout   where the shift is constant, a warpgroup has 64 of a tile's keys as rows and all 128 queries as columns. So the
//          queries' sums stay in registers, 32 a thread, from tile to tile and are joined once, and those of a tile's keys, of
//          two a thread, are joined by four lanes; the warpgroups need nothing of each other. Else it has 64 of the queries as
//          rows: a shift for each of 32 queries would take too many registers.
// Sums     of a thread over 2 keys of each tile, or over 32 queries; of its lanes, of warps: the order is fixed.
template <int kChunks>
struct WideForwardKernel : ForwardWork {
  static constexpr int kThreads = kWideThreads, kBlocks = kChunks > 2 ? 1 : 2;
  using Memory = WideForwardMemory<kChunks>;
  static constexpr int kShared = Memory::kBytes;

  using Products = float[kTileRows / 2];
  using QuerySums = float[kTileRows / 4];
  // Of a thread's two rows: sums of 2^(exponent - shift).
  struct RowSums {
    float sum[2], shift[2];
  };

  FASTSSL_DEVICE void operator()() const {
    const Logits logits = logits_of(problem);
    if (logits.constant && shifted_only) return;
    const Memory memory = Memory::of_block();
    memory.begin(logits.constant ? kWideWarps / kWideGroups : kWideWarps);
    const Columns list = columns_of(logits);
    uint32_t steps = 0;  // that the block has behind it
    for (int32_t tile = list.strip * height; has_row_tile(list, tile); ++tile) {
      if (logits.constant) {
        constant_tile(memory, logits, list, tile, steps);
      } else {
        shifted_tile(memory, logits, list, tile, steps);
      }
    }
  }

  // One thread of each warpgroup copies the warpgroup's half of the keys.
  static FASTSSL_DEVICE bool copies(const WideLane& lane) {
    return lane.warp % (kWideWarps / kWideGroups) == 0 && lane.lane == 0;
  }
  // Begins to copy half of an item's keys to the stage of a step, which is free.
  FASTSSL_DEVICE void copy(const Memory& memory, int32_t tile, uint32_t step, int32_t half) const {
    const uint32_t full = memory.full(step, half), begin = uint32_t(half) * Memory::kHalf;
    const char* const from = problem.key.operand + int64_t(tile) * Memory::kTile + begin;
    grid::arrive_expecting(full, kChunks * Memory::kHalf);
    FASTSSL_UNROLL_ALL
    for (int c = 0; c < kChunks; ++c)
      grid::copy_bulk(memory.keys(step) + begin + c * kTileBytes, from + c * kTileBytes, Memory::kHalf, full);
  }
  // A row tile's queries, and as many items as there are stages. What was there before has been read: a barrier ends each row
  // tile.
  FASTSSL_DEVICE void copy_first(const Memory& memory, const Columns& list, int32_t tile, uint32_t steps,
                                 const WideLane& lane) const {
    if (lane.group() == 0) {
      grid::arrive_expecting(memory.queries(), Memory::kTile);
      grid::copy_bulk(memory.base, problem.query.operand + int64_t(tile) * Memory::kTile, Memory::kTile,
                      memory.queries());
    }
    Item item = Item::first(list);
    for (uint32_t i = 0; i < Memory::kStages && item.there(list); ++i, item.advance(list))
      copy(memory, item.tile, steps + i, lane.group());
  }
  // Behind a step's products: the keys for the step that will have the same stage.
  FASTSSL_DEVICE void copy_next(const Memory& memory, const Columns& list, Item item, uint32_t step,
                                const WideLane& lane) const {
    for (uint32_t i = 0; i < Memory::kStages; ++i) item.advance(list);
    if (!item.there(list)) return;
    memory.wait_until_read(step, lane.group());
    copy(memory, item.tile, step + Memory::kStages, lane.group());
  }

  FASTSSL_DEVICE Tile tile_of(const Columns& list, int32_t tile, const Item& item) const {
    Tile at = tile_at(problem, tile * kTileRows, item.tile * kTileRows);
    if (positives != nullptr) look_for_positives(problem, at, item.distance(list) > 0);
    return at;
  }

  // --- a constant shift ---

  FASTSSL_DEVICE void constant_tile(const Memory& memory, const Logits& logits, const Columns& list, int32_t tile,
                                    uint32_t& steps) const {
    const WideLane lane = wide_lane();
    if (copies(lane)) copy_first(memory, list, tile, steps, lane);
    QuerySums sums;
    FASTSSL_UNROLL_ALL
    for (int j = 0; j < kTileRows / 4; ++j) sums[j] = 0;
    memory.wait_for_queries(uint32_t(tile - list.strip * height));
    FASTSSL_UNROLL(1)
    for (Item item = Item::first(list); item.there(list); item.advance(list)) {
      Products products;
      memory.wait_for_keys(steps, lane.group());
      grid::fence_products();
      Memory::multiply(products, memory.keys(steps), memory.base, lane);
      grid::commit_products();
      const bool plain = tile_of(list, tile, item).plain();  // while the units work
      grid::wait_products();
      grid::pin(products);
      memory.release(steps, lane.group(), lane);
      if (copies(lane)) copy_next(memory, list, item, steps, lane);
      ++steps;
      if (plain) {
        FASTSSL_UNROLL_ALL
        for (int i = 0; i < kTileRows / 2; ++i)
          products[i] = grid::power_of_two(core::fused(products[i], logits.binary, -logits.shift));
      } else {
        look(logits, tile_of(list, tile, item), products);
      }
      FASTSSL_UNROLL_ALL
      for (int j = 0; j < kTileRows / 4; ++j) sums[j] += products[j / 2 * 4 + j % 2] + products[j / 2 * 4 + j % 2 + 2];
      float* const into = columns_into(logits, list, item);
      if (into != nullptr) store_keys(products, into, tile > list.strip * height);
    }
    store_queries(Memory::of_block(), wide_lane_again(), sums, tile);
  }

  // Makes exponentials of a tile's products where some are left out or positives, which are kept.
  FASTSSL_DEVICE void look(const Logits& logits, const Tile& at, Products& products) const {
    const WideLane lane = wide_lane_again();
    if (at.positives) keep_positives<true>(logits, at, lane, products, false);
    if (at.transposed) keep_positives<true>(logits, at, lane, products, true);
    uint32_t mask[2];
    mask_pairs<kTileRows, true>(problem, at, lane, mask);
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < kTileRows / 2; ++i)
      products[i] = mask[i / 2 % 2] >> (i / 4 * 2 + i % 2) & 1u ? core::fused(products[i], logits.binary, -logits.shift)
                                                                : -infinity();
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < kTileRows / 2; ++i) products[i] = grid::power_of_two(products[i]);
  }

  // Sums over the queries, of each of a tile's keys.
  FASTSSL_DEVICE void store_keys(const Products& products, float* into, bool add) const {
    const WideLane lane = wide_lane_again();
    FASTSSL_UNROLL_ALL
    for (int r = 0; r < 2; ++r) {
      float sum[2] = {0, 0};  // two at a time
      FASTSSL_UNROLL_ALL
      for (int j = 0; j < kTileRows / 8; ++j) sum[j % 2] += products[4 * j + 2 * r] + products[4 * j + 2 * r + 1];
      float total = sum[0] + sum[1];
      total += grid::shuffle_xor(total, 1);
      total += grid::shuffle_xor(total, 2);
      float* const to = into + lane.row() + 8 * r;
      if (lane.lane % 4 == 0) *to = add ? *to + total : total;
    }
  }

  // The queries' sums of all warps; the eight lanes that share queries halve what they have to add three times.
  FASTSSL_DEVICE void store_queries(const Memory& memory, const WideLane& lane, QuerySums& sums, int32_t tile) const {
    constexpr int kAll = kTileRows / 4, kLeft = kAll / 8;
    halve<kAll / 2, 16>(sums, lane.lane);
    halve<kAll / 4, 8>(sums, lane.lane);
    halve<kAll / 8, 4>(sums, lane.lane);
    float* const place = memory.sums();
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < kLeft; ++i) {
      const int32_t j = lane.lane / 4 * kLeft + i;
      place[lane.warp * kTileRows + j / 2 * 8 + lane.column() + j % 2] = sums[i];
    }
    grid::barrier();
    const int32_t query = grid::thread();
    if (query < kTileRows) {
      float total = 0;
      FASTSSL_UNROLL_ALL
      for (int warp = 0; warp < kWideWarps; ++warp) total += place[warp * kTileRows + query];
      store_row(tile, query, total, -infinity());
    }
    grid::barrier();
  }

  // --- a shift of each row's own ---

  FASTSSL_DEVICE void shifted_tile(const Memory& memory, const Logits& logits, const Columns& list, int32_t tile,
                                   uint32_t& steps) const {
    const WideLane lane = wide_lane();
    if (copies(lane)) copy_first(memory, list, tile, steps, lane);
    RowSums sums{{0, 0}, {-infinity(), -infinity()}};
    memory.wait_for_queries(uint32_t(tile - list.strip * height));
    FASTSSL_UNROLL(1)
    for (Item item = Item::first(list); item.there(list); item.advance(list)) {
      Products products;
      for (int32_t half = 0; half < kWideGroups; ++half) memory.wait_for_keys(steps, half);
      grid::fence_products();
      Memory::multiply(products, memory.base, memory.keys(steps), lane);
      grid::commit_products();
      const Tile at = tile_of(list, tile, item);
      grid::wait_products();
      grid::pin(products);
      for (int32_t half = 0; half < kWideGroups; ++half) memory.release(steps, half, lane);
      if (copies(lane)) copy_next(memory, list, item, steps, lane);
      ++steps;
      if (at.positives) keep_positives<false>(logits, at, lane, products, false);
      uint32_t mask[2];
      mask_pairs<kTileRows, false>(problem, at, lane, mask);
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < kTileRows / 2; ++i)
        products[i] = mask[i / 2 % 2] >> (i / 4 * 2 + i % 2) & 1u ? products[i] * logits.binary : -infinity();
      add_shifted(products, sums);
    }
    store_rows(logits, sums, tile);
    grid::barrier();
  }

  // Of each of a thread's rows, the product that is its positive; or, `transposed`, that of which the row is the positive. Of
  // queries and keys exchanged where `kKeysAreRows`.
  template <bool kKeysAreRows>
  FASTSSL_DEVICE void keep_positives(const Logits& logits, const Tile& at, const WideLane& lane,
                                     const Products& products, bool transposed) const {
    const int32_t keys = problem.key.count, rows = kKeysAreRows ? keys : problem.query.count;
    const int32_t first_row = kKeysAreRows ? at.column : at.row, first_column = kKeysAreRows ? at.row : at.column;
    FASTSSL_UNROLL_ALL
    for (int r = 0; r < 2; ++r) {
      const int32_t i = first_row + lane.row() + 8 * r;
      if (i >= rows) continue;
      const bool forward = transposed == kKeysAreRows;  // from the query, which i is then, to the key
      const int32_t j =
          forward ? core::positive_of(i, problem.positive, keys) : core::query_of_positive(i, problem.positive, keys);
      if (!forward && j >= problem.query.count) continue;
      float* const to = positives + (forward ? i : j);
      FASTSSL_UNROLL_ALL
      for (int n = 0; n < kTileRows / 4; ++n) {
        if (j == first_column + lane.column() + n / 2 * 8 + n % 2)
          *to = products[n / 2 * 4 + 2 * r + n % 2] * logits.value;
      }
    }
  }

  // Sums whose shift grows with the largest exponent that was met.
  FASTSSL_DEVICE void add_shifted(const Products& exponents, RowSums& sums) const {
    FASTSSL_UNROLL_ALL
    for (int r = 0; r < 2; ++r) {
      float largest = sums.shift[r];
      FASTSSL_UNROLL_ALL
      for (int j = 0; j < kTileRows / 8; ++j)
        largest = core::larger(largest, core::larger(exponents[4 * j + 2 * r], exponents[4 * j + 2 * r + 1]));
      const float shift = largest == -infinity() ? 0 : largest;
      float sum = 0;
      FASTSSL_UNROLL_ALL
      for (int j = 0; j < kTileRows / 8; ++j)
        sum += grid::power_of_two(exponents[4 * j + 2 * r] - shift) +
               grid::power_of_two(exponents[4 * j + 2 * r + 1] - shift);
      sums.sum[r] = core::fused(sums.sum[r], grid::power_of_two(sums.shift[r] - shift), sum);
      sums.shift[r] = largest;
    }
  }

  FASTSSL_DEVICE void store_rows(const Logits& logits, const RowSums& sums, int32_t tile) const {
    const WideLane lane = wide_lane();
    FASTSSL_UNROLL_ALL
    for (int r = 0; r < 2; ++r) {
      float sum = sums.sum[r], shift = sums.shift[r];
      FASTSSL_UNROLL_ALL
      for (int mask = 1; mask <= 2; mask *= 2) {
        const float other = grid::shuffle_xor(sum, mask), other_shift = grid::shuffle_xor(shift, mask);
        add_sums(logits, sum, shift, other, other_shift);
      }
      if (lane.lane % 4 == 0) store_row(tile, lane.row() + 8 * r, sum, shift);
    }
  }
};

// As FusedKernel: logits again, weights from them (Note [Weights]), and their product with the keys.
//
// Layout   a thread has products of 64 queries with a step's keys, 64 or 32, weights of them, half as many registers, and sums
//          of the queries' gradients, 64 or 128.
// Launch   query tiles * splits blocks of 8 warps, one on a multiprocessor.
// Order    the products of a step's weights with its keys are begun together with those of the queries with the next step's
//          keys; behind both come the other warpgroup's, meanwhile.
template <int kChunks>
struct WideFusedKernel : FusedWork {
  static constexpr int kThreads = kWideThreads, kBlocks = 1;
  static constexpr int kDim = kChunks * kChunkHalves, kKeys = wide_keys(kChunks);
  static constexpr int kStages = 4;
  using Memory = WideMemory<kChunks, kKeys, kStages>;
  static constexpr uint32_t kWeightBytes = kKeys * sizeof(float);
  static constexpr int kOthers = kStages * int(kWeightBytes);  // the keys' weights
  static constexpr int kShared = Memory::bytes(kOthers);

  using Products = float[kKeys / 2];
  using Pairs = uint32_t[kKeys / 16][4];  // weights, as fragments of A
  using Gradient = float[kDim / kTileRows][kTileRows / 2];

  FASTSSL_DEVICE void operator()() const {
    const Memory memory = Memory::of_block(kOthers);
    const WideLane lane = wide_lane();
    memory.begin(lane);
    PairWeights own = weights;
    own.logits = logits_of(problem);
    const int32_t first_key = begin() * kKeys, row = tile() * kTileRows;
    const auto count = uint32_t(end() - begin());
    const float row_weight[2] = {own.row_weight[row + lane.row()], own.row_weight[row + lane.row() + 8]};
    Gradient gradient;
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < kDim / 2; ++i) gradient[i / (kTileRows / 2)][i % (kTileRows / 2)] = 0;
    if (lane.copies()) {
      for (uint32_t step = 0; step < kStages && step < count; ++step) copy(memory, first_key, step);
    }
    if (count > 0) {
      Products products;
      Pairs pairs;
      memory.wait_for_keys(0);
      memory.take_turn(0, lane);
      grid::fence_products();
      memory.multiply(products, 0, lane);
      grid::commit_products();
      memory.pass_turn(lane);
      Tile at = tile_of(row, first_key);
      grid::wait_products();
      grid::pin(products);
      for (uint32_t step = 0; step < count; ++step) {
        pair_up(memory, own, lane, at, row_weight, products, pairs, step);
        // Behind the last step its own products once more, for nobody: in a branch the compiler would wait for each product.
        const uint32_t next = step + 1 < count ? step + 1 : step;
        memory.wait_for_keys(next);
        memory.take_turn(step + 1, lane);
        grid::pin(pairs);  // what was computed is there before the fence
        grid::pin(products);
        grid::pin(gradient);
        grid::fence_products();
        add_product(memory, gradient, pairs, step);
        memory.multiply(products, next, lane);
        grid::commit_products();
        memory.pass_turn(lane);
        at = tile_of(row, first_key + int32_t(next) * kKeys);  // while the units work
        grid::wait_products();
        grid::pin(products);
        grid::pin(gradient);
        grid::pin(pairs);
        memory.release(step, lane);
        if (lane.copies() && step + kStages < count) {
          memory.wait_until_read(step);
          copy(memory, first_key, step + kStages);
        }
      }
    }
    store(gradient, lane);
  }

  // Begins to copy a step's keys and their weights to a stage that has been read; with the first, the queries.
  FASTSSL_DEVICE void copy(const Memory& memory, int32_t first_key, uint32_t step) const {
    const uint32_t full = memory.full(step);
    grid::arrive_expecting(full, Memory::kStage + kWeightBytes + (step == 0 ? Memory::kQueries : 0));
    if (step == 0)
      grid::copy_bulk(memory.base, problem.query.operand + int64_t(tile()) * Memory::kQueries, Memory::kQueries, full);
    const int32_t key = first_key + int32_t(step) * kKeys;
    const char* const from =
        problem.key.operand + int64_t(key / kTileRows) * Memory::kQueries + key % kTileRows * kChunkBytes;
    if constexpr (kKeys == kTileRows) {  // a tile is one piece
      grid::copy_bulk(memory.keys(step), from, Memory::kStage, full);
    } else {
      FASTSSL_UNROLL_ALL
      for (int c = 0; c < kChunks; ++c)
        grid::copy_bulk(memory.keys(step) + c * Memory::kBlock, from + c * kTileBytes, Memory::kBlock, full);
    }
    grid::copy_bulk(memory.base + Memory::kOthersAt + step % kStages * kWeightBytes, weights.column_weight + key,
                    kWeightBytes, full);
  }

  // Begins the products of the weights with their keys, whose rows are the terms of the sum.
  FASTSSL_DEVICE void add_product(const Memory& memory, Gradient& gradient, const Pairs& pairs, uint32_t step) const {
    const uint64_t keys = grid::matrix_across(memory.keys(step), Memory::kBlock);
    constexpr uint32_t kTerms = 16 * kChunkBytes, kColumns = kTileRows / kChunkHalves * Memory::kBlock;
    FASTSSL_UNROLL_ALL
    for (int k = 0; k < kKeys / 16; ++k) {
      FASTSSL_UNROLL_ALL
      for (int n = 0; n < kDim / kTileRows; ++n)
        grid::multiply_across(gradient[n], pairs[k], keys + (uint32_t(n) * kColumns + uint32_t(k) * kTerms) / 16);
    }
  }

  FASTSSL_DEVICE Tile tile_of(int32_t row, int32_t key) const {
    Tile at = tile_at(problem, row, key, kKeys, problem.query.id_ranges + row / kTileRows,
                      problem.key.id_ranges + key / kTileRows);
    at.edge = key + kKeys > problem.key.count;  // rows beyond the last query stay by themselves
    return at;
  }

  // Weights of the products, as the fragments of A that they are of the second product.
  FASTSSL_DEVICE void pair_up(const Memory& memory, const PairWeights& own, const WideLane& lane, const Tile& at,
                              const float (&row_weight)[2], Products& products, Pairs& pairs, uint32_t step) const {
    const auto* const column_weight =
        reinterpret_cast<const TwoWeights*>(memory.at(Memory::kOthersAt + step % kStages * kWeightBytes)) +
        lane.column() / 2;
    weigh_pairs<kKeys>(problem, own, lane, at, row_weight, column_weight, products);
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < kKeys / 4; ++i) pairs[i / 4][i % 4] = grid::pack_halves(products[2 * i], products[2 * i + 1]);
  }

  FASTSSL_DEVICE void store(const Gradient& gradient, const WideLane& lane) const {
    FASTSSL_UNROLL_ALL
    for (int r = 0; r < 2; ++r) {
      const int64_t row = (int64_t(split()) * problem.query.tiles + tile()) * kTileRows + lane.row() + 8 * r;
      float* const to = partial + row * kDim + lane.column();
      FASTSSL_UNROLL_ALL
      for (int j = 0; j < kDim / 8; ++j) {
        FASTSSL_UNROLL_ALL
        for (int e = 0; e < 2; ++e)
          to[8 * j + e] = (add ? to[8 * j + e] : 0) + gradient[j / 16][j % 16 * 4 + 2 * r + e];
      }
    }
  }
};

}  // namespace
}  // namespace fastssl::cuda
