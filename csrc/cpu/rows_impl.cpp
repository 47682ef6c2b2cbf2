// Compiled several times, with other flags and another FASTSSL_ROWS each time; see CMakeLists.txt and rows.cpp.
//
// Plain loops that the compiler vectorizes, and vectors where it would not. Nothing here may have external linkage but the
// table, and no inline function of the standard library may be called: the linker would keep one copy of it, at any
// instruction set.
#include "rows.h"
#include "rows_colour.h"
#include "rows_neighbours.h"
#include "rows_resample.h"
#include "rows_store.h"

#define FASTSSL_TEXT_(x) #x
#define FASTSSL_TEXT(x) FASTSSL_TEXT_(x)
#define FASTSSL_TABLE_(x) rows_##x
#define FASTSSL_TABLE(x) FASTSSL_TABLE_(x)

namespace fastssl::cpu {

extern const RowKernels FASTSSL_TABLE(FASTSSL_ROWS);
const RowKernels FASTSSL_TABLE(FASTSSL_ROWS) = {FASTSSL_TEXT(FASTSSL_ROWS),
                                                kLanes,
                                                resample_scratch,
                                                resample,
                                                load_row,
                                                brightness,
                                                contrast,
                                                saturation,
                                                hue,
                                                grayscale,
                                                luma_sum,
                                                solarize,
                                                posterize,
                                                blur_vertical,
                                                blur_horizontal,
                                                rotate,
                                                store};

}  // namespace fastssl::cpu
