/** Another name for the image below, in the header of an open image. */
import { bytesOfName } from '../../../byte-names.js';
import { problemWith } from '../../../errors.js';
import { maxBackingNameBytes } from '../../../limits.js';
import type { BackingChange, BackingReference } from '../../driver.js';
import { Autoclear } from '../layout/header.js';
import { ExtensionType, type HeaderExtension } from '../layout/header-extensions.js';
import type { Qcow2Metadata } from '../metadata/metadata.js';
import { HeaderBegin, type HeaderNames } from './header-begin.js';

/** See the file's comment. */
export class Qcow2BackingChange implements BackingChange {
  readonly zeroesHide: boolean;
  readonly #metadata: Qcow2Metadata;

  constructor(metadata: Qcow2Metadata) {
    this.#metadata = metadata;
    this.zeroesHide = metadata.headerFile.header.version >= 3;
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
  #checked(begin: HeaderBegin, backing: BackingReference | undefined): HeaderNames {
    const { file, headerFile } = this.#metadata;
    const refuse = (why: string): never => {
      const operation = 'name backing';
      throw problemWith('ERR_COWHERD_INVALID_ARGUMENT', file.filename, why, { operation });
    };
    const length = bytesOfName(backing?.name ?? '').length;
    const isRaw = (headerFile.header.autoclearFeatures & Autoclear.rawExternalData) !== 0;
    if (length > maxBackingNameBytes || (length > 0 && isRaw)) refuse('Invalid argument');
    const { extensions } = begin.names;
    const wanted = {
      backingFile: backing?.name,
      extensions: withFormat(extensions, backing?.format),
    };
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
