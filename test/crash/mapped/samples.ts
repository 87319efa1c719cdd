/** States that the library and the real tool look at: opened, read, checked, and written to further. */
import { writeFile } from 'node:fs/promises';
import { openImageOn } from '../../../src/image/graph/open.js';
import { type MemoryContent, MemoryFile } from '../../../src/storage/memory/memory-file.js';
import { type Mark, backingMark, fillSectors, sectorSize } from '../../schedules/history.js';
import { run } from '../../support/tools.js';
import { bytesOf, contentOf } from '../open-over.js';
import { Expectation, assertShows } from './judge.js';
import { optionsOf } from './recording.js';
import type { MappedWorkload } from './workloads.js';

/** A state. */
export interface MappedSample {
  readonly workload: MappedWorkload;
  /** Name of the image; its backing file lies beside it. */
  readonly filename: string;
  readonly image: Uint8Array;
  readonly permitted: readonly (readonly Mark[])[];
}

/** What a VDI image's check says where its header counts blocks that the power cut took. */
const countsMore = /^ERROR: allocated blocks mismatch, is (\d+), should be (\d+)$/;

/** @throws Error if a finding is none that a power cut may leave */
function allowFinding(message: string): void {
  const counts = countsMore.exec(message);
  if (counts === null || Number(counts[1]) >= Number(counts[2])) throw new Error(message);
}

/** The library reads the image, checks it, and writes to it further. @throws Error */
export async function judgeByLibrary(sample: MappedSample): Promise<void> {
  const { workload, filename, image, permitted } = sample;
  const content = contentOf(image);
  await readAndCheck(sample, content);
  // A mark that stands in no sector yet, in a block that has a place and in one that has none.
  const mark = permitted.reduce((most, marks) => Math.max(most, ...marks), backingMark) + 1;
  const after = permitted.slice();
  const written = await openImageOn(new MemoryFile(filename, { content }), optionsOf(workload));
  for (const sector of [1, workload.sectors - 1]) {
    await written.write(fillSectors(mark, sector, 1), sector * sectorSize);
    after[sector] = [mark];
  }
  await written.close();
  await readAndCheck({ ...sample, permitted: after }, content);
  const bytes = bytesOf(content);
  const problems = new Expectation(workload, after).problems(padded(bytes), bytes.length);
  if (problems.length > 0) throw new Error(`written to further, ${problems.join('; ')}`);
}

async function readAndCheck(
  { workload, filename, permitted }: MappedSample,
  content: MemoryContent,
): Promise<void> {
  const file = new MemoryFile(filename, { content, readOnly: true });
  await using opened = await openImageOn(file, { ...optionsOf(workload), readOnly: true });
  const bytes = new Uint8Array(opened.size);
  await opened.read(bytes, 0);
  assertShows(bytes, permitted);
  if (workload.format === 'vpc') return;
  const { checkErrors, failure, findings } = await opened.check();
  if (checkErrors > 0 || failure !== undefined) throw new Error(`check fails: ${failure ?? ''}`);
  for (const { kind, message } of findings) if (kind === 'corruption') allowFinding(message);
}

/** The same by qemu-img, which must see the same disk. @returns what it objects to */
export async function objectionOfQemu(sample: MappedSample): Promise<string | undefined> {
  const { workload, filename, image, permitted } = sample;
  const file = new MemoryFile(filename, { content: contentOf(image), readOnly: true });
  await using opened = await openImageOn(file, { ...optionsOf(workload), readOnly: true });
  const disk = new Uint8Array(opened.size);
  await opened.read(disk, 0);
  assertShows(disk, permitted);
  await writeFile(filename, image);
  const raw = `${filename}.raw`;
  await writeFile(raw, disk);
  const { format } = workload;
  const compare = await run('qemu-img', ['compare', '-f', format, '-F', 'raw', filename, raw]);
  if (compare.code !== 0) return `qemu-img compare: ${compare.stdout}${compare.stderr}`;
  const check = await run('qemu-img', ['check', '-f', format, filename]);
  // 3: leaks alone; 63: the format has no check.
  if ([0, 3, 63].includes(check.code)) return undefined;
  try {
    const said = `${check.stdout}${check.stderr}`.split('\n');
    for (const line of said.filter((each) => each.startsWith('ERROR'))) allowFinding(line);
    return said.some((line) => line.startsWith('ERROR')) ? undefined : said.join(' ');
  } catch (error) {
    return `qemu-img check: ${(error as Error).message}`;
  }
}

function padded(bytes: Uint8Array): Uint8Array {
  const whole = new Uint8Array(Math.ceil(bytes.length / sectorSize) * sectorSize);
  whole.set(bytes);
  return whole;
}
