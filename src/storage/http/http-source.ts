/**
 * One file of a web server: found once, and then read by ranges, over connections that are kept. What
 * fails on the way is tried again from where it broke off, a bounded number of times; a file that is not
 * the one any more that was opened is noticed by its length and its ETag.
 */
import { setMaxListeners } from 'node:events';
import http from 'node:http';
import https from 'node:https';
import { setTimeout as wait } from 'node:timers/promises';
import { CowherdError } from '../../errors.js';
import { Refusal, TransientFailure, cannotOpenUrl, cannotRead, failureOf } from './failures.js';
import { loginFromNetrc } from './netrc.js';
import { Patience } from './patience.js';
import { type AnswerHeaders, RangeConnections, type RangeRequest } from './range-connections.js';
import type { HttpOptions } from '../http-options.js';

/** How often one range is asked for. */
const attempts = 4;
/** Milliseconds before the second attempt; twice as many before each further one. */
const firstWaitMs = 200;
/** Longest wait that a server may ask for, in milliseconds. */
const longestWaitMs = 10_000;
const defaultTimeoutSeconds = 10;
const mostRedirects = 10;
/** Connections at a time to one server. */
const mostConnections = 8;
/** Bytes of the begin of the file that are asked for to find it. */
const beginBytes = 64 * 1024;

/** What tells that a file is still the same. */
export interface Identity {
  /** Bytes. */
  readonly size: number;
  /** ETag, or else the time of the last change, as the server says it. */
  readonly validator: string | undefined;
}

/** A file that was found. */
export interface Found extends Identity {
  /** Its first `beginBytes` bytes, or all of them; undefined if the server does not give ranges. */
  readonly begin: Uint8Array | undefined;
}

interface Answer {
  readonly response: http.IncomingMessage;
  readonly url: URL;
}

/** The headers of a request with those that prove who sends it. */
export type SignRequest = (
  url: URL,
  headers: Readonly<Record<string, string>>,
) => Record<string, string>;

/** See the file's comment. */
export class HttpSource {
  readonly #filename: string;
  readonly #options: HttpOptions;
  readonly #agents = new Map<string, http.Agent>();
  readonly #rangeConnections = new RangeConnections(mostConnections);
  /** Whether the server has answered requests for ranges plainly so far. */
  #answersPlainly = true;
  readonly #origin: string;
  readonly #sign: SignRequest | undefined;
  readonly #signal: AbortSignal | undefined;
  /** Where the file was found last; a redirection need not be followed again. */
  #url: URL;
  #authorization: string | undefined;
  #identity: Identity | undefined;

  /** @param filename the name of the file in messages: the URL without its password */
  constructor(
    url: URL,
    filename: string,
    options: HttpOptions,
    sign?: SignRequest,
    signal?: AbortSignal,
  ) {
    this.#signal = signal;
    // Each request listens to it.
    if (signal !== undefined) setMaxListeners(0, signal);
    this.#sign = sign;
    this.#url = url;
    this.#origin = url.origin;
    this.#filename = filename;
    this.#options = options;
  }

