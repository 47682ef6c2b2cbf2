#include "contrastive_launch.h"
#include "contrastive_parts.h"

namespace fastssl::cuda {

bool has_wide() { return true; }

void forward_wide(const ContrastiveJob& job, const ForwardPlan& plan, const ForwardResults& results, void* workspace,
                  cudaStream_t stream) {
  run_forward<Path::Wide>(job, plan, results, Workspace(workspace), Workspace(workspace), stream);
}

void backward_wide(const ContrastiveJob& job, const BackwardPlan& plan, const BackwardInputs& inputs,
                   const BackwardResults& results, void* workspace, cudaStream_t stream) {
  run_backward<Path::Wide>(job, plan, inputs, results, Workspace(workspace), stream);
}

void backward_wide_panels(const ContrastiveJob& job, const BackwardPlan& plan, const BackwardInputs& inputs,
                          const BackwardResults& results, void* workspace, cudaStream_t stream) {
  run_backward<Path::WidePanels>(job, plan, inputs, results, Workspace(workspace), stream);
}

void ntxent_wide(const ContrastiveJob& job, const NtxentPlan& plan, float* loss, void* kept, void* workspace,
                 cudaStream_t stream) {
  run_ntxent<Path::Wide>(job, plan, loss, Workspace(kept), Workspace(workspace), stream);
}

void ntxent_backward_wide(const ContrastiveJob& job, const NtxentPlan& plan, const float* grad, void* kept,
                          const BackwardResults& results, void* workspace, cudaStream_t stream) {
  run_ntxent_backward<Path::Wide>(job, plan, grad, results, Workspace(kept), Workspace(workspace), stream);
}

void ntxent_backward_wide_panels(const ContrastiveJob& job, const NtxentPlan& plan, const float* grad, void* kept,
                                 const BackwardResults& results, void* workspace, cudaStream_t stream) {
  run_ntxent_backward<Path::WidePanels>(job, plan, grad, results, Workspace(kept), Workspace(workspace), stream);
}

}  // namespace fastssl::cuda
