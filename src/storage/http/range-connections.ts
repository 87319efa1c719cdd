/**
 * Connections of our own for the ranges of a file, without TLS: what a server sends goes from its socket
 * straight into the memory that waits for it, where Node's client takes memory for each piece and copies
 * it, which costs more than all the rest. They know the plain answer only: 206, as long as was asked for,
 * in one piece; and those that say that there is none. For any other, Node's client has to ask again.
 */
import { type IncomingHttpHeaders, validateHeaderName, validateHeaderValue } from 'node:http';
import { type Socket, connect } from 'node:net';
import { Semaphore } from 'async-mutex';
import { TransientFailure, failureOf } from './failures.js';
import { Patience } from './patience.js';

/** Longest head of an answer that is understood, in bytes. */
const headBytes = 16 * 1024;
const endOfHead = '\r\n\r\n';

/** The headers of an answer that tell what it brings. */
export type AnswerHeaders = Pick<
  IncomingHttpHeaders,
  | 'connection'
  | 'content-encoding'
  | 'content-length'
  | 'content-range'
  | 'etag'
  | 'last-modified'
  | 'retry-after'
  | 'transfer-encoding'
>;

/** One range that is asked for. */
export interface RangeRequest {
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  /** What its bytes go into: as many as are asked for. */
  readonly into: Uint8Array;
  /** Milliseconds in which the server has to go on. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  /** Says whether an answer brings what was asked for. */
  readonly isExpected: (headers: AnswerHeaders) => boolean;
  readonly onProgress: (count: number) => void;
}

/**
 * What came of a request: all bytes are there; or the connection broke before the server answered; or
 * it answered in a way that others have to understand.
 */
export type Outcome = 'complete' | 'broken' | 'unknown';

/** Up to a number of connections to one server. */
export class RangeConnections {
  readonly #places: Semaphore;
  readonly #connections = new Set<RangeConnection>();

  constructor(most: number) {
    this.#places = new Semaphore(most);
  }

  /**
   * Asks for a range.
   *
   * @throws TransientFailure if the server stopped on the way; what `failureOf` makes of its answer
   */
  ask(request: RangeRequest): Promise<Outcome> {
    return this.#places.runExclusive(async () => {
      request.signal?.throwIfAborted();
      const connection = this.#idle(request.url) ?? this.#open(request.url);
      return await connection.ask(request);
    });
  }

  close(): void {
    for (const connection of this.#connections) connection.close();
  }

  #idle({ origin }: URL): RangeConnection | undefined {
    for (const connection of this.#connections) {
      if (connection.isIdle && connection.origin === origin) return connection;
    }
    return undefined;
  }

  #open(url: URL): RangeConnection {
    const connection = new RangeConnection(url, () => {
      this.#connections.delete(connection);
    });
    this.#connections.add(connection);
    return connection;
  }
}

/** A range that is on its way. */
interface Exchange {
  readonly request: RangeRequest;
  /** Bytes that are there; undefined while the head of the answer is awaited. */
  done: number | undefined;
  readonly end: (outcome: Outcome) => void;
  readonly fail: (error: Error) => void;
  readonly patience: Patience;
}

class RangeConnection {
  readonly origin: string;
  readonly #socket: Socket;
  readonly #head = Buffer.allocUnsafeSlow(headBytes);
  #headLength = 0;
  #isKept = true;
  #exchange: Exchange | undefined;

