/** The thread that opens malformed images. */
import { workerData } from 'node:worker_threads';
import { judgeCases } from './judge-thread.js';
import { type Mutant, applyMutant } from './mutation.js';
import { judgeImage } from './verdict.js';

const originals = workerData as ReadonlyMap<string, Uint8Array>;

judgeCases((mutant: Mutant) => judgeImage(applyMutant(originals.get(mutant.fixture)!, mutant)));
