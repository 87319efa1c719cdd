/** Ciphers of disks by what Node offers, where no addon loads. */
import {
  type Cipher,
  type Decipher,
  createCipheriv,
  createDecipheriv,
  getCiphers,
} from 'node:crypto';
import { CowherdError } from '../errors.js';
import type { SectorCipher, SectorCipherParts } from './sector-cipher.js';

const sectorBytes = 512;
const blockBytes = 16;

/** See the file's comment. */
export class PortableSectorCipher implements SectorCipher {
  readonly #parts: SectorCipherParts;
  readonly #makers: readonly Cipher[];
  /** Of modes that go block by block. */
  readonly #encipher: Cipher | undefined;
  readonly #decipher: Decipher | undefined;

  /** @throws CowherdError ERR_COWHERD_UNSUPPORTED for a cipher that OpenSSL does not know */
  constructor(parts: SectorCipherParts) {
    const known = getCiphers();
    for (const { name } of [parts, ...parts.makers]) {
      if (known.includes(name)) continue;
      throw new CowherdError('ERR_COWHERD_UNSUPPORTED', `the cipher ${name} is not known here`);
    }
    this.#parts = parts;
    this.#makers = parts.makers.map(({ name, key }) =>
      createCipheriv(name, key, null).setAutoPadding(false),
    );
    if (!parts.isXts && parts.numberBits > 0) return;
    this.#encipher = createCipheriv(parts.name, parts.key, null).setAutoPadding(false);
    this.#decipher = createDecipheriv(parts.name, parts.key, null).setAutoPadding(false);
  }

  encrypt(input: Uint8Array, output: Uint8Array, sector: number): undefined {
    this.#run(true, input, output, sector);
  }

  decrypt(bytes: Uint8Array, sector: number): undefined {
    this.#run(false, bytes, bytes, sector);
  }

  #run(encrypts: boolean, input: Uint8Array, output: Uint8Array, sector: number): void {
    const { name, key, isXts } = this.#parts;
    const blocks = encrypts ? this.#encipher : this.#decipher;
    const vectors = this.#vectors(sector, input.length / sectorBytes);
    if (isXts && blocks !== undefined) {
      const tweaks = tweaksOf(vectors);
      exclusiveOr(input, tweaks, output);
      exclusiveOr(blocks.update(output), tweaks, output);
      return;
    }
    if (blocks !== undefined) {
      output.set(blocks.update(input));
      return;
    }
    const create = encrypts ? createCipheriv : createDecipheriv;
    for (let done = 0; done < input.length; done += sectorBytes) {
      const at = (done / sectorBytes) * blockBytes;
      const cipher = create(name, key, vectors.subarray(at, at + blockBytes));
      cipher.setAutoPadding(false);
      output.set(cipher.update(input.subarray(done, done + sectorBytes)), done);
    }
  }

  /** The vectors of consecutive sectors, one after the other. */
  #vectors(sector: number, count: number): Uint8Array {
    let vectors = new Uint8Array(count * blockBytes);
    const { numberBits } = this.#parts;
    if (numberBits === 0) return vectors;
    const view = new DataView(vectors.buffer);
    for (let index = 0; index < count; index++) {
      const number = sector + index;
      view.setUint32(index * blockBytes, number % 2 ** 32, true);
      if (numberBits === 64) {
        view.setUint32(index * blockBytes + 4, Math.floor(number / 2 ** 32), true);
      }
    }
    for (const maker of this.#makers) vectors = new Uint8Array(maker.update(vectors));
    return vectors;
  }
}

/** The tweaks of all blocks: a sector's first is its vector, each next one the last times x in GF(2^128). */
function tweaksOf(vectors: Uint8Array): Uint8Array {
  const tweaks = new Uint8Array((vectors.length / blockBytes) * sectorBytes);
  const words = new Int32Array(tweaks.buffer);
  const view = new DataView(vectors.buffer, vectors.byteOffset, vectors.byteLength);
  let next = 0;
  for (let at = 0; at < vectors.length; at += blockBytes) {
    const tweak = [0, 4, 8, 12].map((word) => view.getInt32(at + word, true));
    let [first, second, third, fourth] = tweak;
    for (let block = 0; block < sectorBytes / blockBytes; block++) {
      words.set([first, second, third, fourth], next);
      next += 4;
      const carry = (fourth >> 31) & 0x87;
      fourth = (fourth << 1) | (third >>> 31);
      third = (third << 1) | (second >>> 31);
      second = (second << 1) | (first >>> 31);
      first = (first << 1) ^ carry;
    }
  }
  return tweaks;
}

function exclusiveOr(input: Uint8Array, tweaks: Uint8Array, output: Uint8Array): void {
  for (let at = 0; at < input.length; at++) output[at] = input[at] ^ tweaks[at];
}
