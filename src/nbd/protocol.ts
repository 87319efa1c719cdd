/**
 * The numbers of the NBD protocol, by its own names (NetworkBlockDevice/nbd, doc/proto.md). On the wire
 * all are big-endian.
 */

/** What both sides say first: `NBDMAGIC`, `IHAVEOPT`. */
export const initialMagic = Buffer.from('NBDMAGIC', 'latin1');
/** Begin of each option: `IHAVEOPT`. */
export const optionMagic = Buffer.from('IHAVEOPT', 'latin1');
/** Begin of each reply to an option. */
export const optionReplyMagic = Buffer.from([0, 0x03, 0xe8, 0x89, 0x04, 0x55, 0x65, 0xa9]);

/** Begin of a message in the transmission phase. */
export const Magic = {
  request: 0x25609513,
  simpleReply: 0x67446698,
  structuredReply: 0x668e33ef,
  extendedRequest: 0x21e41c71,
  extendedReply: 0x6e8a278c,
} as const;

/** Handshake flags of the server and, with the same values, of the client. */
export const HandshakeFlag = { fixedNewstyle: 1, noZeroes: 2 } as const;

/** Options of the handshake. */
export const Option = {
  exportName: 1,
  abort: 2,
  list: 3,
  startTls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const;

/** Types of the replies to options; errors have their highest bit set. */
export const OptionReply = {
  acknowledge: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  errorUnsupported: 0x80000001,
  errorPolicy: 0x80000002,
  errorInvalid: 0x80000003,
  errorTlsRequired: 0x80000005,
  errorUnknown: 0x80000006,
  errorShutdown: 0x80000007,
  errorBlockSizeRequired: 0x80000008,
  errorTooBig: 0x80000009,
  errorExtendedHeadersRequired: 0x8000000a,
} as const;

/** What is told of an export. */
export const Info = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

/** What an export can. */
export const TransmissionFlag = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  sendFlush: 1 << 2,
  sendFua: 1 << 3,
  sendTrim: 1 << 5,
  sendWriteZeroes: 1 << 6,
  sendDontFragment: 1 << 7,
  canMultiConnect: 1 << 8,
  sendCache: 1 << 10,
  sendFastZero: 1 << 11,
  blockStatusPayload: 1 << 12,
} as const;

/** Requests. */
export const Command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
} as const;

/** Flags of a request. */
export const CommandFlag = {
  fua: 1 << 0,
  noHole: 1 << 1,
  dontFragment: 1 << 2,
  requestOne: 1 << 3,
  fastZero: 1 << 4,
  payloadLength: 1 << 5,
} as const;

/** Flag of the last chunk of a reply. */
export const replyFlagDone = 1;

/** Types of the chunks of replies. */
export const ReplyType = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  blockStatusExtended: 6,
  error: 0x8001,
} as const;

/** Errors of requests. */
export const NbdError = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

/** States of a stretch in `base:allocation`. */
export const AllocationState = { hole: 1, zero: 2 } as const;

/** Port that IANA has given to NBD. */
export const nbdPort = 10_809;
/** Longest path of a Unix socket, in bytes (unix(7)); longer ones would be cut off. */
export const mostSocketPathBytes = 107;
/** Longest string, in bytes. */
export const mostStringBytes = 4096;
/** Most bytes that a request reads, or brings: what clients take for granted is 32 MiB. */
export const mostPayloadBytes = 32 * 1024 * 1024;
/** What the block size constraints recommend, in bytes: a page. */
export const preferredBlockBytes = 4096;
