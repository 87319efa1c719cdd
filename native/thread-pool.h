#ifndef COWHERD_THREAD_POOL_H
#define COWHERD_THREAD_POOL_H

#include <condition_variable>
#include <mutex>
#include <vector>

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
  /** For copies and comparisons of data: of copies into one file, one writes while others read. */
  static ThreadPool& data();
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
  /** Requests waiting, linked by `next`. */
  struct Queue {
    Request* first = nullptr;
    Request* last = nullptr;
    void append(Request* request);
    /** Takes the requests of a ring out, as a list in front of `taken`. */
    Request* abandon(const Ring* ring, Request* taken);
  };
  /** The link to the first of `writes_` whose file no thread writes to, or null. */
  Request** readyWrite();
  /** Whether a thread would find something to do. */
  bool hasWork() { return others_.first != nullptr || readyWrite() != nullptr; }
  /** Takes a batch from a queue and carries it out, with the lock given up meanwhile. */
  void workOnce(std::unique_lock<std::mutex>* lock);
  /** The batch of writes that begins at a link, unlinked. */
  Request* takeWrites(Request** link);
  void performAndPost(Request* batch);

  const unsigned limit_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  /** Writes to the page cache, and copies: one thread at a time does best for those of one file. */
  Queue writes_;
  Queue others_;
  unsigned threads_ = 0;
  unsigned idle_ = 0;
  /** Files whose `writes_` a thread carries out; only compared, they may be gone. */
  std::vector<const File*> written_;
};

}  // namespace cowherd

#endif
