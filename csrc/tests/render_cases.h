// Cases for the tests of the executors: every operation, in every form, on memory of just the right size.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/draw.h"
#include "core/plan.h"
#include "cpu/cache.h"
#include "cpu/render.h"
#include "cpu/window.h"
#include "tests/check.h"

namespace cases {

using namespace fastssl;
using core::Step;

// The choices that are crossed. What one of them rules out in another is put right in make_case().
enum Axis {
  kImage,
  kSize,
  kChannels,
  kPixels,
  kOutput,
  kLayout,
  kFilter,
  kCrop,
  kBlur,
  kRotation,
  kTurns,
  kErase,
  kPart,
  kOrder,
  kMemory,
  kColour,
  kNormalize,
  kAxes
};
enum { kRandom, kCenter, kWhole, kSame, kInside };  // kCrop
enum { kPlain, kJitter, kGrayscale, kSolarize, kPosterize, kBrightness, kAll };  // kColour
enum { kCropFirst, kBlurFirst, kCropLast, kBackwards };  // kOrder
constexpr int kCounts[kAxes] = {9, 7, 5, 3, 4, 2, 2, 5, 3, 3, 4, 2, 3, 4, 6, 7, 2};

constexpr int kImages[][2] = {{1, 1}, {1, 300}, {300, 1}, {2, 2}, {3, 5}, {57, 41}, {1500, 10}, {16, 64}, {130, 200}};
constexpr int kSizes[] = {1, 2, 15, 16, 33, 64, 97};

struct Case {
  int of[kAxes];
  int height, width, channels;
  core::ViewSpec specs[2];  // the second is the one that is rendered; it may follow the first
  core::ViewPlan plans[2];
  cpu::ImageView image;
  std::vector<float> pixels;  // floats, so that they are aligned for every type

