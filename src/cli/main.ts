#!/usr/bin/env node
/** The executable `cowherd`: ties the program to this process's streams, signals and exit code. */
import { constants } from 'node:os';
import path from 'node:path';
import { forgetOpen } from '../image/graph/left-open.js';
import { spareAddressSpace } from './process/address-space.js';
import { givenArguments } from './options/given-arguments.js';
import { optimiseLate } from './process/late-optimisation.js';
import { programName, runProgram } from './program.js';
import { Session } from './process/session.js';

/** Signals this soon after the first one repeat it: timeout(1) signals a process and then its group. */
const repetitionMs = 1000;

spareAddressSpace();
optimiseLate();

const name = programName(path.basename(process.argv[1] ?? ''));
const session = new Session(process.stdin, process.stdout, process.stderr, name);
// Without a listener Node would open a debugger, to be reached over the network.
process.on('SIGUSR1', () => session.onStatusAsked?.());
let askedAt: number | undefined;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  const exitCode = 128 + constants.signals[signal];
  process.on(signal, () => {
    askedAt ??= performance.now();
    session.interrupt(exitCode);
    if (performance.now() - askedAt <= repetitionMs) return;
    // Who asks again later does not want to wait for an orderly end, nor be told what that costs.
    forgetOpen();
    process.exit(exitCode);
  });
}
void runProgram(givenArguments(process.argv), session).then((code) => {
  process.exitCode = code;
});
