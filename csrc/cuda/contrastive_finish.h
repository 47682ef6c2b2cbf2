// What comes after the products: the gradients in the rows as they were given, and in the scale.
//
// Part of contrastive_launch.h. Bound by memory.
#pragma once

#include "contrastive_fused.h"
#include "contrastive_prepare.h"

namespace fastssl::cuda {
namespace {

struct Output {
  void* data;
  RowType type;

  FASTSSL_DEVICE float largest() const {
    return type == RowType::Float32 ? 3.40282347e38f : type == RowType::Float16 ? 65504.0f : 3.38953139e38f;
  }
  FASTSSL_DEVICE void store(int64_t i, float v) const {
    switch (type) {
      case RowType::Float32: static_cast<float*>(data)[i] = v; return;
      case RowType::Float16: static_cast<uint16_t*>(data)[i] = uint16_t(grid::pack_halves(v, 0) & 0xFFFFu); return;
      case RowType::BFloat16:
        static_cast<uint16_t*>(data)[i] = v != v ? uint16_t(0x7FFF) : core::to_bfloat16(v);
        return;
    }
  }
};

// Rows of one side, of the other one, and what the products left for the former.
struct Finished {
  Input own, other;
  const float *own_inverse, *other_inverse;
  float* partial;
  int32_t splits, padded_rows, padded_dimensions;
  Output out;  // data null: only the gradient in the scale is wanted
};

// A row's gradient: adds up the splits and the positives' part, takes the product with the row (which summed over all rows
// gives the gradient in the scale, since logits are linear in it), and goes back through the division by the row's length.
// A warp a row.
struct FinishKernel {
  static constexpr int kThreads = kRowThreads, kBlocks = 2;

  Finished rows;
  const float *scale, *unit, *factor;  // factor: of the other side's operands
  const float* grad_positives;         // null: none
  int32_t positive, queries, keys;
  bool of_keys, symmetric;
  float* euler;

  FASTSSL_DEVICE void operator()() const {
    const auto row = int32_t(grid::block() * kRowsPerBlock + grid::thread() / 32);
    if (row >= rows.own.count) return;
    // Rows of the other side whose logit with this one is a positive, and the gradients of these.
    int32_t partner[2] = {-1, -1};
    float pull[2] = {0, 0};
    if (grad_positives != nullptr) {
      if (!of_keys) {
        partner[0] = core::positive_of(row, positive, keys);
        pull[0] = grad_positives[row];
      }
      if (of_keys || symmetric) {
        const int32_t query = core::query_of_positive(row, positive, keys);
        if (query < queries) {
          partner[1] = query;
          pull[1] = grad_positives[query];
        }
      }
    }
    const float one = *unit * *factor * (1.0f / (1 << kWeightBits)), own = rows.own_inverse[row];
    const float of_scale = *scale;
    float other[2] = {0, 0};
    for (int n = 0; n < 2; ++n) {
      if (partner[n] >= 0) other[n] = rows.other_inverse[partner[n]];
    }
    float* const sums = rows.partial + int64_t(row) * rows.padded_dimensions;
    const int64_t next = int64_t(rows.padded_rows) * rows.padded_dimensions;
    float along = 0;
    for (int32_t d = grid::thread() % 32; d < rows.own.dimensions; d += 32) {
      float sum = 0;
      for (int32_t split = 0; split < rows.splits; ++split) sum += sums[split * next + d];
      sum *= one;
      for (int n = 0; n < 2; ++n) {
        if (partner[n] >= 0) sum = core::fused(pull[n], rows.other.at(partner[n], d) * other[n], sum);
      }
      sums[d] = sum;
      along = core::fused(sum, rows.own.at(row, d) * own, along);
    }
    along = sum_of_warp(along);
    if (euler != nullptr && grid::thread() % 32 == 0) euler[row] = along;
    if (rows.out.data == nullptr) return;
    // A row too short to have a direction was only scaled. Its gradient may be beyond float16.
    const bool brief = rows.own.normalize && own >= 1.0f / core::kNormEps;
    const float factor_out = rows.own.normalize ? own : 1.0f, most = core::kPartOfLargest * rows.out.largest();
    for (int32_t d = grid::thread() % 32; d < rows.own.dimensions; d += 32) {
      float v = sums[d];
      if (rows.own.normalize && !brief) v = core::fused(-along, rows.own.at(row, d) * own, v);
      v = v * of_scale * factor_out;
      if (brief) v = v > most ? most : v < -most ? -most : v;
      rows.out.store(int64_t(row) * rows.own.dimensions + d, v);
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
