#include "segments.h"

#include <cstring>

#include "blocking-operation.h"

namespace cowherd {

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
