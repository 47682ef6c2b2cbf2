#include "contrastive_launch.h"
#include "contrastive_parts.h"

namespace fastssl::cuda {

void forward_halves(const ContrastiveJob& job, const ForwardPlan& plan, const ForwardResults& results, void* workspace,
                    cudaStream_t stream) {
  run_forward<Path::Halves>(job, plan, results, Workspace(workspace), Workspace(workspace), stream);
}

void backward_halves(const ContrastiveJob& job, const BackwardPlan& plan, const BackwardInputs& inputs,
                     const BackwardResults& results, void* workspace, cudaStream_t stream) {
  run_backward<Path::Halves>(job, plan, inputs, results, Workspace(workspace), stream);
}

void ntxent_halves(const ContrastiveJob& job, const NtxentPlan& plan, float* loss, void* kept, void* workspace,
                   cudaStream_t stream) {
  run_ntxent<Path::Halves>(job, plan, loss, Workspace(kept), Workspace(workspace), stream);
}

void ntxent_backward_halves(const ContrastiveJob& job, const NtxentPlan& plan, const float* grad, void* kept,
                            const BackwardResults& results, void* workspace, cudaStream_t stream) {
  run_ntxent_backward<Path::Halves>(job, plan, grad, results, Workspace(kept), Workspace(workspace), stream);
}

}  // namespace fastssl::cuda
