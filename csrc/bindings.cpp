// The whole surface between Python and native code.
//
// Tensors come as addresses with sizes and strides, so that no torch header is needed and one build serves every release of
// torch. fastssl/_native.py and fastssl/ops check shapes, types and lifetimes before they call. The GIL is released wherever work is done.
#include <pybind11/functional.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bind_contrastive.h"
#include "bind_masks.h"
#include "core/draw.h"
#include "core/philox.h"
#include "core/plan.h"
#include "core/program.h"
#include "core/smallest_crop.h"
#include "cpu/buffers.h"
#include "cpu/cache.h"
#include "cpu/cache_file.h"
#include "cpu/engine.h"
#include "cpu/file.h"
#include "cpu/gather.h"
#include "cpu/jpeg.h"
#include "cpu/plain_jpeg.h"
#include "cpu/render.h"
#include "cpu/rows.h"
#include "cpu/thread_pool.h"
#include "cuda/device.h"
#include "cuda/emulator.h"
#include "cuda/probe.h"
#include "cuda/render.h"

namespace py = pybind11;
using namespace fastssl;

namespace {

template <typename T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// A message that may quote a file's bytes.
py::str text(const std::string& message) {
  return py::reinterpret_steal<py::str>(PyUnicode_DecodeUTF8(message.data(), ssize_t(message.size()), "replace"));
}

// A Python object that native threads may let go of: the last reference is dropped with the GIL held.
std::shared_ptr<void> keep(py::object object) {
  return {new py::object(std::move(object)), [](void* p) {
            const py::gil_scoped_acquire gil;
            delete static_cast<py::object*>(p);
          }};
}

// (address, height, width, stride in bytes, channels, type), of a whole image.
using ImageTuple = std::tuple<uintptr_t, int, int, int64_t, int, cpu::PixelType>;

cpu::ImageView to_image(const ImageTuple& from) {
  cpu::ImageView image;
  image.pixels = pointer<const void>(std::get<0>(from));
  image.height = std::get<1>(from);
  image.width = std::get<2>(from);
  image.stride = std::get<3>(from);
  image.channels = std::get<4>(from);
  image.type = std::get<5>(from);
  return image.whole();
}

// The same, and behind it the bytes from channel to channel, 0 where they lie side by side.
using StridedImage = std::tuple<uintptr_t, int, int, int64_t, int, cpu::PixelType, int64_t>;

cpu::ImageView to_image(const StridedImage& from) {
  const auto& [address, height, width, stride, channels, type, plane] = from;
  cpu::ImageView image = to_image(ImageTuple{address, height, width, stride, channels, type});
  image.plane = plane;
  return image;
}

// (address, size, height, width): encoded data, with sides of 0, or pixels of 8-bit RGB, side by side.
using GivenImage = std::tuple<uintptr_t, size_t, int, int>;

cpu::Fetched to_fetched(const GivenImage& from) {
  const auto& [address, size, height, width] = from;
  cpu::Fetched out;
  if (height) {
    if (size_t(height) * size_t(width) * 3 != size) throw std::invalid_argument("submit: an image of another size");
    out.image = to_image(ImageTuple{address, height, width, int64_t(width) * 3, 3, cpu::PixelType::UInt8});
  } else {
    out.bytes = pointer<const uint8_t>(address);
    out.size = size;
  }
  return out;
}

// What a Python callback returned: (image, owner) for pixels, (address, size, owner) for bytes; and behind, perhaps, a label.
cpu::Fetched to_fetched(const py::tuple& from) {
  cpu::Fetched out;
  size_t count = from.size();
  if (count && py::isinstance<py::bytes>(from[count - 1])) out.label = from[--count].cast<std::string>();
  if (count == 2) {
    out.image = to_image(from[0].cast<ImageTuple>());
    out.owner = keep(from[1]);
  } else {
    out.bytes = pointer<const uint8_t>(from[0].cast<uintptr_t>());
    out.size = from[1].cast<size_t>();
    out.owner = keep(from[2]);
  }
  return out;
}

// Calls Python from a native thread; its exception becomes the reason why the sample is bad.
template <typename... Args>
cpu::Fetched call(const py::function& f, Args... args) {
  try {
    return to_fetched(f(args...).template cast<py::tuple>());
  } catch (py::error_already_set& error) {
    const std::string reason = py::str(error.value());
    if (error.matches(py::module_::import("fastssl._C").attr("DecodeError"))) throw cpu::DecodeError(reason);
    const std::string type = py::str(error.type().attr("__name__"));
    throw cpu::DecodeError(type + ": " + reason);
  }
}

// The GIL on a native thread. The thread keeps its Python state for as long as it lives, so that a source's
// threading.local, which may hold an open file, is not made anew for every sample.
class ThreadGil {
 public:
  ThreadGil() {
    static thread_local State state;
    PyEval_RestoreThread(state.thread);
  }
  ~ThreadGil() { PyEval_SaveThread(); }
  ThreadGil(const ThreadGil&) = delete;
  ThreadGil& operator=(const ThreadGil&) = delete;

