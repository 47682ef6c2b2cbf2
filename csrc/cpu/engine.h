// Reads, decodes and renders the samples of batches on threads of its own, straight into memory that the caller gives.
//
// The engine knows nothing of Python: what is no JPEG file is asked for through two functions. A bad sample is noted in
// its job and harms no other; what to do about it is the caller's.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../core/plan.h"
#include "cache.h"
#include "gather.h"
#include "memory.h"
#include "render.h"
#include "thread_pool.h"

namespace fastssl::cpu {

// An image from elsewhere: pixels, or encoded bytes; `owner` keeps either alive.
struct Fetched {
  std::shared_ptr<void> owner;
  const uint8_t* bytes = nullptr;  // encoded, if not null
  size_t size = 0;
  ImageView image;
  std::string label;  // for the cache, of what `fetch` returns; may be empty
};

// All throw DecodeError with the reason.
struct Callbacks {
  std::function<Fetched(int64_t index)> fetch;  // a sample that has no path
  std::function<Fetched(const uint8_t* bytes, size_t size)> decode_other;  // data that is no JPEG
  std::function<Fetched(int64_t index, const ImageView& image)>
      image_step;  // the image in place of a whole one; may be empty
};

// Images of one size in memory, each `step` bytes after the one before; without pixels, there is none. Sample i of the source
// is image i, or image rows[i] where there are rows; `count` is the number of samples.
struct Array {
  std::shared_ptr<void> owner;  // of pixels and rows
  ImageView first;
  int64_t step = 0, count = 0;
  const int64_t* rows = nullptr;
};

struct Settings {
  int threads = 1;
  std::vector<core::ViewSpec> views;
  uint64_t seed = 0;
  int channels = 3;  // of every image; one that has others is bad
  bool as_stored = false;  // a JPEG of one channel stays so, and one of four goes to decode_other
  bool may_shrink = true;  // JPEGs are decoded in a smaller size where all views keep their resolution
  Array array;  // where it is not empty, samples are rows of it
  std::shared_ptr<Cache>
      cache;  // may be null; what is not in it is decoded, and stored, in a size that does not depend on the draw
  // That size is the smallest that these views allow, by recipe_shrink(); the full one where there are none. They are those of
  // the cache, whatever views are made here.
  std::vector<core::ViewSpec> keep_for;
};

struct Samples {
  std::vector<int64_t> indices;  // in the source
  std::vector<int64_t> positions;  // in the batch; empty: 0, 1, 2 ...
  std::vector<std::string> paths;  // empty, or one a sample; a sample without one is fetched
  std::vector<Fetched> given;  // empty, or one a sample, whose memory outlives the job
  uint32_t epoch = 0, repeat = 0;

  size_t size() const { return indices.size(); }
  int64_t position(size_t i) const { return positions.empty() ? int64_t(i) : positions[i]; }
};

struct Failure {
  int64_t position;
  std::string reason;
};

// Nanoseconds summed over threads.
struct Times {
  std::atomic<int64_t> read{0}, decode{0}, render{0}, images{0};
};

// Samples on their way into one batch: into views, or, with `gather`, into decoded images, of which as much as the views need;
// but those at positions below `leave` are gathered as they are where a decoder of the device can be trusted with them and
// has room for their pixels.
class Job {
 public:
  Job(Samples samples, std::vector<Output> outputs, core::ViewPlan* plans, std::shared_ptr<Gather> gather = nullptr,
      int64_t leave = 0)
      : samples(std::move(samples)),
        outputs(std::move(outputs)),
        plans(plans),
        gather(std::move(gather)),
        leave(leave),
        left(int64_t(this->samples.size())) {}

  // Whether all samples are done, after at most `milliseconds`.
  bool wait(int milliseconds);
  // Ends every wait(), now and from now on.
  void wake();
  std::vector<Failure> failures();

 private:
  friend class Engine;
  const Samples samples;
  const std::vector<Output> outputs;  // one a view
  core::ViewPlan* const plans;  // batch x views
  const std::shared_ptr<Gather> gather;
  const int64_t leave;
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> left;
  std::mutex mutex;
  std::condition_variable done;
  bool woken = false;
  std::vector<Failure> failed;
};

struct Worker;

class Engine {
 public:
  Engine(Settings settings, Callbacks callbacks);
  ~Engine() { close(); }

  // After close() it does nothing. An urgent job, for which somebody waits, comes before all that are not begun.
  void submit(const std::shared_ptr<Job>& job, bool urgent = false);
  // Ends what has begun, drops the rest, joins the threads. Jobs that were dropped never become done. On one of its own
  // threads, which cannot wait for itself, it lets the threads run out and returns false: call it again elsewhere.
  bool close();
  const Times& times() const { return times_; }

 private:
  void work(Job& job);
  void process(Job& job, size_t i, int64_t& clock);
  Fetched fetch(const Job& job, size_t i, Scratch<uint8_t>& file) const;
  bool keep(Worker& worker, int64_t index, bool jpeg, const std::string& label, ImageView& image) const;

  const Settings settings_;
  const Callbacks callbacks_;
  Times times_;
  std::atomic<bool> closed_{false};
  const pid_t owner_;  // the process that has the threads
  std::mutex mutex_;  // of the pointer below: one thread may close what another submits to
  std::unique_ptr<ThreadPool> pool_;
};

}  // namespace fastssl::cpu
