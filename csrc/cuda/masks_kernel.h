// Kernels of masks: one block a sample, which draws what core/masks.h says and nothing of which depends on another block.
//
// Launch   as many blocks as samples; one warp where a sample's draws follow from each other, 128 threads where they do not.
// Memory   a sample's ranks (8 bytes a cell) or bits lie in shared memory, up to kSharedBytes; beyond, in memory of the caller.
// Bound    by latency: a batch of 256 has 256 blocks of little work.
#pragma once

#include "../core/mask_jobs.h"
#include "grid.h"
#include "masks.h"

namespace fastssl::cuda {

constexpr int64_t kSharedBytes = 32 * 1024;
constexpr int kWarpThreads = 32;
constexpr int kBlockThreads = 128;

// The least power of two that is not below n.
FASTSSL_HD int32_t padded(int32_t n) {
  int32_t size = 1;
  while (size < n) size *= 2;
  return size;
}
FASTSSL_HD int64_t rank_bytes(int32_t cells) { return int64_t(padded(cells)) * int64_t(sizeof(uint64_t)); }
FASTSSL_HD int64_t bits_bytes(int32_t rows, int32_t columns) {
  return core::words_of_bits(rows, columns) * int64_t(sizeof(uint32_t));
}

namespace {

// The memory of this block: shared where it holds `bytes`, else its part of `scratch`.
template <typename T>
FASTSSL_DEVICE T* own_memory(T* scratch, int64_t bytes) {
  if (bytes <= kSharedBytes) return reinterpret_cast<T*>(grid::shared());
  return scratch + grid::block() * (bytes / int64_t(sizeof(T)));
}

// The threads of a block of one warp, as the team of core/masks.h.
struct Warp {
  FASTSSL_DEVICE int32_t lane() const { return grid::thread(); }
  FASTSSL_DEVICE int32_t lanes() const { return kWarpThreads; }
  FASTSSL_DEVICE int32_t sum(int32_t v) const {
    for (int mask = kWarpThreads / 2; mask > 0; mask /= 2) v += grid::shuffle_xor(v, mask);
    return v;
  }
  FASTSSL_DEVICE void sync() const { grid::barrier(); }
};

// The ranks of a sample's cells in ascending order, by a bitonic network (Batcher, 1968) of log^2 passes.
FASTSSL_DEVICE const uint64_t* sorted_ranks(const core::DrawKey& key, int32_t cells, uint64_t* scratch) {
  const int32_t size = padded(cells);
  uint64_t* const ranks = own_memory(scratch, rank_bytes(cells));
  for (int32_t draw = grid::thread(); 4 * draw < size; draw += kBlockThreads) {
    const core::Random4 r = core::draw_block(key, uint32_t(draw));
    for (int32_t k = 0; k < 4; ++k) {
      const int32_t i = 4 * draw + k;
      if (i < size) ranks[i] = i < cells ? core::cell_rank(r.v[k], i) : ~uint64_t(0);
    }
  }
  grid::barrier();
  for (int32_t run = 2; run <= size; run *= 2) {
    for (int32_t apart = run / 2; apart > 0; apart /= 2) {
      for (int32_t i = grid::thread(); i < size / 2; i += kBlockThreads) {
        const int32_t low = 2 * (i - i % apart) + i % apart, high = low + apart;
        const uint64_t a = ranks[low], b = ranks[high];
        if ((a > b) == ((low & run) == 0)) {
          ranks[low] = b;
          ranks[high] = a;
        }
      }
      grid::barrier();
    }
  }
  return ranks;
}

struct CellsKernel {
  static constexpr int kThreads = kBlockThreads, kBlocks = 8;
  core::CellsJob job;

  FASTSSL_DEVICE void operator()() const {
    const int32_t cells = core::cells_of(job.grid), square = job.grid.side * job.grid.side;
    uint8_t* const out = job.out + grid::block() * cells * square;
    const uint64_t* const ranks = sorted_ranks(core::key_of(job.keys, grid::block()), cells, job.scratch);
    for (int32_t i = grid::thread(); i < cells * square; i += kThreads) {
      out[core::patch_of(job.grid, core::cell_of(ranks[i / square]), i % square)] = i / square >= job.kept;
    }
  }
};

struct TokensKernel {
  static constexpr int kThreads = kBlockThreads, kBlocks = 8;
  core::TokensJob job;

