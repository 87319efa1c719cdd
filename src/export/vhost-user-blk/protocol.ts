/**
 * Numbers of the vhost-user protocol (QEMU's docs/interop/vhost-user.rst) and of virtio (virtio 1.2,
 * sections 2.7, 2.8, 5.2 and 6), as far as a block device meets them.
 */

/** Requests of a front-end. */
export const Request = {
  getFeatures: 1,
  setFeatures: 2,
  setOwner: 3,
  resetOwner: 4,
  setMemTable: 5,
  setVringNum: 8,
  setVringAddr: 9,
  setVringBase: 10,
  getVringBase: 11,
  setVringKick: 12,
  setVringCall: 13,
  setVringErr: 14,
  getProtocolFeatures: 15,
  setProtocolFeatures: 16,
  getQueueNum: 17,
  setVringEnable: 18,
  setBackendReqFd: 21,
  getConfig: 24,
  setConfig: 25,
  getInflightFd: 31,
  setInflightFd: 32,
  resetDevice: 34,
  getMaxMemSlots: 36,
  addMemReg: 37,
  remMemReg: 38,
} as const;

/** Requests of a back-end, which go over a socket of their own. */
export const BackendRequest = { configChange: 2 } as const;

/** Flags of a message: its version, and what is wanted of it. */
export const MessageFlag = { version: 1, versionMask: 3, reply: 4, needReply: 8 } as const;

/** Bytes of a message before its payload: request, flags and size, 32 bits each. */
export const headerBytes = 12;
/** Bytes of a payload at most: a region takes 32, and what is configured 256. */
export const mostPayloadBytes = 4096;
/** Descriptors that come with a message at most. */
export const mostDescriptors = 8;

/** In the number of SET_VRING_KICK, CALL and ERR: no descriptor comes along. */
export const noDescriptorBit = 0x100;

/** Bits of GET_PROTOCOL_FEATURES. */
export const ProtocolFeature = {
  MQ: 0n,
  REPLY_ACK: 3n,
  BACKEND_REQ: 5n,
  CONFIG: 9n,
  INFLIGHT_SHMFD: 12n,
  RESET_DEVICE: 13n,
  CONFIGURE_MEM_SLOTS: 15n,
} as const;

/** Bits of GET_FEATURES: of the device, of its rings, and of vhost-user. */
export const Feature = {
  SEG_MAX: 2n,
  RO: 5n,
  BLK_SIZE: 6n,
  FLUSH: 9n,
  TOPOLOGY: 10n,
  CONFIG_WCE: 11n,
  MQ: 12n,
  DISCARD: 13n,
  WRITE_ZEROES: 14n,
  INDIRECT_DESC: 28n,
  EVENT_IDX: 29n,
  PROTOCOL_FEATURES: 30n,
  VERSION_1: 32n,
  RING_PACKED: 34n,
} as const;

/** Whether a bit is set. */
export function has(bits: bigint, feature: bigint): boolean {
  return ((bits >> feature) & 1n) === 1n;
}

/** All of these bits. */
export function bitsOf(features: readonly bigint[]): bigint {
  return features.reduce((bits, feature) => bits | (1n << feature), 0n);
}

/** Descriptors of a ring at most, a power of two. */
export const mostRingSize = 32768;
/** Regions of guest memory at most. */
export const mostRegions = 509;

/** What a request of a block device asks for. */
export const BlockRequest = {
  in: 0,
  out: 1,
  flush: 4,
  getId: 8,
  discard: 11,
  writeZeroes: 13,
} as const;

/** How a request of a block device ended. */
export const BlockStatus = { ok: 0, ioError: 1, unsupported: 2 } as const;

/** Bytes of a sector, the unit of every offset and length. */
export const sectorBytes = 512;
/** Bytes before the data of a request: its type, 32 bits reserved, its first sector. */
export const requestHeaderBytes = 16;
/** Bytes of a range of DISCARD and WRITE_ZEROES: first sector, sectors, flags. */
export const rangeBytes = 16;
/** Sectors of such a range at most: 2 GiB. */
export const mostRangeSectors = 4194303;
/** Such ranges in a request. */
export const mostRanges = 32;
/** Stretches of memory of a request at most, as front-ends are told. */
export const mostSegments = 126;
/** Bytes of the name that GET_ID gives. */
export const idBytes = 20;

/** What is wrong with what a front-end says; its message fits a line. */
export class VhostUserError extends Error {}
