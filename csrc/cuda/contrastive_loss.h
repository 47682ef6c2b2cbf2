// From the logarithms of sums and the positives to the loss: the mean of softplus(sum - positive), which is that of
// log(1 + sum / positive), so that a small loss keeps its relative accuracy.
//
// Part of contrastive_launch.h. One block, bound by the latency of its loads and by two exponentials' worth of arithmetic a row,
// 3 us at 16384 rows. The order of all sums is fixed.
#pragma once

#include "contrastive_prepare.h"

namespace fastssl::cuda {
namespace {

struct LossKernel {
  static constexpr int kThreads = 1024, kBlocks = 1;
  static constexpr int kShared = 2 * kThreads / 32 * int(sizeof(float));

  const float *rows, *positives;
  int32_t count;
  float *loss, *steepest;  // steepest: the largest derivative of the loss in a logarithm of a sum

  FASTSSL_DEVICE static float softplus(float x) {
    const float above = x < 0 ? 0 : x;  // NaN stays one
    return above + log1pf(expf(-magnitude(x)));
  }

  FASTSSL_DEVICE void operator()() const {
    constexpr int kAhead = 4;  // loads that do not wait for each other
    float sum[kAhead] = {}, largest = -infinity();
    for (int32_t i = grid::thread(); i < count; i += kAhead * kThreads) {
      float x[kAhead];
      FASTSSL_UNROLL_ALL
      for (int j = 0; j < kAhead; ++j) {
        const bool there = j * kThreads < count - i;
        x[j] = there ? rows[i + j * kThreads] - positives[i + j * kThreads] : -infinity();
      }
      FASTSSL_UNROLL_ALL
      for (int j = 0; j < kAhead; ++j) {
        sum[j] += softplus(x[j]);
        largest = larger_or_nan(largest, x[j]);
      }
    }
    float total = sum_of_warp((sum[0] + sum[1]) + (sum[2] + sum[3]));
    largest = largest_of_warp(largest);
    auto* const sums = reinterpret_cast<float*>(grid::shared());
    float* const largests = sums + kThreads / 32;
    if (grid::thread() % 32 == 0) {
      sums[grid::thread() / 32] = total;
      largests[grid::thread() / 32] = largest;
    }
    grid::barrier();
    if (grid::thread() >= 32) return;
    total = sum_of_warp(sums[grid::thread()]);
    largest = largest_of_warp(largests[grid::thread()]);
    if (grid::thread() != 0) return;
    *loss = total / float(count);
    *steepest = SoftplusGradients::slope(largest) / float(count);
  }
};

}  // namespace
}  // namespace fastssl::cuda
