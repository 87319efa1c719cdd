/** Numbers of the kernel's FUSE protocol (linux/fuse.h, version 7.31), as far as one file meets them. */

/** Requests. */
export const Opcode = {
  getattr: 3,
  setattr: 4,
  open: 14,
  read: 15,
  write: 16,
  statfs: 17,
  release: 18,
  fsync: 20,
  init: 26,
  access: 34,
  destroy: 38,
  fallocate: 43,
  lseek: 46,
  /** Without an answer. */
  forget: 2,
  batchForget: 42,
} as const;

/** The version that is spoken; kernels from 4.20 on know it. */
export const version = { major: 7, minor: 31 } as const;

/** Flags of the agreement at the begin. */
export const InitFlag = {
  asyncRead: 1 << 0,
  bigWrites: 1 << 5,
  asyncDirectIo: 1 << 15,
  maxPages: 1 << 22,
} as const;

/** Flags of an open file: what the kernel has cached of it stays. */
export const keepCacheFlag = 1 << 1;

/** What a SETATTR changes. */
export const AttributeFlag = { size: 1 << 3 } as const;

/** Modes of fallocate(2). */
export const FallocateMode = { keepSize: 1, punchHole: 2, zeroRange: 16 } as const;

/** What lseek(2) looks for. */
export const Whence = { data: 3, hole: 4 } as const;

/** Bytes of what stands before a request and before its answer. */
export const requestHeadBytes = 40;
export const answerHeadBytes = 16;
/** Bytes before the data of a write. */
export const writeHeadBytes = 40;

/** Bytes of a read or a write at most. */
export const mostDataBytes = 1024 * 1024;

/** The number of the only file, which is the root of its file system. */
export const fileNode = 1;