  FASTSSL_DEVICE void operator()() const {
    const int32_t cells = core::cells_of(job.grid), square = job.grid.side * job.grid.side;
    const int32_t kept = job.kept * square, masked = cells * square - kept;
    int64_t* const keep = job.keep + grid::block() * (job.prefix + kept);
    int64_t* const rest = job.masked + grid::block() * masked;
    for (int32_t i = grid::thread(); i < job.prefix; i += kThreads) keep[i] = i;
    const uint64_t* const ranks = sorted_ranks(core::key_of(job.keys, grid::block()), cells, job.scratch);
    for (int32_t i = grid::thread(); i < kept + masked; i += kThreads) {
      const int32_t patch = core::patch_of(job.grid, core::cell_of(ranks[i / square]), i % square);
      (i < kept ? keep[job.prefix + i] : rest[i - kept]) = job.prefix + patch;
    }
  }
};

struct PrefixKernel {
  static constexpr int kThreads = kBlockThreads, kBlocks = 8;
  core::PrefixJob job;

  FASTSSL_DEVICE void operator()() const {
    uint8_t* const out = job.out + grid::block() * job.length;
    const int32_t kept = core::draw_prefix(core::key_of(job.keys, grid::block()), job.low, job.high);
    for (int32_t i = grid::thread(); i < job.length; i += kThreads) out[i] = i >= kept;
  }
};

struct InverseBlockKernel {
  static constexpr int kThreads = kBlockThreads, kBlocks = 8;
  core::InverseBlockJob job;

  FASTSSL_DEVICE void operator()() const {
    const int32_t cells = job.rules.rows * job.rules.columns;
    uint8_t* const out = job.out + grid::block() * cells;
    // The first warp draws, since some GPUs have few units for doubles.
    int32_t* const drawn = reinterpret_cast<int32_t*>(grid::shared());
    if (grid::thread() < kWarpThreads) {
      const core::InverseBlock block = core::draw_inverse_block(core::key_of(job.keys, grid::block()), job.rules);
      if (grid::thread() == 0) {
        drawn[0] = block.top;
        drawn[1] = block.left;
        drawn[2] = block.width;
      }
    }
    for (int32_t i = grid::thread(); i < cells; i += kThreads) out[i] = !job.inside;
    grid::barrier();
    const core::InverseBlock block{drawn[0], drawn[1], drawn[2]};
    for (int32_t i = grid::thread(); i < job.rules.visible; i += kThreads) {
      out[core::visible_cell(job.rules, block, i)] = job.inside;
    }
  }
  static constexpr int kShared = 3 * sizeof(int32_t);
};

// A thread a sample.
struct CountsKernel {
  static constexpr int kThreads = kBlockThreads, kBlocks = 8;
  core::CountsJob job;

  FASTSSL_DEVICE void operator()() const {
    const int64_t sample = grid::block() * kThreads + grid::thread();
    if (sample >= job.keys.samples) return;
    const core::DrawKey key = core::key_of(job.keys, sample);
    if (job.rules.exact_share) {
      job.order[sample] = core::count_order(key);
    } else {
      job.out[sample] = core::draw_count(key, job.rules);
    }
  }
};

// A thread a sample, which finds its rank by looking at all others: no sort is faster for batches of usual size.
struct ExactCountsKernel {
  static constexpr int kThreads = kBlockThreads, kBlocks = 8;
  core::CountsJob job;
  int64_t masked;

  FASTSSL_DEVICE void operator()() const {
    const int64_t sample = grid::block() * kThreads + grid::thread();
    if (sample >= job.keys.samples) return;
    const int64_t own = job.order[sample];
    int64_t rank = 0;
    for (int64_t i = 0; i < job.keys.samples; ++i) rank += job.order[i] < own || (job.order[i] == own && i < sample);
    job.out[sample] = core::draw_exact_count(core::key_of(job.keys, sample), job.rules, rank, masked);
  }
};

struct BlocksKernel {
  static constexpr int kThreads = kWarpThreads, kBlocks = 16;
  core::BlocksJob job;

  FASTSSL_DEVICE void operator()() const {
    const int32_t rows = job.rules.rows, columns = job.rules.columns;
    const core::MaskBits bits{own_memory(job.scratch, bits_bytes(rows, columns)), rows, columns};
    core::draw_blocks(Warp(), core::key_of(job.keys, grid::block()), job.rules, job.counts[grid::block()], bits);
    uint8_t* const out = job.out + grid::block() * rows * columns;
    for (int32_t i = grid::thread(); i < rows * columns; i += kThreads) {
      out[i] = core::bit_at(bits, i / columns, i % columns);
    }
  }
};

struct MultiBlockKernel {
  static constexpr int kThreads = kWarpThreads, kBlocks = 16;
  core::MultiBlockJob job;

