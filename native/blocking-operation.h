#ifndef COWHERD_BLOCKING_OPERATION_H
#define COWHERD_BLOCKING_OPERATION_H

#include <cstdint>

#include "request.h"

namespace cowherd {

/**
 * Most bytes of one write to the page cache: the kernel makes its folios as large as the write, and
 * large ones are slow to fill and slow to change in part later.
 */
constexpr uint64_t kPieceBytes = 64 * 1024;

/** The result of what somebody else carries on, who may have ended it already. */
constexpr int64_t kKeptForLater = INT64_MIN;

/**
 * Carries a request out on the calling thread: to its end, or until it is kept for its turn.
 * @returns what the opcode defines (mostly 0), a negated errno, or `kKeptForLater`
 */
int64_t performBlocking(Request* request);

/**
 * Reads or writes one buffer whole, as the opcode says, on the calling thread; a read past the end of the
 * file gives zeroes. @param pieceBytes most bytes of one write to the page cache
 * @returns 0, or a negated errno
 */
int64_t transferWhole(Opcode opcode, File* file, char* bytes, uint64_t length, uint64_t offset,
                      uint64_t pieceBytes);

}  // namespace cowherd

#endif
