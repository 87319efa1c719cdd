/**
 * Where the tables of chunks ("mish" blocks) of a UDIF image stand: as resources of the resource fork,
 * or in base64 in the property list.
 */
import { invalidImage } from '../failures.js';

const lengthBytes = 4;
const headerBytes = 16;

/**
 * The resources of a resource fork: a header of four offsets and lengths, then the data, each with its
 * length before it. The map that names them is not needed.
 */
export function resourcesOf(fork: Uint8Array, filename: string): readonly DataView[] {
  const invalid = (): Error => invalidImage(filename, 'the resource fork is invalid');
  if (fork.length < headerBytes) throw invalid();
  const view = new DataView(fork.buffer, fork.byteOffset, fork.length);
  const start = view.getUint32(0);
  const length = view.getUint32(8);
  const end = start + length;
  if (length === 0 || end > fork.length) throw invalid();
  const resources: DataView[] = [];
  for (let at = start; at < end;) {
    if (end - at < lengthBytes) throw invalid();
    const size = view.getUint32(at);
    at += lengthBytes;
    if (size === 0 || size > end - at) throw invalid();
    resources.push(new DataView(fork.buffer, fork.byteOffset + at, size));
    at += size;
  }
  return resources;
}

const opening = '<data>';
const closing = '</data>';

/** The data of a property list (XML); what is no table of chunks is among them. */
export function dataOf(list: Uint8Array, filename: string): readonly DataView[] {
  const text = Buffer.from(list.buffer, list.byteOffset, list.length).toString('latin1');
  const data: DataView[] = [];
  for (let at = text.indexOf(opening); at >= 0; at = text.indexOf(opening, at)) {
    const start = at + opening.length;
    at = text.indexOf(closing, start);
    if (at < 0) throw invalidImage(filename, 'the property list is invalid');
    const { buffer, byteOffset, length } = Buffer.from(text.slice(start, at), 'base64');
    data.push(new DataView(buffer, byteOffset, length));
  }
  return data;
}
