/** Running a program with a limited amount of memory, as in a container. */
import { randomUUID } from 'node:crypto';
import { access, constants, mkdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { TestContext } from 'node:test';

/** A control group of its own. */
interface MemoryGroup {
  readonly folder: string;
  /** Names of the files that limit it, and whether they have to be there. */
  readonly limits: readonly (readonly [string, boolean])[];
}

const root = '/sys/fs/cgroup';

/** Where a group with a limit of memory can be made: version 1 or 2 of the control groups. */
async function newGroup(): Promise<MemoryGroup | undefined> {
  const name = `cowherd-test-${randomUUID()}`;
  const first = path.join(root, 'memory');
  if (await isWritable(path.join(first, 'memory.limit_in_bytes'))) {
    const limits = [
      ['memory.limit_in_bytes', true],
      ['memory.memsw.limit_in_bytes', false],
    ] as const;
    return { folder: path.join(first, name), limits };
  }
  const children = await readFile(path.join(root, 'cgroup.subtree_control'), 'utf8').catch(
    () => '',
  );
  if (!children.split(/\s/).includes('memory') || !(await isWritable(root))) return undefined;
  const limits = [
    ['memory.max', true],
    ['memory.swap.max', false],
  ] as const;
  return { folder: path.join(root, name), limits };
}

async function isWritable(file: string): Promise<boolean> {
  return await access(file, constants.W_OK).then(
    () => true,
    () => false,
  );
}

/**
 * A command and its first arguments that run whatever follows with so much memory, its page cache included;
 * undefined, with a note, where that cannot be limited.
 */
export async function limitedMemory(
  t: TestContext,
  bytes: number,
): Promise<readonly [string, ...string[]] | undefined> {
  const group = await newGroup();
  if (group === undefined) {
    t.skip('needs control groups of memory that can be made');
    return undefined;
  }
  const { folder, limits } = group;
  await mkdir(folder);
  t.after(() => rmdir(folder));
  for (const [file, isNeeded] of limits) {
    await writeFile(path.join(folder, file), String(bytes)).catch((error: unknown) => {
      if (isNeeded) throw error;
    });
  }
  const script = `echo $$ > '${path.join(folder, 'cgroup.procs')}'; exec "$@"`;
  return ['sh', '-c', script, 'sh'];
}
