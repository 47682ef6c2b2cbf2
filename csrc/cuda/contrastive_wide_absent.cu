// Stands in for contrastive_wide.cu where nothing is built for compute capability 9.0. No plan is wide then.
#include <stdexcept>

#include "contrastive_parts.h"

namespace fastssl::cuda {

namespace {
[[noreturn]] void fail() { throw std::logic_error("a wide plan in a build without the wide kernels"); }
}  // namespace

bool has_wide() { return false; }
void forward_wide(const ContrastiveJob&, const ForwardPlan&, const ForwardResults&, void*, cudaStream_t) { fail(); }
void backward_wide(const ContrastiveJob&, const BackwardPlan&, const BackwardInputs&, const BackwardResults&, void*,
                   cudaStream_t) {
  fail();
}
void backward_wide_panels(const ContrastiveJob&, const BackwardPlan&, const BackwardInputs&, const BackwardResults&,
                          void*, cudaStream_t) {
  fail();
}
void ntxent_wide(const ContrastiveJob&, const NtxentPlan&, float*, void*, void*, cudaStream_t) { fail(); }
void ntxent_backward_wide(const ContrastiveJob&, const NtxentPlan&, const float*, void*, const BackwardResults&, void*,
                          cudaStream_t) {
  fail();
}
void ntxent_backward_wide_panels(const ContrastiveJob&, const NtxentPlan&, const float*, void*, const BackwardResults&,
                                 void*, cudaStream_t) {
  fail();
}

}  // namespace fastssl::cuda
