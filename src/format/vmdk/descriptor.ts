/** The text that describes a VMDK image: which disk it is, and the extents it consists of. */
import { randomBytes } from 'node:crypto';
import { bytesOfName, nameOfBytes } from '../../byte-names.js';
import { printable } from '../../errors.js';
import { maxOffset, maxVmdkExtents, maxVmdkParentNameBytes } from '../../limits.js';
import { invalidImage, unsupportedImage } from '../failures.js';
import { sectorBytes } from './layout.js';

/** The parent's `cid` in the descriptor of a disk that has no parent. */
export const noParent = 0xffffffff;

/** A `cid` as descriptors have it. */
export function shownCid(cid: number): string {
  return cid.toString(16).padStart(8, '0');
}

/** Which disk an image is. */
export interface Identity {
  readonly cid: number;
  readonly parentCid: number;
  /** Name of the image below as stored, if there is one. */
  readonly parentName: string | undefined;
}

/** A line of the descriptor about an extent. */
export interface ExtentLine {
  readonly type: 'FLAT' | 'VMFS' | 'SPARSE' | 'VMFSSPARSE' | 'SESPARSE' | 'ZERO';
  /** Bytes. */
  readonly length: number;
  /** Name of the file that holds it, as stored; empty for ZERO. */
  readonly name: string;
  /** Host offset in bytes. */
  readonly offset: number;
}

/** Kinds of images that consist of several files and can be read; QEMU's list. */
const createTypes: readonly string[] = [
  'monolithicFlat',
  'vmfs',
  'vmfsSparse',
  'seSparse',
  'twoGbMaxExtentSparse',
  'twoGbMaxExtentFlat',
];

/** The characters of a descriptor, a byte each: what follows the first byte of 0 is no part of it. */
export function descriptorText(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  const text = end < 0 ? bytes : bytes.subarray(0, end);
  return Buffer.from(text.buffer, text.byteOffset, text.byteLength).toString('latin1');
}

/** Says which disk it is. @param text as `descriptorText` gives it */
export function parseIdentity(text: string, filename: string): Identity {
  const cid = hexadecimal(text, 'CID', filename);
  const parentCid = hexadecimal(text, 'parentCID', filename);
  const parentName = parseParentName(text, filename);
  return { cid, parentCid, parentName: parentCid === noParent ? undefined : parentName };
}

function hexadecimal(text: string, key: string, filename: string): number {
  const found = findDigits(text, key);
  if (found === undefined) {
    throw invalidImage(filename, `invalid VMDK image descriptor: ${key} is missing or no number`);
  }
  return Number.parseInt(text.slice(found.start, found.end), 16);
}

/** Where the hexadecimal digits of a key's value begin and end. */
function findDigits(text: string, key: string): { start: number; end: number } | undefined {
  const line = new RegExp(`^[ \\t]*${key}[ \\t]*=[ \\t]*(?:0x)?([0-9a-f]{1,8})\\b`, 'dim');
  const [start, end] = line.exec(text)?.indices?.[1] ?? [];
  return start === undefined || end === undefined ? undefined : { start, end };
}

/**
 * Another `cid` for the disk, in as many digits as the text has: nothing else moves, and one write changes
 * it.
 *
 * @param text as `descriptorText` gives it
 * @returns the digits, and where in the text they belong; undefined if it has none
 */
export function renewedCid(text: string): { at: number; digits: string } | undefined {
  const found = findDigits(text, 'CID');
  if (found === undefined) return undefined;
  const old = text.slice(found.start, found.end);
  for (;;) {
    const digits = randomBytes(4).toString('hex').slice(0, old.length);
    const cid = Number.parseInt(digits, 16);
    if (cid !== Number.parseInt(old, 16) && cid !== noParent) return { at: found.start, digits };
  }
}

function parseParentName(text: string, filename: string): string | undefined {
  const found = /^[ \t]*parentFileNameHint[ \t]*=(?:[ \t]*"([^"\n]*)")?/m.exec(text);
  if (found === null) return undefined;
  const name = found[1] as string | undefined;
  if (name === undefined) {
    const why = 'invalid VMDK image descriptor: the name of the parent does not end';
    throw invalidImage(filename, why);
  }
  if (name.length > maxVmdkParentNameBytes)
    throw invalidImage(filename, 'Backing file name too long');
  return name === '' ? undefined : storedName(name);
}

/**
 * The kind of an image whose extents the text names.
 *
 * @throws ERR_COWHERD_INVALID_IMAGE if it says none, ERR_COWHERD_UNSUPPORTED for those that are not read
 */
export function parseCreateType(text: string, filename: string): string {
  const found = /^[ \t]*createType[ \t]*=[ \t]*"([^"\n]{0,127})"/m.exec(text);
  if (found === null) throw invalidImage(filename, 'invalid VMDK image descriptor');
  const type = found[1];
  if (createTypes.includes(type)) return type;
  throw unsupportedImage(filename, `Unsupported image type '${shown(type)}'`);
}

