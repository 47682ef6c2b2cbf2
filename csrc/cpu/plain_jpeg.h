// Which JPEGs a decoder other than libjpeg may be given.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastssl::cpu {

// Whether this is a baseline JPEG of one scan, gray or YCbCr, of 8 bits, with tables of its own and the usual sampling, whole as
// far as its markers tell: each lies where it must, and the last is the end of the image. Of damage within the coded data it
// notices only what looks like a marker. What this refuses is libjpeg's, which says what is wrong, if anything is.
//
// It looks for a byte in all of the data, at the speed of memory.
//
// Source: ITU-T T.81, annex B; the Adobe marker: Adobe Technical Note 5116, section 18.
bool is_plain_jpeg(const uint8_t* data, size_t size);

}  // namespace fastssl::cpu
