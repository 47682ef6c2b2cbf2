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
#include "render.h"
#include "thread_pool.h"

namespace fastssl::cpu {

// An image from elsewhere: pixels, or encoded bytes; `owner` keeps either alive.
struct Fetched {
  std::shared_ptr<void> owner;
  const uint8_t* bytes = nullptr;  // encoded, if not null
  size_t size = 0;
  ImageView image;
};

// Both throw DecodeError with the reason.
struct Callbacks {
  std::function<Fetched(int64_t index)> fetch;  // a sample that has no path
  std::function<Fetched(const uint8_t* bytes, size_t size)> decode_other;  // data that is no JPEG
};

struct Sample {
  int64_t index = 0;  // in the source
  int64_t position = 0;  // in the batch
  uint32_t epoch = 0, repeat = 0;
  std::string path;  // empty: fetch(index)
};

struct Failure {
  int64_t position;
  std::string reason;
};

// Nanoseconds summed over threads.
struct Times {
  std::atomic<int64_t> read{0}, decode{0}, render{0}, images{0};
};

// Samples on their way into one batch.
class Job {
 public:
  Job(std::vector<Sample> samples, std::vector<Output> outputs, core::ViewPlan* plans)
      : samples(std::move(samples)), outputs(std::move(outputs)), plans(plans), left(int64_t(this->samples.size())) {}

  // Whether all samples are done, after at most `milliseconds`.
  bool wait(int milliseconds);
  std::vector<Failure> failures();

 private:
  friend class Engine;
  const std::vector<Sample> samples;
  const std::vector<Output> outputs;  // one a view
  core::ViewPlan* const plans;  // batch x views
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> left;
  std::mutex mutex;
  std::condition_variable done;
  std::vector<Failure> failed;
};

class Engine {
 public:
  // With a cache, what it does not hold is decoded whole and stored.
  Engine(int threads, std::vector<core::ViewSpec> views, uint64_t seed, Callbacks callbacks,
         std::shared_ptr<Cache> cache = nullptr);
  ~Engine() { close(); }

  // After close() it does nothing.
  void submit(const std::shared_ptr<Job>& job);
  // Ends what has begun, drops the rest, joins the threads. Jobs that were dropped never become done. On one of its own
  // threads, which cannot wait for itself, it lets the threads run out and returns false: call it again elsewhere.
  bool close();
  const Times& times() const { return times_; }

 private:
  void work(Job& job);
  void process(Job& job, const Sample& sample);
  bool process_kept(Job& job, const Sample& sample);

  const std::vector<core::ViewSpec> views_;
  const uint64_t seed_;
  const Callbacks callbacks_;
  const std::shared_ptr<Cache> cache_;
  Times times_;
  std::atomic<bool> closed_{false};
  const pid_t owner_;  // the process that has the threads
  std::mutex mutex_;  // of the pointer below: one thread may close what another submits to
  std::unique_ptr<ThreadPool> pool_;
};

}  // namespace fastssl::cpu
