// Draws plans: all logarithms, exponentials and square roots of the engine are here, on the host.
//
// Each quantity has its own draw number, so that switching one operation off leaves every other as it was.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
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

// One image to draw for.
struct Sample {
  uint64_t index;  // in its source
  int32_t height, width;
};

// A range that is drawn from again and again, its difference taken once.
struct Range {
  double low, span;
  Range(double from, double to) : low(from), span(to - from) {}
  explicit Range(const double range[2]) : Range(range[0], range[1]) {}
  double at(uint32_t word) const { return low + span * uniform(word); }
};

// std::nearbyint of a value from 0 on, which without SSE4.1 is a call: from 2^52 on a double has no fraction, and adding
// rounds to even.
inline double rounded(double value) { return (value + 0x1p52) - 0x1p52; }

// `yes` or `no` without a branch, which a coin decides and no processor predicts.
inline float either(bool coin, float yes, float no) {
  const uint32_t mask = -uint32_t(coin);
  return std::bit_cast<float>((std::bit_cast<uint32_t>(yes) & mask) | (std::bit_cast<uint32_t>(no) & ~mask));
}

// Where a random crop is cut from.
struct Box {
  int32_t height, width;
};

// The permutations of {0, 1, 2, 3} in lexicographic order.
struct Orders {
  float of[24][4];
  constexpr Orders() : of{} {
    for (int rank = 0; rank < 24; ++rank) {
      int left[4] = {0, 1, 2, 3}, rest = rank;
      const int weight[4] = {6, 2, 1, 1};
      for (int i = 0; i < 4; ++i) {
        const int pick = i < 3 ? rest / weight[i] : 0;
        rest %= weight[i];
        of[rank][i] = float(left[pick]);
        for (int j = pick; j + 1 < 4 - i; ++j) left[j] = left[j + 1];
      }
    }
  }
};
inline constexpr Orders kOrders;

// One attempt of a random resized crop: whether it fits into the box; if not, the plan's crop means nothing.
inline bool try_crop(const Range& part, const Range& log_aspect, const Random4& r, const Box& box, ViewPlan& plan) {
  const double area = double(box.height) * box.width * part.at(r.v[0]);
  const double aspect = std::exp(log_aspect.at(r.v[1]));
  const double w = rounded(std::sqrt(area * aspect));
  const double h = rounded(std::sqrt(area / aspect));
  plan.top = float(uniform_below(r.v[2], uint32_t(larger(box.height - h, 0.0) + 1)));
  plan.left = float(uniform_below(r.v[3], uint32_t(larger(box.width - w, 0.0) + 1)));
  plan.height = float(h);
  plan.width = float(w);
  return (w >= 1) & (h >= 1) & (w <= box.width) & (h <= box.height);
}

// The largest central box within the range of aspects.
inline void central_crop(const ViewSpec& spec, const Box& box, ViewPlan& plan) {
  const double aspect = double(box.width) / box.height;
  double w = box.width, h = box.height;
  if (aspect < spec.aspect[0]) h = std::nearbyint(box.width / spec.aspect[0]);
  if (aspect > spec.aspect[1]) w = std::nearbyint(box.height * spec.aspect[1]);
  h = std::clamp(h, 1.0, double(box.height));
  w = std::clamp(w, 1.0, double(box.width));
  plan.top = float(int(box.height - h) / 2);
  plan.left = float(int(box.width - w) / 2);
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
  const Range share(spec.erase_area), log_aspect(std::log(spec.erase_aspect[0]), std::log(spec.erase_aspect[1]));
  const double area = double(spec.size) * spec.size;
  for (int attempt = 0; attempt < kEraseAttempts; ++attempt) {
    const Random4 r = draw_block(key, kDrawErase + attempt);
    const double part = area * share.at(r.v[0]);
    const double aspect = std::exp(log_aspect.at(r.v[1]));  // height over width here, as there
    const double h = rounded(std::sqrt(part * aspect));
    const double w = rounded(std::sqrt(part / aspect));
    if (h >= 1 && w >= 1 && h < spec.size && w < spec.size) {
      plan.erase_top = float(uniform_below(r.v[2], uint32_t(spec.size - h + 1)));
      plan.erase_left = float(uniform_below(r.v[3], uint32_t(spec.size - w + 1)));
      plan.erase_height = float(h);
      plan.erase_width = float(w);
      return;
    }
  }
}

