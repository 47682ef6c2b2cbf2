// Draws masks on the CPU.
#pragma once

#include "../core/mask_jobs.h"

namespace fastssl::cpu {

// On at most `threads` threads, fewer where waking them would cost more than they save.
void draw_masks(const core::MaskJob& job, int threads);

// The least number of bytes that are not 0 in a row of mask (rows, length); 0 without rows.
int64_t least_set(const uint8_t* mask, int64_t rows, int64_t length);

}  // namespace fastssl::cpu
