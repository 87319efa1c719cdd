#ifndef COWHERD_ALIGNED_BUFFER_H
#define COWHERD_ALIGNED_BUFFER_H

#include <cstddef>

namespace cowherd {

/** Bytes of a pool thread's own aligned buffer, for what O_DIRECT cannot take as it comes. */
constexpr size_t kBounceBytes = 1 << 20;

/** This thread's bounce buffer, page aligned, `kBounceBytes` long; null when memory is short. */
char* bounceBuffer();
/** Other memory of this thread, page aligned, of at least so many bytes; null when memory is short. */
char* copyBuffer(size_t bytes);
/** `kBounceBytes` zeroes, page aligned, shared and never written. */
const char* zeroBuffer();

}  // namespace cowherd

#endif
