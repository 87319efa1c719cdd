/** The facts about an image as text for people, laid out as qemu-img does. */
import type { FormatSpecificInfo, ImageInfo, SnapshotInfo } from '../../image/api/reports.js';
import { specificJson } from './format-specific.js';
import { occupiedBytes, toldFiles } from './info-files.js';
import { wholeSectors } from './info-json.js';
import { localTime } from './local-time.js';
import type { JsonValue } from './qemu-json.js';
import { formatSize, formatSizeAndBytes } from './size.js';

/** The text that `info` prints for one image. */
export function infoText(info: ImageInfo): string {
  const lines = [
    `image: ${info.fullName ?? info.filename}`,
    `file format: ${info.format}`,
    `virtual size: ${formatSizeAndBytes(info.virtualSize)}`,
    `disk size: ${sizeText(occupiedBytes(info))}`,
  ];
  if (info.encrypted === true) lines.push('encrypted: yes');
  if (info.clusterSize !== undefined) lines.push(`cluster_size: ${info.clusterSize}`);
  if (info.dirtyFlag === true) lines.push('cleanly shut down: no');
  lines.push(...backingLines(info));
  if (info.snapshots.length > 0) lines.push('Snapshot list:', ...snapshotTable(info.snapshots));
  if (info.formatSpecific !== undefined) {
    lines.push(...specificLines(info.formatSpecific));
  }
  for (const { role, filename, protocol, fileLength, actualSize } of toldFiles(info)) {
    lines.push(
      `Child node '/${role}':`,
      `    filename: ${filename}`,
      `    protocol type: ${protocol}`,
      `    file length: ${formatSizeAndBytes(wholeSectors(fileLength))}`,
      `    disk size: ${sizeText(actualSize)}`,
    );
  }
  if (info.extentSizeHint !== undefined) {
    lines.push(
      '    Format specific information:',
      `        extent size hint: ${info.extentSizeHint}`,
    );
  }
  return lines.map((line) => `${line}\n`).join('');
}

/** The lines about what only one format has. */
export function specificLines(facts: FormatSpecificInfo): string[] {
  return ['Format specific information:', ...memberLines(specificJson(facts), '    ')];
}

function sizeText(bytes: number | undefined): string {
  return bytes === undefined ? 'unavailable' : formatSize(bytes);
}

function backingLines(info: ImageInfo): string[] {
  const { backingFilename, fullBackingFilename, backingFormat } = info;
  if (backingFilename === undefined) return [];
  let place = '';
  if (fullBackingFilename === undefined) place = ' (cannot determine actual path)';
  else if (fullBackingFilename !== backingFilename)
    place = ` (actual path: ${fullBackingFilename})`;
  const lines = [`backing file: ${backingFilename}${place}`];
  if (backingFormat !== undefined) lines.push(`backing file format: ${backingFormat}`);
  return lines;
}

/** The snapshots in rows below a row of titles. */
export function snapshotTable(snapshots: readonly SnapshotInfo[]): string[] {
  return [
    snapshotRow('ID', 'TAG', 'VM_SIZE', 'DATE', 'VM_CLOCK', 'ICOUNT'),
    ...snapshots.map((snapshot) =>
      snapshotRow(
        snapshot.id,
        snapshot.name,
        formatSize(snapshot.vmStateSize),
        formatDate(snapshot.dateSeconds),
        formatClock(snapshot.vmClockSeconds, snapshot.vmClockNanoseconds),
        snapshot.icount === undefined ? '--' : String(snapshot.icount),
      ),
    ),
  ];
}

function snapshotRow(
  id: string,
  tag: string,
  vmSize: string,
  date: string,
  vmClock: string,
  icount: string,
): string {
  return [
    id.padEnd(7),
    tag.padEnd(16),
    vmSize.padStart(8),
    date.padStart(19),
    vmClock.padStart(15),
    icount.padStart(10),
  ].join(' ');
}

/** A point in time in the local time zone. */
function formatDate(seconds: number): string {
  const local = localTime(seconds);
  const day = [local.year, local.month, local.day];
  const time = [local.hour, local.minute, local.second];
  return `${day.map(twoDigits).join('-')} ${time.map(twoDigits).join(':')}`;
}

function twoDigits(value: number): string {
  return String(value).padStart(2, '0');
}

function formatClock(seconds: number, nanoseconds: number): string {
  const hours = String(Math.floor(seconds / 3600)).padStart(4, '0');
  const minutes = twoDigits(Math.floor(seconds / 60) % 60);
  const milliseconds = String(Math.floor(nanoseconds / 1e6)).padStart(3, '0');
  return `${hours}:${minutes}:${twoDigits(seconds % 60)}.${milliseconds}`;
}

/** Members of a nested value, a line each, names with spaces instead of dashes. */
function memberLines(
  members: Readonly<Record<string, JsonValue | undefined>>,
  indent: string,
): string[] {
  return Object.entries(members).flatMap(([key, value]) =>
    value === undefined ? [] : valueLines(key.replaceAll('-', ' '), value, indent),
  );
}

function valueLines(label: string, value: JsonValue, indent: string): string[] {
  if (typeof value !== 'object') return [`${indent}${label}: ${String(value)}`];
  const inner = `${indent}    `;
  const lines = Array.isArray(value)
    ? (value as readonly JsonValue[]).flatMap((item, index) =>
        valueLines(`[${index}]`, item, inner),
      )
    : memberLines(value as Readonly<Record<string, JsonValue | undefined>>, inner);
  return [`${indent}${label}:`, ...lines];
}