 private:
  struct State {
    PyGILState_STATE before = PyGILState_Ensure();
    PyThreadState* thread = PyEval_SaveThread();
    ~State() {
      PyEval_RestoreThread(thread);
      PyGILState_Release(before);
    }
  };
};

// As os.fsencode.
std::string file_name(const py::handle path) {
  PyObject* bytes = nullptr;
  if (!PyUnicode_FSConverter(path.ptr(), &bytes)) throw py::error_already_set();
  return py::reinterpret_steal<py::bytes>(bytes);
}

class PyEngine {
 public:
  PyEngine(int threads, std::vector<core::ViewSpec> views, uint64_t seed, int channels, bool as_stored, bool may_shrink,
           const py::object& array, py::function fetch, py::function decode_other, const py::object& image_step,
           std::shared_ptr<cpu::Cache> cache, std::vector<core::ViewSpec> keep_for)
      : fetch_(std::move(fetch)), decode_other_(std::move(decode_other)), view_count_(views.size()) {
    cpu::Settings settings{threads,          std::move(views),   seed, channels, as_stored, may_shrink, {},
                           std::move(cache), std::move(keep_for)};
    if (!array.is_none()) {
      const auto parts = array.cast<py::tuple>();
      settings.array = {keep(parts[4]), to_image(parts[0].cast<ImageTuple>()), parts[1].cast<int64_t>(),
                        parts[2].cast<int64_t>(), pointer<const int64_t>(parts[3].cast<uintptr_t>())};
    }
    cpu::Callbacks callbacks;
    callbacks.fetch = [this](int64_t index) {
      const ThreadGil gil;
      return call(fetch_, index);
    };
    callbacks.decode_other = [this](const uint8_t* bytes, size_t size) {
      const ThreadGil gil;
      return call(decode_other_, py::memoryview::from_memory(bytes, ssize_t(size)));
    };
    if (!image_step.is_none()) {
      image_step_ = image_step.cast<py::function>();
      callbacks.image_step = [this](int64_t index, const cpu::ImageView& image) {
        const ThreadGil gil;
        const ImageTuple tuple{reinterpret_cast<uintptr_t>(image.pixels),
                               image.height,
                               image.width,
                               image.stride,
                               image.channels,
                               image.type};
        return call(image_step_, index, tuple);
      };
    }
    engine_ = std::make_unique<cpu::Engine>(std::move(settings), std::move(callbacks));
  }
  ~PyEngine() { close(); }

  std::shared_ptr<cpu::Job> submit(uintptr_t index, int64_t count, std::vector<int64_t> positions,
                                   const py::list& paths, uint32_t epoch, uint32_t repeat,
                                   const std::vector<std::tuple<uintptr_t, cpu::DType, bool>>& outputs, uintptr_t plans,
                                   std::shared_ptr<cpu::Gather> gather, const std::vector<GivenImage>& given,
                                   int64_t leave, bool urgent) {
    if (outputs.size() != (gather ? 0 : view_count_))
      throw std::invalid_argument("submit: one output a view is needed");
    const auto* first = pointer<const int64_t>(index);
    std::vector<int64_t> indices(first, first + count);
    if (!paths.empty() && paths.size() != indices.size())
      throw std::invalid_argument("submit: one path a sample is needed");
    if (!given.empty() && given.size() != indices.size())
      throw std::invalid_argument("submit: one image a sample is needed");
    if (!positions.empty() && positions.size() != indices.size())
      throw std::invalid_argument("submit: one position a sample is needed");
    std::vector<std::string> names;
    names.reserve(paths.size());
    for (const py::handle path : paths) names.push_back(path.is_none() ? std::string() : file_name(path));
    std::vector<cpu::Fetched> images;
    images.reserve(given.size());
    for (const GivenImage& image : given) images.push_back(to_fetched(image));
    cpu::Samples samples{std::move(indices), std::move(positions), std::move(names), std::move(images), epoch, repeat};
    std::vector<cpu::Output> to;
    for (const auto& [address, dtype, channels_last] : outputs)
      to.push_back({pointer<void>(address), dtype, channels_last});
    auto job = std::make_shared<cpu::Job>(std::move(samples), std::move(to), pointer<core::ViewPlan>(plans),
                                          std::move(gather), leave);
    engine_->submit(job, urgent);
    return job;
  }

