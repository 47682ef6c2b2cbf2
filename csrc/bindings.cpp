// The whole surface between Python and native code; each part in a file of its own.
//
// Tensors come as addresses with sizes and strides, so that no torch header is needed and one build serves every release of
// torch. fastssl/_native.py and fastssl/ops check shapes, types and lifetimes before they call. The GIL is released wherever work is done
#include "bind.h"
#include "cpu/jpeg.h"

using namespace fastssl;

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native code of fastssl. Internal: use the Python packages.";

  py::register_exception<cpu::DecodeError>(m, "DecodeError", PyExc_ValueError);

  py::enum_<cpu::PixelType>(m, "PixelType")
      .value("uint8", cpu::PixelType::UInt8)
      .value("uint16", cpu::PixelType::UInt16)
      .value("float32", cpu::PixelType::Float32);
  py::enum_<cpu::DType>(m, "DType")
      .value("float32", cpu::DType::Float32)
      .value("float16", cpu::DType::Float16)
      .value("bfloat16", cpu::DType::BFloat16)
      .value("uint8", cpu::DType::UInt8);

  bind_draw(m);
  bind_images(m);
  bind_engine(m);
  bind_cuda(m);
  bind_contrastive(m);
  bind_masks(m);
}