  const core::ViewSpec& spec() const { return specs[1]; }
};

inline void set_colour(core::ViewSpec& spec, int colour, int channels) {
  const bool all = colour == kAll;
  if (all || colour == kJitter || colour == kBrightness) {
    spec.jitter_p = 1;
    spec.brightness[0] = 0.2;
    spec.brightness[1] = 1.8;
    if (colour != kBrightness && channels == 3) {
      spec.contrast[0] = spec.saturation[0] = 0.2;
      spec.contrast[1] = spec.saturation[1] = 1.8;
      spec.hue[0] = -0.5;
      spec.hue[1] = 0.5;
    }
  }
  if ((all || colour == kGrayscale) && channels == 3) spec.grayscale_p = all ? 0.3 : 1;
  if (all || colour == kSolarize) spec.solarize_p = 1;
  if (all || colour == kPosterize) spec.posterize_p = 1;
}

inline void set_order(core::ViewSpec& spec, int order) {
  const Step orders[][core::kMaxSteps] = {
      {Step::Crop, Step::Jitter, Step::Grayscale, Step::Custom, Step::Blur, Step::Solarize, Step::Posterize},
      {Step::Blur, Step::Crop, Step::Posterize, Step::Custom, Step::Jitter, Step::Solarize, Step::Grayscale},
      {Step::Jitter, Step::Grayscale, Step::Blur, Step::Solarize, Step::Posterize, Step::Crop, Step::Custom},
      {Step::Crop, Step::Posterize, Step::Solarize, Step::Custom, Step::Blur, Step::Grayscale, Step::Jitter},
  };
  std::copy_n(orders[order], core::kMaxSteps, spec.steps);
  spec.step_count = core::kMaxSteps;
}

// `size` of what memory holds of the image: all of it, what the view needs, the same in a smaller copy, a smaller copy.
inline void set_memory(Case& c, int memory) {
  cpu::ImageView& image = c.image;
  image.whole();
  if (memory == 1 || memory == 2) {
    const cpu::Needed needed = cpu::needed_by(c.specs + 1, c.plans + 1, 1, c.height, c.width, memory == 2);
    image.shrink = needed.shrink;
    image.top = needed.window.top;
    image.left = needed.window.left;
    image.rows = needed.window.rows;
    image.columns = needed.window.columns;
  } else if (memory > 2) {
    image.shrink = 1 << (memory - 2);
    image.whole();
  }
}

inline void fill(Case& c, uint32_t seed) {
  cpu::ImageView& image = c.image;
  const bool planar = image.type == cpu::PixelType::Float32;
  image.stride = planar ? 4 * int64_t(image.columns) : cpu::row_bytes(image);
  image.plane = planar ? image.stride * image.rows : 0;
  const size_t values = size_t(image.rows) * size_t(image.columns) * size_t(image.channels);
  c.pixels.assign((values * size_t(cpu::pixel_size(image.type)) + 3) / 4, 0.0f);
  // At the end of that memory, so that reading one value too much is noticed.
  auto* const bytes = reinterpret_cast<uint8_t*>(c.pixels.data()) + 4 * c.pixels.size();
  uint8_t* const begin = bytes - values * size_t(cpu::pixel_size(image.type));
  for (size_t i = 0; i < values; ++i) {
    const uint32_t r = noise(seed + uint32_t(i / 4)) >> (8 * (i % 4));
    if (planar) c.pixels[i] = float(r & 255) / 255;
    if (image.type == cpu::PixelType::UInt8) begin[i] = uint8_t(r);
    if (image.type == cpu::PixelType::UInt16) {
      const auto wide = uint16_t((r & 255) * 257);
      std::memcpy(begin + 2 * i, &wide, 2);
    }
  }
  image.pixels = begin;
}

inline void make_case(Case& c, uint32_t number) {
  const auto draw = [&](int axis) { return int(noise(number * kAxes + uint32_t(axis)) % uint32_t(kCounts[axis])); };
  for (int axis = 0; axis < kAxes; ++axis) c.of[axis] = draw(axis);
  // What a recipe or its caller rules out.
  const bool after = core::Part(c.of[kPart]) == core::Part::AfterCustom;
  if (c.of[kOrder] == kBlurFirst || c.of[kOrder] == kCropLast) c.of[kMemory] = 0;
  if (after) {
    c.of[kPixels] = int(cpu::PixelType::Float32);
    c.of[kMemory] = 0;
  }
  if (cpu::DType(c.of[kOutput]) == cpu::DType::UInt8) c.of[kNormalize] = 0;
  c.channels = 1 + c.of[kChannels];

  c.specs[0] = core::ViewSpec{};
  c.specs[0].size = 8;
  c.specs[0].flip_p = c.specs[0].vflip_p = c.specs[0].turn_p = 0.5;
  c.specs[0].area[0] = 0.3;
  core::ViewSpec& spec = c.specs[1] = core::ViewSpec{};
  spec.size = kSizes[c.of[kSize]];
  const int crop = c.of[kCrop];
  spec.crop = crop == kInside ? core::CropKind::Random : core::CropKind(crop);
  spec.of = crop == kSame || crop == kInside ? 0 : -1;
  spec.filter = core::Filter(c.of[kFilter]);
  spec.keep = 0.7;
  spec.flip_p = spec.vflip_p = 0.5;
  spec.part = core::Part(c.of[kPart]);
  set_colour(spec, c.of[kColour], c.channels);
  set_order(spec, c.of[kOrder]);
  if (c.of[kBlur]) {
    spec.blur_p = 1;
    spec.blur = core::BlurKind(c.of[kBlur] - 1);
    spec.sigma_px[1] = number % 7 == 0 ? 20 : 3;
  }
  if (c.of[kRotation]) {
    spec.rotate_p = 1;
    spec.rotate_filter = core::RotateFilter(c.of[kRotation] - 1);
    spec.degrees[0] = -180;
    spec.degrees[1] = 180;
  }
  spec.bits = int(number % 9);
  spec.erase_p = c.of[kErase];
  spec.erase_value = 0.25f;
  for (int k = 0; c.of[kNormalize] && k < c.channels; ++k) {
    spec.mean.push_back(0.4f);
    spec.std.push_back(0.2f);
  }

  c.height = after ? spec.size : kImages[c.of[kImage]][0];
  c.width = after ? spec.size : kImages[c.of[kImage]][1];
  core::DrawKey key;
  key.index = number;
  core::draw_views(c.specs, 2, key, c.height, c.width, c.plans);
  c.plans[1].turns = float(c.of[kTurns]);
  c.image = cpu::ImageView{};
  c.image.height = c.height;
  c.image.width = c.width;
  c.image.type = cpu::PixelType(c.of[kPixels]);
  c.image.channels = c.channels;
  set_memory(c, c.of[kMemory]);
  fill(c, number);
}

}  // namespace cases
