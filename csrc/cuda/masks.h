// Draws masks by kernels, the same bits as cpu/masks.h. See masks_kernel.h.
#pragma once

#include "../core/mask_jobs.h"

namespace fastssl::cuda {

// Bytes of CellsJob::scratch and TokensJob::scratch that a sample of `cells` cells needs; 0 where shared memory holds them.
int64_t rank_scratch(int32_t cells);
// The same of BlocksJob::scratch and MultiBlockJob::scratch.
int64_t bits_scratch(int32_t rows, int32_t columns);

// On a stream of a GPU, which has all of the job's memory; returns at once. Throws std::runtime_error.
void draw_masks(const core::MaskJob& job, int device, uintptr_t stream);
// By the emulator, on memory of the host.
void draw_masks_emulated(const core::MaskJob& job);

}  // namespace fastssl::cuda
