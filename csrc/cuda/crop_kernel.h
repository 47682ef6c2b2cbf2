// The resampled crop, and the weights it takes. Part of render_kernels.h.
#pragma once

#include "../core/resample.h"
#include "tile.h"

namespace fastssl::cuda {
namespace {

// The taps of both axes of every view, one thread an output pixel; and the view's sum of luma set to 0.
struct TapsKernel {
  static constexpr int kThreads = kTapsThreads, kBlocks = 4;
  Work work;  // tiles: of both axes

  FASTSSL_DEVICE void operator()() const {
    const auto block = uint32_t(grid::block());
    const ViewRecord& view = work.view(int(block / uint32_t(work.tiles)));
    const auto tile = int(block % uint32_t(work.tiles));
    if (tile == 0 && grid::thread() == 0) *reinterpret_cast<uint64_t*>(work.workspace + view.luma) = 0;
    const int half = work.tiles / 2, size = view.program.size;
    const bool down = tile >= half;
    const int i = (down ? tile - half : tile) * kThreads + grid::thread();
    if (!view.program.cropped || i >= size) return;
    auto* const first = reinterpret_cast<int32_t*>(work.workspace + (down ? view.y_taps : view.x_taps));
    float* const weight = reinterpret_cast<float*>(first + 2 * size) + int64_t(i) * (down ? view.y_most : view.x_most);
    const core::Taps taps = core::axis_taps(down ? view.y : view.x, i, weight);
    first[i] = taps.first;
    first[size + i] = taps.count;
    if (!down) return;
    const bool framed = view.program.before.count > 0;
    const float unit = framed ? 1.0f : core::unit_of(view.image.type);
    for (int k = 0; k < taps.count; ++k) weight[k] *= unit;
  }
};

constexpr int kCropColumns = 64;  // of the source that are in shared memory at a time
// Floats from row to row of what is there: the rows of a warp begin in different banks.
FASTSSL_HD constexpr int crop_pitch(int channels) { return kCropColumns * channels + 4; }
FASTSSL_HD constexpr int crop_shared(int channels) { return kTile * crop_pitch(channels) * int(sizeof(float)); }

// Four values, `step` from one to the next, of which the first `n` are there. With kWords, they are bytes side by side and all
// there, and are read as whole words of memory, whatever their address.
template <bool kWords, typename T>
FASTSSL_DEVICE void load_four(const T* from, int n, int step, float (&to)[4]) {
  if constexpr (kWords) {
    const uint32_t word = grid::load_word(from);
    for (int i = 0; i < 4; ++i) to[i] = float_of_byte(word, i);
  } else {
    for (int i = 0; i < 4; ++i) to[i] = i < n ? float(from[i * step]) : 0.0f;
  }
}

// Where the source's pixels lie: an image as it is, or a frame.
struct Source {
  const char* data;  // of the pixel that crops call (0, 0)
  int64_t row, line;  // bytes from row to row, and from channel to channel
  int32_t step;       // values from column to column
};

template <int C, typename T>
struct CropKernel {
  static constexpr int kThreads = cuda::kThreads, kBlocks = (sizeof(T) == 1 && C == 3 ? 4 : 3) - grid::kFewer;
  Work work;

  // The weighted sum of `count` rows' values.
  template <bool kWords>
  FASTSSL_DEVICE void add_rows(const char* at, int64_t row, const float* weight, int count, int n, int step,
                               float (&sum)[4]) const {
    FASTSSL_UNROLL(2)
    for (int k = 0; k < count; ++k) {
      float value[4];
      load_four<kWords>(grid::global(reinterpret_cast<const T*>(at)), n, step, value);
      const float w = *weight;
      for (int e = 0; e < 4; ++e) sum[e] = core::fused(w, value[e], sum[e]);
      at += row;
      ++weight;
    }
  }

  // Down the columns: values [0, n), `step` apart, of each of `lines` lines, from column x on, for `rows` rows. A row's
  // threads are those that make its pixels afterwards: which row it is takes no division, and its taps are found once.
  FASTSSL_DEVICE void down_columns(const ViewRecord& view, const Source& source, int y0, int rows, int x, int lines,
                                   int n, int step, float* shared) const {
    const int l = grid::thread() / kThreadsAcross;
    if (l >= rows) return;
    const int size = view.program.size;
    const Taken taps = taps_at(work, view.y_taps, size);
    const int i = view.program.mirror_y ? size - 1 - (y0 + l) : y0 + l;
    const float* weight = taps.weight + int64_t(i) * view.y_most;
    const int count = taps.first[size + i];
    const char* row = source.data + taps.first[i] * source.row + int64_t(x) * source.step * int64_t(sizeof(T));
    float* to = shared + l * crop_pitch(C);
    for (int line = 0; line < lines; ++line, row += source.line, to += kCropColumns) {
      for (int v = 4 * (grid::thread() % kThreadsAcross); v < n; v += 4 * kThreadsAcross) {
        const char* at = row + int64_t(v) * step * int64_t(sizeof(T));
        float sum[4] = {0, 0, 0, 0};
        // Decided here and not row by row, so that the loop has no branch and its loads are in flight together.
        if (sizeof(T) == 1 && step == 1 && n - v >= 4) {
          add_rows<sizeof(T) == 1>(at, source.row, weight, count, n - v, step, sum);
        } else {
          add_rows<false>(at, source.row, weight, count, n - v, step, sum);
        }
        store_pack<float, 4>(to + v, sum);
      }
    }
  }

