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

// Turns the hue in HSV; `turn` is that of hue_turn(). No branch, one division.
template <typename T>
FASTSSL_HD Rgb<T> hue(Rgb<T> p, T turn) {
  const T value = larger(p.r, larger(p.g, p.b));
  const T least = smaller(p.r, smaller(p.g, p.b));
  const T chroma = value - least;
  const bool is_r = value == p.r, is_g = value == p.g;
  const T ahead = is_r ? p.g - p.b : (is_g ? p.b - p.r : p.r - p.g);
  // In sixths of the circle, from 0 to 12, then to 6. Where there is no chroma there is nothing ahead either.
  const T start = turn + (is_r ? T(0) : (is_g ? T(2) : T(4)));
  T h = start + ahead / larger(chroma, T(1e-30));
  h = h >= T(6) ? h - T(6) : h;
  const T from_r = h < T(3) ? T(3) - h : h - T(3);
  const T from_g = h < T(2) ? T(2) - h : h - T(2);
  const T from_b = h < T(4) ? T(4) - h : h - T(4);
  return {fused(chroma, clamp01(from_r - T(1)), least), fused(chroma, clamp01(T(2) - from_g), least),
          fused(chroma, clamp01(T(2) - from_b), least)};
}

// A turn by a part of the circle, from -0.5 to 0.5, as hue() takes it: in sixths, from 1 up to 7, so that no hue is below 0.
FASTSSL_HD float hue_turn(float part) {
  const float sixths = 6 * part;
  return sixths < 1 ? sixths + 6 : sixths;
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
FASTSSL_HD float mean_luma(int64_t sum, int32_t rows, int32_t columns) {
  return float(double(sum) / (double(1 << kLumaBits) * rows * columns));
}

}  // namespace fastssl::core
