// What a block is while it runs, as the files of the emulator share it; no kernel includes it.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <array>
#include <bitset>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <vector>

#include "emulator.h"

namespace fastssl::cuda::emulator {

enum class State { Ready, AtBarrier, AtShuffle, AtPhase, AtProducts, Ended };

// What a lane gives to the others of its warp.
struct Gift {
  uint32_t words[kGiftWords] = {};
};

// A copy to shared memory that has been asked for and not waited for.
struct Copy {
  char* to;
  const char* from;
};

// An mbarrier, and the bulk copies that will tell it of their bytes.
struct Mbarrier {
  struct BulkCopy {
    uint32_t to;
    const char* from;
    uint32_t bytes;
  };
  uint32_t count = 0, left = 0;  // arrivals of a phase, and those that are still to come
  uint32_t phase = 0;
  uint64_t bytes = 0;  // that the phase still waits for
  std::vector<BulkCopy> copies;
  int maker = 0;  // the thread that made it, and how many barriers the block had passed by then
  int64_t made = 0;
};

// A matrix that a descriptor describes: its bytes in atoms of 1024.
struct Described {
  uint32_t start = 0, leading = 0, stride = 0;
};

// One wgmma of a thread that has not been waited for.
struct WideProduct {
  float* sums;
  int columns;
  bool add, left_transposed, transposed;
  bool left_in_registers;
  Described left, right;
  const uint32_t* registers;  // of A, which must stay as they were
  uint32_t given[4];
  std::array<std::array<float, 16>, 2> rows;  // of A, where it came from registers
};
struct WideState {
  std::vector<WideProduct> open, committed;
  std::bitset<256> atoms;  // of 1024 bytes of shared memory, that these read; of a warp's first lane
  std::map<float*, std::vector<float>> sums;  // what they are, of registers that show no number meanwhile
  bool fenced = false;
  size_t products = 0;  // that this thread has begun in this block

  bool busy() const { return !open.empty() || !committed.empty(); }
};

struct Fiber {
  ucontext_t context;
  jmp_buf resumed;  // where it left off, once it has begun
  bool begun = false;
  bool unpublished = false;  // has copied to shared memory what products do not see yet
  char* stack = nullptr;
  State state = State::Ready;
  Gift given[2];  // to the last two exchanges: a lane may be one ahead of another
  uint32_t exchanges = 0;
  std::vector<std::vector<Copy>> groups;  // committed
  std::vector<Copy> open;
  uint32_t mbarrier = 0, phase = 0;  // that it waits for, AtPhase
  WideState wide;
  void* fake_stack = nullptr;
};

struct Machine {
  std::vector<Fiber> fibers;
  std::exception_ptr error;  // of the body
  char* shared = nullptr;
  int shared_bytes = 0;
  const std::function<void()>* body = nullptr;  // null: fibers come to their end
  ucontext_t scheduler;
  jmp_buf scheduler_left;
  void* fake_stack = nullptr;
  const void* stack = nullptr;
  size_t stack_size = 0;
  int current = 0;
  int64_t block = 0;
  int64_t barriers = 0;  // that the block has passed
  std::map<uint32_t, Mbarrier> mbarriers;  // by address
  std::vector<std::vector<std::array<uint64_t, 2>>> wide;  // descriptors of each warpgroup's products, in order
};

extern thread_local Machine* machine;

// Back to the scheduler, until it resumes this fiber.
void yield(State state);
// Gives these words to the other lanes of the warp. Returns in which slot of each of them theirs are, when all have come.
uint32_t exchange(const uint32_t* words, int count);
// A whole warp, as the instructions for matrices need it: the number of its first lane.
int first_lane();
char* shared_at(uint32_t address, uint32_t bytes);
// The value towards zero that has a float's 24 bits.
float truncated(double v);
// All float16 as floats.
const float* halves();

// Whether a phase that somebody waits for is over, now that copies arrive; and what is waited for where nobody can go on.
bool is_over(Machine& m, uint32_t mbarrier, uint32_t phase);
[[noreturn]] void report_stall(const Machine& m);
// Before a block, and after it, when nothing may be under way.
void begin_wide(Machine& m);
// Before a thread copies 16 bytes there.
void check_nobody_reads(uint32_t to);
void end_wide(const Machine& m);

}  // namespace fastssl::cuda::emulator
