#ifndef COWHERD_RESTART_H
#define COWHERD_RESTART_H

#include <napi.h>

namespace cowherd {

/** Adds `restartWith`. */
void exportRestart(Napi::Object exports);

}  // namespace cowherd

#endif
