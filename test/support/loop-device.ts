/** Block devices for tests: files behind loop devices, which need a privileged user. */
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { TestContext } from 'node:test';
import { findTool, run } from './tools.js';

/**
 * A block device of so many bytes, each of that value, until the test ends. Where that is not
 * allowed, the test is marked skipped and the caller returns.
 */
export async function loopDevice(
  t: TestContext,
  folder: string,
  bytes: number,
  value = 0,
): Promise<string | undefined> {
  if (process.platform !== 'linux' || findTool('losetup') === undefined) {
    t.skip('needs losetup(8)');
    return undefined;
  }
  const file = path.join(folder, `device-${process.pid}-${process.hrtime.bigint()}`);
  await writeFile(file, Buffer.alloc(bytes, value));
  const { code, stdout, stderr } = await run('losetup', ['--find', '--show', file]);
  if (code !== 0) {
    t.skip(`needs permission to set up loop devices: ${stderr.trim()}`);
    return undefined;
  }
  const device = stdout.trim();
  t.after(() => run('losetup', ['--detach', device]));
  return device;
}
