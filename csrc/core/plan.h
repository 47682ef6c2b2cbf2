// What a recipe asks for (ViewSpec), and what was drawn for one view of one image (ViewPlan).
//
// A plan is all floats, so that it is one tensor, one copy to a device, and editable by the user. The order of its
// members is the order of kPlanFields, the only list of their names; Python reads it from here.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

namespace fastssl::core {

// Random: a random resized crop. Center: the central square. Whole: all of the image. Same: the box of view `of`, with
// its flips, turn and rotation.
enum class CropKind : int32_t { Random, Center, Whole, Same };
enum class Filter : int32_t { Bilinear, Bicubic };
enum class RotateFilter : int32_t { Nearest, Bilinear };
// Gaussian: of true sigma, with a reflected border. Box: three extended box filters with a repeated border, as Pillow.
enum class BlurKind : int32_t { Gaussian, Box };
// The steps whose order a recipe may choose. Flips, turns and rotation follow the crop; erasing is always last.
enum class Step : int32_t { Crop, Jitter, Grayscale, Blur, Solarize, Posterize, Custom };
// The four parts of jitter, numbered as in torchvision's ColorJitter.
enum class Adjust : int32_t { Brightness, Contrast, Saturation, Hue };
// Which steps are rendered: all, or, around a step that is the user's own, those before it or those after it.
enum class Part : int32_t { All, BeforeCustom, AfterCustom };

constexpr int kMaxSteps = 7;
constexpr int kBits = 8;  // of a channel on whose scale posterize counts

struct ViewSpec {
  int32_t size = 224;  // side of the output, pixels
  CropKind crop = CropKind::Random;
  int32_t of = -1;  // an earlier view: Same takes its geometry, Random stays within its box; -1: none
  Filter filter = Filter::Bilinear;
  double area[2] = {0.08, 1.0};             // share of the source's area
  double aspect[2] = {3.0 / 4, 4.0 / 3};    // width over height
  double keep = 1.0;                        // Center: side of the box over the shorter side of the source
  double flip_p = 0, vflip_p = 0, turn_p = 0;
  std::vector<int32_t> turns{1};  // quarter turns, of which one is drawn
  double rotate_p = 0, degrees[2] = {0, 0};
  RotateFilter rotate_filter = RotateFilter::Nearest;
  double jitter_p = 0;
  double brightness[2] = {1, 1}, contrast[2] = {1, 1}, saturation[2] = {1, 1}, hue[2] = {0, 0};
  double grayscale_p = 0;
  double blur_p = 0, sigma_px[2] = {0, 0};
  BlurKind blur = BlurKind::Gaussian;
  double solarize_p = 0, threshold = 0.5;   // of a channel in [0, 1]
  double posterize_p = 0;
  int32_t bits = kBits;                     // that posterize keeps
  double erase_p = 0, erase_area[2] = {0.02, 0.33}, erase_aspect[2] = {0.3, 10.0 / 3};
  float erase_value = 0;                    // in the output's own units
  std::vector<float> mean, std;             // one a channel; empty: not normalized
  Step steps[kMaxSteps] = {Step::Crop, Step::Jitter, Step::Grayscale, Step::Blur, Step::Solarize, Step::Posterize};
  int32_t step_count = 6;
  Part part = Part::All;
};

struct ViewPlan {
  float top = 0, left = 0, height = 0, width = 0;  // the crop, in pixels of the source
  float flip_h = 0, flip_v = 0;                    // 1: mirrored, after the crop
  float turns = 0;                                 // quarter turns counter-clockwise, after the flips
  float angle = 0;                                 // degrees counter-clockwise about the middle, after the turns
  float brightness = 1, contrast = 1, saturation = 1, hue = 0;
  float order[4] = {0, 1, 2, 3};                   // a permutation of Adjust, in order of application
  float grayscale = 0;                             // 1: replaced by its luma
  float sigma_px = 0;                              // 0: not blurred
  float solarize = std::numeric_limits<float>::infinity();  // what is at or above is inverted
  float posterize = kBits;                         // bits that are kept; 8: all
  float erase_top = 0, erase_left = 0, erase_height = 0,
        erase_width = 0;  // in pixels of the view; 0 high: nothing erased
  float source_height = 0, source_width = 0;       // the size for which it was drawn
};

constexpr const char* kPlanFields[] = {
    "top",        "left",         "height",      "width",         "flip_h",      "flip_v",    "turns",
    "angle",      "brightness",   "contrast",    "saturation",    "hue",         "order0",    "order1",
    "order2",     "order3",       "grayscale",   "sigma_px",      "solarize",    "posterize", "erase_top",
    "erase_left", "erase_height", "erase_width", "source_height", "source_width"};
constexpr int kPlanFieldCount = sizeof(kPlanFields) / sizeof(kPlanFields[0]);
static_assert(sizeof(ViewPlan) == kPlanFieldCount * sizeof(float), "one name a member");

}  // namespace fastssl::core