  /** Finds the file. @throws CowherdError */
  async open(): Promise<Found> {
    this.#authorization = await this.#findAuthorization();
    const begin = new Uint8Array(beginBytes);
    try {
      return await this.#persist(async () => {
        const answer = await this.#request({ range: `bytes=0-${beginBytes - 1}` });
        return await this.#understand(answer, begin);
      });
    } catch (error) {
      throw this.#named(error, (why, code, cause) =>
        cannotOpenUrl(this.#filename, why, code, cause),
      );
    }
  }

  /** Goes on with a file that another thread has found. */
  resume(identity: Identity): Promise<void> {
    this.#identity = identity;
    return this.#findAuthorization().then((authorization) => {
      this.#authorization = authorization;
    });
  }

  /** Reads bytes, all of which lie within the file. @throws CowherdError */
  async read(into: Uint8Array, offset: number): Promise<void> {
    let done = 0;
    const onProgress = (count: number): void => {
      done += count;
    };
    try {
      await this.#persist(async () => {
        const range = { range: `bytes=${offset + done}-${offset + into.length - 1}` };
        const rest = { into: into.subarray(done), offset: offset + done, onProgress };
        if (await this.#askForRange(range, rest)) return;
        const { response } = await this.#request(range);
        try {
          this.#checkRange(response, offset + done);
          await this.#take(response, into.subarray(done), onProgress);
        } catch (error) {
          response.destroy();
          throw error;
        }
      });
    } catch (error) {
      throw this.#named(error, (why, code, cause) =>
        cannotRead(this.#filename, offset + done, why, code, cause),
      );
    }
  }

  /** All of the file, from its first byte on, as the server sends it. */
  async stream(): Promise<http.IncomingMessage> {
    try {
      const { response } = await this.#request({});
      if (response.statusCode === 200) return response;
      throw this.#refusalOf(response);
    } catch (error) {
      throw this.#named(error, (why, code, cause) =>
        cannotOpenUrl(this.#filename, why, code, cause),
      );
    }
  }

  /** Milliseconds in which the server has to go on. */
  get timeoutMs(): number {
    return (this.#options.timeoutSeconds ?? defaultTimeoutSeconds) * 1000;
  }

  close(): void {
    this.#rangeConnections.close();
    for (const agent of this.#agents.values()) agent.destroy();
  }

  async #findAuthorization(): Promise<string | undefined> {
    if (this.#sign !== undefined) return undefined;
    const { username, password = '' } = this.#options;
    const url = this.#url;
    const own = username ?? (url.username === '' ? undefined : decodeURIComponent(url.username));
    const login =
      own === undefined
        ? await loginFromNetrc(url.hostname)
        : {
            username: own,
            password: username === undefined ? decodeURIComponent(url.password) : password,
          };
    if (login === undefined) return undefined;
    return `Basic ${Buffer.from(`${login.username}:${login.password}`).toString('base64')}`;
  }

  /** Does something again while it fails for reasons that may pass. */
  async #persist<Result>(attempt: () => Promise<Result>): Promise<Result> {
    for (let count = 1; ; count++) {
      this.#signal?.throwIfAborted();
      try {
        return await attempt();
      } catch (error) {
        if (!(error instanceof TransientFailure) || count === attempts) throw error;
        const waitMs = Math.max(firstWaitMs * 2 ** (count - 1), error.waitMs);
        await wait(Math.min(waitMs, longestWaitMs), undefined, { signal: this.#signal });
      }
    }
  }

  /** Sends a request, and again where the server redirects it. */
  async #request(headers: Readonly<Record<string, string>>): Promise<Answer> {
    let url = this.#url;
    for (let redirects = 0; redirects <= mostRedirects; redirects++) {
      const response = await this.#send(url, headers);
      const { statusCode = 0 } = response;
      const { location } = response.headers;
      if (![301, 302, 303, 307, 308].includes(statusCode) || location === undefined) {
        this.#url = url;
        return { response, url };
      }
      response.destroy();
      const next = URL.canParse(location, url.href) ? new URL(location, url) : undefined;
      if (next?.protocol !== 'http:' && next?.protocol !== 'https:') {
        throw new Refusal('ERR_COWHERD_IO', `the server redirects to '${location}'`);
      }
      if (url.protocol === 'https:' && next.protocol === 'http:') {
        throw new Refusal('ERR_COWHERD_IO', 'the server redirects from https to http');
      }
      url = next;
    }
    throw new Refusal('ERR_COWHERD_IO', `the server redirects more than ${mostRedirects} times`);
  }

  #send(url: URL, own: Readonly<Record<string, string>>): Promise<http.IncomingMessage> {
    const isSecure = url.protocol === 'https:';
    const options: https.RequestOptions = {
      agent: this.#agentOf(url),
      auth: '',
      headers: this.#headers(url, own),
      rejectUnauthorized: this.#options.verifyCertificate !== false,
      ...(this.#signal !== undefined && { signal: this.#signal }),
    };
    return new Promise((resolve, reject) => {
      const target = new URL(url);
      target.username = '';
      target.password = '';
      const request = (isSecure ? https : http).request(target, options);
      const timer = setTimeout(() => {
        request.destroy(new TransientFailure('the server does not answer'));
      }, this.timeoutMs);
      request.once('response', (response) => {
        clearTimeout(timer);
        resolve(response);
      });
      request.once('error', (error) => {
        clearTimeout(timer);
        reject(failureOnTheWay(error));
      });
      request.end();
    });
  }

  #headers(url: URL, own: Readonly<Record<string, string>>): Record<string, string> {
    // What is secret is for the server that it was given for.
    const isOwn = url.origin === this.#origin;
    const authorization = isOwn ? this.#authorization : undefined;
    const headers = {
      'user-agent': 'cowherd',
      'accept-encoding': 'identity',
      ...(isOwn && this.#options.headers),
      ...(authorization !== undefined && { authorization }),
      ...own,
    };
    return isOwn ? (this.#sign?.(url, headers) ?? headers) : headers;
  }

  /** Asks for a range where its bytes come without a detour, if they do. @returns whether they are there */
  async #askForRange(
    own: Readonly<Record<string, string>>,
    range: Pick<RangeRequest, 'into' | 'onProgress'> & { readonly offset: number },
  ): Promise<boolean> {
    const url = this.#url;
    if (!this.#answersPlainly || url.protocol !== 'http:') return false;
    const { size, validator } = this.#identity!;
    const { offset, into, onProgress } = range;
    const outcome = await this.#rangeConnections.ask({
      url,
      headers: this.#headers(url, own),
      into,
      timeoutMs: this.timeoutMs,
      signal: this.#signal,
      onProgress,
      isExpected: (headers) => {
        const brought = contentRange(headers);
        const isSame = brought?.size === undefined || brought.size === size;
        return isSame && brought?.start === offset && validatorOf(headers) === validator;
      },
    });
    if (outcome === 'unknown') this.#answersPlainly = false;
    return outcome === 'complete';
  }

  #agentOf({ protocol }: URL): http.Agent {
    let agent = this.#agents.get(protocol);
    if (agent === undefined) {
      const Agent = protocol === 'https:' ? https.Agent : http.Agent;
      agent = new Agent({ keepAlive: true, maxSockets: mostConnections });
      this.#agents.set(protocol, agent);
    }
    return agent;
  }

  /** What the first answer says of the file. */
  async #understand({ response }: Answer, begin: Uint8Array): Promise<Found> {
    const validator = validatorOf(response.headers);
    const { statusCode } = response;
    try {
      if (statusCode === 200) {
        const size = Number(response.headers['content-length'] ?? NaN);
        response.destroy();
        if (!Number.isSafeInteger(size)) {
          throw new Refusal('ERR_COWHERD_UNSUPPORTED', 'the server does not say how long it is');
        }
        this.#identity = { size, validator };
        return { size, validator, begin: undefined };
      }
      const range = contentRange(response.headers);
      if (statusCode === 416 && range?.size === 0) {
        response.resume();
        this.#identity = { size: 0, validator };
        return { size: 0, validator, begin: begin.subarray(0, 0) };
      }
      if (statusCode !== 206) throw this.#refusalOf(response);
      if (range?.size === undefined || range.start !== 0) {
        throw new Refusal('ERR_COWHERD_IO', 'the server sends another range than was asked for');
      }
      const { size } = range;
      const bytes = begin.subarray(0, Math.min(size, begin.length));
      await this.#take(response, bytes, () => undefined);
      this.#identity = { size, validator };
      return { size, validator, begin: bytes };
    } catch (error) {
      response.destroy();
      throw error;
    }
  }

  /** Checks that an answer is the range that was asked for, of the same file. */
  #checkRange(response: http.IncomingMessage, offset: number): void {
    if (response.statusCode !== 206) throw this.#refusalOf(response);
    const range = contentRange(response.headers);
    const { size, validator } = this.#identity!;
    const isSame = range?.size === undefined || range.size === size;
    if (!isSame || validatorOf(response.headers) !== validator) throw changed();
    if (range?.start !== offset) {
      throw new Refusal('ERR_COWHERD_IO', 'the server sends another range than was asked for');
    }
  }

  #refusalOf(response: http.IncomingMessage): Error {
    const { statusCode = 0, statusMessage = '', headers } = response;
    response.destroy();
    if (statusCode === 200) {
      return new Refusal('ERR_COWHERD_IO', 'the server does not give parts of the file any more');
    }
    if (statusCode === 416 || statusCode === 412) return changed();
    return failureOf(statusCode, statusMessage, headers['retry-after']);
  }

  /** Takes what a response brings, which must be as much as fits. */
  #take(
    response: http.IncomingMessage,
    into: Uint8Array,
    onProgress: (count: number) => void,
  ): Promise<void> {
    const { timeoutMs } = this;
    return new Promise((resolve, reject) => {
      let done = 0;
      const fail = (error: Error): void => {
        patience.end();
        response.destroy();
        reject(error);
      };
      const patience = new Patience(into.length, timeoutMs, () => {
        fail(new TransientFailure('the server stopped sending'));
      });
      response.on('data', (chunk: Buffer) => {
        if (done + chunk.length > into.length) {
          fail(new Refusal('ERR_COWHERD_IO', 'the server sends more than was asked for'));
          return;
        }
        patience.goesOn();
        into.set(chunk, done);
        done += chunk.length;
        onProgress(chunk.length);
      });
      response.once('error', (error) => {
        fail(failureOnTheWay(error));
      });
      response.once('close', () => {
        patience.end();
        if (done === into.length) resolve();
        else reject(new TransientFailure('the server closed the connection too early'));
      });
    });
  }

  #named(
    error: unknown,
    named: (why: string, code: CowherdError['code'], cause: unknown) => CowherdError,
  ): unknown {
    if (this.#signal?.aborted === true) {
      return new CowherdError('ERR_COWHERD_ABORTED', `Work on '${this.#filename}' was cancelled`, {
        filename: this.#filename,
        cause: error,
      });
    }
    if (error instanceof Refusal) return named(error.message, error.code, error);
    if (error instanceof TransientFailure) return named(error.message, 'ERR_COWHERD_IO', error);
    return error;
  }
}

