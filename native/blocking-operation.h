#ifndef COWHERD_BLOCKING_OPERATION_H
#define COWHERD_BLOCKING_OPERATION_H

#include <cstdint>

#include "request.h"

namespace cowherd {

/**
 * Carries a request out on the calling thread, to its end.
 * @returns what the opcode defines (mostly 0), or a negated errno
 */
int64_t performBlocking(Request* request);

}  // namespace cowherd

#endif