  constructor({ origin, hostname, port }: URL, onClose: () => void) {
    this.origin = origin;
    this.#socket = connect({
      host: hostname.replace(/^\[(.*)\]$/, '$1'),
      port: Number(port === '' ? 80 : port),
      noDelay: true,
      onread: {
        buffer: () => this.#wanted(),
        callback: (count) => {
          this.#take(count);
          return true;
        },
      },
    });
    // Why it failed is told by whoever asks again.
    this.#socket.on('error', () => undefined);
    this.#socket.once('end', () => {
      this.close();
    });
    this.#socket.once('close', () => {
      onClose();
      this.#break();
    });
  }

  /** Whether it can take a request. */
  get isIdle(): boolean {
    return this.#exchange === undefined && !this.#socket.destroyed;
  }

  /** Sends a request, when it is idle. */
  async ask(request: RangeRequest): Promise<Outcome> {
    const { url, headers, into, timeoutMs, signal } = request;
    const head = headOf(url, headers);
    const abort = (): void => {
      this.#fail(signal!.reason as Error);
    };
    signal?.addEventListener('abort', abort, { once: true });
    const patience = new Patience(into.length, timeoutMs, () => {
      const isBegun = this.#exchange?.done !== undefined;
      const what = isBegun ? 'the server stopped sending' : 'the server does not answer';
      this.#fail(new TransientFailure(what));
    });
    this.#headLength = 0;
    this.#socket.ref();
    try {
      return await new Promise<Outcome>((end, fail) => {
        this.#exchange = { request, done: undefined, end, fail, patience };
        this.#socket.write(head, 'latin1');
      });
    } finally {
      patience.end();
      signal?.removeEventListener('abort', abort);
      this.#socket.unref();
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  /** Where the next bytes go. */
  #wanted(): Uint8Array {
    const { done, request } = this.#exchange ?? {};
    return done === undefined
      ? this.#head.subarray(this.#headLength)
      : request!.into.subarray(done);
  }

  #take(count: number): void {
    const exchange = this.#exchange;
    if (exchange === undefined) {
      // Nobody asked for it.
      this.close();
      return;
    }
    exchange.patience.goesOn();
    if (exchange.done === undefined) this.#takeHead(exchange, count);
    else this.#advance(exchange, exchange.done + count);
  }

  #takeHead(exchange: Exchange, count: number): void {
    this.#headLength += count;
    const received = this.#head.subarray(0, this.#headLength);
    const end = received.indexOf(endOfHead);
    if (end === -1) {
      if (this.#headLength === headBytes) this.#end('unknown');
      return;
    }
    const answer = answerOf(received.toString('latin1', 0, end));
    if (answer !== undefined && isFailure(answer.status)) {
      const { status, text, headers } = answer;
      this.#fail(failureOf(status, text, headers['retry-after']));
      return;
    }
    const body = received.subarray(end + endOfHead.length);
    const { into } = exchange.request;
    if (answer === undefined || body.length > into.length || !isPlain(answer, exchange.request)) {
      this.#end('unknown');
      return;
    }
    this.#isKept = !/\bclose\b/i.test(answer.headers.connection ?? '');
    this.#headLength = 0;
    into.set(body);
    this.#advance(exchange, body.length);
  }

  #advance(exchange: Exchange, done: number): void {
    const { into, onProgress } = exchange.request;
    const count = done - (exchange.done ?? 0);
    exchange.done = done;
    if (count > 0) onProgress(count);
    if (done === into.length) this.#end('complete');
  }

  #break(): void {
    if (this.#exchange?.done === undefined) this.#end('broken');
    else this.#fail(new TransientFailure('the server closed the connection too early'));
  }

  #end(outcome: Outcome): void {
    const exchange = this.#exchange;
    this.#exchange = undefined;
    if (outcome !== 'complete' || !this.#isKept) this.close();
    exchange?.end(outcome);
  }

  #fail(error: Error): void {
    const exchange = this.#exchange;
    this.#exchange = undefined;
    this.close();
    exchange?.fail(error);
  }
}

/** The head of a request (RFC 9112, section 3). */
function headOf(
  { host, pathname, search }: URL,
  headers: Readonly<Record<string, string>>,
): string {
  const lines = [`GET ${pathname}${search} HTTP/1.1`];
  const isNamed = Object.keys(headers).some((name) => name.toLowerCase() === 'host');
  for (const [name, value] of Object.entries(isNamed ? headers : { host, ...headers })) {
    validateHeaderName(name);
    validateHeaderValue(name, value);
    lines.push(`${name}: ${value}`);
  }
  return lines.join('\r\n') + endOfHead;
}

/** What a server answers before the bytes. */
interface Answer {
  readonly status: number;
  readonly text: string;
  readonly headers: AnswerHeaders;
}

/** The head of an answer of HTTP/1.1; undefined for anything else. */
function answerOf(head: string): Answer | undefined {
  const [first, ...lines] = head.split('\r\n');
  const start = /^HTTP\/1\.1 (\d{3}) ?(.*)$/.exec(first);
  if (start === null) return undefined;
  const headers: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const line of lines) {
    const field = /^([!#$%&'*+.^_`|~\w-]+):[ \t]*(.*?)[ \t]*$/.exec(line);
    if (field === null) return undefined;
    const name = field[1].toLowerCase();
    headers[name] = name in headers ? `${headers[name]}, ${field[2]}` : field[2];
  }
  return { status: Number(start[1]), text: start[2], headers };
}

/** Whether a status says that there are no bytes; whether the file is another one is not known here. */
function isFailure(status: number): boolean {
  return status >= 400 && status !== 412 && status !== 416;
}

function isPlain({ status, headers }: Answer, { into, isExpected }: RangeRequest): boolean {
  return (
    status === 206 &&
    headers['content-length'] === String(into.length) &&
    headers['transfer-encoding'] === undefined &&
    (headers['content-encoding'] ?? 'identity') === 'identity' &&
    isExpected(headers)
  );
}
