/**
 * Opening an image and what it stands on: probing its format, its external data file, and its
 * backing chain under the caller's policy.
 */
import { QueueCounters } from '../../engine/queues/counters.js';
import { Node } from '../../engine/queues/node.js';
import { CowherdError, nameMemoryError, printable, problemWith, cannotOpen } from '../../errors.js';
import type {
  BackingReference,
  ChildFile,
  ChildReference,
  DecryptOptions,
  FormatDriver,
  FormatImage,
} from '../../format/driver.js';
import { formatNamed, probeFormat } from '../../format/registry.js';
import { maxChainDepth } from '../../limits.js';
import { WindowFile } from '../../storage/filters/window.js';
import { identifyFile, openStorageFile, registerProtocol } from '../../storage/registry.js';
import type { StorageFile } from '../../storage/storage.js';
import type { Image } from '../api/image.js';
import type { OpenImageOptions } from '../api/options.js';
import type { IsWritten } from './above-base.js';
import { BackingEdge, type BelowName } from './backing-edge.js';
import { closeEach } from './cleanup-steps.js';
import { checkOpenOptions } from '../options/open-options.js';
import { formatByDriver, loadDriver } from '../names/formats.js';
import { noteOpen } from './left-open.js';
import { nestedImages } from './nested.js';
import { OpenedImage, type OpenedParts } from './opened-image.js';
import { isForReading, permissionsOf } from './permissions.js';
import { type PathLike, pathOf } from '../api/path.js';
import { findDataFile, isFromFolder, resolveReference } from '../names/reference.js';
import { isJsonName, specificationOf } from '../names/specification.js';
import { allocateSharedState } from './shared-state.js';

const sectorSize = 512;

/** Where in a chain an image is opened. */
interface Place {
  /** What identifies the files of those above it. */
  readonly above: readonly string[];
  /** Whether its name is stored in the one above. */
  readonly isStored?: boolean;
  /** Whether it was just made open-ended. */
  readonly isOpenEnded?: boolean;
  /** The other files that it is spread over, where they are open already. */
  readonly children?: readonly ChildFile[];
  /** Tells which image below is to be written to; absent where none is, or one has been found. */
  readonly isWritten?: IsWritten | undefined;
}

export type { IsWritten } from './above-base.js';
export { locksFiles } from '../../storage/registry.js';

/**
 * Opens an image, its backing chain and its external data file.
 *
 * @param path of the image file: a path, a URL, or a `json:` name with QEMU's options
 * @throws CowherdError naming the file, if an option is wrong, or any of them cannot be opened or is no valid image
 */
export function openImage(path: PathLike, options: OpenImageOptions = {}): Promise<Image> {
  return openTarget(path, options, false);
}

/** The same of an image that was just made, which may be open-ended; `endImage` says how large it became. */
export function openTarget(
  path: PathLike,
  options: OpenImageOptions,
  isOpenEnded: boolean,
): Promise<Image> {
  return openTop(path, options, { above: [], isOpenEnded });
}

/** The same with one more image of the chain open for writing: the first that `isWritten` tells. */
export function openWithBase(
  path: PathLike,
  options: OpenImageOptions,
  isWritten: IsWritten,
): Promise<Image> {
  return openTop(path, options, { above: [], isWritten });
}

/** Files that are images themselves. */
export const nestedProtocol = nestedImages((name, options) =>
  openLink(name, options, { above: [] }),
);
registerProtocol(nestedProtocol);

async function openTop(path: PathLike, options: OpenImageOptions, place: Place): Promise<Image> {
  const filename = pathOf(path);
  checkOpenOptions(filename, options);
  const image = await openLink(filename, options, place);
  image.onClosed(noteOpen(image, !image.readOnly));
  return image;
}

