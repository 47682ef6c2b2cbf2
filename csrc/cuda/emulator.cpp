#include "emulator.h"

#include <ucontext.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <vector>

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

namespace {

constexpr size_t kStack = 64 * 1024;

enum class State { Running, AtBarrier, AtShuffle, Ended };

struct Fiber {
  ucontext_t context;
  char* stack = nullptr;
  State state = State::Running;
  int32_t given[2] = {};  // to the last two shuffles: a lane may be one ahead of another
  uint32_t shuffles = 0;
  void* fake_stack = nullptr;
};

struct Machine {
  std::vector<Fiber> fibers;
  std::exception_ptr error;  // of the body
  char* shared = nullptr;
  int shared_bytes = 0;
  const std::function<void()>* body = nullptr;  // null: fibers come to their end
  ucontext_t scheduler;
  void* fake_stack = nullptr;
  const void* stack = nullptr;
  size_t stack_size = 0;
  int current = 0;
  int64_t block = 0;
};

thread_local Machine* machine = nullptr;
thread_local Order order = Order::Forward;
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

// Back to the scheduler, until it resumes this fiber.
void yield(State state) {
  Machine& m = *machine;
  Fiber& fiber = m.fibers[size_t(m.current)];
  fiber.state = state;
  before_switch(&fiber.fake_stack, m.stack, m.stack_size);
  swapcontext(&fiber.context, &m.scheduler);
  after_switch(fiber.fake_stack, nullptr, nullptr);
}

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
  swapcontext(&fiber.context, &m.scheduler);
}

void resume(Machine& m, int i) {
  Fiber& fiber = m.fibers[size_t(i)];
  m.current = i;
  fiber.state = State::Running;
  before_switch(&m.fake_stack, fiber.stack, kStack);
  swapcontext(&m.scheduler, &fiber.context);
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

// A warp until all its lanes are at a barrier or have ended.
void run_warp(Machine& m, int from, int to) {
  for (;;) {
    for (int i = from; i < to; ++i) resume(m, order == Order::Backward ? from + to - 1 - i : i);
    if (all_at(m, from, to, State::AtBarrier) || all_at(m, from, to, State::Ended)) return;
    if (!all_at(m, from, to, State::AtShuffle))
      throw std::logic_error("the lanes of a warp part at a shuffle or barrier");
  }
}

void run_block(Machine& m, int threads) {
  std::memset(m.shared, 0xFF, size_t(m.shared_bytes));
  for (Fiber& fiber : m.fibers) fiber.shuffles = 0;
  const std::vector<int> warps = warps_in_order((threads + kWarp - 1) / kWarp, m.block);
  do {
    for (const int warp : warps) run_warp(m, warp * kWarp, std::min(threads, (warp + 1) * kWarp));
    if (!all_at(m, 0, threads, State::AtBarrier) && !all_at(m, 0, threads, State::Ended))
      throw std::logic_error("the threads of a block part at a barrier");
  } while (m.fibers[0].state != State::Ended);
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

int thread() { return machine->current; }
int64_t block() { return machine->block; }
void barrier() { yield(State::AtBarrier); }
char* shared() { return machine->shared; }

int32_t shuffle_xor(int32_t value, int mask) {
  Machine& m = *machine;
  const int self = m.current;
  if ((self ^ mask) >= int(m.fibers.size()) || self / kWarp != (self ^ mask) / kWarp)
    throw std::logic_error("a shuffle with a lane that is not there");
  Fiber& fiber = m.fibers[size_t(self)];
  const uint32_t slot = fiber.shuffles++ & 1;
  fiber.given[slot] = value;
  yield(State::AtShuffle);
  return m.fibers[size_t(self ^ mask)].given[slot];
}

}  // namespace fastssl::cuda::emulator