/** The extents of the disk, in guest order. @param text as `descriptorText` gives it */
export function parseExtents(text: string, filename: string): readonly ExtentLine[] {
  const extents: ExtentLine[] = [];
  let end = 0;
  for (const line of text.split('\n')) {
    if (!/^\s*(?:RW|RDONLY|NOACCESS)\s/.test(line)) continue;
    const extent = parseExtent(line.trim(), filename);
    if (extent.length === 0) continue;
    end += extent.length;
    if (end > maxOffset) throw invalidImage(filename, 'Image is too big');
    if (extents.length === maxVmdkExtents) {
      throw invalidImage(filename, `more than ${maxVmdkExtents} extents`);
    }
    extents.push(extent);
  }
  return extents;
}

function parseExtent(line: string, filename: string): ExtentLine {
  const invalid = invalidImage(filename, `Invalid extent line: ${shown(line)}`);
  const found = /^(\w+)\s+(\d+)\s+(\w+)(?:\s+"([^"]{1,511})"(?:\s+(\d+))?)?(?:\s|$)/.exec(line);
  if (found === null) throw invalid;
  const [, access, sectors, type] = found;
  const name = found[4] as string | undefined;
  const offset = found[5] as string | undefined;
  if (access === 'NOACCESS') {
    throw unsupportedImage(filename, `Unsupported extent access '${access}'`);
  }
  const extent = {
    length: Number(sectors) * sectorBytes,
    name: storedName(name ?? ''),
    offset: Number(offset ?? 0) * sectorBytes,
  };
  switch (type) {
    case 'ZERO':
      return { ...extent, type };
    case 'FLAT':
      if (name === undefined || offset === undefined) throw invalid;
      if (extent.offset + extent.length > maxOffset) throw invalid;
      return { ...extent, type };
    case 'VMFS':
    case 'SPARSE':
    case 'VMFSSPARSE':
    case 'SESPARSE':
      if (name === undefined || offset !== undefined) throw invalid;
      return { ...extent, type };
    default:
      throw unsupportedImage(filename, `Unsupported extent type '${type}'`);
  }
}

/** A name of a file, whose bytes are in no certain encoding. */
function storedName(characters: string): string {
  return nameOfBytes(Buffer.from(characters, 'latin1'));
}

/** Characters of the descriptor as messages quote them. */
function shown(characters: string): string {
  return printable(storedName(characters.slice(0, 1000)));
}

/** What a new descriptor says. */
export interface NewDescriptor {
  readonly cid: number;
  readonly createType: string;
  /** Of the disk. */
  readonly sectors: number;
  /** In guest order; each from the begin of its file. */
  readonly extents: readonly NewExtent[];
  readonly adapterType: string;
  readonly hardwareVersion: string;
  readonly toolsVersion: string;
}

/** A line about an extent. */
export interface NewExtent {
  readonly type: 'FLAT' | 'SPARSE';
  readonly sectors: number;
  /** Of the file, without its folder. */
  readonly filename: string;
}

const heads: Readonly<Record<string, number>> = { ide: 16 };
const sectorsPerTrack = 63;

/** The text of a descriptor, as QEMU has it. */
export function encodeDescriptor(descriptor: NewDescriptor): Uint8Array {
  const { cid, createType, sectors, extents, adapterType } = descriptor;
  const ownHeads = heads[adapterType] ?? 255;
  const cylinders = Math.floor(sectors / (ownHeads * sectorsPerTrack));
  const lines = [
    '# Disk DescriptorFile',
    'version=1',
    `CID=${shownCid(cid)}`,
    'parentCID=ffffffff',
    `createType="${createType}"`,
    '',
    '# Extent description',
    ...extents.map(encodeExtent),
    '',
    '# The Disk Data Base',
    '#DDB',
    '',
    `ddb.virtualHWVersion = "${descriptor.hardwareVersion}"`,
    `ddb.geometry.cylinders = "${cylinders}"`,
    `ddb.geometry.heads = "${ownHeads}"`,
    `ddb.geometry.sectors = "${sectorsPerTrack}"`,
    `ddb.adapterType = "${adapterType}"`,
    `ddb.toolsVersion = "${descriptor.toolsVersion}"`,
    '',
  ];
  return Buffer.from(lines.join('\n'), 'latin1');
}

function encodeExtent({ type, sectors, filename }: NewExtent): string {
  const name = Buffer.from(bytesOfName(filename)).toString('latin1').replaceAll('"', '_');
  return `RW ${sectors} ${type} "${name}"${type === 'FLAT' ? ' 0' : ''}`;
}