/** Opens an image that lies in a storage file already open; the image then owns the file. */
export async function openImageOn(
  file: StorageFile,
  options: OpenImageOptions = {},
): Promise<Image> {
  checkOpenOptions(file.filename, options);
  try {
    return await openOn(file, options, { above: [file.filename] });
  } catch (error) {
    throw nameMemoryError(error, file.filename);
  }
}

/** Opens an image of a chain by its name. */
async function openLink(name: string, given: OpenImageOptions, place: Place): Promise<OpenedImage> {
  const { above } = place;
  const { path, options } = namedOptions(name, given, place.isStored === true);
  if (options.format !== undefined) await loadDriver(options.format);
  const file = await openImageFile(path, options);
  try {
    const identity = await identifyFile(path);
    if (above.includes(identity)) {
      throw new CowherdError(
        'ERR_COWHERD_BACKING',
        `Backing file '${path}' creates an infinite loop.`,
        { filename: path },
      );
    }
    if (above.length >= maxChainDepth) {
      throw problemWith(
        'ERR_COWHERD_BACKING',
        path,
        `the backing chain is longer than ${maxChainDepth} images`,
      );
    }
    return await openOn(file, options, { ...place, above: [...above, identity] });
  } catch (error) {
    await file.close().catch(() => undefined);
    throw nameMemoryError(error, path);
  }
}

/**
 * What a name says together with what the caller says, who may leave the format to the name.
 *
 * @throws ERR_COWHERD_INVALID_ARGUMENT as `specificationOf`, or if the two say different formats
 */
function namedOptions(
  name: string,
  given: OpenImageOptions,
  isStored: boolean,
): { readonly path: string; readonly options: OpenImageOptions } {
  const use = { forWriting: !isForReading(given), isStored };
  const { path, format, settings } = specificationOf(name, use);
  const options = { ...given, ...settings, format: given.format ?? format };
  const differ = given.format !== undefined && format !== undefined && given.format !== format;
  if (differ && !isStored) {
    throw cannotOpen(
      'ERR_COWHERD_INVALID_ARGUMENT',
      name,
      `the name says the format ${format}, and the options say ${given.format}`,
    );
  }
  return { path, options };
}

/**
 * Opens the file of an image. A raw disk that is only read may be written to by others meanwhile; what
 * has tables may not, and whether a file has shows when it is looked at.
 */
async function openImageFile(path: string, options: OpenImageOptions): Promise<StorageFile> {
  const { format, shareWriting = true } = options;
  const readOnly = isForReading(options);
  const opening = {
    readOnly,
    cache: options.cache ?? 'writeback',
    aio: options.aio ?? 'auto',
    forceShare: options.forceShare ?? false,
    locking: options.locking ?? 'auto',
    unpack: options.unpack ?? true,
    http: options.http,
    nbd: options.nbd,
    null: options.null,
    signal: options.signal,
    isAlone: mayNotReachOut(options),
    filters: options.filters,
  } as const;
  const isBare = format === undefined || formatNamed(format)?.isBare === true;
  const sharesWriting = shareWriting && isBare;
  const file = await openStorageFile(path, { ...opening, sharesWriting });
  const isSettled = !sharesWriting || format !== undefined || file.isLockless === true;
  if (!readOnly || isSettled) return file;
  let again: StorageFile;
  try {
    if ((await probeFormat(file)).isBare === true) return file;
    // The first is still open, and with it the ring that both use.
    again = await openStorageFile(path, opening);
  } catch (error) {
    await file.close().catch(() => undefined);
    throw error;
  }
  await file.close();
  return again;
}

/** Opens an image that lies in a file, which is closed if that fails. */
async function openOnOwn(
  file: StorageFile,
  options: OpenImageOptions,
  place: Place,
): Promise<OpenedImage> {
  try {
    return await openOn(file, options, place);
  } catch (error) {
    await file.close().catch(() => undefined);
    throw error;
  }
}

