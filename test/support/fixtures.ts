/** Gives tests working copies of the fixture images. */
import { mkdir, open, readFile } from 'node:fs/promises';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { gunzipSync } from 'node:zlib';
import type { Fixture } from '../../fixtures/manifest.js';
import { readManifest } from '../../fixtures/manifest.js';
import { projectFolder, temporaryFolder } from './tools.js';

export type { Fixture } from '../../fixtures/manifest.js';

/** Every fixture, in the order of the manifest. */
export const fixtures: readonly Fixture[] = readManifest(projectFolder);

/** Images that QEMU warns about while it reads them, in words about its own state. */
export const warnedAbout: ReadonlySet<string> = new Set(['refcount-block-unaligned.qcow2']);

/** The fixture of that name. */
export function fixture(file: string): Fixture {
  const found = fixtures.find((candidate) => candidate.file === file);
  if (found === undefined) throw new Error(`there is no fixture ${file}`);
  return found;
}

/**
 * Unpacks fixtures and everything they refer to into a new folder.
 *
 * @returns the folder, in which the images have their own names
 */
export async function unpackFixtures(
  t: TestContext,
  wanted: readonly Fixture[] = fixtures,
): Promise<string> {
  const folder = await temporaryFolder(t);
  for (const each of withNeeds(wanted)) {
    for (const part of [each, ...(each.parts ?? [])]) await unpack(part, folder);
  }
  return folder;
}

function withNeeds(wanted: readonly Fixture[]): ReadonlySet<Fixture> {
  const result = new Set(wanted);
  // A set yields what is added while it is walked.
  for (const each of result) for (const file of each.needs) result.add(fixture(file));
  return result;
}

async function unpack(
  { file, stored }: Pick<Fixture, 'file' | 'stored'>,
  folder: string,
): Promise<void> {
  const raw = await readFile(path.join(projectFolder, 'fixtures', 'images', stored));
  const bytes = stored === file ? raw : gunzipSync(raw);
  const target = path.join(folder, file);
  await mkdir(path.dirname(target), { recursive: true });
  const handle = await open(target, 'w');
  try {
    // Holes stay holes, so that a test of two hundred images costs no gigabyte of disk.
    await handle.truncate(bytes.length);
    const block = 4096;
    for (let offset = 0; offset < bytes.length; offset += block) {
      const part = bytes.subarray(offset, offset + block);
      if (part.some((byte) => byte !== 0)) await handle.write(part, 0, part.length, offset);
    }
  } finally {
    await handle.close();
  }
}
