/**
 * LZVN, the plainer of LZFSE's two ways to pack: literals, and copies of what came before, in instructions of one
 * to three bytes.
 */
import { type LzOutput, LzfseError } from './lz-output.js';

const Kind = {
  meaningless: 0,
  nothing: 1,
  end: 2,
  /** Literals and a copy: with a distance of 11, 14 or 16 bits, or the last one. */
  near: 3,
  middle: 4,
  far: 5,
  again: 6,
  /** Literals alone, or a copy alone by the last distance; the long ones have their length in a byte. */
  literals: 7,
  manyLiterals: 8,
  copy: 9,
  longCopy: 10,
} as const;

/** Bytes of the instruction that ends all. */
const endBytes = 8;

function kindOf(code: number): number {
  if (code >= 0xf0) return code === 0xf0 ? Kind.longCopy : Kind.copy;
  if (code >= 0xe0) return code === 0xe0 ? Kind.manyLiterals : Kind.literals;
  if (code >= 0xd0 || (code >= 0x70 && code < 0x80)) return Kind.meaningless;
  if (code >= 0xa0 && code < 0xc0) return Kind.middle;
  if ((code & 7) === 7) return Kind.far;
  if ((code & 7) !== 6) return Kind.near;
  if (code >= 0x40) return Kind.again;
  if (code === 0x06) return Kind.end;
  return code === 0x0e || code === 0x16 ? Kind.nothing : Kind.meaningless;
}

const kinds = Uint8Array.from({ length: 256 }, (_, code) => kindOf(code));

/** Unpacks a block. @throws LzfseError */
export function unpackLzvn(packed: Uint8Array, output: LzOutput): void {
  let at = 0;
  let distance = 0;
  while (at < packed.length) {
    const code = packed[at];
    const [second, third] = [byteAt(packed, at + 1), byteAt(packed, at + 2)];
    let literals = code >> 6;
    let copied = ((code >> 3) & 7) + 3;
    switch (kinds[code]) {
      case Kind.end:
        if (at + endBytes > packed.length) throw new LzfseError('it is cut off');
        return;
      case Kind.nothing:
        at += 1;
        continue;
      case Kind.near:
        distance = ((code & 7) << 8) | second;
        at += 2;
        break;
      case Kind.middle:
        literals = (code >> 3) & 3;
        copied = (((code & 7) << 2) | (second & 3)) + 3;
        distance = (second >> 2) | (third << 6);
        at += 3;
        break;
      case Kind.far:
        distance = second | (third << 8);
        at += 3;
        break;
      case Kind.again:
        at += 1;
        break;
      case Kind.literals:
        [literals, copied] = [code & 15, 0];
        at += 1;
        break;
      case Kind.manyLiterals:
        [literals, copied] = [second + 16, 0];
        at += 2;
        break;
      case Kind.copy:
        [literals, copied] = [0, code & 15];
        at += 1;
        break;
      case Kind.longCopy:
        [literals, copied] = [0, second + 16];
        at += 2;
        break;
      case Kind.meaningless:
        throw new LzfseError('an instruction that means nothing');
    }
    if (at + literals > packed.length) throw new LzfseError('it is cut off');
    output.write(packed.subarray(at, at + literals));
    at += literals;
    output.copy(distance, copied);
  }
  throw new LzfseError('it has no end');
}

/** A byte of an instruction, which may be cut off: that shows behind it. */
function byteAt(packed: Uint8Array, at: number): number {
  return at < packed.length ? packed[at] : 0;
}
