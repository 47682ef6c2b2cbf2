// Sums of exponentials of scale * unit(query) . unit(key), and their gradients, by kernels: the matrix of logits is never stored.
//
// fastssl/loss/_cuda.py says what is computed; contrastive_launch.h how, and what bounds it. All memory is the caller's:
// results, and a workspace of as many bytes as a plan asks for, whose content is of no use afterwards. Nothing waits for
// the device, and a scale in its memory is read there alone, so that launches can be captured into a CUDA graph.
#pragma once

#include <cstdint>

#include "contrastive_plan.h"

namespace fastssl::cuda {

struct ForwardResults {
  float* rows = nullptr;  // (queries)
  float* positives = nullptr;  // (queries), where there are positives
  float* columns = nullptr;  // (keys), where the job asks for them
};
// What went out of the forward pass and what came back; null: none came back, its gradient is zero.
struct BackwardInputs {
  const float *rows = nullptr, *columns = nullptr;
  const float *grad_rows = nullptr, *grad_positives = nullptr, *grad_columns = nullptr;
};
// In the type of the rows that they are of, side by side. Null: not wanted.
struct BackwardResults {
  void *grad_query = nullptr, *grad_key = nullptr;
  float* grad_scale = nullptr;
  void* grad_rest = nullptr;  // of rows that lie at `rest`
};

// The GPU as far as plans depend on it; `wide`: with the wide kernels. Throws std::runtime_error, also where there are none.
GridSize grid_size(int device, bool wide);

// On a stream of a GPU, which has all of the memory; return at once. Throw std::runtime_error.
void launch_forward(const ContrastiveJob& job, const ForwardPlan& plan, const ForwardResults& results, void* workspace,
                    int device, uintptr_t stream);
void launch_backward(const ContrastiveJob& job, const BackwardPlan& plan, const BackwardInputs& inputs,
                     const BackwardResults& results, void* workspace, int device, uintptr_t stream);
void launch_ntxent(const ContrastiveJob& job, const NtxentPlan& plan, float* loss, void* kept, void* workspace,
                   int device, uintptr_t stream);
// `grad`: in the loss, in device memory. Gradients are in query and scale alone.
void launch_ntxent_backward(const ContrastiveJob& job, const NtxentPlan& plan, const float* grad, void* kept,
                            const BackwardResults& results, void* workspace, int device, uintptr_t stream);
// By the emulator, on memory of the host.
void emulate_forward(const ContrastiveJob& job, const ForwardPlan& plan, const ForwardResults& results,
                     void* workspace);
void emulate_backward(const ContrastiveJob& job, const BackwardPlan& plan, const BackwardInputs& inputs,
                      const BackwardResults& results, void* workspace);
void emulate_ntxent(const ContrastiveJob& job, const NtxentPlan& plan, float* loss, void* kept, void* workspace);
void emulate_ntxent_backward(const ContrastiveJob& job, const NtxentPlan& plan, const float* grad, void* kept,
                             const BackwardResults& results, void* workspace);

}  // namespace fastssl::cuda
