#include "thread-pool.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <thread>

#include "blocking-operation.h"
#include "ring.h"

namespace cowherd {

namespace {

// What one thread takes at once: buffered writes to one inode run one after the other in the
// kernel, so several threads would only wake, wait for each other and wake JavaScript more often.
// 64 writes of 4 KiB run at 500 thousand a second this way; spread over two threads, at 85.
constexpr size_t kBatchRequests = 64;
constexpr uint64_t kBatchBytes = 256 * 1024;

}  // namespace

// Never destroyed: detached threads may still look at them while the process exits.
ThreadPool& ThreadPool::files() {
  static ThreadPool* const pool = new ThreadPool(8);
  return *pool;
}

ThreadPool& ThreadPool::codecs() {
  static ThreadPool* const pool =
      new ThreadPool(std::max(1U, std::thread::hardware_concurrency()));
  return *pool;
}

void ThreadPool::submit(Request* first, Request* last, size_t count) {
  unsigned wake = 0;
  unsigned start = 0;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    last->next = nullptr;
    if (last_ == nullptr) {
      first_ = first;
    } else {
      last_->next = first;
    }
    last_ = last;
    queued_ += count;
    const size_t wanted =
        first->isWrite() ? (queued_ + kBatchRequests - 1) / kBatchRequests : queued_;
    wake = static_cast<unsigned>(std::min<size_t>(wanted, idle_));
    if (wake == 0 && threads_ < limit_) {
      start = 1;
      threads_ += 1;
    }
  }
  for (; wake > 0; wake -= 1) arrived_.notify_one();
  if (start == 0) return;
  // Signals belong to the program's threads.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread([this] { work(); }).detach();
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Request* ThreadPool::abandon(const Ring* ring) {
  std::lock_guard<std::mutex> lock(mutex_);
  Request* taken = nullptr;
  Request** link = &first_;
  last_ = nullptr;
  while (*link != nullptr) {
    Request* const request = *link;
    if (request->ring == ring) {
      *link = request->next;
      request->next = taken;
      taken = request;
      queued_ -= 1;
    } else {
      last_ = request;
      link = &request->next;
    }
  }
  return taken;
}

void ThreadPool::work() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    while (first_ == nullptr) {
      idle_ += 1;
      arrived_.wait(lock);
      idle_ -= 1;
    }
    Request* batch = first_;
    Request* end = first_;
    size_t count = 1;
    uint64_t bytes = end->remaining;
    while (end->isWrite() && end->next != nullptr && end->next->isWrite() &&
           count < kBatchRequests && bytes + end->next->remaining <= kBatchBytes) {
      end = end->next;
      count += 1;
      bytes += end->remaining;
    }
    first_ = end->next;
    if (first_ == nullptr) last_ = nullptr;
    queued_ -= count;
    end->next = nullptr;
    lock.unlock();

    // Requests of one batch may belong to several rings; each is woken when its run ends.
    while (batch != nullptr) {
      Request* const request = batch;
      batch = request->next;
      Ring* const ring = request->ring;
      request->result = performBlocking(request);
      const bool lastOfRun = batch == nullptr || batch->ring != ring;
      ring->post(request, lastOfRun);
    }
    lock.lock();
  }
}

}  // namespace cowherd
