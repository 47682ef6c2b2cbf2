// Huffman decoding of JPEG scans, which is most of what decoding a photograph costs, at about twice libjpeg-turbo's speed.
//
// It takes the place of libjpeg's decode_mcu (cpu/jpeg.cpp) for sequential images of one scan and gives the same coefficients.
// It knows only regular data: wherever anything is amiss it says so, and libjpeg decodes the image again from the start,
// so that what damaged files give, pixels, warnings or errors, is libjpeg's.
//
// Note [two coefficients at a time]
// Each symbol's place depends on the length of the one before, so the chain from table look-up to look-up bounds the speed.
// It is short here: the code's bits index a table whose entry holds the length of all that it says, magnitude bits included,
// and often of two symbols. An entry holds the values, too, as far as the indexing bits show them; what lies behind these bits
// is added beside the chain, so that no branch depends on the size of a coefficient. And stuffed zeros are taken out
// beforehand, a few KB at a time, so that bits are refilled without looking for 0xFF and without a check for the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>

// After <cstdio>, which it needs.
#include <jpeglib.h>

namespace fastssl::cpu {

class EntropyDecoder {
 public:
  EntropyDecoder();

  // After jpeg_start_decompress: prepares for the scan that libjpeg's source stands before, of whose MCUs only those of columns
  // [first_column, end_column) matter. False where it cannot decode the scan, or where libjpeg does it as fast.
  bool start(const jpeg_decompress_struct& info, int first_column, int end_column);

  // The scan's next MCU: its blocks' coefficients, in natural order, into `blocks`, which are zero before; to nowhere where
  // `blocks` is null. False where the data is irregular: this image must be given up.
  bool decode(JBLOCKROW* blocks);

 private:
  // Code lengths up to here are found by the first look at a table.
  static constexpr int kDcBits = 9, kAcBits = 10;
  static constexpr int kTables = NUM_HUFF_TBLS;
  // 63 coefficients and DC, each of a code of 16 bits at most and 15 bits of magnitude.
  static constexpr size_t kMostBlockBytes = 64 * 31 / 8, kMostMcuBytes = D_MAX_BLOCKS_IN_MCU * kMostBlockBytes;
  static constexpr size_t kWord = 8, kSegmentBytes = 16384;

  // The codes of a table as its image declares them, and as ITU-T T.81, F.2.2.3 decodes them, one length after the other.
  struct Codes {
    uint8_t counts[17];  // of codes of each length
    uint8_t symbols[256];
    uint32_t limits[18];  // what codes of this length are below, as the first of 16 bits
    int32_t offsets[17];  // from a code of this length to its symbol's index
    int symbol_count = 0;

    bool equal(const JHUFF_TBL& table) const;
    void take(const JHUFF_TBL& table);
    bool derive();  // limits and offsets
  };
  struct DcTable {
    Codes codes;
    bool built = false;
    uint16_t entries[1 << kDcBits];
  };
  struct AcTable {
    Codes codes;
    bool built = false;
    uint64_t entries[1 << kAcBits];
  };
  struct Block {
    const DcTable* dc_table;
    const AcTable* ac_table;
    int component;
    bool dc_needed, ac_needed;
  };
  struct Bits;

  static bool build(DcTable& table);
  static bool build(AcTable& table);
  template <typename Table>
  static bool prepare(Table& table, const JHUFF_TBL& from, bool wanted);
  static bool decode_dc(Bits& in, const DcTable& table, int& difference);
  template <bool keep>
  static bool decode_ac(Bits& in, const AcTable& table, JCOEF* block);

  void unstuff();
  bool restart();

  DcTable dc_tables_[kTables];
  AcTable ac_tables_[kTables];

  // Of the scan.
  Block blocks_[D_MAX_BLOCKS_IN_MCU];
  int block_count_;
  size_t mcu_bytes_;
  int column_, columns_, first_column_, end_column_;
  unsigned restart_interval_, mcus_to_restart_;
  int next_restart_;
  uint32_t dc_[MAX_COMPS_IN_SCAN];

  // Of the data: what is unstuffed yet, up to a marker at most, and what is not.
  const uint8_t *source_, *source_end_;
  const uint8_t *at_, *end_;  // in segment_; refills run ahead of what is used
  uint64_t window_;  // the next bits, from the top
  unsigned count_;  // how many of them are counted for
  bool at_marker_;  // end_ is the segment's
  uint8_t segment_[kSegmentBytes + kMostMcuBytes + 4 * kWord];
};

}  // namespace fastssl::cpu