async function openOn(
  whole: StorageFile,
  options: OpenImageOptions,
  place: Place,
): Promise<OpenedImage> {
  const driver = await driverFor(whole, options.format);
  refuseUnfit(whole, driver, options);
  const file = await windowOf(whole, options);
  const shared = allocateSharedState();
  const node = new Node(shared.control, file.filename, permissionsOf(file, options));
  const counters = QueueCounters.take(shared.counters);
  const children: ChildFile[] = [];
  const opened: { close(): Promise<void> }[] = [];
  try {
    const format = await driver.open({
      file,
      node,
      counters,
      options: {
        readOnly: isForReading(options),
        forCheck: options.forCheck === true,
        forInfo: options.forInfo === true,
        onFinding: options.onFinding,
        cacheSizes: { total: options.cacheSize, ...options.caches },
        overlapCheck: options.overlapCheck ?? 'cached',
        lazyRefcounts: options.lazyRefcounts,
        inOrder: options.inOrder ?? false,
        reserveAhead: options.reserveAhead,
        snapshot: options.snapshot,
        encrypt: encryptOf(options),
        isOpenEnded: place.isOpenEnded === true,
      },
      openChild: async (reference) => {
        const found = place.children?.find(({ role }) => role === reference.role);
        const child = found?.file.openQueue() ?? (await openChild(file, reference, options));
        opened.push(child);
        children.push({ role: reference.role, file: child });
        return child;
      },
    });
    node.resize(format.size);
    let edge: BackingEdge<OpenedImage> | undefined;
    if (driver.hasBacking === true) {
      const below = belowOf(file, format.backing, options);
      const put = putBelow(file.filename, format, options, place);
      const backing = below && (await put(below));
      opened.push(...(backing === undefined ? [] : [backing]));
      node.replaceEdge(backing?.size ?? 0);
      const { edgeReplacements } = node;
      edge = new BackingEdge(node, shared.edge, backing, edgeReplacements, putNamed(put), below);
    }
    return new OpenedImage({
      file,
      children,
      formatName: driver.name,
      format,
      edge,
      probed: options.format === undefined && formatNamed(driver.name)?.isBare === true,
      // Other threads get what the disk is encrypted by, and need not know of what that was made.
      options: { ...options, encrypt: undefined },
      openForReading: (isWritten) =>
        openOnOwn(
          whole.openQueue(),
          { ...options, readOnly: true },
          { ...place, children, isWritten },
        ),
      shared,
      node,
      counters,
    });
  } catch (error) {
    await closeEach(opened).catch(() => undefined);
    throw error;
  }
}

/** By what a disk is read, with the secret that the caller, or the name, calls by its id. */
function encryptOf({ encrypt, secrets = {} }: OpenImageOptions): DecryptOptions | undefined {
  const id = encrypt?.keySecret;
  if (id === undefined || encrypt?.secret !== undefined || !Object.hasOwn(secrets, id)) {
    return encrypt;
  }
  return { ...encrypt, secret: secrets[id] };
}

/** The part of a file that an image is, where the caller says so. */
async function windowOf(file: StorageFile, { window }: OpenImageOptions): Promise<StorageFile> {
  if (window === undefined) return file;
  const { filename, protocol } = file;
  const refuse = (why: string): never => {
    throw cannotOpen('ERR_COWHERD_INVALID_ARGUMENT', filename, why);
  };
  const whole = await file.size();
  const { offset: start = 0, size } = window;
  if (start > whole) {
    refuse(`Offset (${start}) cannot be greater than size of the containing file (${whole})`);
  }
  if (size !== undefined && size % sectorSize !== 0) {
    refuse(`Specified size is not multiple of ${sectorSize}`);
  }
  if (size !== undefined && start + size > whole) {
    refuse(
      `The sum of offset (${start}) and size (${size}) has to be smaller or equal to the  actual size of the containing file (${whole})`,
    );
  }
  return new WindowFile(file, { filename, protocol }, { start, length: size ?? whole - start });
}

