// What comes before the products: unit rows as operands, ranges of ids, weights of the backward pass.
//
// Part of contrastive_launch.h. All bound by memory: each reads a matrix or a vector once and writes one.
#pragma once

#include "contrastive_tile.h"

namespace fastssl::cuda {
namespace {

constexpr int kRowThreads = 256;  // a warp a row
constexpr int kRowsPerBlock = kRowThreads / 32;

FASTSSL_DEVICE float float_of_bits(uint32_t bits) {
  float v;
  memcpy(&v, &bits, sizeof(v));
  return v;
}
FASTSSL_DEVICE uint32_t bits_of(float v) {
  uint32_t bits;
  memcpy(&bits, &v, sizeof(bits));
  return bits;
}

template <typename T>
struct alignas(4 * sizeof(T)) Four {
  T of[4];
};

FASTSSL_DEVICE float value_of(RowType type, uint16_t bits) {
  return type == RowType::Float16 ? grid::half_value(bits) : float_of_bits(uint32_t(bits) << 16);
}

// A row as it was given.
struct InputRow {
  const void* data;
  int32_t dimensions;
  RowType type;
  bool whole;  // four numbers may be loaded at once

  FASTSSL_DEVICE float at(int32_t d) const {
    return type == RowType::Float32 ? static_cast<const float*>(data)[d]
                                    : value_of(type, static_cast<const uint16_t*>(data)[d]);
  }
  // Four numbers from d on, a multiple of 4; zeros beyond the last.
  FASTSSL_DEVICE void load(float (&v)[4], int32_t d) const {
    if (!whole || d >= dimensions) {
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < 4; ++i) v[i] = d + i < dimensions ? at(d + i) : 0;
    } else if (type == RowType::Float32) {
      const auto four = *reinterpret_cast<const Four<float>*>(static_cast<const float*>(data) + d);
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < 4; ++i) v[i] = four.of[i];
    } else {
      const auto four = *reinterpret_cast<const Four<uint16_t>*>(static_cast<const uint16_t*>(data) + d);
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < 4; ++i) v[i] = value_of(type, four.of[i]);
    }
  }
};

// A matrix as it was given; rows from `first` on lie at `rest`.
struct Input {
  const void *data, *rest;
  int64_t stride, rest_stride;
  int32_t first, count, dimensions;
  RowType type;
  bool normalize;

  FASTSSL_DEVICE InputRow row(int32_t i) const {
    const bool behind = i >= first;
    const int64_t bytes = type == RowType::Float32 ? 4 : 2;
    const char* const at =
        static_cast<const char*>(behind ? rest : data) + (behind ? (i - first) * rest_stride : i * stride) * bytes;
    return {at, dimensions, type, dimensions % 4 == 0 && reinterpret_cast<uintptr_t>(at) % (4 * bytes) == 0};
  }
};

FASTSSL_DEVICE float sum_of_warp(float v) {
  for (int mask = 16; mask > 0; mask /= 2) v += grid::shuffle_xor(v, mask);
  return v;
}
// NaN where one is.
FASTSSL_DEVICE float larger_or_nan(float v, float other) { return other > v || other != other ? other : v; }
FASTSSL_DEVICE float largest_of_warp(float v) {
  for (int mask = 16; mask > 0; mask /= 2) {
    v = larger_or_nan(v, grid::shuffle_xor(v, mask));
  }
  return v;
}
FASTSSL_DEVICE float magnitude(float v) { return v < 0 ? -v : v; }

// Numbers of a row that a lane keeps in registers: kHeld times four of every 128, those from kHeld * 128 on in memory.
constexpr int kRowStep = 32 * 4;
template <int kHeld>
struct HeldRow {
  const InputRow& row;
  float held[kHeld][4];

  FASTSSL_DEVICE explicit HeldRow(const InputRow& of) : row(of) {
    const int32_t lane = grid::thread() % 32;
    FASTSSL_UNROLL_ALL
    for (int k = 0; k < kHeld; ++k) row.load(held[k], k * kRowStep + 4 * lane);
  }
  // Calls f(d, four numbers from d on) for this lane's d below `end`.
  template <typename F>
  FASTSSL_DEVICE void for_each(int32_t end, const F& f) const {
    const int32_t lane = grid::thread() % 32;
    FASTSSL_UNROLL_ALL
    for (int k = 0; k < kHeld; ++k) {
      if (k * kRowStep + 4 * lane < end) f(k * kRowStep + 4 * lane, held[k]);
    }
    for (int32_t d = kHeld * kRowStep + 4 * lane; d < end; d += kRowStep) {
      float v[4];
      row.load(v, d);
      f(d, v);
    }
  }
};

