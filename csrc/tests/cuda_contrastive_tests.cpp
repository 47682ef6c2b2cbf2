// The kernels of contrastive losses, run on the host: memory of just the right size, and a definition of a few lines in
// double. And the machine's instructions for matrices, which they are built on.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <vector>

#include "core/cast.h"
#include "cuda/contrastive.h"
#include "cuda/contrastive_prepare.h"
#include "cuda/emulator.h"
#include "tests/check.h"

using namespace fastssl;
using namespace fastssl::cuda;

namespace {

constexpr emulator::Order kOrders[] = {emulator::Order::Forward, emulator::Order::Backward, emulator::Order::Shuffled};

float number(uint32_t i) { return float(int32_t(noise(i) >> 8) - (1 << 23)) * 0x1p-23f; }
uint16_t half(float v) { return core::to_float16(v); }

// --- the machine ------------------------------------------------------------------------------------------------------------

// One product by load_matrices() from rows in shared memory, of A along the sum or across it, and of B.
void check_product(bool left_across, bool right_across) {
  float a[16][16], b[16][16];  // b: of the 16 columns of two products
  for (uint32_t i = 0; i < 256; ++i) {
    a[i / 16][i % 16] = emulator::half_value(half(number(i)));
    b[i / 16][i % 16] = emulator::half_value(half(number(1000 + i)));
  }
  float c[16][16];
  emulator::run(1, 32, 2 * 16 * 128, [&] {
    const int lane = emulator::thread();
    const auto place = [](int matrix, int row, int unit) {
      return uint32_t(matrix * 2048 + row * 128 + ((unit ^ (row % 8)) << 4));
    };
    for (int i = lane; i < 256; i += 32) {
      const int row = i / 16, k = i % 16;
      const uint16_t left = half(left_across ? a[k][row] : a[row][k]),
                     right = half(right_across ? b[k][row] : b[row][k]);
      std::memcpy(emulator::shared() + place(0, row, k / 8) + k % 8 * 2, &left, 2);
      std::memcpy(emulator::shared() + place(1, row, k / 8) + k % 8 * 2, &right, 2);
    }
    emulator::barrier();
    // Matrices that lie across are transposed on the way, and the second and third of them change places.
    const int row = lane % 16, unit = lane / 16, other_row = lane % 8 + lane / 16 * 8, other_unit = lane / 8 % 2;
    uint32_t of_a[4], of_b[4];
    emulator::load_matrices(left_across ? place(0, other_row, other_unit) : place(0, row, unit), left_across, of_a);
    emulator::load_matrices(right_across ? place(1, row, unit) : place(1, other_row, other_unit), right_across, of_b);
    for (int n = 0; n < 2; ++n) {
      float sums[4] = {};
      emulator::multiply_add(sums, of_a, of_b + 2 * n);
      for (int e = 0; e < 4; ++e) c[lane / 4 + e / 2 * 8][8 * n + lane % 4 * 2 + e % 2] = sums[e];
    }
  });
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) {
      double sum = 0;
      for (int k = 0; k < 16; ++k) sum += double(a[i][k]) * double(b[j][k]);
      CHECK(std::fabs(double(c[i][j]) - sum) <= std::fabs(sum) * 0x1p-23 &&
            std::fabs(double(c[i][j])) <= std::fabs(sum));
    }
  }
}

void test_products() {
  for (const bool left : {false, true}) {
    for (const bool right : {false, true}) check_product(left, right);
  }
  const auto fails = [](int threads, const std::function<void()>& body) {
    return throws<std::logic_error>([&] { emulator::run(1, threads, 4096, body); });
  };
  uint32_t fragment[4];
  CHECK(fails(32, [&] { emulator::load_matrices(uint32_t(emulator::thread()) * 128, false, fragment); }));  // one bank
  CHECK(fails(32, [&] { emulator::load_matrices(uint32_t(emulator::thread()) * 16 + 8, false, fragment); }));
  CHECK(fails(32, [&] { emulator::load_matrices(uint32_t(emulator::thread()) * 16 + 4000, false, fragment); }));
  CHECK(fails(16, [&] { emulator::load_matrices(uint32_t(emulator::thread()) * 16, false, fragment); }));
  CHECK(fails(32, [&] {
    if (emulator::thread() < 9) emulator::load_matrices(uint32_t(emulator::thread()) * 16, false, fragment);
  }));
}

