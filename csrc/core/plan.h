// What a recipe asks for (ViewSpec), and what was drawn for one view of one image (ViewPlan).
//
// A plan is all floats, so that it is one tensor, one copy to a device, and editable by the user. The order of its
// members is the order of kPlanFields, the only list of their names; Python reads it from here.
#pragma once

#include <cstdint>
#include <limits>

namespace fastssl::core {

enum class CropKind : int32_t { Random, Center };
enum class Filter : int32_t { Bilinear, Bicubic };
// The steps after the crop whose order a recipe may choose.
enum class Step : int32_t { Jitter, Grayscale, Blur, Solarize };
// The four parts of jitter, numbered as in torchvision's ColorJitter.
enum class Adjust : int32_t { Brightness, Contrast, Saturation, Hue };

constexpr int kMaxSteps = 4;

struct ViewSpec {
  int32_t size = 224;  // side of the output, pixels
  CropKind crop = CropKind::Random;
  Filter filter = Filter::Bilinear;
  double area[2] = {0.08, 1.0};             // share of the source's area
  double aspect[2] = {3.0 / 4, 4.0 / 3};    // width over height
  double keep = 1.0;                        // Center: side of the box over the shorter side of the source
  double flip_p = 0, vflip_p = 0, turn_p = 0;
  double jitter_p = 0;
  double brightness[2] = {1, 1}, contrast[2] = {1, 1}, saturation[2] = {1, 1}, hue[2] = {0, 0};
  double grayscale_p = 0;
  double blur_p = 0, sigma_px[2] = {0, 0};
  double solarize_p = 0, threshold = 0.5;   // of a channel in [0, 1]
  bool normalize = false;
  float mean[3] = {0, 0, 0}, std[3] = {1, 1, 1};
  Step steps[kMaxSteps] = {Step::Jitter, Step::Grayscale, Step::Blur, Step::Solarize};
  int32_t step_count = 4;
};

struct ViewPlan {
  float top = 0, left = 0, height = 0, width = 0;  // the crop, in pixels of the source
  float flip_h = 0, flip_v = 0;                    // 1: mirrored, after the crop
  float turns = 0;                                 // quarter turns counter-clockwise, after the flips
  float brightness = 1, contrast = 1, saturation = 1, hue = 0;
  float order[4] = {0, 1, 2, 3};                   // a permutation of Adjust, in order of application
  float grayscale = 0;                             // 1: replaced by its luma
  float sigma_px = 0;                              // 0: not blurred
  float solarize = std::numeric_limits<float>::infinity();  // what is at or above is inverted
  float source_height = 0, source_width = 0;       // the size for which it was drawn
};

constexpr const char* kPlanFields[] = {"top",       "left",     "height",     "width",         "flip_h",
                                       "flip_v",    "turns",    "brightness", "contrast",      "saturation",
                                       "hue",       "order0",   "order1",     "order2",        "order3",
                                       "grayscale", "sigma_px", "solarize",   "source_height", "source_width"};
constexpr int kPlanFieldCount = sizeof(kPlanFields) / sizeof(kPlanFields[0]);
static_assert(sizeof(ViewPlan) == kPlanFieldCount * sizeof(float), "one name a member");

}  // namespace fastssl::core