/** The driver of an image: of the format that is said, or that the file's bytes tell. */
async function driverFor(file: StorageFile, format: string | undefined): Promise<FormatDriver> {
  if (format !== undefined) return await loadDriver(format);
  const found = await probeFormat(file);
  if (found.load !== undefined) return await found.load();
  const { filename } = file;
  throw cannotOpen(
    'ERR_COWHERD_UNSUPPORTED',
    filename,
    `Image is in ${found.name} format, which is not supported; -f raw (format 'raw') copies it as it is`,
  );
}

/** @throws ERR_COWHERD_UNSUPPORTED for what is asked of a format that does not have it */
function refuseUnfit(file: StorageFile, driver: FormatDriver, options: OpenImageOptions): void {
  const { filename } = file;
  const refuse = (why: string): never => {
    throw new CowherdError('ERR_COWHERD_UNSUPPORTED', why, { filename });
  };
  const { name, hasSnapshots, hasBacking, isReadOnly } = driver;
  if (options.snapshot !== undefined && hasSnapshots !== true) {
    refuse(`'${filename}': the ${name} format has no internal snapshots`);
  }
  if (options.window !== undefined && formatNamed(name)?.isBare !== true) {
    refuse(`Could not open '${filename}': images of the ${name} format are whole files`);
  }
  if (options.backingFile !== undefined && hasBacking !== true) {
    refuse(`Could not open '${filename}': Driver doesn't support backing files`);
  }
  // What is opened to be checked may be repaired, and nothing else is written to it.
  if (permissionsOf(file, options).write && isReadOnly === true) {
    refuse(`Could not open '${filename}': images of the ${name} format can only be read`);
  }
}

/** Whether files that an image names may not be opened. */
function mayNotReachOut({ backing, untrusted }: OpenImageOptions): boolean {
  return backing === 'deny' || (untrusted === true && backing !== 'allow');
}

type Put = (below: Below) => Promise<OpenedImage>;

/** How images are put below one of a format: those that it was made over, where it says which. */
function putBelow(
  filename: string,
  format: FormatImage,
  options: OpenImageOptions,
  place: Place,
): Put {
  return async (below) => {
    const isWritten = (await place.isWritten?.(filename, below.name)) === true;
    const backing = await openBacking(
      below,
      { ...options, readOnly: !isWritten },
      {
        ...place,
        isWritten: isWritten ? undefined : place.isWritten,
      },
    );
    try {
      if (options.forCheck !== true) refuseStranger(filename, format.backing, backing);
      return backing;
    } catch (error) {
      await backing.close().catch(() => undefined);
      throw error;
    }
  };
}

/** The same by a name that the caller gave, or none. */
function putNamed(put: Put): (below: BelowName) => Promise<OpenedImage | undefined> {
  return async ({ name, format, isStored = false }) =>
    name === undefined ? undefined : await put({ name, format, isStored });
}

/** The edge from an image that other threads have open already. */
export function attachEdge(
  { node, format, options }: Pick<OpenedParts, 'node' | 'format' | 'options'>,
  record: SharedArrayBuffer,
  backing: OpenedImage | undefined,
  replacement: number,
): BackingEdge<OpenedImage> {
  const put = putBelow(node.filename, format, options, { above: [] });
  return new BackingEdge(node, record, backing, replacement, putNamed(put));
}

/** The image to be opened below another one. */
interface Below {
  readonly name: string;
  readonly format: string | undefined;
  /** Whether the image above says it, not the caller. */
  readonly isStored: boolean;
}

/**
 * The backing file that the caller says, or that the image names.
 *
 * @throws ERR_COWHERD_BACKING if the image names one and may not, ERR_COWHERD_UNSUPPORTED
 */
