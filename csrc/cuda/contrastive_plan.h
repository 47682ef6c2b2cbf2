// How a contrastive job is cut into blocks, and where its workspace lies. Computed by the host alone.
#pragma once

#include <cstdint>

namespace fastssl::cuda {

constexpr int kTileRows = 128;       // of queries and keys that a block multiplies at once
constexpr int kFusedKeys = 64;       // keys that the fused backward pass takes at once
constexpr int kMostFused = 128;      // dimensions up to which that pass keeps a row's gradient in registers
constexpr int kMostDimensions = 4096;
constexpr int kChunkBytes = 128;     // of an operand's row that are loaded at once
constexpr int kChunkHalves = kChunkBytes / 2;

// Padded dimensions that the wide kernels (contrastive_wide.h) are made for, in chunks, and the keys that their backward pass
// takes at once.
constexpr bool has_wide_kernels(int chunks) { return chunks == 2 || chunks == 4; }
constexpr int wide_keys(int chunks) { return chunks > 2 ? 64 : 128; }

enum class RowType : int32_t { Float32, Float16, BFloat16 };

// (count, dimensions) in device memory, `stride` elements from row to row; rows from `first` on lie at `rest`.
struct RowMatrix {
  const void* data = nullptr;
  int64_t stride = 0;
  int32_t count = 0;
  const int64_t* ids = nullptr;  // (count), or null
  bool normalize = true;
  RowType type = RowType::Float32;
  const void* rest = nullptr;  // null: all rows lie at `data`
  int64_t rest_stride = 0;
  int32_t first = 0;
  int32_t images = 0;  // without ids: the id of row i is i mod images, written by the kernels; 0: there are no ids

  bool has_ids() const { return ids != nullptr || images > 0; }
};
struct ContrastiveJob {
  RowMatrix query, key;    // symmetric: the same
  bool symmetric = false;  // the keys are the queries
  int32_t dimensions = 0;  // 1 to kMostDimensions
  const float* scale = nullptr;  // in device memory; null: scale_value
  int32_t positive = -1;         // key of query i is (i + positive) mod keys; -1: none
  bool columns = false;          // sums over queries as well; of no symmetric job, whose columns are its rows
  float scale_value = 1;

  // Where queries are float32, a number becomes two float16, so that products keep 22 bits.
  bool split() const { return query.type == RowType::Float32; }
  bool has_ids() const { return query.has_ids(); }
  // Whether every logit lies in [-|scale|, |scale|].
  bool unit() const { return query.normalize && key.normalize; }
  // Whether the shift may be constant. How far logits of other than unit rows go, the device alone knows; plans of sums over
  // columns have to know whether they are taken with those over rows.
  bool bounded() const { return unit() || (!symmetric && !columns); }
  int32_t chunks() const;         // of an operand's row
  int64_t row_bytes() const { return int64_t(chunks()) * kChunkBytes; }
  int32_t padded_dimensions() const;
};

struct GridSize {
  int multiprocessors = 1;
  int shared_bytes = 100 * 1024;  // of a multiprocessor
  bool newer = false;             // of compute capability 10 and above
  bool wide = false;              // of compute capability 9.0, and the wide kernels are to be used
  // Not of the GPU; smaller where tests want small matrices to be cut like large ones.
  int32_t most_slots = 128;  // of column sums: 512 bytes a row
  int32_t panel_tiles = 32;  // of a square panel's side: 32 MiB of weights, 64 where they are split
  int32_t steps = 512;  // of 64 keys, after which fused sums go to memory: the matrix units cut off what they add
};

// Of one matrix, offsets in bytes.
struct SideLayout {
  int32_t tiles = 0;  // of kTileRows
  int64_t operand = 0;  // (tiles * kTileRows) rows of row_bytes()
  int64_t inverse = 0;  // 1 / length of each row
  int64_t factor = 0;  // two floats: what an operand's one stands for, and a bound on the rows' lengths
  int64_t largest = 0, length = 0;  // magnitude in each row, and its length, where those two depend on them
  int64_t id_ranges = 0;  // of each tile
  int64_t ids = 0;  // of each row, where the kernels write them
  int64_t weight = 0, shift = 0;  // backward: of each row
  int64_t partial = 0;  // backward: (splits, rows, padded_dimensions) floats
  int32_t splits = 0;  // backward: sums of the gradient that are added up at the end
};

// Keys, or dimensions, that a block of the wide panels' kernels has (contrastive_wide_panels.h).
constexpr int kWideColumns = 256;

struct ForwardPlan {
  SideLayout query, key;
  bool wide = false;  // contrastive_wide.h's kernels, and operands in blocks
  // A block takes `height` tiles of rows, one after the other, and a part of the columns: `segments` blocks share a strip.
  int32_t height = 1, strips = 0, segments = 1;
  bool resident = false;  // a row tile's operand stays in shared memory
  int64_t row_sums = 0, row_shifts = 0;  // (segments, rows) floats each
  int64_t column_sums = 0;  // (slots, columns) floats: of each strip, or of each distance between strips
  int32_t slots = 0;
  // Where the device finds that the shift cannot be constant, columns are the rows of the exchanged job.
  int64_t exchanged_sums = 0, exchanged_shifts = 0;
  int32_t exchanged_strips = 0, exchanged_segments = 0;
  int64_t bytes = 0;
};

struct BackwardPlan {
  SideLayout query, key;
  bool fused = false, newer = false;
  bool wide = false;  // as of a ForwardPlan; always fused
  bool wide_panels = false;  // a panel's weights are made and multiplied by wgmma
  int32_t steps = 0;
  // Otherwise weights of panel_queries x panel_keys tiles are stored as float16 and multiplied from there.
  int32_t panel_queries = 0, panel_keys = 0;
  int64_t weights = 0;  // offset
  int64_t unit = 0;  // a float: what a weight of one stands for
  int64_t euler = 0;  // (rows of the side that gives the gradient in the scale) floats
  int64_t bytes = 0;
};

// NT-Xent of two views, R rows, of which i and (i + R / 2) mod R are positives: the loss and its gradients. `kept` is memory
// that the forward pass leaves to the backward pass, which changes nothing there: what prepare() makes of the rows, and:
struct NtxentPlan {
  ForwardPlan forward;  // sides in `kept`, sums in a workspace
  BackwardPlan backward;  // the same; where its unit and its sums are
  int64_t rows = 0, positives = 0;  // in `kept`: (R) floats each
  int64_t steepest = 0;  // in `kept`: a float, the largest derivative of the loss in a logarithm of a sum
  int64_t gradients = 0;  // in the backward pass's workspace: (R) floats, those derivatives
  int64_t kept_bytes = 0, forward_bytes = 0, backward_bytes = 0;
};

ForwardPlan plan_forward(const ContrastiveJob& job, const GridSize& grid);
BackwardPlan plan_backward(const ContrastiveJob& job, const GridSize& grid, bool needs_query, bool needs_key);

NtxentPlan plan_ntxent(const ContrastiveJob& job, const GridSize& grid);

// Shared memory of a block, bytes.
int forward_shared(const ContrastiveJob& job, bool resident);

}  // namespace fastssl::cuda
