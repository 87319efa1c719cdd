/**
 * Goes through the moments of a recorded run of an image of a mapping, makes what a power cut could have left
 * there, and has each new state judged: by an own reading always, by the library and qemu-img by sample.
 */
import { Random } from '../../stress/random.js';
import type { ExaminationOptions, Outcome } from '../examination.js';
import { FileState } from '../file-state.js';
import { pendingOf, pointsOf } from '../pending.js';
import { type PlacedPiece, visitStates } from '../states.js';
import { Expectation } from './judge.js';
import type { MappedRecording } from './recording.js';
import { type MappedSample, judgeByLibrary, objectionOfQemu } from './samples.js';

const mostFailures = 5;

/** Examines a recording. */
export async function examineMapped(
  recording: MappedRecording,
  options: ExaminationOptions,
): Promise<Outcome> {
  return new MappedExamination(recording, options).run();
}

class MappedExamination {
  readonly #recording: MappedRecording;
  readonly #options: ExaminationOptions;
  readonly #state: FileState;
  readonly #seen = new Set<string>();
  readonly #shapes = new Set<string>();
  readonly #samples: { readonly sample: MappedSample; name: string; isReal: boolean }[] = [];
  readonly #outcome: Outcome;

  constructor(recording: MappedRecording, options: ExaminationOptions) {
    this.#recording = recording;
    this.#options = options;
    const { initial, log } = recording.file;
    const ends = log.changes.map(({ offset, length }) => offset + length);
    this.#state = new FileState(initial, Math.max(0, ...ends));
    const ios = log.changes.length + log.barriers.length;
    this.#outcome = { ios, enumerated: 0, distinct: 0, byEngine: 0, byRealTool: 0, failures: [] };
  }

  async run(): Promise<Outcome> {
    const { file, promises, seed, workload } = this.#recording;
    const { momentEvery = 1, withoutBarrier, deadlineMs = Infinity } = this.#options;
    const random = new Random(seed ^ 0x2545f491);
    const barriers = file.log.barriers.filter((_, number) => number !== withoutBarrier);
    const changes = pendingOf(file, 0, barriers).sort((a, b) => a.submitted - b.submitted);
    const byDurability = changes
      .filter(({ durable }) => durable !== Infinity)
      .sort((one, other) => one.durable - other.durable || one.completed - other.completed);
    const points = pointsOf(promises, changes, file.log.barriers);
    let applied = 0;
    for (const [number, time] of points.entries()) {
      if (number % momentEvery !== seed % momentEvery && time !== points.at(-1)) continue;
      while (applied < byDurability.length && byDurability[applied].durable <= time) {
        this.#state.apply(byDurability[applied++]);
      }
      const expectation = new Expectation(workload, promises.permittedAt(time));
      const flushed = promises.flushedAt(time);
      const pending = changes.filter(
        ({ submitted, durable }) => submitted <= time && durable > time,
      );
      visitStates(pending, random, (pieces, shape) => {
        const name = `${workload.name}, seed ${seed} at ${time}, ${shape} (${pieces.length})`;
        this.#visit(pieces, shape, expectation, flushed, name);
      });
      for (const each of this.#samples.splice(0)) await this.#judgeSample(each);
      if (this.#outcome.failures.length >= mostFailures || Date.now() > deadlineMs) break;
    }
    return this.#outcome;
  }

  #visit(
    pieces: readonly PlacedPiece[],
    shape: string,
    expectation: Expectation,
    flushed: number,
    name: string,
  ): void {
    const outcome = this.#outcome;
    outcome.enumerated++;
    this.#state.begin();
    for (const piece of pieces) this.#state.apply(piece);
    const key = [flushed, ...this.#state.hashes].join();
    if (!this.#seen.has(key) && outcome.failures.length < mostFailures) {
      this.#seen.add(key);
      const { engineEvery, realEvery } = this.#options;
      const number = outcome.distinct++;
      const { bytes, size } = this.#state;
      const problems = expectation.problems(bytes, size);
      for (const problem of problems) outcome.failures.push(`${name}: ${problem}`);
      const isFirst = !this.#shapes.has(shape) || problems.length > 0;
      this.#shapes.add(shape);
      const isReal = realEvery > 0 && (isFirst || number % realEvery === 0);
      if (isReal || isFirst || number % engineEvery === 0) {
        const { workload, filename } = this.#recording;
        const { permitted } = expectation;
        const sample = { workload, filename, image: bytes.slice(0, size), permitted };
        this.#samples.push({ sample, name, isReal });
      }
    }
    this.#state.rollBack();
  }

  async #judgeSample({
    sample,
    name,
    isReal,
  }: {
    readonly sample: MappedSample;
    readonly name: string;
    readonly isReal: boolean;
  }): Promise<void> {
    const outcome = this.#outcome;
    try {
      outcome.byEngine++;
      await judgeByLibrary(sample);
      if (!isReal) return;
      outcome.byRealTool++;
      const objection = await objectionOfQemu(sample);
      if (objection !== undefined) outcome.failures.push(`${name}: ${objection}`);
    } catch (error) {
      outcome.failures.push(`${name}: the library: ${(error as Error).message}`);
    }
  }
}
