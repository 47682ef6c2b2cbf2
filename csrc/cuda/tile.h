// What the rendering kernels share: which tile of which view a block makes, and what becomes of its pixels.
//
// Part of render_kernels.h. A block makes 32 x 32 pixels; a thread four neighbours of a row, in all channels that belong
// together: three, or one where the image has another number of them.
#pragma once

#include <cstdint>

#include "../core/cast.h"
#include "../core/colour.h"
#include "grid.h"
#include "render_plan.h"

namespace fastssl::cuda {
namespace {

constexpr int kPixels = 4;  // of a thread
constexpr int kThreads = kTile * kTile / kPixels;
constexpr int kThreadsAcross = kTile / kPixels;

// What all blocks of a launch know.
struct Work {
  const char* table;
  char* workspace;
  int64_t list;
  int32_t pass, tiles_x, tiles;
  core::DType dtype;
  bool channels_last;

  FASTSSL_DEVICE int views() const { return *reinterpret_cast<const int32_t*>(table + list); }
  FASTSSL_DEVICE const ViewRecord& view(int number) const {
    const int32_t record = reinterpret_cast<const int32_t*>(table + list)[1 + number];
    return reinterpret_cast<const ViewRecord*>(table)[record];
  }
  FASTSSL_DEVICE const float* floats(int64_t at) const { return reinterpret_cast<const float*>(table + at); }
};

struct Taken {
  const int32_t* first;  // and the counts behind them
  const float* weight;
};
FASTSSL_DEVICE Taken taps_at(const Work& work, int64_t at, int size) {
  const auto* first = reinterpret_cast<const int32_t*>(work.workspace + at);
  return {first, reinterpret_cast<const float*>(first + 2 * size)};
}

// A frame of floats: channels are planes of rows whose length is rounded up to four.
struct Frame {
  float* data;
  int32_t rows, columns, pitch;

