// Draws plans: all logarithms, exponentials and square roots of the engine are here, on the host.
//
// Each quantity has its own draw number, so that switching one operation off leaves every other as it was.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "philox.h"
#include "plan.h"

namespace fastssl::core {

// Draw numbers; a number, once given, keeps its meaning for ever, or stored seeds would give other views.
enum Draw : uint32_t {
  kDrawCrop = 0,     // 0 to 9: one attempt each: area, aspect, top, left
  kDrawFlip = 16,    // horizontal, vertical, whether turned, how far
  kDrawApply = 17,   // jitter, grayscale, blur, solarize
  kDrawFactors = 18, // brightness, contrast, saturation, hue
  kDrawOrder = 19,   // order of the jitter, sigma
  kDrawMore = 20,    // whether rotated, the angle, whether posterized, whether erased
  kDrawErase = 32,   // 32 to 41: one attempt each: area, aspect, top, left
};
constexpr int kCropAttempts = 10, kEraseAttempts = 10;

inline double lerp(const double range[2], uint32_t word) { return range[0] + (range[1] - range[0]) * uniform(word); }

// Random resized crop as torchvision's RandomResizedCrop.get_params (Szegedy et al., 2015, arXiv:1409.4842): up to ten
// attempts with uniform area and log-uniform aspect, then the largest central box within the range of aspects.
inline void draw_random_crop(const ViewSpec& spec, const DrawKey& key, int height, int width, ViewPlan& plan) {
  const double log_aspect[2] = {std::log(spec.aspect[0]), std::log(spec.aspect[1])};
  for (int attempt = 0; attempt < kCropAttempts; ++attempt) {
    const Random4 r = draw_block(key, kDrawCrop + attempt);
    const double area = double(height) * width * lerp(spec.area, r.v[0]);
    const double aspect = std::exp(lerp(log_aspect, r.v[1]));
    const double w = std::nearbyint(std::sqrt(area * aspect));
    const double h = std::nearbyint(std::sqrt(area / aspect));
    if (w >= 1 && h >= 1 && w <= width && h <= height) {
      plan.top = float(uniform_below(r.v[2], uint32_t(height - h + 1)));
      plan.left = float(uniform_below(r.v[3], uint32_t(width - w + 1)));
      plan.height = float(h);
      plan.width = float(w);
      return;
    }
  }
  const double aspect = double(width) / height;
  double w = width, h = height;
  if (aspect < spec.aspect[0]) h = std::nearbyint(width / spec.aspect[0]);
  if (aspect > spec.aspect[1]) w = std::nearbyint(height * spec.aspect[1]);
  h = std::clamp(h, 1.0, double(height));
  w = std::clamp(w, 1.0, double(width));
  plan.top = float(int(height - h) / 2);
  plan.left = float(int(width - w) / 2);
  plan.height = float(h);
  plan.width = float(w);
}

// The central square whose side is `keep` times the shorter side.
inline void draw_center_crop(const ViewSpec& spec, int height, int width, ViewPlan& plan) {
  const int side = std::max(1, int(std::nearbyint(spec.keep * std::min(height, width))));
  plan.top = float((height - side) / 2);
  plan.left = float((width - side) / 2);
  plan.height = plan.width = float(side);
}

// Random erasing as torchvision's RandomErasing.get_params (Zhong et al., 2017, arXiv:1708.04896); after ten attempts nothing.
inline void draw_erase(const ViewSpec& spec, const DrawKey& key, ViewPlan& plan) {
  const double log_aspect[2] = {std::log(spec.erase_aspect[0]), std::log(spec.erase_aspect[1])};
  const double area = double(spec.size) * spec.size;
  for (int attempt = 0; attempt < kEraseAttempts; ++attempt) {
    const Random4 r = draw_block(key, kDrawErase + attempt);
    const double part = area * lerp(spec.erase_area, r.v[0]);
    const double aspect = std::exp(lerp(log_aspect, r.v[1]));  // height over width here, as there
    const double h = std::nearbyint(std::sqrt(part * aspect));
    const double w = std::nearbyint(std::sqrt(part / aspect));
    if (h >= 1 && w >= 1 && h < spec.size && w < spec.size) {
      plan.erase_top = float(uniform_below(r.v[2], uint32_t(spec.size - h + 1)));
      plan.erase_left = float(uniform_below(r.v[3], uint32_t(spec.size - w + 1)));
      plan.erase_height = float(h);
      plan.erase_width = float(w);
      return;
    }
  }
}

// The permutation of {0, 1, 2, 3} that has number `rank` (0 to 23) in lexicographic order.
inline void unrank_order(uint32_t rank, float order[4]) {
  int left[4] = {0, 1, 2, 3};
  const uint32_t weight[4] = {6, 2, 1, 1};
  for (int i = 0; i < 4; ++i) {
    const uint32_t pick = i < 3 ? rank / weight[i] : 0;
    if (i < 3) rank %= weight[i];
    order[i] = float(left[pick]);
    for (int j = int(pick); j + 1 < 4 - i; ++j) left[j] = left[j + 1];
  }
}

// Where a view comes from: the crop, flips, turn and rotation. `earlier` holds the plans of the views before it.
inline void draw_geometry(const ViewSpec& spec, const DrawKey& key, int height, int width, const ViewPlan* earlier,
                          ViewPlan& plan) {
  if (spec.crop == CropKind::Same) {
    const ViewPlan& of = earlier[spec.of];
    plan.top = of.top;
    plan.left = of.left;
    plan.height = of.height;
    plan.width = of.width;
    plan.flip_h = of.flip_h;
    plan.flip_v = of.flip_v;
    plan.turns = of.turns;
    plan.angle = of.angle;
    return;
  }
  if (spec.crop == CropKind::Random && spec.of >= 0) {
    const ViewPlan& of = earlier[spec.of];
    draw_random_crop(spec, key, int(of.height), int(of.width), plan);
    plan.top += of.top;
    plan.left += of.left;
  } else if (spec.crop == CropKind::Random) {
    draw_random_crop(spec, key, height, width, plan);
  } else if (spec.crop == CropKind::Center) {
    draw_center_crop(spec, height, width, plan);
  } else {
    plan.height = float(height);
    plan.width = float(width);
  }
  const Random4 flip = draw_block(key, kDrawFlip);
  plan.flip_h = uniform(flip.v[0]) < spec.flip_p;
  plan.flip_v = uniform(flip.v[1]) < spec.vflip_p;
  if (uniform(flip.v[2]) < spec.turn_p)
    plan.turns = float(spec.turns[uniform_below(flip.v[3], uint32_t(spec.turns.size()))]);
  if (spec.rotate_p > 0) {
    const Random4 more = draw_block(key, kDrawMore);
    if (uniform(more.v[0]) < spec.rotate_p) plan.angle = float(lerp(spec.degrees, more.v[1]));
  }
}

inline ViewPlan draw_view(const ViewSpec& spec, const DrawKey& key, int height, int width, const ViewPlan* earlier) {
  ViewPlan plan;
  plan.source_height = float(height);
  plan.source_width = float(width);
  draw_geometry(spec, key, height, width, earlier, plan);
  const Random4 apply = draw_block(key, kDrawApply);
  const Random4 order = draw_block(key, kDrawOrder);
  if (uniform(apply.v[0]) < spec.jitter_p) {
    const Random4 factor = draw_block(key, kDrawFactors);
    plan.brightness = float(lerp(spec.brightness, factor.v[0]));
    plan.contrast = float(lerp(spec.contrast, factor.v[1]));
    plan.saturation = float(lerp(spec.saturation, factor.v[2]));
    plan.hue = float(lerp(spec.hue, factor.v[3]));
    unrank_order(uniform_below(order.v[0], 24), plan.order);
  }
  plan.grayscale = uniform(apply.v[1]) < spec.grayscale_p;
  if (uniform(apply.v[2]) < spec.blur_p) plan.sigma_px = float(lerp(spec.sigma_px, order.v[1]));
  if (uniform(apply.v[3]) < spec.solarize_p) plan.solarize = float(spec.threshold);
  if (spec.posterize_p > 0 || spec.erase_p > 0) {
    const Random4 more = draw_block(key, kDrawMore);
    if (uniform(more.v[2]) < spec.posterize_p) plan.posterize = float(spec.bits);
    if (uniform(more.v[3]) < spec.erase_p) draw_erase(spec, key, plan);
  }
  return plan;
}

// The plans of all views of one image; a view may follow an earlier one (ViewSpec::of). `key.view` is set here.
inline void draw_views(const ViewSpec* specs, size_t count, DrawKey key, int height, int width, ViewPlan* plans) {
  for (size_t v = 0; v < count; ++v) {
    key.view = uint32_t(v);
    plans[v] = draw_view(specs[v], key, height, width, plans);
  }
}

// The order in which epoch `epoch` visits n samples: Fisher-Yates, a function of (seed, epoch, n) alone.
inline void draw_permutation(uint64_t seed, uint32_t epoch, int64_t n, int64_t* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = i;
  DrawKey key;
  key.seed = seed;
  key.epoch = epoch;
  key.view = kShuffleStream;
  for (int64_t i = n - 1; i > 0; --i) {
    key.index = uint64_t(i) >> 1;
    const Random4 r = draw_block(key, 0);
    const int half = int(i & 1) * 2;
    const uint64_t word = uint64_t(r.v[half]) << 32 | r.v[half + 1];
    const auto j = int64_t((unsigned __int128)(word)*uint64_t(i + 1) >> 64);
    std::swap(out[i], out[j]);
  }
}

}  // namespace fastssl::core
