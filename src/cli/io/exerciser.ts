/** What commands work on: the image that is open, the queues into it, and requests that are under way. */
import { CowherdError } from '../../errors.js';
import { breakpointsOf } from '../../image/graph/shown-image.js';
import type { Image, RequestTarget } from '../../image/api/image.js';
import { defaultFormatName } from '../../image/names/formats.js';
import { CliError } from '../process/cli-error.js';
import type { Session } from '../process/session.js';
import type { GivenObjects } from '../options/objects.js';
import { damageText } from '../text/failures.js';
import { IoFailure } from './failure.js';
import { type OpenDisk, type Openers, openDisk } from './open-disk.js';
import type { Opening } from './opening.js';

/** How the exerciser works. */
export interface ExerciserSettings {
  readonly openers: Openers;
  readonly objects: GivenObjects;
  /** Whether images are named by lists of options. */
  readonly isByLists: boolean;
  /** Queues into each image. */
  readonly queues: number;
  /** Whether buffers begin where direct access cannot go. */
  readonly isMisaligned: boolean;
}

/** See the file's comment. */
export class Exerciser implements AsyncDisposable {
  /** Whether no further command is to be read. */
  isDone = false;
  #disk: OpenDisk | undefined;
  #queues: readonly RequestTarget[] = [];
  /** The queue that was chosen, or that is next. */
  #next = 0;
  #isChosen = false;
  readonly #underWay = new Set<Promise<void>>();

  constructor(
    readonly session: Session,
    readonly settings: ExerciserSettings,
  ) {}

  /** The image that is open, and how it was opened. @throws IoFailure where none is */
  requireDisk(): OpenDisk {
    if (this.#disk === undefined) throw new IoFailure("no file open, try 'help open'", 'errors');
    return this.#disk;
  }

  /** The image that is open. @throws IoFailure where none is */
  get image(): Image {
    return this.requireDisk().image;
  }

  /** The queue that the next request goes to: the one that was chosen, or each in turn. */
  queue(): RequestTarget {
    const queue = this.#queues[this.#next];
    if (!this.#isChosen) this.#next = (this.#next + 1) % this.#queues.length;
    return queue;
  }

  /** Sends what follows to one queue. @throws IoFailure for one that is not there */
  choose(index: number): void {
    if (!(index in this.#queues)) {
      throw new IoFailure(`there is no queue ${index}; the last one is ${this.#queues.length - 1}`);
    }
    this.#next = index;
    this.#isChosen = true;
  }

  /** Prints to standard output. */
  print(text: string): Promise<void> {
    return this.session.print(text);
  }

  /** @throws CliError for an image that cannot be opened, or where one is open */
  async open(opening: Opening): Promise<void> {
    if (this.#disk !== undefined) throw new CliError("file open already, try 'help close'");
    const { session, settings } = this;
    const { queues, openers, objects } = settings;
    const disk = await openDisk(opening, objects, openers, ({ message }) => {
      session.complain(`${message}\n`);
    });
    const { image } = disk;
    try {
      const further = Array.from({ length: queues - 1 }, () => image.openQueue());
      this.#queues = [image, ...(await Promise.all(further))];
    } catch (error) {
      await disk.close();
      throw error;
    }
    this.#disk = disk;
    this.#next = 0;
    this.#isChosen = false;
    if (disk.isGuessed && !opening.readOnly) this.#warnOfGuess(image.filename);
  }

  #warnOfGuess(filename: string): void {
    const lines = [
      `WARNING: Image format was not specified for '${filename}' and probing guessed ${defaultFormatName}.`,
      `         Automatically detecting the format is dangerous for ${defaultFormatName} images, write operations on block 0 will be restricted.`,
      `         Specify the '${defaultFormatName}' format explicitly to remove the restrictions.`,
    ];
    this.session.complain(lines.map((line) => `${line}\n`).join(''));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Closes the image once nothing is under way any more; does nothing where none is open. */
  async close(): Promise<void> {
    // What is stopped would be waited for without end.
    if (this.#disk !== undefined) breakpointsOf(this.#disk.image)?.clear();
    await this.settled();
    const disk = this.#disk;
    this.#disk = undefined;
    this.#queues = [];
    await disk?.close();
  }

  /**
   * Opens the image in another way.
   *
   * @throws CliError where it cannot be; then it is open as it was
   */
  async reopen(opening: Opening): Promise<void> {
    const before = this.requireDisk().opening;
    if (before.isSnapshot) throw new CliError('What was written above the image would be gone');
    await this.close();
    try {
      await this.open(opening);
    } catch (error) {
      await this.open(before);
      throw error;
    }
  }

  /** Lets a request run on while further commands are read. @param work reports failures by itself */
  runOn(work: Promise<void>): void {
    const leave = (): void => {
      this.#underWay.delete(work);
    };
    this.#underWay.add(work);
    // Where nothing can be told any more, the session has been ended.
    work.then(leave, leave);
  }

  /** Waits for what is under way. */
  async settled(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.all(this.#underWay);
  }

  /** Says what went wrong. @throws what is no failure of a command */
  async tell(error: unknown): Promise<void> {
    if (error instanceof IoFailure) {
      if (error.text === '') return;
      if (error.stream === 'output') await this.print(`${error.text}\n`);
      else this.session.complain(`${error.text}\n`);
      return;
    }
    this.tellDamage(error instanceof CliError ? error.cause : error);
    if (error instanceof CliError) this.session.complain(error.report(this.session.name));
    else if (error instanceof CowherdError) {
      this.session.complain(`${this.session.name}: ${error.message}\n`);
    } else throw error;
  }

  /** Says what damage an image was found to have, if an error came of that. */
  tellDamage(error: unknown): void {
    const damage = error instanceof CowherdError ? damageText(error) : undefined;
    if (damage !== undefined) this.session.complain(`${damage}\n`);
  }
}
