// The products of the contrastive kernels by wgmma and bulk copies, for float16 operands of 128 and 256 padded dimensions.
//
// Part of contrastive_launch.h; compute capability 9.0 alone. What is computed, and in which order it is added up, is
// ForwardKernel's and FusedKernel's; how products and copies are waited for is in wide.h, Note [Wide products].
//
// Note [Wide blocks]
//     A block has 128 queries, whose operands stay in shared memory. Two warpgroups have 64 of them each and take the same
//     keys, step by step, from a ring of stages. Operands lie in global memory as shared memory is to have them, tile by tile
//     and in each chunk by chunk (OperandKernel), so that a copy is of one piece and no tensor map is needed. Of each stage
//     an mbarrier `full` tells that its bytes have come, and one `empty` that all eight warps have read it.
//         What a warpgroup does with its products in registers, exponentials above all, should hide behind the products of the
//     other. So they begin them in turns: one begins its products, then the other; the units take them in that order, and
//     while the second's are made the first has its own to work on. Nobody has to wait for the end of anything but its
//     own products. A turn also bounds how far the warpgroups are apart: less than two steps, on which the forward
//     pass's sums over columns rely.
//         One thread of the second warpgroup begins the copies: it comes last, so that when it is through with a step the
//     other warpgroup has read the stage as well, and it fills it again at once. A warp of its own for that would be a third
//     one in one of a multiprocessor's four parts, and leave every thread 168 registers instead of 255 (of two blocks, 96
//     instead of 128): all of these kernels would spill.
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

