/** A web server for tests: it serves one file by ranges, and does to each answer what a test says. */
import http from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';

/** A request that was served. */
export interface Served {
  readonly range: string | undefined;
  readonly headers: http.IncomingHttpHeaders;
  /** Bytes of the body that were sent. */
  sent: number;
}

/** What a server does otherwise than serve what was asked for. */
export interface Behaviour {
  /** Whether parts of the file are given; default true. */
  readonly ranges?: boolean;
  readonly etag?: string;
  /** Takes an answer over. @returns whether it did */
  readonly instead?: (
    request: http.IncomingMessage,
    response: http.ServerResponse,
    count: number,
  ) => boolean;
}

/** A server that runs until its test ends. */
export interface WebServer {
  /** URL of the file, with a path that ends with `disk`. */
  readonly url: string;
  readonly port: number;
  readonly served: Served[];
  content: Uint8Array;
  behaviour: Behaviour;
}

/** Starts a server. @param tls key and certificate in PEM, for https */
export async function startWebServer(
  t: TestContext,
  content: Uint8Array,
  behaviour: Behaviour = {},
  tls?: { readonly key: string; readonly cert: string },
): Promise<WebServer> {
  const answer = (request: http.IncomingMessage, response: http.ServerResponse): void => {
    serve(server, request, response);
  };
  const listener = tls === undefined ? http.createServer(answer) : https.createServer(tls, answer);
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const { port } = listener.address() as AddressInfo;
  const scheme = tls === undefined ? 'http' : 'https';
  const url = `${scheme}://127.0.0.1:${port}/folder/disk`;
  const server: WebServer = { url, port, served: [], content, behaviour };
  t.after(() => {
    listener.closeAllConnections();
    listener.close();
  });
  return server;
}

function serve(
  server: WebServer,
  request: http.IncomingMessage,
  response: http.ServerResponse,
): void {
  const { range } = request.headers;
  const served: Served = { range, headers: request.headers, sent: 0 };
  server.served.push(served);
  const { behaviour } = server;
  if (behaviour.instead?.(request, response, server.served.length) === true) return;
  const { content } = server;
  if (behaviour.etag !== undefined) response.setHeader('etag', behaviour.etag);
  const match = /^bytes=(\d+)-(\d*)$/.exec(range ?? '');
  if (match === null || behaviour.ranges === false) {
    served.sent = content.length;
    response.writeHead(200, { 'content-length': content.length });
    response.end(content);
    return;
  }
  const start = Number(match[1]);
  const end = match[2] === '' ? content.length : Math.min(content.length, Number(match[2]) + 1);
  if (start >= content.length) {
    response.writeHead(416, { 'content-range': `bytes */${content.length}` });
    response.end();
    return;
  }
  served.sent = end - start;
  response.writeHead(206, {
    'content-length': end - start,
    'content-range': `bytes ${start}-${end - 1}/${content.length}`,
  });
  response.end(content.subarray(start, end));
}
