// Views as Python describes them, and what is drawn for them.
#include "bind.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "core/draw.h"
#include "core/philox.h"
#include "core/plan.h"
#include "core/program.h"
#include "core/smallest_crop.h"

namespace fastssl {

namespace {

// The numbers of an int64 array of this many columns, contiguous; empty where it is anything else.
std::optional<py::buffer_info> to_array(const py::object& from, int columns) {
  if (!py::isinstance<py::buffer>(from)) return {};
  py::buffer_info info = from.cast<py::buffer>().request();
  const bool rows = columns == 1 ? info.ndim == 1 : info.ndim == 2 && info.shape[1] == columns && info.strides[1] == 8;
  if (!rows || !info.item_type_is_equivalent_to<int64_t>() || info.strides[0] != 8 * columns) return {};
  return info;
}

// As int() makes it; -1 where it does not fit.
int64_t whole_number(PyObject* from) {
  int overflow = 0;
  const auto number = py::reinterpret_steal<py::object>(PyNumber_Long(from));
  const int64_t value = number ? PyLong_AsLongLongAndOverflow(number.ptr(), &overflow) : 0;
  if (PyErr_Occurred()) throw py::error_already_set();
  return overflow ? -1 : value;
}

// Side of an image, or 0 for what cannot be one.
int32_t side(int64_t pixels) { return pixels >= 1 && pixels < 1 << 24 ? int32_t(pixels) : 0; }
int32_t side(PyObject* from) {
  int overflow = 0;
  const int64_t pixels = PyLong_Check(from) ? PyLong_AsLongLongAndOverflow(from, &overflow) : 0;
  return overflow ? 0 : side(pixels);
}

// Images of these sizes: a sequence of (height, width), or an array (images, 2).
std::vector<core::Sample> to_samples(const py::object& sizes) {
  const auto refuse = [](const py::object& size) {
    throw py::value_error("Plan.draw: sizes holds " + std::string(py::repr(size)) +
                          "; each is (height, width) in pixels, at least 1.");
  };
  if (const auto array = to_array(sizes, 2)) {
    std::vector<core::Sample> out(size_t(array->shape[0]));
    const auto* from = static_cast<const int64_t*>(array->ptr);
    for (core::Sample& sample : out) {
      const int64_t height = *from++, width = *from++;
      sample = {0, side(height), side(width)};
      if (!sample.height || !sample.width) refuse(py::make_tuple(height, width));
    }
    return out;
  }
  const auto items = py::tuple(sizes);
  std::vector<core::Sample> out(items.size());
  for (size_t i = 0; i < out.size(); ++i) {
    PyObject* const size = PyTuple_GET_ITEM(items.ptr(), ssize_t(i));
    if ((PyTuple_Check(size) || PyList_Check(size)) && PySequence_Fast_GET_SIZE(size) == 2)
      out[i] = {0, side(PySequence_Fast_GET_ITEM(size, 0)), side(PySequence_Fast_GET_ITEM(size, 1))};
    if (!out[i].height || !out[i].width) refuse(py::reinterpret_borrow<py::object>(size));
  }
  return out;
}

// The index of each: None for 0, 1, ..., a sequence, or an array.
void set_indices(const py::object& indices, std::vector<core::Sample>& to) {
  const auto check_count = [&](size_t count) {
    if (count == to.size()) return;
    throw py::value_error("Plan.draw: " + std::to_string(to.size()) + " sizes need as many indices, got " +
                          std::to_string(count) + ".");
  };
  const auto set = [&](size_t i, int64_t index) {
    to[i].index = uint64_t(index);
    if (index >= 0) return;
    throw py::value_error("Plan.draw: indices must be from 0 to 2^63 - 1; number " + std::to_string(i) + " is not.");
  };
  if (indices.is_none()) {
    for (size_t i = 0; i < to.size(); ++i) to[i].index = i;
  } else if (const auto array = to_array(indices, 1)) {
    check_count(size_t(array->shape[0]));
    for (size_t i = 0; i < to.size(); ++i) set(i, static_cast<const int64_t*>(array->ptr)[i]);
  } else {
    const auto items = py::tuple(indices);  // which int() of an item cannot change
    check_count(items.size());
    for (size_t i = 0; i < to.size(); ++i) set(i, whole_number(PyTuple_GET_ITEM(items.ptr(), ssize_t(i))));
  }
}

void draw(const std::vector<core::ViewSpec>& views, const py::object& sizes, uint64_t seed, uint32_t epoch,
          const py::object& indices, uint32_t repeat, uintptr_t plans) {
  for (size_t v = 0; v < views.size(); ++v) {
    if (views[v].turns.empty()) throw std::invalid_argument("draw: turns is empty");
    if (views[v].of >= int(v) || (views[v].crop == core::CropKind::Same && views[v].of < 0))
      throw std::invalid_argument("draw: a view takes its crop from one that is not before it");
  }
  std::vector<core::Sample> samples = to_samples(sizes);
  set_indices(indices, samples);
  const core::DrawKey key{seed, 0, epoch, 0, repeat};
  core::draw_batch(views.data(), views.size(), key, samples.data(), samples.size(), pointer<core::ViewPlan>(plans));
}

// Compiles the plans of `count` images, as a GPU needs them before a launch; returns how many operations they have.
int64_t compile(const std::vector<core::ViewSpec>& views, size_t count, uintptr_t plans, int channels) {
  const py::gil_scoped_release release;
  const auto* const plan = pointer<const core::ViewPlan>(plans);
  std::vector<core::Compiled> programs(views.size());
  int64_t operations = 0;
  for (size_t i = 0; i < count; ++i) {
    for (size_t v = 0; v < views.size(); ++v) {
      const core::ViewPlan& drawn = plan[i * views.size() + v];
      core::compile(views[v], drawn, int(drawn.source_height), int(drawn.source_width), channels, programs[v]);
      operations += programs[v].before.count + programs[v].after.count;
    }
  }
  return operations;
}

template <typename T, size_t N>
void set_array(T (&to)[N], const std::vector<T>& from, const char* name) {
  if (from.size() != N) throw std::invalid_argument(std::string(name) + ": wrong number of values");
  for (size_t i = 0; i < N; ++i) to[i] = from[i];
}

#define FASTSSL_ARRAY(name)                                                                             \
  def_property(                                                                                         \
      #name, [](const core::ViewSpec& s) { return std::vector(std::begin(s.name), std::end(s.name)); }, \
      [](core::ViewSpec& s, const std::vector<std::decay_t<decltype(s.name[0])>>& v) { set_array(s.name, v, #name); })

}  // namespace

void bind_draw(py::module_& m) {
  py::enum_<core::CropKind>(m, "CropKind")
      .value("random", core::CropKind::Random)
      .value("center", core::CropKind::Center)
      .value("whole", core::CropKind::Whole)
      .value("same", core::CropKind::Same);
  py::enum_<core::Filter>(m, "Filter")
      .value("bilinear", core::Filter::Bilinear)
      .value("bicubic", core::Filter::Bicubic);
  py::enum_<core::RotateFilter>(m, "RotateFilter")
      .value("nearest", core::RotateFilter::Nearest)
      .value("bilinear", core::RotateFilter::Bilinear);
  py::enum_<core::BlurKind>(m, "BlurKind")
      .value("gaussian", core::BlurKind::Gaussian)
      .value("box", core::BlurKind::Box);
  py::enum_<core::Part>(m, "Part")
      .value("all", core::Part::All)
      .value("before_custom", core::Part::BeforeCustom)
      .value("after_custom", core::Part::AfterCustom);
  py::enum_<core::Step>(m, "Step")
      .value("crop", core::Step::Crop)
      .value("jitter", core::Step::Jitter)
      .value("grayscale", core::Step::Grayscale)
      .value("blur", core::Step::Blur)
      .value("solarize", core::Step::Solarize)
      .value("posterize", core::Step::Posterize)
      .value("custom", core::Step::Custom);
  py::class_<core::ViewSpec>(m, "ViewSpec")
      .def(py::init<>())
      .def_readwrite("size", &core::ViewSpec::size)
      .def_readwrite("crop", &core::ViewSpec::crop)
      .def_readwrite("of", &core::ViewSpec::of)
      .def_readwrite("filter", &core::ViewSpec::filter)
      .def_readwrite("keep", &core::ViewSpec::keep)
      .def_readwrite("flip_p", &core::ViewSpec::flip_p)
      .def_readwrite("vflip_p", &core::ViewSpec::vflip_p)
      .def_readwrite("turn_p", &core::ViewSpec::turn_p)
      .def_readwrite("turns", &core::ViewSpec::turns)
      .def_readwrite("rotate_p", &core::ViewSpec::rotate_p)
      .def_readwrite("rotate_filter", &core::ViewSpec::rotate_filter)
      .def_readwrite("jitter_p", &core::ViewSpec::jitter_p)
      .def_readwrite("grayscale_p", &core::ViewSpec::grayscale_p)
      .def_readwrite("blur_p", &core::ViewSpec::blur_p)
      .def_readwrite("solarize_p", &core::ViewSpec::solarize_p)
      .def_readwrite("threshold", &core::ViewSpec::threshold)
      .def_readwrite("blur", &core::ViewSpec::blur)
      .def_readwrite("posterize_p", &core::ViewSpec::posterize_p)
      .def_readwrite("bits", &core::ViewSpec::bits)
      .def_readwrite("erase_p", &core::ViewSpec::erase_p)
      .def_readwrite("erase_value", &core::ViewSpec::erase_value)
      .def_readwrite("part", &core::ViewSpec::part)
      .def_readwrite("mean", &core::ViewSpec::mean)
      .def_readwrite("std", &core::ViewSpec::std)
      .FASTSSL_ARRAY(area)
      .FASTSSL_ARRAY(aspect)
      .FASTSSL_ARRAY(brightness)
      .FASTSSL_ARRAY(contrast)
      .FASTSSL_ARRAY(saturation)
      .FASTSSL_ARRAY(hue)
      .FASTSSL_ARRAY(sigma_px)
      .FASTSSL_ARRAY(degrees)
      .FASTSSL_ARRAY(erase_area)
      .FASTSSL_ARRAY(erase_aspect)
      .def_property(
          "steps", [](const core::ViewSpec& s) { return std::vector(s.steps, s.steps + s.step_count); },
          [](core::ViewSpec& s, const std::vector<core::Step>& steps) {
            if (steps.size() > core::kMaxSteps) throw std::invalid_argument("steps: too many");
            for (const core::Step step : steps) {
              if (std::count(steps.begin(), steps.end(), step) > 1)
                throw std::invalid_argument("steps: one stands there twice");
            }
            std::copy(steps.begin(), steps.end(), s.steps);
            s.step_count = int32_t(steps.size());
          });

  m.attr("PLAN_FIELDS") =
      py::tuple(py::cast(std::vector<std::string>(std::begin(core::kPlanFields), std::end(core::kPlanFields))));
  m.attr("FIRST_RESERVED_VIEW") = core::kFirstReservedView;

  m.def("philox4x32", [](std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
    const core::Random4 r = core::philox4x32(c[0], c[1], c[2], c[3], k[0], k[1]);
    return py::make_tuple(r.v[0], r.v[1], r.v[2], r.v[3]);
  });
  m.def("draw", &draw, py::arg("views"), py::arg("sizes"), py::arg("seed"), py::arg("epoch"), py::arg("indices"),
        py::arg("repeat"), py::arg("plans"));
  m.def("compile", &compile, py::arg("views"), py::arg("count"), py::arg("plans"), py::arg("channels"));
  m.def("draw_permutation", [](uint64_t seed, uint32_t epoch, int64_t n, uintptr_t out) {
    const py::gil_scoped_release release;
    core::draw_permutation(seed, epoch, n, pointer<int64_t>(out));
  });

  m.def("recipe_shrink", [](const std::vector<core::ViewSpec>& views, int height, int width) {
    return core::recipe_shrink(views.data(), views.size(), height, width);
  });
}

}  // namespace fastssl
