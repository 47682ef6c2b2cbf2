// Some systems ask for checks by default, which take a jump from stack to stack for an error.
#undef _FORTIFY_SOURCE

#include "emulator_machine.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>

#if defined(__SANITIZE_ADDRESS__)
#define FASTSSL_FIBER_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FASTSSL_FIBER_SANITIZER 1
#endif
#endif
#if defined(FASTSSL_FIBER_SANITIZER)
#include <sanitizer/common_interface_defs.h>
#endif

namespace fastssl::cuda::emulator {

thread_local Machine* machine = nullptr;

namespace {

constexpr size_t kStack = 64 * 1024;

thread_local Order order = Order::Forward;
thread_local uint32_t base = 0;  // of shared memory
// Kept for later launches: memory that is new to the process costs more than what runs on it.
thread_local std::vector<std::unique_ptr<char[]>> stacks;

// Annotated, so that the address sanitizer knows whose stack it is on.
void before_switch([[maybe_unused]] void** keep, [[maybe_unused]] const void* stack, [[maybe_unused]] size_t size) {
#if defined(FASTSSL_FIBER_SANITIZER)
  __sanitizer_start_switch_fiber(keep, stack, size);
#endif
}
void after_switch([[maybe_unused]] void* kept, [[maybe_unused]] const void** stack, [[maybe_unused]] size_t* size) {
#if defined(FASTSSL_FIBER_SANITIZER)
  __sanitizer_finish_switch_fiber(kept, stack, size);
#endif
}

// Once begun, fibers are left and resumed by jumps: swapcontext() asks the kernel about signals each time, which takes ten times
// as long as what runs between two matrix instructions.
#if defined(FASTSSL_FIBER_SANITIZER)
constexpr bool kJumps = false;  // the sanitizer takes a jump for the end of the frames that it leaves
#else
constexpr bool kJumps = true;
#endif

void to_scheduler(Machine& m, Fiber& fiber) {
  if constexpr (kJumps) {
    if (_setjmp(fiber.resumed) == 0) _longjmp(m.scheduler_left, 1);
  } else {
    swapcontext(&fiber.context, &m.scheduler);
  }
}

void to_fiber(Machine& m, Fiber& fiber) {
  if constexpr (kJumps) {
    if (_setjmp(m.scheduler_left) != 0) return;
    if (fiber.begun) _longjmp(fiber.resumed, 1);
    fiber.begun = true;
    setcontext(&fiber.context);
  } else {
    swapcontext(&m.scheduler, &fiber.context);
  }
}

}  // namespace

void yield(State state) {
  Machine& m = *machine;
  Fiber& fiber = m.fibers[size_t(m.current)];
  fiber.state = state;
  before_switch(&fiber.fake_stack, m.stack, m.stack_size);
  to_scheduler(m, fiber);
  after_switch(fiber.fake_stack, nullptr, nullptr);
}

namespace {

// A thread of every block.
void fiber_main() {
  Machine& m = *machine;
  after_switch(nullptr, &m.stack, &m.stack_size);
  while (m.body) {
    try {
      (*m.body)();
    } catch (...) {
      m.error = std::current_exception();
    }
    yield(State::Ended);
  }
  Fiber& fiber = m.fibers[size_t(m.current)];
  before_switch(nullptr, m.stack, m.stack_size);  // null: its fake stack is given back
  to_scheduler(m, fiber);
}

void resume(Machine& m, int i) {
  Fiber& fiber = m.fibers[size_t(i)];
  m.current = i;
  before_switch(&m.fake_stack, fiber.stack, kStack);
  to_fiber(m, fiber);
  after_switch(m.fake_stack, nullptr, nullptr);
  if (m.error) std::rethrow_exception(m.error);
}

void prepare(Fiber& fiber, size_t i) {
  if (i == stacks.size()) stacks.emplace_back(new char[kStack]);
  fiber.stack = stacks[i].get();
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = kStack;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, fiber_main, 0);
}

// Whether all of [from, to) are at `state`.
bool all_at(const Machine& m, int from, int to, State state) {
  return std::all_of(m.fibers.begin() + from, m.fibers.begin() + to, [=](const Fiber& f) { return f.state == state; });
}

std::vector<int> warps_in_order(int count, int64_t block) {
  std::vector<int> warps(size_t(count), 0);
  for (int i = 0; i < count; ++i) warps[size_t(i)] = i;
  if (order == Order::Backward) std::reverse(warps.begin(), warps.end());
  uint64_t random = uint64_t(block) * 0x9E3779B97F4A7C15u + 1;
  for (int i = count - 1; order == Order::Shuffled && i > 0; --i) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    std::swap(warps[size_t(i)], warps[size_t((random >> 33) % uint64_t(i + 1))]);
  }
  return warps;
}

void release(Machine& m, int from, int to) {
  for (int i = from; i < to; ++i) m.fibers[size_t(i)].state = State::Ready;
}

