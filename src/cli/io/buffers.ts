/** What requests write, what they should have read, and how that is shown. */
import { fstatSync, openSync, readSync, closeSync } from 'node:fs';
import { hostPath } from '../../byte-names.js';
import { describeErrno } from '../../system-errors.js';
import { IoFailure } from './failure.js';

/** What buffers hold that are read into. */
export const unreadByte = 0xab;
/** What is written where nothing else is said. */
export const usualPattern = 0xcd;

/** By how many bytes buffers miss what direct access asks for, where that is wanted. */
const misalignment = 16;
const shownBytes = 16;
const comparedBytes = 65_536;

/** Memory of a buffer. @param isMisaligned whether it is to begin where direct access cannot go */
export function newBuffer(length: number, byte: number, isMisaligned: boolean): Buffer {
  const buffer = Buffer.allocUnsafeSlow(length + misalignment).fill(byte);
  return isMisaligned ? buffer.subarray(misalignment) : buffer.subarray(0, length);
}

/** Whether every byte of a buffer is of one value. */
export function isFilledWith(buffer: Buffer, byte: number): boolean {
  const piece = Buffer.alloc(Math.min(buffer.length, comparedBytes), byte);
  for (let begin = 0; begin < buffer.length; begin += comparedBytes) {
    const part = buffer.subarray(begin, begin + comparedBytes);
    if (part.compare(piece, 0, part.length) !== 0) return false;
  }
  return true;
}

/** One after the other in a buffer. */
export function partsOf(buffer: Buffer, lengths: readonly number[]): readonly Buffer[] {
  let end = 0;
  return lengths.map((length) => buffer.subarray(end, (end += length)));
}

/**
 * Fills a buffer with the begin of a file, again and again where that is shorter.
 *
 * @throws IoFailure for a file that cannot be read, or is empty
 */
export function fillFromFile(buffer: Buffer, path: string): void {
  const fail = (why: string): IoFailure => new IoFailure(`${path}: ${why}`, 'errors');
  let length = 0;
  try {
    const descriptor = openSync(hostPath(path), 'r');
    try {
      if (fstatSync(descriptor).isDirectory()) throw fail(describeErrno('EISDIR'));
      for (let more = 1; more > 0 && length < buffer.length; length += more) {
        more = readSync(descriptor, buffer, length, buffer.length - length, null);
      }
    } finally {
      closeSync(descriptor);
    }
  } catch (error) {
    if (error instanceof IoFailure) throw error;
    throw fail(describeErrno((error as NodeJS.ErrnoException).code ?? String(error)));
  }
  if (length === 0 && buffer.length > 0) throw fail('file is empty');
  if (length < buffer.length) buffer.fill(Buffer.from(buffer.subarray(0, length)), length);
}

/** The bytes in hexadecimal and as characters, sixteen a line. @param offset guest offset of the first */
export function dumpText(buffer: Buffer, offset: number): string {
  const lines: string[] = [];
  for (let begin = 0; begin < buffer.length; begin += shownBytes) {
    const row = buffer.subarray(begin, begin + shownBytes);
    const bytes = Array.from(row, (byte) => `${byte.toString(16).padStart(2, '0')} `).join('');
    const characters = row.toString('latin1').replaceAll(/[^0-9A-Za-z]/g, '.');
    const place = (offset + begin).toString(16).padStart(8, '0');
    lines.push(`${place}:  ${bytes} ${characters}\n`);
  }
  return lines.join('');
}
