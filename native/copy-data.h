#ifndef COWHERD_COPY_DATA_H
#define COWHERD_COPY_DATA_H

#include "request.h"

namespace cowherd {

/**
 * Copies bytes of files, one segment after the other, into the request's file, but for zeroes; see
 * `copyData` of src/native/ring.ts. @returns 0, or a negated errno
 */
int64_t copyData(Request* request);

}  // namespace cowherd

#endif
