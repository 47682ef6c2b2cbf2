// The engine under the Loader: its jobs, where they put their results, and caches.
#include "bind.h"

#include <pybind11/functional.h>

#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cpu/buffers.h"
#include "cpu/cache.h"
#include "cpu/cache_file.h"
#include "cpu/engine.h"
#include "cpu/gather.h"
#include "cpu/jpeg.h"

namespace fastssl {

namespace {

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

}  // namespace

void bind_engine(py::module_& m) {
  py::register_exception<cpu::CacheError>(m, "CacheError", PyExc_ValueError);
  m.attr("CACHE_VERSION") = cpu::kCacheVersion;
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
  // That memory, which must live for as long as this; a ctypes array would be a type of its own for each size.
  m.def("memory_at",
        [](uintptr_t address, ssize_t size) { return py::memoryview::from_memory(pointer<void>(address), size); });
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
}

}  // namespace fastssl
