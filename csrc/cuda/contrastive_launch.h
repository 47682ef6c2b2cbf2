// Launches a contrastive job's kernels, on whatever machine grid.h stands for. Included by contrastive_*.cu and
// contrastive_emulated.cpp alone.
//
// Note [The floor of contrastive losses]
//     On paper, for an H100 SXM; what was measured is below. It has 132 multiprocessors at 1.75 GHz, and each of them,
//     in a clock, does 4096 operations of float16 by wgmma, about 2500 by mma.sync (62 %: a product of 16 x 16 by 16 x 8 in
//     1.6 clocks), 16 exponentials, and moves 128 bytes of shared memory. Together they read some 5.5 TB/s from the L2
//     cache. R rows of D dimensions, keys are queries, constant shift:
//
//         pass                    operations   exponentials   R = 16384, D = 128, in us: by wgmma, by mma.sync, exponentials
//         forward, half the pairs      R^2 D       R^2 / 2                                    36        59       36
//         backward, fused            4 R^2 D           R^2                                   145       238       73
//         backward, panels           3 R^2 D       R^2 / 2     (D > 128; here at D = 512)    436       714       36
//
//     So both passes take 0.18 ms at the least, and 0.30 ms by mma.sync if exponentials hide behind the products, as they
//     do where another warp, or the next 16 keys of the same one, keeps the matrix units busy. From memory come 2 R D bytes, 4 MB, a pass: nothing. From L2, a row tile's keys, 2 R D bytes for every 128
//     rows, half of that in the forward pass: 0.27 and 0.54 GB, 2 TB/s. At D = 512 L2 is the bound: row tiles no longer
//     stay in shared memory, so a tile of 128 x 128 pairs reads 2 * 128 * 2 D bytes, 2.1 GB in all, 0.39 ms in the forward
//     pass; the panels read as much, and their products twice as much, 6.4 GB, 1.2 ms. Tiles of 256 x 128 would read a
//     quarter less. float32 does three products for one, and reads twice as many bytes. Around the products are kernels that
//     read or write R D numbers. Shared memory, in clocks of a multiprocessor for each
//     product of a warp, to be below 1.6: forward, panels and their products, 64 x 64 sums from 8 loads of 4 clocks for 32
//     products: 1.0. Fused: 18 loads for 64 products (16 keys, D = 128): 1.1. Split: 12 for 48: 1.0.
//
//         kernel         threads  registers sm_80, sm_90  shared memory, KB                      blocks a multiprocessor
//         Forward            128      236, 237             66; up to 64 dimensions 50                       2
//         Forward, split     256      226, 229             100 at 128 dimensions; beyond 160, 68           1
//         Fused, 64          128      162, 164             18                                                 3
//         Fused, 128         128      255, 255             37                                                 2
//         Panel              128      200, 204             64                                                 2
//         Panel, split       256      189, 192             64                                                 1
//         Product            128      212, 214             64                                                 2
//         Product, split     256      214, 216             64                                                 1
//
//     That is eight warps a multiprocessor, two for each of its schedulers, twelve for Fused, 64: registers allow no more,
//     and independent products enough hide the units' latency: 32 in Forward, Panel and Product, 4 + 32 in Fused. Where a
//     multiprocessor has 100 KB of shared memory (sm_86, sm_89, sm_120), one block fits of those that take more than 49;
//     their matrix units are slower in proportion.
//
//     By wgmma (contrastive_wide.h), of compute capability 9.0, float16 operands of 128 and 256 padded dimensions; its bound is
//     the column of wgmma above, for both passes fused:
//
//         pass                    operations   exponentials   R = 16384, in us: D = 128, D = 256, exponentials
//         forward, half the pairs      R^2 D       R^2 / 2                        36         72       36
//         backward, fused            4 R^2 D           R^2                       145        290       73
//
//     A warpgroup's 64 x 128 products of 128 dimensions take the units 512 clocks, and 8192 exponentials 512 clocks of
//     theirs, besides which a thread adds each to two sums: forward at D = 128 both are the bound. Backward, exponentials are
//     half of the products, and should hide behind the other warpgroup's. Shared memory, in clocks for 64 x 128 products of 16
//     terms, which take 64: A and B from there 48, B alone 32; with 64 keys (backward, D = 256) A and B are 32 for 32. L2 is read
//     as by the other kernels, a row tile's keys for every 128 rows. Beyond 128 dimensions fused is 4 R^2 D operations where
//     panels are 3, but writes no weights, and at the rates above takes less: 290 beside 342 us and the panels' way through L2.
//     For other dimensions beyond 128 a panel's weights and their products are by wgmma (contrastive_wide_panels.h), 128 x 256 a
//     block: of L2 at D = 512 1.6 GB in place of 2.1, and 3.2 in place of 4.3, 0.29 and 0.59 ms; of the units 0.14 and 0.29 ms.
//
//         kernel         threads  registers sm_90a         shared memory, KB                      blocks a multiprocessor
//         WideForward, 2     256      128                  101: 128 queries and two times 128 keys        2
//         WideForward, 4     256      147                  197                                            1
//         WideFused, 2       256      251                  163: 128 queries and four times 128 keys       1
//         WideFused, 4       256      255                  194: four times 64 keys                        1
//         WidePanel          256      255                  193: four times 64 numbers of 128 and 256 rows 1
//         WideProduct        256      182                  193: four times 64 terms of 128 x 256          1
//
// Note [What was measured of contrastive losses]
//     On an H100 80GB HBM3, R = 16384, NT-Xent of bfloat16, in us; 2026-11-26. Whole passes as a CUDA graph, kernels by
//     torch's profiler. *: by mma.sync, WideProduct excepted, which began to copy only before its products and not during them.
//
//                                          D = 128    D = 256    D = 512
//         forward                              140        188       402
//         forward and backward                 397        671      2208*
//         both by mma.sync                     621       1860      2487
//         Forward, wgmma / mma.sync       121 / 142  166 / 214    - / 373
//         Fused, wgmma / mma.sync         239 / 388  449 / -      Panel 685*, Product 1212, WideProduct 1027*
//         Finish                                22         43        92
//
//     So the forward pass is 3.4 times its floor at D = 128 and 2.3 at 256, the fused pass 1.6 and 1.5. Of the forward pass,
//     560 instructions a warp and tile of 64 x 128 products are left of 895 (174 us); its issue slots, matrix units and
//     exponentials are all half empty, so that it is bound by how long a step takes a warpgroup from end to end. At D = 512
//     neither L2 (3.1 TB/s) nor the units (28 %) bound WideProduct: a step took 3600 clocks, of which its products are 1024;
//     hence the other order now, which no clock has seen, nor WidePanel.
//     The host of that virtual machine needs 0.19 to 0.26 ms for both passes without launches, of which a torch.autograd.Function
//     that does nothing is 0.13, and 11 us each for eight launches: 0.44 ms a step from Python, of which the device has 0.40.
#pragma once

