#include "zero-scan.h"

#include <algorithm>
#include <cstring>

namespace cowherd {

bool isZero(const uint8_t* bytes, size_t length) {
  // Data mostly shows in its first bytes; whole blocks are left to the compiler's vectors.
  constexpr size_t kBlock = 256;
  size_t at = 0;
  for (; at + kBlock <= length; at += kBlock) {
    uint64_t words[kBlock / sizeof(uint64_t)];
    std::memcpy(words, bytes + at, kBlock);
    uint64_t any = 0;
    for (const uint64_t word : words) any |= word;
    if (any != 0) return false;
  }
  uint8_t any = 0;
  for (; at < length; at += 1) any |= bytes[at];
  return any == 0;
}

int32_t zeroRuns(const uint8_t* bytes, size_t length, size_t granularity, int32_t* lengths,
                 size_t capacity) {
  size_t count = 0;
  bool runIsZero = false;
  size_t runStart = 0;
  for (size_t at = 0; at < length; at += granularity) {
    const bool zero = isZero(bytes + at, std::min(granularity, length - at));
    if (zero == runIsZero) continue;
    if (count == capacity) return -1;
    lengths[count++] = static_cast<int32_t>(at - runStart);
    runStart = at;
    runIsZero = zero;
  }
  if (count == capacity) return -1;
  lengths[count++] = static_cast<int32_t>(length - runStart);
  return static_cast<int32_t>(count);
}

}  // namespace cowherd
