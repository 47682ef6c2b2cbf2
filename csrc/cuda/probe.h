// One pixel through the arithmetic of core/, for comparing host and device bit by bit.
#pragma once

#include "../core/colour.h"

namespace fastssl::cuda {

constexpr int kProbeOutputs = 13;

FASTSSL_HD void probe_pixel(const float* in, float factor, float* out) {
  const core::Rgb<float> p{in[0], in[1], in[2]};
  const core::Rgb<float> results[] = {
      core::brightness(p, factor),
      core::saturation(p, factor),
      core::hue(p, core::hue_turn(factor - 1)),
      {core::solarize(p.r, factor), core::solarize(p.g, factor), core::solarize(p.b, factor)}};
  *out++ = core::luma(p);
  for (const core::Rgb<float>& q : results) {
    *out++ = q.r;
    *out++ = q.g;
    *out++ = q.b;
  }
}

}  // namespace fastssl::cuda
