#ifndef COWHERD_COMPARE_DATA_H
#define COWHERD_COMPARE_DATA_H

#include "request.h"

namespace cowherd {

/** Whether a request's segments differ from the others. @returns 0 or 1, or a negated errno */
int64_t compareData(Request* request);

}  // namespace cowherd

#endif
