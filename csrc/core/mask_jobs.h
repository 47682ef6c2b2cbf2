// What an executor is asked for: masks of a whole batch.
//
// Results are one sample after the other; masks are one byte a cell, 0 or 1. `scratch` is for kernels alone, and only where a
// sample's cells do not fit into a block's shared memory: rank_scratch() or bits_scratch() of cuda/masks.h for each sample.
#pragma once

#include <variant>

#include "masks.h"

namespace fastssl::core {

// Masks all cells but the first `kept` of a random order: out is (samples, rows * side, columns * side).
struct CellsJob {
  MaskKeys keys;
  CellGrid grid;
  int32_t kept = 0;
  uint8_t* out = nullptr;
  uint64_t* scratch = nullptr;
};
// The tokens of the cells in random order: the first `kept` cells' behind the `prefix` tokens, (samples, prefix + kept * side^2),
// and the others', (samples, (cells - kept) * side^2). Patch i is token prefix + i.
struct TokensJob {
  MaskKeys keys;
  CellGrid grid;
  int32_t kept = 0, prefix = 0;
  int64_t *keep = nullptr, *masked = nullptr;
  uint64_t* scratch = nullptr;
};
// out is (samples, length).
struct PrefixJob {
  MaskKeys keys;
  int32_t length = 0, low = 0, high = 0;
  uint8_t* out = nullptr;
};
// out is (samples, rows, columns): `inside` where visible, else its contrary.
struct InverseBlockJob {
  MaskKeys keys;
  InverseBlockRules rules;
  bool inside = false;
  uint8_t* out = nullptr;
};
// out and, for an exact share, order are (samples).
struct CountsJob {
  MaskKeys keys;
  CountRules rules;
  int64_t *out = nullptr, *order = nullptr;
};
// counts is (samples), out (samples, rows, columns).
struct BlocksJob {
  MaskKeys keys;
  BlockRules rules;
  const int64_t* counts = nullptr;
  uint8_t* out = nullptr;
  uint32_t* scratch = nullptr;
};
// contexts is (samples, contexts, rows, columns), targets (samples, targets, rows, columns).
struct MultiBlockJob {
  MaskKeys keys;
  MultiBlockRules rules;
  uint8_t *contexts = nullptr, *targets = nullptr;
  uint32_t* scratch = nullptr;
};
// Of each row of mask (rows, length) the places that are set, then those that are not, both in ascending order: the first `count`
// behind the `prefix` tokens, (rows, prefix + count), and the others, (rows, length - count), which may be left out. Set is every
// byte but 0: the mask is the caller's, and a bool tensor that is a view of bytes holds any.
struct PartitionJob {
  const uint8_t* mask = nullptr;
  int64_t rows = 0;
  int32_t length = 0, count = 0, prefix = 0;
  int64_t *first = nullptr, *rest = nullptr;
};

using MaskJob =
    std::variant<CellsJob, TokensJob, PrefixJob, InverseBlockJob, CountsJob, BlocksJob, MultiBlockJob, PartitionJob>;

}  // namespace fastssl::core
