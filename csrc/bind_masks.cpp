// Masks, as fastssl/ops/masks.py sees them.
#include "bind.h"

#include <tuple>
#include <utility>
#include <vector>

#include "core/mask_jobs.h"
#include "cpu/masks.h"
#include "cuda/masks.h"

namespace fastssl {

namespace {

// Who draws. device: of the GPU; -1 for its kernels, emulated on the host; -2 for the host itself.
struct MaskExecutor {
  static constexpr int kEmulated = -1, kHost = -2;
  int device = kHost;
  uintptr_t stream = 0;
  int threads = 1;
};

void draw(const MaskExecutor& executor, const core::MaskJob& job) {
  const py::gil_scoped_release release;
  if (executor.device == MaskExecutor::kHost) {
    cpu::draw_masks(job, executor.threads);
  } else if (executor.device == MaskExecutor::kEmulated) {
    cuda::draw_masks_emulated(job);
  } else {
    cuda::draw_masks(job, executor.device, executor.stream);
  }
}

}  // namespace

void bind_masks(py::module_& m) {
  m.attr("MASK_STREAM") = core::kMaskStream;
  m.attr("MASK_STREAMS") = core::kMaskStreams;
  m.attr("MASK_DRAWS") = core::kMaskDraws;
  m.attr("MASK_CELL_BITS") = core::kCellBits;
  m.attr("MASK_CONTEXTS") = core::kMaxContexts;
  m.attr("MASK_TARGETS") = core::kMaxTargets;

  py::class_<MaskExecutor>(m, "MaskExecutor")
      .def_static(
          "host", [](int threads) { return MaskExecutor{MaskExecutor::kHost, 0, threads}; }, py::arg("threads"))
      .def_static("emulated", [] { return MaskExecutor{MaskExecutor::kEmulated, 0, 1}; })
      .def_static(
          "cuda", [](int device, uintptr_t stream) { return MaskExecutor{device, stream, 1}; }, py::arg("device"),
          py::arg("stream"))
      .def_property_readonly("scratch", [](const MaskExecutor& e) { return e.device != MaskExecutor::kHost; });
  m.def("mask_rank_scratch", &cuda::rank_scratch, py::arg("cells"));
  m.def("mask_bits_scratch", &cuda::bits_scratch, py::arg("rows"), py::arg("columns"));

  py::class_<core::MaskKeys>(m, "MaskKeys")
      .def(py::init([](uintptr_t indices, int64_t samples, uint64_t seed, uint32_t epoch, uint32_t stream) {
             return core::MaskKeys{pointer<const int64_t>(indices), samples, seed, epoch, stream};
           }),
           py::arg("indices"), py::arg("samples"), py::arg("seed"), py::arg("epoch"), py::arg("stream"));
  py::class_<core::CellGrid>(m, "CellGrid")
      .def(py::init([](int rows, int columns, int side) { return core::CellGrid{rows, columns, side}; }),
           py::arg("rows"), py::arg("columns"), py::arg("side"));

  m.def(
      "mask_cells",
      [](const MaskExecutor& executor, const core::MaskKeys& keys, const core::CellGrid& grid, int kept, uintptr_t out,
         uintptr_t scratch) {
        draw(executor, core::CellsJob{keys, grid, kept, pointer<uint8_t>(out), pointer<uint64_t>(scratch)});
      },
      py::arg("executor"), py::arg("keys"), py::arg("grid"), py::arg("kept"), py::arg("out"), py::arg("scratch"));
  m.def(
      "mask_tokens",
      [](const MaskExecutor& executor, const core::MaskKeys& keys, const core::CellGrid& grid, int kept, int prefix,
         uintptr_t keep, uintptr_t masked, uintptr_t scratch) {
        draw(executor, core::TokensJob{keys, grid, kept, prefix, pointer<int64_t>(keep), pointer<int64_t>(masked),
                                       pointer<uint64_t>(scratch)});
      },
      py::arg("executor"), py::arg("keys"), py::arg("grid"), py::arg("kept"), py::arg("prefix"), py::arg("keep"),
      py::arg("masked"), py::arg("scratch"));
  m.def(
      "mask_prefix",
      [](const MaskExecutor& executor, const core::MaskKeys& keys, int length, int low, int high, uintptr_t out) {
        draw(executor, core::PrefixJob{keys, length, low, high, pointer<uint8_t>(out)});
      },
      py::arg("executor"), py::arg("keys"), py::arg("length"), py::arg("low"), py::arg("high"), py::arg("out"));
  m.def(
      "mask_inverse_block",
      [](const MaskExecutor& executor, const core::MaskKeys& keys, int rows, int columns, int visible,
         std::pair<double, double> aspect, bool roll, bool inside, uintptr_t out) {
        const auto rules = core::inverse_block_rules(rows, columns, visible, aspect.first, aspect.second, roll);
        draw(executor, core::InverseBlockJob{keys, rules, inside, pointer<uint8_t>(out)});
      },
      py::arg("executor"), py::arg("keys"), py::arg("rows"), py::arg("columns"), py::arg("visible"), py::arg("aspect"),
      py::arg("roll"), py::arg("inside"), py::arg("out"));
  m.def(
      "mask_counts",
      [](const MaskExecutor& executor, const core::MaskKeys& keys, std::pair<double, double> ratio, double share,
         int cells, bool exact_share, uintptr_t out, uintptr_t order) {
        const core::CountRules rules{ratio.first, ratio.second, share, cells, exact_share};
        draw(executor, core::CountsJob{keys, rules, pointer<int64_t>(out), pointer<int64_t>(order)});
      },
      py::arg("executor"), py::arg("keys"), py::arg("ratio"), py::arg("share"), py::arg("cells"),
      py::arg("exact_share"), py::arg("out"), py::arg("order"));
  m.def(
      "mask_blocks",
      [](const MaskExecutor& executor, const core::MaskKeys& keys, int rows, int columns, int limit, int least,
         int most, std::pair<double, double> aspect, int attempts, uintptr_t counts, uintptr_t out, uintptr_t scratch) {
        const core::BlockRules rules{
            rows, columns, limit, least, most, core::log_uniform(aspect.first, aspect.second), attempts};
        draw(executor, core::BlocksJob{keys, rules, pointer<const int64_t>(counts), pointer<uint8_t>(out),
                                       pointer<uint32_t>(scratch)});
      },
      py::arg("executor"), py::arg("keys"), py::arg("rows"), py::arg("columns"), py::arg("limit"), py::arg("least"),
      py::arg("most"), py::arg("aspect"), py::arg("attempts"), py::arg("counts"), py::arg("out"), py::arg("scratch"));
  m.def(
      "mask_multi_block",
      [](const MaskExecutor& executor, const core::MaskKeys& keys, std::pair<int, int> grid, std::pair<int, int> room,
         std::pair<int, int> context, std::pair<int, int> target, int contexts, int targets, int least,
         bool allow_overlap, uintptr_t seen, uintptr_t predicted, uintptr_t scratch) {
        core::MultiBlockRules rules;
        std::tie(rules.rows, rules.columns) = grid;
        std::tie(rules.room_rows, rules.room_columns) = room;
        std::tie(rules.context_height, rules.context_width) = context;
        std::tie(rules.target_height, rules.target_width) = target;
        rules.contexts = contexts;
        rules.targets = targets;
        rules.least = least;
        rules.allow_overlap = allow_overlap;
        draw(executor, core::MultiBlockJob{keys, rules, pointer<uint8_t>(seen), pointer<uint8_t>(predicted),
                                           pointer<uint32_t>(scratch)});
      },
      py::arg("executor"), py::arg("keys"), py::arg("grid"), py::arg("room"), py::arg("context"), py::arg("target"),
      py::arg("contexts"), py::arg("targets"), py::arg("least"), py::arg("allow_overlap"), py::arg("seen"),
      py::arg("predicted"), py::arg("scratch"));
  m.def(
      "mask_partition",
      [](const MaskExecutor& executor, uintptr_t mask, int64_t rows, int length, int count, int prefix, uintptr_t first,
         uintptr_t rest) {
        draw(executor, core::PartitionJob{pointer<const uint8_t>(mask), rows, length, count, prefix,
                                          pointer<int64_t>(first), pointer<int64_t>(rest)});
      },
      py::arg("executor"), py::arg("mask"), py::arg("rows"), py::arg("length"), py::arg("count"), py::arg("prefix"),
      py::arg("first"), py::arg("rest"));
  m.def(
      "mask_least_set",
      [](uintptr_t mask, int64_t rows, int64_t length) {
        return cpu::least_set(pointer<const uint8_t>(mask), rows, length);
      },
      py::arg("mask"), py::arg("rows"), py::arg("length"));

  // For the tests: no mask shows the last bits of an aspect.
  m.def(
      "mask_log_uniform",
      [](const std::vector<uint32_t>& words, double low, double high) {
        const core::LogUniform range = core::log_uniform(low, high);
        std::vector<double> drawn;
        for (const uint32_t word : words) drawn.push_back(core::draw_log_uniform(word, range));
        return drawn;
      },
      py::arg("words"), py::arg("low"), py::arg("high"));
}

}  // namespace fastssl
