/** The internal snapshots of an open image, whichever format it has. */
import { problemWith } from '../../errors.js';
import type { DiskSnapshots, SnapshotChoice } from '../../format/driver.js';
import type { SnapshotFacts } from '../../format/facts.js';
import type { ImageSnapshots, SnapshotOptions, TakeSnapshotOptions } from '../api/image.js';
import type { SnapshotInfo } from '../api/reports.js';
import { snapshotInfo } from '../report/info.js';
import { type ChangeableDisk, checkWritable } from './whole-disk.js';
import { type OptionRules, abortSignal, checkOptions, date } from '../options/option-check.js';

const rules: OptionRules<SnapshotOptions> = { signal: abortSignal };
const takingRules: OptionRules<TakeSnapshotOptions> = { date, signal: abortSignal };

/** What has the snapshots. */
export interface SnapshotDisk extends ChangeableDisk {
  /** Told when the disk may have another size. */
  readonly onResized: () => void;
}

/** See `Image.snapshots`. */
export class SnapshotsOfImage implements ImageSnapshots {
  readonly #disk: SnapshotDisk;

  constructor(disk: SnapshotDisk) {
    this.#disk = disk;
  }

  async list(): Promise<readonly SnapshotInfo[]> {
    const { format, change } = this.#disk;
    const found = await change(undefined, () => format.snapshots?.list() ?? Promise.resolve([]));
    return found.map(snapshotInfo);
  }

  create(name: string, options: TakeSnapshotOptions = {}): Promise<SnapshotInfo> {
    const { filename } = this.#disk;
    return this.#change(options, takingRules, async (snapshots, signal) => {
      if (typeof name !== 'string') throw badChoice(filename, 'the name of a snapshot is a string');
      const milliseconds = (options.date ?? new Date()).getTime();
      const created: SnapshotFacts = await snapshots.create(
        {
          name,
          dateSeconds: Math.floor(milliseconds / 1000),
          dateNanoseconds: (((milliseconds % 1000) + 1000) % 1000) * 1_000_000,
        },
        signal,
      );
      return snapshotInfo(created);
    });
  }

  apply(choice: SnapshotChoice, options: SnapshotOptions = {}): Promise<void> {
    const { node, onResized } = this.#disk;
    return this.#change(options, rules, async (snapshots, signal) => {
      const size = await snapshots.apply(this.#checked(choice), signal);
      if (size === node.size) return;
      node.resize(size);
      onResized();
    });
  }

  delete(choice: SnapshotChoice, options: SnapshotOptions = {}): Promise<void> {
    return this.#change(options, rules, (snapshots, signal) =>
      snapshots.delete(this.#checked(choice), signal),
    );
  }

  #checked(choice: SnapshotChoice): SnapshotChoice {
    const isText = (value: unknown): boolean => value === undefined || typeof value === 'string';
    const given: unknown = choice;
    const { id, name } = (typeof given === 'object' && given !== null ? given : {}) as {
      readonly id?: unknown;
      readonly name?: unknown;
    };
    const isNamed = (id !== undefined || name !== undefined) && isText(id) && isText(name);
    if (typeof given === 'string' || isNamed) return choice;
    throw badChoice(this.#disk.filename, 'a snapshot is chosen by its id or its name');
  }

  // Not async, but for failures.
  async #change<Result, Options extends SnapshotOptions>(
    options: Options,
    optionRules: OptionRules<Options>,
    section: (snapshots: DiskSnapshots, signal: AbortSignal | undefined) => Promise<Result>,
  ): Promise<Result> {
    const { change, filename, format, node } = this.#disk;
    checkOptions(options, optionRules, filename);
    const { signal } = options;
    return change(signal, async () => {
      checkWritable(this.#disk);
      const { snapshots } = format;
      if (snapshots === undefined) {
        const why = 'Block driver does not support snapshots';
        const reason = 'Operation not supported';
        throw problemWith('ERR_COWHERD_UNSUPPORTED', filename, why, { reason });
      }
      signal?.throwIfAborted();
      return node.runAlone(() => section(snapshots, signal));
    });
  }
}

function badChoice(filename: string, why: string): Error {
  return problemWith('ERR_COWHERD_INVALID_ARGUMENT', filename, why);
}
