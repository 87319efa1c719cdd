/**
 * Names of files as strings that lose nothing. To the host a name is bytes, in UTF-8 as a rule; a byte
 * that is part of no character of UTF-8 becomes a lone surrogate, U+DC00 plus the byte, which no valid
 * text holds. (Python does so too: PEP 383.)
 */

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const byteMarks = /(?<![\ud800-\udbff])[\udc80-\udcff]/;
const markBase = 0xdc00;

/** The name that bytes are. */
export function nameOfBytes(bytes: Uint8Array): string {
  const whole = decoded(bytes);
  if (whole !== undefined) return whole;
  let name = '';
  for (let at = 0; at < bytes.length;) {
    const length = characterLength(bytes[at]);
    const character = decoded(bytes.subarray(at, at + length));
    name += character ?? String.fromCharCode(markBase + bytes[at]);
    at += character === undefined ? 1 : length;
  }
  return name;
}

/** The bytes that a name, or a text that has names in it, is. */
export function bytesOfName(name: string): Buffer {
  if (!hasByteMarks(name)) return Buffer.from(name);
  const parts: Uint8Array[] = [];
  let rest = name;
  for (let at = rest.search(byteMarks); at >= 0; at = rest.search(byteMarks)) {
    parts.push(Buffer.from(rest.slice(0, at)), Uint8Array.of(rest.charCodeAt(at) - markBase));
    rest = rest.slice(at + 1);
  }
  return Buffer.concat([...parts, Buffer.from(rest)]);
}

/** A name as functions of `node:fs` and the addon have to be given it. */
export function hostPath(name: string): string | Buffer {
  return hasByteMarks(name) ? bytesOfName(name) : name;
}

function hasByteMarks(name: string): boolean {
  return !name.isWellFormed() && byteMarks.test(name);
}

function decoded(bytes: Uint8Array): string | undefined {
  try {
    return strict.decode(bytes);
  } catch {
    return undefined;
  }
}

/** Bytes of the character that one begins; 1 for what begins none. */
function characterLength(first: number): number {
  if (first < 0xc2 || first > 0xf4) return 1;
  if (first < 0xe0) return 2;
  return first < 0xf0 ? 3 : 4;
}
