// The matrix units as four warps drive them (wgmma), the engine that copies whole blocks, and the mbarriers that both need.
//
// Of compute capability 9.0 alone. Addresses in shared memory are numbers of 32 bits, as in matrix.h.
//
// Note [Wide products]
//     A warpgroup, four warps of which the first has a number divisible by four, multiplies 64 rows of A with 64 or 128
//     columns of B, 16 terms of each sum at a time, and goes on while the units work: between the first multiply_*() and
//     wait_products() nobody may touch the sums, A where it is in registers, or the matrices in shared memory. Before the
//     first, fence_products(); behind the last, commit_products(). Of the 64 rows warp w has 16 w on, and a lane has of each 8
//     columns what it has of a fragment of C in matrix.h.
//     Matrices lie in blocks of rows of 128 bytes, 64 numbers, the 16 bytes `unit` of row r in place unit ^ (r % 8): the
//     layout of contrastive_tile.h, which is that of a swizzle of 128 bytes. A block begins at a multiple of 1024. A
//     descriptor holds, without their lowest four bits, where the matrix begins and two distances; 1 in its highest two bits
//     says the swizzle. Rows of A or B that lie along the sum (K-major): from eight rows to the next eight 1024 bytes, the
//     other distance means nothing; 16 terms on, in the same 128 bytes, it begins 32 bytes further. Rows of B that are terms
//     of the sum (MN-major): from eight of them to the next eight 1024 bytes, from 64 columns to the next 64 the size of a
//     block; 16 terms on it begins 2048 bytes further. (PTX ISA, "Asynchronous Warpgroup Level Matrix Shared Memory Layout".)
//     An mbarrier counts arrivals and bytes. When all have come its phase is over, and the next begins; a wait tells a phase
//     from the ones beside it alone, by its parity. Phases are counted from 0 here, so that the emulator sees more.
#pragma once

#include "matrix.h"

namespace fastssl::cuda {
namespace {
namespace grid {

FASTSSL_DEVICE uint64_t descriptor(uint32_t at, uint32_t leading) {
  constexpr uint32_t kEightRows = 1024;
  return uint64_t(at >> 4 & 0x3FFFu) | uint64_t(leading >> 4) << 16 | uint64_t(kEightRows >> 4) << 32 |
         uint64_t(1) << 62;
}
// Rows along the sum.
FASTSSL_DEVICE uint64_t matrix_along(uint32_t at) { return descriptor(at, 16); }
// Rows across it; `block`: bytes from 64 columns to the next 64.
FASTSSL_DEVICE uint64_t matrix_across(uint32_t at, uint32_t block) { return descriptor(at, block); }

#if defined(__CUDACC__)

FASTSSL_DEVICE void make_mbarrier(uint32_t at, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(arrivals) : "memory");
}
// By the thread that made mbarriers, before the barrier behind which others use them; the copying engine sees them then, too.
FASTSSL_DEVICE void publish_mbarriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
FASTSSL_DEVICE void arrive(uint32_t mbarrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(mbarrier) : "memory");
}
// And adds to what the phase waits for; before the copies that bring it.
FASTSSL_DEVICE void arrive_expecting(uint32_t mbarrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(mbarrier), "r"(bytes) : "memory");
}
// Until that phase is over; what was stored before the arrivals, and what was copied, is seen then.
FASTSSL_DEVICE void wait_phase(uint32_t mbarrier, uint32_t phase) {
  asm volatile(
      "{\n"
      ".reg .pred over;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
      "@!over bra again;\n"
      "}" ::"r"(mbarrier),
      "r"(phase & 1)
      : "memory");
}
// Begins to copy from global to shared memory, both at multiples of 16, a multiple of 16 bytes.
FASTSSL_DEVICE void copy_bulk(uint32_t to, const void* from, uint32_t bytes, uint32_t mbarrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "l"(from), "r"(bytes), "r"(mbarrier)
               : "memory");
}
// What a warp's lanes have stored is seen by whom the next arrival of one of them lets go on.
FASTSSL_DEVICE void join_warp() { __syncwarp(); }

// The compiler keeps what it does with these registers on this side of the call.
template <int kCount>
FASTSSL_DEVICE void pin(float (&registers)[kCount]) {
  FASTSSL_UNROLL_ALL
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}
template <int kCount>
FASTSSL_DEVICE void pin(uint32_t (&registers)[kCount]) {
  FASTSSL_UNROLL_ALL
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(registers[i])::"memory");
}
template <typename T, int kRows, int kCount>
FASTSSL_DEVICE void pin(T (&registers)[kRows][kCount]) {
  FASTSSL_UNROLL_ALL
  for (int i = 0; i < kRows; ++i) pin(registers[i]);
}

FASTSSL_DEVICE void fence_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
FASTSSL_DEVICE void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
FASTSSL_DEVICE void wait_products() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }

// Names and operands of eight sums, of 32, of 64.
#define FASTSSL_NAMES_8(a, b, c, d, e, f, g, h) "%" #a ", %" #b ", %" #c ", %" #d ", %" #e ", %" #f ", %" #g ", %" #h
#define FASTSSL_NAMES_32                                                   \
  FASTSSL_NAMES_8(0, 1, 2, 3, 4, 5, 6, 7)                                  \
  ", " FASTSSL_NAMES_8(8, 9, 10, 11, 12, 13, 14, 15) ", " FASTSSL_NAMES_8( \
      16, 17, 18, 19, 20, 21, 22, 23) ", " FASTSSL_NAMES_8(24, 25, 26, 27, 28, 29, 30, 31)
