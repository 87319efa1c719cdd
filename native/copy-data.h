#ifndef COWHERD_COPY_DATA_H
#define COWHERD_COPY_DATA_H

#include "request.h"

namespace cowherd {

/**
 * Copies bytes of files, one segment after the other, into the request's file, but for zeroes; see
 * `copyData` of src/native/ring.ts. Called again for a request that was kept, it writes what was read.
 * @returns 0, a negated errno, or `kKeptForLater`
 */
int64_t copyData(Request* request);

}  // namespace cowherd

#endif
