#ifndef COWHERD_BUFFER_MEMORY_H
#define COWHERD_BUFFER_MEMORY_H

#include <napi.h>

namespace cowherd {

/**
 * Exports `holdMemory`: (arrayBuffer) => holder. As long as the holder lives the memory does, even if
 * it is transferred away from the ArrayBuffer, so that neither the kernel nor a thread of ours can
 * meet memory that was freed. Node-API has no such call; V8's own, which Node exports, is looked up
 * by name. Where it is not found or does not do what it should, nothing is exported.
 */
void exportHoldMemory(Napi::Object exports);

}  // namespace cowherd

#endif
