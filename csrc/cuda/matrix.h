// The matrix units: products of 16 x 16 by 16 x 8 float16 numbers, and what brings their operands there.
//
// Addresses in shared memory are numbers of 32 bits, as the instructions take them; shared_base() is that of
// grid::shared(). All 32 lanes of a warp call load_matrices() and multiply_add(), together. The layout of fragments is
// PTX's: of A, lane 4 g + t holds rows g and g + 8, columns 2 t and 2 t + 1, and those 8 columns further on; of B, rows 2 t
// and 2 t + 1, and those 8 further on, of column g; of C, rows g and g + 8, columns 2 t and 2 t + 1.
#pragma once

#include <cstdint>
#include <cstring>

#include "../core/cast.h"
#include "grid.h"

#if !defined(__CUDACC__)
#include <cmath>
#endif

namespace fastssl::cuda {
namespace {
namespace grid {

#if defined(__CUDACC__)

FASTSSL_DEVICE uint32_t shared_base() { return uint32_t(__cvta_generic_to_shared(shared())); }

// Begins to copy 16 bytes from global to shared memory, both at multiples of 16, past the registers.
FASTSSL_DEVICE void copy_async(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
// What this thread has begun to copy since the last call is one group.
FASTSSL_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most `kLeft` of this thread's groups are on their way. Other threads see what was copied after a barrier.
template <int kLeft>
FASTSSL_DEVICE void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

// Four matrices of 8 rows of 16 bytes: lane 8 i + r gives the address of row r of matrix i. Each lane gets a register of each:
// lane 4 g + t columns 2 t and 2 t + 1 of row g; transposed, rows 2 t and 2 t + 1 of column g.
FASTSSL_DEVICE void load_matrices(uint32_t (&out)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(row));
}
FASTSSL_DEVICE void load_transposed(uint32_t (&out)[4], uint32_t row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(row));
}
// c += a b
FASTSSL_DEVICE void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two float16, rounded to nearest even, the first in the lower bits.
FASTSSL_DEVICE uint32_t pack_halves(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
FASTSSL_DEVICE float half_value(uint32_t bits) {
  float v;
  asm("{ .reg .b16 h; cvt.u16.u32 h, %1; cvt.f32.f16 %0, h; }" : "=f"(v) : "r"(bits));
  return v;
}
// 2^v, to 2 units of the last place (PTX ISA, ex2.approx.ftz.f32); 0 below 2^-126.
FASTSSL_DEVICE float power_of_two(float v) {
  float p;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(p) : "f"(v));
  return p;
}

#else

FASTSSL_DEVICE uint32_t shared_base() { return emulator::shared_base(); }
FASTSSL_DEVICE void copy_async(uint32_t to, const void* from) { emulator::copy_async(to, from); }
FASTSSL_DEVICE void commit_copies() { emulator::commit_copies(); }
template <int kLeft>
FASTSSL_DEVICE void wait_copies() {
  emulator::wait_copies(kLeft);
}
FASTSSL_DEVICE void load_matrices(uint32_t (&out)[4], uint32_t row) { emulator::load_matrices(row, false, out); }
FASTSSL_DEVICE void load_transposed(uint32_t (&out)[4], uint32_t row) { emulator::load_matrices(row, true, out); }
FASTSSL_DEVICE void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const uint32_t b[2] = {b0, b1};
  emulator::multiply_add(c, a, b);
}
FASTSSL_DEVICE uint32_t half_bits(float v) { return v != v ? 0x7FFFu : core::to_float16(v); }
FASTSSL_DEVICE uint32_t pack_halves(float low, float high) { return half_bits(low) | half_bits(high) << 16; }
FASTSSL_DEVICE float half_value(uint32_t bits) { return emulator::half_value(uint16_t(bits)); }
FASTSSL_DEVICE float power_of_two(float v) {
  const float p = std::exp2(v);
  return p < 0x1p-126f ? 0 : p;
}

#endif

FASTSSL_DEVICE float shuffle_xor(float value, int mask) {
  int32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  bits = shuffle_xor(bits, mask);
  memcpy(&value, &bits, sizeof(bits));
  return value;
}

}  // namespace grid
}  // namespace
}  // namespace fastssl::cuda
