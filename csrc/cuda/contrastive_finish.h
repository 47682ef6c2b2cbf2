// What comes after the products: the gradients in the rows as they were given, and in the scale.
//
// Part of contrastive_launch.h. Bound by memory.
#pragma once

#include "contrastive_fused.h"
#include "contrastive_prepare.h"

namespace fastssl::cuda {
namespace {

// Rows from `first` on go to `rest`. Null: not wanted.
struct Output {
  void *data, *rest;
  int32_t first;
  RowType type;

  FASTSSL_DEVICE float largest() const {
    return type == RowType::Float32 ? 3.40282347e38f : type == RowType::Float16 ? 65504.0f : 3.38953139e38f;
  }
  // Where a row begins; null where it is not wanted.
  FASTSSL_DEVICE char* row(int32_t i, int32_t dimensions) const {
    char* const base = static_cast<char*>(i < first ? data : rest);
    const int64_t bytes = int64_t(i < first ? i : i - first) * dimensions * (type == RowType::Float32 ? 4 : 2);
    return base == nullptr ? nullptr : base + bytes;
  }
  FASTSSL_DEVICE uint16_t rounded(float v) const {
    if (type == RowType::Float16) return uint16_t(grid::pack_halves(v, 0) & 0xFFFFu);
    return v != v ? uint16_t(0x7FFF) : core::to_bfloat16(v);
  }
  // Four numbers, of which the row has `count`.
  FASTSSL_DEVICE void store(char* row, int32_t d, const float (&v)[4], int32_t count) const {
    const bool whole = count >= 4;
    if (type == RowType::Float32) {
      auto* const to = reinterpret_cast<float*>(row) + d;
      if (whole && reinterpret_cast<uintptr_t>(to) % 16 == 0) {
        *reinterpret_cast<Four<float>*>(to) = {{v[0], v[1], v[2], v[3]}};
      } else {
        FASTSSL_UNROLL_ALL
        for (int i = 0; i < 4; ++i) {
          if (i < count) to[i] = v[i];
        }
      }
    } else {
      auto* const to = reinterpret_cast<uint16_t*>(row) + d;
      if (whole && reinterpret_cast<uintptr_t>(to) % 8 == 0) {
        *reinterpret_cast<Four<uint16_t>*>(to) = {{rounded(v[0]), rounded(v[1]), rounded(v[2]), rounded(v[3])}};
      } else {
        FASTSSL_UNROLL_ALL
        for (int i = 0; i < 4; ++i) {
          if (i < count) to[i] = rounded(v[i]);
        }
      }
    }
  }
};

// Rows of one side, of the other one, and what the products left for the former.
struct Finished {
  Input own, other;
  const float *own_inverse, *other_inverse;
  float* partial;
  int32_t splits, padded_rows, padded_dimensions;
  Output out;  // without any place, only the gradient in the scale is wanted
};

// A row's gradient: adds up the splits and the positives' part, takes the product with the row (which summed over all rows
// gives the gradient in the scale, since logits are linear in it), and goes back through the division by the row's length.
// A warp a row, of which it keeps kHeld times 128 numbers in registers; where a row has more, the rest goes back to `partial`.
template <int kHeld>
struct FinishKernel {
  static constexpr int kThreads = kRowThreads, kBlocks = 2;

  Finished rows;
  Scale scale;
  const float *unit, *factor;  // factor: of the other side's operands
  const float* grad_positives;  // null: none
  float of_positives;           // multiplies them
  const float* grad;            // multiplies all gradients; null: 1
  int32_t positive, queries, keys;
  bool of_keys, symmetric;
  float* euler;

  // A row of the other side whose logit with this one is a positive, and its factor.
  struct Partner {
    InputRow row;  // without data: there is none
    float factor;
  };

