/**
 * The filter `blkverify`: an image under test beside a raw copy of its disk. All that is written goes to both, and
 * what is read has to be the same in both, as in QEMU; where it is not the request fails.
 */
import { CowherdError, errorFromErrno } from '../../../errors.js';
import { gather, totalLength } from '../../vector.js';
import { type Filter, child } from '../filter.js';
import { CopiesFile } from './copies-file.js';

const options = {
  /** The raw copy: the name of a file. */
  raw: child('the raw copy: raw.filename and so on'),
};

/** See the file's comment. */
export const blkverifyFilter: Filter<'blkverify', typeof options, keyof typeof options> = {
  name: 'blkverify',
  help: 'has reading fail where an image and a raw copy of its disk differ, as in QEMU',
  options,
  required: Object.keys(options) as (keyof typeof options)[],
  words: 0,
  below: 'test',
  isOverImages: true,
  prefix: 'blkverify:',
  prefixSays: Object.keys(options),
  parseName(rest) {
    const at = rest.indexOf(':');
    if (at === -1) return 'blkverify requires raw copy and original image path';
    return { options: { raw: rest.slice(0, at) }, below: rest.slice(at + 1) };
  },
  wrap: (inner, use, others = []) => new BlkverifyFile([inner, ...others], use),
};

class BlkverifyFile extends CopiesFile {
  openQueue(): BlkverifyFile {
    return new BlkverifyFile(
      this.files.map((file) => file.openQueue()),
      this.use,
    );
  }

  /** That of the image: the copy's may end with its last data. */
  override size(): Promise<number> {
    return this.files[0].size();
  }

  protected judge([test, raw]: readonly PromiseSettledResult<unknown>[]): void {
    const [one, other] = [errorOf(test), errorOf(raw)];
    if (kindOf(one) !== kindOf(other)) {
      const told = [one, other].map((error) => error?.message ?? 'no failure').join('; ');
      throw this.#mismatch(`one failed otherwise than the other (${told})`);
    }
    if (one !== undefined) throw one;
  }

  protected async doReadVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    const [test, raw] = this.files;
    const copy = new Uint8Array(totalLength(buffers));
    this.judge(
      await Promise.allSettled([test.readVector(buffers, offset), raw.read(copy, offset)]),
    );
    const bytes = new Uint8Array(copy.length);
    gather(buffers, bytes);
    if (Buffer.compare(bytes, copy) === 0) return;
    const at = offset + bytes.findIndex((byte, index) => byte !== copy[index]);
    throw this.#mismatch(`their bytes differ at offset ${at}`, at);
  }

  #mismatch(why: string, offset?: number): CowherdError {
    const [{ filename }, raw] = this.files;
    const reason = `contents mismatch with '${raw.filename}': ${why}`;
    const message = `Could not verify '${filename}' by '${raw.filename}': ${why}`;
    return errorFromErrno('EIO', message, {
      operation: 'read',
      role: 'file',
      filename,
      offset,
      reason,
    });
  }
}

function errorOf(ended: PromiseSettledResult<unknown>): Error | undefined {
  return ended.status === 'rejected' ? (ended.reason as Error) : undefined;
}

function kindOf(error: Error | undefined): string | undefined {
  return error instanceof CowherdError ? error.code : error?.name;
}
