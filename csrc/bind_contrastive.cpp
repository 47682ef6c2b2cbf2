// Contrastive sums, as fastssl/loss/_cuda.py sees them.
#include "bind_contrastive.h"

#include <cstdint>

#include "cuda/contrastive.h"

namespace py = pybind11;

namespace fastssl {

namespace {

template <typename T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

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
}

}  // namespace fastssl
