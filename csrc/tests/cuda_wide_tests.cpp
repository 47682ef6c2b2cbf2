// The emulator's mbarriers, bulk copies and wgmma, through the functions that kernels call: what they compute, and that what a
// GPU would do wrong is an error.
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "core/cast.h"
#include "cuda/emulator.h"
#include "cuda/wide.h"
#include "tests/check.h"

using namespace fastssl;
using namespace fastssl::cuda;

namespace {

constexpr uint32_t kBase = 1152;  // of shared memory: a multiple of 128 and of no more
constexpr uint32_t kFirst = 2048;  // the first multiple of 1024 in it
constexpr int kBytes = 96 * 1024;
constexpr int kGroup = 128;

uint16_t half(float v) { return core::to_float16(v); }
float number(uint32_t i) { return float(int32_t(noise(i) >> 8) - (1 << 23)) * 0x1p-23f; }

char* shared_at(uint32_t address) { return emulator::shared() + (address - kBase); }

// The number `column` of row `row`, in blocks of `block` bytes for 64 columns each, that begin at `at`.
uint32_t place(uint32_t at, uint32_t block, int row, int column) {
  return at + uint32_t(column) / 64 * block + uint32_t(row) * 128 +
         ((uint32_t(column) % 64 / 8) ^ (uint32_t(row) % 8)) * 16 + uint32_t(column) % 8 * 2;
}

void put(uint32_t address, float v) {
  const uint16_t bits = half(v);
  std::memcpy(shared_at(address), &bits, 2);
}

// What the machine says is wrong with a block; "" where nothing is.
template <typename F>
std::string said(int threads, const F& body) {
  std::string what;
  emulator::set_shared_base(kBase);
  try {
    emulator::run(1, threads, kBytes, body);
  } catch (const std::logic_error& error) {
    what = error.what();
  }
  emulator::set_shared_base(0);
  return what;
}
bool has(const std::string& what, const char* part) { return what.find(part) != std::string::npos; }

struct Numbers {
  float a[64][32], b[128][32];  // [row or column][term]
  Numbers() {
    for (uint32_t i = 0; i < 64 * 32; ++i) a[i / 32][i % 32] = emulator::half_value(half(number(i)));
    for (uint32_t i = 0; i < 128 * 32; ++i) b[i / 32][i % 32] = emulator::half_value(half(number(5000 + i)));
  }
  bool near(const float (&found)[64][128], int columns, float start) const {
    for (int i = 0; i < 64; ++i) {
      for (int j = 0; j < columns; ++j) {
        double sum = double(start);
        for (int k = 0; k < 32; ++k) sum += double(a[i][k]) * double(b[j][k]);
        if (!(std::fabs(double(found[i][j]) - sum) <= 0x1p-18)) return false;
      }
    }
    return true;
  }
};

// Of a thread's sums, the row and column of number i.
int row_of(int i) { return emulator::thread() / 32 * 16 + emulator::thread() % 32 / 4 + i / 2 % 2 * 8; }
int column_of(int i) { return i / 4 * 8 + emulator::thread() % 4 * 2 + i % 2; }

// 32 terms, the third and fourth 16 of a block's row, whose other numbers are not to be read.
template <int kCount>
void check_along() {
  const Numbers numbers;
  float found[64][128];
  const std::string what = said(kGroup, [&] {
    const uint32_t at_b = kFirst + 64 * 128;
    if (emulator::thread() == 0) {
      for (int k = 0; k < 32; ++k) {
        for (int i = 0; i < 64; ++i) put(place(kFirst, 0, i, 32 + k), numbers.a[i][k]);
        for (int j = 0; j < 2 * kCount; ++j) put(place(at_b, 0, j, 32 + k), numbers.b[j][k]);
      }
    }
    emulator::barrier();
    float sums[kCount];
    for (float& sum : sums) sum = 7;
    grid::fence_products();
    for (uint32_t k = 2; k < 4; ++k)
      grid::multiply_wide(sums, grid::matrix_along(kFirst) + 2 * k, grid::matrix_along(at_b) + 2 * k, k > 2);
    CHECK(std::isnan(sums[0]));
    grid::commit_products();
    grid::wait_products();
    for (int i = 0; i < kCount; ++i) found[row_of(i)][column_of(i)] = sums[i];
  });
  CHECK(what.empty());
  CHECK(numbers.near(found, 2 * kCount, 0));
}

// A in registers; rows of B are terms, 128 numbers in two blocks.
void check_across() {
  const Numbers numbers;
  float found[64][128];
  const std::string what = said(kGroup, [&] {
    constexpr uint32_t kBlock = 64 * 128;
    if (emulator::thread() == 0) {
      for (int k = 0; k < 32; ++k) {
        for (int j = 0; j < 128; ++j) put(place(kFirst, kBlock, 16 + k, j), numbers.b[j][k]);
      }
    }
    emulator::barrier();
    float sums[64];
    uint32_t a[2][4];
    for (int k = 0; k < 2; ++k) {
      for (int e = 0; e < 4; ++e) {
        const float* const row = numbers.a[row_of(2 * e)] + 16 * k + e / 2 * 8 + emulator::thread() % 4 * 2;
        a[k][e] = grid::pack_halves(row[0], row[1]);
      }
    }
    for (float& sum : sums) sum = 3;
    grid::fence_products();
    for (uint32_t k = 0; k < 2; ++k)
      grid::multiply_across(sums, a[k], grid::matrix_across(kFirst + (k + 1) * 2048, kBlock));
    grid::commit_products();
    grid::wait_products();
    for (int i = 0; i < 64; ++i) found[row_of(i)][column_of(i)] = sums[i];
  });
  CHECK(what.empty());
  CHECK(numbers.near(found, 128, 3));
}

// Both in shared memory, B's rows terms; A's rows along the sum, or terms as well. What threads copied there is published first.
template <bool kLeftAcross>
void check_terms() {
  const Numbers numbers;
  float found[64][128];
  constexpr uint32_t kBlock = 64 * 128, kRight = kFirst + kBlock;
  alignas(16) static char from[16];
  const auto run = [&](bool publishes) {
    return said(kGroup, [&] {
      grid::copy_async(kRight + 2 * kBlock, from);
      grid::commit_copies();
      grid::wait_copies<0>();
      if (publishes) grid::publish_shared();
      if (emulator::thread() == 0) {
        for (int k = 0; k < 32; ++k) {
          for (int i = 0; i < 64; ++i)
            put(kLeftAcross ? place(kFirst, 0, 16 + k, i) : place(kFirst, 0, i, 16 + k), numbers.a[i][k]);
          for (int j = 0; j < 128; ++j) put(place(kRight, kBlock, 16 + k, j), numbers.b[j][k]);
        }
      }
      emulator::barrier();
      float sums[64];
      for (float& sum : sums) sum = 3;
      grid::fence_products();
      for (uint32_t k = 1; k < 3; ++k) {
        const uint64_t a =
            kLeftAcross ? grid::matrix_across(kFirst + k * 2048, kBlock) : grid::matrix_along(kFirst + k * 32);
        grid::multiply_terms<kLeftAcross>(sums, a, grid::matrix_across(kRight + k * 2048, kBlock));
      }
      grid::commit_products();
      grid::wait_products();
      for (int i = 0; i < 64; ++i) found[row_of(i)][column_of(i)] = sums[i];
    });
  };
  CHECK(run(true).empty());
  CHECK(numbers.near(found, 128, 3));
  CHECK(has(run(false), "has been published"));
}

void check_wrong_products() {
  const uint64_t a = grid::matrix_along(kFirst), b = grid::matrix_along(kFirst + 8192);
  const auto product = [&](uint64_t left, uint64_t right) {
    return said(kGroup, [=] {
      float sums[32];
      grid::fence_products();
      grid::multiply_wide(sums, left, right, false);
      grid::commit_products();
      grid::wait_products();
    });
  };
  CHECK(product(a, b).empty());
  CHECK(has(product(a + 8, b), "does not begin in the first row"));
  CHECK(has(product(a, b & ~(uint64_t(3) << 62)), "swizzle"));
  CHECK(has(product(a, b | uint64_t(1) << 49), "base offset"));
  CHECK(has(product(a, b | uint64_t(1) << 60), "bits that mean nothing"));
  CHECK(has(product(a, grid::matrix_along(kBase + kBytes - 128)), "beyond"));

  const auto body = [&](const auto& wrong) {
    return said(kGroup, [&] {
      float sums[64] = {};
      uint32_t rows[4] = {};
      wrong(sums, rows);
    });
  };
  using Sums = float (&)[64];
  using Rows = uint32_t (&)[4];
  const uint64_t across = grid::matrix_across(kFirst, 8192);
  CHECK(has(body([&](Sums sums, Rows) { grid::multiply_wide(sums, a, b, false); }), "without a fence"));
  CHECK(has(body([&](Sums sums, Rows) {
              grid::fence_products();
              grid::multiply_wide(sums, a, b, false);
              grid::commit_products();
            }),
            "ends before its products"));
  CHECK(has(body([&](Sums sums, Rows) {
              grid::fence_products();
              grid::multiply_wide(sums, a, b, false);
              grid::wait_products();
            }),
            "not committed"));
  CHECK(has(body([&](Sums sums, Rows) {
              grid::fence_products();
              grid::multiply_wide(sums, a, b, false);
              grid::commit_products();
              sums[3] = 0;
              grid::wait_products();
            }),
            "sums that were written"));
  CHECK(has(body([&](Sums sums, Rows rows) {
              grid::fence_products();
              grid::multiply_across(sums, rows, across);
              grid::commit_products();
              rows[1] = 5;
              grid::wait_products();
            }),
            "registers of A"));
  CHECK(has(body([&](Sums sums, Rows) {
              grid::fence_products();
              grid::multiply_wide(sums, a, emulator::thread() == 9 ? a : b, false);
            }),
            "lanes of a warp begin different"));
  CHECK(has(body([&](Sums sums, Rows) {
              grid::fence_products();
              grid::multiply_wide(sums, a, emulator::thread() / 32 == 2 ? a : b, false);
            }),
            "warps of a warpgroup begin different"));
  CHECK(has(body([&](Sums sums, Rows) {
              grid::fence_products();
              if (emulator::thread() % 32 > 3) grid::multiply_wide(sums, a, b, false);
            }),
            "part"));
}

alignas(16) const float kFrom[1024] = {1, 2, 3, 4, 5, 6, 7, 8};

// Two threads of two warps; the first copies what the second reads.
template <typename First, typename Second>
std::string exchange(const First& first, const Second& second) {
  return said(64, [&] {
    if (emulator::thread() == 0) {
      for (uint32_t i = 0; i < 2; ++i) grid::make_mbarrier(kBase + 8 * i, 1);
      grid::publish_mbarriers();
    }
    emulator::barrier();
    if (emulator::thread() == 0) first();
    if (emulator::thread() == 32) second();
  });
}

void check_copies() {
  const uint32_t full = kBase, empty = kBase + 8;
  const auto at = [](int i) {
    float v;
    std::memcpy(&v, shared_at(kFirst) + i * 4, 4);
    return v;
  };
  const auto bring = [&](uint32_t bytes, int from) {
    grid::arrive_expecting(full, bytes);
    grid::copy_bulk(kFirst, kFrom + from, bytes, full);
  };
  // There and back again, through one place.
  for (const emulator::Order order : {emulator::Order::Forward, emulator::Order::Backward, emulator::Order::Shuffled}) {
    emulator::set_order(order);
    float seen[3] = {-1, -1, -1};
    const std::string what = exchange(
        [&] {
          for (uint32_t i = 0; i < 3; ++i) {
            if (i > 0) grid::wait_phase(empty, i - 1);
            bring(16, 4 * int(i));
            CHECK(std::isnan(at(0)));
          }
        },
        [&] {
          for (uint32_t i = 0; i < 3; ++i) {
            grid::wait_phase(full, i);
            seen[i] = at(0);
            grid::arrive(empty);
          }
        });
    CHECK(what.empty());
    CHECK(seen[0] == 1 && seen[1] == 5 && seen[2] == 0);
  }
  emulator::set_order(emulator::Order::Forward);

  const auto nothing = [] {};
  const auto wait = [&] { grid::wait_phase(full, 0); };
  CHECK(has(exchange([&] { bring(16, 0); }, nothing), "ends before its copies"));
  CHECK(has(exchange([&] { bring(16, 1); }, nothing), "multiple of 16"));
  CHECK(has(exchange(nothing, wait), "nobody can go on"));
  CHECK(has(exchange([&] { grid::arrive_expecting(full, 32), grid::copy_bulk(kFirst, kFrom, 16, full); }, wait),
            "0 arrivals and 16 bytes"));
  CHECK(has(exchange([&] { grid::arrive_expecting(full, 16), grid::copy_bulk(kFirst, kFrom, 32, full); }, wait),
            "more bytes than its mbarrier expects"));
  CHECK(has(exchange([&] { bring(16, 0); }, [&] { grid::wait_phase(full, 1); }), "has not begun"));
  CHECK(has(exchange([&] { grid::arrive(full), grid::arrive(full); }, [&] { grid::wait_phase(empty, 0); }),
            "nobody can go on"));
  CHECK(has(exchange([&] { grid::arrive_expecting(full, 16), grid::arrive(full); }, nothing), "more arrivals"));
  CHECK(has(exchange([&] { grid::arrive(full), grid::arrive(full), grid::wait_phase(full, 0); }, nothing), "not over"));
  CHECK(has(exchange([&] { grid::arrive(full + 16); }, nothing), "no mbarrier"));
  CHECK(has(exchange([&] { bring(16, 0), bring(16, 4); }, wait), "more arrivals"));
  CHECK(has(exchange(
                [&] {
                  grid::arrive_expecting(full, 32);
                  for (int i = 0; i < 2; ++i) grid::copy_bulk(kFirst, kFrom, 16, full);
                },
                wait),
            "another one is under way"));
  CHECK(has(said(64,
                 [&] {
                   if (emulator::thread() == 0) grid::make_mbarrier(full, 1);
                   if (emulator::thread() == 32) grid::arrive(full);
                 }),
            "before a barrier of the block"));
}

// Copies beside products: to what they read, and of what they read.
void check_copies_and_products() {
  const auto run = [](bool waits, bool copies_over) {
    return said(kGroup + 32, [=] {
      const int thread = emulator::thread();
      if (thread == 0) {
        for (uint32_t i = 0; i < 3; ++i) grid::make_mbarrier(kBase + 8 * i, i < 2 ? 1 : 4);
        grid::publish_mbarriers();
      }
      emulator::barrier();
      if (thread == kGroup) {
        grid::arrive_expecting(kBase, 1024);
        grid::copy_bulk(kFirst + 8192, kFrom, 1024, kBase);
        if (!copies_over) return;
        grid::wait_phase(kBase + 16, 0);
        grid::arrive_expecting(kBase + 8, 1024);
        grid::copy_bulk(kFirst + 8192, kFrom, 1024, kBase + 8);
        grid::wait_phase(kBase + 8, 0);
      }
      if (thread >= kGroup) return;
      float sums[32];
      if (waits) grid::wait_phase(kBase, 0);
      grid::fence_products();
      grid::multiply_wide(sums, grid::matrix_along(kFirst), grid::matrix_along(kFirst + 8192), false);
      grid::commit_products();
      if (thread % 32 == 0) grid::arrive(kBase + 16);
      if (copies_over) grid::wait_phase(kBase + 8, 0);
      grid::wait_products();
    });
  };
  emulator::set_order(emulator::Order::Backward);  // the copying warp first
  CHECK(run(true, false).empty());
  CHECK(has(run(false, false), "still being copied"));
  emulator::set_order(emulator::Order::Forward);
  CHECK(has(run(true, true), "still read"));
}

// Threads copy behind the beginning of products, to where these read and to where they do not.
void check_copies_of_threads_and_products() {
  const auto run = [](uint32_t to) {
    return said(kGroup, [=] {
      float sums[32];
      grid::fence_products();
      grid::multiply_wide(sums, grid::matrix_along(kFirst), grid::matrix_along(kFirst + 8192), false);
      grid::commit_products();
      grid::copy_async(to + uint32_t(emulator::thread()) * 16, kFrom);
      grid::commit_copies();
      grid::wait_products();
      grid::wait_copies<0>();
    });
  };
  CHECK(run(kFirst + 16384).empty());
  CHECK(has(run(kFirst), "still read"));
  CHECK(has(run(kFirst + 8192), "still read"));
}

}  // namespace

void test_cuda_wide() {
  check_along<32>();
  check_along<64>();
  check_across();
  check_terms<false>();
  check_terms<true>();
  check_wrong_products();
  check_copies();
  check_copies_and_products();
  check_copies_of_threads_and_products();
}
