// What the parts of the surface share: how tensors, images and names come from Python.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/image.h"
#include "cpu/render.h"

namespace fastssl {

namespace py = pybind11;

void bind_contrastive(py::module_& m);
void bind_cuda(py::module_& m);
void bind_draw(py::module_& m);
void bind_engine(py::module_& m);
void bind_images(py::module_& m);
void bind_masks(py::module_& m);

template <typename T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// A message that may quote a file's bytes.
inline py::str text(const std::string& message) {
  return py::reinterpret_steal<py::str>(PyUnicode_DecodeUTF8(message.data(), ssize_t(message.size()), "replace"));
}

// A Python object that native threads may let go of: the last reference is dropped with the GIL held.
inline std::shared_ptr<void> keep(py::object object) {
  return {new py::object(std::move(object)), [](void* p) {
            const py::gil_scoped_acquire gil;
            delete static_cast<py::object*>(p);
          }};
}

// (address, height, width, stride in bytes, channels, type), of a whole image.
using ImageTuple = std::tuple<uintptr_t, int, int, int64_t, int, cpu::PixelType>;

inline cpu::ImageView to_image(const ImageTuple& from) {
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

inline cpu::ImageView to_image(const StridedImage& from) {
  const auto& [address, height, width, stride, channels, type, plane] = from;
  cpu::ImageView image = to_image(ImageTuple{address, height, width, stride, channels, type});
  image.plane = plane;
  return image;
}

// Images by an entry each; or by one entry and the bytes from each of `count` to the next.
inline core::ImageView image_at(const std::vector<StridedImage>& images, int64_t step, size_t i) {
  if (i < images.size()) return to_image(images[i]);
  core::ImageView image = to_image(images.at(0));
  image.pixels = static_cast<const char*>(image.pixels) + int64_t(i) * step;
  return image;
}

// As os.fsencode.
inline std::string file_name(const py::handle path) {
  PyObject* bytes = nullptr;
  if (!PyUnicode_FSConverter(path.ptr(), &bytes)) throw py::error_already_set();
  return py::reinterpret_steal<py::bytes>(bytes);
}

}  // namespace fastssl