void test_copies() {
  alignas(16) const float from[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  float seen[5] = {};
  emulator::run(1, 1, 32, [&] {
    const auto* const to = reinterpret_cast<const float*>(emulator::shared());
    std::memset(emulator::shared(), 0, 32);
    emulator::copy_async(0, from);
    seen[0] = to[0];
    emulator::commit_copies();
    emulator::copy_async(16, from + 4);
    emulator::commit_copies();
    seen[1] = to[0];
    emulator::wait_copies(1);
    seen[2] = to[0];
    seen[3] = to[4];
    emulator::wait_copies(0);
    seen[4] = to[4];
  });
  CHECK(std::isnan(seen[0]) && std::isnan(seen[1]) && seen[2] == 1 && std::isnan(seen[3]) && seen[4] == 5);
  CHECK(throws<std::logic_error>([&] { emulator::run(1, 1, 32, [&] { emulator::copy_async(0, from + 1); }); }));
  CHECK(throws<std::logic_error>([&] { emulator::run(1, 1, 32, [&] { emulator::copy_async(8, from); }); }));
  CHECK(throws<std::logic_error>([&] { emulator::run(1, 1, 32, [&] { emulator::copy_async(32, from); }); }));
}

// --- the kernels ------------------------------------------------------------------------------------------------------------

// Of exactly so many bytes, aligned as a GPU's memory, all ones: a float that is no number.
template <typename T>
class Memory {
 public:
  explicit Memory(int64_t count) : data_(new (std::align_val_t(256)) char[size_t(count) * sizeof(T)]) {
    std::memset(data_.get(), 0xFF, size_t(count) * sizeof(T));
  }
  T* get() const { return reinterpret_cast<T*>(data_.get()); }
  T& operator[](int64_t i) const { return get()[i]; }

 private:
  struct Free {
    void operator()(char* p) const { ::operator delete[](p, std::align_val_t(256)); }
  };
  std::unique_ptr<char[], Free> data_;
};

struct Run {
  int32_t queries, keys, dimensions;
  RowType type;
  float scale;
  bool symmetric, normalize;
};

std::vector<double> unit_rows(const Memory<float>& rows, int32_t count, int32_t dimensions, bool normalize) {
  std::vector<double> unit(size_t(count) * size_t(dimensions));
  for (int64_t i = 0; i < count; ++i) {
    double squares = 0;
    for (int64_t d = 0; d < dimensions; ++d)
      squares += double(rows[i * dimensions + d]) * double(rows[i * dimensions + d]);
    for (int64_t d = 0; d < dimensions; ++d)
      unit[size_t(i * dimensions + d)] = double(rows[i * dimensions + d]) / (normalize ? std::sqrt(squares) : 1);
  }
  return unit;
}

// Rows as the type holds them.
template <typename T>
void fill(const Memory<T>& typed, const Memory<float>& exact, int64_t count, uint32_t seed) {
  for (int64_t i = 0; i < count; ++i) {
    const float v = number(seed + uint32_t(i));
    if constexpr (sizeof(T) == 2) {
      typed[i] = half(v);
      exact[i] = emulator::half_value(typed[i]);
    } else {
      typed[i] = exact[i] = v;
    }
  }
}

template <typename T>
void check_run(const Run& run, emulator::Order order, const GridSize& grid) {
  const int32_t keys = run.symmetric ? run.queries : run.keys;
  const int64_t query_size = int64_t(run.queries) * run.dimensions, key_size = int64_t(keys) * run.dimensions;
  const Memory<T> query(query_size), key(key_size);
  const Memory<float> exact_query(query_size), exact_key(key_size);
  fill(query, exact_query, query_size, 1);
  fill(key, exact_key, key_size, run.symmetric ? 1 : 70001);
  const Memory<int64_t> query_ids(run.queries), key_ids(keys);
  for (int32_t i = 0; i < run.queries; ++i) query_ids[i] = i;
  for (int32_t i = 0; i < keys; ++i) key_ids[i] = i;
  const Memory<float> scale(1);
  scale[0] = run.scale;
  ContrastiveJob job;
  job.query = {query.get(), run.dimensions, run.queries, query_ids.get(), run.normalize, run.type};
  job.key =
      run.symmetric ? job.query : RowMatrix{key.get(), run.dimensions, keys, key_ids.get(), run.normalize, run.type};
  job.symmetric = run.symmetric;
  job.dimensions = run.dimensions;
  job.scale = scale.get();
  job.positive = keys >= run.queries ? keys / 2 : -1;
  job.columns = !run.symmetric;

  emulator::set_order(order);
  const Memory<float> rows(run.queries), positives(run.queries), columns(run.symmetric ? 0 : keys);
  const ForwardPlan forward = plan_forward(job, grid);
  const Memory<char> forward_workspace(forward.bytes);
  emulate_forward(job, forward, {rows.get(), positives.get(), columns.get()}, forward_workspace.get());

  const std::vector<double> q = unit_rows(exact_query, run.queries, run.dimensions, run.normalize);
  const std::vector<double> k = unit_rows(exact_key, keys, run.dimensions, run.normalize);
  const double bound = (run.type == RowType::Float32 ? 2e-6 : 2e-3) * std::max(1.0, std::fabs(double(run.scale)));
  std::vector<double> of_columns(size_t(keys), 0);
  for (int64_t i = 0; i < run.queries; ++i) {
    double sum = 0, positive = 0;
    for (int64_t j = 0; j < keys; ++j) {
      double logit = 0;
      for (int64_t d = 0; d < run.dimensions; ++d)
        logit += q[size_t(i * run.dimensions + d)] * k[size_t(j * run.dimensions + d)];
      logit *= double(run.scale);
      if (i != j) sum += std::exp(logit);
      if (i != j) of_columns[size_t(j)] += std::exp(logit);
      if ((i + job.positive) % keys == j) positive = logit;
    }
    CHECK(std::fabs(std::log(sum) - double(rows[i])) <= bound || std::log(sum) == double(rows[i]));
    CHECK(job.positive < 0 || std::fabs(positive - double(positives[i])) <= bound);
  }
  for (int64_t j = 0; j < keys && !run.symmetric; ++j) {
    const double wanted = std::log(of_columns[size_t(j)]);
    CHECK(std::fabs(wanted - double(columns[j])) <= bound || wanted == double(columns[j]));
  }

  const Memory<float> grad_rows(run.queries), grad_positives(run.queries), grad_columns(keys), grad_scale(1);
  for (int64_t i = 0; i < run.queries; ++i) grad_rows[i] = grad_positives[i] = number(uint32_t(i));
  for (int64_t i = 0; i < keys; ++i) grad_columns[i] = number(uint32_t(i) + 5000);
  const Memory<T> grad_query(query_size), grad_key(key_size);
  const BackwardPlan backward = plan_backward(job, grid, true, !run.symmetric);
  const Memory<char> backward_workspace(backward.bytes);
  const BackwardInputs inputs{rows.get(), columns.get(), grad_rows.get(), grad_positives.get(), grad_columns.get()};
  emulate_backward(job, backward, inputs,
                   {grad_query.get(), run.symmetric ? nullptr : grad_key.get(), grad_scale.get()},
                   backward_workspace.get());
  emulator::set_order(emulator::Order::Forward);
  // That they are right is tested from Python; here, that all of them were written.
  const auto finite = [](T v) {
    if constexpr (sizeof(T) == 2)
      return (v & 0x7C00) != 0x7C00;
    else
      return std::isfinite(v);
  };
  for (int64_t i = 0; i < query_size; ++i) CHECK(finite(grad_query[i]));
  for (int64_t i = 0; i < key_size && !run.symmetric; ++i) CHECK(finite(grad_key[i]));
  CHECK(std::isfinite(grad_scale[0]));
}

void test_runs() {
  const Run runs[] = {
      {1, 2, 1, RowType::Float16, 5, false, true},       {130, 0, 20, RowType::Float16, 5, true, true},
      {40, 140, 100, RowType::Float16, 50, false, true}, {130, 0, 130, RowType::Float16, 5, true, true},
      {130, 140, 9, RowType::Float32, 5, false, true},   {130, 0, 33, RowType::Float32, 50, true, true},
      {60, 70, 20, RowType::Float32, 2, false, false},   {60, 70, 20, RowType::Float16, 2, false, false},
  };
  for (const Run& run : runs) {
    for (const emulator::Order order : kOrders) {
      GridSize grid;
      grid.multiprocessors = 1 + int(order) * 20;
      if (run.type == RowType::Float16) {
        check_run<uint16_t>(run, order, grid);
      } else {
        check_run<float>(run, order, grid);
      }
    }
  }
}

// The wide kernels, of which shared memory begins where a GPU's may.
void test_wide_runs() {
  const Run runs[] = {
      {1, 2, 65, RowType::Float16, 5, false, true},
      {130, 0, 128, RowType::Float16, 5, true, true},
      {130, 140, 200, RowType::Float16, 50, false, true},
      {129, 0, 256, RowType::Float16, 5, true, false},
  };
  emulator::set_shared_base(1152);
  for (const Run& run : runs) {
    for (const emulator::Order order : kOrders) {
      GridSize grid;
      grid.wide = true;
      grid.multiprocessors = 1 + int(order) * 20;
      check_run<uint16_t>(run, order, grid);
    }
  }
  emulator::set_shared_base(0);
}

// NT-Xent of two views that lie apart: the loss by definition; that gradients are right is tested from Python, here that all
// of them were written, and nothing of what is kept.
template <typename T>
void check_ntxent(int32_t images, int32_t dimensions, RowType type, emulator::Order order, const GridSize& grid) {
  const int32_t rows = 2 * images;
  const int64_t size = int64_t(images) * dimensions;
  const Memory<T> first(size), second(size), grad_first(size), grad_second(size);
  const Memory<float> exact(2 * size), exact_first(size), exact_second(size), loss(1), grad(1), grad_scale(1);
  fill(first, exact_first, size, 1);
  fill(second, exact_second, size, 70001);
  for (int64_t i = 0; i < size; ++i) {
    exact[i] = exact_first[i];
    exact[size + i] = exact_second[i];
  }
  ContrastiveJob job;
  job.query = {first.get(), dimensions, rows, nullptr, true, type};
  job.query.rest = second.get();
  job.query.rest_stride = dimensions;
  job.query.first = job.query.images = images;
  job.key = job.query;
  job.symmetric = true;
  job.dimensions = dimensions;
  job.positive = images;
  job.scale_value = 5;

  emulator::set_order(order);
  const NtxentPlan plan = plan_ntxent(job, grid);
  const Memory<char> kept(plan.kept_bytes), forward(plan.forward_bytes), backward(plan.backward_bytes);
  emulate_ntxent(job, plan, loss.get(), kept.get(), forward.get());
  const std::vector<char> before(kept.get(), kept.get() + plan.kept_bytes);
  grad[0] = 3;
  BackwardResults results;
  results.grad_query = grad_first.get();
  results.grad_rest = grad_second.get();
  results.grad_scale = grad_scale.get();
  emulate_ntxent_backward(job, plan, grad.get(), kept.get(), results, backward.get());
  emulator::set_order(emulator::Order::Forward);

  const std::vector<double> unit = unit_rows(exact, rows, dimensions, true);
  double wanted = 0;
  for (int64_t i = 0; i < rows; ++i) {
    double sum = 0, positive = 0;
    for (int64_t j = 0; j < rows; ++j) {
      double logit = 0;
      for (int64_t d = 0; d < dimensions; ++d)
        logit += unit[size_t(i * dimensions + d)] * unit[size_t(j * dimensions + d)];
      const double power = std::exp(5 * logit);
      if (i != j) sum += power;
      if ((i + images) % rows == j) positive = power;
    }
    wanted += std::log(sum / positive) / rows;
  }
  CHECK(std::fabs(wanted - double(loss[0])) <= (type == RowType::Float32 ? 1e-5 : 1e-2));
  const auto finite = [](T v) {
    if constexpr (sizeof(T) == 2)
      return (v & 0x7C00) != 0x7C00;
    else
      return std::isfinite(v);
  };
  for (int64_t i = 0; i < size; ++i) CHECK(finite(grad_first[i]) && finite(grad_second[i]));
  CHECK(std::isfinite(grad_scale[0]));
  CHECK(std::equal(before.begin(), before.end(), kept.get()));
}

void test_ntxent() {
  for (const emulator::Order order : kOrders) {
    for (const bool wide : {false, true}) {
      GridSize grid;
      grid.wide = wide;
      grid.multiprocessors = 1 + int(order) * 20;
      check_ntxent<uint16_t>(1, 3, RowType::Float16, order, grid);
      check_ntxent<uint16_t>(70, 128, RowType::Float16, order, grid);
      if (wide) continue;
      check_ntxent<float>(70, 20, RowType::Float32, order, grid);
      check_ntxent<float>(3, 521, RowType::Float32, order, grid);
    }
  }
}

// Strips of more than one tile, panels of more than one row of them: of plans alone, which would take long to carry out.
void test_plans() {
  ContrastiveJob job;
  job.symmetric = true;
  job.dimensions = 128;
  job.query.type = RowType::Float16;
  for (const int32_t rows : {1, 128, 4096, 16384, 65536, 262144, 1 << 20}) {
    job.query.count = job.key.count = rows;
    GridSize grid;
    grid.multiprocessors = 132;
    const ForwardPlan forward = plan_forward(job, grid);
    CHECK(forward.slots <= 128 && forward.strips * forward.height >= forward.query.tiles);
    CHECK(forward.bytes <= int64_t(forward.query.tiles) * kTileRows * (256 + 512 + 16 + 8 * forward.segments) + 4096);
    const BackwardPlan backward = plan_backward(job, grid, true, false);
    CHECK(backward.fused && backward.query.splits * backward.query.tiles <= std::max(4 * 264, backward.query.tiles));
    CHECK(!forward.wide && !backward.wide);
    grid.wide = true;
    CHECK(plan_forward(job, grid).wide && plan_backward(job, grid, true, false).wide);
    job.dimensions = 129;
    CHECK(!plan_forward(job, grid).wide && !plan_backward(job, grid, true, false).wide);
    job.dimensions = 128;
    job.query.type = RowType::Float32;
    CHECK(!plan_forward(job, grid).wide);
    const BackwardPlan panels = plan_backward(job, grid, true, false);
    CHECK(!panels.fused && int64_t(panels.panel_queries) * panels.panel_keys <= 32 * 32);
    job.query.type = RowType::Float16;
  }
}

// Ids that begin anew, as of two views of 800 images, mark few tiles; ids of any order mark every tile that shares one. The former
// and their ranges may also be written with the operands.
void test_ranges() {
  const int32_t rows = 1600, tiles = 13;
  const Memory<int64_t> ids(rows);
  for (const bool ordered : {true, false}) {
    for (int32_t i = 0; i < rows; ++i) ids[i] = ordered ? i % 800 : int64_t(number(uint32_t(i)) * 1000);
    const Memory<IdRanges> ranges(tiles);
    grid::launch(RangesKernel{ids.get(), rows, ranges.get()}, tiles, RangesKernel::kShared, {});
    for (int32_t a = 0; a < tiles; ++a) {
      int32_t marked = 0;
      for (int32_t b = 0; b < tiles; ++b) {
        bool shared = false;
        for (int32_t i = a * kTileRows; i < rows && i < (a + 1) * kTileRows; ++i)
          for (int32_t j = b * kTileRows; j < rows && j < (b + 1) * kTileRows; ++j) shared |= ids[i] == ids[j];
        const bool may = may_share(ranges[a], ranges[b]);
        CHECK(may || !shared);
        marked += may;
      }
      CHECK(!ordered || marked <= 5);
    }
  }
  for (const int32_t images : {1, 5, 64, 100, 127, 800}) {
    const int32_t count = 2 * images, parts = (count + kTileRows - 1) / kTileRows;
    const Memory<float> matrix(count), inverse(parts * kTileRows), factor(2);
    const Memory<char> operand(int64_t(parts) * kTileRows * kChunkBytes);
    const Memory<int64_t> written(count);
    const Memory<IdRanges> own(parts), wanted(parts);
    for (int32_t i = 0; i < count; ++i) matrix[i] = 1;
    const Input input{matrix.get(), nullptr, 1, 0, count, count, 1, RowType::Float32, true};
    const OperandKernel<true, false> kernel{input, factor.get(),  operand.get(), kChunkBytes,   parts * kTileRows,
                                            32,    inverse.get(), images,        written.get(), own.get()};
    grid::launch(kernel, parts * kTileRows / kRowsPerBlock, 0, {});
    grid::launch(RangesKernel{written.get(), count, wanted.get()}, parts, RangesKernel::kShared, {});
    for (int32_t i = 0; i < count; ++i) CHECK(written[i] == i % images);
    for (int32_t part = 0; images >= kTileRows && part < parts; ++part) {
      for (int i = 0; i < 2; ++i) {
        CHECK(own[part].least[i] == wanted[part].least[i]);
        CHECK(own[part].most[i] == wanted[part].most[i]);
      }
    }
    for (int32_t a = 0; a < parts; ++a) {
      for (int32_t b = 0; b < parts; ++b) CHECK(may_share(own[a], own[b]) >= may_share(wanted[a], wanted[b]));
    }
  }
}

}  // namespace

void test_cuda_contrastive() {
  test_ranges();
  test_products();
  test_copies();
  test_plans();
  test_runs();
  test_wide_runs();
  test_ntxent();
}