// One view of many images. The plan of image i is plans[i * stride], and those of the views before it lie before it.
struct ViewBatch {
  const ViewSpec& spec;
  DrawKey key;  // but for the index
  const Sample* samples;
  size_t count, stride;
  ViewPlan* plans;
  const ViewPlan* earlier;  // the first view of the first image

  DrawKey key_of(size_t i) const {
    DrawKey out = key;
    out.index = samples[i].index;
    return out;
  }
  const ViewPlan& other(size_t i) const { return earlier[i * stride + size_t(spec.of)]; }
};

// Random resized crop as torchvision's RandomResizedCrop.get_params (Szegedy et al., 2015, arXiv:1409.4842): up to ten
// attempts with uniform area and log-uniform aspect, then the largest central box within the range of aspects.
//
// Attempt by attempt over many images, and not image by image: whether an attempt fits is found out late, and guessed
// wrong as often as it does not.
inline void draw_random_crops(const ViewBatch& batch) {
  constexpr size_t kTogether = 64;
  const ViewSpec& spec = batch.spec;
  const Range part(spec.area), log_aspect(std::log(spec.aspect[0]), std::log(spec.aspect[1]));
  const auto box = [&](size_t i) -> Box {
    if (spec.of < 0) return {batch.samples[i].height, batch.samples[i].width};
    return {int32_t(batch.other(i).height), int32_t(batch.other(i).width)};
  };
  for (size_t first = 0; first < batch.count; first += kTogether) {
    size_t open[kTogether], left = std::min(kTogether, batch.count - first);
    for (size_t j = 0; j < left; ++j) open[j] = first + j;
    for (int attempt = 0; attempt < kCropAttempts && left; ++attempt) {
      size_t still = 0;
      for (size_t j = 0; j < left; ++j) {
        const size_t i = open[j];
        const Random4 r = draw_block(batch.key_of(i), kDrawCrop + attempt);
        const bool fits = try_crop(part, log_aspect, r, box(i), batch.plans[i * batch.stride]);
        open[still] = i;
        still += !fits;
      }
      left = still;
    }
    for (size_t j = 0; j < left; ++j) central_crop(spec, box(open[j]), batch.plans[open[j] * batch.stride]);
  }
  if (spec.of < 0) return;
  for (size_t i = 0; i < batch.count; ++i) {
    batch.plans[i * batch.stride].top += batch.other(i).top;
    batch.plans[i * batch.stride].left += batch.other(i).left;
  }
}

// Where the views come from: the crop, flips, turn and rotation.
inline void draw_geometry(const ViewBatch& batch) {
  const ViewSpec& spec = batch.spec;
  if (spec.crop == CropKind::Random) draw_random_crops(batch);
  for (size_t i = 0; i < batch.count; ++i) {
    ViewPlan& plan = batch.plans[i * batch.stride];
    const int32_t height = batch.samples[i].height, width = batch.samples[i].width;
    if (spec.crop == CropKind::Same) {
      const ViewPlan& of = batch.other(i);
      plan.top = of.top;
      plan.left = of.left;
      plan.height = of.height;
      plan.width = of.width;
      plan.flip_h = of.flip_h;
      plan.flip_v = of.flip_v;
      plan.turns = of.turns;
      plan.angle = of.angle;
      continue;
    }
    if (spec.crop == CropKind::Center) draw_center_crop(spec, height, width, plan);
    if (spec.crop == CropKind::Whole) {
      plan.height = float(height);
      plan.width = float(width);
    }
    const DrawKey key = batch.key_of(i);
    if (spec.flip_p > 0 || spec.vflip_p > 0 || spec.turn_p > 0) {
      const Random4 flip = draw_block(key, kDrawFlip);
      plan.flip_h = either(uniform(flip.v[0]) < spec.flip_p, 1, 0);
      plan.flip_v = either(uniform(flip.v[1]) < spec.vflip_p, 1, 0);
      if (uniform(flip.v[2]) < spec.turn_p)
        plan.turns = float(spec.turns[uniform_below(flip.v[3], uint32_t(spec.turns.size()))]);
    }
    if (spec.rotate_p > 0) {
      const Random4 more = draw_block(key, kDrawMore);
      if (uniform(more.v[0]) < spec.rotate_p) plan.angle = float(Range(spec.degrees).at(more.v[1]));
    }
  }
}

