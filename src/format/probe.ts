/**
 * Telling the format of a file by its bytes, as QEMU does: the formats that are read here, and those
 * that are not but must not be taken for raw disks.
 */
import type { StorageFile } from '../storage/storage.js';
import { isQcow2, qcow2Magic } from './qcow2/layout/header.js';

/** Formats that QEMU has and this package has not, and what QEMU calls them in sentences. */
export const foreignFormats = {
  bochs: 'Bochs',
  cloop: 'cloop',
  dmg: 'UDIF',
  luks: 'LUKS',
  parallels: 'Parallels',
  qcow: 'qcow',
  qed: 'QED',
  vdi: 'VDI',
  vhdx: 'VHDX',
  vmdk: 'VMDK',
  vpc: 'VPC',
} as const;

/** Name of a format that is recognised and not read. */
export type ForeignFormat = keyof typeof foreignFormats;

/** Whether a name is that of a format which is recognised and not read. */
export function isForeignFormat(name: string): name is ForeignFormat {
  return Object.hasOwn(foreignFormats, name);
}

/** Bytes at a file's begin that decide on its format. */
export const probeBytes = 512;

const cloopMagic =
  '#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n';
const bochsMagic = 'Bochs Virtual HD Image';
const bochsType = 'Redolog\0';
const bochsSubtype = 'Growing\0';
const bochsVersions = [0x00010000, 0x00020000];
const parallelsMagics = ['WithoutFreeSpace', 'WithouFreSpacExt'];
const parallelsVersion = 2;
const vdiSignatureAt = 64;
const vdiSignature = 0xbeda107f;
/** The last sector of a UDIF image: its magic number, version and length. */
const udifTrailer = [0x6b6f6c79, 4, 512];
const sectorSize = 512;

/**
 * The format of a file that begins with these bytes, `probeBytes` of them or all there are; undefined
 * where it is none that is known, so that the file is raw.
 */
export function recogniseFormat(bytes: Uint8Array): 'qcow2' | ForeignFormat | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const starts = (text: string, at = 0): boolean =>
    Buffer.from(text, 'latin1').every((byte, index) => bytes[at + index] === byte);
  const word = (at: number): number => (at + 4 <= bytes.length ? view.getUint32(at, true) : 0);
  if (isQcow2(bytes)) return 'qcow2';
  if (qcow2Magic.every((byte, at) => bytes[at] === byte) && word(4) === 0x01000000) return 'qcow';
  if (starts('QED\0')) return 'qed';
  if (starts('KDMV') || starts('COWD') || isVmdkDescriptor(bytes)) return 'vmdk';
  if (starts('vhdxfile')) return 'vhdx';
  if (starts('conectix')) return 'vpc';
  if (word(vdiSignatureAt) === vdiSignature) return 'vdi';
  if (starts('LUKS\xba\xbe\0\x01')) return 'luks';
  if (parallelsMagics.some((magic) => starts(magic)) && word(16) === parallelsVersion) {
    return 'parallels';
  }
  const isRedolog = starts(bochsMagic) && starts(bochsType, 32) && starts(bochsSubtype, 48);
  if (isRedolog && bochsVersions.includes(word(64))) return 'bochs';
  return starts(cloopMagic) ? 'cloop' : undefined;
}

/** The text that describes the parts of a VMDK image: comments, blank lines, then its version. */
function isVmdkDescriptor(bytes: Uint8Array): boolean {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
  return /^(?:#[^\n]*\n| +\r?\n)*version=[123]\r?\n/.test(text);
}

/** The format of a file; a file that is nothing that is known is raw. */
export async function probeFormat(file: StorageFile): Promise<'qcow2' | 'raw' | ForeignFormat> {
  const bytes = new Uint8Array(probeBytes);
  await file.read(bytes, 0);
  const format = recogniseFormat(bytes);
  if (format !== undefined) return format;
  return (await hasUdifTrailer(file)) ? 'dmg' : 'raw';
}

async function hasUdifTrailer(file: StorageFile): Promise<boolean> {
  const size = await file.size();
  if (size < sectorSize) return false;
  const bytes = new Uint8Array(sectorSize);
  await file.read(bytes, size - sectorSize);
  const view = new DataView(bytes.buffer);
  return udifTrailer.every((value, index) => view.getUint32(index * 4) === value);
}
