/**
 * The key slots of LUKS 1: each that is active holds the master key, by which the disk is encrypted, enciphered by a
 * key that is made of a password.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import type { SectorCipherSpec } from '../../native/sector-cipher.js';
import { openSectorCipher } from '../../native/sector-ciphers.js';
import { mergeKey, splitKey } from './anti-forensic.js';
import { deriveKey, iterationsWithin } from './key-derivation.js';
import {
  type LuksHeader,
  type LuksSlot,
  cipherOf,
  decodeLuksHeader,
  encodeLuksHeader,
  luksHeaderBytes,
  masterDigestBytes,
  saltBytes,
  slotCount,
} from './luks-header.js';
import type { Refuse } from './secret.js';

const sectorBytes = 512;
/** What QEMU takes by default. */
const usualIterTimeMs = 2000;
const leastIterations = 1000;
/** How often QEMU writes over a key that is given up. */
const erasures = 40;

/** Where a header and its keys lie. */
export interface LuksArea {
  /** Fills the buffer. */
  read(buffer: Uint8Array, offset: number): Promise<void>;
  write(buffer: Uint8Array, offset: number): Promise<void>;
  flush(): Promise<void>;
}

/** Reads and checks a header. @throws what `refuse` makes of what is none */
export async function readLuksHeader(
  area: Pick<LuksArea, 'read'>,
  refuse: Refuse,
): Promise<LuksHeader> {
  const bytes = new Uint8Array(luksHeaderBytes);
  await area.read(bytes, 0);
  const header = decodeLuksHeader(bytes, refuse);
  cipherOf(header, refuse);
  return header;
}

/**
 * The master key of a header.
 *
 * @throws what `refuse` makes of a password that is in no slot, or of a cipher that is not known here
 */
export async function unlock(
  header: LuksHeader,
  area: Pick<LuksArea, 'read'>,
  password: Uint8Array,
  refuse: Refuse,
): Promise<Uint8Array> {
  for (let index = 0; index < slotCount; index++) {
    const key = await keyIn(header, index, area, password, refuse);
    if (key !== undefined) return key;
  }
  throw refuse('Invalid password, cannot unlock any keyslot');
}

/** The master key in a slot; undefined if that is not active, or of another password. */
async function keyIn(
  header: LuksHeader,
  index: number,
  area: Pick<LuksArea, 'read'>,
  password: Uint8Array,
  refuse: Refuse,
): Promise<Uint8Array | undefined> {
  const slot = header.slots[index];
  const { hash, keyBytes } = header;
  if (!slot.active) return undefined;
  const spec = cipherOf(header, refuse);
  const split = new Uint8Array(keyBytes * slot.stripes);
  await area.read(split, slot.keySector * sectorBytes);
  const slotKey = await deriveKey(hash, password, slot.salt, slot.iterations, keyBytes);
  await cipherFor(spec, slotKey, refuse).decrypt(split, 0);
  const key = mergeKey(split, slot.stripes, hash);
  slotKey.fill(0);
  split.fill(0);
  const { masterSalt, masterIterations, masterDigest } = header;
  const digest = await deriveKey(hash, key, masterSalt, masterIterations, masterDigestBytes);
  if (timingSafeEqual(digest, masterDigest)) return key;
  key.fill(0);
  return undefined;
}

/** A cipher, or what `refuse` makes of its not being known here. */
function cipherFor(
  spec: SectorCipherSpec,
  key: Uint8Array,
  refuse: Refuse,
): ReturnType<typeof openSectorCipher> {
  if (!isCipherKnown(spec))
    throw refuse(`The cipher ${spec.algorithm}-${spec.mode} is not supported`);
  return openSectorCipher(spec, key);
}

/** Whether sectors can be enciphered so here: what OpenSSL has for disks is AES. */
export function isCipherKnown({ algorithm }: Pick<SectorCipherSpec, 'algorithm'>): boolean {
  return algorithm.startsWith('aes-');
}

/** A slot that was filled, and what is to lie at its place. */
interface FilledSlot {
  readonly slot: LuksSlot;
  readonly split: Uint8Array;
}

/** What a slot comes to be that holds a master key. */
export async function fillSlot(
  header: LuksHeader,
  slot: LuksSlot,
  masterKey: Uint8Array,
  password: Uint8Array,
  iterTimeMs: number | undefined,
  refuse: Refuse,
): Promise<FilledSlot> {
  const { hash, keyBytes } = header;
  const spec = cipherOf(header, refuse);
  const salt = new Uint8Array(randomBytes(saltBytes));
  const wanted = await iterationsFor(iterTimeMs, hash, password, salt, keyBytes);
  const iterations = Math.max(leastIterations, wanted);
  const slotKey = await deriveKey(hash, password, salt, iterations, keyBytes);
  const split = splitKey(masterKey, slot.stripes, hash);
  await cipherFor(spec, slotKey, refuse).encrypt(split, split, 0);
  slotKey.fill(0);
  return { slot: { ...slot, active: true, iterations, salt }, split };
}

/** The digest of a new master key, and what belongs to it. */
export async function digestOf(
  hash: string,
  masterKey: Uint8Array,
  iterTimeMs: number | undefined,
): Promise<Pick<LuksHeader, 'masterDigest' | 'masterSalt' | 'masterIterations'>> {
  const masterSalt = new Uint8Array(randomBytes(saltBytes));
  const length = masterDigestBytes;
  const wanted = await iterationsFor(iterTimeMs, hash, masterKey, masterSalt, length);
  const masterIterations = Math.max(leastIterations, Math.floor(wanted / slotCount));
  const masterDigest = await deriveKey(hash, masterKey, masterSalt, masterIterations, length);
  return { masterDigest, masterSalt, masterIterations };
}

