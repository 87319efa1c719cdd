#include "segments.h"

#include <algorithm>
#include <cstring>

#include "blocking-operation.h"

namespace cowherd {

bool areZeroes(const std::vector<Segment>& segments) {
  return std::all_of(segments.begin(), segments.end(),
                     [](const Segment& segment) { return segment.file == nullptr; });
}

int64_t readSegments(const std::vector<Segment>& segments, char* bytes) {
  for (const Segment& segment : segments) {
    if (segment.file == nullptr) {
      std::memset(bytes, 0, segment.length);
    } else {
      const int64_t error = transferWhole(Opcode::kRead, segment.file, bytes, segment.length,
                                          segment.offset, segment.length);
      if (error < 0) return error;
    }
    bytes += segment.length;
  }
  return 0;
}

}  // namespace cowherd
