/** Another name for the image below, in the header of an open image. */
import { bytesOfName } from '../../../byte-names.js';
import { problemWith } from '../../../errors.js';
import { maxBackingNameBytes } from '../../../limits.js';
import type { BackingChange, BackingReference } from '../../driver.js';
import { Autoclear } from '../layout/header.js';
import { ExtensionType, type HeaderExtension } from '../layout/header-extensions.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import { type BeginPlan, HeaderBegin } from './header-begin.js';

/** See the file's comment. */
export class Qcow2BackingChange implements BackingChange {
  readonly #metadata: Qcow2Metadata;

  constructor(metadata: Qcow2Metadata) {
    this.#metadata = metadata;
  }

  get zeroesHide(): boolean {
    return this.#metadata.headerFile.version >= 3;
  }

  async check(backing: BackingReference | undefined): Promise<void> {
    this.#planned(await HeaderBegin.read(this.#metadata), backing);
  }

  async write(backing: BackingReference | undefined): Promise<void> {
    const { headerFile } = this.#metadata;
    // The disk shows the same as before, so what is said of it by bitmaps stays true.
    await headerFile.clearAutoclear(Autoclear.bitmaps | Autoclear.rawExternalData);
    const begin = await HeaderBegin.read(this.#metadata);
    await begin.write(this.#planned(begin, backing));
  }

  /** @throws CowherdError for what the header cannot name */
  #planned(begin: HeaderBegin, backing: BackingReference | undefined): BeginPlan {
    const { filename } = this.#metadata.file;
    const { contents } = begin;
    const name = bytesOfName(backing?.name ?? '');
    const isRaw = (contents.features.autoclearFeatures & Autoclear.rawExternalData) !== 0;
    if (name.length > maxBackingNameBytes || (name.length > 0 && isRaw)) {
      const operation = 'name backing';
      throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', filename, 'Invalid argument', {
        operation,
      });
    }
    const extensions = withFormat(contents.extensions, backing?.format);
    return begin.plan({ ...contents, extensions, name });
  }
}

/** The extensions with that of the backing file's format, which comes first. */
function withFormat(
  extensions: readonly HeaderExtension[],
  format: string | undefined,
): readonly HeaderExtension[] {
  const others = extensions.filter(({ type }) => type !== ExtensionType.backingFormat);
  if (format === undefined) return others;
  return [{ type: ExtensionType.backingFormat, data: bytesOfName(format) }, ...others];
}
