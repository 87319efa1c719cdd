#include "thread-pool.h"

#include <algorithm>
#include <thread>

#include "blocking-operation.h"
#include "copy-order.h"
#include "detached-thread.h"
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

/** Whether one thread at a time does best for such requests of one file. */
bool isBestAlone(const Request* request) {
  if (request->opcode == Opcode::kCopyData) {
    return request->order != nullptr && request->order->isBestAlone();
  }
  return request->isWrite() && !request->file->direct;
}

}  // namespace

// Never destroyed: detached threads may still look at them while the process exits.
ThreadPool& ThreadPool::files() {
  static ThreadPool* const pool = new ThreadPool(8);
  return *pool;
}

ThreadPool& ThreadPool::data() {
  // So many reads of a disk that are under way at a time; more cost more than they bring.
  static ThreadPool* const pool = new ThreadPool(4);
  return *pool;
}

ThreadPool& ThreadPool::codecs() {
  static ThreadPool* const pool =
      new ThreadPool(std::max(1U, std::thread::hardware_concurrency()));
  return *pool;
}

void ThreadPool::submit(Request* first, Request* last, size_t count) {
  unsigned wake;
  unsigned start;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    last->next = nullptr;
    size_t alone = 0;
    for (Request* request = first; request != nullptr;) {
      Request* const next = request->next;
      const bool isAlone = isBestAlone(request);
      if (isAlone) alone += 1;
      (isAlone ? writes_ : others_).append(request);
      request = next;
    }
    // A thread that writes to the page cache is back at the queue in no time; nobody need come.
    const size_t wanted = count - alone + (readyWrite() != nullptr ? 1 : 0);
    wake = static_cast<unsigned>(std::min<size_t>(wanted, idle_));
    start = static_cast<unsigned>(std::min<size_t>(wanted - wake, limit_ - threads_));
    threads_ += start;
  }
  for (; wake > 0; wake -= 1) arrived_.notify_one();
  for (; start > 0; start -= 1) startThread();
}

void ThreadPool::startThread() {
  const auto run = [](void* pool) -> void* {
    static_cast<ThreadPool*>(pool)->work();
    return nullptr;
  };
  if (startDetachedThread(run, this)) return;
  std::unique_lock<std::mutex> lock(mutex_);
  threads_ -= 1;
  // The system has no thread for us: better to hold JavaScript up than never to answer.
  while (threads_ == 0 && hasWork()) workOnce(&lock);
}

bool ThreadPool::isWriting() {
  std::lock_guard<std::mutex> lock(mutex_);
  return !written_.empty();
}

void ThreadPool::Queue::append(Request* request) {
  request->next = nullptr;
  if (last == nullptr) {
    first = request;
  } else {
    last->next = request;
  }
  last = request;
}

Request* ThreadPool::Queue::abandon(const Ring* ring, Request* taken) {
  Request* request = first;
  first = nullptr;
  last = nullptr;
  while (request != nullptr) {
    Request* const next = request->next;
    if (request->ring == ring) {
      request->next = taken;
      taken = request;
    } else {
      append(request);
    }
    request = next;
  }
  return taken;
}

Request* ThreadPool::abandon(const Ring* ring) {
  std::lock_guard<std::mutex> lock(mutex_);
  return others_.abandon(ring, writes_.abandon(ring, nullptr));
}

Request** ThreadPool::readyWrite() {
  Request** link = &writes_.first;
  const auto isWritten = [this](const File* file) {
    return std::find(written_.begin(), written_.end(), file) != written_.end();
  };
  while (*link != nullptr && isWritten((*link)->file)) link = &(*link)->next;
  return *link == nullptr ? nullptr : link;
}

void ThreadPool::work() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    while (!hasWork()) {
      idle_ += 1;
      arrived_.wait(lock);
      idle_ -= 1;
    }
    workOnce(&lock);
  }
}

void ThreadPool::workOnce(std::unique_lock<std::mutex>* lock) {
  Request** const write = readyWrite();
  if (write == nullptr) {
    Request* const request = others_.first;
    others_.first = request->next;
    if (others_.first == nullptr) others_.last = nullptr;
    request->next = nullptr;
    lock->unlock();
    performAndPost(request);
    lock->lock();
    return;
  }
  Request* const batch = takeWrites(write);
  const File* const file = batch->file;
  written_.push_back(file);
  lock->unlock();
  performAndPost(batch);
  lock->lock();
  written_.erase(std::find(written_.begin(), written_.end(), file));
}

Request* ThreadPool::takeWrites(Request** link) {
  Request* const batch = *link;
  Request* end = batch;
  size_t count = 1;
  uint64_t bytes = end->remaining;
  while (end->next != nullptr && end->next->file == batch->file && count < kBatchRequests &&
         bytes + end->next->remaining <= kBatchBytes) {
    end = end->next;
    count += 1;
    bytes += end->remaining;
  }
  *link = end->next;
  if (writes_.last == end) {
    Request* last = writes_.first;
    while (last != nullptr && last->next != nullptr) last = last->next;
    writes_.last = last;
  }
  end->next = nullptr;
  return batch;
}

void ThreadPool::performAndPost(Request* batch) {
  // Requests of one batch may belong to several rings; each is woken when its run ends.
  size_t unannounced = 0;
  while (batch != nullptr) {
    Request* const request = batch;
    batch = request->next;
    Ring* const ring = request->ring;
    const int64_t result = performBlocking(request);
    if (result == kKeptForLater) continue;
    request->result = result;
    batch = request->leaveOrder(batch);
    unannounced += 1;
    const bool lastOfRun = batch == nullptr || batch->ring != ring;
    const bool announce =
        lastOfRun || unannounced >= kAnnouncedRequests || request->whole != nullptr;
    Request* const ended = request->ended();
    if (ended != nullptr) ring->post(ended, announce);
    if (announce) unannounced = 0;
  }
}

}  // namespace cowherd
