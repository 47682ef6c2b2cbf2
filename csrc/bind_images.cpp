// Files to pixels, and pixels to views, on the CPU.
#include "bind.h"

#include <array>
#include <string>
#include <vector>

#include "cpu/file.h"
#include "cpu/jpeg.h"
#include "cpu/plain_jpeg.h"
#include "cpu/render.h"
#include "cpu/rows.h"
#include "cpu/thread_pool.h"

namespace fastssl {

namespace {

cpu::JpegDecoder& jpeg_decoder() {
  static thread_local cpu::JpegDecoder decoder;
  return decoder;
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

}  // namespace

void bind_images(py::module_& m) {
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
  m.def("plain_jpeg_size",
        [](uintptr_t data, size_t size) { return cpu::plain_jpeg_size(pointer<const uint8_t>(data), size); });
  m.def("simd_name", [] { return cpu::row_kernels().name; });
}

}  // namespace fastssl
