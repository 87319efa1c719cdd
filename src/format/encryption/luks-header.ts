/** The header of LUKS 1 to and from bytes, every field checked as QEMU checks it. Its numbers are big-endian. */
import { nameOfBytes } from '../../byte-names.js';
import type { CipherMode, IvGenerator, SectorCipherSpec } from '../../native/sector-cipher.js';
import { digestBytes } from './anti-forensic.js';
import type { Refuse } from './secret.js';

/** Bytes of the header, behind which the keys lie. */
export const luksHeaderBytes = 592;
/** Places for keys. */
export const slotCount = 8;
/** Stripes over which a key is spread. */
export const keyStripes = 4000;
/** Bytes of a salt. */
export const saltBytes = 32;
/** Bytes of the digest by which a master key is known to be right. */
export const masterDigestBytes = 20;
/** Sectors in front of the first key, of which the room of each key is a multiple. */
export const headerSectors = 8;

const sectorBytes = 512;
const magic = [0x4c, 0x55, 0x4b, 0x53, 0xba, 0xbe];
const slotsAt = 208;
const slotBytes = 48;
const slotActive = 0x00ac71f3;
const slotInactive = 0x0000dead;
/** More than any program makes of a password in minutes: whoever asks for more wants to hold us up. */
const mostIterations = 2 ** 28;

/** A place for a key; numbers as they stand in the header. */
export interface LuksSlot {
  readonly active: boolean;
  readonly iterations: number;
  readonly salt: Uint8Array;
  readonly keySector: number;
  readonly stripes: number;
}

/** What a header says. */
export interface LuksHeader {
  readonly cipherName: string;
  /** With the generator of vectors: `xts-plain64`, `cbc-essiv:sha256`. */
  readonly cipherMode: string;
  readonly hash: string;
  /** Where the encrypted disk begins; 0 where it lies in another file. */
  readonly payloadSector: number;
  readonly keyBytes: number;
  readonly masterDigest: Uint8Array;
  readonly masterSalt: Uint8Array;
  readonly masterIterations: number;
  readonly uuid: string;
  readonly slots: readonly LuksSlot[];
}

/** The ciphers that there are, by their names in headers, with the lengths of their keys in bytes. */
const cipherKeys: Readonly<Record<string, readonly number[]>> = {
  aes: [16, 24, 32],
  cast5: [16],
  serpent: [16, 24, 32],
  twofish: [16, 24, 32],
};
const modes: readonly string[] = ['ecb', 'cbc', 'xts', 'ctr'] satisfies CipherMode[];
const generators: readonly string[] = ['plain', 'plain64', 'essiv'] satisfies IvGenerator[];
/** Hashes, by the names that headers and OpenSSL have for them. */
const hashNames: readonly string[] = [
  'md5',
  'sha1',
  'sha224',
  'sha256',
  'sha384',
  'sha512',
  'ripemd160',
  'sm3',
];

/** What a header says, once it is known to be one. @throws what `refuse` makes of one that is none */
export function decodeLuksHeader(bytes: Uint8Array, refuse: Refuse): LuksHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (!magic.every((byte, index) => bytes[index] === byte)) {
    throw refuse('Volume is not in LUKS format');
  }
  const version = view.getUint16(6);
  if (version !== 1) throw refuse(`LUKS version ${version} is not supported`);
  const text = (at: number, length: number, what: string): string => {
    const field = bytes.subarray(at, at + length);
    if (!field.includes(0)) throw refuse(`LUKS header ${what} is not NUL terminated`);
    return textIn(field);
  };
  const header = {
    cipherName: text(8, 32, 'cipher name'),
    cipherMode: text(40, 32, 'cipher mode'),
    hash: text(72, 32, 'hash spec'),
    payloadSector: view.getUint32(104),
    keyBytes: view.getUint32(108),
    masterDigest: bytes.slice(112, 112 + masterDigestBytes),
    masterSalt: bytes.slice(132, 132 + saltBytes),
    masterIterations: view.getUint32(164),
    uuid: textIn(bytes.subarray(168, 208)),
  };
  if (header.payloadSector < headerSectors) {
    throw refuse('LUKS payload is overlapping with the header');
  }
  if (header.masterIterations === 0) throw refuse('LUKS key iteration count is zero');
  if (header.masterIterations > mostIterations) {
    throw refuse(`LUKS key iteration count ${header.masterIterations} is too large`);
  }
  const slots = Array.from({ length: slotCount }, (_, index) => {
    const at = slotsAt + index * slotBytes;
    const state = view.getUint32(at);
    const slot: LuksSlot = {
      active: state === slotActive,
      iterations: view.getUint32(at + 4),
      salt: bytes.slice(at + 8, at + 8 + saltBytes),
      keySector: view.getUint32(at + 40),
      stripes: view.getUint32(at + 44),
    };
    refuseBadSlot(header, slot, index, refuse);
    if (!slot.active && state !== slotInactive) {
      throw refuse(`Keyslot ${index} state (active/disable) is corrupted`);
    }
    return slot;
  });
  refuseOverlaps({ ...header, slots }, refuse);
  return { ...header, slots };
}

/** The text of a field, which ends at its first byte of zero, if it has one. */
function textIn(field: Uint8Array): string {
  const end = field.indexOf(0);
  return nameOfBytes(end < 0 ? field : field.subarray(0, end));
}

