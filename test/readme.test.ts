/** Runs what README.md shows. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import {
  type Snippet,
  type Workplace,
  commandLines,
  documentText,
  runLine,
  runScript,
  snippetsOf,
  workplace as emptyWorkplace,
} from './support/printed.js';
import { needsTool, projectFolder, run, runOk, skipsSanitizer } from './support/tools.js';
import { VhostUserClient, header } from './support/vhost-user-client.js';

const snippets = snippetsOf(await documentText('README.md'));
const npmCommands = snippets.filter(({ text }) => text.startsWith('npm '));
const commands = snippets.filter(
  ({ language, text }) => language === 'sh' && !text.startsWith('npm '),
);
const isServing = ({ text }: Snippet): boolean => /^cowherd serve|nbd/.test(text);
const isDevice = (line: string): boolean => line.includes('--vhost-user-blk');
const shell = commands.filter((snippet) => !isServing(snippet));
const serving = commands.filter(isServing);
const programs = snippets.filter(({ language }) => language === 'ts');
const scripts = snippets.filter(({ language }) => language === 'js');

test('every snippet is one of those that are run here', () => {
  const kinds = [npmCommands, shell, serving, programs, scripts];
  assert.ok(kinds.every((kind) => kind.length > 0));
  assert.equal(kinds.flat().length, snippets.length);
});

test('the npm scripts it names exist', async () => {
  const text = await readFile(path.join(projectFolder, 'package.json'), 'utf8');
  const { scripts } = JSON.parse(text) as { scripts: Readonly<Record<string, string>> };
  for (const snippet of npmCommands) {
    for (const command of snippet.text.trim().split(' && ')) {
      if (/^npm (?:ci|pack|install|link)\b/.test(command)) continue;
      const name = command.replace(/^npm (?:run )?/, '');
      assert.ok(Object.hasOwn(scripts, name), `there is no script for ${command}`);
    }
  }
});

test('the main job on real input', async (t) => {
  if (skipsSanitizer(t, 'qemu-img, which is started too, does not run with it')) return;
  const quickstart = path.join(projectFolder, 'dist', 'scripts', 'quickstart.js');
  const { stdout, stderr, code } = await run(process.execPath, [quickstart]);
  assert.equal(code, 0, stdout + stderr);
  assert.match(stdout, /^check: 0 corruptions, 0 leaks/m);
  assert.match(stdout, /^compare: the contents are identical$/m);
  assert.match(stdout, /^back again: bit-identical$/m);
});

/** A folder with a small disk. */
async function workplace(t: TestContext): Promise<Workplace> {
  const place = await emptyWorkplace(t);
  const disk = Buffer.alloc(4 * 1024 * 1024);
  disk.fill('a disk', 0, 1024 * 1024);
  await writeFile(path.join(place.folder, 'disk.raw'), disk);
  return place;
}

test('serving: each server, and who converts from it and into it', async (t) => {
  const lines = serving.flatMap(({ text }) => text.trim().split('\n'));
  const servers = lines.filter((line) => line.startsWith('cowherd serve') && !isDevice(line));
  const clients = lines.filter((line) => !line.startsWith('cowherd serve'));
  assert.equal(servers.length, clients.length);
  const { folder, env } = await workplace(t);
  const options = { cwd: folder, env };
  await runOk('sh', ['-c', 'cowherd convert -O qcow2 disk.raw disk.qcow2'], options);
  for (const [index, line] of servers.entries()) {
    const server = spawn('sh', ['-c', `exec ${line}`], {
      cwd: folder,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.after(() => server.kill('SIGKILL'));
    await once(server.stdout, 'data');
    await runOk('sh', ['-c', clients[index]], options);
    server.kill('SIGTERM');
    assert.deepEqual(await once(server, 'close'), [0, null]);
  }
  await runOk('sh', ['-c', 'cowherd compare disk.raw disk.qcow2'], options);
  await runOk('sh', ['-c', 'cowherd compare disk.raw copy.qcow2'], options);
});

test('serving: a block device, to a driver with all of its queues', async (t) => {
  const [line] = serving.flatMap(({ text }) => text.trim().split('\n')).filter(isDevice);
  const { folder, env } = await workplace(t);
  const options = { cwd: folder, env };
  await runOk('sh', ['-c', 'cowherd convert -O qcow2 disk.raw disk.qcow2'], options);
  const server = spawn('sh', ['-c', `exec ${line}`], {
    cwd: folder,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => server.kill('SIGKILL'));
  const [said] = (await once(server.stdout, 'data')) as [Buffer];
  assert.equal(said.toString(), 'Serving a block device at unix:disk.sock\n');
  const client = await VhostUserClient.start(path.join(folder, 'disk.sock'), { queues: 4 });
  const parts = [
    { length: 16, isWritable: false },
    { length: 513, isWritable: true },
  ];
  for (const queue of client.queues) {
    const answer = await queue.request(header(0, 0), parts);
    assert.equal(answer[512], 0);
  }
  client.close();
  server.kill('SIGTERM');
  assert.deepEqual(await once(server, 'close'), [0, null]);
});

for (const snippet of shell) {
  test(`at a shell: ${commandLines(snippet)[0]}`, async (t) => {
    const place = await workplace(t);
    for (const line of commandLines(snippet)) await runLine(line, place);
  });
}

for (const { text } of programs) {
  test(`in a program: ${text.split('\n')[0]}`, async (t) => {
    const { folder } = await workplace(t);
    await writeFile(path.join(folder, 'package.json'), '{ "type": "module" }');
    await writeFile(path.join(folder, 'snippet.ts'), text);
    const modules = path.join(projectFolder, 'node_modules');
    const compiled = await run(
      process.execPath,
      [
        ...[path.join(modules, 'typescript', 'bin', 'tsc'), '--strict'],
        ...['--target', 'ES2022', '--lib', 'ES2022,ESNext.Disposable', '--module', 'NodeNext'],
        ...['--typeRoots', path.join(modules, '@types'), '--types', 'node', 'snippet.ts'],
      ],
      { cwd: folder },
    );
    assert.deepEqual([compiled.stdout, compiled.code], ['', 0]);
    const { stdout, stderr, code } = await run(process.execPath, ['snippet.js'], { cwd: folder });
    assert.deepEqual([stderr, code], ['', 0]);
    const lines = stdout.trim().split('\n');
    // It ends with a comparison, and with opening what is not there.
    assert.deepEqual(lines.slice(-2), ['true', 'ERR_COWHERD_NOT_FOUND']);
    assert.ok(lines.length > 2, 'the map has extents');
  });
}

for (const snippet of scripts) {
  const image = /'(\w+\.qcow2)'/.exec(snippet.text)![1];
  test(`as printed, into ${image}`, async (t) => {
    const place = await workplace(t);
    await runScript(snippet, 'snippet.mjs', place);
    if (!needsTool(t, 'qemu-img')) return;
    const check = await run('qemu-img', ['check', path.join(place.folder, image)]);
    assert.match(check.stdout, /^No errors were found on the image\.$/m);
    assert.equal(check.code, 0, check.stdout);
  });
}
