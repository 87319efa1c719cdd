/**
 * The formats there are: the one list of them. A file is of the first of these that recognises it, and
 * else of `defaultFormat`.
 */
import type { OpenOption } from '../storage/open-option.js';
import type { StorageFile } from '../storage/storage.js';
import { bochsFormat } from './bochs/format.js';
import { cloopFormat } from './cloop/format.js';
import { dmgFormat } from './dmg/format.js';
import type { Format } from './format.js';
import { luksFormat } from './luks/format.js';
import { parallelsFormat } from './parallels/format.js';
import { Beginning, probeBytes } from './probe.js';
import { qcowFormat } from './qcow/format.js';
import { qcow2Format } from './qcow2/format.js';
import { qedFormat } from './qed/format.js';
import { rawFormat } from './raw/format.js';
import { vdiFormat } from './vdi/format.js';
import { vhdxFormat } from './vhdx/format.js';
import { vmdkFormat } from './vmdk/format.js';
import { vpcFormat } from './vpc/format.js';

const builtIn = [
  qcow2Format,
  qcowFormat,
  qedFormat,
  vmdkFormat,
  vhdxFormat,
  vpcFormat,
  vdiFormat,
  luksFormat,
  parallelsFormat,
  bochsFormat,
  cloopFormat,
  dmgFormat,
  rawFormat,
] as const;

/** The name of a format, as QEMU has it. */
export type FormatName = (typeof builtIn)[number]['name'];

const formats: Format[] = [...builtIn];

/** What a file is that no format recognises: the disk's bytes, as they are. */
export const defaultFormat: Format = rawFormat;

/** What an image is made as that is to stand on any other one. */
export const overlayFormat: Format & { readonly name: FormatName } = qcow2Format;

/** Adds a format, which is asked before those that are there already. */
export function registerFormat(format: Format): void {
  formats.unshift(format);
}

/** The format of a name; undefined if there is none. */
export function formatNamed(name: string): Format | undefined {
  return formats.find((format) => format.name === name);
}

/** The names of all formats that can be opened, in alphabetical order. */
export function formatNames(): readonly string[] {
  return formats
    .filter(({ load }) => load !== undefined)
    .map(({ name }) => name)
    .sort();
}

/**
 * The options that images of a format are opened with.
 *
 * @param name undefined for a format that is to be probed, which may be any
 */
export function formatOpenOptions(name: string | undefined): readonly OpenOption[] {
  return formatsNamed(name).flatMap(({ openOptions = [] }) => openOptions);
}

/** Whether images of a format can be given another file or image, by QEMU's name of it, at opening. */
export function takesChild(name: string | undefined, child: 'backing' | 'data-file'): boolean {
  return formatsNamed(name).some(({ openChildren = [] }) => openChildren.includes(child));
}

function formatsNamed(name: string | undefined): readonly Format[] {
  return name === undefined ? formats : formats.filter((format) => format.name === name);
}

/** The formats in which images can be made. */
export function creatableFormats(): readonly (Format & Required<Pick<Format, 'creation'>>)[] {
  return formats.filter(
    (format): format is Format & Required<Pick<Format, 'creation'>> =>
      format.creation !== undefined,
  );
}

/** The format of a file that begins with these bytes; undefined if they tell of none. */
export function recogniseFormat(bytes: Uint8Array): Format | undefined {
  const begin = new Beginning(bytes);
  return formats.find((format) => format.recognises?.(begin));
}

/** The format for which a program that is less careful could take these bytes, if there is one. */
export function mistakenFormat(bytes: Uint8Array): Format | undefined {
  const begin = new Beginning(bytes);
  return recogniseFormat(bytes) ?? formats.find((format) => format.resembles?.(begin));
}

/** The format of a file. */
export async function probeFormat(file: StorageFile): Promise<Format> {
  const bytes = new Uint8Array(probeBytes);
  await file.read(bytes, 0);
  const format = recogniseFormat(bytes);
  if (format !== undefined) return format;
  if (file.isSequential === true) return defaultFormat;
  for (const each of formats) {
    if (await each.recognisesFile?.(file)) return each;
  }
  return defaultFormat;
}
