// Weights of separable, antialiased resampling, as in Pillow's Image.resize and torchvision's resize(antialias=True).
//
// A triangle (bilinear) or Keys' cubic with a = -0.5 (bicubic), stretched by the scale when shrinking, so that every
// source pixel counts. Weights end at the crop and are normalized to a sum of 1. Only + - x / and floor: equal on every device.
#pragma once

#include <cstdint>

#include "macros.h"
#include "plan.h"

namespace fastssl::core {

FASTSSL_HD float filter_support(Filter filter) { return filter == Filter::Bilinear ? 1.0f : 2.0f; }

FASTSSL_HD float filter_weight(Filter filter, float t) {
  t = t < 0 ? -t : t;
  if (filter == Filter::Bilinear) return t < 1 ? 1 - t : 0.0f;
  // Keys, 1981, with a = -0.5.
  if (t < 1) return (1.5f * t - 2.5f) * t * t + 1;
  if (t < 2) return ((-0.5f * t + 2.5f) * t - 4) * t + 2;
  return 0.0f;
}

// One axis of a crop: [start, start + length) of the source becomes `size` pixels; taps stay within [low, high).
struct Axis {
  double start;
  int32_t size, low, high;
  Filter filter;
  // From length and size: source pixels an output pixel, its reach on either side, and one over the filter's stretch.
  double scale, support;
  float inverse_stretch;
};

FASTSSL_HD Axis make_axis(double start, double length, int32_t size, int32_t low, int32_t high, Filter filter) {
  const double scale = length / size;
  const double stretch = larger(scale, 1.0);
  return {start, size, low, high, filter, scale, filter_support(filter) * stretch, float(1.0 / stretch)};
}

struct Taps {
  int32_t first, count;
};

// Upper bound of the number of taps of any output pixel.
FASTSSL_HD int32_t axis_max_taps(const Axis& axis) {
  return int32_t(smaller(2 * axis.support, double(axis.high - axis.low))) + 2;
}

// Writes the weights of output pixel i, and returns where in the source they begin and how many they are (at least 1).
FASTSSL_HD Taps axis_taps(const Axis& axis, int32_t i, float* weight) {
  const double center = axis.start + (i + 0.5) * axis.scale;
  // The casts truncate, and both arguments are made non-negative first.
  int32_t first = int32_t(larger(center - axis.support + 0.5, double(axis.low)));
  int32_t last = int32_t(larger(smaller(center + axis.support + 0.5, double(axis.high)), 0.0));
  first = smaller(first, axis.high - 1);
  last = larger(last, first + 1);
  float total = 0;
  for (int32_t j = first; j < last; ++j) {
    const float w = filter_weight(axis.filter, float(j + 0.5 - center) * axis.inverse_stretch);
    weight[j - first] = w;
    total += w;
  }
  if (total == 0) {  // the one pixel in reach lies exactly where the filter ends
    weight[0] = total = 1;
    last = first + 1;
  }
  const float inverse = 1.0f / total;
  for (int32_t j = first; j < last; ++j) weight[j - first] *= inverse;
  return {first, last - first};
}

}  // namespace fastssl::core
