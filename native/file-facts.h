#ifndef COWHERD_FILE_FACTS_H
#define COWHERD_FILE_FACTS_H

#include <napi.h>

namespace cowherd {

class Environment;

/** Adds what is asked of a file synchronously: opening, size, holes, locks. */
void exportFileFacts(Napi::Object exports);

}  // namespace cowherd

#endif