#define FASTSSL_NAMES_64                                                                      \
  FASTSSL_NAMES_32 ", " FASTSSL_NAMES_8(32, 33, 34, 35, 36, 37, 38, 39) ", " FASTSSL_NAMES_8( \
      40, 41, 42, 43, 44, 45, 46, 47) ", " FASTSSL_NAMES_8(48, 49, 50, 51, 52, 53, 54,        \
                                                           55) ", " FASTSSL_NAMES_8(56, 57, 58, 59, 60, 61, 62, 63)
#define FASTSSL_SUMS_8(c, i)                                                                                  \
  "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]), \
      "+f"(c[i + 7])
#define FASTSSL_SUMS_32(c, i) \
  FASTSSL_SUMS_8(c, i), FASTSSL_SUMS_8(c, i + 8), FASTSSL_SUMS_8(c, i + 16), FASTSSL_SUMS_8(c, i + 24)

// sums = a b, or += where `add`; of 64 columns, and of 128.
FASTSSL_DEVICE void multiply_wide(float (&sums)[32], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {" FASTSSL_NAMES_32
      "}, %32, %33, add, 1, 1, 0, 0;\n"
      "}"
      : FASTSSL_SUMS_32(sums, 0)
      : "l"(a), "l"(b), "r"(int(add)));
}
FASTSSL_DEVICE void multiply_wide(float (&sums)[64], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" FASTSSL_NAMES_64
      "}, %64, %65, add, 1, 1, 0, 0;\n"
      "}"
      : FASTSSL_SUMS_32(sums, 0), FASTSSL_SUMS_32(sums, 32)
      : "l"(a), "l"(b), "r"(int(add)));
}
// sums += a b, of 128 columns; the rows of b lie across the sum, a's fragment is that of matrix.h.
FASTSSL_DEVICE void multiply_across(float (&sums)[64], const uint32_t (&a)[4], uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" FASTSSL_NAMES_64
               "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
               : FASTSSL_SUMS_32(sums, 0), FASTSSL_SUMS_32(sums, 32)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

// The same of A in shared memory, whose rows lie across the sum, too, where `kLeftAcross`.
template <bool kLeftAcross>
FASTSSL_DEVICE void multiply_terms(float (&sums)[64], uint64_t a, uint64_t b) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {" FASTSSL_NAMES_64 "}, %64, %65, 1, 1, 1, %66, 1;"
               : FASTSSL_SUMS_32(sums, 0), FASTSSL_SUMS_32(sums, 32)
               : "l"(a), "l"(b), "n"(int(kLeftAcross)));
}
// What this thread has stored in shared memory, or begun to copy there with copy_async() and waited for, products read that are
// begun behind a barrier.
FASTSSL_DEVICE void publish_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#undef FASTSSL_NAMES_8
#undef FASTSSL_NAMES_32
#undef FASTSSL_NAMES_64
#undef FASTSSL_SUMS_8
#undef FASTSSL_SUMS_32

#else

FASTSSL_DEVICE void make_mbarrier(uint32_t at, int arrivals) { emulator::make_mbarrier(at, uint32_t(arrivals)); }
FASTSSL_DEVICE void publish_mbarriers() {}
FASTSSL_DEVICE void arrive(uint32_t mbarrier) { emulator::arrive(mbarrier); }
FASTSSL_DEVICE void arrive_expecting(uint32_t mbarrier, uint32_t bytes) { emulator::arrive_expecting(mbarrier, bytes); }
FASTSSL_DEVICE void wait_phase(uint32_t mbarrier, uint32_t phase) { emulator::wait_phase(mbarrier, phase); }
FASTSSL_DEVICE void copy_bulk(uint32_t to, const void* from, uint32_t bytes, uint32_t mbarrier) {
  emulator::copy_bulk(to, from, bytes, mbarrier);
}
FASTSSL_DEVICE void join_warp() { emulator::join_warp(); }
template <typename T>
FASTSSL_DEVICE void pin(T&) {}
FASTSSL_DEVICE void fence_products() { emulator::fence_products(); }
FASTSSL_DEVICE void commit_products() { emulator::commit_products(); }
FASTSSL_DEVICE void wait_products() { emulator::wait_products(); }
template <int kCount>
FASTSSL_DEVICE void multiply_wide(float (&sums)[kCount], uint64_t a, uint64_t b, bool add) {
  emulator::multiply_wide(sums, 2 * kCount, nullptr, a, b, false, false, add);
}
FASTSSL_DEVICE void multiply_across(float (&sums)[64], const uint32_t (&a)[4], uint64_t b) {
  emulator::multiply_wide(sums, 128, a, 0, b, false, true, true);
}
template <bool kLeftAcross>
FASTSSL_DEVICE void multiply_terms(float (&sums)[64], uint64_t a, uint64_t b) {
  emulator::multiply_wide(sums, 128, nullptr, a, b, kLeftAcross, true, true);
}
FASTSSL_DEVICE void publish_shared() { emulator::publish_shared(); }

#endif

}  // namespace grid
}  // namespace
}  // namespace fastssl::cuda