  FASTSSL_DEVICE void operator()() const {
    const auto row = int32_t(grid::block() * kRowsPerBlock + grid::thread() / 32);
    if (row >= rows.own.count) return;
    const int32_t dimensions = rows.own.dimensions, first = grid::thread() % 32 * 4;
    const float incoming = grad != nullptr ? *grad : 1;
    Partner partner[2];
    look_for_partners(row, incoming, partner);
    const InputRow own_row = rows.own.row(row);
    const HeldRow<kHeld> own(own_row);
    const float one = *unit * *factor * (1.0f / (1 << kWeightBits)) * incoming, inverse = rows.own_inverse[row];
    const float of_scale = scale();
    float* const sums = rows.partial + int64_t(row) * rows.padded_dimensions;
    float held[kHeld][4] = {};
    float along = 0;
    const auto add = [&](float (&sum)[4], int32_t d, const float (&v)[4]) {
      float other[2][4] = {};
      FASTSSL_UNROLL_ALL
      for (int n = 0; n < 2; ++n) {
        if (partner[n].row.data != nullptr) partner[n].row.load(other[n], d);
      }
      sum_of_splits(sum, sums + d);
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < 4; ++i) sum[i] *= one;
      FASTSSL_UNROLL_ALL
      for (int n = 0; n < 2; ++n) {
        if (partner[n].row.data == nullptr) continue;
        FASTSSL_UNROLL_ALL
        for (int i = 0; i < 4; ++i) sum[i] = core::fused(partner[n].factor, other[n][i], sum[i]);
      }
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < 4; ++i) along = d + i < dimensions ? core::fused(sum[i], v[i] * inverse, along) : along;
    };
    FASTSSL_UNROLL_ALL
    for (int k = 0; k < kHeld; ++k) {
      if (k * kRowStep + first < dimensions) add(held[k], k * kRowStep + first, own.held[k]);
    }
    for (int32_t d = kHeld * kRowStep + first; d < dimensions; d += kRowStep) {
      float v[4], sum[4];
      own_row.load(v, d);
      add(sum, d, v);
      *reinterpret_cast<Four<float>*>(sums + d) = {{sum[0], sum[1], sum[2], sum[3]}};
    }
    along = sum_of_warp(along);
    if (euler != nullptr && grid::thread() % 32 == 0) euler[row] = along;
    char* const out = rows.out.row(row, dimensions);
    if (out == nullptr) return;
    // A row too short to have a direction was only scaled. Its gradient may be beyond float16.
    const bool brief = rows.own.normalize && inverse >= 1.0f / core::kNormEps;
    const float factor_out = rows.own.normalize ? inverse : 1.0f, most = core::kPartOfLargest * rows.out.largest();
    const auto store = [&](const float (&sum)[4], int32_t d, const float (&v)[4]) {
      float result[4];
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < 4; ++i) {
        float g = sum[i];
        if (rows.own.normalize && !brief) g = core::fused(-along, v[i] * inverse, g);
        g = g * of_scale * factor_out;
        if (brief) g = g > most ? most : g < -most ? -most : g;
        result[i] = g;
      }
      rows.out.store(out, d, result, dimensions - d);
    };
    FASTSSL_UNROLL_ALL
    for (int k = 0; k < kHeld; ++k) {
      if (k * kRowStep + first < dimensions) store(held[k], k * kRowStep + first, own.held[k]);
    }
    for (int32_t d = kHeld * kRowStep + first; d < dimensions; d += kRowStep) {
      float v[4], sum[4];
      own_row.load(v, d);
      const auto four = *reinterpret_cast<const Four<float>*>(sums + d);
      FASTSSL_UNROLL_ALL
      for (int i = 0; i < 4; ++i) sum[i] = four.of[i];
      store(sum, d, v);
    }
  }

  FASTSSL_DEVICE void look_for_partners(int32_t row, float incoming, Partner (&partner)[2]) const {
    partner[0].row.data = partner[1].row.data = nullptr;
    if (grad_positives == nullptr) return;
    const float all = incoming * of_positives;
    const int32_t key = of_keys ? -1 : core::positive_of(row, positive, keys);
    const int32_t query = of_keys || symmetric ? core::query_of_positive(row, positive, keys) : -1;
    if (key >= 0) {
      partner[0].row = rows.other.row(key);
      partner[0].factor = grad_positives[row] * all * rows.other_inverse[key];
    }
    if (query < 0 || query >= queries) return;
    const float factor_of_query = grad_positives[query] * all * rows.other_inverse[query];
    if (query == key) {  // of two views, each is the other's positive
      partner[0].factor += factor_of_query;
    } else {
      partner[1].row = rows.other.row(query);
      partner[1].factor = factor_of_query;
    }
  }

  // Four numbers of all splits, in their order; four loads at a time, which do not wait for each other.
  FASTSSL_DEVICE void sum_of_splits(float (&sum)[4], const float* at) const {
    constexpr int kAhead = 4;
    const int64_t next = int64_t(rows.padded_rows) * rows.padded_dimensions;
    FASTSSL_UNROLL_ALL
    for (int i = 0; i < 4; ++i) sum[i] = 0;
    for (int32_t split = 0; split < rows.splits; split += kAhead) {
      Four<float> part[kAhead] = {};
      FASTSSL_UNROLL_ALL
      for (int j = 0; j < kAhead; ++j) {
        if (split + j < rows.splits) part[j] = *reinterpret_cast<const Four<float>*>(at + (split + j) * next);
      }
      FASTSSL_UNROLL_ALL
      for (int j = 0; j < kAhead; ++j) {
        FASTSSL_UNROLL_ALL
        for (int i = 0; i < 4; ++i) sum[i] += part[j].of[i];
      }
    }
  }
};

// The sum of all, times `times`, always in the same order. One block.
struct TotalKernel {
  static constexpr int kThreads = 1024, kBlocks = 1;

  const float* values;
  int32_t count;
  float times;
  float* out;

  FASTSSL_DEVICE void operator()() const {
    auto* const shared = reinterpret_cast<float*>(grid::shared());
    float sum = 0;
    for (int32_t i = grid::thread(); i < count; i += kThreads) sum += values[i];
    sum = sum_of_warp(sum);
    if (grid::thread() % 32 == 0) shared[grid::thread() / 32] = sum;
    grid::barrier();
    if (grid::thread() >= 32) return;
    sum = sum_of_warp(shared[grid::thread()]);
    if (grid::thread() == 0) *out = sum * times;
  }
};

}  // namespace
}  // namespace fastssl::cuda
