/**
 * A connection that comes back: requests that were under way when the server went are sent again, within a
 * bound. What a server had written and not flushed may be gone with it; a flush after that fails.
 */
import { setTimeout } from 'node:timers/promises';
import { Command, CommandFlag } from '../../nbd/protocol.js';
import {
  type ClientRequest,
  NbdClient,
  ProtocolError,
  ServerError,
  type Stretch,
} from './client.js';
import type { ExportInfo } from './negotiation.js';
import type { NbdLocation } from './uri.js';

/** Milliseconds between two attempts to connect: at first, and at most. */
const firstPauseMs = 20;
const mostPauseMs = 1000;

/** Words that all connections to an export share, of all threads. */
const Word = {
  /** Changes that were made, and how many of them have been flushed. */
  made: 0,
  flushed: 1,
  /** Whether some may be gone. */
  isLost: 2,
  /** Counts how often the server was found to have gone. */
  losses: 3,
} as const;

/** What all connections to an export share. */
export type ExportWords = Int32Array;

/** Nothing was changed yet. */
export function newExportWords(): ExportWords {
  return new Int32Array(new SharedArrayBuffer(Object.keys(Word).length * 4));
}

/** What is wrong for good. */
class Refused extends Error {}

/** See the file's comment. */
export class NbdConnection {
  readonly #location: NbdLocation;
  readonly #info: ExportInfo;
  readonly #words: ExportWords;
  readonly #reconnectMs: number;
  #client: Promise<NbdClient> | undefined;
  /** What was counted when the server was last known to be there. */
  #losses: number;
  #isClosed = false;

  /**
   * @param info as the first connection was told it
   * @param client that is connected already, if one is
   */
  constructor(
    location: NbdLocation,
    info: ExportInfo,
    words: ExportWords,
    reconnectSeconds: number,
    client?: NbdClient,
  ) {
    this.#location = location;
    this.#info = info;
    this.#words = words;
    this.#losses = Atomics.load(words, Word.losses);
    this.#reconnectMs = reconnectSeconds * 1000;
    if (client !== undefined) this.#client = Promise.resolve(client);
  }

  /** Sends a request. @throws ServerError, or an Error saying why the server is not there */
  async request(request: ClientRequest): Promise<readonly Stretch[]> {
    const { command } = request;
    const made = Atomics.load(this.#words, Word.made);
    const stretches = await this.#repeat(request);
    if (command === Command.flush) {
      const flushed = Atomics.load(this.#words, Word.flushed);
      if (((made - flushed) | 0) > 0) Atomics.store(this.#words, Word.flushed, made);
    } else if (isLeftToFlush(request)) {
      Atomics.add(this.#words, Word.made, 1);
      this.#losses = Atomics.load(this.#words, Word.losses);
    }
    return stretches;
  }

  /** Says goodbye. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const client = await this.#client?.catch(() => undefined);
    client?.close();
  }

  async #repeat(request: ClientRequest): Promise<readonly Stretch[]> {
    let end: number | undefined;
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(2 * pauseMs, mostPauseMs)) {
      let client: NbdClient | undefined;
      try {
        client = await this.#connected();
        this.#refuseFlushOfLost(request);
        return await client.request(request);
      } catch (error) {
        if (error instanceof ServerError || error instanceof Refused) throw error;
        // It would say the same again.
        if (error instanceof ProtocolError) throw error;
        if (client !== undefined) this.#noteLoss();
        if (!client?.isOpen) this.#client = undefined;
        end ??= performance.now() + this.#reconnectMs;
        if (this.#isClosed || performance.now() >= end) throw error;
      }
      await setTimeout(Math.min(pauseMs, this.#reconnectMs));
    }
  }

  #connected(): Promise<NbdClient> {
    this.#client ??= NbdClient.connect(this.#location).then((client) => {
      this.#losses = Atomics.load(this.#words, Word.losses);
      if (client.info.size === this.#info.size) return client;
      client.close();
      throw new Refused('the export has another size by now');
    });
    return this.#client;
  }

  /**
   * Notes that the server has gone. Of connections that lose the same server the first one looks whether
   * all was flushed: what is made after that, another server has.
   */
  #noteLoss(): void {
    const words = this.#words;
    if (this.#losses !== Atomics.load(words, Word.losses)) return;
    const isFlushed = Atomics.load(words, Word.made) === Atomics.load(words, Word.flushed);
    if (!isFlushed) Atomics.store(words, Word.isLost, 1);
    Atomics.add(words, Word.losses, 1);
  }

  #refuseFlushOfLost({ command, flags = 0 }: ClientRequest): void {
    const isFlush = command === Command.flush || (flags & CommandFlag.fua) !== 0;
    if (!isFlush || Atomics.load(this.#words, Word.isLost) === 0) return;
    throw new Refused('the server has gone meanwhile, with what it had not flushed');
  }
}

/** Whether a request changes what a flush has to make durable. */
function isLeftToFlush({ command, flags = 0 }: ClientRequest): boolean {
  const isChange =
    command === Command.write || command === Command.writeZeroes || command === Command.trim;
  return isChange && (flags & CommandFlag.fua) === 0;
}