#include "contrastive.h"
#include "contrastive_finish.h"
#include "contrastive_forward.h"
#include "contrastive_loss.h"
#include "contrastive_panels.h"
#include "contrastive_wide.h"
#include "contrastive_wide_panels.h"

namespace fastssl::cuda {
namespace {

// Which kernels multiply: of rows in float16, of rows in two parts, of rows in float16 by wgmma, and, in the backward pass, of a
// panel's weights by wgmma.
enum class Path { Halves, Split, Wide, WidePanels };
template <Path kPath>
constexpr bool kIsSplit = kPath == Path::Split;

// A workspace, by what lies where.
class Workspace {
 public:
  explicit Workspace(void* base) : base_(static_cast<char*>(base)) {}
  char* bytes(int64_t at) const { return base_ + at; }
  float* floats(int64_t at) const { return reinterpret_cast<float*>(base_ + at); }
  IdRanges* id_ranges(int64_t at) const { return reinterpret_cast<IdRanges*>(base_ + at); }
  int64_t* ids(int64_t at) const { return reinterpret_cast<int64_t*>(base_ + at); }

 private:
  char* base_;
};

Input input_of(const ContrastiveJob& job, const RowMatrix& rows) {
  const int32_t first = rows.rest ? rows.first : rows.count;
  return {rows.data,  rows.rest,      rows.stride, rows.rest_stride, first,
          rows.count, job.dimensions, rows.type,   rows.normalize};
}

Side side_of(const RowMatrix& rows, const SideLayout& layout, const Workspace& workspace) {
  return {workspace.bytes(layout.operand),
          workspace.floats(layout.factor),
          rows.images ? workspace.ids(layout.ids) : rows.ids,
          rows.has_ids() ? workspace.id_ranges(layout.id_ranges) : nullptr,
          rows.count,
          layout.tiles};
}

Problem problem_of(const ContrastiveJob& job, const SideLayout& query, const SideLayout& key,
                   const Workspace& workspace) {
  return {side_of(job.query, query, workspace),
          side_of(job.key, key, workspace),
          {job.scale, job.scale_value},
          job.row_bytes(),
          job.chunks(),
          job.positive,
          job.symmetric,
          job.bounded()};
}

int64_t blocks_of(int64_t items, int64_t each) { return (items + each - 1) / each; }

template <Path kPath>
void prepare_side(const ContrastiveJob& job, const RowMatrix& rows, const SideLayout& layout,
                  const Workspace& workspace, grid::Stream stream) {
  const Input in = input_of(job, rows);
  const int32_t padded = layout.tiles * kTileRows;
  float* const factor = workspace.floats(layout.factor);
  if (!rows.normalize) {
    float *const largest = workspace.floats(layout.largest), *const length = workspace.floats(layout.length);
    grid::launch(LargestKernel{in, largest, length}, blocks_of(rows.count, kRowsPerBlock), 0, stream);
    grid::launch(FactorKernel{largest, length, rows.count, factor}, 1, FactorKernel::kShared, stream);
  }
  using Operands = OperandKernel<kIsSplit<kPath>, kPath == Path::Wide>;
  grid::launch(Operands{in, factor, workspace.bytes(layout.operand), job.row_bytes(), padded, job.padded_dimensions(),
                        workspace.floats(layout.inverse), rows.images, workspace.ids(layout.ids),
                        workspace.id_ranges(layout.id_ranges)},
               blocks_of(padded, kRowsPerBlock), 0, stream);
  if (rows.ids && !rows.images)
    grid::launch(RangesKernel{rows.ids, rows.count, workspace.id_ranges(layout.id_ranges)}, layout.tiles,
                 RangesKernel::kShared, stream);
}

template <Path kPath>
void prepare(const ContrastiveJob& job, const SideLayout& query, const SideLayout& key, const Workspace& workspace,
             grid::Stream stream) {
  prepare_side<kPath>(job, job.query, query, workspace, stream);
  if (!job.symmetric) prepare_side<kPath>(job, job.key, key, workspace, stream);
}

template <Path kPath>
void launch_sums(const ContrastiveJob& job, const ForwardPlan& plan, const ForwardWork& work, grid::Stream stream) {
  const int64_t blocks = int64_t(work.strips) * work.segments;
  if constexpr (kPath != Path::Wide) {
    grid::launch(ForwardKernel<kIsSplit<kPath>>{work, plan.resident}, blocks, forward_shared(job, plan.resident),
                 stream);
  } else if (work.problem.chunks == 2) {
    grid::launch(WideForwardKernel<2>{work}, blocks, WideForwardKernel<2>::kShared, stream);
  } else {
    grid::launch(WideForwardKernel<4>{work}, blocks, WideForwardKernel<4>::kShared, stream);
  }
}

// `sides` is where the plan has its sides: the workspace itself, or memory that is kept.
template <Path kPath>
void run_forward(const ContrastiveJob& job, const ForwardPlan& plan, const ForwardResults& results,
                 const Workspace& sides, const Workspace& workspace, grid::Stream stream) {
  prepare<kPath>(job, plan.query, plan.key, sides, stream);
  const Problem problem = problem_of(job, plan.query, plan.key, sides);
  float* const row_sums = workspace.floats(plan.row_sums);
  float* const row_shifts = workspace.floats(plan.row_shifts);
  float* const column_sums = workspace.floats(plan.column_sums);
  const ForwardWork work{
      problem, plan.height, plan.strips, plan.segments, job.columns,
      false,   row_sums,    row_shifts,  column_sums,   job.positive < 0 ? nullptr : results.positives};
  launch_sums<kPath>(job, plan, work, stream);
  grid::launch(SumsKernel{problem, false, row_sums, row_shifts, column_sums, plan.segments, plan.slots, plan.height,
                          plan.strips, results.rows},
               plan.query.tiles, 0, stream);
  if (!job.columns) return;
  float* const exchanged_sums = workspace.floats(plan.exchanged_sums);
  float* const exchanged_shifts = workspace.floats(plan.exchanged_shifts);
  Problem exchanged = problem;
  exchanged.query = problem.key;
  exchanged.key = problem.query;
  const ForwardWork other{exchanged, 1,      plan.exchanged_strips, plan.exchanged_segments,
                          false,     true,   exchanged_sums,        exchanged_shifts,
                          nullptr,   nullptr};
  launch_sums<kPath>(job, plan, other, stream);
  grid::launch(SumsKernel{problem, true, exchanged_sums, exchanged_shifts, column_sums, plan.exchanged_segments,
                          plan.slots, plan.height, plan.strips, results.columns},
               plan.key.tiles, 0, stream);
}

void weigh(const ContrastiveJob& job, const BackwardPlan& plan, const BackwardInputs& inputs, const Problem& problem,
           const SoftplusGradients& softplus, const Workspace& workspace, float* unit, grid::Stream stream) {
  const auto gradients = [&](const RowMatrix& rows, const SideLayout& layout, const float* grad, const float* sums) {
    return Gradients{grad,
                     sums,
                     rows.count,
                     layout.tiles * kTileRows,
                     workspace.floats(layout.weight),
                     workspace.floats(layout.shift)};
  };
  const Gradients rows = gradients(job.query, plan.query, inputs.grad_rows, inputs.rows);
  const Gradients columns =
      job.symmetric ? Gradients{} : gradients(job.key, plan.key, inputs.grad_columns, inputs.columns);
  grid::launch(WeightsKernel{problem, rows, columns, softplus, unit},
               blocks_of(int64_t(rows.padded) + columns.padded, WeightsKernel::kThreads),
               WeightsKernel::kThreads / 32 * int(sizeof(float)), stream);
}

PairWeights pair_weights(const SideLayout& rows, const SideLayout& columns, const Workspace& workspace) {
  return {{},
          workspace.floats(rows.weight),
          workspace.floats(rows.shift),
          workspace.floats(columns.weight),
          workspace.floats(columns.shift)};
}

// `Kernel` takes kKeys keys at once, in `shared` bytes.
template <typename Kernel, int kKeys>
void run_fused(const ContrastiveJob& job, const BackwardPlan& plan, const Problem& problem, const Workspace& workspace,
               int shared, grid::Stream stream) {
  const auto launch = [&](const Problem& of, const SideLayout& rows, const SideLayout& columns) {
    if (rows.splits == 0) return;
    const int32_t steps = columns.tiles * (kTileRows / kKeys);
    const int32_t most = core::larger(plan.steps * kFusedKeys / kKeys, 1) * rows.splits;
    for (int32_t first = 0; first < steps; first += most) {
      const FusedWork work{
          of,        pair_weights(rows, columns, workspace), rows.splits, first, core::smaller(most, steps - first),
          first > 0, workspace.floats(rows.partial)};
      grid::launch(Kernel{work}, int64_t(rows.tiles) * rows.splits, shared, stream);
    }
  };
  launch(problem, plan.query, plan.key);
  if (job.symmetric) return;
  Problem exchanged = problem;
  exchanged.query = problem.key;
  exchanged.key = problem.query;
  launch(exchanged, plan.key, plan.query);
}

template <int kDim>
void run_narrow(const ContrastiveJob& job, const BackwardPlan& plan, const Problem& problem, const Workspace& workspace,
                grid::Stream stream) {
  using Kernel = FusedKernel<kDim>;
  run_fused<Kernel, kFusedKeys>(job, plan, problem, workspace, Kernel::shared(plan.newer), stream);
}

template <int kChunks>
void run_wide(const ContrastiveJob& job, const BackwardPlan& plan, const Problem& problem, const Workspace& workspace,
              grid::Stream stream) {
  using Kernel = WideFusedKernel<kChunks>;
  run_fused<Kernel, Kernel::kKeys>(job, plan, problem, workspace, Kernel::kShared, stream);
}

// A panel after the other: `make` makes its weights, `multiply` multiplies them, for queries or for keys, with operands of the
// other side.
template <typename Make, typename Multiply>
void for_each_panel(const ContrastiveJob& job, const BackwardPlan& plan, const Problem& problem,
                    const Workspace& workspace, int depth, const Make& make, const Multiply& multiply) {
  const auto multiply_side = [&](const Panel& panel, const SideLayout& side, const Side& other, bool of_keys,
                                 bool add) {
    if (side.splits == 0) return;
    multiply(panel, Product{other.operand, workspace.floats(side.partial), side.tiles, side.splits, of_keys, add});
  };
  for (int32_t query = 0; query < plan.query.tiles; query += plan.panel_queries) {
    for (int32_t key = job.symmetric ? query : 0; key < plan.key.tiles; key += plan.panel_keys) {
      Panel panel;
      panel.query = query;
      panel.queries = core::smaller(plan.panel_queries, plan.query.tiles - query);
      panel.key = key;
      panel.keys = core::smaller(plan.panel_keys, plan.key.tiles - key);
      panel.weights = workspace.bytes(plan.weights);
      panel.row_bytes = int64_t(panel.keys) * kTileRows / depth * kChunkBytes;
      panel.diagonal = job.symmetric && key == query;
      make(panel);
      // The first panel of a row of them, or of a column, begins its sums; of a symmetric problem, the first row of panels does.
      multiply_side(panel, plan.query, problem.key, false, job.symmetric ? query > 0 || key > 0 : key > 0);
      if (!panel.diagonal) multiply_side(panel, plan.key, problem.query, true, query > 0);
    }
  }
}

template <bool kSplit>
void run_panels(const ContrastiveJob& job, const BackwardPlan& plan, const Problem& problem, const Workspace& workspace,
                grid::Stream stream) {
  const auto wide = int32_t(blocks_of(job.padded_dimensions(), kTileRows));
  const PairWeights weights = pair_weights(plan.query, plan.key, workspace);
  for_each_panel(
      job, plan, problem, workspace, kDepth<kSplit>,
      [&](const Panel& panel) {
        using Kernel = PanelKernel<kSplit>;
        grid::launch(Kernel{problem, weights, panel}, int64_t(panel.queries) * panel.keys, Kernel::kShared, stream);
      },
      [&](const Panel& panel, const Product& product) {
        using Kernel = ProductKernel<kSplit>;
        grid::launch(Kernel{panel, product, job.row_bytes(), job.chunks(), wide},
                     int64_t(product.of_keys ? panel.keys : panel.queries) * wide * product.splits, Kernel::kShared,
                     stream);
      });
}

// A template, so that only those who call it compile its kernels.
template <Path kPath>
void run_wide_panels(const ContrastiveJob& job, const BackwardPlan& plan, const Problem& problem,
                     const Workspace& workspace, grid::Stream stream) {
  const PairWeights weights = pair_weights(plan.query, plan.key, workspace);
  for_each_panel(
      job, plan, problem, workspace, kDepth<false>,
      [&](const Panel& panel) {
        using Kernel = WidePanelKernel;
        grid::launch(Kernel{problem, weights, panel}, int64_t(panel.queries) * Kernel::wide(panel.keys),
                     Kernel::kShared, stream);
      },
      [&](const Panel& panel, const Product& product) {
        using Kernel = WideProductKernel;
        const int64_t tiles = product.of_keys ? panel.keys : panel.queries;
        grid::launch(Kernel{panel, product, job.row_bytes(), job.chunks()},
                     tiles * Kernel::wide(job.chunks()) * product.splits, Kernel::kShared, stream);
      });
}

// What the gradients of a backward pass are multiplied by.
struct Incoming {
  const float* grad;  // in device memory; null: 1
  float of_positives;
};

template <Path kPath>
void multiply_back(const ContrastiveJob& job, const BackwardPlan& plan, const Problem& problem,
                   const Workspace& workspace, grid::Stream stream) {
  if constexpr (kPath == Path::Wide) {
    problem.chunks == 2 ? run_wide<2>(job, plan, problem, workspace, stream)
                        : run_wide<4>(job, plan, problem, workspace, stream);
  } else if constexpr (kPath == Path::Split) {
    run_panels<true>(job, plan, problem, workspace, stream);
  } else if constexpr (kPath == Path::WidePanels) {
    run_wide_panels<kPath>(job, plan, problem, workspace, stream);
  } else if (!plan.fused) {
    run_panels<false>(job, plan, problem, workspace, stream);
  } else if (problem.chunks == 1) {
    run_narrow<kChunkHalves>(job, plan, problem, workspace, stream);
  } else {
    run_narrow<2 * kChunkHalves>(job, plan, problem, workspace, stream);
  }
}

void finish(const ContrastiveJob& job, const BackwardPlan& plan, const float* grad_positives, const Incoming& incoming,
            const BackwardResults& results, const Workspace& sides, const Workspace& workspace, grid::Stream stream) {
  float* const euler = results.grad_scale ? workspace.floats(plan.euler) : nullptr;
  bool total = results.grad_scale == nullptr;
  const auto side = [&](const RowMatrix& own, const RowMatrix& other, const SideLayout& layout,
                        const SideLayout& of_other, bool of_keys, void* out) {
    if (layout.splits == 0) return;
    const Finished rows{input_of(job, own),
                        input_of(job, other),
                        sides.floats(layout.inverse),
                        sides.floats(of_other.inverse),
                        workspace.floats(layout.partial),
                        layout.splits,
                        layout.tiles * kTileRows,
                        job.padded_dimensions(),
                        {out, results.grad_rest, own.rest ? own.first : own.count, own.type}};
    const bool first = !total;
    total = true;
    const auto launch = [&](auto kernel) {
      kernel.rows = rows;
      kernel.scale = {job.scale, job.scale_value};
      kernel.unit = workspace.floats(plan.unit);
      kernel.factor = sides.floats(of_other.factor);
      kernel.grad_positives = job.positive < 0 ? nullptr : grad_positives;
      kernel.of_positives = incoming.of_positives;
      kernel.grad = incoming.grad;
      kernel.positive = job.positive;
      kernel.queries = job.query.count;
      kernel.keys = job.key.count;
      kernel.of_keys = of_keys;
      kernel.symmetric = job.symmetric;
      kernel.euler = first ? euler : nullptr;
      grid::launch(kernel, blocks_of(own.count, kRowsPerBlock), 0, stream);
    };
    job.dimensions <= kRowStep ? launch(FinishKernel<1>{}) : launch(FinishKernel<4>{});
    if (first)
      grid::launch(TotalKernel{euler, own.count, job.symmetric ? 0.5f : 1.0f, results.grad_scale}, 1,
                   TotalKernel::kThreads / 32 * int(sizeof(float)), stream);
  };
  side(job.query, job.key, plan.query, plan.key, false, results.grad_query);
  if (!job.symmetric) side(job.key, job.query, plan.key, plan.query, true, results.grad_key);
}

template <Path kPath>
void run_backward(const ContrastiveJob& job, const BackwardPlan& plan, const BackwardInputs& inputs,
                  const BackwardResults& results, const Workspace& workspace, grid::Stream stream) {
  prepare<kPath>(job, plan.query, plan.key, workspace, stream);
  const Problem problem = problem_of(job, plan.query, plan.key, workspace);
  weigh(job, plan, inputs, problem, {}, workspace, workspace.floats(plan.unit), stream);
  multiply_back<kPath>(job, plan, problem, workspace, stream);
  finish(job, plan, inputs.grad_positives, {nullptr, 1}, results, workspace, workspace, stream);
}

template <Path kPath>
void run_ntxent(const ContrastiveJob& job, const NtxentPlan& plan, float* loss, const Workspace& kept,
                const Workspace& workspace, grid::Stream stream) {
  const ForwardResults results{kept.floats(plan.rows), kept.floats(plan.positives), nullptr};
  run_forward<kPath>(job, plan.forward, results, kept, workspace, stream);
  grid::launch(LossKernel{results.rows, results.positives, job.query.count, loss, kept.floats(plan.steepest)}, 1,
               LossKernel::kShared, stream);
}

// The derivatives in a row's sum and in its positive are each other's negative.
template <Path kPath>
void run_ntxent_backward(const ContrastiveJob& job, const NtxentPlan& plan, const float* grad,
                         const BackwardResults& results, const Workspace& kept, const Workspace& workspace,
                         grid::Stream stream) {
  const BackwardPlan& passes = plan.backward;
  const Problem problem = problem_of(job, passes.query, passes.key, kept);
  float* const gradients = workspace.floats(plan.gradients);
  const BackwardInputs inputs{kept.floats(plan.rows), nullptr, nullptr, nullptr, nullptr};
  const SoftplusGradients softplus{kept.floats(plan.positives), kept.floats(plan.steepest),
                                   1.0f / float(job.query.count), gradients};
  weigh(job, passes, inputs, problem, softplus, workspace, workspace.floats(passes.unit), stream);
  multiply_back<kPath>(job, passes, problem, workspace, stream);
  finish(job, passes, gradients, {grad, -1}, results, kept, workspace, stream);
}

}  // namespace
}  // namespace fastssl::cuda
