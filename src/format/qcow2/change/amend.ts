/**
 * Another version, other features and another width of reference counts for an open image, while no queue runs a
 * request. Whatever is cut off leaves the image as it was, or as it is after one of these:
 *
 *     passwords ▏ version 3 ▏ names and features ▏ width of counts ▏ (size of the disk) ▏ version 2
 */
import { bytesOfName } from '../../../byte-names.js';
import { type CowherdError, type CowherdErrorDetails, problemWith } from '../../../errors.js';
import type { Amendment, ChangeOptions, FormatChanges } from '../../driver.js';
import type { DiskKey } from '../../encryption/disk-key.js';
import { Passwords } from '../../encryption/passwords.js';
import { readBitmaps } from '../contents/bitmaps.js';
import { luksArea } from '../contents/encryption.js';
import { readSnapshots } from '../contents/snapshots.js';
import { knownFeatureTable } from '../layout/feature-names.js';
import {
  Autoclear,
  Compatible,
  CryptMethod,
  Incompatible,
  type Qcow2Header,
  backingFormatOf,
} from '../layout/header.js';
import { ExtensionType, type HeaderExtension } from '../layout/header-extensions.js';
import { ClusterKind } from '../layout/l2-entry.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import { walkTables } from '../tables/table-walk.js';
import { refcountOrderOfBits, versionOfLevel, wrongRefcountBits } from './create-options.js';
import { ChangeProgress, type StepOptions } from './change-progress.js';
import type { ExclusiveChanges } from './exclusive.js';
import { ZeroExpansion } from './expand-zeroes.js';
import { type BeginContents, HeaderBegin } from './header-begin.js';
import { RefcountOrderChange } from './refcount-order.js';
import { allTables } from './references.js';
import type { Qcow2Snapshots } from './snapshots.js';

const version2RefcountOrder = 4;
const mostStateBytes = 0xffffffff;
/** The snapshots, and the header. */
const upgradeParts = 2;
/** Extensions that come before the table of feature names. */
const namesFirst: readonly number[] = [
  ExtensionType.backingFormat,
  ExtensionType.externalDataFile,
  ExtensionType.fullDiskEncryption,
];

/** What changes come to. */
interface Decided {
  readonly version: 2 | 3;
  readonly refcountOrder: number;
  readonly isLazy: boolean;
}

/** See the file's comment. */
export class Qcow2Amendment implements Amendment {
  readonly #metadata: Qcow2Metadata;
  readonly #snapshots: Qcow2Snapshots;
  readonly #changes: ExclusiveChanges;
  readonly #diskKey: DiskKey | undefined;
  #progress = new ChangeProgress(1);

  /** @param diskKey of a disk that is encrypted, and not only described */
  constructor(
    metadata: Qcow2Metadata,
    snapshots: Qcow2Snapshots,
    changes: ExclusiveChanges,
    diskKey: DiskKey | undefined,
  ) {
    this.#diskKey = diskKey;
    this.#metadata = metadata;
    this.#snapshots = snapshots;
    this.#changes = changes;
  }

