#include "aligned-buffer.h"

#include <sys/mman.h>

#include <cstdlib>

namespace cowherd {

namespace {

/** Memory that grows to what was asked for, and keeps nothing of what it held. */
class AlignedMemory {
 public:
  ~AlignedMemory() { std::free(memory_); }

  char* atLeast(size_t bytes) {
    if (bytes_ >= bytes) return memory_;
    std::free(memory_);
    bytes_ = (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
    memory_ = static_cast<char*>(std::aligned_alloc(kPageBytes, bytes_));
    if (memory_ == nullptr) bytes_ = 0;
    return memory_;
  }

 private:
  static constexpr size_t kPageBytes = 4096;
  char* memory_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace

char* bounceBuffer() {
  static thread_local AlignedMemory memory;
  return memory.atLeast(kBounceBytes);
}

char* copyBuffer(size_t bytes) {
  static thread_local AlignedMemory memory;
  return memory.atLeast(bytes);
}

const char* zeroBuffer() {
  // Never touched for writing, so the kernel maps its one zero page all over.
  static void* const memory =
      ::mmap(nullptr, kBounceBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return static_cast<const char*>(memory);
}

}  // namespace cowherd
