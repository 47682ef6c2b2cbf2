#include "render.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "../core/colour.h"
#include "../core/passes.h"
#include "../core/resample.h"

// Note [Passes over a view]
// A pass (core/passes.h) is made some rows at a time, and they go through all its operations while they lie in the nearest
// cache: from a source of rows (the resampled crop, the image, a frame in memory, or a frame blurred or rotated) to a sink (a
// frame in memory, or the output).

namespace fastssl::cpu {

using core::Action;
using core::Actions;
using core::From;
using core::Op;
using core::Pass;

namespace {

// Floats that go through all operations at a time: some of a first-level cache.
constexpr int kStrip = 4096;

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
  const core::Compiled& program;
  const ImageView& image;
  const Output& out;
  const int64_t position;
  const RowKernels& kernels = row_kernels();

  // What is resampled, and one such table a channel apart where channels are planes.
  Resampling crop{};
  int planes = 1;
  int64_t plane_bytes = 0;

  Rows rows_of(Scratch<float>& memory, int rows, int columns) const {
    const int pitch = padded(columns);
    const int64_t row = int64_t(pitch) * image.channels;
    return {memory.at_least(size_t(row) * size_t(rows)), row, pitch, rows, columns, image.channels};
  }

  // Resampling

  // Each output's weights as they come.
  TapTable taps_of(const core::Axis& axis, Taps& memory, Scratch<float>& weights, float unit) {
    const int most = core::axis_max_taps(axis);
    int32_t* first = memory.first.at_least(size_t(2) * program.size);
    int32_t* counts = first + program.size;
    float* weight = weights.at_least(size_t(most) * program.size);
    for (int i = 0; i < program.size; ++i) {
      float* own_weight = weight + int64_t(i) * most;
      const core::Taps taps = core::axis_taps(axis, i, own_weight);
      first[i] = taps.first;
      counts[i] = taps.count;
      for (int k = 0; k < taps.count; ++k) own_weight[k] *= unit;
    }
    return {first, counts, weight, most};
  }

  // As many for each output as for the one that has most, so that all lie within [low, high).
  TapTable even(const TapTable& from, Taps& memory, int& low, int& high) {
    int count = 1;
    low = from.first[0];
    high = 0;
    for (int i = 0; i < program.size; ++i) {
      count = std::max(count, from.counts[i]);
      low = std::min(low, from.first[i]);
      high = std::max(high, from.first[i] + from.counts[i]);
    }
    float* weight = memory.weight.at_least(size_t(count) * program.size);
    std::fill_n(weight, size_t(count) * program.size, 0.0f);
    int32_t* first = memory.first.at_least(size_t(2) * program.size);
    for (int i = 0; i < program.size; ++i) {
      const int begin = std::min(first[i], high - count);
      std::copy_n(from.weight + int64_t(i) * from.stride, from.counts[i],
                  weight + int64_t(i) * count + (first[i] - begin));
      first[i] = begin - low;
    }
    return {first, first + program.size, weight, count};
  }

  // `frame` is the source where colours came before the crop, else null.
  void prepare_crop(const Rows* frame) {
    const PixelType type = frame ? PixelType::Float32 : image.type;
    const core::Axis x_axis = core::crop_axis(program, image, program.left, program.width, image.left, image.columns);
    const core::Axis y_axis = core::crop_axis(program, image, program.top, program.height, image.top, image.rows);
    int low = 0, high = 0;
    crop.x = even(taps_of(x_axis, own.x_, own.x_.ragged, 1.0f), own.x_, low, high);
    crop.y = taps_of(y_axis, own.y_, own.y_.weight, core::unit_of(type));
    crop.type = type;
    crop.columns = high - low;
    crop.size = program.size;
    crop.mirror_x = program.mirror_x;
    crop.mirror_y = program.mirror_y;
    crop.transposed = program.transposed;
    const bool planar = frame || image.plane != 0;
    crop.channels = planar ? 1 : image.channels;
    planes = planar ? image.channels : 1;
    crop.stride = frame ? frame->row * int64_t(sizeof(float)) : image.stride;
    plane_bytes = frame ? frame->channel * int64_t(sizeof(float)) : image.plane;
    const char* base = frame ? reinterpret_cast<const char*>(frame->data) : static_cast<const char*>(image.pixels);
    const int64_t top = image.top, left = low - image.left;
    crop.pixels = base - top * crop.stride + left * crop.channels * pixel_size(type);
    own.scratch_.at_least(size_t(kernels.resample_scratch(crop.columns, crop.channels)));
  }

