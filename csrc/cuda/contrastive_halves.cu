#include "contrastive_launch.h"
#include "contrastive_parts.h"

namespace fastssl::cuda {

void forward_halves(const ContrastiveJob& job, const ForwardPlan& plan, const ForwardResults& results, void* workspace,
                    cudaStream_t stream) {
  run_forward<Path::Halves>(job, plan, results, Workspace(workspace), stream);
}

void backward_halves(const ContrastiveJob& job, const BackwardPlan& plan, const BackwardInputs& inputs,
                     const BackwardResults& results, void* workspace, cudaStream_t stream) {
  run_backward<Path::Halves>(job, plan, inputs, results, Workspace(workspace), stream);
}

}  // namespace fastssl::cuda