// Jitter, grayscale, blur and solarize.
inline void draw_colours(const ViewBatch& batch) {
  const ViewSpec& spec = batch.spec;
  if (!(spec.jitter_p > 0 || spec.grayscale_p > 0 || spec.blur_p > 0 || spec.solarize_p > 0)) return;
  const Range brightness(spec.brightness), contrast(spec.contrast), saturation(spec.saturation), hue(spec.hue);
  const Range sigma_px(spec.sigma_px);
  const float threshold = float(spec.threshold);
  for (size_t i = 0; i < batch.count; ++i) {
    ViewPlan& plan = batch.plans[i * batch.stride];
    const DrawKey key = batch.key_of(i);
    const Random4 apply = draw_block(key, kDrawApply);
    Random4 order{};
    if (spec.jitter_p > 0 || spec.blur_p > 0) order = draw_block(key, kDrawOrder);
    if (spec.jitter_p > 0) {
      const bool jittered = uniform(apply.v[0]) < spec.jitter_p;
      const Random4 factor = draw_block(key, kDrawFactors);
      plan.brightness = either(jittered, float(brightness.at(factor.v[0])), 1);
      plan.contrast = either(jittered, float(contrast.at(factor.v[1])), 1);
      plan.saturation = either(jittered, float(saturation.at(factor.v[2])), 1);
      plan.hue = either(jittered, float(hue.at(factor.v[3])), 0);
      std::memcpy(plan.order, kOrders.of[jittered * uniform_below(order.v[0], 24)], sizeof(plan.order));
    }
    plan.grayscale = either(uniform(apply.v[1]) < spec.grayscale_p, 1, 0);
    plan.sigma_px = either(uniform(apply.v[2]) < spec.blur_p, float(sigma_px.at(order.v[1])), 0);
    plan.solarize = either(uniform(apply.v[3]) < spec.solarize_p, threshold, ViewPlan().solarize);
  }
}

// All of a view. What has no probability draws no block: a coin of 0 never falls.
inline void draw_view(const ViewBatch& batch) {
  const ViewSpec& spec = batch.spec;
  for (size_t i = 0; i < batch.count; ++i) {
    ViewPlan& plan = batch.plans[i * batch.stride];
    plan = ViewPlan();
    plan.source_height = float(batch.samples[i].height);
    plan.source_width = float(batch.samples[i].width);
  }
  draw_geometry(batch);
  draw_colours(batch);
  if (!(spec.posterize_p > 0 || spec.erase_p > 0)) return;
  for (size_t i = 0; i < batch.count; ++i) {
    ViewPlan& plan = batch.plans[i * batch.stride];
    const DrawKey key = batch.key_of(i);
    const Random4 more = draw_block(key, kDrawMore);
    if (uniform(more.v[2]) < spec.posterize_p) plan.posterize = float(spec.bits);
    if (uniform(more.v[3]) < spec.erase_p) draw_erase(spec, key, plan);
  }
}

// The plans of `views` views of each of `count` images, image by image in memory; a view may follow an earlier one
// (ViewSpec::of). The key's view and index are set here.
inline void draw_batch(const ViewSpec* specs, size_t views, DrawKey key, const Sample* samples, size_t count,
                       ViewPlan* plans) {
  for (size_t v = 0; v < views; ++v) {
    key.view = uint32_t(v);
    draw_view({specs[v], key, samples, count, views, plans + v, plans});
  }
}

// The same of one image, which key.index names.
inline void draw_views(const ViewSpec* specs, size_t count, const DrawKey& key, int height, int width,
                       ViewPlan* plans) {
  const Sample sample{key.index, height, width};
  draw_batch(specs, count, key, &sample, 1, plans);
}

// The plan of view key.view of one image; `earlier` holds those of the views before it.
inline ViewPlan draw_view(const ViewSpec& spec, const DrawKey& key, int height, int width, const ViewPlan* earlier) {
  const Sample sample{key.index, height, width};
  ViewPlan plan;
  draw_view({spec, key, &sample, 1, 1, &plan, earlier});
  return plan;
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
