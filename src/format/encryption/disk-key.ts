/** The key of an encrypted disk, as the threads that have the image open share it. */
import type { SectorCipher, SectorCipherSpec } from '../../native/sector-cipher.js';
import { openSectorCipher } from '../../native/sector-ciphers.js';
import { type LuksArea, unlock } from './key-slots.js';
import { type LuksHeader, cipherOf } from './luks-header.js';
import { type GivenSecret, type Refuse, passwordOf } from './secret.js';

/** What QEMU's old encryption makes of a password: its first bytes. */
const legacyKeyBytes = 16;

/** By which sectors' numbers a disk is encrypted: of the disk itself, or of the file that it lies in. */
export type SectorNumbers = 'guest' | 'host';

/** The key of a disk and what it is for; can be cloned by structuredClone, and is then the same memory. */
export interface DiskKey {
  readonly cipher: SectorCipherSpec;
  /** Over a SharedArrayBuffer: zeroes once the image is closed everywhere. */
  readonly key: Uint8Array;
  readonly numbers: SectorNumbers;
}

/** How the payload of an image is enciphered, on one thread. */
export interface PayloadCipher {
  readonly cipher: SectorCipher;
  readonly numbers: SectorNumbers;
}

/**
 * The key that the header of LUKS holds.
 *
 * @param prefix what stands in front of the names of options
 * @throws what `refuse` makes of a secret that is missing or wrong
 */
export async function unlockLuks(
  header: LuksHeader,
  area: Pick<LuksArea, 'read'>,
  given: GivenSecret | undefined,
  prefix: string,
  numbers: SectorNumbers,
  refuse: Refuse,
): Promise<DiskKey> {
  const password = passwordOf(given, prefix, refuse);
  try {
    const key = await unlock(header, area, password, refuse);
    return { cipher: cipherOf(header, refuse), key: shared(key), numbers };
  } finally {
    password.fill(0);
  }
}

/** The key of QEMU's old encryption. @throws what `refuse` makes of a secret that is missing */
export function legacyKey(given: GivenSecret | undefined, prefix: string, refuse: Refuse): DiskKey {
  const password = passwordOf(given, prefix, refuse);
  const key = new Uint8Array(legacyKeyBytes);
  key.set(password.subarray(0, legacyKeyBytes));
  password.fill(0);
  const cipher = { algorithm: 'aes-128', mode: 'cbc', ivgen: 'plain64' } as const;
  return { cipher, key: shared(key), numbers: 'guest' };
}

/** The cipher of a disk on this thread. */
export function payloadCipher({ cipher, key, numbers }: DiskKey): PayloadCipher {
  const own = key.slice();
  try {
    return { cipher: openSectorCipher(cipher, own), numbers };
  } finally {
    own.fill(0);
  }
}

/** Leaves nothing of a key that nobody needs any more. */
export function forgetKey({ key }: DiskKey): void {
  key.fill(0);
}

/** Moves a key into memory that threads share. */
function shared(key: Uint8Array): Uint8Array {
  const copy = new Uint8Array(new SharedArrayBuffer(key.length));
  copy.set(key);
  key.fill(0);
  return copy;
}
