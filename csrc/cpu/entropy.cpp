#include "entropy.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

namespace fastssl::cpu {

#define INLINE inline __attribute__((always_inline))

namespace {

// The place in a block of each coefficient in the order of the file (ITU-T T.81, figure A.6).
constexpr uint8_t kNaturalOrder[DCTSIZE2] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,
                                             12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
                                             35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
                                             58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};
constexpr unsigned kLast = DCTSIZE2 - 1;

// Building the tables costs as much as is saved on about so many bytes of a scan.
constexpr size_t kBreakEven = 3072;

// An entry of an AC table, of one symbol or two: how far it leads in the bits and in the block, and the values, all that the
// index shows of them. The last value's further bits are those behind the index, shifted right by `shift`. Where there is no
// entry, the length is that of the code, or the least that it may have.
constexpr unsigned kEndOfBlock = 64, kNotHere = 128;
constexpr uint64_t kEnds = 1u << 31;
constexpr unsigned kMostLength = 18;  // of three entries, 56 bits hold all
INLINE uint64_t pack(unsigned length, unsigned first, unsigned last, unsigned shift, int first_value, int last_value) {
  return length | uint64_t(first) << 8 | uint64_t(last) << 16 | uint64_t(shift) << 24 |
         uint64_t(uint16_t(first_value)) << 32 | uint64_t(uint16_t(last_value)) << 48;
}
INLINE unsigned length_of(uint64_t entry) { return entry & 63; }
INLINE unsigned first_of(uint64_t entry) { return entry >> 8 & 255; }
INLINE unsigned last_of(uint64_t entry) { return entry >> 16 & 255; }
INLINE unsigned shift_of(uint64_t entry) { return entry >> 24 & 63; }

// The number whose bits are the topmost `size` ones: half of them, those that begin with 0, stand for negative numbers
// (ITU-T T.81, figure F.12).
INLINE int extend(uint64_t bits, unsigned size) {
  const uint64_t negative = ~uint64_t(int64_t(bits) >> 63);
  const uint64_t magnitude = (bits ^ negative) >> 1 >> (63 - size);
  return int(int64_t((magnitude ^ negative) - negative));
}

// Whether a marker ends the data wherever reading begins: libjpeg then never reads to the data's end, which it would report.
// Restart markers are passed over.
bool has_marker(const uint8_t* data, const uint8_t* end) {
  for (ptrdiff_t i = end - data - 2; i >= 0; --i) {
    const uint8_t code = data[i + 1];
    if (data[i] == 0xFF && code != 0 && code != 0xFF && (code & 0xF8) != 0xD0) return true;
  }
  return false;
}

}  // namespace

bool EntropyDecoder::Codes::equal(const JHUFF_TBL& table) const {
  return symbol_count > 0 && std::equal(counts + 1, counts + 17, table.bits + 1) &&
         std::memcmp(symbols, table.huffval, size_t(symbol_count)) == 0;
}

void EntropyDecoder::Codes::take(const JHUFF_TBL& table) {
  std::copy_n(table.bits + 1, 16, counts + 1);
  symbol_count = std::accumulate(counts + 1, counts + 17, 0);
  if (symbol_count > 256) symbol_count = 0;
  std::copy_n(table.huffval, symbol_count, symbols);
}

// False where the lengths are not those of a prefix code. libjpeg has seen to it, too.
bool EntropyDecoder::Codes::derive() {
  uint32_t code = 0;
  int n = 0;
  for (int length = 1; length <= 16; ++length, code <<= 1) {
    offsets[length] = n - int32_t(code);
    n += counts[length];
    code += counts[length];
    if (code > 1u << length) return false;
    limits[length] = code << (16 - length);
  }
  limits[17] = UINT32_MAX;
  return symbol_count > 0;
}

// The next bits of a segment, at the top of a word. Only the first `count` ones are sure to be there; those below are
// either what follows or zero.
struct EntropyDecoder::Bits {
  const uint8_t* at;
  uint64_t window;
  unsigned count;

  // To at least 56 bits.
  INLINE void refill() {
    uint64_t word;
    std::memcpy(&word, at, sizeof(word));
    window |= __builtin_bswap64(word) >> count;
    at += (63 - count) >> 3;
    count |= 56;
  }
  INLINE uint64_t top(int n) const { return window >> (64 - n); }
  INLINE void drop(unsigned n) {
    window <<= n & 63;
    count -= n & 63;
  }
  // The symbol of a code that is `length` bits long or longer, and its length; 17 where there is none.
  INLINE uint8_t symbol(const Codes& codes, int& length) const {
    const auto code = uint32_t(top(16));
    while (code >= codes.limits[length]) ++length;
    return length > 16 ? 0 : codes.symbols[(int32_t(code >> (16 - length)) + codes.offsets[length]) & 255];
  }
};

