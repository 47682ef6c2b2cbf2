// Which JPEGs a decoder other than libjpeg may be given.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastssl::cpu {

// How long the baseline JPEG of one scan is that the data begins with, gray or YCbCr, of 8 bits, with tables of its own and the
// usual sampling, whole as far as its markers and tables tell: each lies where it must, what the scan refers to is there, and the
// last is the end of the image. 0 where there is none: that is libjpeg's, which says what is wrong, if anything is. What lies
// behind the end, as of cameras that append more images or a film, is no part of it. Of damage within the coded data it notices
// only what looks like a marker.
//
// It looks for a byte in all of the data, at the speed of memory.
//
// Source: ITU-T T.81, annex B; the Adobe marker: Adobe Technical Note 5116, section 18.
size_t plain_jpeg_size(const uint8_t* data, size_t size);

}  // namespace fastssl::cpu
