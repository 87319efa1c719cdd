/** What an encrypted image says of its encryption, as `info` reports it. */
import { type LuksHeader, cipherOf } from './luks-header.js';
import type { Refuse } from './secret.js';

const sectorBytes = 512;

/** What a header of LUKS says. */
export interface LuksFacts {
  readonly ivgenAlg?: string;
  /** Whether the header lies in another file. */
  readonly detachedHeader?: boolean;
  readonly hashAlg?: string;
  readonly cipherAlg?: string;
  readonly uuid?: string;
  readonly ivgenHashAlg?: string | undefined;
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

/** The facts of a header, in the order in which QEMU tells them. */
export function luksFacts(header: LuksHeader, refuse: Refuse): Required<LuksFacts> {
  const { hash, uuid, payloadSector, masterIterations } = header;
  const { algorithm, mode, ivgen, ivgenHash } = cipherOf(header, refuse);
  return {
    ivgenAlg: ivgen,
    detachedHeader: payloadSector === 0,
    hashAlg: hash,
    cipherAlg: algorithm,
    uuid,
    ivgenHashAlg: ivgenHash,
    cipherMode: mode,
    slots: header.slots.map(({ active, iterations, keySector, stripes }) => {
      const keyOffset = keySector * sectorBytes;
      return active ? { active, iterations, keyOffset, stripes } : { active, keyOffset };
    }),
    payloadOffset: payloadSector * sectorBytes,
    masterKeyIterations: masterIterations,
  };
}
