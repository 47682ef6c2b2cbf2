#include "render.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "../core/colour.h"
#include "../core/draw.h"
#include "../core/resample.h"

// Note [Passes over a view]
// A view is made row by row, and a row goes through as many operations as it can while it lies in the first-level cache.
// Two things end a pass, because they need more than the row: contrast needs the mean of the whole view before it, and
// blur needs the rows around. So a view is: a source of rows (the resampled crop, the planes in memory, or the planes
// blurred), then operations on each row, then a sink (planes in memory, or the output). Usually two or three passes.

namespace fastssl::cpu {

using core::Adjust;
using core::Step;
using core::ViewPlan;
using core::ViewSpec;

namespace {

// Views are squares of less than 2^14, so that a row's luma fits into 32 bits.
constexpr int kMaxSize = 16384;

enum class Op { Brightness, Contrast, Saturation, Hue, Grayscale, Solarize, Blur };

struct Action {
  Op op;
  float value;
};

// What the plan really does, in order; what would change nothing is left out.
int list_actions(const ViewSpec& spec, const ViewPlan& plan, Action* list) {
  int n = 0;
  for (int i = 0; i < spec.step_count; ++i) {
    switch (spec.steps[i]) {
      case Step::Jitter:
        for (float which : plan.order) {
          switch (Adjust(int(which))) {
            case Adjust::Brightness:
              if (plan.brightness != 1) list[n++] = {Op::Brightness, plan.brightness};
              break;
            case Adjust::Contrast:
              if (plan.contrast != 1) list[n++] = {Op::Contrast, plan.contrast};
              break;
            case Adjust::Saturation:
              if (plan.saturation != 1) list[n++] = {Op::Saturation, plan.saturation};
              break;
            case Adjust::Hue:
              if (plan.hue != 0) list[n++] = {Op::Hue, plan.hue};
              break;
          }
        }
        break;
      case Step::Grayscale:
        if (plan.grayscale != 0) list[n++] = {Op::Grayscale, 0};
        break;
      case Step::Blur:
        if (core::gaussian_reaches(plan.sigma_px)) list[n++] = {Op::Blur, plan.sigma_px};
        break;
      case Step::Crop:
      case Step::Posterize:
      case Step::Custom:
        break;
      case Step::Solarize:
        if (std::isfinite(plan.solarize)) list[n++] = {Op::Solarize, plan.solarize};
        break;
    }
  }
  return n;
}
constexpr int kMaxActions = 4 + core::kMaxSteps;

[[noreturn]] void refuse(const std::string& why) { throw std::invalid_argument(why); }

std::string by(float height, float width) { return std::to_string(int(height)) + " x " + std::to_string(int(width)); }

bool is_flag(float v) { return v == 0 || v == 1; }

// An edited plan is checked here; one that was drawn always passes.
void check(const ImageView& image, const ViewSpec& spec, const ViewPlan& plan) {
  if (spec.size < 1 || spec.size > kMaxSize)
    refuse("a view's size is " + std::to_string(spec.size) + "; it must be from 1 to 16384 pixels");
  if (image.height < 1 || image.width < 1) refuse("it has no pixel");
  if (image.channels != 3 || image.type != PixelType::UInt8) refuse("only images of three channels of 8 bits can be rendered");
  if (plan.source_height != float(image.height) || plan.source_width != float(image.width)) {
    refuse("the plan was drawn for " + by(plan.source_height, plan.source_width) +
           " pixels (height x width), this image has " + by(float(image.height), float(image.width)) +
           "; draw it with the sizes of these images, in this order");
  }
  // In double: near the end of the image a float's sum would round to it.
  const auto fits = [](double start, double length, int extent) {
    return start >= 0 && start < extent && length > 0 && start + length <= extent;
  };
  const bool inside = fits(plan.top, plan.height, image.height) && fits(plan.left, plan.width, image.width);
  if (!inside) {
    refuse("the crop (top " + std::to_string(plan.top) + ", left " + std::to_string(plan.left) + ", height " +
           std::to_string(plan.height) + ", width " + std::to_string(plan.width) +
           ") does not lie inside the image of " + by(float(image.height), float(image.width)) +
           " pixels (height x width)");
  }
  if (!is_flag(plan.flip_h) || !is_flag(plan.flip_v) || !is_flag(plan.grayscale))
    refuse("flip_h, flip_v and grayscale must be 0 or 1");
  if (plan.turns != 0 && plan.turns != 1 && plan.turns != 2 && plan.turns != 3) refuse("turns must be 0, 1, 2 or 3");
  int seen = 0;
  for (float which : plan.order) seen |= which == 0 || which == 1 || which == 2 || which == 3 ? 1 << int(which) : 16;
  if (seen != 15) refuse("order0 to order3 must be a permutation of 0, 1, 2, 3");
  for (float factor : {plan.brightness, plan.contrast, plan.saturation}) {
    if (!(factor >= 0) || !std::isfinite(factor))
      refuse("brightness, contrast and saturation must be finite and at least 0");
  }
  if (!(std::abs(plan.hue) <= 0.5f)) refuse("hue must be from -0.5 to 0.5, a part of the circle");
  if (!(plan.sigma_px >= 0 && plan.sigma_px <= 1000)) refuse("sigma_px must be from 0 to 1000");
  if (!(plan.solarize >= 0)) refuse("solarize must be a threshold of at least 0, or infinity for none");
}

// Index -1 is 1, index n is n - 2: the border is not repeated. Goes to and fro where the image is smaller than the reach.
int reflect(int i, int n) {
  if (n == 1) return 0;
  const int period = 2 * (n - 1);
  i %= period;
  if (i < 0) i += period;
  return i < n ? i : period - i;
}

}  // namespace

// One view on its way: what the passes share.
struct Renderer::View {
  Renderer& own;
  const ImageView& image;
  const ViewSpec& spec;
  const ViewPlan& plan;
  const RowKernels& rows;
  int size;