// The power of two above v; 1 where there is none.
FASTSSL_DEVICE float power_above(float v) {
  const uint32_t exponent = bits_of(v) >> 23 & 0xFFu;
  return v > 0 && exponent < 254 ? float_of_bits((exponent + 1) << 23) : v > 0 ? 0x1p127f : 1.0f;
}

// The largest magnitude in each row, and its length, infinite where its square is: from these the factor of rows that keep
// their length is taken, and the bound on their logits.
struct LargestKernel {
  static constexpr int kThreads = kRowThreads, kBlocks = 4;

  Input in;
  float *largest, *length;

  FASTSSL_DEVICE void operator()() const {
    const auto row = int32_t(grid::block() * kRowsPerBlock + grid::thread() / 32);
    if (row >= in.count) return;
    const InputRow own = in.row(row);
    float v = 0, squares = 0;
    HeldRow<1>(own).for_each(in.dimensions, [&](int32_t, const float (&four)[4]) {
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < 4; ++i) {
        v = larger_or_nan(v, magnitude(four[i]));
        squares = core::fused(four[i], four[i], squares);
      }
    });
    v = largest_of_warp(v);
    squares = sum_of_warp(squares);
    if (grid::thread() % 32 != 0) return;
    largest[row] = v;
    length[row] = sqrtf(squares);
  }
};

// Of rows that keep their length: what an operand's one stands for, so much that the largest number of all becomes 2^12,
// rows with a NaN aside; and behind it the largest length, NaN where one is: no shift is constant then. One block. Of unit
// rows OperandKernel writes both.
struct FactorKernel {
  static constexpr int kThreads = 1024, kBlocks = 1;
  static constexpr int kShared = 2 * kThreads / 32 * int(sizeof(float));

  const float *largest, *length;
  int32_t count;
  float* factor;

  FASTSSL_DEVICE void operator()() const {
    const float most = largest_of_all(largest, false), longest = largest_of_all(length, true);
    if (grid::thread() != 0) return;
    factor[0] = power_above(most) * (1.0f / (1 << kOperandBits));
    factor[1] = longest;
  }

  FASTSSL_DEVICE float largest_of_all(const float* values, bool or_nan) const {
    float* const shared = reinterpret_cast<float*>(grid::shared()) + (values == length ? kThreads / 32 : 0);
    float v = 0;
    for (int32_t i = grid::thread(); i < count; i += kThreads)
      v = or_nan ? larger_or_nan(v, values[i]) : core::larger(values[i], v);
    v = largest_of_warp(v);
    if (grid::thread() % 32 == 0) shared[grid::thread() / 32] = v;
    grid::barrier();
    for (int i = 1; grid::thread() == 0 && i < kThreads / 32; ++i) v = larger_or_nan(v, shared[i]);
    return v;
  }
};

// Operands, and one over each row's length. Rows up to the last tile's end, and columns up to the last chunk's, are zeros.
// kBlocked: each chunk of a tile is one piece, as shared memory is to have it. Ids that are to be row numbers mod `images`
// are written along, with their ranges.
template <bool kSplit, bool kBlocked>
struct OperandKernel {
  static constexpr int kThreads = kRowThreads, kBlocks = 4;
  static constexpr int kHeld = 2;

  Input in;
  float* factor;
  char* operand;
  int64_t row_bytes;
  int32_t padded_rows, padded_dimensions;
  float* inverse;
  int32_t images;  // 0: no ids are wanted
  int64_t* ids;
  IdRanges* id_ranges;

