/** Outcomes as a table, as JSON, and as a picture. */
import type { Outcome } from './duel.js';

/** A line of the table for a terminal. */
export function tableLine(outcome: Outcome): string {
  const figure = (value: number): string =>
    outcome.unit === 'op/s' ? `${(value / 1000).toFixed(1)}k` : value.toFixed(2);
  const verdict = outcome.ratio >= outcome.goal ? 'reached' : 'MISSED';
  const { oursProcessor, peerProcessor } = outcome;
  const processor =
    oursProcessor !== undefined && peerProcessor !== undefined
      ? `${oursProcessor.toFixed(2)} / ${peerProcessor.toFixed(2)} s of processor`
      : '';
  return [
    outcome.name.padEnd(58),
    figure(outcome.ours).padStart(9),
    figure(outcome.peer).padStart(9),
    `${outcome.ratio.toFixed(2)}x`.padStart(8),
    `of ${outcome.goal}x`.padStart(8),
    verdict,
    processor.padEnd(28),
    outcome.peerLabel,
  ].join('  ');
}

/** Bars of each ratio, with a mark at its goal; an SVG document. */
export function picture(outcomes: readonly Outcome[]): string {
  const row = 26;
  const left = 430;
  const scale = 60;
  const width = 1000;
  const height = outcomes.length * row + 50;
  const bars = outcomes.map((outcome, index) => {
    const y = 30 + index * row;
    const length = Math.min(outcome.ratio * scale, width - left - 60);
    const goal = left + Math.min(outcome.goal * scale, width - left - 60);
    const colour = outcome.ratio >= outcome.goal ? '#3a7d44' : '#b5482f';
    return [
      `<text x="${left - 8}" y="${y + 14}" text-anchor="end">${escapeText(outcome.name)}</text>`,
      `<rect x="${left}" y="${y}" width="${length.toFixed(1)}" height="18" fill="${colour}"/>`,
      `<line x1="${goal}" x2="${goal}" y1="${y - 3}" y2="${y + 21}" stroke="#222"/>`,
      `<text x="${left + length + 6}" y="${y + 14}">${outcome.ratio.toFixed(2)}x</text>`,
    ].join('');
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="sans-serif" font-size="13">`,
    `<rect width="100%" height="100%" fill="#fff"/>`,
    `<text x="${left}" y="18">times as fast as the peer; the line is the goal</text>`,
    ...bars,
    '</svg>',
  ].join('\n');
}

function escapeText(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
}
