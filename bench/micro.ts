/** Runs micro benchmarks by the `benchmark` package, and prints what a step of each costs. */
import Benchmark from 'benchmark';
import { type MicroBenchmark, microBenchmarks } from './cases/micro.js';

/** What a step of a benchmark takes. */
export interface MicroOutcome {
  readonly name: string;
  readonly nanoseconds: number;
  /** Relative margin of error in percent, as `benchmark` has it. */
  readonly marginPercent: number;
  readonly samples: number;
}

/** Runs one for some seconds. */
async function measure(
  { name, steps, run }: MicroBenchmark,
  seconds: number,
): Promise<MicroOutcome> {
  // A step that waits is measured to its end; one that does not must not be made to.
  const first = run();
  await first;
  const defer = first !== undefined;
  const ended = await new Promise<Benchmark>((resolve, reject) => {
    const benchmark = new Benchmark(name, {
      maxTime: seconds,
      minSamples: 3,
      defer,
      fn: defer
        ? (deferred: { resolve: () => void }) => {
            run()!.then(() => {
              deferred.resolve();
            }, reject);
          }
        : run,
      onComplete: () => {
        resolve(benchmark);
      },
      onError: () => {
        reject(benchmark.error);
      },
    });
    benchmark.run({ async: true });
  });
  return {
    name,
    nanoseconds: (ended.stats.mean * 1e9) / steps,
    marginPercent: ended.stats.rme,
    samples: ended.stats.sample.length,
  };
}

/**
 * Runs every micro benchmark whose name contains a text, one after the other.
 *
 * @param seconds how long each is measured, beyond what warms it up
 * @param onOutcome called with each
 */
export async function runMicroBenchmarks(
  only: string,
  seconds: number,
  onOutcome: (outcome: MicroOutcome) => void,
): Promise<void> {
  for (const benchmark of await microBenchmarks()) {
    if (benchmark.name.includes(only)) onOutcome(await measure(benchmark, seconds));
  }
}

/** A line of the table for a terminal. */
export function microLine({ name, nanoseconds, marginPercent, samples }: MicroOutcome): string {
  const digits = nanoseconds < 100 ? 1 : 0;
  return [
    name.padEnd(44),
    `${nanoseconds.toFixed(digits)} ns`.padStart(14),
    `±${marginPercent.toFixed(1)} %`.padStart(10),
    `${samples} samples`.padStart(14),
  ].join('');
}
