#include "ring.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "blocking-operation.h"
#include "environment.h"
#include "file.h"
#include "read-helper.h"
#include "segments.h"
#include "thread-pool.h"

namespace cowherd {

namespace {

constexpr unsigned kUringEntries = 256;
/** Longest buffered read tried inline: copying more would hold JavaScript up for too long. */
constexpr uint64_t kInlineBytes = 256 * 1024;
/** Fewer inline reads than these are copied before the helper would have begun. */
constexpr size_t kHelpedReads = 16;
/** Longest single transfer asked of the kernel, whose own limit is a page short of 2 GiB. */
constexpr uint64_t kTransferBytes = 1 << 30;

unsigned powerOfTwoAtLeast(unsigned value) {
  unsigned power = 1;
  while (power < value) power *= 2;
  return power;
}

}  // namespace

Ring* Ring::create(napi_env env, Environment* environment, Engine engine, const Shared& shared,
                   napi_value onCompletions, int* error) {
  uv_loop_t* loop = nullptr;
  if (napi_get_uv_event_loop(env, &loop) != napi_ok) {
    *error = -EINVAL;
    return nullptr;
  }
  std::unique_ptr<Uring> uring;
  if (engine != Engine::kThreads) {
    uring = Uring::create(kUringEntries, powerOfTwoAtLeast(std::max(shared.slots, kUringEntries)),
                          error);
    if (uring == nullptr && engine == Engine::kUring) return nullptr;
  }
  Ring* const ring = new Ring(powerOfTwoAtLeast(shared.slots));
  ring->environment_ = environment;
  ring->engine_ = uring == nullptr ? Engine::kThreads : engine;
  ring->shared_ = shared;
  ring->uring_ = std::move(uring);
  ring->requests_ = std::vector<Request>(shared.slots);
  for (uint32_t slot = 0; slot < shared.slots; slot += 1) {
    ring->requests_[slot].slot = static_cast<int>(slot);
    ring->requests_[slot].ring = ring;
  }
  ring->callback_.open(env, onCompletions, "cowherd.ring");

  ring->async_.data = ring;
  uv_async_init(loop, &ring->async_,
                [](uv_async_t* handle) { onWakeup(static_cast<Ring*>(handle->data)); });
  uv_unref(reinterpret_cast<uv_handle_t*>(&ring->async_));
  ring->references_ += 1;
  ring->idle_.data = ring;
  uv_idle_init(loop, &ring->idle_);
  uv_unref(reinterpret_cast<uv_handle_t*>(&ring->idle_));
  ring->references_ += 1;
  if (ring->uring_ != nullptr) {
    ring->poll_.data = ring;
    uv_poll_init(loop, &ring->poll_, ring->uring_->descriptor());
    uv_poll_start(&ring->poll_, UV_READABLE, [](uv_poll_t* handle, int, int) {
      onWakeup(static_cast<Ring*>(handle->data));
    });
    uv_unref(reinterpret_cast<uv_handle_t*>(&ring->poll_));
    ring->references_ += 1;
  }
  environment->add(ring);
  return ring;
}

uint32_t Ring::submit(uint32_t count) {
  if (closed_) return 0;
  completedCount_ = 0;
  for (uint32_t index = 0; index < count; index += 1) {
    const uint32_t slot = static_cast<uint32_t>(shared_.pending[index]);
    if (slot >= shared_.slots) continue;
    const double* const record = &shared_.table[slot * kRecordFields];
    Request* const request = &requests_[slot];
    request->opcode = static_cast<Opcode>(static_cast<int>(record[3]));
    request->offset = static_cast<uint64_t>(record[1]);
    request->remaining = static_cast<uint64_t>(record[2]);
    request->transferred = 0;
    request->single.iov_base = reinterpret_cast<void*>(static_cast<uintptr_t>(record[0]));
    request->single.iov_len = request->remaining;
    request->vectorIndex = 0;
    request->parameter = static_cast<int>(record[5]);
    request->output = reinterpret_cast<char*>(static_cast<uintptr_t>(record[6]));
    request->outputLength = static_cast<uint64_t>(record[7]);
    request->sourceOffset = static_cast<uint64_t>(record[6]);
    request->file = request->isCodec() ? nullptr : File::find(record[4]);
    request->source =
        request->opcode == Opcode::kCopyRange ? File::find(record[7]) : nullptr;
    if (request->isShared()) divide(request);
    inFlight_ += 1;
    start(request);
  }
  shareInlineReads();
  // Buffered writes are quickest on one of our threads if it is awake or there are several; a
  // single one on the kernel's, which does not divide a large one.
  if (uring_ != nullptr && filePool_.count == 1 && !ThreadPool::files().isWriting()) {
    Request* const lone = filePool_.first;
    if (lone->isWrite() && !lone->file->direct && lone->remaining <= kPieceBytes) {
      filePool_ = PoolList();
      toUring(lone);
    }
  }
  flush();
  awaitRest();
  return completedCount_;
}

namespace {

/** Segments as JavaScript gives them, three numbers each, taken from the first byte on. */
class SegmentReader {
 public:
  explicit SegmentReader(const double* numbers) : next_(numbers) {}

