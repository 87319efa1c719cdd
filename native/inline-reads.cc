#include "inline-reads.h"

#include <errno.h>

#include <limits>

#include "file.h"
#include "request.h"

namespace cowherd {

void InlineReads::add(Request* request) {
  InlineRead& read = slot(added_);
  read.request = request;
  read.descriptor = request->file->descriptor();
  read.buffers = request->buffers();
  read.bufferCount = request->bufferCount();
  read.offset = static_cast<off_t>(request->offset);
  read.ended.store(false, std::memory_order_relaxed);
  added_ += 1;
  underWay_ += 1;
}

bool InlineReads::take(uint64_t most, uint64_t* first, uint64_t* end) {
  *first = taken_.load(std::memory_order_acquire);
  do {
    const uint64_t offered = offered_.load(std::memory_order_acquire);
    *end = offered - *first < most ? offered : *first + most;
    if (*first == *end) return false;
  } while (!taken_.compare_exchange_weak(*first, *end));
  return true;
}

bool InlineReads::copySome() {
  uint64_t first;
  uint64_t end;
  if (!take(kTaken, &first, &end)) return false;
  for (uint64_t at = first; at < end; at += 1) {
    InlineRead& read = slot(at);
    const ssize_t bytes =
        ::preadv2(read.descriptor, read.buffers, read.bufferCount, read.offset, RWF_NOWAIT);
    read.result = bytes < 0 ? -errno : bytes;
    read.ended.store(true, std::memory_order_release);
  }
  return true;
}

void InlineReads::abandon() {
  uint64_t first;
  uint64_t end;
  if (!take(std::numeric_limits<uint64_t>::max(), &first, &end)) return;
  for (uint64_t at = first; at < end; at += 1) {
    InlineRead& read = slot(at);
    read.result = 0;
    read.ended.store(true, std::memory_order_release);
  }
}

}  // namespace cowherd
