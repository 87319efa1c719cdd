/** What an encrypted image says of its encryption. It is described only: no guest data is decrypted. */
import { type CowherdError, cannotOpen } from '../../../errors.js';
import { maxOffset } from '../../../limits.js';
import type { StorageFile } from '../../../storage/storage.js';
import type { FormatQueue } from '../../driver.js';
import { ExtensionType, findExtension } from '../layout/header-extensions.js';
import { CryptMethod, type Qcow2Header } from '../layout/header.js';
import { decodeText } from '../layout/stored-text.js';

const sectorSize = 512;
const headerBytes = 592;
const slotCount = 8;
const slotsAt = 208;
const slotBytes = 48;
const slotActive = 0x00ac71f3;

/** How an image is encrypted, as `info` reports it; of LUKS what its header says. */
export interface EncryptionInfo {
  readonly ivgenAlg?: string;
  /** Whether the header lies in another file. */
  readonly detachedHeader?: boolean;
  readonly hashAlg?: string;
  readonly cipherAlg?: string;
  readonly uuid?: string;
  readonly ivgenHashAlg?: string | undefined;
  readonly format: 'aes' | 'luks';
  readonly cipherMode?: string;
  readonly slots?: readonly EncryptionSlotInfo[];
  /** Bytes. */
  readonly payloadOffset?: number;
  readonly masterKeyIterations?: number;
}

/** A place for a key; its offset in bytes. */
export interface EncryptionSlotInfo {
  readonly active: boolean;
  /** Of one that is active. */
  readonly iterations?: number;
  readonly keyOffset: number;
  /** Of one that is active. */
  readonly stripes?: number;
}

/** Reads what is told of an image's encryption; undefined for one that is not encrypted. */
export async function encryptionFacts(
  file: StorageFile,
  { cryptMethod, extensions }: Qcow2Header,
): Promise<EncryptionInfo | undefined> {
  if (cryptMethod === CryptMethod.none) return undefined;
  if (cryptMethod === CryptMethod.aes) return { format: 'aes' };
  const extension = findExtension(extensions, ExtensionType.fullDiskEncryption);
  if (extension === undefined || extension.data.length < 16) {
    return { format: 'luks' };
  }
  const place = new DataView(extension.data.buffer, extension.data.byteOffset, 16);
  const bytes = new Uint8Array(headerBytes);
  const hostOffset = Number(place.getBigUint64(0));
  if (hostOffset <= maxOffset - headerBytes) await file.read(bytes, hostOffset);
  return decodeLuks(bytes);
}

/** What the header of LUKS 1 says, whose numbers are big-endian, where it can be made sense of. */
function decodeLuks(bytes: Uint8Array): EncryptionInfo {
  const view = new DataView(bytes.buffer);
  const text = (at: number, length: number): string => decodeText(bytes.subarray(at, at + length));
  const isLuks = [0x4c554b53, 0xbabe0001].every(
    (word, index) => view.getUint32(index * 4) === word,
  );
  if (!isLuks) return { format: 'luks' };
  const [cipherMode = '', ivgen = ''] = text(40, 32).split('-');
  const [ivgenAlg, ivgenHashAlg] = ivgen.split(':') as [string, string?];
  // Half of the key of XTS is for the tweak.
  const keyBits = (view.getUint32(108) * 8) / (cipherMode === 'xts' ? 2 : 1);
  const slots = Array.from({ length: slotCount }, (_, index) => {
    const at = slotsAt + index * slotBytes;
    const active = view.getUint32(at) === slotActive;
    const keyOffset = view.getUint32(at + 40) * sectorSize;
    if (!active) return { active, keyOffset };
    return {
      active,
      iterations: view.getUint32(at + 4),
      keyOffset,
      stripes: view.getUint32(at + 44),
    };
  });
  return {
    ivgenAlg,
    detachedHeader: false,
    hashAlg: text(72, 32),
    cipherAlg: `${text(8, 32)}-${keyBits}`,
    uuid: text(168, 40),
    ...(ivgenHashAlg !== undefined && { ivgenHashAlg }),
    format: 'luks',
    cipherMode,
    slots,
    payloadOffset: view.getUint32(104) * sectorSize,
    masterKeyIterations: view.getUint32(164),
  };
}

/** The error for whatever would need the key. */
export function encryptedRefusal(filename: string): CowherdError {
  return cannotOpen('ERR_COWHERD_UNSUPPORTED', filename, 'Encrypted images are not supported yet');
}

/** The queue of an image whose data cannot be decrypted. */
export class EncryptedQueue implements FormatQueue {
  readonly #filename: string;

  constructor(filename: string) {
    this.#filename = filename;
  }

  read(): Promise<void> {
    return this.#refuse();
  }

  write(): Promise<void> {
    return this.#refuse();
  }

  writeZeroes(): Promise<void> {
    return this.#refuse();
  }

  discard(): Promise<void> {
    return this.#refuse();
  }

  writeCompressed(): Promise<void> {
    return this.#refuse();
  }

  reserve(): Promise<boolean> {
    return Promise.resolve(false);
  }

  dataCopy(): undefined {
    return undefined;
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #refuse(): Promise<never> {
    return Promise.reject(encryptedRefusal(this.#filename));
  }
}
