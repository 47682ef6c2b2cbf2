// The CUDA build of contrastive_launch.h, in files that compile side by side.
#pragma once

#include <cuda_runtime.h>

#include "contrastive.h"

namespace fastssl::cuda {

bool has_wide();  // whether what is called wide here is built

void forward_halves(const ContrastiveJob&, const ForwardPlan&, const ForwardResults&, void* workspace, cudaStream_t);
void forward_split(const ContrastiveJob&, const ForwardPlan&, const ForwardResults&, void* workspace, cudaStream_t);
void forward_wide(const ContrastiveJob&, const ForwardPlan&, const ForwardResults&, void* workspace, cudaStream_t);
void backward_halves(const ContrastiveJob&, const BackwardPlan&, const BackwardInputs&, const BackwardResults&,
                     void* workspace, cudaStream_t);
void backward_split(const ContrastiveJob&, const BackwardPlan&, const BackwardInputs&, const BackwardResults&,
                    void* workspace, cudaStream_t);
void backward_wide(const ContrastiveJob&, const BackwardPlan&, const BackwardInputs&, const BackwardResults&,
                   void* workspace, cudaStream_t);
void backward_wide_panels(const ContrastiveJob&, const BackwardPlan&, const BackwardInputs&, const BackwardResults&,
                          void* workspace, cudaStream_t);
void ntxent_halves(const ContrastiveJob&, const NtxentPlan&, float* loss, void* kept, void* workspace, cudaStream_t);
void ntxent_split(const ContrastiveJob&, const NtxentPlan&, float* loss, void* kept, void* workspace, cudaStream_t);
void ntxent_wide(const ContrastiveJob&, const NtxentPlan&, float* loss, void* kept, void* workspace, cudaStream_t);
void ntxent_backward_halves(const ContrastiveJob&, const NtxentPlan&, const float* grad, void* kept,
                            const BackwardResults&, void* workspace, cudaStream_t);
void ntxent_backward_split(const ContrastiveJob&, const NtxentPlan&, const float* grad, void* kept,
                           const BackwardResults&, void* workspace, cudaStream_t);
void ntxent_backward_wide(const ContrastiveJob&, const NtxentPlan&, const float* grad, void* kept,
                          const BackwardResults&, void* workspace, cudaStream_t);
void ntxent_backward_wide_panels(const ContrastiveJob&, const NtxentPlan&, const float* grad, void* kept,
                                 const BackwardResults&, void* workspace, cudaStream_t);

}  // namespace fastssl::cuda
