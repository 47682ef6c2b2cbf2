// Every number that a colour operation produces is computed here, once.
//
// The executors own memory, threads and order, and call these functions for the arithmetic, so that a change of speed
// cannot become a change of pixels. Templated on the scalar, so that the tests instantiate double. A channel is a value
// in [0, 1] in the file's own encoding (sRGB for JPEG), never linearized. The meaning is that of torchvision.transforms.v2.
#pragma once

#include <cstdint>

#include "macros.h"

namespace fastssl::core {

template <typename T>
struct Rgb {
  T r, g, b;
};

// Luma with the weights of ITU-R BT.601-7, 2.5.1, which Pillow's convert("L") also uses.
template <typename T>
FASTSSL_HD T luma(Rgb<T> p) {
  return fused(T(0.299), p.r, fused(T(0.587), p.g, T(0.114) * p.b));
}

// factor * v + offset, clamped; offset is (1 - factor) times what is blended with.
template <typename T>
FASTSSL_HD Rgb<T> blend(Rgb<T> p, T factor, T offset) {
  return {clamp01(fused(factor, p.r, offset)), clamp01(fused(factor, p.g, offset)),
          clamp01(fused(factor, p.b, offset))};
}

// Blends with black.
template <typename T>
FASTSSL_HD T brightness(T v, T factor) {
  return clamp01(factor * v);
}
template <typename T>
FASTSSL_HD Rgb<T> brightness(Rgb<T> p, T factor) {
  return {brightness(p.r, factor), brightness(p.g, factor), brightness(p.b, factor)};
}

// Blends with `mean`, the mean luma of the view before it.
template <typename T>
FASTSSL_HD Rgb<T> contrast(Rgb<T> p, T factor, T mean) {
  return blend(p, factor, (T(1) - factor) * mean);
}

// Blends each pixel with its luma.
template <typename T>
FASTSSL_HD Rgb<T> saturation(Rgb<T> p, T factor) {
  return blend(p, factor, (T(1) - factor) * luma(p));
}

// Turns the hue by `turn` of a full circle, |turn| <= 0.5, in HSV. No branch, one division.
template <typename T>
FASTSSL_HD Rgb<T> hue(Rgb<T> p, T turn) {
  const T value = larger(p.r, larger(p.g, p.b));
  const T chroma = value - smaller(p.r, smaller(p.g, p.b));
  const T inverse = T(1) / (chroma > T(0) ? chroma : T(1));
  // In sixths of the circle, from -1 to 5.
  const T from_b = T(4) + (p.r - p.g) * inverse;
  const T from_g = T(2) + (p.b - p.r) * inverse;
  const T from_r = (p.g - p.b) * inverse;
  T h = value == p.r ? from_r : (value == p.g ? from_g : from_b);
  h = h + T(6) * turn;
  h = h < T(0) ? h + T(6) : h;
  h = h >= T(6) ? h - T(6) : h;
  const T k_r = h + T(5), k_g = h + T(3), k_b = h + T(1);
  const T w_r = k_r >= T(6) ? k_r - T(6) : k_r;
  const T w_g = k_g >= T(6) ? k_g - T(6) : k_g;
  const T w_b = k_b >= T(6) ? k_b - T(6) : k_b;
  return {value - chroma * clamp01(smaller(w_r, T(4) - w_r)), value - chroma * clamp01(smaller(w_g, T(4) - w_g)),
          value - chroma * clamp01(smaller(w_b, T(4) - w_b))};
}

// Inverts what is at or above `threshold`. Equality inverts, as in PIL.ImageOps.solarize.
template <typename T>
FASTSSL_HD T solarize(T v, T threshold) {
  return v < threshold ? v : T(1) - v;
}

// Keeps every `step`-th of the 256 levels, after rounding to one of them; `step` is a power of 2.
template <typename T>
FASTSSL_HD T posterize(T v, T step) {
  const auto level = int32_t(fused(v, T(255), T(0.5)));
  return T(level - level % int32_t(step)) * (T(1) / T(255));
}

// The mean luma is a sum of fixed-point numbers, hence independent of the order of summation. A row of fewer than 2^15
// pixels fits into 32 bits.
constexpr int kLumaBits = 16;
FASTSSL_HD int32_t luma_fixed(float value) { return int32_t(fused(value, float(1 << kLumaBits), 0.5f)); }

}  // namespace fastssl::core