  bool close() {
    const py::gil_scoped_release release;  // threads that wait for the GIL must get it to end
    return engine_->close();
  }

  py::dict times() const {
    const cpu::Times& t = engine_->times();
    py::dict out;
    out["read_seconds"] = double(t.read) * 1e-9;
    out["decode_seconds"] = double(t.decode) * 1e-9;
    out["render_seconds"] = double(t.render) * 1e-9;
    out["images"] = int64_t(t.images);
    return out;
  }

 private:
  py::function fetch_, decode_other_, image_step_;
  size_t view_count_;
  std::unique_ptr<cpu::Engine> engine_;
};

cpu::JpegDecoder& jpeg_decoder() {
  static thread_local cpu::JpegDecoder decoder;
  return decoder;
}

// Images by an entry each; or by one entry and the bytes from each of `count` to the next.
core::ImageView image_at(const std::vector<StridedImage>& images, int64_t step, size_t i) {
  if (i < images.size()) return to_image(images[i]);
  core::ImageView image = to_image(images.at(0));
  image.pixels = static_cast<const char*>(image.pixels) + int64_t(i) * step;
  return image;
}

void render(const std::vector<core::ViewSpec>& views, const std::vector<StridedImage>& images, int64_t image_count,
            int64_t step, uintptr_t plans, const std::vector<uintptr_t>& outputs, cpu::DType dtype, bool channels_last,
            int threads) {
  const py::gil_scoped_release release;
  const auto* plan = pointer<const core::ViewPlan>(plans);
  const size_t v_count = views.size();
  cpu::parallel_for(image_count, threads, [&](int64_t i) {
    static thread_local cpu::Renderer renderer;
    const cpu::ImageView image = image_at(images, step, size_t(i));
    try {
      for (size_t v = 0; v < v_count; ++v) {
        const cpu::Output out{pointer<void>(outputs[v]), dtype, channels_last};
        renderer.render(image, views[v], plan[size_t(i) * v_count + v], out, i);
      }
    } catch (const std::invalid_argument& error) {
      throw std::invalid_argument("render: image " + std::to_string(i) + ": " + error.what());
    }
  });
}

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

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native code of fastssl. Internal: use the Python packages.";

  py::register_exception<cpu::DecodeError>(m, "DecodeError", PyExc_ValueError);

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
  py::enum_<cpu::PixelType>(m, "PixelType")
      .value("uint8", cpu::PixelType::UInt8)
      .value("uint16", cpu::PixelType::UInt16)
      .value("float32", cpu::PixelType::Float32);
  py::enum_<cpu::DType>(m, "DType")
      .value("float32", cpu::DType::Float32)
      .value("float16", cpu::DType::Float16)
      .value("bfloat16", cpu::DType::BFloat16)
      .value("uint8", cpu::DType::UInt8);

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

  m.def("read_file", [](const py::handle path) {
    cpu::Scratch<uint8_t> file;
    const size_t size = cpu::read_file(file_name(path), file);
    return py::bytes(reinterpret_cast<const char*>(file.at_least(0)), size);
  });
  m.def("is_jpeg", [](uintptr_t data, size_t size) { return cpu::is_jpeg(pointer<const uint8_t>(data), size); });
  m.def("jpeg_size", [](uintptr_t data, size_t size) {
    const cpu::ImageSize s = jpeg_decoder().open(pointer<const uint8_t>(data), size);
    return py::make_tuple(s.height, s.width, s.channels);
  });
  m.def("jpeg_decode", [](uintptr_t data, size_t size, uintptr_t pixels, int height, int width, int channels) {
    const py::gil_scoped_release release;
    cpu::JpegDecoder& decoder = jpeg_decoder();
    const cpu::ImageSize s = decoder.open(pointer<const uint8_t>(data), size);
    if (s.height != height || s.width != width) throw cpu::DecodeError("the data changed while it was decoded");
    decoder.decode(pointer<uint8_t>(pixels), int64_t(channels) * width, channels);
  });
  // A part of an image, or of a smaller copy, where it lies, and whether our own decoder of Huffman codes served: what the
  // engine does, for the tests.
  m.def(
      "jpeg_decode_window",
      [](uintptr_t data, size_t size, std::array<int, 4> window, int shrink, int channels, bool libjpeg_huffman) {
        static thread_local cpu::JpegDecoder libjpeg(cpu::Huffman::Libjpeg);
        cpu::JpegDecoder& decoder = libjpeg_huffman ? libjpeg : jpeg_decoder();
        decoder.open(pointer<const uint8_t>(data), size);
        const cpu::Area area = decoder.begin({window[0], window[1], window[2], window[3]}, shrink, channels);
        std::string pixels(size_t(area.rows) * size_t(area.columns) * size_t(channels), '\0');
        decoder.read(reinterpret_cast<uint8_t*>(pixels.data()), int64_t(area.columns) * channels);
        const bool ours = decoder.huffman() == cpu::Huffman::Ours;
        return py::make_tuple(py::bytes(pixels), area.top, area.left, area.rows, area.columns, ours);
      },
      py::arg("data"), py::arg("size"), py::arg("window"), py::arg("shrink"), py::arg("channels"),
      py::arg("libjpeg_huffman") = false);
  m.def("render", &render, py::arg("views"), py::arg("images"), py::arg("count"), py::arg("step"), py::arg("plans"),
        py::arg("outputs"), py::arg("dtype"), py::arg("channels_last"), py::arg("threads"));

