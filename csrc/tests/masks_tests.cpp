// Every job of masks, by the host and by the emulated kernels, on memory of just the right size.
#include <algorithm>
#include <vector>

#include "cpu/masks.h"
#include "cuda/emulator.h"
#include "cuda/masks.h"
#include "tests/check.h"

using namespace fastssl;

namespace {

constexpr int64_t kSamples = 5;

template <typename T>
using Memory = std::vector<T>;

// Runs `draw` for the host and for the emulator, and compares what they leave in the memory they return.
template <typename F>
void same(const F& draw) {
  const auto expected = draw([](const core::MaskJob& job) { cpu::draw_masks(job, 2); });
  for (const auto order : {cuda::emulator::Order::Forward, cuda::emulator::Order::Shuffled}) {
    cuda::emulator::set_order(order);
    CHECK(draw([](const core::MaskJob& job) { cuda::draw_masks_emulated(job); }) == expected);
  }
  cuda::emulator::set_order(cuda::emulator::Order::Forward);
}

size_t cells(int64_t rows, int64_t columns) { return size_t(kSamples * rows * columns); }

void test_cells(const core::MaskKeys& keys, const core::CellGrid& grid, int kept) {
  const int n = grid.rows * grid.columns, square = grid.side * grid.side;
  Memory<uint64_t> scratch(size_t(kSamples * cuda::rank_scratch(n)) / sizeof(uint64_t));
  same([&](const auto& run) {
    Memory<uint8_t> out(cells(n, square), 7);
    run(core::CellsJob{keys, grid, kept, out.data(), scratch.data()});
    CHECK(std::count(out.begin(), out.end(), 0) == kSamples * kept * square);
    return out;
  });
  same([&](const auto& run) {
    Memory<int64_t> keep(cells(1, 2 + kept * square), -1), masked(cells(1, (n - kept) * square), -1);
    run(core::TokensJob{keys, grid, kept, 2, keep.data(), masked.data(), scratch.data()});
    keep.insert(keep.end(), masked.begin(), masked.end());
    CHECK(std::count(keep.begin(), keep.end(), -1) == 0);
    return keep;
  });
}

void test_grid(const core::MaskKeys& keys, int rows, int columns) {
  const int n = rows * columns;
  Memory<uint32_t> scratch(size_t(kSamples * cuda::bits_scratch(rows, columns)) / sizeof(uint32_t));
  for (const bool roll : {false, true}) {
    const core::InverseBlockRules rules = core::inverse_block_rules(rows, columns, n / 3, 0.5, 2.0, roll);
    same([&](const auto& run) {
      Memory<uint8_t> out(cells(rows, columns), 7);
      run(core::InverseBlockJob{keys, rules, true, out.data()});
      CHECK(std::count(out.begin(), out.end(), 1) == kSamples * (n / 3));
      return out;
    });
  }
  for (const bool exact : {false, true}) {
    Memory<int64_t> counts(kSamples);
    same([&](const auto& run) {
      Memory<int64_t> order(kSamples);
      run(core::CountsJob{keys, {0.1, 0.6, 0.7, n, exact}, counts.data(), order.data()});
      return counts;
    });
    same([&](const auto& run) {
      Memory<uint8_t> out(cells(rows, columns), 7);
      const core::BlockRules rules{rows, columns, 28, 2, 1 << 30, core::log_uniform(0.3, 3.0), 10};
      run(core::BlocksJob{keys, rules, counts.data(), out.data(), scratch.data()});
      CHECK(*std::max_element(out.begin(), out.end()) <= 1);
      return out;
    });
  }
  core::MultiBlockRules rules;
  rules.rows = rules.room_rows = rows;
  rules.columns = rules.room_columns = columns;
  rules.context_height = rows;
  rules.context_width = (columns + 1) / 2;
  rules.target_height = (rows + 1) / 2;
  rules.target_width = columns;
  rules.contexts = 2;
  rules.targets = 3;
  rules.least = n / 4;
  same([&](const auto& run) {
    Memory<uint8_t> contexts(cells(2 * rows, columns), 7), targets(cells(3 * rows, columns), 7);
    run(core::MultiBlockJob{keys, rules, contexts.data(), targets.data(), scratch.data()});
    contexts.insert(contexts.end(), targets.begin(), targets.end());
    CHECK(*std::max_element(contexts.begin(), contexts.end()) == 1);
    return contexts;
  });
}

void test_lengths(const core::MaskKeys& keys, int length) {
  Memory<uint8_t> mask(cells(1, length), 7);
  same([&](const auto& run) {
    run(core::PrefixJob{keys, length, length / 2, length + 1, mask.data()});
    return mask;
  });
  for (size_t i = 0; i < mask.size(); ++i) mask[i] = Memory<uint8_t>{0, 1, 2, 255}[noise(uint32_t(i)) & 3];
  for (const int count : {0, length / 2, length}) {
    for (const bool with_rest : {false, true}) {
      same([&](const auto& run) {
        Memory<int64_t> first(cells(1, 3 + count), -1), rest(cells(1, length - count), -1);
        run(core::PartitionJob{mask.data(), kSamples, length, count, 3, first.data(),
                               with_rest ? rest.data() : nullptr});
        first.insert(first.end(), rest.begin(), rest.end());
        CHECK(with_rest || std::count(first.begin(), first.end(), -1) == kSamples * (length - count));
        return first;
      });
    }
  }
  int64_t least = length;
  for (int64_t row = 0; row < kSamples; ++row) {
    const auto begin = mask.begin() + row * length;
    least = std::min<int64_t>(least, length - std::count(begin, begin + length, 0));
  }
  CHECK(cpu::least_set(mask.data(), kSamples, length) == least);
}

}  // namespace

void test_masks() {
  const Memory<int64_t> indices{0, 7, 7, int64_t(1) << 40, INT64_MAX};
  const core::MaskKeys keys{indices.data(), kSamples, 3, 1, core::kMaskStream};
  for (const int side : {1, 3}) {
    test_cells(keys, {1, 1, side}, 1);
    test_cells(keys, {14, 14, side}, 49);
    test_cells(keys, {5, 33, side}, 160);
  }
  test_cells(keys, {65, 64, 1}, 1000);  // beyond shared memory
  test_grid(keys, 3, 3);
  test_grid(keys, 14, 14);
  test_grid(keys, 5, 70);
  test_grid(keys, 8200, 2);  // beyond shared memory
  for (const int length : {1, 7, 8, 196, 1000}) test_lengths(keys, length);
}
