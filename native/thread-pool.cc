#include "thread-pool.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <thread>

#include "blocking-operation.h"
#include "file.h"
#include "ring.h"

namespace cowherd {

namespace {

// What one thread takes at once: buffered writes to one inode run one after the other in the
// kernel, so several threads would only wake, wait for each other and wake JavaScript more often.
// 64 writes of 4 KiB run at 500 thousand a second this way; spread over two threads, at 85. Joining
// neighbours into one call was tried: the larger folios it brings made sequential writes slower.
constexpr size_t kBatchRequests = 64;
// JavaScript hears of so many ends at once, and prepares more while the rest is being written.
constexpr size_t kAnnouncedRequests = 16;
constexpr uint64_t kBatchBytes = 256 * 1024;

bool isCachedWrite(const Request* request) {
  return request->isWrite() && !request->file->direct;
}

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
  size_t cachedWrites = 0;
  for (const Request* request = first;; request = request->next) {
    if (isCachedWrite(request)) cachedWrites += 1;
    if (request == last) break;
  }
  unsigned wake;
  unsigned start;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    last->next = nullptr;
    if (last_ == nullptr) {
      first_ = first;
    } else {
      last_->next = first;
    }
    last_ = last;
    // A thread that writes to the page cache is back at the queue in no time; nobody need come.
    const size_t wanted = count - cachedWrites + (cachedWrites > 0 && writing_ == 0 ? 1 : 0);
    wake = static_cast<unsigned>(std::min<size_t>(wanted, idle_));
    start = static_cast<unsigned>(std::min<size_t>(wanted - wake, limit_ - threads_));
    threads_ += start;
  }
  for (; wake > 0; wake -= 1) arrived_.notify_one();
  for (; start > 0; start -= 1) startThread();
}

void ThreadPool::startThread() {
  // Signals belong to the program's threads.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  const int error = ::pthread_create(
      &thread, nullptr,
      [](void* pool) -> void* {
        static_cast<ThreadPool*>(pool)->work();
        return nullptr;
      },
      this);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error == 0) {
    ::pthread_detach(thread);
    return;
  }
  std::unique_lock<std::mutex> lock(mutex_);
  threads_ -= 1;
  // The system has no thread for us: better to hold JavaScript up than never to answer.
  while (threads_ == 0 && first_ != nullptr) workOnce(&lock);
}

bool ThreadPool::isWriting() {
  std::lock_guard<std::mutex> lock(mutex_);
  return writing_ > 0;
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
    workOnce(&lock);
  }
}

void ThreadPool::workOnce(std::unique_lock<std::mutex>* lock) {
  Request* batch = first_;
  Request* end = first_;
  size_t count = 1;
  uint64_t bytes = end->remaining;
  const bool cached = isCachedWrite(end);
  while (cached && end->next != nullptr && isCachedWrite(end->next) && count < kBatchRequests &&
         bytes + end->next->remaining <= kBatchBytes) {
    end = end->next;
    count += 1;
    bytes += end->remaining;
  }
  first_ = end->next;
  if (first_ == nullptr) last_ = nullptr;
  end->next = nullptr;
  if (cached) writing_ += 1;
  lock->unlock();

  // Requests of one batch may belong to several rings; each is woken when its run ends.
  size_t unannounced = 0;
  while (batch != nullptr) {
    Request* const request = batch;
    batch = request->next;
    Ring* const ring = request->ring;
    request->result = performBlocking(request);
    unannounced += 1;
    const bool lastOfRun = batch == nullptr || batch->ring != ring;
    const bool announce = lastOfRun || unannounced >= kAnnouncedRequests;
    ring->post(request, announce);
    if (announce) unannounced = 0;
  }
  lock->lock();
  if (cached) writing_ -= 1;
}

}  // namespace cowherd