  py::register_exception<cpu::CacheError>(m, "CacheError", PyExc_ValueError);
  m.attr("CACHE_VERSION") = cpu::kCacheVersion;
  m.def("recipe_shrink", [](const std::vector<core::ViewSpec>& views, int height, int width) {
    return core::recipe_shrink(views.data(), views.size(), height, width);
  });
  py::class_<cpu::Cache, std::shared_ptr<cpu::Cache>>(m, "Cache")
      .def("error", [](cpu::Cache& cache) { return text(cache.error()); })
      .def("counts", [](const cpu::Cache& cache) {
        const cpu::Cache::Counts counts = cache.counts();
        py::dict out;
        out["images"] = counts.images;
        out["bytes"] = counts.bytes;
        out["hits"] = counts.hits;
        out["misses"] = counts.misses;
        out["left_out"] = counts.left_out;
        return out;
      });
  py::class_<cpu::MemoryCache, cpu::Cache, std::shared_ptr<cpu::MemoryCache>>(m, "MemoryCache")
      .def(py::init<int64_t, int64_t, std::shared_ptr<const cpu::MemoryCache>>(), py::arg("samples"), py::arg("bytes"),
           py::arg("base") = nullptr);
  py::class_<cpu::FileCache, cpu::Cache, std::shared_ptr<cpu::FileCache>>(m, "FileCache")
      .def(py::init([](const py::bytes& path, int64_t samples, const py::bytes& fingerprint, std::string rule,
                       int64_t limit, bool any) {
             cpu::FileCache::Setup setup{path, samples, fingerprint, std::move(rule), limit, any};
             const py::gil_scoped_release release;
             return std::make_shared<cpu::FileCache>(std::move(setup));
           }),
           py::arg("path"), py::arg("samples"), py::arg("fingerprint"), py::arg("rule"), py::arg("limit") = 0,
           py::arg("any") = false)
      .def_property_readonly("complete", &cpu::FileCache::completed)
      .def_property_readonly("idle", &cpu::FileCache::idle)
      .def_property_readonly("ready", &cpu::FileCache::ready)
      .def_property_readonly("samples", &cpu::FileCache::samples)
      .def_property_readonly("rule", &cpu::FileCache::rule)
      .def(
          "label",
          [](const cpu::FileCache& cache, int64_t index) -> std::optional<py::bytes> {
            const auto label = cache.label(index);
            return label ? std::optional<py::bytes>(*label) : std::nullopt;
          },
          py::arg("index"))
      .def("finish", &cpu::FileCache::finish, py::call_guard<py::gil_scoped_release>())
      .def("damaged", &cpu::FileCache::damaged, py::arg("threads"), py::call_guard<py::gil_scoped_release>());

