#ifndef COWHERD_ZERO_SCAN_H
#define COWHERD_ZERO_SCAN_H

#include <cstddef>
#include <cstdint>

namespace cowherd {

/** Whether all bytes are zero. */
bool isZero(const uint8_t* bytes, size_t length);

/**
 * Splits a buffer into runs that alternate between data and zeroes, beginning with data (a run of
 * no bytes where the buffer begins with zeroes). Runs end at multiples of the granularity.
 * @param lengths receives each run's bytes
 * @returns how many runs there are, or -1 if they are more than `capacity`
 */
int32_t zeroRuns(const uint8_t* bytes, size_t length, size_t granularity, int32_t* lengths,
                 size_t capacity);

}  // namespace cowherd

#endif
