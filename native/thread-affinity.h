#ifndef COWHERD_THREAD_AFFINITY_H
#define COWHERD_THREAD_AFFINITY_H

#include <napi.h>

namespace cowherd {

/** Adds `pinThread` to what JavaScript sees. */
void exportThreadAffinity(Napi::Object exports);

}  // namespace cowherd

#endif
