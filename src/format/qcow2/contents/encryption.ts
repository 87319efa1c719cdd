/** The encryption of an image: its header of LUKS, what it says of it, and the key of its disk. */
import { cannotOpen } from '../../../errors.js';
import { maxOffset } from '../../../limits.js';
import type { StorageFile } from '../../../storage/storage.js';
import type { FormatOpenOptions } from '../../driver.js';
import { type DiskKey, legacyKey, unlockLuks } from '../../encryption/disk-key.js';
import { type LuksFacts, luksFacts } from '../../encryption/facts.js';
import { type LuksArea, readLuksHeader } from '../../encryption/key-slots.js';
import { refusingImage, refusingToOpen } from '../../encryption/secret.js';
import { ExtensionType, findExtension } from '../layout/header-extensions.js';
import { CryptMethod, type Qcow2Header } from '../layout/header.js';

/** What stands in front of the names of options here. */
export const encryptPrefix = 'encrypt.';
const pointerBytes = 16;

/** How an image is encrypted; of LUKS what its header says. */
export interface EncryptionInfo extends LuksFacts {
  readonly format: 'aes' | 'luks';
}

/** Reads what is told of an image's encryption; undefined for one that is not encrypted. */
export async function encryptionFacts(
  file: StorageFile,
  header: Qcow2Header,
): Promise<EncryptionInfo | undefined> {
  if (header.cryptMethod === CryptMethod.none) return undefined;
  if (header.cryptMethod === CryptMethod.aes) return { format: 'aes' };
  const refuse = refusingImage(file.filename);
  const luks = await readLuksHeader(luksArea(file, header), refuse);
  const { ivgenAlg, detachedHeader, hashAlg, cipherAlg, uuid, ivgenHashAlg, ...rest } = luksFacts(
    luks,
    refuse,
  );
  const first = { ivgenAlg, detachedHeader, hashAlg, cipherAlg, uuid, ivgenHashAlg };
  return { ...first, format: 'luks', ...rest };
}

/**
 * The key of an image's disk.
 *
 * @returns undefined for a disk that is not encrypted, or is to be described only
 * @throws ERR_COWHERD_INVALID_ARGUMENT for a secret that is missing or wrong, or a header that is invalid
 */
export async function openEncryption(
  file: StorageFile,
  header: Qcow2Header,
  { encrypt, forInfo, readOnly }: FormatOpenOptions,
): Promise<DiskKey | undefined> {
  const refuse = refusingToOpen(file.filename);
  const { cryptMethod } = header;
  const wanted = encrypt?.format;
  if (cryptMethod === CryptMethod.none) {
    if (wanted === undefined) return undefined;
    throw refuse(`No encryption in image header, but options specified format '${wanted}'`);
  }
  const found = cryptMethod === CryptMethod.aes ? 'aes' : 'luks';
  if (wanted !== undefined && wanted !== found) {
    throw refuse(`Header reported '${found}' encryption format but options specify '${wanted}'`);
  }
  const isDescribed = forInfo && readOnly;
  if (found === 'aes') return isDescribed ? undefined : legacyKey(encrypt, encryptPrefix, refuse);
  const area = luksArea(file, header);
  const luks = await readLuksHeader(area, refusingImage(file.filename));
  if (isDescribed) return undefined;
  return await unlockLuks(luks, area, encrypt, encryptPrefix, 'host', refuse);
}

/** What says where a header of LUKS lies, and how long it is, in bytes. */
export function encryptionPointer(offset: number, length: number): Uint8Array {
  const data = new DataView(new ArrayBuffer(pointerBytes));
  data.setBigUint64(0, BigInt(offset));
  data.setBigUint64(8, BigInt(length));
  return new Uint8Array(data.buffer);
}

/** Where an image's header of LUKS lies. @throws ERR_COWHERD_INVALID_IMAGE where it has none */
export function luksArea(file: StorageFile, { extensions, ...header }: Qcow2Header): LuksArea {
  const { filename } = file;
  const invalid = (why: string): Error => cannotOpen('ERR_COWHERD_INVALID_IMAGE', filename, why);
  const extension = findExtension(extensions, ExtensionType.fullDiskEncryption);
  if (extension === undefined) {
    throw invalid(`Missing CRYPTO header for crypt method ${header.cryptMethod}`);
  }
  const { data } = extension;
  if (data.length !== pointerBytes) {
    throw invalid(`CRYPTO header extension size ${data.length}, but expected size ${pointerBytes}`);
  }
  const view = new DataView(data.buffer, data.byteOffset, pointerBytes);
  const start = view.getBigUint64(0);
  const length = view.getBigUint64(8);
  const clusterSize = 2 ** header.clusterBits;
  if (start % BigInt(clusterSize) !== 0n) {
    throw invalid(
      `Encryption header offset '${start}' is not a multiple of cluster size '${clusterSize}'`,
    );
  }
  const at = (offset: number, bytes: number): number => {
    const end = BigInt(offset + bytes);
    if (end > length || start + end > BigInt(maxOffset)) {
      throw invalid('Request for data outside of extension header');
    }
    return Number(start) + offset;
  };
  return {
    read: async (buffer, offset) => file.read(buffer, at(offset, buffer.length)),
    write: async (buffer, offset) => file.write(buffer, at(offset, buffer.length)),
    flush: () => file.flush(),
  };
}