  /** Takes so many bytes. @returns whether there are such segments, of files that are open */
  bool take(uint64_t length, std::vector<Segment>* segments) {
    segments->clear();
    while (length > 0) {
      Segment segment = {nullptr, static_cast<uint64_t>(next_[1]) + taken_,
                         static_cast<uint64_t>(next_[2]) - taken_};
      if (next_[0] != 0) segment.file = File::find(next_[0]);
      if ((next_[0] != 0 && segment.file == nullptr) || segment.length == 0) return false;
      if (segment.length <= length) {
        next_ += 3;
        taken_ = 0;
      } else {
        segment.length = length;
        taken_ += length;
      }
      segments->push_back(segment);
      length -= segment.length;
    }
    return true;
  }

 private:
  const double* next_;
  /** Bytes of the next segment that were taken before. */
  uint64_t taken_ = 0;
};

}  // namespace

void Ring::divide(Request* request) {
  if (request->work == nullptr) request->work = std::make_shared<SharedWork>();
  SharedWork* const work = request->work.get();
  const std::shared_ptr<CopyOrder> order = std::move(request->order);
  request->order.reset();
  const double* const numbers = static_cast<const double*>(request->single.iov_base);
  const uint64_t partBytes = std::max<uint64_t>(1, static_cast<uint64_t>(numbers[0]));
  const uint64_t length = request->remaining;
  const size_t count = (length + partBytes - 1) / partBytes;
  const bool isCopy = request->opcode == Opcode::kCopyData;
  const size_t notes = isCopy && count > 0 ? request->outputLength / count : 0;
  SegmentReader segments(numbers + 1);
  SegmentReader others(reinterpret_cast<const double*>(request->output));
  work->parts.resize(count);
  work->result.store(0);
  size_t used = 0;
  for (size_t index = 0; index < count; index += 1) {
    Request* const part = &work->parts[used];
    const uint64_t start = index * partBytes;
    part->opcode = request->opcode;
    part->ring = this;
    part->file = request->file;
    part->whole = request;
    part->offset = request->offset + start;
    part->remaining = std::min(partBytes, length - start);
    part->parameter = request->parameter;
    part->output = request->output + index * notes * sizeof(double);
    part->outputLength = notes;
    if (!segments.take(part->remaining, &part->segments) ||
        (!isCopy && !others.take(part->remaining, &part->others))) {
      request->file = nullptr;
      return;
    }
    // Of nothing but zeroes, nothing is copied, unless they are to be written.
    const bool isLeftOut = isCopy && part->parameter > 0 && areZeroes(part->segments);
    if (!isLeftOut) used += 1;
  }
  work->parts.resize(used);
  work->left.store(used);
  if (order == nullptr) return;
  for (Request& part : work->parts) {
    part.order = order;
    part.ticket = order->join();
  }
}

void Ring::start(Request* request) {
  if (request->isCodec()) {
    toPool(request);
    return;
  }
  if (request->file == nullptr) {
    finish(request, -EBADF);
    return;
  }
  const bool isTransfer = request->isRead() || request->isWrite();
  if (request->isShared() ? request->work->parts.empty()
                          : isTransfer && request->remaining == 0) {
    finish(request, 0);
    return;
  }
  if (request->opcode == Opcode::kClose) environment_->forget(request->file);
  if (request->isRead()) {
    startRead(request);
  } else if (request->isShared()) {
    toPoolInParts(request);
  } else if (enterGate(request)) {
    startAdmitted(request);
  }
}

void Ring::startRead(Request* request) {
  File* const file = request->file;
  if (file->direct) {
    if (uring_ != nullptr && request->aligned(file->requestAlignment, file->memoryAlignment)) {
      toUring(request);
    } else {
      toPool(request);
    }
    return;
  }
  if (engine_ == Engine::kUring) {
    toUring(request);
    return;
  }
  // What is in the page cache is quickest copied here and now.
  if (request->remaining <= kInlineBytes && !inlineReads_.full() &&
      !file->refusesNowait.load(std::memory_order_relaxed)) {
    inlineReads_.add(request);
    return;
  }
  startWaitingRead(request);
}

void Ring::shareInlineReads() {
  const size_t underWay = inlineReads_.underWay();
  if (underWay == 0) return;
  inlineReads_.offer();
  if (!helped_ && underWay >= kHelpedReads) helped_ = ReadHelper::shared().attach(&inlineReads_);
  if (helped_) {
    ReadHelper::shared().wake();
    // The other half is copied while JavaScript deals with this one.
    performInlineReads(underWay / 2);
  } else {
    performInlineReads(underWay);
  }
}

void Ring::performInlineReads(size_t wanted) {
  size_t ended = reapInlineReads();
  for (bool more = true; more && ended < wanted; ended += reapInlineReads()) {
    // The helper copies as much meanwhile.
    const size_t share = (wanted - ended + 1) / 2;
    for (size_t copied = 0; copied < share && more; copied += InlineReads::kTaken) {
      more = inlineReads_.copySome();
    }
  }
  if (helped_ && inlineReads_.underWay() == 0) {
    ReadHelper::shared().detach();
    helped_ = false;
  }
}

size_t Ring::reapInlineReads() {
  return inlineReads_.reap(
      [this](Request* request, ssize_t result) { onInlineResult(request, result); });
}

void Ring::onInlineResult(Request* request, ssize_t result) {
  if (result > 0) {
    request->advance(static_cast<uint64_t>(result));
  } else if (result == -EOPNOTSUPP || result == -ENOSYS) {
    request->file->refusesNowait.store(true, std::memory_order_relaxed);
  }
  if (request->remaining == 0) {
    finish(request, 0);
  } else {
    startWaitingRead(request);
  }
}

void Ring::startWaitingRead(Request* request) {
  if (uring_ != nullptr && request->remaining <= kInlineBytes) {
    toUring(request);
  } else {
    toPool(request);
  }
}

bool Ring::enterGate(Request* request) {
  File* const file = request->file;
  if (!file->direct || request->opcode == Opcode::kFlush || request->opcode == Opcode::kClose) {
    return true;
  }
  constexpr uint64_t kForever = std::numeric_limits<uint64_t>::max();
  request->gateExclusive = false;
  request->gated.start = request->offset;
  request->gated.end = request->offset + request->remaining;
  if (request->opcode == Opcode::kTruncate) {
    request->gated.end = kForever;
  } else if (request->isWrite() || request->opcode == Opcode::kWriteZeroes) {
    const uint64_t mask = file->requestAlignment - 1;
    if (((request->offset | request->remaining) & mask) != 0) {
      request->gateExclusive = true;
      request->gated.start &= ~mask;
      request->gated.end = (request->gated.end + mask) & ~mask;
      // Growing to an unaligned length means growing too far and cutting back.
      struct stat facts;
      if (::fstat(file->descriptor(), &facts) != 0 ||
          static_cast<uint64_t>(facts.st_size) < request->gated.end) {
        request->gated.end = kForever;
      }
    }
  }
  return file->gate.enter(request);
}

void Ring::startAdmitted(Request* request) {
  const File* const file = request->file;
  const bool byUring =
      uring_ != nullptr && (engine_ == Engine::kUring || file->direct) &&
      (request->opcode == Opcode::kFlush ||
       (request->isWrite() && request->aligned(file->requestAlignment, file->memoryAlignment)));
  if (byUring) {
    toUring(request);
  } else {
    toPool(request);
  }
}

void Ring::toUring(Request* request) {
  io_uring_sqe* entry = uring_->prepare();
  if (entry == nullptr) {
    uring_->submit();
    entry = uring_->prepare();
    if (entry == nullptr) {
      toPool(request);
      return;
    }
  }
  inUring_ += 1;
  entry->user_data = reinterpret_cast<uintptr_t>(request);
  entry->fd = request->file->descriptor();
  if (request->opcode == Opcode::kFlush) {
    entry->opcode = IORING_OP_FSYNC;
    entry->fsync_flags = IORING_FSYNC_DATASYNC;
    return;
  }
  entry->off = request->offset;
  if (request->isVector()) {
    entry->opcode = request->isRead() ? IORING_OP_READV : IORING_OP_WRITEV;
    entry->addr = reinterpret_cast<uintptr_t>(request->buffers());
    entry->len = static_cast<uint32_t>(request->bufferCount());
  } else {
    entry->opcode = request->isRead() ? IORING_OP_READ : IORING_OP_WRITE;
    entry->addr = reinterpret_cast<uintptr_t>(request->single.iov_base);
    entry->len = static_cast<uint32_t>(std::min<uint64_t>(request->remaining, kTransferBytes));
  }
}

void Ring::toPoolInParts(Request* request) {
  for (Request& part : request->work->parts) dataPool_.append(&part);
}

void Ring::toPool(Request* request) {
  (request->isCodec() ? codecPool_ : filePool_).append(request);
}

void Ring::PoolList::append(Request* request) {
  request->next = nullptr;
  if (last == nullptr) {
    first = request;
  } else {
    last->next = request;
  }
  last = request;
  count += 1;
}

void Ring::finish(Request* request, int64_t result) {
  if (request->inGate) request->file->gate.leave(request);
  request->file = nullptr;
  request->memory.reset();
  request->cipher.reset();
  inFlight_ -= 1;
  shared_.table[static_cast<size_t>(request->slot) * kRecordFields] = static_cast<double>(result);
  shared_.completed[completedCount_] = request->slot;
  completedCount_ += 1;
}

void Ring::onUringResult(Request* request, int result) {
  inUring_ -= 1;
  if (result == -EINTR) {
    toUring(request);
  } else if (result == -EAGAIN || (result == -ECANCELED && !draining_)) {
    // The kernel cannot do it without waiting, nor wait by itself, or has no thread for it because
    // signals kept it from starting one: one of ours will.
    toPool(request);
  } else if (result < 0 || request->opcode == Opcode::kFlush) {
    finish(request, result);
  } else if (request->isRead()) {
    request->advance(static_cast<uint64_t>(result));
    const bool endOfFile = result == 0 || (request->file->direct &&
                                           (result & (request->file->requestAlignment - 1)) != 0);
    if (endOfFile) request->zeroRest();
    if (request->remaining == 0) {
      finish(request, 0);
    } else {
      toUring(request);
    }
  } else {
    request->advance(static_cast<uint64_t>(result));
    if (request->remaining == 0) {
      finish(request, 0);
    } else if (result == 0) {
      finish(request, -ENOSPC);
    } else {
      toUring(request);
    }
  }
}

void Ring::flush() {
  drainMailbox();
  flushPools();
  if (uring_ != nullptr) {
    // Twice at most in practice: short transfers are continued at once.
    while (inUring_ > 0) {
      const int error = uring_->submit();
      const unsigned reaped = uring_->reap([this](uint64_t userData, int result) {
        onUringResult(reinterpret_cast<Request*>(userData), result);
      });
      if (error < 0 && reaped == 0) {
        // The kernel is short of memory; what it did not take is offered again soon.
        uv_async_send(&async_);
        break;
      }
      if (uring_->prepared() == 0) break;
    }
  }
  flushPools();
}

void Ring::flushPools() {
  if (filePool_.count > 0) {
    ThreadPool::files().submit(filePool_.first, filePool_.last, filePool_.count);
    filePool_ = PoolList();
  }
  if (dataPool_.count > 0) {
    ThreadPool::data().submit(dataPool_.first, dataPool_.last, dataPool_.count);
    dataPool_ = PoolList();
  }
  if (codecPool_.count > 0) {
    ThreadPool::codecs().submit(codecPool_.first, codecPool_.last, codecPool_.count);
    codecPool_ = PoolList();
  }
}

void Ring::drainMailbox() {
  if (mailbox_.load(std::memory_order_relaxed) == nullptr) return;
  Request* newestFirst = mailbox_.exchange(nullptr, std::memory_order_acquire);
  Request* oldestFirst = nullptr;
  while (newestFirst != nullptr) {
    Request* const request = newestFirst;
    newestFirst = request->next;
    request->next = oldestFirst;
    oldestFirst = request;
  }
  while (oldestFirst != nullptr) {
    Request* const request = oldestFirst;
    oldestFirst = request->next;
    // Still in its gate means let in just now, not ended: `post` leaves the gate first.
    if (request->inGate && !draining_) {
      startAdmitted(request);
    } else {
      finish(request, request->result);
    }
  }
}

void Ring::post(Request* request, bool wakeRing) {
  visitors_.fetch_add(1);
  if (request->inGate) request->file->gate.leave(request);
  push(request);
  if (wakeRing) wake();
  visitors_.fetch_sub(1);
}

void Ring::resume(Request* request) {
  visitors_.fetch_add(1);
  request->result = -ECANCELED;
  push(request);
  wake();
  visitors_.fetch_sub(1);
}

void Ring::push(Request* request) {
  Request* head = mailbox_.load(std::memory_order_relaxed);
  do {
    request->next = head;
  } while (!mailbox_.compare_exchange_weak(head, request, std::memory_order_release,
                                           std::memory_order_relaxed));
}

void Ring::wake() { uv_async_send(&async_); }

void Ring::keepLoopAlive(bool alive) {
  if (alive == loopKeptAlive_) return;
  loopKeptAlive_ = alive;
  if (alive) {
    uv_ref(reinterpret_cast<uv_handle_t*>(&async_));
  } else {
    uv_unref(reinterpret_cast<uv_handle_t*>(&async_));
  }
}

void Ring::awaitRest() {
  keepLoopAlive(inFlight_ > 0);
  // An active idle handle keeps the loop from sleeping: nobody announces the end of inline reads.
  const bool wakeful = inlineReads_.underWay() > 0;
  if (wakeful == loopKeptAwake_) return;
  loopKeptAwake_ = wakeful;
  if (wakeful) {
    uv_idle_start(&idle_, [](uv_idle_t* handle) { onWakeup(static_cast<Ring*>(handle->data)); });
  } else {
    uv_idle_stop(&idle_);
  }
}

void Ring::onWakeup(Ring* ring) {
  if (ring->closed_) return;
  ring->completedCount_ = 0;
  ring->performInlineReads(ring->inlineReads_.underWay());
  ring->flush();
  ring->awaitRest();
  if (ring->completedCount_ > 0) ring->callback_.call(&ring->completedCount_);
}

void Ring::close() {
  if (closed_) return;
  draining_ = true;
  completedCount_ = 0;
  const auto drop = [this](Request* list) {
    while (list != nullptr) {
      Request* const request = list;
      list = request->next;
      if (request->opcode == Opcode::kClose) request->file->release();
      request->result = -ECANCELED;
      list = request->leaveOrder(list);
      Request* const ended = request->ended();
      if (ended != nullptr) finish(ended, ended->result);
    }
  };
  const PoolList unsent[] = {filePool_, dataPool_, codecPool_};
  filePool_ = PoolList();
  dataPool_ = PoolList();
  codecPool_ = PoolList();
  for (const PoolList& list : unsent) drop(list.first);
  inlineReads_.abandon();
  if (helped_) ReadHelper::shared().detach();
  helped_ = false;
  ReadHelper::shared().await(&inlineReads_);
  inlineReads_.reap([this](Request* request, ssize_t) { finish(request, -ECANCELED); });
  while (inFlight_ > 0 || visitors_.load() > 0) {
    // Completed slots have no reader any more.
    completedCount_ = 0;
    drop(ThreadPool::files().abandon(this));
    drop(ThreadPool::data().abandon(this));
    drop(ThreadPool::codecs().abandon(this));
    for (Request& request : requests_) {
      // A file being closed has nothing else under way, and may be gone by now.
      if (request.opcode != Opcode::kClose && request.file != nullptr && request.file->direct) {
        drop(request.file->gate.abandon(this));
      }
    }
    drainMailbox();
    if (inUring_ > 0) {
      uring_->submit(1);
      uring_->reap([this](uint64_t userData, int result) {
        inUring_ -= 1;
        finish(reinterpret_cast<Request*>(userData), result);
      });
    } else if (inFlight_ > 0 || visitors_.load() > 0) {
      ::usleep(50);
    }
  }
  closed_ = true;
  keepLoopAlive(false);
  environment_->remove(this);
  callback_.close();

  const auto onClose = [](uv_handle_t* handle) {
    Ring* const ring = static_cast<Ring*>(handle->data);
    Environment* const environment = ring->environment_;
    ring->unreference();
    environment->handleClosed();
  };
  environment_->handleClosing();
  uv_close(reinterpret_cast<uv_handle_t*>(&async_), onClose);
  environment_->handleClosing();
  uv_close(reinterpret_cast<uv_handle_t*>(&idle_), onClose);
  if (uring_ != nullptr) {
    environment_->handleClosing();
    uv_poll_stop(&poll_);
    uv_close(reinterpret_cast<uv_handle_t*>(&poll_), onClose);
    uring_.reset();
  }
}

void Ring::unreference() {
  references_ -= 1;
  if (references_ == 0) delete this;
}

}  // namespace cowherd
