/** Holds checks and repairs of damaged images against qemu-img's. */
import assert from 'node:assert/strict';
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { assertSame, runCowherd, runQemuImg } from '../support/both-tools.js';
import { runOk } from '../support/tools.js';

/** One way to damage an image. */
export interface CheckedDamage {
  readonly what: string;
  /** Changes the file's bytes in place, or gives others. */
  readonly change: (bytes: Buffer) => Buffer | undefined;
  /** What is found on standard error, in order; compared with qemu-img's as well where that says it. */
  readonly finds?: readonly string[];
  /** What is different from qemu-img, which does not find it, or cannot: the exit code here. */
  readonly code?: number;
}

/** What the checks of a format are compared by. */
export interface CheckedFormat {
  readonly format: string;
  /** Those that are as qemu-img's. */
  readonly repairs: readonly ('leaks' | 'all')[];
  /** Whether qemu-img has the same lines on standard error. */
  readonly sameFindings: boolean;
}

/**
 * Damages an image in each of some ways, and asserts that it is checked and repaired as qemu-img does it.
 *
 * @param file an image without damage
 */
export async function assertChecks(
  file: string,
  { format, repairs, sameFindings: stderr }: CheckedFormat,
  damages: readonly CheckedDamage[],
): Promise<void> {
  const folder = path.dirname(file);
  const name = 'damaged';
  const damaged = path.join(folder, name);
  const theirs = path.join(folder, 'theirs');
  await mkdir(theirs);
  const whole = await readFile(file);
  for (const { what, change, finds = [], code } of damages) {
    const bytes = Buffer.from(whole);
    await writeFile(damaged, change(bytes) ?? bytes);
    const words = ['check', '-f', format, name];
    const found = await runCowherd(words, folder);
    assert.deepEqual(linesOf(found.stderr), finds, what);
    if (code === undefined) {
      await assertSame(words, folder, { stderr });
      await assertSame([...words, '--output=json'], folder, { stderr });
    } else assert.equal(found.code, code, what);
    for (const repair of repairs) {
      await writeFile(damaged, change(Buffer.from(whole)) ?? bytes);
      await copyFile(damaged, path.join(theirs, name));
      const options = ['check', '-f', format, '-r', repair, name];
      const [expected, actual] = [
        await runQemuImg(options, theirs),
        await runCowherd(options, folder),
      ];
      const label = `${what}, -r ${repair}`;
      assert.deepEqual([actual.code, actual.stdout], [expected.code, expected.stdout], label);
      if (stderr) assert.equal(actual.stderr, expected.stderr, label);
      const again = await runQemuImg(words, folder);
      assert.equal(again.code, expected.code, label);
      if (expected.code === 2) continue;
      const both = ['compare', '-f', format, '-F', format, name, path.join('theirs', name)];
      await runOk('qemu-img', both, { cwd: folder });
    }
  }
}

function linesOf(text: string): string[] {
  return text.split('\n').filter((line) => line !== '');
}
