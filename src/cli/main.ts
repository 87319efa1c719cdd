#!/usr/bin/env node
/** The executable `cowherd`: ties the program to this process's streams, signals and exit code. */
import { interruptedCode, runProgram } from './program.js';
import { Session } from './session.js';

const session = new Session(process.stdin, process.stdout, process.stderr);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    // Who asks twice does not want to wait for an orderly end.
    if (session.signal.aborted) process.exit(interruptedCode);
    session.interrupt();
  });
}
process.exitCode = await runProgram(process.argv.slice(2), session);
