#ifndef COWHERD_SEGMENTS_H
#define COWHERD_SEGMENTS_H

#include <vector>

#include "request.h"

namespace cowherd {

/** Whether they are zeroes of no file. */
bool areZeroes(const std::vector<Segment>& segments);
/** Reads segments one after the other. @returns 0, or a negated errno */
int64_t readSegments(const std::vector<Segment>& segments, char* bytes);

}  // namespace cowherd

#endif
