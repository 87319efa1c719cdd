/** The filter `quorum`: what most of several copies hold is what is read, by QEMU's options and rules. */
import { CowherdError, errorFromErrno } from '../../../errors.js';
import type { StorageFile } from '../../storage.js';
import { scatter, totalLength } from '../../vector.js';
import { type Filter, type FilterUse, count, flag, oneOf, paths } from '../filter.js';
import { CopiesFile } from './copies-file.js';

const options = {
  /** The further copies, beside the file that the filter lies over: names of files or images. */
  children: paths('the copies: children.0.driver and so on'),
  /** How many copies have to agree. */
  voteThreshold: count('how many copies have to agree', 1),
  /** Whether any difference of two copies fails what reads; default false. */
  blkverify: flag('whether any difference of two copies fails what reads; default off'),
  /** Whether copies that were outvoted are written over with what won; default false. */
  rewriteCorrupted: flag('whether copies that were outvoted are put right; default off'),
  /** `quorum` reads all copies, `fifo` the first that can be read; default `quorum`. */
  readPattern: oneOf('quorum reads all copies, fifo the first that can be read', 'PATTERN', [
    'quorum',
    'fifo',
  ]),
};

interface QuorumRules {
  readonly voteThreshold: number;
  readonly rewriteCorrupted?: boolean | undefined;
  readonly readPattern?: 'quorum' | 'fifo' | undefined;
}

/** See the file's comment. */
export const quorumFilter: Filter<'quorum', typeof options, 'voteThreshold'> = {
  name: 'quorum',
  help: 'reads what most of several copies hold, and writes all of them',
  options,
  required: ['voteThreshold'],
  words: 0,
  below: 'children.0',
  isOverImages: true,
  problem(given, spell) {
    const { children = [], voteThreshold, blkverify = false, rewriteCorrupted = false } = given;
    const copies = 1 + children.length;
    const { readPattern = 'quorum' } = given;
    if (readPattern === 'fifo') {
      return blkverify || rewriteCorrupted
        ? `${spell('blkverify')} and ${spell('rewriteCorrupted')} are for the read pattern quorum`
        : undefined;
    }
    if (voteThreshold > copies)
      return `${spell('voteThreshold')} may not exceed the ${copies} copies`;
    if (blkverify && (copies !== 2 || voteThreshold !== 2)) {
      return `${spell('blkverify')} needs two copies and a ${spell('voteThreshold')} of 2`;
    }
    if (blkverify && rewriteCorrupted) {
      return `${spell('rewriteCorrupted')} cannot be used with ${spell('blkverify')}`;
    }
    return undefined;
  },
  wrap: (inner, use, others = []) => new QuorumFile([inner, ...others], use, use.options),
};

/** One way in which copies have answered, and which of them. */
interface Version {
  readonly bytes: Uint8Array;
  readonly voters: StorageFile[];
}

class QuorumFile extends CopiesFile {
  readonly #rules: QuorumRules;

  constructor(files: readonly StorageFile[], use: FilterUse, rules: QuorumRules) {
    super(files, use);
    this.#rules = rules;
  }

  openQueue(): QuorumFile {
    return new QuorumFile(
      this.files.map((file) => file.openQueue()),
      this.use,
      this.#rules,
    );
  }

  override async size(): Promise<number> {
    const sizes = await Promise.all(this.files.map((file) => file.size()));
    if (sizes.every((each) => each === sizes[0])) return sizes[0];
    throw this.#failure(`the copies have different sizes (${sizes.join(', ')} bytes)`);
  }

  protected judge(ended: readonly PromiseSettledResult<unknown>[]): void {
    const { voteThreshold, readPattern } = this.#rules;
    const least = readPattern === 'fifo' ? 1 : voteThreshold;
    if (ended.filter(({ status }) => status === 'fulfilled').length < least) throw usual(ended);
  }

  protected async doReadVector(buffers: readonly Uint8Array[], offset: number): Promise<void> {
    const length = totalLength(buffers);
    const read = async (file: StorageFile): Promise<Uint8Array> => {
      const bytes = new Uint8Array(length);
      await file.read(bytes, offset);
      return bytes;
    };
    const { readPattern, voteThreshold, rewriteCorrupted = false } = this.#rules;
    if (readPattern === 'fifo') {
      scatter(await this.#firstOf(read), buffers);
      return;
    }
    const ended = await Promise.allSettled(this.files.map(read));
    this.judge(ended);
    const versions: Version[] = [];
    for (const [index, each] of ended.entries()) {
      if (each.status === 'rejected') continue;
      const same = versions.find(({ bytes }) => Buffer.compare(bytes, each.value) === 0);
      if (same === undefined) versions.push({ bytes: each.value, voters: [this.files[index]] });
      else same.voters.push(this.files[index]);
    }
    const [first, ...further] = versions as [Version, ...Version[]];
    const winner = further.reduce(
      (best, each) => (each.voters.length > best.voters.length ? each : best),
      first,
    );
    if (winner.voters.length < voteThreshold) {
      const votes = versions.map(({ voters }) => voters.length).join(', ');
      throw this.#failure(
        `${length} bytes at byte ${offset} differ among the copies, and none has enough votes (${votes}, of ${voteThreshold})`,
        offset,
      );
    }
    if (rewriteCorrupted && !this.readOnly) {
      const outvoted = versions.filter((each) => each !== winner).flatMap(({ voters }) => voters);
      // What cannot be put right is outvoted again.
      await Promise.allSettled(outvoted.map((file) => file.write(winner.bytes, offset)));
    }
    scatter(winner.bytes, buffers);
  }

  async #firstOf(read: (file: StorageFile) => Promise<Uint8Array>): Promise<Uint8Array> {
    const failures: PromiseSettledResult<unknown>[] = [];
    for (const file of this.files) {
      const [ended] = await Promise.allSettled([read(file)]);
      if (ended.status === 'fulfilled') return ended.value;
      failures.push(ended);
    }
    throw usual(failures);
  }

  #failure(why: string, offset?: number): CowherdError {
    const { filename } = this;
    const reason = 'Input/output error';
    const message = `Could not read from '${filename}': ${why}`;
    return errorFromErrno('EIO', message, {
      operation: 'read',
      role: 'file',
      filename,
      offset,
      reason,
    });
  }
}

/** The error that most copies have failed with. */
function usual(ended: readonly PromiseSettledResult<unknown>[]): Error {
  const errors = ended.flatMap((each) =>
    each.status === 'rejected' ? [each.reason as Error] : [],
  );
  const kindOf = (error: Error): string =>
    error instanceof CowherdError ? error.code : error.name;
  const votes = (error: Error): number =>
    errors.filter((each) => kindOf(each) === kindOf(error)).length;
  return errors.reduce((best, each) => (votes(each) > votes(best) ? each : best));
}