// An entry holds a code's length, and the size of what follows above it; 0 stands for longer codes.
bool EntropyDecoder::build(DcTable& table) {
  const Codes& codes = table.codes;
  if (std::any_of(codes.symbols, codes.symbols + codes.symbol_count, [](uint8_t size) { return size > 15; }))
    return false;
  uint16_t* entry = table.entries;
  const uint8_t* symbol = codes.symbols;
  for (int length = 1; length <= kDcBits; ++length) {
    for (int i = 0; i < codes.counts[length]; ++i, entry += 1 << (kDcBits - length)) {
      std::fill_n(entry, 1 << (kDcBits - length), uint16_t(length | *symbol++ << 8));
    }
  }
  std::fill(entry, table.entries + (1 << kDcBits), uint16_t(0));
  return true;
}

bool EntropyDecoder::build(AcTable& table) {
  const Codes& codes = table.codes;
  constexpr unsigned kSize = 1 << kAcBits;
  // First the single symbols.
  struct Single {
    uint8_t code, shown, length;  // bits: of the code, those that the index must show, and all
    uint8_t advance;              // 0: it cannot be an entry
    int16_t value;
  };
  Single singles[kSize];
  unsigned index = 0;
  const uint8_t* symbol = codes.symbols;
  for (int length = 1; length <= kAcBits; ++length) {
    const unsigned below = kAcBits - unsigned(length);  // bits of the index behind the code
    for (int i = 0; i < codes.counts[length]; ++i, ++symbol) {
      const unsigned size = *symbol & 15, run = *symbol >> 4;
      const unsigned end = index + (1u << below);
      Single single{uint8_t(length), uint8_t(length + (size > 0)), uint8_t(length + int(size)), uint8_t(run + 1), 0};
      if (size == 0 && run != 15) single.advance = kEndOfBlock;
      // The sign must be seen.
      if (single.shown > kAcBits || single.length > kMostLength) single.advance = 0;
      for (; index < end; ++index) {
        // Bits that the index does not show count as zeros.
        const uint64_t bits = below ? uint64_t(index) << (64 - below) : 0;
        singles[index] = single;
        if (size > 0) singles[index].value = int16_t((bits >> (64 - size)) - (bits >> 63 ? 0 : (1u << size) - 1));
      }
    }
  }
  std::fill(singles + index, singles + kSize, Single{kAcBits + 1, 0, 0, 0, 0});
  for (unsigned i = 0; i < kSize; ++i) {
    const Single& first = singles[i];
    if (first.advance == 0) {
      table.entries[i] = pack(first.code, 0, kNotHere, 0, 0, 0);
    } else if (first.advance == kEndOfBlock) {
      table.entries[i] = pack(first.length, 0, kEndOfBlock, 63, 0, 0) | kEnds;
    } else {
      unsigned length = first.length, last = first.advance;
      int value = first.value;
      uint64_t ends = 0;
      if (length < kAcBits) {
        const Single& second = singles[i << length & (kSize - 1)];
        if (second.advance > 0 && length + second.shown <= kAcBits && length + second.length <= kMostLength) {
          length += second.length;
          last += second.advance;
          value = second.value;
          if (second.advance == kEndOfBlock) ends = kEnds;
        }
      }
      // Nothing lies behind the index where all was shown: the topmost of its bits are cleared before the shift.
      const unsigned shift = length > kAcBits ? 64 - length : 63;
      table.entries[i] = pack(length, first.advance, last, shift, first.value, value) | ends;
    }
  }
  return true;
}

// Takes the codes, and builds the table where it does not stand yet and is wanted. False where that fails.
template <typename Table>
bool EntropyDecoder::prepare(Table& table, const JHUFF_TBL& from, bool wanted) {
  if (!table.codes.equal(from)) {
    table.codes.take(from);
    table.built = false;
  }
  if (wanted && !table.built) table.built = table.codes.derive() && build(table);
  return table.built || !wanted;
}

