#include "thread_pool.h"

#include <unistd.h>

#include <atomic>
#include <exception>
#include <memory>
#include <utility>

namespace fastssl::cpu {

ThreadPool::ThreadPool(int threads) {
  threads_.reserve(size_t(threads));
  try {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { run(); });
  } catch (...) {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
    throw;
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    tasks_.clear();
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::post(const std::function<void()>& task, int copies, bool urgent) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.insert(urgent ? tasks_.begin() : tasks_.end(), size_t(copies), task);
  }
  wake_.notify_all();
}

void ThreadPool::run() {
  for (;;) {
    std::function<void()> task;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stop_ || !tasks_.empty(); });
      if (stop_) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

namespace {

// Note [Fork]
// A forked child has the pool's memory but not its threads. It leaves the parent's pool alone, mutex and all, and makes its own.

std::shared_ptr<ThreadPool> shared_pool(int threads) {
  static std::mutex* mutex = new std::mutex;
  static std::shared_ptr<ThreadPool>* pool = new std::shared_ptr<ThreadPool>;
  static pid_t owner = getpid();
  if (owner != getpid()) {
    mutex = new std::mutex;
    pool = new std::shared_ptr<ThreadPool>;
    owner = getpid();
  }
  const std::lock_guard lock(*mutex);
  if (!*pool || (*pool)->size() < threads) *pool = std::make_shared<ThreadPool>(threads);
  return *pool;
}

// What the threads of one parallel_for share; a task that starts late finds nothing left to do, and no dangling pointer.
struct Work {
  std::function<void(int64_t)> f;
  int64_t n;
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::condition_variable idle;
  int running = 0;
  std::exception_ptr error;

  void run() {
    {
      const std::lock_guard lock(mutex);
      ++running;
    }
    try {
      for (int64_t i; (i = next.fetch_add(1)) < n;) f(i);
    } catch (...) {
      next.store(n);
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
    }
    const std::lock_guard lock(mutex);
    if (--running == 0) idle.notify_all();
  }
};

}  // namespace

void parallel_for(int64_t n, int threads, const std::function<void(int64_t)>& f) {
  if (threads <= 1 || n <= 1) {
    for (int64_t i = 0; i < n; ++i) f(i);
    return;
  }
  const auto work = std::make_shared<Work>();
  work->f = f;
  work->n = n;
  const int helpers = int(std::min<int64_t>(threads, n)) - 1;
  const std::shared_ptr<ThreadPool> pool = shared_pool(helpers);
  pool->post([work] { work->run(); }, helpers);
  work->run();
  std::unique_lock lock(work->mutex);
  work->idle.wait(lock, [&] { return work->running == 0; });
  if (work->error) std::rethrow_exception(work->error);
}

}  // namespace fastssl::cpu
