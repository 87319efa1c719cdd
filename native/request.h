#ifndef COWHERD_REQUEST_H
#define COWHERD_REQUEST_H

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace cowherd {

struct CopiedBytes;
class CopyOrder;
class File;
class Ring;
class SectorCipher;

/** What a request does. The numbers are shared with src/native/ring.ts. */
enum class Opcode : int {
  kRead = 0,
  kWrite = 1,
  kReadVector = 2,
  kWriteVector = 3,
  kFlush = 4,
  kTruncate = 5,
  kAllocate = 6,
  kWriteZeroes = 7,
  kDiscard = 8,
  kCopyRange = 9,
  kClose = 10,
  kCopyData = 11,
  kCompareData = 12,
  kZstdCompress = 13,
  kZstdDecompress = 14,
  kDeflate = 15,
  kInflate = 16,
  kInflateZlib = 17,
  kEncrypt = 18,
  kDecrypt = 19,
};

/** Bytes of a file that a write touches; end is exclusive. */
struct Range {
  uint64_t start = 0;
  uint64_t end = 0;
  bool overlaps(const Range& other) const { return start < other.end && other.start < end; }
};

/** Bytes of a file, or zeroes where there is none. */
struct Segment {
  File* file;
  uint64_t offset;
  uint64_t length;
};

struct SharedWork;

/**
 * One slot of a ring's request table: an operation under way. Exactly one party owns it at a time:
 * the ring's thread, the kernel, a pool thread, a write gate or an order of copies; whoever owns it may change it.
 */
struct Request {
  Opcode opcode = Opcode::kRead;
  int slot = 0;
  Ring* ring = nullptr;
  File* file = nullptr;

  /** Where the rest of the transfer goes, advanced as parts of it complete. */
  uint64_t offset = 0;
  uint64_t remaining = 0;
  uint64_t transferred = 0;
  /** Buffers of the rest: `single` for plain transfers, `vector` from `vectorIndex` on otherwise. */
  iovec single = {};
  std::vector<iovec> vector;
  /** Keeps the memory of `single` from being freed, where nothing else does; until the end. */
  std::shared_ptr<void> memory;
  size_t vectorIndex = 0;

  /** A codec's output, or a copy's source offset in `secondAddress`. */
  char* output = nullptr;
  uint64_t outputLength = 0;
  uint64_t sourceOffset = 0;
  File* source = nullptr;
  /** Of an operation that enciphers or deciphers; `offset` is the number of its first sector. */
  std::shared_ptr<SectorCipher> cipher;
  /** The parts of a copy or comparison of data, and of which of those a part is one. */
  std::shared_ptr<SharedWork> work;
  Request* whole = nullptr;
  /** What a part is made of, and what it is compared with. */
  std::vector<Segment> segments;
  std::vector<Segment> others;
  /** The order a part has its ticket of; a copy keeps that for its parts. */
  std::shared_ptr<CopyOrder> order;
  uint64_t ticket = 0;
  /** What a part of a copy has read and not written. */
  std::shared_ptr<CopiedBytes> copied;
  /** A level, a flag: what the operation defines. */
  int parameter = 0;

  /** Bytes, or a negated errno. */
  int64_t result = 0;

  /** Link of whichever list the owner keeps: pool queue, mailbox, gate queue. */
  Request* next = nullptr;

  /** State of a write to an O_DIRECT file in its gate. */
  Range gated;
  bool gateExclusive = false;
  bool inGate = false;
  Request* gatePrevious = nullptr;
  Request* gateNext = nullptr;

  bool isRead() const { return opcode == Opcode::kRead || opcode == Opcode::kReadVector; }
  bool isWrite() const { return opcode == Opcode::kWrite || opcode == Opcode::kWriteVector; }
  bool isVector() const {
    return opcode == Opcode::kReadVector || opcode == Opcode::kWriteVector;
  }
  bool isShared() const { return opcode == Opcode::kCopyData || opcode == Opcode::kCompareData; }
  bool isCodec() const { return opcode >= Opcode::kZstdCompress; }

  /** The buffers still to be transferred; at most IOV_MAX of them. */
  const iovec* buffers() const { return isVector() ? &vector[vectorIndex] : &single; }
  int bufferCount() const;

  /** Lets the copies after this one go on. @returns a list, with one that is to be carried on in front */
  Request* leaveOrder(Request* list);
  /**
   * Ends this with its result. @returns what has ended thereby: this, or what it was the last part of,
   *   or null
   */
  Request* ended();
  /** Takes note that the next `count` bytes are done. */
  void advance(uint64_t count);
  /** Fills what a read past the end of the file left with zeroes. */
  void zeroRest();
  /** Whether every address, length and the offset are multiples of the given powers of two. */
  bool aligned(uint32_t requestAlignment, uint32_t memoryAlignment) const;
};

/** A copy or comparison of data in parts, which threads carry out side by side. */
struct SharedWork {
  std::vector<Request> parts;
  /** Parts that have not ended. */
  std::atomic<size_t> left{0};
  /** Of the first part whose result was not 0. */
  std::atomic<int64_t> result{0};
};

}  // namespace cowherd

#endif
