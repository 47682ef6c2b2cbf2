// The emulator's mbarriers, bulk copies and wgmma (wide.h).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

#include "emulator_machine.h"

namespace fastssl::cuda::emulator {

namespace {

constexpr uint32_t kAtom = 1024;  // eight rows of 128 bytes, in which a swizzle stays
constexpr int kGroup = 4 * kWarp;  // a warpgroup
constexpr int kDepth = 16;         // terms of a sum that one instruction adds

[[noreturn]] void wrong(const char* what) { throw std::logic_error(what); }

Fiber& self() { return machine->fibers[size_t(machine->current)]; }

// --- mbarriers and bulk copies ---------------------------------------------------------------------------------------------

Mbarrier& mbarrier_at(uint32_t at) {
  Machine& m = *machine;
  const auto found = m.mbarriers.find(at);
  if (found == m.mbarriers.end()) wrong("no mbarrier was made at this address");
  Mbarrier& barrier = found->second;
  if (barrier.maker != m.current && barrier.made == m.barriers)
    wrong("an mbarrier that another thread made, before a barrier of the block");
  return barrier;
}

void end_phase_if_over(Mbarrier& barrier) {
  if (barrier.left != 0 || barrier.bytes != 0) return;
  ++barrier.phase;
  barrier.left = barrier.count;
}

void deliver(Mbarrier& barrier) {
  for (const Mbarrier::BulkCopy& copy : barrier.copies) {
    std::memcpy(shared_at(copy.to, copy.bytes), copy.from, copy.bytes);
    barrier.bytes -= copy.bytes;
  }
  barrier.copies.clear();
  end_phase_if_over(barrier);
}

void arrive_at(Mbarrier& barrier) {
  if (barrier.left == 0) wrong("more arrivals at an mbarrier than it counts");
  --barrier.left;
  end_phase_if_over(barrier);
}

// --- descriptors -----------------------------------------------------------------------------------------------------------

// PTX ISA, "Matrix Descriptor Format": start address, leading and stride offset, each without its lowest four bits, in bits
// 0 to 13, 16 to 29 and 32 to 45; base offset in 49 to 51; in 62 and 63 the swizzle, 1 for one of 128 bytes.
Described describe(uint64_t bits) {
  constexpr uint64_t kField = 0x3FFF,
                     kUsed = kField | kField << 16 | kField << 32 | uint64_t(7) << 49 | uint64_t(3) << 62;
  if (bits & ~kUsed) wrong("a descriptor of a matrix with bits that mean nothing");
  if (bits >> 62 != 1) wrong("a descriptor of a matrix whose swizzle is not that of 128 bytes");
  if (bits >> 49 & 7) wrong("a descriptor of a matrix with a base offset");
  const auto field = [&](int at) { return uint32_t(bits >> at & kField) << 4; };
  const Described matrix{field(0), field(16), field(32)};
  if (matrix.start % kAtom >= 128) wrong("a matrix that does not begin in the first row of a swizzled atom");
  if (matrix.stride % kAtom != 0) wrong("a stride that is no number of swizzled atoms");
  return matrix;
}

// Where the element is: `along` counts along the sum. With a swizzle of 128 bytes, bits 4 to 6 of an address are exchanged
// with what they differ from its bits 7 to 9 in. Along the sum (K-major), rows of 128 bytes, eight of them an atom,
// `stride` from atom to atom. Across it (MN-major), rows are terms of the sum and hold 64 numbers each, `leading` from 64 to 64.
uint32_t address_of(const Described& matrix, bool transposed, uint32_t row, uint32_t along) {
  const uint32_t at =
      transposed ? matrix.start + row / 64 * matrix.leading + row % 64 * 2 + along / 8 * matrix.stride + along % 8 * 128
                 : matrix.start + row / 8 * matrix.stride + row % 8 * 128 + along * 2;
  return at ^ (at >> 7 & 7) << 4;
}

float element(const Described& matrix, bool transposed, int row, int along) {
  const uint32_t at = address_of(matrix, transposed, uint32_t(row), uint32_t(along));
  uint16_t bits;
  std::memcpy(&bits, shared_at(at & ~15u, 16) + (at & 15), 2);
  return halves()[bits];
}

// The atoms that hold the matrix.
std::vector<uint32_t> atoms_of(const Described& matrix, bool transposed, int rows) {
  std::vector<uint32_t> atoms;
  const auto add = [&](uint32_t row, uint32_t along) {
    atoms.push_back(address_of(matrix, transposed, row, along) & ~(kAtom - 1));
  };
  for (int row = 0; row < rows; row += transposed ? 64 : 8) {
    for (uint32_t along = 0; along < (transposed ? kDepth : 1); along += 8) add(uint32_t(row), along);
  }
  return atoms;
}

bool overlap(uint32_t a, uint32_t a_bytes, uint32_t b, uint32_t b_bytes) { return a < b + b_bytes && b < a + a_bytes; }

void check_not_being_copied(const Described& matrix, bool transposed, int rows) {
  for (const uint32_t atom : atoms_of(matrix, transposed, rows)) {
    shared_at(atom, kAtom);
    for (const auto& [at, barrier] : machine->mbarriers) {
      for (const Mbarrier::BulkCopy& copy : barrier.copies) {
        if (overlap(atom, kAtom, copy.to, copy.bytes)) wrong("products of what is still being copied");
      }
    }
  }
}

void check_not_read(const WideProduct& product, uint32_t to, uint32_t bytes) {
  const auto check = [&](const Described& matrix, bool transposed, int rows) {
    for (const uint32_t atom : atoms_of(matrix, transposed, rows)) {
      if (overlap(atom, kAtom, to, bytes)) wrong("a copy to what products under way still read");
    }
  };
  if (!product.left_in_registers) check(product.left, product.left_transposed, 64);
  check(product.right, product.transposed, product.columns);
}

// Lanes of a warp begin and end products together: one stands for all.
void check_nobody_reads_any(uint32_t to, uint32_t bytes) {
  for (size_t i = 0; i < machine->fibers.size(); i += kWarp) {
    const WideState& wide = machine->fibers[i].wide;
    for (const WideProduct& product : wide.open) check_not_read(product, to, bytes);
    for (const WideProduct& product : wide.committed) check_not_read(product, to, bytes);
  }
}

// --- products --------------------------------------------------------------------------------------------------------------

// All four warps of a group do the same, in the same order.
void check_group(int thread, uint64_t left, uint64_t right) {
  std::vector<std::array<uint64_t, 2>>& products = machine->wide[size_t(thread / kGroup)];
  const size_t number = self().wide.products++;
  const std::array<uint64_t, 2> own{left, right};
  if (number == products.size()) products.push_back(own);
  if (products[number] != own) wrong("the warps of a warpgroup begin different products");
}

// The sums are held apart, and their registers show no number, until they have been waited for.
void hold(WideState& wide, float* sums, int columns) {
  if (wide.sums.count(sums)) return;
  if (!wide.fenced) wrong("products of registers without a fence since they were waited for");
  const auto count = size_t(columns / 2);
  wide.sums[sums].assign(sums, sums + count);
  std::memset(sums, 0xFF, count * sizeof(float));
}

void give_back(WideState& wide) {
  for (const auto& [to, values] : wide.sums) {
    for (size_t i = 0; i < values.size(); ++i) {
      uint32_t bits;
      std::memcpy(&bits, to + i, sizeof(bits));
      if (bits != 0xFFFFFFFFu) wrong("sums that were written before their products had been waited for");
    }
    std::copy(values.begin(), values.end(), to);
  }
  wide.sums.clear();
}

// PTX ISA, "Register Fragments and Shared Memory Matrix Layouts": of 64 rows warp w has 16 w on; lane 4 g + t rows g and
// g + 8, of each 8 columns 2 t and 2 t + 1.
void make(WideState& wide, const WideProduct& product) {
  if (product.left_in_registers && std::memcmp(product.registers, product.given, sizeof(product.given)) != 0)
    wrong("registers of A that were written while products under way still read them");
  const int thread = machine->current, lane = thread % kWarp, first = thread % kGroup / kWarp * 16 + lane / 4;
  std::array<std::array<float, 16>, 2> rows = product.rows;
  for (int r = 0; r < 2 && !product.left_in_registers; ++r) {
    for (int k = 0; k < kDepth; ++k)
      rows[size_t(r)][size_t(k)] = element(product.left, product.left_transposed, first + 8 * r, k);
  }
  std::vector<float>& sums = wide.sums[product.sums];
  for (int j = 0; j < product.columns / 8; ++j) {
    for (int e = 0; e < 2; ++e) {
      float column[kDepth];
      for (int k = 0; k < kDepth; ++k)
        column[k] = element(product.right, product.transposed, 8 * j + lane % 4 * 2 + e, k);
      for (int r = 0; r < 2; ++r) {
        float& to = sums[size_t(4 * j + 2 * r + e)];
        double sum = product.add ? double(to) : 0;
        for (int k = 0; k < kDepth; ++k) sum += double(rows[size_t(r)][size_t(k)]) * double(column[k]);
        to = truncated(sum);
      }
    }
  }
}

}  // namespace

void begin_wide(Machine& m) {
  m.barriers = 0;
  m.mbarriers.clear();
  m.wide.assign(m.fibers.size() / kGroup, {});
  for (Fiber& fiber : m.fibers) {
    fiber.wide = {};
    fiber.unpublished = false;
  }
}

void end_wide(const Machine& m) {
  for (const auto& [at, barrier] : m.mbarriers) {
    if (!barrier.copies.empty()) wrong("a block ends before its copies have been waited for");
  }
  for (const Fiber& fiber : m.fibers) {
    if (fiber.wide.busy()) wrong("a thread ends before its products have been waited for");
  }
}

bool is_over(Machine& m, uint32_t mbarrier, uint32_t phase) {
  Mbarrier& barrier = m.mbarriers.at(mbarrier);
  if (barrier.phase == phase) deliver(barrier);
  return barrier.phase > phase;
}

void report_stall(const Machine& m) {
  for (const Fiber& fiber : m.fibers) {
    if (fiber.state != State::AtPhase) continue;
    const Mbarrier& barrier = m.mbarriers.at(fiber.mbarrier);
    throw std::logic_error("nobody can go on: a thread waits for phase " + std::to_string(fiber.phase) +
                           " of the mbarrier at " + std::to_string(fiber.mbarrier) + ", which lacks " +
                           std::to_string(barrier.left) + " arrivals and " + std::to_string(barrier.bytes) + " bytes");
  }
  wrong("the threads of a block part at a barrier");
}

void make_mbarrier(uint32_t at, uint32_t arrivals) {
  if (at % 8 != 0) wrong("an mbarrier at an address that is no multiple of 8");
  shared_at(at & ~15u, 16);
  if (arrivals == 0) wrong("an mbarrier that counts nothing");
  Mbarrier barrier;
  barrier.count = barrier.left = arrivals;
  barrier.maker = machine->current;
  barrier.made = machine->barriers;
  if (!machine->mbarriers.emplace(at, barrier).second) wrong("an mbarrier where there is one");
}

void arrive(uint32_t mbarrier) { arrive_at(mbarrier_at(mbarrier)); }

void arrive_expecting(uint32_t mbarrier, uint32_t bytes) {
  Mbarrier& barrier = mbarrier_at(mbarrier);
  barrier.bytes += bytes;
  if (barrier.bytes >= 1u << 20) wrong("more bytes than an mbarrier counts");
  arrive_at(barrier);
}

void wait_phase(uint32_t mbarrier, uint32_t phase) {
  Mbarrier& barrier = mbarrier_at(mbarrier);
  if (phase > barrier.phase) wrong("a wait for a phase that has not begun, whose parity is that of the one before");
  if (phase + 1 < barrier.phase) wrong("a wait for a phase whose parity is that of one which is not over");
  if (is_over(*machine, mbarrier, phase)) return;
  self().mbarrier = mbarrier;
  self().phase = phase;
  yield(State::AtPhase);
  if (barrier.phase == phase + 1) return;
  wrong("a phase that was over, and another, before the thread that waited for it went on");
}

void copy_bulk(uint32_t to, const void* from, uint32_t bytes, uint32_t mbarrier) {
  Mbarrier& barrier = mbarrier_at(mbarrier);
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0 || bytes % 16 != 0 || bytes == 0)
    wrong("a bulk copy from an address or of a size that is no multiple of 16");
  uint64_t under_way = bytes;
  for (const Mbarrier::BulkCopy& copy : barrier.copies) under_way += copy.bytes;
  if (under_way > barrier.bytes) wrong("a bulk copy of more bytes than its mbarrier expects");
  for (const auto& [at, other] : machine->mbarriers) {
    for (const Mbarrier::BulkCopy& copy : other.copies) {
      if (overlap(to, bytes, copy.to, copy.bytes)) wrong("a bulk copy to where another one is under way");
    }
  }
  check_nobody_reads_any(to, bytes);
  std::memset(shared_at(to, bytes), 0xFF, bytes);
  barrier.copies.push_back({to, static_cast<const char*>(from), bytes});
}

