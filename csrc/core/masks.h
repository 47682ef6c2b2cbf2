// Masks of masked-image methods: which cells (patches) of an image a model does not see, one sample at a time.
//
// All that is drawn follows from the words of Philox by whole numbers, or by doubles that are only added, multiplied, divided,
// compared and put under a square root, each of which IEEE 754 rounds in one way. Logarithms and exponentials of the arguments are
// taken by the host (LogUniform). So CPU and GPU draw the same bits.
//
// What a sample draws in turn is written for a `Team`, the threads that share the work on it: all of them run the same lines and
// draw the same numbers, and part only over cells. `lane()` of `lanes()` says which share is a thread's own, `sum()` adds up
// theirs, and after `sync()` each sees what the others wrote.
#pragma once

#include <cmath>
#include <cstdint>

#include "macros.h"
#include "philox.h"

namespace fastssl::core {

constexpr int kCellBits = 18;  // a stream has words for 2^18 cells
constexpr int32_t kMaxCells = 1 << kCellBits;
constexpr int32_t kMaskDraws = 1 << 16;  // of a stream, four words each
constexpr int32_t kContextTries = 20;  // places for a context before a target is forgotten, as in I-JEPA's code
constexpr int32_t kFirstContextDraw = 32;  // the draws before place the targets, two to a draw
constexpr int32_t kMaxTargets = 63;
constexpr int32_t kMaxContexts = 32;
// Draws of one context: 64 times kContextTries places, two to a draw.
constexpr int32_t kContextDraws = (kMaxTargets + 1) * kContextTries / 2;

// What identifies the random numbers of the samples of a batch.
struct MaskKeys {
  const int64_t* indices = nullptr;
  int64_t samples = 0;
  uint64_t seed = 0;
  uint32_t epoch = 0;
  uint32_t stream = 0;  // kMaskStream and so on
};
FASTSSL_HD DrawKey key_of(const MaskKeys& keys, int64_t sample) {
  return {keys.seed, uint64_t(keys.indices[sample]), keys.epoch, keys.stream, 0};
}

// --- numbers ---------------------------------------------------------------------------------------------------------

FASTSSL_HD double root(double v) {
#if defined(__CUDA_ARCH__)
  return __dsqrt_rn(v);
#else
  return __builtin_sqrt(v);
#endif
}
// To the nearest whole number, and to the even one of two; 0 <= v < 2^51.
FASTSSL_HD double nearest(double v) { return (v + 4503599627370496.0) - 4503599627370496.0; }
FASTSSL_HD int64_t round_up(double v) {
  const auto whole = int64_t(v);
  return whole + (double(whole) < v);
}
FASTSSL_HD int32_t ones(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __popc(bits);
#else
  return __builtin_popcount(bits);
#endif
}
// In {0, ..., n - 1}.
FASTSSL_HD int32_t place(uint32_t word, int32_t n) { return int32_t(uniform_below(word, uint32_t(n))); }

// Uniform in the logarithm from `low` to `high`, with what the host has computed of them.
struct LogUniform {
  double low = 1, high = 1;
  double middle = 1;  // geometric
  double width = 0;  // of the logarithms, halved `squarings` times, so that it is at most 1
  int32_t squarings = 0;
};
inline LogUniform log_uniform(double low, double high) {
  LogUniform range{low, high, std::exp((std::log(low) + std::log(high)) / 2), std::log(high) - std::log(low), 0};
  for (; range.width > 1; range.width /= 2) ++range.squarings;
  return range;
}
// Relative error below 1e-10: the exponential's series, and squarings.
FASTSSL_HD double draw_log_uniform(uint32_t word, const LogUniform& range) {
  const double x = (uniform(word) - 0.5) * range.width;
  double e = 1.0 / 3628800;
  e = e * x + 1.0 / 362880;
  e = e * x + 1.0 / 40320;
  e = e * x + 1.0 / 5040;
  e = e * x + 1.0 / 720;
  e = e * x + 1.0 / 120;
  e = e * x + 1.0 / 24;
  e = e * x + 1.0 / 6;
  e = e * x + 1.0 / 2;
  e = e * x + 1.0;
  e = e * x + 1.0;
  for (int32_t i = 0; i < range.squarings; ++i) e = e * e;
  return smaller(larger(e * range.middle, range.low), range.high);
}

// --- cells one by one ------------------------------------------------------------------------------------------------

// Cells in ascending order of this are in uniformly random order.
FASTSSL_HD uint64_t cell_rank(uint32_t word, int32_t cell) { return uint64_t(word) << kCellBits | uint32_t(cell); }
FASTSSL_HD int32_t cell_of(uint64_t rank) { return int32_t(rank & (kMaxCells - 1)); }

// A grid of `rows` x `columns` cells, each a square of side * side patches.
struct CellGrid {
  int32_t rows = 0, columns = 0, side = 1;
};
FASTSSL_HD int32_t cells_of(const CellGrid& grid) { return grid.rows * grid.columns; }
// The number of a cell's patch `k` among all patches, row by row.
FASTSSL_HD int32_t patch_of(const CellGrid& grid, int32_t cell, int32_t k) {
  if (grid.side == 1) return cell;
  const int32_t y = cell / grid.columns * grid.side + k / grid.side,
                x = cell % grid.columns * grid.side + k % grid.side;
  return y * grid.columns * grid.side + x;
}

// --- prefix ----------------------------------------------------------------------------------------------------------

FASTSSL_HD int32_t draw_prefix(const DrawKey& key, int32_t low, int32_t high) {
  return low + place(draw_block(key, 0).v[0], high - low + 1);
}

// --- inverse block ---------------------------------------------------------------------------------------------------

struct InverseBlockRules {
  int32_t rows = 0, columns = 0;
  int32_t visible = 0;  // cells
  LogUniform aspect;  // height over width, as far as such a rectangle fits
  bool roll = false;
};
// `low` and `high` bound the aspect.
inline InverseBlockRules inverse_block_rules(int32_t rows, int32_t columns, int32_t visible, double low, double high,
                                             bool roll) {
  InverseBlockRules rules{rows, columns, visible, {}, roll};
  if (visible == 0) return rules;
  const double widest = double(visible) / (double(columns) * columns), highest = double(rows) * rows / visible;
  rules.aspect = log_uniform(smaller(larger(low, widest), highest), smaller(larger(high, widest), highest));
  return rules;
}

// Where a rectangle begins, after the roll, and its width.
struct InverseBlock {
  int32_t top = 0, left = 0, width = 1;
};
FASTSSL_HD InverseBlock draw_inverse_block(const DrawKey& key, const InverseBlockRules& rules) {
  const int32_t rows = rules.rows, columns = rules.columns, visible = rules.visible;
  if (visible == 0 || visible == rows * columns) return {0, 0, columns};
  const Random4 r = draw_block(key, 0);
  const double aspect = draw_log_uniform(r.v[0], rules.aspect);
  // Whatever the rounding, the rectangle must hold as many cells and lie inside: hence the bounds in whole numbers.
  const int64_t least = (visible + columns - 1) / columns;
  const auto h = int32_t(smaller<int64_t>(larger(round_up(root(visible * aspect)), least), rows));
  auto w = int32_t(smaller<int64_t>(round_up(root(1.0 / aspect * visible)), columns));
  w = larger(w, (visible + h - 1) / h);
  InverseBlock block{place(r.v[1], rows - h + 1), place(r.v[2], columns - w + 1), w};
  if (rules.roll) {
    block.top = (block.top + place(r.v[3], rows)) % rows;
    block.left = (block.left + place(draw_block(key, 1).v[0], columns)) % columns;
  }
  return block;
}
// The visible cell number i, 0 to visible - 1: row by row, the last row cut short, from one edge over to the other.
FASTSSL_HD int32_t visible_cell(const InverseBlockRules& rules, const InverseBlock& block, int32_t i) {
  int32_t y = block.top + i / block.width, x = block.left + i % block.width;
  if (y >= rules.rows) y -= rules.rows;
  if (x >= rules.columns) x -= rules.columns;
  return y * rules.columns + x;
}

// --- rectangles ------------------------------------------------------------------------------------------------------

struct Box {
  int32_t top = 0, left = 0, height = 0, width = 0;
};

// A mask that is drawn upon: 32 columns a word, rows one after the other.
struct MaskBits {
  uint32_t* words;
  int32_t rows, columns;
};
FASTSSL_HD int64_t words_of_bits(int32_t rows, int32_t columns) { return int64_t(rows) * ((columns + 31) / 32); }
FASTSSL_HD bool bit_at(const MaskBits& bits, int32_t y, int32_t x) {
  return bits.words[y * ((bits.columns + 31) / 32) + x / 32] >> (x % 32) & 1;
}
// Of word number `word` of a row, the bits of columns left to right - 1.
FASTSSL_HD uint32_t bits_between(int32_t word, int32_t left, int32_t right) {
  const int32_t from = left - 32 * word, to = right - 32 * word;
  const uint32_t below_to = to >= 32 ? 0xFFFFFFFFu : (1u << to) - 1;
  return from <= 0 ? below_to : below_to & ~((1u << from) - 1);
}

// What a team does is not checked for device code that the host calls: a GPU's team is only ever called there.
#if defined(__CUDACC__)
#define FASTSSL_OF_TEAM _Pragma("nv_exec_check_disable") template <typename Team>
#else
#define FASTSSL_OF_TEAM template <typename Team>
#endif

FASTSSL_OF_TEAM FASTSSL_HD void clear_bits(const Team& team, const MaskBits& bits) {
  const auto words = int32_t(words_of_bits(bits.rows, bits.columns));
  for (int32_t i = team.lane(); i < words; i += team.lanes()) bits.words[i] = 0;
  team.sync();
}
FASTSSL_OF_TEAM FASTSSL_HD void fill_bits(const Team& team, const MaskBits& bits, const Box& box) {
  const int32_t stride = (bits.columns + 31) / 32, right = box.left + box.width;
  for (int32_t y = box.top + team.lane(); y < box.top + box.height; y += team.lanes()) {
    for (int32_t word = box.left / 32; 32 * word < right; ++word)
      bits.words[y * stride + word] |= bits_between(word, box.left, right);
  }
  team.sync();
}
// How many cells of the box are set.
FASTSSL_OF_TEAM FASTSSL_HD int32_t count_bits(const Team& team, const MaskBits& bits, const Box& box) {
  const int32_t stride = (bits.columns + 31) / 32, right = box.left + box.width;
  int32_t count = 0;
  for (int32_t y = box.top + team.lane(); y < box.top + box.height; y += team.lanes()) {
    for (int32_t word = box.left / 32; 32 * word < right; ++word)
      count += ones(bits.words[y * stride + word] & bits_between(word, box.left, right));
  }
  return team.sum(count);
}

// --- blocks ----------------------------------------------------------------------------------------------------------

// How many cells of each sample to mask.
struct CountRules {
  double least = 0, most = 0;  // parts of the cells
  double share = 1;  // of the samples
  int32_t cells = 0;
  bool exact_share = false;
};
// `u` from 0 to 1.
FASTSSL_HD int64_t count_at(const CountRules& rules, double u) {
  return int64_t((u * (rules.most - rules.least) + rules.least) * rules.cells);
}
FASTSSL_HD int64_t draw_count(const DrawKey& key, const CountRules& rules) {
  const Random4 r = draw_block(key, 0);
  return uniform(r.v[0]) < rules.share ? count_at(rules, uniform(r.v[2])) : 0;
}
// Samples in ascending order of this, those that agree in the order they stand in, are in uniformly random order: the first
// `masked` of them are masked, with a count in each of as many equal parts of the range.
FASTSSL_HD int64_t count_order(const DrawKey& key) {
  const Random4 r = draw_block(key, 0);
  return int64_t(r.v[0]) << 17 | r.v[1] >> 15;
}
FASTSSL_HD int64_t draw_exact_count(const DrawKey& key, const CountRules& rules, int64_t rank, int64_t masked) {
  if (rank >= masked) return 0;
  return count_at(rules, (double(rank) + uniform(draw_block(key, 0).v[2])) / double(masked));
}

struct BlockRules {
  int32_t rows = 0, columns = 0;
  int32_t limit = 0;  // blocks
  int32_t least = 1, most = 1;  // cells of a block
  LogUniform aspect;  // height over width
  int32_t attempts = 1;  // for a block; limit * attempts is below kMaskDraws
};

// An attempt at a block of at most `room` cells; whether it is smaller than the grid on both sides.
FASTSSL_HD bool draw_attempt(const DrawKey& key, uint32_t draw, const BlockRules& rules, int32_t room, Box& box) {
  const Random4 r = draw_block(key, draw);
  const double area = uniform(r.v[0]) * (room - rules.least) + rules.least;
  const double aspect = draw_log_uniform(r.v[1], rules.aspect);
  const double height = nearest(root(area * aspect)), width = nearest(root(area * (1.0 / aspect)));
  if (height >= rules.rows || width >= rules.columns) return false;
  box.height = int32_t(height);
  box.width = int32_t(width);
  box.top = place(r.v[2], rules.rows - box.height + 1);
  box.left = place(r.v[3], rules.columns - box.width + 1);
  return true;
}

// Blocks until `count` cells are masked or none fits.
FASTSSL_OF_TEAM FASTSSL_HD void draw_blocks(const Team& team, const DrawKey& key, const BlockRules& rules,
                                            int64_t count, const MaskBits& bits) {
  clear_bits(team, bits);
  auto left = int32_t(count);
  for (int32_t block = 0; block < rules.limit && left > 0; ++block) {
    const int32_t room = smaller(left, rules.most);
    int32_t gained = 0;
    for (int32_t attempt = 0; attempt < rules.attempts && gained == 0; ++attempt) {
      Box box;
      if (!draw_attempt(key, uint32_t(1 + block * rules.attempts + attempt), rules, room, box)) continue;
      const int32_t fresh = box.height * box.width - count_bits(team, bits, box);
      if (fresh <= 0 || fresh > room) continue;
      fill_bits(team, bits, box);
      gained = fresh;
    }
    left = gained > 0 ? left - gained : 0;
  }
}

// --- multi-block -----------------------------------------------------------------------------------------------------

struct MultiBlockRules {
  int32_t rows = 0, columns = 0;
  int32_t room_rows = 0, room_columns = 0;  // blocks lie within these, from the first on
  int32_t context_height = 1, context_width = 1;
  int32_t target_height = 1, target_width = 1;
  int32_t contexts = 1, targets = 1;
  int32_t least = 0;  // cells of a context outside of the targets
  bool allow_overlap = false;
};

// The block number `number` of those whose places are drawn from `first` on, two to a draw.
FASTSSL_HD Box draw_place(const DrawKey& key, const MultiBlockRules& rules, int32_t first, int32_t number,
                          int32_t height, int32_t width) {
  const Random4 r = draw_block(key, uint32_t(first + number / 2));
  const uint32_t y = number % 2 ? r.v[2] : r.v[0], x = number % 2 ? r.v[3] : r.v[1];
  return {place(y, rules.room_rows - height + 1), place(x, rules.room_columns - width + 1), height, width};
}
FASTSSL_HD Box draw_target(const DrawKey& key, const MultiBlockRules& rules, int32_t number) {
  return draw_place(key, rules, 0, number, rules.target_height, rules.target_width);
}

// Context number `context`; afterwards `bits` are those of the targets that it leaves out. Where none of its places leaves
// enough, the last target is forgotten, and so on; false if even so none does.
FASTSSL_OF_TEAM FASTSSL_HD bool draw_context(const Team& team, const DrawKey& key, const MultiBlockRules& rules,
                                             int32_t context, const MaskBits& bits, Box& box) {
  for (int32_t forgotten = rules.allow_overlap ? rules.targets : 0; forgotten <= rules.targets; ++forgotten) {
    clear_bits(team, bits);
    for (int32_t i = 0; i < rules.targets - forgotten; ++i) fill_bits(team, bits, draw_target(key, rules, i));
    const int32_t first = kFirstContextDraw + context * kContextDraws + forgotten * (kContextTries / 2);
    for (int32_t i = 0; i < kContextTries; ++i) {
      box = draw_place(key, rules, first, i, rules.context_height, rules.context_width);
      if (box.height * box.width - count_bits(team, bits, box) >= rules.least) return true;
    }
  }
  return false;
}

FASTSSL_HD bool inside(const Box& box, int32_t y, int32_t x) {
  return y >= box.top && y < box.top + box.height && x >= box.left && x < box.left + box.width;
}

}  // namespace fastssl::core
