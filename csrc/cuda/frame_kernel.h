// Pixels that need no resampling: the image as it is, a frame, a frame rotated. Part of render_kernels.h.
#pragma once

#include "../core/rotate.h"
#include "tile.h"

namespace fastssl::cuda {
namespace {

template <typename T>
FASTSSL_DEVICE float pixel_of(const core::ImageView& image, int c, int y, int x, float unit) {
  const char* row = static_cast<const char*>(grid::global(image.pixels)) + y * image.stride;
  if (image.plane) return float(reinterpret_cast<const T*>(row + c * image.plane)[x]) * unit;
  return float(reinterpret_cast<const T*>(row)[int64_t(x) * image.channels + c]) * unit;
}

template <int C>
struct FrameKernel {
  static constexpr int kThreads = cuda::kThreads, kBlocks = 4;
  Work work;

  FASTSSL_DEVICE void load_image(const core::ImageView& image, Pixels<C>& p) const {
    const float unit = core::unit_of(image.type);
    for (int j = 0; j < kPixels; ++j) {
      const int x = core::smaller(p.x + j, image.columns - 1);
      for (int c = 0; c < C; ++c) {
        switch (image.type) {
          case core::PixelType::UInt8: p.value[c][j] = pixel_of<uint8_t>(image, p.channel + c, p.y, x, unit); break;
          case core::PixelType::UInt16: p.value[c][j] = pixel_of<uint16_t>(image, p.channel + c, p.y, x, unit); break;
          case core::PixelType::Float32: p.value[c][j] = pixel_of<float>(image, p.channel + c, p.y, x, unit); break;
        }
      }
    }
  }

  FASTSSL_DEVICE void load_rotated(const core::Program& program, const Frame& frame, Pixels<C>& p) const {
    for (int j = 0; j < kPixels; ++j) {
      const core::Turned at =
          core::turned(p.y, p.x + j, frame.columns, program.rotate_filter, program.cosine, program.sine);
      for (int c = 0; c < C; ++c) {
        // Black outside.
        p.value[c][j] = core::sample(at, program.rotate_filter, [&](int y, int x) {
          return y >= 0 && x >= 0 && y < frame.rows && x < frame.columns ? *frame.at(p.channel + c, y, x) : 0.0f;
        });
      }
    }
  }

  FASTSSL_DEVICE void operator()() const {
    Tile tile;
    const ViewRecord* const view = find_tile<C>(work, tile);
    if (!view) return;
    const core::Pass& pass = view->passes.list[work.pass];
    Pixels<C> p = pixels_of<C>(tile);
    for (int c = 0; c < C; ++c) {
      for (int j = 0; j < kPixels; ++j) p.value[c][j] = 0;
    }
    if (p.y < tile.rows && p.x < tile.columns) {
      if (pass.from == core::From::Image) {
        load_image(view->image, p);
      } else {
        const int64_t at = pass.source ? view->source_frames[pass.reads] : view->frames[pass.reads];
        const Frame frame = frame_at(work, at, tile.rows, tile.columns);
        if (pass.from == core::From::Rotated) {
          load_rotated(view->program, frame, p);
        } else {
          for (int c = 0; c < C; ++c) {
            const auto pack = *reinterpret_cast<const Pack<float, kPixels>*>(frame.at(p.channel + c, p.y, p.x));
            // What lies beyond the last column was never written.
            for (int j = 0; j < kPixels; ++j) p.value[c][j] = p.x + j < tile.columns ? pack.value[j] : 0.0f;
          }
        }
      }
    }
    finish<C, true>(work, *view, tile, p);
  }
};

}  // namespace
}  // namespace fastssl::cuda
