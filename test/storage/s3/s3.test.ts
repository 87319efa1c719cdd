/** Objects of an S3 service that checks signatures, and what is refused. */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { type TestContext, test } from 'node:test';
import { openPool } from '../../../src/image/threads/pool.js';
import { openStorageFile } from '../../../src/storage/registry.js';
import { runCowherd } from '../../support/both-tools.js';
import { type S3Server, s3Keys, s3Region, startS3Server } from '../../support/s3-server.js';
import { temporaryFolder } from '../../support/tools.js';

/** Starts a service, and has the program look there. */
async function startService(t: TestContext): Promise<S3Server> {
  const server = await startS3Server(t);
  setEnvironment(t, {
    AWS_ENDPOINT_URL: server.endpoint,
    AWS_ACCESS_KEY_ID: s3Keys.accessKeyId,
    AWS_SECRET_ACCESS_KEY: s3Keys.secretAccessKey,
    AWS_REGION: s3Region,
  });
  return server;
}

/** Sets variables, or removes them, until the test ends. */
function setEnvironment(
  t: TestContext,
  values: Readonly<Record<string, string | undefined>>,
): void {
  for (const [name, value] of Object.entries(values)) {
    const before = process.env[name];
    const set = (text: string | undefined): void => {
      if (text === undefined) Reflect.deleteProperty(process.env, name);
      else process.env[name] = text;
    };
    set(value);
    t.after(() => {
      set(before);
    });
  }
}

test('an object is read by signed requests, on several threads too', async (t) => {
  const { objects } = await startService(t);
  const folder = await temporaryFolder(t);
  const bytes = Buffer.from(Uint8Array.from({ length: 5 << 20 }, (_, at) => (at >> 7) & 0xff));
  await writeFile(path.join(folder, 'plain.raw'), bytes);
  await runCowherd(['convert', '-O', 'qcow2', '-c', 'plain.raw', 'local.qcow2'], folder);
  const local = await readFile(path.join(folder, 'local.qcow2'));
  objects.set('/images/a%20folder/disk%2B1.qcow2', local);
  const name = 's3://images/a folder/disk+1.qcow2';
  const same = await runCowherd(['compare', name, 'plain.raw'], folder);
  assert.equal(same.code, 0, same.stderr);
  const info = await runCowherd(['info', '--output=json', name], folder);
  assert.match(info.stdout, /"format": "s3"/);
  const listed = await runCowherd(['info', '--image-opts', `driver=s3,url=${name}`], folder);
  assert.equal(listed.code, 0, listed.stderr);

  const pool = await openPool(name, { readOnly: true, queues: 2 });
  t.after(() => pool.close());
  const read = new Uint8Array(bytes.length);
  await pool.read(read, 0);
  assert.equal(Buffer.compare(read, bytes), 0);
});

for (const [what, name, environment, expected] of [
  ['a missing object', 's3://images/missing', {}, /the server answered 404/],
  ['a wrong key', 's3://images/x', { AWS_SECRET_ACCESS_KEY: 'wrong' }, /the server answered 403/],
  ['no key', 's3://images/x', { AWS_ACCESS_KEY_ID: undefined }, /the server answered 403/],
  ['a name without a key', 's3://images', {}, /s3:\/\/BUCKET\/KEY is expected/],
  ['an endpoint that is none', 's3://images/x', { AWS_ENDPOINT_URL: 'nonsense' }, /no valid URL/],
] as const) {
  test(`${what} is one line`, async (t) => {
    const { objects } = await startService(t);
    objects.set('/images/x', new Uint8Array(512));
    setEnvironment(t, environment);
    const { code, stderr } = await runCowherd(['info', name], await temporaryFolder(t));
    assert.equal(code, 1);
    assert.match(stderr, expected);
    assert.match(stderr, /^cowherd: Could not open '[^\n]*\n$/);
    assert.ok(!stderr.includes(s3Keys.secretAccessKey));
  });
}

test('objects are not written', async () => {
  await assert.rejects(openStorageFile('s3://images/x', {}), { code: 'ERR_COWHERD_READ_ONLY' });
});

test('keys, region and endpoint of the files of other tools are found', async (t) => {
  const { objects, endpoint } = await startService(t);
  const folder = await temporaryFolder(t);
  objects.set('/images/small', new Uint8Array(512));
  const credentials = path.join(folder, 'credentials');
  const config = path.join(folder, 'config');
  await writeFile(
    credentials,
    '[other]\naws_access_key_id = X\n[mine]\n' +
      `aws_access_key_id=${s3Keys.accessKeyId}\naws_secret_access_key = ${s3Keys.secretAccessKey}\n`,
  );
  await writeFile(
    config,
    `[default]\nregion = x\n[profile mine]\nregion = ${s3Region}\nendpoint_url = ${endpoint}\n`,
  );
  setEnvironment(t, {
    AWS_PROFILE: 'mine',
    AWS_SHARED_CREDENTIALS_FILE: credentials,
    AWS_CONFIG_FILE: config,
    AWS_ENDPOINT_URL: undefined,
    AWS_ACCESS_KEY_ID: undefined,
    AWS_SECRET_ACCESS_KEY: undefined,
    AWS_REGION: undefined,
  });
  const file = await openStorageFile('s3://images/small', { readOnly: true });
  t.after(() => file.close());
  assert.equal(await file.size(), 512);
});
