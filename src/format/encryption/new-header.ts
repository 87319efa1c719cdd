/** Headers of LUKS 1 for new images: what callers may choose, and the header that follows. */
import { randomBytes, randomUUID } from 'node:crypto';
import { CowherdError } from '../../errors.js';
import type { EncryptOptions } from '../create-options.js';
import { digestOf, fillSlot, isCipherKnown } from './key-slots.js';
import {
  type LuksHeader,
  cipherOf,
  encodeLuksHeader,
  headerSectors,
  keyStripes,
  masterDigestBytes,
  saltBytes,
  slotCount,
  splitKeySectors,
} from './luks-header.js';
import { type Refuse, passwordOf } from './secret.js';

const sectorBytes = 512;
const keyBits = /^(.*)-(\d+)$/;

/** A header that was made, and what is to be written where, in bytes from its begin: the header itself last. */
export interface NewLuksHeader {
  readonly header: LuksHeader;
  readonly masterKey: Uint8Array;
  readonly parts: readonly { readonly offset: number; readonly bytes: Uint8Array }[];
}

/** The refusal of options. */
const refusingOptions: Refuse = (why) =>
  new CowherdError('ERR_COWHERD_INVALID_ARGUMENT', why, { why });

/**
 * Looks at what callers choose.
 *
 * @returns the header, but for what is made at random
 * @throws ERR_COWHERD_INVALID_ARGUMENT, ERR_COWHERD_UNSUPPORTED
 */
export function decideLuksHeader(given: EncryptOptions): LuksHeader {
  const { cipherAlg = 'aes-256', cipherMode = 'xts', ivgenAlg = 'plain64' } = given;
  const { hashAlg = 'sha256', iterTime } = given;
  const { ivgenHashAlg = ivgenAlg === 'essiv' ? 'sha256' : undefined } = given;
  const [, cipherName = cipherAlg, bits = '128'] = keyBits.exec(cipherAlg) ?? [];
  const hasCipher = ['aes', 'cast5', 'serpent', 'twofish'].includes(cipherName);
  if (!hasCipher) throw refusingOptions(`Algorithm '${cipherAlg}' not supported`);
  if (iterTime === 0) throw refusingOptions("'iter-time' must be larger than 0");
  const keyBytes = (Number(bits) / 8) * (cipherMode === 'xts' ? 2 : 1);
  const room = splitKeySectors(keyBytes);
  const slots = Array.from({ length: slotCount }, (_, index) => ({
    active: false,
    iterations: 0,
    salt: new Uint8Array(saltBytes),
    keySector: headerSectors + index * room,
    stripes: keyStripes,
  }));
  const hash = ivgenHashAlg === undefined ? '' : `:${ivgenHashAlg}`;
  const header = {
    cipherName,
    cipherMode: `${cipherMode}-${ivgenAlg}${hash}`,
    hash: hashAlg,
    payloadSector: headerSectors + slotCount * room,
    keyBytes,
    masterDigest: new Uint8Array(masterDigestBytes),
    masterSalt: new Uint8Array(saltBytes),
    masterIterations: 0,
    uuid: '',
    slots,
  };
  const spec = cipherOf(header, refusingOptions);
  if ((keyBytes * keyStripes) % sectorBytes !== 0 || !isCipherKnown(spec)) {
    throw new CowherdError(
      'ERR_COWHERD_UNSUPPORTED',
      `The cipher ${cipherAlg}-${cipherMode} is not supported`,
    );
  }
  return header;
}

/** Bytes of a header and its keys. */
export function luksAreaBytes({ keyBytes }: LuksHeader): number {
  return (headerSectors + slotCount * splitKeySectors(keyBytes)) * sectorBytes;
}

/**
 * Makes a header with a new master key, and the password of `given` in its first slot.
 *
 * @param prefix what stands in front of the names of options
 */
export async function makeLuksHeader(
  given: EncryptOptions,
  prefix: string,
): Promise<NewLuksHeader> {
  const decided = decideLuksHeader(given);
  const password = passwordOf(given, prefix, refusingOptions);
  const { hash, keyBytes } = decided;
  const { iterTime } = given;
  const masterKey = new Uint8Array(randomBytes(keyBytes));
  const digest = await digestOf(hash, masterKey, iterTime);
  const header = { ...decided, ...digest, uuid: randomUUID() };
  const [first, ...others] = header.slots;
  const { slot, split } = await fillSlot(
    header,
    first,
    masterKey,
    password,
    iterTime,
    refusingOptions,
  );
  password.fill(0);
  const whole = { ...header, slots: [slot, ...others] };
  const parts = [
    { offset: slot.keySector * sectorBytes, bytes: split },
    { offset: 0, bytes: encodeLuksHeader(whole) },
  ];
  return { header: whole, masterKey, parts };
}
