/** A connected front-end: its messages, one after the other, and the device that it works with. */
import { closeDescriptor } from '../../native/descriptor.js';
import type { VhostUserDevice } from './device.js';
import { type Message, MessageReader, closeAll, numberPayload, sendReply } from './message.js';
import { VhostUserError } from './protocol.js';

/** See the file's comment. */
export class FrontEnd {
  /** Resolves when nothing of it is left. */
  readonly closed: Promise<void>;
  readonly #socket: number;
  readonly #device: VhostUserDevice;
  readonly #reader: MessageReader;
  readonly #onProblem: (why: string) => void;
  /** What is dealt with now. */
  #work: Promise<void> | undefined;
  #ending: Promise<void> | undefined;
  #resolveClosed!: () => void;

  /**
   * @param socket that is connected, which is its from now on
   * @param onProblem told, in a few words, why a connection was closed that its front-end had not ended
   */
  constructor(socket: number, device: VhostUserDevice, onProblem: (why: string) => void) {
    this.#socket = socket;
    this.#device = device;
    this.#onProblem = onProblem;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    this.#work = device.open();
    this.#reader = new MessageReader(
      socket,
      () => {
        this.#next();
      },
      (why) => {
        this.end(why);
      },
    );
    this.#work.then(this.#goOn, this.#fail);
  }

  /** The image has another size. */
  sizeChanged(): void {
    if (this.#ending === undefined) this.#device.sizeChanged();
  }

  /** Answers what is under way, and closes. @param why it has to be told of, if so */
  end(why: string | undefined): void {
    if (this.#ending !== undefined) return;
    if (why !== undefined) this.#onProblem(why);
    this.#ending = this.#finish();
  }

  #next(): void {
    if (this.#work !== undefined || this.#ending !== undefined) return;
    const message = this.#reader.next();
    if (message === undefined) return;
    this.#work = this.#deal(message);
    this.#work.then(this.#goOn, this.#fail);
  }

  readonly #goOn = (): void => {
    this.#work = undefined;
    this.#next();
  };

  readonly #fail = (error: unknown): void => {
    this.#work = undefined;
    this.end(error instanceof Error ? error.message : String(error));
  };

  async #deal(message: Message): Promise<void> {
    const { request, needsReply, descriptors } = message;
    try {
      const reply = await this.#device.handle(message);
      if (reply !== undefined) sendReply(this.#socket, request, reply);
      else if (this.#mustAcknowledge(needsReply)) sendReply(this.#socket, request, success);
    } catch (error) {
      if (!(error instanceof VhostUserError) || !this.#mustAcknowledge(needsReply)) throw error;
      sendReply(this.#socket, request, failure);
      this.#onProblem(error.message);
    } finally {
      closeAll(descriptors);
    }
  }

  #mustAcknowledge(needsReply: boolean): boolean {
    return needsReply && this.#device.acknowledges;
  }

  async #finish(): Promise<void> {
    this.#reader.close();
    await this.#work?.catch(() => undefined);
    await this.#device.close().catch((error: unknown) => {
      this.#onProblem(error instanceof Error ? error.message : String(error));
    });
    closeDescriptor(this.#socket);
    this.#resolveClosed();
  }
}

const success = { payload: numberPayload(0n) };
const failure = { payload: numberPayload(1n) };