bool can_go_on(Machine& m, const Fiber& fiber) {
  return fiber.state == State::Ready || (fiber.state == State::AtPhase && is_over(m, fiber.mbarrier, fiber.phase));
}

// A warp until none of its lanes can go on. Returns whether any could. One that waits for products lets the others run first,
// so that these are made as late as may be.
bool run_warp(Machine& m, int from, int to) {
  if (all_at(m, from, to, State::AtProducts)) release(m, from, to);
  for (bool went = false;; went = true) {
    bool goes = false, waits = false;
    for (int i = from; i < to; ++i) {
      const int lane = order == Order::Backward ? from + to - 1 - i : i;
      if (!can_go_on(m, m.fibers[size_t(lane)])) continue;
      goes = true;
      resume(m, lane);
    }
    for (int i = from; i < to; ++i) {
      const State state = m.fibers[size_t(i)].state;
      waits = waits || state == State::AtPhase || state == State::AtProducts;
    }
    if (all_at(m, from, to, State::AtShuffle)) {
      release(m, from, to);
    } else if (!goes) {
      return went;
    } else if (!waits && !all_at(m, from, to, State::AtBarrier) && !all_at(m, from, to, State::Ended)) {
      throw std::logic_error("the lanes of a warp part at a shuffle or barrier");
    }
  }
}

// Warps go round while some of them wait for an mbarrier.
void run_block(Machine& m, int threads) {
  std::memset(m.shared, 0xFF, size_t(m.shared_bytes));
  for (Fiber& fiber : m.fibers) {
    fiber.exchanges = 0;
    fiber.groups.clear();
    fiber.open.clear();
  }
  begin_wide(m);
  release(m, 0, threads);
  const std::vector<int> warps = warps_in_order((threads + kWarp - 1) / kWarp, m.block);
  while (!all_at(m, 0, threads, State::Ended)) {
    bool went = false;
    for (const int warp : warps) went = run_warp(m, warp * kWarp, std::min(threads, (warp + 1) * kWarp)) || went;
    if (all_at(m, 0, threads, State::AtBarrier)) {
      ++m.barriers;
      release(m, 0, threads);
    } else if (!went) {
      report_stall(m);
    }
  }
  end_wide(m);
}

}  // namespace

void run(int64_t blocks, int threads, int shared_bytes, const std::function<void()>& body) {
  if (machine) throw std::logic_error("a kernel launches a kernel");
  Machine m;
  m.fibers.resize(size_t(threads));
  // Aligned as a GPU's, and no longer than asked for, so that the sanitizer sees its end.
  struct Free {
    void operator()(char* p) const { ::operator delete[](p, std::align_val_t(16)); }
  };
  const std::unique_ptr<char[], Free> memory(
      static_cast<char*>(::operator new[](size_t(shared_bytes), std::align_val_t(16))));
  m.shared = memory.get();
  m.shared_bytes = shared_bytes;
  m.body = &body;
  struct Leave {
    ~Leave() {
      machine = nullptr;
      if (m.body) stacks.clear();  // left in the middle, as the address sanitizer knows
    }
    const Machine& m;
  } const leave{m};
  machine = &m;
  for (size_t i = 0; i < m.fibers.size(); ++i) prepare(m.fibers[i], i);
  for (int64_t i = 0; i < blocks; ++i) {
    m.block = order == Order::Backward ? blocks - 1 - i : i;
    run_block(m, threads);
  }
  m.body = nullptr;
  for (int i = 0; i < threads; ++i) resume(m, i);
}

void set_order(Order to) { order = to; }
void set_shared_base(uint32_t to) { base = to; }

int thread() { return machine->current; }
int64_t block() { return machine->block; }
void barrier() { yield(State::AtBarrier); }
char* shared() { return machine->shared; }
uint32_t shared_base() { return base; }

uint32_t exchange(const uint32_t* words, int count) {
  Machine& m = *machine;
  Fiber& fiber = m.fibers[size_t(m.current)];
  const uint32_t slot = fiber.exchanges++ & 1;
  std::copy_n(words, count, fiber.given[slot].words);
  yield(State::AtShuffle);
  return slot;
}

int first_lane() {
  const int first = machine->current / kWarp * kWarp;
  if (first + kWarp > int(machine->fibers.size()))
    throw std::logic_error("a matrix instruction in a warp that lacks lanes");
  return first;
}

char* shared_at(uint32_t address, uint32_t bytes) {
  if (address % 16 != 0) throw std::logic_error("an address in shared memory that is no multiple of 16");
  if (address < base || address - base + uint64_t(bytes) > uint64_t(machine->shared_bytes))
    throw std::logic_error("beyond the block's shared memory");
  return machine->shared + (address - base);
}