  // Resampling
  core::Axis x{}, y{};
  TapTable x_taps{};
  float *line = nullptr, *wide = nullptr;
  int x_low = 0, x_high = 0;

  // Output
  float scale[3] = {1, 1, 1}, bias[3] = {0, 0, 0};
  char* out[3] = {nullptr, nullptr, nullptr};
  int64_t out_step = 0;  // bytes from row to row
  DType dtype = DType::Float32;
  bool interleaved = false;

  Planes planes(int which, int row) {
    float* base = own.planes_[which].at_least(size_t(3) * size * size) + int64_t(row) * size;
    const int64_t plane = int64_t(size) * size;
    return {base, base + plane, base + 2 * plane};
  }

  void prepare_output(const Output& to, int64_t position) {
    const int64_t element = dtype_size(to.dtype), plane = int64_t(size) * size;
    dtype = to.dtype;
    interleaved = to.channels_last;
    char* base = static_cast<char*>(to.data) + position * 3 * plane * element;
    for (int c = 0; c < 3; ++c) {
      out[c] = interleaved ? base + c * element : base + c * plane * element;
      scale[c] = spec.mean.empty() ? 1.0f : float(1.0 / spec.std[c]);
      bias[c] = spec.mean.empty() ? 0.0f : float(-double(spec.mean[c]) / spec.std[c]);
    }
    out_step = (interleaved ? 3 : 1) * size * element;
  }

  void store(const Planes& row, int index) {
    const int64_t at = index * out_step;
    rows.store(row, size, scale, bias, dtype, out[0] + at, out[1] + at, out[2] + at, interleaved);
  }

  void prepare_resampling() {
    const auto axis = [&](double start, double length, int extent) {
      start /= image.shrink;
      length /= image.shrink;
      extent = (extent + image.shrink - 1) / image.shrink;
      const int low = int(std::floor(start));
      const int high = std::min(extent, int(std::ceil(start + length)));
      return core::make_axis(start, length, size, low, std::max(high, low + 1), spec.filter);
    };
    x = axis(plan.left, plan.width, image.width);
    y = axis(plan.top, plan.height, image.height);
    // First as they come, to learn how many there are; then each output's weights at their place among `count`.
    const int most = core::axis_max_taps(x);
    int32_t* first = own.taps_.at_least(size_t(2) * size);
    int32_t* counts = first + size;
    float* ragged = own.x_ragged_.at_least(size_t(most) * size);
    int count = 1;
    x_low = x.high;
    x_high = x.low;
    for (int i = 0; i < size; ++i) {
      const core::Taps taps = core::axis_taps(x, i, ragged + int64_t(i) * most);
      first[i] = taps.first;
      counts[i] = taps.count;
      count = std::max(count, taps.count);
      x_low = std::min(x_low, taps.first);
      x_high = std::max(x_high, taps.first + taps.count);
    }
    float* weight = own.x_weights_.at_least(size_t(count) * size);
    std::fill_n(weight, size_t(count) * size, 0.0f);
    for (int i = 0; i < size; ++i) {
      const int begin = std::min(first[i], x_high - count);  // so that the zeros, too, lie within the row
      std::copy_n(ragged + int64_t(i) * most, counts[i], weight + int64_t(i) * count + (first[i] - begin));
      first[i] = begin - x_low;
    }
    x_taps = {first, weight, count};
    // The horizontal pass reads one float beyond the row.
    line = own.line_.at_least(size_t(3) * (x_high - x_low) + 1);
    line[3 * (x_high - x_low)] = 0;
    wide = own.row_.at_least(size_t(4) * size);
    own.y_weights_.at_least(core::axis_max_taps(y));
    own.sources_.resize(core::axis_max_taps(y));
  }

  void resample_row(int index, const Planes& to) {
    const int from = plan.flip_v != 0 ? size - 1 - index : index;
    float* weight = own.y_weights_.at_least(1);
    const core::Taps taps = core::axis_taps(y, from, weight);
    for (int k = 0; k < taps.count; ++k) {
      weight[k] *= 1.0f / 255.0f;
      own.sources_[k] = static_cast<const uint8_t*>(image.pixels) + int64_t(taps.first + k - image.top) * image.stride + int64_t(3) * (x_low - image.left);
    }
    rows.vertical(own.sources_.data(), weight, taps.count, 3 * (x_high - x_low), line);
    rows.horizontal(line, x_taps, size, plan.flip_h != 0, wide, to);
  }

