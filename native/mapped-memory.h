#ifndef COWHERD_MAPPED_MEMORY_H
#define COWHERD_MAPPED_MEMORY_H

#include <napi.h>

namespace cowherd {

/**
 * Adds `mapMemory`, `createMemory`, `lostPages` and `isMemoryWhole`: memory that other programs share
 * with us. Where they take some of it away, by shortening its file, what is touched there becomes
 * zeroes of our own, and is told of, instead of ending the process.
 */
void exportMappedMemory(Napi::Object exports);

}  // namespace cowherd

#endif