  FASTSSL_DEVICE void operator()() const {
    const auto row = int32_t(grid::block() * kRowsPerBlock + grid::thread() / 32);
    if (row >= padded_rows) return;
    const InputRow input = in.row(core::smaller(row, in.count - 1));
    const HeldRow<kHeld> own(input);
    if (images > 0 && grid::thread() % 32 == 0) write_ids(row);
    if (in.normalize && grid::block() == 0 && grid::thread() == 0) {
      factor[0] = 1.0f / (1 << kOperandBits);
      factor[1] = 1;
    }
    // Each number is multiplied by `first`, then by `second`: by one alone, lengths near the ends of float32 would overflow.
    float first = 0, second = 0, inverse_length = 0;
    if (row < in.count && in.normalize) {
      float largest = 0, squares = 0;
      own.for_each(in.dimensions, [&](int32_t, const float (&v)[4]) {
        FASTSSL_UNROLL_ALL
        for (int i = 0; i < 4; ++i) largest = larger_or_nan(largest, magnitude(v[i]));
      });
      const float power = power_above(largest_of_warp(largest));
      first = 1.0f / power;
      own.for_each(in.dimensions, [&](int32_t, const float (&v)[4]) {
        FASTSSL_UNROLL_ALL
        for (int i = 0; i < 4; ++i) squares = core::fused(v[i] * first, v[i] * first, squares);
      });
      const float length = sqrtf(sum_of_warp(squares));  // between 1/2 and 64, or 0
      if (length * power > core::kNormEps || length != length) {
        second = 1.0f / length;
        inverse_length = second * first;
      } else {
        first = inverse_length = 1.0f / core::kNormEps;
        second = 1;
      }
      second *= 1 << kOperandBits;
    } else if (row < in.count) {
      first = 1.0f / *factor;
      second = 1;
      inverse_length = 1;
    }
    if (grid::thread() % 32 == 0) inverse[row] = inverse_length;
    auto* const out = reinterpret_cast<uint32_t*>(operand + row * row_bytes);
    const bool there = row < in.count;
    own.for_each(padded_dimensions, [&](int32_t d, const float (&four)[4]) {
      float v[4];
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < 4; ++i) v[i] = there && d + i < in.dimensions ? four[i] * first * second : 0;
      const Pairs halves{grid::pack_halves(v[0], v[1]), grid::pack_halves(v[2], v[3])};
      const int32_t pair = d / 2;
      if constexpr (kSplit) {
        constexpr int kPairs = kDepth<true> / 2;
        uint32_t* const chunk = out + pair / kPairs * 2 * kPairs + pair % kPairs;
        store(chunk, halves);
        store(chunk + kPairs, {rest_of(halves.low, v[0], v[1]), rest_of(halves.high, v[2], v[3])});
      } else if constexpr (kBlocked) {
        store(block_pair(row, pair), halves);
      } else {
        store(out + pair, halves);
      }
    });
  }

  struct alignas(8) Pairs {
    uint32_t low, high;
  };
  static FASTSSL_DEVICE void store(uint32_t* to, const Pairs& pairs) { *reinterpret_cast<Pairs*>(to) = pairs; }
  static FASTSSL_DEVICE uint32_t rest_of(uint32_t halves, float low, float high) {
    return grid::pack_halves(low - grid::half_value(halves & 0xFFFFu), high - grid::half_value(halves >> 16));
  }

  FASTSSL_DEVICE void write_ids(int32_t row) const {
    if (row < in.count) ids[row] = row % images;
    if (row % kTileRows != 0) return;
    // Up to the last image, and from the first on.
    const int32_t rows = core::smaller(int32_t(kTileRows), in.count - row), begin = row % images;
    const int32_t before = core::smaller(rows, images - begin), behind = core::smaller(rows - before, images);
    IdRanges ranges{{begin, INT64_MAX}, {begin + before - 1, INT64_MIN}};
    if (behind > 0) {
      ranges.least[1] = 0;
      ranges.most[1] = behind - 1;
    }
    id_ranges[row / kTileRows] = ranges;
  }

  FASTSSL_DEVICE uint32_t* block_pair(int32_t row, int32_t pair) const {
    constexpr int kPairs = kChunkHalves / 2;
    char* const chunk = operand + row / kTileRows * (kTileRows * row_bytes) + pair / kPairs * kTileBytes;
    return reinterpret_cast<uint32_t*>(chunk + unit_at(0, row % kTileRows, pair % kPairs / 4)) + pair % 4;
  }
};

// The ranges of each tile's ids: tiles whose ranges do not meet need no look at ids.
struct RangesKernel {
  static constexpr int kThreads = kTileRows, kBlocks = 8;
  static constexpr int kShared = kTileRows * int(sizeof(IdRanges) + sizeof(int32_t));

  const int64_t* ids;
  int32_t count;
  IdRanges* ranges;