  // Counter-clockwise by `turns` quarter turns, from planes 0 to planes 1.
  void turn(int turns) {
    for (int i = 0; i < size; ++i) {
      const Planes to = planes(1, i);
      for (int j = 0; j < size; ++j) {
        const int row = turns == 1 ? j : turns == 2 ? size - 1 - i : size - 1 - j;
        const int column = turns == 1 ? size - 1 - i : turns == 2 ? size - 1 - j : i;
        const Planes from = planes(0, row);
        to.r[j] = from.r[column];
        to.g[j] = from.g[column];
        to.b[j] = from.b[column];
      }
    }
  }

  void blur_row(int which, int index, int radius, const Planes& to) {
    float* padded = own.padded_.at_least(size_t(size) + 2 * radius);
    float* middle = padded + radius;
    float* targets[3] = {to.r, to.g, to.b};
    for (int c = 0; c < 3; ++c) {
      const int64_t plane = int64_t(c) * size * size;
      const float* base = planes(which, 0).r + plane;
      const int32_t* line_of = own.mirror_.at_least(1) + index;  // of the rows index - radius to index + radius
      for (int k = 0; k <= 2 * radius; ++k) own.rows_[k] = base + int64_t(line_of[k]) * size;
      rows.blur_vertical(own.rows_.data(), own.kernel_.data(), radius, size, middle);
      const int32_t* column_of = own.mirror_.at_least(1);
      for (int k = 0; k < radius; ++k) {
        padded[k] = middle[column_of[k]];
        middle[size + k] = middle[column_of[radius + size + k]];
      }
      rows.blur_horizontal(middle, own.kernel_.data(), radius, size, targets[c]);
    }
  }

  void apply(const Action& action, float mean, const Planes& row) {
    switch (action.op) {
      case Op::Brightness: return rows.brightness(row, size, action.value);
      case Op::Contrast: return rows.contrast(row, size, action.value, mean);
      case Op::Saturation: return rows.saturation(row, size, action.value);
      case Op::Hue: return rows.hue(row, size, action.value);
      case Op::Grayscale: return rows.grayscale(row, size);
      case Op::Solarize: return rows.solarize(row, size, action.value);
      case Op::Blur: return;  // ends a pass, see run()
    }
  }

  void run() {
    Action list[kMaxActions];
    const int n = list_actions(spec, plan, list);
    enum class From { Crop, Memory, Blurred } from = From::Crop;
    int held = 0;  // the planes that hold the view
    float mean = 0;
    bool mean_known = false;
    int radius = 0;

    prepare_resampling();
    if (plan.turns != 0) {
      for (int i = 0; i < size; ++i) resample_row(i, planes(0, i));
      turn(int(plan.turns));
      held = 1;
      from = From::Memory;
    }
    for (int at = 0;;) {
      const int begin = at;
      bool known = mean_known;
      while (at < n && list[at].op != Op::Blur && (list[at].op != Op::Contrast || known)) {
        known = false;
        ++at;
      }
      const bool last = at == n;
      const bool to_mean = !last && list[at].op == Op::Contrast;
      const int target = from == From::Blurred ? 1 - held : held;
      int64_t luma = 0;
      Planes temporary{};
      if (last && from != From::Memory) {
        float* t = own.result_.at_least(size_t(3) * size);
        temporary = {t, t + size, t + 2 * size};
      }
      for (int i = 0; i < size; ++i) {
        const Planes row = last && from != From::Memory ? temporary : planes(target, i);
        if (from == From::Crop) resample_row(i, row);
        if (from == From::Blurred) blur_row(held, i, radius, row);
        for (int k = begin; k < at; ++k) apply(list[k], mean, row);
        if (to_mean) luma += rows.luma_sum(row, size);
        if (last) store(row, i);
      }
      if (last) return;
      held = target;
      from = From::Memory;
      mean_known = to_mean;
      if (to_mean) {
        mean = float(double(luma) / (double(1 << core::kLumaBits) * size * size));
      } else {
        radius = core::gaussian_half_kernel(list[at].value, own.kernel_);
        own.rows_.resize(size_t(2) * radius + 1);
        int32_t* mirror = own.mirror_.at_least(size_t(size) + 2 * radius);
        for (int i = 0; i < size + 2 * radius; ++i) mirror[i] = reflect(i - radius, size);
        from = From::Blurred;
        ++at;
      }
    }
  }
};

void Renderer::render(const ImageView& image, const ViewSpec& spec, const ViewPlan& plan, const Output& out,
                      int64_t position) {
  check(image, spec, plan);
  View view{*this, image, spec, plan, row_kernels(), spec.size};
  view.prepare_output(out, position);
  view.run();
}

}  // namespace fastssl::cpu
