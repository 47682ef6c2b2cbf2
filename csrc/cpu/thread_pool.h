// Threads that run posted tasks in the order of posting, urgent ones first.
//
// A task takes its work in pieces from an atomic counter that it shares with its fellows, so no lock is on the hot path.
// Tasks must not throw. Destruction runs what has begun, drops what has not, and joins.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace fastssl::cpu {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return int(threads_.size()); }
  // Queues `copies` runs of the same task: before all that wait, if it is urgent.
  void post(const std::function<void()>& task, int copies, bool urgent = false);

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

// Calls f(0) to f(n - 1), on the calling thread and on up to threads - 1 threads of a pool that this process shares. The
// first exception is thrown again here, after all calls that had begun have ended.
void parallel_for(int64_t n, int threads, const std::function<void(int64_t)>& f);

}  // namespace fastssl::cpu