  py::class_<cpu::Region>(m, "Region")
      .def_property_readonly("used", &cpu::Region::used)
      .def_property_readonly("taken", &cpu::Region::taken)
      .def_property_readonly("beside", [](const cpu::Region& region) {
        std::vector<std::pair<uintptr_t, size_t>> out;
        for (const cpu::Region::Piece& piece : region.beside())
          out.emplace_back(reinterpret_cast<uintptr_t>(piece.data), piece.size);
        return out;
      });
  py::class_<cpu::Gather, std::shared_ptr<cpu::Gather>>(m, "Gather")
      .def(py::init(
               [](uintptr_t block, size_t size, int64_t images, uintptr_t encoded, size_t encoded_size, int64_t room) {
                 return std::make_shared<cpu::Gather>(pointer<void>(block), size, images, pointer<void>(encoded),
                                                      encoded_size, room);
               }),
           py::arg("block"), py::arg("size"), py::arg("images"), py::arg("encoded") = 0, py::arg("encoded_size") = 0,
           py::arg("room") = 0)
      .def_readonly("pixels", &cpu::Gather::pixels)
      .def_readonly("encoded", &cpu::Gather::encoded)
      // (position, address, size, height, width, (top, left, rows, columns)) of each that is left encoded.
      .def("left", [](const cpu::Gather& gather) {
        py::list out;
        for (int64_t i = 0; i < gather.size(); ++i) {
          const cpu::LeftEncoded& image = gather.left(i);
          if (!image.data) continue;
          const cpu::Area& window = image.window;
          out.append(py::make_tuple(i, reinterpret_cast<uintptr_t>(image.data), image.size, image.height, image.width,
                                    py::make_tuple(window.top, window.left, window.rows, window.columns)));
        }
        return out;
      });
  m.def("prepare_gathered", &prepare_gathered, py::arg("gather"), py::arg("positions"), py::arg("base"),
        py::arg("beside"), py::arg("decoded"), py::arg("views"), py::arg("plans"), py::arg("outputs"), py::arg("dtype"),
        py::arg("channels_last"), py::arg("workspace"));
  // That memory, which must live for as long as this; a ctypes array would be a type of its own for each size.
  m.def("memory_at",
        [](uintptr_t address, ssize_t size) { return py::memoryview::from_memory(pointer<void>(address), size); });
  m.def("plain_jpeg_size",
        [](uintptr_t data, size_t size) { return cpu::plain_jpeg_size(pointer<const uint8_t>(data), size); });
  py::class_<cpu::Job, std::shared_ptr<cpu::Job>>(m, "Job")
      .def("wait", &cpu::Job::wait, py::arg("milliseconds"), py::call_guard<py::gil_scoped_release>())
      .def("wake", &cpu::Job::wake)
      .def("failures", [](cpu::Job& job) {
        std::vector<std::pair<int64_t, py::str>> out;
        for (const cpu::Failure& f : job.failures()) {
          out.emplace_back(f.position, text(f.reason));
        }
        return out;
      });
  py::class_<PyEngine>(m, "Engine")
      .def(py::init<int, std::vector<core::ViewSpec>, uint64_t, int, bool, bool, py::object, py::function, py::function,
                    py::object, std::shared_ptr<cpu::Cache>, std::vector<core::ViewSpec>>(),
           py::arg("threads"), py::arg("views"), py::arg("seed"), py::arg("channels"), py::arg("as_stored"),
           py::arg("may_shrink"), py::arg("array"), py::arg("fetch"), py::arg("decode_other"), py::arg("image_step"),
           py::arg("cache") = nullptr, py::arg("keep_for") = std::vector<core::ViewSpec>{})
      .def("submit", &PyEngine::submit, py::arg("indices"), py::arg("count"), py::arg("positions"), py::arg("paths"),
           py::arg("epoch"), py::arg("repeat"), py::arg("outputs"), py::arg("plans"), py::arg("gather") = nullptr,
           py::arg("given") = std::vector<GivenImage>{}, py::arg("leave") = 0, py::arg("urgent") = false)
      .def("close", &PyEngine::close)
      .def("times", &PyEngine::times);

  py::class_<cpu::BufferPool::Lease, std::shared_ptr<cpu::BufferPool::Lease>>(m, "Lease", py::buffer_protocol())
      .def_buffer([](cpu::BufferPool::Lease& lease) {
        return py::buffer_info(lease.data(), 1, py::format_descriptor<uint8_t>::format(), 1, {ssize_t(lease.size())},
                               {ssize_t(1)});
      });
  py::class_<cpu::BufferPool, std::shared_ptr<cpu::BufferPool>>(m, "BufferPool")
      .def(py::init<size_t>(), py::arg("kept"))
      .def("lease", &cpu::BufferPool::lease, py::arg("size"))
      .def("close", &cpu::BufferPool::close);

  m.def("simd_name", [] { return cpu::row_kernels().name; });
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

  bind_contrastive(m);
  bind_masks(m);
}