// The value towards zero that has a float's 24 bits, as the matrix units of GPUs round (Fasi et al., PeerJ Computer Science
// 7:e330, 2021, table 3).
float truncated(double v) {
  const auto f = float(v);
  return std::fabs(double(f)) > std::fabs(v) ? std::nextafter(f, 0.0f) : f;
}

const float* halves() {
  static const std::vector<float> table = [] {
    std::vector<float> values(1 << 16);
    for (uint32_t i = 0; i < values.size(); ++i) {
      const int exponent = int(i >> 10 & 31), fraction = int(i & 1023);
      float v = exponent ? std::ldexp(float(1024 + fraction), exponent - 25) : std::ldexp(float(fraction), -24);
      if (exponent == 31)
        v = fraction ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
      values[i] = i >> 15 ? -v : v;
    }
    return values;
  }();
  return table.data();
}

int32_t shuffle_xor(int32_t value, int mask) {
  Machine& m = *machine;
  const int self = m.current;
  if ((self ^ mask) >= int(m.fibers.size()) || self / kWarp != (self ^ mask) / kWarp)
    throw std::logic_error("a shuffle with a lane that is not there");
  const auto word = uint32_t(value);
  const uint32_t slot = exchange(&word, 1);
  return int32_t(m.fibers[size_t(self ^ mask)].given[slot].words[0]);
}

void copy_async(uint32_t to, const void* from) {
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0)
    throw std::logic_error("a copy from an address that is no multiple of 16");
  char* const memory = shared_at(to, 16);
  check_nobody_reads(to);
  std::memset(memory, 0xFF, 16);  // nobody may still read what was there
  machine->fibers[size_t(machine->current)].open.push_back({memory, static_cast<const char*>(from)});
}

void commit_copies() {
  Fiber& fiber = machine->fibers[size_t(machine->current)];
  fiber.groups.push_back(std::move(fiber.open));
  fiber.open.clear();
}

void wait_copies(int left) {
  std::vector<std::vector<Copy>>& groups = machine->fibers[size_t(machine->current)].groups;
  while (int(groups.size()) > left) {
    machine->fibers[size_t(machine->current)].unpublished |= !groups.front().empty();
    for (const Copy& copy : groups.front()) std::memcpy(copy.to, copy.from, 16);
    groups.erase(groups.begin());
  }
}

void load_matrices(uint32_t row, bool transposed, uint32_t out[4]) {
  const int first = first_lane(), lane = machine->current - first;
  shared_at(row, 16);
  const uint32_t slot = exchange(&row, 1);
  for (int i = 0; i < 4; ++i) {
    uint32_t rows[8], banks = 0;
    for (int r = 0; r < 8; ++r) {
      rows[r] = machine->fibers[size_t(first + 8 * i + r)].given[slot].words[0];
      banks |= 1u << rows[r] / 16 % 8;
    }
    if (banks != 0xFF) throw std::logic_error("rows of a matrix that share banks");
    uint16_t pair[2];
    for (int j = 0; j < 2; ++j) {
      const int r = transposed ? 2 * (lane % 4) + j : lane / 4, column = transposed ? lane / 4 : 2 * (lane % 4) + j;
      std::memcpy(&pair[j], machine->shared + (rows[r] - base) + 2 * column, 2);
    }
    out[i] = pair[0] | uint32_t(pair[1]) << 16;
  }
}

float half_value(uint16_t bits) { return halves()[bits]; }

void multiply_add(float c[4], const uint32_t a[4], const uint32_t b[2]) {
  const int first = first_lane(), lane = machine->current - first, group = lane / 4, within = lane % 4;
  const uint32_t words[] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  const uint32_t slot = exchange(words, 6);
  const float* const value = halves();
  const auto given = [&](int from, int word, int half) {
    return value[machine->fibers[size_t(first + from)].given[slot].words[word] >> 16 * half & 0xFFFFu];
  };
  // PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type": of A, lane 4 g + t holds rows g and g + 8, columns
  // 2 t and 2 t + 1, and those 8 further on; of B, rows 2 t and 2 t + 1 and those 8 further on, column g; of C, rows g and
  // g + 8, columns 2 t and 2 t + 1.
  float left[2][16], right[2][16];
  for (int k = 0; k < 16; ++k) {
    const int from = k % 8 / 2, half = k % 2, far = k / 8;
    for (int r = 0; r < 2; ++r) left[r][k] = given(4 * group + from, 2 * far + r, half);
    for (int n = 0; n < 2; ++n) right[n][k] = given(4 * (2 * within + n) + from, 4 + far, half);
  }
  for (int r = 0; r < 2; ++r) {
    for (int n = 0; n < 2; ++n) {
      double sum = double(c[2 * r + n]);
      for (int k = 0; k < 16; ++k) sum += double(left[r][k]) * double(right[n][k]);
      c[2 * r + n] = truncated(sum);
    }
  }
}

}  // namespace fastssl::cuda::emulator