function belowOf(
  file: StorageFile,
  stored: BackingReference | undefined,
  options: OpenImageOptions,
): Below | undefined {
  const { filename } = file;
  const { backing, backingFile, backingFormat } = options;
  if (backing === 'ignore') return undefined;
  if (backingFile !== undefined) {
    // What is put in the place of another image is of its format, unless that is said; never probed.
    const format = backingFormat ?? (isJsonName(backingFile) ? undefined : stored?.format);
    return { name: backingFile, format: formatByDriver(format), isStored: false };
  }
  if (stored === undefined) return undefined;
  const { name } = stored;
  if (mayNotReachOut(options)) {
    throw new CowherdError(
      'ERR_COWHERD_BACKING',
      `'${filename}' has the backing file '${printable(name)}', and opening backing files is denied`,
      { filename },
    );
  }
  if (file.isScattered === true && isFromFolder(filename, name)) {
    throw new CowherdError(
      'ERR_COWHERD_BACKING',
      `The backing file '${printable(name)}' is named from the folder of '${filename}', which lies in several`,
      { filename },
    );
  }
  return {
    name: resolveReference(filename, name),
    format: formatByDriver(stored.format),
    isStored: true,
  };
}

async function openBacking(
  { name, format, isStored }: Below,
  options: OpenImageOptions,
  { above, isWritten }: Place,
): Promise<OpenedImage> {
  try {
    return await openLink(
      name,
      {
        ...options,
        format,
        snapshot: undefined,
        lazyRefcounts: undefined,
        caches: undefined,
        backingFile: undefined,
        backingFormat: undefined,
        dataFile: undefined,
        window: undefined,
        filters: undefined,
        encrypt: undefined,
        forCheck: false,
      },
      { above, isStored, isWritten },
    );
  } catch (error) {
    if (!(error instanceof CowherdError)) throw error;
    throw new CowherdError(error.code, `Could not open backing file: ${error.message}`, {
      operation: 'open',
      role: 'backing',
      filename: error.filename ?? name,
      cause: error,
    });
  }
}

/**
 * Refuses a backing file that is another one than the image was made over, or was changed since: what the
 * image shows of it would be no disk that ever was.
 *
 * @throws ERR_COWHERD_BACKING
 */
function refuseStranger(
  filename: string,
  stored: BackingReference | undefined,
  backing: OpenedImage,
): void {
  const expected = stored?.identities;
  const { identity = 'none' } = backing;
  if (expected === undefined || expected.includes(identity)) return;
  const name = printable(backing.filename);
  const difference = `its identity is ${identity}, not ${printable(expected.join(' or '))}`;
  throw cannotOpen(
    'ERR_COWHERD_BACKING',
    filename,
    `the backing file '${name}' is another one than the image was made over, or was changed since (${difference})`,
  );
}

/** Opens another file of an image, the one that the caller says or the image names. */
async function openChild(
  file: StorageFile,
  { role, title, name, base }: ChildReference,
  options: OpenImageOptions,
): Promise<StorageFile> {
  const { filename } = file;
  if (role === 'data-file' && options.dataFile !== undefined) {
    return await openChildAt(options.dataFile, file, options);
  }
  if (name === undefined) {
    const why = `'${role}' is required for this image`;
    throw cannotOpen('ERR_COWHERD_INVALID_IMAGE', filename, why);
  }
  if (mayNotReachOut(options)) {
    throw new CowherdError(
      'ERR_COWHERD_BACKING',
      `'${filename}' has the ${title} '${printable(name)}', and opening other files is denied`,
      { filename },
    );
  }
  const path =
    base === 'image' ? resolveReference(filename, name) : await findDataFile(filename, name);
  return await openChildAt(path, file, options);
}

function openChildAt(
  path: string,
  { readOnly }: StorageFile,
  options: OpenImageOptions,
): Promise<StorageFile> {
  const {
    cache = 'writeback',
    aio = 'auto',
    forceShare = false,
    locking = 'auto',
    unpack = true,
    http,
    signal,
  } = options;
  const isAlone = mayNotReachOut(options);
  const opening = { readOnly, cache, aio, forceShare, locking, unpack, http, signal, isAlone };
  return openStorageFile(path, opening);
}