  // Along the rows: adds what columns [x, x + columns) give, which `row` holds, the channels of a pixel side by side (kMixed)
  // or each for itself.
  template <bool kMixed>
  FASTSSL_DEVICE void along_rows(const ViewRecord& view, const float* row, int x, int columns, Pixels<C>& p) const {
    constexpr int across = kMixed ? C : 1, between = kMixed ? 1 : kCropColumns;
    const int size = view.program.size;
    const Taken taps = taps_at(work, view.x_taps, size);
    FASTSSL_UNROLL_ALL
    for (int j = 0; j < kPixels; ++j) {
      const int column = core::smaller(p.x + j, size - 1);
      const int i = view.program.mirror_x ? size - 1 - column : column;
      const int first = taps.first[i], from = core::larger(first, x);
      const int count = core::smaller(first + taps.first[size + i], x + columns) - from;
      const float* weight = taps.weight + int64_t(i) * view.x_most + (from - first);
      const float* at = row + (from - x) * across;
      FASTSSL_UNROLL(2)
      for (int k = 0; k < count; ++k, at += across) {
        const float w = *weight++;
        for (int c = 0; c < C; ++c) p.value[c][j] = core::fused(w, at[c * between], p.value[c][j]);
      }
    }
  }

  FASTSSL_DEVICE Source source_of(const ViewRecord& view, const core::Pass& pass, int channel) const {
    const core::ImageView& image = view.image;
    if (pass.reads >= 0) {
      const Frame frame = frame_at(work, view.source_frames[pass.reads], image.rows, image.columns);
      return {reinterpret_cast<const char*>(frame.at(channel, 0, 0)), frame.pitch * int64_t(sizeof(float)),
              int64_t(frame.rows) * frame.pitch * int64_t(sizeof(float)), 1};
    }
    constexpr int64_t bytes = sizeof(T);
    const int step = image.plane ? 1 : image.channels;
    const int64_t line = image.plane ? image.plane : bytes;
    const char* data = static_cast<const char*>(image.pixels) - image.top * image.stride - image.left * (step * bytes);
    return {data + channel * line, image.stride, line, step};
  }

  FASTSSL_DEVICE void operator()() const {
    Tile tile;
    const ViewRecord* const found = find_tile<C>(work, tile);
    if (!found) return;
    const ViewRecord& view = *found;
    const core::Program& program = view.program;
    const int size = program.size;
    const Source source = source_of(view, view.passes.list[work.pass], tile.channel);
    auto* const shared = reinterpret_cast<float*>(grid::shared());

    // Three channels side by side are one line of values; three planes are three.
    const bool mixed = C == 3 && source.step == 3;
    const int lines = C == 3 && !mixed ? 3 : 1, wide = mixed ? 3 : 1;
    const int rows = core::smaller(kTile, size - tile.y);
    const Taken taps = taps_at(work, view.x_taps, size);
    const int last_x = core::smaller(tile.x + kTile, size) - 1;
    const int low = program.mirror_x ? size - 1 - last_x : tile.x;
    const int high = program.mirror_x ? size - 1 - tile.x : last_x;
    const int begin = taps.first[low], end = taps.first[high] + taps.first[size + high];

    Pixels<C> p = pixels_of<C>(tile);
    for (int c = 0; c < C; ++c) {
      for (int j = 0; j < kPixels; ++j) p.value[c][j] = 0;
    }
    const float* const row = shared + (grid::thread() / kThreadsAcross) * crop_pitch(C);
    for (int x = begin; x < end; x += kCropColumns) {
      const int columns = core::smaller(kCropColumns, end - x);
      if (x > begin) grid::barrier();
      down_columns(view, source, tile.y, rows, x, lines, columns * wide, mixed ? 1 : source.step, shared);
      grid::barrier();
      if (p.y < size) mixed ? along_rows<true>(view, row, x, columns, p) : along_rows<false>(view, row, x, columns, p);
    }
    for (int c = 0; c < C; ++c) {
      for (int j = 0; j < kPixels; ++j) p.value[c][j] = core::clamp01(p.value[c][j]);
    }
    finish(work, view, tile, p);
  }
};

}  // namespace
}  // namespace fastssl::cuda
