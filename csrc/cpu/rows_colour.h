// Colour operations on rows. Part of rows_impl.cpp.
#pragma once

#include "../core/colour.h"
#include "rows.h"

namespace fastssl::cpu {
namespace {

using core::Rgb;

template <typename F>
FASTSSL_HD void each(const Rows& rows, F f) {
  for (int i = 0; i < rows.count; ++i) {
    float* __restrict r = rows.at(i, 0);
    float* __restrict g = rows.at(i, 1);
    float* __restrict b = rows.at(i, 2);
    for (int x = 0; x < rows.columns; ++x) {
      const Rgb<float> p = f(Rgb<float>{r[x], g[x], b[x]});
      r[x] = p.r;
      g[x] = p.g;
      b[x] = p.b;
    }
  }
}

// The same for every channel by itself.
template <typename F>
FASTSSL_HD void each_value(const Rows& rows, F f) {
  for (int i = 0; i < rows.count; ++i) {
    for (int c = 0; c < rows.channels; ++c) {
      float* v = rows.at(i, c);
      for (int x = 0; x < rows.columns; ++x) v[x] = f(v[x]);
    }
  }
}

void brightness(const Rows& rows, float factor) {
  each_value(rows, [=](float v) { return core::brightness(v, factor); });
}
void contrast(const Rows& rows, float factor, float mean) {
  each(rows, [=](Rgb<float> p) { return core::contrast(p, factor, mean); });
}
void saturation(const Rows& rows, float factor) {
  each(rows, [=](Rgb<float> p) { return core::saturation(p, factor); });
}
void hue(const Rows& rows, float turn) {
  each(rows, [=](Rgb<float> p) { return core::hue(p, turn); });
}
void grayscale(const Rows& rows) {
  each(rows, [](Rgb<float> p) {
    const float l = core::luma(p);
    return Rgb<float>{l, l, l};
  });
}
void solarize(const Rows& rows, float threshold) {
  each_value(rows, [=](float v) { return core::solarize(v, threshold); });
}
void posterize(const Rows& rows, float step) {
  each_value(rows, [=](float v) { return core::posterize(v, step); });
}

int64_t luma_sum(const Rows& rows) {
  constexpr int kPiece = 1 << 14;  // whose sum fits into 32 bits
  int64_t total = 0;
  for (int i = 0; i < rows.count; ++i) {
    for (int x = 0; x < rows.columns; x += kPiece) {
      const float *r = rows.at(i, 0) + x, *g = rows.at(i, 1) + x, *b = rows.at(i, 2) + x;
      const int n = rows.columns - x < kPiece ? rows.columns - x : kPiece;
      int32_t sum = 0;
      for (int j = 0; j < n; ++j) sum += core::luma_fixed(core::luma(Rgb<float>{r[j], g[j], b[j]}));
      total += sum;
    }
  }
  return total;
}

}  // namespace
}  // namespace fastssl::cpu
