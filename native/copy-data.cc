#include "copy-data.h"

#include <errno.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "aligned-buffer.h"
#include "blocking-operation.h"
#include "copy-order.h"
#include "file.h"
#include "segments.h"
#include "zero-scan.h"

namespace cowherd {

namespace {

using Clock = std::chrono::steady_clock;

/** A part of what is copied: from and to which byte, end exclusive. */
struct Part {
  uint64_t start;
  uint64_t end;
};

}  // namespace

/** What a copy has read: all of it, and which parts of it are data. */
struct CopiedBytes {
  ~CopiedBytes() { giveIdleMemory(std::move(memory)); }
  AlignedMemory memory;
  char* bytes = nullptr;
  std::vector<Part> parts;
  Clock::duration reading{};
};

namespace {

/**
 * Most bytes of one write. Into blocks that are reserved, larger folios than usual cost less to fill; but
 * yet larger ones gain nothing more, and are slow to be had where free memory is given back to a host.
 */
constexpr uint64_t kCopiedPieceBytes = 256 * 1024;

int64_t writeBytes(File* file, char* bytes, uint64_t length, uint64_t offset) {
  return transferWhole(Opcode::kWrite, file, bytes, length, offset, kCopiedPieceBytes);
}

/** The parts that are not zeroes by blocks of `granularity` bytes; with 0 all is one. */
std::vector<Part> dataParts(const char* bytes, uint64_t length, uint64_t granularity) {
  std::vector<Part> parts;
  if (granularity == 0) {
    parts.push_back({0, length});
    return parts;
  }
  std::vector<int32_t> runs((length + granularity - 1) / granularity + 1);
  const int32_t count = zeroRuns(reinterpret_cast<const uint8_t*>(bytes), length, granularity,
                                 runs.data(), runs.size());
  uint64_t at = 0;
  for (int32_t index = 0; index < count; index += 1) {
    const uint64_t end = at + static_cast<uint64_t>(runs[index]);
    if (index % 2 == 0 && end > at) parts.push_back({at, end});
    at = end;
  }
  return parts;
}

/** Writes parts of what was read, and notes where. */
class PartWriter {
 public:
  PartWriter(Request* request, char* bytes)
      : request_(request),
        bytes_(bytes),
        notes_(reinterpret_cast<double*>(request->output)),
        mostNotes_((request->outputLength - 1) / 3) {
    notes_[0] = 0;
  }

  /** Each to its own place. */
  int64_t writeInPlace(const std::vector<Part>& parts) {
    for (const Part& part : parts) {
      const uint64_t length = part.end - part.start;
      const uint64_t place = request_->offset + part.start;
      if (!note(part.start, length, place)) return -ENOBUFS;
      const int64_t error = writeBytes(request_->file, bytes_ + part.start, length, place);
      if (error < 0) return error;
    }
    return 0;
  }

  /** Whole granules that are data anywhere, to the places that are next. */
  int64_t writePlaced(const std::vector<Part>& parts, CopyOrder* order) {
    const uint64_t granule = order->granule();
    for (size_t index = 0; index < parts.size();) {
      const size_t first = index;
      const uint64_t start = parts[first].start / granule * granule;
      uint64_t end = start;
      do {
        end = (parts[index].end + granule - 1) / granule * granule;
        index += 1;
      } while (index < parts.size() && parts[index].start <= end);
      for (uint64_t at = start; at < end;) {
        const CopyPlace place = order->take(end - at);
        if (place.length == 0) return -ENOSPC;
        if (!note(at, place.length, place.start)) return -ENOBUFS;
        const Part whole = {at, at + place.length};
        const int64_t error =
            place.isZero ? writeWithin(parts, first, index, whole, place.start)
                         : writeBytes(request_->file, bytes_ + at, place.length, place.start);
        if (error < 0) return error;
        at += place.length;
      }
    }
    return 0;
  }

 private:
  /** Writes what is data within one placed part. */
  int64_t writeWithin(const std::vector<Part>& parts, size_t first, size_t last, const Part& whole,
                      uint64_t place) {
    for (size_t index = first; index < last; index += 1) {
      const uint64_t start = std::max(parts[index].start, whole.start);
      const uint64_t end = std::min(parts[index].end, whole.end);
      if (start >= end) continue;
      const int64_t error = writeBytes(request_->file, bytes_ + start, end - start,
                                        place + start - whole.start);
      if (error < 0) return error;
    }
    return 0;
  }

  /** Before it is written, so that also after a failure it is known which places are taken. */
  bool note(uint64_t at, uint64_t length, uint64_t place) {
    const size_t count = static_cast<size_t>(notes_[0]);
    if (count == mostNotes_) return false;
    double* const next = notes_ + 1 + 3 * count;
    next[0] = static_cast<double>(at);
    next[1] = static_cast<double>(length);
    next[2] = static_cast<double>(place);
    notes_[0] += 1;
    return true;
  }

  Request* const request_;
  char* const bytes_;
  double* const notes_;
  const size_t mostNotes_;
};

/** Reads what is copied. @returns 0, or a negated errno */
int64_t readSource(Request* request) {
  CopyOrder* const order = request->order.get();
  const uint64_t length = request->remaining;
  const uint64_t granule = std::max<uint64_t>(order->granule(), 1);
  const uint64_t room = (length + granule - 1) / granule * granule;
  const auto copied = std::make_shared<CopiedBytes>();
  copied->memory = takeIdleMemory();
  const Clock::time_point began = Clock::now();
  copied->bytes = copied->memory.atLeast(room);
  if (copied->bytes == nullptr || request->outputLength == 0) return -ENOMEM;
  const int64_t error = readSegments(request->segments, copied->bytes);
  if (error < 0) return error;
  std::memset(copied->bytes + length, 0, room - length);
  copied->parts = dataParts(copied->bytes, length, static_cast<uint64_t>(request->parameter));
  copied->reading = Clock::now() - began;
  request->copied = copied;
  return 0;
}

}  // namespace

int64_t copyData(Request* request) {
  // Kept, the request may have ended, and with it the last hold on the order, before `begin` returns.
  const std::shared_ptr<CopyOrder> order = request->order;
  if (request->copied == nullptr) {
    const int64_t error = readSource(request);
    if (error < 0) return error;
    if (!order->begin(request)) return kKeptForLater;
  }
  CopiedBytes& copied = *request->copied;
  PartWriter writer(request, copied.bytes);
  const Clock::time_point began = Clock::now();
  const int64_t result = order->granule() == 0
                             ? writer.writeInPlace(copied.parts)
                             : writer.writePlaced(copied.parts, order.get());
  order->note(copied.reading, Clock::now() - began);
  request->copied.reset();
  return result;
}

}  // namespace cowherd
