#include "masks.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "thread_pool.h"

namespace fastssl::cpu {

namespace {

using namespace core;

// A thread on its own.
struct Alone {
  int32_t lane() const { return 0; }
  int32_t lanes() const { return 1; }
  int32_t sum(int32_t v) const { return v; }
  void sync() const {}
};

// f(i) for each of n samples, of about `nanoseconds` each and a call.
template <typename F>
void each_sample(int64_t n, int threads, double nanoseconds, const F& f) {
  constexpr double kWorthATask = 50e3;
  const auto at_once = std::max<int64_t>(1, int64_t(kWorthATask / (10 + nanoseconds)));
  parallel_for((n + at_once - 1) / at_once, threads, [&](int64_t task) {
    const int64_t end = std::min(n, (task + 1) * at_once);
    for (int64_t i = task * at_once; i < end; ++i) f(i);
  });
}

// Memory that a thread keeps from one sample to the next.
template <typename T, int kUse>
T* scratch(size_t n) {
  static thread_local std::vector<T> memory;
  if (memory.size() < n) memory.resize(n);
  return memory.data();
}

// The ranks of `cells` cells, in buckets by their first bits: `ends[b]` is where bucket b ends, and begins where the one before
// ends. Ranks are uniform, so a bucket holds few.
struct Buckets {
  uint64_t* ranks;
  uint32_t* ends;
  int32_t count;
};
Buckets bucket_ranks(const DrawKey& key, int32_t cells) {
  int bits = 1;
  while (bits < 16 && 1 << bits < cells) ++bits;
  auto* const words = scratch<uint32_t, 0>(size_t(cells) + 3);
  auto* const ranks = scratch<uint64_t, 1>(size_t(cells));
  auto* const ends = scratch<uint32_t, 2>((size_t(1) << bits) + 1);
  for (int32_t draw = 0; 4 * draw < cells; ++draw) {
    const Random4 r = draw_block(key, uint32_t(draw));
    std::memcpy(words + 4 * draw, r.v, sizeof r.v);
  }
  const int shift = 32 - bits;
  std::fill_n(ends, (size_t(1) << bits) + 1, 0);
  for (int32_t i = 0; i < cells; ++i) ++ends[(words[i] >> shift) + 1];
  std::partial_sum(ends, ends + (size_t(1) << bits), ends);  // where each begins, and after the next loop, ends
  for (int32_t i = 0; i < cells; ++i) ranks[ends[words[i] >> shift]++] = cell_rank(words[i], i);
  return {ranks, ends, 1 << bits};
}

// Insertion sort: of a few, or of many that are nearly in order.
void sort_few(uint64_t* begin, const uint64_t* end) {
  for (uint64_t* i = begin; i < end; ++i) {
    const uint64_t rank = *i;
    uint64_t* j = i;
    for (; j > begin && j[-1] > rank; --j) *j = j[-1];
    *j = rank;
  }
}

// patch_of() of all cells, one after the other: its divisions are done once for a batch.
std::vector<int32_t> patches_of(const CellGrid& grid) {
  const int32_t cells = cells_of(grid), square = grid.side * grid.side;
  std::vector<int32_t> patches(size_t(cells) * size_t(square), 0);
  for (int32_t i = 0; i < cells * square; ++i) patches[size_t(i)] = patch_of(grid, i / square, i % square);
  return patches;
}

void run(const CellsJob& job, int threads) {
  const int32_t cells = cells_of(job.grid), square = job.grid.side * job.grid.side, kept = job.kept;
  const int64_t size = int64_t(cells) * square;
  const bool most = 2 * kept < cells;  // are masked: the fewer are written one by one
  const std::vector<int32_t> patches = patches_of(job.grid);
  each_sample(job.keys.samples, threads, 5.0 * cells + 1.0 * double(size), [&](int64_t sample) {
    uint8_t* const out = job.out + sample * size;
    std::fill_n(out, size_t(size), uint8_t(most || kept == 0));
    if (kept == 0 || kept == cells) return;
    const Buckets buckets = bucket_ranks(key_of(job.keys, sample), cells);
    // Only within the bucket that kept and masked cells share does their order matter.
    const uint32_t* const end = std::upper_bound(buckets.ends, buckets.ends + buckets.count, uint32_t(kept) - 1);
    sort_few(buckets.ranks + (end == buckets.ends ? 0 : end[-1]), buckets.ranks + *end);
    for (int32_t i = most ? 0 : kept; i < (most ? kept : cells); ++i) {
      const int32_t* const patch = patches.data() + cell_of(buckets.ranks[i]) * square;
      for (int32_t k = 0; k < square; ++k) out[patch[k]] = !most;
    }
  });
}

void run(const TokensJob& job, int threads) {
  const int32_t cells = cells_of(job.grid), square = job.grid.side * job.grid.side;
  const int64_t keep = job.prefix + int64_t(job.kept) * square, masked = int64_t(cells - job.kept) * square;
  const std::vector<int32_t> patches = patches_of(job.grid);
  each_sample(job.keys.samples, threads, 6.0 * cells + 1.0 * double(keep + masked), [&](int64_t sample) {
    const Buckets buckets = bucket_ranks(key_of(job.keys, sample), cells);
    sort_few(buckets.ranks, buckets.ranks + cells);
    const auto store = [&](int32_t from, int32_t to, int64_t* out) {
      if (square == 1) {
        for (int32_t i = from; i < to; ++i) *out++ = job.prefix + cell_of(buckets.ranks[i]);
        return;
      }
      for (int32_t i = from; i < to; ++i) {
        const int32_t* const patch = patches.data() + cell_of(buckets.ranks[i]) * square;
        for (int32_t k = 0; k < square; ++k) *out++ = job.prefix + patch[k];
      }
    };
    int64_t* const out = job.keep + sample * keep;
    std::iota(out, out + job.prefix, 0);
    store(0, job.kept, out + job.prefix);
    store(job.kept, cells, job.masked + sample * masked);
  });
}

void run(const PrefixJob& job, int threads) {
  each_sample(job.keys.samples, threads, 30 + 0.1 * job.length, [&](int64_t sample) {
    const int32_t kept = std::min(draw_prefix(key_of(job.keys, sample), job.low, job.high), job.length);
    uint8_t* const out = job.out + sample * job.length;
    std::fill_n(out, size_t(kept), uint8_t(0));
    std::fill_n(out + kept, size_t(job.length - kept), uint8_t(1));
  });
}

void run(const InverseBlockJob& job, int threads) {
  const int32_t cells = job.rules.rows * job.rules.columns;
  each_sample(job.keys.samples, threads, 100 + 5.0 * job.rules.visible + 0.1 * cells, [&](int64_t sample) {
    const InverseBlock block = draw_inverse_block(key_of(job.keys, sample), job.rules);
    uint8_t* const out = job.out + sample * cells;
    std::fill_n(out, size_t(cells), uint8_t(!job.inside));
    for (int32_t i = 0; i < job.rules.visible; ++i) out[visible_cell(job.rules, block, i)] = job.inside;
  });
}

void run(const CountsJob& job, int threads) {
  const int64_t n = job.keys.samples;
  if (!job.rules.exact_share) {
    each_sample(n, threads, 30,
                [&](int64_t sample) { job.out[sample] = draw_count(key_of(job.keys, sample), job.rules); });
    return;
  }
  each_sample(n, threads, 30, [&](int64_t sample) { job.order[sample] = count_order(key_of(job.keys, sample)); });
  std::vector<int64_t> samples(size_t(n), 0);
  std::iota(samples.begin(), samples.end(), 0);
  std::stable_sort(samples.begin(), samples.end(), [&](int64_t a, int64_t b) { return job.order[a] < job.order[b]; });
  const auto masked = int64_t(double(n) * job.rules.share);
  for (int64_t rank = 0; rank < n; ++rank) {
    const int64_t sample = samples[size_t(rank)];
    job.out[sample] = draw_exact_count(key_of(job.keys, sample), job.rules, rank, masked);
  }
}

// A row's bits, 0 or 1 a byte.
void store_bits(const uint32_t* words, int32_t columns, uint8_t* out) {
  for (int32_t x = 0; x < columns; ++x) out[x] = words[x / 32] >> (x % 32) & 1;
}

MaskBits bits_of(int32_t rows, int32_t columns) {
  return {scratch<uint32_t, 3>(size_t(words_of_bits(rows, columns))), rows, columns};
}

void run(const BlocksJob& job, int threads) {
  const int32_t rows = job.rules.rows, columns = job.rules.columns;
  const int64_t cells = int64_t(rows) * columns, stride = words_of_bits(1, columns);
  each_sample(job.keys.samples, threads, 600 + 10.0 * rows + double(cells), [&](int64_t sample) {
    uint8_t* const out = job.out + sample * cells;
    const MaskBits bits = bits_of(rows, columns);
    draw_blocks(Alone(), key_of(job.keys, sample), job.rules, job.counts[sample], bits);
    for (int32_t y = 0; y < rows; ++y) store_bits(bits.words + y * stride, columns, out + int64_t(y) * columns);
  });
}

void store_box(const Box& box, int32_t columns, int64_t cells, uint8_t* out) {
  std::fill_n(out, size_t(cells), uint8_t(0));
  for (int32_t y = box.top; y < box.top + box.height; ++y) {
    std::fill_n(out + int64_t(y) * columns + box.left, size_t(box.width), uint8_t(1));
  }
}

void run(const MultiBlockJob& job, int threads) {
  const MultiBlockRules& rules = job.rules;
  const int64_t cells = int64_t(rules.rows) * rules.columns;
  const double places = rules.targets + rules.contexts * (rules.targets + 3.0);
  each_sample(job.keys.samples, threads, places * (30 + 2.0 * rules.rows) + double(cells), [&](int64_t sample) {
    const DrawKey key = key_of(job.keys, sample);
    for (int32_t i = 0; i < rules.targets; ++i) {
      store_box(draw_target(key, rules, i), rules.columns, cells, job.targets + (sample * rules.targets + i) * cells);
    }
    const MaskBits bits = bits_of(rules.rows, rules.columns);
    for (int32_t i = 0; i < rules.contexts; ++i) {
      Box box;
      if (!draw_context(Alone(), key, rules, i, bits, box)) box = {};
      uint8_t* const out = job.contexts + (sample * rules.contexts + i) * cells;
      store_box(box, rules.columns, cells, out);
      for (int32_t y = box.top; y < box.top + box.height; ++y) {
        for (int32_t x = box.left; x < box.left + box.width; ++x) {
          out[int64_t(y) * rules.columns + x] = !bit_at(bits, y, x);
        }
      }
    }
  });
}

// Writes where bytes are 0, if `unlike`, else where they are not, up to `limit` places; returns how many. Eight bytes at a time, as
// most are like none or all of their neighbours.
int64_t find_places(const uint8_t* mask, int32_t length, bool unlike, int32_t offset, int64_t limit, int64_t* out) {
  constexpr uint64_t kOnes = 0x0101010101010101u;
  int64_t found = 0;
  for (int32_t i = 0; i < length && found < limit; i += 8) {
    uint64_t eight = kOnes * unlike;
    std::memcpy(&eight, mask + i, size_t(std::min(8, length - i)));
    // Bytes of a bool are seldom others than 0 and 1. To make them so: the sum's last bit of a byte is whether one before it is set.
    if (eight & ~kOnes) eight = (((eight & 0x7f * kOnes) + 0x7f * kOnes) | eight) >> 7 & kOnes;
    eight ^= kOnes * unlike;
    for (; eight && found < limit; eight &= eight - 1) out[found++] = offset + i + __builtin_ctzll(eight) / 8;
  }
  return found;
}

void run(const PartitionJob& job, int threads) {
  const int64_t width = int64_t(job.prefix) + job.count, others = job.length - job.count;
  const int64_t wanted = job.rest ? job.length : job.count;
  each_sample(job.rows, threads, 0.5 * job.length, [&](int64_t row) {
    const uint8_t* const mask = job.mask + row * job.length;
    int64_t* const order = scratch<int64_t, 4>(size_t(job.length) + 1);
    const int64_t sets = find_places(mask, job.length, false, job.prefix, wanted, order);
    find_places(mask, job.length, true, job.prefix, wanted - sets, order + sets);
    int64_t* const first = job.first + row * width;
    std::iota(first, first + job.prefix, 0);
    std::copy_n(order, job.count, first + job.prefix);
    if (job.rest) std::copy_n(order + job.count, others, job.rest + row * others);
  });
}

}  // namespace

void draw_masks(const MaskJob& job, int threads) {
  std::visit([threads](const auto& one) { run(one, threads); }, job);
}

int64_t least_set(const uint8_t* mask, int64_t rows, int64_t length) {
  constexpr int64_t kAtOnce = 255;  // as many as a byte can count: sixteen such sums fit into a vector
  int64_t least = rows ? length : 0;
  for (int64_t row = 0; row < rows; ++row) {
    int64_t set = 0;
    for (int64_t begin = 0; begin < length; begin += kAtOnce) {
      uint8_t some = 0;
      const int64_t end = std::min(length, begin + kAtOnce);
      for (int64_t i = begin; i < end; ++i) some += mask[row * length + i] != 0;
      set += some;
    }
    least = std::min(least, set);
  }
  return least;
}

}  // namespace fastssl::cpu
