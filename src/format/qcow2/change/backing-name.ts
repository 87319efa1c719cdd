/** Another name for the image below, in the header of an open image. */
import { bytesOfName } from '../../../byte-names.js';
import { problemWith } from '../../../errors.js';
import { maxBackingNameBytes } from '../../../limits.js';
import type { BackingChange, BackingReference } from '../../driver.js';
import { Autoclear } from '../layout/header.js';
import { ExtensionType, type HeaderExtension } from '../layout/header-extensions.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import { type BeginContents, HeaderBegin } from './header-begin.js';

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
    this.#checked(await HeaderBegin.read(this.#metadata), backing);
  }

  async write(backing: BackingReference | undefined): Promise<void> {
    await this.#metadata.headerFile.clearUnknownAutoclear();
    const begin = await HeaderBegin.read(this.#metadata);
    await begin.write(this.#checked(begin, backing));
  }

  /** @throws CowherdError for what the header cannot name */
  #checked(begin: HeaderBegin, backing: BackingReference | undefined): BeginContents {
    const { filename } = this.#metadata.file;
    const refuse = (why: string): never => {
      const operation = 'name backing';
      throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', filename, why, { operation });
    };
    const { contents } = begin;
    const name = bytesOfName(backing?.name ?? '');
    const isRaw = (contents.features.autoclearFeatures & Autoclear.rawExternalData) !== 0;
    if (name.length > maxBackingNameBytes || (name.length > 0 && isRaw)) refuse('Invalid argument');
    const extensions = withFormat(contents.extensions, backing?.format);
    const wanted = { ...contents, extensions, name };
    if (!begin.hasRoomFor(wanted)) refuse('No space left in the file header');
    return wanted;
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
