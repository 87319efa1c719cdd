#ifndef COWHERD_THREAD_POOL_H
#define COWHERD_THREAD_POOL_H

#include <condition_variable>
#include <mutex>

#include "request.h"

namespace cowherd {

/**
 * Threads of our own, shared by every ring of the process and started as work arrives: libuv's few
 * are the program's. They live as long as the process and touch no JavaScript.
 */
class ThreadPool {
 public:
  /** For file operations, which wait. */
  static ThreadPool& files();
  /** For codecs, which compute. */
  static ThreadPool& codecs();
  /** Whether a thread writes to the page cache just now, and will look for more when it is done. */
  bool isWriting();

  /** Queues a list of requests, linked by `next`; the pool owns them until it posts them back. */
  void submit(Request* first, Request* last, size_t count);
  /** Takes a ring's requests that no thread has begun out again, as a list. */
  Request* abandon(const Ring* ring);

 private:
  explicit ThreadPool(unsigned limit) : limit_(limit) {}
  void startThread();
  void work();
  /** Takes a batch from the queue and carries it out, with the lock given up meanwhile. */
  void workOnce(std::unique_lock<std::mutex>* lock);

  const unsigned limit_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  Request* first_ = nullptr;
  Request* last_ = nullptr;
  unsigned threads_ = 0;
  unsigned idle_ = 0;
  /** Threads inside a batch of writes to the page cache. */
  unsigned writing_ = 0;
};

}  // namespace cowherd

#endif