  FASTSSL_DEVICE void operator()() const {
    const core::MultiBlockRules& rules = job.rules;
    const core::DrawKey key = core::key_of(job.keys, grid::block());
    const int32_t columns = rules.columns, cells = rules.rows * columns;
    uint8_t* out = job.targets + grid::block() * rules.targets * cells;
    for (int32_t target = 0; target < rules.targets; ++target, out += cells) {
      const core::Box box = core::draw_target(key, rules, target);
      for (int32_t i = grid::thread(); i < cells; i += kThreads) out[i] = core::inside(box, i / columns, i % columns);
    }
    const core::MaskBits bits{own_memory(job.scratch, bits_bytes(rules.rows, columns)), rules.rows, columns};
    out = job.contexts + grid::block() * rules.contexts * cells;
    for (int32_t context = 0; context < rules.contexts; ++context, out += cells) {
      core::Box box;
      if (!core::draw_context(Warp(), key, rules, context, bits, box)) box = {};
      for (int32_t i = grid::thread(); i < cells; i += kThreads) {
        out[i] = core::inside(box, i / columns, i % columns) && !core::bit_at(bits, i / columns, i % columns);
      }
      grid::barrier();  // before the next context clears the bits
    }
  }
};

// A block a row. Each thread has as many places, one after the other; a scan says how many set ones come before its own.
struct PartitionKernel {
  static constexpr int kThreads = kBlockThreads, kBlocks = 8;
  static constexpr int kShared = 2 * kThreads * sizeof(int32_t);
  core::PartitionJob job;

  FASTSSL_DEVICE void operator()() const {
    const int64_t row = grid::block();
    const uint8_t* const mask = job.mask + row * job.length;
    const int32_t each = (job.length + kThreads - 1) / kThreads;
    const int32_t begin = core::smaller(grid::thread() * each, job.length);
    const int32_t end = core::smaller(begin + each, job.length);
    int32_t own = 0;
    for (int32_t i = begin; i < end; ++i) own += mask[i] != 0;
    int32_t* const sums = reinterpret_cast<int32_t*>(grid::shared());
    int32_t side = 0;  // one half is read while the other is written
    sums[grid::thread()] = own;
    grid::barrier();
    for (int32_t apart = 1; apart < kThreads; apart *= 2, side = kThreads - side) {
      const int32_t before = grid::thread() >= apart ? sums[side + grid::thread() - apart] : 0;
      sums[kThreads - side + grid::thread()] = sums[side + grid::thread()] + before;
      grid::barrier();
    }
    const int32_t all = sums[side + kThreads - 1];
    int32_t set = sums[side + grid::thread()] - own, unset = all + begin - set;
    int64_t* const first = job.first + row * (int64_t(job.prefix) + job.count);
    for (int32_t i = grid::thread(); i < job.prefix; i += kThreads) first[i] = i;
    for (int32_t i = begin; i < end; ++i) {
      const int32_t at = mask[i] ? set++ : unset++;
      if (at < job.count) {
        first[job.prefix + at] = job.prefix + i;
      } else if (job.rest) {
        job.rest[row * (job.length - job.count) + at - job.count] = job.prefix + i;
      }
    }
  }
};

// --- launches ---------------------------------------------------------------------------------------------------------

int shared_for(int64_t bytes) { return bytes <= kSharedBytes ? int(bytes) : 0; }
int64_t blocks_for(int64_t samples) { return (samples + kBlockThreads - 1) / kBlockThreads; }

void run(const core::CellsJob& job, grid::Stream stream) {
  grid::launch(CellsKernel{job}, job.keys.samples, shared_for(rank_bytes(core::cells_of(job.grid))), stream);
}
void run(const core::TokensJob& job, grid::Stream stream) {
  grid::launch(TokensKernel{job}, job.keys.samples, shared_for(rank_bytes(core::cells_of(job.grid))), stream);
}
void run(const core::PrefixJob& job, grid::Stream stream) {
  grid::launch(PrefixKernel{job}, job.keys.samples, 0, stream);
}
void run(const core::InverseBlockJob& job, grid::Stream stream) {
  grid::launch(InverseBlockKernel{job}, job.keys.samples, InverseBlockKernel::kShared, stream);
}
void run(const core::CountsJob& job, grid::Stream stream) {
  const int64_t n = job.keys.samples;
  grid::launch(CountsKernel{job}, blocks_for(n), 0, stream);
  if (!job.rules.exact_share) return;
  grid::launch(ExactCountsKernel{job, int64_t(double(n) * job.rules.share)}, blocks_for(n), 0, stream);
}
void run(const core::BlocksJob& job, grid::Stream stream) {
  grid::launch(BlocksKernel{job}, job.keys.samples, shared_for(bits_bytes(job.rules.rows, job.rules.columns)), stream);
}
void run(const core::MultiBlockJob& job, grid::Stream stream) {
  const int shared = shared_for(bits_bytes(job.rules.rows, job.rules.columns));
  grid::launch(MultiBlockKernel{job}, job.keys.samples, shared, stream);
}
void run(const core::PartitionJob& job, grid::Stream stream) {
  grid::launch(PartitionKernel{job}, job.rows, PartitionKernel::kShared, stream);
}

void run_any(const core::MaskJob& job, grid::Stream stream) {
  std::visit([stream](const auto& one) { run(one, stream); }, job);
}

}  // namespace
}  // namespace fastssl::cuda
