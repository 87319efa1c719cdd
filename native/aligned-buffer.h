#ifndef COWHERD_ALIGNED_BUFFER_H
#define COWHERD_ALIGNED_BUFFER_H

#include <cstddef>
#include <utility>

namespace cowherd {

/** Page-aligned memory that grows to what is asked for, and keeps nothing of what it held. */
class AlignedMemory {
 public:
  AlignedMemory() = default;
  AlignedMemory(AlignedMemory&& other) noexcept { *this = std::move(other); }
  AlignedMemory& operator=(AlignedMemory&& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~AlignedMemory();

  /** @returns at least so many bytes; null when memory is short */
  char* atLeast(size_t bytes);

 private:
  char* memory_ = nullptr;
  size_t bytes_ = 0;
};

/** Bytes of a pool thread's own aligned buffer, for what O_DIRECT cannot take as it comes. */
constexpr size_t kBounceBytes = 1 << 20;

/** This thread's bounce buffer, page aligned, `kBounceBytes` long; null when memory is short. */
char* bounceBuffer();
/** Other memory of this thread, page aligned, of at least so many bytes; null when memory is short. */
char* comparedBuffer(size_t bytes);
/** Memory that was given, or none yet: what one thread fills, another may read and give. */
AlignedMemory takeIdleMemory();
void giveIdleMemory(AlignedMemory memory);
/** `kBounceBytes` zeroes, page aligned, shared and never written. */
const char* zeroBuffer();

}  // namespace cowherd

#endif
