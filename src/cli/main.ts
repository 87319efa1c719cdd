#!/usr/bin/env node
/** The executable `cowherd`: ties the program to this process's streams, signals and exit code. */
import { constants } from 'node:os';
import { runProgram } from './program.js';
import { Session } from './session.js';

const session = new Session(process.stdin, process.stdout, process.stderr);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  const exitCode = 128 + constants.signals[signal];
  process.on(signal, () => {
    // Who asks twice does not want to wait for an orderly end.
    if (session.signal.aborted) process.exit(exitCode);
    session.interrupt(exitCode);
  });
}
process.exitCode = await runProgram(process.argv.slice(2), session);