function iterationsFor(
  iterTimeMs = usualIterTimeMs,
  hash: string,
  password: Uint8Array,
  salt: Uint8Array,
  length: number,
): Promise<number> {
  return iterationsWithin(iterTimeMs, hash, password, salt, length);
}

/** A password that is added. */
export interface AddedKey {
  /** Of the disk, which the new password comes to open. */
  readonly masterKey: Uint8Array;
  readonly newPassword: Uint8Array;
  /** Left out, the first that is free. */
  readonly slot?: number | undefined;
  readonly iterTimeMs?: number | undefined;
  /** Whether a slot that is active may be written over. */
  readonly force?: boolean | undefined;
}

/** Passwords that are given up: that of a slot, or one in whichever slots it is. */
export interface ErasedKey {
  readonly slot?: number | undefined;
  readonly oldPassword?: Uint8Array | undefined;
  /** Whether the last one may be given up, with which the disk is lost. */
  readonly force?: boolean | undefined;
}

/**
 * Adds a password. Whatever is cut off leaves the passwords that there were, with or without the new one.
 *
 * @returns the header as it is then
 * @throws what `refuse` makes of what cannot be
 */
export async function addKey(
  header: LuksHeader,
  area: LuksArea,
  { masterKey, newPassword, slot, iterTimeMs, force = false }: AddedKey,
  refuse: Refuse,
): Promise<LuksHeader> {
  const { slots } = header;
  if (slot !== undefined) refuseBadIndex(slot, refuse);
  const free = slots.findIndex(({ active }) => !active);
  if (slot === undefined && free < 0) {
    throw refuse("Can't add a keyslot - all keyslots are in use");
  }
  const index = slot ?? free;
  if (slots[index].active && !force) {
    throw refuse(`Refusing to overwrite active keyslot ${index} - please erase it first`);
  }
  // What is written over an active slot goes to the room of a free one, which the two then exchange.
  const swaps = slots[index].active && free >= 0;
  const room = slots[swaps ? free : index];
  const target = { ...slots[index], keySector: room.keySector };
  const filled = await fillSlot(header, target, masterKey, newPassword, iterTimeMs, refuse);
  await area.write(filled.split, room.keySector * sectorBytes);
  await area.flush();
  const { keySector } = slots[index];
  const changed = slots.map((each, at) => {
    if (at === index) return filled.slot;
    return swaps && at === free ? { ...each, keySector } : each;
  });
  const result = { ...header, slots: changed };
  await writeHeader(result, area);
  if (swaps) await overwrite(result, free, area);
  return result;
}

/**
 * Gives passwords up.
 *
 * @returns the header as it is then
 * @throws what `refuse` makes of what cannot be
 */
export async function eraseKeys(
  header: LuksHeader,
  area: LuksArea,
  { slot, oldPassword, force = false }: ErasedKey,
  refuse: Refuse,
): Promise<LuksHeader> {
  const { slots } = header;
  const isOf = async (index: number): Promise<boolean> => {
    const key = await keyIn(header, index, area, oldPassword ?? new Uint8Array(), refuse);
    key?.fill(0);
    return key !== undefined;
  };
  const activeCount = slots.filter(({ active }) => active).length;
  const erased: number[] = [];
  if (slot !== undefined) {
    refuseBadIndex(slot, refuse);
    if (oldPassword !== undefined && !(await isOf(slot))) {
      throw refuse(
        `Given keyslot ${slot} doesn't contain the given old password for erase operation`,
      );
    }
    if (!force && !slots[slot].active) {
      throw refuse(`Given keyslot ${slot} is already erased (inactive) `);
    }
    if (!force && activeCount === 1) {
      throw refuse(
        `Attempt to erase the only active keyslot ${slot} which will erase all the data in the image irreversibly - refusing operation`,
      );
    }
    erased.push(slot);
  } else if (oldPassword !== undefined) {
    for (let index = 0; index < slotCount; index++) if (await isOf(index)) erased.push(index);
    if (erased.length === 0) {
      throw refuse('No keyslots match given (old) password for erase operation');
    }
    if (!force && erased.length === activeCount) {
      throw refuse(
        'All the active keyslots match the (old) password that was given and erasing them will erase all the data in the image irreversibly - refusing operation',
      );
    }
  } else {
    throw refuse(
      'To erase keyslot(s), either explicit keyslot index or the password currently contained in them must be given',
    );
  }
  let result = header;
  for (const index of erased) {
    const changed = result.slots.map((each, at) =>
      at === index
        ? { ...each, active: false, iterations: 0, salt: new Uint8Array(saltBytes) }
        : each,
    );
    result = { ...result, slots: changed };
    await writeHeader(result, area);
    await overwrite(result, index, area);
  }
  return result;
}

function refuseBadIndex(index: number, refuse: Refuse): void {
  if (index >= 0 && index < slotCount) return;
  throw refuse(`Invalid keyslot ${index >>> 0} specified, must be between 0 and ${slotCount - 1}`);
}

/** Has the header be there in one step: a slot that reaches into the second sector is made active in the first. */
async function writeHeader(header: LuksHeader, area: LuksArea): Promise<void> {
  const bytes = encodeLuksHeader(header);
  await area.write(bytes.subarray(sectorBytes), sectorBytes);
  await area.flush();
  await area.write(bytes.subarray(0, sectorBytes), 0);
  await area.flush();
}

/** Leaves nothing of a key that was given up. */
async function overwrite(header: LuksHeader, index: number, area: LuksArea): Promise<void> {
  const { keySector, stripes } = header.slots[index];
  const length = header.keyBytes * stripes;
  for (let round = 0; round < erasures; round++) {
    await area.write(new Uint8Array(randomBytes(length)), keySector * sectorBytes);
    await area.flush();
  }
}