  void resample(int first, int count, const Rows& to) {
    Resampling plane = crop;
    for (int p = 0; p < planes; ++p) {
      Rows channel = to;
      channel.data += p * to.channel;
      kernels.resample(plane, first, count, own.scratch_.at_least(1), channel);
      plane.pixels = static_cast<const char*>(plane.pixels) + plane_bytes;
    }
  }

  // All of the crop, where it is needed whole.
  void resample_all(const Rows& frame) {
    for (int i = 0; i < program.size; i += kernels.lanes) {
      Rows to = frame;
      to.data += program.transposed ? i : i * frame.row;
      resample(i, std::min(kernels.lanes, program.size - i), to);
    }
  }

  // Sources of rows

  void load(int i, const Rows& to) {
    const char* row = static_cast<const char*>(image.pixels) + i * image.stride;
    if (image.plane == 0) return kernels.load(row, image.type, image.columns, image.channels, to.data, to.channel);
    for (int c = 0; c < image.channels; ++c)
      kernels.load(row + c * image.plane, image.type, image.columns, 1, to.at(0, c), 0);
  }

  // Which row and column lies beyond the border, for the blur.
  void prepare_blur(int rows, int columns) {
    const int reach = program.radius;
    const auto inside = [&](int i, int n) {
      return program.border == core::Border::Reflect ? reflect(i, n) : std::clamp(i, 0, n - 1);
    };
    int32_t* border = own.border_.at_least(size_t(rows) + columns + 4 * size_t(reach));
    for (int i = 0; i < rows + 2 * reach; ++i) border[i] = inside(i - reach, rows);
    int32_t* sides = border + rows + 2 * reach;
    for (int i = 0; i < columns + 2 * reach; ++i) sides[i] = inside(i - reach, columns);
    own.rows_.resize(size_t(2) * reach + 1);
    own.line_.at_least((size_t(columns) + 2 * size_t(reach)) * size_t(image.channels));
  }

  // Down the columns of all channels first: what was just written a vector at a time is slow to read at any other place.
  void blur_row(const Rows& from, int i, const Rows& to) {
    const int reach = program.radius, n = from.columns;
    const int32_t* border = own.border_.at_least(1);
    const int32_t* sides = border + from.count + 2 * reach;
    const int64_t pitch = n + 2 * int64_t(reach);
    for (int c = 0; c < from.channels; ++c) {
      float* middle = own.line_.at_least(1) + c * pitch + reach;
      for (int k = 0; k <= 2 * reach; ++k) own.rows_[size_t(k)] = from.at(border[i + k], c);
      kernels.blur_vertical(own.rows_.data(), program.kernel.data(), reach, n, middle);
    }
    for (int c = 0; c < from.channels; ++c) {
      float* middle = own.line_.at_least(1) + c * pitch + reach;
      for (int k = 0; k < reach; ++k) {
        middle[k - reach] = middle[sides[k]];
        middle[n + k] = middle[sides[reach + n + k]];
      }
    }
    for (int c = 0; c < from.channels; ++c) {
      const float* middle = own.line_.at_least(1) + c * pitch + reach;
      kernels.blur_horizontal(middle, program.kernel.data(), reach, n, to.at(0, c));
    }
  }

  // Operations and sinks

  void apply(const Action& action, float mean, const Rows& rows) {
    switch (action.op) {
      case Op::Brightness: return kernels.brightness(rows, action.value);
      case Op::Contrast: return kernels.contrast(rows, action.value, mean);
      case Op::Saturation: return kernels.saturation(rows, action.value);
      case Op::Hue: return kernels.hue(rows, action.value);
      case Op::Grayscale: return kernels.grayscale(rows);
      case Op::Solarize: return kernels.solarize(rows, action.value);
      case Op::Posterize: return kernels.posterize(rows, action.value);
      case Op::Blur: return;  // ends a pass, see run()
    }
  }

  int64_t element() const { return dtype_size(out.dtype); }
  int64_t line() const { return program.size * element() * (out.channels_last ? image.channels : 1); }
  char* output() const {
    return static_cast<char*>(out.data) + position * image.channels * program.size * program.size * element();
  }
  int64_t plane() const { return int64_t(program.size) * program.size * element(); }

