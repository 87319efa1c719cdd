#include "blocking-operation.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "aligned-buffer.h"
#include "block-device.h"
#include "codec.h"
#include "compare-data.h"
#include "copy-data.h"
#include "file.h"
#include "sector-cipher.h"

namespace cowherd {

namespace {

/** Whether an error means that the host does not know an operation, rather than that it failed. */
bool meansUnsupported(int error) {
  return error == -EOPNOTSUPP || error == -ENOSYS || error == -EINVAL || error == -ENODEV ||
         error == -ENOTTY;
}

/** Bytes of a block of common file systems. */
constexpr uint64_t kHostBlockBytes = 4096;

int64_t sizeOf(const File& file) {
  if (file.blockDevice) return blockDeviceSize(file.descriptor());
  struct stat facts;
  if (::fstat(file.descriptor(), &facts) != 0) return -errno;
  return facts.st_size;
}

int syncData(const File& file) {
  while (::fdatasync(file.descriptor()) != 0) {
    if (errno != EINTR) return -errno;
  }
  return 0;
}

int tryFallocate(const File& file, int mode, uint64_t offset, uint64_t length) {
  if (file.refusesFallocate) return -EOPNOTSUPP;
  while (::fallocate(file.descriptor(), mode, static_cast<off_t>(offset),
                     static_cast<off_t>(length)) != 0) {
    if (errno != EINTR) return -errno;
  }
  return 0;
}

/** One system call of a transfer: bytes moved, or a negated errno. EINTR and EAGAIN are retried. */
int64_t transferOnce(const File& file, bool read, const iovec* buffers, int count,
                     uint64_t offset, uint64_t pieceBytes = kPieceBytes) {
  iovec piece;
  if (!read && !file.direct && buffers[0].iov_len > pieceBytes) {
    piece = {buffers[0].iov_base, pieceBytes};
    buffers = &piece;
    count = 1;
  }
  for (;;) {
    const ssize_t moved =
        read ? ::preadv(file.descriptor(), buffers, count, static_cast<off_t>(offset))
             : ::pwritev(file.descriptor(), buffers, count, static_cast<off_t>(offset));
    if (moved >= 0) return moved;
    if (errno == EAGAIN) {
      ::poll(nullptr, 0, 1);
    } else if (errno != EINTR) {
      return -errno;
    }
  }
}

/** Moves a whole plain buffer: bytes moved, fewer only at the end of the file, or an error. */
int64_t transferBuffer(const File& file, bool read, char* buffer, uint64_t length,
                       uint64_t offset) {
  uint64_t done = 0;
  while (done < length) {
    const iovec rest = {buffer + done, length - done};
    const int64_t moved = transferOnce(file, read, &rest, 1, offset + done);
    if (moved < 0) return moved;
    done += static_cast<uint64_t>(moved);
    // With O_DIRECT nothing can follow an odd end: it is the end of the file.
    if (moved == 0 || (read && file.direct && (moved & (file.requestAlignment - 1)) != 0)) break;
  }
  return static_cast<int64_t>(done);
}

/** Copies between a request's buffers and `bytes`, advancing the request. */
void copyBuffers(Request* request, bool intoRequest, char* bytes, uint64_t length) {
  while (length > 0) {
    const iovec first = *request->buffers();
    const uint64_t part = std::min<uint64_t>(length, first.iov_len);
    if (intoRequest) {
      std::memcpy(first.iov_base, bytes, part);
    } else {
      std::memcpy(bytes, first.iov_base, part);
    }
    request->advance(part);
    bytes += part;
    length -= part;
  }
}

/** Reads what O_DIRECT cannot read as it is asked for: whole blocks, then the part wanted. */
int64_t readThroughBounce(Request* request) {
  const File& file = *request->file;
  const uint64_t mask = file.requestAlignment - 1;
  char* const bounce = bounceBuffer();
  if (bounce == nullptr) return -ENOMEM;
  while (request->remaining > 0) {
    const uint64_t start = request->offset & ~mask;
    const uint64_t end = (request->offset + request->remaining + mask) & ~mask;
    const uint64_t length = std::min<uint64_t>(end - start, kBounceBytes);
    const int64_t moved = transferBuffer(file, true, bounce, length, start);
    if (moved < 0) return moved;
    std::memset(bounce + moved, 0, length - static_cast<uint64_t>(moved));
    const uint64_t skip = request->offset - start;
    copyBuffers(request, true, bounce + skip, std::min(length - skip, request->remaining));
  }
  return 0;
}

/**
 * Writes what O_DIRECT cannot write as it is asked for: reads the blocks at the edges and writes
 * whole blocks back. The file's gate keeps other writes away from them meanwhile.
 */
int64_t writeThroughBounce(Request* request) {
  const File& file = *request->file;
  const uint64_t mask = file.requestAlignment - 1;
  const int64_t sizeBefore = sizeOf(file);
  if (sizeBefore < 0) return sizeBefore;
  char* const bounce = bounceBuffer();
  if (bounce == nullptr) return -ENOMEM;
  uint64_t wantedEnd = request->offset + request->remaining;
  while (request->remaining > 0) {
    const uint64_t start = request->offset & ~mask;
    const uint64_t end = (request->offset + request->remaining + mask) & ~mask;
    const uint64_t length = std::min<uint64_t>(end - start, kBounceBytes);
    const uint64_t skip = request->offset - start;
    const uint64_t part = std::min(length - skip, request->remaining);
    const uint64_t block = file.requestAlignment;
    const bool headPartial = skip > 0;
    const bool tailPartial = skip + part < length;
    if (headPartial || (tailPartial && length == block)) {
      const int64_t moved = transferBuffer(file, true, bounce, block, start);
      if (moved < 0) return moved;
      std::memset(bounce + moved, 0, block - static_cast<uint64_t>(moved));
    }
    if (tailPartial && length > block) {
      char* const last = bounce + length - block;
      const int64_t moved = transferBuffer(file, true, last, block, start + length - block);
      if (moved < 0) return moved;
      std::memset(last + moved, 0, block - static_cast<uint64_t>(moved));
    }
    copyBuffers(request, false, bounce + skip, part);
    const int64_t moved = transferBuffer(file, false, bounce, length, start);
    if (moved < 0) return moved;
    if (static_cast<uint64_t>(moved) < length) return -ENOSPC;
  }
  const uint64_t reached = (wantedEnd + mask) & ~mask;
  if (reached > wantedEnd && reached > static_cast<uint64_t>(sizeBefore)) {
    wantedEnd = std::max(wantedEnd, static_cast<uint64_t>(sizeBefore));
    if (::ftruncate(file.descriptor(), static_cast<off_t>(wantedEnd)) != 0) return -errno;
  }
  return 0;
}

int64_t transfer(Request* request, uint64_t pieceBytes = kPieceBytes) {
  const File& file = *request->file;
  const bool read = request->isRead();
  if (file.direct && !request->aligned(file.requestAlignment, file.memoryAlignment)) {
    return read ? readThroughBounce(request) : writeThroughBounce(request);
  }
  while (request->remaining > 0) {
    const int64_t moved = transferOnce(file, read, request->buffers(), request->bufferCount(),
                                       request->offset, pieceBytes);
    if (moved < 0) return moved;
    if (moved == 0 && !read) return -ENOSPC;
    request->advance(static_cast<uint64_t>(moved));
    if (read && (moved == 0 || (file.direct && (moved & (file.requestAlignment - 1)) != 0))) {
      request->zeroRest();
    }
  }
  return 0;
}

int64_t writeZeroBytes(File* file, uint64_t offset, uint64_t length) {
  while (length > 0) {
    // Up to the next multiple, so that only the edges can be unaligned.
    const uint64_t count = std::min<uint64_t>(length, kBounceBytes - offset % kBounceBytes);
    const int64_t error = transferWhole(Opcode::kWrite, file, const_cast<char*>(zeroBuffer()),
                                        count, offset, kPieceBytes);
    if (error < 0) return error;
    offset += count;
    length -= count;
  }
  return 0;
}

int punchHole(const File& file, uint64_t offset, uint64_t length) {
  return tryFallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
}

int64_t writeZeroes(File* file, uint64_t offset, uint64_t length, bool unmap) {
  const uint64_t end = offset + length;
  if (file->blockDevice) {
    int error = unmap ? punchHole(*file, offset, length) : -EOPNOTSUPP;
    if (error < 0) error = blockDeviceZero(file->descriptor(), offset, length);
    return error == 0 ? 0 : writeZeroBytes(file, offset, length);
  }
  const int64_t size = sizeOf(*file);
  if (size < 0) return size;
  const bool grows = end > static_cast<uint64_t>(size);
  int error = -EOPNOTSUPP;
  if (unmap && !grows) {
    error = punchHole(*file, offset, length);
    if (!meansUnsupported(error)) return error;
  }
  // The kernel grows a file here under its own lock; ftruncate might cut off what another writer
  // added since we asked for the size.
  error = tryFallocate(*file, FALLOC_FL_ZERO_RANGE, offset, length);
  if (meansUnsupported(error) && unmap && grows) {
    const uint64_t from = static_cast<uint64_t>(size);
    error = tryFallocate(*file, 0, from, end - from);
    if (error == 0) error = punchHole(*file, offset, length);
  } else if (error == 0 && unmap) {
    punchHole(*file, offset, length);
  }
  return meansUnsupported(error) ? writeZeroBytes(file, offset, length) : error;
}

/** How space is reserved; the numbers are those of file-posix.ts. */
enum class AllocateMode { kFalloc = 0, kFull = 1, kKeepSize = 2 };

/** @returns 1 if the range reads as zeroes now, 0 if the host cannot do it */
int64_t discard(const File& file, uint64_t offset, uint64_t length) {
  int error = punchHole(file, offset, length);
  if (error == 0) return 1;
  if (file.blockDevice && meansUnsupported(error)) {
    error = blockDeviceDiscard(file.descriptor(), offset, length);
    if (error == 0) return 0;
  }
  return meansUnsupported(error) || error == -EPERM ? 0 : error;
}

int64_t allocate(File* file, uint64_t offset, uint64_t length, AllocateMode mode) {
  if (mode == AllocateMode::kFull) return writeZeroBytes(file, offset, length);
  if (mode == AllocateMode::kKeepSize) {
    // Older kernels drop what is cached of a block device before they refuse to reserve.
    if (file->blockDevice) return -EOPNOTSUPP;
    return tryFallocate(*file, FALLOC_FL_KEEP_SIZE, offset, length);
  }
  const int error = tryFallocate(*file, 0, offset, length);
  if (!meansUnsupported(error)) return error;
  // Growing by writing is the one part that can be done without touching data that is there.
  const int64_t size = sizeOf(*file);
  if (size < 0) return size;
  const uint64_t from = std::max(offset, static_cast<uint64_t>(size));
  return from < offset + length ? writeZeroBytes(file, from, offset + length - from) : 0;
}

int64_t truncate(const File& file, uint64_t size) {
  return ::ftruncate(file.descriptor(), static_cast<off_t>(size)) == 0 ? 0 : -errno;
}

/** Sets the size, with blocks reserved for all of what is added, or for none of it. */
int64_t truncateReserving(const File& file, uint64_t size) {
  const int64_t sizeBefore = sizeOf(file);
  if (sizeBefore < 0) return sizeBefore;
  const uint64_t end = static_cast<uint64_t>(sizeBefore);
  if (size <= end) return truncate(file, size);
  // What waits to be written of the block in which the file ends would get one apart from the rest.
  const uint64_t from = end & ~(kHostBlockBytes - 1);
  const int refusal = tryFallocate(file, 0, from, size - from);
  if (refusal == 0) return 0;
  const int64_t result = truncate(file, size);
  // There may be room for what is written later, if not for all of it: none of it is kept.
  if (result == 0 && !meansUnsupported(refusal)) punchHole(file, end, size - end);
  return result;
}

/** @returns 1 if everything was copied, 0 if the host cannot do it for this pair */
int64_t copyRange(const Request& request) {
  if (request.source == nullptr) return -EBADF;
  off_t from = static_cast<off_t>(request.sourceOffset);
  off_t to = static_cast<off_t>(request.offset);
  uint64_t rest = request.remaining;
  while (rest > 0) {
    const ssize_t moved = ::copy_file_range(request.source->descriptor(), &from,
                                            request.file->descriptor(), &to, rest, 0);
    if (moved < 0) {
      if (errno == EINTR) continue;
      return meansUnsupported(-errno) || errno == EXDEV || errno == EBADF || errno == EPERM
                 ? 0
                 : -errno;
    }
    if (moved == 0) return 0;
    rest -= static_cast<uint64_t>(moved);
  }
  return 1;
}

int64_t performCipher(const Request& request, bool encrypts) {
  if (request.cipher == nullptr || request.outputLength < request.single.iov_len) return -EINVAL;
  return request.cipher->run(encrypts, static_cast<const uint8_t*>(request.single.iov_base),
                             reinterpret_cast<uint8_t*>(request.output), request.single.iov_len,
                             request.offset);
}

int64_t performCodec(const Request& request) {
  const char* const input = static_cast<const char*>(request.single.iov_base);
  const size_t length = request.single.iov_len;
  switch (request.opcode) {
    case Opcode::kZstdCompress:
      return zstdCompress(input, length, request.output, request.outputLength, request.parameter);
    case Opcode::kZstdDecompress:
      return zstdDecompress(input, length, request.output, request.outputLength);
    case Opcode::kDeflate:
      return deflateRaw(input, length, request.output, request.outputLength, request.parameter);
    case Opcode::kInflate:
      return inflateRaw(input, length, request.output, request.outputLength);
    case Opcode::kInflateZlib:
      return inflateZlib(input, length, request.output, request.outputLength);
    case Opcode::kEncrypt:
      return performCipher(request, true);
    case Opcode::kDecrypt:
      return performCipher(request, false);
    default:
      return -EINVAL;
  }
}

int64_t performChange(Request* request) {
  File* const file = request->file;
  switch (request->opcode) {
    case Opcode::kTruncate:
      return request->parameter != 0 ? truncateReserving(*file, request->offset)
                                     : truncate(*file, request->offset);
    case Opcode::kAllocate:
      return allocate(file, request->offset, request->remaining,
                      static_cast<AllocateMode>(request->parameter));
    case Opcode::kWriteZeroes:
      return writeZeroes(file, request->offset, request->remaining, request->parameter != 0);
    case Opcode::kDiscard:
      return discard(*file, request->offset, request->remaining);
    case Opcode::kCopyRange:
      return copyRange(*request);
    case Opcode::kCopyData:
      return request->order == nullptr ? -EINVAL : copyData(request);
    default:
      return -EINVAL;
  }
}

}  // namespace

int64_t performBlocking(Request* request) {
  if (request->isCodec()) return performCodec(*request);
  if (request->isRead() || request->isWrite()) return transfer(request);
  if (request->opcode == Opcode::kCompareData) return compareData(request);
  if (request->opcode == Opcode::kFlush) return syncData(*request->file);
  if (request->opcode == Opcode::kClose) return request->file->release();
  const bool durable = request->file->durable;
  const int64_t result = performChange(request);
  if (result < 0 || !durable) return result;
  const int error = syncData(*request->file);
  return error < 0 ? error : result;
}

int64_t transferWhole(Opcode opcode, File* file, char* bytes, uint64_t length, uint64_t offset,
                      uint64_t pieceBytes) {
  Request request;
  request.opcode = opcode;
  request.file = file;
  request.offset = offset;
  request.remaining = length;
  request.single = {bytes, static_cast<size_t>(length)};
  return transfer(&request, pieceBytes);
}

}  // namespace cowherd
