/**
 * Builds the native addon into build/Release/cowherd.node, unless what is there is up to date.
 * A failure is a warning, not an error: without the addon the portable backends serve.
 *
 * COWHERD_SANITIZER=address|thread builds with that sanitizer.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const product = path.join(root, 'build/Release/cowherd.node');
const stampFile = path.join(root, 'build/cowherd.stamp');
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
} catch (error) {
  warning = String(error);
}
if (warning !== undefined) {
  console.warn(
    `warning: the native addon was not built; portable file access will serve (${warning})`,
  );
}
