#include "contrastive_launch.h"

namespace fastssl::cuda {

void emulate_forward(const ContrastiveJob& job, const ForwardPlan& plan, const ForwardResults& results,
                     void* workspace) {
  (job.split() ? run_forward<Path::Split>
   : plan.wide ? run_forward<Path::Wide>
               : run_forward<Path::Halves>)(job, plan, results, Workspace(workspace), {});
}

void emulate_backward(const ContrastiveJob& job, const BackwardPlan& plan, const BackwardInputs& inputs,
                      const BackwardResults& results, void* workspace) {
  (job.split() ? run_backward<Path::Split>
   : plan.wide ? run_backward<Path::Wide>
               : run_backward<Path::Halves>)(job, plan, inputs, results, Workspace(workspace), {});
}

}  // namespace fastssl::cuda
