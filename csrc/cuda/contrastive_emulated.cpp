#include "contrastive_launch.h"

namespace fastssl::cuda {

void emulate_forward(const ContrastiveJob& job, const ForwardPlan& plan, const ForwardResults& results,
                     void* workspace) {
  (job.split() ? run_forward<Path::Split>
   : plan.wide ? run_forward<Path::Wide>
               : run_forward<Path::Halves>)(job, plan, results, Workspace(workspace), Workspace(workspace), {});
}

void emulate_backward(const ContrastiveJob& job, const BackwardPlan& plan, const BackwardInputs& inputs,
                      const BackwardResults& results, void* workspace) {
  (job.split()        ? run_backward<Path::Split>
   : plan.wide        ? run_backward<Path::Wide>
   : plan.wide_panels ? run_backward<Path::WidePanels>
                      : run_backward<Path::Halves>)(job, plan, inputs, results, Workspace(workspace), {});
}

void emulate_ntxent(const ContrastiveJob& job, const NtxentPlan& plan, float* loss, void* kept, void* workspace) {
  (job.split()         ? run_ntxent<Path::Split>
   : plan.forward.wide ? run_ntxent<Path::Wide>
                       : run_ntxent<Path::Halves>)(job, plan, loss, Workspace(kept), Workspace(workspace), {});
}

void emulate_ntxent_backward(const ContrastiveJob& job, const NtxentPlan& plan, const float* grad, void* kept,
                             const BackwardResults& results, void* workspace) {
  (job.split()          ? run_ntxent_backward<Path::Split>
   : plan.backward.wide ? run_ntxent_backward<Path::Wide>
   : plan.backward.wide_panels
       ? run_ntxent_backward<Path::WidePanels>
       : run_ntxent_backward<Path::Halves>)(job, plan, grad, results, Workspace(kept), Workspace(workspace), {});
}

}  // namespace fastssl::cuda
