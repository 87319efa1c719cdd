/**
 * An S3 service for tests: objects below buckets, and every request's signature reckoned anew by AWS's
 * description of Signature Version 4, independently of what signs them here.
 */
import { createHash, createHmac } from 'node:crypto';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';

/** A service that runs until its test ends. */
export interface S3Server {
  readonly endpoint: string;
  /** By `/BUCKET/KEY`, as requests have it. */
  readonly objects: Map<string, Uint8Array>;
}

/** The one user of the service. */
export const s3Keys = { accessKeyId: 'COWHERD', secretAccessKey: 'cowherd/secret+key' };
/** Where the service says it is. */
export const s3Region = 'here-1';

/** Starts a service. */
export async function startS3Server(t: TestContext): Promise<S3Server> {
  const objects = new Map<string, Uint8Array>();
  const listener = http.createServer((request, response) => {
    if (!isSigned(request)) {
      response.writeHead(403);
      response.end('<Code>SignatureDoesNotMatch</Code>');
      return;
    }
    const object = objects.get(request.url ?? '');
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
    if (object === undefined || range === null) {
      response.writeHead(object === undefined ? 404 : 400);
      response.end();
      return;
    }
    const start = Number(range[1]);
    const end = Math.min(object.length, Number(range[2]) + 1);
    response.writeHead(206, {
      etag: `"${createHash('md5').update(object).digest('hex')}"`,
      'content-length': end - start,
      'content-range': `bytes ${start}-${end - 1}/${object.length}`,
    });
    response.end(object.subarray(start, end));
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    listener.closeAllConnections();
    listener.close();
  });
  const { port } = listener.address() as AddressInfo;
  return { endpoint: `http://127.0.0.1:${port}`, objects };
}

function isSigned(request: http.IncomingMessage): boolean {
  const match =
    /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/s3\/aws4_request, SignedHeaders=([^,]+), Signature=([0-9a-f]{64})$/.exec(
      request.headers.authorization ?? '',
    );
  if (match === null) return false;
  const [, user, day, region, names, signature] = match;
  const date = request.headers['x-amz-date'];
  const payload = request.headers['x-amz-content-sha256'];
  if (user !== s3Keys.accessKeyId || region !== s3Region) return false;
  if (typeof date !== 'string' || typeof payload !== 'string') return false;
  const signed = names.split(';');
  if (!signed.includes('host') || !signed.includes('x-amz-date')) return false;
  const [path, query = ''] = (request.url ?? '').split('?');
  const canonical = [
    request.method,
    path,
    query,
    ...signed.map((name) => `${name}:${String(request.headers[name]).trim()}`),
    '',
    names,
    payload,
  ].join('\n');
  const scope = `${day}/${region}/s3/aws4_request`;
  const text = ['AWS4-HMAC-SHA256', date, scope, hash(canonical)].join('\n');
  let key: Buffer = Buffer.from(`AWS4${s3Keys.secretAccessKey}`);
  for (const part of [day, region, 's3', 'aws4_request']) key = mac(key, part);
  return mac(key, text).toString('hex') === signature;
}

function hash(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function mac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}
