#include "contrastive_plan.h"

#include <algorithm>

namespace fastssl::cuda {

namespace {

constexpr int kTileBytes = kTileRows * kChunkBytes;
constexpr int32_t kMostShare = 128;  // of blocks in one row of tiles, whose sums are added up at the end

template <typename T>
T up(T value, T to) {
  return (value + to - 1) / to;
}

// Hands out a workspace.
class Places {
 public:
  int64_t take(int64_t bytes) {
    const int64_t at = end_;
    end_ += up<int64_t>(bytes, 256) * 256;
    return at;
  }
  int64_t end() const { return end_; }

 private:
  int64_t end_ = 0;
};

void place_side(SideLayout& side, const ContrastiveJob& job, const RowMatrix& rows, Places& places) {
  side.tiles = up(rows.count, int32_t(kTileRows));
  const int64_t padded = int64_t(side.tiles) * kTileRows;
  side.operand = places.take(padded * job.row_bytes());
  side.inverse = places.take(padded * int64_t(sizeof(float)));
  side.factor = places.take(2 * sizeof(float));
  side.largest = places.take(rows.normalize ? 0 : padded * int64_t(sizeof(float)));
  side.length = places.take(rows.normalize ? 0 : padded * int64_t(sizeof(float)));
  side.id_ranges = places.take(rows.has_ids() ? side.tiles * 4 * int64_t(sizeof(int64_t)) : 0);
  side.ids = places.take(rows.images ? padded * int64_t(sizeof(int64_t)) : 0);
}

// Blocks of eight warps or of four: eight warps take all registers of a multiprocessor.
int blocks_of(const ContrastiveJob& job) { return job.split() ? 1 : 2; }
int64_t slots_of(const ContrastiveJob& job, const GridSize& grid) {
  return int64_t(grid.multiprocessors) * blocks_of(job);
}
bool is_wide(const ContrastiveJob& job, const GridSize& grid) {
  return grid.wide && !job.split() && has_wide_kernels(job.chunks());
}

// How many blocks should share a row of `items` equal pieces of work, where there are `rows` of them: the least time of the
// fullest multiprocessor. `start` is what a block costs before its first piece, in pieces. All blocks together are no more
// than four times what the GPU takes at once, unless there are more rows, so that what they leave to be added up is bounded
// by the GPU's size.
int32_t best_share(int64_t rows, int64_t items, int64_t slots, double start) {
  const int64_t most = std::min<int64_t>({kMostShare, items, 4 * slots / rows});
  int32_t best = 1;
  double least = 0;
  for (int32_t share = 1; share <= std::max<int64_t>(most, 1); ++share) {
    const double time = double(up(rows * share, slots)) * (double(up<int64_t>(items, share)) + start);
    if (share == 1 || time < least * 0.95) {  // more blocks leave more to add up
      best = share;
      least = time;
    }
  }
  return best;
}

ForwardPlan plan_forward(const ContrastiveJob& job, const GridSize& grid, Places& kept, Places& places);
BackwardPlan plan_backward(const ContrastiveJob& job, const GridSize& grid, bool needs_query, bool needs_key,
                           Places& kept, Places& places);

}  // namespace

int32_t ContrastiveJob::chunks() const { return up(dimensions, int32_t(split() ? kChunkHalves / 2 : kChunkHalves)); }
int32_t ContrastiveJob::padded_dimensions() const { return chunks() * (split() ? kChunkHalves / 2 : kChunkHalves); }

int forward_shared(const ContrastiveJob& job, bool resident) {
  const int sums =
      (job.split() ? 8 : 4) * kTileRows * int(sizeof(float));  // and shifts, of two or of four warps side by side
  return (resident ? job.chunks() : 2) * kTileBytes + 2 * kTileBytes + sums;
}

ForwardPlan plan_forward(const ContrastiveJob& job, const GridSize& grid) {
  Places places;
  return plan_forward(job, grid, places, places);
}

BackwardPlan plan_backward(const ContrastiveJob& job, const GridSize& grid, bool needs_query, bool needs_key) {
  Places places;
  return plan_backward(job, grid, needs_query, needs_key, places, places);
}

NtxentPlan plan_ntxent(const ContrastiveJob& job, const GridSize& grid) {
  NtxentPlan plan;
  // Both passes have the same sides in the same places.
  Places kept, kept_again, forward, backward;
  plan.forward = plan_forward(job, grid, kept, forward);
  plan.backward = plan_backward(job, grid, true, false, kept_again, backward);
  const int64_t floats = job.query.count * int64_t(sizeof(float));
  plan.rows = kept.take(floats);
  plan.positives = kept.take(floats);
  plan.steepest = kept.take(sizeof(float));
  plan.gradients = backward.take(floats);
  plan.kept_bytes = kept.end();
  plan.forward_bytes = forward.end();
  plan.backward_bytes = backward.end();
  return plan;
}

namespace {

// Sides take their place in `kept`, the rest in `places`; these may be the same.
ForwardPlan plan_forward(const ContrastiveJob& job, const GridSize& grid, Places& kept, Places& places) {
  ForwardPlan plan;
  place_side(plan.query, job, job.query, kept);
  if (job.symmetric) {
    plan.key = plan.query;
  } else {
    place_side(plan.key, job, job.key, kept);
  }
  const int32_t rows = plan.query.tiles, columns = plan.key.tiles, chunks = job.chunks();
  plan.wide = is_wide(job, grid);
  // Of wide blocks, which hold all of their queries, one fits on a multiprocessor beyond 128 dimensions.
  const int64_t slots = plan.wide && chunks > 2 ? grid.multiprocessors : slots_of(job, grid);
  // Held in shared memory, a row tile is read once and not once a column tile; as many blocks must fit all the same.
  plan.resident = chunks <= 2 || blocks_of(job) * (forward_shared(job, true) + 1024) <= grid.shared_bytes;

  const bool by_distance = job.symmetric && job.unit();
  const bool by_strip = job.columns && job.unit();
  plan.height = by_distance ? up(rows, 2 * grid.most_slots) : by_strip ? up(rows, grid.most_slots) : 1;
  plan.strips = up(rows, plan.height);
  plan.slots = by_distance ? plan.strips / 2 : by_strip ? plan.strips : 0;
  const int64_t items = int64_t(plan.height) * (by_distance ? (plan.strips / 2 + 1) * plan.height : columns);
  plan.segments = best_share(plan.strips, items, slots, 1);
  const auto floats = [&](int64_t each, const SideLayout& side) {
    return places.take(each * side.tiles * kTileRows * int64_t(sizeof(float)));
  };
  plan.row_sums = floats(plan.segments, plan.query);
  plan.row_shifts = floats(plan.segments, plan.query);
  plan.column_sums = floats(plan.slots, plan.key);
  if (job.columns) {
    plan.exchanged_strips = columns;
    plan.exchanged_segments = best_share(columns, rows, slots, 1);
    plan.exchanged_sums = floats(plan.exchanged_segments, plan.key);
    plan.exchanged_shifts = floats(plan.exchanged_segments, plan.key);
  }
  plan.bytes = places.end();
  return plan;
}

BackwardPlan plan_backward(const ContrastiveJob& job, const GridSize& grid, bool needs_query, bool needs_key,
                           Places& kept, Places& places) {
  BackwardPlan plan;
  plan.wide = is_wide(job, grid);
  const int64_t slots = plan.wide ? grid.multiprocessors : slots_of(job, grid);
  const auto place = [&](SideLayout& side, const RowMatrix& rows) {
    place_side(side, job, rows, kept);
    const int64_t padded = int64_t(side.tiles) * kTileRows;
    side.weight = places.take(padded * int64_t(sizeof(float)));
    side.shift = places.take(padded * int64_t(sizeof(float)));
  };
  place(plan.query, job.query);
  if (job.symmetric) {
    plan.key = plan.query;
  } else {
    place(plan.key, job.key);
  }
  plan.newer = grid.newer;
  plan.steps = grid.steps;
  plan.fused = plan.wide || (!job.split() && job.dimensions <= kMostFused);
  const int keys = plan.wide ? wide_keys(job.chunks()) : kFusedKeys;  // that the fused pass takes at once
  const int32_t rows = plan.query.tiles, columns = plan.key.tiles;
  if (!plan.fused) {
    // As square as the matrix allows.
    const int32_t most = grid.panel_tiles * grid.panel_tiles;
    plan.panel_queries = std::min(rows, std::max(grid.panel_tiles, most / std::max(columns, 1)));
    plan.panel_keys = job.symmetric ? plan.panel_queries : std::min(columns, most / plan.panel_queries);
    plan.weights =
        places.take(int64_t(plan.panel_queries) * plan.panel_keys * kTileRows * kTileRows * 2 * (job.split() ? 2 : 1));
  }
  plan.wide_panels = grid.wide && !plan.fused && !job.split();
  const int32_t columns_of_tile = plan.wide_panels ? int32_t(kWideColumns) : int32_t(kTileRows);
  const int64_t wide = up(job.padded_dimensions(), columns_of_tile);  // tiles of a row's gradient
  const int64_t product_slots = plan.wide_panels ? int64_t(grid.multiprocessors) : slots;
  const auto share = [&](SideLayout& side, const SideLayout& other, int32_t panel, int32_t panel_of_other) {
    side.splits = plan.fused ? best_share(side.tiles, int64_t(other.tiles) * (kTileRows / keys), slots, 256.0 / keys)
                             : best_share(panel * wide, int64_t(panel_of_other) * 2, product_slots, 4);
    side.partial =
        places.take(int64_t(side.splits) * side.tiles * kTileRows * job.padded_dimensions() * int64_t(sizeof(float)));
  };
  // The gradient in the scale comes with that in the queries, or else in the keys.
  if (needs_query || !needs_key) share(plan.query, plan.key, plan.panel_queries, plan.panel_keys);
  if (job.symmetric) {
    plan.key = plan.query;
  } else if (needs_key) {
    share(plan.key, plan.query, plan.panel_keys, plan.panel_queries);
  }
  plan.unit = places.take(sizeof(float));
  plan.euler = places.take(std::max(rows, columns) * int64_t(kTileRows) * int64_t(sizeof(float)));
  plan.bytes = places.end();
  return plan;
}

}  // namespace

}  // namespace fastssl::cuda