void check_nobody_reads(uint32_t to) {
  for (size_t i = 0; i < machine->fibers.size(); i += kWarp) {
    if (machine->fibers[i].wide.atoms.test(to / kAtom)) wrong("a copy to what products under way still read");
  }
}

void join_warp() { exchange(nullptr, 0); }

void publish_shared() { self().unpublished = false; }

void fence_products() {
  first_lane();
  self().wide.fenced = true;
}

void commit_products() {
  WideState& wide = self().wide;
  wide.committed.insert(wide.committed.end(), wide.open.begin(), wide.open.end());
  wide.open.clear();
}

// A warp's lanes together: where one goes on, all have their sums.
void wait_products() {
  WideState& wide = self().wide;
  if (!wide.open.empty()) wrong("a wait for products that were not committed");
  yield(State::AtProducts);
  for (const WideProduct& product : wide.committed) make(wide, product);
  wide.committed.clear();
  wide.atoms.reset();
  wide.fenced = false;
  give_back(wide);
  join_warp();
}

void multiply_wide(float* sums, int columns, const uint32_t* left, uint64_t left_matrix, uint64_t right_matrix,
                   bool left_transposed, bool transposed, bool add) {
  const int first = first_lane(), thread = machine->current, lane = thread - first;
  if (thread / kGroup >= int(machine->wide.size())) wrong("a product of a warpgroup that lacks warps");
  for (const Fiber& fiber : machine->fibers) {
    if (fiber.unpublished) wrong("products before what was copied by threads has been published");
  }
  WideState& wide = self().wide;
  WideProduct product{};
  product.sums = sums;
  product.columns = columns;
  product.add = add;
  product.left_transposed = left_transposed;
  product.transposed = transposed;
  product.left_in_registers = left != nullptr;
  product.right = describe(right_matrix);
  if (lane == 0) check_not_being_copied(product.right, transposed, columns);
  uint32_t words[kGiftWords] = {uint32_t(left_matrix),  uint32_t(left_matrix >> 32), 0, 0,
                                uint32_t(right_matrix), uint32_t(right_matrix >> 32)};
  if (left) {
    std::copy_n(left, 4, words);
    std::copy_n(left, 4, product.given);
    product.registers = left;
  } else {
    product.left = describe(left_matrix);
    if (lane == 0) check_not_being_copied(product.left, left_transposed, 64);
  }
  hold(wide, sums, columns);
  const uint32_t slot = exchange(words, kGiftWords);
  const auto given = [&](int from, int word) { return machine->fibers[size_t(first + from)].given[slot].words[word]; };
  for (int word = left ? 4 : 0; word < 6; ++word) {
    if (given(0, word) != words[word]) wrong("the lanes of a warp begin different products");
  }
  check_group(thread, left ? 0 : left_matrix, right_matrix);
  // Of A, lane 4 g + t gives rows g and g + 8, columns 2 t and 2 t + 1, and those 8 columns further on.
  for (int k = 0; left && k < kDepth; ++k) {
    for (int r = 0; r < 2; ++r) {
      const uint32_t pair = given(lane / 4 * 4 + k % 8 / 2, k / 8 * 2 + r);
      product.rows[size_t(r)][size_t(k)] = halves()[pair >> 16 * (k % 2) & 0xFFFFu];
    }
  }
  if (lane == 0) {
    for (const uint32_t atom : atoms_of(product.right, transposed, columns)) wide.atoms.set(atom / kAtom);
    if (left == nullptr)
      for (const uint32_t atom : atoms_of(product.left, left_transposed, 64)) wide.atoms.set(atom / kAtom);
  }
  wide.open.push_back(product);
}

}  // namespace fastssl::cuda::emulator