// Which of a thread's pairs are allowed: of each of its two rows, a bit a column. In a loop that is not unrolled, since it
// takes registers that products need, and few tiles need it.
template <int kColumns>
FASTSSL_DEVICE void mask_pairs(const Problem& problem, const Tile& at, const WideLane& lane, uint32_t (&mask)[2]) {
  mask[0] = mask[1] = at.masked() ? 0 : ~0u;
  FASTSSL_UNROLL(1)
  for (int32_t i = 0; at.masked() && i < kColumns / 4; ++i) {
    const int32_t column = at.column + lane.column() + i / 2 * 8 + i % 2;
    FASTSSL_UNROLL_ALL
    for (int r = 0; r < 2; ++r) mask[r] |= uint32_t(allowed(problem, at, at.row + lane.row() + 8 * r, column)) << i;
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
  static constexpr int bytes(int others) { return int(kOthersAt) + others + (kMbarriers + 2) * 8 + int(kAtomBytes); }

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
  FASTSSL_DEVICE uint32_t more(uint32_t number) const { return mbarriers + (kMbarriers + number) * 8; }

  // All threads of a block, before anything else. The first turn is the first warpgroup's.
  FASTSSL_DEVICE void begin(const WideLane& lane) const {
    if (grid::thread() == 0) {
      for (uint32_t i = 0; i < kStages; ++i) {
        grid::make_mbarrier(full(i), 1);
        grid::make_mbarrier(empty(i), kWideWarps);
      }
      for (int32_t i = 0; i < kWideGroups; ++i) grid::make_mbarrier(turn(i), 4);
      for (uint32_t i = 0; i < 2; ++i) grid::make_mbarrier(more(i), kWideWarps);
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

// As ForwardKernel, of which it takes a block's tiles of 128 x 128 pairs.
//
// Launch   strips * segments blocks of 8 warps; 64 products a thread. Of 128 dimensions two blocks fit on a multiprocessor.
// Sums     of a thread over 32 columns of a tile, of a tile's 8 x 16 rows: the order is fixed. Of its columns warps leave the
//          sums over 16 rows each in shared memory, in one place of two, and the second warpgroup adds them up. It does so
//          before it begins its next products, without which the first one does not begin those that it will write the same
//          place after.
template <int kChunks>
struct WideForwardKernel : ForwardWork {
  static constexpr int kThreads = kWideThreads, kBlocks = kChunks > 2 ? 1 : 2;
  using Memory = WideMemory<kChunks, kTileRows, 2>;
  static constexpr int kPlaces = kWideWarps * kTileRows;  // floats of the sums over columns, once
  static constexpr int kOthers = 2 * kPlaces * int(sizeof(float));
  static constexpr int kShared = Memory::bytes(kOthers);

  using Products = float[kTileRows / 2];
  // Of a thread's two rows: sums of 2^(exponent - shift).
  struct RowSums {
    float sum[2], shift[2];
  };
  // How many steps, and how many of them with sums over columns, the block has behind it.
  struct Count {
    uint32_t steps = 0, summed = 0;
  };

  FASTSSL_DEVICE void operator()() const {
    const Logits logits = logits_of(problem);
    if (logits.constant && shifted_only) return;
    const Memory memory = Memory::of_block(kOthers);
    memory.begin(wide_lane());
    const Columns list = columns_of(logits);
    Count count;
    for (int32_t tile = list.strip * height; has_row_tile(list, tile); ++tile)
      row_tile(memory, logits, list, tile, count);
  }

  // Begins to copy the keys of an item to the stage of a step, or of one that is as many steps behind it as there are stages.
  FASTSSL_DEVICE void copy(const Memory& memory, const Columns& list, int32_t item, uint32_t step) const {
    grid::copy_bulk(memory.keys(step), problem.key.operand + int64_t(list.tile(item)) * Memory::kStage, Memory::kStage,
                    memory.full(step));
  }
  // A row tile's queries, and as many items as there are stages. Returns the item that comes next.
  FASTSSL_DEVICE int32_t copy_first(const Memory& memory, const Columns& list, int32_t tile, uint32_t step) const {
    int32_t item = list.next(list.begin);
    if (step > 0) memory.wait_until_read(step - 1);
    for (uint32_t i = 0; i < Memory::kDepth && item < list.end; ++i) {
      grid::arrive_expecting(memory.full(step + i), Memory::kStage + (i == 0 ? Memory::kQueries : 0));
      if (i == 0)
        grid::copy_bulk(memory.base, problem.query.operand + int64_t(tile) * Memory::kQueries, Memory::kQueries,
                        memory.full(step));
      copy(memory, list, item, step + i);
      item = list.next(item + 1);
    }
    return item;
  }

  FASTSSL_DEVICE void row_tile(const Memory& memory, const Logits& logits, const Columns& list, int32_t tile,
                               Count& count) const {
    const WideLane lane = wide_lane();
    RowSums sums{{0, 0}, {-infinity(), -infinity()}};
    int32_t ahead = lane.copies() ? copy_first(memory, list, tile, count.steps) : list.end;
    for (int32_t item = list.next(list.begin); item < list.end; item = list.next(item + 1)) {
      Tile at = tile_at(problem, tile * kTileRows, list.tile(item) * kTileRows);
      if (positives != nullptr) look_for_positives(problem, at, list.distance(item) > 0);
      Products products;
      memory.wait_for_keys(count.steps);
      memory.take_turn(count.steps, lane);
      grid::fence_products();
      memory.multiply(products, count.steps, lane);
      grid::commit_products();
      memory.pass_turn(lane);
      grid::wait_products();
      grid::pin(products);
      memory.release(count.steps, lane);
      if (ahead < list.end) {  // of one thread
        memory.wait_until_read(count.steps);
        grid::arrive_expecting(memory.full(count.steps), Memory::kStage);
        copy(memory, list, ahead, count.steps);
        ahead = list.next(ahead + 1);
      }
      ++count.steps;
      add_tile(logits, at, products, sums);
      float* const into = columns_into(logits, list, item, at.column);
      if (into != nullptr) store_columns(memory, lane, products, into, tile > list.strip * height, count.summed++);
    }
    store_rows(logits, list, sums, tile);
  }

  // Takes a tile's products into the sums over rows; where the shift is constant, makes exponentials of them.
  FASTSSL_DEVICE void add_tile(const Logits& logits, const Tile& at, Products& products, RowSums& sums) const {
    if (logits.constant && !at.masked() && !at.positives && !at.transposed) {
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < kTileRows / 2; ++i)
        products[i] = grid::power_of_two(core::fused(products[i], logits.binary, -logits.shift));
    } else {
      const WideLane lane = wide_lane();
      if (at.positives) keep_positives(logits, at, lane, products, false);
      if (at.transposed) keep_positives(logits, at, lane, products, true);
      uint32_t mask[2];
      mask_pairs<kTileRows>(problem, at, lane, mask);
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < kTileRows / 2; ++i)
        products[i] = mask[i / 2 % 2] >> (i / 4 * 2 + i % 2) & 1u ? products[i] * logits.binary : -infinity();
      if (!logits.constant) return add_shifted(products, sums);
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < kTileRows / 2; ++i) products[i] = grid::power_of_two(products[i] - logits.shift);
    }
    FASTSSL_UNROLL_ALL
    for (int r = 0; r < 2; ++r) {
      float sum = 0;
      FASTSSL_UNROLL_ALL
      for (int j = 0; j < kTileRows / 8; ++j) sum += products[4 * j + 2 * r] + products[4 * j + 2 * r + 1];
      sums.sum[r] += sum;
    }
  }

  // Of each of a thread's rows, the product that is its positive; or, `transposed`, that of which the row is the positive.
  FASTSSL_DEVICE void keep_positives(const Logits& logits, const Tile& at, const WideLane& lane,
                                     const Products& products, bool transposed) const {
    const int32_t keys = problem.key.count;
    FASTSSL_UNROLL_ALL
    for (int r = 0; r < 2; ++r) {
      const int32_t i = at.row + lane.row() + 8 * r;
      if (i >= problem.query.count) continue;
      const int32_t j = transposed ? core::query_of_positive(i, problem.positive, keys)
                                   : core::positive_of(i, problem.positive, keys);
      float* const to = positives + (transposed ? j : i);
      FASTSSL_UNROLL_ALL
      for (int n = 0; n < kTileRows / 4; ++n) {
        if (j == at.column + lane.column() + n / 2 * 8 + n % 2)
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

  // Sums over the tile's rows, of each of its columns: the eight lanes that share columns halve what they have to add three
  // times. `number` counts the tiles that had such sums.
  FASTSSL_DEVICE void store_columns(const Memory& memory, const WideLane& lane, const Products& products, float* into,
                                    bool add, uint32_t number) const {
    constexpr int kAll = kTileRows / 4, kLeft = kAll / 8;
    float sum[kAll];
    FASTSSL_UNROLL_ALL
    for (int j = 0; j < kAll; ++j) sum[j] = products[j / 2 * 4 + j % 2] + products[j / 2 * 4 + j % 2 + 2];
    halve<kAll / 2, 16>(sum, lane.lane);
    halve<kAll / 4, 8>(sum, lane.lane);
    halve<kAll / 8, 4>(sum, lane.lane);
    auto* const place = reinterpret_cast<float*>(memory.at(Memory::kOthersAt)) + number % 2 * kPlaces;
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < kLeft; ++i) {
      const int32_t j = lane.lane / 4 * kLeft + i;
      place[lane.warp * kTileRows + j / 2 * 8 + lane.column() + j % 2] = sum[i];
    }
    grid::join_warp();
    if (lane.lane == 0) grid::arrive(memory.more(number % 2));
    if (lane.group() == 0) return;
    grid::wait_phase(memory.more(number % 2), number / 2);
    const int32_t column = grid::thread() % kTileRows;
    float total = 0;
    FASTSSL_UNROLL_ALL
    for (int warp = 0; warp < kWideWarps; ++warp) total += place[warp * kTileRows + column];
    into[column] = add ? into[column] + total : total;
  }

  FASTSSL_DEVICE void store_rows(const Logits& logits, const Columns& list, const RowSums& sums, int32_t tile) const {
    const WideLane lane = wide_lane();
    FASTSSL_UNROLL_ALL
    for (int r = 0; r < 2; ++r) {
      float sum = sums.sum[r], shift = sums.shift[r];
      FASTSSL_UNROLL_ALL
      for (int mask = 1; mask <= 2; mask *= 2) {
        const float other = grid::shuffle_xor(sum, mask), other_shift = grid::shuffle_xor(shift, mask);
        add_sums(logits, sum, shift, other, other_shift);
      }
      if (lane.lane % 4 == 0) store_row(list, tile, lane.row() + 8 * r, sum, shift);
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
    Gradient gradient;
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < kDim / 2; ++i) gradient[i / (kTileRows / 2)][i % (kTileRows / 2)] = 0;
    if (lane.copies()) {
      for (uint32_t step = 0; step < kStages && step < count; ++step) copy(memory, step);
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
      grid::wait_products();
      grid::pin(products);
      for (uint32_t step = 0; step < count; ++step) {
        pair_up(memory, own, lane, row, first_key + int32_t(step) * kKeys, products, pairs, step);
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
        grid::wait_products();
        grid::pin(products);
        grid::pin(gradient);
        grid::pin(pairs);
        memory.release(step, lane);
        if (lane.copies() && step + kStages < count) {
          memory.wait_until_read(step);
          copy(memory, step + kStages);
        }
      }
    }
    store(gradient, lane);
  }

  // Begins to copy a step's keys and their weights to a stage that has been read; with the first, the queries.
  FASTSSL_DEVICE void copy(const Memory& memory, uint32_t step) const {
    const uint32_t full = memory.full(step);
    grid::arrive_expecting(full, Memory::kStage + kWeightBytes + (step == 0 ? Memory::kQueries : 0));
    if (step == 0)
      grid::copy_bulk(memory.base, problem.query.operand + int64_t(tile()) * Memory::kQueries, Memory::kQueries, full);
    const int64_t key = int64_t(begin() + int32_t(step)) * kKeys;
    const char* const from = problem.key.operand + key / kTileRows * Memory::kQueries + key % kTileRows * kChunkBytes;
    FASTSSL_UNROLL_ALL
    for (int c = 0; c < kChunks; ++c)
      grid::copy_bulk(memory.keys(step) + c * Memory::kBlock, from + c * kTileBytes, Memory::kBlock, full);
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

  // Weights of the products, as the fragments of A that they are of the second product.
  FASTSSL_DEVICE void pair_up(const Memory& memory, const PairWeights& own, const WideLane& lane, int32_t row,
                              int32_t key, Products& products, Pairs& pairs, uint32_t step) const {
    Tile at = tile_at(problem, row, key, kKeys, problem.query.id_ranges + row / kTileRows,
                      problem.key.id_ranges + key / kTileRows);
    at.edge = key + kKeys > problem.key.count;  // rows beyond the last query stay by themselves
    const int32_t query = row + lane.row();
    const float row_weight[2] = {own.row_weight[query], own.row_weight[query + 8]};
    const auto* const column_weight =
        reinterpret_cast<const float*>(memory.at(Memory::kOthersAt + step % kStages * kWeightBytes)) + lane.column();
    if (own.logits.constant && !at.masked()) {
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < kKeys / 2; ++i)
        products[i] = own.plain(products[i], row_weight[i / 2 % 2], column_weight[i / 4 * 8 + i % 2]);
    } else {
      uint32_t mask[2];
      mask_pairs<kKeys>(problem, at, lane, mask);
      const float row_shift[2] = {own.row_shift[query], own.row_shift[query + 8]};
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < kKeys / 2; ++i) {
        if (i % 4 == 0) grid::warp_barrier();
        const int column = i / 4 * 8 + i % 2, r = i / 2 % 2;
        const float v = own.logits.constant
                            ? own.plain(products[i], row_weight[r], column_weight[column])
                            : own.shifted(products[i], row_weight[r], row_shift[r], column_weight[column],
                                          own.column_shift[key + lane.column() + column]);
        products[i] = mask[r] >> (i / 4 * 2 + i % 2) & 1u ? v : 0;
      }
    }
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
