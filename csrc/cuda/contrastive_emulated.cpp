#include "contrastive_launch.h"

namespace fastssl::cuda {

void emulate_forward(const ContrastiveJob& job, const ForwardPlan& plan, const ForwardResults& results,
                     void* workspace) {
  job.split() ? run_forward<true>(job, plan, results, Workspace(workspace), {})
              : run_forward<false>(job, plan, results, Workspace(workspace), {});
}

void emulate_backward(const ContrastiveJob& job, const BackwardPlan& plan, const BackwardInputs& inputs,
                      const BackwardResults& results, void* workspace) {
  job.split() ? run_backward<true>(job, plan, inputs, results, Workspace(workspace), {})
              : run_backward<false>(job, plan, inputs, results, Workspace(workspace), {});
}

}  // namespace fastssl::cuda
