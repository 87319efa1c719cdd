/**
 * An S3 service that others wrote, such as Ceph's gateway: COWHERD_TEST_S3 says where one is, and what it knows
 * us by, as `http://ACCESS:SECRET@HOST:PORT/REGION`.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import aws4 from 'aws4';
import { cowherdProgram, run, temporaryFolder } from '../../support/tools.js';

const service = process.env['COWHERD_TEST_S3'];

test('objects of a real service are read, whatever their names', async (t) => {
  if (service === undefined) {
    t.skip('COWHERD_TEST_S3 names no service');
    return;
  }
  const { origin, host, username, password, pathname } = new URL(service);
  const region = pathname.slice(1);
  const put = async (address: string, body?: Uint8Array): Promise<void> => {
    const request = {
      ...{ service: 's3', region, method: 'PUT', host, path: address },
      headers: { 'x-amz-content-sha256': 'UNSIGNED-PAYLOAD' },
    };
    const keys = { accessKeyId: username, secretAccessKey: password };
    const { headers } = aws4.sign(request, keys) as { headers: Record<string, string> };
    const sent = { method: 'PUT', headers, ...(body !== undefined && { body: Buffer.from(body) }) };
    const response = await fetch(`${origin}${address}`, sent);
    assert.ok(response.ok, `PUT ${address}: ${response.status} ${await response.text()}`);
  };
  const folder = await temporaryFolder(t);
  const program = (words: readonly string[], secret = password) =>
    run(process.execPath, [cowherdProgram, ...words], {
      cwd: folder,
      env: {
        AWS_ENDPOINT_URL: origin,
        AWS_ACCESS_KEY_ID: username,
        AWS_SECRET_ACCESS_KEY: secret,
        AWS_REGION: region,
      },
    });
  const disk = Buffer.alloc(24 << 20);
  randomBytes(9 << 20).copy(disk, 3 << 20);
  await writeFile(path.join(folder, 'disk.raw'), disk);
  await put('/cowherd-test');
  for (const [format, options, key] of [
    ['qcow2', [], 'disk.qcow2'],
    ['qcow2', ['-c'], 'a folder/disk+é (1).qcow2'],
    ['vmdk', ['-o', 'subformat=streamOptimized'], 'disk.vmdk'],
  ] as const) {
    const made = await program(['convert', '-O', format, ...options, 'disk.raw', 'local']);
    assert.equal(made.code, 0, made.stderr);
    const encoded = key.split('/').map(encodeURIComponent).join('/');
    const address = `/cowherd-test/${encoded.replace(/[()]/g, (each) => `%${each.charCodeAt(0).toString(16)}`)}`;
    await put(address, await readFile(path.join(folder, 'local')));
    const name = `s3://cowherd-test/${key}`;
    const copied = await program(['convert', '-O', 'raw', name, 'copy.raw']);
    assert.deepEqual([copied.code, copied.stderr], [0, '']);
    assert.ok((await readFile(path.join(folder, 'copy.raw'))).equals(disk), key);
    const refused = await program(['info', name], 'wrong');
    assert.match(refused.stderr, /the server answered 403 Forbidden\n$/);
  }
  const absent = await program(['info', 's3://cowherd-test/absent']);
  assert.match(absent.stderr, /the server answered 404 Not Found\n$/);
});