function refuseBadSlot(
  { keyBytes, payloadSector }: Pick<LuksHeader, 'keyBytes' | 'payloadSector'>,
  { active, iterations, keySector, stripes }: LuksSlot,
  index: number,
  refuse: Refuse,
): void {
  if (stripes !== keyStripes) {
    throw refuse(`Keyslot ${index} is corrupted (stripes ${stripes | 0} != ${keyStripes})`);
  }
  if (active && iterations === 0) throw refuse(`Keyslot ${index} iteration count is zero`);
  if (active && iterations > mostIterations) {
    throw refuse(`Keyslot ${index} iteration count ${iterations} is too large`);
  }
  if (keySector < headerSectors) {
    throw refuse(`Keyslot ${index} is overlapping with the LUKS header`);
  }
  if (keySector + splitKeySectors(keyBytes) > payloadSector) {
    throw refuse(`Keyslot ${index} is overlapping with the encrypted payload`);
  }
}

function refuseOverlaps({ keyBytes, slots }: LuksHeader, refuse: Refuse): void {
  const sectors = splitKeySectors(keyBytes);
  slots.forEach(({ keySector }, index) => {
    const other = slots.findIndex(
      (slot, at) => at > index && Math.abs(slot.keySector - keySector) < sectors,
    );
    if (other < 0) return;
    throw refuse(`Keyslots ${index} and ${other} are overlapping in the header`);
  });
}

/** The bytes of a header. */
export function encodeLuksHeader(header: LuksHeader): Uint8Array {
  const bytes = new Uint8Array(luksHeaderBytes);
  const view = new DataView(bytes.buffer);
  const text = (at: number, value: string): void => {
    bytes.set(Buffer.from(value, 'latin1'), at);
  };
  bytes.set(magic);
  view.setUint16(6, 1);
  text(8, header.cipherName);
  text(40, header.cipherMode);
  text(72, header.hash);
  view.setUint32(104, header.payloadSector);
  view.setUint32(108, header.keyBytes);
  bytes.set(header.masterDigest, 112);
  bytes.set(header.masterSalt, 132);
  view.setUint32(164, header.masterIterations);
  text(168, header.uuid);
  header.slots.forEach((slot, index) => {
    const at = slotsAt + index * slotBytes;
    view.setUint32(at, slot.active ? slotActive : slotInactive);
    view.setUint32(at + 4, slot.iterations);
    bytes.set(slot.salt, at + 8);
    view.setUint32(at + 40, slot.keySector);
    view.setUint32(at + 44, slot.stripes);
  });
  return bytes;
}

/** Sectors of the room of a key that is spread over its stripes. */
export function splitKeySectors(keyBytes: number): number {
  const sectors = Math.ceil((keyBytes * keyStripes) / sectorBytes);
  return Math.ceil(sectors / headerSectors) * headerSectors;
}

/** What the cipher of a header's disk is made of. @throws what `refuse` makes of one that there is not */
export function cipherOf(header: LuksHeader, refuse: Refuse): SectorCipherSpec {
  const { cipherName, cipherMode, keyBytes, hash } = header;
  const dash = cipherMode.indexOf('-');
  if (dash < 0) throw refuse(`Unexpected cipher mode string format '${cipherMode}'`);
  const mode = cipherMode.slice(0, dash);
  const [ivgen, ...rest] = cipherMode.slice(dash + 1).split(':');
  const ivgenHash = rest.length > 0 ? rest.join(':') : undefined;
  const known = (names: readonly string[], name: string, type: string): void => {
    if (!names.includes(name)) throw refuse(`${type} '${name}' not supported`);
  };
  if (ivgenHash !== undefined) known(hashNames, ivgenHash, 'Hash algorithm');
  known(modes, mode, 'Cipher mode');
  const ownBytes = mode === 'xts' ? Math.floor(keyBytes / 2) : keyBytes;
  const lengths = Object.hasOwn(cipherKeys, cipherName) ? cipherKeys[cipherName] : [];
  if (!lengths.includes(ownBytes) || (mode === 'xts' && keyBytes % 2 !== 0)) {
    throw refuse(`Algorithm '${cipherName}' with key size ${ownBytes} bytes not supported`);
  }
  known(hashNames, hash, 'Hash algorithm');
  known(generators, ivgen, 'IV generator');
  if (ivgen === 'essiv' && ivgenHash === undefined) {
    throw refuse('Missing IV generator hash specification');
  }
  return {
    algorithm: `${cipherName}-${ownBytes * 8}`,
    mode: mode as CipherMode,
    ivgen: ivgen as IvGenerator,
    ...(ivgen === 'essiv' && essivOf(cipherName, ivgenHash ?? '', refuse)),
  };
}

/** The cipher of vectors: its key is a digest, whose length says which it is. */
function essivOf(
  cipherName: string,
  ivgenHash: string,
  refuse: Refuse,
): Pick<SectorCipherSpec, 'ivgenHash' | 'ivgenAlgorithm'> {
  const length = digestBytes(ivgenHash);
  const named = { aes: 'AES', serpent: 'Serpent', twofish: 'Twofish' }[cipherName];
  if (named === undefined && length !== cipherKeys[cipherName][0]) {
    throw refuse(`Cipher ${cipherName}-128 not supported with essiv`);
  }
  if (!cipherKeys[cipherName].includes(length)) {
    throw refuse(`No ${named ?? cipherName} cipher with key size ${length} available`);
  }
  return { ivgenHash, ivgenAlgorithm: `${cipherName}-${length * 8}` };
}
