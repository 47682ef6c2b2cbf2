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

// A matrix as it was given.
struct Input {
  const void* data;
  int64_t stride;
  int32_t count, dimensions;
  RowType type;
  bool normalize;

  FASTSSL_DEVICE float at(int64_t row, int32_t column) const {
    const int64_t i = row * stride + column;
    switch (type) {
      case RowType::Float32: return static_cast<const float*>(data)[i];
      case RowType::Float16: return grid::half_value(static_cast<const uint16_t*>(data)[i]);
      default: return float_of_bits(uint32_t(static_cast<const uint16_t*>(data)[i]) << 16);
    }
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

FASTSSL_DEVICE float largest_of_row(const Input& in, int32_t row) {
  float largest = 0;
  for (int32_t d = grid::thread() % 32; d < in.dimensions; d += 32) {
    largest = larger_or_nan(largest, magnitude(in.at(row, d)));
  }
  return largest_of_warp(largest);
}

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
    const float v = largest_of_row(in, row);
    float squares = 0;
    for (int32_t d = grid::thread() % 32; d < in.dimensions; d += 32)
      squares = core::fused(in.at(row, d), in.at(row, d), squares);
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
// kBlocked: each chunk of a tile is one piece, as shared memory is to have it.
template <bool kSplit, bool kBlocked>
struct OperandKernel {
  static constexpr int kThreads = kRowThreads, kBlocks = 4;

  Input in;
  float* factor;
  char* operand;
  int64_t row_bytes;
  int32_t padded_rows, padded_dimensions;
  float* inverse;

  FASTSSL_DEVICE void operator()() const {
    const auto row = int32_t(grid::block() * kRowsPerBlock + grid::thread() / 32);
    if (row >= padded_rows) return;
    if (in.normalize && grid::block() == 0 && grid::thread() == 0) {
      factor[0] = 1.0f / (1 << kOperandBits);
      factor[1] = 1;
    }
    // Each number is multiplied by `first`, then by `second`: by one alone, lengths near the ends of float32 would overflow.
    float first = 0, second = 0, inverse_length = 0;
    if (row < in.count && in.normalize) {
      const float power = power_above(largest_of_row(in, row));
      first = 1.0f / power;
      float squares = 0;
      for (int32_t d = grid::thread() % 32; d < in.dimensions; d += 32) {
        const float v = in.at(row, d) * first;
        squares = core::fused(v, v, squares);
      }
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
    for (int32_t pair = grid::thread() % 32; pair < padded_dimensions / 2; pair += 32) {
      float v[2];
      for (int j = 0; j < 2; ++j) {
        const int32_t d = 2 * pair + j;
        v[j] = row < in.count && d < in.dimensions ? in.at(row, d) * first * second : 0;
      }
      const uint32_t halves = grid::pack_halves(v[0], v[1]);
      if constexpr (kSplit) {
        constexpr int kPairs = kDepth<true> / 2;
        uint32_t* const chunk = out + pair / kPairs * 2 * kPairs + pair % kPairs;
        chunk[0] = halves;
        chunk[kPairs] =
            grid::pack_halves(v[0] - grid::half_value(halves & 0xFFFFu), v[1] - grid::half_value(halves >> 16));
      } else if constexpr (kBlocked) {
        *block_pair(row, pair) = halves;
      } else {
        out[pair] = halves;
      }
    }
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

// Of each row, what its gradient contributes to the weight of a pair (Note [Weights]). In a block of its own each, all
// blocks look at all gradients first.
struct WeightsKernel {
  static constexpr int kThreads = 256, kBlocks = 4;

  Problem problem;
  Gradients rows, columns;  // of a symmetric problem, rows alone
  float* unit;              // what a weight of one stands for

  FASTSSL_DEVICE void operator()() const {
    auto* const shared = reinterpret_cast<float*>(grid::shared());
    float largest = 0;
    for (int side = 0; side < 2; ++side) {
      const Gradients& g = side ? columns : rows;
      for (int32_t i = grid::thread(); g.grad != nullptr && i < g.count; i += kThreads) {
        largest = larger_or_nan(largest, magnitude(g.grad[i]));
      }
    }
    largest = largest_of_warp(largest);
    if (grid::thread() % 32 == 0) shared[grid::thread() / 32] = largest;
    grid::barrier();
    for (int i = 0; i < kThreads / 32; ++i) {
      largest = larger_or_nan(largest, shared[i]);
    }
    const float power = power_above(largest), inverse = 1.0f / power;
    if (grid::block() == 0 && grid::thread() == 0) *unit = power;
    const Logits logits = logits_of(problem);
    int32_t i = int32_t(grid::block()) * kThreads + grid::thread();
    const Gradients& g = i < rows.padded ? rows : columns;
    i -= i < rows.padded ? 0 : rows.padded;
    if (i >= g.padded || g.weight == nullptr) return;
    float weight = 0, shift = infinity();
    if (i < g.count && g.grad != nullptr && g.sums[i] != -infinity()) {
      const float sum = g.sums[i];
      shift = sum * core::kLog2E;
      // What rounding took from the shift is given to the weight.
      const float lost = core::fused(sum, core::kLog2E, -shift) + sum * core::kLog2ERest;
      weight = g.grad[i] * inverse * (logits.constant ? expf(logits.largest - sum) : 1 - lost * core::kLn2);
    }
    g.weight[i] = weight;
    g.shift[i] = shift;
  }
};

}  // namespace
}  // namespace fastssl::cuda
