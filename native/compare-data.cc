#include "compare-data.h"

#include <errno.h>

#include <cstring>

#include "aligned-buffer.h"
#include "segments.h"
#include "zero-scan.h"

namespace cowherd {

namespace {

/** Whether segments hold anything but zeroes: 0 or 1, or a negated errno. */
int64_t compareWithZeroes(const std::vector<Segment>& segments, char* bytes, uint64_t length) {
  const int64_t error = readSegments(segments, bytes);
  if (error < 0) return error;
  return isZero(reinterpret_cast<const uint8_t*>(bytes), length) ? 0 : 1;
}

}  // namespace

int64_t compareData(Request* request) {
  // What another part has found decides it.
  if (request->whole->work->result.load() != 0) return 0;
  const uint64_t length = request->remaining;
  char* const bytes = comparedBuffer(2 * length);
  if (bytes == nullptr) return -ENOMEM;
  if (areZeroes(request->others)) return compareWithZeroes(request->segments, bytes, length);
  if (areZeroes(request->segments)) return compareWithZeroes(request->others, bytes, length);
  int64_t error = readSegments(request->segments, bytes);
  if (error == 0) error = readSegments(request->others, bytes + length);
  if (error < 0) return error;
  return std::memcmp(bytes, bytes + length, length) == 0 ? 0 : 1;
}

}  // namespace cowherd
