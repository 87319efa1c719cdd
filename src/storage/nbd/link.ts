/** The socket of a connection, secured where it has to be, and what it brings. */
import { type Socket, connect } from 'node:net';
import type { Duplex } from 'node:stream';
import { FrameReader } from '../../nbd/frame-reader.js';
import { StreamFeed } from '../../nbd/stream-feed.js';
import { tlsReason } from '../../nbd/tls-credentials.js';
import type { NbdLocation } from './uri.js';

/** See the file's comment. */
export class Link {
  readonly reader = new FrameReader((error) => {
    this.close(error);
  });
  onEnd: (error: Error) => void = () => undefined;
  readonly #location: NbdLocation;
  readonly #socket: Socket;
  #stream: Duplex;
  /** What feeds the reader where the socket does not do it itself: where TLS takes its bytes, at last. */
  #feed: StreamFeed | undefined;
  #failure: Error | undefined;

  constructor(location: NbdLocation) {
    this.#location = location;
    const onread = {
      buffer: () => this.reader.wanted(),
      callback: (count: number) => this.reader.took(count),
    };
    const { server, tls } = location;
    this.#socket = connect({ ...server, noDelay: true, ...(tls === undefined && { onread }) });
    this.#stream = this.#socket;
    this.#watch(this.#socket);
    if (tls !== undefined) this.#feed = new StreamFeed(this.#socket, this.reader);
  }

  /** Where requests go. */
  get stream(): Duplex {
    return this.#stream;
  }

  /** Goes on behind TLS, once the server has agreed to it. */
  async secure(): Promise<void> {
    const { server, tls } = this.#location;
    if (tls === undefined) return;
    if (this.#feed?.isEmpty === false || !this.reader.isEmpty) {
      throw new Error('the server goes on before TLS has begun');
    }
    this.#feed?.end();
    const { secure } = await import('./tls.js');
    const host = 'host' in server ? server.host : 'localhost';
    const secured = await new Promise<Duplex>((resolve, reject) => {
      this.onEnd = reject;
      secure(this.#socket, tls, host).then(resolve, reject);
    });
    this.#stream = secured;
    this.#watch(secured, (error) => new Error(`TLS failed: ${tlsReason(error)}`, { cause: error }));
    this.#feed = new StreamFeed(secured, this.reader);
  }

  close(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.reader.pause();
    this.#stream.destroy();
    this.#socket.destroy();
    this.onEnd(error);
  }

  /** The next bytes. */
  take(length: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) {
        reject(this.#failure);
        return;
      }
      this.onEnd = reject;
      const into = Buffer.alloc(length);
      this.reader.expectPayload(into, () => {
        resolve(into);
      });
      this.reader.resume();
      this.#feed?.resume();
    });
  }

  #watch(stream: Duplex, failureOf = (error: Error): Error => error): void {
    stream.on('error', (error: Error) => {
      this.close(failureOf(error));
    });
    for (const event of ['end', 'close']) {
      stream.once(event, () => {
        this.close(new Error('the server closed the connection'));
      });
    }
  }
}
