/** What programs print, without what two runs of one and the same program need not have in common. */
import type { RunResult } from '../support/tools.js';

/** Without times, in what is printed for people. */
export function comparable({ stdout, stderr, code }: RunResult): RunResult {
  // QEMU calls what has no other name by a number.
  const named = stderr.replaceAll(/ persistent in '.*?'/g, " persistent in 'disk'");
  return { stdout: withoutTimes(stdout), stderr: named, code };
}

/** Without where new clusters lie, too: writes that are under way side by side take them in any order. */
export function placeless(result: RunResult): RunResult {
  const { stdout, stderr: said, code } = comparable(result);
  const stderr = said.replaceAll(/(Cluster at offset) 0x[\da-f]+/g, '$1');
  const text = stdout
    .replaceAll(/ \d+\.\d+% fragmented,/g, '')
    .replaceAll(/^Image end offset: \d+\n/gm, '');
  return { stdout: text, stderr, code };
}

function withoutTimes(text: string): string {
  return (
    text
      .replaceAll(/\d[\d:]*\.\d\d(?: sec)? \(.* ops\/sec\)$/gm, 'TIME')
      .replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/g, 'DATE')
      .replaceAll(/^( *disk size: ).*/gm, '$1')
      // QEMU names what was given a secret by a list of all options, in an order of its own.
      .replaceAll(/^image: json:\{.*\}$/gm, 'image: disk')
  );
}

/** The parts of `info --output=json` that two images made alike have in common. */
export function factsOf(text: string): unknown {
  return JSON.parse(text, (name, value: unknown) => {
    if (name === 'actual-size' || name.startsWith('date-')) return undefined;
    // Lengths of files, which depend on the order in which clusters were taken.
    if (name === 'children') return undefined;
    // What is drawn at random, or measured, when a disk is encrypted.
    if (name === 'uuid' || name === 'iters' || name === 'master-key-iters') return undefined;
    return value;
  });
}

/** A stretch that `map --output=json` tells. */
interface Extent {
  readonly start: number;
  readonly length: number;
  readonly depth: number;
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
  readonly compressed: boolean;
}

/** How a disk is stored, without the places in the file. */
export function storedAs(text: string): readonly Extent[] {
  const all: Extent[] = [];
  let before = '';
  for (const extent of JSON.parse(text) as readonly Extent[]) {
    const { start, length, depth, present, data, compressed } = extent;
    // Which of the data are a hole of the host is the host's business.
    const kind = { depth, present, zero: extent.zero && !data, data, compressed };
    const last = all.at(-1);
    if (last !== undefined && JSON.stringify(kind) === before) {
      all[all.length - 1] = { ...last, length: last.length + length };
    } else all.push({ start, length, ...kind });
    before = JSON.stringify(kind);
  }
  return all;
}

/** What `check --output=json` counts, whatever lies where. */
export function countsOf(text: string): unknown {
  const { ...counts } = JSON.parse(text) as Record<string, unknown>;
  delete counts['image-end-offset'];
  delete counts['fragmented-clusters'];
  return counts;
}
