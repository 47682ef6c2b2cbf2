#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

namespace fastssl {

void bind_contrastive(pybind11::module_& m);

}  // namespace fastssl
