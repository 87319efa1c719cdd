/** Requests to S3 services: where an object is, and the signature that a request carries. */
import aws4 from 'aws4';
import { cannotOpen } from '../../errors.js';
import type { SignRequest } from '../http/http-source.js';
import type { S3Access } from './credentials.js';

/**
 * The URL of an object: below its bucket's own host at AWS, below the bucket's path elsewhere.
 *
 * @throws ERR_COWHERD_INVALID_ARGUMENT for a name without a bucket or key
 */
export function objectUrl(name: string, { endpoint, region }: S3Access): string {
  const match = /^s3:\/\/([a-z0-9][a-z0-9._-]*)\/(.+)$/i.exec(name);
  if (match === null) {
    throw cannotOpen('ERR_COWHERD_INVALID_ARGUMENT', name, 's3://BUCKET/KEY is expected');
  }
  const [, bucket, key] = match;
  const path = key.split('/').map(encodeURIComponent).join('/');
  if (endpoint === undefined) return `https://${bucket}.s3.${region}.amazonaws.com/${path}`;
  if (URL.canParse(endpoint)) return `${endpoint.replace(/\/+$/, '')}/${bucket}/${path}`;
  throw cannotOpen(
    'ERR_COWHERD_INVALID_ARGUMENT',
    name,
    `the endpoint '${endpoint}' is no valid URL`,
  );
}

/** What signs requests (AWS Signature Version 4); undefined without credentials. */
export function signer({ credentials, region }: S3Access): SignRequest | undefined {
  if (credentials === undefined) return undefined;
  return (url, headers) => {
    const signed = aws4.sign(
      {
        service: 's3',
        region,
        method: 'GET',
        host: url.host,
        path: `${url.pathname}${url.search}`,
        headers: { ...headers, 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD' },
      },
      {
        accessKeyId: credentials.accessKeyId,
        secretAccessKey: credentials.secretAccessKey,
        ...(credentials.sessionToken !== undefined && { sessionToken: credentials.sessionToken }),
      },
    );
    return signed.headers as Record<string, string>;
  };
}
