// Blur: down the columns first, then along the rows. Part of render_kernels.h.
#pragma once

#include "tile.h"

namespace fastssl::cuda {
namespace {

// Which row or column lies beyond the border.
FASTSSL_DEVICE int inside(core::Border border, int i, int n) {
  if (i >= 0 && i < n) return i;
  if (border == core::Border::Repeat) return i < 0 ? 0 : n - 1;
  if (n == 1) return 0;
  const int period = 2 * (n - 1);  // to and fro where the picture is smaller than the reach
  i %= period;
  if (i < 0) i += period;
  return i < n ? i : period - i;
}

FASTSSL_DEVICE Frame blurred_frame(const Work& work, const ViewRecord& view, const Tile& tile) {
  const core::Pass& pass = view.passes.list[work.pass];
  const int64_t at = pass.source ? view.source_frames[pass.reads] : view.frames[pass.reads];
  return frame_at(work, at, tile.rows, tile.columns);
}

// A tile with what lies around, from row to row. Odd: threads that go down the rows meet different banks.
FASTSSL_HD constexpr int blur_pitch(int radius) { return (kTile + 2 * radius) | 1; }
FASTSSL_HD constexpr int blur_shared(int radius) {
  return (2 * kTile + 2 * radius) * blur_pitch(radius) * int(sizeof(float));
}

// Four neighbours, `step` from one to the next, blurred along the line they lie in. At distance k they take what their
// neighbours took at k - 1, so that each step loads two values and not eight.
FASTSSL_DEVICE void blur_four(const float* at, int step, const float* weight, int radius, float (&sum)[kPixels]) {
  float before[kPixels], behind[kPixels];
  for (int j = 0; j < kPixels; ++j) {
    before[j] = behind[j] = at[j * step];
    sum[j] = weight[0] * at[j * step];
  }
  const float *first = at, *last = at + (kPixels - 1) * step;
  FASTSSL_UNROLL(2)
  for (int k = 1; k <= radius; ++k) {
    for (int j = kPixels - 1; j > 0; --j) before[j] = before[j - 1];
    for (int j = 0; j < kPixels - 1; ++j) behind[j] = behind[j + 1];
    before[0] = *(first -= step);
    behind[kPixels - 1] = *(last += step);
    const float w = weight[k];
    for (int j = 0; j < kPixels; ++j) sum[j] = core::fused(w, before[j] + behind[j], sum[j]);
  }
}

static_assert(blur_shared(kTiledRadius) <= kMostShared);

// In shared memory, for a radius of at most kTiledRadius.
template <int C>
struct BlurKernel {
  static constexpr int kThreads = cuda::kThreads, kBlocks = 3;
  Work work;

  FASTSSL_DEVICE void operator()() const {
    Tile tile;
    const ViewRecord* const found = find_tile<C>(work, tile);
    if (!found) return;
    const ViewRecord& view = *found;
    const int radius = view.program.radius, side = kTile + 2 * radius, pitch = blur_pitch(radius);
    const core::Border border = view.program.border;
    const float* const weight = work.floats(view.kernel);
    const Frame frame = blurred_frame(work, view, tile);
    auto* const around = reinterpret_cast<float*>(grid::shared());
    float* const middle = around + side * pitch;
    const int warp = grid::thread() / 32, lane = grid::thread() % 32;
    Pixels<C> p = pixels_of<C>(tile);
    FASTSSL_UNROLL_ALL
    for (int c = 0; c < C; ++c) {
      for (int y = warp; y < side; y += kThreads / 32) {
        const float* row = frame.at(tile.channel + c, inside(border, tile.y - radius + y, tile.rows), 0);
        for (int x = lane; x < side; x += 32)
          around[y * pitch + x] = row[inside(border, tile.x - radius + x, tile.columns)];
      }
      grid::barrier();
      for (int y = warp * kPixels; y < kTile; y += kThreads / 32 * kPixels) {
        for (int x = lane; x < side; x += 32) {
          float sum[kPixels];
          blur_four(around + (y + radius) * pitch + x, pitch, weight, radius, sum);
          for (int j = 0; j < kPixels; ++j) middle[(y + j) * pitch + x] = sum[j];
        }
      }
      grid::barrier();
      blur_four(middle + (p.y - tile.y) * pitch + (p.x - tile.x) + radius, 1, weight, radius, p.value[c]);
      // The next channel's load writes `around` only, which nobody reads any more; its barrier guards `middle`.
    }
    finish(work, view, tile, p);
  }
};

// The same for any radius, in two launches, from frame to frame.
template <int C>
struct BlurColumnsKernel {
  static constexpr int kThreads = cuda::kThreads, kBlocks = 4;
  Work work;

  FASTSSL_DEVICE void operator()() const {
    Tile tile;
    const ViewRecord* const view = find_tile<C>(work, tile);
    if (!view) return;
    const float* const weight = work.floats(view->kernel);
    const Frame from = blurred_frame(work, *view, tile);
    const Frame to = frame_at(work, view->spare, tile.rows, tile.columns);
    const int x = tile.x + grid::thread() % 32, n = tile.rows;
    if (x >= tile.columns) return;
    for (int c = tile.channel; c < tile.channel + C; ++c) {
      for (int y = tile.y + grid::thread() / 32; y < core::smaller(tile.y + kTile, n); y += kThreads / 32) {
        float sum = weight[0] * *from.at(c, y, x);
        for (int k = 1; k <= view->program.radius; ++k) {
          const float up = *from.at(c, inside(view->program.border, y - k, n), x);
          const float down = *from.at(c, inside(view->program.border, y + k, n), x);
          sum = core::fused(weight[k], up + down, sum);
        }
        *to.at(c, y, x) = sum;
      }
    }
  }
};

template <int C>
struct BlurRowsKernel {
  static constexpr int kThreads = cuda::kThreads, kBlocks = 3;
  Work work;

  FASTSSL_DEVICE void operator()() const {
    Tile tile;
    const ViewRecord* const view = find_tile<C>(work, tile);
    if (!view) return;
    const float* const weight = work.floats(view->kernel);
    const Frame from = frame_at(work, view->spare, tile.rows, tile.columns);
    Pixels<C> p = pixels_of<C>(tile);
    const int n = tile.columns, y = core::smaller(p.y, tile.rows - 1);
    FASTSSL_UNROLL_ALL
    for (int c = 0; c < C; ++c) {
      const float* row = from.at(tile.channel + c, y, 0);
      for (int j = 0; j < kPixels; ++j) {
        const int x = core::smaller(p.x + j, n - 1);
        float sum = weight[0] * row[x];
        for (int k = 1; k <= view->program.radius; ++k) {
          const float left = row[inside(view->program.border, x - k, n)];
          sum = core::fused(weight[k], left + row[inside(view->program.border, x + k, n)], sum);
        }
        p.value[c][j] = sum;
      }
    }
    finish(work, *view, tile, p);
  }
};

}  // namespace
}  // namespace fastssl::cuda