INLINE bool EntropyDecoder::decode_dc(Bits& in, const DcTable& table, int& difference) {
  in.refill();
  const unsigned entry = table.entries[in.top(kDcBits)];
  int length = int(entry & 255);
  unsigned size = entry >> 8;
  if (length == 0) [[unlikely]] {
    length = kDcBits + 1;
    size = in.symbol(table.codes, length);
    if (length > 16) return false;
  }
  difference = extend(in.window << length, size);
  in.drop(unsigned(length) + size);
  return true;
}

template <bool keep>
INLINE bool EntropyDecoder::decode_ac(Bits& in, const AcTable& table, JCOEF* block) {
  unsigned k = 0;  // of the last coefficient
  for (;;) {
    in.refill();
    uint64_t entry;
    unsigned first, last;
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      entry = table.entries[in.top(kAcBits)];
      first = k + first_of(entry);
      last = k + last_of(entry);
      if (last >= kLast) [[unlikely]]
        break;
      if (keep) {
        // Where the entry holds one symbol, the second store completes what the first wrote.
        const auto rest = unsigned((in.window & ~uint64_t(0) >> kAcBits) >> shift_of(entry));
        block[kNaturalOrder[first]] = JCOEF(entry >> 32);
        block[kNaturalOrder[last]] = JCOEF(unsigned(entry >> 48) + rest);
      }
      in.drop(length_of(entry));
      k = last;
    }
    if (last < kLast) continue;

    if (entry & kEnds && first < kLast) [[likely]] {
      if (keep && first > k) block[kNaturalOrder[first]] = JCOEF(entry >> 32);
      in.drop(length_of(entry));
      return true;
    }
    // One symbol: its code is long, or the block's last coefficient may be reached, behind which no code ends the block.
    in.refill();
    int length = last_of(entry) == kNotHere ? int(length_of(entry)) : 1;
    const unsigned symbol = in.symbol(table.codes, length);
    if (length > 16) return false;
    const unsigned size = symbol & 15, run = symbol >> 4;
    const uint64_t bits = in.window << length;
    in.drop(unsigned(length) + size);
    if (size == 0 && run != 15) return true;
    k += run + 1;
    if (k > kLast) return false;
    if (keep && size > 0) block[kNaturalOrder[k]] = JCOEF(extend(bits, size));
    if (k == kLast) return true;
  }
}

bool EntropyDecoder::decode(JBLOCKROW* blocks) {
  if (restart_interval_ > 0 && mcus_to_restart_-- == 0 && !restart()) return false;
  if (!at_marker_ && size_t(end_ - at_) < mcu_bytes_) unstuff();
  const bool wanted = blocks && column_ >= first_column_ && column_ < end_column_;
  if (++column_ == columns_) column_ = 0;
  Bits in{at_, window_, count_};
  for (int i = 0; i < block_count_; ++i) {
    const Block& block = blocks_[i];
    int difference;
    if (!decode_dc(in, *block.dc_table, difference)) return false;
    const uint32_t dc = dc_[block.component] += uint32_t(difference);
    if (wanted && block.dc_needed) (*blocks[i])[0] = JCOEF(dc);
    if (wanted && block.ac_needed) {
      if (!decode_ac<true>(in, *block.ac_table, *blocks[i])) return false;
    } else {
      if (!decode_ac<false>(in, *block.ac_table, nullptr)) return false;
    }
  }
  at_ = in.at;
  window_ = in.window;
  count_ = in.count;
  // Not if bits were used that were not there.
  return !at_marker_ || at_ - (count_ >> 3) <= end_;
}

// Appends to what is left, up to a marker, the end of the data or as much as there is room for.
void EntropyDecoder::unstuff() {
  const auto left = size_t(end_ - at_);
  std::memmove(segment_, at_, left);
  at_ = segment_;
  uint8_t* to = segment_ + left;
  const uint8_t* from = source_;
  while (to < segment_ + kSegmentBytes) {
    if (size_t(source_end_ - from) >= kWord) {
      constexpr uint64_t kOnes = ~uint64_t(0) / 255;
      uint64_t word;
      std::memcpy(&word, from, kWord);
      std::memcpy(to, &word, kWord);
      const uint64_t all_ones = (~word - kOnes) & word & kOnes << 7;  // the lowest bit that is set is of the first 0xFF
      if (!all_ones) {
        from += kWord;
        to += kWord;
        continue;
      }
      const int n = std::countr_zero(all_ones) / 8;
      from += n;
      to += n;
    } else if (from < source_end_ && *from != 0xFF) {
      *to++ = *from++;
      continue;
    }
    if (source_end_ - from < 2 || from[1] != 0) {
      at_marker_ = true;
      break;
    }
    *to++ = 0xFF;
    from += 2;
  }
  source_ = from;
  end_ = to;
}

