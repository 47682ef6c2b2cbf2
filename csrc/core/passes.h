// How a view is made: a program as a list of passes, the same for every executor.
//
// A pass takes pixels from somewhere (the resampled crop, the image, a frame in memory, a frame blurred or rotated), through as
// many operations as it can, to a frame or to the output. Two things end a pass, because they need more than the pixels at
// hand: contrast needs the mean of all that came before it, and blur needs the pixels around. Usually there are two or three.
#pragma once

#include <cstdint>

#include "program.h"

namespace fastssl::core {

enum class From : int8_t { Crop, Image, Memory, Blurred, Rotated };

struct Pass {
  From from = From::Crop;
  bool source = false;  // over the source's pixels, before the crop; else over the view's
  bool sums = false;  // the luma of what it makes, for the contrast of the pass after it
  int8_t begin = 0, end = 0;  // of the actions: Program::before where `source`, else Program::after
  int8_t reads = -1,
         writes = -1;  // frames, 0 or 1, of the source's or the view's size; -1: none; writes -1: the output
};

// Before the crop one, contrast, three blurs; the crop, a turn or rotation. Jitter and blur are on one side of the crop alone.
constexpr int kMaxPasses = 8;

struct Passes {
  Pass list[kMaxPasses];
  int32_t count = 0;
};

// Appends the passes that begin `from` and go through `actions`, to the output or to a frame, whose number is returned. `held`
// is the frame that holds the picture.
inline int8_t add_passes(const Actions& actions, From from, bool source, int8_t held, bool to_output, Passes& to) {
  bool mean_known = false;
  for (int at = 0;;) {
    Pass pass;
    pass.from = from;
    pass.source = source;
    pass.begin = int8_t(at);
    while (at < actions.count && actions.list[at].op != Op::Blur &&
           (actions.list[at].op != Op::Contrast || mean_known)) {
      mean_known = false;
      ++at;
    }
    pass.end = int8_t(at);
    const bool last = at == actions.count;
    pass.sums = !last && actions.list[at].op == Op::Contrast;
    pass.reads = from == From::Crop || from == From::Image ? int8_t(-1) : held;
    if (from == From::Blurred || from == From::Rotated) held = int8_t(1 - held);
    pass.writes = last && to_output ? int8_t(-1) : held;
    if (to.count == kMaxPasses) refuse("the recipe's steps need more passes than a view may take");
    to.list[to.count++] = pass;
    if (last) return held;
    mean_known = pass.sums;
    from = pass.sums ? From::Memory : From::Blurred;
    if (!pass.sums) ++at;  // the blur itself
  }
}

// A crop from a frame reads source frame `reads`. One that is turned or rotated goes to a frame first, untouched.
inline Passes list_passes(const Program& program) {
  Passes out;
  if (!program.cropped) {
    add_passes(program.after, From::Image, false, 0, true, out);
    return out;
  }
  int8_t source = -1;
  if (program.before.count > 0) source = add_passes(program.before, From::Image, true, 0, false, out);
  const int first = out.count;
  From from = From::Crop;
  if (program.transposed || program.rotated) {
    out.list[out.count++].writes = 0;
    from = program.rotated ? From::Rotated : From::Memory;
  }
  add_passes(program.after, from, false, 0, true, out);
  out.list[first].reads = source;
  return out;
}

}  // namespace fastssl::core
