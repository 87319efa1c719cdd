/** One client: its socket, the handshake, then its requests, all on one thread. */
import { Socket } from 'node:net';
import { type TLSSocket, createServer } from 'node:tls';
import type { Image, ImageQueue } from '../../image/api/image.js';
import { FrameReader } from '../../nbd/frame-reader.js';
import { StreamFeed } from '../../nbd/stream-feed.js';
import { tlsReason } from '../../nbd/tls-credentials.js';
import { contextsOf } from './metadata-context.js';
import { type Agreement, type ExportFacts, Negotiation } from './negotiation.js';
import { type ServerTls, nodeTlsOptions } from './tls.js';
import type { PayloadPool } from './payload-pool.js';
import { ReplyWriter } from './reply-writer.js';
import { Transmission } from './transmission.js';

/** Milliseconds in which a client has to agree on an export. */
const handshakeMs = 10_000;
/** Milliseconds that a client has to take its last replies. */
const lastRepliesMs = 5_000;

/** An image as clients see it. */
export interface NbdExport extends ExportFacts {
  readonly image: Image;
}

/** How an open image is exported. */
export interface ExportSettings {
  readonly name: string;
  readonly description: string | undefined;
  readonly readOnly: boolean;
  /** Names of the persistent bitmaps that are shown. */
  readonly bitmaps: readonly string[];
}

/** An open image as clients see it. */
export function exportOf(
  image: Image,
  { name, description, readOnly, bitmaps }: ExportSettings,
): NbdExport {
  return { image, name, description, readOnly, size: image.size, contexts: contextsOf(bitmaps) };
}

/** What a connection is served with. */
export interface ConnectionOptions {
  readonly exports: readonly NbdExport[];
  readonly payloads: PayloadPool;
  /** Left out, connections are not secured. */
  readonly tls: ServerTls | undefined;
  /** Told, in a few words, why a connection was closed that its client had not ended. */
  readonly onProblem: (why: string) => void;
}

/** See the file's comment. */
export class Connection {
  /** Resolves when nothing of it is left. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #options: ConnectionOptions;
  readonly #reader = new FrameReader((error) => {
    // A mistake of ours ends this connection, and no other.
    this.end(error.message);
  });
  readonly #replies: ReplyWriter;
  readonly #socketClosed: Promise<void>;
  readonly #timer: NodeJS.Timeout;
  /** What feeds the reader once the connection is secured, or will be. */
  #feed: StreamFeed | undefined;
  #tls: TLSSocket | undefined;
  #transmission: Transmission<NbdExport> | undefined;
  #queue: Promise<ImageQueue> | undefined;
  #ending: Promise<void> | undefined;
  #resolveClosed!: () => void;

  /** @param descriptor of a connected socket, which is the connection's from now on */
  constructor(descriptor: number, options: ConnectionOptions) {
    this.#options = options;
    this.closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    // Of what will be secured, TLS takes the bytes.
    const onread = {
      buffer: () => this.#reader.wanted(),
      callback: (count: number) => this.#reader.took(count),
    };
    const socket = new Socket({
      fd: descriptor,
      readable: true,
      writable: true,
      // Who says that no more comes still waits for replies.
      allowHalfOpen: true,
      ...(options.tls === undefined && { onread }),
    });
    this.#socket = socket;
    this.#replies = new ReplyWriter(socket);
    if (options.tls !== undefined) this.#feed = new StreamFeed(socket, this.#reader);
    socket.setNoDelay(true);
    socket.on('error', () => undefined);
    this.#socketClosed = new Promise((resolve) => {
      socket.once('close', () => {
        resolve();
        this.end(undefined);
      });
    });
    socket.once('end', () => {
      this.end(undefined);
    });
    this.#timer = setTimeout(() => {
      this.end('the client does not agree on an export');
    }, handshakeMs);
    this.#negotiate();
  }

  /** Answers what is under way, and closes. @param why it has to be told of, if so */
  end(why: string | undefined): void {
    if (this.#ending !== undefined) return;
    if (why !== undefined) this.#options.onProblem(why);
    this.#reader.pause();
    clearTimeout(this.#timer);
    this.#ending = this.#finish();
  }

  #negotiate(): void {
    const { tls } = this.#options;
    const negotiation = new Negotiation<NbdExport>({
      exports: this.#options.exports,
      reader: this.#reader,
      send: (bytes) => {
        this.#replies.send(bytes);
      },
      startTls:
        tls === undefined
          ? undefined
          : () => {
              void this.#secure(tls, negotiation);
            },
      agreed: (agreement) => {
        this.#transmit(agreement);
      },
      ended: (why) => {
        this.end(why);
      },
    });
    negotiation.begin();
  }

  /** Goes on behind TLS. */
  async #secure(tls: ServerTls, negotiation: Negotiation<NbdExport>): Promise<void> {
    this.#reader.pause();
    await this.#replies.idle();
    if (this.#ending !== undefined) return;
    if (this.#feed?.isEmpty === false) {
      this.end('the client goes on before TLS has begun');
      return;
    }
    this.#feed?.end();
    // It holds clients to certificates, which a TLS socket alone would not.
    const server = createServer(nodeTlsOptions(tls), (secured) => {
      this.#tls = secured;
      secured.on('error', (error: Error) => {
        this.end(tlsReason(error));
      });
      secured.once('end', () => {
        this.end(undefined);
      });
      this.#replies.continueOn(secured);
      this.#feed = new StreamFeed(secured, this.#reader);
      negotiation.secured();
      this.#goOn();
    });
    server.on('tlsClientError', (error) => {
      this.end(`TLS failed: ${tlsReason(error)}`);
    });
    server.emit('connection', this.#socket);
  }

  /** Begins with requests once the connection has a queue of the image. */
  #transmit(agreement: Agreement<NbdExport>): void {
    clearTimeout(this.#timer);
    this.#reader.pause();
    this.#queue = agreement.export.image.openQueue();
    this.#queue.then(
      (queue) => {
        if (this.#ending !== undefined) return;
        this.#transmission = new Transmission({
          agreement,
          queue,
          reader: this.#reader,
          replies: this.#replies,
          payloads: this.#options.payloads,
          ended: (why) => {
            this.end(why);
          },
          wantsMore: () => {
            this.#goOn();
          },
        });
        this.#transmission.begin();
        this.#goOn();
      },
      (error: unknown) => {
        this.end(error instanceof Error ? error.message : String(error));
      },
    );
  }

  #goOn(): void {
    if (!this.#reader.isPaused || this.#ending !== undefined) return;
    if (this.#transmission?.isFull === true) return;
    const wantsMore = this.#reader.resume();
    if (this.#feed !== undefined) this.#feed.resume();
    else if (wantsMore) this.#socket.resume();
  }

  async #finish(): Promise<void> {
    await this.#transmission?.idle();
    const timer = setTimeout(() => {
      this.#socket.destroy();
    }, lastRepliesMs);
    await this.#replies.idle();
    // What a client still sends is not waited for.
    const outer = this.#tls ?? this.#socket;
    outer.end(() => {
      outer.destroy();
      this.#socket.destroy();
    });
    await this.#socketClosed;
    clearTimeout(timer);
    const queue = await this.#queue?.catch(() => undefined);
    await queue?.close().catch((error: unknown) => {
      this.#options.onProblem(error instanceof Error ? error.message : String(error));
    });
    this.#resolveClosed();
  }
}
