#include "aligned-buffer.h"

#include <sys/mman.h>

#include <cstdlib>

namespace cowherd {

char* bounceBuffer() {
  struct Owner {
    char* memory = static_cast<char*>(std::aligned_alloc(4096, kBounceBytes));
    ~Owner() { std::free(memory); }
  };
  static thread_local Owner owner;
  return owner.memory;
}

const char* zeroBuffer() {
  // Never touched for writing, so the kernel maps its one zero page all over.
  static void* const memory =
      ::mmap(nullptr, kBounceBytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return static_cast<const char*>(memory);
}

}  // namespace cowherd
