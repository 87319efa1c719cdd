/** The members of a tar file: where each begins, by its name (pax(1), "ustar Interchange Format"). */
import { printable } from '../../errors.js';
import { maxOffset } from '../../limits.js';
import type { StorageFile } from '../storage.js';

const blockBytes = 512;
/** Most members; an OVA has a handful. */
const maxMembers = 4096;
/** Longest name, in bytes, in a header of its own. */
const maxNameBytes = 64 * 1024;

/** A member of a tar file. */
export interface TarMember {
  readonly name: string;
  /** Where its bytes begin. */
  readonly start: number;
  /** Bytes. */
  readonly length: number;
}

/** Lists the files in a tar file. @throws Error for what is none */
export async function tarMembers(file: StorageFile): Promise<readonly TarMember[]> {
  const size = await file.size();
  const members: TarMember[] = [];
  let long: { name?: string; length?: number } = {};
  for (let at = 0; at + blockBytes <= size;) {
    const header = Buffer.alloc(blockBytes);
    await file.read(header, at);
    if (header.every((byte) => byte === 0)) break;
    if (!isHeader(header)) throw new Error(`there is no tar header at byte ${at}`);
    const type = String.fromCharCode(header[156]);
    const length = long.length ?? numberIn(header, 124, 12);
    const start = at + blockBytes;
    if (!(length <= maxOffset) || start + length > size) {
      throw new Error(`a member ends beyond the file, at byte ${at}`);
    }
    if (type === 'x' || type === 'L') {
      if (length > maxNameBytes) throw new Error(`a name is too long, at byte ${at}`);
      const bytes = Buffer.alloc(length);
      await file.read(bytes, start);
      long = type === 'L' ? { name: textIn(bytes, 0, length) } : recordsIn(bytes);
    } else {
      if (type === '0' || type === '\0') {
        const prefix =
          header.toString('latin1', 257, 262) === 'ustar' ? textIn(header, 345, 155) : '';
        const short = `${prefix === '' ? '' : `${prefix}/`}${textIn(header, 0, 100)}`;
        members.push({ name: (long.name ?? short).replace(/^\.\//, ''), start, length });
        if (members.length > maxMembers) throw new Error(`it has more than ${maxMembers} members`);
      }
      long = {};
    }
    at = start + Math.ceil(length / blockBytes) * blockBytes;
  }
  return members;
}

/** Whether a block's checksum is that of a header. */
function isHeader(header: Buffer): boolean {
  let sum = 0;
  for (const [at, byte] of header.entries()) sum += at >= 148 && at < 156 ? 0x20 : byte;
  return numberIn(header, 148, 8) === sum;
}

/** A number in octal digits, or in GNU's way with its highest bit set. */
function numberIn(header: Buffer, at: number, length: number): number {
  if ((header[at] & 0x80) !== 0) {
    let value = header[at] & 0x7f;
    for (let index = at + 1; index < at + length; index++) value = value * 256 + header[index];
    return value;
  }
  const text = textIn(header, at, length).trim();
  return /^[0-7]+$/.test(text) ? Number.parseInt(text, 8) : text === '' ? 0 : NaN;
}

function textIn(bytes: Buffer, at: number, length: number): string {
  const end = bytes.indexOf(0, at);
  return bytes.toString('utf8', at, end === -1 || end > at + length ? at + length : end);
}

/** What the records of an extended header say: `LENGTH KEY=VALUE` and a newline each. */
function recordsIn(bytes: Buffer): { name?: string; length?: number } {
  const values: { name?: string; length?: number } = {};
  for (let at = 0; at < bytes.length;) {
    const space = bytes.indexOf(0x20, at);
    const length = Number(bytes.toString('latin1', at, space));
    if (space === -1 || !Number.isInteger(length) || length <= space - at) {
      throw new Error(`an extended header is damaged: '${printable(textIn(bytes, at, 20))}'`);
    }
    const [key, ...rest] = bytes.toString('utf8', space + 1, at + length - 1).split('=');
    const value = rest.join('=');
    if (key === 'path') values.name = value;
    if (key === 'size') values.length = Number(value);
    at += length;
  }
  return values;
}