  FASTSSL_DEVICE float* at(int channel, int y, int x) const { return data + (int64_t(channel) * rows + y) * pitch + x; }
};
FASTSSL_DEVICE Frame frame_at(const Work& work, int64_t at, int rows, int columns) {
  return {reinterpret_cast<float*>(work.workspace + at), rows, columns, (columns + 3) / 4 * 4};
}

template <typename T, int N>
struct alignas(sizeof(T) * N) Pack {
  T value[N];
};

template <typename T, int N>
FASTSSL_DEVICE void store_pack(void* to, const T* from) {
  Pack<T, N> pack;
  for (int i = 0; i < N; ++i) pack.value[i] = from[i];
  *static_cast<Pack<T, N>*>(to) = pack;
}

// Four pixels of row y from column x on, of C channels from `channel` on.
template <int C>
struct Pixels {
  float value[C][kPixels];
  int32_t y, x, channel;
};

// A block's tile.
struct Tile {
  int32_t y, x, channel;
  int32_t rows, columns;  // of the picture
  bool empty;
};
template <int C>
FASTSSL_DEVICE Tile tile_of(const Work& work, const ViewRecord& view, int number) {
  const core::Pass& pass = view.passes.list[work.pass];
  Tile tile;
  tile.rows = pass.source ? view.image.rows : view.program.size;
  tile.columns = pass.source ? view.image.columns : view.program.size;
  const int groups = C == 3 ? 1 : view.image.channels;
  const int each = work.tiles / groups;
  tile.channel = number / each;
  number -= tile.channel * each;
  tile.y = number / work.tiles_x * kTile;
  tile.x = number % work.tiles_x * kTile;
  tile.empty = tile.y >= tile.rows || tile.x >= tile.columns;
  return tile;
}

template <int C>
FASTSSL_DEVICE void apply(const core::Action& action, float mean, Pixels<C>& p) {
  const float value = action.value;
  const auto each = [&](auto f) {
    for (int c = 0; c < C; ++c) {
      for (int j = 0; j < kPixels; ++j) p.value[c][j] = f(p.value[c][j]);
    }
  };
  if constexpr (C == 3) {
    const auto together = [&](auto f) {
      for (int j = 0; j < kPixels; ++j) {
        const core::Rgb<float> q = f(core::Rgb<float>{p.value[0][j], p.value[1][j], p.value[2][j]});
        p.value[0][j] = q.r;
        p.value[1][j] = q.g;
        p.value[2][j] = q.b;
      }
    };
    switch (action.op) {
      case core::Op::Contrast: return together([=](core::Rgb<float> q) { return core::contrast(q, value, mean); });
      case core::Op::Saturation: return together([=](core::Rgb<float> q) { return core::saturation(q, value); });
      case core::Op::Hue: return together([=](core::Rgb<float> q) { return core::hue(q, value); });
      case core::Op::Grayscale:
        return together([](core::Rgb<float> q) {
          const float l = core::luma(q);
          return core::Rgb<float>{l, l, l};
        });
      default: break;
    }
  }
  switch (action.op) {
    case core::Op::Brightness: return each([=](float v) { return core::brightness(v, value); });
    case core::Op::Solarize: return each([=](float v) { return core::solarize(v, value); });
    case core::Op::Posterize: return each([=](float v) { return core::posterize(v, value); });
    default: return;
  }
}

template <typename T, T (*kCast)(float), int C>
FASTSSL_DEVICE void store_as(const Work& work, const ViewRecord& view, const Pixels<C>& p) {
  const core::Program& program = view.program;
  const int size = program.size;
  const float* scale = work.floats(view.scale) + p.channel;
  const float* bias = scale + view.image.channels;
  T value[C][kPixels];
  for (int c = 0; c < C; ++c) {
    for (int j = 0; j < kPixels; ++j) value[c][j] = kCast(core::fused(p.value[c][j], scale[c], bias[c]));
  }
  const int down = p.y - program.erase_top;
  if (down >= 0 && down < program.erase_height) {
    const T erased = kCast(core::fused(program.erase_value, 1.0f, 0.0f));  // a zero loses its sign, as all others do
    for (int j = 0; j < kPixels; ++j) {
      const int right = p.x + j - program.erase_left;
      if (right < 0 || right >= program.erase_width) continue;
      for (int c = 0; c < C; ++c) value[c][j] = erased;
    }
  }
  T* const out = static_cast<T*>(grid::global(view.out));
  const int64_t pixel = int64_t(p.y) * size + p.x;
  if (!work.channels_last || view.image.channels == 1) {
    for (int c = 0; c < C; ++c) {
      T* const to = out + (p.channel + c) * int64_t(size) * size + pixel;
      if (view.wide) {
        store_pack<T, kPixels>(to, value[c]);
      } else {
        for (int j = 0; j < kPixels && p.x + j < size; ++j) to[j] = value[c][j];
      }
    }
  } else if (C == 3 && view.wide) {
    T mixed[C * kPixels];
    for (int i = 0; i < C * kPixels; ++i) mixed[i] = value[i % C][i / C];
    for (int i = 0; i < C; ++i) store_pack<T, kPixels>(out + pixel * C + i * kPixels, mixed + i * kPixels);
  } else {
    for (int j = 0; j < kPixels && p.x + j < size; ++j) {
      for (int c = 0; c < C; ++c) out[(pixel + j) * view.image.channels + p.channel + c] = value[c][j];
    }
  }
}

template <int C>
FASTSSL_DEVICE void store(const Work& work, const ViewRecord& view, const Pixels<C>& p) {
  switch (work.dtype) {
    case core::DType::Float32: return store_as<float, core::to_float32>(work, view, p);
    case core::DType::Float16: return store_as<uint16_t, core::to_float16>(work, view, p);
    case core::DType::BFloat16: return store_as<uint16_t, core::to_bfloat16>(work, view, p);
    case core::DType::UInt8: return store_as<uint8_t, core::to_uint8>(work, view, p);
  }
}

template <int C>
FASTSSL_DEVICE void store(const Frame& frame, bool transposed, const Pixels<C>& p) {
  for (int c = 0; c < C; ++c) {
    if (!transposed) {
      store_pack<float, kPixels>(frame.at(p.channel + c, p.y, p.x), p.value[c]);
    } else {
      for (int j = 0; j < kPixels && p.x + j < frame.columns; ++j)
        *frame.at(p.channel + c, p.x + j, p.y) = p.value[c][j];
    }
  }
}

// Adds up the luma of a block's pixels. Every thread calls it, those beside the picture with `inside` false.
template <int C>
FASTSSL_DEVICE void add_luma(const Work& work, const ViewRecord& view, bool inside, int columns, const Pixels<C>& p) {
  if constexpr (C == 3) {
    int32_t sum = 0;  // 32 threads of four pixels: at most 2^23
    for (int j = 0; j < kPixels; ++j) {
      const int32_t luma = core::luma_fixed(core::luma(core::Rgb<float>{p.value[0][j], p.value[1][j], p.value[2][j]}));
      sum += inside && p.x + j < columns ? luma : 0;
    }
    for (int mask = 16; mask > 0; mask /= 2) sum += grid::shuffle_xor(sum, mask);
    if (grid::thread() % 32 == 0)
      grid::atomic_add(reinterpret_cast<uint64_t*>(work.workspace + view.luma), uint64_t(sum));
  }
}

// A pass's operations and where it leads, for pixels that are there. Every thread of the block calls it. Only a pass over a
// frame can begin with contrast (core/passes.h), which takes a division in double precision.
template <int C, bool kContrast = false>
FASTSSL_DEVICE void finish(const Work& work, const ViewRecord& view, const Tile& tile, Pixels<C>& p) {
  const core::Pass& pass = view.passes.list[work.pass];
  const core::Actions& actions = pass.source ? view.program.before : view.program.after;
  const bool inside = p.y < tile.rows && p.x < tile.columns;
  float mean = 0;
  if (kContrast && pass.begin < pass.end && actions.list[pass.begin].op == core::Op::Contrast) {
    const auto sum = *reinterpret_cast<const int64_t*>(work.workspace + view.luma);
    mean = core::mean_luma(sum, tile.rows, tile.columns);
  }
  for (int i = pass.begin; i < pass.end; ++i) apply(actions.list[i], mean, p);
  if (pass.sums) add_luma(work, view, inside, tile.columns, p);
  if (!inside) return;
  if (pass.writes < 0) return store(work, view, p);
  const int64_t at = pass.source ? view.source_frames[pass.writes] : view.frames[pass.writes];
  store(frame_at(work, at, tile.rows, tile.columns), pass.from == core::From::Crop && view.program.transposed, p);
}

// Which view and tile this block makes; null: none.
template <int C>
FASTSSL_DEVICE const ViewRecord* find_tile(const Work& work, Tile& tile) {
  const auto block = uint32_t(grid::block());
  const auto number = block / uint32_t(work.tiles);
  if (int(number) >= work.views()) return nullptr;
  const ViewRecord& view = work.view(int(number));
  tile = tile_of<C>(work, view, int(block - number * uint32_t(work.tiles)));
  return tile.empty ? nullptr : &view;
}

template <int C>
FASTSSL_DEVICE Pixels<C> pixels_of(const Tile& tile) {
  Pixels<C> p;
  p.y = tile.y + grid::thread() / kThreadsAcross;
  p.x = tile.x + grid::thread() % kThreadsAcross * kPixels;
  p.channel = tile.channel;
  return p;
}

}  // namespace
}  // namespace fastssl::cuda
