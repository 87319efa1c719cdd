#include "aligned-buffer.h"

#include <sys/mman.h>

#include <cstdlib>
#include <mutex>
#include <utility>
#include <vector>

namespace cowherd {

namespace {

constexpr size_t kPageBytes = 4096;
constexpr size_t kMostIdle = 8;

struct IdleMemory {
  std::mutex mutex;
  std::vector<AlignedMemory> memory;
};

// Never destroyed: detached threads may still use it while the process exits.
IdleMemory& idleMemory() {
  static IdleMemory* const idle = new IdleMemory();
  return *idle;
}

}  // namespace

AlignedMemory::~AlignedMemory() { std::free(memory_); }

char* AlignedMemory::atLeast(size_t bytes) {
  if (bytes_ >= bytes) return memory_;
  std::free(memory_);
  bytes_ = (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  memory_ = static_cast<char*>(std::aligned_alloc(kPageBytes, bytes_));
  if (memory_ == nullptr) bytes_ = 0;
  return memory_;
}

char* bounceBuffer() {
  static thread_local AlignedMemory memory;
  return memory.atLeast(kBounceBytes);
}

char* comparedBuffer(size_t bytes) {
  static thread_local AlignedMemory memory;
  return memory.atLeast(bytes);
}

AlignedMemory takeIdleMemory() {
  IdleMemory& idle = idleMemory();
  std::lock_guard<std::mutex> lock(idle.mutex);
  if (idle.memory.empty()) return AlignedMemory();
  AlignedMemory taken = std::move(idle.memory.back());
  idle.memory.pop_back();
  return taken;
}

void giveIdleMemory(AlignedMemory memory) {
  IdleMemory& idle = idleMemory();
  std::lock_guard<std::mutex> lock(idle.mutex);
  if (idle.memory.size() < kMostIdle) idle.memory.push_back(std::move(memory));
}

const char* zeroBuffer() {
  // Never touched for writing, so the kernel maps its one zero page all over.
  static void* const memory =
      ::mmap(nullptr, kBounceBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return static_cast<const char*>(memory);
}

}  // namespace cowherd
