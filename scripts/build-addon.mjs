/**
 * Builds the native addon into build/Release/cowherd.node, unless what is there is up to date, and
 * puts it where `npm pack` takes it into the package. A failure is a warning, not an error: without
 * the addon the portable backends serve.
 *
 * COWHERD_SANITIZER=address|thread builds with that sanitizer; such a binary is not packed, and a
 * failure to build it is an error.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { answerHelp } from './help.mjs';

answerHelp(import.meta.url);

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const product = path.join(root, 'build/Release/cowherd.node');
const stampFile = path.join(root, 'build/cowherd.stamp');
const prebuilt = path.join(root, 'prebuilt', `${process.platform}-${process.arch}`);
const sanitizer = process.env.COWHERD_SANITIZER ?? '';

/** A digest of everything the binary is made from. */
function stamp() {
  const hash = createHash('sha256');
  const native = path.join(root, 'native');
  const sources = readdirSync(native).sort();
  for (const file of [
    path.join(root, 'binding.gyp'),
    ...sources.map((name) => path.join(native, name)),
  ]) {
    hash.update(file.slice(root.length)).update('\0').update(readFileSync(file)).update('\0');
  }
  const zstd = readFileSync(path.join(root, 'node_modules/zstd-napi/package.json'));
  hash.update(zstd).update(process.versions.modules).update(process.arch).update(sanitizer);
  return hash.digest('hex');
}

function build() {
  const nodeGyp = createRequire(import.meta.url).resolve('node-gyp/bin/node-gyp.js');
  const prefix = path.dirname(path.dirname(process.execPath));
  const ownHeaders = existsSync(path.join(prefix, 'include/node/node_api.h'));
  const result = spawnSync(
    process.execPath,
    [
      nodeGyp,
      'configure',
      'build',
      '--release',
      ...(ownHeaders ? [`--nodedir=${prefix}`] : []),
      `--cowherd_sanitizer=${sanitizer}`,
    ],
    {
      cwd: root,
      encoding: 'utf8',
      env: { ...process.env, MAKEFLAGS: process.env.MAKEFLAGS ?? '-j4' },
    },
  );
  if (result.status === 0 && existsSync(product)) return undefined;
  if (process.env.COWHERD_BUILD_VERBOSE) process.stderr.write(`${result.stdout}${result.stderr}`);
  const lines = `${result.stderr ?? ''}`.split('\n');
  return (
    lines.find((line) => /error/i.test(line))?.trim() ?? String(result.error ?? 'build failed')
  );
}

/**
 * Puts the binary, and the licences of what is compiled into it, where the package has them. The
 * loader prefers what it finds there, so nothing older than the build may stay.
 */
function ship() {
  const place = path.join(prebuilt, 'cowherd.node');
  if (sanitizer !== '') {
    rmSync(prebuilt, { recursive: true, force: true });
  } else if (!existsSync(place) || !readFileSync(place).equals(readFileSync(product))) {
    mkdirSync(prebuilt, { recursive: true });
    for (const [name, licence] of [
      ['zstd', 'zstd-napi/deps/zstd/LICENSE'],
      ['node-addon-api', 'node-addon-api/LICENSE.md'],
    ]) {
      copyFileSync(
        path.join(root, 'node_modules', licence),
        path.join(prebuilt, `LICENSE.${name}`),
      );
    }
    // Renamed into place: a running process may have the old one mapped.
    const draft = `${place}.${process.pid}`;
    copyFileSync(product, draft);
    renameSync(draft, place);
  }
}

let warning;
try {
  const wanted = stamp();
  if (
    !existsSync(product) ||
    !existsSync(stampFile) ||
    readFileSync(stampFile, 'utf8') !== wanted
  ) {
    warning = build();
    if (warning === undefined) {
      mkdirSync(path.dirname(stampFile), { recursive: true });
      writeFileSync(stampFile, wanted);
    }
  }
  if (warning === undefined) ship();
} catch (error) {
  warning = String(error);
}
if (warning !== undefined) {
  // The loader would find what an earlier build left.
  rmSync(prebuilt, { recursive: true, force: true });
  rmSync(product, { force: true });
  console.warn(
    `warning: the native addon was not built; portable file access will serve (${warning})`,
  );
  if (sanitizer !== '') process.exitCode = 1;
}