  void store(const Rows& rows, int first) {
    kernels.store(rows, program.scale.data(), program.bias.data(), out.dtype, output() + first * line(), line(),
                  plane(), out.channels_last);
  }

  void erase() {
    const int n = program.erase_width;
    Rows value{own.line_.at_least(size_t(padded(n))), 0, 0, 1, n, image.channels};
    std::fill_n(value.data, n, program.erase_value);
    const std::vector<float> one(size_t(image.channels), 1.0f), none(size_t(image.channels), 0.0f);
    const int64_t from = program.erase_left * element() * (out.channels_last ? image.channels : 1);
    for (int i = 0; i < program.erase_height; ++i) {
      kernels.store(value, one.data(), none.data(), out.dtype, output() + (program.erase_top + i) * line() + from,
                    line(), plane(), out.channels_last);
    }
  }

  // `mean` is that of the pass before, where that one has summed, and becomes that of this one.
  void run(const Pass& pass, float& mean) {
    const Actions& actions = pass.source ? program.before : program.after;
    const int rows = pass.source ? image.rows : program.size, columns = pass.source ? image.columns : program.size;
    Scratch<float>* memory = pass.source ? own.source_ : own.view_;
    Rows source{};
    if (pass.from == From::Crop) {
      if (pass.reads >= 0) source = rows_of(own.source_[pass.reads], image.rows, image.columns);
      prepare_crop(pass.reads >= 0 ? &source : nullptr);
    } else if (pass.reads >= 0) {
      source = rows_of(memory[pass.reads], rows, columns);
    }
    if (pass.from == From::Blurred) prepare_blur(rows, columns);
    const bool to_output = pass.writes < 0;
    const bool passing = to_output && pass.from != From::Memory;  // no frame is needed any more
    const Rows frame = passing ? rows_of(own.block_, kernels.lanes, columns)
                               : rows_of(memory[to_output ? pass.reads : pass.writes], rows, columns);
    if (pass.from == From::Crop && (program.transposed || program.rotated)) return resample_all(frame);
    int64_t luma = 0;
    for (int i = 0; i < rows; i += kernels.lanes) {
      const int count = std::min(kernels.lanes, rows - i);
      const Rows block = frame.part(passing ? 0 : i, count);
      if (pass.from == From::Crop) resample(i, count, block);
      const int strip = std::clamp(kStrip / int(frame.row), 1, count);
      for (int j = 0; j < count; j += strip) {
        const Rows some = block.part(j, std::min(strip, count - j));
        for (int k = 0; k < some.count; ++k) {
          if (pass.from == From::Image) load(i + j + k, some.part(k, 1));
          if (pass.from == From::Blurred) blur_row(source, i + j + k, some.part(k, 1));
          if (pass.from == From::Rotated) {
            kernels.rotate(source, i + j + k, program.rotate_filter, program.cosine, program.sine, some.part(k, 1));
          }
        }
        for (int k = pass.begin; k < pass.end; ++k) apply(actions.list[k], mean, some);
        if (pass.sums) luma += kernels.luma_sum(some);
        if (to_output) store(some, i + j);
      }
    }
    if (pass.sums) mean = core::mean_luma(luma, rows, columns);
  }

  void run() {
    const core::Passes passes = core::list_passes(program);
    float mean = 0;
    for (int i = 0; i < passes.count; ++i) run(passes.list[i], mean);
    if (program.erase_height > 0) erase();
  }
};

void Renderer::render(const ImageView& image, const core::ViewSpec& spec, const core::ViewPlan& plan, const Output& out,
                      int64_t position) {
  core::compile(spec, plan, image.height, image.width, image.channels, program_);
  core::check_memory(program_, image, out.dtype);
  View view{*this, program_, image, out, position};
  view.run();
}

size_t Renderer::bytes() const {
  size_t sum = 0;
  for (const Scratch<float>* s : {&view_[0], &view_[1], &source_[0], &source_[1], &block_, &scratch_, &line_,
                                  &x_.weight, &x_.ragged, &y_.weight, &y_.ragged})
    sum += s->bytes();
  return sum;
}

void Renderer::free() {
  for (Scratch<float>* s : {&view_[0], &view_[1], &source_[0], &source_[1], &block_, &scratch_, &line_, &x_.weight,
                            &x_.ragged, &y_.weight, &y_.ragged})
    s->free();
}

}  // namespace fastssl::cpu
