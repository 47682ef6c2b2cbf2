// Contrastive sums, as fastssl/loss/_cuda.py sees them.
#include "bind.h"

#include <cstdint>

#include "cuda/contrastive.h"

namespace fastssl {

namespace {

// NT-Xent of two views: rows that lie side by side, or those of each view. What depends on their number, width and type
// alone is computed once.
struct Ntxent {
  cuda::ContrastiveJob job;
  cuda::NtxentPlan plan;

  Ntxent(int32_t rows, int32_t dimensions, cuda::RowType type, const cuda::GridSize& grid) {
    job.query.count = rows;
    job.query.type = type;
    job.query.images = rows / 2;
    job.symmetric = true;
    job.dimensions = dimensions;
    job.positive = rows / 2;
    job.key = job.query;
    plan = cuda::plan_ntxent(job, grid);
  }

  cuda::ContrastiveJob of(uintptr_t first, int64_t first_stride, uintptr_t second, int64_t second_stride,
                          uintptr_t scale, double scale_value) const {
    cuda::ContrastiveJob own = job;
    own.query.data = pointer<const void>(first);
    own.query.stride = first_stride;
    own.query.rest = pointer<const void>(second);
    own.query.rest_stride = second_stride;
    own.query.first = own.query.count / 2;
    own.key = own.query;
    own.scale = pointer<const float>(scale);
    own.scale_value = float(scale_value);
    return own;
  }
};

}  // namespace

void bind_contrastive(py::module_& m) {
  using namespace cuda;
  m.attr("CONTRASTIVE_MOST_DIMENSIONS") = kMostDimensions;

  py::enum_<RowType>(m, "RowType")
      .value("float32", RowType::Float32)
      .value("float16", RowType::Float16)
      .value("bfloat16", RowType::BFloat16);
  py::class_<GridSize>(m, "GridSize")
      .def(py::init([](int multiprocessors, int shared_bytes, int most_slots, int panel_tiles, int steps, bool wide) {
             return GridSize{multiprocessors, shared_bytes, false, wide, most_slots, panel_tiles, steps};
           }),
           py::arg("multiprocessors"), py::arg("shared_bytes"), py::arg("most_slots") = GridSize().most_slots,
           py::arg("panel_tiles") = GridSize().panel_tiles, py::arg("steps") = GridSize().steps,
           py::arg("wide") = false)
      .def_static("of", &grid_size, py::arg("device"), py::arg("wide"))
      .def_readonly("wide", &GridSize::wide)
      .def_readonly("multiprocessors", &GridSize::multiprocessors)
      .def_readonly("shared_bytes", &GridSize::shared_bytes)
      // The same GPU, on which small matrices are cut like large ones: for tests.
      .def(
          "cut",
          [](GridSize size, int most_slots, int panel_tiles, int steps) {
            size.most_slots = most_slots;
            size.panel_tiles = panel_tiles;
            size.steps = steps;
            return size;
          },
          py::arg("most_slots"), py::arg("panel_tiles"), py::arg("steps"));
  py::class_<RowMatrix>(m, "RowMatrix")
      .def(py::init([](uintptr_t data, int32_t count, int64_t stride, uintptr_t ids, bool normalize, RowType type) {
             return RowMatrix{pointer<const void>(data), stride, count, pointer<const int64_t>(ids), normalize, type};
           }),
           py::arg("data"), py::arg("count"), py::arg("stride"), py::arg("ids"), py::arg("normalize"), py::arg("type"));
  py::class_<ContrastiveJob>(m, "ContrastiveJob")
      .def(py::init([](const RowMatrix& query, const RowMatrix* key, int32_t dimensions, uintptr_t scale,
                       int32_t positive, bool columns) {
             return ContrastiveJob{
                 query,    key ? *key : query,       key == nullptr, dimensions, pointer<const float>(scale),
                 positive, columns && key != nullptr};
           }),
           py::arg("query"), py::arg("key").none(true), py::arg("dimensions"), py::arg("scale"), py::arg("positive"),
           py::arg("columns"));

  // On device -1 the kernels run on the host.
  py::class_<ForwardPlan>(m, "ForwardPlan")
      .def(py::init(&plan_forward), py::arg("job"), py::arg("grid"))
      .def_readonly("bytes", &ForwardPlan::bytes)
      .def_readonly("wide", &ForwardPlan::wide)
      .def_readonly("height", &ForwardPlan::height)
      .def_readonly("segments", &ForwardPlan::segments)
      .def(
          "launch",
          [](const ForwardPlan& plan, const ContrastiveJob& job, uintptr_t rows, uintptr_t positives, uintptr_t columns,
             uintptr_t workspace, int device, uintptr_t stream) {
            const ForwardResults results{pointer<float>(rows), pointer<float>(positives), pointer<float>(columns)};
            if (device < 0) {
              emulate_forward(job, plan, results, pointer<void>(workspace));
            } else {
              launch_forward(job, plan, results, pointer<void>(workspace), device, stream);
            }
          },
          py::arg("job"), py::arg("rows"), py::arg("positives"), py::arg("columns"), py::arg("workspace"),
          py::arg("device"), py::arg("stream"), py::call_guard<py::gil_scoped_release>());
  py::class_<BackwardInputs>(m, "BackwardInputs")
      .def(py::init([](uintptr_t rows, uintptr_t columns, uintptr_t grad_rows, uintptr_t grad_positives,
                       uintptr_t grad_columns) {
             return BackwardInputs{pointer<const float>(rows), pointer<const float>(columns),
                                   pointer<const float>(grad_rows), pointer<const float>(grad_positives),
                                   pointer<const float>(grad_columns)};
           }),
           py::arg("rows"), py::arg("columns"), py::arg("grad_rows"), py::arg("grad_positives"),
           py::arg("grad_columns"));
  py::class_<BackwardPlan>(m, "BackwardPlan")
      .def(py::init(&plan_backward), py::arg("job"), py::arg("grid"), py::arg("needs_query"), py::arg("needs_key"))
      .def_readonly("bytes", &BackwardPlan::bytes)
      .def_readonly("wide", &BackwardPlan::wide)
      .def_readonly("fused", &BackwardPlan::fused)
      .def_readonly("wide_panels", &BackwardPlan::wide_panels)
      .def(
          "launch",
          [](const BackwardPlan& plan, const ContrastiveJob& job, const BackwardInputs& inputs, uintptr_t grad_query,
             uintptr_t grad_key, uintptr_t grad_scale, uintptr_t workspace, int device, uintptr_t stream) {
            const BackwardResults results{pointer<void>(grad_query), pointer<void>(grad_key),
                                          pointer<float>(grad_scale)};
            if (device < 0) {
              emulate_backward(job, plan, inputs, results, pointer<void>(workspace));
            } else {
              launch_backward(job, plan, inputs, results, pointer<void>(workspace), device, stream);
            }
          },
          py::arg("job"), py::arg("inputs"), py::arg("grad_query"), py::arg("grad_key"), py::arg("grad_scale"),
          py::arg("workspace"), py::arg("device"), py::arg("stream"), py::call_guard<py::gil_scoped_release>());

  py::class_<Ntxent>(m, "Ntxent")
      .def(py::init<int32_t, int32_t, RowType, const GridSize&>(), py::arg("rows"), py::arg("dimensions"),
           py::arg("type"), py::arg("grid"))
      .def_property_readonly("kept_bytes", [](const Ntxent& loss) { return loss.plan.kept_bytes; })
      .def_property_readonly("forward_bytes", [](const Ntxent& loss) { return loss.plan.forward_bytes; })
      .def_property_readonly("backward_bytes", [](const Ntxent& loss) { return loss.plan.backward_bytes; })
      .def(
          "forward",
          [](const Ntxent& own, uintptr_t first, int64_t first_stride, uintptr_t second, int64_t second_stride,
             uintptr_t scale, double scale_value, uintptr_t loss, uintptr_t kept, uintptr_t workspace, int device,
             uintptr_t stream) {
            const ContrastiveJob job = own.of(first, first_stride, second, second_stride, scale, scale_value);
            if (device < 0) {
              emulate_ntxent(job, own.plan, pointer<float>(loss), pointer<void>(kept), pointer<void>(workspace));
            } else {
              launch_ntxent(job, own.plan, pointer<float>(loss), pointer<void>(kept), pointer<void>(workspace), device,
                            stream);
            }
          },
          py::arg("first"), py::arg("first_stride"), py::arg("second"), py::arg("second_stride"), py::arg("scale"),
          py::arg("scale_value"), py::arg("loss"), py::arg("kept"), py::arg("workspace"), py::arg("device"),
          py::arg("stream"), py::call_guard<py::gil_scoped_release>())
      .def(
          "backward",
          [](const Ntxent& own, uintptr_t first, int64_t first_stride, uintptr_t second, int64_t second_stride,
             uintptr_t scale, double scale_value, uintptr_t grad, uintptr_t kept, uintptr_t grad_first,
             uintptr_t grad_second, uintptr_t grad_scale, uintptr_t workspace, int device, uintptr_t stream) {
            const ContrastiveJob job = own.of(first, first_stride, second, second_stride, scale, scale_value);
            const BackwardResults results{pointer<void>(grad_first), nullptr, pointer<float>(grad_scale),
                                          pointer<void>(grad_second)};
            if (device < 0) {
              emulate_ntxent_backward(job, own.plan, pointer<const float>(grad), pointer<void>(kept), results,
                                      pointer<void>(workspace));
            } else {
              launch_ntxent_backward(job, own.plan, pointer<const float>(grad), pointer<void>(kept), results,
                                     pointer<void>(workspace), device, stream);
            }
          },
          py::arg("first"), py::arg("first_stride"), py::arg("second"), py::arg("second_stride"), py::arg("scale"),
          py::arg("scale_value"), py::arg("grad"), py::arg("kept"), py::arg("grad_first"), py::arg("grad_second"),
          py::arg("grad_scale"), py::arg("workspace"), py::arg("device"), py::arg("stream"),
          py::call_guard<py::gil_scoped_release>());
}

}  // namespace fastssl
