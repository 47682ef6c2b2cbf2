// What an executor really does for one view: a plan and a spec, checked and compiled on the host.
//
// Everything transcendental ends here (the blur's kernel, sine and cosine), so that every executor works with the same numbers.
// A program is plain data, but for the two arrays that belong to its Compiled.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "blur.h"
#include "colour.h"
#include "image.h"
#include "plan.h"
#include "resample.h"

namespace fastssl::core {

// Views are squares of at most 2^14, so that a row's luma fits into 32 bits.
constexpr int kMaxSize = 16384;

enum class Op : int32_t { Brightness, Contrast, Saturation, Hue, Grayscale, Solarize, Posterize, Blur };

struct Action {
  Op op;
  float value;  // Posterize: the distance of the levels that stay, of 256; Blur: nothing
};

// Jitter 4, grayscale 1, solarize 1, posterize 1, blur up to 3.
constexpr int kMaxActions = 10;

struct Actions {
  Action list[kMaxActions];
  int32_t count = 0;
  Actions() {}  // leaves the list as it is, which {} would clear
  // Without a branch on `when`, which was drawn: written in any case, and counted only then.
  void add(Op op, float value, bool when = true) {
    if (count == kMaxActions) {
      if (when) throw std::invalid_argument("a step stands twice in the order");
      return;
    }
    list[count] = {op, value};
    count += when;
  }
};

struct Program {
  int32_t size = 0;
  Actions before, after;  // the crop, and in place of it
  bool cropped = true;  // false: the source is the view itself, after a custom step
  double top = 0, left = 0, height = 0, width = 0;
  Filter filter = Filter::Bilinear;
  // The view is the resampled crop, mirrored, then transposed (rows become columns); quarter turns are made of these.
  bool mirror_x = false, mirror_y = false, transposed = false;
  bool rotated = false;
  RotateFilter rotate_filter = RotateFilter::Nearest;
  float cosine = 1, sine = 0;
  Border border = Border::Reflect;
  int32_t radius = 0;  // of the blur
  bool finished = true;  // false: values in [0, 1], float32, for a custom step
  int32_t erase_top = 0, erase_left = 0, erase_height = 0, erase_width = 0;
  float erase_value = 0;
};

struct Compiled : Program {
  std::vector<float> kernel;  // half of the blur's kernel, radius + 1
  std::vector<float> scale, bias;  // a channel, to normalize
};

[[noreturn]] inline void refuse(const std::string& why) { throw std::invalid_argument(why); }

// Whole numbers as such; what an edited plan may hold besides, as it is.
inline std::string by(float height, float width) {
  const auto text = [](float v) {
    return std::abs(v) < 1e9f && v == std::floor(v) ? std::to_string(int64_t(v)) : std::to_string(v);
  };
  return text(height) + " x " + text(width);
}

// Whether it is one of 0, 1, ..., most. Comparisons that hold for every drawn plan, and not one for each of the numbers, of
// which the processor would guess some wrong.
inline bool whole(float v, int most) { return v >= 0 && v <= float(most) && v == float(int(v)); }

// Throws std::invalid_argument where the plan does not fit the image or cannot be rendered, in words that can follow a
// sample's name and a colon. A plan that was drawn always passes; one that was edited may not.
inline void check_plan(const ViewSpec& spec, const ViewPlan& plan, int height, int width, int channels) {
  if (spec.size < 1 || spec.size > kMaxSize)
    refuse("a view's size is " + std::to_string(spec.size) + "; it must be from 1 to 16384 pixels");
  if (height < 1 || width < 1 || channels < 1) refuse("it has no pixel");
  if (spec.part != Part::AfterCustom && (plan.source_height != float(height) || plan.source_width != float(width))) {
    refuse("the plan was drawn for " + by(plan.source_height, plan.source_width) +
           " pixels (height x width), this image has " + by(float(height), float(width)) +
           "; draw it with the sizes of these images, in this order");
  }
  // In double: near the end of the image a float's sum would round to it.
  const auto fits = [](double start, double length, double extent) {
    return start >= 0 && start < extent && length > 0 && start + length <= extent;
  };
  if (!fits(plan.top, plan.height, plan.source_height) || !fits(plan.left, plan.width, plan.source_width)) {
    refuse("the crop (top " + std::to_string(plan.top) + ", left " + std::to_string(plan.left) + ", height " +
           std::to_string(plan.height) + ", width " + std::to_string(plan.width) +
           ") does not lie inside the image of " + by(plan.source_height, plan.source_width) +
           " pixels (height x width)");
  }
  if (!whole(plan.flip_h, 1) || !whole(plan.flip_v, 1) || !whole(plan.grayscale, 1))
    refuse("flip_h, flip_v and grayscale must be 0 or 1");
  if (!whole(plan.turns, 3)) refuse("turns must be 0, 1, 2 or 3");
  if (!(std::abs(plan.angle) <= 36000)) refuse("angle must be from -36000 to 36000 degrees");
  int seen = 0;
  for (float which : plan.order) seen |= whole(which, 3) ? 1 << int(which) : 16;
  if (seen != 15) refuse("order0 to order3 must be a permutation of 0, 1, 2, 3");
  for (float factor : {plan.brightness, plan.contrast, plan.saturation}) {
    if (!(factor >= 0) || !std::isfinite(factor))
      refuse("brightness, contrast and saturation must be finite and at least 0");
  }
  if (!(std::abs(plan.hue) <= 0.5f)) refuse("hue must be from -0.5 to 0.5, a part of the circle");
  if (!(plan.sigma_px >= 0 && plan.sigma_px <= 1000)) refuse("sigma_px must be from 0 to 1000");
  if (!(plan.solarize >= 0)) refuse("solarize must be a threshold of at least 0, or infinity for none");
  if (!whole(plan.posterize, kBits)) refuse("posterize must be a whole number of bits from 0 to 8");
  const bool erased = plan.erase_height != 0 && plan.erase_width != 0;
  if (erased &&
      (!fits(plan.erase_top, plan.erase_height, spec.size) || !fits(plan.erase_left, plan.erase_width, spec.size)))
    refuse("erase_top, erase_left, erase_height and erase_width must lie inside the view");
  for (float edge : {plan.erase_top, plan.erase_left, plan.erase_height, plan.erase_width}) {
    if (edge != 0 && edge != std::floor(edge))
      refuse("erase_top, erase_left, erase_height and erase_width must be whole numbers");
  }
  if (!spec.mean.empty() && int(spec.mean.size()) != channels) {
    refuse("it has " + std::to_string(channels) + " channels, and Normalize has " + std::to_string(spec.mean.size()) +
           " means; give one a channel");
  }
}

// What the jitter and the like really do, in order; what would change nothing is left out.
inline void add_jitter(const ViewPlan& plan, Actions& to) {
  static_assert(int(Op::Brightness) == int(Adjust::Brightness) && int(Op::Contrast) == int(Adjust::Contrast) &&
                int(Op::Saturation) == int(Adjust::Saturation) && int(Op::Hue) == int(Adjust::Hue));
  const float value[4] = {plan.brightness, plan.contrast, plan.saturation, hue_turn(plan.hue)};
  const bool changes[4] = {plan.brightness != 1, plan.contrast != 1, plan.saturation != 1, plan.hue != 0};
  for (float which : plan.order) to.add(Op(int(which)), value[int(which)], changes[int(which)]);
}

inline void add_step(Step step, const ViewSpec& spec, const ViewPlan& plan, Actions& to) {
  switch (step) {
    case Step::Jitter: return add_jitter(plan, to);
    case Step::Grayscale: return to.add(Op::Grayscale, 0, plan.grayscale != 0);
    case Step::Blur:
      if (spec.blur == BlurKind::Gaussian && gaussian_reaches(plan.sigma_px)) to.add(Op::Blur, 0);
      // Three box filters one after the other, each with its own border.
      for (int i = 0; i < kBoxPasses && spec.blur == BlurKind::Box && plan.sigma_px > 0; ++i) to.add(Op::Blur, 0);
      return;
    case Step::Solarize: return to.add(Op::Solarize, plan.solarize, std::isfinite(plan.solarize));
    case Step::Posterize:
      if (plan.posterize < kBits) to.add(Op::Posterize, float(1 << (kBits - int(plan.posterize))));
      return;
    case Step::Crop:
    case Step::Custom: return;
  }
}

inline void compile_geometry(const ViewSpec& spec, const ViewPlan& plan, Program& to) {
  to.top = plan.top;
  to.left = plan.left;
  to.height = plan.height;
  to.width = plan.width;
  to.filter = spec.filter;
  // Turned by 90 degrees: column j of the result, read upwards, is row j. So it is the mirrored view, transposed.
  const int turns = int(plan.turns);
  to.mirror_x = (plan.flip_h != 0) != (turns == 1 || turns == 2);
  to.mirror_y = (plan.flip_v != 0) != (turns == 3 || turns == 2);
  to.transposed = turns == 1 || turns == 3;
  to.rotate_filter = spec.rotate_filter;
  if (plan.angle == 0) {  // as what follows gives, without four calls
    to.sine = plan.angle;
    return;
  }
  to.rotated = std::fmod(plan.angle, 360.0f) != 0;
  const double radians = std::fmod(double(plan.angle), 360.0) * (3.14159265358979323846 / 180);
  to.cosine = float(std::cos(radians));
  to.sine = float(std::sin(radians));
}

// Checks and compiles. Keeps the memory that `to` has.
inline void compile(const ViewSpec& spec, const ViewPlan& plan, int height, int width, int channels, Compiled& to) {
  check_plan(spec, plan, height, width, channels);
  static_cast<Program&>(to) = Program{};
  to.size = spec.size;
  to.cropped = spec.part != Part::AfterCustom;
  to.finished = spec.part != Part::BeforeCustom;
  if (to.cropped) compile_geometry(spec, plan, to);
  bool after_crop = !to.cropped, after_custom = false;
  for (int i = 0; i < spec.step_count; ++i) {
    const Step step = spec.steps[i];
    after_crop |= step == Step::Crop;
    after_custom |= step == Step::Custom;
    if (after_custom ? spec.part == Part::BeforeCustom : spec.part == Part::AfterCustom) continue;
    add_step(step, spec, plan, after_crop ? to.after : to.before);
  }
  for (const Actions* actions : {&to.before, &to.after}) {
    for (int i = 0; i < actions->count; ++i) {
      const Op op = actions->list[i].op;
      const bool colour = op == Op::Contrast || op == Op::Saturation || op == Op::Hue || op == Op::Grayscale;
      if (colour && channels != 3) {
        refuse(
            "it has " + std::to_string(channels) +
            " channels, and contrast, saturation, hue and grayscale are made for three; take them out of the recipe");
      }
      if (op != Op::Blur) continue;
      to.border = spec.blur == BlurKind::Gaussian ? Border::Reflect : Border::Repeat;
      to.radius = spec.blur == BlurKind::Gaussian ? gaussian_half_kernel(plan.sigma_px, to.kernel)
                                                  : box_half_kernel(plan.sigma_px, to.kernel);
    }
  }
  to.scale.assign(size_t(channels), 1.0f);
  to.bias.assign(size_t(channels), 0.0f);
  if (!to.finished) return;
  for (size_t c = 0; c < spec.mean.size(); ++c) {
    to.scale[c] = float(1.0 / spec.std[c]);
    to.bias[c] = float(-double(spec.mean[c]) / spec.std[c]);
  }
  if (spec.erase_p == 0 || plan.erase_height == 0 || plan.erase_width == 0) return;
  to.erase_top = int32_t(plan.erase_top);
  to.erase_left = int32_t(plan.erase_left);
  to.erase_height = int32_t(plan.erase_height);
  to.erase_width = int32_t(plan.erase_width);
  to.erase_value = spec.erase_value;
}

// What a program asks of the image's memory and of the batch's type. Throws std::invalid_argument as check_plan() does.
inline void check_memory(const Program& program, const ImageView& image, DType dtype) {
  if (program.before.count > 0 && !image.is_whole())
    refuse("colours before the crop need all of the image, not a part of it");
  if (!program.cropped && (image.height != program.size || image.width != program.size))
    refuse("what follows a custom step must be " + by(float(program.size), float(program.size)) + " pixels");
  if (dtype == DType::UInt8 && program.erase_height > 0 && !(program.erase_value >= 0 && program.erase_value <= 1))
    refuse("uint8 cannot hold the value " + std::to_string(program.erase_value) +
           " that Erase writes; take one from 0 to 1, or ask for a float type");
}

// The axis of a crop from `start` on, of which memory holds [from, from + extent) of the shrunk image.
inline Axis crop_axis(const Program& program, const ImageView& image, double start, double length, int from,
                      int extent) {
  start /= image.shrink;
  length /= image.shrink;
  const int low = int(std::floor(start));
  const int high = std::min(from + extent, std::max(int(std::ceil(start + length)), low + 1));
  if (low < from || high <= low || start + length > from + extent + 1)
    refuse("the part of the image that is in memory does not hold the crop");
  return make_axis(start, length, program.size, low, high, program.filter);
}

}  // namespace fastssl::core