function changed(): Refusal {
  return new Refusal('ERR_COWHERD_IO', 'the file has changed on the server since it was opened');
}

/** What tells one version of a file from another. */
function validatorOf(headers: AnswerHeaders): string | undefined {
  return headers.etag ?? headers['last-modified'];
}

/** The range that an answer brings (RFC 9110, section 14.4); its size is undefined if it is not told. */
function contentRange(
  headers: AnswerHeaders,
): { start: number | undefined; size: number | undefined } | undefined {
  const match = /^bytes (?:(\d+)-\d+|\*)\/(\d+|\*)$/.exec(headers['content-range'] ?? '');
  if (match === null) return undefined;
  const [, start, size] = match as (string | undefined)[];
  const exact = (text: string | undefined): number | undefined => {
    const value = Number(text ?? NaN);
    return Number.isSafeInteger(value) ? value : undefined;
  };
  return { start: exact(start), size: exact(size) };
}

/** Errors of names and certificates stay; connections that break may be made again. */
function failureOnTheWay(error: Error): Error {
  if (error instanceof TransientFailure || error instanceof Refusal) return error;
  const { code = '' } = error as NodeJS.ErrnoException;
  const passing = ['ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ECONNABORTED', 'EAI_AGAIN', 'ECONNREFUSED'];
  if (passing.includes(code) || code.startsWith('HPE_')) return new TransientFailure(error.message);
  return new Refusal('ERR_COWHERD_IO', error.message === '' ? code : error.message);
}
