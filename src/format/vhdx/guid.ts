/** GUIDs as VHDX stores them: the first three groups are little-endian. */
import { randomUUID } from 'node:crypto';

/** Bytes of a GUID. */
export const guidBytes = 16;

/** A GUID as text, in capitals and without braces. */
export function guidAt(view: DataView, at: number): string {
  const group = (value: number, digits: number): string =>
    value.toString(16).padStart(digits, '0').toUpperCase();
  const rest = Array.from({ length: 8 }, (_, index) => group(view.getUint8(at + 8 + index), 2));
  return [
    group(view.getUint32(at, true), 8),
    group(view.getUint16(at + 4, true), 4),
    group(view.getUint16(at + 6, true), 4),
    rest.slice(0, 2).join(''),
    rest.slice(2).join(''),
  ].join('-');
}

/** The GUID that stands for none. */
export const noGuid = '00000000-0000-0000-0000-000000000000';

/** The bytes of a GUID that is given as text. */
export function encodeGuid(text: string): Uint8Array {
  const bytes = Buffer.from(text.replaceAll('-', ''), 'hex');
  for (const [start, end] of [
    [0, 4],
    [4, 6],
    [6, 8],
  ]) {
    bytes.subarray(start, end).reverse();
  }
  return bytes;
}

/** The bytes of a GUID that nothing else has. */
export function newGuid(): Uint8Array {
  return encodeGuid(randomUUID());
}
