/**
 * Ciphers of disks: each sector of 512 bytes is enciphered by itself, with a vector made of its number. The addon does
 * it where it can, a short run here and now, and long ones side by side on threads.
 */
import { createHash } from 'node:crypto';
import { CowherdError } from '../errors.js';
import { type NativeSectorCipher, addon } from './addon.js';
import { ringForCodecs } from './codecs.js';
import { PortableSectorCipher } from './portable-sector-cipher.js';
import { Operation, type RingClient } from './ring.js';
import {
  type SectorCipher,
  type SectorCipherParts,
  type SectorCipherSpec,
  cipherSectorBytes,
} from './sector-cipher.js';

/** Bytes of a run that is as quick done as handed to another thread. */
const inlineBytes = 16 * 1024;
/** Bytes that one thread deals with at a time. */
const pieceBytes = 128 * 1024;

/**
 * Makes a cipher.
 *
 * @throws CowherdError ERR_COWHERD_UNSUPPORTED for one that OpenSSL does not know
 */
export function openSectorCipher(spec: SectorCipherSpec, key: Uint8Array): SectorCipher {
  const parts = sectorCipherParts(spec, key);
  if (addon?.hasOpenSsl !== true) return new PortableSectorCipher(parts);
  const { name, isXts, numberBits, makers } = parts;
  const iv = { 0: 0, 32: 1, 64: 2 }[numberBits];
  const flat = makers.flatMap((maker) => [maker.name, maker.key]);
  const native = addon.createSectorCipher(name, parts.key, iv, isXts, ...flat);
  if (native !== undefined) return new NativeCipher(native);
  throw new CowherdError('ERR_COWHERD_UNSUPPORTED', `the cipher ${name} is not known here`);
}

/** What a cipher comes to. XTS is made of ECB: so it has no set-up for each sector, and any length of key. */
export function sectorCipherParts(spec: SectorCipherSpec, key: Uint8Array): SectorCipherParts {
  const { algorithm, mode, ivgen, ivgenHash, ivgenAlgorithm = algorithm } = spec;
  const isXts = mode === 'xts';
  const ecb = `${algorithm}-ecb`;
  const half = key.length / 2;
  const makers = [];
  if (mode !== 'ecb' && ivgen === 'essiv') {
    const digest = createHash(ivgenHash ?? '').update(key).digest();
    makers.push({ name: `${ivgenAlgorithm}-ecb`, key: new Uint8Array(digest) });
  }
  if (isXts) makers.push({ name: ecb, key: key.subarray(half) });
  const bits = ivgen === 'plain' ? 32 : 64;
  return {
    name: isXts ? ecb : `${algorithm}-${mode}`,
    key: isXts ? key.subarray(0, half) : key,
    isXts,
    numberBits: mode === 'ecb' ? 0 : bits,
    makers,
  };
}

class Settled implements RingClient<(result: number) => void> {
  requestEnded(settle: (result: number) => void, result: number): void {
    settle(result);
  }
}

const settled = new Settled();

class NativeCipher implements SectorCipher {
  readonly #native: NativeSectorCipher;

  constructor(native: NativeSectorCipher) {
    this.#native = native;
  }

  encrypt(input: Uint8Array, output: Uint8Array, sector: number): Promise<void> | undefined {
    return this.#run(true, input, output, sector);
  }

  decrypt(bytes: Uint8Array, sector: number): Promise<void> | undefined {
    return this.#run(false, bytes, bytes, sector);
  }

  #run(
    encrypts: boolean,
    input: Uint8Array,
    output: Uint8Array,
    sector: number,
  ): Promise<void> | undefined {
    if (input.length > inlineBytes) return this.#runOnThreads(encrypts, input, output, sector);
    const result = this.#native.run(encrypts, input, output, sector);
    return result === 0 ? undefined : Promise.reject(failure(result));
  }

  async #runOnThreads(
    encrypts: boolean,
    input: Uint8Array,
    output: Uint8Array,
    sector: number,
  ): Promise<void> {
    const ring = ringForCodecs();
    const operation = encrypts ? Operation.encrypt : Operation.decrypt;
    const pieces: Promise<number>[] = [];
    for (let done = 0; done < input.length; done += pieceBytes) {
      const from = input.subarray(done, done + pieceBytes);
      const to = output.subarray(done, done + pieceBytes);
      const first = sector + done / cipherSectorBytes;
      pieces.push(
        new Promise((settle) => {
          ring.cipher(settled, settle, operation, this.#native, from, to, first);
        }),
      );
    }
    const results = await Promise.all(pieces);
    const bad = results.find((result) => result !== 0);
    if (bad !== undefined) throw failure(bad);
  }
}

function failure(result: number): CowherdError {
  return new CowherdError('ERR_COWHERD_IO', `a cipher failed (errno ${-result})`);
}