// At the end of a restart interval: the marker must be here, and the one whose turn it is.
bool EntropyDecoder::restart() {
  if (!at_marker_) unstuff();
  if (!at_marker_ || (end_ - at_) * 8 + ptrdiff_t(count_) >= 8) return false;
  if (source_end_ - source_ < 2 || source_[0] != 0xFF || source_[1] != 0xD0 + next_restart_) return false;
  source_ += 2;
  next_restart_ = (next_restart_ + 1) & 7;
  mcus_to_restart_ = restart_interval_ - 1;
  at_ = end_ = segment_;
  window_ = count_ = 0;
  at_marker_ = false;
  std::fill_n(dc_, MAX_COMPS_IN_SCAN, 0u);
  return true;
}

EntropyDecoder::EntropyDecoder() { std::fill_n(segment_, sizeof(segment_), uint8_t(0)); }

bool EntropyDecoder::start(const jpeg_decompress_struct& info, int first_column, int end_column) {
  // Ss to Al are those of a sequential scan. In libjpeg-turbo 3, they tell lossless JPEG from it, too.
  if (sizeof(void*) != 8 || std::endian::native != std::endian::little || info.data_precision != 8 ||
      info.progressive_mode || info.arith_code || jpeg_has_multiple_scans(const_cast<j_decompress_ptr>(&info)) ||
      info.buffered_image || info.Ss != 0 || info.Se != DCTSIZE2 - 1 || info.Ah != 0 || info.Al != 0) {
    return false;
  }
  source_ = info.src->next_input_byte;
  source_end_ = source_ + info.src->bytes_in_buffer;
  if (!has_marker(source_, source_end_)) return false;
  // Tables that the image before had, too, are likely to come again.
  bool same = true;
  for (int c = 0; c < info.comps_in_scan; ++c) {
    const int dc = info.cur_comp_info[c]->dc_tbl_no, ac = info.cur_comp_info[c]->ac_tbl_no;
    const JHUFF_TBL *dc_codes = info.dc_huff_tbl_ptrs[dc], *ac_codes = info.ac_huff_tbl_ptrs[ac];
    if (!dc_codes || !ac_codes) return false;
    same = same && dc_tables_[dc].codes.equal(*dc_codes) && ac_tables_[ac].codes.equal(*ac_codes);
  }
  const bool pays = same || size_t(source_end_ - source_) >= kBreakEven;
  for (int c = 0; c < info.comps_in_scan; ++c) {
    const int dc = info.cur_comp_info[c]->dc_tbl_no, ac = info.cur_comp_info[c]->ac_tbl_no;
    if (!prepare(dc_tables_[dc], *info.dc_huff_tbl_ptrs[dc], pays)) return false;
    if (!prepare(ac_tables_[ac], *info.ac_huff_tbl_ptrs[ac], pays)) return false;
  }
  if (!pays) return false;
  block_count_ = info.blocks_in_MCU;
  for (int i = 0; i < block_count_; ++i) {
    const int c = info.MCU_membership[i];
    const jpeg_component_info& component = *info.cur_comp_info[c];
#if JPEG_LIB_VERSION >= 70
    const int scaled_size = component.DCT_h_scaled_size;
#else
    const int scaled_size = component.DCT_scaled_size;
#endif
    const bool needed = component.component_needed;
    // An eighth of the size shows the mean of each block and no more.
    blocks_[i] = {&dc_tables_[component.dc_tbl_no], &ac_tables_[component.ac_tbl_no], c, needed,
                  needed && scaled_size > 1};
  }
  mcu_bytes_ = size_t(block_count_) * kMostBlockBytes + 2 * kWord;
  column_ = 0;
  columns_ = int(info.MCUs_per_row);
  first_column_ = first_column;
  end_column_ = end_column;
  restart_interval_ = mcus_to_restart_ = info.restart_interval;
  next_restart_ = 0;
  std::fill_n(dc_, MAX_COMPS_IN_SCAN, 0u);
  at_ = end_ = segment_;
  window_ = count_ = 0;
  at_marker_ = false;
  return true;
}

}  // namespace fastssl::cpu