  FASTSSL_DEVICE void operator()() const {
    auto* const part = reinterpret_cast<IdRanges*>(grid::shared());
    auto* const descent = reinterpret_cast<int32_t*>(part + kTileRows);
    const int32_t self = grid::thread();
    const int64_t first = grid::block() * kTileRows;
    const auto rows = int32_t(core::smaller(int64_t(kTileRows), count - first));
    const int64_t id = ids[first + core::smaller(self, rows - 1)];
    descent[self] = self > 0 && self < rows && id < ids[first + self - 1] ? self : kTileRows;
    for (int32_t apart = kTileRows / 2; apart > 0; apart /= 2) {
      grid::barrier();
      if (self < apart) descent[self] = core::smaller(descent[self], descent[self + apart]);
    }
    grid::barrier();
    const bool rest = self >= descent[0];
    for (int i = 0; i < 2; ++i) {
      const bool own = rest == (i == 1);
      part[self].least[i] = own ? id : INT64_MAX;
      part[self].most[i] = own ? id : INT64_MIN;
    }
    for (int32_t apart = kTileRows / 2; apart > 0; apart /= 2) {
      grid::barrier();
      for (int i = 0; self < apart && i < 2; ++i) {
        part[self].least[i] = core::smaller(part[self].least[i], part[self + apart].least[i]);
        part[self].most[i] = core::larger(part[self].most[i], part[self + apart].most[i]);
      }
    }
    if (self == 0) ranges[grid::block()] = part[0];
  }
};

// A vector of gradients, and the logarithms of the sums they belong to.
struct Gradients {
  const float *grad, *sums;  // grad null: zeros
  int32_t count, padded;
  float *weight, *shift;
};

// Where rows' gradients are those of the mean of softplus(sum - positive) (contrastive_loss.h), they are computed here.
struct SoftplusGradients {
  const float* positives;  // null: gradients are given
  const float* steepest;   // the largest of them
  float each;              // of the mean in each
  float* out;              // what they are

  FASTSSL_DEVICE static float slope(float x) {
    const float e = expf(-magnitude(x));  // NaN stays one
    return (x < 0 ? e : 1) / (1 + e);
  }
};

// Of each row, what its gradient contributes to the weight of a pair (Note [Weights]). In a block of its own each, all
// blocks look at all gradients first, unless the largest is known.
struct WeightsKernel {
  static constexpr int kThreads = 256, kBlocks = 4;

  Problem problem;
  Gradients rows, columns;  // of a symmetric problem, rows alone
  SoftplusGradients softplus;
  float* unit;  // what a weight of one stands for

  FASTSSL_DEVICE void operator()() const {
    const float power = power_above(softplus.positives != nullptr ? *softplus.steepest : largest_of_all());
    const float inverse = 1.0f / power;
    if (grid::block() == 0 && grid::thread() == 0) *unit = power;
    const Logits logits = logits_of(problem);
    int32_t i = int32_t(grid::block()) * kThreads + grid::thread();
    const Gradients& g = i < rows.padded ? rows : columns;
    i -= i < rows.padded ? 0 : rows.padded;
    if (i >= g.padded || g.weight == nullptr) return;
    float weight = 0, shift = infinity();
    if (i < g.count && (g.grad != nullptr || softplus.positives != nullptr)) {
      const float sum = g.sums[i];
      float grad;
      if (softplus.positives != nullptr) {
        grad = SoftplusGradients::slope(sum - softplus.positives[i]) * softplus.each;
        softplus.out[i] = grad;
      } else {
        grad = g.grad[i];
      }
      if (sum != -infinity()) {
        shift = sum * core::kLog2E;
        // What rounding took from the shift is given to the weight.
        const float lost = core::fused(sum, core::kLog2E, -shift) + sum * core::kLog2ERest;
        weight = grad * inverse * (logits.constant ? expf(logits.largest - sum) : 1 - lost * core::kLn2);
      }
    }
    g.weight[i] = weight;
    g.shift[i] = shift;
  }

  FASTSSL_DEVICE float largest_of_all() const {
    constexpr int kAhead = 8;  // loads that do not wait for each other
    auto* const shared = reinterpret_cast<float*>(grid::shared());
    float largest = 0;
    for (int side = 0; side < 2; ++side) {
      const Gradients& g = side ? columns : rows;
      for (int32_t i = grid::thread(); g.grad != nullptr && i < g.count; i += kAhead * kThreads) {
        float v[kAhead];
        FASTSSL_UNROLL_ALL
        for (int j = 0; j < kAhead; ++j) v[j] = j * kThreads < g.count - i ? g.grad[i + j * kThreads] : 0;
        FASTSSL_UNROLL_ALL
        for (int j = 0; j < kAhead; ++j) largest = larger_or_nan(largest, magnitude(v[j]));
      }
    }
    largest = largest_of_warp(largest);
    if (grid::thread() % 32 == 0) shared[grid::thread() / 32] = largest;
    grid::barrier();
    for (int i = 0; i < kThreads / 32; ++i) largest = larger_or_nan(largest, shared[i]);
    return largest;
  }
};

}  // namespace
}  // namespace fastssl::cuda