  async check(changes: FormatChanges, size: number): Promise<void> {
    const { header } = this.#metadata.headerFile;
    const hasDataFile = (header.incompatibleFeatures & Incompatible.externalDataFile) !== 0;
    const isRaw = (header.autoclearFeatures & Autoclear.rawExternalData) !== 0;
    if (changes.encrypt !== undefined) this.#passwords.check(changes.encrypt);
    const decided = this.#decide(changes);
    const { version, refcountOrder } = decided;
    const wasLazy = (header.compatibleFeatures & Compatible.lazyRefcounts) !== 0;
    if (changes.dataFile !== undefined && !hasDataFile) {
      throw this.#refusal('data-file can only be set for images that use an external data file');
    }
    if (changes.dataFileRaw === true && !isRaw) {
      throw this.#refusal('data-file-raw cannot be set on existing images');
    }
    const isWidth = refcountOrder !== header.refcountOrder;
    if (version < 3 && isWidth && refcountOrder !== version2RefcountOrder) {
      throw this.#refusal(
        'Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)',
      );
    }
    this.#checkBacking(changes, header);
    if (version < 3 && changes.lazyRefcounts === true && !wasLazy) {
      throw this.#refusal(
        'Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)',
      );
    }
    if (isWidth) {
      await new RefcountOrderChange(this.#metadata, this.#changes, refcountOrder).check();
    }
    if (version < header.version) await this.#checkDowngrade(decided, size);
  }

  async begin(changes: FormatChanges, options: ChangeOptions): Promise<void> {
    const { header } = this.#metadata.headerFile;
    const { refcountOrder, version } = this.#decide(changes);
    const isUpgrade = version > header.version;
    const isWidth = refcountOrder !== header.refcountOrder;
    const { dataFile, dataFileRaw, lazyRefcounts, encrypt } = changes;
    const isNamed = [dataFile, dataFileRaw, lazyRefcounts].some((each) => each !== undefined);
    this.#progress = new ChangeProgress(
      [version !== header.version, isWidth, encrypt !== undefined].filter(Boolean).length,
    );
    // First, as it may find that it cannot be.
    if (encrypt !== undefined) {
      const { onPart } = this.#nextStep(options);
      await this.#passwords.change(encrypt);
      onPart(1, 1);
    }
    if (!isUpgrade && !isNamed && !isWidth) return;
    if (lazyRefcounts === false) this.#changes.endLaziness();
    await this.#changes.run(async () => {
      const { onPart } = isUpgrade ? this.#nextStep(options) : { onPart: () => undefined };
      onPart(0, upgradeParts);
      if (isUpgrade) await this.#snapshots.complete();
      onPart(1, upgradeParts);
      if (isUpgrade || isNamed) {
        await this.#writeBegin((contents) => this.#changed(contents, changes));
      }
      onPart(upgradeParts, upgradeParts);
      if (!isWidth) return;
      await new RefcountOrderChange(this.#metadata, this.#changes, refcountOrder).run(
        this.#nextStep(options),
      );
    });
  }

  async finish(changes: FormatChanges, options: ChangeOptions): Promise<void> {
    const { version } = this.#decide(changes);
    if (version >= this.#metadata.headerFile.version) return;
    await this.#checkSnapshots();
    await this.#changes.run(async () => {
      await new ZeroExpansion(this.#metadata, this.#changes).run(this.#nextStep(options));
      await this.#metadata.flushOrder.flushAll();
      await this.#writeBegin((contents) => ({
        ...contents,
        features: {
          version: 2,
          incompatibleFeatures: 0,
          compatibleFeatures: 0,
          autoclearFeatures: 0,
          hasUnknownAutoclear: false,
          refcountOrder: version2RefcountOrder,
          compressionType: 'zlib',
        },
        extensions: contents.extensions.filter(({ type }) => type !== ExtensionType.featureNames),
      }));
    });
  }

  /** @throws ERR_COWHERD_UNSUPPORTED for a disk whose password cannot change */
  get #passwords(): Passwords {
    const { file, headerFile } = this.#metadata;
    const { header } = headerFile;
    if (header.cryptMethod === CryptMethod.none || this.#diskKey === undefined) {
      throw this.#refusal("Can't amend encryption options - encryption not present");
    }
    if (header.cryptMethod !== CryptMethod.luks) {
      throw this.#refusal('Only LUKS encryption options can be amended');
    }
    return new Passwords(luksArea(file, header), file.filename, this.#diskKey);
  }

  #decide({ compat, refcountBits, lazyRefcounts }: FormatChanges): Decided {
    const { header } = this.#metadata.headerFile;
    const refcountOrder =
      refcountBits === undefined ? header.refcountOrder : refcountOrderOfBits(refcountBits);
    if (refcountOrder === undefined) throw this.#refusal(wrongRefcountBits);
    const wasLazy = (header.compatibleFeatures & Compatible.lazyRefcounts) !== 0;
    const version = compat === undefined ? header.version : versionOfLevel(compat);
    if (version === undefined) throw this.#refusal(`Unknown compatibility level ${compat!}`);
    return {
      version,
      refcountOrder,
      isLazy: lazyRefcounts ?? wasLazy,
    };
  }

  #checkBacking({ backingFile, backingFormat }: FormatChanges, header: Qcow2Header): void {
    if (backingFile === undefined && backingFormat === undefined) return;
    const isSame = backingFile === header.backingFile && backingFormat === backingFormatOf(header);
    if (!isSame) {
      throw this.#refusal('Cannot amend the backing file', { operation: 'name backing' });
    }
  }

  async #checkDowngrade({ refcountOrder }: Decided, size: number): Promise<void> {
    const { file, headerFile } = this.#metadata;
    const { header } = headerFile;
    if (refcountOrder !== version2RefcountOrder) {
      throw this.#refusal('compat=0.10 requires refcount_bits=16');
    }
    if ((header.incompatibleFeatures & Incompatible.externalDataFile) !== 0) {
      throw this.#refusal('Cannot downgrade an image with a data file');
    }
    // Of a size that is to change too, it is told once that has.
    if (size === header.size) await this.#checkSnapshots();
    const left = header.incompatibleFeatures & ~(Incompatible.dirty | Incompatible.compressionType);
    if (left !== 0) {
      const features = `0x${left.toString(16)}`;
      throw this.#refusal(`Cannot downgrade an image with incompatible features ${features} set`);
    }
    const bitmaps = await readBitmaps(file, header);
    if (bitmaps !== undefined && bitmaps.bitmaps.length > 0) {
      throw this.#refusal('Cannot downgrade an image with persistent bitmaps');
    }
    if (header.compressionType === 'zstd' && (await this.#hasCompressed())) {
      throw this.#refusal(
        'Cannot downgrade an image with zstd compression type and existing compressed clusters',
      );
    }
  }

  async #checkSnapshots(): Promise<void> {
    const { file, headerFile } = this.#metadata;
    const { header } = headerFile;
    const { snapshots } = await readSnapshots(file, header);
    if (snapshots.some((each) => each.vmStateSize > mostStateBytes || each.size !== header.size)) {
      throw this.#refusal('Internal snapshots prevent downgrade of image');
    }
  }

  /** Whether the disk, or a snapshot, has compressed clusters. */
  async #hasCompressed(): Promise<boolean> {
    const { entries, file, flushOrder, geometry } = this.#metadata;
    await flushOrder.flushAll();
    const { tables } = await allTables(this.#metadata);
    for await (const { view } of walkTables(file, tables, geometry.clusterSize)) {
      for (let at = 0; at < view.byteLength; at += geometry.l2EntrySize) {
        if (entries.kind(view, at) === ClusterKind.compressed) return true;
      }
    }
    return false;
  }

  /** What the begin of the file is to say, a lower version aside. */
  #changed({ features, extensions, name }: BeginContents, changes: FormatChanges): BeginContents {
    const { dataFile, dataFileRaw } = changes;
    const { isLazy, version: wanted } = this.#decide(changes);
    const isUpgrade = wanted > features.version;
    // A lower one comes last.
    const version = isUpgrade ? wanted : features.version;
    const { lazyRefcounts } = Compatible;
    const compatible = features.compatibleFeatures & ~lazyRefcounts;
    const raw = dataFileRaw === false ? Autoclear.rawExternalData : 0;
    return {
      features: {
        ...features,
        version,
        compatibleFeatures: version === 3 && isLazy ? compatible | lazyRefcounts : compatible,
        autoclearFeatures: features.autoclearFeatures & ~raw,
      },
      extensions: withNames(extensions, { dataFile, isUpgrade }),
      name,
    };
  }

  async #writeBegin(change: (contents: BeginContents) => BeginContents): Promise<void> {
    // What it says of features may have changed since it was looked at.
    const begin = await HeaderBegin.read(this.#metadata);
    const wanted = change(begin.contents);
    if (!begin.hasRoomFor(wanted)) throw this.#refusal('No space left in the file header');
    await begin.write(wanted);
  }

  #nextStep(options: ChangeOptions): StepOptions {
    return this.#progress.next(options, this.#metadata.geometry.clusterSize);
  }

  #refusal(why: string, details: CowherdErrorDetails = {}): CowherdError {
    return problemWith('ERR_COWHERD_UNSUPPORTED', this.#metadata.file.filename, why, details);
  }
}

/** The extensions with another name of the data file, and with names of features where there were none. */
function withNames(
  extensions: readonly HeaderExtension[],
  { dataFile, isUpgrade }: { readonly dataFile: string | undefined; readonly isUpgrade: boolean },
): readonly HeaderExtension[] {
  const first = extensions.filter(({ type }) => namesFirst.includes(type));
  const rest = extensions.filter(({ type }) => !namesFirst.includes(type));
  if (dataFile === undefined && !isUpgrade) return extensions;
  const named =
    dataFile === undefined
      ? first
      : first.filter(({ type }) => type !== ExtensionType.externalDataFile);
  if (dataFile !== undefined && dataFile !== '') {
    const at = named.findIndex(({ type }) => type === ExtensionType.fullDiskEncryption);
    const extension = { type: ExtensionType.externalDataFile, data: bytesOfName(dataFile) };
    named.splice(at < 0 ? named.length : at, 0, extension);
  }
  const { featureNames } = ExtensionType;
  const hasNames = rest.some(({ type }) => type === featureNames);
  if (!isUpgrade || hasNames) return [...named, ...rest];
  return [...named, { type: featureNames, data: knownFeatureTable() }, ...rest];
}
