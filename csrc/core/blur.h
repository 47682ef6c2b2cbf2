// Kernels of the two blurs, made on the host.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "macros.h"

namespace fastssl::core {

// What lies beyond the border: the image mirrored about its outermost pixels, or those pixels again and again.
enum class Border : int32_t { Reflect, Repeat };

// Whether a Gaussian of this deviation has, by the rule below, any weight beside the middle.
inline bool gaussian_reaches(double sigma_px) {
  if (sigma_px <= 0) return false;
  if (sigma_px > 0.25) return true;  // the rule's threshold is 0.2452
  const double beside = 2 * std::exp(-0.5 / (sigma_px * sigma_px));
  return beside > (1 + beside) / 2048;
}

// Lowers the middle weight by a few roundings where the sums, down the columns and along the rows, would lift white above 1.
// Sums of positive products, rounded, rise with every input: so nothing else is lifted above 1 either.
inline void keep_within_one(std::vector<float>& weight) {
  const auto blurred = [&weight](float v) {
    float sum = weight[0] * v;
    for (size_t k = 1; k < weight.size(); ++k) sum = fused(weight[k], v + v, sum);
    return sum;
  };
  while (blurred(blurred(1.0f)) > 1) weight[0] -= 0x1p-24f;
}

// Half of a sampled, normalized Gaussian kernel: weight[0] in the middle, weight[k] at distance k on both sides.
// It ends where what is left out is below 2^-11 of the whole, hence moves no channel by more than 0.13 / 255.
inline int gaussian_half_kernel(double sigma_px, std::vector<float>& weight) {
  static thread_local std::vector<double> memory;
  const int taps = int(std::ceil(6 * sigma_px));
  if (memory.size() <= size_t(taps)) memory.resize(size_t(taps) + 1);
  double* const w = memory.data();
  w[0] = 1.0;
  double total = 1.0;
  for (int k = 1; k <= taps; ++k) {
    w[k] = std::exp(-0.5 * k * k / (sigma_px * sigma_px));
    total += 2 * w[k];
  }
  int radius = taps;
  double tail = 0;
  while (radius > 0 && tail + 2 * w[radius] <= total / 2048) tail += 2 * w[radius--];
  weight.resize(size_t(radius) + 1);
  for (int k = 0; k <= radius; ++k) weight[k] = float(w[k] / (total - tail));
  keep_within_one(weight);
  return radius;
}

// Half of the extended box filter that, passed over three times, has the variance of a Gaussian of this deviation.
// Source: Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended box filtering", SSVM 2011, as in
// Pillow's GaussianBlur.
constexpr int kBoxPasses = 3;
inline int box_half_kernel(double sigma_px, std::vector<float>& weight) {
  const double variance = sigma_px * sigma_px / kBoxPasses;
  const double whole = std::floor((std::sqrt(12 * variance + 1) - 1) / 2);
  const double edge =
      (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) * (whole + 1)));
  const int radius = int(whole) + 1;
  weight.assign(size_t(radius) + 1, float(1 / (2 * (whole + edge) + 1)));
  weight[size_t(radius)] = float(edge / (2 * (whole + edge) + 1));
  keep_within_one(weight);
  return radius;
}

}  // namespace fastssl::core
