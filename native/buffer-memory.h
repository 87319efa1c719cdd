#ifndef COWHERD_BUFFER_MEMORY_H
#define COWHERD_BUFFER_MEMORY_H

#include <napi.h>

#include <memory>

namespace cowherd {

/**
 * Exports `holdMemory`: (arrayBuffer) => holder. As long as the holder lives the memory does, even if
 * it is transferred away from the ArrayBuffer, so that neither the kernel nor a thread of ours can
 * meet memory that was freed. Node-API has no such call; V8's own, which Node exports, is looked up
 * by name. Where it is not found or does not do what it should, nothing is exported.
 */
void exportHoldMemory(Napi::Object exports);

/**
 * The memory of an ArrayBuffer, as long as the result lives; null, with an exception, for what is none.
 *
 * @param address receives where it lies
 */
std::shared_ptr<void> memoryOf(napi_env env, napi_value arrayBuffer, void** address);

}  // namespace cowherd

#endif
