// Rendering on a GPU, and what there is of GPUs.
#include "bind.h"

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cpu/gather.h"
#include "cuda/device.h"
#include "cuda/emulator.h"
#include "cuda/probe.h"
#include "cuda/render.h"

namespace fastssl {

namespace {

// (position, address, stride, plane, top, left, rows, columns): what the device has decoded of an image that was left to it.
using DeviceImage = std::tuple<int64_t, uintptr_t, int64_t, int64_t, int, int, int, int>;

// The images that were gathered, at `positions`, where they lie on the device: the block from `base` on, the pieces beside it
// from `beside` on, and what was left encoded as `decoded` says.
cuda::RenderPlan prepare_gathered(const cpu::Gather& gather, const std::vector<int64_t>& positions, uintptr_t base,
                                  const std::vector<uintptr_t>& beside, const std::vector<DeviceImage>& decoded,
                                  const std::vector<core::ViewSpec>& views, uintptr_t plans,
                                  const std::vector<uintptr_t>& outputs, core::DType dtype, bool channels_last,
                                  int64_t workspace) {
  const py::gil_scoped_release release;  // a decoder of the device may be at work on another thread
  std::vector<core::ImageView> images(static_cast<size_t>(gather.size()));
  for (const auto& [position, address, stride, plane, top, left, rows, columns] : decoded) {
    const cpu::LeftEncoded& encoded = gather.left(position);
    core::ImageView& image = images.at(size_t(position));
    image.pixels = pointer<const void>(address);
    image.stride = stride;
    image.plane = plane;
    image.height = encoded.height;
    image.width = encoded.width;
    image.top = top;
    image.left = left;
    image.rows = rows;
    image.columns = columns;
    const cpu::Area& window = encoded.window;
    const bool holds = encoded.data && top >= 0 && left >= 0 && rows > 0 && columns > 0 && top <= window.top &&
                       left <= window.left && top + rows <= encoded.height && left + columns <= encoded.width &&
                       top + rows >= window.top + window.rows && left + columns >= window.left + window.columns;
    if (!holds)
      throw std::invalid_argument("image " + std::to_string(position) + " is not decoded as its views need it");
  }
  cuda::RenderRequest request;
  request.specs = views;
  for (const int64_t position : positions) {
    core::ImageView image = images.at(size_t(position));
    if (!image.pixels) {
      image = gather.image(position);
      image.pixels = pointer<const void>(gather.pixels.moved(image.pixels, base, beside));
    }
    if (!image.pixels) throw std::invalid_argument("no image was gathered at place " + std::to_string(position));
    request.images.push_back(image);
  }
  request.plans = pointer<const core::ViewPlan>(plans);
  for (const uintptr_t output : outputs) request.outputs.push_back(pointer<void>(output));
  request.dtype = dtype;
  request.channels_last = channels_last;
  request.workspace = workspace;
  return cuda::prepare_render(request);
}

cuda::RenderPlan prepare_render(const std::vector<core::ViewSpec>& views, const std::vector<StridedImage>& images,
                                size_t image_count, int64_t step, uintptr_t plans,
                                const std::vector<uintptr_t>& outputs, core::DType dtype, bool channels_last,
                                int64_t workspace, std::pair<int, int> most) {
  const py::gil_scoped_release release;
  cuda::RenderRequest request;
  request.specs = views;
  for (size_t i = 0; i < image_count; ++i) request.images.push_back(image_at(images, step, i));
  request.plans = pointer<const core::ViewPlan>(plans);
  for (const uintptr_t output : outputs) request.outputs.push_back(pointer<void>(output));
  request.dtype = dtype;
  request.channels_last = channels_last;
  request.workspace = workspace;
  request.most_height = most.first;
  request.most_width = most.second;
  return cuda::prepare_render(request);
}

}  // namespace

void bind_cuda(py::module_& m) {
  m.def("prepare_gathered", &prepare_gathered, py::arg("gather"), py::arg("positions"), py::arg("base"),
        py::arg("beside"), py::arg("decoded"), py::arg("views"), py::arg("plans"), py::arg("outputs"), py::arg("dtype"),
        py::arg("channels_last"), py::arg("workspace"));
  m.def("cuda_architectures", &cuda::architectures);
  m.def("cuda_device_count", &cuda::device_count, py::call_guard<py::gil_scoped_release>());
  m.def("cuda_device_info", [](int device) {
    const cuda::DeviceInfo info = cuda::device_info(device);
    py::dict out;
    out["name"] = info.name;
    out["capability"] = py::make_tuple(info.major, info.minor);
    out["multiprocessors"] = info.multiprocessors;
    out["memory_bytes"] = info.memory_bytes;
    return out;
  });
  py::class_<cuda::RenderPlan>(m, "RenderPlan")
      .def_property_readonly("table_bytes", [](const cuda::RenderPlan& plan) { return plan.table.size(); })
      .def_readonly("workspace_bytes", &cuda::RenderPlan::workspace)
      .def_property_readonly("launches", [](const cuda::RenderPlan& plan) { return plan.launches.size(); })
      .def("same_launches",
           [](const cuda::RenderPlan& plan, const cuda::RenderPlan& other) {
             return plan.launches == other.launches && plan.table.size() == other.table.size() &&
                    plan.workspace == other.workspace;
           })
      .def("write", [](const cuda::RenderPlan& plan,
                       uintptr_t to) { std::copy(plan.table.begin(), plan.table.end(), pointer<char>(to)); })
      // On device -1 the kernels run on the host.
      .def(
          "launch",
          [](const cuda::RenderPlan& plan, uintptr_t table, uintptr_t workspace, int device, uintptr_t stream) {
            if (device < 0) {
              cuda::emulate_render(plan, pointer<const void>(table), pointer<void>(workspace));
            } else {
              cuda::launch_render(plan, pointer<const void>(table), pointer<void>(workspace), device, stream);
            }
          },
          py::arg("table"), py::arg("workspace"), py::arg("device"), py::arg("stream"),
          py::call_guard<py::gil_scoped_release>());
  m.def("prepare_render", &prepare_render, py::arg("views"), py::arg("images"), py::arg("count"), py::arg("step"),
        py::arg("plans"), py::arg("outputs"), py::arg("dtype"), py::arg("channels_last"), py::arg("workspace"),
        py::arg("most") = std::pair(0, 0));
  m.def("emulator_order", [](int order) { cuda::emulator::set_order(cuda::emulator::Order(order)); });
  m.attr("CORE_PROBE_OUTPUTS") = cuda::kProbeOutputs;
  m.def("core_probe", [](int device, uintptr_t pixels, int64_t n, float factor, uintptr_t out) {
    const py::gil_scoped_release release;
    if (device < 0) {
      cuda::core_probe_host(pointer<const float>(pixels), n, factor, pointer<float>(out));
    } else {
      cuda::core_probe(device, pointer<const float>(pixels), n, factor, pointer<float>(out));
    }
  });
}

}  // namespace fastssl
