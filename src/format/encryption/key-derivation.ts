/** Keys made of passwords (PBKDF2), and how many iterations take how long here. */
import { pbkdf2 } from 'node:crypto';
import { promisify } from 'node:util';

const derive = promisify(pbkdf2);

/** Milliseconds of a run by which the speed is told. */
const measuredMs = 200;
const firstIterations = 32768;
const mostIterations = 2 ** 31 - 1;

/** A key of `length` bytes. */
export async function deriveKey(
  hash: string,
  password: Uint8Array,
  salt: Uint8Array,
  iterations: number,
  length: number,
): Promise<Uint8Array> {
  return new Uint8Array(await derive(password, salt, iterations, length, hash));
}

/** Iterations that take about so many milliseconds. */
export async function iterationsWithin(
  milliseconds: number,
  hash: string,
  password: Uint8Array,
  salt: Uint8Array,
  length: number,
): Promise<number> {
  for (let iterations = firstIterations; ; iterations *= 2) {
    const begun = performance.now();
    await deriveKey(hash, password, salt, iterations, length);
    const took = performance.now() - begun;
    if (took < Math.min(measuredMs, milliseconds) && iterations * 2 < mostIterations) continue;
    return Math.min(mostIterations, Math.floor((iterations * milliseconds) / took));
  }
}
