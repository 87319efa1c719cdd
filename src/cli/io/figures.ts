/** What is told of a request that is done: how much it moved, in which time. */
import { exactInteger, toFixedEven } from '../text/decimal.js';

const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** A size with its unit, to three decimals where it is no whole number of them. */
export function sizeText(bytes: number): string {
  let power = 0;
  while (power < units.length - 1 && bytes >= 1024 ** (power + 1)) power += 1;
  const digits = toFixedEven(bytes / 1024 ** power, power === 0 ? 6 : 3);
  return `${digits.replace(/\.000.*$/, '')} ${units[power]}`;
}

/** A request that is done. */
export interface DoneRequest {
  /** What was done: `read`, `wrote`, `discard`. */
  readonly verb: string;
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  readonly seconds: number;
  /** Whether the figures are for programs. */
  readonly isTerse: boolean;
}

/** The lines that tell of it. */
export function figures({ verb, offset, length, seconds, isTerse }: DoneRequest): string {
  const elapsed = Math.max(seconds, 1e-9);
  const [bytesEach, requestsEach] = [length / elapsed, 1 / elapsed];
  if (isTerse) {
    const rates = [bytesEach, requestsEach].map((rate) => rate.toFixed(3));
    return `${[length, 1, clockText(seconds), ...rates].join(',')}\n`;
  }
  const time = seconds < 60 ? `${secondsText(seconds)} sec` : clockText(seconds);
  return (
    `${verb} ${length}/${length} bytes at offset ${exactInteger(offset)}\n` +
    `${sizeText(length)}, 1 ops; ${time} (${sizeText(bytesEach)}/sec and ${requestsEach.toFixed(4)} ops/sec)\n`
  );
}

/** Hours, minutes and seconds. */
function clockText(seconds: number): string {
  const minutes = Math.floor(seconds / 60);
  const [hour, minute] = [Math.floor(minutes / 60), minutes % 60];
  return `${hour}:${String(minute).padStart(2, '0')}:${secondsText(seconds - minutes * 60)}`;
}

/** Cut off after hundredths, as a clock shows them. */
function secondsText(seconds: number): string {
  return (Math.floor(seconds * 100) / 100).toFixed(2).padStart(5, '0');
}
