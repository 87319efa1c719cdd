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

/**
 * Carries a request out on the calling thread, to its end.
 * @returns what the opcode defines (mostly 0), or a negated errno
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
